//! The last steps of the process that becomes the command: its descriptors, its limits, ids and capabilities,
//! the code of the caller, and the filters, right before its exec.

use super::steps::StageStep;
use super::surroundings::{Move, Surroundings};
use crate::scripts::pipe::uninterrupted;
use crate::scripts::stage::end_with_launcher;
use crate::sys::Sys;
use crate::sys::types::{Capability, CapabilitySets, Errno, Fd, Hook, Limit, Resource, SysResult};
use crate::words::error::Error;

/// The ends of the two pipes in the process that becomes the command. A descriptor that the command gets
/// under the number of one of them moves it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    pub(super) init: Fd,
    pub(super) log: Fd,
}

/// Moves this process to the cgroups of the command.
///
/// Runs in the first process of a launch, before it joins or creates a namespace: a new cgroup namespace has
/// the cgroup of its creator as its root (cgroup_namespaces(7)).
///
/// # Errors
/// [`StageStep::Cgroup`].
pub(super) fn enter_cgroups<'m, S: Sys>(sys: &mut S, around: &'m Surroundings) -> Result<(), Error<'m>> {
    for cgroup in &around.cgroups {
        // In place of a pid, 0 is the process that writes.
        let written = uninterrupted(sys, |sys| sys.write(cgroup.fd, b"0"));
        written.map_err(|errno| StageStep::Cgroup(cgroup.path.to_bytes()).failed(errno))?;
    }
    Ok(())
}

/// Makes the command's standard input the controlling terminal.
///
/// Runs in the leader of the new session, which is the init if the command has one.
///
/// # Errors
/// [`StageStep::Terminal`].
pub(super) fn take_terminal<'m, S: Sys>(
    sys: &mut S,
    around: &Surroundings,
    moves: &[Move],
) -> Result<(), Error<'m>> {
    if !around.terminal {
        return Ok(());
    }
    let moved = moves.iter().find(|one| one.number == Fd(0));
    let terminal = moved.map_or(Fd(0), |one| one.fd);
    sys.set_controlling_terminal(terminal).map_err(|errno| StageStep::Terminal.failed(errno))
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

/// Sets the limits, the ids and the capabilities of the command. Returns whether the ids have changed, which
/// clears the parent-death signal. With `ends_with_launcher` the process gets SIGKILL at the launcher's death
/// again after each change.
///
/// Runs as the process that becomes the command, in its namespaces. The launcher waits for the exec. The
/// order: the bounding set needs CAP_SETPCAP, which a change of the user id takes away; the other sets are
/// those of the new user; the rule set needs no_new_privs.
///
/// # Errors
/// The step that failed.
pub(super) fn change<'m, S: Sys>(
    sys: &mut S,
    around: &Surroundings,
    (gid, uid): (Option<u32>, Option<u32>),
    ends_with_launcher: bool,
) -> Result<bool, Error<'m>> {
    for limit in &around.limits {
        match *limit {
            // A poll follows: see `forbid_descriptors`.
            limit if !forbids_descriptors(limit) => set_limit(sys, limit)?,
            // Raising the hard limit needs a capability that the next steps may take away.
            limit if limit.hard > 0 => set_limit(sys, Limit { soft: 1, ..limit })?,
            _ => {}
        }
    }
    if let Some(mask) = around.umask {
        // umask(2) always succeeds.
        let _ = sys.umask(mask);
    }
    if let Some(kept) = around.capabilities {
        drop_others(sys, kept)?;
    }
    if let Some(groups) = &around.groups {
        sys.set_groups(groups).map_err(|errno| StageStep::Groups.failed(errno))?;
    }
    if let Some(gid) = gid {
        sys.setgid(gid).map_err(|errno| StageStep::Group(gid).failed(errno))?;
        // Set again at once: the change has cleared it, and this process may be stopped at any moment.
        end_with_launcher(sys, ends_with_launcher);
    }
    // The last id: without user id 0 the process may not change its groups any more.
    if let Some(uid) = uid {
        if around.capabilities.is_some_and(|kept| kept != 0) {
            sys.keep_capabilities(true).map_err(|errno| StageStep::KeepCapabilities.failed(errno))?;
        }
        sys.setuid(uid).map_err(|errno| StageStep::User(uid).failed(errno))?;
        end_with_launcher(sys, ends_with_launcher);
    }
    if around.keyring {
        // After the last change of the user id: the keyring belongs to the command's user.
        sys.new_session_keyring().map_err(|errno| StageStep::Keyring.failed(errno))?;
    }
    if let Some(kept) = around.capabilities {
        set_capabilities(sys, kept)?;
    }
    if around.no_new_privs {
        sys.set_no_new_privs().map_err(|errno| StageStep::NoNewPrivs.failed(errno))?;
    }
    if let Some(ruleset) = around.landlock {
        sys.landlock_restrict_self(ruleset).map_err(|errno| StageStep::Landlock.failed(errno))?;
    }
    Ok(around.groups.is_some() || gid.is_some() || uid.is_some())
}

fn set_limit<'m, S: Sys>(sys: &mut S, limit: Limit) -> Result<(), Error<'m>> {
    sys.set_limit(limit).map_err(|errno| StageStep::Limit(limit.resource).failed(errno))
}

/// Returns whether no descriptor is allowed under this limit.
fn forbids_descriptors(limit: Limit) -> bool {
    limit.resource == Resource::NOFILE && limit.soft == 0
}

/// Sets a limit on descriptors of 0. Under this limit poll(2) fails with `EINVAL`.
///
/// Runs as the process that becomes the command, after its last poll.
///
/// # Errors
/// [`StageStep::Limit`].
pub(super) fn forbid_descriptors<'m, S: Sys>(sys: &mut S, around: &Surroundings) -> Result<(), Error<'m>> {
    let limits = around.limits.iter().copied().filter(|limit| forbids_descriptors(*limit));
    limits.into_iter().try_for_each(|limit| set_limit(sys, limit))
}

/// Removes all capabilities except `kept` from the bounding set. Asks for each number up to the first one
/// that the kernel does not know: a later kernel may have more capabilities than this version names.
fn drop_others<'m, S: Sys>(sys: &mut S, kept: u64) -> Result<(), Error<'m>> {
    for capability in (0..64).map(Capability).filter(|one| !contains(kept, *one)) {
        match sys.drop_bounding(capability) {
            Ok(()) => {}
            // The kernel knows neither this capability nor a higher one.
            Err(Errno::EINVAL) => break,
            Err(errno) => return Err(StageStep::Bounding(capability).failed(errno)),
        }
    }
    Ok(())
}

/// Sets all capability sets but the bounding one. The ambient set keeps the capabilities at the exec of a
/// user other than root.
fn set_capabilities<'m, S: Sys>(sys: &mut S, kept: u64) -> Result<(), Error<'m>> {
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: kept };
    sys.set_capabilities(sets).map_err(|errno| StageStep::Capabilities.failed(errno))?;
    for capability in Capability::ALL.iter().filter(|one| contains(kept, **one)) {
        sys.raise_ambient(*capability).map_err(|errno| StageStep::Ambient(*capability).failed(errno))?;
    }
    Ok(())
}

fn contains(set: u64, capability: Capability) -> bool {
    set.checked_shr(capability.0).is_some_and(|rest| rest & 1 == 1)
}

/// Installs the seccomp filter, right before the exec: the filter sees the exec, and no call before it.
///
/// # Errors
/// [`StageStep::SeccompFilter`].
pub(super) fn install_filter<'m, S: Sys>(sys: &mut S, around: &Surroundings) -> Result<(), Error<'m>> {
    match &around.filter {
        Some(program) => {
            sys.set_seccomp_filter(program).map_err(|errno| StageStep::SeccompFilter.failed(errno))
        }
        None => Ok(()),
    }
}

/// Runs the code of the caller.
///
/// Runs as the process that becomes the command. Only the seccomp filter and the exec follow.
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
