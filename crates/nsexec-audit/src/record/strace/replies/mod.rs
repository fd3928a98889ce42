//! The replies in strace's lines, by the kind of reply in the [table](crate::record::table) of calls. A reply
//! is shown in one or both of two places: the value that the kernel wrote into the caller's memory stands
//! among the arguments, and the result at the end of the line.

mod files;

use core::fmt::{self, Formatter};

use super::parts::{array, field};
use super::words::{
    Cpus, Quoted, SA_FLAGS, SEALS, Set, SignalName, UNKNOWN_ADDRESS, address, bytes, cpus, fd, flags, number,
    pair, signal_set, write_flags,
};
use crate::record::{Call, Reply, kind};
pub(super) use files::{one_byte, polled, rights, write_one_byte, write_polled, write_rights};
use nsexec::sys::types::{Pid, Seals, SentSignal, SigAction, Signal, SocketType, TidAddress};

/// The form of a kind of reply.
pub(super) trait Shown {
    /// Writes the value in the caller's memory. If the call has written none, its address is unknown.
    fn write(f: &mut Formatter<'_>, reply: &Reply) -> fmt::Result {
        let _ = reply;
        f.write_str(UNKNOWN_ADDRESS)
    }

    /// Parses the reply to a call that did not fail: the value in memory, and the result.
    fn parse(call: &Call, filled: &str, result: &str) -> Option<Reply>;
}

/// Writes the result of a call.
pub(super) fn write_result(f: &mut Formatter<'_>, reply: &Reply) -> fmt::Result {
    match reply {
        Reply::Unit
        | Reply::Pair(..)
        | Reply::FsType(_)
        | Reply::SocketType(_)
        | Reply::Links(_)
        | Reply::ReadOnly(_)
        | Reply::Seals(Seals(0))
        | Reply::TidAddress(_)
        | Reply::Mask(_)
        | Reply::Action(_)
        | Reply::Child
        | Reply::NoReturn => f.write_str("0"),
        Reply::Seals(seals) => {
            write!(f, "{:#x} (seals ", seals.0)?;
            write_flags(f, seals.0.into(), SEALS, "F_SEAL_???")?;
            f.write_str(")")
        }
        Reply::Fd(fd) => write!(f, "{}", fd.0),
        Reply::Count(count) => write!(f, "{count}"),
        Reply::Data(data) => write!(f, "{}", data.0.len()),
        Reply::Received(received) => write!(f, "{}", usize::from(received.byte.is_some())),
        Reply::Polled { count: 0, .. } => f.write_str("0 (Timeout)"),
        Reply::Polled { count, fds } => {
            write!(f, "{count} (")?;
            write_polled(f, fds.iter().filter(|fd| fd.revents.0 != 0), |fd| ("revents", fd.revents))?;
            f.write_str(")")
        }
        Reply::Parent(pid) | Reply::ParentOfInit { pid, .. } | Reply::Pid(pid) => write!(f, "{pid}"),
        Reply::Waited(waited) => write!(f, "{}", waited.pid),
        Reply::Affinity(_) => f.write_str("8"),
        Reply::Permissions(mask) => write!(f, "0{mask:02o}"),
        Reply::Signal(signal) | Reply::Sent(SentSignal { signal, .. }) => {
            write!(f, "{} ({})", signal.0, SignalName(*signal))
        }
        Reply::Errno(errno) => match errno.name() {
            Some(name) => write!(f, "-1 {name} ({errno})"),
            None => write!(f, "-1 (errno {})", errno.0),
        },
    }
}

fn count(result: &str) -> Option<usize> {
    result.parse().ok()
}

impl Shown for kind::Unit {
    fn parse(call: &Call, _: &str, result: &str) -> Option<Reply> {
        let success = match call.chosen() {
            Some(_) => fd(result).is_some_and(|made| made.0 >= 0),
            None => result == "0",
        };
        success.then_some(Reply::Unit)
    }
}

impl Shown for kind::Unrecorded {
    fn parse(_: &Call, _: &str, result: &str) -> Option<Reply> {
        count(result).map(|_| Reply::Unit)
    }
}

impl Shown for kind::Fd {
    fn parse(_: &Call, _: &str, result: &str) -> Option<Reply> {
        fd(result).filter(|fd| fd.0 >= 0).map(Reply::Fd)
    }
}

impl Shown for kind::Pair {
    fn write(f: &mut Formatter<'_>, reply: &Reply) -> fmt::Result {
        match reply {
            Reply::Pair(one, other) => write!(f, "[{}, {}]", one.0, other.0),
            _ => f.write_str(UNKNOWN_ADDRESS),
        }
    }

    fn parse(_: &Call, filled: &str, _: &str) -> Option<Reply> {
        pair(filled).map(|(one, other)| Reply::Pair(one, other))
    }
}

impl Shown for kind::Count {
    fn parse(_: &Call, _: &str, result: &str) -> Option<Reply> {
        count(result).map(Reply::Count)
    }
}

impl Shown for kind::OneByte {
    fn parse(_: &Call, _: &str, result: &str) -> Option<Reply> {
        count(result).map(Reply::Count)
    }
}

impl Shown for kind::Data {
    fn write(f: &mut Formatter<'_>, reply: &Reply) -> fmt::Result {
        match reply {
            Reply::Data(data) => write!(f, "{}", Quoted::data(data)),
            _ => f.write_str(UNKNOWN_ADDRESS),
        }
    }

    fn parse(_: &Call, filled: &str, result: &str) -> Option<Reply> {
        count(result).and_then(|_| bytes(filled)).map(Reply::Data)
    }
}

impl Shown for kind::Links {
    fn write(f: &mut Formatter<'_>, reply: &Reply) -> fmt::Result {
        match reply {
            Reply::Links(count) => write!(f, "{{st_nlink={count}, ...}}"),
            _ => f.write_str(UNKNOWN_ADDRESS),
        }
    }

    fn parse(_: &Call, filled: &str, _: &str) -> Option<Reply> {
        Some(Reply::Links(field(filled, "st_nlink").and_then(number).unwrap_or(0)))
    }
}

impl Shown for kind::SocketType {
    fn write(f: &mut Formatter<'_>, reply: &Reply) -> fmt::Result {
        match reply {
            Reply::SocketType(kind) => write!(f, "[{}]", kind.0),
            _ => f.write_str(UNKNOWN_ADDRESS),
        }
    }

    fn parse(_: &Call, filled: &str, _: &str) -> Option<Reply> {
        let kind = filled.strip_prefix('[')?.strip_suffix(']')?;
        kind.parse().ok().map(SocketType).map(Reply::SocketType)
    }
}

impl Shown for kind::Seals {
    /// Parses `0` and `0xf (seals F_SEAL_SEAL|…)`.
    fn parse(_: &Call, _: &str, result: &str) -> Option<Reply> {
        let word = number(result.split(" (").next()?)?;
        u32::try_from(word).ok().map(Seals).map(Reply::Seals)
    }
}

impl Shown for kind::ReadOnly {
    fn write(f: &mut Formatter<'_>, reply: &Reply) -> fmt::Result {
        f.write_str(match reply {
            Reply::ReadOnly(true) => "{f_flags=ST_RDONLY, ...}",
            Reply::ReadOnly(false) => "{f_flags=0, ...}",
            _ => UNKNOWN_ADDRESS,
        })
    }

    fn parse(_: &Call, filled: &str, _: &str) -> Option<Reply> {
        let flags = field(filled, "f_flags")?;
        Some(Reply::ReadOnly(flags.split('|').any(|flag| flag == "ST_RDONLY")))
    }
}

impl Shown for kind::Exec {
    fn parse(_: &Call, _: &str, result: &str) -> Option<Reply> {
        (result == "0").then_some(Reply::NoReturn)
    }
}

impl Shown for kind::Forked {
    /// Writes the pid in the parent's memory. Only one of the clones has it.
    fn write(f: &mut Formatter<'_>, reply: &Reply) -> fmt::Result {
        match reply {
            Reply::Parent(pid) => write!(f, "parent_tid=[{pid}]"),
            _ => write!(f, "parent_tid={UNKNOWN_ADDRESS}"),
        }
    }

    fn parse(call: &Call, filled: &str, result: &str) -> Option<Reply> {
        let pid = match result.parse().ok()? {
            0 => return Some(Reply::Child),
            pid => Pid(pid),
        };
        let written = matches!(call, Call::CloneChild { .. });
        (!written || filled == format!("parent_tid=[{pid}]")).then_some(Reply::Parent(pid))
    }
}

impl Shown for kind::InitFork {
    fn write(f: &mut Formatter<'_>, reply: &Reply) -> fmt::Result {
        match reply {
            Reply::ParentOfInit { pidfd, .. } => {
                write!(f, "parent_tid=[{}]", pidfd.map_or(-1, |pidfd| pidfd.0))
            }
            _ => write!(f, "parent_tid={UNKNOWN_ADDRESS}"),
        }
    }

    fn parse(_: &Call, filled: &str, result: &str) -> Option<Reply> {
        match result.parse().ok()? {
            0 => Some(Reply::Child),
            pid => {
                let pidfd = fd(array(filled.strip_prefix("parent_tid=")?)?.first()?)?;
                let pidfd = Some(pidfd).filter(|pidfd| pidfd.0 >= 0);
                Some(Reply::ParentOfInit { pid: Pid(pid), pidfd })
            }
        }
    }
}

impl Shown for kind::Pid {
    fn parse(_: &Call, _: &str, result: &str) -> Option<Reply> {
        result.parse().ok().map(Pid).map(Reply::Pid)
    }
}

impl Shown for kind::TidAddress {
    fn write(f: &mut Formatter<'_>, reply: &Reply) -> fmt::Result {
        match reply {
            Reply::TidAddress(TidAddress { address: 0, .. }) => f.write_str("[NULL]"),
            Reply::TidAddress(tid) => write!(f, "[{:#x}]", tid.address),
            _ => f.write_str(UNKNOWN_ADDRESS),
        }
    }

    fn parse(_: &Call, filled: &str, _: &str) -> Option<Reply> {
        let address = address(array(filled)?.first()?)?;
        Some(Reply::TidAddress(TidAddress { address, cached: 0 }))
    }
}

impl Shown for kind::Affinity {
    fn write(f: &mut Formatter<'_>, reply: &Reply) -> fmt::Result {
        match reply {
            Reply::Affinity(mask) => write!(f, "{}", Cpus(*mask)),
            _ => f.write_str(UNKNOWN_ADDRESS),
        }
    }

    fn parse(_: &Call, filled: &str, _: &str) -> Option<Reply> {
        cpus(filled).map(Reply::Affinity)
    }
}

impl Shown for kind::Mask {
    fn write(f: &mut Formatter<'_>, reply: &Reply) -> fmt::Result {
        match reply {
            Reply::Mask(old) => write!(f, "{}", Set(*old)),
            _ => f.write_str(UNKNOWN_ADDRESS),
        }
    }

    fn parse(_: &Call, filled: &str, _: &str) -> Option<Reply> {
        signal_set(filled).map(Reply::Mask)
    }
}

impl Shown for kind::Permissions {
    fn parse(_: &Call, _: &str, result: &str) -> Option<Reply> {
        u32::from_str_radix(result, 8).ok().map(Reply::Permissions)
    }
}

impl Shown for kind::Action {
    fn write(f: &mut Formatter<'_>, reply: &Reply) -> fmt::Result {
        match reply {
            Reply::Action(old) => write_action(f, old),
            _ => f.write_str(UNKNOWN_ADDRESS),
        }
    }

    fn parse(_: &Call, filled: &str, _: &str) -> Option<Reply> {
        action(filled).map(Reply::Action)
    }
}

impl Shown for kind::Sent {
    /// Writes the first two fields of siginfo_t. The others depend on the sender.
    fn write(f: &mut Formatter<'_>, reply: &Reply) -> fmt::Result {
        match reply {
            Reply::Sent(SentSignal { signal, by_kernel }) => {
                let code = if *by_kernel { "SI_KERNEL" } else { "SI_USER" };
                write!(f, "{{si_signo={}, si_code={code}}}", SignalName(*signal))
            }
            _ => f.write_str(UNKNOWN_ADDRESS),
        }
    }

    fn parse(_: &Call, filled: &str, result: &str) -> Option<Reply> {
        let signal = result.split(' ').next()?.parse().ok().map(Signal)?;
        Some(Reply::Sent(SentSignal { signal, by_kernel: field(filled, "si_code")? == "SI_KERNEL" }))
    }
}

impl Shown for kind::Signal {
    fn parse(_: &Call, _: &str, result: &str) -> Option<Reply> {
        result.split(' ').next()?.parse().ok().map(Signal).map(Reply::Signal)
    }
}

/// Writes what sigaction sets or returns.
pub(super) fn write_action(f: &mut Formatter<'_>, action: &SigAction) -> fmt::Result {
    match action.handler {
        0 => f.write_str("{sa_handler=SIG_DFL")?,
        1 => f.write_str("{sa_handler=SIG_IGN")?,
        address => write!(f, "{{sa_handler={address:#x}")?,
    }
    write!(f, ", sa_mask={}, sa_flags=", Set(action.mask))?;
    write_flags(f, action.flags, SA_FLAGS, "SA_???")?;
    let (restorer, _) = SA_FLAGS[0];
    if action.flags & restorer != 0 {
        write!(f, ", sa_restorer={:#x}", action.restorer)?;
    }
    f.write_str("}")
}

/// Parses what sigaction sets or returns.
pub(super) fn action(text: &str) -> Option<SigAction> {
    let handler = match field(text, "sa_handler")? {
        "SIG_DFL" => 0,
        "SIG_IGN" => 1,
        handler => address(handler)?,
    };
    Some(SigAction {
        handler,
        flags: flags(field(text, "sa_flags")?, SA_FLAGS)?,
        restorer: field(text, "sa_restorer").map_or(Some(0), address)?,
        mask: signal_set(field(text, "sa_mask")?)?,
    })
}
