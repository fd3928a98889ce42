//! The value of `--assume`.

use std::ffi::CString;

use nsexec::idmap::{Extent, IdMap};
use nsexec::launch::shape::Yama;
use nsexec::namespace::NsKind;
use nsexec_audit::plan::{Kernel, Owner, WrongPath};
use nsexec_audit::sim::{ALL_CAPS, HidePid};

/// One `--assume KEY=VALUE`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum AssumeValue {
    Uid(u32),
    Gid(u32),
    Caps(u64),
    Yama(Yama),
    SuidDumpable(bool),
    Kernel(Kernel),
    Absent(NsKind),
    SubUid(Option<(u32, u32)>),
    SubGid(Option<(u32, u32)>),
    Owner(NsKind, Owner),
    ProcMasked(bool),
    HidePid(HidePid),
    Command(String),
    Join(NsKind, Option<WrongPath>),
    Maker(u32),
    UserMap(Vec<Extent>),
    GroupMap(Vec<Extent>),
    Setgroups(bool),
    Uptime(i64),
}

/// The keys and the format of their values, for error messages.
pub(crate) const KEYS: &str = "uid=N, gid=N, caps=all|none|HEX, yama=off|on, kernel=X.Y, absent=KIND, subuid=FIRST:COUNT|none, \
                               subgid=FIRST:COUNT|none, owner=KIND:caller|joined, proc=whole|covered, \
                               hidepid=off|noaccess|invisible|ptraceable, suid_dumpable=0|1|2, command=FILE, \
                               join=KIND:there|missing|below-file|forbidden|not-permitted|fifo|file|other-kind|own, maker=UID, \
                               user-map=I:O:N,...|none, group-map=I:O:N,...|none, setgroups=allow|deny, \
                               uptime=SECONDS";

impl AssumeValue {
    /// Parses one `KEY=VALUE`.
    ///
    /// # Errors
    /// The argument is malformed or the key unknown; the text lists the keys.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (key, value) = text.split_once('=').ok_or_else(|| format!("not KEY=VALUE; the keys: {KEYS}"))?;
        let wrong = || format!("'{value}' is not a valid value for {key}; the keys: {KEYS}");
        let number = || value.parse().map_err(|_| wrong());
        let range = || {
            if value == "none" {
                return Ok::<_, String>(None);
            }
            let (first, count) = value.split_once(':').ok_or_else(wrong)?;
            Ok(Some((first.parse().map_err(|_| wrong())?, count.parse().map_err(|_| wrong())?)))
        };
        Ok(match key {
            "uid" => Self::Uid(number()?),
            "gid" => Self::Gid(number()?),
            "caps" => Self::Caps(match value {
                "all" => ALL_CAPS,
                "none" => 0,
                hex => u64::from_str_radix(hex.trim_start_matches("0x"), 16).map_err(|_| wrong())?,
            }),
            "yama" => Self::Yama(match value {
                "off" => Yama::Off,
                "on" => Yama::On,
                _ => return Err(wrong()),
            }),
            "suid_dumpable" => match value {
                "0" | "1" | "2" => Self::SuidDumpable(value == "1"),
                _ => return Err(wrong()),
            },
            "kernel" => Self::Kernel(Kernel::parse(value).ok_or_else(wrong)?),
            "absent" => Self::Absent(NsKind::from_name(value.as_bytes()).ok_or_else(wrong)?),
            "subuid" => Self::SubUid(range()?),
            "subgid" => Self::SubGid(range()?),
            "owner" => {
                let (kind, owner) = value.split_once(':').ok_or_else(wrong)?;
                let owner = match owner {
                    "caller" => Owner::Caller,
                    "joined" => Owner::Joined,
                    _ => return Err(wrong()),
                };
                Self::Owner(NsKind::from_name(kind.as_bytes()).ok_or_else(wrong)?, owner)
            }
            "proc" => Self::ProcMasked(match value {
                "whole" => false,
                "covered" => true,
                _ => return Err(wrong()),
            }),
            "hidepid" => Self::HidePid(HidePid::parse(value).ok_or_else(wrong)?),
            "command" => Self::Command(value.to_owned()),
            "join" => {
                let (kind, what) = value.split_once(':').ok_or_else(wrong)?;
                let found = WrongPath::ALL.into_iter().find(|(word, _)| *word == what);
                let wrong_path = found.map(|(_, wrong_path)| wrong_path);
                if wrong_path.is_none() && what != "there" {
                    return Err(wrong());
                }
                Self::Join(NsKind::from_name(kind.as_bytes()).ok_or_else(wrong)?, wrong_path)
            }
            "uptime" => Self::Uptime(value.parse().ok().filter(|seconds| *seconds >= 0).ok_or_else(wrong)?),
            "maker" => Self::Maker(number()?),
            "user-map" => Self::UserMap(map(value).ok_or_else(wrong)?),
            "group-map" => Self::GroupMap(map(value).ok_or_else(wrong)?),
            "setgroups" => Self::Setgroups(match value {
                "allow" => true,
                "deny" => false,
                _ => return Err(wrong()),
            }),
            _ => return Err(format!("no key '{key}'; the keys: {KEYS}")),
        })
    }
}

/// Parses the lines of an id map, as in `0:1000:1,1:100000:65536`. `None` if the kernel would refuse the map.
fn map(text: &str) -> Option<Vec<Extent>> {
    if text == "none" {
        return Some(Vec::new());
    }
    let lines = text.replace(':', " ").replace(',', "\n");
    let lines = CString::new(lines).ok()?;
    IdMap::parse(&lines).ok().map(|map| map.extents().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read() {
        let parse = |text| AssumeValue::parse(text);
        assert_eq!(parse("uid=7"), Ok(AssumeValue::Uid(7)));
        assert_eq!(parse("caps=0x3"), Ok(AssumeValue::Caps(3)));
        assert_eq!(parse("yama=on"), Ok(AssumeValue::Yama(Yama::On)));
        assert_eq!(parse("suid_dumpable=1"), Ok(AssumeValue::SuidDumpable(true)));
        assert_eq!(parse("suid_dumpable=2"), Ok(AssumeValue::SuidDumpable(false)));
        assert_eq!(parse("subuid=100000:65536"), Ok(AssumeValue::SubUid(Some((100_000, 65_536)))));
        assert_eq!(parse("subgid=none"), Ok(AssumeValue::SubGid(None)));
        assert_eq!(parse("owner=net:caller"), Ok(AssumeValue::Owner(NsKind::Net, Owner::Caller)));
        assert_eq!(parse("absent=time"), Ok(AssumeValue::Absent(NsKind::Time)));
        assert_eq!(parse("join=net:there"), Ok(AssumeValue::Join(NsKind::Net, None)));
        assert_eq!(parse("join=mnt:fifo"), Ok(AssumeValue::Join(NsKind::Mnt, Some(WrongPath::Fifo))));
        let two =
            vec![Extent { inside: 0, outside: 7, count: 1 }, Extent { inside: 1, outside: 5000, count: 10 }];
        assert_eq!(parse("user-map=0:7:1,1:5000:10"), Ok(AssumeValue::UserMap(two)));
        assert_eq!(parse("group-map=none"), Ok(AssumeValue::GroupMap(Vec::new())));
        assert_eq!(parse("setgroups=deny"), Ok(AssumeValue::Setgroups(false)));
        for wrong in [
            "join=net",
            "join=net:gone",
            "join=foo:there",
            "user-map=",
            "user-map=0:7",
            "user-map=0:7:1,0:8:1",
            "setgroups=no",
            "maker=me",
            "uptime=-1",
            "uid",
            "uid=x",
            "uid=-1",
            "caps=many",
            "yama=1",
            "suid_dumpable=3",
            "kernel=new",
            "absent=foo",
            "absent=",
            "owner=net",
            "owner=foo:caller",
            "a=b",
        ] {
            assert!(parse(wrong).unwrap_err().contains(KEYS), "{wrong}");
        }
    }
}
