//! The model: the programs of the launcher, of the three stages and of a mapping tool.
//!
//! A program is a list of steps, in the order of docs/protocol.md#what-happens-in-order. A message has its
//! name of docs/protocol.md#sync-messages. [`rules`](super::rules) has the meaning of each step.

/// A process. A tool is the mapping tool that runs at the time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Role {
    Launcher,
    Stage0,
    Stage1,
    Stage2,
    Tool,
}

impl Role {
    pub(crate) const ALL: [Self; 5] = [Self::Launcher, Self::Stage0, Self::Stage1, Self::Stage2, Self::Tool];
    pub(crate) const STAGES: [Self; 3] = [Self::Stage0, Self::Stage1, Self::Stage2];
}

/// An end of a pipe. A process holds it until it closes it, ends, or executes a program.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum End {
    /// The init pipe: the launcher's end, and the end of the stages.
    InitOfLauncher,
    InitOfStages,
    /// The sync pipe of stages 0 and 1.
    ChildOf0,
    ChildOf1,
    /// The sync pipe of stages 0 and 2.
    GrandchildOf0,
    GrandchildOf2,
    /// The log pipe.
    LogReader,
    LogWriter,
}

impl End {
    pub(crate) const fn peer(self) -> Self {
        match self {
            Self::InitOfLauncher => Self::InitOfStages,
            Self::InitOfStages => Self::InitOfLauncher,
            Self::ChildOf0 => Self::ChildOf1,
            Self::ChildOf1 => Self::ChildOf0,
            Self::GrandchildOf0 => Self::GrandchildOf2,
            Self::GrandchildOf2 => Self::GrandchildOf0,
            Self::LogReader => Self::LogWriter,
            Self::LogWriter => Self::LogReader,
        }
    }
}

/// A message. `Go` is the go byte of our launcher, or the configuration that runc sends.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Message {
    Bootstrap,
    PidLine,
    Go,
    UsermapPls,
    UsermapAck,
    TimeoffsetsPls,
    TimeoffsetsAck,
    RecvpidPls,
    PidOfStage2,
    RecvpidAck,
    Grandchild,
    ChildFinish,
}

/// A step of a program.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Step {
    /// Creates both sync pipes.
    MakeSyncPipes,
    Fork(Role),
    Close(End),
    Send(End, Message),
    /// Waits for a message, the end of the peer, or the end of the launcher.
    Receive(End, Message),
    /// Writes the maps or the time offsets of stage 1.
    WriteFiles,
    /// Waits for the tool, the end of stage 1, or the end of the launcher.
    AwaitTool,
    /// A debug record.
    Log,
    /// Requests the parent-death signal: SIGCONT for stage 0, SIGKILL for stages 1 and 2.
    SetPdeathsig,
    ClearPdeathsig,
    /// A step of the process alone, for example an unshare or a mount.
    Work,
    /// Waits until this process has ended, and reaps it.
    Reap(Role),
    /// Fails unless every reaped stage has exited with status 0.
    CheckStatuses,
    /// Of `runc run`: fails if stage 2 has ended.
    CheckStage2,
    /// Reads the log to its end, which is the exec or the end of stage 2. Fails after a fatal record.
    ReadLog,
    /// Becomes the command, or returns to the caller.
    Exec,
    Exit,
    /// Of a launcher that gives up. Ours kills the known stages after an error of its own, and runc its
    /// current process.
    KillKnown,
    /// After SIGTERM: SIGCONT to the known stages, SIGKILL to a stage 2 that has the go byte.
    ContinueKnown,
    /// Reads the log to its end. After a time limit the launcher kills stopped stages, then the known ones,
    /// then it returns.
    Drain,
    ReapAll,
    /// The launcher returns to its caller.
    Return,
}

/// The launcher.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Way {
    /// The launcher of this library. It reads the log after the go byte.
    Ours,
    /// `runc run` and `runc exec`. A thread reads the log all the time.
    Run,
    Exec,
}

/// A measure against a wait without end or a process that is left. A test removes one and finds the fault.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Mend {
    /// A process closes an end that another process needs alone.
    Close(Role, End),
    /// The tool inherits no descriptor of ours.
    ToolDescriptors,
    /// A record is dropped if the log pipe is full.
    LogNeverBlocks,
    /// A stage that waits for a stage also watches the init pipe.
    WatchInitPipe,
    /// Stage 0 watches stage 1 while the tool runs.
    ToolWatchStage1,
    /// Stage 0 watches the init pipe while the tool runs.
    ToolWatchLauncher,
    /// The parent-death signals.
    Pdeathsig,
    /// The launcher watches stage 0 while it waits for the pid line.
    WatchStage0,
    /// A launcher that gives up kills stopped stages.
    KillStopped,
    /// A launcher that gives up closes its end of the init pipe.
    CloseInitPipe,
    /// A launcher that gives up reaps the stages.
    ReapAll,
    /// A failing stage writes its record before its partners see its end.
    RecordBeforeEnd,
}

/// The start that a model describes, and the measures that it lacks.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) way: Way,
    /// Whether a user namespace is created, and so maps are written.
    pub(crate) user: bool,
    /// The number of maps that a tool writes, and the number of those that stage 0 writes itself.
    pub(crate) tools: usize,
    pub(crate) own_maps: usize,
    /// Whether time offsets are written.
    pub(crate) offsets: bool,
    /// Whether debug records are written. The log pipe then has room for one record, otherwise for all.
    pub(crate) debug: bool,
    /// The number of faults in a run.
    pub(crate) faults: u8,
    /// Whether a fault can be a stop of a process, or SIGTERM to the launcher.
    pub(crate) stops: bool,
    pub(crate) without: Vec<Mend>,
}

impl Config {
    /// Returns whether this measure is in place.
    pub(crate) fn has(&self, mend: Mend) -> bool {
        !self.without.contains(&mend)
    }

    pub(crate) fn ours(&self) -> bool {
        self.way == Way::Ours
    }

    /// Returns the program of a process.
    pub(crate) fn program(&self, role: Role) -> Vec<Step> {
        let mut steps = match role {
            Role::Launcher => self.launcher(),
            Role::Stage0 => self.stage_0(),
            Role::Stage1 => self.stage_1(),
            Role::Stage2 => self.stage_2(),
            Role::Tool => vec![Step::Work, Step::Exit],
        };
        steps.retain(|step| match *step {
            Step::Close(end) => self.has(Mend::Close(role, end)),
            Step::Log => self.debug,
            Step::SetPdeathsig | Step::ClearPdeathsig => self.ours() && self.has(Mend::Pdeathsig),
            _ => true,
        });
        steps
    }

    fn launcher(&self) -> Vec<Step> {
        use {End::*, Message::*, Role::*, Step::*};
        let mut steps =
            vec![Fork(Stage0), Close(InitOfStages), Close(LogWriter), Send(InitOfLauncher, Bootstrap)];
        steps.extend(match self.way {
            Way::Ours => vec![Receive(InitOfLauncher, PidLine), Reap(Stage1), Reap(Stage0), CheckStatuses],
            Way::Run => {
                let first = [Receive(InitOfLauncher, PidLine), Reap(Stage1), CheckStage2];
                first.into_iter().chain([Reap(Stage0), CheckStatuses]).collect()
            }
            Way::Exec => {
                vec![Reap(Stage0), CheckStatuses, Receive(InitOfLauncher, PidLine), Reap(Stage1)]
            }
        });
        steps.push(Send(InitOfLauncher, Go));
        match self.way {
            Way::Ours => steps.extend([ReadLog, Close(LogReader), Close(InitOfLauncher), Return]),
            _ => steps.extend([Close(InitOfLauncher), ReadLog, Return]),
        }
        steps
    }

    /// Returns the steps of a launcher that gives up.
    pub(crate) fn giving_up(&self) -> Vec<Step> {
        use Step::{Close, ContinueKnown, Drain, KillKnown, ReadLog, ReapAll, Return};
        let mut steps = match self.way {
            Way::Ours => vec![
                KillKnown,
                Close(End::InitOfLauncher),
                ContinueKnown,
                Drain,
                ReapAll,
                Close(End::LogReader),
                Return,
            ],
            _ => vec![KillKnown, ReapAll, Close(End::InitOfLauncher), ReadLog, Return],
        };
        steps.retain(|step| match step {
            Close(End::InitOfLauncher) => self.has(Mend::CloseInitPipe),
            ReapAll => self.has(Mend::ReapAll),
            _ => true,
        });
        steps
    }

    fn stage_0(&self) -> Vec<Step> {
        use {End::*, Message::*, Role::*, Step::*};
        let mut steps = vec![SetPdeathsig, Close(InitOfLauncher), Close(LogReader)];
        steps.extend([Log, Receive(InitOfStages, Bootstrap), MakeSyncPipes, Fork(Stage1)]);
        steps.extend([Close(ChildOf1), Close(GrandchildOf2)]);
        if self.user {
            steps.extend([Receive(ChildOf0, UsermapPls), Log]);
            steps.extend([Fork(Tool), AwaitTool].repeat(self.tools));
            steps.extend([WriteFiles].repeat(self.own_maps));
            steps.push(Send(ChildOf0, UsermapAck));
        }
        if self.offsets {
            steps.extend([Receive(ChildOf0, TimeoffsetsPls), WriteFiles, Send(ChildOf0, TimeoffsetsAck)]);
        }
        steps.extend([Receive(ChildOf0, RecvpidPls), Receive(ChildOf0, PidOfStage2)]);
        steps.extend([Send(ChildOf0, RecvpidAck), Send(InitOfStages, PidLine)]);
        steps.extend([Receive(ChildOf0, ChildFinish), Log, Send(GrandchildOf0, Grandchild)]);
        steps.extend([Receive(GrandchildOf0, ChildFinish), Exit]);
        steps
    }

    fn stage_1(&self) -> Vec<Step> {
        use {End::*, Message::*, Role::*, Step::*};
        let mut steps = vec![SetPdeathsig, Close(ChildOf0), Close(GrandchildOf0), Log, Work];
        if self.user {
            steps.extend([Send(ChildOf1, UsermapPls), Log, Receive(ChildOf1, UsermapAck)]);
        }
        if self.offsets {
            steps.extend([Send(ChildOf1, TimeoffsetsPls), Receive(ChildOf1, TimeoffsetsAck)]);
        }
        steps.extend([Fork(Stage2), Close(GrandchildOf2), Send(ChildOf1, RecvpidPls)]);
        steps.extend([Send(ChildOf1, PidOfStage2), Receive(ChildOf1, RecvpidAck)]);
        steps.extend([Send(ChildOf1, ChildFinish), Exit]);
        steps
    }

    fn stage_2(&self) -> Vec<Step> {
        use {End::*, Message::*, Step::*};
        let mut steps = vec![SetPdeathsig, Close(ChildOf1), Log, Receive(GrandchildOf2, Grandchild)];
        steps.extend([Work, Send(GrandchildOf2, ChildFinish), Close(GrandchildOf2), Work]);
        steps.extend([Receive(InitOfStages, Go), ClearPdeathsig, Exec]);
        steps
    }
}
