//! A single fault in a run.

use std::format;
use std::string::ToString;

use crate::record::Call;
use crate::transcript::Role;
use nsexec::sys::types::Errno;

/// A place in a run: a process, and the number of a line of its transcript, from 0.
///
/// The number of lines itself is a place too: after the last call, where the process would end.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Place {
    /// The process.
    pub role: Role,
    /// The number of the line.
    pub line: usize,
}

/// The kind of a fault, which happens once.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum FaultKind {
    /// The call fails with this errno and has no effect. But a close still frees its descriptor (close(2)),
    /// and getpid and gettid, which cannot fail, succeed.
    Errno(Errno),
    /// A read or a write is cut to this number of bytes, if it would have been longer.
    Short(usize),
    /// SIGKILL before the call.
    Kill,
    /// SIGKILL while the process is blocked in the call, at the moment when it could continue. Never happens
    /// at a call that does not block.
    KillWaking,
    /// Before the call, SIGKILL to the process with this role, which may be another process. The victim
    /// stays halfway in its exit until no other process can run: its files in /proc belong to root, and its
    /// descriptors are still open. Never happens if the victim does not exist or has ended.
    KillDying(Role),
    /// SIGSTOP before the call. The reaction follows when no process can run unless a timeout passes.
    Stop(StopReaction),
}

/// The reaction to a stopped process, when no other process can run.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum StopReaction {
    /// The launcher receives SIGTERM, and also SIGCONT if it is the stopped process.
    Interrupt,
    /// The launcher receives SIGKILL.
    KillLauncher,
}

/// A fault, and where it happens.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Fault {
    /// The place.
    pub at: Place,
    /// The kind.
    pub what: FaultKind,
}

impl core::fmt::Display for Fault {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Place { role, line } = self.at;
        // The role's own text does not distinguish the two mapping tools.
        let role = match role {
            Role::Tool(number @ 1..) => format!("{role} (no. {})", u16::from(number) + 1),
            _ => role.to_string(),
        };
        match self.what {
            FaultKind::Errno(errno) => {
                write!(f, "{} at line {line} of {role}", errno.name().unwrap_or("an unknown errno"))
            }
            FaultKind::Short(len) => write!(f, "short ({len} bytes) at line {line} of {role}"),
            FaultKind::Kill => write!(f, "SIGKILL before line {line} of {role}"),
            FaultKind::KillDying(victim) => {
                write!(
                    f,
                    "SIGKILL of {victim} before line {line} of {role}; the victim stays halfway in its exit"
                )
            }
            FaultKind::KillWaking => write!(f, "SIGKILL while waiting in line {line} of {role}"),
            FaultKind::Stop(StopReaction::Interrupt) => {
                write!(f, "SIGSTOP before line {line} of {role}, then SIGTERM to the launcher")
            }
            FaultKind::Stop(StopReaction::KillLauncher) => {
                write!(f, "SIGSTOP before line {line} of {role}, then SIGKILL to the launcher")
            }
        }
    }
}

/// Returns the call cut to `len` bytes. `None` if the call transfers no bytes, or at most `len`.
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
