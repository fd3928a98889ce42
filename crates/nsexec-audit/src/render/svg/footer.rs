//! The part below the diagram: the legend, the assumptions, the pid line, the log, and the findings of the
//! rules.

use std::format;
use std::string::String;
use std::vec;
use std::vec::Vec;

use super::super::Document;
use super::super::events::{Event, EventKind, Mark, PipeKind};
use super::measure::Font;
use super::parts::{MARGIN, chip, chip_width, class};
use super::shape::{Group, Head, Layout, Rect, Shape, Text};
use nsexec::namespace::{NsKind, NsSet};

const SMALL: Font = Font::Sans(11);
const DATA: Font = Font::Mono(11);
const ROW: i32 = 24;

/// The maximum number of lines of a list: a diagram is not a log viewer.
const SOME: usize = 12;

/// Explains the bars.
const COLOURS: &str = "A bar has the colours of the namespaces that its process is in. Creating a pid or time namespace does not move the creator into it.";

/// An entry of the legend: a sample with its caption.
enum Entry {
    Chip(NsKind, bool),
    Line(&'static str, Head, &'static str),
    Mark(Mark, &'static str),
}

pub(super) fn footer(document: &Document<'_>, events: &[Event], top: i32, width: i32) -> Layout {
    let mut page = Page { y: top, width, groups: Vec::new() };
    page.rule();
    page.legend(&entries(events));
    let facts: Vec<String> =
        document.assumptions.iter().map(|fact| format!("{}: {}", fact.key, fact.value)).collect();
    let facts: Vec<&str> = facts.iter().map(String::as_str).collect();
    // All assumptions are listed, since the hash covers them all. There is one for each joined namespace.
    page.list("Assumptions", &facts, SMALL, 40);
    page.list("Pid line", document.pid_line.as_slice(), DATA, SOME);
    page.list("Log", document.log, DATA, SOME);
    page.list("Rules", document.findings, SMALL, SOME);
    Layout { width, height: page.y + MARGIN - 10, groups: page.groups }
}

/// Returns legend entries only for elements that occur in the picture.
fn entries(events: &[Event]) -> Vec<Entry> {
    let mut entries = Vec::new();
    let all = |mark: Mark| {
        let notes = events.iter().filter_map(|event| match &event.what {
            EventKind::Step { note, .. } if note.mark == mark => Some(note.kinds),
            _ => None,
        });
        notes.flat_map(|kinds| kinds.iter().collect::<Vec<_>>()).collect::<NsSet>()
    };
    let created = all(Mark::Enter).iter().fold(all(Mark::Create), NsSet::with);
    entries.extend(created.iter().map(|kind| Entry::Chip(kind, false)));
    entries.extend(all(Mark::Join).iter().map(|kind| Entry::Chip(kind, true)));
    let has = |wanted: fn(&EventKind) -> bool| events.iter().any(|event| wanted(&event.what));
    let lines: [(bool, Entry); 5] = [
        (has(|what| matches!(what, EventKind::Fork { .. })), Entry::Line("fork", Head::Dot, "a new process")),
        (
            has(|what| matches!(what, EventKind::Message { pipe: PipeKind::Init, .. })),
            Entry::Line("init", Head::Arrow, "on the init pipe"),
        ),
        (
            has(|what| matches!(what, EventKind::Message { pipe: PipeKind::Sync, .. })),
            Entry::Line("sync", Head::Arrow, "on a sync pipe"),
        ),
        (
            has(|what| matches!(what, EventKind::End { reaper: Some(_), .. })),
            Entry::Line("ends", Head::Arrow, "ends, and is reaped"),
        ),
        (
            has(|what| matches!(what, EventKind::Message { lost: true, .. })),
            Entry::Line("lost", Head::Cross, "not read"),
        ),
    ];
    entries.extend(lines.into_iter().filter_map(|(shown, entry)| shown.then_some(entry)));
    let marks = [
        (Mark::Privacy, "access to the process"),
        (Mark::Identity, "ids and session"),
        (Mark::Maps, "written to /proc"),
        (Mark::Setup, "other steps"),
        (Mark::Refused, "refused, and continued"),
        (Mark::Failed, "failed"),
    ];
    let marked = |mark: Mark| {
        events.iter().any(|event| matches!(&event.what, EventKind::Step { note, .. } if note.mark == mark))
    };
    entries.extend(
        marks.into_iter().filter(|(mark, _)| marked(*mark)).map(|(mark, text)| Entry::Mark(mark, text)),
    );
    entries
}

struct Page {
    y: i32,
    width: i32,
    groups: Vec<Group>,
}

impl Page {
    fn rule(&mut self) {
        let line = Shape::Line {
            from: (MARGIN, self.y),
            to: (self.width - MARGIN, self.y),
            class: "rule",
            head: Head::None,
        };
        self.groups.push(Group { shapes: vec![line], ..Group::default() });
        self.y += 12;
    }

    /// Draws the legend from left to right. A full row continues in a new one, and each kind of entry begins
    /// a row.
    fn legend(&mut self, entries: &[Entry]) {
        let mut group = Group::default();
        let mut x = MARGIN;
        let mut family = None;
        for entry in entries {
            let (own, caption, wide) = match entry {
                Entry::Chip(kind, joined) => ((0, *joined), "", chip_width(*kind)),
                Entry::Line(_, _, text) => ((1, false), *text, 44 + SMALL.width(text)),
                Entry::Mark(_, text) => ((2, false), *text, 14 + SMALL.width(text)),
            };
            let starts = family != Some(own);
            if family.is_some_and(|before: (i32, bool)| before.0 != own.0) || x + wide > self.width - MARGIN {
                (x, self.y) = (MARGIN, self.y + ROW);
            }
            if starts && own.0 == 0 {
                let text = if own.1 { "joined" } else { "created" };
                x += if x > MARGIN { 16 } else { 0 };
                let caption = Text::new(x, self.y + 2, SMALL.width(text), vec![(text.into(), SMALL)]);
                x += caption.rect.w + 8;
                group.texts.push(caption.class("soft"));
            }
            family = Some(own);
            self.sample(&mut group, entry, caption, x);
            x += wide + 18;
            if matches!(entry, Entry::Chip(..)) {
                x -= 10;
            }
        }
        if !entries.is_empty() {
            self.y += ROW;
        }
        if entries.iter().any(|entry| matches!(entry, Entry::Chip(..))) {
            let lines = SMALL.wrap(COLOURS, self.width - 2 * MARGIN, 3);
            let lines = lines.into_iter().map(|line| (line, SMALL)).collect();
            let text = Text::new(MARGIN, self.y, self.width - 2 * MARGIN, lines).class("soft");
            self.y = text.rect.bottom() + 8;
            group.texts.push(text);
        }
        self.y += 6;
        self.groups.push(group);
    }

    fn sample(&self, group: &mut Group, entry: &Entry, caption: &str, x: i32) {
        let middle = self.y + 9;
        let text_x = match entry {
            Entry::Chip(kind, joined) => return chip(group, *kind, *joined, (x, self.y)),
            Entry::Line(class, head, _) => {
                group.shapes.push(Shape::Line {
                    from: (x, middle),
                    to: (x + 34, middle),
                    class,
                    head: *head,
                });
                x + 44
            }
            Entry::Mark(mark, _) => {
                let rect = Rect::new(x, self.y + 2, 4, 14);
                group.shapes.push(Shape::Box { rect, radius: 1, class: format!("stripe {}", class(*mark)) });
                x + 14
            }
        };
        let text = Text::new(text_x, self.y + 2, SMALL.width(caption), vec![(caption.into(), SMALL)]);
        group.texts.push(text.class("soft"));
    }

    fn list(&mut self, heading: &str, items: &[&str], font: Font, limit: usize) {
        let inner = self.width - 2 * MARGIN - 110;
        let lines: Vec<String> = items.iter().flat_map(|item| font.wrap(item, inner, 3)).collect();
        if lines.is_empty() {
            return;
        }
        let more = lines.len().saturating_sub(limit);
        let mut lines: Vec<(String, Font)> = lines.into_iter().take(limit).map(|line| (line, font)).collect();
        if more > 0 {
            lines.push((format!("… and {more} more"), SMALL));
        }
        let heading = Text::new(MARGIN, self.y, 100, vec![(heading.into(), Font::Bold(11))]);
        let text = Text::new(MARGIN + 110, self.y, inner, lines).class("ink");
        self.y = text.rect.bottom() + 10;
        self.groups.push(Group { texts: vec![heading, text], ..Group::default() });
    }
}
