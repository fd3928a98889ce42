//! Compares the map that the kernel shows with the map that was requested.

use core::fmt;

use super::{EXTENTS_MAX, Extent, IdMap, parse_line};

/// The longest line that is accepted. The kernel's `%10u %10u %10u` has 32 bytes.
const LINE_MAX: usize = 40;

/// Compares a map that is read back, in parts of any size, with the requested map.
///
/// Both are compared as sets: with more than five extents the kernel sorts them (`sort_idmaps`, Linux 4.15).
/// 340 extents of 33 bytes take several reads. The file must have been opened in the parent user namespace,
/// where the outside ids read as they were written. The result of a mapping tool is checked because the tool
/// could write a map that differs from the message.
#[derive(Clone, Debug)]
pub struct MapCheck {
    /// The wanted extents, sorted. Only the first `count` elements are valid.
    wanted: [Extent; EXTENTS_MAX],
    /// Whether each wanted extent has been read.
    seen: [bool; EXTENTS_MAX],
    count: usize,
    /// A line whose newline has not been read yet.
    line: [u8; LINE_MAX],
    length: usize,
}

/// The difference between the map that was read back and the requested map.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum MapMismatch {
    /// A line that is not a line of a map.
    Unreadable,
    /// An extent that was not requested, or that appears twice.
    Unexpected(Extent),
    /// A requested extent that is missing.
    Missing(Extent),
}

impl MapCheck {
    /// Returns a check for `map`, which must pass [`IdMap::fits_one_write`], before anything is read.
    #[must_use]
    pub fn new(map: &IdMap<'_>) -> Self {
        let mut wanted = [Extent::default(); EXTENTS_MAX];
        let mut count: usize = 0;
        for (slot, extent) in wanted.iter_mut().zip(map.extents()) {
            *slot = extent;
            count = count.saturating_add(1);
        }
        wanted.get_mut(..count).unwrap_or_default().sort_unstable();
        Self { wanted, seen: [false; EXTENTS_MAX], count, line: [0; LINE_MAX], length: 0 }
    }

    /// Processes the next bytes of the file.
    ///
    /// # Errors
    ///
    /// The first line that is malformed or was not requested.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), MapMismatch> {
        for byte in bytes {
            if *byte == b'\n' {
                self.end_line()?;
            } else {
                let slot = self.line.get_mut(self.length).ok_or(MapMismatch::Unreadable)?;
                *slot = *byte;
                self.length = self.length.saturating_add(1);
            }
        }
        Ok(())
    }

    /// Completes the check at the end of the file.
    ///
    /// # Errors
    ///
    /// An incomplete line, or the first extent that is missing.
    pub fn finish(self) -> Result<(), MapMismatch> {
        if self.length > 0 {
            return Err(MapMismatch::Unreadable);
        }
        let missing = self.wanted.iter().zip(self.seen).take(self.count).find(|(_, seen)| !seen);
        missing.map_or(Ok(()), |(extent, _)| Err(MapMismatch::Missing(*extent)))
    }

    fn end_line(&mut self) -> Result<(), MapMismatch> {
        let line = self.line.get(..self.length).unwrap_or_default();
        let extent = parse_line(line).map_err(|_| MapMismatch::Unreadable)?;
        self.length = 0;
        let wanted = self.wanted.get(..self.count).unwrap_or_default();
        let seen = wanted.binary_search(&extent).ok().and_then(|index| self.seen.get_mut(index));
        match seen {
            Some(seen @ false) => *seen = true,
            _ => return Err(MapMismatch::Unexpected(extent)),
        }
        Ok(())
    }
}

impl fmt::Display for MapMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable => f.write_str("found a line that is not three numbers"),
            Self::Unexpected(extent) => write!(f, "found '{extent}', which was not requested"),
            Self::Missing(extent) => write!(f, "'{extent}' is missing"),
        }
    }
}

impl core::error::Error for MapMismatch {}
