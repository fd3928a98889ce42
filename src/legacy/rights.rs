//! Descriptors in messages between stages 0 and 1, for the mount sources of 1.1 (`SCM_RIGHTS`, unix(7)).

use super::errors::{Failure, Step};
use crate::scripts::pipe::completed;
use crate::scripts::sync::{End, OfChild, OfParent};
use crate::sys::Sys;
use crate::sys::types::{Errno, Fd, PollEvents, Received};
use crate::words::error::{Doing, Error};

/// Sends `fd` over `socket`, with one byte.
///
/// # Errors
/// The errno of the send; `EPIPE` if the peer is dead.
fn send_fd<S: Sys>(sys: &mut S, socket: Fd, fd: Fd) -> Result<(), Errno> {
    match completed(sys, socket, PollEvents::OUT, |sys| sys.send_fd(socket, fd)) {
        // A send of one byte is never partial.
        Ok(_) => Ok(()),
        Err(Errno::ECONNRESET) => Err(Errno::EPIPE),
        Err(errno) => Err(errno),
    }
}

/// Receives one byte and its descriptor from `socket`. A peer that died is reported as the end of file.
///
/// # Errors
/// The errno of the receive.
fn receive_fd<S: Sys>(sys: &mut S, socket: Fd) -> Result<Received, Errno> {
    match completed(sys, socket, PollEvents::IN, |sys| sys.receive_fd(socket)) {
        Err(Errno::ECONNRESET) => Ok(Received { byte: None, fd: None, truncated: false }),
        received => received,
    }
}

impl End<OfParent> {
    /// Sends a descriptor, which stays open here.
    ///
    /// # Errors
    /// `step`; `EPIPE` if the peer is dead; [`Error::LauncherGone`].
    pub fn send_fd<'m, S: Sys>(&self, sys: &mut S, fd: Fd, step: Step<'m>) -> Result<(), Error<'m>> {
        self.wait_for(sys, PollEvents::OUT, Doing::Legacy(step))?;
        send_fd(sys, self.fd(), fd).map_err(|errno| step.failed(errno))
    }
}

impl End<OfChild> {
    /// Receives exactly one descriptor. `number` is its target, for the error.
    ///
    /// # Errors
    /// [`Error::Short`] if the peer died, [`Failure::NoDescriptor`] if the peer sent anything but one
    /// descriptor, [`Error::LauncherGone`].
    pub fn receive_fd<'m, S: Sys>(&self, sys: &mut S, number: Fd) -> Result<Fd, Error<'m>> {
        let step = Step::ReceiveMountSource(number);
        let doing = Doing::Legacy(step);
        self.wait_for(sys, PollEvents::IN, doing)?;
        match receive_fd(sys, self.fd()).map_err(|errno| step.failed(errno))? {
            Received { byte: None, .. } => Err(Error::Short { doing, got: 0, want: 1 }),
            Received { fd: Some(fd), truncated: false, .. } => Ok(fd),
            Received { truncated, .. } => Err(Error::Legacy(Failure::NoDescriptor { number, truncated })),
        }
    }
}
