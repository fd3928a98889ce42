//! The one door to the kernel: [`Sys`].
//!
//! **One method, one system call.** No retry, loop, formatting, policy or path building behind the trait:
//! those are in the core, so that they are in the transcript. A method of [`linux::LinuxSys`] is a few lines
//! that can be held against the man page.
//!
//! Every method is documented with the call and what it does here, the errors that the core tells apart, and
//! who calls it.

mod errno;
#[allow(
    clippy::as_conversions,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "the libc's types differ by architecture, and its words are as wide as a register"
)]
pub mod linux;
mod signal;
pub mod types;

use core::ffi::CStr;

use types::{
    CloneFlags, Errno, ExecArgs, ExitSignal, Fd, Fork, FsType, MaskHow, Mount, OpenFlags, Pid, PollFd,
    Received, Seals, SigAction, Signal, SignalSet, SocketType, SysResult, TidAddress, WaitFor, Waited,
};

/// Everything that the bootstrap and the launcher ask of the kernel.
#[cfg_attr(test, mockall::automock)]
pub trait Sys {
    // -- descriptors ---------------------------------------------------------------------------------------

    /// `openat(dir, path, flags)`: opens a file of /proc, or a namespace.
    ///
    /// Told apart: `ENOENT` and `ESRCH`, the task is gone; `EACCES`, its files belong to root because it is
    /// not dumpable; `EPERM` on a map, which calls for the mapping tool. Stages 0 and 1. open(2).
    fn openat(&mut self, dir: Fd, path: &CStr, flags: OpenFlags) -> SysResult<Fd>;

    /// `openat2(dir, path, {flags, 0, RESOLVE_NO_XDEV|RESOLVE_NO_MAGICLINKS}, 24)`: opens a file below /proc, and crosses no
    /// mount point on the way. `dir` is a descriptor of /proc or of a directory in it. Stages 0 and 1. openat2(2), Linux 5.6.
    ///
    /// Told apart: `EXDEV`, something is mounted over the file or over a directory of the path; `ENOSYS`, an older kernel, and
    /// `EPERM`, a filter that does not know the call: use [`openat`](Self::openat). Others as for `openat`.
    fn openat2(&mut self, dir: Fd, path: &CStr, flags: OpenFlags) -> SysResult<Fd>;

    /// `close(fd)`. Never retried: on Linux the number is free also after `EINTR`. Every stage. close(2).
    fn close(&mut self, fd: Fd) -> SysResult<()>;

    /// `read(fd, buf, len)`: the message, a sync message, a map that is read back. Every stage. read(2).
    ///
    /// Told apart: `EINTR`, again; `EAGAIN`, the descriptor is non-blocking: poll first; `ECONNRESET`, the
    /// peer died with our bytes unread, which counts as end of file.
    fn read(&mut self, fd: Fd, buf: &mut [u8]) -> SysResult<usize>;

    /// `write(fd, buf, len)`: a file of /proc, in one piece; the last word on standard error. write(2).
    ///
    /// Told apart: `EPERM` on a map, which calls for the mapping tool.
    fn write(&mut self, fd: Fd, buf: &[u8]) -> SysResult<usize>;

    /// `pwritev2(fd, {buf}, 1, -1, RWF_NOWAIT)`: a log record that must not block. The description is shared
    /// with the program that comes after us, so O_NONBLOCK may not be set on it. pwritev2(2), Linux 4.14.
    ///
    /// Told apart: `EAGAIN`, no room; `EOPNOTSUPP`, `EINVAL` and `ENOSYS`, this file or kernel cannot: poll and
    /// write.
    fn write_nowait(&mut self, fd: Fd, buf: &[u8]) -> SysResult<usize>;

    /// `sendto(fd, buf, len, MSG_NOSIGNAL, NULL, 0)`: a sync message, the pid line, the bootstrap message.
    /// Every stage and the launcher. send(2).
    ///
    /// Told apart: `EINTR`; `EAGAIN`; `ENOTSOCK`, the init pipe is not a socket: write.
    fn send(&mut self, fd: Fd, buf: &[u8]) -> SysResult<usize>;

    /// `sendmsg(socket, {one byte NUL, SCM_RIGHTS with fd}, MSG_NOSIGNAL)`: a mount source, from stage 0 to stage 1.
    /// sendmsg(2), unix(7).
    ///
    /// Told apart: `EINTR`; `EAGAIN`; `EPIPE` and `ECONNRESET`, the peer is gone.
    fn send_fd(&mut self, socket: Fd, fd: Fd) -> SysResult<usize>;

    /// `recvmsg(socket, {one byte, room for one descriptor}, MSG_CMSG_CLOEXEC)`: a mount source, in stage 1. recvmsg(2),
    /// unix(7). A second descriptor has no room, and is closed by the kernel.
    ///
    /// Told apart: `EINTR`; `EAGAIN`; `ECONNRESET`, the peer died, which counts as end of file.
    fn receive_fd(&mut self, socket: Fd) -> SysResult<Received>;

    /// `dup3(fd, number, O_CLOEXEC)`: puts a mount source at the number that the runtime has kept free for it; what was
    /// there is closed. Stage 1. dup(2).
    ///
    /// Told apart: `EINTR` and `EBUSY`, again.
    fn dup3(&mut self, fd: Fd, number: Fd) -> SysResult<()>;

    /// `poll(fds, timeout)`: only where a plain read would not do. poll(2). The timeout is in milliseconds,
    /// −1 for none.
    fn poll(&mut self, fds: &mut [PollFd], timeout_ms: i32) -> SysResult<usize>;

    /// `fstatfs(fd)`, of which the type of file system: is this really a namespace, is this really procfs?
    /// Stages 0 and 1. fstatfs(2).
    fn fstatfs(&mut self, fd: Fd) -> SysResult<FsType>;

    /// `getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &4)`: is the init pipe a stream socket? Stage 0, before the first read.
    /// socket(7), getsockopt(2).
    ///
    /// Told apart: `ENOTSOCK`, the descriptor is not a socket.
    fn socket_type(&mut self, fd: Fd) -> SysResult<SocketType>;

    /// `newfstatat(AT_FDCWD, path, &stat, 0)`, of which the number of links: how many threads are there? Before stage
    /// 0. stat(2); /proc/PID/task in proc(5).
    fn link_count(&mut self, path: &CStr) -> SysResult<u64>;

    /// `readlinkat(AT_FDCWD, path, buf, len)`: whom does /proc/self name? Stage 0, before it writes into stage 1's /proc.
    /// readlink(2); /proc/self in proc(5). What does not fit is cut without a word.
    ///
    /// Told apart: `ENOENT`, `ENOTDIR` and `EINVAL`, there is no such link: whatever lies at /proc, it is no procfs that
    /// we are in.
    fn readlink(&mut self, path: &CStr, buf: &mut [u8]) -> SysResult<usize>;

    /// `socketpair(AF_UNIX, SOCK_STREAM|SOCK_CLOEXEC, 0)`: a sync pipe, the launcher's init pipe.
    /// socketpair(2).
    fn socketpair(&mut self) -> SysResult<(Fd, Fd)>;

    /// `pipe2(O_CLOEXEC)`: the launcher's log pipe; read end, write end. pipe(2).
    fn pipe2(&mut self) -> SysResult<(Fd, Fd)>;

    /// `close_range(first, ~0, CLOSE_RANGE_CLOEXEC)`: in the mapping tool's process, before its exec; in stage 0 of our own
    /// launcher, where the command gets named descriptors only. close_range(2), Linux 5.11. Told apart: `ENOSYS` and
    /// `EINVAL`, an older kernel.
    fn close_range_cloexec(&mut self, first: Fd) -> SysResult<()>;

    /// `getdents64(fd, buf)`: the entries of /proc/self/fd, where close_range is missing. getdents64(2).
    fn getdents64(&mut self, fd: Fd, buf: &mut [u8]) -> SysResult<usize>;

    /// `fcntl(fd, F_SETFD, FD_CLOEXEC)`: the same, descriptor by descriptor. With `on` false `fcntl(fd, F_SETFD, 0)`: this
    /// descriptor is for the command. fcntl(2).
    ///
    /// Errors: `EBADF`, the descriptor is not open.
    fn set_cloexec(&mut self, fd: Fd, on: bool) -> SysResult<()>;

    // -- the copy of our own program: before the first word to a launcher of 1.0 or 1.1, and for our own launcher ----

    /// `fcntl(fd, F_GET_SEALS)`: is our program such a copy? Is the new one sealed? fcntl(2).
    ///
    /// Told apart: any error means a file that cannot have seals.
    fn get_seals(&mut self, fd: Fd) -> SysResult<Seals>;

    /// `fcntl(fd, F_ADD_SEALS, seals)`: from now on nobody changes the copy. fcntl(2).
    ///
    /// Told apart: `EBUSY`, the kernel still holds a page of it: again.
    fn add_seals(&mut self, fd: Fd, seals: Seals) -> SysResult<()>;

    /// `memfd_create(name, MFD_CLOEXEC|MFD_ALLOW_SEALING)`, with `exec` also `MFD_EXEC`: a file in memory. memfd_create(2),
    /// Linux 3.17; MFD_EXEC since 6.3, where vm.memfd_noexec could otherwise take the right to execute it.
    ///
    /// Told apart: `EINVAL`, no such flag; any other means to use a file of a directory.
    fn memfd_create(&mut self, name: &CStr, exec: bool) -> SysResult<Fd>;

    /// `sendfile(to, from, NULL, len)`: copies, from where both are. sendfile(2).
    ///
    /// Told apart: `EINTR`; any other means to read and write.
    fn sendfile(&mut self, to: Fd, from: Fd, len: usize) -> SysResult<usize>;

    /// `fchmod(fd, mode)`: a copy that cannot be sealed is for nobody to write. fchmod(2).
    fn fchmod(&mut self, fd: Fd, mode: u32) -> SysResult<()>;

    /// `unlinkat(AT_FDCWD, path, 0)`: takes its name from such a copy. unlink(2).
    fn unlink(&mut self, path: &CStr) -> SysResult<()>;

    /// `statfs(path, &stat)`, of which `ST_RDONLY`: does it lie where nobody can write? statfs(2).
    fn is_read_only(&mut self, path: &CStr) -> SysResult<bool>;

    /// `execveat(fd, "", argv, envp, AT_EMPTY_PATH)`: becomes the copy. Comes back only to report why not. execveat(2),
    /// Linux 3.19.
    ///
    /// Told apart: `ENOSYS`, an older kernel, and `EPERM`, a filter that does not know the call: by its path in /proc.
    fn execveat<'a>(&mut self, fd: Fd, argv: &ExecArgs<'a>, envp: &ExecArgs<'a>) -> Errno;

    // -- processes -----------------------------------------------------------------------------------------

    /// `clone(CLONE_PARENT|SIGCHLD, NULL)`: a sibling, on a copy of this very stack. Stage 0 makes stage 1, stage 1
    /// makes stage 2. clone(2); `tid` as for [`fork`](Self::fork).
    ///
    /// CLONE_PARENT: the launcher reaps all three, and stage 2's parent outlives stages 0 and 1. The new
    /// process inherits the exit signal of the caller, whatever the flags say.
    fn clone_sibling(&mut self, tid: Option<TidAddress>) -> SysResult<Fork>;

    /// `clone(exit signal, NULL)`: a child. Stage 0 makes the mapping tool, the launcher makes stage 0. clone(2).
    ///
    /// With `tid` also `CLONE_CHILD_SETTID|CLONE_CHILD_CLEARTID` and this address, as the libc's own fork
    /// does, so that its cached thread id is the child's (runc#4233).
    fn fork(&mut self, exit: ExitSignal, tid: Option<TidAddress>) -> SysResult<Fork>;

    /// `execve(path, argv, envp)`. Comes back only to report why not. The mapping tool's process and the tail
    /// of stage 2. execve(2).
    fn execve<'a>(&mut self, path: &CStr, argv: &ExecArgs<'a>, envp: &ExecArgs<'a>) -> Errno;

    /// `wait4(pid, &status, flags, NULL)`: stage 0 reaps the mapping tool, the launcher reaps the stages. wait4(2).
    ///
    /// With [`WaitFor::StagesNow`] and [`WaitFor::OrdinaryNow`] it does not wait, and returns the pid 0 if no child has changed
    /// its state; with the first a stage that was stopped has.
    ///
    /// Told apart: `EINTR`; `ECHILD`, no child is left.
    fn wait4(&mut self, pid: Pid, which: WaitFor) -> SysResult<Waited>;

    /// `kill(pid, signal)`: SIGKILL to a stage, on failure. kill(2).
    fn kill(&mut self, pid: Pid, signal: Signal) -> SysResult<()>;

    /// `pidfd_open(pid, 0)`: to wait for the mapping tool and for stage 1 at once. pidfd_open(2), Linux 5.3.
    /// Told apart: any error means to do without.
    fn pidfd_open(&mut self, pid: Pid) -> SysResult<Fd>;

    /// `getpid()`: for log records, in the process's own numbering. getpid(2).
    fn getpid(&mut self) -> Pid;

    /// `gettid()`: is it really the thread id that the libc caches? gettid(2).
    fn gettid(&mut self) -> Pid;

    /// `prctl(PR_GET_TID_ADDRESS)`, and the number that stands at the address. Before the first clone.
    /// PR_GET_TID_ADDRESS(2const); `EINVAL` without CONFIG_CHECKPOINT_RESTORE: do without.
    fn tid_address(&mut self) -> SysResult<TidAddress>;

    // -- what a process is -----------------------------------------------------------------------------------

    /// `setns(fd, kind)`: stage 1 joins a namespace. setns(2).
    ///
    /// Told apart: `EPERM` in the first pass, try again after the user namespace.
    fn setns(&mut self, fd: Fd, kind: CloneFlags) -> SysResult<()>;

    /// `unshare(flags)`: stage 1 creates namespaces; also with no flag. unshare(2).
    ///
    /// Told apart: `EINVAL`, which kernels before 4.3 give when somebody reads our /proc files, and all kernels
    /// while a thread that ended is not quite gone: a few more tries (runc#3704).
    fn unshare(&mut self, flags: CloneFlags) -> SysResult<()>;

    /// `prctl(PR_SET_DUMPABLE, dumpable)`: who may look into us through /proc. PR_SET_DUMPABLE(2const).
    fn set_dumpable(&mut self, dumpable: bool) -> SysResult<()>;

    /// `prctl(PR_SET_NAME, name)`, at most 15 bytes. PR_SET_NAME(2const).
    fn set_name(&mut self, name: &CStr) -> SysResult<()>;

    /// `prctl(PR_SET_PDEATHSIG, signal)`: the signal that this process gets when the launcher's thread dies; 0 for none. The
    /// stages of our own launcher, never of the drop-in: the thread of a Go runtime that started stage 0 may end at any time.
    /// A fork, and most changes of credentials, clear it. PR_SET_PDEATHSIG(2const).
    fn set_pdeathsig(&mut self, signal: Signal) -> SysResult<()>;

    /// `setsid()`: stage 2 leads a session. setsid(2).
    fn setsid(&mut self) -> SysResult<()>;

    /// `setresuid(uid, uid, uid)`, of this thread: stage 1 becomes root in the user namespace. setresuid(2).
    fn setresuid(&mut self, uid: u32) -> SysResult<()>;

    /// `setuid(uid)`, of this thread: stage 2. setuid(2).
    fn setuid(&mut self, uid: u32) -> SysResult<()>;

    /// `setgid(gid)`, of this thread: stage 2. setgid(2).
    fn setgid(&mut self, gid: u32) -> SysResult<()>;

    /// `setgroups(0, NULL)`, of this thread: stage 2 drops the supplementary groups. setgroups(2).
    fn drop_groups(&mut self) -> SysResult<()>;

    /// `sched_getaffinity(0, 128, &mask)`, of which the first 64 CPUs, for a debug record. sched_getaffinity(2).
    fn sched_getaffinity(&mut self) -> SysResult<u64>;

    /// `mount(…)` of one of the mounts that the launcher's stage 2 makes. mount(2).
    fn mount(&mut self, mount: Mount) -> SysResult<()>;

    // -- signals -----------------------------------------------------------------------------------------

    /// `rt_sigprocmask(how, set, &old, 8)`: gives the mask as it was. sigprocmask(2).
    fn sigprocmask(&mut self, how: MaskHow, set: SignalSet) -> SysResult<SignalSet>;

    /// `rt_sigaction(signal, action, &old, 8)`: gives the disposition as it was. sigaction(2).
    fn sigaction(&mut self, signal: Signal, action: SigAction) -> SysResult<SigAction>;

    /// `rt_sigtimedwait(set, NULL, {0, 0}, 8)`: takes a pending signal away. sigtimedwait(2). `EAGAIN`, none.
    fn sigtimedwait(&mut self, set: SignalSet) -> SysResult<Signal>;
}
