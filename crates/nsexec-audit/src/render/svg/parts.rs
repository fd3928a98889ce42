//! The parts that the diagram and its footer share: the margin, the chip of a namespace, the names of marks.

use std::format;
use std::vec;

use super::super::events::Mark;
use super::measure::Font;
use super::shape::{Group, Rect, Shape, Text};
use nsexec::namespace::NsKind;

/// The margin of the picture.
pub(super) const MARGIN: i32 = 24;
const CHIP: Font = Font::Bold(11);
pub(super) const CHIP_HEIGHT: i32 = 18;

/// Returns the name of a mark in the style sheet.
pub(super) const fn class(mark: Mark) -> &'static str {
    match mark {
        Mark::Join => "join",
        Mark::Create | Mark::Enter => "create",
        Mark::Privacy => "privacy",
        Mark::Identity => "identity",
        Mark::Maps => "maps",
        Mark::Setup => "setup",
        Mark::Refused => "refused",
        Mark::Failed => "failed",
    }
}

pub(super) fn chip_width(kind: NsKind) -> i32 {
    CHIP.width(kind.name()) + 14
}

/// Draws a namespace with its name and colour: filled if it is created, outlined if it is joined.
pub(super) fn chip(group: &mut Group, kind: NsKind, joined: bool, (x, y): (i32, i32)) {
    let rect = Rect::new(x, y, chip_width(kind), CHIP_HEIGHT);
    let class = format!("kind {}{}", kind.name(), if joined { " joined" } else { "" });
    group.shapes.push(Shape::Box { rect, radius: 9, class });
    let text = Text::new(x + 7, y + 1, rect.w - 14, vec![(kind.name().into(), CHIP)]).centred();
    group.texts.push(text.class(if joined { "ink" } else { "onkind" }));
}
