//! A call with its arguments, and its reply: all data that passes through [`Sys`](nsexec::sys::Sys), as owned
//! values.

use std::string::String;
use std::vec::Vec;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use nsexec::sys::types::{
    CloneFlags, Errno, ExitSignal, Fd, FsType, MaskHow, Mount, OpenFlags, Pid, PollFd, Received, Seals,
    SigAction, Signal, SignalSet, SocketType, TidAddress, WaitFor, Waited,
};

/// The bytes of a path, a buffer or an argument.
///
/// In JSON they are a readable string if they are UTF-8, and otherwise `{"hex": "ff00"}`.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Bytes(pub Vec<u8>);

impl From<&[u8]> for Bytes {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match core::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => {
                BytesForm::Hex { hex: self.0.iter().flat_map(hex_digits).collect() }.serialize(serializer)
            }
        }
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match BytesForm::deserialize(deserializer)? {
            BytesForm::Text(text) => Ok(Self(text.into_bytes())),
            BytesForm::Hex { hex } => {
                unhex(&hex).map(Self).ok_or_else(|| de::Error::custom("expected pairs of hexadecimal digits"))
            }
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum BytesForm {
    Text(String),
    Hex { hex: String },
}

fn hex_digits(byte: &u8) -> [char; 2] {
    [byte >> 4, byte & 0xf].map(|nibble| char::from_digit(nibble.into(), 16).unwrap_or('?'))
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    let digits = digits?;
    digits.chunks(2).map(|pair| <[u8; 2]>::try_from(pair).ok().map(|[high, low]| high << 4 | low)).collect()
}

/// One call: a variant for each method of [`Sys`](nsexec::sys::Sys), which documents them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the fields are the arguments of the method of that name")]
pub enum Call {
    Openat {
        dir: Fd,
        path: Bytes,
        flags: OpenFlags,
    },
    Openat2 {
        dir: Fd,
        path: Bytes,
        flags: OpenFlags,
    },
    Close {
        fd: Fd,
    },
    Read {
        fd: Fd,
        len: usize,
    },
    Write {
        fd: Fd,
        data: Bytes,
    },
    WriteNowait {
        fd: Fd,
        data: Bytes,
    },
    Send {
        fd: Fd,
        data: Bytes,
    },
    SendFd {
        socket: Fd,
        fd: Fd,
    },
    ReceiveFd {
        socket: Fd,
    },
    Dup3 {
        fd: Fd,
        number: Fd,
    },
    Poll {
        fds: Vec<PollFd>,
        timeout_ms: i32,
    },
    Fstatfs {
        fd: Fd,
    },
    SocketType {
        fd: Fd,
    },
    LinkCount {
        path: Bytes,
    },
    Readlink {
        path: Bytes,
        len: usize,
    },
    Socketpair,
    Pipe2,
    CloseRangeCloexec {
        first: Fd,
    },
    Getdents64 {
        fd: Fd,
        len: usize,
    },
    SetCloexec {
        fd: Fd,
        /// Absent in records of version 0.1, where the flag was always set.
        #[serde(default = "set")]
        on: bool,
    },
    GetSeals {
        fd: Fd,
    },
    AddSeals {
        fd: Fd,
        seals: Seals,
    },
    MemfdCreate {
        name: Bytes,
        exec: bool,
    },
    Sendfile {
        to: Fd,
        from: Fd,
        len: usize,
    },
    Fchmod {
        fd: Fd,
        mode: u32,
    },
    Unlink {
        path: Bytes,
    },
    IsReadOnly {
        path: Bytes,
    },
    Execveat {
        fd: Fd,
        argv: Vec<Bytes>,
        envp: Vec<Bytes>,
    },
    CloneSibling {
        tid: Option<TidAddress>,
    },
    Fork {
        exit: ExitSignal,
        tid: Option<TidAddress>,
    },
    Execve {
        path: Bytes,
        argv: Vec<Bytes>,
        envp: Vec<Bytes>,
    },
    Wait4 {
        pid: Pid,
        which: WaitFor,
    },
    Kill {
        pid: Pid,
        signal: Signal,
    },
    PidfdOpen {
        pid: Pid,
    },
    Getpid,
    Gettid,
    TidAddress,
    Setns {
        fd: Fd,
        kind: CloneFlags,
    },
    Unshare {
        flags: CloneFlags,
    },
    SetDumpable {
        dumpable: bool,
    },
    SetName {
        name: Bytes,
    },
    SetPdeathsig {
        signal: Signal,
    },
    Setsid,
    Setresuid {
        uid: u32,
    },
    Setuid {
        uid: u32,
    },
    Setgid {
        gid: u32,
    },
    DropGroups,
    SchedGetaffinity,
    Mount {
        mount: Mount,
    },
    Sigprocmask {
        how: MaskHow,
        set: SignalSet,
    },
    Sigaction {
        signal: Signal,
        action: SigAction,
    },
    Sigtimedwait {
        set: SignalSet,
    },
}

fn set() -> bool {
    true
}

impl Call {
    /// Returns the name of the system call, as strace writes it on x86_64.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Openat { .. } => "openat",
            Self::Openat2 { .. } => "openat2",
            Self::Close { .. } => "close",
            Self::Read { .. } => "read",
            Self::Write { .. } => "write",
            Self::WriteNowait { .. } => "pwritev2",
            Self::Send { .. } => "sendto",
            Self::SendFd { .. } => "sendmsg",
            Self::ReceiveFd { .. } => "recvmsg",
            Self::Dup3 { .. } => "dup3",
            Self::Poll { .. } => "poll",
            Self::Fstatfs { .. } => "fstatfs",
            Self::SocketType { .. } => "getsockopt",
            Self::LinkCount { .. } => "newfstatat",
            Self::Readlink { .. } => "readlinkat",
            Self::Socketpair => "socketpair",
            Self::Pipe2 => "pipe2",
            Self::CloseRangeCloexec { .. } => "close_range",
            Self::Getdents64 { .. } => "getdents64",
            Self::SetCloexec { .. } | Self::GetSeals { .. } | Self::AddSeals { .. } => "fcntl",
            Self::MemfdCreate { .. } => "memfd_create",
            Self::Sendfile { .. } => "sendfile",
            Self::Fchmod { .. } => "fchmod",
            Self::Unlink { .. } => "unlinkat",
            Self::IsReadOnly { .. } => "statfs",
            Self::Execveat { .. } => "execveat",
            Self::CloneSibling { .. } | Self::Fork { .. } => "clone",
            Self::Execve { .. } => "execve",
            Self::Wait4 { .. } => "wait4",
            Self::Kill { .. } => "kill",
            Self::PidfdOpen { .. } => "pidfd_open",
            Self::Getpid => "getpid",
            Self::Gettid => "gettid",
            Self::TidAddress
            | Self::SetDumpable { .. }
            | Self::SetName { .. }
            | Self::SetPdeathsig { .. } => "prctl",
            Self::Setns { .. } => "setns",
            Self::Unshare { .. } => "unshare",
            Self::Setsid => "setsid",
            Self::Setresuid { .. } => "setresuid",
            Self::Setuid { .. } => "setuid",
            Self::Setgid { .. } => "setgid",
            Self::DropGroups => "setgroups",
            Self::SchedGetaffinity => "sched_getaffinity",
            Self::Mount { .. } => "mount",
            Self::Sigprocmask { .. } => "rt_sigprocmask",
            Self::Sigaction { .. } => "rt_sigaction",
            Self::Sigtimedwait { .. } => "rt_sigtimedwait",
        }
    }

    /// Returns whether the kernel can return this reply to this call. The reply must be of the right kind,
    /// and must fit into the buffer of the call. The content of a file is not checked.
    #[must_use]
    pub fn admits(&self, reply: &Reply) -> bool {
        match (self, reply) {
            (Self::Getpid | Self::Gettid, reply) => matches!(reply, Reply::Pid(_)),
            (_, Reply::Errno(_)) => true,
            (
                Self::Openat { .. }
                | Self::Openat2 { .. }
                | Self::PidfdOpen { .. }
                | Self::MemfdCreate { .. },
                Reply::Fd(_),
            ) => true,
            (Self::Sendfile { len, .. }, Reply::Count(count)) => count <= len,
            (
                Self::Read { len, .. } | Self::Readlink { len, .. } | Self::Getdents64 { len, .. },
                Reply::Data(data),
            ) => data.0.len() <= *len,
            (
                Self::Write { data, .. } | Self::WriteNowait { data, .. } | Self::Send { data, .. },
                Reply::Count(count),
            ) => *count <= data.0.len(),
            (Self::Poll { fds, .. }, Reply::Polled { count, fds: found }) => {
                found.len() == fds.len() && *count <= fds.len()
            }
            (Self::SendFd { .. }, Reply::Count(count)) => *count <= 1,
            (Self::ReceiveFd { .. }, Reply::Received(received)) => {
                received.byte.is_some() || received.fd.is_none() && !received.truncated
            }
            (Self::Fstatfs { .. }, Reply::FsType(_))
            | (Self::SocketType { .. }, Reply::SocketType(_))
            | (Self::LinkCount { .. }, Reply::Links(_))
            | (Self::Socketpair | Self::Pipe2, Reply::Pair(..))
            | (Self::CloneSibling { .. } | Self::Fork { .. }, Reply::Parent(_) | Reply::Child)
            | (Self::Execve { .. } | Self::Execveat { .. }, Reply::NoReturn)
            | (Self::GetSeals { .. }, Reply::Seals(_))
            | (Self::IsReadOnly { .. }, Reply::ReadOnly(_))
            | (Self::Wait4 { .. }, Reply::Waited(_))
            | (Self::TidAddress, Reply::TidAddress(_))
            | (Self::SchedGetaffinity, Reply::Affinity(_))
            | (Self::Sigprocmask { .. }, Reply::Mask(_))
            | (Self::Sigaction { .. }, Reply::Action(_))
            | (Self::Sigtimedwait { .. }, Reply::Signal(_)) => true,
            (
                Self::Close { .. }
                | Self::Dup3 { .. }
                | Self::CloseRangeCloexec { .. }
                | Self::SetCloexec { .. }
                | Self::AddSeals { .. }
                | Self::Fchmod { .. }
                | Self::Unlink { .. }
                | Self::Kill { .. }
                | Self::Setns { .. }
                | Self::Unshare { .. }
                | Self::SetDumpable { .. }
                | Self::SetName { .. }
                | Self::SetPdeathsig { .. }
                | Self::Setsid
                | Self::Setresuid { .. }
                | Self::Setuid { .. }
                | Self::Setgid { .. }
                | Self::DropGroups
                | Self::Mount { .. },
                reply,
            ) => *reply == Reply::Unit,
            _ => false,
        }
    }
}

/// The reply to a call.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// Success without a value.
    Unit,
    /// A new descriptor.
    Fd(Fd),
    /// Two new descriptors.
    Pair(Fd, Fd),
    /// The number of bytes transferred.
    Count(usize),
    /// The bytes that were read.
    Data(Bytes),
    /// A received byte, with its descriptor.
    Received(Received),
    /// The type of a file system.
    FsType(FsType),
    /// The type of a socket.
    SocketType(SocketType),
    /// The number of links to a file.
    Links(u64),
    /// The seals of a file.
    Seals(Seals),
    /// Whether a file system is mounted read-only.
    ReadOnly(bool),
    /// The result of a poll.
    Polled {
        /// The number of descriptors with events.
        count: usize,
        /// All descriptors, with their events.
        fds: Vec<PollFd>,
    },
    /// The pid of the new process, in the parent after a clone.
    Parent(Pid),
    /// The reply in the new process after a clone.
    Child,
    /// A child that has changed its state.
    Waited(Waited),
    /// A process or thread id.
    Pid(Pid),
    /// The place where the libc caches its thread id.
    TidAddress(TidAddress),
    /// The affinity to the first 64 CPUs.
    Affinity(u64),
    /// The previous signal mask.
    Mask(SignalSet),
    /// The previous disposition.
    Action(SigAction),
    /// The pending signal that was removed.
    Signal(Signal),
    /// An exec that is about to be made. It returns only if it fails.
    NoReturn,
    /// The call failed.
    Errno(Errno),
}
