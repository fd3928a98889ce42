//! The rules for the end of a start.

use nix::sys::wait::WaitStatus;

use crate::draw::{Around, Blow, Launcher, Log, Start};
use crate::launcher::{STARTED, UNPREPARED};
use crate::parent::Parent;
use crate::tally::Tally;
use crate::worker::End;

/// Returns the complaints about a start, and counts it.
pub(crate) fn judge(start: &Start, end: &End, tally: &mut Tally) -> Vec<String> {
    let disturbances = start.disturbances();
    let ending = Ending::of(start, end);
    let outcome = match &ending {
        Ending::Ran => "ran",
        Ending::Failed(_) => "failed",
        Ending::Signaled(_) => "signaled",
    };
    tally.add(start.shape.name, &disturbances, outcome);
    let errors = errors(start, end);
    for error in &errors {
        tally.text(format!("{} {} {}", start.shape.name, disturbances.join("+"), without_numbers(error)));
    }
    let about = |what: &str| {
        let records = end.parent.as_ref().map(|parent| String::from_utf8_lossy(&parent.records).into_owned());
        let answer = end.parent.as_ref().map(|parent| String::from_utf8_lossy(&parent.answer).into_owned());
        format!(
            "{what}: {:?}, wrote {:?} and {:?}, answered {answer:?}, logged {records:?}, got {:?}",
            end.status, end.out, end.err, end.hits
        )
    };
    let mut complaints: Vec<String> = end.hung.iter().map(|hung| about(hung)).collect();
    if end.err.contains("panicked") || end.err.contains("chaos: ") {
        complaints.push(about("a panic, or a leftover"));
    }
    if start.must_succeed() && (ending != Ending::Ran || !has_run(start, end)) {
        complaints.push(about("nothing had to end this start"));
    }
    if end.hung.is_empty() {
        if let Some(what) = fault(start, end, &ending, &errors) {
            complaints.push(about(&what));
        }
    }
    complaints
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ending {
    /// Status 0: the command ran.
    Ran,
    Failed(i32),
    Signaled(i32),
}

impl Ending {
    fn of(_: &Start, end: &End) -> Self {
        match end.status {
            Some(WaitStatus::Exited(_, 0)) => Self::Ran,
            Some(WaitStatus::Exited(_, code)) => Self::Failed(code),
            Some(WaitStatus::Signaled(_, signal, _)) => Self::Signaled(signal as i32),
            _ => Self::Failed(-1),
        }
    }
}

/// Returns whether the command has written its text, or could not write.
fn has_run(start: &Start, end: &End) -> bool {
    end.out == STARTED || is_closed(start, 1)
}

fn is_closed(start: &Start, number: u32) -> bool {
    start.around.iter().any(|around| matches!(around, Around::Closed(bits) if bits & (1 << number) != 0))
}

fn has_memory_limit(start: &Start) -> bool {
    start.around.iter().any(|around| matches!(around, Around::Memory(_)))
}

/// Returns the errors that the launch has reported.
fn errors(start: &Start, end: &End) -> Vec<String> {
    let lines = |text: &str| -> Vec<String> {
        text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect()
    };
    let mut errors = lines(&end.err);
    if let (Launcher::DropIn(..), Some(parent)) = (start.shape.launcher, &end.parent) {
        errors.extend(fatal(parent));
    }
    errors
}

/// Returns the fatal records.
fn fatal(parent: &Parent) -> Vec<String> {
    let text = String::from_utf8_lossy(&parent.records).into_owned();
    let records = text.lines().filter(|line| !line.is_empty()).map(|line| {
        let value: Result<serde_json::Value, _> = serde_json::from_str(line);
        (line.to_owned(), value.ok())
    });
    records
        .filter_map(|(line, value)| match value {
            None => Some(format!("no record: {line}")),
            Some(value) if value["level"] == "fatal" => Some(value["msg"].as_str().unwrap_or("").to_owned()),
            Some(_) => None,
        })
        .collect()
}

/// Returns what is wrong with this end.
fn fault(start: &Start, end: &End, ending: &Ending, errors: &[String]) -> Option<String> {
    let sent = |signal: i32| end.hits.iter().any(|hit| hit.signal == signal);
    let has_started = end.out == STARTED;
    match *ending {
        Ending::Failed(UNPREPARED) => Some("the launcher could not be prepared".to_owned()),
        Ending::Failed(-1) => Some("the launcher has no status".to_owned()),
        Ending::Ran if matches!(start.shape.launcher, Launcher::DropIn(..)) => {
            drop_in_ran(start, end, errors)
        }
        Ending::Ran if !has_run(start, end) => Some("status 0, and the command did not run".to_owned()),
        Ending::Ran if !errors.is_empty() => Some("status 0 with an error".to_owned()),
        Ending::Ran => None,
        Ending::Signaled(signal) if sent(signal) => None,
        // The loader, the allocator and the kernel's exec end a process for lack of memory.
        Ending::Signaled(libc::SIGSEGV | libc::SIGABRT | libc::SIGKILL | libc::SIGBUS)
            if has_memory_limit(start) =>
        {
            None
        }
        Ending::Signaled(_) => Some("a signal that was not sent".to_owned()),
        Ending::Failed(code) if errors.is_empty() => {
            let by_signal = code > 128 && sent(code - 128);
            // Before the drop-in opens its log, the loader and the allocator write to standard error.
            let is_drop_in = matches!(start.shape.launcher, Launcher::DropIn(..));
            let writes = code == 127 || has_memory_limit(start) || !is_drop_in;
            let cannot_say = is_closed(start, 2) && writes;
            // The command was killed for lack of memory.
            let memory = has_memory_limit(start) && (code > 128 || has_started);
            let is_excused = by_signal || cannot_say || memory || is_silent(start);
            (!is_excused).then(|| "a failure without an error".to_owned())
        }
        // The command ran, and reported an error of its own, perhaps not to its end.
        Ending::Failed(_) if errors.iter().all(|error| error.starts_with("/bin/echo: ")) => None,
        Ending::Failed(_) => {
            // A mapping tool may write to standard error where the drop-in cannot report an error.
            too_many(start, errors).or_else(|| wrong_cause(start, errors).filter(|_| !is_silent(start)))
        }
    }
}

/// Returns whether a drop-in cannot report an error: its log pipe is full or closed.
fn is_silent(start: &Start) -> bool {
    match start.shape.launcher {
        Launcher::DropIn("seed", _) => is_closed(start, 2),
        Launcher::DropIn(..) => matches!(start.log, Log::Full | Log::Closed),
        _ => false,
    }
}

/// A drop-in with status 0 has written the pid line.
fn drop_in_ran(start: &Start, end: &End, errors: &[String]) -> Option<String> {
    let parent = end.parent.as_ref()?;
    let answer = String::from_utf8_lossy(&parent.answer).into_owned();
    let closes = start.actions.iter().any(|action| action.blow == Blow::CloseInit);
    let line = answer.trim_start_matches('\0');
    let is_line = line.starts_with('{') && line.ends_with("}\n");
    if !closes && !is_line {
        return Some("status 0 without a pid line".to_owned());
    }
    // Stage 2 may have been disturbed after stage 0 has ended.
    let disturbed = !end.hits.is_empty() || !start.around.is_empty() || closes;
    if !disturbed && (!has_run(start, end) || !errors.is_empty()) {
        return Some("status 0, and the command did not run".to_owned());
    }
    None
}

/// Returns whether there is more than one error of nsexec. The stages of a drop-in may report a cause and its
/// consequences. A mapping tool and the command may write lines of their own.
fn too_many(start: &Start, errors: &[String]) -> Option<String> {
    let is_drop_in = matches!(start.shape.launcher, Launcher::DropIn(..));
    let most = if is_drop_in { 3 } else { 1 };
    let count = errors.iter().filter(|error| is_drop_in || error.starts_with("nsexec: ")).count();
    (count > most).then(|| format!("{count} errors"))
}

/// Returns whether no error names a cause that one of the disturbances has.
fn wrong_cause(start: &Start, errors: &[String]) -> Option<String> {
    let mut words: Vec<&str> = Vec::new();
    for around in &start.around {
        words.extend(match around {
            Around::Files(_) => &["Too many open files", "descriptor", "shared libraries"][..],
            Around::Processes(_) | Around::Pids(_) => &["Resource temporarily unavailable"],
            Around::Memory(_) => {
                &["Cannot allocate memory", "memory", "killed", "signal", "shared libraries"]
            }
            Around::Namespaces(..) => {
                &["No space left on device", "not permitted", "denied", "namespace", "newuidmap"]
            }
            Around::SigchldIgnored => &["this process ignores SIGCHLD"],
            Around::Closed(_) => &["Bad file descriptor", "descriptor"],
            _ => &[],
        });
    }
    if !start.actions.is_empty() || start.delivery == crate::draw::Delivery::Cut {
        words.extend([
            "SIGKILL",
            "SIGTERM",
            "SIGINT",
            "killed",
            "gone",
            "sync with",
            "read netlink",
            "ended",
            "died",
            "Broken pipe",
        ]);
    }
    let named = errors.iter().any(|error| words.iter().any(|word| error.contains(word)));
    (!named).then(|| "no error names a cause".to_owned())
}

fn without_numbers(text: &str) -> String {
    let mut short = String::new();
    for c in text.chars() {
        let c = if c.is_ascii_digit() { '#' } else { c };
        if c != '#' || !short.ends_with('#') {
            short.push(c);
        }
    }
    short
}
