//! The launcher: starts a command in namespaces, for programs in Rust.
//!
//! ```text
//! direct:              Launcher ── clone ──> the process ── execve ──> the command
//!                         │ maps, go byte          │                       │
//!                         └────────── Child: wait, signal ─────────────────┘
//!
//! through a child:     Launcher ── clone ─> stage 1 ──> stage 2 ── execve ──> the command
//!                         │ pid, reaping, go byte          │                   │
//!                         └──────────────── Child: wait, signal ───────────────┘
//!
//! through the stages:  Launcher ── fork ──> stage 0 ──> stage 1 ──> stage 2 ── execve ──> the command
//!                         │ message, pid line, reaping, go byte        │                      │
//!                         └──────────────── Child: wait, signal ───────┴──────────────────────┘
//!
//! in place:            Launcher ── joins, unshare, mounts ── execve ──> the command
//!                         └─ fork ──> helper: maps, exits before the exec
//! ```
//!
//! [`Launcher::exec`] starts in place. Otherwise [`shape`] decides between the first three. A start that
//! joins namespaces, or creates a time namespace without a user namespace and without offsets, goes through a
//! child. The stages are for a user namespace that is created inside of joined ones, a mapping tool, an older
//! dialect, and a policy that asks for them. `direct` is the script of a direct start; if the kernel refuses
//! it, the launcher uses the stages. `child` is the script of a start through a child. A process has the same
//! name in each shape, in records and plans: stage 1 joins and creates namespaces, and stage 2 becomes the
//! command.
//!
//! The launcher needs neither a second program nor a second exec: the first process of a launch is a clone of
//! this process, with its memory shared or copied, and runs the core at once. The processes of a launch
//! allocate no memory, so this process may have threads. [`script`] is the launcher's half of the protocol.
//! [`tail`] is the last steps before the exec. All of them make their system calls through [`Sys`]; the other
//! modules here prepare the launch and handle its result.
//!
//! A failed launch leaves nothing behind: its processes are reaped and its descriptors are closed. If the
//! launcher is killed before the command runs, they end.
//!
//! **A program that joins a mount namespace** calls [`run_from_sealed_copy`] first in `main`. Otherwise a
//! process in that namespace could overwrite the program's file (CVE-2019-5736), and the launch is refused.
//!
//! [`Command`] starts a command with the interface of [`std::process::Command`]:
//!
//! ```
//! use nsexec::launch::Command;
//! use nsexec::namespace::NsKind;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let output = Command::new("hostname")
//!     .arg("-I")
//!     .unshare([NsKind::User, NsKind::Net, NsKind::Pid])
//!     .kill_with_parent()
//!     .output()?;
//! assert!(output.status.success());
//! assert_eq!(output.stdout.trim_ascii(), b""); // the new network has no address
//! # Ok(())
//! # }
//! ```
//!
//! [`Launcher`] is the layer below: it takes a bootstrap message and a policy, as the program `nsexec` does.

mod attributes;
mod build;
pub mod causes;
mod cgroup;
#[deny(clippy::as_conversions, clippy::arithmetic_side_effects, clippy::unreachable)]
mod child;
#[deny(clippy::as_conversions, clippy::arithmetic_side_effects, clippy::unreachable)]
mod closing;
mod command;
#[deny(clippy::as_conversions, clippy::arithmetic_side_effects, clippy::unreachable)]
mod conclude;
#[deny(clippy::as_conversions, clippy::arithmetic_side_effects, clippy::unreachable)]
mod direct;
pub mod encode;
mod error;
mod exec;
#[deny(clippy::as_conversions, clippy::arithmetic_side_effects, clippy::unreachable)]
mod fork;
mod getsubids;
mod handle;
mod hooked;
#[deny(clippy::as_conversions, clippy::arithmetic_side_effects, clippy::unreachable)]
mod in_place;
mod init;
mod job;
mod join;
#[doc(hidden)]
pub mod kept;
#[deny(clippy::as_conversions, clippy::arithmetic_side_effects, clippy::unreachable)]
mod last;
mod mounts;
/// The programs of this page are tests.
#[cfg(doctest)]
#[doc = include_str!("../../docs/moving.md")]
mod moving {}
#[deny(clippy::as_conversions, clippy::arithmetic_side_effects, clippy::unreachable)]
mod number;
#[deny(clippy::as_conversions, clippy::arithmetic_side_effects, clippy::unreachable)]
mod offsets;
#[deny(clippy::as_conversions, clippy::arithmetic_side_effects, clippy::unreachable)]
mod outcome;
#[deny(clippy::as_conversions, clippy::arithmetic_side_effects, clippy::unreachable)]
mod persist;
mod pin;
#[deny(clippy::as_conversions, clippy::arithmetic_side_effects, clippy::unreachable)]
mod pipes;
mod policy;
mod prepared;
pub mod probe;
mod proc_status;
mod query;
mod ranges;
mod reaction;
mod record;
// Also runs in the stages, so the lints of the core apply.
#[deny(clippy::as_conversions, clippy::arithmetic_side_effects, clippy::unreachable)]
mod root;
#[deny(clippy::as_conversions, clippy::arithmetic_side_effects, clippy::unreachable)]
#[doc(hidden)]
pub mod script;
mod sealed;
mod setting;
mod settings;
#[deny(clippy::as_conversions, clippy::arithmetic_side_effects, clippy::unreachable)]
pub mod shape;
#[doc(hidden)]
pub mod shared;
pub mod signals;
mod signals_error;
mod spawn;
#[deny(clippy::as_conversions, clippy::arithmetic_side_effects, clippy::unreachable)]
mod stages;
mod stdio;
mod steps;
mod strings;
mod subordinate;
mod supervise;
mod surroundings;
mod sys_mounts;
#[deny(clippy::as_conversions, clippy::arithmetic_side_effects, clippy::unreachable)]
mod sysfs;
// Runs in stage 2, so the lints of the core apply.
#[deny(clippy::as_conversions, clippy::arithmetic_side_effects, clippy::unreachable)]
#[doc(hidden)]
pub mod tail;
#[cfg(feature = "tokio")]
pub mod tokio;
#[deny(clippy::as_conversions, clippy::arithmetic_side_effects, clippy::unreachable)]
mod watch;

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::vec::Vec;

use core::fmt;

pub use causes::Circumstances;
pub use command::{Command, Starting};
pub use error::{LaunchError, StageFailure};
pub use handle::{Child, exit_code};
#[doc(hidden)]
pub use number::pid_of_fdinfo;
pub use pin::{Pinned, Released, release};
pub use policy::{Descriptors, LaunchPolicy};
#[doc(hidden)]
pub use prepared::Prepared;
pub use probe::probe;
#[doc(hidden)]
pub use proc_status::StatusText;
#[doc(hidden)]
pub use query::{
    creator_of, is_open, is_own_namespace, kind_of, network_of_socket, open_owner_of, open_pidfd,
    own_capabilities, own_protection, own_status, owner_of, pid_in_proc, reports_tid_address,
};
#[doc(hidden)]
pub use record::Collector;
pub use record::Record;
#[doc(hidden)]
pub use root::{DEVICES, SCAFFOLD};
pub use script::{ChildSignals, Ended, FailureKind, Step, WaitedFor};
pub use sealed::{SealedCopyError, run_from_sealed_copy};
pub use setting::SettingError;
#[doc(hidden)]
pub use spawn::execute;
pub use stdio::Stdio;
#[doc(hidden)]
pub use stdio::duplicate_above;
pub use steps::StageStep;
pub use strings::CommandError;
#[doc(hidden)]
pub use strings::{CommandStrings, NulTerminated};
pub use subordinate::Mapping;
#[doc(hidden)]
pub use subordinate::{
    Caller, Range, StatedCaller, find_in_path, find_program, in_order, map_of_caller, ranges_of_caller,
    ranges_of_file, split_at_borders,
};
#[doc(hidden)]
pub use supervise::{Guard, guard, without_sigxfsz, without_write_signals};
#[doc(hidden)]
pub use surroundings::Surroundings;
#[doc(hidden)]
pub use surroundings::{Base, CgroupFile, Directory, MountStep, Move, NewSysfs, Persistent, Place, Root};
#[doc(hidden)]
pub use sys_mounts::{new_sysfs, of_mountinfo};
#[doc(hidden)]
pub use sysfs::leaves_old_sys;

use crate::deciders::bootstrap::{Bootstrap, Dialect, MESSAGE_MAX};
use crate::deciders::policy::{LogForm, Policy};
use crate::launch::encode::{EncodeError, encode, encoded_len};
use crate::sys::Sys;
use crate::sys::linux::LinuxSys;
use crate::sys::types::{CloneFlags, Fd};
pub use crate::words::log::Level;
use shape::Protection;
use shared::StackMemory;
use strings::CommandLine;

/// The command to start, and the namespaces to start it in.
///
/// A launcher can be used again: each [`spawn`](Self::spawn) starts another command.
#[derive(Clone)]
pub struct Launcher {
    message: Vec<u8>,
    asked: CloneFlags,
    policy: Policy,
    level: Level,
    command: CommandLine,
    signals: Option<ChildSignals>,
    interrupt: Option<Fd>,
    timeout: Option<Duration>,
    named: Vec<Fd>,
    around: Surroundings,
    /// The namespaces to join that are open files: the message names their numbers.
    owned: Vec<Arc<OwnedFd>>,
    on_record: Option<record::OnRecord>,
}

impl fmt::Debug for Launcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Launcher")
            .field("asked", &self.asked)
            .field("policy", &self.policy)
            .field("level", &self.level)
            .field("command", &self.command)
            .finish_non_exhaustive()
    }
}

impl Launcher {
    /// Creates a launcher for the namespaces of `bootstrap`. `policy` holds the settings that a bootstrap
    /// message cannot carry.
    ///
    /// Stages and launcher come from one program here. So the dialect is always `v1_2` and the log records
    /// are always detailed, whatever `policy` contains. The stages always end with the launcher.
    ///
    /// # Errors
    /// The message cannot carry the values of `bootstrap`, or there is not enough memory for it.
    pub fn new(bootstrap: &Bootstrap<'_>, policy: Policy) -> Result<Self, EncodeError> {
        // `encode` refuses a longer message.
        let needed = encoded_len(bootstrap).min(MESSAGE_MAX);
        let mut message = zeroed(needed).ok_or(EncodeError::NoMemory { needed })?;
        let len = encode(bootstrap, &Dialect::V1_2, &mut message)?;
        message.truncate(len);
        Ok(Self {
            message,
            asked: bootstrap.clone_flags(),
            policy: Policy {
                dialect: &Dialect::V1_2,
                log_form: LogForm::Detailed,
                ..policy.with_ends_with_launcher(true)
            },
            level: Level::Warning,
            command: CommandLine::default(),
            signals: None,
            interrupt: None,
            timeout: None,
            named: Vec::new(),
            around: Surroundings::default(),
            owned: Vec::new(),
            on_record: None,
        })
    }

    /// Sets the command and its arguments. A name without a slash is searched in the command's own PATH,
    /// after the joins and so in the command's own root directory. A file in no format that the kernel knows
    /// is a script for /bin/sh (execvp(3)).
    pub fn command<A: AsRef<OsStr>>(
        &mut self,
        program: impl AsRef<OsStr>,
        args: impl IntoIterator<Item = A>,
    ) -> &mut Self {
        let args = args.into_iter().map(|arg| arg.as_ref().into());
        self.command.words = core::iter::once(program.as_ref().into()).chain(args).collect();
        self
    }

    /// Sets the first argument that the command sees, in place of its name.
    pub fn arg0(&mut self, name: impl AsRef<OsStr>) -> &mut Self {
        self.command.set_arg0(name.as_ref());
        self
    }

    /// Sets a variable of the command's environment. The command inherits this process's environment.
    pub fn env(&mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> &mut Self {
        self.command.set_env(name.as_ref(), value.as_ref());
        self
    }

    /// Removes a variable from the command's environment.
    pub fn env_remove(&mut self, name: impl AsRef<OsStr>) -> &mut Self {
        self.command.remove_env(name.as_ref());
        self
    }

    /// Removes all inherited variables, and those set so far, from the command's environment.
    pub fn env_clear(&mut self) -> &mut Self {
        self.command.clear_env();
        self
    }

    /// Passes this descriptor on to the command, under its own number. After this call, or with
    /// [`Descriptors::Named`] in the policy, the command gets no other descriptor above 2.
    ///
    /// The descriptor may be close-on-exec. It must be open at every launch, which otherwise fails with
    /// [`LaunchError::Descriptor`].
    pub fn pass_descriptor(&mut self, fd: Fd) -> &mut Self {
        self.policy.launch.descriptors = Descriptors::Named;
        if !self.named.contains(&fd) {
            self.named.push(fd);
        }
        self
    }

    /// Sets the highest level of the records that the stages write. Fatal records are always written. The
    /// default is warnings.
    pub fn level(&mut self, level: Level) -> &mut Self {
        self.level = level;
        self
    }

    /// Sets the function that gets the stages' records. Fatal records are not among them; they are in the
    /// error.
    ///
    /// [`spawn`](Self::spawn) calls `take` in this process when the launch is over: the command runs, or its
    /// processes are reaped. `take` may launch another command, but not with this launcher or a clone of it:
    /// they share `take`, which one thread calls at a time. If `take` panics, the command is killed and
    /// reaped, and the panic continues.
    pub fn on_record(&mut self, take: impl FnMut(&Record) + Send + 'static) -> &mut Self {
        self.on_record = Some(Arc::new(Mutex::new(take)));
        self
    }

    /// Sets the signal state that the command begins with.
    ///
    /// By default the command gets this thread's mask, and the dispositions that an exec would leave. The
    /// exception is an ignored SIGPIPE, which gets its default disposition, as with
    /// [`std::process::Command`].
    ///
    /// Signals for which this program has a handler get their default disposition in any case.
    pub fn signals(&mut self, signals: ChildSignals) -> &mut Self {
        self.signals = Some(signals);
        self
    }

    /// Gives the command the signal state from before [`Signals::take`](signals::Signals::take). INT, TERM,
    /// HUP and QUIT end a launch that has not finished, with [`LaunchError::Interrupted`]. Those that were
    /// ignored or blocked before `take` do not. `signals` must live until the last launch.
    pub fn supervised(&mut self, signals: &signals::Signals) -> &mut Self {
        self.signals = Some(signals.original());
        self.interrupt = Some(signals.interrupt());
        self
    }

    /// Sets a limit for the launch, from [`spawn`](Self::spawn) until the command runs; by default there is
    /// none. When the limit is reached, the stages are ended and reaped, and the error is
    /// [`LaunchError::TimedOut`]. Time spent waiting for launches of other threads counts. A limit above 68
    /// years is cut to 68 years.
    ///
    /// The limit does not apply to the command itself.
    pub fn timeout(&mut self, limit: Duration) -> &mut Self {
        self.timeout = Some(limit);
        self
    }

    /// Starts the command's process with a copy of this process's memory, as fork(2) does. By default it
    /// shares the memory up to its exec where that is possible ([`shape::memory`]), as with posix_spawn(3).
    ///
    /// Use it under tools that do not support `CLONE_VM` without `CLONE_VFORK`.
    pub fn copy_memory(&mut self) -> &mut Self {
        self.policy.launch.copied_memory = true;
        self
    }

    /// Joins a mount namespace even if this program does not run from a sealed copy of itself.
    ///
    /// Use it only if every process in the namespace is trusted, and so is every file there that could be
    /// executed. An example is a namespace that this program created. A process of any other namespace can
    /// overwrite this program's file through /proc/self/exe, with this program's privileges (CVE-2019-5736).
    /// The safe way is [`run_from_sealed_copy`].
    pub fn trust_mount_namespace(&mut self) -> &mut Self {
        self.policy.launch.trusted_mounts = true;
        self
    }

    /// Sets the surroundings of the command. For the program `nsexec`, whose flags are checked there.
    #[doc(hidden)]
    pub fn surroundings(&mut self, around: Surroundings) -> &mut Self {
        self.around = around;
        self
    }

    /// Prepares a launch, before any fork: [`spawn`](Self::spawn) runs the result, and a plan runs it on a
    /// simulated kernel.
    ///
    /// # Errors
    /// The command has a form that execve(2) does not accept, or there is not enough memory for the message
    /// or the command's strings.
    pub fn prepare(&self) -> Result<Prepared, LaunchError> {
        self.prepare_for(false)
    }

    /// Prepares a launch. `another_thread`: another one may launch, and the command gets the mask of this
    /// one.
    fn prepare_for(&self, another_thread: bool) -> Result<Prepared, LaunchError> {
        let bytes = self.message.len();
        let mut message = zeroed(bytes).ok_or(LaunchError::NoMemory { bytes })?;
        message.copy_from_slice(&self.message);
        let state = query::signals_of_this_thread();
        let mut policy = self.policy;
        // Without a /proc the handlers are not known. They must not run in a process that shares the memory.
        policy.launch.copied_memory |= state.is_none() || !query::may_share_memory();
        let mask_here = state.filter(|_| another_thread).map(|state| state.blocked);
        let state = state.unwrap_or_default();
        let mut signals = self.signals.unwrap_or_else(|| state.after_exec());
        signals.default.0 |= state.caught.0;
        signals.mask = signals.mask.or(mask_here);
        Ok(Prepared {
            message,
            asked: self.asked,
            policy,
            level: self.level,
            signals,
            interrupt: self.interrupt,
            timeout: self.timeout,
            timer: None,
            named: self.named.clone(),
            around: self.around.clone(),
            moves: Vec::new(),
            owned: self.owned.clone(),
            marked_copy: sealed::is_marked_copy(),
            texts: self.command.texts(std::env::vars_os().collect())?,
        })
    }

    /// Starts the command, and returns after its exec.
    ///
    /// The command is a child of this process. With [`LaunchPolicy::kill_child`] it gets SIGKILL when **this
    /// thread** ends. Launches of several threads run at the same time; only their forks wait for
    /// each other.
    ///
    /// # Errors
    /// The reason why the command does not run. The launch then leaves no process and no descriptor.
    ///
    /// # Aborts
    /// If the process shares this memory and cannot be ended: it does not end by itself, and the kernel
    /// refuses SIGKILL (a seccomp filter without kill(2)).
    pub fn spawn(&mut self) -> Result<Child, LaunchError> {
        self.spawn_prepared(self.prepare()?, None)
    }

    /// Starts a prepared launch through the kernel itself.
    fn spawn_prepared<'a>(
        &self,
        mut prepared: Prepared,
        before_start: Option<&'a mut spawn::BeforeStart<'a>>,
    ) -> Result<Child, LaunchError> {
        // Runs in the launching thread, whose ids and capabilities decide.
        let stack = |prepared: &Prepared| {
            let root_ids = query::has_root_ids();
            let mut memory = prepared.memory(root_ids, &Protection::NONE);
            // The protection is read only if it decides: nothing else asks for a copy.
            let decides = prepared.asked.contains(CloneFlags::NEWUSER) || self.policy.launch.changes_ids();
            if memory.is_shared() && decides {
                memory = prepared.memory(root_ids, &own_protection());
            }
            // Without memory for the stack the process gets a copy, which needs none.
            if memory.is_shared() { StackMemory::new(memory) } else { None }
        };
        // The parent-death signal would follow the other thread.
        match spawn::is_in_function() && !self.policy.launch.kill_child {
            true => spawn::on_other_thread(|| self.spawn_with(&mut prepared, before_start, |sys| sys, stack)),
            false => self.spawn_with(&mut prepared, before_start, |sys| sys, stack),
        }
    }

    /// Does the same as [`spawn`](Self::spawn), but makes every system call through the backend that `wrap`
    /// returns. `wrap` gets the real backend; a recorder is an example of its result. This process must have
    /// one thread, because in the stages the wrapped backend may allocate memory or take locks.
    ///
    /// Each process has a copy of the wrapped backend, so its memory is a copy too, as with
    /// [`copy_memory`](Self::copy_memory). With [`Descriptors::Named`] the first process closes the
    /// descriptors that the launch does not use. A backend that needs one leaves it open in
    /// [`close_range`](Sys::close_range) and [`close`](Sys::close).
    ///
    /// # Errors
    /// The same as [`spawn`](Self::spawn).
    pub fn spawn_through<S: Sys>(&mut self, wrap: impl FnOnce(LinuxSys) -> S) -> Result<Child, LaunchError> {
        self.spawn_with(&mut self.prepare()?, None, wrap, |_| None)
    }

    /// Starts a prepared launch.
    fn spawn_with<'a, S: Sys>(
        &self,
        prepared: &mut Prepared,
        before_start: Option<&'a mut spawn::BeforeStart<'a>>,
        wrap: impl FnOnce(LinuxSys) -> S,
        stack: impl FnOnce(&Prepared) -> Option<StackMemory>,
    ) -> Result<Child, LaunchError> {
        // Checked before the launcher opens a pipe, which could get the same number.
        if let Some(fd) = prepared.named.iter().find(|fd| !is_open(**fd)) {
            return Err(LaunchError::Descriptor(*fd));
        }
        let timer = prepared.timeout.map(spawn::timer).transpose()?;
        prepared.timer = timer.as_ref().map(|timer| Fd(timer.as_fd().as_raw_fd()));
        let stack = stack(prepared);
        let (launched, records) =
            spawn::spawn(prepared, stack.as_ref().map(StackMemory::stack), before_start, wrap);
        let first = prepared.asked.contains(CloneFlags::NEWPID);
        let mut launched = launched.map(|pid| Child::new(pid, first));
        if let Some(take) = self.on_record.as_ref().filter(|_| !records.is_empty()) {
            // If `take` panics, the command is killed: the caller has no handle of it yet.
            let mut kill_on_drop = |kill| launched.iter_mut().for_each(|child| child.kill_on_drop(kill));
            kill_on_drop(true);
            // A panic in an earlier launch left nothing half done here.
            let mut take = take.lock().unwrap_or_else(PoisonError::into_inner);
            records.iter().for_each(&mut *take);
            kill_on_drop(false);
        }
        launched
    }
}

/// Returns zeroed memory of this length in bytes, or `None` if there is not enough.
fn zeroed(length: usize) -> Option<Vec<u8>> {
    let mut memory = Vec::new();
    memory.try_reserve_exact(length).ok()?;
    memory.resize(length, 0);
    Some(memory)
}
