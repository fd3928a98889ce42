//! The kernel's layouts of a message with one descriptor, for `send_fd` and `receive_fd` (feature `legacy`).

use core::ffi::c_int;
use core::mem::{offset_of, size_of};

use crate::sys::types::Fd;

/// The kernel's `struct user_msghdr` with one iovec and one control message. In the libc's structures the
/// width of two lengths differs.
#[repr(C)]
pub(super) struct KernelMsghdr {
    name: usize,
    name_len: c_int,
    iov: *mut libc::iovec,
    iov_len: usize,
    control: *mut KernelRights,
    control_len: usize,
    flags: c_int,
}

/// The kernel's `struct cmsghdr` followed by one descriptor.
#[repr(C)]
#[derive(Default)]
pub(super) struct KernelRights {
    len: usize,
    level: c_int,
    kind: c_int,
    fd: c_int,
}

/// `CMSG_LEN(sizeof(int))`. Not `CMSG_SPACE`, whose padding would leave room for a second descriptor.
const RIGHTS_LEN: usize = offset_of!(KernelRights, fd) + size_of::<c_int>();

const _: () = assert!(offset_of!(KernelRights, fd) == 16 && offset_of!(KernelMsghdr, control) == 32);

/// Returns an iovec over `bytes`.
pub(super) fn iovec(bytes: &mut [u8]) -> libc::iovec {
    libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() }
}

impl KernelRights {
    /// Returns an SCM_RIGHTS message (unix(7)) with `fd`.
    pub(super) fn of(fd: Fd) -> Self {
        Self { len: RIGHTS_LEN, level: libc::SOL_SOCKET, kind: libc::SCM_RIGHTS, fd: fd.0 }
    }
}

impl KernelMsghdr {
    /// Returns a message with this iovec and this control message, without an address.
    pub(super) fn new(iov: &mut libc::iovec, rights: &mut KernelRights) -> Self {
        Self { name: 0, name_len: 0, iov, iov_len: 1, control: rights, control_len: RIGHTS_LEN, flags: 0 }
    }

    /// Returns the descriptor that the kernel has written to `rights`, if any. The kernel reports how much of
    /// `rights` it filled.
    pub(super) fn carries(&self, rights: &KernelRights) -> Option<Fd> {
        let filled = self.control_len >= RIGHTS_LEN && rights.len >= RIGHTS_LEN;
        let is_fd = (rights.level, rights.kind) == (libc::SOL_SOCKET, libc::SCM_RIGHTS);
        (filled && is_fd).then_some(Fd(rights.fd))
    }

    /// Returns whether MSG_CTRUNC is set (recvmsg(2)).
    pub(super) fn is_truncated(&self) -> bool {
        self.flags & libc::MSG_CTRUNC != 0
    }
}
