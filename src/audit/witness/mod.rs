//! The witness: what strace saw of the real processes, in the recorder's own schema.
//!
//! strace 6.1 (Debian 12) with [`FLAGS`]: one file for each process, since lines of several processes in one file
//! interleave; strings whole, so that the message and each log record can be compared; no environment and no whole
//! `struct stat` (without `-v`), which would be long, secret, or different each time. What strace does not tell is listed
//! at [`Grade::Witness`](super::normalise::Grade::Witness), which a comparison with it uses.
//!
//! A witnessed program marks where the run begins and ends with [`mark_begin`] and [`mark_end`]: a look at a file that does not exist. In the
//! processes that are made between the marks every line counts but for [`LEFT_OUT`]; what remains and is none of our
//! calls is kept as [`Foreign`], and is a breach of the rule `declared`.

mod call;
pub mod outline;
mod words;

use core::fmt;

use std::borrow::ToOwned;
use std::collections::BTreeMap;
use std::format;
use std::path::Path;
use std::string::String;
use std::vec::Vec;

use super::sections::{child_role, finish};
use super::transcript::{End, Foreign, Origin, Role, Run, Section};
use crate::sys::record::{Call, Line, Reply};
use crate::sys::types::Fd;

pub use call::parse_line;

/// How strace is called; then `-o PREFIX`, and the program. The length of strings is that of the largest message.
pub const FLAGS: &[&str] = &["-ff", "-q", "-a", "1", "-s", "1048576"];

/// What is left out of what strace saw, by the beginning of its line, and why. An allocator's call that maps a file, or makes
/// memory code, is not an allocator's, and stays. Besides these: the recorder's own writes,
/// the call in which a process was killed, and the first half of a call that a signal interrupted and the kernel took up
/// again.
pub const LEFT_OUT: &[(&str, &str)] = &[
    ("brk(", "the allocator of the recorder"),
    ("mmap(", "the allocator of the recorder"),
    ("munmap(", "the allocator of the recorder"),
    ("mremap(", "the allocator of the recorder"),
    ("madvise(", "the allocator of the recorder"),
    ("mprotect(", "the allocator of the recorder"),
    ("--- ", "a signal that arrived; what it did is in the reply of a call"),
    ("exit_group(", "the end of a stage is not a call of the protocol; the line of its status says it"),
    ("exit(", "the same, of a libc that ends a thread so"),
];

const BEGIN: &str = "/nsexec-witness/begin";
const END: &str = "/nsexec-witness/end";

/// Says to a witness, if there is one, that the run begins here. Writes to `recorder` are then left out.
pub fn mark_begin(recorder: Option<Fd>) {
    // It does not exist, so there is nothing to look at; the call is what counts.
    let _ = match recorder {
        Some(Fd(number)) => std::fs::metadata(format!("{BEGIN}/recorder/{number}")),
        None => std::fs::metadata(BEGIN),
    };
}

/// Says to a witness, if there is one, that the run is over for this process.
pub fn mark_end() {
    let _ = std::fs::metadata(END);
}

/// Why strace's files are not a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum WitnessError {
    /// A file cannot be read.
    Unreadable(String),
    /// No process made the mark: it ended before, or strace saw nothing.
    NoBegin,
    /// A process that was made left no file.
    Missing {
        /// Which process.
        role: Role,
        /// Its number.
        pid: i32,
    },
}

impl fmt::Display for WitnessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(why) => write!(f, "cannot read what strace wrote: {why}"),
            Self::NoBegin => f.write_str("strace saw no beginning of a run"),
            Self::Missing { role, pid } => write!(f, "strace left no file of {role}, process {pid}"),
        }
    }
}

impl core::error::Error for WitnessError {}

/// Reads `PREFIX.PID` of every process.
///
/// # Errors
/// The directory or a file cannot be read.
pub fn read_files(prefix: &Path) -> Result<BTreeMap<i32, String>, WitnessError> {
    let unreadable = |error: std::io::Error| WitnessError::Unreadable(format!("{error}"));
    let name = prefix.file_name().unwrap_or_default().to_string_lossy().into_owned() + ".";
    let folder = prefix.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let file = entry.file_name();
        let pid = file.to_str().and_then(|file| file.strip_prefix(&name)).and_then(|pid| pid.parse().ok());
        if let Some(pid) = pid {
            // strace escapes what is not ASCII, so nothing is lost here.
            let bytes = std::fs::read(entry.path()).map_err(unreadable)?;
            files.insert(pid, String::from_utf8_lossy(&bytes).into_owned());
        }
    }
    Ok(files)
}

/// Takes the one file of `strace -f` apart into those of `-ff`: each line begins with its process, and a call that another
/// process interrupted in print comes in two halves.
#[must_use]
pub fn split_by_process(text: &str) -> BTreeMap<i32, String> {
    let mut files: BTreeMap<i32, String> = BTreeMap::new();
    let mut halves: BTreeMap<i32, String> = BTreeMap::new();
    for line in text.lines() {
        let Some((pid, rest)) = line.split_once(' ') else { continue };
        let Ok(pid) = pid.parse::<i32>() else { continue };
        let rest = rest.trim_start();
        if let Some(first) = rest.strip_suffix(" <unfinished ...>") {
            halves.insert(pid, first.to_owned());
            continue;
        }
        let second = rest.strip_prefix("<... ").and_then(|rest| rest.split_once(" resumed>"));
        let file = files.entry(pid).or_default();
        if let Some((_, second)) = second {
            file.push_str(&halves.remove(&pid).unwrap_or_default());
            file.push_str(second);
        } else {
            file.push_str(rest);
        }
        file.push('\n');
    }
    files
}

/// Sorts what strace wrote into a run. `root` is what the process that made the mark is.
///
/// # Errors
/// No mark, or a process without a file.
pub fn run_of(files: &BTreeMap<i32, String>, root: Role) -> Result<Run, WitnessError> {
    let (lines, recorder) = between_the_marks(files)?;
    let mut reading = Reading { files, recorder, run: Run::default() };
    reading.run.origin = Origin::Witnessed;
    reading.process(root, None, lines)?;
    finish(&mut reading.run);
    Ok(reading.run)
}

/// What the process that made the marks did between them, and how the recorder's own writes begin.
fn between_the_marks(files: &BTreeMap<i32, String>) -> Result<(&str, Option<String>), WitnessError> {
    let begins = |text: &&String| text.contains(BEGIN);
    let text = files.values().find(begins).ok_or(WitnessError::NoBegin)?;
    let (_, after) = text.split_once(BEGIN).ok_or(WitnessError::NoBegin)?;
    let (rest_of_mark, lines) = after.split_once('\n').unwrap_or((after, ""));
    let recorder = rest_of_mark.strip_prefix("/recorder/").and_then(|rest| rest.split('"').next());
    // Behind the end mark the launcher goes on with what is not ours.
    let lines = lines.find(END).map_or(lines, |end| {
        let whole = &lines[..end];
        &whole[..whole.rfind('\n').map_or(0, |newline| newline + 1)]
    });
    Ok((lines, recorder.map(|fd| format!("write({fd}, "))))
}

struct Reading<'a> {
    files: &'a BTreeMap<i32, String>,
    recorder: Option<String>,
    run: Run,
}

impl Reading<'_> {
    /// One process, and then those that it made.
    fn process(&mut self, role: Role, made_by: Option<Call>, text: &str) -> Result<(), WitnessError> {
        let mut section = Section::new(role);
        // The recorder's first line of a process, which strace sees in the parent alone.
        section.lines.extend(made_by.map(|call| Line { call, reply: Reply::Child }));
        let mut interrupted: Option<String> = None;
        for line in text.lines() {
            if let Some(end) = end_of(line) {
                section.end = end;
                continue;
            }
            if is_left_out(line, self.recorder.as_deref()) {
                continue;
            }
            if line.contains(" = ? ERESTART") {
                interrupted = Some(line.to_owned());
                continue;
            }
            match parse_line(&resumed(line, interrupted.take())) {
                Some(line) => {
                    let executed = line.reply == Reply::NoReturn;
                    section.push(line);
                    if executed {
                        // What follows is another program's, and so is its end: whoever waits for it will tell.
                        break;
                    }
                }
                None => section.foreign.push(Foreign { after: section.lines.len(), text: line.to_owned() }),
            }
        }
        let children = self.children(&section)?;
        self.run.sections.push(section);
        for (role, call, text) in children {
            self.process(role, Some(call), &text)?;
        }
        Ok(())
    }

    fn children(&self, section: &Section) -> Result<Vec<(Role, Call, String)>, WitnessError> {
        let mut children = Vec::new();
        let mut tools = 0_u8;
        for line in &section.lines {
            let Reply::Parent(pid) = line.reply else { continue };
            let Some(role) = child_role(section.role, &line.call, tools) else { continue };
            tools += u8::from(matches!(role, Role::Tool(_)));
            let text = self.files.get(&pid.0).ok_or(WitnessError::Missing { role, pid: pid.0 })?;
            children.push((role, line.call.clone(), text.clone()));
        }
        Ok(children)
    }
}

/// [`LEFT_OUT`], the recorder's writes, and the call in which the process was killed: the recorder writes down what has come
/// back.
fn is_left_out(line: &str, recorder: Option<&str>) -> bool {
    recorder.is_some_and(|recorder| line.starts_with(recorder))
        || LEFT_OUT.iter().any(|(beginning, _)| line.starts_with(beginning)) && !maps_a_file_or_code(line)
        || line.ends_with("<unfinished ...>) = ?")
}

/// What no allocator does: a file in memory, or memory that is code.
fn maps_a_file_or_code(line: &str) -> bool {
    line.contains("PROT_EXEC") || line.starts_with("mmap(") && !line.contains("MAP_ANONYMOUS")
}

/// `+++ exited with 0 +++`, `+++ killed by SIGKILL +++`.
fn end_of(line: &str) -> Option<End> {
    let what = line.strip_prefix("+++ ")?.strip_suffix(" +++")?;
    if let Some(code) = what.strip_prefix("exited with ") {
        return code.parse().ok().map(End::Exited);
    }
    let signal = what.strip_prefix("killed by ")?.trim_end_matches(" (core dumped)");
    words::signal(signal).map(End::Signaled)
}

/// A call that a signal interrupted and the kernel took up again: the arguments of the first line, and the result of
/// `restart_syscall(<... resuming interrupted poll ...>)`. A call that is made again as it was has a line of its own.
fn resumed(line: &str, interrupted: Option<String>) -> String {
    let parts = interrupted.as_deref().and_then(|first| first.rsplit_once(" = ?"));
    match (line.starts_with("restart_syscall("), parts, line.rsplit_once(" = ")) {
        (true, Some((call, _)), Some((_, result))) => format!("{call} = {result}"),
        _ => line.to_owned(),
    }
}

#[cfg(test)]
mod tests;
