//! [`SettingError`]: a setting of a [`Command`](super::Command) that cannot work, found before any process is
//! created.

use core::fmt;
use std::ffi::OsString;
use std::string::String;

use super::encode::EncodeError;
use super::record::OneLine;
use crate::deciders::namespace::NsKind;
use crate::sys::types::Fd;

/// A setting that cannot work, alone or with the others. `Display` names it, and what to do.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum SettingError {
    /// A value contains a NUL byte. The kernel would cut it there.
    Nul {
        /// The setting.
        setting: &'static str,
    },
    /// A path below the new root directory is not absolute, contains `.` or `..`, or is the root itself.
    Place {
        /// The path.
        path: OsString,
    },
    /// The setting needs a new namespace of this kind: without it, it would change what the caller shares
    /// with its host, or has no meaning.
    NeedsNamespace {
        /// The setting.
        setting: &'static str,
        /// The kind of namespace.
        kind: NsKind,
    },
    /// A kind of namespace is both created and joined, or joined twice.
    Twice {
        /// The kind.
        kind: NsKind,
    },
    /// Two settings exclude each other.
    Conflict {
        /// The two settings.
        settings: [&'static str; 2],
        /// The reason.
        why: &'static str,
    },
    /// A value is outside of what the kernel accepts.
    Value {
        /// The setting.
        setting: &'static str,
        /// The reason.
        why: String,
    },
    /// Two descriptors would have the same number.
    NumberTwice {
        /// The number.
        number: Fd,
    },
    /// An id of the command is not mapped in its user namespace.
    NotMapped {
        /// "user" or "group".
        noun: &'static str,
        /// The id inside.
        id: u32,
    },
    /// The map of ids cannot be built: no subordinate ids, or no tool that may write the map.
    Map {
        /// The reason, with what to do.
        why: String,
    },
    /// A file that a setting names cannot be used.
    File {
        /// The purpose of the file, as a verb: "join the namespace".
        doing: &'static str,
        /// The path.
        path: OsString,
        /// The error in words.
        why: String,
    },
    /// The bootstrap message cannot carry the values.
    Message(EncodeError),
}

impl fmt::Display for SettingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nul { setting } => write!(f, "{setting}: contains a NUL byte"),
            Self::Place { path } => write!(
                f,
                "{}: a path below the root directory of the command must be absolute, without '.' and '..', and not \
                 the root itself",
                OneLine(&path.to_string_lossy())
            ),
            Self::NeedsNamespace { setting, kind: NsKind::User } => {
                write!(f, "{setting} needs a new user namespace: unshare NsKind::User too")
            }
            Self::NeedsNamespace { setting, kind } => {
                write!(f, "{setting} needs a new {kind} namespace: without it, the host would change too")
            }
            Self::Twice { kind } => write!(f, "the {kind} namespace is created or joined twice"),
            Self::Conflict { settings: [one, other], why } => write!(f, "{one} and {other}: {why}"),
            Self::Value { setting, why } => write!(f, "{setting}: {why}"),
            Self::NumberTwice { number } => {
                write!(f, "the command would get two descriptors with the number {}", number.0)
            }
            Self::NotMapped { noun, id } => {
                write!(
                    f,
                    "the {noun} id {id} of the command is not mapped in its user namespace: add it to the map"
                )
            }
            Self::Map { why } => f.write_str(why),
            Self::File { doing, path, why } => {
                write!(f, "failed to {doing} {}: {why}", OneLine(&path.to_string_lossy()))
            }
            Self::Message(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for SettingError {}
