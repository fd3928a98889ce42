//! What `strace -f` writes into one file, line by line: for each process what `-ff` would have written.

use std::borrow::ToOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::string::String;

use super::{BEGIN, END, marked};

/// Takes the lines as they come, and keeps those that matter.
///
/// Each line begins with its process, and a call that another process interrupted in print comes in two halves. Once a run
/// has begun, what a process does after its exec, or behind the end mark, is not kept, and no process that it makes: the
/// command may run for days.
#[derive(Clone, Debug, Default)]
pub struct Intake {
    files: BTreeMap<i32, String>,
    halves: BTreeMap<i32, String>,
    begun: bool,
    /// Processes that are not ours any more.
    left: BTreeSet<i32>,
}

impl Intake {
    /// Takes one line, without its newline. A line that begins with no process is strace's own.
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
                // The number may come again.
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
        let marks = |mark| line.contains(mark) && marked(line).is_some_and(|path| path.starts_with(mark));
        if !self.begun {
            self.begun = marks(BEGIN);
        } else if line.starts_with("execve") && line.ends_with(" = 0") || marks(END) {
            self.left.insert(pid);
        }
    }

    /// What `-ff` would have written, by process.
    #[must_use]
    pub fn into_files(self) -> BTreeMap<i32, String> {
        self.files
    }
}

/// The process that a call made.
fn made(line: &str) -> Option<i32> {
    let call = line.split('(').next()?;
    let (_, result) = line.rsplit_once(" = ")?;
    ["clone", "clone3", "fork", "vfork"].contains(&call).then(|| result.parse().ok()).flatten()
}
