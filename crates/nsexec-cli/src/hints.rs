//! The program's names for the remedies in the texts of [`nsexec::launch::causes`]: its flags.

use nsexec::launch::causes::Remedies;

/// The flags of `run` and `enter`.
pub(crate) const FLAGS: Remedies = Remedies {
    user_namespace: "-r",
    pid_namespace: "-p",
    keep_ids: "enter with --preserve-credentials",
    without_proc: "drop --mount-proc",
    without_default_proc: "use --all, which does not mount /proc",
    path_of_process: "--env takes that of the process",
};

#[cfg(test)]
mod tests {
    use super::*;
    use nsexec::error::Code;
    use nsexec::launch::causes::{Asked, Circumstances, Facts, Uncovered, likely};
    use nsexec::namespace::{NsKind, NsSet};
    use nsexec::sys::types::Errno;

    /// An ordinary user's request without namespaces.
    fn user() -> Asked {
        with(Asked::default(), |asked| asked.rootless = true)
    }

    /// Returns the value after a change. The types can get more fields, so they have no literals here.
    fn with<T>(mut value: T, change: impl FnOnce(&mut T)) -> T {
        change(&mut value);
        value
    }

    fn likely_cause(code: Code, errno: Option<Errno>, asked: Asked, machine: &Facts) -> Option<String> {
        let known = Circumstances::new(asked, machine.clone());
        likely(code, errno, Some(&known), &FLAGS).map(|cause| cause.to_string())
    }

    fn cause(code: Code, errno: Errno, asked: Asked, machine: &Facts) -> String {
        likely_cause(code, Some(errno), asked, machine).unwrap_or_default()
    }

    fn created(kinds: &[NsKind]) -> Asked {
        with(user(), |new| {
            new.created = kinds.iter().copied().collect();
        })
    }

    #[test]
    fn ordinary_user_gets_the_hint_to_add_r() {
        let text = cause(Code::UnshareRemaining, Errno::EPERM, created(&[NsKind::Net]), &Facts::default());
        assert_eq!(text, "you are not root: add -r, which makes you root of a new user namespace");
    }

    #[test]
    fn proven_cause_comes_before_a_common_one() {
        let asked = created(&[NsKind::User]);
        let usual = cause(Code::UnshareUser, Errno::EPERM, asked, &Facts::default());
        assert!(usual.starts_with("this process is in a chroot"), "{usual}");
        let sysctl = with(Facts::default(), |new| {
            new.userns_clone = Some(0);
            new.vantage.seccomp = true;
        });
        assert!(
            cause(Code::UnshareUser, Errno::EPERM, asked, &sysctl)
                .starts_with("kernel.unprivileged_userns_clone is 0")
        );
        let seccomp = with(Facts::default(), |new| {
            new.vantage.seccomp = true;
        });
        assert!(cause(Code::UnshareUser, Errno::EPERM, asked, &seccomp).starts_with("a seccomp filter"));
        let apparmor = with(Facts::default(), |new| {
            new.apparmor_restricts = Some(1);
        });
        assert!(cause(Code::UidMap, Errno::EACCES, asked, &apparmor).contains("AppArmor"));
    }

    #[test]
    fn limits_and_missing_kinds_are_named() {
        let asked = created(&[NsKind::Net, NsKind::Uts, NsKind::Time]);
        let machine = with(Facts::default(), |new| {
            new.limits = [("net".to_owned(), 0), ("ipc".to_owned(), 0)].into();
            new.kinds = NsSet::ALL;
        });
        assert_eq!(
            cause(Code::UnshareRemaining, Errno::ENOSPC, asked, &machine),
            "user.max_net_namespaces is 0: as root: sysctl user.max_net_namespaces=16384"
        );
        let machine = with(Facts::default(), |new| {
            new.kinds = NsSet::ALL.without(NsKind::Time);
        });
        assert_eq!(
            cause(Code::UnshareRemaining, Errno::EINVAL, asked, &machine),
            "this kernel has no time namespaces: leave them out, or use a kernel that is built with them"
        );
    }

    #[test]
    fn refused_proc_mount_hint_depends_on_the_flags() {
        let all = created(&NsKind::ALL);
        let refused = |asked| cause(Code::MountProc, Errno::EPERM, asked, &Facts::default());
        assert!(refused(all).contains("use --all"));
        assert!(
            refused(with(all, |new| {
                new.mount_proc_flag = true;
            }))
            .contains("drop --mount-proc")
        );
        assert!(refused(created(&[NsKind::User, NsKind::Mnt])).contains("add -p"));
    }

    #[test]
    fn mapping_tool_failure_has_a_cause_without_errno() {
        let asked = created(&[NsKind::User]);
        let cause = |machine: &Facts| likely_cause(Code::MappingToolStatus, None, asked, machine).unwrap();
        assert!(cause(&Facts::default()).contains("/etc/subuid"));
        let uncovered = with(asked, |asked| {
            asked.uncovered = Some(Uncovered { groups: false, first: 5000, last: 5000 });
        });
        let text = likely_cause(Code::MappingToolStatus, None, uncovered, &Facts::default()).unwrap();
        assert!(text.starts_with("/etc/subuid does not give you the user id 5000: "), "{text}");
        assert!(
            cause(&with(Facts::default(), |new| {
                new.vantage.no_new_privs = true;
            }))
            .starts_with("no_new_privs")
        );
    }

    #[test]
    fn hint_names_the_capabilities_that_root_lacks() {
        let root = with(created(&[NsKind::User]), |new| {
            new.rootless = false;
        });
        let cause = |capabilities| {
            let machine = with(Facts::default(), |new| {
                new.capabilities = capabilities;
            });
            cause(Code::MappingToolMissing, Errno::EPERM, root, &machine)
        };
        assert!(cause(Some(u64::MAX)).contains("uid_map") && cause(None).contains("uid_map"));
        assert!(cause(Some(!0x40)).starts_with("this root lacks CAP_SETGID:"));
        assert!(cause(Some(0)).starts_with("this root lacks CAP_SETGID and CAP_SETUID and CAP_SETFCAP:"));
    }

    #[test]
    fn no_hint_to_create_a_joined_namespace() {
        let text = |asked| cause(Code::TimeOffsets, Errno::EACCES, asked, &Facts::default());
        let joined = with(created(&[NsKind::Time]), |new| {
            new.joined = [NsKind::User].into_iter().collect();
        });
        assert!(!text(joined).contains("-r"));
        assert!(text(created(&[NsKind::Time])).contains("add -r"));
    }

    #[test]
    fn unknown_failures_have_no_cause() {
        assert_eq!(likely_cause(Code::Sync, Some(Errno::EPERM), user(), &Facts::default()), None);
        assert_eq!(likely_cause(Code::UnshareUser, Some(Errno::EIO), user(), &Facts::default()), None);
        assert_eq!(likely_cause(Code::UnshareUser, None, user(), &Facts::default()), None);
    }
}
