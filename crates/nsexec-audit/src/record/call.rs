//! A call with its arguments, and its reply: all data that passes through [`Sys`](nsexec::sys::Sys), as owned
//! values.

use std::string::String;
use std::vec::Vec;

use serde::de::{self, DeserializeOwned};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::borrowed::Text;
use super::kind::{self, Kind, Size};
use super::table::{argument, calls};
use nsexec::sys::types::{
    BpfInstruction, Capability, CapabilitySets, CloneFlags, Errno, ExitSignal, Fd, FsType, Limit, MaskHow,
    Mount, MountAttributes, MountKind, OpenFlags, Pid, PollEvents, PollFd, Received, Seals, SentSignal,
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
        Text(&self.0).serialize(serializer)
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

#[derive(Deserialize)]
#[serde(untagged)]
enum BytesForm {
    Text(String),
    Hex { hex: String },
}

pub(crate) fn hex_digits(byte: &u8) -> [char; 2] {
    [byte >> 4, byte & 0xf].map(|nibble| char::from_digit(nibble.into(), 16).unwrap_or('?'))
}

pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    let digits = digits?;
    digits.chunks(2).map(|pair| <[u8; 2]>::try_from(pair).ok().map(|[high, low]| high << 4 | low)).collect()
}

/// Defines [`Call`] and what follows from the rows of the [table](super::table) alone.
macro_rules! define_call {
    ($(
        $method:ident $variant:ident $({ $($(#[serde($($attribute:tt)*)])* $field:ident: $word:ident),* })?
            -> $kind:ident $(($limit:ident))?
            = $name:ident($($shown:tt)*);
    )*) => {
        /// One call: a variant for each method of [`Sys`](nsexec::sys::Sys), which documents them.
        #[derive(Clone, PartialEq, Eq, Debug)]
        #[allow(missing_docs, reason = "the fields are the arguments of the method of that name")]
        pub enum Call { $(
            #[doc = concat!("[`Sys::", stringify!($method), "`](nsexec::sys::Sys::", stringify!($method), ").")]
            $variant $({ $($field: argument!(in call: $word)),* })?,
        )* }

        impl Call {
            /// Returns the call with this name of a method and these arguments.
            fn of_json(name: &str, arguments: &mut Arguments) -> Result<Self, serde_json::Error> {
                match name {
                    $(stringify!($method) => Ok(Self::$variant $({ $(
                        $field: taken(arguments, stringify!($field), absent!($($($attribute)*)*))?
                    ),* })?),)*
                    _ => Err(de::Error::custom(format_args!("unknown call '{name}'"))),
                }
            }

            /// Returns the name of the system call, as strace writes it on x86_64.
            #[must_use]
            pub fn name(&self) -> &'static str {
                match self { $(
                    Self::$variant { .. } => stringify!($name),
                )* }
            }

            /// Returns whether the kernel can return this reply to this call. The reply must be of the right
            /// kind, and must fit into the buffer of the call. That of a poll must have its descriptors, and
            /// the number of those that are ready. The content of a file is not checked.
            #[must_use]
            pub fn admits(&self, reply: &Reply) -> bool {
                let is_possible = match self { $(
                    Self::$variant { $($limit,)? .. } => kind::$kind::admits(reply, limit!($kind $($limit)?)),
                )* };
                is_possible && polls_the_same(self, reply)
            }

            /// Returns the descriptors among the arguments, in order. The beginning of a range is not one of
            /// them.
            #[must_use]
            pub fn descriptors(&self) -> Vec<&Fd> {
                let mut found = Vec::new();
                match self { $(
                    Self::$variant $({ $($field),* })? => { $($(select!(found, Fd, $word $field);)*)? }
                )* }
                found
            }

            /// Returns the same descriptors as [`descriptors`](Self::descriptors), to be changed.
            pub fn descriptors_mut(&mut self) -> Vec<&mut Fd> {
                let mut found = Vec::new();
                match self { $(
                    Self::$variant $({ $($field),* })? => { $($(select!(found, Fd, $word $field);)*)? }
                )* }
                found
            }

            /// Returns the pids among the arguments, to be changed.
            pub fn pids_mut(&mut self) -> Vec<&mut Pid> {
                let mut found = Vec::new();
                match self { $(
                    Self::$variant $({ $($field),* })? => { $($(select!(found, Pid, $word $field);)*)? }
                )* }
                found
            }

            /// Returns the descriptor whose number the caller chose, and which a successful call returns.
            #[must_use]
            pub fn chosen(&self) -> Option<&Fd> {
                match self { $(
                    Self::$variant { $($limit,)? .. } => chosen!($kind $($limit)?),
                )* }
            }

            /// Returns the same descriptor as [`chosen`](Self::chosen), to be changed.
            pub fn chosen_mut(&mut self) -> Option<&mut Fd> {
                match self { $(
                    Self::$variant { $($limit,)? .. } => chosen!($kind $($limit)?),
                )* }
            }
        }
    };
}

/// Returns the limit of a reply. Only the argument of a kind that has a limit counts.
macro_rules! limit {
    (Unit $number:ident) => {{
        let _ = $number;
        usize::MAX
    }};
    ($kind:ident $limit:ident) => {
        $limit.size()
    };
    ($kind:ident) => {
        usize::MAX
    };
}

/// Returns the value of an argument that older records do not have, from its attribute for serde.
macro_rules! absent {
    () => {
        None
    };
    (default) => {
        Some(Default::default())
    };
    (default = "set") => {
        Some(true)
    };
}

/// Adds an argument to a list if its word is the wanted one.
macro_rules! select {
    ($list:ident, Fd, Fd $field:ident) => {
        $list.push($field)
    };
    ($list:ident, Pid, Pid $field:ident) => {
        $list.push($field)
    };
    ($list:ident, $wanted:ident, $word:ident $field:ident) => {
        let _ = $field;
    };
}

/// Returns the argument in parentheses after the kind `Unit`.
macro_rules! chosen {
    (Unit $number:ident) => {
        Some($number)
    };
    ($kind:ident $limit:ident) => {{
        let _ = $limit;
        None
    }};
    ($kind:ident) => {
        None
    };
}

calls!(define_call);

impl Serialize for Call {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.borrowed().serialize(serializer)
    }
}

/// The arguments of a call, by name.
type Arguments = serde_json::Map<String, Value>;

/// Reads as `{"close": {"fd": 3}}`, or as `"setsid"` without arguments.
///
/// The derived code would be larger by far: it has a visitor for each call, once for each kind of text.
impl<'de> Deserialize<'de> for Call {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (name, mut arguments) = match Value::deserialize(deserializer)? {
            Value::String(name) => (name, Arguments::new()),
            Value::Object(call) if call.len() == 1 => match call.into_iter().next() {
                Some((name, Value::Object(arguments))) => (name, arguments),
                _ => return Err(de::Error::custom("the arguments of a call are not an object")),
            },
            _ => return Err(de::Error::custom("a call is neither a name nor an object with one")),
        };
        Self::of_json(&name, &mut arguments).map_err(de::Error::custom)
    }
}

/// Returns whether the reply to a poll has the descriptors of the call, and the number of those that are
/// ready. True for any other call.
fn polls_the_same(call: &Call, reply: &Reply) -> bool {
    let (Call::Poll { fds: asked, .. }, Reply::Polled { count, fds }) = (call, reply) else { return true };
    let ready = fds.iter().filter(|fd| fd.revents != PollEvents::NONE).count();
    *count == ready && asked.iter().map(|fd| (fd.fd, fd.events)).eq(fds.iter().map(|fd| (fd.fd, fd.events)))
}

/// Returns an argument. If the record does not have it, the result is `absent`, or `None` for an option.
fn taken<T: DeserializeOwned>(
    arguments: &mut Arguments,
    name: &'static str,
    absent: Option<T>,
) -> Result<T, serde_json::Error> {
    match (arguments.remove(name), absent) {
        (Some(value), _) => serde_json::from_value(value),
        (None, Some(absent)) => Ok(absent),
        (None, None) => serde_json::from_value(Value::Null).map_err(|_| de::Error::missing_field(name)),
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
    /// The pid of the new process, in the parent after a clone that also returns a pidfd.
    ParentOfInit {
        /// The pid.
        pid: Pid,
        /// The pidfd, on a kernel that has them.
        pidfd: Option<Fd>,
    },
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
    /// The previous mask of permissions.
    Permissions(u32),
    /// The signal that ended a wait.
    Sent(SentSignal),
    /// The pending signal that was removed.
    Signal(Signal),
    /// An exec that is about to be made. It returns only if it fails.
    NoReturn,
    /// The call failed.
    Errno(Errno),
}

impl Reply {
    /// Returns the pid of the process that a call has created, in its parent.
    #[must_use]
    pub const fn child(&self) -> Option<Pid> {
        match self {
            Self::Parent(pid) | Self::ParentOfInit { pid, .. } => Some(*pid),
            _ => None,
        }
    }
}
