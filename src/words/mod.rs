//! The words: errors, their texts, and log records.
//!
//! The root of the crate exports the modules, so that their public paths do not contain `words`.

pub mod error;
pub mod json;
pub mod log;
