//! Starts commands in Linux namespaces, and is the namespace bootstrap of a container: runc's C `nsexec()`,
//! in Rust. Every system call can be planned, recorded and checked.
//!
//! # Start a command
//!
//! ```
//! use nsexec::launch::Command;
//! use nsexec::namespace::NsKind::{Mnt, Net, Pid, User};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut command = Command::new("sh");
//! command.args(["-c", "id -u; ls /proc | head -n 1; touch /usr/new 2>/dev/null || echo read-only"]);
//! command.unshare([User, Mnt, Pid, Net]).map_root();
//! command.root_read_only("/").proc("/proc").tmpfs("/tmp").current_dir("/tmp");
//! command.capabilities([]).no_new_privs();
//! let output = command.output()?;
//! assert_eq!(String::from_utf8(output.stdout)?, "0\n1\nread-only\n");
//! # Ok(())
//! # }
//! ```
//!
//! `launch::Command` has the interface of
//! [`std::process::Command`](https://doc.rust-lang.org/std/process/struct.Command.html). It works for every
//! user and in a program with threads. It needs the feature `std`, which is on by default.
//!
//! # Join namespaces
//!
//! ```
//! use nsexec::launch::{Command, Stdio};
//! use nsexec::namespace::NsKind::{Net, User};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut first = Command::new("cat");
//! let mut first = first.unshare([User, Net]).map_root().stdin(Stdio::piped()).spawn()?;
//! let second = Command::new("id").arg("-u").join_pid(first.id(), [User, Net]).output()?;
//! assert_eq!(second.stdout, b"0\n");
//! first.wait()?;
//! # Ok(())
//! # }
//! ```
//!
//! # Errors
//!
//! Settings that cannot work are found before any process exists. Every other failure names the step, its
//! object and the cause, and leaves no process and no descriptor.
//!
//! ```
//! use nsexec::launch::{Command, LaunchError};
//! use nsexec::namespace::NsKind::{Mnt, User};
//!
//! let error = Command::new("true").bind("/usr", "/mnt").spawn().unwrap_err();
//! assert!(matches!(error, LaunchError::Setting(_)));
//! let mut command = Command::new("no-such-program");
//! let error = command.unshare([User, Mnt]).map_root().spawn().unwrap_err();
//! assert_eq!(error.to_string(), "failed to execute no-such-program: No such file or directory");
//! ```
//!
//! # Plan and record
//!
//! The package `nsexec-audit` runs the same code on a simulated kernel: `command.plan(&Machine::here())`
//! lists every system call of a command that does not run yet, on this machine or on another one, and says
//! whether it will fail, with the cause. It also records launches, and compares a record with its plan.
//!
//! # For users of the library
//!
//! | item | for |
//! |---|---|
//! | `launch` | a program that starts commands in namespaces (feature `std`) |
//! | [`init()`] | a program that is started by runc's protocol, in place of runc's C code |
//! | [`bootstrap`] | the bootstrap message and its decoder, the dialects |
//! | `launch::encode` | the encoder of a bootstrap message (feature `std`) |
//! | [`idmap`], [`timens`], [`namespace`], [`policy`] | the values of a message and of a launch |
//! | [`error`] | the errors of a bootstrap |
//! | [`sys`] | every system call: the trait [`sys::Sys`], its values and the real backend |
//! | `legacy` | what only the older dialects need: runc 1.0, 1.1 and the seed (feature `legacy`) |
//!
//! Semantic versioning covers what this documentation shows, with one exception: a minor release may add a
//! method to [`sys::Sys`], so implementations of the trait in other crates can break. Items that are public
//! but hidden from the documentation are for the packages of this workspace, and not covered.
//!
//! # For readers of the code
//!
//! The folders of `src` (`tests/sizes` prints their sizes, docs/design.md explains their limits):
//!
//! | folder | contents |
//! |---|---|
//! | `scripts` | the whole bootstrap (`nsexec`), its three processes (`stage::parent`, `stage::child`, `stage::init`), and their steps, over [`sys::Sys`] |
//! | `deciders` | the message, the id maps, the namespaces, the time offsets, the policy: values and pure functions |
//! | `words` | errors, their texts, log records |
//! | `sys` | the trait for every system call, its values, and the real backend |
//! | `launch` | the launcher, with what only it needs |
//! | `legacy` | what only runc 1.0, 1.1 and the seed need |
//! | `cloned` | the sealed copy of our own program, for `legacy` and for the launcher |
//!
//! The file `entry.rs` has the entry points of the program that becomes stage 0. They read the environment,
//! run the bootstrap, and exit or return.
//!
//! The package `nsexec-audit` has the recorder, the simulated kernel, plans and rules. The package
//! `nsexec-cli` is the program, `nsexec-capi` the archive for C and Go.
//!
//! The core has two kinds of function. A *decider* takes values and returns values. A *script* takes
//! `&mut impl Sys` and carries out the deciders' results. Every effect of a bootstrap is a call on `sys.`, so
//! grep for that. The launcher's other effects (it opens pipes, waits for the command, signals it, and
//! queries namespaces) are in the files that docs/design.md lists.
#![no_std]
#![cfg_attr(docsrs, feature(doc_cfg))]
// The core must not panic, truncate silently or overflow. These lints apply to all modules but those below
// that allow an exception.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::as_conversions,
        clippy::arithmetic_side_effects,
        clippy::panic,
        clippy::unreachable,
        clippy::todo
    )
)]

#[cfg(any(feature = "std", test))]
extern crate std;

#[cfg(feature = "sealed-copy")]
#[doc(hidden)]
pub mod cloned;
mod deciders;
#[doc(hidden)]
pub mod entry;
#[cfg(feature = "std")]
#[allow(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unreachable,
    reason = "the launcher's own process; its scripts, which also run in the stages, deny them again"
)]
pub mod launch;
#[cfg(feature = "legacy")]
pub mod legacy;
mod scripts;
pub mod sys;
mod words;

pub use deciders::{bootstrap, idmap, namespace, policy, timens};
pub use entry::{init, init_as};
pub use scripts::stage::Outcome;
#[doc(hidden)]
pub use scripts::{descriptors, join, map_files, mapping_tool, nsexec, pipe, procfs, stage, sync, unshare};
pub use words::error;
#[doc(hidden)]
pub use words::{json, log};
