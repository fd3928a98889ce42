//! Tests of the launcher on the real kernel, as root. Each case runs in a process of its own, which must
//! leave nothing behind.
//!
//! Without arguments this program is the runner: a subreaper that starts itself once for each case and then
//! checks that no process is left. `launch WORD` runs the cases whose name contains the word.

mod cases;
mod kills;
mod memory;
mod pin;
mod shared;
mod signals;
mod sweep;
mod together;
mod tracing;

use std::env::{args, current_exe};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::prctl::set_child_subreaper;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, geteuid};

#[global_allocator]
static MEMORY: memory::Refusing = memory::Refusing;

use support::{LIMIT, Suite, TEST_LIMIT, Test, Threads, Verdict};

/// The name and the function of a case. A case fails by a panic.
type Case = (&'static str, fn());

fn main() -> ExitCode {
    let cases: Vec<Case> = [
        cases::CASES,
        signals::CASES,
        memory::CASES,
        shared::CASES,
        together::CASES,
        sweep::CASES,
        kills::CASES,
        pin::CASES,
        tracing::CASES,
    ]
    .concat();
    let words: Vec<String> = args().skip(1).collect();
    match words.first().map(String::as_str) {
        Some("--case") => {
            let (_, case) = cases.iter().find(|(name, _)| *name == words[1]).expect("a case of this name");
            set_child_subreaper(true).unwrap();
            support::default_signals();
            case();
            ExitCode::SUCCESS
        }
        Some("--helper") => {
            match words[1].as_str() {
                "sleep" => cases::sleep_helper(&words[2..]),
                "supervise" => signals::supervise_helper(&words[2..]),
                "die" => sweep::die_helper(&words[2..]),
                "again" => shared::again_helper(),
                "together" => together::together_helper(&words[2..]),
                other => panic!("no helper {other}"),
            }
            ExitCode::SUCCESS
        }
        _ => {
            let tests = cases.iter().map(|(name, _)| Test::new(*name, || run_one(name))).collect();
            let suite = Suite::new("launch", tests);
            support::begin();
            set_child_subreaper(true).unwrap();
            suite.main(Threads::One)
        }
    }
}

/// Runs a case in a process of its own. The runner has one thread and no other child meanwhile.
fn run_one(name: &str) -> Verdict {
    if !geteuid().is_root() {
        return Verdict::Skipped("needs root".to_owned());
    }
    let mut child = Command::new(current_exe().unwrap()).args(["--case", name]).spawn().unwrap();
    let verdict = match support::ends_within(&mut child, TEST_LIMIT) {
        Ok(status) if status.success() => no_child_left(LIMIT).into(),
        Ok(status) => Verdict::Failed(status.to_string()),
        Err(problem) => Verdict::Failed(problem),
    };
    kill_left_overs();
    verdict
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
