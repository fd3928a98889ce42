//! The errors of the bootstrap: [`Error`] is the failure, [`Doing`] the step that failed.
//!
//! There is no conversion from a bare errno, because it would lose the step. An error is reported once, by
//! the code that ends the process.

mod code;
mod doing;

use core::fmt;

use crate::deciders::bootstrap::env::EnvError;
use crate::deciders::bootstrap::error::ParseError;
use crate::deciders::bootstrap::text::PathText;
use crate::deciders::idmap::{IdMapTooLarge, MapMismatch};
use crate::deciders::namespace::{NsKind, NsSet};
use crate::sys::types::{CloneFlags, Errno, Fd, FsType, Pid, SocketType, WaitStatus};
pub use code::Code;
#[cfg(feature = "sealed-copy")]
pub use doing::CopyStep;
#[cfg(any(feature = "legacy", feature = "std"))]
pub(crate) use doing::steps;
pub use doing::{Doing, MapKind, ProcFile, SyncPipe, SyncStep};

/// The reason why the mapping tool failed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum ToolFailure {
    /// The kernel refused our own write, and the message names no tool.
    NotPresent,
    /// The path is not absolute. The tool's environment is empty, so no directories are searched.
    NotAbsolute,
    /// The arguments are more numerous or longer than those of any valid map.
    TooManyArguments,
    /// The tool ended with a status other than 0.
    Ended(WaitStatus),
    /// Stage 1 died while the tool ran.
    Stage1Died,
    /// The launcher died, or closed its end of the init pipe, while the tool ran.
    LauncherDied,
    /// The tool reported success, but the map differs from the requested one.
    WroteOther(MapMismatch),
}

impl ToolFailure {
    /// Returns a stable name for programs.
    const fn code(&self) -> Code {
        match self {
            Self::NotPresent => Code::MappingToolMissing,
            Self::NotAbsolute => Code::MappingToolPath,
            Self::TooManyArguments => Code::MappingToolArguments,
            Self::Ended(WaitStatus::Signaled(_)) => Code::MappingToolSignal,
            Self::Ended(_) => Code::MappingToolStatus,
            Self::Stage1Died => Code::MappingToolStage1Died,
            Self::LauncherDied => Code::MappingToolLauncherDied,
            Self::WroteOther(_) => Code::MappingToolWroteOther,
        }
    }
}

/// The kind of a descriptor that cannot be the init pipe: it does not report the launcher's death, or a read
/// would wait without end.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum InitPipeKind {
    /// A socket that is not a stream.
    Socket(SocketType),
    /// An eventfd, a timerfd, a signalfd, an epoll or inotify instance, a pidfd before Linux 6.9.
    AnonymousInode,
    /// A pidfd.
    Pidfd,
}

impl fmt::Display for InitPipeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Socket(SocketType::DGRAM) => "a datagram socket",
            Self::Socket(SocketType::SEQPACKET) => "a seqpacket socket",
            Self::Socket(SocketType::RAW) => "a raw socket",
            Self::Socket(SocketType(kind)) => return write!(f, "a socket of type {kind}"),
            Self::AnonymousInode => {
                "an anonymous inode (eventfd, timerfd, signalfd, epoll, inotify or the like)"
            }
            Self::Pidfd => "a pidfd",
        })
    }
}

/// A request in the message or by the caller that cannot be carried out, found before any change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Refusal {
    /// Bits that are not namespace flags. unshare(2) accepts some of them, with other effects.
    UnknownCloneFlags(CloneFlags),
    /// The same kind is to be joined and created.
    JoinedAndCreated(NsSet),
    /// The process has this many threads, and may have only one. `None`: more than one, not countable without
    /// /proc.
    Threads(Option<u64>),
    /// A map that is too large for a single write.
    MapTooLarge(MapKind, IdMapTooLarge),
    /// Arguments or variables that are too many or too long for a sealed copy of our program.
    #[cfg(feature = "sealed-copy")]
    OwnArguments,
    /// The sealed copy of our program does not pass the check for a copy, and would copy itself again.
    #[cfg(feature = "sealed-copy")]
    CopyNotRecognised,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::UnknownCloneFlags(flags) => {
                write!(f, "clone flags {:#x} are not namespace flags: only CLONE_NEW* is accepted", flags.0)
            }
            Self::JoinedAndCreated(set) => write!(f, "asked to both join and create: {set}"),
            Self::Threads(count) => {
                f.write_str("the process has ")?;
                match count {
                    Some(count) => write!(f, "{count}")?,
                    None => f.write_str("several")?,
                }
                f.write_str(" threads: call the bootstrap before any is started")
            }
            Self::MapTooLarge(kind, too_large) => write!(f, "{}: {too_large}", kind.file().as_str()),
            #[cfg(feature = "sealed-copy")]
            Self::OwnArguments => f.write_str(
                "could not ensure we are a cloned binary: the arguments or the environment are too large for the sealed copy",
            ),
            #[cfg(feature = "sealed-copy")]
            Self::CopyNotRecognised => f.write_str(
                "could not ensure we are a cloned binary: the sealed copy does not pass its own check",
            ),
        }
    }
}

/// Any failure that ends a bootstrap.
#[derive(Clone, Copy, PartialEq, Debug)]
#[non_exhaustive]
pub enum Error<'m> {
    /// A malformed variable in the environment.
    Environment(EnvError<'m>),
    /// A malformed bootstrap message.
    Parse(ParseError<'m>),
    /// A well-formed request that cannot be carried out.
    Refused(Refusal),
    /// The init pipe is neither a stream socket nor a pipe.
    InitPipe {
        /// The descriptor.
        fd: Fd,
        /// Its kind.
        kind: InitPipeKind,
    },
    /// A system call failed.
    Os {
        /// The step.
        doing: Doing<'m>,
        /// The error of the call.
        errno: Errno,
    },
    /// Fewer bytes than needed: the peer has died, or a /proc file accepted only a part.
    Short {
        /// The step.
        doing: Doing<'m>,
        /// The number of bytes read or written.
        got: usize,
        /// The number of bytes needed.
        want: usize,
    },
    /// Another stage sent a sync value that is not allowed at this point.
    UnexpectedSync {
        /// The step that waited for a value.
        step: SyncStep,
        /// The value that arrived.
        value: u32,
    },
    /// The launcher died, or closed its end of the init pipe, while this stage waited for another one.
    LauncherGone {
        /// The step that was in progress.
        doing: Doing<'m>,
    },
    /// A file that should be a namespace or a procfs file is on another file system.
    WrongFileSystem {
        /// The step.
        doing: Doing<'m>,
        /// The type of the file system found.
        found: FsType,
    },
    /// /proc shows another pid namespace, or /proc is not mounted.
    ForeignProc {
        /// The pid of this process.
        own: Pid,
        /// The pid that the link /proc/self contains, if the link exists.
        found: Option<Pid>,
    },
    /// A namespace whose join was refused in every pass.
    NotJoined {
        /// Its kind.
        kind: NsKind,
        /// Its path.
        path: &'m [u8],
    },
    /// After all three passes, these namespaces are not joined.
    IncompleteJoin(NsSet),
    /// The mapping tool failed.
    MappingTool {
        /// The map.
        kind: MapKind,
        /// The process whose map it is: stage 1.
        pid: Pid,
        /// The reason.
        why: ToolFailure,
    },
    /// A failure of an older release line.
    #[cfg(feature = "legacy")]
    Legacy(crate::legacy::Failure),
}

impl<'m> Error<'m> {
    /// Returns the step that failed, if the error has one.
    #[must_use]
    pub const fn doing(&self) -> Option<&Doing<'m>> {
        match self {
            Self::Os { doing, .. } | Self::Short { doing, .. } | Self::WrongFileSystem { doing, .. } => {
                Some(doing)
            }
            _ => None,
        }
    }

    /// Returns a stable name for programs.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Environment(_) => Code::Environment,
            Self::Parse(_) => Code::Message,
            Self::Refused(_) => Code::Refused,
            Self::InitPipe { .. } => Code::InitPipe,
            Self::UnexpectedSync { .. } => Code::Sync,
            Self::LauncherGone { .. } => Code::LauncherGone,
            Self::ForeignProc { .. } => Code::ForeignProc,
            Self::NotJoined { .. } | Self::IncompleteJoin(_) => Code::Join,
            Self::MappingTool { why, .. } => why.code(),
            Self::Os { doing, .. } | Self::Short { doing, .. } | Self::WrongFileSystem { doing, .. } => {
                doing.code()
            }
            #[cfg(feature = "legacy")]
            Self::Legacy(failure) => failure.code(),
        }
    }

    /// Returns the errno of the kernel, if that is the cause.
    #[must_use]
    pub const fn errno(&self) -> Option<Errno> {
        match self {
            Self::Os { errno, .. } => Some(*errno),
            Self::NotJoined { .. } | Self::IncompleteJoin(_) => Some(Errno::EPERM),
            // The errno of our own write, which made the tool necessary.
            Self::MappingTool { why: ToolFailure::NotPresent, .. } => Some(Errno::EPERM),
            _ => None,
        }
    }
}

/// The cause and the remedy if openat2(2) fails with EXDEV for a file below /proc.
const COVERED: &str = "something is mounted over it (unmount it, or mount a new /proc)";

/// The cause if a read or a write of the init pipe fails with EBADF.
const NOT_OPEN: &str = "_LIBCONTAINER_INITPIPE is closed, or open for the other direction only";

impl fmt::Display for Error<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Environment(error) => error.fmt(f),
            Self::Parse(error) => error.fmt(f),
            Self::Refused(refusal) => refusal.fmt(f),
            Self::InitPipe { fd, kind } => {
                write!(f, "_LIBCONTAINER_INITPIPE={} is {kind}: it must be a stream socket or a pipe", fd.0)
            }
            Self::Os { doing: Doing::Join(kind, path), errno } => {
                write!(f, "failed to setns into {kind} namespace: {errno} (with path {})", PathText(path))
            }
            Self::Os { doing: Doing::ToolDescriptors, errno: Errno::EXDEV } => {
                write!(f, "{}: /proc/self/fd is a mount point: {COVERED}", Doing::ToolDescriptors)
            }
            Self::Os {
                doing:
                    doing @ (Doing::OomScoreAdj | Doing::OpenProcDir(_) | Doing::Update(..) | Doing::ReadBack(..)),
                errno: Errno::EXDEV,
            } => write!(f, "{doing}, which is a mount point: {COVERED}"),
            Self::Os { doing: doing @ Doing::ReadHeader, errno: errno @ Errno::EBADF } => {
                write!(f, "{doing}: {errno} ({NOT_OPEN})")
            }
            #[cfg(feature = "legacy")]
            Self::Os {
                doing: Doing::Legacy(step @ crate::legacy::Step::InformLauncher),
                errno: errno @ Errno::EBADF,
            } => write!(f, "{step}: {errno} ({NOT_OPEN})"),
            #[cfg(feature = "sealed-copy")]
            Self::Os { doing: doing @ Doing::EnsureCloned(step), errno } => {
                write!(f, "{doing}: {errno} ({})", step.as_str())
            }
            Self::Os { doing, errno } => write!(f, "{doing}: {errno}"),
            Self::Short { doing: Doing::Update(pid, file), got, want } => {
                write!(f, "{}: the kernel accepted {got} of {want} bytes", Doing::Update(pid, file))
            }
            Self::Short { doing, got, want } => write!(f, "{doing} (got {got} of {want} bytes)"),
            Self::UnexpectedSync { step, value } => match step.awaited() {
                Some(awaited) => write!(f, "failed to sync with parent: {awaited}: got {value}"),
                None => write!(f, "unexpected sync value: {value}"),
            },
            Self::LauncherGone { doing } => {
                write!(f, "the launcher is gone (it closed its end of the init pipe): {doing}")
            }
            Self::WrongFileSystem { doing, found } => wrong_file_system(f, doing, found),
            Self::ForeignProc { own, found } => {
                f.write_str("/proc belongs to another pid namespace, or is not mounted: ")?;
                match found {
                    Some(found) => write!(f, "we are process {own}, and /proc/self is {found}"),
                    None => write!(f, "we are process {own}, and there is no /proc/self"),
                }
            }
            Self::NotJoined { kind, path } => write!(
                f,
                "failed to setns({:#x}) into {kind} namespace (with path {}): {}",
                kind.flag().0,
                PathText(path),
                Errno::EPERM
            ),
            Self::IncompleteJoin(set) => write!(f, "failed to join {{{set}}} namespaces: {}", Errno::EPERM),
            Self::MappingTool { kind, pid, why } => tool_text(f, kind, pid, why),
            #[cfg(feature = "legacy")]
            Self::Legacy(failure) => failure.fmt(f),
        }
    }
}

impl core::error::Error for Error<'_> {}

fn wrong_file_system(f: &mut fmt::Formatter<'_>, doing: Doing<'_>, found: FsType) -> fmt::Result {
    let what = match doing {
        Doing::OpenNamespace(_) => "namespace",
        #[cfg(feature = "legacy")]
        Doing::Legacy(_) => "namespace",
        _ => "file of procfs",
    };
    write!(f, "{doing}: not a {what} (file system type {:#x})", found.0)
}

fn tool_text(f: &mut fmt::Formatter<'_>, kind: MapKind, pid: Pid, why: ToolFailure) -> fmt::Result {
    let tool = kind.tool();
    match why {
        ToolFailure::NotPresent => {
            write!(f, "{}: {}: mapping tool not present", Doing::Update(pid, kind.file()), Errno::EPERM)
        }
        ToolFailure::NotAbsolute => write!(f, "{tool}map: the mapping tool's path is not absolute"),
        ToolFailure::TooManyArguments => write!(f, "{tool}map: too many arguments for the mapping tool"),
        ToolFailure::Ended(status) => write!(f, "failed to use {tool} map on {pid}: {tool}map {status}"),
        ToolFailure::Stage1Died => write!(f, "stage-1 ({pid}) died while {tool}map was running"),
        ToolFailure::LauncherDied => write!(f, "the launcher is gone: {tool}map was still running"),
        ToolFailure::WroteOther(mismatch) => {
            let file = kind.file().as_str();
            write!(f, "{tool}map reported success, but /proc/{pid}/{file} differs: {mismatch}")
        }
    }
}
