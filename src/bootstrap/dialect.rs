//! What differs between runc's release lines, as data (spec section 2).
//!
//! Nothing in the core asks "which version is this?"; it asks for the one thing that differs.
//!
//! What a later line of runc mended is not here, since every dialect has it: joins in three passes (1.3), root in a joined
//! user namespace (1.2.1), more tries of an `unshare` that gives EINVAL (1.1.5), unknown kinds refused (1.3).

use core::fmt;

use crate::namespace::{NsKind, NsSet};

/// One of runc's release lines.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Dialect {
    name: &'static str,
    /// What attribute 27290 means. Spec 1.4.
    pub attribute_27290: Attribute27290,
    /// The kinds that `NS_PATHS` may name: all, and `time` only since 1.2. Spec 1.4.
    pub namespaces: NsSet,
    /// How the environment is read. Spec 2.4.
    pub environment: EnvironmentForm,
    /// Whether stage 0 sends a byte 0x00 over the init pipe before it reads the message. A launcher that does
    /// not expect it fails in its JSON decoder, one that does waits for it. Spec 2.3.
    pub ready_byte: bool,
    /// Whether the C copies its own binary into a sealed file and executes that, before the ready byte
    /// (CVE-2019-5736). Since 1.2 it is done in Go. Spec 2.7.
    pub cloned_binary: bool,
    /// The keys of the pid line. Spec 2.1.
    pub pid_line: PidLine,
    /// Whether the pid line is sent at the very end, after stage 2 is ready, and not as soon as stage 1 asks
    /// for it. Spec 2.1.
    pub pid_line_late: bool,
    /// Who makes the cgroup namespace, and when. Spec 2.1.
    pub cgroup_namespace: CgroupPlacement,
    /// Whether a stage that fails says so to stage 0 over its sync pipe, which then ends with its code and says nothing
    /// more. Otherwise stage 0 sees that it is gone, and says that. Spec 2.1.
    pub failure_over_sync: bool,
    /// Whether the first record but one tells the CPU affinity (runc 1.3). Spec 2.1.
    pub affinity_logged: bool,
    /// Where a fatal text goes when there is no log pipe. Spec 2.5.
    pub fatal_without_log: FatalWithoutLog,
    /// The debug text before the second `unshare`. Spec 2.5.
    pub unshare_remaining_text: &'static str,
    /// The debug text while stage 1 waits for its maps. Up to 1.0 the request is logged a second time
    /// instead. Spec 2.5.
    pub awaiting_maps_text: &'static str,
    /// Whether the debug text of a `setns` ends with its result: `: Success` (runc 1.3). Spec 2.5.
    pub setns_result_logged: bool,
}

/// What attribute 27290 means: the number was given out twice.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Attribute27290 {
    /// Nothing, up to 1.0.
    Unknown,
    /// Sources of bind mounts, in 1.1.
    MountSources,
    /// Offsets of a time namespace, since 1.2.
    TimeOffsets,
}

/// How the environment is read.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum EnvironmentForm {
    /// The seed: the init pipe alone; `-1` means not present.
    InitOnly,
    /// 1.0: the log pipe too, whose level is a word that only Go reads; `-1` as init pipe means not present.
    TextLevel,
    /// Since 1.1: the level is a number, and no number is negative.
    Numbers,
}

/// The keys of the line with the two pids.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PidLine {
    /// `{"stage1_pid":A,"stage2_pid":B}`, since 1.0.0-rc94.
    Stages,
    /// `{"pid": B, "pid_first": A}`, before.
    PidAndFirst,
}

/// Who makes the cgroup namespace, and when.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum CgroupPlacement {
    /// Stage 1, with the other namespaces.
    WithOthers,
    /// Stage 2, after it read the byte 0x80 from the init pipe: by then the launcher has put it into its
    /// cgroup.
    Stage2AfterByte,
    /// Stage 2, without asking.
    Stage2,
}

/// Where a fatal text goes when there is no log pipe.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum FatalWithoutLog {
    /// To standard error, as `FATAL: TEXT`.
    Fatal,
    /// Nowhere (seen with 1.0.3).
    Nowhere,
    /// To standard error, as `nsenter: TEXT: ERROR`.
    Nsenter,
}

/// The launcher's word that stage 2 is in its cgroup ([`CgroupPlacement::Stage2AfterByte`]). Spec 2.3.
pub const CGROUP_BYTE: u8 = 0x80;

impl Dialect {
    /// The commit of 2018 that the rewrite started from: no log pipe, the pid line last.
    pub const SEED: Self = Self {
        name: "seed",
        attribute_27290: Attribute27290::Unknown,
        namespaces: NsSet::ALL.without(NsKind::Time),
        environment: EnvironmentForm::InitOnly,
        ready_byte: false,
        cloned_binary: false,
        pid_line: PidLine::PidAndFirst,
        pid_line_late: true,
        cgroup_namespace: CgroupPlacement::WithOthers,
        failure_over_sync: true,
        affinity_logged: false,
        fatal_without_log: FatalWithoutLog::Nsenter,
        unshare_remaining_text: "unshare remaining namespaces",
        awaiting_maps_text: "request stage-0 to map user namespace",
        setns_result_logged: false,
    };

    /// 1.0.0-rc94 to 1.0.3.
    pub const V1_0: Self = Self {
        name: "v1_0",
        environment: EnvironmentForm::TextLevel,
        ready_byte: true,
        cloned_binary: true,
        pid_line: PidLine::Stages,
        pid_line_late: false,
        failure_over_sync: false,
        cgroup_namespace: CgroupPlacement::Stage2AfterByte,
        fatal_without_log: FatalWithoutLog::Nowhere,
        unshare_remaining_text: "unshare remaining namespace (except cgroupns)",
        ..Self::SEED
    };

    /// 1.1.0 to 1.1.15, as the last of them does it.
    pub const V1_1: Self = Self {
        name: "v1_1",
        attribute_27290: Attribute27290::MountSources,
        environment: EnvironmentForm::Numbers,
        cgroup_namespace: CgroupPlacement::Stage2,
        fatal_without_log: FatalWithoutLog::Fatal,
        unshare_remaining_text: "unshare remaining namespaces (except cgroupns)",
        awaiting_maps_text: "waiting stage-0 to complete the mapping of user namespace",
        ..Self::V1_0
    };

    /// 1.2.0 up to today, as today's does it.
    pub const V1_2: Self = Self {
        name: "v1_2",
        attribute_27290: Attribute27290::TimeOffsets,
        namespaces: NsSet::ALL,
        ready_byte: false,
        cloned_binary: false,
        cgroup_namespace: CgroupPlacement::WithOthers,
        affinity_logged: true,
        unshare_remaining_text: "unshare remaining namespaces",
        setns_result_logged: true,
        ..Self::V1_1
    };

    /// Every dialect, the oldest first.
    pub const ALL: [&'static Self; 4] = [&Self::SEED, &Self::V1_0, &Self::V1_1, &Self::V1_2];

    /// `seed`, `v1_0`, `v1_1` or `v1_2`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The dialect of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<&'static Self> {
        Self::ALL.into_iter().find(|dialect| dialect.name == name)
    }
}

impl Default for Dialect {
    /// Today's.
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
    fn every_dialect_is_found_by_its_name() {
        for dialect in Dialect::ALL {
            assert_eq!(Dialect::from_name(dialect.name()), Some(dialect));
        }
        assert_eq!(Dialect::from_name("v1_3"), None);
    }
}
