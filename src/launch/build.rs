//! Builds the launch of a [`Command`]: checks all settings together, before any process is created.

use std::ffi::CString;
use std::format;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, PoisonError};
use std::vec::Vec;

use super::Launcher;
use super::command::{Command, Starting};
use super::error::LaunchError;
use super::handle::Child;
use super::join::Join;
use super::policy::Descriptors;
use super::prepared::Prepared;
use super::script::Step;
use super::setting::{SettingError, first_twice};
use super::spawn::on_lasting_thread;
use super::stdio::{Stdio, duplicate_above, open};
use super::subordinate::{Map, Mapping, Side, is_rootless, map};
use super::surroundings::Move;
use crate::deciders::bootstrap::{Bootstrap, Dialect, OomScoreAdj};
use crate::deciders::idmap::IdMap;
use crate::deciders::namespace::paths::NsPaths;
use crate::deciders::namespace::{NsKind, NsSet};
use crate::deciders::policy::{Credentials, Policy, Session, Setgroups};
use crate::sys::types::{Errno, Fd};

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
struct Parts {
    paths: Vec<u8>,
    users: Option<Map>,
    groups: Option<Map>,
    rootless: bool,
    policy: Policy,
    oom_score_adj: Option<CString>,
}

impl Command {
    /// Checks the settings, and returns the [`Launcher`] with the same settings, without the standard streams
    /// and the descriptors of [`fd`](Self::fd).
    ///
    /// # Errors
    /// [`LaunchError::Setting`].
    pub fn launcher(&self) -> Result<Launcher, LaunchError> {
        let parts = self.parts()?;
        let mut launcher =
            Launcher::new(&self.message(&parts)?, parts.policy).map_err(SettingError::Message)?;
        launcher.command = self.line.clone();
        launcher.level = self.level;
        launcher.timeout = self.timeout;
        launcher.on_record = self.on_record.clone();
        let mut around = self.around.clone();
        around.gid = parts.policy.launch.gid;
        if around.groups.is_none() && parts.policy.launch.groups {
            around.groups = Some(Vec::new());
        }
        launcher.around = Some(around);
        Ok(launcher)
    }

    /// Returns whether the command gets groups of its own. Root that sets a user id drops its groups, as
    /// `std::process::Command` does.
    fn sets_groups(&self, rootless: bool) -> bool {
        self.around.groups.is_some() || self.around.uid.is_some() && !rootless
    }

    /// Prepares a launch: checks the settings, and opens the standard streams. A plan runs the result on a
    /// simulated kernel.
    ///
    /// # Errors
    /// Those of [`spawn`](Self::spawn) that are found before a process is created.
    pub fn prepare(&self) -> Result<Prepared, LaunchError> {
        let inherit = [Stdio::inherit(), Stdio::inherit(), Stdio::inherit()];
        self.ready(inherit).map(|ready| ready.prepared)
    }

    /// Prepares a launch. `default` is what the standard streams are that were not set.
    fn ready(&self, default: [Stdio; 3]) -> Result<Ready, LaunchError> {
        let launcher = self.launcher()?;
        let mut prepared = launcher.prepare()?;
        let (moves, ours) = self.moves(default)?;
        for (number, fd) in moves {
            prepared.moves.push(Move { fd: Fd(fd.as_raw_fd()), number });
            prepared.owned.push(fd);
        }
        prepared.owned.extend(self.joins.iter().filter_map(Join::owned));
        if self.kill_with_parent && prepared.signals.mask.is_none() {
            // Another thread may launch: the command gets the mask of this one.
            prepared.signals.mask = super::query::signals_of_this_thread().map(|state| state.blocked);
        }
        Ok(Ready { launcher, prepared, ours })
    }

    /// Starts the command. `default` is for the standard streams that were not set.
    pub(super) fn start(&mut self, default: [Stdio; 3]) -> Result<Child, LaunchError> {
        let Ready { launcher, prepared, ours } = self.ready(default)?;
        let hook = self.before_start.clone();
        let launch = move || {
            let mut call = |pid| match &hook {
                // A panic in an earlier launch left nothing half done here.
                Some(hook) => hook.lock().unwrap_or_else(PoisonError::into_inner)(&Starting::new(pid)),
                None => Ok(()),
            };
            launcher.spawn_prepared(prepared, hook.is_some().then_some(&mut call))
        };
        let mut child = match self.kill_with_parent {
            true => on_lasting_thread(launch)?,
            false => launch()?,
        };
        let [stdin, stdout, stderr] = ours;
        child.stdin = stdin.map(Into::into);
        child.stdout = stdout.map(Into::into);
        child.stderr = stderr.map(Into::into);
        if self.kill_on_drop {
            child.kill_on_drop();
        }
        Ok(child)
    }

    /// Opens the standard streams, and returns the descriptors that the command gets under other numbers.
    fn moves(&self, default: [Stdio; 3]) -> Result<(Moves, [Option<OwnedFd>; 3]), LaunchError> {
        let failed = |error: io::Error| LaunchError::Start {
            step: Step::OpenStdio,
            errno: Errno(error.raw_os_error().unwrap_or(libc::EIO)),
        };
        let mut ours = [const { None }; 3];
        let mut found = Moves::new();
        for (((number, set), default), ours) in (0..).zip(&self.stdio).zip(&default).zip(&mut ours) {
            let opened = open(set.as_ref().unwrap_or(default), number == 0).map_err(failed)?;
            *ours = opened.caller;
            found.extend(opened.command.map(|fd| (Fd(number), fd)));
        }
        found.extend(self.descriptors.iter().cloned());
        // Above every number that the command gets: no source is overwritten before it is used.
        let above =
            found.iter().map(|(number, _)| number.0.saturating_add(1)).max().unwrap_or_default().max(3);
        let mut moves = Vec::new();
        for (number, fd) in found {
            let fd = match fd.as_raw_fd() < above {
                true => Arc::new(duplicate_above(&fd, above).map_err(failed)?),
                false => fd,
            };
            moves.push((number, fd));
        }
        Ok((moves, ours))
    }

    /// Returns the parts of the message and the policy, after all checks.
    fn parts(&self) -> Result<Parts, SettingError> {
        if let Some(wrong) = &self.wrong {
            return Err(wrong.clone());
        }
        let joined: Vec<NsKind> = self.joins.iter().map(Join::kind).collect();
        if let Some(kind) = first_twice(self.created, &joined) {
            return Err(SettingError::Twice { kind });
        }
        self.check_numbers()?;
        let joined: NsSet = joined.into_iter().collect();
        if self.around.directory.is_some() && joined.contains(NsKind::Mnt) {
            return Err(SettingError::Conflict {
                settings: ["current_dir", "a join of a mount namespace"],
                why: "a process there could let the path lead out of the namespace (CVE-2024-21626), and this version \
                      has no protected change of the directory",
            });
        }
        let rootless = is_rootless();
        let (users, groups) = self.maps()?;
        let tool = users
            .as_ref()
            .zip(groups.as_ref())
            .is_some_and(|(users, groups)| users.tool.is_some() || groups.tool.is_some());
        self.check_ids(users.as_ref(), groups.as_ref(), rootless && !tool)?;
        if let (Some(users), Some(groups)) = (&users, &groups) {
            self.check_kept_ids(users, groups)?;
        }
        let mut paths = Vec::new();
        for join in &self.joins {
            if !paths.is_empty() {
                paths.push(b',');
            }
            paths.extend(join.entry()?);
        }
        let mut policy = self.policy(users.as_ref(), groups.as_ref(), joined, rootless && !tool);
        policy.launch.uid = self.around.uid;
        policy.launch.gid =
            self.group_to_set(groups.as_ref(), users.is_some() || joined.contains(NsKind::User));
        policy.launch.groups = self.sets_groups(rootless);
        let score = self.oom_score_adj.map(|score| CString::new(format!("{score}"))).transpose();
        let oom_score_adj = score.map_err(|_| SettingError::Nul { setting: "oom_score_adj" })?;
        Ok(Parts { paths, users, groups, rootless, policy, oom_score_adj })
    }

    /// Returns the group id to set. In a user namespace a command with a user id of its own must not keep the
    /// caller's group, which may be that of the host's root: it gets group 0 of the namespace.
    fn group_to_set(&self, groups: Option<&Map>, in_user: bool) -> Option<u32> {
        let maps_0 = groups.is_none_or(|map| map.maps(0));
        self.around.gid.or((self.around.uid.is_some() && in_user && maps_0).then_some(0))
    }

    /// Checks that the command does not keep an id of the caller that is not mapped: it would have the
    /// caller's power over files without a name for it.
    fn check_kept_ids(&self, users: &Map, groups: &Map) -> Result<(), SettingError> {
        if self.around.uid.is_none() && users.maps(0) && groups.maps(0) {
            return Ok(());
        }
        if self.around.uid.is_none() && !users.maps_own {
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
    fn maps(&self) -> Result<(Option<Map>, Option<Map>), SettingError> {
        if !self.created.contains(NsKind::User) {
            return match (&self.users, &self.groups) {
                (None, None) => Ok((None, None)),
                _ => Err(SettingError::NeedsNamespace { setting: "a map of ids", kind: NsKind::User }),
            };
        }
        let of =
            |mapping: &Option<Mapping>, side| map(mapping.as_ref().unwrap_or(&Mapping::Root), side).map(Some);
        Ok((of(&self.users, Side::Users)?, of(&self.groups, Side::Groups)?))
    }

    /// Checks that the ids of the command are mapped, and that groups can be set. `alone`: a caller without
    /// privileges maps its own id alone, for which the kernel demands that setgroups(2) is denied.
    fn check_ids(&self, users: Option<&Map>, groups: Option<&Map>, alone: bool) -> Result<(), SettingError> {
        if let (Some(users), Some(id)) = (users, self.around.uid) {
            if !users.maps(id) {
                return Err(SettingError::NotMapped { noun: "user", id });
            }
        }
        if let Some(map) = groups {
            let ids = self.around.gid.iter().chain(self.around.groups.iter().flatten());
            if let Some(id) = ids.copied().find(|id| !map.maps(*id)) {
                return Err(SettingError::NotMapped { noun: "group", id });
            }
            if alone && self.around.groups.is_some() {
                return Err(SettingError::Conflict {
                    settings: ["groups", "a map of the own group alone"],
                    why: "the kernel denies setgroups(2) in such a user namespace (user_namespaces(7)): use map_auto, \
                          which maps subordinate ids",
                });
            }
        }
        Ok(())
    }

    fn policy(&self, users: Option<&Map>, groups: Option<&Map>, joined: NsSet, alone: bool) -> Policy {
        let in_user = users.is_some() || joined.contains(NsKind::User);
        // The ids of the command are set last. Until then a process has all capabilities in its user
        // namespace, whatever its ids are.
        let keeps = !in_user
            || self.around.uid.is_some()
            || users.is_some_and(|map| !map.maps(0))
            || groups.is_some_and(|map| !map.maps(0));
        let credentials = match (keeps, users.is_some()) {
            (true, _) => Credentials::Keep,
            (false, true) => Credentials::Root,
            (false, false) => Credentials::RootLast,
        };
        let setgroups = match (users.is_some(), alone) {
            (true, true) => Setgroups::Deny,
            (true, false) => Setgroups::FromMessage,
            (false, _) => Setgroups::DropIfAllowed,
        };
        let mut policy = Policy::runc(&Dialect::V1_2)
            .with_session(if self.new_session { Session::New } else { Session::Keep })
            .with_credentials(credentials)
            .with_setgroups(setgroups)
            .with_propagation(self.propagation)
            .with_kill_child(self.kill_with_parent)
            .with_descriptors(if self.inherits_all { Descriptors::All } else { Descriptors::Named })
            .with_copied_memory(self.copies_memory)
            // In a direct start most namespaces are created after the go byte, too late for the function.
            .with_stages(self.before_start.is_some());
        policy.launch.trusted_mounts = self.trusts_mounts;
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
            if !parts.rootless {
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
