//! The table: from a failed step, its errno and the circumstances to the text of a cause.
//!
//! The first row that fits is used, so a row that a fact proves comes before a row that is merely common.

use super::cause::Cause;
use super::facts::Account;
use super::texts::*;
use super::{Circumstances, MACHINE_FILES, PROCESS_FILES};
use crate::deciders::namespace::NsKind;
use crate::sys::types::Errno;
use crate::words::error::Code;

/// One row.
pub(super) struct Row {
    /// Empty: any step.
    pub(super) codes: &'static [Code],
    /// Empty: any errno, or no errno.
    pub(super) errnos: &'static [Errno],
    /// The condition. `None`: the cause is likely whatever the circumstances are, and if they are unknown.
    pub(super) when: Option<fn(&Circumstances) -> bool>,
    pub(super) text: Text,
}

/// Declares the rows: steps, errnos, an optional condition, and the text.
macro_rules! rows {
    ($([$($code:ident)*]: [$($errno:ident)*] $(if $when:expr)? => $text:expr;)*) => {
        &[$(Row {
            codes: &[$(Code::$code),*],
            errnos: &[$(Errno::$errno),*],
            when: rows!(@condition $($when)?),
            text: $text,
        }),*]
    };
    (@condition) => { None };
    (@condition $when:expr) => { Some($when) };
}

/// The condition of a row that is likely because no earlier row fits the circumstances.
const OTHERWISE: fn(&Circumstances) -> bool = |_| true;

/// Returns all rows, in their order.
pub(super) fn all() -> impl Iterator<Item = &'static Row> {
    [CREATING, MAPPING, JOINING, SURROUNDING, ANY].into_iter().flatten()
}

impl Row {
    /// Returns whether the row fits.
    pub(super) fn fits(&self, code: Code, errno: Option<Errno>, known: Option<&Circumstances>) -> bool {
        (self.codes.is_empty() || self.codes.contains(&code))
            && (self.errnos.is_empty() || errno.is_some_and(|errno| self.errnos.contains(&errno)))
            && self.when.is_none_or(|when| known.is_some_and(when))
    }
}

const CREATING: &[Row] = rows! {
    // Without user namespaces the kernel returns EINVAL. Debian's kernels return EPERM to an ordinary user,
    // because they check kernel.unprivileged_userns_clone first.
    [UnshareUser]: [EPERM EACCES EINVAL ENOSYS]
        if |known| known.missing().contains(NsKind::User) => MISSING_KIND;
    [UnshareUser UnshareRemaining UnshareCgroup EnterTimeNamespace]: [EPERM EACCES ENOSYS]
        if |known| known.facts.filter_is_proven() => SECCOMP_PROVEN;
    [UnshareUser]: [EPERM]
        if |known| known.lacks_admin() && known.facts.userns_clone == Some(0) => USERNS_SYSCTL;
    [UnshareUser]: [EPERM EACCES] if |known| known.unmapped_side().is_some() => UNMAPPED;
    [UnshareUser]: [EPERM] if |known| known.facts.vantage.chroot == Some(true) => CHROOT_SEEN;
    [UnshareRemaining UnshareCgroup]: [EPERM] if Circumstances::is_unprivileged => ADD_USER;
    [UnshareUser]: [EACCES] if Circumstances::has_apparmor_profile => APPARMOR_PROFILE;
    [UnshareUser]: [EPERM EACCES ENOSYS] if Circumstances::seccomp => SECCOMP;
    [UnshareUser UnshareRemaining UnshareCgroup EnterTimeNamespace]: [EPERM EACCES]
        if Circumstances::apparmor => APPARMOR;
    [UnshareRemaining UnshareCgroup EnterTimeNamespace]: [EPERM EACCES ENOSYS]
        if Circumstances::seccomp => SECCOMP;
    [UnshareUser UnshareRemaining UnshareCgroup EnterTimeNamespace]: [EACCES]
        if Circumstances::selinux => SELINUX;
    [UnshareUser]: [EPERM] if Circumstances::is_labelled => SECURITY_MODULE;
    [UnshareUser]: [EPERM] if |known| known.facts.vantage.chroot == Some(false) => USER_REFUSED;
    [UnshareUser]: [EPERM] if |known| known.facts.users.map.is_some() => CHROOT_LEFT;
    [UnshareUser]: [EPERM] if OTHERWISE => CHROOT_OR_UNMAPPED;
    [UnshareUser]: [EPERM] => USER_UNKNOWN;
    [UnshareRemaining UnshareCgroup]: [EPERM] if Circumstances::cannot_map_itself => LACKS_ADMIN_AND_SETFCAP;
    [UnshareRemaining UnshareCgroup]: [EPERM]
        if |known| !known.in_new_user() && (known.facts.capabilities.is_none() || known.lacks_admin())
        => LACKS_ADMIN;
    [UnshareUser UnshareRemaining UnshareCgroup EnterTimeNamespace]: [EACCES] => SECURITY_MODULE;
    [UnshareRemaining UnshareCgroup]: [EPERM] if OTHERWISE => SECURITY_MODULE;
    [UnshareRemaining]: [EPERM] => NEEDS_ADMIN;
    [UnshareUser]: [ENOSPC EUSERS] if |known| known.facts.limit(NsKind::User) == Some(0) => LIMIT_ZERO;
    [UnshareUser]: [ENOSPC EUSERS]
        if |known| known.facts.limit(NsKind::User).is_some()
            && known.facts.vantage.first_user_namespace == Some(true)
        => LIMIT_REACHED;
    [UnshareUser]: [ENOSPC EUSERS] if |known| known.has_reachable_limit(true) => NESTED_OR_REACHED;
    [UnshareUser]: [ENOSPC EUSERS] if |known| known.facts.limit(NsKind::User).is_some() => NESTED;
    [UnshareUser]: [ENOSPC EUSERS] => USER_LIMIT;
    [UnshareRemaining UnshareCgroup]: [ENOSPC EUSERS] if Circumstances::other_limit_is_zero => LIMIT_ZERO;
    [UnshareRemaining UnshareCgroup]: [ENOSPC EUSERS]
        if |known| known.other_limits_are_known() && known.facts.vantage.first_user_namespace == Some(true)
        => LIMIT_REACHED;
    [UnshareRemaining UnshareCgroup]: [ENOSPC EUSERS]
        if |known| known.other_limits_are_known() && known.has_reachable_limit(false)
        => OWN_OR_OUTER_LIMIT;
    [UnshareRemaining UnshareCgroup]: [ENOSPC EUSERS] if Circumstances::other_limits_are_known => OUTER_LIMIT;
    [UnshareRemaining UnshareCgroup]: [ENOSPC EUSERS] => SOME_LIMIT;
    [UnshareUser UnshareRemaining UnshareCgroup]: [EINVAL ENOSYS]
        if |known| !known.missing().is_empty() => MISSING_KIND;
    [UnshareUser]: [EINVAL ENOSYS] => NO_USER_KIND;
    [UnshareRemaining UnshareCgroup]: [EINVAL ENOSYS] => NO_KIND;
};

const MAPPING: &[Row] = rows! {
    [UidMap GidMap SetgroupsFile OpenProc MappingToolMissing OomScoreAdj TimeOffsets Join OpenNamespace MountOn MountProc]:
        [EROFS] => READ_ONLY_PROC;
    [UidMap GidMap SetgroupsFile OpenProc]: [EACCES] if |known| known.facts.proc.read_only => READ_ONLY_PROC;
    [ForeignProc]: [] => NO_PROC;
    [UidMap GidMap SetgroupsFile OpenProc]: [ENOENT EACCES ESRCH] if Circumstances::proc_is_foreign => NO_PROC;
    [SetgroupsFile MappingToolMissing UidMap GidMap OpenProc]: [EPERM EACCES]
        if Circumstances::apparmor => APPARMOR;
    [UidMap GidMap SetgroupsFile OpenProc]: [EACCES] if Circumstances::selinux => SELINUX;
    [UidMap GidMap SetgroupsFile OpenProc]: [EPERM] if Circumstances::is_labelled => SECURITY_MODULE;
    [UidMap GidMap]: [EINVAL] => MAP_FORM;
    // Stage 1 is alive here: its death is reported as such.
    [UidMap GidMap SetgroupsFile OpenProc]: [EACCES ENOENT] => HIDDEN_PROC;
    // The kernel refused our own write. root has no mapping tool.
    [MappingToolMissing]: [EPERM]
        if |known| !known.asked.rootless && known.lacking() == ["CAP_SETFCAP"] => LACKS_SETFCAP;
    [MappingToolMissing]: [EPERM] if |known| !known.asked.rootless && !known.lacking().is_empty()
        => LACKS_MAPPING_CAPS;
    [MappingToolMissing]: [EPERM] if |known| !known.asked.rootless => OUTSIDE_UNMAPPED;
    [MappingToolMissing]: [EPERM] if |known| known.unmapped_side().is_some() => UNMAPPED;
    [MappingToolMissing]: [EPERM] if OTHERWISE => OWN_ID_REFUSED;
    [MappingToolMissing]: [EPERM] => text(
        Cause::Privilege,
        "only root may map ids other than its own; before an ordinary user maps its own group, setgroups must be denied",
        "",
    );
    // The program searches PATH for the tools; another caller of the library names any path.
    [MappingToolExec]: [ENOENT EACCES] if OTHERWISE => text(
        Cause::FailedTool,
        "it was found in PATH, and cannot be executed there: its interpreter is missing, or it lies on a noexec mount",
        "",
    );
    [MappingToolStatus]: [] if |known| known.facts.vantage.no_new_privs => TOOL_NO_NEW_PRIVS;
    [MappingToolStatus]: [] if |known| known.powerless_side(Cause::NosuidMount).is_some() => TOOL_NOSUID;
    [MappingToolStatus]: [] if |known| known.powerless_side(Cause::PowerlessTool).is_some() => TOOL_POWERLESS;
    [MappingToolStatus]: [] if |known| known.asked.rootless && known.facts.account == Account::Missing => NO_ACCOUNT;
    [MappingToolStatus]: [] if |known| known.asked.rootless && known.facts.has_other_group() => GROUP_OF_ACCOUNT;
    [MappingToolStatus]: [] if |known| known.asked.uncovered.is_some() => UNCOVERED;
    [MappingToolStatus]: [] => TOOL_FAILED;
    [MappingToolSignal]: [] => text(
        Cause::Resources,
        "killed by another process, by a limit on time or memory, or by a seccomp filter",
        "",
    );
    [MappingToolWroteOther]: [] if OTHERWISE => text(
        Cause::FailedTool,
        "the first newuidmap and newgidmap in PATH must be those of shadow-utils (package uidmap)",
        "",
    );
    [BecomeRoot Setuid Setgid Setgroups]: [EPERM EACCES] if Circumstances::apparmor => APPARMOR;
    [BecomeRoot Setuid Setgid Setgroups]: [EPERM EACCES ENOSYS] if Circumstances::seccomp => FILTER_OF_IDS;
    [BecomeRoot Setuid Setgid]: [EINVAL] => text(
        Cause::Request,
        "id 0 is not mapped there",
        "{keep_ids}, or map it",
    );
    [BecomeRoot Setuid Setgid Setgroups]: [EPERM] => text(
        Cause::Privilege,
        "no privilege over that user namespace, or setgroups is denied there",
        "",
    );
};

const JOINING: &[Row] = rows! {
    [Join]: [EPERM EACCES] if Circumstances::apparmor => APPARMOR;
    [Join]: [EPERM] if Circumstances::is_unprivileged => text(
        Cause::Privilege,
        "you have no privilege over the user namespace that owns it",
        "join that one too, or be root",
    );
    [Join]: [EPERM EACCES ENOSYS] if Circumstances::seccomp => SECCOMP;
    [Join]: [EACCES] if Circumstances::selinux => SELINUX;
    [Join]: [EPERM] => text(
        Cause::Privilege,
        "this needs CAP_SYS_ADMIN in the user namespace that owns it",
        "",
    );
    [Join]: [EINVAL] => text(
        Cause::Target,
        "it is of another kind, it is our own user namespace, or it is a pid namespace that is not below ours",
        "",
    );
    [OpenNamespace]: [ENOENT ESRCH EACCES EPERM] if Circumstances::proc_is_foreign => NO_PROC;
    [OpenNamespace]: [ENOENT ESRCH] => text(
        Cause::Target,
        "the file does not exist: its process may have ended",
        "",
    );
    [OpenNamespace]: [EACCES] if Circumstances::selinux => SELINUX;
    [OpenNamespace]: [EACCES EPERM] if |known| known.asked.rootless => text(
        Cause::Privilege,
        "it is another user's process, or it has privileges that we lack, and opening the namespaces of a process needs \
         the permission to trace it (ptrace(2))",
        "be root, or name a process of your own",
    );
    [OpenNamespace]: [EACCES EPERM] => text(
        Cause::Privilege,
        "opening the namespaces of a process needs the permission to trace it (ptrace(2)): CAP_SYS_PTRACE in its user \
         namespace",
        "",
    );
};

const NO_MORE_PROCESSES: Text =
    text(Cause::Resources, "a limit on processes is reached", "ulimit -u, or pids.max of the cgroup");
const PROCESS_LIMIT: Text = text(Cause::Resources, PROCESS_FILES, "");
const MACHINE_LIMIT: Text = text(Cause::Resources, MACHINE_FILES, "");

const SURROUNDING: &[Row] = rows! {
    [OomScoreAdj]: [EACCES] => text(Cause::Privilege, "lowering it needs CAP_SYS_RESOURCE", "");
    [MountPoint WorkingDirectory MakeDirectory MakeLink]: [ENOSYS] if Circumstances::seccomp => FILTER_OF_OPENAT2;
    [MountPoint WorkingDirectory MakeDirectory MakeLink]: [ENOSYS] => NO_OPENAT2;
    [BindSource]: [ENOSYS] if Circumstances::seccomp => FILTER_OF_OPEN_TREE;
    [BindSource]: [ENOSYS] => NO_OPEN_TREE;
    [MountOn]: [ENOSYS] if Circumstances::seccomp => FILTER_OF_MOUNT;
    [NewRoot]: [ENOSYS] if Circumstances::seccomp => FILTER_OF_NEW_ROOT;
    [NewRoot]: [ENOSYS] => NO_NEW_ROOT;
    [MountAttributes]: [ENOSYS] if Circumstances::seccomp => FILTER_OF_MOUNT_SETATTR;
    [MountAttributes]: [ENOSYS] => NO_MOUNT_SETATTR;
    [MountPropagation MountProc MountOn]: [EPERM EACCES] if Circumstances::apparmor => APPARMOR;
    [MountProc]: [EPERM] if |known| known.in_new_user() && !known.enters(NsKind::Pid) => ADD_PID;
    [MountProc]: [EPERM EACCES] if Circumstances::proc_is_masked => MASKED_PROC;
    [MountOn]: [EPERM EACCES]
        if |known| known.asked.mounts_proc && known.proc_is_masked() => MASKED_PROC;
    [MountProc]: [EPERM EACCES] if |known| known.compares_proc() && known.facts.proc.read_only => READ_ONLY_PROC;
    [MountOn]: [EPERM EACCES]
        if |known| known.asked.mounts_proc && known.compares_proc() && known.facts.proc.read_only
        => READ_ONLY_PROC;
    [MountOn MountProc]: [EPERM EACCES]
        if |known| known.asked.mounts_proc && known.proc_is_foreign() => NO_PROC;
    [MountProc MountPropagation MountOn]: [EPERM] if Circumstances::is_unprivileged => ADD_USER_TO_MOUNT;
    [MountProc MountPropagation MountOn]: [EPERM EACCES ENOSYS] if Circumstances::seccomp => SECCOMP;
    [MountOn]: [ENOSYS] => NO_MOUNT;
    [MountOn MountProc]: [ENODEV] => NO_FILE_SYSTEM;
    [MountProc MountPropagation MountOn]: [EACCES] if Circumstances::selinux => SELINUX;
    [MountProc MountPropagation MountOn]: [EPERM] if Circumstances::is_labelled => SECURITY_MODULE;
    [MountProc MountPropagation MountOn]: [EACCES] => SECURITY_MODULE;
    [MountProc]: [EPERM] if |known| known.in_new_user() && known.facts.proc.is_own.is_none() => MASKED_PROC;
    [MountProc MountPropagation MountOn]: [EPERM]
        if Circumstances::cannot_map_itself => LACKS_ADMIN_AND_SETFCAP;
    [MountProc MountPropagation MountOn]: [EPERM]
        if |known| known.lacks_admin() && !known.in_new_user() => LACKS_ADMIN_THERE;
    [MountProc]: [EPERM] => MASKED_PERHAPS;
    [MountPropagation]: [EINVAL] => CHROOT_MOUNT;
    [TimeOffsets]: [ERANGE] => text(
        Cause::Request,
        "the shifted clock would be negative, or beyond the kernel's range",
        "",
    );
    // In a joined user namespace the stage stays non-dumpable, so that processes there cannot trace it. Its
    // files in /proc then belong to root.
    [TimeOffsets]: [EACCES] if |known| known.asked.rootless && known.asked.joined.contains(NsKind::User) => text(
        Cause::Privilege,
        "together with a joined user namespace only root can set offsets",
        "leave them out, or be root",
    );
    [TimeOffsets]: [EPERM EACCES] if Circumstances::in_new_user => text(
        Cause::Privilege,
        "time offsets need CAP_SYS_TIME in the user namespace that owns the time namespace",
        "",
    );
    [TimeOffsets]: [EPERM EACCES] => text(
        Cause::Privilege,
        "time offsets need CAP_SYS_TIME in the user namespace that owns the time namespace",
        "add {user_namespace}",
    );
    [SpawnStage1 SpawnStage2 MappingToolFork Start StartInit]: [EAGAIN] => NO_MORE_PROCESSES;
    [SpawnStage1 SpawnStage2 MappingToolFork Start StartInit]: [EPERM EACCES ENOSYS]
        if Circumstances::seccomp => SECCOMP;
    [SpawnStage1 SpawnStage2 MappingToolFork Start StartInit]: [EPERM EACCES ENOSYS] => NO_PROCESS;
    [Start MakeSyncPipe OpenNamespace OpenProc UidMap GidMap StartInit]: [EMFILE] => PROCESS_LIMIT;
    [Start MakeSyncPipe OpenNamespace OpenProc UidMap GidMap StartInit]: [ENFILE] => MACHINE_LIMIT;
    [SpawnStage2]: [ENOMEM] if |known| known.asked.joined.contains(NsKind::Pid) => text(
        Cause::Target,
        "the first process of that pid namespace has ended, and so has the namespace",
        "",
    );
    [PassDescriptor]: [EBADF] => text(Cause::Target, "it is not open", "");
    [Terminal]: [ENOTTY] => text(Cause::Target, "standard input of the command is not a terminal", "");
    [Terminal]: [EPERM] => text(
        Cause::Target,
        "the terminal controls another session",
        "give the command the second end of a new pseudo-terminal",
    );
    [Keyring]: [EDQUOT] => text(
        Cause::Resources,
        "the user has reached the limit of keys",
        "sysctl kernel.keys.maxkeys",
    );
    [Keyring]: [ENOSYS EPERM] => text(
        Cause::Kernel,
        "the kernel has no keyrings, or a seccomp filter refuses keyctl",
        "",
    );
    [EnterCgroup]: [EACCES EPERM] => text(
        Cause::Privilege,
        "this needs the permission to write cgroup.procs of both cgroups and of their nearest common ancestor",
        "have the subtree delegated to you, as systemd-run --user --scope -p Delegate=yes does",
    );
    [EnterCgroup]: [EBUSY] => text(
        Cause::Target,
        "a cgroup that passes controllers on (cgroup.subtree_control) takes no processes itself",
        "",
    );
    [EnterCgroup]: [EOPNOTSUPP] => text(
        Cause::Target,
        "the cgroup is of type threaded or invalid (cgroup.type), and takes no whole process",
        "",
    );
    [EnterCgroup]: [ENOSPC] => text(
        Cause::Target,
        "the cpuset of the cgroup has no CPU or no memory node yet",
        "write cpuset.cpus and cpuset.mems",
    );
    [EnterCgroup]: [ENODEV] => text(Cause::Target, "the cgroup has been removed", "");
    [Exec]: [ENOENT] if |known| known.asked.command_path => text(
        Cause::Command,
        "no such file, or the interpreter that it names is missing; a script without a #! line needs /bin/sh",
        "",
    );
    [Exec]: [ENOENT] if |known| known.asked.path_of_caller => text(
        Cause::Command,
        "no such command in PATH, or the interpreter that it names is missing; the PATH is the caller's, and \
         {path_of_process}",
        "",
    );
    [Exec]: [ENOENT] if OTHERWISE => text(
        Cause::Command,
        "no such command in PATH, or the interpreter that it names is missing",
        "",
    );
    [Exec]: [EACCES] => text(Cause::Command,
        "it is not executable, or is a directory, or lies on a noexec mount, or a directory of its path cannot be searched", "");
    [Exec]: [ENOEXEC] => text(
        Cause::Command,
        "the kernel does not know the format of the file, and could not run /bin/sh, which executes scripts without a #! line",
        "",
    );
};

/// The rows for every step.
const ANY: &[Row] = rows! {
    []: [ENOSYS] if Circumstances::seccomp => SECCOMP;
    []: [ENOSYS] => NO_CALL;
};
