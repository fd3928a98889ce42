//! The real backend, [`LinuxSys`]: each method makes one bare system call.
//!
//! # How to audit this file
//!
//! Compare each method with the man page of its system call and with the doc comment of its method in
//! [`Sys`]. All methods use `syscall!`, not the libc's function of the same name, for three reasons. Only
//! `clone_init` with shared memory calls the libc's `clone`, for the first instructions of the child.
//!
//! - The libc's setuid, setgid, setgroups and setresuid broadcast to every thread that the libc has recorded.
//!   In the child of a threaded process only one thread exists, so they would wait for ever.
//! - A call then behaves the same with every libc.
//! - The libc's functions store the error in the thread's errno. A process that shares its launcher's memory
//!   has the errno of the thread that launched it.
//!
//! Look for three things:
//!
//! 1. **Pointers.** Each pointer passed is null, or comes from a reference or a slice that lives through the
//!    call. No call here keeps a pointer, except the `tid` of a clone, which the libc itself had registered.
//! 2. **Width.** The macro `syscall!` passes six whole registers. Each argument becomes a `Word` (`raw.rs`):
//!    signed ones are sign-extended, unsigned ones are zero-extended, and missing ones are 0. A seccomp
//!    filter sees the whole register.
//! 3. **Order.** Only clone's order of arguments differs by architecture: `raw.rs`.
//!
//! The calls: openat openat2 close read write pwritev2 sendto sendmsg recvmsg dup3 poll (aarch64: ppoll)
//! fstatfs getsockopt newfstatat readlinkat socketpair pipe2 close_range getdents64 fcntl(F_SETFD) ·
//! fcntl(F_GET_SEALS, F_ADD_SEALS) memfd_create sendfile fchmod unlinkat statfs execveat · clone execve wait4
//! kill pidfd_open getpid gettid · setns unshare setsid setresuid setuid setgid setgroups sched_getaffinity
//! mount prctl(PR_GET_TID_ADDRESS, PR_SET_DUMPABLE, PR_SET_NAME, PR_SET_PDEATHSIG) · rt_sigprocmask
//! rt_sigaction rt_sigtimedwait. These are all of a bootstrap. The handle of a command adds
//! pidfd_send_signal, and the program pidfd_getfd.

#[cfg(feature = "legacy")]
mod message;
mod raw;
#[cfg(feature = "std")]
mod surroundings;

use core::ffi::{CStr, c_int, c_long, c_ulong};
use core::mem::MaybeUninit;
use core::ptr;

use super::Sys;
#[cfg(feature = "sealed-copy")]
use super::types::Seals;
#[cfg(feature = "std")]
use super::types::{
    BpfInstruction, Capability, CapabilitySets, Hook, InitFork, Limit, Mount, MountAttributes, MountKind,
    Propagation, SentSignal, SharedStart,
};
use super::types::{
    CloneFlags, Errno, ExecArgs, ExitSignal, Fd, Fork, FsType, MaskHow, OpenFlags, Pid, PollFd, SigAction,
    Signal, SignalSet, SocketType, SysResult, TidAddress, WaitFor, WaitStatus, Waited,
};
#[cfg(feature = "legacy")]
use message::{KernelMsghdr, KernelRights, iovec};
use raw::{KernelOpenHow, KernelStatfs, SIGSET_SIZE, count, errno, fd, reply, syscall, unit};
#[cfg(feature = "std")]
use surroundings::{
    CAPABILITY_VERSION_3, JOIN_SESSION_KEYRING, KernelIfreq, MOVE_MOUNT_F_EMPTY_PATH,
    MOVE_MOUNT_T_EMPTY_PATH, OPEN_TREE, at_recursive, mount_kind,
};

/// The backend that calls the kernel of this machine.
#[derive(Debug)]
pub struct LinuxSys {
    _private: (),
}

impl LinuxSys {
    /// Returns the backend.
    ///
    /// # Safety
    ///
    /// The caller asserts one of these conditions, for as long as the value is used:
    ///
    /// - this process has a single thread; or
    /// - it is the child of a fork or of a bare clone, and never again runs code that relies on the libc's
    ///   thread state. That state includes locks that another thread may have held, such as the allocator's;
    ///   or
    /// - it is threaded, and this value is used only for calls that change nothing but their own arguments.
    ///   These are reads, writes and closes of its own descriptors, waits for its own children, signals that
    ///   it sends, the default disposition of a signal, changes of this thread's signal mask that it undoes,
    ///   and [`Sys::fork`] if the child obeys the second condition.
    ///
    /// And always: each handler in a [`SigAction`] and each [`TidAddress`] is one that this process got from
    /// this value, and each `SharedStart` creates one process.
    ///
    /// The reasons: a fork copies one thread and the locks of all. User ids, signal masks and namespaces
    /// change for the calling thread alone, without the libc's knowledge. A descriptor that is closed may
    /// belong to other code.
    #[must_use]
    pub const unsafe fn new() -> Self {
        Self { _private: () }
    }

    /// Sends a signal to the process of a pidfd (pidfd_send_signal(2), Linux 5.1). The handle of a started
    /// command calls it. No script does, so the trait does not have it.
    ///
    /// # Errors
    /// `ESRCH`: the process has ended and is reaped. `EPERM`, `EINVAL`: the same as with kill(2).
    #[cfg(feature = "std")]
    #[allow(clippy::unused_self, reason = "the unsafe constructor restricts who may call it")]
    pub(crate) fn pidfd_send_signal(&mut self, pidfd: Fd, signal: Signal) -> SysResult<()> {
        let info: *const libc::siginfo_t = core::ptr::null();
        // SAFETY: numbers, and a null pointer, for which the kernel fills in the information.
        unit(unsafe { syscall!(libc::SYS_pidfd_send_signal, pidfd.0, signal.0, info, 0) })
    }

    /// Duplicates a descriptor of the process of a pidfd, close-on-exec (pidfd_getfd(2), Linux 5.6). Only the
    /// program calls it, before a launch. No script does, so the trait does not have it.
    ///
    /// # Errors
    /// `EPERM`: this process may not trace the other one. `EBADF`: the other process has no such descriptor.
    /// `ESRCH`: it has ended.
    #[cfg(feature = "std")]
    #[allow(clippy::unused_self, reason = "the unsafe constructor restricts who may call it")]
    pub(crate) fn pidfd_getfd(&mut self, pidfd: Fd, theirs: Fd) -> SysResult<Fd> {
        // SAFETY: numbers.
        fd(unsafe { syscall!(libc::SYS_pidfd_getfd, pidfd.0, theirs.0, 0) })
    }
}

impl Sys for LinuxSys {
    // -- descriptors ---------------------------------------------------------------------------------------

    fn openat(&mut self, dir: Fd, path: &CStr, flags: OpenFlags) -> SysResult<Fd> {
        // The permissions of a new file: all for its owner.
        let mode: c_int = 0o700;
        let flags = open_flags(flags);
        // SAFETY: the path ends with its NUL, and lives through the call, which only reads it. If no file is
        // created, the kernel ignores the mode.
        fd(unsafe { syscall!(libc::SYS_openat, dir.0, path.as_ptr(), flags, mode) })
    }

    fn openat2(&mut self, dir: Fd, path: &CStr, flags: OpenFlags) -> SysResult<Fd> {
        let how = KernelOpenHow {
            flags: open_flags(flags) as u64,
            mode: 0,
            resolve: libc::RESOLVE_NO_XDEV | libc::RESOLVE_NO_MAGICLINKS,
        };
        // SAFETY: the path ends with its NUL. The path and the structure live through the call, which only
        // reads them. The kernel reads as many bytes of the structure as the last argument gives.
        fd(unsafe { syscall!(libc::SYS_openat2, dir.0, path.as_ptr(), &raw const how, size_of_val(&how)) })
    }

    fn close(&mut self, fd: Fd) -> SysResult<()> {
        // SAFETY: a number. The contract of `new` requires that the descriptor is ours to close.
        unit(unsafe { syscall!(libc::SYS_close, fd.0) })
    }

    fn read(&mut self, fd: Fd, buf: &mut [u8]) -> SysResult<usize> {
        // SAFETY: the kernel writes at most `len` bytes to the slice, which we hold exclusively.
        count(unsafe { syscall!(libc::SYS_read, fd.0, buf.as_mut_ptr(), buf.len()) })
    }

    fn write(&mut self, fd: Fd, buf: &[u8]) -> SysResult<usize> {
        // SAFETY: the kernel reads at most `len` bytes of the slice.
        count(unsafe { syscall!(libc::SYS_write, fd.0, buf.as_ptr(), buf.len()) })
    }

    fn write_nowait(&mut self, fd: Fd, buf: &[u8]) -> SysResult<usize> {
        let iov = libc::iovec { iov_base: buf.as_ptr().cast_mut().cast(), iov_len: buf.len() };
        let (iovcnt, pos_low, pos_high): (c_long, c_long, c_long) = (1, -1, -1);
        // SAFETY: one iovec, on this stack, over the slice, which the kernel only reads. On a 64-bit kernel
        // the low half is the whole offset, and −1 means the file's current position.
        count(unsafe {
            syscall!(libc::SYS_pwritev2, fd.0, &raw const iov, iovcnt, pos_low, pos_high, libc::RWF_NOWAIT)
        })
    }

    fn send(&mut self, fd: Fd, buf: &[u8]) -> SysResult<usize> {
        let (address, length) = (ptr::null::<libc::sockaddr>(), 0);
        // SAFETY: the kernel reads at most `len` bytes of the slice. The address is null: the socket is
        // connected.
        count(unsafe {
            syscall!(libc::SYS_sendto, fd.0, buf.as_ptr(), buf.len(), libc::MSG_NOSIGNAL, address, length)
        })
    }

    #[cfg(feature = "legacy")]
    fn send_fd(&mut self, socket: Fd, fd: Fd) -> SysResult<usize> {
        let (mut byte, mut rights) = ([0], KernelRights::of(fd));
        let mut iov = iovec(&mut byte);
        let message = KernelMsghdr::new(&mut iov, &mut rights);
        // SAFETY: the kernel reads the header, the one iovec with its byte, and the control message with its
        // one number, all on this stack.
        count(unsafe { syscall!(libc::SYS_sendmsg, socket.0, &raw const message, libc::MSG_NOSIGNAL) })
    }

    #[cfg(feature = "legacy")]
    fn receive_fd(&mut self, socket: Fd) -> SysResult<super::types::Received> {
        let (mut byte, mut rights) = ([0], KernelRights::default());
        let mut iov = iovec(&mut byte);
        let mut message = KernelMsghdr::new(&mut iov, &mut rights);
        // SAFETY: the kernel writes at most one byte through the iovec. It writes at most the length in the
        // header to the control message, and it writes the header itself. All three are on this stack.
        let got = count(unsafe {
            syscall!(libc::SYS_recvmsg, socket.0, &raw mut message, libc::MSG_CMSG_CLOEXEC)
        })?;
        let (fd, truncated) = (message.carries(&rights), message.is_truncated());
        Ok(super::types::Received { byte: (got > 0).then_some(byte[0]), fd, truncated })
    }

    #[cfg(feature = "legacy")]
    fn dup3(&mut self, fd: Fd, number: Fd) -> SysResult<()> {
        // SAFETY: numbers. The contract of `new` requires that both descriptors are ours.
        reply(unsafe { syscall!(libc::SYS_dup3, fd.0, number.0, libc::O_CLOEXEC) }).map(|_| ())
    }

    #[cfg(target_arch = "x86_64")]
    fn poll(&mut self, fds: &mut [PollFd], timeout_ms: i32) -> SysResult<usize> {
        // SAFETY: the slice, held exclusively, is an array of the kernel's pollfd: asserted in raw.rs.
        count(unsafe { syscall!(libc::SYS_poll, fds.as_mut_ptr(), fds.len(), timeout_ms) })
    }

    /// Calls ppoll(2) without a signal mask: the newer architectures have no poll(2).
    #[cfg(not(target_arch = "x86_64"))]
    fn poll(&mut self, fds: &mut [PollFd], timeout_ms: i32) -> SysResult<usize> {
        let milliseconds = c_long::from(timeout_ms);
        let mut limit =
            libc::timespec { tv_sec: milliseconds / 1000, tv_nsec: milliseconds % 1000 * 1_000_000 };
        let limit = if timeout_ms < 0 { ptr::null_mut() } else { &raw mut limit };
        let mask = ptr::null::<u64>();
        // SAFETY: the slice, held exclusively, is an array of the kernel's pollfd: asserted in raw.rs. The
        // limit is on this stack, and the kernel writes the remaining time to it.
        count(unsafe { syscall!(libc::SYS_ppoll, fds.as_mut_ptr(), fds.len(), limit, mask, SIGSET_SIZE) })
    }

    fn fstatfs(&mut self, fd: Fd) -> SysResult<FsType> {
        let mut stat = KernelStatfs::default();
        // SAFETY: the kernel fills its own structure.
        unit(unsafe { syscall!(libc::SYS_fstatfs, fd.0, &raw mut stat) })?;
        Ok(FsType(stat.kind()))
    }

    fn socket_type(&mut self, fd: Fd) -> SysResult<SocketType> {
        let (mut kind, mut len): (c_int, u32) = (0, 4);
        let (level, option) = (libc::SOL_SOCKET, libc::SO_TYPE);
        // SAFETY: the kernel writes at most `len` bytes to the int, which has four, and then the written
        // length to `len`.
        unit(unsafe { syscall!(libc::SYS_getsockopt, fd.0, level, option, &raw mut kind, &raw mut len) })?;
        Ok(SocketType(kind))
    }

    fn link_count(&mut self, path: &CStr) -> SysResult<u64> {
        let mut stat = MaybeUninit::<libc::stat>::zeroed();
        // SAFETY: the path ends with its NUL and lives through the call. On 64-bit Linux the libc's stat has
        // the layout of the kernel's, which the kernel fills.
        unit(unsafe { syscall!(libc::SYS_newfstatat, libc::AT_FDCWD, path.as_ptr(), stat.as_mut_ptr(), 0) })?;
        // SAFETY: the fields are integers, for which the initial zeroes are valid values too.
        let stat = unsafe { stat.assume_init() };
        #[allow(clippy::unnecessary_cast, reason = "aarch64 declares it with 32 bits")]
        let count = stat.st_nlink as u64;
        Ok(count)
    }

    fn readlink(&mut self, path: &CStr, buf: &mut [u8]) -> SysResult<usize> {
        // SAFETY: the path ends with its NUL and lives through the call. The kernel writes at most `len`
        // bytes, and no NUL, to the slice, which we hold exclusively.
        count(unsafe {
            syscall!(libc::SYS_readlinkat, libc::AT_FDCWD, path.as_ptr(), buf.as_mut_ptr(), buf.len())
        })
    }

    fn socketpair(&mut self) -> SysResult<(Fd, Fd)> {
        let mut pair: [c_int; 2] = [-1; 2];
        let (kind, protocol) = (libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
        // SAFETY: the kernel writes two ints to the array of two.
        unit(unsafe { syscall!(libc::SYS_socketpair, libc::AF_UNIX, kind, protocol, pair.as_mut_ptr()) })?;
        Ok((Fd(pair[0]), Fd(pair[1])))
    }

    #[cfg(feature = "std")]
    fn pipe2(&mut self) -> SysResult<(Fd, Fd)> {
        let mut pair: [c_int; 2] = [-1; 2];
        // SAFETY: the kernel writes two ints to the array of two.
        unit(unsafe { syscall!(libc::SYS_pipe2, pair.as_mut_ptr(), libc::O_CLOEXEC) })?;
        Ok((Fd(pair[0]), Fd(pair[1])))
    }

    fn close_range_cloexec(&mut self, first: Fd) -> SysResult<()> {
        let (last, cloexec) = (u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
        // SAFETY: numbers. With this flag no descriptor is closed before an exec.
        unit(unsafe { syscall!(libc::SYS_close_range, first.0, last, cloexec) })
    }

    #[cfg(feature = "std")]
    fn close_range(&mut self, first: u32, last: u32) -> SysResult<()> {
        // SAFETY: numbers. The caller of the script ensures that no other code of this process uses the
        // descriptors: it is the first process of a launch, with a table of its own.
        unit(unsafe { syscall!(libc::SYS_close_range, first, last, 0) })
    }

    fn getdents64(&mut self, fd: Fd, buf: &mut [u8]) -> SysResult<usize> {
        // The kernel's length is an unsigned int: only the first part of a longer buffer is used.
        let len = u32::try_from(buf.len()).unwrap_or(u32::MAX);
        // SAFETY: the kernel writes at most `len` bytes to the slice, which is that long and held
        // exclusively. The entries need no alignment: the kernel writes them with put_user, and we read
        // bytes.
        count(unsafe { syscall!(libc::SYS_getdents64, fd.0, buf.as_mut_ptr(), len) })
    }

    fn set_cloexec(&mut self, fd: Fd, on: bool) -> SysResult<()> {
        let flags = if on { c_long::from(libc::FD_CLOEXEC) } else { 0 };
        // SAFETY: numbers; only the descriptor's flag changes.
        unit(unsafe { syscall!(libc::SYS_fcntl, fd.0, libc::F_SETFD, flags) })
    }

    // -- the sealed copy of our own program ----------------------------------------------------------------

    #[cfg(feature = "std")]
    fn dup_to(&mut self, fd: Fd, number: Fd) -> SysResult<()> {
        // SAFETY: numbers, as in `close`: a descriptor with this number is closed.
        unit(unsafe { syscall!(libc::SYS_dup3, fd.0, number.0, 0) })
    }

    #[cfg(feature = "std")]
    fn dup_above(&mut self, old: Fd, least: Fd) -> SysResult<Fd> {
        // SAFETY: numbers.
        fd(unsafe { syscall!(libc::SYS_fcntl, old.0, libc::F_DUPFD_CLOEXEC, c_long::from(least.0)) })
    }

    #[cfg(feature = "sealed-copy")]
    fn get_seals(&mut self, fd: Fd) -> SysResult<Seals> {
        // SAFETY: numbers.
        reply(unsafe { syscall!(libc::SYS_fcntl, fd.0, libc::F_GET_SEALS) }).map(|seals| Seals(seals as u32))
    }

    #[cfg(feature = "sealed-copy")]
    fn add_seals(&mut self, fd: Fd, seals: Seals) -> SysResult<()> {
        // SAFETY: numbers.
        unit(unsafe { syscall!(libc::SYS_fcntl, fd.0, libc::F_ADD_SEALS, c_ulong::from(seals.0)) })
    }

    #[cfg(feature = "sealed-copy")]
    fn memfd_create(&mut self, name: &CStr, exec: bool) -> SysResult<Fd> {
        let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING | if exec { MFD_EXEC } else { 0 };
        // SAFETY: the name ends with its NUL, and the kernel copies it.
        fd(unsafe { syscall!(libc::SYS_memfd_create, name.as_ptr(), flags) })
    }

    #[cfg(feature = "sealed-copy")]
    fn sendfile(&mut self, to: Fd, from: Fd, len: usize) -> SysResult<usize> {
        let offset = ptr::null_mut::<libc::off_t>();
        // SAFETY: numbers, and a null pointer: the kernel uses the file's own position.
        count(unsafe { syscall!(libc::SYS_sendfile, to.0, from.0, offset, len) })
    }

    #[cfg(feature = "sealed-copy")]
    fn fchmod(&mut self, fd: Fd, mode: u32) -> SysResult<()> {
        // SAFETY: numbers.
        unit(unsafe { syscall!(libc::SYS_fchmod, fd.0, mode) })
    }

    #[cfg(feature = "sealed-copy")]
    fn unlink(&mut self, path: &CStr) -> SysResult<()> {
        // SAFETY: the path ends with its NUL, and the kernel only reads it.
        unit(unsafe { syscall!(libc::SYS_unlinkat, libc::AT_FDCWD, path.as_ptr(), 0) })
    }

    #[cfg(feature = "sealed-copy")]
    fn is_read_only(&mut self, path: &CStr) -> SysResult<bool> {
        let mut stat = KernelStatfs::default();
        // SAFETY: the path ends with its NUL, and the kernel only reads it. The kernel fills its own
        // structure.
        unit(unsafe { syscall!(libc::SYS_statfs, path.as_ptr(), &raw mut stat) })?;
        Ok(stat.is_read_only())
    }

    #[cfg(feature = "sealed-copy")]
    fn execveat<'a>(&mut self, fd: Fd, argv: &ExecArgs<'a>, envp: &ExecArgs<'a>) -> Errno {
        let (argv, envp) = (argv.pointers().as_ptr(), envp.pointers().as_ptr());
        // SAFETY: as in `execve`; the path is a literal with NUL.
        errno(unsafe { syscall!(libc::SYS_execveat, fd.0, c"".as_ptr(), argv, envp, libc::AT_EMPTY_PATH) })
    }

    // -- processes -----------------------------------------------------------------------------------------

    fn clone_sibling(&mut self, tid: Option<TidAddress>) -> SysResult<Fork> {
        // SAFETY: no memory is shared. `tid` is the result of `tid_address` in this thread. The contract of
        // `new` limits the code that the child may run.
        unsafe { raw::clone((libc::CLONE_PARENT | libc::SIGCHLD) as c_ulong, tid, ptr::null_mut()) }
    }

    fn fork(&mut self, exit: ExitSignal, tid: Option<TidAddress>) -> SysResult<Fork> {
        let signal = match exit {
            ExitSignal::Chld => libc::SIGCHLD,
            ExitSignal::None => 0,
        };
        // SAFETY: as in `clone_sibling`.
        unsafe { raw::clone(signal as c_ulong, tid, ptr::null_mut()) }
    }

    #[cfg(feature = "std")]
    fn clone_child(&mut self, tid: Option<TidAddress>) -> SysResult<Fork> {
        let mut pid: c_int = 0;
        let tid = tid.unwrap_or(TidAddress { address: 0, cached: 0 });
        // SAFETY: as in `clone_sibling`. The kernel writes the pid to `pid`, and no thread id to the address
        // 0.
        unsafe { raw::clone(libc::CLONE_PARENT_SETTID as c_ulong, Some(tid), &raw mut pid) }
    }

    #[cfg(feature = "std")]
    fn clone_init(
        &mut self,
        namespaces: CloneFlags,
        shared: Option<SharedStart>,
        tid: Option<TidAddress>,
    ) -> SysResult<InitFork> {
        // clone(2) would read a time namespace as an exit signal, and CLONE_VM would share the memory.
        if namespaces.unknown() != CloneFlags::EMPTY || namespaces.contains(CloneFlags::NEWTIME) {
            return Err(Errno::EINVAL);
        }
        // No descriptor: the kernel writes none if it does not support the flag.
        let mut pidfd: c_int = -1;
        let flags = c_ulong::from(namespaces.0) | libc::CLONE_PIDFD as c_ulong;
        let tid = tid.unwrap_or(TidAddress { address: 0, cached: 0 });
        let forked = match shared {
            // SAFETY: as in `clone_sibling`: the flags of namespaces share no memory. The kernel writes the
            // new descriptor to `pidfd`, and no thread id to the address 0.
            None => unsafe { raw::clone(flags, Some(tid), &raw mut pidfd) },
            // SAFETY: the creator of `start` keeps the promises of `SharedStart::new`. No thread id is
            // written: its place is that of the thread which continues here.
            Some(start) => unsafe { raw::clone_sharing(flags, start, &raw mut pidfd) },
        }?;
        Ok(match forked {
            Fork::Child => InitFork::Child,
            Fork::Parent { child } => InitFork::Parent { child, pidfd: (pidfd >= 0).then_some(Fd(pidfd)) },
        })
    }

    fn execve<'a>(&mut self, path: &CStr, argv: &ExecArgs<'a>, envp: &ExecArgs<'a>) -> Errno {
        let (argv, envp) = (argv.pointers().as_ptr(), envp.pointers().as_ptr());
        // SAFETY: both arrays consist of pointers to strings with NUL, and the last pointer is null:
        // `ExecArgs` has no other constructor. `Option<ArgPtr>` is one nullable pointer. The kernel copies
        // before it changes anything.
        errno(unsafe { syscall!(libc::SYS_execve, path.as_ptr(), argv, envp) })
    }

    fn wait4(&mut self, pid: Pid, which: WaitFor) -> SysResult<Waited> {
        let mut status: c_int = 0;
        let flags = match which {
            WaitFor::Ordinary => 0,
            WaitFor::OrdinaryNow => libc::WNOHANG,
            WaitFor::Stages => libc::__WCLONE | libc::__WNOTHREAD,
            WaitFor::StagesNow => libc::WNOHANG | libc::WUNTRACED | libc::__WCLONE | libc::__WNOTHREAD,
        };
        let usage = ptr::null_mut::<libc::rusage>();
        // SAFETY: the kernel writes one int to `status`, and nothing to the null pointer.
        let pid = reply(unsafe { syscall!(libc::SYS_wait4, pid.0, &raw mut status, flags, usage) })?;
        let status = if libc::WIFEXITED(status) {
            WaitStatus::Exited(libc::WEXITSTATUS(status))
        } else if libc::WIFSIGNALED(status) {
            WaitStatus::Signaled(Signal(libc::WTERMSIG(status)))
        } else if libc::WIFSTOPPED(status) {
            WaitStatus::Stopped(Signal(libc::WSTOPSIG(status)))
        } else {
            WaitStatus::Other(status)
        };
        Ok(Waited { pid: Pid(pid as i32), status })
    }

    fn kill(&mut self, pid: Pid, signal: Signal) -> SysResult<()> {
        // SAFETY: numbers.
        unit(unsafe { syscall!(libc::SYS_kill, pid.0, signal.0) })
    }

    fn pidfd_open(&mut self, pid: Pid) -> SysResult<Fd> {
        // SAFETY: numbers.
        fd(unsafe { syscall!(libc::SYS_pidfd_open, pid.0, 0) })
    }

    fn getpid(&mut self) -> Pid {
        // SAFETY: no argument, and it cannot fail.
        Pid(unsafe { syscall!(libc::SYS_getpid) } as i32)
    }

    fn gettid(&mut self) -> Pid {
        // SAFETY: no argument, and it cannot fail.
        Pid(unsafe { syscall!(libc::SYS_gettid) } as i32)
    }

    fn tid_address(&mut self) -> SysResult<TidAddress> {
        let mut pointer: *mut c_int = ptr::null_mut();
        // SAFETY: the kernel writes one pointer to `pointer`.
        unit(unsafe { syscall!(libc::SYS_prctl, PR_GET_TID_ADDRESS, &raw mut pointer) })?;
        let address = pointer as usize;
        if pointer.is_null() {
            return Ok(TidAddress { address, cached: 0 });
        }
        // SAFETY: the code that registered the address lets the kernel write an int there when this thread
        // ends. So there is an int at the address for as long as the thread lives. Volatile, because it
        // belongs to the libc.
        Ok(TidAddress { address, cached: unsafe { pointer.read_volatile() } })
    }

    // -- attributes of a process ----------------------------------------------------------------------------

    fn setns(&mut self, fd: Fd, kind: CloneFlags) -> SysResult<()> {
        // SAFETY: numbers. Memory is not changed.
        unit(unsafe { syscall!(libc::SYS_setns, fd.0, kind.0) })
    }

    fn unshare(&mut self, flags: CloneFlags) -> SysResult<()> {
        // SAFETY: numbers. Flags that would unshare memory are refused by the kernel or have no effect.
        unit(unsafe { syscall!(libc::SYS_unshare, c_ulong::from(flags.0)) })
    }

    fn set_dumpable(&mut self, dumpable: bool) -> SysResult<()> {
        // SAFETY: numbers.
        unit(unsafe { syscall!(libc::SYS_prctl, libc::PR_SET_DUMPABLE, c_ulong::from(dumpable)) })
    }

    fn set_name(&mut self, name: &CStr) -> SysResult<()> {
        // SAFETY: the kernel reads up to the string's NUL, and not more than 15 bytes.
        unit(unsafe { syscall!(libc::SYS_prctl, libc::PR_SET_NAME, name.as_ptr()) })
    }

    #[cfg(feature = "std")]
    fn set_pdeathsig(&mut self, signal: Signal) -> SysResult<()> {
        // SAFETY: numbers.
        unit(unsafe { syscall!(libc::SYS_prctl, libc::PR_SET_PDEATHSIG, c_long::from(signal.0)) })
    }

    fn setsid(&mut self) -> SysResult<()> {
        // SAFETY: no argument.
        unit(unsafe { syscall!(libc::SYS_setsid) })
    }

    fn setresuid(&mut self, uid: u32) -> SysResult<()> {
        // SAFETY: numbers. The ids change for this thread alone, which the contract of `new` covers.
        unit(unsafe { syscall!(libc::SYS_setresuid, uid, uid, uid) })
    }

    fn setuid(&mut self, uid: u32) -> SysResult<()> {
        // SAFETY: as in `setresuid`.
        unit(unsafe { syscall!(libc::SYS_setuid, uid) })
    }

    fn setgid(&mut self, gid: u32) -> SysResult<()> {
        // SAFETY: as in `setresuid`.
        unit(unsafe { syscall!(libc::SYS_setgid, gid) })
    }

    fn drop_groups(&mut self) -> SysResult<()> {
        // SAFETY: as in `setresuid`. The list of groups is empty, so the kernel reads nothing from it.
        unit(unsafe { syscall!(libc::SYS_setgroups, 0, ptr::null::<libc::gid_t>()) })
    }

    fn sched_getaffinity(&mut self) -> SysResult<u64> {
        // 1,024 CPUs, as in the libc's cpu_set_t. A kernel built for more returns EINVAL.
        let mut mask = [0_u64; 16];
        // SAFETY: the kernel writes at most the given length, which is the size of the array.
        unit(unsafe { syscall!(libc::SYS_sched_getaffinity, 0, size_of_val(&mask), mask.as_mut_ptr()) })?;
        Ok(mask[0])
    }

    #[cfg(feature = "std")]
    fn mount(&mut self, mount: Mount) -> SysResult<()> {
        let (none, root, proc, on_proc) = (ptr::null(), c"/".as_ptr(), c"proc".as_ptr(), c"/proc".as_ptr());
        let (sysfs, on_sys) = (c"sysfs".as_ptr(), c"/sys".as_ptr());
        let safe = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
        let (source, target, kind, flags) = match mount {
            Mount::Propagation(how) => (none, root, none, libc::MS_REC | propagation(how)),
            Mount::Proc => (proc, on_proc, proc, safe),
            Mount::Sysfs { read_only: true } => (sysfs, on_sys, sysfs, libc::MS_RDONLY | safe),
            Mount::Sysfs { read_only: false } => (sysfs, on_sys, sysfs, safe),
        };
        // SAFETY: each pointer is null or a literal with NUL, and the kernel only reads the literals.
        unit(unsafe { syscall!(libc::SYS_mount, source, target, kind, flags, none) })
    }

    // -- the surroundings of the command -------------------------------------------------------------------

    #[cfg(feature = "std")]
    fn chdir(&mut self, path: &CStr) -> SysResult<()> {
        // SAFETY: the path ends with its NUL, and the call only reads it.
        unit(unsafe { syscall!(libc::SYS_chdir, path.as_ptr()) })
    }

    #[cfg(feature = "std")]
    fn set_groups(&mut self, groups: &[u32]) -> SysResult<()> {
        // SAFETY: as in `setresuid`. The kernel reads `len` numbers of the slice.
        unit(unsafe { syscall!(libc::SYS_setgroups, groups.len(), groups.as_ptr()) })
    }

    #[cfg(feature = "std")]
    fn run_hook(&mut self, hook: Hook<'_>) -> SysResult<()> {
        (hook.code)()
    }

    // -- the attributes of the command
    // ------------------------------------------------------------------------

    #[cfg(feature = "std")]
    fn umask(&mut self, mask: u32) -> SysResult<u32> {
        // SAFETY: a number.
        reply(unsafe { syscall!(libc::SYS_umask, mask) }).map(|previous| previous as u32)
    }

    #[cfg(feature = "std")]
    fn set_hostname(&mut self, name: &[u8]) -> SysResult<()> {
        // SAFETY: the kernel reads `len` bytes of the slice.
        unit(unsafe { syscall!(libc::SYS_sethostname, name.as_ptr(), name.len()) })
    }

    #[cfg(feature = "std")]
    fn set_limit(&mut self, limit: Limit) -> SysResult<()> {
        let new = [limit.soft, limit.hard];
        // SAFETY: the kernel reads two numbers of 64 bits, and writes nothing to the null pointer.
        unit(unsafe {
            syscall!(libc::SYS_prlimit64, 0, limit.resource.0, new.as_ptr(), ptr::null_mut::<u64>())
        })
    }

    #[cfg(feature = "std")]
    fn keep_capabilities(&mut self, keep: bool) -> SysResult<()> {
        // SAFETY: numbers.
        unit(unsafe { syscall!(libc::SYS_prctl, libc::PR_SET_KEEPCAPS, c_ulong::from(keep)) })
    }

    #[cfg(feature = "std")]
    fn drop_bounding(&mut self, capability: Capability) -> SysResult<()> {
        // SAFETY: numbers.
        unit(unsafe { syscall!(libc::SYS_prctl, libc::PR_CAPBSET_DROP, capability.0) })
    }

    #[cfg(feature = "std")]
    fn set_capabilities(&mut self, sets: CapabilitySets) -> SysResult<()> {
        let header = [CAPABILITY_VERSION_3, 0];
        // The low halves of the three sets, then the high ones.
        let sets = [sets.effective, sets.permitted, sets.inheritable];
        let data = [sets.map(|set| set as u32), sets.map(|set| (set >> 32) as u32)];
        // SAFETY: the kernel reads the header (two numbers) and, in this version, two structures of three
        // numbers. Both live through the call.
        unit(unsafe { syscall!(libc::SYS_capset, header.as_ptr(), data.as_ptr()) })
    }

    #[cfg(feature = "std")]
    fn raise_ambient(&mut self, capability: Capability) -> SysResult<()> {
        let raise = libc::PR_CAP_AMBIENT_RAISE;
        // SAFETY: numbers.
        unit(unsafe { syscall!(libc::SYS_prctl, libc::PR_CAP_AMBIENT, raise, capability.0) })
    }

    #[cfg(feature = "std")]
    fn set_no_new_privs(&mut self) -> SysResult<()> {
        // SAFETY: numbers.
        unit(unsafe { syscall!(libc::SYS_prctl, libc::PR_SET_NO_NEW_PRIVS, c_ulong::from(true)) })
    }

    #[cfg(feature = "std")]
    fn set_seccomp_filter(&mut self, program: &[BpfInstruction]) -> SysResult<()> {
        // A longer program than the kernel takes (4,096) stays one that it refuses.
        let len = u16::try_from(program.len()).unwrap_or(u16::MAX);
        let filter = libc::sock_fprog { len, filter: program.as_ptr().cast_mut().cast() };
        // SAFETY: the kernel reads the structure and at most `len` instructions of the slice, whose layout is
        // the kernel's: asserted in surroundings.rs.
        unit(unsafe { syscall!(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const filter) })
    }

    #[cfg(feature = "std")]
    fn landlock_restrict_self(&mut self, ruleset: Fd) -> SysResult<()> {
        // SAFETY: numbers.
        unit(unsafe { syscall!(libc::SYS_landlock_restrict_self, ruleset.0, 0) })
    }

    #[cfg(feature = "std")]
    fn set_controlling_terminal(&mut self, terminal: Fd) -> SysResult<()> {
        // SAFETY: numbers.
        unit(unsafe { syscall!(libc::SYS_ioctl, terminal.0, libc::TIOCSCTTY, 0) })
    }

    #[cfg(feature = "std")]
    fn new_session_keyring(&mut self) -> SysResult<()> {
        // SAFETY: a number, and a null pointer in place of a name.
        unit(unsafe { syscall!(libc::SYS_keyctl, JOIN_SESSION_KEYRING, ptr::null::<libc::c_char>()) })
    }

    #[cfg(feature = "std")]
    fn inet_socket(&mut self) -> SysResult<Fd> {
        let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC;
        // SAFETY: numbers.
        fd(unsafe { syscall!(libc::SYS_socket, libc::AF_INET, kind, 0) })
    }

    #[cfg(feature = "std")]
    fn set_loopback_up(&mut self, socket: Fd) -> SysResult<()> {
        let request = KernelIfreq::loopback_up();
        // SAFETY: the kernel reads one `struct ifreq`, which has this layout.
        unit(unsafe { syscall!(libc::SYS_ioctl, socket.0, libc::SIOCSIFFLAGS, &raw const request) })
    }

    // -- the root file system of the command ---------------------------------------------------------------

    #[cfg(feature = "std")]
    fn fchdir(&mut self, dir: Fd) -> SysResult<()> {
        // SAFETY: a number.
        unit(unsafe { syscall!(libc::SYS_fchdir, dir.0) })
    }

    #[cfg(feature = "std")]
    fn open_tree(&mut self, path: &CStr, recursive: bool) -> SysResult<Fd> {
        let flags = OPEN_TREE | at_recursive(recursive);
        // SAFETY: the path ends with its NUL, and the call only reads it.
        fd(unsafe { syscall!(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) })
    }

    #[cfg(feature = "std")]
    fn move_mount(&mut self, mount: Fd, target: Fd) -> SysResult<()> {
        let (none, flags) = (c"".as_ptr(), MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH);
        // SAFETY: two numbers, and literals with NUL that the kernel only reads.
        unit(unsafe { syscall!(libc::SYS_move_mount, mount.0, none, target.0, none, flags) })
    }

    #[cfg(feature = "std")]
    fn set_mount_attributes(
        &mut self,
        mount: Fd,
        recursive: bool,
        attributes: MountAttributes,
    ) -> SysResult<()> {
        let flags = libc::AT_EMPTY_PATH as u32 | at_recursive(recursive);
        let attributes = [attributes.set, attributes.clear, 0, 0];
        // SAFETY: a literal with NUL, and four numbers of 64 bits, whose size is the last argument.
        unit(unsafe {
            syscall!(
                libc::SYS_mount_setattr,
                mount.0,
                c"".as_ptr(),
                flags,
                attributes.as_ptr(),
                size_of_val(&attributes)
            )
        })
    }

    #[cfg(feature = "std")]
    fn mount_here(&mut self, kind: MountKind, options: &CStr) -> SysResult<()> {
        let (kind, flags) = mount_kind(kind);
        let here = c".".as_ptr();
        // SAFETY: strings with NUL, which the kernel only reads. It reads up to one page of the options, and
        // stops at the end of the mapping.
        unit(unsafe {
            syscall!(libc::SYS_mount, kind.as_ptr(), here, kind.as_ptr(), flags, options.as_ptr())
        })
    }

    #[cfg(feature = "std")]
    fn open_in_root(&mut self, root: Fd, path: &CStr, flags: OpenFlags) -> SysResult<Fd> {
        // As in `openat`, but this call refuses a mode if no file is created.
        let creates = matches!(flags, OpenFlags::Unnamed | OpenFlags::New);
        let how = KernelOpenHow {
            flags: open_flags(flags) as u64,
            mode: if creates { 0o700 } else { 0 },
            resolve: libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS,
        };
        // SAFETY: as in `openat2`.
        fd(unsafe { syscall!(libc::SYS_openat2, root.0, path.as_ptr(), &raw const how, size_of_val(&how)) })
    }

    #[cfg(feature = "std")]
    fn mkdirat(&mut self, dir: Fd, name: &CStr, mode: u32) -> SysResult<()> {
        // SAFETY: the name ends with its NUL, and the call only reads it.
        unit(unsafe { syscall!(libc::SYS_mkdirat, dir.0, name.as_ptr(), mode) })
    }

    #[cfg(feature = "std")]
    fn symlinkat(&mut self, target: &CStr, dir: Fd, name: &CStr) -> SysResult<()> {
        // SAFETY: both strings end with their NUL, and the call only reads them.
        unit(unsafe { syscall!(libc::SYS_symlinkat, target.as_ptr(), dir.0, name.as_ptr()) })
    }

    #[cfg(feature = "std")]
    fn pivot_root_here(&mut self) -> SysResult<()> {
        let here = c".".as_ptr();
        // SAFETY: a literal with NUL, which the kernel only reads.
        unit(unsafe { syscall!(libc::SYS_pivot_root, here, here) })
    }

    #[cfg(feature = "std")]
    fn detach_here(&mut self) -> SysResult<()> {
        // SAFETY: a literal with NUL, which the kernel only reads.
        unit(unsafe { syscall!(libc::SYS_umount2, c".".as_ptr(), libc::MNT_DETACH) })
    }

    #[cfg(feature = "std")]
    fn chroot_here(&mut self) -> SysResult<()> {
        // SAFETY: a literal with NUL, which the kernel only reads.
        unit(unsafe { syscall!(libc::SYS_chroot, c".".as_ptr()) })
    }

    // -- signals -----------------------------------------------------------------------------------------

    fn sigprocmask(&mut self, how: MaskHow, set: SignalSet) -> SysResult<SignalSet> {
        let how = match how {
            MaskHow::Block => libc::SIG_BLOCK,
            MaskHow::Set => libc::SIG_SETMASK,
        };
        let mut old: u64 = 0;
        // SAFETY: the kernel reads 8 bytes of the new set and writes 8 bytes to the old one.
        unit(unsafe {
            syscall!(libc::SYS_rt_sigprocmask, how, &raw const set.0, &raw mut old, SIGSET_SIZE)
        })?;
        Ok(SignalSet(old))
    }

    fn sigaction(&mut self, signal: Signal, action: SigAction) -> SysResult<SigAction> {
        let (new, mut old) = (action, SigAction::DEFAULT);
        // SAFETY: both structures have the kernel's layout: asserted in raw.rs. A handler in `action` came
        // from the kernel in an earlier call, and its code is still present: we unload nothing.
        unit(unsafe {
            syscall!(libc::SYS_rt_sigaction, signal.0, &raw const new, &raw mut old, SIGSET_SIZE)
        })?;
        Ok(old)
    }

    #[cfg(feature = "std")]
    fn wait_signal(&mut self, set: SignalSet) -> SysResult<SentSignal> {
        let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
        let no_limit = ptr::null::<libc::timespec>();
        // SAFETY: the kernel reads 8 bytes of the set, and writes one siginfo_t.
        let raw = unsafe {
            syscall!(libc::SYS_rt_sigtimedwait, &raw const set.0, info.as_mut_ptr(), no_limit, SIGSET_SIZE)
        };
        let signal = reply(raw).map(|signal| Signal(signal as i32))?;
        // SAFETY: zeroed above, which is a valid siginfo_t, and written by the kernel.
        let by_kernel = unsafe { info.assume_init() }.si_code == SI_KERNEL;
        Ok(SentSignal { signal, by_kernel })
    }

    fn sigtimedwait(&mut self, set: SignalSet) -> SysResult<Signal> {
        let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let info = ptr::null_mut::<libc::siginfo_t>();
        // SAFETY: the kernel reads 8 bytes of the set and the time, and writes nothing to the null pointer.
        let raw = unsafe {
            syscall!(libc::SYS_rt_sigtimedwait, &raw const set.0, info, &raw const at_once, SIGSET_SIZE)
        };
        reply(raw).map(|signal| Signal(signal as i32))
    }
}

/// The flag of Linux 6.3. The libc crate does not define it for every libc.
#[cfg(feature = "sealed-copy")]
const MFD_EXEC: u32 = 0x10;

/// The origin of a signal that the kernel sent, for a terminal for example (sigaction(2)). The libc crate
/// does not define it for every libc.
#[cfg(feature = "std")]
const SI_KERNEL: c_int = 0x80;

/// The prctl(2) operation that returns the address registered by set_tid_address(2). The libc crate does not
/// define it.
const PR_GET_TID_ADDRESS: c_int = 40;

fn open_flags(flags: OpenFlags) -> c_int {
    libc::O_CLOEXEC
        | match flags {
            OpenFlags::ReadWrite => libc::O_RDWR,
            OpenFlags::ReadOnly => libc::O_RDONLY,
            OpenFlags::Namespace => libc::O_RDONLY | libc::O_NONBLOCK,
            OpenFlags::Directory => libc::O_PATH | libc::O_DIRECTORY,
            OpenFlags::List => libc::O_RDONLY | libc::O_DIRECTORY,
            OpenFlags::Unnamed => libc::O_RDWR | libc::O_TMPFILE | libc::O_EXCL,
            OpenFlags::New => libc::O_RDWR | libc::O_CREAT | libc::O_EXCL,
            OpenFlags::Path => libc::O_PATH,
        }
}

#[cfg(feature = "std")]
fn propagation(how: Propagation) -> c_ulong {
    match how {
        Propagation::Private => libc::MS_PRIVATE,
        Propagation::Slave => libc::MS_SLAVE,
        Propagation::Shared => libc::MS_SHARED,
    }
}
