//! The readers of /proc/self/mountinfo agree with second ones: that of the mounts at and below /sys, and
//! those of the mounts at /proc and of the root directory.
//!
//! The first byte of the input is the id of the mount at /sys. The second is a group of the caller.

#![no_main]

use libfuzzer_sys::fuzz_target;
use nsexec::launch::of_mountinfo;
use nsexec_audit::machine::{covers_proc, hidepid, is_chrooted};
use nsexec_audit::sim::HidePid;

fuzz_target!(|data: &[u8]| {
    let [id, group, rest @ ..] = data else { return };
    let Ok(text) = std::str::from_utf8(rest) else { return };
    let (id, group) = (id.to_string(), u32::from(*group));
    sys(text, &id);
    proc(text, group);
});

/// The words of a line before ` - `, and those after it.
type Line<'t> = (Vec<&'t str>, Vec<&'t str>);

fn lines(text: &str) -> Vec<Line<'_>> {
    let whole = text.lines().filter_map(|line| line.find(" - ").map(|at| (&line[..at], &line[at + 3..])));
    let words = whole
        .map(|(mount, rest)| (mount.split(' ').collect::<Vec<_>>(), rest.split(' ').collect::<Vec<_>>()));
    words.filter(|(mount, rest)| mount.len() > 5 && rest.len() > 2).collect()
}

fn sys(text: &str, id: &str) {
    let lines = lines(text);
    let found = of_mountinfo(text, id);
    let whole = |(mount, rest): &Line<'_>| mount[3] == "/" && rest[0] == "sysfs";
    let at = lines.iter().find(|(mount, _)| mount[0] == id);
    let at = at.filter(|line| whole(line) && line.0[4] == "/sys");
    let below: Vec<_> =
        lines.iter().filter(|(mount, _)| mount[1] == id && mount[4].starts_with("/sys/")).collect();
    let paths: Vec<_> = below.iter().map(|(mount, _)| path(mount[4])).collect();
    let Some(line) = at.filter(|_| paths.len() <= 64 && !paths.iter().any(|path| path.contains(&0))) else {
        assert!(found.is_none(), "{found:?}");
        return;
    };
    let found = found.expect("a whole sysfs is at /sys");
    let has = |words: &str, word: &str| format!(",{words},").contains(&format!(",{word},"));
    let read_only = |(mount, rest): &Line<'_>| has(mount[5], "ro") || has(rest[2], "ro");
    assert_eq!(found.read_only, read_only(line));
    assert_eq!(found.kept.iter().map(|path| path.as_bytes().to_vec()).collect::<Vec<_>>(), paths);
    // A writable sysfs without a child, if the new one is to be writable, is visible as a whole.
    let bare = |line: &Line<'_>| {
        let fits = found.read_only || !read_only(line);
        let times = has(line.0[5], "relatime") && !has(line.0[5], "nodiratime");
        whole(line) && fits && times && !lines.iter().any(|(child, _)| child[1] == line.0[0])
    };
    assert!(!(found.covered && lines.iter().any(bare)), "{text:?}");
    assert!(found.covered || lines.iter().any(whole), "{text:?}");
}

/// Replaces `\NNN`, three octal digits of a byte.
fn path(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let (mut at, mut path) = (0, Vec::new());
    while at < bytes.len() {
        let digits =
            bytes.get(at + 1..at + 4).filter(|digits| digits.iter().all(|d| (b'0'..=b'7').contains(d)));
        let code = digits.map(|d| d.iter().fold(0, |sum, d| sum * 8 + u32::from(d - b'0')));
        match code.and_then(|code| u8::try_from(code).ok()).filter(|_| bytes[at] == b'\\') {
            Some(byte) => {
                path.push(byte);
                at += 4;
            }
            None => {
                path.push(bytes[at]);
                at += 1;
            }
        }
    }
    path
}

fn proc(text: &str, group: u32) {
    let points: Vec<_> = text.lines().filter_map(|line| line.splitn(6, ' ').nth(4)).collect();
    assert_eq!(is_chrooted(text), !points.is_empty() && !points.contains(&"/"));
    let empty = |point: &&str| matches!(&point[6..], "sys/fs/binfmt_misc" | "fs/nfsd" | "openprom");
    let below: Vec<_> = points.iter().filter(|point| point.starts_with("/proc/")).collect();
    assert_eq!(covers_proc(text), below.iter().any(|point| !empty(point)));

    let mode = hidepid(text, &[group]);
    assert!(points.contains(&"/proc") || mode == HidePid::Off);
    assert!(text.contains("hidepid=") || mode == HidePid::Off);
    // With a mount at /proc after all others, nothing of the text before it counts.
    for (name, number, expected) in HidePid::ALL {
        let exempt = if expected == HidePid::Ptraceable { expected } else { HidePid::Off };
        for value in [name.to_owned(), number.to_string()] {
            let last = format!("{text}\n1 1 0:1 / /proc rw - proc proc rw,hidepid={value},gid={group}\n");
            assert_eq!(hidepid(&last, &[group]), exempt);
            assert_eq!(hidepid(&last, &[group + 1]), expected);
        }
    }
}
