//! Renders a document as text: a section for each process, a line for each call in strace's format, and the
//! reasons.

use std::format;
use std::string::{String, ToString};
use std::vec;
use std::vec::Vec;

use super::paint::{Span, SpanKind, call_spans, fold, paint, span, width};
use super::walk::{AnnotatedLine, Object, walk};
use super::why::why;
use super::words::{Payload, fatal_text};
use super::{Document, Fate, SectionView};
use crate::record::{Call, Reply};

/// The column where a line begins.
const INDENT: usize = 2;
/// The column where the rest of a folded line continues.
const HANGING: usize = 6;
/// The column where the reasons begin, if the calls are short enough.
const REASON_COLUMN: usize = 56;

/// Options of the text form.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Look {
    /// The width in columns to which lines are folded. `None` does not fold: one call, one line.
    pub width: Option<usize>,
    /// Whether to colour the text with escape sequences.
    pub colour: bool,
}

/// Returns the document as text, with a newline at the end.
#[must_use]
pub fn text(document: &Document<'_>, look: Look) -> String {
    let mut page = Page { look, out: String::new() };
    page.head(document);
    for (view, seen) in document.sections.iter().zip(walk(document)) {
        page.section(view, &seen);
    }
    if let Some(line) = document.pid_line {
        page.list("pid line", &[line], SpanKind::Plain);
    }
    page.list("log", document.log, SpanKind::Plain);
    page.list("rules", document.findings, SpanKind::Plain);
    page.out
}

struct Page {
    look: Look,
    out: String,
}

impl Page {
    /// Writes one line, folded if necessary.
    fn line(&mut self, indent: usize, hanging: usize, spans: &[Span]) {
        let lines = match self.look.width {
            Some(columns) => fold(spans, columns, indent, hanging),
            None => vec![spans.to_vec()],
        };
        for (index, line) in lines.into_iter().enumerate() {
            if index == 0 {
                self.out.push_str(&" ".repeat(indent));
            }
            self.out.push_str(&paint(&line, self.look.colour));
            self.out.push('\n');
        }
    }

    fn heading(&mut self, text: &str) {
        if !self.out.is_empty() {
            self.out.push('\n');
        }
        self.line(0, INDENT, &[span(text, SpanKind::Heading)]);
    }

    fn head(&mut self, document: &Document<'_>) {
        if !document.title.is_empty() {
            self.heading(document.title);
        }
        if let Some(hash) = document.hash {
            self.line(INDENT, HANGING, &[span("hash ", SpanKind::Dim), span(hash, SpanKind::Plain)]);
        }
        if let Some(shape) = document.shape {
            self.line(INDENT, HANGING, &[span("shape ", SpanKind::Dim), span(shape, SpanKind::Plain)]);
        }
        if document.assumptions.is_empty() {
            return;
        }
        self.heading("assumptions");
        let keys = document.assumptions.iter().map(|fact| fact.key.chars().count());
        let column = keys.max().unwrap_or(0).min(32) + 2;
        for fact in document.assumptions {
            let key = format!("{:<column$}", fact.key);
            self.line(
                INDENT,
                INDENT + column,
                &[span(key, SpanKind::Dim), span(fact.value, SpanKind::Plain)],
            );
        }
    }

    fn section(&mut self, view: &SectionView<'_>, seen: &[AnnotatedLine<'_>]) {
        self.heading(&view.section.name);
        for seen in seen {
            self.call(seen);
        }
        if !view.outcome.is_empty() {
            let kind = if view.fate == Fate::Failed { SpanKind::Error } else { SpanKind::Good };
            self.line(INDENT, HANGING, &[span("=> ", SpanKind::Dim), span(view.outcome, kind)]);
        }
    }

    fn call(&mut self, seen: &AnnotatedLine<'_>) {
        let mut spans = call_spans(seen.line);
        let Some((reason, kind)) = remark(seen) else { return self.line(INDENT, HANGING, &spans) };
        let reason = span(format!("# {reason}"), kind);
        let end = INDENT + width(&spans);
        let room = self.look.width.unwrap_or(usize::MAX);
        let needed = reason.text.chars().count();
        let aligned = (end + 3).max(REASON_COLUMN);
        match [aligned, end + 3].into_iter().find(|column| column.saturating_add(needed) <= room) {
            Some(column) => {
                spans.push(span(" ".repeat(column - end), SpanKind::Plain));
                spans.push(reason);
                self.line(INDENT, HANGING, &spans);
            }
            None => {
                self.line(INDENT, HANGING, &spans);
                self.line(HANGING, HANGING + 2, &[reason]);
            }
        }
    }

    fn list(&mut self, heading: &str, items: &[&str], kind: SpanKind) {
        if items.is_empty() {
            return;
        }
        self.heading(heading);
        for item in items {
            for line in item.lines() {
                self.line(INDENT, HANGING, &[span(line, kind)]);
            }
        }
    }
}

/// Returns the remark for a call: [`comment`], or the full text of a fatal record, since it explains the
/// failure of the run.
fn remark(seen: &AnnotatedLine<'_>) -> Option<(String, SpanKind)> {
    if let Call::Write { data, .. } | Call::WriteNowait { data, .. } = &seen.line.call {
        if let Some(text) = fatal_text(&data.0).filter(|_| seen.context.object == Some(Object::Log)) {
            return Some((format!("fatal: {text}"), SpanKind::Error));
        }
    }
    comment(seen).map(|text| (text, SpanKind::Dim))
}

/// Returns the remark for a call: the content of its message, or the reason for the call.
#[must_use]
pub fn comment(seen: &AnnotatedLine<'_>) -> Option<String> {
    let reason = why(seen.line, &seen.context);
    let (Some(payload), Some(peer)) = (&seen.context.payload, seen.context.peer()) else {
        return reason.map(ToString::to_string);
    };
    let arrow =
        if matches!(seen.line.call, Call::Read { .. } | Call::ReceiveFd { .. }) { '←' } else { '→' };
    let mut parts: Vec<String> = vec![format!("{arrow} {}: {}", peer.name(), payload.text())];
    if let Payload::Bootstrap(bytes) = payload {
        parts.push(format!("{bytes} bytes"));
    }
    if let (Reply::Errno(_), Some(reason)) = (&seen.line.reply, reason) {
        parts.push(format!("but {reason}"));
    }
    Some(parts.join(", "))
}
