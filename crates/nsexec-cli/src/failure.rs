//! How a command of ours ends when it does not succeed: one line, and an exit status.

use std::fmt;
use std::io;

/// Our own failure.
pub(crate) const FAILED: u8 = 1;
/// Wrong usage.
pub(crate) const USAGE: u8 = 2;

/// What is said on standard error, and the exit status.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Failure {
    /// Wrong usage: said with clap's text, as clap's own.
    Usage(String),
    /// Anything else: `nsexec: TEXT`.
    Other {
        /// What failed, on which object, the errno in words, the likely cause.
        text: String,
        /// The exit status.
        status: u8,
    },
}

impl Failure {
    /// A failure of ours.
    pub(crate) fn ours(text: impl Into<String>) -> Self {
        Self::Other { text: text.into(), status: FAILED }
    }
}

impl From<super::request::UsageError> for Failure {
    fn from(error: super::request::UsageError) -> Self {
        Self::Usage(error.0)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(text) | Self::Other { text, .. } => f.write_str(text),
        }
    }
}

/// The errno in words, as everywhere else in the program: without std's "(os error 2)".
pub(crate) fn words(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => nsexec::sys::types::Errno(number).to_string(),
        None => error.to_string(),
    }
}
