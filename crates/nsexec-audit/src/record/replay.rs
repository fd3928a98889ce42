//! A recording, fed back: [`replay`] runs a function on recorded replies, without any kernel.

use std::boxed::Box;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::{Answer, Call, Line, Reply};

/// Where a function leaves the path of a recording.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Misfit {
    /// It made another call than the recorded one.
    Other {
        /// The place in the recording.
        line: usize,
        /// The recorded call.
        recorded: Call,
        /// The one that was made.
        made: Call,
    },
    /// The recorded reply is none that this call can have.
    NoReply {
        /// The place in the recording.
        line: usize,
    },
    /// It made one more call than were recorded.
    Beyond {
        /// The one that was made.
        made: Call,
    },
    /// It ended, or became another program, and calls were left.
    Before {
        /// The first of those that were left.
        line: usize,
    },
    /// An exec that succeeded: from there on it is another program.
    Exec,
}

/// The replies of a recording. It answers so long as the calls are the recorded ones, and then unwinds.
#[derive(Debug)]
pub struct Replay<'l> {
    lines: &'l [Line],
    /// How many replies have been handed out.
    cursor: usize,
}

/// The payload of that unwinding.
struct Stop(Misfit);

impl Answer for Replay<'_> {
    fn answer(&mut self, call: Call) -> Reply {
        let line = self.cursor;
        let misfit = match self.lines.get(line) {
            None => Misfit::Beyond { made: call },
            Some(Line { call: recorded, .. }) if *recorded != call => {
                Misfit::Other { line, recorded: recorded.clone(), made: call }
            }
            Some(Line { reply, .. }) if !call.admits(reply) => Misfit::NoReply { line },
            Some(Line { reply: Reply::NoReturn, .. }) if line + 1 < self.lines.len() => {
                Misfit::Before { line: line + 1 }
            }
            Some(Line { reply: Reply::NoReturn, .. }) => Misfit::Exec,
            Some(Line { reply, .. }) => {
                self.cursor += 1;
                return reply.clone();
            }
        };
        // Not a panic, which would call the hook and print.
        resume_unwind(Box::new(Stop(misfit)))
    }
}

/// Runs `main` on the replies of a recording alone. The lines are those of one process, and before them those of its
/// makers up to the clone that made it.
///
/// # Errors
/// Where it leaves the path of the recording.
pub fn replay<T>(lines: &[Line], main: impl FnOnce(&mut Replay<'_>) -> T) -> Result<T, Box<Misfit>> {
    let mut sys = Replay { lines, cursor: 0 };
    match catch_unwind(AssertUnwindSafe(|| main(&mut sys))) {
        Ok(_) if sys.cursor < lines.len() => Err(Box::new(Misfit::Before { line: sys.cursor })),
        Ok(end) => Ok(end),
        Err(payload) => match payload.downcast::<Stop>() {
            Ok(stop) => Err(Box::new(stop.0)),
            Err(payload) => resume_unwind(payload),
        },
    }
}
