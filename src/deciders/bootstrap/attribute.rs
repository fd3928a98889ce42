//! The attributes of the message: their numbers, formats and values (`docs/protocol.md#attributes`).

use core::ffi::CStr;
use core::fmt;

use super::dialect::Dialect;
use super::error::ParseErrorKind;
use super::text::{Lossy, signed_decimal};

/// An attribute of the bootstrap message.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Attribute {
    /// 27281: the namespaces to create, as `CLONE_NEW*` bits. Mandatory.
    CloneFlags,
    /// 27282: the namespaces to join.
    NsPaths,
    /// 27283: the user id map.
    UidMap,
    /// 27284: the group id map.
    GidMap,
    /// 27285: whether setgroups(2) stays allowed. Written only as true.
    SetGroup,
    /// 27286: the OOM score adjustment.
    OomScoreAdj,
    /// 27287: whether the launcher's effective user id is not 0.
    RootlessEuid,
    /// 27288: the absolute path of newuidmap.
    UidMapPath,
    /// 27289: the absolute path of newgidmap.
    GidMapPath,
    /// 27290 in 1.1: the sources of bind mounts.
    #[cfg(feature = "legacy")]
    MountSources,
    /// 27290 since 1.2: the offsets of a new time namespace.
    TimeOffsets,
}

/// The format of an attribute's value.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Shape {
    /// A number of four bytes.
    U32,
    /// 0 or 1, in four bytes or in one.
    Bool,
    /// Bytes, and one NUL at the end.
    Text,
    /// Entries, each with a NUL, and one more NUL at the end.
    #[cfg(feature = "legacy")]
    List,
}

impl Attribute {
    /// Returns the attribute with this number. As in runc, the number is compared without masking:
    /// `NLA_F_NESTED` and `NLA_F_NET_BYTEORDER` are part of it.
    #[must_use]
    pub const fn from_number(number: u16, dialect: &Dialect) -> Option<Self> {
        Some(match number {
            27281 => Self::CloneFlags,
            27282 => Self::NsPaths,
            27283 => Self::UidMap,
            27284 => Self::GidMap,
            27285 => Self::SetGroup,
            27286 => Self::OomScoreAdj,
            27287 => Self::RootlessEuid,
            27288 => Self::UidMapPath,
            27289 => Self::GidMapPath,
            27290 => return dialect.attribute_27290,
            _ => return None,
        })
    }

    /// Returns the number, the name and the format of the value.
    const fn row(self) -> (u16, &'static str, Shape) {
        match self {
            Self::CloneFlags => (27281, "CLONE_FLAGS", Shape::U32),
            Self::NsPaths => (27282, "NS_PATHS", Shape::Text),
            Self::UidMap => (27283, "UIDMAP", Shape::Text),
            Self::GidMap => (27284, "GIDMAP", Shape::Text),
            Self::SetGroup => (27285, "SETGROUP", Shape::Bool),
            Self::OomScoreAdj => (27286, "OOM_SCORE_ADJ", Shape::Text),
            Self::RootlessEuid => (27287, "ROOTLESS_EUID", Shape::Bool),
            Self::UidMapPath => (27288, "UIDMAPPATH", Shape::Text),
            Self::GidMapPath => (27289, "GIDMAPPATH", Shape::Text),
            #[cfg(feature = "legacy")]
            Self::MountSources => (27290, "MOUNT_SOURCES", Shape::List),
            Self::TimeOffsets => (27290, "TIMENSOFFSET", Shape::Text),
        }
    }

    /// Returns the `nla_type` of the attribute.
    #[must_use]
    pub const fn number(self) -> u16 {
        self.row().0
    }

    /// Returns the attribute's name in runc, without the `_ATTR`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.row().1
    }

    /// Returns the format of the value.
    #[must_use]
    pub const fn shape(self) -> Shape {
        self.row().2
    }

    /// Checks the format of a value, but not its meaning.
    pub(super) fn check(self, value: &[u8]) -> Result<(), ParseErrorKind<'_>> {
        match self.shape() {
            Shape::U32 => u32_value(value).map(drop),
            Shape::Bool => bool_value(value).map(drop),
            Shape::Text => text_value(value).map(drop),
            #[cfg(feature = "legacy")]
            Shape::List => crate::legacy::MountSources::parse(value).map(drop),
        }
    }
}

impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name(), self.number())
    }
}

/// Reads a value of four bytes. runc's C code reads past a shorter value and ignores the rest of a longer one
/// (`docs/protocol.md#weaknesses-of-the-c-code`).
pub(super) fn u32_value(value: &[u8]) -> Result<u32, ParseErrorKind<'_>> {
    let bytes = value.try_into();
    let bytes = bytes.map_err(|_| ParseErrorKind::AttrBadSize { size: value.len(), wanted: "4" })?;
    Ok(u32::from_ne_bytes(bytes))
}

/// Reads a bool of four bytes, or of one byte. runc's C code reads only the first byte, so on a big-endian
/// machine every bool of four bytes is false.
pub(super) fn bool_value(value: &[u8]) -> Result<bool, ParseErrorKind<'_>> {
    let number = match *value {
        [byte] => u32::from(byte),
        [a, b, c, d] => u32::from_ne_bytes([a, b, c, d]),
        _ => return Err(ParseErrorKind::AttrBadSize { size: value.len(), wanted: "4 or 1" }),
    };
    match number {
        0 => Ok(false),
        1 => Ok(true),
        value => Err(ParseErrorKind::BadBool { value }),
    }
}

/// Reads a text, which must end with its only NUL.
pub(super) fn text_value(value: &[u8]) -> Result<&CStr, ParseErrorKind<'_>> {
    #[cfg(test)]
    super::text::steps::add(value.len());
    if value.last() != Some(&0) {
        return Err(ParseErrorKind::MissingNul);
    }
    CStr::from_bytes_with_nul(value).map_err(|_| ParseErrorKind::EmbeddedNul)
}

/// An OOM score adjustment as text (proc_pid_oom_score_adj(5)).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct OomScoreAdj<'m> {
    text: &'m CStr,
    value: i16,
}

/// The error of a refused OOM score adjustment.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub struct OomScoreAdjError<'m> {
    /// The text found.
    pub text: &'m [u8],
}

impl<'m> OomScoreAdj<'m> {
    /// Parses a decimal number from −1000 to 1000, with `-` but without `+` or blanks.
    ///
    /// Leading zeros are refused: the kernel reads the file in any base, so that `010` would be 8.
    ///
    /// # Errors
    ///
    /// Any other text.
    pub fn parse(text: &'m CStr) -> Result<Self, OomScoreAdjError<'m>> {
        let bytes = text.to_bytes();
        let refused = OomScoreAdjError { text: bytes };
        let digits = bytes.strip_prefix(b"-").unwrap_or(bytes);
        if digits.len() > 1 && digits.starts_with(b"0") {
            return Err(refused);
        }
        let value = signed_decimal(bytes).ok().and_then(|value| i16::try_from(value).ok());
        let value = value.filter(|value| (-1000..=1000).contains(value)).ok_or(refused)?;
        Ok(Self { text, value })
    }

    /// Returns the number, from −1000 to 1000.
    #[must_use]
    pub const fn value(&self) -> i16 {
        self.value
    }

    /// Returns the original text, without its NUL.
    #[must_use]
    pub const fn text(&self) -> &'m [u8] {
        self.text.to_bytes()
    }

    /// Returns the original text with its NUL, which runc writes to the kernel.
    #[must_use]
    pub const fn text_with_nul(&self) -> &'m [u8] {
        self.text.to_bytes_with_nul()
    }
}

impl fmt::Display for OomScoreAdjError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "found '{}', wanted a decimal number from -1000 to 1000", Lossy(self.text))
    }
}

impl core::error::Error for OomScoreAdjError<'_> {}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;

    #[test]
    fn attribute_numbers_are_consistent() {
        for &dialect in Dialect::ALL {
            for number in 0..=u16::MAX {
                if let Some(attribute) = Attribute::from_number(number, dialect) {
                    assert_eq!(attribute.number(), number);
                }
            }
        }
        assert_eq!(Attribute::from_number(27283 | 0x8000, &Dialect::V1_2), None);
    }

    #[test]
    fn bool_has_four_bytes_or_one() {
        assert_eq!(bool_value(&[1]), Ok(true));
        assert_eq!(bool_value(&1_u32.to_ne_bytes()), Ok(true));
        // A bool of a machine with the other byte order.
        assert_eq!(
            bool_value(&0x0100_0000_u32.to_ne_bytes()),
            Err(ParseErrorKind::BadBool { value: 0x0100_0000 })
        );
        assert_eq!(bool_value(&[2]), Err(ParseErrorKind::BadBool { value: 2 }));
        for size in [0, 2, 3, 5] {
            let value = [0; 5].split_at(size).0.to_vec();
            assert!(bool_value(&value).is_err());
        }
    }

    #[test]
    fn oom_score_is_a_plain_decimal_number() {
        for (text, value) in [(c"0", 0), (c"-1000", -1000), (c"1000", 1000), (c"-7", -7)] {
            assert_eq!(OomScoreAdj::parse(text).unwrap().value(), value);
        }
        for text in [
            c"",
            c"-",
            c"+1",
            c"1001",
            c"-1001",
            c"010",
            c"-01",
            c"0x10",
            c"1\n",
            c" 1",
            c"99999999999999999999",
        ] {
            assert!(OomScoreAdj::parse(text).is_err(), "{text:?}");
        }
    }
}
