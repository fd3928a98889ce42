//! The facts about the caller that decide which ids it may map: [`Facts`]. [`Facts::gather`] reads them; the
//! parsers are pure.

#[cfg(any(test, target_feature = "crt-static"))]
use std::borrow::ToOwned;
use std::format;
use std::fs;
use std::path::PathBuf;
use std::string::String;
use std::vec::Vec;

use nix::unistd::{getegid, geteuid, getuid};
use nsexec::idmap::Extent;
pub use nsexec::launch::Range as SubRange;
use nsexec::launch::causes::{self, Distribution, free_range};
use nsexec::launch::{NewSysfs, find_program, map_of_caller, new_sysfs, own_status, ranges_of_caller};
use nsexec::namespace::{NsKind, NsSet};
use serde::{Deserialize, Serialize};

/// The caller's ids and tools, and the kernel's namespaces.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Facts {
    /// The effective user id.
    pub euid: u32,
    /// The effective group id.
    pub egid: u32,
    /// The caller's user name, if it has one.
    pub user: Option<String>,
    /// The caller's subordinate user ids.
    pub subuids: Vec<SubRange>,
    /// The caller's subordinate group ids.
    pub subgids: Vec<SubRange>,
    /// Why the subordinate user and group ids are not known: the file, the line, and what is wrong.
    pub unread: [Option<String>; 2],
    /// The user id map of the caller's own user namespace. Empty: all ids.
    pub users: Vec<Extent>,
    /// Its group id map.
    pub groups: Vec<Extent>,
    /// The path of newuidmap, if it is in PATH.
    pub newuidmap: Option<PathBuf>,
    /// The path of newgidmap, if it is in PATH.
    pub newgidmap: Option<PathBuf>,
    /// The kinds of namespace that the kernel has.
    pub kinds: NsSet,
    /// The first id of a free range of 65536 subordinate user ids, and of subordinate group ids. `None`: the
    /// ids were not read, or no range is free.
    pub free: (Option<u32>, Option<u32>),
    /// The distribution, if a mapping tool is not in PATH.
    pub distribution: Distribution,
    /// The effective capabilities as a bit set, if they matter.
    pub capabilities: Option<u64>,
    /// All capabilities that the kernel knows, as a bit set.
    pub known_capabilities: u64,
    /// The mounts at and below /sys, if they matter and a sysfs is mounted there.
    pub sysfs: Option<NewSysfs>,
}

/// The capabilities of Linux 5.9 and later, as a bit set (capabilities(7)).
pub const ALL_CAPABILITIES: u64 = (1 << 41) - 1;

/// A user's entry in passwd(5).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Account {
    /// The name.
    pub name: String,
    /// The group id.
    pub gid: u32,
}

impl Facts {
    /// Reads the facts. Without `ids`, the user's name and subordinate ids are left out: they are in several
    /// files. Without `kinds`, the kernel is assumed to have every kind of namespace.
    #[must_use]
    pub fn gather(ids: bool, kinds: bool) -> Self {
        let user = if ids { account(getuid().as_raw()).map(|user| user.name) } else { None };
        // newuidmap and newgidmap both look up the real user id and its name. Neither looks up a group.
        let ranges = |groups| match ids.then(|| ranges_of_caller(groups)) {
            Some(Ok(ranges)) => (ranges, None),
            Some(Err(why)) => (Vec::new(), Some(why)),
            None => (Vec::new(), None),
        };
        let own_map = |groups| if ids { map_of_caller(groups) } else { Vec::new() };
        let ((subuids, no_users), (subgids, no_groups)) = (ranges(false), ranges(true));
        let free = |file: &str, own: u32| match ids.then(|| fs::read(file)) {
            Some(Ok(text)) => free_range(&String::from_utf8_lossy(&text), own),
            Some(Err(_)) => free_range("", own),
            None => None,
        };
        // root writes its maps itself.
        let find = |tool: &str| if geteuid().is_root() { None } else { find_program(tool) };
        let (newuidmap, newgidmap) = (find("newuidmap"), find("newgidmap"));
        let lacks_tool = !geteuid().is_root() && (newuidmap.is_none() || newgidmap.is_none());
        Self {
            euid: geteuid().as_raw(),
            egid: getegid().as_raw(),
            subuids,
            subgids,
            free: (free("/etc/subuid", geteuid().as_raw()), free("/etc/subgid", getegid().as_raw())),
            distribution: if ids && lacks_tool { Distribution::read() } else { Distribution::default() },
            unread: [no_users, no_groups],
            users: own_map(false),
            groups: own_map(true),
            newuidmap,
            newgidmap,
            kinds: if kinds { kinds_of_kernel() } else { NsSet::ALL },
            capabilities: None,
            known_capabilities: ALL_CAPABILITIES,
            sysfs: None,
            user,
        }
    }

    /// Returns the facts that explain why a map of several ids cannot be written.
    #[must_use]
    pub fn causes(&self) -> causes::Facts {
        let mut facts = causes::Facts::default();
        (facts.vantage.uid, facts.vantage.gid) = (self.euid, self.egid);
        facts.vantage.user.clone_from(&self.user);
        facts.distribution = self.distribution;
        (facts.users.free, facts.groups.free) = self.free;
        facts
    }

    /// Reads which capabilities the kernel knows.
    pub fn gather_known_capabilities(&mut self) {
        let last = fs::read_to_string("/proc/sys/kernel/cap_last_cap").ok();
        if let Some(last) = last.and_then(|text| text.trim_end().parse::<u32>().ok()) {
            self.known_capabilities = u64::MAX.checked_shr(63_u32.saturating_sub(last)).unwrap_or(u64::MAX);
        }
    }

    /// Reads the mounts at and below /sys too.
    pub fn gather_sysfs(&mut self) {
        self.sysfs = new_sysfs();
    }

    /// Reads the effective capabilities too.
    pub fn gather_capabilities(&mut self) {
        self.capabilities = own_status().bits("CapEff");
    }
}

/// Returns the user's account, from the name services of the machine (getpwuid(3)).
#[cfg(not(target_feature = "crt-static"))]
pub(super) fn account(uid: u32) -> Option<Account> {
    let user = nix::unistd::User::from_uid(uid.into()).ok().flatten()?;
    Some(Account { name: user.name, gid: user.gid.as_raw() })
}

/// Returns the user's account in /etc/passwd. A static program cannot load the other name services: with
/// glibc they are libraries of the machine (nsswitch.conf(5)).
#[cfg(target_feature = "crt-static")]
pub(super) fn account(uid: u32) -> Option<Account> {
    account_in_passwd(&String::from_utf8_lossy(&fs::read("/etc/passwd").ok()?), uid)
}

/// Returns the account in the first line `name:password:uid:gid:…` with this uid (passwd(5)).
#[cfg(any(test, target_feature = "crt-static"))]
fn account_in_passwd(text: &str, uid: u32) -> Option<Account> {
    let account = |line: &str| {
        let mut words = line.split(':');
        let name = words.next().filter(|name| !name.is_empty())?;
        let is_asked = words.nth(1)?.parse() == Ok(uid);
        let gid = words.next().filter(|_| is_asked)?.parse().ok()?;
        Some(Account { name: name.to_owned(), gid })
    };
    text.lines().find_map(account)
}

/// Returns the id of a user with this name, or of a group (getpwnam(3), getgrnam(3)).
#[cfg(not(target_feature = "crt-static"))]
#[must_use]
pub fn id_of_name(name: &str, group: bool) -> Option<u32> {
    match group {
        false => nix::unistd::User::from_name(name).ok().flatten().map(|user| user.uid.as_raw()),
        true => nix::unistd::Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw()),
    }
}

/// Returns the id of a user in /etc/passwd with this name, or of a group in /etc/group.
#[cfg(target_feature = "crt-static")]
#[must_use]
pub fn id_of_name(name: &str, group: bool) -> Option<u32> {
    let text = fs::read(if group { "/etc/group" } else { "/etc/passwd" }).ok()?;
    id_in_file(&String::from_utf8_lossy(&text), name)
}

/// Returns the id in the first line `name:password:id:…` with this name (passwd(5), group(5)).
#[cfg(any(test, target_feature = "crt-static"))]
fn id_in_file(text: &str, name: &str) -> Option<u32> {
    let id = |line: &str| {
        let mut words = line.split(':');
        let is_asked = words.next()? == name && !name.is_empty();
        words.nth(1).filter(|_| is_asked)?.parse().ok()
    };
    text.lines().find_map(id)
}

/// Returns the kinds in /proc/self/ns. Returns all kinds if the directory cannot be read: the kernel then
/// reports a missing kind.
#[must_use]
pub fn kinds_of_kernel() -> NsSet {
    let has = |kind: &NsKind| fs::symlink_metadata(format!("/proc/self/ns/{}", kind.proc_name())).is_ok();
    let found: NsSet = NsKind::ALL.into_iter().filter(has).collect();
    if found.is_empty() { NsSet::ALL } else { found }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nsexec::launch::find_in_path;
    use std::ffi::OsStr;
    use std::path::Path;

    #[test]
    fn user_name_is_that_of_the_first_line_with_the_uid() {
        let text = "root:x:0:0:root:/root:/bin/sh\n:x:7:7::/:\nann:x:7:7:Ann:/home/ann:/bin/sh\nbob:x:7:8::/:\nx:y\n";
        assert_eq!(account_in_passwd(text, 7), Some(Account { name: "ann".into(), gid: 7 }));
        assert_eq!(account_in_passwd(text, 0), Some(Account { name: "root".into(), gid: 0 }));
        assert_eq!(account_in_passwd(text, 8), None);
    }

    #[test]
    fn id_of_a_name_is_in_its_line() {
        let text = "root:x:0:0:root:/root:/bin/sh\nbad:x\nann:x:7:8:Ann:/home/ann:/bin/sh\n";
        assert_eq!(id_in_file(text, "ann"), Some(7));
        assert_eq!(id_in_file(text, "an"), None);
        assert_eq!(id_in_file(text, ""), None);
        assert_eq!(id_of_name("root", false), Some(0));
        assert_eq!(id_of_name("no such group", true), None);
    }

    #[test]
    fn tools_are_searched_in_absolute_folders_only() {
        let find = |path: &str, there: &str| {
            find_in_path("newuidmap", Some(OsStr::new(path)), |file| file == Path::new(there))
        };
        assert_eq!(find("/a:/b", "/b/newuidmap"), Some(PathBuf::from("/b/newuidmap")));
        assert_eq!(find(".:b:", "newuidmap"), None);
        assert_eq!(find("b", "b/newuidmap"), None);
        assert_eq!(find_in_path("newuidmap", None, |_| true), None);
    }
}
