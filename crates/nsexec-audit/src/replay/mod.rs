//! Replays a run of another machine. The recorded launch runs again in each of its processes, with the
//! replies of the record and without a kernel. If it makes the recorded calls, it ends with the same error.
//!
//! A record contains calls and replies, but not the request. [`keep`] adds the request as the note [`JOB`],
//! so that the file is sufficient. It also removes the values of the command's environment from the note and
//! from the calls, since a record is made to be shared. A variable becomes `NAME=…`, and a replay compares
//! that. The arguments of the command stay. With [`Values::Whole`] everything stays.
//!
//! A record of an older program, whose note does not state the shape of the start, replays through the
//! stages.
//!
//! A process begins as a copy of its parent. So its replay begins with the launcher's first line: it uses the
//! replies of its ancestors, each up to the clone, and then its own.

use core::fmt;

use std::string::{String, ToString};
use std::vec;
use std::vec::Vec;

use super::sections::{children, is_made_by_launcher};
use super::transcript::{End, Role, Run, Section};
use crate::note::{self, NoteError, Values};
use crate::record::{AnySys, Call, Line, Mismatch, Reply, play_back};
use nsexec::bootstrap::MESSAGE_MAX;
use nsexec::launch::script::Launched;
use nsexec::launch::shape::Memory;
use nsexec::launch::shared::Stack;
use nsexec::launch::{Collector, LaunchError, Prepared};

/// The name of the note with the request.
pub const JOB: &str = "job";

/// The exit status of a replay in which a process diverged from its record.
pub const DIVERGED: u8 = 3;

/// Returns the record of `job` in a form that can be replayed elsewhere, and shared.
#[must_use]
pub fn keep(run: &Run, job: &Prepared, values: Values) -> Run {
    let mut run = run.clone();
    run.notes.insert(JOB.into(), note::write(job, values));
    if values == Values::LeftOut { run.without_values() } else { run }
}

/// The result of a replay.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Replayed {
    /// The processes, in the order of the record.
    pub processes: Vec<ReplayedProcess>,
    /// The error that prevented the start of the command. `None` if it was started, or if the launcher
    /// diverged.
    pub error: Option<LaunchError>,
    /// The number of lines that the recorder could not write. A process may diverge where they are missing.
    pub lost: u64,
}

/// One process of a replay.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplayedProcess {
    /// The role.
    pub role: Role,
    /// The name of its section.
    pub name: String,
    /// The result.
    pub outcome: Outcome,
}

/// The result of one process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It made the calls of its section, and ended as recorded.
    Agrees {
        /// The number of these calls.
        calls: usize,
    },
    /// It diverged from the record.
    Diverges {
        /// The line.
        at: Place,
        /// The kind of divergence.
        how: Divergence,
    },
    /// The record ends, and the process continues.
    Ends {
        /// The last recorded line.
        at: Place,
        /// The next call of the process, if it made one.
        made: Option<Call>,
    },
}

/// A line of a record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// The section: that of the process, or of one of its ancestors.
    pub section: String,
    /// The number of the line, from 1; 0 is before the first.
    pub line: usize,
}

/// The way in which a process diverged from its record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Divergence {
    /// It made another call.
    Call {
        /// The recorded call.
        recorded: Call,
        /// The call that it made.
        made: Call,
    },
    /// The recorded reply is not possible for this call.
    Reply {
        /// The line.
        recorded: Line,
    },
    /// It ended before the call of this line.
    Left {
        /// The line.
        recorded: Line,
    },
    /// It ended in another way.
    End {
        /// The recorded end.
        recorded: End,
        /// The end in the replay.
        replayed: End,
    },
    /// No recorded process created it.
    Unmade,
}

/// The reasons why a record cannot be replayed.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ReplayError {
    /// It has no note with the request.
    NoJob,
    /// It has no launcher.
    NoLauncher,
    /// This program cannot parse the note with the request.
    Job(NoteError),
}

impl fmt::Display for ReplayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoJob => write!(f, "the record has no note `{JOB}`, which describes the launch"),
            Self::NoLauncher => f.write_str("the record has no launcher"),
            Self::Job(error) => write!(f, "the record's note `{JOB}`: {error}"),
        }
    }
}

impl core::error::Error for ReplayError {}

/// Replays every process of a run.
///
/// # Errors
/// [`ReplayError`] if the run has no valid note with the request, or no launcher.
pub fn replay(run: &Run) -> Result<Replayed, ReplayError> {
    let job = run.notes.get(JOB).ok_or(ReplayError::NoJob)?;
    let job = note::read(job).map_err(ReplayError::Job)?;
    if run.section(Role::Launcher).is_none() {
        return Err(ReplayError::NoLauncher);
    }
    let sharing = memory_of(run);
    let mut replayed = Replayed { processes: Vec::new(), error: None, lost: run.lost };
    for section in &run.sections {
        let outcome = match Lineage::of(run, section) {
            Some(lineage) => process((&job, sharing), section, &lineage, &mut replayed.error),
            None => {
                let at = Place { section: section.name.clone(), line: 0 };
                Outcome::Diverges { at, how: Divergence::Unmade }
            }
        };
        replayed.processes.push(ReplayedProcess { role: section.role, name: section.name.clone(), outcome });
    }
    replayed.processes.extend(missing(run));
    Ok(replayed)
}

impl Replayed {
    /// Returns whether every process made the recorded calls.
    #[must_use]
    pub fn agrees(&self) -> bool {
        self.processes.iter().all(|process| matches!(process.outcome, Outcome::Agrees { .. }))
    }

    /// Returns the exit status of the launch: 0 if the command was started, else that of its error.
    /// [`DIVERGED`] if a process diverged.
    #[must_use]
    pub fn status(&self) -> u8 {
        match &self.error {
            _ if !self.agrees() => DIVERGED,
            None => 0,
            Some(error) => u8::try_from(error.exit_code()).unwrap_or(1),
        }
    }
}

/// The lines of a process, after those of its ancestors.
struct Lineage<'r> {
    lines: Vec<Line>,
    /// The index at which each section's lines begin.
    begins: Vec<(usize, &'r Section)>,
}

impl<'r> Lineage<'r> {
    fn of(run: &'r Run, section: &'r Section) -> Option<Self> {
        let mut lineage = Self { lines: Vec::new(), begins: Vec::new() };
        if section.role != Role::Launcher {
            let maker = run.section(creator(run, section)?)?;
            let made = children(maker).into_iter().find(|(_, role, _)| *role == section.role);
            // A parent that was killed in its clone has no line of it.
            let len = made.map_or(maker.lines.len(), |(index, ..)| index);
            lineage = Self::of(run, maker)?;
            lineage.lines.truncate(lineage.own() + len);
        }
        lineage.begins.push((lineage.lines.len(), section));
        lineage.lines.extend_from_slice(&section.lines);
        Some(lineage)
    }

    /// Returns the index at which the process's own lines begin.
    fn own(&self) -> usize {
        self.begins.last().map_or(0, |(begin, _)| *begin)
    }

    fn place(&self, index: usize) -> Place {
        let (begin, section) =
            self.begins.iter().rfind(|(begin, _)| *begin <= index).unwrap_or(&self.begins[0]);
        Place { section: section.name.clone(), line: index - begin + 1 }
    }

    fn diverges(&self, index: usize, how: Divergence) -> Outcome {
        Outcome::Diverges { at: self.place(index), how }
    }
}

/// Returns the role of the process that created another one. `None`: no process of the protocol did.
fn creator(run: &Run, section: &Section) -> Option<Role> {
    match section.role {
        Role::Launcher => None,
        Role::Stage(0) => Some(Role::Launcher),
        Role::Tool(_) => Some(Role::Stage(0)),
        // The init of a direct start, or stage 1 of a start through a child.
        role if is_made_by_launcher(run, role) => Some(Role::Launcher),
        Role::Stage(number) => Some(Role::Stage(number - 1)),
        Role::Other(_) => None,
    }
}

/// Returns how the process of a direct start shared the memory; `None` if it had a copy. The choice depends
/// on the launcher's ids and capabilities, which the record does not contain. The clone's line of either process
/// shows whether it shared the memory, and a line of the launcher whether that made itself not dumpable.
fn memory_of(run: &Run) -> Option<Memory> {
    let mut lines = run.sections.iter().flat_map(|section| &section.lines);
    let launcher = run.section(Role::Launcher).map_or(&[][..], |launcher| &launcher.lines);
    let hides = |line: &Line| matches!(line.call, Call::SetDumpable { dumpable: false });
    lines.any(|line| matches!(line.call, Call::CloneInit { shared: true, .. })).then(|| {
        match launcher.iter().any(hides) {
            true => Memory::SharedNotDumpable,
            false => Memory::Shared,
        }
    })
}

/// Runs the job as one process of the record. A launch error of the launcher is stored in `error`.
fn process(
    (job, sharing): (&Prepared, Option<Memory>),
    section: &Section,
    lineage: &Lineage<'_>,
    error: &mut Option<LaunchError>,
) -> Outcome {
    let lines = &lineage.lines;
    let last = || Place { section: section.name.clone(), line: section.lines.len() };
    let simulated = Stack::simulated().hiding(sharing == Some(Memory::SharedNotDumpable));
    let stack = sharing.is_some().then_some(&simulated);
    // Room for any message, as in the launch itself.
    let mut memory = vec![0; MESSAGE_MAX];
    let mut failed = None;
    let end = play_back(lines, |sys| {
        let mut log = Collector::default();
        match job.run(&mut AnySys(sys), &mut memory, stack, &mut log) {
            Launched::Started { .. } => None,
            Launched::Failed(failure) => {
                failed = Some(job.explain(failure, log.into_fatal()));
                None
            }
            Launched::Exit(status) => Some(status),
        }
    });
    let recorded = |index: usize| lines[index].clone();
    match end.map_err(|misfit| *misfit) {
        Ok(status) => {
            let replayed = status.map_or(End::Unknown, End::Exited);
            let launcher = section.role == Role::Launcher;
            // A signal may still follow the last call. The end of the launcher is not recorded.
            let same = match section.end {
                End::Unknown | End::Signaled(_) => true,
                end => launcher || end == replayed,
            };
            if !same || launcher != status.is_none() {
                let how = Divergence::End { recorded: section.end, replayed };
                return Outcome::Diverges { at: last(), how };
            }
            if launcher {
                *error = failed;
            }
            Outcome::Agrees { calls: section.lines.len() }
        }
        Err(Mismatch::Exec) => Outcome::Agrees { calls: section.lines.len() },
        Err(Mismatch::ExtraCall { .. }) if matches!(section.end, End::Signaled(_)) => {
            Outcome::Agrees { calls: section.lines.len() }
        }
        Err(Mismatch::ExtraCall { made }) if supervises(section, &made) => {
            Outcome::Agrees { calls: section.lines.len() }
        }
        Err(Mismatch::ExtraCall { made }) => Outcome::Ends { at: last(), made: Some(made) },
        Err(Mismatch::Other { line, recorded, made }) => {
            lineage.diverges(line, Divergence::Call { recorded, made })
        }
        Err(Mismatch::InvalidReply { line }) => {
            lineage.diverges(line, Divergence::Reply { recorded: recorded(line) })
        }
        Err(Mismatch::EndedEarly { line }) => {
            lineage.diverges(line, Divergence::Left { recorded: recorded(line) })
        }
    }
}

/// Returns whether the process is a minimal init that supervises the command. A record may end before the
/// command does.
fn supervises(section: &Section, made: &Call) -> bool {
    let waits = |call: &Call| matches!(call, Call::WaitSignal { .. });
    section.end == End::Unknown && (waits(made) || section.lines.iter().any(|line| waits(&line.call)))
}

/// Returns the processes that were created and have no section, unless a signal ended them before their first
/// call.
fn missing(run: &Run) -> Vec<ReplayedProcess> {
    let lines = || run.sections.iter().flat_map(|section| &section.lines);
    let killed = |pid| {
        lines().any(|line| match line.reply {
            Reply::Waited(waited) => waited.pid == pid && matches!(waited.status.into(), End::Signaled(_)),
            _ => false,
        })
    };
    let made = run.sections.iter().flat_map(children);
    let missing = made.filter(|(_, role, pid)| run.section(*role).is_none() && !killed(*pid));
    let ends = missing.map(|(_, role, _)| {
        let name = Section::new(role).name;
        let at = Place { section: name.clone(), line: 0 };
        ReplayedProcess { role, name, outcome: Outcome::Ends { at, made: None } }
    });
    ends.collect()
}

impl fmt::Display for ReplayedProcess {
    /// Writes `stage-1 child: agrees (40 calls)`, or the divergence, with the calls on lines of their own.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, outcome, .. } = self;
        write!(f, "{}: ", OneLine(name))?;
        match outcome {
            Outcome::Agrees { calls: 1 } => f.write_str("agrees (1 call)"),
            Outcome::Agrees { calls } => write!(f, "agrees ({calls} calls)"),
            Outcome::Diverges { at, .. } if at.section != *name => {
                write!(f, "not reached, since {} diverges at line {}", OneLine(&at.section), at.line)
            }
            Outcome::Diverges { at, how } => how.describe(f, at.line),
            Outcome::Ends { made: None, .. } => f.write_str("the record ends here, before its first call"),
            Outcome::Ends { at, made: Some(made) } => {
                write!(f, "the record ends here, after line {}\n  now:      {made}", at.line)
            }
        }
    }
}

/// A name from a file, made safe for a terminal.
struct OneLine<'t>(&'t str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |c: char| if nsexec::bootstrap::text::is_invisible(c) { '\u{fffd}' } else { c };
        f.write_str(&self.0.chars().map(shown).collect::<String>())
    }
}

impl Divergence {
    fn describe(&self, f: &mut fmt::Formatter<'_>, line: usize) -> fmt::Result {
        match self {
            Self::Call { recorded, made } => {
                write!(f, "diverges at line {line}\n  recorded: {recorded}\n  now:      {made}")?;
                // The text of an exec shows only the size of the environment.
                let unseen = recorded.to_string() == made.to_string();
                f.write_str(if unseen { "\n  (they differ in the environment)" } else { "" })
            }
            Self::Reply { recorded } => {
                write!(
                    f,
                    "diverges at line {line}, where the reply is not possible for this call\n  recorded: {recorded}"
                )
            }
            Self::Left { recorded } => {
                write!(f, "diverges at line {line}, before which it ends now\n  recorded: {recorded}")
            }
            Self::End { recorded, replayed } => {
                write!(f, "diverges after line {line}\n  recorded: {recorded}\n  now:      {replayed}")
            }
            Self::Unmade => f.write_str("no process of the record created it"),
        }
    }
}

#[cfg(test)]
mod tests;
