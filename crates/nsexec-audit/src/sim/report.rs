//! The results of a run.

use core::fmt;
use core::mem::take;
use std::rc::Rc;
use std::string::String;
use std::vec::Vec;

use super::fault::Place;
use super::kernel::Kernel;
use super::process::{Life, Reaper, Task};
use super::program::Rest;
use crate::record::{Call, Line, Reply, Transcript};
use crate::state::Expected;
use crate::transcript::Role;
use nsexec::sys::types::{Fd, Pid, Signal, WaitStatus};

/// The state of a process at the end of a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FinalState {
    /// The process exited with this status.
    Exited(i32),
    /// This signal ended the process.
    Signaled(Signal),
    /// The process returned to the caller of the bootstrap, and lives.
    HandedOver,
    /// The process lives, and makes no more calls.
    Stays,
    /// A signal has stopped the process, and no signal continues it.
    Stopped,
    /// The process is blocked in this call, and nothing will ever wake it.
    Stuck(Call),
    /// The process could still run when the run was cut off as endless.
    Running,
}

/// One process of a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProcessReport {
    /// The process.
    pub role: Role,
    /// Its pid, as the first pid namespace sees it.
    pub pid: Pid,
    /// Its calls. The section is the role in words.
    pub transcript: Transcript,
    /// Its state at the end of the run.
    pub end: FinalState,
    /// The process that reaped it. `None` for a living process, and for a zombie.
    pub reaped_by: Option<Reaper>,
    /// The descriptors that are still open.
    pub descriptors: Vec<(Fd, String)>,
}

/// The results of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// The launcher and the processes created in the run, in the order of birth.
    pub processes: Vec<ProcessReport>,
    /// True if the run was cut off after [`calls`](super::Settings::calls) calls.
    pub endless: bool,
    /// True if the fault happened.
    pub fault_fired: bool,
    /// The bytes written to standard error.
    pub stderr: Vec<u8>,
    /// Unread bytes of the pipes and sockets, each with the name of its queue.
    pub unread: Vec<(String, Vec<u8>)>,
    /// The number of calls that the run made.
    pub calls: usize,
    /// The state at the end, without the lines of the processes.
    kernel: Kernel,
}

impl Report {
    pub(super) fn new(mut kernel: Kernel, endless: bool, fault_fired: bool) -> Self {
        let born = kernel.tasks().filter(|task| kernel.process(*task).rest != Some(Rest::Background));
        let processes =
            born.collect::<Vec<_>>().into_iter().map(|task| ProcessReport::new(&mut kernel, task));
        Self {
            processes: processes.collect(),
            endless,
            fault_fired,
            stderr: kernel.sink.clone(),
            unread: kernel.unread(),
            calls: kernel.calls,
            kernel,
        }
    }

    /// Returns the state of the process that ran the last function of the caller before its exec.
    #[must_use]
    pub const fn at_hook(&self) -> Option<&Expected> {
        self.kernel.at_hook.as_ref()
    }

    /// Returns a text dump of the whole state.
    #[must_use]
    pub fn dump(&self) -> String {
        self.kernel.dump()
    }

    /// Returns the process with this role, if it exists.
    #[must_use]
    pub fn find(&self, role: Role) -> Option<&ProcessReport> {
        self.processes.iter().find(|process| process.role == role)
    }

    /// Returns the transcripts, sorted by role. They are the same for every schedule.
    #[must_use]
    pub fn sections(&self) -> Vec<(Role, &Transcript)> {
        let mut sections: Vec<_> =
            self.processes.iter().map(|process| (process.role, &process.transcript)).collect();
        sections.sort_by_key(|(role, _)| *role);
        sections
    }

    /// Returns the processes that are blocked for ever, each with its call.
    pub fn stuck(&self) -> impl Iterator<Item = (Role, &Call)> {
        self.processes.iter().filter_map(|process| match &process.end {
            FinalState::Stuck(call) => Some((process.role, call)),
            _ => None,
        })
    }

    /// Returns the processes that are alive.
    pub fn alive(&self) -> impl Iterator<Item = &ProcessReport> {
        self.processes
            .iter()
            .filter(|process| !matches!(process.end, FinalState::Exited(_) | FinalState::Signaled(_)))
    }

    /// Returns the dead processes that were not reaped.
    pub fn zombies(&self) -> impl Iterator<Item = &ProcessReport> {
        self.processes.iter().filter(|process| {
            process.reaped_by.is_none()
                && matches!(process.end, FinalState::Exited(_) | FinalState::Signaled(_))
        })
    }

    /// Returns each call of the run as a place for a fault. The first line of a child, which its parent's
    /// clone caused, is left out.
    pub fn places(&self) -> impl Iterator<Item = (Place, &Line)> {
        self.processes.iter().flat_map(|process| {
            let lines = process.transcript.lines.iter().enumerate();
            let calls = lines.filter(|(_, line)| line.reply != Reply::Child);
            calls.map(|(line, text)| (Place { role: process.role, line }, text))
        })
    }

    /// Returns the place after each process's last call, where the process would end. A SIGKILL and a SIGSTOP
    /// can happen there.
    pub fn ends(&self) -> impl Iterator<Item = Place> {
        self.processes
            .iter()
            .map(|process| Place { role: process.role, line: process.transcript.lines.len() })
    }
}

impl fmt::Display for Report {
    /// Writes every process with its lines, and then the state of the machine.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for process in &self.processes {
            writeln!(f, "-- {} [{}]: {:?}", process.role, process.pid, process.end)?;
            for line in &process.transcript.lines {
                writeln!(f, "{line}")?;
            }
        }
        write!(f, "-- standard error\n{}", String::from_utf8_lossy(&self.stderr))?;
        write!(f, "-- state\n{}", self.dump())
    }
}

impl ProcessReport {
    /// Takes the lines of the process out of `kernel`.
    fn new(kernel: &mut Kernel, task: Task) -> Self {
        let process = kernel.process_mut(task);
        let (past, replay) = (take(&mut process.past), take(&mut process.replay));
        let own = past.into_iter().chain(replay.into_iter().skip(process.own));
        let process = kernel.process(task);
        let mut transcript = Transcript::new(&process.role.to_string());
        transcript.lines = own.map(Rc::unwrap_or_clone).collect();
        let (end, reaped_by) = match process.life {
            Life::Zombie(status) => (ended(status), None),
            Life::Reaped(status, reaper) => (ended(status), Some(reaper)),
            Life::Alive if process.stopped => (FinalState::Stopped, None),
            Life::Dying(_) => (FinalState::Running, None),
            Life::Alive => match (process.rest, &process.blocked) {
                (Some(Rest::HandedOver), _) => (FinalState::HandedOver, None),
                (Some(_), _) => (FinalState::Stays, None),
                (None, Some(call)) => (FinalState::Stuck(call.clone()), None),
                (None, None) => (FinalState::Running, None),
            },
        };
        let pid = process.numbers.last().map_or(Pid(0), |(_, pid)| *pid);
        let descriptors = process.fds.iter().map(|(fd, slot)| (Fd(*fd), kernel.describe(*slot))).collect();
        Self { role: process.role, pid, transcript, end, reaped_by, descriptors }
    }
}

fn ended(status: WaitStatus) -> FinalState {
    match status {
        WaitStatus::Exited(status) | WaitStatus::Other(status) => FinalState::Exited(status),
        WaitStatus::Signaled(signal) | WaitStatus::Stopped(signal) => FinalState::Signaled(signal),
    }
}
