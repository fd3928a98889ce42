//! The likely cause of a failure, in words, and what to do about it.
//!
//! A pure function looks up a table by the step, the errno, the request and the state of the machine. The
//! library has a general cause for each step and errno (`launch::causes`). A row here is more specific: it
//! depends on the flags and the machine. If no row fits, the library's cause is printed.

use nsexec::namespace::{NsKind, NsSet};
use nsexec::sys::types::Errno;
use serde::{Deserialize, Serialize};

/// The parts of the request that distinguish causes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Asked {
    /// The kinds to create.
    #[serde(with = "kinds")]
    pub(crate) created: NsSet,
    /// The kinds to join.
    #[serde(with = "kinds")]
    pub(crate) joined: NsSet,
    /// The caller's effective user id is not 0.
    pub(crate) rootless: bool,
    /// `--mount-proc` was given. If not, /proc is mounted only because no flag at all was given.
    pub(crate) mount_proc_flag: bool,
    /// The command contains a slash, so it was not searched in PATH.
    pub(crate) command_path: bool,
}

/// The state of the machine after a failure. `None` and `false` also mean "unknown".
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// `kernel.unprivileged_userns_clone`, a sysctl of Debian's kernels.
    pub(crate) unprivileged_userns_clone: Option<u64>,
    /// `kernel.apparmor_restrict_unprivileged_userns`, a sysctl of Ubuntu's kernels.
    pub(crate) apparmor_restricts: Option<u64>,
    /// The kinds whose `user.max_*_namespaces` is 0.
    #[serde(with = "kinds")]
    pub(crate) forbidden: NsSet,
    /// A seccomp filter is in force.
    pub(crate) seccomp: bool,
    /// no_new_privs is set.
    pub(crate) no_new_privs: bool,
    /// The kinds that the kernel has.
    #[serde(with = "kinds")]
    pub(crate) kinds: NsSet,
    /// Our effective capabilities as a bit set.
    pub(crate) capabilities: Option<u64>,
    /// A sentence on the first map line that /etc/subuid or /etc/subgid does not cover.
    pub(crate) uncovered: Option<String>,
}

/// Serialises a set of kinds as a list of names.
mod kinds {
    use nsexec::namespace::{NsKind, NsSet};
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(kinds: &NsSet, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(kinds.iter().map(NsKind::name))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<NsSet, D::Error> {
        let names = Vec::<String>::deserialize(deserializer)?;
        let kind = |name: &String| NsKind::from_name(name.as_bytes());
        names.iter().map(kind).collect::<Option<NsSet>>().ok_or_else(|| D::Error::custom("no such kind"))
    }
}

/// A failure's circumstances, passed to each row's condition.
#[derive(Clone, Copy, Debug)]
struct Case<'c> {
    asked: Asked,
    machine: &'c Machine,
}

impl Case<'_> {
    /// Returns whether the caller is unprivileged and neither creates nor joins a user namespace.
    fn is_unprivileged(&self) -> bool {
        self.asked.rootless && !self.in_new_user()
    }

    fn in_new_user(&self) -> bool {
        self.asked.created.contains(NsKind::User) || self.asked.joined.contains(NsKind::User)
    }

    fn new_pid(&self) -> bool {
        self.asked.created.contains(NsKind::Pid) || self.asked.joined.contains(NsKind::Pid)
    }

    fn apparmor(&self) -> bool {
        self.in_new_user() && self.machine.apparmor_restricts.is_some_and(|value| value != 0)
    }

    /// Returns the kinds to create that the kernel does not have.
    fn missing(&self) -> NsSet {
        self.asked.created.iter().filter(|kind| !self.machine.kinds.contains(*kind)).collect()
    }

    /// Returns the names of the capabilities of [`MAPPING_CAPS`] that we lack.
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
pub(crate) const CAP_SETGID: u32 = 6;

/// One cause: the steps and errnos, a condition, and the text. The first row that fits is used, so a row that
/// the machine's state proves comes before a row that is merely common.
struct Row {
    codes: &'static [&'static str],
    errnos: &'static [Errno],
    when: fn(&Case<'_>) -> bool,
    say: &'static str,
}

const UNSHARE: &[&str] = &["unshare-user", "unshare-remaining"];
const MAPS: &[&str] = &["uid-map", "gid-map", "setgroups-file", "open-proc"];
const SECURITY_MODULE: &str =
    "a security module (AppArmor, SELinux) forbids it to this program: its audit log says which rule";
const APPARMOR: &str = "kernel.apparmor_restrict_unprivileged_userns is on, so AppArmor takes all privileges from a \
                        new user namespace: an AppArmor profile for this program that says `userns,` allows it";
const DENIED: &[Errno] = &[Errno::EPERM, Errno::EACCES];
/// The steps that open descriptors.
const OPENING: &[&str] = &["start", "make-sync-pipe", "open-namespace", "open-proc", "uid-map", "gid-map"];
/// Any errno, or no errno.
const ANY: &[Errno] = &[];

/// The cause of `EMFILE`.
const PROCESS_FILES: &str = "the limit on open files is reached: raise ulimit -n";
/// The cause of `ENFILE`.
const MACHINE_FILES: &str = "the machine's limit on open files is reached: sysctl fs.file-max";

/// Returns the limit that an open(2) has reached; `None` for any other error.
pub(crate) const fn open_files_limit(errno: Errno) -> Option<&'static str> {
    match errno {
        Errno::EMFILE => Some(PROCESS_FILES),
        Errno::ENFILE => Some(MACHINE_FILES),
        _ => None,
    }
}

const ALWAYS: fn(&Case<'_>) -> bool = |_| true;

const ROWS: &[Row] = &[
    // -- creating -------------------------------------------------------------------------------------------
    Row {
        codes: &["unshare-user"],
        errnos: &[Errno::EPERM],
        when: |case| case.asked.rootless && case.machine.unprivileged_userns_clone == Some(0),
        say: "kernel.unprivileged_userns_clone is 0, so only root may create user namespaces: \
              sysctl kernel.unprivileged_userns_clone=1 allows it for all users",
    },
    Row {
        codes: &["unshare-remaining"],
        errnos: &[Errno::EPERM],
        when: |case| case.is_unprivileged(),
        say: "you are not root: add -r, which makes you root of a new user namespace",
    },
    Row {
        codes: &["unshare-remaining", "mount-propagation", "mount-proc", "become-root"],
        errnos: DENIED,
        when: |case| case.apparmor(),
        say: APPARMOR,
    },
    Row {
        codes: UNSHARE,
        errnos: DENIED,
        when: |case| case.machine.seccomp,
        say: "a seccomp filter is in force, as in a container: run the container with a profile that allows unshare",
    },
    Row {
        codes: &["unshare-user"],
        errnos: &[Errno::EPERM],
        when: ALWAYS,
        say: "this process is in a chroot, or its user or group id is not mapped: it may not create a user namespace",
    },
    Row {
        codes: &["unshare-remaining"],
        errnos: &[Errno::EPERM],
        when: |case| !case.in_new_user(),
        say: "this root lacks CAP_SYS_ADMIN, as in most containers: add -r for a user namespace of its own",
    },
    Row { codes: UNSHARE, errnos: &[Errno::EACCES], when: ALWAYS, say: SECURITY_MODULE },
    Row { codes: &["unshare-remaining"], errnos: &[Errno::EPERM], when: ALWAYS, say: SECURITY_MODULE },
    Row {
        codes: UNSHARE,
        errnos: &[Errno::ENOSPC, Errno::EUSERS],
        when: |case| !case.forbidden().is_empty(),
        say: "{forbidden} is 0: raise it with sysctl",
    },
    Row {
        codes: UNSHARE,
        errnos: &[Errno::EINVAL, Errno::ENOSYS],
        when: |case| !case.missing().is_empty(),
        say: "this kernel has no namespaces of kind {missing}: leave them out",
    },
    // -- mapping --------------------------------------------------------------------------------------------
    Row {
        codes: &["setgroups-file", "mapping-tool-missing"],
        errnos: &[Errno::EPERM],
        when: |case| case.apparmor(),
        say: APPARMOR,
    },
    Row { codes: MAPS, errnos: &[Errno::EACCES], when: |case| case.apparmor(), say: APPARMOR },
    Row {
        codes: &["foreign-proc"],
        errnos: ANY,
        when: ALWAYS,
        say: "mount the /proc of this pid namespace first: --mount-proc of an outer nsexec run, or mount -t proc proc /proc",
    },
    Row {
        codes: &["uid-map", "gid-map"],
        errnos: &[Errno::EINVAL],
        when: ALWAYS,
        say: "the kernel accepts one write of less than a page, with at most 340 lines (5 before Linux 4.15)",
    },
    // Stage 1 is alive here: its death is reported as such.
    Row {
        codes: MAPS,
        errnos: &[Errno::EACCES, Errno::ENOENT],
        when: ALWAYS,
        say: "this /proc hides or covers the files of our own processes: hidepid, or a container's masked /proc",
    },
    // The kernel refused our own write. root has no mapping tool.
    Row {
        codes: &["mapping-tool-missing"],
        errnos: &[Errno::EPERM],
        when: |case| !case.asked.rootless && !case.lacking().is_empty(),
        say: "this root lacks {lacking}: without CAP_SETUID and CAP_SETGID it may map its own ids alone, without \
              CAP_SETFCAP (since Linux 5.12) not its own user id",
    },
    Row {
        codes: &["mapping-tool-missing"],
        errnos: &[Errno::EPERM],
        when: |case| !case.asked.rootless,
        say: "an outside id of the map does not exist in this user namespace: /proc/self/uid_map and gid_map show which ids do",
    },
    Row {
        codes: &["mapping-tool-missing"],
        errnos: &[Errno::EPERM],
        when: ALWAYS,
        say: "the kernel refuses even the caller's own id: it is not mapped in this user namespace (/proc/self/uid_map and gid_map show which ids \
              are), or a security module forbids it",
    },
    Row {
        codes: &["mapping-tool-exec"],
        errnos: &[Errno::ENOENT, Errno::EACCES],
        when: ALWAYS,
        say: "it was found in PATH, and cannot be executed there: its interpreter is missing, or it lies on a noexec \
              mount",
    },
    Row {
        codes: &["mapping-tool-status"],
        errnos: ANY,
        when: |case| case.machine.no_new_privs,
        say: "no_new_privs is set, so the tool's setuid bit has no effect",
    },
    Row {
        codes: &["mapping-tool-status"],
        errnos: ANY,
        when: |case| case.machine.uncovered.is_some(),
        say: "{uncovered}",
    },
    Row {
        codes: &["mapping-tool-status"],
        errnos: ANY,
        when: ALWAYS,
        say: "see the tool's own message above; the tool must be setuid root or have file capabilities, and \
              /etc/subuid and /etc/subgid must give you all these ids",
    },
    Row {
        codes: &["mapping-tool-signal"],
        errnos: ANY,
        when: ALWAYS,
        say: "killed by a limit on time or memory, or by a seccomp filter",
    },
    Row {
        codes: &["mapping-tool-wrote-other"],
        errnos: ANY,
        when: ALWAYS,
        say: "the first newuidmap and newgidmap in PATH must be those of shadow-utils (package uidmap)",
    },
    Row {
        codes: &["become-root", "setuid", "setgid"],
        errnos: &[Errno::EINVAL],
        when: ALWAYS,
        say: "id 0 is not mapped there: enter with --preserve-credentials, or map it",
    },
    Row {
        codes: &["become-root", "setuid", "setgid", "setgroups"],
        errnos: &[Errno::EPERM],
        when: ALWAYS,
        say: "no privilege over that user namespace, or setgroups is denied there",
    },
    // -- joining --------------------------------------------------------------------------------------------
    Row {
        codes: &["join"],
        errnos: &[Errno::EPERM],
        when: |case| case.is_unprivileged(),
        say: "you have no privilege over the user namespace that owns it: join that one too, or be root",
    },
    Row {
        codes: &["open-namespace"],
        errnos: &[Errno::ENOENT, Errno::ESRCH],
        when: ALWAYS,
        say: "the file does not exist: its process may have ended",
    },
    // -- the command's surroundings -------------------------------------------------------------------------
    Row {
        codes: &["mount-proc"],
        errnos: &[Errno::EPERM],
        when: |case| case.in_new_user() && !case.new_pid(),
        say: "/proc can be mounted only for a pid namespace that the new user namespace owns: add -p",
    },
    Row {
        codes: &["mount-proc"],
        errnos: &[Errno::EPERM],
        when: |case| case.in_new_user() && case.asked.mount_proc_flag,
        say: "parts of /proc are covered here, as in a container (a masked /proc): drop --mount-proc, or run the \
              outer container with an unmasked /proc",
    },
    Row {
        codes: &["mount-proc"],
        errnos: &[Errno::EPERM],
        when: |case| case.in_new_user(),
        say: "parts of /proc are covered here, as in a container (a masked /proc): use --all, which does not mount /proc, or \
              run the outer container with an unmasked /proc",
    },
    Row {
        codes: &["mount-proc", "mount-propagation"],
        errnos: &[Errno::EPERM],
        when: |case| case.asked.rootless,
        say: "you are not root: add -r",
    },
    Row {
        codes: &["time-offsets"],
        errnos: &[Errno::ERANGE],
        when: ALWAYS,
        say: "the shifted clock would be negative, or beyond the kernel's range",
    },
    // In a joined user namespace the stage stays non-dumpable, so that processes there cannot trace it. Its
    // files in /proc then belong to root.
    Row {
        codes: &["time-offsets"],
        errnos: &[Errno::EACCES],
        when: |case| case.asked.rootless && case.asked.joined.contains(NsKind::User),
        say: "together with a joined user namespace only root can set offsets: leave them out, or be root",
    },
    Row {
        codes: &["time-offsets"],
        errnos: DENIED,
        when: ALWAYS,
        say: "time offsets need CAP_SYS_TIME in the user namespace that owns the time namespace: add -r",
    },
    Row {
        codes: &["spawn-stage-1", "spawn-stage-2", "mapping-tool-fork", "start"],
        errnos: &[Errno::EAGAIN],
        when: ALWAYS,
        say: "a limit on processes is reached: ulimit -u, or pids.max of the cgroup",
    },
    Row { codes: OPENING, errnos: &[Errno::EMFILE], when: ALWAYS, say: PROCESS_FILES },
    Row { codes: OPENING, errnos: &[Errno::ENFILE], when: ALWAYS, say: MACHINE_FILES },
    Row {
        codes: &["spawn-stage-2"],
        errnos: &[Errno::ENOMEM],
        when: |case| case.asked.joined.contains(NsKind::Pid),
        say: "the first process of that pid namespace has ended, and so has the namespace",
    },
    // -- the command ----------------------------------------------------------------------------------------
    Row {
        codes: &["exec"],
        errnos: &[Errno::ENOENT],
        when: |case| case.asked.command_path,
        say: "no such file, or the interpreter that it names is missing",
    },
    Row {
        codes: &["exec"],
        errnos: &[Errno::ENOENT],
        when: ALWAYS,
        say: "no such command in PATH, or the interpreter that it names is missing",
    },
    Row {
        codes: &["exec"],
        errnos: &[Errno::EACCES],
        when: ALWAYS,
        say: "it is not executable, or lies on a noexec mount",
    },
];

/// Returns the likely cause of a failure in step `code` with this errno; `None` if the table has no row for
/// it.
pub(crate) fn likely_cause(
    code: &str,
    errno: Option<Errno>,
    asked: Asked,
    machine: &Machine,
) -> Option<String> {
    let case = Case { asked, machine };
    let fits = |row: &&Row| {
        row.codes.contains(&code)
            && (row.errnos.is_empty() || errno.is_some_and(|errno| row.errnos.contains(&errno)))
            && (row.when)(&case)
    };
    ROWS.iter().find(fits).map(|row| fill_placeholders(row.say, &case))
}

/// Replaces the placeholders of a row's text.
fn fill_placeholders(text: &str, case: &Case<'_>) -> String {
    let sysctls: Vec<String> =
        case.forbidden().iter().map(|kind| format!("user.max_{}_namespaces", kind.name())).collect();
    text.replace("{forbidden}", &sysctls.join(" and "))
        .replace("{missing}", &case.missing().to_string())
        .replace("{lacking}", &case.lacking().join(" and "))
        .replace("{uncovered}", case.machine.uncovered.as_deref().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::explain_for;
    use nsexec::launch::script::{FailureKind, Step};
    use nsexec::launch::{LaunchError, Record};
    use nsexec::log::Level;
    use nsexec::sys::types::CloneFlags;

    const USER: Asked = Asked {
        created: NsSet::EMPTY,
        joined: NsSet::EMPTY,
        rootless: true,
        mount_proc_flag: false,
        command_path: false,
    };

    fn cause(code: &str, errno: Errno, asked: Asked, machine: &Machine) -> String {
        likely_cause(code, Some(errno), asked, machine).unwrap_or_default()
    }

    fn created(kinds: &[NsKind]) -> Asked {
        Asked { created: kinds.iter().copied().collect(), ..USER }
    }

    #[test]
    fn ordinary_user_gets_the_hint_to_add_r() {
        let text = cause("unshare-remaining", Errno::EPERM, created(&[NsKind::Net]), &Machine::default());
        assert_eq!(text, "you are not root: add -r, which makes you root of a new user namespace");
    }

    #[test]
    fn proven_cause_comes_before_a_common_one() {
        let asked = created(&[NsKind::User]);
        let usual = cause("unshare-user", Errno::EPERM, asked, &Machine::default());
        assert!(usual.starts_with("this process is in a chroot"), "{usual}");
        let sysctl = Machine { unprivileged_userns_clone: Some(0), seccomp: true, ..Machine::default() };
        assert!(
            cause("unshare-user", Errno::EPERM, asked, &sysctl)
                .starts_with("kernel.unprivileged_userns_clone is 0")
        );
        let seccomp = Machine { seccomp: true, ..Machine::default() };
        assert!(cause("unshare-user", Errno::EPERM, asked, &seccomp).starts_with("a seccomp filter"));
        let apparmor = Machine { apparmor_restricts: Some(1), ..Machine::default() };
        assert!(cause("uid-map", Errno::EACCES, asked, &apparmor).contains("AppArmor"));
    }

    #[test]
    fn limits_and_missing_kinds_are_named() {
        let asked = created(&[NsKind::Net, NsKind::Uts, NsKind::Time]);
        let machine = Machine {
            forbidden: NsSet::EMPTY.with(NsKind::Net).with(NsKind::Ipc),
            kinds: NsSet::ALL,
            ..Machine::default()
        };
        assert_eq!(
            cause("unshare-remaining", Errno::ENOSPC, asked, &machine),
            "user.max_net_namespaces is 0: raise it with sysctl"
        );
        let machine = Machine { kinds: NsSet::ALL.without(NsKind::Time), ..Machine::default() };
        assert_eq!(
            cause("unshare-remaining", Errno::EINVAL, asked, &machine),
            "this kernel has no namespaces of kind time: leave them out"
        );
    }

    #[test]
    fn refused_proc_mount_hint_depends_on_the_flags() {
        let all = created(&NsKind::ALL);
        let refused = |asked| cause("mount-proc", Errno::EPERM, asked, &Machine::default());
        assert!(refused(all).contains("use --all"));
        assert!(refused(Asked { mount_proc_flag: true, ..all }).contains("drop --mount-proc"));
        assert!(refused(created(&[NsKind::User, NsKind::Mnt])).contains("add -p"));
    }

    #[test]
    fn mapping_tool_failure_has_a_cause_without_errno() {
        let asked = created(&[NsKind::User]);
        let cause = |machine: &Machine| likely_cause("mapping-tool-status", None, asked, machine).unwrap();
        assert!(cause(&Machine::default()).contains("/etc/subuid"));
        let uncovered = Some("/etc/subuid gives you no 5000".to_owned());
        assert_eq!(cause(&Machine { uncovered, ..Machine::default() }), "/etc/subuid gives you no 5000");
        assert!(cause(&Machine { no_new_privs: true, ..Machine::default() }).starts_with("no_new_privs"));
    }

    #[test]
    fn hint_names_the_capabilities_that_root_lacks() {
        let root = Asked { rootless: false, ..created(&[NsKind::User]) };
        let cause = |capabilities| {
            let machine = Machine { capabilities, ..Machine::default() };
            cause("mapping-tool-missing", Errno::EPERM, root, &machine)
        };
        assert!(cause(Some(u64::MAX)).contains("uid_map") && cause(None).contains("uid_map"));
        assert!(cause(Some(!0x40)).starts_with("this root lacks CAP_SETGID:"));
        assert!(cause(Some(0)).starts_with("this root lacks CAP_SETGID and CAP_SETUID and CAP_SETFCAP:"));
    }

    #[test]
    fn no_hint_to_create_a_joined_namespace() {
        let text = |asked| cause("time-offsets", Errno::EACCES, asked, &Machine::default());
        let joined = Asked { joined: [NsKind::User].into_iter().collect(), ..created(&[NsKind::Time]) };
        assert!(!text(joined).contains("-r"));
        assert!(text(created(&[NsKind::Time])).contains("add -r"));
    }

    #[test]
    fn unknown_failures_have_no_cause() {
        assert_eq!(likely_cause("sync", Some(Errno::EPERM), USER, &Machine::default()), None);
        assert_eq!(likely_cause("unshare-user", Some(Errno::EIO), USER, &Machine::default()), None);
        assert_eq!(likely_cause("unshare-user", None, USER, &Machine::default()), None);
    }

    /// Returns a failure of this step as the launcher reports it.
    fn failed(code: &str, errno: Option<Errno>) -> LaunchError {
        let os = errno.unwrap_or(Errno::EIO);
        match code {
            "start" => LaunchError::Start { step: Step::MakeInitPipe, errno: os },
            "exec" => LaunchError::Exec { program: "x".into(), errno: os },
            _ => {
                let records = vec![Record {
                    level: Level::Fatal,
                    stage: Some(0),
                    pid: 7,
                    text: "it failed".to_owned(),
                    code: Some(code.to_owned()),
                    errno,
                }];
                let failure =
                    nsexec::launch::script::Failure { kind: FailureKind::NoPidLine, ended: [None; 3] };
                LaunchError::new(failure, records, "".into(), CloneFlags::EMPTY)
            }
        }
    }

    /// Returns the situations that the rows distinguish.
    fn situations() -> Vec<(Asked, Machine)> {
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
        let mut all = Vec::new();
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
                all.extend(machines.iter().map(|machine| (asked, machine.clone())));
            }
        }
        all
    }

    /// Checks that each row, for each of its steps and errnos, is printed in some situation. The text goes
    /// through [`explain_for`], as in the program.
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
                let said = situations.iter().any(|(asked, machine)| {
                    let said = fill_placeholders(row.say, &Case { asked: *asked, machine });
                    let line = explain_for(&failed(code, errno), *asked, || machine.clone()).to_string();
                    line.ends_with(&format!(" ({said})"))
                });
                if !said {
                    unsaid.push(format!("{code} {errno:?}: {}", row.say));
                }
            }
        }
        assert!(unsaid.is_empty(), "{unsaid:#?}");
    }

    /// A row with an unknown code would never be used.
    #[test]
    fn every_code_exists_in_the_library() {
        let source =
            [include_str!("../../../src/error.rs"), include_str!("../../../src/error/doing.rs")].concat();
        for code in ROWS.iter().flat_map(|row| row.codes) {
            assert!(*code == "start" || source.contains(&format!("=> \"{code}\",")), "{code}");
        }
    }
}
