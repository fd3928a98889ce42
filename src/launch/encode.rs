//! Encodes a bootstrap message, as runc's Go code does.

use core::fmt;

use crate::deciders::bootstrap::attribute::Attribute;
use crate::deciders::bootstrap::message::{
    ATTR_HEADER_LEN, HEADER_LEN, MESSAGE_MAX, MESSAGE_TYPE, padding_of,
};
use crate::deciders::bootstrap::{Bootstrap, Dialect};
use crate::deciders::namespace::NsKind;

/// The longest value of an attribute in bytes, including the NUL: `nla_len` has 16 bits and counts its
/// header. Older encoders of runc truncated the length silently, and text was parsed as attributes
/// (CVE-2021-43784).
pub const VALUE_MAX: usize = 65531;

/// `NLM_F_REQUEST` of netlink(7).
const FLAGS: u16 = 1;

/// The sequence number of a launcher's first message. It is never read.
const SEQUENCE: u32 = 1;

/// The reason why a message cannot be encoded.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum EncodeError {
    /// A value is longer than [`VALUE_MAX`].
    AttributeTooLong {
        /// The attribute.
        attribute: Attribute,
        /// The length of the value in bytes, including the NUL.
        length: usize,
    },
    /// The message is longer than [`MESSAGE_MAX`].
    MessageTooLong {
        /// The length of the message in bytes.
        length: usize,
    },
    /// The buffer is too small.
    BufferTooSmall {
        /// The length of the message in bytes.
        needed: usize,
        /// The length of the buffer in bytes.
        room: usize,
    },
    /// The memory for the message could not be allocated. Only the launcher returns this: [`encode`] itself
    /// does not allocate.
    NoMemory {
        /// The length of the message in bytes.
        needed: usize,
    },
    /// The dialect does not have this attribute.
    UnknownToDialect {
        /// The attribute.
        attribute: Attribute,
        /// The dialect's name.
        dialect: &'static str,
    },
    /// The dialect's `NS_PATHS` does not have this kind.
    NamespaceUnknownToDialect {
        /// The kind.
        kind: NsKind,
        /// The dialect's name.
        dialect: &'static str,
    },
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AttributeTooLong { attribute, length } => {
                write!(f, "attribute {attribute} has {length} bytes, at most {VALUE_MAX} can be sent")
            }
            Self::MessageTooLong { length } => {
                write!(f, "bootstrap message has {length} bytes, at most {MESSAGE_MAX} can be sent")
            }
            Self::BufferTooSmall { needed, room } => {
                write!(f, "bootstrap message has {needed} bytes, the buffer {room}")
            }
            Self::NoMemory { needed } => {
                write!(f, "no memory for a bootstrap message of {needed} bytes")
            }
            Self::UnknownToDialect { attribute, dialect } => {
                write!(f, "attribute {attribute} does not exist in dialect {dialect}")
            }
            Self::NamespaceUnknownToDialect { kind, dialect } => {
                write!(f, "joining a {kind} namespace is not possible in dialect {dialect}")
            }
        }
    }
}

impl core::error::Error for EncodeError {}

/// The value of an attribute to be written.
#[derive(Clone, Copy)]
enum Value<'m> {
    U32(u32),
    /// Text without its NUL, which the writer adds.
    Text(&'m [u8]),
}

impl Value<'_> {
    const fn len(&self) -> usize {
        match self {
            Self::U32(_) => 4,
            Self::Text(text) => text.len().saturating_add(1),
        }
    }
}

/// Returns the attributes in the order in which runc's Go code writes them. For the user id, the path
/// precedes the map; for the group id, it follows the map.
fn values<'m>(bootstrap: &Bootstrap<'m>) -> impl Iterator<Item = (Attribute, Value<'m>)> + use<'m> {
    let text = |attribute, text: Option<&'m [u8]>| text.map(|text| (attribute, Value::Text(text)));
    let number = |attribute, number| Some((attribute, Value::U32(number)));
    // Written only as true, since runc never writes false. A bool has four bytes.
    let setgroup = if bootstrap.setgroup() { number(Attribute::SetGroup, 1) } else { None };
    [
        number(Attribute::CloneFlags, bootstrap.clone_flags().0),
        text(Attribute::NsPaths, bootstrap.namespaces().map(|paths| paths.text())),
        text(Attribute::UidMapPath, bootstrap.uidmap_path().map(|path| path.to_bytes())),
        text(Attribute::UidMap, bootstrap.uid_map().map(|map| map.text())),
        text(Attribute::GidMap, bootstrap.gid_map().map(|map| map.text())),
        text(Attribute::GidMapPath, bootstrap.gidmap_path().map(|path| path.to_bytes())),
        setgroup,
        text(Attribute::OomScoreAdj, bootstrap.oom_score_adj().map(|oom| oom.text())),
        number(Attribute::RootlessEuid, u32::from(bootstrap.rootless_euid())),
        text(Attribute::TimeOffsets, bootstrap.timens_offsets().map(|offsets| offsets.text())),
        #[cfg(feature = "legacy")]
        text(Attribute::MountSources, bootstrap.mount_sources().map(|sources| sources.entries_with_nuls())),
    ]
    .into_iter()
    .flatten()
}

/// Returns the length of the message in bytes, including header and padding.
#[must_use]
pub fn encoded_len(bootstrap: &Bootstrap<'_>) -> usize {
    values(bootstrap).fold(HEADER_LEN, |length, (_, value)| {
        let value = value.len().saturating_add(padding_of(value.len()));
        length.saturating_add(ATTR_HEADER_LEN).saturating_add(value)
    })
}

/// Writes a message to the start of `out`. Returns its length in bytes. [`decode`](crate::bootstrap::decode)
/// returns an equivalent message; nothing is truncated.
///
/// # Errors
///
/// A value that the dialect or the format cannot represent. The contents of `out` are then undefined.
pub fn encode(bootstrap: &Bootstrap<'_>, dialect: &Dialect, out: &mut [u8]) -> Result<usize, EncodeError> {
    let needed = encoded_len(bootstrap);
    check_namespaces(bootstrap, dialect)?;
    for (attribute, value) in values(bootstrap) {
        if Attribute::from_number(attribute.number(), dialect) != Some(attribute) {
            return Err(EncodeError::UnknownToDialect { attribute, dialect: dialect.name() });
        }
        if value.len() > VALUE_MAX {
            return Err(EncodeError::AttributeTooLong { attribute, length: value.len() });
        }
    }
    let length = u32::try_from(needed).map_err(|_| EncodeError::MessageTooLong { length: needed })?;
    if needed > MESSAGE_MAX {
        return Err(EncodeError::MessageTooLong { length: needed });
    }
    let too_small = EncodeError::BufferTooSmall { needed, room: out.len() };
    let mut writer = Writer { out, position: 0 };
    writer.message(bootstrap, length).ok_or(too_small)?;
    Ok(writer.position)
}

fn check_namespaces(bootstrap: &Bootstrap<'_>, dialect: &Dialect) -> Result<(), EncodeError> {
    let Some(paths) = bootstrap.namespaces() else { return Ok(()) };
    match paths.kinds().iter().find(|kind| !dialect.namespaces.contains(*kind)) {
        Some(kind) => Err(EncodeError::NamespaceUnknownToDialect { kind, dialect: dialect.name() }),
        None => Ok(()),
    }
}

/// A position in a buffer. Each method returns `None` if the buffer is full.
struct Writer<'o> {
    out: &'o mut [u8],
    position: usize,
}

impl Writer<'_> {
    fn message(&mut self, bootstrap: &Bootstrap<'_>, length: u32) -> Option<()> {
        self.put(&length.to_ne_bytes())?;
        self.put(&MESSAGE_TYPE.to_ne_bytes())?;
        self.put(&FLAGS.to_ne_bytes())?;
        self.put(&SEQUENCE.to_ne_bytes())?;
        self.put(&0_u32.to_ne_bytes())?;
        for (attribute, value) in values(bootstrap) {
            self.attribute(attribute, value)?;
        }
        Some(())
    }

    fn attribute(&mut self, attribute: Attribute, value: Value<'_>) -> Option<()> {
        let length = u16::try_from(value.len().checked_add(ATTR_HEADER_LEN)?).ok()?;
        self.put(&length.to_ne_bytes())?;
        self.put(&attribute.number().to_ne_bytes())?;
        match value {
            Value::U32(number) => self.put(&number.to_ne_bytes())?,
            Value::Text(text) => {
                self.put(text)?;
                self.put(&[0])?;
            }
        }
        self.put([0; 3].get(..padding_of(value.len()))?)
    }

    fn put(&mut self, bytes: &[u8]) -> Option<()> {
        let end = self.position.checked_add(bytes.len())?;
        self.out.get_mut(self.position..end)?.copy_from_slice(bytes);
        self.position = end;
        Some(())
    }
}

#[cfg(test)]
#[path = "encode_tests.rs"]
mod tests;
