//! What a plan assumes: from the machine, changed by `--assume`.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use nsexec::audit::plan::{Amiss, Assumptions, Kernel, Owner};
use nsexec::launch::Prepared;
use nsexec::namespace::NsKind;
use nsexec::sys::sim::ALL_CAPS;
use nsexec::sys::types::SignalSet;

use super::facts::{Facts, SubRange};
use super::values::JoinValue;

/// What an ioctl says of a file that does not know it.
const ENOTTY: i32 = nix::errno::Errno::ENOTTY as i32;

/// One `--assume KEY=VALUE`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum AssumeValue {
    Uid(u32),
    Gid(u32),
    Caps(u64),
    Kernel(Kernel),
    SubUid(Option<(u32, u32)>),
    SubGid(Option<(u32, u32)>),
    Owner(NsKind, Owner),
    ProcMasked(bool),
    Command(String),
}

/// The keys and their shapes, for people.
pub(crate) const KEYS: &str = "uid=N, gid=N, caps=all|none|HEX, kernel=X.Y, subuid=FIRST:COUNT|none, \
                               subgid=FIRST:COUNT|none, owner=KIND:caller|joined, proc=whole|covered, command=FILE";

impl AssumeValue {
    /// Reads one.
    ///
    /// # Errors
    /// What is wrong with it, and the keys that there are.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (key, value) = text.split_once('=').ok_or_else(|| format!("not KEY=VALUE; the keys: {KEYS}"))?;
        let wrong = || format!("'{value}' is no value for {key}; the keys: {KEYS}");
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
            "kernel" => Self::Kernel(Kernel::parse(value).ok_or_else(wrong)?),
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
            "command" => Self::Command(value.to_owned()),
            _ => return Err(format!("no key '{key}'; the keys: {KEYS}")),
        })
    }
}

/// The machine as it is. The caller's subordinate ids are `facts`'.
pub(crate) fn of_machine(facts: &Facts, joined: &[JoinValue]) -> Assumptions {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let hex = |name: &str| {
        let digits = status.lines().find_map(|line| line.strip_prefix(name));
        digits.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0)
    };
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    Assumptions {
        uid: facts.euid,
        gid: facts.egid,
        capabilities: hex("CapEff:"),
        kernel: Kernel::parse(&release).unwrap_or(Kernel::CURRENT),
        subuid: first_range(&facts.subuids),
        subgid: first_range(&facts.subgids),
        owners: owners(joined),
        proc_masked: covers_proc(&mounts),
        blocked: SignalSet(hex("SigBlk:")),
        amiss: BTreeMap::new(),
        command: None,
    }
}

/// The tools go by all ranges; a plan knows one, which is what nearly everybody has.
fn first_range(ranges: &[SubRange]) -> Option<(u32, u32)> {
    ranges.first().map(|range| (range.first, range.count))
}

/// Whether something is mounted below /proc, as outer containers do (proc(5) mounts are then refused in a user
/// namespace).
fn covers_proc(mountinfo: &str) -> bool {
    mountinfo.lines().filter_map(|line| line.split(' ').nth(4)).any(|point| point.starts_with("/proc/"))
}

fn path_of(join: &JoinValue) -> &Path {
    Path::new(OsStr::from_bytes(&join.path))
}

/// The paths to join that are no namespaces on this machine.
pub(crate) fn amiss(joined: &[JoinValue]) -> BTreeMap<Vec<u8>, Amiss> {
    let look = |join: &JoinValue| match fs::metadata(path_of(join)) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Some(Amiss::Forbidden),
        Err(_) => Some(Amiss::Missing),
        Ok(data) if data.file_type().is_fifo() => Some(Amiss::Fifo),
        // nsfs has no directory and no device; whether a file is on it, its link says.
        Ok(_)
            if nsexec::launch::owner_of(path_of(join))
                .is_err_and(|error| error.raw_os_error() == Some(ENOTTY)) =>
        {
            Some(Amiss::Regular)
        }
        Ok(_) => None,
    };
    joined.iter().filter_map(|join| look(join).map(|amiss| (join.path.clone(), amiss))).collect()
}

/// Who owns what is joined, as far as the kernel tells.
fn owners(joined: &[JoinValue]) -> BTreeMap<NsKind, Owner> {
    let identity = |path: &Path| fs::metadata(path).ok().map(|data| (data.dev(), data.ino()));
    let user = joined.iter().find(|join| join.kind == NsKind::User).and_then(|join| identity(path_of(join)));
    let others = joined.iter().filter(|join| join.kind != NsKind::User);
    others
        .map(|join| {
            let owner = nsexec::launch::owner_of(path_of(join)).ok();
            let inside = user.is_some() && owner == user;
            (join.kind, if inside { Owner::Joined } else { Owner::Caller })
        })
        .collect()
}

/// Applies what was given, in order.
pub(crate) fn apply(assumptions: &mut Assumptions, given: &[AssumeValue]) {
    // Another user than the caller has what such a user usually has, unless it is said.
    if let Some(uid) = given.iter().rev().find_map(|value| match value {
        AssumeValue::Uid(uid) if *uid != assumptions.uid => Some(*uid),
        _ => None,
    }) {
        let usual = if uid == 0 { Assumptions::root() } else { Assumptions::ordinary(uid) };
        assumptions.capabilities = usual.capabilities;
        (assumptions.gid, assumptions.subuid, assumptions.subgid) = (usual.gid, None, None);
    }
    for value in given {
        match value.clone() {
            AssumeValue::Uid(uid) => assumptions.uid = uid,
            AssumeValue::Gid(gid) => assumptions.gid = gid,
            AssumeValue::Caps(caps) => assumptions.capabilities = caps,
            AssumeValue::Kernel(kernel) => assumptions.kernel = kernel,
            AssumeValue::SubUid(range) => assumptions.subuid = range,
            AssumeValue::SubGid(range) => assumptions.subgid = range,
            AssumeValue::Owner(kind, owner) => drop(assumptions.owners.insert(kind, owner)),
            AssumeValue::ProcMasked(masked) => assumptions.proc_masked = masked,
            AssumeValue::Command(file) => assumptions.command = Some(file.into_bytes()),
        }
    }
}

/// The caller's facts as they are under the assumptions, for the decisions about maps.
pub(crate) fn facts_under(assumptions: &Assumptions, facts: Facts) -> Facts {
    let range = |range: Option<(u32, u32)>| {
        range.map(|(first, count)| SubRange { first, count }).into_iter().collect::<Vec<_>>()
    };
    let tool = |found: Option<std::path::PathBuf>, name: &str, needed: bool| {
        found.or_else(|| needed.then(|| Path::new("/usr/bin").join(name)))
    };
    let ordinary = assumptions.uid != 0;
    Facts {
        capabilities: Some(assumptions.capabilities),
        euid: assumptions.uid,
        egid: assumptions.gid,
        newuidmap: tool(facts.newuidmap, "newuidmap", ordinary && assumptions.subuid.is_some()),
        newgidmap: tool(facts.newgidmap, "newgidmap", ordinary && assumptions.subgid.is_some()),
        subuids: if facts.euid == assumptions.uid && first_range(&facts.subuids) == assumptions.subuid {
            facts.subuids
        } else {
            range(assumptions.subuid)
        },
        subgids: if facts.euid == assumptions.uid && first_range(&facts.subgids) == assumptions.subgid {
            facts.subgids
        } else {
            range(assumptions.subgid)
        },
        ..facts
    }
}

/// The first candidate that is there and may be executed: what the search of the launch will find, unless it happens in
/// another root directory.
pub(crate) fn find_command(prepared: &Prepared) -> Option<Vec<u8>> {
    let executable = |path: &&[u8]| {
        let path = Path::new(OsStr::from_bytes(path));
        super::facts::is_executable(path)
    };
    prepared.candidates().find(executable).map(<[u8]>::to_vec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read() {
        let parse = |text| AssumeValue::parse(text);
        assert_eq!(parse("uid=7"), Ok(AssumeValue::Uid(7)));
        assert_eq!(parse("caps=0x3"), Ok(AssumeValue::Caps(3)));
        assert_eq!(parse("subuid=100000:65536"), Ok(AssumeValue::SubUid(Some((100_000, 65_536)))));
        assert_eq!(parse("subgid=none"), Ok(AssumeValue::SubGid(None)));
        assert_eq!(parse("owner=net:caller"), Ok(AssumeValue::Owner(NsKind::Net, Owner::Caller)));
        for wrong in
            ["uid", "uid=x", "uid=-1", "caps=many", "kernel=new", "owner=net", "owner=foo:caller", "a=b"]
        {
            assert!(parse(wrong).unwrap_err().contains(KEYS), "{wrong}");
        }
    }

    #[test]
    fn another_user_has_what_such_a_user_has() {
        let mut assumptions = Assumptions::root();
        apply(&mut assumptions, &[AssumeValue::SubUid(Some((5, 6))), AssumeValue::Uid(1000)]);
        assert_eq!((assumptions.uid, assumptions.gid, assumptions.capabilities), (1000, 1000, 0));
        assert_eq!((assumptions.subuid, assumptions.subgid), (Some((5, 6)), None));
    }

    #[test]
    fn a_mount_below_proc_covers_it() {
        assert!(covers_proc("36 35 98:0 / /proc/sys rw - proc proc rw\n"));
        assert!(!covers_proc("36 35 98:0 / /proc rw - proc proc rw\n37 35 98:0 / /proceed rw - x x rw\n"));
    }
}
