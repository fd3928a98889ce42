//! A recorded launch of a [`Command`]: [`RecordCommand`] and [`Recording`].
//!
//! ```standalone_crate
//! use nsexec::launch::Command;
//! use nsexec::namespace::NsKind;
//! use nsexec_audit::machine::{Machine, PlanCommand};
//! use nsexec_audit::recording::RecordCommand;
//! use nsexec_audit::rules::Severity;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut command = Command::new("true");
//! command.unshare([NsKind::User, NsKind::Uts]).map_root();
//! let (child, recording) = command.record()?;
//! assert!(child?.wait()?.success());
//! // The launch made the planned calls, and broke no rule.
//! let difference = recording.compare(&command.plan(&Machine::here())?);
//! assert!(difference.is_empty(), "{difference}");
//! assert!(recording.check_rules().iter().all(|finding| finding.severity == Severity::Warning));
//! assert!(recording.to_svg().contains("<svg"));
//! # Ok(())
//! # }
//! ```

use std::io;
use std::path::Path;
use std::string::String;
use std::vec::Vec;

use crate::diff::{Diff, compare};
use crate::note::{Values, descriptor_notes};
use crate::plan::Plan;
use crate::record::Recorder;
use crate::record::shared::{SharedReader, SharedSink};
use crate::render::{Document, html, mermaid, saved, svg, text};
use crate::replay::{self, ReplayError, Replayed};
use crate::rules::{self, Facts, Finding};
use crate::sections;
use crate::transcript::{Role, Run};
use nsexec::launch::{Child, Command, LaunchError, Pinned, Prepared};

/// The record of one launch.
#[derive(Clone, Debug)]
pub struct Recording {
    run: Run,
    launch: Prepared,
}

/// Starts a [`Command`] and records the system calls of the launch.
pub trait RecordCommand {
    /// Starts the command as [`Command::spawn`] does, and records every system call up to the exec.
    ///
    /// This process may have other threads, and they may launch and record at the same time: the recorder
    /// neither allocates nor locks in the processes of the launch. Code of [`Command::pre_exec`] must keep to
    /// the same rule. Each process of the launch gets a copy of this memory: [`Command::copy_memory`] is set,
    /// also for later plans of this command. The record is in memory that was mapped before the launch:
    /// neither a limit nor a seccomp filter of the command prevents a line. [`Command::kill_with_parent`]
    /// depends on the calling thread.
    ///
    /// # Errors
    /// [`LaunchError`] in the first part of the result: the launch failed, and the record shows the step.
    ///
    /// [`io::Error`]: nothing was started, or the record cannot be read. Nothing is started:
    /// - if the settings of the command are wrong ([`io::ErrorKind::InvalidInput`], with the [`LaunchError`]
    ///   inside);
    /// - without memory for the record.
    fn record(&mut self) -> io::Result<(Result<Child, LaunchError>, Recording)>;

    /// Pins the namespaces as [`Command::pin`] does, and records every system call of the launch.
    ///
    /// # Errors
    /// Those of [`record`](Self::record).
    fn record_pin(&mut self, directory: &Path) -> io::Result<(Result<Pinned, LaunchError>, Recording)>;
}

impl RecordCommand for Command {
    fn record(&mut self) -> io::Result<(Result<Child, LaunchError>, Recording)> {
        let (sink, reader) = SharedSink::new()?;
        let spawned = self.copy_memory().spawn_through(|sys| Recorder::new(sys, sink));
        let (launched, launch) =
            spawned.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        Ok((launched, Recording::new(&reader, launch)?))
    }

    fn record_pin(&mut self, directory: &Path) -> io::Result<(Result<Pinned, LaunchError>, Recording)> {
        let wrong = |error: LaunchError| io::Error::new(io::ErrorKind::InvalidInput, error);
        let mut launcher = self.launcher().map_err(wrong)?;
        let launch = launcher.prepare_pin(directory).map_err(wrong)?;
        let (sink, reader) = SharedSink::new()?;
        let pinned = launcher.pin_through(directory, |sys| Recorder::new(sys, sink));
        Ok((pinned, Recording::new(&reader, launch)?))
    }
}

impl Recording {
    fn new(reader: &SharedReader, launch: Prepared) -> io::Result<Self> {
        let mut run = sections::of_record(&reader.read()?, Role::Launcher);
        run.notes.extend([rules::message_note(launch.message())]);
        run.notes.extend(descriptor_notes(&launch));
        Ok(Self { run, launch })
    }

    /// Returns the calls of each process.
    #[must_use]
    pub const fn run(&self) -> &Run {
        &self.run
    }

    /// Returns the number of lines that could not be recorded: the record is full, or there is no memory.
    #[must_use]
    pub const fn lost(&self) -> u64 {
        self.run.lost
    }

    /// Returns the first difference of each process between the plan and the record, after both are
    /// normalised ([`normalise`](mod@crate::normalise)).
    #[must_use]
    pub fn compare(&self, plan: &Plan) -> Diff {
        compare(&plan.run, &self.run)
    }

    /// Returns the rules that the launch broke ([`rules`]).
    #[must_use]
    pub fn check_rules(&self) -> Vec<Finding> {
        rules::check(&self.run, &Facts::of(&self.run, *self.launch.policy()))
    }

    /// Runs the launch again with the recorded replies and without a kernel: it makes the same calls, and
    /// ends with the same error.
    ///
    /// # Errors
    /// [`ReplayError`]: the record has no launcher.
    pub fn replay(&self) -> Result<Replayed, ReplayError> {
        replay::replay(&replay::keep(&self.run, &self.launch, Values::LeftOut))
    }

    /// Returns the record as text: each call of each process with its reason.
    #[must_use]
    pub fn to_text(&self, look: text::Look) -> String {
        self.show(|document| text::text(document, look))
    }

    /// Returns the record as a sequence diagram in mermaid's language.
    #[must_use]
    pub fn to_mermaid(&self) -> String {
        self.show(mermaid::mermaid)
    }

    /// Returns the record as a self-contained HTML page.
    #[must_use]
    pub fn to_html(&self) -> String {
        self.show(html::html)
    }

    /// Returns the record as an SVG picture.
    #[must_use]
    pub fn to_svg(&self) -> String {
        self.show(svg::svg)
    }

    /// Returns the record as JSON lines, which can be replayed on another machine. The values of the
    /// command's environment are left out.
    ///
    /// # Errors
    /// Never in practice: each value can be written.
    pub fn to_json(&self) -> serde_json::Result<String> {
        replay::keep(&self.run, &self.launch, Values::LeftOut).to_json_lines()
    }

    fn show<T>(&self, show: impl FnOnce(&Document<'_>) -> T) -> T {
        saved::of_launch(&self.run, Some(&self.launch), show)
    }
}
