//! The errnos that each call can fail with: the fault classes of the sweep.
//!
//! A class holds the errnos of section ERRORS of the call's man page (and of
//! docs/protocol.md#errors-by-call), as far as they apply to the arguments that nsexec uses. Of several
//! errnos that the core handles alike, one is in the class. `ENOSYS` and `EPERM` are in each class whose call
//! a seccomp filter of an outer container may refuse (docs/protocol.md#kernel-facts). `EIO` is in it where
//! the page lists I/O errors of the file system.

use nsexec::sys::types::{Errno, Fd};
use nsexec_audit::record::{Call, Line, Reply};

/// The kind of file that the descriptor of a call refers to, for the calls whose class depends on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum About {
    /// A file opened by path. All of them are files of /proc.
    File,
    /// A socket pair made by a stage, a descriptor that the launcher made for itself, or a pipe.
    Own,
    /// The init pipe in stages 0, 1 and 2. It may be non-blocking, and need not be a socket
    /// (docs/protocol.md#weaknesses-of-the-c-code).
    Given,
}

/// Returns what the descriptor used by the call `lines[at]` refers to.
pub(crate) fn about(lines: &[Line], at: usize, is_launcher: bool) -> About {
    let (Call::Read { fd, .. } | Call::Write { fd, .. } | Call::Send { fd, .. }) = &lines[at].call else {
        return About::Own;
    };
    let made = lines[..at].iter().rev().find_map(|line| match line.reply {
        Reply::Fd(new) if new == *fd => Some(About::File),
        Reply::Pair(one, other) if [one, other].contains(fd) => Some(About::Own),
        _ => None,
    });
    let given = if is_launcher || *fd != STAGE_INIT { About::Own } else { About::Given };
    made.unwrap_or(given)
}

/// The number of the init pipe in the stages, in every scenario.
pub(crate) const STAGE_INIT: Fd = Fd(4);

/// Returns the errnos of a call's class, without duplicates.
pub(crate) fn class(call: &Call, about: About) -> &'static [Errno] {
    match call {
        // open(2), and docs/protocol.md#errors-by-call for files of /proc. EPERM for a map leads to the
        // mapping tool.
        Call::Openat { .. } => &[
            Errno::EACCES,
            Errno::EPERM,
            Errno::ENOENT,
            Errno::ESRCH,
            Errno::EMFILE,
            Errno::ENFILE,
            Errno::ENOMEM,
            Errno::ELOOP,
        ],
        // openat2(2): EXDEV if something is mounted over the file; ENOSYS before Linux 5.6; EPERM from a
        // seccomp filter.
        Call::Openat2 { .. } => &[
            Errno::EXDEV,
            Errno::ENOSYS,
            Errno::EPERM,
            Errno::EACCES,
            Errno::ENOENT,
            Errno::ESRCH,
            Errno::EMFILE,
            Errno::ENFILE,
            Errno::ENOMEM,
            Errno::ELOOP,
        ],
        // close(2): the descriptor is closed even if the call fails.
        Call::Close { .. } => &[Errno::EINTR, Errno::EIO, Errno::EBADF],
        // read(2), recv(2), pipe(7). A file of /proc is always ready and has no peer.
        Call::Read { .. } if about == About::File => &[Errno::EINTR, Errno::EIO, Errno::ENOMEM, Errno::ESRCH],
        Call::Read { .. } => {
            &[Errno::EINTR, Errno::EAGAIN, Errno::EIO, Errno::ECONNRESET, Errno::ENOMEM, Errno::EBADF]
        }
        // write(2), and docs/protocol.md#errors-by-call for files of /proc.
        Call::Write { .. } => &[
            Errno::EINTR,
            Errno::EPERM,
            Errno::EINVAL,
            Errno::EIO,
            Errno::EPIPE,
            Errno::ENOMEM,
            Errno::ENOSPC,
            Errno::EACCES,
            Errno::ESRCH,
            Errno::ERANGE,
        ],
        // pwritev2(2): the errnos that lead to a fallback, and those of write(2).
        Call::WriteNowait { .. } => &[
            Errno::EPERM,
            Errno::EAGAIN,
            Errno::EINTR,
            Errno::EPIPE,
            Errno::EOPNOTSUPP,
            Errno::ENOSYS,
            Errno::EINVAL,
            Errno::ESPIPE,
            Errno::EIO,
        ],
        // send(2), unix(7). Only the given init pipe may be something other than a socket.
        Call::Send { .. } if about == About::Own => {
            &[Errno::EINTR, Errno::EAGAIN, Errno::EPIPE, Errno::ECONNRESET, Errno::ENOBUFS, Errno::ENOMEM]
        }
        Call::Send { .. } => &[
            Errno::EINTR,
            Errno::EAGAIN,
            Errno::EPIPE,
            Errno::ECONNRESET,
            Errno::ENOTSOCK,
            Errno::ENOBUFS,
            Errno::ENOMEM,
        ],
        // sendmsg(2), unix(7): ETOOMANYREFS if too many descriptors are in flight.
        Call::SendFd { .. } => &[
            Errno::EINTR,
            Errno::EAGAIN,
            Errno::EPIPE,
            Errno::ECONNRESET,
            Errno::ENOBUFS,
            Errno::ENOMEM,
            Errno::EBADF,
            Errno::EPERM,
        ],
        // recvmsg(2).
        Call::ReceiveFd { .. } => {
            &[Errno::EINTR, Errno::EAGAIN, Errno::ECONNRESET, Errno::ENOMEM, Errno::EBADF, Errno::ENOSYS]
        }
        // dup(2).
        Call::Dup3 { .. } => {
            &[Errno::EINTR, Errno::EBADF, Errno::EBUSY, Errno::EINVAL, Errno::EMFILE, Errno::EPERM]
        }
        // poll(2).
        Call::Poll { .. } => &[Errno::EINTR, Errno::ENOMEM, Errno::EINVAL],
        // statfs(2).
        Call::Fstatfs { .. } => {
            &[Errno::EBADF, Errno::EIO, Errno::ENOMEM, Errno::ENOSYS, Errno::EPERM, Errno::ENOENT]
        }
        // getsockopt(2).
        Call::SocketType { .. } => {
            &[Errno::ENOTSOCK, Errno::EBADF, Errno::ENOSYS, Errno::EPERM, Errno::ENOBUFS]
        }
        // stat(2).
        Call::LinkCount { .. } => &[Errno::EACCES, Errno::ENOENT, Errno::ENOTDIR, Errno::ENOMEM],
        // readlink(2).
        Call::Readlink { .. } => {
            &[Errno::ENOENT, Errno::EACCES, Errno::EINVAL, Errno::ENOTDIR, Errno::ELOOP, Errno::ENOMEM]
        }
        // socketpair(2), pipe(2).
        Call::Socketpair => &[Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM, Errno::ENOBUFS, Errno::EPERM],
        Call::Pipe2 => &[Errno::EMFILE, Errno::ENFILE],
        // close_range(2): missing before Linux 5.9; CLOSE_RANGE_CLOEXEC is missing before 5.11.
        Call::CloseRangeCloexec { .. } => &[Errno::ENOSYS, Errno::EINVAL, Errno::EPERM, Errno::ENOMEM],
        Call::CloseRange { .. } => &[Errno::ENOSYS, Errno::EPERM, Errno::EINVAL],
        // getdents64(2).
        Call::Getdents64 { .. } => &[Errno::ENOENT, Errno::EINVAL, Errno::EBADF],
        // fcntl(2).
        Call::SetCloexec { .. } => &[Errno::EBADF, Errno::EPERM],
        // fcntl(2), memfd_create(2), sendfile(2), chmod(2), unlink(2), statfs(2), execveat(2).
        Call::GetSeals { .. } => &[Errno::EINVAL, Errno::EBADF, Errno::EPERM],
        Call::AddSeals { .. } => &[Errno::EPERM, Errno::EBUSY, Errno::EINVAL],
        Call::MemfdCreate { .. } => &[
            Errno::ENOSYS,
            Errno::EINVAL,
            Errno::EACCES,
            Errno::EPERM,
            Errno::EMFILE,
            Errno::ENFILE,
            Errno::ENOMEM,
        ],
        Call::Sendfile { .. } => {
            &[Errno::EINTR, Errno::EINVAL, Errno::ENOSYS, Errno::EPERM, Errno::EIO, Errno::ENOMEM]
        }
        Call::Fchmod { .. } => &[Errno::EPERM, Errno::EIO, Errno::ENOMEM],
        Call::Unlink { .. } => &[Errno::EACCES, Errno::EPERM, Errno::ENOENT, Errno::EBUSY, Errno::EIO],
        Call::IsReadOnly { .. } => &[Errno::EACCES, Errno::ENOSYS, Errno::EIO, Errno::ENOMEM],
        Call::Execveat { .. } => &[
            Errno::ENOSYS,
            Errno::EPERM,
            Errno::EINVAL,
            Errno::EACCES,
            Errno::ENOEXEC,
            Errno::ETXTBSY,
            Errno::E2BIG,
            Errno::ENOMEM,
        ],
        // clone(2), and the limits of namespaces. A filter that knows no namespaces can cause ENOSYS.
        Call::CloneInit { .. } => &[
            Errno::EPERM,
            Errno::ENOSPC,
            Errno::EINVAL,
            Errno::EAGAIN,
            Errno::ENOMEM,
            Errno::EUSERS,
            Errno::ENOSYS,
            Errno::EMFILE,
            Errno::EBUSY,
        ],
        // clone(2). A cgroup can cause EBUSY; a seccomp filter can cause EPERM.
        Call::CloneSibling { .. } | Call::CloneChild { .. } | Call::Fork { .. } => &[
            Errno::EAGAIN,
            Errno::ENOMEM,
            Errno::EINVAL,
            Errno::EPERM,
            Errno::ENOSPC,
            Errno::EBUSY,
            Errno::ENOSYS,
        ],
        // The command. A file with ENOEXEC is a script for the shell: the scenarios `script` and
        // `here_script_without_shell`.
        Call::Execve { argv, .. } if argv.first().is_some_and(|name| name.0 == b"command") => &[
            Errno::ENOENT,
            Errno::EACCES,
            Errno::ENOTDIR,
            Errno::ETXTBSY,
            Errno::E2BIG,
            Errno::ENOMEM,
            Errno::EPERM,
        ],
        // execve(2).
        Call::Execve { .. } => &[
            Errno::ENOENT,
            Errno::EACCES,
            Errno::ENOEXEC,
            Errno::ENOTDIR,
            Errno::ETXTBSY,
            Errno::E2BIG,
            Errno::ENOMEM,
            Errno::EPERM,
        ],
        // wait(2). ECHILD is the result if SIGCHLD is ignored.
        Call::Wait4 { .. } => &[Errno::EINTR, Errno::ECHILD, Errno::EINVAL],
        // kill(2).
        Call::Kill { .. } => &[Errno::ESRCH, Errno::EPERM, Errno::EINVAL],
        // pidfd_open(2): missing before Linux 5.3.
        Call::PidfdOpen { .. } => &[Errno::ENOSYS, Errno::ESRCH, Errno::EMFILE, Errno::ENOMEM, Errno::EPERM],
        // getpid(2) and gettid(2) cannot fail.
        Call::Getpid | Call::Gettid => &[],
        // prctl(2): EINVAL without CONFIG_CHECKPOINT_RESTORE.
        Call::TidAddress => &[Errno::EINVAL, Errno::ENOSYS, Errno::EPERM],
        Call::SetDumpable { .. } | Call::SetName { .. } | Call::SetPdeathsig { .. } => {
            &[Errno::EINVAL, Errno::EPERM, Errno::ENOSYS]
        }
        // setns(2), and docs/protocol.md#setns.
        Call::Setns { .. } => &[
            Errno::EPERM,
            Errno::EINVAL,
            Errno::EBADF,
            Errno::ENOMEM,
            Errno::EUSERS,
            Errno::ESRCH,
            Errno::ENOSYS,
        ],
        // unshare(2), and docs/protocol.md#unshare-and-clone. A single EINVAL can be spurious; the core
        // retries it.
        Call::Unshare { .. } => &[
            Errno::EPERM,
            Errno::EINVAL,
            Errno::ENOSPC,
            Errno::EUSERS,
            Errno::ENOMEM,
            Errno::EACCES,
            Errno::ENOSYS,
        ],
        // setsid(2).
        Call::Setsid => &[Errno::EPERM],
        // setresuid(2), setuid(2), setgid(2), setgroups(2).
        Call::Setresuid { .. } | Call::Setuid { .. } => &[Errno::EINVAL, Errno::EPERM, Errno::EAGAIN],
        Call::Setgid { .. } => &[Errno::EINVAL, Errno::EPERM],
        Call::DropGroups => &[Errno::EPERM, Errno::EINVAL, Errno::ENOMEM],
        Call::SetGroups { .. } => &[Errno::EPERM, Errno::EINVAL, Errno::ENOMEM],
        // dup(2), fcntl(2).
        Call::DupTo { .. } => &[Errno::EBADF, Errno::EBUSY, Errno::EINTR, Errno::EINVAL, Errno::EMFILE],
        Call::DupAbove { .. } => &[Errno::EBADF, Errno::EINVAL, Errno::EMFILE],
        // umask(2) always succeeds. A seccomp filter can refuse it.
        Call::Umask { .. } => &[],
        // sethostname(2), getrlimit(2).
        Call::SetHostname { .. } => &[Errno::EPERM, Errno::EINVAL, Errno::EFAULT],
        Call::SetLimit { .. } => &[Errno::EPERM, Errno::EINVAL, Errno::ENOSYS],
        // capget(2), PR_SET_KEEPCAPS(2const), PR_CAPBSET_DROP(2const), PR_CAP_AMBIENT(2const). EINVAL from
        // PR_CAPBSET_DROP is an older kernel, which does not know the capability.
        Call::KeepCapabilities { .. } | Call::SetCapabilities { .. } => &[Errno::EPERM, Errno::EINVAL],
        Call::DropBounding { .. } => &[Errno::EPERM],
        Call::RaiseAmbient { .. } => &[Errno::EPERM, Errno::EINVAL],
        // PR_SET_NO_NEW_PRIVS(2const), seccomp(2), landlock_restrict_self(2).
        Call::SetNoNewPrivs => &[Errno::EINVAL, Errno::EPERM],
        Call::SetSeccompFilter { .. } => {
            &[Errno::EACCES, Errno::EINVAL, Errno::ENOMEM, Errno::ENOSYS, Errno::EPERM]
        }
        Call::LandlockRestrictSelf { .. } => {
            &[Errno::EOPNOTSUPP, Errno::ENOSYS, Errno::EPERM, Errno::E2BIG, Errno::EBADFD, Errno::EBADF]
        }
        // TIOCSCTTY(2const), KEYCTL_JOIN_SESSION_KEYRING(2const).
        Call::SetControllingTerminal { .. } => &[Errno::ENOTTY, Errno::EPERM, Errno::EBADF],
        Call::NewSessionKeyring => &[Errno::ENOSYS, Errno::EDQUOT, Errno::ENOMEM, Errno::EPERM],
        // socket(2), netdevice(7).
        Call::InetSocket => {
            &[Errno::EAFNOSUPPORT, Errno::EACCES, Errno::EMFILE, Errno::ENFILE, Errno::ENOBUFS, Errno::ENOMEM]
        }
        Call::SetLoopbackUp { .. } => &[Errno::EPERM, Errno::ENODEV, Errno::EBADF],
        // chdir(2).
        Call::Chdir { .. } => &[
            Errno::EACCES,
            Errno::EIO,
            Errno::ELOOP,
            Errno::ENAMETOOLONG,
            Errno::ENOENT,
            Errno::ENOMEM,
            Errno::ENOTDIR,
        ],
        // The errno that the code of the caller returns.
        Call::RunHook { .. } => &[Errno::EINVAL, Errno::EPERM],
        // sched_getaffinity(2).
        Call::SchedGetaffinity => &[Errno::EINVAL, Errno::EPERM, Errno::ENOSYS],
        // mount(2).
        Call::Mount { .. } => &[
            Errno::EPERM,
            Errno::EBUSY,
            Errno::EINVAL,
            Errno::ENODEV,
            Errno::ENOENT,
            Errno::ENOMEM,
            Errno::ENOSPC,
            Errno::EACCES,
        ],
        // chdir(2), open_tree(2), move_mount(2), mount_setattr(2), openat2(2): ENOSYS before Linux 5.2, 5.2,
        // 5.12 and 5.6.
        Call::Fchdir { .. } => &[Errno::ENOTDIR, Errno::EACCES, Errno::EBADF],
        Call::OpenTree { .. } => &[
            Errno::EPERM,
            Errno::ENOENT,
            Errno::ENOTDIR,
            Errno::EACCES,
            Errno::ELOOP,
            Errno::EINVAL,
            Errno::EMFILE,
            Errno::ENFILE,
            Errno::ENOMEM,
            Errno::ENOSYS,
        ],
        Call::MoveMount { .. } => {
            &[Errno::EPERM, Errno::EINVAL, Errno::ELOOP, Errno::EBUSY, Errno::ENOSPC, Errno::ENOSYS]
        }
        Call::SetMountAttributes { .. } => &[Errno::EPERM, Errno::EINVAL, Errno::EBUSY, Errno::ENOSYS],
        Call::MountHere { .. } => &[
            Errno::EPERM,
            Errno::EBUSY,
            Errno::EINVAL,
            Errno::ENODEV,
            Errno::ENOENT,
            Errno::EACCES,
            Errno::ENOSPC,
            Errno::ENOMEM,
        ],
        Call::OpenInRoot { .. } => &[
            Errno::ENOENT,
            Errno::ENOTDIR,
            Errno::EACCES,
            Errno::ELOOP,
            Errno::EROFS,
            Errno::EMFILE,
            Errno::ENOMEM,
            Errno::ENOSYS,
            Errno::EPERM,
        ],
        // mkdir(2), symlink(2).
        Call::Mkdirat { .. } | Call::Symlinkat { .. } => &[
            Errno::EEXIST,
            Errno::EROFS,
            Errno::EACCES,
            Errno::ENOENT,
            Errno::ENOTDIR,
            Errno::EPERM,
            Errno::ENOSPC,
            Errno::EDQUOT,
            Errno::EIO,
        ],
        // pivot_root(2), umount(2), chroot(2).
        Call::PivotRootHere => &[Errno::EINVAL, Errno::EBUSY, Errno::EPERM, Errno::ENOSYS],
        Call::DetachHere => &[Errno::EINVAL, Errno::EPERM, Errno::EBUSY],
        Call::ChrootHere => &[Errno::EPERM, Errno::EACCES],
        // sigprocmask(2), sigaction(2), sigtimedwait(2).
        Call::Sigprocmask { .. } | Call::Sigaction { .. } => &[Errno::EINVAL, Errno::EFAULT],
        Call::WaitSignal { .. } => &[Errno::EINTR, Errno::EINVAL, Errno::EPERM],
        Call::Sigtimedwait { .. } => &[Errno::EAGAIN, Errno::EINTR, Errno::EINVAL],
    }
}

/// Returns true if the core repeats a call that failed once with this errno, or replaces it by another call.
/// The start must then end as it does without the fault.
pub(crate) fn is_retried(call: &Call, errno: Errno) -> bool {
    match call {
        Call::Close { .. } | Call::Poll { .. } | Call::Wait4 { .. } => errno == Errno::EINTR,
        Call::Read { .. } => errno == Errno::EINTR,
        Call::Send { .. } => [Errno::EINTR, Errno::ENOTSOCK].contains(&errno),
        Call::Write { .. } | Call::SendFd { .. } | Call::ReceiveFd { .. } | Call::Dup3 { .. } => {
            errno == Errno::EINTR
        }
        Call::DupTo { .. } => [Errno::EINTR, Errno::EBUSY].contains(&errno),
        Call::Unshare { .. } => errno == Errno::EINVAL,
        // The launcher creates the stages instead.
        Call::CloneInit { .. } => true,
        // openat is the fallback. The files below the directory of the new process, which openat2 has opened,
        // have no fallback.
        Call::Openat2 { path, .. } => {
            let below =
                [&b"uid_map"[..], b"gid_map", b"setgroups", b"timens_offsets", b"stat", b"oom_score_adj"];
            [Errno::ENOSYS, Errno::EPERM].contains(&errno) && !below.contains(&&path.0[..])
        }
        // Errors of this call are ignored: the read of the message reports a better error.
        Call::SocketType { .. } => true,
        Call::TidAddress | Call::SetName { .. } | Call::PidfdOpen { .. } => true,
        Call::MemfdCreate { .. } | Call::Sendfile { .. } => true,
        Call::AddSeals { .. } => errno == Errno::EBUSY,
        Call::Execveat { .. } => [Errno::ENOSYS, Errno::EPERM].contains(&errno),
        Call::CloseRangeCloexec { .. } => [Errno::ENOSYS, Errno::EINVAL].contains(&errno),
        Call::CloseRange { .. } => errno == Errno::ENOSYS,
        _ => false,
    }
}

/// Returns true if the errno means that a descriptor is non-blocking. A stage then polls and repeats the
/// call. The launcher made its own descriptors, which block.
pub(crate) fn is_nonblocking(call: &Call, errno: Errno) -> bool {
    let moves =
        matches!(call, Call::Read { .. } | Call::Send { .. } | Call::SendFd { .. } | Call::ReceiveFd { .. });
    moves && errno == Errno::EAGAIN
}
