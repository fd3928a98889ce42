//! [`Prepared`]: a launch whose inputs are complete.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use std::vec::Vec;

use super::error::LaunchError;
use super::kept::kept;
use super::pipes::LogReader;
use super::policy::Descriptors;
use super::record::Record;
use super::script::{ChildSignals, Failure, Job, Launched, launch};
use super::shape::{Memory, Protection, Shape, WhyCopied, memory, shape};
use super::shared::Stack;
use super::strings::{CommandError, CommandStrings, shown};
use super::surroundings::{Move, Surroundings};
use super::tail::Tail;
use crate::deciders::bootstrap::decode;
use crate::deciders::namespace::NsKind;
use crate::deciders::policy::{Policy, Session};
use crate::scripts::nsexec::Scratch;
use crate::sys::Sys;
use crate::sys::types::{ArgPtr, CloneFlags, ExecArgs, Fd, ScriptArgs};
use crate::words::log::Level;

/// The inputs of a launch: message, policy, command, signals. None of them depends on the backend, so a plan
/// and the launch itself run the same.
#[derive(Clone, Debug)]
pub struct Prepared {
    #[doc(hidden)]
    pub message: Vec<u8>,
    #[doc(hidden)]
    pub asked: CloneFlags,
    #[doc(hidden)]
    pub policy: Policy,
    #[doc(hidden)]
    pub level: Level,
    #[doc(hidden)]
    pub signals: ChildSignals,
    #[doc(hidden)]
    pub interrupt: Option<Fd>,
    #[doc(hidden)]
    pub timeout: Option<Duration>,
    #[doc(hidden)]
    pub timer: Option<Fd>,
    #[doc(hidden)]
    pub named: Vec<Fd>,
    #[doc(hidden)]
    pub marked_copy: bool,
    #[doc(hidden)]
    pub around: Surroundings,
    #[doc(hidden)]
    pub moves: Vec<Move>,
    /// The descriptors that must stay open until the launch is over: those of `moves`, and namespaces to
    /// join.
    #[doc(hidden)]
    pub owned: Vec<Arc<OwnedFd>>,
    #[doc(hidden)]
    pub texts: CommandStrings,
}

impl Prepared {
    /// The encoded bootstrap message.
    #[must_use]
    pub fn message(&self) -> &[u8] {
        &self.message
    }

    /// The settings that a bootstrap message cannot carry.
    #[must_use]
    pub const fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The files that the command's process tries to execute, in this order.
    pub fn candidates(&self) -> impl Iterator<Item = &[u8]> {
        self.texts
            .candidates
            .text
            .split_inclusive(|byte| *byte == 0)
            .filter_map(|path| path.strip_suffix(&[0]))
    }

    /// The command's name and arguments, as given.
    pub fn argv(&self) -> impl Iterator<Item = &[u8]> {
        self.texts.argv.text.split_inclusive(|byte| *byte == 0).filter_map(|word| word.strip_suffix(&[0]))
    }

    /// The descriptors above 2 that the command gets, if the policy names them.
    #[must_use]
    pub fn named_descriptors(&self) -> &[Fd] {
        &self.named
    }

    /// Returns the shape of the start. `None` if the message cannot be decoded: stage 0 reports the error. If
    /// the kernel refuses a direct start, the launcher starts the command through the stages.
    #[must_use]
    pub fn shape(&self) -> Option<Shape> {
        let (asked, _) = decode(&self.message, self.policy.dialect).ok()?;
        Some(shape(&asked, &self.policy))
    }

    /// Returns whether the process of a direct start shares the launcher's memory: see
    /// [`memory`].
    #[must_use]
    pub fn memory(&self, root_ids: bool, protection: &Protection) -> Memory {
        match decode(&self.message, self.policy.dialect) {
            Ok((asked, _)) => {
                let (runs_code, enters_cgroup) = (self.around.hooks() > 0, !self.around.cgroups.is_empty());
                memory(&asked, &self.policy, runs_code, enters_cgroup, root_ids, protection)
            }
            // The stages report the error.
            Err(_) => Memory::Copied(WhyCopied::Stages),
        }
    }

    /// Returns the path of the user namespace to join; empty without one.
    fn user_namespace(&self) -> Vec<u8> {
        let decoded = decode(&self.message, self.policy.dialect).ok();
        let paths = decoded.and_then(|(bootstrap, _)| bootstrap.namespaces());
        let user = paths.and_then(|paths| paths.iter().find(|entry| entry.kind == NsKind::User));
        user.map_or_else(Vec::new, |entry| entry.path.to_vec())
    }

    /// Returns whether a signal may end the launch.
    #[must_use]
    pub const fn is_interruptible(&self) -> bool {
        self.interrupt.is_some()
    }

    /// Returns the descriptor that ends the launch when it becomes readable.
    #[must_use]
    pub const fn interrupt(&self) -> Option<Fd> {
        self.interrupt
    }

    /// Returns the same launch with another descriptor for its interruption. For a process in which the first
    /// descriptor is not open.
    #[must_use]
    pub fn interrupted_through(self, interrupt: Fd) -> Self {
        Self { interrupt: Some(interrupt), ..self }
    }

    /// The time limit of the launch.
    #[must_use]
    pub const fn timeout(&self) -> Option<Duration> {
        self.timeout
    }

    /// The timerfd of the time limit, once the launch has begun.
    #[must_use]
    pub const fn timer(&self) -> Option<Fd> {
        self.timer
    }

    /// Returns the same launch with this timerfd, which is readable when the time limit expires
    /// (timerfd_create(2)).
    #[must_use]
    pub fn timed_through(self, timer: Fd) -> Self {
        Self { timer: Some(timer), ..self }
    }

    /// Runs the launch over any backend. Stage 0 reads the message into `memory`, which must be at least as
    /// long as [`message`](Self::message). With a `stack` the process of a direct start shares this process's
    /// memory: see [`memory`](Self::memory).
    ///
    /// Returns in the launcher, and with [`Launched::Exit`] in each process of the launch that ends. The
    /// caller then exits that process. For a simulated or a replayed launch: it frees memory before it
    /// returns, which is not safe in a process of a real one.
    pub fn run<S: Sys, L: LogReader>(
        &self,
        sys: &mut S,
        memory: &mut [u8],
        stack: Option<&Stack>,
        log: &mut L,
    ) -> Launched {
        match self.texts_of_exec() {
            Ok(mut texts) => self.run_in(&mut texts, sys, memory, stack, log),
            // A real launch has an error for it.
            Err(_no_memory) => Launched::Exit(1),
        }
    }

    /// Returns the memory that [`run_in`](Self::run_in) needs.
    ///
    /// # Errors
    /// [`CommandError::NoMemory`].
    pub(super) fn texts_of_exec<'a>(&self) -> Result<ExecTexts<'a>, CommandError> {
        let slots = self.texts.slots()?;
        let texts = [&self.message[..], &self.texts.candidates.text];
        let named = self.policy.launch.descriptors == Descriptors::Named;
        // A start in place closes nothing: after a failure this process still has its descriptors.
        let named = named && !self.policy.launch.in_place;
        let kept = named.then(|| kept(texts, &self.named, &self.moves, Some(&self.around))).flatten();
        Ok(ExecTexts { slots, user_namespace: self.user_namespace(), kept })
    }

    /// Does the same as [`run`](Self::run), and neither allocates nor frees memory after the fork: another
    /// thread of this program may hold the allocator's lock at that time, and a process of the launch would
    /// wait for it for ever.
    pub(super) fn run_in<'a, S: Sys, L: LogReader>(
        &'a self,
        ExecTexts { slots, user_namespace, kept }: &'a mut ExecTexts<'a>,
        sys: &mut S,
        memory: &mut [u8],
        stack: Option<&Stack>,
        log: &mut L,
    ) -> Launched {
        let creates_mounts = self.asked.contains(CloneFlags::NEWNS);
        let tail = Tail {
            propagation: self.policy.launch.propagation.filter(|_| creates_mounts),
            mount_proc: self.policy.launch.mount_proc,
            kill_child: self.policy.launch.kill_child,
            init: self.policy.launch.init,
            pins: self.policy.launch.pins,
            leads_session: self.policy.session == Session::New,
            descriptors: (self.policy.launch.descriptors == Descriptors::Named).then_some(&self.named[..]),
            kept: kept.as_deref(),
            user_namespace,
            around: Some(&self.around),
            gid: self.policy.launch.gid,
            uid: self.policy.launch.uid,
            moves: &self.moves,
            ..self.texts.tail(slots)
        };
        let job = Job {
            message: &self.message,
            policy: &self.policy,
            level: self.level,
            signals: self.signals,
            interrupt: self.interrupt,
            timer: self.timer,
            marked_copy: self.marked_copy,
            stack,
            tail,
        };
        launch(sys, &job, &mut Scratch { message: memory }, log)
    }

    /// Returns the error of a failed launch: the launcher's observations, and the fatal records that the
    /// stages wrote.
    #[must_use]
    pub fn explain(&self, failure: Failure, fatal: Vec<Record>) -> LaunchError {
        LaunchError::new(failure, fatal, shown(&self.texts.name), self.asked)
    }
}

/// The memory of a launch for the arguments of its execve, for an error's text, and for the descriptors that
/// its processes keep.
pub(super) struct ExecTexts<'a> {
    slots: Slots<'a>,
    user_namespace: Vec<u8>,
    kept: Option<Vec<Fd>>,
}

impl ExecTexts<'_> {
    /// Returns whether the processes of the launch keep all descriptors up to the exec.
    pub(super) const fn keeps_all(&self) -> bool {
        self.kept.is_none()
    }
}

impl CommandStrings {
    /// Returns memory for the pointers that execve(2) takes.
    ///
    /// # Errors
    /// [`CommandError::NoMemory`].
    pub(super) fn slots<'a>(&self) -> Result<Slots<'a>, CommandError> {
        let scripts = ScriptArgs::width(self.argv.count).saturating_mul(self.candidates.count);
        Ok(Slots {
            argv: pointers(self.argv.count.saturating_add(1))?,
            scripts: pointers(scripts)?,
            envp: pointers(self.envp.count.saturating_add(1))?,
        })
    }

    /// Returns a tail whose only step is the exec of the command.
    pub(super) fn tail<'a>(&'a self, Slots { argv, scripts, envp }: &'a mut Slots<'a>) -> Tail<'a> {
        let built = ExecArgs::build(&self.argv.text, argv).and_then(|argv| {
            let scripts = ScriptArgs::build(&self.candidates.text, &argv, scripts)?;
            Some((argv, scripts, ExecArgs::build(&self.envp.text, envp)?))
        });
        let Some((argv, scripts, envp)) = built else {
            unreachable!("every string has its NUL, and every one a slot");
        };
        let (name, candidates) = (&self.name[..], &self.candidates.text[..]);
        Tail {
            propagation: None,
            mount_proc: false,
            kill_child: false,
            init: false,
            pins: false,
            leads_session: false,
            descriptors: None,
            kept: None,
            user_namespace: b"",
            around: None,
            gid: None,
            uid: None,
            moves: &[],
            name,
            candidates,
            argv,
            scripts,
            envp,
        }
    }
}

/// The pointers of the argument arrays, each array with the null pointer at its end.
pub(super) struct Slots<'a> {
    argv: Vec<Option<ArgPtr<'a>>>,
    scripts: Vec<Option<ArgPtr<'a>>>,
    envp: Vec<Option<ArgPtr<'a>>>,
}

fn pointers<'a>(count: usize) -> Result<Vec<Option<ArgPtr<'a>>>, CommandError> {
    let mut pointers = Vec::new();
    pointers.try_reserve_exact(count).map_err(|_| CommandError::NoMemory)?;
    pointers.resize(count, None);
    Ok(pointers)
}
