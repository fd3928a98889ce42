//! JSON strings and the lines that the launcher reads, formatted without allocation.

use core::fmt::{self, Write};

use crate::sys::types::Pid;

/// Writes one character of a JSON string with runc's escapes: the short ones, and `\u00xx` in lower case for
/// the other control characters and for DEL.
fn escape(out: &mut impl Write, c: char) -> fmt::Result {
    match c {
        '"' => out.write_str("\\\""),
        '\\' => out.write_str("\\\\"),
        '\u{8}' => out.write_str("\\b"),
        '\n' => out.write_str("\\n"),
        '\r' => out.write_str("\\r"),
        '\t' => out.write_str("\\t"),
        '\u{c}' => out.write_str("\\f"),
        '\0'..='\u{1f}' | '\u{7f}' => write!(out, "\\u{:04x}", u32::from(c)),
        c => out.write_char(c),
    }
}

/// A writer that escapes its input for the inside of a JSON string.
#[derive(Debug)]
pub struct Escaped<W>(pub W);

impl<W: Write> Write for Escaped<W> {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        s.chars().try_for_each(|c| escape(&mut self.0, c))
    }
}

/// A fixed buffer for text. A string that does not fit is refused as a whole. So no escape and no UTF-8
/// sequence is ever truncated.
#[derive(Debug)]
pub struct Line<'b> {
    buffer: &'b mut [u8],
    used: usize,
}

impl<'b> Line<'b> {
    /// Returns an empty line in `buffer`.
    pub fn new(buffer: &'b mut [u8]) -> Self {
        Self { buffer, used: 0 }
    }

    /// Returns the bytes written so far.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.buffer.get(..self.used).unwrap_or_default()
    }

    /// Returns the number of bytes written so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.used
    }

    /// Returns whether nothing has been written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Returns a writer that fills the line up to `limit` bytes, which leaves room for the text after it.
    pub fn limited(&mut self, limit: usize) -> Limited<'_, 'b> {
        Limited { line: self, limit }
    }

    /// Adds bytes of unknown encoding: a path, an argument.
    ///
    /// # Errors
    /// The bytes do not fit; nothing is added.
    pub fn push_bytes(&mut self, bytes: &[u8]) -> fmt::Result {
        self.push(bytes, usize::MAX)
    }

    fn push(&mut self, bytes: &[u8], limit: usize) -> fmt::Result {
        let end = self.used.checked_add(bytes.len()).filter(|end| *end <= limit).ok_or(fmt::Error)?;
        self.buffer.get_mut(self.used..end).ok_or(fmt::Error)?.copy_from_slice(bytes);
        self.used = end;
        Ok(())
    }
}

impl Write for Line<'_> {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        self.push(s.as_bytes(), usize::MAX)
    }
}

/// A [`Line`] with less room.
#[derive(Debug)]
pub struct Limited<'l, 'b> {
    line: &'l mut Line<'b>,
    limit: usize,
}

impl Write for Limited<'_, '_> {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        self.line.push(s.as_bytes(), self.limit)
    }
}

/// The size of the longest pid line in bytes: two keys and two ids of ten digits.
pub const PID_LINE_MAX: usize = 64;

/// Formats the pid line, with the keys of 1.0.0-rc94 and later. Returns its length. The caller sends it in
/// one write.
#[must_use]
pub fn pid_line(buffer: &mut [u8; PID_LINE_MAX], stage_1: Pid, stage_2: Pid) -> usize {
    let mut line = Line::new(buffer);
    // Two i32 and 34 bytes around them always fit.
    let _ = writeln!(line, "{{\"stage1_pid\":{stage_1},\"stage2_pid\":{stage_2}}}");
    line.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::String;

    #[test]
    fn json_escapes_match_runc() {
        let mut out = String::new();
        Escaped(&mut out).write_str("a\"b\\c\u{8}\n\r\t\u{c}\u{1}\u{1f}\u{7f}é").unwrap();
        assert_eq!(out, "a\\\"b\\\\c\\b\\n\\r\\t\\f\\u0001\\u001f\\u007fé");
    }

    #[test]
    fn longest_pid_line_fits_its_buffer() {
        let mut buffer = [0; PID_LINE_MAX];
        let len = pid_line(&mut buffer, Pid(i32::MAX), Pid(i32::MAX));
        assert_eq!(&buffer[..len], b"{\"stage1_pid\":2147483647,\"stage2_pid\":2147483647}\n");
    }

    #[test]
    fn full_line_refuses_a_string_as_a_whole() {
        let mut buffer = [0; 4];
        let mut line = Line::new(&mut buffer);
        assert!(line.write_str("ab").is_ok());
        assert!(line.write_str("cde").is_err());
        assert_eq!(line.bytes(), b"ab");
    }
}
