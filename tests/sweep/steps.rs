//! The texts by which a fatal record names the step that failed: runc's own (docs/protocol.md#failures) or
//! ours.

use nsexec::sys::types::Errno;
use nsexec_audit::record::Call;
use nsexec_audit::sim::FaultKind;

/// How the text of every step of the program's copy to a sealed file begins.
const CLONED: &str = "could not ensure we are a cloned binary";

/// Returns texts, one of which must be in the record of a call that failed.
pub(crate) fn words(call: &Call, what: FaultKind) -> Vec<String> {
    let fixed = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    match call {
        Call::Openat2 { path, .. } if path.0 == b"self/fd" => fixed(&["descriptors"]),
        // /proc is opened before any file below it.
        Call::Openat { path, .. } if path.0 == b"/proc" => fixed(&["/proc/", "descriptors"]),
        Call::Openat { path, .. } | Call::Openat2 { path, .. } => {
            let path = String::from_utf8_lossy(&path.0).into_owned();
            let mut words = match path.as_str() {
                "self/fd" => vec!["descriptors".to_owned()],
                "/proc/self/ns/time_for_children" => {
                    vec!["failed to enter the new time namespace".to_owned()]
                }
                "/proc/self/ns/mnt" => vec!["failed to get current mount namespace".to_owned()],
                // All steps of the copy have the same text.
                path if path.starts_with("/tmp/") || path.starts_with("/proc/self/fd/") => {
                    vec![CLONED.to_owned()]
                }
                path => vec![path.to_owned()],
            };
            // If the kernel refuses our own write of a map, stage 0 tries the mapping tool.
            if what == FaultKind::Errno(Errno::EPERM) && path.ends_with("_map") {
                words.push("mapping tool".into());
                words.extend(["newuid", "newgid"].map(String::from));
            }
            words
        }
        Call::Write { data, .. } if data.0 == b"0" => fixed(&["failed to enter the cgroup"]),
        Call::Write { .. } if what == FaultKind::Errno(Errno::EPERM) => {
            fixed(&["failed to update", "failed to write", "mapping tool", "newuid", "newgid", CLONED])
        }
        Call::Write { .. } => fixed(&["failed to update", "failed to write", CLONED]),
        Call::SendFd { .. } => fixed(&["failed to send mount source"]),
        Call::ReceiveFd { .. } => fixed(&["failed to receive the mount source"]),
        Call::Dup3 { .. } => fixed(&["cannot dup3 a mount source"]),
        Call::Close { .. } => fixed(&["failed to close"]),
        Call::Read { .. } => fixed(&[
            "netlink",
            "failed to sync with",
            "read back",
            "go byte",
            "read synchronisation value",
            CLONED,
        ]),
        Call::Send { .. } => fixed(&["failed to sync with", "past initial setup"]),
        Call::GetSeals { .. }
        | Call::AddSeals { .. }
        | Call::MemfdCreate { .. }
        | Call::Sendfile { .. }
        | Call::Fchmod { .. }
        | Call::Unlink { .. }
        | Call::IsReadOnly { .. }
        | Call::LinkCount { .. }
        | Call::Execveat { .. } => fixed(&[CLONED]),
        Call::Fstatfs { .. } => fixed(&[
            "failed to check",
            "failed to open",
            "oom_score_adj",
            "mount namespace",
            "time namespace",
            "timens_offsets",
            "open descriptor",
        ]),
        Call::Poll { .. } => fixed(&[
            "failed to sync with",
            "netlink",
            "go byte",
            "past initial setup",
            "synchronisation value",
            "mount source",
        ]),
        Call::Readlink { .. } => fixed(&["/proc"]),
        Call::Socketpair => fixed(&["sync pipe"]),
        Call::CloneSibling { .. } => fixed(&["unable to spawn stage-"]),
        Call::Fork { .. } => fixed(&["failed to fork", "minimal init"]),
        Call::Pipe2 => fixed(&["minimal init"]),
        Call::Execve { .. } => fixed(&["failed to execv", "failed to execute", CLONED]),
        Call::Wait4 { .. } | Call::Sigaction { .. } => fixed(&["failed to waitpid", "minimal init"]),
        Call::CloseRangeCloexec { .. }
        | Call::CloseRange { .. }
        | Call::Getdents64 { .. }
        | Call::SetCloexec { .. } => fixed(&["descriptors", "pass on descriptor"]),
        Call::Setns { .. } => fixed(&["setns", "join", "failed to enter the new time namespace"]),
        Call::Unshare { .. } => fixed(&["failed to unshare"]),
        Call::SetDumpable { .. } => fixed(&["dumpable", "minimal init"]),
        Call::SetPdeathsig { .. } => fixed(&["parent-death signal"]),
        Call::Setresuid { .. } => fixed(&["failed to become root"]),
        Call::Setsid => fixed(&["setsid failed"]),
        Call::Setuid { .. } => fixed(&["setuid failed", "failed to set the user id"]),
        Call::Setgid { .. } => fixed(&["setgid failed", "failed to set the group id"]),
        Call::DropGroups => fixed(&["setgroups failed"]),
        Call::SetGroups { .. } => fixed(&["supplementary groups"]),
        Call::DupTo { .. } | Call::DupAbove { .. } => fixed(&["pass on descriptor"]),
        Call::Chdir { .. } => fixed(&["failed to change to the directory", "as the root directory"]),
        Call::Fchdir { .. } => {
            fixed(&["failed to change to the directory", "root directory", "failed to mount on"])
        }
        Call::OpenTree { .. } => fixed(&["failed to bind", "as the root directory", "failed to mount on"]),
        Call::SetMountAttributes { .. } => fixed(&["attributes of the mount", "as the root directory"]),
        Call::MoveMount { .. } | Call::MountHere { .. } => {
            fixed(&["failed to mount on", "as the root directory"])
        }
        Call::OpenInRoot { .. } | Call::Mkdirat { .. } | Call::Symlinkat { .. } => fixed(&[
            "mount point",
            "failed to mount on",
            "failed to create the",
            "failed to change to the directory",
        ]),
        Call::PivotRootHere | Call::ChrootHere => fixed(&["failed to enter the new root directory"]),
        Call::DetachHere => fixed(&["failed to detach the old root directory"]),
        Call::RunHook { .. } => fixed(&["pre_exec function"]),
        Call::SetHostname { .. } => fixed(&["failed to set the host name"]),
        Call::SetLimit { .. } => fixed(&["failed to set the limit"]),
        Call::KeepCapabilities { .. } => fixed(&["keep capabilities"]),
        Call::DropBounding { .. } => fixed(&["from the bounding set"]),
        Call::SetCapabilities { .. } => fixed(&["failed to set the capabilities"]),
        Call::RaiseAmbient { .. } => fixed(&["to the ambient set"]),
        Call::SetNoNewPrivs => fixed(&["no_new_privs"]),
        Call::SetSeccompFilter { .. } => fixed(&["seccomp filter"]),
        Call::LandlockRestrictSelf { .. } => fixed(&["Landlock rule set"]),
        Call::SetControllingTerminal { .. } => fixed(&["controlling terminal"]),
        Call::NewSessionKeyring => fixed(&["session keyring"]),
        Call::InetSocket | Call::SetLoopbackUp { .. } => fixed(&["loopback interface"]),
        Call::Mount { .. } => fixed(&["mount"]),
        Call::Sigprocmask { .. } => fixed(&["signal mask", "minimal init"]),
        _ => Vec::new(),
    }
}

/// Returns texts, one of which must be in the record to report the errno.
pub(crate) fn answers(call: &Call, errno: Errno) -> Vec<String> {
    let mut texts = vec![errno.to_string()];
    match (call, errno) {
        // The directory is said to exist, and the next call does not find it.
        (Call::Mkdirat { .. }, Errno::EEXIST | Errno::EROFS) => texts.push(Errno::ENOENT.to_string()),
        // A directory is said to be a file. It cannot be mounted on the file that is created for it.
        (Call::OpenInRoot { .. }, Errno::ENOTDIR) => texts.push(Errno::EINVAL.to_string()),
        // The peer's death, which the core reports as an early end of the file or as the errno.
        (Call::Read { .. }, Errno::ECONNRESET) => texts.push("(got ".into()),
        (Call::ReceiveFd { .. }, Errno::ECONNRESET) => texts.push("(got ".into()),
        (Call::Openat2 { .. }, Errno::EXDEV) => texts.push("is a mount point".into()),
        // For a descriptor number that is reserved for a mount source.
        (Call::Fstatfs { .. }, Errno::EBADF) => texts.push("not an open descriptor".into()),
        (Call::Send { .. } | Call::SendFd { .. }, Errno::ECONNRESET) => texts.push(Errno::EPIPE.to_string()),
        // The link /proc/self does not exist: /proc is not a procfs of our pid namespace.
        (Call::Readlink { .. }, Errno::ENOENT | Errno::ENOTDIR | Errno::EINVAL) => {
            texts.push("there is no /proc/self".into());
        }
        // Stage 0 then tries the mapping tool, whose failure is reported instead.
        (Call::Openat { .. } | Call::Openat2 { .. } | Call::Write { .. }, Errno::EPERM) => {
            texts.extend(["mapping tool", "map"].map(String::from))
        }
        _ => {}
    }
    texts
}
