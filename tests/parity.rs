//! The simulated kernel against the real kernel: each rule is a small program that must have the same result
//! on both.
//!
//! A rule is generic over `Sys`, and returns the kernel's replies in one line. It runs as root or as an
//! ordinary user: once on the simulator, and once on this machine in its own process with one thread. A rule
//! that cannot run on this machine prints a line `skipped: NAME: REASON`.

use std::cell::RefCell;
use std::ffi::{CStr, CString};
use std::io::Read;
use std::os::fd::{AsRawFd, FromRawFd};
use std::process::ExitCode;
use std::rc::Rc;

use nsexec::sys::linux::LinuxSys;
use nsexec_audit::sim::{Ended, Extra, HidePid, Oldest, Program, Settings, Sim, SimSys, User};

#[path = "parity_rules/mod.rs"]
mod rules;
#[path = "runner/mod.rs"]
mod runner;

use rules::{As, RuleResult};

/// One rule of the kernel.
struct Rule {
    name: &'static str,
    who: As,
    /// The expected replies of the kernel.
    wanted: &'static str,
    real: fn(&mut LinuxSys) -> RuleResult,
    sim: fn(&mut SimSys) -> RuleResult,
}

/// The id of the ordinary user. No account of the machine has it.
const UID: u32 = 64_321;

/// Returns the hidepid mode of this machine's /proc.
///
/// Found by trial: an ordinary user opens a file of root's process.
fn hidepid() -> HidePid {
    let waits = std::process::Command::new("sleep").arg("100").spawn();
    let mut waits = waits.expect("a process to look at");
    let folder = CString::new(format!("/proc/{}", waits.id())).unwrap();
    let file = CString::new(format!("/proc/{}/stat", waits.id())).unwrap();
    let found = of_child(|writer| {
        become_the_user();
        // SAFETY: the path lives through the call.
        let opens = |path: &CStr| unsafe { libc::open(path.as_ptr(), libc::O_PATH) } >= 0;
        let reads = opens(&file);
        let errno = std::io::Error::last_os_error().raw_os_error();
        let mode = match (reads, errno, opens(&folder)) {
            (true, ..) => HidePid::Off,
            (_, Some(libc::EPERM), _) => HidePid::NoAccess,
            (_, _, true) => HidePid::Invisible,
            _ => HidePid::Ptraceable,
        };
        write_all(writer, mode.word());
        0
    });
    waits.kill().unwrap();
    waits.wait().unwrap();
    HidePid::parse(&found).unwrap_or_else(|| panic!("no mode: {found}"))
}

/// Mounts a procfs with this mode over /proc, in a new mount namespace.
fn mount_proc(mode: HidePid) -> Result<(), String> {
    // Kernels before 5.8 accept numbers only.
    let (_, number, _) = HidePid::ALL.into_iter().find(|(.., other)| *other == mode).unwrap();
    let options = CString::new(format!("hidepid={number}")).unwrap();
    let failed = |what: &str| format!("{what}: {}", std::io::Error::last_os_error());
    // SAFETY: the strings live through the calls, and the pointers are null where the kernel allows it.
    unsafe {
        if libc::unshare(libc::CLONE_NEWNS) != 0 {
            return Err(failed("unshare"));
        }
        let (null, private) = (std::ptr::null(), libc::MS_REC | libc::MS_PRIVATE);
        if libc::mount(null, c"/".as_ptr(), null, private, null.cast()) != 0 {
            return Err(failed("mount /"));
        }
        let (proc, place) = (c"proc".as_ptr(), c"/proc".as_ptr());
        if libc::mount(proc, place, proc, 0, options.as_ptr().cast()) != 0 {
            return Err(failed("mount /proc"));
        }
    }
    Ok(())
}

/// The number of rules by result.
#[derive(Default)]
struct Counts {
    held: usize,
    skipped: usize,
    failed: usize,
}

fn main() -> ExitCode {
    runner::begin();
    // SAFETY: the call has no arguments and cannot fail.
    let root = unsafe { libc::geteuid() } == 0;
    let mut counts = Counts::default();
    // An ordinary user skips every rule.
    let own = if root { hidepid() } else { HidePid::Off };
    each_rule(root, own, &mut counts);
    for (word, _, mode) in HidePid::ALL {
        if !root {
            println!("skipped: parity::hidepid-{word}: needs root");
            counts.skipped += 1;
            continue;
        }
        if mode == own {
            continue;
        }
        if let Err(why) = mount_proc(mode) {
            println!("skipped: parity::hidepid-{word}: {why}");
            counts.skipped += 1;
            continue;
        }
        let found = hidepid();
        if found != mode {
            println!("FAILED a /proc that is mounted with hidepid={word} is taken for {}", found.word());
            counts.failed += 1;
            continue;
        }
        println!("with hidepid={word}");
        each_rule(root, mode, &mut counts);
    }
    let Counts { held, skipped, failed } = counts;
    println!("rules that hold here and in the simulator: {held} passed, {failed} failed, {skipped} skipped");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs every rule under one hidepid mode.
fn each_rule(root: bool, hidepid: HidePid, counts: &mut Counts) {
    for rule in runner::chosen("parity", rules::all(), |rule| rule.name.to_owned()) {
        let simulated = on_the_simulator(&rule, HidePid::Off);
        if simulated != rule.wanted {
            println!("FAILED {}\n  wanted    {}\n  simulated {simulated}", rule.name, rule.wanted);
            counts.failed += 1;
        }
        if !root {
            println!("skipped: parity::{}: needs root", rule.name);
            counts.skipped += 1;
            continue;
        }
        let real = on_this_machine(&rule);
        // The simulator models each mode of hidepid (proc(5)).
        let wanted = on_the_simulator(&rule, hidepid);
        if let Some(reason) = real.strip_prefix("skip: ") {
            println!("skipped: parity::{}: {reason}", rule.name);
            counts.skipped += 1;
        } else if real != wanted {
            println!(
                "FAILED {} with hidepid={}\n  wanted    {wanted}\n  real      {real}",
                rule.name,
                hidepid.word()
            );
            counts.failed += 1;
        } else {
            println!("rule {} ... {real}", rule.name);
            counts.held += 1;
        }
    }
}

/// Returns the effective capabilities of this process.
fn own_caps() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    u64::from_str_radix(line.trim(), 16).unwrap()
}

fn on_the_simulator(rule: &Rule, hidepid: HidePid) -> String {
    let caps = own_caps();
    let user = match rule.who {
        As::Root => User { caps, ..User::root() },
        As::User => User { groups: Vec::new(), ..User::ordinary(UID) },
    };
    let mut sim = Sim::new(Settings { bounding: caps, hidepid, ..Settings::default() }, &user);
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

fn on_this_machine(rule: &Rule) -> String {
    of_child(|writer| contract_process(rule, writer))
}

/// Runs `body` in a child process, and returns the text that it wrote.
///
/// The child exits with the status that `body` returns.
#[allow(clippy::disallowed_methods, reason = "this program has no threads, and no handlers of a fork")]
fn of_child(body: impl FnOnce(&std::fs::File) -> i32) -> String {
    let mut pipe = [0; 2];
    // SAFETY: the array has room for two descriptors.
    assert_eq!(unsafe { libc::pipe2(pipe.as_mut_ptr(), libc::O_CLOEXEC) }, 0);
    // SAFETY: this process owns both descriptors.
    let [mut reader, writer] = pipe.map(|fd| unsafe { std::fs::File::from_raw_fd(fd) });
    // SAFETY: this program has one thread.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let status = body(&writer);
        // SAFETY: ends the process without running the parent's cleanup.
        unsafe { libc::_exit(status) };
    }
    drop(writer);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    let mut status = 0;
    // SAFETY: waits for our own child, with room for its status.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    if text.is_empty() { format!("nothing, wait status {status:#x}") } else { text }
}

fn write_all(writer: &std::fs::File, text: &str) {
    // SAFETY: the text lives through the call, and the descriptor is open.
    unsafe { libc::write(writer.as_raw_fd(), text.as_ptr().cast(), text.len()) };
}

/// Changes this process to the ordinary user.
fn become_the_user() {
    // SAFETY: the calls take numbers, and the process has one thread.
    unsafe {
        libc::setgroups(0, std::ptr::null());
        assert_eq!(libc::setresgid(UID, UID, UID), 0);
        assert_eq!(libc::setresuid(UID, UID, UID), 0);
        libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0);
    }
}

/// Runs a rule in its process. Each process that the rule makes returns here as well.
fn contract_process(rule: &Rule, writer: &std::fs::File) -> i32 {
    runner::default_signals();
    // SAFETY: the call takes a number.
    unsafe { libc::alarm(u32::try_from(runner::LIMIT.as_secs()).unwrap()) };
    if rule.who == As::User {
        become_the_user();
    }
    // SAFETY: the process has one thread.
    let mut sys = unsafe { LinuxSys::new() };
    let contract = rule.real;
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| contract(&mut sys))) {
        Ok(Ok(text)) => {
            write_all(writer, &text);
            0
        }
        Ok(Err(status)) => status,
        Err(_) => 101,
    }
}
