//! The texts by which an error names a call that failed.

use nix::errno::Errno;
use nix::libc;

use crate::inject::Call;

/// The line that runc's C writes too, beside the record.
pub(crate) const UNREADABLE: &str = "you have no read access to runc binary file";

/// Returns the call as a text for people: its place among the calls of the process, its number, its object.
pub(crate) fn shown(call: &Call, at: usize) -> String {
    let by = if call.by_tool { " of a mapping tool" } else { "" };
    format!("call {at}{by} (number {}, {:?})", call.number, call.object)
}

/// Returns whether the line is a warning: `enter` runs the command without a part of the process that no flag
/// has named.
pub(crate) fn is_warning(line: &str) -> bool {
    line.contains("is not taken over") || line.contains("/root: ") || line.contains("/cwd: ")
}

/// Returns whether the call reads the accounts in the C library, which does not repeat an interrupted call,
/// and reports a failed call as an unknown account (getpwuid(3)).
pub(crate) fn is_lookup(call: &Call) -> bool {
    call.object == "/etc/passwd"
}

/// Returns whether an error names the call or its object, and the errno.
pub(crate) fn is_named(call: &Call, errno: Errno, error: &str) -> bool {
    // The tool itself has written the errno, or has hidden it.
    if call.by_tool {
        return ["newuidmap", "newgidmap"].iter().any(|tool| error.contains(tool));
    }
    if is_lookup(call) {
        return error.contains("/etc/subuid has no range");
    }
    // The search of PATH takes every errno of statx(2) for "not found", so the error names the tool.
    if call.number == libc::SYS_statx && error.contains("is not in PATH") {
        return call.object.contains("map");
    }
    let reason = std::io::Error::from(errno).to_string();
    let reason = reason.split(" (os error").next().expect("a text");
    let object = call.object.rsplit('/').next().filter(|name| !name.is_empty());
    let names = words(call.number).iter().copied().chain(object);
    error.contains(reason) && names.into_iter().any(|word| error.contains(word))
}

/// Returns texts, one of which is in the error.
#[allow(clippy::too_many_lines, reason = "a table")]
fn words(number: i64) -> &'static [&'static str] {
    const COPY: &str = "sealed copy";
    const CLONED: &str = "cloned binary";
    match number {
        libc::SYS_read | libc::SYS_recvmsg | libc::SYS_recvfrom => {
            &["failed to read", "failed to sync with", "failed to wait for", "working directory"]
        }
        libc::SYS_write | libc::SYS_sendto | libc::SYS_sendmsg => &[
            "failed to send",
            "failed to sync with",
            "failed to update",
            "failed to write",
            "could not inform the parent",
        ],
        libc::SYS_close => &["failed to close"],
        libc::SYS_openat | libc::SYS_openat2 => &[
            "failed to open /proc/",
            "failed to read /proc/",
            "failed to enter the new time namespace",
            "working directory",
            "failed to change to the directory",
            "mount point",
        ],
        libc::SYS_fstatfs => {
            &["failed to check", "failed to open /proc/", "failed to enter the new time namespace"]
        }
        libc::SYS_newfstatat | libc::SYS_statx | libc::SYS_faccessat2 | libc::SYS_faccessat => {
            &["working directory", "root directory", "getpwuid(3)"]
        }
        libc::SYS_readlinkat => &["failed to read"],
        libc::SYS_rt_sigprocmask => &["signal", "minimal init"],
        libc::SYS_rt_sigaction => &["minimal init", "failed to waitpid"],
        libc::SYS_prctl => &["dumpable", "parent-death signal", "minimal init"],
        libc::SYS_setuid => &["setuid"],
        libc::SYS_setgid => &["setgid"],
        libc::SYS_setresuid => &["become root"],
        libc::SYS_setgroups => &["setgroups"],
        libc::SYS_setsid => &["setsid"],
        libc::SYS_unshare => &["unshare"],
        libc::SYS_setns => &["setns", "failed to enter the new time namespace"],
        libc::SYS_clone | libc::SYS_clone3 => &["spawn", "minimal init", "--kill-child", "fork"],
        libc::SYS_socketpair => &["pipe"],
        libc::SYS_pipe2 => &["pipe", "minimal init", "--kill-child"],
        libc::SYS_pidfd_open => &["--kill-child"],
        libc::SYS_signalfd4 => &["signalfd"],
        libc::SYS_ppoll => &["failed to wait for", "failed to sync with"],
        #[cfg(target_arch = "x86_64")]
        libc::SYS_poll => &["failed to wait for", "failed to sync with"],
        libc::SYS_mount | libc::SYS_move_mount | libc::SYS_open_tree => &["mount"],
        libc::SYS_socket | libc::SYS_ioctl => &["loopback interface"],
        libc::SYS_fcntl => &["descriptors", "sealing the copy"],
        libc::SYS_close_range => &["descriptors"],
        libc::SYS_execve => &["failed to execute", "failed to execv"],
        libc::SYS_execveat => &["executing the copy"],
        libc::SYS_chdir | libc::SYS_fchdir => &["failed to change to the directory"],
        libc::SYS_memfd_create | libc::SYS_sendfile | libc::SYS_fchmod => &[COPY, CLONED],
        _ => &[],
    }
}
