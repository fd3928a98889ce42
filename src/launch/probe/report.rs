//! The types of a report, and its text for people. Values only.

use std::string::{String, ToString};
use std::vec::Vec;

use core::fmt;

use crate::deciders::namespace::NsKind;

/// The answers of [`probe`](super::probe()), and the place that they hold for.
///
/// `Display` writes one line for each question, and the cause and the remedy below a "no".
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Report {
    /// The place of this process.
    pub vantage: Vantage,
    /// One answer for each question, in the order of [`Question::all`].
    pub answers: Vec<Answer>,
}

/// The place from which the tries were made: the caller, and everything that confines it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
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
    /// Returns whether the answers hold for a container only, and not for its host.
    #[must_use]
    pub fn is_inside(&self) -> bool {
        !self.container.is_empty()
            || self.first_user_namespace == Some(false)
            || self.first_pid_namespace == Some(false)
    }
}

/// A question of a report.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Question {
    /// Can a namespace of this kind be created?
    Create(NsKind),
    /// Can a namespace of this kind be joined, if this user has created it?
    Join(NsKind),
    /// Can a new user namespace map the caller's own user and group id?
    MapOneId,
    /// Can a new user namespace map a range of user ids?
    MapUserIds,
    /// Can a new user namespace map a range of group ids?
    MapGroupIds,
    /// Can a new file system be mounted in a new mount namespace?
    Mount,
    /// Can a new /proc be mounted in new mount and pid namespaces?
    MountProc,
}

impl Question {
    /// Returns all questions, in the order of a report.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let creating = NsKind::ALL.into_iter().map(Self::Create);
        let joining = NsKind::ALL.into_iter().map(Self::Join);
        let rest = [Self::MapOneId, Self::MapUserIds, Self::MapGroupIds, Self::Mount, Self::MountProc];
        creating.chain(joining).chain(rest).collect()
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create(kind) => write!(f, "create {kind}"),
            Self::Join(kind) => write!(f, "join {kind}"),
            Self::MapOneId => f.write_str("map one id"),
            Self::MapUserIds => f.write_str("map user ids"),
            Self::MapGroupIds => f.write_str("map group ids"),
            Self::Mount => f.write_str("mount"),
            Self::MountProc => f.write_str("mount proc"),
        }
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for Question {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The answer to one question.
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Answer {
    /// The question.
    pub question: Question,
    /// Yes, no, or cannot tell.
    pub verdict: Verdict,
    /// The facts behind the verdict: files with their values, and the results of the tries.
    pub evidence: Vec<String>,
}

/// Yes, no, or cannot tell.
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(tag = "is", rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum Verdict {
    /// A try has succeeded.
    Yes {
        /// It succeeds only together with a new user namespace, or a joined one.
        needs_user_namespace: bool,
    },
    /// All tries have failed.
    No {
        /// The cause as data.
        cause: Cause,
        /// The cause in words.
        why: String,
        /// The change that allows it, in words.
        remedy: String,
    },
    /// The tries do not decide it.
    CannotTell {
        /// The reason.
        why: String,
    },
}

/// The cause of a "no".
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum Cause {
    /// AppArmor restricts user namespaces (`kernel.apparmor_restrict_unprivileged_userns`).
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
    /// The kernel lacks the kind of namespace.
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
    /// The user has no subordinate ids.
    NoSubordinateIds,
    /// The caller's user namespace maps no other id.
    OneId,
    /// Parts of /proc are covered.
    MaskedProc,
    /// /proc is mounted read-only.
    ReadOnlyProc,
    /// /proc is missing, or shows another pid namespace.
    NoProc,
    /// Another cause: the text has the error of the launch.
    Other,
}

impl Report {
    /// Returns the verdict on a question.
    #[must_use]
    pub fn verdict(&self, question: Question) -> Option<&Verdict> {
        self.answers.iter().find(|answer| answer.question == question).map(|answer| &answer.verdict)
    }

    /// Returns whether the answer to a question is yes.
    #[must_use]
    pub fn is_yes(&self, question: Question) -> bool {
        matches!(self.verdict(question), Some(Verdict::Yes { .. }))
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
        if self.is_inside() {
            f.write_str("\nThis process is inside a container or a namespace")?;
            if !self.container.is_empty() {
                write!(f, " ({})", self.container.join(", "))?;
            }
            f.write_str(": the answers hold for this place only, not for its host.")?;
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const WIDTH: usize = 15;
        writeln!(f, "{}", self.vantage)?;
        let mut last: Option<&Verdict> = None;
        for answer in &self.answers {
            write!(f, "{:WIDTH$}", answer.question.to_string())?;
            match &answer.verdict {
                Verdict::Yes { needs_user_namespace: false } => writeln!(f, "yes")?,
                Verdict::Yes { needs_user_namespace: true } => writeln!(f, "yes, with a user namespace")?,
                Verdict::CannotTell { why } => writeln!(f, "cannot tell: {why}")?,
                same @ Verdict::No { .. } if last == Some(same) => writeln!(f, "no: the same cause")?,
                Verdict::No { why, remedy, .. } => {
                    writeln!(f, "no: {why}\n{:WIDTH$}to do: {remedy}", "")?;
                }
            }
            last = Some(&answer.verdict);
        }
        Ok(())
    }
}
