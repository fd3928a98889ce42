//! Shared by test suites: the limit of every wait, the selection of tests by name, and default signals.
//!
//! Used by the suites with their own main function, and by those that start processes.
#![allow(dead_code, reason = "each suite uses a part of it")]

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

/// The limit of every wait for something that happens soon, much longer than it takes, since the machine may
/// be busy. A test checks that something happens, never how fast. A process that must not end meanwhile lives
/// longer.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// The limit of a whole test, which may wait several times.
pub(crate) const TEST_LIMIT: Duration = Duration::from_secs(300);

/// Returns the arguments of the command line that select tests. Libtest's flags and their values are left
/// out.
pub(crate) fn words() -> Vec<String> {
    words_of(std::env::args().skip(1))
}

pub(crate) fn words_of(mut arguments: impl Iterator<Item = String>) -> Vec<String> {
    const WITH_VALUE: [&str; 6] = ["--skip", "--test-threads", "--format", "--color", "--logfile", "-Z"];
    let mut words = Vec::new();
    while let Some(argument) = arguments.next() {
        if WITH_VALUE.contains(&argument.as_str()) {
            arguments.next();
        } else if !argument.starts_with('-') {
            words.push(argument);
        }
    }
    words
}

/// Returns the tests whose name contains one of the words; all tests if there are no words.
///
/// # Errors
/// An error text that lists the tests, if a word matches none of them: a run without tests must not pass.
pub(crate) fn choose<T>(
    suite: &str,
    tests: impl IntoIterator<Item = T>,
    name: impl Fn(&T) -> String,
    words: &[String],
) -> Result<Vec<T>, String> {
    let tests: Vec<T> = tests.into_iter().collect();
    let names: Vec<String> = tests.iter().map(&name).collect();
    let matches_nothing = |word: &&String| !names.iter().any(|name| name.contains(word.as_str()));
    let idle: Vec<String> = words.iter().filter(matches_nothing).map(|word| format!("'{word}'")).collect();
    if !idle.is_empty() {
        return Err(format!(
            "{suite}: no test has {} in its name (a word for another suite: cargo test --test SUITE WORD). There are:\n    {}",
            idle.join(" or "),
            names.join("\n    ")
        ));
    }
    let wanted = |test: &T| words.is_empty() || words.iter().any(|word| name(test).contains(word.as_str()));
    Ok(tests.into_iter().filter(|test| wanted(test)).collect())
}

/// Like [`choose`], with the words of the command line. Exits with status 1 if a word matches no test.
pub(crate) fn chosen<T>(
    suite: &str,
    tests: impl IntoIterator<Item = T>,
    name: impl Fn(&T) -> String,
) -> Vec<T> {
    choose(suite, tests, name, &words()).unwrap_or_else(|error| {
        println!("{error}\n{suite}: 0 passed, 1 failed");
        std::process::exit(1)
    })
}

/// Returns the seed in `NSEXEC_SEED`, if it is set.
///
/// # Errors
/// A text, if the variable is not a number: the test must not run with another seed.
pub(crate) fn given_seed() -> Result<Option<u64>, String> {
    let Some(text) = std::env::var_os("NSEXEC_SEED") else { return Ok(None) };
    let seed = text.to_str().and_then(|text| text.parse().ok());
    seed.map(Some).ok_or(format!("NSEXEC_SEED is not a number below 2^64: {}", text.to_string_lossy()))
}

/// Prepares a suite, which calls it first: children can be waited for, and no signal is blocked, whatever the
/// suite inherited. A SIGHUP that nohup ignores stays ignored in the suite itself.
pub(crate) fn begin() {
    // SAFETY: no handler is installed.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
    empty_mask();
}

/// Sets the signals of this process as an interactive shell does for a program: default dispositions, an
/// empty mask.
///
/// The tests may inherit other settings. nohup ignores SIGHUP; a shell without job control ignores SIGINT and
/// SIGQUIT in background processes. SIGPIPE and the fault handlers stay as Rust's runtime sets them.
pub(crate) fn default_signals() {
    set_default_signals(&[libc::SIGPIPE, libc::SIGSEGV, libc::SIGBUS]);
}

/// Like [`default_signals`], for a process that is to be started.
pub(crate) fn fresh(command: &mut Command) -> &mut Command {
    // SAFETY: the closure makes system calls only, which are allowed between fork and exec.
    unsafe {
        command.pre_exec(|| {
            set_default_signals(&[]);
            Ok(())
        })
    }
}

fn set_default_signals(but: &[i32]) {
    for signal in (1..=64).filter(|signal| !but.contains(signal)) {
        // SIGKILL, SIGSTOP and the libc's own two signals cannot be set; the error is harmless.
        // SAFETY: no handler is installed.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    empty_mask();
}

fn empty_mask() {
    // SAFETY: the set belongs to this function, and is emptied first.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}
