//! Applies the flags for the command's descriptors, session and environment to the [`Request`].

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::str::FromStr;

use nsexec::launch::{Launcher, is_open};
use nsexec::namespace::{NsKind, NsSet};
use nsexec::policy::{Descriptors, Session};
use nsexec::sys::types::Fd;

use super::args::HandOverFlags;
use super::failure::Failure;
use super::request::Request;

/// The PATH of a command whose environment is cleared.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The value of `--fd`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FdValue {
    /// All descriptors that are not close-on-exec.
    All,
    /// The descriptor with this number.
    One(Fd),
}

impl FromStr for FdValue {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "all" {
            return Ok(Self::All);
        }
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse().ok().filter(|_| digits) {
            Some(0..=2) => Err("descriptors 0 to 2 are always passed on".to_owned()),
            Some(number) => Ok(Self::One(Fd(number))),
            None => Err("expected a descriptor number above 2, or all".to_owned()),
        }
    }
}

/// The value of `--set-env`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Variable {
    name: OsString,
    value: OsString,
}

impl Variable {
    /// Reads `NAME=VALUE`.
    pub(crate) fn parse(text: &OsStr) -> Result<Self, String> {
        let bytes = text.as_bytes();
        match bytes.iter().position(|byte| *byte == b'=') {
            Some(0) | None => Err("expected NAME=VALUE with a non-empty NAME".to_owned()),
            Some(at) => Ok(Self {
                name: OsStr::from_bytes(&bytes[..at]).to_owned(),
                value: OsStr::from_bytes(&bytes[at + 1..]).to_owned(),
            }),
        }
    }
}

/// Settings of the launcher besides the policy: named descriptors and the environment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct HandOver {
    named: Vec<Fd>,
    clear_env: bool,
    variables: Vec<Variable>,
}

impl HandOver {
    /// Applies the settings to the launcher.
    pub(crate) fn apply(&self, launcher: &mut Launcher) {
        for fd in &self.named {
            launcher.pass_descriptor(*fd);
        }
        if self.clear_env {
            launcher.env_clear().env("PATH", DEFAULT_PATH);
            if let Some(term) = std::env::var_os("TERM") {
                launcher.env("TERM", term);
            }
        }
        for Variable { name, value } in &self.variables {
            launcher.env(name, value);
        }
    }
}

/// Returns whether a joined namespace can have processes that influence the command. A mount namespace
/// determines the executed files. Processes in a user or pid namespace may trace the command or send it
/// signals.
pub(crate) fn has_others(joined: NsSet) -> bool {
    [NsKind::User, NsKind::Mnt, NsKind::Pid].into_iter().any(|kind| joined.contains(kind))
}

/// Applies the flags to the request. Without flags, the command inherits named descriptors only if it enters
/// a container (`foreign`). It gets a session of its own if the target has less power (`less`).
pub(crate) fn decide(request: &mut Request, flags: &HandOverFlags, foreign: bool, less: bool) {
    let named = flags.fd.iter().filter_map(|value| match value {
        FdValue::One(fd) => Some(*fd),
        FdValue::All => None,
    });
    let all = flags.fd.contains(&FdValue::All);
    let named: Vec<Fd> = if all { Vec::new() } else { named.collect() };
    let withheld = !all && (foreign || !named.is_empty());
    request.policy.descriptors = if withheld { Descriptors::Named } else { Descriptors::All };
    if flags.new_session || (less && !flags.same_session) {
        request.policy.session = Session::New;
    }
    request.hand_over = HandOver { named, clear_env: flags.clear_env, variables: flags.set_env.clone() };
}

/// Checks that the named descriptors are open. Called before nsexec opens any descriptor, which could get one
/// of these numbers.
///
/// # Errors
/// [`Failure::Usage`]: a named descriptor is not open.
pub(crate) fn check(flags: &HandOverFlags) -> Result<(), Failure> {
    let closed = flags.fd.iter().find_map(|value| match value {
        FdValue::One(fd) if !is_open(*fd) => Some(fd.0),
        _ => None,
    });
    match closed {
        Some(number) => Err(Failure::Usage(format!("--fd {number}: descriptor {number} is not open"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_is_a_number_above_2_or_all() {
        assert_eq!("all".parse(), Ok(FdValue::All));
        assert_eq!("3".parse(), Ok(FdValue::One(Fd(3))));
        for refused in ["", "0", "2", "-1", "+3", "x", "2147483648", "3,4"] {
            assert!(refused.parse::<FdValue>().is_err(), "{refused}");
        }
    }

    #[test]
    fn a_variable_has_a_name_and_a_value() {
        let parse = |text: &str| Variable::parse(OsStr::new(text));
        let variable = |name: &str, value: &str| Ok(Variable { name: name.into(), value: value.into() });
        assert_eq!(parse("A=1"), variable("A", "1"));
        assert_eq!(parse("A=b=c"), variable("A", "b=c"));
        assert_eq!(parse("A="), variable("A", ""));
        for refused in ["", "A", "=1"] {
            assert!(parse(refused).is_err(), "{refused}");
        }
    }
}
