//! Standard output, as a file: the standard library's own handle takes a closed one for a success.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;

use super::failure::{Failure, words};

/// Writes all of it, at once.
///
/// # Errors
/// What write(2) says: EBADF if the caller closed standard output.
pub(crate) fn write(bytes: &[u8]) -> Result<(), Failure> {
    write_all(bytes)
        .map_err(|error| Failure::ours(format!("failed to write standard output: {}", words(&error))))
}

/// As [`write`], for people: a reader that has seen enough, as `| head`, is no failure to talk about.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    match write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(Failure::ours(format!("failed to write standard output: {}", words(&error)))),
        Ok(()) => Ok(()),
    }
}

fn write_all(bytes: &[u8]) -> io::Result<()> {
    File::from(io::stdout().as_fd().try_clone_to_owned()?).write_all(bytes)
}
