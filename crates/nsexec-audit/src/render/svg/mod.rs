//! Renders a document as a self-contained SVG, with a light and a dark colour scheme.
//!
//! It loads no script, font or image. Text stays text, so it can be selected and searched. A title and a
//! description describe the picture to screen readers. A tooltip on each step shows the call itself.

mod bars;
mod footer;
mod layout;
mod measure;
mod parts;
mod shape;
#[cfg(test)]
mod tests;

use core::fmt::{self, Write};
use std::format;
use std::string::String;
use std::vec::Vec;

use super::Document;
use super::events::{Event, EventKind, events};
use nsexec::bootstrap::text::is_invisible;
use shape::{Group, Head, Layout, Shape, Text};

/// Returns the document as an SVG, with a newline at the end.
#[must_use]
pub fn svg(document: &Document<'_>) -> String {
    let events = events(document);
    let layout = layout::layout(document, &events);
    let mut out = String::new();
    // Writing into a string cannot fail.
    let _ = picture(&mut out, document, &events, &layout);
    out
}

fn picture(out: &mut String, document: &Document<'_>, events: &[Event], layout: &Layout) -> fmt::Result {
    let Layout { width, height, .. } = layout;
    writeln!(
        out,
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="graphics-document" aria-labelledby="title desc">"#
    )?;
    let title = if document.title.is_empty() { "Sequence diagram" } else { document.title };
    writeln!(out, r#"<title id="title">{}</title>"#, escaped(title))?;
    writeln!(out, r#"<desc id="desc">{}</desc>"#, escaped(&description(events)))?;
    writeln!(out, "<style>\n{}</style>", include_str!("style.css"))?;
    writeln!(out, r#"<rect class="page" width="{width}" height="{height}"/>"#)?;
    for group in &layout.groups {
        draw(out, group)?;
    }
    writeln!(out, "</svg>")
}

/// Describes the diagram in sentences.
fn description(events: &[Event]) -> String {
    let sentences: Vec<String> = events
        .iter()
        .map(|event| match &event.what {
            EventKind::Message { from, to, text, lost, .. } => {
                let lost = if *lost { ", which is not read" } else { "" };
                format!("{} to {}: {text}{lost}.", from.name(), to.name())
            }
            EventKind::Fork { parent, child } => format!("{} makes {}.", parent.name(), child.name()),
            EventKind::Step { role, note } => format!("{}: {}.", role.name(), note.text.replace('\n', " ")),
            EventKind::Kill { from, to } => format!("{} kills {}.", from.name(), to.name()),
            EventKind::End { role, outcome, .. } => format!("{}: {outcome}.", role.name()),
        })
        .collect();
    sentences.join("\n")
}

fn draw(out: &mut String, group: &Group) -> fmt::Result {
    if group.shapes.is_empty() && group.texts.is_empty() {
        return Ok(());
    }
    writeln!(out, "<g>")?;
    if let Some(hint) = &group.hint {
        writeln!(out, "<title>{}</title>", escaped(hint))?;
    }
    for shape in &group.shapes {
        match shape {
            Shape::Box { rect, radius, class } => {
                write!(out, r#"<rect class="{class}" x="{}" y="{}" "#, rect.x, rect.y)?;
                let round = if *radius > 0 { format!(r#" rx="{radius}""#) } else { String::new() };
                writeln!(out, r#"width="{}" height="{}"{round}/>"#, rect.w, rect.h)?;
            }
            Shape::Line { from, to, class, head } => line(out, *from, *to, class, *head)?,
        }
    }
    group.texts.iter().try_for_each(|text| words(out, text))?;
    writeln!(out, "</g>")
}

fn line(out: &mut String, from: (i32, i32), to: (i32, i32), class: &str, head: Head) -> fmt::Result {
    let (x, y) = to;
    let back = if from.0 <= x { -1 } else { 1 };
    // The line ends where its head begins, so that the tip is sharp.
    let stop = if head == Head::Arrow { x + back * 7 } else { x };
    writeln!(out, r#"<path class="{class}" d="M{} {}L{stop} {y}"/>"#, from.0, from.1)?;
    let solid = r#"stroke-dasharray="none""#;
    match head {
        Head::None => Ok(()),
        Head::Arrow => {
            let base = x + back * 9;
            let (up, down) = (y - 4, y + 4);
            writeln!(
                out,
                r#"<path class="{class}" style="stroke:none" d="M{x} {y}L{base} {up}L{base} {down}Z"/>"#
            )
        }
        Head::Dot => writeln!(out, r#"<circle class="{class}" {solid} cx="{x}" cy="{y}" r="4"/>"#),
        Head::Cross => {
            let (left, right, up, down) = (x - 5, x + 5, y - 5, y + 5);
            writeln!(
                out,
                r#"<path class="{class}" d="M{left} {up}L{right} {down}M{left} {down}L{right} {up}"/>"#
            )
        }
    }
}

fn words(out: &mut String, text: &Text) -> fmt::Result {
    let mut y = text.rect.y;
    for (line, font) in &text.lines {
        // The base line, so that the text is centred vertically in its line.
        let base = y + font.size();
        y += font.leading();
        let (x, anchor) =
            if text.centred { (text.rect.centre(), r#" text-anchor="middle""#) } else { (text.rect.x, "") };
        let family = match font {
            measure::Font::Sans(_) => "",
            measure::Font::Bold(_) => " bold",
            measure::Font::Mono(_) => " mono",
        };
        let (class, size) = (text.class, font.size());
        writeln!(
            out,
            r#"<text class="{class}{family}" x="{x}" y="{base}" font-size="{size}"{anchor}>{}</text>"#,
            escaped(line)
        )?;
    }
    Ok(())
}

/// Escapes text for XML: markup becomes entities, and characters that XML forbids are replaced.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' => out.push(c),
            c if is_invisible(c) || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}
