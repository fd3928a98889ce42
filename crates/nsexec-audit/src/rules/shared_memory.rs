//! Checks the process of a direct start that shares the launcher's memory.

use core::str::from_utf8;

use std::vec::Vec;

use super::{Facts, Finding, Rule, Severity};
use crate::record::{Call, Line, Reply};
use crate::transcript::{Role, Run, Section};
use nsexec::idmap::parse_line;
use nsexec::launch::script::GO;
use nsexec::sys::types::{CloneFlags, Errno};

pub(super) const SHARED_MEMORY: Rule = Rule {
    name: "shared-memory",
    reason: "A process that shares the launcher's memory changes no attribute of that memory, since the launcher keeps \
             it: no dumpable attribute, no oom score, no thread id in the place of the libc's. It makes no call that the \
             kernel refuses in a shared memory. It enters no cgroup, where an out-of-memory kill would also end the launcher. \
             It is no init, which keeps its memory. If it is in a new user namespace that the launcher maps with privilege, \
             or gets other ids, other processes may trace it: so the launcher is not dumpable until it has left the memory.",
    reference: "src/launch/shared.rs; clone(2), CLONE_VM; user_namespaces(7), Capabilities; Linux 6.18, kernel/time/namespace.c \
                (timens_install), fs/proc/base.c (__set_oom_adj) and mm/oom_kill.c (__oom_kill_process)",
    severity: Severity::Breach,
    check: shared_memory,
};

fn shared_memory(run: &Run, facts: &Facts) -> Vec<Finding> {
    let is_clone = |line: &Line| matches!(line.call, Call::CloneInit { shared: true, .. });
    let mut findings = Vec::new();
    for section in &run.sections {
        let Some(clone) = section.lines.iter().position(is_clone) else { continue };
        for (index, line) in section.lines.iter().enumerate().skip(clone) {
            // From its exec on the process has a memory of its own.
            if line.reply == Reply::NoReturn {
                break;
            }
            if index == clone && section.role == Role::Launcher && !hides(&section.lines, clone) {
                let lines = section.lines.get(index..).unwrap_or_default();
                if maps_with_privilege(lines, facts) {
                    let what = "shares the memory of a privileged launcher with a new user namespace";
                    findings.push(Finding::on(section, index, what));
                }
                if facts.policy.launch.changes_ids() {
                    let what = "shares the memory of a dumpable launcher with a process that changes its ids";
                    findings.push(Finding::on(section, index, what));
                }
            }
            if matches!(line.call, Call::SetDumpable { dumpable: true })
                && section.role == Role::Launcher
                && !has_left(section.lines.get(clone..index).unwrap_or_default())
            {
                findings.push(Finding::on(section, index, "becomes dumpable while its memory is shared"));
            }
            findings.extend(wrong(section, line, facts).map(|what| Finding::on(section, index, what)));
        }
    }
    findings
}

/// Returns whether this process creates one that shares its memory.
pub(super) fn shares_memory(section: &Section) -> bool {
    let shares = |line: &Line| matches!(line.call, Call::CloneInit { shared: true, .. });
    section.role == Role::Launcher && section.lines.iter().any(shares)
}

/// Returns whether the launcher is not dumpable when it creates the process.
fn hides(lines: &[Line], clone: usize) -> bool {
    let before = lines.iter().take(clone).rev();
    let set = before.filter(|line| line.reply == Reply::Unit).find_map(|line| match line.call {
        Call::SetDumpable { dumpable } => Some(dumpable),
        _ => None,
    });
    set == Some(false)
}

/// Returns whether the process has left the memory: the kernel refused to create it, the log has ended, or
/// the process was reaped. `lines` begin with its clone.
fn has_left(lines: &[Line]) -> bool {
    lines.iter().any(|line| match (&line.call, &line.reply) {
        (Call::CloneInit { .. }, Reply::Errno(_)) | (Call::Wait4 { .. }, Reply::Waited(_)) => true,
        (Call::Wait4 { .. }, Reply::Errno(errno)) => *errno == Errno::ECHILD,
        (Call::Read { .. }, Reply::Data(read)) => read.0.is_empty(),
        _ => false,
    })
}

/// Returns whether the launcher has written a map of several ids into the user namespace that the first
/// line creates. The kernel permits that only to a launcher with privileges. The process gets the go byte
/// after the maps are written.
fn maps_with_privilege(lines: &[Line], facts: &Facts) -> bool {
    let creates_user = |line: &Line| match &line.call {
        Call::CloneInit { namespaces, .. } => namespaces.contains(CloneFlags::NEWUSER),
        _ => false,
    };
    let sends_go = |line: &Line| match (&line.call, &line.reply) {
        (Call::Send { data, .. }, Reply::Count(_)) => data.0 == [GO],
        _ => false,
    };
    let maps = facts.asked.iter().flat_map(|asked| [&asked.uid_map, &asked.gid_map]);
    let ids = |text: &Vec<u8>| -> u64 {
        let lines = text.split(|byte| *byte == b'\n').filter_map(|line| parse_line(line).ok());
        lines.map(|extent| u64::from(extent.count)).sum()
    };
    let writes_long_map = maps.flatten().any(|text| ids(text) > 1);
    lines.first().is_some_and(creates_user) && writes_long_map && lines.iter().any(sends_go)
}

/// Returns a description of what is wrong with a line of the launcher or of the process.
fn wrong(section: &Section, line: &Line, facts: &Facts) -> Option<&'static str> {
    let in_process = section.role != Role::Launcher;
    let is_score = |path: &[u8]| from_utf8(path).is_ok_and(|path| path.ends_with("oom_score_adj"));
    Some(match &line.call {
        Call::CloneInit { shared: true, .. } if facts.policy.launch.copied_memory => {
            "shares the memory although the policy asks for a copy"
        }
        Call::CloneInit { shared: true, .. } if facts.policy.launch.init => {
            "shares the memory with an init, which keeps it"
        }
        Call::CloneInit { shared: true, tid: Some(_), .. } => {
            "writes the thread id of the new process into the memory of the launcher"
        }
        Call::Openat { path, .. } | Call::Openat2 { path, .. } if is_score(&path.0) => {
            "opens the oom score of a process that shares its memory"
        }
        // No other write of the process has this text.
        Call::Write { data, .. } if in_process && data.0 == b"0" => "enters a cgroup in a shared memory",
        Call::SetDumpable { .. } if in_process => "changes the dumpable attribute of the launcher's memory",
        Call::Setns { kind, .. } if in_process && *kind == CloneFlags::NEWTIME => {
            "enters a time namespace in a shared memory"
        }
        _ => return None,
    })
}
