//! What in the launcher's own lines depends on who was faster: its reads of the log, its polls, the order of its reaping.

use std::vec::Vec;

use crate::record::{Bytes, Call, Line, Reply};
use nsexec::sys::types::{Fd, Pid, PollEvents, PollFd};

/// How the stages' records come through the log pipe depends on who was faster.
pub(super) fn merge_log_reads(lines: &mut Vec<Line>) {
    let made = lines.iter().find_map(|line| match (&line.call, &line.reply) {
        (Call::Pipe2, Reply::Pair(read, _)) => Some(*read),
        _ => None,
    });
    // A runtime's launcher has made it before anything was recorded; then its records tell.
    let pipe = made.or_else(|| {
        lines.iter().find_map(|line| match (&line.call, &line.reply) {
            (Call::Read { fd, .. }, Reply::Data(data)) if data.0.starts_with(b"{\"level\":") => Some(*fd),
            _ => None,
        })
    });
    let mut all: Vec<u8> = Vec::new();
    let mut first = None;
    let mut index = 0;
    let polls_log = |line: &Line| match &line.call {
        Call::Poll { fds, .. } => pipe.is_some() && fds.first().map(|fd| fd.fd) == pipe,
        _ => false,
    };
    // One poll for each read, with an end of the log or without.
    let mut polled: Option<Line> = None;
    lines.retain_mut(|line| {
        if !polls_log(line) {
            return true;
        }
        if let Reply::Polled { fds, .. } = &mut line.reply {
            if let Some(fd) = fds.first_mut().filter(|fd| fd.revents == PollEvents::HUP) {
                fd.revents = PollEvents::IN;
            }
        }
        let first = polled.as_ref() != Some(&*line);
        if first {
            polled = Some(line.clone());
        }
        first
    });
    lines.retain(|line| {
        let data = match (&line.call, &line.reply) {
            (Call::Read { fd, .. }, Reply::Data(data)) if Some(*fd) == pipe && !data.0.is_empty() => data,
            _ => {
                index += 1;
                return true;
            }
        };
        all.extend(&data.0);
        let keep = first.is_none();
        if keep {
            first = Some(index);
            index += 1;
        }
        keep
    });
    if let Some(Line { reply, .. }) = first.and_then(|index| lines.get_mut(index)) {
        let mut records: Vec<&[u8]> = all.split_inclusive(|byte| *byte == b'\n').collect();
        records.sort_unstable();
        *reply = Reply::Data(Bytes(records.concat()));
    }
}

/// Which of several descriptors are ready depends on who was faster; the launcher acts on the first. And where the stages
/// have died, it sees the end of the init pipe or the pidfd of stage 0 first.
pub(super) fn settle_polls(lines: &mut Vec<Line>) {
    let ends = |line: Option<&Line>, wanted: Fd| {
        let read = line.map(|line| (&line.call, &line.reply));
        matches!(read, Some((Call::Read { fd, .. }, Reply::Data(data))) if *fd == wanted && data.0.is_empty())
    };
    // The launcher's first socket pair is the init pipe.
    let init = lines.iter().find_map(|line| match (&line.call, &line.reply) {
        (Call::Socketpair, Reply::Pair(init, _)) => Some(*init),
        _ => None,
    });
    let mut index = 0;
    while index < lines.len() {
        let next_ends = match &lines[index].call {
            Call::Poll { fds, .. } => fds.first().is_some_and(|first| ends(lines.get(index + 1), first.fd)),
            _ => false,
        };
        if let Line { call: Call::Poll { .. }, reply: Reply::Polled { count, fds } } = &mut lines[index] {
            let is_ready = |fd: &PollFd| fd.revents != PollEvents::NONE;
            let first = fds.iter().position(is_ready);
            // The wait for the pid line: the second descriptor is the pidfd.
            let for_line = init.is_some() && fds.first().map(|fd| fd.fd) == init;
            let as_end = for_line && (next_ends || first == Some(1));
            let shown = if as_end { Some(0) } else { first };
            // The count keeps what it has too much or too little.
            let ready = fds.iter().filter(|fd| is_ready(fd)).count();
            *count = (*count + usize::from(shown.is_some())).saturating_sub(ready);
            for (place, fd) in fds.iter_mut().enumerate() {
                fd.revents = match Some(place) == shown {
                    true if as_end => PollEvents::HUP,
                    true => fd.revents,
                    false => PollEvents::NONE,
                };
            }
            if as_end && next_ends {
                lines.remove(index + 1);
            }
        }
        index += 1;
    }
}

/// Of several that have ended wait4 gives any first: who that is depends on who was faster.
pub(super) fn sort_reaping(lines: &mut [Line]) {
    let reaped = |line: &Line| match (&line.call, &line.reply) {
        (Call::Wait4 { pid: Pid::ANY, .. }, Reply::Waited(waited)) => Some(waited.pid.0),
        _ => None,
    };
    for run in lines.chunk_by_mut(|one, other| reaped(one).is_some() && reaped(other).is_some()) {
        run.sort_by_key(reaped);
    }
}
