//! Merges the tracks into one order: each track runs until it has to wait for another.

use std::collections::BTreeMap;
use std::vec;
use std::vec::Vec;

use super::tracks::{Action, Entry, Place, Track};
use super::{Event, EventKind};
use crate::transcript::Role;

struct Merger {
    tracks: Vec<Track>,
    /// The index of the next entry of each track.
    next: Vec<usize>,
    /// The number of messages delivered to each receiving entry.
    delivered: BTreeMap<Place, usize>,
    started: Vec<bool>,
    events: Vec<Event>,
}

pub(super) fn merge(tracks: Vec<Track>) -> Vec<Event> {
    let count = tracks.len();
    // A track that no other track creates may begin at once.
    let mut started = vec![true; count];
    for entry in tracks.iter().flat_map(|track| &track.entries) {
        if let Action::Fork(_, Some(child)) = entry.action {
            if let Some(started) = started.get_mut(child) {
                *started = false;
            }
        }
    }
    let mut merger =
        Merger { tracks, next: vec![0; count], delivered: BTreeMap::new(), started, events: Vec::new() };
    let mut current = 0;
    loop {
        let ready = |track: &usize| merger.is_ready(*track);
        let chosen = Some(current).filter(ready).or_else(|| (0..count).find(ready));
        // In a run with failures, the tracks may wait for each other in a circle. Then one of them is
        // advanced anyway.
        let Some(track) = chosen.or_else(|| merger.first_stuck()) else { break };
        current = merger.advance(track);
    }
    merger.events
}

impl Merger {
    fn entry(&self, track: usize) -> Option<&Entry> {
        self.tracks.get(track)?.entries.get(self.position(track))
    }

    fn position(&self, track: usize) -> usize {
        self.next.get(track).copied().unwrap_or(usize::MAX)
    }

    /// Returns whether only the track's end is left.
    fn is_over(&self, track: usize) -> bool {
        self.entry(track).is_none_or(|entry| matches!(entry.action, Action::End))
    }

    fn is_ready(&self, track: usize) -> bool {
        let Some(entry) = self.entry(track) else { return false };
        match &entry.action {
            Action::Show(..) | Action::Fork(..) | Action::Send { reader: None, .. } => true,
            Action::Send { reader: Some((reader, entry)), .. } => self.position(*reader) >= *entry,
            Action::Receive { messages, .. } => {
                let place = (track, self.position(track));
                self.delivered.get(&place).copied().unwrap_or(0) >= *messages
            }
            Action::EndOfFile(_, peers) => peers.iter().all(|peer| self.is_over(*peer)),
            Action::Started => self.started.get(track).copied().unwrap_or(true),
            Action::Wait(target) => self.is_over(*target),
            Action::End => !self.is_awaited(track),
        }
    }

    /// Returns whether another track still has to wait for this one, or to kill it.
    fn is_awaited(&self, track: usize) -> bool {
        let concerns = |entry: &Entry| matches!(entry.action, Action::Wait(target) | Action::Show(_, Some(target)) if target == track);
        (0..self.tracks.len()).any(|other| {
            let entries = self.tracks.get(other).map_or(&[][..], |track| &track.entries);
            entries.iter().skip(self.position(other)).any(concerns)
        })
    }

    /// Chooses a track if none is ready. Sends come first: a delivered message may make its reader ready.
    fn first_stuck(&self) -> Option<usize> {
        let all = || (0..self.tracks.len()).filter(|track| self.entry(*track).is_some());
        let sends = |track: &usize| {
            self.entry(*track).is_some_and(|entry| matches!(entry.action, Action::Send { .. }))
        };
        all().find(sends).or_else(|| all().find(|track| !self.is_over(*track))).or_else(|| all().next())
    }

    /// Emits the next entry of a track. Returns the track that should run next.
    fn advance(&mut self, track: usize) -> usize {
        let Some(entry) = self.entry(track) else { return track };
        let line = entry.line;
        let mut go_on = track;
        match &entry.action {
            Action::Show(what, _)
            | Action::EndOfFile(what, _)
            | Action::Receive { orphan: Some(what), .. } => {
                let what = what.clone();
                self.show(track, line, what);
            }
            Action::Receive { .. } | Action::Started => {}
            Action::Send { what, reader } => {
                let (what, reader) = (what.clone(), *reader);
                self.show(track, line, what);
                go_on = reader.map_or(track, |reader| self.deliver(reader));
            }
            Action::Fork(what, child) => {
                let (what, child) = (what.clone(), *child);
                if let (EventKind::Fork { child: Role::Stage(2), parent: Role::Launcher }, Some(child)) =
                    (&what, child)
                {
                    // Its clone already changes the namespaces of this child, so its note comes next.
                    go_on = child;
                }
                self.show(track, line, what);
                if let Some(started) = child.and_then(|child| self.started.get_mut(child)) {
                    *started = true;
                }
            }
            Action::Wait(target) => {
                let target = *target;
                let reaper = self.tracks.get(track).map(|track| track.role);
                if self.is_over(target) {
                    self.end(target, reaper);
                }
            }
            Action::End => {
                self.end(track, None);
                return track;
            }
        }
        self.step(track);
        go_on
    }

    fn step(&mut self, track: usize) {
        if let Some(next) = self.next.get_mut(track) {
            *next = next.saturating_add(1);
        }
    }

    fn deliver(&mut self, reader: Place) -> usize {
        *self.delivered.entry(reader).or_default() += 1;
        reader.0
    }

    fn end(&mut self, track: usize, reaper: Option<Role>) {
        let Some(ending) = self.tracks.get(track) else { return };
        if self.position(track) >= ending.entries.len() {
            return;
        }
        let what =
            EventKind::End { role: ending.role, outcome: ending.outcome.clone(), fate: ending.fate, reaper };
        self.events.push(Event { what, source: None });
        self.step(track);
    }

    fn show(&mut self, track: usize, line: usize, what: EventKind) {
        let source = self.tracks.get(track).map(|track| (track.section, line));
        self.events.push(Event { what, source });
    }
}
