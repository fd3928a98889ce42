//! The state of a process at the moment when it becomes the command, read from the kernel, and the comparison
//! with the plan: [`AttestCommand`].
//!
//! ```standalone_crate
//! use nsexec::launch::Command;
//! use nsexec::namespace::NsKind;
//! use nsexec_audit::attest::AttestCommand;
//! use nsexec_audit::machine::{Machine, PlanCommand};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut command = Command::new("true");
//! command.unshare([NsKind::User, NsKind::Net]).map_root().no_new_privs();
//! let (mut child, attestation) = command.spawn_attested()?;
//! assert!(child.wait()?.success());
//! assert!(attestation.found.no_new_privs);
//! assert_eq!(attestation.compare(&command.plan_attested(&Machine::here())?), []);
//! # Ok(())
//! # }
//! ```

use core::fmt;
use std::collections::BTreeMap;
use std::format;
use std::io;
use std::string::{String, ToString};
use std::sync::Arc;
use std::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::machine::{Machine, PlanCommand};
use crate::plan::{Plan, PlanError, directory};
pub use crate::state::{Capabilities, Expected, FileId, Origin, State};
use nsexec::error::Code;
use nsexec::launch::{Child, Command, LaunchError};

mod hand_over;
mod read;

/// The state of a process that was about to execute the command, with the state of the process that launched
/// it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Attestation {
    /// The state of the new process.
    pub found: State,
    /// The state of this process at that time.
    pub caller: State,
    /// The namespaces that the launch joins, by kind.
    pub joined: BTreeMap<String, FileId>,
    /// The absolute path of the working directory that the launch sets, and the directory of that path in the
    /// root directory of the new process.
    pub set_directory: Option<(String, FileId)>,
}

/// A part of the state that is not the planned one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Deviation {
    /// The part: the name of the field of [`State`], for namespaces with the kind.
    pub part: String,
    /// The planned value.
    pub planned: String,
    /// The value that the kernel shows.
    pub found: String,
}

impl fmt::Display for Deviation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: planned {}, found {}", self.part, self.planned, self.found)
    }
}

/// The failure of an attested launch.
#[derive(Debug)]
#[non_exhaustive]
pub enum AttestError {
    /// The command was not started.
    Launch(LaunchError),
    /// The state could not be read. The command was killed.
    Read(io::Error),
}

impl fmt::Display for AttestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Launch(error) => error.fmt(f),
            Self::Read(error) => write!(f, "failed to read the state of the new process: {error}"),
        }
    }
}

impl core::error::Error for AttestError {}

/// Starts a [`Command`] and attests the state of its process.
pub trait AttestCommand {
    /// Starts the command as [`Command::spawn`] does, and reads the state of its process from the kernel
    /// while the process waits, right before it installs its seccomp filter and executes the command. The
    /// exec itself then changes the capabilities (capabilities(7)), and closes the descriptors that are
    /// close-on-exec.
    ///
    /// The process waits in a function of [`Command::pre_exec`], after the others, so the launch has the
    /// calls of [`plan_attested`](Self::plan_attested).
    ///
    /// # Errors
    /// [`AttestError`]. No process is left. `EACCES` in [`AttestError::Read`]: a process that joins
    /// namespaces, or has an [`init`](Command::init), is not dumpable up to its exec. Only a caller with
    /// CAP_SYS_PTRACE can read its state.
    fn spawn_attested(&self) -> Result<(Child, Attestation), AttestError>;

    /// Plans what [`spawn_attested`](Self::spawn_attested) does.
    ///
    /// # Errors
    /// Those of [`PlanCommand::plan`].
    fn plan_attested(&self, machine: &Machine) -> Result<Plan, PlanError>;
}

impl AttestCommand for Command {
    fn spawn_attested(&self) -> Result<(Child, Attestation), AttestError> {
        let prepared = self.prepare().map_err(AttestError::Launch)?;
        let joined = read::joined(prepared.message(), prepared.policy().dialect);
        let directory = directory(&prepared);
        // No descriptor of the command takes the number of the process's end.
        let least = prepared.moves.iter().map(|one| one.number.0.saturating_add(1)).max().unwrap_or_default();
        drop(prepared);
        let (waiting, reader) = hand_over::pair(least).map_err(AttestError::Read)?;
        let waiting = Arc::new(waiting);
        let mut command = self.clone();
        let in_process = Arc::clone(&waiting);
        // SAFETY: the function makes two system calls, and uses no memory but its own.
        unsafe { command.pre_exec(move || in_process.wait()) };
        let thread = std::thread::spawn(move || reader.attest(joined, directory));
        let spawned = command.spawn();
        // Ends the wait of the reader if the process did not reach its last step.
        waiting.hang_up();
        let attested = thread.join().unwrap_or_else(|_| Err(io::Error::other("the reading thread panicked")));
        match (spawned, attested) {
            (Ok(child), Ok(attestation)) => Ok((child, attestation)),
            (Ok(mut child), Err(error)) => {
                // ESRCH and others: the command has ended by itself.
                let _ = child.kill();
                let _ = child.wait();
                Err(AttestError::Read(error))
            }
            // The launch failed because the reader did not let the process continue.
            (Err(launch), Err(error))
                if in_function(&launch) && error.kind() != io::ErrorKind::UnexpectedEof =>
            {
                Err(AttestError::Read(error))
            }
            (Err(error), _) => Err(AttestError::Launch(error)),
        }
    }

    fn plan_attested(&self, machine: &Machine) -> Result<Plan, PlanError> {
        let mut command = self.clone();
        // SAFETY: a plan does not run the function.
        unsafe { command.pre_exec(|| Ok(())) };
        command.plan(machine)
    }
}

/// Returns whether a function before the exec has failed.
fn in_function(error: &LaunchError) -> bool {
    error.step().is_some_and(|(code, _)| code == Code::CodeOfCaller)
}

impl Attestation {
    /// Returns each part of the [`State`] that is not the planned one. Limits, cgroups, keyrings, filters and
    /// rule sets are not parts of it. The plan must be that of
    /// [`AttestCommand::plan_attested`]: another one expects nothing, which is reported too.
    #[must_use]
    pub fn compare(&self, plan: &Plan) -> Vec<Deviation> {
        match &plan.expected {
            Some(expected) => self.deviations(expected),
            None => {
                [deviation("state", "a launch that does not come to its last step", "one that does")].into()
            }
        }
    }

    /// Returns each part of the state that is not the expected one.
    #[must_use]
    pub fn deviations(&self, expected: &Expected) -> Vec<Deviation> {
        let (found, caller) = (&self.found, &self.caller);
        let mut parts = Vec::new();
        let mut check = |part: &str, planned: String, found: String| {
            if planned != found {
                parts.push(Deviation { part: part.to_string(), planned, found });
            }
        };
        for (kind, id) in &found.namespaces {
            let planned = expected.namespaces.get(kind).copied().unwrap_or(Origin::Caller);
            check(
                &format!("namespace {kind}"),
                format!("{planned:?}"),
                format!("{:?}", self.origin(kind, *id)),
            );
        }
        let list = |numbers: &[u32]| format!("{numbers:?}");
        check("user_ids", list(&expected.user_ids), list(&found.user_ids));
        check("group_ids", list(&expected.group_ids), list(&found.group_ids));
        check("groups", list(expected.groups.as_ref().unwrap_or(&caller.groups)), list(&found.groups));
        let mut planned = expected.capabilities;
        if expected.bounded_by_caller {
            planned.bounding &= caller.capabilities.bounding;
        }
        check("capabilities", planned.to_string(), found.capabilities.to_string());
        check("no_new_privs", expected.no_new_privs.to_string(), found.no_new_privs.to_string());
        let signals = |set: u64| format!("{set:016x}");
        check("blocked", signals(expected.blocked.unwrap_or(caller.blocked)), signals(found.blocked));
        check("ignored", signals(expected.ignored.unwrap_or(caller.ignored)), signals(found.ignored));
        check("leads_session", expected.leads_session.to_string(), found.leads_session.to_string());
        let score = expected.oom_score_adj.unwrap_or(caller.oom_score_adj);
        check("oom_score_adj", score.to_string(), found.oom_score_adj.to_string());
        let mask = expected.umask.unwrap_or(caller.umask);
        check("umask", format!("{mask:04o}"), format!("{:04o}", found.umask));
        let numbers = expected.descriptors.as_ref().unwrap_or(&caller.descriptors);
        check("descriptors", format!("{numbers:?}"), format!("{:?}", found.descriptors));
        let whose = |own: bool| if own { "its own" } else { "the caller's" }.to_string();
        check("root", whose(expected.own_root), whose(found.root != caller.root));
        match (&expected.directory, &self.set_directory) {
            (Some(planned), Some((path, id))) if planned == path => {
                check("directory", id.to_string(), found.directory.to_string());
            }
            (Some(planned), _) => check("directory", planned.clone(), found.directory.to_string()),
            // A new mount namespace has copies of the mounts.
            (None, _) => {
                let file = |id: FileId| FileId { mount: 0, ..id }.to_string();
                check("directory", file(caller.directory), file(found.directory));
            }
        }
        parts
    }

    fn origin(&self, kind: &str, id: FileId) -> Origin {
        if self.caller.namespaces.get(kind) == Some(&id) {
            Origin::Caller
        } else if self.joined.get(kind) == Some(&id) {
            Origin::Joined
        } else {
            Origin::New
        }
    }
}

fn deviation(part: &str, planned: &str, found: &str) -> Deviation {
    Deviation { part: part.into(), planned: planned.into(), found: found.into() }
}
