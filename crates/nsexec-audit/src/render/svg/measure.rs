//! How wide a text is at most, without a font to ask.
//!
//! The picture names families and not files, so each viewer takes its own font. The widths here are those of the
//! widest in common use (DejaVu Sans and Verdana, whose letters are alike), rounded up.

use std::string::{String, ToString};
use std::vec::Vec;

/// A family and a size in pixels.
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

    /// From one base line to the next.
    pub(super) const fn leading(self) -> i32 {
        self.size() + 4
    }

    /// The width of a letter, in thousandths of the size.
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

    /// The most that this text takes.
    pub(super) fn width(self, text: &str) -> i32 {
        let thousandths: i32 = text.chars().map(|c| self.advance(c) * self.size()).sum();
        thousandths / 1000 + 1
    }

    /// The text in lines that are no wider than `width`, and at most `limit` of them.
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

    /// Puts all but the last piece of a word that is too long into `lines`. A path breaks after a slash.
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
            // A letter that is wider than the line must go somewhere.
            let cut = if cut == 0 { rest.chars().next().map_or(1, char::len_utf8) } else { cut };
            lines.push(rest.get(..cut).unwrap_or(rest).to_string());
            rest = rest.get(cut..).unwrap_or_default();
        }
        rest.to_string()
    }
}
