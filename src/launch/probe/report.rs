//! The types of a report, and its text for people. Values only.

use std::string::{String, ToString};
use std::vec::Vec;

use core::fmt;

use crate::deciders::namespace::NsKind;
use crate::launch::causes::{Cause, Vantage};

/// The answers of [`probe`](super::probe()), and the place that they hold for.
///
/// `Display` writes one line for each question, and the cause and the remedy below a "no". `{:#}` also writes
/// the evidence.
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Report {
    /// The place of this process.
    pub vantage: Vantage,
    /// One answer for each question, in the order of [`Question::all`].
    pub answers: Vec<Answer>,
}

/// A question of a report.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Question {
    /// Can a namespace of this kind be created?
    Create(NsKind),
    /// Can a namespace of this kind be joined, if this user has created it?
    Join(NsKind),
    /// Can a new user namespace map the caller's own user and group id?
    MapOneId,
    /// Can a new user namespace map a range of user ids?
    MapUserIds,
    /// Can a new user namespace map a range of group ids?
    MapGroupIds,
    /// Can a new file system be mounted in a new mount namespace?
    Mount,
    /// Can a new /proc be mounted in new mount and pid namespaces?
    MountProc,
}

impl Question {
    /// Returns all questions, in the order of a report.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let creating = NsKind::ALL.into_iter().map(Self::Create);
        let joining = NsKind::ALL.into_iter().map(Self::Join);
        let rest = [Self::MapOneId, Self::MapUserIds, Self::MapGroupIds, Self::Mount, Self::MountProc];
        creating.chain(joining).chain(rest).collect()
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create(kind) => write!(f, "create {kind}"),
            Self::Join(kind) => write!(f, "join {kind}"),
            Self::MapOneId => f.write_str("map one id"),
            Self::MapUserIds => f.write_str("map user ids"),
            Self::MapGroupIds => f.write_str("map group ids"),
            Self::Mount => f.write_str("mount"),
            Self::MountProc => f.write_str("mount proc"),
        }
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for Question {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The answer to one question.
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Answer {
    /// The question.
    pub question: Question,
    /// Yes, no, or cannot tell.
    pub verdict: Verdict,
    /// The facts behind the verdict: files with their values, and the results of the tries.
    pub evidence: Vec<String>,
}

/// Yes, no, or cannot tell.
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(tag = "is", rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum Verdict {
    /// A try has succeeded.
    Yes {
        /// It succeeds only together with a new user namespace, or a joined one.
        needs_user_namespace: bool,
    },
    /// All tries have failed.
    No {
        /// The cause as data.
        cause: Cause,
        /// The cause in words.
        why: String,
        /// The change that allows it, in words.
        remedy: String,
    },
    /// The tries do not decide it.
    CannotTell {
        /// The reason.
        why: String,
    },
}

impl Report {
    /// Returns the verdict on a question.
    #[must_use]
    pub fn verdict(&self, question: Question) -> Option<&Verdict> {
        self.answers.iter().find(|answer| answer.question == question).map(|answer| &answer.verdict)
    }

    /// Returns whether the answer to a question is yes.
    #[must_use]
    pub fn is_yes(&self, question: Question) -> bool {
        matches!(self.verdict(question), Some(Verdict::Yes { .. }))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const WIDTH: usize = 15;
        writeln!(f, "{}", self.vantage)?;
        let mut last: Option<&Verdict> = None;
        for answer in &self.answers {
            write!(f, "{:WIDTH$}", answer.question.to_string())?;
            match &answer.verdict {
                Verdict::Yes { needs_user_namespace: false } => writeln!(f, "yes")?,
                Verdict::Yes { needs_user_namespace: true } => writeln!(f, "yes, with a user namespace")?,
                Verdict::CannotTell { why } => writeln!(f, "cannot tell: {why}")?,
                same @ Verdict::No { .. } if last == Some(same) => writeln!(f, "no: the same cause")?,
                Verdict::No { why, remedy, .. } => {
                    writeln!(f, "no: {why}")?;
                    let evidence = if f.alternate() { answer.evidence.as_slice() } else { &[] };
                    for fact in evidence {
                        writeln!(f, "{:WIDTH$}evidence: {fact}", "")?;
                    }
                    writeln!(f, "{:WIDTH$}to do: {remedy}", "")?;
                }
            }
            last = Some(&answer.verdict);
        }
        Ok(())
    }
}
