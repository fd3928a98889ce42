//! The texts of the causes, as data: each cause in words, its remedy, and the facts that prove it. `fill`
//! replaces the placeholders in braces.

use super::Circumstances;
use super::cause::Cause;
use crate::launch::ranges::Side;

/// A cause in words.
#[derive(Clone, Copy, Debug)]
pub(super) struct Text {
    pub(super) cause: Cause,
    pub(super) why: &'static str,
    /// Empty: the cause states the remedy already, or no remedy is known.
    pub(super) remedy: &'static str,
    /// The facts. A fact whose placeholder has no value is left out.
    pub(super) evidence: &'static [&'static str],
    /// Finds the side of the maps that the text is about.
    pub(super) side: Option<fn(&Circumstances) -> Option<Side>>,
}

/// Returns a text without evidence.
pub(super) const fn text(cause: Cause, why: &'static str, remedy: &'static str) -> Text {
    Text { cause, why, remedy, evidence: &[], side: None }
}

impl Text {
    pub(super) const fn proven_by(self, evidence: &'static [&'static str]) -> Self {
        Self { evidence, ..self }
    }

    pub(super) const fn about(self, side: fn(&Circumstances) -> Option<Side>) -> Self {
        Self { side: Some(side), ..self }
    }
}

// -- creating namespaces ------------------------------------------------------------------------------------

pub(super) const USERNS_SYSCTL: Text = text(
    Cause::UsernsSysctl,
    "kernel.unprivileged_userns_clone is 0, so only root may create user namespaces",
    "as root: sysctl kernel.unprivileged_userns_clone=1; a line in a file of /etc/sysctl.d keeps it",
)
.proven_by(&["/proc/sys/kernel/unprivileged_userns_clone = 0"]);

pub(super) const APPARMOR: Text = text(
    Cause::AppArmor,
    "kernel.apparmor_restrict_unprivileged_userns is on, so AppArmor takes all privileges from a new user namespace",
    "add an AppArmor profile for this program with the rule `userns,`; or, as root: sysctl \
     kernel.apparmor_restrict_unprivileged_userns=0",
)
.proven_by(&["/proc/sys/kernel/apparmor_restrict_unprivileged_userns = {apparmor}", "/proc/self/attr/current = {label}"]);

pub(super) const APPARMOR_PROFILE: Text = text(
    Cause::AppArmor,
    "the AppArmor profile {profile} of this program has no rule for user namespaces",
    "add the rule `userns,` to the profile, and load it with apparmor_parser -r; {audit_log}",
)
.proven_by(&["/proc/self/attr/current = {label}"]);

pub(super) const SELINUX: Text = text(
    Cause::SeLinux,
    "SELinux is enforcing, and denies it to this program",
    "{audit_log}; allow it in the policy",
)
.proven_by(&["/sys/fs/selinux/enforce = 1", "/proc/self/attr/current = {label}"]);

pub(super) const SECURITY_MODULE: Text = text(
    Cause::SecurityModule,
    "a security module (AppArmor, SELinux) forbids it to this program",
    "{audit_log}",
)
.proven_by(&["/proc/self/attr/current = {label}"]);

pub(super) const SECCOMP_PROVEN: Text = text(
    Cause::Seccomp,
    "a seccomp filter is in force, as in a container, and refuses the call",
    SECCOMP_REMEDY,
)
.proven_by(&["unshare(2) also fails for flags that create no namespace, and not with EINVAL"]);

pub(super) const SECCOMP: Text = text(
    Cause::Seccomp,
    "a seccomp filter is in force, as in a container, and refuses the call",
    SECCOMP_REMEDY,
)
.proven_by(&["the call failed with {errno} under a filter (/proc/self/status: Seccomp: 2)"]);

pub(super) const SECCOMP_KILLED: Text = text(
    Cause::Seccomp,
    "a seccomp filter is in force, as in a container, and ends a process for the call",
    SECCOMP_REMEDY,
)
.proven_by(&["SIGSYS ended a process of the try"]);

const SECCOMP_REMEDY: &str = "run the container or service with a filter that allows clone, wait4, unshare, setns and mount (docker: \
     --security-opt seccomp=PROFILE; systemd: RestrictNamespaces=no)";

pub(super) const FILTER_OF_IDS: Text = text(
    Cause::Seccomp,
    "a seccomp filter is in force and may refuse setresuid, setresgid or setgroups; or the caller has no privilege over \
     that user namespace, or setgroups is denied there",
    "allow setresuid, setresgid and setgroups in the filter",
)
.proven_by(&["the call failed with {errno} under a filter (/proc/self/status: Seccomp: 2)"]);

pub(super) const NO_PROCESS: Text = text(
    Cause::Seccomp,
    "a seccomp filter or a security module refuses a new process (clone), or the wait for it (wait4)",
    "allow clone, clone3, fork and wait4 in the filter",
);

/// Declares the two texts for a missing call: on an older kernel, and under a seccomp filter.
macro_rules! newer_call {
    ($kernel:ident $filter:ident $call:literal $since:literal) => {
        pub(super) const $kernel: Text = text(
            Cause::Kernel,
            concat!(
                "this needs ",
                $call,
                " (Linux ",
                $since,
                "), which this kernel lacks or a seccomp filter refuses"
            ),
            concat!("use a newer kernel, or allow ", $call, " in the filter"),
        );
        pub(super) const $filter: Text = text(
            Cause::Seccomp,
            concat!(
                "this needs ",
                $call,
                " (Linux ",
                $since,
                "); a seccomp filter is in force, and may refuse the call"
            ),
            concat!("allow ", $call, " in the filter, or use a newer kernel"),
        )
        .proven_by(&["the call failed with {errno} under a filter (/proc/self/status: Seccomp: 2)"]);
    };
}

newer_call! { NO_OPENAT2 FILTER_OF_OPENAT2 "openat2(2)" "5.6" }
newer_call! { NO_OPEN_TREE FILTER_OF_OPEN_TREE "open_tree(2) and move_mount(2)" "5.2" }
newer_call! { NO_MOUNT FILTER_OF_MOUNT "mount(2), or open_tree(2) and move_mount(2)" "5.2" }
newer_call! { NO_NEW_ROOT FILTER_OF_NEW_ROOT "open_tree(2), move_mount(2) and mount_setattr(2)" "5.12" }
newer_call! { NO_MOUNT_SETATTR FILTER_OF_MOUNT_SETATTR "mount_setattr(2)" "5.12" }

pub(super) const NO_FILE_SYSTEM: Text = text(
    Cause::Kernel,
    "this kernel does not have the file system, or could not load its module (/proc/filesystems lists the file systems that are built in or loaded)",
    "load its module as root, if it has one (modprobe), or use a kernel that is built with the file system",
);
pub(super) const NO_CALL: Text = text(
    Cause::Kernel,
    "this kernel lacks the system call, or a seccomp filter refuses it",
    "use a newer kernel, or allow the call in the filter",
);

pub(super) const UNMAPPED: Text = text(
    Cause::UnmappedCaller,
    "the caller's own {noun} id {own} is not mapped in its user namespace",
    "map the caller's ids in the outer user namespace",
)
.proven_by(&["{map} has no line with {own}"])
.about(Circumstances::unmapped_side);

pub(super) const CHROOT: Text = text(
    Cause::Chroot,
    "this process is in a chroot, where the kernel refuses a new user namespace",
    "enter the directory with pivot_root(2) in a new mount namespace in place of chroot(2)",
);
pub(super) const CHROOT_SEEN: Text =
    CHROOT.proven_by(&["the root directory is not that of the mount namespace (/proc/self/mountinfo)"]);
pub(super) const CHROOT_LEFT: Text =
    CHROOT.proven_by(&["unshare(2) names no other cause of EPERM that the facts allow"]);
pub(super) const CHROOT_OR_UNMAPPED: Text = text(
    Cause::Chroot,
    "this process is in a chroot, or its user or group id is not mapped: it may not create a user namespace",
    "",
);
pub(super) const USER_UNKNOWN: Text = text(
    Cause::Other,
    "user namespaces are not allowed here",
    "kernel.unprivileged_userns_clone=0, a seccomp filter, or a chroot",
);
pub(super) const USER_REFUSED: Text = text(
    Cause::SecurityModule,
    "the kernel refuses a user namespace, and no fact that was read gives the reason, so a security module is likely",
    "{audit_log}",
);

pub(super) const ADD_USER: Text = text(
    Cause::Privilege,
    "you are not root",
    "add {user_namespace}, which makes you root of a new user namespace",
)
.proven_by(&["/proc/self/status: CapEff lacks bit 21"]);
pub(super) const LACKS_ADMIN: Text = text(
    Cause::Privilege,
    "this root lacks CAP_SYS_ADMIN, as in most containers",
    "add {user_namespace} for a user namespace of its own",
)
.proven_by(&["/proc/self/status: CapEff lacks bit 21"]);
pub(super) const LACKS_ADMIN_AND_SETFCAP: Text = text(
    Cause::Privilege,
    "this root lacks CAP_SYS_ADMIN, and it lacks CAP_SETFCAP, without which it may not map the user id 0 into a user \
     namespace of its own (since Linux 5.12)",
    "start this program with one of the two capabilities; with CAP_SETUID and CAP_SETGID, a user namespace that maps \
     other user ids than 0 works too",
)
.proven_by(&["/proc/self/status: CapEff lacks the bits 21 and 31"]);
pub(super) const NEEDS_ADMIN: Text = text(
    Cause::Privilege,
    "this needs CAP_SYS_ADMIN",
    "be root, or create a user namespace as well; on Ubuntu AppArmor may take the capabilities in it away \
     (kernel.apparmor_restrict_unprivileged_userns)",
);

pub(super) const LIMIT_ZERO: Text =
    text(Cause::Limit, "{zero} is 0", "as root: sysctl {raise}").proven_by(&["{limit_files}"]);
pub(super) const LIMIT_REACHED: Text =
    text(Cause::Limit, "the limit {limits} is reached", "as root: sysctl {raise}")
        .proven_by(&["{limit_files}"]);
pub(super) const OWN_OR_OUTER_LIMIT: Text = text(
    Cause::Limit,
    "the limit {limits} is reached, or the limit of the same name in an outer user namespace",
    "as root: sysctl {raise}; if that does not help, raise it as root of the outer user namespace",
)
.proven_by(&["{limit_files}"]);
pub(super) const OUTER_LIMIT: Text = text(
    Cause::Limit,
    "{limit_names} is reached in an outer user namespace",
    "raise it with sysctl as root of the outer user namespace",
)
.proven_by(&["{limit_files}, which no process can reach"]);
pub(super) const NESTED: Text = text(
    Cause::Nesting,
    "32 user namespaces are nested here, or a limit of an outer one is reached",
    "use fewer nested user namespaces, or raise user.max_user_namespaces in the outer ones",
)
.proven_by(&["{limit_files}, which no process can reach"]);
pub(super) const NESTED_OR_REACHED: Text = text(
    Cause::Nesting,
    "32 user namespaces are nested here, or the limit {limits} or that of an outer one is reached",
    "use fewer nested user namespaces; or, as root: sysctl {raise}; or raise the limit in the outer ones",
)
.proven_by(&["{limit_files}"]);
pub(super) const USER_LIMIT: Text = text(
    Cause::Limit,
    "user.max_user_namespaces is reached, or 32 of them are nested",
    "as root: sysctl user.max_user_namespaces=63000, or use fewer nested ones",
);
pub(super) const SOME_LIMIT: Text = text(
    Cause::Limit,
    "a limit in /proc/sys/user/max_*_namespaces is reached",
    "as root: raise it with sysctl",
);

pub(super) const MISSING_KIND: Text = text(
    Cause::Kernel,
    "this kernel has no {missing} namespaces",
    "leave them out, or use a kernel that is built with them",
)
.proven_by(&["{missing_files} does not exist"]);
pub(super) const NO_USER_KIND: Text =
    text(Cause::Kernel, "this kernel has no user namespaces, or the caller has threads", "");
pub(super) const NO_KIND: Text = text(
    Cause::Kernel,
    "this kernel lacks one of these kinds, or a pid namespace has been joined or created before",
    "",
);

// -- /proc --------------------------------------------------------------------------------------------------

pub(super) const READ_ONLY_PROC: Text = text(
    Cause::ReadOnlyProc,
    "/proc is mounted read-only, so the map of ids cannot be written, and no new /proc can be mounted",
    "mount /proc writable, in the outer container",
)
.proven_by(&["{read_only}"]);
pub(super) const NO_PROC: Text = text(
    Cause::NoProc,
    "/proc is missing, or shows another pid namespace, and the launcher writes the maps of ids into /proc/PID/uid_map and gid_map",
    "mount the /proc of this pid namespace first: --mount-proc of an outer nsexec run, or mount -t proc proc /proc",
)
.proven_by(&["/proc/self does not lead to this process"]);
pub(super) const HIDDEN_PROC: Text = text(
    Cause::HiddenProc,
    "this /proc hides or covers the files of our own processes",
    "hidepid, or a container's masked /proc",
);
pub(super) const ADD_PID: Text = text(
    Cause::Request,
    "/proc can be mounted only for a pid namespace that the new user namespace owns",
    "add {pid_namespace}",
);
pub(super) const MASKED_PROC: Text = text(
    Cause::MaskedProc,
    "parts of /proc are covered here, as in a container (a masked /proc), so the kernel refuses a new one in a user namespace",
    "{no_new_proc}, or run the outer container with an unmasked /proc (podman: --security-opt unmask=ALL; docker: \
     --security-opt systempaths=unconfined)",
)
.proven_by(&["/proc/self/mountinfo: a mount at {covered}"]);
pub(super) const MASKED_PERHAPS: Text = text(
    Cause::MaskedProc,
    "parts of /proc are masked here, as in a container, or there is no new pid namespace to show",
    "do without a fresh /proc, or run the outer container with an unmasked one",
);
pub(super) const CHROOT_MOUNT: Text = text(
    Cause::Chroot,
    "the root directory is not a mount point, as in a chroot",
    "mount --bind the directory on itself before the chroot, or use pivot_root(2)",
)
.proven_by(&["mount(2) failed with {errno} at the root directory"]);
pub(super) const ADD_USER_TO_MOUNT: Text = text(Cause::Privilege, "you are not root", "add {user_namespace}")
    .proven_by(&["/proc/self/status: CapEff lacks bit 21"]);
pub(super) const LACKS_ADMIN_THERE: Text = text(
    Cause::Privilege,
    "the caller lacks CAP_SYS_ADMIN",
    "add {user_namespace} for a user namespace of its own",
)
.proven_by(&["/proc/self/status: CapEff lacks bit 21"]);

// -- maps of ids --------------------------------------------------------------------------------------------

pub(super) const NO_TOOL: Text = text(
    Cause::NoTool,
    "{tool_name} is not in PATH, and only it may write a map with other ids than the caller's own",
    "{install}",
)
.proven_by(&["no directory of PATH has an executable {tool_name}"]);
pub(super) const TOOL_NO_NEW_PRIVS: Text = text(
    Cause::NoNewPrivs,
    "no_new_privs is set, so {tool} has no privileges: its setuid bit has no effect",
    "start this program without no_new_privs (systemd: NoNewPrivileges=no; docker: no --security-opt no-new-privileges)",
)
.proven_by(&["/proc/self/status: NoNewPrivs: 1"])
.about(|known| known.powerless_side(Cause::NoNewPrivs));
pub(super) const TOOL_NOSUID: Text = text(
    Cause::NosuidMount,
    "{tool} is on a nosuid mount, so it has no privileges",
    "mount its file system without nosuid",
)
.proven_by(&["statvfs(3) of {tool}: ST_NOSUID"])
.about(|known| known.powerless_side(Cause::NosuidMount));
pub(super) const TOOL_POWERLESS: Text = text(
    Cause::PowerlessTool,
    "{tool} has neither the set-user-id bit of root nor the file capability {capability}",
    "as root: chmod u+s {tool}, or setcap {capability}+ep {tool}, or reinstall its package",
)
.proven_by(&["{tool}: no set-user-id bit of root, no {capability} in the attribute security.capability"])
.about(|known| known.powerless_side(Cause::PowerlessTool));
pub(super) const GROUP_OF_ACCOUNT: Text = text(
    Cause::GroupOfAccount,
    "the current group {gid} is not that of {owner} in passwd(5), {account_gid}, and the mapping tools refuse another one",
    "run with the group {account_gid} (newgrp, sg or setpriv --regid {account_gid}); or, as root, write \
     GRANT_AUX_GROUP_SUBIDS yes to /etc/login.defs",
)
.proven_by(&["getgid(2) = {gid}; passwd(5) has the group {account_gid} for {owner}"]);
pub(super) const NO_ACCOUNT: Text = text(
    Cause::NoAccount,
    "the user id {owner} has no account in passwd(5), and the mapping tools refuse such a user",
    "add an account for {owner}, or map the own id alone",
)
.proven_by(&["getpwuid(3) finds no entry for {owner}"]);
pub(super) const NO_RANGE: Text =
    text(Cause::NoSubordinateIds, "{file} has no range for {who}", "{give_range}")
        .proven_by(&["{file} has no range for {who}"]);
pub(super) const ONE_ID: Text = text(
    Cause::OneId,
    "this user namespace has no {noun} id besides the caller's own",
    "map a range of {noun} ids in the outer user namespace",
)
.proven_by(&["{map} has {map_lines} line(s)"]);
pub(super) const UNCOVERED: Text = text(
    Cause::NoSubordinateIds,
    "{uncovered}",
    "map ids of your own ranges (getsubids lists them), or have root add a range to the file",
);
pub(super) const TOOL_FAILED: Text = text(
    Cause::FailedTool,
    "see the tool's own message above; the tool must be setuid root or have file capabilities, and /etc/subuid and \
     /etc/subgid must give you all these ids",
    "",
);
pub(super) const MAP_FORM: Text = text(
    Cause::Request,
    "the kernel accepts one write of less than a page, with at most 340 lines (5 before Linux 4.15)",
    "",
);
pub(super) const LACKS_MAPPING_CAPS: Text = text(
    Cause::Privilege,
    "this root lacks {lacking}",
    "without CAP_SETUID and CAP_SETGID it may map its own ids alone, without CAP_SETFCAP (since Linux 5.12) not its \
     own user id",
);
pub(super) const LACKS_SETFCAP: Text = text(
    Cause::Privilege,
    "this root lacks CAP_SETFCAP, and since Linux 5.12 the kernel lets no process without it map the user id 0",
    "map other user ids than 0, for example 0:100000:65536",
)
.proven_by(&["/proc/self/status: CapEff lacks bit 31"]);
pub(super) const OUTSIDE_UNMAPPED: Text = text(
    Cause::Request,
    "an outside id of the map does not exist in this user namespace",
    "/proc/self/uid_map and gid_map show which ids do",
);
pub(super) const OWN_ID_REFUSED: Text = text(
    Cause::UnmappedCaller,
    "the kernel refuses even the caller's own id: it is not mapped in this user namespace (/proc/self/uid_map and gid_map \
     show which ids are), or a security module forbids it",
    "",
);
