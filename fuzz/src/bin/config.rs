//! The reader of an OCI runtime configuration agrees with a second one, which walks over the JSON value. An
//! error is one line.

#![no_main]

use libfuzzer_sys::fuzz_target;
use nsexec::namespace::NsKind;
use serde_json::{Map, Value};

#[path = "../../../crates/nsexec-cli/src/config_text.rs"]
mod config_text;
use config_text::{Mapping, Parts, parse};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let parsed = parse(text);
    if let Err(error) = &parsed {
        assert_eq!(error.lines().count(), 1, "{error:?}");
    }
    let Ok(value) = serde_json::from_str::<Value>(text) else {
        assert!(parsed.is_err(), "not JSON");
        return;
    };
    let expected = second(&value);
    // A key that is there twice may be an error. In the text of the value each key is there once.
    assert!(
        parsed.is_err() || parsed.as_ref().ok() == expected.as_ref(),
        "{parsed:?}, expected {expected:?}"
    );
    let once = parse(&value.to_string());
    assert_eq!(once.as_ref().ok(), expected.as_ref(), "{once:?}");
});

fn second(value: &Value) -> Option<Parts> {
    let top = value.as_object()?;
    let empty = Value::Object(Map::new());
    let (linux, process) = (top.get("linux").unwrap_or(&empty), top.get("process").unwrap_or(&empty));
    let (linux, process) = (linux.as_object()?, process.as_object()?);
    let mut parts = Parts::default();
    for entry in list(linux, "namespaces")? {
        let entry = entry.as_object()?;
        let kind = kind(entry.get("type")?.as_str()?)?;
        let path = entry.get("path").map_or(Some(""), Value::as_str)?;
        if path.is_empty() && parts.namespaces.iter().any(|(other, path)| *other == kind && path.is_none()) {
            return None;
        }
        parts.namespaces.push((kind, (!path.is_empty()).then(|| path.to_owned())));
    }
    parts.users = list(linux, "uidMappings")?.iter().map(mapping).collect::<Option<_>>()?;
    parts.groups = list(linux, "gidMappings")?.iter().map(mapping).collect::<Option<_>>()?;
    for (clock, offset) in linux.get("timeOffsets").unwrap_or(&empty).as_object()? {
        let offset = offset.as_object()?;
        let number = |name| offset.get(name).map_or(Some(0), Value::as_i64);
        if offset.keys().any(|key| key != "secs" && key != "nanosecs") || number("nanosecs")? != 0 {
            return None;
        }
        match &clock[..] {
            "monotonic" => parts.monotonic = Some(number("secs")?),
            "boottime" => parts.boottime = Some(number("secs")?),
            _ => return None,
        }
    }
    parts.oom_score_adj = match process.get("oomScoreAdj") {
        None | Some(Value::Null) => None,
        Some(score) => Some(score.as_i64().filter(|score| score.abs() <= 1000)?.try_into().ok()?),
    };
    let words = list(process, "args")?.iter().map(|word| word.as_str().map(str::to_owned));
    parts.args = words.collect::<Option<_>>()?;
    let applied = [
        ("", top, &["ociVersion", "linux", "process"][..]),
        ("process.", process, &["args", "oomScoreAdj"]),
        ("linux.", linux, &["namespaces", "uidMappings", "gidMappings", "timeOffsets"]),
    ];
    for (prefix, object, applied) in applied {
        let names = object.keys().filter(|key| !applied.contains(&&key[..]));
        parts.outside.extend(names.map(|key| format!("{prefix}{key}")));
    }
    Some(parts)
}

/// Returns the elements of an array. A missing array has none.
fn list<'v>(object: &'v Map<String, Value>, name: &str) -> Option<&'v [Value]> {
    object.get(name).map_or(Some(&[]), |value| value.as_array().map(Vec::as_slice))
}

fn mapping(value: &Value) -> Option<Mapping> {
    let object = value.as_object().filter(|object| object.len() == 3)?;
    let number = |name| object.get(name)?.as_u64()?.try_into().ok();
    Some(Mapping { inside: number("containerID")?, outside: number("hostID")?, size: number("size")? })
}

fn kind(name: &str) -> Option<NsKind> {
    Some(match name {
        "user" => NsKind::User,
        "mount" => NsKind::Mnt,
        "pid" => NsKind::Pid,
        "network" | "net" => NsKind::Net,
        "ipc" => NsKind::Ipc,
        "uts" => NsKind::Uts,
        "cgroup" => NsKind::Cgroup,
        "time" => NsKind::Time,
        _ => return None,
    })
}
