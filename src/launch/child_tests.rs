use std::string::String;
use std::sync::{Arc, Mutex};
use std::vec::Vec;
use std::{format, vec};

use super::*;
use crate::deciders::bootstrap::Dialect;
use crate::deciders::policy::Policy;
use crate::launch::outcome::{Ended, Failure};
use crate::sys::MockSys;
use crate::sys::types::{Errno, SignalSet, SysResult, WaitStatus, Waited};

const INIT: Fd = Fd(3);
const STAGE_INIT: Fd = Fd(4);
const LOG: Fd = Fd(5);
const STAGE_LOG: Fd = Fd(6);
const PIDFD: Fd = Fd(20);
const STAGE_1: Pid = Pid(11);
const STAGE_2: Pid = Pid(12);
const DONE: WaitStatus = WaitStatus::Exited(0);
const FAILED: WaitStatus = WaitStatus::Exited(1);

/// Replies of a kernel to the launcher of a start through a child.
struct Kernel {
    clone: SysResult<Fork>,
    pidfd: SysResult<Fd>,
    /// The reads of the init pipe.
    init: Vec<SysResult<Vec<u8>>>,
    /// The descriptors that the polls report. `Fd(-1)`: the time has passed. The last one repeats.
    ready: Vec<Fd>,
    /// The replies to waits for stage 1, of which 0 means that it runs.
    stage_1: Vec<Option<WaitStatus>>,
    /// How stage 2 ended, if it has not executed the command.
    stage_2: Option<WaitStatus>,
}

impl Default for Kernel {
    fn default() -> Self {
        Self {
            clone: Ok(Fork::Parent { child: STAGE_1 }),
            pidfd: Ok(PIDFD),
            init: vec![Ok(STAGE_2.0.to_ne_bytes().to_vec())],
            ready: vec![INIT, PIDFD, LOG],
            stage_1: vec![Some(DONE)],
            stage_2: None,
        }
    }
}

fn with_job<T>(f: impl FnOnce(&Job<'_>) -> T) -> T {
    f(&Job::bare(&Policy::runc(&Dialect::V1_2).with_ends_with_launcher(true)))
}

struct Text;

impl LogReader for Text {
    fn take(&mut self, _: &[u8]) {}
    fn fatal(&self) -> bool {
        false
    }
}

impl Kernel {
    fn run(self) -> (Launched, Vec<String>) {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let note = || {
            let seen = Arc::clone(&seen);
            move |text: String| seen.lock().unwrap().push(text)
        };
        let mut sys = MockSys::new();
        sys.expect_socketpair().returning(|| Ok((INIT, STAGE_INIT)));
        sys.expect_pipe2().returning(|| Ok((LOG, STAGE_LOG)));
        sys.expect_tid_address().returning(|| Err(Errno::EINVAL));
        sys.expect_sigprocmask().returning(|_, _| Ok(SignalSet::EMPTY));
        let clone = self.clone;
        sys.expect_clone_child().once().returning(move |_| clone);
        let pidfd = self.pidfd;
        sys.expect_pidfd_open().withf(|pid| *pid == STAGE_1).returning(move |_| pidfd);
        let say = note();
        sys.expect_close().returning(move |fd| {
            say(format!("close {}", fd.0));
            Ok(())
        });
        let mut init = self.init.into_iter();
        sys.expect_read().returning(move |fd, buffer| {
            let bytes = if fd == INIT { init.next().expect("no such read")? } else { Vec::new() };
            buffer[..bytes.len()].copy_from_slice(&bytes);
            Ok(bytes.len())
        });
        let (mut ready, mut last) = (self.ready.into_iter(), Fd(-1));
        sys.expect_poll().returning(move |fds, _| {
            last = ready.next().unwrap_or(last);
            for polled in fds.iter_mut().filter(|polled| polled.fd == last) {
                polled.revents = polled.events;
            }
            Ok(fds.iter().filter(|polled| polled.revents != PollEvents::NONE).count())
        });
        let (say, mut stage_1, mut stage_2) = (note(), self.stage_1.into_iter(), self.stage_2);
        sys.expect_wait4().returning(move |pid, which| {
            say(format!("wait {pid} {which:?}"));
            let of = |pid, status| Ok(Waited { pid, status });
            match stage_1.next() {
                Some(Some(status)) if pid != STAGE_2 => of(STAGE_1, status),
                Some(None) if pid != STAGE_2 => of(Pid(0), DONE),
                _ if pid != STAGE_1 => {
                    stage_2.take().map_or(Err(Errno::ECHILD), |status| of(STAGE_2, status))
                }
                _ => Err(Errno::ECHILD),
            }
        });
        let say = note();
        sys.expect_send().returning(move |fd, bytes| {
            assert!(fd == INIT && bytes == [GO]);
            say("go".into());
            Ok(1)
        });
        let say = note();
        sys.expect_kill().returning(move |pid, signal| {
            say(format!("kill {pid} {signal}"));
            Ok(())
        });
        let asked = Bootstrap::new(CloneFlags::NEWTIME);
        let launched = with_job(|job| launch(&mut sys, job, &asked, &mut Text));
        drop(sys);
        let seen = std::mem::take(&mut *seen.lock().unwrap());
        (launched, seen)
    }

    /// Returns the error, and the stages that were reaped. Every descriptor of the launcher must be closed.
    fn fails(self) -> (FailureKind, Vec<(Option<u8>, WaitStatus)>) {
        let has_pidfd = self.pidfd.is_ok();
        let (launched, seen) = self.run();
        for fd in [INIT, STAGE_INIT, LOG, STAGE_LOG].into_iter().chain(has_pidfd.then_some(PIDFD)) {
            let closed = seen.iter().filter(|call| **call == format!("close {}", fd.0)).count();
            assert_eq!(closed, 1, "{}: {seen:?}", fd.0);
        }
        let Launched::Failed(Failure { kind, ended }) = launched else { panic!("{launched:?}") };
        (kind, ended.into_iter().flatten().map(|Ended { stage, status, .. }| (stage, status)).collect())
    }
}

const STARTED: Launched = Launched::Started { pid: STAGE_2 };

#[test]
fn go_byte_follows_the_end_of_stage_1() {
    let (launched, seen) = Kernel::default().run();
    assert_eq!(launched, STARTED);
    let wanted = [
        "close 4",
        "close 6",
        "close 20",
        "wait 11 Stages",
        "go",
        // The exec has changed its exit signal.
        "wait 12 Stages",
        "close 5",
        "close 3",
    ];
    assert_eq!(seen, wanted);
}

#[test]
fn pid_may_come_in_pieces() {
    let pid = STAGE_2.0.to_ne_bytes();
    let init = vec![Ok(pid[..1].to_vec()), Err(Errno::EINTR), Ok(pid[1..].to_vec())];
    let (launched, _) = Kernel { init, ready: vec![INIT, INIT, INIT, PIDFD, LOG], ..Kernel::default() }.run();
    assert_eq!(launched, STARTED);
}

#[test]
fn end_of_stage_1_without_a_pid_is_a_failure() {
    let ended = vec![(Some(1), FAILED)];
    let failed = || Kernel { stage_1: vec![Some(FAILED)], ..Kernel::default() };
    // The pidfd reports the end first, or stage 1 has closed the pipe.
    let by_pidfd = Kernel { init: vec![], ready: vec![PIDFD, LOG], ..failed() };
    assert_eq!(by_pidfd.fails(), (FailureKind::NoPidLine, ended.clone()));
    for end in [Ok(vec![]), Err(Errno::ECONNRESET)] {
        let by_pipe = Kernel { init: vec![end], ready: vec![INIT, LOG], ..failed() };
        assert_eq!(by_pipe.fails(), (FailureKind::NoPidLine, ended.clone()));
    }
    // Stage 2 exists, and is not known: it ends as it reads the end of the init pipe.
    let with_stage_2 = Kernel { init: vec![], ready: vec![PIDFD, LOG], stage_2: Some(FAILED), ..failed() };
    let both = vec![(Some(1), FAILED), (Some(2), FAILED)];
    assert_eq!(with_stage_2.fails(), (FailureKind::NoPidLine, both));
}

#[test]
fn failed_stage_1_with_a_pid_starts_nothing() {
    let kernel = Kernel { stage_1: vec![Some(FAILED)], stage_2: Some(FAILED), ..Kernel::default() };
    assert_eq!(kernel.fails(), (FailureKind::StageFailed, vec![(Some(1), FAILED), (Some(2), FAILED)]));
}

#[test]
fn stage_2_that_ends_before_its_exec_is_a_failure() {
    let kernel = Kernel { stage_2: Some(FAILED), ..Kernel::default() };
    assert_eq!(kernel.fails(), (FailureKind::StageFailed, vec![(Some(1), DONE), (Some(2), FAILED)]));
}

#[test]
fn number_that_is_no_pid_is_a_failure() {
    for number in [0_i32, -1] {
        let kernel = Kernel { init: vec![Ok(number.to_ne_bytes().to_vec())], ..Kernel::default() };
        assert_eq!(kernel.fails().0, FailureKind::BadPidLine, "{number}");
    }
    let kernel = Kernel { init: vec![Err(Errno::EIO)], ..Kernel::default() };
    assert_eq!(kernel.fails().0, FailureKind::Os { step: Step::ReadPidLine, errno: Errno::EIO });
}

/// Before Linux 5.3 the launcher asks for the end of stage 1 again and again. What stage 1 has sent before
/// its end counts.
#[test]
fn without_a_pidfd_the_launcher_asks_for_the_end_of_stage_1() {
    const TIME: Fd = Fd(-1);
    let old = || Kernel { pidfd: Err(Errno::ENOSYS), ..Kernel::default() };
    let stage_1 = vec![None, Some(DONE)];
    let (launched, seen) =
        Kernel { ready: vec![TIME, TIME, INIT, LOG], stage_1: stage_1.clone(), ..old() }.run();
    assert_eq!(launched, STARTED);
    assert_eq!(seen[2..5], ["wait 11 StagesNow", "wait 11 StagesNow", "go"]);
    // The pid comes first, and the wait for the end then blocks.
    let (launched, seen) = Kernel { ready: vec![INIT, LOG], ..old() }.run();
    assert_eq!((launched, &seen[2][..]), (STARTED, "wait 11 Stages"));
    let kernel = Kernel {
        ready: vec![TIME, TIME, TIME, LOG],
        init: vec![],
        stage_1: vec![None, Some(FAILED)],
        ..old()
    };
    assert_eq!(kernel.fails(), (FailureKind::NoPidLine, vec![(Some(1), FAILED)]));
}

#[test]
fn refused_clone_leaves_nothing() {
    let (launched, seen) = Kernel { clone: Err(Errno::EAGAIN), ..Kernel::default() }.run();
    let kind = FailureKind::Os { step: Step::SpawnStage1, errno: Errno::EAGAIN };
    assert_eq!(launched, failed(kind));
    assert_eq!(seen, ["close 4", "close 6", "close 3", "close 5"]);
}
