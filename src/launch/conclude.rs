//! The end of a launch, in the launcher: it reads the log pipe until the exec, and ends a failed launch. Each
//! shape of a start uses it.

use super::outcome::{Failure, FailureKind, Launched, WaitedFor};
use super::pipes::{LogReader, Pipes, close, read_some};
use super::stages::Stages;
use super::watch::Watch;
use crate::sys::Sys;
use crate::sys::types::{Fd, Pid, PollEvents, PollFd};

/// Reads the log until the command runs or the launch has failed, and ends a failed launch. Afterwards all
/// descriptors are closed. `started` is the pid of the process that becomes the command, once it has the go
/// byte.
///
/// Runs in the launcher, in the caller's namespaces, with the caller's privileges. Waits until every process
/// has closed the log, by its exec or its end, or until a signal or the timer ends the launch.
pub(super) fn conclude<S: Sys, L: LogReader>(
    sys: &mut S,
    (pipes, stages): (Pipes, &mut Stages),
    watch: &mut Watch,
    log: &mut L,
    started: Result<Pid, FailureKind>,
) -> Launched {
    // Reads until the command's exec: the log pipe is close-on-exec, and the process that becomes the command
    // is the last one that holds it.
    let logged = started.and_then(|pid| read_log(sys, watch, pipes.log, log).map(|()| pid));
    let kind = match logged {
        Ok(_) if log.fatal() => Some(FailureKind::FatalRecord),
        Ok(pid) => stages.check_last(sys, watch, pid).err(),
        Err(kind) => Some(kind),
    };
    if let Some(kind) = kind {
        stages.end(sys, kind, pipes, log);
    }
    close(sys, pipes.log);
    if kind.is_none() {
        // Closed only now. The command's process takes an open end as a sign that the launcher is alive.
        close(sys, pipes.init);
    }
    stages.close(sys);
    match (logged, kind) {
        (Ok(pid), None) => Launched::Started { pid },
        (_, kind) => {
            let kind = kind.unwrap_or(FailureKind::StageFailed);
            Launched::Failed(Failure { kind, ended: stages.ended() })
        }
    }
}

/// Reads the log to its end: until each process of the launch has ended or executed the command.
fn read_log<S: Sys, L: LogReader>(
    sys: &mut S,
    watch: &mut Watch,
    fd: Fd,
    log: &mut L,
) -> Result<(), FailureKind> {
    watch.waits_for = WaitedFor::Exec;
    loop {
        watch.wait(sys, PollFd::new(fd, PollEvents::IN), None)?;
        if !read_some(sys, fd, log) {
            return Ok(());
        }
    }
}
