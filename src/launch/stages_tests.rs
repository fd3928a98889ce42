use std::sync::{Arc, Mutex};
use std::vec::Vec;
use std::{format, string::String};

use super::*;
use crate::sys::MockSys;
use mockall::Sequence;

fn note_kills_and_closes(sys: &mut MockSys, seen: &Arc<Mutex<Vec<String>>>) {
    let say = Arc::clone(seen);
    sys.expect_kill().returning(move |pid, signal| {
        say.lock().unwrap().push(format!("kill {pid} {signal}"));
        Ok(())
    });
    let say = Arc::clone(seen);
    sys.expect_close().returning(move |fd| {
        say.lock().unwrap().push(format!("close {}", fd.0));
        Ok(())
    });
}

const WANTED: Fd = Fd(3);
const DEATH: Fd = Fd(5);
const INTERRUPT: Fd = Fd(7);
const TIMER: Fd = Fd(8);

/// Returns the result of a wait. Each poll reports these events of the wanted descriptor, the pidfd, the
/// signalfd and the timer. Each read of the signalfd returns `record`.
fn waited(
    polls: &'static [Result<[i16; 4], Errno>],
    record: Result<u32, Errno>,
) -> Result<Ready, FailureKind> {
    let mut sys = MockSys::new();
    let mut polls = polls.iter();
    sys.expect_poll().returning(move |fds, timeout| {
        assert_eq!(timeout, -1);
        // The pidfd comes first: if poll(2) finds the end of a process, it then also finds the data that the
        // process sent before.
        assert_eq!([fds[0].fd, fds[1].fd], [DEATH, WANTED]);
        let events = (*polls.next().expect("no such poll"))?;
        for fd in fds.iter_mut() {
            let place = [WANTED, DEATH, INTERRUPT, TIMER].iter().position(|known| *known == fd.fd);
            fd.revents = PollEvents(events[place.expect("a known descriptor")]);
        }
        Ok(1)
    });
    sys.expect_read().withf(|fd, _| *fd == INTERRUPT).returning(move |_, buffer| {
        buffer[..4].copy_from_slice(&record?.to_ne_bytes());
        Ok(128)
    });
    let mut watch = Watch::new(Some(INTERRUPT), Some(TIMER));
    watch.wait(&mut sys, PollFd::new(WANTED, PollEvents::IN), Some(DEATH))
}

#[test]
fn wanted_event_has_priority_then_death_then_signal() {
    assert_eq!(waited(&[Ok([1, 0, 0, 0])], Ok(15)), Ok(Ready::Wanted));
    assert_eq!(waited(&[Ok([0x10, 1, 1, 1])], Ok(15)), Ok(Ready::Wanted));
    assert_eq!(waited(&[Ok([0, 1, 1, 1])], Ok(15)), Ok(Ready::Death));
    assert_eq!(waited(&[Ok([0, 0, 1, 0])], Ok(15)), Err(FailureKind::Interrupted(Signal::TERM)));
    assert_eq!(waited(&[Ok([0, 0, 1, 1])], Ok(2)), Err(FailureKind::Interrupted(Signal::INT)));
    assert_eq!(waited(&[Ok([0, 0, 0, 1])], Ok(15)), Err(FailureKind::TimedOut(WaitedFor::Turn)));
    assert_eq!(
        waited(&[Err(Errno::EINTR), Ok([0, 0, 1, 0])], Ok(1)),
        Err(FailureKind::Interrupted(Signal::HUP))
    );
}

#[test]
fn signal_read_by_another_reader_does_not_end_the_wait() {
    assert_eq!(waited(&[Ok([0, 0, 1, 0]), Ok([1, 0, 0, 0])], Err(Errno::EAGAIN)), Ok(Ready::Wanted));
}

#[test]
fn descriptor_with_an_error_event_is_dropped() {
    // POLLNVAL: the descriptor is not open. Polled again, it would keep the launcher busy for ever.
    assert_eq!(
        waited(&[Ok([0, 0, 0x20, 0]), Ok([0, 0, 0x20, 1])], Ok(15)),
        Err(FailureKind::TimedOut(WaitedFor::Turn))
    );
    assert_eq!(
        waited(&[Ok([0, 0, 0, 0x20]), Ok([0, 0, 1, 0x20])], Ok(15)),
        Err(FailureKind::Interrupted(Signal::TERM))
    );
    assert_eq!(waited(&[Err(Errno::ENOSYS)], Ok(15)), Ok(Ready::Wanted));
}

/// Ends the stages of a failed launch. The log pipe is silent for `silent` polls and then ends; each wait for
/// stopped stages returns the next of `stopped`. Returns the launcher's calls, and how the stages ended.
fn ended(
    kind: FailureKind,
    silent: u32,
    stopped: &'static [(i32, WaitStatus)],
) -> (Vec<String>, [Option<Ended>; STAGES]) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let mut sys = MockSys::new();
    sys.expect_pidfd_open().returning(|_| Err(Errno::ENOSYS));
    let mut polls = 0_u32;
    let say = Arc::clone(&seen);
    sys.expect_poll().returning(move |_, timeout| {
        assert_eq!(timeout, GRACE_MS);
        polls = polls.saturating_add(1);
        say.lock().unwrap().push(String::from("poll"));
        Ok(usize::from(polls > silent))
    });
    sys.expect_read().returning(|_, _| Ok(0));
    note_kills_and_closes(&mut sys, &seen);
    let mut stopped = stopped.iter();
    sys.expect_wait4().returning(move |pid, which| {
        assert_eq!(pid, Pid::ANY);
        match which {
            WaitFor::StagesNow => {
                let (pid, status) = stopped.next().copied().unwrap_or((0, WaitStatus::Exited(0)));
                Ok(Waited { pid: Pid(pid), status })
            }
            _ => Err(Errno::ECHILD),
        }
    });
    let mut stages = Stages::new(&mut sys, Pid(10));
    let pipes = Pipes::of_launcher(Fd(3), Fd(5));
    stages.end(&mut sys, kind, pipes, &mut Silent);
    let seen = core::mem::take(&mut *seen.lock().unwrap());
    (seen, stages.ended())
}

struct Silent;

impl LogReader for Silent {
    fn take(&mut self, _: &[u8]) {}
    fn fatal(&self) -> bool {
        false
    }
}

#[test]
fn an_interrupted_launch_continues_and_then_kills_the_stages() {
    let interrupted = FailureKind::Interrupted(Signal::TERM);
    let (seen, _) = ended(interrupted, 0, &[]);
    assert_eq!(seen, ["close 3", "kill 10 SIGCONT", "poll"]);
    let (seen, _) = ended(FailureKind::TimedOut(WaitedFor::Pids), 1, &[]);
    assert_eq!(seen, ["close 3", "kill 10 SIGCONT", "poll", "kill 10 SIGKILL", "poll"]);
}

#[test]
fn a_stopped_stage_of_unknown_pid_is_found_and_killed() {
    const STOPPED: WaitStatus = WaitStatus::Stopped(Signal::STOP);
    const KILLED: WaitStatus = WaitStatus::Signaled(Signal::KILL);
    let (seen, stages) =
        ended(FailureKind::NoPidLine, 2, &[(11, STOPPED), (0, WaitStatus::Exited(0)), (11, KILLED)]);
    assert_eq!(seen, ["close 3", "poll", "kill 11 SIGKILL", "poll", "poll"]);
    assert_eq!(stages[0], Some(Ended { stage: Some(1), pid: Pid(11), status: KILLED, killed: true }));
}

#[test]
fn a_command_that_was_executed_before_the_kill_is_reaped_too() {
    const KILLED: WaitStatus = WaitStatus::Signaled(Signal::KILL);
    let mut sys = MockSys::new();
    sys.expect_pidfd_open().returning(|_| Err(Errno::ENOSYS));
    sys.expect_close().returning(|_| Ok(()));
    sys.expect_kill().returning(|_, _| Ok(()));
    sys.expect_poll().returning(|_, _| Ok(1));
    sys.expect_read().returning(|_, _| Ok(0));
    sys.expect_wait4().returning(|pid, which| match which {
        // The exec has made it an ordinary child (clone(2), exit signal).
        WaitFor::Ordinary => Ok(Waited { pid, status: KILLED }),
        _ => Err(Errno::ECHILD),
    });
    let mut stages = Stages::new(&mut sys, Pid(10));
    stages.note_pids(&mut sys, Pid(11), Pid(12));
    stages.note_go(Pid(12));
    stages.end(
        &mut sys,
        FailureKind::Interrupted(Signal::INT),
        Pipes::of_launcher(Fd(3), Fd(5)),
        &mut Silent,
    );
    let want = Ended { stage: Some(2), pid: Pid(12), status: KILLED, killed: true };
    assert_eq!(stages.ended()[0], Some(want));
}

#[test]
fn a_silent_stage_that_is_not_stopped_has_time_to_end() {
    let (seen, _) = ended(FailureKind::NoPidLine, ROUNDS_BEFORE_KILL - 1, &[]);
    assert!(!seen.iter().any(|word| word.starts_with("kill")), "{seen:?}");
    let (seen, _) = ended(FailureKind::NoPidLine, ROUNDS_BEFORE_KILL, &[]);
    assert_eq!(seen.iter().filter(|word| *word == "kill 10 SIGKILL").count(), 1);
}

#[test]
fn stage_that_survives_sigkill_does_not_block_the_launcher() {
    let (seen, stages) = ended(FailureKind::TimedOut(WaitedFor::Pids), u32::MAX, &[]);
    assert_eq!(seen.iter().filter(|word| *word == "poll").count().try_into(), Ok(ROUNDS_BEFORE_GIVING_UP));
    assert_eq!(stages, [None; STAGES]);
}

#[test]
fn without_a_pidfd_the_launcher_polls_for_the_end() {
    let mut sys = MockSys::new();
    let mut order = Sequence::new();
    sys.expect_pidfd_open().returning(|_| Err(Errno::ENOSYS));
    let waits = [
        (0, WaitStatus::Exited(0)),
        // A stop does not count as the end of the stage.
        (10, WaitStatus::Stopped(Signal::STOP)),
        (10, WaitStatus::Exited(0)),
    ];
    for (pid, status) in waits {
        sys.expect_wait4()
            .once()
            .in_sequence(&mut order)
            .withf(|pid, which| (*pid, *which) == (Pid(10), WaitFor::StagesNow))
            .returning(move |_, _| Ok(Waited { pid: Pid(pid), status }));
    }
    sys.expect_poll()
        .times(2)
        .withf(|fds, timeout| fds.len() == 1 && *timeout == POLL_INTERVAL_MS)
        .returning(|_, _| Ok(0));
    let mut stages = Stages::new(&mut sys, Pid(10));
    let mut watch = Watch::new(Some(INTERRUPT), None);
    assert_eq!(stages.reap(&mut sys, &mut watch, 0), Ok(()));
    assert_eq!(stages.all_succeeded(), Ok(()));
}

/// A process of a direct start that was stopped before it read the go byte. The launcher has sent the byte.
#[test]
fn stopped_process_of_a_direct_start_is_killed() {
    const KILLED: WaitStatus = WaitStatus::Signaled(Signal::KILL);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let mut sys = MockSys::new();
    note_kills_and_closes(&mut sys, &seen);
    sys.expect_poll().returning(|_, _| Ok(1));
    sys.expect_read().returning(|_, _| Ok(0));
    let mut alive = true;
    sys.expect_wait4().returning(move |_, which| {
        assert_eq!(which, WaitFor::Stages);
        let ended = core::mem::take(&mut alive);
        if ended { Ok(Waited { pid: Pid(12), status: KILLED }) } else { Err(Errno::ECHILD) }
    });
    let mut stages = Stages::of_command(Pid(12), Some(Fd(20)));
    stages.note_go(Pid(12));
    stages.end(
        &mut sys,
        FailureKind::TimedOut(WaitedFor::Pids),
        Pipes::of_launcher(Fd(3), Fd(5)),
        &mut Silent,
    );
    stages.close(&mut sys);
    assert_eq!(*seen.lock().unwrap(), ["close 3", "kill 12 SIGKILL", "kill 12 SIGCONT", "close 20"]);
    let want = Ended { stage: Some(2), pid: Pid(12), status: KILLED, killed: true };
    assert_eq!(stages.ended(), [Some(want), None, None]);
}

#[test]
fn process_that_is_no_stage_any_more_runs_the_command() {
    let replies = [
        (Err(Errno::ECHILD), Ok(())),
        (Ok(WaitStatus::Exited(1)), Err(FailureKind::StageFailed)),
        (Ok(WaitStatus::Signaled(Signal::KILL)), Err(FailureKind::StageFailed)),
    ];
    for (reply, wanted) in replies {
        let mut sys = MockSys::new();
        let mut interrupted = true;
        sys.expect_wait4().times(2).returning(move |pid, which| {
            assert_eq!((pid, which), (Pid(12), WaitFor::Stages));
            match core::mem::take(&mut interrupted) {
                true => Err(Errno::EINTR),
                false => reply.map(|status| Waited { pid, status }),
            }
        });
        let mut stages = Stages::of_command(Pid(12), None);
        assert_eq!(stages.command_runs(&mut sys, Pid(12)), wanted);
        let ended = reply.ok().map(|status| Ended { stage: Some(2), pid: Pid(12), status, killed: false });
        assert_eq!(stages.ended()[0], ended);
    }
}

/// The process cannot end by itself while a stop lasts, so it gets SIGKILL. It also ends if a filter refuses
/// kill(2): its end of the init pipe is closed before the wait.
#[test]
fn given_up_process_is_killed_and_reaped() {
    for killed in [Ok(()), Err(Errno::EPERM)] {
        let (mut sys, mut order) = (MockSys::new(), Sequence::new());
        sys.expect_kill()
            .once()
            .in_sequence(&mut order)
            .withf(|pid, signal| (*pid, *signal) == (Pid(12), Signal::KILL))
            .returning(move |_, _| killed);
        sys.expect_close().once().in_sequence(&mut order).withf(|fd| *fd == Fd(3)).returning(|_| Ok(()));
        sys.expect_wait4()
            .once()
            .in_sequence(&mut order)
            .withf(|pid, which| (*pid, *which) == (Pid(12), WaitFor::Stages))
            .returning(|pid, _| Ok(Waited { pid, status: WaitStatus::Exited(1) }));
        for fd in [5, 20] {
            sys.expect_close()
                .once()
                .in_sequence(&mut order)
                .withf(move |it| it.0 == fd)
                .returning(|_| Ok(()));
        }
        Stages::of_command(Pid(12), Some(Fd(20))).abandon(&mut sys, Pipes::of_launcher(Fd(3), Fd(5)));
    }
}
