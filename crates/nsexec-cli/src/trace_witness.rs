//! `nsexec trace --witness`: runs the program under strace, and compares strace's output with the record.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::Mode;
use nix::unistd::{mkdtemp, mkfifo};
use nsexec::bootstrap::{Bootstrap, Dialect};
use nsexec::launch::signals::supervise_tracer;
use nsexec::launch::{Child, LaunchError, Launcher};
use nsexec::policy::{Credentials, Policy, Session};
use nsexec::sys::types::{CloneFlags, Errno, Pid};
use nsexec_audit::diff::{Diff, compare};
use nsexec_audit::witness::{self, Splitter};
use nsexec_audit::{Origin, Role, Run};

use super::before_start;
use super::failure::{FAILED, Failure, NOT_AS_PLANNED, words};
use super::output;
use super::request::Request;
use super::run;
use nsexec_audit::machine::caller::Facts;

/// The name of the FIFO for strace's output in the witness's folder.
const STRACE: &str = "strace";

/// The name of the FIFO for the record in that folder.
pub(crate) const RECORD: &str = "record.jsonl";

/// The largest file that strace may write, in bytes. A message of 1 MiB is sent and read, at four characters
/// a byte: that takes half of it. The other half is for the remaining calls.
const WITNESS_FILE: usize = 16 << 20;

/// The memory in bytes of the two reading threads: the stacks, which the standard library makes 2 MiB large,
/// and what the launch and the start of a thread take.
const THREADS: usize = 2 * (2 << 20) + (4 << 20);

/// The interval in which the wait for strace's first line is repeated.
const FIRST_LINE: Duration = Duration::from_millis(5);

/// The witness's folder, removed when this is dropped. It holds two FIFOs, for strace's output and for the
/// record. Both contain the command's environment, so they are kept in memory and never in a file.
struct Folder {
    path: PathBuf,
    strace: Fifo,
    record: Fifo,
}

impl Folder {
    fn new() -> Result<Self, Failure> {
        let temporary = std::env::temp_dir();
        let made = || {
            // strace executes a name that begins with "|" or "!".
            let template = std::path::absolute(&temporary)?.join("nsexec-witness.XXXXXX");
            // Only its owner can read it: other users must not read the command's arguments.
            let path = mkdtemp(&template)?;
            let fifos = Fifo::new(&path.join(STRACE))
                .and_then(|strace| Ok((strace, Fifo::new(&path.join(RECORD))?)))
                .inspect_err(|_| remove(&path));
            let (strace, record) = fifos?;
            Ok(Self { path, strace, record })
        };
        made().map_err(|error: io::Error| {
            let place = temporary.display();
            Failure::ours(format!("failed to make a folder for the witness in {place}: {}", words(&error)))
        })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

/// Removes the folder, also at the limit on open files.
fn remove(folder: &Path) {
    for name in [STRACE, RECORD] {
        let _ = fs::remove_file(folder.join(name));
    }
    let _ = fs::remove_dir(folder);
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
        let open_nonblocking =
            |options: &mut fs::OpenOptions| options.custom_flags(OFlag::O_NONBLOCK.bits()).open(path);
        let reader = open_nonblocking(fs::OpenOptions::new().read(true))?;
        let writer = open_nonblocking(fs::OpenOptions::new().write(true))?;
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

/// Runs this program under strace, and compares strace's output with the record. Returns the exit status.
///
/// # Errors
/// strace cannot be started, or its output cannot be read.
pub(crate) fn witnessed(request: &Request, facts: &Facts, line: &[OsString]) -> Result<u8, Failure> {
    before_start::refuse_for_witness(request)?;
    let names_only = sees_names_only(request, facts)?;
    if largest_file() < WITNESS_FILE {
        return Err(Failure::ours(format!(
            "strace would be ended by SIGXFSZ: the limit on file size (ulimit -f) is below the {WITNESS_FILE} bytes \
             that a witness may need: raise it, or leave --witness out"
        )));
    }
    // If a new thread has no memory, std::thread aborts the program. This allocation fails first, and the
    // program then exits with an "out of memory" line. The freed memory stays available, because no other
    // thread runs.
    drop(std::hint::black_box(Vec::<u8>::with_capacity(THREADS)));
    let mut folder = Folder::new()?;
    let (status, traced) = under_strace(&mut folder, line)?;
    if traced.record.is_empty() {
        // The run did not start, and has printed the reason.
        return match status {
            0 | NOT_AS_PLANNED => Err(Failure::ours("the traced run left no record")),
            status => Ok(status),
        };
    }
    let agrees = compare_with_strace(&traced, names_only)?;
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
    let first = Arc::new(AtomicI32::new(0));
    let found = Arc::clone(&first);
    let strace = folder.strace.read(Splitter::default(), move |splitter, line| {
        if found.load(Ordering::Relaxed) == 0 {
            found.store(pid_of(line), Ordering::Relaxed);
        }
        splitter.line(line);
    });
    let record = folder.record.read(String::new(), |record, line| {
        record.push_str(line);
        record.push('\n');
    });
    let (strace, record) = match strace.and_then(|strace| Ok((strace, record?))) {
        Ok(both) => both,
        Err(error) => {
            // With -o, strace ignores SIGTERM and SIGINT (strace(1), -I 3), so it is killed.
            let _ = child.kill();
            let _ = child.wait();
            return Err(ours("failed to create a thread that reads what strace writes", &error));
        }
    };
    let traced = traced_program(&mut child, &first);
    let status = traced.and_then(|traced| supervise_tracer(&mut child, &signals, traced.as_ref()));
    folder.strace.finish();
    folder.record.finish();
    let status = status.map_err(|error| ours("failed to wait for strace", &error))?;
    let strace = strace.join().map_err(|_| unread("what strace wrote"))?;
    let strace = strace.map_err(|error| ours("failed to read what strace wrote", &error))?.into_files();
    let record = record.join().map_err(|_| unread("the record"))?;
    let record = record.map_err(|error| ours("failed to read the record", &error))?;
    Ok((u8::try_from(status).unwrap_or(FAILED), Traced { strace, record }))
}

/// Returns the pid at the start of a line that strace wrote. Returns 0 if the line does not start with a
/// number.
fn pid_of(line: &str) -> i32 {
    line.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or_default()
}

/// Waits for strace's first line, which is of the program that it has executed. Returns a handle for signals
/// to that program; `None` if strace or the program has ended. With `-o`, strace itself blocks all signals
/// but SIGKILL.
fn traced_program(strace: &mut Child, first: &AtomicI32) -> io::Result<Option<Child>> {
    loop {
        match first.load(Ordering::Relaxed) {
            0 if strace.try_wait()?.is_some() => return Ok(None),
            0 => thread::sleep(FIRST_LINE),
            pid => return Ok(strace.child(Pid(pid))),
        }
    }
}

/// Compares the record with strace's output. Returns whether they agree.
fn compare_with_strace(traced: &Traced, names_only: bool) -> Result<bool, Failure> {
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
