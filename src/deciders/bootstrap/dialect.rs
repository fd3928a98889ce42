//! The differences between runc's release lines, as data (`docs/protocol.md#dialects`).
//!
//! The core never asks for a version; it asks for a single difference.
//!
//! Corrections of later release lines are not listed, since every dialect has them:
//! - joins in three passes (1.3);
//! - root in a joined user namespace (1.2.1);
//! - retries of an `unshare` that fails with EINVAL (1.1.5);
//! - the refusal of unknown kinds (1.3).

use core::fmt;

use super::attribute::Attribute;
use crate::deciders::namespace::NsSet;

/// A protocol dialect: the behaviour of one of runc's release lines.
///
/// The differences that need code for an older line are in `legacy`, a field of the feature of that name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub struct Dialect {
    pub(crate) name: &'static str,
    /// The meaning of attribute 27290, a number that runc has used for two attributes: `None` is an unknown
    /// attribute.
    pub attribute_27290: Option<Attribute>,
    /// The kinds that `NS_PATHS` may contain: all, but `time` only since 1.2.
    pub namespaces: NsSet,
    /// The form of the pid line, and the time at which stage 0 sends it.
    pub pid_line: PidLine,
    /// Whether the second record contains the CPU affinity (runc 1.3).
    pub affinity_logged: bool,
    /// The debug text before the second `unshare`.
    pub unshare_remaining_text: &'static str,
    /// The debug text while stage 1 waits for its maps. Up to 1.0 this is the text of the request, logged a
    /// second time.
    pub awaiting_maps_text: &'static str,
    /// Whether the debug text of a `setns` ends with its result, such as `: Success` (runc 1.3).
    pub setns_result_logged: bool,
    /// The differences of the older release lines.
    #[cfg(feature = "legacy")]
    pub legacy: crate::legacy::Differences,
}

/// The form of the line with the two pids, and the time at which stage 0 sends it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PidLine {
    /// `{"stage1_pid":A,"stage2_pid":B}`, as soon as stage 1 requests it. Since 1.0.0-rc94.
    Stages,
    /// `{"pid": B, "pid_first": A}`, at the very end, after stage 2 is ready. Before 1.0.0-rc94.
    #[cfg(feature = "legacy")]
    PidAndFirst,
}

impl Dialect {
    /// 1.2.0 and later, with the behaviour of the latest release.
    pub const V1_2: Self = Self {
        name: "v1_2",
        attribute_27290: Some(Attribute::TimeOffsets),
        namespaces: NsSet::ALL,
        pid_line: PidLine::Stages,
        affinity_logged: true,
        unshare_remaining_text: "unshare remaining namespaces",
        awaiting_maps_text: "waiting stage-0 to complete the mapping of user namespace",
        setns_result_logged: true,
        #[cfg(feature = "legacy")]
        legacy: crate::legacy::Differences::NONE,
    };

    /// Every dialect that this build has, the oldest first.
    pub const ALL: &'static [&'static Self] = &[
        #[cfg(feature = "legacy")]
        &Self::SEED,
        #[cfg(feature = "legacy")]
        &Self::V1_0,
        #[cfg(feature = "legacy")]
        &Self::V1_1,
        &Self::V1_2,
    ];

    /// Returns the dialect's name: `seed`, `v1_0`, `v1_1` or `v1_2`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Returns the dialect with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<&'static Self> {
        Self::ALL.iter().copied().find(|dialect| dialect.name == name)
    }
}

impl Default for Dialect {
    /// Returns the latest dialect.
    fn default() -> Self {
        Self::V1_2
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dialect_is_found_by_its_name() {
        for &dialect in Dialect::ALL {
            assert_eq!(Dialect::from_name(dialect.name()), Some(dialect));
        }
        assert_eq!(Dialect::from_name("v1_3"), None);
    }
}
