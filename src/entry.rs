//! The entry point of the program that becomes stage 0: reads the environment, runs the core, and exits or
//! returns.
//!
//! This file is one of the places with `unsafe` (SECURITY.md lists them). It creates a [`LinuxSys`], reads
//! the environment through the libc, and exits the process at the end of stages 0 and 1.

use core::cell::UnsafeCell;
use core::ffi::CStr;
use core::fmt;

#[cfg(feature = "legacy")]
use crate::cloned::STRINGS_MAX;
use crate::deciders::bootstrap::MESSAGE_MAX;
use crate::deciders::bootstrap::dialect::Dialect;
#[cfg(feature = "legacy")]
use crate::deciders::bootstrap::env::OwnProgram;
use crate::deciders::bootstrap::env::{Environment, RawEnv};
use crate::deciders::policy::Policy;
use crate::scripts::nsexec::{Scratch, nsexec, refuse_threads};
use crate::scripts::stage::Outcome;
use crate::sys::linux::LinuxSys;
use crate::sys::types::Fd;
use crate::words::error::Error;
use crate::words::log::{Level, Log};

/// A buffer of the core. It is in .bss, so a process without a bootstrap never touches its pages.
struct Memory<const LEN: usize>(UnsafeCell<[u8; LEN]>);

// SAFETY: only `run` uses it, and the caller of `run` guarantees a single thread.
unsafe impl<const LEN: usize> Sync for Memory<LEN> {}

/// The buffer for the bootstrap message.
static MEMORY: Memory<MESSAGE_MAX> = Memory(UnsafeCell::new([0; MESSAGE_MAX]));

/// The buffer for the environment that the sealed copy receives.
#[cfg(feature = "legacy")]
static ENVIRONMENT: Memory<STRINGS_MAX> = Memory(UnsafeCell::new([0; STRINGS_MAX]));

#[cfg(feature = "legacy")]
unsafe extern "C" {
    /// The libc's array of strings, which ends with a null pointer. Mutable: the libc changes it, in
    /// setenv(3) for example, and the compiler may assume that another static never changes.
    static mut environ: *const *const core::ffi::c_char;
}

/// Returns the value of an environment variable, as bytes.
fn variable(name: &CStr) -> Option<&'static [u8]> {
    // SAFETY: `name` ends with a NUL. `run` has a single thread, so the environment cannot change while we
    // read it, and nothing in this crate changes it later. `drop_in` and `log_pipe` read it in a process that
    // may have more threads, which may read it too. A thread that changes it must exclude all readers:
    // `std::env::set_var` is unsafe for this reason, and setenv(3) has the same condition.
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
        #[cfg(feature = "legacy")]
        mount_fds: variable(c"_LIBCONTAINER_MOUNT_FDS"),
        #[cfg(feature = "legacy")]
        own: OwnProgram {
            state_dir: variable(c"_LIBCONTAINER_STATEDIR"),
            mark: variable(c"_LIBCONTAINER_CLONED_BINARY"),
            environ: None,
        },
    }
}

/// Copies all variables, each with its NUL, to `memory`. Returns `None` if they do not fit.
#[cfg(feature = "legacy")]
fn all_variables(memory: &mut [u8]) -> Option<&[u8]> {
    let mut used: usize = 0;
    // SAFETY: with a single thread, neither the environment nor the pointer to it can change while we read.
    let mut next = unsafe { environ };
    // SAFETY: the pointer is null after clearenv(3); otherwise it points to an element of the array, which
    // ends with null.
    while let Some(variable) = unsafe { next.as_ref() }.filter(|variable| !variable.is_null()) {
        // SAFETY: each element that is not null is a string with its NUL.
        let variable = unsafe { CStr::from_ptr(*variable) }.to_bytes_with_nul();
        let end = used.checked_add(variable.len())?;
        memory.get_mut(used..end)?.copy_from_slice(variable);
        used = end;
        // SAFETY: this element was not the last.
        next = unsafe { next.add(1) };
    }
    memory.get(..used)
}

/// Runs the bootstrap that the environment asks for, with `policy`.
///
/// Returns immediately, without any system call, if `_LIBCONTAINER_INITPIPE` and `_LIBCONTAINER_LOGPIPE` are
/// absent. Otherwise it returns in stage 2 only; stages 0 and 1 exit in this function.
///
/// # Safety
/// This process has a single thread, and no other call of this function is in progress.
pub unsafe fn run(policy: &Policy) -> Outcome {
    // SAFETY: the caller guarantees a single thread.
    let mut sys = unsafe { LinuxSys::new() };
    // SAFETY: the caller guarantees that no other call of this function is in progress.
    let message = unsafe { &mut *MEMORY.0.get() };
    let raw = raw_environment();
    #[cfg(feature = "legacy")]
    let raw = if policy.dialect.legacy.cloned_binary {
        // SAFETY: as for the message.
        let all = all_variables(unsafe { &mut *ENVIRONMENT.0.get() });
        RawEnv { own: OwnProgram { environ: all, ..raw.own }, ..raw }
    } else {
        raw
    };
    match nsexec(&mut sys, raw, policy, &mut Scratch { message }) {
        Outcome::Exit(status) => exit(status),
        outcome => outcome,
    }
}

/// Exits the process without exit handlers: the program's main may never have run.
fn exit(status: i32) -> ! {
    // SAFETY: _exit(2) does not access the memory of this process.
    unsafe { libc::_exit(status) }
}

/// The privileges that this process has and the user who started it does not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Elevation {
    /// The effective user id is not the real one.
    SetUid {
        /// The user who started the program.
        real: u32,
        /// The id with whose rights the program runs.
        effective: u32,
    },
    /// The effective group id is not the real one.
    SetGid {
        /// The group of the user who started the program.
        real: u32,
        /// The group with whose rights the program runs.
        effective: u32,
    },
    /// Both ids are the user's own. The privileges come from file capabilities or a security module's rule.
    Capabilities,
}

impl Elevation {
    /// Returns the elevation of this process, from the values that the kernel set at its exec (getauxval(3)).
    /// It makes no system call and does not read the environment.
    ///
    /// Returns `None` also for root if all ids are 0: a security module may set AT_SECURE, but root gains
    /// nothing.
    #[must_use]
    pub fn of_this_process() -> Option<Self> {
        // SAFETY: getauxval(3) reads numbers that the kernel put on the stack at the exec.
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
    /// Writes the cause and the remedy.
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

/// Runs the bootstrap in a Rust program that a runc-like runtime starts as its init. Call it at the very
/// start of `main`.
///
/// Returns [`Outcome::NotInit`], without any change, if `_LIBCONTAINER_INITPIPE` is absent. Otherwise it
/// reads the bootstrap message from that descriptor and runs the three stages in the dialect `v1_2`. It
/// returns [`Outcome::HandOver`] in stage 2, which is the container's init. Stages 0 and 1 exit in this
/// function, with status 0 or 1. Errors go to the log pipe, or to standard error if there is no log pipe.
///
/// If the message joins a mount namespace, the parent must start this program from a sealed copy, as runc's
/// Go code does. Otherwise a process in that namespace can overwrite the program's file (CVE-2019-5736;
/// `cloned`).
///
/// A program that has already started a thread is refused with a fatal record. With threads, `unshare` and
/// `setns` of a user namespace fail, and a fork copies locks that are never released.
///
/// ```
/// use nsexec::Outcome;
///
/// // No `_LIBCONTAINER_INITPIPE` here, so this is an ordinary start.
/// assert_eq!(nsexec::init(), Outcome::NotInit);
/// ```
pub fn init() -> Outcome {
    init_as(&Dialect::V1_2)
}

/// Runs [`init`] for a parent of another runc release line.
///
/// In `v1_0` and `v1_1` the program executes a sealed copy of itself, with the same arguments and
/// environment. So the code before this call runs twice.
pub fn init_as(dialect: &'static Dialect) -> Outcome {
    if variable(c"_LIBCONTAINER_INITPIPE").is_none_or(<[u8]>::is_empty) {
        return Outcome::NotInit;
    }
    drop_in(&Policy::runc(dialect))
}

/// Runs [`init`] with any policy. Errors in the environment are handled exactly as in runc's C code: a
/// malformed log pipe number ends a process even if it has no init pipe.
pub fn drop_in(policy: &Policy) -> Outcome {
    let environment = Environment::parse(raw_environment(), policy.dialect);
    if matches!(environment, Ok(Environment { init: None, .. })) {
        return Outcome::NotInit;
    }
    // SAFETY: no process is forked before the threads are counted, and the calls until then are safe with
    // several threads.
    let mut sys = unsafe { LinuxSys::new() };
    if let Err(refusal) = refuse_threads(&mut sys) {
        let mut log = Log::open(&mut sys, log_pipe(policy.dialect), Level::Fatal, policy.log_form);
        log.fatal(&mut sys, &Error::Refused(refusal));
        exit(1);
    }
    // SAFETY: this process has a single thread.
    unsafe { run(policy) }
}

/// Returns the log pipe's descriptor from the environment.
#[must_use]
pub fn log_pipe(dialect: &Dialect) -> Option<Fd> {
    Environment::parse(raw_environment(), dialect).map_or_else(|error| error.log, |known| known.log)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elevation_follows_from_the_ids() {
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
