//! Checks joins: which files are opened, when, and how they are verified.

use std::collections::BTreeMap;
use std::format;
use std::vec::Vec;

use super::facts::{Shape, starts_directly};
use super::first_steps::executed;
use super::reading::succeeded;
use super::{Facts, Finding, Rule, Severity};
use crate::record::{Call, Reply};
use crate::sections::inherit;
use crate::transcript::{Role, Run, Section};
use nsexec::sync::SyncMessage;
use nsexec::sys::types::{CloneFlags, Fd, FsType, OpenFlags, Seals};

pub(super) const FROM_A_COPY: Rule = Rule {
    name: "mounts-joined-from-a-copy",
    reason: "Our own launcher joins a mount namespace only after it has made sure that it runs from a sealed copy of itself, \
             unless the caller trusts that namespace. The command may be a script whose interpreter is /proc/self/exe: \
             the kernel then executes the launcher's program with libraries of that namespace, which could overwrite it.",
    reference: "CVE-2019-5736; src/cloned/mod.rs",
    severity: Severity::Breach,
    check: from_a_copy,
};

pub(super) const OPENED_FIRST: Rule = Rule {
    name: "opened-before-joining",
    reason: "Every namespace is opened before the first is joined: after a join, other mounts and credentials decide \
             what a path refers to.",
    reference: "docs/protocol.md#what-happens-in-order; CVE-2024-21626",
    severity: Severity::Breach,
    check: opened_first,
};

pub(super) const CHECKED: Rule = Rule {
    name: "joins-namespaces-only",
    reason: "A descriptor is passed to setns only if fstatfs has reported a namespace file. The check is repeated if \
             the number has been reused.",
    reference: "docs/protocol.md#setns; setns(2)",
    severity: Severity::Breach,
    check: checked,
};

pub(super) const NO_PROC_AFTER_MOUNT: Rule = Rule {
    name: "no-proc-after-mount-namespace",
    reason: "In a joined mount namespace, /proc is under the control of its owner, so nothing there is opened or \
             looked up by path.",
    reference: "CVE-2019-19921, CVE-2025-52881; docs/protocol.md#proc",
    severity: Severity::Breach,
    check: no_proc_after_mount,
};

pub(super) const AS_ASKED: Rule = Rule {
    name: "as-asked",
    reason: "Stage 2 is in exactly the namespaces that the message requests: the caller relies on each of them as a \
             security boundary. The init of a direct start enters the time namespace that it has created, and no \
             other, and mounts only in its own mount namespace.",
    reference: "bubblewrap#653; runc#4390",
    severity: Severity::Breach,
    check: as_asked,
};

pub(super) const CGROUP: Rule = Rule {
    name: "cgroup-namespace",
    reason: "If a container is created, with a mount and a pid namespace, it has a cgroup namespace. Otherwise the \
             container sees the host's cgroup paths, and may be able to write to them.",
    reference: "CVE-2023-25809",
    severity: Severity::Warning,
    check: cgroup,
};

/// The path of the time namespace that a process has created.
const OWN_TIME: &[u8] = b"/proc/self/ns/time_for_children";

fn from_a_copy(run: &Run, facts: &Facts) -> Vec<Finding> {
    // An executed stage 0 does not belong to our own launcher. Its parent has made the copy, or stage 0 makes
    // it.
    let has_launcher = run.section(Role::Launcher).is_some() || Shape::of(run) == Shape::InPlace;
    let ours = has_launcher && executed(run).is_none();
    if !ours || facts.policy.launch.trusted_mounts {
        return Vec::new();
    }
    let mut findings = Vec::new();
    // The descriptor of the launcher's program, and whether the program was found to be a copy.
    inherit(run, &(None, false), |(exe, sure), site| match (&site.line.call, &site.line.reply) {
        (Call::Openat { path, .. }, Reply::Fd(fd)) if path.0 == b"/proc/self/exe" => *exe = Some(*fd),
        (Call::Close { fd }, _) if *exe == Some(*fd) => *exe = None,
        (Call::GetSeals { fd }, Reply::Seals(Seals::CONTENT)) if *exe == Some(*fd) => *sure = true,
        (Call::LinkCount { path }, Reply::Links(0)) if path.0 == b"/proc/self/exe" => *sure = true,
        // Stage 0 enters stage 1's mount namespace only for mount sources, and returns. It executes nothing
        // there.
        (Call::Setns { kind: CloneFlags::NEWNS, .. }, _) if !*sure && site.section.role != Role::Stage(0) => {
            let what = "joins a mount namespace from a program that is not a sealed copy";
            findings.push(Finding::at(site, what));
        }
        _ => {}
    });
    findings
}

fn opened_first(run: &Run, _: &Facts) -> Vec<Finding> {
    let in_place = Shape::of(run) == Shape::InPlace;
    let mut findings = Vec::new();
    inherit(run, &false, |joined, site| match &site.line.call {
        Call::Setns { .. } => *joined = true,
        // The launcher of a start in place enters the time namespace that it has created.
        Call::Openat { path, .. } if in_place && path.0 == OWN_TIME => {}
        Call::Openat { flags: OpenFlags::Namespace, .. } if *joined => {
            findings.push(Finding::at(site, "opens a namespace after a join"));
        }
        _ => {}
    });
    findings
}

fn checked(run: &Run, _: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    inherit(run, &BTreeMap::<Fd, FsType>::new(), |known, site| match (&site.line.call, &site.line.reply) {
        (Call::Fstatfs { fd }, Reply::FsType(kind)) => {
            known.insert(*fd, *kind);
        }
        (Call::Close { fd }, _) | (_, Reply::Fd(fd)) => {
            known.remove(fd);
        }
        (Call::Setns { fd, .. }, _) if known.get(fd) != Some(&FsType::NSFS) => {
            findings.push(Finding::at(site, "setns of a descriptor that was not found to be a namespace"));
        }
        _ => {}
    });
    findings
}

fn no_proc_after_mount(run: &Run, _: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    inherit(run, &false, |foreign, site| {
        let path = match &site.line.call {
            Call::Setns { kind: CloneFlags::NEWNS, .. } if succeeded(site.line) => {
                *foreign = true;
                return;
            }
            // The command is looked up where it will run. A stat opens nothing.
            Call::LinkCount { path } if *foreign && path.0.starts_with(b"/proc/") => path,
            // Mount sources are opened in that namespace on purpose. Stage 0's other steps there have a rule
            // of their own.
            Call::Openat { flags: OpenFlags::Path, .. } if site.section.role == Role::Stage(0) => return,
            // The root directory itself. The working directory is opened below it, through no magic link.
            Call::Openat { path, flags: OpenFlags::Directory, .. } if &*path.0 == b"/" => return,
            Call::Openat { dir: Fd::CWD, path, .. }
            | Call::Openat2 { dir: Fd::CWD, path, .. }
            | Call::Readlink { path, .. }
                if *foreign =>
            {
                path
            }
            _ => return,
        };
        let path = super::reading::shown(&path.0);
        findings.push(Finding::at(site, format!("looks up {path} by path in a foreign mount namespace")));
    });
    findings
}

fn as_asked(run: &Run, facts: &Facts) -> Vec<Finding> {
    let Some(asked) = &facts.asked else { return Vec::new() };
    let mut findings = Vec::new();
    let none = (CloneFlags::EMPTY, CloneFlags::EMPTY);
    let in_place = Shape::of(run) == Shape::InPlace;
    inherit(run, &none, |(joined, created), site| match site.line.call {
        // The init of a direct start enters the time namespace that it has created: see `own_namespaces`.
        Call::Setns { kind: CloneFlags::NEWTIME, .. } if created.contains(CloneFlags::NEWTIME) => {}
        Call::Setns { kind, .. } if succeeded(site.line) => *joined = joined.union(kind),
        Call::CloneInit { namespaces, .. } if site.line.reply == Reply::Child => *created = namespaces,
        Call::Execve { .. }
            if in_place
                && site.section.role == Role::Stage(1)
                && (*joined, *created) != (asked.joined, asked.created) =>
        {
            let what = format!(
                "the command comes with {joined} joined and {created} created, asked was {} and {}",
                asked.joined, asked.created
            );
            findings.push(Finding::at(site, what));
        }
        Call::Execve { .. } if starts_directly(site.section) && *created != asked.created => {
            let what = format!("the command comes with {created} created, asked was {}", asked.created);
            findings.push(Finding::at(site, what));
        }
        Call::Unshare { flags } if succeeded(site.line) => *created = created.union(flags),
        Call::CloneSibling { .. } if site.section.role == Role::Stage(1) && succeeded(site.line) => {
            // The first line of stage 1 is its own clone.
            if site.line.reply == Reply::Child {
                return;
            }
            // The user namespace may be joined last, by stage 2.
            let left = if facts.root_last() { CloneFlags::NEWUSER } else { CloneFlags::EMPTY };
            if *joined != asked.joined && *joined != asked.joined.without(left) {
                let what = format!("stage 2 comes with {joined} joined, asked was {}", asked.joined);
                findings.push(Finding::at(site, what));
            }
            let later = if facts.cgroup_in_stage_2() { CloneFlags::NEWCGROUP } else { CloneFlags::EMPTY };
            let wanted = asked.created.without(later);
            if *created != wanted {
                let what = format!("stage 2 comes with {created} created, asked was {wanted}");
                findings.push(Finding::at(site, what));
            }
        }
        Call::Execve { .. } if site.section.role == Role::Stage(2) && *joined != asked.joined => {
            let what = format!("the command comes with {joined} joined, asked was {}", asked.joined);
            findings.push(Finding::at(site, what));
        }
        Call::Send { ref data, .. }
            if site.section.role == Role::Stage(2)
                && data.0 == SyncMessage::ChildFinish.value().to_ne_bytes()
                && *created != asked.created =>
        {
            let what = format!("finishes with {created} created, asked was {}", asked.created);
            findings.push(Finding::at(site, what));
        }
        _ => {}
    });
    let init = run.section(Role::Stage(2)).filter(|init| starts_directly(init));
    let in_place = run.section(Role::Stage(1)).filter(|_| in_place && asked.joined == CloneFlags::EMPTY);
    findings.extend(init.into_iter().chain(in_place).flat_map(own_namespaces));
    findings
}

/// Checks that the init of a direct start enters its own time namespace before its exec, and mounts in its
/// own mount namespace.
fn own_namespaces(init: &Section) -> Vec<Finding> {
    let (mut created, mut own, mut entered) = (CloneFlags::EMPTY, None, false);
    let mut findings = Vec::new();
    for (index, line) in init.lines.iter().enumerate() {
        let what = match (&line.call, &line.reply) {
            (Call::CloneInit { namespaces, .. }, _) => {
                created = *namespaces;
                continue;
            }
            (Call::Unshare { flags }, _) if succeeded(line) => {
                created = created.union(*flags);
                continue;
            }
            (Call::Openat { path, .. }, Reply::Fd(fd)) if path.0 == OWN_TIME => {
                own = Some(*fd).filter(|_| created.contains(CloneFlags::NEWTIME));
                continue;
            }
            (Call::Setns { fd, kind: CloneFlags::NEWTIME }, _) if own == Some(*fd) => {
                entered |= succeeded(line);
                continue;
            }
            (Call::Setns { .. }, _) => "enters a namespace that it has not created",
            (Call::Close { fd }, _) if own == Some(*fd) => {
                own = None;
                continue;
            }
            (Call::Mount { .. }, _) if !created.contains(CloneFlags::NEWNS) => {
                "mounts outside of its namespace"
            }
            (Call::Execve { .. }, _) if created.contains(CloneFlags::NEWTIME) && !entered => {
                "executes the command outside of its time namespace"
            }
            _ => continue,
        };
        findings.push(Finding::on(init, index, what));
    }
    findings
}

fn cgroup(_: &Run, facts: &Facts) -> Vec<Finding> {
    let Some(asked) = &facts.asked else { return Vec::new() };
    let has = asked.created.union(asked.joined).contains(CloneFlags::NEWCGROUP);
    // A start with a few namespaces only is not meant as a container.
    let is_container = asked.created.contains(CloneFlags::NEWNS.union(CloneFlags::NEWPID));
    if has || !is_container {
        return Vec::new();
    }
    std::vec![Finding::of_run(format!("creates {} without CLONE_NEWCGROUP", asked.created))]
}
