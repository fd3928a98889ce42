//! Creates namespaces: the unshare steps, their order, and the retries.

use crate::deciders::bootstrap::Bootstrap;
use crate::deciders::namespace::{NsKind, NsSet};
use crate::sys::Sys;
use crate::sys::types::{CloneFlags, Errno, SysResult};
use crate::words::error::{MapKind, Refusal};

/// The number of attempts of an unshare that fails with EINVAL, as in runc since 1.1.5 (runc#3704).
pub const UNSHARE_TRIES: u32 = 5;

/// The unshare steps of stage 1.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct UnshareSteps {
    /// Whether stage 1 creates a user namespace, in a step of its own before all others. The others then
    /// belong to its root.
    pub user: bool,
    /// All other namespaces, for one call. The call is made even if no flag is set.
    pub remaining: CloneFlags,
}

impl UnshareSteps {
    /// Returns the steps for the namespaces that a message creates.
    #[must_use]
    pub const fn new(flags: CloneFlags) -> Self {
        Self { user: flags.contains(CloneFlags::NEWUSER), remaining: flags.without(CloneFlags::NEWUSER) }
    }
}

/// Refuses requests in the message that cannot succeed, before any other call.
///
/// # Errors
/// The first [`Refusal`].
pub fn refuse_impossible(bootstrap: &Bootstrap<'_>) -> Result<(), Refusal> {
    let flags = bootstrap.clone_flags();
    let unknown = flags.unknown();
    // unshare(2) accepts CLONE_FILES and other flags too, and would have unintended effects.
    if unknown != CloneFlags::EMPTY {
        return Err(Refusal::UnknownCloneFlags(unknown));
    }
    let joined = bootstrap.joined();
    let both = NsKind::ALL
        .into_iter()
        .filter(|kind| joined.contains(*kind) && flags.contains(kind.flag()))
        .fold(NsSet::EMPTY, NsSet::with);
    if !both.is_empty() {
        return Err(Refusal::JoinedAndCreated(both));
    }
    if flags.contains(CloneFlags::NEWUSER) {
        for (kind, map) in [(MapKind::Uid, bootstrap.uid_map()), (MapKind::Gid, bootstrap.gid_map())] {
            if let Some(map) = map {
                map.fits_one_write().map_err(|too_large| Refusal::MapTooLarge(kind, too_large))?;
            }
        }
    }
    Ok(())
}

/// Calls unshare(2), and repeats it after a spurious EINVAL.
///
/// # Errors
/// The errno of the last attempt.
pub fn unshare<S: Sys>(sys: &mut S, flags: CloneFlags) -> SysResult<()> {
    let mut result = sys.unshare(flags);
    for _ in 1..UNSHARE_TRIES {
        // Before Linux 4.3, a concurrent reader of /proc/PID/status causes a spurious EINVAL. On any kernel,
        // a thread that has ended but is not reaped causes one too.
        if result != Err(Errno::EINVAL) {
            break;
        }
        result = sys.unshare(flags);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::MockSys;

    #[test]
    fn unshare_is_repeated_only_after_einval() {
        let mut sys = MockSys::new();
        sys.expect_unshare().times(5).returning(|_| Err(Errno::EINVAL));
        assert_eq!(unshare(&mut sys, CloneFlags::NEWUSER), Err(Errno::EINVAL));
        let mut sys = MockSys::new();
        sys.expect_unshare().once().returning(|_| Err(Errno::EPERM));
        assert_eq!(unshare(&mut sys, CloneFlags::NEWUSER), Err(Errno::EPERM));
    }

    #[test]
    fn user_namespace_is_a_separate_unshare_step() {
        let flags = CloneFlags::NEWUSER.union(CloneFlags::NEWNET);
        let wanted = UnshareSteps { user: true, remaining: CloneFlags::NEWNET };
        assert_eq!(UnshareSteps::new(flags), wanted);
    }
}
