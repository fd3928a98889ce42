//! Walks through every section line by line and finds the object behind each descriptor and the content of
//! each message.
//!
//! Descriptor numbers alone do not help a reader, and they are reused after a close. So each process has a
//! descriptor table, which a new process inherits from its parent, as in the kernel.

use std::borrow::ToOwned;
use std::collections::{BTreeMap, VecDeque};
use std::string::String;
use std::vec;
use std::vec::Vec;

use super::words::Payload;
use super::{Document, SectionView, TOOL};
use crate::record::{Bytes, Call, Line, Reply};
use crate::transcript::{Role, Section};
use nsexec::sys::types::{CloneFlags, Errno, Fd, OpenFlags, Pid, PollEvents, PollFd, Received};

/// A connection between two processes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Channel {
    /// The init pipe, between the launcher and the stages.
    Init,
    /// The sync pipe between stage 0 and stage 1.
    ToStage1,
    /// The sync pipe between stage 0 and stage 2.
    ToStage2,
}

/// The shape of the start that a line belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Attempt {
    /// Through the three stages.
    #[default]
    Stages,
    /// Direct: the launcher creates the command's process itself.
    Direct,
    /// Through a child: the launcher creates stage 1 itself.
    Child,
    /// In place: the launcher itself becomes the command. Stage 0 is its helper.
    InPlace,
    /// A direct start that the kernel refused: the launcher gives it up for the stages.
    GivenUp,
}

/// The object behind a descriptor.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Object {
    /// One end of a channel.
    End {
        /// The channel.
        channel: Channel,
        /// Whether this is the outer end: the launcher's end of the init pipe, or stage 0's end of a sync
        /// pipe.
        outer: bool,
    },
    /// The log pipe, or standard error if there is no log pipe.
    Log,
    /// A namespace, with its path.
    Namespace(String),
    /// /proc itself.
    ProcRoot,
    /// The directory in /proc of the process that gets its id maps.
    ProcDir,
    /// A file in /proc, with the last component of its path.
    ProcFile(String),
    /// A process, by a pidfd.
    Process,
    /// A mount source, with its path if this process opened it.
    MountSource(String),
    /// A copy of the program, in memory or in an unlinked file.
    Copy,
}

/// The facts about a line that the line itself does not contain.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Context {
    /// The [column](Role::column) of the process that made the call.
    pub role: Option<Role>,
    /// The object that the call is about, or that it created.
    pub object: Option<Object>,
    /// The content of the transferred bytes.
    pub payload: Option<Payload>,
    /// The column of the process that the call waits for or kills.
    pub target: Option<Role>,
    /// Whether the process has left its initial user namespace.
    pub in_user: bool,
    /// Whether this setns was refused before, or this wait is for a process that was reaped before.
    pub again: bool,
    /// Whether the dumpable window is open.
    pub window: bool,
    /// The shape of the start.
    pub attempt: Attempt,
    /// Whether the last attempt to create a process failed.
    pub refused: bool,
    /// Whether the process has changed its ids since it last set the parent-death signal.
    pub changed_ids: bool,
}

/// A line with its context.
#[derive(Clone, Debug)]
pub struct AnnotatedLine<'a> {
    /// The line.
    pub line: &'a Line,
    /// The facts about it.
    pub context: Context,
}

/// Returns every line of every section with its context, in the order of the document.
#[must_use]
pub fn walk<'a>(document: &Document<'a>) -> Vec<Vec<AnnotatedLine<'a>>> {
    let mut order: Vec<(usize, &SectionView<'a>)> = document.sections.iter().enumerate().collect();
    // Parents come before children, since children inherit. The sort is stable: two mapping tools keep their
    // order.
    order.sort_by_key(|(_, view)| view.column());
    let pids = pids(document);
    let mount_sources = document.sections.iter().any(has_mount_sources);
    let in_place = is_in_place(document);
    let mut births = BTreeMap::<Role, VecDeque<Process>>::new();
    let mut walked: Vec<(usize, Vec<AnnotatedLine<'a>>)> = Vec::new();
    for (index, view) in order {
        let role = view.column();
        let inherited = role.and_then(|role| births.get_mut(&role)?.pop_front());
        let mut process = Process { role, mount_sources, ..inherited.unwrap_or_default() };
        let mut seen = Vec::new();
        for (line, attempt) in view.section.lines.iter().zip(attempts(view.section)) {
            process.attempt = if in_place { Attempt::InPlace } else { attempt };
            let context = Context { target: target(line, &pids), ..process.annotate(line) };
            if let Some(child) = created_in(attempt, role, line) {
                births.entry(child).or_default().push_back(process.fork(line));
            }
            seen.push(AnnotatedLine { line, context });
        }
        walked.push((index, seen));
    }
    walked.sort_by_key(|(index, _)| *index);
    walked.into_iter().map(|(_, seen)| seen).collect()
}

/// Returns whether a stage sends or receives mount sources, or is about to. Stage 0 opens its own mount
/// namespace for no other purpose.
fn has_mount_sources(view: &SectionView<'_>) -> bool {
    view.section.lines.iter().any(|line| match &line.call {
        Call::SendFd { .. } | Call::ReceiveFd { .. } => true,
        Call::Openat { path, .. } => path.0 == b"/proc/self/ns/mnt" && view.column() == Some(Role::Stage(0)),
        _ => false,
    })
}

/// Returns the shape of the start for each line of a section. The launcher may try a direct start first. Each
/// attempt begins with the creation of the init pipe.
fn attempts(section: &Section) -> Vec<Attempt> {
    let lines = &section.lines;
    let is_init = |line: &Line| matches!(line.call, Call::CloneInit { .. });
    let is_child = |line: &Line| matches!(line.call, Call::CloneChild { .. });
    if section.role != Role::Launcher {
        let attempt = match lines.first() {
            Some(line) if line.reply != Reply::Child => Attempt::Stages,
            Some(line) if is_init(line) => Attempt::Direct,
            Some(line) if is_child(line) => Attempt::Child,
            _ => Attempt::Stages,
        };
        return vec![attempt; lines.len()];
    }
    let is_stage_0 = |line: &Line| matches!(line.call, Call::Fork { .. } | Call::CloneSibling { .. });
    let forks = lines.iter().any(is_stage_0);
    let mut attempts = Vec::new();
    for attempt in lines.chunk_by(|_, next| next.call != Call::Socketpair) {
        let found = match attempt.iter().find(|line| is_init(line)) {
            Some(line) if forks || matches!(line.reply, Reply::Errno(_)) => Attempt::GivenUp,
            Some(_) => Attempt::Direct,
            None if attempt.iter().any(is_child) => Attempt::Child,
            None => Attempt::Stages,
        };
        attempts.extend(attempt.iter().map(|_| found));
    }
    attempts
}

/// Returns whether a document shows a direct start: it has no stage 0 and no stage 1.
pub(super) fn is_direct(document: &Document<'_>) -> bool {
    document.sections.iter().any(|view| attempts(view.section).contains(&Attempt::Direct))
        && !document.sections.iter().any(|view| matches!(view.column(), Some(Role::Stage(0 | 1))))
}

/// Returns whether a document shows a start in place: the launcher's first pipe is the log pipe.
pub(super) fn is_in_place(document: &Document<'_>) -> bool {
    let launcher = document.sections.iter().find(|view| view.column() == Some(Role::Launcher));
    let mut lines = launcher.into_iter().flat_map(|view| &view.section.lines);
    let first = lines.find(|line| matches!(line.call, Call::Socketpair | Call::Pipe2));
    first.is_some_and(|line| line.call == Call::Pipe2)
}

/// Returns whether a document shows a start through a child: it has no stage 0.
pub(super) fn is_through_child(document: &Document<'_>) -> bool {
    document.sections.iter().any(|view| attempts(view.section).contains(&Attempt::Child))
}

/// Maps each pid to its role. The pids are those of the launcher's pid namespace. A section lists only the
/// children that it created itself.
fn pids(document: &Document<'_>) -> BTreeMap<i32, Role> {
    let mut pids = BTreeMap::new();
    for view in document.sections {
        for (line, attempt) in view.section.lines.iter().zip(attempts(view.section)) {
            let child = created_in(attempt, view.column(), line);
            if let (Some(child), Some(pid)) = (child, line.reply.child()) {
                pids.insert(pid.0, child);
            }
        }
    }
    pids
}

fn target(line: &Line, pids: &BTreeMap<i32, Role>) -> Option<Role> {
    let pid = match (&line.call, &line.reply) {
        (Call::Wait4 { .. }, Reply::Waited(waited)) => waited.pid,
        (Call::Kill { pid, .. } | Call::PidfdOpen { pid }, _) => *pid,
        _ => return None,
    };
    pids.get(&pid.0).copied()
}

/// Returns the column of the process that this line creates.
#[must_use]
pub fn created_role(parent: Option<Role>, line: &Line) -> Option<Role> {
    line.reply.child()?;
    match (parent?, &line.call) {
        (Role::Launcher, Call::Fork { .. } | Call::CloneSibling { .. }) => Some(Role::Stage(0)),
        (Role::Launcher, Call::CloneChild { .. }) => Some(Role::Stage(1)),
        (Role::Launcher, Call::CloneInit { .. }) => Some(Role::Stage(2)),
        (Role::Stage(0), Call::CloneSibling { .. }) => Some(Role::Stage(1)),
        (Role::Stage(0), Call::Fork { .. }) => Some(TOOL),
        (Role::Stage(1), Call::CloneSibling { .. }) => Some(Role::Stage(2)),
        (Role::Stage(2), Call::Fork { .. }) => Some(Role::Stage(3)),
        _ => None,
    }
}

/// Returns the column of the process that this line of such an attempt creates. A process that is given up
/// has none.
pub(super) fn created_in(attempt: Attempt, parent: Option<Role>, line: &Line) -> Option<Role> {
    created_role(parent, line).filter(|_| attempt != Attempt::GivenUp)
}

/// Returns the descriptor that a call is about. Of a poll it is the first of which it requests an event: a
/// stage polls the init pipe for its hang-up, before the pipe from which it reads.
#[must_use]
pub fn descriptor(call: &Call) -> Option<Fd> {
    if let Call::Poll { fds, .. } = call {
        let requested = fds.iter().find(|polled| polled.events != PollEvents::NONE);
        return requested.or(fds.first()).map(|polled| polled.fd);
    }
    call.descriptors().first().map(|fd| **fd).filter(|fd| *fd != Fd::CWD)
}

/// The state of one process, as far as its recorded lines show it.
#[derive(Clone, Debug, Default)]
struct Process {
    role: Option<Role>,
    table: BTreeMap<i32, Object>,
    pairs: usize,
    in_user: bool,
    window: bool,
    mount_sources: bool,
    refused: Vec<Fd>,
    reaped: Vec<Pid>,
    attempt: Attempt,
    creation_refused: bool,
    changed_ids: bool,
    last_payloads: BTreeMap<(Channel, bool), Payload>,
}

impl Process {
    /// Returns the initial state of the child that this line creates. It inherits descriptors and namespaces,
    /// but not the last messages. A clone may create a user namespace for it.
    fn fork(&self, line: &Line) -> Self {
        let created = matches!(&line.call, Call::CloneInit { namespaces, .. } if namespaces.contains(CloneFlags::NEWUSER));
        Self { table: self.table.clone(), in_user: self.in_user || created, ..Self::default() }
    }

    fn annotate(&mut self, line: &Line) -> Context {
        let object = self.object(line);
        let payload = object.as_ref().and_then(|object| self.payload(object, line));
        let (window, in_user) = (self.window, self.in_user);
        let again = match line.call {
            Call::Setns { fd, .. } => self.refused.contains(&fd),
            Call::Wait4 { pid, .. } => self.reaped.contains(&pid),
            _ => false,
        };
        let changed_ids = self.changed_ids;
        self.remember(line);
        Context {
            role: self.role,
            object,
            payload,
            target: None,
            in_user,
            again,
            window,
            attempt: self.attempt,
            refused: self.creation_refused,
            changed_ids,
        }
    }

    /// Returns the object that the line is about. A descriptor without a recorded creation was inherited over
    /// exec: its first use shows what it is.
    fn object(&mut self, line: &Line) -> Option<Object> {
        let init = Object::End { channel: Channel::Init, outer: self.role == Some(Role::Launcher) };
        if let Some(made) = self.made(line) {
            return Some(made);
        }
        let fd = descriptor(&line.call)?;
        let begins = matches!(self.role, Some(Role::Launcher | Role::Stage(0)));
        let guess = match line.call {
            Call::Poll { ref fds, .. } => return self.polled(fds, fd),
            _ if fd == Fd::STDERR => Object::Log,
            Call::Read { .. } | Call::Send { .. } | Call::SocketType { .. } if begins => init,
            Call::WriteNowait { .. } => Object::Log,
            _ => return self.table.get(&fd.0).cloned(),
        };
        Some(self.table.entry(fd.0).or_insert(guess).clone())
    }

    /// Returns the object of a poll. The launcher waits for the init pipe, even if the pidfd of a stage is
    /// before it.
    fn polled(&self, fds: &[PollFd], first: Fd) -> Option<Object> {
        let init = Object::End { channel: Channel::Init, outer: true };
        let is_init = |polled: &PollFd| self.table.get(&polled.fd.0) == Some(&init);
        let waits_for_init = self.role == Some(Role::Launcher) && fds.iter().any(is_init);
        if waits_for_init { Some(init) } else { self.table.get(&first.0).cloned() }
    }

    /// Enters the created objects into the table, and returns one of them.
    fn made(&mut self, line: &Line) -> Option<Object> {
        match (&line.call, &line.reply) {
            (Call::Socketpair, Reply::Pair(one, other)) => {
                let (channel, outer_first) = match (self.role, self.pairs) {
                    // That of the helper, which has the part of stage 0.
                    (Some(Role::Launcher), _) if self.attempt == Attempt::InPlace => {
                        (Channel::ToStage1, false)
                    }
                    // The launcher keeps the first end. Stage 0 keeps the second, as runc does.
                    (Some(Role::Launcher), _) => (Channel::Init, true),
                    (_, 0) => (Channel::ToStage1, false),
                    _ => (Channel::ToStage2, false),
                };
                self.pairs += 1;
                self.table.insert(one.0, Object::End { channel, outer: outer_first });
                self.table.insert(other.0, Object::End { channel, outer: !outer_first });
                Some(Object::End { channel, outer: true })
            }
            (Call::Pipe2, Reply::Pair(one, other)) => {
                self.table.insert(one.0, Object::Log);
                self.table.insert(other.0, Object::Log);
                Some(Object::Log)
            }
            (Call::PidfdOpen { .. }, Reply::Fd(fd)) => {
                self.table.insert(fd.0, Object::Process);
                Some(Object::Process)
            }
            (Call::MemfdCreate { .. }, Reply::Fd(fd)) => {
                self.table.insert(fd.0, Object::Copy);
                Some(Object::Copy)
            }
            (Call::Openat { path, flags, .. } | Call::Openat2 { path, flags, .. }, reply) => {
                let object = match opened(path, *flags) {
                    // Before the first socketpair, this is a copy of the program.
                    Object::MountSource(_) if self.pairs == 0 => Object::Copy,
                    object => object,
                };
                if let Reply::Fd(fd) = reply {
                    self.table.insert(fd.0, object.clone());
                }
                Some(object)
            }
            _ => None,
        }
    }

    fn payload(&mut self, object: &Object, line: &Line) -> Option<Payload> {
        let Object::End { channel, outer } = object else { return None };
        let (data, sends) = match (&line.call, &line.reply) {
            (Call::Send { data, .. } | Call::Write { data, .. }, _) => (data, true),
            (Call::Read { .. }, Reply::Data(data)) if !data.0.is_empty() => (data, false),
            (Call::SendFd { .. }, _) => return Some(Payload::MountSource),
            (Call::ReceiveFd { .. }, Reply::Received(received)) => {
                return received.byte.map(|_| Payload::MountSource);
            }
            _ => return None,
        };
        let payload = match (channel, sends == *outer) {
            (Channel::Init, true) => Payload::from_launcher(&data.0),
            (Channel::Init, false) if self.attempt == Attempt::Child => Payload::of_child(&data.0),
            (Channel::Init, false) => Payload::to_launcher(&data.0),
            _ => Payload::between_stages(
                &data.0,
                self.last_payloads.get(&(*channel, sends)),
                self.mount_sources,
            ),
        };
        self.last_payloads.insert((*channel, sends), payload.clone());
        Some(payload)
    }

    fn remember(&mut self, line: &Line) {
        match (&line.call, &line.reply) {
            (Call::Close { fd }, _) => {
                self.table.remove(&fd.0);
            }
            (_, Reply::Received(Received { fd: Some(fd), .. })) => {
                self.table.insert(fd.0, Object::MountSource(String::new()));
            }
            // After the exec, the first use of a descriptor identifies it again: a runc may execute itself
            // anew as stage 0.
            (Call::Execve { .. } | Call::Execveat { .. }, Reply::NoReturn) => self.table.clear(),
            (Call::Setns { kind, .. }, Reply::Unit) => self.in_user |= kind.contains(CloneFlags::NEWUSER),
            (Call::Setns { fd, .. }, Reply::Errno(Errno::EPERM)) => self.refused.push(*fd),
            (Call::Unshare { flags }, Reply::Unit) => self.in_user |= flags.contains(CloneFlags::NEWUSER),
            (_, Reply::Waited(waited)) => self.reaped.push(waited.pid),
            (Call::SetDumpable { dumpable }, Reply::Unit) => self.window = *dumpable,
            (Call::CloneInit { .. } | Call::CloneChild { .. } | Call::Fork { .. }, reply) => {
                self.creation_refused = matches!(reply, Reply::Errno(_));
            }
            (Call::Socketpair, _) => self.creation_refused = false,
            (
                Call::Setuid { .. } | Call::Setgid { .. } | Call::Setresuid { .. } | Call::SetGroups { .. },
                Reply::Unit,
            ) => {
                self.changed_ids = true;
            }
            (Call::SetPdeathsig { .. }, _) => self.changed_ids = false,
            _ => {}
        }
    }
}

fn opened(path: &Bytes, flags: OpenFlags) -> Object {
    let path = String::from_utf8_lossy(&path.0);
    match flags {
        OpenFlags::Namespace => Object::Namespace(path.into_owned()),
        OpenFlags::Directory if path == "/proc" => Object::ProcRoot,
        OpenFlags::Directory => Object::ProcDir,
        OpenFlags::Path => Object::MountSource(path.into_owned()),
        OpenFlags::Unnamed | OpenFlags::New => Object::Copy,
        _ => Object::ProcFile(path.rsplit('/').next().unwrap_or_default().to_owned()),
    }
}

impl Context {
    /// Returns the process at the other end, if the descriptor is an end of a channel.
    #[must_use]
    pub fn peer(&self) -> Option<Role> {
        match (self.object.as_ref()?, self.role) {
            (Object::End { outer, .. }, _) if self.attempt == Attempt::InPlace => {
                Some(if *outer { Role::Launcher } else { Role::Stage(0) })
            }
            (Object::End { channel: Channel::Init, outer: false }, _) => Some(Role::Launcher),
            (Object::End { channel: Channel::Init, outer: true }, _)
                if matches!(
                    self.payload,
                    Some(Payload::Go | Payload::Configuration | Payload::CgroupReady)
                ) =>
            {
                Some(Role::Stage(2))
            }
            (Object::End { channel: Channel::Init, outer: true }, _) if self.attempt != Attempt::Stages => {
                Some(Role::Stage(if self.attempt == Attempt::Child { 1 } else { 2 }))
            }
            (Object::End { channel: Channel::ToStage1, outer: true }, _) => Some(Role::Stage(1)),
            (Object::End { channel: Channel::ToStage2, outer: true }, _) => Some(Role::Stage(2)),
            (Object::End { .. }, _) => Some(Role::Stage(0)),
            _ => None,
        }
    }
}
