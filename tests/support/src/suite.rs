//! The main function of a suite that libtest cannot run: its tests fork, which is unsound in a process with
//! several threads, or they share something expensive.
//!
//! The command line and the output are those of libtest, by libtest-mimic: `--list`, `--exact`, `--format
//! json`. So `cargo test`, cargo-nextest and tests/run find every test by its name. Two things differ. An
//! argument of the command line that matches no test is an error if the caller named the suite. A test that
//! cannot run here is reported as ignored, after a line `skipped: SUITE::NAME: REASON`.

use std::process::{Child, ExitCode, ExitStatus};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Completion, Conclusion, Trial};

/// The exit status of a test's process that has skipped itself, as in automake.
pub const SKIPPED: i32 = 77;

/// The result of a test.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    Passed,
    /// The description of the failure.
    Failed(String),
    /// The reason.
    Skipped(String),
    /// The test's process has printed its line already.
    SkippedItself,
}

impl From<()> for Verdict {
    fn from((): ()) -> Self {
        Self::Passed
    }
}

impl From<Result<(), String>> for Verdict {
    fn from(result: Result<(), String>) -> Self {
        result.map_or_else(Self::Failed, |()| Self::Passed)
    }
}

/// One test. A panic is a failure.
pub struct Test {
    name: String,
    run: Box<dyn FnOnce() -> Verdict + Send>,
}

impl Test {
    pub fn new<V: Into<Verdict>>(name: impl Into<String>, run: impl FnOnce() -> V + Send + 'static) -> Self {
        Self { name: name.into(), run: Box::new(|| run().into()) }
    }
}

/// The number of tests at a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Threads {
    /// One, on the main thread of a process that has no other thread. So a test may fork, may unshare, and
    /// may count the children of the process.
    One,
    /// As many as `--test-threads` asks for, by default this number.
    Several(usize),
}

/// Returns the line that reports a skipped test. tests/run compares the name with tests/allowed-skips.
pub fn skip_line(suite: &str, test: &str, reason: &str) -> String {
    format!("skipped: {suite}::{test}: {reason}")
}

/// A suite with the tests that the command line selects.
pub struct Suite {
    name: &'static str,
    arguments: Arguments,
    tests: Vec<Test>,
    is_complete: bool,
}

impl Suite {
    /// Reads the command line and selects the tests. Exits with status 1 if an argument of the command line
    /// matches no test, although the caller named this suite.
    pub fn new(name: &'static str, mut tests: Vec<Test>) -> Self {
        let (flags, mut words) = split(std::env::args().skip(1));
        let mut arguments = Arguments::from_iter([name.to_owned()].into_iter().chain(flags));
        let names: Vec<&str> = tests.iter().map(|test| test.name.as_str()).collect();
        let idle = unmatched(&names, &words, arguments.exact);
        if !arguments.list && !idle.is_empty() && caller_names_the_suite() {
            let (idle, names) = (idle.join(" or "), names.join("\n    "));
            println!("{name}: no test has {idle} in its name. There are:\n    {names}");
            std::process::exit(1);
        }
        if words.len() < 2 {
            arguments.filter = words.pop();
        } else {
            // libtest-mimic, unlike libtest, takes one argument.
            tests.retain(|test| words.iter().any(|word| matches(&test.name, word, arguments.exact)));
        }
        let is_complete = words.is_empty() && arguments.filter.is_none() && arguments.skip.is_empty();
        Self { name, is_complete, arguments, tests }
    }

    /// Returns whether the tests are only listed, and not run.
    pub fn is_list(&self) -> bool {
        self.arguments.list
    }

    /// Returns whether all tests of the suite are selected.
    pub fn is_complete(&self) -> bool {
        self.is_complete && !self.arguments.ignored
    }

    /// Returns the names of the selected tests, in the order in which one thread runs them.
    pub fn names(&self) -> Vec<String> {
        let exact = self.arguments.exact;
        let is_selected = |name: &str| {
            self.arguments.filter.as_ref().is_none_or(|word| matches(name, word, exact))
                && !self.arguments.skip.iter().any(|word| matches(name, word, exact))
                && !self.arguments.ignored
        };
        self.tests.iter().map(|test| test.name.clone()).filter(|name| is_selected(name)).collect()
    }

    /// Runs or lists the tests. Returns whether all have passed.
    pub fn run(mut self, threads: Threads) -> bool {
        self.arguments.test_threads = match threads {
            Threads::One => Some(1),
            Threads::Several(default) => self.arguments.test_threads.or(Some(default)),
        };
        let suite = self.name;
        let trials = self.tests.into_iter().map(|test| trial(suite, test)).collect();
        let conclusion: Conclusion = libtest_mimic::run(&self.arguments, trials);
        !conclusion.has_failed()
    }

    /// Like [`Suite::run`]. Returns the exit status of the suite.
    pub fn main(self, threads: Threads) -> ExitCode {
        if self.run(threads) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

fn trial(suite: &'static str, test: Test) -> Trial {
    let name = test.name.clone();
    Trial::ignorable_test(name, move || match (test.run)() {
        Verdict::Passed => Ok(Completion::Completed),
        Verdict::Failed(problem) => Err(problem.into()),
        Verdict::Skipped(reason) => {
            // libtest-mimic may have written a partial line.
            println!("\n{}", skip_line(suite, &test.name, &reason));
            Ok(Completion::ignored_with(reason))
        }
        Verdict::SkippedItself => Ok(Completion::ignored()),
    })
}

/// Separates the flags of a command line, with their values, from the words that select tests.
fn split(mut arguments: impl Iterator<Item = String>) -> (Vec<String>, Vec<String>) {
    const WITH_VALUE: [&str; 6] = ["--skip", "--test-threads", "--format", "--color", "--logfile", "-Z"];
    let (mut flags, mut words) = (Vec::new(), Vec::new());
    while let Some(argument) = arguments.next() {
        if WITH_VALUE.contains(&argument.as_str()) {
            flags.push(argument);
            flags.extend(arguments.next());
        } else if argument.starts_with('-') {
            flags.push(argument);
        } else {
            words.push(argument);
        }
    }
    (flags, words)
}

fn matches(name: &str, word: &str, exact: bool) -> bool {
    if exact { name == word } else { name.contains(word) }
}

/// Returns the words that match no test, in quotes.
fn unmatched(names: &[&str], words: &[String], exact: bool) -> Vec<String> {
    let idle = |word: &&String| !names.iter().any(|name| matches(name, word, exact));
    words.iter().filter(idle).map(|word| format!("'{word}'")).collect()
}

/// Returns whether the caller has named this suite. `cargo test WORD` runs many suites, of which few have a
/// test of that name. `cargo test --test SUITE WORD` and `target/debug/deps/SUITE-HASH WORD` name one.
fn caller_names_the_suite() -> bool {
    let parent = std::fs::read(format!("/proc/{}/cmdline", std::os::unix::process::parent_id()));
    let parent = String::from_utf8_lossy(&parent.unwrap_or_default()).into_owned();
    names_one_suite(&parent.split_terminator('\0').collect::<Vec<_>>())
}

/// Like [`caller_names_the_suite`], for the command line of the parent process.
fn names_one_suite(parent: &[&str]) -> bool {
    let is_cargo = parent.first().is_some_and(|program| program.rsplit('/').next() == Some("cargo"));
    if !is_cargo {
        return true;
    }
    let options: Vec<&str> = parent.iter().copied().take_while(|word| *word != "--").collect();
    let suites = options.iter().filter(|word| **word == "--test" || word.starts_with("--test=")).count();
    let others = ["--lib", "--bins", "--tests", "--examples", "--benches", "--all-targets"];
    suites == 1 && !options.iter().any(|word| others.contains(word) || word.starts_with("--bin"))
}

/// Waits for a child. Kills it if it has not ended within `limit`.
///
/// # Errors
/// A text, if the child had to be killed.
pub fn ends_within(child: &mut Child, limit: Duration) -> Result<ExitStatus, String> {
    let deadline = Instant::now() + limit;
    loop {
        match child.try_wait().expect("the status of a child") {
            Some(status) => return Ok(status),
            None if Instant::now() > deadline => {
                child.kill().expect("kill a child");
                child.wait().expect("wait for a killed child");
                return Err(format!("still running after {limit:?}"));
            }
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{names_one_suite, split, unmatched};

    fn words(arguments: &[&str]) -> Vec<String> {
        split(arguments.iter().map(|word| (*word).to_owned())).1
    }

    #[test]
    fn flags_and_their_values_are_no_words() {
        let arguments = ["w", "--skip", "typo", "--nocapture", "--test-threads", "1", "--format=json"];
        assert_eq!(words(&arguments), ["w"]);
        assert_eq!(words(&["--exact", "--format", "terse", "one", "two"]), ["one", "two"]);
    }

    #[test]
    fn unknown_test_filter_is_an_error() {
        let idle = |arguments: &[&str], exact| unmatched(&["one", "two"], &words(arguments), exact);
        assert!(idle(&[], false).is_empty());
        assert!(idle(&["w"], false).is_empty());
        assert_eq!(idle(&["w", "typo", "three"], false), ["'typo'", "'three'"]);
        assert_eq!(idle(&["w"], true), ["'w'"]);
        assert!(idle(&["two"], true).is_empty());
    }

    #[test]
    fn only_the_named_suite_rejects_an_unknown_filter() {
        let cargo = |words: &str| names_one_suite(&words.split(' ').collect::<Vec<_>>());
        assert!(cargo("/home/me/.cargo/bin/cargo test --test kernel typo"));
        assert!(cargo("cargo test --test=kernel -- typo"));
        assert!(cargo("bash"));
        assert!(!cargo("cargo test typo"));
        assert!(!cargo("cargo test -p nsexec-cli typo"));
        assert!(!cargo("cargo test --test kernel --test launch typo"));
        assert!(!cargo("cargo test --lib --test kernel typo"));
        assert!(!cargo("cargo test typo -- --test kernel"));
    }
}
