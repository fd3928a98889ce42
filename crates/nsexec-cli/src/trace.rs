//! `nsexec trace`: runs a command, records every call, and compares the record with the plan and with
//! strace's output.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use nsexec::bootstrap::{Bootstrap, Dialect};
use nsexec::launch::signals::supervise;
use nsexec::launch::{LaunchError, Launcher};
use nsexec::policy::{Credentials, Policy, Session};
use nsexec::sys::types::{CloneFlags, Errno};
use nsexec_audit::diff::{Diff, compare};
use nsexec_audit::note::{Values, descriptor_notes};
use nsexec_audit::plan::{Plan, Start, plan};
use nsexec_audit::record::shared::SharedSink;
use nsexec_audit::record::{AnySys, Recorder};
use nsexec_audit::rules::{self, Facts as RuleFacts, Severity};
use nsexec_audit::witness::{self, Splitter};
use nsexec_audit::{Origin, Role, Run, sections};

use super::args::{ColourFlag, Format, RecordFlags, TraceArgs, TraceEnterArgs};
use super::assume;
use super::before_start;
use super::config;
use super::enter;
use super::failure::{FAILED, Failure, words};
use super::hand_over;
use super::output;
use super::plan::{look, searched};
use super::request::{self, Request};
use super::run::{self, Job};
use super::show;
use super::trace_replay;
use super::values::{JoinValue, OrderFlag};
use nsexec_audit::machine::caller::Facts;

/// The exit status if the run differs from the plan.
const NOT_AS_PLANNED: u8 = 3;

/// The names in the witness's folder: the FIFO for strace's output, and the FIFO for the record.
const STRACE: &str = "strace";
const RECORD: &str = "record.jsonl";

/// The largest file that strace may write, in bytes. A message of 1 MiB is sent and read, at four characters
/// a byte: that takes half of it. The other half is for the remaining calls.
const WITNESS_FILE: usize = 16 << 20;

/// The memory in bytes of the two reading threads: the stacks, which the standard library makes 2 MiB large,
/// and what the launch and the start of a thread take.
const THREADS: usize = 2 * (2 << 20) + (4 << 20);

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

/// The witness's folder, removed when this is dropped. It holds two FIFOs, for strace's output and for the
/// record. Both contain the command's environment, so they are kept in memory and never in a file.
struct Folder {
    path: PathBuf,
    strace: Fifo,
    record: Fifo,
}

impl Folder {
    fn new() -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("nsexec-witness.{}", std::process::id()));
        // Other users must not read the command's arguments.
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        let inboxes = Fifo::new(&path.join(STRACE))
            .and_then(|strace| Ok((strace, Fifo::new(&path.join(RECORD))?)))
            .inspect_err(|_| drop(fs::remove_dir_all(&path)));
        let (strace, record) = inboxes?;
        Ok(Self { path, strace, record })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// A FIFO that another program opens by its path and writes to.
struct Fifo {
    reader: Option<fs::File>,
    /// Our own writing end. The reader sees the end of the file only after this is closed.
    writer: Option<fs::File>,
}

impl Fifo {
    fn new(path: &Path) -> io::Result<Self> {
        mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR)?;
        // A blocking open of a FIFO waits for the other end.
        let unhurried =
            |options: &mut fs::OpenOptions| options.custom_flags(OFlag::O_NONBLOCK.bits()).open(path);
        let reader = unhurried(fs::OpenOptions::new().read(true))?;
        let writer = unhurried(fs::OpenOptions::new().write(true))?;
        fcntl(&reader, FcntlArg::F_SETFL(OFlag::empty()))?;
        Ok(Self { reader: Some(reader), writer: Some(writer) })
    }

    /// Reads lines in a thread, and passes each to `take`, until [`Self::finish`].
    fn read<T: Send + 'static>(
        &mut self,
        mut kept: T,
        mut take: impl FnMut(&mut T, &str) + Send + 'static,
    ) -> io::Result<JoinHandle<io::Result<T>>> {
        let reader = self.reader.take();
        thread::Builder::new().spawn(move || {
            let mut reader = BufReader::new(reader.ok_or(io::ErrorKind::NotFound)?);
            let mut line = Vec::new();
            while reader.read_until(b'\n', &mut line)? > 0 {
                // strace escapes bytes that are not ASCII, and a record is JSON, so nothing is lost here.
                take(&mut kept, String::from_utf8_lossy(&line).trim_end_matches('\n'));
                line.clear();
            }
            Ok(kept)
        })
    }

    /// Closes our writing end. The thread ends once the other writers have closed theirs.
    fn finish(&mut self) {
        self.writer = None;
    }
}

/// strace's output by process, and the record as text.
struct Traced {
    strace: BTreeMap<i32, String>,
    record: String,
}

/// Runs this program under strace, and compares strace's output with the record.
fn witnessed(request: &Request, facts: &Facts, line: &[OsString]) -> Result<u8, Failure> {
    before_start::refuse_for_witness(request)?;
    let names_only = sees_names_only(request, facts)?;
    if largest_file() < WITNESS_FILE {
        return Err(Failure::ours(format!(
            "strace would be ended by SIGXFSZ: the limit on file size (ulimit -f) is below the {WITNESS_FILE} bytes \
             that a witness may need: raise it, or leave --witness out"
        )));
    }
    // A thread that starts without memory aborts the program (std::thread). If there is not enough, this ends
    // the program with the reason. What is freed here stays available, for nothing else runs in this process.
    drop(std::hint::black_box(Vec::<u8>::with_capacity(THREADS)));
    let mut folder = Folder::new().map_err(|error| {
        Failure::ours(format!("failed to make a folder for the witness: {}", words(&error)))
    })?;
    let (status, traced) = under_strace(&mut folder, line)?;
    if traced.record.is_empty() {
        // The run did not start, and has printed the reason.
        return match status {
            NOT_AS_PLANNED => Err(Failure::ours("the traced run left no record")),
            status => Ok(status),
        };
    }
    let agrees = confront(&traced, names_only)?;
    Ok(if agrees { status } else { NOT_AS_PLANNED })
}

/// Returns RLIMIT_FSIZE in bytes. A write beyond it not only fails, but ends the process with SIGXFSZ
/// (setrlimit(2)).
fn largest_file() -> usize {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let words = limits.lines().find_map(|line| line.strip_prefix("Max file size"));
    // The value can also be "unlimited".
    let soft = words.and_then(|words| words.split_whitespace().next());
    soft.and_then(|word| word.parse().ok()).unwrap_or(usize::MAX)
}

/// Returns whether strace can show names and numbers only.
///
/// An ordinary user's strace disables the setuid bit of the mapping tools, which then cannot write maps. It
/// cannot read the memory of a non-dumpable process, so it prints pointers instead of strings.
fn sees_names_only(request: &Request, facts: &Facts) -> Result<bool, Failure> {
    if !request.rootless {
        return Ok(false);
    }
    if request.needs_tools((facts.euid, facts.egid)) {
        return Err(Failure::ours(
            "an ordinary user's strace disables the setuid bit of a mapping tool, which then fails: as root, \
             watch with strace -u, or leave --witness out",
        ));
    }
    // The minimal init makes itself non-dumpable, and a join makes the stages so.
    let cause = match (request.joined.is_empty(), request.policy.launch.init) {
        (false, _) => Some("joins make"),
        (true, true) => Some("--init makes"),
        (true, false) => None,
    };
    let names_only = cause.is_some();
    if let Some(cause) = cause {
        output::print_to_stderr(format_args!(
            "nsexec: {cause} a process non-dumpable, so that its user's strace sees no strings: comparing names and \
             numbers\n"
        ));
    }
    Ok(names_only)
}

/// Runs this command line, which begins with the program's name, under strace, with `--witnessed`. Returns
/// the exit status, strace's output and the record.
fn under_strace(folder: &mut Folder, line: &[OsString]) -> Result<(u8, Traced), Failure> {
    let program = std::env::current_exe()
        .map_err(|error| Failure::ours(format!("failed to find our own program: {}", words(&error))))?;
    // Not from the standard library, which does not have them with musl: see `start`.
    let mut arguments: Vec<OsString> = line.iter().skip(1).cloned().collect();
    // Flags precede the command, so the first match is our own flag.
    if let Some(flag) = arguments.iter_mut().find(|argument| *argument == "--witness") {
        *flag = OsString::from("--witnessed=");
        flag.push(&folder.path);
    }
    let ours = |what: &str, error: &io::Error| Failure::ours(format!("{what}: {}", words(error)));
    let unread = |what: &str| Failure::ours(format!("failed to read {what}"));
    // Ctrl-C reaches all processes of the terminal. This one must survive it, to report and to remove the
    // folder. strace gets the caller's mask and dispositions.
    let signals = run::take_signals()?;
    // If this process dies, strace must not wait for a reader of the FIFO for ever.
    let policy = Policy::runc(&Dialect::V1_2)
        .with_session(Session::Keep)
        .with_credentials(Credentials::Keep)
        .with_kill_child(true);
    let bootstrap = Bootstrap::new(CloneFlags::EMPTY);
    let mut launcher = Launcher::new(&bootstrap, policy)
        .map_err(|error| Failure::ours(format!("failed to start strace: {error}")))?;
    // The threads start after the launch. If there can be none, this is the last moment to say so.
    let thread = thread::Builder::new().spawn(|| {});
    thread
        .map_err(|error| ours("failed to create a thread", &error))?
        .join()
        .map_err(|_| unread("a thread"))?;
    let out = folder.path.join(STRACE);
    let mut words_of_strace: Vec<&OsStr> = witness::FLAGS.iter().map(OsStr::new).collect();
    words_of_strace.extend([OsStr::new("-o"), out.as_os_str(), OsStr::new("--"), program.as_os_str()]);
    words_of_strace.extend(arguments.iter().map(OsString::as_os_str));
    launcher.command("strace", words_of_strace).supervised(&signals);
    let mut child = launcher.spawn().map_err(|error| match error {
        LaunchError::Exec { errno: Errno::ENOENT, .. } => {
            Failure::ours("strace is not installed (Debian's package strace)")
        }
        error => Failure::ours(format!("failed to start strace: {error}")),
    })?;
    // Start the threads after the launch, which needs a process with one thread.
    let strace = folder.strace.read(Splitter::default(), Splitter::line);
    let record = folder.record.read(String::new(), |record, line| {
        record.push_str(line);
        record.push('\n');
    });
    let (strace, record) = match strace.and_then(|strace| Ok((strace, record?))) {
        Ok(both) => both,
        Err(error) => {
            // With -o strace blocks all signals but SIGKILL.
            let _ = child.kill();
            let _ = child.wait();
            return Err(ours("failed to create a thread that reads what strace writes", &error));
        }
    };
    let status = supervise(&mut child, &signals);
    folder.strace.finish();
    folder.record.finish();
    let status = status.map_err(|error| ours("failed to wait for strace", &error))?;
    let strace = strace.join().map_err(|_| unread("what strace wrote"))?;
    let strace = strace.map_err(|error| ours("failed to read what strace wrote", &error))?.into_files();
    let record = record.join().map_err(|_| unread("the record"))?;
    let record = record.map_err(|error| ours("failed to read the record", &error))?;
    Ok((u8::try_from(status).unwrap_or(FAILED), Traced { strace, record }))
}

/// Compares the record with strace's output. Returns whether they agree.
fn confront(traced: &Traced, names_only: bool) -> Result<bool, Failure> {
    let record = Run::from_json_lines(&traced.record).map_err(|error| Failure::ours(error.to_string()))?;
    let of_strace = |error: witness::WitnessError| Failure::ours(format!("strace's output: {error}"));
    let (agrees, differences, calls) = if names_only {
        let seen = witness::outline::of_files(&traced.strace, Role::Launcher).map_err(of_strace)?;
        let said = witness::outline::of_run(&record);
        let sections = witness::outline::compare(&said, &seen);
        let diff = Diff { left: Origin::Recorded, right: Origin::Witnessed, sections };
        (diff.is_empty(), diff.to_string(), said.iter().map(|process| process.calls.len()).sum::<usize>())
    } else {
        let seen = witness::run_of(&traced.strace, Role::Launcher).map_err(of_strace)?;
        let diff = compare(&record, &seen);
        let calls = seen.sections.iter().map(|section| section.lines.len()).sum();
        (diff.is_empty(), diff.to_string(), calls)
    };
    if agrees {
        output::print_to_stderr(format_args!("nsexec: the witness agrees: {calls} calls\n"));
    } else {
        output::print_to_stderr(format_args!("nsexec: the witness disagrees\n{differences}"));
    }
    Ok(agrees)
}

/// Locks the lines. No thread panics while it holds them.
fn locked(lines: &Mutex<String>) -> MutexGuard<'_, String> {
    lines.lock().unwrap_or_else(PoisonError::into_inner)
}
