use std::string::String;
use std::sync::{Arc, Mutex};
use std::vec::Vec;
use std::{format, vec};

use super::*;
use crate::deciders::bootstrap::{Bootstrap, Dialect};
use crate::deciders::namespace::NsSet;
use crate::deciders::namespace::paths::NsPaths;
use crate::deciders::policy::Policy;
use crate::launch::encode::{encode, encoded_len};
use crate::launch::fork::members;
use crate::sys::MockSys;
use crate::sys::types::{
    CloneFlags, Errno, Fd, Seals, SignalSet, SysResult, TidAddress, WaitFor, WaitStatus, Waited,
};

const INIT: Fd = Fd(3);
const STAGE_INIT: Fd = Fd(4);
const LOG: Fd = Fd(5);
const STAGE_LOG: Fd = Fd(6);
const PID_LINE: &[u8] = b"{\"stage1_pid\":11,\"stage2_pid\":12}\n";

/// The system calls, as texts.
type Seen = Arc<Mutex<Vec<String>>>;

/// Replies of a kernel to the launcher.
struct Kernel {
    init: Vec<Result<&'static [u8], Errno>>,
    log: Vec<Result<&'static [u8], Errno>>,
    waits: Vec<Result<(i32, WaitStatus), Errno>>,
    sends: Vec<Result<(), Errno>>,
}

impl Default for Kernel {
    fn default() -> Self {
        Self {
            init: vec![Ok(PID_LINE)],
            log: vec![Ok(b"")],
            waits: vec![Ok((11, WaitStatus::Exited(0))), Ok((10, WaitStatus::Exited(0)))],
            sends: vec![Ok(()), Ok(())],
        }
    }
}

impl Kernel {
    fn run(self) -> (Launched, Vec<String>) {
        let seen = Seen::default();
        let mut sys = MockSys::new();
        let note = |seen: &Seen| {
            let seen = seen.clone();
            move |word: String| seen.lock().unwrap().push(word)
        };
        sys.expect_socketpair().returning(|| Ok((INIT, STAGE_INIT)));
        sys.expect_pipe2().returning(|| Ok((LOG, STAGE_LOG)));
        sys.expect_tid_address().returning(|| Ok(TidAddress { address: 64, cached: 9 }));
        sys.expect_gettid().returning(|| Pid(9));
        sys.expect_sigprocmask().returning(|_, _| Ok(SignalSet::EMPTY));
        sys.expect_fork()
            .withf(|exit, tid| *exit == ExitSignal::None && tid.is_some())
            .returning(|_, _| Ok(Fork::Parent { child: Pid(10) }));
        let say = note(&seen);
        sys.expect_close().returning(move |fd| {
            say(format!("close {}", fd.0));
            Ok(())
        });
        let (say, mut sends) = (note(&seen), self.sends.into_iter());
        sys.expect_send().returning(move |_, bytes| {
            say("send".into());
            sends.next().expect("no such send").map(|()| bytes.len())
        });
        let (mut init, mut log) = (self.init.into_iter(), self.log.into_iter());
        sys.expect_read().returning(move |fd, buffer| {
            let bytes = if fd == INIT { init.next() } else { log.next() }.expect("no such read")?;
            buffer[..bytes.len()].copy_from_slice(bytes);
            Ok(bytes.len())
        });
        let (say, mut waits) = (note(&seen), self.waits.into_iter());
        sys.expect_wait4().withf(|_, which| *which == WaitFor::Stages).returning(move |pid, _| {
            say(format!("wait {pid}"));
            let (pid, status) = waits.next().unwrap_or(Err(Errno::ECHILD))?;
            Ok(Waited { pid: Pid(pid), status })
        });
        // The mock gives the pidfd of a process the number of its pid.
        sys.expect_pidfd_open().returning(|pid| Ok(Fd(pid.0)));
        // Only the last polled descriptor is ready. It is the wanted descriptor, which the launcher polls
        // after the pidfd.
        sys.expect_poll().returning(|fds, _| {
            let wanted = fds.last_mut().unwrap();
            wanted.revents = wanted.events;
            Ok(1)
        });
        let say = note(&seen);
        sys.expect_kill().returning(move |pid, signal| {
            say(format!("kill {pid} {signal}"));
            Ok(())
        });
        let launched =
            with_job(|job| launch(&mut sys, job, &mut Scratch { message: &mut [] }, &mut Text::default()));
        let seen = std::mem::take(&mut *seen.lock().unwrap());
        (launched, seen)
    }
}

fn with_job<T>(f: impl FnOnce(&Job<'_>) -> T) -> T {
    f(&Job { message: b"message", ..Job::bare(&Policy::runc(&Dialect::V1_2)) })
}

#[derive(Default)]
struct Text(Vec<u8>);

impl LogReader for Text {
    fn take(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
    }
    fn fatal(&self) -> bool {
        self.0.windows(5).any(|word| word == b"fatal")
    }
}

fn failure((launched, seen): (Launched, Vec<String>)) -> (Failure, Vec<String>) {
    match launched {
        Launched::Failed(failure) => (failure, seen),
        other => panic!("{other:?}"),
    }
}

#[test]
fn launch_without_faults_starts_the_command() {
    let (launched, seen) = Kernel::default().run();
    assert_eq!(launched, Launched::Started { pid: Pid(12) });
    let want = [
        "close 4", "close 6", "send", "close 11", "wait 11", "close 10", "wait 10", "send", "close 5",
        "close 3",
    ];
    assert_eq!(seen, want);
}

#[test]
fn eintr_and_short_reads_are_retried() {
    let launched = Kernel {
        init: vec![Err(Errno::EINTR), Ok(&PID_LINE[..7]), Err(Errno::EINTR), Ok(&PID_LINE[7..])],
        log: vec![Err(Errno::EINTR), Ok(b"{\"level\":\"warn"), Ok(b"ing\"}\n"), Ok(b"")],
        waits: vec![
            Err(Errno::EINTR),
            Ok((11, WaitStatus::Exited(0))),
            Err(Errno::EINTR),
            Ok((10, WaitStatus::Exited(0))),
        ],
        sends: vec![Err(Errno::EINTR), Ok(()), Err(Errno::EINTR), Ok(())],
    }
    .run()
    .0;
    assert_eq!(launched, Launched::Started { pid: Pid(12) });
}

#[test]
fn without_a_pid_line_stages_are_reaped_not_killed() {
    for end in [Ok(&b""[..]), Err(Errno::ECONNRESET)] {
        let (failure, seen) = failure(
            Kernel {
                init: vec![Ok(&PID_LINE[..9]), end],
                log: vec![Ok(b"fatal"), Ok(b"")],
                waits: vec![
                    Ok((11, WaitStatus::Signaled(Signal::KILL))),
                    Err(Errno::EINTR),
                    Ok((10, WaitStatus::Exited(1))),
                ],
                ..Kernel::default()
            }
            .run(),
        );
        assert_eq!(failure.kind, FailureKind::NoPidLine);
        assert_eq!(seen[3..], ["close 3", "wait -1", "wait -1", "wait -1", "wait -1", "close 5", "close 10"]);
        // A single unknown stage is stage 1. The launcher has not killed it.
        let [one, zero, none] = failure.ended;
        let killed = WaitStatus::Signaled(Signal::KILL);
        assert_eq!(one, Some(Ended { stage: Some(1), pid: Pid(11), status: killed, killed: false }));
        assert_eq!(zero.and_then(|ended| ended.stage), Some(0));
        assert_eq!(none, None);
    }
}

#[test]
fn stages_of_unknown_pid_are_identified_by_pid_order() {
    let killed = WaitStatus::Signaled(Signal::KILL);
    for order in [[12, 11, 10], [10, 11, 12], [11, 10, 12]] {
        let waits = order.map(|pid| Ok((pid, if pid == 11 { killed } else { WaitStatus::Exited(1) })));
        let kernel = Kernel { init: vec![Ok(b"")], waits: waits.into(), ..Kernel::default() };
        let (failure, _) = failure(kernel.run());
        for ended in failure.ended.into_iter().flatten() {
            assert_eq!(ended.stage.map(i32::from), Some(ended.pid.0 - 10), "{order:?}");
        }
    }
}

#[test]
fn epipe_on_the_message_does_not_kill_stages() {
    let (failure, seen) = failure(
        Kernel {
            sends: vec![Err(Errno::EPIPE)],
            waits: vec![Ok((10, WaitStatus::Exited(1)))],
            ..Kernel::default()
        }
        .run(),
    );
    assert_eq!(failure.kind, FailureKind::Os { step: Step::SendMessage, errno: Errno::EPIPE });
    assert_eq!(seen[2..], ["send", "close 3", "wait -1", "wait -1", "close 5", "close 10"]);
}

#[test]
fn malformed_pid_line_kills_stage_0() {
    let (failure, seen) =
        failure(Kernel { init: vec![Ok(b"hello\n")], waits: vec![], ..Kernel::default() }.run());
    assert_eq!(failure.kind, FailureKind::BadPidLine);
    assert_eq!(seen[3..], ["kill 10 SIGKILL", "close 3", "wait -1", "close 5", "close 10"]);
}

#[test]
fn after_a_late_failure_stage_2_ends_by_itself() {
    for statuses in [(0, 1), (1, 0), (1, 1)] {
        let (failure, seen) = failure(
            Kernel {
                waits: vec![
                    Ok((11, WaitStatus::Exited(statuses.0))),
                    Ok((10, WaitStatus::Exited(statuses.1))),
                    Ok((12, WaitStatus::Exited(1))),
                ],
                ..Kernel::default()
            }
            .run(),
        );
        assert_eq!(failure.kind, FailureKind::StageFailed);
        let want = ["close 11", "wait 11", "close 10", "wait 10", "close 3", "wait -1", "wait -1", "close 5"];
        assert_eq!(seen[3..], want);
        let want = Ended { stage: Some(2), pid: Pid(12), status: WaitStatus::Exited(1), killed: false };
        assert_eq!(failure.ended[2], Some(want));
    }
}

#[test]
fn failed_wait_kills_the_stages_not_yet_reaped() {
    let killed = WaitStatus::Signaled(Signal::KILL);
    let (failure, seen) = failure(
        Kernel {
            waits: vec![
                Ok((11, WaitStatus::Exited(0))),
                Err(Errno::ENOSYS),
                Ok((10, killed)),
                Ok((12, killed)),
            ],
            ..Kernel::default()
        }
        .run(),
    );
    assert_eq!(failure.kind, FailureKind::Os { step: Step::Wait, errno: Errno::ENOSYS });
    // Not 11: that stage is reaped, so another process may have its pid.
    assert_eq!(seen[7..10], ["kill 10 SIGKILL", "kill 12 SIGKILL", "close 3"]);
    assert_eq!(failure.ended[2], Some(Ended { stage: Some(2), pid: Pid(12), status: killed, killed: true }));
}

#[test]
fn fatal_record_after_the_go_byte_is_a_failure() {
    let mut kernel = Kernel { log: vec![Ok(b"fa"), Ok(b"tal"), Ok(b"")], ..Kernel::default() };
    kernel.waits.push(Ok((12, WaitStatus::Exited(127))));
    let (failure, _) = failure(kernel.run());
    assert_eq!(failure.kind, FailureKind::FatalRecord);
    assert_eq!(failure.ended[2].map(|ended| ended.status), Some(WaitStatus::Exited(127)));
}

#[test]
fn a_fork_that_fails_leaves_no_descriptor() {
    let closed = Arc::new(Mutex::new(Vec::new()));
    let mut sys = MockSys::new();
    sys.expect_socketpair().returning(|| Ok((INIT, STAGE_INIT)));
    sys.expect_pipe2().returning(|| Ok((LOG, STAGE_LOG)));
    sys.expect_tid_address().returning(|| Err(Errno::EINVAL));
    sys.expect_sigprocmask().times(2).returning(|_, _| Ok(SignalSet(4)));
    sys.expect_fork().withf(|_, tid| tid.is_none()).returning(|_, _| Err(Errno::EAGAIN));
    let close = closed.clone();
    sys.expect_close().returning(move |fd| {
        close.lock().unwrap().push(fd);
        Ok(())
    });
    let launched =
        with_job(|job| launch(&mut sys, job, &mut Scratch { message: &mut [] }, &mut Text::default()));
    let kind = FailureKind::Os { step: Step::SpawnStage0, errno: Errno::EAGAIN };
    assert_eq!(launched, Launched::Failed(Failure { kind, ended: [None; 3] }));
    assert_eq!(*closed.lock().unwrap(), [STAGE_INIT, STAGE_LOG, INIT, LOG]);
}

#[test]
fn only_the_exact_pid_line_is_accepted() {
    assert_eq!(parse_pid_line(PID_LINE, PidLine::Stages), Some((Pid(11), Pid(12))));
    for bad in [
        &b""[..],
        b"{\"stage1_pid\":11,\"stage2_pid\":12}",
        b"{\"stage1_pid\":11,\"stage2_pid\":11}\n",
        b"{\"stage1_pid\":0,\"stage2_pid\":12}\n",
        b"{\"stage1_pid\":-1,\"stage2_pid\":12}\n",
        b"{\"stage1_pid\":011,\"stage2_pid\":12}\n",
        b"{\"stage1_pid\":,\"stage2_pid\":12}\n",
        b"{\"stage1_pid\":11,\"stage2_pid\":2147483648}\n",
        b"{\"stage1_pid\": 11,\"stage2_pid\":12}\n",
        b"{\"stage1_pid\":11,\"stage2_pid\":12}\nx",
        b"{\"pid\": 12, \"pid_first\": 11}\n",
    ] {
        assert_eq!(parse_pid_line(bad, PidLine::Stages), None, "{}", String::from_utf8_lossy(bad));
    }
}

#[test]
fn members_lists_the_signals_of_a_set() {
    let all: Vec<_> = members(SignalSet(u64::MAX)).map(|signal| signal.0).collect();
    assert_eq!(all, (1..=64).collect::<Vec<_>>());
    let set = SignalSet(1 << 16 | 1 | 1 << 63);
    assert_eq!(members(set).collect::<Vec<_>>(), [Signal::HUP, Signal::CHLD, Signal(64)]);
}

/// Returns the result of a launch that joins a mount namespace. If the check of the copy passes, the launch
/// fails at the init pipe.
fn launch_with_mount_join(
    trusted_mounts: bool,
    marked_copy: bool,
    seals: SysResult<Seals>,
    links: u64,
) -> Launched {
    let paths = NsPaths::parse(b"mnt:/m", NsSet::ALL).unwrap();
    let asked = Bootstrap::new(CloneFlags::EMPTY).with_namespaces(paths);
    let mut message = vec![0; encoded_len(&asked)];
    encode(&asked, &Dialect::V1_2, &mut message).unwrap();
    let policy = Policy::runc(&Dialect::V1_2).with_trusted_mounts(trusted_mounts);
    let mut sys = MockSys::new();
    sys.expect_openat().withf(|_, path, _| path == c"/proc/self/exe").returning(|_, _, _| Ok(INIT));
    sys.expect_get_seals().returning(move |_| seals);
    sys.expect_link_count().returning(move |_| Ok(links));
    sys.expect_close().returning(|_| Ok(()));
    // The step after the check of the copy.
    sys.expect_socketpair().returning(|| Err(Errno::EMFILE));
    with_job(|job| {
        let job = Job { message: &message, policy: &policy, marked_copy, ..*job };
        launch(&mut sys, &job, &mut Scratch { message: &mut [] }, &mut Text::default())
    })
}

#[test]
fn mount_join_needs_a_sealed_copy_or_trust() {
    let failed = |kind| Launched::Failed(Failure { kind, ended: [None; 3] });
    let refused = failed(FailureKind::NotSealed);
    let goes_on = failed(FailureKind::Os { step: Step::MakeInitPipe, errno: Errno::EMFILE });
    let none = Err(Errno::EINVAL);
    assert_eq!(launch_with_mount_join(false, false, Ok(Seals::CONTENT), 1), goes_on);
    assert_eq!(launch_with_mount_join(false, false, none, 1), refused);
    // A file without a name that is not a copy of ours: another process may hold it open.
    assert_eq!(launch_with_mount_join(false, false, none, 0), refused);
    assert_eq!(launch_with_mount_join(false, true, none, 0), goes_on);
    assert_eq!(launch_with_mount_join(false, true, none, 1), refused);
    assert_eq!(launch_with_mount_join(true, false, none, 1), goes_on);
}

#[test]
fn unreadable_program_file_prevents_a_mount_join() {
    let paths = NsPaths::parse(b"net:/n,mnt:/m", NsSet::ALL).unwrap();
    let asked = Bootstrap::new(CloneFlags::EMPTY).with_namespaces(paths);
    let mut message = vec![0; encoded_len(&asked)];
    encode(&asked, &Dialect::V1_2, &mut message).unwrap();
    let mut sys = MockSys::new();
    sys.expect_openat().returning(|_, _, _| Err(Errno::ENOENT));
    let launched = with_job(|job| {
        let job = Job { message: &message, ..*job };
        launch(&mut sys, &job, &mut Scratch { message: &mut [] }, &mut Text::default())
    });
    let kind = FailureKind::Os { step: Step::CheckCopy, errno: Errno::ENOENT };
    assert_eq!(launched, Launched::Failed(Failure { kind, ended: [None; 3] }));
}
