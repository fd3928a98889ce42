//! The deciders: values and pure functions. They check untrusted bytes, and never see `Sys`.
//!
//! The root of the crate exports the modules, so that their public paths do not contain `deciders`.

pub mod bootstrap;
pub mod idmap;
pub(crate) mod log_level;
pub mod namespace;
pub mod policy;
pub mod timens;
