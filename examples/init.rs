//! Runs a command below a minimal init that reaps orphans: `init COMMAND [ARGUMENT]...`.
//!
//! The command is not process 1 of its pid namespace. So it does not have to reap the orphans of other
//! processes, and a signal without a handler has its usual effect.

use std::error::Error;
use std::process::exit;

use nsexec::launch::{Command, exit_code};
use nsexec::namespace::NsKind::{Mnt, Pid, User};

/// Returns a command below a minimal init, with the /proc of its pid namespace.
fn below_init(program: &str) -> Command {
    let mut command = Command::new(program);
    command.unshare([User, Pid, Mnt]).map_root().proc("/proc").init().kill_with_parent();
    command
}

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [program, arguments @ ..] = &words[..] else {
        return Err("usage: init COMMAND [ARGUMENT]...".into());
    };
    exit(exit_code(below_init(program).args(arguments).status()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orphans_leave_no_zombie() {
        // The shell inside creates an orphan and ends. The outer shell waits until no other child of process
        // 1 is left.
        let script = "sh -c 'sleep 0.05 & exit 0'
            n=0
            while [ $n -lt 400 ] && cat /proc/[0-9]*/stat 2>/dev/null | grep -q '(sleep) . 1 '; do
                n=$((n + 1)); sleep 0.01 </dev/null
            done
            cat /proc/[0-9]*/stat 2>/dev/null | grep -c ' Z '; exit 3";
        let output = below_init("sh").args(["-c", script]).output().unwrap();
        assert_eq!((&output.stdout[..], output.status.code()), (&b"0\n"[..], Some(3)));
    }

    #[test]
    fn signal_without_a_handler_ends_the_command() {
        let mut child = below_init("sleep").arg("1000").spawn().unwrap();
        child.signal(15).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(128 + 15));
    }

    #[test]
    fn missing_command_is_an_error() {
        let error = below_init("no-such-command").spawn().unwrap_err();
        assert_eq!(error.exit_code(), 127);
    }
}
