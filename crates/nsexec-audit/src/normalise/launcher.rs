//! Normalises the launcher's lines that depend on timing: its reads of the log, its polls, and the order of
//! its reaping.

use std::vec::Vec;

use crate::record::{Bytes, Call, Line, Reply};
use nsexec::sys::types::{Fd, Pid, PollEvents, PollFd};

/// Merges all reads of the log pipe into one, with the records sorted. Their order and their division into
/// reads depend on timing.
pub(super) fn merge_log_reads(lines: &mut Vec<Line>) {
    let made = lines.iter().find_map(|line| match (&line.call, &line.reply) {
        (Call::Pipe2, Reply::Pair(read, _)) => Some(*read),
        _ => None,
    });
    // A runtime's launcher has created the pipe before the recording. Then the content of a read identifies
    // it.
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
    // Equal polls are reduced to one. A hang-up counts as readable, since the poll may come before or after
    // the end of the log.
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

/// Reduces each poll to the ready descriptor on which the launcher acts: the others depend on timing. The
/// launcher acts on the init pipe if it is ready, even if the pidfd of a stage is ready too. Otherwise it
/// acts on the first ready descriptor.
/// When the stages have died, the launcher may see the end of the init pipe or the pidfd of stage 0 first.
/// Both become a hang-up of the init pipe.
pub(super) fn reduce_polls(lines: &mut Vec<Line>) {
    let ends = |line: Option<&Line>, wanted: Fd| {
        let read = line.map(|line| (&line.call, &line.reply));
        matches!(read, Some((Call::Read { fd, .. }, Reply::Data(data))) if *fd == wanted && data.0.is_empty())
    };
    // The launcher's last socket pair is the init pipe. After a direct start that was given up it is the
    // second.
    let mut init = None;
    let mut pidfds = Vec::new();
    let mut index = 0;
    while index < lines.len() {
        match &lines[index] {
            Line { call: Call::Socketpair, reply: Reply::Pair(pipe, _) } => init = Some(*pipe),
            Line { call: Call::PidfdOpen { .. }, reply: Reply::Fd(pidfd) } => pidfds.push(*pidfd),
            Line { reply: Reply::ParentOfInit { pidfd, .. }, .. } => pidfds.extend(*pidfd),
            _ => {}
        }
        // The wait for the pid line: the init pipe with the pidfd of a stage, before or after it.
        let polled = match &lines[index].call {
            Call::Poll { fds, .. } => &fds[..],
            _ => &[],
        };
        let place = polled.iter().take(2).position(|fd| Some(fd.fd) == init);
        let wanted = polled.get(place.unwrap_or(0));
        let partner = place.and_then(|place| polled.get(1 - place));
        let has_partner = partner.is_some_and(|fd| pidfds.contains(&fd.fd));
        let next_ends = wanted.is_some_and(|wanted| ends(lines.get(index + 1), wanted.fd));
        if let Line { call: Call::Poll { .. }, reply: Reply::Polled { count, fds } } = &mut lines[index] {
            let is_ready = |fd: &PollFd| fd.revents != PollEvents::NONE;
            let ready_pipe = place.filter(|place| fds.get(*place).is_some_and(is_ready));
            let acted_on = ready_pipe.or_else(|| fds.iter().position(is_ready));
            let as_end = place.is_some_and(|place| next_ends || has_partner && acted_on == Some(1 - place));
            let shown = if as_end { place } else { acted_on };
            // A wrong count stays wrong by the same amount.
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

/// Sorts adjacent waits for any child by pid. wait4 returns any ended child first, so their order depends on
/// timing.
pub(super) fn sort_reaping(lines: &mut [Line]) {
    let reaped = |line: &Line| match (&line.call, &line.reply) {
        (Call::Wait4 { pid: Pid::ANY, .. }, Reply::Waited(waited)) => Some(waited.pid.0),
        _ => None,
    };
    for run in lines.chunk_by_mut(|one, other| reaped(one).is_some() && reaped(other).is_some()) {
        run.sort_by_key(reaped);
    }
}
