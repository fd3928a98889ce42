//! The forms of arguments that concern the surroundings of the command.

use core::fmt::{self, Display, Formatter};
use std::format;
use std::string::String;
use std::vec;
use std::vec::Vec;

use super::{Form, OPEN_FLAGS, Octal, Usual, by_name, creates, named};
use crate::record::strace::parts::{Arguments, array, field};
use crate::record::strace::words::{Id, UNKNOWN_ADDRESS, flags, id, number, write_flags};
use nsexec::sys::types::{
    BpfInstruction, Capability, CapabilitySets, Limit, MountAttributes, MountKind, OpenFlags, Resource,
};

/// The `AT_RECURSIVE` of a call with other flags before it.
macro_rules! recursive {
    ($($(#[$doc:meta])* $form:ident = $others:literal;)+) => { $(
        $(#[$doc])*
        pub(in crate::record::strace) struct $form;

        impl Form for $form {
            type Value = bool;

            fn write(recursive: &bool, f: &mut Formatter<'_>) -> fmt::Result {
                f.write_str(if *recursive { concat!($others, "|AT_RECURSIVE") } else { $others })
            }

            fn parse(arguments: &mut Arguments<'_>) -> Option<bool> {
                match arguments.next()?.strip_prefix($others)? {
                    "" => Some(false),
                    "|AT_RECURSIVE" => Some(true),
                    _ => None,
                }
            }
        }
    )+ };
}

recursive! {
    /// The flags of a copy of a mount.
    Copied = "OPEN_TREE_CLONE|OPEN_TREE_CLOEXEC";
    /// The flags of a change of the attributes of a mount.
    Changed = "AT_EMPTY_PATH";
}

/// The structure with the flags of an openat2 below a root directory.
pub(in crate::record::strace) struct HowInRoot;

const IN_ROOT: &str = "RESOLVE_NO_MAGICLINKS|RESOLVE_IN_ROOT";

impl Form for HowInRoot {
    type Value = OpenFlags;

    fn write(flags: &OpenFlags, f: &mut Formatter<'_>) -> fmt::Result {
        let mode = if creates(*flags) { ", mode=0700" } else { "" };
        write!(f, "{{flags={}{mode}, resolve={IN_ROOT}}}", named(&OPEN_FLAGS, flags))
    }

    fn parse(arguments: &mut Arguments<'_>) -> Option<OpenFlags> {
        let how = arguments.next()?;
        let flags = by_name(&OPEN_FLAGS, field(how, "flags")?);
        let mode = flags.filter(|flags| creates(*flags)).map(|_| "0700");
        flags.filter(|_| field(how, "mode") == mode && field(how, "resolve") == Some(IN_ROOT))
    }
}

const MOUNT_ATTRIBUTES: &[(u64, &str)] = &[
    (MountAttributes::RDONLY, "MOUNT_ATTR_RDONLY"),
    (MountAttributes::NOSUID, "MOUNT_ATTR_NOSUID"),
    (MountAttributes::NODEV, "MOUNT_ATTR_NODEV"),
    (MountAttributes::NOEXEC, "MOUNT_ATTR_NOEXEC"),
];

impl Usual for MountAttributes {
    fn write(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("{attr_set=")?;
        write_flags(f, self.set, MOUNT_ATTRIBUTES, "MOUNT_ATTR_???")?;
        f.write_str(", attr_clr=")?;
        write_flags(f, self.clear, MOUNT_ATTRIBUTES, "MOUNT_ATTR_???")?;
        f.write_str(", propagation=0 /* MS_??? */, userns_fd=0}")
    }

    fn parse(arguments: &mut Arguments<'_>) -> Option<Self> {
        let text = arguments.next()?;
        let bits = |name| flags(field(text, name)?, MOUNT_ATTRIBUTES);
        let unused = number(field(text, "propagation")?)? == 0 && field(text, "userns_fd")? == "0";
        unused.then_some(Self { set: bits("attr_set")?, clear: bits("attr_clr")? })
    }
}

/// The first four arguments of the mount of a new file system: source, target, type and flags.
const MOUNT_KINDS: [(MountKind, [&str; 2]); 6] = [
    (MountKind::Tmpfs, ["\"tmpfs\"", "MS_NOSUID|MS_NODEV"]),
    (MountKind::Proc, ["\"proc\"", "MS_NOSUID|MS_NODEV|MS_NOEXEC"]),
    (MountKind::Sysfs, ["\"sysfs\"", "MS_RDONLY|MS_NOSUID|MS_NODEV|MS_NOEXEC"]),
    (MountKind::Mqueue, ["\"mqueue\"", "MS_NOSUID|MS_NODEV|MS_NOEXEC"]),
    (MountKind::Devpts, ["\"devpts\"", "MS_NOSUID|MS_NOEXEC"]),
    (MountKind::Overlay, ["\"overlay\"", "MS_NOSUID|MS_NODEV"]),
];

impl Usual for MountKind {
    fn write(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Some((_, [name, flags])) = MOUNT_KINDS.iter().find(|(kind, _)| kind == self) else {
            return Ok(());
        };
        write!(f, "{name}, \".\", {name}, {flags}")
    }

    fn parse(arguments: &mut Arguments<'_>) -> Option<Self> {
        let source = arguments.next()?;
        arguments.text("\".\"")?;
        let (name, flags) = (arguments.next()?, arguments.next()?);
        (source == name).then_some(())?;
        MOUNT_KINDS.iter().find(|(_, texts)| *texts == [name, flags]).map(|(kind, _)| *kind)
    }
}

/// Groups, after their number.
pub(in crate::record::strace) struct Groups;

impl Form for Groups {
    type Value = Vec<u32>;

    fn write(groups: &Vec<u32>, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}, [", groups.len())?;
        for (index, group) in groups.iter().enumerate() {
            write!(f, "{}{}", if index == 0 { "" } else { ", " }, Id(*group))?;
        }
        f.write_str("]")
    }

    fn parse(arguments: &mut Arguments<'_>) -> Option<Vec<u32>> {
        arguments.next()?;
        array(arguments.next()?)?.into_iter().map(id).collect()
    }
}

/// The mask of permissions.
impl Usual for u32 {
    fn write(&self, f: &mut Formatter<'_>) -> fmt::Result {
        Octal::write(self, f)
    }

    fn parse(arguments: &mut Arguments<'_>) -> Option<Self> {
        Octal::parse(arguments)
    }
}

/// A value of a limit. strace writes multiples of 1024 as products.
struct Bound(u64);

impl Display for Bound {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Limit::INFINITY => f.write_str("RLIM64_INFINITY"),
            value if value > 1024 && value % 1024 == 0 => write!(f, "{}*1024", value / 1024),
            value => value.fmt(f),
        }
    }
}

fn bound(text: &str) -> Option<u64> {
    match text {
        "RLIM64_INFINITY" => Some(Limit::INFINITY),
        text => match text.strip_suffix("*1024") {
            Some(factor) => factor.parse::<u64>().ok()?.checked_mul(1024),
            None => text.parse().ok(),
        },
    }
}

impl Usual for Limit {
    fn write(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.resource.name() {
            Some(name) => f.write_str(name)?,
            None => write!(f, "{:#x} /* RLIMIT_??? */", self.resource.0)?,
        }
        write!(f, ", {{rlim_cur={}, rlim_max={}}}", Bound(self.soft), Bound(self.hard))
    }

    fn parse(arguments: &mut Arguments<'_>) -> Option<Self> {
        let name = arguments.next()?;
        let known = Resource::ALL.iter().copied().find(|resource| resource.name() == Some(name));
        let resource = known.or_else(|| u32::try_from(number(name)?).ok().map(Resource))?;
        let text = arguments.next()?;
        let [soft, hard] = ["rlim_cur", "rlim_max"].map(|name| field(text, name).and_then(bound));
        Some(Self { resource, soft: soft?, hard: hard? })
    }
}

impl Usual for Capability {
    fn write(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "{:#x} /* CAP_??? */", self.0),
        }
    }

    fn parse(arguments: &mut Arguments<'_>) -> Option<Self> {
        capability(arguments.next()?)
    }
}

fn capability(name: &str) -> Option<Capability> {
    let known = Capability::ALL.iter().copied().find(|capability| capability.name() == Some(name));
    known.or_else(|| u32::try_from(number(name)?).ok().map(Capability))
}

impl Usual for CapabilitySets {
    fn write(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = (0..64).map(capability_bit).collect();
        let names: Vec<(u64, &str)> =
            (0..64).map(|bit| 1_u64 << bit).zip(names.iter().map(|name| &name[..])).collect();
        let mut before = "{effective=";
        for (set, after) in
            [(self.effective, ", permitted="), (self.permitted, ", inheritable="), (self.inheritable, "}")]
        {
            f.write_str(before)?;
            write_flags(f, set, &names, "")?;
            before = after;
        }
        f.write_str(before)
    }

    fn parse(arguments: &mut Arguments<'_>) -> Option<Self> {
        let text = arguments.next()?;
        let set = |name| {
            field(text, name)?.split('|').try_fold(0_u64, |set, part| {
                let bits = match part.strip_prefix("1<<") {
                    Some(name) => 1_u64.checked_shl(capability(name)?.0)?,
                    None => number(part)?,
                };
                Some(set | bits)
            })
        };
        Some(Self {
            effective: set("effective")?,
            permitted: set("permitted")?,
            inheritable: set("inheritable")?,
        })
    }
}

/// Returns a capability of a set as strace writes it.
fn capability_bit(bit: u32) -> String {
    match Capability(bit).name() {
        Some(name) => format!("1<<{name}"),
        None => format!("1<<{bit}"),
    }
}

/// A seccomp filter: the number of its instructions, and its address. That many empty instructions are
/// returned.
impl Usual for Vec<BpfInstruction> {
    fn write(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{{len={}, filter={UNKNOWN_ADDRESS}}}", self.len())
    }

    fn parse(arguments: &mut Arguments<'_>) -> Option<Self> {
        let len = field(arguments.next()?, "len")?.parse::<u16>().ok()?;
        Some(vec![BpfInstruction { code: 0, jt: 0, jf: 0, k: 0 }; len.into()])
    }
}

/// A number in decimal: of a descriptor in a range, or of a hook.
pub(in crate::record::strace) struct Number;

impl Form for Number {
    type Value = u32;

    fn write(number: &u32, f: &mut Formatter<'_>) -> fmt::Result {
        number.fmt(f)
    }

    fn parse(arguments: &mut Arguments<'_>) -> Option<u32> {
        arguments.next()?.parse().ok()
    }
}
