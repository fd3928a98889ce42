//! What a reader sees of a plan, or of a run: text, a mermaid diagram, a picture.
//!
//! All three are pure functions of a [`Document`], which borrows from whoever has the lines.
//!
//! | read | for |
//! |---|---|
//! | [`walk`] | line by line, what each descriptor is and what each message says |
//! | [`why`] | the reason for a step, in words |
//! | [`events`] | the sections woven into one order, for the diagrams |
//! | [`text`], [`mermaid`], [`svg`] | the three forms |

pub mod events;
pub mod mermaid;
mod paint;
mod steps;
pub mod svg;
pub mod text;
pub mod walk;
pub mod why;
pub mod words;

#[cfg(test)]
mod tests;

use crate::record::Line;

/// Everything that is shown.
#[derive(Clone, Copy, Debug, Default)]
pub struct Document<'a> {
    /// What it is: `Plan of a start`, `Record of a run`.
    pub title: &'a str,
    /// The hash of a plan.
    pub hash: Option<&'a str>,
    /// What the plan takes for granted.
    pub assumptions: &'a [Fact<'a>],
    /// One for each process. An order is not needed; the usual one is that of [`Role`].
    pub sections: &'a [Section<'a>],
    /// What stage 0 tells the launcher, without its newline.
    pub pid_line: Option<&'a str>,
    /// The records on the log pipe.
    pub log: &'a [&'a str],
    /// What the rules found.
    pub findings: &'a [&'a str],
}

/// A key and its value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fact<'a> {
    /// What is assumed about: `uid`, `kernel`, `owner of /run/netns/a`.
    pub key: &'a str,
    /// What is assumed.
    pub value: &'a str,
}

/// One process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Section<'a> {
    /// `launcher`, `stage-0 parent`, `stage-1 child`, `stage-2 init`, `mapping tool`.
    pub name: &'a str,
    /// Its own calls. A process that a clone made begins with that clone and the reply
    /// [`Child`](crate::record::Reply::Child).
    pub lines: &'a [Line],
    /// What became of it, in words: `exit 0`, `killed by SIGKILL`, `hands over`.
    pub outcome: &'a str,
    /// What became of it.
    pub fate: Fate,
}

/// What became of a process.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Fate {
    /// It has ended, as it should.
    Ended,
    /// It has ended, and should not have.
    Failed,
    /// It goes on after its last line: the launcher, the command.
    LivesOn,
}

/// Who a process is, in the order of the diagrams' columns.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Role {
    /// Whoever started stage 0.
    Launcher,
    /// The parent.
    Stage0,
    /// The child.
    Stage1,
    /// The init.
    Stage2,
    /// newuidmap or newgidmap.
    Tool,
}

impl Role {
    /// In their order.
    pub const ALL: [Self; 5] = [Self::Launcher, Self::Stage0, Self::Stage1, Self::Stage2, Self::Tool];

    /// By the name of a section; what follows the first words may vary (`mapping tool newuidmap`).
    #[must_use]
    pub fn of(section: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| section.starts_with(role.section()))
    }

    /// How the name of its section begins.
    #[must_use]
    pub const fn section(self) -> &'static str {
        match self {
            Self::Launcher => "launcher",
            Self::Stage0 => "stage-0",
            Self::Stage1 => "stage-1",
            Self::Stage2 => "stage-2",
            Self::Tool => "mapping tool",
        }
    }

    /// In a sentence.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Launcher => "launcher",
            Self::Stage0 => "stage 0",
            Self::Stage1 => "stage 1",
            Self::Stage2 => "stage 2",
            Self::Tool => "mapping tool",
        }
    }

    /// What it is, below its name.
    #[must_use]
    pub const fn epithet(self) -> &'static str {
        match self {
            Self::Launcher => "starts and reaps",
            Self::Stage0 => "the parent",
            Self::Stage1 => "the child",
            Self::Stage2 => "the init",
            Self::Tool => "newuidmap, newgidmap",
        }
    }
}
