//! The program's output: standard output, standard error, files.
//!
//! Standard output is written as a file, because the standard library's handle reports no error if the
//! descriptor is closed. A write beyond the limit on file size (RLIMIT_FSIZE) fails, and does not kill the
//! process by SIGXFSZ. The command still inherits the caller's mask and disposition of SIGXFSZ.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::Path;

use nsexec::launch::{without_sigxfsz, without_write_signals};
use nsexec::sys::types::Errno;

use super::failure::{Failure, words};

/// Writes all bytes to standard output.
///
/// # Errors
/// The error of write(2); `EBADF` if the caller closed standard output.
pub(crate) fn write(bytes: &[u8]) -> Result<(), Failure> {
    write_all(bytes).map_err(|error| write_failure("standard output", &error))
}

/// Writes text to standard output. If the reader closes the pipe early, as `head` does, the rest is dropped
/// and the result is success.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    match write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(write_failure("standard output", &error)),
        Ok(()) => Ok(()),
    }
}

fn write_all(bytes: &[u8]) -> io::Result<()> {
    let mut out = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    without_sigxfsz(|| out.write_all(bytes))
}

/// Returns whether standard output is a terminal.
pub(crate) fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Returns whether text on standard output is coloured: see [`colours`].
pub(crate) fn is_coloured() -> bool {
    colours(is_terminal(), variable)
}

/// Returns a variable of the environment, or nothing if it is not set.
fn variable(name: &str) -> OsString {
    std::env::var_os(name).unwrap_or_default()
}

/// Decides on colours by the variables that programs of its kind share. NO_COLOR that is not empty forbids
/// them (no-color.org). CLICOLOR_FORCE that is neither empty nor 0 demands them. Otherwise a terminal gets
/// them, unless CLICOLOR is 0 or TERM is `dumb` or empty. `variable` returns the value, or nothing if it is
/// not set.
fn colours(terminal: bool, variable: impl Fn(&str) -> OsString) -> bool {
    let is_on = |name| !variable(name).is_empty() && variable(name) != "0";
    if !variable("NO_COLOR").is_empty() {
        return false;
    }
    let term = variable("TERM");
    is_on("CLICOLOR_FORCE") || terminal && variable("CLICOLOR") != "0" && !term.is_empty() && term != "dumb"
}

/// Writes to standard error. A failure is ignored, because it cannot be reported anywhere.
pub(crate) fn print_to_stderr(text: fmt::Arguments<'_>) {
    without_sigxfsz(|| drop(io::stderr().write_fmt(text)));
}

/// Writes a stage's record to standard error. SIGXFSZ is blocked already
/// ([`Signals::take`](nsexec::launch::signals::Signals::take)), so nothing but the write is needed.
pub(crate) fn show_record(line: &str) {
    drop(io::stderr().write_all(line.as_bytes()));
}

/// As [`show_record`], in a process that has not taken its signals.
pub(crate) fn show_record_alone(line: &str) {
    without_write_signals(|| show_record(line));
}

/// Prints an error of clap to standard error, in colours by the rule of all output: clap's own rule gives
/// them also to a terminal with TERM=dumb if the variable CI is set.
pub(crate) fn print_usage(error: &clap::Error) {
    let text = error.render();
    let is_coloured = colours(io::stderr().is_terminal(), variable);
    let text = if is_coloured { text.ansi().to_string() } else { text.to_string() };
    print_to_stderr(format_args!("{text}"));
}

/// Creates the file, or truncates it.
///
/// # Errors
/// The error of open(2).
pub(crate) fn create(file: &Path) -> Result<(), Failure> {
    File::create(file).map(drop).map_err(|error| write_failure(&file.display(), &error))
}

/// Creates a folder with the folders above it, unless it exists.
///
/// # Errors
/// The error of mkdir(2).
pub(crate) fn create_folder(folder: &Path) -> Result<(), Failure> {
    fs::create_dir_all(folder)
        .map_err(|error| Failure::ours(format!("failed to create {}: {}", folder.display(), words(&error))))
}

/// Writes a whole file.
///
/// # Errors
/// The error of open(2) or write(2).
pub(crate) fn save(file: &Path, text: &str) -> Result<(), Failure> {
    without_sigxfsz(|| fs::write(file, text)).map_err(|error| write_failure(&file.display(), &error))
}

fn write_failure(what: &(impl fmt::Display + ?Sized), error: &io::Error) -> Failure {
    let cause = match error.raw_os_error().map(Errno) {
        Some(Errno::EFBIG) => " (the limit on file size is below it: ulimit -f)",
        _ => "",
    };
    Failure::ours(format!("failed to write {what}: {}{cause}", words(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_follow_the_terminal_and_the_variables() {
        let with = |terminal, set: &[(&str, &str)]| {
            let value = |name: &str| set.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
            colours(terminal, |name| value(name).unwrap_or_default().into())
        };
        let xterm = ("TERM", "xterm");
        assert!(with(true, &[xterm]) && with(true, &[xterm, ("NO_COLOR", "")]));
        assert!(with(true, &[xterm, ("CLICOLOR", "1")]));
        for set in [&[][..], &[("TERM", "dumb")], &[xterm, ("NO_COLOR", "1")], &[xterm, ("CLICOLOR", "0")]] {
            assert!(!with(true, set), "{set:?}");
        }
        assert!(!with(false, &[xterm]) && !with(false, &[xterm, ("CLICOLOR_FORCE", "0")]));
        assert!(with(false, &[("CLICOLOR_FORCE", "1")]));
        assert!(!with(false, &[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]));
    }
}
