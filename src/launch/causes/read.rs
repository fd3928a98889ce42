//! Reads the facts of this process and its machine. Creates no process, except getsubids(1).

use std::format;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::string::{String, ToString};
use std::vec::Vec;

use nix::errno::Errno;
use nix::sys::statfs::{PROC_SUPER_MAGIC, statfs};
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::sys::utsname::uname;
use nix::unistd::{User, getegid, geteuid, getgid, getuid};

use super::facts::{
    Account, Distribution, Facts, IdFacts, ProcFacts, Tool, chroot, confining, covered, free_range,
    names_container, root_is_overlay,
};
use super::vantage::Vantage;
use crate::deciders::namespace::{NsKind, NsSet};
use crate::launch::query::{file_capabilities, own_capabilities, own_status};
use crate::launch::subordinate::{Side, extents_of, find_program, subordinate_ranges};

impl Facts {
    /// Reads the facts of this process and its machine. Creates no process, except getsubids(1).
    #[must_use]
    pub fn read() -> Self {
        facts(true)
    }

    /// Reads the facts that are not about subordinate ids, which take the most time, and creates no process.
    #[must_use]
    pub fn read_without_subordinate_ids() -> Self {
        facts(false)
    }
}

impl Vantage {
    /// Reads the place of this process, without the other facts.
    #[must_use]
    pub fn read() -> Self {
        let user = User::from_uid(getuid()).ok().flatten();
        vantage(&mountinfo(), user.map(|user| user.name))
    }
}

impl Distribution {
    /// Reads the distribution of this machine.
    #[must_use]
    pub fn read() -> Self {
        let text = ["/etc/os-release", "/usr/lib/os-release"].map(fs::read_to_string);
        Self::of(text.into_iter().find_map(Result::ok).as_deref().unwrap_or_default())
    }
}

fn facts(ids: bool) -> Facts {
    let mountinfo = mountinfo();
    let limit = |kind: NsKind| {
        let value = number(&format!("/proc/sys/user/max_{}_namespaces", kind.name()))?;
        Some((kind.name().to_string(), value))
    };
    let has = |kind: &NsKind| fs::symlink_metadata(format!("/proc/self/ns/{}", kind.proc_name())).is_ok();
    let kinds: NsSet = NsKind::ALL.into_iter().filter(has).collect();
    let user = if ids { User::from_uid(getuid()) } else { Err(Errno::ENOSYS) };
    let account = match &user {
        Ok(Some(user)) => Account::Group(user.gid.as_raw()),
        Ok(None) => Account::Missing,
        Err(_) => Account::Unknown,
    };
    Facts {
        vantage: vantage(&mountinfo, user.ok().flatten().map(|user| user.name)),
        distribution: Distribution::read(),
        capabilities: own_capabilities(),
        kinds,
        limits: NsKind::ALL.into_iter().filter_map(limit).collect(),
        userns_clone: number("/proc/sys/kernel/unprivileged_userns_clone"),
        apparmor_restricts: number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
        selinux_enforcing: number("/sys/fs/selinux/enforce").map(|value| value != 0),
        proc: proc(&mountinfo),
        users: side(Side::Users, ids),
        groups: side(Side::Groups, ids),
        invalid_flags: None,
        account,
        real_gid: getgid().as_raw(),
    }
}

fn mountinfo() -> String {
    fs::read_to_string("/proc/self/mountinfo").unwrap_or_default()
}

/// Reads the place of this process.
fn vantage(mountinfo: &str, user: Option<String>) -> Vantage {
    /// The inodes of the first namespaces (`PROC_USER_INIT_INO`, `PROC_PID_INIT_INO`, `PROC_CGROUP_INIT_INO`
    /// in the kernel's include/linux/proc_ns.h).
    const FIRST: [(&str, u64); 3] = [("user", 0xEFFF_FFFD), ("pid", 0xEFFF_FFFC), ("cgroup", 0xEFFF_FFFB)];
    let status = own_status();
    let [first_user_namespace, first_pid_namespace, first_cgroup_namespace] = FIRST.map(|(kind, inode)| {
        // The text of the link, since AppArmor may refuse to look at the file behind it.
        let link = fs::read_link(format!("/proc/self/ns/{kind}")).ok()?;
        Some(link.as_os_str() == format!("{kind}:[{inode}]").as_str())
    });
    let modules = fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
    let label = fs::read("/proc/self/attr/current").unwrap_or_default();
    Vantage {
        kernel: uname().map(|name| name.release().to_string_lossy().into_owned()).unwrap_or_default(),
        uid: geteuid().as_raw(),
        gid: getegid().as_raw(),
        user,
        first_user_namespace,
        first_pid_namespace,
        container: container(),
        agreeing: agreeing(mountinfo, first_pid_namespace, first_cgroup_namespace),
        chroot: chroot(mountinfo).or_else(root_differs),
        seccomp: status.field("Seccomp") == Some("2"),
        no_new_privs: nix::sys::prctl::get_no_new_privs().unwrap_or(false),
        security_modules: modules
            .trim()
            .split(',')
            .filter(|name| !name.is_empty())
            .map(String::from)
            .collect(),
        profile: confining(&String::from_utf8_lossy(&label)),
    }
}

/// Returns whether the root directory differs from that of process 1. Only a privileged caller can read
/// /proc/1/root. `None` if process 1 is in another mount namespace: then a difference proves nothing.
fn root_differs() -> Option<bool> {
    let identity = |path: &str| fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
    let (own, first) = (identity("/")?, identity("/proc/1/root/")?);
    let mounts = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
    (mounts("self")? == mounts("1")?).then_some(own != first)
}

/// Returns the traces of a container runtime.
fn container() -> Vec<String> {
    let files = ["/run/.containerenv", "/.dockerenv", "/run/systemd/container"];
    let found = files.into_iter().filter(|file| fs::symlink_metadata(file).is_ok());
    let variable = std::env::var("container").ok().filter(|value| !value.is_empty());
    let named = variable.map(|value| format!("container={value} in the environment"));
    found.map(|file| format!("{file} exists")).chain(named).collect()
}

/// Returns the facts that agree with a trace of a container, and that no file of an image explains.
fn agreeing(mountinfo: &str, first_pid: Option<bool>, first_cgroup: Option<bool>) -> Vec<String> {
    let cgroup = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let facts = [
        (first_pid == Some(false), "this is not the first pid namespace"),
        (first_cgroup == Some(false), "this is not the first cgroup namespace"),
        (root_is_overlay(mountinfo), "the root directory is an overlay"),
        (names_container(&cgroup), "/proc/self/cgroup names a container"),
    ];
    facts.into_iter().filter(|(holds, _)| *holds).map(|(_, words)| words.to_string()).collect()
}

fn proc(mountinfo: &str) -> ProcFacts {
    let is_proc = statfs("/proc").is_ok_and(|found| found.filesystem_type() == PROC_SUPER_MAGIC);
    let link = fs::read_link("/proc/self").ok();
    let pid = std::process::id().to_string();
    let is_own = is_proc && link.as_deref().and_then(Path::to_str) == Some(&pid);
    let read_only = statvfs("/proc").is_ok_and(|found| found.flags().contains(FsFlags::ST_RDONLY));
    ProcFacts { is_own: Some(is_own), read_only: is_proc && read_only, covered: covered(mountinfo) }
}

/// Returns a directory that exists, for a try of a mount.
pub(in crate::launch) fn mount_point() -> Option<&'static str> {
    let is_directory = |path: &&str| Path::new(path).is_dir();
    ["/tmp", "/mnt", "/proc", "/dev"].into_iter().find(is_directory)
}

/// Reads the facts about user ids or group ids.
fn side(of: Side, ids: bool) -> IdFacts {
    let (file, tool, map) = of.names();
    let own = match of {
        Side::Users => geteuid().as_raw(),
        Side::Groups => getegid().as_raw(),
    };
    let ranges = if ids { subordinate_ranges(of).ok() } else { None };
    let map = fs::read_to_string(map).ok().map(|text| extents_of(&text));
    let text = if ids { fs::read(file).unwrap_or_default() } else { Vec::new() };
    IdFacts {
        own,
        map: map.map(|lines| lines.iter().map(|line| (line.inside, line.outside, line.count)).collect()),
        ranges: ranges.map(|ranges| ranges.iter().map(|range| (range.first, range.count)).collect()),
        free: if ids { free_range(&String::from_utf8_lossy(&text), own) } else { None },
        tool: ids.then(|| find_program(tool).map(|path| examine(&path, of)).unwrap_or_default()),
    }
}

/// Reads the privileges of a mapping tool.
fn examine(path: &Path, of: Side) -> Tool {
    let data = fs::metadata(path).ok();
    Tool {
        path: path.display().to_string(),
        set_user_id: data.is_some_and(|data| data.permissions().mode() & 0o4000 != 0 && data.uid() == 0),
        file_capabilities: file_capabilities(path).is_some_and(|set| set >> of.capability().0 & 1 != 0),
        nosuid: statvfs(path).is_ok_and(|found| found.flags().contains(FsFlags::ST_NOSUID)),
    }
}

fn number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}
