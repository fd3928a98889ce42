//! The help texts of the linked names.

use super::Name;

/// Returns the help text of a name.
pub(super) const fn of(name: Name) -> &'static str {
    match name {
        Name::Unshare => UNSHARE,
        Name::Nsenter => NSENTER,
    }
}

const UNSHARE: &str = "\
Runs a command in new namespaces. This is nsexec under the name unshare, with the
flags and the defaults of util-linux.

Usage: unshare [FLAGS] [COMMAND [ARGUMENTS]]

Without a flag nothing is new. Without COMMAND, $SHELL or /bin/sh runs.
The flags end at the first word that is not one.

Namespaces to create; with =FILE the namespace is mounted on FILE:
  -U, --user[=FILE]             ids and privileges
  -m, --mount[=FILE]            mounts
  -p, --pid[=FILE]              process ids; the first child of COMMAND is process 1
  -n, --net[=FILE]              network devices, addresses, ports
  -i, --ipc[=FILE]              System V IPC, POSIX message queues
  -u, --uts[=FILE]              host name
  -C, --cgroup[=FILE]           root of /proc/PID/cgroup
  -T, --time[=FILE]             offsets of two clocks

Processes:
  -f, --fork                    run COMMAND as a child, which is process 1 with -p
      --forward-signals         send SIGINT and SIGTERM on to COMMAND; implies -f
      --kill-child[=SIGNAL]     send SIGKILL or SIGNAL to COMMAND at our end; implies -f

Ids; each map implies -U:
  -r, --map-root-user           our ids are 0 inside
  -c, --map-current-user        our ids are the same inside
      --map-user UID|NAME       our user id is UID inside
      --map-group GID|NAME      our group id is GID inside
      --map-users I:O:N         N user ids from I inside are those from O outside;
                                or auto, subids, all, or O,I,N
      --map-groups I:O:N        the same for group ids
      --map-auto                --map-users auto --map-groups auto
      --map-subids              --map-users subids --map-groups subids
      --setgroups allow|deny    whether COMMAND may change its supplementary groups
  -S, --setuid UID              run COMMAND with this user id
  -G, --setgid GID              run COMMAND with this group id, without other groups
      --keep-caps               keep the capabilities of the new user namespace

Surroundings:
      --mount-proc[=DIR]        mount a fresh /proc, or at DIR; implies -m
      --propagation HOW         private (the default), shared, slave or unchanged
  -R, --root DIR                use DIR as the root directory
  -w, --wd DIR                  use DIR as the working directory
      --monotonic SECONDS       offset of the monotonic clock; needs -T
      --boottime SECONDS        offset of the boot-time clock; needs -T
      --clear-env               give COMMAND no variable
      --whitelist-env NAMES     give COMMAND these variables only: NAME,NAME

  -h, --help                    print this text
  -V, --version                 print the version

Left out, each with an error that names another way: --owner, --mount-binfmt,
-l (--load-interp).
Exit status: that of COMMAND; 127 if it was not found, 126 if it cannot be executed;
1 for a failure of unshare itself.
";

const NSENTER: &str = "\
Runs a command in the namespaces of a process. This is nsexec under the name nsenter,
with the flags and the defaults of util-linux.

Usage: nsenter [FLAGS] [COMMAND [ARGUMENTS]]

Without COMMAND, $SHELL or /bin/sh runs. The flags end at the first word that is not one.
A value of a flag in brackets is in the same word: --net=FILE, -n/file, -nFILE.

  -t, --target PID[:INODE]      the process; with INODE only if its pidfd has this inode
  -a, --all                     join all its namespaces

Namespaces to join: that of the process, or of FILE:
  -U, --user[=FILE]             COMMAND becomes root there
  -m, --mount[=FILE]
  -p, --pid[=FILE]              COMMAND is then a child of nsenter
  -n, --net[=FILE]
  -i, --ipc[=FILE]
  -u, --uts[=FILE]
  -C, --cgroup[=FILE]
  -T, --time[=FILE]
  -N, --net-socket FD           the network namespace of descriptor FD of the process
      --user-parent             the user namespace that owns the first one to join

Ids:
  -S, --setuid UID|follow       run COMMAND with this user id, or that of the process
  -G, --setgid GID|follow       the same for the group id, without other groups
      --preserve-credentials    keep the ids where a user namespace is joined
      --keep-caps               keep the capabilities of the joined user namespace

Surroundings:
  -r, --root[=DIR]              use the root directory of the process, or DIR
  -w, --wd[=DIR]                use the working directory of the process, or DIR
  -W, --wdns[=DIR]              use DIR, looked up in the namespaces
  -e, --env                     use the environment of the process
  -F, --no-fork                 become COMMAND, also if a pid namespace is joined
  -c, --join-cgroup             enter the cgroup of the process
  -Z, --follow-context          left out where SELinux is active, with an error

  -h, --help                    print this text
  -V, --version                 print the version

Exit status: that of COMMAND; 127 if it was not found, 126 if it cannot be executed;
1 for a failure of nsenter itself.
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_texts() {
        let out = format!("{UNSHARE}\n----\n{NSENTER}");
        crate::testing::snapshot(|| insta::assert_snapshot!("cli_linked_help", out));
    }
}
