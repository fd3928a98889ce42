//! The events of a traced launch (ptrace(2)): what both tracers wait for.

use std::collections::BTreeSet;

use nix::libc;
use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::stepper::Ending;

/// An event of one process. It is stopped, except after its end, until the tracer continues it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Event {
    Ended(Ending),
    /// A stop before or after a system call.
    Call,
    /// The first stop of a process.
    Birth,
    /// It has executed a program.
    Exec,
    /// It has created this process.
    Created(Pid),
}

#[derive(Default)]
pub(crate) struct Events {
    /// Children that wait4(2) reported before their parent's event, which identifies them.
    early: BTreeSet<i32>,
    /// The last created child, if it was early.
    born: Option<Pid>,
}

impl Events {
    /// Waits for the next event. `at` returns the index of a known process. `None`: the event needs no
    /// answer.
    ///
    /// # Errors
    /// `EINTR`. `ECHILD`: no process is left.
    pub(crate) fn next(&mut self, at: impl Fn(Pid) -> Option<usize>) -> nix::Result<Option<(usize, Event)>> {
        if let Some(born) = self.born.take().and_then(&at) {
            return Ok(Some((born, Event::Birth)));
        }
        let status = waitpid(None, Some(WaitPidFlag::__WALL))?;
        let Some(pid) = status.pid() else { return Ok(None) };
        let Some(at) = at(pid) else {
            self.early.insert(pid.as_raw());
            return Ok(None);
        };
        let event = match status {
            WaitStatus::Exited(_, code) => Event::Ended(Ending::Exited(code)),
            WaitStatus::Signaled(_, signal, _) => Event::Ended(Ending::Signaled(signal as i32)),
            WaitStatus::PtraceSyscall(_) => Event::Call,
            WaitStatus::PtraceEvent(_, _, libc::PTRACE_EVENT_STOP) => Event::Birth,
            WaitStatus::PtraceEvent(_, _, libc::PTRACE_EVENT_EXEC) => Event::Exec,
            WaitStatus::PtraceEvent(..) => {
                let Some(child) = created_by(pid) else {
                    let _ = ptrace::syscall(pid, None);
                    return Ok(None);
                };
                self.born = self.early.remove(&child.as_raw()).then_some(child);
                Event::Created(child)
            }
            // A signal that is delivered to the process.
            WaitStatus::Stopped(_, signal) => {
                let _ = ptrace::syscall(pid, signal);
                return Ok(None);
            }
            _ => return Ok(None),
        };
        Ok(Some((at, event)))
    }

    /// Returns the early children whose parent's event has not arrived.
    pub(crate) fn early(&self) -> impl Iterator<Item = Pid> {
        self.early.iter().copied().map(Pid::from_raw)
    }
}

/// Returns the child of a process that is stopped at its creation.
pub(crate) fn created_by(pid: Pid) -> Option<Pid> {
    let child = ptrace::getevent(pid).ok()?;
    Some(Pid::from_raw(i32::try_from(child).expect("a pid")))
}
