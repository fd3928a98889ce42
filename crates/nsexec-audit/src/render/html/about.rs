//! The class of a call, the manual pages that describe it, and the rules that are about it.

use std::format;
use std::string::{String, ToString};
use std::vec::Vec;

use super::super::walk::{AnnotatedLine, Attempt, Object};
use super::super::words::Payload;
use crate::emit::flags;
use crate::record::Call;
use crate::transcript::Role;
use nsexec::namespace::{NsKind, NsSet};
use nsexec::sys::types::CloneFlags;

/// The classes of calls, in the order of the filter.
pub(super) const CLASSES: [&str; 8] =
    ["namespaces", "identity", "processes", "messages", "mounts", "restrictions", "signals", "files"];

/// Returns the class of a call, one of [`CLASSES`].
pub(super) fn class(seen: &AnnotatedLine<'_>) -> &'static str {
    match (&seen.line.call, &seen.context.object) {
        (Call::Unshare { .. } | Call::Setns { .. } | Call::CloneInit { .. }, _)
        | (_, Some(Object::Namespace(_))) => "namespaces",
        (
            Call::Setuid { .. }
            | Call::Setgid { .. }
            | Call::Setresuid { .. }
            | Call::SetGroups { .. }
            | Call::DropGroups
            | Call::Setsid
            | Call::SetHostname { .. },
            _,
        )
        | (_, Some(Object::ProcRoot | Object::ProcDir | Object::ProcFile(_))) => "identity",
        (
            Call::SetDumpable { .. }
            | Call::SetNoNewPrivs
            | Call::SetSeccompFilter { .. }
            | Call::LandlockRestrictSelf { .. }
            | Call::SetCapabilities { .. }
            | Call::DropBounding { .. }
            | Call::RaiseAmbient { .. }
            | Call::KeepCapabilities { .. }
            | Call::SetLimit { .. },
            _,
        ) => "restrictions",
        (
            Call::Sigprocmask { .. }
            | Call::Sigaction { .. }
            | Call::Sigtimedwait { .. }
            | Call::SetPdeathsig { .. },
            _,
        ) => "signals",
        (_, Some(Object::End { .. } | Object::Log)) => "messages",
        _ => by_name(seen.line.call.name()),
    }
}

/// Returns the class of a call that depends on its name alone.
fn by_name(name: &str) -> &'static str {
    match name {
        "clone" | "execve" | "execveat" | "wait4" | "kill" | "pidfd_open" | "getpid" | "gettid" | "prctl"
        | "sched_getaffinity" | "pre_exec" => "processes",
        "socketpair" | "pipe2" | "poll" | "sendto" | "sendmsg" | "recvmsg" | "getsockopt" | "pwritev2" => {
            "messages"
        }
        "mount" | "umount2" | "open_tree" | "move_mount" | "mount_setattr" | "pivot_root" | "chroot" => {
            "mounts"
        }
        _ => "files",
    }
}

/// Returns the manual pages of a call.
pub(super) fn manual(seen: &AnnotatedLine<'_>) -> String {
    let page = match seen.line.call.name() {
        "rt_sigprocmask" => "sigprocmask",
        "rt_sigaction" => "sigaction",
        "rt_sigtimedwait" => "sigwaitinfo",
        "newfstatat" => "stat",
        "prlimit64" => "prlimit",
        "pre_exec" => return "a function of the caller, not a system call".to_string(),
        name => name,
    };
    let mut pages: Vec<String> = std::vec![format!("{page}(2)")];
    let flags = flags(&seen.line.call).unwrap_or(CloneFlags::EMPTY);
    pages.extend(NsSet::from_flags(flags).iter().map(|kind| of_kind(kind).to_string()));
    let other = match &seen.context.object {
        Some(Object::ProcFile(file)) => match file.as_str() {
            "uid_map" | "gid_map" | "setgroups" => "user_namespaces(7)",
            "timens_offsets" => "time_namespaces(7)",
            "oom_score_adj" => "proc_pid_oom_score_adj(5)",
            _ => "proc(5)",
        },
        Some(Object::Namespace(_)) => "namespaces(7)",
        Some(Object::Process) => "pidfd_open(2)",
        _ => match &seen.line.call {
            Call::DropBounding { .. } | Call::SetCapabilities { .. } | Call::RaiseAmbient { .. } => {
                "capabilities(7)"
            }
            Call::Setuid { .. } | Call::Setgid { .. } | Call::Setresuid { .. } => "credentials(7)",
            Call::SetLoopbackUp { .. } => "netdevice(7)",
            Call::LandlockRestrictSelf { .. } => "landlock(7)",
            _ => "",
        },
    };
    if !other.is_empty() && !pages.iter().any(|page| page == other) {
        pages.push(other.to_string());
    }
    pages.join(", ")
}

const fn of_kind(kind: NsKind) -> &'static str {
    match kind {
        NsKind::User => "user_namespaces(7)",
        NsKind::Mnt => "mount_namespaces(7)",
        NsKind::Pid => "pid_namespaces(7)",
        NsKind::Net => "network_namespaces(7)",
        NsKind::Ipc => "ipc_namespaces(7)",
        NsKind::Uts => "uts_namespaces(7)",
        NsKind::Cgroup => "cgroup_namespaces(7)",
        NsKind::Time => "time_namespaces(7)",
    }
}

/// Returns the names of the rules that are about a call.
pub(super) fn rules(seen: &AnnotatedLine<'_>) -> &'static [&'static str] {
    match (&seen.line.call, &seen.context.object, &seen.context.payload) {
        (Call::CloneInit { .. }, ..) => &["user-namespace-first", "as-asked", "shared-memory", "one-init"],
        (Call::Unshare { .. }, ..) => &["user-namespace-first", "as-asked", "cgroup-namespace"],
        (Call::Setns { .. }, ..) => {
            &["opened-before-joining", "not-dumpable-while-joining", "as-asked", "runs-from-a-copy"]
        }
        (Call::Openat { .. }, Some(Object::Namespace(_)), _) => {
            &["opened-before-joining", "no-proc-after-mount-namespace"]
        }
        (Call::Fstatfs { .. }, Some(Object::Namespace(_)), _) => &["joins-namespaces-only"],
        (Call::Write { .. }, Some(Object::ProcFile(file)), _) if file.ends_with("_map") => {
            &["maps-once", "setgroups-before-gid-map", "maps-acknowledged-when-written"]
        }
        (Call::Write { .. }, Some(Object::ProcFile(file)), _) if file == "setgroups" => {
            &["setgroups-before-gid-map"]
        }
        (Call::Fstatfs { .. }, Some(Object::ProcFile(_)), _) => &["procfs-checked"],
        (
            Call::Openat { .. } | Call::Openat2 { .. } | Call::Readlink { .. },
            Some(Object::ProcRoot | Object::ProcDir | Object::ProcFile(_)),
            _,
        ) => &["procfs-checked", "procfs-own"],
        (Call::SetDumpable { .. }, ..)
            if seen.context.role == Some(Role::Launcher) && seen.context.attempt == Attempt::Direct =>
        {
            &["shared-memory"]
        }
        (Call::SetDumpable { .. }, ..) => &["not-dumpable-while-joining", "dumpable-window"],
        (Call::Close { .. }, Some(Object::End { .. }), _) => {
            &["foreign-ends-closed-first", "closes-own-descriptors-once"]
        }
        (Call::Close { .. }, ..) => &["closes-own-descriptors-once"],
        (Call::SendFd { .. } | Call::ReceiveFd { .. }, ..) => &["mount-sources"],
        (_, _, Some(Payload::PidLine)) => &["pid-line-once"],
        (_, _, Some(Payload::Ready)) => &["ready-byte"],
        (_, _, Some(Payload::Go)) => &["stage-2-waits"],
        _ => of_call(&seen.line.call, seen.context.role),
    }
}

fn of_call(call: &Call, role: Option<Role>) -> &'static [&'static str] {
    match call {
        Call::Setuid { .. }
        | Call::Setgid { .. }
        | Call::Setresuid { .. }
        | Call::SetGroups { .. }
        | Call::DropGroups
        | Call::Setsid => &["identity-as-asked"],
        Call::CloseRange { .. } | Call::CloseRangeCloexec { .. } | Call::SetCloexec { .. } => {
            &["named-descriptors-only"]
        }
        Call::Execve { .. } if matches!(role, Some(Role::Tool(_))) => &["mapping-tool"],
        Call::Execve { .. } => &["no-descriptor-left", "stage-2-waits"],
        Call::SetPdeathsig { .. } => &["ends-with-launcher"],
        Call::Kill { .. } => &["kills-own-processes-only"],
        Call::WriteNowait { .. } => &["records-whole"],
        Call::SetNoNewPrivs => &["no-new-privs-first"],
        Call::SetSeccompFilter { .. } => &["filter-last"],
        Call::SetCapabilities { .. } | Call::DropBounding { .. } => &["ids-before-capabilities"],
        Call::MemfdCreate { .. } | Call::AddSeals { .. } | Call::GetSeals { .. } | Call::Execveat { .. } => {
            &["runs-from-a-copy"]
        }
        Call::Sigtimedwait { .. } => &["minimal-init"],
        call if by_name(call.name()) == "mounts" => &["no-mount-after-root"],
        _ => &[],
    }
}
