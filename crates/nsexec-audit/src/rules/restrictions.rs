//! Checks the order in which a process restricts itself before it becomes the command.

use std::format;
use std::vec::Vec;

use super::reading::succeeded;
use super::{Facts, Finding, Rule, Severity};
use crate::record::{Call, Line};
use crate::transcript::Run;

pub(super) const NO_NEW_PRIVS_FIRST: Rule = Rule {
    name: "no-new-privs-first",
    reason: "A process sets no_new_privs before a seccomp filter or a Landlock rule set: without it the kernel refuses \
             both to a process without CAP_SYS_ADMIN, and a set-user-id program could run under a filter that makes it fail.",
    reference: "seccomp(2); landlock(7); PR_SET_NO_NEW_PRIVS(2const)",
    severity: Severity::Breach,
    check: no_new_privs_first,
};

pub(super) const FILTER_LAST: Rule = Rule {
    name: "filter-last",
    reason: "After the seccomp filter a process only executes the command, or reports that it cannot: the filter is made \
             for the command, and would refuse other steps.",
    reference: "seccomp(2)",
    severity: Severity::Breach,
    check: filter_last,
};

pub(super) const IDS_FIRST: Rule = Rule {
    name: "ids-before-capabilities",
    reason: "A process sets its ids and groups before its capability sets: the sets that it gives up hold the \
             capabilities for that, and a change of the user id changes the sets again.",
    reference: "capabilities(7), \"Effect of user ID changes on capabilities\"",
    severity: Severity::Breach,
    check: ids_first,
};

/// Returns a finding for each call that is `wrong` after a line that `begins`.
fn after(
    run: &Run,
    begins: impl Fn(&Line) -> bool,
    wrong: impl Fn(&Call) -> bool,
    text: &str,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for section in &run.sections {
        let mut begun = false;
        for (index, line) in section.lines.iter().enumerate() {
            if begun && wrong(&line.call) {
                findings.push(Finding::on(section, index, format!("{} {text}", line.call.name())));
            }
            begun |= begins(line);
        }
    }
    findings
}

fn no_new_privs_first(run: &Run, _facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for section in &run.sections {
        let mut set = false;
        for (index, line) in section.lines.iter().enumerate() {
            let restricts =
                matches!(line.call, Call::SetSeccompFilter { .. } | Call::LandlockRestrictSelf { .. });
            if restricts && !set {
                let text = format!("{} without no_new_privs", line.call.name());
                findings.push(Finding::on(section, index, text));
            }
            set |= line.call == Call::SetNoNewPrivs && succeeded(line);
        }
    }
    findings
}

fn filter_last(run: &Run, _facts: &Facts) -> Vec<Finding> {
    let begins = |line: &Line| matches!(line.call, Call::SetSeccompFilter { .. }) && succeeded(line);
    // The last five report that no file could be executed.
    let allowed = |call: &Call| {
        matches!(
            call,
            Call::Execve { .. }
                | Call::LinkCount { .. }
                | Call::Sigprocmask { .. }
                | Call::Getpid
                | Call::WriteNowait { .. }
                | Call::Write { .. }
                | Call::Poll { .. }
        )
    };
    after(run, begins, |call| !allowed(call), "after the seccomp filter")
}

fn ids_first(run: &Run, _facts: &Facts) -> Vec<Finding> {
    let begins = |line: &Line| matches!(line.call, Call::SetCapabilities { .. }) && succeeded(line);
    let wrong = |call: &Call| {
        matches!(
            call,
            Call::Setuid { .. }
                | Call::Setgid { .. }
                | Call::Setresuid { .. }
                | Call::SetGroups { .. }
                | Call::DropGroups
                | Call::DropBounding { .. }
        )
    };
    after(run, begins, wrong, "after the capability sets")
}
