//! The types of the calls with which our own launcher sets the surroundings of its command. `types` exports
//! them.

use core::fmt;

use super::types::SysResult;

/// Code of the caller, for [`Sys::run_hook`](super::Sys::run_hook).
#[derive(Clone, Copy)]
pub struct Hook<'a> {
    /// The number of the hook in its launch, from 0 on.
    pub number: u32,
    /// The code.
    pub code: &'a (dyn Fn() -> SysResult<()> + Send + Sync),
}

impl fmt::Debug for Hook<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hook").field("number", &self.number).finish_non_exhaustive()
    }
}
