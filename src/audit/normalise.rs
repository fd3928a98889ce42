//! What a comparison leaves out or renames: [`RENAMED`], and nothing else.

use std::collections::BTreeMap;
use std::format;
use std::vec;
use std::vec::Vec;

use super::sections::{Site, inherit, pids};
use super::transcript::{Role, Run, Section};
use crate::procfs::is_exiting;
use crate::sys::record::{Bytes, Call, Line, Reply};
use crate::sys::types::{Errno, Fd, OpenFlags, Pid, PollFd, Received, SigAction, TidAddress, Waited};

/// How much two runs have to agree in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Grade {
    /// Everything that is recorded.
    Full,
    /// What strace tells too.
    Witness,
}

/// The list: what, how, and whether only for a comparison with a witness.
pub const RENAMED: &[(&str, &str, Grade)] = &[
    ("descriptor", "numbered from 3 in the order in which the process or its ancestors met it", Grade::Full),
    (
        "pid",
        "99 for the launcher, 100 + n for stage n, 110 + n for a mapping tool; also in paths, links, records, argv",
        Grade::Full,
    ),
    ("address", "1 for a thread id's and a trampoline's, 2 for a handler's", Grade::Full),
    (
        "a disposition as it was",
        "its handler alone: the flags and the mask are the caller's libc's",
        Grade::Full,
    ),
    ("CPU mask", "0, also in its record", Grade::Full),
    ("the stat file of stage 1", "whether it is exiting", Grade::Full),
    ("end of a dead peer", "ECONNRESET of a read is an end of file, that of a send EPIPE", Grade::Full),
    ("the launcher's reads of the log pipe", "one read, its records sorted", Grade::Full),
    ("the launcher's reaping of whoever is left", "in the order of the stages", Grade::Full),
    (
        "where SIGKILL struck",
        "of two processes that it ended, only what both came to: the recorder writes down what has come back",
        Grade::Full,
    ),
    ("environment of an exec", "the number of its strings", Grade::Witness),
    ("links of a file, entries of a directory, cached thread id", "0", Grade::Witness),
    ("name of a process", "its first 15 bytes", Grade::Witness),
];

/// The number that stands for a process.
#[must_use]
pub fn pid_of(role: Role) -> Pid {
    Pid(match role {
        Role::Launcher => 99,
        Role::Stage(number) => 100 + i32::from(number),
        Role::Tool(number) => 110 + i32::from(number),
        Role::Other(number) => 120 + i32::from(number),
    })
}

/// The run as it is compared.
#[must_use]
pub fn normalise(run: &Run, grade: Grade) -> Run {
    let names =
        Names { pids: pids(run).into_iter().map(|(role, pid)| (pid.0, pid_of(role).0)).collect(), grade };
    let mut lines: BTreeMap<Role, Vec<Line>> = BTreeMap::new();
    inherit(run, &State::default(), |state, site| {
        lines.entry(site.section.role).or_default().push(names.line(state, site));
    });
    let mut normal = Run { origin: run.origin, ..Run::default() };
    for section in &run.sections {
        let mut lines = lines.remove(&section.role).unwrap_or_default();
        if section.role == Role::Launcher {
            merge_log_reads(&mut lines);
            sort_reaping(&mut lines);
        }
        normal.sections.push(Section { lines, ..section.clone() });
    }
    normal
}

/// What a process knows at a line.
#[derive(Clone, Debug)]
struct State {
    fds: BTreeMap<i32, i32>,
    next: i32,
    /// The next word on a sync pipe is a pid.
    pid_comes: bool,
    /// The open stat file of stage 1.
    stat: Option<Fd>,
}

impl Default for State {
    fn default() -> Self {
        Self { fds: BTreeMap::new(), next: 3, pid_comes: false, stat: None }
    }
}

impl State {
    /// A descriptor that is known, or was there before anything was recorded.
    fn fd(&mut self, fd: Fd) -> Fd {
        if fd.0 <= 2 {
            return fd;
        }
        match self.fds.get(&fd.0) {
            Some(known) => Fd(*known),
            None => self.new_fd(fd),
        }
    }

    fn new_fd(&mut self, fd: Fd) -> Fd {
        let number = self.next;
        self.next += 1;
        self.fds.insert(fd.0, number);
        Fd(number)
    }
}

struct Names {
    pids: BTreeMap<i32, i32>,
    grade: Grade,
}

impl Names {
    fn line(&self, state: &mut State, site: Site<'_>) -> Line {
        let Line { call, reply } = site.line;
        let whole = matches!(reply, Reply::Count(count) if *count == data_of(call).len());
        let renamed = self.call(state, call);
        match (call, reply) {
            (Call::Close { fd }, Reply::Unit) => {
                state.fds.remove(&fd.0);
                state.stat = state.stat.filter(|stat| stat != fd);
            }
            (Call::Openat { path, .. } | Call::Openat2 { path, .. }, Reply::Fd(fd)) if path.0 == b"stat" => {
                state.stat = Some(*fd);
            }
            _ => {}
        }
        let reply = match reply {
            Reply::Count(_) if whole => Reply::Count(data_of(&renamed).len()),
            reply => self.reply(state, site, call, reply),
        };
        Line { call: renamed, reply }
    }

    fn call(&self, state: &mut State, call: &Call) -> Call {
        let mut call = call.clone();
        match &mut call {
            Call::Openat { dir, path, flags } | Call::Openat2 { dir, path, flags } => {
                *dir = state.fd(*dir);
                // Below /proc the directory of a process is its number alone.
                *path = if *flags == OpenFlags::Directory { self.whole_pid(path) } else { self.text(path) };
            }
            Call::Write { fd, data } | Call::WriteNowait { fd, data } => {
                *fd = state.fd(*fd);
                *data = self.text(data);
            }
            Call::Send { fd, data } => {
                *fd = state.fd(*fd);
                *data = self.word_or_text(state, data);
            }
            Call::Close { fd }
            | Call::Read { fd, .. }
            | Call::Fstatfs { fd }
            | Call::SocketType { fd }
            | Call::Getdents64 { fd, .. }
            | Call::SetCloexec { fd }
            | Call::GetSeals { fd }
            | Call::AddSeals { fd, .. }
            | Call::Fchmod { fd, .. }
            | Call::Setns { fd, .. } => *fd = state.fd(*fd),
            Call::SendFd { socket, fd } => {
                *socket = state.fd(*socket);
                *fd = state.fd(*fd);
            }
            Call::ReceiveFd { socket } => *socket = state.fd(*socket),
            Call::Dup3 { fd, number } => {
                *fd = state.fd(*fd);
                *number = state.fd(*number);
            }
            Call::Sendfile { to, from, .. } => (*to, *from) = (state.fd(*to), state.fd(*from)),
            Call::Execveat { fd, envp, .. } => {
                *fd = state.fd(*fd);
                if self.grade == Grade::Witness {
                    *envp = vec![Bytes::default(); envp.len()];
                }
            }
            Call::Poll { fds, .. } => *fds = poll_fds(state, fds),
            Call::CloneSibling { tid } | Call::Fork { tid, .. } => {
                *tid = tid.map(|tid| self.tid(tid, None));
            }
            Call::Execve { argv, envp, .. } => {
                if let Some(pid) = argv.get_mut(1) {
                    *pid = self.whole_pid(pid);
                }
                if self.grade == Grade::Witness {
                    *envp = vec![Bytes::default(); envp.len()];
                }
            }
            Call::Wait4 { pid, .. } | Call::Kill { pid, .. } | Call::PidfdOpen { pid } => {
                *pid = self.pid(*pid);
            }
            Call::SetName { name } if self.grade == Grade::Witness => name.0.truncate(15),
            Call::Sigaction { action, .. } => *action = without_addresses(*action),
            _ => {}
        }
        call
    }

    fn reply(&self, state: &mut State, site: Site<'_>, call: &Call, reply: &Reply) -> Reply {
        let own = pid_of(site.section.role);
        match reply {
            Reply::Fd(fd) => Reply::Fd(state.new_fd(*fd)),
            Reply::Received(received) => {
                Reply::Received(Received { fd: received.fd.map(|fd| state.new_fd(fd)), ..*received })
            }
            Reply::Pair(one, other) => Reply::Pair(state.new_fd(*one), state.new_fd(*other)),
            Reply::Data(_) if self.grade == Grade::Witness && matches!(call, Call::Getdents64 { .. }) => {
                Reply::Data(Bytes::default())
            }
            Reply::Data(data) if matches!(call, Call::Readlink { .. }) => Reply::Data(self.whole_pid(data)),
            Reply::Data(data) if matches!(call, Call::Read { fd, .. } if state.stat == Some(*fd)) => {
                Reply::Data(match is_exiting(&data.0) {
                    Some(true) => Bytes(b"it is exiting".into()),
                    Some(false) => Bytes(b"it is not exiting".into()),
                    None => data.clone(),
                })
            }
            Reply::Data(data) => Reply::Data(self.word_or_text(state, data)),
            Reply::Links(_) if self.grade == Grade::Witness => Reply::Links(0),
            Reply::Polled { count, fds } => Reply::Polled { count: *count, fds: poll_fds(state, fds) },
            Reply::Parent(pid) => Reply::Parent(self.pid(*pid)),
            Reply::Waited(Waited { pid, status }) => {
                Reply::Waited(Waited { pid: self.pid(*pid), status: *status })
            }
            // In its own numbering, which may be that of a new namespace.
            Reply::Pid(_) => Reply::Pid(own),
            Reply::TidAddress(tid) => Reply::TidAddress(self.tid(*tid, Some(own))),
            Reply::Affinity(_) => Reply::Affinity(0),
            Reply::Action(action) => {
                let SigAction { handler, .. } = without_addresses(*action);
                Reply::Action(SigAction { handler, ..SigAction::DEFAULT })
            }
            Reply::Errno(Errno::ECONNRESET) if matches!(call, Call::Read { .. }) => {
                Reply::Data(Bytes::default())
            }
            Reply::Errno(Errno::ECONNRESET) if matches!(call, Call::ReceiveFd { .. }) => {
                Reply::Received(Received { byte: None, fd: None, truncated: false })
            }
            Reply::Errno(Errno::ECONNRESET) => Reply::Errno(Errno::EPIPE),
            other => other.clone(),
        }
    }

    fn pid(&self, pid: Pid) -> Pid {
        Pid(self.pids.get(&pid.0).copied().unwrap_or(pid.0))
    }

    fn tid(&self, tid: TidAddress, own: Option<Pid>) -> TidAddress {
        let cached = match (self.grade, own) {
            (Grade::Full, Some(own)) if tid.cached != 0 => own.0,
            _ => 0,
        };
        TidAddress { address: usize::from(tid.address != 0), cached }
    }

    fn whole_pid(&self, argument: &Bytes) -> Bytes {
        let pid = core::str::from_utf8(&argument.0).ok().and_then(|text| text.parse().ok());
        match pid.and_then(|pid: i32| self.pids.get(&pid)) {
            Some(known) => Bytes(format!("{known}").into_bytes()),
            None => argument.clone(),
        }
    }

    /// A word of a sync pipe: after the announcement of a pid comes a pid.
    fn word_or_text(&self, state: &mut State, data: &Bytes) -> Bytes {
        const RECVPID_PLS: [u8; 4] = 0x42_u32.to_ne_bytes();
        let Ok(word) = <[u8; 4]>::try_from(&data.0[..]) else { return self.text(data) };
        if core::mem::take(&mut state.pid_comes) {
            return Bytes(self.pid(Pid(i32::from_ne_bytes(word))).0.to_ne_bytes().into());
        }
        state.pid_comes = word == RECVPID_PLS;
        data.clone()
    }

    /// Pids in paths of /proc, in log records and in the pid line; the CPU mask in its record.
    fn text(&self, data: &Bytes) -> Bytes {
        /// What stands before a pid.
        const BEFORE: [&[u8]; 7] =
            [b"/proc/", b"(", b"stage1_pid\":", b"stage2_pid\":", b"\"pid\": ", b"pid_first\": ", b" on "];
        const MASK: &[u8] = b"affinity: 0x";
        let mut out: Vec<u8> = Vec::new();
        let mut rest = &data.0[..];
        while let Some((first, tail)) = rest.split_first() {
            let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            if out.ends_with(MASK) {
                out.push(b'0');
                let hex = rest.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
                rest = &rest[hex.max(1)..];
            } else if digits > 0 {
                let number = core::str::from_utf8(&rest[..digits]).unwrap_or_default();
                let known = number.parse().ok().and_then(|pid: i32| self.pids.get(&pid).copied());
                let known = known.filter(|_| BEFORE.iter().any(|before| out.ends_with(before)));
                match record_writer(&out).or(known) {
                    Some(known) => out.extend(format!("{known}").bytes()),
                    None => out.extend(&rest[..digits]),
                }
                rest = &rest[digits..];
            } else {
                out.push(*first);
                rest = tail;
            }
        }
        Bytes(out)
    }
}

/// At the head of a record, `nsexec-1[`, the stage says who writes, whatever its number is in its own namespace.
fn record_writer(before: &[u8]) -> Option<i32> {
    let head = before.strip_suffix(b"[")?;
    let stage = match head {
        [.., b'n', b's', b'e', b'x', b'e', b'c', b'-', stage @ b'0'..=b'2'] => stage - b'0',
        [.., b'n', b's', b'e', b'x', b'e', b'c'] => 0,
        _ => return None,
    };
    Some(pid_of(Role::Stage(stage)).0)
}

fn data_of(call: &Call) -> &[u8] {
    match call {
        Call::Write { data, .. } | Call::WriteNowait { data, .. } | Call::Send { data, .. } => &data.0,
        _ => &[],
    }
}

fn poll_fds(state: &mut State, fds: &[PollFd]) -> Vec<PollFd> {
    fds.iter().map(|fd| PollFd { fd: state.fd(fd.fd), ..*fd }).collect()
}

fn without_addresses(action: SigAction) -> SigAction {
    let restorer = usize::from(action.restorer != 0);
    SigAction { handler: action.handler.min(2), restorer, ..action }
}

/// How the stages' records come through the log pipe depends on who was faster.
fn merge_log_reads(lines: &mut Vec<Line>) {
    let made = lines.iter().find_map(|line| match (&line.call, &line.reply) {
        (Call::Pipe2, Reply::Pair(read, _)) => Some(*read),
        _ => None,
    });
    // A runtime's launcher has made it before anything was recorded; then its records tell.
    let pipe = made.or_else(|| {
        lines.iter().find_map(|line| match (&line.call, &line.reply) {
            (Call::Read { fd, .. }, Reply::Data(data)) if data.0.starts_with(b"{\"level\":") => Some(*fd),
            _ => None,
        })
    });
    let mut all: Vec<u8> = Vec::new();
    let mut first = None;
    let mut index = 0;
    lines.retain(|line| {
        let data = match (&line.call, &line.reply) {
            (Call::Read { fd, .. }, Reply::Data(data)) if Some(*fd) == pipe && !data.0.is_empty() => data,
            _ => {
                index += 1;
                return true;
            }
        };
        all.extend(&data.0);
        let keep = first.is_none();
        if keep {
            first = Some(index);
            index += 1;
        }
        keep
    });
    if let Some(Line { reply, .. }) = first.and_then(|index| lines.get_mut(index)) {
        let mut records: Vec<&[u8]> = all.split_inclusive(|byte| *byte == b'\n').collect();
        records.sort_unstable();
        *reply = Reply::Data(Bytes(records.concat()));
    }
}

/// Of several that have ended wait4 gives any first: who that is depends on who was faster.
fn sort_reaping(lines: &mut [Line]) {
    let reaped = |line: &Line| match (&line.call, &line.reply) {
        (Call::Wait4 { pid: Pid::ANY, .. }, Reply::Waited(waited)) => Some(waited.pid.0),
        _ => None,
    };
    for run in lines.chunk_by_mut(|one, other| reaped(one).is_some() && reaped(other).is_some()) {
        run.sort_by_key(reaped);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::types::{WaitFor, WaitStatus};

    fn names() -> Names {
        Names { pids: [(4711, 101), (4712, 102)].into(), grade: Grade::Full }
    }

    #[test]
    fn pids_are_renamed_where_a_pid_stands_and_nowhere_else() {
        for (text, renamed) in [
            ("/proc/4711", "/proc/101"),
            ("/proc/47110/x", "/proc/47110/x"),
            ("0 4711 1\n", "0 4711 1\n"),
            ("{\"stage1_pid\":4711,\"stage2_pid\":4712}\n", "{\"stage1_pid\":101,\"stage2_pid\":102}\n"),
            ("\"nsexec-2[1]: pid (4712)\"", "\"nsexec-2[102]: pid (102)\""),
            ("\"nsexec[9]: affinity: 0xff3\"", "\"nsexec[100]: affinity: 0x0\""),
        ] {
            assert_eq!(names().text(&text.as_bytes().into()), renamed.as_bytes().into());
        }
    }

    #[test]
    fn a_word_is_a_pid_only_after_its_announcement() {
        let mut state = State::default();
        let word = |number: i32| Bytes(number.to_ne_bytes().into());
        let said = [4711, 0x42, 4712, 4711].map(|number| names().word_or_text(&mut state, &word(number)));
        assert_eq!(said, [4711, 0x42, 102, 4711].map(word));
    }

    #[test]
    fn of_a_stat_file_the_answer_is_compared() {
        let lines = |flags: u32| {
            let stat = std::format!("4711 (a) S 1 {flags} 0 0 -1 {flags} 9 9\n").into_bytes();
            let open = Call::Openat2 { dir: Fd(8), path: b"stat"[..].into(), flags: OpenFlags::ReadOnly };
            let mut section = Section::new(Role::Stage(0));
            section.lines = vec![
                Line { call: open, reply: Reply::Fd(Fd(9)) },
                Line { call: Call::Read { fd: Fd(9), len: 1280 }, reply: Reply::Data(Bytes(stat)) },
            ];
            normalise(&Run { sections: vec![section], ..Run::default() }, Grade::Full)
        };
        assert_eq!(lines(0x40), lines(0x40_0040));
        assert_ne!(lines(0x40), lines(0x44));
    }

    #[test]
    fn descriptors_count_up_however_the_kernel_reuses_them() {
        let mut run = Run::default();
        let mut section = Section::new(Role::Stage(1));
        for fd in [7, 7, 5] {
            section.lines.push(Line { call: Call::Pipe2, reply: Reply::Pair(Fd(fd), Fd(fd + 1)) });
            section.lines.push(Line { call: Call::Close { fd: Fd(fd) }, reply: Reply::Unit });
        }
        section.lines.push(Line { call: Call::Close { fd: Fd(2) }, reply: Reply::Unit });
        run.sections.push(section);
        let lines = &normalise(&run, Grade::Full).sections[0].lines;
        let closed: Vec<i32> = lines
            .iter()
            .filter_map(|line| if let Call::Close { fd } = line.call { Some(fd.0) } else { None })
            .collect();
        assert_eq!(closed, [3, 5, 7, 2]);
    }

    #[test]
    fn whoever_is_left_is_reaped_in_any_order() {
        let wait = |which: Pid, found: i32| Line {
            call: Call::Wait4 { pid: which, which: WaitFor::Stages },
            reply: Reply::Waited(Waited { pid: Pid(found), status: WaitStatus::Exited(found) }),
        };
        let mut lines = [wait(Pid(102), 102), wait(Pid::ANY, 101), wait(Pid::ANY, 100), wait(Pid(99), 99)];
        sort_reaping(&mut lines);
        assert_eq!(lines, [wait(Pid(102), 102), wait(Pid::ANY, 100), wait(Pid::ANY, 101), wait(Pid(99), 99)]);
    }

    #[test]
    fn the_log_arrives_in_pieces_and_is_one() {
        let read = |text: &str| Line {
            call: Call::Read { fd: Fd(3), len: 4096 },
            reply: Reply::Data(text.as_bytes().into()),
        };
        let mut lines = vec![
            Line { call: Call::Pipe2, reply: Reply::Pair(Fd(3), Fd(4)) },
            read("b\na"),
            read("\n"),
            read(""),
        ];
        merge_log_reads(&mut lines);
        assert_eq!(lines[1..], [read("a\nb\n"), read("")]);
    }
}
