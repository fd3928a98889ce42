//! Computes the positions: a column for each process, a row for each event, from top to bottom.
//!
//! Each row has its own height and contains one event, so elements cannot overlap. The label of an arrow is
//! placed in the gap beside its sender, even if the arrow passes other columns.

use std::format;
use std::string::{String, ToString};
use std::vec;
use std::vec::Vec;

use super::super::events::{Event, EventKind, Mark, Note, PipeKind};
use super::super::mermaid::{clone_word, columns, same};
use super::super::walk::{is_direct, is_through_child};
use super::super::{Document, Fact, Fate, SectionView};
use super::bars::Bars;
use super::measure::Font;
use super::parts::{CHIP_HEIGHT, MARGIN, chip, chip_width, class};
use super::shape::{Group, Head, Layout, Rect, Shape, Text};
use crate::transcript::Role;
use nsexec::namespace::NsKind;

/// The distance between the centres of two columns.
pub(super) const COLUMN: i32 = 220;
/// The maximum width of a note.
const NOTE: i32 = 212;
const LABEL: Font = Font::Sans(12);
const DATA: Font = Font::Mono(11);
const CHIP_GAP: i32 = 5;
/// The padding at the left and right of a note's text.
const PADDING: i32 = 13;
/// The maximum number of lines of a note, even for a long error message.
const NOTE_LINES: usize = 8;

/// The state of the layout. `y` is the top of the next row.
pub(super) struct Painter<'d> {
    document: &'d Document<'d>,
    roles: Vec<Role>,
    y: i32,
    bars: Bars,
    groups: Vec<Group>,
}

/// Lays out the whole picture.
pub(super) fn layout(document: &Document<'_>, events: &[Event]) -> Layout {
    let roles = columns(document, events);
    let columns = i32::try_from(roles.len()).unwrap_or(1);
    let width = 2 * MARGIN + columns * COLUMN;
    let mut painter = Painter { document, roles, y: MARGIN, bars: Bars::default(), groups: Vec::new() };
    painter.title(width);
    painter.heads();
    let top = painter.y;
    painter.y += 14;
    painter.begin();
    painter.events(events);
    painter.y += 10;
    let bottom = painter.y;
    let mut below = super::footer::footer(document, events, bottom + 12, width);
    let mut groups = vec![painter.lifelines(top, bottom)];
    groups.append(&mut painter.groups);
    groups.append(&mut below.groups);
    Layout { width, height: below.height, groups }
}

impl Painter<'_> {
    /// Returns the x coordinate of a column's centre.
    fn x(&self, role: Role) -> i32 {
        let index = self.roles.iter().position(|other| *other == role).unwrap_or(0);
        MARGIN + COLUMN / 2 + i32::try_from(index).unwrap_or(0) * COLUMN
    }

    fn title(&mut self, width: i32) {
        let inner = width - 2 * MARGIN;
        let mut lines = Vec::new();
        for line in Font::Bold(18).wrap(self.document.title, inner, 3) {
            lines.push((line, Font::Bold(18)));
        }
        let mut texts = vec![Text::new(MARGIN, self.y, inner, lines)];
        self.y = texts.first().map_or(self.y, |text| text.rect.bottom());
        let verdict = self.document.verdict.map(|value| Fact { key: "verdict", value });
        for fact in self.document.summary.iter().copied().chain(verdict) {
            let lines = LABEL.wrap(&format!("{}: {}", fact.key, fact.value), inner, 3);
            let lines = lines.into_iter().map(|line| (line, LABEL)).collect();
            let text = Text::new(MARGIN, self.y + 2, inner, lines).class("ink");
            self.y = text.rect.bottom();
            texts.push(text);
        }
        if let Some(hash) = self.document.hash {
            let lines = DATA.wrap(&format!("plan {hash}"), inner, 2);
            let lines = lines.into_iter().map(|line| (line, DATA)).collect();
            let text = Text::new(MARGIN, self.y + 2, inner, lines).class("soft");
            self.y = text.rect.bottom();
            texts.push(text);
        }
        if let Some(shape) = self.document.shape {
            let lines = LABEL.wrap(shape, inner, 3).into_iter().map(|line| (line, LABEL)).collect();
            let text = Text::new(MARGIN, self.y + 4, inner, lines).class("ink");
            self.y = text.rect.bottom();
            texts.push(text);
        }
        self.y += 14;
        self.groups.push(Group { texts, ..Group::default() });
    }

    fn heads(&mut self) {
        let mut group = Group::default();
        for role in &self.roles {
            let rect = Rect::new(self.x(*role) - 84, self.y, 168, 44);
            group.shapes.push(Shape::Box { rect, radius: 8, class: "head".into() });
            let name =
                Text::new(rect.x + 4, rect.y + 5, rect.w - 8, vec![(capital(role.name()), Font::Bold(13))]);
            let below =
                Text::new(rect.x + 4, rect.y + 23, rect.w - 8, vec![(role.caption().into(), Font::Sans(11))]);
            group.texts.push(name.centred());
            group.texts.push(below.class("soft").centred());
        }
        self.groups.push(group);
        self.y += 44;
    }

    /// Starts the bars of processes whose parent has no section.
    fn begin(&mut self) {
        let sections = self.document.sections.iter();
        let roles: Vec<Role> = sections.filter_map(SectionView::column).collect();
        let (direct, child) = (is_direct(self.document), is_through_child(self.document));
        for role in &roles {
            let parent = match role {
                Role::Stage(2) if direct => Some(Role::Launcher),
                Role::Stage(1) if child => Some(Role::Launcher),
                Role::Launcher | Role::Other(_) => None,
                Role::Stage(0) => Some(Role::Launcher),
                Role::Stage(number) => Some(Role::Stage(number - 1)),
                Role::Tool(_) => Some(Role::Stage(0)),
            };
            if parent.is_none_or(|parent| !roles.contains(&parent)) {
                self.bars.begin(*role, None, self.y);
            }
        }
    }

    fn events(&mut self, mut events: &[Event]) {
        while let Some((event, after)) = events.split_first() {
            events = after;
            let hint = self.hint(event);
            match &event.what {
                EventKind::Step { role, note } => {
                    let (others, after) = match note.mark {
                        // Such a note already lists all its namespaces, and an error message fills a note
                        // by itself.
                        Mark::Create | Mark::Enter | Mark::Failed => (Vec::new(), after),
                        mark => same(*role, mark, after),
                    };
                    let taken = events.len() - after.len();
                    let hints = events.iter().take(taken).filter_map(|event| self.hint(event));
                    let hints: Vec<String> = hint.into_iter().chain(hints).collect();
                    let hint = (!hints.is_empty()).then(|| hints.join("\n"));
                    events = after;
                    match note.mark {
                        Mark::Join => self.joins(*role, &[&[note], others.as_slice()].concat(), hint),
                        Mark::Create | Mark::Enter => self.creates(*role, note, hint),
                        _ => self.step(*role, note, &others, hint),
                    }
                }
                EventKind::Message { from, to, pipe, text, lost } => {
                    let class = match (lost, pipe) {
                        (true, _) => "lost",
                        (false, PipeKind::Init) => "init",
                        (false, PipeKind::Sync) => "sync",
                    };
                    let head = if *lost { Head::Cross } else { Head::Arrow };
                    self.arrow((*from, *to), text, class, head, hint);
                }
                EventKind::Fork { parent, child } => {
                    self.arrow((*parent, *child), clone_word(*parent, *child), "fork", Head::Dot, hint);
                    self.bars.begin(*child, Some(*parent), self.y - 12);
                }
                EventKind::Kill { from, to } => {
                    self.arrow((*from, *to), "SIGKILL", "lost", Head::Cross, hint);
                }
                EventKind::End { role, outcome, fate, reaper } => self.end(*role, outcome, *fate, *reaper),
            }
        }
    }

    /// Returns the call as a tooltip.
    fn hint(&self, event: &Event) -> Option<String> {
        let (section, line) = event.source?;
        let line = self.document.sections.get(section)?.section.lines.get(line)?.to_string();
        let short: String = line.chars().take(200).collect();
        Some(if short.len() < line.len() { format!("{short}…") } else { line })
    }

    /// Draws an arrow in its own row, with its label above it.
    fn arrow(
        &mut self,
        (from, to): (Role, Role),
        label: &str,
        class: &'static str,
        head: Head,
        hint: Option<String>,
    ) {
        let (start, goal) = (self.x(from), self.x(to));
        let side = if goal < start { -1 } else { 1 };
        // The label fits into the gap beside the sender, even if both bars have their maximum width.
        let room = COLUMN - 2 * Bars::WIDEST / 2 - 12;
        let left = if side > 0 { start } else { start - COLUMN };
        let lines = LABEL.wrap(label, room, 3).into_iter().map(|line| (line, LABEL)).collect();
        let text = Text::new(left + (COLUMN - room) / 2, self.y, room, lines).centred();
        let text = text.class(if class == "lost" { "bad" } else { "ink" });
        let y = text.rect.bottom() + 3;
        let gap = if head == Head::Arrow { 2 } else { 0 };
        let from = (start + side * self.bars.half(from), y);
        let to = (goal - side * (self.bars.half(to) + gap), y);
        let shapes = vec![Shape::Line { from, to, class, head }];
        self.groups.push(Group { hint, shapes, texts: vec![text] });
        self.y = y + 12;
    }

    /// Draws a note on its lifeline: the steps of a process, one below the other.
    fn step(&mut self, role: Role, note: &Note, others: &[&Note], hint: Option<String>) {
        let inner = NOTE - 2 * PADDING;
        let mut lines: Vec<(String, Font)> = Vec::new();
        for note in core::iter::once(note).chain(others.iter().copied()) {
            let (first, data) = note.text.split_once('\n').unwrap_or((&note.text, ""));
            lines.extend(LABEL.wrap(first, inner, NOTE_LINES).into_iter().map(|line| (line, LABEL)));
            lines.extend(DATA.wrap(data, inner, 3).into_iter().map(|line| (line, DATA)));
        }
        let widest = lines.iter().map(|(line, font)| font.width(line)).max().unwrap_or(0).max(20);
        let text = Text::new(self.x(role) - widest / 2, self.y + 6, widest, lines);
        let bottom = text.rect.bottom();
        let mut group = Group { hint, texts: vec![text], ..Group::default() };
        self.frame(&mut group, role, note.mark, widest, bottom);
        self.groups.push(group);
    }

    /// Draws a note with the created namespaces.
    fn creates(&mut self, role: Role, note: &Note, hint: Option<String>) {
        let kinds: Vec<NsKind> = note.kinds.iter().collect();
        let rows = rows(&kinds, NOTE - 2 * PADDING);
        let verb = note.text.strip_suffix(&note.kinds.to_string()).unwrap_or("").trim_end();
        let widest = rows.iter().map(|row| row_width(row)).max().unwrap_or(0).max(LABEL.width(verb));
        let left = self.x(role) - widest / 2;
        let text = Text::new(left, self.y + 6, widest, vec![(verb.into(), LABEL)]);
        let mut y = text.rect.bottom() + 4;
        let mut group = Group { hint, texts: vec![text], ..Group::default() };
        for row in rows {
            let mut x = left;
            for kind in row {
                chip(&mut group, kind, false, (x, y));
                x += chip_width(kind) + CHIP_GAP;
            }
            y += CHIP_HEIGHT + CHIP_GAP;
        }
        let middle = self.frame(&mut group, role, note.mark, widest, y - 2);
        self.groups.push(group);
        self.bars.change(role, note, middle);
    }

    /// Draws a note with the joined namespaces, in their order, each with its path.
    fn joins(&mut self, role: Role, notes: &[&Note], hint: Option<String>) {
        let verb = "joins";
        let kinds = notes.iter().flat_map(|note| note.kinds.iter());
        let column = kinds.map(chip_width).max().unwrap_or(0) + 8;
        let room = NOTE - 2 * PADDING - column;
        let paths: Vec<Vec<String>> = notes
            .iter()
            .map(|note| DATA.wrap(note.text.split_once('\n').map_or("", |(_, path)| path), room, 4))
            .collect();
        let longest = paths.iter().flatten().map(|line| DATA.width(line)).max().unwrap_or(0);
        let widest = (column + longest).max(LABEL.width(verb));
        let left = self.x(role) - widest / 2;
        let text = Text::new(left, self.y + 6, widest, vec![(verb.into(), LABEL)]);
        let mut y = text.rect.bottom() + 4;
        let mut group = Group { hint, texts: vec![text], ..Group::default() };
        for (note, path) in notes.iter().zip(paths) {
            for kind in note.kinds.iter() {
                chip(&mut group, kind, true, (left, y));
            }
            let lines = path.into_iter().map(|line| (line, DATA)).collect();
            let path = Text::new(left + column, y + 2, widest - column, lines).class("soft");
            y += (CHIP_HEIGHT + CHIP_GAP).max(path.rect.h + CHIP_GAP);
            if !path.lines.is_empty() {
                group.texts.push(path);
            }
        }
        let middle = self.frame(&mut group, role, Mark::Join, widest, y - 2);
        self.groups.push(group);
        for note in notes {
            self.bars.change(role, note, middle);
        }
    }

    /// Draws the frame of a note whose content is `inner` wide and ends at `bottom`. Returns the y coordinate
    /// of its centre, and moves `y` below it.
    fn frame(&mut self, group: &mut Group, role: Role, mark: Mark, inner: i32, bottom: i32) -> i32 {
        let width = inner + 2 * PADDING;
        let rect = Rect::new(self.x(role) - inner / 2 - PADDING, self.y, width, bottom + 6 - self.y);
        let stripe = Rect::new(rect.x + 4, rect.y + 5, 3, rect.h - 10);
        let name = class(mark);
        group.shapes.insert(0, Shape::Box { rect, radius: 6, class: format!("note {name}") });
        group.shapes.insert(1, Shape::Box { rect: stripe, radius: 1, class: format!("stripe {name}") });
        self.y = rect.bottom() + 10;
        rect.y + rect.h / 2
    }

    fn end(&mut self, role: Role, outcome: &str, fate: Fate, reaper: Option<Role>) {
        if let Some(reaper) = reaper {
            let class = if fate == Fate::Failed { "lost" } else { "ends" };
            let label = if outcome.is_empty() { "ends" } else { outcome };
            self.arrow((role, reaper), label, class, Head::Arrow, None);
            self.bars.end(role, self.y - 10);
            return;
        }
        if fate != Fate::Continues {
            self.bars.end(role, self.y);
        }
        if outcome.is_empty() {
            return;
        }
        let lines = LABEL.wrap(outcome, NOTE - 24, 3);
        let widest = lines.iter().map(|line| LABEL.width(line)).max().unwrap_or(0);
        let lines = lines.into_iter().map(|line| (line, LABEL)).collect();
        let text = Text::new(self.x(role) - widest / 2, self.y + 5, widest, lines).centred();
        let (text, class) = match fate {
            Fate::Failed => (text.class("bad"), "pill failed"),
            Fate::Ended => (text.class("soft"), "pill"),
            Fate::Continues => (text.class("good"), "pill"),
        };
        let rect = Rect::new(text.rect.x - 12, self.y, widest + 24, text.rect.h + 10);
        let shapes = vec![Shape::Box { rect, radius: 12, class: class.into() }];
        self.y = rect.bottom() + 10;
        self.groups.push(Group { hint: None, shapes, texts: vec![text] });
    }

    /// Returns the bottom layer: the lifelines with their bars.
    fn lifelines(&mut self, top: i32, bottom: i32) -> Group {
        let mut group = Group::default();
        for role in &self.roles {
            let x = self.x(*role);
            group.shapes.push(Shape::Line {
                from: (x, top),
                to: (x, bottom),
                class: "life",
                head: Head::None,
            });
        }
        for role in &self.roles {
            group.shapes.extend(self.bars.shapes(*role, self.x(*role), bottom));
        }
        group
    }
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().to_string() + chars.as_str())
}

fn row_width(row: &[NsKind]) -> i32 {
    row.iter().map(|kind| chip_width(*kind) + CHIP_GAP).sum::<i32>() - CHIP_GAP
}

/// Arranges chips in rows of at most `width`.
fn rows(kinds: &[NsKind], width: i32) -> Vec<Vec<NsKind>> {
    let mut rows: Vec<Vec<NsKind>> = Vec::new();
    for kind in kinds {
        match rows.last_mut() {
            Some(row) if row_width(row) + CHIP_GAP + chip_width(*kind) <= width => row.push(*kind),
            _ => rows.push(vec![*kind]),
        }
    }
    rows
}
