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

use crate::namespace::{NsKind, NsSet};

/// A protocol dialect: the behaviour of one of runc's release lines.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Dialect {
    name: &'static str,
    /// The meaning of attribute 27290.
    pub attribute_27290: Attribute27290,
    /// The kinds that `NS_PATHS` may contain: all, but `time` only since 1.2.
    pub namespaces: NsSet,
    /// How the environment is read (`docs/protocol.md#environment`).
    pub environment: EnvironmentForm,
    /// Whether stage 0 sends a byte 0x00 over the init pipe before it reads the message. A launcher that does
    /// not expect the byte fails in its JSON decoder; one that expects it waits for it.
    pub ready_byte: bool,
    /// Whether stage 0 copies its own binary into a sealed file and executes that, before the ready byte
    /// (CVE-2019-5736). Since 1.2 the Go half of runc does this.
    pub cloned_binary: bool,
    /// The keys of the pid line.
    pub pid_line: PidLine,
    /// Whether the pid line is sent at the very end, after stage 2 is ready. Otherwise it is sent as soon as
    /// stage 1 requests it.
    pub pid_line_late: bool,
    /// Which stage creates the cgroup namespace, and when (`docs/protocol.md#the-cgroup-namespace`).
    pub cgroup_namespace: CgroupPlacement,
    /// Whether a failing stage reports its failure to stage 0 over its sync pipe. Stage 0 then exits with
    /// that status and reports nothing. Otherwise stage 0 detects the death of the stage and reports that.
    pub failure_over_sync: bool,
    /// Whether the second record contains the CPU affinity (runc 1.3).
    pub affinity_logged: bool,
    /// Where a fatal text is written without a log pipe (`docs/protocol.md#log-records`).
    pub fatal_without_log: FatalWithoutLog,
    /// The debug text before the second `unshare`.
    pub unshare_remaining_text: &'static str,
    /// The debug text while stage 1 waits for its maps. Up to 1.0 this is the text of the request, logged a
    /// second time.
    pub awaiting_maps_text: &'static str,
    /// Whether the debug text of a `setns` ends with its result, such as `: Success` (runc 1.3).
    pub setns_result_logged: bool,
}

/// The meaning of attribute 27290, a number that runc has used for two attributes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Attribute27290 {
    /// Unknown, up to 1.0.
    Unknown,
    /// Sources of bind mounts, in 1.1.
    MountSources,
    /// Offsets of a time namespace, since 1.2.
    TimeOffsets,
}

/// How the environment is read.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum EnvironmentForm {
    /// The seed: only the init pipe is read; `-1` means absent.
    InitOnly,
    /// 1.0: the log pipe is read too, but its level is a word that only Go reads. `-1` as init pipe means
    /// absent.
    TextLevel,
    /// Since 1.1: the level is a number, and negative numbers are refused.
    Numbers,
}

/// The keys of the line with the two pids.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PidLine {
    /// `{"stage1_pid":A,"stage2_pid":B}`, since 1.0.0-rc94.
    Stages,
    /// `{"pid": B, "pid_first": A}`, before 1.0.0-rc94.
    PidAndFirst,
}

/// The stage that creates the cgroup namespace, and when.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum CgroupPlacement {
    /// Stage 1, with the other namespaces.
    WithOthers,
    /// Stage 2, after it has read the byte 0x80 from the init pipe. By then the launcher has moved it into
    /// its cgroup.
    Stage2AfterByte,
    /// Stage 2, without waiting for a byte.
    Stage2,
}

/// Where a fatal text is written without a log pipe.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum FatalWithoutLog {
    /// To standard error, as `FATAL: TEXT`.
    Fatal,
    /// Nowhere (observed with 1.0.3).
    Nowhere,
    /// To standard error, as `nsenter: TEXT: ERROR`.
    Nsenter,
}

/// The byte that the launcher sends when stage 2 is in its cgroup ([`CgroupPlacement::Stage2AfterByte`]).
pub const CGROUP_BYTE: u8 = 0x80;

impl Dialect {
    /// The commit of 2018 on which the rewrite is based: no log pipe, the pid line last.
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

    /// 1.1.0 to 1.1.15, with the behaviour of 1.1.15.
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

    /// 1.2.0 and later, with the behaviour of the latest release.
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

    /// Returns the dialect's name: `seed`, `v1_0`, `v1_1` or `v1_2`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Returns the dialect with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<&'static Self> {
        Self::ALL.into_iter().find(|dialect| dialect.name == name)
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
        for dialect in Dialect::ALL {
            assert_eq!(Dialect::from_name(dialect.name()), Some(dialect));
        }
        assert_eq!(Dialect::from_name("v1_3"), None);
    }
}
