//! Turns lines into entries, and matches each write with its read.

use std::collections::BTreeMap;
use std::string::{String, ToString};
use std::vec::Vec;

use super::super::steps::note;
use super::super::walk::{Channel, Object, Seen, born, walk};
use super::super::words::Word;
use super::super::{Document, Fate, Role};
use super::{Carried, What};
use crate::record::{Call, Reply};
use nsexec::sys::types::{Pid, Received, Signal};

/// The position of an entry: the index of its track, and its index there.
pub(super) type Place = (usize, usize);

/// One process.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) role: Role,
    /// The index of its section.
    pub(super) section: usize,
    pub(super) outcome: String,
    pub(super) fate: Fate,
    pub(super) acts: Vec<Act>,
}

#[derive(Debug)]
pub(super) struct Act {
    /// The index of its line.
    pub(super) line: usize,
    pub(super) deed: Deed,
}

/// The meaning of one line for the other tracks.
#[derive(Debug)]
pub(super) enum Deed {
    /// An event without an effect on others: a note, or a kill of the track with this index.
    Show(What, Option<usize>),
    /// A message, and the position of the entry that reads it.
    Send { what: What, reader: Option<Place> },
    /// A read of this many messages. Without a recorded sender, the read itself is shown as `orphan`.
    Receive { messages: usize, orphan: Option<What> },
    /// An end of file, emitted once these tracks have ended.
    EndOfFile(What, Vec<usize>),
    /// The creation of a process, and the index of its track.
    Fork(What, Option<usize>),
    /// The first entry of a process that another process created.
    Born,
    /// A wait for the end of the track with this index.
    Wait(usize),
    /// The last entry.
    End,
}

/// A range of bytes in a stream, and the position of the entry that writes or reads it.
struct Stretch {
    place: Place,
    start: usize,
    end: usize,
}

/// One direction of a channel. `true` means from the outer end.
type Stream = (Channel, bool);

#[derive(Default)]
struct Linker {
    lanes: Vec<Lane>,
    written: BTreeMap<Stream, Vec<Stretch>>,
    read: BTreeMap<Stream, Vec<Stretch>>,
    by_pid: BTreeMap<i32, usize>,
    /// The tracks that have read something. Their first read is the bootstrap message.
    reading: Vec<usize>,
}

/// Returns the tracks of the sections that have a role, in the order of their roles.
pub(super) fn lanes(document: &Document<'_>) -> Vec<Lane> {
    let mut order: Vec<(usize, Role, Vec<Seen<'_>>)> = Vec::new();
    for (index, seen) in walk(document).into_iter().enumerate() {
        let section = document.sections.get(index).and_then(|section| Role::of(section.name));
        order.extend(section.map(|role| (index, role, seen)));
    }
    order.sort_by_key(|(index, role, _)| (*role, *index));
    let mut linker = Linker::default();
    for (section, role, _) in &order {
        let known = document.sections.get(*section);
        linker.lanes.push(Lane {
            role: *role,
            section: *section,
            outcome: known.map_or_else(String::new, |known| known.outcome.to_string()),
            fate: known.map_or(Fate::Ended, |known| known.fate),
            acts: Vec::new(),
        });
    }
    // A launcher waits for processes that others create, so all pids are registered first.
    for seen in order.iter().flat_map(|(.., seen)| seen) {
        linker.number(seen);
    }
    for (lane, (.., seen)) in order.iter().enumerate() {
        for (line, seen) in seen.iter().enumerate() {
            linker.line(lane, line, seen);
        }
        linker.push(lane, seen.len(), Deed::End);
    }
    linker.link();
    linker.lanes
}

impl Linker {
    fn push(&mut self, lane: usize, line: usize, deed: Deed) {
        if let Some(lane) = self.lanes.get_mut(lane) {
            lane.acts.push(Act { line, deed });
        }
    }

    fn place(&self, lane: usize) -> Place {
        (lane, self.lanes.get(lane).map_or(0, |lane| lane.acts.len()))
    }

    /// Returns the track of a process, if its pid is known. All pids are those of the launcher's pid
    /// namespace, or of one that sees the same processes.
    fn lane_of(&self, pid: Pid) -> Option<usize> {
        self.by_pid.get(&pid.0).copied()
    }

    fn line(&mut self, lane: usize, index: usize, seen: &Seen<'_>) {
        let Some(role) = seen.context.role else { return };
        let first = self.place(lane).1 == 0;
        match (&seen.line.call, &seen.line.reply) {
            (_, Reply::Child) if first => self.push(lane, index, Deed::Born),
            (_, Reply::Parent(pid)) => self.fork(lane, index, seen, *pid),
            (Call::Wait4 { .. }, Reply::Waited(waited)) => {
                if let Some(target) = self.lane_of(waited.pid) {
                    self.push(lane, index, Deed::Wait(target));
                }
            }
            // Signal 0 only checks that the process exists.
            (Call::Kill { pid, signal: Signal::KILL }, Reply::Unit) => {
                if let Some(target) = self.lane_of(*pid) {
                    let to = self.lanes.get(target).map_or(role, |lane| lane.role);
                    self.push(lane, index, Deed::Show(What::Kill { from: role, to }, Some(target)));
                }
            }
            _ if seen.context.word.is_some() => self.transfer(lane, index, seen, role),
            (Call::ReceiveFd { .. }, Reply::Received(Received { byte: None, .. })) => {
                self.end_of_file(lane, index, seen, role);
            }
            (Call::Read { .. }, Reply::Data(data)) if data.0.is_empty() => {
                self.end_of_file(lane, index, seen, role);
            }
            _ => {}
        }
        if let Some(note) = note(seen) {
            self.push(lane, index, Deed::Show(What::Step { role, note }, None));
        }
    }

    /// Assigns the pid of a new process to the first track of its role without a pid.
    fn number(&mut self, seen: &Seen<'_>) {
        let (Some(child), Reply::Parent(pid)) = (born(seen.context.role, seen.line), &seen.line.reply) else {
            return;
        };
        let taken: Vec<usize> = self.by_pid.values().copied().collect();
        let is_free = |(index, lane): &(usize, &Lane)| lane.role == child && !taken.contains(index);
        if let Some((target, _)) = self.lanes.iter().enumerate().find(is_free) {
            self.by_pid.insert(pid.0, target);
        }
    }

    fn fork(&mut self, lane: usize, index: usize, seen: &Seen<'_>, pid: Pid) {
        let Some((parent, child)) = seen.context.role.zip(born(seen.context.role, seen.line)) else { return };
        let target = self.lane_of(pid);
        self.push(lane, index, Deed::Fork(What::Fork { parent, child }, target));
    }

    fn transfer(&mut self, lane: usize, index: usize, seen: &Seen<'_>, role: Role) {
        let context = &seen.context;
        let (Some(Object::End { channel, outer }), Some(word), Some(peer)) =
            (context.object.as_ref(), context.word.as_ref(), context.peer())
        else {
            return;
        };
        let carried = if *channel == Channel::Init { Carried::Init } else { Carried::Sync };
        let place = self.place(lane);
        let message = |from, to, lost| What::Message { from, to, carried, text: word.text(), lost };
        let (len, deed, streams) = match (&seen.line.call, &seen.line.reply) {
            (Call::Read { .. }, Reply::Data(data)) => {
                // The message may take several reads, of which only the first is shown.
                let first = !matches!(word, Word::Bootstrap(_)) || !self.reading.contains(&lane);
                self.reading.push(lane);
                let orphan = first.then(|| message(peer, role, false));
                (data.0.len(), Deed::Receive { messages: 0, orphan }, (&mut self.read, !outer))
            }
            (_, Reply::Received(_)) => {
                let orphan = Some(message(peer, role, false));
                (1, Deed::Receive { messages: 0, orphan }, (&mut self.read, !outer))
            }
            (_, reply) => {
                let sent = if let Reply::Count(count) = reply { *count } else { 0 };
                let known = self.lanes.iter().any(|lane| lane.role == peer);
                let what = message(role, peer, known || sent == 0);
                (sent, Deed::Send { what, reader: None }, (&mut self.written, *outer))
            }
        };
        let (streams, from_outer) = streams;
        let stretches = streams.entry((*channel, from_outer)).or_default();
        let start = stretches.last().map_or(0, |last| last.end);
        stretches.push(Stretch { place, start, end: start + len });
        self.push(lane, index, deed);
    }

    fn end_of_file(&mut self, lane: usize, index: usize, seen: &Seen<'_>, role: Role) {
        let Some(Object::End { channel, .. }) = seen.context.object else { return };
        let peers: Vec<usize> = match (channel, role) {
            (Channel::Init, Role::Launcher) => (0..self.lanes.len()).filter(|peer| *peer != lane).collect(),
            _ => {
                let is_peer =
                    |index: &usize| self.lanes.get(*index).map(|lane| lane.role) == seen.context.peer();
                (0..self.lanes.len()).filter(is_peer).collect()
            }
        };
        let gone = match seen.context.peer() {
            _ if role == Role::Launcher => "the stages are gone".to_string(),
            Some(peer) => std::format!("{} is gone", peer.name()),
            None => return,
        };
        let note = super::Note {
            mark: super::Mark::Failed,
            kinds: nsexec::namespace::NsSet::EMPTY,
            text: std::format!("end of file: {gone}"),
        };
        self.push(lane, index, Deed::EndOfFile(What::Step { role, note }, peers));
    }

    /// Matches the writes of each stream with their reads.
    fn link(&mut self) {
        for (stream, written) in core::mem::take(&mut self.written) {
            let reads = self.read.remove(&stream).unwrap_or_default();
            for read in &reads {
                // The sender was recorded, so the read is not shown on its own.
                if let Some(Deed::Receive { orphan, .. }) = self.deed(read.place) {
                    *orphan = None;
                }
            }
            for write in written.iter().filter(|write| write.end > write.start) {
                let taker = reads.iter().find(|read| read.start <= write.start && write.start < read.end);
                let Some(taker) = taker else { continue };
                if let Some(Deed::Send { what: What::Message { lost, .. }, reader }) = self.deed(write.place)
                {
                    (*lost, *reader) = (false, Some(taker.place));
                }
                if let Some(Deed::Receive { messages, .. }) = self.deed(taker.place) {
                    *messages += 1;
                }
            }
        }
    }

    fn deed(&mut self, (lane, act): Place) -> Option<&mut Deed> {
        self.lanes.get_mut(lane)?.acts.get_mut(act).map(|act| &mut act.deed)
    }
}
