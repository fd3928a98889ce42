//! Checks that the user namespace is created before the namespaces that it will own.

use std::format;
use std::vec::Vec;

use super::facts::{Shape, starts_directly};
use super::reading::{go_message_at, message_at, succeeded};
use super::{Facts, Finding, Rule, Severity};
use crate::record::{Call, Line, Reply};
use crate::transcript::{Role, Run, Section};
use nsexec::legacy::{CGROUP_BYTE, CgroupPlacement};
use nsexec::sync::SyncMessage;
use nsexec::sys::types::CloneFlags;

pub(super) const FIRST: Rule = Rule {
    name: "user-namespace-first",
    reason: "Only stage 1 creates namespaces, except for the cgroup namespace of 1.0 and 1.1. Stage 2 creates that one \
             after the messages of stage 0 and the launcher. The user namespace comes first, alone, and is mapped before \
             stage 1 becomes root in it and creates the others: they are then owned by its root. In a direct start the init \
             has this part; it is created with the user namespace, and with the pid namespace, which is for children only. \
             A start through a child creates no user namespace. In a start in place the launcher has the part of stage 1.",
    reference: "docs/protocol.md#what-happens-in-order; runc#4466 (SELinux label of mqueue)",
    severity: Severity::Breach,
    check: first,
};

fn first(run: &Run, facts: &Facts) -> Vec<Finding> {
    let shape = Shape::of(run);
    let mut findings = Vec::new();
    for section in &run.sections {
        let direct = starts_directly(section);
        let mapped = match direct {
            true => go_message_at(section, shape),
            false => message_at(section, false, SyncMessage::UsermapAck),
        };
        // In a start through a child, stage 1 sends only a pid.
        let asks = message_at(section, true, SyncMessage::UsermapPls).filter(|_| shape != Shape::Child);
        let mut has_user = false;
        for (index, line) in section.lines.iter().enumerate() {
            let is_mapped = mapped.is_some_and(|at| at < index);
            let what = match line.call {
                Call::CloneInit { namespaces, .. } => {
                    has_user |= line.reply == Reply::Child && namespaces.contains(CloneFlags::NEWUSER);
                    let others = namespaces.without(CloneFlags::NEWUSER).without(CloneFlags::NEWPID);
                    match namespaces.contains(CloneFlags::NEWUSER) && others != CloneFlags::EMPTY {
                        true => format!("clone({namespaces}): the user namespace together with others"),
                        false => continue,
                    }
                }
                Call::Unshare { flags: CloneFlags::NEWCGROUP }
                    if section.role == Role::Stage(2) && facts.cgroup_in_stage_2() =>
                {
                    match cgroup_allowed_at(section, facts).is_some_and(|at| at < index) {
                        true => continue,
                        false => "creates the cgroup namespace before the messages that permit it".into(),
                    }
                }
                Call::Unshare { flags } if section.role != Role::Stage(1) && !direct => {
                    format!("unshare({flags}) outside of stage 1")
                }
                Call::Unshare { flags }
                    if matches!(shape, Shape::Direct | Shape::Child)
                        && flags.contains(CloneFlags::NEWUSER) =>
                {
                    format!("unshare({flags}): the launcher cannot map this user namespace")
                }
                Call::Unshare { flags: CloneFlags::NEWUSER } => {
                    has_user |= succeeded(line);
                    continue;
                }
                Call::Unshare { flags } if flags.contains(CloneFlags::NEWUSER) => {
                    format!("unshare({flags}): the user namespace together with others")
                }
                Call::Unshare { flags } if facts.creates_user() && !(has_user && is_mapped) => {
                    format!("unshare({flags}) before the user namespace is there and mapped")
                }
                _ if asks == Some(index) && !has_user => {
                    "asks for maps before the user namespace is there".into()
                }
                Call::Setresuid { .. } | Call::Setuid { .. } if has_user && !is_mapped => {
                    "changes its user id before the user namespace is mapped".into()
                }
                _ => continue,
            };
            findings.push(Finding::on(section, index, what));
        }
    }
    findings
}

/// Returns the index of the line at which stage 2 may create its cgroup namespace. It needs stage 0's
/// message, and in 1.0 the launcher's byte.
fn cgroup_allowed_at(section: &Section, facts: &Facts) -> Option<usize> {
    let go = message_at(section, false, SyncMessage::Grandchild)?;
    if facts.policy.dialect.legacy.cgroup_namespace != CgroupPlacement::Stage2AfterByte {
        return Some(go);
    }
    let is_byte = |line: &Line| matches!(&line.reply, Reply::Data(data) if data.0 == [CGROUP_BYTE]);
    section.lines.iter().position(is_byte).filter(|at| go < *at)
}
