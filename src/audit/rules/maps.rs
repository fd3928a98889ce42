//! The id maps, the setgroups policy, and the mapping tool.

use std::collections::BTreeSet;
use std::format;
use std::string::ToString;
use std::vec::Vec;

use super::reading::{ProcFiles, shown, words};
use super::{Facts, Finding, Rule, Severity};
use crate::audit::sections::{Site, inherit, pids};
use crate::audit::transcript::{Role, Run};
use crate::idmap::write::writes_deny;
use crate::sync::Message;
use crate::sys::record::{Call, Line, Reply};
use crate::sys::types::{Errno, OpenFlags, WaitStatus};

pub(super) const ONCE: Rule = Rule {
    name: "maps-once",
    reason: "Each file of a process in /proc is written by stage 0, which is outside, and in one write: the kernel takes \
             each write as a whole map, and the first that it takes is final.",
    reference: "user_namespaces(7); spec 6.1 and 4.2.5",
    severity: Severity::Breach,
    check: once,
};

pub(super) const ACKNOWLEDGED: Rule = Rule {
    name: "maps-acknowledged-when-written",
    reason: "Stage 0 acknowledges the maps only when each that was asked for was taken whole, or a mapping tool has ended \
             with status 0; and a tool is asked only where the kernel said EPERM.",
    reference: "spec 3.6, 4.2.5 and 4.2.7",
    severity: Severity::Breach,
    check: acknowledged,
};

pub(super) const CHECKED: Rule = Rule {
    name: "procfs-checked",
    reason: "Before a map, the setgroups policy or time offsets are written, fstatfs has said that the file is procfs's: \
             whoever can mount over /proc must not be written to in its place.",
    reference: "CVE-2019-19921, CVE-2025-52881; evidence 2",
    severity: Severity::Breach,
    check: checked,
};

pub(super) const OWN_PROC: Rule = Rule {
    name: "procfs-own",
    reason: "Before stage 0 opens a process's directory in /proc by its number, /proc/self has given the number that getpid \
             gives: in the /proc of another pid namespace the number is a stranger's.",
    reference: "pid_namespaces(7)",
    severity: Severity::Breach,
    check: own_proc,
};

pub(super) const SETGROUPS: Rule = Rule {
    name: "setgroups-before-gid-map",
    reason: "Where groups must not be dropped, \"deny\" is written, and before the gid map, after which it is too late; \
             where they may be, it is not.",
    reference: "CVE-2014-8989; user_namespaces(7); spec 3.5 and 6.1",
    severity: Severity::Breach,
    check: setgroups,
};

pub(super) const TOOL: Rule = Rule {
    name: "mapping-tool",
    reason: "The mapping tool may be setuid root: it is named by an absolute path, gets an empty environment and no \
             descriptor of ours, and works on stage 1.",
    reference: "spec 3.6, 4.2.8 and 4.2.9",
    severity: Severity::Breach,
    check: tool,
};

/// Walks over the writes to files of /proc.
fn writes(run: &Run, mut each: impl FnMut(Site<'_>, &'static [u8], bool)) {
    inherit(run, &ProcFiles::default(), |files, site| {
        if let Some((file, checked)) = files.written(site.line) {
            each(site, file, checked);
        }
        files.see(site.line);
    });
}

/// A signal came before the write began: it is made again.
fn interrupted(line: &Line) -> bool {
    line.reply == Reply::Errno(Errno::EINTR)
}

fn once(run: &Run, _: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut written: BTreeSet<&[u8]> = BTreeSet::new();
    writes(run, |site, file, _| {
        if site.section.role != Role::Stage(0) {
            findings.push(Finding::at(site, format!("{} is written by another than stage 0", shown(file))));
        }
        if !interrupted(site.line) && !written.insert(file) {
            findings.push(Finding::at(site, format!("{} is written a second time", shown(file))));
        }
    });
    findings
}

fn checked(run: &Run, _: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    writes(run, |site, file, checked| {
        if !checked {
            findings.push(Finding::at(site, format!("{} is written unchecked", shown(file))));
        }
    });
    findings
}

fn own_proc(run: &Run, _: &Facts) -> Vec<Finding> {
    let Some(section) = run.section(Role::Stage(0)) else { return Vec::new() };
    let mut findings = Vec::new();
    let (mut own, mut named) = (None, None);
    for (index, line) in section.lines.iter().enumerate() {
        match (&line.call, &line.reply) {
            (Call::Getpid, Reply::Pid(pid)) => own = Some(format!("{pid}").into_bytes()),
            (Call::Readlink { path, .. }, Reply::Data(data)) if path.0 == b"/proc/self" => {
                named = Some(data.0.clone());
            }
            (Call::Openat { flags: OpenFlags::Directory, path, .. }, _)
                if path.0.starts_with(b"/proc/") && (own.is_none() || own != named) =>
            {
                findings.push(Finding::on(section, index, format!("opens {} unchecked", shown(&path.0))));
            }
            _ => {}
        }
    }
    findings
}

/// Whether a write was taken whole.
fn taken(line: &Line) -> bool {
    matches!((&line.call, &line.reply), (Call::Write { data, .. }, Reply::Count(count)) if *count == data.0.len())
}

fn acknowledged(run: &Run, facts: &Facts) -> Vec<Finding> {
    let Some(section) = run.section(Role::Stage(0)) else { return Vec::new() };
    let mut findings = Vec::new();
    let mut files = ProcFiles::default();
    let mut refused: Option<&[u8]> = None;
    let mut done: BTreeSet<&[u8]> = BTreeSet::new();
    let said = words(section);
    for (index, line) in section.lines.iter().enumerate() {
        match (&line.call, &line.reply) {
            (Call::Write { .. }, reply) => {
                if let Some((file, _)) = files.written(line) {
                    if taken(line) {
                        done.insert(file);
                    } else if *reply == Reply::Errno(Errno::EPERM) {
                        refused = Some(file);
                    }
                }
            }
            (Call::Openat { path, .. }, Reply::Errno(Errno::EPERM)) => {
                refused = [&b"uid_map"[..], b"gid_map"].into_iter().find(|file| *file == path.0);
            }
            (Call::Fork { .. }, Reply::Parent(_)) if refused.is_none() => {
                findings.push(Finding::on(section, index, "a mapping tool where the kernel refused no map"));
            }
            (Call::Wait4 { .. }, Reply::Waited(waited)) if waited.status == WaitStatus::Exited(0) => {
                done.extend(refused.take());
            }
            _ => {}
        }
        files.see(line);
        let acknowledges =
            |word: &&super::reading::Word| word.index == index && word.is(true, Message::UsermapAck);
        if said.iter().any(|word| acknowledges(&word)) {
            let asked = facts.asked.as_ref();
            let wanted = [
                (&b"uid_map"[..], asked.is_some_and(|asked| asked.uid_map)),
                (b"gid_map", asked.is_some_and(|asked| asked.gid_map)),
            ];
            for (file, _) in wanted.into_iter().filter(|(file, wanted)| *wanted && !done.contains(file)) {
                let what = format!("acknowledges the maps without {}", shown(file));
                findings.push(Finding::on(section, index, what));
            }
        }
    }
    findings
}

fn setgroups(run: &Run, facts: &Facts) -> Vec<Finding> {
    let Some(asked) = facts.asked.as_ref().filter(|_| facts.creates_user()) else { return Vec::new() };
    let deny = writes_deny(facts.policy.setgroups, asked.rootless, asked.setgroup);
    let Some(section) = run.section(Role::Stage(0)) else { return Vec::new() };
    let mut findings = Vec::new();
    let mut files = ProcFiles::default();
    let (mut decided, mut mapped) = (false, false);
    for (index, line) in section.lines.iter().enumerate() {
        let mut found = |what: &str| findings.push(Finding::on(section, index, what.to_string()));
        match (files.written(line), &line.call, &line.reply) {
            (Some((b"setgroups", _)), Call::Write { data, .. }, _) => {
                if mapped {
                    found("setgroups is written after the gid map");
                } else if !deny || data.0 != b"deny" {
                    found("setgroups is written, and should not be, or otherwise");
                }
                decided |= taken(line);
            }
            // Before Linux 3.19 there is no such file.
            (None, Call::Openat { path, .. }, Reply::Errno(Errno::ENOENT)) if path.0 == b"setgroups" => {
                decided = true;
            }
            (Some((b"gid_map", _)), ..) => {
                if deny && !decided {
                    found("the gid map is written before \"deny\"");
                }
                mapped = true;
            }
            _ => {}
        }
        files.see(line);
    }
    findings
}

fn tool(run: &Run, facts: &Facts) -> Vec<Finding> {
    let stage_1 = pids(run).into_iter().find(|(role, _)| *role == Role::Stage(1)).map(|(_, pid)| pid);
    let mut findings = Vec::new();
    for section in run.sections.iter().filter(|section| matches!(section.role, Role::Tool(_))) {
        let mut shut = false;
        for (index, line) in section.lines.iter().enumerate() {
            // Without close_range the descriptors are marked one by one.
            shut |= matches!(
                (&line.call, &line.reply),
                (Call::CloseRangeCloexec { .. } | Call::SetCloexec { .. }, Reply::Unit)
            );
            let Call::Execve { path, argv, envp } = &line.call else { continue };
            let asked = facts.asked.as_ref();
            let pid = argv.get(1).and_then(|pid| core::str::from_utf8(&pid.0).ok()?.parse().ok());
            let wrong = [
                (!path.0.starts_with(b"/"), "by a path that is not absolute"),
                (asked.is_some_and(|asked| !asked.tools.contains(&path.0)), "that the message does not name"),
                (!envp.is_empty(), "with an environment"),
                (argv.first() != Some(path), "under another name"),
                (stage_1.is_some_and(|stage_1| pid != Some(stage_1.0)), "for another process than stage 1"),
                (!shut, "without closing our descriptors"),
            ];
            for (_, what) in wrong.into_iter().filter(|(wrong, _)| *wrong) {
                findings.push(Finding::on(section, index, format!("executes a mapping tool {what}")));
            }
        }
    }
    findings
}
