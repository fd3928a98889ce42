//! Which errno a call can fail with: the classes of the fault sweep.
//!
//! They are those of section ERRORS of each man page (and of spec 6.9), as far as the call is made as it is made here; of
//! several that mean the same to the core one stands for all. `ENOSYS` and `EPERM` are in each class in which a seccomp
//! filter of an outer container may give them (spec 6.8), and `EIO` where the page says "or the file system's own".

use nsexec::sys::types::{Errno, Fd};
use nsexec_audit::record::{Call, Line, Reply};

/// What a call is about, where its class depends on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum About {
    /// A file that was opened by its path: of /proc.
    File,
    /// A socket pair that one of ours has made, the launcher's own ends, or a pipe.
    Own,
    /// The init pipe as it was given to stage 0 and its siblings: it may be non-blocking, and no socket (spec 4.2.4).
    Given,
}

/// What the descriptor of `lines[at]` is.
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

/// The errnos of a call's class, none of them twice.
pub(crate) fn class(call: &Call, about: About) -> &'static [Errno] {
    match call {
        // open(2), and spec 6.9 for files of /proc. EPERM of a map means: the tool may.
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
        // openat2(2): EXDEV where something is mounted over the file; ENOSYS before 5.6; EPERM of a filter.
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
        // close(2): the number is free whatever it says.
        Call::Close { .. } => &[Errno::EINTR, Errno::EIO, Errno::EBADF],
        // read(2), recv(2), pipe(7). A file of /proc is never not ready, and has no peer.
        Call::Read { .. } if about == About::File => &[Errno::EINTR, Errno::EIO, Errno::ENOMEM, Errno::ESRCH],
        Call::Read { .. } => {
            &[Errno::EINTR, Errno::EAGAIN, Errno::EIO, Errno::ECONNRESET, Errno::ENOMEM, Errno::EBADF]
        }
        // write(2), and spec 6.9 for files of /proc.
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
        // pwritev2(2): the fallbacks, and what write(2) says.
        Call::WriteNowait { .. } => &[
            Errno::EAGAIN,
            Errno::EINTR,
            Errno::EPIPE,
            Errno::EOPNOTSUPP,
            Errno::ENOSYS,
            Errno::EINVAL,
            Errno::ESPIPE,
            Errno::EIO,
        ],
        // send(2), unix(7). Of all the pipes only the given one may be no socket.
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
        // sendmsg(2), unix(7): ETOOMANYREFS beyond the limit of descriptors on their way.
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
        // close_range(2): missing before 5.9, the flag before 5.11.
        Call::CloseRangeCloexec { .. } => &[Errno::ENOSYS, Errno::EINVAL, Errno::EPERM, Errno::ENOMEM],
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
        // clone(2). EBUSY, EOPNOTSUPP and EPERM come with a control group, a filter.
        Call::CloneSibling { .. } | Call::Fork { .. } => &[
            Errno::EAGAIN,
            Errno::ENOMEM,
            Errno::EINVAL,
            Errno::EPERM,
            Errno::ENOSPC,
            Errno::EBUSY,
            Errno::ENOSYS,
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
        // wait(2). ECHILD is what an ignored SIGCHLD gives.
        Call::Wait4 { .. } => &[Errno::EINTR, Errno::ECHILD, Errno::EINVAL],
        // kill(2).
        Call::Kill { .. } => &[Errno::ESRCH, Errno::EPERM, Errno::EINVAL],
        // pidfd_open(2): missing before 5.3.
        Call::PidfdOpen { .. } => &[Errno::ENOSYS, Errno::ESRCH, Errno::EMFILE, Errno::ENOMEM, Errno::EPERM],
        // They cannot fail (getpid(2), gettid(2)).
        Call::Getpid | Call::Gettid => &[],
        // prctl(2): EINVAL without CONFIG_CHECKPOINT_RESTORE.
        Call::TidAddress => &[Errno::EINVAL, Errno::ENOSYS, Errno::EPERM],
        Call::SetDumpable { .. } | Call::SetName { .. } | Call::SetPdeathsig { .. } => {
            &[Errno::EINVAL, Errno::EPERM, Errno::ENOSYS]
        }
        // setns(2), and spec 6.2.
        Call::Setns { .. } => &[
            Errno::EPERM,
            Errno::EINVAL,
            Errno::EBADF,
            Errno::ENOMEM,
            Errno::EUSERS,
            Errno::ESRCH,
            Errno::ENOSYS,
        ],
        // unshare(2), and spec 6.3. EINVAL once is spurious, and tried again.
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
        // sched_getaffinity(2).
        Call::SchedGetaffinity => &[Errno::EINVAL, Errno::EPERM, Errno::ENOSYS],
        // mount(2).
        Call::Mount { .. } => {
            &[Errno::EPERM, Errno::EBUSY, Errno::EINVAL, Errno::ENOENT, Errno::ENOMEM, Errno::EACCES]
        }
        // sigprocmask(2), sigaction(2), sigtimedwait(2).
        Call::Sigprocmask { .. } | Call::Sigaction { .. } => &[Errno::EINVAL, Errno::EFAULT],
        Call::Sigtimedwait { .. } => &[Errno::EAGAIN, Errno::EINTR, Errno::EINVAL],
    }
}

/// Whether a call that failed with this errno for once is made again, or in another way, so that nothing is lost: the
/// start must then end as it does without the fault.
pub(crate) fn is_retried(call: &Call, errno: Errno) -> bool {
    match call {
        Call::Close { .. } | Call::Poll { .. } | Call::Wait4 { .. } => errno == Errno::EINTR,
        Call::Read { .. } => errno == Errno::EINTR,
        Call::Send { .. } => [Errno::EINTR, Errno::ENOTSOCK].contains(&errno),
        Call::Write { .. } | Call::SendFd { .. } | Call::ReceiveFd { .. } | Call::Dup3 { .. } => {
            errno == Errno::EINTR
        }
        Call::Unshare { .. } => errno == Errno::EINVAL,
        // By openat, then; but below the directory of stage 1, which openat2 has opened, there is no other way.
        Call::Openat2 { path, .. } => {
            let below = [&b"uid_map"[..], b"gid_map", b"setgroups", b"timens_offsets", b"stat"];
            [Errno::ENOSYS, Errno::EPERM].contains(&errno) && !below.contains(&&path.0[..])
        }
        // Whatever it says, the read of the message says more.
        Call::SocketType { .. } => true,
        Call::TidAddress | Call::SetName { .. } | Call::PidfdOpen { .. } => true,
        Call::MemfdCreate { .. } | Call::Sendfile { .. } => true,
        Call::AddSeals { .. } => errno == Errno::EBUSY,
        Call::Execveat { .. } => [Errno::ENOSYS, Errno::EPERM].contains(&errno),
        Call::CloseRangeCloexec { .. } => [Errno::ENOSYS, Errno::EINVAL].contains(&errno),
        _ => false,
    }
}

/// Whether it is an errno of a descriptor that is non-blocking: a stage polls and goes on. A launcher's descriptors are
/// its own, and block.
pub(crate) fn is_nonblocking(call: &Call, errno: Errno) -> bool {
    let moves =
        matches!(call, Call::Read { .. } | Call::Send { .. } | Call::SendFd { .. } | Call::ReceiveFd { .. });
    moves && errno == Errno::EAGAIN
}
