//! The reactions of a supervised launch to its signals: functions from values to values. `supervise.rs`
//! carries them out.

use std::time::{Duration, Instant};

use super::proc_status::{SignalState, set_of};
use crate::sys::types::{Signal, SignalSet};

/// The signals that ask a program to end. Each ends a launch; once the command runs, it is passed on to the
/// command.
pub(super) const ENDING: [Signal; 4] = [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT];

/// The signals that stop a terminal's job: Ctrl-Z, and a read or write of the terminal by a background job.
/// They are blocked once the command runs. Before that they stop the launcher together with its stages.
pub(super) const STOPPING: [Signal; 3] = [Signal::TSTP, Signal::TTIN, Signal::TTOU];

/// The time after such a signal within which a stop of the command counts as the signal's effect. The command
/// may have a handler that first saves its work.
const STOPS_WITHIN: Duration = Duration::from_secs(2);

/// The state of the terminal's job. The shell sees only this process of the job.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Job {
    /// The last signal that asked the job to stop, with its time.
    pub(super) asked: Option<(Signal, Instant)>,
    /// The command is stopped.
    pub(super) command_stopped: bool,
    /// A signal that asks the command to end has been sent to it.
    pub(super) ending: Option<Instant>,
}

impl Job {
    /// Returns the signal with which this process stops itself: the terminal has stopped the job, and the
    /// command has stopped.
    pub(super) fn stops(&self, now: Instant) -> Option<Signal> {
        let (signal, at) = self.asked.filter(|_| self.command_stopped)?;
        (now.saturating_duration_since(at) <= STOPS_WITHIN).then_some(signal)
    }

    /// Returns whether the command is stopped, and was asked to end within the last [`STOPS_WITHIN`].
    pub(super) fn should_end(&self, now: Instant) -> bool {
        let asked = self.ending.is_some_and(|at| now.saturating_duration_since(at) <= STOPS_WITHIN);
        asked && self.command_stopped
    }
}

/// Returns whether the signal asks a program to end.
pub(super) fn is_ending(signal: Signal) -> bool {
    ENDING.contains(&signal)
}

/// The facts that a reaction depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context {
    /// The terminal sent the signal to the whole foreground process group, so the command has it already.
    pub(super) delivered: bool,
    /// The command's signal state, if /proc shows it.
    pub(super) command: Option<SignalState>,
    /// The launch created a pid namespace, in which the command is process 1.
    pub(super) first: bool,
    /// The command leads a session of its own. Its process group is orphaned, so the kernel discards a
    /// SIGTSTP without a handler (setpgid(2), "orphaned").
    pub(super) own_session: bool,
}

impl Context {
    /// Returns whether the command ignores this signal.
    pub(super) fn ignored(&self, signal: Signal) -> bool {
        self.command.is_some_and(|command| command.ignored.contains(set_of(signal)))
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reaction {
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
pub(super) fn reaction(
    signal: Signal,
    Context { delivered, command, first, own_session }: Context,
) -> Reaction {
    let forward = if delivered { Reaction::Leave } else { Reaction::Forward };
    let set = set_of(signal);
    // A blocked signal counts as caught: it stays pending, and the command reads it later (tini and this
    // launcher do so).
    let wanted = |command: SignalState| SignalSet(command.caught.0 | command.blocked.0).contains(set);
    match (signal, command) {
        // This process was continued, so the command is continued too, however it was stopped.
        (Signal::CONT, _) => Reaction::Forward,
        (
            Signal::INT
            | Signal::TERM
            | Signal::HUP
            | Signal::QUIT
            | Signal::TSTP
            | Signal::TTIN
            | Signal::TTOU,
            Some(command),
        ) => match signal {
            _ if command.ignored.contains(set) => Reaction::Leave,
            // The kernel discards a signal to process 1 that has no handler. SIGSTOP from outside works.
            Signal::TSTP | Signal::TTIN | Signal::TTOU if command.is_init && !wanted(command) => {
                Reaction::Stop
            }
            // A shell blocks SIGTSTP during a fork. The kernel would discard it at the unblock.
            Signal::TSTP if own_session && !command.caught.contains(set) => Reaction::Stop,
            _ if command.is_init && !wanted(command) => Reaction::Kill,
            _ => forward,
        },
        (Signal::TSTP, None) if own_session => Reaction::Stop,
        // The command's signal state is unknown. As process 1 it could survive the signal, so it is killed.
        (Signal::INT | Signal::TERM | Signal::HUP | Signal::QUIT, None) if first => Reaction::Kill,
        _ => forward,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reacts(signal: i32, delivered: bool, is_init: bool, set: impl FnOnce(&mut SignalState)) -> Reaction {
        let mut command = SignalState { is_init, ..SignalState::default() };
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
        let caught = |command: &mut SignalState| command.caught = set_of(Signal(libc::SIGTSTP));
        assert_eq!(reacts(libc::SIGTSTP, true, true, caught), Reaction::Leave);
        assert_eq!(reacts(libc::SIGCONT, true, true, |_| {}), Reaction::Forward);
    }

    #[test]
    fn a_background_job_that_uses_the_terminal_is_stopped() {
        for signal in [libc::SIGTTIN, libc::SIGTTOU] {
            // Process 1 would ignore the signal and repeat its read or write without end.
            assert_eq!(reacts(signal, true, true, |_| {}), Reaction::Stop);
            assert_eq!(reacts(signal, true, false, |_| {}), Reaction::Leave);
            let ignored = |command: &mut SignalState| command.ignored = set_of(Signal(signal));
            assert_eq!(reacts(signal, true, true, ignored), Reaction::Leave);
        }
    }

    #[test]
    fn only_a_stop_of_the_job_stops_the_launcher() {
        let now = Instant::now();
        let asked = Some((Signal::TSTP, now));
        let stops =
            |asked, command_stopped, after| Job { asked, command_stopped, ending: None }.stops(now + after);
        assert_eq!(stops(asked, true, Duration::ZERO), Some(Signal::TSTP));
        // A stop of the command alone; a running command; a command that another process stopped later.
        assert_eq!(stops(None, true, Duration::ZERO), None);
        assert_eq!(stops(asked, false, Duration::ZERO), None);
        assert_eq!(stops(asked, true, STOPS_WITHIN + Duration::from_secs(1)), None);
    }

    #[test]
    fn ctrl_z_stops_a_command_in_its_own_session_by_sigstop() {
        let own_session = |command| Context { delivered: false, command, first: false, own_session: true };
        let with = |set: fn(&mut SignalState)| {
            let mut command = SignalState::default();
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
}
