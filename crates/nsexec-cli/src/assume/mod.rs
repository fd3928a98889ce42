//! The assumptions of a plan: the facts of this machine, changed by `--assume`.

pub(crate) mod value;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::sys::statfs::statfs;
use nix::unistd::{AccessFlags, faccessat, getegid, geteuid};
use nsexec::idmap::{Extent, parse_line};
use nsexec::launch::{Prepared, StatusText, own_status};
use nsexec::namespace::NsKind;
use nsexec::sys::types::{FsType, SignalSet};
use nsexec_audit::plan::{Assumptions, JoinedUser, Kernel, Owner, Refused, WrongPath};
use nsexec_audit::sim::{HidePid, Settings};

use super::facts::{Facts, SubRange};
use super::values::JoinValue;
use value::AssumeValue;

/// The errno of an ioctl(2) that the file does not support.
const ENOTTY: i32 = nix::errno::Errno::ENOTTY as i32;
const EACCES: i32 = nix::errno::Errno::EACCES as i32;
const EPERM: i32 = nix::errno::Errno::EPERM as i32;
const ENOTDIR: i32 = nix::errno::Errno::ENOTDIR as i32;

/// Returns the assumptions that describe this machine. The caller's subordinate ids come from `facts`.
pub(crate) fn of_machine(facts: &Facts, joined: &[JoinValue]) -> Assumptions {
    let status = own_status();
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
    let uptime = uptime.split('.').next().and_then(|seconds| seconds.parse().ok());
    Assumptions {
        uid: facts.euid,
        gid: facts.egid,
        capabilities: status.bits("CapEff").unwrap_or(0),
        kernel: Kernel::parse(&release).unwrap_or(Kernel::CURRENT),
        subuid: first_range(&facts.subuids),
        subgid: first_range(&facts.subgids),
        owners: owners(joined),
        proc_masked: covers_proc(&mounts),
        hidepid: hidepid(&mounts, &own_groups(&status)),
        no_new_privs: status.field("NoNewPrivs") == Some("1"),
        uptime: uptime.unwrap_or(Settings::default().uptime),
        blocked: SignalSet(status.bits("SigBlk").unwrap_or(0)),
        file_system: file_system(joined),
        wrong_path: wrong_path(joined),
        joined_user: joined_user(joined),
        // [`super::sealed`] makes sure of this.
        sealed: true,
        command: None,
        refused: BTreeMap::new(),
        files: BTreeSet::new(),
    }
}

/// Returns the first range: a plan has only one, though the mapping tools use all ranges. Most users have
/// one.
fn first_range(ranges: &[SubRange]) -> Option<(u32, u32)> {
    ranges.first().map(|range| (range.first, range.count))
}

/// Returns whether something is mounted below /proc, as in a container. In a user namespace the kernel then
/// refuses to mount a new proc file system.
fn covers_proc(mountinfo: &str) -> bool {
    mountinfo.lines().filter_map(|line| line.split(' ').nth(4)).any(|point| point.starts_with("/proc/"))
}

/// Returns /proc's hidepid mode for a caller in these groups. The last mount at /proc is the visible one.
fn hidepid(mountinfo: &str, groups: &[u32]) -> HidePid {
    let line = mountinfo.lines().rfind(|line| line.split(' ').nth(4) == Some("/proc"));
    // The options follow the file system's type and its source.
    let options = line.and_then(|line| line.split_once(" - ")?.1.split(' ').nth(2)).unwrap_or_default();
    let value =
        |name| options.split(',').find_map(|option: &str| option.strip_prefix(name)?.strip_prefix('='));
    let mode = value("hidepid").and_then(HidePid::parse).unwrap_or_default();
    let exempt = value("gid").and_then(|gid| gid.parse().ok()).unwrap_or(0);
    if mode != HidePid::Ptraceable && groups.contains(&exempt) { HidePid::Off } else { mode }
}

/// Returns the caller's groups: the effective one and the supplementary ones.
fn own_groups(status: &StatusText) -> Vec<u32> {
    let words = |name| status.field(name).unwrap_or_default().split_whitespace();
    words("Gid").skip(1).take(1).chain(words("Groups")).filter_map(|gid: &str| gid.parse().ok()).collect()
}

fn path_of(join: &JoinValue) -> &Path {
    Path::new(OsStr::from_bytes(&join.path))
}

/// Returns the problems of the paths to join: what each one is instead of a namespace of its kind.
fn wrong_path(joined: &[JoinValue]) -> BTreeMap<NsKind, WrongPath> {
    joined.iter().filter_map(|join| problem_of_path(join).map(|wrong_path| (join.kind, wrong_path))).collect()
}

/// Returns the file system of the first path that is a FIFO or a regular file: the refusal names that path.
fn file_system(joined: &[JoinValue]) -> FsType {
    let is_file =
        |join: &&JoinValue| matches!(problem_of_path(join), Some(WrongPath::Fifo | WrongPath::Regular));
    let first = joined.iter().find(is_file).and_then(|join| statfs(path_of(join)).ok());
    first.map_or(Settings::default().file_system, |found| FsType(magic(found.filesystem_type().0)))
}

/// Converts the number of a file system's type, which is signed in glibc and unsigned in musl.
fn magic<N: TryInto<i64>>(number: N) -> i64 {
    // No such number has more than 32 bits.
    number.try_into().unwrap_or_default()
}

fn problem_of_path(join: &JoinValue) -> Option<WrongPath> {
    let path = path_of(join);
    let data = match fs::metadata(path) {
        Ok(data) => data,
        Err(error) => {
            return Some(match error.raw_os_error() {
                Some(EACCES) => WrongPath::Forbidden,
                Some(EPERM) => WrongPath::NotPermitted,
                Some(ENOTDIR) => WrongPath::BelowFile,
                _ => WrongPath::Missing,
            });
        }
    };
    if data.file_type().is_fifo() {
        return Some(WrongPath::Fifo);
    }
    match nsexec::launch::kind_of(path) {
        Ok(kind) if kind != join.kind.flag() => Some(WrongPath::OtherKind),
        Ok(_) => {
            let own = fs::metadata(format!("/proc/self/ns/{}", join.kind.proc_name()));
            let same = own.is_ok_and(|own| (own.dev(), own.ino()) == (data.dev(), data.ino()));
            same.then_some(WrongPath::Own)
        }
        Err(error) => match error.raw_os_error() {
            // The file is not on nsfs, so it does not support the ioctl(2). nsfs has no directories and
            // devices.
            Some(ENOTTY) => Some(WrongPath::Regular),
            Some(EACCES) => Some(WrongPath::Forbidden),
            Some(EPERM) => Some(WrongPath::NotPermitted),
            _ => None,
        },
    }
}

/// Returns the user namespace to join: its maker, its maps and its setgroups setting.
///
/// The maps are read from the files of a process in the namespace: the process whose /proc/PID/ns/user is
/// joined, or else the first one found. If there is none, as for a bind-mounted namespace, the maps are
/// assumed to be those that the caller would have written.
fn joined_user(joined: &[JoinValue]) -> Option<JoinedUser> {
    let path = path_of(joined.iter().find(|join| join.kind == NsKind::User)?);
    let wanted = identity(path)?;
    let maker = nsexec::launch::creator_of(path).ok()?;
    let is_in = |folder: &PathBuf| identity(&folder.join("ns/user")) == Some(wanted);
    let named = path.ancestors().nth(2).map(Path::to_owned).filter(is_in);
    let folder = named.or_else(|| {
        let all = fs::read_dir("/proc").ok()?.flatten().map(|entry| entry.path());
        all.into_iter().find(is_in)
    });
    let usual = JoinedUser { maker, ..JoinedUser::made_by(geteuid().as_raw(), getegid().as_raw()) };
    let Some(folder) = folder else { return Some(usual) };
    let read = |file: &str| fs::read_to_string(folder.join(file));
    let map = |file: &str| Some(extents(&read(file).ok()?));
    let denied = read("setgroups").map(|word| word.trim() == "deny");
    Some(JoinedUser {
        maker,
        users: map("uid_map").unwrap_or(usual.users),
        groups: map("gid_map").unwrap_or(usual.groups),
        setgroups: denied.map_or(usual.setgroups, |denied| !denied),
    })
}

/// Parses the lines of a map file. Leaves out ids that are not mapped in our user namespace: no process that
/// we see has one.
fn extents(text: &str) -> Vec<Extent> {
    let lines = text.lines().filter_map(|line| parse_line(line.as_bytes()).ok());
    lines.filter(|line| line.outside != u32::MAX).collect()
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|data| (data.dev(), data.ino()))
}

/// Returns the owner of each namespace to join, as far as the kernel reports it.
fn owners(joined: &[JoinValue]) -> BTreeMap<NsKind, Owner> {
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

/// Applies the `--assume` arguments in order.
pub(crate) fn apply(assumptions: &mut Assumptions, given: &[AssumeValue]) {
    // A different user gets the usual privileges of such a user, unless an argument sets them.
    if let Some(uid) = given.iter().rev().find_map(|value| match value {
        AssumeValue::Uid(uid) if *uid != assumptions.uid => Some(*uid),
        _ => None,
    }) {
        let usual = if uid == 0 { Assumptions::root() } else { Assumptions::ordinary(uid) };
        (assumptions.capabilities, assumptions.no_new_privs) = (usual.capabilities, false);
        // Our own lack of permission says nothing about another user's.
        assumptions
            .wrong_path
            .retain(|_, wrong_path| !matches!(wrong_path, WrongPath::Forbidden | WrongPath::NotPermitted));
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
            AssumeValue::HidePid(mode) => assumptions.hidepid = mode,
            AssumeValue::Command(file) => assumptions.command = Some(file.into_bytes()),
            AssumeValue::Uptime(seconds) => assumptions.uptime = seconds,
            AssumeValue::Join(kind, None) => drop(assumptions.wrong_path.remove(&kind)),
            AssumeValue::Join(kind, Some(wrong_path)) => {
                assumptions.wrong_path.insert(kind, wrong_path);
            }
            AssumeValue::Maker(_)
            | AssumeValue::UserMap(_)
            | AssumeValue::GroupMap(_)
            | AssumeValue::Setgroups(_) => {}
        }
    }
    // The caller is known only now.
    for value in given {
        let mut joined = assumptions.joined_user();
        match value.clone() {
            AssumeValue::Maker(uid) => joined.maker = uid,
            AssumeValue::UserMap(map) => joined.users = map,
            AssumeValue::GroupMap(map) => joined.groups = map,
            AssumeValue::Setgroups(allowed) => joined.setgroups = allowed,
            _ => continue,
        }
        assumptions.joined_user = Some(joined);
    }
}

/// Returns the caller's facts under the assumptions, for the decisions about id maps.
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

/// Searches for the command on this machine. Returns the first candidate that exists and may be executed, and
/// the reason for each candidate refused before it.
///
/// The launch gets the same result unless it searches in another root directory or as another user.
pub(crate) fn search(prepared: &Prepared) -> (Option<Vec<u8>>, BTreeMap<Vec<u8>, Refused>) {
    let mut refused = BTreeMap::new();
    for candidate in prepared.candidates() {
        let path = Path::new(OsStr::from_bytes(candidate));
        let why = match fs::metadata(path) {
            Ok(data) if data.is_file() && may_execute(path) => return (Some(candidate.to_vec()), refused),
            Ok(_) => Refused::NotExecutable,
            Err(error) => match error.raw_os_error() {
                Some(EACCES) => Refused::Hidden,
                Some(EPERM) => Refused::NotPermitted,
                Some(ENOTDIR) => Refused::BelowFile,
                _ => continue,
            },
        };
        refused.insert(candidate.to_vec(), why);
    }
    (None, refused)
}

/// Returns whether this process may execute the file. Uses the effective ids and the capabilities, as
/// execve(2) does.
fn may_execute(path: &Path) -> bool {
    faccessat(AT_FDCWD, path, AccessFlags::X_OK, AtFlags::AT_EACCESS).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assumed_uid_gets_the_usual_privileges() {
        let mut assumptions = Assumptions::root();
        apply(&mut assumptions, &[AssumeValue::SubUid(Some((5, 6))), AssumeValue::Uid(1000)]);
        assert_eq!((assumptions.uid, assumptions.gid, assumptions.capabilities), (1000, 1000, 0));
        assert_eq!((assumptions.subuid, assumptions.subgid), (Some((5, 6)), None));
    }

    #[test]
    fn joined_user_namespace_assumptions_override_defaults() {
        let mut assumptions = Assumptions::root();
        // The order does not matter: the caller is determined first.
        apply(&mut assumptions, &[AssumeValue::Setgroups(true), AssumeValue::Uid(1000)]);
        let wanted = JoinedUser { setgroups: true, ..JoinedUser::made_by(1000, 1000) };
        assert_eq!(assumptions.joined_user, Some(wanted));
        let mut assumptions = Assumptions::root();
        apply(&mut assumptions, &[AssumeValue::Uid(1000)]);
        assert_eq!(assumptions.joined_user, None);
    }

    #[test]
    fn join_assumption_overrides_the_path_check() {
        let mut assumptions = Assumptions {
            wrong_path: [(NsKind::Net, WrongPath::Missing), (NsKind::Uts, WrongPath::Forbidden)].into(),
            ..Assumptions::root()
        };
        apply(&mut assumptions, &[AssumeValue::Join(NsKind::Net, None)]);
        assert_eq!(assumptions.wrong_path, [(NsKind::Uts, WrongPath::Forbidden)].into());
        // We have no access; another user may have.
        apply(
            &mut assumptions,
            &[AssumeValue::Uid(1000), AssumeValue::Join(NsKind::Ipc, Some(WrongPath::Fifo))],
        );
        assert_eq!(assumptions.wrong_path, [(NsKind::Ipc, WrongPath::Fifo)].into());
    }

    #[test]
    fn paths_to_join_are_checked() {
        let problem_of_path =
            |kind, path: &str| problem_of_path(&JoinValue { kind, path: path.as_bytes().to_vec() });
        assert_eq!(problem_of_path(NsKind::Net, "/no/such/file"), Some(WrongPath::Missing));
        assert_eq!(problem_of_path(NsKind::Net, "/etc/passwd/net"), Some(WrongPath::BelowFile));
        assert_eq!(problem_of_path(NsKind::Net, "/etc/passwd"), Some(WrongPath::Regular));
        assert_eq!(problem_of_path(NsKind::Net, "/etc"), Some(WrongPath::Regular));
        assert_eq!(problem_of_path(NsKind::Net, "/proc/self/ns/uts"), Some(WrongPath::OtherKind));
        assert_eq!(problem_of_path(NsKind::Net, "/proc/self/ns/net"), Some(WrongPath::Own));
    }

    #[test]
    fn a_joined_user_namespace_is_read_from_a_process_in_it() {
        let join =
            |path: &str| joined_user(&[JoinValue { kind: NsKind::User, path: path.as_bytes().to_vec() }]);
        // Use our own user namespace: once by its process, once by another path, for which a process is
        // searched.
        let own = join("/proc/self/ns/user");
        let map = fs::read_to_string("/proc/self/uid_map").unwrap();
        assert_eq!(own.as_ref().unwrap().users, extents(&map));
        assert_eq!(join("/proc/thread-self/ns/user"), own);
        assert_eq!(join("/no/such/file"), None);
    }

    #[test]
    fn unmapped_ids_are_left_out() {
        let text = "         0       1000          1\n         1 4294967295          5\n";
        assert_eq!(extents(text), [Extent { inside: 0, outside: 1000, count: 1 }]);
    }

    #[test]
    fn hidepid_is_read_from_the_last_mount_of_proc() {
        let mount = |options: &str| format!("36 35 98:0 / /proc rw,nosuid - proc proc rw,{options}\n");
        let hides = |options, groups: &[u32]| hidepid(&mount(options), groups);
        assert_eq!(hides("hidepid=noaccess", &[5]), HidePid::NoAccess);
        assert_eq!(hides("hidepid=2", &[5]), HidePid::Invisible);
        assert_eq!(hides("gid=5,hidepid=invisible", &[4, 5]), HidePid::Off);
        assert_eq!(hides("gid=5,hidepid=invisible", &[0]), HidePid::Invisible);
        assert_eq!(hides("hidepid=1", &[0]), HidePid::Off);
        assert_eq!(hides("hidepid=ptraceable", &[0]), HidePid::Ptraceable);
        assert_eq!(hides("relatime", &[5]), HidePid::Off);
        assert_eq!(hidepid(&(mount("hidepid=2") + &mount("x")), &[5]), HidePid::Off);
        assert_eq!(hidepid(&(mount("x") + &mount("hidepid=4")), &[5]), HidePid::Ptraceable);
        assert_eq!(hidepid("36 35 98:0 / /proc/x rw - proc proc rw,hidepid=2\n", &[5]), HidePid::Off);
        let status = "Uid:\t1 2 3 4\nGid:\t5\t6\t7\t8\nGroups:\t9 10 \n";
        assert_eq!(own_groups(&StatusText::new(status.as_bytes())), [6, 9, 10]);
    }

    #[test]
    fn a_mount_below_proc_covers_it() {
        assert!(covers_proc("36 35 98:0 / /proc/sys rw - proc proc rw\n"));
        assert!(!covers_proc("36 35 98:0 / /proc rw - proc proc rw\n37 35 98:0 / /proceed rw - x x rw\n"));
    }
}
