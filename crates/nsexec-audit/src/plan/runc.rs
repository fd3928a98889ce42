//! Starts the drop-in on the simulated kernel, as the Go parents of runc's release lines do
//! (docs/protocol.md#what-the-go-parent-does). Also simulates the Go code of `runc init` after the hand-over.
//!
//! A Go runtime is not our code. The simulation covers only the messages that it sends and receives, and its
//! waits. The order of the waits:
//!
//! | line | `runc run` | `runc exec` |
//! |---|---|---|
//! | seed | stage 0, pid line, stage 1 | the same |
//! | 1.0 | ready byte, pid line, stage 1, check of stage 2, byte 0x80 with a cgroup namespace, stage 0 | ready byte, stage 0, pid line, stage 1 |
//! | 1.1 | the same without the byte 0x80, with numbers reserved for mount sources | the same |
//! | since 1.2 | pid line, stage 1, check of stage 2, stage 0 | stage 0, pid line, stage 1 |
//!
//! Each line sends the configuration last.

use core::ffi::CStr;

use std::format;
use std::string::String;
use std::vec;
use std::vec::Vec;

use crate::record::AnySys;
use crate::sim::{Ended, Extra, Program, Sim, SimSys};
use nsexec::bootstrap::decode;
use nsexec::bootstrap::dialect::Dialect;
use nsexec::bootstrap::env::{CLONED_BINARY, Environment, OwnProgram};
use nsexec::cloned::STRINGS_MAX;
use nsexec::launch::script::parse_pid_line;
use nsexec::legacy::{CGROUP_BYTE, CgroupPlacement, EnvironmentForm, READY};
use nsexec::log::Level;
use nsexec::nsexec::{Scratch, bootstrap_with_first_steps};
use nsexec::pipe::{read_full, send_all};
use nsexec::policy::Policy;
use nsexec::stage::Outcome;
use nsexec::sys::Sys;
use nsexec::sys::types::{
    CloneFlags, Errno, ExecArgs, ExitSignal, Fd, Fork, Pid, Signal, WaitFor, WaitStatus,
};

/// The order of the launcher's waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Manner {
    /// `runc run`: pid line, stage 1, check of stage 2, stage 0, configuration.
    Init,
    /// `runc exec`: stage 0, pid line, stage 1, configuration.
    Exec,
}

/// The launcher's list of the numbers that it reserves for mount sources, in `_LIBCONTAINER_MOUNT_FDS`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MountNumbers {
    /// One number for each source.
    Kept,
    /// The variable is not set.
    Unset,
    /// Another value of the variable.
    Raw(&'static str),
}

/// The parameters of a start.
#[derive(Clone, Debug)]
pub struct Launch {
    /// Whether the launcher is `runc run` or `runc exec`.
    pub manner: Manner,
    /// The log level.
    pub level: Level,
    /// The policy, including the dialect.
    pub policy: Policy,
    /// The bytes on the init pipe.
    pub message: Vec<u8>,
    /// The numbers for the mount sources, if the message has any.
    pub mount_numbers: MountNumbers,
}

/// The launcher's message to the init after the bootstrap: a JSON object.
pub const CONFIG: &[u8] = b"{\"args\":[]}\n";

/// The buffer size, in bytes, for copying the program without sendfile.
const COPY_BUFFER: usize = 4096;

/// The path of the runtime's program.
const RUNC: &CStr = c"/usr/bin/runc";

/// Makes `sim`'s launcher start the drop-in: creates the init pipe and the log pipe, and starts stage 0 by
/// fork and exec.
pub fn drop_in(sim: &mut Sim, launch: Launch) {
    let Launch { manner, level, policy, message, mount_numbers } = launch;
    let dialect = policy.dialect;
    let (init, stage_init) = sim.socketpair(true);
    // The seed has no log pipe.
    let log = (dialect.legacy.environment != EnvironmentForm::InitOnly).then(|| sim.pipe(true));
    let stage_log = log.map(|(_, write)| write);
    let (numbers, kept) = reserve_numbers(sim, &message, dialect, stage_init);
    let mount_fds = match mount_numbers {
        MountNumbers::Kept => numbers,
        MountNumbers::Unset => None,
        MountNumbers::Raw(text) => Some(text.into()),
    };
    let memory = message.len();
    if dialect.legacy.cloned_binary {
        sim.file("/tmp", Extra::Directory);
    }
    let program = Program::new(move |sys| {
        let pipes = Environment::new(Some(stage_init), stage_log, level);
        let environment = Environment { mount_fds: mount_fds.as_deref().map(str::as_bytes), ..pipes };
        let environ = sys.environ();
        runc_init(&mut AnySys(sys), environment, own_program(&environ), &policy, memory)
    });
    sim.program(RUNC.to_str().unwrap_or_default(), program);
    sim.launcher(move |sys| {
        let child = match sys.fork(ExitSignal::Chld, None) {
            Ok(Fork::Child) => {
                let mut slots = [None; 3];
                if let Some(argv) = ExecArgs::build(b"runc\0init\0", &mut slots) {
                    sys.execve(RUNC, &argv, &ExecArgs::EMPTY);
                }
                return Ended::Exit(127);
            }
            Ok(Fork::Parent { child }) => child,
            Err(_) => return Ended::Exit(1),
        };
        for fd in [stage_init].into_iter().chain(stage_log).chain(kept.iter().copied()) {
            let _ = sys.close(fd);
        }
        let mut current = Some(child);
        let conversation = Conversation { manner, dialect, message: &message };
        let status = if conversation.exchange(sys, init, &mut current).is_some() {
            0
        } else {
            // As runc's terminate: SIGKILL, then wait. Go's os.Process sends no signal to a process that it
            // has reaped.
            if let Some(pid) = current {
                let _ = sys.kill(pid, Signal::KILL);
                let _ = wait(sys, pid);
            }
            1
        };
        let _ = sys.close(init);
        if let Some((log, _)) = log {
            read_log(sys, log);
        }
        Ended::Exit(status)
    });
}

/// Duplicates the stages' end of the init pipe once for each mount source. Returns the list of the numbers as
/// text, and the descriptors.
fn reserve_numbers(
    sim: &mut Sim,
    message: &[u8],
    dialect: &Dialect,
    stage_init: Fd,
) -> (Option<String>, Vec<Fd>) {
    let sources = decode(message, dialect).ok();
    let Some(sources) = sources.and_then(|(bootstrap, _)| bootstrap.mount_sources()) else {
        return (None, Vec::new());
    };
    /// The first number after the standard descriptors and the pipes.
    const FIRST: i32 = 7;
    let mut kept = Vec::new();
    let mut numbers = Vec::new();
    for source in sources.iter() {
        if source.is_empty() {
            numbers.push("-1".into());
            continue;
        }
        let number = Fd(FIRST.saturating_add(i32::try_from(kept.len()).unwrap_or(i32::MAX)));
        sim.duplicate(stage_init, number);
        kept.push(number);
        numbers.push(format!("{}", number.0));
    }
    (Some(format!("[{}]", numbers.join(","))), kept)
}

/// Returns the settings of an environment for the program's own copy.
#[must_use]
pub fn own_program(environ: &[u8]) -> OwnProgram<'_> {
    let mut variables = environ.split(|byte| *byte == 0);
    let mark = variables.find_map(|variable| {
        variable.strip_prefix(CLONED_BINARY.as_bytes()).and_then(|rest| rest.strip_prefix(b"="))
    });
    OwnProgram { state_dir: None, mark, environ: Some(environ) }
}

/// Runs `runc init`: the bootstrap, then the Go code until it has the configuration.
pub fn runc_init<S: Sys>(
    sys: &mut S,
    environment: Environment<'_>,
    own: OwnProgram<'_>,
    policy: &Policy,
    memory: usize,
) -> Ended {
    // A copy also needs room for its arguments and environment.
    let memory = memory + if policy.dialect.legacy.cloned_binary { 2 * STRINGS_MAX + COPY_BUFFER } else { 0 };
    let mut memory = vec![0; memory];
    let environment = Environment { own, ..environment };
    match bootstrap_with_first_steps(sys, environment, policy, &mut Scratch { message: &mut memory }) {
        Outcome::NotInit => Ended::Exit(99),
        Outcome::Exit(status) => Ended::Exit(status),
        Outcome::HandOver => {
            let mut config = vec![0; CONFIG.len()];
            let got = environment.init.map(|init| read_full(sys, init, &mut config));
            if got != Some(Ok(CONFIG.len())) {
                // Without the configuration, `runc init` fails.
                return Ended::Exit(1);
            }
            if let Some(log) = environment.log {
                let _ = sys.close(log);
            }
            Ended::HandOver
        }
    }
}

/// The launcher's side of the conversation.
struct Conversation<'t> {
    manner: Manner,
    dialect: &'static Dialect,
    message: &'t [u8],
}

impl Conversation<'_> {
    /// Exchanges all messages of a start. `current` is the process that runc's handle refers to, until it is
    /// reaped.
    fn exchange(&self, sys: &mut SimSys, init: Fd, current: &mut Option<Pid>) -> Option<()> {
        let stage_0 = (*current)?;
        // The older lines read the ready byte in a separate goroutine. They continue when the byte is read
        // and the message is sent.
        send_all(sys, init, self.message).ok()?;
        if self.dialect.legacy.ready_byte {
            let mut byte = [0];
            (read_full(sys, init, &mut byte) == Ok(1) && byte == [READY]).then_some(())?;
        }
        // A late pid line is sent after stage 0's last step, so stage 0 is waited for first.
        let stage_2 = if self.manner == Manner::Init && !self.dialect.sends_pid_line_late() {
            let (stage_1, stage_2) = self.read_pids(sys, init)?;
            wait(sys, stage_1);
            // runc reads stage 2's links in /proc/PID/fd, so stage 2 must be alive.
            sys.kill(stage_2, Signal(0)).ok()?;
            if self.awaits_cgroup_byte() {
                send_all(sys, init, &[CGROUP_BYTE]).ok()?;
            }
            succeeded(wait(sys, stage_0), current)?;
            stage_2
        } else {
            succeeded(wait(sys, stage_0), current)?;
            let (stage_1, stage_2) = self.read_pids(sys, init)?;
            wait(sys, stage_1);
            stage_2
        };
        *current = Some(stage_2);
        send_all(sys, init, CONFIG).ok()
    }

    /// Returns whether stage 2 waits for the byte 0x80, according to the message.
    fn awaits_cgroup_byte(&self) -> bool {
        let asked = decode(self.message, self.dialect).ok();
        self.dialect.legacy.cgroup_namespace == CgroupPlacement::Stage2AfterByte
            && asked.is_some_and(|(asked, _)| asked.clone_flags().contains(CloneFlags::NEWCGROUP))
    }

    /// Reads the pid line. Go decodes one JSON object; no more data follows until the configuration is sent.
    fn read_pids(&self, sys: &mut SimSys, init: Fd) -> Option<(Pid, Pid)> {
        let mut line = Vec::new();
        let mut buffer = [0; 512];
        while !line.ends_with(b"\n") {
            match sys.read(init, &mut buffer) {
                Ok(0) => return None,
                Ok(count) => line.extend(buffer.iter().take(count)),
                Err(Errno::EINTR) => {}
                Err(_) => return None,
            }
        }
        parse_pid_line(&line, self.dialect.pid_line)
    }
}

fn succeeded(status: Option<WaitStatus>, current: &mut Option<Pid>) -> Option<()> {
    // A failed wait has reaped no process.
    if status.is_some() {
        *current = None;
    }
    (status == Some(WaitStatus::Exited(0))).then_some(())
}

fn wait(sys: &mut SimSys, pid: Pid) -> Option<WaitStatus> {
    loop {
        match sys.wait4(pid, WaitFor::Ordinary) {
            Ok(waited) => return Some(waited.status),
            Err(Errno::EINTR) => {}
            Err(_) => return None,
        }
    }
}

fn read_log(sys: &mut SimSys, log: Fd) {
    let mut buffer = [0; 4096];
    loop {
        match sys.read(log, &mut buffer) {
            Ok(0) => return,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return,
        }
    }
}
