//! Decides what the flags and facts ask for: a [`Request`], or an error. Adds what flags imply, and refuses
//! contradictions.
//!
//! A pure function: it finds every error in the flags before anything starts.

mod around;
mod ids;

use std::ffi::{CString, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nsexec::bootstrap::{Bootstrap, Dialect, OomScoreAdj};
use nsexec::idmap::IdMap;
use nsexec::launch::Surroundings;
use nsexec::namespace::paths::NsPaths;
use nsexec::namespace::{NsKind, NsSet};
use nsexec::policy::{Credentials, LogForm, Policy, Session};
use nsexec::sys::types::{Propagation, Signal};
use nsexec::timens::TimeOffsets;

use super::args::{BeforeStartFlags, NamespaceFlags};
use super::failure::Failure;
use super::hand_over::HandOver;
use super::maps::Map;
use super::values::flag_of;
use nsexec_audit::machine::caller::Facts;

/// Wrong usage: exit status 2. The text names the flag, what is wrong, and what to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct UsageError(pub(crate) String);

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<UsageError> for Failure {
    fn from(error: UsageError) -> Self {
        Self::Usage(error.0)
    }
}

/// A request without contradictions: the values of the message, and the policy.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// The name of the program in messages.
    pub(crate) program: &'static str,
    /// The kinds to create.
    pub(crate) created: NsSet,
    /// The kinds to join.
    pub(crate) joined: NsSet,
    /// `NS_PATHS`: `type:path,…`.
    pub(crate) paths: Option<CString>,
    /// The user ids.
    pub(crate) users: Option<Map>,
    /// The group ids.
    pub(crate) groups: Option<Map>,
    /// `SETGROUP`.
    pub(crate) setgroup: bool,
    /// `OOM_SCORE_ADJ`.
    pub(crate) oom_score_adj: Option<CString>,
    /// `ROOTLESS_EUID`: the caller's effective user id is not 0.
    pub(crate) rootless: bool,
    /// `UIDMAPPATH`.
    pub(crate) newuidmap: Option<CString>,
    /// `GIDMAPPATH`.
    pub(crate) newgidmap: Option<CString>,
    /// `TIMENSOFFSET`.
    pub(crate) time_offsets: Option<CString>,
    /// The settings that the message has no attribute for.
    pub(crate) policy: Policy,
    /// The command's surroundings.
    pub(crate) around: Surroundings,
    /// `--mount-proc` was given; the cause of a refused mount depends on it.
    pub(crate) mount_proc_flag: bool,
    /// The command enters a process, and is searched in the caller's PATH; the cause of a command that is not
    /// found depends on it.
    pub(crate) path_of_caller: bool,
    /// The signal that the command gets when nsexec ends before it.
    pub(crate) signal_at_end: Option<Signal>,
    /// Paths in the message that mean nothing to people, each with the name to print instead.
    pub(crate) display_paths: Vec<(String, String)>,
    /// The settings for the command's descriptors and environment that are not in the policy.
    pub(crate) hand_over: HandOver,
    /// The steps of nsexec before the command starts.
    pub(crate) before_start: BeforeStartFlags,
}

impl Request {
    /// Replaces paths in a text about the launch by the names that people know.
    pub(crate) fn with_display_paths(&self, text: &str) -> String {
        self.display_paths.iter().fold(text.to_owned(), |text, (path, name)| {
            let mut pieces = text.split(path.as_str());
            let mut out = pieces.next().unwrap_or_default().to_owned();
            for piece in pieces {
                // If a digit follows, this is a part of a longer descriptor number.
                let whole = !piece.starts_with(|c: char| c.is_ascii_digit());
                out.push_str(if whole { name } else { path });
                out.push_str(piece);
            }
            out
        })
    }

    /// Returns the message. All values were checked before, so an error here is a bug in [`decide`].
    ///
    /// # Errors
    /// A value that the message's own types refuse, with the flag that it came from.
    pub(crate) fn bootstrap(&self) -> Result<Bootstrap<'_>, UsageError> {
        let mut message = Bootstrap::new(self.created.flags()).with_rootless_euid(self.rootless);
        if let Some(paths) = &self.paths {
            let paths = NsPaths::parse(paths.to_bytes(), self.policy.dialect.namespaces);
            message = message.with_namespaces(paths.map_err(|error| refused("--join", error))?);
        }
        if let Some(map) = &self.users {
            let map = IdMap::parse(map.text()).map_err(|error| refused("--map-users", error))?;
            message = message.with_uid_map(map);
        }
        if let Some(map) = &self.groups {
            let map = IdMap::parse(map.text()).map_err(|error| refused("--map-groups", error))?;
            message = message.with_gid_map(map);
        }
        if self.setgroup {
            message = message.with_setgroup(true);
        }
        if let Some(score) = &self.oom_score_adj {
            let score = OomScoreAdj::parse(score).map_err(|error| refused("--oom-score-adj", error))?;
            message = message.with_oom_score_adj(score);
        }
        if let Some(path) = &self.newuidmap {
            message = message.with_uidmap_path(path);
        }
        if let Some(path) = &self.newgidmap {
            message = message.with_gidmap_path(path);
        }
        if let Some(offsets) = &self.time_offsets {
            let offsets =
                TimeOffsets::parse(offsets).map_err(|error| refused("--monotonic, --boottime", error))?;
            message = message.with_timens_offsets(offsets);
        }
        Ok(message)
    }
}

impl Request {
    /// Returns whether an unprivileged caller with these ids needs a mapping tool: for a map with several
    /// ids, or with another id than its own.
    pub(crate) fn needs_tools(&self, (uid, gid): (u32, u32)) -> bool {
        let single = |map: &Option<Map>, own| map.as_ref().is_none_or(|map| map.is_single(own));
        self.rootless && !(single(&self.users, uid) && single(&self.groups, gid))
    }
}

fn refused(flag: &str, error: impl fmt::Display) -> UsageError {
    UsageError(format!("{flag}: {error}"))
}

/// Decides what `flags` ask for.
///
/// # Errors
/// The first problem: [`Failure::Usage`] if the flags are wrong, [`Failure::Other`] if this machine lacks
/// something.
pub(crate) fn decide(
    flags: &NamespaceFlags,
    facts: &Facts,
    dialect: &'static Dialect,
) -> Result<Request, Failure> {
    refuse_unsupported_kinds(flags, dialect)?;
    let kinds = Kinds::of(flags, facts.kinds.intersection(dialect.namespaces))?;
    let user = kinds.created.contains(NsKind::User);
    if flags.setgroups.is_some() && !user {
        return Err(Failure::Usage(
            "--setgroups needs a new user namespace: add -U and a map, or -r".to_owned(),
        ));
    }
    let rootless = facts.euid != 0;
    let maps = ids::maps_of(flags, facts, &kinds)?;
    let command = ids::ids_of_command(flags, facts, &kinds, &maps)?;
    // As in runc's Go code: an unprivileged process may write this map itself, the own group in one line, but
    // only after it has denied setgroups (docs/protocol.md#id-maps).
    let setgroup = maps.groups.as_ref().is_some_and(|map| !map.is_single(facts.egid));
    let setgroups = ids::setgroups_of(flags, facts, &kinds, &maps, setgroup)?;
    let tool = |found: &Option<std::path::PathBuf>, map: &Option<Map>| {
        found.as_deref().filter(|_| rootless && map.is_some()).map(c_path).transpose()
    };
    let mut around = around::of(flags, facts, &kinds)?;
    // As for unshare(1): `-S` alone keeps the groups.
    let sets_ids = flags.setuid.is_some() && !flags.defaults.are_util_linux() || flags.setgid.is_some();
    if sets_ids && ids::may_drop_groups(facts, &kinds, &maps, setgroups, setgroup) {
        around.groups = Some(Vec::new());
    }
    let (newuidmap, newgidmap) =
        (tool(&facts.newuidmap, &maps.users)?, tool(&facts.newgidmap, &maps.groups)?);
    let mut policy = Policy::runc(dialect)
        .with_session(Session::Keep)
        .with_credentials(command.credentials)
        .with_setgroups(setgroups)
        .with_log_form(LogForm::Detailed)
        .with_propagation(propagation(flags, &kinds))
        .with_mount_proc(around::mounts_proc_itself(flags, &kinds))
        .with_kill_child(flags.signal_at_end() == Some(Signal::KILL))
        // A process of the same user with fewer capabilities may trace it, and so reach shared memory.
        .with_copied_memory(flags.copy_memory || around.capabilities.is_some())
        // In a direct start most namespaces are created after the go byte, too late to be mounted.
        .with_stages(!around.persistent.is_empty())
        .with_ends_with_launcher(true);
    policy.launch.init = flags.init;
    policy.launch.uid = command.uid;
    policy.launch.gid = command.gid;
    policy.launch.groups = around.groups.is_some();
    Ok(Request {
        program: "nsexec",
        created: kinds.created,
        joined: kinds.joined,
        paths: paths(flags)?,
        users: maps.users,
        groups: maps.groups,
        setgroup,
        oom_score_adj: flags.oom_score_adj.map(|score| c_text(score.to_string())).transpose()?,
        rootless,
        newuidmap,
        newgidmap,
        time_offsets: time_offsets(flags)?,
        policy,
        around,
        mount_proc_flag: flags.mount_proc.is_some(),
        path_of_caller: false,
        signal_at_end: flags.signal_at_end(),
        display_paths: Vec::new(),
        hand_over: HandOver::default(),
        before_start: BeforeStartFlags::default(),
    })
}

/// Returns the propagation of mounts to set in a new mount namespace. By default that of unshare(1); without
/// flags for kinds, the command sees mounts that the caller makes later.
fn propagation(flags: &NamespaceFlags, kinds: &Kinds) -> Option<Propagation> {
    if !kinds.created.contains(NsKind::Mnt) {
        return None;
    }
    match flags.propagation {
        Some(given) => given.propagation(),
        None if kinds.root_by_default => Some(Propagation::Slave),
        None => Some(Propagation::Private),
    }
}

/// Refuses a flag that names a kind which the dialect does not support.
fn refuse_unsupported_kinds(flags: &NamespaceFlags, dialect: &Dialect) -> Result<(), UsageError> {
    let joined = flags.join.iter().map(|join| (join.kind, format!("--join {}=…", flag_of(join.kind))));
    let mut named = reasons(flags).into_iter().chain(joined);
    match named.find(|(kind, _)| !dialect.namespaces.contains(*kind)) {
        None => Ok(()),
        Some((kind, flag)) => {
            let newest = Dialect::V1_2.name();
            Err(UsageError(format!(
                "{flag}: dialect {dialect} does not support {} namespaces; {newest} does",
                flag_of(kind)
            )))
        }
    }
}

/// Reads the facts that these flags depend on. `plans`: a plan decides by the subordinate ids whether a
/// mapping tool accepts the given lines.
pub(crate) fn facts_of(flags: &NamespaceFlags, plans: bool) -> Facts {
    let kinds = Kinds::of(flags, NsSet::ALL);
    let (created, by_default) =
        kinds.map_or((NsSet::EMPTY, false), |kinds| (kinds.created, kinds.root_by_default));
    let lines = !flags.map_users.is_empty() || !flags.map_groups.is_empty();
    let mut facts = Facts::gather(flags.needs_ids_of_caller() || plans && lines, by_default);
    let user = created.contains(NsKind::User);
    if user && facts.euid == 0 || !user && (created.contains(NsKind::Net) || flags.setgid.is_some()) {
        facts.gather_capabilities();
    }
    if flags.keep_caps {
        facts.gather_known_capabilities();
    }
    if created.contains(NsKind::Net) && created.contains(NsKind::Mnt) && !flags.no_mount_sys {
        facts.gather_sysfs();
    }
    facts
}

/// Returns how the command gets its user and group ids. In a user namespace that it enters it becomes root;
/// otherwise it keeps its ids.
///
/// It becomes root as late as possible. If a namespace is created too, the core treats this as
/// [`Credentials::Root`].
pub(crate) const fn credentials(new_user_namespace: bool) -> Credentials {
    if new_user_namespace { Credentials::RootLast } else { Credentials::Keep }
}

/// Refuses flags that have no equivalent in a message, and a command. A setting that is only implied is left
/// out silently: the fresh /proc of `run` without flags.
///
/// # Errors
/// The first such flag, or the command.
pub(crate) fn refuse_flags_without_attribute(
    flags: &NamespaceFlags,
    command: &[OsString],
) -> Result<(), UsageError> {
    let unsayable = [
        (flags.mount_proc.is_some(), "--mount-proc"),
        (flags.kill_child.is_some(), "--kill-child"),
        (flags.copy_memory, "--copy-memory"),
        (flags.setgroups.is_some(), "--setgroups"),
        (flags.setuid.is_some(), "--setuid"),
        (flags.setgid.is_some(), "--setgid"),
        (flags.keep_caps, "--keep-caps"),
        (flags.propagation.is_some(), "--propagation"),
        (flags.no_loopback, "--no-loopback"),
        (flags.no_mount_sys, "--no-mount-sys"),
        (flags.init, "--init"),
        (flags.root.is_some(), "--root"),
        (flags.directory.is_some(), "--wd"),
        (flags.kinds.files().next().is_some(), "a file of a persistent namespace"),
    ];
    if let Some((_, name)) = unsayable.into_iter().find(|(given, _)| *given) {
        return Err(UsageError(format!("a bootstrap message has no attribute for {name}: leave it out")));
    }
    match command.first() {
        None => Ok(()),
        Some(command) => Err(UsageError(format!(
            "a bootstrap message contains no command: leave out '{}'",
            command.to_string_lossy()
        ))),
    }
}

/// Refuses a request whose command does not start as root of a new user namespace. With a message it does, as
/// with runc.
///
/// # Errors
/// The command would keep its ids.
pub(crate) fn refuse_other_ids_than_root(request: &Request) -> Result<(), UsageError> {
    let user = request.created.contains(NsKind::User);
    match user && request.policy.credentials == Credentials::Keep {
        true => Err(UsageError(
            "a bootstrap message starts its command as id 0 of the new user namespace, which is not mapped: add -r, \
             or lines that contain 0"
                .to_owned(),
        )),
        false => Ok(()),
    }
}

/// The kinds to create and to join, and the settings that follow from them.
struct Kinds {
    created: NsSet,
    joined: NsSet,
    /// A fresh /proc is mounted.
    mount_proc: bool,
    /// The caller becomes root although `-r` was not given.
    root_by_default: bool,
}

impl Kinds {
    /// Decides on the kinds. `known` is the set that both the kernel and the dialect support.
    fn of(flags: &NamespaceFlags, known: NsSet) -> Result<Self, UsageError> {
        let mut joined = NsSet::EMPTY;
        for join in &flags.join {
            if !joined.insert(join.kind) {
                return Err(UsageError(format!(
                    "--join: two namespaces of kind {} to join",
                    flag_of(join.kind)
                )));
            }
        }
        let reasons = reasons(flags);
        if let Some((kind, flag)) = reasons.iter().find(|(kind, _)| joined.contains(*kind)) {
            let kind = flag_of(*kind);
            return Err(UsageError(format!(
                "{flag} creates a {kind} namespace and --join {kind}=… joins one: a process has one of each kind"
            )));
        }
        // No flag names a namespace, so every kind is created.
        let own = !flags.defaults.are_util_linux();
        let bare = own && reasons.is_empty() && flags.join.is_empty() && !flags.all;
        let mut created: NsSet = reasons.into_iter().map(|(kind, _)| kind).collect();
        if bare || flags.all {
            // `--all` skips a kind that is not known.
            created = known.iter().filter(|kind| !joined.contains(*kind)).chain(created.iter()).collect();
        }
        if flags.init {
            if joined.contains(NsKind::Pid) {
                return Err(UsageError(
                    "--init: its process is process 1 of a new pid namespace, and --join pid=… joins one: leave one out"
                        .to_owned(),
                ));
            }
            created.insert(NsKind::Pid);
        }
        Ok(Self {
            created,
            joined,
            mount_proc: flags.mount_proc.is_some()
                || (bare && created.contains(NsKind::Mnt) && created.contains(NsKind::Pid)),
            root_by_default: bare || flags.all,
        })
    }
}

/// Returns the kinds that flags name or imply, each with its flag.
fn reasons(flags: &NamespaceFlags) -> Vec<(NsKind, String)> {
    let named = flags.kinds.set().iter().map(|kind| (kind, format!("--{}", flag_of(kind))));
    let implied = [
        (flags.map_root_user, NsKind::User, "--map-root-user"),
        (flags.map_current_user, NsKind::User, "--map-current-user"),
        (flags.map_user.is_some(), NsKind::User, "--map-user"),
        (flags.map_group.is_some(), NsKind::User, "--map-group"),
        (!flags.map_users.is_empty(), NsKind::User, "--map-users"),
        (!flags.map_groups.is_empty(), NsKind::User, "--map-groups"),
        (flags.map_auto, NsKind::User, "--map-auto"),
        (flags.map_subids, NsKind::User, "--map-subids"),
        (flags.mount_proc.is_some(), NsKind::Mnt, "--mount-proc"),
        (flags.monotonic.is_some(), NsKind::Time, "--monotonic"),
        (flags.boottime.is_some(), NsKind::Time, "--boottime"),
    ];
    let implied = implied.into_iter().filter(|(given, ..)| *given);
    named.chain(implied.map(|(_, kind, flag)| (kind, flag.to_owned()))).collect()
}

fn paths(flags: &NamespaceFlags) -> Result<Option<CString>, UsageError> {
    let entries: Vec<Vec<u8>> =
        flags.join.iter().map(|join| [join.kind.name().as_bytes(), b":", &join.path].concat()).collect();
    (!entries.is_empty()).then(|| c_text(entries.join(&b','))).transpose()
}

fn time_offsets(flags: &NamespaceFlags) -> Result<Option<CString>, UsageError> {
    let clocks = [("monotonic", flags.monotonic), ("boottime", flags.boottime)];
    let lines: String = clocks
        .into_iter()
        .filter_map(|(clock, seconds)| seconds.map(|seconds| format!("{clock} {seconds} 0\n")))
        .collect();
    (!lines.is_empty()).then(|| c_text(lines)).transpose()
}

fn c_path(path: &Path) -> Result<CString, UsageError> {
    c_text(path.as_os_str().as_bytes())
}

/// Converts to a C string. Arguments and paths never contain a NUL, so this does not fail in practice.
fn c_text(text: impl Into<Vec<u8>>) -> Result<CString, UsageError> {
    CString::new(text).map_err(|error| UsageError(error.to_string()))
}

#[cfg(test)]
mod tests;
