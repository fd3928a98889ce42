//! Checks the messages between the processes and to the launcher, and their order.

use std::format;
use std::vec::Vec;

use super::facts::Shape;
use super::reading::{
    SyncValue, changes_identity, go_message_at, message_at, reports, sets_ids_of_command, succeeded,
    sync_values,
};
use super::{Facts, Finding, Rule, Severity};
use crate::record::{Call, Line, Reply};
use crate::sections::{children, pids};
use crate::transcript::{Role, Run};
use nsexec::bootstrap::dialect::PidLine;
use nsexec::launch::script::GO;
use nsexec::log::RECORD_MAX;
use nsexec::sync::SyncMessage;
use nsexec::sys::types::{Pid, Signal, WaitStatus};

pub(super) const WHOLE: Rule = Rule {
    name: "recorded-whole",
    reason: "A lost line may hide any call.",
    reference: "docs/design.md",
    severity: Severity::Warning,
    check: whole,
};

pub(super) const DECLARED: Rule = Rule {
    name: "declared",
    reason: "A stage makes only calls that the trait Sys declares, with the declared flags, above all close-on-exec. \
             Another call in a witness is missing from the record.",
    reference: "docs/design.md",
    severity: Severity::Breach,
    check: declared,
};

pub(super) const PID_LINE: Rule = Rule {
    name: "pid-line-once",
    reason: "Stage 0 writes the pid line once, with the keys of the dialect, and only when stage 2 exists: the launcher \
             relies on both processes. It is written before stage 2 may continue, since the launcher waits for the \
             line; in the seed after stage 2 has finished, since there the launcher waits for stage 0 first. In a start \
             through a child stage 1 sends the pid of stage 2, once and alone, and the launcher sends the go byte after it \
             has received the pid.",
    reference: "docs/protocol.md#the-init-pipe; runc#3498",
    severity: Severity::Breach,
    check: pid_line,
};

pub(super) const STAGE_2_WAITS: Rule = Rule {
    name: "stage-2-waits",
    reason: "Stage 2 changes nothing before stage 0's message: until then a launcher may give up. It reports that it \
             has finished only with its final identity. If it becomes root last, it joins the user namespace and becomes \
             root after the launcher's go byte. In a direct start it changes nothing before the go byte, and in a start \
             through a child only its session: processes of the caller's session can send it SIGCONT.",
    reference: "docs/protocol.md#what-happens-in-order",
    severity: Severity::Breach,
    check: stage_2_waits,
};

pub(super) const ENDS_WITH_LAUNCHER: Rule = Rule {
    name: "ends-with-launcher",
    reason: "The first call of each stage of our own launcher, and of the command's process in a direct start, requests a \
             signal at the launcher's death: a stopped process cannot notice it otherwise. Stage 0 requests SIGCONT, since \
             it may have a mapping tool to end, the others SIGKILL. The command has no such signal, unless it was asked to \
             end with the launcher.",
    reference: "PR_SET_PDEATHSIG(2const); SECURITY.md",
    severity: Severity::Breach,
    check: ends_with_launcher,
};

pub(super) const KILLS: Rule = Rule {
    name: "kills-own-processes-only",
    reason: "A stage and a launcher kill only processes of the run, each by its pid. Pids 0 and -1 mean other processes, \
             and the pid of a reaped process may have been reused.",
    reference: "runc 35e6c3bf7; kill(2)",
    severity: Severity::Breach,
    check: kills,
};

pub(super) const RECORDS: Rule = Rule {
    name: "records-whole",
    reason: "A log record is one line in one write of at most PIPE_BUF bytes, so that records of three processes do not mix.",
    reference: "docs/protocol.md#log-records; pipe(7)",
    severity: Severity::Breach,
    check: records,
};

fn whole(run: &Run, _: &Facts) -> Vec<Finding> {
    match run.lost {
        0 => Vec::new(),
        lost => std::vec![Finding::of_run(format!("{lost} lines were lost"))],
    }
}

fn declared(run: &Run, _: &Facts) -> Vec<Finding> {
    let foreign = |section: &'_ super::Section| {
        let at =
            |foreign: &crate::transcript::Foreign| Finding::on(section, foreign.after, foreign.text.clone());
        section.foreign.iter().map(at).collect::<Vec<_>>()
    };
    run.sections.iter().flat_map(foreign).collect()
}

fn pid_line(run: &Run, facts: &Facts) -> Vec<Finding> {
    let dialect = facts.policy.dialect;
    let mut findings = Vec::new();
    let stage_1 = pids(run).into_iter().find(|(role, _)| *role == Role::Stage(1));
    let stage_1 = stage_1.map(|(_, pid)| match dialect.pid_line {
        PidLine::Stages => format!("{{\"stage1_pid\":{pid},").into_bytes(),
        PidLine::PidAndFirst => format!(" \"pid_first\": {pid}}}").into_bytes(),
    });
    let mut written = 0;
    for section in &run.sections {
        let said: Vec<_> = sync_values(section).collect();
        // The message RecvpidPls, and then the pid.
        let known = said.iter().zip(said.iter().skip(1)).find_map(|(word, next)| {
            (word.is(false, SyncMessage::RecvpidPls) && !next.sent).then_some(*next)
        });
        for (index, line) in section.lines.iter().enumerate() {
            let data = match &line.call {
                Call::Send { data, .. } | Call::Write { data, .. } => &data.0,
                _ => continue,
            };
            let is_pid_line = data.starts_with(b"{\"stage1_pid\"") || data.starts_with(b"{\"pid\"");
            if !is_pid_line {
                continue;
            }
            // A send that transferred nothing is repeated, or done as a write.
            written += usize::from(succeeded(line));
            let what = if section.role != Role::Stage(0) {
                "the pid line comes from another than stage 0"
            } else if written > 1 {
                "the pid line is written a second time"
            } else if !in_time(&said, index, dialect.sends_pid_line_late()) {
                "the pid line is written at another time than this dialect's"
            } else if stage_1.as_ref().is_some_and(|pid| !names(data, pid)) {
                "the pid line names another process than stage 1"
            } else {
                let number = |word: super::reading::SyncValue| match dialect.pid_line {
                    PidLine::Stages => format!(",\"stage2_pid\":{}}}", word.value).into_bytes(),
                    PidLine::PidAndFirst => format!("{{\"pid\": {},", word.value).into_bytes(),
                };
                let pid = known.filter(|word| word.index < index).map(number);
                match pid {
                    Some(pid) if names(data, &pid) => continue,
                    Some(_) => "the pid line names another process than stage 1 did",
                    None => "the pid line is written before stage 2 is known",
                }
            };
            findings.push(Finding::on(section, index, what));
        }
    }
    if Shape::of(run) == Shape::Child {
        findings.extend(sent_pid(run));
    }
    findings
}

/// Checks the pid that stage 1 sends in a start through a child.
fn sent_pid(run: &Run) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(section) = run.section(Role::Stage(1)) {
        let created = children(section).into_iter().find(|(_, role, _)| *role == Role::Stage(2));
        // A write is to a file of /proc.
        let is_send =
            |index: usize| matches!(section.lines.get(index), Some(Line { call: Call::Send { .. }, .. }));
        let sent = sync_values(section).filter(|word| word.sent && is_send(word.index));
        for (nth, word) in sent.enumerate() {
            let what = match created {
                _ if nth > 0 => "sends a second number",
                None => "sends a pid before stage 2 exists",
                Some((at, ..)) if word.index < at => "sends a pid before stage 2 exists",
                Some((.., pid)) if u32::try_from(pid.0) != Ok(word.value) => {
                    "sends the pid of another process than stage 2"
                }
                Some(_) => continue,
            };
            findings.push(Finding::on(section, word.index, what));
        }
    }
    if let Some(launcher) = run.section(Role::Launcher) {
        let received = sync_values(launcher).into_iter().find(|word| !word.sent).map(|word| word.index);
        let is_go = |line: &Line| matches!(&line.call, Call::Send { data, .. } if data.0 == [GO]);
        let go = launcher.lines.iter().position(is_go);
        if let Some(at) = go.filter(|at| received.is_none_or(|received| *at < received)) {
            findings.push(Finding::on(launcher, at, "sends the go byte before it has the pid of stage 2"));
        }
    }
    findings
}

fn names(line: &[u8], pid: &[u8]) -> bool {
    line.windows(pid.len()).any(|part| part == pid)
}

/// Returns whether the pid line comes at the right time: before stage 2 may continue, or (`late`) after it
/// has finished.
fn in_time(said: &[SyncValue], index: usize, late: bool) -> bool {
    let go = said.iter().find(|word| word.is(true, SyncMessage::Grandchild)).map(|word| word.index);
    let finished = said
        .iter()
        .find(|word| word.is(false, SyncMessage::ChildFinish) && go.is_some_and(|at| at < word.index));
    if late { finished.is_some_and(|word| word.index < index) } else { go.is_none_or(|at| index < at) }
}

fn stage_2_waits(run: &Run, facts: &Facts) -> Vec<Finding> {
    let Some(section) = run.section(Role::Stage(2)) else { return Vec::new() };
    let shape = Shape::of(run);
    let go_message_at = go_message_at(section, shape);
    let (go, from) = match shape {
        Shape::Direct | Shape::Child => (go_message_at, "the launcher"),
        Shape::Stages | Shape::InPlace => (message_at(section, false, SyncMessage::Grandchild), "stage 0"),
    };
    let finished = message_at(section, true, SyncMessage::ChildFinish);
    let failed = SyncMessage::Failed.value().to_ne_bytes();
    let is_failure = |line: &Line| matches!(&line.call, Call::Send { data, .. } if data.0 == failed);
    let failure_at = section.lines.iter().position(is_failure);
    let mut findings = Vec::new();
    for (index, line) in section.lines.iter().enumerate() {
        let changes = changes_identity(&line.call)
            || matches!(
                line.call,
                Call::Mount { .. }
                    | Call::Execve { .. }
                    | Call::Unshare { .. }
                    | Call::Setns { .. }
                    | Call::Send { .. }
            );
        // In the seed dialect, a failing stage reports its failure at any time.
        // In a start through a child it leads its session before it waits.
        let changes = changes && !(shape == Shape::Child && line.call == Call::Setsid);
        let tells_failure = failure_at.is_some_and(|at| at <= index);
        if changes && !tells_failure && go.is_none_or(|at| index < at) {
            let what = format!("{} before the message of {from}", line.call.name());
            findings.push(Finding::on(section, index, what));
        }
        let identity = matches!(
            line.call,
            Call::Setsid
                | Call::Setuid { .. }
                | Call::Setgid { .. }
                | Call::Setresuid { .. }
                | Call::Unshare { .. }
                | Call::Setns { .. }
                | Call::DropGroups
                | Call::SetGroups { .. }
        );
        let after_go = go_message_at.is_some_and(|at| at < index);
        let last = after_go && (facts.root_last() || sets_ids_of_command(&line.call, facts.policy.launch));
        if identity && !last && finished.is_some_and(|at| at < index) {
            let what = format!("{} after it reported that it has finished", line.call.name());
            findings.push(Finding::on(section, index, what));
        }
    }
    findings
}

/// Checks the parent-death signal of each process at each of its lines. A fork clears the signal.
fn ends_with_launcher(run: &Run, facts: &Facts) -> Vec<Finding> {
    if !facts.policy.launch.ends_with_launcher {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for section in &run.sections {
        // The command of a minimal init ends with the init, which is process 1 of its pid namespace.
        let Role::Stage(number @ 0..=2) = section.role else { continue };
        let wanted = if number == 0 { Signal::CONT } else { Signal::KILL };
        // `None`: unknown after a change of ids, which clears the signal in most cases.
        let mut signal = Some(Signal::NONE);
        let own = section.lines.iter().enumerate().skip_while(|(_, line)| line.reply == Reply::Child);
        for (nth, (index, line)) in own.enumerate() {
            match (&line.call, &line.reply) {
                (Call::SetPdeathsig { signal: set }, Reply::Unit) => signal = Some(*set),
                // A seccomp filter may refuse the call. Then only the hang-up of the init pipe reports the
                // launcher's death.
                (Call::SetPdeathsig { .. }, _) if nth == 0 => continue,
                (call, _) if changes_identity(call) || matches!(call, Call::Setns { .. }) => signal = None,
                _ if nth == 0 => {
                    let what = format!("{} before it asked for {wanted}", line.call.name());
                    findings.push(Finding::on(section, index, what));
                    break;
                }
                (Call::Execve { .. }, Reply::NoReturn) if number == 2 => {
                    let wanted = if facts.policy.launch.kill_child { Signal::KILL } else { Signal::NONE };
                    if signal != Some(wanted) {
                        findings.push(Finding::on(
                            section,
                            index,
                            "the command has another parent-death signal than requested",
                        ));
                    }
                }
                _ => {}
            }
            if nth == 0 && signal != Some(wanted) {
                findings.push(Finding::on(section, index, format!("asks for another signal than {wanted}")));
            }
        }
    }
    findings
}

fn kills(run: &Run, _: &Facts) -> Vec<Finding> {
    let pids = pids(run);
    let known: Vec<Pid> = pids.iter().map(|(_, pid)| *pid).collect();
    let stage_1 = pids.iter().find(|(role, _)| *role == Role::Stage(1)).map(|(_, pid)| *pid);
    let mut findings = Vec::new();
    for section in &run.sections {
        let mut reaped = Vec::new();
        // Stage 1 has ended by then, and the launcher may reap it at any time.
        let over =
            message_at(section, false, SyncMessage::ChildFinish).filter(|_| section.role == Role::Stage(0));
        for (index, line) in section.lines.iter().enumerate() {
            match (&line.call, &line.reply) {
                (_, Reply::Waited(waited)) if !matches!(waited.status, WaitStatus::Stopped(_)) => {
                    reaped.push(waited.pid);
                }
                (Call::Kill { pid, .. }, _) if reaped.contains(pid) => {
                    findings.push(Finding::on(section, index, format!("kills {pid}, which it has reaped")));
                }
                (Call::Kill { pid, .. }, _) if Some(*pid) == stage_1 && over.is_some_and(|at| at < index) => {
                    let what = format!("kills {pid}, which has ended: the pid may have been reused");
                    findings.push(Finding::on(section, index, what));
                }
                (Call::Kill { pid, .. }, _) if !known.contains(pid) && !pid_was_sent(run, *pid) => {
                    findings.push(Finding::on(
                        section,
                        index,
                        format!("kills {pid}, which is not a process of the run"),
                    ));
                }
                _ => {}
            }
        }
    }
    findings
}

/// Returns whether a pid was sent in a message. A parent that died in its clone has no line with the child's
/// pid.
fn pid_was_sent(run: &Run, pid: Pid) -> bool {
    let number = u32::try_from(pid.0).ok();
    pid.0 > 0 && run.sections.iter().flat_map(sync_values).any(|word| Some(word.value) == number)
}

fn records(run: &Run, _: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for section in &run.sections {
        for (index, line) in section.lines.iter().enumerate() {
            let data = match &line.call {
                Call::WriteNowait { data, .. } => &data.0,
                Call::Write { data, .. } if reports(line) => &data.0,
                _ => continue,
            };
            let newlines = data.iter().filter(|byte| **byte == b'\n').count();
            if data.len() > RECORD_MAX {
                let what = format!("a record of {} bytes", data.len());
                findings.push(Finding::on(section, index, what));
            } else if newlines != 1 || !data.ends_with(b"\n") {
                findings.push(Finding::on(section, index, "a record that is not one line"));
            }
        }
    }
    findings
}
