//! One thing that goes wrong in a run.

use super::process::{Section, Who};
use crate::record::Call;
use nsexec::sys::types::Errno;

/// A place in a run: a process, and the number of a line of its transcript, from 0.
///
/// The number of lines is a place too: after the last call, where the process would end.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Place {
    /// Which process.
    pub who: Who,
    /// Which of its lines.
    pub line: usize,
}

/// What goes wrong there, once.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum What {
    /// The call fails with this errno and has no effect. A close frees its descriptor all the same (close(2)); getpid
    /// and gettid cannot fail, and do not.
    Errno(Errno),
    /// A read or a write is cut to so many bytes, if it would have been longer.
    Short(usize),
    /// SIGKILL before the call.
    Kill,
    /// SIGKILL while it waits in the call, just when it could have gone on. Never happens at a call that does not wait.
    KillWaking,
    /// SIGKILL before the call to the first process that plays this part, which may be another one; and it stays half-way in
    /// its exit until no other process can run: its files in /proc are root's, its descriptors are still open. Never happens if
    /// there is no such process, or if it has ended.
    KillDying(Section),
    /// SIGSTOP before the call. When no process can go on without a time limit that passes, this happens.
    Stop(Then),
}

/// What happens after a process was stopped, when no other can go on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Then {
    /// SIGTERM comes to the launcher, and SIGCONT with it if the launcher is the stopped one.
    Interrupt,
    /// SIGKILL comes to the launcher.
    KillLauncher,
}

/// A fault.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Fault {
    /// Where.
    pub at: Place,
    /// What.
    pub what: What,
}

impl core::fmt::Display for Fault {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Place { who, line } = self.at;
        match self.what {
            What::Errno(errno) => {
                write!(f, "{} at line {line} of {who}", errno.name().unwrap_or("an unknown errno"))
            }
            What::Short(len) => write!(f, "short ({len} bytes) at line {line} of {who}"),
            What::Kill => write!(f, "SIGKILL before line {line} of {who}"),
            What::KillDying(victim) => {
                write!(
                    f,
                    "SIGKILL of {} before line {line} of {who}, which it is slow to obey",
                    victim.name()
                )
            }
            What::KillWaking => write!(f, "SIGKILL while waiting in line {line} of {who}"),
            What::Stop(Then::Interrupt) => {
                write!(f, "SIGSTOP before line {line} of {who}, then SIGTERM to the launcher")
            }
            What::Stop(Then::KillLauncher) => {
                write!(f, "SIGSTOP before line {line} of {who}, then SIGKILL to the launcher")
            }
        }
    }
}

/// The call cut to `len` bytes, or `None` if it is not one of bytes, or shorter anyway.
pub(super) fn shortened(call: &Call, len: usize) -> Option<Call> {
    let mut call = call.clone();
    match &mut call {
        Call::Read { len: wanted, .. } | Call::Sendfile { len: wanted, .. } if *wanted > len => {
            *wanted = len;
        }
        Call::Write { data, .. } | Call::WriteNowait { data, .. } | Call::Send { data, .. }
            if data.0.len() > len =>
        {
            data.0.truncate(len);
        }
        _ => return None,
    }
    Some(call)
}
