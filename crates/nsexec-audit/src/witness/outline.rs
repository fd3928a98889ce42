//! Compares runs of a process that is not dumpable, as an ordinary user's strace sees it: the names of the
//! calls, the arguments in registers, and the results. Strings, structures and arrays are in memory that
//! strace may not read (ptrace(2), "PTRACE_MODE_ATTACH"), so it shows their addresses. Descriptors, pids,
//! signals, flags and lengths are compared without renaming.

use core::fmt;

use std::borrow::ToOwned;
use std::collections::BTreeMap;
use std::string::{String, ToString};
use std::vec::Vec;

use super::not_shown::is_system_call;
use super::{
    Unread, WitnessError, end_of, is_interrupted, is_left_out, lines_between_marks, parse_line, parts,
    resumed, words,
};
use crate::diff::CONTEXT;
use crate::diff::Difference;
use crate::record::Reply;
use crate::sections::children_of;
use crate::transcript::{End, Role, Run};
use nsexec::sys::types::Signal;

/// The calls of one process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outline {
    /// The process.
    pub role: Role,
    /// Its calls, in order.
    pub calls: Vec<OutlineCall>,
    /// Whether SIGKILL ended it. Then its last call is uncertain.
    pub killed: bool,
}

/// One call without the values in memory: `setns(4, CLONE_NEWNET) = 0`, `openat(AT_FDCWD, …,
/// O_RDONLY|O_CLOEXEC) = -1 ENOENT`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OutlineCall {
    name: String,
    /// `None` for an argument in memory.
    args: Vec<Option<String>>,
    /// A number, or the name of an errno. `None` if the recorder does not keep the result.
    result: Option<String>,
}

impl OutlineCall {
    /// Parses a line of strace, or a recorded line as it is displayed.
    fn of(line: &str) -> Option<Self> {
        let parts::Parts { name, args, result } = parts::split(line)?;
        let in_memory = |word: &str| {
            word.contains('…') || word.starts_with(['"', '[', '{', '~']) || word.starts_with("0x")
        };
        let args = args.into_iter().map(|word| (!in_memory(word)).then(|| sorted(word))).collect();
        let result = match words::errno(result) {
            Some(errno) => Some(std::format!("-1 {}", errno.name().unwrap_or("?"))),
            // `Sys` does not return these numbers.
            None if ["setsid", "keyctl", "sched_getaffinity"].contains(&name) => None,
            None => {
                result.split(' ').next().filter(|word| word.parse::<i64>().is_ok()).map(ToOwned::to_owned)
            }
        };
        Some(Self { name: name.to_owned(), args, result })
    }

    fn failed(&self) -> bool {
        self.result.as_ref().is_some_and(|result| result.starts_with("-1 "))
    }

    /// Returns whether both can be the same call. A value that one of them lacks is not compared.
    fn agrees(&self, other: &Self) -> bool {
        let same =
            |one: &Option<String>, other: &Option<String>| one.is_none() || other.is_none() || one == other;
        self.name == other.name
            && self.args.len() == other.args.len()
            && self.args.iter().zip(&other.args).all(|(one, other)| same(one, other))
            && self.failed() == other.failed()
            && same(&self.result, &other.result)
    }
}

/// Sorts flags: versions of strace print them in different orders.
fn sorted(word: &str) -> String {
    let mut flags: Vec<&str> = word.split('|').collect();
    flags.sort_unstable();
    flags.join("|")
}

impl fmt::Display for OutlineCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let args: Vec<&str> = self.args.iter().map(|word| word.as_deref().unwrap_or("…")).collect();
        write!(f, "{}({}) = {}", self.name, args.join(", "), self.result.as_deref().unwrap_or("…"))
    }
}

/// Returns the outlines of a planned or recorded run.
#[must_use]
pub fn of_run(run: &Run) -> Vec<Outline> {
    let of = |section: &crate::Section| {
        let seen = section.lines.iter().filter(|line| line.reply != Reply::Child && is_system_call(line));
        let calls = seen.filter_map(|line| OutlineCall::of(&line.to_string())).collect();
        let killed = section.end == End::Signaled(Signal::KILL);
        Outline { role: section.role, calls, killed }
    };
    run.sections.iter().map(of).collect()
}

/// Returns the outlines of strace's files. `root` is the role of the process that made the marks.
///
/// # Errors
/// As [`run_of`](super::run_of).
pub fn of_files(files: &BTreeMap<i32, String>, root: Role) -> Result<Vec<Outline>, WitnessError> {
    let text = lines_between_marks(files)?;
    let mut outlines = Vec::new();
    let mut unread = Unread::new(files);
    let mut waiting = std::vec![(root, text)];
    while let Some((role, text)) = waiting.pop() {
        let mut calls = Vec::new();
        let mut clones = Vec::new();
        let mut interrupted = None;
        let killed = text.lines().any(|line| end_of(line) == Some(End::Signaled(Signal::KILL)));
        for line in text.lines().filter(|line| !is_left_out(line)) {
            if is_interrupted(line) {
                interrupted = Some(line.to_owned());
                continue;
            }
            let line = &resumed(line, interrupted.take())[..];
            let Some(seen) = OutlineCall::of(line) else { continue };
            // The arguments of a clone are in registers.
            clones.extend(parse_line(line).filter(|_| seen.name == "clone"));
            let executed = seen.name == "execve" && !seen.failed();
            calls.push(seen);
            if executed {
                break;
            }
        }
        for (_, role, pid) in children_of(role, &clones) {
            waiting.push((role, unread.take(role, pid)?));
        }
        outlines.push(Outline { role, calls, killed });
    }
    outlines.sort_by_key(|outline| outline.role);
    Ok(outlines)
}

/// Returns the first difference of each process. If SIGKILL ended a process, one side may have one more call:
/// the recorder had not written it yet, or had announced an exec.
#[must_use]
pub fn compare(left: &[Outline], right: &[Outline]) -> Vec<Difference> {
    let calls = |outlines: &[Outline], role| -> (Vec<OutlineCall>, bool) {
        let found = outlines.iter().find(|outline| outline.role == role);
        found.map(|outline| (outline.calls.clone(), outline.killed)).unwrap_or_default()
    };
    let mut roles: Vec<Role> = left.iter().chain(right).map(|outline| outline.role).collect();
    roles.sort_unstable();
    roles.dedup();
    let mut differences = Vec::new();
    for role in roles {
        let ((left, one_killed), (right, other_killed)) = (calls(left, role), calls(right, role));
        let same = left.iter().zip(&right).take_while(|(left, right)| left.agrees(right)).count();
        let short = one_killed
            && other_killed
            && same == left.len().min(right.len())
            && left.len().abs_diff(right.len()) <= 1;
        if same < left.len().max(right.len()) && !short {
            let around = |calls: &[OutlineCall]| {
                let numbered = calls.iter().enumerate().skip(same.saturating_sub(CONTEXT));
                numbered
                    .take_while(|(index, _)| *index <= same + CONTEXT)
                    .map(|(index, call)| (index + 1, call.to_string()))
                    .collect()
            };
            let (left, right) = (around(&left), around(&right));
            let section = role.to_string();
            differences.push(Difference { section, line: same + 1, left, right, unseen: None });
        }
    }
    differences
}
