//! [`Launcher::exec`] and [`Command::exec`]: the launch in which this process becomes the command.

use std::format;
use std::sync::PoisonError;

use super::command::Command;
use super::error::LaunchError;
use super::prepared::Prepared;
use super::query::has_one_thread;
use super::record::Record;
use super::setting::SettingError;
use super::stdio::Kind;
use super::subordinate::Caller;
use super::surroundings::MountStep;
use super::{Launcher, is_open, spawn};
use crate::deciders::bootstrap::decode;
use crate::deciders::namespace::{NsKind, NsSet};
use crate::sys::Sys;
use crate::sys::linux::LinuxSys;
use crate::sys::types::{CloneFlags, MountKind};
use crate::words::error::Refusal;

impl Launcher {
    /// Replaces this process by the command, as [`CommandExt::exec`] does, and returns only the error. The
    /// command has the pid of this process, its parent, and its children.
    ///
    /// This process itself enters the namespaces. If it creates a user namespace, it forks a helper, which
    /// writes the maps, and has ended before the exec. A new or joined pid namespace is for the children of
    /// the command only (pid_namespaces(7)): as with `unshare --pid` without `--fork`, the first of them is
    /// process 1 there. A new time namespace is entered by the command itself.
    ///
    /// The functions of [`on_record`](Self::on_record) get the records right before the last steps.
    ///
    /// # Errors
    /// [`LaunchError::Setting`]: nothing was changed. That includes settings which need a parent: a minimal
    /// init, a command that is killed with its parent, a time limit, a new /proc of a pid namespace in which
    /// the command is not. It also includes a process with several threads, if the kernel allows the step
    /// only to a process with one: a user namespace, a time namespace, or a mount namespace to join.
    ///
    /// After any other error this process may be changed, as after [`CommandExt::exec`]: it may be in some of
    /// the namespaces, have other ids and another root directory, and not be dumpable. With
    /// [`Descriptors::Named`](super::Descriptors::Named) its descriptors above 2 are close-on-exec, unless
    /// they are named. Its signal state is restored. A careful caller exits.
    ///
    /// [`CommandExt::exec`]: std::os::unix::process::CommandExt::exec
    pub fn exec(&mut self) -> LaunchError {
        self.exec_through(|sys| sys)
    }

    /// Does the same as [`exec`](Self::exec), but makes every system call through the backend that `wrap`
    /// returns: see [`spawn_through`](Self::spawn_through). This process must have one thread.
    pub fn exec_through<S: Sys>(&mut self, wrap: impl FnOnce(LinuxSys) -> S) -> LaunchError {
        match self.prepare_exec() {
            Ok(prepared) => self.exec_prepared(&prepared, wrap),
            Err(error) => error,
        }
    }

    /// Prepares the launch of [`exec`](Self::exec). A plan runs the result on a simulated kernel.
    ///
    /// # Errors
    /// Those of [`prepare`](Self::prepare), and a setting that needs a parent.
    pub fn prepare_exec(&self) -> Result<Prepared, LaunchError> {
        in_place(self.prepare()?)
    }

    /// Executes a prepared launch in place.
    fn exec_prepared<S: Sys>(&self, prepared: &Prepared, wrap: impl FnOnce(LinuxSys) -> S) -> LaunchError {
        if let Some(fd) = prepared.named.iter().find(|fd| !is_open(**fd)) {
            return LaunchError::Descriptor(*fd);
        }
        if let Err(error) = check_threads(prepared) {
            return error.into();
        }
        let deliver = |records: &[Record]| {
            if let Some(take) = self.on_record.as_ref().filter(|_| !records.is_empty()) {
                // A panic in an earlier launch left nothing half done here.
                let mut take = take.lock().unwrap_or_else(PoisonError::into_inner);
                records.iter().for_each(&mut *take);
            }
        };
        let (error, records) = spawn::exec(prepared, deliver, wrap);
        deliver(&records);
        error
    }
}

impl Command {
    /// Replaces this process by the command, as [`CommandExt::exec`] does, and returns only the error: see
    /// [`Launcher::exec`].
    ///
    /// ```no_run
    /// use nsexec::launch::Command;
    /// use nsexec::namespace::NsKind;
    ///
    /// let error = Command::new("ip").args(["link"]).unshare([NsKind::User, NsKind::Net]).exec();
    /// eprintln!("{error}");
    /// std::process::exit(error.exit_code());
    /// ```
    ///
    /// [`kill_on_drop`](Self::kill_on_drop) and [`copy_memory`](Self::copy_memory) have no effect.
    ///
    /// # Errors
    /// Those of [`Launcher::exec`]. The settings that need a parent are [`init`](Self::init),
    /// [`kill_with_parent`](Self::kill_with_parent), [`timeout`](Self::timeout),
    /// [`before_start`](Self::before_start), and a [piped](super::Stdio::piped) standard stream. After an
    /// error the standard streams of this process may be those of the command.
    ///
    /// [`CommandExt::exec`]: std::os::unix::process::CommandExt::exec
    pub fn exec(&mut self) -> LaunchError {
        match self.ready_to_exec(&Caller::here()) {
            Ok((launcher, prepared)) => launcher.exec_prepared(&prepared, |sys| sys),
            Err(error) => error,
        }
    }

    /// Prepares the launch of [`exec`](Self::exec). A plan runs the result on a simulated kernel.
    ///
    /// # Errors
    /// Those of [`exec`](Self::exec) that are found before anything is changed.
    pub fn prepare_exec(&self) -> Result<Prepared, LaunchError> {
        self.prepare_exec_as(&Caller::here())
    }

    /// As [`prepare_exec`](Self::prepare_exec), for a plan of another caller than this process.
    ///
    /// # Errors
    /// Those of [`prepare_exec`](Self::prepare_exec).
    #[doc(hidden)]
    pub fn prepare_exec_as(&self, caller: &Caller) -> Result<Prepared, LaunchError> {
        self.ready_to_exec(caller).map(|(_, prepared)| prepared)
    }

    fn ready_to_exec(&self, caller: &Caller) -> Result<(Launcher, Prepared), LaunchError> {
        if self.before_start.is_some() {
            return Err(needs_parent("before_start", "the function runs in the parent of the command").into());
        }
        let piped = |stdio: &super::Stdio| matches!(stdio.0, Kind::Piped);
        if self.stdio.iter().flatten().any(piped) {
            return Err(needs_parent("a piped standard stream", "no process has the other end").into());
        }
        let (launcher, prepared) = self.ready_in_place(caller)?;
        Ok((launcher, in_place(prepared)?))
    }
}

/// Returns the same launch in place.
fn in_place(mut prepared: Prepared) -> Result<Prepared, LaunchError> {
    let policy = &mut prepared.policy.launch;
    for (set, setting, why) in [
        (policy.init, "init", "a minimal init is the parent of the command"),
        (policy.kill_child, "kill_with_parent", "the command has the parent of this process"),
        (prepared.timeout.is_some(), "timeout", "no process of the launch could end the others"),
        (
            !prepared.around.persistent.is_empty(),
            "a namespace on a file",
            "no process is left outside of the namespaces to mount them",
        ),
    ] {
        if set {
            return Err(needs_parent(setting, why).into());
        }
    }
    policy.in_place = true;
    policy.ends_with_launcher = false;
    policy.stages = false;
    prepared.interrupt = None;
    let steps = prepared.around.root.iter().flat_map(|root| &root.mounts);
    let is_proc = |step: &MountStep| matches!(step, MountStep::New { kind: MountKind::Proc, .. });
    let mounts_proc = prepared.policy.launch.mount_proc || steps.into_iter().any(is_proc);
    let joined = joined(&prepared);
    if mounts_proc && (prepared.asked.contains(CloneFlags::NEWPID) || joined.contains(NsKind::Pid)) {
        let why = "the command itself stays in the pid namespace of this process, whose processes the new /proc would show";
        return Err(needs_parent("a new /proc with a pid namespace", why).into());
    }
    if prepared.asked.contains(CloneFlags::NEWTIME) && joined.contains(NsKind::Mnt) {
        // The command's process would have to look it up in the /proc of the joined mount namespace.
        let why = "only a child of this process enters a new time namespace beside a joined mount namespace";
        return Err(needs_parent("a new time namespace", why).into());
    }
    Ok(prepared)
}

fn needs_parent(setting: &'static str, why: &'static str) -> SettingError {
    SettingError::Conflict { settings: [setting, "exec"], why }
}

fn joined(prepared: &Prepared) -> NsSet {
    // The script reports an error in the message.
    decode(&prepared.message, prepared.policy.dialect).map_or(NsSet::EMPTY, |(asked, _)| asked.joined())
}

/// Fails if the kernel refuses the launch because this process has several threads.
fn check_threads(prepared: &Prepared) -> Result<(), SettingError> {
    let joined = joined(prepared);
    let step = match () {
        () if prepared.asked.contains(CloneFlags::NEWUSER) => "create a user namespace",
        () if prepared.asked.contains(CloneFlags::NEWTIME) => "enter a new time namespace",
        () if joined.contains(NsKind::User) => "join a user namespace",
        () if joined.contains(NsKind::Mnt) => "join a mount namespace",
        () if joined.contains(NsKind::Time) => "join a time namespace",
        () => return Ok(()),
    };
    match has_one_thread() {
        Err(Refusal::Threads(count)) => {
            let count = count.map_or_else(|| "several".into(), |count| format!("{count}"));
            let why = format!(
                "this process has {count} threads, and the kernel lets only a process with one thread {step} \
                 (unshare(2), setns(2)): call it before any is started, or use spawn"
            );
            Err(SettingError::Value { setting: "exec", why })
        }
        _ => Ok(()),
    }
}
