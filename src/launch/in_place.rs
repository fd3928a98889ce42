//! A start in place: this process enters the namespaces itself, and executes the command.
//!
//! The deciders and steps are those of the stages: the joins, the maps and their checks, the ids, the mounts,
//! the exec. A new user namespace is mapped from outside: a helper, a fork of this process from before the
//! joins, has the part of stage 0. It is reaped as soon as the maps are written.

use super::closing::begin;
use super::fork::{dispositions, restore_mask, set_dispositions};
use super::job::Job;
use super::last::{self, Ends};
use super::offsets;
use super::outcome::{Ended, Failure, FailureKind, Launched, STAGES, Step, failed};
use super::pipes::{LogReader, Pipes, add_error, close, read_some};
use super::stages::wait;
use super::surroundings::Surroundings;
use super::tail::{self, Tail};
use crate::deciders::bootstrap::{Bootstrap, ParseError};
use crate::deciders::policy::{Credentials, LogForm, Session};
use crate::scripts::map_files::Written;
use crate::scripts::nsexec::thread_id_cache;
use crate::scripts::procfs;
use crate::scripts::stage::child::{create_user_namespace, join_all};
use crate::scripts::stage::init::{become_root, drop_groups};
use crate::scripts::stage::parent::serve_stage_1;
use crate::scripts::stage::{Context, LastSteps, StageEnd};
use crate::scripts::sync::{End, OfChild, OfParent, Pair};
use crate::scripts::unshare::{UnshareSteps, refuse_impossible, unshare};
use crate::sys::Sys;
use crate::sys::types::{
    CloneFlags, Errno, ExitSignal, Fd, Fork, MaskHow, Pid, SigAction, Signal, SignalSet, WaitFor, WaitStatus,
    Waited,
};
use crate::words::error::{Doing, Error, SyncPipe};
use crate::words::log::Log;

/// The reason why this process has not become the command.
enum Failed<'m> {
    /// A step of the bootstrap failed.
    Step(Error<'m>),
    /// The helper could not be created or waited for, or has failed.
    Helper(FailureKind),
}

impl<'m> From<Error<'m>> for Failed<'m> {
    fn from(error: Error<'m>) -> Self {
        Self::Step(error)
    }
}

/// Enters the namespaces and executes the command. Returns only after a failure, and in the helper, with
/// [`Launched::Exit`].
///
/// Runs in the launcher, in the caller's namespaces, with the caller's privileges. Waits for the helper, if
/// there is one. After a failure this process may be in some of the namespaces, and have other ids.
pub(super) fn launch<'m, S: Sys, L: LogReader>(
    sys: &mut S,
    job: &Job<'m>,
    asked: Result<Bootstrap<'m>, ParseError<'m>>,
    log: &mut L,
) -> Launched {
    let asked = match asked {
        Ok(asked) => asked,
        Err(error) => return refuse(sys, log, &Error::Parse(error)),
    };
    if let Err(refusal) = refuse_impossible(&asked) {
        return refuse(sys, log, &Error::Refused(refusal));
    }
    let pipe = match sys.pipe2() {
        Ok(pipe) => pipe,
        Err(errno) => return failed(FailureKind::Os { step: Step::MakeLogPipe, errno }),
    };
    let mut own = Log::open(sys, Some(pipe.1), job.level, LogForm::Detailed);
    own.enter_stage(1);
    let mut ended = None;
    let entered = match enter(sys, (job, &asked), pipe, &mut own, &mut ended) {
        Ok(StageEnd::Exit(status)) => return Launched::Exit(status),
        Ok(StageEnd::HandOver(last)) => Ok(last),
        Err(failed) => Err(failed),
    };
    own.report_dropped(sys);
    // Only an invalid argument makes this fail.
    let _ = own.restore_signals(sys);
    if let Err(Failed::Step(error)) = &entered {
        if is_own(error) {
            add_error(sys, log, 1, error);
        }
    }
    collect(sys, pipe, log);
    let last = match entered {
        Ok(last) => last,
        Err(Failed::Step(error)) => {
            if !is_own(&error) {
                add_error(sys, log, 1, &error);
            }
            return fail(FailureKind::OwnRecord, ended);
        }
        Err(Failed::Helper(kind)) => return fail(kind, ended),
    };
    log.before_exec();
    let mut signals = Signals::UNCHANGED;
    let error = become_command(sys, job, &asked, last, &mut signals);
    // The filter is made for the command, and may refuse the calls.
    if job.tail.around.is_none_or(|around| around.filter.is_none()) {
        signals.restore(sys);
    }
    add_error(sys, log, 2, &error);
    fail(FailureKind::FatalRecord, ended)
}

/// Returns whether a failure to talk to the helper is this process's own. The helper then reports only that
/// its peer has hung up. Otherwise the helper has failed first.
fn is_own(error: &Error<'_>) -> bool {
    match error {
        Error::Os { doing: Doing::Sync(_), errno } => ![Errno::EPIPE, Errno::ECONNRESET].contains(errno),
        _ => false,
    }
}

/// The failure of a start whose request cannot be carried out. Nothing was changed.
fn refuse<S: Sys, L: LogReader>(sys: &mut S, log: &mut L, error: &Error<'_>) -> Launched {
    add_error(sys, log, 1, error);
    failed(FailureKind::OwnRecord)
}

fn fail(kind: FailureKind, helper: Option<Ended>) -> Launched {
    let mut ended = [None; STAGES];
    if let Some(first) = ended.first_mut() {
        *first = helper;
    }
    Launched::Failed(Failure { kind, ended })
}

/// Reads the records that this process and the helper have written, and closes the log pipe.
///
/// The helper has ended, so the end of the log follows the last record.
fn collect<S: Sys, L: LogReader>(sys: &mut S, (reader, writer): (Fd, Fd), log: &mut L) {
    close(sys, writer);
    while read_some(sys, reader, log) {}
    close(sys, reader);
}

/// Joins and creates the namespaces. Returns in the helper too.
///
/// Runs in the caller's namespaces, with the caller's privileges. Waits for the maps of a new user namespace.
///
/// # Errors
/// The step that failed. The helper has ended.
fn enter<'m, S: Sys>(
    sys: &mut S,
    (job, asked): (&Job<'m>, &Bootstrap<'m>),
    (reader, writer): (Fd, Fd),
    log: &mut Log,
    ended: &mut Option<Ended>,
) -> Result<StageEnd, Failed<'m>> {
    if job.policy.session == Session::New {
        // First: it is refused to the leader of a process group, as a command of a shell is.
        sys.setsid().map_err(|errno| Error::Os { doing: Doing::Setsid, errno })?;
    }
    // No named descriptor may have the number of an end of the log pipe.
    let pipes = Pipes { init: Fd(-1), stage_init: reader, log: Fd(-1), stage_log: writer };
    begin(sys, &job.tail, &pipes)?;
    if let Some(score) = asked.oom_score_adj() {
        // Before this process becomes non-dumpable, because then /proc/self belongs to root.
        procfs::write(sys, c"self/oom_score_adj", score.text_with_nul(), Doing::OomScoreAdj)?;
    }
    // As the score, and before a join that could make another /proc visible.
    let offsets = offsets::open(sys, asked)?;
    if asked.namespaces().is_some() {
        // After the first join, processes in the joined namespaces could ptrace this one or open its
        // descriptors (CVE-2016-9962).
        log.debug(sys, format_args!("set process as non-dumpable"));
        sys.set_dumpable(false).map_err(|errno| Error::Os { doing: Doing::NonDumpable, errno })?;
    }
    let cx = Context {
        bootstrap: asked,
        policy: job.policy,
        // This start has no init pipe. The field gets the end of the log pipe, and nothing is sent through
        // it: the helper and this process wait for the hang-up of their sync pipe.
        init_pipe: writer,
        #[cfg(feature = "legacy")]
        mount_fds: None,
        tid: None,
    };
    let steps = UnshareSteps::new(asked.clone_flags());
    let user_namespace = if steps.user {
        // Before the first join: the helper keeps the caller's namespaces and privileges.
        let helper = match create_helper(sys, (job, cx), reader, log)? {
            Created::Here(helper) => helper,
            Created::Helper(status) => return Ok(StageEnd::Exit(status)),
        };
        let mapped = join_all(sys, log, cx).and_then(|user_namespace| {
            create_user_namespace(sys, log, cx, &helper.end).map(|()| user_namespace)
        });
        helper.finish(sys, mapped, ended)?
    } else {
        join_all(sys, log, cx)?
    };
    if steps.remaining != CloneFlags::EMPTY {
        log.debug(sys, format_args!("{}", job.policy.dialect.unshare_remaining_text));
        unshare(sys, steps.remaining)
            .map_err(|errno| Error::Os { doing: Doing::UnshareRemaining(steps.remaining), errno })?;
    }
    if let Some(offsets) = offsets {
        offsets.write(sys)?;
    }
    if steps.remaining.contains(CloneFlags::NEWTIME) {
        offsets::enter_time_namespace(sys)?;
    }
    Ok(StageEnd::HandOver(LastSteps::of(cx, user_namespace)))
}

/// The process that writes the maps.
struct Helper {
    pid: Pid,
    /// This process's end of the sync pipe.
    end: End<OfChild>,
}

/// The process that returns from [`create_helper`].
enum Created {
    Here(Helper),
    /// The helper, which exits with this status.
    Helper(i32),
}

/// Creates the helper. Returns in the helper too, when it has written the maps.
///
/// Runs in the caller's namespaces, with the caller's privileges.
///
/// # Errors
/// The step that failed. No helper is left.
fn create_helper<'m, S: Sys>(
    sys: &mut S,
    (job, cx): (&Job<'_>, Context<'_, 'm>),
    reader: Fd,
    log: &mut Log,
) -> Result<Created, Failed<'m>> {
    let target = sys.getpid();
    let pair = Pair::open(sys, SyncPipe::Child, cx.init_pipe)?;
    let cx = Context { tid: thread_id_cache(sys), ..cx };
    // A handler of the program must not run in the helper, which resets all handlers before it restores the
    // mask.
    let mask = match sys.sigprocmask(MaskHow::Block, SignalSet(u64::MAX)) {
        Ok(mask) => mask,
        Err(errno) => {
            pair.close(sys);
            return Err(Failed::Helper(FailureKind::Os { step: Step::BlockSignals, errno }));
        }
    };
    match sys.fork(ExitSignal::None, cx.tid) {
        Ok(Fork::Child) => {
            // When this process dies, SIGCONT continues a stopped helper, which then detects the hang-up. It
            // may have a mapping tool to end.
            let _ = sys.set_pdeathsig(Signal::CONT);
            log.forked(0);
            close(sys, reader);
            let end = pair.into_parent(sys);
            set_dispositions(sys, job);
            restore_mask(sys, mask);
            Ok(Created::Helper(write_maps(sys, log, cx, end, target)))
        }
        Ok(Fork::Parent { child: pid }) => {
            let end = pair.into_child(sys);
            restore_mask(sys, mask);
            match end {
                Ok(end) => Ok(Created::Here(Helper { pid, end })),
                Err(error) => {
                    // This process still has an end open. The helper has no mapping tool yet.
                    let _ = sys.kill(pid, Signal::KILL);
                    let _ = wait(sys, pid, WaitFor::Stages);
                    Err(error.into())
                }
            }
        }
        Err(errno) => {
            restore_mask(sys, mask);
            pair.close(sys);
            Err(Failed::Helper(FailureKind::Os { step: Step::SpawnStage0, errno }))
        }
    }
}

impl Helper {
    /// Waits for the end of the helper, and reaps it. Returns `mapped`, if that is not an error and the
    /// helper has succeeded. `ended` becomes the helper's end.
    ///
    /// # Errors
    /// The error of `mapped`; the failure of the helper.
    fn finish<'m, T, S: Sys>(
        self,
        sys: &mut S,
        mapped: Result<T, Error<'m>>,
        ended: &mut Option<Ended>,
    ) -> Result<T, Failed<'m>> {
        let closed = self.end.close(sys);
        if mapped.is_err() {
            // A stopped helper does not notice the hang-up.
            let _ = sys.kill(self.pid, Signal::CONT);
        }
        let waited = wait(sys, self.pid, WaitFor::Stages);
        *ended = waited.ok().map(|waited| Ended {
            stage: Some(0),
            pid: waited.pid,
            status: waited.status,
            killed: false,
        });
        let mapped = mapped?;
        closed?;
        match waited {
            Ok(Waited { status: WaitStatus::Exited(0), .. }) => Ok(mapped),
            Ok(_) => Err(Failed::Helper(FailureKind::StageFailed)),
            Err(errno) => Err(Failed::Helper(FailureKind::Os { step: Step::Wait, errno })),
        }
    }
}

/// Writes the maps of the process `target` when it asks for them. Returns the status to exit with.
///
/// Runs in the helper, in the namespaces that the target had at the fork, with its privileges there. The
/// target waits for the answer.
fn write_maps<'m, S: Sys>(
    sys: &mut S,
    log: &mut Log,
    cx: Context<'_, 'm>,
    end: Result<End<OfParent>, Error<'m>>,
    target: Pid,
) -> i32 {
    // The target writes its own offsets.
    let asked = cx.bootstrap.without_timens_offsets();
    let cx = Context { bootstrap: &asked, ..cx };
    let served = end.and_then(|end| serve_stage_1(sys, log, cx, &end, target));
    match served {
        Ok(Written::Done) => {
            log.report_dropped(sys);
            0
        }
        // The mapping tool's process has reported why it could not execute the tool.
        Ok(Written::ToolProcess) => 1,
        Err(error) => {
            log.fatal(sys, &error);
            1
        }
    }
}

/// Takes the last steps and executes the command. Returns the error.
///
/// Runs in all requested namespaces except a user namespace that is joined in the last steps. No other
/// process of the launch exists.
fn become_command<'m, S: Sys>(
    sys: &mut S,
    job: &Job<'m>,
    asked: &Bootstrap<'m>,
    last: Option<LastSteps>,
    signals: &mut Signals,
) -> Error<'m> {
    let tail = &job.tail;
    match prepare(sys, job, asked, last).and_then(|()| change(sys, tail)) {
        Ok(()) => {}
        Err(error) => return error,
    }
    signals.set(sys, job);
    if let Some(mask) = job.signals.mask {
        signals.mask = sys.sigprocmask(MaskHow::Set, mask).ok();
    }
    tail::finish(sys, tail)
}

/// Becomes root, and mounts.
fn prepare<'m, S: Sys>(
    sys: &mut S,
    job: &Job<'m>,
    asked: &Bootstrap<'m>,
    last: Option<LastSteps>,
) -> Result<(), Error<'m>> {
    if job.policy.credentials != Credentials::Keep && last.is_none() {
        become_root(sys, drop_groups(job.policy.setgroups, asked), false)?;
    }
    tail::mount(sys, &job.tail)?;
    match last {
        Some(steps) => steps.take(sys, job.tail.user_namespace),
        None => Ok(()),
    }
}

/// Places the descriptors, and sets the attributes and the ids of the command.
fn change<'m, S: Sys>(sys: &mut S, tail: &Tail<'m>) -> Result<(), Error<'m>> {
    let nothing = Surroundings::default();
    let around = tail.around.unwrap_or(&nothing);
    last::take_terminal(sys, around, tail.moves)?;
    // The pipes of the launch are closed.
    let mut ends = Ends { init: Fd(-1), log: Fd(-1) };
    last::place(sys, tail.moves, &mut ends)?;
    last::change(sys, around, (tail.gid, tail.uid), false).map(|_| ())
}

/// The signal state before this process took that of the command.
struct Signals {
    actions: [Option<(Signal, SigAction)>; 64],
    mask: Option<SignalSet>,
}

impl Signals {
    const UNCHANGED: Self = Self { actions: [None; 64], mask: None };

    /// Sets the dispositions that the command begins with.
    fn set<S: Sys>(&mut self, sys: &mut S, job: &Job<'_>) {
        for ((signal, action), slot) in dispositions(job).zip(&mut self.actions) {
            // SIGKILL and SIGSTOP have no disposition.
            *slot = sys.sigaction(signal, action).ok().map(|before| (signal, before));
        }
    }

    /// Restores the state after a failure.
    fn restore<S: Sys>(&self, sys: &mut S) {
        for (signal, before) in self.actions.iter().flatten().rev() {
            let _ = sys.sigaction(*signal, *before);
        }
        if let Some(mask) = self.mask {
            restore_mask(sys, mask);
        }
    }
}
