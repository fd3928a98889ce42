//! The faults: SIGKILL, an error, SIGSTOP, and SIGTERM to our launcher.

use super::protocol::{Role, Step};
use super::state::{Cause, Event, Life, Model, Reason, State, Status, Transition};

impl State {
    /// Returns the transitions that are faults.
    pub(crate) fn faults(&self, model: &Model) -> Vec<Transition> {
        let mut all = Vec::new();
        if self.faults == model.config.faults {
            return all;
        }
        let faulty = Self { faults: self.faults + 1, ..self.clone() };
        for role in Role::ALL {
            let (life, step) = (self.life(role), self.step(model, role));
            if !self.lives(role) || matches!(life, Life::Runs | Life::Returned(_)) {
                continue;
            }
            let mut next = faulty.clone();
            next.end(role, Status::Killed);
            all.push((role, Event::Hidden("SIGKILL"), next));
            // A failed wait for the tool leaves it alone. No kernel fails so. The others make no call that
            // can fail.
            let cannot_fail = matches!(
                step,
                Some(
                    Step::AwaitTool
                        | Step::CheckStatuses
                        | Step::Log
                        | Step::SetPdeathsig
                        | Step::Exit
                        | Step::Return
                )
            );
            // Of runc only the messages and the waits are modelled, not its errors.
            let is_runc = role == Role::Launcher && !model.config.ours();
            if matches!(life, Life::At(_)) && (role == Role::Tool || !cannot_fail) && !is_runc {
                let next = Self { errors: self.errors + 1, error_in: Some(role), ..faulty.clone() };
                all.push((
                    role,
                    Event::Hidden("an error"),
                    match role {
                        Role::Tool => {
                            let mut next = next;
                            next.end(role, Status::One);
                            next
                        }
                        _ => next.fail(model, role, Cause::Root, Reason::OwnError),
                    },
                ));
            }
            // A stage that is stopped before its first call, or after the launcher's end, stays until it is
            // continued.
            let can_stop = !matches!(life, Life::At(0)) && self.lives(Role::Launcher);
            if model.config.stops
                && can_stop
                && Role::STAGES.contains(&role)
                && !self.processes[role as usize].stopped
            {
                let mut next = faulty.clone();
                next.process(role).stopped = true;
                all.push((role, Event::Hidden("SIGSTOP"), next));
            }
        }
        let waits = matches!(
            self.step(model, Role::Launcher),
            Some(Step::Receive(..) | Step::Reap(_) | Step::ReadLog)
        );
        if model.config.stops
            && model.config.ours()
            && waits
            && matches!(self.life(Role::Launcher), Life::At(_))
        {
            let next = faulty.fail(model, Role::Launcher, Cause::Partner, Reason::Interrupted);
            all.push((Role::Launcher, Event::Hidden("SIGTERM"), next));
        }
        all
    }
}
