//! The launcher's waits ([`Watch`]).
//!
//! A stage can be stopped at any time: by SIGSTOP or by a freezer. In `nsexec enter`, root of the container,
//! which sees stage 2, can stop that stage too. So each wait of a launcher with a signalfd or a timerfd also
//! ends when one of them becomes readable. Only a supervised launcher has a signalfd
//! ([`Launcher::supervised`](super::Launcher::supervised)), without the signals that the caller ignores or
//! blocks. Only a launcher with a time limit has a timerfd. A launcher with neither, on a kernel without
//! pidfds (before 5.3), blocks in wait4(2) until the stage ends. A failed launch kills stopped stages, and
//! ends 5 s after the last record at the latest.

use super::outcome::{FailureKind, WaitedFor};
use crate::sys::Sys;
use crate::sys::types::{Errno, Fd, PollEvents, PollFd, Signal, SysResult};

/// The event that ended a wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ready {
    /// The wanted descriptor is ready.
    Wanted,
    /// A process ended. Without that process the wanted event never comes.
    Death,
}

/// The descriptors that end a launch early, if they become readable during one of its waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watch {
    /// A signalfd for signals that end a launch; `None` for a launcher that is not supervised.
    pub(super) interrupt: Option<Fd>,
    /// A timerfd; `None` without a time limit.
    pub(super) timer: Option<Fd>,
    /// What the launcher waits for next, for the error of the time limit.
    pub(super) waits_for: WaitedFor,
}

impl Watch {
    /// Returns a watch of these descriptors.
    pub(super) const fn new(interrupt: Option<Fd>, timer: Option<Fd>) -> Self {
        Self { interrupt, timer, waits_for: WaitedFor::Turn }
    }

    /// Waits for `wanted`, and for the pidfd `death` if there is one.
    ///
    /// If several are ready, `wanted` has priority, then `death`. So in a run without faults the launcher's
    /// next call does not depend on the schedule.
    ///
    /// # Errors
    /// [`FailureKind::Interrupted`] or [`FailureKind::TimedOut`].
    pub(super) fn wait<S: Sys>(
        &mut self,
        sys: &mut S,
        wanted: PollFd,
        death: Option<Fd>,
    ) -> Result<Ready, FailureKind> {
        loop {
            let found = match self.poll(sys, Some(wanted), death, -1) {
                Ok(found) => found,
                Err(Errno::EINTR) => continue,
                // If poll(2) fails, the next call of the launcher blocks until it is done.
                Err(_) => return Ok(Ready::Wanted),
            };
            if found.events_of(Some(wanted.fd)) != PollEvents::NONE {
                return Ok(Ready::Wanted);
            }
            if found.events_of(death) != PollEvents::NONE {
                return Ok(Ready::Death);
            }
            self.check_for_end(sys, &found)?;
        }
    }

    /// Waits for `wanted` for this time in milliseconds. Returns whether it is ready.
    ///
    /// # Errors
    /// The same as [`Self::wait`].
    pub(super) fn is_ready<S: Sys>(
        &mut self,
        sys: &mut S,
        wanted: PollFd,
        timeout_ms: i32,
    ) -> Result<bool, FailureKind> {
        match self.poll(sys, Some(wanted), None, timeout_ms) {
            Ok(found) if found.events_of(Some(wanted.fd)) != PollEvents::NONE => Ok(true),
            Ok(found) => self.check_for_end(sys, &found).map(|()| false),
            Err(Errno::EINTR) => Ok(false),
            // If poll(2) fails, the next call of the launcher blocks until it is done.
            Err(_) => Ok(true),
        }
    }

    /// Waits for this time in milliseconds, or until the launch is to end.
    ///
    /// # Errors
    /// The same as [`Self::wait`].
    pub(super) fn pause<S: Sys>(&mut self, sys: &mut S, timeout_ms: i32) -> Result<(), FailureKind> {
        match self.poll(sys, None, None, timeout_ms) {
            Ok(found) => self.check_for_end(sys, &found),
            Err(_) => Ok(()),
        }
    }

    /// Returns whether a signal or a timer can end the launch.
    pub(super) const fn can_end(&self) -> bool {
        self.interrupt.is_some() || self.timer.is_some()
    }

    fn poll<S: Sys>(
        &self,
        sys: &mut S,
        wanted: Option<PollFd>,
        death: Option<Fd>,
        timeout_ms: i32,
    ) -> SysResult<Found> {
        let readable = |fd: Fd| PollFd::new(fd, PollEvents::IN);
        // The pidfd comes before the wanted descriptor, because poll(2) checks them in this order. A process
        // may send its data and end between the two checks. If poll finds the end, it then finds the data.
        let all = [death.map(readable), wanted, self.interrupt.map(readable), self.timer.map(readable)];
        let mut found = Found { fds: [PollFd::new(Fd(-1), PollEvents::NONE); 4], count: 0 };
        for (slot, fd) in found.fds.iter_mut().zip(all.into_iter().flatten()) {
            *slot = fd;
            found.count = found.count.saturating_add(1);
        }
        sys.poll(found.fds.get_mut(..found.count).unwrap_or_default(), timeout_ms)?;
        Ok(found)
    }

    /// Fails if a signal has arrived or the timer has expired. A descriptor with an error event is dropped,
    /// and the launch continues without it.
    fn check_for_end<S: Sys>(&mut self, sys: &mut S, found: &Found) -> Result<(), FailureKind> {
        let interrupt = found.events_of(self.interrupt);
        if let Some(fd) = self.interrupt.filter(|_| interrupt.contains(PollEvents::IN)) {
            match read_signal(sys, fd) {
                Ok(signal) => return Err(FailureKind::Interrupted(signal)),
                // Another reader of the signalfd has read the signal.
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(_) => self.interrupt = None,
            }
        } else if interrupt != PollEvents::NONE {
            self.interrupt = None;
        }
        match found.events_of(self.timer) {
            PollEvents::NONE => {}
            events if events.contains(PollEvents::IN) => {
                return Err(FailureKind::TimedOut(self.waits_for));
            }
            _ => self.timer = None,
        }
        Ok(())
    }
}

/// The reply of one poll.
struct Found {
    fds: [PollFd; 4],
    count: usize,
}

impl Found {
    /// Returns the events of this descriptor.
    fn events_of(&self, fd: Option<Fd>) -> PollEvents {
        let polled = self.fds.iter().take(self.count).find(|polled| Some(polled.fd) == fd);
        polled.map_or(PollEvents::NONE, |polled| polled.revents)
    }
}

/// Reads the signal's number, with which a record of a signalfd begins (signalfd(2)).
fn read_signal<S: Sys>(sys: &mut S, fd: Fd) -> SysResult<Signal> {
    // The size of struct signalfd_siginfo. The kernel returns whole records only.
    const RECORD: usize = 128;
    let mut record = [0; RECORD];
    match sys.read(fd, &mut record)? {
        RECORD => {
            let [one, two, three, four, ..] = record;
            let number = i32::try_from(u32::from_ne_bytes([one, two, three, four]));
            number.map(Signal).map_err(|_| Errno::EINVAL)
        }
        _ => Err(Errno::EINVAL),
    }
}
