//! Checks that a process stops after a failed step.

use std::format;
use std::string::String;
use std::vec::Vec;

use super::facts::Shape;
use super::reading::{ProcFiles, StatFile, may_follow_failure, reports, succeeded};
use super::{Facts, Finding, Rule, Severity};
use crate::record::{Call, Line, Reply};
use crate::transcript::{Role, Run, Section};
use nsexec::launch::leaves_old_sys;
use nsexec::policy::Setgroups;
use nsexec::sync::SyncMessage;
use nsexec::sys::types::{CloneFlags, Errno, Mount, Signal};
use nsexec::unshare::UNSHARE_TRIES;

pub(super) const NOTHING_AFTER: Rule = Rule {
    name: "nothing-after-failure",
    reason: "After a failed join, unshare, map or change of identity, a process only reports, closes, checks whether \
             stage 1 is exiting, kills the stages that wait for it, reads the go byte, and exits. Exceptions: EINVAL \
             of unshare (five tries); EPERM of a join (one more try after the user namespace), of a map (mapping tool), or \
             of setgroups if the policy allows it; a refusal of a new /sys, which stays as it is; EINTR.",
    reference: "docs/protocol.md#failures; runc#3704, runc#4390",
    severity: Severity::Breach,
    check: nothing_after,
};

fn nothing_after(run: &Run, facts: &Facts) -> Vec<Finding> {
    let in_place = Shape::of(run) == Shape::InPlace;
    run.sections.iter().flat_map(|section| of_process(section, facts, in_place)).collect()
}

/// The state of one process.
#[derive(Default)]
struct State {
    files: ProcFiles,
    /// A step that failed permanently.
    failed: Option<String>,
    /// Joins that were refused, and may still succeed.
    outstanding: CloneFlags,
    /// The number of EINVAL replies to the current unshare.
    tries: u32,
    /// The flags of the current unshare.
    trying: Option<CloneFlags>,
    /// Whether it reports its failure to stage 0, as in the seed dialect.
    reports_failure: bool,
}

fn of_process(section: &Section, facts: &Facts, in_place: bool) -> Option<Finding> {
    let mut state = State::default();
    let mut stat = StatFile::default();
    for (index, line) in section.lines.iter().enumerate() {
        if stat.asks(line) {
            continue;
        }
        if let Some(what) = state.forbids(section, line, in_place) {
            return Some(Finding::on(section, index, what));
        }
        state.see(section, line, facts);
    }
    None
}

impl State {
    /// Returns a description if the state forbids this line.
    fn forbids(&self, section: &Section, line: &Line, in_place: bool) -> Option<String> {
        let may_follow_failure = |line: &Line| {
            may_follow_failure(line)
                || self.reports_failure && matches!(line.call, Call::Send { .. })
                || reports_failure(line)
        };
        if let Some(failed) = &self.failed {
            // The launcher of a direct start then ends and reaps the init, reads its records, and becomes
            // dumpable again.
            // That of a start in place ends the helper, and restores its signals.
            let launcher = section.role == Role::Launcher || in_place && section.role == Role::Stage(1);
            let ends = launcher
                && matches!(line.call, Call::Read { .. } | Call::Wait4 { .. } | Call::SetDumpable { .. })
                || in_place && launcher && matches!(line.call, Call::Sigaction { .. });
            // A failed stage 2 still reads the launcher's go byte. Otherwise the launcher would write to a
            // closed pipe.
            let word = section.role == Role::Stage(2) && matches!(line.call, Call::Read { len: 1, .. });
            return (!may_follow_failure(line) && !word && !ends)
                .then(|| format!("goes on with {} after {failed}", line.call.name()));
        }
        if let Some(flags) = self.trying {
            let again = line.call == Call::Unshare { flags };
            // Any other call means that the last try failed.
            let ends = in_place && matches!(line.call, Call::Read { .. } | Call::Wait4 { .. });
            if !again && !may_follow_failure(line) && !ends {
                return Some(format!("goes on with {} after unshare({flags}) failed", line.call.name()));
            }
            if again && self.tries >= UNSHARE_TRIES {
                return Some(format!("tries unshare({flags}) more than {UNSHARE_TRIES} times"));
            }
        }
        if self.outstanding != CloneFlags::EMPTY {
            let joins = matches!(line.call, Call::Setns { .. } | Call::Setresuid { .. });
            let ends = in_place && matches!(line.call, Call::Read { .. } | Call::Wait4 { .. });
            if !joins && !may_follow_failure(line) && !ends {
                let left = self.outstanding;
                return Some(format!("goes on with {} although {left} is not joined", line.call.name()));
            }
        }
        None
    }

    fn see(&mut self, section: &Section, line: &Line, facts: &Facts) {
        self.reports_failure |= reports_failure(line);
        let map = self.files.written(line).is_some();
        self.files.see(line);
        if !matches!(line.call, Call::Unshare { .. }) && !reports(line) {
            (self.trying, self.tries) = (None, 0);
        }
        if succeeded(line) {
            match line.call {
                Call::Setns { kind, .. } => self.outstanding = self.outstanding.without(kind),
                Call::Unshare { .. } => (self.trying, self.tries) = (None, 0),
                Call::Write { ref data, .. } if map && line.reply != Reply::Count(data.0.len()) => {
                    self.failed = Some("a short write of a map".into());
                }
                _ => {}
            }
            return;
        }
        let Reply::Errno(errno) = line.reply else { return };
        match line.call {
            Call::Unshare { flags } if errno == Errno::EINVAL => {
                (self.trying, self.tries) = (Some(flags), self.tries + 1);
            }
            Call::Setns { kind, .. } if errno == Errno::EPERM && section.role == Role::Stage(1) => {
                self.outstanding = self.outstanding.union(kind);
            }
            Call::DropGroups
                if errno == Errno::EPERM && facts.policy.setgroups == Setgroups::DropIfAllowed => {}
            // If this fails, the hang-up of the init pipe still reports the launcher's death. The command's
            // own parent-death signal is checked by another rule.
            Call::SetPdeathsig { signal }
                if (facts.policy.launch.ends_with_launcher || facts.policy.launch.in_place)
                    && signal != Signal::NONE => {}
            // The process then gets a copy of the launcher's memory: see the rule shared-memory.
            Call::SetDumpable { .. } if section.role == Role::Launcher && !facts.policy.launch.in_place => {}
            Call::Mount { mount: Mount::Sysfs { .. } } if leaves_old_sys(errno) => {}
            // dup3 is repeated.
            Call::Dup3 { .. } if errno == Errno::EINTR => {}
            Call::Write { .. } if map && [Errno::EPERM, Errno::EINTR].contains(&errno) => {}
            _ if map || is_step(&line.call) => {
                self.failed = Some(format!("{} failed ({})", line.call.name(), errno));
            }
            _ => {}
        }
    }
}

/// Returns whether the line sends the first value of a failure report to stage 0.
fn reports_failure(line: &Line) -> bool {
    let word = SyncMessage::Failed.value().to_ne_bytes();
    matches!(&line.call, Call::Send { data, .. } if data.0 == word)
}

/// Returns whether the process must stop if this call fails.
fn is_step(call: &Call) -> bool {
    matches!(
        call,
        Call::Setns { .. }
            | Call::Dup3 { .. }
            | Call::Unshare { .. }
            | Call::SetDumpable { .. }
            | Call::SetPdeathsig { .. }
            | Call::Setsid
            | Call::Setresuid { .. }
            | Call::Setuid { .. }
            | Call::Setgid { .. }
            | Call::DropGroups
            | Call::SetGroups { .. }
            | Call::Mount { .. }
    )
}
