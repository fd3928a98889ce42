//! [`LaunchPolicy`]: the settings of a bootstrap that only our own launcher has.

use crate::deciders::policy::Policy;
use crate::sys::types::Propagation;

/// The descriptors above 2 that the command inherits. Close-on-exec descriptors are never inherited.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Descriptors {
    /// All descriptors of the launcher, as with unshare(1) and nsenter(1).
    All,
    /// Only the descriptors that were named to the launcher. The first process of a launch closes those that
    /// neither the launch nor the command uses.
    Named,
}

/// The part of a [`Policy`] that only our own launcher has.
#[derive(Clone, Copy, PartialEq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct LaunchPolicy {
    /// The propagation of mount events that is set in a new mount namespace before the command runs. `None`
    /// leaves it unchanged.
    pub propagation: Option<Propagation>,
    /// Whether a new /proc is mounted before the command runs.
    pub mount_proc: bool,
    /// Whether the command gets SIGKILL when the launcher's thread dies.
    pub kill_child: bool,
    /// Whether the kernel signals each stage when the launcher's thread dies (PR_SET_PDEATHSIG(2const)). So a
    /// stopped stage ends too. For our own launcher, whose thread lives until the command runs.
    #[cfg_attr(feature = "serde", serde(default))]
    pub ends_with_launcher: bool,
    /// The command's descriptors above 2. Only for our own launcher.
    #[cfg_attr(feature = "serde", serde(default = "all_descriptors"))]
    pub descriptors: Descriptors,
    /// Whether every process of a joined mount namespace is trusted. Then our own launcher need not run from
    /// a sealed copy (CVE-2019-5736, `cloned`). The drop-in ignores this: its parent has made the copy.
    #[cfg_attr(feature = "serde", serde(default))]
    pub trusted_mounts: bool,
    /// Whether every start goes through the three stages, as that of the drop-in does. Otherwise our own
    /// launcher decides ([`shape`](super::shape::shape())). A policy without this field is of an older
    /// program, which created the stages for every start. The drop-in ignores it.
    #[cfg_attr(feature = "serde", serde(default = "always_stages"))]
    pub stages: bool,
    /// Whether the process of a direct start always gets a copy of the launcher's memory. Otherwise it shares
    /// the memory up to its exec where that is possible ([`memory`](super::shape::memory)). A policy without
    /// this field is of an older program, which always copied it. The drop-in ignores it.
    #[cfg_attr(feature = "serde", serde(default = "always_copied"))]
    pub copied_memory: bool,
    /// The user id that the command gets right before its exec, if it is not that of the launch.
    #[cfg_attr(feature = "serde", serde(default))]
    pub uid: Option<u32>,
    /// The group id that the command gets right before its exec.
    #[cfg_attr(feature = "serde", serde(default))]
    pub gid: Option<u32>,
    /// Whether the command gets supplementary groups of its own right before its exec.
    #[cfg_attr(feature = "serde", serde(default))]
    pub groups: bool,
    /// Whether process 1 of the new pid namespace is a minimal init, whose child executes the command.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "core::ops::Not::not"))]
    pub init: bool,
    /// Whether this process itself becomes the command ([`Launcher::exec`](super::Launcher::exec)).
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "core::ops::Not::not"))]
    pub in_place: bool,
    /// Whether the process ends in place of its exec: its namespaces are mounted on files
    /// ([`Launcher::pin`](super::Launcher::pin)).
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "core::ops::Not::not"))]
    pub pins: bool,
}

impl LaunchPolicy {
    /// None of the settings, as for the drop-in.
    pub const NONE: Self = Self {
        propagation: None,
        mount_proc: false,
        kill_child: false,
        ends_with_launcher: false,
        descriptors: Descriptors::All,
        trusted_mounts: false,
        stages: false,
        copied_memory: false,
        uid: None,
        gid: None,
        groups: false,
        init: false,
        in_place: false,
        pins: false,
    };
}

impl LaunchPolicy {
    /// Returns whether the command gets ids or groups of its own.
    #[must_use]
    pub const fn changes_ids(&self) -> bool {
        self.uid.is_some() || self.gid.is_some() || self.groups
    }
}

/// The settings of [`LaunchPolicy`].
impl Policy {
    /// Returns the policy with this [`propagation`](LaunchPolicy::propagation).
    #[must_use]
    pub const fn with_propagation(mut self, propagation: Option<Propagation>) -> Self {
        self.launch.propagation = propagation;
        self
    }

    /// Returns the policy with this [`mount_proc`](LaunchPolicy::mount_proc).
    #[must_use]
    pub const fn with_mount_proc(mut self, mount_proc: bool) -> Self {
        self.launch.mount_proc = mount_proc;
        self
    }

    /// Returns the policy with this [`kill_child`](LaunchPolicy::kill_child).
    #[must_use]
    pub const fn with_kill_child(mut self, kill_child: bool) -> Self {
        self.launch.kill_child = kill_child;
        self
    }

    /// Returns the policy with this [`ends_with_launcher`](LaunchPolicy::ends_with_launcher).
    #[must_use]
    pub const fn with_ends_with_launcher(mut self, ends_with_launcher: bool) -> Self {
        self.launch.ends_with_launcher = ends_with_launcher;
        self
    }

    /// Returns the policy with this [`descriptors`](LaunchPolicy::descriptors).
    #[must_use]
    pub const fn with_descriptors(mut self, descriptors: Descriptors) -> Self {
        self.launch.descriptors = descriptors;
        self
    }

    /// Returns the policy with this [`stages`](LaunchPolicy::stages).
    #[must_use]
    pub const fn with_stages(mut self, stages: bool) -> Self {
        self.launch.stages = stages;
        self
    }

    /// Returns the policy with this [`copied_memory`](LaunchPolicy::copied_memory).
    #[must_use]
    pub const fn with_copied_memory(mut self, copied_memory: bool) -> Self {
        self.launch.copied_memory = copied_memory;
        self
    }

    /// Returns the policy with this [`trusted_mounts`](LaunchPolicy::trusted_mounts).
    #[must_use]
    pub const fn with_trusted_mounts(mut self, trusted_mounts: bool) -> Self {
        self.launch.trusted_mounts = trusted_mounts;
        self
    }
}

/// Returns the default for a record of an older program, which does not contain the descriptors.
#[cfg(feature = "serde")]
const fn all_descriptors() -> Descriptors {
    Descriptors::All
}

/// Returns the default for a record of an older program, which had no other shape of a start.
#[cfg(feature = "serde")]
const fn always_stages() -> bool {
    true
}

/// Returns the default for a record of an older program, which copied the memory for every start.
#[cfg(feature = "serde")]
const fn always_copied() -> bool {
    true
}
