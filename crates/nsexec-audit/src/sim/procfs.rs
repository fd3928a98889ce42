//! Path lookup, and the files of /proc that matter (proc(5), docs/protocol.md#id-maps,
//! docs/protocol.md#dumpable, docs/protocol.md#oom_score_adj, docs/protocol.md#errors-by-call).

use std::rc::Rc;
use std::string::String;
use std::vec::Vec;

use super::creds::{Creds, cap};
use super::descriptors::{Access, Object, TMPFS};
use super::files::{Exe, executable};
use super::idmaps::PAGE;
use super::kernel::{HidePid, Kernel};
use super::mounts::Place;
use super::namespaces::NsId;
use super::process::Task;
use nsexec::namespace::NsKind;
use nsexec::sys::types::{Errno, Fd, FsType, OpenFlags, SysResult};

/// A file of /proc/PID that processes read or write, as fs/proc/base.c lists them (struct pid_entry).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PidEntry {
    UidMap,
    GidMap,
    Setgroups,
    TimensOffsets,
    OomScoreAdj,
    Cmdline,
    Stat,
    /// The fdinfo of a descriptor.
    FdInfo(i32),
}

/// The file to which a path leads.
pub(super) enum Node {
    /// /proc, with the pid namespace whose processes it shows.
    ProcRoot(NsId),
    Dir(Task),
    File(Task, PidEntry),
    Ns(Task, NsKind, bool),
    FdDir(Task),
    TaskDir,
    Extra(Extra),
    /// A file that a process made.
    Made(usize),
    /// The object of a descriptor in /proc/PID/fd.
    Opened(Object),
    /// The program file of a process, at /proc/PID/exe.
    Exe(Rc<[u8]>),
    /// Another place in the tree of mounts, and whether it is a directory.
    Place(Place, bool),
}

impl Node {
    pub(super) fn is_directory(&self) -> bool {
        matches!(
            self,
            Self::ProcRoot(_)
                | Self::Dir(_)
                | Self::FdDir(_)
                | Self::TaskDir
                | Self::Extra(Extra::Directory)
                | Self::Place(_, true)
        )
    }
}

/// The result of a path lookup.
pub(super) struct Walked {
    pub(super) node: Node,
    /// True if the path crosses a mount point.
    pub(super) crosses: bool,
    /// True if the path ends in a magic link of procfs, whose target is not a path (symlink(7)).
    pub(super) magic: bool,
}

impl Walked {
    pub(super) fn within(node: Node) -> Self {
        Self { node, crosses: false, magic: false }
    }
}

/// A file that a test adds to the machine.
#[derive(Clone, Debug)]
pub enum Extra {
    /// A namespace, bound to a path as `ip netns` does.
    Namespace(NsId),
    /// A named pipe, on which a plain open would block for ever.
    Fifo,
    /// A regular file with this content.
    Regular(Rc<[u8]>),
    /// A directory.
    Directory,
    /// A symbolic link to this path.
    Symlink(String),
    /// A file that no process may open (EACCES).
    Forbidden,
    /// A file in a directory that no process may search: every lookup fails (EACCES).
    Hidden,
    /// A file of a process that /proc hides (EPERM).
    NotPermitted,
    /// A path that does not exist (ENOENT), even if it names a simulated process in /proc.
    Missing,
}

impl Kernel {
    /// Implements openat(2).
    pub(super) fn openat(&mut self, me: Task, dir: Fd, path: &[u8], flags: OpenFlags) -> SysResult<Fd> {
        if path.len() >= PAGE {
            return Err(Errno::ENAMETOOLONG);
        }
        if matches!(flags, OpenFlags::Unnamed | OpenFlags::New) {
            return self.open_new(me, path, flags);
        }
        let node = self.resolve(me, dir, path)?;
        self.install_node(me, node, flags)
    }

    /// Implements openat2(2) with RESOLVE_NO_XDEV and RESOLVE_NO_MAGICLINKS.
    ///
    /// Errors: `EXDEV`: the path crosses a mount point, which may be that of /proc. `ELOOP`: the path ends in
    /// a link to a program, a descriptor or a namespace.
    pub(super) fn openat2(&mut self, me: Task, dir: Fd, path: &[u8], flags: OpenFlags) -> SysResult<Fd> {
        if path.len() >= PAGE {
            return Err(Errno::ENAMETOOLONG);
        }
        let walked = self.walk(me, dir, path)?;
        if walked.crosses {
            return Err(Errno::EXDEV);
        }
        if walked.magic {
            // The link checks the permission before the lookup fails.
            if let Node::Ns(task, kind, for_children) = walked.node {
                self.follow_ns(me, task, kind, for_children)?;
            }
            return Err(Errno::ELOOP);
        }
        self.install_node(me, walked.node, flags)
    }

    pub(super) fn install_node(&mut self, me: Task, node: Node, flags: OpenFlags) -> SysResult<Fd> {
        let object = match (flags, self.open_node(me, node, flags)?) {
            (OpenFlags::Directory, Object::ProcDir(task, _)) => Object::ProcDir(task, Access::PathOnly),
            (OpenFlags::Directory, Object::FdList(task, _)) => Object::FdList(task, Access::PathOnly),
            // These objects record their access mode themselves.
            (OpenFlags::Directory | OpenFlags::Path, object @ Object::ProcRoot(_)) => object,
            (_, Object::Tree(place, is_directory, _)) => {
                Object::Tree(place, is_directory, made_access(flags))
            }
            (OpenFlags::Path, object @ Object::Made(..)) => object,
            (OpenFlags::Directory | OpenFlags::Path, object) => Object::PathOnly(object.fs_type()),
            (_, object) => object,
        };
        self.install(me, object, true)
    }

    /// Implements newfstatat(2), of which the number of links: /proc/self/task has two, and one for each
    /// thread.
    pub(super) fn link_count(&self, me: Task, path: &[u8]) -> SysResult<u64> {
        Ok(match self.resolve(me, Fd::CWD, path)? {
            Node::TaskDir => 3,
            Node::ProcRoot(_) | Node::Dir(_) | Node::FdDir(_) | Node::Extra(Extra::Directory) => 2,
            Node::Place(_, true) => 2,
            Node::Made(index) | Node::Opened(Object::Made(index, _)) => self.made_links(index),
            _ => 1,
        })
    }

    /// Implements readlink(2) of /proc/self, in the pid namespace of the mounted /proc. The link does not
    /// exist if the process is not visible in that namespace (proc_self_get_link). Other symlinks are not
    /// modelled; reading one returns EINVAL.
    pub(super) fn readlink(&self, me: Task, path: &[u8], len: usize) -> SysResult<Vec<u8>> {
        if len == 0 {
            return Err(Errno::EINVAL);
        }
        if path != b"/proc/self" {
            return self.resolve(me, Fd::CWD, path).and(Err(Errno::EINVAL));
        }
        let number = self.proc_pid_ns(me).and_then(|ns| self.number(me, ns)).ok_or(Errno::ENOENT)?;
        let mut text = std::format!("{number}").into_bytes();
        text.truncate(len);
        Ok(text)
    }

    /// Implements statfs(2), of which ST_RDONLY. No mount of the machine is read-only.
    pub(super) fn is_read_only(&self, me: Task, path: &[u8]) -> SysResult<bool> {
        match self.resolve(me, Fd::CWD, path)? {
            Node::Place(place, _) => Ok(self.is_read_only_mount(place.mount)),
            _ => Ok(false),
        }
    }

    pub(super) fn resolve(&self, me: Task, dir: Fd, path: &[u8]) -> SysResult<Node> {
        self.walk(me, dir, path).map(|walked| walked.node)
    }

    /// Looks up a path below a descriptor of a file that has no place in the tree of mounts.
    pub(super) fn walk_from_file(&self, me: Task, dir: Fd, text: &str) -> SysResult<Walked> {
        if text.is_empty() {
            return Err(Errno::ENOENT);
        }
        match *self.object(me, dir)? {
            Object::ProcRoot(seen_from) => self.in_proc(me, seen_from, text),
            // An open directory outlives its task and then returns ESRCH (docs/protocol.md#errors-by-call).
            Object::ProcDir(task, _) if self.process(task).is_reaped() => Err(Errno::ESRCH),
            Object::ProcDir(task, _) => {
                self.permit_lookup(self.is_hidden(me, task), text)?;
                self.in_process(me, task, text)
            }
            Object::FdList(task, _) if !self.may_list_fds(me, task) => Err(Errno::EACCES),
            Object::FdList(..) | Object::Directory(_) | Object::PathOnly(_) => Err(Errno::ENOENT),
            _ => Err(Errno::ENOTDIR),
        }
    }

    /// Looks up a path below /proc.
    pub(super) fn in_proc(&self, me: Task, seen_from: NsId, path: &str) -> SysResult<Walked> {
        let (who, rest) = path.split_once('/').unwrap_or((path, ""));
        let task = match who {
            "self" | "thread-self" => self.number(me, seen_from).map(|_| me),
            number => number.parse().ok().and_then(|pid| self.find(seen_from, pid)),
        };
        let task = task.ok_or(Errno::ENOENT)?;
        let directory = self.number(task, seen_from).map(|pid| std::format!("/proc/{pid}"));
        if let Some(what) = directory.and_then(|directory| self.binds.get(&directory)) {
            let path = if rest.is_empty() { what.clone() } else { std::format!("{what}/{rest}") };
            return self.walk(me, Fd::CWD, path.as_bytes());
        }
        let hidden = self.is_hidden(me, task);
        if self.settings.hidepid == HidePid::Ptraceable {
            let mut found = self.proc_found.borrow_mut();
            if hidden && !found.contains(&(seen_from, task)) {
                return Err(Errno::ENOENT);
            }
            found.insert((seen_from, task));
        }
        self.permit_lookup(hidden, rest)?;
        self.in_process(me, task, rest)
    }

    /// Looks up a path below /proc/PID.
    fn in_process(&self, me: Task, task: Task, rest: &str) -> SysResult<Walked> {
        let number = self.proc_pid_ns(me).and_then(|ns| self.number(task, ns));
        let bound = number.and_then(|pid| self.binds.get(&std::format!("/proc/{pid}/{rest}")));
        if let Some(what) = bound {
            return self.walk(me, Fd::CWD, what.as_bytes());
        }
        let magic = rest == "exe" || rest.starts_with("fd/") || rest.starts_with("ns/");
        Ok(Walked { node: self.proc_node(me, task, rest)?, crosses: false, magic })
    }

    /// Returns the errno for a missing path outside of /proc: `ENOTDIR` if one of its directories is a file,
    /// or else `ENOENT` (path_resolution(7)).
    pub(super) fn missing_path_errno(&self, path: &str) -> Errno {
        let no_folder = |folder: &str| match self.files.get(folder) {
            Some(file) => {
                !matches!(file, Extra::Directory | Extra::Hidden | Extra::NotPermitted | Extra::Missing)
            }
            None => self.programs.contains_key(folder),
        };
        let folders = path.match_indices('/').filter_map(|(end, _)| path.get(..end));
        if folders.into_iter().any(no_folder) { Errno::ENOTDIR } else { Errno::ENOENT }
    }

    /// Returns whether /proc hides a process from the caller (has_pid_permissions).
    fn is_hidden(&self, me: Task, task: Task) -> bool {
        // The group of the mount option gid is exempt. Only its default is modelled, root's group.
        let ours = &self.process(me).creds;
        let exempt = || ours.egid() == 0 || ours.groups.contains(&0);
        match self.settings.hidepid {
            HidePid::Off => false,
            HidePid::Ptraceable => !self.may_inspect(me, task),
            HidePid::NoAccess | HidePid::Invisible => !exempt() && !self.may_inspect(me, task),
        }
    }

    /// Checks a lookup in the directory of a process (proc_pid_permission). The directory itself can be
    /// looked up.
    fn permit_lookup(&self, hidden: bool, rest: &str) -> SysResult<()> {
        match self.settings.hidepid {
            _ if !hidden || rest.is_empty() => Ok(()),
            HidePid::Invisible => Err(Errno::ENOENT),
            _ => Err(Errno::EPERM),
        }
    }

    fn open_node(&self, me: Task, node: Node, flags: OpenFlags) -> SysResult<Object> {
        let writes = flags == OpenFlags::ReadWrite;
        // A link is followed before any other check.
        let namespace = match node {
            Node::Ns(task, kind, for_children) => Some(self.follow_ns(me, task, kind, for_children)?),
            Node::Extra(Extra::Namespace(ns)) => Some(ns),
            _ => None,
        };
        let directory = matches!(flags, OpenFlags::Directory | OpenFlags::List);
        let is_directory = node.is_directory();
        if directory && !is_directory {
            return Err(Errno::ENOTDIR);
        }
        if writes && is_directory {
            return Err(Errno::EISDIR);
        }
        match node {
            Node::ProcRoot(ns) => Ok(Object::ProcRoot(ns)),
            // Opening the directory with O_PATH needs no permission.
            Node::Dir(task) => {
                let held = matches!(flags, OpenFlags::Directory | OpenFlags::Path);
                self.permit_lookup(!held && self.is_hidden(me, task), ".")?;
                Ok(Object::ProcDir(task, Access::Read))
            }
            Node::FdDir(task) if flags == OpenFlags::Directory || self.may_list_fds(me, task) => {
                Ok(Object::FdList(task, Access::Read))
            }
            Node::FdDir(_) => Err(Errno::EACCES),
            Node::TaskDir => Ok(Object::Directory(FsType::PROC)),
            Node::File(task, file) => self.open_proc(me, task, file, writes),
            Node::Ns(..) | Node::Extra(Extra::Namespace(_)) if writes => Err(Errno::EPERM),
            Node::Ns(..) | Node::Extra(Extra::Namespace(_)) => {
                namespace.map(Object::Namespace).ok_or(Errno::ENOENT)
            }
            Node::Made(index) | Node::Opened(Object::Made(index, _)) => {
                Ok(Object::Made(index, made_access(flags)))
            }
            // A process is running this file.
            Node::Exe(_) if writes => Err(Errno::ETXTBSY),
            Node::Exe(content) => Ok(Object::Regular(content)),
            // Opening another process's descriptor again is not modelled.
            Node::Opened(_) => Err(Errno::ENXIO),
            Node::Extra(Extra::Fifo) => Ok(Object::Fifo),
            Node::Extra(Extra::Regular(content)) => Ok(Object::Regular(content)),
            Node::Extra(Extra::Directory) => Ok(Object::Directory(TMPFS)),
            Node::Extra(Extra::Forbidden | Extra::Hidden) => Err(Errno::EACCES),
            Node::Extra(Extra::NotPermitted) => Err(Errno::EPERM),
            Node::Extra(Extra::Missing | Extra::Symlink(_)) => Err(Errno::ENOENT),
            Node::Place(place, _) if writes && self.is_read_only_mount(place.mount) => Err(Errno::EROFS),
            Node::Place(place, is_directory) => Ok(Object::Tree(place, is_directory, Access::Read)),
        }
    }

    /// Returns the owner and the group of the files in /proc/PID: the task's effective ids if the task is
    /// dumpable, and root of its memory's user namespace if it is not. If the task has no memory any more,
    /// they are root (task_dump_owner).
    fn owner_of_files(&self, task: Task) -> (u32, u32) {
        let target = self.process(task);
        let memory = self.user(target.mm_user);
        match (target.is_alive(), target.dumpable) {
            (true, true) => (target.creds.euid(), target.creds.egid()),
            (true, false) => {
                (memory.uid_map.to_kernel(0).unwrap_or(0), memory.gid_map.to_kernel(0).unwrap_or(0))
            }
            (false, _) => (0, 0),
        }
    }

    /// Returns whether the caller may list and search /proc/PID/fd, which has mode 0500. A process may always
    /// do so with its own (proc_fd_permission).
    fn may_list_fds(&self, me: Task, task: Task) -> bool {
        let ours = &self.process(me).creds;
        let (owner, group) = self.owner_of_files(task);
        task == me || ours.euid() == owner || self.overrides(ours, owner, group)
    }

    /// Opens a file of /proc/PID, which has mode 0644.
    fn open_proc(&self, me: Task, task: Task, file: PidEntry, writes: bool) -> SysResult<Object> {
        let (ours, target) = (&self.process(me).creds, self.process(task));
        let (owner, group) = self.owner_of_files(task);
        // The stat file is read-only for every user.
        if writes
            && (ours.euid() != owner || matches!(file, PidEntry::Stat | PidEntry::FdInfo(_)))
            && !self.overrides(ours, owner, group)
        {
            return Err(Errno::EACCES);
        }
        // The permissions of the file come first, those of the mount next, and the open of the file last
        // (do_dentry_open).
        if writes && self.proc_place(me).is_some_and(|place| self.is_read_only_mount(place.mount)) {
            return Err(Errno::EROFS);
        }
        let over = target.creds.user;
        // Only setgroups needs a further permission on opening (proc_setgroups_open).
        if file == PidEntry::Setgroups && writes && !self.capable(ours, over, cap::SYS_ADMIN) {
            return Err(Errno::EACCES);
        }
        let access = if writes { Access::Both } else { Access::Read };
        Ok(Object::Proc(task, file, over, access))
    }

    /// Returns whether CAP_DAC_OVERRIDE applies to a file. Its owner and group must be mapped in the caller's
    /// user namespace (capable_wrt_inode_uidgid).
    fn overrides(&self, ours: &Creds, owner: u32, group: u32) -> bool {
        let user = self.user(ours.user);
        let known = user.uid_map.shown_as(owner).is_some() && user.gid_map.shown_as(group).is_some();
        known && self.capable(ours, ours.user, cap::DAC_OVERRIDE)
    }

    /// Follows /proc/PID/ns/KIND.
    ///
    /// Errors: `EACCES`: the caller may not inspect the process (proc_ns_get_link).
    fn follow_ns(&self, me: Task, task: Task, kind: NsKind, for_children: bool) -> SysResult<NsId> {
        if !self.may_inspect(me, task) {
            return Err(Errno::EACCES);
        }
        let process = self.process(task);
        if process.has_ended() {
            return Err(Errno::ENOENT);
        }
        match (kind, for_children) {
            // No process has been created in it yet (pidns_for_children_get).
            (NsKind::Pid, true) if self.pid_ns(process.ns.pid_for_children).next == 1 => Err(Errno::ENOENT),
            (NsKind::Pid, true) => Ok(process.ns.pid_for_children),
            (NsKind::Time, true) => Ok(process.ns.time_for_children),
            _ => Ok(process.ns.get(kind)),
        }
    }
}

const fn made_access(flags: OpenFlags) -> Access {
    match flags {
        OpenFlags::Path | OpenFlags::Directory => Access::PathOnly,
        OpenFlags::ReadWrite => Access::Both,
        _ => Access::Read,
    }
}

impl Kernel {
    /// Returns the file at /proc/PID/REST. The links to programs and descriptors check whether the caller may
    /// inspect the process (proc_fd_access_allowed).
    fn proc_node(&self, me: Task, task: Task, rest: &str) -> SysResult<Node> {
        let number = rest.strip_prefix("fd/").and_then(|number| number.parse().ok()).map(Fd);
        if (rest == "exe" || number.is_some()) && !self.may_inspect(me, task) {
            return Err(Errno::EACCES);
        }
        if let Some(fd) = number {
            return self.object(task, fd).cloned().map(Node::Opened).map_err(|_| Errno::ENOENT);
        }
        if let Some(fd) = rest.strip_prefix("fdinfo/").and_then(|number| number.parse().ok()) {
            return self
                .object(task, Fd(fd))
                .map(|_| Node::File(task, PidEntry::FdInfo(fd)))
                .map_err(|_| Errno::ENOENT);
        }
        match (rest, &self.process(task).exe) {
            ("exe", Exe::File(path)) => Ok(Node::Exe(Rc::from(executable(path)))),
            ("exe", Exe::Made(index)) => Ok(Node::Made(*index)),
            _ => proc_node(task, rest),
        }
    }
}

fn proc_node(task: Task, rest: &str) -> SysResult<Node> {
    let file = |file| Ok(Node::File(task, file));
    match rest.trim_end_matches('/') {
        "" => Ok(Node::Dir(task)),
        "uid_map" => file(PidEntry::UidMap),
        "gid_map" => file(PidEntry::GidMap),
        "setgroups" => file(PidEntry::Setgroups),
        "timens_offsets" => file(PidEntry::TimensOffsets),
        "oom_score_adj" => file(PidEntry::OomScoreAdj),
        "cmdline" => file(PidEntry::Cmdline),
        "stat" => file(PidEntry::Stat),
        "fd" => Ok(Node::FdDir(task)),
        "task" => Ok(Node::TaskDir),
        "ns/pid_for_children" => Ok(Node::Ns(task, NsKind::Pid, true)),
        "ns/time_for_children" => Ok(Node::Ns(task, NsKind::Time, true)),
        other => {
            let kind = other
                .strip_prefix("ns/")
                .and_then(|name| NsKind::ALL.into_iter().find(|kind| kind.name() == name));
            kind.map(|kind| Node::Ns(task, kind, false)).ok_or(Errno::ENOENT)
        }
    }
}
