//! Tests of the core on the simulated kernel.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use nsexec::bootstrap::{Dialect, decode};
use nsexec::launch::shape::{Shape, shape};
use nsexec::log::Level;
use nsexec::namespace::NsKind;
use nsexec::policy::{LogForm, Policy, Session};
use nsexec::sys::Sys;
use nsexec::sys::types::*;
use nsexec_audit::Role;
use nsexec_audit::diff::compare;
use nsexec_audit::plan::runc::{CONFIG, Launch, Manner, MountNumbers, drop_in};
use nsexec_audit::record::{Call, Line, Mismatch, Playback, Reply, play_back};
use nsexec_audit::sections::of_report;
use nsexec_audit::sim::*;
use support::scenarios::{COMMAND, Scenario, for_runc, named, runc_init, start_and_tell, start_our_own};

const NO_FAULT: Option<Fault> = None;

/// Checks that a start succeeded, whatever its namespaces.
fn assert_started(name: &str, report: &Report) {
    let end = |role| report.find(role).map(|process| process.end.clone());
    let all = || format!("{name}\n{report}");
    assert_eq!(end(Role::Launcher), Some(FinalState::Exited(0)), "{}", all());
    assert_eq!(end(Role::Stage(0)), Some(FinalState::Exited(0)), "{}", all());
    assert_eq!(end(Role::Stage(1)), Some(FinalState::Exited(0)), "{}", all());
    assert_eq!(end(Role::Stage(2)), Some(FinalState::HandedOver), "{}", all());
    assert_eq!(report.zombies().count(), 0, "{}", all());
    assert_eq!(report.alive().count(), 1, "{}", all());
    assert!(report.unread.is_empty(), "{}", all());
    let init = report.find(Role::Stage(2)).unwrap();
    let open: Vec<i32> = init.descriptors.iter().map(|(fd, _)| fd.0).collect();
    assert_eq!(open, [0, 1, 2, 4], "stdio and the init pipe\n{}", all());
}

#[test]
fn every_realistic_start_is_handed_over() {
    for scenario in for_runc() {
        for manner in [Manner::Init, Manner::Exec] {
            for level in [Level::Warning, Level::Debug] {
                let report = scenario.launched(manner, level).run(&mut Oldest, NO_FAULT);
                assert_started(scenario.name, &report);
            }
        }
    }
}

#[test]
fn the_order_of_the_processes_changes_nothing() {
    for scenario in for_runc() {
        for manner in [Manner::Init, Manner::Exec] {
            let sim = scenario.launched(manner, Level::Warning);
            let wanted = of_report(&sim.run(&mut Oldest, NO_FAULT));
            let enumerated = all_schedules(300, |script| {
                let report = sim.run(script, NO_FAULT);
                assert_started(scenario.name, &report);
                let diff = compare(&wanted, &of_report(&report));
                assert!(diff.is_empty(), "{}: {diff}", scenario.name);
            });
            println!("{}, {manner:?}: {enumerated:?}", scenario.name);
            for seed in 0..20 {
                let report = sim.run(&mut Random::new(seed), NO_FAULT);
                assert_started(scenario.name, &report);
                let diff = compare(&wanted, &of_report(&report));
                assert!(diff.is_empty(), "{} with seed {seed}: {diff}", scenario.name);
            }
        }
    }
}

fn machine() -> Sim {
    Sim::new(Settings::default(), &User::root())
}

#[test]
fn a_deadlock_is_a_result() {
    let mut sim = machine();
    sim.launcher(|sys| {
        let (one, other) = sys.socketpair().unwrap();
        match sys.fork(ExitSignal::Chld, None).unwrap() {
            Fork::Child => {
                let _ = sys.read(other, &mut [0]);
                Ended::Exit(0)
            }
            Fork::Parent { .. } => {
                let _ = sys.read(one, &mut [0]);
                Ended::Exit(0)
            }
        }
    });
    let report = sim.run(&mut Oldest, NO_FAULT);
    let stuck: Vec<String> = report.stuck().map(|(role, call)| format!("{role}: {call}")).collect();
    assert_eq!(stuck, ["launcher: read(3, 0x…, 1)", "stage-0 parent: read(4, 0x…, 1)"]);
    assert!(report.dump().contains("waits in read(3"), "{}", report.dump());
}

#[test]
fn a_run_without_end_is_cut_off() {
    let mut sim = machine();
    sim.launcher(|sys| {
        loop {
            sys.getpid();
        }
    });
    let report = sim.run(&mut Oldest, NO_FAULT);
    assert!(report.endless);
    assert_eq!(report.processes[0].end, FinalState::Running);
}

/// Runs a simulation that must panic, and returns the message.
fn panic_of(sim: Sim) -> String {
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| sim.run(&mut Oldest, NO_FAULT)));
    *result.unwrap_err().downcast::<String>().expect("a message")
}

/// A launcher that waits for its child, and is then called again from the start.
fn impure(second: impl Fn(&mut SimSys, usize) -> Ended + 'static) -> Sim {
    let mut sim = machine();
    let calls = std::cell::Cell::new(0);
    sim.launcher(move |sys| {
        calls.set(calls.get() + 1);
        second(sys, calls.get())
    });
    sim
}

#[test]
fn impure_process_panics_with_both_calls() {
    let message = panic_of(impure(|sys, nth| {
        sys.set_dumpable(nth == 1).unwrap();
        if let Ok(Fork::Parent { child }) = sys.fork(ExitSignal::Chld, None) {
            let _ = sys.wait4(child, WaitFor::Ordinary);
        }
        Ended::Exit(0)
    }));
    assert_eq!(
        message,
        "stage-0 parent is not pure at line 0 of its replay: recorded prctl(PR_SET_DUMPABLE, SUID_DUMP_USER), now \
         it calls prctl(PR_SET_DUMPABLE, SUID_DUMP_DISABLE)"
    );
    let message = panic_of(impure(|sys, nth| {
        if nth > 1 {
            return Ended::Exit(0);
        }
        let (read, _write) = sys.pipe2().unwrap();
        let _ = sys.poll(&mut [PollFd::new(read, PollEvents::IN)], 10);
        Ended::Exit(0)
    }));
    assert_eq!(
        message,
        "launcher is not pure: recorded pipe2([3, 4], O_CLOEXEC) = 0, now it ended without another call"
    );
}

#[test]
fn fault_happens_once_at_its_place() {
    let sim = named("nothing").launched(Manner::Init, Level::Warning);
    let faultless = sim.run(&mut Oldest, NO_FAULT);
    let (at, _) = faultless
        .places()
        .find(|(place, line)| place.role == Role::Stage(1) && matches!(line.call, Call::Unshare { .. }))
        .unwrap();
    let report = sim.run(&mut Oldest, Some(Fault { at, what: FaultKind::Errno(Errno::ENOSPC) }));
    assert!(report.fault_fired);
    let child = report.find(Role::Stage(1)).unwrap();
    assert_eq!(
        child.transcript.lines[at.line].to_string(),
        "unshare(0) = -1 ENOSPC (No space left on device)"
    );
    assert_eq!(child.end, FinalState::Exited(1));
    assert_eq!(report.find(Role::Launcher).unwrap().end, FinalState::Exited(1));
    assert_eq!(report.alive().count(), 0, "{}", report.dump());

    let report = sim.run(&mut Oldest, Some(Fault { at, what: FaultKind::Kill }));
    let child = report.find(Role::Stage(1)).unwrap();
    assert_eq!(
        (child.end.clone(), child.transcript.lines.len()),
        (FinalState::Signaled(Signal::KILL), at.line)
    );
}

#[test]
fn short_read_is_continued() {
    let sim = named("rootful").launched(Manner::Exec, Level::Warning);
    let faultless = sim.run(&mut Oldest, NO_FAULT);
    let reads = faultless
        .places()
        .filter(|(place, line)| place.role != Role::Launcher && matches!(line.call, Call::Read { .. }));
    let mut count = 0;
    for (at, _) in reads {
        let report = sim.run(&mut Oldest, Some(Fault { at, what: FaultKind::Short(1) }));
        assert_eq!(
            report.find(Role::Stage(2)).unwrap().end,
            FinalState::HandedOver,
            "{at:?}\n{}",
            report.dump()
        );
        count += u32::from(report.fault_fired);
    }
    assert!(count > 5, "{count}");
}

/// Starts a container whose mapping tool is replaced by `program`.
fn with_tool(program: Program) -> Report {
    let scenario = named("rootless_tools");
    let mut sim = scenario.launched(Manner::Init, Level::Warning);
    sim.program("/usr/bin/newuidmap", program);
    sim.run(&mut Oldest, NO_FAULT)
}

#[test]
fn a_faulty_mapping_tool_ends_the_start() {
    for ended in [Ended::Exit(0), Ended::Exit(1), Ended::Signal(Signal::KILL)] {
        let report = with_tool(Program::ends(ended));
        assert_eq!(
            report.find(Role::Launcher).unwrap().end,
            FinalState::Exited(1),
            "{ended:?}\n{}",
            report.dump()
        );
        assert_eq!(report.alive().count(), 0, "{ended:?}\n{}", report.dump());
    }
    // A tool that never ends: no process ends, since all wait for the tool.
    let report = with_tool(Program::ends(Ended::Stay));
    assert!(report.stuck().any(|(role, _)| role == Role::Stage(0)), "{}", report.dump());
}

/// Returns the fatal records of a run.
fn fatal(report: &Report) -> Vec<String> {
    let lines = report.processes.iter().flat_map(|process| &process.transcript.lines);
    let records = lines.filter_map(|line| match &line.call {
        Call::WriteNowait { data, .. } => Some(String::from_utf8_lossy(&data.0).trim_end().to_string()),
        _ => None,
    });
    records.filter(|record| record.contains("\"fatal\"")).collect()
}

/// Checks that stage 0 reports a foreign /proc, and that no process has opened anything there.
fn assert_foreign_proc(report: &Report, wanted: &str) {
    let records = fatal(report);
    let [record] = &records[..] else { panic!("{records:?}\n{report}") };
    assert_error_of_foreign_proc(report, record, wanted);
}

/// Checks the error of a foreign /proc, and that no process has opened anything there.
fn assert_error_of_foreign_proc(report: &Report, error: &str, wanted: &str) {
    assert!(error.contains("/proc belongs to another pid namespace, or is not mounted: "), "{error}");
    assert!(error.contains(wanted), "{error}");
    assert_eq!(report.stuck().count(), 0, "{report}");
    assert_eq!(report.alive().count(), 0, "{report}");
    let lines = report.processes.iter().flat_map(|process| &process.transcript.lines);
    let opened =
        lines.filter(|line| matches!(&line.call, Call::Openat { path, .. } if path.0.starts_with(b"/proc")));
    assert_eq!(opened.count(), 0, "{report}");
}

#[test]
fn missing_proc_is_reported_before_maps_are_written() {
    for scenario in for_runc() {
        let mut sim = Sim::new(Settings { proc_missing: true, ..Settings::default() }, &User::root());
        let (manner, level, mount_numbers) = (Manner::Init, Level::Warning, MountNumbers::Kept);
        let (policy, message) = (scenario.policy, scenario.message.clone());
        drop_in(&mut sim, Launch { manner, level, policy, message, mount_numbers });
        let report = sim.run(&mut Oldest, NO_FAULT);
        match scenario.name {
            // These write no maps or offsets, so stage 0 does not check /proc.
            "nothing" | "rootful" => assert_started(scenario.name, &report),
            name if ["join", "exec", "oom"].iter().any(|start| name.starts_with(start)) => {}
            _ => assert_foreign_proc(&report, "there is no /proc/self"),
        }
    }
}

/// As in `nsexec run -p -- nsexec run -r`: the launcher is in a new pid namespace, but sees the old /proc.
/// There the pid of its stage 1, or of the init of a direct start, belongs to another process. The launcher
/// of a direct start finds the number of its child in the fdinfo of the pidfd.
#[test]
fn foreign_proc_is_refused_by_stages_and_searched_by_a_launcher() {
    let names = ["rootful_user", "rootless_single", "time_offsets_user"];
    for (name, stages) in names.into_iter().flat_map(|name| [(name, true), (name, false)]) {
        let scenario = named(name);
        let mut sim = Sim::new(Settings::default(), &User::root());
        let message = scenario.message.clone();
        let told = Rc::new(RefCell::new(None));
        let tell = told.clone();
        sim.launcher(move |sys| {
            sys.unshare(CloneFlags::NEWPID).unwrap();
            match sys.fork(ExitSignal::Chld, None).unwrap() {
                Fork::Child => {
                    let policy = Policy::runc(&Dialect::V1_2).with_session(Session::Keep).with_stages(stages);
                    let tell = tell.clone();
                    start_and_tell(sys, &policy, Level::Warning, &message, None, move |error| {
                        *tell.borrow_mut() = Some(error.to_string());
                    })
                }
                Fork::Parent { child } => match sys.wait4(child, WaitFor::Ordinary) {
                    Ok(Waited { status: WaitStatus::Exited(status), .. }) => Ended::Exit(status),
                    other => panic!("{other:?}"),
                },
            }
        });
        let report = sim.run(&mut Oldest, NO_FAULT);
        if stages {
            assert_foreign_proc(&report, "we are process 2, and /proc/self is ");
        } else {
            // Only the exec fails, because the simulated machine has no such command.
            let error = told.borrow_mut().take().expect("an error");
            assert!(error.starts_with("failed to execute command"), "{error}");
            let shown = report.to_string();
            assert!(shown.contains("Pid:\\t102") && shown.contains("\"102\", {flags="), "{report}");
            assert!(!shown.contains("\"2\", {flags="), "{report}");
        }
        let status = if stages { 1 } else { 127 };
        assert_eq!(report.find(Role::Launcher).unwrap().end, FinalState::Exited(status), "{report}");
    }
}

#[test]
fn our_own_launcher_starts_a_command() {
    let mut direct = 0;
    for (scenario, stages) in in_both_shapes() {
        let policy = kept().with_stages(stages);
        let shape = shape_of(&scenario, &policy);
        if !stages && shape != Shape::Direct {
            continue;
        }
        let sim = scenario.launched_by_us(policy, Level::Warning);
        let report = sim.run(&mut Oldest, NO_FAULT);
        let all = || format!("{}\n{report}", scenario.name);
        let expected = [Role::Launcher, Role::Stage(0), Role::Stage(1), Role::Stage(2)];
        let expected = if stages { &expected[..] } else { &[Role::Launcher, Role::Stage(2)][..] };
        let stages_and_tools = report.processes.iter().map(|process| process.role);
        let created: BTreeSet<Role> = stages_and_tools.filter(|role| !role.is_tool()).collect();
        assert_eq!(created, expected.iter().copied().collect(), "{}", all());
        direct += usize::from(!stages);
        for role in expected {
            assert_eq!(
                report.find(*role).map(|process| process.end.clone()),
                Some(FinalState::Exited(0)),
                "{}",
                all()
            );
        }
        assert_eq!((report.zombies().count(), report.alive().count()), (0, 0), "{}", all());
        let wanted = of_report(&report);
        let enumerated = all_schedules(200, |script| {
            let diff = compare(&wanted, &of_report(&sim.run(script, NO_FAULT)));
            assert!(diff.is_empty(), "{}: {diff}", scenario.name);
        });
        println!("{}, our own, {shape}: {enumerated:?}", scenario.name);
    }
    assert!(direct > 5, "{direct} direct starts");
}

/// Returns every start, with and without a policy that asks for the stages.
fn in_both_shapes() -> impl Iterator<Item = (Scenario, bool)> {
    [true, false]
        .into_iter()
        .flat_map(|stages| for_runc().into_iter().map(move |scenario| (scenario, stages)))
}

/// Returns the shape of a scenario's start by our own launcher.
fn shape_of(scenario: &Scenario, policy: &Policy) -> Shape {
    let (asked, _) = decode(&scenario.message, policy.dialect).unwrap();
    shape(&asked, policy)
}

/// Checks that no process waits forever, and that only a stage 2 that was handed over is alive.
fn assert_over(name: &str, fault: Fault, report: &Report) {
    let all = || format!("{name}, {fault}\n{report}");
    assert!(!report.endless, "{}", all());
    assert_eq!(report.stuck().count(), 0, "{}", all());
    assert!(report.alive().all(|process| process.end == FinalState::HandedOver), "{}", all());
}

#[test]
fn no_process_survives_any_death() {
    let mut tried = 0;
    for scenario in for_runc() {
        let policy = Policy::runc(&Dialect::V1_2).with_log_form(LogForm::Detailed);
        for (own, sim) in [
            (false, scenario.launched(Manner::Init, Level::Warning)),
            (false, scenario.launched(Manner::Exec, Level::Warning)),
            (true, scenario.launched_by_us(policy, Level::Warning)),
            (true, scenario.launched_by_us(policy.with_stages(true), Level::Warning)),
        ] {
            let faultless = sim.run(&mut Oldest, NO_FAULT);
            let places = faultless.places().map(|(at, _)| at).chain(faultless.ends());
            for at in places {
                for what in [FaultKind::Kill, FaultKind::KillWaking] {
                    let fault = Fault { at, what };
                    let reports = [sim.run(&mut Oldest, Some(fault)), sim.run(&mut Youngest, Some(fault))];
                    // Some calls never wait, so the fault does not happen.
                    for report in reports.iter().filter(|report| report.fault_fired) {
                        assert_over(scenario.name, fault, report);
                        tried += 1;
                        // Our own launcher reaps every stage, and stage 0 reaps its tools.
                        let by_init = |process: &ProcessReport| process.reaped_by == Some(Reaper::Init);
                        let left = report.processes.iter().skip(1).filter(|process| by_init(process));
                        if own && at.role != Role::Launcher {
                            assert!(left.clone().all(|process| process.role.is_tool()), "{fault}\n{report}");
                        }
                    }
                }
            }
        }
    }
    println!("{tried} deaths");
}

#[test]
fn small_buffers_do_not_change_the_result() {
    for mut scenario in for_runc() {
        let settings = scenario.sim.settings();
        (settings.socket_buffer, settings.pipe_buffer) = (48, 4096);
        let report = scenario.launched(Manner::Init, Level::Debug).run(&mut Oldest, NO_FAULT);
        assert_started(scenario.name, &report);
    }
}

#[test]
fn old_kernel_starts_every_container() {
    for mut scenario in for_runc() {
        let settings = scenario.sim.settings();
        settings.reports_tid_address = false;
        settings.lacks.extend([
            ("pidfd_open", Errno::ENOSYS),
            ("close_range", Errno::ENOSYS),
            ("pwritev2", Errno::EOPNOTSUPP),
        ]);
        let report = scenario.launched(Manner::Exec, Level::Debug).run(&mut Oldest, NO_FAULT);
        assert_started(scenario.name, &report);
        // A clone of this kernel ignores CLONE_PIDFD, and returns no descriptor.
        for stages in [true, false] {
            let sim = scenario.launched_by_us(kept().with_stages(stages), Level::Debug);
            let report = sim.run(&mut Oldest, NO_FAULT);
            let launcher = report.find(Role::Launcher).unwrap();
            assert_eq!(launcher.end, FinalState::Exited(0), "{}\n{report}", scenario.name);
            assert_eq!(
                (report.zombies().count(), report.alive().count()),
                (0, 0),
                "{}\n{report}",
                scenario.name
            );
            let has_pidfd = |line: &Line| matches!(line.reply, Reply::ParentOfInit { pidfd: Some(_), .. });
            assert!(!launcher.transcript.lines.iter().any(has_pidfd), "{report}");
        }
    }
}

#[test]
fn namespace_limit_is_enospc() {
    let mut scenario = named("rootful");
    scenario.sim.settings().limits.insert(NsKind::Net, 0);
    let report = scenario.launched(Manner::Init, Level::Warning).run(&mut Oldest, NO_FAULT);
    assert_eq!(report.find(Role::Launcher).unwrap().end, FinalState::Exited(1));
    assert!(report.to_string().contains("ENOSPC"), "{report}");
    assert_eq!(report.alive().count(), 0);
}

/// The tool needs its set-user-id bit, which has no effect under no_new_privs.
#[test]
fn without_new_privileges_the_tool_maps_nothing() {
    let mut scenario = named("rootless_tools");
    scenario.sim.settings().no_new_privs = true;
    let report = scenario.launched(Manner::Init, Level::Warning).run(&mut Oldest, NO_FAULT);
    assert_eq!(report.find(Role::Tool(0)).unwrap().end, FinalState::Exited(1), "{report}");
    assert_eq!(report.find(Role::Launcher).unwrap().end, FinalState::Exited(1), "{report}");
    assert_eq!((report.alive().count(), report.stuck().count()), (0, 0), "{report}");
}

/// A FIFO, a plain file, a missing file, and a namespace of another kind instead of the namespace.
#[test]
fn non_namespace_file_is_not_joined() {
    for (extra, errno) in [
        (Some(Extra::Fifo), "f_type=0x1021994"),
        (Some(Extra::Regular(b"text".as_slice().into())), "f_type=0x1021994"),
        (Some(Extra::Forbidden), "EACCES"),
        (None, "ENOENT"),
    ] {
        let mut scenario = named("exec_foreign_net");
        match extra {
            Some(extra) => scenario.sim.file("/run/netns/blue", extra),
            None => scenario.sim.remove_file("/run/netns/blue"),
        }
        let report = scenario.launched(Manner::Init, Level::Warning).run(&mut Oldest, NO_FAULT);
        let child = report.find(Role::Stage(1)).unwrap();
        let opened: Vec<String> = child.transcript.lines.iter().map(ToString::to_string).collect();
        assert!(opened.iter().any(|line| line.contains(errno)), "{errno}\n{report}");
        assert!(!opened.iter().any(|line| line.starts_with("setns")), "{report}");
        assert_eq!(report.find(Role::Launcher).unwrap().end, FinalState::Exited(1), "{report}");
        assert_eq!(report.alive().count(), 0, "{report}");
    }
}

/// As runc's C does: a stage writes a log record, and blocks because no process reads the full pipe.
#[test]
fn blocking_log_is_a_deadlock() {
    let mut sim = machine();
    sim.settings().pipe_buffer = 4096;
    let (_log, stage_log) = sim.pipe(true);
    sim.launcher(move |sys| match sys.fork(ExitSignal::Chld, None).unwrap() {
        Fork::Child => loop {
            let _ = sys.write(stage_log, b"a record of a stage\n");
        },
        Fork::Parent { child } => {
            let _ = sys.wait4(child, WaitFor::Ordinary);
            Ended::Exit(0)
        }
    });
    let report = sim.run(&mut Oldest, NO_FAULT);
    assert!(!report.endless);
    let stuck: Vec<Role> = report.stuck().map(|(role, _)| role).collect();
    assert_eq!(stuck, [Role::Launcher, Role::Stage(0)], "{report}");
    assert_eq!(report.unread.len(), 1);
}

/// As in runc's C: the mapping tool inherits the sync pipe, so stage 1 never reads the end of the file after
/// stage 0 died.
#[test]
fn leaked_descriptor_blocks_the_reader() {
    for leaks in [false, true] {
        let mut sim = machine();
        sim.settings().leaks_descriptors = leaks;
        sim.program("/tool", Program::ends(Ended::Stay));
        sim.launcher(|sys| {
            let (ours, theirs) = sys.socketpair().unwrap();
            if let Ok(Fork::Child) = sys.fork(ExitSignal::Chld, None) {
                // The part of stage 1: waits for stage 0.
                sys.close(theirs).unwrap();
                return Ended::Exit(sys.read(ours, &mut [0]).map_or(1, |_| 0));
            }
            sys.close(ours).unwrap();
            if let Ok(Fork::Child) = sys.fork(ExitSignal::Chld, None) {
                let mut slots = [None; 2];
                let argv = ExecArgs::build(b"tool\0", &mut slots).unwrap();
                sys.execve(c"/tool", &argv, &ExecArgs::EMPTY);
                return Ended::Exit(127);
            }
            Ended::Signal(Signal::KILL)
        });
        let report = sim.run(&mut Oldest, NO_FAULT);
        assert_eq!(report.stuck().count(), usize::from(leaks), "{report}");
    }
}

/// Returns the lines of each process of `line_of` up to its clone of the next one, and all lines of the last
/// one.
fn ancestry(report: &Report, line_of: &[Role]) -> Vec<Line> {
    let mut lines = Vec::new();
    for (nth, role) in line_of.iter().enumerate() {
        let own = &report.find(*role).unwrap().transcript.lines;
        // Without the exec that replaced the program.
        let start = own.iter().position(|line| line.reply == Reply::NoReturn).map_or(0, |at| at + 1);
        let is_clone =
            |line: &Line| matches!(line.call, Call::CloneSibling { .. }) && line.reply != Reply::Child;
        let end = match nth + 1 < line_of.len() {
            true => own.iter().position(is_clone).unwrap(),
            false => own.len(),
        };
        lines.extend_from_slice(&own[start..end]);
    }
    lines
}

#[test]
fn a_recording_gives_the_same_error_without_a_kernel() {
    let scenario = named("rootful_user");
    let sim = scenario.launched(Manner::Init, Level::Warning);
    let faultless = sim.run(&mut Oldest, NO_FAULT);
    let unshare = |line: &Line| matches!(line.call, Call::Unshare { .. });
    let (at, _) =
        faultless.places().find(|(place, line)| place.role == Role::Stage(1) && unshare(line)).unwrap();
    let report = sim.run(&mut Oldest, Some(Fault { at, what: FaultKind::Errno(Errno::ENOSPC) }));
    let main = |sys: &mut Playback<'_>| runc_init(sys, Fd(4), Fd(6), Level::Warning);
    let lines = ancestry(&report, &[Role::Stage(0), Role::Stage(1)]);
    assert_eq!(play_back(&lines, main), Ok(Ended::Exit(1)));
    let lines = ancestry(&report, &[Role::Stage(0)]);
    assert_eq!(play_back(&lines, main), Ok(Ended::Exit(1)));
    // A different call, too few calls, too many calls.
    let mut other = lines.clone();
    other[0].call = Call::Setsid;
    let made = lines[0].call.clone();
    assert_eq!(
        play_back(&other, main),
        Err(Box::new(Mismatch::Other { line: 0, recorded: Call::Setsid, made: made.clone() }))
    );
    assert_eq!(play_back(&[], main), Err(Box::new(Mismatch::ExtraCall { made })));
    let mut long = lines.clone();
    long.push(other[0].clone());
    assert_eq!(play_back(&long, main), Err(Box::new(Mismatch::EndedEarly { line: lines.len() })));
}

/// The record of one signal that a signalfd returns.
fn siginfo(signal: Signal) -> Vec<u8> {
    let mut record = u32::try_from(signal.0).unwrap().to_ne_bytes().to_vec();
    record.resize(128, 0);
    record
}

fn tools() -> Scenario {
    named("rootless_tools")
}

fn kept() -> Policy {
    Policy::runc(&Dialect::V1_2).with_session(Session::Keep).with_log_form(LogForm::Detailed)
}

/// SIGTERM comes while a tool runs that never ends, or at any other time. The launch then ends with the
/// signal, or has started the command before it.
#[test]
fn interrupted_launch_leaves_no_process() {
    for (scenario, stays, count) in
        [("rootless_tools", true, 300), ("rootless_tools", false, 1500), ("rootless_single", false, 1500)]
    {
        let Scenario { mut sim, message, .. } = named(scenario);
        if stays {
            sim.program("/usr/bin/newuidmap", Program::ends(Ended::Stay));
        }
        sim.program(COMMAND, Program::ends(Ended::Exit(0)));
        sim.launcher(move |sys| {
            let (read, write) = sys.pipe2().unwrap();
            // Another process sends the signal at any time.
            let Fork::Parent { child } = sys.fork(ExitSignal::Chld, None).unwrap() else {
                sys.write(write, &siginfo(Signal::TERM)).unwrap();
                return Ended::Exit(0);
            };
            let ended = start_our_own(sys, &kept(), Level::Warning, &message, Some(read));
            // The stages return here too, and do not have this child.
            let _ = sys.wait4(child, WaitFor::Ordinary);
            ended
        });
        let mut seen = BTreeSet::new();
        let mut check = |report: &Report| {
            let all = || format!("{report}");
            assert!(!report.endless, "{}", all());
            assert_eq!(report.stuck().count(), 0, "{}", all());
            assert_eq!((report.zombies().count(), report.alive().count()), (0, 0), "{}", all());
            let FinalState::Exited(status) = report.find(Role::Launcher).unwrap().end else {
                panic!("{}", all())
            };
            assert!(status == 143 || status == 0 && !stays, "{status}: {}", all());
            seen.insert(status);
        };
        let enumerated = all_schedules(count, |script| check(&sim.run(script, NO_FAULT)));
        for seed in 0..200 {
            check(&sim.run(&mut Random::new(seed), NO_FAULT));
        }
        assert_eq!(seen.len(), if stays { 1 } else { 2 }, "both come: {seen:?}");
        println!("interrupted {scenario}, a tool that stays: {stays}: {enumerated:?}");
    }
}

/// A tool without a launcher is useless, so stage 0 kills it when the launcher dies.
#[test]
fn launcher_death_kills_the_mapping_tool() {
    let Scenario { mut sim, message, .. } = tools();
    sim.program("/usr/bin/newuidmap", Program::ends(Ended::Stay));
    sim.launcher(move |sys| {
        let (init, stage_init) = sys.socketpair().unwrap();
        if let Fork::Child = sys.fork(ExitSignal::Chld, None).unwrap() {
            sys.close(init).unwrap();
            return runc_init(sys, stage_init, Fd::STDERR, Level::Warning);
        }
        sys.close(stage_init).unwrap();
        // The configuration is in the pipe already, as runc may send it early.
        sys.send(init, &message).unwrap();
        sys.send(init, CONFIG).unwrap();
        // Simulated time passes when all processes wait: here the tool runs, and the others wait for it.
        assert_eq!(sys.poll(&mut [], 1000), Ok(0));
        Ended::Signal(Signal::KILL)
    });
    let check = |report: &Report| {
        let tool = report.find(Role::Tool(0)).unwrap_or_else(|| panic!("no tool\n{report}"));
        assert_eq!(
            (tool.end.clone(), tool.reaped_by.is_some()),
            (FinalState::Signaled(Signal::KILL), true),
            "{report}"
        );
        assert_eq!(report.stuck().count(), 0, "{report}");
        assert_eq!(report.alive().count(), 0, "{report}");
        // Either stage 0 or stage 1 notices the launcher's death first.
        assert!(report.to_string().contains("the launcher is gone"), "{report}");
    };
    all_schedules(300, |script| check(&sim.run(script, NO_FAULT)));
}

/// A lookup in a procfs asks which pid namespace /proc shows, and must not ask itself.
#[test]
fn process_whose_root_is_in_proc_has_no_proc() {
    let mut sim = Sim::new(Settings::default(), &User::root());
    sim.launcher(|sys| {
        sys.chdir(c"/proc/self").unwrap();
        sys.chroot_here().unwrap();
        assert_eq!(sys.openat(Fd::CWD, c"/proc", OpenFlags::Directory), Err(Errno::ENOENT));
        assert!(sys.openat(Fd::CWD, c"/uid_map", OpenFlags::ReadOnly).is_ok());
        Ended::Exit(0)
    });
    let report = sim.run(&mut Oldest, None);
    assert_eq!(report.find(Role::Launcher).unwrap().end, FinalState::Exited(0), "{report}");
}
