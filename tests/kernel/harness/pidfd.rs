//! Processes, by pidfd and by /proc. The pid of a reaped process may belong to another process; a pidfd
//! always refers to the same one.

use std::fs;
use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::getpid;
use nsexec::sys::Sys;
use nsexec::sys::linux::LinuxSys;
use nsexec::sys::types::Pid;

/// A pidfd.
#[derive(Debug)]
pub(crate) struct PidFd(OwnedFd);

impl PidFd {
    pub(crate) fn open(pid: i32) -> io::Result<Self> {
        // SAFETY: one call, which only creates a descriptor.
        let opened = unsafe { LinuxSys::new() }.pidfd_open(Pid(pid));
        let fd = opened.map_err(|errno| io::Error::from_raw_os_error(errno.0))?;
        // SAFETY: the kernel has just created this descriptor, and it has no other owner.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd.0) }))
    }

    /// Waits until the process has ended, whether it is a child or not. Returns false if `time` is over
    /// first.
    pub(crate) fn ends_within(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)], timeout) {
                Ok(1) => return true,
                Ok(_) if left.is_zero() => return false,
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => panic!("poll of a pidfd: {error}"),
            }
        }
    }

    pub(crate) fn fd(&self) -> &OwnedFd {
        &self.0
    }
}

/// Returns our own pid.
pub(crate) fn me() -> i32 {
    getpid().as_raw()
}

/// Returns the children of a process that has one thread.
pub(crate) fn children(pid: i32) -> Vec<i32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}
