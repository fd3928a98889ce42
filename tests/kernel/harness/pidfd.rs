//! Processes by descriptors and by /proc: a pid that was waited for may be somebody else, a pidfd may not.

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

/// A process that stays the same one.
#[derive(Debug)]
pub(crate) struct PidFd(OwnedFd);

impl PidFd {
    pub(crate) fn open(pid: i32) -> io::Result<Self> {
        // SAFETY: one call, which changes nothing but that it makes a descriptor.
        let opened = unsafe { LinuxSys::new() }.pidfd_open(Pid(pid));
        let fd = opened.map_err(|errno| io::Error::from_raw_os_error(errno.0))?;
        // SAFETY: the kernel has just made this descriptor; no other owner exists.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd.0) }))
    }

    /// Waits until the process has ended, children and others alike; false if the time is over first.
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

/// Our own pid.
pub(crate) fn me() -> i32 {
    getpid().as_raw()
}

/// The children of a process that has one thread.
pub(crate) fn children(pid: i32) -> Vec<i32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}
