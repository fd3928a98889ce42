//! The seed: its pid line, which stage 0 sends last, and the failures that its stages report to stage 0.

use core::fmt::Write;

use super::errors::Failure;
use crate::deciders::bootstrap::Dialect;
use crate::deciders::bootstrap::dialect::PidLine;
use crate::scripts::pipe::send_all;
use crate::scripts::stage::Context;
use crate::scripts::stage::parent::send_pid_line;
use crate::scripts::sync::SyncMessage;
use crate::sys::Sys;
use crate::sys::types::{Fd, Pid};
use crate::words::error::Error;
use crate::words::json::{Line, PID_LINE_MAX};
use crate::words::log::Log;

/// Sends the pid line in the dialects that send it last.
///
/// Runs in stage 0, after stages 1 and 2 have completed.
///
/// # Errors
/// [`Doing::PidLine`](crate::error::Doing::PidLine).
pub fn forward_pids<'m, S: Sys>(
    sys: &mut S,
    log: &mut Log,
    cx: Context<'_, 'm>,
    stage_1: Pid,
    stage_2: Pid,
) -> Result<(), Error<'m>> {
    if cx.policy.dialect.pid_line != PidLine::PidAndFirst {
        return Ok(());
    }
    let mut buffer = [0; PID_LINE_MAX];
    let len = pid_line(&mut buffer, stage_1, stage_2);
    send_pid_line(sys, log, cx, (stage_1, stage_2), buffer.get(..len).unwrap_or_default())
}

/// Formats the pid line. Returns its length.
#[must_use]
pub fn pid_line(buffer: &mut [u8; PID_LINE_MAX], stage_1: Pid, stage_2: Pid) -> usize {
    let mut line = Line::new(buffer);
    // Two i32 and 27 bytes around them always fit.
    let _ = writeln!(line, "{{\"pid\": {stage_2}, \"pid_first\": {stage_1}}}");
    line.len()
}

impl Log {
    /// Sets the sync pipe over which a failure of this process is also reported to stage 0, in a dialect that
    /// does so. `None`: it is not reported.
    pub const fn set_failure_pipe(&mut self, dialect: &Dialect, sync: Option<Fd>) {
        self.failure_pipe = if dialect.legacy.failure_over_sync { sync } else { None };
    }

    /// Reports the failure to stage 0, if [`Self::set_failure_pipe`] has set a sync pipe. Called after the
    /// fatal record, because stage 0 then kills the remaining stages.
    pub fn report_failure<S: Sys>(&self, sys: &mut S, status: u32) {
        let Some(fd) = self.failure_pipe else { return };
        for word in [SyncMessage::Failed.value(), status] {
            // If stage 0 is dead, the report is not needed.
            let _ = send_all(sys, fd, &word.to_ne_bytes());
        }
    }
}

/// Returns the exit status of this stage if another stage has reported the cause of `error`. Status 0 would
/// hide the failure.
#[must_use]
pub fn status_reported(error: &Error<'_>) -> Option<i32> {
    match error {
        Error::Legacy(Failure::Reported { status }) => {
            Some(i32::try_from((*status).clamp(1, 255)).unwrap_or(1))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pid_line_of_the_seed_names_stage_2_first() {
        let mut buffer = [0; PID_LINE_MAX];
        let len = pid_line(&mut buffer, Pid(1), Pid(2));
        assert_eq!(&buffer[..len], b"{\"pid\": 2, \"pid_first\": 1}\n");
    }
}
