//! What the kernel shows of a map, compared with what was to be written.

use core::fmt;

use super::{EXTENTS_MAX, Extent, IdMap, parse_line};

/// The longest line that is read back: `%10u %10u %10u` has 32 bytes.
const LINE_MAX: usize = 40;

/// Compares a map that is read back, in pieces of any size, with the one that was to be written.
///
/// As sets: from six extents on the kernel sorts them (`sort_idmaps`, Linux 4.15), and 340 of them, 33 bytes
/// each, take several reads. The file must have been opened in the parent user namespace, where the outside
/// ids read as they were written. A mapping tool could be told to write something else than the message asks
/// for; so its result is checked.
#[derive(Clone, Debug)]
pub struct MapCheck {
    /// The wanted extents, sorted; only the first `count` mean anything.
    wanted: [Extent; EXTENTS_MAX],
    /// Which of them have come.
    seen: [bool; EXTENTS_MAX],
    count: usize,
    /// A line whose end has not come yet.
    line: [u8; LINE_MAX],
    length: usize,
}

/// How a map that was read back differs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum MapMismatch {
    /// Something that is no line of a map.
    Unreadable,
    /// An extent that nobody asked for, or one more time.
    Unexpected(Extent),
    /// An extent that was asked for and is not there.
    Missing(Extent),
}

impl MapCheck {
    /// Nothing read yet. The map is one that [`IdMap::fits_one_write`].
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

    /// Takes the next bytes of the file.
    ///
    /// # Errors
    ///
    /// The first line that cannot be read or was not asked for.
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

    /// The file has ended.
    ///
    /// # Errors
    ///
    /// A line without its end, or the first extent that has not come.
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
            Self::Unexpected(extent) => write!(f, "found '{extent}', which was not asked for"),
            Self::Missing(extent) => write!(f, "'{extent}' is missing"),
        }
    }
}

impl core::error::Error for MapMismatch {}
