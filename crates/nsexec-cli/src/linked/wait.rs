//! Waits for a command as unshare(1) and nsenter(1) do, and ends as the command ended.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use nix::sys::signal::{SigSet, Signal};
use nsexec::launch::signals::{Signals, end_by, supervise};
use nsexec::launch::{Child, exit_code};

use super::super::failure::{FAILED, Failure, words};
use super::super::run::{self, Job};

/// The end of a command.
enum End {
    /// By itself, or by a signal that no process of ours has sent.
    Itself(ExitStatus),
    /// By SIGKILL of the supervision, with this status.
    Killed(i32),
}

/// Starts the command and waits for it. Returns its exit status. If a signal has ended the command, this
/// process ends by the same signal.
///
/// `forwards`: signals to this process are sent to the command too. Otherwise this process ignores SIGINT and
/// SIGTERM while it waits, as `unshare --fork` does.
///
/// # Errors
/// The reason why the command was not started.
pub(super) fn start(job: &Job<'_>, forwards: bool) -> Result<u8, Failure> {
    let before = SigSet::thread_get_mask().map_err(|errno| {
        Failure::ours(format!("failed to read the signal mask: {}", words(&errno.into())))
    })?;
    let end = run::start_and_wait(job, |child, signals| match forwards {
        true => supervised(child, signals),
        false => patient(child, before),
    })?;
    Ok(match end {
        End::Itself(status) => end_as(status),
        End::Killed(status) => u8::try_from(status).unwrap_or(FAILED),
    })
}

fn supervised(child: &mut Child, signals: &Signals) -> io::Result<End> {
    let reported = supervise(child, signals)?;
    // The command has ended, so this returns its status.
    let status = child.wait()?;
    Ok(if exit_code(status) == reported { End::Itself(status) } else { End::Killed(reported) })
}

/// Waits with the signal mask from before the launch, and without SIGINT and SIGTERM.
fn patient(child: &mut Child, mut mask: SigSet) -> io::Result<End> {
    mask.add(Signal::SIGINT);
    mask.add(Signal::SIGTERM);
    mask.thread_set_mask()?;
    child.wait().map(End::Itself)
}

/// Ends this process by the signal that has ended the command, so that a shell sees it. Returns the exit
/// status otherwise.
fn end_as(status: ExitStatus) -> u8 {
    if let Some(number) = status.signal() {
        // Without a core dump of this process beside that of the command.
        let _ = nix::sys::prctl::set_dumpable(false);
        end_by(nsexec::sys::types::Signal(number));
    }
    // Process 1 of a pid namespace is not ended by its own signals.
    u8::try_from(exit_code(status)).unwrap_or(FAILED)
}
