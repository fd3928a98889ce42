//! What suites share that have a main function of their own, or start processes: the limit of every wait, the choice of
//! tests by words, and the signals that a process under test begins with.
#![allow(dead_code, reason = "each suite uses a part of it")]

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

/// The limit of every wait for something that happens soon. Far longer than it takes, since the machine may be busy: a test
/// asserts that something happens, and never how fast. What must not end by itself meanwhile lives longer.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// The limit of a whole test, which may wait several times.
pub(crate) const TEST_LIMIT: Duration = Duration::from_secs(300);

/// The words of the command line by which tests are chosen. Libtest's flags and their values are left out.
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

/// The tests whose name contains one of the words; all of them without a word.
///
/// # Errors
/// A text that names the tests, if a word chooses none of them: what ran nothing must not pass.
pub(crate) fn choose<T>(
    suite: &str,
    tests: impl IntoIterator<Item = T>,
    name: impl Fn(&T) -> String,
    words: &[String],
) -> Result<Vec<T>, String> {
    let tests: Vec<T> = tests.into_iter().collect();
    let names: Vec<String> = tests.iter().map(&name).collect();
    let in_none = |word: &&String| !names.iter().any(|name| name.contains(word.as_str()));
    let idle: Vec<String> = words.iter().filter(in_none).map(|word| format!("'{word}'")).collect();
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

/// [`choose`] by the words of the command line. Ends the process with status 1 if nothing is chosen.
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

/// The seed that `NSEXEC_SEED` asks for, if it is set.
///
/// # Errors
/// It is set and is no number: another seed than the one asked for would be taken.
pub(crate) fn given_seed() -> Result<Option<u64>, String> {
    let Some(text) = std::env::var_os("NSEXEC_SEED") else { return Ok(None) };
    let seed = text.to_str().and_then(|text| text.parse().ok());
    seed.map(Some).ok_or(format!("NSEXEC_SEED is no number below 2^64: {}", text.to_string_lossy()))
}

/// To be called first in a suite: its children can be waited for, and no signal is blocked, whatever its caller has set. A
/// SIGHUP that nohup ignores stays ignored in the suite itself.
pub(crate) fn begin() {
    // SAFETY: no handler is installed.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
    empty_mask();
}

/// Gives this process the signals of a program that an interactive shell starts: default dispositions, an empty mask.
///
/// Whoever runs the tests may ignore or block some: nohup ignores SIGHUP, a shell without job control SIGINT and SIGQUIT of
/// what it starts in the background. SIGPIPE stays as Rust's runtime has it, and so do its handlers of faults.
pub(crate) fn default_signals() {
    set_default_signals(&[libc::SIGPIPE, libc::SIGSEGV, libc::SIGBUS]);
}

/// As [`default_signals`], for a process that is to be started.
pub(crate) fn fresh(command: &mut Command) -> &mut Command {
    // SAFETY: system calls alone, which are allowed between fork and exec.
    unsafe {
        command.pre_exec(|| {
            set_default_signals(&[]);
            Ok(())
        })
    }
}

fn set_default_signals(but: &[i32]) {
    for signal in (1..=64).filter(|signal| !but.contains(signal)) {
        // SIGKILL, SIGSTOP and the libc's own two cannot be set: an error that means nothing here.
        // SAFETY: no handler is installed.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    empty_mask();
}

fn empty_mask() {
    // SAFETY: a set of the libc's, made empty first.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}
