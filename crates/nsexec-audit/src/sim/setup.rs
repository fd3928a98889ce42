//! The machine before a run: [`Sim`].

use std::collections::BTreeMap;
use std::rc::Rc;
use std::string::{String, ToString};
use std::vec::Vec;

use super::creds::{ALL_CAPS, Creds};
use super::descriptors::Object;
use super::fault::Fault;
use super::faultless::Faultless;
use super::files::Exe;
use super::idmaps::{Ids, Map};
use super::kernel::{Kernel, Settings};
use super::namespaces::{CREATION_ORDER, NsId, NsProxy, PidNs, State, TimeNs, UserNs};
use super::process::{Life, Process, Task};
use super::procfs::Extra;
use super::program::{Ended, Program, Rest};
use super::report::Report;
use super::schedule::{self, Choice};
use super::turn::SimSys;
use crate::transcript::Role;
use nsexec::namespace::NsKind;
use nsexec::sys::types::{CloneFlags, Errno, ExitSignal, Fd, OpenFlags, Pid, Seals, Signal, SignalSet};

/// The first user namespace. The first namespaces are in [`CREATION_ORDER`], so it is number 0.
const FIRST_USER: NsId = NsId(0);

/// The pid of the launcher.
const FIRST_PID: i32 = 100;

/// The program file of the launcher, and of each process that existed before the run.
const LAUNCHER_PATH: &str = "/usr/bin/launcher";

/// The credentials of a user of the machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Capabilities.
    pub caps: u64,
}

impl User {
    /// Returns root, with every capability.
    #[must_use]
    pub fn root() -> Self {
        Self { uid: 0, gid: 0, groups: Vec::new(), caps: ALL_CAPS }
    }

    /// Returns an ordinary user whose group has the same number. The user also belongs to group 27.
    #[must_use]
    pub fn ordinary(uid: u32) -> Self {
        Self { uid, gid: uid, groups: std::vec![uid, 27], caps: 0 }
    }
}

/// A process that existed before the run, in namespaces of its own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Container<'a> {
    /// The user that created it, in the first user namespace.
    pub maker: User,
    /// The uid and gid map of its user namespace, if it has one of its own. An empty text means that the map
    /// has not been written. The process is root inside if root is mapped.
    pub maps: Option<(&'a str, &'a str)>,
    /// The kinds of its other namespaces, which its user namespace owns.
    pub kinds: &'a [NsKind],
}

/// The file that the launcher's program runs from: its /proc/self/exe.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum LauncherFile {
    /// A file with a name, to which its owner can write.
    Named,
    /// A sealed file in memory.
    Sealed,
    /// A copy in a directory, whose name is removed and which cannot have seals.
    Unnamed,
}

/// A simulated machine, ready to run. A run does not change it.
#[derive(Clone, Debug)]
pub struct Sim {
    kernel: Kernel,
    launcher: Task,
}

impl Sim {
    /// Returns a machine with one process, the launcher, which belongs to `user` and has the three standard
    /// descriptors.
    #[must_use]
    pub fn new(settings: Settings, user: &User) -> Self {
        let mut kernel = Kernel { settings, ..Kernel::default() };
        for kind in CREATION_ORDER {
            let state = match kind {
                NsKind::User => State::User(UserNs {
                    parent: None,
                    level: 0,
                    owner_uid: 0,
                    uid_map: Map::identity(),
                    gid_map: Map::identity(),
                    setgroups: true,
                    parent_could_setfcap: true,
                }),
                NsKind::Pid => {
                    State::Pid(PidNs { parent: None, level: 0, next: FIRST_PID, init: None, dead: false })
                }
                // The offsets of the machine's first time namespace are fixed.
                NsKind::Time => State::Time(TimeNs { frozen: true, offsets: Vec::new() }),
                NsKind::Mnt => {
                    let [mnt, pid, net] =
                        [NsKind::Mnt, NsKind::Pid, NsKind::Net].map(|kind| NsId(position(kind)));
                    State::Mnt { root: kernel.first_mounts(mnt, pid, net) }
                }
                _ => State::Plain,
            };
            kernel.add_namespace(kind, FIRST_USER, state);
        }
        let mut sim = Self { kernel, launcher: Task(0) };
        sim.launcher = sim.spawn(Role::Launcher, user);
        sim
    }

    /// Returns the launcher, and the kernel.
    pub(super) fn launcher_and_kernel(&mut self) -> (Task, &mut Kernel) {
        (self.launcher, &mut self.kernel)
    }

    /// Returns the settings of the machine. Pipes that exist already keep their buffer size.
    pub fn settings(&mut self) -> &mut Settings {
        &mut self.kernel.settings
    }

    fn spawn(&mut self, role: Role, user: &User) -> Task {
        let kernel = &mut self.kernel;
        let proxy = NsProxy::new(NsKind::ALL.map(|kind| NsId(position(kind))));
        let numbers = kernel.allocate_pids(proxy.get(NsKind::Pid));
        let task = Task(kernel.processes.len());
        let root = kernel.namespace_root(proxy.get(NsKind::Mnt));
        kernel.processes.push(Process {
            role,
            parent: None,
            life: Life::Alive,
            numbers,
            exit_signal: ExitSignal::Chld,
            group: task,
            name: String::new(),
            argv: Vec::new(),
            environ: Vec::new(),
            exe: Exe::File(LAUNCHER_PATH.to_string()),
            creds: Creds {
                user: FIRST_USER,
                uid: [user.uid; 3],
                gid: [user.gid; 3],
                groups: user.groups.clone(),
                permitted: user.caps,
                effective: user.caps,
                inheritable: 0,
                ambient: 0,
                bounding: None,
                keep_caps: false,
            },
            ns: proxy,
            no_new_privs: false,
            umask: 0o22,
            limits: BTreeMap::new(),
            root: root.clone(),
            cwd: root,
            dumpable: true,
            mm_user: FIRST_USER,
            shares_memory_of: None,
            oom: 0,
            oom_min: 0,
            tid_registered: true,
            fds: BTreeMap::new(),
            mask: SignalSet::EMPTY,
            pending: SignalSet::EMPTY,
            actions: BTreeMap::new(),
            pdeathsig: None,
            stopped: false,
            stop_report: None,
            progress: 0,
            looked: Vec::new(),
            deadline: None,
            blocked: None,
            rest: None,
            main: None,
            replay: Vec::new(),
            own: 0,
            past: Vec::new(),
        });
        for object in [Object::Null, Object::Null, Object::Sink] {
            kernel.install(task, object, false).expect("an empty table");
        }
        task
    }

    /// Returns the launcher's pid.
    #[must_use]
    pub fn launcher_pid(&self) -> Pid {
        self.kernel.process(self.launcher).numbers.last().map_or(Pid(0), |(_, pid)| *pid)
    }

    /// Sets the file that the launcher runs from, and the stages that it forks. The default is
    /// [`LauncherFile::Named`].
    pub fn launcher_file(&mut self, file: LauncherFile) {
        let exe = match file {
            LauncherFile::Named => Exe::File(LAUNCHER_PATH.to_string()),
            LauncherFile::Sealed => self.kernel.unnamed_program(LAUNCHER_PATH, Some(Seals::CONTENT)),
            LauncherFile::Unnamed => self.kernel.unnamed_program(LAUNCHER_PATH, None),
        };
        self.kernel.process_mut(self.launcher).exe = exe;
    }

    /// Sets the function of the launcher.
    pub fn launcher(&mut self, main: impl Fn(&mut SimSys) -> Ended + 'static) {
        self.kernel.process_mut(self.launcher).main = Some(Rc::new(main));
    }

    /// Adds an executable file.
    pub fn program(&mut self, path: &str, program: Program) {
        self.kernel.programs.insert(path.to_string(), program);
    }

    /// Makes each exec of this path fail. The path is compared as it is given: it may be relative, or below
    /// another root directory.
    pub fn refuse_exec(&mut self, path: &str, errno: Errno) {
        self.kernel.refusals.insert(path.to_string(), errno);
    }

    /// Adds a file that is not executable.
    pub fn file(&mut self, path: &str, file: Extra) {
        self.kernel.files.insert(path.to_string(), file);
    }

    /// Binds a path below /proc over `/proc/PID` or `/proc/PID/FILE`, as `mount --bind WHAT OVER` does.
    pub fn bind(&mut self, what: &str, over: &str) {
        self.kernel.binds.insert(over.to_string(), what.to_string());
    }

    /// Removes a file.
    pub fn remove_file(&mut self, path: &str) {
        self.kernel.files.remove(path);
    }

    /// Creates a socket pair in the launcher and returns both ends. With `inherited` the second end is not
    /// close-on-exec, as if dup2 had made it.
    pub fn socketpair(&mut self, inherited: bool) -> (Fd, Fd) {
        let (one, other) = self.kernel.socketpair(self.launcher, true).expect("room for two descriptors");
        self.kernel.set_cloexec(self.launcher, other, !inherited).expect("it was just made");
        (one, other)
    }

    /// Creates a pipe in the launcher and returns its read end and its write end. With `inherited` the write
    /// end is not close-on-exec.
    pub fn pipe(&mut self, inherited: bool) -> (Fd, Fd) {
        let (read, write) = self.kernel.pipe(self.launcher, true).expect("room for two descriptors");
        self.kernel.set_cloexec(self.launcher, write, !inherited).expect("it was just made");
        (read, write)
    }

    /// Makes the standard input of the launcher a terminal, which controls no session.
    pub fn terminal(&mut self) {
        self.open(Object::Terminal, Fd(0));
    }

    /// Opens a Landlock rule set in the launcher under this number.
    pub fn ruleset(&mut self, number: Fd) {
        self.open(Object::Ruleset, number);
    }

    /// Creates a directory with this path, and opens it in the launcher under this number.
    ///
    /// # Panics
    /// If the path is not absolute.
    pub fn directory(&mut self, path: &str, number: Fd) {
        self.file(path, Extra::Directory);
        let opened = self.kernel.openat(self.launcher, Fd::CWD, path.as_bytes(), OpenFlags::Directory);
        let fd = opened.expect("a directory");
        if fd != number {
            self.duplicate(fd, number);
            self.kernel.close(self.launcher, fd).expect("an open descriptor");
        }
    }

    /// Opens an object in the launcher under this number.
    fn open(&mut self, object: Object, number: Fd) {
        let fd = self.kernel.install(self.launcher, object, true).expect("room for a descriptor");
        if fd != number {
            self.duplicate(fd, number);
            self.kernel.close(self.launcher, fd).expect("an open descriptor");
        }
    }

    /// Returns a descriptor of the launcher which becomes readable when a signal asks for the end of a
    /// launch: [`FaultKind::Stop`](super::FaultKind::Stop).
    pub fn interrupt(&mut self) -> Fd {
        /// Far above the numbers that a launch uses.
        const NUMBER: Fd = Fd(100);
        let (read, write) = self.kernel.pipe(self.launcher, true).expect("room for two descriptors");
        let fds = &mut self.kernel.process_mut(self.launcher).fds;
        let [read, write] = [read, write].map(|fd| fds.remove(&fd.0).expect("it was just made"));
        fds.insert(NUMBER.0, read);
        // The kernel keeps the write end: no process holds it, and it is never closed.
        self.kernel.interrupt = Some(write.description);
        NUMBER
    }

    /// Duplicates a descriptor of the launcher to another number, not close-on-exec: a number reserved for
    /// stage 1.
    pub fn duplicate(&mut self, fd: Fd, number: Fd) {
        self.kernel.duplicate(self.launcher, fd, number, false).expect("an open descriptor");
    }

    /// Sets the initial signal mask of the launcher.
    pub fn block(&mut self, signals: SignalSet) {
        self.kernel.process_mut(self.launcher).mask = signals;
    }

    /// Sets the initial disposition of this signal in the launcher to ignored.
    pub fn ignore(&mut self, signal: Signal) {
        self.kernel.ignore(self.launcher, signal);
    }

    /// Gives the launcher a handler of this signal.
    pub fn catch(&mut self, signal: Signal) {
        self.kernel.catch(self.launcher, signal);
    }

    /// Adds a container that existed before the run. Returns the pid of its process, for `/proc/PID/ns/…`.
    ///
    /// # Panics
    /// If the kernel would have refused these namespaces to its creator.
    pub fn container(&mut self, container: &Container<'_>) -> Pid {
        let task = self.spawn(self.kernel.other_role(), &container.maker);
        let kernel = &mut self.kernel;
        if let Some((uid_map, gid_map)) = container.maps {
            kernel.unshare(task, CloneFlags::NEWUSER).expect("a user namespace");
            let root = Creds {
                user: FIRST_USER,
                uid: [0; 3],
                gid: [0; 3],
                groups: Vec::new(),
                permitted: ALL_CAPS,
                effective: ALL_CAPS,
                inheritable: 0,
                ambient: 0,
                bounding: None,
                keep_caps: false,
            };
            let user = kernel.process(task).creds.user;
            let maps = [(Ids::Users, uid_map), (Ids::Groups, gid_map)];
            for (ids, map) in maps.into_iter().filter(|(_, map)| !map.is_empty()) {
                kernel
                    .write_map((&root, &root), user, ids, (0, map.as_bytes()))
                    .expect("a map that root may write");
            }
            // Fails with EINVAL if root is not mapped.
            let _ = kernel.setresuid(task, 0);
            let _ = kernel.setgid(task, 0);
        }
        let flags = container.kinds.iter().fold(CloneFlags::EMPTY, |flags, kind| flags.union(kind.flag()));
        kernel.unshare(task, flags).expect("namespaces of its own");
        let mut proxy = kernel.process(task).ns;
        if proxy.pid_for_children != proxy.get(NsKind::Pid) {
            let pid = proxy.pid_for_children;
            proxy.set(NsKind::Pid, pid);
            let inner = kernel.pid_ns_mut(pid);
            (inner.next, inner.init) = (2, Some(task));
            kernel.process_mut(task).numbers.insert(0, (pid, Pid(1)));
        }
        let time = proxy.time_for_children;
        proxy.set(NsKind::Time, time);
        kernel.time_ns_mut(time).frozen = true;
        let process = kernel.process_mut(task);
        process.ns = proxy;
        // The state after its own exec.
        process.dumpable = true;
        process.mm_user = process.creds.user;
        process.rest = Some(Rest::Background);
        process.numbers.last().map_or(Pid(0), |(_, pid)| *pid)
    }

    /// Denies setgroups in a container's user namespace, as if its creator had written "deny" before the
    /// group map.
    ///
    /// # Panics
    /// If no process has this pid.
    pub fn deny_setgroups(&mut self, pid: Pid) {
        let user = self.namespace(pid, NsKind::User);
        self.kernel.user_mut(user).setgroups = false;
    }

    /// Returns a namespace of a container, to bind it to a path: [`Extra::Namespace`].
    ///
    /// # Panics
    /// If no process has this pid.
    #[must_use]
    pub fn namespace(&self, pid: Pid, kind: NsKind) -> NsId {
        let task = self.kernel.find(NsId(position(NsKind::Pid)), pid.0).expect("a process of this pid");
        self.kernel.process(task).ns.get(kind)
    }

    /// Runs until no process can run. The same choices give the same run.
    ///
    /// # Panics
    /// If the calls of a process do not depend on its replies alone, or if its function panics.
    #[must_use]
    pub fn run(&self, choice: &mut dyn Choice, fault: Option<Fault>) -> Report {
        schedule::run(self.at_the_start(), choice, fault)
    }

    /// Runs without a fault, and keeps what runs with a fault need. They give the same reports as
    /// [`run`](Self::run).
    ///
    /// # Panics
    /// As [`run`](Self::run).
    #[must_use]
    pub fn faultless<C: Choice + Clone>(&self, choice: C) -> Faultless<C> {
        Faultless::new(self.at_the_start(), choice)
    }

    fn at_the_start(&self) -> Kernel {
        let mut kernel = self.kernel.clone();
        for kind in CREATION_ORDER {
            let count = kernel.namespaces.iter().filter(|ns| ns.kind == kind).count();
            kernel.initial_counts.insert(kind, count);
        }
        kernel
    }
}

/// Returns the number of the first namespace of a kind.
fn position(kind: NsKind) -> usize {
    CREATION_ORDER.iter().position(|other| *other == kind).unwrap_or(0)
}
