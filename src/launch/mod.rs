//! The launcher: starts a command in namespaces, for programs in Rust.
//!
//! ```text
//! Launcher ── fork ──> stage 0 ──> stage 1 ──> stage 2 ── execve ──> the command
//!    │ message, pid line, reaping, the word to go │                      │
//!    └──────────────── Child: wait, signal ───────┴──────────────────────┘
//! ```
//!
//! There is no second program and no second exec: stage 0 is a fork of this process and runs the core at once. Nothing
//! is allocated after the fork, so this process may have threads. [`script`] is the launcher's half of the protocol and
//! [`tail`] the last steps of stage 2, both over [`Sys`]; what lies around them is here.
//!
//! Whatever happens, nothing is left: a launch that fails has reaped its stages and closed its descriptors, and if the
//! launcher is killed before the command runs, the stages end.
//!
//! **A program that joins a mount namespace** calls [`run_from_sealed_copy`] first in `main`. Otherwise a process in that
//! namespace could overwrite the program's file (CVE-2019-5736), and the launch is refused.
//!
//! ```no_run
//! use nsexec::bootstrap::{Bootstrap, Dialect};
//! use nsexec::idmap::IdMap;
//! use nsexec::launch::Launcher;
//! use nsexec::policy::Policy;
//! use nsexec::sys::types::CloneFlags;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let root = c"0 1000 1\n"; // root inside is the user 1000 outside
//! let map = IdMap::parse(root).unwrap();
//! let bootstrap = Bootstrap::new(CloneFlags::NEWUSER.union(CloneFlags::NEWUTS))
//!     .with_uid_map(map)
//!     .with_gid_map(map)
//!     .with_rootless_euid(true);
//! let mut child = Launcher::new(&bootstrap, Policy::runc(&Dialect::V1_2))?.command("id", ["-u"]).spawn()?;
//! assert!(child.wait()?.success());
//! # Ok(())
//! # }
//! ```

mod causes;
mod child;
mod command;
mod error;
mod prepared;
mod proc_status;
mod record;
/// Runs in the stages too, so the lints of the core hold again.
#[deny(clippy::as_conversions, clippy::arithmetic_side_effects, clippy::unreachable)]
pub mod script;
mod sealed;
pub mod signals;
mod signals_error;
mod spawn;
/// As [`script`].
#[deny(clippy::as_conversions, clippy::arithmetic_side_effects, clippy::unreachable)]
pub mod tail;
#[deny(clippy::as_conversions, clippy::arithmetic_side_effects, clippy::unreachable)]
mod watch;

use std::boxed::Box;
use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;
use std::vec::Vec;

use core::fmt;

pub use causes::likely;
pub use child::{Child, exit_code};
pub use command::CommandError;
#[doc(hidden)]
pub use command::{NulTerminated, Texts};
pub use error::{LaunchError, StageFailure};
pub use prepared::Prepared;
pub use proc_status::number_in_proc;
pub use record::{Collector, Record};
pub use sealed::{SealedCopyError, run_from_sealed_copy};
pub use spawn::{execute, hold, is_open, kind_of, maker_of, owner_of, without_sigxfsz};

use crate::bootstrap::{Bootstrap, ByteOrder, Dialect, EncodeError, MESSAGE_MAX, encode, encoded_len};
use crate::log::Level;
use crate::policy::{Descriptors, LogForm, Policy};
use crate::sys::Sys;
use crate::sys::linux::LinuxSys;
use crate::sys::types::{CloneFlags, Fd};
use command::Command;
use proc_status::ProcStatus;
use script::ChildSignals;

/// What is to be started, and in which namespaces.
///
/// It may be used again: each [`spawn`](Self::spawn) starts another command.
pub struct Launcher {
    message: Vec<u8>,
    asked: CloneFlags,
    policy: Policy,
    level: Level,
    command: Command,
    signals: Option<ChildSignals>,
    interrupt: Option<Fd>,
    timeout: Option<Duration>,
    named: Vec<Fd>,
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
    /// A launcher for the namespaces of `bootstrap`, with what a message cannot say in `policy`.
    ///
    /// Stages and launcher come from one program here, so the dialect and the form of the log records are always our
    /// own newest, whatever the policy says.
    ///
    /// # Errors
    /// If the message cannot carry what `bootstrap` says, or there is no memory for it.
    pub fn new(bootstrap: &Bootstrap<'_>, policy: Policy) -> Result<Self, EncodeError> {
        // A longer one is refused below.
        let needed = encoded_len(bootstrap).min(MESSAGE_MAX);
        let mut message = zeroed(needed).ok_or(EncodeError::NoMemory { needed })?;
        let len = encode(bootstrap, &Dialect::V1_2, ByteOrder::NATIVE, &mut message)?;
        message.truncate(len);
        Ok(Self {
            message,
            asked: bootstrap.clone_flags(),
            policy: Policy {
                dialect: &Dialect::V1_2,
                log_form: LogForm::Detailed,
                ends_with_launcher: true,
                ..policy
            },
            level: Level::Warning,
            command: Command::default(),
            signals: None,
            interrupt: None,
            timeout: None,
            named: Vec::new(),
            on_record: None,
        })
    }

    /// The command and its arguments. A name without a slash is searched in the command's own PATH, and in its own
    /// root directory: after the joins.
    pub fn command<A: AsRef<OsStr>>(
        &mut self,
        program: impl AsRef<OsStr>,
        args: impl IntoIterator<Item = A>,
    ) -> &mut Self {
        let args = args.into_iter().map(|arg| arg.as_ref().into());
        self.command.words = core::iter::once(program.as_ref().into()).chain(args).collect();
        self
    }

    /// Sets a variable of the command's environment, which otherwise is ours.
    pub fn env(&mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> &mut Self {
        self.command.set_env(name.as_ref(), value.as_ref());
        self
    }

    /// Leaves a variable of our environment out.
    pub fn env_remove(&mut self, name: impl AsRef<OsStr>) -> &mut Self {
        self.command.remove_env(name.as_ref());
        self
    }

    /// Leaves out all variables that there are so far.
    pub fn env_clear(&mut self) -> &mut Self {
        self.command.clear_env();
        self
    }

    /// Passes this descriptor on to the command, under its own number; with this, or with
    /// [`Descriptors::Named`] in the policy, the command gets no other descriptor above 2.
    ///
    /// It need not be inheritable. It must be open at every launch, which otherwise fails with
    /// [`LaunchError::Descriptor`].
    pub fn pass_descriptor(&mut self, fd: Fd) -> &mut Self {
        self.policy.descriptors = Descriptors::Named;
        if !self.named.contains(&fd) {
            self.named.push(fd);
        }
        self
    }

    /// Which records the stages write besides fatal ones. Without a word, warnings.
    pub fn level(&mut self, level: Level) -> &mut Self {
        self.level = level;
        self
    }

    /// Who gets the stages' records, fatal ones excepted: those are in the error.
    ///
    /// Called by [`spawn`](Self::spawn) in this process, when the launch is over: the command runs, or nothing is left of
    /// it. `take` may launch something itself. If it panics, the command is killed and reaped, and the panic goes on.
    pub fn on_record(&mut self, take: impl FnMut(&Record) + 'static) -> &mut Self {
        self.on_record = Some(Box::new(take));
        self
    }

    /// The signal state that the command begins with.
    ///
    /// Without a word: this thread's mask, and the dispositions as an exec would leave them, except that SIGPIPE is
    /// not ignored, as with [`std::process::Command`].
    pub fn signals(&mut self, signals: ChildSignals) -> &mut Self {
        self.signals = Some(signals);
        self
    }

    /// The command begins with the signals as they were before [`Signals::take`](signals::Signals::take), and INT, TERM,
    /// HUP and QUIT end a launch that takes long, unless they were ignored or blocked then:
    /// [`LaunchError::Interrupted`]. `signals` must live until the last launch.
    pub fn supervised(&mut self, signals: &signals::Signals) -> &mut Self {
        self.signals = Some(signals.original());
        self.interrupt = Some(signals.interrupt());
        self
    }

    /// How long the launch may take, from [`spawn`](Self::spawn) until the command runs; by default as long as it likes. Then
    /// the stages are ended and reaped, and the error is [`LaunchError::TimedOut`]. A wait for the launches of other threads
    /// counts. A limit above 68 years is one of 68 years.
    ///
    /// The command itself may run as long as it likes.
    pub fn timeout(&mut self, limit: Duration) -> &mut Self {
        self.timeout = Some(limit);
        self
    }

    /// Joins a mount namespace also if this program does not run from a sealed copy of itself.
    ///
    /// Only for a namespace in which every process is trusted, and every file that could be executed: one that this
    /// program made itself, say. Any other can overwrite this program's file, with this program's privileges, through
    /// /proc/self/exe (CVE-2019-5736). The safe way is [`run_from_sealed_copy`].
    pub fn trust_mount_namespace(&mut self) -> &mut Self {
        self.policy.trusted_mounts = true;
        self
    }

    /// Everything that a launch needs, made before any fork: what [`spawn`](Self::spawn) runs, and what a plan runs on a
    /// simulated kernel.
    ///
    /// # Errors
    /// A command that no exec can express; no memory for the message or the command's texts.
    pub fn prepare(&self) -> Result<Prepared, LaunchError> {
        let bytes = self.message.len();
        let mut message = zeroed(bytes).ok_or(LaunchError::NoMemory { bytes })?;
        message.copy_from_slice(&self.message);
        Ok(Prepared {
            message,
            asked: self.asked,
            policy: self.policy,
            level: self.level,
            signals: self.signals.unwrap_or_else(|| ProcStatus::of_this_thread().as_after_an_exec()),
            interrupt: self.interrupt,
            timeout: self.timeout,
            timer: None,
            named: self.named.clone(),
            marked_copy: sealed::is_marked_copy(),
            texts: self.command.texts(std::env::vars_os().collect())?,
        })
    }

    /// Starts the command, and comes back when it runs: after its exec.
    ///
    /// It is a child of this process. With [`Policy::kill_child`] it gets SIGKILL when **this thread** ends. Launches
    /// of several threads go one after the other.
    ///
    /// # Errors
    /// Why it does not run. Nothing is left of it then.
    pub fn spawn(&mut self) -> Result<Child, LaunchError> {
        self.spawn_through(|sys| sys)
    }

    /// As [`spawn`](Self::spawn), with every system call going through what `wrap` makes of the real backend: a
    /// recorder, say. What it allocates or locks it does in the stages too, so this process must have one thread.
    ///
    /// # Errors
    /// As [`spawn`](Self::spawn).
    pub fn spawn_through<S: Sys>(&mut self, wrap: impl FnOnce(LinuxSys) -> S) -> Result<Child, LaunchError> {
        let mut prepared = self.prepare()?;
        // Before we open a pipe that would get the number.
        if let Some(fd) = prepared.named.iter().find(|fd| !spawn::is_open(**fd)) {
            return Err(LaunchError::Descriptor(*fd));
        }
        let timer = prepared.timeout.map(spawn::timer).transpose()?;
        prepared.timer = timer.as_ref().map(|timer| Fd(timer.as_fd().as_raw_fd()));
        let (launched, records) = spawn::spawn(&prepared, wrap);
        let first = prepared.asked.contains(CloneFlags::NEWPID);
        let mut launched = launched.map(|pid| Child::new(pid, first));
        if let Some(take) = &mut self.on_record {
            let unclaimed = launched.as_mut().ok().map(Unclaimed);
            records.iter().for_each(take);
            // From here on it is the caller's.
            core::mem::forget(unclaimed);
        }
        launched
    }
}

/// Memory of this length, or `None` if there is none.
fn zeroed(length: usize) -> Option<Vec<u8>> {
    let mut memory = Vec::new();
    memory.try_reserve_exact(length).ok()?;
    memory.resize(length, 0);
    Some(memory)
}

/// A command whose launch the caller does not know of yet. It ends if the caller's own code unwinds.
struct Unclaimed<'c>(&'c mut Child);

impl Drop for Unclaimed<'_> {
    fn drop(&mut self) {
        // It is ours and not reaped, so both fail only if SIGCHLD is ignored: then the kernel reaps it.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
