//! Styled pieces of text: splits a call's line into them, folds them, and paints them with colours.

use std::format;
use std::string::{String, ToString};
use std::vec;
use std::vec::Vec;

use anstyle::{AnsiColor, Style};

use super::walk::descriptor;
use crate::record::{Call, Line, Reply};
use nsexec::bootstrap::text::is_invisible;

/// A quoted string with more bytes than this is abbreviated to [`STRING_SHOWN`] bytes.
const STRING_LIMIT: usize = 64;
/// The number of bytes that an abbreviated string shows.
const STRING_SHOWN: usize = 48;

/// The largest set of signals that is shown whole.
const SIGNALS_SHOWN: usize = 6;

/// The meaning of a piece of text, which selects its colour.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum SpanKind {
    Plain,
    Heading,
    Call,
    Descriptor,
    Quoted,
    Error,
    Good,
    Dim,
}

impl SpanKind {
    /// Returns the style of this kind of text. It uses the terminal's 16 base colours only: they follow the
    /// terminal's theme, light or dark.
    const fn style(self) -> Style {
        match self {
            Self::Plain => Style::new(),
            Self::Heading => Style::new().bold(),
            Self::Call => AnsiColor::Cyan.on_default(),
            Self::Descriptor => AnsiColor::Yellow.on_default(),
            Self::Quoted => AnsiColor::Green.on_default(),
            Self::Error => AnsiColor::Red.on_default().bold(),
            Self::Good => AnsiColor::Green.on_default().bold(),
            Self::Dim => Style::new().dimmed(),
        }
    }
}

/// A piece of text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Span {
    pub(super) text: String,
    pub(super) kind: SpanKind,
}

pub(super) fn span(text: impl Into<String>, kind: SpanKind) -> Span {
    Span { text: text.into(), kind }
}

/// Returns the number of columns that the pieces occupy.
pub(super) fn width(spans: &[Span]) -> usize {
    spans.iter().map(|span| span.text.chars().count()).sum()
}

/// Returns the pieces as one string, with escape sequences if `colour` is set, and without trailing blanks.
/// Adjacent pieces of the same colour share one escape sequence. Names come from a message or from another
/// machine, so unprintable characters become `?`: they could control the terminal.
pub(super) fn paint(spans: &[Span], colour: bool) -> String {
    let end = spans.iter().rposition(|span| !span.text.trim_end().is_empty()).map_or(0, |last| last + 1);
    let mut out = String::new();
    let mut on = Style::new();
    for (index, Span { text, kind }) in spans.iter().take(end).enumerate() {
        let text = if index + 1 == end { text.trim_end() } else { text };
        let style = if colour { kind.style() } else { Style::new() };
        if style != on {
            out.push_str(&format!("{on:#}{style}"));
            on = style;
        }
        let seen = |c: char| if is_invisible(c) { '?' } else { c };
        out.extend(text.replace(NO_BREAK_SPACE, " ").chars().map(seen));
    }
    out + &format!("{on:#}")
}

/// Splits a line in strace's format into pieces, with long strings abbreviated.
pub(super) fn call_spans(line: &Line) -> Vec<Span> {
    let shown = line.to_string();
    let (name, rest) = shown.split_at(shown.find('(').unwrap_or(0));
    // A string argument may contain ") = "; the result never does.
    let (arguments, result) = rest.split_at(rest.rfind(") = ").map_or(rest.len(), |at| at + ") = ".len()));
    let short = name.starts_with("rt_sig").then(|| short_sets(arguments));
    let arguments = short.as_deref().unwrap_or(arguments);
    let mut spans = vec![span(name, SpanKind::Call)];
    let pair = matches!(line.reply, Reply::Pair(..));
    let first_is_descriptor = descriptor(&line.call).is_some();
    for (index, token) in tokens(arguments).into_iter().enumerate() {
        let number = token.starts_with(|first: char| first.is_ascii_digit());
        let before = spans.last().map_or("", |last| last.text.as_str());
        let is_descriptor = number
            && ((index == 1 && first_is_descriptor)
                || before.ends_with("fd=")
                || (pair && (before.ends_with('[') || before == ", ") && !after_zero(&spans)));
        let kind = match token.as_bytes().first() {
            Some(b'"') => SpanKind::Quoted,
            _ if is_descriptor => SpanKind::Descriptor,
            _ => SpanKind::Plain,
        };
        let text = match kind {
            SpanKind::Quoted => abbreviated(&token),
            // Non-breaking blanks keep the result on the same line as the closing parenthesis.
            _ => token.replace(") = ", ")\u{a0}=\u{a0}"),
        };
        spans.push(span(text, kind));
    }
    let kind = match (&line.reply, &line.call) {
        (Reply::Errno(_), _) => SpanKind::Error,
        (Reply::Fd(_), Call::Openat { .. } | Call::Openat2 { .. } | Call::PidfdOpen { .. }) => {
            SpanKind::Descriptor
        }
        _ => SpanKind::Plain,
    };
    spans.push(span(result, kind));
    spans
}

/// Shortens the sets of signals in the arguments of a call: of a long set it keeps the first names and the
/// number of all.
fn short_sets(arguments: &str) -> String {
    let mut out = String::new();
    for (index, part) in arguments.split('[').enumerate() {
        if index > 0 {
            out.push('[');
        }
        let Some((set, rest)) = part.split_once(']').filter(|_| index > 0) else {
            out.push_str(part);
            continue;
        };
        let names: Vec<&str> = set.split(' ').collect();
        match names[..] {
            [first, second, third, ..] if names.len() > SIGNALS_SHOWN => {
                out.push_str(&format!("{first} {second} {third} … {} signals]{rest}", names.len()));
            }
            _ => out.push_str(&format!("{set}]{rest}")),
        }
    }
    out
}

/// Returns whether no `[` has been seen yet: `AF_UNIX, SOCK_STREAM, 0, [` precedes both numbers of a pair.
fn after_zero(spans: &[Span]) -> bool {
    !spans.iter().any(|span| span.text.ends_with('['))
}

/// Splits the text into strings, numbers, and the text between them.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens: Vec<String> = Vec::new();
    let mut string = false;
    let mut escaped = false;
    let mut last = ' ';
    for c in text.chars() {
        let number_goes_on = c.is_ascii_digit() && last.is_ascii_digit();
        let number_begins = c.is_ascii_digit() && !last.is_ascii_alphanumeric() && last != '_';
        let begins = if string {
            false
        } else {
            c == '"'
                || number_begins && !number_goes_on
                || last == '"'
                || (last.is_ascii_digit() && !c.is_ascii_alphanumeric())
        };
        match tokens.last_mut() {
            Some(token) if !begins => token.push(c),
            _ => tokens.push(c.to_string()),
        }
        if c == '"' && !escaped {
            string = !string;
        }
        escaped = string && c == '\\' && !escaped;
        last = c;
    }
    tokens
}

/// Returns a quoted string. A long one is cut between two bytes, and its full length follows.
fn abbreviated(quoted: &str) -> String {
    let inside = quoted.trim_start_matches('"').strip_suffix('"').unwrap_or(quoted);
    let mut bytes: usize = 0;
    let mut cut = None;
    let mut rest = inside;
    while !rest.is_empty() {
        if bytes == STRING_SHOWN {
            cut = Some(inside.len() - rest.len());
        }
        rest = rest.get(byte_len(rest)..).unwrap_or_default();
        bytes += 1;
    }
    match cut.and_then(|cut| inside.get(..cut)) {
        Some(shown) if bytes > STRING_LIMIT => {
            format!(
                "\"{shown}\"...{NO_BREAK_SPACE}/*{NO_BREAK_SPACE}{bytes}{NO_BREAK_SPACE}bytes{NO_BREAK_SPACE}*/"
            )
        }
        _ => quoted.to_string(),
    }
}

/// Returns the number of characters that encode the first byte of an escaped string.
fn byte_len(text: &str) -> usize {
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (Some('\\'), Some('0'..='7')) => {
            1 + text.chars().skip(1).take(3).take_while(|c| matches!(c, '0'..='7')).count()
        }
        (Some('\\'), Some(_)) => 2,
        (Some(c), _) => c.len_utf8(),
        (None, _) => 1,
    }
}

/// A non-breaking blank: no line ends there. It is painted as an ordinary blank.
const NO_BREAK_SPACE: char = '\u{a0}';

/// Folds the pieces to `width` columns. The first line already has `first` columns in use, all others begin
/// with `hanging` blanks. Lines break at blanks, and inside a word only if the word is longer than a line.
pub(super) fn fold(spans: &[Span], width: usize, first: usize, hanging: usize) -> Vec<Vec<Span>> {
    let mut folder = Folder { width, hanging, column: first, fresh: true, lines: vec![Vec::new()] };
    // A word may consist of several pieces with different colours.
    let mut word = Vec::new();
    for Span { text, kind } in spans {
        for piece in text.split_inclusive(' ') {
            word.push(span(piece, *kind));
            if piece.ends_with(' ') {
                folder.word(&core::mem::take(&mut word));
            }
        }
    }
    folder.word(&word);
    folder.lines
}

struct Folder {
    width: usize,
    hanging: usize,
    column: usize,
    /// Whether the current line is still empty.
    fresh: bool,
    lines: Vec<Vec<Span>>,
}

impl Folder {
    fn word(&mut self, pieces: &[Span]) {
        let blanks = pieces.last().map_or(0, |last| last.text.len() - last.text.trim_end_matches(' ').len());
        let need = width(pieces) - blanks;
        if !self.fresh && self.column + need > self.width {
            self.new_line();
        }
        for Span { text, kind } in pieces {
            let mut rest = text.as_str();
            while !rest.is_empty() {
                let room = self.width.saturating_sub(self.column);
                // Blanks may extend past the edge: trailing blanks are not painted.
                let fits = rest.trim_end_matches(' ').chars().count() <= room;
                if !fits && room == 0 && !self.fresh {
                    self.new_line();
                    continue;
                }
                let cut = rest.char_indices().nth(room.max(1)).map_or(rest.len(), |(at, _)| at);
                let (here, after) = rest.split_at(if fits { rest.len() } else { cut });
                self.put(here, *kind);
                rest = after;
            }
        }
    }

    fn put(&mut self, text: &str, kind: SpanKind) {
        if let Some(line) = self.lines.last_mut() {
            line.push(span(text, kind));
        }
        self.column += text.chars().count();
        self.fresh = false;
    }

    fn new_line(&mut self) {
        self.lines.push(vec![span(" ".repeat(self.hanging), SpanKind::Plain)]);
        (self.column, self.fresh) = (self.hanging, true);
    }
}
