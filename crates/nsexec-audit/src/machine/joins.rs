//! The namespaces to join, as this machine has them: whether a path is a namespace of its kind, and who owns
//! it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::format;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::vec::Vec;

use nix::sys::statfs::statfs;
use nix::unistd::{getegid, geteuid};
use nsexec::idmap::{Extent, parse_line};
use nsexec::namespace::NsKind;
use nsexec::sys::types::FsType;

use crate::plan::{Assumptions, JoinedUser, Owner, WrongPath};
use crate::sim::Settings;

/// The errno of an ioctl(2) that the file does not support.
const ENOTTY: i32 = nix::errno::Errno::ENOTTY as i32;
const EACCES: i32 = nix::errno::Errno::EACCES as i32;
const EPERM: i32 = nix::errno::Errno::EPERM as i32;
const ENOTDIR: i32 = nix::errno::Errno::ENOTDIR as i32;

/// A namespace to join.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    /// The kind of the namespace.
    pub kind: NsKind,
    /// The path, without NUL.
    pub path: Vec<u8>,
}

/// Adds the properties of the namespaces to join, which are read from this machine.
pub fn look_at(joined: &[Target], assumptions: &mut Assumptions) {
    assumptions.owners = owners(joined);
    assumptions.file_system = file_system(joined);
    assumptions.wrong_path = wrong_path(joined);
    assumptions.joined_user = joined_user(joined);
}

fn path_of(join: &Target) -> &Path {
    Path::new(OsStr::from_bytes(&join.path))
}

/// Returns the problems of the paths to join: what each one is instead of a namespace of its kind.
fn wrong_path(joined: &[Target]) -> BTreeMap<NsKind, WrongPath> {
    joined.iter().filter_map(|join| problem_of_path(join).map(|wrong_path| (join.kind, wrong_path))).collect()
}

/// Returns the file system of the first path that is a FIFO or a regular file: the refusal names that path.
fn file_system(joined: &[Target]) -> FsType {
    let is_file =
        |join: &&Target| matches!(problem_of_path(join), Some(WrongPath::Fifo | WrongPath::Regular));
    let first = joined.iter().find(is_file).and_then(|join| statfs(path_of(join)).ok());
    first.map_or(Settings::default().file_system, |found| FsType(magic(found.filesystem_type().0)))
}

/// Converts the number of a file system's type, which is signed in glibc and unsigned in musl.
fn magic<N: TryInto<i64>>(number: N) -> i64 {
    // No such number has more than 32 bits.
    number.try_into().unwrap_or_default()
}

fn problem_of_path(join: &Target) -> Option<WrongPath> {
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
fn joined_user(joined: &[Target]) -> Option<JoinedUser> {
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

pub(super) fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|data| (data.dev(), data.ino()))
}

/// Returns the owner of each namespace to join, as far as the kernel reports it.
fn owners(joined: &[Target]) -> BTreeMap<NsKind, Owner> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_to_join_are_checked() {
        let problem_of_path =
            |kind, path: &str| problem_of_path(&Target { kind, path: path.as_bytes().to_vec() });
        assert_eq!(problem_of_path(NsKind::Net, "/no/such/file"), Some(WrongPath::Missing));
        assert_eq!(problem_of_path(NsKind::Net, "/etc/passwd/net"), Some(WrongPath::BelowFile));
        assert_eq!(problem_of_path(NsKind::Net, "/etc/passwd"), Some(WrongPath::Regular));
        assert_eq!(problem_of_path(NsKind::Net, "/etc"), Some(WrongPath::Regular));
        assert_eq!(problem_of_path(NsKind::Net, "/proc/self/ns/uts"), Some(WrongPath::OtherKind));
        assert_eq!(problem_of_path(NsKind::Net, "/proc/self/ns/net"), Some(WrongPath::Own));
    }

    #[test]
    fn a_joined_user_namespace_is_read_from_a_process_in_it() {
        let join = |path: &str| joined_user(&[Target { kind: NsKind::User, path: path.as_bytes().to_vec() }]);
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
}
