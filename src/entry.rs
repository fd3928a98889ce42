//! The edge in the child: environment → core → exit or return.
//!
//! One of the places with `unsafe` (SECURITY.md lists them): here a [`LinuxSys`] is made, the environment is
//! read through the libc, and the stages that end are ended.

use core::cell::UnsafeCell;
use core::ffi::{CStr, c_char};
use core::fmt;

use crate::bootstrap::MESSAGE_MAX;
use crate::bootstrap::dialect::Dialect;
use crate::bootstrap::env::{Environment, OwnProgram, RawEnv};
use crate::cloned::STRINGS_MAX;
use crate::error::Error;
use crate::log::{Level, Log};
use crate::nsexec::{Scratch, nsexec, refuse_threads};
use crate::policy::Policy;
use crate::stage::Outcome;
use crate::sys::linux::LinuxSys;
use crate::sys::types::Fd;

/// Memory of the core. In .bss, so that a process without a bootstrap pays nothing for it.
struct Memory<const LEN: usize>(UnsafeCell<[u8; LEN]>);

// SAFETY: `run` is the only user, and its caller promises a single thread.
unsafe impl<const LEN: usize> Sync for Memory<LEN> {}

/// The message's.
static MEMORY: Memory<MESSAGE_MAX> = Memory(UnsafeCell::new([0; MESSAGE_MAX]));

/// That of the environment, for a copy of the program to be handed.
static ENVIRONMENT: Memory<STRINGS_MAX> = Memory(UnsafeCell::new([0; STRINGS_MAX]));

unsafe extern "C" {
    /// The libc's: an array of strings, whose last element is null.
    static environ: *const *const c_char;
}

/// The value of an environment variable, as bytes.
fn variable(name: &CStr) -> Option<&'static [u8]> {
    // SAFETY: `name` ends with a NUL. With a single thread nobody changes the environment while we read it, and
    // nothing in this crate does later.
    unsafe {
        let value = libc::getenv(name.as_ptr());
        (!value.is_null()).then(|| CStr::from_ptr(value).to_bytes())
    }
}

fn raw_environment() -> RawEnv<'static> {
    RawEnv {
        init_pipe: variable(c"_LIBCONTAINER_INITPIPE"),
        log_pipe: variable(c"_LIBCONTAINER_LOGPIPE"),
        log_level: variable(c"_LIBCONTAINER_LOGLEVEL"),
        mount_fds: variable(c"_LIBCONTAINER_MOUNT_FDS"),
        own: OwnProgram {
            state_dir: variable(c"_LIBCONTAINER_STATEDIR"),
            mark: variable(c"_LIBCONTAINER_CLONED_BINARY"),
            environ: None,
        },
    }
}

/// All variables, each with its NUL, in `memory`; `None` if there is no room.
fn all_variables(memory: &mut [u8]) -> Option<&[u8]> {
    let mut used: usize = 0;
    // SAFETY: with a single thread nobody changes the environment, or the pointer to it, while we read.
    let mut next = unsafe { environ };
    // SAFETY: the pointer is null, where clearenv(3) was called, or to an element of the array, whose last one is null.
    while let Some(variable) = unsafe { next.as_ref() }.filter(|variable| !variable.is_null()) {
        // SAFETY: each of the others is a string with its NUL.
        let variable = unsafe { CStr::from_ptr(*variable) }.to_bytes_with_nul();
        let end = used.checked_add(variable.len())?;
        memory.get_mut(used..end)?.copy_from_slice(variable);
        used = end;
        // SAFETY: this element was not the last.
        next = unsafe { next.add(1) };
    }
    memory.get(..used)
}

/// The bootstrap, as the environment asks for it, with `policy`.
///
/// Returns at once, and without any system call, where `_LIBCONTAINER_INITPIPE` and `_LIBCONTAINER_LOGPIPE` are
/// absent. Otherwise it returns in stage 2 only; the other stages end in here.
///
/// # Safety
/// This process has a single thread, and no other call of this function is under way.
pub unsafe fn run(policy: &Policy) -> Outcome {
    // SAFETY: the caller promises a single thread.
    let mut sys = unsafe { LinuxSys::new() };
    // SAFETY: the caller promises that nobody else is in here.
    let message = unsafe { &mut *MEMORY.0.get() };
    let mut raw = raw_environment();
    if policy.dialect.cloned_binary {
        // SAFETY: as for the message.
        raw.own.environ = all_variables(unsafe { &mut *ENVIRONMENT.0.get() });
    }
    match nsexec(&mut sys, raw, policy, &mut Scratch { message }) {
        Outcome::Exit(status) => exit(status),
        outcome => outcome,
    }
}

/// Ends a stage, without the handlers of a program whose main never ran.
fn exit(status: i32) -> ! {
    // SAFETY: _exit touches nothing of this process's memory.
    unsafe { libc::_exit(status) }
}

/// Privileges of this process that the user who started it does not have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Elevation {
    /// The effective user id is not the real one.
    SetUid {
        /// The user who started the program.
        real: u32,
        /// As whom it runs.
        effective: u32,
    },
    /// The effective group id is not the real one.
    SetGid {
        /// The group of the user who started the program.
        real: u32,
        /// As which group it runs.
        effective: u32,
    },
    /// Both ids are the user's own: capabilities of the file, or a security module's rule for it.
    Capabilities,
}

impl Elevation {
    /// That of this process, by what the kernel gave it at its exec (getauxval(3)). No system call, and no look at the
    /// environment.
    ///
    /// `None` also for root where all ids are 0: a security module may set AT_SECURE, but root gains nothing.
    #[must_use]
    pub fn of_this_process() -> Option<Self> {
        // SAFETY: looks up numbers that the kernel put on the stack at the exec.
        let [secure, uid, euid, gid, egid] =
            [libc::AT_SECURE, libc::AT_UID, libc::AT_EUID, libc::AT_GID, libc::AT_EGID]
                .map(|key| unsafe { libc::getauxval(key) });
        Self::decide(secure != 0, [uid, euid, gid, egid].map(|id| u32::try_from(id).unwrap_or(u32::MAX)))
    }

    const fn decide(secure: bool, [uid, euid, gid, egid]: [u32; 4]) -> Option<Self> {
        if !secure {
            None
        } else if uid != euid {
            Some(Self::SetUid { real: uid, effective: euid })
        } else if gid != egid {
            Some(Self::SetGid { real: gid, effective: egid })
        } else if uid != 0 {
            Some(Self::Capabilities)
        } else {
            None
        }
    }
}

impl fmt::Display for Elevation {
    /// The cause, and the remedy.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SetUid { real, effective } => write!(
                f,
                "effective user id {effective}, real user id {real} (a setuid bit on this file, or on the program that \
                 started it; chmod u-s removes it)"
            ),
            Self::SetGid { real, effective } => write!(
                f,
                "effective group id {effective}, real group id {real} (a setgid bit on this file, or on the program that \
                 started it; chmod g-s removes it)"
            ),
            Self::Capabilities => f.write_str(
                "capabilities of the program's file (setcap -r removes them), or a security module's rule for it",
            ),
        }
    }
}

/// The bootstrap for a Rust program that is started as a runc-like runtime starts its init: call it first thing
/// in `main`.
///
/// Returns [`Outcome::NotInit`] untouched when `_LIBCONTAINER_INITPIPE` is absent; otherwise reads the bootstrap
/// message from it, runs the three stages in the dialect `v1_2`, and returns [`Outcome::HandOver`] in stage 2,
/// which is the container's init. Stages 0 and 1 end in here, with status 0 or 1; what went wrong is on the log
/// pipe, or on standard error.
///
/// With a mount namespace to join, the parent must start this program from a sealed copy of it, as runc's Go half does:
/// otherwise a process in that namespace can overwrite the program's file (CVE-2019-5736; `cloned`).
///
/// A program that has started a thread by then is refused with a fatal record: with threads, `unshare` and `setns`
/// of a user namespace fail, and a fork copies locks that nobody will ever release.
///
/// ```
/// use nsexec::stage::Outcome;
///
/// // No `_LIBCONTAINER_INITPIPE` here, so this is an ordinary start.
/// assert_eq!(nsexec::init(), Outcome::NotInit);
/// ```
pub fn init() -> Outcome {
    init_as(&Dialect::V1_2)
}

/// [`init`] for a parent of another of runc's release lines.
///
/// In `v1_0` and `v1_1` the program is executed a second time, from a sealed copy, with its arguments and environment as
/// they were: whatever comes before this call happens twice.
pub fn init_as(dialect: &'static Dialect) -> Outcome {
    if variable(c"_LIBCONTAINER_INITPIPE").is_none_or(<[u8]>::is_empty) {
        return Outcome::NotInit;
    }
    drop_in(&Policy::runc(dialect))
}

/// [`init`] with any policy, and exactly as runc's C where the environment is wrong: a log pipe that is no number
/// ends also a process without an init pipe.
pub fn drop_in(policy: &Policy) -> Outcome {
    let environment = Environment::parse(raw_environment(), policy.dialect);
    if matches!(environment, Ok(Environment { init: None, .. })) {
        return Outcome::NotInit;
    }
    // SAFETY: nothing is forked before the threads are counted, and the calls until then are harmless with them.
    let mut sys = unsafe { LinuxSys::new() };
    if let Err(refusal) = refuse_threads(&mut sys) {
        let mut log = Log::open(&mut sys, log_pipe(policy.dialect), Level::Fatal, policy.log_form);
        log.fatal(&mut sys, &Error::Refused(refusal));
        exit(1);
    }
    // SAFETY: there is one thread, and it is here.
    unsafe { run(policy) }
}

/// The log pipe that the environment names.
#[must_use]
pub fn log_pipe(dialect: &Dialect) -> Option<Fd> {
    Environment::parse(raw_environment(), dialect).map_or_else(|error| error.log, |known| known.log)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_elevation_is_told_by_its_ids() {
        let decide = Elevation::decide;
        for ids in [[0; 4], [1, 0, 1, 0], [1, 1, 1, 0], [1; 4]] {
            assert_eq!(decide(false, ids), None, "{ids:?}");
        }
        assert_eq!(decide(true, [1, 0, 2, 0]), Some(Elevation::SetUid { real: 1, effective: 0 }));
        assert_eq!(decide(true, [0, 1, 0, 0]), Some(Elevation::SetUid { real: 0, effective: 1 }));
        assert_eq!(decide(true, [0, 0, 2, 3]), Some(Elevation::SetGid { real: 2, effective: 3 }));
        assert_eq!(decide(true, [1; 4]), Some(Elevation::Capabilities));
        assert_eq!(decide(true, [0; 4]), None);
    }
}
