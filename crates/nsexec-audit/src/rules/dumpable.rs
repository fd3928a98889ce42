//! Checks which processes can be traced while they hold privileges or descriptors of the host.

use std::vec::Vec;

use super::facts::{Shape, starts_directly};
use super::reading::{may_follow_failure, message_at, reports, succeeded};
use super::shared_memory::shares_memory;
use super::{Facts, Finding, Rule, Severity};
use crate::record::Call;
use crate::sections::inherit;
use crate::transcript::{Role, Run, Section};
use nsexec::sync::SyncMessage;
use nsexec::sys::types::CloneFlags;

pub(super) const NOT_WHILE_JOINING: Rule = Rule {
    name: "not-dumpable-while-joining",
    reason: "From the first join on, processes of the joined namespaces could trace a stage and reach the host through \
             its descriptors, so it is non-dumpable before.",
    reference: "CVE-2016-9962; docs/protocol.md#dumpable",
    severity: Severity::Breach,
    check: not_while_joining,
};

pub(super) const WINDOW: Rule = Rule {
    name: "dumpable-window",
    reason: "Only stage 1 becomes dumpable again, and only if an unprivileged stage 0 could not write its maps \
             otherwise. The window opens just before the request for the maps, closes when they are acknowledged, \
             and never opens in a joined user or pid namespace.",
    reference: "CVE-2015-8709, CVE-2016-9962; docs/protocol.md#dumpable; runc#975",
    severity: Severity::Breach,
    check: window,
};

fn not_while_joining(run: &Run, facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    // A program is dumpable after its exec, unless it changes that.
    inherit(run, &true, |dumpable, site| match site.line.call {
        Call::SetDumpable { dumpable: wanted } if succeeded(site.line) => *dumpable = wanted,
        // Stage 0 joins the new container's mount namespace for its mount sources. Only stage 1 is in that
        // namespace. If anything was joined before, stage 0 is not dumpable.
        Call::Setns { kind: CloneFlags::NEWNS, .. }
            if site.section.role == Role::Stage(0)
                && facts.asked.as_ref().is_some_and(|asked| !asked.lists_namespaces) => {}
        // The init of a direct start enters its own new time namespace, which has no other process.
        Call::Setns { kind: CloneFlags::NEWTIME, .. } if starts_directly(site.section) => {}
        // So does the launcher of a start in place.
        Call::Setns { kind: CloneFlags::NEWTIME, .. }
            if Shape::of(run) == Shape::InPlace
                && facts.asked.as_ref().is_some_and(|asked| asked.created.contains(CloneFlags::NEWTIME)) => {}
        Call::Setns { kind, .. } if *dumpable => {
            findings.push(Finding::at(site, std::format!("setns({kind}) while dumpable")));
        }
        _ => {}
    });
    findings
}

/// The namespaces that a process has joined, and whether it has a child.
#[derive(Clone, Copy, Default)]
struct Place {
    foreign_user: bool,
    foreign_pid_for_children: bool,
    has_child: bool,
}

fn window(run: &Run, facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    inherit(run, &Place::default(), |place, site| {
        let what = match site.line.call {
            Call::Setns { kind, .. } if succeeded(site.line) => {
                place.foreign_user |= kind == CloneFlags::NEWUSER;
                place.foreign_pid_for_children |= kind == CloneFlags::NEWPID;
                return;
            }
            Call::CloneSibling { .. } => {
                place.has_child |= site.line.reply.child().is_some();
                return;
            }
            // The rule shared-memory checks a launcher that shares its memory.
            Call::SetDumpable { dumpable: true } if shares_memory(site.section) => return,
            Call::SetDumpable { dumpable: true } if succeeded(site.line) => {
                let asked = facts.asked.as_ref();
                let privileged = asked.is_some_and(|asked| !asked.rootless);
                let for_nothing = asked.is_some_and(|_| !facts.creates_user());
                if site.section.role != Role::Stage(1) {
                    "dumpable in another process than stage 1"
                } else if place.foreign_user {
                    "dumpable in a foreign user namespace"
                } else if place.has_child && place.foreign_pid_for_children {
                    "dumpable while stage 2 is in a foreign pid namespace"
                } else if privileged {
                    "dumpable although stage 0 is privileged"
                } else if for_nothing {
                    "dumpable although no map is to be written"
                } else {
                    let in_place = Shape::of(run) == Shape::InPlace;
                    findings.extend(open_window(site.section, site.index, in_place));
                    return;
                }
            }
            _ => return,
        };
        findings.push(Finding::at(site, what));
    });
    findings
}

/// Checks the lines in the open window: the request, the wait, and the closing line. After a failure the
/// process may end instead.
fn open_window(section: &Section, opened: usize, in_place: bool) -> Option<Finding> {
    let acknowledged = message_at(section, false, SyncMessage::UsermapAck);
    let mut asked = false;
    for (index, line) in section.lines.iter().enumerate().skip(opened + 1) {
        let what = match &line.call {
            Call::SetDumpable { dumpable: false } => return None,
            // The launcher of a start in place gives up: it waits for its helper.
            Call::Wait4 { .. } if in_place => return None,
            _ if reports(line) || may_follow_failure(line) => continue,
            // A plain write if the pipe is not a socket; it may take several.
            Call::Send { .. } | Call::Write { .. } if asked && acknowledged.is_none_or(|at| index < at) => {
                continue;
            }
            Call::Send { data, .. } | Call::Write { data, .. } if !asked => {
                asked = true;
                if data.0 == SyncMessage::UsermapPls.value().to_ne_bytes() {
                    continue;
                }
                "asks in the dumpable window for something else than its maps"
            }
            Call::Read { .. } if asked && acknowledged.is_none_or(|at| index <= at) => continue,
            Call::Read { .. } => "waits in the dumpable window for something else than its maps",
            _ => "goes on in the dumpable window",
        };
        return Some(Finding::on(section, index, what));
    }
    None
}
