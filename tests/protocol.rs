//! The independent parent: `tests/protocol` in Python, which knows nothing of this crate, drives the program as runc
//! does. Who this is: the test process, which only starts Python, bounds it in time, and reads its closing counts.
#![cfg(feature = "cli")]

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What may be skipped, by the name of the test, and why.
const MAY_SKIP: &[&str] = &[
    // The judge of the parent itself: where Debian's runc 1.1 is not installed.
    "test_real_runc_minimal_message",
    "test_real_runc_five_namespaces",
    "test_real_runc_refuses_a_missing_namespace",
];

/// Fewer would mean that a file was not found.
const TESTS: usize = 130;

const LIMIT: Duration = Duration::from_secs(180);

#[test]
fn independent_parent() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let report = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("protocol-{}.txt", std::process::id()));
    let file = File::create(&report).expect("the report's file");
    let mut python = Command::new("python3")
        .args(["-m", "unittest", "discover", "-v", "tests/protocol"])
        .current_dir(root)
        .env("NSEXEC", env!("CARGO_BIN_EXE_nsexec"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null())
        .stdout(file.try_clone().expect("a second descriptor of the report"))
        .stderr(file)
        .spawn()
        .expect("python3");
    let end = Instant::now() + LIMIT;
    let status = loop {
        if let Some(status) = python.try_wait().expect("a child of ours") {
            break Some(status);
        }
        if Instant::now() > end {
            let _ = python.kill();
            let _ = python.wait();
            break None;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let bytes = fs::read(&report).expect("the report");
    let text = String::from_utf8_lossy(&bytes);
    let _ = fs::remove_file(&report);
    let Some(status) = status else { panic!("not over within {LIMIT:?}:\n{text}") };
    assert!(status.success(), "{text}");

    let skipped: Vec<&str> = text.lines().filter(|line| line.contains("... skipped ")).collect();
    for line in &skipped {
        println!("skipped: {line}");
        let known = MAY_SKIP.iter().any(|name| line.starts_with(name));
        let no_root = line.ends_with("skipped 'needs root'") && !nix::unistd::geteuid().is_root();
        assert!(known || no_root, "not on the list of what may be skipped: {line}");
    }
    for line in text.lines().filter(|line| line.starts_with("  ") && line.contains(" vectors: ")) {
        println!("{}", line.trim());
    }
    let ran: usize = text
        .lines()
        .rev()
        .find_map(|line| line.strip_prefix("Ran ")?.split(' ').next()?.parse().ok())
        .expect("the count at the end");
    println!("independent parent: {ran} tests ran, {} skipped", skipped.len());
    assert!(ran >= TESTS || !nix::unistd::geteuid().is_root(), "only {ran} tests were found");
}
