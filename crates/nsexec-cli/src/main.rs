//! The command line program: parses the flags, runs one command, and returns its exit status.
//!
//! The deciders [`request`], [`maps`], [`hints`] and [`values`] are pure. The commands have
//! effects.
#![cfg_attr(not(test), no_main)]
#![cfg_attr(test, allow(dead_code, reason = "the program's entry is not part of its tests"))]

mod args;
mod assume;
mod before_start;
mod before_start_flags;
mod compare;
mod config;
mod config_text;
mod decode;
mod defaults;
mod doctor;
mod encode;
mod enter;
mod enter_flags;
mod failure;
mod hand_over;
mod help;
mod hints;
mod init;
mod joins;
mod kind_flags;
mod letters;
mod linked;
mod machine;
mod manual;
mod maps;
mod namespace_flags;
mod output;
mod pin;
mod pin_flags;
mod place;
mod plan;
mod request;
mod run;
mod sealed;
mod show;
mod start;
mod suggestions;
mod target;
#[cfg(test)]
mod testing;
mod trace;
mod trace_replay;
mod trace_witness;
mod values;

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsRawFd, IntoRawFd};

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use nsexec::bootstrap::text::is_invisible;
use nsexec::entry::Elevation;

use args::{Cli, Command, PLAN_ENTER, PLAN_PIN, TRACE_ENTER};
use failure::{FAILED, Failure, USAGE};

/// Runs the program with its arguments, of which the first is the program's name. Returns the exit status.
pub(crate) fn run_program(arguments: impl Iterator<Item = OsString>) -> u8 {
    open_missing_standard_descriptors();
    let arguments: Vec<OsString> = arguments.collect();
    if let Some(name) = arguments.first().and_then(|name| linked::Name::of(name)) {
        return linked::run(name, &arguments);
    }
    let given = arguments.clone();
    let arguments = letters::with_equals_signs(letters::with_joined_words(arguments));
    let command = arguments.get(1).map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        // Help or the version was requested, so a failure to print it is an error.
        Err(text) if !text.use_stderr() => return print_help(&text),
        Err(mut error) => {
            suggestions::improve(&mut error, &command);
            output::print_usage(&error);
            return USAGE;
        }
    };
    let (name, result) = match &cli.command {
        Command::Run(args) => ("run", run::run(args)),
        Command::Enter(args) => ("enter", enter::enter(args)),
        Command::Pin(args) => ("pin", pin::pin(args)),
        Command::PlanPin(args) => (PLAN_PIN, pin::plan_pin(args)),
        Command::Decode(args) => ("decode", decode::decode(args).map(|()| 0)),
        Command::Encode(args) => ("encode", encode::encode(args).map(|()| 0)),
        Command::Doctor(args) => ("doctor", doctor::doctor(args)),
        Command::Plan(args) => ("plan", plan::plan_command(args)),
        Command::Trace(args) => (
            "trace",
            match &args.replay {
                Some(file) => trace_replay::replay(file),
                None => trace::trace(args, &given),
            },
        ),
        Command::Show(args) => ("show", show::show(args)),
        Command::Diff(args) => ("diff", compare::diff(args)),
        Command::PlanEnter(args) => (PLAN_ENTER, plan::plan_enter(args)),
        Command::TraceEnter(args) => (TRACE_ENTER, trace::trace_enter(args, &given)),
        Command::Init(args) => ("init", init::init(args)),
        Command::Completions(args) => ("completions", manual::completions(args).map(|()| 0)),
        Command::Man(args) => ("man", manual::man(args).map(|()| 0)),
    };
    match result {
        Ok(status) => status,
        Err(failure) => report(name, failure),
    }
}

/// Refuses to run with privileges that the caller does not have. Returns the exit status.
///
/// The program has no setuid mode (SECURITY.md): it would create namespaces, write maps and start the command
/// with these privileges.
///
/// Also refuses a caller with the real id 0 and another effective id, which has dropped its privileges only
/// in part. The kernel marks this start as it marks a setuid program (AT_SECURE), and the real id 0 could
/// restore the privileges.
pub(crate) fn refuse(elevation: Elevation) -> u8 {
    match elevation {
        Elevation::SetUid { real: 0, effective } => refuse_half_dropped("user", 'u', effective),
        Elevation::SetGid { real: 0, effective } => refuse_half_dropped("group", 'g', effective),
        elevation => {
            // The caller cannot change this link. Without /proc the path is left out.
            let file = match (elevation, std::fs::read_link("/proc/self/exe")) {
                (Elevation::Capabilities, Ok(path)) => format!(": {}", path.display()),
                _ => String::new(),
            };
            output::print_to_stderr(format_args!(
                "nsexec: refused to run with privileges that the caller does not have: {elevation}{file}\n"
            ));
        }
    }
    FAILED
}

/// Reports that only the effective id was dropped. `letter` is `u` or `g`, as in `setpriv --reuid` and in
/// `chmod u-s`.
fn refuse_half_dropped(id: &str, letter: char, effective: u32) {
    output::print_to_stderr(format_args!(
        "nsexec: refused to run with different real and effective {id} ids: effective {id} id {effective}, real {id} id 0 \
         (the program that started it dropped the effective id alone: drop both, as setpriv --re{letter}id does; or this \
         file has a set{letter}id bit: chmod {letter}-s removes it)\n"
    ));
}

/// Prints the help or the version on standard output. Returns the exit status.
fn print_help(text: &clap::Error) -> u8 {
    let text = text.render();
    let text = if output::is_coloured() { text.ansi().to_string() } else { text.to_string() };
    match output::print(&text) {
        Ok(()) => 0,
        Err(failure) => report("", failure),
    }
}

/// Opens /dev/null as each of the descriptors 0 to 2 that the caller closed, so that no pipe of ours gets
/// such a number.
///
/// Close-on-exec: the command finds them closed, as its caller intended. Read-only: a write still fails with
/// `EBADF`, so lost output is not mistaken for success.
fn open_missing_standard_descriptors() {
    // If /dev/null does not exist, the descriptors stay closed.
    while let Ok(null) = File::open("/dev/null") {
        if null.as_raw_fd() > 2 {
            return;
        }
        let _ = null.into_raw_fd();
    }
}

/// Prints the failure on standard error: wrong usage in clap's format, anything else in one line. Returns the
/// exit status.
fn report(command: &str, failure: Failure) -> u8 {
    match failure {
        Failure::Usage(text) => {
            output::print_usage(&usage_error(command, &text));
            USAGE
        }
        Failure::Limited(text) => report(command, Failure::ours(text)),
        Failure::Other { text, status } => {
            // File names and contents must not send control sequences to the terminal.
            let shown: String = text.chars().map(printable).collect();
            output::print_to_stderr(format_args!("nsexec: {shown}\n"));
            status
        }
    }
}

/// Replaces a character that is not printable. Newlines stay: a failure may have several lines.
pub(crate) fn printable(c: char) -> char {
    if c != '\n' && is_invisible(c) { '?' } else { c }
}

/// Returns the error as clap formats it, with the usage line of the subcommand.
fn usage_error(command: &str, text: &str) -> clap::Error {
    let mut cli = Cli::command();
    // Sets the full names of the subcommands for the usage line.
    cli.build();
    match cli.find_subcommand_mut(command) {
        Some(command) => command.error(ErrorKind::ValueValidation, text),
        None => cli.error(ErrorKind::ValueValidation, text),
    }
}
