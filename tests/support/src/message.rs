//! The decoder of the message beside an independent reader: a few lines that walk the bytes and return the
//! raw value of each attribute. A message that the decoder accepts must have exactly these values.

use std::collections::BTreeMap;

use nsexec::bootstrap::{Bootstrap, Dialect, MESSAGE_MAX, decode};
use nsexec::launch::encode::{encode, encoded_len};
use nsexec_audit::byte_order::ByteOrder;

/// Returns the two bytes at an offset as a number.
#[must_use]
pub fn u16_at(bytes: &[u8], at: usize, order: ByteOrder) -> usize {
    let bytes = [bytes[at], bytes[at + 1]];
    usize::from(if order == ByteOrder::Big { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
}

/// Returns the four bytes at an offset as a number.
#[must_use]
pub fn u32_at(bytes: &[u8], at: usize, order: ByteOrder) -> u32 {
    let bytes = [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
    if order == ByteOrder::Big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
}

/// Returns the raw value of each attribute of a message. Panics on malformed bytes, which the decoder must
/// refuse.
fn oracle(bytes: &[u8], order: ByteOrder) -> BTreeMap<usize, Vec<u8>> {
    let end = usize::try_from(u32_at(bytes, 0, order)).unwrap();
    assert!(end <= MESSAGE_MAX && u16_at(bytes, 4, order) == 62000);
    let (mut at, mut found) = (16, BTreeMap::new());
    while at < end {
        let length = u16_at(bytes, at, order);
        assert!(length >= 4 && at + length <= end, "attribute at {at} is not inside");
        let twice = found.insert(u16_at(bytes, at + 2, order), bytes[at + 4..at + length].to_vec());
        assert_eq!(twice, None, "attribute at {at} is there twice");
        at += length.next_multiple_of(4);
    }
    found
}

/// Returns the same values from a decoded message. A bool is written as one byte.
fn said(message: &Bootstrap<'_>) -> BTreeMap<usize, Vec<u8>> {
    let with_nul = |bytes: &[u8]| [bytes, b"\0"].concat();
    let mut said = BTreeMap::from([
        (27281, message.clone_flags().0.to_le_bytes().to_vec()),
        (27287, vec![u8::from(message.rootless_euid())]),
    ]);
    let texts = [
        (27282, message.namespaces().map(|paths| with_nul(paths.text()))),
        (27283, message.uid_map().map(|map| map.text_with_nul().to_vec())),
        (27284, message.gid_map().map(|map| map.text_with_nul().to_vec())),
        (27285, message.setgroup_present().map(|allowed| vec![u8::from(allowed)])),
        (27286, message.oom_score_adj().map(|oom| oom.text_with_nul().to_vec())),
        (27288, message.uidmap_path().map(|path| path.to_bytes_with_nul().to_vec())),
        (27289, message.gidmap_path().map(|path| path.to_bytes_with_nul().to_vec())),
        (27290, message.timens_offsets().map(|offsets| offsets.text_with_nul().to_vec())),
        (
            27290,
            message.mount_sources().map(|sources| {
                let entries: Vec<_> = sources.iter().map(|source| [source, b"\0"].concat()).collect();
                with_nul(&entries.concat())
            }),
        ),
    ];
    said.extend(texts.into_iter().filter_map(|(number, text)| Some((number, text?))));
    said
}

/// Decodes, and compares an accepted message with the oracle and the encoder. Returns `None` for a refused
/// message.
pub fn accepted(bytes: &[u8], dialect: &Dialect, order: ByteOrder) -> Option<BTreeMap<usize, Vec<u8>>> {
    let native = order.to_native(bytes, dialect);
    let (message, consumed) = match decode(&native, dialect) {
        Ok(decoded) => decoded,
        Err(error) => {
            assert!(!error.to_string().is_empty() && error.offset <= bytes.len());
            return None;
        }
    };
    assert_eq!(consumed, usize::try_from(u32_at(bytes, 0, order)).unwrap());
    let mut raw = oracle(bytes, order);
    let flags = &raw[&27281];
    raw.insert(27281, u32_at(flags, 0, order).to_le_bytes().to_vec());
    raw.entry(27287).or_insert(vec![0]);
    for number in [27285, 27287] {
        if let Some(value) = raw.get_mut(&number).filter(|value| value.len() == 4) {
            *value = vec![u8::try_from(u32_at(value, 0, order)).unwrap()];
        }
    }
    let said = said(&message);
    assert_eq!(said, raw, "the decoder's values differ from the bytes");

    let mut out = vec![0; encoded_len(&message)];
    encode(&message, dialect, &mut out).unwrap();
    let out = order.to_native(&order.from_native(&out, dialect), dialect);
    assert!(decode(&out, dialect).unwrap().0.is_equivalent_to(&message));
    Some(said)
}
