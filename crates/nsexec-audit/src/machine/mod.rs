//! The facts of a machine, as data: [`Machine`]. A plan of a [`Command`](nsexec::launch::Command) depends on
//! them: [`PlanCommand`].
//!
//! [`Machine::here`] reads the facts of this process and its machine. A machine can also be made by hand, or
//! stored as JSON on one machine and loaded on another.
//!
//! ```
//! use nsexec::launch::Command;
//! use nsexec::namespace::NsKind;
//! use nsexec_audit::machine::{Machine, PlanCommand};
//! use nsexec_audit::plan::Verdict;
//!
//! let mut command = Command::new("true");
//! command.unshare([NsKind::User, NsKind::Net]).map_root();
//! // A machine like this one, on which no user namespace may be created.
//! let mut machine = Machine::here();
//! machine.limits.insert("user".into(), 0);
//! match command.plan(&machine)?.verdict() {
//!     Verdict::Fails(fault) => assert!(fault.to_string().contains("max_user_namespaces"), "{fault}"),
//!     other => panic!("{other}"),
//! }
//! # Ok::<(), nsexec_audit::plan::PlanError>(())
//! ```

pub mod caller;
mod command;
pub mod joins;
mod proc;
mod read;
pub mod search;

use std::collections::BTreeMap;
use std::string::{String, ToString};
use std::vec::Vec;

use nsexec::launch::causes;
use nsexec::launch::shape::Protection;
use nsexec::namespace::{NsKind, NsSet};
use nsexec::sys::types::{Errno, MountKind, SignalSet};
use serde::{Deserialize, Serialize};

use crate::plan::{Assumptions, Kernel, Refused};
use crate::sim::{ALL_CAPS, OwnUser, ProcOwner, Settings};
pub use caller::Account;
pub use command::PlanCommand;
pub use proc::ProcState;
#[doc(hidden)]
pub use proc::{covers_proc, hidepid, is_chrooted};
#[doc(hidden)]
pub use read::sub_ranges;

/// The facts of a machine, and of the process on it that launches commands.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Machine {
    /// The effective user id of the caller.
    pub uid: u32,
    /// The effective group id.
    pub gid: u32,
    /// The supplementary groups.
    pub groups: Vec<u32>,
    /// The effective capabilities, as in /proc/PID/status. `None`: unknown.
    pub capabilities: Option<u64>,
    /// The properties that decide which processes can trace the caller. Its effective capabilities count as
    /// permitted too.
    pub protection: Protection,
    /// The entry of the caller's real user id in passwd(5). The mapping tools need one.
    pub account: Option<Account>,
    /// The ranges of subordinate user ids (subuid(5)): the first id and the number of ids.
    pub subuids: Vec<(u32, u32)>,
    /// The ranges of subordinate group ids.
    pub subgids: Vec<(u32, u32)>,
    /// The caller's user namespace, unless it maps all ids to themselves.
    pub own_user: Option<OwnNamespace>,
    /// The kernel's version.
    pub kernel: Kernel,
    /// The names of the kinds of namespace that the kernel has.
    pub kinds: Vec<String>,
    /// The names of the file systems that a command can mount and that /proc/filesystems lists. The kernel
    /// may load the module of another one at the mount.
    #[serde(default = "mountable")]
    pub file_systems: Vec<String>,
    /// Whether the kernel reports the address of a thread's id (PR_GET_TID_ADDRESS(2const)).
    #[serde(default = "yes")]
    pub reports_tid_address: bool,
    /// The limits user.max_*_namespaces (namespaces(7)), by the name of the kind. A kind without an entry has
    /// an unknown limit.
    pub limits: BTreeMap<String, u64>,
    /// The sysctl kernel.unprivileged_userns_clone of Debian's kernels.
    pub unprivileged_userns_clone: Option<u64>,
    /// The sysctl kernel.apparmor_restrict_unprivileged_userns of Ubuntu's kernels.
    pub apparmor_restricts: Option<u64>,
    /// The caller's label in the security module, if that confines it (proc_pid_attr(5)).
    pub confined_as: Option<String>,
    /// Whether a seccomp filter is in force.
    pub seccomp: bool,
    /// Whether no_new_privs is set (PR_SET_NO_NEW_PRIVS(2const)).
    pub no_new_privs: bool,
    /// Whether the caller has changed its root directory.
    pub chrooted: bool,
    /// The result of an attempt to create a user namespace.
    pub user_namespaces: Permission,
    /// The state of /proc.
    pub proc: ProcState,
    /// Seconds since the boot.
    pub uptime: i64,
    /// The blocked signals of the calling thread, as a bit set.
    pub blocked: u64,
    /// The signals that the caller ignores.
    pub ignored: u64,
    /// The signals for which the caller has a handler.
    pub caught: u64,
    /// The state of files that a command needs, by their paths: programs, interpreters, working directories.
    /// A file without an entry is looked up on this machine if [`Machine::here`] made the value; otherwise
    /// its state is unknown.
    pub files: BTreeMap<String, FileState>,
    /// Whether a file without an entry is looked up on this machine.
    #[serde(skip)]
    is_here: bool,
}

/// The result of an attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Permission {
    /// It succeeded.
    Permitted,
    /// It failed with this errno.
    Refused(i32),
    /// It was not made.
    Unknown,
}

/// The state of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileState {
    /// The file can be executed, or the directory can be entered.
    Usable,
    /// The file cannot be executed, or its directory cannot be entered, for this reason.
    Refused(Refused),
    /// It exists, and whether it can be executed is unknown.
    Unknown,
}

/// The caller's own user namespace.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OwnNamespace {
    /// The lines of /proc/self/uid_map: the first id inside, the first id outside, and the number of ids.
    pub users: Vec<(u32, u32, u32)>,
    /// The lines of /proc/self/gid_map.
    pub groups: Vec<(u32, u32, u32)>,
    /// Whether groups may be changed in it (user_namespaces(7), "/proc/PID/setgroups").
    pub setgroups: bool,
    /// The names of the kinds of the caller's other namespaces that it owns.
    pub owns: Vec<String>,
}

const fn yes() -> bool {
    true
}

/// Returns the names of the file systems that a command can mount.
fn mountable() -> Vec<String> {
    MountKind::ALL.into_iter().map(|kind| kind.name().to_string_lossy().into_owned()).collect()
}

/// The limit of namespaces on a machine that is made by hand.
const USUAL_LIMIT: u64 = 63_000;

impl Machine {
    /// Returns a machine on which root has every capability, with a kernel that has every call, and without
    /// restrictions. The state of its files is unknown.
    #[must_use]
    pub fn root() -> Self {
        let names = || NsKind::ALL.into_iter().map(|kind| kind.name().to_string());
        Self {
            uid: 0,
            gid: 0,
            groups: Vec::new(),
            capabilities: Some(ALL_CAPS),
            protection: Protection::NONE,
            account: Some(Account { name: "root".into(), gid: 0 }),
            subuids: Vec::new(),
            subgids: Vec::new(),
            own_user: None,
            kernel: Kernel::CURRENT,
            kinds: names().collect(),
            file_systems: mountable(),
            reports_tid_address: true,
            limits: names().map(|name| (name, USUAL_LIMIT)).collect(),
            unprivileged_userns_clone: None,
            apparmor_restricts: None,
            confined_as: None,
            seccomp: false,
            no_new_privs: false,
            chrooted: false,
            user_namespaces: Permission::Permitted,
            proc: ProcState::default(),
            uptime: Settings::default().uptime,
            blocked: 0,
            ignored: 0,
            caught: 0,
            files: BTreeMap::new(),
            is_here: false,
        }
    }

    /// Returns the same machine for an ordinary user without capabilities and without subordinate ids. Its
    /// group has the same number.
    #[must_use]
    pub fn ordinary(uid: u32) -> Self {
        let account = Some(Account { name: std::format!("user{uid}"), gid: uid });
        Self { uid, gid: uid, groups: [uid].into(), capabilities: Some(0), account, ..Self::root() }
    }

    /// Reads the facts of this process and its machine. Creates a process, which tries to create a user
    /// namespace and ends: no file tells whether a security module or a seccomp filter permits it, or whether
    /// a root directory that is a mount point was changed. See [`Machine::read`].
    ///
    /// Facts that cannot be read, for example without a /proc, count as unknown: a plan that depends on one
    /// cannot tell whether the command runs.
    #[must_use]
    pub fn here() -> Self {
        Self { user_namespaces: read::try_user_namespace(), ..Self::read() }
    }

    /// Reads the facts of this process and its machine as [`Machine::here`]. Creates no process besides
    /// getsubids(1), which lists subordinate ids.
    #[must_use]
    pub fn read() -> Self {
        read::machine()
    }

    /// Loads a machine from its JSON.
    ///
    /// # Errors
    /// The text is not the JSON of a machine.
    pub fn from_json(text: &str) -> serde_json::Result<Self> {
        serde_json::from_str(text)
    }

    /// Returns the facts as JSON.
    ///
    /// # Errors
    /// Never in practice: each fact can be written.
    pub fn to_json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self)
    }

    /// Returns whether a file without an entry in `files` is looked up on this machine.
    const fn is_here(&self) -> bool {
        self.is_here
    }

    /// Returns the kinds whose limit is 0.
    #[must_use]
    pub fn forbidden(&self) -> NsSet {
        NsKind::ALL.into_iter().filter(|kind| self.limits.get(kind.name()) == Some(&0)).collect()
    }

    /// Returns the kinds that the kernel does not have. The set is empty if no kind is known.
    #[must_use]
    pub fn absent(&self) -> NsSet {
        let known = set_of(&self.kinds);
        NsKind::ALL.into_iter().filter(|kind| !known.is_empty() && !known.contains(*kind)).collect()
    }

    /// Returns the facts that the cause of a failure depends on.
    #[must_use]
    pub fn causes(&self) -> causes::Facts {
        let mut facts = causes::Facts::default();
        facts.userns_clone = self.unprivileged_userns_clone;
        facts.apparmor_restricts = self.apparmor_restricts;
        facts.limits = self.limits.clone();
        facts.kinds = set_of(&self.kinds);
        facts.capabilities = self.capabilities;
        facts.account = self
            .account
            .as_ref()
            .map_or(causes::Account::Missing, |account| causes::Account::Group(account.gid));
        facts.real_gid = self.gid;
        let vantage = &mut facts.vantage;
        (vantage.uid, vantage.gid) = (self.uid, self.gid);
        vantage.user = self.account.as_ref().map(|account| account.name.clone());
        vantage.profile = self.confined_as.clone();
        (vantage.seccomp, vantage.no_new_privs) = (self.seccomp, self.no_new_privs);
        vantage.chroot = self.chrooted.then_some(true);
        vantage.first_user_namespace = self.own_user.is_some().then_some(false);
        facts.proc.is_own = Some(self.proc.owner == ProcOwner::Own);
        facts.proc.read_only = self.proc.read_only;
        facts.proc.covered =
            self.proc.masked.then(|| "a directory below /proc".to_string()).into_iter().collect();
        let own = self.own_user.as_ref();
        (facts.users.own, facts.groups.own) = (self.uid, self.gid);
        facts.users.map = own.map(|own| own.users.clone());
        facts.groups.map = own.map(|own| own.groups.clone());
        facts.users.ranges = Some(self.subuids.clone());
        facts.groups.ranges = Some(self.subgids.clone());
        facts
    }

    /// Returns the assumptions of a plan that follow from the facts. Those about the command's files and
    /// about namespaces to join are the defaults.
    #[must_use]
    pub fn assumptions(&self) -> Assumptions {
        let own_user = self.own_user.as_ref().map(|own| OwnUser {
            users: own.users.clone(),
            groups: own.groups.clone(),
            setgroups: own.setgroups,
            owns: set_of(&own.owns),
        });
        let has_tools_account = self.account.as_ref().is_some_and(|account| account.gid == self.gid);
        Assumptions {
            uid: self.uid,
            gid: self.gid,
            capabilities: self.capabilities.unwrap_or(if self.uid == 0 { ALL_CAPS } else { 0 }),
            protection: self.protection,
            kernel: self.kernel,
            subuid: first_range(&self.subuids),
            subgid: first_range(&self.subgids),
            proc_masked: self.proc.masked,
            hidepid: self.proc.hidepid,
            no_new_privs: self.no_new_privs,
            uptime: self.uptime,
            blocked: SignalSet(self.blocked),
            proc_owner: self.proc.owner,
            proc_read_only: self.proc.owner != ProcOwner::Missing && self.proc.read_only,
            own_user,
            chrooted: self.chrooted,
            user_refused: self.user_refused(),
            forbidden: self.forbidden(),
            tools_refuse: self.uid != 0 && !has_tools_account,
            reports_tid_address: self.reports_tid_address,
            absent: self.absent(),
            ..Assumptions::root()
        }
    }

    /// Returns the error of an attempt to create a user namespace that no other fact explains.
    fn user_refused(&self) -> Option<Errno> {
        match self.user_namespaces {
            Permission::Refused(errno) => Some(Errno(errno)),
            _ if self.unprivileged_userns_clone == Some(0) && self.uid != 0 => Some(Errno::EPERM),
            _ => None,
        }
    }
}

/// Returns the first range: a plan has only one, though the mapping tools use all ranges. Most users have
/// one.
fn first_range(ranges: &[(u32, u32)]) -> Option<(u32, u32)> {
    ranges.first().copied()
}

/// Returns the kinds with these names.
fn set_of(names: &[String]) -> NsSet {
    names.iter().filter_map(|name| NsKind::from_name(name.as_bytes())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use nsexec::launch::shape::{Guard, Yama};

    #[test]
    fn machine_is_stored_and_loaded() {
        let mut machine = Machine::here();
        machine.files.insert("/bin/x".into(), FileState::Refused(Refused::NoInterpreter));
        machine.user_namespaces = Permission::Refused(1);
        let loaded = Machine::from_json(&machine.to_json().unwrap()).unwrap();
        assert!(machine.is_here() && !loaded.is_here());
        assert_eq!(Machine { is_here: true, ..loaded }, machine);
    }

    #[test]
    fn capabilities_and_yama_guard_the_memory_of_a_launcher() {
        let guard = |machine: Machine| machine.assumptions().guard();
        assert_eq!(guard(Machine::ordinary(1000)), None);
        assert_eq!(guard(Machine::root()), Some(Guard::Capabilities));
        let protection = Protection { yama: Yama::On, ..Protection::NONE };
        let guarded = Machine { protection, ..Machine::ordinary(1000) };
        assert_eq!(guard(guarded), Some(Guard::Yama(Yama::On)));
        // Permitted, but not effective.
        let protection = Protection { permitted: Some(1), ..Protection::NONE };
        assert_eq!(guard(Machine { protection, ..Machine::ordinary(1000) }), Some(Guard::Capabilities));
    }

    #[test]
    fn a_group_that_is_not_the_accounts_makes_the_tools_refuse() {
        let refuse = |gid| Machine { gid, ..Machine::ordinary(1000) }.assumptions().tools_refuse;
        assert!(!refuse(1000) && refuse(100));
        assert!(Machine { account: None, ..Machine::ordinary(1000) }.assumptions().tools_refuse);
        assert!(!Machine { gid: 7, ..Machine::root() }.assumptions().tools_refuse, "root needs no tools");
    }
}
