//! The calls that build the tree of files and mounts for the command, or change the place of a process in it
//! (open_tree(2), move_mount(2), mount_setattr(2), mount(2), pivot_root(2), umount(2), chroot(2), chdir(2)).

use std::format;
use std::string::ToString;

use super::creds::cap;
use super::descriptors::{Access, Object};
use super::kernel::{Halt, Kernel};
use super::mounts::{Entry, Home, Mounted, Origin, Place, attributes_of};
use super::process::Task;
use super::procfs::{Extra, Node};
use crate::record::{Call, Reply};
use nsexec::namespace::NsKind;
use nsexec::sys::types::{Errno, Fd, Mount, MountAttributes, MountKind, OpenFlags, SysResult};

impl Kernel {
    /// Implements the calls that change the tree of files and mounts, or the place of the process in it.
    pub(super) fn tree(&mut self, me: Task, call: &Call) -> Result<Reply, Halt> {
        let unit = |()| Reply::Unit;
        Ok(match call {
            Call::Chdir { path } => unit(self.chdir(me, &path.0)?),
            Call::Fchdir { dir } => unit(self.fchdir(me, *dir)?),
            Call::OpenTree { path, recursive } => Reply::Fd(self.open_tree(me, &path.0, *recursive)?),
            Call::MoveMount { mount, target } => unit(self.move_mount(me, *mount, *target)?),
            Call::SetMountAttributes { mount, recursive, attributes } => {
                unit(self.set_mount_attributes(me, *mount, *recursive, *attributes)?)
            }
            Call::MountHere { kind, options } => {
                self.may_mount(me)?;
                let here = self.process(me).cwd.clone();
                unit(self.mount_new(me, (*kind, attributes_of(*kind)), &options.0, here)?)
            }
            Call::OpenInRoot { root, path, flags } => {
                Reply::Fd(self.open_in_root(me, *root, &path.0, *flags)?)
            }
            Call::Mkdirat { dir, name, .. } => {
                unit(self.create_entry(me, *dir, &name.0, Entry::Directory)?)
            }
            Call::Symlinkat { target, dir, name } => {
                let target = text(&target.0)?;
                if target.is_empty() {
                    return Err(Errno::ENOENT.into());
                }
                unit(self.create_entry(me, *dir, &name.0, Entry::Link(target.to_string()))?)
            }
            Call::PivotRootHere => unit(self.pivot_root_here(me)?),
            Call::DetachHere => unit(self.detach_here(me)?),
            Call::ChrootHere => unit(self.chroot_here(me)?),
            other => panic!("{other} is not a call that changes the tree"),
        })
    }

    /// Implements mount(2) for the mounts of the launcher's stage 2.
    ///
    /// Errors: `EPERM`: the process lacks CAP_SYS_ADMIN over the owner of the mount namespace. For a new
    /// /proc or /sys, also those of [`mount_new`](Self::mount_new). `EINVAL`: the root is not a mount.
    pub(super) fn mount(&mut self, me: Task, mount: Mount) -> SysResult<()> {
        let place = match mount {
            Mount::Propagation(_) => self.process(me).root.clone(),
            Mount::Proc => self.locate(me, b"/proc")?.place,
            Mount::Sysfs { .. } => self.locate(me, b"/sys")?.place,
        };
        self.may_mount(me)?;
        match mount {
            Mount::Proc => self.mount_new(me, (MountKind::Proc, attributes_of(MountKind::Proc)), b"", place),
            Mount::Sysfs { read_only } => {
                let read_only = if read_only { 0 } else { MountAttributes::RDONLY };
                let attributes = attributes_of(MountKind::Sysfs) & !read_only;
                self.mount_new(me, (MountKind::Sysfs, attributes), b"", place)
            }
            Mount::Propagation(_)
                if self.is_root_of_mount(me, &place) && self.is_own_mount(me, place.mount) =>
            {
                Ok(())
            }
            Mount::Propagation(_) => Err(Errno::EINVAL),
        }
    }

    /// Returns the place of a descriptor: `None` for a file that has no place in the tree.
    ///
    /// Errors: `EBADF`: the descriptor is not open.
    pub(super) fn place_of(&self, me: Task, fd: Fd) -> SysResult<Option<Place>> {
        if fd == Fd::CWD {
            return Ok(Some(self.process(me).cwd.clone()));
        }
        let in_proc = |path| {
            let mnt = Home::Namespace(self.process(me).ns.get(NsKind::Mnt));
            let is_proc = |index: &usize| matches!(self.origin(*index), Origin::Proc(_));
            let mount =
                (0..self.mounts.len()).rev().find(|index| self.mounts[*index].home == mnt && is_proc(index));
            mount.map(|mount| Place { mount, path })
        };
        Ok(match self.object(me, fd)? {
            Object::Tree(place, ..) => Some(place.clone()),
            Object::ProcRoot(_) => in_proc("".into()),
            Object::ProcDir(task, _) | Object::FdList(task, _) => {
                let number = self.process(*task).numbers.first().map_or(0, |(_, pid)| pid.0);
                in_proc(format!("/{number}"))
            }
            _ => None,
        })
    }

    fn locate(&self, me: Task, path: &[u8]) -> SysResult<super::lookup::Found> {
        let process = self.process(me);
        self.look_up(me, &process.root, &process.cwd, text(path)?)
    }

    fn chdir(&mut self, me: Task, path: &[u8]) -> SysResult<()> {
        // A directory of /proc that only a plan names has no place in the tree.
        let named = core::str::from_utf8(path).ok().filter(|path| path.starts_with("/proc/"));
        if named.is_some_and(|path| matches!(self.files.get(path), Some(Extra::Directory))) {
            return Ok(());
        }
        let found = self.locate(me, path)?;
        if !found.is_directory {
            return Err(Errno::ENOTDIR);
        }
        self.process_mut(me).cwd = found.place;
        Ok(())
    }

    /// Implements fchdir(2). Of the directories outside of the tree only those of /proc are modelled.
    fn fchdir(&mut self, me: Task, dir: Fd) -> SysResult<()> {
        self.slot(me, dir)?;
        let place = self.place_of(me, dir)?.filter(|place| self.is_directory(me, place));
        self.process_mut(me).cwd = place.ok_or(Errno::ENOTDIR)?;
        Ok(())
    }

    /// Implements open_tree(2) with OPEN_TREE_CLONE.
    ///
    /// Errors: `EPERM`. Those of the path. `EINVAL`: the mount is not in the process's mount namespace, or,
    /// without `recursive`, a locked mount is below the place (`has_locked_children`).
    fn open_tree(&mut self, me: Task, path: &[u8], recursive: bool) -> SysResult<Fd> {
        self.may_mount(me)?;
        let place = self.locate(me, path)?.place;
        let hides = !recursive && self.mounts_below(&place).iter().any(|index| self.mounts[*index].locked);
        if !self.is_own_mount(me, place.mount) || hides {
            return Err(Errno::EINVAL);
        }
        self.free_number(me)?;
        let mount = self.copy_mounts(&place, recursive, Home::Copy);
        let place = Place { mount, path: place.path };
        let is_directory = self.is_directory(me, &place);
        self.install(me, Object::Tree(place, is_directory, Access::PathOnly), true)
    }

    /// Implements move_mount(2) between two descriptors. Before Linux 6.15 a copy could not be attached to
    /// another copy that is attached nowhere; the model refuses it too.
    ///
    /// Errors: `EPERM`. `EBADF`. `EINVAL`: the first descriptor is not the root of a mount, its mount is
    /// locked, one of the two is a directory and the other is not, or the target is not in the process's
    /// mount namespace. `ELOOP`: the target is below the mount.
    fn move_mount(&mut self, me: Task, mount: Fd, target: Fd) -> SysResult<()> {
        self.may_mount(me)?;
        let target = self.place_of(me, target)?;
        let moved = self.place_of(me, mount)?;
        let (target, moved) = (target.ok_or(Errno::EINVAL)?, moved.ok_or(Errno::EINVAL)?);
        let Mounted { home, locked, parent, .. } = self.mounts[moved.mount].clone();
        let is_movable = match home {
            Home::Copy => parent.is_none(),
            Home::Namespace(_) => self.is_own_mount(me, moved.mount) && !locked && parent.is_some(),
            Home::Gone => false,
        };
        let target = self.top(target);
        let same_type = self.is_directory(me, &moved) == self.is_directory(me, &target);
        if !is_movable || !self.is_mount_root(&moved) || !self.is_own_mount(me, target.mount) || !same_type {
            return Err(Errno::EINVAL);
        }
        if self.is_mount_below(target.mount, moved.mount) {
            return Err(Errno::ELOOP);
        }
        self.attach(me, moved.mount, target);
        Ok(())
    }

    /// Implements mount_setattr(2) of a descriptor.
    ///
    /// Errors: `EPERM`: no privilege, or a locked attribute would be cleared. `EINVAL`: an unknown attribute,
    /// or the descriptor is not the root of a mount that the process may change.
    fn set_mount_attributes(
        &mut self,
        me: Task,
        mount: Fd,
        recursive: bool,
        attributes: MountAttributes,
    ) -> SysResult<()> {
        self.may_mount(me)?;
        let MountAttributes { set, clear } = attributes;
        if set | clear == 0 {
            return Ok(());
        }
        // The other attributes of mount_setattr(2) are not modelled.
        let known = MountAttributes::RDONLY
            | MountAttributes::NOSUID
            | MountAttributes::NODEV
            | MountAttributes::NOEXEC;
        if (set | clear) & !known != 0 {
            return Err(Errno::EINVAL);
        }
        let place = self.place_of(me, mount)?.ok_or(Errno::EINVAL)?;
        let is_root_of_copy =
            self.mounts[place.mount].home == Home::Copy && self.mounts[place.mount].parent.is_none();
        if !self.is_mount_root(&place) || !is_root_of_copy && !self.is_own_mount(me, place.mount) {
            return Err(Errno::EINVAL);
        }
        let changed = match recursive {
            true => self.subtree(place.mount),
            false => std::vec![place.mount],
        };
        let new = |mount: &Mounted| mount.attributes & !clear | set;
        if changed.iter().map(|index| &self.mounts[*index]).any(|m| m.locked_attributes & !new(m) != 0) {
            return Err(Errno::EPERM);
        }
        for index in changed {
            self.mounts[index].attributes = new(&self.mounts[index]);
        }
        Ok(())
    }

    /// Implements openat2(2) with RESOLVE_IN_ROOT and RESOLVE_NO_MAGICLINKS.
    ///
    /// Errors: those of the path. `ELOOP`: a magic link. `EROFS`: a file to write on a read-only mount.
    fn open_in_root(&mut self, me: Task, root: Fd, path: &[u8], flags: OpenFlags) -> SysResult<Fd> {
        let path = text(path)?;
        let root = self.place_of(me, root)?.ok_or(Errno::ENOTDIR)?;
        if path.is_empty() {
            return Err(Errno::ENOENT);
        }
        if !self.is_directory(me, &root) {
            return Err(Errno::ENOTDIR);
        }
        if matches!(flags, OpenFlags::New) {
            let place = self.create_at(me, &root, &root, path, Entry::File)?;
            return self.install(me, Object::Tree(place, false, Access::Both), true);
        }
        let found = self.look_up(me, &root, &root, path)?;
        if found.in_proc.as_ref().is_some_and(|walked| walked.magic) {
            return Err(Errno::ELOOP);
        }
        match found.in_proc {
            Some(walked) if !found.is_directory => self.install_node(me, walked.node, flags),
            _ => self.install_node(me, Node::Place(found.place, found.is_directory), flags),
        }
    }

    /// Implements mkdirat(2) and symlinkat(2).
    fn create_entry(&mut self, me: Task, dir: Fd, name: &[u8], entry: Entry) -> SysResult<()> {
        let name = text(name)?;
        let root = self.process(me).root.clone();
        if name.is_empty() {
            return Err(Errno::ENOENT);
        }
        let start = match name.starts_with('/') {
            true => root.clone(),
            false => self.place_of(me, dir)?.ok_or(Errno::ENOTDIR)?,
        };
        self.create_at(me, &root, &start, name, entry).map(|_| ())
    }

    /// Creates an entry, and returns its place. The permissions of directories are not modelled.
    ///
    /// Errors: those of the path. `EEXIST`. `EROFS`: the mount is read-only. `ENOENT`: a procfs.
    pub(super) fn create_at(
        &mut self,
        me: Task,
        root: &Place,
        start: &Place,
        path: &str,
        entry: Entry,
    ) -> SysResult<Place> {
        let name = path.trim_end_matches('/');
        let (above, last) = name.rsplit_once('/').map_or((".", name), |(above, last)| match above {
            "" => ("/", last),
            above => (above, last),
        });
        let folder = self.look_up(me, root, start, above)?;
        if !folder.is_directory {
            return Err(Errno::ENOTDIR);
        }
        if matches!(last, "" | "." | "..") {
            return Err(Errno::EEXIST);
        }
        let place = Place { path: format!("{}/{last}", folder.place.path), ..folder.place };
        let exists = match self.origin(place.mount) {
            Origin::Proc(ns) => self.in_proc(me, ns, place.path.trim_start_matches('/')).is_ok(),
            _ => self.entry(&place)?.is_some(),
        };
        if exists {
            return Err(Errno::EEXIST);
        }
        if name.len() < path.len() && entry != Entry::Directory {
            return Err(Errno::ENOENT);
        }
        // The lookup of a name that procfs does not have fails, also for a creation (proc_lookup).
        if let Origin::Proc(_) = self.origin(place.mount) {
            return Err(Errno::ENOENT);
        }
        if self.is_read_only_mount(place.mount) {
            return Err(Errno::EROFS);
        }
        let file_system = self.mounts[place.mount].file_system;
        self.file_systems[file_system].entries.insert(place.path.clone(), entry);
        Ok(place)
    }

    pub(super) fn is_read_only_mount(&self, mount: usize) -> bool {
        self.mounts[mount].attributes & MountAttributes::RDONLY != 0
    }

    /// Implements pivot_root(".", ".").
    ///
    /// Errors: `EPERM`. `EBUSY`: the working directory is on the root mount. `EINVAL`: it is not the root of
    /// a mount, the root directory is not one, one of both mounts is not in the process's mount namespace,
    /// the new one is locked, or the old one is the initial ramfs.
    fn pivot_root_here(&mut self, me: Task) -> SysResult<()> {
        self.may_mount(me)?;
        let process = self.process(me);
        let (root, new) = (process.root.clone(), process.cwd.clone());
        let own = |place: &Place| self.is_own_mount(me, place.mount);
        if !own(&root) || !own(&new) || self.mounts[new.mount].locked {
            return Err(Errno::EINVAL);
        }
        if new.mount == root.mount {
            return Err(Errno::EBUSY);
        }
        let roots = self.is_root_of_mount(me, &root) && self.is_mount_root(&new);
        let above = self.mounts[root.mount].parent.clone();
        let (Some(above), true) = (above, roots && self.mounts[new.mount].parent.is_some()) else {
            return Err(Errno::EINVAL);
        };
        if !self.is_mount_below(new.mount, root.mount) {
            return Err(Errno::EINVAL);
        }
        let old = self.top(new.clone());
        self.mounts[new.mount].parent = Some(above);
        self.mounts[root.mount].parent = Some(old);
        self.mounts[new.mount].locked = core::mem::take(&mut self.mounts[root.mount].locked);
        // chroot_fs_refs: every process at the old root moves.
        for process in &mut self.processes {
            for place in [&mut process.root, &mut process.cwd] {
                if *place == root {
                    *place = new.clone();
                }
            }
        }
        Ok(())
    }

    /// Implements umount2(".", MNT_DETACH). It detaches the mount on top of the working directory.
    ///
    /// Errors: `EPERM`. `EINVAL`: it is not a mount of the process's mount namespace, or is locked.
    fn detach_here(&mut self, me: Task) -> SysResult<()> {
        let place = self.top(self.process(me).cwd.clone());
        self.may_mount(me)?;
        let mount = &self.mounts[place.mount];
        let is_detachable = self.is_mount_root(&place) && mount.parent.is_some() && !mount.locked;
        if !is_detachable || !self.is_own_mount(me, place.mount) {
            return Err(Errno::EINVAL);
        }
        self.detach(place.mount);
        Ok(())
    }

    /// Implements chroot(".").
    ///
    /// Errors: `EPERM`: no CAP_SYS_CHROOT in the user namespace of the process.
    fn chroot_here(&mut self, me: Task) -> SysResult<()> {
        if !self.may(me, self.process(me).creds.user, cap::SYS_CHROOT) {
            return Err(Errno::EPERM);
        }
        let process = self.process_mut(me);
        process.root = process.cwd.clone();
        Ok(())
    }
}

fn text(path: &[u8]) -> SysResult<&str> {
    if path.len() >= super::idmaps::PAGE {
        return Err(Errno::ENAMETOOLONG);
    }
    core::str::from_utf8(path).map_err(|_| Errno::ENOENT)
}
