//! The types of the calls with which our own launcher sets the surroundings of its command. `types` exports
//! them.

use core::fmt;

use super::types::SysResult;

/// The attributes of a mount that mount_setattr(2) sets and clears, as `MOUNT_ATTR_*` bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct MountAttributes {
    /// The bits to set.
    pub set: u64,
    /// The bits to clear.
    pub clear: u64,
}

impl MountAttributes {
    /// `MOUNT_ATTR_RDONLY`: no file can be changed.
    pub const RDONLY: u64 = 0x1;
    /// `MOUNT_ATTR_NOSUID`: set-user-id bits and file capabilities have no effect.
    pub const NOSUID: u64 = 0x2;
    /// `MOUNT_ATTR_NODEV`: device files cannot be opened.
    pub const NODEV: u64 = 0x4;
    /// `MOUNT_ATTR_NOEXEC`: files cannot be executed.
    pub const NOEXEC: u64 = 0x8;
}

/// A kind of file system that can be mounted new, each with its flags.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum MountKind {
    /// `"tmpfs"`, `MS_NOSUID|MS_NODEV`: a file system in memory.
    Tmpfs,
    /// `"proc"`, `MS_NOSUID|MS_NODEV|MS_NOEXEC`: the processes of this pid namespace.
    Proc,
    /// `"sysfs"`, `MS_RDONLY|MS_NOSUID|MS_NODEV|MS_NOEXEC`: the devices of this network namespace.
    Sysfs,
    /// `"mqueue"`, `MS_NOSUID|MS_NODEV|MS_NOEXEC`: the POSIX message queues of this ipc namespace.
    Mqueue,
    /// `"devpts"`, `MS_NOSUID|MS_NOEXEC`: new pseudo-terminals.
    Devpts,
    /// `"overlay"`, `MS_NOSUID|MS_NODEV`: a writable layer over others (Linux 5.11 for unprivileged users).
    Overlay,
}

/// Code of the caller, for [`Sys::run_hook`](super::Sys::run_hook).
#[derive(Clone, Copy)]
pub struct Hook<'a> {
    /// The number of the hook in its launch, from 0 on.
    pub number: u32,
    /// The code.
    pub code: &'a (dyn Fn() -> SysResult<()> + Send + Sync),
}

impl fmt::Debug for Hook<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hook").field("number", &self.number).finish_non_exhaustive()
    }
}
