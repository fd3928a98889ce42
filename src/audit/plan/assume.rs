//! What a plan takes for granted about the machine, with every value a flag can set.

use std::collections::BTreeMap;
use std::format;
use std::string::{String, ToString};
use std::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::namespace::{NsKind, NsSet};
use crate::sys::sim::{ALL_CAPS, Allowance};
use crate::sys::types::{Errno, SignalSet};

/// Who owns a namespace that is joined (ioctl_ns(2), NS_GET_USERNS).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Owner {
    /// The user namespace that is joined too.
    Joined,
    /// The caller's own.
    Caller,
}

/// What a path to join is instead of a namespace.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Amiss {
    /// Nothing is there.
    Missing,
    /// It may not be opened.
    Forbidden,
    /// A FIFO.
    Fifo,
    /// A file of another kind.
    Regular,
}

impl Amiss {
    const fn words(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Forbidden => "may not be opened",
            Self::Fifo => "a FIFO",
            Self::Regular => "no namespace",
        }
    }
}

/// A kernel, by what it has of what we use.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Kernel {
    /// 6 in 6.18.
    pub major: u32,
    /// 18 in 6.18.
    pub minor: u32,
}

impl Kernel {
    /// A kernel that has everything.
    pub const CURRENT: Self = Self { major: 6, minor: 18 };

    /// `6.18`, and what distributions put behind it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(|c: char| !c.is_ascii_digit());
        Some(Self { major: parts.next()?.parse().ok()?, minor: parts.next()?.parse().ok()? })
    }

    /// The level that matters: two kernels with the same calls give the same plan.
    #[must_use]
    pub fn level(self) -> &'static str {
        LEVELS.iter().find(|(since, ..)| self >= *since).map_or("4.18", |(_, name, _)| name)
    }

    /// The calls that it lacks, by strace's name.
    #[must_use]
    pub fn lacks(self) -> BTreeMap<&'static str, Errno> {
        let lacking = LEVELS.iter().filter(|(since, ..)| self < *since);
        lacking.filter_map(|(.., call)| call.map(|call| (call, Errno::ENOSYS))).collect()
    }

    /// Whether memfd_create takes the flag of Linux 6.3.
    #[must_use]
    pub fn knows_mfd_exec(self) -> bool {
        self >= Self { major: 6, minor: 3 }
    }
}

/// Since when there is what, newest first.
const LEVELS: [(Kernel, &str, Option<&str>); 3] = [
    (Kernel { major: 5, minor: 11 }, "5.11", Some("close_range")),
    (Kernel { major: 5, minor: 3 }, "5.3", Some("pidfd_open")),
    (Kernel { major: 4, minor: 18 }, "4.18", None),
];

/// The assumptions of a plan. Everything that the machine has a say in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Assumptions {
    /// Effective user id of the launcher.
    pub uid: u32,
    /// Effective group id of the launcher.
    pub gid: u32,
    /// Effective capabilities of the launcher, as in /proc/PID/status.
    pub capabilities: u64,
    /// The kernel.
    pub kernel: Kernel,
    /// Subordinate user ids of the caller, if newuidmap would let it use some.
    pub subuid: Option<(u32, u32)>,
    /// Subordinate group ids, likewise.
    pub subgid: Option<(u32, u32)>,
    /// Owners of the namespaces that are joined; a kind that is not here belongs to the joined user namespace, if one
    /// is joined, and else to the caller's.
    pub owners: BTreeMap<NsKind, Owner>,
    /// A part of /proc is covered, as in most containers.
    pub proc_masked: bool,
    /// What the launcher has blocked when it forks. Not in the hash: it puts it back.
    pub blocked: SignalSet,
    /// Paths to join that are not what they should be. A path that is not here is a namespace of its kind.
    pub amiss: BTreeMap<Vec<u8>, Amiss>,
    /// The file that the search for the command finds; empty if it finds none, `None` for the first place it looks. Not in the hash: where a machine keeps its programs changes
    /// nothing before the last call.
    pub command: Option<Vec<u8>>,
}

impl Assumptions {
    /// Root with every capability, on a kernel that has everything.
    #[must_use]
    pub fn root() -> Self {
        Self {
            uid: 0,
            gid: 0,
            capabilities: ALL_CAPS,
            kernel: Kernel::CURRENT,
            subuid: None,
            subgid: None,
            owners: BTreeMap::new(),
            proc_masked: false,
            blocked: SignalSet::EMPTY,
            amiss: BTreeMap::new(),
            command: None,
        }
    }

    /// An ordinary user without any capability, whose group has the same number.
    #[must_use]
    pub fn ordinary(uid: u32) -> Self {
        Self { uid, gid: uid, capabilities: 0, ..Self::root() }
    }

    /// Who owns the joined namespace of this kind.
    #[must_use]
    pub fn owner(&self, kind: NsKind, joined: NsSet) -> Owner {
        let default = if joined.contains(NsKind::User) { Owner::Joined } else { Owner::Caller };
        self.owners.get(&kind).copied().unwrap_or(default)
    }

    pub(super) fn users(&self) -> Option<Allowance> {
        self.subuid.map(|(first, count)| Allowance { own: self.uid, first, count })
    }

    pub(super) fn groups(&self) -> Option<Allowance> {
        self.subgid.map(|(first, count)| Allowance { own: self.gid, first, count })
    }

    /// As lines of a plan: what is assumed about what. `joined` are the kinds that are joined.
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
        for (path, amiss) in &self.amiss {
            lines.push((String::from_utf8_lossy(path).into_owned(), amiss.words().to_string()));
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

fn vec_of<const N: usize>(lines: [(&str, String); N]) -> Vec<(String, String)> {
    lines.into_iter().map(|(key, value)| (key.to_string(), value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_with_the_same_calls_are_the_same() {
        let level = |text| Kernel::parse(text).unwrap().level();
        assert_eq!((level("6.18.3-amd64"), level("5.11"), level("5.10.0")), ("5.11", "5.11", "5.3"));
        assert_eq!(level("4.19"), "4.18");
        assert_eq!(
            Kernel::parse("5.10").unwrap().lacks().keys().copied().collect::<Vec<_>>(),
            ["close_range"]
        );
        assert!(Kernel::CURRENT.lacks().is_empty());
        assert_eq!(Kernel::parse("six"), None);
    }

    #[test]
    fn what_is_joined_belongs_to_the_user_namespace_that_is_joined() {
        let mut assumptions = Assumptions::root();
        let net = NsSet::EMPTY.with(NsKind::Net);
        assert_eq!(assumptions.owner(NsKind::Net, net), Owner::Caller);
        assert_eq!(assumptions.owner(NsKind::Net, net.with(NsKind::User)), Owner::Joined);
        assumptions.owners.insert(NsKind::Net, Owner::Caller);
        assert_eq!(assumptions.owner(NsKind::Net, net.with(NsKind::User)), Owner::Caller);
    }
}
