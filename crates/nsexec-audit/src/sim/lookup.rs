//! Path lookup in the tree of mounts (path_resolution(7)).

use std::collections::VecDeque;
use std::format;
use std::rc::Rc;
use std::string::{String, ToString};

use super::descriptors::Object;
use super::files::executable;
use super::kernel::Kernel;
use super::mounts::{Entry, Origin, Place};
use super::namespaces::NsId;
use super::process::Task;
use super::procfs::{Extra, Node, Walked};
use nsexec::sys::types::{Errno, Fd, MountAttributes, MountKind, SysResult};

/// The number of symbolic links that a lookup follows (path_resolution(7)).
const MAX_LINKS: usize = 40;

/// The result of a lookup.
pub(super) struct Found {
    pub(super) place: Place,
    pub(super) is_directory: bool,
    /// True if the path crosses a mount point.
    pub(super) crosses: bool,
    /// The file, if it is in a procfs.
    pub(super) in_proc: Option<Walked>,
}

impl Kernel {
    /// Looks up a path from `start`. A link or `..` does not lead out of `root`.
    ///
    /// Errors: `ENOENT`. `ENOTDIR`: a part of the path is a file. `ELOOP`: too many symbolic links.
    pub(super) fn look_up(&self, me: Task, root: &Place, start: &Place, path: &str) -> SysResult<Found> {
        if path.is_empty() {
            return Err(Errno::ENOENT);
        }
        let parts = |path: &str| -> VecDeque<String> {
            path.split('/').filter(|part| !part.is_empty()).map(ToString::to_string).collect()
        };
        let mut at = if path.starts_with('/') { root.clone() } else { start.clone() };
        let (mut rest, mut links) = (parts(path), 0);
        let mut is_directory = self.is_directory(me, &at);
        let first = at.mount;
        let mut crosses = false;
        while let Some(part) = rest.pop_front() {
            if !is_directory {
                return Err(Errno::ENOTDIR);
            }
            if part == "." {
                continue;
            }
            if part == ".." {
                at = self.parent(at, root);
                crosses |= at.mount != first;
                continue;
            }
            if let Origin::Proc(seen_from) = self.origin(at.mount) {
                rest.push_front(part);
                let below: String = rest.iter().map(|part| format!("/{part}")).collect();
                let path = at.path.clone() + &below;
                let walked = self.in_proc(me, seen_from, path.trim_start_matches('/'))?;
                let is_directory = walked.node.is_directory();
                let place = self.top(Place { path, ..at });
                let crosses = crosses || walked.crosses;
                return Ok(Found { place, is_directory, crosses, in_proc: Some(walked) });
            }
            let child = Place { mount: at.mount, path: format!("{}/{part}", at.path) };
            match self.entry(&child)? {
                None => return Err(Errno::ENOENT),
                Some(Entry::Link(_)) if links == MAX_LINKS => return Err(Errno::ELOOP),
                Some(Entry::Link(target)) => {
                    links += 1;
                    if target.starts_with('/') {
                        at = root.clone();
                    }
                    let mut target = parts(&target);
                    target.append(&mut rest);
                    rest = target;
                }
                Some(_) => {
                    at = self.top(child);
                    is_directory = self.is_directory(me, &at);
                    crosses |= at.mount != first;
                }
            }
        }
        if path.ends_with('/') && !is_directory {
            return Err(Errno::ENOTDIR);
        }
        let in_proc = match self.origin(at.mount) {
            Origin::Proc(ns) if at.path.is_empty() => Some(Walked::within(Node::ProcRoot(ns))),
            _ => None,
        };
        Ok(Found { place: at, is_directory, crosses, in_proc })
    }

    /// Looks up a path for a call that opens or reads a file. Of the directories of the machine it finds only
    /// those that a test or a plan names.
    pub(super) fn walk(&self, me: Task, dir: Fd, path: &[u8]) -> SysResult<Walked> {
        let text = core::str::from_utf8(path).map_err(|_| Errno::ENOENT)?;
        let process = self.process(me);
        let start = match dir {
            _ if text.starts_with('/') => process.root.clone(),
            Fd::CWD => process.cwd.clone(),
            dir => match self.object(me, dir)? {
                Object::Tree(place, ..) => place.clone(),
                _ => return self.walk_from_file(me, dir, text),
            },
        };
        // A file that a test names has precedence, also below /proc.
        let at_root = text.starts_with('/') && self.origin(start.mount) == Origin::Machine;
        if let Some(named) = self.named(text).filter(|_| at_root && start.path.is_empty()) {
            return named.map(Walked::within);
        }
        let found = self.look_up(me, &process.root, &start, text)?;
        if let Some(walked) = found.in_proc {
            return Ok(Walked { crosses: found.crosses, ..walked });
        }
        let Place { mount, path } = &found.place;
        let on_disk = self.origin(*mount) == Origin::Machine;
        let named = self.named(path).filter(|_| on_disk);
        let node = match named {
            Some(Ok(Node::Extra(Extra::Directory))) => Node::Place(found.place, true),
            Some(named) => named?,
            None if !on_disk || path.is_empty() || self.is_created(&found.place) => {
                Node::Place(found.place, found.is_directory)
            }
            // Of the directories that nothing names, an open finds only these.
            None if path == "/proc" || path == "/sys" => Node::Extra(Extra::Directory),
            None => return Err(self.missing_path_errno(path)),
        };
        Ok(Walked { node, crosses: found.crosses, magic: false })
    }

    /// Returns the file that a test or a plan names, or that a process made, at a path of the machine.
    fn named(&self, path: &str) -> Option<SysResult<Node>> {
        match self.files.get(path) {
            Some(Extra::Hidden) => return Some(Err(Errno::EACCES)),
            Some(Extra::NotPermitted) => return Some(Err(Errno::EPERM)),
            Some(Extra::Missing) => return Some(Err(Errno::ENOENT)),
            Some(Extra::Directory | Extra::Symlink(_)) if !path.starts_with("/proc/") => return None,
            Some(extra) => return Some(Ok(Node::Extra(extra.clone()))),
            None => {}
        }
        if self.programs.contains_key(path) {
            return Some(Ok(Node::Extra(Extra::Regular(Rc::from(executable(path))))));
        }
        self.names.get(path).map(|index| Ok(Node::Made(*index)))
    }

    /// Returns the directory above a place.
    fn parent(&self, mut at: Place, root: &Place) -> Place {
        loop {
            if at == *root {
                return at;
            }
            if !self.is_mount_root(&at) {
                at.path.truncate(at.path.rfind('/').unwrap_or(0));
                return self.top(at);
            }
            match &self.mounts[at.mount].parent {
                Some(parent) => at = parent.clone(),
                None => return at,
            }
        }
    }

    pub(super) fn is_directory(&self, me: Task, place: &Place) -> bool {
        match self.origin(place.mount) {
            _ if place.path.is_empty() => true,
            Origin::Proc(ns) => self
                .in_proc(me, ns, place.path.trim_start_matches('/'))
                .is_ok_and(|walked| walked.node.is_directory()),
            _ => matches!(self.entry(place), Ok(Some(Entry::Directory))),
        }
    }

    /// Checks that the file of a program is below the root of the process. On the disks of the machine each
    /// path is.
    ///
    /// Errors: those of the path. `EACCES`: the mount is noexec.
    pub(super) fn check_reachable(&self, me: Task, path: &str) -> SysResult<()> {
        let root = &self.process(me).root;
        let is_plain = self.origin(root.mount) == Origin::Machine && root.path.is_empty();
        match self.look_up(me, root, root, path) {
            Err(errno) if !is_plain => Err(errno),
            Ok(found) if self.mounts[found.place.mount].attributes & MountAttributes::NOEXEC != 0 => {
                Err(Errno::EACCES)
            }
            _ => Ok(()),
        }
    }

    /// Returns whether a test, a plan or the run created a directory here.
    pub(super) fn is_created(&self, place: &Place) -> bool {
        let file_system = &self.file_systems[self.mounts[place.mount].file_system];
        file_system.entries.contains_key(&place.path)
            || matches!(self.files.get(&place.path), Some(Extra::Directory))
    }

    /// Returns the pid namespace whose processes the /proc of a process shows, if it has a /proc.
    pub(super) fn proc_pid_ns(&self, me: Task) -> Option<NsId> {
        match self.origin(self.proc_place(me)?.mount) {
            Origin::Proc(ns) => Some(ns),
            _ => None,
        }
    }

    /// Returns the root of the procfs at /proc, as a process sees it, if one is mounted there.
    pub(super) fn proc_place(&self, me: Task) -> Option<Place> {
        let root = &self.process(me).root;
        // No directory of a procfs has an entry `proc`. A lookup there would ask for this place again.
        if matches!(self.origin(root.mount), Origin::Proc(_)) {
            return None;
        }
        let place = self.look_up(me, root, root, "/proc").ok()?.place;
        let is_proc = matches!(self.origin(place.mount), Origin::Proc(_)) && place.path.is_empty();
        is_proc.then_some(place)
    }

    /// Returns the entry at a place, or `None` if it does not exist. On the disks of the machine, and in the
    /// file systems whose content is not modelled, a path that nothing names is a directory.
    pub(super) fn entry(&self, place: &Place) -> SysResult<Option<Entry>> {
        let file_system = &self.file_systems[self.mounts[place.mount].file_system];
        if let Some(entry) = file_system.entries.get(&place.path) {
            return Ok(Some(entry.clone()));
        }
        let devpts = Origin::New(MountKind::Devpts);
        match file_system.origin {
            _ if place.path.is_empty() => Ok(Some(Entry::Directory)),
            Origin::Machine => self.on_disk(&place.path),
            Origin::Sysfs(_) | Origin::New(MountKind::Overlay) => Ok(Some(Entry::Directory)),
            origin if origin == devpts && place.path == "/ptmx" => Ok(Some(Entry::File)),
            _ => Ok(None),
        }
    }

    /// Returns the entry at a path on the disks of the machine, as far as a test or a plan names it.
    fn on_disk(&self, path: &str) -> SysResult<Option<Entry>> {
        match self.files.get(path) {
            Some(Extra::Hidden) => Err(Errno::EACCES),
            Some(Extra::NotPermitted) => Err(Errno::EPERM),
            Some(Extra::Missing) => Ok(None),
            Some(Extra::Directory) => Ok(Some(Entry::Directory)),
            Some(Extra::Symlink(target)) => Ok(Some(Entry::Link(target.clone()))),
            Some(_) => Ok(Some(Entry::File)),
            None if self.programs.contains_key(path) || self.names.contains_key(path) => {
                Ok(Some(Entry::File))
            }
            None => Ok(Some(Entry::Directory)),
        }
    }
}
