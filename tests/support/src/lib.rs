//! Shared by the test suites of the workspace.
//!
//! | module | contents |
//! |---|---|
//! | `allocator` | an allocator that aborts in the processes of a launch |
//! | `suite` | the main function of the suites that are not run by libtest |
//! | `process` | the limit of every wait, default signals and ids for the processes of a test, and the files of /proc/PID that they must not read |
//! | `ordinary` | the ordinary user that the suites `kernel` and `witness` start programs as |
//! | `seccomp` | an emitted seccomp profile as a program for the kernel |
//! | `message` | the decoder of the message beside an independent reader. Needs the feature `scenarios` |
//! | `values` | a second, small parser for each kind of value in the message |
//! | `scenarios` | the launches on the simulated kernel. Needs the feature `scenarios` |

mod allocator;
#[cfg(feature = "scenarios")]
pub mod message;
mod ordinary;
mod process;
#[cfg(feature = "scenarios")]
pub mod scenarios;
pub mod seccomp;
mod suite;
pub mod values;

pub use allocator::AbortsInChildren;
pub use ordinary::Ordinary;
pub use process::{
    LIMIT, TEST_LIMIT, become_ids, begin, default_signals, fresh, given_seed, is_secret, success,
};
pub use suite::{SKIPPED, Suite, Test, Threads, Verdict, ends_within, skip_line};
