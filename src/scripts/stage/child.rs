//! Stage 1, the child: joins and creates namespaces, and creates stage 2 in them.

use super::{Context, StageEnd, end_with_launcher, enter, init, kill_stages};
use crate::deciders::bootstrap::Bootstrap;
use crate::deciders::namespace::NsKind;
use crate::scripts::join::{Ids, join};
use crate::scripts::sync::{End, OfChild, Pair, SyncMessage};
use crate::scripts::unshare::{UnshareSteps, unshare};
use crate::sys::Sys;
use crate::sys::types::{CloneFlags, Fd, Fork, Pid};
use crate::words::error::{Doing, Error, SyncStep};
use crate::words::log::Log;

/// Joins and creates the namespaces, then creates stage 2. The second fork is needed because a new pid or
/// time namespace applies to children only.
///
/// Runs in stage 1, in the caller's namespaces, with the caller's privileges; not dumpable if the message has
/// namespaces to join. Stage 0 waits for the requests of stage 1.
///
/// # Errors
/// The failure that ends the bootstrap. Stage 2 is killed if it exists by then.
pub fn run<'m, S: Sys>(
    sys: &mut S,
    log: &mut Log,
    cx: Context<'_, 'm>,
    to_child: Pair,
    to_init: Pair,
) -> Result<StageEnd, Error<'m>> {
    // The first call: from here on a stopped stage 1 ends with the launcher.
    end_with_launcher(sys, cx.policy.ends_with_launcher());
    // Before the closes below, so that their failure is logged as a failure of stage 1.
    log.enter_stage(1);
    // Close both ends of stage 0: an open copy would hide the death of stage 0.
    let parent = to_child.into_child(sys)?;
    #[cfg(feature = "legacy")]
    log.set_failure_pipe(cx.policy.dialect, Some(parent.fd()));
    let init_end = to_init.into_child(sys)?;
    enter(sys, log, 1);
    let dialect = cx.policy.dialect;
    let steps = UnshareSteps::new(cx.bootstrap.clone_flags());
    #[cfg(feature = "legacy")]
    let steps = crate::legacy::cgroup::of_stage_1(steps, dialect);
    let user_namespace = join_all(sys, log, cx)?;
    if steps.user {
        create_user_namespace(sys, log, cx, &parent)?;
    }
    // Not merged into the clone: before Linux 3.12, clone(2) failed with CLONE_PARENT and CLONE_NEWPID
    // together.
    log.debug(sys, format_args!("{}", dialect.unshare_remaining_text));
    unshare(sys, steps.remaining)
        .map_err(|errno| Error::Os { doing: Doing::UnshareRemaining(steps.remaining), errno })?;
    if cx.bootstrap.timens_offsets().is_some() {
        // Before the first process enters the new time namespace: after that the kernel refuses to change the
        // offsets.
        log.debug(sys, format_args!("request stage-0 to write timens offsets"));
        parent.send(sys, SyncMessage::TimeoffsetsPls, SyncStep::WriteTimeoffsetsPls)?;
        parent.expect(sys, SyncMessage::TimeoffsetsAck, SyncStep::ReadTimeoffsetsAck)?;
    }
    #[cfg(feature = "legacy")]
    crate::legacy::sources::request(sys, cx, &parent)?;
    log.debug(sys, format_args!("spawn stage-2"));
    let forked = sys.clone_sibling(cx.tid).map_err(|errno| Error::Os { doing: Doing::SpawnStage2, errno })?;
    match forked {
        Fork::Child => {
            log.forked(2);
            init::run(sys, log, cx, parent, init_end, user_namespace)
        }
        Fork::Parent { child: stage_2 } => {
            finish(sys, log, stage_2, &parent, init_end).map_err(|error| kill_stages(sys, &[stage_2], error))
        }
    }
}

/// Joins the namespaces of the message. Returns the user namespace, open, if stage 2 has to join it.
///
/// Runs in stage 1, as [`join`] does.
///
/// # Errors
/// Those of [`join`].
pub(crate) fn join_all<'m, S: Sys>(
    sys: &mut S,
    log: &mut Log,
    cx: Context<'_, 'm>,
) -> Result<Option<Fd>, Error<'m>> {
    let Some(paths) = cx.bootstrap.namespaces() else { return Ok(None) };
    let ids = match (cx.root_last(), cx.root_at_once()) {
        (true, _) => Ids::RootLast,
        (false, true) => Ids::Root,
        (false, false) => Ids::Keep,
    };
    let user_namespace = join(sys, log, paths, cx.policy.dialect, ids)?;
    if paths.kinds().contains(NsKind::User) && user_namespace.is_none() {
        // The change of credentials has cleared the parent-death signal.
        end_with_launcher(sys, cx.policy.ends_with_launcher());
    }
    Ok(user_namespace)
}
/// Creates the user namespace, before and apart from all others, and waits for its maps. The namespaces
/// created later then belong to its root. (An ipc namespace made together with it would get a wrong SELinux
/// label for its mqueue.)
pub(crate) fn create_user_namespace<'m, S: Sys>(
    sys: &mut S,
    log: &mut Log,
    cx: Context<'_, 'm>,
    parent: &End<OfChild>,
) -> Result<(), Error<'m>> {
    log.debug(sys, format_args!("unshare user namespace"));
    unshare(sys, CloneFlags::NEWUSER).map_err(|errno| Error::Os { doing: Doing::UnshareUser, errno })?;
    let window = needs_dumpable_window(cx.bootstrap);
    if window {
        log.debug(sys, format_args!("temporarily set process as dumpable"));
        sys.set_dumpable(true).map_err(|errno| Error::Os { doing: Doing::OpenDumpableWindow, errno })?;
    }
    log.debug(sys, format_args!("request stage-0 to map user namespace"));
    parent.send(sys, SyncMessage::UsermapPls, SyncStep::WriteUsermapPls)?;
    log.debug(sys, format_args!("{}", cx.policy.dialect.awaiting_maps_text));
    parent.expect(sys, SyncMessage::UsermapAck, SyncStep::ReadUsermapAck)?;
    if window {
        log.debug(sys, format_args!("re-set process as non-dumpable"));
        sys.set_dumpable(false).map_err(|errno| Error::Os { doing: Doing::CloseDumpableWindow, errno })?;
    }
    if cx.root_at_once() {
        sys.setresuid(0).map_err(|errno| Error::Os { doing: Doing::BecomeRoot, errno })?;
        end_with_launcher(sys, cx.policy.ends_with_launcher());
    }
    Ok(())
}

/// Returns whether stage 1 makes itself dumpable while stage 0 writes the maps.
///
/// Needed only if stage 0 could not write them otherwise. After a join stage 1 is non-dumpable, so its files
/// in /proc belong to root, and stage 0 is not root. runc does the same for root too.
#[must_use]
pub fn needs_dumpable_window(bootstrap: &Bootstrap<'_>) -> bool {
    bootstrap.namespaces().is_some() && bootstrap.rootless_euid()
}

/// Sends the pid of stage 2 to stage 0 and reports the completion of stage 1. Stage 2 waits meanwhile.
fn finish<'m, S: Sys>(
    sys: &mut S,
    log: &mut Log,
    stage_2: Pid,
    parent: &End<OfChild>,
    init_end: End<OfChild>,
) -> Result<StageEnd, Error<'m>> {
    // Stage 2 has its own copy of this end. An open copy here would hide the death of stage 2 from stage 0.
    init_end.close(sys)?;
    log.debug(sys, format_args!("request stage-0 to forward stage-2 pid ({stage_2})"));
    parent.send(sys, SyncMessage::RecvpidPls, SyncStep::WriteRecvpidPls)?;
    parent.send_pid(sys, stage_2, SyncStep::WriteStage2Pid)?;
    parent.expect(sys, SyncMessage::RecvpidAck, SyncStep::ReadRecvpidAck)?;
    log.debug(sys, format_args!("signal completion to stage-0"));
    parent.send(sys, SyncMessage::ChildFinish, SyncStep::WriteChildFinish)?;
    log.debug(sys, format_args!("<~ nsexec stage-1"));
    log.report_dropped(sys);
    Ok(StageEnd::Exit(0))
}
