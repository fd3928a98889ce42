//! Builds the launch of a [`Command`]: checks all settings together, before any process is created.

use std::ffi::CString;
use std::format;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::vec::Vec;

use super::Launcher;
use super::command::{BeforeStart, Command, Starting};
use super::error::LaunchError;
use super::handle::Child;
use super::join::Join;
use super::policy::Descriptors;
use super::prepared::Prepared;
use super::script::Step;
use super::setting::SettingError;
use super::spawn::{is_nested, on_lasting_thread};
use super::stdio::{Kind, Stdio, descriptor_limit, duplicate_above, open};
use super::subordinate::{Caller, Map, Mapping, Side, map};
use super::surroundings::{CgroupFile, Move};
use super::sys_mounts::new_sysfs;
use crate::deciders::bootstrap::{Bootstrap, Dialect, OomScoreAdj};
use crate::deciders::idmap::IdMap;
use crate::deciders::namespace::paths::NsPaths;
use crate::deciders::namespace::{NsKind, NsSet};
use crate::deciders::policy::{Credentials, Policy, Session, Setgroups};
use crate::sys::Sys;
use crate::sys::linux::LinuxSys;
use crate::sys::types::{Errno, Fd, Pid};

/// A launch whose settings are checked and whose standard streams are open.
struct Ready {
    launcher: Launcher,
    prepared: Prepared,
    /// The caller's ends of the pipes: standard input, output and error.
    ours: [Option<OwnedFd>; 3],
}

/// Descriptors, with the numbers under which the command gets them.
type Moves = Vec<(Fd, Arc<OwnedFd>)>;

/// The parts of the bootstrap message, and the policy.
struct Parts<'a> {
    joins: Vec<&'a Join>,
    paths: Vec<u8>,
    users: Option<Map>,
    groups: Option<Map>,
    rootless: bool,
    policy: Policy,
    oom_score_adj: Option<CString>,
}

impl Command {
    /// Checks the settings, and returns the [`Launcher`] with the same settings. It does not have the
    /// standard streams, the descriptors of [`fd`](Self::fd), the function of
    /// [`before_start`](Self::before_start) and [`kill_on_drop`](Self::kill_on_drop); with
    /// [`kill_with_parent`](Self::kill_with_parent) the command ends with the thread that launches.
    ///
    /// # Errors
    /// [`LaunchError::Setting`].
    pub fn launcher(&self) -> Result<Launcher, LaunchError> {
        self.launcher_of(&Caller::here())
    }

    /// As [`launcher`](Self::launcher), for another caller than this process.
    fn launcher_of(&self, caller: &Caller) -> Result<Launcher, LaunchError> {
        let parts = self.parts(caller)?;
        let mut launcher =
            Launcher::new(&self.message(&parts)?, parts.policy).map_err(SettingError::Message)?;
        launcher.command = self.line.clone();
        launcher.level = self.level;
        launcher.timeout = self.timeout;
        launcher.on_record = self.on_record.clone();
        launcher.owned = parts.joins.iter().filter_map(|join| join.owned()).collect();
        launcher.around = self.around.clone();
        launcher.around.landlock = self.landlock.as_ref().map(|ruleset| Fd(ruleset.as_raw_fd()));
        launcher.owned.extend(self.landlock.clone());
        for (path, fd) in self.open_cgroups()? {
            launcher.around.cgroups.push(CgroupFile { path, fd: Fd(fd.as_raw_fd()) });
            launcher.owned.push(Arc::new(fd));
        }
        // Another machine has other mounts. A plan for it reports that they are unknown.
        if launcher.around.sysfs.is_some() && caller.stated.is_none() {
            launcher.around.sysfs = new_sysfs();
        }
        if let Some(directory) = &mut launcher.around.directory {
            directory.confined = self.is_confined();
        }
        if parts.policy.launch.groups {
            launcher.around.groups.get_or_insert_default();
        }
        Ok(launcher)
    }

    /// Prepares a launch: checks the settings, and opens the standard streams. A plan runs the result on a
    /// simulated kernel.
    ///
    /// # Errors
    /// Those of [`spawn`](Self::spawn) that are found before a process is created.
    pub fn prepare(&self) -> Result<Prepared, LaunchError> {
        self.prepare_as(&Caller::here())
    }

    /// As [`prepare`](Self::prepare), for a plan of another caller than this process.
    ///
    /// # Errors
    /// Those of [`prepare`](Self::prepare).
    #[doc(hidden)]
    pub fn prepare_as(&self, caller: &Caller) -> Result<Prepared, LaunchError> {
        self.ready(Stdio::INHERITED, caller).map(|ready| ready.prepared)
    }

    /// Prepares a launch. `default` is for the standard streams that were not set.
    fn ready(&self, default: [Stdio; 3], caller: &Caller) -> Result<Ready, LaunchError> {
        let launcher = self.launcher_of(caller)?;
        let mut prepared = launcher.prepare_for(self.kill_with_parent)?;
        let (moves, ours) = self.moves(default)?;
        if let Some(ruleset) = &self.landlock {
            // As in `moves`: no descriptor of the command may take its number before it is used.
            let above = moves.iter().map(|(number, _)| number.0.saturating_add(1)).max().unwrap_or_default();
            let fd = raise(ruleset, above)?;
            prepared.around.landlock = Some(Fd(fd.as_raw_fd()));
            prepared.owned.push(fd);
        }
        for (number, fd) in moves {
            prepared.moves.push(Move { fd: Fd(fd.as_raw_fd()), number });
            prepared.owned.push(fd);
        }
        Ok(Ready { launcher, prepared, ours })
    }

    /// Prepares a launch in place, for [`exec`](Self::exec).
    pub(super) fn ready_in_place(&self, caller: &Caller) -> Result<(Launcher, Prepared), LaunchError> {
        self.ready(Stdio::INHERITED, caller).map(|ready| (ready.launcher, ready.prepared))
    }

    /// Starts the command. `default` is for the standard streams that were not set.
    pub(super) fn start(&mut self, default: [Stdio; 3]) -> Result<Child, LaunchError> {
        let Ready { launcher, prepared, ours } = self.ready(default, &Caller::here())?;
        let hook = self.before_start.clone();
        let launch = move || {
            let mut call = |pid| begin(hook.as_ref(), pid);
            launcher.spawn_prepared(prepared, hook.is_some().then_some(&mut call))
        };
        let mut child = match self.kill_with_parent {
            true => on_lasting_thread(launch)?,
            false => launch()?,
        };
        self.complete(&mut child, ours);
        Ok(child)
    }

    /// Starts the command through another backend, for a recorder: see
    /// [`Launcher::spawn_through`](super::Launcher::spawn_through). Also returns the launch, for the record.
    /// The function of `before_start` runs as in [`spawn`](Self::spawn).
    ///
    /// # Errors
    /// The error of the launch. Without a launch, that of the settings.
    #[doc(hidden)]
    pub fn spawn_through<S: Sys>(
        &mut self,
        wrap: impl FnOnce(LinuxSys) -> S,
    ) -> Result<(Result<Child, LaunchError>, Prepared), LaunchError> {
        let Ready { launcher, mut prepared, ours } = self.ready(Stdio::INHERITED, &Caller::here())?;
        let hook = self.before_start.clone();
        let mut call = |pid| begin(hook.as_ref(), pid);
        let before_start = hook.is_some().then_some(&mut call as _);
        let mut launched = launcher.spawn_with(&mut prepared, before_start, wrap, |_| None);
        if let Ok(child) = &mut launched {
            self.complete(child, ours);
        }
        Ok((launched, prepared))
    }

    /// Gives the handle of a started command its pidfd, our ends of its pipes, and the setting of its drop.
    fn complete(&self, child: &mut Child, ours: [Option<OwnedFd>; 3]) {
        child.identify();
        let [stdin, stdout, stderr] = ours;
        child.stdin = stdin.map(Into::into);
        child.stdout = stdout.map(Into::into);
        child.stderr = stderr.map(Into::into);
        child.kill_on_drop(self.kill_on_drop);
    }

    /// Opens the standard streams, and returns the descriptors that the command gets under other numbers.
    fn moves(&self, default: [Stdio; 3]) -> Result<(Moves, [Option<OwnedFd>; 3]), LaunchError> {
        let mut ours = [const { None }; 3];
        let mut found = Moves::new();
        for (((number, set), default), ours) in (0..).zip(&self.stdio).zip(&default).zip(&mut ours) {
            let stdio = set.as_ref().unwrap_or(default);
            if self.descriptors.iter().any(|(given, _)| *given == Fd(number)) {
                check_default(stdio)?;
                continue;
            }
            let opened = open(stdio, number == 0).map_err(failed(Step::OpenStdio))?;
            *ours = opened.caller;
            found.extend(opened.command.map(|fd| (Fd(number), fd)));
        }
        found.extend(self.descriptors.iter().cloned());
        // Above every number that the command gets: no source is overwritten before it is used.
        let above =
            found.iter().map(|(number, _)| number.0.saturating_add(1)).max().unwrap_or_default().max(3);
        check_limit(above, descriptor_limit())?;
        let mut moves = Vec::new();
        for (number, fd) in found {
            moves.push((number, raise(&fd, above)?));
        }
        Ok((moves, ours))
    }

    /// Returns the parts of the message and the policy, after all checks.
    fn parts(&self, caller: &Caller) -> Result<Parts<'_>, SettingError> {
        if let Some(wrong) = &self.wrong {
            return Err(wrong.clone());
        }
        let joined: Vec<NsKind> = self.joins.iter().map(Join::kind).collect();
        if let Some(kind) = first_twice(self.created, &joined) {
            return Err(SettingError::Twice { kind });
        }
        self.check_numbers()?;
        if self.sets_propagation && !self.created.contains(NsKind::Mnt) {
            return Err(SettingError::NeedsNamespace { setting: "propagation", kind: NsKind::Mnt });
        }
        let joins: Vec<&Join> = self.joins.iter().filter(|join| join.is_needed()).collect();
        let joined: NsSet = joins.iter().map(|join| join.kind()).collect();
        self.check_root(joined.contains(NsKind::Mnt))?;
        self.check_directory()?;
        let rootless = caller.is_rootless();
        self.check_attributes(joined, rootless)?;
        let (users, groups) = self.maps(caller)?;
        if let (Some(users), Some(groups)) = (&users, &groups) {
            self.check_ids(users, groups)?;
            self.check_kept_ids(users, groups)?;
        }
        let mut paths = Vec::new();
        for join in &joins {
            if !paths.is_empty() {
                paths.push(b',');
            }
            paths.extend(join.entry()?);
        }
        let policy = self.policy(users.as_ref().zip(groups.as_ref()), joined, caller);
        let score = self.oom_score_adj.map(|score| CString::new(format!("{score}"))).transpose();
        let oom_score_adj = score.map_err(|_| SettingError::Nul { setting: "oom_score_adj" })?;
        Ok(Parts { joins, paths, users, groups, rootless, policy, oom_score_adj })
    }

    /// Checks that the working directory does not begin at that of this process, if the command has another
    /// root directory.
    fn check_directory(&self) -> Result<(), SettingError> {
        match &self.around.directory {
            Some(directory) if self.is_confined() && !directory.path.to_bytes().starts_with(b"/") => {
                Err(SettingError::Value {
                    setting: "current_dir",
                    why: "the path must be absolute, since the root directory or the mount namespace is another one"
                        .into(),
                })
            }
            _ => Ok(()),
        }
    }

    /// Returns whether the command must not leave its root directory or mount namespace by its working
    /// directory.
    fn is_confined(&self) -> bool {
        self.around.root.is_some()
            || self.joins.iter().any(|join| join.kind() == NsKind::Mnt && join.is_needed())
    }

    /// Returns the group id to set. In a user namespace a command with a user id of its own must not keep the
    /// caller's group, which may be that of the host's root: it gets group 0 of the namespace.
    fn group_to_set(&self, groups: Option<&Map>, in_user: bool) -> Option<u32> {
        let maps_0 = groups.is_none_or(|map| map.maps(0));
        self.gid.or((self.uid.is_some() && in_user && maps_0).then_some(0))
    }

    /// Checks that the command does not keep an id of the caller that is not mapped: it would have the
    /// caller's power over files without a name for it.
    fn check_kept_ids(&self, users: &Map, groups: &Map) -> Result<(), SettingError> {
        if self.uid.is_none() && users.maps(0) && groups.maps(0) {
            return Ok(());
        }
        if self.uid.is_none() && !users.maps_own {
            return Err(SettingError::NotMapped { noun: "user", id: 0 });
        }
        if self.group_to_set(Some(groups), true).is_none() && !groups.maps_own {
            return Err(SettingError::NotMapped { noun: "group", id: 0 });
        }
        Ok(())
    }

    fn check_numbers(&self) -> Result<(), SettingError> {
        let given = (0..).zip(&self.stdio).filter(|(_, stdio)| stdio.is_some()).map(|(number, _)| Fd(number));
        let mut numbers: Vec<Fd> = given.chain(self.descriptors.iter().map(|(number, _)| *number)).collect();
        numbers.sort_unstable();
        match numbers.windows(2).find(|pair| pair.first() == pair.last()) {
            Some(pair) => {
                Err(SettingError::NumberTwice { number: pair.first().copied().unwrap_or(Fd::STDERR) })
            }
            None => Ok(()),
        }
    }

    /// Returns the maps of a new user namespace.
    fn maps(&self, caller: &Caller) -> Result<(Option<Map>, Option<Map>), SettingError> {
        if !self.created.contains(NsKind::User) {
            return match (&self.users, &self.groups) {
                (None, None) => Ok((None, None)),
                _ => Err(SettingError::NeedsNamespace { setting: "a map of ids", kind: NsKind::User }),
            };
        }
        let of = |mapping: &Option<Mapping>, side| {
            map(mapping.as_ref().unwrap_or(&Mapping::Root), side, caller).map(Some)
        };
        Ok((of(&self.users, Side::Users)?, of(&self.groups, Side::Groups)?))
    }

    /// Checks that the ids of the command are mapped, and that groups can be set.
    fn check_ids(&self, users: &Map, groups: &Map) -> Result<(), SettingError> {
        if let Some(id) = self.uid.filter(|id| !users.maps(*id)) {
            return Err(SettingError::NotMapped { noun: "user", id });
        }
        let ids = self.gid.iter().chain(self.around.groups.iter().flatten());
        if let Some(id) = ids.copied().find(|id| !groups.maps(*id)) {
            return Err(SettingError::NotMapped { noun: "group", id });
        }
        if self.around.groups.is_some() && denies_setgroups(groups) {
            return Err(SettingError::Conflict {
                settings: ["groups", "a map of the own group alone"],
                why: "the kernel denies setgroups(2) in such a user namespace (user_namespaces(7)): use map_auto, which \
                      maps subordinate ids",
            });
        }
        Ok(())
    }

    /// Returns the settings that the message cannot carry. `maps`: those of a new user namespace.
    fn policy(&self, maps: Option<(&Map, &Map)>, joined: NsSet, caller: &Caller) -> Policy {
        let rootless = caller.is_rootless();
        let in_user = maps.is_some() || joined.contains(NsKind::User);
        // The ids of the command are set last. Until then a process has all capabilities in its user
        // namespace, whatever its ids are.
        let keeps = !in_user
            || self.uid.is_some()
            || maps.is_some_and(|(users, groups)| !users.maps(0) || !groups.maps(0));
        let credentials = match (keeps, maps) {
            (true, _) => Credentials::Keep,
            (false, Some(_)) => Credentials::Root,
            (false, None) => Credentials::RootLast,
        };
        // A command with a user id of its own loses the groups, as with `std::process::Command`, if this
        // process may drop them.
        let may_drop = match maps {
            Some((_, groups)) => !denies_setgroups(groups),
            // The joined namespace may deny setgroups(2), most likely to an ordinary user.
            None if in_user => !rootless,
            None => !caller.lacks_capability(Side::Groups),
        };
        let setgroups = match maps {
            Some((_, groups)) if denies_setgroups(groups) => Setgroups::Deny,
            Some(_) => Setgroups::FromMessage,
            None => Setgroups::DropIfAllowed,
        };
        let mut policy = Policy::runc(&Dialect::V1_2)
            .with_session(if self.new_session { Session::New } else { Session::Keep })
            .with_credentials(credentials)
            .with_setgroups(setgroups)
            .with_propagation(self.propagation)
            .with_kill_child(self.kill_with_parent)
            .with_descriptors(if self.inherits_all { Descriptors::All } else { Descriptors::Named })
            // A process of the same user with fewer capabilities may trace it, and so reach shared memory.
            .with_copied_memory(self.copies_memory || self.around.capabilities.is_some())
            .with_trusted_mounts(self.trusts_mounts)
            // In a direct start most namespaces are created after the go byte, too late for the function.
            .with_stages(self.before_start.is_some());
        policy.launch.init = self.init;
        policy.launch.uid = self.uid;
        policy.launch.gid = self.group_to_set(maps.map(|(_, groups)| groups), in_user);
        policy.launch.groups = self.around.groups.is_some() || self.uid.is_some() && may_drop;
        policy
    }

    /// Returns the bootstrap message.
    fn message<'p>(&self, parts: &'p Parts) -> Result<Bootstrap<'p>, SettingError> {
        let wrong = |why: &dyn core::fmt::Display| SettingError::Map { why: format!("{why}") };
        let mut message = Bootstrap::new(self.created.flags()).with_rootless_euid(parts.rootless);
        if !parts.paths.is_empty() {
            let paths = NsPaths::parse(&parts.paths, Dialect::V1_2.namespaces);
            message = message.with_namespaces(
                paths.map_err(|error| SettingError::Value { setting: "join", why: format!("{error}") })?,
            );
        }
        if let Some(map) = &parts.users {
            message = message.with_uid_map(IdMap::parse(&map.text).map_err(|error| wrong(&error))?);
            if let Some(tool) = &map.tool {
                message = message.with_uidmap_path(tool);
            }
        }
        if let Some(map) = &parts.groups {
            message = message.with_gid_map(IdMap::parse(&map.text).map_err(|error| wrong(&error))?);
            if let Some(tool) = &map.tool {
                message = message.with_gidmap_path(tool);
            }
            if !denies_setgroups(map) {
                message = message.with_setgroup(true);
            }
        }
        if let Some(score) = &parts.oom_score_adj {
            let score = OomScoreAdj::parse(score);
            message = message.with_oom_score_adj(score.map_err(|error| SettingError::Value {
                setting: "oom_score_adj",
                why: format!("{error}"),
            })?);
        }
        Ok(message)
    }
}

/// Returns the descriptor, or a duplicate of it with this number or above.
fn raise(fd: &Arc<OwnedFd>, least: i32) -> Result<Arc<OwnedFd>, LaunchError> {
    match fd.as_raw_fd() < least {
        true => duplicate_above(fd, least).map(Arc::new).map_err(failed(Step::DuplicateDescriptor)),
        false => Ok(Arc::clone(fd)),
    }
}

/// Checks the stream that a descriptor of [`Command::fd`] replaces. Nothing could come through a pipe.
fn check_default(stdio: &Stdio) -> Result<(), SettingError> {
    match stdio.0 {
        Kind::Piped => Err(SettingError::Conflict {
            settings: ["fd", "output"],
            why: "the output would not reach this process: use spawn or status, or leave descriptors 1 and 2 to output",
        }),
        _ => Ok(()),
    }
}

/// Checks that the numbers below `above`, and one more for the launch, are below the limit of this process.
fn check_limit(above: i32, limit: u64) -> Result<(), SettingError> {
    if u64::try_from(above).is_ok_and(|above| above < limit) {
        return Ok(());
    }
    let why = format!(
        "the number {} is too high: this process may have {limit} descriptors (RLIMIT_NOFILE), and the launch needs a \
         higher number itself",
        above.saturating_sub(1)
    );
    Err(SettingError::Value { setting: "fd", why })
}

/// Returns whether setgroups(2) must be denied in the new user namespace: a caller without CAP_SETGID maps
/// its own group alone, and writes the map itself (user_namespaces(7)). In a user namespace that denies the
/// call it is denied in any case.
fn denies_setgroups(groups: &Map) -> bool {
    groups.setgroups_denied || groups.lacks_capability && groups.tool.is_none()
}

/// Returns the first kind that is both created and joined, or joined twice.
fn first_twice(created: NsSet, joined: &[NsKind]) -> Option<NsKind> {
    let mut seen = created;
    joined.iter().copied().find(|kind| !seen.insert(*kind))
}

/// Calls the caller's function before the start, if there is one.
fn begin(hook: Option<&Arc<Mutex<BeforeStart>>>, pid: Pid) -> io::Result<()> {
    let Some(hook) = hook else { return Ok(()) };
    let mut function = match hook.try_lock() {
        Ok(function) => function,
        // A clone of a command has the same function, which waits for this launch.
        Err(TryLockError::WouldBlock) if is_nested() => {
            return Err(io::Error::other("the function would have to run inside of itself"));
        }
        Err(TryLockError::WouldBlock) => hook.lock().unwrap_or_else(PoisonError::into_inner),
        // A panic in an earlier launch left nothing half done here.
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
    };
    function(&Starting::new(pid))
}

/// Returns the error of a descriptor that cannot be opened or duplicated for the command.
fn failed(step: Step) -> impl Fn(io::Error) -> LaunchError {
    move |error| LaunchError::Start { step, errno: Errno(error.raw_os_error().unwrap_or(libc::EIO)) }
}
