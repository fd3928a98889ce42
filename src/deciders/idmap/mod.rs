//! Id maps: the lines of `/proc/PID/uid_map` and `gid_map` (user_namespaces(7)), parsed and checked.

use core::ffi::CStr;
use core::fmt;

use crate::deciders::bootstrap::text::{Lossy, NotDecimal, decimal, is_blank, lines, three_words};

/// The longest text that the kernel accepts, in bytes. A map is one write of less than a page of at least
/// 4,096 bytes: 4,095 bytes succeed, 4,096 fail with EINVAL.
pub const MAP_TEXT_MAX: usize = 4095;

/// The most lines that the kernel accepts: `UID_GID_MAP_MAX_EXTENTS`, since Linux 4.15 (five before).
pub const EXTENTS_MAX: usize = 340;

/// One line of an id map: `count` ids from `inside` on map to the ids from `outside` on in the parent
/// namespace.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Extent {
    /// The first id in the new namespace.
    pub inside: u32,
    /// The first id in the parent namespace.
    pub outside: u32,
    /// The number of ids.
    pub count: u32,
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.inside, self.outside, self.count)
    }
}

/// One of the two columns of ids.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Side {
    /// The ids of the new namespace.
    Inside,
    /// The ids of its parent.
    Outside,
}

/// An id map whose lines obey the kernel's rules, or one that is too large for the kernel.
///
/// A text over [`MAP_TEXT_MAX`] bytes or [`EXTENTS_MAX`] lines can never be applied, in any namespace. runc
/// sends such a map if it is configured so, and the bootstrap fails late. Here it parses, so that the message
/// can be shown; [`fits_one_write`](Self::fits_one_write) refuses it before the first call. If it has too
/// many lines, only the first 340 are compared with one another. If its text is too long, no line is parsed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct IdMap<'m> {
    text: &'m CStr,
    lines: usize,
}

/// The error of a malformed id map.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub struct IdMapError<'m> {
    /// The line number, from 1.
    pub line: usize,
    /// The text of the line.
    pub text: &'m [u8],
    /// The error in the line.
    pub reason: IdMapReason,
}

/// The error in a line of an id map. The kernel fails with EINVAL for each.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum IdMapReason {
    /// The map has no line.
    Empty,
    /// The line is blank.
    BlankLine,
    /// The line is not three decimal numbers with blanks or tabs between them.
    NotThreeNumbers,
    /// A number has more than 32 bits. The kernel would truncate it silently.
    NumberTooLarge,
    /// The size is 0.
    ZeroSize,
    /// The range ends after the last id, 4294967294.
    RangeOverflows,
    /// Another line already maps some of the ids.
    Overlap {
        /// The other line, from 1. It precedes this line.
        other_line: usize,
        /// The side of the map.
        side: Side,
    },
}

/// The size of an id map that the kernel cannot accept, from any writer (EINVAL; user_namespaces(7)). A
/// mapping tool fails too.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct IdMapTooLarge {
    /// Length of the text in bytes, without NUL.
    pub bytes: usize,
    /// Number of lines.
    pub lines: usize,
}

impl<'m> IdMap<'m> {
    /// Parses `inside outside count` lines. The last newline may be missing.
    ///
    /// # Errors
    ///
    /// The first malformed line; without a malformed line, an overlap.
    pub fn parse(text: &'m CStr) -> Result<Self, IdMapError<'m>> {
        let bytes = text.to_bytes();
        if bytes.is_empty() {
            return Err(IdMapError { line: 1, text: bytes, reason: IdMapReason::Empty });
        }
        if bytes.len() > MAP_TEXT_MAX {
            return Ok(Self { text, lines: lines(bytes).count() });
        }
        let (mut count, mut ascending, mut last): (usize, bool, Extent) = (0, true, Extent::default());
        for line in lines(bytes) {
            count = count.saturating_add(1);
            let refused = |reason| IdMapError { line: count, text: line, reason };
            let extent = parse_line(line).map_err(refused)?;
            ascending &= extent.follows(last);
            last = extent;
        }
        match if ascending { None } else { overlap(bytes) } {
            Some(error) => Err(error),
            None => Ok(Self { text, lines: count }),
        }
    }

    /// Returns the original text, without its NUL.
    #[must_use]
    pub const fn text(&self) -> &'m [u8] {
        self.text.to_bytes()
    }

    /// Returns the original text with its NUL. runc writes this to the kernel, which counts the NUL and
    /// ignores the rest.
    #[must_use]
    pub const fn text_with_nul(&self) -> &'m [u8] {
        self.text.to_bytes_with_nul()
    }

    /// Returns the bytes to write to the kernel: the text with its NUL as runc does, or without it if only
    /// that fits.
    #[must_use]
    pub const fn as_written(&self) -> &'m [u8] {
        let text = self.text_with_nul();
        if text.len() > MAP_TEXT_MAX { self.text() } else { text }
    }

    /// Returns the lines as numbers, in the order of the text. In a text over [`MAP_TEXT_MAX`] bytes,
    /// malformed lines are skipped.
    pub fn extents(&self) -> impl Iterator<Item = Extent> + use<'m> {
        self.text().split(|byte| *byte == b'\n').filter_map(|line| parse_line(line).ok())
    }

    /// Returns the number of lines, never 0.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.lines
    }

    /// Returns false: an empty map does not parse.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.lines == 0
    }

    /// Returns whether `id` is mapped in the new namespace. Stage 1 becomes id 0 there.
    #[must_use]
    pub fn maps_inside(&self, id: u32) -> bool {
        self.extents()
            .any(|extent| id.checked_sub(extent.inside).is_some_and(|distance| distance < extent.count))
    }

    /// Checks whether the kernel can accept the map at all. Called before the first system call.
    ///
    /// # Errors
    ///
    /// [`IdMapTooLarge`] over [`MAP_TEXT_MAX`] bytes or [`EXTENTS_MAX`] lines.
    pub const fn fits_one_write(&self) -> Result<(), IdMapTooLarge> {
        let bytes = self.text().len();
        if bytes > MAP_TEXT_MAX || self.lines > EXTENTS_MAX {
            return Err(IdMapTooLarge { bytes, lines: self.lines });
        }
        Ok(())
    }
}

/// Parses one line, without its newline, as written to the kernel or as the kernel shows it: `%10u` three
/// times.
///
/// # Errors
///
/// Every reason but [`IdMapReason::Empty`] and [`IdMapReason::Overlap`].
pub fn parse_line(line: &[u8]) -> Result<Extent, IdMapReason> {
    let not_three = || if is_blank(line) { IdMapReason::BlankLine } else { IdMapReason::NotThreeNumbers };
    let numbers = three_words(line).ok_or_else(not_three)?.map(decimal);
    // A malformed number takes precedence over a number that is too large.
    if numbers.contains(&Err(NotDecimal::NotDigits)) {
        return Err(IdMapReason::NotThreeNumbers);
    }
    let [Some(inside), Some(outside), Some(count)] = numbers.map(|number| u32::try_from(number.ok()?).ok())
    else {
        return Err(IdMapReason::NumberTooLarge);
    };
    if count == 0 {
        return Err(IdMapReason::ZeroSize);
    }
    // 4294967295 is not an id (setresuid(2) reads it as −1). A range may end just before it: 0 with a size of
    // 4294967295 is all ids. No range may start at it.
    if inside.checked_add(count).is_none() || outside.checked_add(count).is_none() {
        return Err(IdMapReason::RangeOverflows);
    }
    Ok(Extent { inside, outside, count })
}

impl Extent {
    /// Returns whether both ranges begin after those of `last`. In a map in which each line follows the one
    /// before, no two lines overlap.
    fn follows(self, last: Self) -> bool {
        let after = |first: u32, before: u32| {
            first.checked_sub(before).is_some_and(|distance| distance >= last.count)
        };
        after(self.inside, last.inside) && after(self.outside, last.outside)
    }
}

/// Returns the overlap of a map whose lines are well-formed, but not in ascending order.
///
/// Not inlined: the table would be part of the stack frame of each stage.
#[inline(never)]
fn overlap(bytes: &[u8]) -> Option<IdMapError<'_>> {
    let mut table = [NumberedExtent::default(); EXTENTS_MAX];
    let mut count: usize = 0;
    for ((slot, line), number) in table.iter_mut().zip(lines(bytes)).zip(1..) {
        *slot = NumberedExtent { extent: parse_line(line).unwrap_or_default(), line: number };
        count = number;
    }
    let placed = table.get_mut(..count).unwrap_or_default();
    [Side::Inside, Side::Outside].into_iter().find_map(|side| {
        let (line, other_line) = find_overlap(placed, side)?;
        let text = lines(bytes).nth(line.saturating_sub(1)).unwrap_or_default();
        Some(IdMapError { line, text, reason: IdMapReason::Overlap { other_line, side } })
    })
}

/// A line with its position in the text, which the sort would lose.
#[derive(Clone, Copy, Default)]
struct NumberedExtent {
    extent: Extent,
    line: usize,
}

impl NumberedExtent {
    fn first(&self, side: Side) -> u32 {
        match side {
            Side::Inside => self.extent.inside,
            Side::Outside => self.extent.outside,
        }
    }
}

/// Returns two lines that share an id on this side: the later line and the earlier line. The table is sorted:
/// if any two ranges overlap, two adjacent ranges overlap.
fn find_overlap(placed: &mut [NumberedExtent], side: Side) -> Option<(usize, usize)> {
    placed.sort_unstable_by(|a, b| {
        #[cfg(test)]
        crate::deciders::bootstrap::text::steps::add(1);
        (a.first(side), a.line).cmp(&(b.first(side), b.line))
    });
    let mut neighbours = placed.iter().zip(placed.iter().skip(1));
    let (a, b) = neighbours.find(|(low, high)| {
        #[cfg(test)]
        crate::deciders::bootstrap::text::steps::add(1);
        high.first(side).checked_sub(low.first(side)).is_some_and(|distance| distance < low.extent.count)
    })?;
    Some((a.line.max(b.line), a.line.min(b.line)))
}

impl fmt::Display for IdMapError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, text, reason } = *self;
        let text = Lossy(text);
        match reason {
            IdMapReason::Empty => f.write_str("found an empty id map, wanted at least one line"),
            IdMapReason::BlankLine | IdMapReason::NotThreeNumbers => {
                write!(f, "line {line}: found '{text}', wanted three decimal numbers")
            }
            IdMapReason::NumberTooLarge => {
                write!(f, "line {line}: found '{text}', wanted numbers of at most 32 bits")
            }
            IdMapReason::ZeroSize => write!(f, "line {line}: found '{text}', wanted a size above 0"),
            IdMapReason::RangeOverflows => {
                write!(f, "line {line}: found '{text}', wanted a range up to id 4294967294 at most")
            }
            IdMapReason::Overlap { other_line, side } => {
                let side = match side {
                    Side::Inside => "inside",
                    Side::Outside => "outside",
                };
                write!(
                    f,
                    "line {line}: found '{text}', wanted {side} ids that line {other_line} does not map"
                )
            }
        }
    }
}

impl core::error::Error for IdMapError<'_> {}

impl fmt::Display for IdMapTooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "id map of {} bytes and {} lines, the kernel takes {MAP_TEXT_MAX} bytes and {EXTENTS_MAX} lines",
            self.bytes, self.lines
        )
    }
}

impl core::error::Error for IdMapTooLarge {}

mod readback;
pub use readback::{MapCheck, MapMismatch};

#[cfg(test)]
mod tests;
