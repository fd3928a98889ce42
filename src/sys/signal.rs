//! The names of the signals.

use core::fmt;

use super::types::Signal;

/// Returns an array of the names as strings.
macro_rules! names { ($($name:ident)*) => { [$(stringify!($name)),*] } }

/// The names in the order of their numbers, from 1. The numbers are the same on x86_64 and aarch64.
const NAMES: [&str; 31] = names! {
    SIGHUP SIGINT SIGQUIT SIGILL SIGTRAP SIGABRT SIGBUS SIGFPE SIGKILL SIGUSR1 SIGSEGV SIGUSR2 SIGPIPE SIGALRM
    SIGTERM SIGSTKFLT SIGCHLD SIGCONT SIGSTOP SIGTSTP SIGTTIN SIGTTOU SIGURG SIGXCPU SIGXFSZ SIGVTALRM SIGPROF
    SIGWINCH SIGIO SIGPWR SIGSYS
};

impl Signal {
    /// Returns the name: "SIGKILL". `None` for a real-time signal and for an invalid number.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        let index = usize::try_from(self.0).ok()?.checked_sub(1)?;
        NAMES.get(index).copied()
    }
}

impl fmt::Display for Signal {
    /// Writes `SIGKILL`, or `signal 34` for a signal without a name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "signal {}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::string::ToString;

    use super::*;

    #[test]
    fn signal_names_match_libc_constants() {
        macro_rules! same { ($($name:ident)*) => { $(assert_eq!(Signal(libc::$name).name(), Some(stringify!($name)));)* } }
        same! {
            SIGHUP SIGINT SIGQUIT SIGILL SIGTRAP SIGABRT SIGBUS SIGFPE SIGKILL SIGUSR1 SIGSEGV SIGUSR2 SIGPIPE
            SIGALRM SIGTERM SIGSTKFLT SIGCHLD SIGCONT SIGSTOP SIGTSTP SIGTTIN SIGTTOU SIGURG SIGXCPU SIGXFSZ
            SIGVTALRM SIGPROF SIGWINCH SIGIO SIGPWR SIGSYS
        }
        assert_eq!([Signal(-1).name(), Signal(0).name(), Signal(32).name()], [None; 3]);
        assert_eq!(
            (Signal::KILL.to_string(), Signal(34).to_string()),
            ("SIGKILL".into(), "signal 34".into())
        );
    }
}
