//! Checks the id maps, the setgroups policy, and the mapping tool.

use std::collections::BTreeSet;
use std::format;
use std::string::ToString;
use std::vec::Vec;

use super::facts::{Shape, writer};
use super::reading::{OOM_SCORE, ProcFiles, file_of, files_of_init, shown};
use super::{Facts, Finding, Rule, Severity};
use crate::record::{Call, Line, Reply};
use crate::sections::{Site, inherit, pids};
use crate::transcript::{Role, Run, Section};
use nsexec::launch::pid_of_fdinfo;
use nsexec::map_files::writes_deny;
use nsexec::sys::types::{Errno, Fd, OpenFlags, Pid};

pub(super) const ONCE: Rule = Rule {
    name: "maps-once",
    reason: "Only stage 0, outside the new namespaces, writes files of a process in /proc, each in one write: the kernel \
             reads each write as a complete map, and accepts only one. In a direct start the launcher has this part. \
             The command's process writes its own time offsets, and without a new user namespace its own oom score. \
             In a start through a child, and in place, stage 1 writes its own offsets and score.",
    reference: "user_namespaces(7); docs/protocol.md#id-maps",
    severity: Severity::Breach,
    check: once,
};

pub(super) const CHECKED: Rule = Rule {
    name: "procfs-checked",
    reason: "Before a map, the setgroups policy or time offsets are written, fstatfs has reported procfs for the file: \
             another file may be mounted over it.",
    reference: "CVE-2019-19921, CVE-2025-52881; docs/protocol.md#proc",
    severity: Severity::Breach,
    check: checked,
};

pub(super) const OWN_PROC: Rule = Rule {
    name: "procfs-own",
    reason: "Stage 0, or the launcher in a direct start, opens the new process's files below one descriptor of its directory in /proc. Before it opens that \
             directory by pid, /proc/self must agree with getpid: in the /proc of another pid namespace the pid belongs \
             to another process. There the number from the fdinfo of the process's pidfd is used. Every file below /proc is opened with openat2, which crosses no mount point, or with \
             openat if the kernel lacks openat2 or refuses it.",
    reference: "pid_namespaces(7); CVE-2019-19921",
    severity: Severity::Breach,
    check: own_proc,
};

pub(super) const SETGROUPS: Rule = Rule {
    name: "setgroups-before-gid-map",
    reason: "If groups must not be dropped, \"deny\" is written before the gid map, since it cannot be written later. \
             If they may be dropped, \"deny\" is not written.",
    reference: "CVE-2014-8989; user_namespaces(7); docs/protocol.md#groups",
    severity: Severity::Breach,
    check: setgroups,
};

pub(super) const TOOL: Rule = Rule {
    name: "mapping-tool",
    reason: "The mapping tool may be setuid root: it has an absolute path, receives an empty environment and no \
             descriptor of ours, and writes the requested map for stage 1.",
    reference: "docs/protocol.md#mapping-tools",
    severity: Severity::Breach,
    check: tool,
};

/// Calls `each` for every write to a file of /proc.
fn writes(run: &Run, mut each: impl FnMut(Site<'_>, &'static [u8], bool)) {
    inherit(run, &ProcFiles::default(), |files, site| {
        if let Some((file, checked)) = files.written(site.line) {
            each(site, file, checked);
        }
        files.see(site.line);
    });
}

/// Returns whether a signal interrupted the write before it began. It is then repeated.
fn interrupted(line: &Line) -> bool {
    line.reply == Reply::Errno(Errno::EINTR)
}

fn once(run: &Run, facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    let shape = Shape::of(run);
    let writer = writer(shape);
    let mut written: BTreeSet<&[u8]> = BTreeSet::new();
    writes(run, |site, file, _| {
        let allowed = match shape {
            Shape::Direct if files_of_init(facts.creates_user()).contains(&file) => Role::Stage(2),
            Shape::InPlace if files_of_init(false).contains(&file) => Role::Stage(1),
            _ => writer,
        };
        if site.section.role != allowed {
            let what = format!("{} is written by another than the {allowed}", shown(file));
            findings.push(Finding::at(site, what));
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

fn own_proc(run: &Run, facts: &Facts) -> Vec<Finding> {
    let shape = Shape::of(run);
    let mut findings = Vec::new();
    if let Some(section) = run.section(writer(shape)) {
        let own: &[&[u8]] = match shape {
            Shape::Direct => &[],
            Shape::Child => files_of_init(false),
            Shape::Stages => &[OOM_SCORE],
            Shape::InPlace => &[],
        };
        findings.extend(opens_in_proc(section, target(run), own));
    }
    if let Some(init) = run.section(Role::Stage(2)).filter(|_| shape == Shape::Direct) {
        findings.extend(opens_in_proc(init, None, files_of_init(facts.creates_user())));
    }
    if let Some(own) = run.section(Role::Stage(1)).filter(|_| shape == Shape::InPlace) {
        findings.extend(opens_in_proc(own, None, files_of_init(false)));
    }
    findings
}

/// Returns whether a path leads to the directory of a process. Other directories belong to the tree that the
/// command gets as its root.
fn is_of_process(path: &[u8]) -> bool {
    path.starts_with(b"/proc") || !path.is_empty() && path.iter().all(u8::is_ascii_digit)
}

/// Checks the files of /proc that a process opens. `target` is the process whose files it writes, and `own`
/// are the files that it writes for itself.
fn opens_in_proc(section: &Section, target: Option<Pid>, own_files: &[&[u8]]) -> Vec<Finding> {
    let target = target.map(|pid| format!("{pid}").into_bytes());
    let mut findings = Vec::new();
    let (mut own, mut named) = (None, None);
    let (mut proc, mut directory) = (None, None);
    let mut plain = false;
    // The number of the new process in the /proc of another pid namespace, from the fdinfo of its pidfd.
    let (mut fdinfo_path, mut fdinfo, mut number) = (None, None, None);
    for (index, line) in section.lines.iter().enumerate() {
        let mut found = |path: &[u8], how: &str| {
            findings.push(Finding::on(section, index, format!("opens {} {how}", shown(path))));
        };
        match (&line.call, &line.reply) {
            (Call::Getpid, Reply::Pid(pid)) => own = Some(format!("{pid}").into_bytes()),
            (Call::Readlink { path, .. }, Reply::Data(data)) if path.0 == b"/proc/self" => {
                named = Some(data.0.clone());
            }
            (_, Reply::ParentOfInit { pidfd: Some(pidfd), .. }) => {
                fdinfo_path = Some(format!("self/fdinfo/{}", pidfd.0).into_bytes());
            }
            (Call::Openat { dir, path, .. } | Call::Openat2 { dir, path, .. }, Reply::Fd(fd))
                if proc == Some(*dir) && fdinfo_path.as_deref() == Some(&path.0[..]) =>
            {
                fdinfo = Some(*fd);
            }
            (Call::Read { fd, .. }, Reply::Data(data)) if fdinfo == Some(*fd) => {
                number = pid_of_fdinfo(&data.0).map(|pid| format!("{pid}").into_bytes());
            }
            (Call::Openat { dir: Fd::CWD, flags: OpenFlags::Directory, path }, reply)
                if path.0 == b"/proc" =>
            {
                proc = if let Reply::Fd(fd) = reply { Some(*fd) } else { None };
            }
            (Call::Openat2 { dir, .. }, Reply::Errno(Errno::ENOSYS | Errno::EPERM)) if proc == Some(*dir) => {
                plain = true;
            }
            (Call::Openat { dir, flags, path } | Call::Openat2 { dir, flags, path }, reply)
                if *flags == OpenFlags::Directory && is_of_process(&path.0) || file_of(&path.0).is_some() =>
            {
                let own_file = file_of(&path.0).is_some_and(|file| own_files.contains(&file));
                if matches!(line.call, Call::Openat { .. }) && !plain {
                    found(&path.0, "with openat, which does not detect a mount over it");
                }
                if *flags == OpenFlags::Directory {
                    let is_numbered = number.as_deref() == Some(&path.0[..]);
                    let is_other = target.as_ref().is_some_and(|pid| *pid != path.0);
                    if !is_numbered && (own.is_none() || own != named) {
                        found(&path.0, "unchecked");
                    } else if proc != Some(*dir) || is_other && !is_numbered {
                        found(&path.0, "and not the new process's directory");
                    } else if let Reply::Fd(fd) = reply {
                        directory = Some(*fd);
                    }
                } else if own_file && proc != Some(*dir) {
                    found(&path.0, "elsewhere than below /proc");
                } else if !own_file && directory != Some(*dir) {
                    found(&path.0, "elsewhere than below the new process's directory");
                }
            }
            (Call::Close { fd }, _) if directory == Some(*fd) => directory = None,
            (Call::Close { fd }, _) if proc == Some(*fd) => proc = None,
            (Call::Close { fd }, _) if fdinfo == Some(*fd) => fdinfo = None,
            _ => {}
        }
    }
    findings
}

/// Returns the process whose files in /proc another process writes: stage 1, or the init of a direct start.
fn target(run: &Run) -> Option<Pid> {
    match Shape::of(run) {
        Shape::Direct => pids(run).into_iter().find(|(role, _)| *role == Role::Stage(2)).map(|(_, pid)| pid),
        _ => stage_1(run),
    }
}

fn stage_1(run: &Run) -> Option<Pid> {
    if Shape::of(run) == Shape::InPlace {
        // No process of the run created it.
        let mut lines = run.section(Role::Stage(1))?.lines.iter();
        return lines.find_map(|line| if let Reply::Pid(pid) = line.reply { Some(pid) } else { None });
    }
    pids(run).into_iter().find(|(role, _)| *role == Role::Stage(1)).map(|(_, pid)| pid)
}

/// Returns whether a write was accepted completely.
fn taken(line: &Line) -> bool {
    matches!((&line.call, &line.reply), (Call::Write { data, .. }, Reply::Count(count)) if *count == data.0.len())
}

fn setgroups(run: &Run, facts: &Facts) -> Vec<Finding> {
    let Some(asked) = facts.asked.as_ref().filter(|_| facts.creates_user()) else { return Vec::new() };
    let deny = writes_deny(facts.policy.setgroups, asked.rootless, asked.setgroup);
    let Some(section) = run.section(writer(Shape::of(run))) else { return Vec::new() };
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
                    found("setgroups is written without a request, or with another value than \"deny\"");
                }
                decided |= taken(line);
            }
            // Before Linux 3.19 the file does not exist.
            (None, Call::Openat { path, .. } | Call::Openat2 { path, .. }, Reply::Errno(Errno::ENOENT))
                if path.0 == b"setgroups" =>
            {
                decided = true
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

/// Returns the numbers of a map as a tool receives them: one argument each.
fn numbers(text: &[u8]) -> Vec<Vec<u8>> {
    let words = text.split(|byte| byte.is_ascii_whitespace()).filter(|word| !word.is_empty());
    let number = |word: &[u8]| {
        let number: Option<u32> = core::str::from_utf8(word).ok().and_then(|word| word.parse().ok());
        number.map_or_else(|| word.to_vec(), |number| format!("{number}").into_bytes())
    };
    words.map(number).collect()
}

fn tool(run: &Run, facts: &Facts) -> Vec<Finding> {
    let stage_1 = stage_1(run);
    let maps = facts.asked.iter().flat_map(|asked| [&asked.uid_map, &asked.gid_map]);
    let maps: Vec<Vec<Vec<u8>>> = maps.flatten().map(|text| numbers(text)).collect();
    let mut findings = Vec::new();
    for section in run.sections.iter().filter(|section| matches!(section.role, Role::Tool(_))) {
        let mut shut = false;
        for (index, line) in section.lines.iter().enumerate() {
            // Without close_range, the descriptors are marked one by one.
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
                (
                    asked.is_some()
                        && !maps.iter().any(|map| argv.iter().skip(2).map(|word| &word.0).eq(map)),
                    "for another map than was asked for",
                ),
            ];
            for (_, what) in wrong.into_iter().filter(|(wrong, _)| *wrong) {
                findings.push(Finding::on(section, index, format!("executes a mapping tool {what}")));
            }
        }
    }
    findings
}
