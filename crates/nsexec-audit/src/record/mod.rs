//! The recorder: every call of a run, in the order in which it was made, as a line.
//!
//! [`Recorder`] wraps any backend and hands each finished [`Line`] to a [`Sink`]. A line is a [`Call`] with its
//! arguments and a [`Reply`], shown in strace's dialect, since auditors read it already and a witness writes it, and
//! kept in full as JSON. `tests/strace_dialect.rs` compares the two. Display is what `strace -s 4096 -a 1` (6.1) prints, but for these:
//!
//! - an address that nobody knows afterwards is `0x…`: a buffer that a failed call did not fill, an environment, a
//!   buffer of directory entries;
//! - of a file system fstatfs shows the type alone, `{f_type=NSFS_MAGIC, ...}`;
//! - of a file's status newfstatat shows the number of links alone, `{st_nlink=3, ...}`, which strace leaves out;
//! - of a file system statfs shows alone whether it is mounted read-only, `{f_flags=ST_RDONLY, ...}`;
//! - setsid shows 0, and not the number of the new session, which is the caller's pid;
//! - sched_getaffinity shows the first 64 CPUs, and 8 for their size;
//! - a core dump is not shown (`WCOREDUMP(s)`);
//! - a process that a clone made begins with that clone and the reply [`Reply::Child`], shown as `= 0`. strace, which
//!   sees the child come into being in the parent, has no such line;
//! - on aarch64 a poll is a ppoll.
//!
//! An **exec** does not come back if it succeeds, so its line is handed over before, with [`Reply::NoReturn`], shown as
//! `= 0`, as strace does. If it comes back after all, the same call follows with its errno, and takes the place of the
//! first: [`Transcript::push`].
//!
//! **Back again.** [`replay()`] hands recorded replies out to the code that made the calls. It and the simulated kernel
//! take calls as data: both are an [`Answer`].
//!
//! **Forks.** A recorder in memory is copied with everything else, so that each process goes on with its own copy. A
//! sink that all processes share is another implementation of [`Sink`]: [`shared::SharedSink`]. Recording allocates, also in the child of a clone: do it in a program with one thread.

#[allow(clippy::panic, reason = "a reply of the wrong kind is a mistake of the backend that gave it")]
mod answer;
mod call;
mod environment;
mod names;
mod recorder;
mod replay;
pub mod shared;
mod strace;
#[cfg(test)]
mod tests;

use std::rc::Rc;
use std::string::String;
use std::vec::Vec;

use core::cell::RefCell;

use serde::{Deserialize, Serialize};

pub use answer::{Answer, Answered};
pub use call::{Bytes, Call, Reply};
pub use environment::without_value;
pub(crate) use names::{POLL_FLAGS, SA_FLAGS, SEALS};
pub use recorder::Recorder;
pub use replay::{Misfit, Replay, replay};

/// One call and what it came back with.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Line {
    /// What was asked of the kernel.
    pub call: Call,
    /// What the kernel replied.
    pub reply: Reply,
}

/// Who takes the lines.
pub trait Sink {
    /// Takes one line: the call is over, or is an exec that is about to happen.
    fn line(&mut self, line: &Line);
}

impl Sink for Vec<Line> {
    fn line(&mut self, line: &Line) {
        self.push(line.clone());
    }
}

impl<K: Sink + ?Sized> Sink for &mut K {
    fn line(&mut self, line: &Line) {
        (**self).line(line);
    }
}

impl<K: Sink + ?Sized> Sink for Rc<RefCell<K>> {
    fn line(&mut self, line: &Line) {
        self.borrow_mut().line(line);
    }
}

impl Sink for Transcript {
    fn line(&mut self, line: &Line) {
        self.push(line.clone());
    }
}

/// The lines of one process.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Transcript {
    /// Which process: `launcher`, `stage-0 parent`, `stage-1 child`, `stage-2 init`, `mapping tool`.
    pub section: String,
    /// Its calls, in order.
    pub lines: Vec<Line>,
}

/// The version of the JSON form. Goes up with each change that an older reader would misunderstand.
pub const SCHEMA: u32 = 1;

/// What the first line of every version has.
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

/// Adds a line to those of a process. A failed exec takes the place of its announcement.
pub fn push(lines: &mut Vec<Line>, line: Line) {
    if lines.last().is_some_and(|last| last.reply == Reply::NoReturn && last.call == line.call) {
        lines.pop();
    }
    lines.push(line);
}

impl Transcript {
    /// No line yet.
    #[must_use]
    pub fn new(section: &str) -> Self {
        Self { section: section.into(), lines: Vec::new() }
    }

    /// Adds a line, as [`push`].
    pub fn push(&mut self, line: Line) {
        push(&mut self.lines, line);
    }

    /// As JSON lines: a header with the schema and the section, then one line for each call.
    ///
    /// # Errors
    ///
    /// None is known: what is shown are numbers, strings and lists.
    pub fn to_json_lines(&self) -> Result<String, serde_json::Error> {
        let mut text = serde_json::to_string(&Header { schema: SCHEMA, section: self.section.clone() })?;
        for line in &self.lines {
            text.push('\n');
            text.push_str(&serde_json::to_string(line)?);
        }
        text.push('\n');
        Ok(text)
    }

    /// From JSON lines.
    ///
    /// # Errors
    ///
    /// The text is not a transcript, or one of another schema.
    pub fn from_json_lines(text: &str) -> Result<Self, serde_json::Error> {
        let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
        let Version { schema } = serde_json::from_str(first)?;
        if schema != SCHEMA {
            let why = std::format!("schema {schema} of a transcript; this program reads {SCHEMA}");
            return Err(serde::de::Error::custom(why));
        }
        let Header { section, .. } = serde_json::from_str(first)?;
        let lines = rest.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        Ok(Self { section, lines })
    }
}
