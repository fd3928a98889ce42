//! The three stages, and what they share.
//!
//! ```text
//! launcher
//!  ├─ stage 0 parent   reads the message, writes maps and offsets for stage 1, reports both pids, exits 0
//!  ├─ stage 1 child    joins, creates, makes stage 2, exits 0
//!  └─ stage 2 init     becomes session leader and root, and returns to its caller
//! ```
//! Stages 1 and 2 are made with CLONE_PARENT, so the launcher is the parent of all three and reaps them.

pub mod child;
pub mod init;
pub mod parent;
pub mod sources;
#[cfg(all(test, feature = "serde"))]
mod tests;

use crate::bootstrap::{Bootstrap, MountFds};
use crate::error::Error;
use crate::log::Log;
use crate::policy::{Credentials, Policy};
use crate::sys::Sys;
use crate::sys::types::{CloneFlags, Fd, Pid, Signal, TidAddress};
pub use init::LastSteps;

/// How a bootstrap ends, in each process of its own. No script exits the process; the edge does.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[must_use]
pub enum Outcome {
    /// The environment does not ask for a bootstrap: return, nothing touched.
    NotInit,
    /// The stage exits with this status.
    Exit(i32),
    /// This is stage 2: return to the caller, which is the container's init from now on.
    HandOver,
}

/// The end of a stage, for our own launcher: an [`Outcome`] with the remaining steps of stage 2.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum StageEnd {
    /// The stage exits with this status.
    Exit(i32),
    /// This process is stage 2. If there are last steps, it has the caller's ids, and takes the steps after the go byte.
    HandOver(Option<LastSteps>),
}

impl From<StageEnd> for Outcome {
    fn from(end: StageEnd) -> Self {
        match end {
            StageEnd::Exit(status) => Self::Exit(status),
            StageEnd::HandOver(_) => Self::HandOver,
        }
    }
}

/// What every stage needs to know, and none changes.
#[derive(Clone, Copy, Debug)]
pub struct Context<'c, 'm> {
    /// What the message says.
    pub bootstrap: &'c Bootstrap<'m>,
    /// What the message cannot say.
    pub policy: &'c Policy,
    /// Where the pid line goes.
    pub init_pipe: Fd,
    /// Where the mount sources go, if the message has any.
    pub mount_fds: Option<MountFds<'c>>,
    /// Where the libc caches its thread id, if it does.
    pub tid: Option<TidAddress>,
}

impl Context<'_, '_> {
    /// Returns whether stage 2 becomes root a few calls before its exec, and no stage becomes root earlier. A namespace must be
    /// created as root of the user namespace (runc#4466), so this is false if one is created.
    pub(crate) fn root_last(&self) -> bool {
        self.policy.credentials == Credentials::RootLast && self.bootstrap.clone_flags() == CloneFlags::EMPTY
    }

    /// Returns whether stage 1 becomes root once it is in the user namespace, and stage 2 before it reports its completion.
    pub(crate) fn root_at_once(&self) -> bool {
        self.policy.credentials != Credentials::Keep && !self.root_last()
    }
}

/// The stages that a failing stage takes with it. A pid is here only as long as its process cannot have been
/// reaped, so a kill never meets a stranger: the launcher reaps nobody before it has the pid line (spec 4.2.10).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wards {
    pub(crate) stage_1: Option<Pid>,
    pub(crate) stage_2: Option<Pid>,
}

impl Wards {
    /// Kills them, and passes the error on. The launcher reaps.
    pub(crate) fn kill<'m, S: Sys>(self, sys: &mut S, error: Error<'m>) -> Error<'m> {
        // Whoever told has killed its own, and ends with a status of its own.
        if matches!(error, Error::ToldFailure { .. }) {
            return error;
        }
        for pid in [self.stage_1, self.stage_2].into_iter().flatten() {
            // ESRCH: it was faster.
            let _ = sys.kill(pid, Signal::KILL);
        }
        error
    }
}

/// Asks the kernel to kill this stage when the launcher's thread dies, if the policy requires it (`asked`). A stopped stage
/// cannot detect that death itself. Repeated after each change of credentials, which may clear the signal.
///
/// Called by stages 1 and 2. Stage 0 gets SIGCONT instead ([`launch`](crate::launch)): it may have a mapping tool to kill.
pub(crate) fn end_with_launcher<S: Sys>(sys: &mut S, asked: bool) {
    if asked {
        // Only a filter can refuse this. Then only the hang-up of the init pipe reports the launcher's death.
        let _ = sys.set_pdeathsig(Signal::KILL);
    }
}

/// Says that this process is a stage from now on: its name, and the first record.
pub(crate) fn enter<S: Sys>(sys: &mut S, log: &mut Log, stage: u8) {
    let name = match stage {
        0 => c"runc:[0:PARENT]",
        1 => c"runc:[1:CHILD]",
        _ => c"runc:[2:INIT]",
    };
    // Nothing depends on the name.
    let _ = sys.set_name(name);
    log.enter_stage(stage);
    log.debug(sys, format_args!("~> nsexec stage-{stage}"));
}
