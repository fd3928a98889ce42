//! Merges the tracks into one order: each track runs until it has to wait for another.

use std::collections::BTreeMap;
use std::vec;
use std::vec::Vec;

use super::lanes::{Act, Deed, Lane, Place};
use super::{Event, What};
use crate::render::Role;

struct Loom {
    lanes: Vec<Lane>,
    /// The index of the next entry of each track.
    next: Vec<usize>,
    /// The number of messages delivered to each receiving entry.
    brought: BTreeMap<Place, usize>,
    born: Vec<bool>,
    events: Vec<Event>,
}

pub(super) fn weave(lanes: Vec<Lane>) -> Vec<Event> {
    let count = lanes.len();
    // A track that no other track creates may begin at once.
    let mut born = vec![true; count];
    for act in lanes.iter().flat_map(|lane| &lane.acts) {
        if let Deed::Fork(_, Some(child)) = act.deed {
            if let Some(born) = born.get_mut(child) {
                *born = false;
            }
        }
    }
    let mut loom = Loom { lanes, next: vec![0; count], brought: BTreeMap::new(), born, events: Vec::new() };
    let mut current = 0;
    loop {
        let ready = |lane: &usize| loom.is_ready(*lane);
        let chosen = Some(current).filter(ready).or_else(|| (0..count).find(ready));
        // In a run with failures, the tracks may wait for each other in a circle. Then one of them is
        // advanced anyway.
        let Some(lane) = chosen.or_else(|| loom.first_stuck()) else { break };
        current = loom.advance(lane);
    }
    loom.events
}

impl Loom {
    fn act(&self, lane: usize) -> Option<&Act> {
        self.lanes.get(lane)?.acts.get(self.position(lane))
    }

    fn position(&self, lane: usize) -> usize {
        self.next.get(lane).copied().unwrap_or(usize::MAX)
    }

    /// Returns whether only the track's end is left.
    fn is_over(&self, lane: usize) -> bool {
        self.act(lane).is_none_or(|act| matches!(act.deed, Deed::End))
    }

    fn is_ready(&self, lane: usize) -> bool {
        let Some(act) = self.act(lane) else { return false };
        match &act.deed {
            Deed::Show(..) | Deed::Fork(..) | Deed::Send { reader: None, .. } => true,
            Deed::Send { reader: Some((reader, act)), .. } => self.position(*reader) >= *act,
            Deed::Receive { messages, .. } => {
                let place = (lane, self.position(lane));
                self.brought.get(&place).copied().unwrap_or(0) >= *messages
            }
            Deed::EndOfFile(_, peers) => peers.iter().all(|peer| self.is_over(*peer)),
            Deed::Born => self.born.get(lane).copied().unwrap_or(true),
            Deed::Wait(target) => self.is_over(*target),
            Deed::End => !self.is_awaited(lane),
        }
    }

    /// Returns whether another track still has to wait for this one, or to kill it.
    fn is_awaited(&self, lane: usize) -> bool {
        let concerns = |act: &Act| matches!(act.deed, Deed::Wait(target) | Deed::Show(_, Some(target)) if target == lane);
        (0..self.lanes.len()).any(|other| {
            let acts = self.lanes.get(other).map_or(&[][..], |lane| &lane.acts);
            acts.iter().skip(self.position(other)).any(concerns)
        })
    }

    /// Chooses a track if none is ready. Sends come first: a delivered message may make its reader ready.
    fn first_stuck(&self) -> Option<usize> {
        let all = || (0..self.lanes.len()).filter(|lane| self.act(*lane).is_some());
        let sends = |lane: &usize| self.act(*lane).is_some_and(|act| matches!(act.deed, Deed::Send { .. }));
        all().find(sends).or_else(|| all().find(|lane| !self.is_over(*lane))).or_else(|| all().next())
    }

    /// Emits the next entry of a track. Returns the track that should run next.
    fn advance(&mut self, lane: usize) -> usize {
        let Some(act) = self.act(lane) else { return lane };
        let line = act.line;
        let mut go_on = lane;
        match &act.deed {
            Deed::Show(what, _) | Deed::EndOfFile(what, _) | Deed::Receive { orphan: Some(what), .. } => {
                let what = what.clone();
                self.show(lane, line, what);
            }
            Deed::Receive { .. } | Deed::Born => {}
            Deed::Send { what, reader } => {
                let (what, reader) = (what.clone(), *reader);
                self.show(lane, line, what);
                go_on = reader.map_or(lane, |reader| self.bring(reader));
            }
            Deed::Fork(what, child) => {
                let (what, child) = (what.clone(), *child);
                self.show(lane, line, what);
                if let Some(born) = child.and_then(|child| self.born.get_mut(child)) {
                    *born = true;
                }
            }
            Deed::Wait(target) => {
                let target = *target;
                let reaper = self.lanes.get(lane).map(|lane| lane.role);
                if self.is_over(target) {
                    self.end(target, reaper);
                }
            }
            Deed::End => {
                self.end(lane, None);
                return lane;
            }
        }
        self.step(lane);
        go_on
    }

    fn step(&mut self, lane: usize) {
        if let Some(next) = self.next.get_mut(lane) {
            *next = next.saturating_add(1);
        }
    }

    fn bring(&mut self, reader: Place) -> usize {
        *self.brought.entry(reader).or_default() += 1;
        reader.0
    }

    fn end(&mut self, lane: usize, reaper: Option<Role>) {
        let Some(ending) = self.lanes.get(lane) else { return };
        if self.position(lane) >= ending.acts.len() {
            return;
        }
        let what =
            What::End { role: ending.role, outcome: ending.outcome.clone(), fate: ending.fate, reaper };
        self.events.push(Event { what, source: None });
        self.step(lane);
    }

    fn show(&mut self, lane: usize, line: usize, what: What) {
        let source = self.lanes.get(lane).map(|lane| (lane.section, line));
        self.events.push(Event { what, source });
    }
}
