//! /proc/PID/status: the signal state of a process (proc_pid_status(5)).

use std::format;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::string::String;

use super::script::ChildSignals;
use crate::sys::types::{Pid, Signal, SignalSet};

/// The signal state, from the lines of the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct ProcStatus {
    /// Whether it is process 1 of its pid namespace. The kernel discards signals to process 1 that have no
    /// handler.
    pub(super) is_init: bool,
    pub(super) blocked: SignalSet,
    pub(super) ignored: SignalSet,
    pub(super) caught: SignalSet,
}

/// Returns the set with this one signal.
pub(super) const fn set_of(signal: Signal) -> SignalSet {
    match signal.0 {
        1..=64 => SignalSet(1 << (signal.0 - 1)),
        _ => SignalSet::EMPTY,
    }
}

/// The signals that a fault of the program itself raises. Normally no other process sends them, so their
/// handlers do not run in a fork before the exec removes them.
const FAULTS: [Signal; 6] = [
    Signal(libc::SIGSEGV),
    Signal(libc::SIGBUS),
    Signal(libc::SIGILL),
    Signal(libc::SIGFPE),
    Signal(libc::SIGTRAP),
    Signal(libc::SIGSYS),
];

impl ProcStatus {
    /// Reads the state of this thread. Without a /proc, no signal is blocked, ignored or caught.
    pub(super) fn of_this_thread() -> Self {
        Self::read("/proc/thread-self/status").unwrap_or_default()
    }

    /// Reads the state of a child that is not reaped. `None` if it has ended, or if it cannot be identified
    /// in /proc.
    ///
    /// /proc may belong to another pid namespace, in which our pid of the child belongs to another process.
    /// The child's pid there is in the fdinfo of its pidfd (pidfd_open(2), proc_pid_fdinfo(5)). Without a
    /// pidfd, before Linux 5.3, our pid of the child is used if /proc/self shows our own pid.
    pub(super) fn of_child(pid: Pid, pidfd: Option<&OwnedFd>) -> Option<Self> {
        let number = match pidfd {
            Some(pidfd) => pid_in_proc(pidfd).ok().filter(|number| *number > 0).map(Pid)?,
            None if fs::read_link("/proc/self").ok()?.to_str()
                == Some(&format!("{}", std::process::id())) =>
            {
                pid
            }
            None => return None,
        };
        Self::read(&format!("/proc/{number}/status"))
    }

    fn read(path: &str) -> Option<Self> {
        // A process can set a name that is not UTF-8.
        fs::read(path).ok().map(|bytes| Self::parse(&String::from_utf8_lossy(&bytes)))
    }

    fn parse(text: &str) -> Self {
        let mut status = Self::default();
        for (key, value) in text.lines().filter_map(|line| line.split_once(":\t")) {
            let set = || SignalSet(u64::from_str_radix(value.trim(), 16).unwrap_or_default());
            match key {
                // One pid for each of its pid namespaces, from ours to its own.
                "NSpid" => status.is_init = value.split_whitespace().next_back() == Some("1"),
                "SigBlk" => status.blocked = set(),
                "SigIgn" => status.ignored = set(),
                "SigCgt" => status.caught = set(),
                _ => {}
            }
        }
        status
    }

    /// Returns the state that a program would begin with after an exec by this thread: without handlers.
    /// SIGPIPE, which Rust's runtime ignores before main, gets its default disposition.
    pub(super) fn after_exec(self) -> ChildSignals {
        let faults = FAULTS.into_iter().fold(0, |set, signal| set | set_of(signal).0);
        ChildSignals {
            mask: None,
            default: SignalSet(self.caught.0 & !faults | self.ignored.0 & SignalSet::PIPE.0),
            ignore: SignalSet::EMPTY,
        }
    }
}

/// Returns the pid that the process of a pidfd has in /proc, which may belong to another pid namespace. −1:
/// the process has ended. 0: this /proc does not show it (pidfd_open(2), proc_pid_fdinfo(5)).
///
/// # Errors
/// /proc is not mounted, or does not show this process.
pub fn pid_in_proc(pidfd: &OwnedFd) -> io::Result<i32> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()))?;
    pid_in(&text).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it has no line Pid"))
}

fn pid_in(fdinfo: &str) -> Option<i32> {
    fdinfo.lines().find_map(|line| line.strip_prefix("Pid:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pid_line_of_fdinfo_is_parsed() {
        for (line, number) in [("4711", Some(4711)), ("0", Some(0)), ("-1", Some(-1)), ("", None)] {
            let text = format!("pos:\t0\nflags:\t02000002\nmnt_id:\t15\nPid:\t{line}\nNSpid:\t{line}\t1\n");
            assert_eq!(pid_in(&text), number);
        }
        assert_eq!(pid_in("pos:\t0\n"), None);
    }

    const TEXT: &str = "Name:\ta\nb: c\nNSpid:\t4711\t12\t1\nSigBlk:\t0000000000010000\nSigIgn:\t0000000000001001\n\
                        SigCgt:\t0000000100004440\n";

    #[test]
    fn signal_lines_of_proc_status_are_parsed() {
        let status = ProcStatus::parse(TEXT);
        let want = ProcStatus {
            is_init: true,
            blocked: SignalSet(0x10000),
            ignored: SignalSet(0x1001),
            caught: SignalSet(0x1_0000_4440),
        };
        assert_eq!(status, want);
        assert!(!ProcStatus::parse("NSpid:\t4711\t12\n").is_init);
    }

    #[test]
    fn after_exec_has_no_handlers_and_default_sigpipe() {
        let signals = ProcStatus::parse(TEXT).after_exec();
        // SIGBUS (0x40) and SIGSEGV (0x400) are faults of the program itself. SIGHUP (1) stays ignored.
        let want = ChildSignals { mask: None, default: SignalSet(0x1_0000_5000), ignore: SignalSet::EMPTY };
        assert_eq!(signals, want);
    }
}
