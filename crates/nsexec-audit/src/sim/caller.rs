//! The place of the launcher on the machine before a run: its own user namespace, and the /proc that it sees.

use std::string::ToString;
use std::vec::Vec;

use serde::{Deserialize, Serialize};

use super::idmaps::Map;
use super::mounts::{Origin, Place};
use super::namespaces::{NsId, PidNs, State, UserNs};
use super::setup::Sim;
use nsexec::namespace::{NsKind, NsSet};
use nsexec::sys::types::{MountAttributes, MountKind, Pid};

/// The pid of the launcher in a pid namespace below the first one. Its pid in the first one differs.
const OWN_PID: i32 = 2;

/// The pid namespace whose processes /proc shows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcOwner {
    /// That of the caller.
    #[default]
    Own,
    /// An ancestor of the caller's pid namespace, in which the caller has another pid: after `unshare --pid
    /// --fork`.
    Ancestor,
    /// One that does not contain the caller.
    Foreign,
    /// No procfs is mounted at /proc.
    Missing,
}

/// The caller's own user namespace, if it is not the first one. One line of a map is the first id inside, the
/// first id in the parent namespace, and their number.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OwnUser {
    /// Its map of user ids.
    pub users: Vec<(u32, u32, u32)>,
    /// Its map of group ids.
    pub groups: Vec<(u32, u32, u32)>,
    /// Whether groups may be changed in it (user_namespaces(7), "/proc/PID/setgroups").
    pub setgroups: bool,
    /// The kinds of the caller's other namespaces that it owns (ioctl_ns(2), NS_GET_USERNS).
    pub owns: NsSet,
}

impl Sim {
    /// Moves the launcher into a user namespace of its own. The launcher's ids count as ids inside. An id
    /// that is not mapped there stays unmapped.
    pub fn own_user(&mut self, own: &OwnUser) {
        let (task, kernel) = self.launcher_and_kernel();
        let (uid_map, gid_map) = (Map::of(&own.users), Map::of(&own.groups));
        let first = kernel.process(task).creds.user;
        let state = State::User(UserNs {
            parent: Some(first),
            level: kernel.user(first).level + 1,
            owner_uid: 0,
            uid_map: uid_map.clone(),
            gid_map: gid_map.clone(),
            setgroups: own.setgroups,
            parent_could_setfcap: true,
        });
        let user = kernel.add_namespace(NsKind::User, first, state);
        let process = kernel.process_mut(task);
        process.creds.user = user;
        process.mm_user = user;
        process.ns.set(NsKind::User, user);
        let [uids, gids] = [(&uid_map, process.creds.uid), (&gid_map, process.creds.gid)]
            .map(|(map, ids)| ids.map(|id| map.to_kernel(id).unwrap_or_else(|| unmapped(map))));
        (process.creds.uid, process.creds.gid) = (uids, gids);
        let groups = process.creds.groups.iter();
        process.creds.groups = groups.filter_map(|group| gid_map.to_kernel(*group)).collect();
        for kind in own.owns.iter().filter(|kind| *kind != NsKind::User) {
            let ns = kernel.process(task).ns.get(kind);
            kernel.namespaces[ns.0].owner = user;
        }
    }

    /// Gives a namespace to the launcher's own user namespace.
    pub fn give_to_caller(&mut self, ns: NsId) {
        let (task, kernel) = self.launcher_and_kernel();
        kernel.namespaces[ns.0].owner = kernel.process(task).creds.user;
    }

    /// Sets the pid namespace whose processes /proc shows.
    pub fn proc_owner(&mut self, owner: ProcOwner) {
        let mount = self.proc_mount();
        let (task, kernel) = self.launcher_and_kernel();
        let (Some(mount), first) = (mount, kernel.process(task).ns.get(NsKind::Pid)) else { return };
        let below = || {
            let next = OWN_PID + 1;
            State::Pid(PidNs { parent: Some(first), level: 1, next, init: None, dead: false })
        };
        let owner_of_new = kernel.owner(first);
        match owner {
            ProcOwner::Own => {}
            ProcOwner::Missing => kernel.detach(mount),
            ProcOwner::Ancestor => {
                let own = kernel.add_namespace(NsKind::Pid, owner_of_new, below());
                let process = kernel.process_mut(task);
                process.numbers.insert(0, (own, Pid(OWN_PID)));
                process.ns.set(NsKind::Pid, own);
                process.ns.pid_for_children = own;
            }
            ProcOwner::Foreign => {
                let other = kernel.add_namespace(NsKind::Pid, owner_of_new, below());
                let file_system = kernel.mounts[mount].file_system;
                kernel.file_systems[file_system].origin = Origin::Proc(other);
            }
        }
    }

    /// Makes the mount at /proc read-only, as `mount -o remount,bind,ro /proc` does.
    pub fn make_proc_read_only(&mut self) {
        if let Some(mount) = self.proc_mount() {
            self.launcher_and_kernel().1.mounts[mount].attributes |= MountAttributes::RDONLY;
        }
    }

    /// Mounts a tmpfs over a part of /sys, as container runtimes do.
    pub fn cover_sys(&mut self) {
        let mount = self.sysfs_mount();
        let (_, kernel) = self.launcher_and_kernel();
        let place = Place { mount, path: "/firmware".to_string() };
        let home = kernel.mounts[mount].home;
        kernel.add_mount(Origin::New(MountKind::Tmpfs), Some(place), home, 0);
    }

    /// Makes the mount at /sys read-only.
    pub fn make_sys_read_only(&mut self) {
        let mount = self.sysfs_mount();
        self.launcher_and_kernel().1.mounts[mount].attributes |= MountAttributes::RDONLY;
    }

    /// Returns the mount at /sys, which each machine has.
    fn sysfs_mount(&mut self) -> usize {
        let (_, kernel) = self.launcher_and_kernel();
        let is_sysfs = |mount: &usize| matches!(kernel.origin(*mount), Origin::Sysfs(_));
        (0..kernel.mounts.len()).find(is_sysfs).unwrap_or_default()
    }

    fn proc_mount(&mut self) -> Option<usize> {
        let (_, kernel) = self.launcher_and_kernel();
        (0..kernel.mounts.len()).find(|mount| matches!(kernel.origin(*mount), Origin::Proc(_)))
    }
}

/// Returns an id that no line of the map contains.
fn unmapped(map: &Map) -> u32 {
    (0..=65_534).rev().find(|id| map.shown_as(*id).is_none()).unwrap_or(u32::MAX - 1)
}
