//! How a command of the program fails: one line on standard error, and an exit status.

use std::fmt;
use std::io;

/// The exit status of a failure of nsexec itself.
pub(crate) const FAILED: u8 = 1;
/// The exit status of wrong usage.
pub(crate) const USAGE: u8 = 2;
/// The exit status of `trace` if the run differs from the plan.
pub(crate) const NOT_AS_PLANNED: u8 = 3;

/// An error for standard error, with its exit status.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Failure {
    /// Wrong usage: printed in clap's format, with status 2.
    Usage(String),
    /// Any other failure: printed as `nsexec: TEXT`.
    Other {
        /// The failed step, its object, the errno in words, and the likely cause.
        text: String,
        /// The exit status.
        status: u8,
    },
    /// As `Other` with status 1: this process has no descriptor or memory left. Such a failure is not reduced
    /// to a note about the process to enter.
    Limited(String),
}

impl Failure {
    /// Returns a failure of nsexec itself, with status 1.
    pub(crate) fn ours(text: impl Into<String>) -> Self {
        Self::Other { text: text.into(), status: FAILED }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(text) | Self::Other { text, .. } | Self::Limited(text) => f.write_str(text),
        }
    }
}

/// Returns the cause of ENOSYS: the `calls` exist since this version of Linux.
pub(crate) fn needs(calls: &str, since: &str) -> String {
    format!("this needs {calls} (Linux {since}), which this kernel lacks or a seccomp filter refuses")
}

/// Returns the errno in words, without the suffix "(os error 2)" of the standard library.
pub(crate) fn words(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => nsexec::sys::types::Errno(number).to_string(),
        None => error.to_string(),
    }
}
