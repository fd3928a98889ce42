//! Applies the flags for the command's descriptors, session and environment.

use std::ffi::OsString;

use nsexec::launch::Descriptors;
use nsexec::launch::{Launcher, is_open};
use nsexec::namespace::{NsKind, NsSet};
use nsexec::policy::{Policy, Session};
use nsexec::sys::types::Fd;

use super::args::HandOverFlags;
use super::failure::Failure;
use super::values::{FdValue, Variable};

/// The PATH of a command whose environment is cleared.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Settings of the launcher besides the policy: named descriptors and the environment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct HandOver {
    named: Vec<Fd>,
    clear_env: bool,
    /// The environment of the process that the command enters, in place of ours.
    pub(crate) environment: Option<Vec<(OsString, OsString)>>,
    /// The command has no variable, and no PATH.
    pub(crate) empty_environment: bool,
    /// The first argument of the command, if it is not its name.
    pub(crate) arg0: Option<OsString>,
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
        if let Some(environment) = &self.environment {
            launcher.env_clear();
            // The terminal is the caller's. A variable of the process overrides it.
            let term = std::env::var_os("TERM").map(|term| (OsString::from("TERM"), term));
            for (name, value) in term.iter().chain(environment) {
                launcher.env(name, value);
            }
        }
        if self.empty_environment {
            launcher.env_clear();
        }
        for Variable { name, value } in &self.variables {
            launcher.env(name, value);
        }
        if let Some(name) = &self.arg0 {
            launcher.arg0(name);
        }
    }
}

/// Returns whether the command searches the caller's PATH, as far as the flags say.
pub(crate) fn keeps_path(flags: &HandOverFlags) -> bool {
    !flags.clear_env && flags.set_env.iter().all(|variable| variable.name != "PATH")
}

/// Returns whether a joined namespace can have processes that influence the command. A mount namespace
/// determines the executed files. Processes in a user or pid namespace may trace the command or send it
/// signals.
pub(crate) fn has_others(joined: NsSet) -> bool {
    [NsKind::User, NsKind::Mnt, NsKind::Pid].into_iter().any(|kind| joined.contains(kind))
}

/// Applies the flags to the policy, and returns the other settings. Without flags, the command inherits named
/// descriptors only if it enters a container (`foreign`). It gets a session of its own if the target has less
/// power (`less`).
pub(crate) fn decide(policy: &mut Policy, flags: &HandOverFlags, foreign: bool, less: bool) -> HandOver {
    let named = flags.fd.iter().filter_map(|value| match value {
        FdValue::One(fd) => Some(*fd),
        FdValue::All => None,
    });
    let all = flags.fd.contains(&FdValue::All);
    let named: Vec<Fd> = if all { Vec::new() } else { named.collect() };
    let withheld = !all && (foreign || !named.is_empty());
    policy.launch.descriptors = if withheld { Descriptors::Named } else { Descriptors::All };
    if flags.new_session || (less && !flags.same_session) {
        policy.session = Session::New;
    }
    HandOver { named, clear_env: flags.clear_env, variables: flags.set_env.clone(), ..HandOver::default() }
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
