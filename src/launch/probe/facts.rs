//! The facts that decide a cause, and the parsers of their files. Values only; `read` reads the files.

use std::string::{String, ToString};
use std::vec::Vec;

use super::report::Vantage;
use crate::deciders::idmap::Extent;
use crate::deciders::namespace::{NsKind, NsSet};
use crate::launch::subordinate::{Range, Side};
use crate::sys::types::Capability;

/// The state of this process and its machine.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Facts {
    pub(super) vantage: Vantage,
    /// The effective capabilities as a bit set. `None`: unknown.
    pub(super) capabilities: Option<u64>,
    /// The kinds that the kernel has. Empty: unknown.
    pub(super) kinds: NsSet,
    /// The values of `user.max_*_namespaces`.
    pub(super) limits: Vec<(NsKind, u64)>,
    /// `kernel.unprivileged_userns_clone`.
    pub(super) userns_clone: Option<u64>,
    /// `kernel.apparmor_restrict_unprivileged_userns`.
    pub(super) apparmor_restricts: Option<u64>,
    /// Whether SELinux is enforcing. `None`: it is not active.
    pub(super) selinux_enforcing: Option<bool>,
    pub(super) proc: Proc,
    pub(super) users: Ids,
    pub(super) groups: Ids,
    /// A directory that exists, for the try of a mount.
    pub(super) mount_point: Option<&'static str>,
}

/// The state of /proc.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Proc {
    /// Whether it is a procfs that shows this process under its own pid.
    pub(super) is_own: bool,
    pub(super) read_only: bool,
    /// The mount points below it that cover a part of it.
    pub(super) covered: Vec<String>,
}

/// The facts about user ids, or those about group ids.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Ids {
    /// The caller's own id.
    pub(super) own: u32,
    /// The map of the caller's own user namespace. Empty if nothing is mapped; `None` without a /proc.
    pub(super) map: Option<Vec<Extent>>,
    /// The caller's subordinate ids. Empty if no file has them; `None`: they cannot be read.
    pub(super) ranges: Option<Vec<Range>>,
    /// The first id of a free range of 65536 ids.
    pub(super) free: Option<u32>,
    /// The mapping tool in PATH.
    pub(super) tool: Option<Tool>,
}

/// The file of a mapping tool.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Tool {
    pub(super) path: String,
    /// Whether it has the set-user-id bit and belongs to root.
    pub(super) set_user_id: bool,
    /// Whether it has file capabilities (`security.capability`).
    pub(super) file_capabilities: bool,
    /// Whether its file system is mounted with nosuid.
    pub(super) nosuid: bool,
}

/// The number of ids in a range that the report proposes. A container image expects ids up to 65535.
pub(super) const COUNT: u32 = 65_536;

/// The first subordinate id that useradd(8) gives (`SUB_UID_MIN` in login.defs(5)).
const FIRST: u64 = 100_000;

impl Facts {
    /// Returns whether the caller has the capability. If the capabilities are unknown, user
    /// id 0 has all of them, and other ids have none.
    pub(super) fn has_capability(&self, capability: Capability) -> bool {
        match self.capabilities {
            Some(set) => set >> capability.0 & 1 != 0,
            None => self.vantage.uid == 0,
        }
    }

    /// Returns the facts about one side of the maps.
    pub(super) const fn side(&self, side: Side) -> &Ids {
        match side {
            Side::Users => &self.users,
            Side::Groups => &self.groups,
        }
    }

    /// Returns the limit of a kind of namespace.
    pub(super) fn limit(&self, kind: NsKind) -> Option<u64> {
        self.limits.iter().find(|(of, _)| *of == kind).map(|(_, value)| *value)
    }
}

impl Ids {
    /// Returns whether the caller's own id is not mapped in its user namespace.
    pub(super) fn is_unmapped(&self) -> bool {
        let own = |extent: &Extent| self.own.checked_sub(extent.inside).is_some_and(|at| at < extent.count);
        self.map.as_ref().is_some_and(|map| !map.iter().any(own))
    }

    /// Returns the ids of the caller's user namespace without the own id. `None` if no other id is mapped.
    pub(super) fn others(&self) -> Option<Vec<Extent>> {
        let whole = Extent { inside: 0, outside: 0, count: u32::MAX };
        let map = self.map.clone().unwrap_or_else(|| Vec::from([whole]));
        let ranges: Vec<Range> =
            map.iter().map(|line| Range { first: line.inside, count: line.count.min(COUNT) }).collect();
        let lines = crate::launch::subordinate::in_order(&ranges, self.own);
        (!lines.is_empty()).then_some(lines)
    }
}

/// Returns the first id of a free range of 65536 ids (subuid(5)). The range lies above all ranges in the text
/// of /etc/subuid or /etc/subgid, and does not contain the id `own`. Returns `None` if no such range is free.
pub(super) fn free_range(text: &str, own: u32) -> Option<u32> {
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
pub(super) fn covered(mountinfo: &str) -> Vec<String> {
    const EMPTY: [&str; 3] = ["/proc/sys/fs/binfmt_misc", "/proc/fs/nfsd", "/proc/openprom"];
    let points = mountinfo.lines().filter_map(|line| line.split(' ').nth(4));
    points.filter(|point| point.starts_with("/proc/") && !EMPTY.contains(point)).map(String::from).collect()
}

/// Returns whether this process has changed its root directory, from the text of mountinfo: no mount is at
/// `/`. `None`: a mount is there, which does not exclude a changed root.
pub(super) fn chroot(mountinfo: &str) -> Option<bool> {
    let mut points = mountinfo.lines().filter_map(|line| line.split(' ').nth(4)).peekable();
    (points.peek().is_some() && !points.any(|point| point == "/")).then_some(true)
}

/// Returns the label of a process in a security module, unless it confines nothing (proc_pid_attr(5)).
pub(super) fn confining(label: &str) -> Option<String> {
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
    fn label_without_effect_is_left_out() {
        for label in ["unconfined\n", "", "kernel\0", "user_u:user_r:unconfined_t:s0"] {
            assert_eq!(confining(label), None, "{label}");
        }
        assert_eq!(confining("docker-default (enforce)\n").as_deref(), Some("docker-default (enforce)"));
    }

    #[test]
    fn other_ids_of_the_own_namespace_are_found() {
        let side = |lines: &[(u32, u32, u32)]| Ids {
            map: Some(lines.iter().map(|l| Extent { inside: l.0, outside: l.1, count: l.2 }).collect()),
            ..Ids::default()
        };
        assert_eq!(side(&[(0, 1000, 1)]).others(), None);
        let found = side(&[(0, 1000, 1), (1, 100_000, 10)]).others().unwrap();
        assert_eq!(found, [Extent { inside: 1, outside: 1, count: 10 }]);
        assert!(side(&[]).is_unmapped() && !side(&[(0, 7, 1)]).is_unmapped());
        assert!(side(&[(1, 7, 5)]).is_unmapped() && !Ids::default().is_unmapped());
    }
}
