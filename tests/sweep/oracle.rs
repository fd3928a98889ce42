//! The oracle of the fault sweep: checks what must hold after every fault.
//!
//! | promise | exceptions |
//! |---|---|
//! | the run ends, and no process waits forever | |
//! | every process is dead at the end, or the launcher handed it over on purpose | |
//! | our launcher has reaped the stages | the launcher died; its own wait failed, which no kernel does |
//! | a mapping tool is dead, and stage 0 has reaped it | stage 0 died, or its wait failed: the machine's init reaps the tool |
//! | the first fatal record is from the process that met the fault, and names the step and the errno | the fault is in the log itself; SIGKILL leaves no record |
//! | the first fatal record after the death of stage 1 reports that death, also while stage 1 still exits | |
//! | our launcher names the stage that was killed and the signal, and reports its own errors | another failure came first |
//! | a failure that is not known to be harmless is fatal | |
//! | a fault that is retried changes nothing; a fault of the log changes nothing | |
//! | the pid line is written at most once, and after stage 2 exists | |
//! | the audit rules hold | in the launcher's section if the launcher is runc's |
//! | if the kernel refuses the clone of a direct start, the start ends as it does through the stages | |
//! | a stopped process blocks no other: SIGTERM to our launcher ends the launch, SIGKILL to any launcher ends all | with runc the stopped process itself stays until it is continued |
//!
//! No process of ours can report the following faults, and the oracle accepts that:
//!
//! - A tool's own failure after its exec: the tool is another program. Stage 0 reports which tool failed, and
//!   its status.
//! - A mount over a file below /proc, where openat2 is missing (docs/deviations.md#id-maps-and-time-offsets).
//! - The runtime's own calls: its fork and exec of stage 0, and its read of the configuration after the
//!   hand-over.
//! - `ENOENT` for the setgroups file: kernels before 3.19 lack it, and allow the map to be written.
//! - The search for a command: any error means that the candidate does not exist.
//! - Stage 2 between the permission to run and its exec: the caller sees the command's status.
//! - `ECONNRESET` where stage 2 waits for that permission: the launcher is dead, and no process reads a
//!   report.
//! - The launcher's own reads of the log: it cannot report a failure after the command has been executed.
//!
//! runc itself waits for stage 1 and stage 0 if it has the pid line, and otherwise for the only process that
//! it knows, and then exits. The other processes are zombies until the machine's init reaps them; they must
//! be dead as well.

use nsexec::error::Code;
use nsexec::launch::{LaunchError, Record, leaves_old_sys};
use nsexec::legacy::EnvironmentForm;
use nsexec::log::Level;
use nsexec::policy::Setgroups;
use nsexec::sync::SyncMessage;
use nsexec::sys::types::{Errno, Fd, Mount, OpenFlags, Signal};
use nsexec_audit::Role;
use nsexec_audit::record::{Call, Line, Reply};
use nsexec_audit::rules::Severity;
use nsexec_audit::sim::{Fault, FaultKind, FinalState, Oldest, ProcessReport, Reaper, Report, StopReaction};

use super::errnos::{STAGE_INIT, is_nonblocking, is_retried};
use support::scenarios::{Ran, Start, Way, init_of, is_direct, is_through_child};

/// A run with a fault, and the same run without it.
pub(crate) struct Case<'a> {
    pub(crate) start: &'a Start,
    pub(crate) whole: &'a Ran,
    pub(crate) fault: Fault,
    /// The call at which the fault is injected, as it is without the fault; `None` at the end of a process.
    pub(crate) line: Option<&'a Line>,
    pub(crate) ran: &'a Ran,
}

/// A broken promise: its short name, and what was found.
pub(crate) type Broken = (&'static str, String);

impl Case<'_> {
    /// Returns every promise that does not hold.
    pub(crate) fn broken(&self) -> Vec<Broken> {
        if let FaultKind::Stop(then) = self.fault.what {
            // The stopped process is the command, after the launch. Its caller handles that.
            if self.is_after_the_start() {
                return Vec::new();
            }
            if self.launcher_blocks_on_small_buffer() {
                return Vec::new();
            }
            return self.after_a_stop(then);
        }
        let checks = [
            self.ends(),
            self.no_process_is_left(),
            self.hand_over_needs_permission(),
            self.all_are_reaped(),
            self.pid_line_once(),
            self.tolerated(),
            self.cause_is_named(),
            self.no_failure_is_ignored(),
            self.rules_hold(),
        ];
        checks.into_iter().flatten().collect()
    }

    fn report(&self) -> &Report {
        &self.ran.report
    }

    /// The role of the process at which the fault is injected. After a direct start that was given up, the
    /// simulated kernel has another one for stage 2. In a start in place the launcher becomes the command.
    fn at(&self) -> Role {
        if self.start.policy.launch.in_place {
            return self.fault.at.role;
        }
        let is_init = init_of(&self.whole.report).is_some_and(|init| init.role == self.fault.at.role);
        if is_init { Role::Stage(2) } else { self.fault.at.role }
    }

    /// The process at which the fault is injected, in the run without it.
    fn process(&self) -> Option<&ProcessReport> {
        self.whole.report.find(self.fault.at.role)
    }

    /// The lines of that process before the fault.
    fn before(&self) -> &[Line] {
        self.process().map_or(&[][..], |process| &process.transcript.lines[..self.fault.at.line])
    }

    fn is_kill(&self) -> bool {
        matches!(self.fault.what, FaultKind::Kill | FaultKind::KillWaking | FaultKind::KillDying(_))
    }

    /// The process that the fault hits. A kill may be triggered at a call of another process.
    fn victim(&self) -> Role {
        match self.fault.what {
            FaultKind::KillDying(victim) => victim,
            _ => self.at(),
        }
    }

    fn launcher_died(&self) -> bool {
        self.is_kill() && self.victim() == Role::Launcher
    }

    /// Returns true if the launcher waits in its send. The simulated buffer is smaller than any buffer on
    /// Linux, and smaller than the data sent at once.
    fn launcher_blocks_on_small_buffer(&self) -> bool {
        self.start.name.starts_with("small_buffers")
            && self
                .report()
                .stuck()
                .any(|(role, call)| role == Role::Launcher && matches!(call, Call::Send { .. }))
    }

    /// Returns true if a dead launcher cannot end the stopped process. Each of these periods lasts one call:
    ///
    /// - before the first call of stage 0, which requests the parent-death signal;
    /// - between a change of ids, which clears that signal, and the call that requests it again;
    /// - after stage 2 has cleared the signal, and before its exec of the command.
    fn is_without_death_signal(&self) -> bool {
        let before = self.before();
        let asks = |call: &Call| matches!(call, Call::SetPdeathsig { .. });
        let cleared = |line: &Line| matches!(line.call, Call::SetPdeathsig { signal: Signal::NONE });
        self.line.is_some_and(|line| asks(&line.call))
            || self.at() == Role::Stage(2) && before.iter().any(cleared)
    }

    /// Returns true if the process that meets the fault is the command, or a minimal init that no longer ends
    /// with the launcher.
    fn is_after_the_start(&self) -> bool {
        let closes = |line: &Line| matches!(line.call, Call::CloseRange { first: 0, .. });
        match self.at() {
            Role::Stage(2) => self.in_the_command() || self.before().iter().any(closes),
            Role::Stage(3) => self.in_the_command(),
            Role::Launcher => self.start.policy.launch.in_place && self.in_the_command(),
            _ => false,
        }
    }

    /// Returns true if the fault is in the command that stage 2 has executed.
    fn in_the_command(&self) -> bool {
        let before = self.before();
        before.iter().any(|line| line.reply == Reply::NoReturn)
    }

    fn ends(&self) -> Option<Broken> {
        let stuck: Vec<String> =
            self.report().stuck().map(|(role, call)| format!("{role} in {call}")).collect();
        match (self.report().endless, stuck.is_empty()) {
            (true, _) => Some(("the run ends", "it does not".into())),
            (_, false) => Some(("no process waits forever", stuck.join(", "))),
            _ => None,
        }
    }

    /// Checks what must hold after a process was stopped: all processes end, and the launcher names the
    /// signal that it received.
    fn after_a_stop(&self, then: StopReaction) -> Vec<Broken> {
        let checks = [
            self.ends(),
            self.no_process_is_left_after(then),
            (then == StopReaction::Interrupt).then(|| self.all_are_reaped()).flatten(),
            self.pid_line_once(),
            self.interrupt_is_reported(then),
        ];
        checks.into_iter().flatten().collect()
    }

    fn no_process_is_left_after(&self, then: StopReaction) -> Option<Broken> {
        // In the drop-in no process can end a stopped stage. The stage blocks no other process, and ends when
        // it is continued.
        let excused = |process: &ProcessReport| {
            let excused = self.start.way != Way::Ours || self.is_without_death_signal();
            excused
                && then == StopReaction::KillLauncher
                && process.role == self.fault.at.role
                && process.end == FinalState::Stopped
        };
        let left = self.report().alive().find(|process| {
            let handed_over = process.end == FinalState::HandedOver;
            !(handed_over || matches!(process.end, FinalState::Stuck(_)) || excused(process))
        })?;
        Some(("no process is left after a stop", format!("{} lives: {:?} ({then:?})", left.role, left.end)))
    }

    /// SIGTERM ends a launch in which a process is stopped, and the launcher reports the signal. A launch
    /// that has already failed reports its own cause. After the command has run there is nothing to report.
    fn interrupt_is_reported(&self, then: StopReaction) -> Option<Broken> {
        if then != StopReaction::Interrupt {
            return None;
        }
        let launcher = self.report().find(Role::Launcher)?;
        let interrupted = launcher.end == FinalState::Exited(128 + 15)
            && matches!(self.ran.told, Some(LaunchError::Interrupted { signal: Signal::TERM }));
        let as_without = launcher.end == ended(self.whole, Role::Launcher)
            && self.told()
                == self.whole.told.as_ref().map_or_else(|| "nothing".to_owned(), ToString::to_string);
        (!(interrupted || as_without))
            .then(|| ("SIGTERM ends the launch", format!("{:?}, told: {}", launcher.end, self.told())))
    }

    fn no_process_is_left(&self) -> Option<Broken> {
        let left = self
            .report()
            .alive()
            .find(|process| !matches!(process.end, FinalState::HandedOver | FinalState::Stuck(_)))?;
        Some(("no process is left", format!("{} lives: {:?}", left.role, left.end)))
    }

    /// Stage 2 becomes the init or the command only after the launcher's permission, which is the last step.
    fn hand_over_needs_permission(&self) -> Option<Broken> {
        // A start in place needs none.
        let init = init_of(self.report()).filter(|_| !self.start.policy.launch.in_place)?;
        let executed = init.transcript.lines.iter().any(|line| line.reply == Reply::NoReturn);
        if init.end != FinalState::HandedOver && !executed {
            return None;
        }
        let launcher = self.report().find(Role::Launcher)?;
        let word: &[u8] = if self.start.way == Way::Ours { b"G" } else { b"{" };
        let meant = sends(launcher).any(|(_, data)| data.starts_with(word));
        (!meant).then(|| ("the hand-over needs permission", format!("{} goes on", init.role)))
    }

    fn all_are_reaped(&self) -> Option<Broken> {
        let refused_wait =
            matches!(self.line, Some(Line { call: Call::Wait4 { .. }, .. })) && !self.is_kill();
        let report = self.report();
        let unreaped = report.processes.iter().find(|process| match process.role {
            Role::Launcher => false,
            Role::Tool(_) => {
                let excused = refused_wait && self.at() == Role::Stage(0) || self.stage_0_was_killed();
                process.reaped_by.is_none() || !excused && !reaped_by(process, Role::Stage(0))
            }
            // A minimal init reaps the command. If the init dies, the kernel ends the command.
            Role::Stage(3) => process.reaped_by.is_none(),
            _ if self.start.way != Way::Ours || self.launcher_died() => {
                process.end != FinalState::HandedOver && process.reaped_by.is_none()
            }
            _ => {
                let excused = refused_wait && self.at() == Role::Launcher;
                !excused && !reaped_by(process, Role::Launcher)
            }
        })?;
        Some(("all processes are reaped", format!("{}: {:?}", unreaped.role, unreaped.reaped_by)))
    }

    fn stage_0_was_killed(&self) -> bool {
        self.report().find(Role::Stage(0)).is_some_and(|stage| matches!(stage.end, FinalState::Signaled(_)))
    }

    fn pid_line_once(&self) -> Option<Broken> {
        let stage_0 = self.report().find(Role::Stage(0))?;
        let lines = sends(stage_0).filter(|(_, data)| is_pid_line(data)).count();
        let there = init_of(self.report()).is_some_and(|init| !is_direct(init));
        (lines > 1 || lines == 1 && !there)
            .then(|| ("one pid line", format!("{lines} of them, stage 2: {there}")))
    }

    /// A fault that is retried, and a fault of the log, change nothing.
    fn tolerated(&self) -> Option<Broken> {
        let line = self.line?;
        let retried = match self.fault.what {
            FaultKind::Errno(errno) => {
                is_retried(&line.call, errno)
                    || is_nonblocking(&line.call, errno) && self.at() != Role::Launcher
            }
            FaultKind::Short(_) => {
                matches!(line.call, Call::Read { .. } | Call::Send { .. } | Call::Sendfile { .. })
            }
            _ => false,
        };
        let of_log = !self.is_kill() && self.is_of_log(line) && self.at() != Role::Launcher;
        if self.in_another_program() || self.mount_is_undetected() {
            return None;
        }
        if !(retried || of_log) || self.ended_the_same() {
            return None;
        }
        let name =
            if retried { "a retried fault changes nothing" } else { "a fault of the log changes nothing" };
        Some((name, self.first_fatal().map_or_else(String::new, |record| record.to_string())))
    }

    /// Something is mounted over the file, and the kernel lacks openat2 and cannot report it.
    fn mount_is_undetected(&self) -> bool {
        let covered = |line: &Line| line.reply == Reply::Errno(Errno::EXDEV);
        // Without openat2 for the directory, the files below it are opened without it too.
        let opens = |line: &Line| matches!(line.call, Call::Openat2 { .. });
        let later = self.process().into_iter().flat_map(|process| &process.transcript.lines);
        self.line.is_some_and(opens)
            && later.skip(self.fault.at.line).any(covered)
            && matches!(self.fault.what, FaultKind::Errno(Errno::ENOSYS | Errno::EPERM))
    }

    /// Returns true for a stage's write to the log pipe or to standard error, its poll of the log pipe, and
    /// the launcher's read of the log.
    fn is_of_log(&self, line: &Line) -> bool {
        let log = log_pipe(self.start, &self.whole.report);
        match &line.call {
            Call::WriteNowait { .. } | Call::Sigtimedwait { .. } => true,
            Call::Write { fd, .. } => Some(*fd) == log.map(|(_, write)| write) || *fd == Fd::STDERR,
            Call::Poll { fds, .. } => fds.iter().any(|fd| Some(fd.fd) == log.map(|(_, write)| write)),
            Call::Read { fd, .. } => self.at() == Role::Launcher && Some(*fd) == log.map(|(read, _)| read),
            _ => false,
        }
    }

    /// Returns true if every process ended as it does without the fault. A log that was read in part does not
    /// count, nor the death of a tool after it has finished.
    fn ended_the_same(&self) -> bool {
        if self.falls_back() {
            let through_the_stages = self.start.through_the_stages().run(&mut Oldest, None);
            return ends(&through_the_stages.report) == ends(self.report());
        }
        ends(&self.whole.report) == ends(self.report())
    }

    /// The kernel refuses the clone of a direct start, so the launcher creates the stages, which do the same
    /// as if the policy asked for them.
    fn falls_back(&self) -> bool {
        let clones = self.line.is_some_and(|line| matches!(line.call, Call::CloneInit { .. }));
        clones && matches!(self.fault.what, FaultKind::Errno(_))
    }

    /// Returns the first fatal record, except for a record that only reports the launcher's death. A stage
    /// may notice that death before another stage has written the cause.
    fn first_fatal(&self) -> Option<Record> {
        let records = fatal_records(self.start, self.report());
        let other = |record: &&Record| record.code != Some(Code::LauncherGone);
        records.iter().find(other).or(records.first()).cloned()
    }

    fn cause_is_named(&self) -> Option<Broken> {
        if self.ended_the_same() || self.launcher_died() {
            return None;
        }
        // The run fails without the fault too, and reports the same error.
        let first = self.first_fatal();
        let before = fatal_records(self.start, &self.whole.report).into_iter().next();
        if before.is_some()
            && first.as_ref().map(|record| &record.text) == before.as_ref().map(|record| &record.text)
        {
            return None;
        }
        // A failure of the launcher's own has no record in the log pipe.
        let text = |ran: &Ran| ran.told.as_ref().map(ToString::to_string);
        let own = before.is_none() || self.start.policy.launch.in_place;
        if own && self.whole.told.is_some() && text(self.ran) == text(self.whole) {
            return None;
        }
        if self.is_unreportable() || self.mount_is_undetected() {
            return None;
        }
        if let FaultKind::KillDying(_) = self.fault.what {
            return self.death_is_the_cause(first.as_ref()).or_else(|| self.launcher_names_dead_stage());
        }
        match self.at() {
            Role::Launcher => self.launcher_reports_its_error(),
            _ if self.is_kill() => self.launcher_names_dead_stage(),
            _ => self.stage_reports_its_error(first.as_ref()),
        }
    }

    /// A start may go on unchanged only after a fault that is known to be harmless.
    fn no_failure_is_ignored(&self) -> Option<Broken> {
        let line = self.line?;
        let not_ours = self.at() == Role::Launcher && self.start.way != Way::Ours;
        let known = self.is_kill() || not_ours || self.is_of_log(line) || self.in_another_program();
        if known || !started(&self.whole.report) || !self.ended_the_same() || self.is_unreportable() {
            return None;
        }
        let harmless = match self.fault.what {
            FaultKind::Errno(errno) => {
                is_retried(&line.call, errno)
                    || is_nonblocking(&line.call, errno)
                    || self.is_harmless(line, errno)
            }
            // A copy loop continues after a short read or write. A write that fails anyway writes nothing.
            _ => {
                matches!(line.call, Call::Read { .. } | Call::Send { .. } | Call::Sendfile { .. })
                    || matches!(&line.call, Call::Write { data, .. } if data.0.starts_with(b"\x7fELF"))
                    || matches!(line.reply, Reply::Errno(_))
            }
        };
        (!harmless).then(|| ("no failure is ignored", line.to_string()))
    }

    /// Returns true if the core may continue after this error.
    fn is_harmless(&self, line: &Line, errno: Errno) -> bool {
        let role = self.at();
        match &line.call {
            // Any error means "not sealed", and a copy is made, in another directory if necessary.
            Call::GetSeals { .. } => true,
            Call::Openat { path, .. }
                if self.start.policy.dialect.legacy.cloned_binary && path.0 == b"/tmp" =>
            {
                true
            }
            // The descriptor is closed even if close fails. The other two fail for a wrong argument only.
            Call::Close { .. } | Call::Sigprocmask { .. } | Call::Sigaction { .. } => true,
            // The process gets a copy of the launcher's memory, or the launcher stays not dumpable.
            Call::SetDumpable { .. } => role == Role::Launcher && !self.start.policy.launch.in_place,
            // A minimal init closes descriptor by descriptor, tries again, or only waits for the command.
            Call::CloseRange { first: 0, .. } | Call::WaitSignal { .. } => true,
            // The core has a fallback, or tries again in a later pass.
            Call::CloseRangeCloexec { .. } | Call::CloseRange { .. } | Call::Setns { .. } => {
                errno == Errno::EPERM
            }
            // The number is part of a path: the step that opens the path reports the error.
            Call::SetCloexec { on: true, .. } => errno == Errno::EBADF,
            // The question whether the process with the refused map exits. Its hang-up answers it too.
            Call::Openat2 { .. } | Call::Fstatfs { .. } | Call::Read { .. } if self.asks_for_exit() => true,
            Call::Openat { path, flags: OpenFlags::Path, .. } if path.0 == b"/sys" => leaves_old_sys(errno),
            // A mount on a directory that the new /sys does not have is left out.
            Call::Openat { path, flags: OpenFlags::Path, .. } if path.0.starts_with(b"/sys/") => {
                errno == Errno::ENOENT
            }
            Call::Openat { .. } | Call::Openat2 { .. } | Call::Write { .. } => {
                errno == Errno::EPERM && self.whole.report.find(Role::Tool(0)).is_some()
            }
            // The directory exists already, or it is below a read-only mount and must exist.
            Call::Mkdirat { .. } => [Errno::EEXIST, Errno::EROFS].contains(&errno),
            // A mount point that does not exist is created. A copy of a file is not a directory.
            Call::OpenInRoot { .. } => {
                errno == Errno::ENOENT || errno == Errno::ENOTDIR && matches!(line.reply, Reply::Errno(_))
            }
            // The search for the command continues, as it does without the fault.
            Call::Execve { .. } => {
                matches!(line.reply, Reply::Errno(_))
                    && [Errno::ENOENT, Errno::ENOTDIR, Errno::EACCES].contains(&errno)
            }
            // The call that follows blocks instead.
            Call::Poll { .. } => true,
            // The hang-up of the init pipe also reports the launcher's death. A failure to clear the signal
            // for the command is fatal, and then the start does not end the same.
            Call::SetPdeathsig { signal } => *signal != Signal::NONE,
            // Only a log record needs the result.
            Call::SchedGetaffinity => true,
            // /sys stays as it is.
            Call::Mount { mount: Mount::Sysfs { .. } } => leaves_old_sys(errno),
            Call::OpenTree { path, .. } if path.0.starts_with(b"/sys/") => leaves_old_sys(errno),
            Call::DropGroups => {
                errno == Errno::EPERM && self.start.policy.setgroups == Setgroups::DropIfAllowed
            }
            // The scenario's own wait for its command. It tries several kinds of wait. Or the wait for the
            // process of a direct start that was given up: it is killed, and its end of the init pipe is
            // closed.
            Call::Wait4 { .. } => {
                role == Role::Launcher && (self.is_after_permission() || self.is_giving_up())
            }
            Call::Kill { .. } => self.is_giving_up(),
            _ => false,
        }
    }

    fn is_after_permission(&self) -> bool {
        let launcher = self.whole.report.find(Role::Launcher).map(|launcher| &launcher.transcript.lines);
        let mut before = launcher.into_iter().flatten().take(self.fault.at.line);
        before.any(|line| matches!(&line.call, Call::Send { data, .. } if data.0 == b"G"))
    }

    /// Returns true if the launcher reads the stat file of a process that it then gives up.
    fn asks_for_exit(&self) -> bool {
        let opened = self.before().iter().chain(self.line).rev().find_map(|line| match &line.call {
            Call::Openat { path, .. } | Call::Openat2 { path, .. } => Some(path),
            _ => None,
        });
        self.is_giving_up() && opened.is_some_and(|path| path.0 == b"stat")
    }

    /// Returns true if the launcher gives up a direct start at this call: it creates other pipes later.
    fn is_giving_up(&self) -> bool {
        let launcher = self.whole.report.find(Role::Launcher).map(|launcher| &launcher.transcript.lines);
        let lines = launcher.map_or(&[][..], |lines| lines);
        let (before, after) = lines.split_at(self.fault.at.line.min(lines.len()));
        self.at() == Role::Launcher
            && before.iter().any(|line| matches!(line.reply, Reply::ParentOfInit { .. }))
            && after.iter().any(|line| line.call == Call::Socketpair)
    }

    /// Returns true if the fault is in another program that the process has executed.
    fn in_another_program(&self) -> bool {
        let before = self.before();
        self.at().is_tool() && before.iter().any(|line| line.reply == Reply::NoReturn)
    }

    /// Returns true for a fault that no process of ours can report (see the list above).
    fn is_unreportable(&self) -> bool {
        let Some(line) = self.line else { return false };
        let errno = match self.fault.what {
            FaultKind::Errno(errno) => Some(errno),
            _ => None,
        };
        let runtime = self.start.way != Way::Ours;
        match (&line.call, self.at()) {
            _ if self.is_kill() => false,
            (Call::Execve { .. }, Role::Stage(0)) => runtime,
            // A minimal init waits for the command, after the start. No kernel refuses that.
            (Call::Wait4 { .. }, Role::Stage(2)) => true,
            // In 1.0 stage 2 also reads earlier. That read is its own, and it reports a failure.
            (Call::Read { fd, .. }, Role::Stage(2)) if *fd == STAGE_INIT && self.is_after_finish() => {
                runtime || errno == Some(Errno::ECONNRESET)
            }
            (Call::Openat { path, .. } | Call::Openat2 { path, .. }, _) => {
                path.0 == b"setgroups" && errno == Some(Errno::ENOENT)
            }
            // The link count of the launcher's own program is different: a failure there is reported.
            (Call::LinkCount { path }, _) => !path.0.starts_with(b"/proc/self/"),
            (_, Role::Launcher) => self.is_of_log(line),
            _ => false,
        }
    }

    /// Returns true if the process has sent its message of completion. Stage 2 sends none in a start without
    /// stage 0.
    fn is_after_finish(&self) -> bool {
        if self.process().is_some_and(is_direct) || is_through_child(&self.whole.report) {
            return true;
        }
        let before = self.before();
        let finished = SyncMessage::ChildFinish.value().to_ne_bytes();
        before.iter().any(|line| matches!(&line.call, Call::Send { data, .. } if data.0 == finished))
    }

    /// Checks that our launcher reports its own error. runc's model reports nothing.
    fn launcher_reports_its_error(&self) -> Option<Broken> {
        let FaultKind::Errno(errno) = self.fault.what else { return None };
        if self.start.way != Way::Ours {
            return None;
        }
        let told = self.told();
        // The launcher gave up the direct start: the error is that of the stages.
        let of_file = |line: &Line| {
            matches!(line.call, Call::Openat { .. } | Call::Openat2 { .. } | Call::Write { .. })
        };
        if errno == Errno::EACCES && self.line.is_some_and(of_file) && self.hides() {
            return None;
        }
        // For a dead peer the launcher reports only the death.
        let dead_peer = [Errno::ECONNRESET, Errno::EPIPE].contains(&errno);
        // The error is in the command, after the start.
        let after = self.ran.told.is_none() && started(self.report());
        // Any error of this query means that the file has no seals.
        let asked = matches!(self.line, Some(Line { call: Call::GetSeals { .. }, .. }));
        let unsealed = asked && told.contains("sealed copy of itself");
        // In a direct start the launcher has the part of stage 0 with the maps.
        let texts = self.line.map_or_else(Vec::new, |line| super::steps::answers(&line.call, errno));
        let in_words = texts.iter().any(|text| told.contains(text)) || told.contains(&errno.to_string());
        let named = in_words && self.names_the_file(&told) || dead_peer || after || unsealed;
        (!named).then(|| ("the launcher reports its own error", format!("{errno}, reported: {told}")))
    }

    /// Returns whether the launcher is not dumpable at the fault.
    fn hides(&self) -> bool {
        let hides = |line: &Line| matches!(line.call, Call::SetDumpable { dumpable: false });
        self.at() == Role::Launcher && self.before().iter().any(hides)
    }

    /// Returns whether the text names the file of the process that the faulty line of the launcher is about.
    /// True for any other line.
    fn names_the_file(&self, told: &str) -> bool {
        let created = |line: &Line| matches!(line.reply, Reply::ParentOfInit { .. });
        let Some(line) = self.line.filter(|_| self.before().iter().any(created)) else { return true };
        let of_file = matches!(
            line.call,
            Call::Openat { .. }
                | Call::Openat2 { .. }
                | Call::Write { .. }
                | Call::Fstatfs { .. }
                | Call::Readlink { .. }
        );
        let words = super::steps::words(&line.call, self.fault.what);
        !of_file || words.iter().any(|word| told.contains(word))
    }

    fn told(&self) -> String {
        self.ran.told.as_ref().map_or_else(|| "nothing".to_owned(), ToString::to_string)
    }

    /// A stage that notices the death of stage 1 reports that death, whatever else the kernel refused because
    /// of it.
    fn death_is_the_cause(&self, first: Option<&Record>) -> Option<Broken> {
        let text = &first?.text;
        let named = text.contains("failed to sync with ") || text.starts_with("stage-1 (");
        (!named).then(|| ("a dying stage 1 is the cause", text.clone()))
    }

    fn launcher_names_dead_stage(&self) -> Option<Broken> {
        if self.start.way != Way::Ours {
            return None;
        }
        let told = self.told();
        let named = match self.victim() {
            Role::Stage(0) => told.contains("stage-0 (pid ") && told.contains("was killed by SIGKILL"),
            // If stage 2 is unknown as well, the launcher cannot name the stage by its pid alone.
            Role::Stage(1) => told.contains("stage-1") && told.contains("was killed by SIGKILL"),
            // After the permission to run, the status of stage 2 is the status of the command.
            Role::Stage(2) if self.ran.told.is_none() => self
                .report()
                .find(Role::Launcher)
                .is_some_and(|launcher| launcher.end == FinalState::Exited(128 + 9)),
            // The init passes the end of the command's process on.
            Role::Stage(3) if self.ran.told.is_none() => self
                .report()
                .find(Role::Launcher)
                .is_some_and(|launcher| launcher.end == FinalState::Exited(128 + 9)),
            Role::Stage(2) => told.contains("stage-2 (pid ") && told.contains("was killed by SIGKILL"),
            _ => told.contains("killed by SIGKILL"),
        };
        (!named).then(|| {
            ("the launcher names the dead stage", format!("{} was killed, reported: {told}", self.victim()))
        })
    }

    fn stage_reports_its_error(&self, first: Option<&Record>) -> Option<Broken> {
        let line = self.line?;
        let Some(record) = first else {
            return Some(("the first fatal record names the cause", format!("none, told: {}", self.told())));
        };
        let stage = match self.at() {
            Role::Stage(0) | Role::Tool(_) => 0,
            Role::Stage(1) => 1,
            _ => 2,
        };
        // Before the process is stage 0, its records have no stage number.
        let by = record.stage == Some(stage) || record.stage.is_none() && stage == 0;
        if self.in_another_program() {
            let named =
                by && record.text.contains("id map on ") || record.text.contains("map reported success, but");
            return (!named).then(|| ("a failed tool is named", record.to_string()));
        }
        let word = super::steps::words(&line.call, self.fault.what);
        let step = word.iter().any(|word| record.text.contains(word));
        let errno = match self.fault.what {
            FaultKind::Errno(errno) => {
                super::steps::answers(&line.call, errno).iter().any(|text| record.text.contains(text))
            }
            _ => true,
        };
        (!by || !step || !errno).then(|| {
            let what = [(by, "stage"), (step, "step"), (errno, "errno")];
            let missing: Vec<_> = what.iter().filter(|(there, _)| !there).map(|(_, what)| *what).collect();
            ("the first fatal record names the cause", format!("not the {}: {record}", missing.join(" and ")))
        })
    }

    fn rules_hold(&self) -> Option<Broken> {
        let findings = self.start.findings(&self.start.sections(self.ran));
        let breach = findings.into_iter().find(|found| found.severity == Severity::Breach)?;
        Some(("the rules hold", breach.to_string()))
    }
}

fn ended(ran: &Ran, role: Role) -> FinalState {
    ran.report.find(role).map_or(FinalState::Running, |process| process.end.clone())
}

/// Returns true if an init was handed over, or a command was executed.
fn started(report: &Report) -> bool {
    init_of(report).is_some_and(|init| {
        init.end == FinalState::HandedOver
            || init.transcript.lines.iter().any(|line| line.reply == Reply::NoReturn)
    })
}

fn reaped_by(process: &ProcessReport, reaper: Role) -> bool {
    matches!(process.reaped_by, Some(Reaper::Process(role)) if role == reaper)
}

fn ends(report: &Report) -> Vec<(Role, FinalState)> {
    let mut ends: Vec<_> =
        report.processes.iter().map(|process| (process.role, process.end.clone())).collect();
    ends.sort_by_key(|(role, _)| *role);
    ends
}

/// Recognises the pid line by the keys of every dialect.
fn is_pid_line(data: &[u8]) -> bool {
    data.starts_with(b"{\"stage1_pid\"") || data.starts_with(b"{\"pid\"")
}

/// Returns what a process has sent, and how many bytes of it the kernel accepted.
fn sends(process: &ProcessReport) -> impl Iterator<Item = (usize, &[u8])> {
    process.transcript.lines.iter().filter_map(|line| match (&line.call, &line.reply) {
        (Call::Send { data, .. } | Call::Write { data, .. }, Reply::Count(count)) => {
            Some((*count, &data.0[..]))
        }
        _ => None,
    })
}

/// Returns the read end and the write end of the log pipe. runc's model receives them from the scenario.
fn log_pipe(start: &Start, report: &Report) -> Option<(Fd, Fd)> {
    if start.way != Way::Ours {
        return has_log_pipe(start).then_some((Fd(5), Fd(6)));
    }
    report.find(Role::Launcher)?.transcript.lines.iter().find_map(|line| match line.reply {
        Reply::Pair(read, write) if line.call == Call::Pipe2 => Some((read, write)),
        _ => None,
    })
}

fn has_log_pipe(start: &Start) -> bool {
    // Our launcher has a log pipe in every dialect.
    start.way == Way::Ours || start.policy.dialect.legacy.environment != EnvironmentForm::InitOnly
}

/// Returns the texts on standard error as records, each with the stage that wrote it.
fn fatal_texts(report: &Report) -> Vec<Record> {
    let stages = [
        (Role::Stage(0), 0),
        (Role::Tool(0), 0),
        (Role::Tool(1), 0),
        (Role::Stage(1), 1),
        (Role::Stage(2), 2),
    ];
    let wrote = |role, text: &str| {
        let lines = report.processes.iter().filter(|process| process.role == role);
        let mut lines = lines.flat_map(|process| &process.transcript.lines);
        lines.any(|line| matches!(&line.call, Call::Write { fd: Fd::STDERR, data } if data.0.starts_with(text.as_bytes())))
    };
    let of = |text: &str| {
        let stage = stages.into_iter().find(|(role, _)| wrote(*role, text)).map(|(_, stage)| stage);
        let head = stage.map_or_else(|| "nsexec[1]".to_owned(), |stage| format!("nsexec-{stage}[1]"));
        Record::parse(&format!(
            "{{\"level\":\"fatal\", \"msg\": {}}}",
            serde_json::json!(format!("{head}: {text}"))
        ))
    };
    String::from_utf8_lossy(&report.stderr).lines().filter_map(of).collect()
}

/// Returns the fatal records in the order of their writing, as the launcher read them.
fn fatal_records(start: &Start, report: &Report) -> Vec<Record> {
    if !has_log_pipe(start) {
        return fatal_texts(report);
    }
    let pipe = log_pipe(start, report).map(|(read, _)| read);
    let launcher = report.find(Role::Launcher).map(|launcher| &launcher.transcript.lines);
    let bytes: Vec<u8> = launcher
        .into_iter()
        .flatten()
        .filter_map(|line| match (&line.call, &line.reply) {
            (Call::Read { fd, .. }, Reply::Data(data)) if Some(*fd) == pipe => Some(&data.0[..]),
            _ => None,
        })
        .flatten()
        .copied()
        .collect();
    let text = String::from_utf8_lossy(&bytes);
    text.lines().filter_map(Record::parse).filter(|record| record.level <= Level::Fatal).collect()
}
