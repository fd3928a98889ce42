//! The meaning of the steps: which transitions a state has without a fault.

use super::protocol::{End, Mend, Message, Role, Step};
use super::state::{Cause, Event, Life, Model, Process, Reason, State, Status, Transition, bit, is_quiet};

impl State {
    /// Returns the transitions without a fault.
    pub(crate) fn transitions(&self, model: &Model) -> Vec<Transition> {
        let mut all = Vec::new();
        for role in Role::ALL {
            if !self.processes[role as usize].stopped {
                all.extend(self.of_process(model, role).map(|(event, next)| (role, event, next)));
            }
        }
        if !model.config.ours() && self.lives(Role::Launcher) && self.log > 0 {
            let next = Self { log: self.log - 1, ..self.clone() };
            all.push((Role::Launcher, Event::Hidden("a thread reads the log"), next));
        }
        // A time limit passes only if no process can continue. A tool may take any time.
        if is_quiet(&all) {
            all.extend(self.time_limit(model));
        }
        all
    }

    fn time_limit(&self, model: &Model) -> Option<Transition> {
        if self.step(model, Role::Launcher) != Some(Step::Drain) || self.processes[0].stopped {
            return None;
        }
        let mut next = Self { rounds: self.rounds + 1, ..self.clone() };
        let stopped = Role::STAGES.into_iter().filter(|stage| self.processes[*stage as usize].stopped);
        let mut event = Event::Hidden("a time limit passes");
        match self.rounds {
            0 if model.has(Mend::KillStopped) => event = next.kill_all(stopped.map(bit).sum()),
            0 => {}
            1 => event = next.kill_all(self.known_to_launcher()),
            _ => next = next.advance(Role::Launcher),
        }
        Some((Role::Launcher, event, next))
    }

    fn of_process(&self, model: &Model, role: Role) -> Option<(Event, Self)> {
        let mut next = self.clone();
        match self.life(role) {
            Life::At(_) | Life::GivesUp(_) => return self.of_step(model, role, self.step(model, role)?),
            Life::Fails(cause, mask, awaits_go) => {
                let event = next.kill_all(mask);
                next.process(role).life = Life::Reports(cause, awaits_go);
                if !model.has(Mend::RecordBeforeEnd) {
                    next.process(role).ends &= 1 << End::LogWriter as u8;
                }
                return Some((event, next));
            }
            Life::Reports(cause, awaits_go) => {
                if self.log < model.log_room() && self.is_held(End::LogReader) {
                    next.log += 1;
                    next.first_fatal = next.first_fatal.or(Some((role, cause)));
                    next.roots += u8::from(cause == Cause::Root);
                }
                if awaits_go {
                    next.process(role).life = Life::AwaitsGo;
                    return Some((Event::Hidden("a fatal record"), next));
                }
            }
            Life::AwaitsGo if next.receives(End::InitOfStages, Message::Go) => {
                next.process(role).life = Life::AwaitsGo;
            }
            Life::AwaitsGo if !self.is_held(End::InitOfLauncher) => {}
            _ => return None,
        }
        next.end(role, Status::One);
        Some((Event::Exits(1), next))
    }

    fn of_step(&self, model: &Model, role: Role, step: Step) -> Option<(Event, Self)> {
        let mut next = self.clone();
        let mut event = Event::Did(step);
        let ours = model.config.ours();
        let partner_ended =
            |next: Self| Some((Event::Hidden("its partner has ended"), next.partner_ended(model, role)));
        match step {
            Step::MakeSyncPipes => {
                for end in [End::ChildOf0, End::ChildOf1, End::GrandchildOf0, End::GrandchildOf2] {
                    next.process(role).ends |= 1 << end as u8;
                }
            }
            Step::Fork(child) => {
                let ends = self.processes[role as usize].ends;
                *next.process(child) = Process { life: Life::At(0), ends, stopped: false, pdeathsig: false };
            }
            Step::Close(end) => next.process(role).ends &= !(1 << end as u8),
            Step::Send(end, message) if !self.is_held(end.peer()) => {
                next.sent_go |= message == Message::Go;
                return partner_ended(next);
            }
            Step::Send(end, message) => {
                next.queues[end.peer() as usize].push(message);
                next.pid_lines += u8::from(message == Message::PidLine);
                next.sent_go |= message == Message::Go;
                next.ready |= role == Role::Stage2 && message == Message::ChildFinish;
            }
            Step::Receive(end, message) => {
                if next.receives(end, message) {
                    next.knows_pids |= message == Message::PidLine;
                } else if !self.is_held(end.peer()) && message == Message::Go {
                    next.end(role, Status::One);
                    return Some((Event::Exits(1), next));
                } else if !self.is_held(end.peer()) || self.notices_another_end(model, role, message) {
                    return partner_ended(next);
                } else {
                    return None;
                }
            }
            Step::WriteFiles if !self.lives(Role::Stage1) => return partner_ended(next),
            Step::AwaitTool => return self.await_tool(model, role),
            Step::Log if self.log < model.log_room() && self.is_held(End::LogReader) => {
                next.log += 1;
                event = Event::Hidden("a debug record");
            }
            Step::Log if model.has(Mend::LogNeverBlocks) || !self.is_held(End::LogReader) => {
                event = Event::Hidden("a dropped record");
            }
            Step::Log => return None,
            Step::SetPdeathsig | Step::ClearPdeathsig => {
                next.process(role).pdeathsig = step == Step::SetPdeathsig;
                event = Event::Hidden("sets its parent-death signal");
            }
            // The exec of the tool.
            Step::Work if role == Role::Tool && model.has(Mend::ToolDescriptors) => {
                next.process(role).ends = 0
            }
            Step::WriteFiles | Step::Work => {}
            Step::Reap(stage) => {
                next.reap(stage)?;
                event = Event::Reaps(stage);
            }
            Step::CheckStatuses => {
                let failed = |stage| matches!(self.life(stage), Life::Reaped(Status::One | Status::Killed));
                if failed(Role::Stage0) || (ours && failed(Role::Stage1)) {
                    return partner_ended(next);
                }
                event = Event::Hidden("checks the statuses");
            }
            Step::CheckStage2 if !self.lives(Role::Stage2) => return partner_ended(next),
            Step::CheckStage2 => event = Event::Hidden("checks that stage 2 lives"),
            Step::ReadLog | Step::Drain => return self.read_log(model, role, step),
            Step::Exec => {
                let process = next.process(role);
                (process.life, process.ends, process.pdeathsig) = (Life::Runs, 0, false);
                return Some((event, next));
            }
            Step::Exit => {
                next.end(role, Status::Zero);
                return Some((Event::Exits(0), next));
            }
            Step::KillKnown | Step::ContinueKnown | Step::ReapAll => return self.give_up(model, step),
            Step::Return => {
                let process = next.process(role);
                process.life = Life::Returned(matches!(process.life, Life::At(_)));
                process.ends = 0;
                return Some((Event::Hidden("returns"), next));
            }
        }
        Some((event, next.advance(role)))
    }

    /// Returns whether a process that waits for this message sees the end of a process other than its peer.
    fn notices_another_end(&self, model: &Model, role: Role, message: Message) -> bool {
        match (role, message) {
            (Role::Launcher, _) => {
                model.config.ours() && model.has(Mend::WatchStage0) && !self.lives(Role::Stage0)
            }
            (_, Message::Bootstrap | Message::Go) => false,
            _ => model.has(Mend::WatchInitPipe) && !self.is_held(End::InitOfLauncher),
        }
    }

    fn await_tool(&self, model: &Model, role: Role) -> Option<(Event, Self)> {
        let mut next = self.clone();
        let (stage_1_ended, launcher_ended) =
            (!self.is_held(End::ChildOf1), !self.is_held(End::InitOfLauncher));
        if let Some(status) = next.reap(Role::Tool) {
            let event = Event::Reaps(Role::Tool);
            return Some(match status {
                _ if stage_1_ended || (launcher_ended && status == Status::Killed) => {
                    (event, next.partner_ended(model, role))
                }
                Status::Zero => (event, next.advance(role)),
                _ => (event, next.fail(model, role, Cause::Root, Reason::OwnError)),
            });
        }
        let watched = (stage_1_ended && model.has(Mend::ToolWatchStage1))
            || (launcher_ended && model.has(Mend::ToolWatchLauncher));
        watched.then(|| (next.kill_all(bit(Role::Tool)), next))
    }

    fn read_log(&self, model: &Model, role: Role, step: Step) -> Option<(Event, Self)> {
        let next = self.clone();
        let read = Event::Hidden("reads the log");
        if self.log > 0 {
            return Some((read, Self { log: self.log - 1, ..next }));
        }
        if self.is_held(End::LogWriter) {
            return None;
        }
        let failed = model.config.ours() && step == Step::ReadLog && self.first_fatal.is_some();
        Some(match failed {
            true => (read, next.fail(model, role, Cause::Partner, Reason::FatalRecord)),
            false => (read, next.advance(role)),
        })
    }

    /// A step of a launcher that gives up.
    fn give_up(&self, model: &Model, step: Step) -> Option<(Event, Self)> {
        let (mut next, launcher) = (self.clone(), Role::Launcher);
        let is_reaped = |stage: Role| matches!(self.life(stage), Life::Reaped(_));
        // The process of runc's handle.
        let current = match is_reaped(Role::Stage0) {
            false => Some(Role::Stage0),
            true => Some(Role::Stage2).filter(|_| self.sent_go && !is_reaped(Role::Stage2)),
        };
        let all: Vec<Role> =
            if model.config.ours() { Role::STAGES.into() } else { current.into_iter().collect() };
        match step {
            Step::KillKnown => {
                let mask = match (model.config.ours(), self.reason) {
                    (true, Some(Reason::OwnError)) => self.known_to_launcher(),
                    (true, _) => 0,
                    (false, _) => current.map_or(0, bit),
                };
                Some((next.kill_all(mask), next.advance(launcher)))
            }
            Step::ContinueKnown => {
                let mut event = Event::Hidden("is not interrupted");
                if self.reason == Some(Reason::Interrupted) {
                    event = next.kill_all(if self.sent_go { bit(Role::Stage2) } else { 0 });
                    for stage in
                        Role::STAGES.into_iter().filter(|stage| self.known_to_launcher() & bit(*stage) != 0)
                    {
                        next.process(stage).stopped = false;
                    }
                }
                Some((event, next.advance(launcher)))
            }
            _ => {
                if let Some(stage) = all.iter().find(|stage| next.reap(**stage).is_some()) {
                    return Some((
                        Event::Reaps(*stage),
                        if model.config.ours() { next } else { next.advance(launcher) },
                    ));
                }
                let lives = all.iter().any(|stage| self.lives(*stage) && self.life(*stage) != Life::Runs);
                // After the last time limit it does not wait.
                (!lives || self.rounds > 2)
                    .then(|| (Event::Hidden("no child is left"), next.advance(launcher)))
            }
        }
    }
}
