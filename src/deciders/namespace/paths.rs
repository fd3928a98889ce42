//! `NS_PATHS`: the namespaces to join, as `type:path[,type:path]…` (`docs/protocol.md#attributes`).

use core::fmt;

use super::{NsKind, NsSet};
use crate::deciders::bootstrap::text::{Lossy, PathText, split};

/// A list of namespaces to join: not empty, each kind at most once, each with a path.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct NsPaths<'m> {
    text: &'m [u8],
    kinds: NsSet,
}

/// One namespace to join.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct NsEntry<'m> {
    /// The kind of the namespace.
    pub kind: NsKind,
    /// The path of the namespace's file: bytes, not necessarily UTF-8, possibly with `:`, never with `,` or
    /// NUL, never empty. It may be longer than `PATH_MAX`; then the kernel fails with ENAMETOOLONG.
    pub path: &'m [u8],
}

/// The error of a refused list of namespaces.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum NsPathsError<'m> {
    /// The list is empty. runc sends this for a `runc exec` into a container without any namespace, and its C
    /// code fails too.
    Empty,
    /// An entry is empty, has no colon, no path, or contains a NUL. A comma inside a path also leads to this
    /// error.
    BadEntry {
        /// The whole entry.
        entry: &'m [u8],
    },
    /// The dialect has no namespace type with this name. runc up to 1.2 joins the file without any check
    /// (`docs/protocol.md#weaknesses-of-the-c-code`).
    UnknownType {
        /// The name before the colon.
        name: &'m [u8],
    },
    /// The same kind appears twice. In runc the second one may stay unjoined
    /// (`docs/protocol.md#weaknesses-of-the-c-code`).
    Duplicate {
        /// The kind.
        kind: NsKind,
    },
}

impl<'m> NsPaths<'m> {
    /// Parses a list without its NUL. `known` are the kinds that the dialect has.
    ///
    /// # Errors
    ///
    /// The first malformed entry, from the left.
    pub fn parse(text: &'m [u8], known: NsSet) -> Result<Self, NsPathsError<'m>> {
        if text.is_empty() {
            return Err(NsPathsError::Empty);
        }
        let mut kinds = NsSet::EMPTY;
        for entry in split(text, |byte| byte == b',') {
            let (name, path) = split_entry(entry).ok_or(NsPathsError::BadEntry { entry })?;
            let kind = NsKind::from_name(name)
                .filter(|kind| known.contains(*kind))
                .ok_or(NsPathsError::UnknownType { name })?;
            if path.is_empty() || entry.contains(&0) {
                return Err(NsPathsError::BadEntry { entry });
            }
            if !kinds.insert(kind) {
                return Err(NsPathsError::Duplicate { kind });
            }
        }
        Ok(Self { text, kinds })
    }

    /// Returns the namespaces, in the order of the list.
    pub fn iter(&self) -> impl Iterator<Item = NsEntry<'m>> + use<'m> {
        self.text.split(|byte| *byte == b',').filter_map(|entry| {
            let (name, path) = split_entry(entry)?;
            Some(NsEntry { kind: NsKind::from_name(name)?, path })
        })
    }

    /// Returns the kinds in the list.
    #[must_use]
    pub const fn kinds(&self) -> NsSet {
        self.kinds
    }

    /// Returns the original list, without its NUL.
    #[must_use]
    pub const fn text(&self) -> &'m [u8] {
        self.text
    }
}

/// Splits an entry at its first colon. The path may contain more colons.
fn split_entry(entry: &[u8]) -> Option<(&[u8], &[u8])> {
    let name = split(entry, |byte| byte == b':').next()?;
    Some((name, entry.strip_prefix(name)?.strip_prefix(b":")?))
}

impl fmt::Display for NsPathsError<'_> {
    /// Writes runc's texts, except for the duplicate, which runc does not refuse.
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
    fn path_starts_after_the_first_colon() {
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
    fn every_ns_paths_error_has_its_reason() {
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
    fn ns_paths_errors_have_the_texts_of_runc() {
        let text =
            |text: &'static [u8]| -> String { NsPaths::parse(text, NsSet::ALL).unwrap_err().to_string() };
        assert_eq!(text(b""), "ns paths are empty");
        assert_eq!(text(b"net:/x,\xff"), "failed to parse \\xff");
        assert_eq!(text(b"net:/x,"), "failed to parse ''");
        assert_eq!(text(b"foo:/x"), "unknown namespace type foo");
    }
}
