//! Clock offsets of a new time namespace: `TIMENSOFFSET`, and the lines of `/proc/PID/timens_offsets`
//! (time_namespaces(7), Linux 5.6; runc 1.2).

use core::ffi::CStr;
use core::fmt;

use crate::deciders::bootstrap::text::{
    Lossy, NotDecimal, decimal, is_blank, lines, signed_decimal, three_words,
};

/// A clock that a time namespace can shift.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Clock {
    /// `CLOCK_MONOTONIC`.
    Monotonic,
    /// `CLOCK_BOOTTIME`.
    Boottime,
}

impl Clock {
    /// Returns the name used in the message and in the kernel's file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Monotonic => "monotonic",
            Self::Boottime => "boottime",
        }
    }

    /// Returns the clock with this name. The kernel also accepts the numbers `1` and `7`; the message does
    /// not.
    #[must_use]
    pub fn from_name(name: &[u8]) -> Option<Self> {
        [Self::Monotonic, Self::Boottime].into_iter().find(|clock| clock.name().as_bytes() == name)
    }
}

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The offset of one clock in the new namespace, relative to the initial namespace.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct OffsetEntry {
    /// The clock.
    pub clock: Clock,
    /// Seconds, possibly negative. Only the kernel can check whether the shifted clock would be negative or
    /// too large (ERANGE).
    pub secs: i64,
    /// Nanoseconds, never negative, below 1 000 000 000.
    pub nanos: u32,
}

/// Clock offsets: one or two lines, each for a different clock.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TimeOffsets<'m> {
    text: &'m CStr,
}

/// The error of refused clock offsets.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub struct TimeOffsetsError<'m> {
    /// The line number, from 1.
    pub line: usize,
    /// The text of the line.
    pub text: &'m [u8],
    /// The error in the line.
    pub reason: TimeOffsetsReason,
}

/// The error in a line of clock offsets.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum TimeOffsetsReason {
    /// The text has no line. runc sends this for a configuration with an empty map, and the kernel fails with
    /// EINVAL.
    NoLine,
    /// The line is blank.
    BlankLine,
    /// The line is not a clock and two numbers.
    NotThreeWords,
    /// The clock cannot be shifted by a time namespace, or is not named like this.
    UnknownClock,
    /// The seconds are not a decimal number of 64 bits.
    BadSeconds,
    /// The nanoseconds are not a decimal number.
    BadNanoseconds,
    /// The nanoseconds are a second or more (the kernel: EINVAL).
    NanosecondsTooLarge,
    /// The clock already has a line. So there are at most two lines. The kernel reads no third line and would
    /// report a short write.
    SameClockTwice,
}

impl<'m> TimeOffsets<'m> {
    /// Parses `clock secs nanosecs` lines. The last newline may be missing.
    ///
    /// # Errors
    ///
    /// The first malformed line.
    pub fn parse(text: &'m CStr) -> Result<Self, TimeOffsetsError<'m>> {
        let bytes = text.to_bytes();
        if bytes.is_empty() {
            return Err(TimeOffsetsError { line: 1, text: bytes, reason: TimeOffsetsReason::NoLine });
        }
        let (mut monotonic, mut boottime) = (false, false);
        for (number, line) in (1..).zip(lines(bytes)) {
            let refused = |reason| TimeOffsetsError { line: number, text: line, reason };
            let entry = parse_line(line).map_err(refused)?;
            let seen = match entry.clock {
                Clock::Monotonic => &mut monotonic,
                Clock::Boottime => &mut boottime,
            };
            if core::mem::replace(seen, true) {
                return Err(refused(TimeOffsetsReason::SameClockTwice));
            }
        }
        Ok(Self { text })
    }

    /// Returns the offsets, in the order of the text.
    pub fn iter(&self) -> impl Iterator<Item = OffsetEntry> + use<'m> {
        let text = self.text.to_bytes();
        text.split(|byte| *byte == b'\n').filter_map(|line| parse_line(line).ok())
    }

    /// Returns the original text, without its NUL.
    #[must_use]
    pub const fn text(&self) -> &'m [u8] {
        self.text.to_bytes()
    }

    /// Returns the original text with its NUL, which runc writes to the kernel.
    #[must_use]
    pub const fn text_with_nul(&self) -> &'m [u8] {
        self.text.to_bytes_with_nul()
    }
}

fn parse_line(line: &[u8]) -> Result<OffsetEntry, TimeOffsetsReason> {
    let not_three =
        || if is_blank(line) { TimeOffsetsReason::BlankLine } else { TimeOffsetsReason::NotThreeWords };
    let [clock, secs, nanos] = three_words(line).ok_or_else(not_three)?;
    let clock = Clock::from_name(clock).ok_or(TimeOffsetsReason::UnknownClock)?;
    let secs = signed_decimal(secs).map_err(|_| TimeOffsetsReason::BadSeconds)?;
    let nanos = match decimal(nanos) {
        Ok(nanos) => u32::try_from(nanos).ok().filter(|nanos| *nanos < 1_000_000_000),
        Err(NotDecimal::TooLarge) => None,
        Err(NotDecimal::NotDigits) => return Err(TimeOffsetsReason::BadNanoseconds),
    };
    let nanos = nanos.ok_or(TimeOffsetsReason::NanosecondsTooLarge)?;
    Ok(OffsetEntry { clock, secs, nanos })
}

impl fmt::Display for TimeOffsetsError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, text, reason } = *self;
        let wanted = match reason {
            TimeOffsetsReason::NoLine => {
                return f.write_str("found no time offset, wanted at least one line");
            }
            TimeOffsetsReason::BlankLine | TimeOffsetsReason::NotThreeWords => {
                "a clock, seconds and nanoseconds"
            }
            TimeOffsetsReason::UnknownClock => "clock 'monotonic' or 'boottime'",
            TimeOffsetsReason::BadSeconds => "seconds as a decimal number of 64 bits",
            TimeOffsetsReason::BadNanoseconds => "nanoseconds as a decimal number",
            TimeOffsetsReason::NanosecondsTooLarge => "less than 1000000000 nanoseconds",
            TimeOffsetsReason::SameClockTwice => "each clock at most once",
        };
        write!(f, "line {line}: found '{}', wanted {wanted}", Lossy(text))
    }
}

impl core::error::Error for TimeOffsetsError<'_> {}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::string::ToString;
    use std::vec::Vec;

    use super::*;

    #[test]
    fn clocks_parse_in_any_order_with_negative_seconds() {
        let offsets = TimeOffsets::parse(c"boottime\t-5  999999999\n monotonic 604800 0").unwrap();
        let entries: Vec<_> = offsets.iter().collect();
        assert_eq!(
            entries,
            [
                OffsetEntry { clock: Clock::Boottime, secs: -5, nanos: 999_999_999 },
                OffsetEntry { clock: Clock::Monotonic, secs: 604_800, nanos: 0 },
            ]
        );
        assert_eq!(offsets.text_with_nul().last(), Some(&0));
    }

    #[test]
    fn every_time_offset_error_has_line_and_reason() {
        use TimeOffsetsReason::*;
        for (text, line, reason) in [
            (c"", 1, NoLine),
            (c"\n", 1, BlankLine),
            (c"monotonic 1 1\n \n", 2, BlankLine),
            (c"monotonic 1", 1, NotThreeWords),
            (c"monotonic 1 2 3", 1, NotThreeWords),
            (c"realtime 1 1", 1, UnknownClock),
            (c"1 1 1", 1, UnknownClock),
            (c"boottime +1 1", 1, BadSeconds),
            (c"boottime 9223372036854775808 1", 1, BadSeconds),
            (c"boottime 1 -1", 1, BadNanoseconds),
            (c"boottime 1 1000000000", 1, NanosecondsTooLarge),
            (c"boottime 1 18446744073709551617", 1, NanosecondsTooLarge),
            (c"boottime 1 1\nmonotonic 1 1\nboottime 1 1\n", 3, SameClockTwice),
        ] {
            let error = TimeOffsets::parse(text).unwrap_err();
            assert_eq!((error.line, error.reason), (line, reason), "{text:?}");
        }
        let error = TimeOffsets::parse(c"realtime 1 1").unwrap_err();
        assert_eq!(error.to_string(), "line 1: found 'realtime 1 1', wanted clock 'monotonic' or 'boottime'");
    }
}
