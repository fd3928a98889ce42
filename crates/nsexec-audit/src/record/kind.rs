//! The kinds of replies, by their words in the [table](super::table) of calls.
//!
//! A kind says what the method of `Sys` returns, and which replies a call admits. The argument that a row has
//! in parentheses after the kind limits the reply: with `Count(data)`, at most as many bytes as `data` has.

use std::vec::Vec;

use super::{Bytes, Reply};
use nsexec::sys::types::{self, Errno, Fork, PollFd, SigAction, SignalSet, SysResult};

/// A kind of reply.
pub trait Kind {
    /// The type that the method returns.
    type Output;

    /// Returns whether the call can have this reply. `limit` is the size of the argument in parentheses.
    fn admits(reply: &Reply, limit: usize) -> bool;
}

/// A kind whose reply has the whole result of the method, so that one can be computed from the other.
pub(super) trait Convert: Kind {
    /// The result of a successful call.
    type Value;

    /// Returns the reply with this result.
    fn reply(value: &Self::Value) -> Reply;

    /// Returns the result, or the reply if it is of another kind.
    fn value(reply: Reply) -> Result<Self::Value, Reply>;
}

/// Defines kinds that have the name of a variant of [`Reply`] with one value. The call can fail.
macro_rules! one_value {
    ($($(#[$doc:meta])* $kind:ident($type:ty) if |$value:ident, $limit:ident| $fits:expr;)+) => { $(
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $kind;

        impl Kind for $kind {
            type Output = SysResult<$type>;

            fn admits(reply: &Reply, $limit: usize) -> bool {
                match reply {
                    Reply::$kind($value) => $fits,
                    reply => matches!(reply, Reply::Errno(_)),
                }
            }
        }

        impl Convert for $kind {
            type Value = $type;

            fn reply(value: &$type) -> Reply {
                Reply::$kind(*value)
            }

            fn value(reply: Reply) -> Result<$type, Reply> {
                match reply {
                    Reply::$kind(value) => Ok(value),
                    other => Err(other),
                }
            }
        }
    )+ };
}

one_value! {
    /// A new descriptor.
    Fd(types::Fd) if |_value, _limit| true;
    /// The number of bytes transferred, at most the size of the argument in parentheses.
    Count(usize) if |count, limit| *count <= limit;
    /// A received byte with its descriptor. At the end of the file there is neither.
    Received(types::Received) if |received, _limit| {
        received.byte.is_some() || received.fd.is_none() && !received.truncated
    };
    /// The type of a file system.
    FsType(types::FsType) if |_value, _limit| true;
    /// The type of a socket.
    SocketType(types::SocketType) if |_value, _limit| true;
    /// A number of links.
    Links(u64) if |_value, _limit| true;
    /// The seals of a file.
    Seals(types::Seals) if |_value, _limit| true;
    /// Whether a file system is mounted read-only.
    ReadOnly(bool) if |_value, _limit| true;
    /// A child that has changed its state.
    Waited(types::Waited) if |_value, _limit| true;
    /// The place of the cached thread id.
    TidAddress(types::TidAddress) if |_value, _limit| true;
    /// The affinity to the first 64 CPUs.
    Affinity(u64) if |_value, _limit| true;
    /// The previous signal mask.
    Mask(SignalSet) if |_value, _limit| true;
    /// The previous disposition of a signal.
    Action(SigAction) if |_value, _limit| true;
    /// The previous mask of permissions.
    Permissions(u32) if |_value, _limit| true;
    /// The signal that ended a wait.
    Sent(types::SentSignal) if |_value, _limit| true;
    /// The pending signal that was removed.
    Signal(types::Signal) if |_value, _limit| true;
}

/// Success without a value. The argument in parentheses is the number that a successful call returns.
#[derive(Debug)]
pub struct Unit;

impl Kind for Unit {
    type Output = SysResult<()>;

    fn admits(reply: &Reply, _limit: usize) -> bool {
        matches!(reply, Reply::Unit | Reply::Errno(_))
    }
}

impl Convert for Unit {
    type Value = ();

    fn reply((): &()) -> Reply {
        Reply::Unit
    }

    fn value(reply: Reply) -> Result<(), Reply> {
        if reply == Reply::Unit { Ok(()) } else { Err(reply) }
    }
}

/// Success with a number that is not recorded: the session of setsid, the new keyring of keyctl.
#[derive(Debug)]
pub struct Unrecorded;

impl Kind for Unrecorded {
    type Output = SysResult<()>;

    fn admits(reply: &Reply, limit: usize) -> bool {
        Unit::admits(reply, limit)
    }
}

impl Convert for Unrecorded {
    type Value = ();

    fn reply(value: &()) -> Reply {
        Unit::reply(value)
    }

    fn value(reply: Reply) -> Result<(), Reply> {
        Unit::value(reply)
    }
}

/// Two new descriptors.
#[derive(Debug)]
pub struct Pair;

impl Kind for Pair {
    type Output = SysResult<(types::Fd, types::Fd)>;

    fn admits(reply: &Reply, _limit: usize) -> bool {
        matches!(reply, Reply::Pair(..) | Reply::Errno(_))
    }
}

impl Convert for Pair {
    type Value = (types::Fd, types::Fd);

    fn reply((one, other): &Self::Value) -> Reply {
        Reply::Pair(*one, *other)
    }

    fn value(reply: Reply) -> Result<Self::Value, Reply> {
        match reply {
            Reply::Pair(one, other) => Ok((one, other)),
            other => Err(other),
        }
    }
}

/// One byte was sent, or none.
#[derive(Debug)]
pub struct OneByte;

impl Kind for OneByte {
    type Output = SysResult<usize>;

    fn admits(reply: &Reply, _limit: usize) -> bool {
        Count::admits(reply, 1)
    }
}

impl Convert for OneByte {
    type Value = usize;

    fn reply(value: &usize) -> Reply {
        Count::reply(value)
    }

    fn value(reply: Reply) -> Result<usize, Reply> {
        Count::value(reply)
    }
}

/// A clone, which returns in two processes.
#[derive(Debug)]
pub struct Forked;

impl Kind for Forked {
    type Output = SysResult<Fork>;

    fn admits(reply: &Reply, _limit: usize) -> bool {
        matches!(reply, Reply::Parent(_) | Reply::Child | Reply::Errno(_))
    }
}

impl Convert for Forked {
    type Value = Fork;

    fn reply(fork: &Fork) -> Reply {
        match fork {
            Fork::Parent { child } => Reply::Parent(*child),
            Fork::Child => Reply::Child,
        }
    }

    fn value(reply: Reply) -> Result<Fork, Reply> {
        match reply {
            Reply::Parent(child) => Ok(Fork::Parent { child }),
            Reply::Child => Ok(Fork::Child),
            other => Err(other),
        }
    }
}

/// The results of a clone that also returns a pidfd.
#[derive(Debug)]
pub struct InitFork;

impl Kind for InitFork {
    type Output = SysResult<types::InitFork>;

    fn admits(reply: &Reply, _limit: usize) -> bool {
        matches!(reply, Reply::ParentOfInit { .. } | Reply::Child | Reply::Errno(_))
    }
}

impl Convert for InitFork {
    type Value = types::InitFork;

    fn reply(fork: &types::InitFork) -> Reply {
        match fork {
            types::InitFork::Parent { child, pidfd } => Reply::ParentOfInit { pid: *child, pidfd: *pidfd },
            types::InitFork::Child => Reply::Child,
        }
    }

    fn value(reply: Reply) -> Result<types::InitFork, Reply> {
        match reply {
            Reply::ParentOfInit { pid, pidfd } => Ok(types::InitFork::Parent { child: pid, pidfd }),
            Reply::Child => Ok(types::InitFork::Child),
            other => Err(other),
        }
    }
}

/// Bytes in the caller's buffer, which is the argument in parentheses.
#[derive(Debug)]
pub struct Data;

impl Kind for Data {
    type Output = SysResult<usize>;

    fn admits(reply: &Reply, limit: usize) -> bool {
        match reply {
            Reply::Data(data) => data.0.len() <= limit,
            reply => matches!(reply, Reply::Errno(_)),
        }
    }
}

/// Entries of a directory in the caller's buffer, which is the argument in parentheses.
#[derive(Debug)]
pub struct Entries;

impl Kind for Entries {
    type Output = SysResult<usize>;

    fn admits(reply: &Reply, limit: usize) -> bool {
        Data::admits(reply, limit)
    }
}

/// The events of the descriptors that are the argument in parentheses.
#[derive(Debug)]
pub struct Polled;

impl Kind for Polled {
    type Output = SysResult<usize>;

    fn admits(reply: &Reply, limit: usize) -> bool {
        match reply {
            Reply::Polled { count, fds } => fds.len() == limit && *count <= limit,
            reply => matches!(reply, Reply::Errno(_)),
        }
    }
}

/// The process or thread id. The call cannot fail.
#[derive(Debug)]
pub struct Pid;

impl Kind for Pid {
    type Output = types::Pid;

    fn admits(reply: &Reply, _limit: usize) -> bool {
        matches!(reply, Reply::Pid(_))
    }
}

/// The execution of another program. The call returns only if it fails.
#[derive(Debug)]
pub struct Exec;

impl Kind for Exec {
    type Output = Errno;

    fn admits(reply: &Reply, _limit: usize) -> bool {
        matches!(reply, Reply::NoReturn | Reply::Errno(_))
    }
}

/// The size of an argument, as the limit of a reply.
pub(super) trait Size {
    /// Returns the size: bytes, or elements.
    fn size(&self) -> usize;
}

impl Size for usize {
    fn size(&self) -> usize {
        *self
    }
}

impl Size for Bytes {
    fn size(&self) -> usize {
        self.0.len()
    }
}

impl Size for Vec<PollFd> {
    fn size(&self) -> usize {
        self.len()
    }
}
