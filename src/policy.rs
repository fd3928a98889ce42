//! [`Policy`]: what the bootstrap message cannot say, as data.
//!
//! The core takes the message and a policy. The drop-in uses [`Policy::runc`]; the program and the library
//! make their own, and the plan shows it.

use crate::bootstrap::dialect::Dialect;
use crate::sys::types::Propagation;

/// What stage 2 does about its session (setsid(2)).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Session {
    /// Lead a new one, without a controlling terminal, as runc's init.
    New,
    /// Stay in the caller's, with its controlling terminal, as unshare(1).
    Keep,
}

/// Which user and group a stage is after a user namespace was joined or created, and stage 2 in any case.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Credentials {
    /// User 0 and group 0: stage 1 as soon as it is in the user namespace, stage 2 before it reports that it has finished.
    Root,
    /// User 0 and group 0, and the user namespace itself, as late as possible: right before the command's exec.
    ///
    /// A process of the user namespace has power over stage 2 from the moment it is in that namespace (`CAP_KILL`,
    /// `CAP_SYS_RESOURCE`, `CAP_SYS_NICE`: see SECURITY.md). For our own launcher, where namespaces are joined and none is
    /// created. Otherwise the same as [`Root`](Self::Root): what is created must belong to the joined user namespace and
    /// its root (runc#4466). Where the caller may not join the others without the user namespace's privileges, the user
    /// namespace comes before them, and only the ids come last.
    RootLast,
    /// Whoever the caller is, as `nsenter --preserve-credentials`.
    Keep,
}

/// Which descriptors above 2 the command gets, besides those that are close-on-exec anyway.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Descriptors {
    /// All that the launcher has, as with unshare(1) and nsenter(1).
    All,
    /// Those that were named to the launcher, and no other.
    Named,
}

/// The `setgroups` file of a new user namespace and the supplementary groups of stage 2: the setgroups policy.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Setgroups {
    /// As the message's two flags say: runc's table (spec 3.5).
    FromMessage,
    /// Write "deny", whoever we are; the groups stay.
    Deny,
    /// Never write "deny"; the groups stay.
    Allow,
    /// Nothing is written; stage 2 drops its groups where the namespace lets it, as nsenter(1).
    DropIfAllowed,
}

/// How a log record looks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum LogForm {
    /// `level` and `msg`, as runc's reader decodes it; its own test refuses any other key.
    Runc,
    /// A fatal record also says the step, the object and the errno, for our own launcher.
    Detailed,
}

/// What the message cannot say.
#[derive(Clone, Copy, PartialEq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Policy {
    /// Which release line of runc the launcher speaks.
    #[cfg_attr(feature = "serde", serde(with = "dialect_by_name"))]
    pub dialect: &'static Dialect,
    /// Stage 2's session.
    pub session: Session,
    /// User and group ids.
    pub credentials: Credentials,
    /// The setgroups policy.
    pub setgroups: Setgroups,
    /// The log records.
    pub log_form: LogForm,
    /// In a created mount namespace, before the command: how mount events travel. `None` leaves it as it is.
    pub propagation: Option<Propagation>,
    /// Mount a fresh /proc before the command.
    pub mount_proc: bool,
    /// The command gets SIGKILL when the launcher's thread dies.
    pub kill_child: bool,
    /// The kernel signals each stage when the launcher's thread dies (PR_SET_PDEATHSIG(2const)), so that a stage which
    /// somebody has stopped ends too. For our own launcher, whose thread lives until the command runs.
    #[cfg_attr(feature = "serde", serde(default))]
    pub ends_with_launcher: bool,
    /// The command's descriptors above 2. Our own launcher only.
    #[cfg_attr(feature = "serde", serde(default = "all_descriptors"))]
    pub descriptors: Descriptors,
    /// Every process of a mount namespace that is joined is trusted, so that our own launcher need not run from a sealed
    /// copy (CVE-2019-5736, `cloned`). The drop-in does not look at it: its parent has made the copy.
    #[cfg_attr(feature = "serde", serde(default))]
    pub trusted_mounts: bool,
}

impl Policy {
    /// runc's manners: what a Go runtime expects of the drop-in.
    #[must_use]
    pub const fn runc(dialect: &'static Dialect) -> Self {
        Self {
            dialect,
            session: Session::New,
            credentials: Credentials::Root,
            setgroups: Setgroups::FromMessage,
            log_form: LogForm::Runc,
            propagation: None,
            mount_proc: false,
            kill_child: false,
            ends_with_launcher: false,
            descriptors: Descriptors::All,
            trusted_mounts: false,
        }
    }
}

/// The descriptors of a record of 0.1, which does not name them.
#[cfg(feature = "serde")]
const fn all_descriptors() -> Descriptors {
    Descriptors::All
}

/// A dialect as its name, in a record.
#[cfg(feature = "serde")]
mod dialect_by_name {
    use serde::{Deserialize, Deserializer, Serializer, de};

    use crate::bootstrap::dialect::Dialect;

    pub(super) fn serialize<S: Serializer>(
        dialect: &&'static Dialect,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(dialect.name())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<&'static Dialect, D::Error> {
        let name = std::boxed::Box::<str>::deserialize(deserializer)?;
        Dialect::from_name(&name).ok_or_else(|| de::Error::custom("unknown dialect"))
    }
}
