//! Preparations that make this process a larger parent: memory, threads, descriptors, mounts; or that of an
//! ordinary user. They last as long as the process.

use std::fs::File;
use std::io::{Error, Result};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd};
use std::ptr;
use std::thread;

/// Carries out the options before the other words, and returns these.
///
/// # Errors
/// A value is malformed, or the kernel refuses a preparation.
pub fn prepare(mut words: &[String]) -> std::result::Result<&[String], Box<dyn std::error::Error>> {
    while let [option, value, rest @ ..] = words {
        let count: usize = match option.starts_with("--") {
            true => value.parse()?,
            false => break,
        };
        match option.as_str() {
            "--memory" => touch_memory(count << 20)?,
            "--threads" => start_threads(count)?,
            "--descriptors" => open_descriptors(count)?,
            "--mounts" => make_mounts(count)?,
            "--user" => become_user(u32::try_from(count)?)?,
            _ => return Err(format!("unknown option {option}").into()),
        }
        words = rest;
    }
    Ok(words)
}

/// Returns the driver's socket, moved from descriptor 0. The command gets /dev/null as its descriptor 0.
///
/// # Errors
/// Those of fcntl(2), open(2) and dup2(2).
pub fn socket() -> Result<File> {
    // SAFETY: F_DUPFD_CLOEXEC uses no memory of this process.
    let moved = failed(unsafe { libc::fcntl(0, libc::F_DUPFD_CLOEXEC, 10) })?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    // SAFETY: nothing in this program uses descriptor 0.
    failed(unsafe { libc::dup2(null.as_raw_fd(), 0) })?;
    // SAFETY: the descriptor is new, and nothing else owns it.
    Ok(unsafe { File::from_raw_fd(moved) })
}

fn failed(result: i32) -> Result<i32> {
    if result < 0 { Err(Error::last_os_error()) } else { Ok(result) }
}

/// Touches this many bytes in pages of 4 KiB.
fn touch_memory(size: usize) -> Result<()> {
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping, which overlaps no other.
    let memory =
        unsafe { libc::mmap(ptr::null_mut(), size, access, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0) };
    if memory == libc::MAP_FAILED {
        return Err(Error::last_os_error());
    }
    // SAFETY: the mapping is ours and has this size.
    unsafe {
        libc::madvise(memory, size, libc::MADV_NOHUGEPAGE);
        (0..size).step_by(4096).for_each(|at| memory.cast::<u8>().add(at).write_volatile(1));
    }
    Ok(())
}

fn start_threads(count: usize) -> Result<()> {
    for _ in 0..count {
        thread::Builder::new().stack_size(64 << 10).spawn(|| {
            loop {
                thread::park();
            }
        })?;
    }
    Ok(())
}

/// Opens close-on-exec descriptors, as std opens all of them.
fn open_descriptors(count: usize) -> Result<()> {
    let most = count as u64 + 100;
    let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
    // SAFETY: the kernel reads this structure.
    failed(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) })?;
    for _ in 0..count {
        let _ = File::open("/dev/null")?.into_raw_fd();
    }
    Ok(())
}

/// Returns the effective user id. The group id has the same number.
#[must_use]
pub fn user() -> u32 {
    // SAFETY: a call without arguments, which cannot fail.
    unsafe { libc::geteuid() }
}

/// Takes these ids, and no capability. The memory stays dumpable, as that of a program that the user has
/// started.
fn become_user(id: u32) -> Result<()> {
    // SAFETY: calls with numbers; no group is read through the null pointer.
    unsafe {
        failed(libc::setgroups(0, ptr::null()))?;
        failed(libc::setresgid(id, id, id))?;
        failed(libc::setresuid(id, id, id))?;
        failed(libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0))?;
    }
    Ok(())
}

/// Makes bind mounts in a mount namespace of this process, with which they end.
fn make_mounts(count: usize) -> Result<()> {
    let place = |path: &std::ffi::CStr, source: *const libc::c_char, flags| {
        // SAFETY: `path` and `source` are null or NUL-terminated strings.
        failed(unsafe { libc::mount(source, path.as_ptr(), ptr::null(), flags, ptr::null()) })
    };
    // SAFETY: the flag changes the mount namespace alone. No other thread runs yet.
    failed(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
    place(c"/", ptr::null(), libc::MS_REC | libc::MS_PRIVATE)?;
    for _ in 0..count {
        place(c"/mnt", c"/mnt".as_ptr(), libc::MS_BIND)?;
    }
    Ok(())
}
