//! Everything that the program writes: standard output, standard error, files.
//!
//! Standard output is written as a file: the standard library's own handle takes a closed one for a success. A write beyond
//! the limit of the size of files (RLIMIT_FSIZE) is an error here, and not the end of the process by SIGXFSZ; the command's
//! mask and disposition of that signal stay as the caller had them.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::Path;

use nsexec::launch::without_sigxfsz;
use nsexec::sys::types::Errno;

use super::failure::{Failure, words};

/// Writes all of it to standard output, at once.
///
/// # Errors
/// What write(2) says: EBADF if the caller closed standard output.
pub(crate) fn write(bytes: &[u8]) -> Result<(), Failure> {
    write_all(bytes).map_err(|error| unwritten("standard output", &error))
}

/// As [`write`], for people: a reader that has seen enough, as `| head`, is no failure to talk about.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    match write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(unwritten("standard output", &error)),
        Ok(()) => Ok(()),
    }
}

fn write_all(bytes: &[u8]) -> io::Result<()> {
    let mut out = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    without_sigxfsz(|| out.write_all(bytes))
}

/// Whether standard output is a terminal.
pub(crate) fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Writes to standard error. Nothing is left to do if that fails.
pub(crate) fn complain(text: fmt::Arguments<'_>) {
    without_sigxfsz(|| drop(io::stderr().write_fmt(text)));
}

/// Writes a stage's record to standard error. SIGXFSZ is blocked already
/// ([`Signals::take`](nsexec::launch::signals::Signals::take)), so nothing but the write is needed.
pub(crate) fn show_record(line: &str) {
    drop(io::stderr().write_all(line.as_bytes()));
}

/// Prints an error of clap's where clap prints it.
pub(crate) fn print_usage(error: &clap::Error) {
    // Nothing is left to do if standard error is closed.
    without_sigxfsz(|| drop(error.print()));
}

/// Makes the file empty, or new.
///
/// # Errors
/// What open(2) says.
pub(crate) fn create(file: &Path) -> Result<(), Failure> {
    File::create(file).map(drop).map_err(|error| unwritten(&file.display(), &error))
}

/// Writes a whole file.
///
/// # Errors
/// What open(2) and write(2) say.
pub(crate) fn save(file: &Path, text: &str) -> Result<(), Failure> {
    without_sigxfsz(|| fs::write(file, text)).map_err(|error| unwritten(&file.display(), &error))
}

fn unwritten(what: &(impl fmt::Display + ?Sized), error: &io::Error) -> Failure {
    let cause = match error.raw_os_error().map(Errno) {
        Some(Errno::EFBIG) => " (the limit of the size of files is below it: ulimit -f)",
        _ => "",
    };
    Failure::ours(format!("failed to write {what}: {}{cause}", words(error)))
}
