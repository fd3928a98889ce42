//! Checks rules that hold in every run: planned, recorded or witnessed, complete or cut short by a fault.
//!
//! Each rule is a function over the lines, with its reason and a reference. A run in which a process was
//! killed, or a call failed, still follows the rules up to that point. No rule requires that something
//! happens in the end. A rule requires that something happened before, or forbids that it happens after.

mod acknowledged;
mod descriptors;
mod dumpable;
mod facts;
mod failure;
mod first_steps;
mod given_up;
mod identity;
mod in_place;
mod joins;
mod maps;
mod minimal_init;
mod mounts;
mod named;
mod protocol;
mod reading;
mod restrictions;
mod shared_memory;
#[cfg(test)]
mod tests;
mod tree;
mod user_namespace;

use core::fmt;

use std::string::{String, ToString};
use std::vec::Vec;

use super::sections::Site;
use super::transcript::{Role, Run, Section};

pub(crate) use facts::MESSAGE;
pub use facts::{Facts, Request, message_note};

/// The severity of a finding.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Severity {
    /// Worth knowing, but the caller's decision.
    Warning,
    /// The run breaks a guarantee.
    Breach,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Warning => "warning",
            Self::Breach => "breach",
        })
    }
}

/// One rule.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// A short name, for tests and for `plan --rules`.
    pub name: &'static str,
    /// The condition, and the reason for it.
    pub reason: &'static str,
    /// The source of the reason: a CVE, a runc issue or commit, a manual page, or docs/protocol.md.
    pub reference: &'static str,
    /// The severity of its findings.
    pub severity: Severity,
    /// The function that returns the rule's findings in a run.
    pub check: fn(&Run, &Facts) -> Vec<Finding>,
}

/// A place where a rule does not hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// The rule's name, filled in by [`check`].
    pub rule: &'static str,
    /// The rule's severity, filled in by [`check`].
    pub severity: Severity,
    /// The section's name, or empty for the whole run.
    pub section: String,
    /// The number of the line, from 1, if the finding is about one line.
    pub line: Option<usize>,
    /// The description.
    pub what: String,
}

impl Finding {
    fn at(site: Site<'_>, what: impl Into<String>) -> Self {
        Self::on(site.section, site.index, what)
    }

    fn on(section: &Section, index: usize, what: impl Into<String>) -> Self {
        let line = Some(index + 1);
        Self { rule: "", severity: Severity::Breach, section: section.name.clone(), line, what: what.into() }
    }

    fn of_run(what: impl Into<String>) -> Self {
        let section = String::new();
        Self { rule: "", severity: Severity::Breach, section, line: None, what: what.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of rule {}", self.severity, self.rule)?;
        if !self.section.is_empty() {
            write!(f, ", {}", self.section)?;
        }
        if let Some(line) = self.line {
            write!(f, " line {line}")?;
        }
        write!(f, ": {}", self.what)
    }
}

/// All rules, in the order in which a run meets them.
pub const RULES: &[Rule] = &[
    protocol::WHOLE,
    protocol::DECLARED,
    first_steps::COPY,
    first_steps::READY,
    descriptors::CLOSED_FIRST,
    descriptors::OWN_ONLY,
    descriptors::NONE_LEFT,
    named::NAMED_ONLY,
    dumpable::NOT_WHILE_JOINING,
    dumpable::WINDOW,
    joins::FROM_A_COPY,
    joins::OPENED_FIRST,
    joins::CHECKED,
    joins::NO_PROC_AFTER_MOUNT,
    joins::AS_ASKED,
    joins::CGROUP,
    user_namespace::FIRST,
    maps::ONCE,
    acknowledged::ACKNOWLEDGED,
    maps::OWN_PROC,
    maps::CHECKED,
    maps::SETGROUPS,
    maps::TOOL,
    mounts::SOURCES,
    tree::NO_MOUNT_AFTER,
    restrictions::NO_NEW_PRIVS_FIRST,
    restrictions::FILTER_LAST,
    restrictions::IDS_FIRST,
    minimal_init::MINIMAL_INIT,
    identity::AS_ASKED,
    failure::NOTHING_AFTER,
    protocol::PID_LINE,
    protocol::STAGE_2_WAITS,
    given_up::ONE_INIT,
    in_place::IN_PLACE,
    shared_memory::SHARED_MEMORY,
    protocol::ENDS_WITH_LAUNCHER,
    protocol::KILLS,
    protocol::RECORDS,
];

/// Returns the findings of all rules. If the launcher gave up a direct start for the stages, each of the two
/// starts is checked on its own. The launcher of a start in place is checked as stage 1.
#[must_use]
pub fn check(run: &Run, facts: &Facts) -> Vec<Finding> {
    let view = in_place::view(run, facts);
    let run = view.as_ref().unwrap_or(run);
    let parts = given_up::parts(run);
    let mut findings = Vec::new();
    for rule in RULES {
        let found = match &parts {
            Some(parts) if rule.name != given_up::ONE_INIT.name => of_parts(rule, parts, facts),
            _ => (rule.check)(run, facts),
        };
        let Rule { name: rule, severity, .. } = *rule;
        findings.extend(found.into_iter().map(|finding| Finding { rule, severity, ..finding }));
    }
    findings
}

/// Returns the findings of one rule in both parts of a run. Those on the whole run are the same in both.
fn of_parts(rule: &Rule, parts: &given_up::Parts, facts: &Facts) -> Vec<Finding> {
    let mut findings = (rule.check)(&parts.direct, facts);
    for mut finding in (rule.check)(&parts.stages, facts) {
        let launcher = parts.stages.section(Role::Launcher);
        if launcher.is_some_and(|launcher| launcher.name == finding.section) {
            finding.line = finding.line.map(|line| line + parts.lines);
        }
        if finding.line.is_some() || !findings.contains(&finding) {
            findings.push(finding);
        }
    }
    findings
}

/// Returns the list of rules as text, one paragraph for each rule. `plan --rules` prints it.
#[must_use]
pub fn listing() -> String {
    let one = |rule: &Rule| {
        std::format!("{} ({})\n    {}\n    {}\n", rule.name, rule.severity, rule.reason, rule.reference)
    };
    RULES.iter().map(one).collect::<String>().trim_end().to_string()
}
