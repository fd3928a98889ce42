//! Checks a minimal init: process 1 of a pid namespace, which creates the command's process.

use std::format;
use std::vec::Vec;

use super::{Facts, Finding, Rule, Severity};
use crate::record::{Call, Reply};
use crate::transcript::{Role, Run, Section};
use nsexec::sys::types::{Fd, Pid, Signal};

pub(super) const MINIMAL_INIT: Rule = Rule {
    name: "minimal-init",
    reason: "A minimal init is not dumpable before it creates the command's process, because its memory is a copy of the \
             launcher's. It waits for signals only after it has closed every descriptor. It forwards signals to the command \
             alone, never SIGCHLD, and none after it has reaped the command: the pid may belong to another process.",
    reference: "pid_namespaces(7); PR_SET_DUMPABLE(2const); kill(2)",
    severity: Severity::Breach,
    check: minimal_init,
};

fn minimal_init(run: &Run, _facts: &Facts) -> Vec<Finding> {
    run.sections.iter().filter(|section| section.role == Role::Stage(2)).flat_map(of_init).collect()
}

fn of_init(section: &Section) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (mut dumpable, mut closed, mut ended) = (true, false, false);
    let mut command: Option<Pid> = None;
    for (index, line) in section.lines.iter().enumerate() {
        let mut add = |what| findings.push(Finding::on(section, index, what));
        match (&line.call, &line.reply) {
            (Call::SetDumpable { dumpable: set }, Reply::Unit) => dumpable = *set,
            // The first line of a section is the clone that created the process.
            (Call::Fork { .. }, Reply::Parent(child)) => {
                command = Some(*child);
                if dumpable {
                    add("creates the command's process while its own memory can be read".into());
                }
            }
            // Without the call every number up to the usual limit is closed, from 0 on.
            (Call::CloseRange { first: 0, .. }, Reply::Unit) | (Call::Close { fd: Fd(0) }, _) => {
                closed = true;
            }
            (Call::WaitSignal { .. }, _) if !closed => {
                add("waits for a signal with the launcher's descriptors".into());
            }
            (Call::Wait4 { .. }, Reply::Waited(waited)) => ended |= Some(waited.pid) == command,
            (Call::Kill { pid, signal }, _) if command.is_some() => {
                if *signal == Signal::CHLD {
                    add(format!("forwards {signal}"));
                } else if Some(*pid) != command || ended {
                    add(format!("sends {signal} to {pid}, which is not the command"));
                }
            }
            _ => {}
        }
    }
    findings
}
