//! The frame of the message: a netlink header, then attributes (`docs/protocol.md#the-bootstrap-message`).
//! All numbers have the byte order of this machine.

use super::Bootstrap;
use super::attribute::{Attribute, OomScoreAdj, bool_value, text_value, u32_value};
use super::dialect::Dialect;
use super::error::{ParseError, ParseErrorKind};
use crate::deciders::idmap::IdMap;
use crate::deciders::namespace::paths::NsPaths;
use crate::deciders::timens::TimeOffsets;
use crate::sys::types::CloneFlags;

/// The length of the message's header in bytes.
pub const HEADER_LEN: usize = 16;

/// The longest accepted message in bytes, header included. The ten attributes of a real message have at most
/// 640 KiB; the length field would allow 4 GiB.
pub const MESSAGE_MAX: usize = 1 << 20;

/// The length of an attribute's header in bytes.
pub(crate) const ATTR_HEADER_LEN: usize = 4;

/// `nlmsg_type` of a bootstrap message, runc's `INIT_MSG`.
pub(crate) const MESSAGE_TYPE: u16 = 62000;

/// `NLMSG_ERROR` of netlink(7).
const NLMSG_ERROR: u16 = 2;

/// A checked header: type and length are valid.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Header {
    payload_len: usize,
}

impl Header {
    /// Parses the first [`HEADER_LEN`] bytes and ignores any others. As in runc, flags, sequence number and
    /// port are not checked.
    ///
    /// # Errors
    ///
    /// Too few bytes, `NLMSG_ERROR`, another type, a length below [`HEADER_LEN`], a length over
    /// [`MESSAGE_MAX`]; in this order.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError<'static>> {
        let Some(&[l0, l1, l2, l3, t0, t1, ..]) = bytes.first_chunk::<HEADER_LEN>() else {
            return Err(ParseError::truncated_header(bytes.len()));
        };
        let refused = |offset, kind| ParseError { kind, offset, attribute: None, name: None };
        match u16::from_ne_bytes([t0, t1]) {
            MESSAGE_TYPE => {}
            NLMSG_ERROR => return Err(refused(4, ParseErrorKind::NetlinkError)),
            found => return Err(refused(4, ParseErrorKind::UnexpectedMessageType { found })),
        }
        let length = u32::from_ne_bytes([l0, l1, l2, l3]);
        let too_large = refused(0, ParseErrorKind::MessageTooLarge { length });
        let whole = usize::try_from(length).map_err(|_| too_large)?;
        let Some(payload_len) = whole.checked_sub(HEADER_LEN) else {
            return Err(refused(0, ParseErrorKind::BadMessageLength { length }));
        };
        if whole > MESSAGE_MAX {
            return Err(too_large);
        }
        Ok(Self { payload_len })
    }

    /// Returns the number of bytes that follow the header. Exactly this many may be read: the next byte
    /// belongs to the container's configuration.
    #[must_use]
    pub const fn payload_len(&self) -> usize {
        self.payload_len
    }

    /// Returns the length of the whole message in bytes.
    #[must_use]
    pub const fn message_len(&self) -> usize {
        self.payload_len.saturating_add(HEADER_LEN)
    }
}

/// Decodes a message from the start of a buffer. Returns it with its length in bytes. The bytes after it are
/// ignored.
///
/// # Errors
///
/// Those of [`Header::parse`] and [`Bootstrap::parse`], and an incomplete payload.
pub fn decode<'m>(bytes: &'m [u8], dialect: &Dialect) -> Result<(Bootstrap<'m>, usize), ParseError<'m>> {
    let header = Header::parse(bytes)?;
    let rest = bytes.get(HEADER_LEN..).unwrap_or_default();
    let want = header.payload_len();
    let payload = rest.get(..want).ok_or(ParseError::truncated_payload(rest.len(), want))?;
    Ok((Bootstrap::parse(payload, dialect)?, header.message_len()))
}

impl<'m> Bootstrap<'m> {
    /// Parses the payload, the bytes after the header.
    ///
    /// The first pass checks the format of all attributes, the second their values, both in the order of the
    /// message. So any format error is reported before an error in a value, and no value of a malformed
    /// message is used.
    ///
    /// # Errors
    ///
    /// The first error; see [`ParseErrorKind`].
    pub fn parse(payload: &'m [u8], dialect: &Dialect) -> Result<Self, ParseError<'m>> {
        Self::read(payload, dialect).map_err(|error| error.in_dialect(dialect))
    }

    fn read(payload: &'m [u8], dialect: &Dialect) -> Result<Self, ParseError<'m>> {
        check_form(payload, dialect)?;
        let mut bootstrap = Self::new(CloneFlags::EMPTY);
        for raw in Walk::new(payload) {
            let raw = raw?;
            if let Some(attribute) = Attribute::from_number(raw.number, dialect) {
                bootstrap = apply_value(bootstrap, attribute, raw.value, dialect)
                    .map_err(|kind| raw.refused(kind))?;
            }
        }
        Ok(bootstrap)
    }
}

/// Runs the first pass: frame, numbers, sizes, NULs.
fn check_form<'m>(payload: &'m [u8], dialect: &Dialect) -> Result<(), ParseError<'m>> {
    let mut seen = Seen::default();
    for raw in Walk::new(payload) {
        let raw = raw?;
        let attribute = Attribute::from_number(raw.number, dialect)
            .ok_or(raw.refused(ParseErrorKind::UnknownAttribute))?;
        if !seen.insert(attribute) {
            return Err(raw.refused(ParseErrorKind::DuplicateAttribute));
        }
        attribute.check(raw.value).map_err(|kind| raw.refused(kind))?;
    }
    // Without this attribute, all stages would run as root without any namespace. Every runc writes it.
    if seen.insert(Attribute::CloneFlags) {
        return Err(ParseError {
            kind: ParseErrorKind::MissingAttribute,
            offset: payload.len().saturating_add(HEADER_LEN),
            attribute: Some(Attribute::CloneFlags.number()),
            name: None,
        });
    }
    Ok(())
}

/// Runs the second pass for the value of one attribute.
fn apply_value<'m>(
    bootstrap: Bootstrap<'m>,
    attribute: Attribute,
    value: &'m [u8],
    dialect: &Dialect,
) -> Result<Bootstrap<'m>, ParseErrorKind<'m>> {
    let id_map = |value| IdMap::parse(text_value(value)?).map_err(ParseErrorKind::BadIdMap);
    Ok(match attribute {
        Attribute::CloneFlags => bootstrap.with_clone_flags(CloneFlags(u32_value(value)?)),
        Attribute::NsPaths => {
            let text = text_value(value)?.to_bytes();
            bootstrap.with_namespaces(NsPaths::parse(text, dialect.namespaces)?)
        }
        Attribute::UidMap => bootstrap.with_uid_map(id_map(value)?),
        Attribute::GidMap => bootstrap.with_gid_map(id_map(value)?),
        Attribute::SetGroup => bootstrap.with_setgroup(bool_value(value)?),
        Attribute::OomScoreAdj => {
            let oom = OomScoreAdj::parse(text_value(value)?).map_err(ParseErrorKind::BadOomScoreAdj)?;
            bootstrap.with_oom_score_adj(oom)
        }
        Attribute::RootlessEuid => bootstrap.with_rootless_euid(bool_value(value)?),
        Attribute::UidMapPath => bootstrap.with_uidmap_path(text_value(value)?),
        Attribute::GidMapPath => bootstrap.with_gidmap_path(text_value(value)?),
        #[cfg(feature = "legacy")]
        Attribute::MountSources => bootstrap.with_mount_sources(crate::legacy::MountSources::parse(value)?),
        Attribute::TimeOffsets => {
            let offsets = TimeOffsets::parse(text_value(value)?).map_err(ParseErrorKind::BadTimensOffsets)?;
            bootstrap.with_timens_offsets(offsets)
        }
    })
}

/// The numbers of the attributes seen so far, one bit each. The ten numbers differ in their last four bits.
#[derive(Default)]
struct Seen(u16);

impl Seen {
    /// Adds an attribute. Returns false if its number was already seen.
    const fn insert(&mut self, attribute: Attribute) -> bool {
        let bit = 1 << (attribute.number() & 0xf);
        let new = self.0 & bit == 0;
        self.0 |= bit;
        new
    }
}

/// An attribute of the message, not parsed.
#[derive(Clone, Copy)]
struct Raw<'m> {
    number: u16,
    value: &'m [u8],
    /// The position of its header, in bytes from the start of the message.
    offset: usize,
}

impl<'m> Raw<'m> {
    const fn refused(&self, kind: ParseErrorKind<'m>) -> ParseError<'m> {
        ParseError { kind, offset: self.offset, attribute: Some(self.number), name: None }
    }
}

/// An iterator over the attributes of a payload. It stops after the first attribute with a malformed header.
struct Walk<'m> {
    rest: &'m [u8],
    offset: usize,
}

impl<'m> Walk<'m> {
    const fn new(payload: &'m [u8]) -> Self {
        Self { rest: payload, offset: HEADER_LEN }
    }

    fn take(&mut self) -> Result<Raw<'m>, ParseError<'m>> {
        #[cfg(test)]
        super::text::steps::add(1);
        let (offset, left) = (self.offset, self.rest.len());
        let Some((&[l0, l1, t0, t1], body)) = self.rest.split_first_chunk::<ATTR_HEADER_LEN>() else {
            let kind = ParseErrorKind::TruncatedAttrHeader { remaining: left };
            return Err(ParseError { kind, offset, attribute: None, name: None });
        };
        let nla_len = u16::from_ne_bytes([l0, l1]);
        let raw = Raw { number: u16::from_ne_bytes([t0, t1]), value: &[], offset };
        let length = usize::from(nla_len)
            .checked_sub(ATTR_HEADER_LEN)
            .ok_or(raw.refused(ParseErrorKind::AttrTooShort { nla_len }))?;
        let (value, after) = body
            .split_at_checked(length)
            .ok_or(raw.refused(ParseErrorKind::AttrOverrun { nla_len, left }))?;
        // The padding may have any content, and may be missing at the end of the message.
        self.rest = after.get(padding_of(length)..).unwrap_or_default();
        self.offset = offset.saturating_add(left.saturating_sub(self.rest.len()));
        Ok(Raw { value, ..raw })
    }
}

impl<'m> Iterator for Walk<'m> {
    type Item = Result<Raw<'m>, ParseError<'m>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let taken = self.take();
        if taken.is_err() {
            self.rest = &[];
        }
        Some(taken)
    }
}

/// Returns the number of padding bytes from a value of this length to the next multiple of four.
pub(crate) const fn padding_of(length: usize) -> usize {
    match length & 3 {
        1 => 3,
        2 => 2,
        3 => 1,
        _ => 0,
    }
}
