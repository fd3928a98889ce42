//! The dialects of the older release lines, and their differences from the latest one
//! (`docs/protocol.md#dialects`).

use crate::deciders::bootstrap::attribute::Attribute;
use crate::deciders::bootstrap::dialect::{Dialect, PidLine};
use crate::deciders::namespace::{NsKind, NsSet};

/// The differences of a dialect from the latest release line that need code for that dialect.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub struct Differences {
    /// How the environment is read (`docs/protocol.md#environment`).
    pub environment: EnvironmentForm,
    /// Whether stage 0 sends a byte 0x00 over the init pipe before it reads the message. A launcher that does
    /// not expect the byte fails in its JSON decoder; one that expects it waits for it.
    pub ready_byte: bool,
    /// Whether stage 0 copies its own binary into a sealed file and executes that, before the ready byte
    /// (CVE-2019-5736). Since 1.2 the Go code of runc does this.
    pub cloned_binary: bool,
    /// Which stage creates the cgroup namespace, and when (`docs/protocol.md#the-cgroup-namespace`).
    pub cgroup_namespace: CgroupPlacement,
    /// Whether a failing stage reports its failure to stage 0 over its sync pipe. Stage 0 then exits with
    /// that status and reports nothing. Otherwise stage 0 detects the death of the stage and reports that.
    pub failure_over_sync: bool,
    /// The text before a fatal text on standard error, where it is written without a log pipe. `None`: it is
    /// not written (observed with 1.0.3). See `docs/protocol.md#log-records`.
    pub fatal_without_log: Option<&'static str>,
}

impl Differences {
    /// The latest release line.
    pub const NONE: Self = Self {
        environment: EnvironmentForm::Numbers,
        ready_byte: false,
        cloned_binary: false,
        cgroup_namespace: CgroupPlacement::WithOthers,
        failure_over_sync: false,
        fatal_without_log: Some("FATAL: "),
    };
}

/// How the environment is read.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum EnvironmentForm {
    /// The seed: only the init pipe is read; `-1` means absent.
    InitOnly,
    /// 1.0: the log pipe is read too, but its level is a text that only Go reads. The value `-1` for the
    /// init pipe means that there is no init pipe.
    TextLevel,
    /// Since 1.1: the level is a number, and negative numbers are refused.
    Numbers,
}

/// The stage that creates the cgroup namespace, and when.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum CgroupPlacement {
    /// Stage 1, with the other namespaces.
    WithOthers,
    /// Stage 2, after it has read the byte 0x80 from the init pipe. By then the launcher has moved it into
    /// its cgroup.
    Stage2AfterByte,
    /// Stage 2, without waiting for a byte.
    Stage2,
}

/// The byte that the launcher sends when stage 2 is in its cgroup ([`CgroupPlacement::Stage2AfterByte`]).
pub const CGROUP_BYTE: u8 = 0x80;

/// The ready byte. A launcher of 1.0 or 1.1 reads it before the pid line, and expects no other byte in
/// between.
pub const READY: u8 = 0;

impl Dialect {
    /// The commit of 2018 on which the rewrite is based: no log pipe, the pid line last.
    pub const SEED: Self = Self {
        name: "seed",
        attribute_27290: None,
        namespaces: NsSet::ALL.without(NsKind::Time),
        pid_line: PidLine::PidAndFirst,
        affinity_logged: false,
        unshare_remaining_text: "unshare remaining namespaces",
        awaiting_maps_text: "request stage-0 to map user namespace",
        setns_result_logged: false,
        legacy: Differences {
            environment: EnvironmentForm::InitOnly,
            failure_over_sync: true,
            fatal_without_log: Some("nsenter: "),
            ..Differences::NONE
        },
    };

    /// 1.0.0-rc94 to 1.0.3.
    pub const V1_0: Self = Self {
        name: "v1_0",
        pid_line: PidLine::Stages,
        unshare_remaining_text: "unshare remaining namespace (except cgroupns)",
        legacy: Differences {
            environment: EnvironmentForm::TextLevel,
            ready_byte: true,
            cloned_binary: true,
            cgroup_namespace: CgroupPlacement::Stage2AfterByte,
            failure_over_sync: false,
            fatal_without_log: None,
        },
        ..Self::SEED
    };

    /// 1.1.0 to 1.1.15, with the behaviour of 1.1.15.
    pub const V1_1: Self = Self {
        name: "v1_1",
        attribute_27290: Some(Attribute::MountSources),
        unshare_remaining_text: "unshare remaining namespaces (except cgroupns)",
        awaiting_maps_text: Self::V1_2.awaiting_maps_text,
        legacy: Differences {
            ready_byte: true,
            cloned_binary: true,
            cgroup_namespace: CgroupPlacement::Stage2,
            ..Differences::NONE
        },
        ..Self::V1_0
    };

    /// Returns whether stage 0 sends the pid line at the very end, after stage 2 is ready. Otherwise it sends
    /// the line as soon as stage 1 requests it.
    #[must_use]
    pub const fn sends_pid_line_late(&self) -> bool {
        matches!(self.pid_line, PidLine::PidAndFirst)
    }
}
