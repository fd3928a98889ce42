//! The mapping tool: newuidmap or newgidmap, where the kernel refuses our own write.

use core::ffi::CStr;
use core::fmt::Write as _;
use core::ops::ControlFlow;

use super::write::{Writing, Written};
use super::{IdMap, MAP_TEXT_MAX, MapCheck};
use crate::error::{Doing, Error, MapKind, ProcFile, ToolFailure};
use crate::json::Line;
use crate::log::Log;
use crate::procfs::{self, ProcDir};
use crate::sys::Sys;
use crate::sys::types::{
    Errno, ExecArgs, ExitSignal, Fd, Fork, MaskHow, OpenFlags, Pid, PollEvents, PollFd, SigAction, Signal,
    SignalSet, WaitFor, WaitStatus,
};

/// The tool's path, the pid, three numbers for each of 340 lines, and the null pointer. runc's C has room for 20,
/// so its sixth line loses the null pointer and its seventh line is lost (evidence E1 to E3).
pub const ARGV_SLOTS: usize = 2 + 3 * super::EXTENTS_MAX + 1;

/// Room for the strings: the path, the pid, and numbers that are no longer than the map's text.
pub const ARGV_TEXT: usize = 4096 + 16 + 2 * MAP_TEXT_MAX;

/// The tool's argument strings, one after the other, each with its NUL: `[path, pid, inside, outside, count, …]`.
/// Gives the length used of `buffer`, or `None` if they do not fit.
pub fn argv_text(buffer: &mut [u8; ARGV_TEXT], path: &CStr, pid: Pid, map: IdMap<'_>) -> Option<usize> {
    let mut line = Line::new(buffer);
    line.push_bytes(path.to_bytes_with_nul()).ok()?;
    write!(line, "{pid}\0").ok()?;
    for extent in map.extents() {
        write!(line, "{}\0{}\0{}\0", extent.inside, extent.outside, extent.count).ok()?;
    }
    Some(line.len())
}

/// Runs the tool for one map, and makes sure that the map is what was asked for.
///
/// We are stage 0, in the caller's namespaces, with the caller's privileges; the tool has more of them. Stage 1
/// waits in its new user namespace.
///
/// # Errors
/// [`Error::MappingTool`] with the reason, or the call that failed.
pub fn run<'m, S: Sys>(
    sys: &mut S,
    log: &mut Log,
    target: ProcDir,
    writing: Writing<'_, 'm>,
    (kind, map, path): (MapKind, IdMap<'m>, &'m CStr),
) -> Result<Written, Error<'m>> {
    let fail = |why| Error::MappingTool { kind, pid: target.pid(), why };
    // The environment is empty, so a name without a directory would be looked for nowhere.
    if !path.to_bytes().starts_with(b"/") {
        return Err(fail(ToolFailure::NotAbsolute));
    }
    let mut text = [0; ARGV_TEXT];
    let mut slots = [None; ARGV_SLOTS];
    let len = argv_text(&mut text, path, target.pid(), map).ok_or(fail(ToolFailure::TooManyArguments))?;
    let argv = ExecArgs::build(text.get(..len).unwrap_or_default(), &mut slots)
        .ok_or(fail(ToolFailure::TooManyArguments))?;

    // A caller that ignores SIGCHLD would have the kernel reap the tool, and us wait for nobody (bubblewrap#705).
    let disposition = sys
        .sigaction(Signal::CHLD, SigAction::DEFAULT)
        .map_err(|errno| Error::Os { doing: Doing::ToolWait, errno })?;
    let forked = sys.fork(ExitSignal::Chld, writing.tid);
    let child = match forked.map_err(|errno| Error::Os { doing: Doing::ToolFork, errno })? {
        Fork::Parent { child } => child,
        Fork::Child => {
            // Until its exec it speaks for the stage that made it.
            log.forked(0);
            let error = become_tool(sys, log, disposition, path, &argv);
            log.fatal(sys, &error);
            return Ok(Written::ToolProcess);
        }
    };
    let watched = watch(sys, child, writing.stage_1, writing.init_pipe);
    let status = reap(sys, child)?;
    // Only a wrong argument makes this fail, and it was right a moment ago.
    let _ = sys.sigaction(Signal::CHLD, disposition);
    if let ControlFlow::Break(died) = watched {
        return Err(fail(died));
    }
    if status != WaitStatus::Exited(0) {
        return Err(fail(ToolFailure::Ended(status)));
    }
    check(sys, target, kind, map)
}

/// Turns this process into the tool, or says why not.
///
/// We are a child of stage 0, a copy of it in every respect. The tool may be setuid root: it gets the standard
/// descriptors, an empty environment, and the signals as the caller had them.
fn become_tool<'m, S: Sys>(
    sys: &mut S,
    log: &mut Log,
    disposition: SigAction,
    path: &'m CStr,
    argv: &ExecArgs<'_>,
) -> Error<'m> {
    // A failure of these two would only show the tool our signals.
    let _ = sys.sigaction(Signal::CHLD, disposition);
    let _ = log.restore_signals(sys);
    if let Err(errno) = close_on_exec(sys) {
        return Error::Os { doing: Doing::ToolDescriptors, errno };
    }
    let errno = sys.execve(path, argv, &ExecArgs::EMPTY);
    // Blocked again for the one record that follows: a log pipe without a reader must not hide the status.
    let _ = sys.sigprocmask(MaskHow::Block, SignalSet::PIPE);
    Error::Os { doing: Doing::ToolExec(path.to_bytes()), errno }
}

/// Marks every descriptor from 3 up close-on-exec, in this process only: the stages' own flags are the
/// launcher's business.
fn close_on_exec<S: Sys>(sys: &mut S) -> Result<(), Errno> {
    const FIRST: Fd = Fd(3);
    match sys.close_range_cloexec(FIRST) {
        // Before 5.11, or a seccomp filter that does not know it.
        Err(Errno::ENOSYS | Errno::EINVAL | Errno::EPERM) => {}
        result => return result,
    }
    let dir = procfs::open(sys, c"self/fd", OpenFlags::List)?;
    let mut buffer = [0; 1024];
    loop {
        let len = sys.getdents64(dir, &mut buffer)?;
        let entries = buffer.get(..len).unwrap_or_default();
        if entries.is_empty() {
            // close-on-exec itself.
            return Ok(());
        }
        for fd in descriptors(entries).filter(|fd| *fd >= FIRST) {
            sys.set_cloexec(fd)?;
        }
    }
}

/// The numbers among the names of `linux_dirent64` records (getdents64(2)).
fn descriptors(mut entries: &[u8]) -> impl Iterator<Item = Fd> {
    const NAME: usize = 19;
    core::iter::from_fn(move || {
        let (low, high) = (*entries.get(16)?, *entries.get(17)?);
        let length = usize::from(u16::from_ne_bytes([low, high]));
        let (entry, rest) = entries.split_at_checked(length.max(NAME))?;
        entries = rest;
        let name = CStr::from_bytes_until_nul(entry.get(NAME..)?).ok()?;
        Some(name.to_str().ok().and_then(|name| name.parse().ok()).map(Fd))
    })
    .flatten()
}

/// Waits until the tool has ended, or stage 1, or the launcher: then the tool is killed, since nobody needs its map
/// (evidence E7 and E8).
///
/// Of the init pipe only the hang-up is waited for, with no event asked for: bytes may lie in it that are the init's. In a
/// run without faults the reply never varies: only the tool's pidfd becomes ready, since stage 1 waits for us, and the
/// launcher for stage 1.
fn watch<S: Sys>(sys: &mut S, tool: Pid, stage_1: Fd, init_pipe: Fd) -> ControlFlow<ToolFailure> {
    const NOTHING: PollEvents = PollEvents(0);
    // Before 5.3 there is no pidfd: then the wait alone decides, and a death is noticed after it.
    let Ok(pidfd) = sys.pidfd_open(tool) else { return ControlFlow::Continue(()) };
    let mut ready = [
        PollFd::new(pidfd, PollEvents::IN),
        PollFd::new(stage_1, PollEvents::IN),
        PollFd::new(init_pipe, NOTHING),
    ];
    let polled = loop {
        match sys.poll(&mut ready, -1) {
            Err(Errno::EINTR) => {}
            result => break result,
        }
    };
    let _ = sys.close(pidfd);
    let died = match (polled, ready) {
        (Ok(_), [_, stage, _]) if stage.revents != NOTHING => ToolFailure::Stage1Died,
        // Its map is in force: the pid line will find nobody.
        (Ok(_), [tool, ..]) if tool.revents != NOTHING => return ControlFlow::Continue(()),
        (Ok(_), [.., launcher]) if launcher.revents.contains(PollEvents::HUP) => ToolFailure::LauncherDied,
        _ => return ControlFlow::Continue(()),
    };
    // It is our child and not reaped yet, so the number is still its own.
    let _ = sys.kill(tool, Signal::KILL);
    ControlFlow::Break(died)
}

fn reap<'m, S: Sys>(sys: &mut S, child: Pid) -> Result<WaitStatus, Error<'m>> {
    loop {
        match sys.wait4(child, WaitFor::Ordinary) {
            Ok(waited) => return Ok(waited.status),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(Error::Os { doing: Doing::ToolWait, errno }),
        }
    }
}

/// Reads the map back: a tool that says success and wrote nothing, or less, is noticed here (evidence E5).
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
        match sys.read(fd, &mut buffer) {
            Ok(0) => break,
            Ok(len) => wanted.feed(buffer.get(..len).unwrap_or_default()).map_err(differs)?,
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(Error::Os { doing, errno }),
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
    use mockall::Sequence;
    use std::string::String;
    use std::vec::Vec;

    fn map_of(lines: usize) -> std::ffi::CString {
        let text: String = (0..lines).map(|n| std::format!("{n} {} 1\n", n + 1000)).collect();
        std::ffi::CString::new(text).unwrap()
    }

    #[test]
    fn every_line_is_three_arguments_from_one_line_to_340() {
        for lines in 1..=super::super::EXTENTS_MAX {
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

    #[test]
    fn without_close_range_every_descriptor_is_marked_one_by_one() {
        fn entry(name: &str) -> Vec<u8> {
            let mut entry = std::vec![0; 16];
            let length = (19 + name.len() + 1).next_multiple_of(8);
            entry.extend(u16::try_from(length).unwrap().to_ne_bytes());
            entry.push(0);
            entry.extend(name.as_bytes());
            entry.resize(length, 0);
            entry
        }
        let mut sys = MockSys::new();
        let mut order = Sequence::new();
        sys.expect_close_range_cloexec().once().returning(|_| Err(Errno::ENOSYS));
        sys.expect_openat().once().returning(|_, _, _| Ok(Fd(8)));
        sys.expect_openat2()
            .once()
            .withf(|dir, path, _| *dir == Fd(8) && path == c"self/fd")
            .returning(|_, _, _| Ok(Fd(9)));
        sys.expect_close().once().withf(|fd| *fd == Fd(8)).returning(|_| Ok(()));
        sys.expect_getdents64().once().in_sequence(&mut order).returning(|_, buffer| {
            let listing: Vec<u8> = [".", "..", "0", "2", "3", "17"].into_iter().flat_map(entry).collect();
            buffer[..listing.len()].copy_from_slice(&listing);
            Ok(listing.len())
        });
        sys.expect_getdents64().once().in_sequence(&mut order).returning(|_, _| Ok(0));
        sys.expect_set_cloexec().once().withf(|fd| *fd == Fd(3)).returning(|_| Ok(()));
        sys.expect_set_cloexec().once().withf(|fd| *fd == Fd(17)).returning(|_| Ok(()));
        assert_eq!(close_on_exec(&mut sys), Ok(()));
    }

    /// What comes of a tool when these events come of its pidfd, of stage 1 and of the init pipe.
    fn watched(events: [PollEvents; 3], kills: usize) -> ControlFlow<ToolFailure> {
        let mut sys = MockSys::new();
        sys.expect_pidfd_open().once().returning(|_| Ok(Fd(9)));
        sys.expect_poll().once().returning(move |fds, _| {
            assert_eq!([fds[0].fd, fds[1].fd, fds[2].fd], [Fd(9), Fd(4), Fd(3)]);
            assert_eq!(fds[2].events, PollEvents(0), "what lies in the init pipe is the init's");
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
        watch(&mut sys, Pid(7), Fd(4), Fd(3))
    }

    #[test]
    fn whoever_dies_takes_the_tool_with_it() {
        const NO: PollEvents = PollEvents(0);
        let died = ControlFlow::Break;
        assert_eq!(watched([NO, PollEvents::IN, NO], 1), died(ToolFailure::Stage1Died));
        assert_eq!(watched([NO, NO, PollEvents::HUP], 1), died(ToolFailure::LauncherDied));
        assert_eq!(watched([PollEvents::IN, NO, PollEvents::HUP], 0), ControlFlow::Continue(()));
        assert_eq!(watched([PollEvents::IN, NO, NO], 0), ControlFlow::Continue(()));
    }
}
