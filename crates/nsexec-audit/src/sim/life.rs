//! The life of a process: clone, exec, exit, reaping (clone(2), execve(2), wait(2), pid_namespaces(7)).

use std::rc::Rc;
use std::string::String;
use std::vec::Vec;

use super::creds::Creds;
use super::descriptors::{Access, Object};
use super::files::Exe;
use super::kernel::{Halt, Kernel};
use super::namespaces::{NsId, NsProxy};
use super::process::{Life, Reaper, Task};
use super::procfs::Node;
use super::program::Program;
use crate::record::{Call, Line, Reply};
use nsexec::namespace::NsKind;
use nsexec::sys::types::{
    Errno, ExitSignal, Fd, Pid, SigAction, Signal, SignalSet, SysResult, TidAddress, WaitFor, WaitStatus,
    Waited,
};

impl Kernel {
    /// Fails with `EAGAIN` at the limit of processes. The kernel checks it before it creates anything.
    pub(super) fn has_room_for_process(&self) -> SysResult<()> {
        let there = self.tasks().filter(|task| !self.process(*task).is_reaped()).count();
        if there >= self.settings.processes { Err(Errno::EAGAIN) } else { Ok(()) }
    }

    /// Fails with `ENOMEM` if the pid 1 of this pid namespace has ended (alloc_pid).
    pub(super) fn check_pid_namespace(&self, ns: NsId) -> SysResult<()> {
        if self.pid_ns(ns).dead { Err(Errno::ENOMEM) } else { Ok(()) }
    }

    /// Implements clone(2). A sibling has the caller's parent and exit signal. The first process in a pid
    /// namespace becomes its pid 1.
    pub(super) fn clone_process(
        &mut self,
        me: Task,
        call: &Call,
        sibling: bool,
        exit: ExitSignal,
        new: Option<(NsProxy, Creds)>,
    ) -> SysResult<Task> {
        // A sibling of a pid 1 would be in a namespace whose init cannot reap it (copy_process).
        if sibling && self.is_ns_init(me) {
            return Err(Errno::EINVAL);
        }
        self.has_room_for_process()?;
        let ns =
            new.as_ref().map_or(self.process(me).ns.pid_for_children, |(proxy, _)| proxy.pid_for_children);
        self.check_pid_namespace(ns)?;
        let numbers = self.allocate_pids(ns);
        let task = Task(self.processes.len());
        if self.pid_ns(ns).next == 2 {
            self.pid_ns_mut(ns).init = Some(task);
        }
        let mut child = self.process(me).clone();
        child.role = self.role_of_child(me, call);
        child.numbers = numbers;
        if !sibling {
            child.parent = Some(me);
            child.exit_signal = exit;
        }
        if let Some((proxy, creds)) = new {
            (child.ns, child.creds) = (proxy, creds);
        }
        child.ns.set(NsKind::Pid, ns);
        child.ns.pid_for_children = ns;
        let time = child.ns.time_for_children;
        if child.ns.get(NsKind::Time) != time {
            child.ns.set(NsKind::Time, time);
            self.time_ns_mut(time).frozen = true;
        }
        child.tid_registered = matches!(
            call,
            Call::Fork { tid: Some(_), .. }
                | Call::CloneSibling { tid: Some(_) }
                | Call::CloneChild { tid: Some(_) }
                | Call::CloneInit { tid: Some(_), .. }
        );
        child.shares_memory_of = matches!(call, Call::CloneInit { shared: true, .. }).then_some(me);
        child.pending = SignalSet::EMPTY;
        child.pdeathsig = None;
        (child.stopped, child.stop_report) = (false, None);
        child.unblock();
        child.own = child.replay.len();
        child.past = Vec::new();
        child.replay.push(Rc::new(Line { call: call.clone(), reply: Reply::Child }));
        self.share(&child.fds);
        self.processes.push(child);
        self.enter_copied_mounts(task, self.process(me).ns.get(NsKind::Mnt));
        Ok(task)
    }

    /// Returns the address that the libc registered, with the number in it.
    pub(super) fn tid_address(&self, me: Task) -> SysResult<TidAddress> {
        if !self.settings.reports_tid_address {
            return Err(Errno::EINVAL);
        }
        Ok(match self.process(me).tid_registered {
            true => TidAddress {
                address: 0x7f00_0000_0010,
                cached: if self.settings.caches_tid { self.own_pid(me).0 } else { 0 },
            },
            false => TidAddress { address: 0, cached: 0 },
        })
    }

    /// Returns the living processes that have the memory of this one, itself included.
    pub(super) fn with_memory_of(&self, me: Task) -> Vec<Task> {
        let owner = |task: Task| self.process(task).shares_memory_of.unwrap_or(task);
        self.tasks().filter(|task| self.process(*task).is_alive() && owner(*task) == owner(me)).collect()
    }

    /// Sets the dumpable attribute, which belongs to the memory.
    pub(super) fn set_dumpable_of_memory(&mut self, me: Task, dumpable: bool) {
        for task in self.with_memory_of(me) {
            self.process_mut(task).dumpable = dumpable;
        }
    }

    /// Implements execve(2): runs another program. Descriptors that are close-on-exec are closed.
    pub(super) fn execve(
        &mut self,
        me: Task,
        path: &[u8],
        argv: Vec<Vec<u8>>,
        envp: Vec<Vec<u8>>,
    ) -> Result<(), Errno> {
        let text = String::from_utf8_lossy(path).into_owned();
        if let Some(errno) = self.refusals.get(&text) {
            return Err(*errno);
        }
        let (program, exe) = match self.programs.get(&text) {
            Some(program) => {
                self.check_reachable(me, &text)?;
                (program.clone(), Exe::File(text.clone()))
            }
            None => match self.resolve(me, Fd::CWD, path)? {
                Node::Made(index) => self.program_in(&Object::Made(index, Access::PathOnly))?,
                Node::Opened(object) => self.program_in(&object)?,
                _ => return Err(Errno::EACCES),
            },
        };
        self.become_program(me, program, exe, (&text, argv, envp));
        Ok(())
    }

    /// Carries out a successful exec.
    pub(super) fn become_program(
        &mut self,
        me: Task,
        program: Program,
        exe: Exe,
        (path, argv, environ): (&str, Vec<Vec<u8>>, Vec<Vec<u8>>),
    ) {
        self.change_creds_for_exec(me, program.setuid_root);
        let process = self.process_mut(me);
        process.name = path.rsplit('/').next().unwrap_or_default().chars().take(15).collect();
        (process.argv, process.environ, process.exe) = (argv, environ, exe);
        // Handlers disappear with the memory. Ignored signals stay ignored (signal(7)).
        process.actions.retain(|_, action| action.handler == SigAction::IGNORE.handler);
        process.exit_signal = ExitSignal::Chld;
        process.mm_user = process.creds.user;
        process.shares_memory_of = None;
        process.tid_registered = true;
        let own = process.replay.split_off(process.own);
        process.past.extend(own);
        process.replay.clear();
        process.own = 0;
        process.main = Some(program.main);
        let closing: Vec<Fd> =
            process.fds.iter().filter(|(_, slot)| slot.cloexec).map(|(fd, _)| Fd(*fd)).collect();
        for fd in closing {
            // The descriptor is open, so this cannot fail.
            let _ = self.close(me, fd);
        }
    }

    /// Changes the credentials for an exec (cap_bprm_creds_from_file). Root gets the capabilities of the
    /// bounding and the inheritable set, and other users keep the ambient ones. A set-user-id program runs as
    /// root, in a namespace where root is mapped (capabilities(7), "Capabilities and execution of programs by
    /// root"). With no_new_privs the process gets no id and no capability that it lacks.
    fn change_creds_for_exec(&mut self, me: Task, setuid_root: bool) {
        let old = self.process(me).creds.clone();
        let mut new = old.clone();
        let user = self.user(new.user);
        let root = user.uid_map.to_kernel(0);
        let no_new_privs = self.has_no_new_privs(me);
        let gains = !no_new_privs && setuid_root && user.uid_map.shown_as(0).is_some() && new.euid() != 0;
        if gains {
            new.uid[1] = 0;
            new.ambient = 0;
        }
        let by_effective = gains || root.is_some_and(|root| new.euid() == root);
        let is_root = by_effective || root.is_some_and(|root| new.uid[0] == root);
        new.permitted = if is_root { self.bounding(&old) | old.inheritable } else { 0 };
        if no_new_privs {
            new.permitted &= old.permitted;
        }
        new.permitted |= new.ambient;
        new.effective = if by_effective { new.permitted } else { new.ambient };
        new.uid[2] = new.uid[1];
        new.gid[2] = new.gid[1];
        new.keep_caps = false;
        // commit_creds: new privileges make the process non-dumpable.
        let same = old.euid() == new.euid() && new.permitted & !old.permitted == 0;
        let dumpable = same && new.uid[0] == new.uid[1] && new.gid[0] == new.gid[1];
        let process = self.process_mut(me);
        process.creds = new;
        process.dumpable = dumpable;
        if !same {
            process.pdeathsig = None;
        }
    }

    /// Ends a process. Its descriptors are closed, its children get another parent, and its pid namespace
    /// dies if the process was its pid 1.
    pub(super) fn exit(&mut self, me: Task, status: WaitStatus) {
        let status = match self.process(me).life {
            Life::Alive => status,
            Life::Dying(status) => status,
            Life::Zombie(_) | Life::Reaped(..) => return,
        };
        let process = self.process_mut(me);
        process.life = Life::Zombie(status);
        process.rest = None;
        (process.stopped, process.stop_report) = (false, None);
        process.unblock();
        let table = core::mem::take(&mut process.fds);
        for slot in table.into_values() {
            self.release(slot);
        }
        if self.is_ns_init(me) {
            self.kill_namespace(me);
        }
        let orphans: Vec<Task> = self.tasks().filter(|task| self.process(*task).parent == Some(me)).collect();
        // find_new_reaper: the pid 1 of the dead process's namespace, or else the machine's init.
        let heir = self.pid_ns(self.process(me).ns.get(NsKind::Pid)).init.filter(|init| *init != me);
        for orphan in orphans {
            let child = self.process_mut(orphan);
            child.parent = heir;
            child.exit_signal = ExitSignal::Chld;
            let signal = child.pdeathsig;
            if let (Some(signal), true) = (signal, child.is_alive()) {
                self.deliver(orphan, signal, true);
            }
            self.notify_parent(orphan);
        }
        self.notify_parent(me);
    }

    /// The first half of an exit: the memory is gone, and everything else remains. [`Self::finish_exits`]
    /// does the rest.
    pub(super) fn begin_exit(&mut self, me: Task, status: WaitStatus) {
        let process = self.process_mut(me);
        if process.is_alive() {
            process.life = Life::Dying(status);
            process.rest = None;
            process.unblock();
        }
    }

    /// The second half of all exits that have begun. Returns whether there were any.
    pub(super) fn finish_exits(&mut self) -> bool {
        let dying: Vec<(Task, WaitStatus)> = self
            .tasks()
            .filter_map(|task| match self.process(task).life {
                Life::Dying(status) => Some((task, status)),
                _ => None,
            })
            .collect();
        for (task, status) in &dying {
            self.exit(*task, *status);
        }
        !dying.is_empty()
    }

    /// zap_pid_ns_processes: kills all other processes of a pid namespace whose pid 1 has died. No new
    /// process can be created in it.
    fn kill_namespace(&mut self, init: Task) {
        let ns = self.process(init).ns.get(NsKind::Pid);
        let pid_ns = self.pid_ns_mut(ns);
        pid_ns.dead = true;
        pid_ns.init = None;
        let inside: Vec<Task> =
            self.tasks().filter(|task| *task != init && self.number(*task, ns).is_some()).collect();
        for task in inside {
            self.exit(task, WaitStatus::Signaled(Signal::KILL));
        }
    }

    /// Notifies the parent of a dead child. Reaps the child if no process will do so (do_notify_parent).
    fn notify_parent(&mut self, task: Task) {
        let Life::Zombie(status) = self.process(task).life else { return };
        let Some(parent) = self.process(task).parent else {
            self.process_mut(task).life = Life::Reaped(status, Reaper::Init);
            return;
        };
        if self.process(task).exit_signal == ExitSignal::None {
            return;
        }
        let action = self.process(parent).actions.get(&Signal::CHLD.0);
        if action.is_some_and(|action| action.handler == SigAction::IGNORE.handler) {
            self.process_mut(task).life = Life::Reaped(status, Reaper::ByKernel);
            return;
        }
        self.deliver(parent, Signal::CHLD, true);
    }

    /// Returns the children that a wait considers. With __WCLONE these are only the children whose exit
    /// signal is not SIGCHLD (wait(2)).
    fn eligible(&self, me: Task, pid: Pid, which: WaitFor) -> Vec<Task> {
        let seen_from = self.process(me).ns.get(NsKind::Pid);
        let wanted = match which {
            WaitFor::Ordinary | WaitFor::OrdinaryNow => ExitSignal::Chld,
            WaitFor::Stages | WaitFor::StagesNow => ExitSignal::None,
        };
        self.tasks()
            .filter(|task| {
                let child = self.process(*task);
                let named = pid == Pid::ANY || self.number(*task, seen_from) == Some(pid);
                child.parent == Some(me) && !child.is_reaped() && child.exit_signal == wanted && named
            })
            .collect()
    }

    /// Implements wait4(2).
    ///
    /// Errors: `ECHILD`: no matching child is left.
    pub(super) fn wait4(&mut self, me: Task, pid: Pid, which: WaitFor) -> Result<Waited, Halt> {
        let children = self.eligible(me, pid, which);
        if children.is_empty() {
            return Err(Errno::ECHILD.into());
        }
        let now = matches!(which, WaitFor::StagesNow | WaitFor::OrdinaryNow);
        let stops = which == WaitFor::StagesNow;
        let seen_from = self.process(me).ns.get(NsKind::Pid);
        for child in children {
            let pid = self.number(child, seen_from).unwrap_or(Pid(0));
            if let Life::Zombie(status) = self.process(child).life {
                let reaper = Reaper::Process(self.process(me).role);
                self.process_mut(child).life = Life::Reaped(status, reaper);
                return Ok(Waited { pid, status });
            }
            // A stop is reported only once (wait_task_stopped).
            if let Some(signal) = self.process(child).stop_report.filter(|_| stops) {
                self.process_mut(child).stop_report = None;
                return Ok(Waited { pid, status: WaitStatus::Stopped(signal) });
            }
        }
        match now {
            true => Ok(Waited { pid: Pid(0), status: WaitStatus::Exited(0) }),
            false => Err(Halt::Block),
        }
    }

    /// Returns whether a wait would return now.
    pub(super) fn can_reap(&self, me: Task, pid: Pid, which: WaitFor) -> bool {
        let children = self.eligible(me, pid, which);
        children.is_empty() || children.iter().any(|child| self.process(*child).has_ended())
    }
}
