//! The attribute with the mount sources, in 1.1 (`docs/protocol.md#mount-sources`).

use crate::deciders::bootstrap::Bootstrap;
use crate::deciders::bootstrap::error::ParseErrorKind;

/// The sources of a container's mounts, in runc 1.1: a path for each bind mount, an empty entry for every
/// other mount (`docs/protocol.md#mount-sources`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct MountSources<'m> {
    /// The entries, each with its NUL.
    entries: &'m [u8],
}

impl<'m> MountSources<'m> {
    /// Parses the value of the attribute: entries, each with a NUL, and one more NUL.
    ///
    /// # Errors
    ///
    /// [`ParseErrorKind::MissingNul`] if one of the two NULs at the end is missing.
    pub fn parse(value: &'m [u8]) -> Result<Self, ParseErrorKind<'m>> {
        match value.strip_suffix(&[0]) {
            Some(entries) if entries.is_empty() || entries.ends_with(&[0]) => Ok(Self { entries }),
            _ => Err(ParseErrorKind::MissingNul),
        }
    }

    /// Returns the sources, in the order of the mounts. An entry is empty for a mount that is not a bind
    /// mount.
    pub fn iter(&self) -> impl Iterator<Item = &'m [u8]> + use<'m> {
        self.entries.strip_suffix(&[0]).into_iter().flat_map(|entries| entries.split(|byte| *byte == 0))
    }

    /// Returns the entries, each with its NUL, without the last NUL of the value.
    #[must_use]
    pub const fn entries_with_nuls(&self) -> &'m [u8] {
        self.entries
    }
}

impl<'m> Bootstrap<'m> {
    /// Returns the sources of bind mounts.
    #[must_use]
    pub const fn mount_sources(&self) -> Option<MountSources<'m>> {
        self.mount_sources
    }

    /// Returns this message with sources of bind mounts.
    #[must_use]
    pub const fn with_mount_sources(mut self, sources: MountSources<'m>) -> Self {
        self.mount_sources = Some(sources);
        self
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use super::*;

    #[test]
    fn mount_sources_keep_empty_entries() {
        let entries: Vec<_> = MountSources::parse(b"/a\0\0/b\0\0\0").unwrap().iter().collect();
        assert_eq!(entries, [b"/a".as_slice(), b"", b"/b", b""]);
        assert_eq!(MountSources::parse(b"\0\0").unwrap().iter().count(), 1);
        assert_eq!(MountSources::parse(b"\0").unwrap().iter().count(), 0);
        assert_eq!(MountSources::parse(b""), Err(ParseErrorKind::MissingNul));
        assert_eq!(MountSources::parse(b"/a\0"), Err(ParseErrorKind::MissingNul));
    }
}
