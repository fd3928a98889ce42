//! /proc/PID/status: the text of the file, its fields, and the signal state of a process
//! (proc_pid_status(5)). `query.rs` reads the file.

use std::string::String;

use super::script::ChildSignals;
use crate::sys::types::{Signal, SignalSet};

/// The text of a status file, as lines `NAME:\tVALUE`.
#[doc(hidden)]
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct StatusText(String);

impl StatusText {
    /// Keeps the text. The name of a process may contain invalid UTF-8.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        Self(String::from_utf8_lossy(bytes).into_owned())
    }

    /// Returns the value of the field with this name, without blanks around it.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    }

    /// Returns the value of a hexadecimal field, a bit set: `CapEff` or `SigBlk`.
    #[must_use]
    pub fn bits(&self, name: &str) -> Option<u64> {
        u64::from_str_radix(self.field(name)?, 16).ok()
    }

    /// Returns the signal state. A signal that no line mentions is not blocked, ignored or caught.
    pub(super) fn signals(&self) -> SignalState {
        let set = |name| SignalSet(self.bits(name).unwrap_or_default());
        SignalState {
            // One pid for each of its pid namespaces, from ours to its own.
            is_init: self.field("NSpid").and_then(|pids| pids.split_whitespace().next_back()) == Some("1"),
            blocked: set("SigBlk"),
            ignored: set("SigIgn"),
            caught: set("SigCgt"),
        }
    }
}

/// The signal state of a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct SignalState {
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

impl SignalState {
    /// Returns the state that a program would begin with after an exec by this thread: without handlers.
    /// SIGPIPE, which Rust's runtime ignores before main, gets its default disposition.
    pub(super) fn after_exec(self) -> ChildSignals {
        ChildSignals {
            mask: None,
            default: SignalSet(self.caught.0 | self.ignored.0 & SignalSet::PIPE.0),
            ignore: SignalSet::EMPTY,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "Name:\ta\nb: c\nNSpid:\t4711\t12\t1\nSigBlk:\t0000000000010000\nSigIgn:\t0000000000001001\n\
                        SigCgt:\t0000000100004440\n";

    #[test]
    fn signal_lines_of_proc_status_are_parsed() {
        let status = StatusText::new(TEXT.as_bytes()).signals();
        let want = SignalState {
            is_init: true,
            blocked: SignalSet(0x10000),
            ignored: SignalSet(0x1001),
            caught: SignalSet(0x1_0000_4440),
        };
        assert_eq!(status, want);
        assert!(!StatusText::new(b"NSpid:\t4711\t12\n").signals().is_init);
    }

    #[test]
    fn a_status_field_is_found_by_its_whole_name() {
        let status = StatusText::new(b"Seccomp_filters:\t1\nSeccomp:\t2\nNoNewPrivs:\t0\n");
        assert_eq!(status.field("Seccomp"), Some("2"));
        assert_eq!(status.field("NoNewPrivs"), Some("0"));
        assert_eq!(status.field("Nothing"), None);
    }

    #[test]
    fn after_exec_has_no_handlers_and_default_sigpipe() {
        let signals = StatusText::new(TEXT.as_bytes()).signals().after_exec();
        // Also SIGBUS (0x40) and SIGSEGV (0x400), of which Rust's runtime has handlers. SIGHUP (1) stays
        // ignored.
        let want = ChildSignals { mask: None, default: SignalSet(0x1_0000_5440), ignore: SignalSet::EMPTY };
        assert_eq!(signals, want);
    }
}
