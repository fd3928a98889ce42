//! The pipes between the launcher and the processes of a launch, and the reader of the log pipe.

use core::fmt;

use super::outcome::{FailureKind, Step, os};
use crate::sys::Sys;
use crate::sys::types::{Errno, Fd, Pid, SysResult};
use crate::words::error::Error;
use crate::words::log::{Details, Level, RECORD_MAX, Writer, layout};

/// Receives the bytes that the launcher reads from the log pipe.
pub trait LogReader {
    /// Receives the next bytes, in pieces of any length.
    fn take(&mut self, bytes: &[u8]);
    /// Returns whether a fatal record has arrived.
    fn fatal(&self) -> bool;
    /// Called before the launcher creates its pipes. Waits until no other launch of this process is between
    /// here and [`end_turn`](Self::end_turn).
    ///
    /// # Errors
    /// [`FailureKind::Interrupted`] or [`FailureKind::TimedOut`].
    fn wait_for_turn(&mut self) -> Result<(), FailureKind> {
        Ok(())
    }
    /// Called once the launcher has closed the new process's ends of the pipes. From then on other launches
    /// of this process may fork.
    fn end_turn(&mut self) {}
    /// Called before the launcher sends the go byte, with the pid of the process that becomes the command.
    /// That process exists in its namespaces, and waits.
    ///
    /// # Errors
    /// [`FailureKind::BeforeStart`]: the launch is given up.
    fn before_start(&mut self, _pid: Pid) -> Result<(), FailureKind> {
        Ok(())
    }
    /// Makes the launcher not dumpable, before it creates a process that shares its memory and that others may
    /// trace ([`Memory::SharedNotDumpable`](super::shape::Memory::SharedNotDumpable)).
    ///
    /// # Errors
    /// Those of [`set_dumpable`](Sys::set_dumpable). The process then gets a copy of the memory.
    fn hide<S: Sys>(&mut self, sys: &mut S) -> SysResult<()> {
        sys.set_dumpable(false)
    }
    /// Called once that process has left the memory. Makes the launcher dumpable again, unless another launch
    /// of this process needs the opposite.
    fn unhide<S: Sys>(&mut self, sys: &mut S) {
        // Only a filter makes this fail. The launcher then stays not dumpable.
        let _ = sys.set_dumpable(true);
    }
    /// Called before this process executes the command itself, in a start in place. All records have arrived.
    fn before_exec(&mut self) {}
}

/// The two pipes: the launcher's ends, and the ends of the stages or of the process of a direct start.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pipes {
    pub(super) init: Fd,
    pub(super) stage_init: Fd,
    pub(super) log: Fd,
    pub(super) stage_log: Fd,
}

impl Pipes {
    /// Closes all four ends.
    pub(super) fn close_all<S: Sys>(self, sys: &mut S) {
        for fd in [self.stage_init, self.stage_log, self.init, self.log] {
            close(sys, fd);
        }
    }
}

#[cfg(test)]
impl Pipes {
    /// Returns pipes with these ends of the launcher.
    pub(super) fn of_launcher(init: Fd, log: Fd) -> Self {
        Self { init, log, stage_init: Fd(-1), stage_log: Fd(-1) }
    }
}

/// Reads the log once. Returns false at the end of the log.
pub(super) fn read_some<S: Sys, L: LogReader>(sys: &mut S, fd: Fd, log: &mut L) -> bool {
    let mut buffer = [0; RECORD_MAX];
    match sys.read(fd, &mut buffer) {
        Ok(0) => false,
        Ok(count) => {
            log.take(buffer.get(..count).unwrap_or_default());
            true
        }
        Err(Errno::EINTR) => true,
        // A read error of our own pipe is treated as the end of the log.
        Err(_) => false,
    }
}

/// Reads a part of what the first process of a launch sends: the pid line, or the pid of stage 2. Returns the
/// number of bytes, 0 after an interruption.
///
/// # Errors
/// [`FailureKind::NoPidLine`]: all processes that held the other end have ended. [`FailureKind::Os`] with
/// [`Step::ReadPidLine`].
pub(super) fn read_answer<S: Sys>(sys: &mut S, init: Fd, buffer: &mut [u8]) -> Result<usize, FailureKind> {
    match sys.read(init, buffer) {
        // ECONNRESET: the processes had not read all bytes.
        Ok(0) | Err(Errno::ECONNRESET) => Err(FailureKind::NoPidLine),
        Err(Errno::EINTR) => Ok(0),
        read => read.map_err(os(Step::ReadPidLine)),
    }
}

pub(super) fn close<S: Sys>(sys: &mut S, fd: Fd) {
    // close(2) frees the number even if it returns an error.
    let _ = sys.close(fd);
}

/// Passes a record of the launcher to the log reader in memory, not through the log pipe. `stage` is the
/// stage whose work it does.
pub(super) fn add_record<S: Sys, L: LogReader>(
    sys: &mut S,
    log: &mut L,
    stage: u8,
    level: Level,
    text: fmt::Arguments<'_>,
    details: Option<Details>,
) {
    let mut buffer = [0; RECORD_MAX];
    let writer = (Writer::Stage(stage), sys.getpid());
    let len = layout(&mut buffer, level, writer, text, details);
    log.take(buffer.get(..len).unwrap_or_default());
}

/// Adds an error of the launcher to the records, as a record of the stage whose work it does.
pub(super) fn add_error<S: Sys, L: LogReader>(sys: &mut S, log: &mut L, stage: u8, error: &Error<'_>) {
    let details = Details { code: error.code(), errno: error.errno() };
    add_record(sys, log, stage, Level::Fatal, format_args!("{error}"), Some(details));
}
