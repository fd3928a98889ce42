//! Sets the close-on-exec flags of all descriptors, in the mapping tool's process and in the first process of
//! our own launcher; lists the open descriptors.

use core::ffi::CStr;

use crate::scripts::procfs;
use crate::sys::Sys;
use crate::sys::types::{Errno, Fd, OpenFlags};

/// The first descriptor that is not standard input, output or error.
pub const FIRST: Fd = Fd(3);

/// Marks every descriptor from 3 up close-on-exec, in this process only.
///
/// Runs in the mapping tool's process and in the first process of our own launcher. If close_range(2) is
/// missing or refused, the numbers are read from /proc/self/fd. So the call must precede the join of a mount
/// namespace: the owner of a joined namespace controls its /proc.
///
/// # Errors
/// The error of the first call that fails. Some descriptors may already be marked.
pub fn close_on_exec<S: Sys>(sys: &mut S) -> Result<(), Errno> {
    match sys.close_range_cloexec(FIRST) {
        // Before Linux 5.11, or a seccomp filter that refuses the call.
        Err(Errno::ENOSYS | Errno::EINVAL | Errno::EPERM) => {}
        result => return result,
    }
    for_each(sys, |sys, fd| sys.set_cloexec(fd, true))
}

/// Calls `f` with each open descriptor from 3 up, except that of the list itself. `f` may close it.
///
/// Runs in the mapping tool's process and in the first process of our own launcher, before the join of a
/// mount namespace: it reads /proc/self/fd.
///
/// # Errors
/// The error of the first call that fails, or of `f`.
pub(crate) fn for_each<S: Sys>(
    sys: &mut S,
    mut f: impl FnMut(&mut S, Fd) -> Result<(), Errno>,
) -> Result<(), Errno> {
    let dir = procfs::open(sys, c"self/fd", OpenFlags::List)?;
    let mut buffer = [0; 1024];
    loop {
        let len = sys.getdents64(dir, &mut buffer)?;
        let entries = buffer.get(..len).unwrap_or_default();
        if entries.is_empty() {
            // close(2) frees the number also if it fails.
            let _ = sys.close(dir);
            return Ok(());
        }
        // The next call continues with the next higher number, even if these are closed by then.
        for fd in descriptors(entries).filter(|fd| *fd >= FIRST && *fd != dir) {
            f(sys, fd)?;
        }
    }
}

/// Returns the names of `linux_dirent64` records (getdents64(2)) that are numbers.
fn descriptors(mut entries: &[u8]) -> impl Iterator<Item = Fd> {
    const NAME: usize = 19;
    core::iter::from_fn(move || {
        let (low, high) = (*entries.get(16)?, *entries.get(17)?);
        let length = usize::from(u16::from_ne_bytes([low, high]));
        let (entry, rest) = entries.split_at_checked(length.max(NAME))?;
        entries = rest;
        let name = CStr::from_bytes_until_nul(entry.get(NAME..)?).ok()?;
        Some(name.to_str().ok().and_then(|name| name.parse().ok()).map(Fd))
    })
    .flatten()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::sys::MockSys;
    use mockall::Sequence;
    use std::vec::Vec;

    /// Returns one record of a list.
    pub(crate) fn entry(name: &str) -> Vec<u8> {
        let mut entry = std::vec![0; 16];
        let length = (19 + name.len() + 1).next_multiple_of(8);
        entry.extend(u16::try_from(length).unwrap().to_ne_bytes());
        entry.push(0);
        entry.extend(name.as_bytes());
        entry.resize(length, 0);
        entry
    }

    #[test]
    fn descriptors_are_marked_one_by_one_without_close_range() {
        let mut sys = MockSys::new();
        let mut order = Sequence::new();
        sys.expect_close_range_cloexec().once().returning(|_| Err(Errno::ENOSYS));
        sys.expect_openat().once().returning(|_, _, _| Ok(Fd(8)));
        sys.expect_openat2()
            .once()
            .withf(|dir, path, _| *dir == Fd(8) && path == c"self/fd")
            .returning(|_, _, _| Ok(Fd(9)));
        sys.expect_close().once().withf(|fd| *fd == Fd(8)).returning(|_| Ok(()));
        sys.expect_getdents64().once().in_sequence(&mut order).returning(|_, buffer| {
            let listing: Vec<u8> = [".", "..", "0", "2", "3", "17"].into_iter().flat_map(entry).collect();
            buffer[..listing.len()].copy_from_slice(&listing);
            Ok(listing.len())
        });
        sys.expect_getdents64().once().in_sequence(&mut order).returning(|_, _| Ok(0));
        sys.expect_set_cloexec().once().withf(|fd, on| *fd == Fd(3) && *on).returning(|_, _| Ok(()));
        sys.expect_set_cloexec().once().withf(|fd, on| *fd == Fd(17) && *on).returning(|_, _| Ok(()));
        sys.expect_close().once().withf(|fd| *fd == Fd(9)).returning(|_| Ok(()));
        assert_eq!(close_on_exec(&mut sys), Ok(()));
    }
}
