//! A run as AppArmor rules (apparmor.d(5)), for the profile of the program that launches.

use std::borrow::ToOwned;
use std::collections::BTreeSet;
use std::format;
use std::string::{String, ToString};
use std::vec::Vec;

use super::calls;
use crate::record::{Bytes, Call, Reply};
use crate::render::Document;
use crate::render::document::with_sections;
use crate::render::walk::{AnnotatedLine, Object, walk};
use crate::transcript::Run;
use nsexec::namespace::{NsKind, NsSet};
use nsexec::sys::types::{Mount, OpenFlags, Propagation};

/// The files that the program reads besides those of the launch: to decide on the launch, and for the cause
/// of a failure. Without these rules the program assumes the least, and names no cause.
const QUERIES: &[&str] = &[
    "@{PROC}/@{pid}/{attr/current,cgroup,mountinfo,stat,status} r",
    "@{PROC}/@{pid}/task/@{tid}/status r",
    "@{PROC}/sys/{fs,kernel,user}/** r",
    "/etc/os-release r",
    "/etc/{subgid,subuid} r",
    "/sys/kernel/security/lsm r",
];

/// Returns the rules as text, one per line, without the header of a profile. The profile needs
/// `include <tunables/global>` and the flag `attach_disconnected`.
#[must_use]
pub fn apparmor(run: &Run) -> String {
    let rules: BTreeSet<String> = with_sections(run, &Document::default(), |document| {
        walk(document).iter().flatten().flat_map(of_call).collect()
    });
    let mut out = String::from(
        "  # The planned launch, from the launcher's first call to the exec of the command. apparmor.d(5)\n  \
         # The profile needs `include <tunables/global>` before it, and flags=(attach_disconnected).\n  \
         # libc and the Rust runtime:\n  include <abstractions/base>\n  # What the program looks at:\n",
    );
    let listed = |rule: &str| format!("  {rule},\n");
    out.extend(QUERIES.iter().map(|rule| listed(rule)));
    out.push_str("  # The launch:\n");
    out.extend(rules.iter().map(|rule| listed(rule)));
    if calls(run).any(|line| matches!(line.call, Call::RunHook { .. })) {
        out.push_str("  # The caller's own functions before the exec need their own rules.\n");
    }
    out
}

fn of_call(seen: &AnnotatedLine<'_>) -> Vec<String> {
    let capability = |names: &[&str]| names.iter().map(|name| format!("capability {name}")).collect();
    match &seen.line.call {
        Call::CloneInit { namespaces, .. } => of_kinds(NsSet::from_flags(*namespaces)),
        Call::Unshare { flags } => of_kinds(NsSet::from_flags(*flags)),
        Call::Setns { kind, .. } => {
            let mut rules: Vec<String> = capability(&["sys_admin"]);
            if NsSet::from_flags(*kind).contains(NsKind::Mnt) {
                rules.push("capability sys_chroot".to_owned());
            }
            rules
        }
        Call::Setuid { .. } | Call::Setresuid { .. } => capability(&["setuid"]),
        Call::Setgid { .. } | Call::SetGroups { .. } | Call::DropGroups => capability(&["setgid"]),
        Call::DropBounding { .. } | Call::SetCapabilities { .. } | Call::RaiseAmbient { .. } => {
            capability(&["setpcap"])
        }
        Call::SetHostname { .. } => capability(&["sys_admin"]),
        Call::PivotRootHere => std::vec!["capability sys_admin".to_owned(), "pivot_root".to_owned()],
        Call::ChrootHere => capability(&["sys_chroot"]),
        Call::SetLoopbackUp { .. } => capability(&["net_admin"]),
        Call::InetSocket => std::vec!["network inet dgram".to_owned()],
        Call::Socketpair => std::vec!["unix (create, send, receive) type=stream".to_owned()],
        Call::Kill { .. } => std::vec!["signal (send) peer=@{profile_name}".to_owned()],
        Call::Write { data, .. } => match &seen.context.object {
            // CAP_SETFCAP: since Linux 5.12 (verify_root_map in kernel/user_namespace.c).
            Some(Object::ProcFile(name)) if name == "uid_map" && maps_root(&data.0) => {
                capability(&["sys_admin", "setfcap"])
            }
            Some(Object::ProcFile(name)) if name == "uid_map" || name == "gid_map" => {
                capability(&["sys_admin"])
            }
            _ => Vec::new(),
        },
        Call::Mount { mount } => of_mount(*mount),
        Call::Execve { path, .. } => exec(path, seen).into_iter().collect(),
        Call::Openat { path, flags, .. } | Call::Openat2 { path, flags, .. } => file(seen, path, *flags),
        // The new mount calls have no path that a rule could name, so these rules are not restricted.
        call => match call.name() {
            "mount" | "open_tree" | "move_mount" | "mount_setattr" => {
                std::vec!["capability sys_admin".to_owned(), "mount".to_owned()]
            }
            "umount2" => std::vec!["capability sys_admin".to_owned(), "umount".to_owned()],
            _ => Vec::new(),
        },
    }
}

fn of_kinds(kinds: NsSet) -> Vec<String> {
    let mut rules = Vec::new();
    if kinds.contains(NsKind::User) {
        rules.push("userns create".to_owned());
    }
    if !kinds.without(NsKind::User).is_empty() {
        rules.push("capability sys_admin".to_owned());
    }
    rules
}

fn of_mount(mount: Mount) -> Vec<String> {
    let rule = match mount {
        Mount::Propagation(Propagation::Private) => "mount options=(rw, rprivate) -> /",
        Mount::Propagation(Propagation::Slave) => "mount options=(rw, rslave) -> /",
        Mount::Propagation(Propagation::Shared) => "mount options=(rw, rshared) -> /",
        Mount::Proc => "mount fstype=proc options=(rw, nosuid, nodev, noexec) proc -> /proc/",
        Mount::Sysfs { read_only: true } => {
            "mount fstype=sysfs options=(ro, nosuid, nodev, noexec) sysfs -> /sys/"
        }
        Mount::Sysfs { read_only: false } => {
            "mount fstype=sysfs options=(rw, nosuid, nodev, noexec) sysfs -> /sys/"
        }
    };
    std::vec!["capability sys_admin".to_owned(), rule.to_owned()]
}

/// Returns the rule for a file that is executed. A mapping tool keeps its own profile, if it has one. A
/// failed attempt of the search in PATH needs no rule.
fn exec(path: &Bytes, seen: &AnnotatedLine<'_>) -> Option<String> {
    (!matches!(seen.line.reply, Reply::Errno(_))).then(|| format!("{} pux", quoted(&path.0)))
}

fn file(seen: &AnnotatedLine<'_>, path: &Bytes, flags: OpenFlags) -> Vec<String> {
    let mode = if flags == OpenFlags::ReadWrite { "rw" } else { "r" };
    match &seen.context.object {
        Some(Object::ProcRoot) => std::vec!["@{PROC}/ r".to_owned()],
        // The kernel checks the access to another process as a trace (ptrace(2)).
        Some(Object::ProcDir) => {
            std::vec!["@{PROC}/@{pid}/ r".to_owned(), "ptrace (read, readby) peer=@{profile_name}".to_owned()]
        }
        // The kernel's file of a namespace has no path. The flag attach_disconnected puts it at the root
        // directory.
        Some(Object::Namespace(name)) if name.starts_with("/proc/") => std::vec!["/ r".to_owned()],
        Some(Object::ProcFile(name)) => std::vec![format!("@{{PROC}}/@{{pid}}/{name} {mode}")],
        _ if path.0.starts_with(b"/") => std::vec![format!("{} {mode}", quoted(&path.0))],
        _ => Vec::new(),
    }
}

/// Returns whether a map of ids contains the outer id 0.
fn maps_root(map: &[u8]) -> bool {
    let outer = |line: &[u8]| line.split(|byte| *byte == b' ').nth(1) == Some(b"0");
    map.split(|byte| *byte == b'\n').any(outer)
}

/// Returns a path as a quoted string of AppArmor: its wildcards and quotes are escaped, and bytes that are
/// not printable are octal.
fn quoted(path: &[u8]) -> String {
    let one = |byte: &u8| match byte {
        b'"' | b'\\' | b'*' | b'?' | b'[' | b']' | b'{' | b'}' | b'^' | b'@' => {
            format!("\\{}", char::from(*byte))
        }
        0x20..=0x7e => char::from(*byte).to_string(),
        byte => format!("\\{byte:03o}"),
    };
    format!("\"{}\"", path.iter().map(one).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_and_quotes_of_a_path_are_escaped() {
        assert_eq!(quoted(b"/a \"b*{c}\n"), "\"/a \\\"b\\*\\{c\\}\\012\"");
    }
}
