//! A run: the transcripts of its processes, in a fixed order, and how each process ended.
//!
//! As JSON lines it is a header, then for each process a line that names it, followed by one line for each
//! call. The call lines and the version are those of [`record`](mod@crate::record).

use core::fmt;

use std::collections::BTreeMap;
use std::string::{String, ToString};
use std::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::record::{self, Call, Line, Reply, SCHEMA};
use nsexec::sys::types::{Signal, WaitStatus};

/// The origin of a run.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The simulated kernel: the expected calls.
    Planned,
    /// The recorder, around the real kernel: the calls as the program reports them.
    #[default]
    Recorded,
    /// strace: the calls as an independent observer saw them.
    Witnessed,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Planned => "plan",
            Self::Recorded => "record",
            Self::Witnessed => "witness",
        })
    }
}

/// A process of a run. The order is that of the sections.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The process that started stage 0.
    Launcher,
    /// Stage 0, 1 or 2.
    Stage(u8),
    /// A mapping tool: the number of the child of stage 0, from 0.
    Tool(u8),
    /// A process that the protocol does not have, numbered in order of appearance.
    Other(u8),
}

impl Role {
    /// Returns the role of a process that this one creates. `tools` is the number of mapping tools before it.
    /// `None`: the protocol has no such process.
    ///
    /// A sibling is the next stage. The launcher's child is stage 0, stage 1 in a start through a child, or
    /// the init of a direct start. A child of stage 0 is a mapping tool. The child of stage 2 executes
    /// the command of a minimal init.
    #[must_use]
    pub const fn creates(self, call: &Call, tools: u8) -> Option<Self> {
        match (self, call) {
            (Self::Launcher, Call::Fork { .. }) => Some(Self::Stage(0)),
            (Self::Launcher, Call::CloneChild { .. }) => Some(Self::Stage(1)),
            (Self::Launcher, Call::CloneInit { .. }) => Some(Self::Stage(2)),
            (Self::Stage(number), Call::CloneSibling { .. }) => Some(Self::Stage(number.saturating_add(1))),
            (Self::Stage(2), Call::Fork { .. }) => Some(Self::Stage(3)),
            (Self::Stage(0), Call::Fork { .. }) => Some(Self::Tool(tools)),
            // The launcher of a start in place, which the rules check as stage 1.
            (Self::Stage(1), Call::Fork { .. }) => Some(Self::Stage(0)),
            _ => None,
        }
    }

    /// Returns whether the process is a mapping tool.
    #[must_use]
    pub const fn is_tool(self) -> bool {
        matches!(self, Self::Tool(_))
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Launcher => f.pad("launcher"),
            Self::Stage(0) => f.pad("stage-0 parent"),
            Self::Stage(1) => f.pad("stage-1 child"),
            Self::Stage(2) => f.pad("stage-2 init"),
            Self::Stage(3) => f.pad("command of the init"),
            Self::Stage(number) => write!(f, "stage-{number}"),
            Self::Tool(_) => f.pad("mapping tool"),
            Self::Other(number) => write!(f, "process {number}"),
        }
    }
}

/// How a process ended, if the run shows it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// The run does not show it.
    #[default]
    Unknown,
    /// It exited with this status.
    Exited(i32),
    /// A signal ended it.
    Signaled(Signal),
    /// It executed another program.
    Executed,
    /// It returned to its caller: stage 2 of a runtime.
    HandedOver,
}

impl From<WaitStatus> for End {
    fn from(status: WaitStatus) -> Self {
        match status {
            WaitStatus::Exited(code) => Self::Exited(code),
            WaitStatus::Signaled(signal) => Self::Signaled(signal),
            WaitStatus::Stopped(_) | WaitStatus::Other(_) => Self::Unknown,
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("unknown"),
            Self::Exited(code) => write!(f, "exit {code}"),
            Self::Signaled(signal) => write!(f, "killed by {signal}"),
            Self::Executed => f.write_str("executes the command"),
            Self::HandedOver => f.write_str("hands over"),
        }
    }
}

/// A call that the bootstrap does not make, as the witness wrote it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Foreign {
    /// The number of the section's lines before it.
    pub after: usize,
    /// strace's line.
    pub text: String,
}

/// The lines of one process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Section {
    /// The process.
    pub role: Role,
    /// The role's name. For a mapping tool, the program's name follows.
    pub name: String,
    /// Its calls, in order.
    pub lines: Vec<Line>,
    /// How it ended.
    pub end: End,
    /// Undeclared calls that a witness saw. Empty in a plan and in a record.
    pub foreign: Vec<Foreign>,
}

impl Section {
    /// Returns a section without calls.
    #[must_use]
    pub fn new(role: Role) -> Self {
        Self { role, name: role.to_string(), lines: Vec::new(), end: End::Unknown, foreign: Vec::new() }
    }

    /// Adds a line, as [`record::push`].
    pub fn push(&mut self, line: Line) {
        record::push(&mut self.lines, line);
    }
}

/// A run: its processes, launcher first, then the stages, then the mapping tools.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Run {
    /// The origin.
    pub origin: Origin,
    /// The number of lines that the recorder could not write.
    pub lost: u64,
    /// Further information by name: a plan's assumptions, the machine of a record. A comparison uses only
    /// [`INTERRUPT`](super::normalise::INTERRUPT) and [`TIMER`](super::normalise::TIMER).
    pub notes: BTreeMap<String, String>,
    /// The processes.
    pub sections: Vec<Section>,
}

/// The first line of a run as JSON lines.
#[derive(Serialize, Deserialize)]
struct Header {
    schema: u32,
    run: Origin,
    #[serde(default)]
    lost: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    notes: BTreeMap<String, String>,
}

/// The line that opens a section.
#[derive(Serialize, Deserialize)]
struct Opening {
    section: String,
    role: Role,
    end: End,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    foreign: Vec<Foreign>,
}

/// The reason why a text is not a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReadError {
    /// The line, from 1.
    pub line: usize,
    /// The fault.
    pub reason: String,
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.reason)
    }
}

impl core::error::Error for ReadError {}

impl Run {
    /// Returns the section of a process, if it exists.
    #[must_use]
    pub fn section(&self, role: Role) -> Option<&Section> {
        self.sections.iter().find(|section| section.role == role)
    }

    /// Returns the sections of the processes that can become the command, the last one first. With a minimal
    /// init its child executes the command, and in a start in place the launcher does.
    pub(crate) fn of_command(&self) -> impl Iterator<Item = &Section> {
        [Role::Stage(3), Role::Stage(2), Role::Launcher].into_iter().filter_map(|role| self.section(role))
    }

    /// Returns whether the launch has left namespaces without a process: the launcher mounted them on files,
    /// and stage 2 ended by itself.
    #[must_use]
    pub fn pins_namespaces(&self) -> bool {
        let mounts = |line: &Line| matches!((&line.call, &line.reply), (Call::MoveMount { .. }, Reply::Unit));
        let mounted = self.section(Role::Launcher).is_some_and(|launcher| launcher.lines.iter().any(mounts));
        let ended = self.section(Role::Stage(2)).is_some_and(|last| last.end == End::Exited(0));
        mounted && ended && self.section(Role::Stage(3)).is_none()
    }

    /// Returns the run with the names of the environment variables only. Values may be secrets.
    #[must_use]
    pub fn without_values(mut self) -> Self {
        let lines = self.sections.iter_mut().flat_map(|section| &mut section.lines);
        lines.for_each(|line| line.call.remove_values());
        self
    }

    /// Returns the run as JSON lines.
    ///
    /// # Errors
    /// Two sections have the same role. [`Run::from_json_lines`] would refuse the text.
    pub fn to_json_lines(&self) -> Result<String, serde_json::Error> {
        for (index, section) in self.sections.iter().enumerate() {
            if self.sections.iter().take(index).any(|before| before.role == section.role) {
                let role = section.role;
                return Err(serde::ser::Error::custom(format_args!(
                    "the run cannot be written: two sections have the role {role}"
                )));
            }
        }
        let header = Header { schema: SCHEMA, run: self.origin, lost: self.lost, notes: self.notes.clone() };
        let mut text = serde_json::to_string(&header)? + "\n";
        for section in &self.sections {
            let Section { role, name, end, foreign, .. } = section;
            let opening = Opening { section: name.clone(), role: *role, end: *end, foreign: foreign.clone() };
            text.push_str(&serde_json::to_string(&opening)?);
            text.push('\n');
            for line in &section.lines {
                text.push_str(&serde_json::to_string(line)?);
                text.push('\n');
            }
        }
        Ok(text)
    }

    /// Parses a run from JSON lines.
    ///
    /// # Errors
    /// [`ReadError`] for the first line that does not belong to a run, or for a run of another schema.
    pub fn from_json_lines(text: &str) -> Result<Self, ReadError> {
        let refused = |line, reason: &dyn fmt::Display| ReadError { line, reason: reason.to_string() };
        let mut lines = (1..).zip(text.lines());
        let (_, first) = lines.next().ok_or(refused(1, &"an empty text is not a run"))?;
        // The version is checked first: another version may have a different format.
        let record::Version { schema } = serde_json::from_str(first).map_err(|error| refused(1, &error))?;
        if schema != SCHEMA {
            let why = std::format!("schema {schema} of a run; this program reads {SCHEMA}");
            return Err(refused(1, &why));
        }
        let header: Header = serde_json::from_str(first).map_err(|error| refused(1, &error))?;
        let Header { run: origin, lost, notes, .. } = header;
        let mut run = Self { origin, lost, notes, sections: Vec::new() };
        for (number, line) in lines {
            let value: serde_json::Value =
                serde_json::from_str(line).map_err(|error| refused(number, &error))?;
            if value.get("section").is_some() {
                let Opening { section: name, role, end, foreign } =
                    serde_json::from_value(value).map_err(|error| refused(number, &error))?;
                // Searches for a role would find only one of the two.
                if run.section(role).is_some() {
                    return Err(refused(number, &std::format!("a second section of the {role}")));
                }
                run.sections.push(Section { role, name, lines: Vec::new(), end, foreign });
            } else {
                let line = serde_json::from_value(value).map_err(|error| refused(number, &error))?;
                let section = run.sections.last_mut();
                section.ok_or(refused(number, &"a call before the first section"))?.lines.push(line);
            }
        }
        Ok(run)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Call, Reply};
    use nsexec::sys::types::Pid;

    #[test]
    fn run_survives_a_json_round_trip() {
        let mut run = Run { lost: 2, ..Run::default() };
        run.notes.insert("machine".into(), "x86_64".into());
        for role in [Role::Launcher, Role::Stage(0), Role::Tool(1)] {
            let mut section = Section::new(role);
            section.push(Line { call: Call::Getpid, reply: Reply::Pid(Pid(7)) });
            section.end = End::Signaled(Signal::KILL);
            section.foreign.push(Foreign { after: 1, text: "uname(…)".into() });
            run.sections.push(section);
        }
        let text = run.to_json_lines().unwrap();
        assert!(text.starts_with("{\"schema\":1,\"run\":\"recorded\",\"lost\":2,"), "{text}");
        assert!(text.contains("\n{\"section\":\"stage-0 parent\",\"role\":{\"stage\":0},"), "{text}");
        assert_eq!(Run::from_json_lines(&text).unwrap(), run);
    }

    #[test]
    fn invalid_run_text_is_rejected_with_its_line_number() {
        const LAUNCHER: &str = "{\"section\":\"a\",\"role\":\"launcher\",\"end\":\"unknown\"}\n";
        let header = "{\"schema\":1,\"run\":\"planned\"}\n";
        // A later version may have another format after the version number.
        let later = Run::from_json_lines("{\"schema\":2,\"run\":{\"of\":\"something else\"}}").unwrap_err();
        assert!(later.reason.starts_with("schema 2 of a run"), "{later}");
        for (text, line) in [
            (String::new(), 1),
            ("{\"schema\":9,\"run\":\"planned\"}".into(), 1),
            (header.to_string() + LAUNCHER + LAUNCHER, 3),
            (header.to_string() + "{\"call\":\"setsid\",\"reply\":\"unit\"}", 2),
            (header.to_string() + LAUNCHER + "x", 3),
        ] {
            assert_eq!(Run::from_json_lines(&text).unwrap_err().line, line, "{text}");
        }
    }
}
