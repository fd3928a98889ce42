//! The numbers and layouts of the calls for the surroundings of the command, which only our own launcher
//! makes.

use core::ffi::{CStr, c_char, c_int, c_short, c_uint, c_ulong};
use core::mem::{align_of, offset_of, size_of};

use crate::sys::types::{BpfInstruction, MountKind};

/// `_LINUX_CAPABILITY_VERSION_3` (capget(2)): sets of 64 bits. The libc crate does not define it.
pub(super) const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

/// `KEYCTL_JOIN_SESSION_KEYRING` (keyctl(2)). The libc crate does not define it for every libc.
pub(super) const JOIN_SESSION_KEYRING: c_int = 1;

/// The source is the descriptor itself (move_mount(2)). The libc crate does not define it for every libc.
pub(super) const MOVE_MOUNT_F_EMPTY_PATH: c_uint = 0x4;

/// The target is the descriptor itself (move_mount(2)).
pub(super) const MOVE_MOUNT_T_EMPTY_PATH: c_uint = 0x40;

const _: () = {
    assert!(size_of::<BpfInstruction>() == size_of::<libc::sock_filter>());
    assert!(align_of::<BpfInstruction>() == align_of::<libc::sock_filter>());
    assert!(offset_of!(BpfInstruction, jt) == offset_of!(libc::sock_filter, jt));
    assert!(offset_of!(BpfInstruction, jf) == offset_of!(libc::sock_filter, jf));
    assert!(offset_of!(BpfInstruction, k) == offset_of!(libc::sock_filter, k));
};

/// The kernel's `struct ifreq` with the flags of an interface (netdevice(7)). In the libc crate it has a
/// union.
#[repr(C)]
pub(super) struct KernelIfreq {
    name: [c_char; libc::IFNAMSIZ],
    flags: c_short,
    rest: [u8; 22],
}

const _: () = {
    assert!(size_of::<KernelIfreq>() == size_of::<libc::ifreq>());
    assert!(offset_of!(KernelIfreq, flags) == offset_of!(libc::ifreq, ifr_ifru));
};

impl KernelIfreq {
    /// The request that turns the interface "lo" on.
    pub(super) const fn loopback_up() -> Self {
        let mut name = [0; libc::IFNAMSIZ];
        name[0] = b'l' as c_char;
        name[1] = b'o' as c_char;
        Self { name, flags: (libc::IFF_UP | libc::IFF_RUNNING) as c_short, rest: [0; 22] }
    }
}

/// Returns `AT_RECURSIVE`, or no flag.
pub(super) const fn at_recursive(recursive: bool) -> c_uint {
    if recursive { libc::AT_RECURSIVE as c_uint } else { 0 }
}

/// `OPEN_TREE_CLONE|OPEN_TREE_CLOEXEC` (open_tree(2)).
pub(super) const OPEN_TREE: c_uint = 0x1 | libc::O_CLOEXEC as c_int as c_uint;

/// Returns the name of a file system, and the flags that it is mounted with.
pub(super) const fn mount_kind(kind: MountKind) -> (&'static CStr, c_ulong) {
    let (nosuid, nodev, noexec) = (libc::MS_NOSUID, libc::MS_NODEV, libc::MS_NOEXEC);
    let flags = match kind {
        MountKind::Tmpfs | MountKind::Overlay => nosuid | nodev,
        MountKind::Proc | MountKind::Mqueue => nosuid | nodev | noexec,
        MountKind::Sysfs => libc::MS_RDONLY | nosuid | nodev | noexec,
        MountKind::Devpts => nosuid | noexec,
    };
    (kind.name(), flags)
}
