//! A direct start: the launcher creates the command's process, writes its maps, and lets it run. It sends
//! only the go byte.
//!
//! The deciders and steps are those of the stages: the order of the namespaces, the maps and their checks,
//! the ids, the mounts, the exec. A direct start has no forks of stages and no messages between them.

use super::closing::begin;
use super::conclude::conclude;
use super::fork::{BeforeFork, prepare_fork, restore_signals};
use super::job::Job;
use super::number::open_directory;
use super::offsets;
use super::outcome::{FailureKind, Launched, Step, failed, os};
use super::pipes::{LogReader, add_error, add_record};
use super::shape::order;
use super::shared::{First, Stack};
use super::stages::Stages;
use super::tail::{self, GO};
use super::watch::Watch;
use crate::deciders::bootstrap::Bootstrap;
use crate::deciders::bootstrap::text::Lossy;
use crate::deciders::policy::{Credentials, LogForm, Session};
use crate::scripts::map_files::{self, Writing};
use crate::scripts::nsexec::thread_id_cache;
use crate::scripts::pipe::send_all;
use crate::scripts::procfs;
use crate::scripts::stage::init::{become_root, drop_groups};
use crate::scripts::stage::{end_with_launcher, parent::is_death};
use crate::scripts::unshare::unshare;
use crate::sys::Sys;
use crate::sys::types::{CloneFlags, Errno, Fd, InitFork, OpenFlags, Pid, TidAddress};
use crate::words::error::{Doing, Error, ProcFile, ToolFailure};
use crate::words::log::{Level, Log};

/// Starts the command without stages. Returns `None` if the stages have to do it: the kernel refuses the
/// clone, or a map that only a mapping tool can write. No process is left then.
///
/// Runs in the launcher, in the caller's namespaces, with the caller's privileges, and returns in the new
/// process too, with [`Launched::Exit`]. Waits for its turn to fork; before the go byte only for the death of
/// the process, if a write fails; then for the end of the log.
pub(super) fn launch<S: Sys, L: LogReader>(
    sys: &mut S,
    job: &Job<'_>,
    asked: &Bootstrap<'_>,
    log: &mut L,
) -> Option<Launched> {
    let mut before = match prepare_fork(sys, log, job.stack.is_some()) {
        Ok(before) => before,
        Err(kind) => return Some(failed(kind)),
    };
    let sharing = Sharing::begin(sys, job, log, &mut before);
    let first = Beginning { job, asked, before };
    // SAFETY: `first`, and what it refers to, lives until the process has executed the command or has ended:
    // see `Sharing::end`. `run` allocates no memory, takes no lock, and makes its calls through the backend.
    let shared = sharing.0.map(|stack| unsafe { stack.start(&first) });
    let (child, pidfd) = match sys.clone_init(order(asked.clone_flags()).with_process, shared, before.tid) {
        Ok(InitFork::Child) => return Some(Launched::Exit(first.run(sys))),
        Ok(InitFork::Parent { child, pidfd }) => (child, pidfd),
        // The stages create the namespaces one after the other. Their own error names the one that is
        // refused.
        Err(errno) => {
            sharing.end(sys, log, None);
            before.give_up(sys, log);
            if job.level >= Level::Debug {
                add_record(
                    sys,
                    log,
                    0,
                    Level::Debug,
                    format_args!("a process in new namespaces is refused: {errno}; trying the stages"),
                    None,
                );
            }
            return None;
        }
    };
    before.leave_child_to_itself(sys, log);
    let pipes = before.pipes;
    let mut stages = Stages::of_command(child, pidfd).with_init(job.tail.init);
    let mut watch = Watch::new(job.interrupt, job.timer);
    let hidden = sharing.0.is_some_and(Stack::hides);
    let written = write_files(sys, job, asked, (pipes.init, child, pidfd), (before.tid, hidden), log);
    let started = match written {
        Ok(Files::Written) => log.before_start(child).and_then(|()| {
            stages.note_go(child);
            send_all(sys, pipes.init, &[GO]).map_err(os(Step::SendGo)).map(|()| child)
        }),
        Ok(Files::NeedStages) => {
            stages.abandon(sys, pipes);
            sharing.end(sys, log, Some((&stages, child)));
            return None;
        }
        Err(kind) => Err(kind),
    };
    let launched = conclude(sys, (pipes, &mut stages), &mut watch, log, started);
    let failed = matches!(launched, Launched::Failed(_));
    sharing.end(sys, log, failed.then_some((&stages, child)));
    Some(launched)
}

/// The time in which the process shares the launcher's memory, if it does, with the stack of that process.
#[derive(Clone, Copy)]
struct Sharing<'j>(Option<&'j Stack>);

impl<'j> Sharing<'j> {
    /// Makes the launcher not dumpable, if the process that will share its memory may be traced by others. If
    /// the kernel refuses that (a filter), the process gets a copy of the memory.
    fn begin<S: Sys, L: LogReader>(sys: &mut S, job: &Job<'j>, log: &mut L, before: &mut BeforeFork) -> Self {
        match job.stack {
            Some(stack) if stack.hides() && log.hide(sys).is_err() => {
                before.tid = thread_id_cache(sys);
                Self(None)
            }
            stack => Self(stack),
        }
    }

    /// Ends the sharing: the process has executed the command, was not created, or belongs to a `failed`
    /// launch.
    ///
    /// Keeps the stack if the process may still exist after the failed launch: it has survived SIGKILL for
    /// some seconds, or a filter refuses wait4(2). Aborts if it could not be killed ([`Stack::keep`]). The
    /// launcher then stays not dumpable.
    fn end<S: Sys, L: LogReader>(self, sys: &mut S, log: &mut L, failed: Option<(&Stages, Pid)>) {
        let Some(stack) = self.0 else { return };
        match failed {
            Some((stages, child)) if !stages.has_ended(child) => stack.keep(stages.kill_refused()),
            _ if stack.hides() => log.unhide(sys),
            _ => {}
        }
    }
}

/// The first function of the process of a direct start, with its input: see [`run`].
struct Beginning<'j, 'm> {
    job: &'j Job<'j>,
    asked: &'j Bootstrap<'m>,
    before: BeforeFork,
}

impl First for Beginning<'_, '_> {
    fn run<S: Sys>(&self, sys: &mut S) -> i32 {
        run(sys, self.job, self.asked, self.before)
    }
}

fn creates_user(asked: &Bootstrap<'_>) -> bool {
    asked.clone_flags().contains(CloneFlags::NEWUSER)
}

/// Whether the launcher could write the files of the new process.
enum Files {
    Written,
    /// The kernel refused a map, and the message names a tool that has more privileges; or it refused to open
    /// a file of the process, which is not dumpable and so belongs to root of another user namespace.
    NeedStages,
}

/// Writes the oom score of the new process, and the setgroups policy and the maps of its user namespace.
/// Without a new user namespace the launcher writes nothing, and needs no /proc. `hidden`: the process, with
/// the launcher, is not dumpable.
fn write_files<S: Sys, L: LogReader>(
    sys: &mut S,
    job: &Job<'_>,
    asked: &Bootstrap<'_>,
    (init, child, pidfd): (Fd, Pid, Option<Fd>),
    (tid, hidden): (Option<TidAddress>, bool),
    log: &mut L,
) -> Result<Files, FailureKind> {
    if !creates_user(asked) {
        return Ok(Files::Written);
    }
    let mut target = None;
    let written = open_directory(sys, child, pidfd).and_then(|dir| {
        target = Some(dir);
        if let Some(score) = asked.oom_score_adj() {
            // By the launcher: root of a new user namespace may not lower its own score.
            let (file, flags) = (ProcFile::OomScoreAdj, OpenFlags::ReadWrite);
            let fd = dir.open_file(sys, file, flags)?;
            procfs::write_once(sys, fd, score.text_with_nul(), Doing::Update(child, file))?;
            note_update(sys, job, log, (child, file), score.text());
        }
        // The launcher starts no tool: it would have to reap a child of the calling program.
        let bootstrap = &asked.without_mapping_tools();
        let setgroups = job.policy.setgroups;
        let writing = Writing { bootstrap, setgroups, stage_1: init, init_pipe: init, tid };
        let records = &mut Log::without_records(job.policy.log_form);
        map_files::write_maps(sys, records, dir, writing)?;
        for (file, map) in [(ProcFile::UidMap, asked.uid_map()), (ProcFile::GidMap, asked.gid_map())] {
            if let Some(map) = map {
                note_update(sys, job, log, (child, file), map.text());
            }
        }
        Ok(())
    });
    let files = match written {
        Ok(()) => Ok(Files::Written),
        Err(error) if is_death(sys, init, target, &error) => Err(FailureKind::StageFailed),
        Err(Error::MappingTool { why: ToolFailure::NotPresent, .. }) if asked.names_mapping_tool() => {
            Ok(Files::NeedStages)
        }
        // This program has created its own user namespace after its exec.
        Err(error) if hidden && error.errno() == Some(Errno::EACCES) => Ok(Files::NeedStages),
        Err(error) => {
            add_error(sys, log, 0, &error);
            Err(FailureKind::OwnRecord)
        }
    };
    if let Some(target) = target {
        target.close(sys);
    }
    files
}

/// Adds the debug record of a file that the launcher has written.
fn note_update<S: Sys, L: LogReader>(
    sys: &mut S,
    job: &Job<'_>,
    log: &mut L,
    (child, file): (Pid, ProcFile),
    text: &[u8],
) {
    if job.level >= Level::Debug {
        add_record(
            sys,
            log,
            0,
            Level::Debug,
            format_args!("update /proc/{child}/{} to '{}'", file.as_str(), Lossy(text)),
            None,
        );
    }
}

/// Becomes the command. Returns the status to exit with.
///
/// Runs as the child of [`clone_init`](Sys::clone_init), in the namespaces that were created with it; as pid
/// 1 if the pid namespace is new. Waits for the go byte before it needs an id or creates a namespace. The
/// launcher writes the maps meanwhile, then waits for the exec or a fatal record.
fn run<S: Sys>(sys: &mut S, job: &Job<'_>, asked: &Bootstrap<'_>, before: BeforeFork) -> i32 {
    // The first call: from here on a stopped process ends with the launcher.
    end_with_launcher(sys, job.policy.ends_with_launcher());
    restore_signals(sys, job, before);
    let (init, log) = (before.pipes.stage_init, before.pipes.stage_log);
    debug(sys, job, log, "~> nsexec stage-2");
    if let Err(error) = begin(sys, &job.tail, &before.pipes) {
        return tail::report(sys, &error, false, init, log);
    }
    tail::run_after_go(sys, &job.tail, init, log, |sys| prepare(sys, job, asked, log))
}

/// Writes a debug record, if the level includes it. The log blocks SIGPIPE, so it is open only for this
/// record: the command begins with the caller's mask.
fn debug<S: Sys>(sys: &mut S, job: &Job<'_>, log: Fd, text: &str) {
    if job.level >= Level::Debug {
        let mut log = Log::open(sys, Some(log), job.level, LogForm::Detailed);
        log.enter_stage(2);
        log.debug(sys, format_args!("{text}"));
        // Only an invalid argument makes this fail.
        let _ = log.restore_signals(sys);
    }
}

/// Changes the session and the ids, creates the remaining namespaces, and mounts. `log` is the log pipe.
fn prepare<'m, S: Sys>(sys: &mut S, job: &Job<'m>, asked: &Bootstrap<'_>, log: Fd) -> Result<(), Error<'m>> {
    let os = |doing| move |errno: Errno| Error::Os { doing, errno };
    if job.policy.session == Session::New {
        sys.setsid().map_err(os(Doing::Setsid))?;
    }
    if let Some(score) = asked.oom_score_adj().filter(|_| !creates_user(asked)) {
        procfs::write(sys, c"self/oom_score_adj", score.text_with_nul(), Doing::OomScoreAdj)?;
    }
    // Opened before the ids change. After it this process is not dumpable, and the file belongs to root.
    let offsets = offsets::open(sys, asked)?;
    if job.policy.credentials != Credentials::Keep {
        // Before the other namespaces are created: they then belong to root of the new user namespace.
        become_root(sys, drop_groups(job.policy.setgroups, asked), job.policy.ends_with_launcher())?;
    }
    let remaining = order(asked.clone_flags()).by_process;
    if remaining != CloneFlags::EMPTY {
        debug(sys, job, log, job.policy.dialect.unshare_remaining_text);
        unshare(sys, remaining).map_err(os(Doing::UnshareRemaining(remaining)))?;
    }
    if let Some(offsets) = offsets {
        offsets.write(sys)?;
    }
    if remaining.contains(CloneFlags::NEWTIME) {
        offsets::enter_time_namespace(sys)?;
    }
    tail::mount(sys, &job.tail)?;
    // After the last change of the user id, which clears the parent-death signal.
    tail::set_kill_child(sys, &job.tail)
}

#[cfg(test)]
#[path = "direct_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "direct_process_tests.rs"]
mod process_tests;
