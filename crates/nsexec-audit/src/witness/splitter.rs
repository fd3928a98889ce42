//! Splits the single file of `strace -f`, line by line, into the files that `-ff` would have written.

use std::borrow::ToOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::string::String;

use super::{BEGIN, END, mark_path};

/// Splits lines by process, and keeps those of the run.
///
/// Each line begins with the pid of its process. A line that another process's line interrupts comes in two
/// halves. After the begin mark, the lines of a process after its exec or after the end mark are dropped, and
/// all lines of its later children. The command may run for days.
#[derive(Clone, Debug, Default)]
pub struct Splitter {
    files: BTreeMap<i32, String>,
    halves: BTreeMap<i32, String>,
    begun: bool,
    /// Processes that have executed the command or passed the end mark, and their children.
    left: BTreeSet<i32>,
}

impl Splitter {
    /// Adds one line, without its newline. A line without a pid at its beginning is ignored.
    pub fn line(&mut self, line: &str) {
        let Some((pid, rest)) = line.split_once(' ') else { return };
        let Ok(pid) = pid.parse::<i32>() else { return };
        let rest = rest.trim_start();
        if let Some(first) = rest.strip_suffix(" <unfinished ...>") {
            self.halves.insert(pid, first.to_owned());
            return;
        }
        match rest.strip_prefix("<... ").and_then(|rest| rest.split_once(" resumed>")) {
            Some((_, second)) => {
                let first = self.halves.remove(&pid).unwrap_or_default();
                self.whole(pid, &(first + second));
            }
            None => self.whole(pid, rest),
        }
    }

    fn whole(&mut self, pid: i32, line: &str) {
        if self.left.contains(&pid) {
            if line.starts_with("+++ ") {
                // The pid may be reused.
                self.left.remove(&pid);
            }
            if let Some(child) = made(line) {
                self.left.insert(child);
                self.files.remove(&child);
            }
            return;
        }
        let file = self.files.entry(pid).or_default();
        file.push_str(line);
        file.push('\n');
        let marks = |mark| line.contains(mark) && mark_path(line).is_some_and(|path| path.starts_with(mark));
        if !self.begun {
            self.begun = marks(BEGIN);
        } else if line.starts_with("execve") && line.ends_with(" = 0") || marks(END) {
            self.left.insert(pid);
        }
    }

    /// Returns the files that `-ff` would have written, by pid.
    #[must_use]
    pub fn into_files(self) -> BTreeMap<i32, String> {
        self.files
    }
}

/// Returns the pid of the process that a call created.
fn made(line: &str) -> Option<i32> {
    let call = line.split('(').next()?;
    let (_, result) = line.rsplit_once(" = ")?;
    ["clone", "clone3", "fork", "vfork"].contains(&call).then(|| result.parse().ok()).flatten()
}
