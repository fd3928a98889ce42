//! A minimal init: process 1 of a new pid namespace, which creates the command's process, reaps orphans, and
//! forwards signals ([`Command::init`](super::Command::init)).
//!
//! The init runs in the command's namespaces, root directory and session. It does not get the command's
//! descriptors, limits, ids, capabilities and filters. So it may signal a command with any ids. It is not
//! dumpable, because its memory is a copy of the launcher's, and the command shares its pid namespace.

use super::last::Ends;
use super::steps::StageStep;
use crate::scripts::nsexec::thread_id_cache;
use crate::scripts::pipe::uninterrupted;
use crate::sys::Sys;
use crate::sys::types::{
    Errno, ExitSignal, Fd, Fork, MaskHow, Pid, SentSignal, SigAction, Signal, SignalSet, WaitFor, WaitStatus,
    Waited,
};
use crate::words::error::Error;

/// The number of descriptors that are closed one by one if close_range(2) is missing: the usual limit
/// (RLIMIT_NOFILE).
pub(super) const CLOSED_ONE_BY_ONE: i32 = 1024;

/// The exit status of an init that cannot wait for the command.
const LOST: i32 = 1;

/// The process in which [`become_init`] returns.
pub(super) enum Returned {
    /// The new process, which becomes the command.
    Command,
    /// The init: the command has ended. The init exits with this status.
    Init(i32),
}

/// Creates the command's process, and becomes its init. Returns in both processes: [`Returned`] names the
/// process. `kill_child`: the command ends with the launcher's thread. `leads`: the init leads a session.
///
/// Runs in process 1 of the new pid namespace, in all its namespaces, with the privileges of the launch. The
/// launcher waits for the exec or a fatal record. The init then waits for the end of the command.
///
/// # Errors
/// [`StageStep::StartInit`]: no process was created. [`StageStep::OutliveLauncher`]: the init exits, and the
/// kernel ends the command.
pub(super) fn become_init<'m, S: Sys>(
    sys: &mut S,
    (kill_child, leads): (bool, bool),
    ends: &Ends,
) -> Result<Returned, Error<'m>> {
    let failed = |errno| StageStep::StartInit.failed(errno);
    sys.set_dumpable(false).map_err(failed)?;
    // The name is informational, and the exec of the command sets another one.
    let _ = sys.set_name(c"nsexec-init");
    let (begun, begins) = sys.pipe2().map_err(failed)?;
    // All signals are blocked before the fork: a signal that arrives before the first wait stays pending.
    // SIGCHLD gets its default action: the kernel would reap the children of a process that ignores it.
    let mask = sys.sigprocmask(MaskHow::Block, SignalSet(u64::MAX)).map_err(failed)?;
    let on_child = sys.sigaction(Signal::CHLD, SigAction::DEFAULT).map_err(failed)?;
    let tid = thread_id_cache(sys);
    match sys.fork(ExitSignal::Chld, tid).map_err(failed)? {
        Fork::Child => {
            if on_child != SigAction::DEFAULT {
                // The command begins with the dispositions of the launch. Only a wrong argument is an error.
                let _ = sys.sigaction(Signal::CHLD, on_child);
            }
            let _ = sys.sigprocmask(MaskHow::Set, mask);
            Ok(Returned::Command)
        }
        Fork::Parent { child } => {
            let _ = sys.close(begins);
            await_exec(sys, begun);
            if !kill_child {
                // Cleared after the exec of the command: until then a stopped process of the launch ends with
                // the launcher. The launcher still waits, because this process holds the log pipe open.
                let cleared = sys.set_pdeathsig(Signal::NONE);
                cleared.map_err(|errno| StageStep::OutliveLauncher.failed(errno))?;
            }
            close_all(sys, ends);
            Ok(Returned::Init(run(sys, child, leads)))
        }
    }
}

/// Waits for the exec or the end of the command's process, which closes its end of this pipe.
fn await_exec<S: Sys>(sys: &mut S, begun: Fd) {
    // No process writes to the pipe. After an error the init continues: only the parent-death signal is
    // cleared earlier.
    let _ = uninterrupted(sys, |sys| sys.read(begun, &mut [0]));
}

/// Closes all descriptors. An open log pipe would hide the command's exec from the launcher. An open pipe of
/// the command would stay open after the command's end.
fn close_all<S: Sys>(sys: &mut S, ends: &Ends) {
    if sys.close_range(0, u32::MAX).is_ok() {
        return;
    }
    // Before Linux 5.9, or a seccomp filter that refuses the call. close(2) of an unknown number has no
    // effect. The log pipe is the last: the launcher continues, and may read the record of this process.
    for number in (0..CLOSED_ONE_BY_ONE).map(Fd).filter(|fd| ![ends.init, ends.log].contains(fd)) {
        let _ = sys.close(number);
    }
    for end in [ends.init, ends.log] {
        let _ = sys.close(end);
    }
}

/// Reaps children and forwards signals until the command ends. Returns the status to exit with: that of the
/// command, or 128 plus the number of the signal that ended it. `leads`: the init leads a session.
///
/// Runs in the init, with all signals blocked. Its exit ends the other processes of the pid namespace
/// (pid_namespaces(7)).
fn run<S: Sys>(sys: &mut S, command: Pid, leads: bool) -> i32 {
    loop {
        match sys.wait_signal(SignalSet(u64::MAX)) {
            // Blocked since before the fork, so no end of a child is missed.
            Ok(SentSignal { signal: Signal::CHLD, .. }) => {
                if let Some(status) = reap(sys, command) {
                    return status;
                }
            }
            // The end of the terminal is reported to the leader of its session alone (ioctl_tty(2)).
            Ok(SentSignal { signal: signal @ (Signal::HUP | Signal::CONT), by_kernel: true }) if leads => {
                let _ = sys.kill(command, signal);
            }
            // The kernel has sent the signal for a terminal, to the whole process group. So the command has
            // received it too.
            Ok(SentSignal { by_kernel: true, .. }) | Err(Errno::EINTR) => {}
            Ok(SentSignal { signal, .. }) => {
                // ESRCH is impossible: only this process reaps the command.
                let _ = sys.kill(command, signal);
            }
            // A seccomp filter refuses the call: no signal can be forwarded.
            Err(_) => return wait_for(sys, command),
        }
    }
}

/// Reaps all children that have ended. Returns the status to exit with if the command is one of them.
fn reap<S: Sys>(sys: &mut S, command: Pid) -> Option<i32> {
    loop {
        match uninterrupted(sys, |sys| sys.wait4(Pid::ANY, WaitFor::OrdinaryNow)) {
            Ok(Waited { pid: Pid(0), .. }) => return None,
            Ok(Waited { pid, status }) if pid == command => return Some(exit_status(status)),
            Ok(_) => {}
            Err(_) => return Some(LOST),
        }
    }
}

/// Reaps children until the command ends, without a look at signals.
fn wait_for<S: Sys>(sys: &mut S, command: Pid) -> i32 {
    loop {
        match uninterrupted(sys, |sys| sys.wait4(Pid::ANY, WaitFor::Ordinary)) {
            Ok(Waited { pid, status }) if pid == command => return exit_status(status),
            Ok(_) => {}
            Err(_) => return LOST,
        }
    }
}

/// Returns the exit status that passes a wait status on, as a shell does.
const fn exit_status(status: WaitStatus) -> i32 {
    match status {
        WaitStatus::Exited(status) => status,
        WaitStatus::Signaled(signal) => signal.0.saturating_add(128),
        WaitStatus::Stopped(_) | WaitStatus::Other(_) => LOST,
    }
}
