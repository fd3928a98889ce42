//! The settings of a [`Command`] for its namespaces, its ids and its surroundings.

use std::format;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::vec::Vec;

use super::command::Command;
use super::join::{self, Join};
use super::setting::SettingError;
use super::strings::c_string;
use super::subordinate::Mapping;
use super::surroundings::{CodeOfCaller, Directory};
use crate::deciders::idmap::Extent;
use crate::deciders::namespace::NsKind;
use crate::sys::types::{Errno, Propagation};

impl Command {
    /// Gives the command new namespaces of these kinds (unshare(2)).
    ///
    /// A new user namespace has the map of [`map_root`](Self::map_root), unless another one is set. In a new
    /// mount namespace, mounts of the host that come later are seen, and its own are not seen outside
    /// ([`propagation`](Self::propagation)).
    pub fn unshare(&mut self, kinds: impl IntoIterator<Item = NsKind>) -> &mut Self {
        for kind in kinds {
            self.created.insert(kind);
        }
        self
    }

    /// Joins the namespace with this path: a file of /proc/PID/ns, or a mount of one (setns(2)).
    ///
    /// A program that joins a mount namespace must call [`run_from_sealed_copy`](super::run_from_sealed_copy)
    /// first, or [`trust_mount_namespace`](Self::trust_mount_namespace).
    pub fn join(&mut self, kind: NsKind, path: impl AsRef<Path>) -> &mut Self {
        self.joins.push(Join::Path(kind, path.as_ref().into()));
        self
    }

    /// Joins the namespace of an open file.
    pub fn join_fd(&mut self, kind: NsKind, namespace: impl Into<OwnedFd>) -> &mut Self {
        self.joins.push(Join::Open(kind, Arc::new(namespace.into())));
        self
    }

    /// Joins these namespaces of a process. They are opened now, through a pidfd: a later process with the
    /// same number is never joined by mistake. Namespaces in which the launching thread already is are left
    /// out.
    pub fn join_pid(&mut self, pid: u32, kinds: impl IntoIterator<Item = NsKind>) -> &mut Self {
        let joins = join::process(pid).and_then(|pidfd| join::of_process(&pidfd, kinds));
        self.add_joins(joins)
    }

    /// Joins these namespaces of the process of a pidfd, as [`join_pid`](Self::join_pid) does.
    pub fn join_pidfd(
        &mut self,
        pidfd: impl Into<OwnedFd>,
        kinds: impl IntoIterator<Item = NsKind>,
    ) -> &mut Self {
        let joins = join::of_process(&pidfd.into(), kinds);
        self.add_joins(joins)
    }

    fn add_joins(&mut self, joins: Result<Vec<Join>, SettingError>) -> &mut Self {
        match joins {
            Ok(joins) => self.joins.extend(joins),
            Err(error) => self.note(error),
        }
        self
    }

    /// Joins a mount namespace even if this program does not run from a sealed copy of itself: see
    /// [`Launcher::trust_mount_namespace`](super::Launcher::trust_mount_namespace).
    pub fn trust_mount_namespace(&mut self) -> &mut Self {
        self.trusts_mounts = true;
        self
    }

    /// Maps the caller to root in the new user namespace, and nothing else ([`Mapping::Root`]). The command
    /// runs as root there, unless [`uid`](Self::uid) is set.
    pub fn map_root(&mut self) -> &mut Self {
        self.map(Mapping::Root)
    }

    /// Maps the caller's ids to themselves in the new user namespace, and nothing else
    /// ([`Mapping::CurrentUser`]). The command keeps the caller's ids.
    pub fn map_current_user(&mut self) -> &mut Self {
        self.map(Mapping::CurrentUser)
    }

    /// Maps the caller to root, and its subordinate ids from 1 on ([`Mapping::Auto`]).
    pub fn map_auto(&mut self) -> &mut Self {
        self.map(Mapping::Auto)
    }

    fn map(&mut self, mapping: Mapping) -> &mut Self {
        self.users = Some(mapping.clone());
        self.groups = Some(mapping);
        self
    }

    /// Sets the map of user ids of the new user namespace. Ranges that cross a border of the caller's own map
    /// are split. Without [`gid_map`](Self::gid_map) the caller's group becomes group 0.
    pub fn uid_map(&mut self, ranges: impl Into<Vec<Extent>>) -> &mut Self {
        self.users = Some(Mapping::Ranges(ranges.into()));
        self
    }

    /// Sets the map of group ids of the new user namespace.
    pub fn gid_map(&mut self, ranges: impl Into<Vec<Extent>>) -> &mut Self {
        self.groups = Some(Mapping::Ranges(ranges.into()));
        self
    }

    /// Sets the propagation of mount events in the new mount namespace; `None` leaves it as it was copied.
    /// The default is [`Propagation::Slave`]. Refused without a new mount namespace.
    pub fn propagation(&mut self, propagation: Option<Propagation>) -> &mut Self {
        self.sets_propagation = true;
        self.propagation = propagation;
        self
    }

    /// Makes the command the leader of a new session (setsid(2)), without a controlling terminal. A process
    /// of the same session could push characters into the caller's terminal.
    pub fn new_session(&mut self) -> &mut Self {
        self.new_session = true;
        self
    }

    /// Sets the oom score adjustment of the command, from −1000 to 1000 (proc_pid_oom_score_adj(5)). A value
    /// below the present one needs CAP_SYS_RESOURCE.
    pub fn oom_score_adj(&mut self, score: i32) -> &mut Self {
        match (-1000..=1000).contains(&score) {
            true => self.oom_score_adj = Some(score),
            false => self.note(SettingError::Value {
                setting: "oom_score_adj",
                why: format!("{score} is not between -1000 and 1000"),
            }),
        }
        self
    }

    /// Sets the working directory of the command, in its namespaces. A relative path begins at the working
    /// directory of this process; with a root directory or mounts of its own it must be absolute, and the
    /// default is /. Unlike [`std::process::Command`], the command enters it before its ids change, so a
    /// directory that only the caller may enter is allowed.
    pub fn current_dir(&mut self, directory: impl AsRef<Path>) -> &mut Self {
        match c_string(directory.as_ref().as_os_str()) {
            Some(path) => self.around.directory = Some(Directory { path, confined: false }),
            None => self.note(SettingError::Nul { setting: "current_dir" }),
        }
        self
    }

    /// Sets the user id of the command, in its user namespace: the real, effective and saved one. If no
    /// groups are set, the supplementary groups are dropped, as with [`std::process::Command`]: with
    /// CAP_SETGID, and in a new user namespace that allows setgroups(2).
    ///
    /// The id is set last, right before the exec. A process with user id 0 loses its capabilities by that,
    /// the ambient ones too. Another one with CAP_SETUID keeps them (capabilities(7)).
    pub fn uid(&mut self, uid: u32) -> &mut Self {
        self.uid = Some(uid);
        self
    }

    /// Sets the group id of the command, in its user namespace: the real, effective and saved one.
    pub fn gid(&mut self, gid: u32) -> &mut Self {
        self.gid = Some(gid);
        self
    }

    /// Sets the supplementary groups of the command, in its user namespace (setgroups(2)).
    pub fn groups(&mut self, groups: impl Into<Vec<u32>>) -> &mut Self {
        self.around.groups = Some(groups.into());
        self
    }

    /// Adds code that the command's process runs right before its exec, in its namespaces and with its ids.
    /// An error ends the launch. Its errno is in the [`LaunchError`](super::LaunchError); an error without
    /// one counts as `EINVAL`, as with `std`.
    ///
    /// The memory of the process is a copy then ([`Memory`](super::shape::Memory)). A plan contains one line
    /// for the code, and no call that it makes.
    ///
    /// All descriptors of this process stay open up to the exec, so the code may use each of them. Without
    /// such code the launch closes those that it does not use. Its processes hold a pipe of this process open
    /// meanwhile, and the launch waits for a moment in which no other launch forks.
    ///
    /// # Safety
    /// The process is a fork of one thread of this program: locks that other threads held stay locked. So the
    /// code calls only functions that are safe in a signal handler (signal-safety(7)): system calls, and code
    /// without allocation, locks, `println!` and panics. It neither closes descriptors that it did not open,
    /// by close(2), close_range(2) or as the target of dup2(2), since the launch has its pipes there; nor
    /// changes the signal mask or the parent-death signal.
    pub unsafe fn pre_exec(
        &mut self,
        code: impl Fn() -> io::Result<()> + Send + Sync + 'static,
    ) -> &mut Self {
        let run = move || code().map_err(|error| error.raw_os_error().map_or(Errno::EINVAL, Errno));
        self.around.hooks.push(CodeOfCaller(Arc::new(run)));
        self
    }

    /// Gives the command's process a copy of this process's memory in any case: see
    /// [`Launcher::copy_memory`](super::Launcher::copy_memory).
    pub fn copy_memory(&mut self) -> &mut Self {
        self.copies_memory = true;
        self
    }
}
