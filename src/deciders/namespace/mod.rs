//! The kinds of namespace, and sets of them.

#[doc(hidden)]
pub mod paths;

pub use paths::{NsPaths, NsPathsError};

use core::fmt;

use crate::sys::types::CloneFlags;

/// A kind of namespace (namespaces(7)), in the alphabetical order of runc's own table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum NsKind {
    /// Cgroup root directory (Linux 4.6).
    Cgroup,
    /// System V IPC and POSIX message queues.
    Ipc,
    /// Mount points.
    Mnt,
    /// Network devices, stacks and ports.
    Net,
    /// Process ids.
    Pid,
    /// Boot-time and monotonic clocks (Linux 5.6).
    Time,
    /// User and group ids.
    User,
    /// Host name and NIS domain name.
    Uts,
}

impl NsKind {
    /// Every kind, in the order of runc's C code.
    pub const ALL: [Self; 8] =
        [Self::Cgroup, Self::Ipc, Self::Mnt, Self::Net, Self::Pid, Self::Time, Self::User, Self::Uts];

    /// Returns the name used in `NS_PATHS`, in `/proc/PID/ns` and in runc's log texts.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cgroup => "cgroup",
            Self::Ipc => "ipc",
            Self::Mnt => "mnt",
            Self::Net => "net",
            Self::Pid => "pid",
            Self::Time => "time",
            Self::User => "user",
            Self::Uts => "uts",
        }
    }

    /// Returns the file of `/proc/PID/ns` for the namespace of the process itself, which has the same name
    /// for every kind. (The namespaces of its children are `pid_for_children` and `time_for_children`.)
    #[must_use]
    pub const fn proc_name(self) -> &'static str {
        self.name()
    }

    /// Returns the flag for unshare(2) and setns(2).
    #[must_use]
    pub const fn flag(self) -> CloneFlags {
        match self {
            Self::Cgroup => CloneFlags::NEWCGROUP,
            Self::Ipc => CloneFlags::NEWIPC,
            Self::Mnt => CloneFlags::NEWNS,
            Self::Net => CloneFlags::NEWNET,
            Self::Pid => CloneFlags::NEWPID,
            Self::Time => CloneFlags::NEWTIME,
            Self::User => CloneFlags::NEWUSER,
            Self::Uts => CloneFlags::NEWUTS,
        }
    }

    /// Returns the kind with this [`name`](Self::name), compared byte by byte.
    #[must_use]
    pub fn from_name(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name().as_bytes() == name)
    }

    const fn bit(self) -> u8 {
        match self {
            Self::Cgroup => 1,
            Self::Ipc => 1 << 1,
            Self::Mnt => 1 << 2,
            Self::Net => 1 << 3,
            Self::Pid => 1 << 4,
            Self::Time => 1 << 5,
            Self::User => 1 << 6,
            Self::Uts => 1 << 7,
        }
    }
}

impl fmt::Display for NsKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A set of kinds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct NsSet(u8);

impl NsSet {
    /// No kind.
    pub const EMPTY: Self = Self(0);
    /// Every kind.
    pub const ALL: Self = Self(u8::MAX);

    /// Returns whether `kind` is in the set.
    #[must_use]
    pub const fn contains(self, kind: NsKind) -> bool {
        self.0 & kind.bit() != 0
    }

    /// Returns this set with `kind`.
    #[must_use]
    pub const fn with(self, kind: NsKind) -> Self {
        Self(self.0 | kind.bit())
    }

    /// Returns this set without `kind`.
    #[must_use]
    pub const fn without(self, kind: NsKind) -> Self {
        Self(self.0 & !kind.bit())
    }

    /// Returns the kinds that are in both sets.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Adds `kind`. Returns false if it was already in the set.
    pub const fn insert(&mut self, kind: NsKind) -> bool {
        let new = !self.contains(kind);
        *self = self.with(kind);
        new
    }

    /// Returns whether the set is empty.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns the number of kinds in the set.
    #[must_use]
    pub const fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// Returns the kinds, in the order of [`NsKind::ALL`].
    pub fn iter(self) -> impl Iterator<Item = NsKind> {
        NsKind::ALL.into_iter().filter(move |kind| self.contains(*kind))
    }

    /// Returns the kinds whose flags are set. Other bits are ignored: [`CloneFlags::unknown`] returns them.
    #[must_use]
    pub fn from_flags(flags: CloneFlags) -> Self {
        NsKind::ALL.into_iter().filter(|kind| flags.contains(kind.flag())).collect()
    }

    /// Returns the flags of the kinds.
    #[must_use]
    pub fn flags(self) -> CloneFlags {
        self.iter().fold(CloneFlags::EMPTY, |flags, kind| flags.union(kind.flag()))
    }
}

impl FromIterator<NsKind> for NsSet {
    fn from_iter<I: IntoIterator<Item = NsKind>>(kinds: I) -> Self {
        kinds.into_iter().fold(Self::EMPTY, Self::with)
    }
}

impl fmt::Display for NsSet {
    /// Writes the names separated by commas: `cgroup, ipc`; nothing for the empty set.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, kind) in self.iter().enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            f.write_str(kind.name())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::string::ToString;

    use super::*;

    #[test]
    fn each_kind_has_its_own_name_and_flag() {
        for kind in NsKind::ALL {
            assert_eq!(NsKind::from_name(kind.name().as_bytes()), Some(kind));
            assert_eq!(NsSet::from_flags(kind.flag()), NsSet::EMPTY.with(kind));
        }
        assert_eq!(NsKind::from_name(b"NET"), None);
        assert_eq!(NsKind::from_name(b"net\0"), None);
        assert_eq!(NsSet::ALL.flags().0, 0x7e02_0080);
    }

    #[test]
    fn namespace_set_is_sorted_and_ignores_unknown_bits() {
        let set = NsSet::from_flags(CloneFlags(0x4400_0001));
        assert_eq!(set.to_string(), "net, uts");
        assert_eq!(set.len(), 2);
        assert_eq!(set.flags(), CloneFlags(0x4400_0000));
        let mut set = NsSet::EMPTY;
        assert!(set.insert(NsKind::Ipc));
        assert!(!set.insert(NsKind::Ipc));
        assert!(set.without(NsKind::Ipc).is_empty());
    }
}
