//! Properties of the message: a message survives encoding and decoding, and a changed message means what its
//! bytes mean.
//!
//! [`accepted`] compares the decoder with an independent reader, for these random messages and for the fuzzer
//! (`fuzz/run`).

use std::ffi::{CStr, CString};

use nsexec::bootstrap::{Bootstrap, Dialect, OomScoreAdj, decode};
use nsexec::idmap::IdMap;
use nsexec::launch::encode::{encode, encoded_len};
use nsexec::legacy::MountSources;
use nsexec::namespace::paths::NsPaths;
use nsexec::namespace::{NsKind, NsSet};
use nsexec::sys::types::CloneFlags;
use nsexec::timens::TimeOffsets;
use nsexec_audit::byte_order::ByteOrder;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::FileFailurePersistence;
use support::message::{accepted, u16_at};

const REGRESSIONS: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../proptest-regressions/message_properties.txt");

fn config() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(REGRESSIONS))),
        ..ProptestConfig::default()
    }
}

/// The owned parts of a message, from which a [`Bootstrap`] is built.
#[derive(Clone, Debug)]
struct Parts {
    flags: u32,
    namespaces: Option<Vec<u8>>,
    maps: [Option<CString>; 2],
    setgroup: Option<bool>,
    oom: Option<CString>,
    rootless: bool,
    tools: [Option<CString>; 2],
    /// Time offsets or mount sources, depending on the dialect.
    extra: Option<Vec<u8>>,
}

impl Parts {
    fn bootstrap(&self, dialect: &Dialect) -> Bootstrap<'_> {
        let mut message = Bootstrap::new(CloneFlags(self.flags)).with_rootless_euid(self.rootless);
        if let Some(text) = &self.namespaces {
            message = message.with_namespaces(NsPaths::parse(text, NsSet::ALL).unwrap());
        }
        if let Some(map) = &self.maps[0] {
            message = message.with_uid_map(IdMap::parse(map).unwrap());
        }
        if let Some(map) = &self.maps[1] {
            message = message.with_gid_map(IdMap::parse(map).unwrap());
        }
        if let Some(allowed) = self.setgroup {
            message = message.with_setgroup(allowed);
        }
        if let Some(oom) = &self.oom {
            message = message.with_oom_score_adj(OomScoreAdj::parse(oom).unwrap());
        }
        if let Some(path) = &self.tools[0] {
            message = message.with_uidmap_path(path);
        }
        if let Some(path) = &self.tools[1] {
            message = message.with_gidmap_path(path);
        }
        match (&self.extra, dialect.name()) {
            (Some(value), "v1_1") => message.with_mount_sources(MountSources::parse(value).unwrap()),
            (Some(value), "v1_2") => {
                let text = CStr::from_bytes_with_nul(value).unwrap();
                message.with_timens_offsets(TimeOffsets::parse(text).unwrap())
            }
            _ => message,
        }
    }
}

fn c_string(max: usize) -> impl Strategy<Value = CString> {
    vec(1..=255_u8, 0..max).prop_map(|bytes| CString::new(bytes).unwrap())
}

fn namespaces(known: NsSet) -> impl Strategy<Value = Vec<u8>> {
    let kinds: Vec<_> = known.iter().collect();
    let path = vec((1..=255_u8).prop_filter("no comma", |byte| *byte != b','), 1..20);
    let count = kinds.len();
    (Just(kinds).prop_shuffle(), vec(path, 1..=count)).prop_map(|(kinds, paths)| {
        let entry = |(kind, path): (&NsKind, &Vec<u8>)| [kind.name().as_bytes(), b":", path].concat();
        kinds.iter().zip(&paths).map(entry).collect::<Vec<_>>().join(&b","[..])
    })
}

/// Generates ranges in sequence, with gaps, and shuffles their lines.
fn id_map() -> impl Strategy<Value = CString> {
    let lines = vec((0..100_u32, 0..100_u32, 1..100_u32), 1..30).prop_map(|ranges| {
        let (mut inside, mut outside) = (0, 0);
        let line = |(gap, other_gap, count)| {
            inside += gap;
            outside += other_gap;
            let line = format!("{inside} {outside} {count}");
            inside += count;
            outside += count;
            line
        };
        ranges.into_iter().map(line).collect::<Vec<_>>()
    });
    (lines.prop_shuffle(), any::<bool>()).prop_map(|(lines, newline)| {
        CString::new(lines.join("\n") + if newline { "\n" } else { "" }).unwrap()
    })
}

fn extra(dialect: &Dialect) -> BoxedStrategy<Vec<u8>> {
    if dialect.name() == "v1_1" {
        let entries = vec(c_string(10).prop_map(CString::into_bytes_with_nul), 0..6);
        return entries.prop_map(|entries| [entries.concat(), vec![0]].concat()).boxed();
    }
    let clocks = select(vec![&["monotonic"][..], &["boottime"], &["boottime", "monotonic"]]);
    (clocks, any::<[i64; 2]>(), any::<[u32; 2]>())
        .prop_map(|(clocks, secs, nanos)| {
            let line =
                |(at, clock): (usize, &&str)| format!("{clock} {} {}\n", secs[at], nanos[at] % 1_000_000_000);
            let text: String = clocks.iter().enumerate().map(line).collect();
            CString::new(text).unwrap().into_bytes_with_nul()
        })
        .boxed()
}

fn parts(dialect: &'static Dialect) -> impl Strategy<Value = Parts> {
    let has_extra = matches!(dialect.name(), "v1_1" | "v1_2");
    let oom = (-1000..=1000_i16).prop_map(|oom| CString::new(oom.to_string()).unwrap());
    let maybe = proptest::option::of::<BoxedStrategy<CString>>;
    (
        any::<u32>(),
        proptest::option::of(namespaces(dialect.namespaces)),
        [maybe(id_map().boxed()), maybe(id_map().boxed())],
        any::<Option<bool>>(),
        maybe(oom.boxed()),
        any::<bool>(),
        [maybe(c_string(20).boxed()), maybe(c_string(20).boxed())],
        proptest::option::of(extra(dialect)).prop_map(move |extra| extra.filter(|_| has_extra)),
    )
        .prop_map(|(flags, namespaces, maps, setgroup, oom, rootless, tools, extra)| Parts {
            flags,
            namespaces,
            maps,
            setgroup,
            oom,
            rootless,
            tools,
            extra,
        })
}

#[derive(Clone, Debug)]
struct Written {
    dialect: &'static Dialect,
    order: ByteOrder,
    parts: Parts,
    bytes: Vec<u8>,
}

impl Written {
    /// Converts bytes of this message to the byte order of this machine, the only one that the decoder reads.
    fn native(&self, bytes: &[u8]) -> Vec<u8> {
        self.order.to_native(bytes, self.dialect)
    }
}

fn written() -> impl Strategy<Value = Written> {
    let order = select(vec![ByteOrder::Little, ByteOrder::Big]);
    (select(Dialect::ALL.to_vec()), order).prop_flat_map(|(dialect, order)| {
        parts(dialect).prop_map(move |parts| {
            let message = parts.bootstrap(dialect);
            let mut bytes = vec![0xaa; encoded_len(&message)];
            let length = encode(&message, dialect, &mut bytes).unwrap();
            assert_eq!(length, bytes.len());
            let bytes = order.from_native(&bytes, dialect);
            Written { dialect, order, parts, bytes }
        })
    })
}

fn attribute(number: u16, value: &[u8], order: ByteOrder) -> Vec<u8> {
    let length = u16::try_from(value.len() + 4).unwrap();
    let two = |n: u16| if order == ByteOrder::Big { n.to_be_bytes() } else { n.to_le_bytes() };
    let mut bytes = [&two(length)[..], &two(number), value].concat();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// Writes the real length into the header.
fn set_length(bytes: &mut [u8], order: ByteOrder) {
    let length = u32::try_from(bytes.len()).unwrap();
    let length = if order == ByteOrder::Big { length.to_be_bytes() } else { length.to_le_bytes() };
    bytes[..4].copy_from_slice(&length);
}

/// Returns the offsets at which attributes begin, and the end of the last one.
fn borders(bytes: &[u8], order: ByteOrder) -> Vec<usize> {
    let mut borders = vec![16];
    while borders[borders.len() - 1] < bytes.len() {
        let at = borders[borders.len() - 1];
        borders.push(at + u16_at(bytes, at, order).next_multiple_of(4));
    }
    borders
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn encoded_message_decodes_to_the_same(written in written()) {
        let message = written.parts.bootstrap(written.dialect);
        let native = written.native(&written.bytes);
        let (again, consumed) = decode(&native, written.dialect).unwrap();
        prop_assert_eq!(consumed, written.bytes.len());
        prop_assert!(again.is_equivalent_to(&message));
        // Go never writes SETGROUP as false; every other value keeps its form.
        prop_assert_eq!(again.setgroup_present(), message.setgroup().then_some(true));
        prop_assert!(accepted(&written.bytes, written.dialect, written.order).is_some());
    }

    #[test]
    fn bytes_after_the_message_are_ignored(written in written(), surplus in vec(any::<u8>(), 0..40)) {
        let longer = [&written.bytes[..], &surplus].concat();
        let (longer, native) = (written.native(&longer), written.native(&written.bytes));
        let (message, consumed) = decode(&longer, written.dialect).unwrap();
        prop_assert_eq!(consumed, written.bytes.len());
        prop_assert_eq!(message, decode(&native, written.dialect).unwrap().0);
    }

    #[test]
    fn changed_byte_is_refused_or_decoded_as_written(
        written in written(), at in any::<Index>(), change in 1..=255_u8,
    ) {
        let before = accepted(&written.bytes, written.dialect, written.order).unwrap();
        let mut bytes = written.bytes.clone();
        let at = at.index(bytes.len());
        bytes[at] ^= change;
        let after = accepted(&bytes, written.dialect, written.order);
        let in_header = at < 16;
        let borders = borders(&written.bytes, written.order);
        let start = borders.iter().rev().find(|border| **border <= at).copied().unwrap_or(0);
        let length = if in_header { 0 } else { u16_at(&written.bytes, start, written.order) };
        if in_header && at >= 6 {
            // Flags, sequence number and port have no meaning, as in runc.
            prop_assert_eq!(after.as_ref(), Some(&before));
        } else if (4..6).contains(&at) {
            prop_assert_eq!(after, None, "another message type");
        } else if !in_header && at >= start + length {
            prop_assert_eq!(after.as_ref(), Some(&before), "padding");
        } else if !in_header && at >= start + 4 {
            // In a value: only this attribute may differ, and it does.
            let number = u16_at(&written.bytes, start + 2, written.order);
            if let Some(mut after) = after {
                prop_assert_ne!(after.get(&number), before.get(&number));
                after.insert(number, before[&number].clone());
                prop_assert_eq!(after, before);
            }
        } else if !in_header && at >= start + 2 {
            // The number changes: one attribute is missing, and a new one appears that was not there before.
            if let Some(mut after) = after {
                let number = |bytes: &[u8]| u16_at(bytes, start + 2, written.order);
                let (old, new) = (number(&written.bytes), number(&bytes));
                after.remove(&new);
                let mut before = before;
                before.remove(&old);
                after.remove(&27287);
                before.remove(&27287);
                prop_assert_eq!(after, before);
            }
        }
        // The length of the message or of an attribute changes: the oracle has checked an accepted message.
    }

    #[test]
    fn a_message_without_its_end_is_refused(written in written(), end in any::<Index>()) {
        let end = end.index(written.bytes.len());
        let native = written.native(&written.bytes[..end]);
        let error = decode(&native, written.dialect).unwrap_err();
        prop_assert_eq!(error.offset, end);
        prop_assert!(matches!(error.kind.name(), "truncated_header" | "truncated_payload"));
    }

    #[test]
    fn additional_attribute_is_refused_or_new(
        written in written(), at in any::<Index>(),
        // Also with NLA_F_NESTED and NLA_F_NET_BYTEORDER: a number is compared as a whole.
        number in (27279..27294_u16, select(vec![0, 0, 0x8000, 0x4000])).prop_map(|(low, bit)| low | bit),
        value in prop_oneof![
            vec(any::<u8>(), 0..9),
            Just(b"1 1 1\n\0".to_vec()), Just(b"net:/x\0".to_vec()), Just(b"7\0".to_vec()),
            Just(b"boottime 1 1\n\0".to_vec()), Just(b"/a\0\0".to_vec()), Just(vec![1]), Just(vec![0; 4]),
        ],
    ) {
        let before = accepted(&written.bytes, written.dialect, written.order).unwrap();
        let borders = borders(&written.bytes, written.order);
        let at = borders[at.index(borders.len())];
        let mut bytes = written.bytes.clone();
        bytes.splice(at..at, attribute(number, &value, written.order));
        set_length(&mut bytes, written.order);
        let after = accepted(&bytes, written.dialect, written.order);
        let number = usize::from(number);
        // The encoder always writes ROOTLESS_EUID, so every key of `before` is present.
        if before.contains_key(&number) {
            prop_assert_eq!(after, None, "one that was there already");
        } else if let Some(mut after) = after {
            prop_assert!(after.remove(&number).is_some());
            prop_assert_eq!(after, before);
        }
    }

    #[test]
    fn spliced_message_is_refused_or_decoded_as_written(
        one in written(), other in written(), cuts in any::<[Index; 2]>(), bytes_apart in any::<bool>(),
    ) {
        let place = |index: &Index, written: &Written| {
            let borders = borders(&written.bytes, written.order);
            if bytes_apart {
                return 16 + index.index(written.bytes.len() - 15);
            }
            borders[index.index(borders.len())]
        };
        let (end, start) = (place(&cuts[0], &one), place(&cuts[1], &other));
        let mut bytes = [&one.bytes[..end], &other.bytes[start..]].concat();
        set_length(&mut bytes, one.order);
        accepted(&bytes, one.dialect, one.order);
    }

    #[test]
    fn random_bytes_never_panic(
        bytes in vec(any::<u8>(), 0..200), dialect in select(Dialect::ALL.to_vec()), framed in any::<bool>(),
    ) {
        let mut bytes = bytes;
        if framed && bytes.len() >= 16 {
            set_length(&mut bytes, ByteOrder::Little);
            bytes[4..6].copy_from_slice(&62000_u16.to_le_bytes());
        }
        accepted(&bytes, dialect, ByteOrder::Little);
        accepted(&bytes, dialect, ByteOrder::Big);
    }

    #[test]
    fn random_attributes_never_panic(
        attributes in vec(
            (27280..27292_u16, vec(select(b"\0\0\x01 \n019-:,/netuser".to_vec()), 0..12)), 0..6,
        ),
        dialect in select(Dialect::ALL.to_vec()),
    ) {
        let order = ByteOrder::Little;
        let mut bytes = vec![0; 16];
        bytes[4..6].copy_from_slice(&62000_u16.to_le_bytes());
        bytes.extend(attribute(27281, &[0; 4], order));
        for (number, value) in attributes {
            bytes.extend(attribute(number, &value, order));
        }
        set_length(&mut bytes, order);
        accepted(&bytes, dialect, order);
    }
}
