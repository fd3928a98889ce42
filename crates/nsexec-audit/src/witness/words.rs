//! Parses the parts of strace's lines: the inverse of what `sys::record` writes.

use std::borrow::ToOwned;
use std::string::String;
use std::vec::Vec;

use nsexec::sys::types::{CloneFlags, Errno, Fd, PollEvents, Signal, SignalSet, WaitFor, WaitStatus};

/// A line `name(arguments) = result`, with the arguments separated.
pub(super) struct Parts<'a> {
    pub(super) name: &'a str,
    pub(super) args: Vec<&'a str>,
    pub(super) result: &'a str,
}

/// Splits a line. `None` if it has another form: a signal, an unfinished call.
pub(super) fn split(line: &str) -> Option<Parts<'_>> {
    let (name, rest) = line.split_once('(')?;
    let (args, length) = list(rest, b')')?;
    let result = rest.get(length..)?.trim_start().strip_prefix("= ")?;
    Some(Parts { name, args, result })
}

/// Returns the elements of a list up to `end`, and the length including `end`. Commas and brackets inside
/// strings, structures and other lists do not count.
pub(super) fn list(text: &str, end: u8) -> Option<(Vec<&str>, usize)> {
    let mut elements = Vec::new();
    let (mut depth, mut quoted, mut escaped, mut start) = (0_u32, false, false, 0);
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if quoted => {}
            _ if depth == 0 && byte == end => {
                let last = text.get(start..index)?.trim();
                if !last.is_empty() || !elements.is_empty() {
                    elements.push(last);
                }
                return Some((elements, index + 1));
            }
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.checked_sub(1)?,
            b',' if depth == 0 => {
                elements.push(text.get(start..index)?.trim());
                start = index + 1;
            }
            _ => {}
        }
    }
    None
}

/// Returns the elements of `[a, b]`.
pub(super) fn array(text: &str) -> Option<Vec<&str>> {
    let (elements, length) = list(text.strip_prefix('[')?, b']')?;
    (length + 1 == text.len()).then_some(elements)
}

/// Returns the value of a field of `{a=1, b=2}`.
pub(super) fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (fields, _) = list(text.strip_prefix('{')?, b'}')?;
    fields.into_iter().find_map(|field| field.strip_prefix(name)?.strip_prefix('='))
}

/// Parses a quoted string. Returns its bytes, and whether strace cut it.
pub(super) fn string(text: &str) -> Option<(Vec<u8>, bool)> {
    let mut bytes = text.strip_prefix('"')?.bytes().peekable();
    let mut data = Vec::new();
    loop {
        match bytes.next()? {
            b'"' => break,
            b'\\' => data.push(match bytes.next()? {
                b'n' => b'\n',
                b't' => b'\t',
                b'r' => b'\r',
                b'v' => 0x0b,
                b'f' => 0x0c,
                digit @ b'0'..=b'7' => {
                    let mut value = u32::from(digit - b'0');
                    for _ in 0..2 {
                        let Some(next) = bytes.next_if(|next| (b'0'..=b'7').contains(next)) else { break };
                        value = value * 8 + u32::from(next - b'0');
                    }
                    u8::try_from(value).ok()?
                }
                // A quote or a backslash.
                other => other,
            }),
            byte => data.push(byte),
        }
    }
    let rest: Vec<u8> = bytes.collect();
    match &rest[..] {
        b"" => Some((data, false)),
        b"..." => Some((data, true)),
        _ => None,
    }
}

/// Parses a quoted string, and returns `None` if strace cut it.
pub(super) fn whole(text: &str) -> Option<Vec<u8>> {
    string(text).filter(|(_, cut)| !cut).map(|(data, _)| data)
}

/// Parses a number, decimal or hexadecimal, without the comment that may follow it.
pub(super) fn number(text: &str) -> Option<u64> {
    let text = text.split(" /*").next()?;
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// Parses an address: `NULL`, or hexadecimal.
pub(super) fn address(text: &str) -> Option<usize> {
    if text == "NULL" { Some(0) } else { usize::try_from(number(text)?).ok() }
}

pub(super) fn fd(text: &str) -> Option<Fd> {
    if text == "AT_FDCWD" { Some(Fd::CWD) } else { text.parse().ok().map(Fd) }
}

/// Parses two descriptors: `[3, 4]`.
pub(super) fn pair(text: &str) -> Option<(Fd, Fd)> {
    match array(text)?[..] {
        [one, other] => Some((fd(one)?, fd(other)?)),
        _ => None,
    }
}

/// Parses a user or group id. `-1` means no change.
pub(super) fn id(text: &str) -> Option<u32> {
    if text == "-1" { Some(u32::MAX) } else { text.parse().ok() }
}

/// Parses flags, from names and numbers.
pub(super) fn flags(text: &str, names: &[(u64, &str)]) -> Option<u64> {
    text.split('|').try_fold(0, |word, part| {
        let named = names.iter().find(|(_, name)| *name == part).map(|(bit, _)| *bit);
        named.or_else(|| number(part)).map(|bits| word | bits)
    })
}

pub(super) fn clone_flags(text: &str) -> Option<CloneFlags> {
    const NAMES: &[(u64, &str)] = &[
        (0x80, "CLONE_NEWTIME"),
        (0x0002_0000, "CLONE_NEWNS"),
        (0x0200_0000, "CLONE_NEWCGROUP"),
        (0x0400_0000, "CLONE_NEWUTS"),
        (0x0800_0000, "CLONE_NEWIPC"),
        (0x1000_0000, "CLONE_NEWUSER"),
        (0x2000_0000, "CLONE_NEWPID"),
        (0x4000_0000, "CLONE_NEWNET"),
    ];
    flags(text, NAMES).and_then(|word| u32::try_from(word).ok()).map(CloneFlags)
}

pub(super) fn poll_events(text: &str) -> Option<PollEvents> {
    use crate::record::POLL_FLAGS;
    let word = u16::try_from(flags(text, POLL_FLAGS)?).ok()?;
    Some(PollEvents(i16::from_ne_bytes(word.to_ne_bytes())))
}

/// Parses `SIGKILL`, `SIGRT_2`, or a number.
pub(super) fn signal(text: &str) -> Option<Signal> {
    match text.strip_prefix("SIG") {
        Some("RTMIN") => Some(Signal(32)),
        Some(name) => match name.strip_prefix("RT_") {
            Some(above) => above.parse::<i32>().ok().map(|above| Signal(32 + above)),
            None => (1..32).map(Signal).find(|signal| signal.name() == Some(text)),
        },
        None => text.parse().ok().map(Signal),
    }
}

/// Parses `[HUP PIPE]`, or its complement `~[KILL]`.
pub(super) fn signal_set(text: &str) -> Option<SignalSet> {
    let (shown, all_but) = text.strip_prefix('~').map_or((text, false), |shown| (shown, true));
    let names = shown.strip_prefix('[')?.strip_suffix(']')?;
    let word = names.split_whitespace().try_fold(0_u64, |word, name| {
        let bare = name.parse::<i32>().ok().map(Signal);
        let Signal(number) = bare.or_else(|| signal(&("SIG".to_owned() + name)))?;
        let bit = u32::try_from(number).ok()?.checked_sub(1).filter(|bit| *bit < 64)?;
        Some(word | 1_u64 << bit)
    })?;
    Some(SignalSet(if all_but { !word } else { word }))
}

/// Parses the options of wait4(2).
pub(super) fn wait_for(flags: &str) -> Option<WaitFor> {
    match flags {
        "0" => Some(WaitFor::Ordinary),
        "WNOHANG" => Some(WaitFor::OrdinaryNow),
        "__WNOTHREAD|__WCLONE" | "__WCLONE|__WNOTHREAD" => Some(WaitFor::Stages),
        "WNOHANG|WSTOPPED|__WNOTHREAD|__WCLONE" | "WNOHANG|WSTOPPED|__WCLONE|__WNOTHREAD" => {
            Some(WaitFor::StagesNow)
        }
        _ => None,
    }
}

/// Parses a status of wait4(2), in brackets.
pub(super) fn wait_status(text: &str) -> Option<WaitStatus> {
    let inside = text.strip_prefix('[')?.strip_suffix(']')?;
    let inside = inside.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or(inside);
    if let Some(code) = inside.strip_prefix("WIFEXITED(s) && WEXITSTATUS(s) == ") {
        return code.parse().ok().map(WaitStatus::Exited);
    }
    if let Some(killed) = inside.strip_prefix("WIFSIGNALED(s) && WTERMSIG(s) == ") {
        return signal(killed.trim_end_matches(" && WCOREDUMP(s)")).map(WaitStatus::Signaled);
    }
    if let Some(stopped) = inside.strip_prefix("WIFSTOPPED(s) && WSTOPSIG(s) == ") {
        return signal(stopped).map(WaitStatus::Stopped);
    }
    number(inside).and_then(|word| i32::try_from(word).ok()).map(WaitStatus::Other)
}

/// Parses the CPUs of a mask, `[0 1 5]`. Only the first 64 are kept.
pub(super) fn cpus(text: &str) -> Option<u64> {
    let names = text.strip_prefix('[')?.strip_suffix(']')?;
    names.split_whitespace().try_fold(0_u64, |word, name| {
        let cpu: u32 = name.parse().ok()?;
        Some(if cpu < 64 { word | 1_u64 << cpu } else { word })
    })
}

/// Parses `-1 EPERM (Operation not permitted)` and `-1 (errno 512)`.
pub(super) fn errno(result: &str) -> Option<Errno> {
    let rest = result.strip_prefix("-1 ")?;
    if let Some(number) = rest.strip_prefix("(errno ") {
        return number.strip_suffix(')')?.parse().ok().map(Errno);
    }
    let name: String = rest.split(' ').next()?.into();
    (1..134).map(Errno).find(|errno| errno.name() == Some(&name[..]))
}
