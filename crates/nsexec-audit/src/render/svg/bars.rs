//! The bars on the lifelines: each lasts from a process's start to its end, in the colours of its namespaces.

use std::collections::BTreeMap;
use std::format;
use std::string::ToString;
use std::vec::Vec;

use super::super::events::{Mark, Note};
use super::shape::{Rect, Shape};
use crate::transcript::Role;
use nsexec::namespace::{NsKind, NsSet};

/// A change at `y`: from there on the process is in these namespaces, besides its inherited ones.
#[derive(Clone, Copy, Debug)]
struct Change {
    y: i32,
    kinds: NsSet,
}

#[derive(Clone, Debug)]
struct Bar {
    changes: Vec<Change>,
    /// The namespaces of its future children. New pid and time namespaces apply to children only.
    of_children: NsSet,
    end: Option<i32>,
}

#[derive(Debug, Default)]
pub(super) struct Bars(BTreeMap<Role, Vec<Bar>>);

impl Bars {
    /// The width of one colour.
    const STRIPE: i32 = 5;
    /// The width of a bar without a colour.
    const PLAIN: i32 = 8;
    /// The width of a bar with all eight colours.
    pub(super) const WIDEST: i32 = 8 * Self::STRIPE;

    pub(super) fn begin(&mut self, role: Role, parent: Option<Role>, y: i32) {
        let kinds = parent.and_then(|parent| self.last(parent)).map_or(NsSet::EMPTY, |bar| bar.of_children);
        let bar = Bar { changes: [Change { y, kinds }].to_vec(), of_children: kinds, end: None };
        self.0.entry(role).or_default().push(bar);
    }

    pub(super) fn end(&mut self, role: Role, y: i32) {
        if let Some(bar) = self.last_mut(role) {
            bar.end = bar.end.or(Some(y));
        }
    }

    /// Records a step that changes the namespaces of a process.
    pub(super) fn change(&mut self, role: Role, note: &Note, y: i32) {
        let own = match note.mark {
            Mark::Enter => note.kinds,
            Mark::Join | Mark::Create => note.kinds.without(NsKind::Pid).without(NsKind::Time),
            _ => return,
        };
        let Some(bar) = self.last_mut(role) else { return };
        let union = |one: NsSet, other: NsSet| other.iter().fold(one, NsSet::with);
        bar.of_children = union(bar.of_children, note.kinds);
        let kinds = union(bar.changes.last().map_or(NsSet::EMPTY, |last| last.kinds), own);
        bar.changes.push(Change { y, kinds });
    }

    /// Returns half of the current width of this process's bar.
    pub(super) fn half(&self, role: Role) -> i32 {
        let bar = self.last(role).filter(|bar| bar.end.is_none());
        bar.and_then(|bar| bar.changes.last()).map_or(0, |last| width(last.kinds) / 2)
    }

    pub(super) fn shapes(&self, role: Role, x: i32, bottom: i32) -> Vec<Shape> {
        let mut shapes = Vec::new();
        for bar in self.0.get(&role).into_iter().flatten() {
            let end = bar.end.unwrap_or(bottom);
            for (index, change) in bar.changes.iter().enumerate() {
                let until = bar.changes.get(index + 1).map_or(end, |next| next.y);
                shapes.extend(stripes(change.kinds, x, change.y, until));
            }
        }
        shapes
    }

    fn last(&self, role: Role) -> Option<&Bar> {
        self.0.get(&role)?.last()
    }

    fn last_mut(&mut self, role: Role) -> Option<&mut Bar> {
        self.0.get_mut(&role)?.last_mut()
    }
}

fn width(kinds: NsSet) -> i32 {
    i32::try_from(kinds.len()).map_or(Bars::PLAIN, |count| (count * Bars::STRIPE).max(Bars::PLAIN))
}

fn stripes(kinds: NsSet, x: i32, top: i32, bottom: i32) -> Vec<Shape> {
    let height = (bottom - top).max(0);
    let whole = Rect::new(x - width(kinds) / 2, top, width(kinds), height);
    let mut shapes = Vec::new();
    if kinds.is_empty() {
        shapes.push(Shape::Box { rect: whole, radius: 2, class: "bar".to_string() });
    }
    let count = i32::try_from(kinds.len()).unwrap_or(1).max(1);
    for (index, kind) in (0..).zip(kinds.iter()) {
        let left = whole.x + whole.w * index / count;
        let right = whole.x + whole.w * (index + 1) / count;
        let rect = Rect::new(left, top, right - left, height);
        shapes.push(Shape::Box { rect, radius: 0, class: format!("band {}", kind.name()) });
    }
    shapes
}
