//! Reads the facts of this process and its machine: [`machine`], and [`try_user_namespace`].

use std::collections::BTreeMap;
use std::format;
use std::fs;
use std::path::Path;
use std::string::{String, ToString};
use std::vec::Vec;

use nix::sys::prctl::get_no_new_privs;
use nix::sys::signal::SigSet;
use nix::sys::utsname::uname;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{getegid, geteuid, getgroups, getuid};
use nsexec::error::Code;
use nsexec::idmap::parse_line;
use nsexec::launch::{
    Command, LaunchError, own_capabilities, own_protection, own_status, owner_of, ranges_of_caller,
    reports_tid_address,
};
use nsexec::namespace::NsKind;

use super::caller::{SubRange, account, kinds_of_kernel};
use super::{Machine, OwnNamespace, Permission, proc};
use crate::plan::Kernel;
use crate::sim::Settings;

/// Reads all facts. Creates no process besides getsubids(1), which lists subordinate ids.
pub(super) fn machine() -> Machine {
    let status = own_status();
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    let groups: Vec<u32> = getgroups().unwrap_or_default().into_iter().map(|gid| gid.as_raw()).collect();
    let own: Vec<u32> = groups.iter().copied().chain([gid]).collect();
    let account = account(getuid().as_raw());
    let ranges = |groups, file: &str| -> Vec<(u32, u32)> {
        let found = ranges_of_caller(groups).unwrap_or_else(|_| {
            let text = fs::read(file).unwrap_or_default();
            let name = account.as_ref().map(|account| account.name.as_str());
            sub_ranges(&String::from_utf8_lossy(&text), name, getuid().as_raw())
        });
        found.iter().map(|range| (range.first, range.count)).collect()
    };
    Machine {
        uid,
        gid,
        groups,
        capabilities: own_capabilities(),
        protection: own_protection(),
        subuids: ranges(false, "/etc/subuid"),
        subgids: ranges(true, "/etc/subgid"),
        own_user: own_namespace(),
        kernel: kernel(),
        kinds: kinds_of_kernel().iter().map(|kind| kind.name().to_string()).collect(),
        file_systems: listed(&fs::read_to_string("/proc/filesystems").unwrap_or_default()),
        reports_tid_address: reports_tid_address(),
        limits: limits(),
        unprivileged_userns_clone: sysctl("/proc/sys/kernel/unprivileged_userns_clone"),
        apparmor_restricts: sysctl("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
        confined_as: confined_as(),
        // 2 is filter mode. Strict mode (1) would have killed this process before.
        seccomp: status.field("Seccomp") == Some("2"),
        no_new_privs: get_no_new_privs().unwrap_or(false),
        chrooted: proc::is_chrooted(&mountinfo),
        user_namespaces: Permission::Unknown,
        proc: proc::state(&mountinfo, &own),
        uptime: clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Settings::default().uptime, |at| at.tv_sec()),
        blocked: status.bits("SigBlk").unwrap_or_else(blocked),
        ignored: status.bits("SigIgn").unwrap_or_default(),
        caught: status.bits("SigCgt").unwrap_or_default(),
        files: BTreeMap::new(),
        account,
        is_here: true,
    }
}

fn kernel() -> Kernel {
    let name = uname().ok();
    let release = name.as_ref().and_then(|name| name.release().to_str());
    release.and_then(Kernel::parse).unwrap_or(Kernel::CURRENT)
}

fn sysctl(path: impl AsRef<Path>) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Returns the file systems that a command can mount and that /proc/filesystems lists (proc_filesystems(5)).
fn listed(text: &str) -> Vec<String> {
    let is_listed = |name: &String| text.lines().any(|line| line.split('\t').nth(1) == Some(name.as_str()));
    super::mountable().into_iter().filter(is_listed).collect()
}

/// Reads the limits user.max_*_namespaces of the caller's user namespace.
fn limits() -> BTreeMap<String, u64> {
    let limit = |kind: NsKind| {
        let value = sysctl(format!("/proc/sys/user/max_{}_namespaces", kind.name()))?;
        Some((kind.name().to_string(), value))
    };
    NsKind::ALL.into_iter().filter_map(limit).collect()
}

/// Returns the signals that this thread has blocked, without a /proc.
fn blocked() -> u64 {
    let set = SigSet::thread_get_mask().unwrap_or_else(|_| SigSet::empty());
    set.iter().fold(0, |bits, signal| bits | 1 << (signal as i32 - 1))
}

/// Returns the label of this process in the security module, unless it is one that confines nothing
/// (proc_pid_attr(5)).
fn confined_as() -> Option<String> {
    let text = fs::read_to_string("/proc/self/attr/current").ok()?;
    let label = text.trim_matches(['\0', '\n', ' ']);
    let free = ["", "unconfined", "kernel", "_"].contains(&label) || label.contains(":unconfined_t:");
    (!free).then(|| label.to_string())
}

/// Reads the maps of this process's user namespace. `None` if it maps every id to itself, as the first user
/// namespace does, or without a /proc.
fn own_namespace() -> Option<OwnNamespace> {
    let map = |file: &str| -> Option<Vec<(u32, u32, u32)>> {
        let text = fs::read_to_string(format!("/proc/self/{file}")).ok()?;
        let lines = text.lines().filter_map(|line| parse_line(line.as_bytes()).ok());
        Some(lines.map(|line| (line.inside, line.outside, line.count)).collect())
    };
    let (users, groups) = (map("uid_map")?, map("gid_map")?);
    let whole = [(0, 0, u32::MAX)];
    if users == whole && groups == whole {
        return None;
    }
    let setgroups = fs::read_to_string("/proc/self/setgroups").is_ok_and(|word| word.trim() == "allow");
    let path = |kind: NsKind| format!("/proc/self/ns/{}", kind.proc_name());
    let user = super::joins::identity(Path::new(&path(NsKind::User)));
    let others = NsKind::ALL.into_iter().filter(|kind| *kind != NsKind::User);
    let owned =
        others.filter(|kind| owner_of(Path::new(&path(*kind))).ok().is_some_and(|owner| Some(owner) == user));
    let owns = owned.map(|kind| kind.name().to_string()).collect();
    Some(OwnNamespace { users, groups, setgroups, owns })
}

/// Tries to create a user namespace, in a process that then fails to execute a directory.
pub(super) fn try_user_namespace() -> Permission {
    let trial = Command::new("/").unshare([NsKind::User]).map_current_user().spawn();
    let Err(error) = trial else { return Permission::Unknown };
    match (error.step(), &error) {
        (Some((Code::UnshareUser, Some(errno))), _) => Permission::Refused(errno.0),
        // A later step has failed: the namespace was created.
        (Some((Code::Start, _)) | None, _) | (_, LaunchError::Setting(_)) => Permission::Unknown,
        _ => Permission::Permitted,
    }
}

/// Returns the ranges in the lines `name:first:count` of a user, given by name or by number, in the order of
/// the file (subuid(5)). Skips malformed lines, as newuidmap does.
#[must_use]
pub fn sub_ranges(text: &str, name: Option<&str>, uid: u32) -> Vec<SubRange> {
    let uid = uid.to_string();
    let range = |line: &str| {
        let mut words = line.trim_end().split(':');
        let owner = words.next()?;
        let (first, count) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let ours = (Some(owner) == name && !owner.is_empty()) || owner == uid;
        (ours && words.next().is_none() && count > 0).then_some(SubRange { first, count })
    };
    text.lines().filter_map(range).collect()
}

#[cfg(test)]
mod tests {
    use std::vec;

    use super::*;

    #[test]
    fn file_systems_of_the_kernel_are_read() {
        let text = "nodev\tsysfs\nnodev\ttmpfs\nnodev\tproc\nnodev\tmqueue\n\text4\n\toverlay\n";
        let mut found = listed(text);
        found.sort_unstable();
        assert_eq!(found, ["mqueue", "overlay", "proc", "sysfs", "tmpfs"]);
        assert_eq!(listed(""), Vec::<String>::new());
        // The whole name.
        assert_eq!(listed("nodev\tprocfs\nnodev\tmy proc\n"), Vec::<String>::new());
    }

    /// Every kernel that runs this test has proc and tmpfs.
    #[test]
    fn machine_has_the_file_systems_of_its_kernel() {
        let machine = machine();
        assert!(["proc", "tmpfs"].iter().all(|name| machine.file_systems.iter().any(|found| found == name)));
    }

    #[test]
    fn ranges_are_found_by_name_and_by_number() {
        let text = "# comment\nann:100000:65536\nbob:165536:65536\n1000:300000:10\nann:400000:5\n";
        let range = |first, count| SubRange { first, count };
        let of_ann = vec![range(100_000, 65_536), range(300_000, 10), range(400_000, 5)];
        assert_eq!(sub_ranges(text, Some("ann"), 1000), of_ann);
        assert_eq!(sub_ranges(text, None, 1000), [range(300_000, 10)]);
        assert_eq!(sub_ranges(text, Some("carl"), 7), []);
    }

    #[test]
    fn malformed_subordinate_id_lines_are_skipped() {
        for text in [
            "ann",
            "ann:1",
            "ann:1:0",
            "ann:x:1",
            "ann:1:1:1",
            "ann:1:4294967296",
            ":1:1",
            "\n\n",
            "ann:-1:1",
        ] {
            assert_eq!(sub_ranges(text, Some("ann"), 1000), [], "{text}");
            assert_eq!(sub_ranges(text, Some(""), 1000), [], "{text}");
        }
    }
}
