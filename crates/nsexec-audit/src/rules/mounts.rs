//! Checks mount sources: stage 0's steps in the mount namespace of stage 1, and stage 1's use of each source.

use std::collections::BTreeSet;
use std::format;
use std::vec::Vec;

use super::reading::{StatFile, may_follow_failure, succeeded};
use super::{Facts, Finding, Rule, Severity};
use crate::record::{Call, Line, Reply};
use crate::transcript::{Role, Run, Section};
use nsexec::sys::types::{CloneFlags, Fd, OpenFlags, Received};

pub(super) const SOURCES: Rule = Rule {
    name: "mount-sources",
    reason: "Stage 0 joins another mount namespace only for mount sources. There it opens only them, with O_PATH, and \
             returns to its own namespace before any other step. Stage 1 receives one descriptor at a time, duplicates \
             it to the requested number, and closes the original. No other descriptor is sent.",
    reference: "docs/protocol.md#mount-sources; setns(2); unix(7); CVE-2024-21626",
    severity: Severity::Breach,
    check: sources,
};

fn sources(run: &Run, facts: &Facts) -> Vec<Finding> {
    let asked = facts.asked.as_ref().is_some_and(|asked| asked.mount_sources);
    let mut findings = Vec::new();
    for section in &run.sections {
        let found = match section.role {
            _ if !asked => {
                section.lines.iter().position(passes_descriptors).map(|at| (at, "not requested".into()))
            }
            Role::Stage(0) => Sender::default().walk(section),
            Role::Stage(1) => Receiver::default().walk(section),
            _ => section.lines.iter().position(passes_descriptors).map(|at| (at, "in another stage".into())),
        };
        findings.extend(found.map(|(at, what): (usize, std::string::String)| {
            Finding::on(
                section,
                at,
                format!("{}: {what}", section.lines.get(at).map_or("", |l| l.call.name())),
            )
        }));
    }
    findings
}

/// Returns whether only mount sources need this call. The launcher's own opens belong to its caller.
fn passes_descriptors(line: &Line) -> bool {
    matches!(line.call, Call::SendFd { .. } | Call::ReceiveFd { .. } | Call::Dup3 { .. })
}

type Found = Option<(usize, std::string::String)>;

/// The state of stage 0, which sends the sources.
#[derive(Default)]
struct Sender {
    own: Option<Fd>,
    inside: bool,
    stat: StatFile,
    places: BTreeSet<Fd>,
}

impl Sender {
    fn walk(mut self, section: &Section) -> Found {
        // Lines before the sync pipes concern our own program.
        let begin = section.lines.iter().position(|line| line.call == Call::Socketpair)?;
        section
            .lines
            .iter()
            .enumerate()
            .skip(begin)
            .find_map(|(at, line)| self.see(line).map(|what| (at, what.into())))
    }

    fn see(&mut self, line: &Line) -> Option<&'static str> {
        if self.stat.asks(line) {
            return None;
        }
        match (&line.call, &line.reply) {
            (Call::Openat { path, flags: OpenFlags::Namespace, .. }, Reply::Fd(fd)) if !self.inside => {
                if path.0 == b"/proc/self/ns/mnt" {
                    self.own = Some(*fd);
                }
                None
            }
            (Call::Setns { kind, .. }, _) if *kind != CloneFlags::NEWNS => Some("stage 0 joins nothing"),
            (Call::Setns { fd, .. }, _) if self.inside && self.own != Some(*fd) => Some("not the way back"),
            (Call::Setns { fd, .. }, _) if !self.inside && self.own == Some(*fd) => {
                Some("it is there already")
            }
            (Call::Setns { .. }, _) if self.own.is_none() => Some("there is no way back"),
            (Call::Setns { .. }, _) => {
                self.inside ^= succeeded(line);
                None
            }
            (Call::Openat { flags: OpenFlags::Path, .. }, reply) => {
                if let Reply::Fd(fd) = reply {
                    self.places.insert(*fd);
                }
                (!self.inside).then_some("a source of another mount namespace")
            }
            (Call::SendFd { fd, .. }, _) => (!self.places.contains(fd)).then_some("not a source"),
            (Call::Close { fd }, _) => {
                self.places.remove(fd);
                None
            }
            (Call::ReceiveFd { .. } | Call::Dup3 { .. }, _) => Some("in another stage"),
            _ if self.inside && !may_follow_failure(line) => Some("in the mount namespace of stage 1"),
            _ => None,
        }
    }
}

/// The state of stage 1, which receives the sources.
#[derive(Default)]
struct Receiver {
    taken: Option<Fd>,
    placed: bool,
}

impl Receiver {
    fn walk(mut self, section: &Section) -> Found {
        section.lines.iter().enumerate().find_map(|(at, line)| self.see(line).map(|what| (at, what.into())))
    }

    fn see(&mut self, line: &Line) -> Option<&'static str> {
        match (&line.call, &line.reply) {
            (Call::ReceiveFd { .. }, _) if self.taken.is_some() => Some("the one before is still open"),
            (_, Reply::Received(Received { fd, .. })) => {
                (self.taken, self.placed) = (*fd, false);
                None
            }
            (Call::Dup3 { fd, .. }, _) if self.taken != Some(*fd) || self.placed => {
                Some("not what was received")
            }
            (Call::Dup3 { .. }, _) => {
                self.placed = succeeded(line);
                None
            }
            (Call::Close { fd }, _) if self.taken == Some(*fd) => {
                self.taken = None;
                (!self.placed).then_some("a source that went nowhere")
            }
            (Call::SendFd { .. }, _) => Some("in another stage"),
            (Call::CloneSibling { .. }, Reply::Parent(_)) if self.taken.is_some() => {
                Some("a source is still open")
            }
            _ => None,
        }
    }
}
