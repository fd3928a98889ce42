//! Processes: birth, numbers, exec, death, reaping (clone(2), execve(2), wait(2), pid_namespaces(7)).

use core::fmt;
use std::collections::BTreeMap;
use std::string::String;
use std::vec::Vec;

use super::creds::Creds;
use super::descriptors::Table;
use super::files::Exe;
use super::kernel::Kernel;
use super::namespaces::{Kind, NsId, NsProxy};
use super::program::{Main, Rest};
use crate::record::{Call, Line};
use nsexec::sys::types::{Errno, ExitSignal, Fd, Pid, SigAction, Signal, SignalSet, SysResult, WaitStatus};

/// A simulated process, by the order of birth. Never used again, unlike a pid.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Task(pub(super) usize);

/// Which part a process plays: the section of a transcript.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Section {
    /// The first process.
    Launcher,
    /// The launcher's first child.
    Stage0,
    /// Stage 0's sibling.
    Stage1,
    /// Stage 1's sibling.
    Stage2,
    /// A child of stage 0.
    MappingTool,
    /// Any other.
    Other,
}

impl Section {
    /// As transcripts call it (design 5).
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Launcher => "launcher",
            Self::Stage0 => "stage-0 parent",
            Self::Stage1 => "stage-1 child",
            Self::Stage2 => "stage-2 init",
            Self::MappingTool => "mapping tool",
            Self::Other => "other",
        }
    }

    /// The part of a new process, from its maker's part and the kind of clone.
    pub(super) fn after(maker: Self, sibling: bool) -> Self {
        match (maker, sibling) {
            (Self::Launcher, false) => Self::Stage0,
            (Self::Stage0, true) => Self::Stage1,
            (Self::Stage1, true) => Self::Stage2,
            (Self::Stage0, false) => Self::MappingTool,
            _ => Self::Other,
        }
    }
}

/// A process by its part, and which of those that play it, from 0: there may be two mapping tools.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Who {
    /// The part.
    pub section: Section,
    /// Which one.
    pub nth: usize,
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.section.name())?;
        if self.nth > 0 { write!(f, " (no. {})", self.nth + 1) } else { Ok(()) }
    }
}

/// Who took a dead process's status.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reaper {
    /// A process waited for it.
    Process(Who),
    /// Its parent ignores SIGCHLD, so the kernel did.
    Nobody,
    /// Its parent was dead: the first process of the machine did.
    Init,
}

/// Lifecycle state of a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Life {
    Alive,
    /// Killed, and between exit_mm and exit_files of do_exit(): it has no memory any more, so that its files in /proc are
    /// root's; its descriptors are still open.
    Dying(WaitStatus),
    Zombie(WaitStatus),
    Reaped(WaitStatus, Reaper),
}

/// One process.
#[derive(Clone)]
pub(super) struct Process {
    pub(super) who: Who,
    pub(super) parent: Option<Task>,
    pub(super) life: Life,
    /// Its numbers, from its own pid namespace up to the first.
    pub(super) numbers: Vec<(NsId, Pid)>,
    pub(super) exit_signal: ExitSignal,
    /// Its process group and session, by the process that leads them.
    pub(super) group: Task,
    pub(super) name: String,
    pub(super) argv: Vec<Vec<u8>>,
    pub(super) environ: Vec<Vec<u8>>,
    pub(super) exe: Exe,
    pub(super) creds: Creds,
    pub(super) ns: NsProxy,
    pub(super) dumpable: bool,
    /// The user namespace of its memory: whose root its files are while it is not dumpable.
    pub(super) mm_user: NsId,
    pub(super) oom: i32,
    pub(super) oom_min: i32,
    pub(super) fds: Table,
    pub(super) mask: SignalSet,
    pub(super) pending: SignalSet,
    pub(super) actions: BTreeMap<i32, SigAction>,
    pub(super) pdeathsig: Option<Signal>,
    /// Stopped by a signal: it makes no calls until SIGCONT.
    pub(super) stopped: bool,
    /// The signal that stopped it, until its parent has asked.
    pub(super) stop_report: Option<Signal>,
    /// Bytes that a blocked write has got rid of.
    pub(super) progress: usize,
    /// When the poll that it is in gives up.
    pub(super) deadline: Option<u64>,
    /// The call that it waits in.
    pub(super) blocked: Option<Call>,
    /// It lives, and makes no more calls.
    pub(super) rest: Option<Rest>,
    pub(super) main: Option<Main>,
    /// The replies of this program, from its start.
    pub(super) replay: Vec<Line>,
    /// Where in them this process's own begin: what comes before was copied by the fork.
    pub(super) own: usize,
    /// Its own lines up to the last exec.
    pub(super) past: Vec<Line>,
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:?})", self.who, self.life)
    }
}

impl Process {
    pub(super) fn is_alive(&self) -> bool {
        self.life == Life::Alive
    }

    /// It has no descriptors and no namespaces any more.
    pub(super) fn has_ended(&self) -> bool {
        matches!(self.life, Life::Zombie(_) | Life::Reaped(..))
    }

    pub(super) fn is_reaped(&self) -> bool {
        matches!(self.life, Life::Reaped(..))
    }

    /// How many lines its own transcript has.
    pub(super) fn lines(&self) -> usize {
        self.past.len() + self.replay.len() - self.own
    }

    /// The call that it waits in is over.
    pub(super) fn unblock(&mut self) {
        self.blocked = None;
        self.progress = 0;
        self.deadline = None;
    }
}

impl Kernel {
    pub(super) fn process(&self, task: Task) -> &Process {
        &self.processes[task.0]
    }

    pub(super) fn process_mut(&mut self, task: Task) -> &mut Process {
        &mut self.processes[task.0]
    }

    pub(super) fn tasks(&self) -> impl Iterator<Item = Task> + use<> {
        (0..self.processes.len()).map(Task)
    }

    /// The number of a process as the pid namespace `seen_from` sees it, if it does.
    pub(super) fn number(&self, task: Task, seen_from: NsId) -> Option<Pid> {
        let numbers = &self.process(task).numbers;
        numbers.iter().find(|(ns, _)| *ns == seen_from).map(|(_, pid)| *pid)
    }

    /// Who has this number there. A zombie keeps its own until it is reaped.
    pub(super) fn find(&self, seen_from: NsId, pid: i32) -> Option<Task> {
        self.tasks()
            .find(|task| !self.process(*task).is_reaped() && self.number(*task, seen_from) == Some(Pid(pid)))
    }

    /// The number of a process in its own eyes.
    pub(super) fn own_number(&self, task: Task) -> Pid {
        self.process(task).numbers.first().map_or(Pid(0), |(_, pid)| *pid)
    }

    pub(super) fn is_ns_init(&self, task: Task) -> bool {
        self.pid_ns(self.process(task).ns.get(Kind::Pid)).init == Some(task)
    }

    /// New numbers in `ns` and everything above it.
    pub(super) fn new_numbers(&mut self, ns: NsId) -> Vec<(NsId, Pid)> {
        let mut numbers = Vec::new();
        let mut at = Some(ns);
        while let Some(id) = at {
            let pid = self.pid_ns_mut(id);
            numbers.push((id, Pid(pid.next)));
            pid.next += 1;
            at = pid.parent;
        }
        numbers
    }

    /// setsid(2): EPERM for the leader of a process group.
    pub(super) fn setsid(&mut self, me: Task) -> SysResult<()> {
        if self.process(me).group == me {
            return Err(Errno::EPERM);
        }
        self.process_mut(me).group = me;
        Ok(())
    }

    /// pidfd_open(2).
    pub(super) fn pidfd_open(&mut self, me: Task, pid: Pid) -> SysResult<Fd> {
        if pid.0 <= 0 {
            return Err(Errno::EINVAL);
        }
        let seen_from = self.process(me).ns.get(Kind::Pid);
        let task = self.find(seen_from, pid.0).ok_or(Errno::ESRCH)?;
        self.install(me, super::descriptors::Object::Pidfd(task), true)
    }
}
