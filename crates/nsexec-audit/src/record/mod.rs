//! The recorder: stores every call of a run as a line, in the order of the calls.
//!
//! [`Recorder`] wraps any backend and passes each finished [`Line`] to a [`Sink`]. A line is a [`Call`] with
//! its arguments and a [`Reply`]. Lines are shown in strace's dialect, which auditors can read and a witness
//! writes, and are stored in full as JSON. `tests/strace_dialect.rs` compares the two. Display prints what
//! `strace -s 4096 -a 1` (6.1) prints, with these exceptions:
//!
//! - an address that is unknown after the call is `0x…`: a buffer that a failed call did not fill, an
//!   environment, a buffer of directory entries;
//! - fstatfs shows only the type of a file system, `{f_type=NSFS_MAGIC, ...}`;
//! - newfstatat shows only the number of links of a file, `{st_nlink=3, ...}`, which strace leaves out;
//! - statfs shows only whether a file system is mounted read-only, `{f_flags=ST_RDONLY, ...}`;
//! - setsid shows 0, and not the number of the new session, which is the caller's pid;
//! - sched_getaffinity shows the first 64 CPUs, and 8 as their size;
//! - a core dump is not shown (`WCOREDUMP(s)`);
//! - the lines of a process that a clone created begin with that clone and the reply [`Reply::Child`], shown
//!   as `= 0`. strace shows the clone only in the parent and has no such line;
//! - on aarch64 a poll is a ppoll.
//!
//! An **exec** does not return if it succeeds. So its line is recorded before the call, with
//! [`Reply::NoReturn`], shown as `= 0`, as in strace. If the exec fails, the same call follows with its errno
//! and replaces the first line: [`Transcript::push`].
//!
//! A **close** of the log pipe lets the launcher continue, and the launcher then reads the record. So a sink
//! that processes share also receives the line of each close before the call: [`Sink::announce`].
//!
//! **Playback.** [`play_back`] returns recorded replies to the code that made the calls. The playback and the
//! simulated kernel receive calls as data: both implement [`Answer`].
//!
//! **Forks.** A fork copies a recorder in memory, so that each process continues with its own copy. For a
//! sink that all processes share there is another implementation of [`Sink`]: [`shared::SharedSink`].
//!
//! **Threads.** At a fork another thread of the program may hold the allocator's lock, and the child's copy
//! of the lock is never released. So the recorder and the shared sink neither allocate nor lock. The other
//! sinks here allocate, and need a program with one thread.

#[allow(clippy::panic, reason = "a reply of the wrong kind is a mistake of the backend that returned it")]
mod answer;
mod any;
mod borrowed;
#[cfg(test)]
mod borrowed_tests;
mod call;
mod environment;
mod kind;
pub(crate) mod leave;
mod playback;
mod recorder;
pub mod shared;
pub(crate) mod strace;
mod table;
#[cfg(test)]
mod tests;

use std::rc::Rc;
use std::string::String;
use std::vec::Vec;

use core::cell::RefCell;

use serde::{Deserialize, Serialize};

pub use answer::{Answer, Answered};
pub use any::AnySys;
pub use borrowed::{CallRef, LineRef, ListRef, ReplyRef, Requested, Strings, Text};
pub use call::{Bytes, Call, Reply};
pub(crate) use call::{hex_digits, unhex};
pub use environment::without_value;
pub use leave::by_errors;
pub use playback::{Mismatch, Playback, play_back};
pub use recorder::Recorder;
pub use strace::parse_line;

/// A call and its reply.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Line {
    /// The call with its arguments.
    pub call: Call,
    /// The kernel's reply.
    pub reply: Reply,
}

/// A receiver of recorded lines. The line borrows from the arguments of the call, and a sink that keeps it
/// copies it: [`LineRef::to_line`]. In a program with several threads a sink must neither allocate nor lock.
pub trait Sink {
    /// Records one line. The call has returned, or it is an exec that is about to be made.
    fn line(&mut self, line: &LineRef<'_>);

    /// Records the line of a call that closes descriptors, before the call. Returns whether the sink did so.
    /// The line has the reply of a successful call. If the call fails, [`line`](Self::line) follows with the
    /// same call and its errno, which replaces this line. Without an announcement `line` always follows.
    fn announce(&mut self, _line: &LineRef<'_>) -> bool {
        false
    }
}

impl Sink for Vec<Line> {
    fn line(&mut self, line: &LineRef<'_>) {
        self.push(line.to_line());
    }
}

impl<K: Sink + ?Sized> Sink for &mut K {
    fn line(&mut self, line: &LineRef<'_>) {
        (**self).line(line);
    }

    fn announce(&mut self, line: &LineRef<'_>) -> bool {
        (**self).announce(line)
    }
}

impl<K: Sink + ?Sized> Sink for Rc<RefCell<K>> {
    fn line(&mut self, line: &LineRef<'_>) {
        self.borrow_mut().line(line);
    }

    fn announce(&mut self, line: &LineRef<'_>) -> bool {
        self.borrow_mut().announce(line)
    }
}

impl Sink for Transcript {
    fn line(&mut self, line: &LineRef<'_>) {
        self.push(line.to_line());
    }
}

/// The lines of one process.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Transcript {
    /// The name of the process: `launcher`, `stage-0 parent`, `stage-1 child`, `stage-2 init`, `mapping
    /// tool`.
    pub section: String,
    /// Its calls, in order.
    pub lines: Vec<Line>,
}

/// The version of the JSON form. It increases with each change that an older reader would misunderstand.
pub const SCHEMA: u32 = 1;

/// The field that the first line has in every version.
#[derive(Deserialize)]
pub(crate) struct Version {
    pub(crate) schema: u32,
}

/// The first line of a transcript as JSON lines.
#[derive(Serialize, Deserialize)]
struct Header {
    schema: u32,
    section: String,
}

/// Adds a line to those of a process. The line of a failed exec replaces the line recorded before the exec.
pub fn push(lines: &mut Vec<Line>, line: Line) {
    if lines.last().is_some_and(|last| last.reply == Reply::NoReturn && last.call == line.call) {
        lines.pop();
    }
    lines.push(line);
}

impl Transcript {
    /// Returns a transcript without lines.
    #[must_use]
    pub fn new(section: &str) -> Self {
        Self { section: section.into(), lines: Vec::new() }
    }

    /// Adds a line as [`push`] does.
    pub fn push(&mut self, line: Line) {
        push(&mut self.lines, line);
    }

    /// Returns the transcript as JSON lines: a header with the schema and the section, then one line for each
    /// call.
    ///
    /// # Errors
    ///
    /// No error is known: the values are numbers, strings and lists.
    pub fn to_json_lines(&self) -> Result<String, serde_json::Error> {
        let mut text = serde_json::to_string(&Header { schema: SCHEMA, section: self.section.clone() })?;
        for line in &self.lines {
            text.push('\n');
            text.push_str(&serde_json::to_string(line)?);
        }
        text.push('\n');
        Ok(text)
    }

    /// Parses JSON lines.
    ///
    /// # Errors
    ///
    /// The text is not a transcript, or has another schema.
    pub fn from_json_lines(text: &str) -> Result<Self, serde_json::Error> {
        let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
        let Version { schema } = serde_json::from_str(first)?;
        if schema != SCHEMA {
            let why = std::format!(
                "the transcript has schema {schema}, but this program reads only schema {SCHEMA}"
            );
            return Err(serde::de::Error::custom(why));
        }
        let Header { section, .. } = serde_json::from_str(first)?;
        let lines = rest.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        Ok(Self { section, lines })
    }
}
