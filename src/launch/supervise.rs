//! Supervision: not part of the bootstrap. Waits for the command, sends signals to it, and handles the
//! signals of this program. These calls are outside of the launch's [`Sys`], so no record contains them.
//!
//! [`Child`] is the handle of every started command (`handle.rs`). [`Signals`] and [`supervise`] are for a
//! program whose purpose is the command. `reaction.rs` decides the reaction to each signal.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Instant;

use nix::sys::signal::{SigSet, Signal as NixSignal, raise};
use nix::sys::signalfd::{SfdFlags, SignalFd, siginfo};
use nix::unistd::{getpgid, getpgrp, getsid, tcgetpgrp, tcsetpgrp};

use super::handle::{Child, exit_code, poll};
use super::init::CLOSED_ONE_BY_ONE;
use super::proc_status::set_of;
use super::query::{open_pidfd, signals_of_child, signals_of_this_thread};
use super::reaction::{Context, ENDING, Job, Reaction, STOPPING, is_ending, reaction};
use super::script::ChildSignals;
use super::signals_error::{SignalsError, SignalsStep};
use crate::scripts::nsexec::thread_id_cache;
use crate::sys::Sys;
use crate::sys::linux::LinuxSys;
use crate::sys::types::{
    Errno, ExitSignal, Fd, Fork, MaskHow, Pid, PollEvents, PollFd, SigAction, Signal, SignalSet,
};

/// The signals that are blocked from the beginning. As members of the terminal's process group the stages get
/// SIGINT and the like themselves. The launcher must survive these signals to report the error.
const BLOCKED_AT_START: [NixSignal; 16] = [
    NixSignal::SIGINT,
    NixSignal::SIGTERM,
    NixSignal::SIGHUP,
    NixSignal::SIGQUIT,
    NixSignal::SIGCHLD,
    NixSignal::SIGCONT,
    NixSignal::SIGUSR1,
    NixSignal::SIGUSR2,
    NixSignal::SIGWINCH,
    NixSignal::SIGALRM,
    NixSignal::SIGVTALRM,
    NixSignal::SIGPROF,
    NixSignal::SIGIO,
    NixSignal::SIGXCPU,
    NixSignal::SIGPWR,
    NixSignal::SIGSTKFLT,
];

/// The interval in which a kernel without pidfds (before 5.3) is asked for the end of the command, in
/// milliseconds. If the command died before its exec, no SIGCHLD reports it.
const POLL_INTERVAL_MS: i32 = 1000;

/// The signals that this program has taken over, and the signal state from before.
#[derive(Debug)]
pub struct Signals {
    descriptor: SignalFd,
    interrupt: SignalFd,
    original: ChildSignals,
}

impl Signals {
    /// Blocks the signals that are to be passed on or handled, and sets the default disposition of SIGCHLD,
    /// without which a command's status would be lost. SIGPIPE and SIGXFSZ are blocked too. So a write to a
    /// closed pipe (`EPIPE`), or beyond RLIMIT_FSIZE (`EFBIG`), returns an error instead of ending this
    /// process.
    ///
    /// Call it early, in a program with one thread that ends when the command ends: no function restores the
    /// signal state. If SIGPIPE is ignored, the command also gets it ignored, as the caller's choice. Rust's
    /// runtime ignores SIGPIPE before main. So a program with that runtime must first set the default
    /// disposition.
    ///
    /// # Errors
    /// The step that failed, and its errno. `EMFILE`: no descriptor is free for a signalfd (raise ulimit -n).
    pub fn take() -> Result<Self, SignalsError> {
        // Without a /proc, no signal counts as blocked, ignored or caught.
        let before = signals_of_this_thread().unwrap_or_default();
        let mut original = before.after_exec();
        // The caller's own choice: this program runs without Rust's start code, which would have ignored
        // SIGPIPE.
        original.default.0 &= !before.ignored.0;
        original.mask = Some(before.blocked);
        let sigchld = set_of(Signal::CHLD);
        if before.ignored.contains(sigchld) {
            original.ignore = sigchld;
            default_disposition(Signal::CHLD).map_err(|errno| SignalsStep::DefaultSigchld.failed(errno.0))?;
        }
        let early: SigSet = BLOCKED_AT_START.into_iter().collect();
        let mut all = early;
        all.extend(&nix_set(STOPPING));
        // A launch does not end by a signal that the caller ignores or blocks. The command gets the signal in
        // the same state.
        let unwanted = SignalSet(before.ignored.0 | before.blocked.0);
        let ending = ENDING.into_iter().filter(|signal| !unwanted.contains(set_of(*signal)));
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let interrupt = SignalFd::with_flags(&nix_set(ending), flags)
            .map_err(|errno| SignalsStep::InterruptDescriptor.failed(errno as i32))?;
        let descriptor = SignalFd::with_flags(&all, flags)
            .map_err(|errno| SignalsStep::SignalDescriptor.failed(errno as i32))?;
        // Blocked and never read: a failed write must not end the launcher, which would leave the command
        // unsupervised.
        let mut held = early;
        held.add(NixSignal::SIGPIPE);
        held.add(NixSignal::SIGXFSZ);
        held.thread_block().map_err(|errno| SignalsStep::Block.failed(errno as i32))?;
        Ok(Self { descriptor, interrupt, original })
    }

    /// Returns the signalfd that is readable when a signal asks a launch to end.
    #[doc(hidden)]
    #[must_use]
    pub fn interrupt(&self) -> Fd {
        Fd(self.interrupt.as_raw_fd())
    }

    /// Returns the signal state for the command: the state from before [`take`](Self::take). For
    /// [`Launcher::signals`](super::Launcher::signals).
    #[must_use]
    pub const fn original(&self) -> ChildSignals {
        self.original
    }
}

/// Waits for the command and passes signals on to it. Stops this process too when the terminal stops the job.
/// Returns the exit status: the command's own, or 128 plus the number of the signal that ended the command.
///
/// A stop of the command alone (a freezer, a debugger, `kill -STOP $$`) does not stop this process: a later
/// SIGCONT to the command would not continue this process.
///
/// INT, TERM, HUP and QUIT end the command even if it is process 1 of its pid namespace and has no handler
/// for them. Then the command is ended by SIGKILL, and the status is 128 plus the number of the original
/// signal.
///
/// # Errors
/// The error of a call that waits for the command or sends it a signal.
pub fn supervise(child: &mut Child, signals: &Signals) -> io::Result<i32> {
    supervise_tracer(child, signals, None)
}

/// Does the same as [`supervise`] for a command that traces another program and blocks signals, as strace
/// does. The signals go to `traced`, a child of the command. Those of job control go to the command, so that
/// it stops and continues with this process.
///
/// # Errors
/// The same as [`supervise`].
#[doc(hidden)]
pub fn supervise_tracer(child: &mut Child, signals: &Signals, traced: Option<&Child>) -> io::Result<i32> {
    nix_set(STOPPING).thread_block()?;
    let pidfd = pidfd(child);
    let traced = traced.map(|traced| (traced, traced.pidfd().and_then(|fd| fd.try_clone_to_owned()).ok()));
    let is_process_1 = std::process::id() == 1;
    let mut killed_for = None;
    let mut job = Job::default();
    // False for signals that may be from before the command ran: a terminal did not send those to the
    // command.
    let mut command_ran = false;
    loop {
        while let Some(info) = read_signal(&signals.descriptor)? {
            let receiver = match &traced {
                Some((traced, pidfd)) if !stays_with_the_tracer(&info) => (*traced, pidfd.as_ref(), true),
                _ => (&*child, pidfd.as_ref(), false),
            };
            match pass_on(receiver, &info, command_ran)? {
                Effect::None => {}
                Effect::Killed(signal) => killed_for = killed_for.or(Some(signal)),
                Effect::AskedToEnd => job.ending = Some(Instant::now()),
                Effect::JobStops(signal) => job.asked = Some((signal, Instant::now())),
            }
        }
        command_ran = true;
        if is_process_1 {
            reap_others(child.pid())?;
        }
        while let Some(status) = child.changed(libc::WNOHANG | libc::WUNTRACED | libc::WCONTINUED)? {
            match status.stopped_signal() {
                Some(_) => job.command_stopped = true,
                None if status.continued() => job = Job::default(),
                None => return Ok(status_of(status, killed_for)),
            }
        }
        if job.should_end(Instant::now()) {
            // The signal stays pending until the command is continued (signal(7)). A shell also continues a
            // stopped job that it ends.
            job = Job::default();
            resume(child)?;
        }
        let own_group = if job.command_stopped { foreground_group(child) } else { None };
        if let Some(signal) = job.stops(Instant::now()).or(own_group.as_ref().map(|_| Signal::TSTP)) {
            stop_with_the_job(signal)?;
            job = Job::default();
            if let Some(foreground) = own_group {
                foreground.restore();
            }
            resume(child)?;
        }
        wait_for_event(signals, pidfd.as_ref())?;
    }
}

/// Reaps the children that have ended, except the command. As process 1 of a container this process inherits
/// all orphans there.
fn reap_others(command: Pid) -> io::Result<()> {
    loop {
        // SAFETY: an all-zero siginfo_t is a valid value.
        let mut info: libc::siginfo_t = unsafe { core::mem::zeroed() };
        let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT | libc::__WALL;
        // SAFETY: the kernel writes one siginfo_t to `info`.
        if unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, options) } != 0 {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::Interrupted { continue } else { Err(error) };
        }
        // SAFETY: waitid(2) has set the pid, to 0 if no child has ended.
        let pid = unsafe { info.si_pid() };
        if pid == 0 || pid == command.0 {
            return Ok(());
        }
        // SAFETY: a null pointer asks for no status.
        unsafe { libc::waitpid(pid, core::ptr::null_mut(), libc::WNOHANG | libc::__WALL) };
    }
}

/// Continues the command. A command in a session of its own was stopped as a process group, so its whole
/// group is continued.
fn resume(child: &Child) -> io::Result<()> {
    send(child, leads_a_session(child), libc::SIGCONT)
}

/// Sends a signal to the command, or to its whole process group.
fn send(child: &Child, whole_group: bool, number: i32) -> io::Result<()> {
    if whole_group { child.signal_group(number) } else { child.signal(number) }
}

/// Stops this process by a signal that is blocked in this thread. Returns when this process is continued.
///
/// In an orphaned process group (setpgid(2)) the kernel discards the signal, since no shell could continue
/// the job. Then this function returns at once.
fn stop_with_the_job(signal: Signal) -> io::Result<()> {
    let signal = NixSignal::try_from(signal.0)?;
    let set = SigSet::from(signal);
    raise(signal)?;
    set.thread_unblock()?;
    set.thread_block()?;
    // Removes the SIGCONT that continued this process. The caller continues the command now; passed on later,
    // the signal could undo the next stop.
    discard_pending(Signal::CONT);
    Ok(())
}

fn status_of(status: ExitStatus, killed_for: Option<Signal>) -> i32 {
    match killed_for {
        Some(signal) if status.signal() == Some(libc::SIGKILL) => 128 + signal.0,
        _ => exit_code(status),
    }
}

/// Reads a signal; `None` if no signal has arrived. A read that a signal has interrupted is repeated.
fn read_signal(descriptor: &SignalFd) -> io::Result<Option<siginfo>> {
    loop {
        match descriptor.read_signal() {
            Err(nix::errno::Errno::EINTR) => {}
            read => return Ok(read?),
        }
    }
}

fn wait_for_event(signals: &Signals, pidfd: Option<&OwnedFd>) -> io::Result<()> {
    let readable = |fd: i32| PollFd::new(Fd(fd), PollEvents::IN);
    let signals = readable(signals.descriptor.as_raw_fd());
    match pidfd {
        Some(pidfd) => poll(&mut [signals, readable(pidfd.as_raw_fd())], -1),
        None => poll(&mut [signals], POLL_INTERVAL_MS),
    }
}

/// The effect of a signal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Effect {
    /// Nothing that concerns this process.
    None,
    /// The command was killed because of this signal.
    Killed(Signal),
    /// The signal was sent to the command, and asks the command to end.
    AskedToEnd,
    /// The signal stops the terminal's job: this process stops when the command has stopped.
    JobStops(Signal),
}

/// Returns whether the tracer, and not the traced program, receives the signal: job control, and SIGCHLD.
fn stays_with_the_tracer(info: &siginfo) -> bool {
    let signals = STOPPING.into_iter().chain([Signal::CONT, Signal::CHLD]);
    signals.map(|signal| signal.0).any(|number| i32::try_from(info.ssi_signo) == Ok(number))
}

/// Handles one signal. `child` receives it, and `traced` is whether a tracer runs it. `command_ran`: the
/// command already ran when the signal arrived. Then a terminal has sent the signal to the command too.
fn pass_on(
    (child, pidfd, traced): (&Child, Option<&OwnedFd>, bool),
    info: &siginfo,
    command_ran: bool,
) -> io::Result<Effect> {
    let Ok(number) = i32::try_from(info.ssi_signo) else { return Ok(Effect::None) };
    let signal = Signal(number);
    let stops = STOPPING.into_iter().find(|late| *late == signal);
    let done = stops.map_or(Effect::None, Effect::JobStops);
    // The command has sent the signal to its whole process group, which includes this process.
    let sender = i32::try_from(info.ssi_pid).map_or(Pid(0), Pid);
    // A traced program is a launcher, whose child is the command.
    let own = sender == child.pid() || traced && child.child(sender).is_some();
    if info.ssi_code <= 0 && own {
        return Ok(done);
    }
    if number == libc::SIGCHLD {
        return Ok(Effect::None);
    }
    // A size that changed before the command ran needs no signal: the command asks for the size itself.
    let has_seen = command_ran || number == libc::SIGWINCH;
    let context = Context {
        delivered: has_seen && info.ssi_code == libc::SI_KERNEL && in_our_group(child),
        // A traced program blocks the signals, and decides by the state of its own command.
        command: if traced { None } else { signals_of_child(child.pid(), pidfd) },
        first: child.is_process_1(),
        own_session: leads_a_session(child),
    };
    let done = if is_ending(signal) { Effect::AskedToEnd } else { done };
    // A terminal sends a signal to a whole process group. A command with its own session has another process
    // group, so this process sends the signal there.
    let whole_group = context.own_session && (info.ssi_code == libc::SI_KERNEL || number == libc::SIGCONT);
    let sent = match reaction(signal, context) {
        Reaction::Leave if context.ignored(signal) => Ok(Effect::None),
        Reaction::Leave => Ok(done),
        Reaction::Forward => send(child, whole_group, number).map(|()| done),
        Reaction::Stop => send(child, context.own_session, libc::SIGSTOP).map(|()| done),
        Reaction::Kill => child.kill().map(|()| Effect::Killed(signal)),
    };
    match sent {
        // The tracer has reaped it, and ends too.
        Err(error) if traced && error.raw_os_error() == Some(Errno::ESRCH.0) => Ok(Effect::None),
        sent => sent,
    }
}

/// The command's process group, which was in the foreground of our terminal.
#[derive(Debug)]
struct Foreground {
    terminal: OwnedFd,
    group: nix::unistd::Pid,
}

impl Foreground {
    /// Puts the command's process group into the foreground again, if a shell has put our own group there.
    /// SIGTTOU is blocked here, so the kernel would also allow the change from the background (tcsetpgrp(3)).
    /// In that case this function changes nothing.
    fn restore(&self) {
        if tcgetpgrp(&self.terminal) == Ok(getpgrp()) {
            // ESRCH, EPERM: the group no longer exists, so it does not need the terminal.
            let _ = tcsetpgrp(&self.terminal, self.group);
        }
    }
}

/// Returns the process group of a command that is a shell with job control: a group other than ours, in the
/// foreground of our terminal. If such a shell suspends itself, the whole job should stop, as it would
/// without the launcher.
fn foreground_group(child: &Child) -> Option<Foreground> {
    let group = getpgid(Some(nix::unistd::Pid::from_raw(child.pid().0))).ok()?;
    if group == getpgrp() {
        return None;
    }
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    // The terminal of a job is one of these three. ENOTTY: not a terminal, or not our controlling terminal.
    let standard = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()];
    let terminal = standard.into_iter().find(|terminal| tcgetpgrp(terminal) == Ok(group))?;
    Some(Foreground { terminal: terminal.try_clone_to_owned().ok()?, group })
}

fn in_our_group(child: &Child) -> bool {
    getpgid(Some(nix::unistd::Pid::from_raw(child.pid().0))) == Ok(getpgrp())
}

/// Returns whether the command has a session of its own, and so a process group of its own.
fn leads_a_session(child: &Child) -> bool {
    let pid = nix::unistd::Pid::from_raw(child.pid().0);
    getsid(Some(pid)) == Ok(pid)
}

/// Returns the set in the form of the nix crate, which represents no real-time signal.
fn nix_set(signals: impl IntoIterator<Item = Signal>) -> SigSet {
    signals.into_iter().filter_map(|signal| NixSignal::try_from(signal.0).ok()).collect()
}

/// Returns a descriptor that becomes readable when the command has ended. `None` before Linux 5.3.
fn pidfd(child: &Child) -> Option<OwnedFd> {
    open_pidfd(child.pid().0).ok()
}

/// A process that sends the command a signal when this process ends before the command, however it ends: see
/// [`guard`]. When this is dropped, the process is reaped.
#[derive(Debug)]
pub struct Guard {
    pid: Pid,
    /// The kernel closes it at the end of this process, which the guard detects.
    alive: Option<OwnedFd>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        /// The time for the guard to end: this number of waits, of so many milliseconds each.
        const WAITS: (usize, i32) = (10, 100);
        drop(self.alive.take());
        let pidfd = open_pidfd(self.pid.0);
        for _ in 0..WAITS.0 {
            // It may have been stopped before its first call, and would be left. It is not reaped yet, so the
            // pid is its own.
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid.0), NixSignal::SIGCONT);
            let Ok(pidfd) = &pidfd else { break };
            let mut ended = [PollFd::new(Fd(pidfd.as_raw_fd()), PollEvents::IN)];
            if poll(&mut ended, WAITS.1).is_err() || ended.iter().any(|fd| fd.revents != PollEvents::NONE) {
                break;
            }
        }
        // SAFETY: a null pointer asks for no status.
        unsafe { libc::waitpid(self.pid.0, core::ptr::null_mut(), libc::WNOHANG | libc::__WALL) };
    }
}

/// Starts a process that sends the command `signal` when this process ends before the command.
///
/// The parent-death signal of the command is lost when the command changes its ids
/// (PR_SET_PDEATHSIG(2const)), as su and setpriv do; this is not. The guard has the ids, capabilities and
/// namespaces of this process, and a session of its own. So the kernel may refuse its signal to a command
/// that a setuid program gave other ids: for an ordinary user without a user namespace of its own.
///
/// This process must have one thread.
///
/// # Errors
/// `ENOSYS`: Linux before 5.3, which has no pidfds, or a seccomp filter that refuses pidfd_open(2) or
/// pidfd_send_signal(2). `EMFILE`, `EAGAIN`, `ENOMEM`: the limits of this process.
pub fn guard(child: &Child, signal: Signal) -> io::Result<Guard> {
    let failed = |errno: Errno| io::Error::from_raw_os_error(errno.0);
    let command = Fd(child.pidfd()?.as_raw_fd());
    // SAFETY: this process creates a pipe and a copy of itself. The copy makes the calls of `keep_watch`
    // alone, without an allocation or a lock, and ends: so it may also be that of a process with several
    // threads.
    let mut sys = unsafe { LinuxSys::new() };
    // Signal 0 shows whether pidfd_send_signal(2) exists: the guard could not report ENOSYS later. Other
    // errors are ignored: the command may have ended, or have other ids.
    if let Err(errno @ Errno::ENOSYS) = sys.pidfd_send_signal(command, Signal(0)) {
        return Err(failed(errno));
    }
    let (ended, alive) = sys.pipe2().map_err(failed)?;
    let tid = thread_id_cache(&mut sys);
    let forked = sys.fork(ExitSignal::None, tid);
    if matches!(forked, Ok(Fork::Child)) {
        keep_watch(&mut sys, (ended, command), signal);
        // SAFETY: ends the copy without the exit functions of this program.
        unsafe { libc::_exit(0) }
    }
    let _ = sys.close(ended);
    // SAFETY: the kernel has just created this descriptor, and it has no other owner.
    let alive = Some(unsafe { OwnedFd::from_raw_fd(alive.0) });
    match forked {
        Ok(Fork::Parent { child }) => Ok(Guard { pid: child, alive }),
        Ok(Fork::Child) => Err(io::ErrorKind::Other.into()),
        Err(errno) => Err(failed(errno)),
    }
}

/// Waits for the end of the command, or for that of the process that started it, and then sends the signal.
///
/// Runs in the guard, a copy of the launcher.
fn keep_watch(sys: &mut LinuxSys, (ended, command): (Fd, Fd), signal: Signal) {
    // The first call: when the launcher dies, the kernel continues a stopped guard.
    let _ = sys.set_pdeathsig(Signal::CONT);
    // No signal of a terminal or of the caller's process group ends the guard.
    let _ = sys.sigprocmask(MaskHow::Block, SignalSet(u64::MAX));
    let _ = sys.setsid();
    let _ = sys.set_name(c"nsexec-guard");
    // An open pipe of the caller would hide from its reader that the command has closed it.
    if sys.dup_to(ended, Fd(0)).and_then(|()| sys.dup_to(command, Fd(1))).is_err() {
        return;
    }
    if sys.close_range(2, u32::MAX).is_err() {
        for fd in (2..CLOSED_ONE_BY_ONE).map(Fd) {
            let _ = sys.close(fd);
        }
    }
    let readable = |fd| PollFd::new(Fd(fd), PollEvents::IN);
    loop {
        let mut both = [readable(0), readable(1)];
        match sys.poll(&mut both, -1) {
            Err(Errno::EINTR) => continue,
            Err(_) => return,
            Ok(_) => {}
        }
        let [of_launcher, of_command] = both;
        if of_command.revents != PollEvents::NONE {
            return;
        }
        if of_launcher.revents != PollEvents::NONE {
            let _ = sys.pidfd_send_signal(Fd(1), signal);
            return;
        }
    }
}

/// Runs `write` with SIGXFSZ blocked in this thread. A write beyond the limit on file size
/// (RLIMIT_FSIZE, setrlimit(2)) then returns `EFBIG` instead of ending the process. Afterwards the mask is
/// restored, and no SIGXFSZ from `write` is left pending.
pub fn without_sigxfsz<T>(write: impl FnOnce() -> T) -> T {
    without(&[SignalSet::XFSZ], write)
}

/// Does the same as [`without_sigxfsz`] for SIGPIPE too: a write to a pipe without a reader returns `EPIPE`.
pub fn without_write_signals<T>(write: impl FnOnce() -> T) -> T {
    without(&[SignalSet::XFSZ, SignalSet::PIPE], write)
}

fn without<T>(signals: &[SignalSet], write: impl FnOnce() -> T) -> T {
    // SAFETY: two changes of this thread's mask, of which the second undoes the first, and a look at some
    // signals.
    let mut sys = unsafe { LinuxSys::new() };
    let set = signals.iter().fold(SignalSet::EMPTY, |set, signal| SignalSet(set.0 | signal.0));
    let before = sys.sigprocmask(MaskHow::Block, set);
    let result = write();
    if let Ok(before) = before {
        for signal in signals.iter().filter(|signal| !before.contains(**signal)) {
            // EAGAIN: it is not pending.
            let _ = sys.sigtimedwait(*signal);
        }
        if !before.contains(set) {
            let _ = sys.sigprocmask(MaskHow::Set, before);
        }
    }
    result
}

/// Removes a signal that is blocked in this thread from the pending signals.
fn discard_pending(signal: Signal) {
    // SAFETY: one call, which removes one pending signal.
    let mut sys = unsafe { LinuxSys::new() };
    // EAGAIN: it is not pending.
    let _ = sys.sigtimedwait(set_of(signal));
}

/// Ends this process by a signal, even if the signal is blocked or ignored. Returns if the signal does not
/// end a process by default.
#[doc(hidden)]
pub fn end_by(signal: Signal) {
    // EINVAL: SIGKILL, whose disposition is always the default one.
    let _ = default_disposition(signal);
    // SAFETY: changes of this thread's mask, in a process that ends now.
    let mut sys = unsafe { LinuxSys::new() };
    // SAFETY: a number. raise(3) also sends real-time signals, which nix does not know.
    unsafe { libc::raise(signal.0) };
    if let Ok(blocked) = sys.sigprocmask(MaskHow::Block, SignalSet::EMPTY) {
        let _ = sys.sigprocmask(MaskHow::Set, SignalSet(blocked.0 & !set_of(signal).0));
    }
}

/// Sets the default disposition of a signal in this process.
fn default_disposition(signal: Signal) -> Result<(), Errno> {
    // SAFETY: one call with the default disposition as argument, so no handler of ours is registered.
    let mut sys = unsafe { LinuxSys::new() };
    sys.sigaction(signal, SigAction::DEFAULT).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sigkill_for_a_signal_is_reported_as_that_signal() {
        assert_eq!(status_of(ExitStatus::from_raw(9), Some(Signal::INT)), 130);
        assert_eq!(status_of(ExitStatus::from_raw(9), None), 137);
        // The command ended before the SIGKILL.
        assert_eq!(status_of(ExitStatus::from_raw(0), Some(Signal::INT)), 0);
    }

    #[test]
    fn exit_code_of_a_signal_is_128_plus_its_number() {
        assert_eq!(exit_code(ExitStatus::from_raw(3 << 8)), 3);
        assert_eq!(exit_code(ExitStatus::from_raw(9)), 137);
        // With the flag of a core dump, and with a real-time signal.
        assert_eq!(exit_code(ExitStatus::from_raw(0x80 | 11)), 139);
        assert_eq!(exit_code(ExitStatus::from_raw(40)), 168);
    }
}
