//! [`Policy`]: the settings of a bootstrap that the message does not contain.
//!
//! The core receives the message and a policy. The drop-in uses [`Policy::runc`]. The program and the library
//! build their own, and the plan shows it.

use crate::deciders::bootstrap::dialect::Dialect;

/// The session of stage 2 (setsid(2)).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Session {
    /// Lead a new session without a controlling terminal, as runc's init does.
    New,
    /// Stay in the caller's session with its controlling terminal, as unshare(1) does.
    Keep,
}

/// The user and group ids of a stage after it has joined or created a user namespace. They apply to stage 2
/// in any case.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Credentials {
    /// User 0 and group 0. Stage 1 becomes root once it is in the user namespace, stage 2 before it reports
    /// its completion.
    Root,
    /// User 0 and group 0, and the user namespace itself, as late as possible: right before the command's
    /// exec.
    ///
    /// Once stage 2 is in the user namespace, processes there have power over it (`CAP_KILL`,
    /// `CAP_SYS_RESOURCE`, `CAP_SYS_NICE`: see SECURITY.md). This setting is for our own launcher, if it
    /// joins namespaces and creates none. If it creates any, the setting is the same as [`Root`](Self::Root):
    /// the created namespaces must belong to the joined user namespace and its root (runc#4466). If the
    /// caller needs the user namespace's privileges to join the others, the user namespace is joined before
    /// them. Then only the ids change last.
    RootLast,
    /// The caller's ids, as with `nsenter --preserve-credentials`.
    Keep,
}

/// The setgroups policy: the `setgroups` file of a new user namespace and the supplementary groups of stage
/// 2.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Setgroups {
    /// Follow the message's two flags, as runc does (`docs/protocol.md#groups`).
    FromMessage,
    /// Write "deny" with any privileges; the groups are kept.
    Deny,
    /// Never write "deny"; the groups are kept.
    Allow,
    /// Write nothing; stage 2 drops its groups if the namespace allows it, as nsenter(1) does.
    DropIfAllowed,
}

/// The format of log records.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum LogForm {
    /// Only `level` and `msg`, the keys that runc's reader decodes. runc's own test refuses any other key.
    Runc,
    /// A fatal record also has the step, the object and the errno, for our own launcher.
    Detailed,
}

/// The settings of a bootstrap that the message does not contain.
#[derive(Clone, Copy, PartialEq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Policy {
    /// The protocol dialect of the launcher, named after a release line of runc.
    #[cfg_attr(feature = "serde", serde(with = "dialect_by_name"))]
    pub dialect: &'static Dialect,
    /// The session of stage 2.
    pub session: Session,
    /// The user and group ids.
    pub credentials: Credentials,
    /// The setgroups policy.
    pub setgroups: Setgroups,
    /// The format of log records.
    pub log_form: LogForm,
    /// The settings that only our own launcher has.
    #[cfg(feature = "std")]
    #[cfg_attr(feature = "serde", serde(flatten))]
    pub launch: crate::launch::LaunchPolicy,
}

impl Policy {
    /// Returns runc's policy, which a Go runtime expects of the drop-in.
    #[must_use]
    pub const fn runc(dialect: &'static Dialect) -> Self {
        Self {
            dialect,
            session: Session::New,
            credentials: Credentials::Root,
            setgroups: Setgroups::FromMessage,
            log_form: LogForm::Runc,
            #[cfg(feature = "std")]
            launch: crate::launch::LaunchPolicy::NONE,
        }
    }

    /// Returns the policy with this [`dialect`](Self::dialect).
    #[must_use]
    pub const fn with_dialect(mut self, dialect: &'static Dialect) -> Self {
        self.dialect = dialect;
        self
    }

    /// Returns the policy with this [`session`](Self::session).
    #[must_use]
    pub const fn with_session(mut self, session: Session) -> Self {
        self.session = session;
        self
    }

    /// Returns the policy with this [`credentials`](Self::credentials).
    #[must_use]
    pub const fn with_credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = credentials;
        self
    }

    /// Returns the policy with this [`setgroups`](Self::setgroups).
    #[must_use]
    pub const fn with_setgroups(mut self, setgroups: Setgroups) -> Self {
        self.setgroups = setgroups;
        self
    }

    /// Returns the policy with this [`log_form`](Self::log_form).
    #[must_use]
    pub const fn with_log_form(mut self, log_form: LogForm) -> Self {
        self.log_form = log_form;
        self
    }

    /// Returns whether each stage asks the kernel for a signal when the launcher's thread dies.
    #[must_use]
    pub(crate) const fn ends_with_launcher(&self) -> bool {
        #[cfg(feature = "std")]
        return self.launch.ends_with_launcher;
        #[cfg(not(feature = "std"))]
        return false;
    }
}

/// A dialect as its name, in a record.
#[cfg(feature = "serde")]
mod dialect_by_name {
    use serde::{Deserialize, Deserializer, Serializer, de};

    use crate::deciders::bootstrap::dialect::Dialect;

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
