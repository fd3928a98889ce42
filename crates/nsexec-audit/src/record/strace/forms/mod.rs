//! The forms of arguments in strace's lines, by their words in the [table](crate::record::table) of calls.
//! Each is written and parsed side by side.

mod processes;
mod surroundings;

use core::fmt::{self, Display, Formatter};
use std::vec;
use std::vec::Vec;

use super::parts::{Arguments, array, field};
use super::replies::{one_byte, polled, rights, write_one_byte, write_polled, write_rights};
use super::words::{Id as IdWord, Quoted, SEALS, UNKNOWN_ADDRESS, bytes, fd, flags, id, string, write_flags};
use crate::record::Bytes;
use nsexec::sys::types::{Fd, OpenFlags, Pid, PollFd, Seals};
pub(super) use processes::{Child, ChildTid, Joined, Sibling, StackAndFlags, Unshared};
pub(super) use surroundings::{Changed, Copied, Groups, HowInRoot, Number};

/// A value in the usual form of its type.
pub(super) trait Usual: Sized {
    /// Writes the value.
    fn write(&self, f: &mut Formatter<'_>) -> fmt::Result;

    /// Parses the next argument.
    fn parse(arguments: &mut Arguments<'_>) -> Option<Self>;
}

/// Another form of a value.
pub(super) trait Form {
    /// The type of the value.
    type Value;

    /// Writes the value.
    fn write(value: &Self::Value, f: &mut Formatter<'_>) -> fmt::Result;

    /// Parses the next argument, or as many as the form has.
    fn parse(arguments: &mut Arguments<'_>) -> Option<Self::Value>;
}

impl Usual for usize {
    fn write(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.fmt(f)
    }

    fn parse(arguments: &mut Arguments<'_>) -> Option<Self> {
        arguments.next()?.parse().ok()
    }
}

impl Usual for i32 {
    fn write(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.fmt(f)
    }

    fn parse(arguments: &mut Arguments<'_>) -> Option<Self> {
        arguments.next()?.parse().ok()
    }
}

impl Usual for Fd {
    fn write(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }

    fn parse(arguments: &mut Arguments<'_>) -> Option<Self> {
        fd(arguments.next()?)
    }
}

/// The directory of a path.
pub(super) struct Dir;

impl Form for Dir {
    type Value = Fd;

    fn write(dir: &Fd, f: &mut Formatter<'_>) -> fmt::Result {
        if *dir == Fd::CWD { f.write_str("AT_FDCWD") } else { dir.write(f) }
    }

    fn parse(arguments: &mut Arguments<'_>) -> Option<Fd> {
        Usual::parse(arguments)
    }
}

impl Usual for Pid {
    fn write(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.fmt(f)
    }

    fn parse(arguments: &mut Arguments<'_>) -> Option<Self> {
        arguments.next()?.parse().ok().map(Pid)
    }
}

impl Usual for Bytes {
    fn write(&self, f: &mut Formatter<'_>) -> fmt::Result {
        Quoted::data(self).fmt(f)
    }

    fn parse(arguments: &mut Arguments<'_>) -> Option<Self> {
        bytes(arguments.next()?)
    }
}

/// Bytes, and their number as the next argument.
pub(super) struct WithLength;

impl Form for WithLength {
    type Value = Bytes;

    fn write(data: &Bytes, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", Quoted::data(data), data.0.len())
    }

    fn parse(arguments: &mut Arguments<'_>) -> Option<Bytes> {
        let data = bytes(arguments.next()?)?;
        arguments.next()?;
        Some(data)
    }
}

/// Bytes as the one element of an array for pwritev2(2).
pub(super) struct Vector;

impl Form for Vector {
    type Value = Bytes;

    fn write(data: &Bytes, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "[{{iov_base={}, iov_len={}}}]", Quoted::data(data), data.0.len())
    }

    fn parse(arguments: &mut Arguments<'_>) -> Option<Bytes> {
        let [piece] = array(arguments.next()?)?[..] else { return None };
        bytes(field(piece, "iov_base")?)
    }
}

/// The length limit of PR_SET_NAME. At the limit strace does not check whether there is more.
const NAME_LIMIT: usize = 15;

/// The name of a process. strace cannot tell whether a name of 15 bytes is cut, and always marks it so.
pub(super) struct ProcessName;

impl Form for ProcessName {
    type Value = Bytes;

    fn write(name: &Bytes, f: &mut Formatter<'_>) -> fmt::Result {
        Quoted(&name.0, NAME_LIMIT).fmt(f)?;
        f.write_str(if name.0.len() == NAME_LIMIT { "..." } else { "" })
    }

    fn parse(arguments: &mut Arguments<'_>) -> Option<Bytes> {
        Some(Bytes(string(arguments.next()?)?.0))
    }
}

/// The strings of an exec.
impl Usual for Vec<Bytes> {
    fn write(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (index, string) in self.iter().enumerate() {
            write!(f, "{}{}", if index == 0 { "" } else { ", " }, Quoted::data(string))?;
        }
        f.write_str("]")
    }

    fn parse(arguments: &mut Arguments<'_>) -> Option<Self> {
        array(arguments.next()?)?.into_iter().map(bytes).collect()
    }
}

/// The environment of an exec: its address and the number of its variables, or their list (`-v`). For a
/// number, that many empty strings are returned.
pub(super) struct Environment;

impl Form for Environment {
    type Value = Vec<Bytes>;

    fn write(variables: &Vec<Bytes>, f: &mut Formatter<'_>) -> fmt::Result {
        let plural = if variables.len() == 1 { "" } else { "s" };
        write!(f, "{UNKNOWN_ADDRESS} /* {} var{plural} */", variables.len())
    }

    fn parse(arguments: &mut Arguments<'_>) -> Option<Vec<Bytes>> {
        let text = arguments.next()?;
        if let Some(variables) = array(text) {
            return variables.into_iter().map(bytes).collect();
        }
        let count = text.split_once("/* ")?.1.split_once(" var")?.0.parse().ok()?;
        Some(vec![Bytes::default(); count])
    }
}

/// The flags of an open, by strace's names in strace's order.
const OPEN_FLAGS: [(OpenFlags, &str); 8] = [
    (OpenFlags::ReadWrite, "O_RDWR|O_CLOEXEC"),
    (OpenFlags::ReadOnly, "O_RDONLY|O_CLOEXEC"),
    (OpenFlags::Namespace, "O_RDONLY|O_NONBLOCK|O_CLOEXEC"),
    (OpenFlags::Directory, "O_RDONLY|O_CLOEXEC|O_PATH|O_DIRECTORY"),
    (OpenFlags::List, "O_RDONLY|O_CLOEXEC|O_DIRECTORY"),
    (OpenFlags::Unnamed, "O_RDWR|O_EXCL|O_CLOEXEC|O_TMPFILE"),
    (OpenFlags::New, "O_RDWR|O_CREAT|O_EXCL|O_CLOEXEC"),
    (OpenFlags::Path, "O_RDONLY|O_CLOEXEC|O_PATH"),
];

/// Returns the second of two, for the first.
fn named<T: PartialEq>(pairs: &[(T, &'static str)], value: &T) -> &'static str {
    pairs.iter().find(|(one, _)| one == value).map_or("", |(_, name)| name)
}

/// Returns the first of two, for the second.
fn by_name<T: Copy>(pairs: &[(T, &'static str)], text: &str) -> Option<T> {
    pairs.iter().find(|(_, name)| *name == text).map(|(value, _)| *value)
}

/// Returns whether the flags create a file, so that a mode follows.
const fn creates(flags: OpenFlags) -> bool {
    matches!(flags, OpenFlags::Unnamed | OpenFlags::New)
}

/// The flags of an open. A mode follows if a file is created.
impl Usual for OpenFlags {
    fn write(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(named(&OPEN_FLAGS, self))?;
        f.write_str(if creates(*self) { ", 0700" } else { "" })
    }

    fn parse(arguments: &mut Arguments<'_>) -> Option<Self> {
        let flags = by_name(&OPEN_FLAGS, arguments.next()?)?;
        if creates(flags) {
            arguments.text("0700")?;
        }
        Some(flags)
    }
}

/// The structure with the flags of openat2.
pub(super) struct How;

const RESOLVE: &str = "RESOLVE_NO_XDEV|RESOLVE_NO_MAGICLINKS";

impl Form for How {
    type Value = OpenFlags;

    fn write(flags: &OpenFlags, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("{flags=")?;
        flags.write(f)?;
        write!(f, ", resolve={RESOLVE}}}")
    }

    fn parse(arguments: &mut Arguments<'_>) -> Option<OpenFlags> {
        let how = arguments.next()?;
        let flags = by_name(&OPEN_FLAGS, field(how, "flags")?);
        flags.filter(|_| field(how, "resolve") == Some(RESOLVE))
    }
}

/// A message of one byte with a descriptor.
pub(super) struct Rights;

impl Form for Rights {
    type Value = Fd;

    fn write(fd: &Fd, f: &mut Formatter<'_>) -> fmt::Result {
        write_one_byte(f, &[0])?;
        write_rights(f, *fd)?;
        f.write_str(", msg_flags=0}")
    }

    fn parse(arguments: &mut Arguments<'_>) -> Option<Fd> {
        let message = arguments.next()?;
        if one_byte(message)? == [0] { rights(message) } else { None }
    }
}

/// The descriptors of a poll with the requested events, and their number as the next argument.
pub(super) struct Events;

impl Form for Events {
    type Value = Vec<PollFd>;

    fn write(fds: &Vec<PollFd>, f: &mut Formatter<'_>) -> fmt::Result {
        write_polled(f, fds.iter(), |fd| ("events", fd.events))?;
        write!(f, ", {}", fds.len())
    }

    fn parse(arguments: &mut Arguments<'_>) -> Option<Vec<PollFd>> {
        let fds = polled(array(arguments.next()?)?, "events")?;
        arguments.next()?;
        Some(fds)
    }
}

/// Defines forms of a truth value: the text for true, the text for false, and other texts for true.
macro_rules! truth_values {
    ($($(#[$doc:meta])* $form:ident = $yes:literal $(| $also:literal)?, $no:literal;)+) => { $(
        $(#[$doc])*
        pub(super) struct $form;

        impl Form for $form {
            type Value = bool;

            fn write(value: &bool, f: &mut Formatter<'_>) -> fmt::Result {
                f.write_str(if *value { $yes } else { $no })
            }

            fn parse(arguments: &mut Arguments<'_>) -> Option<bool> {
                match arguments.next()? {
                    $yes $(| $also)? => Some(true),
                    $no => Some(false),
                    _ => None,
                }
            }
        }
    )+ };
}

truth_values! {
    /// The flag of a descriptor.
    Cloexec = "FD_CLOEXEC", "0";
    /// Whether a process is dumpable.
    Dumpable = "SUID_DUMP_USER", "SUID_DUMP_DISABLE";
    /// Whether a process keeps its capabilities.
    Keep = "1", "0";
    /// The flags of a file in memory. strace 6.1 has no name for MFD_EXEC.
    Executable = "MFD_CLOEXEC|MFD_ALLOW_SEALING|0x10" | "MFD_CLOEXEC|MFD_ALLOW_SEALING|MFD_EXEC",
        "MFD_CLOEXEC|MFD_ALLOW_SEALING";
}

impl Usual for Seals {
    fn write(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write_flags(f, self.0.into(), SEALS, "F_SEAL_???")
    }

    fn parse(arguments: &mut Arguments<'_>) -> Option<Self> {
        u32::try_from(flags(arguments.next()?, SEALS)?).ok().map(Seals)
    }
}

/// The permissions of a file.
pub(super) struct Octal;

impl Form for Octal {
    type Value = u32;

    fn write(mode: &u32, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "0{mode:02o}")
    }

    fn parse(arguments: &mut Arguments<'_>) -> Option<u32> {
        u32::from_str_radix(arguments.next()?, 8).ok()
    }
}

/// A user or group id.
pub(super) struct Id;

impl Form for Id {
    type Value = u32;

    fn write(id: &u32, f: &mut Formatter<'_>) -> fmt::Result {
        IdWord(*id).fmt(f)
    }

    fn parse(arguments: &mut Arguments<'_>) -> Option<u32> {
        id(arguments.next()?)
    }
}

/// The same id as real, effective and saved id.
pub(super) struct ThreeIds;

impl Form for ThreeIds {
    type Value = u32;

    fn write(id: &u32, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{0}, {0}, {0}", IdWord(*id))
    }

    fn parse(arguments: &mut Arguments<'_>) -> Option<u32> {
        let real = arguments.next()?;
        arguments.text(real)?;
        arguments.text(real)?;
        id(real)
    }
}
