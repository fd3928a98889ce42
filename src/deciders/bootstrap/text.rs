//! Parses text from another process, and displays it.
//!
//! Every parser of text in a message uses these functions. In unit tests they count their steps (`steps`), so
//! that a test can check that the work grows linearly with the length of a message. A time measurement could
//! not.

use core::fmt;

/// The steps of the parser in unit tests: the bytes that it has read, and the iterations of its other loops.
#[cfg(test)]
pub(crate) mod steps {
    extern crate std;
    use core::cell::Cell;

    std::thread_local! { static COUNT: Cell<usize> = const { Cell::new(0) } }

    pub(crate) fn add(steps: usize) {
        COUNT.set(COUNT.get() + steps);
    }

    /// Returns the count, and sets it to 0.
    pub(crate) fn take() -> usize {
        COUNT.take()
    }
}

/// Returns the parts of `text` between the bytes that `is_separator` accepts, as `slice::split` does.
pub(crate) fn split(text: &[u8], is_separator: fn(u8) -> bool) -> impl Iterator<Item = &[u8]> {
    text.split(move |byte| {
        #[cfg(test)]
        steps::add(1);
        is_separator(*byte)
    })
}

/// Returns the lines of `text`. The final newline may be missing: the kernel accepts both for id maps and
/// time offsets (`map_write`, `timens_offsets_write`). A second newline at the end is a blank line.
pub(crate) fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    split(text.strip_suffix(b"\n").unwrap_or(text), |byte| byte == b'\n')
}

/// Returns the words of a line, which blanks and tabs separate.
fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    split(line, |byte| matches!(byte, b' ' | b'\t')).filter(|word| !word.is_empty())
}

/// Returns the words of a line of three words, or `None` if there are more or fewer.
pub(crate) fn three_words(line: &[u8]) -> Option<[&[u8]; 3]> {
    let mut words = words(line);
    let three = [words.next()?, words.next()?, words.next()?];
    words.next().is_none().then_some(three)
}

/// Returns whether the line has only blanks and tabs.
pub(crate) fn is_blank(line: &[u8]) -> bool {
    words(line).next().is_none()
}

/// The reason why a text is not a number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NotDecimal {
    /// The text is empty, or has a character that is not a digit.
    NotDigits,
    /// The number has more than 64 bits.
    TooLarge,
}

/// Parses decimal digits: no sign, no blank, no other base.
pub(crate) fn decimal(word: &[u8]) -> Result<u64, NotDecimal> {
    if word.is_empty() {
        return Err(NotDecimal::NotDigits);
    }
    #[cfg(test)]
    steps::add(word.len());
    // All digits are checked before the size: "99…9x" is not a number, rather than too large.
    let mut value = Some(0_u64);
    for byte in word {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit <= 9).ok_or(NotDecimal::NotDigits)?;
        value = value.and_then(|value| value.checked_mul(10)?.checked_add(u64::from(digit)));
    }
    value.ok_or(NotDecimal::TooLarge)
}

/// Parses a signed decimal number: [`decimal`] with an optional leading `-`.
pub(crate) fn signed_decimal(word: &[u8]) -> Result<i64, NotDecimal> {
    match word.strip_prefix(b"-") {
        Some(digits) => 0_i64.checked_sub_unsigned(decimal(digits)?),
        None => i64::try_from(decimal(word)?).ok(),
    }
    .ok_or(NotDecimal::TooLarge)
}

/// Returns whether a character is invisible and may change how others are displayed. These are the control
/// characters, and the Unicode format characters (category Cf) that change the direction of text or are
/// invisible. A name with one of them could look like another name.
#[must_use]
pub fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(c, '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Displays bytes that are mostly text: valid UTF-8 unchanged, every other byte as `\xNN`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lossy<'a>(pub &'a [u8]);

impl fmt::Display for Lossy<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            f.write_str(chunk.valid())?;
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

/// The number of bytes of a path that are displayed. Even if each needs six bytes in a log record, the text
/// after the path still fits.
const PATH_SHOWN: usize = 512;

/// Displays a path like [`Lossy`]. A very long path is displayed by its beginning and its length, so that the
/// reason after it is not truncated. An empty path is displayed as `''`.
#[derive(Clone, Copy, Debug)]
pub struct PathText<'a>(pub &'a [u8]);

impl fmt::Display for PathText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("''");
        }
        match self.0.split_at_checked(PATH_SHOWN) {
            Some((start, rest)) if !rest.is_empty() => {
                write!(f, "{}... ({} bytes)", Lossy(start), self.0.len())
            }
            _ => Lossy(self.0).fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::string::ToString;
    use std::vec::Vec;

    use super::*;

    #[test]
    fn second_final_newline_is_a_blank_line() {
        let lines = |text: &'static [u8]| super::lines(text).collect::<Vec<_>>();
        assert_eq!(lines(b"a\nb"), [b"a", b"b"]);
        assert_eq!(lines(b"a\nb\n"), [b"a", b"b"]);
        assert_eq!(lines(b"a\n\n"), [b"a".as_slice(), b""]);
        assert_eq!(lines(b"\n"), [b""]);
    }

    #[test]
    fn only_decimal_digits_are_a_number() {
        assert_eq!(decimal(b"0042"), Ok(42));
        assert_eq!(decimal(b"18446744073709551615"), Ok(u64::MAX));
        assert_eq!(decimal(b"18446744073709551616"), Err(NotDecimal::TooLarge));
        for word in [b"".as_slice(), b"+1", b"-1", b"0x1", b"1 ", b"99999999999999999999999x"] {
            assert_eq!(decimal(word), Err(NotDecimal::NotDigits), "{}", Lossy(word));
        }
        assert_eq!(signed_decimal(b"-9223372036854775808"), Ok(i64::MIN));
        assert_eq!(signed_decimal(b"9223372036854775808"), Err(NotDecimal::TooLarge));
        assert_eq!(signed_decimal(b"--1"), Err(NotDecimal::NotDigits));
        assert_eq!(signed_decimal(b"-"), Err(NotDecimal::NotDigits));
    }

    #[test]
    fn empty_path_is_displayed_as_two_quotes() {
        assert_eq!(PathText(b"").to_string(), "''");
        assert_eq!(PathText(b"/").to_string(), "/");
    }

    #[test]
    fn invalid_utf8_is_displayed_in_hexadecimal() {
        assert_eq!(Lossy(b"/run/\xff\xfeb\xc3\xa9").to_string(), "/run/\\xff\\xfeb\u{e9}");
    }
}
