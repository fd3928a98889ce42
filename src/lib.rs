//! The namespace bootstrap of a container: runc's C `nsexec()`, in Rust.
//!
//! The modules, in reading order:
//!
//! | module | contents |
//! |---|---|
//! | [`nsexec`] | the top-level script of the whole bootstrap |
//! | [`stage`] | the three processes: [`stage::parent`], [`stage::child`], [`stage::init`] |
//! | [`bootstrap`] | the bootstrap message: decoder, encoder, dialects, environment |
//! | [`cloned`] | the sealed copy of our own program, for runc's older releases and for our launcher |
//! | [`namespace`] | namespace kinds, paths, the join passes, the unshare steps |
//! | [`idmap`], [`timens`] | id maps and time offsets: parsing and writing |
//! | [`sync`], [`log`], [`json`], [`error`] | messages between stages, to the launcher and to people |
//! | [`sys`] | every system call: the trait and the real backend |
//! | [`entry`] | the entry points in the child process: read the environment, run, exit or return |
//! | `launch` | the launcher's half of the protocol (feature `std`) |
//!
//! The package `nsexec-audit` has the recorder, the simulated kernel, plans and rules. The package
//! `nsexec-cli` is the program, `nsexec-capi` the archive for C and Go.
//!
//! The core has two kinds of function. A *decider* takes values and returns values. A *script* takes
//! `&mut impl Sys` and carries out the deciders' results. Every effect of a bootstrap is a call on `sys.`, so
//! grep for that. The launcher's other effects (it waits for the command, signals it, and queries namespaces)
//! are in three files: `launch/spawn.rs`, `launch/supervise.rs` and `launch/query.rs`.
#![no_std]
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

pub mod bootstrap;
pub mod cloned;
pub mod descriptors;
pub mod entry;
pub mod error;
pub mod idmap;
pub mod json;
#[cfg(feature = "std")]
#[allow(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unreachable,
    reason = "the launcher's own process; its scripts, which also run in the stages, deny them again"
)]
pub mod launch;
pub mod log;
pub mod namespace;
pub mod nsexec;
pub mod pipe;
pub mod policy;
pub mod procfs;
pub mod stage;
pub mod sync;
pub mod sys;
pub mod timens;

pub use entry::init;
