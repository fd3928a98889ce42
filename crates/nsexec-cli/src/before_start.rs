//! `--pid-file`, `--ready-fd` and `--wait-fd`: what nsexec does while the command's process waits in its
//! namespaces. A script configures the namespaces in that time.
//!
//! These effects are outside of the recorded calls: they run in the function before the start, between the
//! launcher's last message from the stages and its go byte.

use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nsexec::launch::signals::Signals;
use nsexec::launch::{is_open, open_pidfd, without_write_signals};
use nsexec::sys::types::{Fd, Pid};

use super::args::BeforeStartFlags;
use super::failure::{Failure, words};
use super::request::Request;

/// Checks that the descriptors are open, and open for the right direction. Called before nsexec opens any
/// descriptor, which could get one of these numbers.
///
/// # Errors
/// [`Failure::Usage`]: a descriptor is not open, or only open for the other direction.
pub(crate) fn check(flags: &BeforeStartFlags) -> Result<(), Failure> {
    let given = [
        ("--ready-fd", flags.ready_fd, OFlag::O_RDONLY, "writing"),
        ("--wait-fd", flags.wait_fd, OFlag::O_WRONLY, "reading"),
    ];
    for (flag, fd, unusable, use_of_it) in given {
        let Some(Fd(number)) = fd else { continue };
        let wrong =
            |why: &str| Err(Failure::Usage(format!("{flag} {number}: descriptor {number} is not open{why}")));
        if !is_open(Fd(number)) {
            return wrong("");
        }
        // SAFETY: the descriptor is open, and nothing closes it during the call.
        let mode = fcntl(unsafe { BorrowedFd::borrow_raw(number) }, FcntlArg::F_GETFL);
        let mode = mode.map_or(OFlag::empty(), OFlag::from_bits_retain);
        // A descriptor of O_PATH has the access mode of O_RDONLY, and can be neither read nor written.
        if mode.contains(OFlag::O_PATH) || mode & OFlag::O_ACCMODE == unusable {
            return wrong(&format!(" for {use_of_it}"));
        }
    }
    Ok(())
}

/// Adds the flags to a request: the launch goes through the stages, and its processes do not hold the
/// descriptors open.
pub(crate) fn add_to(request: &mut Request, flags: &BeforeStartFlags) {
    if *flags == BeforeStartFlags::default() {
        return;
    }
    // In a direct start most namespaces are created after the go byte, too late for a script.
    request.policy.launch.stages = true;
    let mut withheld: Vec<Fd> = flags.ready_fd.into_iter().chain(flags.wait_fd).collect();
    withheld.dedup();
    request.around.withheld = withheld;
    request.before_start = flags.clone();
}

/// Refuses flags whose effects strace would show and the record would not.
///
/// # Errors
/// A flag is given.
pub(crate) fn refuse_for_witness(request: &Request) -> Result<(), Failure> {
    match request.before_start.are_set() {
        true => Err(Failure::Usage(
            "--witness: the calls of --pid-file, --ready-fd and --wait-fd are not part of the record, and strace would \
             show them: leave these flags out"
                .to_owned(),
        )),
        false => Ok(()),
    }
}

impl BeforeStartFlags {
    /// Returns whether one of the flags is given. The launch then needs a parent of the command.
    pub(crate) fn are_set(&self) -> bool {
        *self != Self::default()
    }

    /// Returns the effects in words, for a plan.
    pub(crate) fn in_words(&self) -> Option<String> {
        let file =
            self.pid_file.as_ref().map(|file| format!("writes the pid to {}", Path::new(file).display()));
        let ready = self.ready_fd.map(|Fd(number)| format!("writes the pid to descriptor {number}"));
        let wait = self.wait_fd.map(|Fd(number)| format!("waits for descriptor {number}"));
        let all: Vec<String> = [file, ready, wait].into_iter().flatten().collect();
        (!all.is_empty()).then(|| format!("nsexec {}: these calls are not listed", all.join(", ")))
    }

    /// Writes the pid, and waits for the script.
    ///
    /// # Errors
    /// The flag, the object and the errno in words. [`io::ErrorKind::Interrupted`]: a signal asks the launch
    /// to end.
    pub(crate) fn act(&self, pid: Pid, signals: &Signals) -> io::Result<()> {
        if let Some(file) = &self.pid_file {
            write_pid_file(Path::new(file), pid).map_err(|error| {
                let shown = Path::new(file).display();
                io::Error::other(format!("--pid-file {shown}: failed to write the file: {}", words(&error)))
            })?;
        }
        if let Some(fd) = self.ready_fd {
            let mut ready = fs::File::from(owned(fd));
            // A pipe that is full would block the write, and with it the signals.
            let line = format!("{pid}\n");
            let written = match until(ready.as_fd(), PollFlags::POLLOUT, pid, signals) {
                Ok(true) => without_write_signals(|| ready.write_all(line.as_bytes())),
                other => other.map(drop),
            };
            if self.wait_fd == Some(fd) {
                // Closed after the wait.
                let _ = ready.into_raw_fd();
            }
            written.map_err(|error| {
                if error.kind() == io::ErrorKind::Interrupted {
                    return error;
                }
                io::Error::other(format!("--ready-fd {}: failed to write the pid: {}", fd.0, words(&error)))
            })?;
        }
        match self.wait_fd {
            Some(fd) => wait(fd, pid, signals),
            None => Ok(()),
        }
    }

    /// Removes the file of `--pid-file` after a failed launch, if it has the pid of its process.
    pub(crate) fn undo(&self, pid: Option<Pid>) {
        if let (Some(file), Some(pid)) = (&self.pid_file, pid) {
            // The open of a FIFO would wait for a writer.
            let regular = fs::symlink_metadata(file).is_ok_and(|found| found.is_file());
            if regular && fs::read_to_string(file).is_ok_and(|text| text == format!("{pid}\n")) {
                let _ = fs::remove_file(file);
            }
        }
    }
}

/// Takes a descriptor that the caller has opened for nsexec. It is closed when the result is dropped.
fn owned(Fd(number): Fd) -> OwnedFd {
    // SAFETY: `check` found it open, and nsexec uses it for nothing else.
    unsafe { OwnedFd::from_raw_fd(number) }
}

/// Waits until the descriptor is readable or at its end, and closes it.
fn wait(fd: Fd, pid: Pid, signals: &Signals) -> io::Result<()> {
    until(owned(fd).as_fd(), PollFlags::POLLIN, pid, signals).map(drop).map_err(|error| match error.kind() {
        io::ErrorKind::Interrupted => error,
        _ => io::Error::other(format!("--wait-fd {}: failed to wait: {}", fd.0, words(&error))),
    })
}

/// Waits for an event on the descriptor of the script. Returns false if the process has died instead: the
/// launcher then reports it.
///
/// # Errors
/// [`io::ErrorKind::Interrupted`]: a signal asks the launch to end. Those of poll(2).
fn until(script: BorrowedFd<'_>, event: PollFlags, pid: Pid, signals: &Signals) -> io::Result<bool> {
    // SAFETY: `signals` owns the descriptor.
    let interrupt = unsafe { BorrowedFd::borrow_raw(signals.interrupt().0) };
    // Before Linux 5.3, or under a seccomp filter, this looks every 20 ms whether the process has ended.
    let process = open_pidfd(pid.0).ok();
    let limit = process.as_ref().map_or(PollTimeout::from(LOOK_MS), |_| PollTimeout::NONE);
    loop {
        let all = [Some(interrupt), process.as_ref().map(OwnedFd::as_fd)];
        let all = all.into_iter().flatten().map(|one| PollFd::new(one, PollFlags::POLLIN));
        let mut polled: Vec<PollFd<'_>> = core::iter::once(PollFd::new(script, event)).chain(all).collect();
        match poll(&mut polled, limit) {
            Ok(0) if has_ended(pid) => return Ok(false),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let mut ready = polled.iter().map(|one| one.any().unwrap_or(true));
        match (ready.next(), ready.next(), ready.next()) {
            (Some(true), ..) => return Ok(true),
            (_, Some(true), _) => return Err(io::ErrorKind::Interrupted.into()),
            (.., Some(true)) => return Ok(false),
            _ => {}
        }
    }
}

/// The time between two looks at a process without a pidfd, in milliseconds.
const LOOK_MS: u16 = 20;

/// Returns whether a child of this process has ended. It stays a zombie: the launcher waits for it.
fn has_ended(pid: Pid) -> bool {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT | WaitPidFlag::__WALL;
    let status = waitid(Id::Pid(nix::unistd::Pid::from_raw(pid.0)), flags);
    status.is_ok_and(|status| status != WaitStatus::StillAlive)
}

/// Writes the file whole: a reader sees the earlier file, or the complete new one. A symbolic link to a
/// regular file is replaced, not followed.
///
/// # Errors
/// Those of open(2), write(2) and rename(2). A device, a FIFO or a socket is not replaced.
fn write_pid_file(file: &Path, pid: Pid) -> io::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = file.file_name().ok_or_else(|| io::Error::from(Errno::EISDIR))?;
    // /dev/null and /dev/stdout stay what they are.
    match fs::metadata(file) {
        Ok(there) if there.is_dir() => return Err(Errno::EISDIR.into()),
        Ok(there) if !there.is_file() => return Err(io::Error::other("it is not a regular file")),
        _ => {}
    }
    let (mut new, path) = create_beside(folder)?;
    let written = new
        .write_all(format!("{pid}\n").as_bytes())
        // The umask does not apply.
        .and_then(|()| new.set_permissions(fs::Permissions::from_mode(0o644)))
        .and_then(|()| fs::rename(&path, folder.join(name)));
    written.inspect_err(|_| drop(fs::remove_file(&path)))
}

/// Creates a file with a new name in the folder.
fn create_beside(folder: &Path) -> io::Result<(fs::File, PathBuf)> {
    let mut number = 0;
    loop {
        let path = folder.join(format!(".nsexec-{}-{number}", std::process::id()));
        let mut options = fs::OpenOptions::new();
        match options.write(true).create_new(true).mode(0o600).open(&path) {
            // Left behind by a process that was killed.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < 100 => number += 1,
            opened => return opened.map(|file| (file, path)),
        }
    }
}
