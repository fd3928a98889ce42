//! Creation of the first process of a launch: the pipes and the signal mask before it, the ends to close and
//! the signal state to restore after it. Each shape of a start uses it.

use super::job::Job;
use super::outcome::{FailureKind, Step};
use super::pipes::{LogReader, Pipes, close};
use crate::scripts::nsexec::thread_id_cache;
use crate::sys::Sys;
use crate::sys::types::{MaskHow, SigAction, Signal, SignalSet, TidAddress};

/// The pipes and the signal mask that the launcher prepares before it creates its first process.
#[derive(Clone, Copy, Debug)]
pub(super) struct BeforeFork {
    pub(super) pipes: Pipes,
    /// The libc's thread id cache.
    pub(super) tid: Option<TidAddress>,
    /// The signal mask of this thread, in which all signals are blocked now.
    pub(super) mask: SignalSet,
}

/// Waits for the turn of this launch, creates the pipes, and blocks all signals: a handler of the program
/// must not run in the new process, which resets all handlers before it restores the mask.
///
/// With `shared` the new process shares this memory, and so the libc's cached thread id stays that of this
/// thread.
pub(super) fn prepare_fork<S: Sys, L: LogReader>(
    sys: &mut S,
    log: &mut L,
    shared: bool,
) -> Result<BeforeFork, FailureKind> {
    log.wait_for_turn()?;
    let pipes = make_pipes(sys).inspect_err(|_| log.end_turn())?;
    let tid = if shared { None } else { thread_id_cache(sys) };
    match sys.sigprocmask(MaskHow::Block, SignalSet(u64::MAX)) {
        Ok(mask) => Ok(BeforeFork { pipes, tid, mask }),
        Err(errno) => {
            pipes.close_all(sys);
            log.end_turn();
            Err(FailureKind::Os { step: Step::BlockSignals, errno })
        }
    }
}

impl BeforeFork {
    /// Closes the ends of the new process and restores the mask. From then on other launches may fork.
    pub(super) fn leave_child_to_itself<S: Sys, L: LogReader>(&self, sys: &mut S, log: &mut L) {
        close(sys, self.pipes.stage_init);
        close(sys, self.pipes.stage_log);
        log.end_turn();
        restore_mask(sys, self.mask);
    }

    /// Closes all pipes and restores the mask. No process was created.
    pub(super) fn give_up<S: Sys, L: LogReader>(&self, sys: &mut S, log: &mut L) {
        self.pipes.close_all(sys);
        log.end_turn();
        restore_mask(sys, self.mask);
    }
}

fn make_pipes<S: Sys>(sys: &mut S) -> Result<Pipes, FailureKind> {
    let (init, stage_init) =
        sys.socketpair().map_err(|errno| FailureKind::Os { step: Step::MakeInitPipe, errno })?;
    match sys.pipe2() {
        Ok((log, stage_log)) => Ok(Pipes { init, stage_init, log, stage_log }),
        Err(errno) => {
            close(sys, init);
            close(sys, stage_init);
            Err(FailureKind::Os { step: Step::MakeLogPipe, errno })
        }
    }
}

/// Closes the launcher's ends, and restores the signal state that the command begins with.
///
/// Runs as the first process of a launch, a fork of the launcher with all signals blocked.
pub(super) fn restore_signals<S: Sys>(
    sys: &mut S,
    job: &Job<'_>,
    BeforeFork { pipes, mask, .. }: BeforeFork,
) {
    // Closed before the first wait. The launcher's death is detected as an end of file, which an open copy of
    // its ends would hide.
    close(sys, pipes.init);
    close(sys, pipes.log);
    set_dispositions(sys, job);
    restore_mask(sys, job.signals.mask.unwrap_or(mask));
}

/// Returns the signals whose dispositions the command begins with.
pub(super) fn dispositions(job: &Job<'_>) -> impl Iterator<Item = (Signal, SigAction)> {
    let default = members(job.signals.default).map(|signal| (signal, SigAction::DEFAULT));
    default.chain(members(job.signals.ignore).map(|signal| (signal, SigAction::IGNORE)))
}

/// Sets the dispositions that the command begins with.
pub(super) fn set_dispositions<S: Sys>(sys: &mut S, job: &Job<'_>) {
    for (signal, action) in dispositions(job) {
        let _ = sys.sigaction(signal, action);
    }
}

pub(super) fn restore_mask<S: Sys>(sys: &mut S, mask: SignalSet) {
    // sigprocmask fails only with a wrong argument.
    let _ = sys.sigprocmask(MaskHow::Set, mask);
}

/// Returns the signals of a set, in ascending order.
pub(super) fn members(set: SignalSet) -> impl Iterator<Item = Signal> {
    (1..=64).zip(0..64).filter_map(move |(signal, bit)| {
        set.contains(SignalSet(1_u64.rotate_left(bit))).then_some(Signal(signal))
    })
}
