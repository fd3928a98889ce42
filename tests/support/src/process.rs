//! For suites that start processes: the limit of every wait, default signals, ids, the seed, and the files of
//! /proc/PID that another process must not read.

use std::fmt::Display;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output};
use std::time::Duration;

use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

/// The limit of every wait for something that happens soon, much longer than it takes, since the machine may
/// be busy. A test checks that something happens, never how fast. A process that must not end meanwhile lives
/// longer.
pub const LIMIT: Duration = Duration::from_secs(60);

/// The limit of a whole test, which may wait several times.
pub const TEST_LIMIT: Duration = Duration::from_secs(300);

/// Files of /proc/PID that need the right to trace: they reveal the memory of a process, its files, its
/// arguments in memory or its system calls.
const SECRET: [&str; 16] = [
    "environ",
    "auxv",
    "maps",
    "smaps",
    "smaps_rollup",
    "numa_maps",
    "pagemap",
    "mem",
    "stack",
    "syscall",
    "io",
    "personality",
    "fdinfo",
    "map_files",
    "patch_state",
    "clear_refs",
];

/// Returns whether a file of /proc/PID is one that a process without the right to trace must not read. The
/// entries of its folders have paths, such as `fd/3`.
#[must_use]
pub fn is_secret(file: &str) -> bool {
    SECRET.contains(&file) || file.starts_with("fd") || file.starts_with("map_files")
}

/// Gives this process other user and group ids, and no supplementary groups. It may be between fork and exec.
///
/// # Errors
/// Those of setgroups(2), setresgid(2) and setresuid(2).
pub fn become_ids(uid: u32, gid: u32) -> nix::Result<()> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    setgroups(&[])?;
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)
}

/// Returns the seed in `NSEXEC_SEED`, if it is set.
///
/// # Errors
/// A text, if the variable is not a number: the test must not run with another seed.
pub fn given_seed() -> Result<Option<u64>, String> {
    let Some(text) = std::env::var_os("NSEXEC_SEED") else { return Ok(None) };
    let seed = text.to_str().and_then(|text| text.parse().ok());
    seed.map(Some).ok_or(format!("NSEXEC_SEED is not a number below 2^64: {}", text.to_string_lossy()))
}

/// Returns whether a program ran and succeeded. The error has its status and what it wrote to standard error.
///
/// # Errors
/// The program could not be run, or has failed.
pub fn success(ran: Result<Output, impl Display>) -> Result<(), String> {
    let output = ran.map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{}\n{}", output.status, String::from_utf8_lossy(&output.stderr))),
    }
}

/// Prepares a suite, which calls it first: children can be waited for, and no signal is blocked, whatever the
/// suite inherited. A SIGHUP that nohup ignores stays ignored in the suite itself.
pub fn begin() {
    // SAFETY: no handler is installed.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
    empty_mask();
}

/// Sets the signals of this process as an interactive shell does for a program: default dispositions, an
/// empty mask.
///
/// The tests may inherit other settings. nohup ignores SIGHUP; a shell without job control ignores SIGINT and
/// SIGQUIT in background processes. SIGPIPE and the fault handlers stay as Rust's runtime sets them.
pub fn default_signals() {
    set_default_signals(&[libc::SIGPIPE, libc::SIGSEGV, libc::SIGBUS]);
}

/// Like [`default_signals`], for a process that is to be started.
pub fn fresh(command: &mut Command) -> &mut Command {
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
