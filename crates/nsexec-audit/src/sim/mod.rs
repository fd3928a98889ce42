//! The simulated kernel: processes, namespaces, descriptors and signals by Linux's rules, without Linux.
//!
//! Everything that the scripts ask of a kernel is here, deterministic, in one thread: the three stages, the launcher
//! and the mapping tools run as simulated processes over [`SimSys`], in any order that a [`Choice`] says, with one
//! [`Fault`] at any call. `tests/parity.rs` holds every rule against the real kernel.
//!
//! | file | concern |
//! |---|---|
//! | `kernel` | the state, and the one place where a call becomes what it does |
//! | `process`, `life` | what a process is, its numbers; clone, exec, death, reaping |
//! | `creds`, `idmaps` | ids, capabilities, maps |
//! | `namespaces` | owners, joining, creating |
//! | `descriptors`, `streams` | tables and what is open; pipes, socket pairs, polls |
//! | `procfs` | paths and files |
//! | `files` | files that processes make, and the programs in them |
//! | `signals` | masks, dispositions, delivery |
//! | `replay` | [`SimSys`]: fork and blocking by replay |
//! | `schedule`, `fault` | orders of a run, and what goes wrong in it |
//! | `program`, `setup` | what runs, and the machine before it |
//! | `report`, `dump` | what came of it |
//!
//! ```
//! use nsexec::sys::Sys;
//! use nsexec::sys::sim::{End, Ended, Fault, Oldest, Section, Settings, Sim, User, What};
//! use nsexec::sys::types::{Errno, ExitSignal, Fork, WaitFor};
//!
//! let mut sim = Sim::new(Settings::default(), &User::root());
//! sim.launcher(|sys| match sys.fork(ExitSignal::Chld, None) {
//!     Ok(Fork::Child) => Ended::Exit(sys.setsid().map_or(1, |()| 0)),
//!     Ok(Fork::Parent { child }) => Ended::Exit(sys.wait4(child, WaitFor::Ordinary).map_or(1, |_| 0)),
//!     Err(_) => Ended::Exit(2),
//! });
//! let faultless = sim.run(&mut Oldest, None);
//! // Every call can fail, once a run.
//! for (at, line) in faultless.places() {
//!     let report = sim.run(&mut Oldest, Some(Fault { at, what: What::Errno(Errno::EPERM) }));
//!     assert!(report.fault_fired && report.stuck().count() == 0, "{line}\n{report}");
//! }
//! assert_eq!(faultless.find(Section::Stage0).map(|process| &process.end), Some(&End::Exited(0)));
//! ```
//!
//! It may panic, at a mistake of the simulator or of a test; no byte that a simulated process writes makes it do so.

mod creds;
mod descriptors;
mod dump;
mod fault;
mod files;
mod idmaps;
mod kernel;
mod life;
mod namespaces;
mod proc_values;
mod process;
mod procfs;
mod program;
mod replay;
mod report;
mod schedule;
mod setup;
mod signals;
mod streams;

pub use creds::{ALL_CAPS, cap};
pub use fault::{Fault, Place, Then, What};
pub use kernel::{HidePid, Settings};
pub use namespaces::{Kind, NsId};
pub use process::{Reaper, Section, Task, Who};
pub use procfs::Extra;
pub use program::{Allowance, Ended, Main, Program};
pub use replay::SimSys;
pub use report::{End, ProcessReport, Report};
pub use schedule::{Choice, Enumerated, Oldest, Random, Script, Youngest, all_schedules};
pub use setup::{Container, LauncherFile, Sim, User};
