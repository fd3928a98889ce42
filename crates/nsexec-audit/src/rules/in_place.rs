//! A start in place: the launcher has the part of stage 1, and then that of stage 2. The other rules check it
//! as stage 1 of [`view`].

use std::format;
use std::vec::Vec;

use super::facts::{IN_PLACE_VIEW, Shape};
use super::reading::succeeded;
use super::{Facts, Finding, Rule, Severity};
use crate::record::{Call, Reply};
use crate::transcript::{Role, Run, Section};
use nsexec::sys::types::{CloneFlags, MaskHow, Pid, WaitStatus};

pub(super) const IN_PLACE: Rule = Rule {
    name: "in-place",
    reason: "In a start in place the launcher creates one process at most, the helper that writes the maps, and before it \
             joins or creates anything: the helper keeps the caller's namespaces. It has reaped the helper before it \
             creates another namespace than the user namespace, and before its exec. It restores the signals that it \
             has blocked for the fork, and leaves its parent-death signal as it is: its parent is not part of the launch.",
    reference: "docs/protocol.md#shapes-of-a-start; PR_SET_PDEATHSIG(2const)",
    severity: Severity::Breach,
    check: in_place,
};

/// Returns the run with the launcher as stage 1, before the helper, which inherits its state. `None` for
/// another shape.
pub(super) fn view(run: &Run, facts: &Facts) -> Option<Run> {
    let launcher = run.section(Role::Launcher).filter(|_| facts.policy.launch.in_place)?;
    let mut view =
        Run { sections: std::vec![Section { role: Role::Stage(1), ..launcher.clone() }], ..run.clone() };
    view.sections.extend(run.sections.iter().filter(|section| section.role != Role::Launcher).cloned());
    view.notes.insert(IN_PLACE_VIEW.into(), "yes".into());
    Some(view)
}

/// The state of the launcher.
#[derive(Default)]
struct State {
    helper: Option<Pid>,
    created: bool,
    entered: bool,
    blocked: bool,
    /// Whether the helper has failed.
    failed: bool,
}

fn in_place(run: &Run, _facts: &Facts) -> Vec<Finding> {
    let Some(section) = run.section(Role::Stage(1)).filter(|_| Shape::of(run) == Shape::InPlace) else {
        return Vec::new();
    };
    let mut findings = Vec::new();
    let mut state = State::default();
    for (index, line) in section.lines.iter().enumerate() {
        let what = match (&line.call, &line.reply) {
            (Call::SetPdeathsig { .. }, _) => "changes its parent-death signal".into(),
            (_, reply) if reply.child().is_some() => {
                let what = match () {
                    () if state.created => Some("creates a second process"),
                    () if state.entered => {
                        Some("creates the helper after it has joined or created a namespace")
                    }
                    () => None,
                };
                (state.helper, state.created) = (reply.child(), true);
                match what {
                    Some(what) => what.into(),
                    None => continue,
                }
            }
            (_, Reply::Waited(waited)) if Some(waited.pid) == state.helper => {
                if !matches!(waited.status, WaitStatus::Stopped(_)) {
                    state.helper = None;
                    state.failed = waited.status != WaitStatus::Exited(0);
                }
                continue;
            }
            (Call::Setns { .. } | Call::Unshare { .. }, _) if succeeded(line) => {
                state.entered = true;
                let others = matches!(line.call, Call::Unshare { flags } if flags != CloneFlags::NEWUSER);
                match state.helper {
                    Some(pid) if others => format!("creates namespaces beside the helper {pid}"),
                    _ => continue,
                }
            }
            (Call::Sigprocmask { how: MaskHow::Block, .. }, _) if succeeded(line) => {
                state.blocked = true;
                continue;
            }
            (Call::Sigprocmask { how: MaskHow::Set, .. }, _) => {
                state.blocked = false;
                continue;
            }
            (Call::Execve { .. }, _) if state.failed => {
                "executes the command although the helper has failed".into()
            }
            (Call::Execve { .. }, _) if state.helper.is_some() => {
                "executes the command beside the helper".into()
            }
            (Call::Execve { .. }, _) if state.blocked => "executes the command with signals blocked".into(),
            _ => continue,
        };
        findings.push(Finding::on(section, index, what));
    }
    findings
}
