//! The target process of `nsexec enter`. Its open directory in /proc identifies it even if its pid is reused.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat, readlinkat};
use nix::sys::stat::{Mode, fstat};
use nix::unistd::geteuid;
use nsexec::error::Code;
use nsexec::launch::causes::{Circumstances, likely, open_files_limit};
use nsexec::launch::{StatusText, is_own_namespace, network_of_socket, open_pidfd, own_status, pid_in_proc};
use nsexec::namespace::NsKind;
use nsexec::sys::types::Fd;

use super::enter_flags::TargetValue;
use super::failure::{Failure, needs};
use super::hints::FLAGS;

/// The flags to open a directory.
const DIRECTORY: OFlag = OFlag::O_PATH.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);

/// A process, identified by its open directory in /proc.
///
/// A file below the directory belongs to this process. After the process has been reaped, no such file can be
/// opened.
pub(crate) struct Process {
    /// The pid from the command line, in our pid namespace.
    pid: i32,
    /// The pid in the pid namespace of /proc.
    number: i32,
    directory: OwnedFd,
    /// `None` without a kernel that has it.
    pidfd: Option<OwnedFd>,
}

impl Process {
    /// Finds the process with the id `pid` in our own pid namespace.
    ///
    /// /proc may belong to another pid namespace, with other pids. A pidfd identifies the process, and
    /// /proc/self/fdinfo has its pid in that /proc (proc_pid_fdinfo(5)). Without a pidfd (before Linux 5.3),
    /// `pid` is used if /proc/self is our own pid.
    ///
    /// # Errors
    /// The process does not exist; /proc does not show the process, or does not show us.
    ///
    /// With an inode, only the process whose pidfd has it: no other process gets the same inode, even after
    /// the pid is used again (Linux 6.9).
    pub(crate) fn open(TargetValue { pid, inode }: TargetValue) -> Result<Self, Failure> {
        match open_pidfd(pid) {
            Ok(pidfd) => {
                check_inode(pid, inode, &pidfd)?;
                Self::of_pidfd(pid, pidfd)
            }
            Err(error) if error.raw_os_error() == Some(Errno::ESRCH as i32) => Err(gone(pid)),
            Err(error) if inode.is_some() => Err(Failure::ours(format!(
                "failed to enter process {pid}: its inode cannot be compared without pidfd_open(2): {}",
                super::failure::words(&error)
            ))),
            // A kernel before 5.3, a seccomp filter, or the id of a thread: it has a directory, but no pidfd.
            Err(error) => match own_number_in_proc() {
                Some(own) if own == std::process::id() => Self::at(pid, pid),
                own => {
                    let why = format!("pidfd_open(2): {}", super::failure::words(&error));
                    Err(unless_limited(pid, "", &error, || foreign(pid, own, &why)))
                }
            },
        }
    }

    fn of_pidfd(pid: i32, pidfd: OwnedFd) -> Result<Self, Failure> {
        let number = || {
            pid_in_proc(&pidfd).map_err(|error| {
                let reading = "failed to read /proc/self/fdinfo: ";
                let why = format!("{reading}{}", super::failure::words(&error));
                unless_limited(pid, reading, &error, || unnumbered(pid, own_number_in_proc(), &why))
            })
        };
        match number()? {
            0 => Err(foreign(pid, own_number_in_proc(), "this /proc does not show the process")),
            found if found < 0 => Err(gone(pid)),
            found => {
                let process = Self::at(pid, found)?;
                // The process had this number before and after the open, so the directory belongs to it.
                if number()? == found { Ok(Self { pidfd: Some(pidfd), ..process }) } else { Err(gone(pid)) }
            }
        }
    }

    fn at(pid: i32, number: i32) -> Result<Self, Failure> {
        let path = format!("/proc/{number}");
        match openat(AT_FDCWD, Path::new(&path), DIRECTORY, Mode::empty()) {
            Ok(directory) => Ok(Self { pid, number, directory, pidfd: None }),
            Err(Errno::ENOENT | Errno::ESRCH) => Err(gone(pid)),
            Err(errno) => Err(Failure::ours(format!("failed to open {path}: {}", words_and_limit(errno)))),
        }
    }

    /// Returns the path of a namespace, for messages.
    pub(crate) fn path(&self, kind: NsKind) -> String {
        format!("/proc/{}/ns/{}", self.number, kind.proc_name())
    }

    /// Opens the file of a namespace; `None` if the kernel does not have the kind.
    pub(crate) fn namespace(&self, kind: NsKind) -> Result<Option<OwnedFd>, Failure> {
        let name = kind.proc_name();
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        match openat(&self.directory, Path::new(&format!("ns/{name}")), flags, Mode::empty()) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::ENOENT) if !Path::new(&format!("/proc/self/ns/{name}")).is_symlink() => Ok(None),
            // A zombie has no namespaces.
            Err(Errno::ENOENT | Errno::ESRCH) => Err(gone(self.pid)),
            Err(errno) => {
                Err(Failure::ours(format!("failed to open {}: {}", self.path(kind), words_and_cause(errno))))
            }
        }
    }

    /// Opens the network namespace of a socket of the process. Returns the name of the socket too.
    pub(crate) fn network_of_socket(&self, number: i32) -> Result<(OwnedFd, String), Failure> {
        let name = format!("the network namespace of descriptor {number} of process {}", self.pid);
        let failed = |why: &str| Failure::ours(format!("failed to open {name}: {why}"));
        let needed = || failed(&needs("pidfd_open(2) and pidfd_getfd(2)", "5.6"));
        let pidfd = self.pidfd.as_ref().ok_or_else(needed)?;
        match network_of_socket(pidfd, Fd(number)) {
            Ok(namespace) => Ok((namespace, name)),
            Err(error) => {
                let cause = match error.raw_os_error().map(Errno::from_raw) {
                    Some(Errno::ENOSYS) => return Err(needed()),
                    Some(Errno::ENOTTY) => " (it is not a socket)",
                    Some(Errno::EPERM) => {
                        " (this needs the permission to trace the process, and CAP_NET_ADMIN in that namespace)"
                    }
                    _ => "",
                };
                Err(failed(&format!("{}{cause}", super::failure::words(&error))))
            }
        }
    }

    /// Fails if the process has ended: the directory of a reaped process is empty, and a zombie's state is Z.
    pub(crate) fn check_alive(&self) -> Result<(), Failure> {
        match self.read("stat") {
            // The name of a process may contain invalid UTF-8.
            Ok(text) if lives(&String::from_utf8_lossy(&text)) => Ok(()),
            Ok(_) => Err(gone(self.pid)),
            Err(error) => {
                let path = format!("/proc/{}/stat", self.number);
                Err(unread(self.pid, &path, &error))
            }
        }
    }

    /// Returns whether the process has less power than this one, so that it must not get our terminal. True
    /// if unknown.
    pub(crate) fn is_less_privileged(&self) -> bool {
        let other_user = match self.namespace(NsKind::User) {
            Ok(Some(theirs)) => !is_own_namespace(&theirs, NsKind::User),
            Ok(None) => false,
            Err(_) => true,
        };
        match self.read("status") {
            Ok(theirs) if !other_user => is_less(&StatusText::new(&theirs), &own_status()).unwrap_or(true),
            _ => true,
        }
    }

    /// Opens the directory that a link of the process leads to: `root` or `cwd`.
    pub(crate) fn directory(&self, link: &str) -> Result<OwnedFd, Failure> {
        openat(&self.directory, Path::new(link), DIRECTORY, Mode::empty()).map_err(|errno| {
            let (number, words) = (self.number, words_and_limit(errno));
            let text = format!("failed to open /proc/{number}/{link}: {words}{}", permission(errno));
            of_errno(errno, text)
        })
    }

    /// Returns the path of the directory that a link of the process leads to.
    pub(crate) fn path_of_directory(&self, link: &str) -> Result<PathBuf, Failure> {
        readlinkat(&self.directory, link).map(PathBuf::from).map_err(|errno| {
            let (number, words) = (self.number, words_and_limit(errno));
            let text = format!("failed to read /proc/{number}/{link}: {words}{}", permission(errno));
            of_errno(errno, text)
        })
    }

    /// Reads a file of the process that a flag needs.
    pub(crate) fn read_for(&self, flag: &str, file: &str) -> Result<Vec<u8>, Failure> {
        self.read(file).map_err(|error| {
            let words = super::failure::words(&error);
            Failure::ours(format!("{flag}: failed to read /proc/{}/{file}: {words}", self.number))
        })
    }

    fn read(&self, file: &str) -> io::Result<Vec<u8>> {
        let fd = openat(&self.directory, Path::new(file), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty());
        let mut bytes = Vec::new();
        File::from(fd?).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

/// Returns the likely cause of a refusal.
const fn permission(errno: Errno) -> &'static str {
    match errno {
        Errno::EACCES | Errno::EPERM => {
            " (it is another user's process, or it has privileges that we lack: be root)"
        }
        _ => "",
    }
}

/// Checks that the pidfd has this inode.
fn check_inode(pid: i32, inode: Option<u64>, pidfd: &OwnedFd) -> Result<(), Failure> {
    let Some(wanted) = inode else { return Ok(()) };
    match fstat(pidfd) {
        Ok(found) if found.st_ino == wanted => Ok(()),
        Ok(found) => Err(Failure::ours(format!(
            "failed to enter process {pid}: its pidfd has the inode {}, and not {wanted}: it is another process, or \
             this kernel is older than 6.9",
            found.st_ino
        ))),
        Err(errno) => Err(Failure::ours(format!("failed to enter process {pid}: {errno}"))),
    }
}

/// Compares two status files of processes in the same user namespace. `None` if a line is missing.
///
/// Returns whether `theirs` has less power than `ours`: another user id, fewer capabilities, no_new_privs or
/// a seccomp filter that `ours` does not have. Two different filters are not compared.
fn is_less(theirs: &StatusText, ours: &StatusText) -> Option<bool> {
    // The effective user id is the second of four.
    let uid = |status: &StatusText| -> Option<String> {
        Some(status.field("Uid")?.split_whitespace().nth(1)?.to_owned())
    };
    let lacks = |name| Some(ours.bits(name)? & !theirs.bits(name)? != 0);
    let restricted = |name| {
        let is = |status: &StatusText| status.field(name).is_some_and(|value| value != "0");
        is(theirs) && !is(ours)
    };
    let other_uid = uid(theirs)? != uid(ours)?;
    let fewer = lacks("CapEff")? || lacks("CapPrm")? || lacks("CapBnd")?;
    Some(other_uid || fewer || restricted("NoNewPrivs") || restricted("Seccomp"))
}

/// Returns whether the state in /proc/PID/stat is that of a running process. The state follows the name,
/// which may contain any byte.
fn lives(stat: &str) -> bool {
    let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
    state.is_some_and(|state| !matches!(state, 'Z' | 'X' | 'x'))
}

/// Returns our pid in /proc; `None` if /proc does not show us, or is not mounted.
fn own_number_in_proc() -> Option<u32> {
    fs::read_link("/proc/self").ok()?.to_str()?.parse().ok()
}

fn gone(pid: i32) -> Failure {
    Failure::ours(format!(
        "failed to enter process {pid}: No such process (it has ended, or is hidden from us: if /proc is mounted with \
         hidepid, run as root or in the group of its option gid=)"
    ))
}

/// Returns the failure to read a file of process `pid`, which may have ended.
fn unread(pid: i32, path: &str, error: &io::Error) -> Failure {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT | Errno::ESRCH) | None => gone(pid),
        Some(errno) => {
            let words = words_and_limit(errno);
            Failure::ours(format!("failed to enter process {pid}: failed to read {path}: {words}"))
        }
    }
}

/// Returns the error for a /proc of another pid namespace. `own` is our pid in that /proc.
fn foreign(pid: i32, own: Option<u32>, why: &str) -> Failure {
    let own = own.map_or("there is no /proc/self".to_owned(), |own| format!("/proc/self is {own}"));
    Failure::ours(format!(
        "failed to enter process {pid}: {why} (/proc is that of another pid namespace, or not mounted: we are process \
         {}, and {own}; mount a /proc of this pid namespace)",
        std::process::id()
    ))
}

/// Returns the failure to read the number of a process in /proc. `own` is our pid in that /proc: if it is our
/// pid, /proc is not the cause.
fn unnumbered(pid: i32, own: Option<u32>, why: &str) -> Failure {
    match own {
        Some(own) if own == std::process::id() => {
            Failure::ours(format!("failed to enter process {pid}: {why}"))
        }
        own => foreign(pid, own, why),
    }
}

/// Returns the failure of `doing`, a step on the way to process `pid`. EMFILE, ENFILE and ENOMEM are reported
/// as such. For any other error, `otherwise` names the cause.
fn unless_limited(pid: i32, doing: &str, error: &io::Error, otherwise: impl FnOnce() -> Failure) -> Failure {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(errno) if is_limit(errno) => {
            Failure::ours(format!("failed to enter process {pid}: {doing}{}", words_and_limit(errno)))
        }
        _ => otherwise(),
    }
}

/// Returns whether the errno is about a limit of this process or the machine, and not about the object.
pub(crate) const fn is_limit(errno: Errno) -> bool {
    matches!(errno, Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM)
}

/// Returns the failure with a text that names this errno.
fn of_errno(errno: Errno, text: String) -> Failure {
    if is_limit(errno) { Failure::Limited(text) } else { Failure::ours(text) }
}

/// Returns the errno in words. For EMFILE and ENFILE the text includes the limit that is reached.
pub(crate) fn words_and_limit(errno: Errno) -> String {
    let errno = nsexec::sys::types::Errno(errno as i32);
    open_files_limit(errno).map_or_else(|| errno.to_string(), |limit| format!("{errno} ({limit})"))
}

/// Returns the errno of an open of a namespace in words, with its likely cause.
fn words_and_cause(errno: Errno) -> String {
    let errno = nsexec::sys::types::Errno(errno as i32);
    let mut known = Circumstances::default();
    known.asked.rootless = !geteuid().is_root();
    match likely(Code::OpenNamespace, Some(errno), Some(&known), &FLAGS) {
        Some(cause) => format!("{errno} ({cause})"),
        None => errno.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn process_state_is_found_after_any_name() {
        assert!(lives("7 (a) Z (b) S 1 7"));
        assert!(!lives("7 (sh) Z 1 7"));
        assert!(!lives("7 (sh) X 1 7"));
        assert!(!lives(""));
    }

    #[test]
    fn only_a_missing_process_is_reported_as_ended() {
        let text =
            |errno: Errno| unread(7, "/proc/7/stat", &io::Error::from_raw_os_error(errno as i32)).to_string();
        for errno in [Errno::ENOENT, Errno::ESRCH] {
            assert!(text(errno).contains("process 7: No such process"), "{}", text(errno));
        }
        let expected = "failed to enter process 7: failed to read /proc/7/stat: Input/output error";
        assert_eq!(text(Errno::EIO), expected);
    }

    #[test]
    fn our_own_proc_is_not_called_that_of_another_pid_namespace() {
        let ours = unnumbered(7, Some(std::process::id()), "it failed").to_string();
        assert_eq!(ours, "failed to enter process 7: it failed");
        for own in [None, Some(std::process::id() + 1)] {
            let text = unnumbered(7, own, "it failed").to_string();
            assert!(text.contains("mount a /proc of this pid namespace"), "{text}");
        }
    }

    #[test]
    fn a_process_with_fewer_rights_is_less_privileged() {
        const OURS: &str = "Name:\tsh\nUid:\t0\t0\t0\t0\nCapPrm:\t1ff\nCapEff:\t1ff\nCapBnd:\t1ff\nNoNewPrivs:\t0\nSeccomp:\t0\n";
        let text = |text: &str| StatusText::new(text.as_bytes());
        let less = |from: &str, to: &str| {
            assert!(OURS.contains(from), "{from}");
            is_less(&text(&OURS.replace(from, to)), &text(OURS))
        };
        assert_eq!(is_less(&text(OURS), &text(OURS)), Some(false));
        for (from, to) in [
            ("Uid:\t0\t0", "Uid:\t0\t5"),
            ("CapEff:\t1ff", "CapEff:\t0ff"),
            ("CapPrm:\t1ff", "CapPrm:\t1fe"),
            ("CapBnd:\t1ff", "CapBnd:\t0"),
            ("NoNewPrivs:\t0", "NoNewPrivs:\t1"),
            ("Seccomp:\t0", "Seccomp:\t2"),
        ] {
            assert_eq!(less(from, to), Some(true), "{to}");
        }
        // More capabilities do not count as less power, nor does a restriction of both processes.
        assert_eq!(less("CapEff:\t1ff", "CapEff:\t3ff"), Some(false));
        let confined = text(&OURS.replace("Seccomp:\t0", "Seccomp:\t2"));
        assert_eq!(is_less(&confined, &confined), Some(false));
        assert_eq!(less("CapBnd", "CapXXX"), None);
    }
}
