//! One turn of one process: [`SimSys`]. Fork and blocking by replay.
//!
//! A Rust stack cannot be copied, but the stack of a deterministic function can be rebuilt. To run a process,
//! its function is called from the start. Its `Sys` first returns the recorded replies, without any effect.
//! When they are used up, the calls reach the kernel. A fork copies the replies and adds [`Reply::Child`]. A
//! call that blocks leaves the function ([`leave`](crate::record::by_errors)), and the scheduler runs another
//! process.
//!
//! A function that depends on anything but its replies is detected: it makes another call than the recorded
//! one.

use core::cell::RefCell;
use std::rc::Rc;
use std::vec::Vec;

use super::fault::{Fault, FaultKind, shortened};
use super::kernel::{Halt, Kernel};
use super::process::Task;
use crate::record::leave::Leaving;
use crate::record::{Answer, Call, Line, Reply};
use nsexec::sys::types::{Signal, WaitStatus};

/// The kernel, and the fault of the run.
#[derive(Default)]
pub(super) struct World {
    pub(super) kernel: Kernel,
    pub(super) fault: Option<Fault>,
    pub(super) fired: bool,
}

/// The [`Sys`](nsexec::sys::Sys) of the simulated kernel, for one turn of one process.
pub struct SimSys {
    world: Rc<RefCell<World>>,
    me: Task,
    /// The number of recorded replies that have been returned.
    cursor: usize,
    /// The number of live calls that this turn may still make.
    quantum: usize,
    /// Set when the turn is over.
    leaving: Option<Leaving>,
}

impl core::fmt::Debug for SimSys {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "SimSys({:?})", self.me)
    }
}

impl World {
    /// Makes a call for the first time. Returns `None` if the turn is over.
    fn live(&mut self, me: Task, call: Call) -> Option<Reply> {
        self.kernel.calls += 1;
        let waking = self.kernel.process(me).blocked.is_some();
        let mut made = None;
        match self.fault_here(me, waking) {
            // These two cannot fail.
            Some(FaultKind::Errno(_)) if matches!(call, Call::Getpid | Call::Gettid) => {}
            Some(FaultKind::Errno(errno)) => {
                self.fired = true;
                if let Call::Close { fd } = call {
                    // Closing an unknown descriptor has no effect.
                    let _ = self.kernel.close(me, fd);
                }
                self.kernel.process_mut(me).unblock();
                return Some(self.record(me, call, Reply::Errno(errno)));
            }
            Some(FaultKind::Kill | FaultKind::KillWaking) => {
                self.fired = true;
                self.kernel.exit(me, WaitStatus::Signaled(Signal::KILL));
                return None;
            }
            Some(FaultKind::Stop(_)) => {
                self.fired = true;
                self.kernel.deliver(me, Signal::STOP, true);
                return None;
            }
            Some(FaultKind::KillDying(role)) => {
                let plays = |task: &Task| {
                    let process = self.kernel.process(*task);
                    process.role == role && process.is_alive()
                };
                if let Some(victim) = self.kernel.tasks().find(plays) {
                    self.fired = true;
                    self.kernel.begin_exit(victim, WaitStatus::Signaled(Signal::KILL));
                    if victim == me {
                        return None;
                    }
                }
            }
            Some(FaultKind::Short(len)) => made = shortened(&call, len),
            None => {}
        }
        let result = self.kernel.call(me, made.as_ref().unwrap_or(&call));
        match result {
            Ok(reply) => {
                self.fired |= made.is_some();
                Some(self.record(me, call, reply))
            }
            Err(Halt::Errno(errno)) => Some(self.record(me, call, Reply::Errno(errno))),
            Err(Halt::Block) => {
                self.kernel.process_mut(me).blocked = Some(made.unwrap_or(call));
                None
            }
            Err(Halt::Gone) => {
                let process = self.kernel.process_mut(me);
                if process.is_alive() {
                    process.past.push(Rc::new(Line { call, reply: Reply::NoReturn }));
                }
                None
            }
        }
    }

    pub(super) fn fault_here(&self, me: Task, waking: bool) -> Option<FaultKind> {
        let process = self.kernel.process(me);
        let fault = self.fault.filter(|fault| !self.fired && fault.at.role == process.role)?;
        let here = fault.at.line == process.lines() && (waking || fault.what != FaultKind::KillWaking);
        here.then_some(fault.what)
    }

    fn record(&mut self, me: Task, call: Call, reply: Reply) -> Reply {
        self.kernel.process_mut(me).replay.push(Rc::new(Line { call, reply: reply.clone() }));
        reply
    }
}

impl SimSys {
    pub(super) fn new(world: Rc<RefCell<World>>, me: Task, quantum: usize) -> Self {
        Self { world, me, cursor: 0, quantum, leaving: None }
    }

    /// Returns the arguments that this program was executed with.
    #[must_use]
    pub fn argv(&self) -> Vec<Vec<u8>> {
        self.world.borrow().kernel.process(self.me).argv.clone()
    }

    /// Returns the environment that this program was executed with: each variable with its NUL.
    #[must_use]
    pub fn environ(&self) -> Vec<u8> {
        let world = self.world.borrow();
        let variables = &world.kernel.process(self.me).environ;
        variables.iter().flat_map(|variable| variable.iter().copied().chain([0])).collect()
    }

    /// Returns whether the turn of the process is over. Then all calls fail, and the result of its function
    /// is ignored: see [`by_errors`](crate::record::by_errors).
    #[must_use]
    pub const fn is_turn_over(&self) -> bool {
        self.leaving.is_some()
    }

    /// Panics if recorded replies remain: the function did not repeat all its calls, so it is not pure.
    pub(super) fn assert_all_replayed(&self) {
        let world = self.world.borrow();
        let process = world.kernel.process(self.me);
        if let Some(line) = process.replay.get(self.cursor) {
            panic!("{} is not pure: recorded {line}, now it ended without another call", process.role);
        }
    }
}

impl Answer for SimSys {
    /// Returns a recorded reply, or the kernel's.
    fn answer(&mut self, call: Call) -> Reply {
        let name = call.name();
        if let Some(leaving) = &mut self.leaving {
            return leaving.reply(name);
        }
        let world = Rc::clone(&self.world);
        let mut world = world.borrow_mut();
        let process = world.kernel.process(self.me);
        let reply = match process.replay.get(self.cursor) {
            Some(line) if line.call == call => Some(line.reply.clone()),
            Some(line) => panic!(
                "{} is not pure at line {} of its replay: recorded {}, now it calls {call}",
                process.role, self.cursor, line.call
            ),
            // The process may have stopped itself.
            None if world.kernel.process(self.me).stopped => None,
            None if self.quantum == 0 || world.kernel.calls > world.kernel.settings.calls => None,
            None => {
                self.quantum -= 1;
                world.live(self.me, call)
            }
        };
        drop(world);
        let Some(reply) = reply else { return self.leaving.insert(Leaving::default()).reply(name) };
        self.cursor += 1;
        reply
    }
}
