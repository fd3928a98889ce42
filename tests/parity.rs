//! The simulated kernel against the real one: each rule is a small contract, and both must keep it.
//!
//! A contract is generic over `Sys`; it says in one line what the kernel replied. It runs as root or as an ordinary
//! user, on the simulator and, as a process of its own with one thread, on this machine. What this machine cannot run is
//! a line `skipped: NAME: REASON`.

use std::cell::RefCell;
use std::io::Read;
use std::os::fd::{AsRawFd, FromRawFd};
use std::process::ExitCode;
use std::rc::Rc;

use nsexec::sys::linux::LinuxSys;
use nsexec::sys::sim::{Ended, Extra, Oldest, Program, Settings, Sim, SimSys, User};

#[path = "parity_rules/mod.rs"]
mod rules;
#[path = "runner/mod.rs"]
mod runner;

use rules::{As, Said};

/// One rule of the kernel.
struct Rule {
    name: &'static str,
    who: As,
    /// What the kernel says.
    wanted: &'static str,
    real: fn(&mut LinuxSys) -> Said,
    sim: fn(&mut SimSys) -> Said,
}

/// The ordinary user. Nobody has this number.
const UID: u32 = 64_321;

fn proc_is_hidden() -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let mut options = mounts.lines().filter(|line| line.split(' ').nth(1) == Some("/proc"));
    options
        .any(|line| line.contains("hidepid=") && !line.contains("hidepid=off") && !line.contains("hidepid=0"))
}

fn main() -> ExitCode {
    runner::begin();
    // SAFETY: no argument, no failure.
    let root = unsafe { libc::geteuid() } == 0;
    let hidden = proc_is_hidden();
    let (mut held, mut skipped, mut failed) = (0, 0, 0);
    for rule in runner::chosen("parity", rules::all(), |rule| rule.name.to_owned()) {
        let simulated = on_the_simulator(&rule, false);
        if simulated != rule.wanted {
            println!("FAILED {}\n  wanted    {}\n  simulated {simulated}", rule.name, rule.wanted);
            failed += 1;
        }
        if !root {
            println!("skipped: parity::{}: needs root", rule.name);
            skipped += 1;
            continue;
        }
        let real = on_this_machine(&rule);
        // With hidepid some processes are not there for others (proc(5)); the simulator has that too.
        let wanted = if hidden { on_the_simulator(&rule, true) } else { rule.wanted.to_owned() };
        if let Some(reason) = real.strip_prefix("skip: ") {
            println!("skipped: parity::{}: {reason}", rule.name);
            skipped += 1;
        } else if real != wanted {
            println!("FAILED {}\n  wanted    {wanted}\n  real      {real}", rule.name);
            failed += 1;
        } else {
            println!("rule {} ... {real}", rule.name);
            held += 1;
        }
    }
    println!("rules that hold here and in the simulator: {held} passed, {failed} failed, {skipped} skipped");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The capabilities of this process, as far as it may hand them on.
fn own_caps() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    u64::from_str_radix(line.trim(), 16).unwrap()
}

fn on_the_simulator(rule: &Rule, proc_hides_processes: bool) -> String {
    let caps = own_caps();
    let user = match rule.who {
        As::Root => User { caps, ..User::root() },
        As::User => User { groups: Vec::new(), ..User::ordinary(UID) },
    };
    let mut sim = Sim::new(Settings { bounding: caps, proc_hides_processes, ..Settings::default() }, &user);
    sim.program("/bin/sleep", Program::ends(Ended::Stay));
    sim.program("/bin/true", Program::ends(Ended::Exit(0)));
    sim.file("/etc/passwd", Extra::Regular(b"root\n".as_slice().into()));
    sim.file("/etc", Extra::Directory);
    sim.file("/tmp", Extra::Directory);
    let said = Rc::new(RefCell::new(None));
    let (saying, contract) = (said.clone(), rule.sim);
    sim.launcher(move |sys| match contract(sys) {
        Ok(text) => {
            *saying.borrow_mut() = Some(text);
            Ended::Exit(0)
        }
        Err(status) => Ended::Exit(status),
    });
    let report = sim.run(&mut Oldest, None);
    let text = said.borrow_mut().take();
    text.unwrap_or_else(|| format!("nothing\n{}", report.dump))
}

#[allow(clippy::disallowed_methods, reason = "this program has no threads, and no handlers of a fork")]
fn on_this_machine(rule: &Rule) -> String {
    let mut pipe = [0; 2];
    // SAFETY: room for two numbers.
    assert_eq!(unsafe { libc::pipe2(pipe.as_mut_ptr(), libc::O_CLOEXEC) }, 0);
    // SAFETY: both are ours.
    let [mut reader, writer] = pipe.map(|fd| unsafe { std::fs::File::from_raw_fd(fd) });
    // SAFETY: this program has one thread.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let status = contract_process(rule, &writer);
        // SAFETY: ends the process, and runs nothing that belongs to its parent.
        unsafe { libc::_exit(status) };
    }
    drop(writer);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    let mut status = 0;
    // SAFETY: our own child, room for its status.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    if text.is_empty() { format!("nothing, wait status {status:#x}") } else { text }
}

/// The process of a contract, and each process that it makes: they all come back from here.
fn contract_process(rule: &Rule, writer: &std::fs::File) -> i32 {
    runner::default_signals();
    // SAFETY: calls with numbers, on a process of our own with one thread.
    unsafe {
        libc::alarm(u32::try_from(runner::LIMIT.as_secs()).unwrap());
        if rule.who == As::User {
            libc::setgroups(0, std::ptr::null());
            assert_eq!(libc::setresgid(UID, UID, UID), 0);
            assert_eq!(libc::setresuid(UID, UID, UID), 0);
            libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0);
        }
    }
    // SAFETY: one thread.
    let mut sys = unsafe { LinuxSys::new() };
    let contract = rule.real;
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| contract(&mut sys))) {
        Ok(Ok(text)) => {
            // SAFETY: the text lives, and the descriptor is open.
            unsafe { libc::write(writer.as_raw_fd(), text.as_ptr().cast(), text.len()) };
            0
        }
        Ok(Err(status)) => status,
        Err(_) => 101,
    }
}
