//! A start through a child: the launcher creates stage 1, which joins and creates the namespaces, and creates
//! stage 2 in them. The launcher does the work of stage 0, and sends only the go byte.
//!
//! The deciders and steps are those of the stages: the order of the joins, the ids, the mounts, the exec. A
//! start through a child has no bootstrap message, no socket pairs between stages, and no pid line: stage 1
//! sends the pid of stage 2 in 4 bytes.

use super::closing::begin;
use super::conclude::conclude;
use super::fork::{BeforeFork, prepare_fork, restore_signals};
use super::job::Job;
use super::offsets;
use super::outcome::{FailureKind, Launched, Step, WaitedFor, failed, os};
use super::persist::persist;
use super::pipes::{LogReader, read_answer};
use super::stages::Stages;
use super::tail::{self, GO};
use super::watch::{Ready, Watch};
use crate::deciders::bootstrap::Bootstrap;
use crate::deciders::bootstrap::text::Lossy;
use crate::deciders::policy::{LogForm, Session};
use crate::scripts::pipe::send_all;
use crate::scripts::procfs;
use crate::scripts::stage::child::join_all;
use crate::scripts::stage::init::{become_root, drop_groups};
use crate::scripts::stage::{Context, LastSteps, StageEnd, end_with_launcher, kill_stages};
use crate::scripts::unshare::unshare;
use crate::sys::Sys;
use crate::sys::types::{CloneFlags, Fd, Fork, Pid, PollEvents, PollFd};
use crate::words::error::{Doing, Error, SyncStep};
use crate::words::log::Log;

/// Starts the command through a child.
///
/// Runs in the launcher, in the caller's namespaces, with the caller's privileges, and returns in stages 1
/// and 2 too, with [`Launched::Exit`]. Waits for its turn to fork, for the pid of stage 2, for the end of
/// stage 1, and for the end of the log.
pub(super) fn launch<S: Sys, L: LogReader>(
    sys: &mut S,
    job: &Job<'_>,
    asked: &Bootstrap<'_>,
    log: &mut L,
) -> Launched {
    let before = match prepare_fork(sys, log, false) {
        Ok(before) => before,
        Err(kind) => return failed(kind),
    };
    let stage_1 = match sys.clone_child(before.tid) {
        Ok(Fork::Child) => return Launched::Exit(run(sys, job, asked, before)),
        Ok(Fork::Parent { child }) => child,
        Err(errno) => {
            before.give_up(sys, log);
            return failed(FailureKind::Os { step: Step::SpawnStage1, errno });
        }
    };
    before.leave_child_to_itself(sys, log);
    let pipes = before.pipes;
    let mut stages = Stages::of_child(sys, stage_1).with_init(job.tail.init);
    let mut watch = Watch::new(job.interrupt, job.timer);
    let started = run_protocol(sys, job, pipes.init, (&mut stages, &mut watch), log);
    conclude(sys, (pipes, &mut stages), &mut watch, log, started)
}

/// Reads the pid of stage 2, reaps stage 1, and sends the go byte. Returns the pid.
fn run_protocol<S: Sys, L: LogReader>(
    sys: &mut S,
    job: &Job<'_>,
    init: Fd,
    (stages, watch): (&mut Stages, &mut Watch),
    log: &mut L,
) -> Result<Pid, FailureKind> {
    let stage_2 = read_pid(sys, stages, watch, init)?;
    stages.note_stage_2(stage_2);
    // Stage 1 sends the pid last. Its status 0 means that it has succeeded.
    stages.reap(sys, watch, 1)?;
    stages.all_succeeded()?;
    persist(sys, job, stage_2, log)?;
    log.before_start(stage_2)?;
    stages.note_go(stage_2);
    send_all(sys, init, &[GO]).map_err(os(Step::SendGo))?;
    Ok(stage_2)
}

/// Reads the pid of stage 2, which stage 1 sends in 4 bytes of the machine's order.
///
/// After the death of stage 1 no pid follows, although stage 2 may still hold the pipe.
fn read_pid<S: Sys>(
    sys: &mut S,
    stages: &mut Stages,
    watch: &mut Watch,
    init: Fd,
) -> Result<Pid, FailureKind> {
    watch.waits_for = WaitedFor::Stage2;
    let mut pid = 0_i32.to_ne_bytes();
    let mut got: usize = 0;
    while let Some(rest) = pid.get_mut(got..).filter(|rest| !rest.is_empty()) {
        if stages.await_beside(sys, watch, PollFd::new(init, PollEvents::IN), 1)? == Ready::Death {
            return Err(FailureKind::NoPidLine);
        }
        got = got.saturating_add(read_answer(sys, init, rest)?);
    }
    match i32::from_ne_bytes(pid) {
        pid @ 1.. => Ok(Pid(pid)),
        _ => Err(FailureKind::BadPidLine),
    }
}

/// Runs stage 1, and in its child stage 2. Returns the status to exit with.
///
/// Runs as the child of [`clone_child`](Sys::clone_child), in the caller's namespaces, with the caller's
/// privileges. Stage 1 waits for no process; stage 2 waits for the go byte. The launcher waits for the pid of
/// stage 2, or for the end of stage 1.
fn run<S: Sys>(sys: &mut S, job: &Job<'_>, asked: &Bootstrap<'_>, before: BeforeFork) -> i32 {
    // The first call: from here on a stopped process ends with the launcher.
    end_with_launcher(sys, job.policy.ends_with_launcher());
    restore_signals(sys, job, before);
    let (init, log_pipe) = (before.pipes.stage_init, before.pipes.stage_log);
    let mut log = Log::open(sys, Some(log_pipe), job.level, LogForm::Detailed);
    log.enter_stage(1);
    log.debug(sys, format_args!("~> nsexec stage-1"));
    let cx = Context {
        bootstrap: asked,
        policy: job.policy,
        init_pipe: init,
        #[cfg(feature = "legacy")]
        mount_fds: None,
        tid: before.tid,
    };
    let end = begin(sys, &job.tail, &before.pipes).and_then(|()| create_stage_2(sys, &mut log, cx));
    match end {
        Ok(StageEnd::Exit(status)) => status,
        Ok(StageEnd::HandOver(last)) => run_stage_2(sys, job, &mut log, cx, (last, log_pipe)),
        Err(error) => {
            log.fatal(sys, &error);
            1
        }
    }
}

/// Joins and creates the namespaces, creates stage 2 in them, and sends its pid to the launcher. Returns in
/// stage 2 too.
///
/// Runs in stage 1, in the caller's namespaces, with the caller's privileges.
///
/// # Errors
/// The failure that ends the launch. Stage 2 is killed if it exists by then.
fn create_stage_2<'m, S: Sys>(
    sys: &mut S,
    log: &mut Log,
    cx: Context<'_, 'm>,
) -> Result<StageEnd, Error<'m>> {
    let asked = cx.bootstrap;
    if let Some(score) = asked.oom_score_adj() {
        // Before this process becomes non-dumpable, because then /proc/self belongs to root. Stage 2 inherits
        // the score.
        log.debug(sys, format_args!("update /proc/self/oom_score_adj to '{}'", Lossy(score.text())));
        procfs::write(sys, c"self/oom_score_adj", score.text_with_nul(), Doing::OomScoreAdj)?;
    }
    if asked.namespaces().is_some() {
        // After the first join, processes in the joined namespaces could ptrace this one or open its
        // descriptors (CVE-2016-9962).
        log.debug(sys, format_args!("set process as non-dumpable"));
        sys.set_dumpable(false).map_err(|errno| Error::Os { doing: Doing::NonDumpable, errno })?;
    }
    // Before a join that could make another /proc visible. If something is joined, the file belongs to root
    // now, as it does for stage 0: an ordinary user is refused in both shapes.
    let offsets = offsets::open(sys, asked)?;
    let user_namespace = join_all(sys, log, cx)?;
    let created = asked.clone_flags();
    if created != CloneFlags::EMPTY {
        log.debug(sys, format_args!("{}", cx.policy.dialect.unshare_remaining_text));
        unshare(sys, created)
            .map_err(|errno| Error::Os { doing: Doing::UnshareRemaining(created), errno })?;
    }
    if let Some(offsets) = offsets {
        offsets.write(sys)?;
    }
    log.debug(sys, format_args!("spawn stage-2"));
    let forked = sys.clone_sibling(cx.tid).map_err(|errno| Error::Os { doing: Doing::SpawnStage2, errno })?;
    match forked {
        Fork::Child => {
            // The first call: from here on a stopped stage 2 ends with the launcher.
            end_with_launcher(sys, cx.policy.ends_with_launcher());
            log.forked(2);
            Ok(StageEnd::HandOver(LastSteps::of(cx, user_namespace)))
        }
        Fork::Parent { child: stage_2 } => {
            let doing = Doing::Sync(SyncStep::WriteStage2Pid);
            send_all(sys, cx.init_pipe, &stage_2.0.to_ne_bytes())
                .map_err(|errno| kill_stages(sys, &[stage_2], Error::Os { doing, errno }))?;
            log.debug(sys, format_args!("<~ nsexec stage-1"));
            log.report_dropped(sys);
            Ok(StageEnd::Exit(0))
        }
    }
}

/// Becomes the command. Returns the status to exit with. `log_pipe` is the log pipe.
///
/// Runs in stage 2, in every requested namespace except a user namespace that it joins in its last steps; as
/// pid 1 if the pid namespace is new. Waits for the go byte before it changes anything but its session. The
/// launcher reaps stage 1 meanwhile, then waits for the exec or a fatal record.
fn run_stage_2<S: Sys>(
    sys: &mut S,
    job: &Job<'_>,
    log: &mut Log,
    cx: Context<'_, '_>,
    (last, log_pipe): (Option<LastSteps>, Fd),
) -> i32 {
    log.debug(sys, format_args!("~> nsexec stage-2"));
    log.report_dropped(sys);
    let (tail, init) = (&job.tail, cx.init_pipe);
    let os = |doing| move |errno| Error::Os { doing, errno };
    // The command begins with the caller's mask, and the log blocks SIGPIPE.
    let mut begun = log.restore_signals(sys).map_err(os(Doing::RestoreSignals));
    if begun.is_ok() && cx.policy.session == Session::New {
        // Before the wait: a process of the container may be in the caller's session, and could send SIGCONT.
        begun = sys.setsid().map_err(os(Doing::Setsid));
    }
    if let Err(error) = begun {
        return tail::report(sys, &error, false, init, log_pipe);
    }
    tail::run_after_go(sys, tail, init, log_pipe, |sys| {
        if cx.root_at_once() {
            let dropping = drop_groups(cx.policy.setgroups, cx.bootstrap);
            become_root(sys, dropping, cx.policy.ends_with_launcher())?;
        }
        tail::mount(sys, tail)?;
        if let Some(steps) = last {
            steps.take(sys, tail.user_namespace)?;
        }
        // After the last change of the user id, which clears the parent-death signal.
        tail::set_kill_child(sys, tail)
    })
}

#[cfg(test)]
#[path = "child_tests.rs"]
mod tests;
