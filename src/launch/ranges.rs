//! Ranges of subordinate ids, and the two sides of the maps of ids. Values only.

use std::vec::Vec;

use crate::deciders::idmap::Extent;
use crate::sys::types::Capability;

/// User or group ids.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Side {
    Users,
    Groups,
}

impl Side {
    pub(super) const fn of(groups: bool) -> Self {
        if groups { Self::Groups } else { Self::Users }
    }

    pub(super) const fn noun(self) -> &'static str {
        match self {
            Self::Users => "user",
            Self::Groups => "group",
        }
    }

    /// Returns the number of the capability that writes any map of this side (user_namespaces(7)).
    pub(super) const fn capability(self) -> Capability {
        match self {
            Self::Users => Capability::SETUID,
            Self::Groups => Capability::SETGID,
        }
    }

    /// Returns the file of subordinate ids, the mapping tool, and the file of the own map.
    pub(super) const fn names(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Users => ("/etc/subuid", "newuidmap", "/proc/self/uid_map"),
            Self::Groups => ("/etc/subgid", "newgidmap", "/proc/self/gid_map"),
        }
    }
}

/// A range of subordinate ids.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    /// The first id.
    pub first: u32,
    /// The number of ids.
    pub count: u32,
}

/// Returns lines that map the ranges one after the other, from inside id 1 on. Ids beyond the last one are
/// cut off.
///
/// The kernel maps each id only once. So an id that is listed twice is mapped once, and the caller's own id,
/// which is mapped already, is left out. Each remaining part is within one range, as the tool requires.
#[must_use]
pub fn in_order(ranges: &[Range], own: u32) -> Vec<Extent> {
    let mut taken: Vec<(u64, u64)> = [(u64::from(own), u64::from(own) + 1)].into();
    let mut inside: u32 = 1;
    let mut lines = Vec::new();
    for range in ranges {
        let end = (u64::from(range.first) + u64::from(range.count)).min(u64::from(u32::MAX));
        let whole = (u64::from(range.first), end);
        let parts = taken.iter().fold(Vec::from([whole]), |parts, cut| {
            // The parts before and after the cut.
            let around = |(from, to): (u64, u64)| [(from, to.min(cut.0)), (from.max(cut.1), to)];
            parts.into_iter().flat_map(around).filter(|(from, to)| from < to).collect()
        });
        taken.push(whole);
        for (from, to) in parts {
            let (Ok(outside), Ok(count)) = (u32::try_from(from), u32::try_from(to - from)) else { continue };
            let count = count.min(u32::MAX - inside);
            if count > 0 {
                lines.push(Extent { inside, outside, count });
                inside += count;
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::{String, ToString};

    #[test]
    fn ids_listed_twice_are_mapped_once_and_the_own_id_not_again() {
        let auto = |own: u32, ranges: &[(u32, u32)]| {
            let ranges: Vec<_> =
                ranges.iter().map(|(first, count)| Range { first: *first, count: *count }).collect();
            let lines: Vec<String> = in_order(&ranges, own).iter().map(Extent::to_string).collect();
            lines.join("; ")
        };
        assert_eq!(auto(1000, &[(5000, 10), (5000, 10)]), "1 5000 10");
        assert_eq!(auto(1000, &[(5005, 10), (5000, 20)]), "1 5005 10; 11 5000 5; 16 5015 5");
        assert_eq!(auto(1000, &[(998, 3)]), "1 998 2");
        assert_eq!(auto(1000, &[(0, 2000)]), "1 0 1000; 1001 1001 999");
    }
}
