//! The private protocol of the stages: its messages, and the ends of the sync pipes.
//!
//! The values are those of runc's C code, four bytes in host order, so that error texts with a number mean
//! the same in both. They never leave the three stages.

use core::marker::PhantomData;

use crate::scripts::pipe::{read_full, send_all, uninterrupted};
use crate::sys::Sys;
use crate::sys::types::{Errno, Fd, Pid, PollEvents, PollFd};
use crate::words::error::{Doing, Error, SyncPipe, SyncStep};

/// A message from one stage to another.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SyncMessage {
    /// Stage 1 requests its maps.
    UsermapPls,
    /// Stage 0 has written the maps.
    UsermapAck,
    /// Stage 1 announces the pid of stage 2, which follows.
    RecvpidPls,
    /// Stage 0 has received the pid.
    RecvpidAck,
    /// Stage 0 lets stage 2 run.
    Grandchild,
    /// Stage 1, or stage 2, has completed.
    ChildFinish,
    /// Stage 1 requests its time offsets.
    TimeoffsetsPls,
    /// Stage 0 has written the time offsets.
    TimeoffsetsAck,
    /// Stage 1 requests its mount sources, in 1.1. runc later reused this value for the time offsets, as it
    /// reused the attribute number.
    #[cfg(feature = "legacy")]
    MountsourcesPls,
    /// Stage 0 has sent the mount sources.
    #[cfg(feature = "legacy")]
    MountsourcesAck,
    /// In the seed: a stage has failed and has reported the cause. The exit status for stage 0 follows.
    #[cfg(feature = "legacy")]
    Failed,
}

impl SyncMessage {
    /// Returns the value that is sent.
    #[must_use]
    pub const fn value(self) -> u32 {
        match self {
            Self::UsermapPls => 0x40,
            Self::UsermapAck => 0x41,
            Self::RecvpidPls => 0x42,
            Self::RecvpidAck => 0x43,
            Self::Grandchild => 0x44,
            Self::ChildFinish => 0x45,
            Self::TimeoffsetsPls => 0x46,
            Self::TimeoffsetsAck => 0x47,
            #[cfg(feature = "legacy")]
            Self::MountsourcesPls => 0x46,
            #[cfg(feature = "legacy")]
            Self::MountsourcesAck => 0x47,
            #[cfg(feature = "legacy")]
            Self::Failed => 0xff,
        }
    }
}

/// A sync pipe with both ends, before the fork.
#[derive(Debug)]
pub struct Pair {
    pipe: SyncPipe,
    child: Fd,
    parent: Fd,
    init_pipe: Fd,
}

/// Marks the end that stage 0 keeps.
#[derive(Debug)]
pub enum OfParent {}

/// Marks the end that stage 1 or stage 2 keeps.
#[derive(Debug)]
pub enum OfChild {}

/// One end of a sync pipe. It is created only from a [`Pair`], whose other end is closed in the same step.
#[derive(Debug)]
pub struct End<Side> {
    pipe: SyncPipe,
    fd: Fd,
    init_pipe: Fd,
    side: PhantomData<Side>,
}

impl Pair {
    /// Creates a pair, close-on-exec: the mapping tool must not hold an end of the pair. A stage that waits
    /// on an end also watches `init_pipe`, whose hang-up means that the launcher is dead.
    ///
    /// # Errors
    /// [`Doing::MakeSyncPipe`].
    pub fn open<'m, S: Sys>(sys: &mut S, pipe: SyncPipe, init_pipe: Fd) -> Result<Self, Error<'m>> {
        let (child, parent) =
            sys.socketpair().map_err(|errno| Error::Os { doing: Doing::MakeSyncPipe(pipe), errno })?;
        Ok(Self { pipe, child, parent, init_pipe })
    }

    /// Keeps stage 0's end and closes the other, so that the death of the peer causes an end of file.
    ///
    /// # Errors
    /// [`Doing::CloseSyncPipe`].
    pub fn into_parent<'m, S: Sys>(self, sys: &mut S) -> Result<End<OfParent>, Error<'m>> {
        close(sys, self.pipe, 0, self.child)?;
        Ok(End { pipe: self.pipe, fd: self.parent, init_pipe: self.init_pipe, side: PhantomData })
    }

    /// Keeps the end of stage 1 or stage 2 and closes the end of stage 0.
    ///
    /// # Errors
    /// [`Doing::CloseSyncPipe`].
    pub fn into_child<'m, S: Sys>(self, sys: &mut S) -> Result<End<OfChild>, Error<'m>> {
        close(sys, self.pipe, 1, self.parent)?;
        Ok(End { pipe: self.pipe, fd: self.child, init_pipe: self.init_pipe, side: PhantomData })
    }

    /// Closes both ends: no process was created.
    #[cfg(feature = "std")]
    pub(crate) fn close<S: Sys>(self, sys: &mut S) {
        for fd in [self.child, self.parent] {
            // close(2) frees the number even if it returns an error.
            let _ = sys.close(fd);
        }
    }
}

fn close<'m, S: Sys>(sys: &mut S, pipe: SyncPipe, end: u8, fd: Fd) -> Result<(), Error<'m>> {
    match sys.close(fd) {
        // On Linux, close(2) frees the descriptor even if it fails with EINTR.
        Ok(()) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(Error::Os { doing: Doing::CloseSyncPipe(pipe, end), errno }),
    }
}

impl End<OfChild> {
    /// Closes this end.
    ///
    /// # Errors
    /// [`Doing::CloseSyncPipe`].
    pub fn close<'m, S: Sys>(self, sys: &mut S) -> Result<(), Error<'m>> {
        close(sys, self.pipe, 0, self.fd)
    }
}

impl<Side> End<Side> {
    /// Returns the descriptor, for a poll.
    #[must_use]
    pub fn fd(&self) -> Fd {
        self.fd
    }

    /// Sends `message`.
    ///
    /// # Errors
    /// [`Doing::Sync`] with `step`; `EPIPE` if the peer is dead.
    pub fn send<'m, S: Sys>(
        &self,
        sys: &mut S,
        message: SyncMessage,
        step: SyncStep,
    ) -> Result<(), Error<'m>> {
        self.send_word(sys, message.value(), step)
    }

    /// Waits for `message`.
    ///
    /// # Errors
    /// [`Error::Short`] if the peer died, [`Error::UnexpectedSync`] if it sent another value,
    /// [`Error::LauncherGone`] if the launcher died first. In the dialect `seed`, the failure that the
    /// peer has reported is an error too.
    pub fn expect<'m, S: Sys>(
        &self,
        sys: &mut S,
        message: SyncMessage,
        step: SyncStep,
    ) -> Result<(), Error<'m>> {
        match self.receive_word(sys, step)? {
            value if value == message.value() => Ok(()),
            #[cfg(feature = "legacy")]
            value if value == SyncMessage::Failed.value() => {
                let status = self.receive_word(sys, step)?;
                Err(Error::Legacy(crate::legacy::Failure::Reported { status }))
            }
            value => Err(Error::UnexpectedSync { step, value }),
        }
    }

    /// Sends a pid. Both ends are in the same pid namespace or see the same numbers.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub fn send_pid<'m, S: Sys>(&self, sys: &mut S, pid: Pid, step: SyncStep) -> Result<(), Error<'m>> {
        self.send_word(sys, u32::from_ne_bytes(pid.0.to_ne_bytes()), step)
    }

    /// Receives a process id.
    ///
    /// # Errors
    /// As [`Self::expect`]. A pid below 1 is an [`Error::UnexpectedSync`], since `kill` gives 0 and −1
    /// another meaning.
    pub fn expect_pid<'m, S: Sys>(&self, sys: &mut S, step: SyncStep) -> Result<Pid, Error<'m>> {
        let value = self.receive_word(sys, step)?;
        match i32::from_ne_bytes(value.to_ne_bytes()) {
            pid if pid > 0 => Ok(Pid(pid)),
            _ => Err(Error::UnexpectedSync { step, value }),
        }
    }

    fn send_word<'m, S: Sys>(&self, sys: &mut S, word: u32, step: SyncStep) -> Result<(), Error<'m>> {
        send_all(sys, self.fd, &word.to_ne_bytes())
            .map_err(|errno| Error::Os { doing: Doing::Sync(step), errno })
    }

    /// Waits until this end is ready for `events`, or the launcher is dead.
    ///
    /// The peer may be stopped for any time (SIGSTOP, a freezer, a container's root). This stage must
    /// nevertheless end when the launcher is dead. Of the init pipe only the hang-up counts: bytes in it are
    /// for the init. In a run without faults it never hangs up, since the launcher keeps its end open. A pipe
    /// or FIFO that this stage itself holds open for writing never hangs up either.
    ///
    /// # Errors
    /// [`Error::LauncherGone`].
    pub(crate) fn wait_for<'m, S: Sys>(
        &self,
        sys: &mut S,
        events: PollEvents,
        doing: Doing<'m>,
    ) -> Result<(), Error<'m>> {
        // The init pipe comes first, because poll(2) checks them in this order. The peer may end, and then
        // the launcher, between the two checks. If poll finds the launcher's end, it then finds the peer's.
        let mut ready = [PollFd::new(self.init_pipe, PollEvents::NONE), PollFd::new(self.fd, events)];
        if uninterrupted(sys, |sys| sys.poll(&mut ready, -1)).is_err() {
            // If poll(2) fails, the call that follows blocks.
            return Ok(());
        }
        let [launcher, peer] = ready;
        // Events of the peer have priority: they may be the reason why the launcher ended.
        if peer.revents == PollEvents::NONE && launcher.revents.contains(PollEvents::HUP) {
            return Err(Error::LauncherGone { doing });
        }
        Ok(())
    }

    fn receive_word<'m, S: Sys>(&self, sys: &mut S, step: SyncStep) -> Result<u32, Error<'m>> {
        let mut word = [0; 4];
        let doing = Doing::Sync(step);
        self.wait_for(sys, PollEvents::IN, doing)?;
        match read_full(sys, self.fd, &mut word) {
            Ok(got) if got == word.len() => Ok(u32::from_ne_bytes(word)),
            Ok(got) => Err(Error::Short { doing, got, want: word.len() }),
            Err(errno) => Err(Error::Os { doing, errno }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::MockSys;

    fn end() -> End<OfParent> {
        End { pipe: SyncPipe::Child, fd: Fd(3), init_pipe: Fd(4), side: PhantomData }
    }

    /// Returns the result of a wait for a message, if the poll reports these events of the init pipe and of
    /// the sync pipe.
    fn awaited(events: [PollEvents; 2], word: Option<u32>) -> Result<u32, Error<'static>> {
        let mut sys = MockSys::new();
        let mut polls = [Err(Errno::EINTR), Ok(events)].into_iter();
        sys.expect_poll().times(2).returning(move |fds, timeout| {
            // In this order, so that an end of the peer before that of the launcher is not missed.
            assert_eq!((fds[0].fd, fds[1].fd, timeout), (Fd(4), Fd(3), -1));
            assert_eq!((fds[0].events, fds[1].events), (PollEvents::NONE, PollEvents::IN));
            for (fd, events) in fds.iter_mut().zip(polls.next().expect("two polls")?) {
                fd.revents = events;
            }
            Ok(1)
        });
        if let Some(word) = word {
            sys.expect_read().once().returning(move |_, buffer| {
                buffer.copy_from_slice(&word.to_ne_bytes());
                Ok(4)
            });
        }
        end().receive_word(&mut sys, SyncStep::Stage1Next)
    }

    #[test]
    fn dead_launcher_ends_the_wait_for_a_peer() {
        let gone = Error::LauncherGone { doing: Doing::Sync(SyncStep::Stage1Next) };
        assert_eq!(awaited([PollEvents::HUP, PollEvents::NONE], None), Err(gone));
        // A message that has arrived is read first.
        assert_eq!(awaited([PollEvents::HUP, PollEvents::IN], Some(7)), Ok(7));
        assert_eq!(awaited([PollEvents::HUP, PollEvents::HUP], Some(7)), Ok(7));
        assert_eq!(awaited([PollEvents::NONE, PollEvents::IN], Some(7)), Ok(7));
    }

    /// kill(2) sends to the own process group for 0, and to all processes for -1.
    #[test]
    fn received_pid_below_1_is_an_error() {
        for (number, is_pid) in [(1, true), (i32::MAX, true), (0, false), (-1, false), (i32::MIN, false)] {
            let mut sys = MockSys::new();
            sys.expect_poll().once().returning(|_, _| Ok(1));
            sys.expect_read().once().returning(move |_, word| {
                word.copy_from_slice(&number.to_ne_bytes());
                Ok(4)
            });
            let end = end();
            let found = end.expect_pid(&mut sys, SyncStep::Stage2Pid);
            assert_eq!(found.ok(), is_pid.then_some(Pid(number)), "{number}");
        }
    }
}
