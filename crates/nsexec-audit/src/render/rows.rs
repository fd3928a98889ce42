//! Groups the calls of a process into the rows of the text form: a search in PATH is one row.

use std::vec::Vec;

use super::walk::AnnotatedLine;
use crate::record::{Call, Reply};
use nsexec::sys::types::Errno;

/// One row.
#[derive(Clone, Debug)]
pub(super) enum Row<'s, 'a> {
    /// One call.
    Call(&'s AnnotatedLine<'a>),
    /// At least two attempts in a row to execute a file, with the same error.
    Search(&'s [AnnotatedLine<'a>]),
}

/// Returns the rows of consecutive lines of one process.
pub(super) fn rows<'s, 'a>(seen: &'s [AnnotatedLine<'a>]) -> Vec<Row<'s, 'a>> {
    let together = |one: &AnnotatedLine<'_>, next: &AnnotatedLine<'_>| {
        missing(one).is_some() && missing(one) == missing(next)
    };
    let mut rows = Vec::new();
    for group in seen.chunk_by(together) {
        match group {
            [one] => rows.push(Row::Call(one)),
            several => rows.push(Row::Search(several)),
        }
    }
    rows
}

/// Returns the error of an attempt to execute a file that does not exist.
fn missing(seen: &AnnotatedLine<'_>) -> Option<Errno> {
    match (&seen.line.call, &seen.line.reply) {
        (Call::Execve { .. }, Reply::Errno(errno @ (Errno::ENOENT | Errno::ENOTDIR))) => Some(*errno),
        _ => None,
    }
}
