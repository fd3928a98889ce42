//! `nsexec trace`: runs a command, records every call, and compares the record with the plan and with
//! strace's output.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nsexec::launch::Launcher;
use nsexec::launch::signals::supervise;
use nsexec_audit::diff::compare;
use nsexec_audit::note::{Values, descriptor_notes};
use nsexec_audit::plan::{Plan, Start, plan};
use nsexec_audit::record::shared::SharedSink;
use nsexec_audit::record::{AnySys, Recorder};
use nsexec_audit::rules::{self, Facts as RuleFacts, Severity};
use nsexec_audit::witness;
use nsexec_audit::{Role, Run, sections};

use super::args::{ColourFlag, Format, RecordFlags, TraceArgs, TraceEnterArgs};
use super::assume;
use super::before_start;
use super::config;
use super::enter;
use super::failure::{FAILED, Failure, NOT_AS_PLANNED, words};
use super::hand_over;
use super::output;
use super::plan::{look, searched};
use super::request::{self, Request};
use super::run::{self, Job};
use super::show;
use super::trace_replay;
use super::trace_witness::{RECORD, witnessed};
use super::values::{JoinValue, OrderFlag};
use nsexec_audit::machine::caller::Facts;

/// Runs a command, records it, and compares the record with the plan. Returns the command's exit status if
/// both agree, else 3.
///
/// # Errors
/// Wrong usage, or the reason why the command could not be started or recorded.
pub(crate) fn trace(args: &TraceArgs, line: &[OsString]) -> Result<u8, Failure> {
    let merged = config::merged(&args.namespaces, &args.command)?;
    hand_over::check(&args.hand_over)?;
    before_start::check(&args.before_start)?;
    let facts = request::facts_of(&merged.flags, true);
    let mut request = run::request_of(&merged.flags, &args.hand_over, &facts)?;
    before_start::add_to(&mut request, &args.before_start);
    if args.record.witness && args.record.witnessed.is_none() {
        // The traced run prints the note.
        return witnessed(&request, &facts, line);
    }
    run::ready(&request)?;
    merged.print_note();
    let job = Job {
        request: &request,
        command: &run::command_or_shell(&merged.command),
        verbose: args.record.verbose,
    };
    let in_place = run::in_place(&merged.flags, &request);
    recorded(&job, &facts, (&merged.flags.join, None), &args.record, in_place)
}

/// Enters a process, records it, and compares the record with the plan. Returns the same as [`trace`].
///
/// # Errors
/// The same as [`trace`]; or the process does not exist, or may not be entered.
pub(crate) fn trace_enter(args: &TraceEnterArgs, line: &[OsString]) -> Result<u8, Failure> {
    let entered = enter::decide(&args.flags, &args.hand_over, &args.before_start)?;
    let facts = Facts::gather(false, false);
    if args.record.witness && args.record.witnessed.is_none() {
        return witnessed(&entered.request, &facts, line);
    }
    entered.seal()?;
    entered.print_notes();
    let job = Job {
        request: &entered.request,
        command: &run::command_or_shell(&args.command),
        verbose: args.record.verbose,
    };
    recorded(&job, &facts, (&entered.joins, entered.root()), &args.record, false)
}

/// The namespaces to join, and the root directory of the command if it is not ours.
type Place<'p> = (&'p [JoinValue], Option<BorrowedFd<'p>>);

/// Runs the command in this process, which may itself run under strace. `in_place`: `run` has no parent.
fn recorded(
    job: &Job<'_>,
    facts: &Facts,
    place: Place<'_>,
    flags: &RecordFlags,
    in_place: bool,
) -> Result<u8, Failure> {
    let ours = |what: &str, error: &io::Error| Failure::ours(format!("{what}: {}", words(error)));
    let request = job.request;
    let bootstrap = request.bootstrap()?;
    // The launcher passes records on before it marks the run's end. A write there would be a call in strace's
    // output that is not in the record. So the lines are kept until the end mark.
    let shown = Arc::new(Mutex::new(String::new()));
    let lines = Arc::clone(&shown);
    let mut launcher = run::launcher_of(&bootstrap, job, move |line| locked(&lines).push_str(line))?;
    let signals = run::take_signals()?;
    end_with_strace(flags)?;
    // Each process has a copy of the recorder.
    launcher.supervised(&signals).copy_memory();
    let plan = planned(&launcher, facts, place)?;
    if let Some(file) = &flags.json {
        // First: if the record cannot be saved, do not run anything.
        output::create(file)?;
    }

    let (sink, reader) =
        SharedSink::new().map_err(|error| ours("failed to make the record's memory", &error))?;
    let recorder = |sys| {
        witness::mark_begin();
        // One launch in the life of this program, so it may keep the recorder to its end.
        AnySys(Box::leak(Box::new(Recorder::new(sys, sink))))
    };
    let started = run::spawned(job, |act| match request.before_start.are_set() {
        true => launcher.spawn_through_after(recorder, |pid| act(pid, &signals)),
        false => launcher.spawn_through(recorder),
    });
    witness::mark_end();
    output::show_record(&locked(&shown));
    let failed = started.is_err();
    let status = match started {
        Ok(mut child) => {
            let _guard = run::guarded(&child, request)?;
            let status = supervise(&mut child, &signals)
                .map_err(|error| ours("failed to wait for the command", &error))?;
            u8::try_from(status).unwrap_or(FAILED)
        }
        Err(error) => {
            let Failure::Other { text, status } = run::explain(&error, job) else {
                return Err(Failure::ours(error.to_string()));
            };
            output::print_to_stderr(format_args!("nsexec: {text}\n"));
            status
        }
    };
    let record = reader.read().map_err(|error| ours("failed to read the record", &error))?;
    let mut record = sections::of_record(&record, Role::Launcher);
    record.notes.insert("plan".to_owned(), plan.hash.clone());
    let prepared = launcher.prepare().map_err(|error| Failure::Usage(error.to_string()))?;
    record.notes.extend([rules::message_note(prepared.message())]);
    record.notes.extend(descriptor_notes(&prepared));
    if let Some(folder) = &flags.witnessed {
        write_whole(&record, &folder.join(RECORD))?;
    }
    let kept =
        keep(flags, &plan, || trace_replay::keep(&record, &prepared, failed.then_some(job), Values::LeftOut));
    let agrees = report(&plan, &record, status, request);
    if in_place {
        output::print_to_stderr(format_args!(
            "nsexec: this is the start of run --fork: trace stays the parent of the command, and run becomes the command
"
        ));
    }
    kept?;
    Ok(if agrees { status } else { NOT_AS_PLANNED })
}

/// Sets the signal that ends this process with strace, if it runs under strace.
///
/// SIGKILL to the process that started strace kills strace, and would leave this process. Then `--kill-child`
/// would not hold. Called before the begin mark, so no record contains the call.
fn end_with_strace(flags: &RecordFlags) -> Result<(), Failure> {
    if flags.witnessed.is_none() {
        return Ok(());
    }
    set_pdeathsig(Signal::SIGKILL).map_err(|error| {
        Failure::ours(format!("failed to set the parent-death signal: {}", words(&error.into())))
    })
}

/// Returns the plan of this launch on this machine.
fn planned(launcher: &Launcher, facts: &Facts, place: Place<'_>) -> Result<Plan, Failure> {
    let prepared = launcher.prepare().map_err(|error| Failure::Usage(error.to_string()))?;
    let mut assumptions = assume::of_machine(facts, place.0);
    // The search uses this root directory. In another one the launch may find a different file.
    let (found, refused) = searched(&prepared, place.1);
    (assumptions.command, assumptions.refused) = (Some(found.unwrap_or_default()), refused);
    plan(&Start::Launcher(prepared), &assumptions).map_err(|error| Failure::ours(error.to_string()))
}

/// Prints the comparison of record and plan on standard error. Returns whether they agree and no rule is
/// broken.
fn report(plan: &Plan, record: &Run, status: u8, request: &Request) -> bool {
    let diff = compare(&plan.run, record);
    let findings = rules::check(record, &RuleFacts::of(record, request.policy));
    let breaches = findings.iter().filter(|finding| finding.severity == Severity::Breach).count();
    let calls: usize = record.sections.iter().map(|section| section.lines.len()).sum();
    let summary = format!("{calls} calls of {} processes, plan {}", record.sections.len(), plan.hash);
    if diff.is_empty() {
        output::print_to_stderr(format_args!("nsexec: as planned: {summary}; status {status}\n"));
    } else {
        output::print_to_stderr(format_args!("nsexec: not as planned: {summary}; status {status}\n{diff}"));
    }
    for finding in &findings {
        output::print_to_stderr(format_args!("nsexec: {finding}\n"));
    }
    if record.lost > 0 {
        output::print_to_stderr(format_args!("nsexec: {} lines of the record were lost\n", record.lost));
    }
    diff.is_empty() && breaches == 0
}

/// Writes the record to the file of `--json`, and prints it in the format of `--format`.
fn keep(args: &RecordFlags, plan: &Plan, record: impl FnOnce() -> Run) -> Result<(), Failure> {
    if args.json.is_none() && args.format.is_none() {
        return Ok(());
    }
    let record = record();
    if let Some(file) = &args.json {
        let text = record.to_json_lines().map_err(|error| Failure::ours(error.to_string()))?;
        output::save(file, &text)?;
    }
    match args.format {
        None => Ok(()),
        Some(Format::Html) => output::print(&plan.to_run().to_html_beside(&record)),
        Some(format) => {
            output::print(&show::shown(&record, format, look(ColourFlag::Auto, OrderFlag::Process))?)
        }
    }
}

/// Writes the whole record, with the values of the environment, to the FIFO of the process that compares.
fn write_whole(run: &Run, file: &Path) -> Result<(), Failure> {
    let text = run.to_json_lines().map_err(|error| Failure::ours(error.to_string()))?;
    let mut options = fs::OpenOptions::new();
    // Without O_NONBLOCK the open would block for ever if that process has died.
    options.write(true).create(true).truncate(true).mode(0o600).custom_flags(OFlag::O_NONBLOCK.bits());
    let written = options.open(file).and_then(|mut out| {
        fcntl(&out, FcntlArg::F_SETFL(OFlag::empty()))?;
        out.write_all(text.as_bytes())
    });
    written.map_err(|error| write_failure(file, &error))
}

fn write_failure(file: &Path, error: &io::Error) -> Failure {
    Failure::ours(format!("failed to write {}: {}", file.display(), words(error)))
}

/// Locks the lines. No thread panics while it holds them.
fn locked(lines: &Mutex<String>) -> MutexGuard<'_, String> {
    lines.lock().unwrap_or_else(PoisonError::into_inner)
}
