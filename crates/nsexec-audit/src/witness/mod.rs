//! Reads strace's output of the real processes into the recorder's own schema.
//!
//! The format is that of strace 6.1 (Debian 12) with [`FLAGS`]. Strings are complete, so that the message,
//! each log record, and each string of an exec's environment can be compared. The output therefore contains
//! the secrets of the command's environment: `nsexec trace --witness` reads it from a FIFO into memory. With
//! `-ff` instead of `-f`, strace writes one file for each process ([`read_files`]). [`split_by_process`]
//! splits the single file of `-f`.
//!
//! A witness sees the same run as the recorder, so both must have the same descriptors, pids, addresses and
//! strings. [`NOT_SHOWN`] lists the values that strace does not show.
//!
//! A witnessed program marks the beginning and the end of the run with [`mark_begin`] and [`mark_end`]: each
//! is a stat of a file that does not exist. Every line of the processes created between the marks counts,
//! except for [`LEFT_OUT`]. A remaining call that the bootstrap does not make is kept as [`Foreign`], and
//! breaks the rule `declared`.

mod not_shown;
pub mod outline;
mod splitter;

use core::fmt;

use std::borrow::ToOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::format;
use std::path::Path;
use std::string::String;
use std::vec::Vec;

use super::sections::{children, finish};
use super::transcript::{End, Foreign, Origin, Role, Run, Section};
use crate::record::strace::{parts, words};
use crate::record::{Call, Line, Reply};
use nsexec::sys::types::Pid;

pub use crate::record::parse_line;
pub use not_shown::{NOT_SHOWN, as_shown};
pub use splitter::Splitter;

/// strace's options. `-o FILE` and the program follow. The length of strings is that of the largest message.
pub const FLAGS: &[&str] = &["-f", "-q", "-v", "-a", "1", "-s", "1048576"];

/// Beginnings of strace's lines that are left out, each with the reason. A call that maps a file, or makes
/// memory executable, is kept: allocators do not make such calls.
///
/// Two more kinds of lines are left out: the call in which a process was killed, and the first half of a call
/// that the kernel resumed after a signal.
pub const LEFT_OUT: &[(&str, &str)] = &[
    ("brk(", "the allocator of the launcher, which keeps log records"),
    ("mmap(", "the allocator of the launcher, which keeps log records"),
    ("munmap(", "the allocator of the launcher, which keeps log records"),
    ("mremap(", "the allocator of the launcher, which keeps log records"),
    ("madvise(", "the allocator of the launcher, which keeps log records"),
    ("mprotect(", "the allocator of the launcher, which keeps log records"),
    ("--- ", "a signal that arrived; what it did is in the reply of a call"),
    ("exit_group(", "the end of a stage is not a call of the protocol; the line of its status says it"),
    ("exit(", "the same, of a libc that ends a thread so"),
];

const BEGIN: &str = "/nsexec-witness/begin";
const END: &str = "/nsexec-witness/end";

/// Marks the beginning of the run for a witness, if there is one.
pub fn mark_begin() {
    // After its first failed statx(2) the standard library tests whether the kernel has the call. That test
    // must not lie after the mark.
    let _ = std::fs::metadata("/nsexec-witness");
    // The file does not exist, and the result is ignored: only the call matters.
    let _ = std::fs::metadata(BEGIN);
}

/// Marks the end of the run for a witness, if there is one.
pub fn mark_end() {
    let _ = std::fs::metadata(END);
}

/// The reasons why strace's files are not a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum WitnessError {
    /// A file cannot be read.
    Unreadable(String),
    /// No process made the begin mark: it ended before, or strace saw nothing.
    NoBegin,
    /// A created process has no file.
    Missing {
        /// The process.
        role: Role,
        /// Its pid.
        pid: i32,
    },
}

impl fmt::Display for WitnessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(why) => write!(f, "cannot read strace's output: {why}"),
            Self::NoBegin => f.write_str("strace's output has no mark for the beginning of a run"),
            Self::Missing { role, pid } => write!(f, "strace wrote no output for {role}, process {pid}"),
        }
    }
}

impl core::error::Error for WitnessError {}

/// Reads the file `PREFIX.PID` of every process.
///
/// # Errors
/// [`WitnessError::Unreadable`] if the directory or a file cannot be read.
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
            // strace escapes bytes that are not ASCII, so the conversion loses nothing.
            let bytes = std::fs::read(entry.path()).map_err(unreadable)?;
            files.insert(pid, String::from_utf8_lossy(&bytes).into_owned());
        }
    }
    Ok(files)
}

/// Splits the single file of `strace -f` into those of `-ff`, with [`Splitter`].
#[must_use]
pub fn split_by_process(text: &str) -> BTreeMap<i32, String> {
    let mut splitter = Splitter::default();
    text.lines().for_each(|line| splitter.line(line));
    splitter.into_files()
}

/// Turns strace's files into a run. `root` is the role of the process that made the marks.
///
/// A faulty program can create two processes of one role. Both are in the run, for the comparison with the
/// record. Such a run cannot be written: see [`Run::to_json_lines`].
///
/// # Errors
/// [`WitnessError::NoBegin`]: no process made the begin mark. [`WitnessError::Missing`]: a process has no
/// file.
pub fn run_of(files: &BTreeMap<i32, String>, root: Role) -> Result<Run, WitnessError> {
    let lines = lines_between_marks(files)?;
    let mut reader = RunReader { files: Unread::new(files), run: Run::default() };
    reader.run.origin = Origin::Witnessed;
    reader.process(root, None, lines)?;
    finish(&mut reader.run);
    Ok(reader.run)
}

/// Returns the path of a call that may be a mark: `statx(AT_FDCWD, "/nsexec-witness/end", …`. The same text
/// in a string of another call is not a mark.
fn mark_path(line: &str) -> Option<String> {
    let call = ["statx(AT_FDCWD, ", "newfstatat(AT_FDCWD, ", "stat("]
        .iter()
        .find_map(|call| line.strip_prefix(call))?;
    let (args, _) = parts::list(call, b')')?;
    String::from_utf8(words::whole(args.first()?)?).ok()
}

/// Returns the lines between the marks.
fn lines_between_marks(files: &BTreeMap<i32, String>) -> Result<&str, WitnessError> {
    // Returns the offsets of the beginning and the end of the line with a mark.
    let find = |text: &str, mark: &str| -> Option<(usize, usize)> {
        let mut start = 0;
        for line in text.split_inclusive('\n') {
            // Only the few lines that contain the text are parsed.
            let found = if line.contains(mark) { mark_path(line) } else { None };
            if found.is_some_and(|path| path == mark) {
                return Some((start, start + line.len()));
            }
            start += line.len();
        }
        None
    };
    let begins = files.values().find_map(|text| Some((text, find(text, BEGIN)?)));
    let (text, (_, begin)) = begins.ok_or(WitnessError::NoBegin)?;
    let lines = text.get(begin..).unwrap_or_default();
    // After the end mark the launcher's own work continues.
    let end = find(lines, END).map_or(lines.len(), |(end, _)| end);
    Ok(lines.get(..end).unwrap_or_default())
}

/// The files of strace, by pid, and those of them that were read.
struct Unread<'a> {
    files: &'a BTreeMap<i32, String>,
    read: BTreeSet<i32>,
}

impl<'a> Unread<'a> {
    const fn new(files: &'a BTreeMap<i32, String>) -> Self {
        Self { files, read: BTreeSet::new() }
    }

    /// Returns the text of a process that its parent created under this pid.
    ///
    /// A minimal init creates the command in its own pid namespace, and strace names the file by the pid in
    /// the first one. That is the first file after those that were read: the stages existed before.
    fn take(&mut self, role: Role, pid: Pid) -> Result<&'a str, WitnessError> {
        let missing = WitnessError::Missing { role, pid: pid.0 };
        let pid = match role {
            Role::Stage(3) => {
                let last = self.read.last().copied().unwrap_or_default();
                *self.files.range(last.saturating_add(1)..).next().ok_or(missing.clone())?.0
            }
            _ => pid.0,
        };
        self.read.insert(pid);
        self.files.get(&pid).map(String::as_str).ok_or(missing)
    }
}

struct RunReader<'a> {
    files: Unread<'a>,
    run: Run,
}

impl RunReader<'_> {
    /// Reads one process, and then the processes that it created.
    fn process(&mut self, role: Role, made_by: Option<Call>, text: &str) -> Result<(), WitnessError> {
        let mut section = Section::new(role);
        // The recorder's first line of a process is its clone, which strace shows in the parent only.
        section.lines.extend(made_by.map(|call| Line { call, reply: Reply::Child }));
        let mut interrupted: Option<String> = None;
        for line in text.lines() {
            if let Some(end) = end_of(line) {
                section.end = end;
                continue;
            }
            if is_left_out(line) {
                continue;
            }
            if is_interrupted(line) {
                interrupted = Some(line.to_owned());
                continue;
            }
            match parse_line(&resumed(line, interrupted.take())) {
                Some(line) => {
                    let executed = line.reply == Reply::NoReturn;
                    section.push(line);
                    if executed {
                        // The following lines belong to another program, and so does its end. The parent's
                        // wait4 reports the end.
                        break;
                    }
                }
                None => section
                    .foreign
                    .push(Foreign { after: section.lines.len(), text: without_environment(line) }),
            }
        }
        let children = self.children(&section)?;
        self.run.sections.push(section);
        for (role, call, text) in children {
            self.process(role, Some(call), &text)?;
        }
        Ok(())
    }

    fn children(&mut self, section: &Section) -> Result<Vec<(Role, Call, String)>, WitnessError> {
        let text_of = |(index, role, pid): (usize, Role, Pid)| {
            let text = self.files.take(role, pid)?.to_owned();
            Ok((role, section.lines[index].call.clone(), text))
        };
        children(section).into_iter().map(text_of).collect()
    }
}

/// Returns whether a line is left out: [`LEFT_OUT`], and the call in which the process was killed. strace
/// prints `= ?` for that call. The recorder has no line, since it writes most calls only after their return.
fn is_left_out(line: &str) -> bool {
    LEFT_OUT.iter().any(|(beginning, _)| line.starts_with(beginning)) && !maps_a_file_or_code(line)
        || line.ends_with(") = ?")
}

/// Returns whether the call maps a file or makes memory executable. Allocators do neither.
fn maps_a_file_or_code(line: &str) -> bool {
    line.contains("PROT_EXEC") || line.starts_with("mmap(") && !line.contains("MAP_ANONYMOUS")
}

/// Parses `+++ exited with 0 +++` and `+++ killed by SIGKILL +++`.
fn end_of(line: &str) -> Option<End> {
    let what = line.strip_prefix("+++ ")?.strip_suffix(" +++")?;
    if let Some(code) = what.strip_prefix("exited with ") {
        return code.parse().ok().map(End::Exited);
    }
    let signal = what.strip_prefix("killed by ")?.trim_end_matches(" (core dumped)");
    words::signal(signal).map(End::Signaled)
}

/// Returns whether the line is the first half of a call that a signal interrupted.
fn is_interrupted(line: &str) -> bool {
    parts::split(line).is_some_and(|parts| parts.result.starts_with("? ERESTART"))
}

/// Returns an undeclared line without the environment of an exec. An exec line that cannot be parsed shows
/// its name only.
fn without_environment(line: &str) -> String {
    let Some((name, _)) = line.split_once('(').filter(|(name, _)| name.starts_with("execve")) else {
        return line.to_owned();
    };
    let shown = if name == "execve" { 2 } else { 3 };
    let Some(parts) = parts::split(line) else { return format!("{name}(…") };
    let args = parts.args.get(..shown).unwrap_or_default().join(", ");
    format!("{name}({args}, …) = {}", parts.result)
}

/// Joins the halves of a call that the kernel resumed after a signal: the arguments of the first line, and
/// the result of `restart_syscall(<... resuming interrupted poll ...>)`. A call that is repeated unchanged
/// has a line of its own.
fn resumed(line: &str, interrupted: Option<String>) -> String {
    let parts = interrupted.as_deref().and_then(|first| first.rsplit_once(" = ?"));
    match (line.starts_with("restart_syscall("), parts, line.rsplit_once(" = ")) {
        (true, Some((call, _)), Some((_, result))) => format!("{call} = {result}"),
        _ => line.to_owned(),
    }
}

#[cfg(test)]
mod tests;
