//! The injector: a tracer that lets one system call of one process fail, and follows the launch to its end
//! (ptrace(2)).
//!
//! At the stop before the call its number becomes -1, so that the kernel skips it. At the stop after it the
//! result becomes the errno. A close is made, and its result is replaced: the kernel closes a descriptor also
//! if close(2) fails.

use std::io::{Read, Seek};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, kill, sigaction};
use nix::unistd::Pid;

use crate::events::{Event, Events};
use crate::stepper::{Ending, LIMIT, Launch, Tracer, is_mapping_tool, living};

/// The longest time in which no process of a launch makes a step.
const PAUSE: Duration = Duration::from_secs(1);

/// The interval in which the tracer looks at the clock.
const TICK: Duration = Duration::from_millis(100);

/// A system call that a process has begun.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Call {
    pub(crate) number: i64,
    pub(crate) args: [u64; 6],
    /// The path that the call names, or the file of its descriptor.
    pub(crate) object: String,
    /// The process is a mapping tool.
    pub(crate) by_tool: bool,
}

/// A fault: a process, the number of its call, and which errno of the call's class the call fails with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Fault {
    pub(crate) process: usize,
    pub(crate) call: usize,
    pub(crate) choice: usize,
}

/// The end of a launch.
pub(crate) struct End {
    /// The end of the launcher.
    pub(crate) ending: Ending,
    pub(crate) err: String,
    /// The calls of each process, in the order of birth.
    pub(crate) calls: Vec<Vec<Call>>,
    /// The call that failed, and its errno.
    pub(crate) failed: Option<(Call, Errno)>,
    /// A process has executed the command, which exited with status 0.
    pub(crate) ran: bool,
    /// The processes that waited for longer than [`PAUSE`].
    pub(crate) pause: Option<String>,
    /// The processes that had not ended after [`LIMIT`].
    pub(crate) left: Vec<String>,
}

struct Process {
    pid: Pid,
    /// Its calls count: the loader has done its work, and the process has not executed the command.
    counts: bool,
    is_tool: bool,
    is_command: bool,
    calls: Vec<Call>,
    /// The errno of the call that the process is in.
    fault: Option<Errno>,
}

/// The state of a launch.
struct Injector<'a> {
    tracer: Tracer,
    processes: Vec<Process>,
    fault: Option<Fault>,
    class: &'a dyn Fn(&Call) -> Vec<Errno>,
    end: End,
}

/// Runs the launch, with the fault. `class` returns the errnos that a call may fail with.
pub(crate) fn launch(launch: &Launch, fault: Option<Fault>, class: &dyn Fn(&Call) -> Vec<Errno>) -> End {
    let end = End {
        ending: Ending::Late,
        err: String::new(),
        calls: Vec::new(),
        failed: None,
        ran: false,
        pause: None,
        left: Vec::new(),
    };
    let tracer = Tracer::start(launch);
    let mut injector = Injector { tracer, processes: Vec::new(), fault, class, end };
    injector.add(injector.tracer.launcher);
    tick(TICK);
    injector.follow();
    tick(Duration::ZERO);
    let mut end = injector.end;
    let _ = injector.tracer.err.rewind();
    let mut bytes = Vec::new();
    let _ = injector.tracer.err.read_to_end(&mut bytes);
    end.err = String::from_utf8_lossy(&bytes).into_owned();
    end.calls = injector.processes.into_iter().map(|process| process.calls).collect();
    end
}

/// Interrupts the waits of this process by SIGALRM in this interval, so that it can look at the clock. Zero
/// ends that.
fn tick(interval: Duration) {
    extern "C" fn nothing(_: libc::c_int) {}
    let action = SigAction::new(SigHandler::Handler(nothing), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler does nothing.
    unsafe { sigaction(Signal::SIGALRM, &action) }.expect("a handler");
    let micros = libc::suseconds_t::try_from(interval.as_micros()).expect("a number");
    let interval = libc::timeval { tv_sec: 0, tv_usec: micros };
    let timer = libc::itimerval { it_interval: interval, it_value: interval };
    // SAFETY: the structure outlives the call.
    let set = unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut()) };
    assert_eq!(set, 0, "a timer");
}

impl Injector<'_> {
    fn add(&mut self, pid: Pid) {
        self.processes.push(Process {
            pid,
            // A forked process has already passed the loader.
            counts: !self.processes.is_empty(),
            is_tool: false,
            is_command: false,
            calls: Vec::new(),
            fault: None,
        });
    }

    /// Follows all processes to their ends.
    fn follow(&mut self) {
        let mut events = Events::default();
        let mut last = Instant::now();
        loop {
            let known = |pid| self.processes.iter().position(|process| process.pid == pid);
            let found = match events.next(known) {
                Err(Errno::EINTR) => {
                    self.look_at_the_clock(&mut last);
                    continue;
                }
                found => found,
            };
            last = Instant::now();
            let (at, event) = match found {
                Ok(Some(found)) => found,
                Ok(None) => continue,
                // ECHILD: no process is left.
                Err(_) => return,
            };
            match event {
                Event::Ended(ending) => {
                    self.has_ended(at, ending);
                    continue;
                }
                Event::Call => self.call(at),
                Event::Birth => {}
                Event::Exec => self.has_executed(at),
                Event::Created(child) => self.add(child),
            }
            let _ = ptrace::syscall(self.processes[at].pid, None);
        }
    }

    /// Notes a pause since the `last` event. Kills all processes after [`LIMIT`].
    fn look_at_the_clock(&mut self, last: &mut Instant) {
        if last.elapsed() > PAUSE && self.end.pause.is_none() {
            self.end.pause = waiting();
        }
        if last.elapsed() > LIMIT {
            self.end.left = descendants().iter().map(|pid| describe(*pid)).collect();
            for pid in descendants() {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            *last = Instant::now();
        }
    }

    fn has_ended(&mut self, at: usize, ending: Ending) {
        if at == 0 {
            self.end.ending = ending;
        }
        self.end.ran |= self.processes[at].is_command && ending == Ending::Exited(0);
    }

    fn has_executed(&mut self, at: usize) {
        let process = &mut self.processes[at];
        process.counts = false;
        process.is_tool = is_mapping_tool(process.pid);
        process.is_command = std::fs::read_to_string(format!("/proc/{}/comm", process.pid))
            .is_ok_and(|name| name.starts_with("true"));
    }

    /// Handles a stop before or after a system call.
    fn call(&mut self, at: usize) {
        let process = &mut self.processes[at];
        let Some(info) = info(process.pid) else { return };
        if info.is_after {
            if let Some(errno) = process.fault.take() {
                set_result(process.pid, errno);
            }
            return;
        }
        if !process.counts {
            process.counts = !process.is_command && has_loaded(&info, process.is_tool);
            return;
        }
        let object = object(process.pid, info.number, &info.args);
        let call = Call { number: info.number, args: info.args, object, by_tool: process.is_tool };
        process.calls.push(call.clone());
        let this = |fault: &Fault| fault.process == at && fault.call == process.calls.len() - 1;
        let Some(fault) = self.fault.filter(this) else { return };
        let Some(errno) = (self.class)(&call).get(fault.choice).copied() else { return };
        if call.number != libc::SYS_close {
            skip(process.pid);
        }
        process.fault = Some(errno);
        self.end.failed = Some((call, errno));
    }
}

/// Returns whether the loader has done its work: `main` of nsexec begins with getrlimit(RLIMIT_AS), and the
/// loader ends with the removal of its cache.
fn has_loaded(info: &Info, is_tool: bool) -> bool {
    match is_tool {
        true => info.number == libc::SYS_munmap,
        false => info.number == libc::SYS_prlimit64 && info.args[1] == u64::from(libc::RLIMIT_AS),
    }
}

/// Returns the processes of the launch: all descendants of this process.
fn descendants() -> Vec<i32> {
    let mut found = living();
    let mut at = 0;
    while let Some(pid) = found.get(at) {
        let path = format!("/proc/{pid}/task/{pid}/children");
        let text = std::fs::read_to_string(path).unwrap_or_default();
        found.extend(text.split_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
        at += 1;
    }
    found
}

/// Describes the processes of the launch, or returns `None` if one of them runs.
fn waiting() -> Option<String> {
    let states: Vec<String> = descendants().iter().map(|pid| describe(*pid)).collect();
    let runs = states.iter().any(|state| state.contains(" R (running)"));
    (!runs && !states.is_empty()).then(|| states.join("; "))
}

/// Describes a process: its name, its state, the call that it waits in.
fn describe(pid: i32) -> String {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
    let status = read("status");
    let line = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or("?").trim();
    let call = read("syscall");
    format!("{pid} {} {} in call {}", line("Name:"), line("State:"), call.split(' ').next().unwrap_or("?"))
}

/// Returns the path that a call names, or the file of its descriptor.
fn object(pid: Pid, number: i64, args: &[u64; 6]) -> String {
    let at = match number {
        libc::SYS_openat | libc::SYS_openat2 | libc::SYS_statx | libc::SYS_newfstatat => Some(args[1]),
        libc::SYS_readlinkat | libc::SYS_execveat | libc::SYS_faccessat => Some(args[1]),
        libc::SYS_execve | libc::SYS_chdir | libc::SYS_statfs => Some(args[0]),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_readlink | libc::SYS_open | libc::SYS_stat | libc::SYS_access => Some(args[0]),
        libc::SYS_read
        | libc::SYS_write
        | libc::SYS_close
        | libc::SYS_lseek
        | libc::SYS_fstat
        | libc::SYS_fstatfs
        | libc::SYS_sendto => {
            let link = format!("/proc/{pid}/fd/{}", args[0]);
            return std::fs::read_link(link).map(|to| to.display().to_string()).unwrap_or_default();
        }
        _ => None,
    };
    let Some(at) = at else { return String::new() };
    let mut bytes = Vec::new();
    for word in 0.. {
        let Ok(value) = ptrace::read(pid, (at + word * 8) as ptrace::AddressType) else { break };
        let word = value.to_ne_bytes();
        bytes.extend(word.iter().take_while(|byte| **byte != 0));
        if word.contains(&0) || bytes.len() > 200 {
            break;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The stop of a process before or after a system call.
struct Info {
    is_after: bool,
    number: i64,
    args: [u64; 6],
}

/// Returns the call of a stopped process (PTRACE_GET_SYSCALL_INFO, since Linux 5.3). `None` if its parent has
/// killed it meanwhile.
fn info(pid: Pid) -> Option<Info> {
    /// PTRACE_SYSCALL_INFO_EXIT of linux/ptrace.h.
    const EXIT: u8 = 2;
    // struct ptrace_syscall_info: op and arch, instruction pointer, stack pointer, then number and arguments.
    let mut words = [0_u64; 11];
    // SAFETY: the kernel writes at most the given number of bytes.
    let read = unsafe {
        libc::ptrace(
            libc::PTRACE_GET_SYSCALL_INFO,
            pid.as_raw(),
            std::mem::size_of_val(&words),
            words.as_mut_ptr(),
        )
    };
    if read < 0 && Errno::last() == Errno::ESRCH {
        return None;
    }
    assert!(read > 0, "no information on the call of {pid}: {}", Errno::last());
    let is_after = words[0].to_ne_bytes()[0] == EXIT;
    let args = words[4..10].try_into().expect("six arguments");
    Some(Info { is_after, number: i64::from_ne_bytes(words[3].to_ne_bytes()), args })
}

/// Whether this tracer can change the calls of this architecture.
pub(crate) const SUPPORTED: bool = cfg!(any(target_arch = "x86_64", target_arch = "aarch64"));

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn skip(_: Pid) {}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn set_result(_: Pid, _: Errno) {}

/// Checks that a register was written, or that the process has been killed meanwhile.
#[cfg(target_arch = "x86_64")]
fn written(result: nix::Result<()>) {
    assert!(matches!(result, Ok(()) | Err(Errno::ESRCH)), "a register of a stopped process: {result:?}");
}

/// Removes the call that the process has begun.
#[cfg(target_arch = "x86_64")]
fn skip(pid: Pid) {
    let at = (libc::ORIG_RAX * 8) as ptrace::AddressType;
    written(ptrace::write_user(pid, at, -1));
}

/// Changes the result of the call that the process has made.
#[cfg(target_arch = "x86_64")]
fn set_result(pid: Pid, errno: Errno) {
    let at = (libc::RAX * 8) as ptrace::AddressType;
    written(ptrace::write_user(pid, at, -i64::from(errno as i32)));
}

#[cfg(target_arch = "aarch64")]
fn skip(pid: Pid) {
    registers(pid, libc::PTRACE_SETREGSET, NT_ARM_SYSTEM_CALL, &mut -1_i32);
}

#[cfg(target_arch = "aarch64")]
fn set_result(pid: Pid, errno: Errno) {
    // struct user_pt_regs: x0 to x30, sp, pc, pstate.
    let mut all = [0_i64; 34];
    registers(pid, libc::PTRACE_GETREGSET, NT_PRSTATUS, &mut all);
    all[0] = -i64::from(errno as i32);
    registers(pid, libc::PTRACE_SETREGSET, NT_PRSTATUS, &mut all);
}

/// Sets of registers of linux/elf.h.
#[cfg(target_arch = "aarch64")]
const NT_PRSTATUS: libc::c_int = 1;
#[cfg(target_arch = "aarch64")]
const NT_ARM_SYSTEM_CALL: libc::c_int = 0x404;

/// Reads or writes a set of registers of a stopped process.
#[cfg(target_arch = "aarch64")]
fn registers<T>(pid: Pid, request: libc::c_uint, set: libc::c_int, value: &mut T) {
    let base = std::ptr::from_mut(value).cast();
    let mut part = libc::iovec { iov_base: base, iov_len: std::mem::size_of::<T>() };
    // SAFETY: the kernel reads or writes at most the bytes of the value, whose types are plain integers.
    let done = unsafe { libc::ptrace(request, pid.as_raw(), set, &raw mut part) };
    assert!(done == 0 || Errno::last() == Errno::ESRCH, "the registers of {pid}: {}", Errno::last());
}
