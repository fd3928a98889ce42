//! The kernel's state, and the dispatch of each call to its implementation.

use core::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::string::String;
use std::vec::Vec;

use serde::{Deserialize, Serialize};

use super::creds::ALL_CAPS;
use super::descriptors::{Description, Object, TMPFS};
use super::files::Made;
use super::mounts::{FileSystem, Mounted};
use super::namespaces::{Namespace, NsId};
use super::process::{Process, Task};
use super::procfs::Extra;
use super::program::Program;
use super::streams::{Pair, Pipe, Writing};
use crate::record::{Bytes, Call, Reply};
use crate::state::Expected;
use nsexec::namespace::{NsKind, NsSet};
use nsexec::sys::types::{CloneFlags, Errno, ExitSignal, FsType, Pid, PollFd, SigAction, Signal, SysResult};

/// The reason why a call returns no value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Halt {
    Errno(Errno),
    /// The call blocks.
    Block,
    /// The process is dead, or runs another program.
    Gone,
}

impl From<Errno> for Halt {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

/// The option hidepid of a mounted /proc (proc(5), "Mount options"). It hides a process that the caller may
/// not inspect (ptrace(2), PTRACE_MODE_READ_FSCREDS).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HidePid {
    /// 0: hides nothing.
    #[default]
    Off,
    /// 1: the process's directory is visible, but its files cannot be opened (EPERM). The group of the option
    /// gid, by default root's, is exempt.
    NoAccess,
    /// 2: as 1, but the files do not exist (ENOENT).
    Invisible,
    /// 4, since Linux 5.8: the directory does not exist either (ENOENT). If the directory is open, or its
    /// name is in the kernel's cache since another process looked it up, its files fail with EPERM. No group
    /// is exempt.
    Ptraceable,
}

impl HidePid {
    /// All modes, each with the option's value as a name and as a number.
    pub const ALL: [(&'static str, u32, Self); 4] = [
        ("off", 0, Self::Off),
        ("noaccess", 1, Self::NoAccess),
        ("invisible", 2, Self::Invisible),
        ("ptraceable", 4, Self::Ptraceable),
    ];

    /// Parses the option's value: a word since Linux 5.8, a number before.
    #[must_use]
    pub fn parse(value: &str) -> Option<Self> {
        let is = |(word, number, _): &(&str, u32, Self)| value == *word || value.parse() == Ok(*number);
        Self::ALL.into_iter().find(is).map(|(.., mode)| mode)
    }

    /// Returns the option's value as a word.
    #[must_use]
    pub fn word(self) -> &'static str {
        Self::ALL.into_iter().find(|(.., mode)| *mode == self).map_or("off", |(word, ..)| word)
    }
}

/// The size of the simulated machine, and the features that it has.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Bytes that fit into a pipe. Linux: 65,536, or 4,096 beyond the user's limit (pipe(7)).
    pub pipe_buffer: usize,
    /// Bytes that fit into each direction of a socket pair. Linux: 212,992 with overhead (socket(7)).
    pub socket_buffer: usize,
    /// Descriptors in each process that does not set its own limit (RLIMIT_NOFILE).
    pub descriptors: i32,
    /// The maximum number of processes, the launcher included.
    pub processes: usize,
    /// The hard limits of the launcher, by the number of the resource. A resource without an entry has none.
    pub hard_limits: BTreeMap<u32, u64>,
    /// The number of namespaces of each kind that may be created (/proc/sys/user/max_*_namespaces).
    pub limits: BTreeMap<NsKind, usize>,
    /// System calls that this kernel lacks, by strace's name, and the errno that they return: `("pidfd_open",
    /// ENOSYS)`. The flags `MFD_EXEC`, `O_TMPFILE`, `CLOSE_RANGE_CLOEXEC`, `RWF_NOWAIT` (of a pipe)
    /// and `CLONE_PIDFD` (of a clone with namespaces) can be listed too.
    pub lacks: BTreeMap<&'static str, Errno>,
    /// The bounding set: the capabilities that a process can gain by an exec (capabilities(7)).
    pub bounding: u64,
    /// True if the launcher has changed its root to a directory that is not a mount point. So it cannot
    /// create user namespaces (EPERM), nor change the propagation of its root (EINVAL).
    pub chrooted: bool,
    /// The error of each attempt to create a user namespace, if a security module or a sysctl refuses it:
    /// `EPERM` by kernel.unprivileged_userns_clone, `EACCES` by a security module.
    pub user_refused: Option<Errno>,
    /// True if the launcher starts with no_new_privs, so that no exec gives privileges
    /// (PR_SET_NO_NEW_PRIVS(2const)).
    pub no_new_privs: bool,
    /// True if descriptors of socketpair and pipe2 are not close-on-exec, as in runc's C code, which leaks
    /// its sync pipes to the mapping tools.
    pub leaks_descriptors: bool,
    /// True if a part of /proc is covered, so that no process in a user namespace may mount a new procfs.
    pub proc_masked: bool,
    /// True if the root of the machine is the initial ramfs, which pivot_root refuses (pivot_root(2)).
    pub initial_ramfs: bool,
    /// True if nothing is mounted at /proc before the run.
    pub proc_missing: bool,
    /// The hidepid mode of /proc.
    pub hidepid: HidePid,
    /// True if programs are on tmpfs, where F_GET_SEALS succeeds.
    pub programs_on_tmpfs: bool,
    /// True if the directories in which files are made are mounted noexec.
    pub directories_noexec: bool,
    /// The uptime of the machine in seconds. No clock can be set back further (time_namespaces(7)).
    pub uptime: i64,
    /// The file system of the files of a test (statfs(2)).
    pub file_system: FsType,
    /// The kinds of namespace that this kernel does not have: to create one fails with `EINVAL`.
    pub absent: NsSet,
    /// True if the kernel reports the registered address (`PR_GET_TID_ADDRESS`). Otherwise the call fails.
    pub reports_tid_address: bool,
    /// True if the libc keeps its thread id at the address that it registers, as glibc does. musl registers
    /// the address of a lock.
    pub caches_tid: bool,
    /// True if a poll looks at one descriptor in each turn of its process. Others run between two looks, as
    /// on a busy machine: poll(2) looks at its descriptors one after the other.
    pub slow_polls: bool,
    /// The number of calls after which a run counts as endless.
    pub calls: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            pipe_buffer: 65_536,
            socket_buffer: 212_992,
            descriptors: 1024,
            processes: 1024,
            hard_limits: BTreeMap::new(),
            limits: BTreeMap::new(),
            lacks: BTreeMap::new(),
            bounding: ALL_CAPS,
            chrooted: false,
            user_refused: None,
            no_new_privs: false,
            leaks_descriptors: false,
            proc_masked: false,
            initial_ramfs: false,
            proc_missing: false,
            hidepid: HidePid::Off,
            programs_on_tmpfs: false,
            directories_noexec: false,
            uptime: 1000,
            file_system: TMPFS,
            absent: NsSet::EMPTY,
            reports_tid_address: true,
            caches_tid: true,
            slow_polls: false,
            calls: 20_000,
        }
    }
}

/// The whole state of the simulated kernel.
#[derive(Clone, Debug, Default)]
pub(super) struct Kernel {
    pub(super) settings: Settings,
    /// The number of namespaces of each kind that existed before the run.
    pub(super) initial_counts: BTreeMap<NsKind, usize>,
    pub(super) processes: Vec<Process>,
    pub(super) namespaces: Vec<Namespace>,
    pub(super) descriptions: Vec<Description>,
    pub(super) pipes: Vec<Pipe>,
    pub(super) pairs: Vec<Pair>,
    pub(super) files: BTreeMap<String, Extra>,
    /// Mounts over paths below /proc: `/proc/PID` or `/proc/PID/FILE`, with the path that is bound there.
    pub(super) binds: BTreeMap<String, String>,
    pub(super) programs: BTreeMap<String, Program>,
    /// The errors of the execs of these paths.
    pub(super) refusals: BTreeMap<String, Errno>,
    /// The files that processes made, and the names of those that have one.
    pub(super) made: Vec<Made>,
    pub(super) names: BTreeMap<String, usize>,
    pub(super) file_systems: Vec<FileSystem>,
    pub(super) mounts: Vec<Mounted>,
    /// The write end of a pipe. Its read end becomes readable in the launcher when a signal asks it to end a
    /// launch.
    pub(super) interrupt: Option<usize>,
    /// The process directories in the kernel's name cache, by the pid namespace of the /proc.
    pub(super) proc_found: RefCell<BTreeSet<(NsId, Task)>>,
    /// The bytes written to standard error.
    pub(super) sink: Vec<u8>,
    /// The state of a process at its last function before the exec.
    pub(super) at_hook: Option<Expected>,
    /// The leader of the session that the machine's terminal controls.
    pub(super) controlled: Option<Task>,
    /// The time in milliseconds that has passed in the run.
    pub(super) clock: u64,
    /// The number of calls made in the run.
    pub(super) calls: usize,
}

impl Kernel {
    /// Makes `call` for process `me`, unless the call blocks.
    pub(super) fn call(&mut self, me: Task, call: &Call) -> Result<Reply, Halt> {
        let name = match call {
            Call::TidAddress => "",
            Call::CloneInit { .. } if self.settings.lacks.contains_key("CLONE_PIDFD") => "CLONE_PIDFD",
            Call::OpenInRoot { .. } => "openat2",
            Call::SetMountAttributes { .. } => "mount_setattr",
            _ => call.name(),
        };
        if let Some(errno) = self.settings.lacks.get(name) {
            return Ok(Reply::Errno(*errno));
        }
        let reply = self.dispatch(me, call);
        match reply {
            Err(Halt::Block) => {}
            _ => self.process_mut(me).unblock(),
        }
        match reply {
            Err(Halt::Errno(errno)) => Ok(Reply::Errno(errno)),
            reply => reply,
        }
    }

    fn dispatch(&mut self, me: Task, call: &Call) -> Result<Reply, Halt> {
        let data = |bytes: Vec<u8>| Reply::Data(Bytes(bytes));
        let unit = |()| Reply::Unit;
        let pair = |(one, other)| Reply::Pair(one, other);
        let cloexec = !self.settings.leaks_descriptors;
        Ok(match call {
            Call::Openat { dir, path, flags } => Reply::Fd(self.openat(me, *dir, &path.0, *flags)?),
            Call::Openat2 { dir, path, flags } => Reply::Fd(self.openat2(me, *dir, &path.0, *flags)?),
            Call::Close { fd } => unit(self.close(me, *fd)?),
            Call::Read { fd, len } => data(self.read(me, *fd, *len)?),
            Call::Write { fd, data } => Reply::Count(self.write(me, *fd, &data.0, Writing::Wait)?),
            Call::WriteNowait { fd, data } => Reply::Count(self.write(me, *fd, &data.0, Writing::NoWait)?),
            Call::Send { fd, data } => Reply::Count(self.write(me, *fd, &data.0, Writing::Send)?),
            Call::SendFd { socket, fd } => Reply::Count(self.send_fd(me, *socket, *fd)?),
            Call::ReceiveFd { socket } => Reply::Received(self.receive_fd(me, *socket)?),
            Call::Dup3 { fd, number } => unit(self.dup3(me, *fd, *number)?),
            Call::Poll { fds, timeout_ms } => self.poll(me, fds, *timeout_ms)?,
            Call::Fstatfs { fd } => Reply::FsType(self.fstatfs(me, *fd)?),
            Call::SocketType { fd } => Reply::SocketType(self.socket_type(me, *fd)?),
            Call::LinkCount { path } => Reply::Links(self.link_count(me, &path.0)?),
            Call::Readlink { path, len } => data(self.readlink(me, &path.0, *len)?),
            Call::Socketpair => self.socketpair(me, cloexec).map(pair)?,
            Call::Pipe2 => self.pipe(me, cloexec).map(pair)?,
            Call::CloseRangeCloexec { first } => unit(self.close_range_cloexec(me, *first)?),
            Call::Getdents64 { fd, len } => data(self.getdents64(me, *fd, *len)?),
            Call::SetCloexec { fd, on } => unit(self.set_cloexec(me, *fd, *on)?),
            Call::CloneSibling { .. } => self.forked(me, call, true, ExitSignal::Chld)?,
            Call::Fork { exit, .. } => self.forked(me, call, false, *exit)?,
            Call::CloneChild { .. } => self.forked(me, call, false, ExitSignal::None)?,
            Call::CloneInit { namespaces, .. } => self.clone_init(me, call, *namespaces)?,
            Call::Execve { path, argv, envp } => {
                self.execve(me, &path.0, strings(argv), strings(envp))?;
                return Err(Halt::Gone);
            }
            Call::GetSeals { .. }
            | Call::AddSeals { .. }
            | Call::MemfdCreate { .. }
            | Call::Sendfile { .. }
            | Call::Fchmod { .. }
            | Call::Unlink { .. }
            | Call::IsReadOnly { .. }
            | Call::Execveat { .. } => self.copying(me, call)?,
            Call::Wait4 { pid, which } => Reply::Waited(self.wait4(me, *pid, *which)?),
            Call::Kill { pid, signal } => unit(self.kill(me, *pid, *signal)?),
            Call::PidfdOpen { pid } => Reply::Fd(self.pidfd_open(me, *pid)?),
            Call::Getpid | Call::Gettid => Reply::Pid(self.own_pid(me)),
            Call::TidAddress => Reply::TidAddress(self.tid_address(me)?),
            Call::Setns { fd, kind } => unit(self.setns(me, *fd, *kind)?),
            Call::Unshare { flags } => unit(self.unshare(me, *flags)?),
            Call::SetDumpable { dumpable } => unit(self.set_dumpable(me, *dumpable)?),
            Call::SetName { name } => unit(self.set_name(me, &name.0)?),
            Call::SetPdeathsig { signal } => unit(self.set_pdeathsig(me, *signal)?),
            Call::Setsid => unit(self.setsid(me)?),
            Call::Setresuid { uid } => unit(self.setresuid(me, *uid)?),
            Call::Setuid { uid } => unit(self.setuid(me, *uid)?),
            Call::Setgid { gid } => unit(self.setgid(me, *gid)?),
            Call::SchedGetaffinity => Reply::Affinity(0b11),
            Call::Mount { mount } => unit(self.mount(me, *mount)?),
            Call::Sigprocmask { how, set } => Reply::Mask(self.sigprocmask(me, *how, *set)?),
            Call::Sigaction { signal, action } => Reply::Action(self.sigaction(me, *signal, *action)?),
            Call::WaitSignal { set } => Reply::Sent(self.wait_signal(me, *set)?),
            Call::Sigtimedwait { set } => Reply::Signal(self.sigtimedwait(me, *set)?),
            other => self.surrounding(me, other)?,
        })
    }

    /// Implements the calls that set the groups and the surroundings of the command.
    fn surrounding(&mut self, me: Task, call: &Call) -> Result<Reply, Halt> {
        let unit = |()| Reply::Unit;
        Ok(match call {
            Call::DropGroups => unit(self.drop_groups(me)?),
            Call::CloseRange { first, last } => unit(self.close_range(me, *first, *last)?),
            Call::DupTo { fd, number } => unit(self.dup_to(me, *fd, *number)?),
            Call::DupAbove { fd, least } => Reply::Fd(self.dup_above(me, *fd, *least)?),
            Call::SetGroups { groups } => unit(self.set_groups(me, groups)?),
            // The code runs on the real kernel only.
            Call::RunHook { .. } => {
                self.at_hook = Some(self.expected(me));
                Reply::Unit
            }
            Call::Umask { .. }
            | Call::SetHostname { .. }
            | Call::SetLimit { .. }
            | Call::KeepCapabilities { .. }
            | Call::DropBounding { .. }
            | Call::SetCapabilities { .. }
            | Call::RaiseAmbient { .. }
            | Call::SetNoNewPrivs
            | Call::SetSeccompFilter { .. }
            | Call::LandlockRestrictSelf { .. }
            | Call::SetControllingTerminal { .. }
            | Call::NewSessionKeyring
            | Call::InetSocket
            | Call::SetLoopbackUp { .. } => self.attribute(me, call)?,
            of_tree => self.tree(me, of_tree)?,
        })
    }

    /// Implements the calls of a process that copies its own program.
    fn copying(&mut self, me: Task, call: &Call) -> Result<Reply, Halt> {
        let unit = |()| Reply::Unit;
        Ok(match call {
            Call::GetSeals { fd } => Reply::Seals(self.get_seals(me, *fd)?),
            Call::AddSeals { fd, seals } => unit(self.add_seals(me, *fd, *seals)?),
            Call::MemfdCreate { exec, .. } => Reply::Fd(self.memfd_create(me, *exec)?),
            Call::Sendfile { to, from, len } => Reply::Count(self.sendfile(me, *to, *from, *len)?),
            Call::Fchmod { fd, mode } => unit(self.fchmod(me, *fd, *mode)?),
            Call::Unlink { path } => unit(self.unlink(&path.0)?),
            Call::IsReadOnly { path } => Reply::ReadOnly(self.is_read_only(me, &path.0)?),
            Call::Execveat { fd, argv, envp } => {
                self.execveat(me, *fd, strings(argv), strings(envp))?;
                return Err(Halt::Gone);
            }
            other => panic!("{other} is not a call that copies the program"),
        })
    }

    /// Implements both kinds of clone. The child's own reply is already in its list.
    fn forked(&mut self, me: Task, call: &Call, sibling: bool, exit: ExitSignal) -> Result<Reply, Halt> {
        let child = self.clone_process(me, call, sibling, exit, None)?;
        Ok(Reply::Parent(self.pid_of_child(me, child)?))
    }

    /// Returns the pid of a child, as its creator sees it. It always sees it: a child's pid namespace is its
    /// creator's or a descendant of it.
    fn pid_of_child(&self, me: Task, child: Task) -> SysResult<Pid> {
        self.number(child, self.process(me).ns.get(NsKind::Pid)).ok_or(Errno::ESRCH)
    }

    /// Implements a clone that creates namespaces and a pidfd (copy_process). A failure has no effect.
    fn clone_init(&mut self, me: Task, call: &Call, namespaces: CloneFlags) -> Result<Reply, Halt> {
        // `LinuxSys` makes no call with the bits of other flags, or with that of a time namespace.
        if namespaces.unknown() != CloneFlags::EMPTY || namespaces.contains(CloneFlags::NEWTIME) {
            return Err(Errno::EINVAL.into());
        }
        self.has_room_for_process()?;
        let before = self.namespaces.len();
        let new = self.new_namespaces(me, namespaces)?;
        // A kernel without pidfds ignores the flag. The number is the lowest free one in the parent; the
        // child has no copy of the descriptor.
        let has_pidfds = !self.settings.lacks.contains_key("pidfd_open");
        let child = self.check_pid_namespace(new.0.pid_for_children).and_then(|()| {
            if has_pidfds {
                self.free_number(me)?;
            }
            self.clone_process(me, call, false, ExitSignal::None, Some(new))
        });
        let child = child.inspect_err(|_| self.namespaces.truncate(before))?;
        let pid = self.pid_of_child(me, child)?;
        let pidfd = if has_pidfds { Some(self.pidfd_open(me, pid)?) } else { None };
        Ok(Reply::ParentOfInit { pid, pidfd })
    }

    /// Implements poll(2). Time passes only when no process can run.
    fn poll(&mut self, me: Task, fds: &[PollFd], timeout_ms: i32) -> Result<Reply, Halt> {
        self.check_length_of_poll(me, fds.len())?;
        let (count, fds) = match self.settings.slow_polls {
            true => self.polled_slowly(me, fds).ok_or(Halt::Block)?,
            false => self.polled(me, fds),
        };
        let clock = self.clock;
        let process = self.process_mut(me);
        let over = process.deadline.is_some_and(|deadline| deadline <= clock);
        if count > 0 || timeout_ms == 0 || over {
            return Ok(Reply::Polled { count, fds });
        }
        if let (Ok(patience), None) = (u64::try_from(timeout_ms), process.deadline) {
            process.deadline = Some(clock + patience);
        }
        Err(Halt::Block)
    }

    fn set_name(&mut self, me: Task, name: &[u8]) -> SysResult<()> {
        // PR_SET_NAME(2const): the name is truncated after 15 bytes.
        self.process_mut(me).name = String::from_utf8_lossy(&name[..name.len().min(15)]).into_owned();
        Ok(())
    }

    fn set_dumpable(&mut self, me: Task, dumpable: bool) -> SysResult<()> {
        self.set_dumpable_of_memory(me, dumpable);
        Ok(())
    }

    fn set_pdeathsig(&mut self, me: Task, signal: Signal) -> SysResult<()> {
        if !(0..=64).contains(&signal.0) {
            return Err(Errno::EINVAL);
        }
        self.process_mut(me).pdeathsig = Some(signal).filter(|signal| signal.0 != 0);
        Ok(())
    }

    /// Returns whether a process can run: the call in which it is blocked would now return.
    pub(super) fn is_ready(&self, task: Task) -> bool {
        let process = self.process(task);
        if !process.is_alive() || process.stopped || process.rest.is_some() || process.main.is_none() {
            return false;
        }
        match &process.blocked {
            None => true,
            Some(Call::Read { fd, .. } | Call::ReceiveFd { socket: fd }) => match self.object(task, *fd) {
                Ok(Object::Socket(pair, side)) => self.pairs[*pair].readable(*side),
                Ok(Object::PipeRead(pipe)) => self.pipes[*pipe].readable(),
                Ok(Object::InetSocket(_)) => false,
                _ => true,
            },
            Some(Call::Write { fd, data } | Call::Send { fd, data }) => {
                let rest = data.0.len() - process.progress;
                match self.object(task, *fd) {
                    Ok(Object::Socket(pair, side)) => self.pairs[*pair].writable(*side),
                    Ok(Object::PipeWrite(pipe)) => self.pipes[*pipe].writable(data.0.len(), rest),
                    _ => true,
                }
            }
            Some(Call::SendFd { socket, .. }) => match self.object(task, *socket) {
                Ok(Object::Socket(pair, side)) => self.pairs[*pair].writable(*side),
                _ => true,
            },
            Some(Call::Poll { fds, .. }) => {
                !process.looked.is_empty()
                    || self.polled(task, fds).0 > 0
                    || process.deadline.is_some_and(|deadline| deadline <= self.clock)
            }
            Some(Call::WaitSignal { set }) => process.pending.0 & set.0 != 0,
            Some(Call::Wait4 { pid, which }) => self.can_reap(task, *pid, *which),
            Some(_) => true,
        }
    }

    /// Returns all processes that can run, in the order of birth.
    pub(super) fn ready(&self) -> Vec<Task> {
        self.tasks().filter(|task| self.is_ready(*task)).collect()
    }

    /// Advances the clock to the first timeout of a poll. Returns false if no poll has a timeout.
    pub(super) fn pass_time(&mut self) -> bool {
        let running = self.processes.iter().filter(|process| process.is_alive() && !process.stopped);
        let deadlines = running.filter_map(|process| process.deadline);
        match deadlines.min() {
            Some(deadline) => {
                self.clock = self.clock.max(deadline);
                true
            }
            None => false,
        }
    }

    /// Sends `signal` to the launcher through its signalfd, where it asks for the end of the launch.
    pub(super) fn interrupt(&mut self, signal: Signal) {
        /// The size of struct signalfd_siginfo (signalfd(2)).
        const RECORD: usize = 128;
        let Some(description) = self.interrupt else { return };
        if let Object::PipeWrite(pipe) = self.descriptions[description].object {
            let mut record = std::vec![0; RECORD];
            record[..4].copy_from_slice(&signal.0.to_ne_bytes());
            self.pipes[pipe].bytes.extend(record);
        }
    }

    /// Gives the process a handler of `signal`.
    pub(super) fn catch(&mut self, task: Task, signal: Signal) {
        /// An address, which no one calls.
        const HANDLER: usize = 0x1000;
        let action = SigAction { handler: HANDLER, ..SigAction::IGNORE };
        self.process_mut(task).actions.insert(signal.0, action);
    }

    /// Sets the initial disposition of `signal` to ignored.
    pub(super) fn ignore(&mut self, task: Task, signal: Signal) {
        self.process_mut(task).actions.insert(signal.0, SigAction::IGNORE);
    }
}

/// Returns the strings of an exec.
fn strings(args: &[Bytes]) -> Vec<Vec<u8>> {
    args.iter().map(|arg| arg.0.clone()).collect()
}
