//! The cgroups of a [`Command`].

use std::borrow::ToOwned;
use std::ffi::CString;
use std::fs::OpenOptions;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::string::{String, ToString};
use std::vec::Vec;

use nix::sys::statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, fstatfs};

use super::command::Command;
use super::setting::SettingError;

impl Command {
    /// Starts the command in the cgroup of this directory (cgroups(7)), of either version: the first process
    /// of the launch writes `0` to its `cgroup.procs`, before it joins or creates a namespace. A new cgroup
    /// namespace then has this cgroup as its root, and every later process of the launch begins in it. Set
    /// once for each hierarchy.
    ///
    /// The caller opens `cgroup.procs`, so the kernel checks the caller's permissions. The caller also needs
    /// the right to write `cgroup.procs` of the nearest common ancestor (cgroups(7), "Delegation"). A limit
    /// `pids.max` must leave room for two more processes if the start needs stages, and for one more with an
    /// [`init`](Self::init), which stays. A frozen cgroup of version 1 stops the process where no signal ends
    /// it: the launch then waits until the cgroup is thawed, whatever its time limit is.
    pub fn cgroup(&mut self, directory: impl AsRef<Path>) -> &mut Self {
        self.cgroups.push(directory.as_ref().into());
        self
    }

    /// Opens the files of [`cgroup`](Self::cgroup).
    pub(super) fn open_cgroups(&self) -> Result<Vec<(CString, OwnedFd)>, SettingError> {
        self.cgroups.iter().map(|directory| open_cgroup(directory)).collect()
    }
}

/// Opens the file of a cgroup that moves the process that writes to it.
fn open_cgroup(directory: &Path) -> Result<(CString, OwnedFd), SettingError> {
    let path = CString::new(directory.as_os_str().as_bytes())
        .map_err(|_| SettingError::Nul { setting: "cgroup" })?;
    let file = directory.join("cgroup.procs");
    let failed =
        |why: String| SettingError::File { doing: "enter the cgroup of", path: file.clone().into(), why };
    let opened = OpenOptions::new().write(true).open(&file).map_err(|error| failed(error.to_string()))?;
    let found = fstatfs(&opened).map_err(|errno| failed(errno.desc().to_owned()))?.filesystem_type();
    if ![CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC].contains(&found) {
        return Err(failed("it is not on a cgroup file system".into()));
    }
    Ok((path, opened.into()))
}
