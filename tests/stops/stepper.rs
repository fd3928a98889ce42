//! The tracer: steps a launch call by call, and stops one of its processes (ptrace(2)).

use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

use crate::events::{Event, Events, created_by};

/// A limit far above the duration of a launch on a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// The signal to the launcher after a process was stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Then {
    /// SIGTERM, and SIGCONT if the launcher is the stopped process.
    Terminate,
    /// SIGKILL.
    Kill,
}

/// The moment at which a process is stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Moment {
    /// Before its first call.
    Birth,
    /// After its call of this number.
    Call(usize),
}

/// How the launcher ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ending {
    Exited(i32),
    Signaled(i32),
    /// Not within [`LIMIT`].
    Late,
}

/// The outcome of a launch.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) ending: Ending,
    pub(crate) err: String,
    /// The time from the signal until the last process had ended.
    pub(crate) took: Duration,
    /// The processes that were left. The tracer has killed them.
    pub(crate) left: Vec<i32>,
}

/// A launch: a program, its arguments, its user.
#[derive(Default)]
pub(crate) struct Launch {
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<String>,
    pub(crate) uid: Option<u32>,
    /// Variables of the environment, beside PATH and the locale.
    pub(crate) env: Vec<CString>,
    /// Descriptors that the program inherits, each with its number there.
    pub(crate) fds: Vec<(RawFd, RawFd)>,
}

/// A process of the launch, in the order of birth.
#[derive(Clone, Copy, Debug)]
struct Process {
    pid: Pid,
    /// The number of counted calls. The launcher's calls count from its first socketpair(2) on, with which
    /// the launch begins.
    calls: usize,
    counts: bool,
    in_call: bool,
    /// The process has executed the command, whose calls do not count.
    foreign: bool,
    alive: bool,
}

impl Process {
    /// Counts a call at its beginning. Returns the moment after the counted calls before it.
    fn enters_or_leaves_a_call(&mut self) -> Option<Moment> {
        self.in_call = !self.in_call;
        if !self.in_call {
            return None;
        }
        self.counts |= is_socketpair(self.pid);
        if !self.counts || self.foreign {
            return None;
        }
        let moment = Moment::Call(self.calls);
        self.calls += 1;
        Some(moment)
    }
}

impl Launch {
    /// Returns the number of calls of each process.
    pub(crate) fn count(&self) -> Vec<usize> {
        let mut tracer = Tracer::start(self);
        tracer.walk(None);
        tracer.processes.iter().map(|process| process.calls).collect()
    }

    /// Runs the launch until the moment of the process, stops it there, and sends the launcher's signal.
    pub(crate) fn stopped_at(&self, process: usize, moment: Moment, then: Then) -> Outcome {
        let mut tracer = Tracer::start(self);
        tracer.walk(Some((process, moment)));
        tracer.finish(process, then)
    }
}

impl Launch {
    /// Runs the launch until the moment of the process, stops it there, calls `look`, and kills all processes
    /// of the launch.
    pub(crate) fn visit(&self, process: usize, moment: Moment, look: &mut dyn FnMut()) {
        let mut tracer = Tracer::start(self);
        tracer.walk(Some((process, moment)));
        if let Some(stopped) = tracer.processes.get(process).filter(|process| process.alive) {
            let deadline = Instant::now() + LIMIT;
            while Instant::now() < deadline && runs(stopped.pid) {
                std::thread::sleep(Duration::from_millis(1));
            }
            look();
        }
        loop {
            for pid in living() {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            match waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) => std::thread::sleep(Duration::from_millis(1)),
                Ok(_) => {}
                // ECHILD: no process is left.
                Err(_) => return,
            }
        }
    }
}

pub(crate) struct Tracer {
    pub(crate) launcher: Pid,
    processes: Vec<Process>,
    pub(crate) err: File,
    /// The end of the launcher, if the tracer has seen it.
    ended: Option<Ending>,
}

impl Tracer {
    #[allow(clippy::disallowed_methods, reason = "this program has one thread, and no handlers of a fork")]
    pub(crate) fn start(launch: &Launch) -> Self {
        let err = File::from(memfd_create(c"standard-error", MFdFlags::empty()).expect("a file in memory"));
        let program = CString::new(launch.program.as_os_str().as_bytes()).expect("a path");
        let words = launch.args.iter().map(|arg| CString::new(arg.as_str()).expect("no NUL"));
        let argv: Vec<CString> = std::iter::once(program.clone()).chain(words).collect();
        let tools = launch.program.with_file_name("tools");
        let path = CString::new([b"PATH=", tools.as_os_str().as_encoded_bytes()].concat()).expect("a path");
        let env = [path, c"LC_ALL=C".to_owned()].into_iter().chain(launch.env.iter().cloned());
        let env: Vec<CString> = env.collect();
        nix::sys::prctl::set_child_subreaper(true).expect("a subreaper");
        let (wait, go) = nix::unistd::pipe().expect("a pipe");
        // SAFETY: this program has one thread.
        match unsafe { fork() }.expect("fork") {
            ForkResult::Child => {
                let become_it = || -> nix::Result<std::convert::Infallible> {
                    let null = nix::fcntl::open(
                        "/dev/null",
                        nix::fcntl::OFlag::O_RDWR,
                        nix::sys::stat::Mode::empty(),
                    )?;
                    nix::unistd::dup2_stdin(&null)?;
                    nix::unistd::dup2_stdout(&null)?;
                    nix::unistd::dup2_stderr(&err)?;
                    for (fd, number) in &launch.fds {
                        // SAFETY: dup2(2) takes two numbers. No object of this process has the second one.
                        nix::errno::Errno::result(unsafe { nix::libc::dup2(*fd, *number) })?;
                    }
                    if let Some(uid) = launch.uid {
                        nix::unistd::setgroups(&[])?;
                        nix::unistd::setgid(nix::unistd::Gid::from_raw(uid))?;
                        nix::unistd::setuid(nix::unistd::Uid::from_raw(uid))?;
                    }
                    // Waits until the tracer has attached.
                    nix::unistd::read(&wait, &mut [0])?;
                    nix::unistd::close(wait)?;
                    nix::unistd::close(go)?;
                    nix::unistd::execve(&program, &argv, &env)
                };
                let failed = become_it();
                eprintln!("{failed:?}");
                std::process::exit(120);
            }
            ForkResult::Parent { child } => {
                let options = ptrace::Options::PTRACE_O_TRACESYSGOOD
                    | ptrace::Options::PTRACE_O_TRACEFORK
                    | ptrace::Options::PTRACE_O_TRACECLONE
                    | ptrace::Options::PTRACE_O_TRACEVFORK
                    | ptrace::Options::PTRACE_O_TRACEEXEC
                    | ptrace::Options::PTRACE_O_EXITKILL;
                // Not PTRACE_TRACEME: with an unprivileged tracer a set-user-id tool would not change its
                // user id.
                ptrace::seize(child, options).expect("a tracee");
                nix::unistd::write(&go, b".").expect("the word to go");
                drop((wait, go));
                let status = waitpid(child, None).expect("the exec");
                let exec = WaitStatus::PtraceEvent(child, Signal::SIGTRAP, nix::libc::PTRACE_EVENT_EXEC);
                assert_eq!(status, exec, "{:?}", launch.args);
                ptrace::syscall(child, None).expect("go on");
                let mut tracer = Self { launcher: child, processes: Vec::new(), err, ended: None };
                tracer.add(child);
                tracer
            }
        }
    }

    fn add(&mut self, pid: Pid) {
        let counts = !self.processes.is_empty();
        let process = Process { pid, calls: 0, counts, in_call: false, foreign: false, alive: true };
        self.processes.push(process);
    }

    /// Runs until all processes have ended, or the chosen process has reached the chosen moment. Then
    /// detaches from all, and stops the chosen process.
    fn walk(&mut self, until: Option<(usize, Moment)>) {
        let mut events = Events::default();
        loop {
            let known = |pid| self.processes.iter().position(|process| process.pid == pid);
            let (at, event) = match events.next(known) {
                Ok(Some(found)) => found,
                Ok(None) | Err(nix::errno::Errno::EINTR) => continue,
                Err(_) => return,
            };
            let process = &mut self.processes[at];
            let pid = process.pid;
            let moment = match event {
                Event::Ended(ending) => {
                    self.has_ended(at, ending);
                    continue;
                }
                Event::Call => process.enters_or_leaves_a_call(),
                Event::Birth => Some(Moment::Birth),
                Event::Exec => {
                    // The launcher itself executes its sealed copy, whose calls count. The stop at the end of
                    // the execve call follows.
                    process.foreign = at != 0 && !is_mapping_tool(pid);
                    None
                }
                Event::Created(child) => {
                    self.add(child);
                    None
                }
            };
            if moment.is_some() && until == moment.map(|moment| (at, moment)) {
                self.detach_all(at, &events);
                return;
            }
            let _ = ptrace::syscall(pid, None);
        }
    }

    fn has_ended(&mut self, at: usize, ending: Ending) {
        self.processes[at].alive = false;
        if at == 0 {
            self.ended = Some(ending);
        }
    }

    /// Detaches from all processes; from `at`, which is in a call, with SIGSTOP. A running process must be
    /// stopped before the detach.
    fn detach_all(&mut self, at: usize, events: &Events) {
        let meant = self.processes[at].pid;
        // The kernel ignores a signal of the detach at the birth of a process.
        if self.processes[at].in_call {
            ptrace::detach(meant, Signal::SIGSTOP).expect("a stopped tracee");
        } else {
            kill(meant, Signal::SIGSTOP).expect("a process");
            ptrace::detach(meant, None).expect("a stopped tracee");
        }
        for pid in events.early() {
            let _ = ptrace::detach(pid, None);
        }
        let others: Vec<Pid> =
            self.processes.iter().filter(|p| p.alive && p.pid != meant).map(|p| p.pid).collect();
        for pid in others {
            self.detach_running(pid);
        }
    }

    fn detach_running(&mut self, pid: Pid) {
        // The process is in a ptrace stop, or PTRACE_INTERRUPT leads it to one.
        if ptrace::detach(pid, None).is_ok() || ptrace::interrupt(pid).is_err() {
            return;
        }
        loop {
            match waitpid(pid, Some(WaitPidFlag::__WALL)) {
                Ok(
                    WaitStatus::PtraceEvent(_, _, nix::libc::PTRACE_EVENT_STOP)
                    | WaitStatus::PtraceSyscall(_),
                ) => {
                    let _ = ptrace::detach(pid, None);
                    return;
                }
                Ok(WaitStatus::Stopped(_, signal)) => {
                    let _ = ptrace::detach(pid, signal);
                    return;
                }
                Ok(WaitStatus::Exited(_, code)) => return self.note_end(pid, Ending::Exited(code)),
                Ok(WaitStatus::Signaled(_, signal, _)) => {
                    return self.note_end(pid, Ending::Signaled(signal as i32));
                }
                Ok(WaitStatus::PtraceEvent(_, _, event)) if event != nix::libc::PTRACE_EVENT_EXEC => {
                    // A child that was created meanwhile is a tracee too, and is detached as well.
                    if let Some(child) = created_by(pid) {
                        self.add(child);
                        let _ = waitpid(child, Some(WaitPidFlag::__WALL));
                        let _ = ptrace::detach(child, None);
                    }
                    // Not continued: each stop takes back the request of PTRACE_INTERRUPT.
                    let _ = ptrace::detach(pid, None);
                    return;
                }
                Ok(_) => {
                    if ptrace::detach(pid, None).is_ok() {
                        return;
                    }
                }
                Err(_) => return,
            }
        }
    }

    fn note_end(&mut self, pid: Pid, ending: Ending) {
        if let Some(at) = self.processes.iter().position(|process| process.pid == pid) {
            self.has_ended(at, ending);
        }
    }

    /// Sends the signal to the launcher, waits for its end, and lists the remaining processes.
    fn finish(mut self, process: usize, then: Then) -> Outcome {
        // First the other processes reach a blocking call.
        std::thread::sleep(Duration::from_millis(3));
        // A launcher that gets SIGCONT before it stops would stop afterwards, and for ever.
        if process == 0 && self.ended.is_none() {
            let deadline = Instant::now() + LIMIT;
            while Instant::now() < deadline && runs(self.launcher) {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        let begun = Instant::now();
        if self.ended.is_none() {
            match then {
                Then::Terminate => {
                    let _ = kill(self.launcher, Signal::SIGTERM);
                    if process == 0 {
                        let _ = kill(self.launcher, Signal::SIGCONT);
                    }
                }
                Then::Kill => {
                    let _ = kill(self.launcher, Signal::SIGKILL);
                }
            }
        }
        let mut left = Vec::new();
        loop {
            match waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) => {
                    if begun.elapsed() > LIMIT {
                        left = living();
                        break;
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
                Ok(WaitStatus::Exited(pid, code)) => self.note_end(pid, Ending::Exited(code)),
                Ok(WaitStatus::Signaled(pid, signal, _)) => {
                    self.note_end(pid, Ending::Signaled(signal as i32));
                }
                Ok(_) => {}
                // ECHILD: no process is left.
                Err(_) => break,
            }
        }
        let took = begun.elapsed();
        let ending = self.ended.unwrap_or(Ending::Late);
        for pid in &left {
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        while !left.is_empty() && waitpid(None, Some(WaitPidFlag::__WALL)).is_ok() {}
        let mut err = String::new();
        let _ = self.err.rewind();
        let _ = self.err.read_to_string(&mut err);
        Outcome { ending, err, took, left }
    }
}

/// Returns our children: this program is the subreaper of the launch. The entered container is not part of
/// the launch.
pub(crate) fn living() -> Vec<i32> {
    let me = std::process::id();
    let text = std::fs::read_to_string(format!("/proc/{me}/task/{me}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// Returns whether a process is neither stopped nor a zombie.
fn runs(pid: Pid) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let state = status.lines().find_map(|line| line.strip_prefix("State:"));
    state.is_some_and(|state| !["T", "Z", "X"].iter().any(|letter| state.trim_start().starts_with(letter)))
}

pub(crate) fn is_mapping_tool(pid: Pid) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/comm"))
        .is_ok_and(|name| ["newuidmap\n", "newgidmap\n"].contains(&&*name))
}

/// Returns whether the call that this process has begun is socketpair(2), the first call of a launch.
fn is_socketpair(pid: Pid) -> bool {
    let path = format!("/proc/{pid}/syscall");
    let number = format!("{}", nix::libc::SYS_socketpair);
    std::fs::read_to_string(path).is_ok_and(|text| text.split(' ').next() == Some(&number))
}
