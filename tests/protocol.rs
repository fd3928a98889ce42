//! Runs the independent parent: `tests/protocol` in Python, which shares no code with this crate, and drives
//! the program as runc does.
//!
//! This process asks Python for the names of the tests. One Python runs all selected tests, in the order of
//! the list, and writes the result of each as a line of JSON (`tests/protocol/events.py`).

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{Suite, Test, Threads, Verdict};

/// The minimum number of tests. Fewer mean that a file was not found.
const TESTS: usize = 200;

/// The limit of all tests together. Each of their waits has a limit of its own, in parent.py.
const LIMIT: Duration = Duration::from_secs(30 * 60);

fn main() -> ExitCode {
    support::begin();
    let names = list();
    assert!(names.len() >= TESTS, "{} tests found, {TESTS} expected", names.len());
    let python: Arc<OnceLock<Mutex<Python>>> = Arc::default();
    let test = |name: String| {
        let python = python.clone();
        Test::new(name.clone(), move || {
            let python = python.get().expect("started before the first test");
            python.lock().expect("no test panics with the lock").verdict(&name)
        })
    };
    let suite = Suite::new("protocol", names.into_iter().map(test).collect());
    let names = suite.names();
    if suite.is_list() || names.is_empty() {
        return suite.main(Threads::One);
    }
    let _ = python.set(Mutex::new(Python::start(&names)));
    let passed = suite.run(Threads::One);
    let ended = python.get().is_some_and(|python| python.lock().is_ok_and(|mut python| python.ends_well()));
    if passed && ended { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn command(word: &str) -> Command {
    let mut command = Command::new("python3");
    command
        .args(["tests/protocol/events.py", word])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
        .env("NSEXEC", env!("CARGO_BIN_EXE_nsexec"))
        .env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// Returns the names of all tests.
fn list() -> Vec<String> {
    let output = command("list").stdin(Stdio::null()).output().expect("python3");
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{complaints}", output.status);
    String::from_utf8(output.stdout).expect("UTF-8").lines().map(str::to_owned).collect()
}

/// The process that runs the selected tests, and its results.
struct Python {
    child: Child,
    lines: Receiver<String>,
    /// Results of tests that were not asked for yet.
    results: BTreeMap<String, Verdict>,
    deadline: Instant,
}

impl Python {
    fn start(names: &[String]) -> Self {
        let mut child = command("run").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python3");
        // Python reads all names before it writes, so this does not block.
        let mut input = child.stdin.take().expect("a pipe");
        input.write_all(names.join("\n").as_bytes()).expect("Python reads the names");
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        let (sender, lines) = channel();
        // Only this thread can wait with a limit. No test forks in this process.
        std::thread::spawn(move || {
            output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Self { child, lines, results: BTreeMap::new(), deadline: Instant::now() + LIMIT }
    }

    /// Waits for the result of a test.
    fn verdict(&mut self, name: &str) -> Verdict {
        loop {
            if let Some(verdict) = self.results.remove(name) {
                return verdict;
            }
            match self.lines.recv_timeout(self.deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => self.results.extend(result(&line)),
                Err(RecvTimeoutError::Timeout) => {
                    let _ = self.child.kill();
                    return Verdict::Failed(format!("not over within {LIMIT:?}"));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Verdict::Failed("Python has ended without a result of this test".to_owned());
                }
            }
        }
    }

    /// Waits for the end of the process. Returns whether its status is 0.
    fn ends_well(&mut self) -> bool {
        let status = support::ends_within(&mut self.child, support::LIMIT);
        let well = status.as_ref().is_ok_and(std::process::ExitStatus::success);
        if !well {
            println!("the end of Python: {status:?}");
        }
        well
    }
}

/// Parses one line of events.py.
fn result(line: &str) -> Option<(String, Verdict)> {
    let value: Value = serde_json::from_str(line).ok()?;
    let text = || value["text"].as_str().unwrap_or_default().to_owned();
    let verdict = match value["outcome"].as_str()? {
        "passed" => Verdict::Passed,
        "skipped" => Verdict::Skipped(text()),
        _ => Verdict::Failed(text()),
    };
    Some((value["name"].as_str()?.to_owned(), verdict))
}
