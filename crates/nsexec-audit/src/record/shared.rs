//! A sink that all processes of a run share. On the real kernel each process has its own memory after the
//! clone.
//!
//! Every line is one `write` to a memfd (memfd_create(2)) that is open for appending. So no other line is
//! mixed into it, the lines of one process are in order, and lines survive when their process is killed. A
//! line begins with its newline: if a process is killed in its write, the incomplete line damages no other.
//!
//! A close is recorded before the call, with `"announced":true`. If it fails, its line with the errno
//! follows, and the reader drops the first one.
//!
//! The processes share only the file. A process is identified by its position in the fork tree, and each
//! process counts its own children.
//!
//! The sink never blocks, since the size of a memfd is limited only by memory. It never returns an error. A
//! line that cannot be written is lost and counted in an eventfd (eventfd(2)), which needs no further memory.
//! Both are close-on-exec. The sink's own system calls are these writes. A comparison with a witness leaves
//! them out, except the counting ([`witness`](crate::witness)).
//!
//! The recorder leaves both descriptors open where a process closes all that it does not use. It then makes
//! two or three calls for one of the record, which the comparison merges.
//!
//! A line is serialised into memory that was reserved before the first fork, and each process has its own
//! copy of it. So writing a line neither allocates memory nor takes a lock, and the program may have threads.
//! Only the part of this memory that the longest line used takes up pages.

use core::cell::Cell;

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;
use std::rc::Rc;
use std::string::String;
use std::vec::Vec;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::memfd::{MFdFlags, memfd_create};
use serde::{Deserialize, Serialize};

use super::{DESCRIPTORS_MAX, Line, LineRef, Reply, ReplyRef, Sink};
use nsexec::sys::types::Fd;

/// The maximum number of bytes that one process may write. A process has about a hundred lines. The largest
/// line has 6 MiB: a message of the largest size, sent in one piece and escaped as six characters for each
/// byte.
pub const PROCESS_MAX: usize = 8 << 20;

/// The maximum number of processes of a run: launcher, three stages, two mapping tools, and two more.
const PROCESSES: usize = 8;

/// The maximum number of generations of processes after the first one. With more, the lines of the last ones
/// are lost.
const GENERATIONS: usize = PROCESSES - 1;

const NAME: &CStr = c"nsexec-record";

/// One line as it is written to the file.
#[derive(Serialize)]
struct EntryRef<'a> {
    /// The position of the process that recorded the line: see [`ProcessLines::lineage`].
    of: &'a [u32],
    line: &'a LineRef<'a>,
    /// The call had not been made yet: [`Sink::announce`].
    #[serde(skip_serializing_if = "core::ops::Not::not")]
    announced: bool,
}

/// The same line as it is read from the file.
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
    file: Rc<File>,
    lost: Rc<EventFd>,
    lineage: Lineage,
    /// The number of children that this process has created.
    children: u32,
    /// The number of bytes that this process has written.
    written: usize,
    /// The maximum of `written`.
    limit: usize,
    text: Text,
}

/// The reading side, for the process that created the sink.
#[derive(Debug)]
pub struct SharedReader {
    file: Rc<File>,
    lost: Rc<EventFd>,
    /// The number of lost lines that were read from the eventfd.
    counted: Cell<u64>,
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
    /// Creates the file. Must be called before the first fork.
    ///
    /// # Errors
    /// Those of memfd_create(2), fcntl(2) and eventfd(2): no memory, no descriptor. No memory for a line of
    /// the largest size.
    pub fn new() -> io::Result<(Self, SharedReader)> {
        let file = File::from(memfd_create(NAME, MFdFlags::MFD_CLOEXEC)?);
        let flags = OFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GETFL)?);
        fcntl(&file, FcntlArg::F_SETFL(flags | OFlag::O_APPEND))?;
        let file = Rc::new(file);
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let lost = Rc::new(EventFd::from_value_and_flags(0, flags)?);
        let reader = SharedReader { file: Rc::clone(&file), lost: Rc::clone(&lost), counted: Cell::new(0) };
        // If not even one line fits, all lines are lost.
        let limit = (largest_file() / PROCESSES).min(PROCESS_MAX);
        let text = Text::with_room(limit)?;
        Ok((Self { file, lost, lineage: Lineage::default(), children: 0, written: 0, limit, text }, reader))
    }

    /// Returns whether the limit on file size (RLIMIT_FSIZE) leaves less room than [`PROCESS_MAX`].
    #[must_use]
    pub const fn is_cut_by_file_size(&self) -> bool {
        self.limit < PROCESS_MAX
    }

    /// Sets how many bytes one process may write, below [`PROCESS_MAX`].
    #[must_use]
    pub fn with_limit(self, limit: usize) -> Self {
        Self { limit: limit.min(self.limit), ..self }
    }

    /// Returns the file's descriptor, so that a caller can distinguish our own writes from others.
    #[must_use]
    pub fn fd(&self) -> Fd {
        Fd(self.file.as_raw_fd())
    }

    /// Writes one line, or counts it as lost.
    fn store(&mut self, line: &LineRef<'_>, announced: bool) {
        let room = self.limit.saturating_sub(self.written);
        let text = self.text.of(&EntryRef { of: self.lineage.get(), line, announced });
        let took = text.filter(|text| text.len() <= room).map_or(0, |text| append(&self.file, text));
        self.written += took;
        // If more than the newline was written, the reader counts the incomplete line.
        if took <= 1 {
            // This would fail only at 2^64.
            let _ = self.lost.write(1);
        }
    }
}

/// Makes one write, and returns the number of bytes written.
fn append(mut file: &File, bytes: &[u8]) -> usize {
    loop {
        match file.write(bytes) {
            Ok(count) => return count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return 0,
        }
    }
}

impl Sink for SharedSink {
    fn descriptors(&self) -> [Option<Fd>; DESCRIPTORS_MAX] {
        [Some(self.fd()), Some(Fd(self.lost.as_fd().as_raw_fd())), None, None]
    }

    fn line(&mut self, line: &LineRef<'_>) {
        match line.reply {
            ReplyRef::Value(Reply::Child) => {
                // This memory is a copy of our parent's, made before the parent counted us.
                if !self.lineage.push(self.children) {
                    self.limit = 0;
                }
                (self.children, self.written) = (0, 0);
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
    /// Those of reading the file; no memory for its content.
    pub fn read(&self) -> io::Result<SharedLines> {
        let length = usize::try_from(self.file.metadata()?.len()).map_err(io::Error::other)?;
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(length).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
        bytes.resize(length, 0);
        // Read by position: the file offset belongs to the writers.
        self.file.read_exact_at(&mut bytes, 0)?;
        // Reading a non-blocking eventfd with the value 0 fails. A successful read resets the counter.
        self.counted.set(self.counted.get() + self.lost.read().unwrap_or(0));
        let mut lost = self.counted.get();
        let mut processes = BTreeMap::<Vec<u32>, Reading>::new();
        for text in bytes.split(|byte| *byte == b'\n').filter(|text| !text.is_empty()) {
            match serde_json::from_slice::<Entry>(text) {
                Ok(Entry { of, line, announced }) => {
                    processes.entry(of).or_default().push(line, announced);
                }
                Err(_) => lost += 1,
            }
        }
        let processes = processes
            .into_iter()
            .map(|(lineage, reading)| ProcessLines { lineage, lines: reading.lines })
            .collect();
        Ok(SharedLines { processes, lost })
    }
}

/// Returns RLIMIT_FSIZE in bytes. A write beyond it not only fails, but ends the process with SIGXFSZ
/// (setrlimit(2)).
#[must_use]
pub fn largest_file() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let words = limits.lines().find_map(|line| line.strip_prefix("Max file size"));
    // The value can also be "unlimited".
    let soft: Option<&str> = words.and_then(|words| words.split_whitespace().next());
    soft.and_then(|word| String::from(word).parse().ok()).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Answer, Answered, AnySys, Call, CallRef, Recorder};
    use nsexec::sys::Sys;
    use nsexec::sys::types::{Errno, Pid};

    fn line(reply: Reply) -> LineRef<'static> {
        LineRef { call: CallRef::CloneSibling { tid: None }, reply: ReplyRef::Value(reply) }
    }

    /// Copies the sink as a fork does. The file is shared.
    fn fork(sink: &SharedSink) -> SharedSink {
        let (file, lost) = (Rc::clone(&sink.file), Rc::clone(&sink.lost));
        SharedSink { file, lost, text: Text::with_room(sink.limit).unwrap(), ..*sink }
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

    #[test]
    fn incomplete_line_of_a_killed_writer_damages_no_other() {
        let (mut sink, reader) = SharedSink::new().unwrap();
        sink.line(&line(Reply::Parent(Pid(1))));
        append(&sink.file, b"\n{\"of\":[0],\"line\":{\"call\":{\"wri");
        sink.line(&line(Reply::Parent(Pid(1))));
        let record = reader.read().unwrap();
        assert_eq!((record.processes[0].lines.len(), record.processes.len(), record.lost), (2, 1, 1));
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

    #[test]
    fn failed_write_loses_only_its_line() {
        let (mut sink, reader) = SharedSink::new().unwrap();
        sink.line(&line(Reply::Parent(Pid(1))));
        sink.file = Rc::new(File::options().write(true).open("/dev/full").unwrap());
        sink.line(&line(Reply::Parent(Pid(1))));
        let record = reader.read().unwrap();
        assert_eq!((record.processes[0].lines.len(), record.lost), (1, 1));
    }
}
