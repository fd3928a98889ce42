//! Checks that no process changes mounts after it has left the old root, or has given up user 0.

use std::format;
use std::vec::Vec;

use super::reading::succeeded;
use super::{Facts, Finding, Rule, Severity};
use crate::record::{Call, Line};
use crate::transcript::Run;

pub(super) const NO_MOUNT_AFTER: Rule = Rule {
    name: "no-mount-after-root",
    reason: "After a process has detached the old root, every path leads into the new one, which the command may \
             control. So all mounts are made before. They are also made before the user id becomes another one than 0, \
             which takes the privilege away.",
    reference: "pivot_root(2); umount(2); CVE-2024-21626",
    severity: Severity::Breach,
    check: no_mount_after,
};

fn no_mount_after(run: &Run, _facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for section in &run.sections {
        let mut since = None;
        for (index, line) in section.lines.iter().enumerate() {
            if let (Some(what), true) = (since, changes_mounts(&line.call)) {
                findings.push(Finding::on(section, index, format!("{} {what}", line.call.name())));
            }
            since = since.or_else(|| ends_changes(line));
        }
    }
    findings
}

const fn changes_mounts(call: &Call) -> bool {
    matches!(
        call,
        Call::Mount { .. }
            | Call::OpenTree { .. }
            | Call::MoveMount { .. }
            | Call::SetMountAttributes { .. }
            | Call::MountHere { .. }
            | Call::PivotRootHere
            | Call::DetachHere
    )
}

/// Returns since when no mount may be changed, if this line begins that.
fn ends_changes(line: &Line) -> Option<&'static str> {
    match line.call {
        _ if !succeeded(line) => None,
        Call::DetachHere => Some("after the old root was left"),
        // −1 changes no id.
        Call::Setresuid { uid } | Call::Setuid { uid } if uid != 0 && uid != u32::MAX => {
            Some("after the user id has changed")
        }
        _ => None,
    }
}
