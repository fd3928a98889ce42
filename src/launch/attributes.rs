//! The settings of a [`Command`] for the attributes of its process: limits, capabilities, filters; and for
//! its host name and its loopback interface.

use std::format;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::vec::Vec;

use super::command::Command;
use super::setting::SettingError;
use super::surroundings::NewSysfs;
use crate::deciders::namespace::{NsKind, NsSet};
use crate::sys::types::{BpfInstruction, Capability, Limit, Propagation, Resource};

/// The longest host name in bytes (`HOST_NAME_MAX`, sethostname(2)).
const HOST_NAME_MAX: usize = 64;

/// The largest number of instructions of a filter (`BPF_MAXINSNS`, seccomp(2)).
const INSTRUCTIONS_MAX: usize = 4096;

impl Command {
    /// Sets the host name in the new UTS namespace (sethostname(2)): at most 64 bytes.
    pub fn hostname(&mut self, name: impl AsRef<[u8]>) -> &mut Self {
        let name = name.as_ref();
        if name.is_empty() || name.len() > HOST_NAME_MAX || name.contains(&0) {
            let why = format!("1 to {HOST_NAME_MAX} bytes without a NUL are needed");
            self.note(SettingError::Value { setting: "hostname", why });
            return self;
        }
        self.around.hostname = Some(name.into());
        self
    }

    /// Turns the loopback interface of the new network namespace on: without it, 127.0.0.1 does not answer.
    pub fn loopback_up(&mut self) -> &mut Self {
        self.around.loopback = true;
        self
    }

    /// Mounts a new sysfs over /sys, whose /sys/class/net lists the devices of the new network namespace.
    /// Without it the command sees those of the caller. The mounts on directories of /sys, such as
    /// /sys/fs/cgroup, are mounted on the new one too, and a read-only /sys stays read-only.
    ///
    /// /sys stays as it is if the kernel or a security module refuses the mount, as in most containers
    /// (user_namespaces(7)), and if /sys is not a whole sysfs. Mounts that the host makes on /sys later are
    /// not seen inside. For a command with another root directory there is [`sys`](Self::sys).
    pub fn sys_of_network(&mut self) -> &mut Self {
        self.around.sysfs = Some(NewSysfs::default());
        self
    }

    /// Makes the command's standard input, which must be a terminal, the controlling terminal of the
    /// [`new_session`](Self::new_session) that this setting creates (TIOCSCTTY(2const)): the keys Ctrl-C and
    /// Ctrl-Z, and the end of the connection, then send signals to the command. The terminal must not control
    /// another session, so it is usually the second end of a new pseudo-terminal (pty(7)).
    pub fn controlling_terminal(&mut self) -> &mut Self {
        self.around.terminal = true;
        self.new_session()
    }

    /// Gives the command a new, empty session keyring (session-keyring(7)), which belongs to its user id.
    /// Without it the command has the keys of the caller's session, and a namespace does not change that.
    ///
    /// A command of the caller's user id can still link keys that give their user this right: a named
    /// keyring, and without a new user namespace the user keyring (user-keyring(7)). Another user id or a
    /// seccomp filter for keyctl(2) prevents that.
    pub fn new_session_keyring(&mut self) -> &mut Self {
        self.around.keyring = true;
        self
    }

    /// Makes process 1 of the new pid namespace a minimal init, and the command its child. Without it the
    /// command is process 1: the kernel gives it the orphans to reap, and discards signals for which it has
    /// no handler (pid_namespaces(7)).
    ///
    /// The init reaps every orphan of the namespace, and forwards each signal that it gets to the command. It
    /// forwards neither SIGCHLD nor a signal that the kernel has sent. A terminal's signal reaches the
    /// command directly, because the init and the command have the same process group and session. One
    /// exception: with a new session the init is its leader, and forwards the SIGHUP of a terminal that ends.
    /// SIGKILL and SIGSTOP cannot be forwarded.
    ///
    /// When the command ends, the init exits with its status, or with 128 plus the number of the signal that
    /// ended it. The kernel then ends the other processes of the namespace.
    ///
    /// [`Child`](super::Child) is the init. The caller gets no SIGCHLD when the init ends, because the init
    /// never calls execve(2). Send a signal to the init, not to its process group: the command would get the
    /// signal twice. A stop of the command does not stop the init.
    ///
    /// The init has the namespaces, the root directory, the working directory and the session of the command.
    /// It does not have its descriptors, limits, ids, groups, capabilities, Landlock rules and seccomp
    /// filter, and its umask is the caller's. It is a fork of this process without an exec: its
    /// /proc/1/cmdline shows the arguments of this program, and its memory is a copy. So it is not dumpable
    /// (PR_SET_DUMPABLE(2const)): only a process with CAP_SYS_PTRACE in this process's user namespace can
    /// read the memory, or open its namespaces in /proc. For other callers [`Child::namespace`] fails with
    /// `EACCES`. They can open the namespaces before the start, with [`Starting::namespace`].
    ///
    /// [`Child::namespace`]: super::Child::namespace
    /// [`Starting::namespace`]: super::Starting::namespace
    pub fn init(&mut self) -> &mut Self {
        self.init = true;
        self
    }

    /// Limits a resource of the command (setrlimit(2)): `soft` is enforced, and the command may raise it up
    /// to `hard`. The units are those of the [`Resource`]. [`Limit::INFINITY`] is no limit. A hard limit
    /// above the caller's own needs CAP_SYS_RESOURCE in the first user namespace.
    pub fn limit(&mut self, resource: Resource, soft: u64, hard: u64) -> &mut Self {
        if soft > hard {
            let why = format!("the soft limit {soft} of {resource} is above the hard one, {hard}");
            self.note(SettingError::Value { setting: "limit", why });
            return self;
        }
        self.around.limits.push(Limit { resource, soft, hard });
        self
    }

    /// Sets the mask of permissions that new files of the command do not get (umask(2)).
    pub fn umask(&mut self, mask: u32) -> &mut Self {
        match mask {
            0..=0o777 => self.around.umask = Some(mask),
            _ => {
                let why = format!("{mask:#o} is not a mask of permissions, which end at 0o777");
                self.note(SettingError::Value { setting: "umask", why });
            }
        }
        self
    }

    /// Gives the command these capabilities and removes all others that the kernel knows (capabilities(7)),
    /// also for programs that it executes: the others are removed from the bounding set, and a user id other
    /// than 0 keeps these through the ambient set (Linux 4.3). An empty list removes all.
    ///
    /// In a new user namespace they are capabilities over that namespace and those that it owns.
    pub fn capabilities(&mut self, kept: impl IntoIterator<Item = Capability>) -> &mut Self {
        let mut set = 0;
        for capability in kept {
            match capability.name() {
                Some(_) => set |= 1 << capability.0,
                None => {
                    let why = format!("{capability} is not a known capability");
                    self.note(SettingError::Value { setting: "capabilities", why });
                }
            }
        }
        self.around.capabilities = Some(set);
        self
    }

    /// Ensures that no exec gives the command new privileges (PR_SET_NO_NEW_PRIVS(2const)): set-user-id bits
    /// and file capabilities have no effect. Cannot be undone.
    pub fn no_new_privs(&mut self) -> &mut Self {
        self.around.no_new_privs = true;
        self
    }

    /// Installs a seccomp filter (seccomp(2)), and sets [`no_new_privs`](Self::no_new_privs), which the
    /// kernel asks for. The crate seccompiler makes such programs.
    ///
    /// The filter is installed last, right before the exec, so it must allow execve(2). A failed exec is
    /// reported with its cause if it also allows newfstatat(2), rt_sigprocmask(2), getpid(2), pwritev2(2),
    /// write(2), poll(2) and exit_group(2).
    pub fn seccomp_filter(&mut self, program: impl Into<Vec<BpfInstruction>>) -> &mut Self {
        let program = program.into();
        if program.is_empty() || program.len() > INSTRUCTIONS_MAX {
            let why = format!("{} instructions; the kernel takes 1 to {INSTRUCTIONS_MAX}", program.len());
            self.note(SettingError::Value { setting: "seccomp_filter", why });
            return self;
        }
        if self.around.filter.is_some() {
            self.note(SettingError::Conflict {
                settings: ["seccomp_filter", "seccomp_filter"],
                why: "a launch installs one filter: join both programs",
            });
        }
        self.around.filter = Some(program);
        self.no_new_privs()
    }

    /// Installs a seccomp filter as [`seccomp_filter`](Self::seccomp_filter) does. The program is in the form
    /// in which libseccomp exports it (`seccomp_export_bpf(3)`) and bubblewrap takes it: 8 bytes for each
    /// instruction, in the machine's byte order.
    pub fn seccomp_filter_bytes(&mut self, program: impl AsRef<[u8]>) -> &mut Self {
        let read = |instruction: &[u8]| match *instruction {
            [a, b, jt, jf, k1, k2, k3, k4] => Some(BpfInstruction {
                code: u16::from_ne_bytes([a, b]),
                jt,
                jf,
                k: u32::from_ne_bytes([k1, k2, k3, k4]),
            }),
            _ => None,
        };
        let program = program.as_ref();
        match program.chunks(8).map(read).collect::<Option<Vec<_>>>() {
            Some(instructions) => self.seccomp_filter(instructions),
            None => {
                let why =
                    format!("{} bytes are not a number of whole instructions of 8 bytes", program.len());
                self.note(SettingError::Value { setting: "seccomp_filter_bytes", why });
                self
            }
        }
    }

    /// Restricts the command by a Landlock rule set (landlock(7), Linux 5.13), given as its descriptor, and
    /// sets [`no_new_privs`](Self::no_new_privs), which the kernel asks for. The crate landlock makes rule
    /// sets. The set must allow the exec of the command.
    pub fn landlock(&mut self, ruleset: impl Into<OwnedFd>) -> &mut Self {
        self.landlock = Some(Arc::new(ruleset.into()));
        self.no_new_privs()
    }

    /// Checks the settings of attributes. `joined` are the kinds that are joined.
    pub(super) fn check_attributes(&self, joined: NsSet, rootless: bool) -> Result<(), SettingError> {
        // A joined namespace is in use by others: the name and the interface would change for them.
        if self.around.hostname.is_some() && !self.created.contains(NsKind::Uts) {
            return Err(SettingError::NeedsNamespace { setting: "hostname", kind: NsKind::Uts });
        }
        if self.around.loopback && !self.created.contains(NsKind::Net) {
            return Err(SettingError::NeedsNamespace { setting: "loopback_up", kind: NsKind::Net });
        }
        self.check_sysfs()?;
        if self.init && !self.created.contains(NsKind::Pid) {
            return Err(SettingError::NeedsNamespace { setting: "init", kind: NsKind::Pid });
        }
        let has_user = self.created.contains(NsKind::User) || joined.contains(NsKind::User);
        if self.around.capabilities.is_some() && rootless && !has_user {
            return Err(SettingError::Value {
                setting: "capabilities",
                why: "the caller has none over its user namespace: create or join one".into(),
            });
        }
        Ok(())
    }

    /// Checks the namespaces and the other mounts of a command with a new /sys.
    fn check_sysfs(&self) -> Result<(), SettingError> {
        if self.around.sysfs.is_none() {
            return Ok(());
        }
        let setting = "sys_of_network";
        for kind in [NsKind::Net, NsKind::Mnt] {
            if !self.created.contains(kind) {
                return Err(SettingError::NeedsNamespace { setting, kind });
            }
        }
        if self.around.root.is_some() {
            return Err(SettingError::Conflict {
                settings: [setting, "root"],
                why: "the mounts of the command's own tree are made later: use sys, which is one of them",
            });
        }
        let reaches_host = matches!(self.propagation, None | Some(Propagation::Shared));
        match reaches_host && !self.created.contains(NsKind::User) {
            true => Err(SettingError::Conflict {
                settings: [setting, "propagation"],
                why: "the mount would reach the host: set Slave or Private",
            }),
            false => Ok(()),
        }
    }
}
