//! The input of a launch.

use super::shared::Stack;
use super::tail::Tail;
use crate::deciders::policy::Policy;
use crate::sys::types::{Fd, SignalSet};
use crate::words::log::Level;

/// The signal state that the first process of a launch begins with, and so the command. It equals the state
/// after an exec by the launcher.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ChildSignals {
    /// The mask. `None` for the mask of the thread that launches.
    pub mask: Option<SignalSet>,
    /// Signals that get their default disposition: those with a handler, which must not run in a fork of the
    /// program, and SIGPIPE, which Rust's runtime ignores.
    pub default: SignalSet,
    /// Signals that are ignored again, because the launcher changed their disposition for itself.
    pub ignore: SignalSet,
}

/// The input of a launch. All of it is prepared before the fork.
#[derive(Clone, Copy, Debug)]
pub struct Job<'a> {
    /// The encoded bootstrap message.
    pub message: &'a [u8],
    /// The settings that a bootstrap message cannot carry.
    pub policy: &'a Policy,
    /// The log level of the launch's processes.
    pub level: Level,
    /// The signal state of the launch's processes and of the command.
    pub signals: ChildSignals,
    /// A signalfd that ends the launch when it becomes readable. A record of it begins with the signal's
    /// number.
    pub interrupt: Option<Fd>,
    /// A timerfd, which becomes readable when the time limit of the launch expires. It ends the launch.
    pub timer: Option<Fd>,
    /// True if [`run_from_sealed_copy`](super::run_from_sealed_copy) has found the mark of a copy in the
    /// environment. The mark identifies a copy in a directory, which has no seals.
    pub marked_copy: bool,
    /// The stack of a process that shares this process's memory, if a direct start may do that
    /// ([`memory`](super::shape::memory)).
    pub stack: Option<&'a Stack>,
    /// The last steps before the exec, in stage 2 or in the process of a direct start.
    pub tail: Tail<'a>,
}

#[cfg(test)]
impl<'a> Job<'a> {
    /// Returns the input of a test: no message, signal or timer, and only the exec of /a.
    pub(super) fn bare(policy: &'a Policy) -> Self {
        Self {
            message: b"",
            policy,
            level: Level::Warning,
            signals: ChildSignals::default(),
            interrupt: None,
            timer: None,
            marked_copy: false,
            stack: None,
            tail: Tail::BARE,
        }
    }
}
