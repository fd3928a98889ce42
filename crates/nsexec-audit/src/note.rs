//! A launch as a note in its recording. The note holds the inputs that the recorded replies do not contain,
//! so that the same code can run on these replies elsewhere.
//!
//! The note is one JSON object, with a version of its own. It holds the message, the policy, the log level,
//! the signals and the prepared command. Of the environment it holds the names only, unless the values are
//! asked for, because values may be secrets. Arguments are included: every user can read them with ps(1).

use core::fmt;

use std::string::{String, ToString};
use std::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::normalise::{INTERRUPT, OPENED, TIMER, WITHHELD};
use crate::record::{Bytes, without_value};
use nsexec::bootstrap::decode;
use nsexec::launch::script::ChildSignals;
use nsexec::launch::{
    Base, CgroupFile, CommandStrings, Directory, Move, NewSysfs, NulTerminated, Persistent, Prepared, Root,
    Surroundings,
};
use nsexec::log::Level;
use nsexec::policy::Policy;
use nsexec::sys::types::{BpfInstruction, Fd, Limit};

/// The version of the note. It increases with each change that an older reader would misinterpret.
pub const NOTE_VERSION: u32 = 2;

/// The version of a note without surroundings of the command, which older programs read too.
const WITHOUT_SURROUNDINGS: u32 = 1;

/// How much of the environment a note holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Values {
    /// Names alone, each with `=…`.
    #[default]
    LeftOut,
    /// Names and values.
    Whole,
}

/// The reason why a text is not a note of a launch.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum NoteError {
    /// The text is not JSON of the expected form.
    Json(String),
    /// The note has this version, which the program does not read.
    Version(u32),
    /// The bootstrap message in the note is malformed.
    Message(String),
    /// The command has no name, or one of its strings contains a NUL byte.
    Command,
    /// Not enough memory for the strings of the note.
    NoMemory,
}

impl fmt::Display for NoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json(why) => write!(f, "it is malformed: {why}"),
            Self::Version(version) => {
                write!(f, "it is of version {version}; this program reads {NOTE_VERSION}")
            }
            Self::Message(why) => write!(f, "its bootstrap message is malformed: {why}"),
            Self::Command => f.write_str("its command has no name, or a string with a NUL byte"),
            Self::NoMemory => f.write_str("there is no memory for its strings"),
        }
    }
}

impl core::error::Error for NoteError {}

/// Returns a launch as a note.
#[must_use]
pub fn write(launch: &Prepared, values: Values) -> String {
    let whole = |text: &NulTerminated| strings(text).map(Bytes::from).collect();
    let CommandStrings { name: _, argv, envp, candidates } = &launch.texts;
    let set = Set::of(launch);
    let note = Note {
        version: match set == Set::default() && !launch.policy.launch.changes_ids() {
            true => WITHOUT_SURROUNDINGS,
            false => NOTE_VERSION,
        },
        set,
        message: Bytes(launch.message.clone()),
        policy: launch.policy,
        level: launch.level,
        signals: launch.signals,
        interrupt: launch.interrupt,
        timer: launch.timer,
        named: launch.named.clone(),
        marked_copy: launch.marked_copy,
        argv: whole(argv),
        envp: match values {
            Values::LeftOut => strings(envp).map(without_value).collect(),
            Values::Whole => whole(envp),
        },
        candidates: whole(candidates),
    };
    // Numbers, strings and lists always serialise.
    serde_json::to_string(&note).unwrap_or_default()
}

/// Returns the launch of a note.
///
/// # Errors
/// The reason why the text is not a note of a launch.
pub fn read(text: &str) -> Result<Prepared, NoteError> {
    let json = |error: serde_json::Error| NoteError::Json(error.to_string());
    let Version { version } = serde_json::from_str(text).map_err(json)?;
    if !(WITHOUT_SURROUNDINGS..=NOTE_VERSION).contains(&version) {
        return Err(NoteError::Version(version));
    }
    let note: Note = serde_json::from_str(text).map_err(json)?;
    let (bootstrap, _) = decode(&note.message.0, note.policy.dialect)
        .map_err(|error| NoteError::Message(error.to_string()))?;
    let asked = bootstrap.clone_flags();
    let texts = CommandStrings {
        name: note.argv.first().ok_or(NoteError::Command)?.0.clone(),
        argv: joined(&note.argv)?,
        envp: joined(&note.envp)?,
        candidates: joined(&note.candidates)?,
    };
    let Note { message, policy, level, signals, interrupt, timer, named, marked_copy, set, .. } = note;
    let mut around = Surroundings::default().with_idle_hooks(set.hooks);
    (around.persistent, around.withheld) = (set.persistent, set.withheld);
    (around.root, around.directory, around.groups) = (set.root, set.directory, set.groups);
    (around.loopback, around.hostname) = (set.loopback, set.hostname.map(|name| name.0));
    around.sysfs = set.sysfs;
    (around.terminal, around.keyring, around.cgroups) = (set.terminal, set.keyring, set.cgroups);
    (around.limits, around.umask, around.capabilities) = (set.limits, set.umask, set.capabilities);
    (around.no_new_privs, around.landlock, around.filter) = (set.no_new_privs, set.landlock, set.filter);
    Ok(Prepared {
        message: message.0,
        asked,
        policy,
        level,
        signals,
        interrupt,
        timeout: None,
        timer,
        named,
        around,
        moves: set.moves,
        owned: Vec::new(),
        marked_copy,
        texts,
    })
}

fn strings(of: &NulTerminated) -> impl Iterator<Item = &[u8]> {
    of.text.split_inclusive(|byte| *byte == 0).filter_map(|text| text.strip_suffix(&[0]))
}

fn joined(strings: &[Bytes]) -> Result<NulTerminated, NoteError> {
    let mut text = NulTerminated::default();
    for string in strings {
        if string.0.contains(&0) {
            return Err(NoteError::Command);
        }
        text.push(&[&string.0]).map_err(|_| NoteError::NoMemory)?;
    }
    Ok(text)
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}

/// The surroundings of the command. Of its functions before the exec a note has the number only.
#[derive(PartialEq, Default, Serialize, Deserialize)]
struct Set {
    #[serde(default, skip_serializing_if = "is_false")]
    loopback: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hostname: Option<Bytes>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sysfs: Option<NewSysfs>,
    #[serde(default, skip_serializing_if = "is_false")]
    terminal: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    keyring: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    cgroups: Vec<CgroupFile>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    limits: Vec<Limit>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    umask: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    capabilities: Option<u64>,
    #[serde(default, skip_serializing_if = "is_false")]
    no_new_privs: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    landlock: Option<Fd>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    filter: Option<Vec<BpfInstruction>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    root: Option<Root>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    directory: Option<Directory>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    groups: Option<Vec<u32>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    persistent: Vec<Persistent>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    withheld: Vec<Fd>,
    #[serde(default, skip_serializing_if = "is_zero")]
    hooks: usize,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    moves: Vec<Move>,
}

impl Set {
    fn of(launch: &Prepared) -> Self {
        let around = &launch.around;
        Self {
            loopback: around.loopback,
            hostname: around.hostname.clone().map(Bytes),
            sysfs: around.sysfs.clone(),
            terminal: around.terminal,
            keyring: around.keyring,
            cgroups: around.cgroups.clone(),
            limits: around.limits.clone(),
            umask: around.umask,
            capabilities: around.capabilities,
            no_new_privs: around.no_new_privs,
            landlock: around.landlock,
            filter: around.filter.clone(),
            root: around.root.clone(),
            directory: around.directory.clone(),
            groups: around.groups.clone(),
            persistent: around.persistent.clone(),
            withheld: around.withheld.clone(),
            hooks: around.hooks(),
            moves: launch.moves.clone(),
        }
    }
}

/// Returns the surroundings of the command as JSON, or `None` if none are set.
pub(crate) fn surroundings(launch: &Prepared) -> Option<String> {
    let set = Set::of(launch);
    (set != Set::default()).then(|| serde_json::to_string(&set).unwrap_or_default())
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

#[derive(Serialize, Deserialize)]
struct Note {
    version: u32,
    #[serde(flatten)]
    set: Set,
    message: Bytes,
    policy: Policy,
    level: Level,
    signals: ChildSignals,
    /// The descriptor of an interrupt: the launcher's polls of it are in the recording.
    interrupt: Option<Fd>,
    /// The descriptor of the time limit: the launcher's polls of it are in the recording.
    #[serde(default)]
    timer: Option<Fd>,
    /// The descriptors that the command gets. Absent in notes of older programs.
    #[serde(default)]
    named: Vec<Fd>,
    // Absent in notes of older programs, which did not check for a copy.
    #[serde(default)]
    marked_copy: bool,
    argv: Vec<Bytes>,
    envp: Vec<Bytes>,
    candidates: Vec<Bytes>,
}

/// Returns the notes of the descriptors of a launch that were open before the recording began. A plan and a
/// record of the launch have them at different numbers.
pub fn descriptor_notes(launch: &Prepared) -> impl Iterator<Item = (String, String)> {
    let root = launch.around.root.as_ref().and_then(|root| match &root.base {
        Base::Opened { fd, .. } => Some(*fd),
        _ => None,
    });
    let moved = launch.moves.iter().map(|one| one.fd);
    let cgroups = launch.around.cgroups.iter().map(|cgroup| cgroup.fd);
    let opened = moved.chain(cgroups).chain(root).chain(launch.around.landlock);
    let opened: Vec<String> = opened.map(|Fd(fd)| fd.to_string()).collect();
    let opened = (!opened.is_empty()).then(|| opened.join(" "));
    let withheld: Vec<String> = launch.around.withheld.iter().map(|Fd(fd)| fd.to_string()).collect();
    let withheld = (!withheld.is_empty()).then(|| withheld.join(" "));
    let text = |fd: Option<Fd>| fd.map(|Fd(fd)| fd.to_string());
    let notes = [
        (INTERRUPT, text(launch.interrupt())),
        (TIMER, text(launch.timer())),
        (OPENED, opened),
        (WITHHELD, withheld),
    ];
    notes.into_iter().filter_map(|(key, value)| Some((key.to_string(), value?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nsexec::bootstrap::{Bootstrap, Dialect};
    use nsexec::launch::Launcher;
    use nsexec::policy::{Credentials, Session, Setgroups};
    use nsexec::sys::types::{CloneFlags, Propagation, SignalSet};

    fn prepared() -> Prepared {
        let policy = Policy::runc(&Dialect::V1_2)
            .with_session(Session::Keep)
            .with_credentials(Credentials::Keep)
            .with_setgroups(Setgroups::DropIfAllowed)
            .with_propagation(Some(Propagation::Private))
            .with_mount_proc(true);
        let mut launcher = Launcher::new(&Bootstrap::new(CloneFlags::NEWNET), policy).unwrap();
        launcher
            .command("ls", ["-l", ""])
            .env_clear()
            .env("TOKEN", "s3cret")
            .env("PATH", "/a:/b")
            .level(Level::Debug)
            .signals(ChildSignals { mask: None, default: SignalSet::PIPE, ignore: SignalSet(4) });
        launcher.prepare().unwrap()
    }

    #[test]
    fn launch_survives_a_round_trip_through_its_note() {
        let before = prepared();
        let after = read(&write(&before, Values::Whole)).unwrap();
        assert_eq!(std::format!("{after:?}"), std::format!("{before:?}"));
    }

    #[test]
    fn surroundings_survive_a_round_trip() {
        let mut before = prepared();
        let mut around = Surroundings::default().with_idle_hooks(2);
        around.directory = Some(Directory { path: c"/srv".into(), confined: true });
        around.root = Some(Root::default());
        around.groups = Some(std::vec![4, 20]);
        around.sysfs =
            Some(NewSysfs { read_only: true, kept: std::vec![c"/sys/fs/cgroup".into()], covered: false });
        (around.loopback, around.no_new_privs, around.umask) = (true, true, Some(0o27));
        (around.hostname, around.capabilities) = (Some(b"box".to_vec()), Some(5));
        around.limits.push(Limit {
            resource: nsexec::sys::types::Resource::CPU,
            soft: 1,
            hard: Limit::INFINITY,
        });
        around.filter = Some(std::vec![BpfInstruction { code: 6, jt: 0, jf: 0, k: 1 }]);
        around.landlock = Some(Fd(30));
        around.persistent.push(Persistent { kind: c"net".into(), file: c"/run/n".into() });
        before.around = around;
        (before.policy.launch.gid, before.policy.launch.uid) = (Some(7), Some(1000));
        before.moves.push(Move { fd: Fd(9), number: Fd(1) });
        let text = write(&before, Values::Whole);
        let after = read(&text).unwrap();
        assert_eq!(std::format!("{after:?}"), std::format!("{before:?}"));
        // Older programs would ignore the surroundings, so the note has a version that they refuse.
        assert!(text.starts_with("{\"version\":2,"), "{text}");
        assert!(write(&prepared(), Values::Whole).starts_with("{\"version\":1,"));
        let mut ids_alone = prepared();
        ids_alone.policy.launch.uid = Some(1000);
        assert!(write(&ids_alone, Values::Whole).starts_with("{\"version\":2,"));
    }

    #[test]
    fn note_without_values_keeps_the_candidates() {
        let note = write(&prepared(), Values::default());
        assert!(!note.contains("s3cret"), "{note}");
        let after = read(&note).unwrap();
        assert_eq!(after.texts.envp.text, "TOKEN=…\0PATH=…\0".as_bytes());
        assert_eq!(after.candidates().collect::<Vec<_>>(), [b"/a/ls", b"/b/ls"]);
    }

    #[test]
    fn malformed_notes_are_rejected() {
        let note = write(&prepared(), Values::Whole);
        let error = |text: &str| read(text).unwrap_err();
        assert!(matches!(error("{}"), NoteError::Json(_)));
        assert_eq!(error("{\"version\":9}"), NoteError::Version(9));
        for (from, to) in [("v1_2", "v9"), ("\"keep\"", "\"other\""), ("\"debug\"", "7")] {
            assert!(
                note.contains(from) && matches!(error(&note.replace(from, to)), NoteError::Json(_)),
                "{from}"
            );
        }
        assert_eq!(error(&note.replace("\"-l\"", "\"\\u0000\"")), NoteError::Command);
        let mut value: serde_json::Value = serde_json::from_str(&note).unwrap();
        value["argv"] = serde_json::json!([]);
        assert_eq!(error(&value.to_string()), NoteError::Command);
        value["message"] = "none".into();
        assert!(matches!(error(&value.to_string()), NoteError::Message(_)));
    }
}
