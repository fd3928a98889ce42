//! Finds the cause and the remedy of a failed try from the facts and the failed step. A cause that a fact
//! proves comes first. A cause that remains by elimination comes last.

use std::format;
use std::string::{String, ToString};
use std::vec::Vec;

use super::facts::Facts;
use super::report::{Cause, Question};
use crate::deciders::namespace::NsKind;
use crate::launch::subordinate::Side;
use crate::sys::types::{Capability, Errno};
use crate::words::error::Code;

/// A cause with its words and the facts that prove it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Found {
    pub(super) cause: Cause,
    pub(super) why: String,
    pub(super) remedy: String,
    pub(super) evidence: Vec<String>,
}

impl Found {
    pub(super) fn new(cause: Cause, why: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { cause, why: why.into(), remedy: remedy.into(), evidence: Vec::new() }
    }

    /// Adds a second cause that holds at the same time.
    pub(super) fn and(mut self, other: Self) -> Self {
        self.why = format!("{}; and {}", self.why, other.why);
        self.remedy = format!("{}; and {}", self.remedy, other.remedy);
        self.evidence.extend(other.evidence);
        self
    }

    pub(super) fn with(mut self, fact: impl Into<String>) -> Self {
        self.evidence.push(fact.into());
        self
    }
}

impl Facts {
    /// Returns why the mapping tool of this side has no privileges. `None` if the tool has them or does not
    /// exist, or if the caller needs no tool.
    pub(super) fn powerless(&self, side: Side) -> Option<Cause> {
        if self.vantage.uid == 0 || self.has_capability(side.capability()) {
            return None;
        }
        match self.side(side).tool.as_ref()? {
            _ if self.vantage.no_new_privs => Some(Cause::NoNewPrivs),
            tool if tool.nosuid => Some(Cause::NosuidMount),
            tool if !tool.set_user_id && !tool.file_capabilities => Some(Cause::PowerlessTool),
            _ => None,
        }
    }
}

/// Returns the cause that lies in the mapping tool of one side.
pub(super) fn cause_of_tool(facts: &Facts, side: Side) -> Option<Found> {
    let (_, name, _) = side.names();
    let Some(tool) = &facts.side(side).tool else {
        return (facts.vantage.uid != 0).then(|| {
            let remedy = "install the package uidmap or shadow-utils";
            Found::new(Cause::NoTool, format!("{name} is not in PATH"), remedy)
                .with(format!("no directory of PATH has an executable {name}"))
        });
    };
    let path = &tool.path;
    Some(match facts.powerless(side)? {
        Cause::NoNewPrivs => Found::new(
            Cause::NoNewPrivs,
            format!("no_new_privs is set, so {path} has no privileges"),
            "start this program without no_new_privs (systemd: NoNewPrivileges=no; docker: no --security-opt \
             no-new-privileges)",
        )
        .with("/proc/self/status: NoNewPrivs: 1"),
        Cause::NosuidMount => Found::new(
            Cause::NosuidMount,
            format!("{path} is on a nosuid mount, so it has no privileges"),
            "mount its file system without nosuid",
        )
        .with(format!("statvfs(3) of {path}: ST_NOSUID")),
        _ => Found::new(
            Cause::PowerlessTool,
            format!("{path} has neither the set-user-id bit of root nor file capabilities"),
            format!("as root: chmod u+s {path}, or reinstall its package"),
        )
        .with(format!("{path}: no set-user-id bit of root, no attribute security.capability")),
    })
}

/// Returns the cause of a failed step. `invalid_flags`: see [`Tries`](super::tries::Tries).
pub(super) fn of_failure(
    facts: &Facts,
    invalid_flags: Option<Errno>,
    question: Question,
    step: Option<(Code, Option<Errno>)>,
    killed_by_filter: bool,
    text: &str,
) -> Found {
    if killed_by_filter {
        return seccomp("SIGSYS ended a process of the try".to_string());
    }
    let other = || Found::new(Cause::Other, format!("the try failed: {text}"), "see the failed call");
    let Some((code, errno)) = step else { return other() };
    let errno = errno.unwrap_or(Errno(0));
    let found = match code {
        Code::UnshareUser => creating_user(facts, invalid_flags, errno),
        Code::UnshareRemaining | Code::UnshareCgroup | Code::EnterTimeNamespace => {
            creating_other(facts, invalid_flags, question, errno)
        }
        Code::UidMap | Code::GidMap | Code::SetgroupsFile | Code::OpenProc | Code::MappingToolMissing => {
            mapping(facts, errno)
        }
        _ => surroundings(facts, question, code, errno),
    };
    found.unwrap_or_else(other)
}

/// Returns the cause why no user namespace can be created.
fn creating_user(facts: &Facts, invalid_flags: Option<Errno>, errno: Errno) -> Option<Found> {
    match errno {
        Errno::ENOSPC | Errno::EUSERS => Some(limit(facts, NsKind::User)),
        Errno::EINVAL => Some(kernel(NsKind::User)),
        Errno::ENOSYS if facts.vantage.seccomp => {
            Some(filter_proven(invalid_flags).unwrap_or_else(|| by_filter(errno)))
        }
        Errno::ENOSYS => Some(kernel(NsKind::User)),
        Errno::EPERM | Errno::EACCES => Some(user_refused(facts, invalid_flags, errno)),
        _ => filter_proven(invalid_flags),
    }
}

/// Returns the cause of `EPERM` or `EACCES` for a new user namespace.
fn user_refused(facts: &Facts, invalid_flags: Option<Errno>, errno: Errno) -> Found {
    if let Some(found) = filter_proven(invalid_flags) {
        return found;
    }
    if facts.userns_clone == Some(0) && !facts.has_capability(Capability::SYS_ADMIN) {
        return Found::new(
            Cause::UsernsSysctl,
            "kernel.unprivileged_userns_clone is 0: only root may create user namespaces",
            "as root: sysctl kernel.unprivileged_userns_clone=1",
        )
        .with("/proc/sys/kernel/unprivileged_userns_clone = 0");
    }
    for (side, map) in [(&facts.users, "uid_map"), (&facts.groups, "gid_map")] {
        if side.is_unmapped() {
            return Found::new(
                Cause::UnmappedCaller,
                format!("the caller's own id {} is not mapped in its user namespace", side.own),
                "map the caller's ids in the outer user namespace",
            )
            .with(format!("/proc/self/{map} has no line with {}", side.own));
        }
    }
    if facts.vantage.chroot == Some(true) && errno == Errno::EPERM {
        return chroot("the root directory is not that of the mount namespace (/proc/self/mountinfo)");
    }
    if facts.vantage.seccomp {
        return by_filter(errno);
    }
    if let Some(found) = security_module(facts, errno) {
        return found;
    }
    if facts.vantage.chroot == Some(false) {
        return Found::new(
            Cause::Other,
            "the kernel refuses a user namespace, and no fact that was read gives the reason",
            "search the audit log for a denial by a security module",
        );
    }
    // The kernel has no other reason for EPERM (unshare(2), CLONE_NEWUSER).
    chroot("unshare(2) names no other cause of EPERM that the facts allow")
}

/// Returns the cause why a namespace of another kind cannot be created.
fn creating_other(
    facts: &Facts,
    invalid_flags: Option<Errno>,
    question: Question,
    errno: Errno,
) -> Option<Found> {
    let kind = match question {
        Question::Create(kind) | Question::Join(kind) => kind,
        Question::MountProc if facts.limit(NsKind::Mnt) != Some(0) => NsKind::Pid,
        _ => NsKind::Mnt,
    };
    match errno {
        Errno::ENOSPC | Errno::EUSERS => Some(limit(facts, kind)),
        Errno::EINVAL if !facts.kinds.contains(kind) => Some(kernel(kind)),
        Errno::ENOSYS if !facts.vantage.seccomp => Some(kernel(kind)),
        Errno::EPERM | Errno::EACCES | Errno::ENOSYS => filter_proven(invalid_flags)
            .or_else(|| apparmor(facts))
            .or_else(|| facts.vantage.seccomp.then(|| by_filter(errno)))
            .or_else(|| security_module(facts, errno))
            .or_else(|| privilege(facts)),
        _ => None,
    }
}

/// Returns the cause why the own id cannot be mapped.
fn mapping(facts: &Facts, errno: Errno) -> Option<Found> {
    match errno {
        Errno::EROFS => Some(read_only_proc(facts)),
        Errno::EACCES if facts.proc.read_only => Some(read_only_proc(facts)),
        Errno::ENOENT | Errno::EACCES if !facts.proc.is_own => Some(no_proc()),
        Errno::EPERM | Errno::EACCES => apparmor(facts).or_else(|| security_module(facts, errno)),
        _ => None,
    }
}

/// Returns the cause of a failure after the namespaces: a join, a mount, a change of ids.
fn surroundings(facts: &Facts, question: Question, code: Code, errno: Errno) -> Option<Found> {
    let refused = [Errno::EPERM, Errno::EACCES].contains(&errno);
    let mounts = matches!(question, Question::Mount | Question::MountProc);
    if code == Code::MountPropagation && errno == Errno::EINVAL {
        return Some(chroot("the root directory is not a mount point"));
    }
    if errno == Errno::EROFS && code != Code::MountPoint {
        return Some(read_only_proc(facts));
    }
    if code == Code::ForeignProc || (code == Code::OpenNamespace && !facts.proc.is_own) {
        return Some(no_proc());
    }
    if !refused {
        return None;
    }
    if let Some(found) = apparmor(facts) {
        return Some(found);
    }
    if question == Question::MountProc && (!facts.proc.covered.is_empty() || facts.proc.read_only) {
        let Some(first) = facts.proc.covered.first() else { return Some(read_only_proc(facts)) };
        let found = Found::new(
            Cause::MaskedProc,
            "parts of /proc are covered, as in a container, so the kernel refuses a new one in a user namespace",
            "run the outer container with an unmasked /proc (podman: --security-opt unmask=ALL; docker: --security-opt \
             systempaths=unconfined), or do without a new /proc",
        );
        return Some(found.with(format!("/proc/self/mountinfo: a mount at {first}")));
    }
    if question == Question::MountProc && !facts.proc.is_own {
        return Some(no_proc());
    }
    let filter = || (mounts && facts.vantage.seccomp).then(|| by_filter(errno));
    filter().or_else(|| security_module(facts, errno)).or_else(|| privilege(facts))
}

/// Returns the cause of `ENOSPC` or `EUSERS`: a limit, or the nesting of user namespaces.
fn limit(facts: &Facts, kind: NsKind) -> Found {
    let name = format!("user.max_{}_namespaces", kind.name());
    let file = format!("/proc/sys/user/max_{}_namespaces", kind.name());
    let raise = format!("as root: sysctl {name}=16384");
    match facts.limit(kind) {
        Some(0) => Found::new(Cause::Limit, format!("{name} is 0"), raise).with(format!("{file} = 0")),
        Some(value) if kind == NsKind::User && facts.vantage.first_user_namespace != Some(true) => {
            Found::new(
                Cause::Nesting,
                "32 user namespaces are nested here, or a limit of an outer one is reached",
                format!("use fewer nested user namespaces, or raise {name} in the outer ones"),
            )
            .with(format!("{file} = {value}, which is above 0"))
        }
        Some(value) => Found::new(Cause::Limit, format!("the limit {name} = {value} is reached"), raise)
            .with(format!("{file} = {value}")),
        None => Found::new(Cause::Limit, format!("the limit {name} is reached"), raise),
    }
}

pub(super) fn kernel(kind: NsKind) -> Found {
    Found::new(
        Cause::Kernel,
        format!("this kernel has no {kind} namespaces"),
        "use a kernel that is built with them",
    )
    .with(format!("/proc/self/ns/{} does not exist, or the kernel refuses the flag", kind.proc_name()))
}

/// Returns the seccomp filter as the cause, if a call with invalid flags has proved it.
fn filter_proven(invalid_flags: Option<Errno>) -> Option<Found> {
    let proves = invalid_flags.is_some_and(|errno| errno != Errno::EINVAL);
    proves.then(|| seccomp("unshare(2) with invalid flags does not fail with EINVAL".into()))
}

fn by_filter(errno: Errno) -> Found {
    let name = errno.name().unwrap_or("an error");
    seccomp(format!("the call failed with {name} under a filter (/proc/self/status: Seccomp: 2)"))
}

fn seccomp(fact: String) -> Found {
    Found::new(
        Cause::Seccomp,
        "a seccomp filter refuses the call, as in a container",
        "run the container or service with a filter that allows clone, unshare, setns and mount (docker: \
         --security-opt seccomp=PROFILE; systemd: RestrictNamespaces=no)",
    )
    .with(fact)
}

fn chroot(fact: &str) -> Found {
    Found::new(
        Cause::Chroot,
        "this process is in a chroot, where the kernel refuses a new user namespace",
        "enter the directory with pivot_root(2) in a new mount namespace in place of chroot(2)",
    )
    .with(fact)
}

fn apparmor(facts: &Facts) -> Option<Found> {
    // The restriction is one of callers without CAP_SYS_ADMIN in the first user namespace.
    let privileged =
        facts.has_capability(Capability::SYS_ADMIN) && facts.vantage.first_user_namespace == Some(true);
    facts.apparmor_restricts.filter(|value| *value != 0 && !privileged).map(|value| {
        Found::new(
            Cause::AppArmor,
            "AppArmor restricts user namespaces of this program",
            "add an AppArmor profile for this program with the rule `userns,`; or, as root: sysctl \
             kernel.apparmor_restrict_unprivileged_userns=0",
        )
        .with(format!("/proc/sys/kernel/apparmor_restrict_unprivileged_userns = {value}"))
    })
}

/// Returns the security module as the cause, if the facts allow it.
fn security_module(facts: &Facts, errno: Errno) -> Option<Found> {
    let profile = facts.vantage.profile.as_deref();
    let label = profile.unwrap_or("none");
    if let Some(found) = apparmor(facts) {
        return Some(found);
    }
    if facts.selinux_enforcing == Some(true) && errno == Errno::EACCES {
        let remedy = "search the audit log (ausearch -m avc) for the denial, and allow it in the policy";
        let found = Found::new(Cause::SeLinux, "SELinux is enforcing, and denies it to this program", remedy);
        let label = format!("/proc/self/attr/current = {label}");
        return Some(found.with("/sys/fs/selinux/enforce = 1").with(label));
    }
    (errno == Errno::EACCES || profile.is_some()).then(|| {
        Found::new(
            Cause::SecurityModule,
            format!("a security module denies it to this program (label: {label})"),
            "read the audit log of the machine, and change the program's profile",
        )
        .with(format!("/proc/self/attr/current = {label}"))
    })
}

fn privilege(facts: &Facts) -> Option<Found> {
    (!facts.has_capability(Capability::SYS_ADMIN)).then(|| {
        Found::new(
            Cause::Privilege,
            "the caller lacks CAP_SYS_ADMIN",
            "run as root, or together with a new user namespace",
        )
        .with("/proc/self/status: CapEff lacks bit 21")
    })
}

fn read_only_proc(facts: &Facts) -> Found {
    Found::new(
        Cause::ReadOnlyProc,
        "/proc is mounted read-only, so the map of ids cannot be written, and no new /proc can be mounted",
        "mount /proc writable, in the outer container",
    )
    .with(match facts.proc.read_only {
        true => "statvfs(3) of /proc: ST_RDONLY",
        false => "the write to a file of /proc failed with EROFS",
    })
}

fn no_proc() -> Found {
    Found::new(
        Cause::NoProc,
        "/proc is missing, or shows another pid namespace",
        "mount the /proc of this pid namespace: mount -t proc proc /proc",
    )
    .with("/proc/self does not lead to this process")
}
