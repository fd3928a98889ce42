//! The elements of a picture, with their geometry.

use std::string::String;
use std::vec::Vec;

use super::measure::Font;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Rect {
    pub(super) x: i32,
    pub(super) y: i32,
    pub(super) w: i32,
    pub(super) h: i32,
}

impl Rect {
    pub(super) const fn new(x: i32, y: i32, w: i32, h: i32) -> Self {
        Self { x, y, w, h }
    }

    pub(super) const fn centre(self) -> i32 {
        self.x + self.w / 2
    }

    pub(super) const fn bottom(self) -> i32 {
        self.y + self.h
    }

    /// Returns whether two rectangles overlap. Used by the test for overlapping elements.
    #[cfg(test)]
    pub(super) const fn meets(self, other: Self) -> bool {
        self.x < other.x + other.w
            && other.x < self.x + self.w
            && self.y < other.bottom()
            && other.y < self.bottom()
    }
}

/// Lines of text within a box.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Text {
    pub(super) rect: Rect,
    pub(super) lines: Vec<(String, Font)>,
    pub(super) class: &'static str,
    pub(super) centred: bool,
}

impl Text {
    /// Creates lines one below the other, in a box of the given width and of the lines' height.
    pub(super) fn new(x: i32, y: i32, w: i32, lines: Vec<(String, Font)>) -> Self {
        let h = lines.iter().map(|(_, font)| font.leading()).sum();
        Self { rect: Rect::new(x, y, w, h), lines, class: "ink", centred: false }
    }

    pub(super) fn class(self, class: &'static str) -> Self {
        Self { class, ..self }
    }

    pub(super) fn centred(self) -> Self {
        Self { centred: true, ..self }
    }
}

/// The shape of a line's end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Head {
    None,
    Arrow,
    Dot,
    Cross,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Shape {
    Box {
        rect: Rect,
        radius: i32,
        class: String,
    },
    /// A horizontal line, with its head at `to`.
    Line {
        from: (i32, i32),
        to: (i32, i32),
        class: &'static str,
        head: Head,
    },
}

/// Elements that belong together, with their tooltip.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Group {
    pub(super) hint: Option<String>,
    pub(super) shapes: Vec<Shape>,
    pub(super) texts: Vec<Text>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Layout {
    pub(super) width: i32,
    pub(super) height: i32,
    pub(super) groups: Vec<Group>,
}
