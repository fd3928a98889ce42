//! All system calls of the crate, as one trait: [`Sys`].
//!
//! **One method makes one system call.** An implementation of the trait has no retry, loop, formatting,
//! policy or path building. Those are in the core, so that the transcript shows each call. A method of
//! [`linux::LinuxSys`] is a few lines that can be compared with the man page.
//!
//! The doc comment of each method names the call, its purpose here, its callers, and the errors that the core
//! distinguishes.

mod errno;
mod exec_args;
#[allow(
    clippy::as_conversions,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "the libc's types differ by architecture, and system call arguments are as wide as a register"
)]
pub mod linux;
mod signal;
#[cfg(feature = "std")]
mod surroundings;
pub mod types;

use core::ffi::CStr;

#[cfg(feature = "sealed-copy")]
use types::Seals;
#[cfg(feature = "std")]
use types::{
    BpfInstruction, Capability, CapabilitySets, Hook, InitFork, Limit, Mount, MountAttributes, MountKind,
    SentSignal, SharedStart,
};
use types::{
    CloneFlags, Errno, ExecArgs, ExitSignal, Fd, Fork, FsType, MaskHow, OpenFlags, Pid, PollFd, SigAction,
    Signal, SignalSet, SocketType, SysResult, TidAddress, WaitFor, Waited,
};

/// The system calls of the bootstrap and of the launcher.
#[cfg_attr(test, mockall::automock)]
pub trait Sys {
    // -- descriptors ---------------------------------------------------------------------------------------

    /// Opens a file of /proc, or a namespace: `openat(dir, path, flags)`, open(2). Called by stages 0 and 1.
    ///
    /// Errors: `ENOENT` and `ESRCH`: the task is gone. `EACCES`: the task is not dumpable, so its files
    /// belong to root. `EPERM` on a map: the mapping tool must write it.
    fn openat(&mut self, dir: Fd, path: &CStr, flags: OpenFlags) -> SysResult<Fd>;

    /// Opens a file below /proc without crossing a mount point: `openat2(dir, path, {flags, 0,
    /// RESOLVE_NO_XDEV|RESOLVE_NO_MAGICLINKS}, 24)`, openat2(2), Linux 5.6. `dir` is a descriptor of /proc or
    /// of a directory in it. Called by stages 0 and 1.
    ///
    /// Errors: `EXDEV`: something is mounted over the file or over a directory of the path. `ENOSYS` (an
    /// older kernel) and `EPERM` (a seccomp filter without this call): use [`openat`](Self::openat). Others
    /// as for `openat`.
    fn openat2(&mut self, dir: Fd, path: &CStr, flags: OpenFlags) -> SysResult<Fd>;

    /// Closes a descriptor: `close(fd)`, close(2). Called by every stage.
    ///
    /// Never retried: on Linux the number is free even after `EINTR`.
    fn close(&mut self, fd: Fd) -> SysResult<()>;

    /// Reads the bootstrap message, a sync message, or a map that is read back: `read(fd, buf, len)`,
    /// read(2). Called by every stage.
    ///
    /// Errors: `EINTR`: try again. `EAGAIN`: the descriptor is non-blocking, so poll first. `ECONNRESET`: the
    /// peer died before it read our bytes, which counts as end of file.
    fn read(&mut self, fd: Fd, buf: &mut [u8]) -> SysResult<usize>;

    /// Writes a file of /proc in one piece, or the final error text on standard error: `write(fd, buf, len)`,
    /// write(2).
    ///
    /// Errors: `EPERM` on a map: the mapping tool must write it.
    fn write(&mut self, fd: Fd, buf: &[u8]) -> SysResult<usize>;

    /// Writes a log record without blocking: `pwritev2(fd, {buf}, 1, -1, RWF_NOWAIT)`, pwritev2(2), Linux
    /// 4.14.
    ///
    /// The program that runs after the bootstrap shares the open file description, so O_NONBLOCK must not be
    /// set on it.
    ///
    /// Errors: `EAGAIN`: there is no room. The core polls and writes instead after `EOPNOTSUPP`, `EINVAL`,
    /// `ESPIPE` and `ENOSYS`, because this file or kernel does not support the call, and after `EPERM`,
    /// because a seccomp filter refuses it.
    fn write_nowait(&mut self, fd: Fd, buf: &[u8]) -> SysResult<usize>;

    /// Sends a sync message, the pid line, or the bootstrap message: `sendto(fd, buf, len, MSG_NOSIGNAL,
    /// NULL, 0)`, send(2). Called by every stage and by the launcher.
    ///
    /// Errors: `EINTR`. `EAGAIN`. `ENOTSOCK`: the init pipe is not a socket, so use `write`.
    fn send(&mut self, fd: Fd, buf: &[u8]) -> SysResult<usize>;

    /// Sends a mount source from stage 0 to stage 1: `sendmsg(socket, {one byte NUL, SCM_RIGHTS with fd},
    /// MSG_NOSIGNAL)`, sendmsg(2), unix(7).
    ///
    /// Errors: `EINTR`. `EAGAIN`. `EPIPE` and `ECONNRESET`: the peer is gone.
    #[cfg(feature = "legacy")]
    fn send_fd(&mut self, socket: Fd, fd: Fd) -> SysResult<usize>;

    /// Receives a mount source in stage 1: `recvmsg(socket, {one byte, room for one descriptor},
    /// MSG_CMSG_CLOEXEC)`, recvmsg(2), unix(7). A second descriptor has no room, and the kernel closes it.
    ///
    /// Errors: `EINTR`. `EAGAIN`. `ECONNRESET`: the peer died, which counts as end of file.
    #[cfg(feature = "legacy")]
    fn receive_fd(&mut self, socket: Fd) -> SysResult<types::Received>;

    /// Duplicates a mount source to the number that the runtime has reserved for it: `dup3(fd, number,
    /// O_CLOEXEC)`, dup(2). A descriptor that had this number is closed. Called by stage 1.
    ///
    /// Errors: `EINTR` and `EBUSY`: try again.
    #[cfg(feature = "legacy")]
    fn dup3(&mut self, fd: Fd, number: Fd) -> SysResult<()>;

    /// Waits for events on descriptors: `poll(fds, timeout)`, poll(2). Called only where a plain read is not
    /// enough.
    ///
    /// `timeout_ms` is in milliseconds; −1 means no timeout.
    fn poll(&mut self, fds: &mut [PollFd], timeout_ms: i32) -> SysResult<usize>;

    /// Returns the type of the file system that holds a file: `fstatfs(fd)`, fstatfs(2). Stages 0 and 1 use
    /// it to check that a file is a namespace, or a file of procfs.
    fn fstatfs(&mut self, fd: Fd) -> SysResult<FsType>;

    /// Returns the type of a socket: `getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &4)`, getsockopt(2),
    /// socket(7). Stage 0 checks with it that the init pipe is a stream socket, before the first read.
    ///
    /// Errors: `ENOTSOCK`: the descriptor is not a socket.
    fn socket_type(&mut self, fd: Fd) -> SysResult<SocketType>;

    /// Returns the number of links of a file: `newfstatat(AT_FDCWD, path, &stat, 0)`, stat(2). The links of
    /// /proc/self/task (proc(5)) give the number of threads. Called before stage 0 begins.
    fn link_count(&mut self, path: &CStr) -> SysResult<u64>;

    /// Reads a symbolic link: `readlinkat(AT_FDCWD, path, buf, len)`, readlink(2). A target longer than `buf`
    /// is truncated without an error. Stage 0 reads /proc/self (proc(5)) before it writes into stage 1's
    /// /proc.
    ///
    /// Errors: `ENOENT`, `ENOTDIR` and `EINVAL`: the link does not exist, so /proc is not a procfs in which
    /// this process is visible.
    fn readlink(&mut self, path: &CStr, buf: &mut [u8]) -> SysResult<usize>;

    /// Creates a sync pipe, or the launcher's init pipe: `socketpair(AF_UNIX, SOCK_STREAM|SOCK_CLOEXEC, 0)`,
    /// socketpair(2).
    fn socketpair(&mut self) -> SysResult<(Fd, Fd)>;

    /// Creates the launcher's log pipe, and returns its read end and its write end: `pipe2(O_CLOEXEC)`,
    /// pipe(2).
    #[cfg(feature = "std")]
    fn pipe2(&mut self) -> SysResult<(Fd, Fd)>;

    /// Marks `first` and all higher descriptors close-on-exec: `close_range(first, ~0, CLOSE_RANGE_CLOEXEC)`,
    /// close_range(2), Linux 5.11.
    ///
    /// Called by the mapping tool's process before its exec. Also called by the first process of our own
    /// launcher, where the command inherits named descriptors only and code of the caller runs before the
    /// exec.
    ///
    /// Errors: `ENOSYS` and `EINVAL`: an older kernel.
    fn close_range_cloexec(&mut self, first: Fd) -> SysResult<()>;

    /// Closes the descriptors from `first` to `last`, both included: `close_range(first, last, 0)`,
    /// close_range(2), Linux 5.9. Numbers that are not open are ignored, and so are errors of a close.
    ///
    /// Called by the first process of our own launcher, where the command inherits named descriptors only.
    ///
    /// Errors: `ENOSYS`: an older kernel. `EINVAL`: `first` is greater than `last`.
    #[cfg(feature = "std")]
    fn close_range(&mut self, first: u32, last: u32) -> SysResult<()>;

    /// Reads entries of /proc/self/fd, where close_range is missing: `getdents64(fd, buf)`, getdents64(2).
    fn getdents64(&mut self, fd: Fd, buf: &mut [u8]) -> SysResult<usize>;

    /// Marks one descriptor close-on-exec: `fcntl(fd, F_SETFD, FD_CLOEXEC)`, fcntl(2). Called for each
    /// descriptor where close_range is missing.
    ///
    /// With `on` false, `fcntl(fd, F_SETFD, 0)`: the command inherits this descriptor.
    ///
    /// Errors: `EBADF`: the descriptor is not open.
    fn set_cloexec(&mut self, fd: Fd, on: bool) -> SysResult<()>;

    /// Duplicates a descriptor to the number that the command gets it under: `dup3(fd, number, 0)`, dup(2). A
    /// descriptor that had this number is closed. The new one is not close-on-exec.
    ///
    /// Errors: `EINTR` and `EBUSY`: try again. `EINVAL`: the two numbers are equal. `EBADF`: `fd` is not
    /// open, or `number` is above the limit (RLIMIT_NOFILE).
    #[cfg(feature = "std")]
    fn dup_to(&mut self, fd: Fd, number: Fd) -> SysResult<()>;

    /// Duplicates a descriptor to the lowest free number from `least` on: `fcntl(fd, F_DUPFD_CLOEXEC,
    /// least)`, fcntl(2). Moves a descriptor of the launch out of the way of a number that the command gets.
    ///
    /// Errors: `EINVAL` and `EMFILE`: the number would be above the limit (RLIMIT_NOFILE).
    #[cfg(feature = "std")]
    fn dup_above(&mut self, fd: Fd, least: Fd) -> SysResult<Fd>;

    // -- the sealed copy of our own program: for launchers of runc 1.0 and 1.1, and for our own launcher ----

    /// Returns the seals of a file: `fcntl(fd, F_GET_SEALS)`, fcntl(2). Called to check whether our program
    /// is a sealed copy, and whether the new copy is sealed.
    ///
    /// Errors: each means that the file cannot have seals.
    #[cfg(feature = "sealed-copy")]
    fn get_seals(&mut self, fd: Fd) -> SysResult<Seals>;

    /// Seals the copy against any change: `fcntl(fd, F_ADD_SEALS, seals)`, fcntl(2).
    ///
    /// Errors: `EBUSY`: the kernel still holds a page of the file, so try again.
    #[cfg(feature = "sealed-copy")]
    fn add_seals(&mut self, fd: Fd, seals: Seals) -> SysResult<()>;

    /// Creates a file in memory: `memfd_create(name, MFD_CLOEXEC|MFD_ALLOW_SEALING)`, with `exec` also
    /// `MFD_EXEC`. memfd_create(2), Linux 3.17.
    ///
    /// MFD_EXEC exists since Linux 6.3. Without it, the sysctl vm.memfd_noexec could make the file not
    /// executable.
    ///
    /// Errors: `EINVAL`: the kernel lacks this flag. After any other error a file in a directory is used.
    #[cfg(feature = "sealed-copy")]
    fn memfd_create(&mut self, name: &CStr, exec: bool) -> SysResult<Fd>;

    /// Copies bytes between two files, each at its current position: `sendfile(to, from, NULL, len)`,
    /// sendfile(2).
    ///
    /// Errors: `EINTR`. After any other error the caller reads and writes.
    #[cfg(feature = "sealed-copy")]
    fn sendfile(&mut self, to: Fd, from: Fd, len: usize) -> SysResult<usize>;

    /// Removes the write permission of a copy that cannot be sealed: `fchmod(fd, mode)`, fchmod(2).
    #[cfg(feature = "sealed-copy")]
    fn fchmod(&mut self, fd: Fd, mode: u32) -> SysResult<()>;

    /// Removes the name of a copy that cannot be sealed: `unlinkat(AT_FDCWD, path, 0)`, unlink(2).
    #[cfg(feature = "sealed-copy")]
    fn unlink(&mut self, path: &CStr) -> SysResult<()>;

    /// Returns whether the file is on a read-only mount: `statfs(path, &stat)`, of which `ST_RDONLY`.
    /// statfs(2).
    #[cfg(feature = "sealed-copy")]
    fn is_read_only(&mut self, path: &CStr) -> SysResult<bool>;

    /// Executes the copy: `execveat(fd, "", argv, envp, AT_EMPTY_PATH)`, execveat(2), Linux 3.19. Returns
    /// only if the call fails.
    ///
    /// Errors: `ENOSYS` (an older kernel) and `EPERM` (a seccomp filter without this call): execute the copy
    /// by its path in /proc.
    #[cfg(feature = "sealed-copy")]
    fn execveat<'a>(&mut self, fd: Fd, argv: &ExecArgs<'a>, envp: &ExecArgs<'a>) -> Errno;

    // -- processes -----------------------------------------------------------------------------------------

    /// Creates a sibling process on a copy of this stack: `clone(CLONE_PARENT|SIGCHLD, NULL)`, clone(2).
    /// Stage 0 creates stage 1, and stage 1 creates stage 2. `tid` is as for [`fork`](Self::fork).
    ///
    /// With CLONE_PARENT the launcher reaps all three stages, and stage 2's parent outlives stages 0 and 1.
    /// The new process inherits the exit signal of the caller, whatever the flags are.
    fn clone_sibling(&mut self, tid: Option<TidAddress>) -> SysResult<Fork>;

    /// Creates a child: `clone(exit signal, NULL)`, clone(2). Stage 0 creates the mapping tool, and the
    /// launcher creates stage 0.
    ///
    /// With `tid` also `CLONE_CHILD_SETTID|CLONE_CHILD_CLEARTID` and this address, as the libc's own fork
    /// does. The libc's cached thread id is then that of the child (runc#4233).
    fn fork(&mut self, exit: ExitSignal, tid: Option<TidAddress>) -> SysResult<Fork>;

    /// Creates a child, without new namespaces:
    /// `clone(CLONE_PARENT_SETTID|CLONE_CHILD_SETTID|CLONE_CHILD_CLEARTID, NULL, &pid, tid)`, clone(2). Our
    /// own launcher creates stage 1 with it in a start without stage 0.
    ///
    /// The child has no exit signal, as with [`ExitSignal::None`], and so has a sibling that it creates
    /// ([`clone_sibling`](Self::clone_sibling)). `tid` is as for [`fork`](Self::fork); without it the kernel
    /// writes no thread id. `CLONE_PARENT_SETTID` distinguishes the call from `fork` for an observer. The
    /// number that it writes is not used: the call returns the same one.
    ///
    /// Errors: `EAGAIN`: a limit of processes (RLIMIT_NPROC, pids.max). `ENOMEM`: no memory, or pid 1 of the
    /// pid namespace for children has ended.
    #[cfg(feature = "std")]
    fn clone_child(&mut self, tid: Option<TidAddress>) -> SysResult<Fork>;

    /// Creates a child in new namespaces:
    /// `clone(CLONE_PIDFD|namespaces|CLONE_CHILD_SETTID|CLONE_CHILD_CLEARTID, NULL, &pidfd, tid)`, clone(2).
    /// Our own launcher creates the container's init with it.
    ///
    /// The child has no exit signal, as with [`ExitSignal::None`]. With `CLONE_NEWUSER` the kernel creates
    /// the user namespace first; the other new namespaces belong to it. `tid` is as for [`fork`](Self::fork);
    /// without it the kernel writes no thread id.
    ///
    /// Errors: `EINVAL`, without a system call: a flag that is not of a namespace, or `CLONE_NEWTIME`, whose
    /// number is an exit signal for clone(2). `EPERM`, `ENOSPC`, `EINVAL` and others of unshare(2). The
    /// caller then creates the stages, whose own calls of unshare(2) name the namespace that is refused.
    ///
    /// With `shared` the call has the flag `CLONE_VM`, with a stack of its own and no address for the thread
    /// id: the child shares this process's memory up to its exec, and the kernel copies no page table.
    /// [`LinuxSys`] then returns only in the parent, and the child runs `shared`. A simulated backend still
    /// returns twice. In shared memory the kernel refuses the setns(2) to a time namespace (`EUSERS`). The
    /// two processes also share their dumpable attribute and the oom_score_adj that is written for either.
    ///
    /// [`LinuxSys`]: linux::LinuxSys
    #[cfg(feature = "std")]
    fn clone_init(
        &mut self,
        namespaces: CloneFlags,
        shared: Option<SharedStart>,
        tid: Option<TidAddress>,
    ) -> SysResult<InitFork>;

    /// Executes a program: `execve(path, argv, envp)`, execve(2). Returns only if the call fails. Called by
    /// the mapping tool's process and at the end of stage 2.
    fn execve<'a>(&mut self, path: &CStr, argv: &ExecArgs<'a>, envp: &ExecArgs<'a>) -> Errno;

    /// Waits for a child: `wait4(pid, &status, flags, NULL)`, wait4(2). Stage 0 reaps the mapping tool, and
    /// the launcher reaps the stages.
    ///
    /// With [`WaitFor::StagesNow`] and [`WaitFor::OrdinaryNow`] the call does not block. It returns the pid 0
    /// if no child has changed its state. `StagesNow` also reports a stage that was stopped.
    ///
    /// Errors: `EINTR`. `ECHILD`: no child is left.
    fn wait4(&mut self, pid: Pid, which: WaitFor) -> SysResult<Waited>;

    /// Sends a signal: `kill(pid, signal)`, kill(2). After a failure, the stages receive SIGKILL.
    fn kill(&mut self, pid: Pid, signal: Signal) -> SysResult<()>;

    /// Opens a pidfd: `pidfd_open(pid, 0)`, pidfd_open(2), Linux 5.3. It lets stage 0 wait for the mapping
    /// tool and for stage 1 at once.
    ///
    /// Errors: after any error the caller works without a pidfd.
    fn pidfd_open(&mut self, pid: Pid) -> SysResult<Fd>;

    /// Returns the process id in the process's own pid namespace, for log records: `getpid()`, getpid(2).
    fn getpid(&mut self) -> Pid;

    /// Returns the thread id, to compare it with the one that the libc caches: `gettid()`, gettid(2).
    fn gettid(&mut self) -> Pid;

    /// Returns the address where the libc caches its thread id, and the number at this address:
    /// `prctl(PR_GET_TID_ADDRESS)`, PR_GET_TID_ADDRESS(2const). Called before the first clone.
    ///
    /// Errors: `EINVAL`: a kernel without CONFIG_CHECKPOINT_RESTORE; the caller works without the address.
    fn tid_address(&mut self) -> SysResult<TidAddress>;

    // -- attributes of a process ----------------------------------------------------------------------------

    /// Joins a namespace: `setns(fd, kind)`, setns(2). Called by stage 1.
    ///
    /// Errors: `EPERM` in the first pass: try again after the join of the user namespace.
    fn setns(&mut self, fd: Fd, kind: CloneFlags) -> SysResult<()>;

    /// Creates namespaces: `unshare(flags)`, unshare(2). Called by stage 1, even without any flag.
    ///
    /// Errors: `EINVAL`: kernels before 4.3 return it while another process reads our /proc files. All
    /// kernels return it while a thread that ended is not yet reaped. The caller tries a few more times
    /// (runc#3704).
    fn unshare(&mut self, flags: CloneFlags) -> SysResult<()>;

    /// Sets whether this process is dumpable: `prctl(PR_SET_DUMPABLE, dumpable)`, PR_SET_DUMPABLE(2const).
    /// Decides which processes have access to our files in /proc.
    fn set_dumpable(&mut self, dumpable: bool) -> SysResult<()>;

    /// Sets the name of the process, at most 15 bytes: `prctl(PR_SET_NAME, name)`, PR_SET_NAME(2const).
    fn set_name(&mut self, name: &CStr) -> SysResult<()>;

    /// Sets the signal that this process receives when the launcher's thread dies; 0 means no signal:
    /// `prctl(PR_SET_PDEATHSIG, signal)`, PR_SET_PDEATHSIG(2const). A fork, and most changes of credentials,
    /// clear it.
    ///
    /// Called by the stages of our own launcher, never by the drop-in: a Go runtime may end the thread that
    /// started stage 0 at any time.
    #[cfg(feature = "std")]
    fn set_pdeathsig(&mut self, signal: Signal) -> SysResult<()>;

    /// Makes stage 2 the leader of a session: `setsid()`, setsid(2).
    fn setsid(&mut self) -> SysResult<()>;

    /// Sets the three user ids of this thread: `setresuid(uid, uid, uid)`, setresuid(2). Stage 1 becomes root
    /// in the user namespace.
    fn setresuid(&mut self, uid: u32) -> SysResult<()>;

    /// Sets the user id of this thread: `setuid(uid)`, setuid(2). Called by stage 2.
    fn setuid(&mut self, uid: u32) -> SysResult<()>;

    /// Sets the group id of this thread: `setgid(gid)`, setgid(2). Called by stage 2.
    fn setgid(&mut self, gid: u32) -> SysResult<()>;

    /// Drops the supplementary groups of this thread: `setgroups(0, NULL)`, setgroups(2). Called by stage 2.
    fn drop_groups(&mut self) -> SysResult<()>;

    /// Returns the affinity of this thread to the first 64 CPUs, for a debug record: `sched_getaffinity(0,
    /// 128, &mask)`, sched_getaffinity(2).
    fn sched_getaffinity(&mut self) -> SysResult<u64>;

    /// Makes one of the mounts of the launcher's stage 2: `mount(…)`, mount(2).
    ///
    /// Errors: `EPERM`: no CAP_SYS_ADMIN over the mount namespace, or a new procfs or sysfs would show more
    /// than the present one (user_namespaces(7)). `EACCES`: a security module refuses the mount.
    #[cfg(feature = "std")]
    fn mount(&mut self, mount: Mount) -> SysResult<()>;

    // -- the surroundings of the command, which our own launcher sets --------------------------------------

    /// Changes the working directory: `chdir(path)`, chdir(2).
    #[cfg(feature = "std")]
    fn chdir(&mut self, path: &CStr) -> SysResult<()>;

    /// Sets the supplementary groups of this thread: `setgroups(len, groups)`, setgroups(2).
    ///
    /// Errors: `EPERM`: no CAP_SETGID, or the user namespace denies setgroups (user_namespaces(7)). `EINVAL`:
    /// a group without a mapping in the user namespace, or too many groups.
    #[cfg(feature = "std")]
    fn set_groups(&mut self, groups: &[u32]) -> SysResult<()>;

    /// Runs code of the caller in this process, right before the exec. It is the only method that makes no
    /// system call of its own: the calls of the code are neither planned nor recorded.
    ///
    /// Errors: those that the code returns.
    #[cfg(feature = "std")]
    fn run_hook<'a>(&mut self, hook: Hook<'a>) -> SysResult<()>;

    // -- the attributes of the command, which our own launcher sets
    // -------------------------------------------

    /// Sets the mask for the permissions of new files, and returns the previous one: `umask(mask)`, umask(2).
    /// The call always succeeds.
    #[cfg(feature = "std")]
    fn umask(&mut self, mask: u32) -> SysResult<u32>;

    /// Sets the host name of the UTS namespace: `sethostname(name, len)`, sethostname(2).
    ///
    /// Errors: `EPERM`: no CAP_SYS_ADMIN over the UTS namespace. `EINVAL`: longer than 64 bytes.
    #[cfg(feature = "std")]
    fn set_hostname(&mut self, name: &[u8]) -> SysResult<()>;

    /// Sets a resource limit of this process: `prlimit64(0, resource, {soft, hard}, NULL)`, getrlimit(2).
    ///
    /// Errors: `EPERM`: the hard limit is above the present one, and the process lacks CAP_SYS_RESOURCE in
    /// the first user namespace. `EINVAL`: the soft limit is above the hard one.
    #[cfg(feature = "std")]
    fn set_limit(&mut self, limit: Limit) -> SysResult<()>;

    /// Sets whether this thread keeps its permitted capabilities when its user ids become nonzero:
    /// `prctl(PR_SET_KEEPCAPS, keep)`, PR_SET_KEEPCAPS(2const). An exec clears it.
    #[cfg(feature = "std")]
    fn keep_capabilities(&mut self, keep: bool) -> SysResult<()>;

    /// Removes a capability from the bounding set: `prctl(PR_CAPBSET_DROP, capability)`,
    /// PR_CAPBSET_DROP(2const).
    ///
    /// Errors: `EPERM`: no CAP_SETPCAP. `EINVAL`: the kernel does not know the capability.
    #[cfg(feature = "std")]
    fn drop_bounding(&mut self, capability: Capability) -> SysResult<()>;

    /// Sets the effective, permitted and inheritable capabilities of this thread: `capset({version 3, pid 0},
    /// sets)`, capget(2).
    ///
    /// Errors: `EPERM`: a permitted capability that the thread lacks, an effective one that is not
    /// permitted, or an inheritable one outside of the bounding set.
    #[cfg(feature = "std")]
    fn set_capabilities(&mut self, sets: CapabilitySets) -> SysResult<()>;

    /// Adds a capability to the ambient set: `prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0)`,
    /// PR_CAP_AMBIENT(2const), Linux 4.3.
    ///
    /// Errors: `EPERM`: the capability is not both permitted and inheritable.
    #[cfg(feature = "std")]
    fn raise_ambient(&mut self, capability: Capability) -> SysResult<()>;

    /// Ensures that no exec gives new privileges: `prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)`,
    /// PR_SET_NO_NEW_PRIVS(2const).
    #[cfg(feature = "std")]
    fn set_no_new_privs(&mut self) -> SysResult<()>;

    /// Installs a seccomp filter for this thread: `seccomp(SECCOMP_SET_MODE_FILTER, 0, {len, filter})`,
    /// seccomp(2), Linux 3.17.
    ///
    /// Errors: `EACCES`: neither no_new_privs nor CAP_SYS_ADMIN. `EINVAL`: the kernel refuses the program.
    #[cfg(feature = "std")]
    fn set_seccomp_filter(&mut self, program: &[BpfInstruction]) -> SysResult<()>;

    /// Restricts this thread by a Landlock rule set: `landlock_restrict_self(ruleset, 0)`,
    /// landlock_restrict_self(2), Linux 5.13.
    ///
    /// Errors: `EPERM`: neither no_new_privs nor CAP_SYS_ADMIN. `EBADFD` and `EBADF`: not a rule set.
    /// `EOPNOTSUPP` and `ENOSYS`: the kernel has no Landlock, or it is off.
    #[cfg(feature = "std")]
    fn landlock_restrict_self(&mut self, ruleset: Fd) -> SysResult<()>;

    /// Makes the terminal of a descriptor the controlling terminal of this process's session:
    /// `ioctl(terminal, TIOCSCTTY, 0)`, TIOCSCTTY(2const).
    ///
    /// Errors: `ENOTTY`: not a terminal. `EPERM`: this process is not the leader of a session without a
    /// controlling terminal, or the terminal controls another session.
    #[cfg(feature = "std")]
    fn set_controlling_terminal(&mut self, terminal: Fd) -> SysResult<()>;

    /// Gives this process a new, empty session keyring: `keyctl(KEYCTL_JOIN_SESSION_KEYRING, NULL)`,
    /// KEYCTL_JOIN_SESSION_KEYRING(2const). The number of the keyring is not returned.
    ///
    /// Errors: `ENOSYS`: the kernel has no keyrings. `EDQUOT`: the limit of keys of the user is reached.
    #[cfg(feature = "std")]
    fn new_session_keyring(&mut self) -> SysResult<()>;

    /// Creates a socket for the configuration of network interfaces: `socket(AF_INET,
    /// SOCK_DGRAM|SOCK_CLOEXEC, 0)`, socket(2).
    #[cfg(feature = "std")]
    fn inet_socket(&mut self) -> SysResult<Fd>;

    /// Turns the loopback interface of the network namespace on: `ioctl(socket, SIOCSIFFLAGS, {"lo",
    /// IFF_UP|IFF_RUNNING})`, netdevice(7).
    ///
    /// Errors: `EPERM`: no CAP_NET_ADMIN over the network namespace.
    #[cfg(feature = "std")]
    fn set_loopback_up(&mut self, socket: Fd) -> SysResult<()>;

    // -- the root file system of the command, which our own launcher builds --------------------------------

    /// Changes the working directory to that of a descriptor: `fchdir(dir)`, chdir(2).
    #[cfg(feature = "std")]
    fn fchdir(&mut self, dir: Fd) -> SysResult<()>;

    /// Copies a mount: `open_tree(AT_FDCWD, path, OPEN_TREE_CLONE|OPEN_TREE_CLOEXEC)`, with `recursive` also
    /// `AT_RECURSIVE`. open_tree(2), Linux 5.2. The copy is attached nowhere.
    ///
    /// Errors: `ENOENT` and others of the path. `EPERM`: no CAP_SYS_ADMIN over the mount namespace. `EINVAL`:
    /// the mount is unbindable, or, without `recursive`, has locked mounts below it (mount_namespaces(7)).
    #[cfg(feature = "std")]
    fn open_tree(&mut self, path: &CStr, recursive: bool) -> SysResult<Fd>;

    /// Attaches a copied mount to a file or directory: `move_mount(mount, "", target, "",
    /// MOVE_MOUNT_F_EMPTY_PATH|MOVE_MOUNT_T_EMPTY_PATH)`, move_mount(2), Linux 5.2.
    ///
    /// Errors: `ENOTDIR`: one of the two is a directory, and the other is not. `EINVAL`.
    #[cfg(feature = "std")]
    fn move_mount(&mut self, mount: Fd, target: Fd) -> SysResult<()>;

    /// Changes the attributes of a copied mount: `mount_setattr(mount, "", AT_EMPTY_PATH, {set, clear, 0, 0},
    /// 32)`, with `recursive` also `AT_RECURSIVE`. mount_setattr(2), Linux 5.12.
    ///
    /// Errors: `EPERM`: an attribute to clear is locked (mount_namespaces(7)).
    #[cfg(feature = "std")]
    fn set_mount_attributes(
        &mut self,
        mount: Fd,
        recursive: bool,
        attributes: MountAttributes,
    ) -> SysResult<()>;

    /// Mounts a new file system over the working directory: `mount(kind, ".", kind, flags, options)`,
    /// mount(2).
    ///
    /// Errors: `EPERM`: no CAP_SYS_ADMIN over the mount namespace; for procfs and sysfs, also a part of the
    /// old one that is covered (user_namespaces(7)). `ENODEV`: the kernel lacks the file system.
    #[cfg(feature = "std")]
    fn mount_here(&mut self, kind: MountKind, options: &CStr) -> SysResult<()>;

    /// Opens a file below a directory as if this were the root directory: `openat2(root, path, {flags, 0,
    /// RESOLVE_IN_ROOT|RESOLVE_NO_MAGICLINKS}, 24)`, openat2(2), Linux 5.6. Neither `..` nor a symbolic link
    /// leads out of it.
    ///
    /// Errors: `EAGAIN`: the path has `..`, and a process of the machine renames or mounts a file meanwhile.
    #[cfg(feature = "std")]
    fn open_in_root(&mut self, root: Fd, path: &CStr, flags: OpenFlags) -> SysResult<Fd>;

    /// Creates a directory: `mkdirat(dir, name, mode)`, mkdir(2).
    #[cfg(feature = "std")]
    fn mkdirat(&mut self, dir: Fd, name: &CStr, mode: u32) -> SysResult<()>;

    /// Creates a symbolic link: `symlinkat(target, dir, name)`, symlink(2).
    #[cfg(feature = "std")]
    fn symlinkat(&mut self, target: &CStr, dir: Fd, name: &CStr) -> SysResult<()>;

    /// Makes the working directory the root directory of the mount namespace, and stacks the old root on it:
    /// `pivot_root(".", ".")`, pivot_root(2).
    ///
    /// Errors: `EINVAL`: the working directory is not a mount, or the old root is the initial ramfs. `EBUSY`.
    #[cfg(feature = "std")]
    fn pivot_root_here(&mut self) -> SysResult<()>;

    /// Detaches the mount at the working directory, with all mounts below it: `umount2(".", MNT_DETACH)`,
    /// umount(2).
    #[cfg(feature = "std")]
    fn detach_here(&mut self) -> SysResult<()>;

    /// Makes the working directory the root directory of this process: `chroot(".")`, chroot(2).
    #[cfg(feature = "std")]
    fn chroot_here(&mut self) -> SysResult<()>;

    // -- signals -----------------------------------------------------------------------------------------

    /// Changes the signal mask and returns the previous one: `rt_sigprocmask(how, set, &old, 8)`,
    /// sigprocmask(2).
    fn sigprocmask(&mut self, how: MaskHow, set: SignalSet) -> SysResult<SignalSet>;

    /// Sets the disposition of a signal and returns the previous one: `rt_sigaction(signal, action, &old,
    /// 8)`, sigaction(2).
    fn sigaction(&mut self, signal: Signal, action: SigAction) -> SysResult<SigAction>;

    /// Waits for a signal of the set and removes it: `rt_sigtimedwait(set, &info, NULL, 8)`, sigwaitinfo(2).
    /// A minimal init, which blocks all signals, waits with it.
    ///
    /// Errors: `EINTR`: a handler of another signal ran, or this process was stopped and continued.
    #[cfg(feature = "std")]
    fn wait_signal(&mut self, set: SignalSet) -> SysResult<SentSignal>;

    /// Removes a pending signal: `rt_sigtimedwait(set, NULL, {0, 0}, 8)`, sigtimedwait(2).
    ///
    /// Errors: `EAGAIN`: no signal of the set is pending.
    fn sigtimedwait(&mut self, set: SignalSet) -> SysResult<Signal>;
}
