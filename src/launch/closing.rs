//! The closing of the descriptors that neither a launch nor its command uses.

use super::last::enter_cgroups;
use super::pipes::Pipes;
use super::steps::StageStep;
use super::tail::Tail;
use crate::scripts::descriptors::{FIRST, close_on_exec, for_each};
use crate::sys::Sys;
use crate::sys::types::{Errno, Fd};
use crate::words::error::Error;

/// Closes the launcher's descriptors that no process of the launch uses, and enters the command's cgroups.
///
/// Runs in the first process of a launch, before it joins or creates any further namespace.
///
/// # Errors
/// Those of [`close_unnamed`]; [`StageStep::Cgroup`].
pub(super) fn begin<'m, S: Sys>(sys: &mut S, tail: &Tail<'m>, pipes: &Pipes) -> Result<(), Error<'m>> {
    close_unnamed(sys, tail, pipes)?;
    close_withheld(sys, tail);
    match tail.around {
        Some(around) => enter_cgroups(sys, around),
        None => Ok(()),
    }
}

/// Closes the descriptors of the launcher's function before the start, if the command gets all descriptors.
/// Otherwise [`close_unnamed`] has closed those that the command does not get.
fn close_withheld<S: Sys>(sys: &mut S, tail: &Tail<'_>) {
    if let (Some(around), None) = (tail.around, tail.descriptors) {
        for fd in &around.withheld {
            // close(2) frees the number even if it returns an error.
            let _ = sys.close(*fd);
        }
    }
}

/// Closes the launcher's descriptors, except 0 to 2, the named ones, and those that the launch uses. Only the
/// named ones are not close-on-exec afterwards. If code of the caller runs in the command's process, the
/// others are marked close-on-exec instead, and stay open up to the exec.
///
/// The kernel gave free numbers to the pipes. So a named descriptor with the number of a pipe end was not
/// open before the launch, which is an error.
///
/// Runs in the first process of a launch, before it joins anything and before it waits for anything. In a
/// direct start it is already in the namespaces that were created with it. Later processes of the launch
/// inherit its table. Without close_range(2) it needs the caller's /proc.
///
/// # Errors
/// [`StageStep::Descriptors`]; [`StageStep::PassDescriptor`] with `EBADF`: a named descriptor is not open.
fn close_unnamed<'m, S: Sys>(sys: &mut S, tail: &Tail<'_>, pipes: &Pipes) -> Result<(), Error<'m>> {
    let Some(named) = tail.descriptors else { return Ok(()) };
    let ends = [pipes.init, pipes.stage_init, pipes.log, pipes.stage_log];
    if let Some(fd) = named.iter().find(|fd| [pipes.stage_init, pipes.stage_log].contains(fd)) {
        return Err(StageStep::PassDescriptor(*fd).failed(Errno::EBADF));
    }
    let kept = tail.kept.unwrap_or_default();
    let closed = match tail.kept {
        Some(_) => close_others(sys, kept, &ends),
        None => close_on_exec(sys),
    };
    closed.map_err(|errno| StageStep::Descriptors.failed(errno))?;
    for fd in kept.iter().filter(|fd| !named.contains(fd)) {
        match sys.set_cloexec(*fd, true) {
            // The number comes from a path and is not open. The step that opens the path reports the error.
            Ok(()) | Err(Errno::EBADF) => {}
            Err(errno) => return Err(StageStep::Descriptors.failed(errno)),
        }
    }
    for fd in named {
        sys.set_cloexec(*fd, false).map_err(|errno| StageStep::PassDescriptor(*fd).failed(errno))?;
    }
    Ok(())
}

/// Closes all descriptors from 3 up, except `kept` and `ends`. `ends` includes the launcher's two ends, which
/// are closed already: with all four numbers usually one range remains to be closed.
fn close_others<S: Sys>(sys: &mut S, kept: &[Fd], ends: &[Fd]) -> Result<(), Errno> {
    for (first, last) in gaps(kept, ends) {
        match sys.close_range(first, last) {
            Ok(()) => {}
            // Before Linux 5.9, or a seccomp filter that refuses the call.
            Err(Errno::ENOSYS | Errno::EPERM) => {
                return for_each(sys, |sys, fd| match kept.contains(&fd) || ends.contains(&fd) {
                    true => Ok(()),
                    false => {
                        // close(2) frees the number even if it returns an error.
                        let _ = sys.close(fd);
                        Ok(())
                    }
                });
            }
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Returns the ranges from 3 up that contain none of the numbers, in ascending order. Allocates no memory.
fn gaps<'k>(kept: &'k [Fd], ends: &'k [Fd]) -> impl Iterator<Item = (u32, u32)> + 'k {
    let numbers = move || kept.iter().chain(ends).filter_map(|fd| u32::try_from(fd.0).ok());
    let mut next = u32::try_from(FIRST.0).ok();
    core::iter::from_fn(move || {
        loop {
            let first = next?;
            let Some(kept) = numbers().filter(|number| *number >= first).min() else {
                next = None;
                return Some((first, u32::MAX));
            };
            next = kept.checked_add(1);
            if let Some(last) = kept.checked_sub(1).filter(|last| *last >= first) {
                return Some((first, last));
            }
        }
    })
}

#[cfg(test)]
#[path = "closing_tests.rs"]
mod tests;
