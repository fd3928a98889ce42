//! The types of [`Sys`](super::Sys): plain values with the same meaning in every backend.
//!
//! No type here owns a resource. A descriptor is a number: with fork, a close is part of the protocol. The
//! order of the closes is observable, and a close can fail.

#[cfg(feature = "std")]
use core::ffi::{c_int, c_void};
use core::fmt;

#[cfg(feature = "std")]
pub use super::exec_args::ScriptArgs;
pub use super::exec_args::{ArgPtr, ExecArgs};
#[cfg(feature = "std")]
pub use super::surroundings::{
    BpfInstruction, Capability, CapabilitySets, Hook, Limit, MountAttributes, MountKind, Resource,
};

/// The result of a system call: a value, or the kernel's errno.
pub type SysResult<T> = Result<T, Errno>;

/// A file descriptor: a number without ownership.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Fd(pub i32);

impl Fd {
    /// Standard error.
    pub const STDERR: Self = Self(2);
    /// `AT_FDCWD`: paths start at the working directory.
    pub const CWD: Self = Self(-100);
}

/// A process id, in the numbering of the process that received it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Pid(pub i32);

impl Pid {
    /// Any child, as the argument of `wait4`.
    pub const ANY: Self = Self(-1);
}

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An error number. An integer and not an enum, since the kernel may return numbers that we do not list.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Errno(pub i32);

/// The kernel's `sigaction`, in the kernel's layout on x86_64 and aarch64. The core never interprets it, so
/// that it can restore a disposition exactly.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SigAction {
    /// The handler's address, or 0 for the default and 1 for ignore.
    pub handler: usize,
    /// `SA_*` bits.
    pub flags: u64,
    /// The libc's return trampoline.
    pub restorer: usize,
    /// The signals that are blocked while the handler runs.
    pub mask: SignalSet,
}

impl SigAction {
    /// The default disposition.
    pub const DEFAULT: Self = Self { handler: 0, flags: 0, restorer: 0, mask: SignalSet::EMPTY };
    /// Ignore the signal.
    pub const IGNORE: Self = Self { handler: 1, flags: 0, restorer: 0, mask: SignalSet::EMPTY };
}

/// A signal number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Signal(pub i32);

impl Signal {
    /// No signal: with PR_SET_PDEATHSIG, the process receives no signal.
    pub const NONE: Self = Self(0);
    /// Terminal hang-up.
    pub const HUP: Self = Self(1);
    /// Interrupt from the keyboard.
    pub const INT: Self = Self(2);
    /// Quit from the keyboard.
    pub const QUIT: Self = Self(3);
    /// An illegal instruction.
    pub const ILL: Self = Self(4);
    /// A breakpoint, or an event for a debugger.
    pub const TRAP: Self = Self(5);
    /// An access to memory that is mapped but not there.
    pub const BUS: Self = Self(7);
    /// A faulty arithmetic operation.
    pub const FPE: Self = Self(8);
    /// Ends the process at once. Cannot be caught.
    pub const KILL: Self = Self(9);
    /// An invalid access to memory.
    pub const SEGV: Self = Self(11);
    /// A write to a pipe or socket without a reader.
    pub const PIPE: Self = Self(13);
    /// A request to end, which a process can handle or ignore.
    pub const TERM: Self = Self(15);
    /// A child changed state.
    pub const CHLD: Self = Self(17);
    /// Continues a stopped process.
    pub const CONT: Self = Self(18);
    /// Stops a process. Cannot be caught.
    pub const STOP: Self = Self(19);
    /// A stop from the keyboard, which a process can handle or ignore.
    pub const TSTP: Self = Self(20);
    /// A read of the terminal by a background job.
    pub const TTIN: Self = Self(21);
    /// A write to the terminal by a background job.
    pub const TTOU: Self = Self(22);
    /// An invalid system call.
    pub const SYS: Self = Self(31);
}

/// A set of signals, as the kernel's 64-bit mask.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SignalSet(pub u64);

impl SignalSet {
    /// No signal.
    pub const EMPTY: Self = Self(0);
    /// SIGPIPE alone.
    pub const PIPE: Self = Self(1 << 12);
    /// SIGXFSZ alone: sent when a file would become larger than RLIMIT_FSIZE allows.
    pub const XFSZ: Self = Self(1 << 24);

    /// Returns whether every signal of `other` is in this set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// The effect of `rt_sigprocmask`'s set on the mask.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum MaskHow {
    /// Add the set to the mask.
    Block,
    /// Make the set the mask.
    Set,
}

/// The `CLONE_NEW*` bits. Unknown bits of a message or of a caller are kept.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct CloneFlags(pub u32);

impl CloneFlags {
    /// No namespace.
    pub const EMPTY: Self = Self(0);
    /// No namespace. `unshare` with this flag has no effect in a single-threaded process, and fails with
    /// `EINVAL` in a threaded one.
    pub const THREAD: Self = Self(0x0001_0000);
    /// Time namespace (Linux 5.6).
    pub const NEWTIME: Self = Self(0x0000_0080);
    /// Mount namespace.
    pub const NEWNS: Self = Self(0x0002_0000);
    /// Cgroup namespace (Linux 4.6).
    pub const NEWCGROUP: Self = Self(0x0200_0000);
    /// UTS namespace.
    pub const NEWUTS: Self = Self(0x0400_0000);
    /// IPC namespace.
    pub const NEWIPC: Self = Self(0x0800_0000);
    /// User namespace.
    pub const NEWUSER: Self = Self(0x1000_0000);
    /// Pid namespace.
    pub const NEWPID: Self = Self(0x2000_0000);
    /// Network namespace.
    pub const NEWNET: Self = Self(0x4000_0000);

    /// The names in strace's order, which is by number.
    const NAMES: [(Self, &'static str); 8] = [
        (Self::NEWTIME, "CLONE_NEWTIME"),
        (Self::NEWNS, "CLONE_NEWNS"),
        (Self::NEWCGROUP, "CLONE_NEWCGROUP"),
        (Self::NEWUTS, "CLONE_NEWUTS"),
        (Self::NEWIPC, "CLONE_NEWIPC"),
        (Self::NEWUSER, "CLONE_NEWUSER"),
        (Self::NEWPID, "CLONE_NEWPID"),
        (Self::NEWNET, "CLONE_NEWNET"),
    ];

    /// Returns whether every bit of `other` is set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Returns these bits and those of `other`.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns these bits without those of `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Returns the bits that are not a namespace flag.
    #[must_use]
    pub fn unknown(self) -> Self {
        Self::NAMES.iter().fold(self, |rest, (flag, _)| rest.without(*flag))
    }
}

impl fmt::Display for CloneFlags {
    /// Writes the flags as strace does: `CLONE_NEWNS|CLONE_NEWUTS`, unknown bits last in hexadecimal, `0` for
    /// an empty set.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for (flag, name) in Self::NAMES {
            if self.contains(flag) {
                if !first {
                    f.write_str("|")?;
                }
                f.write_str(name)?;
                first = false;
            }
        }
        let rest = self.unknown();
        match (first, rest.0) {
            (true, 0) => f.write_str("0"),
            (false, 0) => Ok(()),
            (true, bits) => write!(f, "{bits:#x}"),
            (false, bits) => write!(f, "|{bits:#x}"),
        }
    }
}

/// The flags of an open: one variant for each combination that the core uses.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum OpenFlags {
    /// `O_RDWR|O_CLOEXEC`: a file of /proc that is written. runc opens it for reading and writing too.
    ReadWrite,
    /// `O_RDONLY|O_CLOEXEC`: a file of /proc that is read back.
    ReadOnly,
    /// `O_RDONLY|O_CLOEXEC|O_NONBLOCK`: a namespace. Without O_NONBLOCK, an open of a FIFO would block for
    /// ever.
    Namespace,
    /// `O_PATH|O_DIRECTORY|O_CLOEXEC`: the directory of a process in /proc.
    Directory,
    /// `O_RDONLY|O_DIRECTORY|O_CLOEXEC`: a directory whose entries are read.
    List,
    /// `O_RDWR|O_TMPFILE|O_EXCL|O_CLOEXEC`, mode 0700: a new file in this directory without a name. It can
    /// never get a name.
    Unnamed,
    /// `O_RDWR|O_CREAT|O_EXCL|O_CLOEXEC`, mode 0700: a new file. The open fails if the name exists, even as a
    /// symbolic link.
    New,
    /// `O_PATH|O_CLOEXEC`: a file that is only executed, so that no open of it for writing remains. Also a
    /// mount source: only its place in the tree is needed, so no device is opened and no FIFO is waited for.
    Path,
}

/// The operations that are forbidden on a file for ever (fcntl(2), "File Sealing").
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Seals(pub u32);

impl Seals {
    /// `F_SEAL_SEAL`: no further seal can be added. A file of tmpfs, and a memfd without sealing, have only
    /// this seal.
    pub const SEAL: Self = Self(0x1);
    /// `F_SEAL_SEAL|F_SEAL_SHRINK|F_SEAL_GROW|F_SEAL_WRITE`: the content can no longer change.
    pub const CONTENT: Self = Self(0xf);
}

/// The type of a file system, as `statfs` reports it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct FsType(pub i64);

impl FsType {
    /// `NSFS_MAGIC`: the file is a namespace.
    pub const NSFS: Self = Self(0x6e73_6673);
    /// `PROC_SUPER_MAGIC`: the file belongs to procfs.
    pub const PROC: Self = Self(0x9fa0);
    /// `ANON_INODE_FS_MAGIC`: an eventfd, a timerfd, a signalfd, an epoll or inotify instance; before Linux
    /// 6.9 also a pidfd.
    pub const ANON_INODE: Self = Self(0x0904_1934);
    /// `PID_FS_MAGIC`: a pidfd since Linux 6.9.
    pub const PIDFS: Self = Self(0x5049_4446);
}

/// The type of a socket, as SO_TYPE reports it (socket(7)).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SocketType(pub i32);

impl SocketType {
    /// `SOCK_STREAM`: bytes without boundaries.
    pub const STREAM: Self = Self(1);
    /// `SOCK_DGRAM`: messages. The death of the peer is not reported.
    pub const DGRAM: Self = Self(2);
    /// `SOCK_RAW`: raw network packets.
    pub const RAW: Self = Self(3);
    /// `SOCK_SEQPACKET`: messages in order. A read drops the rest of a message that does not fit.
    pub const SEQPACKET: Self = Self(5);
}

/// One byte received from a socket, with at most one descriptor.
#[cfg(feature = "legacy")]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Received {
    /// The byte, or `None` at the end of the file.
    pub byte: Option<u8>,
    /// The descriptor, which is close-on-exec.
    pub fd: Option<Fd>,
    /// `MSG_CTRUNC`: the sender sent more than one descriptor. The kernel has closed those that had no room.
    pub truncated: bool,
}

/// One descriptor of a `poll`, laid out as the kernel reads it, so that a backend needs no loop.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct PollFd {
    /// The descriptor.
    pub fd: Fd,
    /// The events to wait for.
    pub events: PollEvents,
    /// The events that occurred.
    pub revents: PollEvents,
}

impl PollFd {
    /// Returns a request to wait for `events` on `fd`.
    #[must_use]
    pub const fn new(fd: Fd, events: PollEvents) -> Self {
        Self { fd, events, revents: PollEvents(0) }
    }
}

/// A set of `POLL*` bits.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct PollEvents(pub i16);

impl PollEvents {
    /// No event: `poll` then reports only an error or a hang-up.
    pub const NONE: Self = Self(0);
    /// There is something to read, the file is at its end, or the process of a pidfd has ended.
    pub const IN: Self = Self(0x1);
    /// There is room to write.
    pub const OUT: Self = Self(0x4);
    /// The other end is closed. Reported even if it was not requested.
    pub const HUP: Self = Self(0x10);

    /// Returns whether every event of `other` is in this set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// The result of a clone: distinguishes the parent from the new process.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Fork {
    /// This process is the parent.
    Parent {
        /// The new process, in the caller's numbering.
        child: Pid,
    },
    /// This process is the new one.
    Child,
}

/// The two results of [`Sys::clone_init`](super::Sys::clone_init).
#[cfg(feature = "std")]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum InitFork {
    /// This process is the parent.
    Parent {
        /// The new process, in the caller's numbering.
        child: Pid,
        /// Its pidfd. `None` before Linux 5.2, where the kernel ignores `CLONE_PIDFD`.
        pidfd: Option<Fd>,
    },
    /// This process is the new one.
    Child,
}

/// The first function of a process that shares its creator's memory, with its argument and its stack
/// ([`Sys::clone_init`](super::Sys::clone_init)).
#[cfg(feature = "std")]
#[derive(Clone, Copy, Debug)]
pub struct SharedStart {
    entry: extern "C" fn(*mut c_void) -> c_int,
    argument: *mut c_void,
    stack: *mut c_void,
}

#[cfg(feature = "std")]
impl SharedStart {
    /// Returns a start that calls `entry(argument)` on the stack that ends at the address `stack` and grows
    /// downwards. The process exits with the result.
    ///
    /// # Safety
    ///
    /// Up to the exec or the end of the new process:
    ///
    /// - the argument is valid for the entry, in another process, while this thread continues;
    /// - the stack is used by nothing else and is large enough; its end is aligned to 16 bytes;
    /// - the entry uses no thread-local value of the libc or of Rust, allocates no memory, takes no lock and
    ///   does not unwind: its thread-local values are those of the thread that creates the process.
    #[must_use]
    pub const unsafe fn new(
        entry: extern "C" fn(*mut c_void) -> c_int,
        argument: *mut c_void,
        stack: *mut c_void,
    ) -> Self {
        Self { entry, argument, stack }
    }

    /// Returns a start for a backend that creates no process of the kernel: for a simulation.
    #[must_use]
    pub const fn simulated() -> Self {
        extern "C" fn nothing(_: *mut c_void) -> c_int {
            1
        }
        Self { entry: nothing, argument: core::ptr::null_mut(), stack: core::ptr::null_mut() }
    }

    pub(super) const fn entry(self) -> extern "C" fn(*mut c_void) -> c_int {
        self.entry
    }

    pub(super) const fn argument(self) -> *mut c_void {
        self.argument
    }

    pub(super) const fn stack(self) -> *mut c_void {
        self.stack
    }
}

/// The signal that a child sends to its parent when it ends.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum ExitSignal {
    /// SIGCHLD, as after an ordinary fork.
    Chld,
    /// No signal. Only a wait with `__WCLONE` sees such a child. So the waits of an embedding program and our
    /// waits never reap each other's children. An exec changes the exit signal to SIGCHLD (wait(2), "Linux
    /// notes").
    None,
}

/// The place where the libc caches its thread id, and its present value.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct TidAddress {
    /// The address registered by set_tid_address(2) or CLONE_CHILD_CLEARTID. It is 0 if no address is
    /// registered, as in the child of a clone without `tid`.
    pub address: usize,
    /// The number at this address.
    pub cached: i32,
}

/// The children that `wait4` waits for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum WaitFor {
    /// Children that end with SIGCHLD: flags 0.
    Ordinary,
    /// The same children, without blocking: `WNOHANG`. The pid 0 means that no child has ended.
    OrdinaryNow,
    /// Children of this thread that end without SIGCHLD: `__WCLONE|__WNOTHREAD`.
    Stages,
    /// The same children, and also stopped ones, without blocking: `WNOHANG|WUNTRACED|__WCLONE|__WNOTHREAD`.
    /// The pid 0 means that no child has changed its state.
    StagesNow,
}

/// A signal that `wait_signal` has removed.
#[cfg(feature = "std")]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SentSignal {
    /// The signal.
    pub signal: Signal,
    /// Whether the kernel itself sent it (`SI_KERNEL`, sigaction(2)): a terminal does so for each process of
    /// its foreground process group.
    pub by_kernel: bool,
}

/// The state change of a process that `wait4` reports.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum WaitStatus {
    /// The process exited with this status.
    Exited(i32),
    /// This signal ended the process.
    Signaled(Signal),
    /// This signal stopped the process.
    Stopped(Signal),
    /// Any other state change, as the raw status.
    Other(i32),
}

impl fmt::Display for WaitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(status) => write!(f, "exited with status {status}"),
            Self::Signaled(signal) => write!(f, "was killed by {signal}"),
            Self::Stopped(signal) => write!(f, "was stopped by {signal}"),
            Self::Other(raw) => write!(f, "ended with wait status {raw:#x}"),
        }
    }
}

/// The result of `wait4`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Waited {
    /// The pid of the child.
    pub pid: Pid,
    /// The state change of the child.
    pub status: WaitStatus,
}

/// A mount that the launcher's stage 2 makes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Mount {
    /// `mount(NULL, "/", NULL, MS_REC|…, NULL)`: sets the propagation of mount events.
    Propagation(Propagation),
    /// `mount("proc", "/proc", "proc", MS_NOSUID|MS_NODEV|MS_NOEXEC, NULL)`: mounts a new procfs.
    Proc,
    /// `mount("sysfs", "/sys", "sysfs", MS_NOSUID|MS_NODEV|MS_NOEXEC, NULL)`, with `read_only` also
    /// `MS_RDONLY`: mounts a new sysfs, which shows the network devices of the process's network namespace.
    Sysfs {
        /// Whether the mount is read-only.
        read_only: bool,
    },
}

/// The propagation of mount events between a new mount namespace and the one it was copied from
/// (mount_namespaces(7), "Shared subtrees").
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Propagation {
    /// `MS_PRIVATE`: mount events propagate in neither direction.
    Private,
    /// `MS_SLAVE`: mount events propagate only into the new namespace.
    Slave,
    /// `MS_SHARED`: mount events propagate in both directions.
    Shared,
}
