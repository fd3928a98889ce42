//! [`Child`]: the handle of a started command. Not part of the bootstrap: its calls are in no record.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{ChildStderr, ChildStdin, ChildStdout, ExitStatus, Output};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use std::vec::Vec;

use super::query::{namespace_of, open_pidfd, parent_in_proc, pid_in_proc};
use crate::deciders::namespace::NsKind;
use crate::sys::Sys;
use crate::sys::linux::LinuxSys;
use crate::sys::types::{Errno, Fd, Pid, PollEvents, PollFd, Signal};

/// A command that runs in its namespaces: an ordinary child of this process.
///
/// As with [`std::process::Child`], dropping the handle neither ends the command nor reaps it, unless
/// [`Command::kill_on_drop`](super::Command::kill_on_drop) asks for both.
#[derive(Debug)]
pub struct Child {
    /// The writing end of the command's standard input, if it is [piped](super::Stdio::piped).
    pub stdin: Option<ChildStdin>,
    /// The reading end of the command's standard output, if it is piped.
    pub stdout: Option<ChildStdout>,
    /// The reading end of the command's standard error, if it is piped.
    pub stderr: Option<ChildStderr>,
    pid: Pid,
    first: bool,
    status: Option<ExitStatus>,
    /// Whether a wait has found that the command is reaped already. Its pid may belong to another process
    /// now.
    lost: bool,
    pidfd: OnceLock<OwnedFd>,
    kill_on_drop: bool,
}

impl Child {
    /// Creates a handle. `first`: the launch created a pid namespace, in which the command is process 1.
    pub(super) const fn new(pid: Pid, first: bool) -> Self {
        Self {
            stdin: None,
            stdout: None,
            stderr: None,
            pid,
            first,
            status: None,
            lost: false,
            pidfd: OnceLock::new(),
            kill_on_drop: false,
        }
    }

    /// Opens the pidfd, so that each signal goes to this command even if another part of the program reaps
    /// it. Without one (Linux before 5.3, no free descriptor) signals are sent by the pid.
    pub(super) fn identify(&self) {
        let _ = self.pidfd();
    }

    /// Sets whether the command is killed and reaped when the handle is dropped.
    pub(super) const fn kill_on_drop(&mut self, kill: bool) {
        self.kill_on_drop = kill;
    }

    /// Returns whether the command is killed and reaped when the handle is dropped.
    #[cfg(feature = "tokio")]
    pub(super) const fn kills_on_drop(&self) -> bool {
        self.kill_on_drop
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

    /// The process id as a number, as [`std::process::Child::id`] returns it.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.pid.0.unsigned_abs()
    }

    /// Returns the pidfd of the command (pidfd_open(2), Linux 5.3). [`Command`](super::Command) opens it with
    /// the launch, a [`Launcher`](super::Launcher) at the first call.
    ///
    /// It is readable when the command has ended, and identifies the command even after it has been reaped.
    ///
    /// # Errors
    /// `ENOSYS`: an older kernel. `ESRCH`: the command was reaped before the first call. `EMFILE`: no
    /// descriptor is free.
    pub fn pidfd(&self) -> io::Result<BorrowedFd<'_>> {
        if let Some(pidfd) = self.pidfd.get() {
            return Ok(pidfd.as_fd());
        }
        if self.status.is_some() || self.lost {
            return Err(gone());
        }
        let opened = open_pidfd(self.pid.0)?;
        Ok(self.pidfd.get_or_init(|| opened).as_fd())
    }

    /// Opens a namespace of the command: `/proc/PID/ns/KIND`, namespaces(7).
    ///
    /// # Errors
    /// `ENOENT`: the command has ended, or the kernel does not have the kind. `EACCES`: the command has other
    /// privileges, and this process may not trace it (ptrace(2), "Ptrace access mode checking"). `ESRCH`: the
    /// command has been reaped, or /proc does not show it.
    pub fn namespace(&self, kind: NsKind) -> io::Result<OwnedFd> {
        let Some(pidfd) = self.pidfd.get() else {
            let ended = self.lost || self.status.is_some();
            return if ended { Err(gone()) } else { namespace_of(self.pid.0, kind) };
        };
        // Its number in /proc before and after: only then the file is that of this command.
        let number = || pid_in_proc(pidfd).ok().filter(|number| *number > 0);
        let before = number().ok_or_else(gone)?;
        let opened = namespace_of(before, kind)?;
        if number() == Some(before) { Ok(opened) } else { Err(gone()) }
    }

    /// Returns a handle for signals to a child of the command. `pid` is its pid in our pid namespace. `None`:
    /// the command has no such child, /proc does not show it, or the kernel has no pidfds.
    #[doc(hidden)]
    #[must_use]
    pub fn child(&self, pid: Pid) -> Option<Self> {
        let number = |child: &Self| {
            child.identify();
            pid_in_proc(child.pidfd.get()?).ok().filter(|number| *number > 0)
        };
        let child = Self::new(pid, false);
        let parent = parent_in_proc(number(&child)?)?;
        (number(self)? == parent).then_some(child)
    }

    /// Waits until the command has ended. Later calls return the same status again. Closes
    /// [`stdin`](Self::stdin) first, so that a command that reads it to its end can end.
    ///
    /// # Errors
    /// `ECHILD`: the command has ended, and its status is lost: this process ignores SIGCHLD, so the kernel
    /// reaps the command (wait(2)), or another part of the program has reaped it. Later calls return the same
    /// error.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        drop(self.stdin.take());
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

    /// Waits until the command has ended, at most for this time. Returns `None` if it still runs. Closes
    /// [`stdin`](Self::stdin) first, as [`wait`](Self::wait) does.
    ///
    /// # Errors
    /// Those of [`wait`](Self::wait) and [`pidfd`](Self::pidfd).
    pub fn wait_timeout(&mut self, limit: Duration) -> io::Result<Option<ExitStatus>> {
        drop(self.stdin.take());
        // The clock cannot represent an end that is so far away: wait without a limit.
        let Some(end) = Instant::now().checked_add(limit) else { return self.wait().map(Some) };
        loop {
            if let Some(status) = self.try_wait()? {
                return Ok(Some(status));
            }
            let rest = end.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                return Ok(None);
            }
            let pidfd = Fd(self.pidfd()?.as_raw_fd());
            // Rounded up, so that the loop does not end before the limit.
            let rest = i32::try_from(rest.as_millis()).unwrap_or(i32::MAX).saturating_add(1);
            poll(&mut [PollFd::new(pidfd, PollEvents::IN)], rest)?;
        }
    }

    /// Reads standard output and standard error to their ends, as far as they are piped, and waits for the
    /// command.
    ///
    /// # Errors
    /// The error of a read, or those of [`wait`](Self::wait). The command is waited for in any case.
    pub fn wait_with_output(mut self) -> io::Result<Output> {
        drop(self.stdin.take());
        // A failed read closes both pipes, so the command is not blocked by them.
        let read = read_both(self.stdout.take(), self.stderr.take());
        let status = self.wait();
        let (stdout, stderr) = read?;
        Ok(Output { status: status?, stdout, stderr })
    }

    /// Sends SIGKILL to the command. In a pid namespace of its own, that ends all processes in it.
    ///
    /// # Errors
    /// The same as [`signal`](Self::signal).
    pub fn kill(&self) -> io::Result<()> {
        self.signal(libc::SIGKILL)
    }

    /// Sends a signal to every process of the command's process group. The command must be the leader of the
    /// group.
    pub(super) fn signal_group(&self, signal: i32) -> io::Result<()> {
        match self.status {
            Some(_) => Ok(()),
            None if self.lost => Err(gone()),
            None => kill(Pid(-self.pid.0), signal),
        }
    }

    /// Sends a signal to the command: through its pidfd (pidfd_send_signal(2)) if that is open, otherwise by
    /// its pid (kill(2)). After the command has been waited for, this sends nothing and succeeds.
    ///
    /// # Errors
    /// `EPERM`: the command has other ids, and this process has no CAP_KILL. `ESRCH`: another part of the
    /// program has reaped the command. `EINVAL`: an unknown signal.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        match (self.status, self.pidfd.get()) {
            // Another process may have this pid now.
            (Some(_), _) => Ok(()),
            (None, Some(pidfd)) => match send_signal(pidfd, signal) {
                // A seccomp filter may know kill(2) alone.
                Err(error) if error.raw_os_error() == Some(libc::ENOSYS) && !self.lost => {
                    kill(self.pid, signal)
                }
                sent => sent,
            },
            (None, None) if self.lost => Err(gone()),
            (None, None) => kill(self.pid, signal),
        }
    }

    /// Waits with options of waitpid(2). An end is remembered; a stop (WUNTRACED) and a continuation
    /// (WCONTINUED) are not.
    pub(super) fn changed(&mut self, options: i32) -> io::Result<Option<ExitStatus>> {
        if self.status.is_some() {
            return Ok(self.status);
        }
        if self.lost {
            return Err(io::Error::from_raw_os_error(libc::ECHILD));
        }
        let status = waitpid(self.pid, options)
            .inspect_err(|error| self.lost |= error.raw_os_error() == Some(libc::ECHILD))?;
        self.status = status.filter(|status| status.stopped_signal().is_none() && !status.continued());
        Ok(status)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.kill_on_drop && self.status.is_none() {
            // Without the kill the command may run for ever. Reaped if it has ended: a wait fails if another
            // part of this program has reaped it, or SIGCHLD is ignored.
            let _ = match self.kill() {
                Ok(()) => self.wait().map(Some),
                Err(_) => self.try_wait(),
            };
        }
    }
}

/// Returns the status that a shell would report: the command's own, or 128 plus the number of the signal that
/// ended it.
#[must_use]
pub fn exit_code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}

/// Reads two pipes to their ends at the same time: the command may fill one while the other is read.
fn read_both(one: Option<ChildStdout>, other: Option<ChildStderr>) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let mut pipes = [one.map(OwnedFd::from), other.map(OwnedFd::from)].map(|fd| fd.map(File::from));
    let mut texts = [Vec::new(), Vec::new()];
    let mut buffer = std::vec![0; 0x1_0000];
    while pipes.iter().any(Option::is_some) {
        // The kernel skips a negative descriptor.
        let request = |pipe: &Option<File>| pipe.as_ref().map_or(Fd(-1), |pipe| Fd(pipe.as_raw_fd()));
        let mut requests = pipes.each_ref().map(|pipe| PollFd::new(request(pipe), PollEvents::IN));
        poll(&mut requests, -1)?;
        for ((request, pipe), text) in requests.iter().zip(&mut pipes).zip(&mut texts) {
            let Some(file) = pipe.as_mut().filter(|_| request.revents != PollEvents::NONE) else { continue };
            match file.read(&mut buffer) {
                Ok(0) => *pipe = None,
                Ok(count) => text.extend(buffer.iter().take(count)),
                // The pipe may be set to O_NONBLOCK by another process that has it.
                Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
                Err(error) => return Err(error),
            }
        }
    }
    let [one, other] = texts;
    Ok((one, other))
}

/// Waits until a descriptor is ready, the timeout expires, or a signal arrives.
pub(super) fn poll(fds: &mut [PollFd], timeout_ms: i32) -> io::Result<()> {
    // SAFETY: one call, which changes only its argument.
    match unsafe { LinuxSys::new() }.poll(fds, timeout_ms) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(io::Error::from_raw_os_error(errno.0)),
    }
}

fn waitpid(pid: Pid, options: i32) -> io::Result<Option<ExitStatus>> {
    let mut status = 0;
    loop {
        // SAFETY: the kernel writes one int to `status`.
        match unsafe { libc::waitpid(pid.0, &raw mut status, options | libc::__WALL) } {
            0 => return Ok(None),
            -1 => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
            _ => return Ok(Some(ExitStatus::from_raw(status))),
        }
    }
}

/// Sends a signal to a process, or to a process group if the number is negative (kill(2)).
fn kill(pid: Pid, signal: i32) -> io::Result<()> {
    // SAFETY: one call, whose arguments are numbers.
    let mut sys = unsafe { LinuxSys::new() };
    sys.kill(pid, Signal(signal)).map_err(|errno| io::Error::from_raw_os_error(errno.0))
}

/// Sends a signal to the process of a pidfd (pidfd_send_signal(2), Linux 5.1).
fn send_signal(pidfd: &OwnedFd, signal: i32) -> io::Result<()> {
    // SAFETY: one call, whose arguments are numbers.
    let mut sys = unsafe { LinuxSys::new() };
    let sent = sys.pidfd_send_signal(Fd(pidfd.as_raw_fd()), Signal(signal));
    sent.map_err(|errno| io::Error::from_raw_os_error(errno.0))
}

/// The error for a command that another part of the program has reaped.
fn gone() -> io::Error {
    io::Error::from_raw_os_error(Errno::ESRCH.0)
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::string::ToString as _;

    use super::*;

    /// A pid may belong to another process as soon as the command is reaped. The pidfd does not.
    #[test]
    fn process_with_the_pid_of_a_reaped_command_gets_no_signal() {
        let mut reaped = Command::new("true").spawn().unwrap();
        let pidfd = open_pidfd(reaped.id().try_into().unwrap()).unwrap();
        reaped.wait().unwrap();
        let mut other = Command::new("sleep").arg("600").spawn().unwrap();
        let mut child = Child::new(Pid(other.id().try_into().unwrap()), false);
        child.pidfd.set(pidfd).unwrap();
        let failed = |result: io::Result<()>| result.unwrap_err().raw_os_error();
        assert_eq!(failed(child.kill()), Some(libc::ESRCH));
        assert_eq!(failed(child.namespace(NsKind::Net).map(drop)), Some(libc::ESRCH));
        child.pidfd = OnceLock::new();
        child.lost = true;
        assert_eq!(failed(child.kill()), Some(libc::ESRCH));
        assert_eq!(failed(child.signal_group(libc::SIGKILL)), Some(libc::ESRCH));
        assert_eq!(failed(child.pidfd().map(drop)), Some(libc::ESRCH));
        assert_eq!(failed(child.wait().map(drop)), Some(libc::ECHILD));
        let text = super::super::LaunchError::waiting(&child.wait().unwrap_err()).to_string();
        assert!(text.contains("another part of the program has reaped it"), "{text}");
        assert_eq!(other.try_wait().unwrap(), None);
        other.kill().unwrap();
        other.wait().unwrap();
    }
}
