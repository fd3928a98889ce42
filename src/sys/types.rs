//! The vocabulary of [`Sys`](super::Sys): plain values that mean the same to every backend.
//!
//! Nothing here owns anything. A descriptor is a number, because with fork a close is part of the protocol:
//! its place in the order is observable, and it can fail.

use core::ffi::{CStr, c_char};
use core::fmt;
use core::marker::PhantomData;
use core::ptr::NonNull;

/// What a system call gives: a value, or the kernel's errno.
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

/// A process id, in the numbering of the process that got it.
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

/// An error number. An integer and not an enum, since the kernel may return what we don't know.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Errno(pub i32);

/// The kernel's `sigaction`, carried around unread so that a disposition can be put back exactly.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SigAction {
    /// The handler's address, or 0 for the default and 1 for ignore.
    pub handler: usize,
    /// `SA_*` bits.
    pub flags: u64,
    /// The libc's return trampoline.
    pub restorer: usize,
    /// What is blocked while the handler runs.
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
    /// No signal: what PR_SET_PDEATHSIG takes for none.
    pub const NONE: Self = Self(0);
    /// Terminal hang-up.
    pub const HUP: Self = Self(1);
    /// Interrupt from the keyboard.
    pub const INT: Self = Self(2);
    /// Quit from the keyboard.
    pub const QUIT: Self = Self(3);
    /// Cannot be caught.
    pub const KILL: Self = Self(9);
    /// A write that nobody will read.
    pub const PIPE: Self = Self(13);
    /// A polite request to end.
    pub const TERM: Self = Self(15);
    /// A child changed state.
    pub const CHLD: Self = Self(17);
    /// Continues a stopped process.
    pub const CONT: Self = Self(18);
    /// Stops a process. Cannot be caught.
    pub const STOP: Self = Self(19);
}

/// A set of signals, as the kernel's 64-bit mask.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SignalSet(pub u64);

impl SignalSet {
    /// No signal.
    pub const EMPTY: Self = Self(0);
    /// SIGPIPE alone.
    pub const PIPE: Self = Self(1 << 12);
    /// SIGXFSZ alone: a file would become larger than RLIMIT_FSIZE allows.
    pub const XFSZ: Self = Self(1 << 24);

    /// Whether every signal of `other` is in this set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// What `rt_sigprocmask` does with the set.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum MaskHow {
    /// Add the set to the mask.
    Block,
    /// Make the set the mask.
    Set,
}

/// The `CLONE_NEW*` bits, and whatever else a message or a caller put into the word: unknown bits are kept.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct CloneFlags(pub u32);

impl CloneFlags {
    /// No namespace.
    pub const EMPTY: Self = Self(0);
    /// No namespace, and nothing to do for an unshare that a single thread asks for: others get EINVAL.
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

    /// In strace's order: by number.
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

    /// Whether every bit of `other` is set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// These bits and `other`'s.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// These bits without `other`'s.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The bits that name no namespace.
    #[must_use]
    pub fn unknown(self) -> Self {
        Self::NAMES.iter().fold(self, |rest, (flag, _)| rest.without(*flag))
    }
}

impl fmt::Display for CloneFlags {
    /// As strace writes it: `CLONE_NEWNS|CLONE_NEWUTS`, unknown bits last in hexadecimal, `0` for nothing.
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

/// How a file is opened: the combinations that the core uses, and no others.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum OpenFlags {
    /// `O_RDWR|O_CLOEXEC`: a file of /proc that is written. Opening it for both is what runc does.
    ReadWrite,
    /// `O_RDONLY|O_CLOEXEC`: a file of /proc that is read back.
    ReadOnly,
    /// `O_RDONLY|O_CLOEXEC|O_NONBLOCK`: a namespace. Without O_NONBLOCK a FIFO would hold us for ever.
    Namespace,
    /// `O_PATH|O_DIRECTORY|O_CLOEXEC`: the directory of a process in /proc.
    Directory,
    /// `O_RDONLY|O_DIRECTORY|O_CLOEXEC`: a directory that is listed.
    List,
    /// `O_RDWR|O_TMPFILE|O_EXCL|O_CLOEXEC`, mode 0700: a file in this directory that has no name and never gets one.
    Unnamed,
    /// `O_RDWR|O_CREAT|O_EXCL|O_CLOEXEC`, mode 0700: a file that was not there before, nor a link of its name.
    New,
    /// `O_PATH|O_CLOEXEC`: a file that is executed and no more, so that it is open for writing nowhere; a mount source, of
    /// which only the place is wanted, so that no device is opened and no FIFO waited for.
    Path,
}

/// What may never be done to a file again (fcntl(2), "File Sealing").
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Seals(pub u32);

impl Seals {
    /// `F_SEAL_SEAL`: no seal is added any more. All that a file of tmpfs has, and a memfd without sealing.
    pub const SEAL: Self = Self(0x1);
    /// `F_SEAL_SEAL|F_SEAL_SHRINK|F_SEAL_GROW|F_SEAL_WRITE`: its content is what it is.
    pub const CONTENT: Self = Self(0xf);
}

/// The type of a file system, as `statfs` reports it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct FsType(pub i64);

impl FsType {
    /// `NSFS_MAGIC`: the file is a namespace.
    pub const NSFS: Self = Self(0x6e73_6673);
    /// `PROC_SUPER_MAGIC`: the file is one of procfs.
    pub const PROC: Self = Self(0x9fa0);
    /// `ANON_INODE_FS_MAGIC`: an eventfd, a timerfd, a signalfd, an epoll or inotify instance, before Linux 6.9 a pidfd.
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
    /// `SOCK_DGRAM`: messages; the death of the peer is not reported.
    pub const DGRAM: Self = Self(2);
    /// `SOCK_RAW`.
    pub const RAW: Self = Self(3);
    /// `SOCK_SEQPACKET`: messages in order; a read drops the rest of a message that does not fit.
    pub const SEQPACKET: Self = Self(5);
}

/// What came with one byte of a socket: a message with at most one descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Received {
    /// The byte; `None` at the end of the file.
    pub byte: Option<u8>,
    /// The descriptor, close-on-exec.
    pub fd: Option<Fd>,
    /// `MSG_CTRUNC`: more was sent than one descriptor. The kernel has closed what had no room.
    pub truncated: bool,
}

/// One descriptor of a `poll`, laid out as the kernel reads it, so that a backend needs no loop.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct PollFd {
    /// Which descriptor.
    pub fd: Fd,
    /// What is waited for.
    pub events: PollEvents,
    /// What has come.
    pub revents: PollEvents,
}

impl PollFd {
    /// Wait for `events` on `fd`.
    #[must_use]
    pub const fn new(fd: Fd, events: PollEvents) -> Self {
        Self { fd, events, revents: PollEvents(0) }
    }
}

/// `POLL*` bits.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct PollEvents(pub i16);

impl PollEvents {
    /// No event: only an error or a hang-up is reported.
    pub const NONE: Self = Self(0);
    /// Something to read, an end of file, a pidfd whose process has ended.
    pub const IN: Self = Self(0x1);
    /// Room to write.
    pub const OUT: Self = Self(0x4);
    /// The other end is gone. Comes unasked.
    pub const HUP: Self = Self(0x10);

    /// Whether every event of `other` is in this set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// Which process a new one becomes, seen from the caller of a clone point.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Fork {
    /// The caller goes on.
    Parent {
        /// The new process, in the caller's numbering.
        child: Pid,
    },
    /// The new process begins.
    Child,
}

/// What a child sends its parent when it ends.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum ExitSignal {
    /// SIGCHLD, as every fork.
    Chld,
    /// Nothing. Only a wait with `__WCLONE` sees such a child, so the waits of an embedding program and ours
    /// never take each other's children. An exec turns it into SIGCHLD (wait(2), "Linux notes").
    None,
}

/// Where the libc caches its thread id, and what stands there now.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct TidAddress {
    /// The address registered by set_tid_address(2) or CLONE_CHILD_CLEARTID; 0 if there is none, as in the child
    /// of a clone without `tid`.
    pub address: usize,
    /// The number that stands at this address.
    pub cached: i32,
}

/// Which children `wait4` waits for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum WaitFor {
    /// Children that end with SIGCHLD: flags 0.
    Ordinary,
    /// The same children, without waiting: `WNOHANG`. The pid 0 means that none has ended.
    OrdinaryNow,
    /// Children of this thread that end without SIGCHLD: `__WCLONE|__WNOTHREAD`.
    Stages,
    /// The same children, without waiting, also those that were stopped: `WNOHANG|WUNTRACED|__WCLONE|__WNOTHREAD`. The pid
    /// 0 means that no child has changed its state.
    StagesNow,
}

/// How a process ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum WaitStatus {
    /// It exited with this status.
    Exited(i32),
    /// A signal ended it.
    Signaled(Signal),
    /// A signal stopped it.
    Stopped(Signal),
    /// Anything else that wait reports, as the raw word.
    Other(i32),
}

/// What `wait4` found.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Waited {
    /// Which child.
    pub pid: Pid,
    /// How it ended.
    pub status: WaitStatus,
}

/// The mounts that the launcher's stage 2 makes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Mount {
    /// `mount(NULL, "/", NULL, MS_REC|…, NULL)`: how mount events travel.
    Propagation(Propagation),
    /// `mount("proc", "/proc", "proc", MS_NOSUID|MS_NODEV|MS_NOEXEC, NULL)`.
    Proc,
}

/// How mount events travel between a new mount namespace and the one it was copied from
/// (mount_namespaces(7), "Shared subtrees").
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Propagation {
    /// `MS_PRIVATE`: neither way.
    Private,
    /// `MS_SLAVE`: inwards only.
    Slave,
    /// `MS_SHARED`: both ways.
    Shared,
}

/// One argument of an exec: a pointer that came from a `&CStr` of that lifetime.
#[repr(transparent)]
#[derive(Clone, Copy, Debug)]
pub struct ArgPtr<'a>(NonNull<c_char>, PhantomData<&'a CStr>);

impl<'a> ArgPtr<'a> {
    fn new(arg: &'a CStr) -> Option<Self> {
        NonNull::new(arg.as_ptr().cast_mut()).map(|pointer| Self(pointer, PhantomData))
    }
}

/// The argument or environment array of an exec: already what the kernel reads, so that a backend needs no
/// loop, with the same strings as text for who shows them.
#[derive(Clone, Copy, Debug)]
pub struct ExecArgs<'a> {
    pointers: &'a [Option<ArgPtr<'a>>],
    text: &'a [u8],
}

impl<'a> ExecArgs<'a> {
    /// No argument at all.
    pub const EMPTY: Self = Self { pointers: &[None], text: &[] };

    /// The strings of `text`, which stand in it one after the other, each with its NUL, as in
    /// /proc/PID/cmdline. `slots` takes one pointer for each and the final null pointer.
    ///
    /// `None` if the last string lacks its NUL or `slots` is too small.
    pub fn build(text: &'a [u8], slots: &'a mut [Option<ArgPtr<'a>>]) -> Option<Self> {
        let mut rest = text;
        let mut used: usize = 0;
        while !rest.is_empty() {
            let arg = CStr::from_bytes_until_nul(rest).ok()?;
            *slots.get_mut(used)? = Some(ArgPtr::new(arg)?);
            used = used.checked_add(1)?;
            rest = rest.get(arg.count_bytes().checked_add(1)?..)?;
        }
        *slots.get_mut(used)? = None;
        let pointers = slots.get(..used.checked_add(1)?)?;
        Some(Self { pointers, text })
    }

    /// The array that execve(2) takes: pointers to strings with NUL, then a null pointer.
    #[must_use]
    pub fn pointers(&self) -> &'a [Option<ArgPtr<'a>>] {
        self.pointers
    }

    /// The strings, without their NULs.
    pub fn strings(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.text.strip_suffix(&[0]).into_iter().flat_map(|text| text.split(|byte| *byte == 0))
    }
}
