//! Stage 2, the init: waits for stage 0, changes session and ids, and returns to its caller.

use super::{Context, StageEnd, end_with_launcher, enter};
use crate::deciders::bootstrap::Bootstrap;
use crate::deciders::namespace::NsKind;
use crate::deciders::policy::{Session, Setgroups};
use crate::scripts::sync::{End, OfChild, SyncMessage};
use crate::sys::Sys;
use crate::sys::types::{Errno, Fd};
use crate::words::error::{Doing, Error, SyncStep};
use crate::words::log::Log;

/// Whether stage 2 drops its supplementary groups, and whether a refusal is an error.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum DropGroups {
    /// The groups are kept.
    No,
    /// The groups are dropped. A refusal ends the bootstrap.
    Yes,
    /// The groups are dropped unless the namespace forbids it.
    IfAllowed,
}

/// Returns whether stage 2 drops its groups: by the policy, or by runc's rules (`docs/protocol.md#groups`).
#[must_use]
pub fn drop_groups(policy: Setgroups, bootstrap: &Bootstrap<'_>) -> DropGroups {
    match policy {
        // If the launcher is not root, setgroups(2) is denied, or newgidmap has decided whether to deny it.
        Setgroups::FromMessage if bootstrap.setgroup() && !bootstrap.rootless_euid() => DropGroups::Yes,
        Setgroups::FromMessage | Setgroups::Deny | Setgroups::Allow => DropGroups::No,
        Setgroups::DropIfAllowed => DropGroups::IfAllowed,
    }
}

/// Waits for stage 0's message, then becomes session leader, and root unless the policy leaves that to
/// [`LastSteps`]. `user_namespace` is the user namespace that stage 1 has opened for [`LastSteps`] and not
/// joined.
///
/// Runs in stage 2, in every requested namespace, with the privileges there; as pid 1 if the pid namespace is
/// new. Waits for stage 0's message before any irreversible step, because the launcher may give up until
/// then. Stage 0 waits for the completion of stage 2.
///
/// # Errors
/// The failure that ends the bootstrap.
pub fn run<'m, S: Sys>(
    sys: &mut S,
    log: &mut Log,
    cx: Context<'_, 'm>,
    stage_1s_end: End<OfChild>,
    parent: End<OfChild>,
    user_namespace: Option<Fd>,
) -> Result<StageEnd, Error<'m>> {
    // The first call: from here on a stopped stage 2 ends with the launcher.
    end_with_launcher(sys, cx.policy.ends_with_launcher());
    // Before the close below, so that its failure is logged as a failure of stage 2.
    log.enter_stage(2);
    stage_1s_end.close(sys)?;
    #[cfg(feature = "legacy")]
    log.set_failure_pipe(cx.policy.dialect, Some(parent.fd()));
    enter(sys, log, 2);
    parent.expect(sys, SyncMessage::Grandchild, SyncStep::ReadGrandchild)?;
    let os = |doing| move |errno| Error::Os { doing, errno };
    if cx.policy.session == Session::New {
        sys.setsid().map_err(os(Doing::Setsid))?;
    }
    if cx.root_at_once() {
        become_root(sys, drop_groups(cx.policy.setgroups, cx.bootstrap), cx.policy.ends_with_launcher())?;
    }
    #[cfg(feature = "legacy")]
    crate::legacy::cgroup::create(sys, log, cx)?;
    log.debug(sys, format_args!("signal completion to stage-0"));
    parent.send(sys, SyncMessage::ChildFinish, SyncStep::WriteChildFinish)?;
    #[cfg(feature = "legacy")]
    log.set_failure_pipe(cx.policy.dialect, None);
    parent.close(sys)?;
    log.debug(sys, format_args!("<= nsexec container setup"));
    log.debug(sys, format_args!("booting up go runtime ..."));
    log.report_dropped(sys);
    log.restore_signals(sys).map_err(os(Doing::RestoreSignals))?;
    Ok(StageEnd::HandOver(LastSteps::of(cx, user_namespace)))
}

/// Sets user id 0, group id 0 and the supplementary groups, in the current user namespace.
///
/// Runs in stage 2, or as the command's process of a direct start, in its user namespace.
///
/// # Errors
/// [`Doing::Setuid`], [`Doing::Setgid`] or [`Doing::Setgroups`].
pub(crate) fn become_root<'m, S: Sys>(
    sys: &mut S,
    dropping: DropGroups,
    ends_with_launcher: bool,
) -> Result<(), Error<'m>> {
    let os = |doing| move |errno| Error::Os { doing, errno };
    sys.setuid(0).map_err(os(Doing::Setuid))?;
    end_with_launcher(sys, ends_with_launcher);
    sys.setgid(0).map_err(os(Doing::Setgid))?;
    end_with_launcher(sys, ends_with_launcher);
    if dropping != DropGroups::No {
        match sys.drop_groups() {
            // The namespace denies setgroups permanently, or has no group map.
            Err(Errno::EPERM) if dropping == DropGroups::IfAllowed => {}
            dropped => dropped.map_err(os(Doing::Setgroups))?,
        }
    }
    Ok(())
}

/// The steps of stage 2 that [`Credentials::RootLast`](crate::policy::Credentials::RootLast) delays until the
/// go byte has arrived, a few calls before the exec.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct LastSteps {
    /// The user namespace to join; `None` if stage 1 has joined it.
    user_namespace: Option<Fd>,
    /// Whether the supplementary groups are dropped.
    dropping: DropGroups,
    /// Whether stage 2 ends with the launcher.
    ends_with_launcher: bool,
}

impl LastSteps {
    /// Returns the last steps, or `None` if stage 2 becomes root before its mounts, or never.
    /// `user_namespace` is the user namespace that stage 1 has opened and not joined.
    pub(crate) fn of(cx: Context<'_, '_>, user_namespace: Option<Fd>) -> Option<Self> {
        cx.root_last().then(|| Self {
            user_namespace,
            dropping: drop_groups(cx.policy.setgroups, cx.bootstrap),
            ends_with_launcher: cx.policy.ends_with_launcher(),
        })
    }

    /// Joins the user namespace, unless stage 1 has joined it, and becomes its root.
    ///
    /// Runs in stage 2, in all other namespaces, with the caller's ids and privileges, not dumpable; the
    /// launcher has sent the go byte. `path` is the path of the user namespace, for the error.
    ///
    /// Each change of ids clears the parent-death signal (PR_SET_PDEATHSIG(2const)), so it is set again after
    /// each.
    ///
    /// # Errors
    /// [`Error::NotJoined`] for `EPERM` of the join, [`Doing::Join`] for its other errors, or the error of a
    /// change of ids.
    pub fn take<'m, S: Sys>(self, sys: &mut S, path: &'m [u8]) -> Result<(), Error<'m>> {
        if let Some(fd) = self.user_namespace {
            let kind = NsKind::User;
            sys.setns(fd, kind.flag()).map_err(|errno| match errno {
                Errno::EPERM => Error::NotJoined { kind, path },
                errno => Error::Os { doing: Doing::Join(kind, path), errno },
            })?;
            // close(2) frees the number also if it fails. The exec would close the descriptor too.
            let _ = sys.close(fd);
            end_with_launcher(sys, self.ends_with_launcher);
        }
        become_root(sys, self.dropping, self.ends_with_launcher)
    }
}
