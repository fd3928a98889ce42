//! The errors of a refused bootstrap message.

use core::fmt::{self, Display as _};

use super::attribute::{Attribute, OomScoreAdjError};
use super::dialect::Dialect;
use super::message::{HEADER_LEN, MESSAGE_MAX};
use crate::deciders::idmap::IdMapError;
use crate::deciders::namespace::NsKind;
use crate::deciders::namespace::paths::NsPathsError;
use crate::deciders::timens::TimeOffsetsError;

/// The error of a refused message, and its position.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub struct ParseError<'m> {
    /// The kind of error.
    pub kind: ParseErrorKind<'m>,
    /// The position in bytes from the start of the message, header included: a field of the header, the first
    /// byte of an attribute, or the end of the received bytes.
    pub offset: usize,
    /// The number of the attribute, if the error is about one.
    pub attribute: Option<u16>,
    /// The attribute's name, if the message's dialect has one for the number.
    pub name: Option<&'static str>,
}

/// The kind of error in a message: one variant for each kind in `tests/vectors/README.md`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum ParseErrorKind<'m> {
    /// The pipe ended within the header.
    TruncatedHeader {
        /// The number of bytes received.
        got: usize,
    },
    /// The message is of type 2, `NLMSG_ERROR`.
    NetlinkError,
    /// The message has a type other than 62000.
    UnexpectedMessageType {
        /// The type.
        found: u16,
    },
    /// The length is smaller than the header. In runc's C code it wraps around to 4 GiB.
    BadMessageLength {
        /// The length.
        length: u32,
    },
    /// The length is over [`MESSAGE_MAX`].
    MessageTooLarge {
        /// The length.
        length: u32,
    },
    /// The pipe ended within the payload.
    TruncatedPayload {
        /// The number of payload bytes received.
        got: usize,
        /// The number of payload bytes expected.
        want: usize,
    },
    /// One to three bytes follow the last attribute. runc's C code reads past the heap block here.
    TruncatedAttrHeader {
        /// The number of bytes.
        remaining: usize,
    },
    /// The attribute is shorter than its own header. With a length of 0, runc's C code loops without end.
    AttrTooShort {
        /// The attribute's length, header included.
        nla_len: u16,
    },
    /// The attribute ends after the end of the message. runc's C code reads past its buffer.
    AttrOverrun {
        /// The attribute's length, header included.
        nla_len: u16,
        /// The number of bytes left in the message, header included.
        left: usize,
    },
    /// The dialect has no attribute with this number.
    UnknownAttribute,
    /// The attribute appears twice. In runc's C code the last one wins, which CVE-2021-43784 exploits.
    DuplicateAttribute,
    /// The value has a wrong size.
    AttrBadSize {
        /// The size in bytes.
        size: usize,
        /// The expected size, in words.
        wanted: &'static str,
    },
    /// A bool is neither 0 nor 1.
    BadBool {
        /// The value.
        value: u32,
    },
    /// A text does not end with NUL.
    MissingNul,
    /// A text has a NUL before its end.
    EmbeddedNul,
    /// A mandatory attribute is missing: CLONE_FLAGS.
    MissingAttribute,
    /// The list of namespaces is empty.
    EmptyNsPaths,
    /// An entry of the list of namespaces is not `type:path`.
    BadNsEntry {
        /// The entry.
        entry: &'m [u8],
    },
    /// The dialect has no namespace type with this name.
    UnknownNsType {
        /// The name.
        name: &'m [u8],
    },
    /// The same kind of namespace is listed twice.
    DuplicateNamespace {
        /// The kind.
        kind: NsKind,
    },
    /// An id map is refused.
    BadIdMap(IdMapError<'m>),
    /// The OOM score adjustment is refused.
    BadOomScoreAdj(OomScoreAdjError<'m>),
    /// The time offsets are refused.
    BadTimensOffsets(TimeOffsetsError<'m>),
}

impl ParseErrorKind<'_> {
    /// Returns the name used in `tests/vectors`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::TruncatedHeader { .. } => "truncated_header",
            Self::NetlinkError => "netlink_error",
            Self::UnexpectedMessageType { .. } => "unexpected_message_type",
            Self::BadMessageLength { .. } => "bad_message_length",
            Self::MessageTooLarge { .. } => "message_too_large",
            Self::TruncatedPayload { .. } => "truncated_payload",
            Self::TruncatedAttrHeader { .. } => "truncated_attr_header",
            Self::AttrTooShort { .. } => "attr_too_short",
            Self::AttrOverrun { .. } => "attr_overrun",
            Self::UnknownAttribute => "unknown_attribute",
            Self::DuplicateAttribute => "duplicate_attribute",
            Self::AttrBadSize { .. } => "attr_bad_size",
            Self::BadBool { .. } => "bad_bool",
            Self::MissingNul => "missing_nul",
            Self::EmbeddedNul => "embedded_nul",
            Self::MissingAttribute => "missing_attribute",
            Self::EmptyNsPaths => "empty_ns_paths",
            Self::BadNsEntry { .. } => "bad_ns_entry",
            Self::UnknownNsType { .. } => "unknown_ns_type",
            Self::DuplicateNamespace { .. } => "duplicate_namespace",
            Self::BadIdMap(_) => "bad_id_map",
            Self::BadOomScoreAdj(_) => "bad_oom_score_adj",
            Self::BadTimensOffsets(_) => "bad_timens_offsets",
        }
    }
}

impl<'m> From<NsPathsError<'m>> for ParseErrorKind<'m> {
    fn from(error: NsPathsError<'m>) -> Self {
        match error {
            NsPathsError::Empty => Self::EmptyNsPaths,
            NsPathsError::BadEntry { entry } => Self::BadNsEntry { entry },
            NsPathsError::UnknownType { name } => Self::UnknownNsType { name },
            NsPathsError::Duplicate { kind } => Self::DuplicateNamespace { kind },
        }
    }
}

impl ParseError<'_> {
    /// Returns the error of a pipe that ended after `got` bytes of the header.
    #[must_use]
    pub const fn truncated_header(got: usize) -> Self {
        Self { kind: ParseErrorKind::TruncatedHeader { got }, offset: got, attribute: None, name: None }
    }

    /// Adds the attribute's name in this dialect. The name of 27290 depends on the dialect.
    pub(super) fn in_dialect(self, dialect: &Dialect) -> Self {
        let attribute = self.attribute.and_then(|number| Attribute::from_number(number, dialect));
        Self { name: attribute.map(Attribute::name), ..self }
    }

    /// Returns the error of a pipe that ended after `got` of `want` bytes of the payload.
    #[must_use]
    pub const fn truncated_payload(got: usize, want: usize) -> Self {
        let kind = ParseErrorKind::TruncatedPayload { got, want };
        Self { kind, offset: got.saturating_add(HEADER_LEN), attribute: None, name: None }
    }
}

impl fmt::Display for ParseError<'_> {
    /// Writes runc's text if runc has one. Our own texts contain the attribute, the offset, the value found
    /// and the value wanted.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.attribute.unwrap_or_default();
        match self.kind {
            ParseErrorKind::TruncatedHeader { got } => {
                write!(f, "failed to read netlink header (got {got} of {HEADER_LEN} bytes)")
            }
            ParseErrorKind::NetlinkError => f.write_str("failed to read netlink message"),
            ParseErrorKind::UnexpectedMessageType { found } => write!(f, "unexpected msg type {found}"),
            ParseErrorKind::TruncatedPayload { got, want } => {
                write!(f, "failed to read netlink payload (got {got} of {want} bytes)")
            }
            ParseErrorKind::UnknownAttribute => write!(f, "unknown netlink message type {number}"),
            ParseErrorKind::EmptyNsPaths => NsPathsError::Empty.fmt(f),
            ParseErrorKind::BadNsEntry { entry } => NsPathsError::BadEntry { entry }.fmt(f),
            ParseErrorKind::UnknownNsType { name } => NsPathsError::UnknownType { name }.fmt(f),
            _ => {
                match self.attribute {
                    Some(number) => write!(f, "attribute {} ({number})", self.name.unwrap_or("unknown"))?,
                    None => f.write_str("bootstrap message")?,
                }
                write!(f, " at offset {}: ", self.offset)?;
                self.fmt_ours(f)
            }
        }
    }
}

impl ParseError<'_> {
    /// Writes the value found and the value wanted, for the kinds without a text of runc.
    fn fmt_ours(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            ParseErrorKind::BadMessageLength { length } => {
                write!(f, "found a length of {length}, wanted at least {HEADER_LEN}")
            }
            ParseErrorKind::MessageTooLarge { length } => {
                write!(f, "found a length of {length}, wanted at most {MESSAGE_MAX}")
            }
            ParseErrorKind::TruncatedAttrHeader { remaining } => {
                write!(f, "found {remaining} bytes after the last attribute, wanted none or a header of 4")
            }
            ParseErrorKind::AttrTooShort { nla_len } => {
                write!(f, "found a length of {nla_len}, wanted at least 4 for its own header")
            }
            ParseErrorKind::AttrOverrun { nla_len, left } => {
                write!(f, "found a length of {nla_len}, wanted at most the {left} bytes that are left")
            }
            ParseErrorKind::DuplicateAttribute => f.write_str("found it a second time, wanted it once"),
            ParseErrorKind::AttrBadSize { size, wanted } => {
                write!(f, "found a value of {size} bytes, wanted {wanted}")
            }
            ParseErrorKind::BadBool { value } => write!(f, "found {value}, wanted 0 or 1"),
            ParseErrorKind::MissingNul => f.write_str("found a text without its final NUL, wanted one"),
            ParseErrorKind::EmbeddedNul => {
                f.write_str("found a NUL inside the text, wanted it at the end only")
            }
            ParseErrorKind::MissingAttribute => {
                f.write_str("found the end of the message, wanted this attribute")
            }
            ParseErrorKind::DuplicateNamespace { kind } => NsPathsError::Duplicate { kind }.fmt(f),
            ParseErrorKind::BadIdMap(error) => error.fmt(f),
            ParseErrorKind::BadOomScoreAdj(error) => error.fmt(f),
            ParseErrorKind::BadTimensOffsets(error) => error.fmt(f),
            // The kinds with a text of runc are written by the caller.
            _ => f.write_str(self.kind.name()),
        }
    }
}

impl core::error::Error for ParseError<'_> {}
