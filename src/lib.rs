//! The namespace bootstrap of a container: runc's C `nsexec()`, in Rust.
//!
//! The map of the crate, in reading order:
//!
//! | read | for |
//! |---|---|
//! | [`nsexec`] | the top script, a table of contents of the whole bootstrap |
//! | [`stage`] | the three processes: [`stage::parent`], [`stage::child`], [`stage::init`] |
//! | [`bootstrap`] | the message: decoder, encoder, dialects, environment |
//! | [`cloned`] | the sealed copy of our own program, for runc's older lines and for our launcher |
//! | [`namespace`] | kinds, paths, join passes, unshare steps |
//! | [`idmap`], [`timens`] | id maps and time offsets, as values and as writes |
//! | [`sync`], [`log`], [`json`], [`error`] | what stages tell each other, the launcher and people |
//! | [`sys`] | the one door to the kernel: the trait, the real backend, the recorder, the simulated kernel |
//! | [`entry`] | the edge in the child: environment, core, exit or return |
//! | `launch` | the launcher's half of the protocol (feature `std`) |
//!
//! There are two kinds of function in the core. A *decider* takes values and returns values. A *script* takes
//! `&mut impl Sys` and walks what the deciders decided. Grep for `sys.` and you have every effect there is.
#![no_std]
// The lints of the core: no panic, no silent truncation, no arithmetic that wraps. They hold everywhere but in the
// modules below that say otherwise.
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
