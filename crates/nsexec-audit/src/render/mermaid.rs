//! Renders a document as a mermaid sequence diagram.

use std::format;
use std::string::String;
use std::vec::Vec;

use super::events::{Event, EventKind, Mark, Note, PipeKind, events};
use super::walk::{is_direct, is_through_child};
use super::{COLUMNS, Document, Fate};
use crate::transcript::Role;
use nsexec::bootstrap::text::is_invisible;

/// Returns the document as the text of a `sequenceDiagram`, with a newline at the end.
#[must_use]
pub fn mermaid(document: &Document<'_>) -> String {
    let events = events(document);
    let mut out = String::from("sequenceDiagram\n");
    if !document.title.is_empty() {
        out = format!("---\ntitle: {}\n---\n{out}", front_matter(document.title));
    }
    for line in participants(document, &events) {
        out.push_str(&format!("    {line}\n"));
    }
    let (first, last) = (id(Role::Launcher), id(Role::Stage(2)));
    let summary = document.summary.iter().map(|fact| format!("{}: {}", fact.key, fact.value));
    let verdict = document.verdict.map(|verdict| format!("verdict: {verdict}"));
    let hash = document.hash.map(|hash| format!("plan {hash}"));
    let shape = document.shape.map(String::from);
    for line in summary.chain([verdict, hash, shape].into_iter().flatten()) {
        let line = &line;
        out.push_str(&format!("    Note over {first},{last}: {}\n", escaped(line)));
    }
    let mut made: Vec<Role> = Vec::new();
    let mut rest = events.as_slice();
    while let Some((event, after)) = rest.split_first() {
        rest = after;
        if let EventKind::Step { role, note } = &event.what {
            let (notes, after) = same(*role, note.mark, after);
            rest = after;
            out.push_str(&format!("    {}\n", note_line(*role, note, &notes)));
            continue;
        }
        for line in lines(&event.what, &mut made) {
            out.push_str(&format!("    {line}\n"));
        }
    }
    out
}

/// Splits off the steps of the same process and mark at the beginning: they share one note with the step
/// before them.
pub(super) fn same(role: Role, mark: Mark, mut events: &[Event]) -> (Vec<&Note>, &[Event]) {
    let mut notes = Vec::new();
    while let Some((Event { what: EventKind::Step { role: other, note }, .. }, after)) = events.split_first()
    {
        if *other != role || note.mark != mark {
            break;
        }
        notes.push(note);
        events = after;
    }
    (notes, events)
}

/// Returns the columns to draw: the launcher, the stages, and the tool if it is started. A direct start has
/// stage 2 only, and a start through a child has no stage 0.
pub(super) fn columns(document: &Document<'_>, events: &[Event]) -> Vec<Role> {
    let tool = events.iter().any(|event| matches!(event.what, EventKind::Fork { child: Role::Tool(_), .. }));
    let below_init = document.sections.iter().any(|view| view.section.role == Role::Stage(3));
    let (direct, child) = (is_direct(document), is_through_child(document));
    let is_drawn = |role: &Role| match role {
        Role::Stage(0) => !direct && !child,
        Role::Stage(1) => !direct,
        Role::Stage(3) => below_init,
        Role::Tool(_) => tool,
        _ => true,
    };
    COLUMNS.into_iter().filter(is_drawn).collect()
}

fn participants(document: &Document<'_>, events: &[Event]) -> Vec<String> {
    columns(document, events)
        .into_iter()
        .map(|role| format!("participant {} as {}", id(role), role.name()))
        .collect()
}

const fn id(role: Role) -> &'static str {
    match role {
        Role::Launcher => "L",
        Role::Stage(0) => "S0",
        Role::Stage(1) => "S1",
        Role::Stage(2) => "S2",
        Role::Stage(3) => "C",
        Role::Tool(_) => "T",
        // In no diagram.
        Role::Stage(_) | Role::Other(_) => "P",
    }
}

fn note_line(role: Role, first: &Note, others: &[&Note]) -> String {
    let texts = core::iter::once(first).chain(others.iter().copied()).map(|note| escaped(&note.text));
    let texts: Vec<String> = texts.collect();
    format!("Note over {}: {}", id(role), texts.join("<br/>"))
}

fn lines(what: &EventKind, made: &mut Vec<Role>) -> Vec<String> {
    match what {
        EventKind::Message { from, to, pipe, text, lost } => {
            let arrow = match (lost, pipe) {
                (true, _) => "-x",
                (false, PipeKind::Init) => "->>",
                (false, PipeKind::Sync) => "-->>",
            };
            std::vec![format!("{}{arrow}{}: {}", id(*from), id(*to), escaped(text))]
        }
        EventKind::Fork { parent, child } => {
            // Participants are declared in the order of their columns, so `create` is not used. A tool may
            // run twice, and mermaid does not allow a second `create`.
            made.push(*child);
            std::vec![
                format!("{}->>{}: {}", id(*parent), id(*child), clone_word(*parent, *child)),
                format!("activate {}", id(*child)),
            ]
        }
        EventKind::Kill { from, to } => std::vec![format!("{}-x{}: SIGKILL", id(*from), id(*to))],
        EventKind::End { role, outcome, fate, reaper } => end(*role, outcome, *fate, *reaper, made),
        EventKind::Step { .. } => Vec::new(),
    }
}

/// Returns the label of the arrow to a new process.
pub(super) const fn clone_word(parent: Role, child: Role) -> &'static str {
    match (parent, child) {
        (Role::Launcher, Role::Stage(0)) => "fork",
        _ => "clone",
    }
}

fn end(role: Role, outcome: &str, fate: Fate, reaper: Option<Role>, made: &mut Vec<Role>) -> Vec<String> {
    let mut lines = Vec::new();
    match reaper {
        Some(reaper) => lines.push(format!("{}-->>{}: {}", id(role), id(reaper), escaped(outcome))),
        None if outcome.is_empty() => {}
        None => lines.push(format!("Note over {}: {}", id(role), escaped(outcome))),
    }
    let active = made.iter().position(|made| *made == role);
    if let Some(index) = active.filter(|_| fate != Fate::Continues) {
        made.remove(index);
        lines.push(format!("deactivate {}", id(role)));
    }
    lines
}

/// Escapes text for mermaid: syntax characters become mermaid's entities, a newline becomes a break.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            ';' | '#' | '<' | '>' | '&' | '"' | '%' => out.push_str(&format!("#{};", u32::from(c))),
            '\n' => out.push_str("<br/>"),
            c if is_invisible(c) => out.push('?'),
            c => out.push(c),
        }
    }
    out
}

/// Quotes a title for the YAML front matter, so that it contains no YAML syntax.
fn front_matter(title: &str) -> String {
    let plain: String = title.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    format!("'{}'", plain.replace('\'', "''"))
}
