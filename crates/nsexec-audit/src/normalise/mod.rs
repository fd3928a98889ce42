//! Normalises a run for the comparison with a different run. The changes are those of [`RENAMED`], and no
//! others. A record and a witness of the same run are compared without renaming
//! ([`witness::as_shown`](super::witness::as_shown)).
//!
//! A number is renamed only if the run shows its origin: a call that returned it, or a note:
//! [`INTERRUPT`], [`TIMER`], [`OPENED`].
//! Any other number is moved out of the range of known numbers ([`UNKNOWN_FD`], [`UNKNOWN_PID`]), so that it
//! never equals a known one. Numbers that the caller chose are never renamed: arguments, paths to join,
//! scores, maps.

mod launcher;
mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::format;
use std::vec::Vec;

use super::sections::{Site, inherit, is_made_by_launcher, pids};
use super::transcript::{End, Role, Run, Section};
use crate::record::{Bytes, Call, Line, Reply};
use nsexec::launch::pid_of_fdinfo;
use nsexec::procfs::is_exiting;
use nsexec::sys::types::{
    Errno, Fd, OpenFlags, Pid, PollEvents, PollFd, Received, SigAction, TidAddress, Waited,
};

/// The changes: renamed numbers, merged calls, orderings, omissions. Each with its result.
pub const RENAMED: &[(&str, &str)] = &[
    ("descriptor", "numbered from 3 in the order in which calls of the process or its ancestors returned it"),
    ("the descriptor that interrupts a launch, and that of its time limit", "900000 and 900001"),
    (
        "the descriptors that were opened for the launch before the record",
        "from 900010 on, in the order of the launch",
    ),
    ("descriptor that no call returned", "1000000 and its number"),
    (
        "the closing of ranges of descriptors",
        "one range from 3 on: the numbers between depend on the kept ones",
    ),
    (
        "pid",
        "99 for the launcher, 100 + n for stage n, 110 + n for a mapping tool, where the call that made the process \
         returned it",
    ),
    (
        "pid in a text",
        "the same, in the path /proc/PID, the pid line or the pid that stage 1 sends, a log record, a mapping tool's \
         argv[1]",
    ),
    (
        "the number of a process in the /proc of another pid namespace",
        "that of the new process as its pid; the launcher's own, in /proc/self, as \"another\"",
    ),
    ("the fdinfo of a pidfd", "its line Pid alone"),
    ("a process's own pid, from getpid and gettid", "the same, whatever its pid namespace"),
    ("pid that no call returned", "10000000 and its number"),
    ("address of a thread id", "1, where the kernel returned it"),
    ("address of a handler, and of its trampoline", "2, and 1, where the kernel returned it"),
    (
        "the old disposition of a signal",
        "its handler alone: the caller's libc has chosen the flags and the mask",
    ),
    ("CPU mask", "0, also in its record"),
    ("the stat file of stage 1", "whether it is exiting"),
    ("end of a dead peer", "ECONNRESET of a read is an end of file, that of a send EPIPE"),
    ("the launcher's reads of the log pipe", "one read, its records sorted; of equal polls only the first"),
    (
        "the launcher's polls",
        "only the ready descriptor on which the launcher acts: the init pipe if it is ready, otherwise the first",
    ),
    (
        "how the launcher learns that the stages are dead",
        "the end of the init pipe and the pidfd of the first stage (stage 0, or stage 1 in a start through a child) count as the same event",
    ),
    ("a hang-up that comes with data", "left out: the peer may have ended after its send"),
    ("the launcher's reaping of the remaining stages", "in the order of the stages"),
    (
        "a minimal init from its first wait for a signal on",
        "left out, with its end: both depend on the command",
    ),
    (
        "the last calls before a SIGKILL",
        "of two runs of a process that SIGKILL ended, only the calls that both have: the recorder writes an exec and a \
         close before the call, and any other call after its return",
    ),
];

/// The key of a run's note with the descriptor that interrupts the launch. It was open before the recording
/// began.
pub const INTERRUPT: &str = "interrupt";

/// The number in place of the descriptor of the note [`INTERRUPT`].
const INTERRUPT_FD: i32 = 900_000;

/// The key of a run's note with the timer of its time limit. The timer was open before the recording began.
pub const TIMER: &str = "timer";

/// The number in place of the descriptor of the note [`TIMER`].
const TIMER_FD: i32 = 900_001;

/// The key of a run's note with the descriptors that were opened for this launch before the recording began:
/// those that the command gets under other numbers, the files of its cgroups, its root directory and its rule
/// set. Their numbers, with a space between them.
pub const OPENED: &str = "opened";

/// The key of a run's note with the caller's descriptors for the function before the start, which the first
/// process of the launch closes. Their numbers, with a space between them.
pub const WITHHELD: &str = "withheld";

/// The number in place of the first descriptor of the note [`OPENED`].
const OPENED_FD: i32 = 900_010;

/// Added to a descriptor that no call returned. Descriptors are smaller by default (nr_open in proc(5)).
pub const UNKNOWN_FD: i32 = 1_000_000;

/// Added to a pid that no call returned. Pids are smaller (pid_max in proc(5)).
pub const UNKNOWN_PID: i32 = 10_000_000;

/// Returns the number that replaces a process's pid.
#[must_use]
pub fn pid_of(role: Role) -> Pid {
    Pid(match role {
        Role::Launcher => 99,
        Role::Stage(number) => 100 + i32::from(number),
        Role::Tool(number) => 110 + i32::from(number),
        Role::Other(number) => 120 + i32::from(number),
    })
}

/// Returns the run as it is compared with another run.
#[must_use]
pub fn normalise(run: &Run) -> Run {
    let names = Names::of(run);
    let mut lines: BTreeMap<Role, Vec<Line>> = BTreeMap::new();
    inherit(run, &State::of(run), |state, site| {
        lines.entry(site.section.role).or_default().push(names.line(state, site));
    });
    let mut normal = Run { origin: run.origin, ..Run::default() };
    for section in &run.sections {
        let mut lines = lines.remove(&section.role).unwrap_or_default();
        merge_closings(&mut lines);
        if section.role == Role::Launcher {
            launcher::merge_log_reads(&mut lines);
            names.records(&mut lines);
            launcher::sort_reaping(&mut lines);
            launcher::reduce_polls(&mut lines);
        }
        let mut section = Section { lines, ..section.clone() };
        leave_out_supervision(&mut section);
        normal.sections.push(section);
    }
    normal
}

/// The numbers that a call returned to a process, or to one of its ancestors, up to a line.
#[derive(Clone, Debug)]
struct State {
    fds: BTreeMap<i32, i32>,
    next: i32,
    /// Whether the next value of 4 bytes is a pid.
    pid_follows: bool,
    /// The address of the cached thread id, as the kernel returned it.
    tid: Option<usize>,
    /// Addresses of handlers and trampolines that sigaction returned.
    handlers: BTreeSet<usize>,
    restorers: BTreeSet<usize>,
    /// The open stat file of stage 1.
    stat: Option<Fd>,
    /// The open fdinfo of a pidfd.
    fdinfo: Option<Fd>,
}

impl State {
    fn of(run: &Run) -> Self {
        let noted = |note: &str, known: i32| run.notes.get(note)?.parse().ok().map(|fd| (fd, known));
        let there = [noted(INTERRUPT, INTERRUPT_FD), noted(TIMER, TIMER_FD)];
        let opened = run.notes.get(OPENED).into_iter().flat_map(|note| note.split(' '));
        let opened = opened.filter_map(|fd| fd.parse().ok()).filter(|fd| *fd > 2);
        Self {
            fds: opened.zip(OPENED_FD..).chain(there.into_iter().flatten()).collect(),
            next: 3,
            stat: None,
            fdinfo: None,
            // In a start through a child, stage 1 sends a pid and nothing else.
            pid_follows: is_made_by_launcher(run, Role::Stage(1)),
            tid: None,
            handlers: BTreeSet::new(),
            restorers: BTreeSet::new(),
        }
    }

    /// Returns a descriptor as it is compared. Standard descriptors and negative numbers are not changed.
    fn fd(&self, Fd(fd): Fd) -> Fd {
        match self.fds.get(&fd) {
            Some(known) => Fd(*known),
            None if fd <= 2 => Fd(fd),
            None => Fd(fd.saturating_add(UNKNOWN_FD)),
        }
    }

    /// Names a descriptor that a call has just returned.
    fn new_fd(&mut self, fd: Fd) -> Fd {
        let number = self.next;
        self.next += 1;
        self.fds.insert(fd.0, number);
        Fd(number)
    }

    fn poll_fds(&self, fds: &[PollFd]) -> Vec<PollFd> {
        // A hang-up that comes with data is left out: the peer may have ended after its send.
        let without_hang_up = |events: PollEvents| match events.contains(PollEvents::IN) {
            true => PollEvents(events.0 & !PollEvents::HUP.0),
            false => events,
        };
        let named = |fd: &PollFd| PollFd { fd: self.fd(fd.fd), revents: without_hang_up(fd.revents), ..*fd };
        fds.iter().map(named).collect()
    }

    /// Renames an action that is set: its addresses are known if an earlier sigaction returned them.
    fn action(&self, action: SigAction) -> SigAction {
        let known = |addresses: &BTreeSet<usize>, address, name| {
            if addresses.contains(&address) { name } else { address }
        };
        SigAction {
            handler: known(&self.handlers, action.handler, 2),
            restorer: known(&self.restorers, action.restorer, 1),
            ..action
        }
    }

    /// Renames an action that sigaction returned.
    fn old_action(&mut self, action: SigAction) -> SigAction {
        // 0 is SIG_DFL, 1 is SIG_IGN.
        if action.handler > 1 {
            self.handlers.insert(action.handler);
        }
        if action.restorer != 0 {
            self.restorers.insert(action.restorer);
        }
        SigAction { handler: action.handler.min(2), ..SigAction::DEFAULT }
    }
}

/// The processes of a run and their numbers.
struct Names {
    /// From the pid that the clone returned to the number in place of it.
    pids: BTreeMap<i32, i32>,
    /// All numbers of each process: the pid that the clone returned, and what its own getpid and gettid
    /// returned.
    own: BTreeMap<Role, BTreeSet<i32>>,
    /// The CPU masks that the kernel returned.
    masks: BTreeSet<u64>,
}

impl Names {
    fn of(run: &Run) -> Self {
        let made = pids(run);
        let mut own: BTreeMap<Role, BTreeSet<i32>> = BTreeMap::new();
        for (role, pid) in &made {
            own.entry(*role).or_default().insert(pid.0);
        }
        let mut masks = BTreeSet::new();
        let mut pids: BTreeMap<i32, i32> =
            made.into_iter().map(|(role, pid)| (pid.0, pid_of(role).0)).collect();
        for section in &run.sections {
            number_in_other_proc(section, &mut pids);
        }
        for section in &run.sections {
            for line in &section.lines {
                match line.reply {
                    Reply::Pid(pid) => drop(own.entry(section.role).or_default().insert(pid.0)),
                    Reply::Affinity(mask) => drop(masks.insert(mask)),
                    _ => {}
                }
            }
        }
        Self { pids, own, masks }
    }

    /// Returns a pid as it is compared. 0 and negative numbers name groups or all processes, and are not
    /// changed.
    fn pid(&self, Pid(pid): Pid) -> Pid {
        match self.pids.get(&pid) {
            Some(known) => Pid(*known),
            None if pid <= 0 => Pid(pid),
            None => Pid(pid.saturating_add(UNKNOWN_PID)),
        }
    }

    /// Returns whether a number is that of a process itself.
    fn is_own(&self, role: Role, number: i32) -> bool {
        self.own.get(&role).is_some_and(|own| own.contains(&number))
    }

    /// Renames a number that a process gives as its own.
    fn own(&self, role: Role, number: i32) -> Pid {
        if self.is_own(role, number) { pid_of(role) } else { Pid(number.saturating_add(UNKNOWN_PID)) }
    }

    fn line(&self, state: &mut State, site: Site<'_>) -> Line {
        let Line { call, reply } = site.line;
        let role = site.section.role;
        let whole = matches!(reply, Reply::Count(count) if *count == data_of(call).len());
        let mut renamed = self.call(state, role, call);
        match (call, reply) {
            (Call::Close { fd }, Reply::Unit) => {
                state.fds.remove(&fd.0);
                state.stat = state.stat.filter(|stat| stat != fd);
                state.fdinfo = state.fdinfo.filter(|fdinfo| fdinfo != fd);
            }
            (Call::Openat { path, .. } | Call::Openat2 { path, .. }, Reply::Fd(fd)) if is_fdinfo(path) => {
                state.fdinfo = Some(*fd);
            }
            (Call::Openat { path, .. } | Call::Openat2 { path, .. }, Reply::Fd(fd)) if path.0 == b"stat" => {
                state.stat = Some(*fd);
            }
            _ => {}
        }
        // From here on the number refers to another file.
        if let (Some(number), Reply::Unit, Some(new)) = (call.chosen(), reply, renamed.chosen_mut()) {
            *new = state.new_fd(*number);
        }
        let reply = match reply {
            Reply::Count(_) if whole => Reply::Count(data_of(&renamed).len()),
            reply => self.reply(state, role, call, reply),
        };
        Line { call: renamed, reply }
    }

    fn call(&self, state: &mut State, role: Role, call: &Call) -> Call {
        let mut call = call.clone();
        call.descriptors_mut().into_iter().for_each(|fd| *fd = state.fd(*fd));
        call.pids_mut().into_iter().for_each(|pid| *pid = self.pid(*pid));
        match &mut call {
            // The only paths with a pid that the core builds. Other paths come from the caller.
            Call::Openat { path, flags: OpenFlags::Directory, .. }
            | Call::Openat2 { path, flags: OpenFlags::Directory, .. } => {
                *path = self.digits(&self.proc_path(path), |pid| self.pid(Pid(pid)));
            }
            Call::Openat { path, .. } | Call::Openat2 { path, .. } if is_fdinfo(path) => {
                if let Some((fd, b"")) = path.0.strip_prefix(FDINFO).and_then(text::number) {
                    let number = format!("{}", state.fd(Fd(fd)).0);
                    *path = [FDINFO, number.as_bytes()].concat().as_slice().into();
                }
            }
            Call::OpenTree { path, .. } => *path = self.namespace_path(path),
            Call::Write { data, .. } | Call::WriteNowait { data, .. } => *data = self.record(data),
            Call::Send { data, .. } => *data = self.value_or_pid_line(state, data),
            Call::Poll { fds, .. } => *fds = state.poll_fds(fds),
            Call::CloneSibling { tid }
            | Call::CloneChild { tid }
            | Call::Fork { tid, .. }
            | Call::CloneInit { tid, .. } => {
                *tid = tid.map(|TidAddress { address, .. }| TidAddress {
                    address: if state.tid == Some(address) { 1 } else { address },
                    cached: 0,
                });
            }
            Call::Execve { argv, .. } if matches!(role, Role::Tool(_)) => {
                if let Some(pid) = argv.get_mut(1) {
                    *pid = self.digits(pid, |pid| self.pid(Pid(pid)));
                }
            }
            Call::Sigaction { action, .. } => *action = state.action(*action),
            _ => {}
        }
        call
    }

    fn reply(&self, state: &mut State, role: Role, call: &Call, reply: &Reply) -> Reply {
        match reply {
            Reply::Fd(fd) => Reply::Fd(state.new_fd(*fd)),
            Reply::Received(received) => {
                Reply::Received(Received { fd: received.fd.map(|fd| state.new_fd(fd)), ..*received })
            }
            Reply::Pair(one, other) => Reply::Pair(state.new_fd(*one), state.new_fd(*other)),
            Reply::Data(data) => Reply::Data(match call {
                Call::Readlink { path, .. } if path.0 == b"/proc/self" => self.proc_self(role, data),
                Call::Read { fd, .. } if state.fdinfo == Some(*fd) => self.fdinfo(data),
                Call::Read { fd, .. } if state.stat == Some(*fd) => match is_exiting(&data.0) {
                    Some(true) => Bytes(b"it is exiting".into()),
                    Some(false) => Bytes(b"it is not exiting".into()),
                    None => data.clone(),
                },
                Call::Read { .. } => self.value_or_pid_line(state, data),
                _ => data.clone(),
            }),
            Reply::Polled { count, fds } => Reply::Polled { count: *count, fds: state.poll_fds(fds) },
            Reply::Parent(pid) => Reply::Parent(self.pid(*pid)),
            Reply::ParentOfInit { pid, pidfd } => {
                Reply::ParentOfInit { pid: self.pid(*pid), pidfd: pidfd.map(|pidfd| state.new_fd(pidfd)) }
            }
            Reply::Waited(Waited { pid, status }) => {
                Reply::Waited(Waited { pid: self.pid(*pid), status: *status })
            }
            // The pid as numbered in the process's own pid namespace.
            Reply::Pid(_) => Reply::Pid(pid_of(role)),
            Reply::TidAddress(TidAddress { address, cached }) => {
                state.tid = Some(*address).filter(|address| *address != 0);
                let cached = if *cached == 0 { 0 } else { self.own(role, *cached).0 };
                Reply::TidAddress(TidAddress { address: usize::from(*address != 0), cached })
            }
            Reply::Affinity(_) => Reply::Affinity(0),
            Reply::Action(action) => Reply::Action(state.old_action(*action)),
            Reply::Errno(Errno::ECONNRESET) => match call {
                Call::Read { .. } => Reply::Data(Bytes::default()),
                Call::ReceiveFd { .. } => {
                    Reply::Received(Received { byte: None, fd: None, truncated: false })
                }
                _ => Reply::Errno(Errno::EPIPE),
            },
            other => other.clone(),
        }
    }
}

/// The path of a descriptor's fdinfo, below /proc.
const FDINFO: &[u8] = b"self/fdinfo/";

fn is_fdinfo(path: &Bytes) -> bool {
    path.0.starts_with(FDINFO)
}

/// Adds the number that the new process has in the /proc of another pid namespace, as the launcher has read
/// it from the fdinfo of its pidfd.
fn number_in_other_proc(section: &Section, pids: &mut BTreeMap<i32, i32>) {
    let mut child = None;
    for line in &section.lines {
        match (&line.call, &line.reply) {
            (_, Reply::ParentOfInit { pid, .. }) => child = pids.get(&pid.0).copied(),
            (Call::Read { .. }, Reply::Data(data)) => {
                if let Some((number, child)) = pid_of_fdinfo(&data.0).zip(child) {
                    pids.entry(number.0).or_insert(child);
                }
            }
            _ => {}
        }
    }
}

/// Leaves out the supervision of the command by a minimal init, which depends on the command.
fn leave_out_supervision(section: &mut Section) {
    let begins = |line: &Line| matches!(line.call, Call::WaitSignal { .. });
    if let Some(begin) = section.lines.iter().position(begins) {
        section.lines.truncate(begin);
        section.end = End::Unknown;
    }
}

/// Merges successive closings of ranges into one of all descriptors above 2. The ranges lie between the kept
/// descriptors, whose numbers differ between two runs. A closed number keeps its name until a call returns it
/// again, because no process uses it meanwhile.
fn merge_closings(lines: &mut Vec<Line>) {
    let is_closing = |line: &Line| matches!(line.call, Call::CloseRange { .. });
    lines.dedup_by(|line, before| is_closing(line) && is_closing(before) && line.reply == before.reply);
    for line in lines.iter_mut().filter(|line| is_closing(line)) {
        // A minimal init closes all, from 0 on.
        let first = if matches!(line.call, Call::CloseRange { first: 0, .. }) { 0 } else { 3 };
        line.call = Call::CloseRange { first, last: u32::MAX };
    }
}

fn data_of(call: &Call) -> &[u8] {
    match call {
        Call::Write { data, .. } | Call::WriteNowait { data, .. } | Call::Send { data, .. } => &data.0,
        _ => &[],
    }
}

#[cfg(test)]
mod tests;
