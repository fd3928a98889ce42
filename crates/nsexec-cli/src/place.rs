//! Where the process to enter lives: its root directory, working directory, cgroup, environment and ids.

use std::ffi::{CString, OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{Mode, fstat};
use nix::unistd::{AccessFlags, faccessat};
use nsexec::idmap::parse_line;
use nsexec::launch::StatusText;

use super::failure::{Failure, needs, words};
use super::target::{Process, is_limit, words_and_limit};

/// The mount points of the cgroup file system of version 2: alone, and beside version 1.
const CGROUP_MOUNTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// An open directory, and its path for people.
pub(crate) struct Opened {
    pub(crate) path: PathBuf,
    pub(crate) fd: OwnedFd,
}

/// Opens the root directory of the process.
pub(crate) fn root(process: &Process) -> Result<Opened, Failure> {
    Ok(Opened { path: process.path_of_directory("root")?, fd: process.directory("root")? })
}

/// Opens a directory of the caller.
pub(crate) fn of_caller(flag: &str, path: &OsStr) -> Result<Opened, Failure> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let failed =
        |why: String| Failure::ours(format!("{flag}: failed to open {}: {why}", path.to_string_lossy()));
    let fd = openat(AT_FDCWD, path, flags, Mode::empty()).map_err(|errno| failed(errno.to_string()))?;
    let path = std::path::absolute(path).map_err(|error| failed(words(&error)))?;
    Ok(Opened { path, fd })
}

/// Returns the path of the working directory of the process below its root directory.
///
/// The path is looked up below the root directory, and must lead to the same directory on the same mount.
/// Otherwise the working directory may be outside of the root directory, and the command could leave the
/// container through it (CVE-2024-21626).
///
/// `searched`: this process must be able to search it, so that the launch does not fail because of a
/// directory that no flag names.
///
/// # Errors
/// The reason why it is not taken over; [`Failure::Limited`] if this process cannot find out.
pub(crate) fn directory(process: &Process, root: &Opened, searched: bool) -> Result<PathBuf, Failure> {
    let path = process.path_of_directory("cwd")?;
    let shown = path.display();
    let left = |why: &str| {
        Failure::ours(format!("the working directory {shown} of the process is not taken over: {why}"))
    };
    let refused = |errno: Errno| match is_limit(errno) {
        true => Failure::Limited(format!(
            "failed to check the working directory {shown} of the process: {}",
            words_and_limit(errno)
        )),
        false => left(&words_and_limit(errno)),
    };
    let below = path.strip_prefix(&root.path).map_err(|_| left("it is not below its root directory"))?;
    let below = Path::new("/").join(below);
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let found = openat2(&root.fd, &below, how).map_err(|errno| match errno {
        Errno::ENOSYS => left(&needs("openat2(2)", "5.6")),
        errno => refused(errno),
    })?;
    if searched {
        let access = faccessat(&found, ".", AccessFlags::X_OK, AtFlags::AT_EACCESS);
        access.map_err(refused)?;
    }
    let theirs = identity(&process.directory("cwd")?).map_err(refused)?;
    match identity(&found).map_err(refused)? {
        found if found == theirs => Ok(below),
        _ => Err(left("below its root directory this path leads to another directory")),
    }
}

/// Returns the device, the inode and the mount of an open file.
fn identity(file: &OwnedFd) -> Result<(u64, u64, String), Errno> {
    let data = fstat(file.as_fd())?;
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd()))
        .map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))?;
    let mount = info.lines().find_map(|line| line.strip_prefix("mnt_id:")).ok_or(Errno::EIO)?;
    Ok((data.st_dev, data.st_ino, mount.trim().to_owned()))
}

/// Returns the environment of the process.
pub(crate) fn environment(process: &Process) -> Result<Vec<(OsString, OsString)>, Failure> {
    let text = process.read_for("--env", "environ")?;
    let pair = |variable: &[u8]| {
        let at = variable.iter().position(|byte| *byte == b'=').filter(|at| *at > 0)?;
        let (name, value) = (variable.get(..at)?, variable.get(at + 1..)?);
        Some((OsString::from_vec(name.to_vec()), OsString::from_vec(value.to_vec())))
    };
    Ok(text.split(|byte| *byte == 0).filter_map(pair).collect())
}

/// Opens the file through which a process enters the cgroup of this process. Returns the directory and the
/// file.
pub(crate) fn cgroup(process: &Process) -> Result<(CString, File), Failure> {
    let failed = |why: &str| Failure::ours(format!("--join-cgroup: {why}"));
    let text = process.read_for("--join-cgroup", "cgroup")?;
    let path = text
        .split(|byte| *byte == b'\n')
        .find_map(|line| line.strip_prefix(b"0::"))
        .ok_or_else(|| failed("the process has no cgroup of version 2"))?;
    if path.starts_with(b"/..") {
        return Err(failed("the cgroup of the process is outside of our cgroup namespace"));
    }
    let mount = CGROUP_MOUNTS.into_iter().find(|mount| Path::new(mount).join("cgroup.controllers").exists());
    let mount = mount.ok_or_else(|| failed("/sys/fs/cgroup is not a cgroup file system of version 2"))?;
    let directory = [mount.as_bytes(), path].concat();
    let file = Path::new(OsStr::from_bytes(&directory)).join("cgroup.procs");
    let opened = OpenOptions::new().write(true).open(&file);
    let opened =
        opened.map_err(|error| failed(&format!("failed to open {}: {}", file.display(), words(&error))))?;
    CString::new(directory).map(|directory| (directory, opened)).map_err(|error| failed(&error.to_string()))
}

/// Returns whether the root of the user namespace of the process has both ids, as seen from there.
pub(crate) fn maps_root(process: &Process) -> bool {
    let maps = |map: &str| {
        let text = process.read_for("maps", map).unwrap_or_default();
        let mut lines = text.split(|byte| *byte == b'\n').filter_map(|line| parse_line(line).ok());
        lines.any(|line| line.inside == 0)
    };
    maps("uid_map") && maps("gid_map")
}

/// Returns whether the user namespace of the process allows setgroups(2).
pub(crate) fn allows_setgroups(process: &Process) -> bool {
    process.read_for("groups", "setgroups").is_ok_and(|text| text.starts_with(b"allow"))
}

/// Returns the effective user id and group id of the process: in its user namespace if that is joined,
/// otherwise in ours.
pub(crate) fn ids(process: &Process, joins_user: bool) -> Result<(u32, u32), Failure> {
    let status = StatusText::new(&process.read_for("follow", "status")?);
    let id = |name: &str, map: &str| {
        let field = status.field(name).and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
        let id: u32 = field.ok_or_else(|| Failure::ours(format!("follow: no line {name} in its status")))?;
        if !joins_user {
            return Ok(id);
        }
        let text = process.read_for("follow", map)?;
        let lines = text.split(|byte| *byte == b'\n').filter_map(|line| parse_line(line).ok());
        let inside = lines.into_iter().find_map(|line| {
            id.checked_sub(line.outside).filter(|at| *at < line.count).map(|at| line.inside + at)
        });
        inside.ok_or_else(|| Failure::ours(format!("follow: the id {id} of the process is not in its {map}")))
    };
    Ok((id("Uid", "uid_map")?, id("Gid", "gid_map")?))
}
