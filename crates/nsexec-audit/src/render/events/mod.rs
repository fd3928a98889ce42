//! Merges the sections into one order of events, for the diagrams.
//!
//! Each section is a track of entries. A transfer is emitted when both its sender and its reader have reached
//! it. The end of a process is emitted when another process waits for it. So the order is one in which the
//! run can have happened.
//!
//! Bytes show which write belongs to which read: each direction of a channel is a stream. A write belongs to
//! the read that takes its first byte. If the reader was recorded but did not read a write, that write is
//! lost.

mod merge;
mod tracks;

use std::string::String;
use std::vec::Vec;

use super::{Document, Fate};
use crate::transcript::Role;
use nsexec::namespace::NsSet;

/// The class of a note.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Mark {
    /// A namespace is joined.
    Join,
    /// Namespaces are created.
    Create,
    /// The process begins in namespaces that its clone created, or enters one that it created.
    Enter,
    /// A change of the dumpable flag, which controls access to the process.
    Privacy,
    /// User, group, session.
    Identity,
    /// Id maps, setgroups policy, time offsets.
    Maps,
    /// Anything else that happens to a process.
    Setup,
    /// A refusal that the protocol expects.
    Refused,
    /// A failure.
    Failed,
}

/// A step of one process, in words.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Note {
    /// Its class.
    pub mark: Mark,
    /// The namespaces that it changes.
    pub kinds: NsSet,
    /// In words; a second line holds data.
    pub text: String,
}

/// The kind of pipe that a message travels on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PipeKind {
    /// The init pipe: the bootstrap message, the pid line, the go byte.
    Init,
    /// A sync pipe: a message between two stages.
    Sync,
}

/// The content of an event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum EventKind {
    /// A message is sent.
    Message {
        /// The sender.
        from: Role,
        /// The receiver.
        to: Role,
        /// The kind of pipe.
        pipe: PipeKind,
        /// In words.
        text: String,
        /// Whether no process has read it.
        lost: bool,
    },
    /// A process is created.
    Fork {
        /// The parent.
        parent: Role,
        /// The child.
        child: Role,
    },
    /// A step of one process.
    Step {
        /// The process.
        role: Role,
        /// The note.
        note: Note,
    },
    /// A process is killed.
    Kill {
        /// The sender of the signal.
        from: Role,
        /// The killed process.
        to: Role,
    },
    /// The end of a process, or of its record.
    End {
        /// The process.
        role: Role,
        /// In words.
        outcome: String,
        /// How it ended.
        fate: Fate,
        /// The process that waited for it.
        reaper: Option<Role>,
    },
}

/// An event, with the line that recorded it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// The content of the event.
    pub what: EventKind,
    /// The index of its section, and of its line in that section.
    pub source: Option<(usize, usize)>,
}

/// Returns all events, in an order in which they can have happened.
#[must_use]
pub fn events(document: &Document<'_>) -> Vec<Event> {
    merge::merge(tracks::tracks(document))
}
