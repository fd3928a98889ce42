//! Supervision of a command from a terminal or under a service manager: passes signals on, and returns the
//! exit status.
//!
//! For a program whose purpose is the command, like `nsexec run`: [`Signals::take`] at its start, then the
//! launch with [`Signals::original`], then [`supervise`]. A library in a larger program should not use this
//! module.

pub use super::signals_error::{SignalsError, SignalsStep};
pub use super::supervise::{Signals, end_by, supervise, supervise_tracer};
