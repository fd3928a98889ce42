//! A start of the drop-in on the simulated kernel: runc's two manners of launching (spec 2.8), and what its `init` does
//! when the bootstrap has handed over.
//!
//! A Go runtime is not our code, so this is a likeness, as small as it can be: who is told what, and who waits for whom.

use core::ffi::CStr;

use std::vec;
use std::vec::Vec;

use crate::bootstrap::env::Environment;
use crate::launch::script::parse_pid_line;
use crate::log::Level;
use crate::nsexec::{Scratch, bootstrap};
use crate::pipe::{read_full, send_all};
use crate::policy::Policy;
use crate::stage::Outcome;
use crate::sys::Sys;
use crate::sys::sim::{Ended, Program, Sim, SimSys};
use crate::sys::types::{Errno, ExecArgs, ExitSignal, Fd, Fork, Pid, Signal, WaitFor, WaitStatus};

/// In which order the launcher waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Manner {
    /// `runc run`: pid line, stage 1, is stage 2 there, stage 0, configuration.
    Init,
    /// `runc exec`: stage 0, pid line, stage 1, configuration.
    Exec,
}

/// What the launcher says to the init when the bootstrap is over: a JSON object.
pub const CONFIG: &[u8] = b"{\"args\":[]}\n";

/// Where the runtime's program lies.
const RUNC: &CStr = c"/usr/bin/runc";

/// Makes a drop-in start of `sim`'s launcher: init pipe and log pipe, stage 0 by fork and exec.
pub fn drop_in(sim: &mut Sim, manner: Manner, level: Level, policy: Policy, message: Vec<u8>) {
    let (init, stage_init) = sim.socketpair(true);
    let (log, stage_log) = sim.pipe(true);
    let memory = message.len();
    let path = RUNC.to_str().unwrap_or_default();
    sim.program(
        path,
        Program::new(move |sys| runc_init(sys, (stage_init, stage_log), level, &policy, memory)),
    );
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
        let _ = sys.close(stage_init);
        let _ = sys.close(stage_log);
        let mut current = Some(child);
        let status = if converse(sys, manner, &message, init, &mut current).is_some() {
            0
        } else {
            // runc's terminate: SIGKILL and wait. Go's os.Process kills nobody whom it has reaped.
            if let Some(pid) = current {
                let _ = sys.kill(pid, Signal::KILL);
                let _ = wait(sys, pid);
            }
            1
        };
        let _ = sys.close(init);
        read_log(sys, log);
        Ended::Exit(status)
    });
}

/// What `runc init` is: the bootstrap, then the Go half up to the configuration.
pub fn runc_init<S: Sys>(
    sys: &mut S,
    (init, log): (Fd, Fd),
    level: Level,
    policy: &Policy,
    memory: usize,
) -> Ended {
    let mut memory = vec![0; memory];
    let environment = Environment { init: Some(init), log: Some(log), level };
    match bootstrap(sys, environment, policy, &mut Scratch { message: &mut memory }) {
        Outcome::NotInit => Ended::Exit(99),
        Outcome::Exit(status) => Ended::Exit(status),
        Outcome::HandOver => {
            let mut config = vec![0; CONFIG.len()];
            match read_full(sys, init, &mut config) {
                Ok(got) if got == CONFIG.len() => {}
                // The configuration does not come: `runc init` fails.
                _ => return Ended::Exit(1),
            }
            let _ = sys.close(log);
            Ended::HandOver
        }
    }
}

/// `current` is the process that runc's handle stands for, until it is reaped.
fn converse(
    sys: &mut SimSys,
    manner: Manner,
    message: &[u8],
    init: Fd,
    current: &mut Option<Pid>,
) -> Option<()> {
    let stage_0 = (*current)?;
    send_all(sys, init, message).ok()?;
    match manner {
        Manner::Init => {
            let (stage_1, stage_2) = read_pids(sys, init)?;
            wait(sys, stage_1);
            // It reads stage 2's links in /proc/PID/fd, so stage 2 must be alive.
            sys.kill(stage_2, Signal(0)).ok()?;
            succeeded(wait(sys, stage_0), current)?;
            *current = Some(stage_2);
        }
        Manner::Exec => {
            succeeded(wait(sys, stage_0), current)?;
            let (stage_1, stage_2) = read_pids(sys, init)?;
            wait(sys, stage_1);
            *current = Some(stage_2);
        }
    }
    send_all(sys, init, CONFIG).ok()
}

fn succeeded(status: Option<WaitStatus>, current: &mut Option<Pid>) -> Option<()> {
    // A wait that failed has reaped nobody.
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

/// Go decodes one JSON object; nothing comes behind it until the configuration has gone out.
fn read_pids(sys: &mut SimSys, init: Fd) -> Option<(Pid, Pid)> {
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
    parse_pid_line(&line)
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
