//! Complete reads and sends over a pipe or socket: the loops around the single calls of [`Sys`].
//!
//! runc's C code calls read and write once, and fails on `EINTR` or a short count. These functions continue.

use crate::sys::Sys;
use crate::sys::types::{Errno, Fd, PollEvents, PollFd, SysResult};

/// Repeats a call that a signal interrupted (`EINTR`).
///
/// # Errors
/// Every other errno of the call.
pub fn uninterrupted<S: Sys, T>(sys: &mut S, mut call: impl FnMut(&mut S) -> SysResult<T>) -> SysResult<T> {
    loop {
        match call(sys) {
            Err(Errno::EINTR) => {}
            result => return result,
        }
    }
}

/// Repeats a call that a signal interrupted (`EINTR`), or that would block (`EAGAIN`): a program that uses
/// libcontainer may have made `fd` non-blocking. After `EAGAIN` first waits for `events`.
///
/// # Errors
/// Every other errno of the call, or the errno of the poll.
pub(crate) fn completed<S: Sys, T>(
    sys: &mut S,
    fd: Fd,
    events: PollEvents,
    mut call: impl FnMut(&mut S) -> SysResult<T>,
) -> SysResult<T> {
    loop {
        match uninterrupted(sys, &mut call) {
            Err(Errno::EAGAIN) => wait_for(sys, fd, events)?,
            result => return result,
        }
    }
}

/// Fills `buf` from `fd`. Returns the number of bytes read, which is smaller than the length of `buf` only at
/// the end of file.
///
/// A peer that died with unread bytes causes `ECONNRESET` instead of an end of file. Both are treated as the
/// end of file.
///
/// # Errors
/// The errno of the read, or of the poll that waits for a non-blocking descriptor.
pub fn read_full<S: Sys>(sys: &mut S, fd: Fd, buf: &mut [u8]) -> Result<usize, Errno> {
    let mut got: usize = 0;
    while let Some(rest) = buf.get_mut(got..).filter(|rest| !rest.is_empty()) {
        match completed(sys, fd, PollEvents::IN, |sys| sys.read(fd, rest)) {
            Ok(0) | Err(Errno::ECONNRESET) => break,
            Ok(count) => got = got.saturating_add(count),
            Err(errno) => return Err(errno),
        }
    }
    Ok(got)
}

/// Sends all of `bytes` to `fd`, without SIGPIPE if it is a socket.
///
/// # Errors
/// The errno of the send or write; `EPIPE` if the peer is dead.
pub fn send_all<S: Sys>(sys: &mut S, fd: Fd, bytes: &[u8]) -> Result<(), Errno> {
    let mut rest = bytes;
    let mut socket = true;
    while !rest.is_empty() {
        let sent = completed(sys, fd, PollEvents::OUT, |sys| match socket {
            true => sys.send(fd, rest),
            false => sys.write(fd, rest),
        });
        match sent {
            Ok(count) => rest = rest.get(count..).unwrap_or_default(),
            // Some launchers pass a pipe. SIGPIPE is blocked, so write(2) is equivalent.
            Err(Errno::ENOTSOCK) if socket => socket = false,
            // The peer is dead, as in [`read_full`].
            Err(Errno::ECONNRESET) => return Err(Errno::EPIPE),
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn wait_for<S: Sys>(sys: &mut S, fd: Fd, events: PollEvents) -> Result<(), Errno> {
    match sys.poll(&mut [PollFd::new(fd, events)], -1) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::MockSys;
    use mockall::Sequence;

    #[test]
    fn read_continues_after_eintr_short_counts_and_eagain() {
        let mut sys = MockSys::new();
        let mut order = Sequence::new();
        sys.expect_read().once().in_sequence(&mut order).returning(|_, _| Err(Errno::EINTR));
        sys.expect_read().once().in_sequence(&mut order).returning(|_, buf| {
            buf[0] = 7;
            Ok(1)
        });
        sys.expect_read().once().in_sequence(&mut order).returning(|_, _| Err(Errno::EAGAIN));
        sys.expect_poll().once().in_sequence(&mut order).returning(|_, _| Ok(1));
        sys.expect_read().once().in_sequence(&mut order).returning(|_, buf| {
            assert_eq!(buf.len(), 3);
            buf.fill(8);
            Ok(3)
        });
        let mut buf = [0; 4];
        assert_eq!(read_full(&mut sys, Fd(3), &mut buf), Ok(4));
        assert_eq!(buf, [7, 8, 8, 8]);
    }

    #[test]
    fn connection_reset_is_an_end_of_file() {
        let mut sys = MockSys::new();
        sys.expect_read().once().returning(|_, _| Err(Errno::ECONNRESET));
        assert_eq!(read_full(&mut sys, Fd(3), &mut [0; 4]), Ok(0));
    }

    #[test]
    fn send_falls_back_to_write_on_a_pipe() {
        let mut sys = MockSys::new();
        sys.expect_send().once().returning(|_, _| Err(Errno::ENOTSOCK));
        let mut order = Sequence::new();
        sys.expect_write().once().in_sequence(&mut order).returning(|_, _| Ok(2));
        sys.expect_write()
            .once()
            .in_sequence(&mut order)
            .withf(|_, rest| rest == b"c")
            .returning(|_, _| Ok(1));
        assert_eq!(send_all(&mut sys, Fd(3), b"abc"), Ok(()));
    }
}
