//! `nsexec run`, and the launch that it shares with `enter`.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::unistd::{getegid, geteuid};
use nsexec::bootstrap::{Bootstrap, Dialect};
use nsexec::error::Code;
use nsexec::launch::causes::{Asked, Circumstances, Facts, likely};
use nsexec::launch::signals::{Signals, supervise};
use nsexec::launch::{Child, ChildSignals, Guard, LaunchError, Launcher, guard};
use nsexec::log::Level;
use nsexec::namespace::NsKind;
use nsexec::policy::Session;
use nsexec::sys::types::{Errno, Pid};

use super::args::{HandOverFlags, NamespaceFlags, RunArgs};
use super::before_start;
use super::config;
use super::failure::{FAILED, Failure, words};
use super::hand_over;
use super::hints::FLAGS;
use super::machine::uncovered;
use super::output;
use super::request::{self, Request};
use super::sealed;
use nsexec_audit::machine::caller::Facts as CallerFacts;

/// Runs a command as the flags ask. Returns the command's exit status.
///
/// # Errors
/// Wrong usage, or a failure of the bootstrap.
pub(crate) fn run(args: &RunArgs) -> Result<u8, Failure> {
    let merged = config::merged(&args.namespaces, &args.command)?;
    let flags = &merged.flags;
    hand_over::check(&args.hand_over)?;
    before_start::check(&args.before_start)?;
    let mut request = request_of(flags, &args.hand_over, &request::facts_of(flags, false))?;
    before_start::add_to(&mut request, &args.before_start);
    ready(&request)?;
    merged.print_note();
    let job = Job { request: &request, command: &command_or_shell(&merged.command), verbose: args.verbose };
    match in_place(flags, &request) {
        true => replace(&job),
        false => start(&job),
    }
}

/// Decides what the flags of `run` ask for.
///
/// # Errors
/// The same as [`request::decide`].
pub(crate) fn request_of(
    flags: &NamespaceFlags,
    hand_over_flags: &HandOverFlags,
    facts: &CallerFacts,
) -> Result<Request, Failure> {
    let mut request = request::decide(flags, facts, &Dialect::V1_2)?;
    let others = hand_over::has_others(request.joined);
    request.hand_over = hand_over::decide(&mut request.policy, hand_over_flags, others, others);
    Ok(request)
}

/// Checks that the files of persistent namespaces exist, and makes sure that a mount namespace is joined from
/// a sealed copy. What precedes this call happens twice then.
///
/// # Errors
/// A file does not exist, or the copy cannot be made.
pub(crate) fn ready(request: &Request) -> Result<(), Failure> {
    check_persistent(request)?;
    sealed::ensure_for_joins(request.joined)
}

/// Returns whether `run` becomes the command itself, as unshare(1) does without `--fork`. A pid namespace is
/// for children, so it needs a child here. A guard of `--kill-child`, a mount of a persistent namespace and
/// the steps before the start need a parent.
pub(crate) fn in_place(flags: &NamespaceFlags, request: &Request) -> bool {
    let pid = request.created.contains(NsKind::Pid) || request.joined.contains(NsKind::Pid);
    // With unshare(1) the first child of the command is process 1. A fresh /proc needs that process.
    let pid = pid && (!flags.defaults.are_util_linux() || flags.mount_proc.is_some());
    // setsid(2) fails in the leader of a process group, so a new session needs a child. So does a new time
    // namespace beside a joined mount namespace.
    let session = request.policy.session == Session::New;
    let time = request.created.contains(NsKind::Time) && request.joined.contains(NsKind::Mnt);
    let parent =
        flags.kill_child.is_some() || !request.around.persistent.is_empty() || request.before_start.are_set();
    // The helper of a start in place opens the maps by pid.
    let stale = request.created.contains(NsKind::User) && !has_own_proc();
    !(flags.fork || pid || session || time || request.policy.launch.init || parent || stale)
}

/// Returns whether /proc belongs to the pid namespace of this process.
fn has_own_proc() -> bool {
    let own = std::process::id().to_string();
    fs::read_link("/proc/self").is_ok_and(|name| name.as_os_str() == own.as_str())
}

/// Becomes the command. Returns only if that fails.
///
/// # Errors
/// The reason why the command does not run.
pub(crate) fn replace(job: &Job<'_>) -> Result<u8, Failure> {
    let bootstrap = job.request.bootstrap()?;
    let mut launcher = launcher_of(&bootstrap, job, output::show_record_alone)?;
    // This program runs without Rust's start code: an ignored SIGPIPE is the choice of its caller.
    launcher.signals(ChildSignals::default());
    let known = circumstances(job);
    let failed = launcher.exec();
    // From here on a standard error without a reader does not change the exit status. An error here is
    // less important than that of the exec.
    let signals = take_signals();
    let failure = shown(explain_for(&failed, || known), job);
    drop(signals);
    Err(failure)
}

/// Returns the command, or without one the user's shell, as unshare(1) does.
pub(crate) fn command_or_shell(command: &[OsString]) -> Vec<OsString> {
    if !command.is_empty() {
        return command.to_vec();
    }
    let shell = std::env::var_os("SHELL").filter(|shell| !shell.is_empty());
    vec![shell.unwrap_or_else(|| "/bin/sh".into())]
}

/// A command, and how to start it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Job<'j> {
    /// The namespaces, the id maps and the policy.
    pub(crate) request: &'j Request,
    /// The command and its arguments.
    pub(crate) command: &'j [OsString],
    /// Show the stages' debug records.
    pub(crate) verbose: bool,
}

/// Starts the command, forwards signals to it, and returns its exit status.
///
/// # Errors
/// The reason why the command was not started.
pub(crate) fn start(job: &Job<'_>) -> Result<u8, Failure> {
    start_and_wait(job, supervise).map(|status| u8::try_from(status).unwrap_or(FAILED))
}

/// Starts the command, and waits for it with `wait`.
///
/// # Errors
/// The reason why the command was not started, or the error of `wait`.
pub(crate) fn start_and_wait<T>(
    job: &Job<'_>,
    wait: impl FnOnce(&mut Child, &Signals) -> io::Result<T>,
) -> Result<T, Failure> {
    let bootstrap = job.request.bootstrap()?;
    let mut launcher = launcher_of(&bootstrap, job, output::show_record)?;
    // Before the fork: from here on a signal cannot end nsexec and leave the command behind.
    let signals = take_signals()?;
    launcher.supervised(&signals);
    let mut child = spawned(job, |act| match job.request.before_start.are_set() {
        true => launcher.spawn_after(|pid| act(pid, &signals)),
        false => launcher.spawn(),
    })
    .map_err(|error| explain(&error, job))?;
    let _guard = guarded(&child, job.request)?;
    wait(&mut child, &signals)
        .map_err(|error| Failure::ours(format!("failed to wait for the command: {}", words(&error))))
}

/// A function before the start, with the signals that end its wait.
pub(crate) type Act<'a> = dyn FnMut(Pid, &Signals) -> io::Result<()> + Send + 'a;

/// Starts the command with the steps before its start. A launch that fails leaves no file of `--pid-file`.
pub(crate) fn spawned(
    job: &Job<'_>,
    spawn: impl FnOnce(&mut Act<'_>) -> Result<Child, LaunchError>,
) -> Result<Child, LaunchError> {
    let mut known = None;
    let steps = &job.request.before_start;
    let started = spawn(&mut |pid, signals| {
        known = Some(pid);
        steps.act(pid, signals)
    });
    started.inspect_err(|_| steps.undo(known))
}

/// Starts the process that signals the command when nsexec ends, if a flag asks for it. Its result must live
/// as long as nsexec waits.
///
/// # Errors
/// The process cannot be created.
pub(crate) fn guarded(child: &Child, request: &Request) -> Result<Option<Guard>, Failure> {
    let Some(signal) = request.signal_at_end else { return Ok(None) };
    match guard(child, signal) {
        Ok(guard) => Ok(Some(guard)),
        // Linux before 5.3, or a seccomp filter: the parent-death signal of the kernel remains.
        Err(error) if error.raw_os_error() == Some(Errno::ENOSYS.0) && request.policy.launch.kill_child => {
            Ok(None)
        }
        Err(error) => {
            let _ = child.kill();
            let needed = match error.raw_os_error() == Some(Errno::ENOSYS.0) {
                true => {
                    " (this needs pidfd_open(2) and pidfd_send_signal(2), Linux 5.3, which this kernel lacks or a seccomp \
                     filter refuses; --kill-child=KILL does not)"
                }
                false => "",
            };
            Err(Failure::ours(format!(
                "--kill-child: failed to start the process that waits: {}{needed}",
                words(&error)
            )))
        }
    }
}

/// Checks that the files exist on which namespaces are mounted.
///
/// # Errors
/// A file does not exist.
fn check_persistent(request: &Request) -> Result<(), Failure> {
    for one in &request.around.persistent {
        let path = Path::new(OsStr::from_bytes(one.file.to_bytes()));
        if let Err(error) = path.metadata() {
            return Err(Failure::ours(format!(
                "failed to mount the {} namespace on {}: {} (create the file first, for example with touch)",
                one.kind.to_string_lossy(),
                path.display(),
                words(&error)
            )));
        }
    }
    Ok(())
}

/// Starts to receive this program's signals.
///
/// # Errors
/// The errors of [`Signals::take`], with the likely cause.
pub(crate) fn take_signals() -> Result<Signals, Failure> {
    Signals::take().map_err(|error| {
        let cause = likely(Code::Start, Some(error.errno), None, &FLAGS);
        let cause = cause.map_or(String::new(), |cause| format!(" ({cause})"));
        Failure::ours(format!("{error}{cause}"))
    })
}

/// Returns the launcher of this job; the caller adds the signals. `show` prints a line on standard error. It
/// is called once for each log record of a stage.
///
/// # Errors
/// The message cannot be encoded, or the command is missing.
pub(crate) fn launcher_of(
    bootstrap: &Bootstrap<'_>,
    job: &Job<'_>,
    mut show: impl FnMut(&str) + Send + 'static,
) -> Result<Launcher, Failure> {
    let mut launcher =
        Launcher::new(bootstrap, job.request.policy).map_err(|error| Failure::Usage(error.to_string()))?;
    let (program, arguments) = job
        .command
        .split_first()
        .ok_or_else(|| Failure::Usage("the command is missing: put it after --".to_owned()))?;
    let request = job.request.clone();
    request.hand_over.apply(&mut launcher);
    launcher
        .surroundings(request.around.clone())
        .command(program, arguments)
        .level(if job.verbose { Level::Debug } else { Level::Warning })
        .on_record(move |record| {
            let text = request.with_display_paths(&record.to_string());
            show(&format!("{}: {}: {text}\n", request.program, record.level.name()));
        });
    Ok(launcher)
}

/// Returns the launcher's failure in one line. The likely cause depends on the request and the state of the
/// machine.
pub(crate) fn explain(error: &LaunchError, job: &Job<'_>) -> Failure {
    shown(explain_for(error, || circumstances(job)), job)
}

/// Returns the failure with the paths as the user gave them.
fn shown(failure: Failure, job: &Job<'_>) -> Failure {
    match failure {
        Failure::Other { text, status } => {
            Failure::Other { text: job.request.with_display_paths(&text), status }
        }
        usage => usage,
    }
}

/// Reads the facts that the cause of a failure depends on. A launch with a parent reads them only after a
/// failure, to stay short if it succeeds. A start in place reads them before, because this process may be in
/// other namespaces after a failure.
pub(crate) fn circumstances(job: &Job<'_>) -> Circumstances {
    let mut asked = Asked::default();
    asked.created = job.request.created;
    asked.joined = job.request.joined;
    asked.rootless = job.request.rootless;
    asked.mount_proc_flag = job.request.mount_proc_flag;
    asked.path_of_caller = job.request.path_of_caller;
    asked.command_path = job.command.first().is_some_and(|name| name.as_bytes().contains(&b'/'));
    // Only a mapping tool fails because of subordinate ids.
    let facts = match job.request.needs_tools((geteuid().as_raw(), getegid().as_raw())) {
        true => Facts::read(),
        false => Facts::read_without_subordinate_ids(),
    };
    asked.uncovered = uncovered(job.request, &facts);
    Circumstances::new(asked, facts)
}

/// As [`explain`], for a request that may come from another machine.
pub(crate) fn explain_for(error: &LaunchError, known: impl FnOnce() -> Circumstances) -> Failure {
    let status = u8::try_from(error.exit_code()).unwrap_or(FAILED);
    let text = match (error.step(), error) {
        (Some(_), _) => error.explain(&known(), &FLAGS),
        // The text names the flag.
        (None, LaunchError::BeforeStart { error }) => error.clone(),
        (None, _) => error.to_string(),
    };
    Failure::Other { text, status }
}
