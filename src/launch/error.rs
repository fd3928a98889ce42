//! [`LaunchError`]: why the command was not started, on one line, with the root cause first.

use std::ffi::OsString;
use std::format;
use std::io::ErrorKind;
use std::string::{String, ToString};
use std::vec::Vec;

use core::fmt::{self, Display as _};

use super::causes::{Circumstances, Explanation, Remedies, killed_by_filter, likely};
use super::record::{OneLine, Record};
use super::script::{Ended, Failure, FailureKind, Step, WaitedFor};
use super::setting::SettingError;
use super::shape::order;
use super::strings::CommandError;
use super::tail::{NOT_EXECUTABLE, NOT_FOUND, exec_status};
use crate::sys::types::{CloneFlags, Errno, Fd, Signal, WaitStatus};
use crate::words::error::{Code, SyncStep};

/// The reason why the command was not started. The failed launch has left no process and no descriptor.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum LaunchError {
    /// The command has a form that execve(2) does not accept.
    Command(CommandError),
    /// This descriptor should be passed on, but is not open.
    Descriptor(Fd),
    /// The launcher could not create its pipes or stage 0.
    Start {
        /// The step that failed.
        step: Step,
        /// The error of the call.
        errno: Errno,
    },
    /// Not enough memory for the bootstrap message.
    NoMemory {
        /// The length of the message in bytes.
        bytes: usize,
    },
    /// A stage failed.
    Bootstrap(StageFailure),
    /// A supervised launcher received this signal before the command ran.
    Interrupted {
        /// The signal.
        signal: Signal,
    },
    /// The limit of [`Launcher::timeout`](super::Launcher::timeout) expired before the launcher saw the
    /// command run. A command that had just been executed is killed. If it ended by itself in that moment,
    /// its status is lost.
    TimedOut {
        /// What the launcher waited for.
        waited_for: WaitedFor,
    },
    /// The function that the caller has set failed before the start
    /// ([`Command::before_start`](super::Command::before_start)).
    BeforeStart {
        /// The text of its error.
        error: String,
    },
    /// The command ran, but it could not be waited for, or its output could not be read.
    Wait {
        /// The error in words.
        error: String,
    },
    /// A setting that cannot work, alone or with the others. No process was created.
    Setting(SettingError),
    /// The launch joins a mount namespace, and this program does not run from a sealed copy of itself: see
    /// [`run_from_sealed_copy`](super::run_from_sealed_copy).
    NotSealed,
    /// The namespaces were set up, but the command could not be executed in them.
    Exec {
        /// The name of the command.
        program: OsString,
        /// The error of execve(2).
        errno: Errno,
    },
}

/// The facts about a failed bootstrap.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct StageFailure {
    /// The fatal records, in the order in which they were written. Usually one is the cause, and the others
    /// are consequences.
    pub records: Vec<Record>,
    /// How the stages ended.
    pub ended: Vec<Ended>,
    /// The error that the launcher detected.
    pub kind: FailureKind,
    /// The namespaces that the launch should create.
    pub asked: CloneFlags,
}

impl LaunchError {
    /// Returns the exit status for a program that fails with this error. 127: the command was not found. 126:
    /// it could not be executed. 2: wrong usage. 128 plus the signal's number: INT, TERM, HUP or QUIT ended
    /// the launch or a stage (Ctrl-C reaches all stages). 1: any other error.
    #[must_use]
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::Exec { errno, .. } => exec_status(*errno),
            Self::Command(CommandError::NoMemory) => 1,
            Self::Command(_) | Self::Setting(_) => 2,
            Self::Bootstrap(failure) => match failure.asked_to_end() {
                Some(signal) => 128 + signal.0,
                None => failure.unreported_exec().unwrap_or(1),
            },
            Self::Interrupted { signal } => 128 + signal.0,
            _ => 1,
        }
    }

    /// The error of a wait for a command that ran.
    pub(super) fn waiting(error: &std::io::Error) -> Self {
        let why = match error.raw_os_error() {
            Some(errno) if Errno(errno) == Errno::ECHILD => {
                ". It has ended, and its status is lost: this process ignores SIGCHLD, or another part of the \
                 program has reaped it"
            }
            Some(errno) if [Errno::EPERM, Errno::EACCES, Errno::ENOSYS].contains(&Errno(errno)) => {
                ". A seccomp filter refuses wait4: allow it in the filter"
            }
            _ => "",
        };
        Self::Wait { error: format!("{error}{why}") }
    }

    /// Returns the step that failed, and the error of its call.
    #[must_use]
    pub fn step(&self) -> Option<(Code, Option<Errno>)> {
        match self {
            Self::Start { errno, .. } => Some((Code::Start, Some(*errno))),
            Self::Exec { errno, .. } => Some((Code::Exec, Some(*errno))),
            Self::Bootstrap(failure) => failure.step(),
            _ => None,
        }
    }

    /// Returns whether a signal that a seccomp filter sends has ended a stage (SIGSYS).
    pub(super) fn is_killed_by_filter(&self) -> bool {
        matches!(self, Self::Bootstrap(failure) if failure.is_killed_by_filter())
    }

    /// Returns the likely cause of the failure. `known`: the circumstances, if they are known.
    #[must_use]
    pub fn cause(&self, known: Option<&Circumstances>, remedies: &Remedies) -> Option<Explanation> {
        cause_of(self.step_of_cause(), self.is_killed_by_filter(), known, remedies)
    }

    /// Returns the step and the errno whose likely causes apply. `None` for `EPERM` and `EACCES` before a
    /// process is created: the causes that are listed for these errnos concern clone(2) and wait4(2).
    fn step_of_cause(&self) -> Option<(Code, Option<Errno>)> {
        match self {
            Self::Start { step: Step::CheckCopy | Step::BlockSignals, errno }
                if [Errno::EPERM, Errno::EACCES].contains(errno) =>
            {
                None
            }
            _ => self.step(),
        }
    }

    /// Returns the failure in one line, with its likely cause in these circumstances. Without them, `Display`
    /// writes only the causes that do not depend on them.
    #[must_use]
    pub fn explain(&self, known: &Circumstances, remedies: &Remedies) -> String {
        Explained { error: self, known: Some(known), remedies }.to_string()
    }

    /// Returns the failure in one line, without its likely cause.
    #[must_use]
    pub fn without_cause(&self) -> String {
        struct Bare<'e>(&'e LaunchError);
        impl fmt::Display for Bare<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.write_without_cause(f)
            }
        }
        Bare(self).to_string()
    }

    /// Builds the error of a failed launch, from what the launcher saw and the fatal records of the stages.
    #[doc(hidden)]
    #[must_use]
    pub fn new(failure: Failure, mut records: Vec<Record>, program: OsString, asked: CloneFlags) -> Self {
        let ended: Vec<_> = failure.ended.into_iter().flatten().collect();
        match (failure.kind, records.first()) {
            (FailureKind::Os { step, errno }, None) if ended.is_empty() => Self::Start { step, errno },
            (FailureKind::Interrupted(signal), _) => Self::Interrupted { signal },
            (FailureKind::TimedOut(waited_for), _) => Self::TimedOut { waited_for },
            (FailureKind::NotSealed, _) => Self::NotSealed,
            (FailureKind::BeforeStart, _) => Self::BeforeStart { error: String::new() },
            (FailureKind::FatalRecord, Some(Record { code: Some(Code::Exec), errno: Some(errno), .. })) => {
                Self::Exec { program, errno: *errno }
            }
            (kind, _) => {
                records.shrink_to_fit();
                Self::Bootstrap(StageFailure { records, ended, kind, asked })
            }
        }
    }
}

impl From<SettingError> for LaunchError {
    fn from(error: SettingError) -> Self {
        Self::Setting(error)
    }
}

impl From<LaunchError> for std::io::Error {
    /// Returns an error with the kind of the failed call's errno, whose text and source are the launch error.
    fn from(error: LaunchError) -> Self {
        let errno = error.step().and_then(|(_, errno)| errno);
        let kind = errno.map_or(ErrorKind::Other, |errno| Self::from_raw_os_error(errno.0).kind());
        Self::new(kind, error)
    }
}

impl From<CommandError> for LaunchError {
    fn from(error: CommandError) -> Self {
        Self::Command(error)
    }
}

impl StageFailure {
    /// Returns the record that names the cause. `None` if all records are consequences of a stage's death.
    #[must_use]
    pub fn cause(&self) -> Option<&Record> {
        self.records.iter().find(|record| !is_consequence(record))
    }

    /// Returns the step that failed, and the error of its call.
    fn step(&self) -> Option<(Code, Option<Errno>)> {
        self.cause().and_then(|record| Some((record.code?, record.errno)))
    }

    fn is_killed_by_filter(&self) -> bool {
        self.ended.iter().any(|ended| ended.status == WaitStatus::Signaled(Signal::SYS))
    }

    /// Returns the signal that ended a stage, if it is a signal that asks a program to end.
    fn asked_to_end(&self) -> Option<Signal> {
        const ASKING: [Signal; 4] = [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT];
        self.ended.iter().find_map(|ended| match ended.status {
            WaitStatus::Signaled(signal) if ASKING.contains(&signal) => Some(signal),
            _ => None,
        })
    }

    /// Returns the exit status of the command's process, if it could not execute the command and its record
    /// was lost. It is that of a shell. Only the launcher of a start without stage 0 asks for this status.
    fn unreported_exec(&self) -> Option<i32> {
        match (self.kind, self.records.as_slice(), self.ended.as_slice()) {
            (
                FailureKind::StageFailed,
                [],
                [
                    ..,
                    Ended {
                        stage: Some(2),
                        status: WaitStatus::Exited(status @ (NOT_FOUND | NOT_EXECUTABLE)),
                        ..
                    },
                ],
            ) => Some(*status),
            _ => None,
        }
    }

    /// Returns the stage that ended without reporting an error, unless the launcher killed it.
    fn died(&self) -> Option<&Ended> {
        let signaled = |ended: &&Ended| match ended.status {
            // After a failure that has a record, the stages also send each other SIGKILL.
            WaitStatus::Signaled(Signal::KILL) => !ended.killed && self.cause().is_none(),
            WaitStatus::Signaled(_) => true,
            _ => false,
        };
        let unreported = |ended: &&Ended| {
            ended.status != WaitStatus::Exited(0)
                && !ended.killed
                && self.cause().is_none()
                && !self.records.iter().any(|record| record.stage == ended.stage)
        };
        // The remaining stages kill each other. The stage whose death stage 0 reports died first.
        let missed = self.records.iter().find_map(missed_stage);
        let killed = self.ended.iter().filter(signaled);
        killed
            .min_by_key(|ended| missed.is_none() || ended.stage != missed)
            .or_else(|| self.ended.iter().find(unreported))
    }
}

/// Returns the stage that did not answer, if the record is a sync error of stage 0.
fn missed_stage(record: &Record) -> Option<u8> {
    if (record.stage, record.code) != (Some(0), Some(Code::Sync)) {
        return None;
    }
    let of_stage_2 = [SyncStep::WriteGrandchild, SyncStep::Stage2Next];
    Some(if of_stage_2.iter().any(|step| record.text.starts_with(step.as_str())) { 2 } else { 1 })
}

/// Returns whether a record only reports the death of another process. That death has its own cause.
fn is_consequence(record: &Record) -> bool {
    match record.code {
        Some(Code::Sync | Code::MappingToolStage1Died | Code::LauncherGone) => true,
        // The init pipe ended before the launcher's byte.
        Some(Code::CgroupByte) => record.errno.is_none() && record.text.contains("(got 0 of 1 bytes)"),
        _ => false,
    }
}

impl StageFailure {
    /// Writes the failure without its likely cause.
    fn write_without_cause(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A failed call of the launcher is the cause: the stages end because the launcher gives up.
        let own = matches!(self.kind, FailureKind::Os { errno, .. } if errno != Errno::EPIPE);
        if own && self.cause().is_none() {
            return self.kind.fmt(f);
        }
        let died = self.died();
        if let Some(died) = died {
            died.fmt(f)?;
        }
        // The launcher closed its own end, so a record about that is not the cause.
        let other = || self.records.iter().find(|record| record.code != Some(Code::LauncherGone));
        let Some(record) = self.cause().or_else(other) else {
            return if died.is_some() { Ok(()) } else { self.kind.fmt(f) };
        };
        if died.is_some() {
            f.write_str("; ")?;
        }
        record.fmt(f)?;
        match record.code {
            // A direct start, whose process is stage 2, has created the others with the process.
            Some(Code::UnshareRemaining) if record.stage == Some(2) => {
                write!(f, " ({})", order(self.asked).by_process)
            }
            Some(Code::UnshareRemaining) => write!(f, " ({})", self.asked.without(CloneFlags::NEWUSER)),
            Some(Code::UnshareUser) => write!(f, " ({})", CloneFlags::NEWUSER),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for StageFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_without_cause(f)?;
        write_cause(f, cause_of(self.step(), self.is_killed_by_filter(), None, &Remedies::LIBRARY).as_ref())
    }
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Os { step, errno } => write!(f, "{step}: {errno}"),
            Self::NoPidLine => f.write_str("the stages exited without reporting an error"),
            Self::BadPidLine => f.write_str("a stage sent an invalid pid line or pid"),
            Self::StageFailed => f.write_str("a stage failed without reporting an error"),
            Self::FatalRecord | Self::OwnRecord => f.write_str("the command was not started"),
            Self::Interrupted(signal) => write!(f, "{signal} came before the command was started"),
            Self::TimedOut(waited_for) => {
                write!(f, "the time limit expired before the command ran: {waited_for}")
            }
            Self::BeforeStart => f.write_str("the function before the start failed"),
            Self::NotSealed => f.write_str(
                "this program does not run from a sealed copy of itself: a process of the mount namespace to join \
                 could open it through /proc/self/exe and overwrite it (CVE-2019-5736). Call \
                 nsexec::launch::run_from_sealed_copy() first in main, or trust_mount_namespace() of Command or Launcher if every \
                 process in that namespace is trusted",
            ),
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.stage {
            Some(stage) => write!(f, "stage-{stage}")?,
            None => f.write_str("a stage")?,
        }
        write!(f, " (pid {}) {}", self.pid, self.status)
    }
}

impl LaunchError {
    /// Writes the failure without its likely cause.
    fn write_without_cause(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command(error) => error.fmt(f),
            Self::Descriptor(fd) => write!(f, "descriptor {} cannot be passed on: it is not open", fd.0),
            Self::Start { step, errno } => write!(f, "{step}: {errno}"),
            Self::NoMemory { bytes } => write!(f, "no memory for a bootstrap message of {bytes} bytes"),
            Self::Bootstrap(failure) => failure.write_without_cause(f),
            Self::Interrupted { signal } => FailureKind::Interrupted(*signal).fmt(f),
            Self::TimedOut { waited_for } => FailureKind::TimedOut(*waited_for).fmt(f),
            Self::BeforeStart { error } => {
                write!(f, "the function before the start failed: {}", OneLine(error))
            }
            Self::Wait { error } => write!(f, "failed to wait for the command: {error}"),
            Self::Setting(error) => error.fmt(f),
            Self::NotSealed => FailureKind::NotSealed.fmt(f),
            Self::Exec { program, errno } => {
                let name: String = match program.is_empty() {
                    true => "''".into(),
                    false => program.to_string_lossy().into_owned(),
                };
                write!(f, "failed to execute {}: {errno}", OneLine(&name))
            }
        }
    }
}

/// A failure with its likely cause.
struct Explained<'e> {
    error: &'e LaunchError,
    known: Option<&'e Circumstances>,
    remedies: &'e Remedies,
}

impl fmt::Display for Explained<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.write_without_cause(f)?;
        write_cause(f, self.error.cause(self.known, self.remedies).as_ref())
    }
}

impl fmt::Display for LaunchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Explained { error: self, known: None, remedies: &Remedies::LIBRARY }.fmt(f)
    }
}

/// Returns the likely cause of a failed step, or of a stage that a filter has killed.
fn cause_of(
    step: Option<(Code, Option<Errno>)>,
    killed: bool,
    known: Option<&Circumstances>,
    remedies: &Remedies,
) -> Option<Explanation> {
    match killed {
        true => Some(killed_by_filter(known.unwrap_or(&Circumstances::default()))),
        false => step.and_then(|(code, errno)| likely(code, errno, known, remedies)),
    }
}

/// Writes the likely cause in brackets, if there is one.
fn write_cause(f: &mut fmt::Formatter<'_>, cause: Option<&Explanation>) -> fmt::Result {
    match cause {
        Some(cause) => write!(f, " ({cause})"),
        None => Ok(()),
    }
}

impl core::error::Error for LaunchError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::types::Pid;
    use crate::words::log::Level;
    use std::vec;

    fn record(stage: u8, text: &str, code: Code, errno: Option<Errno>) -> Record {
        let code = Some(code);
        Record { level: Level::Fatal, stage: Some(stage), pid: 9, text: text.into(), code, errno }
    }

    fn ended(stage: u8, status: WaitStatus, killed: bool) -> Ended {
        Ended { stage: Some(stage), pid: Pid(100 + i32::from(stage)), status, killed }
    }

    fn shown(records: Vec<Record>, ended: Vec<Ended>, kind: FailureKind) -> String {
        let asked = CloneFlags::NEWUSER.union(CloneFlags::NEWNET);
        StageFailure { records, ended, kind, asked }.to_string()
    }

    const SYNC: &str = "failed to sync with stage-1: next state (got 0 of 4 bytes)";
    const KILLED: WaitStatus = WaitStatus::Signaled(Signal::KILL);

    #[test]
    fn cause_is_shown_first_in_any_order_of_records() {
        let cause = record(
            1,
            "failed to unshare remaining namespaces: No space left on device",
            Code::UnshareRemaining,
            Some(Errno::ENOSPC),
        );
        let consequence = record(0, SYNC, Code::Sync, None);
        let want = "stage-1: failed to unshare remaining namespaces: No space left on device (CLONE_NEWNET) \
                    (a limit in /proc/sys/user/max_*_namespaces is reached: as root: raise it with sysctl)";
        for records in [vec![cause.clone(), consequence.clone()], vec![consequence, cause]] {
            assert_eq!(
                shown(records, vec![ended(0, WaitStatus::Exited(1), false)], FailureKind::NoPidLine),
                want
            );
        }
    }

    /// In a direct start the pid namespace came with the process: it is not one of those that were refused.
    #[test]
    fn refused_namespaces_are_those_of_the_call_that_failed() {
        let asked = CloneFlags::NEWUSER.union(CloneFlags::NEWPID).union(CloneFlags::NEWNET);
        for (stage, named) in [(1, "(CLONE_NEWPID|CLONE_NEWNET)"), (2, "(CLONE_NEWNET)")] {
            let refused = record(stage, "refused", Code::UnshareRemaining, Some(Errno::EPERM));
            let (records, ended) = (vec![refused], Vec::new());
            let failure = StageFailure { records, ended, kind: FailureKind::FatalRecord, asked };
            assert!(failure.to_string().contains(named), "{failure}");
        }
    }

    /// The command's process exits like a shell if it cannot execute the command. Without stage 0 the
    /// launcher does the same, even if the record with the reason was lost.
    #[test]
    fn status_of_an_exec_without_record_is_passed_on() {
        let code = |records: Vec<Record>, ended: Vec<Ended>, kind| {
            let asked = CloneFlags::EMPTY;
            LaunchError::Bootstrap(StageFailure { records, ended, kind, asked }).exit_code()
        };
        let exited = |stage, status| vec![ended(stage, WaitStatus::Exited(status), false)];
        let failed = FailureKind::StageFailed;
        assert_eq!(code(vec![], exited(2, 127), failed), 127);
        assert_eq!(code(vec![], exited(2, 126), failed), 126);
        // In a start through a child, stage 1 has ended before.
        let both = vec![ended(1, WaitStatus::Exited(0), false), ended(2, WaitStatus::Exited(127), false)];
        assert_eq!(code(vec![], both, failed), 127);
        assert_eq!(code(vec![], exited(2, 1), failed), 1);
        assert_eq!(code(vec![], exited(1, 127), failed), 1);
        assert_eq!(code(vec![], exited(2, 127), FailureKind::NoPidLine), 1);
        assert_eq!(code(vec![], vec![ended(2, KILLED, false)], failed), 1);
        let record = record(2, "setuid failed: Invalid argument", Code::Setuid, Some(Errno::EINVAL));
        assert_eq!(code(vec![record], exited(2, 127), failed), 1);
    }

    #[test]
    fn killed_stage_is_the_cause_of_a_sync_error() {
        let text = shown(
            vec![record(0, SYNC, Code::Sync, None)],
            vec![ended(1, KILLED, false)],
            FailureKind::NoPidLine,
        );
        assert_eq!(text, std::format!("stage-1 (pid 101) was killed by SIGKILL; stage-0: {SYNC}"));
    }

    #[test]
    fn stage_that_stage_0_missed_died_first() {
        let both = || vec![ended(2, KILLED, false), ended(1, KILLED, false)];
        for (text, stage) in [
            ("failed to sync with stage-1: write(SYNC_RECVPID_ACK): Broken pipe", 1),
            ("failed to sync with child: write(SYNC_TIMEOFFSETS_ACK): Broken pipe", 1),
            ("failed to sync with child: next state (got 0 of 4 bytes)", 2),
        ] {
            let shown = shown(vec![record(0, text, Code::Sync, None)], both(), FailureKind::NoPidLine);
            let want = std::format!("stage-{stage} (pid 10{stage}) was killed by SIGKILL; stage-0: {text}");
            assert_eq!(shown, want);
        }
    }

    #[test]
    fn stage_killed_by_another_stage_is_not_the_cause() {
        let cause = record(
            0,
            "failed to use newuid map on 101: newuidmap exited with status 1",
            Code::MappingToolStatus,
            None,
        );
        let text = shown(vec![cause], vec![ended(1, KILLED, false)], FailureKind::NoPidLine);
        assert_eq!(
            text,
            "stage-0: failed to use newuid map on 101: newuidmap exited with status 1 (see the tool's own message above; \
             the tool must be setuid root or have file capabilities, and /etc/subuid and /etc/subgid must give you all \
             these ids)"
        );
        // If the death of stage 1 interrupted the tool, that death is reported first.
        let died =
            record(0, "stage-1 (101) died while newuidmap was running", Code::MappingToolStage1Died, None);
        let text = shown(vec![died.clone()], vec![ended(1, KILLED, false)], FailureKind::NoPidLine);
        assert_eq!(text, std::format!("stage-1 (pid 101) was killed by SIGKILL; stage-0: {}", died.text));
    }

    #[test]
    fn without_a_record_the_wait_status_is_shown() {
        let all =
            vec![ended(1, WaitStatus::Exited(0), false), ended(0, KILLED, false), ended(2, KILLED, true)];
        assert_eq!(shown(vec![], all, FailureKind::StageFailed), "stage-0 (pid 100) was killed by SIGKILL");
        let all = vec![ended(0, WaitStatus::Exited(1), false)];
        assert_eq!(shown(vec![], all, FailureKind::NoPidLine), "stage-0 (pid 100) exited with status 1");
        assert_eq!(
            shown(vec![], vec![], FailureKind::NoPidLine),
            "the stages exited without reporting an error"
        );
        // Stage 2 failed only because stage 0 died.
        let all = vec![ended(2, WaitStatus::Exited(1), false), ended(0, KILLED, false)];
        assert_eq!(shown(vec![], all, FailureKind::StageFailed), "stage-0 (pid 100) was killed by SIGKILL");
    }

    #[test]
    fn exit_codes_are_those_of_a_shell() {
        let exec = |errno| {
            let failure = Failure { kind: FailureKind::FatalRecord, ended: [None; 3] };
            let records = vec![record(2, "", Code::Exec, Some(errno))];
            LaunchError::new(failure, records, "a\nb".into(), CloneFlags::EMPTY)
        };
        assert_eq!((exec(Errno::ENOENT).exit_code(), exec(Errno::EACCES).exit_code()), (127, 126));
        assert_eq!(exec(Errno::ENOENT).to_string(), "failed to execute a\\nb: No such file or directory");
        let nameless = LaunchError::Exec { program: "".into(), errno: Errno::ENOENT };
        assert_eq!(nameless.to_string(), "failed to execute '': No such file or directory");
        let failure = Failure {
            kind: FailureKind::Os { step: Step::SpawnStage0, errno: Errno::EAGAIN },
            ended: [None; 3],
        };
        let start = LaunchError::new(failure, vec![], "a".into(), CloneFlags::EMPTY);
        assert_eq!(
            start.to_string(),
            "unable to spawn stage-0: Resource temporarily unavailable \
             (a limit on processes is reached: ulimit -u, or pids.max of the cgroup)"
        );
        assert_eq!((start.exit_code(), LaunchError::from(CommandError::Missing).exit_code()), (1, 2));
    }

    #[test]
    fn not_sealed_error_names_the_remedies() {
        let failure = Failure { kind: FailureKind::NotSealed, ended: [None; 3] };
        let error = LaunchError::new(failure, vec![], "a".into(), CloneFlags::EMPTY);
        assert_eq!((&error, error.exit_code()), (&LaunchError::NotSealed, 1));
        let text = error.to_string();
        for word in ["CVE-2019-5736", "/proc/self/exe", "run_from_sealed_copy", "trust_mount_namespace"] {
            assert!(text.contains(word), "{text}");
        }
    }

    #[test]
    fn exit_code_names_the_signal_that_ended_a_stage() {
        let code = |status, killed| {
            let (records, ended) = (vec![], vec![ended(0, status, killed), ended(1, KILLED, true)]);
            let (kind, asked) = (FailureKind::FatalRecord, CloneFlags::NEWUSER);
            LaunchError::Bootstrap(StageFailure { records, ended, kind, asked }).exit_code()
        };
        assert_eq!(code(WaitStatus::Signaled(Signal::INT), false), 130);
        assert_eq!(code(WaitStatus::Signaled(Signal::TERM), false), 143);
        assert_eq!((code(KILLED, false), code(WaitStatus::Exited(1), false)), (1, 1));
    }
}
