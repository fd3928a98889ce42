//! The operations that this user can do here: create and join each kind of namespace, map ids, mount.
//!
//! [`probe`] launches some fifty commands that cannot be executed, in new namespaces, and reads facts from
//! /proc and /etc. The launches go through the same launcher as every [`Command`](super::Command). They leave
//! nothing behind: the kernel ends the namespaces with their processes. Only the maps of ranges run a
//! program: newuidmap and newgidmap.
//!
//! ```
//! use nsexec::launch::probe;
//! use nsexec::launch::probe::{Question, Verdict};
//! use nsexec::namespace::NsKind;
//!
//! let report = probe();
//! match report.verdict(Question::Create(NsKind::User)) {
//!     Some(Verdict::Yes { .. }) => println!("user namespaces work here"),
//!     Some(Verdict::No { why, remedy, .. }) => println!("they do not work: {why}. To do: {remedy}"),
//!     Some(Verdict::CannotTell { why }) => println!("unknown: {why}"),
//!     _ => unreachable!("the report answers every question"),
//! }
//! println!("{report}"); // one line for each question, and the remedies
//! ```
//!
//! Each answer has its evidence: the facts that were read, and the step that failed. The cause of a "no" is
//! data ([`Cause`]). A report of a container holds for the container only: see [`Vantage`].
//!
//! A mapping tool that has no privileges is not run: it would write an error to this program's standard
//! error. A kind of namespace that the kernel lacks is not joined. Every other cause comes from a launch that
//! failed.

mod judge;
#[cfg(test)]
mod judge_tests;
mod report;
mod tries;

pub use super::causes::{Cause, Vantage};
pub use report::{Answer, Question, Report, Verdict};

/// Tries each question on this machine, as this user.
///
/// Takes less than a second, most often. Each try has a time limit of 10 seconds.
#[must_use]
pub fn probe() -> Report {
    let facts = super::causes::Facts::read();
    judge::judge(&facts, &tries::run(&facts))
}
