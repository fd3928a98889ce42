//! Estimates the maximum width of a text, without access to a font.
//!
//! The picture names font families, not files, so each viewer uses its own font. The widths here are those of
//! the widest fonts in common use (DejaVu Sans and Verdana, whose letters have about the same width), rounded
//! up.

use std::string::{String, ToString};
use std::vec::Vec;

/// A font family with a size in pixels.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Font {
    Sans(i32),
    Bold(i32),
    Mono(i32),
}

impl Font {
    pub(super) const fn size(self) -> i32 {
        match self {
            Self::Sans(size) | Self::Bold(size) | Self::Mono(size) => size,
        }
    }

    /// Returns the distance between two base lines.
    pub(super) const fn leading(self) -> i32 {
        self.size() + 4
    }

    /// Returns the width of a character in thousandths of the font size.
    fn advance(self, c: char) -> i32 {
        let plain = match c {
            _ if matches!(self, Self::Mono(_)) => return if c.is_ascii() { 610 } else { 1000 },
            'i' | 'j' | 'l' | '.' | ',' | ':' | ';' | '\'' | '|' | '!' | ' ' => 400,
            'f' | 't' | 'r' | '(' | ')' | '[' | ']' | '/' | '"' | '-' => 450,
            'm' | 'w' | 'M' | 'W' | '@' | '%' | '…' | '→' | '←' => 1000,
            'a'..='z' | '0'..='9' => 640,
            _ if c.is_ascii() => 840,
            _ => 1100,
        };
        if matches!(self, Self::Bold(_)) { plain * 112 / 100 } else { plain }
    }

    /// Returns the maximum width of a text.
    pub(super) fn width(self, text: &str) -> i32 {
        let thousandths: i32 = text.chars().map(|c| self.advance(c) * self.size()).sum();
        thousandths / 1000 + 1
    }

    /// Wraps the text into at most `limit` lines of at most `width`.
    pub(super) fn wrap(self, text: &str, width: i32, limit: usize) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        for paragraph in text.lines() {
            let mut line = String::new();
            for word in paragraph.split(' ') {
                let joined = if line.is_empty() { word.to_string() } else { std::format!("{line} {word}") };
                if self.width(&joined) <= width {
                    line = joined;
                    continue;
                }
                if !line.is_empty() {
                    lines.push(core::mem::take(&mut line));
                }
                line = self.break_word(word, width, &mut lines);
            }
            lines.push(line);
        }
        if lines.len() > limit {
            lines.truncate(limit.max(1));
            if let Some(last) = lines.last_mut() {
                while self.width(last) + self.width("…") > width && last.pop().is_some() {}
                last.push('…');
            }
        }
        lines
    }

    /// Breaks a word that is too long: pushes all pieces but the last to `lines`, and returns the last. A
    /// path breaks after a slash.
    fn break_word(self, word: &str, width: i32, lines: &mut Vec<String>) -> String {
        let mut rest = word;
        while self.width(rest) > width {
            let mut fitting = 0;
            for (at, c) in rest.char_indices() {
                let end = at + c.len_utf8();
                if self.width(rest.get(..end).unwrap_or_default()) > width {
                    break;
                }
                fitting = end;
            }
            let head = rest.get(..fitting).unwrap_or_default();
            let cut = head.rfind('/').map_or(fitting, |slash| slash + 1);
            // A character wider than the line gets a line of its own.
            let cut = if cut == 0 { rest.chars().next().map_or(1, char::len_utf8) } else { cut };
            lines.push(rest.get(..cut).unwrap_or(rest).to_string());
            rest = rest.get(cut..).unwrap_or_default();
        }
        rest.to_string()
    }
}
