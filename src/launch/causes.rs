//! The likely causes of a failed step, as data.

use crate::sys::types::Errno;

/// The code of a step, the error of its call, and the likely cause.
type Cause = (&'static str, Errno, &'static str);

const CAUSES: &[Cause] = &[
    (
        "unshare-user",
        Errno::EPERM,
        "user namespaces are not allowed here: kernel.unprivileged_userns_clone=0, a seccomp filter, or a chroot",
    ),
    ("unshare-user", Errno::EACCES, "AppArmor or SELinux forbids user namespaces to this program"),
    ("unshare-user", Errno::ENOSPC, "user.max_user_namespaces is reached, or 32 of them are nested"),
    ("unshare-user", Errno::EINVAL, "this kernel has no user namespaces, or the caller has threads"),
    (
        "unshare-remaining",
        Errno::EPERM,
        "this needs CAP_SYS_ADMIN: be root, or create a user namespace as well; on Ubuntu AppArmor may take \
         the capabilities in it away (kernel.apparmor_restrict_unprivileged_userns)",
    ),
    ("unshare-remaining", Errno::ENOSPC, "a limit in /proc/sys/user/max_*_namespaces is reached"),
    (
        "unshare-remaining",
        Errno::EINVAL,
        "this kernel lacks one of these kinds, or a pid namespace has been joined or created before",
    ),
    (
        "uid-map",
        Errno::EINVAL,
        "an outside id of the map is not mapped in the parent user namespace, ranges overlap, or the map is too long",
    ),
    (
        "gid-map",
        Errno::EINVAL,
        "an outside id of the map is not mapped in the parent user namespace, ranges overlap, or the map is too long",
    ),
    (
        "mapping-tool-missing",
        Errno::EPERM,
        "only root may map ids other than its own; before an ordinary user maps its own group, setgroups must be denied",
    ),
    ("become-root", Errno::EINVAL, "the map has no id 0"),
    ("oom-score-adj", Errno::EACCES, "lowering it needs CAP_SYS_RESOURCE"),
    ("join", Errno::EPERM, "this needs CAP_SYS_ADMIN in the user namespace that owns it"),
    (
        "join",
        Errno::EINVAL,
        "it is of another kind, it is our own user namespace, or it is a pid namespace \
         that is not below ours",
    ),
    (
        "open-namespace",
        Errno::EACCES,
        "opening the namespaces of a process needs the permission to trace it (ptrace(2))",
    ),
    (
        "mount-proc",
        Errno::EPERM,
        "parts of /proc are masked here, as in a container, or there is no new pid namespace to show: \
         do without a fresh /proc, or run the outer container with an unmasked one",
    ),
    ("pass-descriptor", Errno::EBADF, "it is not open"),
    ("setuid", Errno::EINVAL, "the map has no id 0"),
    ("setgid", Errno::EINVAL, "the map has no id 0"),
    ("mount-propagation", Errno::EINVAL, "the root directory is not a mount point, as in a chroot"),
    ("exec", Errno::ENOEXEC, "it is not in a format that the kernel knows; a script needs a #! line"),
];

/// Returns the likely cause if step `code` fails with `errno`. Codes are those of
/// [`Doing::code`](crate::error::Doing::code).
#[must_use]
pub fn likely(code: &str, errno: Errno) -> Option<&'static str> {
    CAUSES.iter().find(|(known, number, _)| *known == code && *number == errno).map(|(_, _, cause)| *cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_and_errno_has_at_most_one_cause() {
        for (index, (code, errno, _)) in CAUSES.iter().enumerate() {
            assert!(!CAUSES[..index].iter().any(|(c, e, _)| c == code && e == errno), "{code} {errno} twice");
        }
        assert_eq!(likely("become-root", Errno::EINVAL), Some("the map has no id 0"));
        assert_eq!(likely("become-root", Errno::EPERM), None);
    }
}
