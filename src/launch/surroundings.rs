//! The surroundings of the command, as values. The process that becomes the command sets them right before
//! its exec, in the script `last`. The values are complete before the first process of a launch exists, so
//! the script allocates no memory.
//!
//! The user id and the group id are in the policy, whose values the audit rules compare with a run.

use std::ffi::CString;
use std::sync::Arc;
use std::vec::Vec;

use core::fmt;

use crate::sys::types::{Fd, SysResult};

/// The surroundings of the command. The order of the fields is that of the steps.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// The working directory.
    #[doc(hidden)]
    pub directory: Option<CString>,
    /// The supplementary groups.
    #[doc(hidden)]
    pub groups: Option<Vec<u32>>,
    /// Code of the caller.
    pub(super) hooks: Vec<CodeOfCaller>,
}

/// A descriptor that the command gets under a number of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Move {
    /// The descriptor, which is above every number that the command gets.
    pub fd: Fd,
    /// The number.
    pub number: Fd,
}

/// Code of the caller that runs in the command's process.
#[derive(Clone)]
pub(super) struct CodeOfCaller(pub(super) Arc<dyn Fn() -> SysResult<()> + Send + Sync>);

impl fmt::Debug for CodeOfCaller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CodeOfCaller")
    }
}

impl Surroundings {
    /// Returns the number of functions that run before the exec.
    #[must_use]
    pub fn hooks(&self) -> usize {
        self.hooks.len()
    }

    /// Returns the surroundings with this many functions that do nothing, for a replay.
    #[must_use]
    pub fn with_idle_hooks(mut self, count: usize) -> Self {
        let idle: Arc<dyn Fn() -> SysResult<()> + Send + Sync> = Arc::new(|| Ok(()));
        self.hooks = std::vec![CodeOfCaller(idle); count];
        self
    }
}
