//! Signals: masks, dispositions, delivery (signal(7), kill(2), pid_namespaces(7)).
//!
//! A handler only ends the delivery. It interrupts no call.

use std::vec::Vec;

use super::creds::cap;
use super::kernel::{Halt, Kernel};
use super::process::Task;
use nsexec::namespace::NsKind;
use nsexec::sys::types::{
    Errno, MaskHow, Pid, SentSignal, SigAction, Signal, SignalSet, SysResult, WaitStatus,
};

/// Returns the set with this one signal, empty for an invalid number.
fn set_of(signal: Signal) -> SignalSet {
    match signal.0 {
        1..=64 => SignalSet(1 << (signal.0 - 1)),
        _ => SignalSet::EMPTY,
    }
}

/// Returns whether the signal has no effect without a handler. True for SIGCHLD, SIGCONT, SIGURG and
/// SIGWINCH. Also true for the signals of a terminal that stop a process, which are not modelled. SIGSTOP is
/// modelled.
fn has_no_default_effect(signal: Signal) -> bool {
    matches!(signal.0, 17..=23 | 28)
}

impl Kernel {
    /// Implements rt_sigprocmask(2). SIGKILL and SIGSTOP cannot be blocked, and no error is returned for
    /// them.
    pub(super) fn sigprocmask(&mut self, me: Task, how: MaskHow, set: SignalSet) -> Result<SignalSet, Halt> {
        let process = self.process_mut(me);
        let old = process.mask;
        let set = set.0 & !set_of(Signal::KILL).0 & !set_of(Signal::STOP).0;
        process.mask = match how {
            MaskHow::Block => SignalSet(old.0 | set),
            MaskHow::Set => SignalSet(set),
        };
        self.deliver_pending(me)?;
        Ok(old)
    }

    /// Delivers the pending signals that are no longer blocked.
    fn deliver_pending(&mut self, me: Task) -> Result<(), Halt> {
        for number in 1..=64 {
            let set = set_of(Signal(number));
            let process = self.process_mut(me);
            if process.pending.0 & set.0 != 0 && !process.mask.contains(set) {
                process.pending.0 &= !set.0;
                self.raise_in(me, Signal(number))?;
            }
        }
        Ok(())
    }

    /// Implements rt_sigaction(2). Removes the signal from the pending ones if it is ignored from now on.
    pub(super) fn sigaction(&mut self, me: Task, signal: Signal, action: SigAction) -> SysResult<SigAction> {
        let set = set_of(signal);
        if set == SignalSet::EMPTY || signal == Signal::KILL || signal == Signal::STOP {
            return Err(Errno::EINVAL);
        }
        let process = self.process_mut(me);
        let default = action.handler == SigAction::DEFAULT.handler;
        if action.handler == SigAction::IGNORE.handler || default && has_no_default_effect(signal) {
            process.pending.0 &= !set.0;
        }
        let old = match action == SigAction::DEFAULT {
            true => process.actions.remove(&signal.0),
            false => process.actions.insert(signal.0, action),
        };
        Ok(old.unwrap_or(SigAction::DEFAULT))
    }

    /// Implements rt_sigtimedwait(2) without waiting.
    ///
    /// Errors: `EAGAIN`: no signal of the set is pending.
    pub(super) fn sigtimedwait(&mut self, me: Task, set: SignalSet) -> SysResult<Signal> {
        let process = self.process_mut(me);
        let found = process.pending.0 & set.0;
        if found == 0 {
            return Err(Errno::EAGAIN);
        }
        process.pending.0 &= !(1 << found.trailing_zeros());
        Ok(Signal(found.trailing_zeros() as i32 + 1))
    }

    /// Implements rt_sigtimedwait(2) without a time limit. No terminal is modelled, so the kernel itself
    /// sends no signal with `SI_KERNEL`.
    pub(super) fn wait_signal(&mut self, me: Task, set: SignalSet) -> Result<SentSignal, Halt> {
        match self.sigtimedwait(me, set) {
            Ok(signal) => Ok(SentSignal { signal, by_kernel: false }),
            Err(_) => Err(Halt::Block),
        }
    }

    /// Implements kill(2). A signal to a zombie has no effect. The pid 0 means our process group, −1 all
    /// other processes.
    pub(super) fn kill(&mut self, me: Task, pid: Pid, signal: Signal) -> Result<(), Halt> {
        if signal.0 != 0 && set_of(signal) == SignalSet::EMPTY {
            return Err(Errno::EINVAL.into());
        }
        let seen_from = self.process(me).ns.get(NsKind::Pid);
        let group = |task: Task| self.process(task).group;
        let targets: Vec<Task> = self
            .tasks()
            .filter(|task| !self.process(*task).is_reaped() && self.number(*task, seen_from).is_some())
            .filter(|task| match pid.0 {
                0 => group(*task) == group(me),
                -1 => *task != me && self.number(*task, seen_from) != Some(Pid(1)),
                1.. => self.number(*task, seen_from) == Some(pid),
                negative => self.number(group(*task), seen_from).is_some_and(|leader| -leader.0 == negative),
            })
            .collect();
        if targets.is_empty() {
            return Err(Errno::ESRCH.into());
        }
        let allowed: Vec<Task> = targets.into_iter().filter(|task| self.may_signal(me, *task)).collect();
        if allowed.is_empty() {
            return Err(Errno::EPERM.into());
        }
        for task in allowed {
            if signal.0 != 0 {
                let from_above = !self.shares_pid_ns(me, task);
                self.deliver(task, signal, from_above);
            }
        }
        if self.process(me).is_alive() { Ok(()) } else { Err(Halt::Gone) }
    }

    /// Returns whether the sender is in the target's own pid namespace, or in a descendant of it.
    fn shares_pid_ns(&self, sender: Task, target: Task) -> bool {
        self.number(sender, self.process(target).ns.get(NsKind::Pid)).is_some()
    }

    /// Returns whether the ids are the same, or the sender has CAP_KILL in the target's user namespace
    /// (kill_ok_by_cred).
    fn may_signal(&self, me: Task, target: Task) -> bool {
        let (ours, theirs) = (&self.process(me).creds, &self.process(target).creds);
        let same = [ours.uid[0], ours.uid[1]].iter().any(|id| *id == theirs.uid[0] || *id == theirs.uid[2]);
        me == target || same || self.may(me, theirs.user, cap::KILL)
    }

    /// Sends a signal to the calling process. The call does not return if the signal is deadly.
    pub(super) fn raise_in(&mut self, me: Task, signal: Signal) -> Result<(), Halt> {
        self.deliver(me, signal, false);
        if self.process(me).is_alive() { Ok(()) } else { Err(Halt::Gone) }
    }

    /// Delivers a signal. Without a handler, pid 1 of a namespace ignores each signal, except SIGKILL and
    /// SIGSTOP from an ancestor namespace (pid_namespaces(7)).
    pub(super) fn deliver(&mut self, task: Task, signal: Signal, from_above: bool) {
        let is_init = self.pid_ns(self.process(task).ns.get(NsKind::Pid)).init == Some(task);
        let process = self.process_mut(task);
        if !process.is_alive() || is_init && signal == Signal::KILL && !from_above {
            return;
        }
        if signal == Signal::CONT {
            // Continues the process even if SIGCONT is blocked or ignored (prepare_signal).
            (process.stopped, process.stop_report) = (false, None);
        }
        if signal == Signal::STOP {
            self.stop(task, is_init && !from_above);
            return;
        }
        if signal != Signal::KILL {
            let action = process.actions.get(&signal.0).copied().unwrap_or(SigAction::DEFAULT);
            let default = action.handler == SigAction::DEFAULT.handler;
            if process.mask.contains(set_of(signal)) {
                // A blocked signal stays pending even if it is ignored: its disposition may change.
                process.pending.0 |= set_of(signal).0;
                return;
            }
            if !default || is_init || has_no_default_effect(signal) {
                return;
            }
        }
        self.exit(task, WaitStatus::Signaled(signal));
    }

    /// Implements SIGSTOP. The parent is notified by SIGCHLD and by wait4 (do_notify_parent_cldstop).
    fn stop(&mut self, task: Task, immune: bool) {
        let process = self.process_mut(task);
        if immune || process.stopped {
            return;
        }
        (process.stopped, process.stop_report) = (true, Some(Signal::STOP));
        if let Some(parent) = process.parent {
            self.deliver(parent, Signal::CHLD, true);
        }
    }
}
