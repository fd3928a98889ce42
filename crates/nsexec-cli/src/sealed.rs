//! The sealed copy of this program, used by the commands that join a mount namespace.

use nsexec::launch::run_from_sealed_copy;
use nsexec::namespace::{NsKind, NsSet};

use super::failure::Failure;

/// Makes sure that nsexec joins a mount namespace only from a sealed copy of its program. A process in that
/// namespace could otherwise overwrite the program's file (CVE-2019-5736).
///
/// Executes the program again from the copy. Call this before anything that must not happen twice.
///
/// # Errors
/// The reason why the copy cannot be made.
pub(crate) fn ensure_for_joins(joined: NsSet) -> Result<(), Failure> {
    if joined.contains(NsKind::Mnt) {
        run_from_sealed_copy().map_err(|error| Failure::ours(error.to_string()))?;
    }
    Ok(())
}
