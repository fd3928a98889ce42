//! The sealed copy of this program, for the commands that join a mount namespace.

use nsexec::launch::run_from_sealed_copy;
use nsexec::namespace::{NsKind, NsSet};

use super::failure::Failure;

/// Makes sure that a mount namespace is joined from a sealed copy of this program only: a process in there could
/// overwrite the program's file (CVE-2019-5736). Starts the program again from the copy, so it comes before anything that
/// must not happen twice.
///
/// # Errors
/// Why there is no copy.
pub(crate) fn for_joins(joined: NsSet) -> Result<(), Failure> {
    if joined.contains(NsKind::Mnt) {
        run_from_sealed_copy().map_err(|error| Failure::ours(error.to_string()))?;
    }
    Ok(())
}
