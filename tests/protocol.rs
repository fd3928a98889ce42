//! Runs the independent parent: `tests/protocol` in Python, which shares no code with this crate, and drives
//! the program as runc does.
//!
//! This process starts Python, limits its time, and prints the counts in the form that `tests/run` adds up.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// The minimum number of tests. Fewer mean that a file was not found.
const TESTS: usize = 200;

/// The limit of all tests together. Each of their waits has a limit of its own, in parent.py.
const LIMIT: Duration = Duration::from_secs(30 * 60);

#[path = "runner/mod.rs"]
mod runner;

fn main() -> ExitCode {
    runner::begin();
    // The suite is one test of this name.
    runner::chosen("protocol", ["protocol"], |name| (*name).to_owned());
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("protocol-{}.txt", std::process::id()));
    let status = python(&path);
    let bytes = fs::read(&path).expect("the report");
    let _ = fs::remove_file(&path);
    let text = String::from_utf8_lossy(&bytes);

    let skipped = text.lines().filter_map(skip).inspect(|line| println!("skipped: protocol::{line}")).count();
    text.lines()
        .filter(|line| line.starts_with("  ") && line.contains(" vectors: "))
        .for_each(|line| println!("{}", line.trim()));
    let ran: usize = text
        .lines()
        .rev()
        .find_map(|line| line.strip_prefix("Ran ")?.split(' ').next()?.parse().ok())
        .unwrap_or_default();
    let enough = ran >= TESTS || !nix::unistd::geteuid().is_root();
    // Subtests fail one by one, so there may be more failures than tests.
    let failed =
        text.lines().filter(|line| line.starts_with("FAIL: ") || line.starts_with("ERROR: ")).count();
    let passed = status.is_some_and(|status| status.success()) && enough && failed == 0;
    if !passed {
        println!("{text}");
        match status {
            None => println!("not over within {LIMIT:?}"),
            Some(status) => println!("{status}, {ran} tests found, {TESTS} expected"),
        }
    }
    let failed = failed.max(usize::from(!passed));
    println!("protocol: {} passed, {failed} failed, {skipped} skipped", ran.saturating_sub(skipped + failed));
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs all tests, with the report at `path`. Returns `None` if they do not end in time.
fn python(path: &Path) -> Option<ExitStatus> {
    let file = File::create(path).expect("the report's file");
    let mut python = Command::new("python3")
        .args(["-m", "unittest", "discover", "-v", "tests/protocol"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
        .env("NSEXEC", env!("CARGO_BIN_EXE_nsexec"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null())
        .stdout(file.try_clone().expect("a second descriptor of the report"))
        .stderr(file)
        .spawn()
        .expect("python3");
    let end = Instant::now() + LIMIT;
    loop {
        if let Some(status) = python.try_wait().expect("a child of ours") {
            return Some(status);
        }
        if Instant::now() > end {
            let _ = python.kill();
            let _ = python.wait();
            return None;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Returns `NAME: REASON` for a line of unittest's such as `test_a (test_b.C.test_a) ... skipped 'no such
/// thing'`, or `setUpClass (test_b.C) ... skipped 'no such thing'` for a whole class.
fn skip(line: &str) -> Option<String> {
    let (head, reason) = line.split_once(" ... skipped ")?;
    let name = head.rsplit(' ').next()?.trim_matches(['(', ')']);
    Some(format!("{name}: {}", reason.trim_matches('\'')))
}
