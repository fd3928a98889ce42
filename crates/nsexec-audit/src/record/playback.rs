//! Playing back a recording: [`play_back`] runs a function on recorded replies, without a kernel.

use std::boxed::Box;
use std::vec::Vec;

use nsexec::sys::types::PollFd;

use super::leave::{self, Leaving};
use super::{Answer, Call, Line, Reply};

/// The first difference between a function's calls and a recording.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Mismatch {
    /// The function made another call than the recorded one.
    Other {
        /// The index of the recorded line.
        line: usize,
        /// The recorded call.
        recorded: Call,
        /// The call that the function made.
        made: Call,
    },
    /// The call does not admit the recorded reply.
    InvalidReply {
        /// The index of the recorded line.
        line: usize,
    },
    /// The function made one more call than were recorded.
    ExtraCall {
        /// The call that the function made.
        made: Call,
    },
    /// The function returned, or executed another program, although recorded lines remain.
    EndedEarly {
        /// The index of the first remaining line.
        line: usize,
    },
    /// An exec succeeded: all later calls belong to another program.
    Exec,
}

/// The replies of a recording. Returns them while the function's calls are the recorded ones. Then it leaves
/// the function.
#[derive(Debug)]
pub struct Playback<'l> {
    lines: &'l [Line],
    /// The number of replies that have been returned.
    cursor: usize,
    mismatch: Option<(Box<Mismatch>, Leaving)>,
}

impl Answer for Playback<'_> {
    fn answer(&mut self, call: Call) -> Reply {
        let name = call.name();
        if let Some((_, leaving)) = &mut self.mismatch {
            return leaving.reply(name);
        }
        let line = self.cursor;
        let reordered = self.lines.get(line).and_then(|line| reordered_poll(line, &call));
        let mismatch = match reordered.as_ref().or(self.lines.get(line)) {
            None => Mismatch::ExtraCall { made: call },
            Some(Line { call: recorded, .. }) if *recorded != call => {
                Mismatch::Other { line, recorded: recorded.clone(), made: call }
            }
            Some(Line { reply, .. }) if !call.admits(reply) => Mismatch::InvalidReply { line },
            Some(Line { reply: Reply::NoReturn, .. }) if line + 1 < self.lines.len() => {
                Mismatch::EndedEarly { line: line + 1 }
            }
            Some(Line { reply: Reply::NoReturn, .. }) => Mismatch::Exec,
            Some(Line { reply, .. }) => {
                self.cursor += 1;
                return reply.clone();
            }
        };
        let (_, leaving) = self.mismatch.insert((Box::new(mismatch), Leaving::default()));
        leaving.reply(name)
    }
}

/// Returns a recorded poll with its descriptors in the order of the call, if only their order differs: older
/// launchers and stages had another. The order decides which of two events a poll can miss, and has no
/// effect. The reply must be one that the recorded call admits.
fn reordered_poll(line: &Line, call: &Call) -> Option<Line> {
    let (Call::Poll { fds: recorded, timeout_ms }, Reply::Polled { count, fds }) = (&line.call, &line.reply)
    else {
        return None;
    };
    let Call::Poll { fds: made, .. } = call else { return None };
    if line.call == *call || !line.call.admits(&line.reply) {
        return None;
    }
    let in_order = |fds: &[PollFd]| -> Option<Vec<PollFd>> {
        made.iter().map(|made| fds.iter().find(|fd| fd.fd == made.fd).copied()).collect()
    };
    let reordered = Call::Poll { fds: in_order(recorded)?, timeout_ms: *timeout_ms };
    let reply = Reply::Polled { count: *count, fds: in_order(fds)? };
    let is_whole = recorded.iter().all(|fd| made.contains(fd));
    (is_whole && reordered == *call).then_some(Line { call: reordered, reply })
}

/// Runs `main` on the replies of a recording alone. The lines are those of one process. They are preceded by
/// those of its ancestors, up to the clone that created the process.
///
/// # Errors
/// The first difference between the calls of `main` and the recording.
pub fn play_back<T>(lines: &[Line], main: impl FnOnce(&mut Playback<'_>) -> T) -> Result<T, Box<Mismatch>> {
    let mut sys = Playback { lines, cursor: 0, mismatch: None };
    let end = leave::caught(|| main(&mut sys));
    match (sys.mismatch, end) {
        (Some((mismatch, _)), _) => Err(mismatch),
        (None, Some(end)) if sys.cursor == lines.len() => Ok(end),
        (None, _) => Err(Box::new(Mismatch::EndedEarly { line: sys.cursor })),
    }
}
