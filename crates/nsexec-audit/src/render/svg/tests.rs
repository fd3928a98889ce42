//! Geometry tests of the pictures: no element leaves its box, and no text overlaps another.

use std::string::String;
use std::vec::Vec;

use super::super::events::events;
use super::super::tests::samples;
use super::super::{Document, Fact, Fate, SectionView};
use super::layout::layout;
use super::measure::Font;
use super::shape::{Layout, Rect, Shape, Text};
use crate::transcript::{Role, Section};

fn check(layout: &Layout) {
    let canvas = Rect::new(0, 0, layout.width, layout.height);
    let inside =
        |rect: Rect| rect.x >= 0 && rect.y >= 0 && rect.x + rect.w <= canvas.w && rect.bottom() <= canvas.h;
    let texts: Vec<&Text> = layout.groups.iter().flat_map(|group| &group.texts).collect();
    for (index, text) in texts.iter().enumerate() {
        assert!(inside(text.rect), "{text:?}");
        for (line, font) in &text.lines {
            assert!(font.width(line) <= text.rect.w, "{line:?} is {} wide: {text:?}", font.width(line));
        }
        for other in &texts[..index] {
            assert!(!text.rect.meets(other.rect), "{text:?} lies on {other:?}");
        }
    }
    for group in &layout.groups {
        for shape in &group.shapes {
            match shape {
                Shape::Box { rect, .. } => assert!(inside(*rect), "{shape:?}"),
                Shape::Line { from, to, .. } => {
                    assert!(inside(Rect::new(from.0, from.1, 0, 0)) && inside(Rect::new(to.0, to.1, 0, 0)));
                }
            }
        }
    }
    // The notes and pills of different events: no box overlaps a text of another event.
    let notes = |shape: &Shape| match shape {
        Shape::Box { rect, class, .. } if class.starts_with("note") || class.starts_with("pill") => {
            Some(*rect)
        }
        _ => None,
    };
    for (index, group) in layout.groups.iter().enumerate() {
        for rect in group.shapes.iter().filter_map(notes) {
            for (other, foreign) in layout.groups.iter().enumerate() {
                for text in foreign.texts.iter().filter(|_| other != index) {
                    assert!(!rect.meets(text.rect), "{rect:?} lies on {text:?}");
                }
            }
            for text in &group.texts {
                assert!(text.rect.x >= rect.x && text.rect.x + text.rect.w <= rect.x + rect.w, "{text:?}");
                assert!(text.rect.y >= rect.y && text.rect.bottom() <= rect.bottom(), "{text:?}");
            }
        }
    }
}

#[test]
fn texts_stay_in_their_boxes_and_do_not_overlap() {
    for sample in samples() {
        sample.with(|document| check(&layout(document, &events(document))));
    }
}

#[test]
fn long_and_empty_texts_stay_in_their_boxes() {
    let long = "W".repeat(3000);
    let words = "a long assumption with many words ".repeat(50);
    for text in [long.as_str(), words.as_str(), ""] {
        let section = Section::new(Role::Stage(0));
        let view = SectionView { section: &section, outcome: text, fate: Fate::Failed };
        let document = Document {
            title: text,
            summary: &[Fact { key: text, value: text }],
            verdict: Some(text),
            hash: Some(text),
            shape: Some(text),
            assumptions: &[Fact { key: text, value: text }],
            sections: &[view],
            pid_line: Some(text),
            log: &[text, text],
            findings: &[text],
        };
        check(&layout(&document, &events(&document)));
    }
}

/// Thirty assumptions: a plan has fewer, even with a join of each kind and the policy.
#[test]
fn every_assumption_is_in_the_picture() {
    let keys: Vec<String> = (0..30).map(|number| std::format!("assumption {number}")).collect();
    let facts: Vec<Fact<'_>> = keys.iter().map(|key| Fact { key, value: "is so" }).collect();
    for sample in samples() {
        sample.with(|document| {
            let document = Document { assumptions: &facts, ..*document };
            let shown = layout(&document, &events(&document));
            let lines: Vec<&String> = shown
                .groups
                .iter()
                .flat_map(|group| &group.texts)
                .flat_map(|text| &text.lines)
                .map(|(line, _)| line)
                .collect();
            for key in &keys {
                assert!(lines.iter().any(|line| line.starts_with(key)), "{key}");
            }
        });
    }
}

#[test]
fn wrapped_text_is_complete_and_fits() {
    let font = Font::Mono(11);
    let path = "/run/user/1001/containers/a-long-name-of-a-container/namespaces/network and more";
    let lines = font.wrap(path, 120, 99);
    assert!(lines.iter().all(|line| font.width(line) <= 120), "{lines:?}");
    let joined: String = lines.concat();
    assert_eq!(joined.replace(' ', ""), path.replace(' ', ""));
    assert!(lines[0].ends_with('/'), "{lines:?}");
}
