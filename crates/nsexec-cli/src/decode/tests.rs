use std::fs;
use std::io::Cursor;

use serde_json::Value;

use super::*;
use crate::testing::snapshot;

/// Returns a vector's bytes, its dialect and the expected result.
fn vector(file: &str) -> (Vec<u8>, &'static Dialect, Value) {
    let path = format!("{}/../../tests/vectors/{file}.json", env!("CARGO_MANIFEST_DIR"));
    let vector: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let hex = vector["hex"].as_str().unwrap();
    let bytes =
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
    let dialect = Dialect::from_name(vector["dialect"].as_str().unwrap()).unwrap();
    (bytes, dialect, vector["expected"].clone())
}

#[test]
fn decoded_messages_match_the_snapshots() {
    for file in [
        "01_rootful_five_ns",
        "03_rootless_tools",
        "06_join_net_only",
        "07_timens_one",
        "16_mount_sources_v11",
        "18_seed_rootful",
        "21_ns_path_not_utf8",
        "30_minimal_big_endian",
    ] {
        let (bytes, dialect, _) = vector(file);
        let text = show(&bytes, dialect, false).unwrap_or_else(|refused| refused.text);
        snapshot(|| insta::assert_snapshot!(format!("decode_{file}"), text));
        let json = show(&bytes, dialect, true).unwrap_or_else(|refused| refused.json);
        let json: Value = serde_json::from_str(&json).unwrap();
        snapshot(|| insta::assert_json_snapshot!(format!("decode_{file}_json"), json));
    }
}

/// Every vector tests the JSON, since vectors have the same format.
#[test]
fn json_matches_the_vectors() {
    let folder = format!("{}/../../tests/vectors", env!("CARGO_MANIFEST_DIR"));
    let mut seen = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let file = path.file_stem().unwrap().to_string_lossy().into_owned();
        let (bytes, dialect, expected) = vector(&file);
        let json = show(&bytes, dialect, true).unwrap_or_else(|refused| refused.json);
        let json: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["ok"], expected["ok"], "{file}");
        assert_eq!(json["error"]["kind"], expected["error"]["kind"], "{file}");
        seen += 1;
    }
    assert!(seen > 40, "only {seen} vectors");
}

#[test]
fn decode_error_names_kind_and_offset() {
    let mut out = String::new();
    for file in ["31_eof_immediately", "34_nlmsg_len_past_end", "45_nla_len_past_end", "55_embedded_nul_map"]
    {
        let (bytes, dialect, _) = vector(file);
        let refused = show(&bytes, dialect, true).err().unwrap();
        out += &format!("{}\n{}", refused.text, refused.json);
    }
    snapshot(|| insta::assert_snapshot!("decode_refusals", out));
}

#[test]
fn read_message_stops_at_the_end_of_the_message() {
    let (bytes, ..) = vector("28_surplus_after_message");
    let mut input = Cursor::new(bytes.clone());
    let message = read_message(&mut input).unwrap();
    assert_eq!(message, bytes[..bytes.len() - 2]);
    assert_eq!(input.position(), message.len() as u64);
}
