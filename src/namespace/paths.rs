//! `NS_PATHS`: the namespaces to join, as `type:path[,type:path]…` (spec 1.4).

use core::fmt;

use super::{NsKind, NsSet};
use crate::bootstrap::text::{Lossy, PathText, Steps};

/// A list of namespaces to join: not empty, each kind at most once, each with a path.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct NsPaths<'m> {
    text: &'m [u8],
    kinds: NsSet,
}

/// One namespace to join.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct NsEntry<'m> {
    /// What kind of namespace it is.
    pub kind: NsKind,
    /// The file that stands for it: bytes, not necessarily UTF-8, possibly with `:`, never with `,` or NUL,
    /// never empty. Longer than `PATH_MAX` is possible; the kernel says ENAMETOOLONG then.
    pub path: &'m [u8],
}

/// Why a list of namespaces is refused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum NsPathsError<'m> {
    /// There is nothing in it. A `runc exec` into a container without any namespace really sends this
    /// (spec 1.4), and runc's C fails too.
    Empty,
    /// An entry is empty, has no colon, no path, or a NUL. A comma inside a path ends up here.
    BadEntry {
        /// The whole entry.
        entry: &'m [u8],
    },
    /// The word before the colon names no namespace of this dialect. Up to 1.2 runc joined blindly whatever
    /// the file was (spec 4.2, no. 17).
    UnknownType {
        /// The word.
        name: &'m [u8],
    },
    /// The same kind stands there twice. In runc the second may be left over unjoined (spec 4.2, no. 20).
    Duplicate {
        /// Which kind.
        kind: NsKind,
    },
}

impl<'m> NsPaths<'m> {
    /// Reads a list, without its NUL. `known` is what the dialect has names for.
    ///
    /// # Errors
    ///
    /// That of the first entry, from the left, that is not right.
    pub fn parse(text: &'m [u8], known: NsSet) -> Result<Self, NsPathsError<'m>> {
        Self::parse_counting(text, known, &Steps::new())
    }

    pub(crate) fn parse_counting(
        text: &'m [u8],
        known: NsSet,
        steps: &Steps,
    ) -> Result<Self, NsPathsError<'m>> {
        if text.is_empty() {
            return Err(NsPathsError::Empty);
        }
        let mut kinds = NsSet::EMPTY;
        let entries = text.split(|byte| {
            steps.tick();
            *byte == b','
        });
        for entry in entries {
            let (name, path) = split_entry(entry, steps).ok_or(NsPathsError::BadEntry { entry })?;
            let kind = NsKind::from_name(name)
                .filter(|kind| known.contains(*kind))
                .ok_or(NsPathsError::UnknownType { name })?;
            steps.add(path.len());
            if path.is_empty() || entry.contains(&0) {
                return Err(NsPathsError::BadEntry { entry });
            }
            if !kinds.insert(kind) {
                return Err(NsPathsError::Duplicate { kind });
            }
        }
        Ok(Self { text, kinds })
    }

    /// The namespaces, in the order of the list.
    pub fn iter(&self) -> impl Iterator<Item = NsEntry<'m>> + use<'m> {
        self.text.split(|byte| *byte == b',').filter_map(|entry| {
            let (name, path) = split_entry(entry, &Steps::new())?;
            Some(NsEntry { kind: NsKind::from_name(name)?, path })
        })
    }

    /// Which kinds are joined.
    #[must_use]
    pub const fn kinds(&self) -> NsSet {
        self.kinds
    }

    /// The list as it came, without its NUL.
    #[must_use]
    pub const fn text(&self) -> &'m [u8] {
        self.text
    }
}

/// The parts before and after the first colon: a path may contain more of them.
fn split_entry<'m>(entry: &'m [u8], steps: &Steps) -> Option<(&'m [u8], &'m [u8])> {
    let colon = entry.iter().position(|byte| {
        steps.tick();
        *byte == b':'
    })?;
    let (name, rest) = entry.split_at_checked(colon)?;
    Some((name, rest.strip_prefix(b":")?))
}

impl fmt::Display for NsPathsError<'_> {
    /// Texts of runc (spec 4.1), except for the duplicate, which runc does not refuse.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Empty => f.write_str("ns paths are empty"),
            Self::BadEntry { entry } => write!(f, "failed to parse {}", PathText(entry)),
            Self::UnknownType { name } => write!(f, "unknown namespace type {}", Lossy(name)),
            Self::Duplicate { kind } => {
                write!(f, "found the {kind} namespace twice, wanted each type at most once")
            }
        }
    }
}

impl core::error::Error for NsPathsError<'_> {}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::string::{String, ToString};
    use std::vec::Vec;

    use super::*;

    #[test]
    fn a_path_is_all_after_the_first_colon() {
        let paths = NsPaths::parse(b"user:/a:b,net:\xff\xfe,time:x", NsSet::ALL).unwrap();
        let entries: Vec<_> = paths.iter().collect();
        assert_eq!(
            entries,
            [
                NsEntry { kind: NsKind::User, path: b"/a:b" },
                NsEntry { kind: NsKind::Net, path: b"\xff\xfe" },
                NsEntry { kind: NsKind::Time, path: b"x" },
            ]
        );
        assert_eq!(paths.kinds().to_string(), "net, time, user");
    }

    #[test]
    fn every_refusal_has_its_reason() {
        let refused =
            |text: &'static [u8]| NsPaths::parse(text, NsSet::ALL.without(NsKind::Time)).unwrap_err();
        assert_eq!(refused(b""), NsPathsError::Empty);
        assert_eq!(refused(b"net:/x,"), NsPathsError::BadEntry { entry: b"" });
        assert_eq!(refused(b",net:/x"), NsPathsError::BadEntry { entry: b"" });
        assert_eq!(refused(b"net:/a,b"), NsPathsError::BadEntry { entry: b"b" });
        assert_eq!(refused(b"net:"), NsPathsError::BadEntry { entry: b"net:" });
        assert_eq!(refused(b"net:/a\0b"), NsPathsError::BadEntry { entry: b"net:/a\0b" });
        assert_eq!(refused(b":/x"), NsPathsError::UnknownType { name: b"" });
        assert_eq!(refused(b"Net:/x"), NsPathsError::UnknownType { name: b"Net" });
        assert_eq!(refused(b"time:/x"), NsPathsError::UnknownType { name: b"time" });
        assert_eq!(refused(b"net:/x,net:/x"), NsPathsError::Duplicate { kind: NsKind::Net });
    }

    #[test]
    fn refusals_read_as_those_of_runc() {
        let text =
            |text: &'static [u8]| -> String { NsPaths::parse(text, NsSet::ALL).unwrap_err().to_string() };
        assert_eq!(text(b""), "ns paths are empty");
        assert_eq!(text(b"net:/x,\xff"), "failed to parse \\xff");
        assert_eq!(text(b"net:/x,"), "failed to parse ''");
        assert_eq!(text(b"foo:/x"), "unknown namespace type foo");
    }
}
