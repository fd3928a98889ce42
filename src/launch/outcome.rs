//! The outcomes of a launch: the command's pid, or the failure that the launcher detected.

use core::fmt;

use crate::sys::types::{Errno, Pid, Signal, WaitStatus};

/// The number of stages, and the capacity for observed ends.
pub const STAGES: usize = 3;

/// The result of [`launch`](super::script::launch), which returns in the launcher and in each stage that
/// exits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Launched {
    /// In the launcher: the command runs.
    Started {
        /// The command's pid, in the launcher's pid namespace.
        pid: Pid,
    },
    /// In the launcher: the launch failed, and left no process and no descriptor.
    Failed(Failure),
    /// In a stage, or in the process that should have become the command: the caller exits with this status.
    Exit(i32),
}

/// The failure of a launch that has created no process.
pub(super) const fn failed(kind: FailureKind) -> Launched {
    Launched::Failed(Failure { kind, ended: [None; STAGES] })
}

/// The launcher's own observations of a failed launch. A fatal record may name the cause.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Failure {
    /// The first error that the launcher detected.
    pub kind: FailureKind,
    /// How the stages ended, in the order in which they were reaped.
    pub ended: [Option<Ended>; STAGES],
}

/// How one stage ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Ended {
    /// The number of the stage, if it is known.
    pub stage: Option<u8>,
    /// Its pid, in the launcher's pid namespace.
    pub pid: Pid,
    /// Its wait status.
    pub status: WaitStatus,
    /// True if the launcher itself sent SIGKILL to the stage, because the launch had failed.
    pub killed: bool,
}

/// An error that the launcher detected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum FailureKind {
    /// A system call of the launcher failed.
    Os {
        /// The step that failed.
        step: Step,
        /// The error of the call.
        errno: Errno,
    },
    /// The stages ended without a pid line, or stage 1 of a start through a child without the pid of stage 2.
    NoPidLine,
    /// The pid line is malformed, or the pid that stage 1 of a start through a child sent.
    BadPidLine,
    /// A stage ended with another status than 0, or the command's process ended before its exec in a start
    /// without stage 0.
    StageFailed,
    /// All stages succeeded, but a fatal record arrived after the go byte: the command could not be started.
    FatalRecord,
    /// In a direct start, the launcher could not write a file in /proc. It has added the fatal record, as one
    /// of stage 0.
    OwnRecord,
    /// The launcher received this signal before the command ran.
    Interrupted(Signal),
    /// The time limit expired before the command ran.
    TimedOut(WaitedFor),
    /// The caller's function before the start has failed
    /// ([`Command::before_start`](super::Command::before_start)).
    BeforeStart,
    /// The launch joins a mount namespace, and a process of that namespace could write to this program's
    /// file.
    NotSealed,
}

/// What the launcher waited for when the time limit expired. `Display` says which process had not done what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum WaitedFor {
    /// Another launch of this program, to leave its fork.
    Turn,
    /// Stage 0, to read the bootstrap message.
    MessageRead,
    /// Stage 0, to report the pids of the other stages. Before that stage 1 joins and creates the namespaces,
    /// and stage 0 writes the maps of ids or waits for a mapping tool.
    Pids,
    /// Stage 1 of a start through a child, to join and create the namespaces and to create stage 2.
    Stage2,
    /// This stage, to end.
    EndOf(u8),
    /// The process of the command, to take its last steps and to execute the command: mounts, ids, code of
    /// the caller, the search for the file.
    Exec,
}

impl fmt::Display for WaitedFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Turn => f.write_str("another launch of this program had not left its fork"),
            Self::MessageRead => f.write_str("stage-0 had not read the bootstrap message"),
            Self::Pids => f.write_str(
                "stage-0 had not reported the pids: stage-1 was joining or creating namespaces, or stage-0 was mapping \
                 ids",
            ),
            Self::Stage2 => f.write_str("stage-1 was joining or creating namespaces"),
            Self::EndOf(stage) => write!(f, "stage-{stage} had not ended"),
            Self::Exec => f.write_str("stage-2 was taking its last steps before the exec"),
        }
    }
}

/// A step of the launcher that can fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Step {
    /// Checking that this program runs from a sealed copy.
    CheckCopy,
    /// Creating the init pipe.
    MakeInitPipe,
    /// Creating the log pipe.
    MakeLogPipe,
    /// Creating the timer of a launch with a time limit.
    MakeTimer,
    /// Creating the thread that launches a command that is killed with this process.
    MakeThread,
    /// Opening the standard streams of the command.
    OpenStdio,
    /// Duplicating a descriptor of the command to a number above those that the command gets.
    DuplicateDescriptor,
    /// Blocking all signals for the time of the fork.
    BlockSignals,
    /// Forking stage 0.
    SpawnStage0,
    /// Creating stage 1, in a start through a child.
    SpawnStage1,
    /// Sending the bootstrap message.
    SendMessage,
    /// Reading the pid line, or the pid of stage 2 in a start through a child.
    ReadPidLine,
    /// Reaping a stage.
    Wait,
    /// Sending the go byte.
    SendGo,
    /// Sending the byte that lets stage 2 create its cgroup namespace, in 1.0.
    #[cfg(feature = "legacy")]
    SendCgroupByte,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CheckCopy => "failed to check whether this program runs from a sealed copy of itself",
            Self::MakeInitPipe => "failed to make the init pipe",
            Self::MakeLogPipe => "failed to make the log pipe",
            Self::MakeTimer => "failed to make the timer of the launch",
            Self::MakeThread => "failed to create the launching thread",
            Self::OpenStdio => "failed to open the standard streams of the command",
            Self::DuplicateDescriptor => "failed to duplicate a descriptor of the command",
            Self::BlockSignals => "failed to block signals",
            Self::SpawnStage0 => "unable to spawn stage-0",
            Self::SpawnStage1 => "unable to spawn stage-1",
            Self::SendMessage => "failed to send the bootstrap message to stage-0",
            Self::ReadPidLine => "failed to read the pid of stage-2",
            Self::Wait => "failed to wait for a stage",
            #[cfg(feature = "legacy")]
            Self::SendCgroupByte => "failed to send the cgroup byte to stage-2",
            Self::SendGo => "failed to send the go byte to stage-2",
        })
    }
}

/// Returns the launcher's failure in this step.
pub(super) fn os(step: Step) -> impl Fn(Errno) -> FailureKind {
    move |errno| FailureKind::Os { step, errno }
}

impl FailureKind {
    /// Returns whether the remaining stages end by themselves when our end of the init pipe is closed. Then
    /// each stage reports its own error, which a SIGKILL would prevent.
    ///
    /// All three stages hold the other end of the init pipe until they end. If no process holds it, no stage
    /// is left. If stages 0 and 1 have been reaped, stage 2 ends when it reads from stage 0 or waits for the
    /// go byte.
    pub(super) const fn lets_stages_end(&self) -> bool {
        match self {
            Self::NoPidLine | Self::StageFailed | Self::FatalRecord | Self::OwnRecord => true,
            // Stage 0 detects the hang-up while its mapping tool runs, and kills the tool. A SIGKILL to stage
            // 0 would leave the tool running.
            Self::Interrupted(_) | Self::TimedOut(_) | Self::BeforeStart => true,
            Self::Os { step: Step::SendMessage | Step::SendGo, errno } => matches!(*errno, Errno::EPIPE),
            #[cfg(feature = "legacy")]
            Self::Os { step: Step::SendCgroupByte, errno } => matches!(*errno, Errno::EPIPE),
            // No stage exists yet.
            Self::NotSealed => true,
            Self::Os { .. } | Self::BadPidLine => false,
        }
    }

    /// Returns whether the caller has asked for the end of the launch, by a signal or a time limit.
    pub(super) const fn is_urgent(&self) -> bool {
        matches!(self, Self::Interrupted(_) | Self::TimedOut(_))
    }
}
