//! The summary of a run for a reader: the command, its namespaces, its ids, and its rights.

use std::format;
use std::string::{String, ToString};
use std::vec::Vec;

use super::Document;
use super::document::with_sections;
use super::walk::{Object, walk};
use super::words::one_line;
use crate::record::{Call, Line, Reply};
use crate::rules::Request;
use crate::transcript::{End, Role, Run};
use nsexec::namespace::{NsKind, NsSet};
use nsexec::sys::types::CloneFlags;

/// The longest command line that is shown whole, in characters.
const COMMAND_MAX: usize = 160;

/// Returns the summary as subject and value. `asked`: the request, if it is known; otherwise the successful
/// calls stand for it. `command`: the command and its arguments, for a run that does not come to its exec.
#[must_use]
pub fn summary(run: &Run, asked: Option<&Request>, command: Option<&str>) -> Vec<(&'static str, String)> {
    let (created, joined) = kinds(run, asked);
    let mut lines =
        std::vec![("starts", starts(run, command)), ("namespaces", namespaces(run, created, joined))];
    lines.push(("ids", ids(run, created, joined)));
    if let Some(asked) = asked {
        for (map, what) in [(&asked.uid_map, "user ids"), (&asked.gid_map, "group ids")] {
            lines.extend(map.as_ref().map(|map| (what, map_in_words(map))));
        }
    }
    lines.push(("rights", rights(run, created, joined)));
    lines
}

/// Returns a command and its arguments as one line.
#[must_use]
pub fn command_line<'w>(words: impl Iterator<Item = &'w [u8]>) -> String {
    let words: Vec<String> = words.map(|word| one_line(word, COMMAND_MAX)).collect();
    one_line(words.join(" ").as_bytes(), COMMAND_MAX)
}

/// Returns the successful calls of the launch itself: those of the launcher and of the stages.
fn done(run: &Run) -> impl Iterator<Item = &Line> {
    let launch = run.sections.iter().filter(|section| !matches!(section.role, Role::Other(_)));
    launch.flat_map(|section| &section.lines).filter(|line| !matches!(line.reply, Reply::Errno(_)))
}

fn kinds(run: &Run, asked: Option<&Request>) -> (NsSet, NsSet) {
    if let Some(asked) = asked {
        return (NsSet::from_flags(asked.created), NsSet::from_flags(asked.joined));
    }
    let (mut created, mut joined) = (CloneFlags::EMPTY, CloneFlags::EMPTY);
    for line in done(run) {
        match &line.call {
            Call::CloneInit { namespaces, .. } => created = created.union(*namespaces),
            Call::Unshare { flags } => created = created.union(*flags),
            Call::Setns { kind, .. } => joined = joined.union(*kind),
            _ => {}
        }
    }
    let created = NsSet::from_flags(created);
    // A direct start enters the time namespace that it has created.
    (created, NsSet::from_flags(joined).iter().filter(|kind| !created.contains(*kind)).collect())
}

fn starts(run: &Run, words: Option<&str>) -> String {
    let starter = match run.section(Role::Launcher) {
        Some(launcher) if launcher.end == End::Executed => "this process becomes",
        Some(_) => "the launcher starts",
        None => "stage 0 starts",
    };
    let executed = run.of_command().flat_map(|section| section.lines.iter().rev());
    let exec = executed.filter_map(|line| match &line.call {
        Call::Execve { path, argv, .. } => Some((path, argv)),
        _ => None,
    });
    let Some((path, argv)) = exec.into_iter().next() else {
        let taken_over = run.of_command().any(|section| section.end == End::HandedOver);
        if run.pins_namespaces() {
            return format!("{starter} a process that ends when its namespaces are mounted on files");
        }
        return match taken_over {
            true => format!("{starter} the init of a Go runtime, which takes over in stage 2"),
            false => format!("{starter} {}, and does not come to its exec", words.unwrap_or("a command")),
        };
    };
    let shown = command_line(argv.iter().map(|word| &word.0[..]));
    let below = if run.section(Role::Stage(3)).is_some() { ", below an init of nsexec" } else { "" };
    format!("{starter} {} as: {shown}{below}", one_line(&path.0, COMMAND_MAX))
}

fn namespaces(run: &Run, created: NsSet, joined: NsSet) -> String {
    let mut parts = Vec::new();
    if !created.is_empty() {
        parts.push(format!("new: {created}"));
    }
    if !joined.is_empty() {
        let paths = joined_paths(run);
        let where_from = if paths.is_empty() { String::new() } else { format!(" ({})", paths.join(", ")) };
        parts.push(format!("joined: {joined}{where_from}"));
    }
    if parts.is_empty() {
        return "all are the caller's".to_string();
    }
    let rest: NsSet =
        NsSet::ALL.iter().filter(|kind| !created.contains(*kind) && !joined.contains(*kind)).collect();
    if !rest.is_empty() {
        parts.push(format!("the caller's: {rest}"));
    }
    parts.join("; ")
}

/// Returns the paths of the joined namespaces, in the order in which they were opened.
fn joined_paths(run: &Run) -> Vec<String> {
    let mut paths = Vec::new();
    with_sections(run, &Document::default(), |document| {
        for seen in walk(document).iter().flatten() {
            let (Call::Openat { .. }, Some(Object::Namespace(path))) =
                (&seen.line.call, &seen.context.object)
            else {
                continue;
            };
            let path = one_line(path.as_bytes(), COMMAND_MAX);
            if seen.context.role != Some(Role::Stage(0)) && !paths.contains(&path) {
                paths.push(path);
            }
        }
    });
    paths
}

/// Returns the user id and the group id that the command's process sets last.
fn set_ids(run: &Run) -> (Option<u32>, Option<u32>) {
    let mut ids = (None, None);
    let sections = [Role::Launcher, Role::Stage(1), Role::Stage(2), Role::Stage(3)].into_iter();
    for line in sections.filter_map(|role| run.section(role)).flat_map(|section| &section.lines) {
        match (&line.call, &line.reply) {
            (_, Reply::Errno(_)) => {}
            (Call::Setuid { uid } | Call::Setresuid { uid }, _) => ids.0 = Some(*uid),
            (Call::Setgid { gid }, _) => ids.1 = Some(*gid),
            _ => {}
        }
    }
    ids
}

fn ids(run: &Run, created: NsSet, joined: NsSet) -> String {
    let place = match (created.contains(NsKind::User), joined.contains(NsKind::User)) {
        (true, _) => " of the new user namespace",
        (false, true) => " of the joined user namespace",
        (false, false) => "",
    };
    match set_ids(run) {
        (None, None) => "those of its caller".to_string(),
        (Some(user), None) => format!("user {user}{place}, the group of its caller"),
        (None, Some(group)) => format!("the user of its caller, group {group}{place}"),
        (Some(user), Some(group)) => format!("user {user} and group {group}{place}"),
    }
}

/// Returns an id map as a reader counts: `0 is 1000 outside; 1 to 65536 are 100000 to 165535 outside`.
fn map_in_words(map: &[u8]) -> String {
    /// The number of lines that are written out.
    const LINES: usize = 4;
    let text = String::from_utf8_lossy(map);
    let extent = |line: &str| -> Option<String> {
        let mut numbers = line.split_whitespace().map(str::parse::<u64>);
        let mut next = || numbers.next()?.ok();
        let (inside, outside, count) = (next()?, next()?, next()?);
        Some(match count {
            1 => format!("{inside} is {outside} outside"),
            _ => {
                format!("{inside} to {} are {outside} to {} outside", inside + count - 1, outside + count - 1)
            }
        })
    };
    let lines: Vec<String> = text.trim_end_matches('\0').lines().filter_map(extent).collect();
    let shown = lines.iter().take(LINES).cloned().collect::<Vec<_>>().join("; ");
    match lines.len().saturating_sub(LINES) {
        0 => shown,
        more => format!("{shown}; and {more} lines more"),
    }
}

fn rights(run: &Run, created: NsSet, joined: NsSet) -> String {
    let root = set_ids(run).0 == Some(0);
    let owned = created.without(NsKind::User);
    let over =
        if owned.is_empty() { String::new() } else { format!(", and over the new namespaces {owned}") };
    let in_user = created.contains(NsKind::User) || joined.contains(NsKind::User);
    let mut parts = std::vec![match (created.contains(NsKind::User), joined.contains(NsKind::User)) {
        _ if in_user && !root => "no capability after the exec, unless its user id in there is 0".to_string(),
        (true, _) => format!("every capability in the new user namespace{over}; none outside of it"),
        (_, true) => format!("every capability in the joined user namespace{over}; none outside of it"),
        _ => "the capabilities of its caller".to_string(),
    }];
    let has = |wanted: fn(&Call) -> bool| done(run).any(|line| wanted(&line.call));
    if has(|call| matches!(call, Call::DropBounding { .. })) {
        parts.push("its bounding set is limited".to_string());
    }
    if has(|call| matches!(call, Call::SetCapabilities { .. })) {
        parts.push("its capability sets are limited".to_string());
    }
    if has(|call| matches!(call, Call::SetNoNewPrivs)) {
        parts.push("no_new_privs".to_string());
    }
    if has(|call| matches!(call, Call::SetSeccompFilter { .. })) {
        parts.push("a seccomp filter".to_string());
    }
    if has(|call| matches!(call, Call::LandlockRestrictSelf { .. })) {
        parts.push("a Landlock ruleset".to_string());
    }
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_ranges_in_words() {
        assert_eq!(
            map_in_words(b"0 1000 1\n1 100000 65536\n\0"),
            "0 is 1000 outside; 1 to 65536 are 100000 to 165535 outside"
        );
        let long: String = (0..6).map(|n| format!("{n} {n} 1\n")).collect();
        assert!(map_in_words(long.as_bytes()).ends_with("3 is 3 outside; and 2 lines more"));
        assert_eq!(map_in_words(b"not a map"), "");
    }
}
