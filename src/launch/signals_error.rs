//! The error of [`Signals::take`](super::signals::Signals::take): the step that failed, and its errno.

use core::fmt;

use crate::sys::types::Errno;

/// The error of [`Signals::take`](super::signals::Signals::take).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct SignalsError {
    /// The step that failed.
    pub step: SignalsStep,
    /// The error of the call.
    pub errno: Errno,
}

/// The steps of [`Signals::take`](super::signals::Signals::take) that can fail, in their order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum SignalsStep {
    /// rt_sigaction(2): sets the default disposition of SIGCHLD.
    DefaultSigchld,
    /// signalfd(2): creates the descriptor for the signals that end a launch.
    InterruptDescriptor,
    /// signalfd(2): creates the descriptor for the signals that are passed on to the command.
    SignalDescriptor,
    /// rt_sigprocmask(2): blocks the signals.
    Block,
}

impl SignalsStep {
    /// Returns the error of this step.
    pub(super) fn failed(self, errno: impl Into<i32>) -> SignalsError {
        SignalsError { step: self, errno: Errno(errno.into()) }
    }
}

impl fmt::Display for SignalsStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DefaultSigchld => "failed to give SIGCHLD its default disposition",
            Self::InterruptDescriptor => "failed to create the signalfd for signals that end a launch",
            Self::SignalDescriptor => "failed to create the signalfd for signals to the command",
            Self::Block => "failed to block the signals that are passed on to the command",
        })
    }
}

impl fmt::Display for SignalsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.step, self.errno)
    }
}

impl core::error::Error for SignalsError {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn each_step_has_its_own_text() {
        let steps = [
            SignalsStep::DefaultSigchld,
            SignalsStep::InterruptDescriptor,
            SignalsStep::SignalDescriptor,
            SignalsStep::Block,
        ];
        let texts: std::collections::BTreeSet<_> = steps.iter().map(ToString::to_string).collect();
        assert_eq!(texts.len(), steps.len());
        assert_eq!(
            SignalsStep::SignalDescriptor.failed(libc::EMFILE).to_string(),
            "failed to create the signalfd for signals to the command: Too many open files"
        );
    }
}
