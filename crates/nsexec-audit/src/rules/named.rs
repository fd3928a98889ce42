//! Checks the descriptors of the caller: which are closed, which are kept, and which the command inherits.

use std::format;
use std::string::{String, ToString};
use std::vec::Vec;

use super::facts::{Shape, is_first};
use super::{Facts, Finding, Rule, Severity};
use crate::record::{Call, Reply};
use crate::sections::{Site, inherit};
use crate::transcript::{Role, Run};
use nsexec::descriptors::FIRST;
use nsexec::launch::Descriptors;
use nsexec::sys::types::{Fd, OpenFlags};

pub(super) const NAMED_ONLY: Rule = Rule {
    name: "named-descriptors-only",
    reason: "If the command inherits only named descriptors, stage 0 closes all others before anything is joined. In a \
             start through a child stage 1 does so, and in a direct start the init before it creates or mounts \
             anything. It keeps its pipes and the descriptors that a later step uses. If code of the caller runs \
             before the exec, the others are marked close-on-exec instead. Each of them refers to a file outside the \
             container, and an open end of another launch's pipe delays that launch. Otherwise no stage changes the \
             caller's descriptors.",
    reference: "CVE-2024-21626, CVE-2016-9962; close_range(2)",
    severity: Severity::Breach,
    check: named_only,
};

/// The state of the caller's descriptors in one process.
#[derive(Clone, Default)]
struct Table {
    /// The ends of the launcher's pipes.
    ends: Vec<Fd>,
    /// The ranges that are closed.
    closed: Vec<(u32, u32)>,
    /// The descriptors whose flag was set or cleared after the closing, and whether it was set.
    flagged: Vec<(Fd, bool)>,
    /// Whether all descriptors are closed or close-on-exec, except the named ones.
    all: bool,
    /// Whether they are close-on-exec, and open.
    open: bool,
    /// The directory that lists them, if close_range is missing.
    list: Option<Fd>,
    joined: bool,
    /// Whether code of the caller has run.
    hook: bool,
}

impl Table {
    /// Returns a descriptor that is open, and that is neither an end nor flagged. The descriptors below the
    /// highest closed range are known.
    fn unexplained(&self) -> Option<u32> {
        let highest = self.closed.iter().map(|(first, _)| *first).max()?;
        let mut number = u32::try_from(FIRST.0).ok()?;
        while number < highest {
            let closed = self.closed.iter().find(|(first, last)| (*first..=*last).contains(&number));
            let is = |fd: &Fd| u32::try_from(fd.0) == Ok(number);
            number = match closed {
                Some((_, last)) => last.saturating_add(1),
                None if self.ends.iter().any(is) || self.flagged.iter().any(|(fd, _)| is(fd)) => {
                    number.saturating_add(1)
                }
                None => return Some(number),
            };
        }
        None
    }

    /// Notes a call that closes, marks or lists descriptors, or uses them.
    fn see(&mut self, site: Site<'_>) {
        match (&site.line.call, &site.line.reply) {
            (Call::Socketpair | Call::Pipe2, Reply::Pair(one, other))
                if site.section.role == Role::Launcher =>
            {
                self.ends.extend([*one, *other]);
            }
            (Call::CloseRangeCloexec { first }, reply) => {
                self.open = true;
                self.all |= *first == FIRST && *reply == Reply::Unit;
            }
            (Call::CloseRange { first, last }, Reply::Unit) => {
                self.closed.push((*first, *last));
                self.all |= *last == u32::MAX;
            }
            (
                Call::Openat { flags: OpenFlags::List, .. } | Call::Openat2 { flags: OpenFlags::List, .. },
                Reply::Fd(fd),
            ) => self.list = Some(*fd),
            (Call::Getdents64 { fd, .. }, Reply::Data(data)) if data.0.is_empty() => {
                self.all |= self.list == Some(*fd);
            }
            // Before `all` is set, a SetCloexec belongs to the marking of the descriptors in /proc/self/fd.
            (Call::SetCloexec { fd, on }, _) if self.all => self.flagged.push((*fd, *on)),
            (Call::Setns { .. }, _) => self.joined = true,
            (Call::RunHook { .. }, _) => self.hook = true,
            _ => {}
        }
    }
}

fn named_only(run: &Run, facts: &Facts) -> Vec<Finding> {
    let named = facts.policy.launch.descriptors == Descriptors::Named;
    let in_place = Shape::of(run) == Shape::InPlace;
    let mut findings = Vec::new();
    inherit(run, &Table::default(), |table, site| {
        // Mapping tools have a rule of their own, and so do launchers.
        if let Role::Stage(stage) = site.section.role {
            // In a start in place stage 1 is the first process, and becomes the command.
            let first = if in_place { stage == 1 } else { is_first(site.section) };
            let last = if in_place { stage == 1 } else { stage == 2 };
            let what = wrong_change(table, site, named, first)
                .or_else(|| named.then(|| too_early(run, table, site, (first, last))).flatten());
            findings.extend(what.map(|what| Finding::at(site, what)));
        }
        table.see(site);
    });
    findings
}

/// Returns the fault of a call that closes descriptors or changes their flags.
fn wrong_change(table: &Table, site: Site<'_>, named: bool, first: bool) -> Option<String> {
    let what = match &site.line.call {
        // A minimal init closes all descriptors, after the last step.
        Call::CloseRange { first: 0, .. } => return None,
        Call::CloseRangeCloexec { .. } | Call::CloseRange { .. } | Call::SetCloexec { .. } => {
            if !named {
                "closes descriptors or changes their flags, which was not requested"
            } else if !first || table.joined {
                "closes descriptors or changes their flags too late"
            } else if matches!(site.line.call, Call::SetCloexec { on: false, .. }) && !table.all {
                "names a descriptor before the others are closed"
            } else {
                return match site.line.call {
                    Call::CloseRange { first, last } => {
                        let closed =
                            |fd: &&Fd| u32::try_from(fd.0).is_ok_and(|fd| (first..=last).contains(&fd));
                        table.ends.iter().find(closed).map(|end| format!("closes its pipe {}", end.0))
                    }
                    _ => None,
                };
            }
        }
        _ => return None,
    };
    Some(what.to_string())
}

/// Returns the fault of a call that may come only after the descriptors are closed or marked.
fn too_early(run: &Run, table: &Table, site: Site<'_>, (first, last): (bool, bool)) -> Option<String> {
    let stage_0 = site.section.role == Role::Stage(0);
    let goes_on = match site.line.call {
        Call::Setns { .. } => true,
        Call::Socketpair => stage_0,
        Call::Unshare { .. } | Call::Mount { .. } => !stage_0 && first,
        _ => false,
    };
    let executes = matches!(site.line.call, Call::Execve { .. }) && last;
    if !goes_on && !executes {
        return None;
    }
    if !table.all {
        return Some(
            match executes {
                true => "executes the command with descriptors that were not named",
                false => "goes on before the descriptors are closed",
            }
            .to_string(),
        );
    }
    if let Some(number) = table.unexplained() {
        return Some(format!("keeps descriptor {number}, which is neither a pipe of the launch nor marked"));
    }
    // In a start in place they stay open: after a failure the process has them still.
    if executes && table.open && !table.hook && Shape::of(run) != Shape::InPlace {
        return Some("keeps descriptors open for code of the caller, which does not run".to_string());
    }
    let unused = |(fd, on): &&(Fd, bool)| *on && !is_used(run, *fd);
    let unused = table.flagged.iter().filter(|_| executes && !table.open).find(unused)?;
    Some(format!("keeps descriptor {}, which no step uses", unused.0.0))
}

/// Returns whether a step of the run uses this descriptor of the caller, by its number or by its path.
fn is_used(run: &Run, wanted: Fd) -> bool {
    let path = format!("/fd/{}", wanted.0);
    let by_path = |text: &str| {
        let mut text = text.to_string();
        while let Some(at) = text.find("/./").or_else(|| text.find("//")) {
            let length = if text.get(at..).is_some_and(|rest| rest.starts_with("//")) { 1 } else { 2 };
            text.replace_range(at..at.saturating_add(length), "");
        }
        text.split(&path).skip(1).any(|rest| !rest.starts_with(|next: char| next.is_ascii_digit()))
    };
    let mut lines = run.sections.iter().flat_map(|section| &section.lines);
    lines.any(|line| match &line.call {
        Call::DupTo { fd, .. } | Call::LandlockRestrictSelf { ruleset: fd } => *fd == wanted,
        // The root directory, which the launcher has opened.
        Call::Fchdir { dir } => *dir == wanted,
        // The file of a cgroup that the process enters.
        Call::Write { fd, data } if data.0 == b"0" => *fd == wanted,
        _ => by_path(&line.to_string()),
    })
}
