//! `nsexec run`, and the launch that it shares with `enter`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use nsexec::bootstrap::{Bootstrap, Dialect};
use nsexec::launch::signals::{Signals, supervise};
use nsexec::launch::{LaunchError, Launcher, likely};
use nsexec::log::Level;
use nsexec::sys::types::Errno;

use super::args::RunArgs;
use super::facts::{Facts, machine_after_failure};
use super::failure::{FAILED, Failure, words};
use super::hand_over;
use super::hints::{Asked, Machine, likely_cause};
use super::output;
use super::request::{self, Request};
use super::sealed;

/// Decides, starts, waits.
///
/// # Errors
/// Wrong usage, or the bootstrap's failure.
pub(crate) fn run(args: &RunArgs) -> Result<u8, Failure> {
    let flags = &args.namespaces;
    hand_over::check(&args.hand_over)?;
    let facts = Facts::of(flags);
    let mut request = request::decide(flags, &facts, &Dialect::V1_2)?;
    let others = hand_over::has_others(request.joined);
    hand_over::decide(&mut request, &args.hand_over, others, others);
    sealed::for_joins(request.joined)?;
    start(&Job {
        request: &request,
        command: &args.command,
        verbose: args.verbose,
        mount_proc_flag: flags.mount_proc,
    })
}

/// A command to start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Job<'j> {
    /// Where.
    pub(crate) request: &'j Request,
    /// What.
    pub(crate) command: &'j [OsString],
    /// Whether the stages' debug records are shown.
    pub(crate) verbose: bool,
    /// Whether `--mount-proc` was given; for the cause of a refused mount.
    pub(crate) mount_proc_flag: bool,
}

/// Starts the command, forwards signals to it, and gives its exit status.
///
/// # Errors
/// Why it was not started.
pub(crate) fn start(job: &Job<'_>) -> Result<u8, Failure> {
    let bootstrap = job.request.bootstrap()?;
    let mut launcher = launcher_of(&bootstrap, job, output::show_record)?;
    // Before the fork: from here on no signal ends us and leaves the command behind.
    let signals = take_signals()?;
    launcher.supervised(&signals);
    let mut child = launcher.spawn().map_err(|error| explain(&error, job))?;
    let status = supervise(&mut child, &signals)
        .map_err(|error| Failure::ours(format!("failed to wait for the command: {}", words(&error))))?;
    Ok(u8::try_from(status).unwrap_or(FAILED))
}

/// Takes the signals of this program, or says which step failed, and its likely cause.
///
/// # Errors
/// Those of [`Signals::take`].
pub(crate) fn take_signals() -> Result<Signals, Failure> {
    Signals::take().map_err(|error| {
        let cause = likely_cause("start", Some(error.errno), Asked::default(), &Machine::default());
        let cause = cause.map_or(String::new(), |cause| format!(" ({cause})"));
        Failure::ours(format!("{error}{cause}"))
    })
}

/// The launcher of this job, but for its signals. `show` receives each line for standard error that a stage's record makes.
///
/// # Errors
/// A message that cannot be encoded, no command.
pub(crate) fn launcher_of(
    bootstrap: &Bootstrap<'_>,
    job: &Job<'_>,
    mut show: impl FnMut(&str) + 'static,
) -> Result<Launcher, Failure> {
    let mut launcher =
        Launcher::new(bootstrap, job.request.policy).map_err(|error| Failure::Usage(error.to_string()))?;
    let (program, arguments) =
        job.command.split_first().ok_or_else(|| Failure::Usage("no command".to_owned()))?;
    let request = job.request.clone();
    request.hand_over.apply(&mut launcher);
    launcher
        .command(program, arguments)
        .level(if job.verbose { Level::Debug } else { Level::Warning })
        .on_record(move |record| {
            let text = request.in_known_names(&record.to_string());
            show(&format!("nsexec: {}: {text}\n", record.level.name()));
        });
    Ok(launcher)
}

/// The launch's failure in one line, with the cause that fits what was asked for and what the machine says.
pub(crate) fn explain(error: &LaunchError, job: &Job<'_>) -> Failure {
    match explain_there(error, asked(job), || machine_after_failure(job.request)) {
        Failure::Other { text, status } => Failure::Other { text: job.request.in_known_names(&text), status },
        usage => usage,
    }
}

/// What was asked for, as far as it tells causes apart.
pub(crate) fn asked(job: &Job<'_>) -> Asked {
    Asked {
        created: job.request.created,
        joined: job.request.joined,
        rootless: job.request.rootless,
        mount_proc_flag: job.mount_proc_flag,
        command_path: job.command.first().is_some_and(|name| name.as_bytes().contains(&b'/')),
    }
}

/// As [`explain`], for what was asked for on any machine.
pub(crate) fn explain_there(error: &LaunchError, asked: Asked, machine: impl FnOnce() -> Machine) -> Failure {
    let status = u8::try_from(error.exit_code()).unwrap_or(FAILED);
    let text = error.to_string();
    let Some((code, errno)) = step_of(error) else { return Failure::Other { text, status } };
    // The library's general word on this step, which ours replaces.
    let general = errno.and_then(|errno| likely(code, errno)).map(|cause| format!(" ({cause})"));
    let bare = general.as_deref().and_then(|general| text.strip_suffix(general)).unwrap_or(&text);
    let text = match likely_cause(code, errno, asked, &machine()) {
        Some(cause) => format!("{bare} ({cause})"),
        None => text,
    };
    Failure::Other { text, status }
}

/// Which step failed, and the kernel's answer.
fn step_of(error: &LaunchError) -> Option<(&str, Option<Errno>)> {
    match error {
        LaunchError::Start { errno, .. } => Some(("start", Some(*errno))),
        LaunchError::Exec { errno, .. } => Some(("exec", Some(*errno))),
        LaunchError::Bootstrap(failure) => {
            let record = failure.cause()?;
            Some((record.code.as_deref()?, record.errno))
        }
        _ => None,
    }
}
