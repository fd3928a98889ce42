//! Messages of a machine with another byte order. A message always has the byte order of its machine, and the
//! decoder reads only that of its own. So a file of another machine is converted before it is decoded.

use nsexec::bootstrap::attribute::Shape;
use nsexec::bootstrap::{Attribute, Dialect, HEADER_LEN};

/// The byte order of the numbers of a message.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ByteOrder {
    /// The lowest byte first: x86-64, aarch64.
    Little,
    /// The highest byte first: s390x.
    Big,
}

impl ByteOrder {
    /// The byte order of this machine.
    pub const NATIVE: Self = if cfg!(target_endian = "big") { Self::Big } else { Self::Little };

    /// Returns the byte order of a message, found by its type field. The order of a field with another value
    /// is that of this machine.
    #[must_use]
    pub fn of(message: &[u8]) -> Self {
        match message.get(4..6) {
            Some([0x30, 0xf2]) => Self::Little,
            Some([0xf2, 0x30]) => Self::Big,
            _ => Self::NATIVE,
        }
    }

    /// Returns the name: `little` or `big`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Little => "little",
            Self::Big => "big",
        }
    }

    /// Converts a message of this byte order, which may be malformed, to the byte order of this machine.
    #[must_use]
    pub fn to_native(self, message: &[u8], dialect: &Dialect) -> Vec<u8> {
        let mut converted = message.to_vec();
        if self != Self::NATIVE {
            let reversed = reverse_header(&mut converted);
            let length = u32::from_ne_bytes(reversed).try_into().unwrap_or(usize::MAX);
            reverse_attributes(&mut converted, length, dialect, |number| number.swap_bytes());
        }
        converted
    }

    /// Converts a message from the byte order of this machine.
    #[must_use]
    pub fn from_native(self, message: &[u8], dialect: &Dialect) -> Vec<u8> {
        let mut converted = message.to_vec();
        if self != Self::NATIVE {
            let reversed = reverse_header(&mut converted);
            let length = u32::from_ne_bytes(reversed).swap_bytes().try_into().unwrap_or(usize::MAX);
            reverse_attributes(&mut converted, length, dialect, |number| number);
        }
        converted
    }
}

/// Reverses the five numbers of the header, if it is complete. Returns the reversed length.
fn reverse_header(message: &mut [u8]) -> [u8; 4] {
    let Some(header) = message.first_chunk_mut::<HEADER_LEN>() else { return [0; 4] };
    for (from, to) in [(0, 4), (4, 6), (6, 8), (8, 12), (12, 16)] {
        header[from..to].reverse();
    }
    [header[0], header[1], header[2], header[3]]
}

/// Reverses the numbers of the attributes up to the end of the message or the first malformed header.
/// `before` returns a number of an attribute's header from its bytes before they are reversed.
fn reverse_attributes(message: &mut [u8], length: usize, dialect: &Dialect, before: fn(u16) -> u16) {
    let end = length.min(message.len());
    let mut rest = message.get_mut(HEADER_LEN..end).unwrap_or_default();
    while let Some((header, body)) = rest.split_first_chunk_mut::<4>() {
        let [l0, l1, n0, n1] = *header;
        let [length, number] = [[l0, l1], [n0, n1]].map(|bytes| before(u16::from_ne_bytes(bytes)));
        *header = [l1, l0, n1, n0];
        let length = usize::from(length);
        let Some(value) = length.checked_sub(4).and_then(|length| body.get_mut(..length)) else { return };
        let shape = Attribute::from_number(number, dialect).map(Attribute::shape);
        if value.len() == 4 && matches!(shape, Some(Shape::U32 | Shape::Bool)) {
            value.reverse();
        }
        rest = body.get_mut(length.next_multiple_of(4) - 4..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use nsexec::bootstrap::{Bootstrap, ParseErrorKind, decode};
    use nsexec::launch::encode::encode;
    use nsexec::sys::types::CloneFlags;

    use super::*;

    const FOREIGN: ByteOrder = match ByteOrder::NATIVE {
        ByteOrder::Little => ByteOrder::Big,
        ByteOrder::Big => ByteOrder::Little,
    };

    /// Returns a message with these attributes, in the byte order of this machine.
    fn message(attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = [[0; 4], [0; 4], [1; 4], [0; 4]].concat();
        bytes[4..6].copy_from_slice(&62000_u16.to_ne_bytes());
        for (number, value) in attributes {
            bytes.extend(u16::try_from(value.len() + 4).unwrap().to_ne_bytes());
            bytes.extend(number.to_ne_bytes());
            bytes.extend(*value);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        let length = u32::try_from(bytes.len()).unwrap().to_ne_bytes();
        bytes[..4].copy_from_slice(&length);
        bytes
    }

    #[test]
    fn foreign_message_is_converted_in_both_directions() {
        let dialect = &Dialect::V1_2;
        let asked = Bootstrap::new(CloneFlags::NEWNET).with_setgroup(true).with_uidmap_path(c"/ab");
        let mut bytes = [0; 128];
        let length = encode(&asked, dialect, &mut bytes).unwrap();
        let foreign = FOREIGN.from_native(&bytes[..length], dialect);
        assert_eq!((ByteOrder::of(&foreign), ByteOrder::of(&bytes)), (FOREIGN, ByteOrder::NATIVE));
        // A text of four bytes is not a number.
        assert!(foreign.windows(4).any(|bytes| bytes == b"/ab\0"));
        let native = FOREIGN.to_native(&foreign, dialect);
        assert_eq!(native, bytes[..length]);
        assert!(decode(&native, dialect).unwrap().0.is_equivalent_to(&asked));
        // Bytes after the message are unchanged.
        let longer = [&foreign[..], &[1, 2, 3, 4, 5]].concat();
        assert_eq!(FOREIGN.to_native(&longer, dialect), [&bytes[..length], &[1, 2, 3, 4, 5]].concat());
    }

    #[test]
    fn bool_of_the_other_byte_order_is_read_as_a_whole() {
        let dialect = &Dialect::V1_2;
        let decoded = |order: ByteOrder, value: [u8; 4]| {
            let flags = 0_u32.to_ne_bytes();
            let message = message(&[(27281, &flags), (27287, &[0]), (27285, &value)]);
            // As the other machine writes it: all but the value is in its byte order.
            let mut foreign = order.from_native(&message, dialect);
            let at = foreign.len() - 4;
            foreign[at..].copy_from_slice(&value);
            let native = order.to_native(&foreign, dialect);
            decode(&native, dialect).map(|(message, _)| message.setgroup()).map_err(|error| {
                assert_eq!(error.kind, ParseErrorKind::BadBool { value: 0x0100_0000 });
            })
        };
        assert_eq!(decoded(ByteOrder::Big, [0, 0, 0, 1]), Ok(true));
        assert_eq!(decoded(ByteOrder::Little, [1, 0, 0, 0]), Ok(true));
        assert_eq!(decoded(ByteOrder::Big, [1, 0, 0, 0]), Err(()));
    }

    #[test]
    fn malformed_message_is_converted_up_to_its_error() {
        let dialect = &Dialect::V1_2;
        let native = message(&[(27281, &[0; 4]), (27283, b"0 0 1\n\0")]);
        for end in 0..native.len() {
            let foreign = FOREIGN.from_native(&native, dialect);
            let converted = FOREIGN.to_native(&foreign[..end], dialect);
            assert_eq!(decode(&converted, dialect), decode(&native[..end], dialect), "{end} bytes");
        }
    }
}
