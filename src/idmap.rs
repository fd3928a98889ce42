//! Id maps: the lines of `/proc/PID/uid_map` and `gid_map` (user_namespaces(7)), as values.

use core::ffi::CStr;
use core::fmt;

use crate::bootstrap::text::{Lossy, NotDecimal, Steps, decimal, is_blank, lines, three_words};

/// The longest text that the kernel takes, in bytes: one write of less than a page, of 4,096 bytes at least
/// (spec 6.1: 4095 is taken, 4096 is EINVAL).
pub const MAP_TEXT_MAX: usize = 4095;

/// The most lines that the kernel takes: `UID_GID_MAP_MAX_EXTENTS`, since Linux 4.15 (five before).
pub const EXTENTS_MAX: usize = 340;

/// One line of an id map: `count` ids from `inside` on are `outside` and up in the parent namespace.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Extent {
    /// First id in the new namespace.
    pub inside: u32,
    /// First id in its parent.
    pub outside: u32,
    /// How many ids.
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

/// An id map that the kernel's own rules allow, or one so large that they were not asked.
///
/// A text over [`MAP_TEXT_MAX`] bytes or [`EXTENTS_MAX`] lines can never be applied, in any namespace. runc
/// sends one all the same, if it is configured so, and fails late; here it parses, so that the message can be
/// shown, and [`fits_one_write`](Self::fits_one_write) refuses it before the first call. Of such a map only
/// the first 340 lines are compared with one another, and no line at all is read if the text is too long.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct IdMap<'m> {
    text: &'m CStr,
    lines: usize,
}

/// Why an id map is refused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct IdMapError<'m> {
    /// The line, from 1.
    pub line: usize,
    /// What stands on it.
    pub text: &'m [u8],
    /// What is wrong with it.
    pub reason: IdMapReason,
}

/// What is wrong with a line of an id map. The kernel answers EINVAL to each.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum IdMapReason {
    /// There is no line at all.
    Empty,
    /// The line is blank.
    BlankLine,
    /// Not three decimal numbers with blanks or tabs between.
    NotThreeNumbers,
    /// A number of more than 32 bits. The kernel would cut it silently.
    NumberTooLarge,
    /// No id is mapped.
    ZeroSize,
    /// The first id and the size together go past the last id, 4294967294.
    RangeOverflows,
    /// Ids of the line are mapped by another line already.
    Overlap {
        /// The other line, from 1, which comes earlier.
        other_line: usize,
        /// On which side of the map.
        side: Side,
    },
}

/// An id map that the kernel cannot take, whoever writes it (spec 6.1: EINVAL, and no mapping tool can help).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct IdMapTooLarge {
    /// Length of the text in bytes, without NUL.
    pub bytes: usize,
    /// Number of lines.
    pub lines: usize,
}

impl<'m> IdMap<'m> {
    /// Reads `inside outside count` lines; the last newline may be missing.
    ///
    /// # Errors
    ///
    /// That of the first line that is not right in itself; else that of an overlap.
    pub fn parse(text: &'m CStr) -> Result<Self, IdMapError<'m>> {
        Self::parse_counting(text, &Steps::new())
    }

    pub(crate) fn parse_counting(text: &'m CStr, steps: &Steps) -> Result<Self, IdMapError<'m>> {
        let bytes = text.to_bytes();
        if bytes.is_empty() {
            return Err(IdMapError { line: 1, text: bytes, reason: IdMapReason::Empty });
        }
        if bytes.len() > MAP_TEXT_MAX {
            return Ok(Self { text, lines: lines(bytes, steps).count() });
        }
        let mut table = [Placed::default(); EXTENTS_MAX];
        let mut count: usize = 0;
        for line in lines(bytes, steps) {
            let number = count.saturating_add(1);
            let extent = parse_counted_line(line, steps).map_err(|reason| IdMapError {
                line: number,
                text: line,
                reason,
            })?;
            if let Some(slot) = table.get_mut(count) {
                *slot = Placed { extent, line: number };
            }
            count = number;
        }
        let placed = table.get_mut(..count.min(EXTENTS_MAX)).unwrap_or_default();
        for side in [Side::Inside, Side::Outside] {
            if let Some((line, other_line)) = find_overlap(placed, side, steps) {
                let text = lines(bytes, steps).nth(line.saturating_sub(1)).unwrap_or_default();
                return Err(IdMapError { line, text, reason: IdMapReason::Overlap { other_line, side } });
            }
        }
        Ok(Self { text, lines: count })
    }

    /// The text as it came, without its NUL.
    #[must_use]
    pub const fn text(&self) -> &'m [u8] {
        self.text.to_bytes()
    }

    /// The text as it came, with its NUL: what runc writes to the kernel, which counts the NUL and stops
    /// there.
    #[must_use]
    pub const fn text_with_nul(&self) -> &'m [u8] {
        self.text.to_bytes_with_nul()
    }

    /// What to write to the kernel: the text with its NUL as runc does, but without it if only so it fits.
    #[must_use]
    pub const fn as_written(&self) -> &'m [u8] {
        let text = self.text_with_nul();
        if text.len() > MAP_TEXT_MAX { self.text() } else { text }
    }

    /// The lines as numbers, in the order of the text. Of a text over [`MAP_TEXT_MAX`] bytes lines that are
    /// no extents are passed over.
    pub fn extents(&self) -> impl Iterator<Item = Extent> + use<'m> {
        self.text().split(|byte| *byte == b'\n').filter_map(|line| parse_line(line).ok())
    }

    /// The number of lines, never 0.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.lines
    }

    /// Always false: an empty map does not parse.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.lines == 0
    }

    /// Whether `id` means somebody in the new namespace. Stage 1 becomes id 0 there.
    #[must_use]
    pub fn maps_inside(&self, id: u32) -> bool {
        self.extents()
            .any(|extent| id.checked_sub(extent.inside).is_some_and(|distance| distance < extent.count))
    }

    /// Whether the kernel can take the map at all. To be asked before the first system call.
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

/// Reads one line, without its newline, as it is written to the kernel and as the kernel shows it
/// (`%10u %10u %10u`).
///
/// # Errors
///
/// Every reason but [`IdMapReason::Empty`] and [`IdMapReason::Overlap`].
pub fn parse_line(line: &[u8]) -> Result<Extent, IdMapReason> {
    parse_counted_line(line, &Steps::new())
}

fn parse_counted_line(line: &[u8], steps: &Steps) -> Result<Extent, IdMapReason> {
    if is_blank(line, steps) {
        return Err(IdMapReason::BlankLine);
    }
    let words = three_words(line, steps).ok_or(IdMapReason::NotThreeNumbers)?;
    let [inside, outside, count] = words.map(|word| match decimal(word, steps) {
        Ok(number) => u32::try_from(number).map_err(|_| IdMapReason::NumberTooLarge),
        Err(NotDecimal::TooLarge) => Err(IdMapReason::NumberTooLarge),
        Err(NotDecimal::NotDigits) => Err(IdMapReason::NotThreeNumbers),
    });
    let (inside, outside, count) = match (inside, outside, count) {
        (Ok(inside), Ok(outside), Ok(count)) => (inside, outside, count),
        // No number at all is worse than a large one, whichever comes first.
        (Err(IdMapReason::NotThreeNumbers), _, _)
        | (_, Err(IdMapReason::NotThreeNumbers), _)
        | (_, _, Err(IdMapReason::NotThreeNumbers)) => return Err(IdMapReason::NotThreeNumbers),
        _ => return Err(IdMapReason::NumberTooLarge),
    };
    if count == 0 {
        return Err(IdMapReason::ZeroSize);
    }
    // 4294967295 is "no id" (setresuid(2)'s −1): a range may end before it, so that 0 with a size of
    // 4294967295 is all ids, and no range can start there.
    if inside.checked_add(count).is_none() || outside.checked_add(count).is_none() {
        return Err(IdMapReason::RangeOverflows);
    }
    Ok(Extent { inside, outside, count })
}

/// A line that knows where it stood before the table was sorted.
#[derive(Clone, Copy, Default)]
struct Placed {
    extent: Extent,
    line: usize,
}

impl Placed {
    fn first(&self, side: Side) -> u32 {
        match side {
            Side::Inside => self.extent.inside,
            Side::Outside => self.extent.outside,
        }
    }
}

/// Two lines that share an id on this side: the later one and the earlier one. Sorting makes it cheap: if any
/// two ranges overlap, two neighbours do.
fn find_overlap(placed: &mut [Placed], side: Side, steps: &Steps) -> Option<(usize, usize)> {
    placed.sort_unstable_by(|a, b| {
        steps.tick();
        (a.first(side), a.line).cmp(&(b.first(side), b.line))
    });
    let mut neighbours = placed.iter().zip(placed.iter().skip(1));
    let (a, b) = neighbours.find(|(low, high)| {
        steps.tick();
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
                write!(f, "line {line}: found '{text}', wanted {side} ids that line {other_line} has not")
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
pub mod tool;
pub mod write;
pub use readback::{MapCheck, MapMismatch};

#[cfg(test)]
mod tests;
