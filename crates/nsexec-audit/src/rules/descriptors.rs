//! Checks descriptors: which process opens them, and which must close them when. All descriptors that we open
//! are close-on-exec: the schema cannot express any other open. A witness keeps an open without close-on-exec
//! as an undeclared call.

use std::collections::BTreeMap;
use std::format;
use std::vec::Vec;

use super::facts::{Shape, is_child, starts_directly};
use super::reading::{message_at, reports, succeeded};
use super::{Facts, Finding, Rule, Severity};
use crate::normalise::WITHHELD;
use crate::record::{Call, Line, Reply};
use crate::sections::{Site, inherit};
use crate::transcript::{End, Role, Run, Section};
use nsexec::sync::SyncMessage;
use nsexec::sys::types::{Fd, MaskHow, Received};

pub(super) const CLOSED_FIRST: Rule = Rule {
    name: "foreign-ends-closed-first",
    reason: "After a clone, a process first closes the ends that belong to other processes. With a copy left open, \
             end of file would not show the end of a process, and a dead stage would be waited for for ever.",
    reference: "docs/protocol.md#weaknesses-of-the-c-code, docs/protocol.md#failures",
    severity: Severity::Breach,
    check: closed_first,
};

pub(super) const OWN_ONLY: Rule = Rule {
    name: "closes-own-descriptors-once",
    reason: "A process closes only descriptors that it or its ancestors opened, each once. A second close may close \
             another file that has the number by then, and the caller's descriptors belong to the caller.",
    reference: "runc 04806abd3; docs/protocol.md#what-happens-in-order",
    severity: Severity::Breach,
    check: own_only,
};

pub(super) const NONE_LEFT: Rule = Rule {
    name: "no-descriptor-left",
    reason: "When stage 2 is handed over, it has no descriptor open that a stage opened. No stage is created while a \
             namespace or a file of /proc is open: the container could use it. The exception is the user \
             namespace that stage 2 joins last, which is the container's own.",
    reference: "CVE-2024-21626, CVE-2016-9962; docs/protocol.md#what-happens-in-order",
    severity: Severity::Breach,
    check: none_left,
};

/// An open descriptor, with the process that opened it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Open {
    by: Role,
    what: What,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    /// End `end` (0 or 1) of the opener's pair `number`.
    End { number: usize, end: usize },
    /// A file, a directory, or a namespace.
    File,
    /// The user namespace that stage 2 joins last.
    LastNamespace,
    /// A process, by a pidfd.
    Process,
}

#[derive(Clone, Default)]
struct Table {
    open: BTreeMap<Fd, Open>,
    /// The number of pairs that this process created.
    pairs: usize,
}

impl Table {
    /// Records a line. `last` is the path of the user namespace that stage 2 joins last.
    fn see_with(&mut self, site: Site<'_>, last: Option<&[u8]>) {
        let by = site.section.role;
        match (&site.line.call, &site.line.reply) {
            (Call::Openat { path, .. }, Reply::Fd(fd)) if last == Some(&path.0) => {
                self.open.insert(*fd, Open { by, what: What::LastNamespace });
            }
            _ => self.see(site),
        }
    }

    fn see(&mut self, site: Site<'_>) {
        let by = site.section.role;
        match (&site.line.call, &site.line.reply) {
            (_, Reply::Child) => self.pairs = 0,
            (
                Call::Openat { .. }
                | Call::Openat2 { .. }
                | Call::MemfdCreate { .. }
                | Call::OpenTree { .. }
                | Call::InetSocket
                | Call::OpenInRoot { .. },
                Reply::Fd(fd),
            ) => {
                self.open.insert(*fd, Open { by, what: What::File });
            }
            (_, Reply::Received(Received { fd: Some(fd), .. })) => {
                self.open.insert(*fd, Open { by, what: What::File });
            }
            (Call::PidfdOpen { .. }, Reply::Fd(fd)) => {
                self.open.insert(*fd, Open { by, what: What::Process });
            }
            (Call::Socketpair | Call::Pipe2, Reply::Pair(one, other)) => {
                for (end, fd) in [one, other].into_iter().enumerate() {
                    self.open.insert(*fd, Open { by, what: What::End { number: self.pairs, end } });
                }
                self.pairs += 1;
            }
            // All descriptors that we open are close-on-exec.
            (Call::Execve { .. } | Call::Execveat { .. }, Reply::NoReturn) => self.open.clear(),
            // The number is free even if close fails.
            (Call::Close { fd }, _) => {
                self.open.remove(fd);
            }
            _ => {}
        }
    }
}

/// Returns the ends that a process must close after the clone that created it or its child: the creator of
/// the pairs, the end, and the numbers of the pairs.
fn foreign_ends(
    section: &Section,
    reply: &Reply,
    has_launcher: bool,
    in_place: bool,
) -> Option<(Role, usize, &'static [usize])> {
    const BOTH: &[usize] = &[0, 1];
    match (section.role, reply) {
        // The launcher of a start in place has the log pipe and the sync pipe of its helper. It keeps both
        // ends of the first, and the first end of the second.
        (Role::Stage(1), Reply::Parent(_)) if in_place => Some((Role::Stage(1), 1, &[1])),
        (Role::Stage(0), Reply::Child) if in_place => Some((Role::Stage(1), 0, BOTH)),
        // The launcher keeps the first end of each of its pairs, and stage 0 the second.
        (Role::Launcher, Reply::Parent(_)) => Some((Role::Launcher, 1, BOTH)),
        (Role::Launcher, Reply::ParentOfInit { .. }) => Some((Role::Launcher, 1, BOTH)),
        (Role::Stage(0), Reply::Child) if has_launcher => Some((Role::Launcher, 0, BOTH)),
        (Role::Stage(2), Reply::Child) if starts_directly(section) => Some((Role::Launcher, 0, BOTH)),
        (Role::Stage(1), Reply::Child) if is_child(section) => Some((Role::Launcher, 0, BOTH)),
        // Stage 0 keeps the second end of each sync pipe, and the other stage the first.
        (Role::Stage(0), Reply::Parent(_)) => Some((Role::Stage(0), 0, BOTH)),
        (Role::Stage(1), Reply::Child) => Some((Role::Stage(0), 1, BOTH)),
        // Stages 1 and 2 now share the ends: each closes the one that belongs to the other.
        (Role::Stage(1), Reply::Parent(_)) => Some((Role::Stage(0), 0, &[1])),
        (Role::Stage(2), Reply::Child) => Some((Role::Stage(0), 0, &[0])),
        _ => None,
    }
}

fn closed_first(run: &Run, _: &Facts) -> Vec<Finding> {
    let has_launcher = run.section(Role::Launcher).is_some();
    let in_place = Shape::of(run) == Shape::InPlace;
    let mut findings = Vec::new();
    inherit(run, &Table::default(), |table, site| {
        let is_clone = match site.line.call {
            Call::CloneSibling { .. } | Call::CloneChild { .. } | Call::CloneInit { .. } => true,
            // A mapping tool closes its inherited descriptors by its exec.
            Call::Fork { .. } => {
                let makes_stage_0 = [Role::Launcher, Role::Stage(1)].contains(&site.section.role);
                makes_stage_0 || site.line.reply == Reply::Child
            }
            _ => false,
        };
        let foreign =
            foreign_ends(site.section, &site.line.reply, has_launcher, in_place).filter(|_| is_clone);
        if let Some((by, end, numbers)) = foreign {
            let of = |open: &Open| match open.what {
                What::End { number, end: this } => open.by == by && this == end && numbers.contains(&number),
                _ => false,
            };
            let mut left: Vec<Fd> =
                table.open.iter().filter(|(_, open)| of(open)).map(|(fd, _)| *fd).collect();
            let rest = site.section.lines.iter().enumerate().skip(site.index + 1);
            for (index, line) in rest {
                match line.call {
                    Call::Close { fd } => left.retain(|open| *open != fd),
                    _ if left.is_empty() => break,
                    // A failed close ends the process. It then logs an error and kills its children.
                    Call::Kill { .. } => {}
                    // The parent-death signal comes first: it must also end a stage that is stopped.
                    Call::SetPdeathsig { .. } => {}
                    _ if reports(line) => {}
                    _ => {
                        let call = line.call.name();
                        let what = format!("{call} before the ends of other processes are closed: {left:?}");
                        findings.push(Finding::on(site.section, index, what));
                        break;
                    }
                }
            }
        }
        table.see(site);
    });
    findings
}

/// Returns whether the process is a minimal init that was refused the closing of all descriptors before this
/// line.
fn init_was_refused(site: Site<'_>) -> bool {
    let mut before = site.section.lines.iter().take(site.index);
    before
        .any(|line| matches!((&line.call, &line.reply), (Call::CloseRange { first: 0, .. }, Reply::Errno(_))))
}

fn own_only(run: &Run, _: &Facts) -> Vec<Finding> {
    let withheld: Vec<Fd> = run
        .notes
        .get(WITHHELD)
        .into_iter()
        .flat_map(|note| note.split(' '))
        .filter_map(|number| number.parse().ok().map(Fd))
        .collect();
    let hand_over = hand_over(run, Shape::of(run));
    let mut findings = Vec::new();
    inherit(run, &Table::default(), |table, site| {
        // A launcher has descriptors from before the run. After the hand-over, stage 2 closes descriptors of
        // its caller.
        let stage = match site.section.role {
            Role::Launcher => false,
            Role::Stage(2) => hand_over.is_none_or(|at| site.index < at),
            _ => true,
        };
        match site.line.call {
            // A minimal init on a kernel without close_range(2) closes every number.
            Call::Close { .. } if init_was_refused(site) => {}
            Call::Close { fd } if site.section.role == Role::Stage(0) && withheld.contains(&fd) => {}
            Call::Close { fd } if stage && !table.open.contains_key(&fd) && !closes_one_by_one(site) => {
                findings.push(Finding::at(
                    site,
                    format!("closes {}, which no process of the run has open", fd.0),
                ));
            }
            _ => {}
        }
        table.see(site);
    });
    findings
}

/// Returns whether the process closes the caller's descriptors as listed, because close_range(2) was refused.
fn closes_one_by_one(site: Site<'_>) -> bool {
    let before = site.section.lines.iter().take(site.index);
    let refused =
        |line: &Line| matches!((&line.call, &line.reply), (Call::CloseRange { .. }, Reply::Errno(_)));
    let listed = before.clone().rev().find(|line| matches!(line.call, Call::Getdents64 { .. }));
    let in_list = listed.is_some_and(|line| matches!(&line.reply, Reply::Data(data) if !data.0.is_empty()));
    in_list && before.clone().any(refused)
}

fn none_left(run: &Run, facts: &Facts) -> Vec<Finding> {
    let asked = facts.asked.as_ref().filter(|_| facts.root_last());
    let last = asked.and_then(|asked| asked.user_path.as_deref());
    let hand_over = hand_over(run, Shape::of(run));
    let mut findings = Vec::new();
    inherit(run, &Table::default(), |table, site| {
        let clones = matches!(
            site.line.call,
            Call::CloneSibling { .. } | Call::CloneChild { .. } | Call::CloneInit { .. }
        );
        let makes_stage = clones && site.line.reply.child().is_some();
        let hands_over = site.section.role == Role::Stage(2) && hand_over == Some(site.index);
        for (fd, open) in &table.open {
            let file = open.what == What::File;
            if makes_stage && file {
                findings.push(Finding::at(site, format!("makes a stage with {} open", fd.0)));
            }
            if hands_over && matches!(open.by, Role::Stage(_)) && open.what != What::LastNamespace {
                findings.push(Finding::at(site, format!("hands over with {} open", fd.0)));
            }
        }
        table.see_with(site, last);
    });
    findings
}

/// Returns the line at which stage 2 is handed over: the first line after ChildFinish that the bootstrap
/// itself does not make, or else the last line.
fn hand_over(run: &Run, shape: Shape) -> Option<usize> {
    let section = run.section(Role::Stage(2))?;
    if shape != Shape::Stages {
        // The launcher's descriptors are close-on-exec, and this process opens none that it keeps.
        return section.lines.iter().position(|line| matches!(line.call, Call::Execve { .. }));
    }
    let finished = message_at(section, true, SyncMessage::ChildFinish)?;
    let next = section.lines.iter().enumerate().skip(finished + 1).find(|(_, line)| match line.call {
        Call::Sigprocmask { how: MaskHow::Set, .. } => succeeded(line),
        Call::Mount { .. } | Call::SetPdeathsig { .. } | Call::Execve { .. } | Call::Read { .. } => true,
        _ => false,
    });
    let last = (section.end == End::HandedOver).then(|| section.lines.len().saturating_sub(1));
    next.map(|(index, _)| index).or(last)
}
