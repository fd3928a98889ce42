//! [`Command`]: starts a command in namespaces, with the interface of [`std::process::Command`].
//!
//! `settings.rs` has the settings of the namespaces and the surroundings, `build.rs` the checks of all
//! settings.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{ExitStatus, Output};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use std::vec::Vec;

use core::fmt;

use super::error::LaunchError;
use super::handle::Child;
use super::join::Join;
use super::query::namespace_of;
use super::record::{OnRecord, Record};
use super::setting::SettingError;
use super::stdio::Stdio;
use super::strings::CommandLine;
use super::subordinate::Mapping;
use super::surroundings::Surroundings;
use crate::deciders::namespace::{NsKind, NsSet};
use crate::sys::types::{Fd, Pid, Propagation};
use crate::words::log::Level;

/// Starts a command in namespaces, with the interface of [`std::process::Command`]: the same names with the
/// same meaning, and settings for namespaces and for the surroundings of the command.
///
/// ```
/// use nsexec::launch::Command;
/// use nsexec::namespace::NsKind;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let output = Command::new("id")
///     .arg("-u")
///     .unshare([NsKind::User, NsKind::Uts, NsKind::Net])
///     .map_root()
///     .output()?;
/// assert_eq!(output.stdout, b"0\n");
/// # Ok(())
/// # }
/// ```
///
/// Differences from `std`:
/// - The command gets descriptors 0 to 2 and those of [`fd`](Self::fd), and no other one, unless
///   [`inherit_descriptors`](Self::inherit_descriptors) is set. The first process of a launch closes the
///   others, unless the command has code in [`pre_exec`](Self::pre_exec).
/// - Errors are a [`LaunchError`], which names the step that failed. It converts to an [`io::Error`].
/// - Settings are checked when the command is started, before any process is created:
///   [`LaunchError::Setting`].
/// - The command enters its [`current_dir`](Self::current_dir) before its ids change, and its PATH is
///   searched in its own root directory.
/// - A file in no format that the kernel knows, such as a script without a `#!` line, is a script for
///   /bin/sh, as with glibc's execvp(3). std does the same in `exec` and after `pre_exec`; its other launches
///   fail with `ENOEXEC`.
/// - [`Stdio`] of a file can be used for several launches.
/// - [`Child::wait`] returns the same result again; [`Child::kill`] and [`Child::signal`] go through the
///   pidfd.
#[derive(Clone)]
pub struct Command {
    pub(super) line: CommandLine,
    pub(super) stdio: [Option<Stdio>; 3],
    pub(super) descriptors: Vec<(Fd, Arc<OwnedFd>)>,
    pub(super) inherits_all: bool,
    pub(super) created: NsSet,
    pub(super) joins: Vec<Join>,
    pub(super) users: Option<Mapping>,
    pub(super) groups: Option<Mapping>,
    pub(super) new_session: bool,
    pub(super) init: bool,
    pub(super) propagation: Option<Propagation>,
    pub(super) sets_propagation: bool,
    pub(super) oom_score_adj: Option<i32>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) around: Surroundings,
    pub(super) landlock: Option<Arc<OwnedFd>>,
    pub(super) cgroups: Vec<PathBuf>,
    pub(super) kill_with_parent: bool,
    pub(super) kill_on_drop: bool,
    pub(super) trusts_mounts: bool,
    pub(super) copies_memory: bool,
    pub(super) timeout: Option<Duration>,
    pub(super) level: Level,
    pub(super) on_record: Option<OnRecord>,
    pub(super) before_start: Option<Arc<Mutex<BeforeStart>>>,
    /// The first setting that is wrong by itself.
    pub(super) wrong: Option<SettingError>,
}

/// The function that the caller runs before the start.
pub(super) type BeforeStart = dyn FnMut(&Starting) -> io::Result<()> + Send;

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Command")
            .field("line", &self.line)
            .field("created", &self.created)
            .field("joins", &self.joins)
            .field("around", &self.around)
            .finish_non_exhaustive()
    }
}

/// A command that has not begun: its process exists in its namespaces and waits for the launcher. The
/// function of [`Command::before_start`] gets it, and cannot keep it: later the pid may belong to another
/// process.
#[derive(Debug)]
pub struct Starting {
    pid: Pid,
}

impl Starting {
    pub(super) const fn new(pid: Pid) -> Self {
        Self { pid }
    }

    /// The pid of the command, in our pid namespace.
    #[must_use]
    pub const fn pid(&self) -> Pid {
        self.pid
    }

    /// Opens a namespace of the command: `/proc/PID/ns/KIND`.
    ///
    /// # Errors
    /// `ENOENT`: the process has ended, or the kernel does not have the kind. `EACCES`: this process may not
    /// trace it (ptrace(2)).
    pub fn namespace(&self, kind: NsKind) -> io::Result<OwnedFd> {
        namespace_of(self.pid.0, kind)
    }
}

impl Command {
    /// Creates a command without arguments. It inherits this process's environment, working directory and
    /// standard streams, and gets no new namespace.
    ///
    /// A name without a slash is searched in the command's own PATH, after the joins and in the command's own
    /// root directory.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            line: CommandLine::new(program.as_ref()),
            stdio: [const { None }; 3],
            descriptors: Vec::new(),
            inherits_all: false,
            created: NsSet::EMPTY,
            joins: Vec::new(),
            users: None,
            groups: None,
            new_session: false,
            init: false,
            propagation: Some(Propagation::Slave),
            sets_propagation: false,
            oom_score_adj: None,
            uid: None,
            gid: None,
            around: Surroundings::default(),
            landlock: None,
            cgroups: Vec::new(),
            kill_with_parent: false,
            kill_on_drop: false,
            trusts_mounts: false,
            copies_memory: false,
            timeout: None,
            level: Level::Warning,
            on_record: None,
            before_start: None,
            wrong: None,
        }
    }

    /// Adds an argument.
    pub fn arg(&mut self, arg: impl AsRef<OsStr>) -> &mut Self {
        self.line.words.push(arg.as_ref().into());
        self
    }

    /// Adds arguments.
    pub fn args<A: AsRef<OsStr>>(&mut self, args: impl IntoIterator<Item = A>) -> &mut Self {
        self.line.words.extend(args.into_iter().map(|arg| arg.as_ref().into()));
        self
    }

    /// Sets the name that the command sees as its argument 0. By default it is the name that it is started
    /// by.
    pub fn arg0(&mut self, name: impl AsRef<OsStr>) -> &mut Self {
        self.line.set_arg0(name.as_ref());
        self
    }

    /// Sets a variable of the command's environment.
    pub fn env(&mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> &mut Self {
        self.line.set_env(name.as_ref(), value.as_ref());
        self
    }

    /// Sets variables of the command's environment.
    pub fn envs<N: AsRef<OsStr>, V: AsRef<OsStr>>(
        &mut self,
        variables: impl IntoIterator<Item = (N, V)>,
    ) -> &mut Self {
        for (name, value) in variables {
            self.env(name, value);
        }
        self
    }

    /// Removes a variable from the command's environment.
    pub fn env_remove(&mut self, name: impl AsRef<OsStr>) -> &mut Self {
        self.line.remove_env(name.as_ref());
        self
    }

    /// Removes all inherited variables, and those set so far, from the command's environment.
    pub fn env_clear(&mut self) -> &mut Self {
        self.line.clear_env();
        self
    }

    /// Sets the standard input. By default it is inherited; with [`output`](Self::output) it is empty.
    pub fn stdin(&mut self, stdio: impl Into<Stdio>) -> &mut Self {
        self.stdio[0] = Some(stdio.into());
        self
    }

    /// Sets the standard output. By default it is inherited; with [`output`](Self::output) it is piped.
    pub fn stdout(&mut self, stdio: impl Into<Stdio>) -> &mut Self {
        self.stdio[1] = Some(stdio.into());
        self
    }

    /// Sets the standard error. By default it is inherited; with [`output`](Self::output) it is piped.
    pub fn stderr(&mut self, stdio: impl Into<Stdio>) -> &mut Self {
        self.stdio[2] = Some(stdio.into());
        self
    }

    /// Gives the command a descriptor under this number. Numbers 0 to 2 replace the standard streams,
    /// which [`output`](Self::output) refuses for 1 and 2. A number must be below the limit of descriptors of
    /// this process by at least two (RLIMIT_NOFILE, getrlimit(2)).
    pub fn fd(&mut self, number: u32, fd: impl Into<OwnedFd>) -> &mut Self {
        match i32::try_from(number) {
            Ok(number) => self.descriptors.push((Fd(number), Arc::new(fd.into()))),
            Err(_) => self.note(SettingError::Value {
                setting: "fd",
                why: std::format!("{number} is too high for a descriptor"),
            }),
        }
        self
    }

    /// Lets the command inherit all descriptors of this process that are not close-on-exec, as
    /// [`std::process::Command`] does. By default it gets 0 to 2 and those of [`fd`](Self::fd). The processes
    /// of the launch then keep all descriptors of this process open up to the exec.
    pub fn inherit_descriptors(&mut self) -> &mut Self {
        self.inherits_all = true;
        self
    }

    /// Sets a limit for the launch, from [`spawn`](Self::spawn) until the command runs. When it is reached,
    /// the processes of the launch are ended and reaped: [`LaunchError::TimedOut`]. For the command itself
    /// see [`Child::wait_timeout`].
    pub fn timeout(&mut self, limit: Duration) -> &mut Self {
        self.timeout = Some(limit);
        self
    }

    /// Kills the command when this process ends, however it ends (PR_SET_PDEATHSIG(2const)). In a new pid
    /// namespace all its processes are killed with it. A command that changes its ids can undo it.
    ///
    /// The kernel sends the signal when the thread that launched ends. So a launch of a thread that is not
    /// the first one is carried out by a new thread of this library, which ends after the command. It begins
    /// with the attributes of the calling thread (namespaces, ids, capabilities, seccomp filters).
    /// [`before_start`](Self::before_start) and [`on_record`](Self::on_record) run on it.
    pub fn kill_with_parent(&mut self) -> &mut Self {
        self.kill_with_parent = true;
        self
    }

    /// Kills and reaps the command when its [`Child`] is dropped. If the kernel refuses the kill (`EPERM`: a
    /// command with other ids), the command continues, and is not waited for.
    pub fn kill_on_drop(&mut self) -> &mut Self {
        self.kill_on_drop = true;
        self
    }

    /// Sets the highest level of the records that the stages write for [`on_record`](Self::on_record). Fatal
    /// records are always written, and become the error. The default is warnings.
    pub fn level(&mut self, level: Level) -> &mut Self {
        self.level = level;
        self
    }

    /// Sets the function that gets the stages' records: see
    /// [`Launcher::on_record`](super::Launcher::on_record).
    pub fn on_record(&mut self, take: impl FnMut(&Record) + Send + 'static) -> &mut Self {
        self.on_record = Some(Arc::new(Mutex::new(take)));
        self
    }

    /// Sets a function that this process runs before the command begins: the process of the command exists in
    /// its namespaces, and waits. Use it to move a network device there, to start slirp4netns or pasta, or to
    /// place the process in a cgroup. Its error ends the launch: [`LaunchError::BeforeStart`].
    ///
    /// A joined user namespace may be entered afterwards. The launch goes through the stages
    /// ([`shape`](super::shape)). The command's process sets the host name, the mounts and the working
    /// directory at the same time, and its ids and other attributes afterwards. The time limit of the launch
    /// does not end the function.
    pub fn before_start(
        &mut self,
        call: impl FnMut(&Starting) -> io::Result<()> + Send + 'static,
    ) -> &mut Self {
        self.before_start = Some(Arc::new(Mutex::new(call)));
        self
    }

    /// Keeps the first error of a setting.
    pub(super) fn note(&mut self, error: SettingError) {
        self.wrong.get_or_insert(error);
    }

    /// Starts the command, and returns after its exec.
    ///
    /// The command is a child of this process. Launches of several threads run at the same time.
    ///
    /// # Errors
    /// [`LaunchError::Setting`]: the settings cannot work; no process was created. Otherwise the reason why
    /// the command does not run. The launch then leaves no process and no descriptor.
    pub fn spawn(&mut self) -> Result<Child, LaunchError> {
        self.start(Stdio::INHERITED)
    }

    /// Starts the command, waits for it, and returns what it wrote. Standard output and error are piped, and
    /// standard input is empty, unless they were set.
    ///
    /// # Errors
    /// Those of [`spawn`](Self::spawn), and [`LaunchError::Wait`]: the command could not be waited for.
    pub fn output(&mut self) -> Result<Output, LaunchError> {
        let child = self.start([Stdio::null(), Stdio::piped(), Stdio::piped()])?;
        child.wait_with_output().map_err(|error| LaunchError::waiting(&error))
    }

    /// Starts the command and waits for it.
    ///
    /// # Errors
    /// Those of [`output`](Self::output).
    pub fn status(&mut self) -> Result<ExitStatus, LaunchError> {
        self.spawn()?.wait().map_err(|error| LaunchError::waiting(&error))
    }
}
