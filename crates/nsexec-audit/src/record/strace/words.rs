//! Words of strace's dialect: quoted strings, numbers, flags by name, signals. Each is written and parsed
//! side by side.

use core::fmt::{self, Display, Formatter};
use std::borrow::ToOwned;
use std::string::String;
use std::vec::Vec;

use super::parts::array;
use crate::record::Bytes;
use nsexec::sys::types::{CloneFlags, Errno, Fd, PollEvents, Signal, SignalSet};

/// An address that strace prints and the recorder does not have.
pub(super) const UNKNOWN_ADDRESS: &str = "0x…";

/// The number of bytes of a string that `strace -s 4096` shows.
const STRING_LIMIT: usize = 4096;

/// A string in quotes, escaped. A longer one is cut after this number of bytes and followed by `...`.
pub(super) struct Quoted<'a>(pub &'a [u8], pub usize);

impl<'a> Quoted<'a> {
    pub(super) fn data(data: &'a Bytes) -> Self {
        Self(&data.0, STRING_LIMIT)
    }
}

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let shown = self.0.get(..self.1).unwrap_or(self.0);
        f.write_str("\"")?;
        for (index, byte) in shown.iter().enumerate() {
            let next_is_octal = matches!(shown.get(index + 1), Some(b'0'..=b'7'));
            match byte {
                b'"' => f.write_str("\\\"")?,
                b'\\' => f.write_str("\\\\")?,
                b'\n' => f.write_str("\\n")?,
                b'\t' => f.write_str("\\t")?,
                b'\r' => f.write_str("\\r")?,
                0x0b => f.write_str("\\v")?,
                0x0c => f.write_str("\\f")?,
                b' '..=b'~' => write!(f, "{}", char::from(*byte))?,
                // The shortest escape that cannot be read together with the next character, as in C.
                _ if next_is_octal => write!(f, "\\{byte:03o}")?,
                _ => write!(f, "\\{byte:o}")?,
            }
        }
        f.write_str(if shown.len() < self.0.len() { "\"..." } else { "\"" })
    }
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
pub(crate) fn whole(text: &str) -> Option<Vec<u8>> {
    string(text).filter(|(_, cut)| !cut).map(|(data, _)| data)
}

/// Parses a quoted string that strace did not cut.
pub(super) fn bytes(text: &str) -> Option<Bytes> {
    whole(text).map(Bytes)
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

/// A user or group id. The id that means "no change" is shown as −1.
pub(super) struct Id(pub u32);

impl Display for Id {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.0 == u32::MAX { f.write_str("-1") } else { self.0.fmt(f) }
    }
}

/// Parses a user or group id. `-1` means no change.
pub(super) fn id(text: &str) -> Option<u32> {
    if text == "-1" { Some(u32::MAX) } else { text.parse().ok() }
}

/// Parses `-1 EPERM (Operation not permitted)` and `-1 (errno 512)`.
pub(crate) fn errno(result: &str) -> Option<Errno> {
    let rest = result.strip_prefix("-1 ")?;
    if let Some(number) = rest.strip_prefix("(errno ") {
        return number.strip_suffix(')')?.parse().ok().map(Errno);
    }
    let name: String = rest.split(' ').next()?.into();
    (1..134).map(Errno).find(|errno| errno.name() == Some(&name[..]))
}

/// Writes a set of flags: named flags in the order of the table, then the other bits in hexadecimal. If no
/// flag has a name, the comment `unknown` follows.
pub(super) fn write_flags(
    f: &mut Formatter<'_>,
    word: u64,
    names: &[(u64, &str)],
    unknown: &str,
) -> fmt::Result {
    let mut rest = word;
    let mut between = "";
    for (bit, name) in names {
        if word & bit != 0 {
            write!(f, "{between}{name}")?;
            (rest, between) = (rest & !bit, "|");
        }
    }
    match (between, rest) {
        ("", 0) => f.write_str("0"),
        ("", rest) => write!(f, "{rest:#x} /* {unknown} */"),
        (_, 0) => Ok(()),
        (between, rest) => write!(f, "{between}{rest:#x}"),
    }
}

/// Parses flags, from names and numbers.
pub(super) fn flags(text: &str, names: &[(u64, &str)]) -> Option<u64> {
    text.split('|').try_fold(0, |word, part| {
        let named = names.iter().find(|(_, name)| *name == part).map(|(bit, _)| *bit);
        named.or_else(|| number(part)).map(|bits| word | bits)
    })
}

/// Writes the flags of setns and unshare. strace has other names for bits that are not a namespace flag. The
/// callers here never set such bits.
pub(super) fn write_clone_flags(f: &mut Formatter<'_>, word: CloneFlags, unknown: &str) -> fmt::Result {
    if word == word.unknown() { write_flags(f, word.0.into(), &[], unknown) } else { word.fmt(f) }
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

/// The flags of sigaction(2), in strace's order.
pub(super) const SA_FLAGS: &[(u64, &str)] = &[
    (0x0400_0000, "SA_RESTORER"),
    (0x0800_0000, "SA_ONSTACK"),
    (0x1000_0000, "SA_RESTART"),
    (0x2000_0000, "SA_INTERRUPT"),
    (0x4000_0000, "SA_NODEFER"),
    (0x8000_0000, "SA_RESETHAND"),
    (4, "SA_SIGINFO"),
    (1, "SA_NOCLDSTOP"),
    (2, "SA_NOCLDWAIT"),
];

/// The seals of fcntl(2), in strace's order.
pub(super) const SEALS: &[(u64, &str)] = &[
    (0x1, "F_SEAL_SEAL"),
    (0x2, "F_SEAL_SHRINK"),
    (0x4, "F_SEAL_GROW"),
    (0x8, "F_SEAL_WRITE"),
    (0x10, "F_SEAL_FUTURE_WRITE"),
];

/// The events of poll(2), in strace's order.
pub(super) const POLL_FLAGS: &[(u64, &str)] = &[
    (0x1, "POLLIN"),
    (0x2, "POLLPRI"),
    (0x4, "POLLOUT"),
    (0x8, "POLLERR"),
    (0x10, "POLLHUP"),
    (0x20, "POLLNVAL"),
    (0x40, "POLLRDNORM"),
    (0x80, "POLLRDBAND"),
    (0x100, "POLLWRNORM"),
    (0x200, "POLLWRBAND"),
    (0x400, "POLLMSG"),
    (0x1000, "POLLREMOVE"),
    (0x2000, "POLLRDHUP"),
];

pub(super) fn write_poll_events(f: &mut Formatter<'_>, events: PollEvents) -> fmt::Result {
    write_flags(f, u16::from_ne_bytes(events.0.to_ne_bytes()).into(), POLL_FLAGS, "POLL???")
}

pub(super) fn poll_events(text: &str) -> Option<PollEvents> {
    let word = u16::try_from(flags(text, POLL_FLAGS)?).ok()?;
    Some(PollEvents(i16::from_ne_bytes(word.to_ne_bytes())))
}

/// A signal as an argument: `SIGKILL`, `SIGRT_2`, or the number.
pub(super) struct SignalName(pub Signal);

impl Display for SignalName {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match (self.0.name(), self.0.0) {
            (Some(name), _) => f.write_str(name),
            (None, 32) => f.write_str("SIGRTMIN"),
            (None, number @ 33..=64) => write!(f, "SIGRT_{}", number - 32),
            (None, number) => write!(f, "{number}"),
        }
    }
}

/// Parses `SIGKILL`, `SIGRT_2`, or a number.
pub(crate) fn signal(text: &str) -> Option<Signal> {
    match text.strip_prefix("SIG") {
        Some("RTMIN") => Some(Signal(32)),
        Some(name) => match name.strip_prefix("RT_") {
            Some(above) => above.parse::<i32>().ok().map(|above| Signal(32 + above)),
            None => (1..32).map(Signal).find(|signal| signal.name() == Some(text)),
        },
        None => text.parse().ok().map(Signal),
    }
}

/// A set of signals: `[HUP PIPE]`. If it has two thirds of all signals, those that are missing: `~[KILL]`.
pub(super) struct Set(pub SignalSet);

impl Display for Set {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let SignalSet(word) = self.0;
        let all_but = word.count_ones() >= 64 * 2 / 3;
        let shown = if all_but { !word } else { word };
        f.write_str(if all_but { "~[" } else { "[" })?;
        let mut between = "";
        for number in (1..=64).filter(|number| shown & 1 << (number - 1) != 0) {
            match (Signal(number).name(), number) {
                (Some(name), _) => write!(f, "{between}{}", name.trim_start_matches("SIG"))?,
                (None, 32) => write!(f, "{between}RTMIN")?,
                (None, _) => write!(f, "{between}RT_{}", number - 32)?,
            }
            between = " ";
        }
        f.write_str("]")
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

/// The CPUs of a mask: `[0 1 5]`.
pub(super) struct Cpus(pub u64);

impl Display for Cpus {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        let mut between = "";
        for cpu in (0..64).filter(|cpu| self.0 & 1_u64 << cpu != 0) {
            write!(f, "{between}{cpu}")?;
            between = " ";
        }
        f.write_str("]")
    }
}

/// Parses the CPUs of a mask, `[0 1 5]`. Only the first 64 are kept.
pub(super) fn cpus(text: &str) -> Option<u64> {
    let names = text.strip_prefix('[')?.strip_suffix(']')?;
    names.split_whitespace().try_fold(0_u64, |word, name| {
        let cpu: u32 = name.parse().ok()?;
        Some(if cpu < 64 { word | 1_u64 << cpu } else { word })
    })
}
