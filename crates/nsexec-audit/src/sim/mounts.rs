//! File systems, mounts, and the tree of mounts of each mount namespace (mount_namespaces(7)).
//!
//! A mount shows a part of a file system at a place. All mounts are in one list. A mount belongs to a mount
//! namespace, or it is a copy that is attached nowhere.

use std::collections::BTreeMap;
use std::string::String;
use std::vec::Vec;

use super::creds::cap;
use super::kernel::Kernel;
use super::namespaces::{NsId, State};
use super::process::Task;
use nsexec::namespace::NsKind;
use nsexec::sys::types::{Errno, MountAttributes, MountKind, SysResult};

/// The kind of a file system.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Origin {
    /// The ramfs below the root of the machine, which is always covered.
    Ramfs,
    /// All disks of the machine. A path that nothing names is a directory.
    Machine,
    /// The procfs of a pid namespace.
    Proc(NsId),
    /// The sysfs of a network namespace.
    Sysfs(NsId),
    /// The message queues of an ipc namespace.
    Mqueue(NsId),
    /// A file system that each mount creates anew.
    New(MountKind),
}

/// A file, directory or symbolic link that the run created.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Entry {
    Directory,
    File,
    Link(String),
}

/// A file system, with what the run created in it.
#[derive(Clone, Debug)]
pub(super) struct FileSystem {
    pub(super) origin: Origin,
    /// The created entries by their paths, which begin with a slash.
    pub(super) entries: BTreeMap<String, Entry>,
}

/// A place in the tree: a mount, and a path in its file system. The path is empty for the root of the file
/// system, and begins with a slash otherwise.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Place {
    pub(super) mount: usize,
    pub(super) path: String,
}

/// The owner of a mount.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Home {
    Namespace(NsId),
    /// A copy, or a part of one, that is attached nowhere.
    Copy,
    /// The mount was detached.
    Gone,
}

/// One mount.
#[derive(Clone, Debug)]
pub(super) struct Mounted {
    pub(super) file_system: usize,
    /// The path in the file system that the mount shows.
    pub(super) root: String,
    /// The place that it covers, if it is attached.
    pub(super) parent: Option<Place>,
    pub(super) home: Home,
    pub(super) attributes: u64,
    /// The attributes that cannot be cleared (mount_namespaces(7), "Restrictions on mount namespaces").
    pub(super) locked_attributes: u64,
    /// True if the mount came with the others from a more privileged mount namespace, so it cannot be
    /// separated from them.
    pub(super) locked: bool,
    /// The mount of which it is a copy.
    copy_of: Option<usize>,
}

/// The attributes that a less privileged mount namespace cannot clear.
const LOCKABLE: u64 =
    MountAttributes::RDONLY | MountAttributes::NOSUID | MountAttributes::NODEV | MountAttributes::NOEXEC;

impl Kernel {
    /// Creates the mounts of the machine in its first mount namespace, and returns their root.
    pub(super) fn first_mounts(&mut self, mnt: NsId, pid: NsId, net: NsId) -> usize {
        let home = Home::Namespace(mnt);
        let root = match self.settings.initial_ramfs {
            true => self.add_mount(Origin::Machine, None, home, 0),
            false => {
                let below = self.add_mount(Origin::Ramfs, None, home, 0);
                self.add_mount(Origin::Machine, Some(Place { mount: below, path: String::new() }), home, 0)
            }
        };
        let at = |path: &str| Some(Place { mount: root, path: path.into() });
        if !self.settings.proc_missing {
            self.add_mount(Origin::Proc(pid), at("/proc"), home, 0);
        }
        self.add_mount(Origin::Sysfs(net), at("/sys"), home, 0);
        0
    }

    /// Adds a mount of a whole file system.
    pub(super) fn add_mount(
        &mut self,
        origin: Origin,
        parent: Option<Place>,
        home: Home,
        attributes: u64,
    ) -> usize {
        let same = |file_system: &FileSystem| file_system.origin == origin;
        let shared = !matches!(origin, Origin::New(_) | Origin::Machine);
        let file_system = self.file_systems.iter().position(same).filter(|_| shared).unwrap_or_else(|| {
            self.file_systems.push(FileSystem { origin, entries: BTreeMap::new() });
            self.file_systems.len() - 1
        });
        let (root, locked_attributes) = (String::new(), 0);
        let mount = Mounted {
            file_system,
            root,
            parent,
            home,
            attributes,
            locked_attributes,
            locked: false,
            copy_of: None,
        };
        self.mounts.push(mount);
        self.mounts.len() - 1
    }

    pub(super) fn origin(&self, mount: usize) -> Origin {
        self.file_systems[self.mounts[mount].file_system].origin
    }

    /// Returns whether the place is the root of its mount (`path_mounted`).
    pub(super) fn is_mount_root(&self, place: &Place) -> bool {
        self.mounts[place.mount].root == place.path
    }

    /// Returns the place at the top of all mounts that cover this one.
    pub(super) fn top(&self, mut place: Place) -> Place {
        let covers = |place: &Place| self.mounts.iter().position(|m| m.parent.as_ref() == Some(place));
        while let Some(mount) = covers(&place) {
            place = Place { mount, path: self.mounts[mount].root.clone() };
        }
        place
    }

    /// Returns a mount and all mounts below it.
    pub(super) fn subtree(&self, mount: usize) -> Vec<usize> {
        let mut found = std::vec![mount];
        let mut next = 0;
        while let Some(&parent) = found.get(next) {
            let is_child = |m: &Mounted| m.parent.as_ref().is_some_and(|place| place.mount == parent);
            found.extend((0..self.mounts.len()).filter(|index| is_child(&self.mounts[*index])));
            next += 1;
        }
        found
    }

    /// Copies the mount at a place; with `recursive`, also the mounts below it. The copy is attached nowhere.
    pub(super) fn copy_mounts(&mut self, place: &Place, recursive: bool, home: Home) -> usize {
        let copied = Mounted {
            root: place.path.clone(),
            parent: None,
            home,
            locked: false,
            copy_of: Some(place.mount),
            ..self.mounts[place.mount].clone()
        };
        self.mounts.push(copied);
        let copy = self.mounts.len() - 1;
        for child in self.mounts_below(place).into_iter().filter(|_| recursive) {
            let Mounted { root, parent, locked, .. } = self.mounts[child].clone();
            let new = self.copy_mounts(&Place { mount: child, path: root }, true, home);
            self.mounts[new].locked = locked;
            self.mounts[new].parent = parent.map(|place| Place { mount: copy, ..place });
        }
        copy
    }

    /// Returns the mounts whose parent is the mount of this place, at or below the place.
    pub(super) fn mounts_below(&self, place: &Place) -> Vec<usize> {
        let is_below = |m: &Mounted| {
            m.parent.as_ref().is_some_and(|at| at.mount == place.mount && is_within(&at.path, &place.path))
        };
        (0..self.mounts.len()).filter(|index| is_below(&self.mounts[*index])).collect()
    }

    /// Copies the mounts of the process's mount namespace for a new one with this number. If another user
    /// namespace owns the new one, the mounts and their attributes are locked (`lock_mnt_tree`).
    pub(super) fn copy_namespace(&mut self, me: Task, new: NsId, owner: NsId) -> usize {
        let old = self.process(me).ns.get(NsKind::Mnt);
        let root = self.root_mount(old);
        let place = Place { mount: root, path: self.mounts[root].root.clone() };
        let copy = self.copy_mounts(&place, true, Home::Namespace(new));
        if self.owner(old) != owner {
            for index in self.subtree(copy) {
                let mount = &mut self.mounts[index];
                mount.locked_attributes |= mount.attributes & LOCKABLE;
                mount.locked = index != copy;
            }
        }
        copy
    }

    fn root_mount(&self, mnt: NsId) -> usize {
        match self.namespaces[mnt.0].state {
            State::Mnt { root } => root,
            _ => panic!("not a mount namespace: {mnt:?}"),
        }
    }

    /// Returns the root directory of a mount namespace.
    pub(super) fn namespace_root(&self, mnt: NsId) -> Place {
        let mount = self.root_mount(mnt);
        self.top(Place { mount, path: self.mounts[mount].root.clone() })
    }

    /// Returns the same place in a mount namespace that is a copy of the place's.
    fn in_copy(&self, place: &Place, mnt: NsId) -> Place {
        let is_copy = |m: &Mounted| m.home == Home::Namespace(mnt) && m.copy_of == Some(place.mount);
        match self.mounts.iter().position(is_copy) {
            Some(mount) => Place { mount, ..place.clone() },
            None => place.clone(),
        }
    }

    /// Moves the root and the working directory of a process into the copy of its mount namespace that it
    /// got, if it got one.
    pub(super) fn enter_copied_mounts(&mut self, task: Task, old: NsId) {
        let mnt = self.process(task).ns.get(NsKind::Mnt);
        if mnt != old {
            let process = self.process(task);
            let [root, cwd] = [&process.root, &process.cwd].map(|place| self.in_copy(place, mnt));
            let process = self.process_mut(task);
            (process.root, process.cwd) = (root, cwd);
        }
    }

    /// Returns whether the process has another root directory than its mount namespace (`current_chrooted`).
    pub(super) fn is_chrooted(&self, me: Task) -> bool {
        let process = self.process(me);
        self.settings.chrooted || process.root != self.namespace_root(process.ns.get(NsKind::Mnt))
    }

    /// Returns whether the root directory of the process is that of a mount (`path_mounted`). With the
    /// setting `chrooted` it is a directory of one, until the process leaves it.
    pub(super) fn is_root_of_mount(&self, me: Task, root: &Place) -> bool {
        let first = self.namespace_root(self.process(me).ns.get(NsKind::Mnt));
        self.is_mount_root(root) && !(self.settings.chrooted && *root == first)
    }

    /// Checks that the process may change mounts (`may_mount`).
    ///
    /// Errors: `EPERM`: it lacks CAP_SYS_ADMIN over the owner of its mount namespace.
    pub(super) fn may_mount(&self, me: Task) -> SysResult<()> {
        let mnt = self.process(me).ns.get(NsKind::Mnt);
        if self.may(me, self.owner(mnt), cap::SYS_ADMIN) { Ok(()) } else { Err(Errno::EPERM) }
    }

    /// Returns whether the mount belongs to the mount namespace of the process (`check_mnt`).
    pub(super) fn is_own_mount(&self, me: Task, mount: usize) -> bool {
        self.mounts[mount].home == Home::Namespace(self.process(me).ns.get(NsKind::Mnt))
    }

    /// Attaches a mount, with all mounts below it, over the top of a place of the process's mount namespace.
    pub(super) fn attach(&mut self, me: Task, mount: usize, place: Place) {
        let home = Home::Namespace(self.process(me).ns.get(NsKind::Mnt));
        self.mounts[mount].parent = Some(place);
        for index in self.subtree(mount) {
            self.mounts[index].home = home;
        }
    }

    /// Detaches a mount, and each mount below it from its parent.
    pub(super) fn detach(&mut self, mount: usize) {
        for index in self.subtree(mount) {
            (self.mounts[index].parent, self.mounts[index].home) = (None, Home::Gone);
        }
    }

    /// Returns whether the mount is below another one, or is the same.
    pub(super) fn is_mount_below(&self, mount: usize, above: usize) -> bool {
        self.subtree(above).contains(&mount)
    }

    /// Mounts a new file system over the top of a place (`do_new_mount`).
    ///
    /// Errors: `EPERM`: no CAP_SYS_ADMIN over the namespace that the file system shows, or a new procfs or
    /// sysfs would show more than the old one (`mount_too_revealing`). `EINVAL`: an unknown option, or the
    /// place is not in the process's mount namespace. `EBUSY`: the same sysfs or mqueue is there already.
    /// Each mount of a procfs is a new file system (Linux 5.8).
    pub(super) fn mount_new(
        &mut self,
        me: Task,
        (kind, attributes): (MountKind, u64),
        options: &[u8],
        place: Place,
    ) -> SysResult<()> {
        let proxy = self.process(me).ns;
        let (origin, over) = match kind {
            MountKind::Proc => {
                let pid = proxy.get(NsKind::Pid);
                (Origin::Proc(pid), self.owner(pid))
            }
            MountKind::Sysfs => {
                let net = proxy.get(NsKind::Net);
                (Origin::Sysfs(net), self.owner(net))
            }
            MountKind::Mqueue => {
                let ipc = proxy.get(NsKind::Ipc);
                (Origin::Mqueue(ipc), self.owner(ipc))
            }
            kind => (Origin::New(kind), self.process(me).creds.user),
        };
        // Without the capability sysfs and procfs are refused before and after the options, with one errno.
        are_known(kind, options)?;
        if !self.may(me, over, cap::SYS_ADMIN) || self.is_too_revealing(me, origin, attributes) {
            return Err(Errno::EPERM);
        }
        if kind == MountKind::Overlay && !names(options).any(|name| name == b"lowerdir") {
            return Err(Errno::EINVAL);
        }
        let place = self.top(place);
        if !self.is_own_mount(me, place.mount) {
            return Err(Errno::EINVAL);
        }
        let is_shared = matches!(origin, Origin::Sysfs(_) | Origin::Mqueue(_));
        if is_shared && self.origin(place.mount) == origin && self.is_mount_root(&place) {
            return Err(Errno::EBUSY);
        }
        let home = Home::Namespace(proxy.get(NsKind::Mnt));
        self.add_mount(origin, Some(place), home, attributes);
        Ok(())
    }

    /// Returns whether a mount of a procfs or sysfs would show more than those in the mount namespace, which
    /// only the first user namespace may (`mount_too_revealing`).
    fn is_too_revealing(&self, me: Task, origin: Origin, attributes: u64) -> bool {
        let mnt = self.process(me).ns.get(NsKind::Mnt);
        let is_proc = match origin {
            _ if self.owner(mnt) == NsId(0) => return false,
            Origin::Proc(_) => true,
            Origin::Sysfs(_) => false,
            _ => return false,
        };
        let shows = |index: usize| {
            let mount = &self.mounts[index];
            let same = match self.origin(index) {
                Origin::Proc(_) => is_proc && !self.settings.proc_masked,
                Origin::Sysfs(_) => !is_proc,
                _ => false,
            };
            let locked = mount.locked_attributes & MountAttributes::RDONLY;
            // The machine's own mounts are on no directory that is always empty.
            let covers = |child: &Mounted| child.parent.as_ref().is_some_and(|at| at.mount == index);
            let is_covered = self.mounts.iter().any(|child| child.locked && covers(child));
            same && !is_covered
                && mount.home == Home::Namespace(mnt)
                && mount.root.is_empty()
                && locked & !attributes == 0
        };
        !(0..self.mounts.len()).any(shows)
    }
}

/// Returns whether a path is `folder` or below it.
pub(super) fn is_within(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Returns the attributes with which `Sys::mount_here` mounts.
pub(super) const fn attributes_of(kind: MountKind) -> u64 {
    use MountAttributes as Attributes;
    match kind {
        MountKind::Tmpfs | MountKind::Overlay => Attributes::NOSUID | Attributes::NODEV,
        MountKind::Proc | MountKind::Mqueue => Attributes::NOSUID | Attributes::NODEV | Attributes::NOEXEC,
        MountKind::Sysfs => LOCKABLE,
        MountKind::Devpts => Attributes::NOSUID | Attributes::NOEXEC,
    }
}

fn names(options: &[u8]) -> impl Iterator<Item = &[u8]> {
    let name = |option: &[u8]| option.iter().position(|byte| *byte == b'=').unwrap_or(option.len());
    options
        .split(|byte| *byte == b',')
        .filter(|option| !option.is_empty())
        .map(move |option| &option[..name(option)])
}

/// Fails with `EINVAL` if the file system does not have one of the options. Their values are not checked.
fn are_known(kind: MountKind, options: &[u8]) -> SysResult<()> {
    let own: &[&[u8]] = match kind {
        MountKind::Tmpfs => {
            &[b"size", b"nr_blocks", b"nr_inodes", b"mode", b"uid", b"gid", b"huge", b"mpol", b"noswap"]
        }
        MountKind::Proc => &[b"hidepid", b"gid", b"subset"],
        MountKind::Devpts => &[b"newinstance", b"ptmxmode", b"mode", b"uid", b"gid", b"max"],
        MountKind::Overlay => &[
            b"lowerdir",
            b"lowerdir+",
            b"datadir+",
            b"upperdir",
            b"workdir",
            b"index",
            b"metacopy",
            b"redirect_dir",
            b"userxattr",
            b"volatile",
            b"xino",
            b"nfs_export",
            b"uuid",
            b"default_permissions",
        ],
        MountKind::Sysfs | MountKind::Mqueue => &[],
    };
    let of_all: [&[u8]; 3] = [b"ro", b"rw", b"source"];
    let known = |name: &[u8]| own.contains(&name) || of_all.contains(&name);
    if names(options).all(known) { Ok(()) } else { Err(Errno::EINVAL) }
}
