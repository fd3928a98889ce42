//! The parent of a drop-in: sends the bootstrap message and reads the pid line and the log, as runc does.
//! Shares no code with the product.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::draw::{Delivery, Log, Message, Start};
use crate::place::Place;

/// The parent of a drop-in: its ends of the pipes, and the bytes that it has read.
pub(crate) struct Parent {
    init: Option<UnixStream>,
    log: Option<File>,
    /// The ends of the drop-in, until it is started.
    theirs: Option<(UnixStream, OwnedFd)>,
    rest: Vec<u8>,
    /// The time of the next part, and its size.
    next: Instant,
    parts: Vec<(Duration, usize)>,
    cut: bool,
    reading: Log,
    pub(crate) answer: Vec<u8>,
    pub(crate) records: Vec<u8>,
}

impl Parent {
    pub(crate) fn new(place: &Place, start: &Start, message: Message) -> Self {
        let (init, their_init) = UnixStream::pair().expect("an init pipe");
        let (log, their_log) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).expect("a log pipe");
        init.set_nonblocking(true).expect("a flag");
        let log = File::from(log);
        nonblocking(log.as_raw_fd(), true);
        if start.log == Log::Full {
            nonblocking(their_log.as_raw_fd(), true);
            while nix::unistd::write(&their_log, &[b'\n'; 4096]).is_ok() {}
            nonblocking(their_log.as_raw_fd(), false);
        }
        let bytes = encode(place, message);
        let half = usize::try_from(start.part).expect("a number") * bytes.len() / 1000;
        let now = Duration::ZERO;
        let parts = match start.delivery {
            Delivery::Whole => vec![(now, bytes.len())],
            Delivery::ByteByByte => vec![(now, 1); bytes.len()],
            Delivery::Stalled(pause) => {
                vec![(now, half), (Duration::from_millis(pause), bytes.len() - half)]
            }
            Delivery::Cut => vec![(now, half)],
        };
        Self {
            init: Some(init),
            log: (start.log != Log::Closed).then_some(log),
            theirs: Some((their_init, their_log)),
            rest: bytes,
            next: Instant::now(),
            parts: parts.into_iter().rev().collect(),
            cut: start.delivery == Delivery::Cut,
            reading: start.log,
            answer: Vec::new(),
            records: Vec::new(),
        }
    }

    /// Returns the descriptors of the drop-in.
    pub(crate) fn pipes(&self) -> Option<(RawFd, RawFd)> {
        self.theirs.as_ref().map(|(init, log)| (init.as_raw_fd(), log.as_raw_fd()))
    }

    /// Closes the drop-in's ends, after its start.
    pub(crate) fn close_theirs(&mut self) {
        self.theirs = None;
    }

    pub(crate) fn close_init(&mut self) {
        self.init = None;
        self.parts.clear();
    }

    /// Returns the descriptors whose input is awaited, and the time until the next part of the message.
    pub(crate) fn waits(&self) -> (Vec<RawFd>, Option<Duration>) {
        let log = self.log.as_ref().filter(|_| self.reading == Log::Read).map(File::as_raw_fd);
        let init = self.init.as_ref().map(UnixStream::as_raw_fd);
        let part = self
            .parts
            .last()
            .map(|(pause, _)| (self.next + *pause).saturating_duration_since(Instant::now()));
        let slow = (self.reading == Log::Slow).then_some(Duration::from_millis(3));
        (init.into_iter().chain(log).collect(), part.into_iter().chain(slow).min())
    }

    /// Sends a part of the message if it is due, and reads whatever has arrived. Returns whether the drop-in
    /// got something that it may have waited for.
    pub(crate) fn step(&mut self) -> bool {
        let mut acted = false;
        if let Some((pause, size)) = self.parts.last().copied() {
            if Instant::now() >= self.next + pause {
                self.parts.pop();
                let part: Vec<u8> = self.rest.drain(..size.min(self.rest.len())).collect();
                // A stage 0 that has ended gives EPIPE.
                let sent = self.init.as_mut().is_some_and(|init| init.write_all(&part).is_ok());
                if !sent {
                    self.parts.clear();
                }
                acted = true;
                self.next = Instant::now();
            }
        } else if self.cut {
            self.init = None;
            self.cut = false;
            acted = true;
        }
        if let Some(init) = &mut self.init {
            if read_into(init, &mut self.answer, 4096) {
                self.init = None;
            }
        }
        let size = if self.reading == Log::Slow { 40 } else { 1 << 16 };
        if let Some(log) = self.log.as_mut().filter(|_| self.reading != Log::Full) {
            if read_into(log, &mut self.records, size) {
                self.log = None;
            }
        }
        acted
    }

    /// Reads all input that is left, after the end of all processes.
    pub(crate) fn finish(&mut self) {
        if let Some(init) = &mut self.init {
            while !read_into(init, &mut self.answer, 4096) && !would_block(init.as_raw_fd()) {}
        }
        if let Some(log) = &mut self.log {
            while !read_into(log, &mut self.records, 1 << 16) && !would_block(log.as_raw_fd()) {}
        }
    }
}

/// Reads once. Returns whether the other end is closed.
fn read_into(from: &mut impl Read, to: &mut Vec<u8>, size: usize) -> bool {
    let mut buffer = vec![0; size];
    match from.read(&mut buffer) {
        Ok(0) => true,
        Ok(read) => {
            to.extend(&buffer[..read]);
            false
        }
        Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
    }
}

/// Returns whether there is neither input nor an end of file.
fn would_block(fd: RawFd) -> bool {
    let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: the structure outlives the call.
    unsafe { libc::poll(&raw mut poll, 1, 0) == 0 }
}

fn nonblocking(fd: RawFd, on: bool) {
    // SAFETY: fcntl(2) takes numbers here.
    unsafe { libc::fcntl(fd, libc::F_SETFL, if on { libc::O_NONBLOCK } else { 0 }) };
}

const NEWNS: u32 = 0x2_0000;
const NEWUTS: u32 = 0x400_0000;
const NEWIPC: u32 = 0x800_0000;
const NEWUSER: u32 = 0x1000_0000;
const NEWPID: u32 = 0x2000_0000;
const NEWNET: u32 = 0x4000_0000;

fn encode(place: &Place, message: Message) -> Vec<u8> {
    let five = NEWNS | NEWUTS | NEWIPC | NEWPID | NEWNET;
    let text = |kind, text: &str| attribute(kind, &[text.as_bytes(), b"\0"].concat());
    let number = |kind, value: u32| attribute(kind, &value.to_ne_bytes());
    let mut body = Vec::new();
    match message {
        Message::Five => body.extend(number(27281, five)),
        Message::Mapped => {
            body.extend(number(27281, five | NEWUSER));
            body.extend(text(27283, "0 100000 65536\n"));
            body.extend(text(27284, "0 100000 65536\n"));
            body.extend(number(27285, 1));
        }
        Message::Tools => {
            body.extend(number(27281, NEWUSER | NEWPID | NEWUTS));
            body.extend(text(27288, "/usr/bin/newuidmap"));
            body.extend(text(27283, &format!("0 {} 1\n1 30000 1000\n", place.uid)));
            body.extend(text(27289, "/usr/bin/newgidmap"));
            body.extend(text(27284, &format!("0 {} 1\n1 30000 1000\n", place.gid)));
            body.extend(number(27285, 1));
        }
        Message::Join => {
            body.extend(number(27281, 0));
            let kinds = ["user", "ipc", "uts", "net", "pid", "mnt"];
            let paths = kinds.map(|kind| format!("{kind}:/proc/{}/ns/{kind}", place.target));
            body.extend(text(27282, &paths.join(",")));
        }
    }
    body.extend(number(27287, u32::from(message == Message::Tools)));
    let length = u32::try_from(16 + body.len()).expect("a length");
    let head = [&length.to_ne_bytes()[..], &62000_u16.to_ne_bytes(), &1_u16.to_ne_bytes(), &[0; 8]];
    [head.concat(), body].concat()
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).expect("a length");
    let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}
