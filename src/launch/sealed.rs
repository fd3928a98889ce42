//! [`run_from_sealed_copy`]: restarts the program of a launcher from a copy that no process can change.
//!
//! This file has `unsafe` code: it creates a [`LinuxSys`], and reads the C library's environment.

use std::borrow::ToOwned;
use std::env;
use std::ffi::{CStr, CString, OsStr, c_char};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::vec;
use std::vec::Vec;

use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};

use super::causes::open_files_limit;
use super::query::own_name;
use crate::cloned::{self, LAST_MARK, Room, SEALED_COPY, STRINGS_MAX, ensure_for_launch};
use crate::deciders::bootstrap::env::OwnProgram;
use crate::scripts::nsexec::refuse_threads;
use crate::sys::Sys;
use crate::sys::linux::LinuxSys;
use crate::sys::types::{Errno, MaskHow, SignalSet};
use crate::words::error::{CopyStep, Doing, Error, Refusal};

/// A size above Linux's limit for all arguments and variables of a program, which is three quarters of 8 MiB
/// (execve(2)).
const ALL_STRINGS_MAX: usize = 8 << 20;

/// The size of the copy buffer, for files that the kernel does not copy by itself.
const BUFFER: usize = 1 << 16;

/// True if the environment had the mark of a copy. The mark is removed from the environment, and later
/// launches need the fact.
static MARKED_COPY: AtomicBool = AtomicBool::new(false);

/// Returns whether [`run_from_sealed_copy`] has found the mark of a copy in the environment.
pub(super) fn is_marked_copy() -> bool {
    MARKED_COPY.load(Ordering::Relaxed)
}

unsafe extern "C" {
    /// The environment of the C library: an array of strings, whose last element is null.
    ///
    /// Mutable: the libc changes it, and the compiler may assume that another static never changes.
    static mut environ: *const *const c_char;
}

/// The reason why a program does not run from a sealed copy.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum SealedCopyError {
    /// The process has this many threads instead of one; `None` if they cannot be counted.
    Threads(Option<u64>),
    /// The arguments or the environment are too large for the exec of the copy.
    TooLarge,
    /// The copy would not be recognised as one, and would be copied again.
    NotRecognised,
    /// The environment has the mark of a second copy, and the program's file is not a copy. A further copy is
    /// not made: the kernel or the file system may change each copy, and then copying would never end.
    Marked,
    /// A system call failed.
    Os {
        /// The step that failed.
        step: CopyStep,
        /// The error of the call.
        errno: Errno,
    },
}

impl fmt::Display for SealedCopyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("failed to run from a sealed copy of this program: ")?;
        match *self {
            Self::Threads(count) => Refusal::Threads(count).fmt(f)?,
            Self::TooLarge => f.write_str("its arguments or its environment are too large to pass on")?,
            Self::NotRecognised => f.write_str(
                "the kernel or the file system changes the copy, so that it would not be recognised as one",
            )?,
            Self::Marked => write!(
                f,
                "the environment has {SEALED_COPY}={LAST_MARK}, the mark of a second copy, but this program's file is not a \
                 copy. Remove {SEALED_COPY} from the environment. If it was not there, the kernel or the file system \
                 changes the copies"
            )?,
            Self::Os { step: CopyStep::Create, errno } => {
                write!(
                    f,
                    "creating a file in TMPDIR or /tmp: {errno} (a file in memory could not be made either; {SET_TMPDIR})"
                )?;
            }
            Self::Os { step, errno } => {
                write!(f, "{}: {errno}", step.as_str())?;
                if let Some(cause) = likely(step, errno) {
                    write!(f, " ({cause})")?;
                }
            }
        }
        f.write_str(
            ". Without the copy, a process of the mount namespace to join could overwrite the program's file \
             (CVE-2019-5736)",
        )
    }
}

impl core::error::Error for SealedCopyError {}

/// What to do if the copy cannot be a file in memory.
const SET_TMPDIR: &str = "set TMPDIR to a writable directory without noexec";

/// Returns the likely cause of a failed step, and what to do.
const fn likely(step: CopyStep, errno: Errno) -> Option<&'static str> {
    Some(match (step, errno) {
        (CopyStep::OpenExe, Errno::EACCES) => "the program's file must be readable",
        (CopyStep::OpenExe, Errno::ENOENT) => "there is no /proc, or it is that of another pid namespace",
        (_, Errno::EMFILE | Errno::ENFILE) => return open_files_limit(errno),
        (CopyStep::Copy, Errno::EFBIG) => "RLIMIT_FSIZE is smaller than the program's file: raise ulimit -f",
        (CopyStep::Copy, Errno::ENOSPC | Errno::ENOMEM) => {
            "the copy needs as much memory as the program's file"
        }
        (CopyStep::Exec, Errno::EACCES | Errno::EPERM) => {
            "a security module forbids the exec of files in memory, or TMPDIR or /tmp is mounted noexec: set TMPDIR to a \
             writable directory without noexec"
        }
        _ => return None,
    })
}

impl From<Error<'_>> for SealedCopyError {
    fn from(error: Error<'_>) -> Self {
        match error {
            Error::Refused(Refusal::Threads(count)) => Self::Threads(count),
            Error::Refused(Refusal::OwnArguments) => Self::TooLarge,
            Error::Os { doing: Doing::EnsureCloned(step), errno } => Self::Os { step, errno },
            _ => Self::NotRecognised,
        }
    }
}

/// Makes sure that this program runs from a copy of itself that no process can change: a sealed file in
/// memory. Call it first in `main`, in every program that joins a mount namespace through a
/// [`Launcher`](super::Launcher).
///
/// If the program runs from such a copy already, this returns at once. Otherwise it copies /proc/self/exe,
/// seals the copy and executes it: `main` starts again in the copy. Arguments, environment, working
/// directory, descriptors without close-on-exec, signal mask, ignored signals, process id and process name
/// stay as they are. [`std::env::current_exe`] names the copy from then on.
///
/// The reason: the command is a file of the joined namespace. If the file is a script whose interpreter is
/// /proc/self/exe, the kernel executes this program's file there, with the dynamic loader of that namespace.
/// A hostile loader or library keeps a descriptor of the file, and overwrites it when no process executes it
/// any more (CVE-2019-5736). A launch that joins a mount namespace fails with
/// [`LaunchError::NotSealed`](super::LaunchError::NotSealed) if this was not called.
///
/// If the kernel has no files in memory, or `vm.memfd_noexec` forbids their exec, the copy is a file without
/// a name in `TMPDIR` or /tmp. That directory must be writable and mounted without noexec.
///
/// # Errors
/// The process has more than one thread, which an exec would end; or the copy could not be made or executed.
/// In both cases the process is unchanged.
///
/// ```no_run
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     nsexec::launch::run_from_sealed_copy()?;
///     // Parse the arguments, start threads, make a Launcher.
/// #   Ok(())
/// }
/// ```
pub fn run_from_sealed_copy() -> Result<(), SealedCopyError> {
    // SAFETY: in a process with other threads only the first check runs, which changes nothing. The other
    // calls run in a single thread; they end with an exec, or are undone.
    let mut sys = unsafe { LinuxSys::new() };
    let marked = env::var_os(SEALED_COPY);
    if marked.is_none() && cloned::may_join_mounts(&mut sys, is_marked_copy()) == Ok(true) {
        return Ok(());
    }
    refuse_threads(&mut sys).map_err(Error::Refused)?;
    let marked = marked.map(OsStringExt::into_vec).unwrap_or_default();
    // The mark is one byte; the process's name from before the exec follows it.
    let (mark, name) = marked.split_at(marked.len().min(1));
    let mark = Some(mark).filter(|mark| !mark.is_empty());
    let mask = sys.sigprocmask(MaskHow::Block, SignalSet::EMPTY);
    let result = ensure_copy(&mut sys, mark);
    if result.is_err() {
        // A copy that exceeds RLIMIT_FSIZE leaves SIGXFSZ blocked and pending.
        let _ = sys.sigtimedwait(SignalSet::XFSZ);
        if let Ok(mask) = mask {
            let _ = sys.sigprocmask(MaskHow::Set, mask);
        }
    } else if mark.is_some() {
        MARKED_COPY.store(true, Ordering::Relaxed);
        if let Some(name) = CString::new(name).ok().filter(|name| !name.is_empty()) {
            // The name is only shown; no code depends on it.
            let _ = sys.set_name(&name);
        }
        #[allow(clippy::disallowed_methods, reason = "there is one thread")]
        // SAFETY: there is one thread, so nothing reads the environment meanwhile.
        unsafe {
            env::remove_var(SEALED_COPY);
        }
    }
    result
}

/// Returns success in a copy. Otherwise executes a copy, or returns the error.
fn ensure_copy<S: Sys>(sys: &mut S, mark: Option<&[u8]>) -> Result<(), SealedCopyError> {
    let name = own_name();
    let state_dir = env::var_os("TMPDIR");
    let state_dir = state_dir.as_deref().map(OsStr::as_bytes);
    let variables = all_variables();
    let mut size = STRINGS_MAX;
    loop {
        let (mut argv, mut envp, mut buffer) = (vec![0; size], vec![0; size], vec![0; BUFFER]);
        let (mut argv_slots, mut envp_slots) = (vec![None; size / 16], vec![None; size / 16]);
        let room = Room {
            argv: &mut argv,
            envp: &mut envp,
            argv_slots: &mut argv_slots,
            envp_slots: &mut envp_slots,
            buffer: &mut buffer,
        };
        let own = OwnProgram { state_dir, mark, environ: Some(&variables) };
        match ensure_for_launch(sys, own, &name, room) {
            Err(Error::Refused(Refusal::OwnArguments)) if size < ALL_STRINGS_MAX => size *= 4,
            // Only the mark gives this error after LAST_MARK: no second copy makes a third.
            Err(Error::Refused(Refusal::CopyNotRecognised)) if mark == Some(LAST_MARK.as_bytes()) => {
                return Err(SealedCopyError::Marked);
            }
            result => return result.map_err(SealedCopyError::from),
        }
    }
}

/// Returns all variables of the C library's environment, each with its NUL. std omits variables without `=`.
fn all_variables() -> Vec<u8> {
    let mut variables = Vec::new();
    // SAFETY: there is one thread, so nothing changes the environment, or the pointer to it, while it is
    // read.
    let mut next = unsafe { environ };
    // SAFETY: the pointer is null after clearenv(3); otherwise it leads to an element of the array, whose
    // last is null.
    while let Some(variable) = unsafe { next.as_ref() }.filter(|variable| !variable.is_null()) {
        // SAFETY: each element but the last is a string with its NUL.
        variables.extend(unsafe { CStr::from_ptr(*variable) }.to_bytes_with_nul().to_owned());
        // SAFETY: this element was not the last.
        next = unsafe { next.add(1) };
    }
    variables
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn an_error_names_the_step_the_cause_and_the_danger() {
        let error = |step, errno| SealedCopyError::Os { step, errno }.to_string();
        for (text, words) in [
            (error(CopyStep::OpenExe, Errno::EACCES), ["opening /proc/self/exe", "must be readable"]),
            (error(CopyStep::Copy, Errno::EFBIG), ["copying: File too large", "ulimit -f"]),
            (error(CopyStep::Exec, Errno::EACCES), ["executing the copy: Permission denied", SET_TMPDIR]),
            (error(CopyStep::Create, Errno::EROFS), ["Read-only file system", SET_TMPDIR]),
            (SealedCopyError::Threads(Some(3)).to_string(), ["3 threads", "before any is started"]),
            (SealedCopyError::TooLarge.to_string(), ["arguments", "environment"]),
            (SealedCopyError::NotRecognised.to_string(), ["copy", "recognised"]),
            (SealedCopyError::Marked.to_string(), ["_NSEXEC_SEALED_COPY=2", "Remove _NSEXEC_SEALED_COPY"]),
        ] {
            for word in words.iter().chain(&["CVE-2019-5736"]) {
                assert!(text.contains(word), "{word} in {text}");
            }
            assert!(!text.contains("cloned binary"), "{text}");
        }
    }

    #[test]
    fn core_errors_map_to_sealed_copy_errors() {
        let of = |refusal| SealedCopyError::from(Error::Refused(refusal));
        assert_eq!(of(Refusal::Threads(Some(2))), SealedCopyError::Threads(Some(2)));
        assert_eq!(of(Refusal::OwnArguments), SealedCopyError::TooLarge);
        assert_eq!(of(Refusal::CopyNotRecognised), SealedCopyError::NotRecognised);
        let os = Error::Os { doing: Doing::EnsureCloned(CopyStep::Seal), errno: Errno::EBUSY };
        let (step, errno) = (CopyStep::Seal, Errno::EBUSY);
        assert_eq!(SealedCopyError::from(os), SealedCopyError::Os { step, errno });
    }

    /// libtest runs each test in a thread of its own.
    #[test]
    fn a_program_with_threads_is_refused() {
        let other = std::thread::spawn(std::thread::park);
        let result = run_from_sealed_copy();
        other.thread().unpark();
        other.join().unwrap();
        assert!(matches!(result, Err(SealedCopyError::Threads(Some(2..)))), "{result:?}");
    }
}
