//! A sink that all processes of a run share. On the real kernel each process has its own memory after the
//! clone.
//!
//! The lines are in a memory that every fork inherits and shares (mmap(2), MAP_SHARED). Each process has a
//! part of it and is the only writer of that part, so the lines of one process are in order, and lines
//! survive when their process is killed. A line counts once it is complete: if a process is killed while it
//! writes a line, the reader does not see that line.
//!
//! A close is recorded before the call, with `"announced":true`. If it fails, its line with the errno
//! follows, and the reader drops the first one.
//!
//! The processes share only this memory. A process is identified by its position in the fork tree, and each
//! process counts its own children.
//!
//! Writing a line makes no system call. So neither a seccomp filter nor a limit of the command
//! (RLIMIT_FSIZE) can prevent it, and a witness sees no call of the recorder. The sink never blocks and never
//! returns an error. A line without room is lost and counted.
//!
//! A line is serialised into memory that was reserved before the first fork, and each process has its own
//! copy of it. So writing a line neither allocates memory nor takes a lock, and the program may have threads.
//! Only the parts of both memories that were used take up pages.

use core::num::NonZeroUsize;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::rc::Rc;
use std::vec::Vec;

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use serde::{Deserialize, Serialize};

use super::{Line, LineRef, Reply, ReplyRef, Sink};

/// The maximum number of bytes that one process may write. A process has about a hundred lines. The largest
/// line has 6 MiB: a message of the largest size, sent in one piece and escaped as six characters for each
/// byte.
pub const PROCESS_MAX: usize = 8 << 20;

/// The maximum number of processes of a run: launcher, three stages, two mapping tools, and two more. The
/// lines of any further process are lost.
const PROCESSES: usize = 8;

/// The maximum number of generations of processes after the first one. With more, the lines of the last ones
/// are lost.
const GENERATIONS: usize = PROCESSES - 1;

/// The length of the memory's first part, a multiple of the size of a page: the [`Head`].
const HEAD: usize = 64 << 10;

/// The beginning of the shared memory. The kernel fills a new memory with zeros.
#[repr(C)]
#[derive(Debug)]
struct Head {
    /// The number of processes that have a part of the memory.
    processes: AtomicUsize,
    /// The number of lost lines.
    lost: AtomicU64,
    /// The number of bytes of complete lines in each part.
    written: [AtomicUsize; PROCESSES],
}

/// The memory that the processes share: a [`Head`], and a part of [`PROCESS_MAX`] bytes for each process.
#[derive(Debug)]
struct Shared {
    start: NonNull<Head>,
}

impl Shared {
    const LENGTH: NonZeroUsize = NonZeroUsize::new(HEAD + PROCESSES * PROCESS_MAX).unwrap();

    /// Maps the memory. A page of it takes up memory once it is used.
    ///
    /// # Errors
    /// Those of mmap(2).
    fn new() -> io::Result<Self> {
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let flags = MapFlags::MAP_SHARED | MapFlags::MAP_NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let start = unsafe { mmap_anonymous(None, Self::LENGTH, protection, flags) }?;
        Ok(Self { start: start.cast() })
    }

    const fn head(&self) -> &Head {
        // SAFETY: the mapping lives as long as `self`, begins at a page, and is longer than a head. Zeros are
        // a valid head, and every process changes it by atomic operations alone.
        unsafe { self.start.as_ref() }
    }

    /// Takes a part for a new process. `None`: no part is left.
    fn take(&self) -> Option<usize> {
        let part = self.head().processes.fetch_add(1, Ordering::Relaxed);
        (part < PROCESSES).then_some(part)
    }

    /// Returns the address of a part.
    fn part(&self, part: usize) -> NonNull<u8> {
        debug_assert!(part < PROCESSES, "{part}");
        // SAFETY: the mapping has PROCESSES parts after its head.
        unsafe { self.start.cast::<u8>().add(HEAD + part * PROCESS_MAX) }
    }

    /// Adds a line to the part of this process, if it has at most `limit` bytes then. Returns whether it did.
    fn append(&self, part: usize, line: &[u8], limit: usize) -> bool {
        let Some(written) = self.head().written.get(part) else { return false };
        let used = written.load(Ordering::Relaxed);
        if used.saturating_add(line.len()) > limit.min(PROCESS_MAX) {
            return false;
        }
        // SAFETY: the line fits into the rest of the part. This process is the only one that writes to the
        // part, and no process reads its rest.
        unsafe { self.part(part).add(used).copy_from_nonoverlapping(NonNull::from(line).cast(), line.len()) };
        written.store(used + line.len(), Ordering::Release);
        true
    }

    /// Returns a copy of the complete lines of a part.
    ///
    /// # Errors
    /// There is not enough memory.
    fn lines(&self, part: usize) -> io::Result<Vec<u8>> {
        let written = self.head().written.get(part).map_or(0, |written| written.load(Ordering::Acquire));
        let length = written.min(PROCESS_MAX);
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(length).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
        // SAFETY: no process changes these bytes any more: the length was stored after they were written.
        bytes.extend_from_slice(unsafe { NonNull::slice_from_raw_parts(self.part(part), length).as_ref() });
        Ok(bytes)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: the mapping of `new`, to which no reference is left in this process. Others keep theirs.
        // A failure would leave the mapping to the end of this process.
        let _ = unsafe { munmap(self.start.cast(), Self::LENGTH.get()) };
    }
}

/// One line as it is written to the shared memory.
#[derive(Serialize)]
struct EntryRef<'a> {
    /// The position of the process that recorded the line: see [`ProcessLines::lineage`].
    of: &'a [u32],
    line: &'a LineRef<'a>,
    /// The call had not been made yet: [`Sink::announce`].
    #[serde(skip_serializing_if = "core::ops::Not::not")]
    announced: bool,
}

/// The same line as it is read from the shared memory.
#[derive(Deserialize)]
struct Entry {
    of: Vec<u32>,
    line: Line,
    #[serde(default)]
    announced: bool,
}

/// The text of one line, in reserved memory. Text beyond it is left out.
#[derive(Debug)]
struct Text {
    bytes: Vec<u8>,
    is_cut: bool,
}

impl Text {
    /// Reserves memory.
    ///
    /// # Errors
    /// There is not enough memory.
    fn with_room(length: usize) -> io::Result<Self> {
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(length).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
        Ok(Self { bytes, is_cut: false })
    }

    /// Replaces the text by that of an entry, after a newline. Returns it if it fits.
    fn of(&mut self, entry: &EntryRef<'_>) -> Option<&[u8]> {
        self.bytes.clear();
        self.is_cut = false;
        // Neither fails: every value has a JSON form, and this writer accepts all bytes.
        let written = self.write_all(b"\n").is_ok() && serde_json::to_writer(&mut *self, entry).is_ok();
        (written && !self.is_cut).then_some(&self.bytes)
    }
}

impl Write for Text {
    /// Never returns an error: serde_json would allocate memory for it.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.bytes.capacity().saturating_sub(self.bytes.len());
        self.is_cut |= bytes.len() > room;
        if !self.is_cut {
            self.bytes.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The position of a process in the fork tree: see [`ProcessLines::lineage`].
#[derive(Clone, Copy, Debug, Default)]
struct Lineage {
    numbers: [u32; GENERATIONS],
    depth: usize,
}

impl Lineage {
    fn get(&self) -> &[u32] {
        self.numbers.get(..self.depth).unwrap_or_default()
    }

    /// Adds a generation. Returns whether there is room for it.
    fn push(&mut self, number: u32) -> bool {
        let Some(place) = self.numbers.get_mut(self.depth) else { return false };
        *place = number;
        self.depth += 1;
        true
    }
}

/// The writing side. Every fork copies it.
#[derive(Debug)]
pub struct SharedSink {
    memory: Rc<Shared>,
    /// The part of the memory for this process.
    part: Option<usize>,
    lineage: Lineage,
    /// The number of children that this process has created.
    children: u32,
    /// The maximum number of bytes of this process.
    limit: usize,
    text: Text,
}

/// The reading side, for the process that created the sink.
#[derive(Debug)]
pub struct SharedReader {
    memory: Rc<Shared>,
}

/// The lines of all processes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SharedLines {
    /// The processes, in the order of their lineage.
    pub processes: Vec<ProcessLines>,
    /// The number of lost lines.
    pub lost: u64,
}

/// The lines of one process.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ProcessLines {
    /// The position in the fork tree, from the process that created the sink: `[]` is that process, and `[0,
    /// 1]` is the second child of its first child. A child is a process that was cloned by this one, even if
    /// CLONE_PARENT gives it another parent.
    pub lineage: Vec<u32>,
    /// Its lines, in order. The line before a failed exec is still included ([`super::Transcript::push`]).
    pub lines: Vec<Line>,
}

impl SharedSink {
    /// Creates the shared memory. Must be called before the first fork.
    ///
    /// # Errors
    /// Those of mmap(2). No memory for a line of the largest size.
    pub fn new() -> io::Result<(Self, SharedReader)> {
        let memory = Rc::new(Shared::new()?);
        let reader = SharedReader { memory: Rc::clone(&memory) };
        let (limit, part) = (PROCESS_MAX, memory.take());
        let text = Text::with_room(limit)?;
        Ok((Self { memory, part, lineage: Lineage::default(), children: 0, limit, text }, reader))
    }

    /// Sets how many bytes one process may write, below [`PROCESS_MAX`].
    #[cfg(test)]
    fn with_limit(self, limit: usize) -> Self {
        Self { limit: limit.min(self.limit), ..self }
    }

    /// Writes one line, or counts it as lost.
    fn store(&mut self, line: &LineRef<'_>, announced: bool) {
        let text = self.text.of(&EntryRef { of: self.lineage.get(), line, announced });
        let added = match (text, self.part) {
            (Some(text), Some(part)) => self.memory.append(part, text, self.limit),
            _ => false,
        };
        if !added {
            self.memory.head().lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Sink for SharedSink {
    fn line(&mut self, line: &LineRef<'_>) {
        match line.reply {
            ReplyRef::Value(Reply::Child) => {
                // This memory is a copy of our parent's, made before the parent counted us.
                self.part = if self.lineage.push(self.children) { self.memory.take() } else { None };
                self.children = 0;
            }
            ReplyRef::Value(Reply::Parent(_) | Reply::ParentOfInit { .. }) => self.children += 1,
            _ => {}
        }
        self.store(line, false);
    }

    fn announce(&mut self, line: &LineRef<'_>) -> bool {
        self.store(line, true);
        true
    }
}

/// The lines of one process while they are read.
#[derive(Default)]
struct Reading {
    lines: Vec<Line>,
    /// Whether the last line was an announcement.
    announced: bool,
}

impl Reading {
    /// Adds a line. The result of an announced call replaces the announcement. Every close is announced, so
    /// a line with the same call that is not an announcement is the result.
    fn push(&mut self, line: Line, announced: bool) {
        let is_result = self.announced && !announced;
        if is_result && self.lines.last().is_some_and(|last| last.call == line.call) {
            self.lines.pop();
        }
        self.lines.push(line);
        self.announced = announced;
    }
}

impl SharedReader {
    /// Reads all lines written so far. They are complete once all processes have ended or executed another
    /// program.
    ///
    /// # Errors
    /// No memory for the lines.
    pub fn read(&self) -> io::Result<SharedLines> {
        let mut lost = self.memory.head().lost.load(Ordering::Relaxed);
        let mut processes = BTreeMap::<Vec<u32>, Reading>::new();
        for part in 0..PROCESSES {
            let bytes = self.memory.lines(part)?;
            for text in bytes.split(|byte| *byte == b'\n').filter(|text| !text.is_empty()) {
                // Through a value, as in `Run::from_json_lines`: one copy of the code of each call is enough.
                match serde_json::from_slice(text).and_then(serde_json::from_value::<Entry>) {
                    Ok(Entry { of, line, announced }) => {
                        processes.entry(of).or_default().push(line, announced);
                    }
                    Err(_) => lost += 1,
                }
            }
        }
        let processes = processes
            .into_iter()
            .map(|(lineage, reading)| ProcessLines { lineage, lines: reading.lines })
            .collect();
        Ok(SharedLines { processes, lost })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Answer, Answered, AnySys, Call, CallRef, Recorder};
    use nsexec::sys::Sys;
    use nsexec::sys::types::{Errno, Fd, Pid};

    fn line(reply: Reply) -> LineRef<'static> {
        LineRef { call: CallRef::CloneSibling { tid: None }, reply: ReplyRef::Value(reply) }
    }

    /// Copies the sink as a fork does. The memory is shared.
    fn fork(sink: &SharedSink) -> SharedSink {
        let (memory, text) = (Rc::clone(&sink.memory), Text::with_room(sink.limit).unwrap());
        SharedSink { memory, text, ..*sink }
    }

    #[test]
    fn lineage_identifies_each_process() {
        let (mut first, reader) = SharedSink::new().unwrap();
        let mut child = fork(&first);
        child.line(&line(Reply::Child));
        first.line(&line(Reply::Parent(Pid(7))));
        let mut second = fork(&first);
        second.line(&line(Reply::Child));
        let mut grandchild = fork(&second);
        grandchild.line(&line(Reply::Child));
        child.line(&LineRef { call: CallRef::Setsid, reply: ReplyRef::Value(Reply::Unit) });
        let record = reader.read().unwrap();
        let lines: Vec<(&[u32], usize)> =
            record.processes.iter().map(|process| (&process.lineage[..], process.lines.len())).collect();
        assert_eq!(lines, [(&[][..], 1), (&[0], 2), (&[1], 1), (&[1, 0], 1)]);
        assert_eq!(record.lost, 0);
    }

    /// A backend that returns these replies.
    struct Replies(std::vec::IntoIter<Reply>);

    impl Answer for Replies {
        fn answer(&mut self, _: Call) -> Reply {
            self.0.next().unwrap()
        }
    }

    #[test]
    fn close_is_recorded_before_the_call() {
        /// Reads the record in each call, as a launcher does that a close lets continue.
        struct Reads(SharedReader, Vec<usize>);

        impl Answer for Reads {
            fn answer(&mut self, _: Call) -> Reply {
                self.1.push(self.0.read().unwrap().processes.iter().map(|process| process.lines.len()).sum());
                Reply::Unit
            }
        }

        let (sink, reader) = SharedSink::new().unwrap();
        let mut backend = Answered(Reads(reader, Vec::new()));
        let mut sys = Recorder::new(AnySys(&mut backend), sink);
        sys.close(Fd(500)).unwrap();
        sys.close_range(500, 600).unwrap();
        sys.dup3(Fd(500), Fd(501)).unwrap();
        assert_eq!(backend.0.1, [1, 2, 2]);
        assert_eq!(backend.0.0.read().unwrap().processes[0].lines.len(), 3);
    }

    #[test]
    fn result_of_a_failed_close_replaces_its_announcement() {
        let (sink, reader) = SharedSink::new().unwrap();
        let bad = Reply::Errno(Errno::EBADF);
        let replies = [Reply::Unit, bad.clone(), bad.clone(), Reply::Unit, Reply::Errno(Errno::ENOSYS)];
        let mut sys = Recorder::new(Answered(Replies(Vec::from(replies.clone()).into_iter())), sink);
        for reply in [Ok(()), Err(Errno::EBADF), Err(Errno::EBADF), Ok(())] {
            assert_eq!(sys.close(Fd(500)), reply);
        }
        assert_eq!(sys.close_range(500, 600), Err(Errno::ENOSYS));
        let record = reader.read().unwrap();
        let found: Vec<&Reply> = record.processes[0].lines.iter().map(|line| &line.reply).collect();
        assert_eq!(found, replies.iter().collect::<Vec<_>>());
        assert_eq!(record.lost, 0);
    }

    #[test]
    fn lines_over_the_limit_are_lost_and_counted() {
        let (sink, reader) = SharedSink::new().unwrap();
        let mut sink = sink.with_limit(200);
        for _ in 0..5 {
            sink.line(&line(Reply::Parent(Pid(1))));
        }
        for _ in 0..2 {
            let record = reader.read().unwrap();
            let [process] = &record.processes[..] else { panic!("one process") };
            assert_eq!((process.lines.len(), record.lost), (2, 3));
        }
    }

    #[test]
    fn every_line_is_counted_as_lost_without_room() {
        let (sink, reader) = SharedSink::new().unwrap();
        let mut sink = sink.with_limit(0);
        for _ in 0..70_000 {
            sink.line(&line(Reply::Parent(Pid(1))));
        }
        assert_eq!(reader.read().unwrap(), SharedLines { processes: Vec::new(), lost: 70_000 });
    }

    /// The length is stored last.
    #[test]
    fn incomplete_line_of_a_killed_writer_is_not_read() {
        let (mut sink, reader) = SharedSink::new().unwrap();
        sink.line(&line(Reply::Parent(Pid(1))));
        let written = &sink.memory.head().written[0];
        let complete = written.load(Ordering::Relaxed);
        sink.line(&line(Reply::Parent(Pid(1))));
        sink.memory.head().written[0].store(complete, Ordering::Relaxed);
        sink.line(&line(Reply::Parent(Pid(1))));
        let record = reader.read().unwrap();
        assert_eq!((record.processes[0].lines.len(), record.processes.len(), record.lost), (2, 1, 0));
    }

    #[test]
    fn lines_of_too_many_processes_are_lost() {
        let (mut sink, reader) = SharedSink::new().unwrap();
        for number in 0..PROCESSES {
            let mut child = fork(&sink);
            child.line(&line(Reply::Child));
            sink.line(&line(Reply::Parent(Pid(i32::try_from(number).unwrap()))));
        }
        let record = reader.read().unwrap();
        assert_eq!((record.processes.len(), record.lost), (PROCESSES, 1));
    }

    #[test]
    fn lines_of_too_deep_processes_are_lost() {
        let (sink, reader) = SharedSink::new().unwrap();
        let mut process = sink;
        for _ in 0..=GENERATIONS {
            process = fork(&process);
            process.line(&line(Reply::Child));
        }
        let record = reader.read().unwrap();
        assert_eq!((record.processes.len(), record.lost), (GENERATIONS, 1));
    }

    #[test]
    fn memory_of_the_text_does_not_grow() {
        let (sink, reader) = SharedSink::new().unwrap();
        let data = std::vec![0; PROCESS_MAX / 4];
        let memory = (sink.text.bytes.as_ptr(), sink.text.bytes.capacity());
        let mut sys = Recorder::new(Answered(Replies(std::vec![Reply::Count(1); 2].into_iter())), sink);
        // Each byte has six characters in JSON.
        sys.write(Fd(1), &data[..1 << 20]).unwrap();
        sys.write(Fd(1), &data).unwrap();
        let text = &sys.sink().text.bytes;
        assert_eq!((text.as_ptr(), text.capacity()), memory);
        let record = reader.read().unwrap();
        assert_eq!((record.processes[0].lines.len(), record.lost), (1, 1));
    }
}
