//! The simulated kernel: processes, namespaces, descriptors and signals by Linux's rules, without Linux.
//!
//! The simulated kernel implements every call that the scripts make. It is deterministic and runs in one
//! thread. The three stages, the launcher and the mapping tools run as simulated processes over [`SimSys`]. A
//! [`Choice`] decides their order, and one [`Fault`] can happen at any call. `tests/parity.rs` compares every
//! rule with the real kernel.
//!
//! | file | concern |
//! |---|---|
//! | `kernel` | the state, and the dispatch of each call to its implementation |
//! | `process`, `life` | the state of a process and its pids; clone, exec, death, reaping |
//! | `creds`, `idmaps` | ids, capabilities, maps |
//! | `namespaces` | owners, joining, creating |
//! | `attributes`, `bpf` | limits, capability sets, filters, host name, loopback |
//! | `descriptors`, `streams` | descriptor tables and open files; pipes, socket pairs, polls |
//! | `procfs` | paths and files |
//! | `mounts`, `lookup`, `tree` | mounts, paths in them, and the calls that change them |
//! | `files` | files that processes make, and the programs in them |
//! | `signals` | masks, dispositions, delivery |
//! | `turn` | [`SimSys`]: one turn of one process; fork and blocking by replay |
//! | `schedule`, `fault` | the order of a run, and the faults in it |
//! | `faultless` | runs with a fault from the state before the fault |
//! | `program`, `setup`, `caller` | the programs, the machine before a run, and the launcher's place on it |
//! | `expected` | the state of a process that is about to execute the command |
//! | `report`, `dump` | the results of a run |
//!
//! ```
//! use nsexec::sys::Sys;
//! use nsexec::sys::types::{Errno, ExitSignal, Fork, WaitFor};
//! use nsexec_audit::Role;
//! use nsexec_audit::sim::{FinalState, Ended, Fault, FaultKind, Oldest, Settings, Sim, User};
//!
//! let mut sim = Sim::new(Settings::default(), &User::root());
//! sim.launcher(|sys| match sys.fork(ExitSignal::Chld, None) {
//!     Ok(Fork::Child) => Ended::Exit(sys.setsid().map_or(1, |()| 0)),
//!     Ok(Fork::Parent { child }) => Ended::Exit(sys.wait4(child, WaitFor::Ordinary).map_or(1, |_| 0)),
//!     Err(_) => Ended::Exit(2),
//! });
//! let faultless = sim.run(&mut Oldest, None);
//! // Every call can fail, one in each run.
//! for (at, line) in faultless.places() {
//!     let report = sim.run(&mut Oldest, Some(Fault { at, what: FaultKind::Errno(Errno::EPERM) }));
//!     assert!(report.fault_fired && report.stuck().count() == 0, "{line}\n{report}");
//! }
//! assert_eq!(faultless.find(Role::Stage(0)).map(|process| &process.end), Some(&FinalState::Exited(0)));
//! ```
//!
//! The simulator may panic at a mistake in itself or in a test. No byte that a simulated process writes makes
//! it panic.

mod attributes;
mod bpf;
mod caller;
mod creds;
mod descriptors;
mod dump;
mod expected;
mod fault;
mod faultless;
mod files;
mod idmaps;
mod kernel;
mod life;
mod lookup;
mod mounts;
mod namespaces;
mod proc_values;
mod process;
mod procfs;
mod program;
mod report;
mod schedule;
mod setup;
mod signals;
mod streams;
mod tree;
mod turn;

pub use caller::{OwnUser, ProcOwner};
pub use creds::{ALL_CAPS, cap};
pub use fault::{Fault, FaultKind, Place, StopReaction};
pub use faultless::Faultless;
pub use kernel::{HidePid, Settings};
pub use namespaces::NsId;
pub use process::{Reaper, Task};
pub use procfs::Extra;
pub use program::{Allowance, Ended, Main, Program};
pub use report::{FinalState, ProcessReport, Report};
pub use schedule::{Choice, Enumerated, Oldest, Random, Script, Youngest, all_schedules};
pub use setup::{Container, LauncherFile, Sim, User};
pub use turn::SimSys;
