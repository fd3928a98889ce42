//! The launcher's half of the protocol: descriptors, fork, message, pid line, the reaping, the word to go.
//!
//! The stages end without SIGCHLD (their exit signal is none, which CLONE_PARENT hands on), so that only a wait for
//! [`WaitFor::Stages`](crate::sys::types::WaitFor::Stages) sees them. A program in which this library runs never takes
//! them by accident, and our own wait for any of them never takes a child of that program. The command's exec turns the
//! signal into SIGCHLD.
//!
//! A launch that joins a mount namespace first makes sure that this program runs from a sealed copy of itself
//! ([`cloned`](crate::cloned)): stage 2 executes a file of that namespace, and the file may be a script whose interpreter is
//! /proc/self/exe, which is our own binary (CVE-2019-5736).

use core::fmt;

use super::tail::{self, Tail};
use crate::bootstrap::dialect::{CGROUP_BYTE, CgroupPlacement, PidLine};
use crate::bootstrap::env::Environment;
use crate::bootstrap::{ByteOrder, decode};
use crate::cloned;
use crate::json::PID_LINE_MAX;
use crate::log::Level;
use crate::namespace::NsKind;
use crate::nsexec::{Scratch, bootstrap, thread_id_cache};
use crate::pipe::send_all;
use crate::policy::Policy;
use crate::stage::Outcome;
use crate::sys::Sys;
use crate::sys::types::{
    CloneFlags, Errno, ExitSignal, Fd, Fork, MaskHow, Pid, PollEvents, PollFd, SigAction, Signal, SignalSet,
    SysResult, WaitFor, WaitStatus,
};

/// The byte that lets stage 2 execute the command. Without it, it ends: the launcher is gone.
pub const GO: u8 = b'G';

/// More than three processes are nobody's: the stages are all that end without SIGCHLD.
pub const STAGES: usize = 3;

/// The signal state that stage 0 begins with, and so the command: what an exec of it would have given.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ChildSignals {
    /// The mask; without one, the mask of the thread that launches.
    pub mask: Option<SignalSet>,
    /// Signals that get their default disposition: those that have a handler, which must not run in a copy of the
    /// program, and SIGPIPE, which Rust's runtime ignores.
    pub default: SignalSet,
    /// Signals that are ignored again: those that the launcher has taken for itself.
    pub ignore: SignalSet,
}

/// Everything that a launch needs to know. All of it is made before the fork.
#[derive(Clone, Copy, Debug)]
pub struct Job<'a> {
    /// The encoded bootstrap message.
    pub message: &'a [u8],
    /// What the message cannot say.
    pub policy: &'a Policy,
    /// The stages' log level.
    pub level: Level,
    /// The stages' signals, and the command's.
    pub signals: ChildSignals,
    /// What ends the launch when it becomes readable: a signalfd, whose records begin with the signal's number.
    pub interrupt: Option<Fd>,
    /// [`run_from_sealed_copy`](super::run_from_sealed_copy) has found the mark of a copy in the environment. It decides
    /// for a copy that cannot have seals.
    pub marked_copy: bool,
    /// What stage 2 does last.
    pub tail: Tail<'a>,
}

/// Who takes what the log pipe gives.
pub trait LogReader {
    /// The next bytes, in pieces of any length.
    fn take(&mut self, bytes: &[u8]);
    /// Whether there has been a fatal record.
    fn fatal(&self) -> bool;
}

/// What a launch comes to, in the process that it comes back in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Launched {
    /// The launcher: the command runs.
    Started {
        /// The command, in the launcher's numbering.
        pid: Pid,
    },
    /// The launcher: nothing runs, nothing is left.
    Failed(Failure),
    /// A stage, or what was to become the command: the edge ends the process with this status.
    Exit(i32),
}

/// Why nothing runs. The cause may be in a fatal record; this says what the launcher itself saw.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Failure {
    /// What it saw first.
    pub trouble: Trouble,
    /// How the stages ended, in the order in which they were reaped.
    pub ended: [Option<Ended>; STAGES],
}

/// How one stage ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ended {
    /// Which one, if that is known.
    pub stage: Option<u8>,
    /// Its pid, in the launcher's numbering.
    pub pid: Pid,
    /// How.
    pub status: WaitStatus,
    /// The launcher itself sent it SIGKILL, because another had failed.
    pub killed: bool,
}

/// What the launcher saw.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// A call of its own was refused.
    Os {
        /// What for.
        step: Step,
        /// How.
        errno: Errno,
    },
    /// The stages ended, and there was no pid line.
    NoPidLine,
    /// The pid line is none.
    BadPidLine,
    /// A stage did not end with status 0.
    StageFailed,
    /// Everything went well, but for a fatal record: the command could not be started.
    FatalRecord,
    /// This signal came before there was a pid line.
    Interrupted(Signal),
    /// A mount namespace was to be joined, and a process in it could write to this program's file.
    NotSealed,
}

/// What the launcher was about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Finding out whether this program is a sealed copy.
    CheckCopy,
    /// The init pipe.
    MakeInitPipe,
    /// The log pipe.
    MakeLogPipe,
    /// Blocking signals over the fork.
    BlockSignals,
    /// The fork of stage 0.
    SpawnStage0,
    /// Sending the message.
    SendMessage,
    /// Reading the pid line.
    ReadPidLine,
    /// Reaping a stage.
    Wait,
    /// Giving the word to go.
    SendGo,
    /// Sending stage 2 the word for its cgroup namespace.
    SendCgroupByte,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CheckCopy => "failed to find out whether this program runs from a sealed copy of itself",
            Self::MakeInitPipe => "failed to make the init pipe",
            Self::MakeLogPipe => "failed to make the log pipe",
            Self::BlockSignals => "failed to block signals",
            Self::SpawnStage0 => "unable to spawn stage-0",
            Self::SendMessage => "failed to send the bootstrap message to stage-0",
            Self::ReadPidLine => "failed to read the pid line",
            Self::Wait => "failed to wait for a stage",
            Self::SendCgroupByte => "failed to tell stage-2 that it is in its cgroup",
            Self::SendGo => "failed to let stage-2 go",
        })
    }
}

/// The two pipes: ours, and what the stages get.
#[derive(Clone, Copy, Debug)]
struct Pipes {
    init: Fd,
    stage_init: Fd,
    log: Fd,
    stage_log: Fd,
}

/// Starts a command in its namespaces.
///
/// We are the launcher, in the caller's namespaces, with the caller's privileges. Nobody waits for us; we wait for the
/// three stages. Stage 0 comes back from here too, and so does stage 2 if it fails: with [`Launched::Exit`].
pub fn launch<S: Sys, L: LogReader>(
    sys: &mut S,
    job: &Job<'_>,
    scratch: &mut Scratch<'_>,
    log: &mut L,
) -> Launched {
    let pipes = match check_copy(sys, job).and_then(|()| make_pipes(sys)) {
        Ok(pipes) => pipes,
        Err(trouble) => return Launched::Failed(Failure { trouble, ended: [None; STAGES] }),
    };
    let tid = thread_id_cache(sys);
    // No handler of the program may run in its copy, before they are all taken away there.
    let forked = match sys.sigprocmask(MaskHow::Block, SignalSet(u64::MAX)) {
        Ok(mask) => match sys.fork(ExitSignal::None, tid) {
            Ok(Fork::Child) => return Launched::Exit(stages(sys, job, pipes, mask, scratch)),
            Ok(Fork::Parent { child }) => Ok((mask, child)),
            Err(errno) => Err((Some(mask), Trouble::Os { step: Step::SpawnStage0, errno })),
        },
        Err(errno) => Err((None, Trouble::Os { step: Step::BlockSignals, errno })),
    };
    close(sys, pipes.stage_init);
    close(sys, pipes.stage_log);
    match forked {
        Ok((mask, stage_0)) => {
            restore_mask(sys, mask);
            serve(sys, job, pipes, Family::new(stage_0), log)
        }
        Err((mask, trouble)) => {
            if let Some(mask) = mask {
                restore_mask(sys, mask);
            }
            close(sys, pipes.init);
            close(sys, pipes.log);
            Launched::Failed(Failure { trouble, ended: [None; STAGES] })
        }
    }
}

/// Fails unless a process of the mount namespace to join, if there is one, cannot overwrite this program's file. Asked
/// before there is any process: the stages are forks of this one, with the same /proc/self/exe.
fn check_copy<S: Sys>(sys: &mut S, job: &Job<'_>) -> Result<(), Trouble> {
    // Stage 0 refuses a message that cannot be decoded.
    let asked = decode(job.message, job.policy.dialect, ByteOrder::NATIVE);
    let joins = asked.is_ok_and(|(asked, _)| asked.joined().contains(NsKind::Mnt));
    if !joins || job.policy.trusted_mounts {
        return Ok(());
    }
    match cloned::may_join_mounts(sys, job.marked_copy) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Trouble::NotSealed),
        Err(errno) => Err(Trouble::Os { step: Step::CheckCopy, errno }),
    }
}

fn make_pipes<S: Sys>(sys: &mut S) -> Result<Pipes, Trouble> {
    let (init, stage_init) =
        sys.socketpair().map_err(|errno| Trouble::Os { step: Step::MakeInitPipe, errno })?;
    match sys.pipe2() {
        Ok((log, stage_log)) => Ok(Pipes { init, stage_init, log, stage_log }),
        Err(errno) => {
            close(sys, init);
            close(sys, stage_init);
            Err(Trouble::Os { step: Step::MakeLogPipe, errno })
        }
    }
}

/// The stages, and what follows them.
///
/// We are stage 0, the launcher's child, as yet a copy of it. Stage 1 and stage 2 come back here too. The launcher
/// reaps all three, and reads what they log.
fn stages<S: Sys>(
    sys: &mut S,
    job: &Job<'_>,
    pipes: Pipes,
    mask: SignalSet,
    scratch: &mut Scratch<'_>,
) -> i32 {
    // First of all: close-on-exec closes nothing until an exec, and the launcher's death must be an end of file.
    close(sys, pipes.init);
    close(sys, pipes.log);
    for signal in members(job.signals.default) {
        let _ = sys.sigaction(signal, SigAction::DEFAULT);
    }
    for signal in members(job.signals.ignore) {
        let _ = sys.sigaction(signal, SigAction::IGNORE);
    }
    restore_mask(sys, job.signals.mask.unwrap_or(mask));
    let environment = Environment::new(Some(pipes.stage_init), Some(pipes.stage_log), job.level);
    match bootstrap(sys, environment, job.policy, scratch) {
        Outcome::Exit(status) => status,
        Outcome::HandOver => tail::run(sys, &job.tail, pipes.stage_init, pipes.stage_log),
        // Only without an init pipe.
        Outcome::NotInit => 1,
    }
}

/// What the launcher does while the stages live. Leaves no process and no descriptor but the command.
fn serve<S: Sys, L: LogReader>(
    sys: &mut S,
    job: &Job<'_>,
    pipes: Pipes,
    mut family: Family,
    log: &mut L,
) -> Launched {
    let result = converse(sys, job, pipes.init, &mut family);
    if result.is_err_and(|trouble| !trouble.ends_them()) {
        family.kill(sys);
    }
    if result.is_err() {
        // Nobody gets the word to go.
        close(sys, pipes.init);
    }
    // Ends when the last stage has ended, or with the command's exec: the pipe is close-on-exec.
    read_log(sys, pipes.log, log);
    close(sys, pipes.log);
    if result.is_ok() {
        // Not before: an open end tells stage 2 that we live.
        close(sys, pipes.init);
    }
    let trouble = match result {
        Ok(pid) if !log.fatal() => return Launched::Started { pid },
        Ok(_) => Trouble::FatalRecord,
        Err(trouble) => trouble,
    };
    family.reap_all(sys);
    Launched::Failed(Failure { trouble, ended: family.ended })
}

/// Message, pid line, the end of stages 1 and 0, the word to go.
fn converse<S: Sys>(sys: &mut S, job: &Job<'_>, init: Fd, family: &mut Family) -> Result<Pid, Trouble> {
    let os = |step| move |errno| Trouble::Os { step, errno };
    send_all(sys, init, job.message).map_err(os(Step::SendMessage))?;
    if let Some(signal) = job.interrupt.and_then(|interrupt| interrupted(sys, init, interrupt)) {
        return Err(Trouble::Interrupted(signal));
    }
    let [stage_0, ..] = family.pids;
    let late = job.policy.dialect.pid_line_late;
    if late {
        // The line is stage 0's last word, and stage 2 holds the pipe too: that no line comes shows in stage 0's end alone.
        wait_for(sys, family, [stage_0])?;
    }
    let (stage_1, stage_2) = read_pid_line(sys, init, job.policy.dialect.pid_line)?;
    family.pids = [stage_0, Some(stage_1), Some(stage_2)];
    if awaits_cgroup_byte(job) {
        send_all(sys, init, &[CGROUP_BYTE]).map_err(os(Step::SendCgroupByte))?;
    }
    // Stage 0 ends last of the two: with status 0, all three have done their part. Both are waited for in any case, since
    // neither outlives the other's failure.
    wait_for(sys, family, [Some(stage_1), stage_0.filter(|_| !late)])?;
    send_all(sys, init, &[GO]).map_err(os(Step::SendGo))?;
    Ok(stage_2)
}

/// Reaps these stages, all of them, and then says whether one failed.
fn wait_for<S: Sys, const N: usize>(
    sys: &mut S,
    family: &mut Family,
    stages: [Option<Pid>; N],
) -> Result<(), Trouble> {
    let mut failed = false;
    for pid in stages.into_iter().flatten() {
        let waited = wait(sys, pid).map_err(|errno| Trouble::Os { step: Step::Wait, errno })?;
        family.ended(waited.pid, waited.status);
        failed |= waited.status != WaitStatus::Exited(0);
    }
    if failed { Err(Trouble::StageFailed) } else { Ok(()) }
}

/// Whether stage 2 waits for our word before it creates its cgroup namespace, by the dialect and the message. We move nobody
/// into another cgroup, so there is nothing to wait for.
fn awaits_cgroup_byte(job: &Job<'_>) -> bool {
    let dialect = job.policy.dialect;
    let asked = || decode(job.message, dialect, ByteOrder::NATIVE).ok();
    dialect.cgroup_namespace == CgroupPlacement::Stage2AfterByte
        && asked().is_some_and(|(asked, _)| asked.clone_flags().contains(CloneFlags::NEWCGROUP))
}

/// Waits until there is something on the init pipe, or somebody wants the launch to end: then with which signal.
///
/// Here is where a launch may take long, with a mapping tool that asks a directory service, say. Nothing else is waited
/// for without a limit: what comes after the pid line are a few calls of stage 2.
///
/// In a run without faults the reply of the poll never varies: the stages hold their end of the init pipe until the word to
/// go, and what comes is the pid line.
fn interrupted<S: Sys>(sys: &mut S, init: Fd, interrupt: Fd) -> Option<Signal> {
    // struct signalfd_siginfo (signalfd(2)); a kernel gives whole ones.
    const RECORD: usize = 128;
    loop {
        let mut ready = [PollFd::new(init, PollEvents::IN), PollFd::new(interrupt, PollEvents::IN)];
        match sys.poll(&mut ready, -1) {
            Ok(_) => {}
            Err(Errno::EINTR) => continue,
            // Then it cannot be interrupted.
            Err(_) => return None,
        }
        if !ready.iter().any(|fd| fd.fd == interrupt && fd.revents.contains(PollEvents::IN)) {
            return None;
        }
        let mut record = [0; RECORD];
        match sys.read(interrupt, &mut record) {
            Ok(RECORD) => {
                let [one, two, three, four, ..] = record;
                return i32::try_from(u32::from_ne_bytes([one, two, three, four])).ok().map(Signal);
            }
            // Somebody else has taken it.
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            _ => return None,
        }
    }
}

/// Up to the newline, the end of the file, or [`PID_LINE_MAX`] bytes: one read, as the line was one write.
fn read_pid_line<S: Sys>(sys: &mut S, init: Fd, form: PidLine) -> Result<(Pid, Pid), Trouble> {
    let mut buffer = [0; PID_LINE_MAX];
    let mut got: usize = 0;
    while let Some(rest) = buffer.get_mut(got..).filter(|rest| !rest.is_empty()) {
        match sys.read(init, rest) {
            // Whoever held the other end has ended, with our bytes unread or not.
            Ok(0) | Err(Errno::ECONNRESET) => return Err(Trouble::NoPidLine),
            Ok(count) => got = got.saturating_add(count),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(Trouble::Os { step: Step::ReadPidLine, errno }),
        }
        if buffer.get(..got).is_some_and(|line| line.contains(&b'\n')) {
            break;
        }
    }
    parse_pid_line(buffer.get(..got).unwrap_or_default(), form).ok_or(Trouble::BadPidLine)
}

/// Both pids of a pid line, of stage 1 and of stage 2: nothing but what [`pid_line`](crate::json::pid_line) writes.
#[must_use]
pub fn parse_pid_line(line: &[u8], form: PidLine) -> Option<(Pid, Pid)> {
    let (before, between): (&[u8], &[u8]) = match form {
        PidLine::Stages => (b"{\"stage1_pid\":", b",\"stage2_pid\":"),
        PidLine::PidAndFirst => (b"{\"pid\": ", b", \"pid_first\": "),
    };
    let (one, rest) = parse_pid(line.strip_prefix(before)?)?;
    let (other, rest) = parse_pid(rest.strip_prefix(between)?)?;
    let pids = match form {
        PidLine::Stages => (one, other),
        PidLine::PidAndFirst => (other, one),
    };
    (rest == b"}\n" && one != other).then_some(pids)
}

fn parse_pid(text: &[u8]) -> Option<(Pid, &[u8])> {
    let (digits, rest) = text.split_at_checked(text.iter().position(|byte| !byte.is_ascii_digit())?)?;
    let pid = core::str::from_utf8(digits).ok()?.parse().ok()?;
    (pid > 0 && !digits.starts_with(b"0")).then_some((Pid(pid), rest))
}

fn read_log<S: Sys, L: LogReader>(sys: &mut S, fd: Fd, log: &mut L) {
    let mut buffer = [0; crate::log::RECORD_MAX];
    loop {
        match sys.read(fd, &mut buffer) {
            Ok(0) => return,
            Ok(count) => log.take(buffer.get(..count).unwrap_or_default()),
            Err(Errno::EINTR) => {}
            // A pipe of our own cannot be read: nothing that could be said would help.
            Err(_) => return,
        }
    }
}

/// The three stages, as far as the launcher knows them.
struct Family {
    pids: [Option<Pid>; STAGES],
    ended: [Option<Ended>; STAGES],
    killed: bool,
}

impl Family {
    fn new(stage_0: Pid) -> Self {
        Self { pids: [Some(stage_0), None, None], ended: [None; STAGES], killed: false }
    }

    /// SIGKILL to whom we know and have not reaped: until then the number is theirs.
    fn kill<S: Sys>(&mut self, sys: &mut S) {
        self.killed = true;
        for pid in self.pids.into_iter().flatten() {
            if !self.ended.iter().flatten().any(|ended| ended.pid == pid) {
                // ESRCH cannot be: nobody else reaps them.
                let _ = sys.kill(pid, Signal::KILL);
            }
        }
    }

    /// Notes how `pid` ended.
    fn ended(&mut self, pid: Pid, status: WaitStatus) {
        let stage = (0_u8..).zip(self.pids).find(|(_, known)| *known == Some(pid)).map(|(stage, _)| stage);
        let killed = self.killed && stage.is_some() && status == WaitStatus::Signaled(Signal::KILL);
        if let Some(free) = self.ended.iter_mut().find(|slot| slot.is_none()) {
            *free = Some(Ended { stage, pid, status, killed });
        }
    }

    /// Reaps every stage, also one whose pid we never learnt.
    fn reap_all<S: Sys>(&mut self, sys: &mut S) {
        // ECHILD: nobody is left.
        while let Ok(waited) = wait(sys, Pid::ANY) {
            self.ended(waited.pid, waited.status);
        }
        // Stage 2 never comes without stage 1, and after it: of two strangers the lower number is stage 1's. Numbers can
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
    }
}

impl Trouble {
    /// Whether the stages that are left end by themselves, once our end of the init pipe is closed: each in its own way,
    /// which tells more than SIGKILL.
    ///
    /// Where nobody holds the other end of the init pipe any more, which all three hold for as long as they live, none
    /// is left. Where stages 0 and 1 have been reaped, stage 2 waits for stage 0, or for the word to go, in vain.
    const fn ends_them(&self) -> bool {
        match self {
            Self::NoPidLine | Self::StageFailed | Self::FatalRecord => true,
            // Stage 0 sees the hang-up while its mapping tool runs, and takes it along. A SIGKILL to stage 0 would leave it.
            Self::Interrupted(_) => true,
            Self::Os { step: Step::SendMessage | Step::SendCgroupByte | Step::SendGo, errno } => {
                matches!(*errno, Errno::EPIPE)
            }
            // Before there is any stage.
            Self::NotSealed => true,
            Self::Os { .. } | Self::BadPidLine => false,
        }
    }
}

fn wait<S: Sys>(sys: &mut S, pid: Pid) -> SysResult<crate::sys::types::Waited> {
    loop {
        match sys.wait4(pid, WaitFor::Stages) {
            Err(Errno::EINTR) => {}
            result => return result,
        }
    }
}

fn close<S: Sys>(sys: &mut S, fd: Fd) {
    // The number is free whatever close says.
    let _ = sys.close(fd);
}

fn restore_mask<S: Sys>(sys: &mut S, mask: SignalSet) {
    // Only a wrong argument makes this fail.
    let _ = sys.sigprocmask(MaskHow::Set, mask);
}

/// The signals of a set, by number.
fn members(set: SignalSet) -> impl Iterator<Item = Signal> {
    (1..=64).zip(0..64).filter_map(move |(signal, bit)| {
        set.contains(SignalSet(1_u64.rotate_left(bit))).then_some(Signal(signal))
    })
}

#[cfg(test)]
#[path = "script_tests.rs"]
mod tests;
