//! The decider: from facts and the results of tries to the report.

use std::format;
use std::string::{String, ToString};
use std::vec::Vec;

use super::report::{Answer, Question, Report, Verdict};
use super::tries::{Outcome, Tries, Try, is_powerless_root};
use crate::deciders::namespace::{NsKind, NsSet};
use crate::launch::causes::{
    Asked, Cause, Circumstances, Explanation, Facts, Remedies, killed_by_filter, likely,
};
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
    use NsKind::User;
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
        (Some(Outcome::Failed { step, killed_by_filter: killed, text }), side) => {
            if let Some(why) = passing(*step, text) {
                return Verdict::CannotTell { why };
            }
            let without_step = step.is_none() && !killed;
            match side.filter(|_| without_step || step.is_some_and(|(code, _)| is_of_tool(code))) {
                Some(side) => range_cause(facts, side, text),
                None => {
                    let known = circumstances(facts, tries, question, own);
                    of_failure(&known, *step, *killed, text)
                }
            }
        }
        (Some(Outcome::NotTried(_)), Some(side))
            if facts.powerless(side).is_some()
                || facts.side(side).is_unmapped()
                || is_powerless_root(facts) =>
        {
            range_cause(facts, side, "")
        }
        (None, Some(side)) if facts.side(side).others().is_none() => range_cause(facts, side, ""),
        (Some(Outcome::NotTried(why)), _) => match question {
            Question::Join(kind) if !facts.kinds.is_empty() && !facts.kinds.contains(kind) => {
                of_failure(&circumstances(facts, tries, question, own), LACKS_KIND, false, why)
            }
            _ => return Verdict::CannotTell { why: (*why).to_string() },
        },
        (Some(Outcome::Works) | None, _) => {
            return Verdict::CannotTell { why: "no try was made".to_string() };
        }
    };
    if !found.remedy.is_empty() {
        // The text of a failed try ends with its cause and remedy.
        let repeated = format!(": {}", found.remedy);
        evidence.iter_mut().for_each(|fact| *fact = fact.replace(&repeated, ""));
    }
    evidence.extend(found.evidence);
    if found.cause == Cause::NoProc && matches!(question, Question::Create(_) | Question::Join(_)) {
        let why = format!("the launcher cannot try it: {} (to do: {})", found.why, found.remedy);
        return Verdict::CannotTell { why };
    }
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

/// The failure of a launch on a kernel that lacks the kind.
const LACKS_KIND: Option<(Code, Option<Errno>)> = Some((Code::UnshareRemaining, Some(Errno::EINVAL)));

/// Returns the circumstances of the deciding try of a question.
fn circumstances(facts: &Facts, tries: &Tries, question: Question, own: &[&Try]) -> Circumstances {
    let privileged = facts.has_capability(Capability::SYS_ADMIN);
    let with_user = match privileged {
        true => own.first().is_some_and(|one| one.with_user),
        false => own.last().is_some_and(|one| one.with_user),
    };
    let kinds: &[NsKind] = match question {
        Question::Create(kind) | Question::Join(kind) => &[kind],
        Question::Mount => &[NsKind::Mnt],
        Question::MountProc => &[NsKind::Mnt, NsKind::Pid],
        Question::MapOneId | Question::MapUserIds | Question::MapGroupIds => &[],
    };
    let user = NsSet::EMPTY.with(NsKind::User);
    let mut asked = Asked::default();
    asked.created = kinds.iter().copied().chain(user.iter().filter(|_| with_user)).collect();
    asked.rootless = facts.vantage.uid != 0;
    asked.mounts_proc = question == Question::MountProc;
    asked.mount_proc_flag = asked.mounts_proc;
    let mut facts = facts.clone();
    facts.invalid_flags = tries.invalid_flags.map(|errno| errno.0);
    Circumstances::new(asked, facts)
}

/// Returns the cause of a failed step.
fn of_failure(
    known: &Circumstances,
    step: Option<(Code, Option<Errno>)>,
    killed: bool,
    text: &str,
) -> Explanation {
    if killed {
        return killed_by_filter(known);
    }
    let found = step.and_then(|(code, errno)| likely(code, errno, Some(known), &Remedies::LIBRARY));
    found.unwrap_or_else(|| {
        Explanation::new(Cause::Other, format!("the try failed: {text}"), "see the failed call")
    })
}

/// Returns the cause why a range of ids cannot be mapped, although a user namespace can be created.
fn range_cause(facts: &Facts, side: Side, text: &str) -> Explanation {
    let (noun, (file, tool, _)) = (side.noun(), side.names());
    facts.cause_of_ranges(side).unwrap_or_else(|| {
        Explanation::new(
            Cause::Other,
            format!("the {noun} ids cannot be mapped: {text}"),
            format!("check {file}, and the tool {tool} of shadow-utils"),
        )
    })
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
