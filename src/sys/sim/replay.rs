//! Fork and blocking by replay: [`SimSys`].
//!
//! A Rust stack cannot be copied, but that of a deterministic function can be built again. To run a process its
//! function is called from the start, with a `Sys` that hands out the replies it had without doing anything; when they
//! are used up it goes live. A fork copies the replies and adds [`Reply::Child`]. A call that waits unwinds with a
//! private payload, and the scheduler runs somebody else.
//!
//! So a function that is not a function of its replies is found: the call that it makes is not the one that was
//! recorded.

use core::cell::RefCell;
use core::ffi::CStr;
use std::boxed::Box;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::vec::Vec;

use super::fault::{Fault, What, shortened};
use super::kernel::{Halt, Kernel};
use super::process::Task;
use super::program::Ended;
use crate::sys::Sys;
use crate::sys::record::{Bytes, Call, Line, Reply};
use crate::sys::types::{
    CloneFlags, Errno, ExecArgs, ExitSignal, Fd, Fork, FsType, MaskHow, Mount, OpenFlags, Pid, PollFd,
    SigAction, Signal, SignalSet, SysResult, TidAddress, WaitFor, WaitStatus, Waited,
};

/// The payload of an unwinding: this turn of the process is over.
pub(super) struct TurnOver;

/// The kernel, and what goes wrong in it.
pub(super) struct World {
    pub(super) kernel: Kernel,
    pub(super) fault: Option<Fault>,
    pub(super) fired: bool,
    /// There are only the replies that were recorded; what does not fit them is kept here.
    pub(super) offline: Option<Vec<Misfit>>,
}

/// Where a function leaves the path of a recording.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Misfit {
    /// It made another call than the recorded one.
    Other {
        /// The place in the recording.
        line: usize,
        /// The recorded call.
        recorded: Call,
        /// The one that was made.
        made: Call,
    },
    /// It made one more call than were recorded.
    Beyond {
        /// The one that was made.
        made: Call,
    },
    /// It ended, and calls were left.
    Before {
        /// The first of those that were left.
        line: usize,
    },
    /// An exec that succeeded: from there on it is another program.
    Exec,
}

/// Runs `main` on the replies of a recording alone, without any kernel. The lines are those of one process, and before
/// them those of its makers up to the clone that made it.
///
/// # Errors
/// Where it leaves the path of the recording.
pub fn replay(lines: &[Line], main: impl Fn(&mut SimSys) -> Ended) -> Result<Ended, Misfit> {
    let mut kernel = super::Sim::new(super::Settings::default(), &super::User::root()).into_kernel();
    let me = Task(0);
    kernel.process_mut(me).replay = lines.into();
    let world = World { kernel, fault: None, fired: false, offline: Some(Vec::new()) };
    let world = Rc::new(RefCell::new(world));
    let mut sys = SimSys::new(Rc::clone(&world), me, usize::MAX);
    match catch_unwind(AssertUnwindSafe(|| main(&mut sys))) {
        Ok(_) if sys.cursor < lines.len() => Err(Misfit::Before { line: sys.cursor }),
        Ok(ended) => Ok(ended),
        Err(payload) if payload.is::<TurnOver>() => {
            let misfit = world.borrow_mut().offline.as_mut().and_then(Vec::pop);
            Err(misfit.unwrap_or(Misfit::Exec))
        }
        Err(payload) => resume_unwind(payload),
    }
}

/// The door to the simulated kernel, for one turn of one process.
pub struct SimSys {
    world: Rc<RefCell<World>>,
    me: Task,
    /// How many replies have been handed out.
    cursor: usize,
    /// How many live calls this turn may make.
    quantum: usize,
}

impl core::fmt::Debug for SimSys {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "SimSys({:?})", self.me)
    }
}

impl World {
    /// A call that has not been made before. `None`: this turn is over.
    fn live(&mut self, me: Task, call: Call) -> Option<Reply> {
        self.kernel.calls += 1;
        let waking = self.kernel.process(me).blocked.is_some();
        let mut made = None;
        match self.fault_here(me, waking) {
            // These two cannot fail.
            Some(What::Errno(_)) if matches!(call, Call::Getpid | Call::Gettid) => {}
            Some(What::Errno(errno)) => {
                self.fired = true;
                if let Call::Close { fd } = call {
                    // A descriptor that there is none is not freed by saying so.
                    let _ = self.kernel.close(me, fd);
                }
                self.kernel.process_mut(me).unblock();
                return Some(self.record(me, call, Reply::Errno(errno)));
            }
            Some(What::Kill | What::KillWaking) => {
                self.fired = true;
                self.kernel.exit(me, WaitStatus::Signaled(Signal::KILL));
                return None;
            }
            Some(What::Short(len)) => made = shortened(&call, len),
            None => {}
        }
        let result = self.kernel.call(me, made.as_ref().unwrap_or(&call));
        match result {
            Ok(reply) => {
                self.fired |= made.is_some();
                Some(self.record(me, call, reply))
            }
            Err(Halt::Errno(errno)) => Some(self.record(me, call, Reply::Errno(errno))),
            Err(Halt::Block) => {
                self.kernel.process_mut(me).blocked = Some(made.unwrap_or(call));
                None
            }
            Err(Halt::Gone) => {
                let process = self.kernel.process_mut(me);
                if process.is_alive() {
                    process.past.push(Line { call, reply: Reply::NoReturn });
                }
                None
            }
        }
    }

    pub(super) fn fault_here(&self, me: Task, waking: bool) -> Option<What> {
        let process = self.kernel.process(me);
        let fault = self.fault.filter(|fault| !self.fired && fault.at.who == process.who)?;
        let here = fault.at.line == process.lines() && (waking || fault.what != What::KillWaking);
        here.then_some(fault.what)
    }

    /// A call that is not the recorded one: in a run a mistake of the function, offline a result.
    fn misfit(&mut self, me: Task, line: usize, recorded: Call, made: Call) -> Option<Reply> {
        let Some(misfits) = &mut self.offline else {
            let who = self.kernel.process(me).who;
            panic!(
                "{who} is not pure at line {line} of its replay: recorded {recorded}, now it calls {made}"
            );
        };
        misfits.push(Misfit::Other { line, recorded, made });
        None
    }

    fn record(&mut self, me: Task, call: Call, reply: Reply) -> Reply {
        self.kernel.process_mut(me).replay.push(Line { call, reply: reply.clone() });
        reply
    }
}

impl SimSys {
    pub(super) fn new(world: Rc<RefCell<World>>, me: Task, quantum: usize) -> Self {
        Self { world, me, cursor: 0, quantum }
    }

    /// The arguments that this program was executed with.
    #[must_use]
    pub fn argv(&self) -> Vec<Vec<u8>> {
        self.world.borrow().kernel.process(self.me).argv.clone()
    }

    /// The replies that the function did not ask for again, if there are any: then it is not pure.
    pub(super) fn assert_all_replayed(&self) {
        let world = self.world.borrow();
        let process = world.kernel.process(self.me);
        if let Some(line) = process.replay.get(self.cursor) {
            panic!("{} is not pure: recorded {line}, now it ended without another call", process.who);
        }
    }

    /// The reply to `call`: a recorded one, or the kernel's.
    fn ask(&mut self, call: Call) -> Reply {
        let world = Rc::clone(&self.world);
        let mut world = world.borrow_mut();
        let reply = match world.kernel.process(self.me).replay.get(self.cursor) {
            Some(line) if line.call == call => Some(line.reply.clone()),
            Some(line) => {
                let recorded = line.call.clone();
                world.misfit(self.me, self.cursor, recorded, call)
            }
            None if world.offline.is_some() => {
                world.offline = Some(std::vec![Misfit::Beyond { made: call }]);
                None
            }
            None if self.quantum == 0 || world.kernel.calls > world.kernel.settings.calls => None,
            None => {
                self.quantum -= 1;
                world.live(self.me, call)
            }
        };
        drop(world);
        match reply {
            // Only offline: alive the process has become another.
            None | Some(Reply::NoReturn) => resume_unwind(Box::new(TurnOver)),
            Some(reply) => {
                self.cursor += 1;
                reply
            }
        }
    }

    fn unit(&mut self, call: Call) -> SysResult<()> {
        match self.ask(call) {
            Reply::Unit => Ok(()),
            reply => Err(errno(reply)),
        }
    }

    fn fd(&mut self, call: Call) -> SysResult<Fd> {
        match self.ask(call) {
            Reply::Fd(fd) => Ok(fd),
            reply => Err(errno(reply)),
        }
    }

    fn count(&mut self, call: Call) -> SysResult<usize> {
        match self.ask(call) {
            Reply::Count(count) => Ok(count),
            reply => Err(errno(reply)),
        }
    }

    fn data(&mut self, call: Call, buf: &mut [u8]) -> SysResult<usize> {
        match self.ask(call) {
            Reply::Data(Bytes(bytes)) => {
                buf[..bytes.len()].copy_from_slice(&bytes);
                Ok(bytes.len())
            }
            reply => Err(errno(reply)),
        }
    }

    fn pair(&mut self, call: Call) -> SysResult<(Fd, Fd)> {
        match self.ask(call) {
            Reply::Pair(one, other) => Ok((one, other)),
            reply => Err(errno(reply)),
        }
    }

    fn forked(&mut self, call: Call) -> SysResult<Fork> {
        match self.ask(call) {
            Reply::Parent(child) => Ok(Fork::Parent { child }),
            Reply::Child => Ok(Fork::Child),
            reply => Err(errno(reply)),
        }
    }

    fn id(&mut self, call: Call) -> Pid {
        match self.ask(call) {
            Reply::Pid(pid) => pid,
            reply => panic!("getpid and gettid cannot fail: {reply:?}"),
        }
    }
}

/// The errno of a reply that is one.
fn errno(reply: Reply) -> Errno {
    match reply {
        Reply::Errno(errno) => errno,
        other => panic!("the simulated kernel replied {other:?} to a call that has no such reply"),
    }
}

impl Sys for SimSys {
    fn openat(&mut self, dir: Fd, path: &CStr, flags: OpenFlags) -> SysResult<Fd> {
        self.fd(Call::Openat { dir, path: path.to_bytes().into(), flags })
    }

    fn close(&mut self, fd: Fd) -> SysResult<()> {
        self.unit(Call::Close { fd })
    }

    fn read(&mut self, fd: Fd, buf: &mut [u8]) -> SysResult<usize> {
        self.data(Call::Read { fd, len: buf.len() }, buf)
    }

    fn write(&mut self, fd: Fd, buf: &[u8]) -> SysResult<usize> {
        self.count(Call::Write { fd, data: buf.into() })
    }

    fn write_nowait(&mut self, fd: Fd, buf: &[u8]) -> SysResult<usize> {
        self.count(Call::WriteNowait { fd, data: buf.into() })
    }

    fn send(&mut self, fd: Fd, buf: &[u8]) -> SysResult<usize> {
        self.count(Call::Send { fd, data: buf.into() })
    }

    fn poll(&mut self, fds: &mut [PollFd], timeout_ms: i32) -> SysResult<usize> {
        let asked = fds.iter().map(|fd| PollFd::new(fd.fd, fd.events)).collect();
        match self.ask(Call::Poll { fds: asked, timeout_ms }) {
            Reply::Polled { count, fds: found } => {
                fds.copy_from_slice(&found);
                Ok(count)
            }
            reply => Err(errno(reply)),
        }
    }

    fn fstatfs(&mut self, fd: Fd) -> SysResult<FsType> {
        match self.ask(Call::Fstatfs { fd }) {
            Reply::FsType(kind) => Ok(kind),
            reply => Err(errno(reply)),
        }
    }

    fn link_count(&mut self, path: &CStr) -> SysResult<u64> {
        match self.ask(Call::LinkCount { path: path.to_bytes().into() }) {
            Reply::Links(count) => Ok(count),
            reply => Err(errno(reply)),
        }
    }

    fn socketpair(&mut self) -> SysResult<(Fd, Fd)> {
        self.pair(Call::Socketpair)
    }

    fn pipe2(&mut self) -> SysResult<(Fd, Fd)> {
        self.pair(Call::Pipe2)
    }

    fn close_range_cloexec(&mut self, first: Fd) -> SysResult<()> {
        self.unit(Call::CloseRangeCloexec { first })
    }

    fn getdents64(&mut self, fd: Fd, buf: &mut [u8]) -> SysResult<usize> {
        self.data(Call::Getdents64 { fd, len: buf.len() }, buf)
    }

    fn set_cloexec(&mut self, fd: Fd) -> SysResult<()> {
        self.unit(Call::SetCloexec { fd })
    }

    fn clone_sibling(&mut self, tid: Option<TidAddress>) -> SysResult<Fork> {
        self.forked(Call::CloneSibling { tid })
    }

    fn fork(&mut self, exit: ExitSignal, tid: Option<TidAddress>) -> SysResult<Fork> {
        self.forked(Call::Fork { exit, tid })
    }

    fn execve<'a>(&mut self, path: &CStr, argv: &ExecArgs<'a>, envp: &ExecArgs<'a>) -> Errno {
        let strings = |args: &ExecArgs<'a>| args.strings().map(Bytes::from).collect();
        errno(self.ask(Call::Execve {
            path: path.to_bytes().into(),
            argv: strings(argv),
            envp: strings(envp),
        }))
    }

    fn wait4(&mut self, pid: Pid, which: WaitFor) -> SysResult<Waited> {
        match self.ask(Call::Wait4 { pid, which }) {
            Reply::Waited(waited) => Ok(waited),
            reply => Err(errno(reply)),
        }
    }

    fn kill(&mut self, pid: Pid, signal: Signal) -> SysResult<()> {
        self.unit(Call::Kill { pid, signal })
    }

    fn pidfd_open(&mut self, pid: Pid) -> SysResult<Fd> {
        self.fd(Call::PidfdOpen { pid })
    }

    fn getpid(&mut self) -> Pid {
        self.id(Call::Getpid)
    }

    fn gettid(&mut self) -> Pid {
        self.id(Call::Gettid)
    }

    fn tid_address(&mut self) -> SysResult<TidAddress> {
        match self.ask(Call::TidAddress) {
            Reply::TidAddress(tid) => Ok(tid),
            reply => Err(errno(reply)),
        }
    }

    fn setns(&mut self, fd: Fd, kind: CloneFlags) -> SysResult<()> {
        self.unit(Call::Setns { fd, kind })
    }

    fn unshare(&mut self, flags: CloneFlags) -> SysResult<()> {
        self.unit(Call::Unshare { flags })
    }

    fn set_dumpable(&mut self, dumpable: bool) -> SysResult<()> {
        self.unit(Call::SetDumpable { dumpable })
    }

    fn set_name(&mut self, name: &CStr) -> SysResult<()> {
        self.unit(Call::SetName { name: name.to_bytes().into() })
    }

    fn set_pdeathsig(&mut self, signal: Signal) -> SysResult<()> {
        self.unit(Call::SetPdeathsig { signal })
    }

    fn setsid(&mut self) -> SysResult<()> {
        self.unit(Call::Setsid)
    }

    fn setresuid(&mut self, uid: u32) -> SysResult<()> {
        self.unit(Call::Setresuid { uid })
    }

    fn setuid(&mut self, uid: u32) -> SysResult<()> {
        self.unit(Call::Setuid { uid })
    }

    fn setgid(&mut self, gid: u32) -> SysResult<()> {
        self.unit(Call::Setgid { gid })
    }

    fn drop_groups(&mut self) -> SysResult<()> {
        self.unit(Call::DropGroups)
    }

    fn sched_getaffinity(&mut self) -> SysResult<u64> {
        match self.ask(Call::SchedGetaffinity) {
            Reply::Affinity(cpus) => Ok(cpus),
            reply => Err(errno(reply)),
        }
    }

    fn mount(&mut self, mount: Mount) -> SysResult<()> {
        self.unit(Call::Mount { mount })
    }

    fn sigprocmask(&mut self, how: MaskHow, set: SignalSet) -> SysResult<SignalSet> {
        match self.ask(Call::Sigprocmask { how, set }) {
            Reply::Mask(old) => Ok(old),
            reply => Err(errno(reply)),
        }
    }

    fn sigaction(&mut self, signal: Signal, action: SigAction) -> SysResult<SigAction> {
        match self.ask(Call::Sigaction { signal, action }) {
            Reply::Action(old) => Ok(old),
            reply => Err(errno(reply)),
        }
    }

    fn sigtimedwait(&mut self, set: SignalSet) -> SysResult<Signal> {
        match self.ask(Call::Sigtimedwait { set }) {
            Reply::Signal(signal) => Ok(signal),
            reply => Err(errno(reply)),
        }
    }
}
