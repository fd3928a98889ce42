//! Renders a plan, or a run, as text, as a mermaid diagram, or as an SVG picture.
//!
//! All three are pure functions of a [`Document`], which borrows the lines from the caller.
//!
//! | read | for |
//! |---|---|
//! | [`walk`] | each line with the object behind its descriptor and the content of its message |
//! | [`why`] | the reason for a step, in words |
//! | [`events`] | the sections merged into one order, for the diagrams |
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

/// The complete input of a rendering.
#[derive(Clone, Copy, Debug, Default)]
pub struct Document<'a> {
    /// The title: `Plan of a start`, `Record of a run`.
    pub title: &'a str,
    /// The hash of a plan.
    pub hash: Option<&'a str>,
    /// The assumptions of the plan.
    pub assumptions: &'a [Fact<'a>],
    /// One section for each process, in any order. The usual order is that of [`Role`].
    pub sections: &'a [Section<'a>],
    /// The line that stage 0 writes to the init pipe, without its newline.
    pub pid_line: Option<&'a str>,
    /// The records on the log pipe.
    pub log: &'a [&'a str],
    /// The findings of the rules.
    pub findings: &'a [&'a str],
}

/// A key and its value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fact<'a> {
    /// The subject: `uid`, `kernel`, `owner of /run/netns/a`.
    pub key: &'a str,
    /// The assumed value.
    pub value: &'a str,
}

/// One process of a document.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Section<'a> {
    /// `launcher`, `stage-0 parent`, `stage-1 child`, `stage-2 init`, `mapping tool`.
    pub name: &'a str,
    /// The process's own calls. A process that a clone created begins with that clone and the reply
    /// [`Child`](crate::record::Reply::Child).
    pub lines: &'a [Line],
    /// How the process ended, in words: `exit 0`, `killed by SIGKILL`, `hands over`.
    pub outcome: &'a str,
    /// How the process ended, as a class.
    pub fate: Fate,
}

/// How a process ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Fate {
    /// It ended with success.
    Ended,
    /// It ended with a failure.
    Failed,
    /// It continues after its last line: the launcher, or the command.
    Continues,
}

/// The role of a process, in the order of the diagrams' columns.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Role {
    /// The process that started stage 0.
    Launcher,
    /// Stage 0, `runc:[0:PARENT]`.
    Stage0,
    /// Stage 1, `runc:[1:CHILD]`.
    Stage1,
    /// Stage 2, `runc:[2:INIT]`.
    Stage2,
    /// newuidmap or newgidmap.
    Tool,
}

impl Role {
    /// All roles, in their order.
    pub const ALL: [Self; 5] = [Self::Launcher, Self::Stage0, Self::Stage1, Self::Stage2, Self::Tool];

    /// Returns the role for the name of a section. More words may follow the role's own (`mapping tool
    /// newuidmap`).
    #[must_use]
    pub fn of(section: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| section.starts_with(role.section()))
    }

    /// Returns the beginning of the section's name.
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

    /// Returns the role's name as used in a sentence.
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

    /// Returns the short description that the diagrams show below the name.
    #[must_use]
    pub const fn caption(self) -> &'static str {
        match self {
            Self::Launcher => "starts and reaps",
            Self::Stage0 => "the parent",
            Self::Stage1 => "the child",
            Self::Stage2 => "the init",
            Self::Tool => "newuidmap, newgidmap",
        }
    }
}
