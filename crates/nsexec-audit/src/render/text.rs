//! Renders a document as text: a section for each process, a line for each call in strace's format, and the
//! reasons.

use std::format;
use std::string::{String, ToString};
use std::vec;
use std::vec::Vec;

use super::order::{Step, in_time};
use super::paint::{Span, SpanKind, call_spans, fold, paint, span, width};
use super::rows::{Row, rows};
use super::walk::{AnnotatedLine, Object, walk};
use super::why::why;
use super::words::{Payload, fatal_text, one_line};
use super::{Document, Fact, Fate, SectionView};
use crate::record::{Call, Reply};
use crate::transcript::Role;

/// The column where a line begins.
const INDENT: usize = 2;
/// The column where the rest of a folded line continues.
const HANGING: usize = 6;
/// The column where the reasons begin, if the calls are short enough.
const REASON_COLUMN: usize = 56;
/// The width of the subjects in the summary.
const SUMMARY_COLUMN: usize = 12;
/// The width of the names of processes in the list of all calls: that of the longest, and two blanks.
const NAME_COLUMN: usize = 14;

/// Options of the text form.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Look {
    /// The width in columns to which lines are folded. `None` does not fold: one call, one line.
    pub width: Option<usize>,
    /// Whether to colour the text with escape sequences.
    pub colour: bool,
    /// The order of the calls.
    pub order: Order,
}

/// The order of the calls in the text form.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Order {
    /// One section for each process.
    #[default]
    Process,
    /// One list, in an order in which the calls can have happened.
    Time,
}

/// Returns the document as text, with a newline at the end.
#[must_use]
pub fn text(document: &Document<'_>, look: Look) -> String {
    let mut page = Page { look, out: String::new() };
    page.head(document);
    let walked = walk(document);
    match look.order {
        Order::Process => {
            for (view, seen) in document.sections.iter().zip(&walked) {
                page.section(view, seen);
            }
        }
        Order::Time => page.in_time(document, &walked),
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
        let verdict = document.verdict.map(|value| Fact { key: "verdict", value });
        for fact in document.summary.iter().copied().chain(verdict) {
            let key = format!("{:<SUMMARY_COLUMN$}", fact.key);
            let spans = [span(key, SpanKind::Dim), span(fact.value, SpanKind::Plain)];
            self.line(INDENT, INDENT + SUMMARY_COLUMN, &spans);
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
            // A key that is longer than the column still ends with the gap.
            let key = format!("{:<width$}  ", fact.key, width = column - 2);
            self.line(
                INDENT,
                INDENT + column,
                &[span(key, SpanKind::Dim), span(fact.value, SpanKind::Plain)],
            );
        }
    }

    fn section(&mut self, view: &SectionView<'_>, seen: &[AnnotatedLine<'_>]) {
        self.heading(&view.section.name);
        self.rows(seen, "");
        self.outcome(view, "");
    }

    /// Writes all calls in one list, each with the name of its process.
    fn in_time(&mut self, document: &Document<'_>, walked: &[Vec<AnnotatedLine<'_>>]) {
        self.heading("all processes, in time");
        let name = |section: usize| {
            let role = document.sections.get(section).map(|view| view.section.role);
            format!("{:<NAME_COLUMN$}", role.map_or("", Role::name))
        };
        let together = |one: &Step, next: &Step| match (one, next) {
            (Step::Line(one, _), Step::Line(next, _)) => one == next,
            _ => false,
        };
        for steps in in_time(document).chunk_by(together) {
            match *steps {
                [Step::End(section)] => {
                    if let Some(view) = document.sections.get(section) {
                        self.outcome(view, &name(section));
                    }
                }
                [Step::Line(section, first), ..] => {
                    let lines = walked.get(section).and_then(|seen| seen.get(first..first + steps.len()));
                    self.rows(lines.unwrap_or_default(), &name(section));
                }
                [..] => {}
            }
        }
    }

    fn rows(&mut self, seen: &[AnnotatedLine<'_>], name: &str) {
        for row in rows(seen) {
            match row {
                Row::Call(seen) => self.call(seen, name),
                Row::Search(attempts) => self.search(attempts, name),
            }
        }
    }

    fn outcome(&mut self, view: &SectionView<'_>, name: &str) {
        if view.outcome.is_empty() {
            return;
        }
        let kind = if view.fate == Fate::Failed { SpanKind::Error } else { SpanKind::Good };
        let spans = [span(name, SpanKind::Dim), span("=> ", SpanKind::Dim), span(view.outcome, kind)];
        self.line(INDENT, HANGING, &spans);
    }

    /// Writes the attempts to execute files that do not exist as one row, with the paths.
    fn search(&mut self, attempts: &[AnnotatedLine<'_>], name: &str) {
        let paths: Vec<String> = attempts
            .iter()
            .filter_map(|seen| match &seen.line.call {
                Call::Execve { path, .. } => Some(format!("\"{}\"", one_line(&path.0, usize::MAX))),
                _ => None,
            })
            .collect();
        let error = attempts.first().map_or_else(String::new, |seen| match seen.line.reply {
            Reply::Errno(errno) => errno.name().unwrap_or("an error").to_string(),
            _ => String::new(),
        });
        let spans = [
            span(name, SpanKind::Dim),
            span("execve", SpanKind::Call),
            span(format!(" of {} files = -1 ", attempts.len()), SpanKind::Plain),
            span(error, SpanKind::Error),
            span(": ", SpanKind::Plain),
            span(paths.join(" "), SpanKind::Quoted),
        ];
        let reason = attempts.first().and_then(remark);
        self.with_reason(spans.to_vec(), reason);
    }

    fn call(&mut self, seen: &AnnotatedLine<'_>, name: &str) {
        let mut spans = call_spans(seen.line);
        if !name.is_empty() {
            spans.insert(0, span(name, SpanKind::Dim));
        }
        self.with_reason(spans, remark(seen));
    }

    fn with_reason(&mut self, mut spans: Vec<Span>, reason: Option<(String, SpanKind)>) {
        let Some((reason, kind)) = reason else { return self.line(INDENT, HANGING, &spans) };
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
