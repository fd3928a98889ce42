//! The decider: from facts and the results of tries to the report.

use std::format;
use std::string::{String, ToString};
use std::vec::Vec;

use super::causes::{Found, cause_of_tool, kernel, of_failure};
use super::facts::{COUNT, Facts};
use super::report::{Answer, Cause, Question, Report, Verdict};
use super::tries::{Outcome, Tries, Try};
use crate::launch::subordinate::Side;
use crate::sys::types::{Capability, Errno};
use crate::words::error::Code;

/// Builds the report.
pub(super) fn judge(facts: &Facts, tries: &Tries) -> Report {
    let answers = Question::all().into_iter().map(|question| answer(facts, tries, question)).collect();
    Report { vantage: facts.vantage.clone(), answers }
}

/// Answers one question.
fn answer(facts: &Facts, tries: &Tries, question: Question) -> Answer {
    let own: Vec<&Try> = tries.all.iter().filter(|one| one.question == question).collect();
    let mut evidence: Vec<String> = own.iter().map(|one| sentence(one)).collect();
    let verdict = match own.iter().find(|one| one.result == Outcome::Works) {
        Some(found) => Verdict::Yes { needs_user_namespace: found.with_user && needs_user(question) },
        None => refused(facts, tries, question, &own, &mut evidence),
    };
    Answer { question, verdict, evidence }
}

/// Returns whether the question is about something else than a user namespace and its maps.
fn needs_user(question: Question) -> bool {
    use crate::deciders::namespace::NsKind::User;
    match question {
        Question::Create(kind) | Question::Join(kind) => kind != User,
        Question::MapOneId | Question::MapUserIds | Question::MapGroupIds => false,
        Question::Mount | Question::MountProc => true,
    }
}

/// Returns the verdict if no try has succeeded, and adds the facts behind it to the evidence.
fn refused(
    facts: &Facts,
    tries: &Tries,
    question: Question,
    own: &[&Try],
    evidence: &mut Vec<String>,
) -> Verdict {
    let side = match question {
        Question::MapUserIds => Some(Side::Users),
        Question::MapGroupIds => Some(Side::Groups),
        _ => None,
    };
    // A privileged caller needs no user namespace: its first try decides. For other callers the last try
    // decides, because it has a new user namespace.
    let deciding = if facts.has_capability(Capability::SYS_ADMIN) { own.first() } else { own.last() };
    let deciding = deciding.map(|one| &one.result);
    let found = match (deciding, side) {
        (Some(Outcome::Failed { step, killed_by_filter, text }), side) => {
            if let Some(why) = passing(*step, text) {
                return Verdict::CannotTell { why };
            }
            let without_step = step.is_none() && !killed_by_filter;
            match side.filter(|_| without_step || step.is_some_and(|(code, _)| is_of_tool(code))) {
                Some(side) => range_cause(facts, side, text),
                None => of_failure(facts, tries.invalid_flags, question, *step, *killed_by_filter, text),
            }
        }
        (Some(Outcome::NotTried(_)), Some(side)) if facts.powerless(side).is_some() => {
            range_cause(facts, side, "")
        }
        (None, Some(side)) if facts.side(side).others().is_none() => range_cause(facts, side, ""),
        (Some(Outcome::NotTried(why)), _) => match question {
            Question::Join(kind) if !facts.kinds.is_empty() && !facts.kinds.contains(kind) => kernel(kind),
            _ => return Verdict::CannotTell { why: (*why).to_string() },
        },
        (Some(Outcome::Works) | None, _) => {
            return Verdict::CannotTell { why: "no try was made".to_string() };
        }
    };
    evidence.extend(found.evidence);
    Verdict::No { cause: found.cause, why: found.why, remedy: found.remedy }
}

/// Returns a reason if a try failed for a temporary cause, or for a cause that is unrelated to the question.
fn passing(step: Option<(Code, Option<Errno>)>, text: &str) -> Option<String> {
    let errno = step.and_then(|(_, errno)| errno);
    let resources = [Errno::EAGAIN, Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM, Errno::EINTR];
    let is_start = matches!(step, Some((Code::Start, _)));
    let is_late = text.contains("the time limit expired");
    (is_start || is_late || errno.is_some_and(|errno| resources.contains(&errno)))
        .then(|| format!("the try itself failed: {text}"))
}

/// Returns whether the step is one of a mapping tool.
fn is_of_tool(code: Code) -> bool {
    matches!(
        code,
        Code::MappingToolStatus
            | Code::MappingToolSignal
            | Code::MappingToolExec
            | Code::MappingToolPath
            | Code::MappingToolWroteOther
    )
}

/// Returns the cause why a range of ids cannot be mapped, although a user namespace can be created. Two
/// causes at the same time are named together.
fn range_cause(facts: &Facts, side: Side, text: &str) -> Found {
    let (noun, (file, tool, map)) = (side.noun(), side.names());
    let ids = facts.side(side);
    if ids.others().is_none() {
        return Found::new(
            Cause::OneId,
            format!("this user namespace has no {noun} id besides the caller's own"),
            format!("map a range of {noun} ids in the outer user namespace"),
        )
        .with(format!("{map} has {} line(s)", ids.map.as_ref().map_or(0, Vec::len)));
    }
    match (cause_of_tool(facts, side), no_range(facts, side)) {
        (Some(first), Some(second)) => first.and(second),
        (Some(found), None) | (None, Some(found)) => found,
        (None, None) => Found::new(
            Cause::Other,
            format!("the {noun} ids cannot be mapped: {text}"),
            format!("check {file}, and the tool {tool} of shadow-utils"),
        ),
    }
}

/// Returns the cause that the user has no subordinate ids. The remedy proposes a free range.
fn no_range(facts: &Facts, side: Side) -> Option<Found> {
    let (ids, (file, ..)) = (facts.side(side), side.names());
    let flag = match side {
        Side::Users => "--add-subuids",
        Side::Groups => "--add-subgids",
    };
    if facts.vantage.uid == 0 || !ids.ranges.as_ref().is_some_and(Vec::is_empty) {
        return None;
    }
    let name = facts.vantage.user.as_deref();
    let owner = name.map_or_else(|| facts.vantage.uid.to_string(), String::from);
    let remedy = match (ids.free, name) {
        (Some(first), Some(name)) => {
            format!("as root: usermod {flag} {first}-{} {name}", first.saturating_add(COUNT - 1))
        }
        // usermod(8) needs an account.
        (Some(first), None) => format!("as root, add the line `{owner}:{first}:{COUNT}` to {file}"),
        (None, _) => format!("as root, add a line `{owner}:FIRST:COUNT` to {file}"),
    };
    let why = format!("{file} has no range for {owner}");
    Some(Found::new(Cause::NoSubordinateIds, why.clone(), remedy).with(why))
}

/// Describes the result of a try in one sentence.
fn sentence(one: &Try) -> String {
    let place = if one.with_user { "with a new user namespace" } else { "without a user namespace" };
    match &one.result {
        Outcome::Works => format!("{place}: every step up to execve(2) succeeded"),
        Outcome::Failed { killed_by_filter: true, .. } => format!("{place}: SIGSYS ended a process"),
        Outcome::Failed { step: Some((code, Some(errno))), .. } => {
            let name = errno.name().map_or_else(|| errno.0.to_string(), String::from);
            format!("{place}: the step {} failed with {name}", code.as_str())
        }
        Outcome::Failed { step: Some((code, None)), .. } => {
            format!("{place}: the step {} failed", code.as_str())
        }
        Outcome::Failed { step: None, text, .. } => format!("{place}: {text}"),
        Outcome::NotTried(why) => format!("{place}: not tried, because {why}"),
    }
}
