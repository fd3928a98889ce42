//! The last steps of the process that becomes the command: its descriptors, its ids, and the code of the
//! caller, right before its exec.

use super::steps::StageStep;
use super::surroundings::{Move, Surroundings};
use crate::scripts::pipe::uninterrupted;
use crate::scripts::stage::end_with_launcher;
use crate::sys::Sys;
use crate::sys::types::{Errno, Fd, Hook, SysResult};
use crate::words::error::Error;

/// The ends of the two pipes in the process that becomes the command. A descriptor that the command gets
/// under the number of one of them moves it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    pub(super) init: Fd,
    pub(super) log: Fd,
}

/// Places the descriptors under the numbers that the command gets them.
pub(super) fn place<'m, S: Sys>(sys: &mut S, moves: &[Move], ends: &mut Ends) -> Result<(), Error<'m>> {
    let above = moves.iter().map(|one| one.number.0.saturating_add(1)).max().unwrap_or_default();
    for end in [&mut ends.init, &mut ends.log] {
        if moves.iter().any(|one| one.number == *end) {
            *end = sys
                .dup_above(*end, Fd(above))
                .map_err(|errno| StageStep::PassDescriptor(*end).failed(errno))?;
        }
    }
    for Move { fd, number } in moves {
        duplicate(sys, *fd, *number).map_err(|errno| StageStep::PassDescriptor(*number).failed(errno))?;
    }
    Ok(())
}

/// Duplicates a descriptor. `EBUSY` is a race with an open of another process that shares the table; it ends.
fn duplicate<S: Sys>(sys: &mut S, fd: Fd, number: Fd) -> SysResult<()> {
    loop {
        match uninterrupted(sys, |sys| sys.dup_to(fd, number)) {
            Err(Errno::EBUSY) => {}
            done => return done,
        }
    }
}

/// Changes the ids. Returns whether the ids have changed, which clears the parent-death signal.
///
/// Runs as the process that becomes the command, in its namespaces. The launcher waits for the exec.
///
/// # Errors
/// The step that failed.
pub(super) fn change<'m, S: Sys>(
    sys: &mut S,
    groups: Option<&[u32]>,
    (gid, uid): (Option<u32>, Option<u32>),
) -> Result<bool, Error<'m>> {
    if let Some(groups) = groups {
        sys.set_groups(groups).map_err(|errno| StageStep::Groups.failed(errno))?;
    }
    if let Some(gid) = gid {
        sys.setgid(gid).map_err(|errno| StageStep::Group(gid).failed(errno))?;
        // Set again at once: the change has cleared it, and this process may be stopped at any moment.
        end_with_launcher(sys, true);
    }
    // The last one: without user id 0 the process may not change its groups any more.
    if let Some(uid) = uid {
        sys.setuid(uid).map_err(|errno| StageStep::User(uid).failed(errno))?;
        end_with_launcher(sys, true);
    }
    Ok(groups.is_some() || gid.is_some() || uid.is_some())
}

/// Runs the code of the caller.
///
/// Runs as the process that becomes the command, which makes no other call than its exec afterwards.
///
/// # Errors
/// The error that the code returned.
pub(super) fn run_hooks<'m, S: Sys>(sys: &mut S, around: &Surroundings) -> Result<(), Error<'m>> {
    for (number, hook) in (0..).zip(&around.hooks) {
        sys.run_hook(Hook { number, code: &*hook.0 })
            .map_err(|errno| StageStep::CodeOfCaller(number).failed(errno))?;
    }
    Ok(())
}
