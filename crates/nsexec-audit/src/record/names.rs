//! Parts of strace's dialect: quoted strings, flags by name, signals.

use core::fmt::{self, Display, Formatter};

use super::{Bytes, Reply};
use nsexec::sys::types::{CloneFlags, PollEvents, Signal, SignalSet, WaitFor, WaitStatus};

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

/// Writes a set of flags: named flags in the order of the table, then the other bits in hexadecimal. If no
/// flag has a name, the comment `unknown` follows.
pub(super) fn flags(f: &mut Formatter<'_>, word: u64, names: &[(u64, &str)], unknown: &str) -> fmt::Result {
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

/// Writes the flags of setns and unshare. strace has other names for bits that are not a namespace flag. The
/// callers here never set such bits.
pub(super) fn clone_flags(f: &mut Formatter<'_>, word: CloneFlags, unknown: &str) -> fmt::Result {
    if word == word.unknown() { flags(f, word.0.into(), &[], unknown) } else { word.fmt(f) }
}

/// The flags of sigaction(2), in strace's order.
pub(crate) const SA_FLAGS: &[(u64, &str)] = &[
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
pub(crate) const SEALS: &[(u64, &str)] = &[
    (0x1, "F_SEAL_SEAL"),
    (0x2, "F_SEAL_SHRINK"),
    (0x4, "F_SEAL_GROW"),
    (0x8, "F_SEAL_WRITE"),
    (0x10, "F_SEAL_FUTURE_WRITE"),
];

/// The events of poll(2), in strace's order.
pub(crate) const POLL_FLAGS: &[(u64, &str)] = &[
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

pub(super) fn poll_events(f: &mut Formatter<'_>, events: PollEvents) -> fmt::Result {
    flags(f, u16::from_ne_bytes(events.0.to_ne_bytes()).into(), POLL_FLAGS, "POLL???")
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

/// The arguments of wait4(2).
pub(super) fn wait4(f: &mut Formatter<'_>, pid: i32, which: WaitFor, reply: &Reply) -> fmt::Result {
    write!(f, "{pid}, ")?;
    match reply {
        // No child has changed its state: the kernel has written no status.
        Reply::Waited(waited) if waited.pid.0 == 0 => f.write_str(UNKNOWN_ADDRESS)?,
        Reply::Waited(waited) => match waited.status {
            WaitStatus::Exited(code) => write!(f, "[{{WIFEXITED(s) && WEXITSTATUS(s) == {code}}}]"),
            WaitStatus::Signaled(signal) => {
                write!(f, "[{{WIFSIGNALED(s) && WTERMSIG(s) == {}}}]", SignalName(signal))
            }
            WaitStatus::Stopped(signal) => {
                write!(f, "[{{WIFSTOPPED(s) && WSTOPSIG(s) == {}}}]", SignalName(signal))
            }
            WaitStatus::Other(word) => write!(f, "[{word:#x}]"),
        }?,
        _ => f.write_str(UNKNOWN_ADDRESS)?,
    }
    f.write_str(match which {
        WaitFor::Ordinary => ", 0, NULL",
        WaitFor::OrdinaryNow => ", WNOHANG, NULL",
        WaitFor::Stages => ", __WCLONE|__WNOTHREAD, NULL",
        WaitFor::StagesNow => ", WNOHANG|WSTOPPED|__WCLONE|__WNOTHREAD, NULL",
    })
}
