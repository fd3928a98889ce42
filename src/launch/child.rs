//! [`Child`]: the handle of a started command.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use super::spawn;
use crate::sys::types::Pid;

/// A command that runs in its namespaces: an ordinary child of this process.
///
/// As with [`std::process::Child`], dropping the handle neither ends the command nor reaps it.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    first: bool,
    status: Option<ExitStatus>,
}

impl Child {
    /// Creates a handle. `first`: the launch created a pid namespace, in which the command is process 1.
    pub(super) const fn new(pid: Pid, first: bool) -> Self {
        Self { pid, first, status: None }
    }

    /// Returns whether the command is process 1 of a pid namespace of its own. The kernel discards every
    /// signal to process 1 that has no handler.
    pub(super) const fn is_process_1(&self) -> bool {
        self.first
    }

    /// The process id, in our pid namespace. It is not used again before this child has been waited for.
    #[must_use]
    pub const fn pid(&self) -> Pid {
        self.pid
    }

    /// Waits until the command has ended. Later calls return the same status again.
    ///
    /// # Errors
    /// `ECHILD`: this process ignores SIGCHLD, so the kernel reaps the command, and its status is lost
    /// (wait(2)).
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        loop {
            if let Some(status) = self.changed(0)? {
                return Ok(status);
            }
        }
    }

    /// Returns the status if the command has ended.
    ///
    /// # Errors
    /// The same as [`Self::wait`].
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.changed(libc::WNOHANG)
    }

    /// Sends SIGKILL to the command. In a pid namespace of its own, that ends all processes in it.
    ///
    /// # Errors
    /// The error of kill(2). After the command has been reaped, this sends nothing and succeeds.
    pub fn kill(&self) -> io::Result<()> {
        self.signal(libc::SIGKILL)
    }

    /// Sends a signal to every process of the command's process group. The command must be the leader of the
    /// group.
    pub(super) fn signal_group(&self, signal: i32) -> io::Result<()> {
        match self.status {
            Some(_) => Ok(()),
            None => spawn::kill(Pid(-self.pid.0), signal),
        }
    }

    /// Sends a signal to the command.
    ///
    /// # Errors
    /// The same as [`Self::kill`].
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        match self.status {
            // Another process may have this pid now.
            Some(_) => Ok(()),
            None => spawn::kill(self.pid, signal),
        }
    }

    /// Waits with options of waitpid(2). An end is remembered; a stop (WUNTRACED) and a continuation
    /// (WCONTINUED) are not.
    pub(super) fn changed(&mut self, options: i32) -> io::Result<Option<ExitStatus>> {
        if self.status.is_some() {
            return Ok(self.status);
        }
        let status = spawn::waitpid(self.pid, options)?;
        self.status = status.filter(|status| status.stopped_signal().is_none() && !status.continued());
        Ok(status)
    }
}

/// Returns the status that a shell would report: the command's own, or 128 plus the number of the signal that
/// ended it.
#[must_use]
pub fn exit_code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_code_of_a_signal_is_128_plus_its_number() {
        assert_eq!(exit_code(ExitStatus::from_raw(3 << 8)), 3);
        assert_eq!(exit_code(ExitStatus::from_raw(9)), 137);
        // With the flag of a core dump, and with a real-time signal.
        assert_eq!(exit_code(ExitStatus::from_raw(0x80 | 11)), 139);
        assert_eq!(exit_code(ExitStatus::from_raw(40)), 168);
    }
}
