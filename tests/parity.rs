//! The simulated kernel against the real kernel: each rule is a small program that must have the same result
//! on both.
//!
//! A rule is generic over `Sys`, and returns the kernel's replies in one line. It runs as root or as an
//! ordinary user: once on the simulator, and once on this machine in its own process with one thread. A rule
//! that cannot run on this machine is skipped. Each rule is tested under every mode of hidepid of /proc.

use std::cell::RefCell;
use std::ffi::{CStr, CString};
use std::io::Read;
use std::os::fd::{AsRawFd, FromRawFd};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use nsexec::sys::linux::LinuxSys;
use nsexec_audit::sim::{Ended, Extra, HidePid, Oldest, Program, Settings, Sim, SimSys, User};
use support::{Suite, Test, Threads, Verdict};

mod parity_rules;

use parity_rules::{As, RuleResult};

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

fn main() -> ExitCode {
    let machine = Arc::new(Mutex::new(Machine::default()));
    // The machine's own mode is not known before the first test, and the names must not depend on it.
    let modes = HidePid::ALL.into_iter().map(|(word, _, mode)| (word, mode));
    let tests = modes.flat_map(|(word, mode)| {
        let machine = machine.clone();
        parity_rules::all().map(move |rule| {
            let machine = machine.clone();
            Test::new(format!("{}@hidepid-{word}", rule.name), move || holds(&rule, mode, &machine))
        })
    });
    let suite = Suite::new("parity", tests.collect());
    support::begin();
    suite.main(Threads::One)
}

/// The hidepid mode of the /proc that this process sees now; `None` before the first test.
#[derive(Default)]
struct Machine(Option<HidePid>);

impl Machine {
    /// Mounts a procfs with this mode over /proc, unless the present one has it.
    ///
    /// # Errors
    /// A text, if the procfs cannot be mounted.
    fn change(&mut self, mode: HidePid) -> Result<(), String> {
        let current = *self.0.get_or_insert_with(hidepid);
        if current == mode {
            return Ok(());
        }
        mount_proc(mode)?;
        let found = hidepid();
        self.0 = Some(found);
        assert!(found == mode, "a /proc with hidepid={} is taken for {}", mode.word(), found.word());
        Ok(())
    }
}

/// Tests one rule under one mode of hidepid.
fn holds(rule: &Rule, hidepid: HidePid, machine: &Mutex<Machine>) -> Verdict {
    let simulated = on_the_simulator(rule, HidePid::Off);
    if simulated != rule.wanted {
        return Verdict::Failed(format!("wanted    {}\nsimulated {simulated}", rule.wanted));
    }
    // SAFETY: the call has no arguments and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        return Verdict::Skipped("needs root".to_owned());
    }
    // A test that has panicked leaves the mode that it found.
    let mut machine = machine.lock().unwrap_or_else(PoisonError::into_inner);
    if let Err(why) = machine.change(hidepid) {
        return Verdict::Skipped(why);
    }
    let real = on_this_machine(rule);
    // The simulator models each mode of hidepid (proc(5)).
    let wanted = on_the_simulator(rule, hidepid);
    if let Some(reason) = real.strip_prefix("skip: ") {
        return Verdict::Skipped(reason.to_owned());
    }
    println!("{real}");
    if real == wanted {
        Verdict::Passed
    } else {
        Verdict::Failed(format!("wanted    {wanted}\nreal      {real}"))
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
    sim.file("/nowhere", Extra::Missing);
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
    text.unwrap_or_else(|| format!("nothing\n{}", report.dump()))
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
    support::default_signals();
    // SAFETY: the call takes a number.
    unsafe { libc::alarm(u32::try_from(support::LIMIT.as_secs()).unwrap()) };
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
