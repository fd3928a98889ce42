//! `--config`: the parts of an OCI runtime configuration (config.json) that belong to the bootstrap:
//! namespaces, id maps, time offsets, the OOM score, and the command.
//!
//! A pure function, apart from the file that it reads: see [`config_text`]. The other parts of the file are
//! named in one line.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use super::args::NamespaceFlags;
use super::config_text::{self, Mapping, Parts, one_line};
use super::failure::{Failure, words};
use super::output;
use super::values::{JoinValue, MapValue};

/// The largest file that is read, in bytes.
const SIZE_MAX: u64 = 4 << 20;

/// The request of the command line together with that of the file.
#[derive(Debug)]
pub(crate) struct Merged {
    /// The flags.
    pub(crate) flags: NamespaceFlags,
    /// The command: that after `--`, or else `process.args`.
    pub(crate) command: Vec<OsString>,
    /// A line for people that names the parts of the file that are not applied.
    note: Option<String>,
}

impl Merged {
    /// Prints the note on standard error, if there is one. Call this after
    /// [`ensure_for_joins`](super::sealed::ensure_for_joins), since the sealed copy reads the file again.
    pub(crate) fn print_note(&self) {
        if let Some(note) = &self.note {
            output::print_to_stderr(format_args!("nsexec: {note}\n"));
        }
    }
}

/// Returns the flags and the command, with those of `--config` if it is given.
///
/// # Errors
/// [`Failure::Usage`]: flags that the file decides too. [`Failure::Other`]: the file cannot be read, or is
/// not a configuration.
pub(crate) fn merged(flags: &NamespaceFlags, command: &[OsString]) -> Result<Merged, Failure> {
    let Some(file) = &flags.config else {
        return Ok(Merged { flags: flags.clone(), command: command.to_vec(), note: None });
    };
    let (mut merged, outside) = read(file).and_then(|text| merge(&text, file, flags, command))?;
    if !outside.is_empty() {
        merged.note = Some(format!(
            "{}: not applied, since it is outside of the bootstrap: {}",
            file.display(),
            one_line(&outside.join(", ")).chars().map(super::printable).collect::<String>()
        ));
    }
    Ok(merged)
}

fn read(file: &Path) -> Result<String, Failure> {
    use std::io::Read;
    let mut text = String::new();
    let opened = fs::File::open(file).and_then(|opened| opened.take(SIZE_MAX + 1).read_to_string(&mut text));
    opened.map_err(|error| Failure::ours(format!("failed to read {}: {}", file.display(), words(&error))))?;
    if text.len() as u64 > SIZE_MAX {
        return Err(Failure::ours(format!("{}: it has more than {SIZE_MAX} bytes", file.display())));
    }
    Ok(text)
}

/// Merges the text of a configuration with the flags. Also returns the names of the parts that are not
/// applied.
fn merge(
    text: &str,
    file: &Path,
    flags: &NamespaceFlags,
    command: &[OsString],
) -> Result<(Merged, Vec<String>), Failure> {
    let refused = |why: String| Failure::ours(format!("{}: {}", file.display(), one_line(&why)));
    let Parts { namespaces, users, groups, monotonic, boottime, oom_score_adj, args, outside } =
        config_text::parse(text).map_err(refused)?;
    refuse_conflicts(flags)?;
    let mut merged = NamespaceFlags { config: None, monotonic, boottime, oom_score_adj, ..flags.clone() };
    for (kind, path) in namespaces {
        match path {
            Some(path) => {
                let join = JoinValue::of(kind, path.as_bytes());
                merged.join.push(join.map_err(|why| refused(format!("linux.namespaces: {why}")))?);
            }
            None => merged.kinds.name(kind, None),
        }
    }
    for (mappings, values) in [(users, &mut merged.map_users), (groups, &mut merged.map_groups)] {
        for Mapping { inside, outside, size } in mappings {
            let line = format!("{inside}:{outside}:{size}").parse::<MapValue>();
            values.push(line.map_err(|why| refused(format!("an id mapping: {why}")))?);
        }
    }
    let own: Vec<OsString> = args.into_iter().map(OsString::from).collect();
    let command = if command.is_empty() { own } else { command.to_vec() };
    Ok((Merged { flags: merged, command, note: None }, outside))
}

/// Refuses flags that the file decides too.
fn refuse_conflicts(flags: &NamespaceFlags) -> Result<(), Failure> {
    let rest = NamespaceFlags {
        config: None,
        fork: false,
        kill_child: None,
        copy_memory: false,
        mount_proc: None,
        setgroups: None,
        propagation: None,
        no_loopback: false,
        no_mount_sys: false,
        forward_signals: false,
        root: None,
        directory: None,
        init: false,
        setuid: None,
        setgid: None,
        keep_caps: false,
        ..flags.clone()
    };
    if rest == NamespaceFlags::default() {
        return Ok(());
    }
    let why = "--config already defines the namespaces, the id maps, the offsets and the OOM score: leave out their flags";
    Err(Failure::Usage(why.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nsexec::namespace::NsKind;

    fn merge(text: &str, flags: &NamespaceFlags) -> Result<(Merged, Vec<String>), Failure> {
        super::merge(text, Path::new("config.json"), flags, &[])
    }

    #[test]
    fn configuration_becomes_flags_and_its_other_parts_are_named() {
        let text = r#"{"ociVersion": "1.2.0", "hostname": "box", "root": {"path": "rootfs"},
            "process": {"args": ["sh", "-c", "id"], "oomScoreAdj": 100, "cwd": "/"},
            "linux": {
                "namespaces": [{"type": "user"}, {"type": "pid"}, {"type": "network", "path": "/run/netns/a"}, {"type": "time"}],
                "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 1}, {"containerID": 1, "hostID": 100000, "size": 65536}],
                "gidMappings": [{"containerID": 0, "hostID": 1000, "size": 1}],
                "timeOffsets": {"boottime": {"secs": 7, "nanosecs": 0}},
                "resources": {}}}"#;
        let (Merged { flags, command, .. }, outside) = merge(text, &NamespaceFlags::default()).unwrap();
        assert_eq!(command, ["sh", "-c", "id"]);
        assert_eq!(flags.kinds.set(), [NsKind::User, NsKind::Pid, NsKind::Time].into_iter().collect());
        assert_eq!((flags.join[0].kind, &flags.join[0].path[..]), (NsKind::Net, &b"/run/netns/a"[..]));
        assert_eq!((flags.map_users.len(), flags.map_groups.len()), (2, 1));
        assert_eq!((flags.monotonic, flags.boottime, flags.oom_score_adj), (None, Some(7), Some(100)));
        assert_eq!(outside, ["hostname", "root", "process.cwd", "linux.resources"]);
    }

    #[test]
    fn wrong_configurations_are_one_clear_line() {
        for (text, fault) in [
            ("{", "config.json: EOF"),
            (r#"{"linux": {"namespaces": [{"type": "nett"}]}}"#, "linux.namespaces: unknown type nett"),
            (r#"{"linux": {"namespaces": [{"type": "pid"}, {"type": "pid"}]}}"#, "listed twice"),
            (
                r#"{"linux": {"uidMappings": [{"containerID": 0, "hostID": 0, "size": 0}]}}"#,
                "number of ids is 0",
            ),
            (r#"{"linux": {"timeOffsets": {"monotonic": {"nanosecs": 5}}}}"#, "nanosecs must be 0"),
            (r#"{"process": {"oomScoreAdj": 1001}}"#, "expected -1000 to 1000"),
        ] {
            let Err(Failure::Other { text: error, status: 1 }) = merge(text, &NamespaceFlags::default())
            else {
                panic!("{text}")
            };
            assert!(error.starts_with("config.json: ") && error.contains(fault), "{error}");
            assert_eq!(error.lines().count(), 1);
        }
    }

    #[test]
    fn words_of_the_file_cannot_begin_a_line_of_the_output() {
        let text = r#"{"linux": {"namespaces": [{"type": "pid", "path": "/a,\nb"}]}}"#;
        let Err(Failure::Other { text, .. }) = merge(text, &NamespaceFlags::default()) else { panic!() };
        assert_eq!(text.lines().count(), 1, "{text}");
    }

    #[test]
    fn flags_that_the_file_decides_are_refused() {
        let allowed =
            NamespaceFlags { kill_child: Some(None), mount_proc: Some(None), ..NamespaceFlags::default() };
        assert!(merge("{}", &allowed).is_ok());
        let conflicting = NamespaceFlags { map_root_user: true, ..NamespaceFlags::default() };
        assert!(matches!(merge("{}", &conflicting), Err(Failure::Usage(_))));
    }
}
