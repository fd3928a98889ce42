//! The tree of files and mounts that the launcher builds for the command.

use super::kernel::{Halt, Kernel};
use super::process::Task;
use crate::record::{Call, Reply};

impl Kernel {
    /// Implements the calls that change the tree of files and mounts, or the place of the process in it.
    pub(super) fn tree(&mut self, _me: Task, call: &Call) -> Result<Reply, Halt> {
        match call {
            _ => Ok(Reply::Unit),
        }
    }
}
