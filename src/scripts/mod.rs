//! The scripts: everything here runs over [`Sys`](crate::sys::Sys), in the order of its lines.
//!
//! [`nsexec`] is the whole bootstrap, [`stage`] has the three processes, and the others are steps that these
//! share.
//! The root of the crate exports the modules, so that their public paths do not contain `scripts`.

pub mod descriptors;
pub mod join;
pub mod map_files;
pub mod mapping_tool;
pub mod nsexec;
pub mod pipe;
pub mod procfs;
pub mod stage;
pub mod sync;
pub mod unshare;
