//! Malformed messages: one for each kind of error, most of them from the vectors.
//!
//! Two kinds are missing: a message that ends in its header, and one that ends later. Stage 0 waits for the
//! rest while the launcher holds the pipe open. The fault sweep, in which the launcher dies, tests both.

use std::fs;
use std::path::PathBuf;

use nsexec::bootstrap::{Bootstrap, Dialect};
use nsexec::policy::Policy;
use nsexec::sys::types::CloneFlags;
use nsexec_audit::sim::User;

use super::{Scenario, Way, leak};

/// The name of the error, the vector, and a part of the fatal record.
const VECTORS: &[(&str, &str, &str)] = &[
    ("bad_message_length", "33_nlmsg_len_below_header", ""),
    ("netlink_error", "36_type_nlmsg_error", "failed to read netlink message"),
    ("unexpected_message_type", "37_type_unexpected", "unexpected msg type "),
    ("unknown_attribute", "40_attr_27291_unreleased", "unknown netlink message type 27291"),
    ("unknown_in_old_dialect", "39_attr_27290_in_v10", "unknown netlink message type 27290"),
    ("attr_too_short", "43_nla_len_one", ""),
    ("attr_overrun", "45_nla_len_past_end", ""),
    ("attr_bad_size", "48_u32_eight_bytes", ""),
    ("bad_bool", "51_bool_value_256", ""),
    ("missing_nul", "54_string_missing_nul_last", ""),
    ("embedded_nul", "55_embedded_nul_map", ""),
    ("empty_ns_paths", "57_ns_paths_empty", "ns paths are empty"),
    ("bad_ns_entry", "58_ns_no_colon", "failed to parse "),
    ("unknown_ns_type", "60_ns_unknown_type", "unknown namespace type "),
    ("duplicate_attribute", "64_duplicate_uid_map", ""),
    ("bad_oom_score", "67_oom_out_of_range", ""),
    ("bad_time_offsets", "70_timens_bad_clock", ""),
];

/// The number and the value of an attribute.
type Attribute = (u16, &'static [u8]);

/// Malformed messages without a vector: the attributes in the order of the message.
const RAW: &[(&str, &[Attribute])] = &[
    ("missing_attribute", &[]),
    ("duplicate_namespace", &[(27281, &[0; 4]), (27282, b"net:/a,net:/b\0")]),
    ("bad_id_map", &[(27281, &[0; 4]), (27283, b"0 0 1\n5 0 1\n\0")]),
];

pub(super) fn all() -> Vec<Scenario> {
    let mut all: Vec<Scenario> =
        VECTORS.iter().map(|(name, file, text)| from_vector(name, file).refused(text)).collect();
    all.extend(RAW.iter().map(|(name, attributes)| malformed(name, raw(attributes), &Dialect::V1_2)));
    let mut large = raw(&[]);
    large.splice(..4, (2_u32 << 20).to_ne_bytes());
    all.push(malformed("message_too_large", large, &Dialect::V1_2));
    let mut cut = raw(&[(27281, &[0; 4]), (27287, &[0; 4])]);
    cut.extend([7, 0]);
    let len = u32::try_from(cut.len()).expect("short");
    cut.splice(..4, len.to_ne_bytes());
    all.push(malformed("truncated_attr_header", cut, &Dialect::V1_2));
    all
}

fn malformed(name: &str, message: Vec<u8>, dialect: &'static Dialect) -> Scenario {
    let name = leak(&format!("message_{name}")).to_str().expect("ASCII");
    let about = "a malformed message, refused before any fork";
    let scenario = Scenario::new(name, about, &User::root(), &Bootstrap::new(CloneFlags::EMPTY));
    Scenario { message, policy: Policy::runc(dialect), ways: &[Way::Init], refused: Some(""), ..scenario }
}

fn from_vector(name: &str, file: &str) -> Scenario {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/vectors")
        .join(file)
        .with_extension("json");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let vector: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let hex = vector["hex"].as_str().expect("bytes");
    let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal");
    let message = (0..hex.len()).step_by(2).map(byte).collect();
    let dialect = Dialect::from_name(vector["dialect"].as_str().expect("a dialect")).expect("ours");
    malformed(name, message, dialect)
}

/// Encodes a message with these attributes.
fn raw(attributes: &[Attribute]) -> Vec<u8> {
    let mut payload: Vec<u8> = Vec::new();
    for (number, value) in attributes {
        let len = u16::try_from(value.len() + 4).expect("short");
        payload.extend(len.to_ne_bytes());
        payload.extend(number.to_ne_bytes());
        payload.extend(*value);
        payload.resize(payload.len().next_multiple_of(4), 0);
    }
    let len = u32::try_from(payload.len() + 16).expect("short");
    let mut message = len.to_ne_bytes().to_vec();
    message.extend(62000_u16.to_ne_bytes());
    message.extend(1_u16.to_ne_bytes());
    message.extend([1_u32, 0].map(u32::to_ne_bytes).concat());
    message.extend(payload);
    message
}
