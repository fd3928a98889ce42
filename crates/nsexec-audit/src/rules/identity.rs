//! Checks the user, group and session ids of the stages.

use std::format;
use std::string::String;
use std::vec::Vec;

use super::facts::{Request, Shape};
use super::reading::{changes_identity, go_message_at, message_at, sets_ids_of_command, succeeded};
use super::{Facts, Finding, Rule, Severity};
use crate::record::{Call, Line, Reply};
use crate::transcript::{Role, Run, Section};
use nsexec::bootstrap::dialect::Dialect;
use nsexec::launch::LaunchPolicy;
use nsexec::policy::{Session, Setgroups};
use nsexec::sync::SyncMessage;
use nsexec::sys::types::{CloneFlags, Errno};

pub(super) const AS_ASKED: Rule = Rule {
    name: "identity-as-asked",
    reason: "Stage 1 becomes root in its user namespace before it creates anything there. Stage 2 reports that it has \
             finished only after setsid, setuid(0), setgid(0) and the drop of the caller's groups, each if it was \
             requested: a group that stays gives the container access to files. If root comes last, stage 2 changes \
             its ids only after the go byte: with them, the container's root could kill or limit it. In a direct start the \
             command's process takes these steps before it creates the remaining namespaces. In a start through a child \
             stage 2 takes them before its exec, and in a start in place the launcher does.",
    reference: "CVE-2018-7169, CVE-2022-2995; runc#4466; docs/protocol.md#groups",
    severity: Severity::Breach,
    check: as_asked,
};

fn as_asked(run: &Run, facts: &Facts) -> Vec<Finding> {
    let Some(asked) = &facts.asked else { return Vec::new() };
    let of_stage_1 = run.section(Role::Stage(1)).and_then(|section| root_first(section, facts));
    let shape = Shape::of(run);
    let last = Role::Stage(if shape == Shape::InPlace { 1 } else { 2 });
    let of_stage_2 = run.section(last).map(|section| stage_2(section, shape, facts, asked));
    of_stage_1.into_iter().chain(of_stage_2.into_iter().flatten()).collect()
}

/// Returns the first step of stage 1 in a user namespace before it is root there.
fn root_first(section: &Section, facts: &Facts) -> Option<Finding> {
    let root = facts.root_at_once();
    // runc 1.2.1 and later also call setresuid after a join.
    let joins = facts.policy.dialect.name() == Dialect::V1_2.name();
    let mut owed = false;
    for (index, line) in section.lines.iter().enumerate() {
        let what = match line.call {
            Call::Setresuid { .. } if !root => "changes its user id, which was not asked for".into(),
            Call::Setresuid { uid: 0 } if succeeded(line) => {
                owed = false;
                continue;
            }
            Call::Setresuid { uid } if uid != 0 => format!("becomes user {uid}"),
            Call::Unshare { .. } | Call::Setns { .. } | Call::CloneSibling { .. } if owed => {
                format!("{} before it is root in the user namespace", line.call.name())
            }
            Call::Unshare { flags } if succeeded(line) => {
                owed |= root && flags.contains(CloneFlags::NEWUSER);
                continue;
            }
            Call::Setns { kind: CloneFlags::NEWUSER, .. } if succeeded(line) => {
                owed |= root && joins;
                continue;
            }
            _ => continue,
        };
        return Some(Finding::on(section, index, what));
    }
    None
}

/// Returns the ids of the command that no call has set, by the names of the calls.
fn missing_ids(lines: &[Line], asked: LaunchPolicy) -> Vec<&'static str> {
    type Set = fn(&Call) -> bool;
    let set = |is: Set| {
        lines.iter().any(|line| is(&line.call) && succeeded(line) && sets_ids_of_command(&line.call, asked))
    };
    let steps: [(bool, &str, Set); 3] = [
        (asked.groups, "setgroups", |call| matches!(call, Call::SetGroups { .. })),
        (asked.gid.is_some(), "setgid", |call| matches!(call, Call::Setgid { .. })),
        (asked.uid.is_some(), "setuid", |call| matches!(call, Call::Setuid { .. })),
    ];
    steps.into_iter().filter(|(asked, _, is)| *asked && !set(*is)).map(|(_, name, _)| name).collect()
}

/// Whether a step is requested, its name, and the test for its line.
type Step = (bool, &'static str, fn(&Line) -> bool);

/// Checks the identity of stage 2 when it reports that it has finished.
fn stage_2(section: &Section, shape: Shape, facts: &Facts, asked: &Request) -> Vec<Finding> {
    let policy = facts.policy;
    let (root, last) = (facts.root_at_once(), facts.root_last());
    // The table in docs/protocol.md#groups, implemented a second time, independently of the core.
    let drops = match policy.setgroups {
        Setgroups::FromMessage => asked.setgroup && !asked.rootless,
        Setgroups::DropIfAllowed => true,
        Setgroups::Deny | Setgroups::Allow => false,
    };
    let steps: [Step; 4] = [
        (policy.session == Session::New, "setsid", |line| line.call == Call::Setsid),
        (root, "setuid(0)", |line| line.call == Call::Setuid { uid: 0 }),
        (root, "setgid(0)", |line| line.call == Call::Setgid { gid: 0 }),
        (root && drops, "setgroups(0, NULL)", |line| line.call == Call::DropGroups),
    ];
    let last_steps: [Step; 3] = [
        (last, "setuid(0)", |line| line.call == Call::Setuid { uid: 0 }),
        (last, "setgid(0)", |line| line.call == Call::Setgid { gid: 0 }),
        (last && drops, "setgroups(0, NULL)", |line| line.call == Call::DropGroups),
    ];
    let made = |line: &Line| {
        let may_be_denied = policy.setgroups == Setgroups::DropIfAllowed;
        let denied = may_be_denied && line.reply == Reply::Errno(Errno::EPERM);
        succeeded(line) || line.call == Call::DropGroups && denied
    };
    let finished = message_at(section, true, SyncMessage::ChildFinish);
    let go = go_message_at(section, shape);
    let missing = |steps: &[Step], until: usize| {
        let before = section.lines.get(..until).unwrap_or_default();
        let missing =
            steps.iter().filter(|(asked, _, is)| *asked && !before.iter().any(|line| is(line) && made(line)));
        let missing: Vec<&str> = missing.map(|(_, name, _)| *name).collect();
        (!missing.is_empty()).then(|| missing.join(" and "))
    };
    let all = [&steps[..], &last_steps].concat();
    let mut findings = Vec::new();
    for (index, line) in section.lines.iter().enumerate() {
        let in_time = shape == Shape::InPlace || go.is_some_and(|at| at < index);
        let mut asked = steps.iter().chain(last_steps.iter().filter(|_| in_time));
        let of_command = in_time && sets_ids_of_command(&line.call, policy.launch);
        // Another function checks this step of stage 1.
        let of_stage_1 = shape == Shape::InPlace && matches!(line.call, Call::Setresuid { .. });
        if changes_identity(&line.call)
            && !of_command
            && !of_stage_1
            && !asked.any(|(asked, _, is)| *asked && is(line))
        {
            findings.push(Finding::on(section, index, format!("{} was not asked for", line.call.name())));
        }
        let late = match finished == Some(index) {
            true => missing(&steps, index).map(|missing| format!("has finished without {missing}")),
            // A direct start has the user namespace first, then root in it, then the others.
            false if shape == Shape::Direct && matches!(line.call, Call::Unshare { .. }) => {
                missing(&steps, index).map(|missing| format!("creates namespaces without {missing}"))
            }
            false if matches!(line.call, Call::Execve { .. }) => {
                let before_exec = match shape {
                    Shape::Stages => missing(&last_steps, index),
                    Shape::Direct | Shape::Child | Shape::InPlace => missing(&all, index),
                };
                let ids = missing_ids(section.lines.get(..index).unwrap_or_default(), policy.launch);
                let missing: Vec<String> =
                    before_exec.into_iter().chain(ids.into_iter().map(String::from)).collect();
                (!missing.is_empty())
                    .then(|| format!("executes the command without {}", missing.join(" and ")))
            }
            false => None,
        };
        findings.extend(late.map(|what| Finding::on(section, index, what)));
    }
    findings
}
