//! What the launcher waits for, and the stages that it waits for.
//!
//! No wait of the launcher is for one thing alone. Somebody may stop a stage for any time: with SIGSTOP, by a freezer, or,
//! in `nsexec enter`, as root of the container, which sees stage 2. So every wait also ends when a signal asks for the end of
//! the launch, or when its time is over, and a failed launch looks for stopped stages instead of waiting for them.

use super::script::{Ended, LogReader, Pipes, STAGES, Step, Trouble, close, read_some};
use crate::sys::Sys;
use crate::sys::types::{Errno, Fd, Pid, PollEvents, PollFd, Signal, SysResult, WaitFor, WaitStatus, Waited};

/// How long the stages of a failed launch may be silent before the launcher looks after them, in milliseconds.
const GRACE_MS: i32 = 200;

/// After so many silent [`GRACE_MS`] the known stages are killed, also where they should end by themselves.
const PATIENCE: u32 = 10;

/// After so many silent [`GRACE_MS`] the launcher gives up. A stage that is left then has survived SIGKILL, or was never
/// known and is held by a debugger. It ends with the launcher at the latest (PR_SET_PDEATHSIG(2const)).
const GIVE_UP: u32 = 25;

/// How often to look for the end of a stage on a kernel without pidfds (before 5.3), in milliseconds.
const LOOK_MS: i32 = 20;

/// Which of two things a wait was ended by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ready {
    /// The one that was waited for.
    Wanted,
    /// The end of a process, without which the wanted one never comes.
    Death,
}

/// What may end a launch at any of its waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watch {
    /// A signalfd.
    pub(super) interrupt: Option<Fd>,
    /// A timerfd.
    pub(super) timer: Option<Fd>,
}

impl Watch {
    /// Waits for `wanted`, and for the pidfd `death` if there is one.
    ///
    /// Where several are ready, `wanted` goes first, then `death`: in a run without faults the reply of this poll never
    /// varies in what the launcher does.
    ///
    /// # Errors
    /// [`Trouble::Interrupted`] or [`Trouble::TimedOut`].
    pub(super) fn wait<S: Sys>(
        &mut self,
        sys: &mut S,
        wanted: PollFd,
        death: Option<Fd>,
    ) -> Result<Ready, Trouble> {
        loop {
            let found = match self.poll(sys, Some(wanted), death, -1) {
                Ok(found) => found,
                Err(Errno::EINTR) => continue,
                // Without a poll, the call that follows waits by itself, and cannot be interrupted.
                Err(_) => return Ok(Ready::Wanted),
            };
            if found.events_of(Some(wanted.fd)) != PollEvents::NONE {
                return Ok(Ready::Wanted);
            }
            if found.events_of(death) != PollEvents::NONE {
                return Ok(Ready::Death);
            }
            self.end_of_launch(sys, &found)?;
        }
    }

    /// Lets [`LOOK_MS`] pass.
    ///
    /// # Errors
    /// As [`Self::wait`].
    fn pause<S: Sys>(&mut self, sys: &mut S) -> Result<(), Trouble> {
        match self.poll(sys, None, None, LOOK_MS) {
            Ok(found) => self.end_of_launch(sys, &found),
            Err(_) => Ok(()),
        }
    }

    /// Whether a signal or a timer may end the launch.
    const fn can_end(&self) -> bool {
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
        let all = [wanted, death.map(readable), self.interrupt.map(readable), self.timer.map(readable)];
        let mut found = Found { fds: [PollFd::new(Fd(-1), PollEvents::NONE); 4], count: 0 };
        for (slot, fd) in found.fds.iter_mut().zip(all.into_iter().flatten()) {
            *slot = fd;
            found.count = found.count.saturating_add(1);
        }
        sys.poll(found.fds.get_mut(..found.count).unwrap_or_default(), timeout_ms)?;
        Ok(found)
    }

    /// Looks whether a signal has come, or the time is over. A descriptor that is neither readable nor usable is forgotten:
    /// the launch goes on without it.
    fn end_of_launch<S: Sys>(&mut self, sys: &mut S, found: &Found) -> Result<(), Trouble> {
        let interrupt = found.events_of(self.interrupt);
        if let Some(fd) = self.interrupt.filter(|_| interrupt.contains(PollEvents::IN)) {
            match read_signal(sys, fd) {
                Ok(signal) => return Err(Trouble::Interrupted(signal)),
                // Another reader of the same signals has taken it.
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(_) => self.interrupt = None,
            }
        } else if interrupt != PollEvents::NONE {
            self.interrupt = None;
        }
        match found.events_of(self.timer) {
            PollEvents::NONE => {}
            events if events.contains(PollEvents::IN) => return Err(Trouble::TimedOut),
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
    /// The events of this descriptor.
    fn events_of(&self, fd: Option<Fd>) -> PollEvents {
        let polled = self.fds.iter().take(self.count).find(|polled| Some(polled.fd) == fd);
        polled.map_or(PollEvents::NONE, |polled| polled.revents)
    }
}

/// The number at the beginning of a record of a signalfd (signalfd(2)).
fn read_signal<S: Sys>(sys: &mut S, fd: Fd) -> SysResult<Signal> {
    // struct signalfd_siginfo; a kernel gives whole ones.
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

/// One stage, as far as the launcher knows it.
#[derive(Clone, Copy, Debug, Default)]
struct Stage {
    pid: Option<Pid>,
    pidfd: Option<Fd>,
}

/// The three stages, as far as the launcher knows them.
#[derive(Debug)]
pub(super) struct Stages {
    known: [Stage; STAGES],
    ended: [Option<Ended>; STAGES],
    /// To which processes the launcher has sent SIGKILL.
    killed: [Option<Pid>; STAGES],
    /// Stage 2 once it has the word to go: the init pipe no longer holds it back.
    running: Option<Pid>,
}

impl Stages {
    /// Stage 0 has just been made. Its pid is its own until the launcher has reaped it.
    pub(super) fn new<S: Sys>(sys: &mut S, stage_0: Pid) -> Self {
        let first = Stage { pid: Some(stage_0), pidfd: sys.pidfd_open(stage_0).ok() };
        let known = [first, Stage::default(), Stage::default()];
        Self { known, ended: [None; STAGES], killed: [None; STAGES], running: None }
    }

    /// The pid line has come.
    pub(super) fn learn<S: Sys>(&mut self, sys: &mut S, stage_1: Pid, stage_2: Pid) {
        let [_, one, two] = &mut self.known;
        *one = Stage { pid: Some(stage_1), pidfd: sys.pidfd_open(stage_1).ok() };
        *two = Stage { pid: Some(stage_2), pidfd: None };
    }

    /// Stage 2 gets the word to go.
    pub(super) const fn may_run(&mut self, stage_2: Pid) {
        self.running = Some(stage_2);
    }

    /// What is readable when this stage has ended, before Linux 5.3 nothing.
    pub(super) fn pidfd(&self, stage: usize) -> Option<Fd> {
        self.known.get(stage)?.pidfd
    }

    /// Waits until this stage has ended, and reaps it.
    ///
    /// # Errors
    /// [`Trouble::Os`] with [`Step::Wait`]; as [`Watch::wait`].
    pub(super) fn reap<S: Sys>(
        &mut self,
        sys: &mut S,
        watch: &mut Watch,
        stage: usize,
    ) -> Result<(), Trouble> {
        let Stage { pid, pidfd } = self.known.get(stage).copied().unwrap_or_default();
        let Some(pid) = pid else { return Ok(()) };
        match pidfd {
            Some(pidfd) => {
                watch.wait(sys, PollFd::new(pidfd, PollEvents::IN), None)?;
                self.close_pidfd(sys, stage);
            }
            None if watch.can_end() => return self.look_until_it_ends(sys, watch, pid),
            None => {}
        }
        let waited = wait(sys, pid, WaitFor::Stages);
        let waited = waited.map_err(|errno| Trouble::Os { step: Step::Wait, errno })?;
        self.has_ended(waited);
        Ok(())
    }

    /// As [`Self::reap`], without a pidfd.
    fn look_until_it_ends<S: Sys>(
        &mut self,
        sys: &mut S,
        watch: &mut Watch,
        pid: Pid,
    ) -> Result<(), Trouble> {
        loop {
            let waited = wait(sys, pid, WaitFor::StagesNow);
            let waited = waited.map_err(|errno| Trouble::Os { step: Step::Wait, errno })?;
            if waited.pid == pid && !matches!(waited.status, WaitStatus::Stopped(_)) {
                self.has_ended(waited);
                return Ok(());
            }
            watch.pause(sys)?;
        }
    }

    /// # Errors
    /// [`Trouble::StageFailed`] if one of those that have ended did so with another status than 0.
    pub(super) fn all_succeeded(&self) -> Result<(), Trouble> {
        let mut ended = self.ended.iter().flatten();
        if ended.all(|ended| ended.status == WaitStatus::Exited(0)) {
            Ok(())
        } else {
            Err(Trouble::StageFailed)
        }
    }

    /// Ends the stages of a failed launch, reads what they still log, and reaps them.
    ///
    /// They end by themselves when our end of the init pipe is closed. One that is stopped does not; it is continued where
    /// the caller wants the end at once, and killed where it does not end then.
    pub(super) fn end<S: Sys, L: LogReader>(
        &mut self,
        sys: &mut S,
        trouble: Trouble,
        pipes: Pipes,
        log: &mut L,
    ) {
        if !trouble.ends_them() {
            self.kill(sys);
        }
        close(sys, pipes.init);
        if trouble.is_urgent() {
            if let Some(running) = self.running {
                self.kill_one(sys, running);
            }
            self.signal(sys, Signal::CONT);
        }
        // With a fatal record after the word to go the log has been read to its end.
        let all_gone = trouble == Trouble::FatalRecord || self.drain(sys, trouble, pipes.log, log);
        let (stages, command) = match all_gone {
            true => (WaitFor::Stages, WaitFor::Ordinary),
            false => (WaitFor::StagesNow, WaitFor::OrdinaryNow),
        };
        // ECHILD: none is left.
        while let Ok(waited) = wait(sys, Pid::ANY, stages) {
            if waited.pid == Pid(0) {
                break;
            }
            self.has_ended(waited);
        }
        // The command may have been executed before SIGKILL came. Then it ends with SIGCHLD, as any other child.
        if let Some(pid) = self.running.filter(|pid| !self.is_reaped(*pid)) {
            if let Ok(waited) = wait(sys, pid, command) {
                self.has_ended(waited);
            }
        }
    }

    /// Reads the log until the last stage has closed it. Returns false if that never happened.
    fn drain<S: Sys, L: LogReader>(&mut self, sys: &mut S, trouble: Trouble, fd: Fd, log: &mut L) -> bool {
        let mut silent: u32 = 0;
        while silent < GIVE_UP {
            match sys.poll(&mut [PollFd::new(fd, PollEvents::IN)], GRACE_MS) {
                Err(Errno::EINTR) => {}
                Ok(0) => {
                    silent = silent.saturating_add(1);
                    self.kill_stopped(sys);
                    if trouble.is_urgent() || silent >= PATIENCE {
                        self.kill(sys);
                    }
                }
                // Without a poll, the read waits.
                Ok(_) | Err(_) => {
                    if !read_some(sys, fd, log) {
                        return true;
                    }
                }
            }
        }
        false
    }

    /// Kills stages that are stopped, also one whose pid the launcher never learnt, and notes which have ended.
    fn kill_stopped<S: Sys>(&mut self, sys: &mut S) {
        while let Ok(waited) = wait(sys, Pid::ANY, WaitFor::StagesNow) {
            match waited.status {
                _ if waited.pid == Pid(0) => return,
                WaitStatus::Stopped(_) => self.kill_one(sys, waited.pid),
                _ => self.has_ended(waited),
            }
        }
    }

    /// SIGKILL to each known stage.
    fn kill<S: Sys>(&mut self, sys: &mut S) {
        for pid in self.known.map(|stage| stage.pid).into_iter().flatten() {
            self.kill_one(sys, pid);
        }
    }

    /// SIGKILL to a stage that has not been reaped: until then the number is its own.
    fn kill_one<S: Sys>(&mut self, sys: &mut S, pid: Pid) {
        if self.is_reaped(pid) {
            return;
        }
        if !self.killed.contains(&Some(pid)) {
            if let Some(free) = self.killed.iter_mut().find(|slot| slot.is_none()) {
                *free = Some(pid);
            }
        }
        // ESRCH cannot be: no other process reaps it.
        let _ = sys.kill(pid, Signal::KILL);
    }

    fn signal<S: Sys>(&self, sys: &mut S, signal: Signal) {
        for pid in self.known.iter().filter_map(|stage| stage.pid) {
            if !self.is_reaped(pid) {
                let _ = sys.kill(pid, signal);
            }
        }
    }

    fn is_reaped(&self, pid: Pid) -> bool {
        self.ended.iter().flatten().any(|ended| ended.pid == pid)
    }

    /// Notes how a stage ended.
    fn has_ended(&mut self, Waited { pid, status }: Waited) {
        let known = self.known.iter().zip(0_u8..).find(|(stage, _)| stage.pid == Some(pid));
        let stage = known.map(|(_, stage)| stage);
        let killed = self.killed.contains(&Some(pid)) && status == WaitStatus::Signaled(Signal::KILL);
        if let Some(free) = self.ended.iter_mut().find(|slot| slot.is_none()) {
            *free = Some(Ended { stage, pid, status, killed });
        }
    }

    fn close_pidfd<S: Sys>(&mut self, sys: &mut S, stage: usize) {
        if let Some(fd) = self.known.get_mut(stage).and_then(|stage| stage.pidfd.take()) {
            close(sys, fd);
        }
    }

    /// Closes what is left of its descriptors.
    pub(super) fn close<S: Sys>(&mut self, sys: &mut S) {
        for stage in 0..STAGES {
            self.close_pidfd(sys, stage);
        }
    }

    /// How the stages ended, in the order in which they were reaped.
    pub(super) fn into_ended(mut self) -> [Option<Ended>; STAGES] {
        // Stage 2 never comes without stage 1, and after it: of two unknown ones the lower number is stage 1's. Numbers can
        // wrap around (pid_max in proc(5)); then the two change names.
        let mut strangers = self.ended.iter_mut().flatten().filter(|ended| ended.stage.is_none());
        match (strangers.next(), strangers.next()) {
            (Some(one), None) => one.stage = Some(1),
            (Some(one), Some(other)) => {
                let (first, second) = if one.pid < other.pid { (one, other) } else { (other, one) };
                (first.stage, second.stage) = (Some(1), Some(2));
            }
            _ => {}
        }
        self.ended
    }
}

fn wait<S: Sys>(sys: &mut S, pid: Pid, which: WaitFor) -> SysResult<Waited> {
    loop {
        match sys.wait4(pid, which) {
            Err(Errno::EINTR) => {}
            result => return result,
        }
    }
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
