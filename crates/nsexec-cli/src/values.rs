//! The values of flags. Each is parsed once, into a type that holds only valid values.

use std::ffi::{OsStr, OsString};
use std::ops::RangeInclusive;
use std::os::unix::ffi::OsStrExt;
use std::str::FromStr;

use clap::ValueEnum;
use nsexec::bootstrap::Dialect;
use nsexec::idmap::Extent;
use nsexec::namespace::NsKind;
use nsexec::sys::types::{Fd, Signal};
use nsexec_audit::machine::caller::id_of_name;

/// One value of `--map-users` or `--map-groups`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum MapValue {
    /// The caller as id 0, then the caller's subordinate ids.
    Auto,
    /// The caller's subordinate ids, each as itself.
    SubIds,
    /// Each id of the caller's own user namespace as itself.
    All,
    /// One line of the map.
    Line(Extent),
}

/// The forms of a value, for an error's text.
const MAP_FORM: &str = "I:O:N (inside, outside, number of ids), auto, subids or all";

/// The first id that no process can have. System calls that set ids take -1 as "do not change".
const ID_END: u64 = u32::MAX as u64;

impl FromStr for MapValue {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => return Ok(Self::Auto),
            "subids" => return Ok(Self::SubIds),
            "all" => return Ok(Self::All),
            _ => {}
        }
        // Commas: the order of util-linux 2.38, which has the outer id first.
        let comma = text.contains(',') && !text.contains(':');
        let mut numbers = text.split(if comma { ',' } else { ':' }).map(decimal);
        let (Some(first), Some(second), Some(count), None) =
            (numbers.next(), numbers.next(), numbers.next(), numbers.next())
        else {
            return Err(format!("expected {MAP_FORM}"));
        };
        let (inside, outside) = if comma { (second, first) } else { (first, second) };
        let (inside, outside, count) = (inside?, outside?, count?);
        if count == 0 {
            return Err("the number of ids is 0, expected 1 or more".to_owned());
        }
        for (side, first) in [("inside", inside), ("outside", outside)] {
            if u64::from(first) + u64::from(count) > ID_END {
                return Err(format!("the ids {side} end beyond {}, the last valid id", ID_END - 1));
            }
        }
        Ok(Self::Line(Extent { inside, outside, count }))
    }
}

/// Parses digits only. The kernel accepts no sign either.
fn decimal(text: &str) -> Result<u32, String> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.then(|| text.parse().ok()).flatten();
    number.ok_or_else(|| format!("'{text}' is not a decimal number of 32 bits, expected {MAP_FORM}"))
}

/// Parses a user id, or the name of a user.
pub(crate) fn user_id(text: &str) -> Result<u32, String> {
    id(text, false)
}

/// Parses a group id, or the name of a group.
pub(crate) fn group_id(text: &str) -> Result<u32, String> {
    id(text, true)
}

fn id(text: &str, group: bool) -> Result<u32, String> {
    let noun = if group { "group" } else { "user" };
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        let number = text.parse().ok().filter(|id| u64::from(*id) < ID_END);
        return number.ok_or_else(|| format!("the last valid {noun} id is {}", ID_END - 1));
    }
    id_of_name(text, group).ok_or_else(|| format!("no {noun} has this name; expected an id or a name"))
}

/// The real-time signals of libc, which keeps two below them for itself (signal(7)).
const REAL_TIME: RangeInclusive<i32> = 34..=64;

/// Parses a signal: its name, with or without SIG, or its number. As for kill(1) of util-linux, real-time
/// signals are RTMIN, RTMIN+N, RTMAX-N and RTMAX.
pub(crate) fn signal(text: &str) -> Result<Signal, String> {
    let number = text.parse().ok().filter(|number| (1..=64).contains(number)).map(Signal);
    let word = text.to_ascii_uppercase();
    let word = word.strip_prefix("SIG").unwrap_or(&word);
    let found = number.or_else(|| named_signal(word)).or_else(|| real_time_signal(word));
    found.ok_or_else(|| "expected a signal, as KILL, SIGTERM, RTMIN+1 or 15".to_owned())
}

fn named_signal(word: &str) -> Option<Signal> {
    // Other names of signal(7).
    let word = match word {
        "CLD" => "CHLD",
        "IOT" => "ABRT",
        "POLL" => "IO",
        word => word,
    };
    let is_named = |signal: &Signal| signal.name().and_then(|name| name.strip_prefix("SIG")) == Some(word);
    (1..=31).map(Signal).find(is_named)
}

fn real_time_signal(word: &str) -> Option<Signal> {
    let offset = |text: &str| match text.split_at_checked(1) {
        None => Some(0),
        Some((_, digits)) if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse::<i32>().ok(),
        Some(_) => None,
    };
    let number = match (word.strip_prefix("RTMIN"), word.strip_prefix("RTMAX")) {
        (Some(text), _) if text.is_empty() || text.starts_with('+') => {
            REAL_TIME.start().checked_add(offset(text)?)
        }
        (_, Some(text)) if text.is_empty() || text.starts_with('-') => {
            REAL_TIME.end().checked_sub(offset(text)?)
        }
        _ => None,
    };
    number.filter(|number| REAL_TIME.contains(number)).map(Signal)
}

/// The value of `--join`: a kind, and the path of the namespace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct JoinValue {
    /// The kind of the namespace.
    pub(crate) kind: NsKind,
    /// The path, without comma and NUL: the message could not carry them.
    pub(crate) path: Vec<u8>,
}

impl JoinValue {
    /// Parses `KIND=PATH`.
    pub(crate) fn parse(value: &OsStr) -> Result<Self, String> {
        let bytes = value.as_bytes();
        let equals = bytes.iter().position(|byte| *byte == b'=').ok_or("expected KIND=PATH")?;
        let (word, path) = (&bytes[..equals], &bytes[equals + 1..]);
        let kind = kind_named(word).ok_or_else(|| {
            let word = String::from_utf8_lossy(word);
            format!(
                "'{word}' is not a kind of namespace, expected {}",
                KIND_NAMES.map(|(name, _)| name).join(", ")
            )
        })?;
        if path.is_empty() {
            return Err("the path is empty, expected KIND=PATH".to_owned());
        }
        Self::of(kind, path)
    }

    /// Returns the value for a path, which must not be empty and must not contain a comma.
    pub(crate) fn of(kind: NsKind, path: &[u8]) -> Result<Self, String> {
        if path.is_empty() {
            return Err("the path is empty".to_owned());
        }
        if path.contains(&b',') {
            return Err("a path with a comma cannot be put into a bootstrap message".to_owned());
        }
        Ok(Self { kind, path: path.to_vec() })
    }
}

/// The kinds under the names of unshare(1)'s long flags.
pub(crate) const KIND_NAMES: [(&str, NsKind); 8] = [
    ("user", NsKind::User),
    ("mount", NsKind::Mnt),
    ("pid", NsKind::Pid),
    ("net", NsKind::Net),
    ("ipc", NsKind::Ipc),
    ("uts", NsKind::Uts),
    ("cgroup", NsKind::Cgroup),
    ("time", NsKind::Time),
];

/// Returns the kind with this flag name, or with this name in /proc/PID/ns: `mount` is called `mnt` there.
fn kind_named(word: &[u8]) -> Option<NsKind> {
    let flag = KIND_NAMES.into_iter().find(|(name, _)| name.as_bytes() == word).map(|(_, kind)| kind);
    flag.or_else(|| NsKind::from_name(word))
}

/// Returns the name of the long flag that creates this kind.
pub(crate) fn flag_of(kind: NsKind) -> &'static str {
    KIND_NAMES.into_iter().find(|(_, other)| *other == kind).map_or("", |(name, _)| name)
}

/// Parses the value of `--dialect`.
pub(crate) fn dialect(name: &str) -> Result<&'static Dialect, String> {
    let names = || Dialect::ALL.iter().map(|dialect| dialect.name()).collect::<Vec<_>>().join(", ");
    Dialect::from_name(name).ok_or_else(|| format!("expected one of {}", names()))
}

/// The value of `--fd`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FdValue {
    /// All descriptors that are not close-on-exec.
    All,
    /// The descriptor with this number.
    One(Fd),
}

impl FromStr for FdValue {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "all" {
            return Ok(Self::All);
        }
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse().ok().filter(|_| digits) {
            Some(0..=2) => Err("descriptors 0 to 2 are always passed on".to_owned()),
            Some(number) => Ok(Self::One(Fd(number))),
            None => Err("expected a descriptor number above 2, or all".to_owned()),
        }
    }
}

/// Parses the number of a descriptor above 2.
pub(crate) fn descriptor(text: &str) -> Result<Fd, String> {
    match text.parse() {
        Ok(FdValue::One(fd)) => Ok(fd),
        _ => Err("expected a descriptor number above 2".to_owned()),
    }
}

/// A restriction with the calls of a plan.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum EmitFlag {
    /// A seccomp profile of the OCI runtime specification
    Seccomp,
    /// AppArmor rules
    Apparmor,
    /// A line for a systemd unit
    Systemd,
}

/// The order of the calls in the text format.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum OrderFlag {
    /// One section for each process
    Process,
    /// One list of the calls of all processes
    Time,
}

/// The value of `--set-env`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Variable {
    pub(crate) name: OsString,
    pub(crate) value: OsString,
}

impl Variable {
    /// Reads `NAME=VALUE`.
    pub(crate) fn parse(text: &OsStr) -> Result<Self, String> {
        let bytes = text.as_bytes();
        match bytes.iter().position(|byte| *byte == b'=') {
            Some(0) | None => Err("expected NAME=VALUE with a non-empty NAME".to_owned()),
            Some(at) => Ok(Self {
                name: OsStr::from_bytes(&bytes[..at]).to_owned(),
                value: OsStr::from_bytes(&bytes[at + 1..]).to_owned(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn map_line_is_three_numbers_in_range() {
        let line = |inside, outside, count| Ok(MapValue::Line(Extent { inside, outside, count }));
        assert_eq!("0:1000:1".parse(), line(0, 1000, 1));
        assert_eq!("0:0:4294967295".parse(), line(0, 0, u32::MAX));
        assert_eq!("4294967294:1:1".parse(), line(u32::MAX - 1, 1, 1));
        assert_eq!("auto".parse(), Ok(MapValue::Auto));
        assert_eq!("subids".parse(), Ok(MapValue::SubIds));
        assert_eq!("all".parse(), Ok(MapValue::All));
        // util-linux 2.38 has the outer id first.
        assert_eq!("1000,0,1".parse(), line(0, 1000, 1));
        for refused in [
            "",
            "0",
            "0:1",
            "0:1:",
            "0:1:2:3",
            "0:1:0",
            "+0:1:1",
            "0:-1:1",
            "0: 1:1",
            "0x0:1:1",
            "0:1:4294967296",
            "1:0:4294967295",
            "0:1:4294967295",
            "4294967295:0:1",
            "Auto",
            "0,1",
            "0,1:1",
            "0,1,1,1",
        ] {
            assert!(refused.parse::<MapValue>().is_err(), "{refused}");
        }
    }

    #[test]
    fn map_line_errors_name_the_problem() {
        let error = |text: &str| text.parse::<MapValue>().unwrap_err();
        assert_eq!(error("0:1000"), "expected I:O:N (inside, outside, number of ids), auto, subids or all");
        assert_eq!(
            error("0:x:1"),
            "'x' is not a decimal number of 32 bits, expected I:O:N (inside, outside, number of ids), auto, subids or all"
        );
        assert_eq!(error("0:1000:0"), "the number of ids is 0, expected 1 or more");
        assert_eq!(error("0:4294967000:1000"), "the ids outside end beyond 4294967294, the last valid id");
    }

    #[test]
    fn id_is_a_number_or_a_name() {
        assert_eq!(user_id("4294967294"), Ok(u32::MAX - 1));
        assert_eq!((user_id("root"), group_id("root")), (Ok(0), Ok(0)));
        for refused in ["", "-1", "4294967295", "no such user"] {
            assert!(user_id(refused).is_err() && group_id(refused).is_err(), "{refused}");
        }
    }

    #[test]
    fn signal_is_a_name_or_a_number() {
        for text in ["TERM", "SIGTERM", "sigterm", "15"] {
            assert_eq!(signal(text), Ok(Signal::TERM), "{text}");
        }
        assert_eq!(signal("64"), Ok(Signal(64)));
        for (text, number) in [
            ("CLD", 17),
            ("sigiot", 6),
            ("POLL", 29),
            ("RTMIN", 34),
            ("SIGRTMIN+2", 36),
            ("rtmin+30", 64),
            ("RTMAX", 64),
            ("RTMAX-30", 34),
        ] {
            assert_eq!(signal(text), Ok(Signal(number)), "{text}");
        }
        for refused in [
            "", "0", "65", "SIG", "NONE", "-9", "RTMIN+", "RTMIN-1", "RTMIN+31", "RTMAX+1", "RTMAX-31",
            "RTMIN+-1",
        ] {
            assert!(signal(refused).is_err(), "{refused}");
        }
    }

    #[test]
    fn a_join_names_a_kind_and_a_path() {
        let join = |text: &str| JoinValue::parse(OsStr::new(text));
        let net = |path: &[u8]| Ok(JoinValue { kind: NsKind::Net, path: path.to_vec() });
        assert_eq!(join("net=/run/netns/blue"), net(b"/run/netns/blue"));
        assert_eq!(join("net=a=b:c"), net(b"a=b:c"));
        assert_eq!(join("mount=x"), join("mnt=x"));
        assert_eq!(join("net"), Err("expected KIND=PATH".to_owned()));
        assert_eq!(join("net="), Err("the path is empty, expected KIND=PATH".to_owned()));
        assert!(join("net=/a,b").is_err());
        assert_eq!(
            join("NET=/x").unwrap_err(),
            "'NET' is not a kind of namespace, expected user, mount, pid, net, ipc, uts, cgroup, time"
        );
    }

    #[test]
    fn each_kind_has_a_flag() {
        for kind in NsKind::ALL {
            assert_eq!(kind_named(flag_of(kind).as_bytes()), Some(kind));
        }
    }

    #[test]
    fn a_descriptor_is_a_number_above_2_or_all() {
        assert_eq!("all".parse(), Ok(FdValue::All));
        assert_eq!("3".parse(), Ok(FdValue::One(Fd(3))));
        for refused in ["", "0", "2", "-1", "+3", "x", "2147483648", "3,4"] {
            assert!(refused.parse::<FdValue>().is_err(), "{refused}");
        }
    }

    #[test]
    fn a_variable_has_a_name_and_a_value() {
        let parse = |text: &str| Variable::parse(OsStr::new(text));
        let variable = |name: &str, value: &str| Ok(Variable { name: name.into(), value: value.into() });
        assert_eq!(parse("A=1"), variable("A", "1"));
        assert_eq!(parse("A=b=c"), variable("A", "b=c"));
        assert_eq!(parse("A="), variable("A", ""));
        for refused in ["", "A", "=1"] {
            assert!(parse(refused).is_err(), "{refused}");
        }
    }
}
