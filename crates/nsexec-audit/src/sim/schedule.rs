//! The order in which processes run: [`Choice`], and the run itself.

use core::cell::{Ref, RefCell};
use std::rc::Rc;
use std::vec::Vec;

use super::fault::{Fault, FaultKind, StopReaction};
use super::kernel::Kernel;
use super::process::Task;
use super::program::{Ended, Rest};
use super::report::Report;
use super::turn::{SimSys, World};
use crate::record::leave;
use crate::transcript::Role;
use nsexec::sys::types::{Signal, WaitStatus};

/// Decides the order of a run.
pub trait Choice {
    /// Returns the index in `ready` of the process that runs next. Called only if `ready` has at least two.
    fn pick(&mut self, ready: &[Task]) -> usize;

    /// Returns how many calls the process may make before another may run. By default the number is
    /// unlimited.
    fn quantum(&mut self) -> usize {
        usize::MAX
    }
}

/// Runs the oldest process that can run, until it blocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Oldest;

impl Choice for Oldest {
    fn pick(&mut self, _: &[Task]) -> usize {
        0
    }
}

/// Runs the youngest process that can run, until it blocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Youngest;

impl Choice for Youngest {
    fn pick(&mut self, ready: &[Task]) -> usize {
        ready.len() - 1
    }
}

/// Runs a random process for a few calls at a time, from a seed.
#[derive(Clone, Copy, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// Returns the schedule of this seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { state: seed.wrapping_mul(2).wrapping_add(1) }
    }

    /// Returns the next number of splitmix64.
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ self.state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }
}

impl Choice for Random {
    fn pick(&mut self, ready: &[Task]) -> usize {
        (self.next() % ready.len() as u64) as usize
    }

    fn quantum(&mut self) -> usize {
        // Mostly one or two calls, sometimes many.
        1 + (self.next() % 64).trailing_zeros() as usize * 2
    }
}

/// A run-to-block schedule: a list of choices. After its end the first process is chosen.
#[derive(Clone, Debug, Default)]
pub struct Script {
    prefix: Vec<usize>,
    /// The choices made, each with the number of processes to choose from.
    taken: Vec<(usize, usize)>,
}

impl Choice for Script {
    fn pick(&mut self, ready: &[Task]) -> usize {
        let pick = self.prefix.get(self.taken.len()).copied().unwrap_or(0).min(ready.len() - 1);
        self.taken.push((pick, ready.len()));
        pick
    }
}

impl Script {
    /// Returns the next schedule in depth-first order, if there is one.
    fn successor(mut self) -> Option<Self> {
        while let Some((pick, of)) = self.taken.pop() {
            if pick + 1 < of {
                let mut prefix: Vec<usize> = self.taken.iter().map(|(pick, _)| *pick).collect();
                prefix.push(pick + 1);
                return Some(Self { prefix, taken: Vec::new() });
            }
        }
        None
    }
}

/// The extent of an enumeration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Enumerated {
    /// The number of schedules that were run.
    pub count: usize,
    /// True if these were all schedules.
    pub complete: bool,
}

/// Calls `run` with every run-to-block schedule, up to `bound` of them. `run` must run the same thing each
/// time.
pub fn all_schedules(bound: usize, mut run: impl FnMut(&mut Script)) -> Enumerated {
    let mut next = Some(Script::default());
    let mut count = 0;
    while let Some(mut script) = next {
        if count == bound {
            return Enumerated { count, complete: false };
        }
        run(&mut script);
        count += 1;
        next = script.successor();
    }
    Enumerated { count, complete: true }
}

/// Runs until no process can run.
pub(super) fn run(kernel: Kernel, choice: &mut dyn Choice, fault: Option<Fault>) -> Report {
    let mut running = Running::new(kernel, fault);
    while running.step(choice) != Step::Over {}
    running.report()
}

/// A run, from any state of the machine.
pub(super) struct Running {
    world: Rc<RefCell<World>>,
    endless: bool,
    /// The reaction to the stopped process, until it has followed.
    after_stop: Option<StopReaction>,
}

/// One step of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// A turn of this process.
    Turn(Task),
    /// No process could run, and something else happened.
    Other,
    /// The run is over.
    Over,
}

impl Running {
    pub(super) fn new(kernel: Kernel, fault: Option<Fault>) -> Self {
        let after_stop = match fault {
            Some(Fault { what: FaultKind::Stop(then), .. }) => Some(then),
            _ => None,
        };
        let world = World { kernel, fault, fired: false };
        Self { world: Rc::new(RefCell::new(world)), endless: false, after_stop }
    }

    /// Returns the present state of the machine.
    pub(super) fn kernel(&self) -> Ref<'_, Kernel> {
        Ref::map(self.world.borrow(), |world| &world.kernel)
    }

    /// Runs one process until its turn is over. If no process can run, the next event happens.
    pub(super) fn step(&mut self, choice: &mut dyn Choice) -> Step {
        let ready = self.kernel().ready();
        if ready.is_empty() {
            let mut world = self.world.borrow_mut();
            // The user reacts to a stopped process before a time limit of the launcher expires.
            if let Some(then) = self.after_stop.take_if(|_| world.fired) {
                follow_stop(&mut world.kernel, then);
            } else if !world.kernel.finish_exits() && !world.kernel.pass_time() {
                return Step::Over;
            }
            return Step::Other;
        }
        let (calls, limit) = (self.kernel().calls, self.kernel().settings.calls);
        if calls > limit {
            self.endless = true;
            return Step::Over;
        }
        let index = if ready.len() == 1 { 0 } else { choice.pick(&ready) };
        turn(&self.world, ready[index], choice.quantum());
        Step::Turn(ready[index])
    }

    /// Returns whether the process has made the call of the fault, and the fault has not happened.
    pub(super) fn has_passed_the_fault(&self) -> bool {
        let world = self.world.borrow();
        let passed = |Fault { at, .. }: Fault| {
            let mut tasks = world.kernel.tasks();
            tasks.any(|task| {
                let process = world.kernel.process(task);
                process.role == at.role && process.lines() > at.line
            })
        };
        !world.fired && world.fault.is_some_and(passed)
    }

    /// Returns the results.
    pub(super) fn report(self) -> Report {
        let World { kernel, fired, .. } = self.world.replace(World::default());
        Report::new(kernel, self.endless, fired)
    }
}

/// Acts as a user would when a stopped process blocks the start.
fn follow_stop(kernel: &mut Kernel, then: StopReaction) {
    let Some(launcher) = kernel.tasks().find(|task| kernel.process(*task).role == Role::Launcher) else {
        return;
    };
    match then {
        StopReaction::Interrupt => {
            kernel.interrupt(Signal::TERM);
            kernel.deliver(launcher, Signal::CONT, true);
        }
        StopReaction::KillLauncher => kernel.exit(launcher, WaitStatus::Signaled(Signal::KILL)),
    }
}

/// Runs one process until its turn is over.
fn turn(world: &Rc<RefCell<World>>, task: Task, quantum: usize) {
    let main = world.borrow().kernel.process(task).main.clone();
    let Some(main) = main else { return };
    let mut sys = SimSys::new(Rc::clone(world), task, quantum);
    match leave::caught(|| main(&mut sys)) {
        Some(ended) if !sys.is_turn_over() => {
            sys.assert_all_replayed();
            finish(&mut world.borrow_mut(), task, ended);
        }
        _ => {}
    }
}

fn finish(world: &mut World, task: Task, ended: Ended) {
    match world.fault_here(task, false) {
        Some(FaultKind::Kill) => {
            world.fired = true;
            world.kernel.exit(task, WaitStatus::Signaled(Signal::KILL));
            return;
        }
        // When SIGCONT arrives, the function is called again.
        Some(FaultKind::Stop(_)) => {
            world.fired = true;
            world.kernel.deliver(task, Signal::STOP, true);
            return;
        }
        _ => {}
    }
    let kernel = &mut world.kernel;
    match ended {
        Ended::Exit(status) => kernel.exit(task, WaitStatus::Exited(status & 0xff)),
        Ended::Signal(signal) => kernel.exit(task, WaitStatus::Signaled(signal)),
        Ended::HandOver => kernel.process_mut(task).rest = Some(Rest::HandedOver),
        Ended::Stay => kernel.process_mut(task).rest = Some(Rest::Stays),
    }
}
