//! A launcher of the drop-in: it sends a bootstrap message to `nsexec init`, and reads the line with the
//! pids.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, ExitCode};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::wait::{WaitStatus, wait};

/// Argument of this program.
pub(crate) const WORD: &str = "drop-in";

pub(crate) fn main(program: &Path) -> ExitCode {
    let encoded = Command::new(program).args(["encode", "-U", "-r", "-n", "-u"]).output().expect("a message");
    let (mut ours, theirs) = UnixStream::pair().expect("a socket pair");
    ours.set_read_timeout(Some(support::LIMIT)).expect("a limit");
    fcntl(&theirs, FcntlArg::F_SETFD(FdFlag::empty())).expect("no close-on-exec");
    let mut init = Command::new(program);
    init.args(["init", "--", "sh", "-c", "echo uid $(id -u); $CHECK"]);
    init.env("_LIBCONTAINER_INITPIPE", theirs.as_raw_fd().to_string());
    let mut stage_0 = init.spawn().expect("the drop-in starts");
    drop(theirs);
    ours.write_all(&encoded.stdout).expect("the drop-in reads");
    let mut line = String::new();
    BufReader::new(&ours).read_line(&mut line).expect("a line within the limit");
    let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    println!("pids {}", line.as_object().map_or(0, |pids| pids.len()));
    // All three stages are children of this process.
    let mut statuses = Vec::new();
    while let Ok(WaitStatus::Exited(_, status)) = wait() {
        statuses.push(status);
    }
    // Reaped above.
    let _ = stage_0.wait();
    println!("statuses {statuses:?}");
    ExitCode::SUCCESS
}
