//! Tests of the renaming.

use std::string::{String, ToString};
use std::vec;

use super::*;
use crate::diff::compare;
use nsexec::error::{Doing, Error, MapKind, ProcFile, ToolFailure};
use nsexec::sys::types::{ExitSignal, PollEvents, Signal, WaitFor, WaitStatus};

fn line(call: Call, reply: Reply) -> Line {
    Line { call, reply }
}

fn fork(pid: i32) -> Line {
    line(Call::Fork { exit: ExitSignal::None, tid: None }, Reply::Parent(Pid(pid)))
}

fn sibling(pid: i32) -> Line {
    line(Call::CloneSibling { tid: None }, Reply::Parent(Pid(pid)))
}

fn close(fd: i32) -> Line {
    line(Call::Close { fd: Fd(fd) }, Reply::Unit)
}

fn section(role: Role, lines: Vec<Line>) -> Section {
    Section { lines, ..Section::new(role) }
}

/// Stage 0 is process 4710, stage 1 is 4711, stage 2 is 4712, and 1 in its own pid namespace.
fn run(launcher: Vec<Line>, stage_0: Vec<Line>) -> Run {
    let sections = vec![
        section(Role::Launcher, [vec![fork(4710)], launcher].concat()),
        section(Role::Stage(0), [vec![sibling(4711)], stage_0].concat()),
        section(Role::Stage(1), vec![sibling(4712)]),
        section(Role::Stage(2), vec![line(Call::Getpid, Reply::Pid(Pid(1)))]),
    ];
    Run { sections, ..Run::default() }
}

fn names() -> Names {
    Names::of(&run(vec![], vec![line(Call::SchedGetaffinity, Reply::Affinity(0xff3))]))
}

/// The normalised lines of one section, without the clone at its beginning.
fn of(run: &Run, role: Role) -> Vec<Line> {
    normalise(run).section(role).unwrap().lines[1..].to_vec()
}

fn record(stage: u8, pid: i32, text: &str) -> String {
    std::format!("{{\"level\":\"debug\", \"msg\": \"nsexec-{stage}[{pid}]: {text}\"}}\n")
}

#[test]
fn pids_are_renamed_where_the_bootstrap_writes_one() {
    let renamed = |text: &str| String::from_utf8(names().record(&text.as_bytes().into()).0).unwrap();
    for (stage, pid, text, as_pid, text_form_matches_its_snapshots) in [
        (0, 4710, "update /proc/4711/uid_map to '0 4711 1'", 100, "update /proc/101/uid_map to '0 4711 1'"),
        (
            0,
            4710,
            "forward stage-1 (4711) and stage-2 (4712) pids to runc",
            100,
            "forward stage-1 (101) and stage-2 (102) pids to runc",
        ),
        (
            1,
            4711,
            "request stage-0 to forward stage-2 pid (4712)",
            101,
            "request stage-0 to forward stage-2 pid (102)",
        ),
        (2, 1, "~> nsexec stage-2", 102, "~> nsexec stage-2"),
        (2, 4712, "~> nsexec stage-2", 102, "~> nsexec stage-2"),
        (0, 4710, "affinity: 0xff3", 100, "affinity: 0x0"),
    ] {
        assert_eq!(
            renamed(&record(stage, pid, text)),
            record(stage, as_pid, text_form_matches_its_snapshots)
        );
    }
    assert_eq!(
        renamed("{\"level\":\"debug\", \"msg\": \"nsexec[4710]: affinity: 0x1\"}\n"),
        "{\"level\":\"debug\", \"msg\": \"nsexec[100]: affinity: 0x1\"}\n"
    );
}

/// Paths, maps and commands are the caller's. A number in them may equal a pid of the run by coincidence.
#[test]
fn numbers_that_the_caller_chose_are_not_renamed() {
    for text in [
        "/proc/4711/ns/net",
        "0 4711 1\n",
        "4711",
        "{\"level\":\"4711\"}",
        &record(1, 9, "update /proc/4711/uid_map to ''")[30..],
    ] {
        assert_eq!(names().record(&text.as_bytes().into()), text.as_bytes().into());
        assert_eq!(
            names().value_or_pid_line(&mut State::of(&Run::default()), &text.as_bytes().into()),
            text.as_bytes().into()
        );
    }
    for (stage, pid, text) in [
        (1, 4711, "failed to open /proc/4711/ns/net: not a namespace (file system type 0x9fa0)"),
        (1, 4711, "failed to open /proc/4711: not a namespace"),
        (
            1,
            4711,
            "failed to setns into net namespace: Operation not permitted (with path /proc/4711/ns/net)",
        ),
        (0, 4710, "update /proc/self/oom_score_adj to '4711'"),
        (2, 4712, "failed to execute nsexec-1[4711]: (4711) on 4711: /proc/4711"),
        (0, 4710, "failed to get container mount namespace (/proc/self/ns/mnt): (4711)"),
    ] {
        let text = record(stage, pid, text);
        let as_pid = record(stage, 100 + i32::from(stage), "");
        let renamed = String::from_utf8(names().record(&text.as_bytes().into()).0).unwrap();
        assert_eq!(renamed[as_pid.len() - 3..], text[record(stage, pid, "").len() - 3..]);
    }
    let open = |path: &str, flags| {
        line(Call::Openat { dir: Fd::CWD, path: path.as_bytes().into(), flags }, Reply::Errno(Errno::ENOENT))
    };
    let exec = line(
        Call::Execve {
            path: b"/bin/4711".as_slice().into(),
            argv: ["sleep", "4711", "/proc/4711"].map(|word| word.as_bytes().into()).to_vec(),
            envp: vec![b"PID=4711".as_slice().into()],
        },
        Reply::NoReturn,
    );
    let lines =
        vec![open("/proc/4711/ns/net", OpenFlags::Namespace), open("/proc/4711", OpenFlags::Namespace), exec];
    assert_eq!(of(&run(vec![], lines.clone()), Role::Stage(0)), lines);
    let opened = of(&run(vec![], vec![open("/proc/4711", OpenFlags::Directory)]), Role::Stage(0));
    assert_eq!(opened, [open("/proc/101", OpenFlags::Directory)]);
}

#[test]
fn only_a_mapping_tools_argument_is_a_pid() {
    let exec = |pid: &str| {
        let argv = ["newuidmap", pid, "0", "4711", "1"].map(|word| word.as_bytes().into()).to_vec();
        line(
            Call::Execve { path: b"/usr/bin/newuidmap".as_slice().into(), argv, envp: vec![] },
            Reply::NoReturn,
        )
    };
    let mut run = run(vec![], vec![]);
    run.sections.push(section(Role::Tool(0), vec![exec("4711")]));
    assert_eq!(normalise(&run).section(Role::Tool(0)).unwrap().lines, [exec("101")]);
    run.sections[4].lines = vec![exec("77")];
    assert_eq!(normalise(&run).section(Role::Tool(0)).unwrap().lines, [exec("10000077")]);
}

/// Every error text of the core that contains a pid.
#[test]
fn every_error_text_with_a_pid_is_renamed() {
    let pid = Pid(4711);
    let os = |doing, errno| Error::Os { doing, errno };
    let tool = |why| Error::MappingTool { kind: MapKind::Uid, pid, why };
    let doings = [
        Doing::OpenProcDir(pid),
        Doing::Update(pid, ProcFile::Setgroups),
        Doing::Update(pid, ProcFile::UidMap),
        Doing::Check(pid, ProcFile::GidMap),
        Doing::ReadBack(pid, ProcFile::UidMap),
        Doing::Legacy(nsexec::legacy::Step::OpenMountNamespace(pid)),
    ];
    let errors = doings.into_iter().flat_map(|doing| [os(doing, Errno::EACCES), os(doing, Errno::ENOENT)]);
    let others = [
        Error::Short { doing: Doing::Update(pid, ProcFile::UidMap), got: 1, want: 2 },
        Error::ForeignProc { own: pid, found: None },
        tool(ToolFailure::NotPresent),
        tool(ToolFailure::Ended(WaitStatus::Exited(1))),
        tool(ToolFailure::Stage1Died),
        tool(ToolFailure::WroteOther(nsexec::idmap::MapMismatch::Unreadable)),
        Error::MappingTool { kind: MapKind::Gid, pid, why: ToolFailure::Ended(WaitStatus::Exited(1)) },
    ];
    for error in errors.chain(others) {
        let text = std::format!("{error}");
        assert!(text.contains("4711"), "{text}");
        let renamed = names().record(&record(0, 4710, &text).as_bytes().into());
        let expected = record(0, 100, &text.replace("4711", "101"));
        assert_eq!(renamed, expected.as_bytes().into());
    }
}

#[test]
fn sync_value_is_a_pid_only_after_recvpid_pls() {
    let mut state = State::of(&Run::default());
    let word = |number: i32| Bytes(number.to_ne_bytes().into());
    let said =
        [4711, 0x42, 4712, 4711, 0x42, 7].map(|number| names().value_or_pid_line(&mut state, &word(number)));
    assert_eq!(said, [4711, 0x42, 102, 4711, 0x42, UNKNOWN_PID + 7].map(word));
}

#[test]
fn the_pid_line_is_renamed_as_a_whole() {
    let line =
        |text: &str| names().value_or_pid_line(&mut State::of(&Run::default()), &text.as_bytes().into());
    for (text, renamed) in [
        ("{\"stage1_pid\":4711,\"stage2_pid\":4712}\n", "{\"stage1_pid\":101,\"stage2_pid\":102}\n"),
        ("{\"pid\": 4712, \"pid_first\": 4711}\n", "{\"pid\": 102, \"pid_first\": 101}\n"),
        ("{\"stage1_pid\":4711,\"stage2_pid\":9}\n", "{\"stage1_pid\":101,\"stage2_pid\":10000009}\n"),
        ("{\"stage1_pid\":4711,\"stage2_pid\":4712}\nx", "{\"stage1_pid\":4711,\"stage2_pid\":4712}\nx"),
    ] {
        assert_eq!(line(text), renamed.as_bytes().into());
    }
}

#[test]
fn descriptors_count_up_however_the_kernel_reuses_them() {
    let pipe = |fd| line(Call::Pipe2, Reply::Pair(Fd(fd), Fd(fd + 1)));
    let lines = [7, 7, 5].into_iter().flat_map(|fd| [pipe(fd), close(fd)]).chain([close(2)]).collect();
    let closed: Vec<i32> = of(&run(vec![], lines), Role::Stage(0))
        .iter()
        .filter_map(|line| if let Call::Close { fd } = line.call { Some(fd.0) } else { None })
        .collect();
    assert_eq!(closed, [3, 5, 7, 2]);
}

/// A number that no call returned, or that has been closed, is unknown, and not the next known one.
#[test]
fn unknown_descriptors_never_equal_known_ones() {
    let pipe = line(Call::Socketpair, Reply::Pair(Fd(5), Fd(6)));
    let poll = |fd| {
        let fds = vec![PollFd::new(Fd(fd), PollEvents::IN)];
        line(Call::Poll { fds: fds.clone(), timeout_ms: -1 }, Reply::Polled { count: 0, fds })
    };
    let fds = |lines: &[Line]| -> Vec<i32> {
        let fds = lines.iter().filter_map(|line| match &line.call {
            Call::Poll { fds, .. } => Some(fds[0].fd.0),
            Call::Dup3 { number, .. } => Some(number.0),
            _ => None,
        });
        fds.collect()
    };
    let lines = vec![poll(3), pipe.clone(), poll(5), close(5), poll(5), poll(-1), poll(1)];
    assert_eq!(fds(&of(&run(lines, vec![]), Role::Launcher)), [1_000_003, 3, 1_000_005, -1, 1]);
    let mut run = run(vec![poll(9), poll(8)], vec![]);
    run.notes.insert(INTERRUPT.into(), "9".into());
    assert_eq!(fds(&of(&run, Role::Launcher)), [INTERRUPT_FD, 1_000_008]);
    // The target of a successful dup3 is known from then on.
    let dup3 = |fd, number, reply| line(Call::Dup3 { fd: Fd(fd), number: Fd(number) }, reply);
    run.sections[0].lines[1..].clone_from_slice(&[pipe, dup3(5, 40, Reply::Unit)]);
    run.sections[0].lines.extend([poll(40), dup3(5, 41, Reply::Errno(Errno::EBADF)), poll(41)]);
    assert_eq!(fds(&of(&run, Role::Launcher)), [5, 5, 1_000_041, 1_000_041]);
}

#[test]
fn unknown_pids_never_equal_known_ones() {
    let kill = |pid| line(Call::Kill { pid: Pid(pid), signal: Signal::KILL }, Reply::Unit);
    let numbers = [4711, 101, -1, 0];
    let killed = of(&run(numbers.map(kill).to_vec(), vec![]), Role::Launcher);
    assert_eq!(killed, [101, 10_000_101, -1, 0].map(kill));
}

#[test]
fn addresses_are_known_once_the_kernel_returned_them() {
    let cache = line(Call::TidAddress, Reply::TidAddress(TidAddress { address: 0x7f00, cached: 4710 }));
    let clone = |address| {
        let tid = Some(TidAddress { address, cached: 4710 });
        line(Call::Fork { exit: ExitSignal::Chld, tid }, Reply::Errno(Errno::ENOMEM))
    };
    let addresses = |lines: Vec<Line>| -> Vec<usize> {
        let lines = of(&run(vec![], lines), Role::Stage(0));
        lines
            .iter()
            .filter_map(|line| {
                if let Call::Fork { tid: Some(tid), .. } = line.call { Some(tid.address) } else { None }
            })
            .collect()
    };
    assert_eq!(
        addresses(vec![clone(0x7f00), cache.clone(), clone(0x7f00), clone(0x7f08)]),
        [0x7f00, 1, 0x7f08]
    );
    let cached = |cached| {
        let told = line(Call::TidAddress, Reply::TidAddress(TidAddress { address: 0x7f00, cached }));
        match of(&run(vec![], vec![told]), Role::Stage(0))[0].reply {
            Reply::TidAddress(tid) => tid.cached,
            _ => panic!("another reply"),
        }
    };
    assert_eq!([4710, 0, 17].map(cached), [100, 0, UNKNOWN_PID + 17]);

    let old = SigAction { handler: 0x1234, restorer: 0x5678, flags: 0x0400_0000, ..SigAction::DEFAULT };
    let set = |action| line(Call::Sigaction { signal: Signal::CHLD, action }, Reply::Action(old));
    let actions = |lines: Vec<Line>| -> Vec<(usize, usize)> {
        let lines = of(&run(vec![], lines), Role::Stage(0));
        lines
            .iter()
            .filter_map(|line| {
                if let Call::Sigaction { action, .. } = line.call {
                    Some((action.handler, action.restorer))
                } else {
                    None
                }
            })
            .collect()
    };
    let other = SigAction { handler: 0x1238, ..old };
    assert_eq!(
        actions(vec![set(old), set(old), set(other), set(SigAction::IGNORE)]),
        [(0x1234, 0x5678), (2, 1), (0x1238, 1), (1, 0)]
    );
}

#[test]
fn proc_self_link_is_renamed_for_own_pids_only() {
    let link = |text: &str| {
        line(
            Call::Readlink { path: b"/proc/self".as_slice().into(), len: 16 },
            Reply::Data(text.as_bytes().into()),
        )
    };
    let links = of(&run(vec![], vec![link("4710"), link("4711"), link("1")]), Role::Stage(0));
    assert_eq!(links, ["100", "another", "another"].map(link));
}

#[test]
fn reaping_of_remaining_stages_is_sorted() {
    let wait = |which: Pid, found: i32| Line {
        call: Call::Wait4 { pid: which, which: WaitFor::Stages },
        reply: Reply::Waited(Waited { pid: Pid(found), status: WaitStatus::Exited(found) }),
    };
    let mut lines = [wait(Pid(102), 102), wait(Pid::ANY, 101), wait(Pid::ANY, 100), wait(Pid(99), 99)];
    launcher::sort_reaping(&mut lines);
    assert_eq!(lines, [wait(Pid(102), 102), wait(Pid::ANY, 100), wait(Pid::ANY, 101), wait(Pid(99), 99)]);
}

#[test]
fn log_reads_are_merged_into_one() {
    let read = |text: &str| Line {
        call: Call::Read { fd: Fd(3), len: 4096 },
        reply: Reply::Data(text.as_bytes().into()),
    };
    let mut lines = vec![
        Line { call: Call::Pipe2, reply: Reply::Pair(Fd(3), Fd(4)) },
        read("b\na"),
        read("\n"),
        read(""),
    ];
    launcher::merge_log_reads(&mut lines);
    assert_eq!(lines[1..], [read("a\nb\n"), read("")]);
}

/// The records come in another order, with other pids, and a read ends in the middle of a pid.
#[test]
fn log_records_of_two_runs_compare_equal() {
    let read = |text: &str| line(Call::Read { fd: Fd(7), len: 4096 }, Reply::Data(text.as_bytes().into()));
    let runs = [[4710, 4711, 4712], [99_999, 7, 100_000]].map(|[stage_0, stage_1, stage_2]| {
        let text = [
            record(0, stage_0, &std::format!("update /proc/{stage_1}/uid_map to ''")),
            record(1, stage_1, &std::format!("request stage-0 to forward stage-2 pid ({stage_2})")),
        ];
        let text = if stage_0 > stage_1 { text.concat() } else { [text[1].as_str(), &text[0]].concat() };
        let (one, other) = text.split_at(text.find("/proc/").unwrap() + 7);
        let mut run = run(vec![line(Call::Pipe2, Reply::Pair(Fd(7), Fd(8))), read(one), read(other)], vec![]);
        for (section, pid) in [stage_0, stage_1, stage_2].into_iter().enumerate() {
            let Reply::Parent(number) = &mut run.sections[section].lines[0].reply else { panic!("no clone") };
            *number = Pid(pid);
        }
        run
    });
    assert_eq!(compare(&runs[0], &runs[1]).to_string(), "");
}

/// When the stages have died, the launcher may see the end of their init pipe or the pidfd of stage 0 first.
/// A direct start that was given up had an init pipe of its own before.
#[test]
fn death_of_the_stages_is_the_end_of_their_init_pipe() {
    let pair = |one: i32| line(Call::Socketpair, Reply::Pair(Fd(one), Fd(one + 1)));
    let poll = |end: i32, death: i32| {
        let fds = [(5, end), (9, death)].map(|(fd, ready)| {
            let revents = if ready == 1 { PollEvents::IN } else { PollEvents::NONE };
            PollFd { revents, ..PollFd::new(Fd(fd), PollEvents::IN) }
        });
        let asked = [5, 9].map(|fd| PollFd::new(Fd(fd), PollEvents::IN)).to_vec();
        line(Call::Poll { fds: asked, timeout_ms: -1 }, Reply::Polled { count: 1, fds: fds.to_vec() })
    };
    let end = line(Call::Read { fd: Fd(5), len: 64 }, Reply::Data(Bytes::default()));
    let pidfd = line(Call::PidfdOpen { pid: Pid(100) }, Reply::Fd(Fd(9)));
    let runs = |before: &[Line]| {
        let ended = run([before, &[poll(1, 0), end.clone(), close(5)]].concat(), vec![]);
        let died = run([before, &[poll(0, 1), close(5)]].concat(), vec![]);
        compare(&ended, &died)
    };
    for before in [vec![pair(5)], vec![pair(3), close(3), close(4), pair(5)]] {
        let diff = runs(&[before.clone(), vec![pidfd.clone()]].concat());
        assert!(diff.is_empty(), "{diff}");
        // The other descriptor is that of the signals.
        assert!(!runs(&before).is_empty());
    }
}

#[test]
fn closings_of_ranges_are_one() {
    let closing = |first, last| line(Call::CloseRange { first, last }, Reply::Unit);
    let refused = line(Call::CloseRange { first: 7, last: u32::MAX }, Reply::Errno(Errno::ENOSYS));
    let pipe = line(Call::Pipe2, Reply::Pair(Fd(5), Fd(6)));
    let write = line(Call::Write { fd: Fd(6), data: b"x"[..].into() }, Reply::Count(1));
    let normal = |lines: Vec<Line>| of(&run(vec![], [vec![pipe.clone()], lines].concat()), Role::Stage(0));
    // The numbers of the kept descriptors differ, and so does the number of gaps.
    let one = normal(vec![closing(3, 4), closing(7, u32::MAX), write.clone()]);
    let other = normal(vec![closing(3, 3), closing(7, 8), closing(10, u32::MAX), write.clone()]);
    assert_eq!(one, other);
    assert_eq!(one.len(), 3);
    assert_eq!(one[1], closing(3, u32::MAX));
    // The pipe is not closed: it keeps its name.
    assert!(matches!(one[2].call, Call::Write { fd: Fd(4), .. }), "{}", one[2]);
    // A refusal is another event.
    assert_eq!(normal(vec![closing(3, 4), refused.clone()]).len(), 3);
    assert_ne!(normal(vec![refused]), normal(vec![closing(7, u32::MAX)]));
}
