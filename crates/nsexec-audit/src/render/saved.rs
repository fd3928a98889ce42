//! A run that was read from a file, as a document. The notes of the run become the head of the document.

use std::format;
use std::string::{String, ToString};
use std::vec::Vec;

use super::document::{log, pid_line, with_sections};
use super::summary::{command_line, summary};
use super::words::fatal_text;
use super::{Document, Fact, html, mermaid, svg, text};
use crate::diff::compare;
use crate::normalise::{INTERRUPT, OPENED, TIMER, WITHHELD};
use crate::note;
use crate::replay::JOB;
use crate::rules::{self, Facts, Request};
use crate::transcript::{End, Origin, Run};
use nsexec::bootstrap::Dialect;
use nsexec::launch::Prepared;
use nsexec::policy::Policy;

/// The key of a plan's note with its summary, one subject and value per line.
pub const SUMMARY: &str = "summary";
/// The key of a plan's note with its verdict.
pub const VERDICT: &str = "verdict";
/// The key of the note with the hash of a plan.
pub const HASH: &str = "hash";
/// The key of a record's note with the hash of the plan that it was compared with.
pub const PLAN: &str = "plan";
/// The key of the note with the shape of a planned start.
pub const SHAPE: &str = "shape";
/// The key of a plan's note with the findings of the rules, one per line.
pub const FINDINGS: &str = "findings";
/// The key of a record's note with the circumstances of a failure, as JSON.
pub const CIRCUMSTANCES: &str = "circumstances";

/// The notes that are not facts for a reader: those above, and those with data for the program.
const NO_FACTS: [&str; 13] = [
    SUMMARY,
    VERDICT,
    HASH,
    PLAN,
    SHAPE,
    FINDINGS,
    CIRCUMSTANCES,
    JOB,
    rules::MESSAGE,
    INTERRUPT,
    TIMER,
    OPENED,
    WITHHELD,
];

/// Returns the notes of a run that state a fact about the machine or the request, by name.
pub fn facts(run: &Run) -> impl Iterator<Item = (&str, &str)> {
    let notes = run.notes.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    notes.filter(|(key, _)| !NO_FACTS.contains(key))
}

/// Calls `show` with the document of a run.
pub fn show<T>(run: &Run, show: impl FnOnce(&Document<'_>) -> T) -> T {
    let launch = run.notes.get(JOB).and_then(|text| note::read(text).ok());
    of_launch(run, launch.as_ref(), show)
}

/// Calls `show` with the document of a run. `launch`: the launch, if it is known.
pub(crate) fn of_launch<T>(run: &Run, launch: Option<&Prepared>, show: impl FnOnce(&Document<'_>) -> T) -> T {
    let facts: Vec<Fact<'_>> = facts(run).map(|(key, value)| Fact { key, value }).collect();
    let note = |key| run.notes.get(key).map(String::as_str);
    let policy = launch.map(|launch| *launch.policy());
    let (findings, log, pid_line) = (findings(run, policy), log(run), pid_line(run));
    let findings: Vec<&str> = findings.iter().map(String::as_str).collect();
    let log: Vec<&str> = log.iter().map(String::as_str).collect();
    let command = launch.map(|launch| command_line(launch.argv()));
    let summary = summary(run, asked(run, policy).as_ref(), command.as_deref());
    let summary: Vec<Fact<'_>> = summary.iter().map(|(key, value)| Fact { key, value }).collect();
    let verdict = run.notes.get(VERDICT).cloned().unwrap_or_else(|| verdict(run));
    let base = Document {
        summary: &summary,
        verdict: Some(&verdict),
        title: match run.origin {
            Origin::Planned => "Plan of a start",
            Origin::Recorded => "Record of a start",
            Origin::Witnessed => "A start as strace shows it",
        },
        hash: note(HASH).or(note(PLAN)),
        shape: note(SHAPE),
        assumptions: &facts,
        sections: &[],
        pid_line: pid_line.as_deref(),
        log: &log,
        findings: &findings,
    };
    with_sections(run, &base, show)
}

/// Returns the request. The policy matters only for the dialect of its message.
fn asked(run: &Run, policy: Option<Policy>) -> Option<Request> {
    Facts::of(run, policy.unwrap_or_else(|| Policy::runc(&Dialect::V1_2))).asked
}

/// Returns how a recorded launch ended. The last fatal record of the stages explains a failure.
fn verdict(run: &Run) -> String {
    if run.of_command().any(|last| matches!(last.end, End::Executed | End::HandedOver)) {
        return "the command was started".to_string();
    }
    if run.pins_namespaces() {
        return "the namespaces were mounted on their files".to_string();
    }
    let fatal = log(run).iter().rev().find_map(|record| fatal_text(record.as_bytes()));
    fatal.map_or_else(|| "the launch failed".to_string(), |text| format!("the launch failed: {text}"))
}

/// Returns the findings that a plan has stored, or else those of the rules, if the policy is known. Lost
/// lines of a record come last.
fn findings(run: &Run, policy: Option<Policy>) -> Vec<String> {
    let stored = run.notes.get(FINDINGS).map(|text| text.lines().map(ToString::to_string).collect());
    let mut findings: Vec<String> = stored.unwrap_or_else(|| {
        let checked = policy.map(|policy| rules::check(run, &Facts::of(run, policy)));
        checked.unwrap_or_default().iter().map(ToString::to_string).collect()
    });
    if run.lost > 0 {
        findings.push(format!("{} lines of the record were lost", run.lost));
    }
    findings
}

impl Run {
    /// Returns the run as text: each call of each process with its reason.
    #[must_use]
    pub fn to_text(&self, look: text::Look) -> String {
        show(self, |document| text::text(document, look))
    }

    /// Returns the run as a sequence diagram in mermaid's language.
    #[must_use]
    pub fn to_mermaid(&self) -> String {
        show(self, mermaid::mermaid)
    }

    /// Returns the run as a self-contained HTML page.
    #[must_use]
    pub fn to_html(&self) -> String {
        show(self, html::html)
    }

    /// Returns this run and another one as one HTML page, side by side, with their first differences.
    #[must_use]
    pub fn to_html_beside(&self, other: &Self) -> String {
        let differences = match compare(self, other) {
            diff if diff.is_empty() => "the calls are the same".to_string(),
            diff => diff.to_string(),
        };
        show(self, |left| show(other, |right| html::side_by_side(left, right, &differences)))
    }

    /// Returns the run as an SVG picture.
    #[must_use]
    pub fn to_svg(&self) -> String {
        show(self, svg::svg)
    }
}
