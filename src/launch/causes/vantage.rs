//! [`Vantage`]: the place of a process, and its text for people. Values only.

use core::fmt;

use std::string::String;
use std::vec::Vec;

/// The place from which the tries were made: the caller, and everything that confines it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
#[non_exhaustive]
pub struct Vantage {
    /// The release of the kernel (uname(2)).
    pub kernel: String,
    /// The effective user id.
    pub uid: u32,
    /// The effective group id.
    pub gid: u32,
    /// The name of the user, if it has an account.
    pub user: Option<String>,
    /// Whether this process is in the machine's first user namespace. `None`: /proc does not show it.
    pub first_user_namespace: Option<bool>,
    /// Whether this process is in the machine's first pid namespace.
    pub first_pid_namespace: Option<bool>,
    /// The traces of a container runtime, each with its file or variable. Empty without a trace.
    pub container: Vec<String>,
    /// Other facts that show a container. A trace alone proves none: an image of a machine may contain the
    /// file of a container runtime.
    pub agreeing: Vec<String>,
    /// Whether this process has changed its root directory. `None`: it is not visible. A root directory that
    /// is a mount point looks like any other.
    pub chroot: Option<bool>,
    /// Whether a seccomp filter is in force.
    pub seccomp: bool,
    /// Whether no_new_privs is set, so that no program gains privileges by its exec.
    pub no_new_privs: bool,
    /// The active security modules (/sys/kernel/security/lsm). Empty: the list cannot be read.
    pub security_modules: Vec<String>,
    /// The label that confines this process in a security module (proc_pid_attr(5)).
    pub profile: Option<String>,
}

impl Vantage {
    /// Returns whether the facts hold for a container or a namespace only, and not for its host.
    #[must_use]
    pub fn is_inside(&self) -> bool {
        self.is_in_container()
            || self.first_user_namespace == Some(false)
            || self.first_pid_namespace == Some(false)
    }

    /// Returns whether two facts that are independent of each other show a container.
    #[must_use]
    pub fn is_in_container(&self) -> bool {
        !self.container.is_empty() && self.container.len() + self.agreeing.len() > 1
    }

    /// Returns the name of the AppArmor profile that is enforced for this process: AppArmor's labels have
    /// their mode in parentheses (aa-status(8)).
    #[must_use]
    pub fn apparmor_profile(&self) -> Option<&str> {
        self.profile.as_deref()?.strip_suffix(" (enforce)")
    }

    /// Returns the facts that this process cannot see, each after "whether it ": it has no /proc of its own,
    /// or a security module hides them.
    #[must_use]
    pub fn unseen(&self) -> Vec<&'static str> {
        let facts = [
            (self.first_user_namespace.is_none(), "is in a user namespace"),
            (self.first_pid_namespace.is_none(), "is in a pid namespace"),
            (self.chroot.is_none() && self.first_user_namespace.is_none(), "is in a chroot"),
            (self.first_user_namespace.is_none() && !self.seccomp, "is under a seccomp filter"),
        ];
        facts.into_iter().filter_map(|(unseen, words)| unseen.then_some(words)).collect()
    }

    /// Writes the sentences about a container, and about facts that are not visible.
    fn write_place(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let traces = self.container.join(", ");
        if self.is_inside() {
            f.write_str("\nThis process is inside a container or a namespace")?;
            if !traces.is_empty() {
                write!(f, " ({traces})")?;
            }
            f.write_str(": the answers hold for this place only, not for its host.")?;
        } else if !traces.is_empty() {
            write!(f, "\nA trace of a container exists ({traces}), but no second fact agrees")?;
            f.write_str(": this is probably not a container.")?;
        }
        let unseen = self.unseen();
        if !unseen.is_empty() {
            write!(f, "\nThis process cannot see whether it {}", unseen.join(", or "))?;
            f.write_str(".")?;
        }
        Ok(())
    }
}

impl fmt::Display for Vantage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.user {
            Some(name) => write!(f, "user {name} ({})", self.uid)?,
            None => write!(f, "user id {}", self.uid)?,
        }
        write!(f, ", Linux {}", self.kernel)?;
        let facts = [
            (self.chroot == Some(true), "in a chroot"),
            (self.seccomp, "under a seccomp filter"),
            (self.no_new_privs, "with no_new_privs"),
            (self.first_user_namespace == Some(false), "in a user namespace"),
            (self.first_pid_namespace == Some(false), "in a pid namespace"),
        ];
        for (_, words) in facts.iter().filter(|(holds, _)| *holds) {
            write!(f, ", {words}")?;
        }
        if let Some(profile) = &self.profile {
            write!(f, ", confined as {profile}")?;
        }
        self.write_place(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    fn seen() -> Vantage {
        Vantage {
            first_user_namespace: Some(true),
            first_pid_namespace: Some(true),
            chroot: Some(false),
            ..Vantage::default()
        }
    }

    #[test]
    fn one_trace_of_a_container_is_weak_evidence() {
        let trace = Vantage { container: ["/.dockerenv exists".into()].into(), ..seen() };
        assert!(!trace.is_inside() && !trace.is_in_container());
        let text = trace.to_string();
        assert!(
            text.contains("A trace of a container exists (/.dockerenv exists), but no second fact"),
            "{text}"
        );
        let agreed =
            Vantage { agreeing: ["the root directory is an overlay".into()].into(), ..trace.clone() };
        assert!(agreed.is_inside() && agreed.to_string().contains("not for its host"), "{agreed}");
        let two = Vantage {
            container: ["/.dockerenv exists".into(), "container=docker in the environment".into()].into(),
            ..seen()
        };
        assert!(two.is_in_container());
        let overlay = Vantage { agreeing: agreed.agreeing.clone(), ..seen() };
        assert!(!overlay.is_inside(), "a live system has an overlay too");
        assert!(Vantage { first_pid_namespace: Some(false), ..trace }.is_inside());
    }

    #[test]
    fn invisible_facts_are_named() {
        assert_eq!(seen().unseen(), [""; 0]);
        let text = Vantage::default().to_string();
        let expected = "cannot see whether it is in a user namespace, or is in a pid namespace, or is in a chroot, or is under a \
                        seccomp filter.";
        assert!(text.contains(expected), "{text}");
    }
}
