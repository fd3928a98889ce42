//! The text of an OCI runtime configuration (config.json): [`Parts`] has the parts that belong to the
//! bootstrap. Pure functions. `fuzz/src/bin/config.rs` includes this file too.

use std::collections::BTreeMap;

use nsexec::namespace::NsKind;
use serde::Deserialize;
use serde_json::{Map, Value};

/// The parts of a configuration that are applied, and the names of the others.
#[derive(PartialEq, Eq, Debug, Default)]
pub(crate) struct Parts {
    /// The namespaces, with the path of each one to join.
    pub(crate) namespaces: Vec<(NsKind, Option<String>)>,
    /// The lines of the map of user ids.
    pub(crate) users: Vec<Mapping>,
    /// The lines of the map of group ids.
    pub(crate) groups: Vec<Mapping>,
    /// The offset of the clock CLOCK_MONOTONIC in seconds.
    pub(crate) monotonic: Option<i64>,
    /// The offset of the clock CLOCK_BOOTTIME in seconds.
    pub(crate) boottime: Option<i64>,
    /// The OOM score.
    pub(crate) oom_score_adj: Option<i16>,
    /// The command.
    pub(crate) args: Vec<String>,
    /// The keys of the file that are not applied, such as `linux.resources`.
    pub(crate) outside: Vec<String>,
}

/// A line of a map of ids.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mapping {
    #[serde(rename = "containerID")]
    pub(crate) inside: u32,
    #[serde(rename = "hostID")]
    pub(crate) outside: u32,
    pub(crate) size: u32,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Config {
    linux: Linux,
    process: Process,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Linux {
    namespaces: Vec<Namespace>,
    uid_mappings: Vec<Mapping>,
    gid_mappings: Vec<Mapping>,
    time_offsets: BTreeMap<String, Offset>,
}

#[derive(Deserialize)]
struct Namespace {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    path: String,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct Offset {
    secs: i64,
    nanosecs: u32,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Process {
    args: Vec<String>,
    oom_score_adj: Option<i16>,
}

/// The keys that are applied, and `ociVersion`, which is ignored. Every other key of the file, of `process`
/// and of `linux` is reported as not applied.
const TOP: &[&str] = &["linux", "process", "ociVersion"];
const LINUX: &[&str] = &["namespaces", "uidMappings", "gidMappings", "timeOffsets"];
const PROCESS: &[&str] = &["args", "oomScoreAdj"];

/// The names of the kinds in a configuration. `net` is the name of the long flag.
const KINDS: [(&str, NsKind); 9] = [
    ("user", NsKind::User),
    ("mount", NsKind::Mnt),
    ("pid", NsKind::Pid),
    ("network", NsKind::Net),
    ("net", NsKind::Net),
    ("ipc", NsKind::Ipc),
    ("uts", NsKind::Uts),
    ("cgroup", NsKind::Cgroup),
    ("time", NsKind::Time),
];

/// Reads the text of a configuration.
///
/// # Errors
/// A description of the first fault, in one line.
pub(crate) fn parse(text: &str) -> Result<Parts, String> {
    read(text).map_err(|why| one_line(&why))
}

/// Replaces the newlines of a text that has words of the file: they could forge a line of nsexec's output.
pub(crate) fn one_line(text: &str) -> String {
    text.replace('\n', "?")
}

fn read(text: &str) -> Result<Parts, String> {
    let malformed = |error: serde_json::Error| error.to_string();
    let value: Value = serde_json::from_str(text).map_err(malformed)?;
    only_objects(&value)?;
    let config: Config = serde_json::from_str(text).map_err(malformed)?;
    let Linux { namespaces, uid_mappings, gid_mappings, time_offsets } = config.linux;
    let Process { args, oom_score_adj } = config.process;
    let outside = outside(&value);
    let mut parts =
        Parts { users: uid_mappings, groups: gid_mappings, oom_score_adj, args, outside, ..Parts::default() };
    for Namespace { kind: name, path } in namespaces {
        let found = KINDS.into_iter().find(|(known, _)| *known == name);
        let (_, kind) = found.ok_or_else(|| format!("linux.namespaces: unknown type {name}"))?;
        let path = Some(path).filter(|path| !path.is_empty());
        if path.is_none() && parts.namespaces.contains(&(kind, None)) {
            return Err(format!("linux.namespaces: the type {name} is listed twice"));
        }
        parts.namespaces.push((kind, path));
    }
    for (clock, Offset { secs, nanosecs }) in time_offsets {
        if nanosecs != 0 {
            let why = "nsexec sets whole seconds: nanosecs must be 0";
            return Err(format!("linux.timeOffsets.{clock}: {why}"));
        }
        match clock.as_str() {
            "monotonic" => parts.monotonic = Some(secs),
            "boottime" => parts.boottime = Some(secs),
            _ => return Err(format!("linux.timeOffsets: unknown clock {clock}")),
        }
    }
    match oom_score_adj {
        Some(score) if !(-1000..=1000).contains(&score) => {
            Err(format!("process.oomScoreAdj is {score}, expected -1000 to 1000"))
        }
        _ => Ok(parts),
    }
}

/// Returns an error if the file has an array where the specification has an object. `serde` reads the
/// elements of such an array as the fields of the object, in their order.
fn only_objects(value: &Value) -> Result<(), String> {
    let part = |at: &str| value.pointer(at).into_iter();
    let elements = |at: &str| value.pointer(at).and_then(Value::as_array).into_iter().flatten();
    let offsets = value.pointer("/linux/timeOffsets").and_then(Value::as_object);
    let lists = ["namespaces", "uidMappings", "gidMappings"];
    let lists =
        lists.into_iter().flat_map(|list| elements(&format!("/linux/{list}")).map(move |one| (list, one)));
    let named = [("the configuration", ""), ("linux", "/linux"), ("process", "/process")];
    let named = named.into_iter().flat_map(|(name, at)| part(at).map(move |one| (name, one)));
    let offsets = offsets.into_iter().flat_map(Map::values).map(|one| ("timeOffsets", one));
    match named.chain(lists).chain(offsets).find(|(_, value)| value.is_array()) {
        Some((name, _)) => Err(format!("{name}: expected an object, found an array")),
        None => Ok(()),
    }
}

/// Returns the keys of the file that are not applied, such as `linux.resources`.
fn outside(value: &Value) -> Vec<String> {
    let keys = |at: &str, known: &[&str]| -> Vec<String> {
        let object = if at.is_empty() { value.as_object() } else { value.get(at).and_then(Value::as_object) };
        let prefix = if at.is_empty() { String::new() } else { format!("{at}.") };
        let unknown = |key: &&String| !known.contains(&key.as_str());
        object.into_iter().flat_map(Map::keys).filter(unknown).map(|key| format!("{prefix}{key}")).collect()
    };
    [keys("", TOP), keys("process", PROCESS), keys("linux", LINUX)].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_is_not_an_object() {
        for (text, name) in [
            ("[]", "the configuration"),
            (r#"{"process": [["sh"], 5]}"#, "process"),
            (r#"{"linux": [[], [], [], {}]}"#, "linux"),
            (r#"{"linux": {"namespaces": [["pid"]]}}"#, "namespaces"),
            (r#"{"linux": {"uidMappings": [[0, 0, 1]]}}"#, "uidMappings"),
            (r#"{"linux": {"timeOffsets": {"boottime": [7]}}}"#, "timeOffsets"),
        ] {
            assert_eq!(parse(text), Err(format!("{name}: expected an object, found an array")), "{text}");
        }
    }

    #[test]
    fn an_error_is_one_line_for_each_word_of_the_file() {
        for text in [
            r#"{"linux": {"namespaces": [{"type": "a\nb"}]}}"#,
            r#"{"linux": {"timeOffsets": {"a\nb": {}}}}"#,
            r#"{"linux": {"uidMappings": [{"a\nb": 1}]}}"#,
        ] {
            assert!(parse(text).unwrap_err().contains("a?b"), "{text}");
        }
    }

    #[test]
    fn an_equals_sign_in_a_type_is_not_the_end_of_the_type() {
        let text = r#"{"linux": {"namespaces": [{"type": "net=/a", "path": "b"}]}}"#;
        assert_eq!(parse(text), Err("linux.namespaces: unknown type net=/a".to_owned()));
    }
}
