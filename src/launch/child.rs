//! The command that was started, as a handle.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use super::spawn;
use crate::sys::types::Pid;

/// A command that runs in its namespaces: a child of this process, like any other.
///
/// As with [`std::process::Child`], dropping the handle neither ends the command nor reaps it.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    first: bool,
    status: Option<ExitStatus>,
}

impl Child {
    /// `first`: it was asked for in a new pid namespace, of which it is process 1.
    pub(super) const fn new(pid: Pid, first: bool) -> Self {
        Self { pid, first, status: None }
    }

    /// Whether it is process 1 of a pid namespace of its own, which no signal without a handler ends.
    pub(super) const fn is_first(&self) -> bool {
        self.first
    }

    /// Its process id, in our numbering. It belongs to this child until it has been waited for.
    #[must_use]
    pub const fn pid(&self) -> Pid {
        self.pid
    }

    /// Waits until the command has ended. Afterwards it gives the same answer again.
    ///
    /// # Errors
    /// `ECHILD` if this process ignores SIGCHLD: then the kernel reaps the command, and its status is lost (wait(2)).
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        loop {
            if let Some(status) = self.changed(0)? {
                return Ok(status);
            }
        }
    }

    /// The status, if the command has ended.
    ///
    /// # Errors
    /// As [`Self::wait`].
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.changed(libc::WNOHANG)
    }

    /// SIGKILL to the command. In a pid namespace of its own, that ends all processes in it.
    ///
    /// # Errors
    /// That of kill(2). None if it has been reaped: nothing is sent then.
    pub fn kill(&self) -> io::Result<()> {
        self.signal(libc::SIGKILL)
    }

    /// Sends a signal to every process of the command's process group. Only for a command that leads it.
    pub(super) fn signal_group(&self, signal: i32) -> io::Result<()> {
        match self.status {
            Some(_) => Ok(()),
            None => spawn::kill(Pid(-self.pid.0), signal),
        }
    }

    /// Sends a signal to the command.
    ///
    /// # Errors
    /// As [`Self::kill`].
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        match self.status {
            // Its number may be somebody else's by now.
            Some(_) => Ok(()),
            None => spawn::kill(self.pid, signal),
        }
    }

    /// A wait with options: an end is remembered, a stop (WUNTRACED) and a continuation (WCONTINUED) are not.
    pub(super) fn changed(&mut self, options: i32) -> io::Result<Option<ExitStatus>> {
        if self.status.is_some() {
            return Ok(self.status);
        }
        let status = spawn::waitpid(self.pid, options)?;
        self.status = status.filter(|status| status.stopped_signal().is_none() && !status.continued());
        Ok(status)
    }
}

/// The status that a shell would give: the command's own, or 128 and the number of the signal that ended it.
#[must_use]
pub fn exit_code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_counts_from_128() {
        assert_eq!(exit_code(ExitStatus::from_raw(3 << 8)), 3);
        assert_eq!(exit_code(ExitStatus::from_raw(9)), 137);
        // With a core dump, and of a real-time signal.
        assert_eq!(exit_code(ExitStatus::from_raw(0x80 | 11)), 139);
        assert_eq!(exit_code(ExitStatus::from_raw(40)), 168);
    }
}
