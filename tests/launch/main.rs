//! Tests of the launcher on the real kernel, as root. Each case runs in a process of its own, which must
//! leave nothing behind.
//!
//! Without arguments this program is the runner: a subreaper that starts itself once for each case and then
//! checks that no process is left. `launch WORD` runs the cases whose name contains the word.

mod cases;
mod kills;
mod memory;
#[path = "../runner/mod.rs"]
mod runner;
mod signals;
mod sweep;
mod together;

use std::env::{args, current_exe};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::prctl::set_child_subreaper;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, geteuid};

#[global_allocator]
static MEMORY: memory::Refusing = memory::Refusing;

use runner::LIMIT;

/// The name and the function of a case. A case fails by a panic.
type Case = (&'static str, fn());

fn main() -> ExitCode {
    let cases: Vec<Case> =
        [cases::CASES, signals::CASES, memory::CASES, together::CASES, sweep::CASES, kills::CASES].concat();
    let words: Vec<String> = args().skip(1).filter(|word| !word.starts_with("--test-threads")).collect();
    match words.first().map(String::as_str) {
        Some("--case") => {
            let (_, case) = cases.iter().find(|(name, _)| *name == words[1]).expect("a case of this name");
            set_child_subreaper(true).unwrap();
            runner::default_signals();
            case();
            ExitCode::SUCCESS
        }
        Some("--helper") => {
            match words[1].as_str() {
                "sleep" => cases::sleep_helper(&words[2..]),
                "supervise" => signals::supervise_helper(&words[2..]),
                "die" => sweep::die_helper(&words[2..]),
                "together" => together::together_helper(&words[2..]),
                other => panic!("no helper {other}"),
            }
            ExitCode::SUCCESS
        }
        Some("--list") => ExitCode::SUCCESS,
        _ => run_all(&runner::chosen("launch", cases, |(name, _)| (*name).to_owned())),
    }
}

fn run_all(cases: &[Case]) -> ExitCode {
    runner::begin();
    if !geteuid().is_root() {
        let skipped = cases
            .iter()
            .map(|(name, _)| name)
            .inspect(|name| println!("skipped: launch::{name}: needs root"))
            .count();
        println!("launch: 0 passed, 0 failed, {skipped} skipped");
        return ExitCode::SUCCESS;
    }
    set_child_subreaper(true).unwrap();
    let (mut passed, mut failed) = (0_u32, 0_u32);
    for (name, _) in cases {
        let started = Instant::now();
        let problem = run_one(name);
        let took = started.elapsed().as_millis();
        match problem {
            None => {
                passed += 1;
                println!("case {name} ... ok ({took} ms)");
            }
            Some(problem) => {
                failed += 1;
                println!("case {name} ... FAILED: {problem}");
            }
        }
    }
    println!("launch: {passed} passed, {failed} failed");
    ExitCode::from(u8::from(failed > 0))
}

fn run_one(name: &str) -> Option<String> {
    let mut child = Command::new(current_exe().unwrap()).args(["--case", name]).spawn().unwrap();
    let deadline = Instant::now() + runner::TEST_LIMIT;
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None if Instant::now() > deadline => {
                child.kill().unwrap();
                child.wait().unwrap();
                kill_left_overs();
                return Some("still running".into());
            }
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    };
    if !status.success() {
        kill_left_overs();
        return Some(status.to_string());
    }
    let left = no_child_left(LIMIT).err();
    kill_left_overs();
    left
}

/// Kills the processes that a failed case has left. Repeats this, because the death of a process may make its
/// children ours.
fn kill_left_overs() {
    let deadline = Instant::now() + LIMIT;
    while no_child_left(Duration::from_millis(10)).is_err() && Instant::now() < deadline {
        for pid in our_children() {
            let _ = nix::sys::signal::kill(Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
    }
}

/// Returns our children, including orphans of the case.
fn our_children() -> Vec<i32> {
    let text = std::fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// Reaps orphans until this process has no child of any kind.
///
/// # Errors
/// The processes that are left when `patience` is over.
pub(crate) fn no_child_left(patience: Duration) -> Result<(), String> {
    let deadline = Instant::now() + patience;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL)) {
            Err(Errno::ECHILD) => return Ok(()),
            Ok(WaitStatus::StillAlive) if Instant::now() > deadline => {
                let left: Vec<_> = our_children()
                    .into_iter()
                    .map(|pid| std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default())
                    .collect();
                return Err(format!("left behind: {left:?}"));
            }
            Ok(WaitStatus::StillAlive) => std::thread::sleep(Duration::from_millis(1)),
            Ok(_) => {}
            Err(errno) => return Err(errno.to_string()),
        }
    }
}

/// Returns a command that runs this program as a helper of a case.
pub(crate) fn helper(words: &[&str]) -> Command {
    let mut command = Command::new(current_exe().unwrap());
    command.arg("--helper").args(words).stdout(Stdio::piped());
    command
}
