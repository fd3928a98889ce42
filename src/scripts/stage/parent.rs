//! Stage 0, the parent: writes the files of stage 1 that only an outside process may write, and reports both
//! pids.

use super::{Context, StageEnd, child, enter, kill_stages};
use crate::deciders::bootstrap::dialect::PidLine;
use crate::deciders::bootstrap::text::Lossy;
use crate::scripts::map_files::{self, Writing, Written};
use crate::scripts::pipe::{send_all, uninterrupted};
use crate::scripts::procfs::{ProcDir, write_once};
use crate::scripts::sync::{End, OfParent, Pair, SyncMessage};
use crate::sys::Sys;
use crate::sys::types::{CloneFlags, Errno, Fd, Fork, OpenFlags, Pid, PollEvents, PollFd};
use crate::words::error::{Doing, Error, ProcFile, SyncPipe, SyncStep, ToolFailure};
use crate::words::json::{PID_LINE_MAX, pid_line};
use crate::words::log::Log;

/// Creates the sync pipes and stage 1, then serves the requests of stage 1. Stages 1 and 2 return from here
/// too, each in its own process.
///
/// Runs in stage 0, in the caller's namespaces, with the caller's privileges. The launcher waits for the pid
/// line and for the exit status of stage 0.
///
/// # Errors
/// The failure that ends the bootstrap. The stages that exist by then are killed.
pub fn run<'m, S: Sys>(sys: &mut S, log: &mut Log, cx: Context<'_, 'm>) -> Result<StageEnd, Error<'m>> {
    // Two pairs, so that stages 1 and 2 cannot receive each other's messages.
    let to_child = Pair::open(sys, SyncPipe::Child, cx.init_pipe)?;
    let to_init = Pair::open(sys, SyncPipe::Grandchild, cx.init_pipe)?;
    enter(sys, log, 0);
    log.debug(sys, format_args!("spawn stage-1"));
    let forked = sys.clone_sibling(cx.tid).map_err(|errno| Error::Os { doing: Doing::SpawnStage1, errno })?;
    let stage_1 = match forked {
        Fork::Child => {
            log.forked(1);
            return child::run(sys, log, cx, to_child, to_init);
        }
        Fork::Parent { child } => child,
    };
    // First close the other stages' ends: an open copy would hide the death of a stage.
    let child = to_child.into_parent(sys).map_err(|error| kill_stages(sys, &[stage_1], error))?;
    let init = to_init.into_parent(sys).map_err(|error| kill_stages(sys, &[stage_1], error))?;
    let stage_2 = await_stage_2(sys, log, cx, &child, stage_1);
    let Some(stage_2) = stage_2.map_err(|error| kill_stages(sys, &[stage_1], error))? else {
        // This is the mapping tool's process, which has reported why it could not execute the tool.
        return Ok(StageEnd::Exit(1));
    };
    finish_stage_1(sys, log, cx, &child, (stage_1, stage_2))
        .map_err(|error| kill_stages(sys, &[stage_1, stage_2], error))?;
    // From now on the launcher may reap stage 1, and the kernel may give its pid to another process.
    finish_stage_2(sys, log, &init).map_err(|error| kill_stages(sys, &[stage_2], error))?;
    #[cfg(feature = "legacy")]
    crate::legacy::seed::forward_pids(sys, log, cx, stage_1, stage_2)
        .map_err(|error| kill_stages(sys, &[stage_2], error))?;
    log.debug(sys, format_args!("<~ nsexec stage-0"));
    log.report_dropped(sys);
    Ok(StageEnd::Exit(0))
}

/// Serves the requests of stage 1 until it has created stage 2. Returns the pid of stage 2, or `None` in the
/// mapping tool's process.
fn await_stage_2<'m, S: Sys>(
    sys: &mut S,
    log: &mut Log,
    cx: Context<'_, 'm>,
    child: &End<OfParent>,
    stage_1: Pid,
) -> Result<Option<Pid>, Error<'m>> {
    log.debug(sys, format_args!("-> stage-1 synchronisation loop"));
    if serve_stage_1(sys, log, cx, child, stage_1)? == Written::ToolProcess {
        return Ok(None);
    }
    child.expect(sys, SyncMessage::RecvpidPls, SyncStep::Stage1Next)?;
    log.debug(sys, format_args!("stage-1 requested pid to be forwarded"));
    child.expect_pid(sys, SyncStep::Stage2Pid).map(Some)
}

/// Acknowledges the pid of stage 2, writes the pid line, and waits for the completion of stage 1.
fn finish_stage_1<'m, S: Sys>(
    sys: &mut S,
    log: &mut Log,
    cx: Context<'_, 'm>,
    child: &End<OfParent>,
    (stage_1, stage_2): (Pid, Pid),
) -> Result<(), Error<'m>> {
    child.send(sys, SyncMessage::RecvpidAck, SyncStep::WriteRecvpidAck)?;
    if cx.policy.dialect.pid_line == PidLine::Stages {
        forward_pids(sys, log, cx, stage_1, stage_2)?;
    }
    child.expect(sys, SyncMessage::ChildFinish, SyncStep::Stage1Next)?;
    log.debug(sys, format_args!("stage-1 complete"));
    log.debug(sys, format_args!("<- stage-1 synchronisation loop"));
    Ok(())
}

/// Lets stage 2 run and waits for its completion.
fn finish_stage_2<'m, S: Sys>(sys: &mut S, log: &mut Log, init: &End<OfParent>) -> Result<(), Error<'m>> {
    log.debug(sys, format_args!("-> stage-2 synchronisation loop"));
    log.debug(sys, format_args!("signalling stage-2 to run"));
    init.send(sys, SyncMessage::Grandchild, SyncStep::WriteGrandchild)?;
    init.expect(sys, SyncMessage::ChildFinish, SyncStep::Stage2Next)?;
    log.debug(sys, format_args!("stage-2 complete"));
    log.debug(sys, format_args!("<- stage-2 synchronisation loop"));
    Ok(())
}

/// Writes the maps and the time offsets of stage 1 when stage 1 asks for them.
///
/// The file of the offsets is opened together with the maps and written later. After the maps, stage 1 may
/// stay non-dumpable, and its files then belong to root: an unprivileged stage 0 would get `EACCES`
/// (`docs/protocol.md#dumpable`).
pub(crate) fn serve_stage_1<'m, S: Sys>(
    sys: &mut S,
    log: &mut Log,
    cx: Context<'_, 'm>,
    child: &End<OfParent>,
    stage_1: Pid,
) -> Result<Written, Error<'m>> {
    let boot = cx.bootstrap;
    let creates_user = boot.clone_flags().contains(CloneFlags::NEWUSER);
    let needs_files = creates_user || boot.timens_offsets().is_some();
    #[cfg(feature = "legacy")]
    let needs_files = needs_files || boot.mount_sources().is_some();
    if !needs_files {
        return Ok(Written::Done);
    }
    let target =
        ProcDir::open(sys, stage_1).map_err(|error| prefer_death_of_stage_1(sys, child, None, error))?;
    serve_requests(sys, log, cx, child, target)
        .map_err(|error| prefer_death_of_stage_1(sys, child, Some(target), error))
}

fn serve_requests<'m, S: Sys>(
    sys: &mut S,
    log: &mut Log,
    cx: Context<'_, 'm>,
    child: &End<OfParent>,
    target: ProcDir,
) -> Result<Written, Error<'m>> {
    let boot = cx.bootstrap;
    let offsets = boot.timens_offsets();
    let mut offsets_file = None;
    if boot.clone_flags().contains(CloneFlags::NEWUSER) {
        child.expect(sys, SyncMessage::UsermapPls, SyncStep::Stage1Next)?;
        log.debug(sys, format_args!("stage-1 requested userns mappings"));
        if offsets.is_some() {
            offsets_file = Some(target.open_file(sys, ProcFile::TimensOffsets, OpenFlags::ReadWrite)?);
        }
        let setgroups = cx.policy.setgroups;
        let writing =
            Writing { bootstrap: boot, setgroups, stage_1: child.fd(), init_pipe: cx.init_pipe, tid: cx.tid };
        if map_files::write_maps(sys, log, target, writing)? == Written::ToolProcess {
            return Ok(Written::ToolProcess);
        }
        child.send(sys, SyncMessage::UsermapAck, SyncStep::WriteUsermapAck)?;
    }
    if let Some(offsets) = offsets {
        child.expect(sys, SyncMessage::TimeoffsetsPls, SyncStep::Stage1Next)?;
        log.debug(sys, format_args!("stage-1 requested timens offsets to be configured"));
        let (file, pid, text) = (ProcFile::TimensOffsets, target.pid(), Lossy(offsets.text()));
        log.debug(sys, format_args!("update /proc/{pid}/timens_offsets to '{text}'"));
        let fd = match offsets_file {
            Some(fd) => fd,
            None => target.open_file(sys, file, OpenFlags::ReadWrite)?,
        };
        write_once(sys, fd, offsets.text_with_nul(), Doing::Update(pid, file))?;
        child.send(sys, SyncMessage::TimeoffsetsAck, SyncStep::WriteTimeoffsetsAck)?;
    }
    #[cfg(feature = "legacy")]
    crate::legacy::sources::serve(sys, boot, target, child)?;
    target.close(sys);
    Ok(Written::Done)
}

/// Returns the death of stage 1 if that is the cause of `error`; otherwise `error`.
fn prefer_death_of_stage_1<'m, S: Sys>(
    sys: &mut S,
    child: &End<OfParent>,
    target: Option<ProcDir>,
    error: Error<'m>,
) -> Error<'m> {
    if !is_death(sys, child.fd(), target, &error) {
        return error;
    }
    match error {
        Error::MappingTool { kind, pid, .. } => {
            Error::MappingTool { kind, pid, why: ToolFailure::Stage1Died }
        }
        _ => Error::Short { doing: Doing::Sync(SyncStep::Stage1Next), got: 0, want: 4 },
    }
}

/// Returns whether the death of the process whose files are written is the cause of `error`. `peer` is the
/// socket whose other end that process holds.
///
/// The kernel gives the /proc files of an exiting process to root before it closes the process's descriptors
/// (do_exit(): PF_EXITING, exit_mm, exit_files). In between, an open or a write fails as if a privilege were
/// missing, and a mapping tool fails in the same way.
///
/// Runs in stage 0, or in our own launcher, which write these files.
pub(crate) fn is_death<S: Sys>(sys: &mut S, peer: Fd, target: Option<ProcDir>, error: &Error<'_>) -> bool {
    let may_be = match error {
        Error::Os { errno: Errno::EACCES | Errno::EPERM | Errno::ENOENT | Errno::ESRCH, doing } => {
            depends_on_stage_1(doing)
        }
        Error::MappingTool { why: ToolFailure::Ended(_) | ToolFailure::NotPresent, .. } => true,
        _ => false,
    };
    if !may_be {
        return false;
    }
    let known = target.and_then(|target| target.is_exiting(sys));
    known.unwrap_or_else(|| hangs_up(sys, peer))
}

/// Returns whether the step uses a file of stage 1, so that it also fails while stage 1 exits.
const fn depends_on_stage_1(doing: &Doing<'_>) -> bool {
    match doing {
        Doing::OpenProcDir(_) | Doing::Update(..) | Doing::Check(..) | Doing::ReadBack(..) => true,
        #[cfg(feature = "legacy")]
        Doing::Legacy(step) => step.depends_on_stage_1(),
        _ => false,
    }
}

/// The time for which stage 0 waits for the death of stage 1 if its `stat` file cannot be read, in
/// milliseconds. An exiting process closes its descriptors in much less time, if it gets a CPU.
const DEATH_WAIT_MS: i32 = 1000;

/// Returns whether stage 1 closes its end of the sync pipe within [`DEATH_WAIT_MS`]. A running stage 1 keeps
/// its end open until it has sent the pid of stage 2. Unread bytes in the pipe do not count: they may be its
/// request for maps.
fn hangs_up<S: Sys>(sys: &mut S, sync: Fd) -> bool {
    let mut ends = [PollFd::new(sync, PollEvents(0))];
    let polled = uninterrupted(sys, |sys| sys.poll(&mut ends, DEATH_WAIT_MS));
    polled.is_ok() && ends.iter().any(|end| end.revents.contains(PollEvents::HUP))
}

/// Writes the pid line, in one write, after stage 2 exists. Both pids are numbers of stage 0's pid namespace,
/// which is also the launcher's.
fn forward_pids<'m, S: Sys>(
    sys: &mut S,
    log: &mut Log,
    cx: Context<'_, 'm>,
    stage_1: Pid,
    stage_2: Pid,
) -> Result<(), Error<'m>> {
    let mut buffer = [0; PID_LINE_MAX];
    let len = pid_line(&mut buffer, stage_1, stage_2);
    send_pid_line(sys, log, cx, (stage_1, stage_2), buffer.get(..len).unwrap_or_default())
}

pub(crate) fn send_pid_line<'m, S: Sys>(
    sys: &mut S,
    log: &mut Log,
    cx: Context<'_, 'm>,
    (stage_1, stage_2): (Pid, Pid),
    line: &[u8],
) -> Result<(), Error<'m>> {
    log.debug(sys, format_args!("forward stage-1 ({stage_1}) and stage-2 ({stage_2}) pids to runc"));
    send_all(sys, cx.init_pipe, line).map_err(|errno| Error::Os { doing: Doing::PidLine, errno })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scripts::procfs::tests::DIR;
    use crate::sys::MockSys;
    use crate::sys::types::{FsType, WaitStatus};
    use crate::words::error::MapKind;

    /// Returns stage 0's end of the sync pipe, descriptor 6.
    fn end(sys: &mut MockSys) -> End<OfParent> {
        sys.expect_socketpair().once().returning(|| Ok((Fd(5), Fd(6))));
        sys.expect_close().returning(|_| Ok(()));
        Pair::open(sys, SyncPipe::Child, Fd(3)).unwrap().into_parent(sys).unwrap()
    }

    fn stat(sys: &mut MockSys, text: &'static [u8]) {
        sys.expect_openat2().once().withf(|_, path, _| path == c"stat").returning(|_, _, _| Ok(Fd(9)));
        sys.expect_fstatfs().once().returning(|_| Ok(FsType::PROC));
        sys.expect_read().once().returning(|_, buf| {
            buf[..text.len()].copy_from_slice(text);
            Ok(text.len())
        });
    }

    const PID: Pid = Pid(7);
    const DIED: Error<'static> = Error::Short { doing: Doing::Sync(SyncStep::Stage1Next), got: 0, want: 4 };

    fn refused(errno: Errno) -> Error<'static> {
        Error::Os { doing: Doing::Update(PID, ProcFile::Setgroups), errno }
    }

    fn tool(why: ToolFailure) -> Error<'static> {
        Error::MappingTool { kind: MapKind::Uid, pid: PID, why }
    }

    #[test]
    fn refusal_is_reported_only_if_stage_1_is_not_exiting() {
        let failed = tool(ToolFailure::Ended(WaitStatus::Exited(1)));
        for (error, death) in [
            (refused(Errno::EACCES), DIED),
            (refused(Errno::EPERM), DIED),
            (refused(Errno::ENOENT), DIED),
            (refused(Errno::ESRCH), DIED),
            (failed, tool(ToolFailure::Stage1Died)),
            (tool(ToolFailure::NotPresent), tool(ToolFailure::Stage1Died)),
        ] {
            let cases: [(&[u8], _); 2] =
                [(b"7 (a) S 1 2 3 0 -1 64 0", error), (b"7 (a) R 1 2 3 0 -1 68 0", death)];
            for (text, wanted) in cases {
                let mut sys = MockSys::new();
                let child = end(&mut sys);
                stat(&mut sys, text);
                assert_eq!(prefer_death_of_stage_1(&mut sys, &child, Some(DIR), error), wanted);
            }
        }
    }

    #[test]
    fn errors_unrelated_to_the_death_of_stage_1_are_kept() {
        for error in [
            refused(Errno::EINVAL),
            tool(ToolFailure::NotAbsolute),
            tool(ToolFailure::LauncherDied),
            Error::Os { doing: Doing::ToolFork, errno: Errno::EPERM },
            DIED,
        ] {
            let mut sys = MockSys::new();
            let child = end(&mut sys);
            // A read of the stat file would be an unexpected call.
            assert_eq!(prefer_death_of_stage_1(&mut sys, &child, Some(DIR), error), error);
        }
    }

    /// hidepid hides the file, or the directory does not exist: then the hang-up of the sync pipe decides.
    #[test]
    fn sync_pipe_decides_if_the_stat_file_is_unreadable() {
        let error = refused(Errno::EACCES);
        for (target, polled, wanted) in [
            (Some(DIR), Ok(PollEvents::HUP), DIED),
            (None, Ok(PollEvents::HUP), DIED),
            (Some(DIR), Ok(PollEvents(0)), error),
            (None, Err(Errno::ENOMEM), error),
        ] {
            let mut sys = MockSys::new();
            let child = end(&mut sys);
            if target.is_some() {
                sys.expect_openat2().once().returning(|_, _, _| Err(Errno::ENOENT));
            }
            sys.expect_poll().once().returning(|_, _| Err(Errno::EINTR));
            sys.expect_poll().once().returning(move |fds, timeout| {
                // Only the hang-up counts: unread bytes may be stage 1's request for maps.
                assert_eq!((fds[0].fd, fds[0].events, timeout), (Fd(6), PollEvents(0), DEATH_WAIT_MS));
                fds[0].revents = polled?;
                Ok(usize::from(fds[0].revents != PollEvents(0)))
            });
            assert_eq!(prefer_death_of_stage_1(&mut sys, &child, target, error), wanted);
        }
    }
}
