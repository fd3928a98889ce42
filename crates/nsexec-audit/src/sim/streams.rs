//! The streams between descriptors: pipes, socket pairs, and their readiness (pipe(7), unix(7), poll(2)).

use std::collections::VecDeque;
use std::vec::Vec;

use super::descriptors::{Access, Object, Slot};
use super::kernel::{Halt, Kernel};
use super::process::Task;
use nsexec::sys::types::{Errno, Fd, PollEvents, PollFd, Received, Signal, SysResult};

/// `PIPE_BUF`: a write to a pipe up to this size is atomic (pipe(7)).
const PIPE_BUF: usize = 4096;
const POLLERR: i16 = 0x8;
const POLLHUP: i16 = 0x10;
const POLLNVAL: i16 = 0x20;

/// The state of a pipe.
#[derive(Clone, Debug)]
pub(super) struct Pipe {
    pub(super) bytes: VecDeque<u8>,
    pub(super) capacity: usize,
    pub(super) readers: usize,
    pub(super) writers: usize,
}

/// A socket pair. Index i of each array belongs to side i.
#[derive(Clone, Debug)]
pub(super) struct Pair {
    /// The bytes that side i can read.
    pub(super) bytes: [VecDeque<u8>; 2],
    /// The descriptors in transit to side i. Each has the index of its byte in `bytes`, and its open file
    /// description.
    pub(super) rights: [VecDeque<(usize, usize)>; 2],
    pub(super) capacity: usize,
    pub(super) open: [bool; 2],
    /// True if the peer of side i was closed with unread bytes, and side i has not yet received ECONNRESET.
    pub(super) reset: [bool; 2],
}

impl Pipe {
    /// Returns whether a read would return now.
    pub(super) fn readable(&self) -> bool {
        !self.bytes.is_empty() || self.writers == 0
    }

    /// Returns whether a write of `len` bytes, of which `rest` remain, could make progress.
    pub(super) fn writable(&self, len: usize, rest: usize) -> bool {
        let room = self.capacity.saturating_sub(self.bytes.len());
        self.readers == 0 || if len <= PIPE_BUF { room >= rest } else { room > 0 }
    }
}

impl Pair {
    pub(super) fn new(capacity: usize) -> Self {
        let (bytes, rights) = Default::default();
        Self { bytes, rights, capacity, open: [true; 2], reset: [false; 2] }
    }

    /// Removes the bytes that a read of `side` returns, and the descriptors that came with them. `None` if
    /// the read blocks.
    pub(super) fn take(&mut self, side: usize, len: usize) -> Option<SysResult<(Vec<u8>, Vec<usize>)>> {
        if self.bytes[side].is_empty() && len > 0 {
            return match core::mem::take(&mut self.reset[side]) {
                true => Some(Err(Errno::ECONNRESET)),
                false if self.open[1 - side] => None,
                false => Some(Ok(Default::default())),
            };
        }
        let taken = take(&mut self.bytes[side], len);
        let (came, later): (Vec<_>, Vec<_>) =
            self.rights[side].drain(..).partition(|(at, _)| *at < taken.len());
        self.rights[side] = later.into_iter().map(|(at, of)| (at - taken.len(), of)).collect();
        Some(Ok((taken, came.into_iter().map(|(_, of)| of).collect())))
    }

    /// Returns whether a read of `side` would return now.
    pub(super) fn readable(&self, side: usize) -> bool {
        !self.bytes[side].is_empty() || self.reset[side] || !self.open[1 - side]
    }

    /// Returns whether a write of `side` could make progress.
    pub(super) fn writable(&self, side: usize) -> bool {
        !self.open[1 - side] || self.bytes[1 - side].len() < self.capacity
    }
}

/// The call that writes bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Writing {
    /// write(2): blocks, and raises SIGPIPE.
    Wait,
    /// RWF_NOWAIT: returns EAGAIN instead of blocking, but also raises SIGPIPE.
    NoWait,
    /// send(2) with MSG_NOSIGNAL: blocks, and raises no signal.
    Send,
}

/// Removes up to `len` bytes from a queue.
pub(super) fn take(queue: &mut VecDeque<u8>, len: usize) -> Vec<u8> {
    let len = len.min(queue.len());
    queue.drain(..len).collect()
}

impl Kernel {
    /// Writes as many bytes to a pipe or a socket as there is room for. For the rest, the call blocks, or
    /// fails with `EAGAIN`.
    pub(super) fn write_stream(
        &mut self,
        me: Task,
        object: &Object,
        data: &[u8],
        how: Writing,
    ) -> Result<usize, Halt> {
        if let (Object::PipeWrite(_), Writing::NoWait, Some(errno)) =
            (object, how, self.settings.lacks.get("RWF_NOWAIT"))
        {
            return Err((*errno).into());
        }
        let done = self.process(me).progress;
        let (queue, capacity, peer, atomic) = match *object {
            Object::Socket(pair, side) => {
                let Pair { bytes, capacity, open, .. } = &mut self.pairs[pair];
                (&mut bytes[1 - side], *capacity, open[1 - side], false)
            }
            Object::PipeWrite(pipe) => {
                let Pipe { bytes, capacity, readers, .. } = &mut self.pipes[pipe];
                (bytes, *capacity, *readers > 0, data.len() <= PIPE_BUF)
            }
            _ => return Err(Errno::EBADF.into()),
        };
        // An empty write to a pipe succeeds even without readers.
        if data.is_empty() && matches!(object, Object::PipeWrite(_)) {
            return Ok(0);
        }
        if !peer {
            if done > 0 {
                return Ok(done);
            }
            if how != Writing::Send {
                self.raise_in(me, Signal::PIPE)?;
            }
            return Err(Errno::EPIPE.into());
        }
        let rest = &data[done..];
        let room = capacity.saturating_sub(queue.len());
        let fits = if atomic && rest.len() > room { 0 } else { rest.len().min(room) };
        queue.extend(&rest[..fits]);
        let done = done + fits;
        match (done == data.len(), how) {
            (true, _) => Ok(done),
            (false, Writing::NoWait) if done > 0 => Ok(done),
            (false, Writing::NoWait) => Err(Errno::EAGAIN.into()),
            (false, _) => {
                self.process_mut(me).progress = done;
                Err(Halt::Block)
            }
        }
    }

    /// Implements sendmsg(2) of one byte with one descriptor. The message carries the open file description.
    pub(super) fn send_fd(&mut self, me: Task, socket: Fd, fd: Fd) -> Result<usize, Halt> {
        let description = self.slot(me, fd)?.description;
        let sent = self.write(me, socket, &[0], Writing::Send)?;
        if let (1, Object::Socket(pair, side)) = (sent, self.object(me, socket)?.clone()) {
            let pair = &mut self.pairs[pair];
            pair.rights[1 - side].push_back((pair.bytes[1 - side].len() - 1, description));
            self.descriptions[description].refs += 1;
        }
        Ok(sent)
    }

    /// Implements recvmsg(2) of one byte, with room for one descriptor. A descriptor without room in the
    /// message or in the table is closed, and the message is marked as truncated (scm_detach_fds).
    pub(super) fn receive_fd(&mut self, me: Task, socket: Fd) -> Result<Received, Halt> {
        let (pair, side) = match *self.object(me, socket)? {
            Object::Socket(pair, side) => (pair, side),
            Object::InetSocket(_) => return Err(Halt::Block),
            _ => return Err(Errno::ENOTSOCK.into()),
        };
        let (bytes, came) = self.pairs[pair].take(side, 1).ok_or(Halt::Block)??;
        let mut came = came.into_iter();
        let mut truncated = false;
        let mut fd = None;
        if let Some(description) = came.next() {
            let slot = Slot { description, cloexec: true };
            fd = self.put(me, slot).ok();
            truncated = fd.is_none();
        }
        for description in came {
            self.release(Slot { description, cloexec: true });
            truncated = true;
        }
        Ok(Received { byte: bytes.first().copied(), fd, truncated })
    }

    /// Returns the present result of a poll: the number of descriptors with events, and the events (poll(2)).
    pub(super) fn polled(&self, me: Task, fds: &[PollFd]) -> (usize, Vec<PollFd>) {
        let fds: Vec<PollFd> = fds
            .iter()
            .map(|fd| {
                let found = self.poll_one(me, fd.fd);
                let asked = fd.events.0 | POLLERR | POLLHUP | POLLNVAL;
                PollFd { revents: PollEvents(found & asked), ..*fd }
            })
            .collect();
        (fds.iter().filter(|fd| fd.revents.0 != 0).count(), fds)
    }

    /// Looks at the next descriptor of a poll. Returns the events after the last one.
    pub(super) fn polled_slowly(&mut self, me: Task, fds: &[PollFd]) -> Option<(usize, Vec<PollFd>)> {
        let next = fds.get(self.process(me).looked.len());
        let found = next.map(|fd| self.polled(me, std::slice::from_ref(fd)).1).unwrap_or_default();
        let looked = &mut self.process_mut(me).looked;
        looked.extend(found);
        (looked.len() == fds.len()).then(|| {
            let fds = std::mem::take(looked);
            (fds.iter().filter(|fd| fd.revents.0 != 0).count(), fds)
        })
    }

    fn poll_one(&self, me: Task, fd: Fd) -> i16 {
        let (input, output) = (PollEvents::IN.0, PollEvents::OUT.0);
        let bits = |set: bool, bit: i16| if set { bit } else { 0 };
        if fd.0 < 0 {
            return 0;
        }
        let Ok(object) = self.object(me, fd) else { return POLLNVAL };
        match *object {
            Object::Socket(pair, side) => {
                let Pair { bytes, capacity, open, reset, .. } = &self.pairs[pair];
                let (own, peer) = (side, 1 - side);
                bits(!bytes[own].is_empty() || !open[peer], input)
                    | bits(bytes[peer].len() < *capacity, output)
                    | bits(!open[peer], POLLHUP)
                    | bits(reset[own], POLLERR)
            }
            Object::PipeRead(pipe) => {
                let pipe = &self.pipes[pipe];
                bits(!pipe.bytes.is_empty(), input) | bits(pipe.writers == 0, POLLHUP)
            }
            Object::PipeWrite(pipe) => {
                let pipe = &self.pipes[pipe];
                bits(pipe.bytes.len() + PIPE_BUF.min(pipe.capacity) <= pipe.capacity, output)
                    | bits(pipe.readers == 0, POLLERR)
            }
            Object::InetSocket(_) => output,
            Object::Pidfd(task) => bits(self.process(task).has_ended(), input),
            Object::PathOnly(_)
            | Object::ProcRoot(_)
            | Object::ProcDir(_, Access::PathOnly)
            | Object::FdList(_, Access::PathOnly) => POLLNVAL,
            _ => input | output,
        }
    }
}
