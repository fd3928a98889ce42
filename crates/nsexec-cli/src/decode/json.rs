//! A message as JSON. The format is that of `tests/vectors`, and stable: fields are added, but never changed.
//!
//! ```json
//! {"dialect": "v1_2", "byte_order": "little", "bytes": 152, "ok": {
//!   "clone_flags": 2080505856,
//!   "namespaces": null,
//!   "uid_map": {"hex": "302031…", "text": "0 1000 1\n"},
//!   …}}
//! {"dialect": "v1_2", "byte_order": "little", "error": {
//!   "kind": "attr_overrun", "offset": 24, "attribute": 27283, "message": "…"}}
//! ```
//! Bytes are given in hexadecimal and as text, without the terminating NUL. The text is null if the bytes are
//! not UTF-8. The value of an attribute that the message does not contain is null.

use nsexec::bootstrap::{Bootstrap, Dialect, ParseError};
use nsexec_audit::byte_order::ByteOrder;
use serde::Serialize;

#[derive(Serialize)]
struct Answer<'a> {
    dialect: &'a str,
    byte_order: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ok: Option<Message>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Refused>,
}

#[derive(Serialize)]
struct Message {
    clone_flags: u32,
    namespaces: Option<Vec<Namespace>>,
    uid_map: Option<Bytes>,
    gid_map: Option<Bytes>,
    setgroup: Option<bool>,
    oom_score_adj: Option<Bytes>,
    rootless_euid: bool,
    uidmap_path: Option<Bytes>,
    gidmap_path: Option<Bytes>,
    timens_offsets: Option<Bytes>,
    mount_sources: Option<Vec<Bytes>>,
}

#[derive(Serialize)]
struct Namespace {
    r#type: &'static str,
    path: Bytes,
}

#[derive(Serialize)]
struct Bytes {
    hex: String,
    text: Option<String>,
}

impl Bytes {
    fn new(bytes: &[u8]) -> Self {
        let hex = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Self { hex, text: std::str::from_utf8(bytes).ok().map(str::to_owned) }
    }
}

#[derive(Serialize)]
struct Refused {
    kind: &'static str,
    offset: usize,
    attribute: Option<u16>,
    message: String,
}

/// Returns the JSON of a valid message.
pub(super) fn message(
    bootstrap: &Bootstrap<'_>,
    length: usize,
    dialect: &Dialect,
    order: ByteOrder,
) -> Result<String, serde_json::Error> {
    let message = Message {
        clone_flags: bootstrap.clone_flags().0,
        namespaces: bootstrap.namespaces().map(|paths| {
            let entries = paths.iter();
            entries
                .map(|entry| Namespace { r#type: entry.kind.name(), path: Bytes::new(entry.path) })
                .collect()
        }),
        uid_map: bootstrap.uid_map().map(|map| Bytes::new(map.text())),
        gid_map: bootstrap.gid_map().map(|map| Bytes::new(map.text())),
        setgroup: bootstrap.setgroup_present(),
        oom_score_adj: bootstrap.oom_score_adj().map(|score| Bytes::new(score.text())),
        rootless_euid: bootstrap.rootless_euid(),
        uidmap_path: bootstrap.uidmap_path().map(|path| Bytes::new(path.to_bytes())),
        gidmap_path: bootstrap.gidmap_path().map(|path| Bytes::new(path.to_bytes())),
        timens_offsets: bootstrap.timens_offsets().map(|offsets| Bytes::new(offsets.text())),
        mount_sources: bootstrap.mount_sources().map(|sources| sources.iter().map(Bytes::new).collect()),
    };
    answer(Answer { bytes: Some(length), ok: Some(message), ..empty(dialect, order) })
}

/// Returns the JSON of a refused message.
pub(super) fn refused(
    error: &ParseError<'_>,
    dialect: &Dialect,
    order: ByteOrder,
) -> Result<String, serde_json::Error> {
    let refused = Refused {
        kind: error.kind.name(),
        offset: error.offset,
        attribute: error.attribute,
        message: error.to_string(),
    };
    answer(Answer { error: Some(refused), ..empty(dialect, order) })
}

fn empty(dialect: &Dialect, order: ByteOrder) -> Answer<'_> {
    Answer { dialect: dialect.name(), byte_order: order.name(), bytes: None, ok: None, error: None }
}

fn answer(answer: Answer<'_>) -> Result<String, serde_json::Error> {
    serde_json::to_string(&answer).map(|text| text + "\n")
}
