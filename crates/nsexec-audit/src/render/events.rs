//! The sections, woven into one order for the diagrams.
//!
//! Each section is a lane of acts. A transfer is drawn when its sender and its reader have both come to it, an end
//! when somebody waits for it, so that the order is one in which the run can have happened. Which write is read by
//! which read follows from the bytes: each direction of a channel is a stream, in which a write and the read that
//! takes its first byte belong together. A write that nobody reads although its reader was recorded is lost.

mod lanes;
mod weave;

use std::string::String;
use std::vec::Vec;

use super::{Document, Fate, Role};
use nsexec::namespace::NsSet;

/// What kind of step a note is about.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Mark {
    /// A namespace is joined.
    Join,
    /// Namespaces are created.
    Create,
    /// Who may look into a process.
    Privacy,
    /// User, group, session.
    Identity,
    /// Id maps, setgroups policy, time offsets.
    Maps,
    /// Anything else that happens to a process.
    Setup,
    /// A refusal that is part of the protocol.
    Refused,
    /// A failure.
    Failed,
}

/// Something that one process does, in words.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Note {
    /// What kind of step.
    pub mark: Mark,
    /// Which namespaces it changes.
    pub kinds: NsSet,
    /// In words; a second line holds data.
    pub text: String,
}

/// What travels between two processes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Carried {
    /// The bootstrap message, the pid line, the word to go: on the init pipe.
    Init,
    /// A message between two stages.
    Sync,
}

/// What happens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum What {
    /// Something travels.
    Message {
        /// From whom.
        from: Role,
        /// To whom.
        to: Role,
        /// By which way.
        carried: Carried,
        /// In words.
        text: String,
        /// Nobody has read it.
        lost: bool,
    },
    /// A process is made.
    Fork {
        /// By whom.
        parent: Role,
        /// Which.
        child: Role,
    },
    /// A step of one process.
    Step {
        /// Whose.
        role: Role,
        /// What it does.
        note: Note,
    },
    /// A process is killed.
    Kill {
        /// By whom.
        from: Role,
        /// Who.
        to: Role,
    },
    /// The last that is known of a process.
    End {
        /// Whose.
        role: Role,
        /// In words.
        outcome: String,
        /// What became of it.
        fate: Fate,
        /// Who waited for it.
        reaper: Option<Role>,
    },
}

/// What happens, and the line that says so.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// What.
    pub what: What,
    /// The index of a section and of a line in it.
    pub source: Option<(usize, usize)>,
}

/// All that happens, in an order in which it can have happened.
#[must_use]
pub fn events(document: &Document<'_>) -> Vec<Event> {
    weave::weave(lanes::lanes(document))
}
