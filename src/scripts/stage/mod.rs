//! The three stages and the code that they share.
//!
//! ```text
//! launcher
//!  ├─ stage 0 parent   reads the message, writes maps and offsets for stage 1, reports both pids, exits 0
//!  ├─ stage 1 child    joins and creates namespaces, creates stage 2, exits 0
//!  └─ stage 2 init     becomes session leader and root, and returns to its caller
//! ```
//! Stages 1 and 2 are created with CLONE_PARENT, so the launcher is the parent of all three and reaps them.

pub mod child;
pub mod init;
pub mod parent;

use crate::deciders::bootstrap::Bootstrap;
use crate::deciders::policy::{Credentials, Policy};
use crate::sys::Sys;
use crate::sys::types::{CloneFlags, Fd, Pid, Signal, TidAddress};
use crate::words::error::Error;
use crate::words::log::Log;
pub use init::LastSteps;

/// The result of a bootstrap, in each of its processes. The core never exits the process; its caller does.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[must_use]
pub enum Outcome {
    /// The environment does not ask for a bootstrap: return. Nothing was changed.
    NotInit,
    /// The stage exits with this status.
    Exit(i32),
    /// This process is stage 2: return to the caller. From now on the process is the container's init.
    HandOver,
}

/// The result of a stage for our own launcher: an [`Outcome`] with the remaining steps of stage 2.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum StageEnd {
    /// The stage exits with this status.
    Exit(i32),
    /// This process is stage 2. With last steps it still has the caller's ids, and the caller runs the steps
    /// after the go byte.
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

/// The data that all stages share. No stage changes it.
#[derive(Clone, Copy, Debug)]
pub struct Context<'c, 'm> {
    /// The parsed bootstrap message.
    pub bootstrap: &'c Bootstrap<'m>,
    /// The settings that the message does not contain.
    pub policy: &'c Policy,
    /// The descriptor to which the pid line is written.
    pub init_pipe: Fd,
    /// The target descriptors of the mount sources, if the message has any.
    #[cfg(feature = "legacy")]
    pub mount_fds: Option<crate::legacy::MountFds<'c>>,
    /// The address of the libc's thread id cache, if it has one.
    pub tid: Option<TidAddress>,
}

impl Context<'_, '_> {
    /// Returns whether stage 2 becomes root a few calls before its exec, and no stage becomes root earlier.
    /// This is false if a namespace is created: only root of the user namespace may create it (runc#4466).
    pub(crate) fn root_last(&self) -> bool {
        self.policy.credentials == Credentials::RootLast && self.bootstrap.clone_flags() == CloneFlags::EMPTY
    }

    /// Returns whether stage 1 becomes root in the user namespace, and stage 2 before it reports its
    /// completion.
    pub(crate) fn root_at_once(&self) -> bool {
        self.policy.credentials != Credentials::Keep && !self.root_last()
    }
}

/// Kills the stages that a failing stage must not leave behind, and returns its error. The launcher reaps
/// them.
///
/// A caller passes only stages that cannot have been reaped, so the signal cannot hit an unrelated process.
/// The launcher reaps no stage before it has the pid line.
pub(crate) fn kill_stages<'m, S: Sys>(sys: &mut S, stages: &[Pid], error: Error<'m>) -> Error<'m> {
    // The stage that reported the failure has already killed its children and exits with its own status.
    #[cfg(feature = "legacy")]
    if crate::legacy::seed::status_reported(&error).is_some() {
        return error;
    }
    for pid in stages {
        // ESRCH: the stage has already exited.
        let _ = sys.kill(*pid, Signal::KILL);
    }
    error
}

/// Asks the kernel to kill this stage when the launcher's thread dies, if the policy requires it (`asked`). A
/// stopped stage cannot detect that death itself. Repeated after each change of credentials, which may clear
/// the signal.
///
/// Called by stages 1 and 2. Stage 0 gets SIGCONT instead ([`launch`](crate::launch)): it may have a mapping
/// tool to kill.
pub(crate) fn end_with_launcher<S: Sys>(sys: &mut S, asked: bool) {
    #[cfg(feature = "std")]
    if asked {
        // Only a seccomp filter can refuse this. Then only the hang-up of the init pipe reports the
        // launcher's death.
        let _ = sys.set_pdeathsig(Signal::KILL);
    }
    #[cfg(not(feature = "std"))]
    let _ = (sys, asked);
}

/// Sets the name of this process to that of its stage and writes the first log record of the stage.
pub(crate) fn enter<S: Sys>(sys: &mut S, log: &mut Log, stage: u8) {
    let name = match stage {
        0 => c"runc:[0:PARENT]",
        1 => c"runc:[1:CHILD]",
        _ => c"runc:[2:INIT]",
    };
    // The name is informational: an error has no consequence.
    let _ = sys.set_name(name);
    log.enter_stage(stage);
    log.debug(sys, format_args!("~> nsexec stage-{stage}"));
}
