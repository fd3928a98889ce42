//! [`Cause`] and [`Explanation`]: why a step failed, as data and in words.

use core::fmt;

use std::string::String;
use std::vec::Vec;

/// The cause of a failure.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum Cause {
    /// AppArmor restricts user namespaces: by `kernel.apparmor_restrict_unprivileged_userns`, or by the
    /// profile of this program.
    AppArmor,
    /// `kernel.unprivileged_userns_clone` is 0, on Debian's kernels.
    UsernsSysctl,
    /// SELinux is enforcing.
    SeLinux,
    /// A security module with another name refuses the call.
    SecurityModule,
    /// A seccomp filter refuses the call.
    Seccomp,
    /// The process is in a chroot.
    Chroot,
    /// The caller's own user or group id is not mapped in its user namespace.
    UnmappedCaller,
    /// A limit `user.max_*_namespaces` is 0 or reached.
    Limit,
    /// Too many user namespaces are nested, or a limit of an outer one is reached.
    Nesting,
    /// The kernel lacks the kind of namespace, or the call.
    Kernel,
    /// The caller lacks a capability.
    Privilege,
    /// no_new_privs makes the mapping tool powerless.
    NoNewPrivs,
    /// The mapping tool does not exist.
    NoTool,
    /// The mapping tool has no privileges: a nosuid mount.
    NosuidMount,
    /// The mapping tool has no privileges: it has neither the set-user-id bit nor file capabilities.
    PowerlessTool,
    /// The mapping tool failed for another reason.
    FailedTool,
    /// The group of the caller is not that of its account, so the mapping tools refuse.
    GroupOfAccount,
    /// The caller has no account, so the mapping tools refuse.
    NoAccount,
    /// The user has no subordinate ids, or not those of the map.
    NoSubordinateIds,
    /// The caller's user namespace maps no other id.
    OneId,
    /// Parts of /proc are covered.
    MaskedProc,
    /// /proc is mounted read-only.
    ReadOnlyProc,
    /// /proc is missing, or shows another pid namespace.
    NoProc,
    /// /proc hides the files of the processes (hidepid).
    HiddenProc,
    /// A limit on processes, open files or keys is reached.
    Resources,
    /// The request cannot work on any machine: its values exclude each other, or the kernel accepts none of
    /// them.
    Request,
    /// The namespace, the cgroup, the descriptor or the terminal to use is not one that the kernel accepts.
    Target,
    /// The command does not exist, or cannot be executed.
    Command,
    /// Another cause: the text has the error of the launch.
    Other,
}

/// A cause in words, with its remedy and the facts that prove it. `Display` writes cause and remedy on one
/// line.
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Explanation {
    /// The cause as data.
    pub cause: Cause,
    /// The cause in words.
    pub why: String,
    /// The change that helps, in words. Empty if the cause states it already.
    pub remedy: String,
    /// The facts that prove the cause: files with their values. Empty if no fact proves it.
    pub evidence: Vec<String>,
}

impl Explanation {
    pub(in crate::launch) fn new(cause: Cause, why: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { cause, why: why.into(), remedy: remedy.into(), evidence: Vec::new() }
    }

    /// Adds a second cause that holds at the same time.
    pub(in crate::launch) fn and(mut self, other: Self) -> Self {
        self.why = std::format!("{}; and {}", self.why, other.why);
        self.remedy = std::format!("{}; and {}", self.remedy, other.remedy);
        self.evidence.extend(other.evidence);
        self
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.remedy.as_str() {
            "" => f.write_str(&self.why),
            remedy => write!(f, "{}: {remedy}", self.why),
        }
    }
}
