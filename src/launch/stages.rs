//! The processes of a launch, as the launcher knows them ([`Stages`]): it waits for them, and ends those of a
//! failed launch.

use super::outcome::{Ended, FailureKind, STAGES, Step, WaitedFor};
use super::pipes::{LogReader, Pipes, close, read_some};
use super::watch::{Ready, Watch};
use crate::scripts::pipe::uninterrupted;
use crate::sys::Sys;
use crate::sys::types::{Errno, Fd, Pid, PollEvents, PollFd, Signal, SysResult, WaitFor, WaitStatus, Waited};

/// The timeout of a poll of the log pipe after a failure, in milliseconds. After it the launcher kills
/// stopped stages.
const GRACE_MS: i32 = 200;

/// The number of [`GRACE_MS`] without a record after which the launcher kills the known stages, even those
/// that should end by themselves.
const ROUNDS_BEFORE_KILL: u32 = 10;

/// The number of [`GRACE_MS`] without a record after which the launcher gives up. A stage that is left then
/// has survived SIGKILL, or a debugger holds it and its pid is unknown. It ends with the launcher at the
/// latest (PR_SET_PDEATHSIG(2const)).
const ROUNDS_BEFORE_GIVING_UP: u32 = 25;

/// The interval in which a kernel without pidfds (before 5.3) is asked for the end of a stage, in
/// milliseconds.
const POLL_INTERVAL_MS: i32 = 20;

/// The pid and the pidfd of a stage, if the launcher knows them.
#[derive(Clone, Copy, Debug, Default)]
struct Stage {
    pid: Option<Pid>,
    pidfd: Option<Fd>,
}

/// The stages, as the launcher knows them. A direct start has stage 2 only, a start through a child stages 1
/// and 2.
#[derive(Debug)]
pub(super) struct Stages {
    known: [Stage; STAGES],
    ended: [Option<Ended>; STAGES],
    /// The processes to which the launcher has sent SIGKILL.
    killed: [Option<Pid>; STAGES],
    /// Stage 2, from the send of the go byte on: it no longer waits for the init pipe.
    running: Option<Pid>,
    /// Whether every stage has ended or executed the command: the log was read to its end, or wait4(2) found
    /// no child.
    none_left: bool,
    /// Whether a stage could not be killed.
    kill_refused: bool,
    /// Whether stage 2 becomes a minimal init. It never executes, so its exit signal does not change.
    has_init: bool,
    /// Whether stage 2 ends in place of its exec.
    pins: bool,
}

impl Stages {
    /// Notes that stage 0 exists. Its pid is not used again until the launcher has reaped it.
    pub(super) fn new<S: Sys>(sys: &mut S, stage_0: Pid) -> Self {
        let first = Stage { pid: Some(stage_0), pidfd: sys.pidfd_open(stage_0).ok() };
        Self::of([first, Stage::default(), Stage::default()])
    }

    /// Notes the process of a direct start, which becomes the command.
    pub(super) fn of_command(child: Pid, pidfd: Option<Fd>) -> Self {
        Self::of([Stage::default(), Stage::default(), Stage { pid: Some(child), pidfd }])
    }

    const fn of(known: [Stage; STAGES]) -> Self {
        let (ended, killed) = ([None; STAGES], [None; STAGES]);
        let (none_left, kill_refused, has_init, pins) = (false, false, false, false);
        Self { known, ended, killed, running: None, none_left, kill_refused, has_init, pins }
    }

    /// Returns the stages of a launch whose stage 2 may end in place of its exec.
    pub(super) const fn with_pins(mut self, pins: bool) -> Self {
        self.pins = pins;
        self
    }

    /// Checks the command's process at the end of the log: it runs the command, or has ended if there is
    /// none.
    ///
    /// # Errors
    /// Those of [`Self::command_runs`], of [`Self::reap`] and of [`Self::all_succeeded`].
    pub(super) fn check_last<S: Sys>(
        &mut self,
        sys: &mut S,
        watch: &mut Watch,
        child: Pid,
    ) -> Result<(), FailureKind> {
        if !self.pins {
            return self.command_runs(sys, child);
        }
        let [.., stage_2] = &mut self.known;
        // With a pidfd the launcher's calls do not depend on the schedule.
        stage_2.pidfd = sys.pidfd_open(child).ok();
        self.reap(sys, watch, STAGES.saturating_sub(1))?;
        self.all_succeeded()
    }

    /// Returns the stages of a launch whose stage 2 may become a minimal init.
    pub(super) const fn with_init(mut self, has_init: bool) -> Self {
        self.has_init = has_init;
        self
    }

    /// Returns whether this process of a failed launch has certainly ended.
    pub(super) fn has_ended(&self, pid: Pid) -> bool {
        self.none_left || self.is_reaped(pid)
    }

    /// Returns whether the kernel has refused to kill a stage.
    pub(super) const fn kill_refused(&self) -> bool {
        self.kill_refused
    }

    /// Notes stage 1 of a start through a child.
    pub(super) fn of_child<S: Sys>(sys: &mut S, stage_1: Pid) -> Self {
        let child = Stage { pid: Some(stage_1), pidfd: sys.pidfd_open(stage_1).ok() };
        Self::of([Stage::default(), child, Stage::default()])
    }

    /// Fails if the command's process has ended before its exec, and reaps it. Called at the end of the log,
    /// which that process has closed by its exec or its death.
    ///
    /// Makes no call in a start through the stages, or with a minimal init: there a death without a fatal
    /// record is left to the caller's own wait for the command.
    ///
    /// # Errors
    /// [`FailureKind::StageFailed`]; [`FailureKind::Os`] with [`Step::Wait`].
    fn command_runs<S: Sys>(&mut self, sys: &mut S, child: Pid) -> Result<(), FailureKind> {
        let [stage_0, ..] = self.known;
        if stage_0.pid.is_some() || self.has_init {
            return Ok(());
        }
        match wait(sys, child, WaitFor::Stages) {
            Ok(waited) => {
                self.note_end(waited);
                Err(FailureKind::StageFailed)
            }
            // The exec has changed its exit signal to SIGCHLD (wait(2), "Linux notes").
            Err(Errno::ECHILD) => Ok(()),
            Err(errno) => Err(FailureKind::Os { step: Step::Wait, errno }),
        }
    }

    /// Ends the process of a direct start that cannot be completed, and closes everything. That process
    /// still waits for the go byte and has changed nothing.
    pub(super) fn abandon<S: Sys>(&mut self, sys: &mut S, pipes: Pipes) {
        self.kill(sys);
        // Closed before the wait: if a filter refuses kill(2), the end of file ends the process.
        close(sys, pipes.init);
        for pid in self.known.map(|stage| stage.pid).into_iter().flatten() {
            match wait(sys, pid, WaitFor::Stages) {
                Ok(waited) => self.note_end(waited),
                Err(Errno::ECHILD) => self.none_left = true,
                Err(_) => {}
            }
        }
        close(sys, pipes.log);
        self.close(sys);
    }

    /// Notes the pid that stage 1 has sent to the launcher.
    pub(super) const fn note_stage_2(&mut self, stage_2: Pid) {
        let [_, _, two] = &mut self.known;
        *two = Stage { pid: Some(stage_2), pidfd: None };
    }

    /// Waits for `wanted`, or for the end of this stage.
    ///
    /// # Errors
    /// [`FailureKind::Os`] with [`Step::Wait`]; the errors of [`Watch::wait`].
    pub(super) fn await_beside<S: Sys>(
        &mut self,
        sys: &mut S,
        watch: &mut Watch,
        wanted: PollFd,
        stage: usize,
    ) -> Result<Ready, FailureKind> {
        match self.known.get(stage).copied().unwrap_or_default() {
            Stage { pid: Some(pid), pidfd: None } => self.await_by_polling(sys, watch, wanted, pid),
            Stage { pidfd, .. } => watch.wait(sys, wanted, pidfd),
        }
    }

    /// Does the same as [`Self::await_beside`] without a pidfd: asks for the end of the stage every
    /// [`POLL_INTERVAL_MS`]. Notes that end.
    fn await_by_polling<S: Sys>(
        &mut self,
        sys: &mut S,
        watch: &mut Watch,
        wanted: PollFd,
        pid: Pid,
    ) -> Result<Ready, FailureKind> {
        loop {
            let ended = self.is_reaped(pid);
            // What the stage has sent before its end is ready at once.
            if watch.is_ready(sys, wanted, if ended { 0 } else { POLL_INTERVAL_MS })? {
                return Ok(Ready::Wanted);
            }
            if ended {
                return Ok(Ready::Death);
            }
            self.note_if_ended(sys, pid)?;
        }
    }

    /// Reaps this process if it has ended. Returns whether it has.
    ///
    /// # Errors
    /// [`FailureKind::Os`] with [`Step::Wait`].
    fn note_if_ended<S: Sys>(&mut self, sys: &mut S, pid: Pid) -> Result<bool, FailureKind> {
        let waited = wait(sys, pid, WaitFor::StagesNow);
        let waited = waited.map_err(|errno| FailureKind::Os { step: Step::Wait, errno })?;
        let ended = waited.pid == pid && !matches!(waited.status, WaitStatus::Stopped(_));
        if ended {
            self.note_end(waited);
        }
        Ok(ended)
    }

    /// Notes the pids of the pid line.
    pub(super) fn note_pids<S: Sys>(&mut self, sys: &mut S, stage_1: Pid, stage_2: Pid) {
        let [_, one, two] = &mut self.known;
        *one = Stage { pid: Some(stage_1), pidfd: sys.pidfd_open(stage_1).ok() };
        *two = Stage { pid: Some(stage_2), pidfd: None };
    }

    /// Notes that the launcher sends the go byte to stage 2.
    pub(super) const fn note_go(&mut self, stage_2: Pid) {
        self.running = Some(stage_2);
    }

    /// Returns the stage's pidfd, which is readable when the stage has ended. `None` before Linux 5.3.
    pub(super) fn pidfd(&self, stage: usize) -> Option<Fd> {
        self.known.get(stage)?.pidfd
    }

    /// Waits until this stage has ended, and reaps it.
    ///
    /// # Errors
    /// [`FailureKind::Os`] with [`Step::Wait`]; the errors of [`Watch::wait`].
    pub(super) fn reap<S: Sys>(
        &mut self,
        sys: &mut S,
        watch: &mut Watch,
        stage: usize,
    ) -> Result<(), FailureKind> {
        watch.waits_for = WaitedFor::EndOf(u8::try_from(stage).unwrap_or(u8::MAX));
        let Stage { pid, pidfd } = self.known.get(stage).copied().unwrap_or_default();
        let Some(pid) = pid.filter(|pid| !self.is_reaped(*pid)) else { return Ok(()) };
        match pidfd {
            Some(pidfd) => {
                watch.wait(sys, PollFd::new(pidfd, PollEvents::IN), None)?;
                self.close_pidfd(sys, stage);
            }
            None if watch.can_end() => return self.reap_by_polling(sys, watch, pid),
            None => {}
        }
        let waited = wait(sys, pid, WaitFor::Stages);
        let waited = waited.map_err(|errno| FailureKind::Os { step: Step::Wait, errno })?;
        self.note_end(waited);
        Ok(())
    }

    /// Does the same as [`Self::reap`] without a pidfd: asks for the end of the stage every
    /// [`POLL_INTERVAL_MS`], without blocking.
    fn reap_by_polling<S: Sys>(
        &mut self,
        sys: &mut S,
        watch: &mut Watch,
        pid: Pid,
    ) -> Result<(), FailureKind> {
        while !self.note_if_ended(sys, pid)? {
            watch.pause(sys, POLL_INTERVAL_MS)?;
        }
        Ok(())
    }

    /// Checks that every stage reaped so far has exited with status 0.
    ///
    /// # Errors
    /// [`FailureKind::StageFailed`]: a stage had another wait status.
    pub(super) fn all_succeeded(&self) -> Result<(), FailureKind> {
        let mut ended = self.ended.iter().flatten();
        if ended.all(|ended| ended.status == WaitStatus::Exited(0)) {
            Ok(())
        } else {
            Err(FailureKind::StageFailed)
        }
    }

    /// Ends the stages of a failed launch, reads their remaining log records, and reaps them.
    ///
    /// A running stage ends by itself when our end of the init pipe is closed. A stopped stage does not.
    /// After an interrupt or the time limit the launcher sends SIGCONT to all stages, and SIGKILL at once to
    /// a stage 2 that has the go byte. A stage that does not end gets SIGKILL.
    pub(super) fn end<S: Sys, L: LogReader>(
        &mut self,
        sys: &mut S,
        kind: FailureKind,
        pipes: Pipes,
        log: &mut L,
    ) {
        if !kind.lets_stages_end() {
            self.kill(sys);
        }
        close(sys, pipes.init);
        if kind.is_urgent() {
            if let Some(running) = self.running {
                self.kill_one(sys, running);
            }
            self.signal(sys, Signal::CONT);
        }
        // After a fatal record that follows the go byte, the log has been read to its end.
        let all_gone = kind == FailureKind::FatalRecord || self.drain(sys, kind, pipes.log, log);
        self.none_left = all_gone;
        let (stages, command) = match all_gone {
            true => (WaitFor::Stages, WaitFor::Ordinary),
            false => (WaitFor::StagesNow, WaitFor::OrdinaryNow),
        };
        loop {
            match wait(sys, self.own(), stages) {
                Ok(Waited { pid: Pid(0), .. }) => break,
                Ok(waited) => self.note_end(waited),
                Err(errno) => {
                    self.none_left |= errno == Errno::ECHILD;
                    break;
                }
            }
        }
        // If stage 2 executed the command before SIGKILL, it is an ordinary child, whose exit signal is
        // SIGCHLD.
        if let Some(pid) = self.running.filter(|pid| !self.is_reaped(*pid)) {
            if let Ok(waited) = wait(sys, pid, command) {
                self.note_end(waited);
            }
        }
    }

    /// Reads the log until the last stage has closed it. Returns false if a stage still holds it after
    /// [`ROUNDS_BEFORE_GIVING_UP`].
    fn drain<S: Sys, L: LogReader>(&mut self, sys: &mut S, kind: FailureKind, fd: Fd, log: &mut L) -> bool {
        let mut silent: u32 = 0;
        while silent < ROUNDS_BEFORE_GIVING_UP {
            match sys.poll(&mut [PollFd::new(fd, PollEvents::IN)], GRACE_MS) {
                Err(Errno::EINTR) => {}
                Ok(0) => {
                    silent = silent.saturating_add(1);
                    self.kill_stopped(sys);
                    if kind.is_urgent() || silent >= ROUNDS_BEFORE_KILL {
                        self.kill(sys);
                    }
                }
                // If poll(2) fails, the read blocks.
                Ok(_) | Err(_) => {
                    if !read_some(sys, fd, log) {
                        return true;
                    }
                }
            }
        }
        false
    }

    /// Kills stopped stages, including one whose pid the launcher does not know, and notes the stages that
    /// have ended.
    fn kill_stopped<S: Sys>(&mut self, sys: &mut S) {
        while let Ok(waited) = wait(sys, self.own(), WaitFor::StagesNow) {
            match waited.status {
                _ if waited.pid == Pid(0) => return,
                WaitStatus::Stopped(_) => self.kill_one(sys, waited.pid),
                _ => self.note_end(waited),
            }
        }
    }

    /// Sends SIGKILL to each known stage.
    fn kill<S: Sys>(&mut self, sys: &mut S) {
        for pid in self.known.map(|stage| stage.pid).into_iter().flatten() {
            self.kill_one(sys, pid);
        }
    }

    /// Sends SIGKILL to a stage, unless it has been reaped: until then its pid is not used again.
    fn kill_one<S: Sys>(&mut self, sys: &mut S, pid: Pid) {
        if self.is_reaped(pid) {
            return;
        }
        if !self.killed.contains(&Some(pid)) {
            if let Some(free) = self.killed.iter_mut().find(|slot| slot.is_none()) {
                *free = Some(pid);
            }
        }
        // ESRCH: the command has ended, and the kernel or another thread of this program has reaped it.
        let refused = matches!(sys.kill(pid, Signal::KILL), Err(errno) if errno != Errno::ESRCH);
        self.kill_refused |= refused;
    }

    fn signal<S: Sys>(&self, sys: &mut S, signal: Signal) {
        for pid in self.known.iter().filter_map(|stage| stage.pid) {
            if !self.is_reaped(pid) {
                let _ = sys.kill(pid, signal);
            }
        }
    }

    /// Returns the process to wait for: the command's, if it is the only one that is left, or any of the
    /// stages, of which the launcher may not know all pids. The program itself may have other children
    /// without an exit signal.
    fn own(&self) -> Pid {
        match self.known {
            [Stage { pid: None, .. }, one, Stage { pid: Some(command), .. }]
                if one.pid.is_none_or(|pid| self.is_reaped(pid)) =>
            {
                command
            }
            _ => Pid::ANY,
        }
    }

    fn is_reaped(&self, pid: Pid) -> bool {
        self.ended.iter().flatten().any(|ended| ended.pid == pid)
    }

    /// Notes how a stage ended.
    fn note_end(&mut self, Waited { pid, status }: Waited) {
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

    /// Closes the remaining pidfds.
    pub(super) fn close<S: Sys>(&mut self, sys: &mut S) {
        for stage in 0..STAGES {
            self.close_pidfd(sys, stage);
        }
    }

    /// Returns how the stages ended, in the order in which they were reaped.
    pub(super) fn ended(&mut self) -> [Option<Ended>; STAGES] {
        let [_, one, _] = &self.known;
        let unknown_one = if one.pid.is_some() { 2 } else { 1 };
        // Stage 1 creates stage 2. So of two unknown stages the one with the lower pid is stage 1. If pids
        // wrap around in between (pid_max in proc(5)), the two are exchanged.
        let mut unknown = self.ended.iter_mut().flatten().filter(|ended| ended.stage.is_none());
        match (unknown.next(), unknown.next()) {
            (Some(one), None) => one.stage = Some(unknown_one),
            (Some(one), Some(other)) => {
                let (first, second) = if one.pid < other.pid { (one, other) } else { (other, one) };
                (first.stage, second.stage) = (Some(1), Some(2));
            }
            _ => {}
        }
        self.ended
    }
}

pub(super) fn wait<S: Sys>(sys: &mut S, pid: Pid, which: WaitFor) -> SysResult<Waited> {
    uninterrupted(sys, |sys| sys.wait4(pid, which))
}

#[cfg(test)]
#[path = "stages_tests.rs"]
mod tests;
