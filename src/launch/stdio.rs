//! [`Stdio`]: the choice of a file for the standard input, output or error of a command. Opens pipes and
//! /dev/null before the launch: not part of the bootstrap, and in no record.

use std::fs::{File, OpenOptions};
use std::io;
use std::net::TcpStream;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{ChildStderr, ChildStdin, ChildStdout};
use std::sync::Arc;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::pipe2;

/// The choice of a file for the standard input, output or error of a command, as with
/// [`std::process::Stdio`].
///
/// Make one from a file, a socket or the pipe of another command with `Stdio::from`.
#[derive(Clone, Debug)]
pub struct Stdio(pub(super) Kind);

#[derive(Clone, Debug)]
pub(super) enum Kind {
    Inherit,
    Null,
    Piped,
    Given(Arc<OwnedFd>),
}

impl Stdio {
    /// Each stream is the same as that of this process.
    pub(super) const INHERITED: [Self; 3] = [const { Self::inherit() }; 3];

    /// The command gets the same file as this process.
    #[must_use]
    pub const fn inherit() -> Self {
        Self(Kind::Inherit)
    }

    /// The command gets /dev/null.
    #[must_use]
    pub const fn null() -> Self {
        Self(Kind::Null)
    }

    /// The command gets one end of a new pipe. The [`Child`](super::Child) has the other end.
    #[must_use]
    pub const fn piped() -> Self {
        Self(Kind::Piped)
    }
}

impl From<OwnedFd> for Stdio {
    fn from(fd: OwnedFd) -> Self {
        Self(Kind::Given(Arc::new(fd)))
    }
}

/// Conversions of types that own one descriptor.
macro_rules! from {
    ($($type:ty)*) => { $(
        impl From<$type> for Stdio {
            fn from(owner: $type) -> Self {
                OwnedFd::from(owner).into()
            }
        }
    )* };
}

from! { File ChildStdin ChildStdout ChildStderr UnixStream TcpStream }

/// The end of the command, and the end of the caller of a pipe.
pub(super) struct Opened {
    pub(super) command: Option<Arc<OwnedFd>>,
    pub(super) caller: Option<OwnedFd>,
}

/// Opens the file for the standard input of the command (`reads`), or for its standard output or error.
///
/// # Errors
/// The error of pipe(2) or open(2).
pub(super) fn open(stdio: &Stdio, reads: bool) -> io::Result<Opened> {
    let command = |fd: OwnedFd| Some(Arc::new(fd));
    Ok(match &stdio.0 {
        Kind::Inherit => Opened { command: None, caller: None },
        Kind::Null => {
            let file = OpenOptions::new().read(reads).write(!reads).open("/dev/null")?;
            Opened { command: command(file.into()), caller: None }
        }
        Kind::Given(fd) => Opened { command: Some(Arc::clone(fd)), caller: None },
        Kind::Piped => {
            let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
            let (ours, theirs) = if reads { (write, read) } else { (read, write) };
            Opened { command: command(theirs), caller: Some(ours) }
        }
    })
}

/// Returns the soft limit of the numbers of descriptors: each is below it (getrlimit(2), RLIMIT_NOFILE).
pub(super) fn descriptor_limit() -> u64 {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft)
}

/// Duplicates a descriptor to a free number from `least` on. The copy is close-on-exec.
///
/// # Errors
/// `EMFILE`, `EINVAL`: no such number is free, or allowed (fcntl(2), F_DUPFD_CLOEXEC).
pub fn duplicate_above(fd: &OwnedFd, least: i32) -> io::Result<OwnedFd> {
    let number = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(least))?;
    // SAFETY: the kernel has just created this descriptor, and nothing else has its number.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
