//! Supervision of a command from a terminal or under a service manager: passes signals on, and returns the
//! exit status.
//!
//! For a program whose purpose is the command, like `nsexec run`: [`Signals::take`] at its start, then the
//! launch with [`Signals::original`], then [`supervise`]. A library in a larger program should not use this
//! module.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal as NixSignal, raise};
use nix::sys::signalfd::{SfdFlags, SignalFd, siginfo};
use nix::unistd::{getpgid, getpgrp, getsid, tcgetpgrp, tcsetpgrp};

use super::child::{Child, exit_code};
use super::proc_status::{ProcStatus, set_of};
use super::script::ChildSignals;
pub use super::signals_error::{SignalsError, SignalsStep};
use super::spawn;
use crate::sys::types::{Fd, PollEvents, PollFd, Signal, SignalSet};

/// The signals that are blocked from the beginning. As members of the terminal's process group the stages get
/// SIGINT and the like themselves. The launcher must survive these signals to report the error.
const BLOCKED_AT_START: [NixSignal; 16] = [
    NixSignal::SIGINT,
    NixSignal::SIGTERM,
    NixSignal::SIGHUP,
    NixSignal::SIGQUIT,
    NixSignal::SIGCHLD,
    NixSignal::SIGCONT,
    NixSignal::SIGUSR1,
    NixSignal::SIGUSR2,
    NixSignal::SIGWINCH,
    NixSignal::SIGALRM,
    NixSignal::SIGVTALRM,
    NixSignal::SIGPROF,
    NixSignal::SIGIO,
    NixSignal::SIGXCPU,
    NixSignal::SIGPWR,
    NixSignal::SIGSTKFLT,
];

/// The signals that ask a program to end. Each ends a launch; once the command runs, it is passed on to the
/// command.
const ENDING: [NixSignal; 4] = [NixSignal::SIGINT, NixSignal::SIGTERM, NixSignal::SIGHUP, NixSignal::SIGQUIT];

/// The signals that stop a terminal's job: Ctrl-Z, and a read or write of the terminal by a background job.
/// They are blocked once the command runs. Before that they stop the launcher together with its stages.
const STOPPING: [NixSignal; 3] = [NixSignal::SIGTSTP, NixSignal::SIGTTIN, NixSignal::SIGTTOU];

/// The time after such a signal within which a stop of the command counts as the signal's effect. The command
/// may have a handler that first saves its work.
const STOPS_WITHIN: Duration = Duration::from_secs(2);

/// The interval in which a kernel without pidfds (before 5.3) is asked for the end of the command, in
/// milliseconds. If the command died before its exec, no SIGCHLD reports it.
const POLL_INTERVAL_MS: i32 = 1000;

/// The signals that this program has taken over, and the signal state from before.
#[derive(Debug)]
pub struct Signals {
    descriptor: SignalFd,
    interrupt: SignalFd,
    original: ChildSignals,
}

impl Signals {
    /// Blocks the signals that are to be passed on or handled, and sets the default disposition of SIGCHLD,
    /// without which a command's status would be lost. SIGPIPE and SIGXFSZ are blocked too. So a write to a
    /// closed pipe (`EPIPE`), or beyond RLIMIT_FSIZE (`EFBIG`), returns an error instead of ending this
    /// process.
    ///
    /// Call it early, in a program with one thread that ends when the command ends: no function restores the
    /// signal state. If SIGPIPE is ignored, the command also gets it ignored, as the caller's choice. Rust's
    /// runtime ignores SIGPIPE before main. So a program with that runtime must first set the default
    /// disposition.
    ///
    /// # Errors
    /// The step that failed, and its errno. `EMFILE`: no descriptor is free for a signalfd (raise ulimit -n).
    pub fn take() -> Result<Self, SignalsError> {
        let before = ProcStatus::of_this_thread();
        let mut original = before.after_exec();
        // The caller's own choice: this program runs without Rust's start code, which would have ignored
        // SIGPIPE.
        original.default.0 &= !before.ignored.0;
        original.mask = Some(before.blocked);
        let sigchld = set_of(Signal::CHLD);
        if before.ignored.contains(sigchld) {
            original.ignore = sigchld;
            spawn::default_disposition(Signal::CHLD)
                .map_err(|errno| SignalsStep::DefaultSigchld.failed(errno.0))?;
        }
        let early: SigSet = BLOCKED_AT_START.into_iter().collect();
        let mut all = early;
        all.extend(STOPPING);
        // A launch does not end by a signal that the caller ignores or blocks. The command gets the signal in
        // the same state.
        let unwanted = SignalSet(before.ignored.0 | before.blocked.0);
        let ending = ENDING.into_iter().filter(|signal| !unwanted.contains(set_of(Signal(*signal as i32))));
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let interrupt = SignalFd::with_flags(&ending.collect(), flags)
            .map_err(|errno| SignalsStep::InterruptDescriptor.failed(errno as i32))?;
        let descriptor = SignalFd::with_flags(&all, flags)
            .map_err(|errno| SignalsStep::SignalDescriptor.failed(errno as i32))?;
        // Blocked and never read: a failed write must not end the launcher, which would leave the command
        // unsupervised.
        let mut held = early;
        held.add(NixSignal::SIGPIPE);
        held.add(NixSignal::SIGXFSZ);
        held.thread_block().map_err(|errno| SignalsStep::Block.failed(errno as i32))?;
        Ok(Self { descriptor, interrupt, original })
    }

    /// Returns the signalfd that is readable when a signal asks a launch to end.
    pub(super) fn interrupt(&self) -> Fd {
        Fd(self.interrupt.as_raw_fd())
    }

    /// Returns the signal state for the command: the state from before [`take`](Self::take). For
    /// [`Launcher::signals`](super::Launcher::signals).
    #[must_use]
    pub const fn original(&self) -> ChildSignals {
        self.original
    }
}

/// Waits for the command and passes signals on to it. Stops this process too when the terminal stops the job.
/// Returns the exit status: the command's own, or 128 plus the number of the signal that ended the command.
///
/// A stop of the command alone (a freezer, a debugger, `kill -STOP $$`) does not stop this process: a later
/// SIGCONT to the command would not continue this process.
///
/// INT, TERM, HUP and QUIT end the command even if it is process 1 of its pid namespace and has no handler
/// for them. Then the command is ended by SIGKILL, and the status is 128 plus the number of the original
/// signal.
///
/// # Errors
/// The error of a call that waits for the command or sends it a signal.
pub fn supervise(child: &mut Child, signals: &Signals) -> io::Result<i32> {
    STOPPING.into_iter().collect::<SigSet>().thread_block()?;
    let pidfd = spawn::pidfd(child);
    let mut killed_for = None;
    let mut job = Job::default();
    // A terminal did not send the signals from before the start of the command to the command.
    let mut command_ran = false;
    loop {
        while let Some(info) = signals.descriptor.read_signal()? {
            match pass_on((child, pidfd.as_ref()), &info, command_ran)? {
                Effect::None => {}
                Effect::Killed(signal) => killed_for = killed_for.or(Some(signal)),
                Effect::AskedToEnd => job.ending = Some(Instant::now()),
                Effect::JobStops(signal) => job.asked = Some((signal, Instant::now())),
            }
        }
        command_ran = true;
        while let Some(status) = child.changed(libc::WNOHANG | libc::WUNTRACED | libc::WCONTINUED)? {
            match status.stopped_signal() {
                Some(_) => job.command_stopped = true,
                None if status.continued() => job = Job::default(),
                None => return Ok(status_of(status, killed_for)),
            }
        }
        if job.should_end(Instant::now()) {
            // The signal stays pending until the command is continued (signal(7)). A shell also continues a
            // stopped job that it ends.
            job = Job::default();
            resume(child)?;
        }
        let own_group = if job.command_stopped { foreground_group(child) } else { None };
        if let Some(signal) = job.stops(Instant::now()).or(own_group.as_ref().map(|_| NixSignal::SIGTSTP)) {
            stop_with_the_job(signal)?;
            job = Job::default();
            if let Some(foreground) = own_group {
                foreground.restore();
            }
            resume(child)?;
        }
        wait_for_event(signals, pidfd.as_ref())?;
    }
}

/// The state of the terminal's job. The shell sees only this process of the job.
#[derive(Clone, Copy, Debug, Default)]
struct Job {
    /// The last signal that asked the job to stop, with its time.
    asked: Option<(NixSignal, Instant)>,
    /// The command is stopped.
    command_stopped: bool,
    /// A signal that asks the command to end has been sent to it.
    ending: Option<Instant>,
}

impl Job {
    /// Returns the signal with which this process stops itself: the terminal has stopped the job, and the
    /// command has stopped.
    fn stops(&self, now: Instant) -> Option<NixSignal> {
        let (signal, at) = self.asked.filter(|_| self.command_stopped)?;
        (now.saturating_duration_since(at) <= STOPS_WITHIN).then_some(signal)
    }

    /// Returns whether the command is stopped, and was asked to end within the last [`STOPS_WITHIN`].
    fn should_end(&self, now: Instant) -> bool {
        let asked = self.ending.is_some_and(|at| now.saturating_duration_since(at) <= STOPS_WITHIN);
        asked && self.command_stopped
    }
}

/// Continues the command. A command in a session of its own was stopped as a process group, so its whole
/// group is continued.
fn resume(child: &Child) -> io::Result<()> {
    send(child, leads_a_session(child), libc::SIGCONT)
}

/// Sends a signal to the command, or to its whole process group.
fn send(child: &Child, whole_group: bool, number: i32) -> io::Result<()> {
    if whole_group { child.signal_group(number) } else { child.signal(number) }
}

/// Stops this process by a signal that is blocked in this thread. Returns when this process is continued.
///
/// In an orphaned process group (setpgid(2)) the kernel discards the signal, since no shell could continue
/// the job. Then this function returns at once.
fn stop_with_the_job(signal: NixSignal) -> io::Result<()> {
    let set = SigSet::from(signal);
    raise(signal)?;
    set.thread_unblock()?;
    set.thread_block()?;
    // Removes the SIGCONT that continued this process. The caller continues the command now; passed on later,
    // the signal could undo the next stop.
    spawn::discard_pending(Signal::CONT);
    Ok(())
}

fn status_of(status: ExitStatus, killed_for: Option<Signal>) -> i32 {
    match killed_for {
        Some(signal) if status.signal() == Some(libc::SIGKILL) => 128 + signal.0,
        _ => exit_code(status),
    }
}

fn wait_for_event(signals: &Signals, pidfd: Option<&OwnedFd>) -> io::Result<()> {
    let readable = |fd: i32| PollFd::new(Fd(fd), PollEvents::IN);
    let signals = readable(signals.descriptor.as_raw_fd());
    match pidfd {
        Some(pidfd) => spawn::poll(&mut [signals, readable(pidfd.as_raw_fd())], -1),
        None => spawn::poll(&mut [signals], POLL_INTERVAL_MS),
    }
}

/// The effect of a signal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Effect {
    /// Nothing that concerns this process.
    None,
    /// The command was killed because of this signal.
    Killed(Signal),
    /// The signal was sent to the command, and asks the command to end.
    AskedToEnd,
    /// The signal stops the terminal's job: this process stops when the command has stopped.
    JobStops(NixSignal),
}

/// Handles one signal. `command_ran`: the command already ran when the signal arrived. Then a terminal has
/// sent the signal to the command too.
fn pass_on(
    (child, pidfd): (&Child, Option<&OwnedFd>),
    info: &siginfo,
    command_ran: bool,
) -> io::Result<Effect> {
    let Ok(number) = i32::try_from(info.ssi_signo) else { return Ok(Effect::None) };
    let stops = STOPPING.into_iter().find(|late| *late as i32 == number);
    let done = stops.map_or(Effect::None, Effect::JobStops);
    // The command has sent the signal to its whole process group, which includes this process.
    let own = info.ssi_code <= 0 && i32::try_from(info.ssi_pid) == Ok(child.pid().0);
    if own {
        return Ok(done);
    }
    if number == libc::SIGCHLD {
        return Ok(Effect::None);
    }
    let context = Context {
        delivered: command_ran && info.ssi_code == libc::SI_KERNEL && in_our_group(child),
        command: ProcStatus::of_child(child.pid(), pidfd),
        first: child.is_process_1(),
        own_session: leads_a_session(child),
    };
    let done = if is_ending(number) { Effect::AskedToEnd } else { done };
    // A terminal sends a signal to a whole process group. A command with its own session has another process
    // group, so this process sends the signal there.
    let whole_group = context.own_session && (info.ssi_code == libc::SI_KERNEL || number == libc::SIGCONT);
    match reaction(Signal(number), context) {
        Reaction::Leave if context.ignored(Signal(number)) => Ok(Effect::None),
        Reaction::Leave => Ok(done),
        Reaction::Forward => send(child, whole_group, number).map(|()| done),
        Reaction::Stop => send(child, context.own_session, libc::SIGSTOP).map(|()| done),
        Reaction::Kill => child.kill().map(|()| Effect::Killed(Signal(number))),
    }
}

/// The command's process group, which was in the foreground of our terminal.
#[derive(Debug)]
struct Foreground {
    terminal: OwnedFd,
    group: nix::unistd::Pid,
}

impl Foreground {
    /// Puts the command's process group into the foreground again, if a shell has put our own group there.
    /// SIGTTOU is blocked here, so the kernel would also allow the change from the background (tcsetpgrp(3)).
    /// In that case this function changes nothing.
    fn restore(&self) {
        if tcgetpgrp(&self.terminal) == Ok(getpgrp()) {
            // ESRCH, EPERM: the group no longer exists, so it does not need the terminal.
            let _ = tcsetpgrp(&self.terminal, self.group);
        }
    }
}

/// Returns the process group of a command that is a shell with job control: a group other than ours, in the
/// foreground of our terminal. If such a shell suspends itself, the whole job should stop, as it would
/// without the launcher.
fn foreground_group(child: &Child) -> Option<Foreground> {
    let group = getpgid(Some(nix::unistd::Pid::from_raw(child.pid().0))).ok()?;
    if group == getpgrp() {
        return None;
    }
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    // The terminal of a job is one of these three. ENOTTY: not a terminal, or not our controlling terminal.
    let standard = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()];
    let terminal = standard.into_iter().find(|terminal| tcgetpgrp(terminal) == Ok(group))?;
    Some(Foreground { terminal: terminal.try_clone_to_owned().ok()?, group })
}

fn in_our_group(child: &Child) -> bool {
    getpgid(Some(nix::unistd::Pid::from_raw(child.pid().0))) == Ok(getpgrp())
}

/// Returns whether the signal asks a program to end.
fn is_ending(number: i32) -> bool {
    ENDING.into_iter().any(|ending| ending as i32 == number)
}

/// Returns whether the command has a session of its own, and so a process group of its own.
fn leads_a_session(child: &Child) -> bool {
    let pid = nix::unistd::Pid::from_raw(child.pid().0);
    getsid(Some(pid)) == Ok(pid)
}

/// The facts that a reaction depends on.
#[derive(Clone, Copy, Debug)]
struct Context {
    /// The terminal sent the signal to the whole foreground process group, so the command has it already.
    delivered: bool,
    /// The command's signal state, if /proc shows it.
    command: Option<ProcStatus>,
    /// The launch created a pid namespace, in which the command is process 1.
    first: bool,
    /// The command leads a session of its own. Its process group is orphaned, so the kernel discards a
    /// SIGTSTP without a handler (setpgid(2), "orphaned").
    own_session: bool,
}

impl Context {
    /// Returns whether the command ignores this signal.
    fn ignored(&self, signal: Signal) -> bool {
        self.command.is_some_and(|command| command.ignored.contains(set_of(signal)))
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reaction {
    Leave,
    Forward,
    Stop,
    Kill,
}

/// Returns the reaction to a signal that this process received for the command.
///
/// The command may change its signal state between our look at it and the signal. For example, a shell that
/// catches SIGINT may execute a program at that moment. If the program is process 1 and has no handler, the
/// kernel discards the signal. A second signal ends the program.
fn reaction(signal: Signal, Context { delivered, command, first, own_session }: Context) -> Reaction {
    let forward = if delivered { Reaction::Leave } else { Reaction::Forward };
    let set = set_of(signal);
    // A blocked signal counts as caught: it stays pending, and the command reads it later (tini and this
    // launcher do so).
    let wanted = |command: ProcStatus| SignalSet(command.caught.0 | command.blocked.0).contains(set);
    match (signal.0, command) {
        // This process was continued, so the command is continued too, however it was stopped.
        (libc::SIGCONT, _) => Reaction::Forward,
        (
            libc::SIGINT
            | libc::SIGTERM
            | libc::SIGHUP
            | libc::SIGQUIT
            | libc::SIGTSTP
            | libc::SIGTTIN
            | libc::SIGTTOU,
            Some(command),
        ) => match signal.0 {
            _ if command.ignored.contains(set) => Reaction::Leave,
            // The kernel discards a signal to process 1 that has no handler. SIGSTOP from outside works.
            libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU if command.is_init && !wanted(command) => {
                Reaction::Stop
            }
            // A shell blocks SIGTSTP during a fork. The kernel would discard it at the unblock.
            libc::SIGTSTP if own_session && !command.caught.contains(set) => Reaction::Stop,
            _ if command.is_init && !wanted(command) => Reaction::Kill,
            _ => forward,
        },
        (libc::SIGTSTP, None) if own_session => Reaction::Stop,
        // The command's signal state is unknown. As process 1 it could survive the signal, so it is killed.
        (libc::SIGINT | libc::SIGTERM | libc::SIGHUP | libc::SIGQUIT, None) if first => Reaction::Kill,
        _ => forward,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reacts(signal: i32, delivered: bool, is_init: bool, set: impl FnOnce(&mut ProcStatus)) -> Reaction {
        let mut command = ProcStatus { is_init, ..ProcStatus::default() };
        set(&mut command);
        reaction(
            Signal(signal),
            Context { delivered, command: Some(command), first: is_init, own_session: false },
        )
    }

    #[test]
    fn process_1_without_a_handler_is_killed() {
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT] {
            let set = set_of(Signal(signal));
            for delivered in [false, true] {
                let forward = if delivered { Reaction::Leave } else { Reaction::Forward };
                assert_eq!(reacts(signal, delivered, true, |_| {}), Reaction::Kill);
                assert_eq!(reacts(signal, delivered, true, |command| command.caught = set), forward);
                assert_eq!(reacts(signal, delivered, true, |command| command.blocked = set), forward);
                assert_eq!(reacts(signal, delivered, true, |command| command.ignored = set), Reaction::Leave);
                assert_eq!(reacts(signal, delivered, false, |_| {}), forward);
            }
            // If /proc does not show the command, the launcher still knows whether it is process 1.
            let unseen = |first| Context { delivered: false, command: None, first, own_session: false };
            assert_eq!(reaction(Signal(signal), unseen(true)), Reaction::Kill);
            assert_eq!(reaction(Signal(signal), unseen(false)), Reaction::Forward);
        }
    }

    #[test]
    fn ctrl_z_stops_process_1_by_sigstop() {
        assert_eq!(reacts(libc::SIGTSTP, true, true, |_| {}), Reaction::Stop);
        assert_eq!(reacts(libc::SIGTSTP, true, false, |_| {}), Reaction::Leave);
        assert_eq!(reacts(libc::SIGTSTP, false, false, |_| {}), Reaction::Forward);
        let caught = |command: &mut ProcStatus| command.caught = set_of(Signal(libc::SIGTSTP));
        assert_eq!(reacts(libc::SIGTSTP, true, true, caught), Reaction::Leave);
        assert_eq!(reacts(libc::SIGCONT, true, true, |_| {}), Reaction::Forward);
    }

    #[test]
    fn a_background_job_that_uses_the_terminal_is_stopped() {
        for signal in [libc::SIGTTIN, libc::SIGTTOU] {
            // Process 1 would ignore the signal and repeat its read or write without end.
            assert_eq!(reacts(signal, true, true, |_| {}), Reaction::Stop);
            assert_eq!(reacts(signal, true, false, |_| {}), Reaction::Leave);
            let ignored = |command: &mut ProcStatus| command.ignored = set_of(Signal(signal));
            assert_eq!(reacts(signal, true, true, ignored), Reaction::Leave);
        }
    }

    #[test]
    fn only_a_stop_of_the_job_stops_the_launcher() {
        let now = Instant::now();
        let asked = Some((NixSignal::SIGTSTP, now));
        let stops =
            |asked, command_stopped, after| Job { asked, command_stopped, ending: None }.stops(now + after);
        assert_eq!(stops(asked, true, Duration::ZERO), Some(NixSignal::SIGTSTP));
        // A stop of the command alone; a running command; a command that another process stopped later.
        assert_eq!(stops(None, true, Duration::ZERO), None);
        assert_eq!(stops(asked, false, Duration::ZERO), None);
        assert_eq!(stops(asked, true, STOPS_WITHIN + Duration::from_secs(1)), None);
    }

    #[test]
    fn ctrl_z_stops_a_command_in_its_own_session_by_sigstop() {
        let own_session = |command| Context { delivered: false, command, first: false, own_session: true };
        let with = |set: fn(&mut ProcStatus)| {
            let mut command = ProcStatus::default();
            set(&mut command);
            reaction(Signal(libc::SIGTSTP), own_session(Some(command)))
        };
        assert_eq!(with(|_| {}), Reaction::Stop);
        assert_eq!(with(|command| command.caught = set_of(Signal(libc::SIGTSTP))), Reaction::Forward);
        assert_eq!(with(|command| command.blocked = set_of(Signal(libc::SIGTSTP))), Reaction::Stop);
        assert_eq!(with(|command| command.ignored = set_of(Signal(libc::SIGTSTP))), Reaction::Leave);
        assert_eq!(reaction(Signal(libc::SIGTSTP), own_session(None)), Reaction::Stop);
        assert_eq!(reaction(Signal(libc::SIGCONT), own_session(None)), Reaction::Forward);
    }

    #[test]
    fn other_signals_are_forwarded_unless_already_delivered() {
        assert_eq!(reacts(libc::SIGUSR1, false, true, |_| {}), Reaction::Forward);
        assert_eq!(reacts(libc::SIGWINCH, true, true, |_| {}), Reaction::Leave);
    }

    #[test]
    fn sigkill_for_a_signal_is_reported_as_that_signal() {
        assert_eq!(status_of(ExitStatus::from_raw(9), Some(Signal::INT)), 130);
        assert_eq!(status_of(ExitStatus::from_raw(9), None), 137);
        // The command ended before the SIGKILL.
        assert_eq!(status_of(ExitStatus::from_raw(0), Some(Signal::INT)), 0);
    }
}
