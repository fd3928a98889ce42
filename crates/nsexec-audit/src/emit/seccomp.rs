//! A run as a seccomp profile of the OCI runtime specification (config-linux.md, "Seccomp").
//!
//! The calls that select namespaces are allowed with the planned flags only. So another kind of namespace is
//! refused at unshare(2), setns(2) or clone(2) with `EPERM`.

use std::collections::BTreeSet;
use std::string::{String, ToString};
use std::vec::Vec;

use serde::Serialize;

use super::{calls, flags};
use crate::record::Call;
use crate::transcript::Run;
use nsexec::sys::types::{CloneFlags, Errno};

/// The architecture of this program.
const ARCHITECTURE: &str = if cfg!(target_arch = "aarch64") {
    "SCMP_ARCH_AARCH64"
} else if cfg!(target_arch = "s390x") {
    "SCMP_ARCH_S390X"
} else {
    "SCMP_ARCH_X86_64"
};

/// The index of the flags among the arguments of clone: on s390x the stack comes first (clone(2)).
const FLAGS_OF_CLONE: u32 = if cfg!(target_arch = "s390x") { 1 } else { 0 };

/// The calls that the program needs besides those of the launch: the dynamic loader, libc, the Rust runtime,
/// and the wait for the command. A command such as true(1) needs no others.
pub const RUNTIME: &[&str] = &[
    "access",
    "arch_prctl",
    "brk",
    "close",
    "exit",
    "exit_group",
    "faccessat",
    "faccessat2",
    "fcntl",
    "fstat",
    "futex",
    "getcwd",
    "getegid",
    "geteuid",
    "getgid",
    "getgroups",
    "getrandom",
    "getuid",
    "ioctl",
    "lseek",
    "madvise",
    "mmap",
    "mprotect",
    "mremap",
    "munmap",
    "newfstatat",
    "openat",
    "pidfd_send_signal",
    "poll",
    "ppoll",
    "pread64",
    "prlimit64",
    "read",
    "readlink",
    "readlinkat",
    "restart_syscall",
    "rseq",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "sched_getaffinity",
    "sched_yield",
    "set_robust_list",
    "set_tid_address",
    "setfsgid",
    "setfsuid",
    "sigaltstack",
    "signalfd4",
    "statx",
    "uname",
    "wait4",
    "waitid",
    "write",
    "writev",
];

/// The calls with which a stage reports a failure and the launcher cleans up. Without them a refused call
/// would end the launch without its reason.
pub const FAILURE: &[&str] = &["getpid", "gettid", "kill", "pwritev2", "wait4", "write"];

/// All flags of namespaces in the first argument of clone(2). `CLONE_NEWTIME` is missing: clone(2) reads its
/// bit as a part of the exit signal.
const CLONE_NAMESPACES: u64 = 0x7e02_0000;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: &'static str,
    default_errno_ret: i32,
    architectures: [&'static str; 1],
    syscalls: Vec<Group>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    /// For readers. The specification has no such field, and runtimes ignore it, as with Docker's profile.
    comment: &'static str,
    names: Vec<String>,
    action: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    errno_ret: Option<i32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    args: Vec<Argument>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Argument {
    index: u32,
    value: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_two: Option<u64>,
    op: &'static str,
}

const LAUNCH: &str = "the calls of the launch, from the launcher's first call to the exec of the command";

/// Returns the profile as JSON.
///
/// # Errors
/// None is known: the content consists of numbers, strings and lists.
pub fn seccomp(run: &Run) -> serde_json::Result<String> {
    let names: BTreeSet<String> = calls(run).filter_map(|line| name(&line.call)).collect();
    let mut syscalls = std::vec![allowed(LAUNCH, names.into_iter().collect(), Vec::new())];
    syscalls.extend(with_flags(run));
    let failure = FAILURE.iter().map(ToString::to_string).collect();
    syscalls.push(allowed("the report of a failure, and the cleanup after it", failure, Vec::new()));
    let runtime = RUNTIME.iter().map(ToString::to_string).collect();
    syscalls.push(allowed("libc, the Rust runtime, and the wait for the command", runtime, Vec::new()));
    syscalls.push(Group {
        comment: "libc uses clone instead",
        names: std::vec!["clone3".to_string()],
        action: "SCMP_ACT_ERRNO",
        // libc then uses clone(2), of which a filter sees the flags.
        errno_ret: Some(Errno::ENOSYS.0),
        args: Vec::new(),
    });
    let profile = Profile {
        default_action: "SCMP_ACT_ERRNO",
        default_errno_ret: Errno::EPERM.0,
        architectures: [ARCHITECTURE],
        syscalls,
    };
    serde_json::to_string_pretty(&profile)
}

fn allowed(comment: &'static str, names: Vec<String>, args: Vec<Argument>) -> Group {
    Group { comment, names, action: "SCMP_ACT_ALLOW", errno_ret: None, args }
}

/// Returns the name of a system call that is allowed with every argument. A function of the caller is not
/// a system call.
fn name(call: &Call) -> Option<String> {
    let name = call.name();
    let restricted = ["clone", "unshare", "setns", "pre_exec"].contains(&name);
    let name = if name == "poll" && !cfg!(target_arch = "x86_64") { "ppoll" } else { name };
    (!restricted).then(|| name.to_string())
}

/// Returns the groups of clone, unshare and setns: one for each set of namespaces.
fn with_flags(run: &Run) -> Vec<Group> {
    let mut seen: BTreeSet<(&str, u64)> = BTreeSet::new();
    for line in calls(run) {
        let name = line.call.name();
        let CloneFlags(bits) = flags(&line.call).unwrap_or(CloneFlags::EMPTY);
        if ["clone", "unshare", "setns"].contains(&name) {
            let bits = u64::from(bits);
            seen.insert((name, if name == "clone" { bits & CLONE_NAMESPACES } else { bits }));
        }
    }
    let group = |(name, value): (&str, u64)| {
        let equal = |index| Argument { index, value, value_two: None, op: "SCMP_CMP_EQ" };
        let argument = match name {
            "clone" => Argument {
                index: FLAGS_OF_CLONE,
                value: CLONE_NAMESPACES,
                value_two: Some(value),
                op: "SCMP_CMP_MASKED_EQ",
            },
            "setns" => equal(1),
            _ => equal(0),
        };
        allowed("with these namespaces only", std::vec![name.to_string()], std::vec![argument])
    };
    seen.into_iter().map(group).collect()
}
