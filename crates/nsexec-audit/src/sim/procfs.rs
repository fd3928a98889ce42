//! Paths and the files of /proc that matter (proc(5), spec 6.1, 6.3, 6.6, 6.7, 6.9).

use std::rc::Rc;
use std::vec::Vec;

use super::creds::{Creds, cap};
use super::descriptors::{Access, Object, TMPFS};
use super::files::{Exe, executable};
use super::idmaps::PAGE;
use super::kernel::{HidePid, Kernel};
use super::namespaces::{Kind, NsId};
use super::process::Task;
use nsexec::sys::types::{Errno, Fd, FsType, OpenFlags, SysResult};

/// A file of /proc/PID that is read or written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ProcFile {
    UidMap,
    GidMap,
    Setgroups,
    TimensOffsets,
    OomScoreAdj,
    Cmdline,
    Stat,
}

/// What a path leads to.
pub(super) enum Node {
    /// /proc, with the pid namespace whose processes it shows.
    ProcRoot(NsId),
    Dir(Task),
    File(Task, ProcFile),
    Ns(Task, Kind, bool),
    FdDir(Task),
    TaskDir,
    Extra(Extra),
    /// A file that a process made.
    Made(usize),
    /// What a descriptor of /proc/PID/fd is.
    Opened(Object),
    /// What a process runs, at /proc/PID/exe.
    Exe(Rc<[u8]>),
}

/// A path that was followed.
struct Walked {
    node: Node,
    /// It leads over a mount point.
    crosses: bool,
    /// It ends in a link of procfs that is no path.
    magic: bool,
}

impl Walked {
    fn within(node: Node) -> Self {
        Self { node, crosses: false, magic: false }
    }
}

/// A file that a test puts somewhere.
#[derive(Clone, Debug)]
pub enum Extra {
    /// A namespace, bound to a path as `ip netns` does.
    Namespace(NsId),
    /// A named pipe: a plain open would wait for ever.
    Fifo,
    /// A regular file with this content.
    Regular(Rc<[u8]>),
    /// A directory.
    Directory,
    /// A file that nobody may open (EACCES).
    Forbidden,
    /// A file in a folder that nobody may search: not even what it is can be asked (EACCES).
    Hidden,
    /// A file of a process that /proc hides (EPERM).
    NotPermitted,
    /// A path that does not exist, also if it names a simulated process in /proc (ENOENT).
    Missing,
}

impl Kernel {
    /// openat(2).
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

    /// openat2(2) with RESOLVE_NO_XDEV and RESOLVE_NO_MAGICLINKS. EXDEV: a mount point is crossed, that of /proc too; ELOOP: a
    /// link to a program, a descriptor or a namespace.
    pub(super) fn openat2(&mut self, me: Task, dir: Fd, path: &[u8], flags: OpenFlags) -> SysResult<Fd> {
        if path.len() >= PAGE {
            return Err(Errno::ENAMETOOLONG);
        }
        let walked = self.walk(me, dir, path)?;
        if walked.crosses {
            return Err(Errno::EXDEV);
        }
        if walked.magic {
            // The link asks for permission before it is refused.
            if let Node::Ns(task, kind, for_children) = walked.node {
                self.follow_ns(me, task, kind, for_children)?;
            }
            return Err(Errno::ELOOP);
        }
        self.install_node(me, walked.node, flags)
    }

    fn install_node(&mut self, me: Task, node: Node, flags: OpenFlags) -> SysResult<Fd> {
        let object = match (flags, self.open_node(me, node, flags)?) {
            (OpenFlags::Directory, Object::ProcDir(task, _)) => Object::ProcDir(task, Access::PathOnly),
            // They know for themselves what they are open for.
            (OpenFlags::Directory | OpenFlags::Path, object @ Object::ProcRoot(_)) => object,
            (OpenFlags::Path, object @ Object::Made(..)) => object,
            (OpenFlags::Directory | OpenFlags::Path, object) => Object::PathOnly(object.fs_type()),
            (_, object) => object,
        };
        self.install(me, object, true)
    }

    /// newfstatat(2), of which the number of links: /proc/self/task has two and one for each thread.
    pub(super) fn link_count(&self, me: Task, path: &[u8]) -> SysResult<u64> {
        Ok(match self.resolve(me, Fd::CWD, path)? {
            Node::TaskDir => 3,
            Node::ProcRoot(_) | Node::Dir(_) | Node::FdDir(_) | Node::Extra(Extra::Directory) => 2,
            Node::Made(index) | Node::Opened(Object::Made(index, _)) => self.made_links(index),
            _ => 1,
        })
    }

    /// readlink(2) of /proc/self, in the numbering of the pid namespace that the mounted /proc belongs to; it is not there
    /// for somebody whom that namespace does not see (proc_self_get_link). Other links are not modelled, and are none.
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

    /// statfs(2), of which ST_RDONLY: nothing is mounted so.
    pub(super) fn is_read_only(&self, me: Task, path: &[u8]) -> SysResult<bool> {
        self.resolve(me, Fd::CWD, path).map(|_| false)
    }

    pub(super) fn resolve(&self, me: Task, dir: Fd, path: &[u8]) -> SysResult<Node> {
        self.walk(me, dir, path).map(|walked| walked.node)
    }

    fn walk(&self, me: Task, dir: Fd, path: &[u8]) -> SysResult<Walked> {
        let text = core::str::from_utf8(path).map_err(|_| Errno::ENOENT)?;
        match self.files.get(text) {
            Some(Extra::Hidden) => return Err(Errno::EACCES),
            Some(Extra::NotPermitted) => return Err(Errno::EPERM),
            Some(Extra::Missing) => return Err(Errno::ENOENT),
            Some(extra) => return Ok(Walked::within(Node::Extra(extra.clone()))),
            None => {}
        }
        if self.programs.contains_key(text) {
            return Ok(Walked::within(Node::Extra(Extra::Regular(Rc::from(executable(text))))));
        }
        if let Some(index) = self.names.get(text) {
            return Ok(Walked::within(Node::Made(*index)));
        }
        if text == "/proc" {
            let root = self.proc_pid_ns(me).map_or(Node::Extra(Extra::Directory), Node::ProcRoot);
            return Ok(Walked { crosses: matches!(root, Node::ProcRoot(_)), node: root, magic: false });
        }
        if let Some(in_proc) = text.strip_prefix("/proc/") {
            let seen_from = self.proc_pid_ns(me).ok_or(Errno::ENOENT)?;
            return self.in_proc(me, seen_from, in_proc).map(|walked| Walked { crosses: true, ..walked });
        }
        if text.is_empty() || text.starts_with('/') || dir == Fd::CWD {
            return Err(self.not_there(text));
        }
        match *self.object(me, dir)? {
            Object::ProcRoot(seen_from) => self.in_proc(me, seen_from, text),
            // A held directory outlives its task, and says so (spec 6.9).
            Object::ProcDir(task, _) if self.process(task).is_reaped() => Err(Errno::ESRCH),
            Object::ProcDir(task, _) => {
                self.permit_lookup(self.is_hidden(me, task), text)?;
                self.in_process(me, task, text)
            }
            Object::FdList(_) | Object::Directory(_) | Object::PathOnly(_) => Err(Errno::ENOENT),
            _ => Err(Errno::ENOTDIR),
        }
    }

    /// A path below /proc.
    fn in_proc(&self, me: Task, seen_from: NsId, path: &str) -> SysResult<Walked> {
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

    /// A path below /proc/PID.
    fn in_process(&self, me: Task, task: Task, rest: &str) -> SysResult<Walked> {
        let number = self.proc_pid_ns(me).and_then(|ns| self.number(task, ns));
        let bound = number.and_then(|pid| self.binds.get(&std::format!("/proc/{pid}/{rest}")));
        if let Some(what) = bound {
            return self.walk(me, Fd::CWD, what.as_bytes());
        }
        let magic = rest == "exe" || rest.starts_with("fd/") || rest.starts_with("ns/");
        Ok(Walked { node: self.proc_node(me, task, rest)?, crosses: false, magic })
    }

    /// Why a path outside of /proc leads nowhere: one of its folders is a file, or there is none (path_resolution(7)).
    pub(super) fn not_there(&self, path: &str) -> Errno {
        let no_folder = |folder: &str| match self.files.get(folder) {
            Some(file) => {
                !matches!(file, Extra::Directory | Extra::Hidden | Extra::NotPermitted | Extra::Missing)
            }
            None => self.programs.contains_key(folder),
        };
        let folders = path.match_indices('/').filter_map(|(end, _)| path.get(..end));
        if folders.into_iter().any(no_folder) { Errno::ENOTDIR } else { Errno::ENOENT }
    }

    /// Whether /proc hides a process from the caller (has_pid_permissions).
    fn is_hidden(&self, me: Task, task: Task) -> bool {
        // The group of the mount option gid is exempt; only its default is modelled, root's group.
        let ours = &self.process(me).creds;
        let exempt = || ours.egid() == 0 || ours.groups.contains(&0);
        match self.settings.hidepid {
            HidePid::Off => false,
            HidePid::Ptraceable => !self.may_inspect(me, task),
            HidePid::NoAccess | HidePid::Invisible => !exempt() && !self.may_inspect(me, task),
        }
    }

    /// Checks a lookup in the directory of a process (proc_pid_permission). The directory itself can be looked up.
    fn permit_lookup(&self, hidden: bool, rest: &str) -> SysResult<()> {
        match self.settings.hidepid {
            _ if !hidden || rest.is_empty() => Ok(()),
            HidePid::Invisible => Err(Errno::ENOENT),
            _ => Err(Errno::EPERM),
        }
    }

    fn open_node(&self, me: Task, node: Node, flags: OpenFlags) -> SysResult<Object> {
        let writes = flags == OpenFlags::ReadWrite;
        // A link is followed before anything else is looked at.
        let namespace = match node {
            Node::Ns(task, kind, for_children) => Some(self.follow_ns(me, task, kind, for_children)?),
            Node::Extra(Extra::Namespace(ns)) => Some(ns),
            _ => None,
        };
        let directory = matches!(flags, OpenFlags::Directory | OpenFlags::List);
        let is_directory = matches!(
            node,
            Node::ProcRoot(_) | Node::Dir(_) | Node::FdDir(_) | Node::TaskDir | Node::Extra(Extra::Directory)
        );
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
            Node::FdDir(task) if flags == OpenFlags::Directory || self.may_inspect(me, task) => {
                Ok(Object::FdList(task))
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
            // Somebody runs it.
            Node::Exe(_) if writes => Err(Errno::ETXTBSY),
            Node::Exe(content) => Ok(Object::Regular(content)),
            // Nobody opens another one again.
            Node::Opened(_) => Err(Errno::ENXIO),
            Node::Extra(Extra::Fifo) => Ok(Object::Fifo),
            Node::Extra(Extra::Regular(content)) => Ok(Object::Regular(content)),
            Node::Extra(Extra::Directory) => Ok(Object::Directory(TMPFS)),
            Node::Extra(Extra::Forbidden | Extra::Hidden) => Err(Errno::EACCES),
            Node::Extra(Extra::NotPermitted) => Err(Errno::EPERM),
            Node::Extra(Extra::Missing) => Err(Errno::ENOENT),
        }
    }

    /// Mode 0644, owned by the task's effective user if it is dumpable, by its memory's root if it is not, and by
    /// root if it has no memory any more (task_dump_owner).
    fn open_proc(&self, me: Task, task: Task, file: ProcFile, writes: bool) -> SysResult<Object> {
        let (ours, target) = (&self.process(me).creds, self.process(task));
        let owner = match (target.is_alive(), target.dumpable) {
            (true, true) => target.creds.euid(),
            (true, false) => self.user(target.mm_user).uid_map.to_kernel(0).unwrap_or(0),
            (false, _) => 0,
        };
        let group = match (target.is_alive(), target.dumpable) {
            (true, true) => target.creds.egid(),
            (true, false) => self.user(target.mm_user).gid_map.to_kernel(0).unwrap_or(0),
            (false, _) => 0,
        };
        // The stat file is for reading alone, for every user.
        if writes && (ours.euid() != owner || file == ProcFile::Stat) && !self.overrides(ours, owner, group) {
            return Err(Errno::EACCES);
        }
        let over = target.creds.user;
        // Only setgroups asks for more on opening (proc_setgroups_open).
        if file == ProcFile::Setgroups && writes && !self.capable(ours, over, cap::SYS_ADMIN) {
            return Err(Errno::EACCES);
        }
        let access = if writes { Access::Both } else { Access::Read };
        Ok(Object::Proc(task, file, over, access))
    }

    /// CAP_DAC_OVERRIDE, over a file whose owners our namespace knows (capable_wrt_inode_uidgid).
    fn overrides(&self, ours: &Creds, owner: u32, group: u32) -> bool {
        let user = self.user(ours.user);
        let known = user.uid_map.shown_as(owner).is_some() && user.gid_map.shown_as(group).is_some();
        known && self.capable(ours, ours.user, cap::DAC_OVERRIDE)
    }

    /// /proc/PID/ns/KIND, which asks who may look into a process (proc_ns_get_link): EACCES.
    fn follow_ns(&self, me: Task, task: Task, kind: Kind, for_children: bool) -> SysResult<NsId> {
        if !self.may_inspect(me, task) {
            return Err(Errno::EACCES);
        }
        let process = self.process(task);
        if process.has_ended() {
            return Err(Errno::ENOENT);
        }
        match (kind, for_children) {
            // Nobody has been born in it yet (pidns_for_children_get).
            (Kind::Pid, true) if self.pid_ns(process.ns.pid_for_children).next == 1 => Err(Errno::ENOENT),
            (Kind::Pid, true) => Ok(process.ns.pid_for_children),
            (Kind::Time, true) => Ok(process.ns.time_for_children),
            _ => Ok(process.ns.get(kind)),
        }
    }
}

const fn made_access(flags: OpenFlags) -> Access {
    match flags {
        OpenFlags::Path => Access::PathOnly,
        OpenFlags::ReadWrite => Access::Both,
        _ => Access::Read,
    }
}

impl Kernel {
    /// What is at /proc/PID/REST. The links to programs and descriptors ask who may look (proc_fd_access_allowed).
    fn proc_node(&self, me: Task, task: Task, rest: &str) -> SysResult<Node> {
        let number = rest.strip_prefix("fd/").and_then(|number| number.parse().ok()).map(Fd);
        if (rest == "exe" || number.is_some()) && !self.may_inspect(me, task) {
            return Err(Errno::EACCES);
        }
        if let Some(fd) = number {
            return self.object(task, fd).cloned().map(Node::Opened).map_err(|_| Errno::ENOENT);
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
        "uid_map" => file(ProcFile::UidMap),
        "gid_map" => file(ProcFile::GidMap),
        "setgroups" => file(ProcFile::Setgroups),
        "timens_offsets" => file(ProcFile::TimensOffsets),
        "oom_score_adj" => file(ProcFile::OomScoreAdj),
        "cmdline" => file(ProcFile::Cmdline),
        "stat" => file(ProcFile::Stat),
        "fd" => Ok(Node::FdDir(task)),
        "task" => Ok(Node::TaskDir),
        "ns/pid_for_children" => Ok(Node::Ns(task, Kind::Pid, true)),
        "ns/time_for_children" => Ok(Node::Ns(task, Kind::Time, true)),
        other => {
            let kind = other
                .strip_prefix("ns/")
                .and_then(|name| Kind::ALL.into_iter().find(|kind| kind.name() == name));
            kind.map(|kind| Node::Ns(task, kind, false)).ok_or(Errno::ENOENT)
        }
    }
}
