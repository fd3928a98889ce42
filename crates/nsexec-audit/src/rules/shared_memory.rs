//! Checks the process of a direct start that shares the launcher's memory.

use core::str::from_utf8;

use std::vec::Vec;

use super::{Facts, Finding, Rule, Severity};
use crate::record::{Call, Line, Reply};
use crate::transcript::{Role, Run, Section};
use nsexec::sys::types::CloneFlags;

pub(super) const SHARED_MEMORY: Rule = Rule {
    name: "shared-memory",
    reason: "A process that shares the launcher's memory changes no attribute of that memory, since the launcher keeps \
             it: no dumpable attribute, no oom score, no thread id in the place of the libc's. It makes no call that the \
             kernel refuses in a shared memory.",
    reference: "src/launch/shared.rs; clone(2), CLONE_VM; Linux 6.18, kernel/time/namespace.c \
                (timens_install) and fs/proc/base.c (__set_oom_adj)",
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
            findings.extend(wrong(section, line, facts).map(|what| Finding::on(section, index, what)));
        }
    }
    findings
}

/// Returns a description of what is wrong with a line of the launcher or of the process.
fn wrong(section: &Section, line: &Line, facts: &Facts) -> Option<&'static str> {
    let in_process = section.role != Role::Launcher;
    let is_score = |path: &[u8]| from_utf8(path).is_ok_and(|path| path.ends_with("oom_score_adj"));
    Some(match &line.call {
        Call::CloneInit { shared: true, .. } if facts.policy.launch.copied_memory => {
            "shares the memory although the policy asks for a copy"
        }
        Call::CloneInit { shared: true, tid: Some(_), .. } => {
            "writes the thread id of the new process into the memory of the launcher"
        }
        Call::Openat { path, .. } | Call::Openat2 { path, .. } if is_score(&path.0) => {
            "opens the oom score of a process that shares its memory"
        }
        Call::SetDumpable { .. } if in_process => "changes the dumpable attribute of the launcher's memory",
        Call::Setns { kind, .. } if in_process && *kind == CloneFlags::NEWTIME => {
            "enters a time namespace in a shared memory"
        }
        _ => return None,
    })
}
