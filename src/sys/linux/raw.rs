//! The parts that the methods of [`LinuxSys`](super::LinuxSys) share: the system call instruction, the clone,
//! and the kernel's own layouts.

#[cfg(feature = "std")]
use core::ffi::c_void;
use core::ffi::{c_int, c_long, c_ulong};
use core::mem::{align_of, offset_of, size_of};
#[cfg(feature = "std")]
use core::ptr;

#[cfg(feature = "std")]
use crate::sys::types::SharedStart;
use crate::sys::types::{Errno, Fd, Fork, Pid, PollFd, SigAction, SysResult, TidAddress};

#[cfg(not(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "s390x")
)))]
compile_error!(
    "nsexec runs on Linux on x86_64, aarch64 and s390x. Another architecture needs its argument order of clone \
     (below) and its layouts of the kernel's sigaction and statfs checked."
);

/// One argument of a system call: all 64 bits of its register. The impls of `From` below are its only
/// constructors, so an argument of another type does not compile.
#[derive(Clone, Copy)]
pub(super) struct Word(c_long);

/// `as` sign-extends an `i32`, as a C compiler extends an `int`, and zero-extends a `u32`: the id 4294967295
/// keeps its value.
macro_rules! word_from {
    ($($integer:ty)*) => {
        $(impl From<$integer> for Word {
            fn from(value: $integer) -> Self {
                Self(value as c_long)
            }
        })*
    };
}

word_from! { i32 u32 c_long c_ulong usize }

impl<T> From<*const T> for Word {
    fn from(pointer: *const T) -> Self {
        Self(pointer as c_long)
    }
}

impl<T> From<*mut T> for Word {
    fn from(pointer: *mut T) -> Self {
        Self(pointer as c_long)
    }
}

/// `syscall!(NUMBER, ARGUMENT…)`: makes the system call with these arguments, at most six. Each becomes a
/// [`Word`], and missing ones are 0.
///
/// Unsafe, as the system call is: see [`call`].
macro_rules! syscall {
    ($number:expr $(, $argument:expr)* $(,)?) => {
        $crate::sys::linux::raw::call($number, [$($crate::sys::linux::raw::Word::from($argument)),*])
    };
}
pub(super) use syscall;

/// Makes the system call. A result from −4095 to −1 is the negative errno.
///
/// This function executes the instruction itself: the libc's function `syscall` stores the error in the
/// thread's errno. A process that shares the memory of its launcher ([`clone_sharing`]) has the same errno as
/// the thread that created it.
///
/// # Safety
/// The requirements are those of the system call. Every pointer among the arguments must be valid for every
/// access that the call makes through it.
#[inline]
pub(super) unsafe fn call<const N: usize>(number: c_long, arguments: [Word; N]) -> c_long {
    const { assert!(N <= 6, "the kernel takes six arguments") };
    let mut all = [0; 6];
    for (register, Word(value)) in all.iter_mut().zip(arguments) {
        *register = value;
    }
    let [one, two, three, four, five, six] = all;
    let result: c_long;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: ensured by the caller. These are the registers of the system call convention (syscall(2),
    // "Architecture calling conventions"). The kernel overwrites rcx and r11, and uses no stack of this
    // process. Without `nomem`, the compiler assumes that the call reads and writes memory.
    unsafe {
        core::arch::asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") one,
            in("rsi") two,
            in("rdx") three,
            in("r10") four,
            in("r8") five,
            in("r9") six,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above; the kernel preserves all other registers.
    unsafe {
        core::arch::asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") one => result,
            in("x1") two,
            in("x2") three,
            in("x3") four,
            in("x4") five,
            in("x5") six,
            options(nostack),
        );
    }
    #[cfg(target_arch = "s390x")]
    // SAFETY: as above; the kernel preserves all other registers.
    unsafe {
        core::arch::asm!(
            "svc 0",
            in("r1") number,
            inlateout("r2") one => result,
            in("r3") two,
            in("r4") three,
            in("r5") four,
            in("r6") five,
            in("r7") six,
            options(nostack),
        );
    }
    result
}

/// Converts the result of [`call`]: a result from −4095 to −1 becomes the errno.
pub(super) const fn reply(raw: c_long) -> SysResult<c_long> {
    if is_error(raw) { Err(errno(raw)) } else { Ok(raw) }
}

/// Returns whether a result is an error: −MAX_ERRNO to −1 (include/linux/err.h).
const fn is_error(raw: c_long) -> bool {
    matches!(raw, -4095..=-1)
}

/// As [`reply`], for a call that returns 0.
pub(super) fn unit(raw: c_long) -> SysResult<()> {
    reply(raw).map(|_| ())
}

/// As [`reply`], for a call that returns a number of bytes or descriptors.
pub(super) fn count(raw: c_long) -> SysResult<usize> {
    reply(raw).map(|count| count as usize)
}

/// As [`reply`], for a call that returns a new descriptor.
pub(super) fn fd(raw: c_long) -> SysResult<Fd> {
    reply(raw).map(|fd| Fd(fd as i32))
}

/// Returns the errno of a system call that has failed.
pub(super) const fn errno(raw: c_long) -> Errno {
    Errno(raw.wrapping_neg() as i32)
}

/// Creates a process with a bare clone and a null stack. Parent and child both return from here. The child
/// runs on a copy of this stack, because no memory is shared (no `CLONE_VM`).
///
/// `clone3` has one layout on all architectures, but older seccomp profiles refuse it.
///
/// # Safety
///
/// `flags` is an exit signal, with `CLONE_PARENT`, with `CLONE_PARENT_SETTID`, with `CLONE_PIDFD` and new
/// namespaces, or with none of them. `tid` is the address that the kernel has registered for this thread, or
/// 0. `written` is valid for a write of an int if the flags have `CLONE_PIDFD` or `CLONE_PARENT_SETTID`. The
/// child runs none of the libc's fork handlers, so it must not need a lock that another thread held.
pub(super) unsafe fn clone(flags: c_ulong, tid: Option<TidAddress>, written: *mut c_int) -> SysResult<Fork> {
    let (flags, ctid) = match tid {
        Some(tid) => (flags | CHILD_TID, tid.address),
        None => (flags, 0),
    };
    let (stack, tls): (usize, usize) = (0, 0);
    #[cfg(target_arch = "x86_64")]
    // SAFETY: without CLONE_VM the child has its own memory, so its return from this frame changes nothing in
    // the parent. The kernel writes to `ctid`, in the child's memory, where the libc has a pid_t (above),
    // and with CLONE_PIDFD or CLONE_PARENT_SETTID to `written`.
    let raw = unsafe { syscall!(libc::SYS_clone, flags, stack, written, ctid, tls) };
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above; this is the order of aarch64 (CONFIG_CLONE_BACKWARDS).
    let raw = unsafe { syscall!(libc::SYS_clone, flags, stack, written, tls, ctid) };
    #[cfg(target_arch = "s390x")]
    // SAFETY: as above; this is the order of s390x (CONFIG_CLONE_BACKWARDS2).
    let raw = unsafe { syscall!(libc::SYS_clone, stack, flags, written, ctid, tls) };
    reply(raw).map(|pid| match pid {
        0 => Fork::Child,
        pid => Fork::Parent { child: Pid(pid as i32) },
    })
}

/// Creates a process that shares this process's memory, with its own stack. The child calls
/// `start.entry(start.argument)` and exits with its result.
///
/// The libc's function `clone` provides the first instructions of the child: it must not return to this
/// stack, on which the parent continues at the same time.
///
/// # Safety
///
/// As for [`clone`], with `CLONE_PIDFD`; and `start` keeps the promises of
/// [`SharedStart::new`](crate::sys::types::SharedStart::new).
#[cfg(feature = "std")]
pub(super) unsafe fn clone_sharing(flags: c_ulong, start: SharedStart, pidfd: *mut c_int) -> SysResult<Fork> {
    let flags = (flags | CHILD_TID) as c_int | libc::CLONE_VM;
    let (tls, ctid) = (ptr::null_mut::<c_void>(), ptr::null_mut::<c_int>());
    // SAFETY: ensured by the caller. The entry has the signature that the libc calls. The kernel writes to
    // `pidfd`, and no thread id to the null pointer: the place of the cached one belongs to the parent.
    let pid = unsafe { libc::clone(start.entry(), start.stack(), flags, start.argument(), pidfd, tls, ctid) };
    if pid == -1 {
        // SAFETY: the libc returns the address of this thread's errno. No process was created.
        return Err(Errno(unsafe { *libc::__errno_location() }));
    }
    Ok(Fork::Parent { child: Pid(pid) })
}

/// The flags with which the libc's fork keeps its cached thread id correct.
const CHILD_TID: c_ulong = (libc::CLONE_CHILD_SETTID | libc::CLONE_CHILD_CLEARTID) as c_ulong;

/// The size of the kernel's signal set, an argument of the rt_sig* calls.
pub(super) const SIGSET_SIZE: usize = size_of::<u64>();

// `sigaction` passes our own structure, so its layout must be that of the kernel's `struct sigaction` on
// architectures with `SA_RESTORER`: x86_64, aarch64 and s390x. The libc's struct has another order and a mask
// of 1,024 bits.
const _: () = {
    assert!(size_of::<SigAction>() == 32 && offset_of!(SigAction, handler) == 0);
    assert!(offset_of!(SigAction, flags) == 8 && offset_of!(SigAction, restorer) == 16);
    assert!(offset_of!(SigAction, mask) == 24);
};

/// The kernel's `struct open_how` as of Linux 5.6 (openat2(2)). The libc crate's struct cannot be constructed
/// by other crates.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct KernelOpenHow {
    pub(super) flags: u64,
    pub(super) mode: u64,
    pub(super) resolve: u64,
}

const _: () = {
    // OPEN_HOW_SIZE_VER0.
    assert!(size_of::<KernelOpenHow>() == 24);
    assert!(offset_of!(KernelOpenHow, resolve) == offset_of!(libc::open_how, resolve));
};

/// A field of the kernel's `struct statfs`. Its type is `long` in C, and `unsigned int` on s390x.
#[cfg(not(target_arch = "s390x"))]
type StatfsWord = c_long;
#[cfg(target_arch = "s390x")]
type StatfsWord = u32;

/// The number of spare words in the kernel's `struct statfs`.
const STATFS_SPARE: usize = if cfg!(target_arch = "s390x") { 5 } else { 4 };

/// The kernel's `struct statfs` on 64-bit Linux. In the libc crate the flags field of glibc's struct is
/// private, and the type of the first field differs by libc.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct KernelStatfs {
    kind: StatfsWord,
    block_size: StatfsWord,
    blocks: [u64; 3],
    files: [u64; 2],
    id: [c_int; 2],
    name_len: StatfsWord,
    fragment_size: StatfsWord,
    flags: StatfsWord,
    spare: [StatfsWord; STATFS_SPARE],
}

impl KernelStatfs {
    /// Returns the number of the file system's type.
    pub(super) const fn kind(&self) -> c_long {
        self.kind as c_long
    }

    /// Returns whether the mount is read-only.
    #[cfg(feature = "sealed-copy")]
    pub(super) const fn is_read_only(&self) -> bool {
        self.flags & libc::ST_RDONLY as StatfsWord != 0
    }
}

const _: () = {
    assert!(size_of::<KernelStatfs>() == size_of::<libc::statfs>());
    assert!(offset_of!(KernelStatfs, files) == offset_of!(libc::statfs, f_files));
    assert!(offset_of!(KernelStatfs, id) == offset_of!(libc::statfs, f_fsid));
    assert!(offset_of!(KernelStatfs, name_len) == offset_of!(libc::statfs, f_namelen));
};

// `poll` receives our own array, so its layout must be the kernel's.
const _: () = {
    assert!(size_of::<PollFd>() == size_of::<libc::pollfd>());
    assert!(align_of::<PollFd>() == align_of::<libc::pollfd>());
    assert!(offset_of!(PollFd, fd) == offset_of!(libc::pollfd, fd));
    assert!(offset_of!(PollFd, events) == offset_of!(libc::pollfd, events));
    assert!(offset_of!(PollFd, revents) == offset_of!(libc::pollfd, revents));
};
