//! The answer of a plan: the launch runs, it fails, or the plan cannot tell.

use std::string::{String, ToString};
use std::vec::Vec;

use core::fmt;

use super::Plan;
use nsexec::error::Code;
use nsexec::launch::causes::{Explanation, Remedies, likely};
use nsexec::launch::{Circumstances, LaunchError};
use nsexec::sys::types::Errno;

/// The answer of a plan.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Verdict {
    /// The command runs.
    Runs,
    /// The launch fails.
    Fails(Fault),
    /// Every fact that was looked at lets the command run, but these were not looked at. One sentence each.
    CannotTell(Vec<String>),
}

/// The failure of a planned launch, as the launch would report it.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Fault {
    /// The error that [`Command::spawn`](nsexec::launch::Command::spawn) returns. Pids in it are those of the
    /// simulated machine.
    pub error: LaunchError,
    /// The step that failed.
    pub code: Option<Code>,
    /// The error of its call.
    pub errno: Option<Errno>,
    /// The likely cause, its evidence and its remedy.
    pub cause: Option<Explanation>,
    text: String,
}

impl Fault {
    /// Returns the failure with this error. `known`: the facts on which the cause depends.
    #[must_use]
    pub fn new(error: LaunchError, known: Option<&Circumstances>) -> Self {
        let (code, errno) = error.step().map_or((None, None), |(code, errno)| (Some(code), errno));
        let cause = code.and_then(|code| likely(code, errno, known, &Remedies::LIBRARY));
        let text = match known {
            Some(known) => error.explain(known, &Remedies::LIBRARY),
            None => error.to_string(),
        };
        Self { error, code, errno, cause, text }
    }
}

impl fmt::Display for Fault {
    /// Writes the failure with its likely cause, on one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Runs => f.write_str("the command runs"),
            Self::Fails(fault) => write!(f, "the launch fails: {fault}"),
            Self::CannotTell(facts) => write!(f, "cannot tell: {}", facts.join("; ")),
        }
    }
}

impl Plan {
    /// Returns the answer of the plan. A fact that was not looked at counts as one that lets the command run:
    /// so a failure is certain, and a success only if there is no such fact.
    ///
    /// The plan of a Go runtime's start has no [`LaunchError`], and a failure of it is
    /// [`Verdict::CannotTell`].
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        match &self.error {
            Some(error) => Verdict::Fails(Fault::new(error.clone(), self.circumstances.as_ref())),
            None if self.succeeds && self.unknown.is_empty() => Verdict::Runs,
            None if self.succeeds => Verdict::CannotTell(self.unknown.clone()),
            None => Verdict::CannotTell([NO_ERROR.to_string()].into()),
        }
    }
}

/// The text for a plan that ends without a command and without an error of our launcher.
const NO_ERROR: &str =
    "the command does not run, and the launcher of this plan is not ours, so its error is unknown";
