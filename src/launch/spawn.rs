//! The edge of the launcher: memory, the one door to the kernel, the end of the stages. The place with `unsafe` here.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::ptr::{self, NonNull};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;
use std::vec::Vec;

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use super::LaunchError;
use super::child::Child;
use super::command::Command;
use super::prepared::Prepared;
use super::record::{Collector, Record};
use super::script::{Failure, Launched, STAGES, Step, Trouble};
use super::tail;
use super::watch::Watch;
use crate::sys::Sys;
use crate::sys::linux::LinuxSys;
use crate::sys::types::{CloneFlags, Errno, Fd, MaskHow, Pid, PollFd, SigAction, Signal, SignalSet};

/// One launch at a time. A fork copies every descriptor, also the launcher's end of another launch's init pipe, and so
/// long as somebody holds that, the death of the launcher is no end of file: two launches could keep each other's
/// stages alive for ever.
static ONE_AT_A_TIME: Mutex<Launches> = Mutex::new(Launches { running: false, waiting: 0 });

/// A launch is over.
static OVER: Condvar = Condvar::new();

/// How often a launch that waits for another one looks whether it is to end itself.
const LOOK: Duration = Duration::from_millis(20);

/// The launches of this process.
#[derive(Debug)]
struct Launches {
    running: bool,
    /// How many threads wait for their turn.
    waiting: usize,
}

/// The turn of one launch: until it is dropped, others wait.
struct Turn(());

impl Turn {
    /// Waits for the other launches. The one that has the turn may take as long as it likes, a stopped stage holds it up
    /// for ever: so this wait, too, ends when the launch is interrupted or its time is over.
    fn wait(watch: &mut Watch) -> Result<Self, Trouble> {
        // SAFETY: polls, and reads a signal of the caller's own descriptor; no fork.
        let mut sys = unsafe { LinuxSys::new() };
        let mut launches = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        while launches.running {
            if watch.can_end() {
                watch.pause(&mut sys, 0)?;
            }
            launches.waiting += 1;
            launches = match watch.can_end() {
                true => OVER.wait_timeout(launches, LOOK).unwrap_or_else(PoisonError::into_inner).0,
                false => OVER.wait(launches).unwrap_or_else(PoisonError::into_inner),
            };
            launches.waiting -= 1;
        }
        launches.running = true;
        Ok(Self(()))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut launches = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        launches.running = false;
        // Without a waiting thread no call is made: a witness would see one that is not recorded.
        if launches.waiting > 0 {
            OVER.notify_one();
        }
    }
}

/// Allocates everything, forks, and ends the stages. Comes back in the launcher only, with the command's pid, and the
/// records that are not in the error. Nothing of the caller's runs in here.
pub(super) fn spawn<S: Sys>(
    prepared: &Prepared,
    wrap: impl FnOnce(LinuxSys) -> S,
) -> (Result<Pid, LaunchError>, Vec<Record>) {
    let mut collector = Collector::default();
    // For stage 0, which must not allocate: this process may have other threads.
    let bytes = prepared.message.len();
    let Some(mut message) = super::zeroed(bytes) else {
        return (Err(LaunchError::NoMemory { bytes }), Vec::new());
    };
    let turn = match Turn::wait(&mut Watch { interrupt: prepared.interrupt, timer: prepared.timer }) {
        Ok(turn) => turn,
        Err(trouble) => {
            return (
                Err(prepared.explain(Failure { trouble, ended: [None; STAGES] }, Vec::new())),
                Vec::new(),
            );
        }
    };
    // SAFETY: the script closes, reads and writes descriptors of its own, waits for the stages, and changes this
    // thread's mask for the time of the fork. The child of its fork comes back from the script with `Exit` and ends
    // below; on its way it runs the script and the core, which allocate nothing and take no lock.
    let mut sys = wrap(unsafe { LinuxSys::new() });
    let only_here = OnlyHere::new();
    let launched = prepared.run(&mut sys, &mut message, &mut collector);
    if let Launched::Exit(status) = launched {
        // SAFETY: we are a stage, on a copy of the launcher's stack; nothing of it may be unwound or dropped here, and
        // _exit touches no memory.
        unsafe { libc::_exit(status) }
    }
    drop(only_here);
    drop(turn);
    let (fatal, other) = collector.into_records();
    let result = match launched {
        Launched::Started { pid } => Ok(pid),
        Launched::Failed(failure) => Err(prepared.explain(failure, fatal)),
        Launched::Exit(_) => unreachable!("ended above"),
    };
    (result, other)
}

/// Ends a stage in which a panic unwinds, of a recorder, say: the caller's frames are the launcher's alone.
///
/// A page that the kernel wipes in every fork says which of the two we are. A pid would not: stage 2 may be process 1 of
/// its namespace, as the launcher of another one.
struct OnlyHere(NonNull<u8>);

impl OnlyHere {
    /// The least that can be mapped.
    const LEN: usize = 1;
    /// What the launcher finds in it.
    const MARK: u8 = 1;

    /// `None` if there is no memory for it, and then no guard.
    fn new() -> Option<Self> {
        let (rights, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that is there.
        let page = unsafe { libc::mmap(ptr::null_mut(), Self::LEN, rights, kind, -1, 0) };
        if page == libc::MAP_FAILED {
            return None;
        }
        let page = Self(NonNull::new(page.cast())?);
        // SAFETY: the page is ours, of this length, writable, and nobody else knows of it.
        let wiped = unsafe {
            page.0.write(Self::MARK);
            libc::madvise(page.0.as_ptr().cast(), Self::LEN, libc::MADV_WIPEONFORK)
        };
        (wiped == 0).then_some(page)
    }
}

impl Drop for OnlyHere {
    fn drop(&mut self) {
        /// As a program of Rust's that panics.
        const PANICKED: i32 = 101;
        // SAFETY: the page is mapped until the last line here. That another process has wiped its copy is no race, and
        // _exit touches no memory.
        unsafe {
            if self.0.read_volatile() != Self::MARK {
                libc::_exit(PANICKED);
            }
            libc::munmap(self.0.as_ptr().cast(), Self::LEN);
        }
    }
}

/// Becomes the command, as stage 2 of a launch would; comes back with the reason why not. Signals stay as they are.
///
/// `without` are the variables of our environment that it does not get.
pub fn execute<A: AsRef<OsStr>>(
    program: impl AsRef<OsStr>,
    args: impl IntoIterator<Item = A>,
    without: &[&str],
) -> LaunchError {
    let args = args.into_iter().map(|arg| arg.as_ref().into());
    let mut command = Command::default();
    command.words = core::iter::once(program.as_ref().into()).chain(args).collect();
    without.iter().for_each(|name| command.remove_env(name.as_ref()));
    let texts = match command.texts(std::env::vars_os().collect()) {
        Ok(texts) => texts,
        Err(error) => return error.into(),
    };
    let (mut argv, mut envp) = texts.slots();
    // SAFETY: the script executes files and asks for their links, and nothing else.
    let mut sys = unsafe { LinuxSys::new() };
    let error = tail::exec(&mut sys, &texts.tail(&mut argv, &mut envp));
    // It has no other errors; a refusal without a number would be one of input and output.
    let errno = error.errno().unwrap_or(Errno::EIO);
    LaunchError::Exec { program: super::command::shown(&texts.name), errno }
}

/// `waitpid(pid, &status, options | __WALL)`: `None` if nothing has happened yet.
///
/// `__WALL`: a command that died before its exec ends as a stage, without SIGCHLD. Not nix's, which has no word for
/// a command that a real-time signal ended, and loses its status.
pub(super) fn waitpid(pid: Pid, options: i32) -> io::Result<Option<ExitStatus>> {
    let mut status = 0;
    loop {
        // SAFETY: the kernel writes one int to `status`.
        match unsafe { libc::waitpid(pid.0, &raw mut status, options | libc::__WALL) } {
            0 => return Ok(None),
            -1 => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
            _ => return Ok(Some(ExitStatus::from_raw(status))),
        }
    }
}

/// A pidfd of the process that has this number in our pid namespace: it names the process, whoever gets the number later.
///
/// # Errors
/// `ESRCH`: no such process. `ENOSYS`: Linux before 5.3. `EINVAL`, `ENOENT`: the number is that of a thread.
pub fn hold(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: one call that changes nothing, and makes a descriptor.
    match unsafe { LinuxSys::new() }.pidfd_open(Pid(pid)) {
        // SAFETY: it was made just now, and nobody else knows of it.
        Ok(fd) => Ok(unsafe { OwnedFd::from_raw_fd(fd.0) }),
        Err(errno) => Err(io::Error::from_raw_os_error(errno.0)),
    }
}

/// Whether the descriptor is open in this process.
#[must_use]
pub fn is_open(fd: Fd) -> bool {
    // SAFETY: numbers; the call changes nothing.
    unsafe { libc::fcntl(fd.0, libc::F_GETFD) >= 0 }
}

/// `kill(pid, signal)`: any signal number, real-time ones too.
pub(super) fn kill(pid: Pid, signal: i32) -> io::Result<()> {
    // SAFETY: numbers.
    match unsafe { libc::kill(pid.0, signal) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A descriptor that is readable when the command has ended. `None` before Linux 5.3.
pub(super) fn pidfd(child: &Child) -> Option<OwnedFd> {
    hold(child.pid().0).ok()
}

/// A descriptor that is readable when this time is over (timerfd_create(2)). A limit of zero is over at once.
///
/// # Errors
/// [`LaunchError::Start`]: no descriptor left.
pub(super) fn timer(limit: Duration) -> Result<TimerFd, LaunchError> {
    /// 68 years: no time_t is too small for it.
    const LONGEST: Duration = Duration::from_secs(0x7fff_ffff);
    let failed =
        |errno: nix::errno::Errno| LaunchError::Start { step: Step::MakeTimer, errno: Errno(errno as i32) };
    let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC).map_err(failed)?;
    // A time of zero would disarm the timer (timerfd_settime(2)).
    let limit = limit.clamp(Duration::from_nanos(1), LONGEST);
    let limit = Expiration::OneShot(TimeSpec::from_duration(limit));
    timer.set(limit, TimerSetTimeFlags::empty()).map_err(failed)?;
    Ok(timer)
}

/// Waits until one of the descriptors has something, the time is over, or a signal came.
pub(super) fn poll(fds: &mut [PollFd], timeout_ms: i32) -> io::Result<()> {
    // SAFETY: one call, which changes nothing but its argument.
    match unsafe { LinuxSys::new() }.poll(fds, timeout_ms) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(io::Error::from_raw_os_error(errno.0)),
    }
}

/// Runs `write` with SIGXFSZ blocked in this thread: a write beyond the limit of the size of files (RLIMIT_FSIZE,
/// setrlimit(2)) is then `EFBIG`, and does not end the process. Afterwards the mask is as it was, and no SIGXFSZ of the
/// write is left pending.
pub fn without_sigxfsz<T>(write: impl FnOnce() -> T) -> T {
    // SAFETY: two changes of this thread's mask, of which the second takes the first one back, and a look at one signal.
    let mut sys = unsafe { LinuxSys::new() };
    let before = sys.sigprocmask(MaskHow::Block, SignalSet::XFSZ);
    let result = write();
    if let Ok(before) = before {
        if !before.contains(SignalSet::XFSZ) {
            // EAGAIN: none came.
            let _ = sys.sigtimedwait(SignalSet::XFSZ);
            let _ = sys.sigprocmask(MaskHow::Set, before);
        }
    }
    result
}

/// Takes a signal that is blocked in this thread off the pending ones, if it is there.
pub(super) fn forget(signal: Signal) {
    // SAFETY: one call, which takes one signal.
    let mut sys = unsafe { LinuxSys::new() };
    // EAGAIN: it is not pending.
    let _ = sys.sigtimedwait(super::proc_status::set_of(signal));
}

/// Gives a signal of this process its default disposition.
pub(super) fn default_disposition(signal: Signal) -> Result<(), Errno> {
    // SAFETY: one call, of which the default disposition is the argument: no code of ours is registered.
    let mut sys = unsafe { LinuxSys::new() };
    sys.sigaction(signal, SigAction::DEFAULT).map(|_| ())
}

/// A namespace file's answer to a request that takes no argument (ioctl_ns(2)). `_IO(0xb7, N)`, in the type that the libc
/// gives a request: musl has another one than glibc.
fn asked(path: &Path, request: libc::Ioctl) -> io::Result<libc::c_int> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    // SAFETY: these requests touch no memory of ours; what they give is a number or a new descriptor, or −1.
    let answer = unsafe { libc::ioctl(file.as_raw_fd(), request) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

/// Device and inode of the user namespace that owns the namespace at `path` (ioctl_ns(2), NS_GET_USERNS, Linux 4.9).
///
/// # Errors
/// `EPERM` if the owner is outside of our own user namespace; `ENOTTY` if the file is no namespace.
pub fn owner_of(path: &Path) -> io::Result<(u64, u64)> {
    const NS_GET_USERNS: libc::Ioctl = 0xb701;
    let owner = asked(path, NS_GET_USERNS)?;
    // SAFETY: the kernel made it just now for us.
    let owner = File::from(unsafe { OwnedFd::from_raw_fd(owner) });
    owner.metadata().map(|data| (data.dev(), data.ino()))
}

/// Of which kind the namespace at `path` is, as the flag that creates one (ioctl_ns(2), NS_GET_NSTYPE, Linux 4.11).
///
/// # Errors
/// `ENOTTY` if the file is no namespace.
pub fn kind_of(path: &Path) -> io::Result<CloneFlags> {
    const NS_GET_NSTYPE: libc::Ioctl = 0xb703;
    asked(path, NS_GET_NSTYPE).map(|flag| CloneFlags(u32::from_ne_bytes(flag.to_ne_bytes())))
}

/// The user id of whoever made the user namespace at `path`, as we see it (ioctl_ns(2), NS_GET_OWNER_UID, Linux 4.11).
///
/// # Errors
/// `EINVAL` if it is a namespace of another kind; `ENOTTY` if the file is none.
pub fn maker_of(path: &Path) -> io::Result<u32> {
    const NS_GET_OWNER_UID: libc::Ioctl = 0xb704;
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let mut uid: libc::uid_t = 0;
    // SAFETY: this request writes one uid_t, for which there is room.
    match unsafe { libc::ioctl(file.as_raw_fd(), NS_GET_OWNER_UID, &raw mut uid) } {
        0 => Ok(uid),
        _ => Err(io::Error::last_os_error()),
    }
}
