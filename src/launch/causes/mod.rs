//! The causes of a failed step, as data: the facts of the machine ([`Facts`]), and one table from the failed
//! step and these facts to a cause with its evidence and its remedy ([`likely`]).
//!
//! [`LaunchError::explain`](super::LaunchError::explain), [`probe()`](super::probe()), the verdict of a plan
//! and the program use the same table.

mod cause;
mod facts;
mod fill;
mod ids;
mod read;
mod rows;
#[cfg(test)]
mod tests;
mod texts;
mod vantage;

use core::fmt;

use std::vec::Vec;

pub use cause::{Cause, Explanation};
#[doc(hidden)]
pub use facts::free_range;
pub use facts::{Account, Distribution, Facts, IdFacts, ProcFacts, Tool};
pub(super) use read::mount_point;
pub use vantage::Vantage;

use crate::deciders::namespace::{NsKind, NsSet};
use crate::launch::ranges::Side;
use crate::sys::types::{Capability, Errno};
use crate::words::error::Code;
use fill::Filling;

/// The parts of the request that distinguish causes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
#[non_exhaustive]
pub struct Asked {
    /// The kinds to create.
    #[cfg_attr(feature = "serde", serde(with = "kinds"))]
    pub created: NsSet,
    /// The kinds to join.
    #[cfg_attr(feature = "serde", serde(with = "kinds"))]
    pub joined: NsSet,
    /// The caller's effective user id is not 0.
    pub rootless: bool,
    /// The caller asked for a new /proc itself. If not, /proc is mounted because the program does so by
    /// default.
    pub mount_proc_flag: bool,
    /// A mount among those of the root directory is a new /proc.
    pub mounts_proc: bool,
    /// The command contains a slash, so it was not searched in PATH.
    pub command_path: bool,
    /// The command enters the place of another process, and is searched in the caller's PATH.
    pub path_of_caller: bool,
    /// The first line of the maps that the caller's subordinate ids do not cover.
    pub uncovered: Option<Uncovered>,
}

/// A line of a map of ids that the caller's subordinate ids do not cover. `Display` writes a sentence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Uncovered {
    /// Whether it maps group ids.
    pub groups: bool,
    /// The first id outside.
    pub first: u32,
    /// The last id outside.
    pub last: u32,
}

impl fmt::Display for Uncovered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = Side::of(self.groups);
        let ((file, ..), noun) = (side.names(), side.noun());
        match self.last == self.first {
            true => write!(f, "{file} does not give you the {noun} id {}", self.first),
            false => {
                write!(f, "{file} does not give you all of the {noun} ids {} to {}", self.first, self.last)
            }
        }
    }
}

/// Serialises a set of kinds as a list of names.
#[cfg(feature = "serde")]
mod kinds {
    use std::string::String;
    use std::vec::Vec;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::deciders::namespace::{NsKind, NsSet};

    pub(super) fn serialize<S: Serializer>(kinds: &NsSet, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(kinds.iter().map(NsKind::name))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<NsSet, D::Error> {
        let names = Vec::<String>::deserialize(deserializer)?;
        let kind = |name: &String| NsKind::from_name(name.as_bytes());
        names.iter().map(kind).collect::<Option<NsSet>>().ok_or_else(|| D::Error::custom("no such kind"))
    }
}

/// The facts that a cause depends on, besides the step and its errno.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Circumstances {
    /// The request.
    pub asked: Asked,
    /// The process and its machine.
    pub facts: Facts,
}

impl Circumstances {
    /// Returns the circumstances of a request of a process.
    #[must_use]
    pub const fn new(asked: Asked, facts: Facts) -> Self {
        Self { asked, facts }
    }

    /// Returns whether the caller has the capability. If the capabilities are unknown, root has all of them.
    fn has(&self, capability: Capability) -> bool {
        match self.facts.capabilities {
            Some(set) => set >> capability.0 & 1 != 0,
            None => !self.asked.rootless,
        }
    }

    fn lacks_admin(&self) -> bool {
        !self.has(Capability::SYS_ADMIN)
    }

    /// Returns whether the caller is unprivileged and neither creates nor joins a user namespace.
    fn is_unprivileged(&self) -> bool {
        self.asked.rootless && self.lacks_admin() && !self.in_new_user()
    }

    fn enters(&self, kind: NsKind) -> bool {
        self.asked.created.contains(kind) || self.asked.joined.contains(kind)
    }

    fn in_new_user(&self) -> bool {
        self.enters(NsKind::User)
    }

    /// Returns whether the request is one that AppArmor restricts: that of a caller without CAP_SYS_ADMIN in
    /// the first user namespace.
    fn apparmor(&self) -> bool {
        let privileged = !self.lacks_admin() && self.facts.vantage.first_user_namespace == Some(true);
        self.in_new_user() && self.facts.apparmor_restricts.is_some_and(|value| value != 0) && !privileged
    }

    /// Returns the kinds to create that the kernel does not have.
    fn missing(&self) -> NsSet {
        match self.facts.kinds.is_empty() {
            true => NsSet::EMPTY,
            false => self.asked.created.iter().filter(|kind| !self.facts.kinds.contains(*kind)).collect(),
        }
    }

    /// Returns the names of the capabilities of [`MAPPING_CAPS`] that the caller lacks.
    fn lacking(&self) -> Vec<&'static str> {
        let has = |bit: u32| self.facts.capabilities.is_none_or(|set| set & 1 << bit != 0);
        MAPPING_CAPS.into_iter().filter(|(bit, _)| !has(*bit)).map(|(_, name)| name).collect()
    }

    /// Returns whether the caller is root without CAP_SYS_ADMIN, and cannot get it in a user namespace of its
    /// own: without CAP_SETFCAP it may not map its user id 0 (`verify_root_map` in the kernel's
    /// kernel/user_namespace.c).
    fn cannot_map_itself(&self) -> bool {
        let knows = self.facts.capabilities.is_some() && !self.asked.rootless && !self.in_new_user();
        knows && self.lacks_admin() && self.lacking().contains(&"CAP_SETFCAP")
    }

    /// Returns the kinds that a step creates: the user namespace, or the others.
    fn created_by(&self, creates_user: bool) -> NsSet {
        match creates_user {
            true => NsSet::EMPTY.with(NsKind::User),
            false => self.asked.created.without(NsKind::User),
        }
    }

    /// Returns the kinds whose limit is 0.
    fn zero_limits(&self) -> NsSet {
        NsKind::ALL.into_iter().filter(|kind| self.facts.limit(*kind) == Some(0)).collect()
    }

    /// Returns whether a limit of the others than the user namespace is 0.
    fn other_limit_is_zero(&self) -> bool {
        !self.created_by(false).intersection(self.zero_limits()).is_empty()
    }

    fn other_limits_are_known(&self) -> bool {
        let created = self.created_by(false);
        !created.is_empty() && created.iter().all(|kind| self.facts.limit(kind).is_some())
    }

    /// Returns whether a limit of the kinds that a step creates is below the highest value. A new user
    /// namespace has the highest value for each kind, and the kernel counts in the outer ones as well
    /// (`inc_ucount` in the kernel's kernel/ucount.c).
    fn has_reachable_limit(&self, creates_user: bool) -> bool {
        let below = |kind: NsKind| self.facts.limit(kind).is_some_and(|value| value < HIGHEST_LIMIT);
        self.created_by(creates_user).iter().any(below)
    }

    /// Returns whether the kernel compares a new /proc with those that the caller sees: for every mount by a
    /// user namespace other than the first (`mount_too_revealing` in the kernel's fs/namespace.c).
    fn compares_proc(&self) -> bool {
        self.in_new_user() || self.facts.vantage.first_user_namespace == Some(false)
    }

    fn proc_is_masked(&self) -> bool {
        self.compares_proc() && !self.facts.proc.covered.is_empty()
    }

    fn proc_is_foreign(&self) -> bool {
        self.facts.proc.is_own == Some(false)
    }

    fn selinux(&self) -> bool {
        self.facts.selinux_enforcing == Some(true)
    }

    /// Returns whether an AppArmor profile is in force for this process.
    fn has_apparmor_profile(&self) -> bool {
        self.facts.vantage.apparmor_profile().is_some()
    }

    fn is_labelled(&self) -> bool {
        self.facts.vantage.profile.is_some()
    }

    fn seccomp(&self) -> bool {
        self.facts.vantage.seccomp
    }
}

/// The highest value of a limit `user.max_*_namespaces`.
const HIGHEST_LIMIT: u64 = 0x7FFF_FFFF;

/// The capabilities that the kernel requires of a process that maps ids (user_namespaces(7)), with their
/// bits.
const MAPPING_CAPS: [(u32, &str); 3] = [(CAP_SETGID, "CAP_SETGID"), (7, "CAP_SETUID"), (31, "CAP_SETFCAP")];

/// The bit of CAP_SETGID in a set of capabilities (capabilities(7)).
pub const CAP_SETGID: u32 = 6;

/// The remedies whose name depends on the caller's interface. A program that uses this library puts its own
/// flags here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Remedies {
    /// The setting that adds a user namespace with the caller as root, after "add".
    pub user_namespace: &'static str,
    /// The setting that adds a pid namespace, after "add".
    pub pid_namespace: &'static str,
    /// The setting that leaves the user and group ids unchanged.
    pub keep_ids: &'static str,
    /// Leaving out a new /proc that was asked for: see [`Asked::mount_proc_flag`].
    pub without_proc: &'static str,
    /// Leaving out a new /proc that the program mounts by default.
    pub without_default_proc: &'static str,
    /// How the command gets the PATH of the process that it enters, after "and": see
    /// [`Asked::path_of_caller`].
    pub path_of_process: &'static str,
}

impl Remedies {
    /// The names of this library's items.
    pub const LIBRARY: Self = Self {
        user_namespace: "CLONE_NEWUSER",
        pid_namespace: "CLONE_NEWPID",
        keep_ids: "keep the caller's ids (Credentials::Keep)",
        without_proc: "do without a new /proc",
        without_default_proc: "do without a new /proc",
        path_of_process: "Command::env sets another one",
    };
}

/// Returns the limit that an open(2) has reached; `None` for any other error.
#[must_use]
pub const fn open_files_limit(errno: Errno) -> Option<&'static str> {
    match errno {
        Errno::EMFILE => Some(PROCESS_FILES),
        Errno::ENFILE => Some(MACHINE_FILES),
        _ => None,
    }
}

/// The texts of [`open_files_limit`], each with its remedy.
const PROCESS_FILES: &str = "the limit on open files is reached: raise ulimit -n";
const MACHINE_FILES: &str = "the machine's limit on open files is reached: sysctl fs.file-max";

/// Returns the likely cause of a failure in step `code` with this errno; `None` if the table has no row for
/// it. `known` is `None` if nothing is known about the request and the machine.
#[must_use]
pub fn likely(
    code: Code,
    errno: Option<Errno>,
    known: Option<&Circumstances>,
    remedies: &Remedies,
) -> Option<Explanation> {
    let unknown = Circumstances::default();
    let text = &rows::all().find(|row| row.fits(code, errno, known))?.text;
    let known = known.unwrap_or(&unknown);
    let creates_user = code == Code::UnshareUser;
    Some(Filling { known, remedies, errno, creates_user, side: None }.explain(text))
}

/// Returns the cause of a process that a seccomp filter has ended.
pub(super) fn killed_by_filter(known: &Circumstances) -> Explanation {
    let remedies = &Remedies::LIBRARY;
    Filling { known, remedies, errno: None, creates_user: false, side: None }.explain(&texts::SECCOMP_KILLED)
}
