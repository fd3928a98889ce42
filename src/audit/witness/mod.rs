//! The witness: what strace saw of the real processes, in the recorder's own schema.
//!
//! strace 6.1 (Debian 12) with [`FLAGS`]: strings whole, so that the message and each log record can be
//! compared, and the environment of an exec, string by string. Its output therefore contains the secrets of
//! the command's environment: `nsexec trace --witness` reads it from a FIFO into memory. With `-ff` instead
//! of `-f` strace writes a file for each process ([`read_files`]); what it writes into one is taken apart by
//! [`split_by_process`].
//!
//! A witness sees the same run as the recorder, so both must have the same descriptors, pids, addresses and
//! strings. The list of what strace does not show is [`NOT_SHOWN`].
//!
//! A witnessed program marks where the run begins and ends with [`mark_begin`] and [`mark_end`]: a look at a
//! file that does not exist. In the processes that are made between the marks every line counts but for
//! [`LEFT_OUT`]; what remains and is none of our calls is kept as [`Foreign`], and is a breach of the rule
//! `declared`.

mod call;
mod not_shown;
pub mod outline;
mod splitter;
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
pub use not_shown::{NOT_SHOWN, as_shown};
pub use splitter::Splitter;

/// How strace is called; then `-o FILE`, and the program. The length of strings is that of the largest
/// message.
pub const FLAGS: &[&str] = &["-f", "-q", "-v", "-a", "1", "-s", "1048576"];

/// What is left out of what strace saw, by the beginning of its line, and why. An allocator's call that maps
/// a file, or makes memory code, is not an allocator's, and stays. Besides these: the recorder's own writes,
/// the call in which a process was killed, and the first half of a call that a signal interrupted and the
/// kernel took up again.
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

/// Splits the one file of `strace -f` into those of `-ff`, with [`Splitter`].
#[must_use]
pub fn split_by_process(text: &str) -> BTreeMap<i32, String> {
    let mut splitter = Splitter::default();
    text.lines().for_each(|line| splitter.line(line));
    splitter.into_files()
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

/// Returns the path of a call that may be a mark: `statx(AT_FDCWD, "/nsexec-witness/end", …`. The same text
/// in a string of another call is not a mark.
fn marked(line: &str) -> Option<String> {
    let call = ["statx(AT_FDCWD, ", "newfstatat(AT_FDCWD, ", "stat("]
        .iter()
        .find_map(|call| line.strip_prefix(call))?;
    let (args, _) = words::list(call, b')')?;
    String::from_utf8(words::whole(args.first()?)?).ok()
}

/// What the process that made the marks did between them, and how the recorder's own writes begin.
fn between_the_marks(files: &BTreeMap<i32, String>) -> Result<(&str, Option<String>), WitnessError> {
    // Returns the offsets of the beginning and the end of the line with a mark, and its path.
    let find = |text: &str, mark: &str| -> Option<(usize, usize, String)> {
        let mut start = 0;
        for line in text.split_inclusive('\n') {
            // Parse only the few lines that contain the text.
            let found = if line.contains(mark) { marked(line) } else { None };
            if let Some(path) = found.filter(|path| path.starts_with(mark)) {
                return Some((start, start + line.len(), path));
            }
            start += line.len();
        }
        None
    };
    let begins = files.values().find_map(|text| Some((text, find(text, BEGIN)?)));
    let (text, (_, begin, mark)) = begins.ok_or(WitnessError::NoBegin)?;
    let lines = text.get(begin..).unwrap_or_default();
    // Behind the end mark the launcher goes on with what is not ours.
    let end = find(lines, END).map_or(lines.len(), |(end, ..)| end);
    let recorder = mark.strip_prefix(BEGIN).and_then(|rest| rest.strip_prefix("/recorder/"));
    Ok((lines.get(..end).unwrap_or_default(), recorder.map(recorders_line)))
}

/// Returns how strace shows the beginning of a write of
/// [`SharedSink`](crate::sys::record::shared::SharedSink). Any other write to the same descriptor is not the
/// recorder's.
fn recorders_line(fd: &str) -> String {
    format!("write({fd}, \"\\n{{\\\"of\\\":[")
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
            if is_interrupted(line) {
                interrupted = Some(line.to_owned());
                continue;
            }
            match parse_line(&resumed(line, interrupted.take())) {
                Some(line) => {
                    let executed = line.reply == Reply::NoReturn;
                    section.push(line);
                    if executed {
                        // What follows is another program's, and so is its end: whoever waits for it will
                        // tell.
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

/// [`LEFT_OUT`], the recorder's writes, and the call in which the process was killed: the recorder writes
/// down what has come back.
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

/// Whether this is the first half of a call that a signal interrupted.
fn is_interrupted(line: &str) -> bool {
    words::split(line).is_some_and(|parts| parts.result.starts_with("? ERESTART"))
}

/// Returns an undeclared line without the environment of an exec. An exec line that cannot be parsed shows
/// its name only.
fn without_environment(line: &str) -> String {
    let Some((name, _)) = line.split_once('(').filter(|(name, _)| name.starts_with("execve")) else {
        return line.to_owned();
    };
    let shown = if name == "execve" { 2 } else { 3 };
    let Some(parts) = words::split(line) else { return format!("{name}(…") };
    let args = parts.args.get(..shown).unwrap_or_default().join(", ");
    format!("{name}({args}, …) = {}", parts.result)
}

/// A call that a signal interrupted and the kernel took up again: the arguments of the first line, and the
/// result of `restart_syscall(<... resuming interrupted poll ...>)`. A call that is made again as it was has
/// a line of its own.
fn resumed(line: &str, interrupted: Option<String>) -> String {
    let parts = interrupted.as_deref().and_then(|first| first.rsplit_once(" = ?"));
    match (line.starts_with("restart_syscall("), parts, line.rsplit_once(" = ")) {
        (true, Some((call, _)), Some((_, result))) => format!("{call} = {result}"),
        _ => line.to_owned(),
    }
}

#[cfg(test)]
mod tests;
