//! The target descriptors of the mount sources, in 1.1: `_LIBCONTAINER_MOUNT_FDS`
//! (`docs/protocol.md#mount-sources`).
//!
//! The launcher reserves a descriptor number for each source with a copy of the init pipe, and lists the
//! numbers in this variable. The list has one entry for each of the container's mounts, as the attribute has.
//! Both must agree before a stage acts.

use core::fmt;

use super::mount_sources::MountSources;
use crate::deciders::bootstrap::env::MOUNT_FDS;
use crate::deciders::bootstrap::text::{NotDecimal, signed_decimal};
use crate::sys::types::Fd;

/// A checked JSON array of numbers: a descriptor for each bind mount, −1 for every other mount.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct MountFds<'e> {
    /// The text between the brackets.
    list: &'e [u8],
}

/// The error in the variable.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum MountFdsError {
    /// The message has mount sources, but the variable is not set. runc's C code crashes with a segmentation
    /// fault.
    NotSet,
    /// The value does not begin with `[`.
    NoBeginning,
    /// The value does not end with `]`.
    NoEnd,
    /// An entry is not a decimal number.
    NotANumber,
    /// A number other than −1 is out of the range of descriptors.
    OutOfRange,
    /// Message and variable have different numbers of mounts.
    Counts {
        /// The number of mounts in the message.
        message: usize,
        /// The number of mounts in the variable.
        environment: usize,
    },
    /// A mount has a source but no descriptor, or a descriptor but no source.
    Unpaired {
        /// The mount, from 1.
        mount: usize,
        /// Whether the mount has a source.
        source: bool,
    },
    /// The descriptor is not open. One of the descriptors opened later could get its number.
    NotOpen(Fd),
    /// The descriptor is the init pipe or the log pipe.
    InUse(Fd),
    /// Two mounts have the same number: both would get the second source.
    Twice(Fd),
}

impl<'e> MountFds<'e> {
    /// Parses the variable's value. As in JSON, blanks around a number are ignored.
    ///
    /// # Errors
    ///
    /// The first error, or a number that does not fit an `int`.
    pub fn parse(value: &'e [u8]) -> Result<Self, MountFdsError> {
        let list = value.trim_ascii().strip_prefix(b"[").ok_or(MountFdsError::NoBeginning)?;
        let list = list.strip_suffix(b"]").ok_or(MountFdsError::NoEnd)?;
        let numbers = Self { list };
        numbers.entries().try_for_each(|entry| entry.map(drop))?;
        Ok(numbers)
    }

    fn entries(&self) -> impl Iterator<Item = Result<Option<Fd>, MountFdsError>> + use<'e> {
        let list = Some(self.list).filter(|list| !list.trim_ascii().is_empty());
        list.into_iter().flat_map(|list| list.split(|byte| *byte == b',')).map(number)
    }

    /// Returns a number for each mount, or `None` for a mount that is not a bind mount.
    pub fn iter(&self) -> impl Iterator<Item = Option<Fd>> + use<'e> {
        self.entries().filter_map(Result::ok)
    }

    /// Checks that each mount with a source has a number, and no other mount has one. The stages pair sources
    /// and numbers by order, and would otherwise give a mount the source of another.
    ///
    /// # Errors
    ///
    /// [`MountFdsError::Counts`] or [`MountFdsError::Unpaired`].
    pub fn check(&self, sources: MountSources<'_>) -> Result<(), MountFdsError> {
        let (message, environment) = (sources.iter().count(), self.iter().count());
        if message != environment {
            return Err(MountFdsError::Counts { message, environment });
        }
        let pairs = (1..).zip(sources.iter().zip(self.iter()));
        for (mount, (source, number)) in pairs {
            let source = !source.is_empty();
            if source != number.is_some() {
                return Err(MountFdsError::Unpaired { mount, source });
            }
        }
        Ok(())
    }
}

fn number(entry: &[u8]) -> Result<Option<Fd>, MountFdsError> {
    let number = match signed_decimal(entry.trim_ascii()) {
        Ok(number) => number,
        Err(NotDecimal::NotDigits) => return Err(MountFdsError::NotANumber),
        Err(NotDecimal::TooLarge) => return Err(MountFdsError::OutOfRange),
    };
    match i32::try_from(number) {
        Ok(-1) => Ok(None),
        Ok(number) if number >= 0 => Ok(Some(Fd(number))),
        _ => Err(MountFdsError::OutOfRange),
    }
}

impl fmt::Display for MountFdsError {
    /// Writes runc's texts if runc has one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NotSet => write!(f, "the message has mount sources, and {MOUNT_FDS} is not set"),
            Self::Counts { message, environment } => {
                write!(f, "the message has {message} mounts, and {MOUNT_FDS} has {environment}")
            }
            Self::Unpaired { mount, source: true } => {
                write!(f, "mount {mount} has a source, and no descriptor in {MOUNT_FDS}")
            }
            Self::Unpaired { mount, source: false } => {
                write!(f, "mount {mount} has a descriptor in {MOUNT_FDS}, and no source")
            }
            Self::NotOpen(fd) => write!(f, "{MOUNT_FDS} names {}, which is not an open descriptor", fd.0),
            Self::InUse(fd) => {
                write!(f, "{MOUNT_FDS} names {}, which is the init pipe or the log pipe", fd.0)
            }
            Self::Twice(fd) => write!(f, "{MOUNT_FDS} names {} twice", fd.0),
            Self::NoBeginning | Self::NoEnd | Self::NotANumber | Self::OutOfRange => {
                write!(f, "malformed {MOUNT_FDS} env var: ")?;
                f.write_str(match self {
                    Self::NoBeginning => "missing '['",
                    Self::NoEnd => "missing ]",
                    Self::NotANumber => "not a number",
                    _ => "fds out of range",
                })
            }
        }
    }
}

impl core::error::Error for MountFdsError {}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::string::ToString;
    use std::vec::Vec;

    use super::*;

    #[test]
    fn mount_fds_are_numbers_between_brackets() {
        let of =
            |text: &'static str| MountFds::parse(text.as_bytes()).map(|fds| fds.iter().collect::<Vec<_>>());
        assert_eq!(of("[-1,7,-1,8]"), Ok(std::vec![None, Some(Fd(7)), None, Some(Fd(8))]));
        assert_eq!(of(" [ 7 , -1 ] "), Ok(std::vec![Some(Fd(7)), None]));
        assert_eq!((of("[]"), of("[ ]")), (Ok(std::vec![]), Ok(std::vec![])));
        for text in ["[7,]", "[,7]", "[7 8]", "[7,x]", "[+7]", "[0x7]", "[null]", "[7]]", "[[7]"] {
            assert_eq!(of(text), Err(MountFdsError::NotANumber), "{text}");
        }
        for text in ["[-2]", "[2147483648]", "[4294967299]", "[99999999999999999999]"] {
            assert_eq!(of(text), Err(MountFdsError::OutOfRange), "{text}");
        }
        for text in ["", "7", "null", "7]"] {
            assert_eq!(of(text), Err(MountFdsError::NoBeginning), "{text}");
        }
        assert_eq!((of("["), of("[7,8")), (Err(MountFdsError::NoEnd), Err(MountFdsError::NoEnd)));
        let text = MountFdsError::OutOfRange.to_string();
        assert_eq!(text, "malformed _LIBCONTAINER_MOUNT_FDS env var: fds out of range");
    }

    #[test]
    fn each_mount_source_needs_exactly_one_number() {
        let sources = MountSources::parse(b"/a\0\0/b\0\0").unwrap();
        let check = |text: &str| MountFds::parse(text.as_bytes()).unwrap().check(sources);
        assert_eq!(check("[7,-1,8]"), Ok(()));
        assert_eq!(check("[7,8]"), Err(MountFdsError::Counts { message: 3, environment: 2 }));
        assert_eq!(check("[7,8,-1]"), Err(MountFdsError::Unpaired { mount: 2, source: false }));
        assert_eq!(check("[7,-1,-1]"), Err(MountFdsError::Unpaired { mount: 3, source: true }));
    }
}
