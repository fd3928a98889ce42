//! Turns lines into entries, and matches each write with its read.

use std::collections::BTreeMap;
use std::string::{String, ToString};
use std::vec::Vec;

use super::super::steps::note;
use super::super::walk::{AnnotatedLine, Channel, Object, created_in, walk};
use super::super::words::Payload;
use super::super::{Document, Fate, SectionView};
use super::{EventKind, PipeKind};
use crate::record::{Call, Reply};
use crate::transcript::Role;
use nsexec::sys::types::{Pid, Received, Signal};

/// The position of an entry: the index of its track, and its index there.
pub(super) type Place = (usize, usize);

/// One process.
#[derive(Debug)]
pub(super) struct Track {
    pub(super) role: Role,
    /// The index of its section.
    pub(super) section: usize,
    pub(super) outcome: String,
    pub(super) fate: Fate,
    pub(super) entries: Vec<Entry>,
}

#[derive(Debug)]
pub(super) struct Entry {
    /// The index of its line.
    pub(super) line: usize,
    pub(super) action: Action,
}

/// The meaning of one line for the other tracks.
#[derive(Debug)]
pub(super) enum Action {
    /// An event without an effect on others: a note, or a kill of the track with this index.
    Show(EventKind, Option<usize>),
    /// A message, and the position of the entry that reads it.
    Send { what: EventKind, reader: Option<Place> },
    /// A read of this many messages. Without a recorded sender, the read itself is shown as `orphan`.
    Receive { messages: usize, orphan: Option<EventKind> },
    /// An end of file, emitted once these tracks have ended.
    EndOfFile(EventKind, Vec<usize>),
    /// The creation of a process, and the index of its track.
    Fork(EventKind, Option<usize>),
    /// The first entry of a process that another process created.
    Started,
    /// A wait for the end of the track with this index.
    Wait(usize),
    /// The last entry.
    End,
}

/// A range of bytes in a stream, and the position of the entry that writes or reads it.
struct ByteRange {
    place: Place,
    start: usize,
    end: usize,
}

/// One direction of a channel. `true` means from the outer end.
type Stream = (Channel, bool);

#[derive(Default)]
struct Linker {
    tracks: Vec<Track>,
    written: BTreeMap<Stream, Vec<ByteRange>>,
    read: BTreeMap<Stream, Vec<ByteRange>>,
    by_pid: BTreeMap<i32, usize>,
    /// The tracks that have read something. Their first read is the bootstrap message.
    reading: Vec<usize>,
}

/// Returns the tracks of the sections that have a column, in the order of the columns.
pub(super) fn tracks(document: &Document<'_>) -> Vec<Track> {
    let mut order: Vec<(usize, Role, Vec<AnnotatedLine<'_>>)> = Vec::new();
    for (index, seen) in walk(document).into_iter().enumerate() {
        let role = document.sections.get(index).and_then(SectionView::column);
        order.extend(role.map(|role| (index, role, seen)));
    }
    order.sort_by_key(|(index, role, _)| (*role, *index));
    let mut linker = Linker::default();
    for (section, role, _) in &order {
        let known = document.sections.get(*section);
        linker.tracks.push(Track {
            role: *role,
            section: *section,
            outcome: known.map_or_else(String::new, |known| known.outcome.to_string()),
            fate: known.map_or(Fate::Ended, |known| known.fate),
            entries: Vec::new(),
        });
    }
    // A launcher waits for processes that others create, so all pids are registered first.
    for seen in order.iter().flat_map(|(.., seen)| seen) {
        linker.number(seen);
    }
    for (track, (.., seen)) in order.iter().enumerate() {
        for (line, seen) in seen.iter().enumerate() {
            linker.line(track, line, seen);
        }
        linker.push(track, seen.len(), Action::End);
    }
    linker.link();
    linker.tracks
}

/// Returns the column of the process that this line creates.
fn created(seen: &AnnotatedLine<'_>) -> Option<Role> {
    created_in(seen.context.attempt, seen.context.role, seen.line)
}

impl Linker {
    fn push(&mut self, track: usize, line: usize, action: Action) {
        if let Some(track) = self.tracks.get_mut(track) {
            track.entries.push(Entry { line, action });
        }
    }

    fn place(&self, track: usize) -> Place {
        (track, self.tracks.get(track).map_or(0, |track| track.entries.len()))
    }

    /// Returns the track of a process, if its pid is known. All pids are those of the launcher's pid
    /// namespace, or of one that sees the same processes.
    fn track_of(&self, pid: Pid) -> Option<usize> {
        self.by_pid.get(&pid.0).copied()
    }

    fn line(&mut self, track: usize, index: usize, seen: &AnnotatedLine<'_>) {
        let Some(role) = seen.context.role else { return };
        let first = self.place(track).1 == 0;
        match (&seen.line.call, &seen.line.reply) {
            (_, Reply::Child) if first => self.push(track, index, Action::Started),
            (_, Reply::Parent(pid) | Reply::ParentOfInit { pid, .. }) => {
                self.fork(track, index, seen, *pid);
            }
            (Call::Wait4 { .. }, Reply::Waited(waited)) => {
                if let Some(target) = self.track_of(waited.pid) {
                    self.push(track, index, Action::Wait(target));
                }
            }
            // Signal 0 only checks that the process exists.
            (Call::Kill { pid, signal: Signal::KILL }, Reply::Unit) => {
                if let Some(target) = self.track_of(*pid) {
                    let to = self.tracks.get(target).map_or(role, |track| track.role);
                    self.push(track, index, Action::Show(EventKind::Kill { from: role, to }, Some(target)));
                }
            }
            _ if seen.context.payload.is_some() => self.transfer(track, index, seen, role),
            (Call::ReceiveFd { .. }, Reply::Received(Received { byte: None, .. })) => {
                self.end_of_file(track, index, seen, role);
            }
            (Call::Read { .. }, Reply::Data(data)) if data.0.is_empty() => {
                self.end_of_file(track, index, seen, role);
            }
            _ => {}
        }
        if let Some(note) = note(seen) {
            self.push(track, index, Action::Show(EventKind::Step { role, note }, None));
        }
    }

    /// Assigns the pid of a new process to the first track of its role without a pid.
    fn number(&mut self, seen: &AnnotatedLine<'_>) {
        let (Some(child), Some(pid)) = (created(seen), seen.line.reply.child()) else {
            return;
        };
        let taken: Vec<usize> = self.by_pid.values().copied().collect();
        let is_free = |(index, track): &(usize, &Track)| track.role == child && !taken.contains(index);
        if let Some((target, _)) = self.tracks.iter().enumerate().find(is_free) {
            self.by_pid.insert(pid.0, target);
        }
    }

    fn fork(&mut self, track: usize, index: usize, seen: &AnnotatedLine<'_>, pid: Pid) {
        let Some((parent, child)) = seen.context.role.zip(created(seen)) else {
            return;
        };
        let target = self.track_of(pid);
        self.push(track, index, Action::Fork(EventKind::Fork { parent, child }, target));
    }

    fn transfer(&mut self, track: usize, index: usize, seen: &AnnotatedLine<'_>, role: Role) {
        let context = &seen.context;
        let (Some(Object::End { channel, outer }), Some(payload), Some(peer)) =
            (context.object.as_ref(), context.payload.as_ref(), context.peer())
        else {
            return;
        };
        let pipe = if *channel == Channel::Init { PipeKind::Init } else { PipeKind::Sync };
        let place = self.place(track);
        let message = |from, to, lost| EventKind::Message { from, to, pipe, text: payload.text(), lost };
        let (len, action, streams) = match (&seen.line.call, &seen.line.reply) {
            (Call::Read { .. }, Reply::Data(data)) => {
                // The message may take several reads, of which only the first is shown.
                let first = !matches!(payload, Payload::Bootstrap(_)) || !self.reading.contains(&track);
                self.reading.push(track);
                let orphan = first.then(|| message(peer, role, false));
                (data.0.len(), Action::Receive { messages: 0, orphan }, (&mut self.read, !outer))
            }
            (_, Reply::Received(_)) => {
                let orphan = Some(message(peer, role, false));
                (1, Action::Receive { messages: 0, orphan }, (&mut self.read, !outer))
            }
            (_, reply) => {
                let sent = if let Reply::Count(count) = reply { *count } else { 0 };
                let known = self.tracks.iter().any(|track| track.role == peer);
                let what = message(role, peer, known || sent == 0);
                (sent, Action::Send { what, reader: None }, (&mut self.written, *outer))
            }
        };
        let (streams, from_outer) = streams;
        let ranges = streams.entry((*channel, from_outer)).or_default();
        let start = ranges.last().map_or(0, |last| last.end);
        ranges.push(ByteRange { place, start, end: start + len });
        self.push(track, index, action);
    }

    fn end_of_file(&mut self, track: usize, index: usize, seen: &AnnotatedLine<'_>, role: Role) {
        let Some(Object::End { channel, .. }) = seen.context.object else { return };
        let peers: Vec<usize> = match (channel, role) {
            (Channel::Init, Role::Launcher) => (0..self.tracks.len()).filter(|peer| *peer != track).collect(),
            _ => {
                let is_peer =
                    |index: &usize| self.tracks.get(*index).map(|track| track.role) == seen.context.peer();
                (0..self.tracks.len()).filter(is_peer).collect()
            }
        };
        let gone = match seen.context.peer() {
            Some(Role::Stage(0)) if role == Role::Launcher => "the stages are gone".to_string(),
            Some(peer) => std::format!("{} is gone", peer.name()),
            None => return,
        };
        let note = super::Note {
            mark: super::Mark::Failed,
            kinds: nsexec::namespace::NsSet::EMPTY,
            text: std::format!("end of file: {gone}"),
        };
        self.push(track, index, Action::EndOfFile(EventKind::Step { role, note }, peers));
    }

    /// Matches the writes of each stream with their reads.
    fn link(&mut self) {
        for (stream, written) in core::mem::take(&mut self.written) {
            let reads = self.read.remove(&stream).unwrap_or_default();
            for read in &reads {
                // The sender was recorded, so the read is not shown on its own.
                if let Some(Action::Receive { orphan, .. }) = self.action(read.place) {
                    *orphan = None;
                }
            }
            for write in written.iter().filter(|write| write.end > write.start) {
                let taker = reads.iter().find(|read| read.start <= write.start && write.start < read.end);
                let Some(taker) = taker else { continue };
                if let Some(Action::Send { what: EventKind::Message { lost, .. }, reader }) =
                    self.action(write.place)
                {
                    (*lost, *reader) = (false, Some(taker.place));
                }
                if let Some(Action::Receive { messages, .. }) = self.action(taker.place) {
                    *messages += 1;
                }
            }
        }
    }

    fn action(&mut self, (track, entry): Place) -> Option<&mut Action> {
        self.tracks.get_mut(track)?.entries.get_mut(entry).map(|entry| &mut entry.action)
    }
}
