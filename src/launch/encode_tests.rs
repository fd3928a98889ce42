//! Unit tests of the encoder.

use std::ffi::CString;
use std::string::ToString;
use std::vec;

use super::*;
use crate::deciders::bootstrap::tests::attr;
use crate::deciders::bootstrap::{OomScoreAdj, decode};
use crate::deciders::idmap::IdMap;
use crate::deciders::namespace::{NsPaths, NsSet};
use crate::deciders::timens::TimeOffsets;
use crate::sys::types::CloneFlags;

#[test]
fn attributes_are_encoded_in_the_order_of_go() {
    let message = Bootstrap::new(CloneFlags(0x1000_0000))
        .with_namespaces(NsPaths::parse(b"net:/x", NsSet::ALL).unwrap())
        .with_uid_map(IdMap::parse(c"0 0 1\n").unwrap())
        .with_gid_map(IdMap::parse(c"0 0 1\n").unwrap())
        .with_setgroup(true)
        .with_oom_score_adj(OomScoreAdj::parse(c"-5").unwrap())
        .with_uidmap_path(c"/u")
        .with_gidmap_path(c"/g")
        .with_timens_offsets(TimeOffsets::parse(c"boottime 1 2\n").unwrap());
    let mut out = [0; 512];
    let length = encode(&message, &Dialect::V1_2, &mut out).unwrap();
    let expected = [
        attr(27281, &[0, 0, 0, 0x10]),
        attr(27282, b"net:/x\0"),
        attr(27288, b"/u\0"),
        attr(27283, b"0 0 1\n\0"),
        attr(27284, b"0 0 1\n\0"),
        attr(27289, b"/g\0"),
        attr(27285, &[1, 0, 0, 0]),
        attr(27286, b"-5\0"),
        attr(27287, &[0; 4]),
        attr(27290, b"boottime 1 2\n\0"),
    ]
    .concat();
    assert_eq!(out[16..length], expected);
    assert_eq!(encoded_len(&message), length);
    assert_eq!(out[..16], [u8::try_from(length).unwrap(), 0, 0, 0, 0x30, 0xf2, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(decode(&out, &Dialect::V1_2).unwrap(), (message, length));
}

#[test]
fn encode_refuses_values_that_the_dialect_lacks() {
    let offsets =
        Bootstrap::new(CloneFlags(0)).with_timens_offsets(TimeOffsets::parse(c"boottime 1 2").unwrap());
    let encode = |message: &Bootstrap<'_>, dialect| encode(message, dialect, &mut [0; 64]);
    #[cfg(feature = "legacy")]
    {
        let unknown = |attribute, dialect| Err(EncodeError::UnknownToDialect { attribute, dialect });
        let sources = crate::legacy::MountSources::parse(b"/a\0\0").unwrap();
        let sources = Bootstrap::new(CloneFlags(0)).with_mount_sources(sources);
        let time =
            Bootstrap::new(CloneFlags(0)).with_namespaces(NsPaths::parse(b"time:/x", NsSet::ALL).unwrap());
        assert_eq!(encode(&offsets, &Dialect::V1_1), unknown(Attribute::TimeOffsets, "v1_1"));
        assert_eq!(encode(&offsets, &Dialect::V1_0), unknown(Attribute::TimeOffsets, "v1_0"));
        assert_eq!(encode(&sources, &Dialect::V1_2), unknown(Attribute::MountSources, "v1_2"));
        assert_eq!(
            encode(&time, &Dialect::V1_1),
            Err(EncodeError::NamespaceUnknownToDialect {
                kind: crate::deciders::namespace::NsKind::Time,
                dialect: "v1_1"
            })
        );
    }
    assert_eq!(
        encode(&offsets.with_uidmap_path(c"/usr/bin/newuidmap"), &Dialect::V1_2),
        Err(EncodeError::BufferTooSmall { needed: 76, room: 64 })
    );
}

#[test]
fn encode_refuses_a_value_over_65531_bytes() {
    let path = |length: usize| CString::new(vec![b'x'; length - 1]).unwrap();
    let mut out = vec![0; MESSAGE_MAX];
    let (fits, longer) = (path(VALUE_MAX), path(VALUE_MAX + 1));
    let message = Bootstrap::new(CloneFlags(0)).with_uidmap_path(&fits);
    let length = encode(&message, &Dialect::V1_2, &mut out).unwrap();
    assert_eq!(decode(&out[..length], &Dialect::V1_2).unwrap().0, message);
    let error = encode(&message.with_uidmap_path(&longer), &Dialect::V1_2, &mut out).unwrap_err();
    assert_eq!(error, EncodeError::AttributeTooLong { attribute: Attribute::UidMapPath, length: 65532 });
    assert_eq!(error.to_string(), "attribute UIDMAPPATH (27288) has 65532 bytes, at most 65531 can be sent");
}
