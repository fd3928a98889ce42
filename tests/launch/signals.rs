//! The signal state of the command, and the supervision of a command.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::Child;
use std::time::{Duration, Instant};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, kill, sigaction};
use nix::unistd::Pid;
use nsexec::launch::exit_code;
use nsexec::launch::signals::{Signals, supervise};

use crate::cases::{Shape, everything, leaves_nothing, output};
use crate::{Case, helper, no_child_left};
use support::LIMIT;

pub(crate) const CASES: &[Case] = &[
    ("the_command_begins_with_the_callers_signals", the_command_begins_with_the_callers_signals),
    ("sigchld_ignored", sigchld_ignored),
    ("sigchld_ignored_and_supervised", sigchld_ignored_and_supervised),
    ("error_names_the_signalfd_without_a_descriptor", error_names_the_signalfd_without_a_descriptor),
    ("supervised_command_gets_the_signals_it_handles", supervised_command_gets_the_signals_it_handles),
    ("supervised_command_ends_by_signals_without_a_handler", supervised_command_ends_without_a_handler),
    ("supervised_command_stops_and_continues", supervised_command_stops_and_continues),
];

/// Sets a disposition of this process.
fn dispose(signal: Signal, handler: SigHandler) {
    let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
    // SAFETY: the only handler used here does nothing.
    unsafe { sigaction(signal, &action) }.unwrap();
}

extern "C" fn nothing(_: i32) {}

fn the_command_begins_with_the_callers_signals() {
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGUSR2);
    mask.thread_block().unwrap();
    dispose(Signal::SIGHUP, SigHandler::SigIgn);
    dispose(Signal::SIGUSR1, SigHandler::Handler(nothing));
    // SIGUSR2 is 12, SIGHUP is 1. SIGPIPE, which Rust's runtime ignores, is not ignored, and no handler is
    // left. The mask omits the real-time signals: the caller of the tests may ignore the two that the libc
    // uses.
    let want = ["0000000000000800", "0000000000000001", "0000000000000000"];
    for mut launcher in Shape::ALL.into_iter().flat_map(|shape| [shape.plain(), everything(shape, false)]) {
        let status = leaves_nothing(|| output(&mut launcher, "exec cat /proc/self/status"));
        let sets = ["SigBlk", "SigIgn", "SigCgt"].map(|name| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            format!("{:016x}", u64::from_str_radix(&line[8..], 16).unwrap() & 0x7fff_ffff)
        });
        assert_eq!(sets, want);
    }
    // The signal state of the launcher has not changed.
    let ours = std::fs::read_to_string("/proc/self/status").unwrap();
    assert!(ours.contains("SigBlk:\t0000000000000800\n") && ours.contains("0001001\nSigCgt:"));
}

fn sigchld_ignored() {
    dispose(Signal::SIGCHLD, SigHandler::SigIgn);
    for shape in Shape::ALL.repeat(5) {
        let mut child = everything(shape, false).command("sleep", ["0.01"]).spawn().unwrap();
        // The kernel reaps the command, and its status is lost.
        assert_eq!(child.wait().unwrap_err().raw_os_error(), Some(nix::libc::ECHILD));
        let error =
            leaves_nothing(|| everything(shape, false).command("/no/such", [""; 0]).spawn().unwrap_err());
        assert_eq!(error.exit_code(), 127);
    }
    no_child_left(Duration::ZERO).unwrap();
}

fn sigchld_ignored_and_supervised() {
    dispose(Signal::SIGCHLD, SigHandler::SigIgn);
    let signals = Signals::take().unwrap();
    for shape in Shape::ALL {
        let mut launcher = shape.plain();
        launcher.signals(signals.original());
        let mut child = launcher.command("sh", ["-c", "exit 3"]).spawn().unwrap();
        assert_eq!(supervise(&mut child, &signals).unwrap(), 3);
        // SIGCHLD (17) is ignored again, and no signal is blocked. (A shell would change both.)
        for pattern in ["^SigIgn:\t[0-9a-f]{11}[13579bdf]", "^SigBlk:\t0{16}$"] {
            let mut child = launcher.command("grep", ["-Eq", pattern, "/proc/self/status"]).spawn().unwrap();
            assert_eq!(exit_code(child.wait().unwrap()), 0, "{shape:?} {pattern}");
        }
    }
}

/// RLIMIT_NOFILE leaves no descriptor for the first signalfd, then none for the second.
fn error_names_the_signalfd_without_a_descriptor() {
    let next = std::os::fd::AsRawFd::as_raw_fd(&std::fs::File::open("/dev/null").unwrap());
    let next = u64::try_from(next).unwrap();
    let limit = |soft: u64| {
        let limits = nix::libc::rlimit { rlim_cur: soft, rlim_max: 1024 };
        // SAFETY: the kernel reads two numbers.
        assert_eq!(unsafe { nix::libc::setrlimit(nix::libc::RLIMIT_NOFILE, &raw const limits) }, 0);
    };
    let refused = |free: u64| {
        limit(next + free);
        let error = Signals::take().map(drop).unwrap_err().to_string();
        limit(1024);
        error
    };
    let first = "failed to create the signalfd for signals that end a launch: Too many open files";
    let second = "failed to create the signalfd for signals to the command: Too many open files";
    assert_eq!([refused(0), refused(1)], [first, second]);
    // The failed calls have left the mask unchanged.
    assert_eq!(SigSet::thread_get_mask().unwrap(), SigSet::empty());
    limit(next + 2);
    drop(Signals::take().unwrap());
}

/// Supervises a shell script, as process 1 or not.
pub(crate) fn supervise_helper(words: &[String]) {
    let signals = Signals::take().unwrap();
    let shape = Shape::from_word(&words[2]);
    let mut launcher = if words[0] == "init" { everything(shape, false) } else { shape.plain() };
    let child = launcher.signals(signals.original()).command("sh", ["-c", &words[1]]).spawn();
    let status = supervise(&mut child.unwrap(), &signals).unwrap();
    std::process::exit(status);
}

/// The kinds of a supervised command, each with the shape of its start: process 1 of a pid namespace, or not.
const KINDS: [(&str, Shape); 6] = [
    ("init", Shape::Direct),
    ("plain", Shape::Direct),
    ("init", Shape::Child),
    ("plain", Shape::Child),
    ("init", Shape::Stages),
    ("plain", Shape::Stages),
];

/// Starts a supervisor, and waits for the first line of its command.
fn supervised((kind, shape): (&str, Shape), script: &str) -> (Child, BufReader<std::process::ChildStdout>) {
    // In a process group of its own, like a shell's job. Otherwise the group may be orphaned, as under CI:
    // all its parents are in other sessions. In an orphaned group the kernel discards SIGTSTP (setpgid(2)).
    let mut supervisor = helper(&["supervise", kind, script, shape.word()]).process_group(0).spawn().unwrap();
    let mut reader = BufReader::new(supervisor.stdout.take().unwrap());
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    (supervisor, reader)
}

fn send(to: &Child, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(to.id()).unwrap()), signal).unwrap();
}

fn ends_with(mut supervisor: Child, status: i32) {
    assert_eq!(supervisor.wait().unwrap().code(), Some(status));
    no_child_left(LIMIT).unwrap();
}

fn supervised_command_gets_the_signals_it_handles() {
    for kind in KINDS {
        for (signal, status) in [
            (Signal::SIGTERM, 15),
            (Signal::SIGINT, 2),
            (Signal::SIGHUP, 1),
            (Signal::SIGQUIT, 3),
            (Signal::SIGUSR1, 10),
            (Signal::SIGSTKFLT, 16),
            (Signal::SIGXCPU, 24),
            (Signal::SIGVTALRM, 26),
            (Signal::SIGPROF, 27),
            (Signal::SIGIO, 29),
            (Signal::SIGPWR, 30),
        ] {
            let script = format!("trap 'exit {status}' {status}; echo; while :; do sleep 0.02; done");
            let (supervisor, _reader) = supervised(kind, &script);
            send(&supervisor, signal);
            ends_with(supervisor, status);
        }
    }
}

fn supervised_command_ends_without_a_handler() {
    for kind in KINDS {
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT] {
            let (supervisor, _reader) = supervised(kind, "ulimit -c 0; echo; exec sleep 1000");
            // A shell catches SIGINT until it executes the sleep. If a SIGINT arrives after this exec but was
            // forwarded before it, the kernel discards it: process 1 has no handler any more.
            becomes(command_of(&supervisor), "comm", "sleep");
            send(&supervisor, signal);
            ends_with(supervisor, 128 + signal as i32);
        }
        // A signal that the command ignores is not replaced by SIGKILL. The command ends by itself.
        let (supervisor, _reader) = supervised(kind, "trap '' TERM; echo; sleep 0.2; exit 4");
        send(&supervisor, Signal::SIGTERM);
        ends_with(supervisor, 4);
    }
}

/// Returns the pid of the command.
fn command_of(supervisor: &Child) -> i32 {
    let pid = supervisor.id();
    std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap().trim().parse().unwrap()
}

/// Returns a fact about a process: its name, the letter of its state, or whether it has blocked SIGTSTP.
fn fact(pid: i32, which: &str) -> String {
    if which == "SIGTSTP" {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:\t")).unwrap_or("0");
        let blocked = u64::from_str_radix(mask, 16).unwrap() & 1 << (Signal::SIGTSTP as i32 - 1) != 0;
        return if blocked { "blocked".into() } else { String::new() };
    }
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let (name, rest) = stat.split_once(" (").and_then(|(_, rest)| rest.rsplit_once(") ")).unwrap_or_default();
    if which == "comm" { name.into() } else { rest.chars().take(1).collect() }
}

fn becomes(pid: i32, which: &str, want: &str) {
    let deadline = Instant::now() + LIMIT;
    while fact(pid, which) != want {
        assert!(Instant::now() < deadline, "{pid} is {}, not {want}", fact(pid, which));
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn supervised_command_stops_and_continues() {
    for kind in KINDS {
        let (supervisor, _reader) = supervised(kind, "echo; exec sleep 1000");
        let (outer, inner) = (i32::try_from(supervisor.id()).unwrap(), command_of(&supervisor));
        becomes(inner, "comm", "sleep");
        // Before the supervision begins, SIGTSTP stops the launcher by its default disposition.
        becomes(outer, "SIGTSTP", "blocked");
        for _ in 0..3 {
            send(&supervisor, Signal::SIGTSTP);
            becomes(inner, "state", "T");
            becomes(outer, "state", "T");
            send(&supervisor, Signal::SIGCONT);
            becomes(outer, "state", "S");
            becomes(inner, "state", "S");
        }
        send(&supervisor, Signal::SIGTERM);
        ends_with(supervisor, 143);
    }
}
