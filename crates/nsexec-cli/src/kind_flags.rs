//! The flags of the kinds of namespace, which the commands that create and that join them share: names,
//! letters and the optional file.

/// The heading of these flags in the help.
pub(crate) const NAMESPACES: &str = "Namespaces";

/// Defines a struct with one flag for each kind. The help of two flags differs between the commands.
macro_rules! kind_flags {
    ($(#[$about:meta])* $name:ident {
        $(#[$pid:meta])* pid,
        $(#[$net:meta])* net,
    }) => {
        $(#[$about])*
        #[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
        pub(crate) struct $name {
            /// User namespace: ids and privileges
            #[arg(short = 'U', long, value_name = "FILE", num_args = 0..=1, require_equals = true, action = Append, help_heading = NAMESPACES)]
            pub(crate) user: Option<Option<OsString>>,
            /// Mount namespace: the mounts
            #[arg(short, long, value_name = "FILE", num_args = 0..=1, require_equals = true, action = Append, help_heading = NAMESPACES)]
            pub(crate) mount: Option<Option<OsString>>,
            $(#[$pid])*
            #[arg(short, long, value_name = "FILE", num_args = 0..=1, require_equals = true, action = Append, help_heading = NAMESPACES)]
            pub(crate) pid: Option<Option<OsString>>,
            $(#[$net])*
            #[arg(short, long, value_name = "FILE", num_args = 0..=1, require_equals = true, action = Append, help_heading = NAMESPACES)]
            pub(crate) net: Option<Option<OsString>>,
            /// IPC namespace: System V IPC, POSIX message queues
            #[arg(short, long, value_name = "FILE", num_args = 0..=1, require_equals = true, action = Append, help_heading = NAMESPACES)]
            pub(crate) ipc: Option<Option<OsString>>,
            /// UTS namespace: host name
            #[arg(short, long, value_name = "FILE", num_args = 0..=1, require_equals = true, action = Append, help_heading = NAMESPACES)]
            pub(crate) uts: Option<Option<OsString>>,
            /// Cgroup namespace: the root of /proc/PID/cgroup
            #[arg(short = 'C', long, value_name = "FILE", num_args = 0..=1, require_equals = true, action = Append, help_heading = NAMESPACES)]
            pub(crate) cgroup: Option<Option<OsString>>,
            /// Time namespace: offsets of the monotonic and the boot-time clock
            #[arg(short = 'T', long, value_name = "FILE", num_args = 0..=1, require_equals = true, action = Append, help_heading = NAMESPACES)]
            pub(crate) time: Option<Option<OsString>>,
        }

        impl $name {
            fn flags(&self) -> [(&Option<Option<OsString>>, NsKind); 8] {
                [
                    (&self.user, NsKind::User),
                    (&self.mount, NsKind::Mnt),
                    (&self.pid, NsKind::Pid),
                    (&self.net, NsKind::Net),
                    (&self.ipc, NsKind::Ipc),
                    (&self.uts, NsKind::Uts),
                    (&self.cgroup, NsKind::Cgroup),
                    (&self.time, NsKind::Time),
                ]
            }

            /// Names a kind. A file that was named for it before stays.
            pub(crate) fn name(&mut self, kind: NsKind, file: Option<OsString>) {
                let flag = match kind {
                    NsKind::User => &mut self.user,
                    NsKind::Mnt => &mut self.mount,
                    NsKind::Pid => &mut self.pid,
                    NsKind::Net => &mut self.net,
                    NsKind::Ipc => &mut self.ipc,
                    NsKind::Uts => &mut self.uts,
                    NsKind::Cgroup => &mut self.cgroup,
                    NsKind::Time => &mut self.time,
                };
                let before = flag.take().flatten();
                *flag = Some(file.or(before));
            }
        }
    };
}

pub(crate) use kind_flags;
