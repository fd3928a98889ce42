//! Splits strace's lines, lists and structures into parts, and writes and reads the arguments of a call.

use core::fmt::{self, Formatter};
use core::slice::Iter;
use std::vec::Vec;

/// A line `name(arguments) = result`, with the arguments separated.
pub(crate) struct Parts<'a> {
    pub(crate) name: &'a str,
    pub(crate) args: Vec<&'a str>,
    pub(crate) result: &'a str,
}

/// Splits a line. `None` if it has another form: a signal, an unfinished call.
pub(crate) fn split(line: &str) -> Option<Parts<'_>> {
    let (name, rest) = line.split_once('(')?;
    let (args, length) = list(rest, b')')?;
    let result = rest.get(length..)?.trim_start().strip_prefix("= ")?;
    Some(Parts { name, args, result })
}

/// Returns the elements of a list up to `end`, and the length including `end`. Commas and brackets inside
/// strings, structures and other lists do not count.
pub(crate) fn list(text: &str, end: u8) -> Option<(Vec<&str>, usize)> {
    let mut elements = Vec::new();
    let (mut depth, mut quoted, mut escaped, mut start) = (0_u32, false, false, 0);
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if quoted => {}
            _ if depth == 0 && byte == end => {
                let last = text.get(start..index)?.trim();
                if !last.is_empty() || !elements.is_empty() {
                    elements.push(last);
                }
                return Some((elements, index + 1));
            }
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.checked_sub(1)?,
            b',' if depth == 0 => {
                elements.push(text.get(start..index)?.trim());
                start = index + 1;
            }
            _ => {}
        }
    }
    None
}

/// Returns the elements of `[a, b]`.
pub(crate) fn array(text: &str) -> Option<Vec<&str>> {
    let (elements, length) = list(text.strip_prefix('[')?, b']')?;
    (length + 1 == text.len()).then_some(elements)
}

/// Returns the value of a field of `{a=1, b=2}`.
pub(crate) fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (fields, _) = list(text.strip_prefix('{')?, b'}')?;
    fields.into_iter().find_map(|field| field.strip_prefix(name)?.strip_prefix('='))
}

/// Writes the arguments of a call, with a comma between two of them.
pub(super) struct Writer<'a, 'f> {
    f: &'a mut Formatter<'f>,
    between: &'static str,
}

impl<'a, 'f> Writer<'a, 'f> {
    pub(super) const fn new(f: &'a mut Formatter<'f>) -> Self {
        Self { f, between: "" }
    }

    /// Writes the comma before the next argument, unless it is the first.
    pub(super) fn next(&mut self) -> Result<&mut Formatter<'f>, fmt::Error> {
        self.f.write_str(self.between)?;
        self.between = ", ";
        Ok(self.f)
    }
}

/// The arguments of a line that are not parsed yet.
pub(super) struct Arguments<'a> {
    rest: Iter<'a, &'a str>,
    /// The value that the kernel wrote into the caller's memory. Empty if the call has no such value.
    pub(super) filled: &'a str,
}

impl<'a> Arguments<'a> {
    pub(super) fn new(args: &'a [&'a str]) -> Self {
        Self { rest: args.iter(), filled: "" }
    }

    /// Returns the next argument.
    pub(super) fn next(&mut self) -> Option<&'a str> {
        self.rest.next().copied()
    }

    /// Skips an argument that must have this text.
    pub(super) fn text(&mut self, text: &str) -> Option<()> {
        (self.next()? == text).then_some(())
    }

    /// Takes the next argument as the value that the kernel wrote.
    pub(super) fn fill(&mut self) -> Option<()> {
        self.filled = self.next()?;
        Some(())
    }

    /// Returns `None` if arguments are left.
    pub(super) fn end(&self) -> Option<()> {
        self.rest.as_slice().is_empty().then_some(())
    }
}
