//! A run without a fault that is kept: a run with a fault begins at the turn in which the fault can happen.

use std::vec::Vec;

use super::fault::{Fault, FaultKind};
use super::kernel::Kernel;
use super::report::Report;
use super::schedule::{Choice, Running, Step};
use crate::transcript::Role;

/// A run without a fault, with the state of the machine before each turn.
///
/// Up to the fault, a run with a fault makes the same calls as the run without it. [`run`](Self::run) does
/// not repeat the turns before that of the fault.
#[derive(Debug)]
pub struct Faultless<C> {
    /// The results of the run without a fault.
    pub report: Report,
    turns: Vec<Turn<C>>,
}

/// One turn of one process.
#[derive(Debug)]
struct Turn<C> {
    /// The state before the turn.
    kernel: Kernel,
    /// The choice before it has chosen the process.
    choice: C,
    role: Role,
    /// The number of lines of the process before the turn. It is the number of the first line of the turn.
    first: usize,
    /// The number of lines after the turn. A call that blocked has this number.
    last: usize,
    /// Whether the process was blocked before the turn.
    waking: bool,
}

impl<C: Choice + Clone> Faultless<C> {
    pub(super) fn new(kernel: Kernel, mut choice: C) -> Self {
        let mut running = Running::new(kernel, None);
        let mut turns = Vec::new();
        loop {
            let (kernel, before) = (running.kernel().clone(), choice.clone());
            match running.step(&mut choice) {
                Step::Turn(task) => {
                    let process = kernel.process(task);
                    let (role, first, waking) = (process.role, process.lines(), process.blocked.is_some());
                    let last = running.kernel().process(task).lines();
                    turns.push(Turn { kernel, choice: before, role, first, last, waking });
                }
                Step::Other => {}
                Step::Over => return Self { report: running.report(), turns },
            }
        }
    }

    /// Returns the report of the run with this fault, as [`Sim::run`](super::Sim::run) does. `None` if the
    /// fault cannot happen in this run: then the run with the fault is the run without it.
    ///
    /// # Panics
    /// As [`Sim::run`](super::Sim::run).
    #[must_use]
    pub fn run(&self, fault: Fault) -> Option<Report> {
        let turn = self.turn_of(fault)?;
        let mut choice = turn.choice.clone();
        let mut running = Running::new(turn.kernel.clone(), Some(fault));
        loop {
            match running.step(&mut choice) {
                Step::Turn(_) if running.has_passed_the_fault() => return None,
                Step::Turn(_) | Step::Other => {}
                Step::Over => break,
            }
        }
        Some(running.report()).filter(|report| report.fault_fired)
    }

    /// Returns whether the process has ended before the turn in which the fault can happen. It then ended as
    /// it does without the fault.
    #[must_use]
    pub fn ends_before(&self, role: Role, fault: Fault) -> bool {
        self.turn_of(fault).is_some_and(|turn| {
            let mut tasks = turn.kernel.tasks();
            tasks.any(|task| {
                let process = turn.kernel.process(task);
                process.role == role && process.has_ended()
            })
        })
    }

    /// Returns the first turn in which the fault can happen.
    fn turn_of(&self, fault: Fault) -> Option<&Turn<C>> {
        let line = fault.at.line;
        self.turns.iter().find(|turn| {
            turn.role == fault.at.role
                && match fault.what {
                    FaultKind::KillWaking => turn.waking && turn.first == line,
                    _ => (turn.first..=turn.last).contains(&line),
                }
        })
    }
}
