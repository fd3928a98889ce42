//! A state of all processes and pipes, and the changes that the kernel makes to it.

use super::protocol::{Config, End, Mend, Message, Role, Step};

/// A start, with the programs of its processes.
pub(crate) struct Model {
    pub(crate) config: Config,
    pub(crate) programs: [Vec<Step>; 5],
    pub(crate) giving_up: Vec<Step>,
}

impl Model {
    pub(crate) fn new(config: Config) -> Self {
        let programs = Role::ALL.map(|role| config.program(role));
        Self { giving_up: config.giving_up(), programs, config }
    }

    pub(crate) fn has(&self, mend: Mend) -> bool {
        self.config.has(mend)
    }

    /// The number of records in a full log pipe.
    pub(crate) fn log_room(&self) -> u8 {
        if self.config.debug { 1 } else { 16 }
    }
}

/// How a process ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Status {
    Zero,
    One,
    Killed,
}

/// Why a process fails: because of an error of its own, or because another process has ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Cause {
    Root,
    Partner,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Life {
    Absent,
    /// At this step of its program.
    At(u8),
    /// A failing stage kills the stages that it knows, as bits, then writes a record and exits.
    /// `true`: it is stage 2 after its completion, which then awaits the go byte.
    Fails(Cause, u8, bool),
    Reports(Cause, bool),
    AwaitsGo,
    /// A launcher at this step of its way to give up.
    GivesUp(u8),
    /// The command runs, or stage 2 has returned to its caller.
    Runs,
    /// The launcher has returned: whether the command was started.
    Returned(bool),
    Dead(Status),
    Reaped(Status),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Process {
    pub(crate) life: Life,
    /// The ends that it holds, as bits.
    pub(crate) ends: u8,
    pub(crate) stopped: bool,
    pub(crate) pdeathsig: bool,
}

/// Why the launcher gives up.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Reason {
    OwnError,
    Partner,
    FatalRecord,
    Interrupted,
}

/// A state of all processes and pipes.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct State {
    pub(crate) processes: [Process; 5],
    /// The unread messages, by the end that receives them.
    pub(crate) queues: [Queue; 6],
    /// The unread records in the log pipe.
    pub(crate) log: u8,
    /// The first fatal record, and the number of those with a root cause.
    pub(crate) first_fatal: Option<(Role, Cause)>,
    pub(crate) roots: u8,
    pub(crate) pid_lines: u8,
    /// Whether stage 2 has reported its completion.
    pub(crate) ready: bool,
    pub(crate) knows_pids: bool,
    pub(crate) sent_go: bool,
    pub(crate) reason: Option<Reason>,
    /// The time limits that have passed while a launcher gives up.
    pub(crate) rounds: u8,
    pub(crate) faults: u8,
    /// The number of errors among the faults, and the process of the last one.
    pub(crate) errors: u8,
    pub(crate) error_in: Option<Role>,
}

/// Unread messages: four bits for each, the first one lowest.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Queue(u32);

impl Queue {
    pub(crate) fn push(&mut self, message: Message) {
        let used = (u32::BITS - self.0.leading_zeros()).next_multiple_of(4);
        self.0 |= (message as u32 + 1) << used;
    }

    pub(crate) fn pop(&mut self, message: Message) -> bool {
        let is_first = self.0 & 15 == message as u32 + 1;
        self.0 >>= if is_first { 4 } else { 0 };
        is_first
    }
}

/// The part of a transition that an observer of the calls sees.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Event {
    /// The step is done.
    Did(Step),
    /// SIGKILL to each of these processes.
    Kills(u8),
    Reaps(Role),
    Exits(u8),
    /// Nothing that the observer sees: a record, a failed wait, a time limit, a fault.
    Hidden(&'static str),
}

/// A transition: the process, the event, and the state after it.
pub(crate) type Transition = (Role, Event, State);

/// Returns whether nothing but the end of a tool can happen. After its exec a tool may take any time, or
/// never end.
pub(crate) fn is_quiet(transitions: &[Transition]) -> bool {
    transitions.iter().all(|(role, event, _)| *role == Role::Tool && matches!(event, Event::Exits(_)))
}

pub(crate) const fn bit(role: Role) -> u8 {
    1 << role as u8
}

impl State {
    pub(crate) fn initial() -> Self {
        let absent = Process { life: Life::Absent, ends: 0, stopped: false, pdeathsig: false };
        let pipes = [End::InitOfLauncher, End::InitOfStages, End::LogReader, End::LogWriter];
        let ends = pipes.iter().fold(0, |ends, end| ends | 1 << *end as u8);
        let launcher = Process { life: Life::At(0), ends, ..absent };
        Self {
            processes: [launcher, absent, absent, absent, absent],
            queues: Default::default(),
            log: 0,
            first_fatal: None,
            roots: 0,
            pid_lines: 0,
            ready: false,
            knows_pids: false,
            sent_go: false,
            reason: None,
            rounds: 0,
            faults: 0,
            errors: 0,
            error_in: None,
        }
    }

    pub(crate) fn life(&self, role: Role) -> Life {
        self.processes[role as usize].life
    }

    pub(crate) fn process(&mut self, role: Role) -> &mut Process {
        &mut self.processes[role as usize]
    }

    /// Returns whether the process can make a step, or could if it were not stopped.
    pub(crate) fn lives(&self, role: Role) -> bool {
        !matches!(self.life(role), Life::Absent | Life::Dead(_) | Life::Reaped(_))
    }

    pub(crate) fn holds(&self, role: Role, end: End) -> bool {
        self.processes[role as usize].ends & 1 << end as u8 != 0
    }

    /// Returns whether a process holds the end. Otherwise its peer reports an end of file, or `EPIPE`.
    pub(crate) fn is_held(&self, end: End) -> bool {
        Role::ALL.iter().any(|role| self.holds(*role, end))
    }

    /// Ends a process. The kernel closes its ends. The end of the launcher sends the parent-death signals.
    pub(crate) fn end(&mut self, role: Role, status: Status) {
        let process = self.process(role);
        (process.life, process.ends, process.stopped) = (Life::Dead(status), 0, false);
        if role == Role::Launcher {
            for stage in Role::STAGES {
                match (self.processes[stage as usize].pdeathsig, stage) {
                    (true, Role::Stage0) => self.process(stage).stopped = false,
                    (true, _) => self.kill(stage),
                    (false, _) => {}
                }
            }
        }
    }

    pub(crate) fn kill(&mut self, role: Role) {
        if self.lives(role) {
            self.end(role, Status::Killed);
        }
    }

    pub(crate) fn reap(&mut self, role: Role) -> Option<Status> {
        let Life::Dead(status) = self.life(role) else { return None };
        self.process(role).life = Life::Reaped(status);
        Some(status)
    }

    /// Returns a number that each transition makes larger. So every run ends.
    pub(crate) fn measure(&self) -> usize {
        let done = |life| match life {
            Life::Absent => 0,
            Life::At(at) => 1 + usize::from(at),
            Life::GivesUp(at) => 50 + usize::from(at),
            Life::Fails(..) => 50,
            Life::Reports(..) => 51,
            Life::AwaitsGo => 52,
            Life::Runs | Life::Returned(_) => 70,
            Life::Dead(_) => 80,
            Life::Reaped(_) => 81,
        };
        let small: usize = self.processes.iter().map(|process| done(process.life)).sum();
        // Each step of stage 0 counts more than the whole life of a tool, since it creates up to two.
        let of_stage_0 = 1000 * done(self.life(Role::Stage0));
        4 * small + of_stage_0 + usize::from(self.rounds + self.faults) + usize::from(u8::MAX - self.log)
    }

    /// Returns the step at which a process is.
    pub(crate) fn step(&self, model: &Model, role: Role) -> Option<Step> {
        match self.life(role) {
            Life::At(at) => model.programs[role as usize].get(usize::from(at)).copied(),
            Life::GivesUp(at) => model.giving_up.get(usize::from(at)).copied(),
            _ => None,
        }
    }

    pub(crate) fn advance(mut self, role: Role) -> Self {
        if let Life::At(at) | Life::GivesUp(at) = &mut self.process(role).life {
            *at += 1;
        }
        self
    }

    /// The process fails. A launcher gives up.
    pub(crate) fn fail(mut self, model: &Model, role: Role, cause: Cause, reason: Reason) -> Self {
        self.process(role).life = match role {
            Role::Launcher => {
                self.reason = Some(reason);
                Life::GivesUp(0)
            }
            _ => {
                let completed = role == Role::Stage2 && !self.holds(role, End::GrandchildOf2);
                let awaits_go =
                    completed && model.config.ours() && self.step(model, role) == Some(Step::Work);
                Life::Fails(cause, self.known(model, role), awaits_go)
            }
        };
        self
    }

    pub(crate) fn partner_ended(self, model: &Model, role: Role) -> Self {
        self.fail(model, role, Cause::Partner, Reason::Partner)
    }

    /// Returns the stages that this process may kill: it has their pids, and they cannot have been reaped.
    pub(crate) fn known(&self, model: &Model, role: Role) -> u8 {
        let Life::At(at) = self.life(role) else { return 0 };
        let steps = &model.programs[role as usize];
        let did = |step: Step| steps.iter().take(usize::from(at)).any(|done| *done == step);
        let from_1 = |message| Step::Receive(End::ChildOf0, message);
        let (one, two) = match role {
            Role::Stage0 => (
                did(Step::Fork(Role::Stage1)) && !did(from_1(Message::ChildFinish)),
                did(from_1(Message::PidOfStage2)),
            ),
            Role::Stage1 => (false, did(Step::Fork(Role::Stage2))),
            _ => (false, false),
        };
        [(one, Role::Stage1), (two, Role::Stage2)]
            .into_iter()
            .filter(|(did, _)| *did)
            .map(|(_, stage)| bit(stage))
            .sum()
    }

    /// Returns the stages that the launcher has not reaped and whose pids it has.
    pub(crate) fn known_to_launcher(&self) -> u8 {
        let known = |stage: &Role| {
            let has_pid = *stage == Role::Stage0 || self.knows_pids;
            has_pid && !matches!(self.life(*stage), Life::Absent | Life::Reaped(_))
        };
        Role::STAGES.into_iter().filter(known).map(bit).sum()
    }

    pub(crate) fn kill_all(&mut self, mask: u8) -> Event {
        Role::ALL.into_iter().filter(|role| mask & bit(*role) != 0).for_each(|role| self.kill(role));
        if mask == 0 { Event::Hidden("nothing to kill") } else { Event::Kills(mask) }
    }

    pub(crate) fn receives(&mut self, end: End, message: Message) -> bool {
        self.queues[end as usize].pop(message)
    }
}
