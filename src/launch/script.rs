//! A start: directly (`direct`) or through a child (`child`) if that is possible, otherwise through the three
//! stages. Then this module is the launcher's half of the protocol: descriptors, fork, message, pid line,
//! reaping, go byte.
//!
//! The stages have exit signal 0, which CLONE_PARENT passes on to the next stage. Only a wait for
//! [`WaitFor::Stages`](crate::sys::types::WaitFor::Stages) reports their end. So a program that uses this
//! library does not reap a stage by accident, and the wait for the stages does not reap another child of that
//! program, unless that child has no exit signal either. The command's exec sets the exit signal to SIGCHLD.
//!
//! A launch that joins a mount namespace first checks that this program runs from a sealed copy of itself
//! ([`cloned`]): stage 2 executes a file of that namespace. That file may be a script whose
//! interpreter is /proc/self/exe, which is our own binary (CVE-2019-5736).

use super::child;
use super::closing::begin;
use super::conclude::conclude;
use super::direct;
use super::fork::{BeforeFork, prepare_fork, restore_signals};
use super::in_place;
pub use super::job::{ChildSignals, Job};
pub use super::outcome::{Ended, Failure, FailureKind, Launched, STAGES, Step, WaitedFor};
use super::outcome::{failed, os};
use super::persist::persist;
pub use super::pipes::LogReader;
use super::pipes::{Pipes, read_answer};
use super::shape::{Shape, shape};
use super::stages::Stages;
use super::tail;
pub use super::tail::GO;
use super::watch::{Ready, Watch};
use crate::cloned;
use crate::deciders::bootstrap::dialect::PidLine;
use crate::deciders::bootstrap::env::Environment;
use crate::deciders::bootstrap::{Bootstrap, decode};
use crate::deciders::namespace::NsKind;
use crate::scripts::nsexec::{Scratch, bootstrap_of_launcher};
use crate::scripts::pipe::send_all;
use crate::scripts::stage::StageEnd;
use crate::scripts::unshare::refuse_impossible;
use crate::sys::Sys;
use crate::sys::types::{ExitSignal, Fd, Fork, Pid, PollEvents, PollFd, Signal};
use crate::words::json::PID_LINE_MAX;

/// Starts a command in its namespaces. Returns in the launcher, and in each stage that exits, with
/// [`Launched::Exit`]. A start in place returns in the launcher only after a failure.
///
/// Runs in the launcher, in the caller's namespaces, with the caller's privileges. Waits for the three
/// stages. No process waits for the launcher.
pub fn launch<S: Sys, L: LogReader>(
    sys: &mut S,
    job: &Job<'_>,
    scratch: &mut Scratch<'_>,
    log: &mut L,
) -> Launched {
    // A message that cannot be decoded, or asks for something impossible, goes to the stages. They report the
    // error.
    let asked = decode(job.message, job.policy.dialect).map(|(asked, _)| asked);
    if let Err(kind) = check_copy(sys, job, asked.as_ref().ok()) {
        return failed(kind);
    }
    if job.policy.launch.in_place {
        return in_place::launch(sys, job, asked, log);
    }
    let possible = asked.ok().filter(|asked| refuse_impossible(asked).is_ok());
    let launched = possible.and_then(|asked| match shape(&asked, job.policy) {
        Shape::Direct => direct::launch(sys, job, &asked, log),
        Shape::Child => Some(child::launch(sys, job, &asked, log)),
        Shape::Stages(_) | Shape::InPlace => None,
    });
    launched.unwrap_or_else(|| launch_stages(sys, job, scratch, log))
}

/// Starts the command through the three stages.
fn launch_stages<S: Sys, L: LogReader>(
    sys: &mut S,
    job: &Job<'_>,
    scratch: &mut Scratch<'_>,
    log: &mut L,
) -> Launched {
    let before = match prepare_fork(sys, log, false) {
        Ok(before) => before,
        Err(kind) => return failed(kind),
    };
    match sys.fork(ExitSignal::None, before.tid) {
        Ok(Fork::Child) => Launched::Exit(stages(sys, job, before, scratch)),
        Ok(Fork::Parent { child }) => {
            before.leave_child_to_itself(sys, log);
            let stages = Stages::new(sys, child).with_pins(job.tail.pins);
            serve(sys, job, before.pipes, stages, log)
        }
        Err(errno) => {
            before.give_up(sys, log);
            failed(FailureKind::Os { step: Step::SpawnStage0, errno })
        }
    }
}

/// Fails if a process of the mount namespace to join could overwrite this program's file. Called before the
/// first fork: the stages are forks of this process, with the same /proc/self/exe.
fn check_copy<S: Sys>(sys: &mut S, job: &Job<'_>, asked: Option<&Bootstrap<'_>>) -> Result<(), FailureKind> {
    let joins = asked.is_some_and(|asked| asked.joined().contains(NsKind::Mnt));
    if !joins || job.policy.launch.trusted_mounts {
        return Ok(());
    }
    match cloned::may_join_mounts(sys, job.marked_copy) {
        Ok(true) => Ok(()),
        Ok(false) => Err(FailureKind::NotSealed),
        Err(errno) => Err(FailureKind::Os { step: Step::CheckCopy, errno }),
    }
}

/// Runs the stages and the tail of stage 2. Returns the status to exit with.
///
/// Runs in stage 0, a fork of the launcher, and returns in stage 1 and stage 2 too. The launcher reaps all
/// three, and reads their log records.
fn stages<S: Sys>(sys: &mut S, job: &Job<'_>, before: BeforeFork, scratch: &mut Scratch<'_>) -> i32 {
    let pipes = before.pipes;
    if job.policy.launch.ends_with_launcher {
        // When the launcher dies, SIGCONT continues a stopped stage 0. Stage 0 then detects the hang-up, and
        // ends the other stages and the mapping tool. SIGKILL to stage 0 would leave the tool running. If a
        // filter refuses prctl(2), only the hang-up reports the death.
        let _ = sys.set_pdeathsig(Signal::CONT);
    }
    restore_signals(sys, job, before);
    let environment = Environment::new(Some(pipes.stage_init), Some(pipes.stage_log), job.level);
    if let Err(error) = begin(sys, &job.tail, &pipes) {
        return tail::report_failure_of_stage_0(sys, pipes.stage_init, pipes.stage_log, &error);
    }
    let (tail, init, log) = (&job.tail, pipes.stage_init, pipes.stage_log);
    match bootstrap_of_launcher(sys, environment, job.policy, scratch) {
        StageEnd::Exit(status) => status,
        StageEnd::HandOver(last) => tail::run(sys, tail, last, init, log),
    }
}

/// Serves the stages from the launcher until the command runs, or the launch has failed. Afterwards all
/// stages are reaped and all descriptors are closed.
fn serve<S: Sys, L: LogReader>(
    sys: &mut S,
    job: &Job<'_>,
    pipes: Pipes,
    mut stages: Stages,
    log: &mut L,
) -> Launched {
    let mut watch = Watch::new(job.interrupt, job.timer);
    let started = run_protocol(sys, job, pipes.init, (&mut stages, &mut watch), log);
    conclude(sys, (pipes, &mut stages), &mut watch, log, started)
}

/// Sends the message, reads the pid line, reaps stages 1 and 0, and sends the go byte. Returns the pid of
/// stage 2.
fn run_protocol<S: Sys, L: LogReader>(
    sys: &mut S,
    job: &Job<'_>,
    init: Fd,
    (stages, watch): (&mut Stages, &mut Watch),
    log: &mut L,
) -> Result<Pid, FailureKind> {
    send_message(sys, watch, init, job.message)?;
    let form = job.policy.dialect.pid_line;
    #[cfg(feature = "legacy")]
    if form == PidLine::PidAndFirst {
        // Stage 0 writes the line last, and stage 2 holds the pipe too. So only stage 0's end shows that no
        // line will follow.
        stages.reap(sys, watch, 0)?;
        stages.all_succeeded()?;
    }
    let (stage_1, stage_2) = read_pid_line(sys, watch, (init, stages.pidfd(0)), form)?;
    stages.note_pids(sys, stage_1, stage_2);
    #[cfg(feature = "legacy")]
    crate::legacy::launcher::send_cgroup_byte(sys, job, init)?;
    // Stage 0 ends after stage 1. Its status 0 means that all three stages have succeeded. The launcher waits
    // for both in any case: each of them ends if the other fails.
    stages.reap(sys, watch, 1)?;
    if form == PidLine::Stages {
        stages.reap(sys, watch, 0)?;
    }
    stages.all_succeeded()?;
    persist(sys, job, stage_2, log)?;
    log.before_start(stage_2)?;
    stages.note_go(stage_2);
    send_all(sys, init, &[GO]).map_err(os(Step::SendGo))?;
    Ok(stage_2)
}

/// The size of one send of the message, in bytes. The smallest send buffer of a Linux socket is larger
/// (`SOCK_MIN_SNDBUF`, socket(7)). So neither the first send blocks, nor a send after a poll(2) that reports
/// the socket as writable.
const MESSAGE_CHUNK: usize = 2048;

/// Sends the message in chunks: a stopped stage 0 must not block the launcher in a send.
fn send_message<S: Sys>(sys: &mut S, watch: &mut Watch, init: Fd, message: &[u8]) -> Result<(), FailureKind> {
    let mut chunks = message.chunks(MESSAGE_CHUNK);
    send_all(sys, init, chunks.next().unwrap_or_default()).map_err(os(Step::SendMessage))?;
    watch.waits_for = WaitedFor::MessageRead;
    for chunk in chunks {
        watch.wait(sys, PollFd::new(init, PollEvents::OUT), None)?;
        send_all(sys, init, chunk).map_err(os(Step::SendMessage))?;
    }
    Ok(())
}

/// Reads the pid line: up to the newline, the end of the file, or [`PID_LINE_MAX`] bytes. Usually one read is
/// enough, since stage 0 writes the line in one call.
///
/// This wait can be long, for example if a mapping tool queries a directory service. `stage_0` is the pidfd
/// of stage 0. After the death of stage 0 no line follows, even if another stage still holds the pipe.
fn read_pid_line<S: Sys>(
    sys: &mut S,
    watch: &mut Watch,
    (init, stage_0): (Fd, Option<Fd>),
    form: PidLine,
) -> Result<(Pid, Pid), FailureKind> {
    watch.waits_for = WaitedFor::Pids;
    let mut buffer = [0; PID_LINE_MAX];
    let mut got: usize = 0;
    while let Some(rest) = buffer.get_mut(got..).filter(|rest| !rest.is_empty()) {
        if watch.wait(sys, PollFd::new(init, PollEvents::IN), stage_0)? == Ready::Death {
            return Err(FailureKind::NoPidLine);
        }
        got = got.saturating_add(read_answer(sys, init, rest)?);
        if buffer.get(..got).is_some_and(|line| line.contains(&b'\n')) {
            break;
        }
    }
    parse_pid_line(buffer.get(..got).unwrap_or_default(), form).ok_or(FailureKind::BadPidLine)
}

/// Parses a pid line. Returns the pids of stage 1 and stage 2, or `None` for any line that stage 0 does not
/// write.
#[must_use]
pub fn parse_pid_line(line: &[u8], form: PidLine) -> Option<(Pid, Pid)> {
    match form {
        PidLine::Stages => parse_two_pids(line, b"{\"stage1_pid\":", b",\"stage2_pid\":"),
        #[cfg(feature = "legacy")]
        PidLine::PidAndFirst => crate::legacy::launcher::parse_pid_line(line),
    }
}

/// Parses a line with two different pids after these texts.
pub(crate) fn parse_two_pids(line: &[u8], before: &[u8], between: &[u8]) -> Option<(Pid, Pid)> {
    let (one, rest) = parse_pid(line.strip_prefix(before)?)?;
    let (other, rest) = parse_pid(rest.strip_prefix(between)?)?;
    (rest == b"}\n" && one != other).then_some((one, other))
}

fn parse_pid(text: &[u8]) -> Option<(Pid, &[u8])> {
    let (digits, rest) = text.split_at_checked(text.iter().position(|byte| !byte.is_ascii_digit())?)?;
    let pid = core::str::from_utf8(digits).ok()?.parse().ok()?;
    (pid > 0 && !digits.starts_with(b"0")).then_some((Pid(pid), rest))
}

#[cfg(test)]
#[path = "script_tests.rs"]
mod tests;
