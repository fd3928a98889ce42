//! Creating: which unshares there are, in which order, and the few retries.

use super::{NsKind, NsSet};
use crate::bootstrap::Bootstrap;
use crate::bootstrap::dialect::CgroupPlacement;
use crate::error::{MapKind, Refusal};
use crate::sys::Sys;
use crate::sys::types::{CloneFlags, Errno, SysResult};

/// How often an unshare that gives EINVAL is tried in all: runc's number (runc#3704, since 1.1.5).
pub const UNSHARE_TRIES: u32 = 5;

/// The unshare steps of stage 1, and of stage 2 in older dialects.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct UnshareSteps {
    /// The user namespace comes first and alone: the others are then created by its root, and so owned by it.
    pub user: bool,
    /// Everything else in one call, which is made also when nothing is asked for.
    pub remaining: CloneFlags,
    /// Whether stage 2 makes the cgroup namespace: then it is not among the remaining ones.
    pub cgroup_in_stage_2: bool,
}

impl UnshareSteps {
    /// The steps for the kinds that a message asks to create.
    #[must_use]
    pub const fn new(flags: CloneFlags, cgroup: CgroupPlacement) -> Self {
        let by_stage_2 = !matches!(cgroup, CgroupPlacement::WithOthers);
        let remaining = flags.without(CloneFlags::NEWUSER);
        Self {
            user: flags.contains(CloneFlags::NEWUSER),
            remaining: if by_stage_2 { remaining.without(CloneFlags::NEWCGROUP) } else { remaining },
            cgroup_in_stage_2: by_stage_2 && flags.contains(CloneFlags::NEWCGROUP),
        }
    }
}

/// What a message asks for and nobody can do, found before any call.
///
/// # Errors
/// The first [`Refusal`].
pub fn refuse_impossible(bootstrap: &Bootstrap<'_>) -> Result<(), Refusal> {
    let flags = bootstrap.clone_flags();
    let unknown = flags.unknown();
    // unshare(2) takes CLONE_FILES and others too, and would do what nobody meant.
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

/// `unshare(flags)`, again while the kernel says EINVAL without a reason.
///
/// # Errors
/// The errno of the last try.
pub fn unshare<S: Sys>(sys: &mut S, flags: CloneFlags) -> SysResult<()> {
    let mut result = sys.unshare(flags);
    for _ in 1..UNSHARE_TRIES {
        // Before 4.3 a reader of /proc/PID/status is enough for a spurious EINVAL, on any kernel a thread that
        // has ended and is not quite gone.
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
    fn einval_is_tried_five_times_and_anything_else_once() {
        let mut sys = MockSys::new();
        sys.expect_unshare().times(5).returning(|_| Err(Errno::EINVAL));
        assert_eq!(unshare(&mut sys, CloneFlags::NEWUSER), Err(Errno::EINVAL));
        let mut sys = MockSys::new();
        sys.expect_unshare().once().returning(|_| Err(Errno::EPERM));
        assert_eq!(unshare(&mut sys, CloneFlags::NEWUSER), Err(Errno::EPERM));
    }

    #[test]
    fn the_user_namespace_is_a_step_of_its_own() {
        let flags = CloneFlags::NEWUSER.union(CloneFlags::NEWNET);
        let steps = UnshareSteps::new(flags, CgroupPlacement::WithOthers);
        let wanted = UnshareSteps { user: true, remaining: CloneFlags::NEWNET, cgroup_in_stage_2: false };
        assert_eq!(steps, wanted);
        let flags = flags.union(CloneFlags::NEWCGROUP);
        let steps = UnshareSteps::new(flags, CgroupPlacement::Stage2);
        assert_eq!(steps, UnshareSteps { cgroup_in_stage_2: true, ..wanted });
    }
}
