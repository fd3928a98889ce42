//! The mapping tool, newuidmap or newgidmap, for maps that the kernel does not accept from stage 0.

use core::ffi::CStr;
use core::fmt::Write as _;
use core::ops::ControlFlow;

use crate::deciders::bootstrap::Bootstrap;
use crate::deciders::idmap::{EXTENTS_MAX, IdMap, MAP_TEXT_MAX, MapCheck};
use crate::deciders::policy::Setgroups;
use crate::scripts::descriptors::close_on_exec;
use crate::scripts::pipe::uninterrupted;
use crate::scripts::procfs::ProcDir;
use crate::sys::Sys;
use crate::sys::types::{
    Errno, ExecArgs, ExitSignal, Fd, Fork, MaskHow, OpenFlags, Pid, PollEvents, PollFd, SigAction, Signal,
    SignalSet, TidAddress, WaitFor, WaitStatus, Waited,
};
use crate::words::error::{Doing, Error, MapKind, ProcFile, ToolFailure};
use crate::words::json::Line;
use crate::words::log::Log;

/// The parameters of [`write_maps`](super::map_files::write_maps).
#[derive(Clone, Copy, Debug)]
pub struct Writing<'w, 'm> {
    /// The maps and the tools' paths.
    pub bootstrap: &'w Bootstrap<'m>,
    /// The setgroups policy.
    pub setgroups: Setgroups,
    /// Stage 0's end of the sync pipe: it becomes readable when stage 1 dies.
    pub stage_1: Fd,
    /// The init pipe: it is hung up when the launcher dies.
    pub init_pipe: Fd,
    /// The libc's thread id cache, for the fork of the mapping tool's process.
    pub tid: Option<TidAddress>,
}

/// The process that returns from writing the maps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Written {
    /// Stage 0, and the maps are in force.
    Done,
    /// The mapping tool's process, which could not execute the tool and has reported the error.
    ToolProcess,
}

/// The number of argument pointers: path, pid, three numbers for each of 340 lines, and the null pointer.
/// runc's C code has 20 slots: with six lines the null pointer is missing, and from seven on lines are lost
/// (`docs/protocol.md#weaknesses-of-the-c-code`).
pub const ARGV_SLOTS: usize = 2 + 3 * EXTENTS_MAX + 1;

/// The room for the argument strings in bytes: the path, the pid, and numbers that are no longer than the
/// map's text.
pub const ARGV_TEXT: usize = 4096 + 16 + 2 * MAP_TEXT_MAX;

/// Writes the tool's argument strings to `buffer`, each with its NUL: path, pid, and `inside`, `outside` and
/// `count` of every line. Returns the used length, or `None` if they do not fit.
pub fn argv_text(buffer: &mut [u8; ARGV_TEXT], path: &CStr, pid: Pid, map: IdMap<'_>) -> Option<usize> {
    let mut line = Line::new(buffer);
    line.push_bytes(path.to_bytes_with_nul()).ok()?;
    write!(line, "{pid}\0").ok()?;
    for extent in map.extents() {
        write!(line, "{}\0{}\0{}\0", extent.inside, extent.outside, extent.count).ok()?;
    }
    Some(line.len())
}

/// Runs the tool for one map, and checks that the map is the requested one.
///
/// Runs in stage 0, in the caller's namespaces, with the caller's privileges; the tool has more privileges.
/// Stage 1 waits in its new user namespace.
///
/// Not inlined: the buffers for the tool's arguments would be part of stage 0's stack frame.
///
/// # Errors
/// [`Error::MappingTool`] with the reason, or the call that failed.
#[inline(never)]
pub fn run<'m, S: Sys>(
    sys: &mut S,
    log: &mut Log,
    target: ProcDir,
    writing: Writing<'_, 'm>,
    (kind, map, path): (MapKind, IdMap<'m>, &'m CStr),
) -> Result<Written, Error<'m>> {
    let fail = |why| Error::MappingTool { kind, pid: target.pid(), why };
    // The environment is empty, so a name without a directory would not be searched for.
    if !path.to_bytes().starts_with(b"/") {
        return Err(fail(ToolFailure::NotAbsolute));
    }
    let mut text = [0; ARGV_TEXT];
    let mut slots = [None; ARGV_SLOTS];
    let len = argv_text(&mut text, path, target.pid(), map).ok_or(fail(ToolFailure::TooManyArguments))?;
    let argv = ExecArgs::build(text.get(..len).unwrap_or_default(), &mut slots)
        .ok_or(fail(ToolFailure::TooManyArguments))?;

    // If the caller ignores SIGCHLD, the kernel reaps the tool itself and wait4(2) fails with ECHILD
    // (bubblewrap#705).
    let disposition = sys
        .sigaction(Signal::CHLD, SigAction::DEFAULT)
        .map_err(|errno| Error::Os { doing: Doing::ToolWait, errno })?;
    let forked = sys.fork(ExitSignal::Chld, writing.tid);
    let child = match forked.map_err(|errno| Error::Os { doing: Doing::ToolFork, errno })? {
        Fork::Parent { child } => child,
        Fork::Child => {
            // Until its exec this process logs as the stage that created it.
            log.forked(0);
            let error = become_tool(sys, log, disposition, path, &argv);
            log.fatal(sys, &error);
            return Ok(Written::ToolProcess);
        }
    };
    let watched = watch(sys, child, writing.stage_1, writing.init_pipe)?;
    // Only an invalid signal number or pointer makes this fail, and both were valid above.
    let _ = sys.sigaction(Signal::CHLD, disposition);
    match watched {
        ControlFlow::Break(died) => return Err(fail(died)),
        ControlFlow::Continue(WaitStatus::Exited(0)) => {}
        ControlFlow::Continue(status) => return Err(fail(ToolFailure::Ended(status))),
    }
    check(sys, target, kind, map)
}

/// Executes the tool in this process. Returns only if that fails, with the error.
///
/// This process is a child of stage 0 and a copy of it in every respect. The tool may be setuid root. It
/// receives the standard descriptors, an empty environment, and the signal mask and dispositions of the
/// caller.
fn become_tool<'m, S: Sys>(
    sys: &mut S,
    log: &mut Log,
    disposition: SigAction,
    path: &'m CStr,
    argv: &ExecArgs<'_>,
) -> Error<'m> {
    // If these two fail, the tool merely inherits our signal settings.
    let _ = sys.sigaction(Signal::CHLD, disposition);
    let _ = log.restore_signals(sys);
    if let Err(errno) = close_on_exec(sys) {
        return Error::Os { doing: Doing::ToolDescriptors, errno };
    }
    let errno = sys.execve(path, argv, &ExecArgs::EMPTY);
    // Blocked again for the fatal record: without a reader of the log pipe, SIGPIPE would replace the exit
    // status.
    let _ = sys.sigprocmask(MaskHow::Block, SignalSet::PIPE);
    Error::Os { doing: Doing::ToolExec(path.to_bytes()), errno }
}

/// Waits until the tool, stage 1 or the launcher has ended. If stage 1 or the launcher has ended, kills the
/// tool, whose map is no longer needed. Returns the tool's status, or the process that died.
///
/// The poll requests no event of the init pipe, so that only its hang-up ends the wait: unread bytes are for
/// the init. In a run without faults only the tool's pidfd becomes ready, since stage 1 waits for stage 0,
/// and the launcher for stage 1. A pipe or FIFO that stage 0 itself holds open for writing never hangs up.
fn watch<'m, S: Sys>(
    sys: &mut S,
    tool: Pid,
    stage_1: Fd,
    init_pipe: Fd,
) -> Result<ControlFlow<ToolFailure, WaitStatus>, Error<'m>> {
    let Ok(pidfd) = sys.pidfd_open(tool) else { return watch_without_pidfd(sys, tool, stage_1, init_pipe) };
    // The init pipe before stage 1, whose end may be the reason for that of the launcher: see
    // `End::wait_for`.
    let mut ready = [
        PollFd::new(init_pipe, PollEvents::NONE),
        PollFd::new(pidfd, PollEvents::IN),
        PollFd::new(stage_1, PollEvents::IN),
    ];
    let polled = uninterrupted(sys, |sys| sys.poll(&mut ready, -1));
    let _ = sys.close(pidfd);
    let [launcher, ended, stage] = ready;
    let died = match polled {
        // If poll(2) fails, the wait4(2) that follows blocks until the tool has ended.
        Err(_) => None,
        Ok(_) => death(stage, launcher, ended.revents != PollEvents::NONE),
    };
    finish(sys, tool, died)
}

/// Does the same as [`watch`] before Linux 5.3, where poll(2) cannot wait for the end of a process.
fn watch_without_pidfd<'m, S: Sys>(
    sys: &mut S,
    tool: Pid,
    stage_1: Fd,
    init_pipe: Fd,
) -> Result<ControlFlow<ToolFailure, WaitStatus>, Error<'m>> {
    /// The interval between two checks for the end of the tool, in milliseconds.
    const POLL_INTERVAL_MS: i32 = 20;
    loop {
        let waited = wait(sys, tool, WaitFor::OrdinaryNow)?;
        if waited.pid == tool {
            return Ok(ControlFlow::Continue(waited.status));
        }
        let mut ready = [PollFd::new(init_pipe, PollEvents::NONE), PollFd::new(stage_1, PollEvents::IN)];
        let polled = sys.poll(&mut ready, POLL_INTERVAL_MS);
        let [launcher, stage] = ready;
        match polled {
            Err(Errno::EINTR) | Ok(0) => {}
            Err(_) => return finish(sys, tool, None),
            Ok(_) => {
                if let Some(died) = death(stage, launcher, false) {
                    return finish(sys, tool, Some(died));
                }
            }
        }
    }
}

/// Returns the process that died, by the events of stage 1's sync pipe and of the init pipe. If the tool has
/// ended too, a dead launcher is not reported here: the map is in force, and the write of the pid line fails.
fn death(stage_1: PollFd, launcher: PollFd, tool_ended: bool) -> Option<ToolFailure> {
    if stage_1.revents != PollEvents::NONE {
        Some(ToolFailure::Stage1Died)
    } else if !tool_ended && launcher.revents.contains(PollEvents::HUP) {
        Some(ToolFailure::LauncherDied)
    } else {
        None
    }
}

/// Kills the tool if a process has died, and reaps the tool.
fn finish<'m, S: Sys>(
    sys: &mut S,
    tool: Pid,
    died: Option<ToolFailure>,
) -> Result<ControlFlow<ToolFailure, WaitStatus>, Error<'m>> {
    if died.is_some() {
        // The tool is our child and not reaped, so its pid is not used again.
        let _ = sys.kill(tool, Signal::KILL);
    }
    let status = wait(sys, tool, WaitFor::Ordinary)?.status;
    Ok(died.map_or(ControlFlow::Continue(status), ControlFlow::Break))
}

fn wait<'m, S: Sys>(sys: &mut S, child: Pid, which: WaitFor) -> Result<Waited, Error<'m>> {
    let waited = uninterrupted(sys, |sys| sys.wait4(child, which));
    waited.map_err(|errno| Error::Os { doing: Doing::ToolWait, errno })
}

/// Reads the map back and compares it. A tool may exit with status 0 without writing the map, or write a part
/// of it.
#[inline(never)]
fn check<'m, S: Sys>(
    sys: &mut S,
    target: ProcDir,
    kind: MapKind,
    map: IdMap<'m>,
) -> Result<Written, Error<'m>> {
    let file: ProcFile = kind.file();
    let doing = Doing::ReadBack(target.pid(), file);
    let differs =
        |mismatch| Error::MappingTool { kind, pid: target.pid(), why: ToolFailure::WroteOther(mismatch) };
    let fd = target.open_file(sys, file, OpenFlags::ReadOnly)?;
    let mut wanted = MapCheck::new(&map);
    let mut buffer = [0; 1024];
    loop {
        let read = uninterrupted(sys, |sys| sys.read(fd, &mut buffer));
        match read.map_err(|errno| Error::Os { doing, errno })? {
            0 => break,
            len => wanted.feed(buffer.get(..len).unwrap_or_default()).map_err(differs)?,
        }
    }
    let _ = sys.close(fd);
    wanted.finish().map_err(differs)?;
    Ok(Written::Done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::MockSys;
    use std::string::String;
    use std::vec::Vec;

    fn map_of(lines: usize) -> std::ffi::CString {
        let text: String = (0..lines).map(|n| std::format!("{n} {} 1\n", n + 1000)).collect();
        std::ffi::CString::new(text).unwrap()
    }

    #[test]
    fn tool_receives_three_arguments_for_each_of_1_to_340_lines() {
        for lines in 1..=EXTENTS_MAX {
            let text = map_of(lines);
            let map = IdMap::parse(&text).unwrap();
            let mut buffer = [0; ARGV_TEXT];
            let len = argv_text(&mut buffer, c"/usr/bin/newuidmap", Pid(7), map).unwrap();
            let mut slots = [None; ARGV_SLOTS];
            let argv = ExecArgs::build(&buffer[..len], &mut slots).unwrap();
            let strings: Vec<&[u8]> = argv.strings().collect();
            assert_eq!(strings.len(), 2 + 3 * lines);
            assert_eq!(strings[..2], [b"/usr/bin/newuidmap".as_slice(), b"7"]);
            let last = [lines - 1, lines + 999, 1].map(|number| std::format!("{number}").into_bytes());
            assert_eq!(strings[strings.len() - 3..], last);
            assert!(argv.pointers().last().unwrap().is_none());
            assert_eq!(argv.pointers().len(), strings.len() + 1);
        }
    }

    /// Returns the result of [`watch`] if poll reports these events for the init pipe, the tool's pidfd and
    /// stage 1.
    fn watched(events: [PollEvents; 3], kills: usize) -> ControlFlow<ToolFailure, WaitStatus> {
        let mut sys = MockSys::new();
        sys.expect_pidfd_open().once().returning(|_| Ok(Fd(9)));
        sys.expect_poll().once().returning(move |fds, _| {
            // In this order, so that the reason for an end is not missed.
            assert_eq!([fds[0].fd, fds[1].fd, fds[2].fd], [Fd(3), Fd(9), Fd(4)]);
            assert_eq!(fds[0].events, PollEvents(0), "unread bytes in the init pipe are for the init");
            for (fd, events) in fds.iter_mut().zip(events) {
                fd.revents = events;
            }
            Ok(1)
        });
        sys.expect_close().once().returning(|_| Ok(()));
        sys.expect_kill()
            .times(kills)
            .withf(|pid, signal| (*pid, *signal) == (Pid(7), Signal::KILL))
            .returning(|_, _| Ok(()));
        sys.expect_wait4().once().returning(|pid, which| {
            assert_eq!(which, WaitFor::Ordinary);
            Ok(Waited { pid, status: ENDED })
        });
        watch(&mut sys, Pid(7), Fd(4), Fd(3)).unwrap()
    }

    const ENDED: WaitStatus = WaitStatus::Exited(3);

    /// Returns the same before Linux 5.3. The second poll reports these events for the init pipe and stage 1.
    fn watch_result_without_pidfd(
        events: [PollEvents; 2],
        kills: usize,
    ) -> ControlFlow<ToolFailure, WaitStatus> {
        let mut sys = MockSys::new();
        sys.expect_pidfd_open().once().returning(|_| Err(Errno::ENOSYS));
        let mut polls = [[PollEvents::NONE; 2], events].into_iter();
        sys.expect_poll().returning(move |fds, timeout| {
            assert!(timeout > 0);
            let events = polls.next().expect("two looks");
            for (fd, events) in fds.iter_mut().zip(events) {
                fd.revents = events;
            }
            Ok(events.iter().filter(|events| **events != PollEvents::NONE).count())
        });
        let mut looks = 0;
        sys.expect_wait4().returning(move |pid, which| {
            looks += 1;
            // The tool ends by itself after two checks, or it is killed.
            let ended = which == WaitFor::Ordinary || looks > 2;
            Ok(Waited {
                pid: if ended { pid } else { Pid(0) },
                status: if ended { ENDED } else { WaitStatus::Exited(0) },
            })
        });
        sys.expect_kill()
            .times(kills)
            .withf(|pid, signal| (*pid, *signal) == (Pid(7), Signal::KILL))
            .returning(|_, _| Ok(()));
        watch(&mut sys, Pid(7), Fd(4), Fd(3)).unwrap()
    }

    #[test]
    fn tool_is_watched_without_a_pidfd() {
        let died = ControlFlow::Break;
        assert_eq!(
            watch_result_without_pidfd([PollEvents::NONE, PollEvents::IN], 1),
            died(ToolFailure::Stage1Died)
        );
        assert_eq!(
            watch_result_without_pidfd([PollEvents::HUP, PollEvents::NONE], 1),
            died(ToolFailure::LauncherDied)
        );
        assert_eq!(
            watch_result_without_pidfd([PollEvents::NONE, PollEvents::NONE], 0),
            ControlFlow::Continue(ENDED)
        );
    }

    #[test]
    fn tool_is_killed_when_stage_1_or_launcher_dies() {
        const NO: PollEvents = PollEvents(0);
        let died = ControlFlow::Break;
        assert_eq!(watched([NO, NO, PollEvents::IN], 1), died(ToolFailure::Stage1Died));
        // The death of stage 1 is the reason for that of the launcher.
        assert_eq!(watched([PollEvents::HUP, NO, PollEvents::IN], 1), died(ToolFailure::Stage1Died));
        assert_eq!(watched([PollEvents::HUP, NO, NO], 1), died(ToolFailure::LauncherDied));
        assert_eq!(watched([PollEvents::HUP, PollEvents::IN, NO], 0), ControlFlow::Continue(ENDED));
        assert_eq!(watched([NO, PollEvents::IN, NO], 0), ControlFlow::Continue(ENDED));
    }
}
