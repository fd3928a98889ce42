//! A call and its reply that borrow their bytes and lists: [`LineRef`]. A recorder passes it to its sink
//! without an allocation.
//!
//! [`Call`] is serialised through [`CallRef`], so both have one JSON form. The serialisation allocates no
//! memory of its own; the serializer may.

use core::fmt;

use serde::{Serialize, Serializer};

use super::call::hex_digits;
use super::table::{argument, calls};
use super::{Bytes, Call, Line, Reply};
use nsexec::sys::types::{
    BpfInstruction, Capability, CapabilitySets, CloneFlags, ExecArgs, ExitSignal, Fd, Limit, MaskHow, Mount,
    MountAttributes, MountKind, OpenFlags, Pid, PollFd, Seals, SigAction, Signal, SignalSet, TidAddress,
    WaitFor,
};

/// A call and its reply.
#[derive(Clone, Debug, Serialize)]
pub struct LineRef<'a> {
    /// The call with its arguments.
    pub call: CallRef<'a>,
    /// The kernel's reply.
    pub reply: ReplyRef<'a>,
}

impl LineRef<'_> {
    /// Returns the line as owned values.
    #[must_use]
    pub fn to_line(&self) -> Line {
        Line { call: self.call.to_call(), reply: self.reply.to_reply() }
    }
}

/// A reply.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum ReplyRef<'a> {
    /// A reply without bytes and lists. It owns no memory.
    Value(Reply),
    /// A reply with bytes or a list.
    List(ListRef<'a>),
}

/// The replies that have bytes or a list: the variants of [`Reply`] with these names.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ListRef<'a> {
    /// The bytes that were read.
    Data(Text<'a>),
    /// The result of a poll.
    Polled {
        /// The number of descriptors with events.
        count: usize,
        /// All descriptors, with their events.
        fds: &'a [PollFd],
    },
}

impl ReplyRef<'_> {
    /// Returns the reply as an owned value.
    #[must_use]
    pub fn to_reply(&self) -> Reply {
        match self {
            Self::Value(reply) => reply.clone(),
            Self::List(ListRef::Data(data)) => Reply::Data(data.0.into()),
            Self::List(ListRef::Polled { count, fds }) => Reply::Polled { count: *count, fds: (*fds).into() },
        }
    }
}

/// The bytes of a path, a buffer or an argument, with the JSON form of [`Bytes`].
#[derive(Clone, Copy, Debug)]
pub struct Text<'a>(pub &'a [u8]);

impl Serialize for Text<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Hex<'a> {
            hex: Digits<'a>,
        }

        match core::str::from_utf8(self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => Hex { hex: Digits(self.0) }.serialize(serializer),
        }
    }
}

/// Bytes as hexadecimal digits.
struct Digits<'a>(&'a [u8]);

impl fmt::Display for Digits<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write;
        self.0.iter().flat_map(hex_digits).try_for_each(|digit| f.write_char(digit))
    }
}

impl Serialize for Digits<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The arguments or the environment of an exec.
#[derive(Clone, Copy, Debug)]
pub enum Strings<'a> {
    /// As a backend receives them.
    Exec(ExecArgs<'a>),
    /// As [`Call`] has them.
    Owned(&'a [Bytes]),
}

impl Strings<'_> {
    fn to_vec(self) -> Vec<Bytes> {
        match self {
            Self::Exec(strings) => strings.strings().map(Bytes::from).collect(),
            Self::Owned(strings) => strings.into(),
        }
    }
}

impl Serialize for Strings<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Exec(strings) => serializer.collect_seq(strings.strings().map(Text)),
            Self::Owned(strings) => strings.serialize(serializer),
        }
    }
}

/// The descriptors of a poll with the requested events. The reported events are left out: they belong to the
/// reply.
#[derive(Clone, Copy, Debug)]
pub struct Requested<'a>(pub &'a [PollFd]);

impl Requested<'_> {
    fn iter(&self) -> impl Iterator<Item = PollFd> {
        self.0.iter().map(|fd| PollFd::new(fd.fd, fd.events))
    }
}

impl Serialize for Requested<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

/// Defines [`CallRef`] from the rows of the [table](super::table).
macro_rules! define_call_ref {
    ($(
        $method:ident $variant:ident $({ $($(#[$attribute:meta])* $field:ident: $word:ident),* })?
            -> $kind:ident $(($limit:ident))?
            = $name:ident($($shown:tt)*);
    )*) => {
        /// One call: a variant for each method of [`Sys`](nsexec::sys::Sys), which documents them.
        #[derive(Clone, Copy, Debug, Serialize)]
        #[serde(rename_all = "snake_case")]
        #[allow(missing_docs, reason = "the fields are the arguments of the method of that name")]
        pub enum CallRef<'a> { $(
            #[doc = concat!("[`Sys::", stringify!($method), "`](nsexec::sys::Sys::", stringify!($method), ").")]
            $variant $({ $($field: argument!(in borrowed: $word)),* })?,
        )* }

        impl CallRef<'_> {
            /// Returns the call as an owned value.
            #[must_use]
            pub fn to_call(self) -> Call {
                match self { $(
                    Self::$variant $({ $($field),* })? => {
                        Call::$variant $({ $($field: argument!(own $word: $field)),* })?
                    }
                )* }
            }
        }

        impl Call {
            /// Returns the call with borrowed bytes and lists.
            #[must_use]
            pub fn borrowed(&self) -> CallRef<'_> {
                match self { $(
                    Self::$variant $({ $($field),* })? => {
                        CallRef::$variant $({ $($field: argument!(lend $word: $field)),* })?
                    }
                )* }
            }
        }
    };
}

calls!(define_call_ref);
