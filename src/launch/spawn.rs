//! The surroundings of the launch script: allocates memory, creates the [`LinuxSys`], and exits the stages.
//!
//! The launch script makes its calls through a [`Sys`]. The calls of this file surround the script, and a
//! record does not contain them: the turn to fork, the page that detects a fork, the stack of a process that
//! shares the memory, the timer of the time limit, and the exit of a stage.

use std::any::Any;
use std::boxed::Box;
use std::cell::Cell;
use std::ffi::OsStr;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::{self, NonNull};
use std::string::{String, ToString};
use std::sync::mpsc::channel;
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread::Builder;
use std::thread_local;
use std::time::Duration;
use std::vec::Vec;

use nix::sys::signal::SigSet;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::{Pid as NixPid, getpid, gettid};

use super::LaunchError;
use super::handle::Child;
use super::pipes::LogReader;
use super::prepared::Prepared;
use super::record::{Collector, Record};
use super::script::{Failure, FailureKind, Launched, Step};
use super::shared::{self, Stack};
use super::strings::CommandLine;
use super::tail;
use super::watch::Watch;
use crate::sys::Sys;
use crate::sys::linux::LinuxSys;
use crate::sys::types::{Errno, Pid, SysResult};

/// The launches of this process in the part between the creation of their pipes and the moment at which the
/// launcher has closed the stages' ends of them.
///
/// A fork copies every descriptor, and so the ends of each launch in this part. Usually the first process
/// of a launch closes them at once (`closing`), and any number of such launches may be in this part.
///
/// The processes of other launches keep all descriptors up to the exec: those whose command inherits all, and
/// those with code of the caller. Such a launch is alone in this part. Otherwise its processes could keep a
/// log pipe or an init pipe of another launch open, and the other launcher would wait for the end of the file
/// until their exec. So they hold only copies of the launcher's ends of earlier launches. After the
/// launcher's death, the stages of the latest launch get the end of file first, and those of the earlier ones
/// as soon as these have ended.
static LAUNCHES: Mutex<Launches> =
    Mutex::new(Launches { running: 0, alone: false, waiting: 0, waiting_alone: 0 });

/// Notified when a launch has left that part.
static LAUNCH_ENDED: Condvar = Condvar::new();

/// The interval in which a waiting launch checks for an interrupt or its time limit.
const CHECK_INTERVAL: Duration = Duration::from_millis(20);

/// The launches of this process in that part.
#[derive(Debug)]
struct Launches {
    /// Their number.
    running: usize,
    /// Whether one of them is alone.
    alone: bool,
    /// The number of threads that wait for their turn.
    waiting: usize,
    /// The number of those that wait to be alone. The others wait for them.
    waiting_alone: usize,
}

impl Launches {
    const fn may_begin(&self, alone: bool) -> bool {
        match alone {
            true => self.running == 0,
            false => !self.alone && self.waiting_alone == 0,
        }
    }
}

/// The turn of one launch to fork.
struct Turn(());

/// Collects the records of a launch, and waits for its turns to fork.
struct CollectorWithTurn<'c, 'h> {
    collector: &'c mut Collector,
    watch: Watch,
    /// Whether the launch's processes keep descriptors of other launches.
    alone: bool,
    turn: Option<Turn>,
    before_start: Option<&'h mut BeforeStart<'h>>,
    /// The text of the error of `before_start`.
    refused: String,
    /// The panic of `before_start`, which continues when the launch is over.
    panic: Option<Box<dyn Any + Send>>,
}

/// The caller's function before the start.
pub(super) type BeforeStart<'a> = dyn FnMut(Pid) -> io::Result<()> + Send + 'a;

thread_local! {
    /// The number of functions before a start that this thread's launches are inside of. The process of such
    /// a start is a child of the thread that runs the function, without an exit signal.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// Returns whether this thread runs the caller's function before a start. The launcher of another start on
/// this thread would wait for the process of the first one.
pub(super) fn is_in_function() -> bool {
    DEPTH.get() > 0
}

/// Returns whether this thread runs such a function for a launch that another such function has made.
pub(super) fn is_nested() -> bool {
    DEPTH.get() > 1
}

impl LogReader for CollectorWithTurn<'_, '_> {
    fn take(&mut self, bytes: &[u8]) {
        self.collector.take(bytes);
    }

    fn fatal(&self) -> bool {
        self.collector.fatal()
    }

    fn wait_for_turn(&mut self) -> Result<(), FailureKind> {
        self.turn = Some(Turn::wait(&mut self.watch, self.alone)?);
        Ok(())
    }

    fn end_turn(&mut self) {
        self.turn = None;
    }

    fn hide<S: Sys>(&mut self, sys: &mut S) -> SysResult<()> {
        shared::hide(sys)
    }

    fn unhide<S: Sys>(&mut self, sys: &mut S) {
        shared::unhide(sys);
    }

    fn before_start(&mut self, pid: Pid) -> Result<(), FailureKind> {
        let Some(call) = &mut self.before_start else { return Ok(()) };
        let outer = DEPTH.get();
        DEPTH.set(outer.saturating_add(1));
        // A panic must not unwind through the script: the process would wait for the go byte for ever.
        let called = catch_unwind(AssertUnwindSafe(|| call(pid)));
        DEPTH.set(outer);
        match called {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted && self.watch.can_end() => {
                self.refused = error.to_string();
                // SAFETY: as in `Turn::wait`.
                self.watch.pause(&mut unsafe { LinuxSys::new() }, 0)?;
            }
            Ok(Err(error)) => self.refused = error.to_string(),
            Err(panic) => self.panic = Some(panic),
        }
        Err(FailureKind::BeforeStart)
    }
}

impl Turn {
    /// Waits until this launch may fork, `alone` or beside others. That wait has no limit of its own: a
    /// recorder can block the other launch for ever. So an interrupt or the time limit of this launch ends
    /// the wait.
    ///
    /// # Errors
    /// [`FailureKind::Interrupted`] or [`FailureKind::TimedOut`].
    fn wait(watch: &mut Watch, alone: bool) -> Result<Self, FailureKind> {
        // SAFETY: the backend polls, and reads a signal from the caller's own descriptor. It does not fork.
        let mut sys = unsafe { LinuxSys::new() };
        let mut launches = LAUNCHES.lock().unwrap_or_else(PoisonError::into_inner);
        while !launches.may_begin(alone) {
            if watch.can_end() {
                watch.pause(&mut sys, 0)?;
            }
            launches.waiting += 1;
            launches.waiting_alone += usize::from(alone);
            launches = match watch.can_end() {
                true => {
                    LAUNCH_ENDED
                        .wait_timeout(launches, CHECK_INTERVAL)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
                false => LAUNCH_ENDED.wait(launches).unwrap_or_else(PoisonError::into_inner),
            };
            launches.waiting -= 1;
            launches.waiting_alone -= usize::from(alone);
        }
        launches.running += 1;
        launches.alone = alone;
        Ok(Self(()))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut launches = LAUNCHES.lock().unwrap_or_else(PoisonError::into_inner);
        launches.running -= 1;
        launches.alone = false;
        // Notified only if a thread waits: `notify_all` makes a system call, which strace shows and a
        // recorder does not.
        if launches.waiting > 0 {
            LAUNCH_ENDED.notify_all();
        }
    }
}

/// Runs a launch: allocates all memory, forks, and exits the stages. Returns in the launcher only: the
/// command's pid or the error, and the records that are not in the error. The only code of the caller that
/// runs in here is the backend of `wrap`.
pub(super) fn spawn<'a, S: Sys>(
    prepared: &Prepared,
    stack: Option<&Stack>,
    before_start: Option<&'a mut BeforeStart<'a>>,
    wrap: impl FnOnce(LinuxSys) -> S,
) -> (Result<Pid, LaunchError>, Vec<Record>) {
    let mut collector = Collector::default();
    // The buffer of stage 0 for the message. Stage 0 must not allocate, since this process may have other
    // threads.
    let bytes = prepared.message.len();
    let Some(mut message) = super::zeroed(bytes) else {
        return (Err(LaunchError::NoMemory { bytes }), Vec::new());
    };
    let mut texts = match prepared.texts_of_exec() {
        Ok(texts) => texts,
        Err(error) => return (Err(error.into()), Vec::new()),
    };
    // SAFETY: the script closes, reads and writes its own descriptors, waits for the stages, and changes this
    // thread's mask for the time of the fork. The child of its fork returns from the script with `Exit` and
    // exits below. On its way it runs the script and the core, which allocate no memory and take no lock.
    let mut sys = wrap(unsafe { LinuxSys::new() });
    let unwind_guard = UnwindGuard::new();
    let watch = Watch::new(prepared.interrupt, prepared.timer);
    let mut log = CollectorWithTurn {
        collector: &mut collector,
        watch,
        alone: texts.keeps_all(),
        turn: None,
        before_start,
        refused: String::new(),
        panic: None,
    };
    let launched = prepared.run_in(&mut texts, &mut sys, &mut message, stack, &mut log);
    if let Launched::Exit(status) = launched {
        // SAFETY: this process is a stage, on a copy of the launcher's stack. The stack must be neither
        // unwound nor dropped here (a drop would free memory), and _exit touches no memory.
        unsafe { libc::_exit(status) }
    }
    drop(unwind_guard);
    let (refused, panic) = (log.refused, log.panic);
    if let Some(panic) = panic {
        resume_unwind(panic);
    }
    let (fatal, other) = collector.into_records();
    let result = match launched {
        Launched::Started { pid } => Ok(pid),
        Launched::Failed(Failure { kind: FailureKind::BeforeStart, .. }) => {
            Err(LaunchError::BeforeStart { error: refused })
        }
        Launched::Failed(failure) => Err(prepared.explain(failure, fatal)),
        Launched::Exit(_) => unreachable!("ended above"),
    };
    (result, other)
}

/// Runs a launch in place, and exits its helper. Returns only if the command does not run: the error, and the
/// records that are not in it. `deliver` gets the records before the exec. The code of the caller that runs
/// in here is `deliver` and the backend of `wrap`.
pub(super) fn exec<S: Sys>(
    prepared: &Prepared,
    deliver: impl FnMut(&[Record]),
    wrap: impl FnOnce(LinuxSys) -> S,
) -> (LaunchError, Vec<Record>) {
    let mut texts = match prepared.texts_of_exec() {
        Ok(texts) => texts,
        Err(error) => return (error.into(), Vec::new()),
    };
    // SAFETY: the script closes, reads and writes its own descriptors, and changes this process as the caller
    // of the exec asks. The child of its fork returns from the script with `Exit` and exits below. On its way
    // it runs the script and the core, which allocate no memory and take no lock.
    let mut sys = wrap(unsafe { LinuxSys::new() });
    let unwind_guard = UnwindGuard::new();
    let mut log = CollectorBeforeExec { collector: Collector::default(), deliver };
    let launched = prepared.run_in(&mut texts, &mut sys, &mut [], None, &mut log);
    if let Launched::Exit(status) = launched {
        // SAFETY: as in `spawn`.
        unsafe { libc::_exit(status) }
    }
    drop(unwind_guard);
    let (fatal, other) = log.collector.into_records();
    match launched {
        Launched::Failed(failure) => (prepared.explain(failure, fatal), other),
        Launched::Started { .. } | Launched::Exit(_) => unreachable!("a start in place creates no command"),
    }
}

/// Collects the records of a launch in place, and delivers them before the exec.
struct CollectorBeforeExec<F> {
    collector: Collector,
    deliver: F,
}

impl<F: FnMut(&[Record])> LogReader for CollectorBeforeExec<F> {
    fn take(&mut self, bytes: &[u8]) {
        self.collector.take(bytes);
    }

    fn fatal(&self) -> bool {
        self.collector.fatal()
    }

    fn before_exec(&mut self) {
        let (_, records) = core::mem::take(&mut self.collector).into_records();
        (self.deliver)(&records);
    }
}

/// Exits a stage in which a panic unwinds, for example a panic of a recorder. The caller's stack frames must
/// unwind in the launcher only.
///
/// The guard detects a stage by a page that the kernel wipes in every fork. Pids do not distinguish the
/// processes: stage 2 may be process 1 of its pid namespace, as the launcher may be of its own.
struct UnwindGuard(NonNull<u8>);

impl UnwindGuard {
    /// The length of the mapping in bytes; the kernel rounds it up to one page.
    const LEN: usize = 1;
    /// The value of the first byte in the launcher; it is 0 in a fork.
    const MARK: u8 = 1;

    /// Maps and marks the page. Returns `None`, and so no guard, if there is no memory or the kernel does not
    /// support MADV_WIPEONFORK (before Linux 4.14).
    fn new() -> Option<Self> {
        let (rights, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that is there.
        let page = unsafe { libc::mmap(ptr::null_mut(), Self::LEN, rights, kind, -1, 0) };
        if page == libc::MAP_FAILED {
            return None;
        }
        let page = Self(NonNull::new(page.cast())?);
        // SAFETY: the page is new, of this length and writable, and no other code has its address.
        let wiped = unsafe {
            page.0.write(Self::MARK);
            libc::madvise(page.0.as_ptr().cast(), Self::LEN, libc::MADV_WIPEONFORK)
        };
        (wiped == 0).then_some(page)
    }
}

impl Drop for UnwindGuard {
    fn drop(&mut self) {
        /// The exit status of a Rust program that panics.
        const PANICKED: i32 = 101;
        // SAFETY: the page is mapped until the last line here. A fork has its own copy, so its wipe is not a
        // race. _exit touches no memory.
        unsafe {
            if self.0.read_volatile() != Self::MARK {
                libc::_exit(PANICKED);
            }
            libc::munmap(self.0.as_ptr().cast(), Self::LEN);
        }
    }
}

/// Runs a launch on a new thread, and waits for its result.
///
/// # Errors
/// [`LaunchError::Start`]: the thread cannot be created. Otherwise the error of the launch.
pub(super) fn on_other_thread(
    launch: impl FnOnce() -> Result<Child, LaunchError> + Send,
) -> Result<Child, LaunchError> {
    let failed = |error: io::Error| LaunchError::Start {
        step: Step::MakeThread,
        errno: Errno(error.raw_os_error().unwrap_or(libc::EAGAIN)),
    };
    let depth = DEPTH.get();
    let launch = move || {
        DEPTH.set(depth);
        launch()
    };
    std::thread::scope(|scope| {
        let thread = Builder::new().name("nsexec-launcher".into()).spawn_scoped(scope, launch);
        thread.map_err(failed)?.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

/// Runs a launch on a new thread, which ends after the command, unless this is the first thread of the
/// process. The kernel sends the parent-death signal when the thread that created the command's process ends.
///
/// The thread is a clone of the calling one, so the kernel copies the attributes of a thread to it:
/// namespaces, capabilities, seccomp filters, no_new_privs. It waits for the command even if the [`Child`] is
/// dropped, and reaps nothing.
///
/// # Errors
/// [`LaunchError::Start`]: the thread cannot be created. Otherwise the error of the launch.
pub(super) fn on_lasting_thread(
    launch: impl FnOnce() -> Result<Child, LaunchError> + Send + 'static,
) -> Result<Child, LaunchError> {
    if gettid() == getpid() && !is_in_function() {
        return launch();
    }
    let failed = |errno| LaunchError::Start { step: Step::MakeThread, errno: Errno(errno) };
    let (answer, answered) = channel();
    let depth = DEPTH.get();
    let run = move || {
        DEPTH.set(depth);
        let result = catch_unwind(AssertUnwindSafe(launch));
        let pid = result.as_ref().ok().and_then(|launched| launched.as_ref().ok()).map(Child::pid);
        // The program's signals must not be delivered to a thread that only waits. They are blocked before
        // the answer: the calling thread may rely on a signal as soon as it has returned.
        let _ = SigSet::all().thread_block();
        // The calling thread waits for the answer.
        let _ = answer.send(result);
        if let Some(pid) = pid {
            wait_without_reaping(pid);
        }
    };
    let builder = Builder::new().name("nsexec-launcher".into());
    builder.spawn(run).map_err(|error| failed(error.raw_os_error().unwrap_or(libc::EAGAIN)))?;
    match answered.recv().map_err(|_| failed(libc::EAGAIN))? {
        Ok(result) => result,
        Err(panic) => resume_unwind(panic),
    }
}

/// Waits until a child of this process has ended, and leaves its status to another wait (waitid(2), WNOWAIT).
/// Returns also if another thread has reaped it.
fn wait_without_reaping(pid: Pid) {
    let options = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT | WaitPidFlag::__WALL;
    while waitid(Id::Pid(NixPid::from_raw(pid.0)), options) == Err(nix::errno::Errno::EINTR) {}
}

/// Executes the command in this process, as stage 2 of a launch would. Returns the reason if the exec fails.
/// The signal state does not change.
///
/// `without` lists the variables of this process's environment that the command does not get.
pub fn execute<A: AsRef<OsStr>>(
    program: impl AsRef<OsStr>,
    args: impl IntoIterator<Item = A>,
    without: &[&str],
) -> LaunchError {
    let args = args.into_iter().map(|arg| arg.as_ref().into());
    let mut command = CommandLine::default();
    command.words = core::iter::once(program.as_ref().into()).chain(args).collect();
    without.iter().for_each(|name| command.remove_env(name.as_ref()));
    let prepared = command.texts(std::env::vars_os().collect());
    let (texts, mut slots) = match prepared.and_then(|texts| Ok((texts.slots()?, texts))) {
        Ok((slots, texts)) => (texts, slots),
        Err(error) => return error.into(),
    };
    // SAFETY: the script executes files and reads their link counts, and makes no other call.
    let mut sys = unsafe { LinuxSys::new() };
    let error = tail::exec(&mut sys, &texts.tail(&mut slots));
    // Every error of `exec` has an errno; `EIO` is a placeholder for the type.
    let errno = error.errno().unwrap_or(Errno::EIO);
    LaunchError::Exec { program: super::strings::shown(&texts.name), errno }
}

/// Creates a timer that becomes readable after `limit` (timerfd_create(2)). A limit of zero expires at once.
///
/// # Errors
/// [`LaunchError::Start`]: no descriptor is free.
pub(super) fn timer(limit: Duration) -> Result<TimerFd, LaunchError> {
    /// 68 years in seconds: the largest value of a 32-bit time_t.
    const LONGEST: Duration = Duration::from_secs(0x7fff_ffff);
    let failed =
        |errno: nix::errno::Errno| LaunchError::Start { step: Step::MakeTimer, errno: Errno(errno as i32) };
    let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC).map_err(failed)?;
    // A time of zero would disarm the timer (timerfd_settime(2)).
    let limit = limit.clamp(Duration::from_nanos(1), LONGEST);
    let limit = Expiration::OneShot(TimeSpec::from_duration(limit));
    timer.set(limit, TimerSetTimeFlags::empty()).map_err(failed)?;
    Ok(timer)
}

#[cfg(test)]
mod tests {
    use super::Launches;

    #[test]
    fn launch_begins_only_beside_launches_that_allow_it() {
        let none = Launches { running: 0, alone: false, waiting: 0, waiting_alone: 0 };
        let begins = |launches: &Launches| (launches.may_begin(true), launches.may_begin(false));
        assert_eq!(begins(&none), (true, true));
        assert_eq!(begins(&Launches { running: 1, ..none }), (false, true));
        assert_eq!(begins(&Launches { running: 1, alone: true, ..none }), (false, false));
        // A launch that waits to be alone is the next.
        assert_eq!(begins(&Launches { running: 1, waiting: 1, waiting_alone: 1, ..none }), (false, false));
        assert_eq!(begins(&Launches { waiting: 1, waiting_alone: 1, ..none }), (true, false));
    }
}
