//! The numbers of the calls for the root file system of the command, which only our own launcher makes.

use core::ffi::{CStr, c_int, c_uint, c_ulong};

use crate::sys::types::MountKind;

/// The source is the descriptor itself (move_mount(2)). The libc crate does not define it for every libc.
pub(super) const MOVE_MOUNT_F_EMPTY_PATH: c_uint = 0x4;

/// The target is the descriptor itself (move_mount(2)).
pub(super) const MOVE_MOUNT_T_EMPTY_PATH: c_uint = 0x40;

/// Returns `AT_RECURSIVE`, or no flag.
pub(super) const fn at_recursive(recursive: bool) -> c_uint {
    if recursive { libc::AT_RECURSIVE as c_uint } else { 0 }
}

/// `OPEN_TREE_CLONE|OPEN_TREE_CLOEXEC` (open_tree(2)).
pub(super) const OPEN_TREE: c_uint = 0x1 | libc::O_CLOEXEC as c_int as c_uint;

/// Returns the name of a file system, and the flags that it is mounted with.
pub(super) const fn mount_kind(kind: MountKind) -> (&'static CStr, c_ulong) {
    let (nosuid, nodev, noexec) = (libc::MS_NOSUID, libc::MS_NODEV, libc::MS_NOEXEC);
    match kind {
        MountKind::Tmpfs => (c"tmpfs", nosuid | nodev),
        MountKind::Proc => (c"proc", nosuid | nodev | noexec),
        MountKind::Sysfs => (c"sysfs", libc::MS_RDONLY | nosuid | nodev | noexec),
        MountKind::Mqueue => (c"mqueue", nosuid | nodev | noexec),
        MountKind::Devpts => (c"devpts", nosuid | noexec),
        MountKind::Overlay => (c"overlay", nosuid | nodev),
    }
}
