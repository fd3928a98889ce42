//! Renders a plan, or a run, as text, as a mermaid diagram, as an SVG picture, or as an HTML page.
//!
//! All four are pure functions of a [`Document`], which borrows the lines from the caller.
//!
//! | read | for |
//! |---|---|
//! | [`walk`] | each line with the object behind its descriptor and the content of its message |
//! | [`why`] | the reason for a step, in words |
//! | [`events`] | the sections merged into one order, for the diagrams |
//! | [`order`] | all calls in one order in which they can have happened |
//! | [`summary`] | the command, its namespaces, its ids and its rights |
//! | [`document`] | the end of each process, in words |
//! | [`saved`] | a run that was read from a file, as a document |
//! | [`text`], [`mermaid`], [`svg`], [`html`] | the four forms |

mod child;
mod direct;
pub mod document;
pub mod events;
pub mod html;
mod in_place;
pub mod mermaid;
pub mod order;
mod paint;
mod rows;
pub mod saved;
mod steps;
pub mod summary;
pub mod svg;
pub mod text;
mod tree;
pub mod walk;
pub mod why;
pub mod words;

#[cfg(test)]
mod tests;

use crate::transcript::{Role, Section};

/// The complete input of a rendering.
#[derive(Clone, Copy, Debug, Default)]
pub struct Document<'a> {
    /// The title: `Plan of a start`, `Record of a run`.
    pub title: &'a str,
    /// The summary: the command, its namespaces, its ids, its rights.
    pub summary: &'a [Fact<'a>],
    /// The answer of a plan, or the result of a run.
    pub verdict: Option<&'a str>,
    /// The hash of a plan.
    pub hash: Option<&'a str>,
    /// The shape of the start, in words.
    pub shape: Option<&'a str>,
    /// The assumptions of the plan.
    pub assumptions: &'a [Fact<'a>],
    /// One section for each process, in any order. The usual order is that of [`Role`].
    pub sections: &'a [SectionView<'a>],
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
pub struct SectionView<'a> {
    /// The process and its own calls. A process that a clone created begins with that clone and the reply
    /// [`Child`](crate::record::Reply::Child).
    pub section: &'a Section,
    /// How the process ended, in words: `exit 0`, `killed by SIGKILL`, `hands over`.
    pub outcome: &'a str,
    /// How the process ended, as a class.
    pub fate: Fate,
}

impl SectionView<'_> {
    /// Returns the column of the process.
    fn column(&self) -> Option<Role> {
        self.section.role.column()
    }
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

/// All mapping tools share this column of the diagrams.
pub const TOOL: Role = Role::Tool(0);

/// The columns of the diagrams, in their order.
pub const COLUMNS: [Role; 6] =
    [Role::Launcher, Role::Stage(0), Role::Stage(1), Role::Stage(2), Role::Stage(3), TOOL];

impl Role {
    /// Returns the column of the process, one of [`COLUMNS`]. A process that the protocol does not have is in
    /// no diagram.
    #[must_use]
    pub const fn column(self) -> Option<Self> {
        match self {
            Self::Launcher | Self::Stage(0..=3) => Some(self),
            Self::Tool(_) => Some(TOOL),
            Self::Stage(_) | Self::Other(_) => None,
        }
    }

    /// Returns the role's name as used in a sentence.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Launcher => "launcher",
            Self::Stage(0) => "stage 0",
            Self::Stage(1) => "stage 1",
            Self::Stage(2) => "stage 2",
            Self::Stage(3) => "command",
            Self::Tool(_) => "mapping tool",
            Self::Stage(_) | Self::Other(_) => "another process",
        }
    }

    /// Returns the short description that the diagrams show below the name.
    const fn caption(self) -> &'static str {
        match self {
            Self::Launcher => "starts and reaps",
            Self::Stage(0) => "the parent",
            Self::Stage(1) => "the child",
            Self::Stage(2) => "the init",
            Self::Stage(3) => "child of the init",
            Self::Tool(_) => "newuidmap, newgidmap",
            Self::Stage(_) | Self::Other(_) => "",
        }
    }
}
