//! The state of /proc, and the mounts of this process, from the text of mountinfo (proc_pid_mountinfo(5)).

use nix::sys::statfs::{PROC_SUPER_MAGIC, statfs};
use nix::sys::statvfs::{FsFlags, statvfs};
use serde::{Deserialize, Serialize};

use crate::sim::{HidePid, ProcOwner};

/// The state of /proc.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ProcState {
    /// The pid namespace whose processes it shows.
    pub owner: ProcOwner,
    /// Whether its mount is read-only.
    pub read_only: bool,
    /// Whether a part of it is covered, so that no process in a user namespace may mount a new procfs.
    pub masked: bool,
    /// The hidepid mode that applies to the caller.
    pub hidepid: HidePid,
}

impl Default for ProcState {
    /// Returns a whole, writable /proc of the caller's own pid namespace.
    fn default() -> Self {
        Self { owner: ProcOwner::Own, read_only: false, masked: false, hidepid: HidePid::Off }
    }
}

/// Reads the state of /proc. `groups`: those of the caller, one of which the mount may exempt from hidepid.
pub(super) fn state(mountinfo: &str, groups: &[u32]) -> ProcState {
    let is_proc = statfs("/proc").is_ok_and(|found| found.filesystem_type() == PROC_SUPER_MAGIC);
    let own = std::fs::read_link("/proc/self").ok().and_then(|link| link.to_str()?.parse::<u32>().ok());
    let owner = match own {
        _ if !is_proc => ProcOwner::Missing,
        None => ProcOwner::Foreign,
        Some(pid) if pid == std::process::id() => ProcOwner::Own,
        Some(_) => ProcOwner::Ancestor,
    };
    let flags = statvfs("/proc").map(|found| found.flags());
    ProcState {
        owner,
        read_only: is_proc && flags.is_ok_and(|flags| flags.contains(FsFlags::ST_RDONLY)),
        masked: covers_proc(mountinfo),
        hidepid: hidepid(mountinfo, groups),
    }
}

/// Returns whether this process has changed its root directory, if that is visible: no mount is at `/`. A
/// root directory that is a mount point itself looks like any other.
#[must_use]
pub fn is_chrooted(mountinfo: &str) -> bool {
    let mut points = mountinfo.lines().filter_map(|line| line.split(' ').nth(4)).peekable();
    points.peek().is_some() && !points.any(|point| point == "/")
}

/// The directories of procfs and sysctl that are always empty. A mount there covers nothing
/// (`is_empty_dir_inode` in the kernel's `mnt_already_visible`).
const EMPTY: [&str; 3] = ["/proc/sys/fs/binfmt_misc", "/proc/fs/nfsd", "/proc/openprom"];

/// Returns whether something is mounted below /proc, as in a container. In a user namespace the kernel then
/// refuses to mount a new proc file system.
#[must_use]
pub fn covers_proc(mountinfo: &str) -> bool {
    let mut points = mountinfo.lines().filter_map(|line| line.split(' ').nth(4));
    points.any(|point| point.starts_with("/proc/") && !EMPTY.contains(&point))
}

/// Returns /proc's hidepid mode for a caller in these groups. The last mount at /proc is the visible one.
#[must_use]
pub fn hidepid(mountinfo: &str, groups: &[u32]) -> HidePid {
    let line = mountinfo.lines().rfind(|line| line.split(' ').nth(4) == Some("/proc"));
    // The options follow the file system's type and its source.
    let options = line.and_then(|line| line.split_once(" - ")?.1.split(' ').nth(2)).unwrap_or_default();
    let value =
        |name| options.split(',').find_map(|option: &str| option.strip_prefix(name)?.strip_prefix('='));
    let mode = value("hidepid").and_then(HidePid::parse).unwrap_or_default();
    let exempt = value("gid").and_then(|gid| gid.parse().ok()).unwrap_or(0);
    if mode != HidePid::Ptraceable && groups.contains(&exempt) { HidePid::Off } else { mode }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;
    #[test]
    fn hidepid_is_read_from_the_last_mount_of_proc() {
        let mount = |options: &str| format!("36 35 98:0 / /proc rw,nosuid - proc proc rw,{options}\n");
        let hides = |options, groups: &[u32]| hidepid(&mount(options), groups);
        assert_eq!(hides("hidepid=noaccess", &[5]), HidePid::NoAccess);
        assert_eq!(hides("hidepid=2", &[5]), HidePid::Invisible);
        assert_eq!(hides("gid=5,hidepid=invisible", &[4, 5]), HidePid::Off);
        assert_eq!(hides("gid=5,hidepid=invisible", &[0]), HidePid::Invisible);
        assert_eq!(hides("hidepid=1", &[0]), HidePid::Off);
        assert_eq!(hides("hidepid=ptraceable", &[0]), HidePid::Ptraceable);
        assert_eq!(hides("relatime", &[5]), HidePid::Off);
        assert_eq!(hidepid(&(mount("hidepid=2") + &mount("x")), &[5]), HidePid::Off);
        assert_eq!(hidepid(&(mount("x") + &mount("hidepid=4")), &[5]), HidePid::Ptraceable);
        assert_eq!(hidepid("36 35 98:0 / /proc/x rw - proc proc rw,hidepid=2\n", &[5]), HidePid::Off);
    }

    #[test]
    fn a_mount_below_proc_covers_it() {
        assert!(covers_proc("36 35 98:0 / /proc/sys rw - proc proc rw\n"));
        assert!(!covers_proc("36 35 98:0 / /proc rw - proc proc rw\n37 35 98:0 / /proceed rw - x x rw\n"));
    }

    #[test]
    fn a_mount_on_an_always_empty_directory_covers_nothing() {
        assert!(!covers_proc("36 35 98:0 / /proc/sys/fs/binfmt_misc rw - autofs x rw\n"));
    }

    #[test]
    fn a_root_directory_without_a_mount_is_a_changed_one() {
        assert!(!is_chrooted("36 35 98:0 / / rw - ext4 x rw\n37 36 98:0 / /proc rw - proc proc rw\n"));
        assert!(is_chrooted("37 36 98:0 / /proc rw - proc proc rw\n"));
        assert!(!is_chrooted(""), "without a /proc nothing is known");
    }
}
