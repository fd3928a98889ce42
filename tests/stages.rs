//! The order of each stage's calls, one process at a time, with canned replies.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ffi::CString;
use std::rc::Rc;

use nsexec::bootstrap::dialect::Dialect;
use nsexec::bootstrap::env::Environment;
use nsexec::bootstrap::{Bootstrap, MESSAGE_MAX};
use nsexec::idmap::IdMap;
use nsexec::launch::encode::encode;
use nsexec::log::Level;
use nsexec::namespace::paths::NsPaths;
use nsexec::nsexec::{Scratch, bootstrap};
use nsexec::policy::Policy;
use nsexec::stage::Outcome;
use nsexec::sync::SyncMessage;
use nsexec::sys::types::{
    CloneFlags, Errno, Fd, Fork, FsType, OpenFlags, Pid, PollEvents, SignalSet, TidAddress,
};
use nsexec::timens::TimeOffsets;
use nsexec_audit::record::{Answer, Answered, Bytes, Call, Recorder, Reply, Transcript};

/// Returns a mock kernel on which every call succeeds. Each clone returns the next of `forks`; reads return
/// `reads` in order.
fn canned(forks: &[Fork], reads: Vec<Vec<u8>>) -> Canned {
    Canned {
        next_socket: 5,
        next_open: 20,
        next_below_proc: 30,
        forks: forks.iter().copied().collect(),
        bytes: reads.into_iter().flatten().collect(),
    }
}

struct Canned {
    next_socket: i32,
    /// /proc gets a number from 20 on, namespaces from 40 on.
    next_open: i32,
    /// Files below /proc get numbers from 30 on.
    next_below_proc: i32,
    forks: VecDeque<Fork>,
    bytes: VecDeque<u8>,
}

/// Returns the next number and counts on.
fn next(number: &mut i32) -> i32 {
    *number += 1;
    *number - 1
}

impl Answer for Canned {
    fn answer(&mut self, call: Call) -> Reply {
        match call {
            Call::Socketpair => Reply::Pair(Fd(next(&mut self.next_socket)), Fd(next(&mut self.next_socket))),
            Call::Openat { flags: OpenFlags::Namespace, .. } => Reply::Fd(Fd(next(&mut self.next_open) + 20)),
            Call::Openat { .. } => Reply::Fd(Fd(next(&mut self.next_open))),
            Call::Openat2 { .. } => Reply::Fd(Fd(next(&mut self.next_below_proc))),
            Call::CloneSibling { .. } => match self.forks.pop_front() {
                Some(Fork::Parent { child }) => Reply::Parent(child),
                Some(Fork::Child) => Reply::Child,
                None => Reply::Errno(Errno::EAGAIN),
            },
            Call::Read { len, .. } => {
                let count = len.min(self.bytes.len());
                Reply::Data(Bytes(self.bytes.drain(..count).collect()))
            }
            // The peer has always sent something, and the launcher lives.
            Call::Poll { mut fds, .. } => {
                fds.iter_mut().for_each(|fd| fd.revents = fd.events);
                let count = fds.iter().filter(|fd| fd.events != PollEvents::NONE).count();
                Reply::Polled { count, fds }
            }
            Call::Fstatfs { fd } => Reply::FsType(if fd.0 >= 40 { FsType::NSFS } else { FsType::PROC }),
            Call::Write { data, .. } | Call::WriteNowait { data, .. } | Call::Send { data, .. } => {
                Reply::Count(data.0.len())
            }
            Call::TidAddress => Reply::TidAddress(TidAddress { address: 0x7f00, cached: 100 }),
            Call::Gettid | Call::Getpid => Reply::Pid(Pid(100)),
            Call::Readlink { .. } => Reply::Data(b"100"[..].into()),
            Call::SchedGetaffinity => Reply::Affinity(3),
            Call::Sigprocmask { .. } => Reply::Mask(SignalSet::EMPTY),
            Call::Close { .. }
            | Call::Kill { .. }
            | Call::Setns { .. }
            | Call::Unshare { .. }
            | Call::SetDumpable { .. }
            | Call::SetName { .. }
            | Call::Setsid
            | Call::Setresuid { .. }
            | Call::Setuid { .. }
            | Call::Setgid { .. }
            | Call::DropGroups => Reply::Unit,
            other => panic!("a stage does not make this call: {other:?}"),
        }
    }
}

/// Returns the bytes of the message, header and payload.
fn message(bootstrap: &Bootstrap<'_>) -> Vec<u8> {
    in_dialect(bootstrap, &Dialect::V1_2)
}

fn in_dialect(bootstrap: &Bootstrap<'_>, dialect: &Dialect) -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    let len = encode(bootstrap, dialect, &mut bytes).unwrap();
    bytes.truncate(len);
    bytes
}

fn sync_bytes(message: SyncMessage) -> Vec<u8> {
    message.value().to_ne_bytes().to_vec()
}

/// Runs one process; returns its outcome and its calls.
fn run(sys: Canned, level: Level) -> (Outcome, String) {
    run_as(sys, level, &Dialect::V1_2)
}

fn run_as(sys: Canned, level: Level, dialect: &'static Dialect) -> (Outcome, String) {
    let transcript = Rc::new(RefCell::new(Transcript::new("one process")));
    let mut recorder = Recorder::new(Answered(sys), transcript.clone());
    let mut memory = vec![0; MESSAGE_MAX];
    let environment = Environment::new(Some(Fd(3)), Some(Fd(4)), level);
    let policy = Policy::runc(dialect);
    let outcome = bootstrap(&mut recorder, environment, &policy, &mut Scratch { message: &mut memory });
    let lines: Vec<String> = transcript.borrow().lines.iter().map(ToString::to_string).collect();
    (outcome, lines.join("\n"))
}

fn assert_snapshot(name: &str, outcome: Outcome, transcript: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(concat!(env!("CARGO_MANIFEST_DIR"), "/../../snapshots"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, format!("{transcript}\n=> {outcome:?}")));
}

const CHILD: Fork = Fork::Child;
const STAGE_1: Fork = Fork::Parent { child: Pid(101) };
const STAGE_2: Fork = Fork::Parent { child: Pid(102) };

#[test]
fn stage_0_runs_without_any_namespace() {
    let reads = vec![
        message(&Bootstrap::new(CloneFlags::EMPTY)),
        sync_bytes(SyncMessage::RecvpidPls),
        102_u32.to_ne_bytes().to_vec(),
        sync_bytes(SyncMessage::ChildFinish),
        sync_bytes(SyncMessage::ChildFinish),
    ];
    let (outcome, transcript) = run(canned(&[STAGE_1], reads), Level::Warning);
    assert_snapshot("stage_0_nothing", outcome, &transcript);
}

/// Calls `test` with the message of a rootful container with a user namespace and time offsets.
fn with_user_and_time(test: impl FnOnce(&Bootstrap<'_>)) {
    let uid = CString::new("0 100000 65536\n").unwrap();
    let offsets = CString::new("boottime 10 0\n").unwrap();
    let map = IdMap::parse(&uid).unwrap();
    let flags = [CloneFlags::NEWUSER, CloneFlags::NEWNS, CloneFlags::NEWPID, CloneFlags::NEWTIME]
        .into_iter()
        .fold(CloneFlags::EMPTY, CloneFlags::union);
    let bootstrap = Bootstrap::new(flags)
        .with_uid_map(map)
        .with_gid_map(map)
        .with_setgroup(true)
        .with_timens_offsets(TimeOffsets::parse(&offsets).unwrap());
    test(&bootstrap);
}

#[test]
fn stage_0_writes_maps_and_offsets() {
    with_user_and_time(|bootstrap| {
        let reads = vec![
            message(bootstrap),
            sync_bytes(SyncMessage::UsermapPls),
            sync_bytes(SyncMessage::TimeoffsetsPls),
            sync_bytes(SyncMessage::RecvpidPls),
            102_u32.to_ne_bytes().to_vec(),
            sync_bytes(SyncMessage::ChildFinish),
            sync_bytes(SyncMessage::ChildFinish),
        ];
        let (outcome, transcript) = run(canned(&[STAGE_1], reads), Level::Warning);
        assert_snapshot("stage_0_user_and_time", outcome, &transcript);
    });
}

#[test]
fn stage_1_creates_the_user_namespace_first() {
    with_user_and_time(|bootstrap| {
        let reads = vec![
            message(bootstrap),
            sync_bytes(SyncMessage::UsermapAck),
            sync_bytes(SyncMessage::TimeoffsetsAck),
            sync_bytes(SyncMessage::RecvpidAck),
        ];
        let (outcome, transcript) = run(canned(&[CHILD, STAGE_2], reads), Level::Warning);
        assert_snapshot("stage_1_user_and_time", outcome, &transcript);
    });
}

#[test]
fn stage_2_becomes_leader_and_root_and_drops_groups() {
    with_user_and_time(|bootstrap| {
        let reads = vec![
            message(bootstrap),
            sync_bytes(SyncMessage::UsermapAck),
            sync_bytes(SyncMessage::TimeoffsetsAck),
            sync_bytes(SyncMessage::Grandchild),
        ];
        let (outcome, transcript) = run(canned(&[CHILD, CHILD], reads), Level::Debug);
        assert_eq!(outcome, Outcome::HandOver);
        assert_snapshot("stage_2_user_and_time_debug", outcome, &transcript);
    });
}

#[test]
fn stage_1_opens_the_dumpable_window_for_an_unprivileged_stage_0_only() {
    let uid = CString::new("0 1000 1\n").unwrap();
    let map = IdMap::parse(&uid).unwrap();
    let bootstrap = Bootstrap::new(CloneFlags::NEWUSER)
        .with_namespaces(NsPaths::parse(b"net:/run/netns/a", nsexec::namespace::NsSet::ALL).unwrap())
        .with_uid_map(map)
        .with_gid_map(map);
    for rootless in [false, true] {
        let bootstrap = bootstrap.with_rootless_euid(rootless);
        let reads = vec![
            message(&bootstrap),
            sync_bytes(SyncMessage::UsermapAck),
            sync_bytes(SyncMessage::RecvpidAck),
        ];
        let (outcome, transcript) = run(canned(&[CHILD, STAGE_2], reads), Level::Warning);
        let name = if rootless { "stage_1_dumpable_window" } else { "stage_1_no_dumpable_window" };
        assert_snapshot(name, outcome, &transcript);
    }
}

#[test]
fn stage_0_reports_the_death_of_stage_1() {
    let reads = vec![message(&Bootstrap::new(CloneFlags::EMPTY))];
    let (outcome, transcript) = run(canned(&[STAGE_1], reads), Level::Warning);
    assert_eq!(outcome, Outcome::Exit(1));
    assert_snapshot("stage_0_stage_1_died", outcome, &transcript);
}

/// Runs stage 2 of 1.0 with a cgroup namespace to create. `launcher_bytes` are the launcher's bytes on the
/// init pipe.
fn stage_2_of_1_0(launcher_bytes: &[u8]) -> (Outcome, String) {
    let boot = Bootstrap::new(CloneFlags::NEWCGROUP);
    let reads =
        vec![in_dialect(&boot, &Dialect::V1_0), sync_bytes(SyncMessage::Grandchild), launcher_bytes.to_vec()];
    run_as(canned(&[CHILD, CHILD], reads), Level::Warning, &Dialect::V1_0)
}

#[test]
fn stage_2_of_1_0_creates_cgroup_namespace_after_byte() {
    let (outcome, transcript) = stage_2_of_1_0(&[0x80]);
    assert_eq!(outcome, Outcome::HandOver);
    let (byte, unshare) =
        (transcript.find("read(3, \"\\200\", 1) = 1"), transcript.find("unshare(CLONE_NEWCGROUP)"));
    assert!(byte.is_some() && byte < unshare, "{transcript}");
    assert!(transcript.contains("unshare(0) = 0"), "stage 1 does not create it: {transcript}");
}

#[test]
fn wrong_or_missing_cgroup_byte_is_an_error() {
    for (launcher_bytes, text) in [
        (&[0x81][..], "received unknown synchronisation value: 129"),
        (b"{", "received unknown synchronisation value: 123"),
        (b"", "read synchronisation value failed (got 0 of 1 bytes)"),
    ] {
        let (outcome, transcript) = stage_2_of_1_0(launcher_bytes);
        assert_eq!(outcome, Outcome::Exit(1));
        assert!(transcript.contains(text) && !transcript.contains("NEWCGROUP"), "{transcript}");
    }
}

#[test]
fn seed_pid_line_is_the_last_call_of_stage_0() {
    let boot = Bootstrap::new(CloneFlags::NEWUTS);
    let reads = vec![
        in_dialect(&boot, &Dialect::SEED),
        sync_bytes(SyncMessage::RecvpidPls),
        102_u32.to_ne_bytes().to_vec(),
        sync_bytes(SyncMessage::ChildFinish),
        sync_bytes(SyncMessage::ChildFinish),
    ];
    let (outcome, transcript) = run_as(canned(&[STAGE_1], reads), Level::Warning, &Dialect::SEED);
    assert_eq!(outcome, Outcome::Exit(0));
    let last = transcript.lines().last().unwrap();
    assert!(last.contains(r#"{\"pid\": 102, \"pid_first\": 101}\n"#), "{transcript}");
}

#[test]
fn stage_0_adds_nothing_to_a_reported_failure() {
    for (reported, status) in [(1_u32, 1), (7, 7), (0, 1), (u32::MAX, 255)] {
        let boot = Bootstrap::new(CloneFlags::NEWUTS);
        let reads = vec![
            in_dialect(&boot, &Dialect::SEED),
            sync_bytes(SyncMessage::Failed),
            reported.to_ne_bytes().to_vec(),
        ];
        let (outcome, transcript) = run_as(canned(&[STAGE_1], reads), Level::Warning, &Dialect::SEED);
        assert_eq!(outcome, Outcome::Exit(status));
        assert!(!transcript.contains("write(2") && !transcript.contains("kill("), "{transcript}");
    }
}

/// Only stage 1 has the pid of stage 2 by then.
#[test]
fn stage_1_kills_stage_2_when_stage_0_dies() {
    let reads = vec![message(&Bootstrap::new(CloneFlags::EMPTY))];
    let (outcome, transcript) = run(canned(&[CHILD, STAGE_2], reads), Level::Warning);
    assert_eq!(outcome, Outcome::Exit(1));
    let killed = transcript.find("kill(102, SIGKILL)").expect("stage 2 is killed");
    assert!(
        transcript.find("\\\"level\\\":\\\"fatal\\\"").is_some_and(|reported| killed < reported),
        "{transcript}"
    );
}
