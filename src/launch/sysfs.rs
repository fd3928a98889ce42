//! A new sysfs over /sys: a script of the process that becomes the command.
//!
//! The mount hides the mounts on directories of /sys, such as /sys/fs/cgroup. They are copied before it, with
//! their attributes, and attached to the new /sys after it.

use core::ffi::CStr;

use super::pipes::close;
use super::steps::StageStep;
use super::surroundings::NewSysfs;
use crate::sys::Sys;
use crate::sys::types::{Errno, Fd, Mount, OpenFlags};
use crate::words::error::Error;

/// The maximum number of mounts that are kept.
pub(super) const KEPT_MAX: usize = 64;

/// The path of the mount.
const SYS: &CStr = c"/sys";

/// Returns whether a step before the new /sys may fail with this errno. Then /sys stays as it is.
///
/// `EPERM`: a part of the present /sys is covered, or a seccomp filter. `EACCES`: a security module.
/// `ENODEV`: a kernel without sysfs. `ENOSYS`: open_tree(2) before Linux 5.2. `EINVAL`: a mount to keep is
/// unbindable. `ENOENT`, `ENOTDIR`, `EBUSY`: the mounts have changed since they were listed. `EMFILE`: more
/// mounts to keep than descriptors.
#[must_use]
pub const fn leaves_old_sys(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::EPERM
            | Errno::EACCES
            | Errno::ENODEV
            | Errno::ENOSYS
            | Errno::EINVAL
            | Errno::ENOENT
            | Errno::ENOTDIR
            | Errno::EBUSY
            | Errno::EMFILE
    )
}

/// Mounts a new sysfs over /sys, and keeps the mounts below it. Changes nothing if that is refused.
///
/// Runs in the process that becomes the command, in its namespaces, with the privileges of the launch there.
/// The launcher waits meanwhile.
///
/// # Errors
/// The step that failed, with its object.
pub(super) fn mount<'m, S: Sys>(sys: &mut S, new: &'m NewSysfs) -> Result<(), Error<'m>> {
    let mut copies = [None; KEPT_MAX];
    let mounted = copy_and_mount(sys, new, &mut copies);
    let attached = match mounted {
        Ok(true) => attach(sys, new, &copies),
        Ok(false) => Ok(()),
        Err(error) => Err(error),
    };
    for copy in copies.into_iter().flatten() {
        close(sys, copy);
    }
    attached
}

/// Copies the mounts to keep, and mounts. Returns whether that was permitted.
fn copy_and_mount<'m, S: Sys>(
    sys: &mut S,
    new: &'m NewSysfs,
    copies: &mut [Option<Fd>; KEPT_MAX],
) -> Result<bool, Error<'m>> {
    for (path, copy) in new.kept.iter().zip(copies) {
        match sys.open_tree(path, true) {
            Ok(fd) => *copy = Some(fd),
            Err(errno) if leaves_old_sys(errno) => return Ok(false),
            Err(errno) => return Err(StageStep::BindSource(path.to_bytes()).failed(errno)),
        }
    }
    if !new.kept.is_empty() {
        // The directories are opened after the mount, one at a time: one more descriptor must be free.
        match sys.openat(Fd::CWD, SYS, OpenFlags::Path) {
            Ok(spare) => close(sys, spare),
            Err(errno) if leaves_old_sys(errno) => return Ok(false),
            Err(errno) => return Err(StageStep::MountPoint(SYS.to_bytes()).failed(errno)),
        }
    }
    match sys.mount(Mount::Sysfs { read_only: new.read_only }) {
        Ok(()) => Ok(true),
        Err(errno) if leaves_old_sys(errno) => Ok(false),
        Err(errno) => Err(StageStep::MountOn(SYS.to_bytes()).failed(errno)),
    }
}

/// Attaches the copies to the new /sys. A mount whose directory does not exist there is left out: a directory
/// of a network device.
fn attach<'m, S: Sys>(
    sys: &mut S,
    new: &'m NewSysfs,
    copies: &[Option<Fd>; KEPT_MAX],
) -> Result<(), Error<'m>> {
    for (path, copy) in new.kept.iter().zip(copies) {
        let Some(copy) = *copy else { continue };
        let path_bytes = path.to_bytes();
        let target = match sys.openat(Fd::CWD, path, OpenFlags::Path) {
            Ok(target) => target,
            Err(Errno::ENOENT) => continue,
            Err(errno) => return Err(StageStep::MountPoint(path_bytes).failed(errno)),
        };
        sys.move_mount(copy, target).map_err(|errno| StageStep::MountOn(path_bytes).failed(errno))?;
        close(sys, target);
    }
    Ok(())
}
