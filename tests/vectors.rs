//! Tests of the vectors: messages with the expected result of a strict parser. An independent encoder made
//! them.

use std::fs;
use std::path::PathBuf;

use nsexec::bootstrap::{Bootstrap, Dialect, HEADER_LEN, ParseError, ParseErrorKind, decode};
use nsexec::launch::encode::encode;
use nsexec::namespace::paths::NsEntry;
use nsexec_audit::byte_order::ByteOrder;
use serde_json::{Value, json};

struct Vector {
    file: String,
    dialect: &'static Dialect,
    order: ByteOrder,
    bytes: Vec<u8>,
    expected: Value,
}

impl Vector {
    /// Converts bytes of this vector to the byte order of this machine, the only one that the decoder reads.
    fn native(&self, bytes: &[u8]) -> Vec<u8> {
        self.order.to_native(bytes, self.dialect)
    }
}

fn unhex(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn vectors() -> Vec<Vector> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors");
    let mut vectors = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let json: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let text = |key: &str| json[key].as_str().unwrap();
        vectors.push(Vector {
            file: path.file_name().unwrap().to_string_lossy().into_owned(),
            dialect: Dialect::from_name(text("dialect")).unwrap(),
            order: if text("endianness") == "big" { ByteOrder::Big } else { ByteOrder::Little },
            bytes: unhex(text("hex")),
            expected: json["expected"].clone(),
        });
    }
    vectors.sort_by(|a, b| a.file.cmp(&b.file));
    assert!(vectors.len() >= 48, "{} vectors", vectors.len());
    vectors
}

fn bytes_as_json(bytes: &[u8]) -> Value {
    json!({ "hex": hex(bytes), "text": std::str::from_utf8(bytes).ok() })
}

/// Returns a message in the format of the vectors.
fn fields(message: &Bootstrap<'_>) -> Value {
    let bytes = |value: Option<&[u8]>| value.map(bytes_as_json);
    let namespaces = message.namespaces().map(|paths| {
        let entry =
            |entry: NsEntry<'_>| json!({ "type": entry.kind.name(), "path": bytes_as_json(entry.path) });
        paths.iter().map(entry).collect::<Vec<_>>()
    });
    let sources =
        message.mount_sources().map(|sources| sources.iter().map(bytes_as_json).collect::<Vec<_>>());
    json!({
        "clone_flags": message.clone_flags().0,
        "namespaces": namespaces,
        "uid_map": bytes(message.uid_map().map(|map| map.text())),
        "gid_map": bytes(message.gid_map().map(|map| map.text())),
        "setgroup": message.setgroup_present(),
        "oom_score_adj": bytes(message.oom_score_adj().map(|oom| oom.text())),
        "rootless_euid": message.rootless_euid(),
        "uidmap_path": bytes(message.uidmap_path().map(|path| path.to_bytes())),
        "gidmap_path": bytes(message.gidmap_path().map(|path| path.to_bytes())),
        "timens_offsets": bytes(message.timens_offsets().map(|offsets| offsets.text())),
        "mount_sources": sources,
    })
}

/// Returns an error in the format of the vectors.
fn details(error: &ParseError<'_>) -> Value {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let kind = error.kind.name();
    let number = error.attribute;
    match error.kind {
        ParseErrorKind::TruncatedHeader { got } => json!({ "kind": kind, "got": got }),
        ParseErrorKind::UnexpectedMessageType { found } => json!({ "kind": kind, "type": found }),
        ParseErrorKind::BadMessageLength { length } | ParseErrorKind::MessageTooLarge { length } => {
            json!({ "kind": kind, "length": length })
        }
        ParseErrorKind::TruncatedPayload { got, want } => json!({ "kind": kind, "got": got, "want": want }),
        ParseErrorKind::TruncatedAttrHeader { remaining } => json!({ "kind": kind, "remaining": remaining }),
        ParseErrorKind::AttrTooShort { nla_len } | ParseErrorKind::AttrOverrun { nla_len, .. } => {
            json!({ "kind": kind, "nla_len": nla_len })
        }
        ParseErrorKind::AttrBadSize { size, .. } => json!({ "kind": kind, "type": number, "size": size }),
        ParseErrorKind::BadBool { value } => json!({ "kind": kind, "type": number, "value": value }),
        ParseErrorKind::BadNsEntry { entry } => json!({ "kind": kind, "entry": text(entry) }),
        ParseErrorKind::UnknownNsType { name } => json!({ "kind": kind, "type": text(name) }),
        ParseErrorKind::DuplicateNamespace { kind: namespace } => {
            json!({ "kind": kind, "type": namespace.name() })
        }
        ParseErrorKind::UnknownAttribute
        | ParseErrorKind::DuplicateAttribute
        | ParseErrorKind::MissingNul
        | ParseErrorKind::EmbeddedNul
        | ParseErrorKind::MissingAttribute
        | ParseErrorKind::BadIdMap(_) => json!({ "kind": kind, "type": number }),
        _ => json!({ "kind": kind }),
    }
}

#[test]
fn every_vector_decodes_to_its_expected_result() {
    for vector in vectors() {
        let file = &vector.file;
        let bytes = vector.native(&vector.bytes);
        match (decode(&bytes, vector.dialect), vector.expected.get("ok")) {
            (Ok((message, consumed)), Some(ok)) => {
                assert_eq!(fields(&message), *ok, "{file}");
                let left = vector.expected["leftover_bytes"].as_u64().unwrap_or(0);
                assert_eq!(u64::try_from(vector.bytes.len() - consumed).unwrap(), left, "{file}");
            }
            (Err(error), None) => assert_eq!(details(&error), vector.expected["error"], "{file}: {error}"),
            (answer, _) => panic!("{file}: {answer:?}"),
        }
    }
}

#[test]
fn truncated_message_is_refused_at_every_length() {
    for vector in vectors().into_iter().filter(|vector| vector.expected.get("ok").is_some()) {
        let bytes = vector.native(&vector.bytes);
        let (_, length) = decode(&bytes, vector.dialect).unwrap();
        let ends = (0..length).step_by(if length > 10_000 { 997 } else { 1 }).chain([length - 1]);
        for end in ends {
            let bytes = vector.native(&vector.bytes[..end]);
            let error = decode(&bytes, vector.dialect).unwrap_err();
            let expected = match end {
                0..HEADER_LEN => ParseErrorKind::TruncatedHeader { got: end },
                _ => ParseErrorKind::TruncatedPayload { got: end - HEADER_LEN, want: length - HEADER_LEN },
            };
            assert_eq!((error.kind, error.offset), (expected, end), "{}", vector.file);
        }
    }
}

#[test]
fn valid_vectors_survive_encoding_and_decoding() {
    for vector in vectors().into_iter().filter(|vector| vector.expected.get("ok").is_some()) {
        let bytes = vector.native(&vector.bytes);
        let (message, _) = decode(&bytes, vector.dialect).unwrap();
        let mut out = vec![0; vector.bytes.len() + 64];
        let length = encode(&message, vector.dialect, &mut out).unwrap();
        let out = vector.native(&vector.order.from_native(&out[..length], vector.dialect));
        let (again, consumed) = decode(&out, vector.dialect).unwrap();
        assert_eq!(consumed, length, "{}", vector.file);
        assert!(again.is_equivalent_to(&message), "{}", vector.file);
    }
}
