//! Divides a run in which the launcher gave up a direct start for the stages, and checks how it gave up.

use std::format;
use std::vec::Vec;

use super::facts::starts_directly;
use super::{Facts, Finding, Rule, Severity};
use crate::record::{Call, Line, Reply};
use crate::sections::GIVEN_UP;
use crate::transcript::{Role, Run, Section};
use nsexec::launch::script::GO;
use nsexec::sys::types::{Errno, Pid, Signal};

pub(super) const ONE_INIT: Rule = Rule {
    name: "one-init",
    reason: "The launcher creates one process that may execute the command. It gives up a direct start only before the \
             go byte, because the kernel refuses the clone, a map for which the message names a tool, or a file of \
             a process that is not dumpable. It kills and reaps that process before it creates the pipes of the stages. In a start through a child it creates \
             stage 1 only.",
    reference: "src/launch/direct.rs; docs/protocol.md#refusals-and-deaths-in-a-direct-start",
    severity: Severity::Breach,
    check: one_init,
};

/// The two parts of a run in which a direct start was given up.
pub(super) struct Parts {
    /// The direct start, with its process as stage 2.
    pub(super) direct: Run,
    /// The start through the stages.
    pub(super) stages: Run,
    /// The launcher's number of lines in the first part.
    pub(super) lines: usize,
}

/// Returns the parts of a run. Each of them follows the rules for its shape. `None`: the launcher gave up no
/// direct start.
pub(super) fn parts(run: &Run) -> Option<Parts> {
    let launcher = run.section(Role::Launcher)?;
    let lines = given_up_at(launcher)?;
    let (mut direct, mut stages) = (Run { sections: Vec::new(), ..run.clone() }, Run::default());
    (stages.origin, stages.notes) = (run.origin, run.notes.clone());
    for section in &run.sections {
        let mut section = section.clone();
        if section.role == Role::Launcher {
            let rest = section.lines.split_off(lines);
            stages.sections.push(Section { lines: rest, ..section.clone() });
            direct.sections.push(section);
        } else if section.role == GIVEN_UP || starts_directly(&section) {
            section.role = Role::Stage(2);
            direct.sections.push(section);
        } else {
            stages.sections.push(section);
        }
    }
    Some(Parts { direct, stages, lines })
}

/// Returns the index of the launcher's line at which the start through the stages begins, after the clone of
/// a direct start: its own init pipe, or else its fork.
fn given_up_at(launcher: &Section) -> Option<usize> {
    let is_direct = |line: &Line| matches!(line.call, Call::CloneInit { .. });
    let begins = |line: &Line| matches!(line.call, Call::Socketpair | Call::Fork { .. });
    let clone = launcher.lines.iter().position(is_direct)?;
    let begin = launcher.lines.iter().skip(clone).position(begins)?;
    Some(clone.saturating_add(begin))
}

/// Looks at the whole run, and not at each part: see [`super::check`].
fn one_init(run: &Run, facts: &Facts) -> Vec<Finding> {
    let Some(launcher) = run.section(Role::Launcher) else { return Vec::new() };
    let mut findings = Vec::new();
    let mut created = None;
    let mut child = false;
    let end = given_up_at(launcher);
    for (index, line) in launcher.lines.iter().enumerate() {
        let what = match (&line.call, created) {
            (Call::CloneInit { .. }, Some(_)) => "creates a second init".into(),
            _ if child && line.reply.child().is_some() => "creates a process beside stage 1".into(),
            (Call::CloneChild { .. }, _) => {
                child |= line.reply.child().is_some();
                continue;
            }
            (Call::CloneInit { .. }, None) => {
                created = line.reply.child();
                continue;
            }
            (_, Some(pid)) if end == Some(index) => {
                let before = launcher.lines.get(..index).unwrap_or_default();
                match gave_up(before, pid, facts) {
                    Some(what) => what,
                    None => continue,
                }
            }
            _ => continue,
        };
        findings.push(Finding::on(launcher, index, what));
    }
    findings
}

/// Checks the lines with which the launcher gave up the init with this pid. Returns a description of what is
/// wrong.
fn gave_up(lines: &[Line], pid: Pid, facts: &Facts) -> Option<std::string::String> {
    let any = |is: &dyn Fn(&Line) -> bool| lines.iter().any(is);
    let refused = |line: &Line| {
        matches!(line.call, Call::Write { .. } | Call::Openat { .. } | Call::Openat2 { .. })
            && line.reply == Reply::Errno(Errno::EPERM)
    };
    // The launcher's program was executed in another user namespace, whose root has the file.
    let hides = any(&|line| line.call == Call::SetDumpable { dumpable: false } && line.reply == Reply::Unit);
    let foreign = |line: &Line| {
        matches!(line.call, Call::Openat { .. } | Call::Openat2 { .. } | Call::Write { .. })
            && line.reply == Reply::Errno(Errno::EACCES)
    };
    let killed = |line: &Line| line.call == Call::Kill { pid, signal: Signal::KILL };
    let waited = |line: &Line| matches!(line.call, Call::Wait4 { pid: of, .. } if of == pid);
    let go = |line: &Line| matches!(&line.call, Call::Send { data, .. } if data.0 == [GO]);
    let tool = facts.asked.as_ref().is_none_or(|asked| !asked.tools.is_empty());
    Some(match () {
        () if any(&go) => format!("gives up the init {pid}, which may run"),
        () if !(tool && any(&refused) || hides && any(&foreign)) => {
            format!("gives up the init {pid} although no map needs a tool")
        }
        () if !any(&killed) => format!("creates stages beside the init {pid}, which it has not killed"),
        () if !any(&waited) => format!("creates stages before the init {pid} has ended"),
        () => return None,
    })
}
