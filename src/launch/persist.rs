//! Persistent namespaces: the launcher mounts namespaces of the command's process on files, which keep them
//! after the command's end (namespaces(7)).

use core::ffi::CStr;
use core::fmt::Write as _;

use super::job::Job;
use super::outcome::FailureKind;
use super::pipes::{LogReader, add_error, close};
use super::root::open_in_root;
use super::steps::StageStep;
use super::surroundings::Persistent;
use crate::scripts::procfs::ProcDir;
use crate::sys::Sys;
use crate::sys::types::{Errno, Fd, OpenFlags, Pid, SysResult};
use crate::words::error::Error;
use crate::words::json::Line;

/// Mounts the namespaces on their files.
///
/// Runs in the launcher, in its own mount namespace, with the caller's privileges. The process exists in all
/// its namespaces, and waits for the go byte.
///
/// # Errors
/// [`FailureKind::OwnRecord`]: the record names the file.
pub(super) fn persist<S: Sys, L: LogReader>(
    sys: &mut S,
    job: &Job<'_>,
    process: Pid,
    log: &mut L,
) -> Result<(), FailureKind> {
    let persistent = job.tail.around.map_or(&[][..], |around| &around.persistent);
    mount_all(sys, persistent, process).map_err(|error| {
        add_error(sys, log, 0, &error);
        FailureKind::OwnRecord
    })
}

fn mount_all<'m, S: Sys>(sys: &mut S, all: &'m [Persistent], process: Pid) -> Result<(), Error<'m>> {
    if all.is_empty() {
        return Ok(());
    }
    // Checks that the number is that of the process in this /proc.
    ProcDir::open(sys, process)?.close(sys);
    for Persistent { kind, file } in all {
        let path = file.to_bytes();
        let target = open_file(sys, file).map_err(|errno| StageStep::MountPoint(path).failed(errno))?;
        let mounted = mount(sys, process, kind, target);
        close(sys, target);
        mounted.map_err(|errno| StageStep::MountOn(path).failed(errno))?;
    }
    Ok(())
}

/// Opens the file that becomes the mount point.
fn open_file<S: Sys>(sys: &mut S, file: &CStr) -> SysResult<Fd> {
    let root = sys.openat(Fd::CWD, c"/", OpenFlags::Directory)?;
    let opened = open_in_root(sys, root, file, OpenFlags::Path);
    close(sys, root);
    opened
}

/// Mounts one namespace on an open file.
fn mount<S: Sys>(sys: &mut S, process: Pid, kind: &CStr, target: Fd) -> SysResult<()> {
    let mut buffer = [0; 64];
    let mut path = Line::new(&mut buffer);
    let kind = core::str::from_utf8(kind.to_bytes()).map_err(|_| Errno::EINVAL)?;
    write!(path, "/proc/{process}/ns/{kind}\0").map_err(|_| Errno::ENAMETOOLONG)?;
    let path = CStr::from_bytes_with_nul(path.bytes()).map_err(|_| Errno::ENAMETOOLONG)?;
    let copy = sys.open_tree(path, false)?;
    let mounted = sys.move_mount(copy, target);
    close(sys, copy);
    mounted
}
