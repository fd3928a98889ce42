//! Starts on the simulated kernel that end before their time: a /proc that is not ours, an interruption, a launcher's
//! death beside a mapping tool.

mod manners;

use manners::{Manner, Scenario, scenarios};
use nsexec::bootstrap::Dialect;
use nsexec::log::Level;
use nsexec::policy::{LogForm, Policy, Session};
use nsexec::sys::Sys;
use nsexec::sys::record::Call;
use nsexec::sys::sim::*;
use nsexec::sys::types::*;

const NOBODY: Option<Fault> = None;

/// What a start that went well looks like, whatever its namespaces.
fn assert_started(name: &str, report: &Report) {
    let end = |section| report.find(section).map(|process| process.end.clone());
    let all = || format!("{name}\n{report}");
    assert_eq!(end(Section::Launcher), Some(End::Exited(0)), "{}", all());
    assert_eq!(end(Section::Stage0), Some(End::Exited(0)), "{}", all());
    assert_eq!(end(Section::Stage1), Some(End::Exited(0)), "{}", all());
    assert_eq!(end(Section::Stage2), Some(End::HandedOver), "{}", all());
    assert_eq!(report.zombies().count(), 0, "{}", all());
    assert_eq!(report.alive().count(), 1, "{}", all());
    assert!(report.unread.is_empty(), "{}", all());
    let init = report.find(Section::Stage2).unwrap();
    let open: Vec<i32> = init.descriptors.iter().map(|(fd, _)| fd.0).collect();
    assert_eq!(open, [0, 1, 2, 4], "stdio and the init pipe\n{}", all());
}

/// The fatal records of a process.
fn fatal(report: &Report) -> Vec<String> {
    let lines = report.processes.iter().flat_map(|process| &process.transcript.lines);
    let records = lines.filter_map(|line| match &line.call {
        Call::WriteNowait { data, .. } => Some(String::from_utf8_lossy(&data.0).trim_end().to_string()),
        _ => None,
    });
    records.filter(|record| record.contains("\"fatal\"")).collect()
}

/// What stage 0 says of a /proc that is not ours, and that it has opened nothing there.
fn assert_foreign_proc(report: &Report, wanted: &str) {
    let records = fatal(report);
    let [record] = &records[..] else { panic!("{records:?}\n{report}") };
    assert!(record.contains("/proc belongs to another pid namespace, or is not mounted: "), "{record}");
    assert!(record.contains(wanted), "{record}");
    assert_eq!(report.stuck().count(), 0, "{report}");
    assert_eq!(report.alive().count(), 0, "{report}");
    let lines = report.processes.iter().flat_map(|process| &process.transcript.lines);
    let opened =
        lines.filter(|line| matches!(&line.call, Call::Openat { path, .. } if path.0.starts_with(b"/proc")));
    assert_eq!(opened.count(), 0, "{report}");
}

#[test]
fn a_missing_proc_is_named_where_maps_are_to_be_written() {
    for scenario in scenarios() {
        let mut sim = Sim::new(Settings { proc_missing: true, ..Settings::default() }, &User::root());
        manners::drop_in(&mut sim, Manner::Init, Level::Warning, scenario.message.clone());
        let report = sim.run(&mut Oldest, NOBODY);
        match scenario.name {
            // Nothing is written, so there is nothing to ask of /proc.
            "nothing" | "rootful, five namespaces" => assert_started(scenario.name, &report),
            name if name.starts_with("join") || name == "oom score" => {}
            _ => assert_foreign_proc(&report, "there is no /proc/self"),
        }
    }
}

/// As in `nsexec run -p -- nsexec run -r`: the launcher is in a new pid namespace, with the old /proc, in which the number
/// of its stage 1 is somebody else's.
#[test]
fn the_proc_of_another_pid_namespace_is_never_written() {
    let wanted = scenarios().into_iter().filter(|scenario| {
        ["rootful, user namespace", "rootless, single entry", "time offsets"].contains(&scenario.name)
    });
    for scenario in wanted {
        let mut sim = Sim::new(Settings::default(), &User::root());
        let message = scenario.message.clone();
        sim.launcher(move |sys| {
            sys.unshare(CloneFlags::NEWPID).unwrap();
            match sys.fork(ExitSignal::Chld, None).unwrap() {
                Fork::Child => {
                    let policy = Policy { session: Session::Keep, ..Policy::runc(&Dialect::V1_2) };
                    manners::start_our_own(sys, &policy, Level::Warning, &message, None)
                }
                Fork::Parent { child } => match sys.wait4(child, WaitFor::Ordinary) {
                    Ok(Waited { status: WaitStatus::Exited(status), .. }) => Ended::Exit(status),
                    other => panic!("{other:?}"),
                },
            }
        });
        let report = sim.run(&mut Oldest, NOBODY);
        assert_foreign_proc(&report, "we are process 2, and /proc/self is ");
        assert_eq!(report.find(Section::Launcher).unwrap().end, End::Exited(1), "{report}");
    }
}

/// A signalfd's record of one signal.
fn siginfo(signal: Signal) -> Vec<u8> {
    let mut record = u32::try_from(signal.0).unwrap().to_ne_bytes().to_vec();
    record.resize(128, 0);
    record
}

fn tools() -> Scenario {
    scenarios().into_iter().find(|scenario| scenario.name.contains("tools")).unwrap()
}

fn kept() -> Policy {
    Policy { session: Session::Keep, log_form: LogForm::Detailed, ..Policy::runc(&Dialect::V1_2) }
}

/// Whether a signal comes while a tool runs that never ends, or whenever else: the launch ends with it, or has
/// started the command.
#[test]
fn an_interrupted_launch_leaves_nobody() {
    for (stays, count) in [(true, 300), (false, 1500)] {
        let Scenario { mut sim, message, .. } = tools();
        if stays {
            sim.program("/usr/bin/newuidmap", Program::ends(Ended::Stay));
        }
        sim.program(manners::COMMAND, Program::ends(Ended::Exit(0)));
        sim.launcher(move |sys| {
            let (read, write) = sys.pipe2().unwrap();
            // Somebody who sends it, at any time.
            let Fork::Parent { child } = sys.fork(ExitSignal::Chld, None).unwrap() else {
                sys.write(write, &siginfo(Signal::TERM)).unwrap();
                return Ended::Exit(0);
            };
            let ended = manners::start_our_own(sys, &kept(), Level::Warning, &message, Some(read));
            // The stages come back from there too, and have no such child.
            let _ = sys.wait4(child, WaitFor::Ordinary);
            ended
        });
        let mut seen = std::collections::BTreeSet::new();
        let mut check = |report: &Report| {
            let all = || format!("{report}");
            assert!(!report.endless, "{}", all());
            assert_eq!(report.stuck().count(), 0, "{}", all());
            assert_eq!((report.zombies().count(), report.alive().count()), (0, 0), "{}", all());
            let End::Exited(status) = report.find(Section::Launcher).unwrap().end else {
                panic!("{}", all())
            };
            assert!(status == 143 || status == 0 && !stays, "{status}: {}", all());
            seen.insert(status);
        };
        let enumerated = all_schedules(count, |script| check(&sim.run(script, NOBODY)));
        for seed in 0..200 {
            check(&sim.run(&mut Random::new(seed), NOBODY));
        }
        assert_eq!(seen.len(), if stays { 1 } else { 2 }, "both come: {seen:?}");
        println!("interrupted, a tool that stays: {stays}: {enumerated:?}");
    }
}

/// Evidence E7, from the other side: nobody needs the tool's map any more.
#[test]
fn a_launcher_that_dies_takes_the_mapping_tool_with_it() {
    let Scenario { mut sim, message, .. } = tools();
    sim.program("/usr/bin/newuidmap", Program::ends(Ended::Stay));
    sim.launcher(move |sys| {
        let (init, stage_init) = sys.socketpair().unwrap();
        if let Fork::Child = sys.fork(ExitSignal::Chld, None).unwrap() {
            sys.close(init).unwrap();
            return manners::runc_init(sys, stage_init, Fd::STDERR, Level::Warning);
        }
        sys.close(stage_init).unwrap();
        // The configuration lies in the pipe already, as runc may have it.
        sys.send(init, &message).unwrap();
        sys.send(init, manners::CONFIG).unwrap();
        // Time passes when nobody can go on: the tool runs, and all wait for it.
        assert_eq!(sys.poll(&mut [], 1000), Ok(0));
        Ended::Signal(Signal::KILL)
    });
    let check = |report: &Report| {
        let tool = report.find(Section::MappingTool).unwrap_or_else(|| panic!("no tool\n{report}"));
        assert_eq!(
            (tool.end.clone(), tool.reaped_by.is_some()),
            (End::Signaled(Signal::KILL), true),
            "{report}"
        );
        assert_eq!(report.stuck().count(), 0, "{report}");
        assert_eq!(report.alive().count(), 0, "{report}");
        assert!(report.to_string().contains("the launcher is gone: newuidmap was still running"), "{report}");
    };
    all_schedules(300, |script| check(&sim.run(script, NOBODY)));
}

#[test]
fn a_stage_speaks_in_its_own_name_from_its_first_call_on() {
    let scenario = scenarios().into_iter().next().unwrap();
    let sim = scenario.launched(Manner::Init, Level::Warning);
    let faultless = sim.run(&mut Oldest, NOBODY);
    for (section, name) in [(Section::Stage1, "nsexec-1["), (Section::Stage2, "nsexec-2[")] {
        let (at, _) = faultless
            .places()
            .find(|(place, line)| place.who.section == section && matches!(line.call, Call::Close { .. }))
            .unwrap();
        let report = sim.run(&mut Oldest, Some(Fault { at, what: What::Errno(Errno::EIO) }));
        let own = fatal(&report).into_iter().find(|record| record.contains("failed to close sync_"));
        assert!(own.unwrap_or_default().contains(name), "{report}");
    }
}
