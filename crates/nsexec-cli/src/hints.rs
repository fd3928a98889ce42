//! The program's names for the remedies in the texts of [`nsexec::launch::causes`]: its flags.

use nsexec::launch::causes::Remedies;

/// The flags of `run` and `enter`.
pub(crate) const FLAGS: Remedies = Remedies {
    user_namespace: "-r",
    pid_namespace: "-p",
    keep_ids: "enter with --preserve-credentials",
    without_proc: "drop --mount-proc",
    without_default_proc: "use --all, which does not mount /proc",
};

#[cfg(test)]
mod tests {
    use super::*;
    use nsexec::error::Code;
    use nsexec::launch::causes::{Asked, Circumstances, Machine, likely};
    use nsexec::namespace::{NsKind, NsSet};
    use nsexec::sys::types::Errno;

    const USER: Asked = Asked {
        created: NsSet::EMPTY,
        joined: NsSet::EMPTY,
        rootless: true,
        mount_proc_flag: false,
        command_path: false,
    };

    fn likely_cause(code: Code, errno: Option<Errno>, asked: Asked, machine: &Machine) -> Option<String> {
        likely(code, errno, Some(&Circumstances { asked, machine: machine.clone() }), &FLAGS)
    }

    fn cause(code: Code, errno: Errno, asked: Asked, machine: &Machine) -> String {
        likely_cause(code, Some(errno), asked, machine).unwrap_or_default()
    }

    fn created(kinds: &[NsKind]) -> Asked {
        Asked { created: kinds.iter().copied().collect(), ..USER }
    }

    #[test]
    fn ordinary_user_gets_the_hint_to_add_r() {
        let text = cause(Code::UnshareRemaining, Errno::EPERM, created(&[NsKind::Net]), &Machine::default());
        assert_eq!(text, "you are not root: add -r, which makes you root of a new user namespace");
    }

    #[test]
    fn proven_cause_comes_before_a_common_one() {
        let asked = created(&[NsKind::User]);
        let usual = cause(Code::UnshareUser, Errno::EPERM, asked, &Machine::default());
        assert!(usual.starts_with("this process is in a chroot"), "{usual}");
        let sysctl = Machine { unprivileged_userns_clone: Some(0), seccomp: true, ..Machine::default() };
        assert!(
            cause(Code::UnshareUser, Errno::EPERM, asked, &sysctl)
                .starts_with("kernel.unprivileged_userns_clone is 0")
        );
        let seccomp = Machine { seccomp: true, ..Machine::default() };
        assert!(cause(Code::UnshareUser, Errno::EPERM, asked, &seccomp).starts_with("a seccomp filter"));
        let apparmor = Machine { apparmor_restricts: Some(1), ..Machine::default() };
        assert!(cause(Code::UidMap, Errno::EACCES, asked, &apparmor).contains("AppArmor"));
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
            cause(Code::UnshareRemaining, Errno::ENOSPC, asked, &machine),
            "user.max_net_namespaces is 0: raise it with sysctl"
        );
        let machine = Machine { kinds: NsSet::ALL.without(NsKind::Time), ..Machine::default() };
        assert_eq!(
            cause(Code::UnshareRemaining, Errno::EINVAL, asked, &machine),
            "this kernel has no namespaces of kind time: leave them out"
        );
    }

    #[test]
    fn refused_proc_mount_hint_depends_on_the_flags() {
        let all = created(&NsKind::ALL);
        let refused = |asked| cause(Code::MountProc, Errno::EPERM, asked, &Machine::default());
        assert!(refused(all).contains("use --all"));
        assert!(refused(Asked { mount_proc_flag: true, ..all }).contains("drop --mount-proc"));
        assert!(refused(created(&[NsKind::User, NsKind::Mnt])).contains("add -p"));
    }

    #[test]
    fn mapping_tool_failure_has_a_cause_without_errno() {
        let asked = created(&[NsKind::User]);
        let cause = |machine: &Machine| likely_cause(Code::MappingToolStatus, None, asked, machine).unwrap();
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
            cause(Code::MappingToolMissing, Errno::EPERM, root, &machine)
        };
        assert!(cause(Some(u64::MAX)).contains("uid_map") && cause(None).contains("uid_map"));
        assert!(cause(Some(!0x40)).starts_with("this root lacks CAP_SETGID:"));
        assert!(cause(Some(0)).starts_with("this root lacks CAP_SETGID and CAP_SETUID and CAP_SETFCAP:"));
    }

    #[test]
    fn no_hint_to_create_a_joined_namespace() {
        let text = |asked| cause(Code::TimeOffsets, Errno::EACCES, asked, &Machine::default());
        let joined = Asked { joined: [NsKind::User].into_iter().collect(), ..created(&[NsKind::Time]) };
        assert!(!text(joined).contains("-r"));
        assert!(text(created(&[NsKind::Time])).contains("add -r"));
    }

    #[test]
    fn unknown_failures_have_no_cause() {
        assert_eq!(likely_cause(Code::Sync, Some(Errno::EPERM), USER, &Machine::default()), None);
        assert_eq!(likely_cause(Code::UnshareUser, Some(Errno::EIO), USER, &Machine::default()), None);
        assert_eq!(likely_cause(Code::UnshareUser, None, USER, &Machine::default()), None);
    }
}
