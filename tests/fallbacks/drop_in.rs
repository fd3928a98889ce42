//! A launcher of the drop-in: it sends a bootstrap message to `nsexec init`, and reads the line with the
//! pids.

use std::io::{Read, Write};
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
    init.spawn().expect("the drop-in starts");
    drop(theirs);
    ours.write_all(&encoded.stdout).expect("the drop-in reads");
    let mut line = Vec::new();
    for byte in Read::by_ref(&mut ours).bytes() {
        match byte.expect("a line within the limit") {
            b'\n' => break,
            byte => line.push(byte),
        }
    }
    let line: serde_json::Value = serde_json::from_slice(&line).expect("JSON");
    println!("pids {}", line.as_object().map_or(0, |pids| pids.len()));
    // All three stages are children of this process.
    let mut statuses = Vec::new();
    while let Ok(WaitStatus::Exited(_, status)) = wait() {
        statuses.push(status);
    }
    println!("statuses {statuses:?}");
    ExitCode::SUCCESS
}
