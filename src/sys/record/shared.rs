//! A sink that all processes of a run share: on the real kernel each has its own memory after the clone.
//!
//! Every line is one `write` to a memfd (memfd_create(2)) that is open for appending, so that a line is whole or not
//! there at all, the lines of one process are in its order, and what a process wrote stays when it is killed. Nothing is
//! shared but the file: who a process is follows from whose how-manieth child it is, and each process counts for itself.
//!
//! The sink never blocks (a memfd takes what fits into memory) and never fails its user: a line that cannot be written is
//! lost, and one byte says so. The file is close-on-exec. Its own calls are that write, and those by which the allocator gets memory; a comparison with a
//! witness leaves them out ([`audit::witness`](crate::audit::witness)).

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::rc::Rc;
use std::string::String;
use std::vec::Vec;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use serde::{Deserialize, Serialize};

use super::{Line, Reply, Sink};
use crate::sys::types::Fd;

/// How much one process may write. A process has about a hundred lines; a message of the largest size, sent in one piece
/// and all of it escaped as six characters a byte, has 6 MiB.
pub const PROCESS_MAX: usize = 8 << 20;

/// How many lost lines one process may mark, each with a byte. Far more than it has lines.
const MARKS_MAX: usize = 1 << 16;

/// So many processes a run has at most: launcher, three stages, two mapping tools, and some to spare.
const PROCESSES: usize = 8;

const NAME: &CStr = c"nsexec-record";

/// One line as the file holds it. A lost line is an empty one.
#[derive(Serialize, Deserialize)]
struct Entry {
    /// Whose line: see [`Process::lineage`].
    of: Vec<u32>,
    line: Line,
}

/// The sink. Copied by every fork, with everything else.
#[derive(Debug)]
pub struct SharedSink {
    file: Rc<File>,
    lineage: Vec<u32>,
    /// Children made by this process so far.
    children: u32,
    /// Bytes written by this process.
    written: usize,
    /// How many they may be.
    limit: usize,
    /// Lines marked as lost by this process.
    marks: usize,
}

/// The reading side, for the process that made the sink.
#[derive(Debug)]
pub struct SharedReader {
    file: Rc<File>,
}

/// What all processes handed over.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Record {
    /// The processes, in the order of their lineage.
    pub processes: Vec<Process>,
    /// Lines that were lost.
    pub lost: u64,
}

/// The lines of one process.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Process {
    /// The way to it from the process that made the sink: `[]` is that one, `[0, 1]` the second child of its first.
    /// Child means who was cloned by whom, also where CLONE_PARENT gives it another parent.
    pub lineage: Vec<u32>,
    /// Its lines, in order; an exec that failed is still announced ([`super::Transcript::push`]).
    pub lines: Vec<Line>,
}

impl SharedSink {
    /// Makes the file. To be called before the first fork.
    ///
    /// # Errors
    /// Those of memfd_create(2) and fcntl(2): no memory, no descriptor. And [`io::ErrorKind::FileTooLarge`] where a
    /// limit of the size of files leaves no room.
    pub fn new() -> io::Result<(Self, SharedReader)> {
        let file = File::from(memfd_create(NAME, MFdFlags::MFD_CLOEXEC)?);
        let flags = OFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GETFL)?);
        fcntl(&file, FcntlArg::F_SETFL(flags | OFlag::O_APPEND))?;
        let file = Rc::new(file);
        let reader = SharedReader { file: Rc::clone(&file) };
        let share = (largest_file() / PROCESSES).checked_sub(MARKS_MAX);
        let limit = share.ok_or(io::ErrorKind::FileTooLarge)?.min(PROCESS_MAX);
        Ok((Self { file, lineage: Vec::new(), children: 0, written: 0, limit, marks: 0 }, reader))
    }

    /// Sets how many bytes one process may write, below [`PROCESS_MAX`].
    #[must_use]
    pub fn with_limit(self, limit: usize) -> Self {
        Self { limit: limit.min(self.limit), ..self }
    }

    /// The descriptor, for who has to tell our own writes from others.
    #[must_use]
    pub fn fd(&self) -> Fd {
        Fd(self.file.as_raw_fd())
    }

    /// One write; whether it took all.
    fn append(&mut self, bytes: &[u8]) -> bool {
        loop {
            match (&*self.file).write(bytes) {
                Ok(count) => return count == bytes.len(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
    }
}

impl Sink for SharedSink {
    fn line(&mut self, line: &Line) {
        match line.reply {
            Reply::Child => {
                // What follows is a copy of our parent's memory, from before it counted us.
                self.lineage.push(self.children);
                (self.children, self.written, self.marks) = (0, 0, 0);
            }
            Reply::Parent(_) => self.children += 1,
            _ => {}
        }
        let entry = Entry { of: self.lineage.clone(), line: line.clone() };
        let text = serde_json::to_string(&entry).map(|text| text + "\n").unwrap_or_default();
        let fits = self.written.saturating_add(text.len()) <= self.limit;
        if !text.is_empty() && fits && self.append(text.as_bytes()) {
            self.written += text.len();
        } else if self.marks < MARKS_MAX {
            self.marks += 1;
            // Also ends a line that was cut, so that it takes no other along.
            self.append(b"\n");
        }
    }
}

impl SharedReader {
    /// Reads what has come so far: everything, once the processes have ended or executed something else.
    ///
    /// # Errors
    /// Those of reading the file.
    pub fn read(&self) -> io::Result<Record> {
        let length = usize::try_from(self.file.metadata()?.len()).map_err(io::Error::other)?;
        let mut bytes = std::vec![0; length];
        // By position: the offset belongs to those who write.
        self.file.read_exact_at(&mut bytes, 0)?;
        let mut lost = 0;
        let mut processes = BTreeMap::<Vec<u32>, Vec<Line>>::new();
        for text in bytes.split_inclusive(|byte| *byte == b'\n') {
            match serde_json::from_slice::<Entry>(text) {
                Ok(Entry { of, line }) => processes.entry(of).or_default().push(line),
                Err(_) => lost += 1,
            }
        }
        let processes = processes.into_iter().map(|(lineage, lines)| Process { lineage, lines }).collect();
        Ok(Record { processes, lost })
    }
}

/// RLIMIT_FSIZE: a write beyond it does not only fail, it ends the process with SIGXFSZ (setrlimit(2)).
fn largest_file() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let words = limits.lines().find_map(|line| line.strip_prefix("Max file size"));
    // "unlimited" is no number.
    let soft: Option<&str> = words.and_then(|words| words.split_whitespace().next());
    soft.and_then(|word| String::from(word).parse().ok()).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::record::Call;
    use crate::sys::types::Pid;

    fn line(reply: Reply) -> Line {
        Line { call: Call::CloneSibling { tid: None }, reply }
    }

    /// A fork copies the sink, and shares the file.
    fn fork(sink: &SharedSink) -> SharedSink {
        SharedSink { file: Rc::clone(&sink.file), lineage: sink.lineage.clone(), ..*sink }
    }

    #[test]
    fn a_process_is_known_by_its_way_from_the_first() {
        let (mut first, reader) = SharedSink::new().unwrap();
        let mut child = fork(&first);
        child.line(&line(Reply::Child));
        first.line(&line(Reply::Parent(Pid(7))));
        let mut second = fork(&first);
        second.line(&line(Reply::Child));
        let mut grandchild = fork(&second);
        grandchild.line(&line(Reply::Child));
        child.line(&Line { call: Call::Setsid, reply: Reply::Unit });
        let record = reader.read().unwrap();
        let lines: Vec<(&[u32], usize)> =
            record.processes.iter().map(|process| (&process.lineage[..], process.lines.len())).collect();
        assert_eq!(lines, [(&[][..], 1), (&[0], 2), (&[1], 1), (&[1, 0], 1)]);
        assert_eq!(record.lost, 0);
    }

    #[test]
    fn what_is_over_the_limit_is_lost_and_counted() {
        let (sink, reader) = SharedSink::new().unwrap();
        let mut sink = sink.with_limit(200);
        for _ in 0..5 {
            sink.line(&line(Reply::Parent(Pid(1))));
        }
        let record = reader.read().unwrap();
        let [process] = &record.processes[..] else { panic!("one process") };
        assert_eq!((process.lines.len(), record.lost), (2, 3));
    }
}
