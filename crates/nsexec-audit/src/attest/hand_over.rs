//! The wait of the new process for the reading of its state.

use std::collections::BTreeMap;
use std::io::{self, IoSliceMut, Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::string::String;
use std::vec::Vec;

use nix::cmsg_space;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, UnixCredentials, recvmsg, setsockopt, sockopt::PassCred,
};

use nsexec::launch::duplicate_above;

use super::{Attestation, FileId, State, read};

/// The end of the new process.
pub(super) struct Waiting(UnixStream);

/// The end of the thread that reads the state.
pub(super) struct Reader(UnixStream);

/// Returns two connected ends. The number of the first one is at least `least`.
pub(super) fn pair(least: i32) -> io::Result<(Waiting, Reader)> {
    let (one, other) = UnixStream::pair()?;
    let one = UnixStream::from(duplicate_above(&one.into(), least)?);
    // With each byte comes the pid of its sender, in this pid namespace (unix(7), SO_PASSCRED).
    setsockopt(&other, PassCred, &true)?;
    Ok((Waiting(one), Reader(other)))
}

impl Waiting {
    /// Reports that the process has come to its last step, and waits until its state has been read.
    ///
    /// Runs in the new process: it makes one write(2) and one read(2).
    pub(super) fn wait(&self) -> io::Result<()> {
        (&self.0).write_all(&[1])?;
        (&self.0).read_exact(&mut [0])
    }

    /// Ends the connection, also for copies of the two ends in other processes.
    pub(super) fn hang_up(&self) {
        // ENOTCONN: the other side has ended it.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

impl Reader {
    /// Waits for the new process, reads its state, and lets it continue. `directory`: the absolute path of
    /// its working directory, if it is set.
    pub(super) fn attest(
        self,
        joined: BTreeMap<String, FileId>,
        directory: Option<String>,
    ) -> io::Result<Attestation> {
        let attested = self.read(joined, directory);
        if attested.is_err() {
            // The process has a copy of this end, so it would wait for itself.
            let _ = self.0.shutdown(Shutdown::Both);
        }
        attested
    }

    fn read(&self, joined: BTreeMap<String, FileId>, directory: Option<String>) -> io::Result<Attestation> {
        let Some(pid) = self.sender()? else {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the process did not come to its last step",
            ));
        };
        let found = State::of(pid)?;
        let set_directory = match directory {
            Some(path) => {
                let id = read::below_root(pid, &path)?;
                Some((path, id))
            }
            None => None,
        };
        let attestation = Attestation { found, caller: State::here()?, joined, set_directory };
        (&self.0).write_all(&[1])?;
        Ok(attestation)
    }

    /// Waits for the byte of the process. Returns its pid, or `None` at the end of the file.
    fn sender(&self) -> io::Result<Option<i32>> {
        let mut byte = [0];
        let mut buffers = [IoSliceMut::new(&mut byte)];
        let mut space: Vec<u8> = cmsg_space!(UnixCredentials);
        let message =
            recvmsg::<()>(self.0.as_raw_fd(), &mut buffers, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
        if message.bytes == 0 {
            return Ok(None);
        }
        let pid = message.cmsgs()?.find_map(|control| match control {
            ControlMessageOwned::ScmCredentials(sender) => Some(sender.pid()),
            _ => None,
        });
        match pid {
            Some(pid) if pid > 0 => Ok(Some(pid)),
            _ => Err(io::Error::other("the process has no pid in this pid namespace")),
        }
    }
}
