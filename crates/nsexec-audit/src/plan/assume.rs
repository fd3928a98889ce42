//! The assumptions of a plan about the machine, including every value that a command-line option can set.

use std::collections::{BTreeMap, BTreeSet};
use std::format;
use std::string::{String, ToString};
use std::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::sim::{ALL_CAPS, Allowance, HidePid, OwnUser, ProcOwner, Settings};
use nsexec::idmap::Extent;
use nsexec::launch::shape::{Guard, Protection};
use nsexec::namespace::{NsKind, NsSet};
use nsexec::sys::types::{Errno, FsType, SignalSet};

/// The owner of a joined namespace (ioctl_ns(2), NS_GET_USERNS).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Owner {
    /// The user namespace that is joined too.
    Joined,
    /// The caller's user namespace.
    Caller,
}

/// The properties of the joined user namespace that decide which steps succeed in it. The ids are those of
/// the caller's user namespace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JoinedUser {
    /// The uid of its creator (ioctl_ns(2), NS_GET_OWNER_UID).
    pub maker: u32,
    /// Its user id map; empty if no map has been written.
    pub users: Vec<Extent>,
    /// Its group id map, likewise.
    pub groups: Vec<Extent>,
    /// Whether groups may be changed in it (user_namespaces(7), "/proc/PID/setgroups").
    pub setgroups: bool,
}

impl JoinedUser {
    /// Returns a namespace as this caller would create it. Root maps 65,536 otherwise unused ids. An ordinary
    /// user maps only its own id, for which the kernel requires setgroups to be denied.
    #[must_use]
    pub fn made_by(uid: u32, gid: u32) -> Self {
        let map = |own| match uid {
            0 => std::vec![Extent { inside: 0, outside: 100_000, count: 65_536 }],
            _ => std::vec![Extent { inside: 0, outside: own, count: 1 }],
        };
        Self { maker: uid, users: map(uid), groups: map(gid), setgroups: uid == 0 }
    }
}

/// The reason why a path to join is not a namespace of its kind.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum WrongPath {
    /// The path does not exist (ENOENT).
    Missing,
    /// A component of the path is a file, not a directory (ENOTDIR).
    BelowFile,
    /// The file may not be opened (EACCES).
    Forbidden,
    /// A file of a process that /proc hides cannot be opened (EPERM; hidepid=noaccess in proc(5)).
    NotPermitted,
    /// The file is a FIFO.
    Fifo,
    /// The file is of another type.
    Regular,
    /// The file is a namespace of another kind.
    OtherKind,
    /// The file is the caller's own namespace. This matters only for a user namespace, which cannot be joined
    /// twice.
    Own,
}

impl WrongPath {
    /// All values, with their names on the command line.
    pub const ALL: [(&'static str, Self); 8] = [
        ("missing", Self::Missing),
        ("below-file", Self::BelowFile),
        ("forbidden", Self::Forbidden),
        ("not-permitted", Self::NotPermitted),
        ("fifo", Self::Fifo),
        ("file", Self::Regular),
        ("other-kind", Self::OtherKind),
        ("own", Self::Own),
    ];

    pub(super) const fn words(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::BelowFile => "below a file",
            Self::Forbidden => "may not be opened",
            Self::NotPermitted => "of a process that /proc hides",
            Self::Fifo => "a FIFO",
            Self::Regular => "no namespace",
            Self::OtherKind => "of another kind",
            Self::Own => "the caller's own",
        }
    }
}

/// The reason why the search for the command cannot execute a file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refused {
    /// The file exists, and may not be executed (EACCES).
    NotExecutable,
    /// A directory of the path may not be searched (EACCES).
    Hidden,
    /// The file belongs to a process that /proc hides (EPERM; hidepid=noaccess in proc(5)).
    NotPermitted,
    /// A component of the path is a file, not a directory (ENOTDIR).
    BelowFile,
    /// The file is a script or a program whose interpreter does not exist (ENOENT).
    NoInterpreter,
    /// The kernel does not know the format of the file (ENOEXEC).
    UnknownFormat,
    /// The path does not exist (ENOENT).
    Missing,
}

/// A kernel version, which decides the available system calls.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Kernel {
    /// 6 in 6.18.
    pub major: u32,
    /// 18 in 6.18.
    pub minor: u32,
}

impl Kernel {
    /// A kernel with every call that we use.
    pub const CURRENT: Self = Self { major: 6, minor: 18 };

    /// Parses `6.18`, with any distribution suffix.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(|c: char| !c.is_ascii_digit());
        Some(Self { major: parts.next()?.parse().ok()?, minor: parts.next()?.parse().ok()? })
    }

    /// Returns the level that matters: two kernels with the same calls give the same plan.
    #[must_use]
    pub fn level(self) -> &'static str {
        LEVELS.iter().find(|(since, ..)| self >= *since).map_or("4.18", |(_, name, _)| name)
    }

    /// Returns the calls and flags that it lacks, by strace's names, with the errno.
    #[must_use]
    pub fn lacks(self) -> BTreeMap<&'static str, Errno> {
        let lacking = LEVELS.iter().filter(|(since, ..)| self < *since);
        lacking.filter_map(|(.., call)| *call).collect()
    }

    /// Returns whether memfd_create supports MFD_EXEC (Linux 6.3).
    #[must_use]
    pub fn knows_mfd_exec(self) -> bool {
        self >= Self { major: 6, minor: 3 }
    }
}

/// A call or flag that a kernel lacks, and the errno.
type Missing = (&'static str, Errno);

/// Each kernel version with the call or flag that it introduced, newest first, and the errno of the call on
/// an older kernel. `RWF_NOWAIT`: of a pipe.
const LEVELS: [(Kernel, &str, Option<Missing>); 8] = [
    (Kernel { major: 6, minor: 4 }, "6.4", Some(("RWF_NOWAIT", Errno::EOPNOTSUPP))),
    (Kernel { major: 5, minor: 12 }, "5.12", Some(("mount_setattr", Errno::ENOSYS))),
    (Kernel { major: 5, minor: 11 }, "5.11", Some(("CLOSE_RANGE_CLOEXEC", Errno::EINVAL))),
    (Kernel { major: 5, minor: 9 }, "5.9", Some(("close_range", Errno::ENOSYS))),
    (Kernel { major: 5, minor: 6 }, "5.6", Some(("openat2", Errno::ENOSYS))),
    (Kernel { major: 5, minor: 3 }, "5.3", Some(("pidfd_open", Errno::ENOSYS))),
    (Kernel { major: 5, minor: 2 }, "5.2", Some(("open_tree", Errno::ENOSYS))),
    (Kernel { major: 4, minor: 18 }, "4.18", None),
];

/// The assumptions of a plan: everything that depends on the machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Assumptions {
    /// Effective user id of the launcher.
    pub uid: u32,
    /// Effective group id of the launcher.
    pub gid: u32,
    /// Effective capabilities of the launcher, as in /proc/PID/status.
    pub capabilities: u64,
    /// The properties that decide which processes can trace the launcher. Its effective capabilities count as
    /// permitted too.
    pub protection: Protection,
    /// The kernel.
    pub kernel: Kernel,
    /// Subordinate user ids that newuidmap lets the caller use, as first id and count.
    pub subuid: Option<(u32, u32)>,
    /// Subordinate group ids, likewise.
    pub subgid: Option<(u32, u32)>,
    /// The owners of the joined namespaces. A kind without an entry belongs to the joined user namespace, or
    /// to the caller's if none is joined.
    pub owners: BTreeMap<NsKind, Owner>,
    /// Whether a part of /proc is covered by mounts, as in most containers.
    pub proc_masked: bool,
    /// The hidepid mode of /proc. `Off` for a caller in the group that the mount exempts.
    pub hidepid: HidePid,
    /// Whether the set-user-id bit of a mapping tool has no effect (PR_SET_NO_NEW_PRIVS(2const)).
    pub no_new_privs: bool,
    /// The machine's uptime in seconds: its clocks cannot be set back further. Not part of the hash.
    pub uptime: i64,
    /// The signals that the launcher has blocked when it forks. Not part of the hash, since the mask is
    /// restored.
    pub blocked: SignalSet,
    /// The signals that the launcher ignores. Not part of the hash.
    pub ignored: SignalSet,
    /// The signals for which it has a handler. Not part of the hash.
    pub caught: SignalSet,
    /// The kinds to join whose paths are not a namespace of that kind. Any other path is.
    pub wrong_path: BTreeMap<NsKind, WrongPath>,
    /// The file system of such FIFOs and files (statfs(2)), which the error message names.
    pub file_system: FsType,
    /// The joined user namespace. `None` for one that the caller would have created.
    pub joined_user: Option<JoinedUser>,
    /// Whether our own launcher's program runs from a sealed copy of itself, as after
    /// [`run_from_sealed_copy`](nsexec::launch::run_from_sealed_copy). Used only by a launch that joins a
    /// mount namespace.
    pub sealed: bool,
    /// The file that the search for the command finds. Empty if it finds none. `None` for the first candidate
    /// that is not refused. Not part of the hash: the location of programs changes nothing before the last
    /// call.
    pub command: Option<Vec<u8>>,
    /// The files at which the search for the command, or the change of the working directory, is refused. Not
    /// part of the hash either.
    pub refused: BTreeMap<Vec<u8>, Refused>,
    /// The sources of mounts that are files. The others are directories. Not part of the hash either.
    pub files: BTreeSet<Vec<u8>>,
    /// The pid namespace whose processes /proc shows.
    pub proc_owner: ProcOwner,
    /// Whether the mount at /proc is read-only.
    pub proc_read_only: bool,
    /// Whether standard input of the command is not a terminal. Used only by a launch that makes it the
    /// controlling one. Not part of the hash.
    pub no_terminal: bool,
    /// The caller's user namespace, if it is not the first one of the machine.
    pub own_user: Option<OwnUser>,
    /// Whether the caller has changed its root directory, so it cannot create user namespaces.
    pub chrooted: bool,
    /// The error of each attempt to create a user namespace, if a sysctl or a security module refuses it.
    pub user_refused: Option<Errno>,
    /// The kinds whose limit /proc/sys/user/max_*_namespaces is 0.
    pub forbidden: NsSet,
    /// Whether the mapping tools refuse the caller whatever it asks for: its group is not that of its account
    /// (newuidmap(1), newgidmap(1)), or it has no account.
    pub tools_refuse: bool,
    /// Whether the C library keeps its thread id at the address that it registers, so that each clone
    /// refreshes it: glibc, but not musl. By default that of this program.
    pub caches_tid: bool,
    /// Whether the kernel reports that address: one that is built with CONFIG_CHECKPOINT_RESTORE
    /// (PR_GET_TID_ADDRESS(2const)).
    pub reports_tid_address: bool,
    /// The kinds of namespace that the kernel was built without. [`missing_kinds`](Self::missing_kinds) adds
    /// those that are newer.
    pub absent: NsSet,
    /// The facts that were not looked at, one sentence each. The plan assumes that they do not prevent the
    /// run. Not part of the hash.
    pub unknown: Vec<String>,
}

impl Assumptions {
    /// Returns whether the launcher has root's ids.
    pub(super) const fn has_root_ids(&self) -> bool {
        self.uid == 0 && self.gid == 0
    }

    /// Returns the kinds of namespace that the kernel does not have. Time namespaces exist since Linux 5.6
    /// (time_namespaces(7)), the others since before 4.18.
    #[must_use]
    pub fn missing_kinds(&self) -> NsSet {
        let is_older = self.kernel < Kernel { major: 5, minor: 6 };
        if is_older { self.absent.with(NsKind::Time) } else { self.absent }
    }

    /// Returns the launcher's protection, with the capabilities that are assumed.
    #[must_use]
    pub fn protection(&self) -> Protection {
        let permitted = self.protection.permitted.map(|permitted| permitted | self.capabilities);
        Protection { permitted, ..self.protection }
    }

    /// Returns what prevents the process of a new user namespace from sharing the launcher's memory, unless
    /// the launcher makes itself not dumpable.
    #[must_use]
    pub fn guard(&self) -> Option<Guard> {
        self.protection().guard()
    }

    /// Returns the assumptions for root with every capability, on a kernel with every call.
    #[must_use]
    pub fn root() -> Self {
        Self {
            uid: 0,
            gid: 0,
            capabilities: ALL_CAPS,
            protection: Protection::NONE,
            kernel: Kernel::CURRENT,
            subuid: None,
            subgid: None,
            owners: BTreeMap::new(),
            proc_masked: false,
            hidepid: HidePid::Off,
            no_new_privs: false,
            uptime: Settings::default().uptime,
            blocked: SignalSet::EMPTY,
            ignored: SignalSet::EMPTY,
            caught: SignalSet::EMPTY,
            wrong_path: BTreeMap::new(),
            file_system: Settings::default().file_system,
            joined_user: None,
            sealed: true,
            command: None,
            refused: BTreeMap::new(),
            files: BTreeSet::new(),
            proc_owner: ProcOwner::Own,
            proc_read_only: false,
            no_terminal: false,
            own_user: None,
            chrooted: false,
            user_refused: None,
            forbidden: NsSet::EMPTY,
            tools_refuse: false,
            caches_tid: cfg!(not(target_env = "musl")),
            reports_tid_address: true,
            absent: NsSet::EMPTY,
            unknown: Vec::new(),
        }
    }

    /// Returns the assumptions for an ordinary user without capabilities, with a gid equal to the uid.
    #[must_use]
    pub fn ordinary(uid: u32) -> Self {
        Self { uid, gid: uid, capabilities: 0, ..Self::root() }
    }

    /// Returns the owner of the joined namespace of this kind.
    #[must_use]
    pub fn owner(&self, kind: NsKind, joined: NsSet) -> Owner {
        let default = if joined.contains(NsKind::User) { Owner::Joined } else { Owner::Caller };
        self.owners.get(&kind).copied().unwrap_or(default)
    }

    /// Returns the joined user namespace, or its default.
    #[must_use]
    pub fn joined_user(&self) -> JoinedUser {
        self.joined_user.clone().unwrap_or_else(|| JoinedUser::made_by(self.uid, self.gid))
    }

    pub(super) fn users(&self) -> Option<Allowance> {
        self.subuid.map(|(first, count)| Allowance { own: self.uid, first, count })
    }

    pub(super) fn groups(&self) -> Option<Allowance> {
        self.subgid.map(|(first, count)| Allowance { own: self.gid, first, count })
    }

    /// Returns the assumptions as lines of a plan: subject and value. `joined` are the joined kinds.
    #[must_use]
    pub fn lines(&self, joined: NsSet) -> Vec<(String, String)> {
        let range = |range: Option<(u32, u32)>| match range {
            Some((first, count)) => format!("{count} from {first} on, through the mapping tool"),
            None => "none".to_string(),
        };
        let capabilities = match self.capabilities {
            0 => "none".to_string(),
            ALL_CAPS => "all".to_string(),
            some => format!("{some:#x}"),
        };
        let mut lines = vec_of([
            ("user id", self.uid.to_string()),
            ("group id", self.gid.to_string()),
            ("capabilities", capabilities),
            ("kernel", format!("{} or later", self.kernel.level())),
            ("subordinate user ids", range(self.subuid)),
            ("subordinate group ids", range(self.subgid)),
            ("/proc", if self.proc_masked { "partly covered" } else { "whole" }.to_string()),
        ]);
        // Listed only if set, since few machines have it.
        if self.no_new_privs {
            lines.push((
                "set-user-id bit of the tools".to_string(),
                "without effect (no_new_privs)".to_string(),
            ));
        }
        if !self.caches_tid {
            lines.push(("thread id".to_string(), "not cached by the C library (musl)".to_string()));
        }
        if self.hidepid != HidePid::Off {
            lines.push(("hidepid of /proc".to_string(), self.hidepid.word().to_string()));
        }
        // That of effective capabilities follows from another line.
        if let Some(guard) = self.guard().filter(|_| self.capabilities == 0) {
            lines.push(("protection of the launcher's memory".to_string(), guard.to_string()));
        }
        if self.has_root_ids() && self.protection.suid_dumpable {
            lines.push((
                "programs that change their ids".to_string(),
                "stay dumpable (fs.suid_dumpable is 1, or unknown)".to_string(),
            ));
        }
        for (kind, wrong_path) in self.wrong_path.iter().filter(|(kind, _)| joined.contains(**kind)) {
            lines.push((format!("{kind} namespace to join"), wrong_path.words().to_string()));
        }
        let is_file = |wrong_path: &WrongPath| matches!(wrong_path, WrongPath::Fifo | WrongPath::Regular);
        if self.wrong_path.iter().any(|(kind, wrong_path)| joined.contains(*kind) && is_file(wrong_path)) {
            let FsType(number) = self.file_system;
            lines.push(("file system of what is no namespace".to_string(), format!("{number:#x}")));
        }
        if joined.contains(NsKind::User) {
            let JoinedUser { maker, users, groups, setgroups } = self.joined_user();
            lines.extend(vec_of([
                ("maker of the joined user namespace", format!("user {maker}")),
                ("user ids in it", shown(&users)),
                ("group ids in it", shown(&groups)),
                ("setgroups in it", if setgroups { "allowed" } else { "denied" }.to_string()),
            ]));
        }
        for kind in joined.iter().filter(|kind| *kind != NsKind::User) {
            let owner = match self.owner(kind, joined) {
                Owner::Joined => "the joined user namespace",
                Owner::Caller => "the caller's user namespace",
            };
            lines.push((format!("owner of the joined {kind} namespace"), owner.to_string()));
        }
        lines
    }
}

/// Formats a map as `0 1000 1, 1 100000 65536`.
fn shown(map: &[Extent]) -> String {
    let lines: Vec<String> = map.iter().map(ToString::to_string).collect();
    if lines.is_empty() { "none mapped".to_string() } else { lines.join(", ") }
}

fn vec_of<const N: usize>(lines: [(&str, String); N]) -> Vec<(String, String)> {
    lines.into_iter().map(|(key, value)| (key.to_string(), value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_with_the_same_calls_have_the_same_level() {
        let level = |text| Kernel::parse(text).unwrap().level();
        assert_eq!((level("6.18.3-amd64"), level("5.11"), level("5.10.0")), ("6.4", "5.11", "5.9"));
        assert_eq!(
            (level("6.1.0"), level("5.8"), level("5.4"), level("4.19")),
            ("5.12", "5.6", "5.3", "4.18")
        );
        let lacks = |text| Kernel::parse(text).unwrap().lacks().into_keys().collect::<Vec<_>>();
        assert_eq!(lacks("6.1"), ["RWF_NOWAIT"]);
        assert_eq!(lacks("5.10"), ["CLOSE_RANGE_CLOEXEC", "RWF_NOWAIT", "mount_setattr"]);
        assert_eq!(lacks("5.8"), ["CLOSE_RANGE_CLOEXEC", "RWF_NOWAIT", "close_range", "mount_setattr"]);
        assert!(Kernel::CURRENT.lacks().is_empty());
        assert_eq!(Kernel::parse("six"), None);
    }

    #[test]
    fn joined_namespace_belongs_to_the_joined_user_namespace() {
        let mut assumptions = Assumptions::root();
        let net = NsSet::EMPTY.with(NsKind::Net);
        assert_eq!(assumptions.owner(NsKind::Net, net), Owner::Caller);
        assert_eq!(assumptions.owner(NsKind::Net, net.with(NsKind::User)), Owner::Joined);
        assumptions.owners.insert(NsKind::Net, Owner::Caller);
        assert_eq!(assumptions.owner(NsKind::Net, net.with(NsKind::User)), Owner::Caller);
    }
}
