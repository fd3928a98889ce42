//! The facts that decide a cause, and the parsers of their files. Values only; `read` reads the files.

use std::collections::BTreeMap;
use std::format;
use std::string::{String, ToString};
use std::vec::Vec;

use super::vantage::Vantage;
use crate::deciders::idmap::Extent;
use crate::deciders::namespace::{NsKind, NsSet};
use crate::launch::ranges::{Range, Side};
use crate::sys::types::{Capability, Errno};

/// The state of a process and its machine. An unknown field is `None`, `false` or
/// empty.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
#[non_exhaustive]
pub struct Facts {
    /// The place of the process.
    pub vantage: Vantage,
    /// The distribution, on which remedies depend.
    pub distribution: Distribution,
    /// The effective capabilities as a bit set.
    pub capabilities: Option<u64>,
    /// The kinds that the kernel has.
    #[cfg_attr(feature = "serde", serde(with = "super::kinds"))]
    pub kinds: NsSet,
    /// The values of `user.max_*_namespaces`, by the name of the kind.
    pub limits: BTreeMap<String, u64>,
    /// `kernel.unprivileged_userns_clone`, a sysctl of Debian's kernels.
    pub userns_clone: Option<u64>,
    /// `kernel.apparmor_restrict_unprivileged_userns`, a sysctl of Ubuntu's kernels.
    pub apparmor_restricts: Option<u64>,
    /// Whether SELinux is enforcing. `None`: it is not active.
    pub selinux_enforcing: Option<bool>,
    /// The errno of an unshare(2) with flags that the kernel refuses with `EINVAL`. Another errno comes from
    /// a seccomp filter. `None`: the call was not made.
    pub invalid_flags: Option<i32>,
    /// The account of the real user id.
    pub account: Account,
    /// The real group id.
    pub real_gid: u32,
    /// The state of /proc.
    pub proc: ProcFacts,
    /// The facts about user ids.
    pub users: IdFacts,
    /// The facts about group ids.
    pub groups: IdFacts,
}

/// The account of a user in passwd(5).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Account {
    /// It was not read.
    #[default]
    Unknown,
    /// The user has none.
    Missing,
    /// It has this group id.
    Group(u32),
}

/// The state of /proc.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
#[non_exhaustive]
pub struct ProcFacts {
    /// Whether it is a procfs that shows this process under its own pid.
    pub is_own: Option<bool>,
    /// Whether its mount is read-only.
    pub read_only: bool,
    /// The mount points below it that cover a part of it.
    pub covered: Vec<String>,
}

/// The facts about user ids, or those about group ids.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
#[non_exhaustive]
pub struct IdFacts {
    /// The caller's own effective id.
    pub own: u32,
    /// The lines of the map of the caller's own user namespace: the first id inside, the first id outside,
    /// and the number of ids. Empty if nothing is mapped.
    pub map: Option<Vec<(u32, u32, u32)>>,
    /// The caller's subordinate ids: the first id and the number of ids. Empty if no file has them.
    pub ranges: Option<Vec<(u32, u32)>>,
    /// The first id of a free range of 65536 ids.
    pub free: Option<u32>,
    /// The mapping tool in PATH. `None`: it was not searched.
    pub tool: Option<Tool>,
}

/// The file of a mapping tool.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
#[non_exhaustive]
pub struct Tool {
    /// The path. Empty: no directory of PATH has the tool.
    pub path: String,
    /// Whether it has the set-user-id bit and belongs to root.
    pub set_user_id: bool,
    /// Whether it has file capabilities (`security.capability`), with the one that it needs.
    pub file_capabilities: bool,
    /// Whether its file system is mounted with nosuid.
    pub nosuid: bool,
}

/// The distribution of the machine (os-release(5)).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum Distribution {
    /// Debian, and distributions that are like it.
    Debian,
    /// Ubuntu, and distributions that are like it.
    Ubuntu,
    /// Fedora, Red Hat Enterprise Linux, CentOS, and distributions that are like them.
    RedHat,
    /// openSUSE and SUSE Linux Enterprise.
    Suse,
    /// Arch Linux.
    Arch,
    /// Alpine Linux.
    Alpine,
    /// NixOS.
    Nix,
    /// Another one, or an unknown one.
    #[default]
    Other,
}

/// The number of ids in a range that a remedy proposes. A container image expects ids up to 65535.
pub(super) const COUNT: u32 = 65_536;

/// The first subordinate id that useradd(8) gives (`SUB_UID_MIN` in login.defs(5)).
const FIRST: u64 = 100_000;

impl Facts {
    /// Returns whether the caller has the capability. If the capabilities are unknown, user
    /// id 0 has all of them, and other ids have none.
    pub(in crate::launch) fn has_capability(&self, capability: Capability) -> bool {
        match self.capabilities {
            Some(set) => set >> capability.0 & 1 != 0,
            None => self.vantage.uid == 0,
        }
    }

    /// Returns the facts about one side of the maps.
    pub(in crate::launch) const fn side(&self, side: Side) -> &IdFacts {
        match side {
            Side::Users => &self.users,
            Side::Groups => &self.groups,
        }
    }

    /// Returns the limit of a kind of namespace.
    pub(in crate::launch) fn limit(&self, kind: NsKind) -> Option<u64> {
        self.limits.get(kind.name()).copied()
    }

    /// Returns whether an unshare(2) with invalid flags has proved a seccomp filter.
    pub(super) fn filter_is_proven(&self) -> bool {
        self.invalid_flags.is_some_and(|errno| Errno(errno) != Errno::EINVAL)
    }

    /// Returns the name of the caller for a remedy: that of the account, or the user id.
    pub(super) fn owner(&self) -> String {
        self.vantage.user.clone().unwrap_or_else(|| self.vantage.uid.to_string())
    }
}

impl IdFacts {
    /// Returns whether the caller's own id is not mapped in its user namespace.
    pub(in crate::launch) fn is_unmapped(&self) -> bool {
        let own = |line: &(u32, u32, u32)| self.own.checked_sub(line.0).is_some_and(|at| at < line.2);
        self.map.as_ref().is_some_and(|map| !map.iter().any(own))
    }

    /// Returns the ids of the caller's user namespace without the own id. `None` if no other id is mapped.
    pub(in crate::launch) fn others(&self) -> Option<Vec<Extent>> {
        let map = self.map.clone().unwrap_or_else(|| Vec::from([(0, 0, u32::MAX)]));
        let ranges: Vec<Range> =
            map.iter().map(|line| Range { first: line.0, count: line.2.min(COUNT) }).collect();
        let lines = crate::launch::ranges::in_order(&ranges, self.own);
        (!lines.is_empty()).then_some(lines)
    }
}

impl Distribution {
    /// Returns the distribution with this text of os-release(5).
    #[must_use]
    pub fn of(os_release: &str) -> Self {
        let value = |key: &str| {
            let line = os_release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            line.unwrap_or_default().trim_matches(['"', '\'']).to_string()
        };
        let names = format!("{} {}", value("ID"), value("ID_LIKE"));
        let one = |name: &str| match name {
            "ubuntu" => Some(Self::Ubuntu),
            "debian" => Some(Self::Debian),
            "fedora" | "rhel" | "centos" => Some(Self::RedHat),
            "suse" | "opensuse" | "sles" => Some(Self::Suse),
            "arch" => Some(Self::Arch),
            "alpine" => Some(Self::Alpine),
            "nixos" => Some(Self::Nix),
            _ => None,
        };
        names.split([' ', '-']).find_map(one).unwrap_or_default()
    }

    /// Returns the command that installs newuidmap and newgidmap, after "install them: ".
    pub(super) const fn install_tools(self) -> &'static str {
        match self {
            Self::Debian | Self::Ubuntu => "apt install uidmap",
            Self::RedHat => "dnf install shadow-utils",
            Self::Suse => "zypper install shadow",
            Self::Arch => "pacman -S shadow",
            Self::Alpine => "apk add shadow-uidmap",
            Self::Nix => "put /run/wrappers/bin into PATH",
            Self::Other => "install the package uidmap or shadow-utils",
        }
    }

    /// Returns the place in which to search for the denials of a security module.
    pub(super) const fn audit_log(self) -> &'static str {
        match self {
            Self::Debian | Self::Ubuntu => "journalctl -k --grep apparmor=.DENIED. shows the denial",
            Self::RedHat => "ausearch -m avc -ts recent shows the denial",
            _ => "its audit log says which rule (journalctl -k, or ausearch -m avc)",
        }
    }
}

/// Returns the first id of a free range of 65536 ids (subuid(5)). The range lies above all ranges in the text
/// of /etc/subuid or /etc/subgid, and does not contain the id `own`. Returns `None` if no such range is free.
#[must_use]
pub fn free_range(text: &str, own: u32) -> Option<u32> {
    let end = |line: &str| {
        let mut words = line.split(':').skip(1).map(|word| word.trim().parse::<u64>().ok());
        words.next()??.checked_add(words.next()??)
    };
    let mut first = text.lines().filter_map(end).fold(FIRST, u64::max);
    if (first..first + u64::from(COUNT)).contains(&u64::from(own)) {
        first = u64::from(own) + 1;
    }
    let last = first.checked_add(u64::from(COUNT))?;
    u32::try_from(first).ok().filter(|_| last < u64::from(u32::MAX))
}

/// Returns the mount points below /proc that cover a part of it, from the text of mountinfo
/// (proc_pid_mountinfo(5)). A mount at a directory that is always empty covers nothing.
pub(in crate::launch) fn covered(mountinfo: &str) -> Vec<String> {
    const EMPTY: [&str; 3] = ["/proc/sys/fs/binfmt_misc", "/proc/fs/nfsd", "/proc/openprom"];
    let points = mountinfo.lines().filter_map(|line| line.split(' ').nth(4));
    points.filter(|point| point.starts_with("/proc/") && !EMPTY.contains(point)).map(String::from).collect()
}

/// Returns whether this process has changed its root directory, from the text of mountinfo: no mount is at
/// `/`. `None`: a mount is there, which does not exclude a changed root.
pub(in crate::launch) fn chroot(mountinfo: &str) -> Option<bool> {
    let mut points = mountinfo.lines().filter_map(|line| line.split(' ').nth(4)).peekable();
    (points.peek().is_some() && !points.any(|point| point == "/")).then_some(true)
}

/// Returns whether the root directory is an overlay, from the text of mountinfo. The last mount at `/` is the
/// visible one.
pub(super) fn root_is_overlay(mountinfo: &str) -> bool {
    let root = mountinfo.lines().rfind(|line| line.split(' ').nth(4) == Some("/"));
    root.and_then(|line| line.split_once(" - ")).is_some_and(|(_, rest)| rest.starts_with("overlay "))
}

/// Returns whether the text of /proc/self/cgroup has the name that a container runtime gives (cgroups(7)).
pub(super) fn names_container(cgroup: &str) -> bool {
    ["/docker", "/kubepods", "/libpod", "/lxc", "/crio", "/containerd"]
        .iter()
        .any(|name| cgroup.contains(name))
}

/// Returns the label of a process in a security module, unless it confines nothing (proc_pid_attr(5)).
pub(in crate::launch) fn confining(label: &str) -> Option<String> {
    let label = label.trim_matches(['\0', '\n', ' ']);
    let free = ["", "unconfined", "kernel", "_"].contains(&label) || label.contains(":unconfined_t:");
    (!free).then(|| label.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_range_is_above_all_others() {
        assert_eq!(free_range("", 0), Some(100_000));
        assert_eq!(free_range("ann:100000:65536\nbob:300000:10\nbad\ncarl:165536:65536\n", 0), Some(300_010));
        assert_eq!(free_range("ann:5:5\n", 1000), Some(100_000));
        assert_eq!(free_range("", 120_000), Some(120_001), "the own id is not in the range");
        assert_eq!(free_range("ann:4294900000:65536\n", 0), None);
        assert_eq!(free_range("ann:18446744073709551615:1\n", 0), Some(100_000));
    }

    #[test]
    fn covered_parts_of_proc_are_listed() {
        let text = "36 35 98:0 / /proc rw - proc proc rw\n37 36 0:5 /null /proc/kcore rw - devtmpfs x rw\n\
                    38 36 0:6 / /proc/sys/fs/binfmt_misc rw - binfmt_misc x rw\n";
        assert_eq!(covered(text), ["/proc/kcore"]);
        assert_eq!(
            (chroot(text), chroot(""), chroot("1 0 8:0 / / rw - ext4 x rw\n")),
            (Some(true), None, None)
        );
    }

    #[test]
    fn overlay_and_cgroup_of_a_container_are_found() {
        let overlay = "1 0 0:5 / / rw - overlay overlay rw\n2 1 0:6 / /proc rw - proc proc rw\n";
        assert!(root_is_overlay(overlay));
        assert!(!root_is_overlay("1 0 8:0 / / rw - ext4 overlay rw\n") && !root_is_overlay(""));
        assert!(names_container("0::/docker/4711\n") && !names_container("0::/user.slice\n"));
    }

    #[test]
    fn label_without_effect_is_left_out() {
        for label in ["unconfined\n", "", "kernel\0", "user_u:user_r:unconfined_t:s0"] {
            assert_eq!(confining(label), None, "{label}");
        }
        assert_eq!(confining("docker-default (enforce)\n").as_deref(), Some("docker-default (enforce)"));
    }

    #[test]
    fn other_ids_of_the_own_namespace_are_found() {
        let side = |lines: &[(u32, u32, u32)]| IdFacts { map: Some(lines.to_vec()), ..IdFacts::default() };
        assert_eq!(side(&[(0, 1000, 1)]).others(), None);
        let found = side(&[(0, 1000, 1), (1, 100_000, 10)]).others().unwrap();
        assert_eq!(found, [Extent { inside: 1, outside: 1, count: 10 }]);
        assert!(side(&[]).is_unmapped() && !side(&[(0, 7, 1)]).is_unmapped());
        assert!(side(&[(1, 7, 5)]).is_unmapped() && !IdFacts::default().is_unmapped());
    }

    #[test]
    fn distribution_is_that_of_the_id_before_those_that_it_is_like() {
        let of = Distribution::of;
        assert_eq!(of("NAME=x\nID=debian\n"), Distribution::Debian);
        assert_eq!(of("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n"), Distribution::Ubuntu);
        assert_eq!(of("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n"), Distribution::RedHat);
        assert_eq!(of("ID='opensuse-leap'\n"), Distribution::Suse);
        assert_eq!(of("VERSION_ID=12\n"), Distribution::Other);
        assert_eq!(of(""), Distribution::Other);
    }
}
