//! The steps and failures of the older release lines, with runc's texts.

use core::fmt;

use super::mount_fds::MountFdsError;
use crate::deciders::bootstrap::text::PathText;
use crate::sys::types::{CloneFlags, Errno, Fd, Pid};
use crate::words::error::{Code, Doing, Error, steps};

steps! {
    /// The step that failed: one variant for each of runc's texts and of our own. `Display` writes the text.
    Step<'m> {
        /// Sending the ready byte to the launcher.
        InformLauncher => Code::ReadyByte, "could not inform the parent we are past initial setup";
        /// Checking whether the numbers reserved for the mount sources are open.
        CheckMountFd(fd: Fd) => Code::MountFds,
            "failed to check descriptor {}, kept for a mount source", fd.0;
        /// Opening our own mount namespace, to return to it later.
        OpenOwnMountNamespace => Code::OpenMountNamespace, "failed to get current mount namespace";
        /// Opening stage 1's mount namespace.
        OpenMountNamespace(pid: Pid) => Code::OpenMountNamespace,
            "failed to get container mount namespace (/proc/{pid}/ns/mnt)";
        /// Joining stage 1's mount namespace.
        EnterMountNamespace => Code::MountNamespace, "failed to setns to container mntns";
        /// Returning to our own mount namespace.
        LeaveMountNamespace => Code::MountNamespace, "failed to setns to host mntns";
        /// Opening the source of a bind mount.
        OpenMountSource(path: &'m [u8]) => Code::OpenMountSource,
            "failed to open mount source {}", PathText(path);
        /// Sending a mount source to stage 1.
        SendMountSource(path: &'m [u8]) => Code::MountSource,
            "failed to send mount source {}", PathText(path);
        /// Receiving the mount source for this descriptor number.
        ReceiveMountSource(fd: Fd) => Code::MountSource, "failed to receive the mount source for fd {}", fd.0;
        /// Moving the mount source to this descriptor number.
        PlaceMountSource(fd: Fd) => Code::MountSource, "cannot dup3 a mount source to {}", fd.0;
        /// Waiting until the launcher has moved stage 2 into its cgroup.
        ReadCgroupByte => Code::CgroupByte, "read synchronisation value failed";
        /// Creating the cgroup namespace in stage 2.
        UnshareCgroup => Code::UnshareCgroup, "failed to unshare cgroup namespace";
    }
}

impl<'m> Step<'m> {
    /// Returns the error of a system call in this step.
    #[must_use]
    pub const fn failed(self, errno: Errno) -> Error<'m> {
        Error::Os { doing: Doing::Legacy(self), errno }
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

/// A failure without an errno.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
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
    pub const fn code(&self) -> Code {
        match self {
            Self::Reported { .. } => Code::Sync,
            Self::MountFds(_) => Code::MountFds,
            Self::NoDescriptor { .. } => Code::MountSource,
            Self::UnexpectedByte(_) => Code::CgroupByte,
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
