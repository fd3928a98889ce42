//! Runs of the simulated kernel as runs of the model.
//!
//! A run is a list of events for each process: the model's events that its calls stand for. The order between
//! processes is not part of it; the messages imply it. The model accepts the lists if it has a run with them,
//! after which nothing more happens.

use std::collections::{BTreeMap, HashSet};

use nsexec::bootstrap::{Bootstrap, Dialect, decode};
use nsexec::json::PID_LINE_MAX;
use nsexec::sync::SyncMessage;
use nsexec::sys::types::{CloneFlags, Errno, Pid, Signal, WaitStatus};
use nsexec_audit::Role as Process;
use nsexec_audit::record::{Call, Line, Reply};
use nsexec_audit::sim::{Fault, FaultKind, FinalState, Oldest, Report};
use support::scenarios::{self, Ran, Start, on_all_cores};

use super::protocol::{Config, End, Message, Role, Step, Way};
use super::state::{Event, Life, Model, State, Status, bit, is_quiet};

/// The events of the launcher and of stages 0 to 2, and how each process ended.
#[derive(Clone)]
struct Trace {
    events: [Vec<Event>; 4],
    ends: Vec<(Role, FinalState)>,
}

fn role_of(process: Process) -> Option<Role> {
    match process {
        Process::Launcher => Some(Role::Launcher),
        Process::Stage(number @ 0..=2) => Some(Role::STAGES[usize::from(number)]),
        Process::Tool(_) => Some(Role::Tool),
        Process::Stage(_) | Process::Other(_) => None,
    }
}

/// The descriptors of a process that are ends of pipes, and the files of stage 1 that it has opened to write.
#[derive(Clone, Default)]
struct Table {
    ends: BTreeMap<i32, End>,
    files: Vec<i32>,
    pairs: u8,
}

/// Reads the calls of one process.
struct Reader<'r> {
    role: Role,
    ours: bool,
    pids: &'r BTreeMap<Pid, Role>,
    table: Table,
    /// The bytes of an incomplete message, by descriptor and direction.
    bytes: BTreeMap<(i32, bool), Vec<u8>>,
    after_pls: bool,
    events: Vec<Event>,
}

impl Reader<'_> {
    fn line(&mut self, line: &Line) {
        match (&line.call, &line.reply) {
            (Call::Socketpair, Reply::Pair(one, other)) => self.pair(one.0, other.0),
            (Call::Pipe2, Reply::Pair(read, write)) if self.role == Role::Launcher => {
                self.table.ends.extend([(read.0, End::LogReader), (write.0, End::LogWriter)]);
            }
            (Call::Close { fd }, reply) => {
                self.table.files.retain(|file| *file != fd.0);
                // A failed close(2) frees the descriptor. It is fatal only for the end of a sync pipe.
                let failed = matches!(reply, Reply::Errno(errno) if *errno != Errno::EINTR);
                let of_sync = |end: End| {
                    !matches!(end, End::InitOfLauncher | End::InitOfStages | End::LogReader | End::LogWriter)
                };
                let closed = self.table.ends.remove(&fd.0).filter(|end| !failed || !of_sync(*end));
                self.events.extend(closed.map(|end| Event::Did(Step::Close(end))));
            }
            (Call::CloseRange { first, last }, Reply::Unit) => {
                let inside = |fd: &i32| (*first..=*last).contains(&fd.unsigned_abs());
                let closed: Vec<i32> = self.table.ends.keys().copied().filter(inside).collect();
                for fd in closed {
                    let end = self.table.ends.remove(&fd).expect("an end");
                    self.events.push(Event::Did(Step::Close(end)));
                }
            }
            (Call::Openat2 { path, .. } | Call::Openat { path, .. }, Reply::Fd(fd)) => {
                let written: [&[u8]; 3] = [b"uid_map", b"gid_map", b"timens_offsets"];
                if written.contains(&path.0.as_slice()) {
                    self.table.files.push(fd.0);
                }
            }
            (Call::Send { fd, data } | Call::Write { fd, data }, Reply::Count(count)) => {
                if self.table.files.contains(&fd.0) && *count == data.0.len() {
                    self.events.push(Event::Did(Step::WriteFiles));
                }
                self.bytes(fd.0, &data.0[..*count], true);
            }
            (Call::Read { fd, .. }, Reply::Data(data)) => self.bytes(fd.0, &data.0, false),
            (_, Reply::Parent(pid)) => {
                self.events.extend(self.pids.get(pid).map(|role| Event::Did(Step::Fork(*role))))
            }
            (Call::Wait4 { .. }, Reply::Waited(waited))
                if !matches!(waited.status, WaitStatus::Stopped(_)) =>
            {
                self.events.extend(self.pids.get(&waited.pid).map(|role| Event::Reaps(*role)));
            }
            (Call::Kill { pid, signal: Signal::KILL }, _) => self.kill(*pid),
            (Call::Execve { .. }, Reply::NoReturn) if self.role == Role::Stage2 => {
                self.events.push(Event::Did(Step::Exec));
            }
            // The exec of `runc init`: the launcher's ends are close-on-exec.
            (Call::Execve { .. }, Reply::NoReturn) if self.role == Role::Stage0 && !self.ours => {
                self.table.ends.retain(|_, end| matches!(end, End::InitOfStages | End::LogWriter));
            }
            _ => {}
        }
    }

    fn pair(&mut self, one: i32, other: i32) {
        self.table.pairs += 1;
        let ends = match (self.role, self.table.pairs) {
            (Role::Launcher, 1) => [(one, End::InitOfLauncher), (other, End::InitOfStages)],
            (Role::Stage0, 1) => [(one, End::ChildOf1), (other, End::ChildOf0)],
            (Role::Stage0, 2) => [(one, End::GrandchildOf2), (other, End::GrandchildOf0)],
            _ => return,
        };
        self.table.ends.extend(ends);
        if (self.role, self.table.pairs) == (Role::Stage0, 2) {
            self.events.push(Event::Did(Step::MakeSyncPipes));
        }
    }

    /// One event for all processes that a process kills in sequence.
    fn kill(&mut self, pid: Pid) {
        let Some(role) = self.pids.get(&pid) else { return };
        match self.events.last_mut() {
            Some(Event::Kills(mask)) => *mask |= bit(*role),
            _ => self.events.push(Event::Kills(bit(*role))),
        }
    }

    /// Adds bytes of a pipe. An event follows when a message is complete.
    fn bytes(&mut self, fd: i32, bytes: &[u8], sent: bool) {
        let Some(end) = self.table.ends.get(&fd).copied() else { return };
        for byte in bytes {
            let got = self.bytes.entry((fd, sent)).or_default();
            got.push(*byte);
            if let Some(message) = message(end, self.role, sent, got, &mut self.after_pls) {
                got.clear();
                let step = if sent { Step::Send(end, message) } else { Step::Receive(end, message) };
                self.events.push(Event::Did(step));
            }
        }
    }
}

/// Returns the message that these bytes are, if they are complete. `after_pls`: the next one is a pid.
fn message(end: End, role: Role, sent: bool, got: &[u8], after_pls: &mut bool) -> Option<Message> {
    match (end, role, sent) {
        (End::LogReader | End::LogWriter, ..) => None,
        (End::InitOfLauncher, Role::Launcher, false) | (End::InitOfStages, Role::Stage0, true) => {
            (got.last() == Some(&b'\n')).then_some(Message::PidLine)
        }
        (End::InitOfLauncher, ..) | (End::InitOfStages, Role::Stage0, false) if got != b"G" => {
            let length = got.first_chunk().map(|length| u32::from_ne_bytes(*length));
            (length.is_some_and(|length| got.len() >= 16 && got.len() >= length as usize))
                .then_some(Message::Bootstrap)
        }
        // The go byte, or runc's configuration.
        (End::InitOfLauncher | End::InitOfStages, ..) => {
            (got == b"G" || got.last() == Some(&b'\n')).then_some(Message::Go)
        }
        _ => {
            let value = u32::from_ne_bytes(got.try_into().ok()?);
            if std::mem::take(after_pls) {
                return Some(Message::PidOfStage2);
            }
            let known = [
                (SyncMessage::UsermapPls, Message::UsermapPls),
                (SyncMessage::UsermapAck, Message::UsermapAck),
                (SyncMessage::TimeoffsetsPls, Message::TimeoffsetsPls),
                (SyncMessage::TimeoffsetsAck, Message::TimeoffsetsAck),
                (SyncMessage::RecvpidPls, Message::RecvpidPls),
                (SyncMessage::RecvpidAck, Message::RecvpidAck),
                (SyncMessage::Grandchild, Message::Grandchild),
                (SyncMessage::ChildFinish, Message::ChildFinish),
            ];
            let (_, message) = known.into_iter().find(|(sync, _)| sync.value() == value)?;
            *after_pls = message == Message::RecvpidPls;
            Some(message)
        }
    }
}

/// Returns the trace of a run. `None` if a process of another shape takes part.
fn trace(report: &Report, ours: bool) -> Option<Trace> {
    let roles: Option<Vec<Role>> = report.processes.iter().map(|process| role_of(process.role)).collect();
    let pids = report.processes.iter().map(|process| process.pid).zip(roles?).collect();
    let runc: Table = Table {
        ends: [(3, End::InitOfLauncher), (4, End::InitOfStages), (5, End::LogReader), (6, End::LogWriter)]
            .into(),
        ..Table::default()
    };
    let mut tables: BTreeMap<Pid, Table> = BTreeMap::new();
    let mut trace = Trace { events: Default::default(), ends: Vec::new() };
    for process in &report.processes {
        let role = role_of(process.role)?;
        let inherited =
            if role == Role::Launcher && !ours { Some(runc.clone()) } else { tables.remove(&process.pid) };
        let table = Table { pairs: 0, ..inherited.unwrap_or_default() };
        let (bytes, events) = (BTreeMap::new(), Vec::new());
        let mut reader = Reader { role, ours, pids: &pids, table, bytes, after_pls: false, events };
        for line in &process.transcript.lines {
            reader.line(line);
            if let Reply::Parent(pid) = line.reply {
                tables.insert(pid, reader.table.clone());
            }
            if reader.events.last() == Some(&Event::Did(Step::Exec)) {
                break;
            }
        }
        let mut events = reader.events;
        let executed = events.last() == Some(&Event::Did(Step::Exec));
        match process.end {
            _ if executed || matches!(role, Role::Launcher | Role::Tool) => {}
            FinalState::Exited(status) => events.push(Event::Exits(u8::from(status != 0))),
            FinalState::HandedOver => events.push(Event::Did(Step::Exec)),
            _ => {}
        }
        trace.ends.push((role, if executed { FinalState::HandedOver } else { process.end.clone() }));
        if let Some(own) = trace.events.get_mut(role as usize) {
            *own = events;
        }
    }
    // After both closes the launch is over. The launcher's caller may wait for the command.
    let closes = [End::LogReader, End::InitOfLauncher].map(|end| Event::Did(Step::Close(end)));
    let closed = |events: &[Event]| closes.iter().all(|close| events.contains(close));
    let of_launcher = &mut trace.events[0];
    let over = (0..of_launcher.len()).find(|at| closed(&of_launcher[..*at])).unwrap_or(of_launcher.len());
    of_launcher.truncate(over);
    if !ours {
        trace.events[0].clear();
        // The exec of `runc init` closes them, and stage 2 closes the log after the configuration.
        let hidden = |event: &Event| matches!(event, Event::Did(Step::Close(End::LogWriter)));
        trace.events[3].retain(|event| !hidden(event));
    }
    Some(trace)
}

/// Returns the event if a trace shows it.
fn visible(ours: bool, role: Role, event: Event) -> Option<Event> {
    let shown = match event {
        _ if role == Role::Tool || (role == Role::Launcher && !ours) => false,
        Event::Did(Step::Close(End::InitOfLauncher | End::LogReader)) => role != Role::Stage0 || ours,
        Event::Did(step) => matches!(
            step,
            Step::Fork(_)
                | Step::Close(_)
                | Step::Send(..)
                | Step::Receive(..)
                | Step::MakeSyncPipes
                | Step::WriteFiles
                | Step::Exec
        ),
        Event::Kills(_) | Event::Reaps(_) | Event::Exits(_) => true,
        Event::Hidden(_) => false,
    };
    shown.then_some(event)
}

/// A fault that the model may use: its name, and the process; `None` for any.
type Permitted = (&'static str, Option<Role>);

/// Returns whether the model has a run with these events that ends as the trace does.
fn accepts(model: &Model, trace: &Trace, permitted: &[Permitted]) -> bool {
    let ours = model.config.ours();
    let mut open = vec![(State::initial(), [0; 4])];
    let mut seen = HashSet::new();
    while let Some((state, at)) = open.pop() {
        let normal = state.transitions(model);
        let done = at.iter().zip(&trace.events).all(|(at, events)| *at == events.len());
        if done && is_quiet(&normal) && ends_as(&state, trace, ours) {
            return true;
        }
        let faults = state.faults(model).into_iter().filter(|(role, event, _)| {
            let is =
                |(name, of): &Permitted| *event == Event::Hidden(name) && of.is_none_or(|of| of == *role);
            permitted.iter().any(is)
        });
        for (role, event, next) in normal.into_iter().chain(faults) {
            let mut at = at;
            if let Some(event) = visible(ours, role, event) {
                if trace.events[role as usize].get(at[role as usize]) != Some(&event) {
                    continue;
                }
                at[role as usize] += 1;
            }
            if seen.insert((next.clone(), at)) {
                open.push((next, at));
            }
        }
    }
    false
}

/// Returns whether the stages have ended as in the trace.
fn ends_as(state: &State, trace: &Trace, ours: bool) -> bool {
    let absent = |role: &Role| trace.ends.iter().all(|(other, _)| other != role);
    let same = |(role, end): &(Role, FinalState)| match (state.life(*role), end) {
        // Both tools have this role, and a state has the last one.
        _ if *role == Role::Tool => true,
        (Life::Dead(Status::Killed) | Life::Reaped(Status::Killed), FinalState::Signaled(_)) => true,
        (Life::Dead(status) | Life::Reaped(status), FinalState::Exited(code)) => {
            status == if *code == 0 { Status::Zero } else { Status::One }
        }
        (Life::Runs, FinalState::HandedOver) => true,
        // A command may be killed after its exec.
        (Life::Dead(Status::Killed) | Life::Reaped(Status::Killed), FinalState::HandedOver) => ours,
        (Life::Returned(_), _) => *role == Role::Launcher,
        _ => false,
    };
    trace.ends.iter().all(same)
        && Role::STAGES.iter().filter(|role| absent(role)).all(|role| state.life(*role) == Life::Absent)
}

/// Returns the models of a start through the stages: the maps may be written by a tool. Empty for another
/// start.
fn models(start: &Start, faults: u8) -> Vec<Model> {
    let dialect = start.policy.dialect;
    if *dialect != Dialect::V1_2 {
        return Vec::new();
    }
    let way = match start.way {
        scenarios::Way::Ours => Way::Ours,
        scenarios::Way::Init => Way::Run,
        scenarios::Way::Exec => Way::Exec,
    };
    let asked = decode(&start.scenario.message, dialect).ok().map(|(asked, _)| asked);
    let user = asked.is_some_and(|asked| asked.clone_flags().contains(CloneFlags::NEWUSER));
    let count = |asked: Bootstrap<'_>| {
        usize::from(asked.uid_map().is_some()) + usize::from(asked.gid_map().is_some())
    };
    let maps = asked.filter(|_| user).map_or(0, count);
    let offsets = asked.is_some_and(|asked| asked.timens_offsets().is_some());
    let config = |tools| Config {
        way,
        user,
        tools,
        own_maps: maps - tools,
        offsets,
        debug: false,
        faults,
        stops: false,
        without: Vec::new(),
    };
    (0..=maps).map(|tools| Model::new(config(tools))).collect()
}

/// Returns the trace of a start through the stages alone. In some starts a direct start is given up before.
fn through_the_stages(ran: &Ran, start: &Start) -> Option<Trace> {
    let lines = |role| ran.report.find(role).map_or(&[][..], |process| &process.transcript.lines);
    let is_first =
        lines(Process::Stage(0)).first().is_some_and(|line| matches!(line.call, Call::Fork { .. }));
    let other = |line: &Line| matches!(line.call, Call::CloneInit { .. } | Call::CloneChild { .. });
    if start.policy.launch.in_place || !is_first || lines(Process::Launcher).iter().any(other) {
        return None;
    }
    trace(&ran.report, start.way == scenarios::Way::Ours)
}

fn accepted_by(models: &[Model], trace: &Trace, permitted: &[Permitted]) -> bool {
    models.iter().any(|model| accepts(model, trace, permitted))
}

fn shown(trace: &Trace) -> String {
    let own = |(role, events): (&Role, &Vec<Event>)| format!("{role:?}: {events:?}\n");
    Role::ALL.iter().zip(&trace.events).map(own).collect::<String>() + &format!("{:?}", trace.ends)
}

/// The error with which a start without a fault may end.
const ERROR: Permitted = ("an error", None);

#[test]
fn model_accepts_every_start_and_refuses_changed_ones() {
    let results = on_all_cores(|start| {
        let models = models(start, 1);
        let ran = start.run(&mut Oldest, None);
        let trace = through_the_stages(&ran, start).filter(|_| !models.is_empty());
        let Some(trace) = trace else { return (0, 0, None) };
        let permitted: &[Permitted] = if start.scenario.refused.is_some() { &[ERROR] } else { &[] };
        if !accepted_by(&models, &trace, permitted) {
            return (1, 0, Some(format!("refused: {}\n{}", start.name, shown(&trace))));
        }
        let mut refused = 0;
        for changed in changes(&trace, permitted.is_empty()) {
            if accepted_by(&models, &changed, permitted) {
                return (
                    1,
                    refused,
                    Some(format!("accepted, but changed: {}\n{}", start.name, shown(&changed))),
                );
            }
            refused += 1;
        }
        (1, refused, None)
    });
    let traces: usize = results.iter().map(|(traces, ..)| traces).sum();
    let refused: usize = results.iter().map(|(_, refused, _)| refused).sum();
    let broken: Vec<&String> = results.iter().filter_map(|(.., broken)| broken.as_ref()).collect();
    println!("{traces} traces accepted, {refused} changed traces refused");
    let names: Vec<&str> = broken.iter().filter_map(|text| text.lines().next()).collect();
    assert!(broken.is_empty(), "{} of {traces}: {names:#?}\n{}", broken.len(), broken[0]);
    assert!(traces > 100 && refused > 1000, "too few");
}

/// Returns the trace with each two adjacent events of a process exchanged and, if `whole`, with each event
/// left out. Without its last event a trace that ends with an error is that of an earlier error.
fn changes(trace: &Trace, whole: bool) -> Vec<Trace> {
    let mut all = Vec::new();
    for (number, events) in trace.events.iter().enumerate() {
        for at in 0..events.len() {
            let mut left_out = trace.clone();
            left_out.events[number].remove(at);
            all.extend(Some(left_out).filter(|_| whole));
            if at + 1 < events.len() && events[at] != events[at + 1] {
                let mut swapped = trace.clone();
                swapped.events[number].swap(at, at + 1);
                all.push(swapped);
            }
        }
    }
    all
}

/// Returns whether the model has no such error: see docs/protocol.md#the-protocol-as-a-model.
fn is_left_out(start: &Start, at: Process, line: &Line) -> bool {
    let is_launcher = at == Process::Launcher;
    let of_runc = is_launcher && start.way != scenarios::Way::Ours;
    // The pid line is shorter than the buffer of the log.
    let reads_log = matches!(line.call, Call::Read { len, .. } if is_launcher && len > PID_LINE_MAX);
    of_runc || reads_log || matches!(line.call, Call::Wait4 { .. } | Call::WriteNowait { .. })
}

/// One fault at each call of each start, each time of the next kind.
#[test]
fn model_accepts_runs_with_a_fault() {
    const KINDS: [FaultKind; 4] =
        [FaultKind::Kill, FaultKind::Errno(Errno::EIO), FaultKind::KillWaking, FaultKind::Short(1)];
    let results = on_all_cores(|start| {
        let models = models(start, 2);
        let faultless = start.faultless(Oldest);
        let (mut traces, mut broken) = ([0; KINDS.len()], Vec::new());
        if models.is_empty() || through_the_stages(&faultless.ran, start).is_none() {
            return (traces, broken);
        }
        let first = start.name.bytes().map(usize::from).sum::<usize>();
        for (number, (at, line)) in faultless.ran.report.places().enumerate() {
            let kind = (first + number) % KINDS.len();
            let fault = Fault { at, what: KINDS[kind] };
            let name = if kind % 2 == 0 { "SIGKILL" } else { "an error" };
            if name == "an error" && is_left_out(start, at.role, line) {
                continue;
            }
            let (Some(role), Some(ran)) = (role_of(at.role), faultless.run(fault)) else { continue };
            let Some(trace) = through_the_stages(&ran, start) else { continue };
            let mut permitted = vec![(name, Some(role))];
            permitted.extend(start.scenario.refused.map(|_| ERROR));
            traces[kind] += 1;
            if !accepted_by(&models, &trace, &permitted) {
                broken.push(format!("refused: {}, {fault}\n{}", start.name, shown(&trace)));
            }
        }
        (traces, broken)
    });
    let count = |kind: usize| results.iter().map(|(traces, _)| traces[kind]).sum::<usize>();
    let broken: Vec<&String> = results.iter().flat_map(|(_, broken)| broken).collect();
    println!("accepted: {} deaths, {} errnos, {} short counts", count(0) + count(2), count(1), count(3));
    let names: Vec<&str> = broken.iter().filter_map(|text| text.lines().next()).collect();
    assert!(broken.is_empty(), "{} traces: {names:#?}\n{}", broken.len(), broken[0]);
    assert!(count(0) > 1000 && count(1) > 1000 && count(3) > 100, "too few");
}
