//! The eight kinds of namespace and their owners; joining and creating them (namespaces(7),
//! docs/protocol.md#setns, docs/protocol.md#unshare-and-clone).

use std::vec::Vec;

use super::creds::{Creds, cap};
use super::idmaps::{Ids, Map};
use super::kernel::Kernel;
use super::process::Task;
use nsexec::namespace::NsKind;
use nsexec::sys::types::{CloneFlags, Errno, Fd, SysResult};

/// All kinds in the order in which `unshare` creates them, the user namespace first (create_new_namespaces).
pub(super) const CREATION_ORDER: [NsKind; 8] = [
    NsKind::User,
    NsKind::Mnt,
    NsKind::Uts,
    NsKind::Ipc,
    NsKind::Pid,
    NsKind::Cgroup,
    NsKind::Net,
    NsKind::Time,
];

/// The number of a namespace in a simulated kernel.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NsId(pub(super) usize);

/// The state that only a user namespace has.
#[derive(Clone, Debug)]
pub(super) struct UserNs {
    pub(super) parent: Option<NsId>,
    pub(super) level: u32,
    /// The effective user id of its creator.
    pub(super) owner_uid: u32,
    pub(super) uid_map: Map,
    pub(super) gid_map: Map,
    /// True if setgroups is allowed. A child namespace inherits a denial.
    pub(super) setgroups: bool,
    /// True if its creator had CAP_SETFCAP (verify_root_map, Linux 5.12).
    pub(super) parent_could_setfcap: bool,
}

impl UserNs {
    pub(super) fn map(&self, ids: Ids) -> &Map {
        match ids {
            Ids::Users => &self.uid_map,
            Ids::Groups => &self.gid_map,
        }
    }

    pub(super) fn map_mut(&mut self, ids: Ids) -> &mut Map {
        match ids {
            Ids::Users => &mut self.uid_map,
            Ids::Groups => &mut self.gid_map,
        }
    }
}

/// The state that only a pid namespace has.
#[derive(Clone, Debug)]
pub(super) struct PidNs {
    pub(super) parent: Option<NsId>,
    pub(super) level: u32,
    /// The next pid.
    pub(super) next: i32,
    /// Its pid 1, while that process lives.
    pub(super) init: Option<Task>,
    /// True if its pid 1 has died, so no process can be created in it.
    pub(super) dead: bool,
}

/// The state that only a time namespace has.
#[derive(Clone, Debug, Default)]
pub(super) struct TimeNs {
    /// True if a process has entered it: the offsets are final.
    pub(super) frozen: bool,
    /// The offsets of its two clocks in seconds.
    pub(super) offsets: Vec<(&'static str, i64)>,
}

/// The state that only one kind of namespace has.
#[derive(Clone, Debug)]
pub(super) enum State {
    User(UserNs),
    Pid(PidNs),
    Time(TimeNs),
    /// The mount at the root of its tree.
    Mnt {
        root: usize,
    },
    Plain,
}

/// A namespace.
#[derive(Clone, Debug)]
pub(super) struct Namespace {
    pub(super) kind: NsKind,
    /// The user namespace that owns it. A user namespace is listed as its own owner.
    pub(super) owner: NsId,
    pub(super) state: State,
}

/// The namespaces of a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct NsProxy {
    /// In the order of [`NsKind::ALL`], which is that of the declaration.
    of: [NsId; 8],
    /// The pid namespace of its future children.
    pub(super) pid_for_children: NsId,
    /// The time namespace of its future children.
    pub(super) time_for_children: NsId,
}

impl NsProxy {
    pub(super) fn new(of: [NsId; 8]) -> Self {
        Self { of, pid_for_children: of[NsKind::Pid as usize], time_for_children: of[NsKind::Time as usize] }
    }

    pub(super) fn get(&self, kind: NsKind) -> NsId {
        self.of[kind as usize]
    }

    pub(super) fn set(&mut self, kind: NsKind, ns: NsId) {
        self.of[kind as usize] = ns;
    }
}

/// The deepest nesting of user and pid namespaces (user_namespaces(7), pid_namespaces(7)).
const LEVEL_MAX: u32 = 32;

impl Kernel {
    /// Returns the user namespace `id`. Panics if `id` is of another kind.
    pub(super) fn user(&self, id: NsId) -> &UserNs {
        match &self.namespaces[id.0].state {
            State::User(user) => user,
            state => panic!("not a user namespace: {state:?}"),
        }
    }

    pub(super) fn user_mut(&mut self, id: NsId) -> &mut UserNs {
        match &mut self.namespaces[id.0].state {
            State::User(user) => user,
            state => panic!("not a user namespace: {state:?}"),
        }
    }

    pub(super) fn pid_ns(&self, id: NsId) -> &PidNs {
        match &self.namespaces[id.0].state {
            State::Pid(pid) => pid,
            state => panic!("not a pid namespace: {state:?}"),
        }
    }

    pub(super) fn pid_ns_mut(&mut self, id: NsId) -> &mut PidNs {
        match &mut self.namespaces[id.0].state {
            State::Pid(pid) => pid,
            state => panic!("not a pid namespace: {state:?}"),
        }
    }

    pub(super) fn time_ns_mut(&mut self, id: NsId) -> &mut TimeNs {
        match &mut self.namespaces[id.0].state {
            State::Time(time) => time,
            state => panic!("not a time namespace: {state:?}"),
        }
    }

    /// Returns the user namespace that owns `id`.
    pub(super) fn owner(&self, id: NsId) -> NsId {
        self.namespaces[id.0].owner
    }

    pub(super) fn add_namespace(&mut self, kind: NsKind, owner: NsId, state: State) -> NsId {
        let id = NsId(self.namespaces.len());
        let owner = if kind == NsKind::User { id } else { owner };
        self.namespaces.push(Namespace { kind, owner, state });
        id
    }

    /// Implements setns(2).
    ///
    /// Errors: `EBADF`. `EINVAL`: not a namespace, or of another kind. `EPERM` and `EINVAL` by the rules of
    /// the kind.
    pub(super) fn setns(&mut self, me: Task, fd: Fd, flag: CloneFlags) -> SysResult<()> {
        let ns = self.namespace_of(me, fd)?;
        let kind = self.namespaces[ns.0].kind;
        if flag != CloneFlags::EMPTY && flag != kind.flag() {
            return Err(Errno::EINVAL);
        }
        let own = self.process(me).creds.user;
        if kind == NsKind::User {
            return self.join_user(me, own, ns);
        }
        if kind == NsKind::Time && self.with_memory_of(me).len() > 1 {
            return Err(Errno::EUSERS);
        }
        // "own" is the caller's present user namespace. Therefore stage 1 joins in three passes.
        let owner = self.owner(ns);
        let admin = self.may(me, owner, cap::SYS_ADMIN) && self.may(me, own, cap::SYS_ADMIN);
        if !admin || kind == NsKind::Mnt && !self.may(me, own, cap::SYS_CHROOT) {
            return Err(Errno::EPERM);
        }
        match kind {
            NsKind::Pid => {
                // Only its own pid namespace or a descendant (pidns_install). Only children enter it.
                if !self.is_pid_descendant(ns, self.process(me).ns.get(NsKind::Pid)) {
                    return Err(Errno::EINVAL);
                }
                self.process_mut(me).ns.pid_for_children = ns;
            }
            NsKind::Time => {
                // The caller enters it too (timens_install), so the offsets are final.
                self.time_ns_mut(ns).frozen = true;
                let proxy = &mut self.process_mut(me).ns;
                proxy.set(NsKind::Time, ns);
                proxy.time_for_children = ns;
            }
            NsKind::Mnt => {
                let root = self.namespace_root(ns);
                let process = self.process_mut(me);
                (process.root, process.cwd) = (root.clone(), root);
                process.ns.set(kind, ns);
            }
            _ => self.process_mut(me).ns.set(kind, ns),
        }
        Ok(())
    }

    /// Joins a user namespace, with all capabilities afterwards (userns_install).
    ///
    /// Errors: `EINVAL`: it is the caller's own. `EPERM`: the caller lacks CAP_SYS_ADMIN in it.
    fn join_user(&mut self, me: Task, own: NsId, ns: NsId) -> SysResult<()> {
        if ns == own {
            return Err(Errno::EINVAL);
        }
        if !self.may(me, ns, cap::SYS_ADMIN) {
            return Err(Errno::EPERM);
        }
        let mut creds = self.process(me).creds.clone();
        creds.enter_user(ns);
        self.process_mut(me).ns.set(NsKind::User, ns);
        self.commit_creds(me, creds);
        Ok(())
    }

    fn is_pid_descendant(&self, ns: NsId, ancestor: NsId) -> bool {
        let mut at = Some(ns);
        while let Some(id) = at {
            if id == ancestor {
                return true;
            }
            at = self.pid_ns(id).parent;
        }
        false
    }

    /// Implements unshare(2). Creates the user namespace first; its creator then has all capabilities in it.
    /// A failure has no effect.
    pub(super) fn unshare(&mut self, me: Task, flags: CloneFlags) -> SysResult<()> {
        // CLONE_FS, CLONE_FILES, CLONE_SYSVSEM and the flags that they imply have no effect here.
        const HARMLESS: u32 = 0x200 | 0x400 | 0x4_0000 | 0x1_0000 | 0x800 | 0x100;
        if flags.unknown().0 & !HARMLESS != 0 {
            return Err(Errno::EINVAL);
        }
        let (proxy, creds) = self.new_namespaces(me, flags)?;
        let old = self.process(me).ns.get(NsKind::Mnt);
        self.process_mut(me).ns = proxy;
        self.enter_copied_mounts(me, old);
        if flags.contains(CloneFlags::NEWUSER) {
            self.commit_creds(me, creds);
        }
        Ok(())
    }

    /// Creates namespaces for `me` or its child: the user namespace first, which owns the others. A failure
    /// has no effect.
    pub(super) fn new_namespaces(&mut self, me: Task, flags: CloneFlags) -> SysResult<(NsProxy, Creds)> {
        let before = self.namespaces.len();
        let mut proxy = self.process(me).ns;
        let mut creds = self.process(me).creds.clone();
        if flags.contains(CloneFlags::NEWUSER) {
            let user = self.create_user(me)?;
            creds.enter_user(user);
            proxy.set(NsKind::User, user);
        }
        let wanted =
            CREATION_ORDER.into_iter().filter(|kind| *kind != NsKind::User && flags.contains(kind.flag()));
        for kind in wanted {
            let made = match self.capable(&creds, creds.user, cap::SYS_ADMIN) {
                true => self.create(me, kind, creds.user),
                false => Err(Errno::EPERM),
            };
            let ns = made.inspect_err(|_| self.namespaces.truncate(before))?;
            match kind {
                NsKind::Pid => proxy.pid_for_children = ns,
                NsKind::Time => proxy.time_for_children = ns,
                _ => proxy.set(kind, ns),
            }
        }
        Ok((proxy, creds))
    }

    /// Creates a user namespace (create_user_ns).
    ///
    /// Errors: `EINVAL`: the kernel does not have the kind. `ENOSPC`: the limit is reached, or the nesting
    /// would be 33 levels deep. `EPERM`: the caller has changed its root, or its ids are not mapped in its
    /// user namespace. Any errno: the setting `user_refused`.
    fn create_user(&mut self, me: Task) -> SysResult<NsId> {
        if self.settings.absent.contains(NsKind::User) {
            return Err(Errno::EINVAL);
        }
        if let Some(errno) = self.settings.user_refused {
            return Err(errno);
        }
        let creds = &self.process(me).creds;
        let parent = self.user(creds.user);
        if parent.level > LEVEL_MAX || !self.below_limit(NsKind::User) {
            return Err(Errno::ENOSPC);
        }
        let mapped = parent.uid_map.shown_as(creds.euid()).is_some()
            && parent.gid_map.shown_as(creds.egid()).is_some();
        if self.is_chrooted(me) || !mapped {
            return Err(Errno::EPERM);
        }
        let user = UserNs {
            parent: Some(creds.user),
            level: parent.level + 1,
            owner_uid: creds.euid(),
            uid_map: Map::default(),
            gid_map: Map::default(),
            setgroups: parent.setgroups,
            parent_could_setfcap: creds.effective >> cap::SETFCAP & 1 == 1,
        };
        Ok(self.add_namespace(NsKind::User, NsId(0), State::User(user)))
    }

    fn create(&mut self, me: Task, kind: NsKind, owner: NsId) -> SysResult<NsId> {
        if self.settings.absent.contains(kind) {
            return Err(Errno::EINVAL);
        }
        let proxy = self.process(me).ns;
        let state = match kind {
            NsKind::Pid => {
                let active = proxy.get(NsKind::Pid);
                // The children already enter another namespace, after a second unshare or after a setns
                // (copy_pid_ns).
                if proxy.pid_for_children != active {
                    return Err(Errno::EINVAL);
                }
                let level = self.pid_ns(active).level + 1;
                if level > LEVEL_MAX {
                    return Err(Errno::ENOSPC);
                }
                State::Pid(PidNs { parent: Some(active), level, next: 1, init: None, dead: false })
            }
            NsKind::Time => State::Time(TimeNs::default()),
            NsKind::Mnt => State::Mnt { root: self.copy_namespace(me, NsId(self.namespaces.len()), owner) },
            _ => State::Plain,
        };
        if !self.below_limit(kind) {
            return Err(Errno::ENOSPC);
        }
        Ok(self.add_namespace(kind, owner, state))
    }

    /// Checks the limit /proc/sys/user/max_*_namespaces.
    fn below_limit(&self, kind: NsKind) -> bool {
        let Some(limit) = self.settings.limits.get(&kind) else { return true };
        let there = self.namespaces.iter().filter(|ns| ns.kind == kind).count();
        there.saturating_sub(self.initial_counts.get(&kind).copied().unwrap_or(0)) < *limit
    }
}
