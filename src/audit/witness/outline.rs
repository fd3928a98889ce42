//! What an ordinary user's strace still sees of a process that is not dumpable: the names of the calls, and whether they
//! failed and how. Strings, structures and arrays are in memory that it may not read (ptrace(2), "PTRACE_MODE_ATTACH"),
//! so all of them are addresses.

use std::collections::BTreeMap;
use std::format;
use std::string::{String, ToString};
use std::vec::Vec;

use super::{WitnessError, between_the_marks, end_of, is_left_out, parse_line, words};
use crate::audit::diff::CONTEXT;
use crate::audit::diff::Difference;
use crate::audit::sections::child_role;
use crate::audit::transcript::{End, Role, Run};
use crate::sys::record::Reply;
use crate::sys::types::{Errno, Signal};

/// The calls of one process: `setns`, `unshare = -1 EPERM`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outline {
    /// Which process.
    pub role: Role,
    /// Its calls, in order.
    pub calls: Vec<String>,
    /// Whether SIGKILL ended it: then nobody knows how far it came.
    pub killed: bool,
}

fn shown(name: &str, errno: Option<Errno>) -> String {
    match errno {
        None => name.to_string(),
        Some(errno) => format!("{name} = -1 {}", errno.name().unwrap_or("?")),
    }
}

/// The outline of a run that was planned or recorded.
#[must_use]
pub fn of_run(run: &Run) -> Vec<Outline> {
    let of = |section: &crate::audit::Section| {
        let seen = section.lines.iter().filter(|line| line.reply != Reply::Child);
        let calls = seen.map(|line| match line.reply {
            Reply::Errno(errno) => shown(line.call.name(), Some(errno)),
            _ => shown(line.call.name(), None),
        });
        let killed = section.end == End::Signaled(Signal::KILL);
        Outline { role: section.role, calls: calls.collect(), killed }
    };
    run.sections.iter().map(of).collect()
}

/// The outline of what strace wrote. `root` is what the process that made the mark is.
///
/// # Errors
/// As [`run_of`](super::run_of).
pub fn of_files(files: &BTreeMap<i32, String>, root: Role) -> Result<Vec<Outline>, WitnessError> {
    let (text, recorder) = between_the_marks(files)?;
    let mut outlines = Vec::new();
    let mut waiting = std::vec![(root, text)];
    while let Some((role, text)) = waiting.pop() {
        let mut calls = Vec::new();
        let mut tools = 0_u8;
        let killed = text.lines().any(|line| end_of(line) == Some(End::Signaled(Signal::KILL)));
        for line in text.lines().filter(|line| !is_left_out(line, recorder.as_deref())) {
            let Some(parts) = words::split(line) else { continue };
            if parts.result.starts_with("? ERESTART") {
                continue;
            }
            calls.push(shown(parts.name, words::errno(parts.result)));
            // The arguments of a clone are in registers.
            if let Some(line) = parse_line(line).filter(|_| parts.name == "clone") {
                let Reply::Parent(pid) = line.reply else { continue };
                let Some(role) = child_role(role, &line.call, tools) else { continue };
                tools += u8::from(matches!(role, Role::Tool(_)));
                waiting.push((role, files.get(&pid.0).ok_or(WitnessError::Missing { role, pid: pid.0 })?));
            }
            if parts.name == "execve" && parts.result == "0" {
                break;
            }
        }
        outlines.push(Outline { role, calls, killed });
    }
    outlines.sort_by_key(|outline| outline.role);
    Ok(outlines)
}

/// The first difference of each process.
#[must_use]
pub fn compare(left: &[Outline], right: &[Outline]) -> Vec<Difference> {
    let calls = |outlines: &[Outline], role| -> (Vec<String>, bool) {
        let found = outlines.iter().find(|outline| outline.role == role);
        found.map(|outline| (outline.calls.clone(), outline.killed)).unwrap_or_default()
    };
    let mut roles: Vec<Role> = left.iter().chain(right).map(|outline| outline.role).collect();
    roles.sort_unstable();
    roles.dedup();
    let mut differences = Vec::new();
    for role in roles {
        let ((left, one_killed), (right, other_killed)) = (calls(left, role), calls(right, role));
        let same = left.iter().zip(&right).take_while(|(left, right)| left == right).count();
        let short = one_killed && other_killed && same == left.len().min(right.len());
        if left != right && !short {
            let around = |calls: &[String]| {
                let numbered = calls.iter().enumerate().skip(same.saturating_sub(CONTEXT));
                numbered
                    .take_while(|(index, _)| *index <= same + CONTEXT)
                    .map(|(index, call)| (index + 1, call.clone()))
                    .collect()
            };
            let (left, right) = (around(&left), around(&right));
            differences.push(Difference { section: role.to_string(), line: same + 1, left, right });
        }
    }
    differences
}
