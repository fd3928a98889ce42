//! Queries about processes, descriptors and namespaces: not part of the bootstrap. They change nothing.
//! These calls are outside of the launch's [`Sys`], so no record contains them.

use std::ffi::CString;
use std::format;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::vec::Vec;

use core::fmt;

use nix::sys::stat::fstat;
use nix::sys::utsname::uname;
use nix::unistd::{Gid, Uid, getegid, geteuid, getresgid, getresuid, setfsgid, setfsuid};

use super::number::number_of_fdinfo;
use super::proc_status::{SignalState, StatusText};
use super::shape::{Protection, Yama};
use super::shared::is_dumpable;
use crate::deciders::namespace::NsKind;
use crate::scripts::nsexec::refuse_threads;
use crate::sys::Sys;
use crate::sys::linux::LinuxSys;
use crate::sys::types::{CloneFlags, Fd, FsType, Pid, SysResult};
use crate::words::error::Refusal;

/// Returns whether the kernel reports the address of this thread's id (PR_GET_TID_ADDRESS(2const)). A kernel
/// that is built without CONFIG_CHECKPOINT_RESTORE does not.
#[must_use]
pub fn reports_tid_address() -> bool {
    // SAFETY: reads this thread's own registration, and changes nothing.
    unsafe { LinuxSys::new() }.tid_address().is_ok()
}

/// Returns the ids of this thread for files (setfsuid(2)).
fn ids_for_files() -> (Uid, Gid) {
    // These calls change nothing, since the id is not valid, and return the present one.
    (setfsuid(Uid::from_raw(u32::MAX)), setfsgid(Gid::from_raw(u32::MAX)))
}

/// Returns whether the effective ids of this thread, and those for files, are 0 (geteuid(2), setfsuid(2)).
pub(super) fn has_root_ids() -> bool {
    let (fsuid, fsgid) = ids_for_files();
    geteuid().is_root() && fsuid.is_root() && [getegid(), fsgid].iter().all(|gid| gid.as_raw() == 0)
}

/// Returns whether a process may share this program's memory, as far as the machine decides it: on Linux 5.16
/// or later, since before a signal with a core dump to that process also ended this program (kernel commit
/// 0258b5fd7c71); and not with musl, whose `clone` refuses the flags.
pub(super) fn may_share_memory() -> bool {
    let Ok(name) = uname() else { return false };
    let release = name.release().to_str().unwrap_or_default();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else { return false };
    (major, minor) >= (5, 16) && !cfg!(target_env = "musl")
}

/// Reads the properties of this thread, and of the machine, that decide which processes can trace this
/// program. A property that cannot be read counts as one that prevents it.
#[must_use]
pub fn own_protection() -> Protection {
    let sysctls = Path::new("/proc/sys/kernel");
    let (fsuid, fsgid) = ids_for_files();
    let users = getresuid().is_ok_and(|ids| [ids.real, ids.effective, ids.saved] == [fsuid; 3]);
    let groups = getresgid().is_ok_and(|ids| [ids.real, ids.effective, ids.saved] == [fsgid; 3]);
    Protection {
        equal_ids: users && groups,
        permitted: capability_sets().map(|sets| sets.permitted),
        dumpable: is_dumpable(),
        yama: yama(sysctls),
        relabels: relabels(sysctls),
        suid_dumpable: read_path(Path::new("/proc/sys/fs/suid_dumpable"))
            .map_or(true, |text| !matches!(text[..], [b'0' | b'2', b'\n'])),
    }
}

/// Reads whether Yama restricts tracing. `sysctls` is /proc/sys/kernel.
fn yama(sysctls: &Path) -> Yama {
    let folder = sysctls.join("yama");
    match read_path(&folder.join("ptrace_scope")) {
        Ok(text) if text == b"0\n" => Yama::Off,
        Ok(text) if matches!(text[..], [b'1'..=b'3', b'\n']) => Yama::On,
        Ok(_) => Yama::Unknown,
        // The kernel has no Yama if its other sysctls are there. A directory that is covered by a mount is
        // there too.
        Err(error) if is_missing(&error) => match (fs::symlink_metadata(&folder), has_sysctls(sysctls)) {
            (Err(error), true) if is_missing(&error) => Yama::Off,
            _ => Yama::Unknown,
        },
        Err(_) => Yama::Unknown,
    }
}

/// Reads whether AppArmor may give the creator of a user namespace another label. `sysctls` is
/// /proc/sys/kernel.
fn relabels(sysctls: &Path) -> bool {
    match read_path(&sysctls.join("apparmor_restrict_unprivileged_userns")) {
        Ok(text) => text != b"0\n",
        Err(error) => !is_missing(&error) || !has_sysctls(sysctls),
    }
}

fn is_missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

/// Returns whether the directory has the sysctl that every kernel has.
fn has_sysctls(sysctls: &Path) -> bool {
    fs::symlink_metadata(sysctls.join("osrelease")).is_ok()
}

/// Fails if this process has several threads.
///
/// # Errors
/// [`Refusal::Threads`].
pub(super) fn has_one_thread() -> Result<(), Refusal> {
    // SAFETY: the calls change nothing in a process with one thread, and fail in another one.
    refuse_threads(&mut unsafe { LinuxSys::new() })
}

/// Reads the signal state of this thread. `None` without a /proc.
pub(super) fn signals_of_this_thread() -> Option<SignalState> {
    status("/proc/thread-self/status")
}

/// Reads the signal state of a child that is not reaped. `None` if it has ended, or if it cannot be
/// identified in /proc.
///
/// /proc may belong to another pid namespace, in which our pid of the child belongs to another process. The
/// child's pid there is in the fdinfo of its pidfd (pidfd_open(2), proc_pid_fdinfo(5)). Without a pidfd,
/// before Linux 5.3, our pid of the child is used if /proc/self shows our own pid.
pub(super) fn signals_of_child(pid: Pid, pidfd: Option<&OwnedFd>) -> Option<SignalState> {
    let number = match pidfd {
        Some(pidfd) => pid_in_proc(pidfd).ok().filter(|number| *number > 0).map(Pid)?,
        None if fs::read_link("/proc/self").ok()?.to_str() == Some(&format!("{}", std::process::id())) => pid,
        None => return None,
    };
    status(&format!("/proc/{number}/status"))
}

/// Returns whether this thread's effective capabilities lack the one with this number (capabilities(7)).
/// Without a /proc only a thread without user id 0 lacks it.
pub(super) fn lacks_capability(number: u32) -> bool {
    let status = read("/proc/thread-self/status").map(|text| StatusText::new(&text));
    match status.ok().and_then(|status| status.bits("CapEff")) {
        Some(set) => set >> number & 1 == 0,
        None => !geteuid().is_root(),
    }
}

/// Reads the status of this thread (proc_pid_status(5)); a text without fields if there is no /proc.
/// Capabilities, filters and the signal mask belong to a thread: /proc/self/status shows those of the first
/// one.
#[must_use]
pub fn own_status() -> StatusText {
    StatusText::new(&read("/proc/thread-self/status").unwrap_or_default())
}

// The libc crate does not declare it; glibc and musl have it.
unsafe extern "C" {
    fn capget(header: *mut u32, sets: *mut u32) -> libc::c_int;
}

/// The capabilities of a thread, as bits.
struct CapabilitySets {
    effective: u64,
    permitted: u64,
}

/// Returns the effective capabilities of this thread, as in /proc/PID/status, without a /proc (capget(2)).
/// `None`: the kernel lacks the call.
#[must_use]
pub fn own_capabilities() -> Option<u64> {
    capability_sets().map(|sets| sets.effective)
}

/// Returns the capabilities of this thread (capget(2)). `None`: the kernel lacks the call, or a filter
/// refuses it.
fn capability_sets() -> Option<CapabilitySets> {
    /// `_LINUX_CAPABILITY_VERSION_3`, since Linux 2.6.26: two 32-bit words of each set.
    const VERSION: u32 = 0x2008_0522;
    let mut header = [VERSION, 0];
    // Effective, permitted and inheritable set: the low words, then the high words.
    let mut sets = [0_u32; 6];
    // SAFETY: the kernel reads the header, a version and a pid of which 0 is this thread, and writes two
    // structures of three words. Both arrays live through the call.
    let result = unsafe { capget(header.as_mut_ptr(), sets.as_mut_ptr()) };
    let [effective, permitted, _, high_effective, high_permitted, _] = sets;
    let whole = |low: u32, high: u32| u64::from(high) << 32 | u64::from(low);
    (result == 0).then_some(CapabilitySets {
        effective: whole(effective, high_effective),
        permitted: whole(permitted, high_permitted),
    })
}

fn status(path: &str) -> Option<SignalState> {
    read(path).ok().map(|bytes| StatusText::new(&bytes).signals())
}

/// Reads a file of /proc in one call, and the end of the file in another one. `fs::read` begins with 32
/// bytes, since /proc reports a size of 0.
fn read(path: &str) -> io::Result<Vec<u8>> {
    read_path(Path::new(path))
}

fn read_path(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::with_capacity(4096);
    // The limit keeps `read_to_end` from asking for the size.
    File::open(path)?.take(u64::MAX).read_to_end(&mut text)?;
    Ok(text)
}

/// Returns the pid that the process of a pidfd has in /proc, which may belong to another pid namespace. −1:
/// the process has ended. 0: this /proc does not show it (pidfd_open(2), proc_pid_fdinfo(5)).
///
/// # Errors
/// /proc is not mounted, or does not show this process.
pub fn pid_in_proc(pidfd: &OwnedFd) -> io::Result<i32> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()))?;
    number_of_fdinfo(&text).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it has no line Pid"))
}

/// Reads the pid of the parent of a process. Both are numbers of /proc (proc_pid_status(5)).
pub(super) fn parent_in_proc(pid: i32) -> Option<i32> {
    let text = StatusText::new(&read(&format!("/proc/{pid}/status")).ok()?);
    text.field("PPid")?.parse().ok()
}

/// Reads the name of this process (proc_pid_comm(5)); empty without a /proc.
pub(super) fn own_name() -> Vec<u8> {
    let mut name = fs::read("/proc/self/comm").unwrap_or_default();
    if name.last() == Some(&b'\n') {
        name.pop();
    }
    name
}

/// Opens a pidfd of the process with this pid in our pid namespace. The pidfd refers to the same process even
/// after the pid is used again.
///
/// # Errors
/// `ESRCH`: the process does not exist. `ENOSYS`: Linux before 5.3. `EINVAL`, `ENOENT`: the number is that of
/// a thread.
pub fn open_pidfd(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: one call, which only creates a descriptor.
    match unsafe { LinuxSys::new() }.pidfd_open(Pid(pid)) {
        // SAFETY: the kernel has just created this descriptor, and it has no other owner.
        Ok(fd) => Ok(unsafe { OwnedFd::from_raw_fd(fd.0) }),
        Err(errno) => Err(io::Error::from_raw_os_error(errno.0)),
    }
}

/// Calls unshare(2) with flags that the kernel refuses with `EINVAL` before it does anything. A seccomp
/// filter that refuses unshare(2) returns another error, or kills the process.
pub(super) fn unshare_invalid_flags() -> SysResult<()> {
    // SAFETY: one call, which changes nothing: unshare(2) does not know the flag 1, and refuses it.
    unsafe { LinuxSys::new() }.unshare(CloneFlags(1))
}

/// Returns a copy of a directory without the mounts on its files (open_tree(2)). The copy is attached
/// nowhere, and ends with the descriptor. `None`: the caller may not mount here, or the kernel is older than
/// 5.2.
pub(super) fn without_mounts(directory: &File) -> Option<OwnedFd> {
    let path = CString::new(format!("/proc/self/fd/{}", directory.as_raw_fd())).ok()?;
    // SAFETY: one call, which only creates a descriptor.
    let copy = unsafe { LinuxSys::new() }.open_tree(&path, false).ok()?;
    // SAFETY: the kernel has just created this descriptor, and it has no other owner.
    Some(unsafe { OwnedFd::from_raw_fd(copy.0) })
}

/// Returns the permitted capabilities of a file as a bit set (the attribute `security.capability`,
/// capabilities(7)). `None`: it has none.
pub(super) fn file_capabilities(path: &Path) -> Option<u64> {
    let path = CString::new(path.as_os_str().as_bytes()).ok()?;
    // `struct vfs_ns_cap_data`: five or six little-endian words of 32 bits. The second and the fourth word
    // are the permitted set.
    let mut words = [0_u32; 6];
    // SAFETY: both strings end with a NUL, and the kernel writes at most the size of `words`, which lives
    // through the call.
    let length = unsafe {
        libc::getxattr(
            path.as_ptr(),
            c"security.capability".as_ptr(),
            words.as_mut_ptr().cast(),
            core::mem::size_of_val(&words),
        )
    };
    let [_, low, _, high, ..] = words.map(u32::from_le);
    (length > 0).then_some(u64::from(high) << 32 | u64::from(low))
}

/// Returns whether the descriptor is open in this process.
#[must_use]
pub fn is_open(fd: Fd) -> bool {
    // SAFETY: the arguments are numbers, and the call changes nothing.
    unsafe { libc::fcntl(fd.0, libc::F_GETFD) >= 0 }
}

/// Opens a namespace file and returns the result of an ioctl(2) request without an argument (ioctl_ns(2)).
///
/// `request` is `_IO(0xb7, N)`, in the type that the libc uses for a request: it differs between musl and
/// glibc.
fn asked(path: &Path, request: libc::Ioctl) -> io::Result<libc::c_int> {
    ask(&open_namespace(path)?, request)
}

/// Opens a namespace file. The number of a request may mean another one to the driver of another file, which
/// would return no descriptor, or write to the memory of this process.
///
/// # Errors
/// `ENOTTY`: the file is not a namespace. Those of open(2).
fn open_namespace(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    // SAFETY: one call, which changes nothing.
    match unsafe { LinuxSys::new() }.fstatfs(Fd(file.as_raw_fd())) {
        Ok(FsType::NSFS) => Ok(file),
        Ok(_) => Err(io::Error::from_raw_os_error(libc::ENOTTY)),
        Err(errno) => Err(io::Error::from_raw_os_error(errno.0)),
    }
}

/// Returns the result of an ioctl(2) request without an argument on an open file.
fn ask(file: &impl AsRawFd, request: libc::Ioctl) -> io::Result<libc::c_int> {
    // SAFETY: these requests take no argument. They return a number, a new descriptor, or −1. A driver that
    // read the request as another one would get the address 0, not the content of a register.
    let answer = unsafe { libc::ioctl(file.as_raw_fd(), request, 0) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

/// Returns device and inode of the user namespace that owns the namespace at `path` (ioctl_ns(2),
/// NS_GET_USERNS, Linux 4.9).
///
/// # Errors
/// `EPERM`: the owner is outside our own user namespace. `ENOTTY`: the file is not a namespace.
pub fn owner_of(path: &Path) -> io::Result<(u64, u64)> {
    let owner = File::from(open_owner_of(path)?);
    owner.metadata().map(|data| (data.dev(), data.ino()))
}

/// Opens the user namespace that owns the namespace at `path`, close-on-exec (ioctl_ns(2), NS_GET_USERNS,
/// Linux 4.9).
///
/// # Errors
/// `EPERM`: the owner is outside our own user namespace. `ENOTTY`: the file is not a namespace.
pub fn open_owner_of(path: &Path) -> io::Result<OwnedFd> {
    const NS_GET_USERNS: libc::Ioctl = 0xb701;
    let owner = asked(path, NS_GET_USERNS)?;
    // SAFETY: the kernel has just created this descriptor for this process.
    Ok(unsafe { OwnedFd::from_raw_fd(owner) })
}

/// Opens the network namespace of a socket, which is descriptor `number` of the process of a pidfd
/// (pidfd_getfd(2), Linux 5.6; SIOCGSKNS, Linux 4.9).
///
/// # Errors
/// `EPERM`: this process may not trace the other one, or lacks CAP_NET_ADMIN in that namespace. `EBADF`: the
/// descriptor is not open there. `ENOTTY`: it is not a socket.
pub fn network_of_socket(pidfd: &OwnedFd, number: Fd) -> io::Result<OwnedFd> {
    const SIOCGSKNS: libc::Ioctl = 0x894c;
    // SAFETY: one call, which only creates a descriptor.
    let socket = unsafe { LinuxSys::new() }.pidfd_getfd(Fd(pidfd.as_raw_fd()), number);
    let socket = socket.map_err(|errno| io::Error::from_raw_os_error(errno.0))?;
    // SAFETY: the kernel has just created this descriptor for this process.
    let socket = unsafe { OwnedFd::from_raw_fd(socket.0) };
    // Another file may know the request by another meaning: see `open_namespace`.
    // SAFETY: one call, which changes nothing.
    if unsafe { LinuxSys::new() }.socket_type(Fd(socket.as_raw_fd())).is_err() {
        return Err(io::Error::from_raw_os_error(libc::ENOTTY));
    }
    let namespace = ask(&socket, SIOCGSKNS)?;
    // SAFETY: as above.
    Ok(unsafe { OwnedFd::from_raw_fd(namespace) })
}

/// Returns the kind of the namespace at `path`, as the flag that creates one (ioctl_ns(2), NS_GET_NSTYPE,
/// Linux 4.11).
///
/// # Errors
/// `ENOTTY`: the file is not a namespace.
pub fn kind_of(path: &Path) -> io::Result<CloneFlags> {
    const NS_GET_NSTYPE: libc::Ioctl = 0xb703;
    asked(path, NS_GET_NSTYPE).map(|flag| CloneFlags(u32::from_ne_bytes(flag.to_ne_bytes())))
}

/// Returns the user id of the creator of the user namespace at `path`, in our user namespace (ioctl_ns(2),
/// NS_GET_OWNER_UID, Linux 4.11).
///
/// # Errors
/// `EINVAL`: it is a namespace of another kind. `ENOTTY`: the file is not a namespace.
pub fn creator_of(path: &Path) -> io::Result<u32> {
    const NS_GET_OWNER_UID: libc::Ioctl = 0xb704;
    let file = open_namespace(path)?;
    let mut uid: libc::uid_t = 0;
    // SAFETY: the file is a namespace, for which the request writes one uid_t, and `uid` has room for it.
    match unsafe { libc::ioctl(file.as_raw_fd(), NS_GET_OWNER_UID, &raw mut uid) } {
        0 => Ok(uid),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Opens a namespace of a process.
pub(super) fn namespace_of(pid: impl fmt::Display, kind: NsKind) -> io::Result<OwnedFd> {
    File::open(format!("/proc/{pid}/ns/{}", kind.proc_name())).map(OwnedFd::from)
}

/// Returns whether this thread is in the namespace of an open file, and for a pid or time namespace, whether
/// its children will be. Joining it again is pointless: setns(2) to the own user namespace fails (`EINVAL`),
/// and to another own namespace it needs privileges.
#[must_use]
pub fn is_own_namespace(theirs: &OwnedFd, kind: NsKind) -> bool {
    // Each thread has its own namespaces: those of /proc/self are the first thread's.
    let ours = File::open(match kind {
        NsKind::Pid => "/proc/thread-self/ns/pid_for_children".into(),
        NsKind::Time => "/proc/thread-self/ns/time_for_children".into(),
        _ => format!("/proc/thread-self/ns/{}", kind.proc_name()),
    });
    match (ours.and_then(|ours| Ok(fstat(ours)?)), fstat(theirs)) {
        (Ok(ours), Ok(theirs)) => (ours.st_dev, ours.st_ino) == (theirs.st_dev, theirs.st_ino),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// Makes a directory like /proc/sys/kernel with these files, and reads both sysctls.
    fn sysctls(files: &[(&str, &str)]) -> (Yama, bool) {
        let folder = std::env::temp_dir().join(format!("nsexec-sysctls-{:?}", std::thread::current().id()));
        let folder = folder.with_extension(format!("{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).unwrap();
        for (name, text) in files {
            let path = folder.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            match text.strip_prefix('>') {
                Some(target) => symlink(target, path).unwrap(),
                None => fs::write(path, text).unwrap(),
            }
        }
        let read = (yama(&folder), relabels(&folder));
        fs::remove_dir_all(&folder).unwrap();
        read
    }

    #[test]
    fn yama_is_off_only_if_its_sysctl_is_0_or_does_not_exist() {
        let (release, scope) = ("osrelease", "yama/ptrace_scope");
        for (files, wanted) in [
            (&[(release, "6.18\n"), (scope, "0\n")][..], Yama::Off),
            (&[(release, "6.18\n")], Yama::Off),
            (&[(scope, "1\n"), (release, "6.18\n")], Yama::On),
            (&[(scope, "2\n")], Yama::On),
            (&[(scope, "3\n")], Yama::On),
            // Text that is not the kernel's.
            (&[(scope, "")], Yama::Unknown),
            (&[(scope, "4\n")], Yama::Unknown),
            // A mount covers the directory, or all sysctls.
            (&[(release, "6.18\n"), ("yama/other", "")], Yama::Unknown),
            (&[], Yama::Unknown),
            // The file cannot be opened.
            (&[(release, "6.18\n"), (scope, ">ptrace_scope")], Yama::Unknown),
        ] {
            assert_eq!(sysctls(files).0, wanted, "{files:?}");
        }
        assert_eq!(yama(Path::new("/nowhere")), Yama::Unknown);
    }

    #[test]
    fn apparmor_gives_no_other_label_only_if_its_sysctl_is_0_or_does_not_exist() {
        let (release, restrict) = ("osrelease", "apparmor_restrict_unprivileged_userns");
        for (files, wanted) in [
            (&[(release, "6.18\n")][..], false),
            (&[(restrict, "0\n")], false),
            (&[(restrict, "1\n"), (release, "6.18\n")], true),
            (&[(restrict, ""), (release, "6.18\n")], true),
            (&[], true),
        ] {
            assert_eq!(sysctls(files).1, wanted, "{files:?}");
        }
        assert!(relabels(Path::new("/nowhere")));
    }
}
