//! The likely causes of a failed step, as data. [`likely`] is pure: facts in, cause out.

use std::string::{String, ToString};
use std::vec::Vec;

use std::format;

use crate::deciders::namespace::{NsKind, NsSet};
use crate::sys::types::Errno;
use crate::words::error::Code;

/// The parts of the request that distinguish causes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Asked {
    /// The kinds to create.
    #[cfg_attr(feature = "serde", serde(with = "kinds"))]
    pub created: NsSet,
    /// The kinds to join.
    #[cfg_attr(feature = "serde", serde(with = "kinds"))]
    pub joined: NsSet,
    /// The caller's effective user id is not 0.
    pub rootless: bool,
    /// The caller asked for a new /proc itself. If not, /proc is mounted because the program does so by
    /// default.
    pub mount_proc_flag: bool,
    /// The command contains a slash, so it was not searched in PATH.
    pub command_path: bool,
}

/// The state of the machine after a failure. `None` and `false` also mean "unknown".
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Machine {
    /// `kernel.unprivileged_userns_clone`, a sysctl of Debian's kernels.
    pub unprivileged_userns_clone: Option<u64>,
    /// `kernel.apparmor_restrict_unprivileged_userns`, a sysctl of Ubuntu's kernels.
    pub apparmor_restricts: Option<u64>,
    /// The kinds whose `user.max_*_namespaces` is 0.
    #[cfg_attr(feature = "serde", serde(with = "kinds"))]
    pub forbidden: NsSet,
    /// A seccomp filter is in force.
    pub seccomp: bool,
    /// no_new_privs is set.
    pub no_new_privs: bool,
    /// The kinds that the kernel has.
    #[cfg_attr(feature = "serde", serde(with = "kinds"))]
    pub kinds: NsSet,
    /// The caller's effective capabilities as a bit set.
    pub capabilities: Option<u64>,
    /// A sentence on the first map line that /etc/subuid or /etc/subgid does not cover.
    pub uncovered: Option<String>,
}

/// Serialises a set of kinds as a list of names.
#[cfg(feature = "serde")]
mod kinds {
    use std::string::String;
    use std::vec::Vec;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::deciders::namespace::{NsKind, NsSet};

    pub(super) fn serialize<S: Serializer>(kinds: &NsSet, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(kinds.iter().map(NsKind::name))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<NsSet, D::Error> {
        let names = Vec::<String>::deserialize(deserializer)?;
        let kind = |name: &String| NsKind::from_name(name.as_bytes());
        names.iter().map(kind).collect::<Option<NsSet>>().ok_or_else(|| D::Error::custom("no such kind"))
    }
}

/// The facts that a cause depends on, besides the step and its errno.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Circumstances {
    /// The request.
    pub asked: Asked,
    /// The machine.
    pub machine: Machine,
}

impl Circumstances {
    /// Returns the circumstances of a request on a machine.
    #[must_use]
    pub const fn new(asked: Asked, machine: Machine) -> Self {
        Self { asked, machine }
    }

    /// Returns whether the caller is unprivileged and neither creates nor joins a user namespace.
    fn is_unprivileged(&self) -> bool {
        self.asked.rootless && !self.in_new_user()
    }

    fn enters(&self, kind: NsKind) -> bool {
        self.asked.created.contains(kind) || self.asked.joined.contains(kind)
    }

    fn in_new_user(&self) -> bool {
        self.enters(NsKind::User)
    }

    fn apparmor(&self) -> bool {
        self.in_new_user() && self.machine.apparmor_restricts.is_some_and(|value| value != 0)
    }

    /// Returns the kinds to create that the kernel does not have.
    fn missing(&self) -> NsSet {
        self.asked.created.iter().filter(|kind| !self.machine.kinds.contains(*kind)).collect()
    }

    /// Returns the names of the capabilities of [`MAPPING_CAPS`] that the caller lacks.
    fn lacking(&self) -> Vec<&'static str> {
        let has = |bit: u32| self.machine.capabilities.is_none_or(|set| set & 1 << bit != 0);
        MAPPING_CAPS.into_iter().filter(|(bit, _)| !has(*bit)).map(|(_, name)| name).collect()
    }

    fn forbidden(&self) -> NsSet {
        self.asked.created.intersection(self.machine.forbidden)
    }
}

/// The capabilities that the kernel requires of a process that maps ids (user_namespaces(7)), with their
/// bits.
const MAPPING_CAPS: [(u32, &str); 3] = [(CAP_SETGID, "CAP_SETGID"), (7, "CAP_SETUID"), (31, "CAP_SETFCAP")];

/// The bit of CAP_SETGID in a set of capabilities (capabilities(7)).
pub const CAP_SETGID: u32 = 6;

/// The remedies whose name depends on the caller's interface. A program that uses this library puts its own
/// flags here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Remedies {
    /// The setting that adds a user namespace with the caller as root, after "add".
    pub user_namespace: &'static str,
    /// The setting that adds a pid namespace, after "add".
    pub pid_namespace: &'static str,
    /// The setting that leaves the user and group ids unchanged.
    pub keep_ids: &'static str,
    /// Leaving out a new /proc that was asked for: see [`Asked::mount_proc_flag`].
    pub without_proc: &'static str,
    /// Leaving out a new /proc that the program mounts by default.
    pub without_default_proc: &'static str,
}

impl Remedies {
    /// The names of this library's items.
    pub const LIBRARY: Self = Self {
        user_namespace: "CLONE_NEWUSER",
        pid_namespace: "CLONE_NEWPID",
        keep_ids: "keep the caller's ids (Credentials::Keep)",
        without_proc: "do without Policy::with_mount_proc",
        without_default_proc: "do without Policy::with_mount_proc",
    };
}

/// One cause. The first row that fits is used, so a row that the machine's state proves comes before a row
/// that is merely common.
struct Row {
    codes: &'static [Code],
    /// Empty: any errno, or no errno.
    errnos: &'static [Errno],
    /// The condition. `None`: the cause is likely whatever the circumstances are, and if they are unknown.
    when: Option<fn(&Circumstances) -> bool>,
    /// The text, with placeholders for [`fill_placeholders`].
    say: &'static str,
}

/// Declares the rows: steps, errnos, an optional condition, and the text.
macro_rules! rows {
    ($($code:ident $(| $more:ident)*: [$($errno:ident)*] $(if $when:expr)? => $say:expr;)*) => {
        &[$(Row {
            codes: &[Code::$code $(, Code::$more)*],
            errnos: &[$(Errno::$errno),*],
            when: rows!(@condition $($when)?),
            say: $say,
        }),*]
    };
    (@condition) => { None };
    (@condition $when:expr) => { Some($when) };
}

/// The condition of a row that is likely because no earlier row fits the circumstances.
const OTHERWISE: fn(&Circumstances) -> bool = |_| true;

const SECURITY_MODULE: &str =
    "a security module (AppArmor, SELinux) forbids it to this program: its audit log says which rule";
const APPARMOR: &str = "kernel.apparmor_restrict_unprivileged_userns is on, so AppArmor takes all privileges from a \
                        new user namespace: an AppArmor profile for this program that says `userns,` allows it";
const PROCESS_FILES: &str = "the limit on open files is reached: raise ulimit -n";
const MACHINE_FILES: &str = "the machine's limit on open files is reached: sysctl fs.file-max";

const ROWS: &[Row] = rows! {
    // -- creating -------------------------------------------------------------------------------------------
    UnshareUser: [EPERM]
        if |known| known.asked.rootless && known.machine.unprivileged_userns_clone == Some(0)
        => "kernel.unprivileged_userns_clone is 0, so only root may create user namespaces: \
            sysctl kernel.unprivileged_userns_clone=1 allows it for all users";
    UnshareRemaining: [EPERM] if Circumstances::is_unprivileged
        => "you are not root: add {user_namespace}, which makes you root of a new user namespace";
    UnshareRemaining | MountPropagation | MountProc | BecomeRoot: [EPERM EACCES] if Circumstances::apparmor
        => APPARMOR;
    UnshareUser | UnshareRemaining: [EPERM EACCES] if |known| known.machine.seccomp
        => "a seccomp filter is in force, as in a container: run the container with a profile that allows unshare";
    UnshareUser: [EPERM] if OTHERWISE
        => "this process is in a chroot, or its user or group id is not mapped: it may not create a user namespace";
    UnshareUser: [EPERM]
        => "user namespaces are not allowed here: kernel.unprivileged_userns_clone=0, a seccomp filter, or a chroot";
    UnshareRemaining: [EPERM] if |known| !known.in_new_user()
        => "this root lacks CAP_SYS_ADMIN, as in most containers: add {user_namespace} for a user namespace of its own";
    UnshareUser | UnshareRemaining: [EACCES] => SECURITY_MODULE;
    UnshareRemaining: [EPERM] if OTHERWISE => SECURITY_MODULE;
    UnshareRemaining: [EPERM]
        => "this needs CAP_SYS_ADMIN: be root, or create a user namespace as well; on Ubuntu AppArmor may take \
            the capabilities in it away (kernel.apparmor_restrict_unprivileged_userns)";
    UnshareUser | UnshareRemaining: [ENOSPC EUSERS] if |known| !known.forbidden().is_empty()
        => "{forbidden} is 0: raise it with sysctl";
    UnshareUser: [ENOSPC] => "user.max_user_namespaces is reached, or 32 of them are nested";
    UnshareRemaining: [ENOSPC] => "a limit in /proc/sys/user/max_*_namespaces is reached";
    UnshareUser | UnshareRemaining: [EINVAL ENOSYS] if |known| !known.missing().is_empty()
        => "this kernel has no namespaces of kind {missing}: leave them out";
    UnshareUser: [EINVAL] => "this kernel has no user namespaces, or the caller has threads";
    UnshareRemaining: [EINVAL]
        => "this kernel lacks one of these kinds, or a pid namespace has been joined or created before";
    // -- mapping --------------------------------------------------------------------------------------------
    SetgroupsFile | MappingToolMissing: [EPERM] if Circumstances::apparmor => APPARMOR;
    UidMap | GidMap | SetgroupsFile | OpenProc: [EACCES] if Circumstances::apparmor => APPARMOR;
    ForeignProc: []
        => "mount the /proc of this pid namespace first: --mount-proc of an outer nsexec run, or mount -t proc proc /proc";
    UidMap | GidMap: [EINVAL]
        => "the kernel accepts one write of less than a page, with at most 340 lines (5 before Linux 4.15)";
    // Stage 1 is alive here: its death is reported as such.
    UidMap | GidMap | SetgroupsFile | OpenProc: [EACCES ENOENT]
        => "this /proc hides or covers the files of our own processes: hidepid, or a container's masked /proc";
    // The kernel refused our own write. root has no mapping tool.
    MappingToolMissing: [EPERM] if |known| !known.asked.rootless && !known.lacking().is_empty()
        => "this root lacks {lacking}: without CAP_SETUID and CAP_SETGID it may map its own ids alone, without \
            CAP_SETFCAP (since Linux 5.12) not its own user id";
    MappingToolMissing: [EPERM] if |known| !known.asked.rootless
        => "an outside id of the map does not exist in this user namespace: /proc/self/uid_map and gid_map show which ids do";
    MappingToolMissing: [EPERM] if OTHERWISE
        => "the kernel refuses even the caller's own id: it is not mapped in this user namespace (/proc/self/uid_map and gid_map show which ids \
            are), or a security module forbids it";
    MappingToolMissing: [EPERM]
        => "only root may map ids other than its own; before an ordinary user maps its own group, setgroups must be denied";
    // The program searches PATH for the tools; another caller of the library names any path.
    MappingToolExec: [ENOENT EACCES] if OTHERWISE
        => "it was found in PATH, and cannot be executed there: its interpreter is missing, or it lies on a noexec \
            mount";
    MappingToolStatus: [] if |known| known.machine.no_new_privs
        => "no_new_privs is set, so the tool's setuid bit has no effect";
    MappingToolStatus: [] if |known| known.machine.uncovered.is_some() => "{uncovered}";
    MappingToolStatus: []
        => "see the tool's own message above; the tool must be setuid root or have file capabilities, and \
            /etc/subuid and /etc/subgid must give you all these ids";
    MappingToolSignal: [] => "killed by a limit on time or memory, or by a seccomp filter";
    MappingToolWroteOther: [] if OTHERWISE
        => "the first newuidmap and newgidmap in PATH must be those of shadow-utils (package uidmap)";
    BecomeRoot | Setuid | Setgid: [EINVAL] => "id 0 is not mapped there: {keep_ids}, or map it";
    BecomeRoot | Setuid | Setgid | Setgroups: [EPERM]
        => "no privilege over that user namespace, or setgroups is denied there";
    // -- joining --------------------------------------------------------------------------------------------
    Join: [EPERM] if Circumstances::is_unprivileged
        => "you have no privilege over the user namespace that owns it: join that one too, or be root";
    Join: [EPERM] => "this needs CAP_SYS_ADMIN in the user namespace that owns it";
    Join: [EINVAL]
        => "it is of another kind, it is our own user namespace, or it is a pid namespace \
            that is not below ours";
    OpenNamespace: [ENOENT ESRCH] => "the file does not exist: its process may have ended";
    OpenNamespace: [EACCES]
        => "opening the namespaces of a process needs the permission to trace it (ptrace(2))";
    // -- the command's surroundings -------------------------------------------------------------------------
    OomScoreAdj: [EACCES] => "lowering it needs CAP_SYS_RESOURCE";
    MountProc: [EPERM] if |known| known.in_new_user() && !known.enters(NsKind::Pid)
        => "/proc can be mounted only for a pid namespace that the new user namespace owns: add {pid_namespace}";
    MountProc: [EPERM] if |known| known.in_new_user() && known.asked.mount_proc_flag
        => "parts of /proc are covered here, as in a container (a masked /proc): {without_proc}, or run the \
            outer container with an unmasked /proc";
    MountProc: [EPERM] if |known| known.in_new_user()
        => "parts of /proc are covered here, as in a container (a masked /proc): {without_default_proc}, or \
            run the outer container with an unmasked /proc";
    MountProc | MountPropagation: [EPERM] if |known| known.asked.rootless && !known.in_new_user()
        => "you are not root: add {user_namespace}";
    MountProc: [EPERM]
        => "parts of /proc are masked here, as in a container, or there is no new pid namespace to show: \
            do without a fresh /proc, or run the outer container with an unmasked one";
    MountPropagation: [EINVAL] => "the root directory is not a mount point, as in a chroot";
    TimeOffsets: [ERANGE] => "the shifted clock would be negative, or beyond the kernel's range";
    // In a joined user namespace the stage stays non-dumpable, so that processes there cannot trace it. Its
    // files in /proc then belong to root.
    TimeOffsets: [EACCES] if |known| known.asked.rootless && known.asked.joined.contains(NsKind::User)
        => "together with a joined user namespace only root can set offsets: leave them out, or be root";
    TimeOffsets: [EPERM EACCES] if |known| known.in_new_user()
        => "time offsets need CAP_SYS_TIME in the user namespace that owns the time namespace";
    TimeOffsets: [EPERM EACCES]
        => "time offsets need CAP_SYS_TIME in the user namespace that owns the time namespace: add {user_namespace}";
    SpawnStage1 | SpawnStage2 | MappingToolFork | Start: [EAGAIN]
        => "a limit on processes is reached: ulimit -u, or pids.max of the cgroup";
    Start | MakeSyncPipe | OpenNamespace | OpenProc | UidMap | GidMap: [EMFILE] => PROCESS_FILES;
    Start | MakeSyncPipe | OpenNamespace | OpenProc | UidMap | GidMap: [ENFILE] => MACHINE_FILES;
    SpawnStage2: [ENOMEM] if |known| known.asked.joined.contains(NsKind::Pid)
        => "the first process of that pid namespace has ended, and so has the namespace";
    PassDescriptor: [EBADF] => "it is not open";
    StartInit: [EAGAIN] => "a limit on processes is reached: ulimit -u, or pids.max of the cgroup";
    StartInit: [EMFILE ENFILE] => PROCESS_FILES;
    Terminal: [ENOTTY] => "standard input of the command is not a terminal";
    Terminal: [EPERM]
        => "the terminal controls another session: give the command the second end of a new pseudo-terminal";
    Keyring: [EDQUOT] => "the user has reached the limit of keys: sysctl kernel.keys.maxkeys";
    Keyring: [ENOSYS EPERM] => "the kernel has no keyrings, or a seccomp filter refuses keyctl";
    EnterCgroup: [EACCES EPERM]
        => "this needs the permission to write cgroup.procs of both cgroups and of their nearest common ancestor: have the \
            subtree delegated to you, as systemd-run --user --scope -p Delegate=yes does";
    EnterCgroup: [EBUSY] => "a cgroup that passes controllers on (cgroup.subtree_control) takes no processes itself";
    EnterCgroup: [EOPNOTSUPP] => "the cgroup is of type threaded or invalid (cgroup.type), and takes no whole process";
    EnterCgroup: [ENOSPC] => "the cpuset of the cgroup has no CPU or no memory node yet: write cpuset.cpus and cpuset.mems";
    EnterCgroup: [ENODEV] => "the cgroup has been removed";
    // -- the command ----------------------------------------------------------------------------------------
    Exec: [ENOENT] if |known| known.asked.command_path
        => "no such file, or the interpreter that it names is missing";
    Exec: [ENOENT] if OTHERWISE => "no such command in PATH, or the interpreter that it names is missing";
    Exec: [EACCES] => "it is not executable, or lies on a noexec mount";
    Exec: [ENOEXEC] => "it is not in a format that the kernel knows; a script needs a #! line";
};

/// Returns the limit that an open(2) has reached; `None` for any other error.
#[must_use]
pub const fn open_files_limit(errno: Errno) -> Option<&'static str> {
    match errno {
        Errno::EMFILE => Some(PROCESS_FILES),
        Errno::ENFILE => Some(MACHINE_FILES),
        _ => None,
    }
}

/// Returns the likely cause of a failure in step `code` with this errno; `None` if the table has no row for
/// it. `known` is `None` if nothing is known about the request and the machine.
#[must_use]
pub fn likely(
    code: Code,
    errno: Option<Errno>,
    known: Option<&Circumstances>,
    remedies: &Remedies,
) -> Option<String> {
    let fits = |row: &&Row| {
        row.codes.contains(&code)
            && (row.errnos.is_empty() || errno.is_some_and(|errno| row.errnos.contains(&errno)))
            && row.when.is_none_or(|when| known.is_some_and(when))
    };
    let unknown = Circumstances::default();
    ROWS.iter().find(fits).map(|row| fill_placeholders(row.say, known.unwrap_or(&unknown), remedies))
}

/// Replaces the placeholders of a row's text.
fn fill_placeholders(text: &str, known: &Circumstances, remedies: &Remedies) -> String {
    let sysctls: Vec<String> =
        known.forbidden().iter().map(|kind| format!("user.max_{}_namespaces", kind.name())).collect();
    text.replace("{forbidden}", &sysctls.join(" and "))
        .replace("{missing}", &known.missing().to_string())
        .replace("{lacking}", &known.lacking().join(" and "))
        .replace("{uncovered}", known.machine.uncovered.as_deref().unwrap_or_default())
        .replace("{user_namespace}", remedies.user_namespace)
        .replace("{pid_namespace}", remedies.pid_namespace)
        .replace("{keep_ids}", remedies.keep_ids)
        .replace("{without_proc}", remedies.without_proc)
        .replace("{without_default_proc}", remedies.without_default_proc)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch::script::{FailureKind, Step};
    use crate::launch::{LaunchError, Record, StageFailure};
    use crate::sys::types::CloneFlags;
    use crate::words::log::Level;
    use std::borrow::ToOwned;
    use std::vec;

    /// Returns a failure of this step as the launcher reports it.
    fn failed(code: Code, errno: Option<Errno>) -> LaunchError {
        let os = errno.unwrap_or(Errno::EIO);
        match code {
            Code::Start => LaunchError::Start { step: Step::MakeInitPipe, errno: os },
            Code::Exec => LaunchError::Exec { program: "x".into(), errno: os },
            _ => LaunchError::Bootstrap(StageFailure {
                records: vec![Record {
                    level: Level::Fatal,
                    stage: Some(0),
                    pid: 7,
                    text: "it failed".to_owned(),
                    code: Some(code),
                    errno,
                }],
                ended: Vec::new(),
                kind: FailureKind::NoPidLine,
                asked: CloneFlags::EMPTY,
            }),
        }
    }

    /// Returns the situations that the rows distinguish. `None`: nothing is known.
    fn situations() -> Vec<Option<Circumstances>> {
        let of = |kinds: &[NsKind]| kinds.iter().copied().collect::<NsSet>();
        let sets = [of(&[]), of(&[NsKind::User]), of(&[NsKind::User, NsKind::Pid]), of(&[NsKind::Pid])];
        let machines = [
            Machine { kinds: NsSet::ALL, ..Machine::default() },
            Machine::default(),
            Machine { unprivileged_userns_clone: Some(0), ..Machine::default() },
            Machine { apparmor_restricts: Some(1), ..Machine::default() },
            Machine { forbidden: NsSet::ALL, ..Machine::default() },
            Machine { seccomp: true, ..Machine::default() },
            Machine { no_new_privs: true, ..Machine::default() },
            Machine { capabilities: Some(0), ..Machine::default() },
            Machine { uncovered: Some("that is not yours".to_owned()), ..Machine::default() },
        ];
        let mut all = vec![None];
        for (created, joined) in
            sets.iter().flat_map(|created| sets.iter().map(move |joined| (created, joined)))
        {
            for flags in 0..8 {
                let asked = Asked {
                    created: *created,
                    joined: *joined,
                    rootless: flags & 1 != 0,
                    mount_proc_flag: flags & 2 != 0,
                    command_path: flags & 4 != 0,
                };
                let known = |machine: &Machine| Circumstances { asked, machine: machine.clone() };
                all.extend(machines.iter().map(|machine| Some(known(machine))));
            }
        }
        all
    }

    /// A caller that has asked for a user namespace is not advised to add one.
    #[test]
    fn user_namespace_that_was_asked_for_is_not_advised() {
        let situations = situations();
        let asked = situations.iter().flatten().filter(|known| known.asked.created.contains(NsKind::User));
        for known in asked {
            for row in ROWS.iter().filter(|row| row.say.contains("add {user_namespace}")) {
                for (code, errno) in
                    row.codes.iter().flat_map(|code| row.errnos.iter().map(move |errno| (*code, *errno)))
                {
                    let line = failed(code, Some(errno)).explain(known, &Remedies::LIBRARY);
                    let advice = fill_placeholders("add {user_namespace}", known, &Remedies::LIBRARY);
                    assert!(!line.contains(&advice), "{known:?}: {line}");
                }
            }
        }
    }

    /// Checks that each row, for each of its steps and errnos, is printed in some situation. The text goes
    /// through [`LaunchError`], as in a program.
    #[test]
    fn every_row_is_printed_in_some_situation() {
        let situations = situations();
        let mut unsaid = Vec::new();
        for row in ROWS {
            assert!(!row.codes.is_empty() && !row.say.ends_with('.'), "{}", row.say);
            let errnos: Vec<_> = if row.errnos.is_empty() {
                vec![None]
            } else {
                row.errnos.iter().copied().map(Some).collect()
            };
            for (code, errno) in
                row.codes.iter().flat_map(|code| errnos.iter().map(move |errno| (code, *errno)))
            {
                let said = situations.iter().any(|known| {
                    let error = failed(*code, errno);
                    let line = match known {
                        Some(known) => error.explain(known, &Remedies::LIBRARY),
                        None => error.to_string(),
                    };
                    let known = known.clone().unwrap_or_default();
                    let said = fill_placeholders(row.say, &known, &Remedies::LIBRARY);
                    line.ends_with(&format!(" ({said})"))
                });
                if !said {
                    unsaid.push(format!("{code:?} {errno:?}: {}", row.say));
                }
            }
        }
        assert!(unsaid.is_empty(), "{unsaid:#?}");
    }

    #[test]
    fn each_step_and_errno_has_at_most_one_cause_without_condition_and_it_is_the_last() {
        let overlap = |row: &Row, other: &Row| {
            row.codes.iter().any(|code| other.codes.contains(code))
                && (row.errnos.is_empty()
                    || other.errnos.is_empty()
                    || row.errnos.iter().any(|errno| other.errnos.contains(errno)))
        };
        for (index, row) in ROWS.iter().enumerate().filter(|(_, row)| row.when.is_none()) {
            for later in &ROWS[index + 1..] {
                assert!(!overlap(row, later), "{} / {}", row.say, later.say);
            }
        }
        let without_facts = |errno| likely(Code::BecomeRoot, Some(errno), None, &Remedies::LIBRARY);
        let text = "id 0 is not mapped there: keep the caller's ids (Credentials::Keep), or map it";
        assert_eq!(without_facts(Errno::EINVAL).as_deref(), Some(text));
        assert_eq!(without_facts(Errno::EIO), None);
    }
}
