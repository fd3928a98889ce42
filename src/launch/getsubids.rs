//! Asks getsubids(1) for subordinate ids: not part of the bootstrap, and in no record.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::string::String;

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{getpid, getppid};

/// Returns the output of getsubids(1) for a user, with `groups` for its group ids. `None` if the program
/// fails.
///
/// Its process ends with this thread, even if the process is stopped. It is a fork, and not a posix_spawn(3):
/// glibc's uses clone3(2), and some seccomp filters kill a process for this call.
pub(super) fn output(program: &Path, user: &str, groups: bool) -> Option<String> {
    let launcher = getpid();
    let end_with_launcher = move || {
        set_pdeathsig(Signal::SIGKILL)?;
        // The launcher may have ended before the signal was set.
        if getppid() == launcher { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    };
    let mut command = Command::new(program);
    command.args(groups.then_some("-g")).arg(user).stdin(Stdio::null()).stderr(Stdio::null());
    // SAFETY: the code makes two system calls, allocates nothing and takes no lock.
    let output = unsafe { command.pre_exec(end_with_launcher) }.output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
