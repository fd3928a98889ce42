use std::string::String;
use std::sync::{Arc, Mutex};
use std::vec::Vec;
use std::{format, vec};

use super::process_tests::{mapped, policy, with_job};
use super::*;
use crate::deciders::bootstrap::{Dialect, OomScoreAdj};
use crate::launch::WaitedFor;
use crate::launch::encode::{encode, encoded_len};
use crate::launch::outcome::{Ended, Failure};
use crate::scripts::nsexec::Scratch;
use crate::sys::MockSys;
use crate::sys::types::{FsType, PollEvents, Signal, SignalSet, SysResult, WaitFor, WaitStatus, Waited};

pub(super) const INIT: Fd = Fd(3);
pub(super) const STAGE_INIT: Fd = Fd(4);
pub(super) const LOG: Fd = Fd(5);
pub(super) const STAGE_LOG: Fd = Fd(6);
pub(super) const INTERRUPT: Fd = Fd(7);
pub(super) const TIMER: Fd = Fd(8);
const PIDFD: Fd = Fd(20);
const CHILD: Pid = Pid(12);
/// The lowest number of the descriptors that are files of /proc.
const FILES: i32 = 30;

/// The launcher's calls that matter here, as texts.
pub(super) type Seen = Arc<Mutex<Vec<String>>>;

pub(super) fn note(seen: &Seen) -> impl Fn(String) + Send + Sync + 'static {
    let seen = Arc::clone(seen);
    move |text| seen.lock().unwrap().push(text)
}

/// Replies of a kernel to the launcher of a direct start.
struct Kernel {
    clone: SysResult<InitFork>,
    /// The reply to a write of this file of /proc. The others are written.
    refused: Option<(&'static str, Errno)>,
    /// The content of the new process's stat file.
    stat: &'static str,
    send: SysResult<()>,
    /// The reads of the log pipe.
    log: Vec<&'static [u8]>,
    /// The descriptors that each poll reports; the last one repeats.
    ready: Vec<Fd>,
    /// How the process ended, if the kernel reports it to a wait for processes without exit signal.
    ended: Option<WaitStatus>,
}

impl Default for Kernel {
    fn default() -> Self {
        Self {
            clone: Ok(InitFork::Parent { child: CHILD, pidfd: Some(PIDFD) }),
            refused: None,
            stat: "12 (a) S 1 1 1 0 -1 0 0",
            send: Ok(()),
            log: vec![b""],
            ready: vec![LOG],
            ended: None,
        }
    }
}

/// Receives the launcher's records, and notes the turns.
struct Text(Vec<u8>, Seen);

impl LogReader for Text {
    fn take(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
    }
    fn fatal(&self) -> bool {
        self.0.windows(5).any(|word| word == b"fatal")
    }
    fn end_turn(&mut self) {
        self.1.lock().unwrap().push("end turn".into());
    }
}

/// The result of a launch, its calls, and its records.
type Ran = (Option<Launched>, Vec<String>, String);

impl Kernel {
    fn mock(self, seen: &Seen) -> MockSys {
        let mut sys = MockSys::new();
        let mut pairs = 0;
        let say = note(seen);
        sys.expect_socketpair().returning(move || {
            pairs = i32::saturating_add(pairs, 1);
            say(format!("pipes {pairs}"));
            Ok((INIT, STAGE_INIT))
        });
        sys.expect_pipe2().returning(|| Ok((LOG, STAGE_LOG)));
        sys.expect_tid_address().returning(|| Ok(TidAddress { address: 64, cached: 9 }));
        sys.expect_gettid().returning(|| Pid(9));
        sys.expect_getpid().returning(|| Pid(9));
        sys.expect_sigprocmask().returning(|_, _| Ok(SignalSet::EMPTY));
        let (say, clone) = (note(seen), self.clone);
        sys.expect_clone_init().returning(move |namespaces, _, tid| {
            assert!(tid.is_some());
            say(format!("clone {namespaces}"));
            clone
        });
        let say = note(seen);
        sys.expect_fork().returning(move |_, _| {
            say("fork".into());
            Err(Errno::EAGAIN)
        });
        let say = note(seen);
        sys.expect_close().returning(move |fd| {
            if fd.0 < FILES {
                say(format!("close {}", fd.0));
            }
            Ok(())
        });
        let (say, send) = (note(seen), self.send);
        sys.expect_send().returning(move |fd, bytes| {
            assert_eq!((fd, bytes), (INIT, &[GO][..]));
            say("go".into());
            send.map(|()| 1)
        });
        self.files(&mut sys, seen);
        let say = note(seen);
        sys.expect_kill().returning(move |pid, signal| {
            say(format!("kill {pid} {signal}"));
            Ok(())
        });
        let mut ready = self.ready.into_iter();
        let mut last = LOG;
        sys.expect_poll().returning(move |fds, _| {
            last = ready.next().unwrap_or(last);
            let mut found = 0;
            for fd in fds.iter_mut().filter(|fd| fd.fd == last) {
                fd.revents = PollEvents::IN;
                found = 1;
            }
            Ok(found)
        });
        let (say, mut ended) = (note(seen), self.ended);
        sys.expect_wait4().returning(move |pid, which| {
            assert_eq!(which, WaitFor::Stages);
            say(format!("wait {pid}"));
            ended.take().map(|status| Waited { pid: CHILD, status }).ok_or(Errno::ECHILD)
        });
        sys
    }

    /// Adds /proc, with the new process's files, and the reads of the log pipe.
    fn files(&self, sys: &mut MockSys, seen: &Seen) {
        sys.expect_readlink().returning(|_, buffer| {
            buffer[0] = b'9';
            Ok(1)
        });
        sys.expect_openat().withf(|_, path, _| path == c"/proc").returning(|_, _, _| Ok(Fd(FILES)));
        let opened = Arc::new(Mutex::new(String::new()));
        let open = Arc::clone(&opened);
        sys.expect_openat2().returning(move |_, path, _| {
            *open.lock().unwrap() = path.to_str().unwrap().into();
            Ok(Fd(FILES + 1))
        });
        sys.expect_fstatfs().returning(|_| Ok(FsType::PROC));
        let (say, refused) = (note(seen), self.refused);
        sys.expect_write().returning(move |_, bytes| {
            let file = opened.lock().unwrap().clone();
            say(format!("{file} {}", String::from_utf8_lossy(bytes).trim_end_matches(['\0', '\n'])));
            match refused {
                Some((refused, errno)) if refused == file => Err(errno),
                _ => Ok(bytes.len()),
            }
        });
        let (stat, mut log) = (self.stat, self.log.clone().into_iter());
        sys.expect_read().returning(move |fd, buffer| {
            let bytes = match fd {
                LOG => log.next().unwrap_or_default(),
                INTERRUPT => {
                    buffer[..4].copy_from_slice(&15_u32.to_ne_bytes());
                    return Ok(128);
                }
                _ => stat.as_bytes(),
            };
            buffer[..bytes.len()].copy_from_slice(bytes);
            Ok(bytes.len())
        });
    }

    fn run(self, asked: &Bootstrap<'_>) -> Ran {
        self.run_at(asked, Level::Warning)
    }

    fn run_at(self, asked: &Bootstrap<'_>, level: Level) -> Ran {
        let seen = Seen::default();
        let mut sys = self.mock(&seen);
        let mut log = Text(Vec::new(), Arc::clone(&seen));
        let launched = with_job(&policy(), |job| launch(&mut sys, &Job { level, ..*job }, asked, &mut log));
        let seen = core::mem::take(&mut *seen.lock().unwrap());
        (launched, seen, String::from_utf8(log.0).unwrap())
    }
}

/// A message that also names a mapping tool.
fn with_tool() -> Bootstrap<'static> {
    mapped().with_rootless_euid(true).with_setgroup(true).with_uidmap_path(c"/usr/bin/newuidmap")
}

fn failure(launched: Option<Launched>) -> Failure {
    match launched {
        Some(Launched::Failed(failure)) => failure,
        other => panic!("{other:?}"),
    }
}

/// The calls of each launch up to the new process's start.
const CREATED: [&str; 3] = ["close 4", "close 6", "end turn"];

/// The calls that end a launch whose process runs the command.
const EXECUTED: [&str; 4] = ["wait 12", "close 5", "close 3", "close 20"];

#[test]
fn direct_start_needs_only_the_go_byte() {
    let (launched, seen, log) = Kernel::default().run(&Bootstrap::new(CloneFlags::NEWNET));
    assert_eq!(launched, Some(Launched::Started { pid: CHILD }));
    let begin = ["pipes 1", "clone CLONE_NEWNET"];
    assert_eq!(seen, [&begin[..], &CREATED, &["go"], &EXECUTED].concat());
    assert_eq!(log, "");
}

#[test]
fn score_setgroups_and_maps_are_written_before_the_go_byte() {
    let asked = mapped().with_rootless_euid(true);
    let asked = asked.with_oom_score_adj(OomScoreAdj::parse(c"-500").unwrap());
    let (launched, seen, log) = Kernel::default().run_at(&asked, Level::Debug);
    assert_eq!(launched, Some(Launched::Started { pid: CHILD }));
    let begin = ["pipes 1", "clone CLONE_NEWUSER"];
    let files = ["oom_score_adj -500", "setgroups deny", "uid_map 0 1000 1", "gid_map 0 1000 1"];
    assert_eq!(seen, [&begin[..], &CREATED, &files, &["go"], &EXECUTED].concat());
    let wanted: Vec<String> =
        [("oom_score_adj", "-500"), ("uid_map", r"0 1000 1\n"), ("gid_map", r"0 1000 1\n")]
            .iter()
            .map(|(file, text)| {
                format!(
                    "{{\"level\":\"debug\", \"msg\": \"nsexec-0[9]: update /proc/12/{file} to '{text}'\"}}"
                )
            })
            .collect();
    assert_eq!(log.lines().collect::<Vec<_>>(), wanted);
}

/// A kernel or a filter may refuse a clone with namespaces, and allow the same namespaces one by one.
#[test]
fn refused_clone_closes_the_pipes_and_leaves_the_start_to_the_stages() {
    for errno in [Errno::EPERM, Errno::ENOSPC, Errno::EINVAL, Errno::EMFILE] {
        let kernel = Kernel { clone: Err(errno), ..Kernel::default() };
        let (launched, seen, log) = kernel.run(&mapped());
        assert_eq!((launched, log.as_str()), (None, ""));
        assert_eq!(seen[2..], ["close 4", "close 6", "close 3", "close 5", "end turn"]);
    }
}

/// Launches by the script that decides between the shapes. Each fork of the stages fails.
fn launch_by_script(kernel: Kernel, asked: &Bootstrap<'_>) -> (Launched, Vec<String>) {
    let mut message = vec![0; encoded_len(asked)];
    let len = encode(asked, &Dialect::V1_2, &mut message).unwrap();
    let seen = Seen::default();
    let mut sys = kernel.mock(&seen);
    let mut log = Text(Vec::new(), Arc::clone(&seen));
    let launched = with_job(&policy(), |job| {
        let job = Job { message: &message[..len], ..*job };
        let scratch = &mut Scratch { message: &mut [] };
        crate::launch::script::launch(&mut sys, &job, scratch, &mut log)
    });
    let seen = core::mem::take(&mut *seen.lock().unwrap());
    (launched, seen)
}

#[test]
fn stages_get_pipes_of_their_own_after_a_refusal() {
    let refused = Kernel { clone: Err(Errno::EPERM), ..Kernel::default() };
    let tool = Kernel { refused: Some(("uid_map", Errno::EPERM)), ..Kernel::default() };
    for (kernel, asked) in [(refused, mapped()), (tool, with_tool())] {
        let (launched, seen) = launch_by_script(kernel, &asked);
        let kind = FailureKind::Os { step: Step::SpawnStage0, errno: Errno::EAGAIN };
        assert_eq!(launched, Launched::Failed(Failure { kind, ended: [None; 3] }));
        let again = seen.iter().position(|call| call == "pipes 2").expect("new pipes");
        let closed = |fd: &str| seen[..again].iter().any(|call| *call == format!("close {fd}"));
        assert!(["3", "4", "5", "6"].iter().all(|fd| closed(fd)), "{seen:?}");
        assert_eq!(
            seen[again..],
            ["pipes 2", "fork", "close 4", "close 6", "close 3", "close 5", "end turn"]
        );
    }
}

#[test]
fn refused_map_without_a_tool_is_the_launchers_own_record() {
    let kernel = Kernel { refused: Some(("gid_map", Errno::EPERM)), ..Kernel::default() };
    let (launched, seen, log) =
        Kernel { ended: Some(WaitStatus::Exited(1)), ..kernel }.run(&mapped().with_setgroup(true));
    let failure = failure(launched);
    assert_eq!(failure.kind, FailureKind::OwnRecord);
    let want = Ended { stage: Some(2), pid: CHILD, status: WaitStatus::Exited(1), killed: false };
    assert_eq!(failure.ended[0], Some(want));
    let text = "failed to update /proc/12/gid_map: Operation not permitted: mapping tool not present";
    let want = format!(
        "{{\"level\":\"fatal\", \"msg\": \"nsexec-0[9]: {text}\", \"code\": \"mapping-tool-missing\", \"errno\": 1}}\n"
    );
    assert_eq!(log, want);
    // The process ends by itself, since the launcher closes its end of the init pipe.
    assert_eq!(
        seen[5..],
        ["uid_map 0 1000 1", "gid_map 0 1000 1", "close 3", "wait 12", "wait 12", "close 5", "close 20"]
    );
}

#[test]
fn other_refusals_of_a_file_are_the_launchers_own_record() {
    for (file, errno) in
        [("uid_map", Errno::EINVAL), ("oom_score_adj", Errno::EACCES), ("uid_map", Errno::EACCES)]
    {
        let asked = with_tool().with_oom_score_adj(OomScoreAdj::parse(c"-500").unwrap());
        let kernel = Kernel { refused: Some((file, errno)), ..Kernel::default() };
        let (launched, seen, log) = kernel.run(&asked);
        assert_eq!(failure(launched).kind, FailureKind::OwnRecord);
        assert!(log.contains(&format!("/proc/12/{file}: {errno}\"")), "{log}");
        assert!(!seen.contains(&"go".into()), "{seen:?}");
    }
}

#[test]
fn refused_map_with_a_tool_ends_the_process_without_the_go_byte() {
    let kernel = Kernel { refused: Some(("uid_map", Errno::EPERM)), ..Kernel::default() };
    let (launched, seen, log) = kernel.run(&with_tool());
    assert_eq!((launched, log.as_str()), (None, ""));
    let want = ["uid_map 0 1000 1", "kill 12 SIGKILL", "close 3", "wait 12", "close 5", "close 20"];
    assert_eq!(seen[5..], want);
}

/// The files of a process that exits belong to root, so a write fails as if a privilege were missing. The
/// errno is not the cause, and no tool would help.
#[test]
fn death_before_the_go_byte_is_reported_instead_of_the_errno() {
    for errno in [Errno::EPERM, Errno::EACCES, Errno::ESRCH] {
        for asked in [mapped(), with_tool()] {
            let kernel = Kernel {
                refused: Some(("uid_map", errno)),
                // PF_EXITING.
                stat: "12 (a) R 1 1 1 0 -1 4 0",
                ended: Some(WaitStatus::Signaled(Signal::KILL)),
                ..Kernel::default()
            };
            let (launched, seen, log) = kernel.run(&asked);
            let failure = failure(launched);
            assert_eq!((failure.kind, log.as_str()), (FailureKind::StageFailed, ""));
            let status = WaitStatus::Signaled(Signal::KILL);
            assert_eq!(failure.ended[0], Some(Ended { stage: Some(2), pid: CHILD, status, killed: false }));
            assert!(!seen.contains(&"go".into()), "{seen:?}");
        }
    }
}

#[test]
fn death_between_the_go_byte_and_the_exec_is_a_failure() {
    for status in [WaitStatus::Signaled(Signal::SEGV), WaitStatus::Exited(1)] {
        let (launched, seen, _) =
            Kernel { ended: Some(status), ..Kernel::default() }.run(&Bootstrap::new(CloneFlags::NEWNET));
        let failure = failure(launched);
        assert_eq!(failure.kind, FailureKind::StageFailed);
        assert_eq!(failure.ended[0], Some(Ended { stage: Some(2), pid: CHILD, status, killed: false }));
        // It is reaped by its pid, and gets no signal.
        assert!(
            seen.contains(&"wait 12".into()) && !seen.iter().any(|call| call.starts_with("kill")),
            "{seen:?}"
        );
    }
}

#[test]
fn fatal_record_of_the_process_is_a_failure() {
    let kernel =
        Kernel { log: vec![b"fatal", b""], ended: Some(WaitStatus::Exited(127)), ..Kernel::default() };
    let (launched, ..) = kernel.run(&Bootstrap::new(CloneFlags::NEWNET));
    let failure = failure(launched);
    assert_eq!(failure.kind, FailureKind::FatalRecord);
    assert_eq!(failure.ended[0].map(|ended| ended.status), Some(WaitStatus::Exited(127)));
}

#[test]
fn refused_go_byte_is_the_launchers_error() {
    for (errno, kills) in [(Errno::EPIPE, false), (Errno::ENOBUFS, true)] {
        let kernel = Kernel { send: Err(errno), ended: Some(WaitStatus::Exited(1)), ..Kernel::default() };
        let (launched, seen, _) = kernel.run(&Bootstrap::new(CloneFlags::NEWNET));
        assert_eq!(failure(launched).kind, FailureKind::Os { step: Step::SendGo, errno });
        assert_eq!(seen.contains(&"kill 12 SIGKILL".into()), kills, "{seen:?}");
    }
}

/// The launcher waits once, for the exec. The process has the go byte by then, so SIGKILL ends it.
#[test]
fn interrupt_and_time_limit_end_the_wait_for_the_exec() {
    for (ready, kind) in
        [(INTERRUPT, FailureKind::Interrupted(Signal::TERM)), (TIMER, FailureKind::TimedOut(WaitedFor::Exec))]
    {
        let status = WaitStatus::Signaled(Signal::KILL);
        let kernel = Kernel { ready: vec![ready, LOG], ended: Some(status), ..Kernel::default() };
        let (launched, seen, _) = kernel.run(&Bootstrap::new(CloneFlags::NEWNET));
        let failure = failure(launched);
        assert_eq!(failure.kind, kind);
        assert_eq!(failure.ended[0], Some(Ended { stage: Some(2), pid: CHILD, status, killed: true }));
        let want = [
            "go",
            "close 3",
            "kill 12 SIGKILL",
            "kill 12 SIGCONT",
            "wait 12",
            "wait 12",
            "close 5",
            "close 20",
        ];
        assert_eq!(seen[5..], want);
    }
}

#[test]
fn interrupt_before_the_first_pipe_creates_nothing() {
    struct Busy;
    impl LogReader for Busy {
        fn take(&mut self, _: &[u8]) {}
        fn fatal(&self) -> bool {
            false
        }
        fn wait_for_turn(&mut self) -> Result<(), FailureKind> {
            Err(FailureKind::TimedOut(WaitedFor::Turn))
        }
    }
    let launched = with_job(&policy(), |job| {
        launch(&mut MockSys::new(), job, &Bootstrap::new(CloneFlags::NEWNET), &mut Busy)
    });
    assert_eq!(failure(launched), Failure { kind: FailureKind::TimedOut(WaitedFor::Turn), ended: [None; 3] });
}
