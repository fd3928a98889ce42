//! Tests of the data and of the recorder without a kernel, with a list of replies as the backend.

use std::format;
use std::rc::Rc;
use std::string::ToString;
use std::vec;
use std::vec::Vec;

use core::cell::RefCell;

use super::*;
use nsexec::sys::Sys;
use nsexec::sys::types::{
    CloneFlags, Errno, ExecArgs, ExitSignal, Fd, Fork, FsType, InitFork, Pid, TidAddress,
};

/// A backend that returns these replies, one for each call.
struct Replies(Vec<Reply>);

impl Answer for Replies {
    fn answer(&mut self, _: Call) -> Reply {
        self.0.remove(0)
    }
}

fn replies<const N: usize>(replies: [Reply; N]) -> Answered<Replies> {
    Answered(Replies(replies.into()))
}

fn write_of(data: &[u8]) -> Line {
    Line { call: Call::Write { fd: Fd(3), data: data.into() }, reply: Reply::Count(data.len()) }
}

#[test]
fn bytes_are_text_or_hex_in_json() {
    let json = |data: &[u8]| serde_json::to_string(&Bytes::from(data)).unwrap();
    assert_eq!(json(b"0 1000 1\n\0"), r#""0 1000 1\n\u0000""#);
    assert_eq!(json(&[0xff, 0, 0x0a]), r#"{"hex":"ff000a"}"#);
    for data in [&b""[..], b"a\"\\", "é".as_bytes(), &[0xff, 0, 0x0a], &[0x80; 300]] {
        assert_eq!(serde_json::from_str::<Bytes>(&json(data)).unwrap(), data.into());
    }
    for wrong in [r#"{"hex":"f"}"#, r#"{"hex":"+f"}"#, r#"{"hex":"é"}"#, "3"] {
        assert!(serde_json::from_str::<Bytes>(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_transcript_is_a_header_and_a_line_for_each_call() {
    let mut transcript = Transcript::new("stage-1 child");
    transcript.push(Line { call: Call::Setsid, reply: Reply::Unit });
    transcript.push(Line { call: Call::Fork { exit: ExitSignal::None, tid: None }, reply: Reply::Child });
    transcript.push(write_of(&[0xfe]));
    let json = transcript.to_json_lines().unwrap();
    let expected = r#"{"schema":1,"section":"stage-1 child"}
{"call":"setsid","reply":"unit"}
{"call":{"fork":{"exit":"none","tid":null}},"reply":"child"}
{"call":{"write":{"fd":3,"data":{"hex":"fe"}}},"reply":{"count":1}}
"#;
    assert_eq!(json, expected);
    assert_eq!(Transcript::from_json_lines(&json).unwrap(), transcript);
    let other = json.replacen(":1", ":2", 1);
    assert!(Transcript::from_json_lines(&other).unwrap_err().to_string().contains("schema 2"));
    assert!(Transcript::from_json_lines("").is_err());
}

#[test]
fn failed_exec_replaces_its_announcement() {
    let mut sys = Recorder::new(replies([Reply::Errno(Errno::ENOENT)]), Vec::new());
    let mut slots = [const { None }; 3];
    let argv = ExecArgs::build(b"tool\0--\0", &mut slots).unwrap();
    assert_eq!(sys.execve(c"/tool", &argv, &ExecArgs::EMPTY), Errno::ENOENT);
    let lines = sys.into_sink();
    assert_eq!(lines[0].to_string(), r#"execve("/tool", ["tool", "--"], 0x… /* 0 vars */) = 0"#);
    let mut transcript = Transcript::default();
    lines.into_iter().for_each(|line| transcript.push(line));
    let shown: Vec<_> = transcript.lines.iter().map(ToString::to_string).collect();
    let failed =
        r#"execve("/tool", ["tool", "--"], 0x… /* 0 vars */) = -1 ENOENT (No such file or directory)"#;
    assert_eq!(shown, [failed]);
}

#[test]
fn both_sides_of_a_clone_are_recorded() {
    let parent = (Reply::Parent(Pid(12)), Fork::Parent { child: Pid(12) }, "12");
    for (reply, fork, shown) in [parent, (Reply::Child, Fork::Child, "0")] {
        let lines = Rc::new(RefCell::new(Vec::new()));
        assert_eq!(Recorder::new(replies([reply]), Rc::clone(&lines)).clone_sibling(None), Ok(fork));
        let expected = format!("clone(child_stack=NULL, flags=CLONE_PARENT|SIGCHLD) = {shown}");
        assert_eq!(lines.borrow()[0].to_string(), expected);
    }
}

#[test]
fn both_sides_of_the_clone_of_stage_1_are_recorded() {
    let tid = Some(TidAddress { address: 0x10, cached: 4 });
    let parent = (Reply::Parent(Pid(12)), Fork::Parent { child: Pid(12) }, "parent_tid=[12]", "12");
    for (reply, fork, written, result) in [parent, (Reply::Child, Fork::Child, "parent_tid=0x…", "0")] {
        for (tid, address) in [(tid, "0x10"), (None, "NULL")] {
            let mut sys = Recorder::new(replies([reply.clone()]), Transcript::default());
            assert_eq!(sys.clone_child(tid), Ok(fork));
            let flags = "CLONE_PARENT_SETTID|CLONE_CHILD_CLEARTID|CLONE_CHILD_SETTID";
            let expected = format!(
                "clone(child_stack=NULL, flags={flags}, {written}, child_tidptr={address}) = {result}"
            );
            assert_eq!(sys.sink().lines[0].to_string(), expected);
        }
    }
}

#[test]
fn both_sides_of_the_clone_of_an_init_are_recorded() {
    let (pid, tid) = (Pid(12), Some(TidAddress { address: 0x10, cached: 4 }));
    let of_parent = |pidfd| (Reply::ParentOfInit { pid, pidfd }, InitFork::Parent { child: pid, pidfd });
    // In strace's order: by number, with the namespaces between the other flags.
    let flags = [
        (CloneFlags::EMPTY, "CLONE_PIDFD|CLONE_CHILD_CLEARTID|CLONE_CHILD_SETTID"),
        (
            CloneFlags::NEWUSER.union(CloneFlags::NEWPID),
            "CLONE_PIDFD|CLONE_CHILD_CLEARTID|CLONE_CHILD_SETTID|CLONE_NEWUSER|CLONE_NEWPID",
        ),
        (
            CloneFlags(0x6e02_0000),
            "CLONE_PIDFD|CLONE_NEWNS|CLONE_CHILD_CLEARTID|CLONE_CHILD_SETTID|CLONE_NEWCGROUP|CLONE_NEWUTS|CLONE_NEWIPC|CLONE_NEWPID|CLONE_NEWNET",
        ),
    ];
    let replies_of = [
        (of_parent(Some(Fd(5))), "parent_tid=[5]", "12"),
        // A kernel before 5.2.
        (of_parent(None), "parent_tid=[-1]", "12"),
        ((Reply::Child, InitFork::Child), "parent_tid=0x…", "0"),
    ];
    for ((namespaces, names), ((reply, fork), written, result)) in
        flags.into_iter().flat_map(|flags| replies_of.clone().map(|reply| (flags, reply)))
    {
        let lines = Rc::new(RefCell::new(Vec::new()));
        let mut sys = Recorder::new(replies([reply]), Rc::clone(&lines));
        assert_eq!(sys.clone_init(namespaces, None, tid), Ok(fork));
        let expected =
            format!("clone(child_stack=NULL, flags={names}, {written}, child_tidptr=0x10) = {result}");
        assert_eq!(lines.borrow()[0].to_string(), expected);
    }
    let mut sys = Recorder::new(replies([Reply::Errno(Errno::ENOSPC)]), Transcript::default());
    assert_eq!(sys.clone_init(CloneFlags::EMPTY, None, None), Err(Errno::ENOSPC));
    let shown = sys.sink().lines[0].to_string();
    assert!(shown.contains("child_tidptr=NULL) = -1 ENOSPC"), "{shown}");
}

#[test]
fn only_the_bytes_read_are_recorded() {
    let backend = replies([Reply::Data(b"abc"[..].into()), Reply::FsType(FsType(0x0102_1994))]);
    let mut sys = Recorder::new(backend, Transcript::default());
    assert_eq!(sys.read(Fd(4), &mut [0; 16]), Ok(3));
    sys.fstatfs(Fd(4)).unwrap();
    let shown: Vec<_> = sys.sink().lines.iter().map(ToString::to_string).collect();
    assert_eq!(shown, vec![r#"read(4, "abc", 16) = 3"#, "fstatfs(4, {f_type=0x1021994, ...}) = 0"]);
}
