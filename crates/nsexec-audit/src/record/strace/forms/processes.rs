//! The forms of arguments that concern processes: clones, waits, namespaces, mounts, signals.

use core::fmt::{self, Display, Formatter};

use super::{Form, Usual, by_name, named};
use crate::record::strace::parts::Arguments;
use crate::record::strace::replies::{action, write_action};
use crate::record::strace::words::{
    Set, SignalName, UNKNOWN_ADDRESS, address, clone_flags, signal, signal_set, write_clone_flags,
};
use nsexec::sys::types::{
    CloneFlags, ExitSignal, MaskHow, Mount, Propagation, SigAction, Signal, SignalSet, TidAddress, WaitFor,
};

/// The flags of a clone that creates a sibling, and the address of the cached thread id.
pub(in crate::record::strace) struct Sibling;

impl Form for Sibling {
    type Value = Option<TidAddress>;

    fn write(tid: &Option<TidAddress>, f: &mut Formatter<'_>) -> fmt::Result {
        write_clone(f, true, ExitSignal::Chld, *tid)
    }

    fn parse(arguments: &mut Arguments<'_>) -> Option<Option<TidAddress>> {
        let (sibling, _, tid) = clone(arguments)?;
        sibling.then_some(tid)
    }
}

/// The flags of a clone that creates a child, and the address of the cached thread id.
pub(in crate::record::strace) struct Child;

impl Form for Child {
    type Value = (ExitSignal, Option<TidAddress>);

    fn write((exit, tid): &Self::Value, f: &mut Formatter<'_>) -> fmt::Result {
        write_clone(f, false, *exit, *tid)
    }

    fn parse(arguments: &mut Arguments<'_>) -> Option<Self::Value> {
        let (sibling, exit, tid) = clone(arguments)?;
        (!sibling).then_some((exit, tid))
    }
}

/// The stack and the flags of a clone that creates the init: `CLONE_VM` for a shared memory, `CLONE_PIDFD`,
/// the new namespaces, and those of the cached thread id.
pub(in crate::record::strace) struct StackAndFlags;

/// The flags without the namespaces, and the number before which a namespace's flag is written.
const INIT_FLAGS: [(u32, &str); 3] =
    [(0x1000, "CLONE_PIDFD"), (0x0020_0000, "CLONE_CHILD_CLEARTID"), (0x0100_0000, "CLONE_CHILD_SETTID")];

impl Form for StackAndFlags {
    type Value = (bool, CloneFlags);

    /// Writes the names in strace's order, which is by number.
    fn write((shared, namespaces): &Self::Value, f: &mut Formatter<'_>) -> fmt::Result {
        match shared {
            true => write!(f, "child_stack={UNKNOWN_ADDRESS}, flags=CLONE_VM|")?,
            false => f.write_str("child_stack=NULL, flags=")?,
        }
        let mut below = 0;
        for (number, name) in INIT_FLAGS {
            let smaller = CloneFlags(namespaces.0 & (number - 1) & !below);
            if smaller != CloneFlags::EMPTY {
                write_clone_flags(f, smaller, "CLONE_???")?;
                f.write_str("|")?;
            }
            f.write_str(name)?;
            f.write_str(if name == "CLONE_CHILD_SETTID" { "" } else { "|" })?;
            below = number - 1;
        }
        let larger = CloneFlags(namespaces.0 & !below);
        if larger != CloneFlags::EMPTY {
            f.write_str("|")?;
            write_clone_flags(f, larger, "CLONE_???")?;
        }
        Ok(())
    }

    fn parse(arguments: &mut Arguments<'_>) -> Option<Self::Value> {
        let has_stack = arguments.next()?.strip_prefix("child_stack=")? != "NULL";
        let words = arguments.next()?.strip_prefix("flags=")?;
        let shared = words.strip_prefix("CLONE_VM|");
        let words = shared.unwrap_or(words);
        (has_stack == shared.is_some()).then_some(())?;
        let (own, namespaces): (Vec<&str>, Vec<&str>) =
            words.split('|').partition(|word| INIT_FLAGS.iter().any(|(_, name)| name == word));
        (own.len() == INIT_FLAGS.len()).then_some(())?;
        let namespaces = match namespaces.is_empty() {
            true => CloneFlags::EMPTY,
            false => clone_flags(&namespaces.join("|"))?,
        };
        Some((has_stack, namespaces))
    }
}

/// The address of the cached thread id of the init.
pub(in crate::record::strace) struct ChildTid;

impl Form for ChildTid {
    type Value = Option<TidAddress>;

    fn write(tid: &Option<TidAddress>, f: &mut Formatter<'_>) -> fmt::Result {
        match tid {
            None => f.write_str("child_tidptr=NULL"),
            Some(tid) => write!(f, "child_tidptr={:#x}", tid.address),
        }
    }

    fn parse(arguments: &mut Arguments<'_>) -> Option<Option<TidAddress>> {
        match arguments.next()?.strip_prefix("child_tidptr=")? {
            "NULL" => Some(None),
            pointer => Some(Some(TidAddress { address: address(pointer)?, cached: 0 })),
        }
    }
}

fn write_clone(
    f: &mut Formatter<'_>,
    sibling: bool,
    exit: ExitSignal,
    tid: Option<TidAddress>,
) -> fmt::Result {
    let parent = if sibling { "CLONE_PARENT|" } else { "" };
    match (tid, exit) {
        (None, ExitSignal::Chld) => write!(f, "flags={parent}SIGCHLD"),
        (None, ExitSignal::None) => write!(f, "flags={parent}0"),
        (Some(tid), exit) => {
            let signal = if exit == ExitSignal::Chld { "|SIGCHLD" } else { "" };
            write!(f, "flags={parent}CLONE_CHILD_CLEARTID|CLONE_CHILD_SETTID{signal}")?;
            write!(f, ", child_tidptr={:#x}", tid.address)
        }
    }
}

/// Returns whether a clone creates a sibling, the exit signal, and the address.
fn clone(arguments: &mut Arguments<'_>) -> Option<(bool, ExitSignal, Option<TidAddress>)> {
    let words = arguments.next()?.strip_prefix("flags=")?;
    let has = |name| words.split('|').any(|word| word == name);
    let known = ["CLONE_PARENT", "CLONE_CHILD_CLEARTID", "CLONE_CHILD_SETTID", "SIGCHLD", "0"];
    if !words.split('|').all(|word| known.contains(&word)) {
        return None;
    }
    let tid = match arguments.next() {
        Some(pointer) => {
            Some(TidAddress { address: address(pointer.strip_prefix("child_tidptr=")?)?, cached: 0 })
        }
        None => None,
    };
    let exit = if has("SIGCHLD") { ExitSignal::Chld } else { ExitSignal::None };
    Some((has("CLONE_PARENT"), exit, tid))
}

/// The options of wait4(2), with `__WCLONE` before `__WNOTHREAD`.
const WAIT_OPTIONS: [(WaitFor, &str); 4] = [
    (WaitFor::Ordinary, "0"),
    (WaitFor::OrdinaryNow, "WNOHANG"),
    (WaitFor::Stages, "__WCLONE|__WNOTHREAD"),
    (WaitFor::StagesNow, "WNOHANG|WSTOPPED|__WCLONE|__WNOTHREAD"),
];

impl Usual for WaitFor {
    fn write(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(named(&WAIT_OPTIONS, self))
    }

    fn parse(arguments: &mut Arguments<'_>) -> Option<Self> {
        let text = arguments.next()?;
        by_name(&WAIT_OPTIONS, &text.replace("__WNOTHREAD|__WCLONE", "__WCLONE|__WNOTHREAD"))
    }
}

/// The kind of namespace that setns joins.
pub(in crate::record::strace) struct Joined;

impl Form for Joined {
    type Value = CloneFlags;

    fn write(kind: &CloneFlags, f: &mut Formatter<'_>) -> fmt::Result {
        write_clone_flags(f, *kind, "CLONE_NEW???")
    }

    fn parse(arguments: &mut Arguments<'_>) -> Option<CloneFlags> {
        clone_flags(arguments.next()?)
    }
}

/// The namespaces that unshare creates.
pub(in crate::record::strace) struct Unshared;

impl Form for Unshared {
    type Value = CloneFlags;

    fn write(flags: &CloneFlags, f: &mut Formatter<'_>) -> fmt::Result {
        write_clone_flags(f, *flags, "CLONE_???")
    }

    fn parse(arguments: &mut Arguments<'_>) -> Option<CloneFlags> {
        clone_flags(arguments.next()?)
    }
}

/// The five arguments of each mount.
const MOUNTS: [(Mount, [&str; 5]); 6] = [
    (Mount::Propagation(Propagation::Private), ["NULL", "\"/\"", "NULL", "MS_REC|MS_PRIVATE", "NULL"]),
    (Mount::Propagation(Propagation::Slave), ["NULL", "\"/\"", "NULL", "MS_REC|MS_SLAVE", "NULL"]),
    (Mount::Propagation(Propagation::Shared), ["NULL", "\"/\"", "NULL", "MS_REC|MS_SHARED", "NULL"]),
    (Mount::Proc, ["\"proc\"", "\"/proc\"", "\"proc\"", "MS_NOSUID|MS_NODEV|MS_NOEXEC", "NULL"]),
    (
        Mount::Sysfs { read_only: true },
        ["\"sysfs\"", "\"/sys\"", "\"sysfs\"", "MS_RDONLY|MS_NOSUID|MS_NODEV|MS_NOEXEC", "NULL"],
    ),
    (
        Mount::Sysfs { read_only: false },
        ["\"sysfs\"", "\"/sys\"", "\"sysfs\"", "MS_NOSUID|MS_NODEV|MS_NOEXEC", "NULL"],
    ),
];

impl Usual for Mount {
    fn write(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let found = MOUNTS.iter().find(|(mount, _)| mount == self);
        f.write_str(&found.map_or(String::new(), |(_, texts)| texts.join(", ")))
    }

    fn parse(arguments: &mut Arguments<'_>) -> Option<Self> {
        let mut found = [""; 5];
        for place in &mut found {
            *place = arguments.next()?;
        }
        MOUNTS.iter().find(|(_, texts)| *texts == found).map(|(mount, _)| *mount)
    }
}

impl Usual for Signal {
    fn write(&self, f: &mut Formatter<'_>) -> fmt::Result {
        SignalName(*self).fmt(f)
    }

    fn parse(arguments: &mut Arguments<'_>) -> Option<Self> {
        signal(arguments.next()?)
    }
}

impl Usual for SignalSet {
    fn write(&self, f: &mut Formatter<'_>) -> fmt::Result {
        Set(*self).fmt(f)
    }

    fn parse(arguments: &mut Arguments<'_>) -> Option<Self> {
        signal_set(arguments.next()?)
    }
}

const MASK_CHANGES: [(MaskHow, &str); 2] = [(MaskHow::Block, "SIG_BLOCK"), (MaskHow::Set, "SIG_SETMASK")];

impl Usual for MaskHow {
    fn write(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(named(&MASK_CHANGES, self))
    }

    fn parse(arguments: &mut Arguments<'_>) -> Option<Self> {
        by_name(&MASK_CHANGES, arguments.next()?)
    }
}

impl Usual for SigAction {
    fn write(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write_action(f, self)
    }

    fn parse(arguments: &mut Arguments<'_>) -> Option<Self> {
        action(arguments.next()?)
    }
}
