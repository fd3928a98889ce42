//! The steps and failures of the older release lines, with runc's texts.

use core::fmt;

use super::mount_fds::MountFdsError;
use crate::bootstrap::text::PathText;
use crate::error::{Doing, Error};
use crate::sys::types::{CloneFlags, Errno, Fd, Pid};

/// The step that failed: one variant for each of runc's texts and of our own. `Display` writes the text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Step<'m> {
    /// Sending the ready byte to the launcher.
    InformLauncher,
    /// Checking whether the numbers reserved for the mount sources are open.
    CheckMountFd(Fd),
    /// Opening our own mount namespace, to return to it later.
    OpenOwnMountNamespace,
    /// Opening stage 1's mount namespace.
    OpenMountNamespace(Pid),
    /// Joining stage 1's mount namespace.
    EnterMountNamespace,
    /// Returning to our own mount namespace.
    LeaveMountNamespace,
    /// Opening the source of a bind mount.
    OpenMountSource(&'m [u8]),
    /// Sending a mount source to stage 1.
    SendMountSource(&'m [u8]),
    /// Receiving the mount source for this descriptor number.
    ReceiveMountSource(Fd),
    /// Moving the mount source to this descriptor number.
    PlaceMountSource(Fd),
    /// Waiting until the launcher has moved stage 2 into its cgroup.
    ReadCgroupByte,
    /// Creating the cgroup namespace in stage 2.
    UnshareCgroup,
}

impl<'m> Step<'m> {
    /// Returns the error of a system call in this step.
    #[must_use]
    pub const fn failed(self, errno: Errno) -> Error<'m> {
        Error::Os { doing: Doing::Legacy(self), errno }
    }

    /// Returns a stable name for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::InformLauncher => "ready-byte",
            Self::CheckMountFd(_) => "mount-fds",
            Self::OpenOwnMountNamespace | Self::OpenMountNamespace(_) => "open-mount-namespace",
            Self::EnterMountNamespace | Self::LeaveMountNamespace => "mount-namespace",
            Self::OpenMountSource(_) => "open-mount-source",
            Self::SendMountSource(_) | Self::ReceiveMountSource(_) | Self::PlaceMountSource(_) => {
                "mount-source"
            }
            Self::ReadCgroupByte => "cgroup-byte",
            Self::UnshareCgroup => "unshare-cgroup",
        }
    }

    /// Returns the namespaces to create, for steps whose text does not name them.
    #[must_use]
    pub const fn flags(&self) -> Option<CloneFlags> {
        match self {
            Self::UnshareCgroup => Some(CloneFlags::NEWCGROUP),
            _ => None,
        }
    }

    /// Returns whether the step looks up a file of stage 1, so that it also fails while stage 1 exits.
    #[must_use]
    pub const fn depends_on_stage_1(&self) -> bool {
        matches!(self, Self::OpenMountNamespace(_) | Self::EnterMountNamespace | Self::OpenMountSource(_))
    }
}

impl fmt::Display for Step<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::InformLauncher => f.write_str("could not inform the parent we are past initial setup"),
            Self::CheckMountFd(fd) => {
                write!(f, "failed to check descriptor {}, kept for a mount source", fd.0)
            }
            Self::OpenOwnMountNamespace => f.write_str("failed to get current mount namespace"),
            Self::OpenMountNamespace(pid) => {
                write!(f, "failed to get container mount namespace (/proc/{pid}/ns/mnt)")
            }
            Self::EnterMountNamespace => f.write_str("failed to setns to container mntns"),
            Self::LeaveMountNamespace => f.write_str("failed to setns to host mntns"),
            Self::OpenMountSource(path) => write!(f, "failed to open mount source {}", PathText(path)),
            Self::SendMountSource(path) => write!(f, "failed to send mount source {}", PathText(path)),
            Self::ReceiveMountSource(fd) => write!(f, "failed to receive the mount source for fd {}", fd.0),
            Self::PlaceMountSource(fd) => write!(f, "cannot dup3 a mount source to {}", fd.0),
            Self::ReadCgroupByte => f.write_str("read synchronisation value failed"),
            Self::UnshareCgroup => f.write_str("failed to unshare cgroup namespace"),
        }
    }
}

/// A failure without an errno.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Failure {
    /// Another stage has failed and has reported the cause. This stage exits with the same status and reports
    /// nothing.
    Reported {
        /// The status.
        status: u32,
    },
    /// The variable with the target descriptors of the mount sources is wrong.
    MountFds(MountFdsError),
    /// A message for a mount source did not carry exactly one descriptor.
    NoDescriptor {
        /// The target descriptor.
        number: Fd,
        /// The message carried too many descriptors, or the process had no free number for one.
        truncated: bool,
    },
    /// The launcher's byte for the cgroup namespace has another value.
    UnexpectedByte(u8),
}

impl Failure {
    /// Returns a stable name for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Reported { .. } => "sync",
            Self::MountFds(_) => "mount-fds",
            Self::NoDescriptor { .. } => "mount-source",
            Self::UnexpectedByte(_) => "cgroup-byte",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Reported { status } => write!(f, "another stage failed (status {status})"),
            Self::MountFds(error) => error.fmt(f),
            Self::NoDescriptor { number, truncated: true } => {
                write!(f, "{}: received truncated control message", Step::ReceiveMountSource(number))
            }
            Self::NoDescriptor { number, truncated: false } => {
                write!(f, "{}: received message without control message", Step::ReceiveMountSource(number))
            }
            Self::UnexpectedByte(value) => write!(f, "received unknown synchronisation value: {value}"),
        }
    }
}

/// The steps of the private protocol between the stages that concern mount sources. The texts are runc's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum MountSync {
    /// Stage 0 reports to stage 1 that it has sent the mount sources.
    WriteAck,
    /// Stage 1 requests the mount sources.
    WritePls,
    /// Stage 1 waits for the end of the mount sources.
    ReadAck,
}

impl MountSync {
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::WriteAck => "failed to sync with child: write(SYNC_MOUNTSOURCES_ACK)",
            Self::WritePls => "failed to sync with parent: write(SYNC_MOUNTSOURCES_PLS)",
            Self::ReadAck => "failed to sync with parent: read(SYNC_MOUNTSOURCES_ACK)",
        }
    }

    /// Returns runc's text for a value other than the expected one.
    pub(crate) const fn awaited(self) -> Option<&'static str> {
        match self {
            Self::ReadAck => Some("failed to sync with parent: SYNC_MOUNTSOURCES_ACK"),
            Self::WriteAck | Self::WritePls => None,
        }
    }
}
