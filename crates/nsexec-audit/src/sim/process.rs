//! Processes and their pids: lookup, setsid, pidfds (setsid(2), pidfd_open(2), pid_namespaces(7)).

use core::fmt;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::string::String;
use std::vec::Vec;

use super::creds::Creds;
use super::descriptors::Table;
use super::files::Exe;
use super::kernel::Kernel;
use super::mounts::Place;
use super::namespaces::{NsId, NsProxy};
use super::program::{Main, Rest};
use crate::record::{Call, Line};
use crate::transcript::Role;
use nsexec::namespace::NsKind;
use nsexec::sys::types::{
    Errno, ExitSignal, Fd, Limit, Pid, PollFd, SigAction, Signal, SignalSet, SysResult, WaitStatus,
};

/// A simulated process, numbered in the order of birth. The number is never reused, unlike a pid.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Task(pub(super) usize);

/// The process that reaped a dead process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reaper {
    /// A process waited for the dead process.
    Process(Role),
    /// Its parent ignores SIGCHLD, so the kernel reaped it.
    ByKernel,
    /// Its parent was dead, so the init process of the machine reaped it.
    Init,
}

/// Lifecycle state of a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Life {
    Alive,
    /// Killed, and between exit_mm and exit_files of do_exit(). The process has no memory any more, so its
    /// files in /proc belong to root; its descriptors are still open.
    Dying(WaitStatus),
    Zombie(WaitStatus),
    Reaped(WaitStatus, Reaper),
}

/// The state of one process.
#[derive(Clone)]
pub(super) struct Process {
    pub(super) role: Role,
    pub(super) parent: Option<Task>,
    pub(super) life: Life,
    /// Its pids, from its own pid namespace up to the first.
    pub(super) numbers: Vec<(NsId, Pid)>,
    pub(super) exit_signal: ExitSignal,
    /// The leader of its process group and session.
    pub(super) group: Task,
    pub(super) name: String,
    pub(super) argv: Vec<Vec<u8>>,
    pub(super) environ: Vec<Vec<u8>>,
    pub(super) exe: Exe,
    pub(super) creds: Creds,
    pub(super) ns: NsProxy,
    /// Its root directory and its working directory.
    pub(super) root: Place,
    pub(super) cwd: Place,
    /// True after PR_SET_NO_NEW_PRIVS. See also [`Settings::no_new_privs`](super::Settings::no_new_privs).
    pub(super) no_new_privs: bool,
    /// The mask of permissions.
    pub(super) umask: u32,
    /// The limits that this process or an ancestor of it has set, by the number of the resource.
    pub(super) limits: BTreeMap<u32, Limit>,
    pub(super) dumpable: bool,
    /// The user namespace of its memory. While the process is not dumpable, its files belong to root of this
    /// namespace.
    pub(super) mm_user: NsId,
    /// The process that created this one with the same memory, up to the exec of this one.
    pub(super) shares_memory_of: Option<Task>,
    pub(super) oom: i32,
    pub(super) oom_min: i32,
    /// Whether the address of the libc's cached thread id is registered. The libc registers it when a program
    /// begins; a clone without the address registers none for the child.
    pub(super) tid_registered: bool,
    pub(super) fds: Table,
    pub(super) mask: SignalSet,
    pub(super) pending: SignalSet,
    pub(super) actions: BTreeMap<i32, SigAction>,
    pub(super) pdeathsig: Option<Signal>,
    /// True if a signal has stopped the process. It makes no calls until SIGCONT.
    pub(super) stopped: bool,
    /// The signal that stopped the process, until its parent has waited for it.
    pub(super) stop_report: Option<Signal>,
    /// The number of bytes that a blocked write has already written.
    pub(super) progress: usize,
    /// The time at which its blocked poll times out.
    pub(super) deadline: Option<u64>,
    /// The descriptors at which its poll has looked ([`Settings::slow_polls`](super::Settings::slow_polls)).
    pub(super) looked: Vec<PollFd>,
    /// The call in which the process is blocked.
    pub(super) blocked: Option<Call>,
    /// The reason why the living process makes no more calls.
    pub(super) rest: Option<Rest>,
    pub(super) main: Option<Main>,
    /// The replies that the current program has received, from its start.
    pub(super) replay: Vec<Rc<Line>>,
    /// The index in `replay` of the process's first own line. The fork copied the lines before it.
    pub(super) own: usize,
    /// The process's own lines up to the last exec.
    pub(super) past: Vec<Rc<Line>>,
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:?})", self.role, self.life)
    }
}

impl Process {
    pub(super) fn is_alive(&self) -> bool {
        self.life == Life::Alive
    }

    /// Returns whether the process is a zombie or reaped. It then has no descriptors and no namespaces.
    pub(super) fn has_ended(&self) -> bool {
        matches!(self.life, Life::Zombie(_) | Life::Reaped(..))
    }

    pub(super) fn is_reaped(&self) -> bool {
        matches!(self.life, Life::Reaped(..))
    }

    /// Returns the number of lines of its own transcript.
    pub(super) fn lines(&self) -> usize {
        self.past.len() + self.replay.len() - self.own
    }

    /// Clears the state of the blocked call, which has ended.
    pub(super) fn unblock(&mut self) {
        self.blocked = None;
        self.progress = 0;
        self.looked.clear();
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

    /// Returns the pid of a process in the pid namespace `seen_from`, if it is visible there.
    pub(super) fn number(&self, task: Task, seen_from: NsId) -> Option<Pid> {
        let numbers = &self.process(task).numbers;
        numbers.iter().find(|(ns, _)| *ns == seen_from).map(|(_, pid)| *pid)
    }

    /// Returns the process with this pid in the pid namespace `seen_from`. A zombie keeps its pid until it is
    /// reaped.
    pub(super) fn find(&self, seen_from: NsId, pid: i32) -> Option<Task> {
        self.tasks()
            .find(|task| !self.process(*task).is_reaped() && self.number(*task, seen_from) == Some(Pid(pid)))
    }

    /// Returns the pid of a process in its own pid namespace.
    pub(super) fn own_pid(&self, task: Task) -> Pid {
        self.process(task).numbers.first().map_or(Pid(0), |(_, pid)| *pid)
    }

    pub(super) fn is_ns_init(&self, task: Task) -> bool {
        self.pid_ns(self.process(task).ns.get(NsKind::Pid)).init == Some(task)
    }

    /// Returns the role of a process that the protocol does not have.
    pub(super) fn other_role(&self) -> Role {
        let others = self.processes.iter().filter(|process| matches!(process.role, Role::Other(_))).count();
        Role::Other(u8::try_from(others).unwrap_or(u8::MAX))
    }

    /// Returns the role of a new process of `maker`. No two processes have the same role, up to 255 that the
    /// protocol does not have.
    pub(super) fn role_of_child(&self, maker: Task, call: &Call) -> Role {
        let tools = self.processes.iter().filter(|process| process.role.is_tool()).count();
        let role = self.process(maker).role.creates(call, u8::try_from(tools).unwrap_or(u8::MAX));
        let is_free = |role: &Role| self.processes.iter().all(|process| process.role != *role);
        role.filter(is_free).unwrap_or_else(|| self.other_role())
    }

    /// Allocates a pid in `ns` and in each of its ancestors.
    pub(super) fn allocate_pids(&mut self, ns: NsId) -> Vec<(NsId, Pid)> {
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

    /// Implements setsid(2).
    ///
    /// Errors: `EPERM`: the process leads a process group.
    pub(super) fn setsid(&mut self, me: Task) -> SysResult<()> {
        if self.process(me).group == me {
            return Err(Errno::EPERM);
        }
        self.process_mut(me).group = me;
        Ok(())
    }

    /// Implements pidfd_open(2).
    pub(super) fn pidfd_open(&mut self, me: Task, pid: Pid) -> SysResult<Fd> {
        if pid.0 <= 0 {
            return Err(Errno::EINVAL);
        }
        let seen_from = self.process(me).ns.get(NsKind::Pid);
        let task = self.find(seen_from, pid.0).ok_or(Errno::ESRCH)?;
        self.install(me, super::descriptors::Object::Pidfd(task), true)
    }
}
