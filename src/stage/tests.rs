//! The order of each stage's calls, one process at a time, with canned replies.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ffi::CString;
use std::rc::Rc;
use std::string::{String, ToString};
use std::vec::Vec;

use crate::bootstrap::dialect::Dialect;
use crate::bootstrap::env::Environment;
use crate::bootstrap::{Bootstrap, ByteOrder, MESSAGE_MAX, encode::encode};
use crate::idmap::IdMap;
use crate::log::Level;
use crate::namespace::paths::NsPaths;
use crate::nsexec::{Scratch, bootstrap};
use crate::policy::Policy;
use crate::stage::Outcome;
use crate::sync::Message;
use crate::sys::MockSys;
use crate::sys::record::{Recorder, Transcript};
use crate::sys::types::{
    CloneFlags, Errno, Fd, Fork, FsType, OpenFlags, Pid, SignalSet, SysResult, TidAddress,
};
use crate::timens::TimeOffsets;

/// Returns a mock kernel on which every call succeeds. Each clone returns the next of `forks`; reads return
/// `reads` in order.
fn canned(forks: &[Fork], reads: Vec<Vec<u8>>) -> MockSys {
    let mut sys = MockSys::new();
    let mut next_fd = 5;
    sys.expect_socketpair().returning(move || {
        next_fd += 2;
        Ok((Fd(next_fd - 2), Fd(next_fd - 1)))
    });
    // Namespaces get descriptors from 40 on, /proc from 20 on, files below it from 30 on.
    let mut next_open = 20;
    sys.expect_openat().returning(move |_, _, flags| {
        next_open += 1;
        Ok(Fd(next_open - 1 + if flags == OpenFlags::Namespace { 20 } else { 0 }))
    });
    let mut next_below = 30;
    sys.expect_openat2().returning(move |_, _, _| {
        next_below += 1;
        Ok(Fd(next_below - 1))
    });
    let mut forks: VecDeque<Fork> = forks.iter().copied().collect();
    sys.expect_clone_sibling().returning(move |_| forks.pop_front().ok_or(Errno::EAGAIN));
    let mut bytes: VecDeque<u8> = reads.into_iter().flatten().collect();
    sys.expect_read().returning(move |_, buf| {
        let count = buf.len().min(bytes.len());
        for (to, from) in buf.iter_mut().zip(bytes.drain(..count)) {
            *to = from;
        }
        Ok(count)
    });
    // The peer has always sent something, and the launcher is alive.
    sys.expect_poll().returning(|fds, _| {
        fds[0].revents = fds[0].events;
        Ok(1)
    });
    sys.expect_fstatfs().returning(|fd| Ok(if fd.0 >= 40 { FsType::NSFS } else { FsType::PROC }));
    sys.expect_write().returning(|_, buf| Ok(buf.len()));
    sys.expect_send().returning(|_, buf| Ok(buf.len()));
    sys.expect_write_nowait().returning(|_, buf| Ok(buf.len()));
    sys.expect_tid_address().returning(|| Ok(TidAddress { address: 0x7f00, cached: 100 }));
    sys.expect_gettid().returning(|| Pid(100));
    sys.expect_readlink().returning(|_, buf| {
        buf[..3].copy_from_slice(b"100");
        Ok(3)
    });
    sys.expect_getpid().returning(|| Pid(100));
    sys.expect_sched_getaffinity().returning(|| Ok(3));
    sys.expect_sigprocmask().returning(|_, _| Ok(SignalSet::EMPTY));
    fn yes<A>(_: A) -> SysResult<()> {
        Ok(())
    }
    sys.expect_close().returning(yes);
    sys.expect_kill().returning(|_, _| Ok(()));
    sys.expect_setns().returning(|_, _| Ok(()));
    sys.expect_unshare().returning(yes);
    sys.expect_set_dumpable().returning(yes);
    sys.expect_set_name().returning(|_| Ok(()));
    sys.expect_setsid().returning(|| Ok(()));
    sys.expect_setresuid().returning(yes);
    sys.expect_setuid().returning(yes);
    sys.expect_setgid().returning(yes);
    sys.expect_drop_groups().returning(|| Ok(()));
    sys
}

/// Returns the bytes of the message, header and payload.
fn message(bootstrap: &Bootstrap<'_>) -> Vec<u8> {
    in_dialect(bootstrap, &Dialect::V1_2)
}

fn in_dialect(bootstrap: &Bootstrap<'_>, dialect: &Dialect) -> Vec<u8> {
    let mut bytes = std::vec![0; 4096];
    let len = encode(bootstrap, dialect, ByteOrder::NATIVE, &mut bytes).unwrap();
    bytes.truncate(len);
    bytes
}

fn word(message: Message) -> Vec<u8> {
    message.value().to_ne_bytes().to_vec()
}

/// Runs one process; returns its outcome and its calls.
fn run(sys: MockSys, level: Level) -> (Outcome, String) {
    run_as(sys, level, &Dialect::V1_2)
}

fn run_as(sys: MockSys, level: Level, dialect: &'static Dialect) -> (Outcome, String) {
    let transcript = Rc::new(RefCell::new(Transcript::new("one process")));
    let mut recorder = Recorder::new(sys, transcript.clone());
    let mut memory = std::vec![0; MESSAGE_MAX];
    let environment = Environment::new(Some(Fd(3)), Some(Fd(4)), level);
    let policy = Policy::runc(dialect);
    let outcome = bootstrap(&mut recorder, environment, &policy, &mut Scratch { message: &mut memory });
    let lines: Vec<String> = transcript.borrow().lines.iter().map(ToString::to_string).collect();
    (outcome, lines.join("\n"))
}

fn assert_snapshot(name: &str, outcome: Outcome, transcript: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(concat!(env!("CARGO_MANIFEST_DIR"), "/snapshots"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, std::format!("{transcript}\n=> {outcome:?}")));
}

const CHILD: Fork = Fork::Child;
const STAGE_1: Fork = Fork::Parent { child: Pid(101) };
const STAGE_2: Fork = Fork::Parent { child: Pid(102) };

#[test]
fn stage_0_of_a_start_without_any_namespace() {
    let reads = std::vec![
        message(&Bootstrap::new(CloneFlags::EMPTY)),
        word(Message::RecvpidPls),
        102_u32.to_ne_bytes().to_vec(),
        word(Message::ChildFinish),
        word(Message::ChildFinish),
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
        let reads = std::vec![
            message(bootstrap),
            word(Message::UsermapPls),
            word(Message::TimeoffsetsPls),
            word(Message::RecvpidPls),
            102_u32.to_ne_bytes().to_vec(),
            word(Message::ChildFinish),
            word(Message::ChildFinish),
        ];
        let (outcome, transcript) = run(canned(&[STAGE_1], reads), Level::Warning);
        assert_snapshot("stage_0_user_and_time", outcome, &transcript);
    });
}

#[test]
fn stage_1_creates_the_user_namespace_first() {
    with_user_and_time(|bootstrap| {
        let reads = std::vec![
            message(bootstrap),
            word(Message::UsermapAck),
            word(Message::TimeoffsetsAck),
            word(Message::RecvpidAck),
        ];
        let (outcome, transcript) = run(canned(&[CHILD, STAGE_2], reads), Level::Warning);
        assert_snapshot("stage_1_user_and_time", outcome, &transcript);
    });
}

#[test]
fn stage_2_becomes_leader_and_root_and_drops_groups() {
    with_user_and_time(|bootstrap| {
        let reads = std::vec![
            message(bootstrap),
            word(Message::UsermapAck),
            word(Message::TimeoffsetsAck),
            word(Message::Grandchild),
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
        .with_namespaces(NsPaths::parse(b"net:/run/netns/a", crate::namespace::NsSet::ALL).unwrap())
        .with_uid_map(map)
        .with_gid_map(map);
    for rootless in [false, true] {
        let bootstrap = bootstrap.with_rootless_euid(rootless);
        let reads = std::vec![message(&bootstrap), word(Message::UsermapAck), word(Message::RecvpidAck)];
        let (outcome, transcript) = run(canned(&[CHILD, STAGE_2], reads), Level::Warning);
        let name = if rootless { "stage_1_dumpable_window" } else { "stage_1_no_dumpable_window" };
        assert_snapshot(name, outcome, &transcript);
    }
}

#[test]
fn a_dead_stage_1_takes_nobody_else_along_and_is_named() {
    let reads = std::vec![message(&Bootstrap::new(CloneFlags::EMPTY))];
    let (outcome, transcript) = run(canned(&[STAGE_1], reads), Level::Warning);
    assert_eq!(outcome, Outcome::Exit(1));
    assert_snapshot("stage_0_stage_1_died", outcome, &transcript);
}

/// Runs stage 2 of 1.0 with a cgroup namespace to create. `said` are the launcher's bytes on the init pipe.
fn stage_2_of_1_0(said: &[u8]) -> (Outcome, String) {
    let boot = Bootstrap::new(CloneFlags::NEWCGROUP);
    let reads = std::vec![in_dialect(&boot, &Dialect::V1_0), word(Message::Grandchild), said.to_vec()];
    run_as(canned(&[CHILD, CHILD], reads), Level::Warning, &Dialect::V1_0)
}

#[test]
fn stage_2_of_1_0_creates_its_cgroup_namespace_by_the_launchers_word() {
    let (outcome, transcript) = stage_2_of_1_0(&[0x80]);
    assert_eq!(outcome, Outcome::HandOver);
    let (byte, unshare) =
        (transcript.find("read(3, \"\\200\", 1) = 1"), transcript.find("unshare(CLONE_NEWCGROUP)"));
    assert!(byte.is_some() && byte < unshare, "{transcript}");
    assert!(transcript.contains("unshare(0) = 0"), "stage 1 does not create it: {transcript}");
}

#[test]
fn any_other_word_and_none_at_all_are_the_end_of_it() {
    for (said, text) in [
        (&[0x81][..], "received unknown synchronisation value: 129"),
        (b"{", "received unknown synchronisation value: 123"),
        (b"", "read synchronisation value failed (got 0 of 1 bytes)"),
    ] {
        let (outcome, transcript) = stage_2_of_1_0(said);
        assert_eq!(outcome, Outcome::Exit(1));
        assert!(transcript.contains(text) && !transcript.contains("NEWCGROUP"), "{transcript}");
    }
}

#[test]
fn the_pid_line_of_the_seed_is_the_last_word_of_stage_0() {
    let boot = Bootstrap::new(CloneFlags::NEWUTS);
    let reads = std::vec![
        in_dialect(&boot, &Dialect::SEED),
        word(Message::RecvpidPls),
        102_u32.to_ne_bytes().to_vec(),
        word(Message::ChildFinish),
        word(Message::ChildFinish),
    ];
    let (outcome, transcript) = run_as(canned(&[STAGE_1], reads), Level::Warning, &Dialect::SEED);
    assert_eq!(outcome, Outcome::Exit(0));
    let last = transcript.lines().last().unwrap();
    assert!(last.contains(r#"{\"pid\": 102, \"pid_first\": 101}\n"#), "{transcript}");
}

#[test]
fn a_stage_that_told_its_failure_leaves_stage_0_nothing_to_say() {
    for (told, status) in [(1_u32, 1), (7, 7), (0, 1), (u32::MAX, 255)] {
        let boot = Bootstrap::new(CloneFlags::NEWUTS);
        let reads =
            std::vec![in_dialect(&boot, &Dialect::SEED), word(Message::Failed), told.to_ne_bytes().to_vec(),];
        let (outcome, transcript) = run_as(canned(&[STAGE_1], reads), Level::Warning, &Dialect::SEED);
        assert_eq!(outcome, Outcome::Exit(status));
        assert!(!transcript.contains("write(2") && !transcript.contains("kill("), "{transcript}");
    }
}

/// Only stage 1 has the pid of stage 2 by then.
#[test]
fn a_stage_1_that_is_left_alone_takes_stage_2_along() {
    let reads = std::vec![message(&Bootstrap::new(CloneFlags::EMPTY))];
    let (outcome, transcript) = run(canned(&[CHILD, STAGE_2], reads), Level::Warning);
    assert_eq!(outcome, Outcome::Exit(1));
    let killed = transcript.find("kill(102, SIGKILL)").expect("stage 2 is killed");
    assert!(transcript.find("\\\"level\\\":\\\"fatal\\\"").is_some_and(|told| killed < told), "{transcript}");
}
