//! Tests with runs of the simulated kernel: complete, modified, and truncated ones.

use std::string::ToString;

use super::*;
use crate::plan::{Assumptions, Start, plan};
use crate::record::Bytes;
use nsexec::bootstrap::{Bootstrap, Dialect};
use nsexec::idmap::IdMap;
use nsexec::launch::Launcher;
use nsexec::policy::Policy;
use nsexec::sys::types::{CloneFlags, Errno, Fd, Pid, PollFd, Signal};

/// Returns a successful start of an ordinary user with mapping tools, as a file from another machine.
fn run() -> Run {
    kept(&tools(c"0 1000 1\n1 100000 10\n"), Policy::runc(&Dialect::V1_2))
}

/// Returns a successful direct start, which needs no tool.
fn direct() -> Run {
    let map = IdMap::parse(c"0 1000 1\n").unwrap();
    let flags = CloneFlags::NEWUSER.union(CloneFlags::NEWPID).union(CloneFlags::NEWNET);
    let bootstrap = Bootstrap::new(flags).with_uid_map(map).with_gid_map(map).with_rootless_euid(true);
    kept(&bootstrap, Policy::runc(&Dialect::V1_2))
}

/// Returns a start whose direct attempt is given up: the map has one id, which is not the caller's own. A
/// tool writes it.
fn given_up() -> Run {
    kept(&tools(c"0 100000 1\n"), Policy::runc(&Dialect::V1_2))
}

fn tools(map: &'static core::ffi::CStr) -> Bootstrap<'static> {
    let map = IdMap::parse(map).unwrap();
    Bootstrap::new(CloneFlags::NEWUSER.union(CloneFlags::NEWNET))
        .with_uid_map(map)
        .with_gid_map(map)
        .with_setgroup(true)
        .with_uidmap_path(c"/usr/bin/newuidmap")
        .with_gidmap_path(c"/usr/bin/newgidmap")
        .with_rootless_euid(true)
}

/// Returns the successful start of `bootstrap` by an ordinary user, as a file from another machine.
fn kept(bootstrap: &Bootstrap<'_>, policy: Policy) -> Run {
    let mut launcher = Launcher::new(bootstrap, policy).unwrap();
    let job = launcher.command("/bin/true", [""; 0]).env_clear().env("TOKEN", "s3cret").prepare().unwrap();
    let mut assumptions = Assumptions::ordinary(1000);
    (assumptions.subuid, assumptions.subgid) = (Some((100_000, 65_536)), Some((100_000, 65_536)));
    let plan = plan(&Start::Launcher(job.clone()), &assumptions).unwrap();
    assert!(plan.succeeds, "{:?}", plan.log);
    let text = keep(&plan.run, &job, Values::LeftOut).to_json_lines().unwrap();
    assert!(!text.contains("s3cret"), "{text}");
    Run::from_json_lines(&text).unwrap()
}

fn lines(run: &mut Run, role: Role) -> &mut Vec<Line> {
    &mut run.section_mut(role).lines
}

fn shown(run: &Run) -> Vec<String> {
    replay(run).unwrap().processes.iter().map(ToString::to_string).collect()
}

#[test]
fn every_process_replays_its_calls() {
    let run = run();
    let replayed = replay(&run).unwrap();
    assert!(replayed.agrees(), "{:?}", shown(&run));
    assert_eq!((replayed.status(), replayed.processes.len(), replayed.error), (0, 6, None));
    let expected = std::format!("mapping tool (newuidmap): agrees ({} calls)", run.sections[4].lines.len());
    assert_eq!(shown(&run)[4], expected);
}

#[test]
fn direct_start_replays_from_the_launcher() {
    let run = direct();
    let replayed = replay(&run).unwrap();
    assert!(replayed.agrees(), "{:?}", shown(&run));
    let roles: Vec<Role> = replayed.processes.iter().map(|process| process.role).collect();
    assert_eq!((replayed.status(), roles), (0, vec![Role::Launcher, Role::Stage(2)]));
    // The launcher is the parent even if the first line of the init, or all of its lines, were lost.
    let mut lost = run.clone();
    lines(&mut lost, Role::Stage(2)).remove(0);
    assert!(shown(&lost)[1].starts_with("stage-2 init: diverges at line 1"), "{:?}", shown(&lost));
    lines(&mut lost, Role::Stage(2)).clear();
    let at = Place { section: "stage-2 init".into(), line: 0 };
    let Outcome::Ends { at: end, .. } = &replay(&lost).unwrap().processes[1].outcome else {
        panic!("{:?}", shown(&lost));
    };
    assert_eq!(*end, at);
    // Its section is missing.
    lost.sections.pop();
    assert_eq!(shown(&lost)[1], "stage-2 init: the record ends here, before its first call");
}

#[test]
fn start_that_was_given_up_for_the_stages_replays() {
    let run = given_up();
    let replayed = replay(&run).unwrap();
    assert!(replayed.agrees(), "{:?}", shown(&run));
    let names: Vec<&str> = replayed.processes.iter().map(|process| process.name.as_str()).collect();
    let stages = ["launcher", "stage-0 parent", "stage-1 child", "stage-2 init"];
    let others = ["mapping tool (newuidmap)", "mapping tool (newgidmap)", "init, given up"];
    assert_eq!(names, [&stages[..], &others].concat());
    assert_eq!(
        run.section(crate::sections::GIVEN_UP).map(|init| init.end),
        Some(End::Signaled(Signal::KILL))
    );
    assert!(run.section(Role::Stage(2)).unwrap().lines[0].to_string().contains("CLONE_PARENT"), "a sibling");
}

/// The job's note states whether every start goes through the stages. An older program's note states nothing.
#[test]
fn older_record_replays_through_the_stages() {
    let start = |policy| {
        let map = IdMap::parse(c"0 1000 1\n").unwrap();
        let bootstrap = Bootstrap::new(CloneFlags::NEWUSER).with_uid_map(map).with_gid_map(map);
        kept(&bootstrap.with_rootless_euid(true), policy)
    };
    let policy = Policy::runc(&Dialect::V1_2);
    let mut stages = start(policy.with_stages(true));
    assert_eq!(stages.sections.len(), 4);
    assert!(replay(&stages).unwrap().agrees(), "{:?}", shown(&stages));
    let note = stages.notes[JOB].replace(",\"stages\":true", "");
    assert!(note.len() < stages.notes[JOB].len(), "{note}");
    stages.notes.insert(JOB.into(), note);
    assert!(replay(&stages).unwrap().agrees(), "{:?}", shown(&stages));
    // A record of today states the other shape.
    let direct = start(policy);
    assert!(direct.notes[JOB].contains("\"stages\":false"), "{}", direct.notes[JOB]);
    assert_eq!((direct.sections.len(), replay(&direct).unwrap().agrees()), (2, true));
    // The shape of the note is binding.
    stages.notes.insert(JOB.into(), direct.notes[JOB].clone());
    assert!(!replay(&stages).unwrap().agrees());
}

/// Two records that `tests/replay.rs` made with the last program that had no direct start.
///
/// If the calls of the stages change, make them again with `NSEXEC_REPLAY_KEEP`: set `stages` in the policy,
/// and remove it from the notes.
#[test]
fn records_of_an_older_program_replay() {
    let replayed = |text| {
        let run = Run::from_json_lines(text).unwrap();
        assert!(!run.notes[JOB].contains("stages"), "{}", run.notes[JOB]);
        let replayed = replay(&run).unwrap();
        assert!(replayed.agrees(), "{:?}", shown(&run));
        (replayed.processes.len(), replayed.error.map(|error| error.to_string()).unwrap_or_default())
    };
    let rootless =
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/records/older_rootless.jsonl"));
    assert_eq!(replayed(rootless), (4, String::new()));
    let refused =
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/records/older_unshare_refused.jsonl"));
    let (processes, error) = replayed(refused);
    let beginning = "stage-1: failed to unshare remaining namespaces: Operation not permitted";
    assert!(processes == 3 && error.starts_with(beginning), "{error}");
}

#[test]
fn changed_call_is_found_at_its_line() {
    for whole in [run(), direct(), given_up()] {
        changed_calls_are_found(&whole);
    }
}

fn changed_calls_are_found(whole: &Run) {
    for (nth, section) in whole.sections.iter().enumerate() {
        for (index, line) in section.lines.iter().enumerate() {
            let mut run = whole.clone();
            let other = Call::Kill { pid: Pid(77), signal: Signal(5) };
            run.sections[nth].lines[index].call = other.clone();
            // The line no longer creates a child. So the divergence is reported at the parent's line.
            let Outcome::Diverges { at, how: Divergence::Call { recorded, made } } =
                &replay(&run).unwrap().processes[nth].outcome
            else {
                panic!("{}: {line}: {:?}", section.name, shown(&run));
            };
            assert_eq!((&at.section, at.line), (&section.name, index + 1), "{line}");
            assert_eq!((recorded, made), (&other, &line.call));
        }
    }
}

#[test]
fn impossible_reply_is_a_divergence() {
    for whole in [run(), direct(), given_up()] {
        impossible_replies_diverge(&whole);
    }
}

fn impossible_replies_diverge(whole: &Run) {
    let strange = [Reply::Pair(Fd(1), Fd(2)), Reply::Data(Bytes(vec![b'x'; 9999])), Reply::Count(usize::MAX)];
    for reply in strange {
        for (nth, section) in whole.sections.iter().enumerate() {
            for (index, line) in section.lines.iter().enumerate() {
                if line.call.admits(&reply) {
                    continue;
                }
                let mut run = whole.clone();
                run.sections[nth].lines[index].reply = reply.clone();
                let outcome = replay(&run).unwrap().processes[nth].outcome.clone();
                let Outcome::Diverges { at, how: Divergence::Reply { .. } } = outcome else {
                    panic!("{line}: {:?}", shown(&run))
                };
                assert_eq!(at.line, index + 1, "{line}");
            }
        }
    }
}

/// The polls of the launcher and of the stages as an older program made them: in another order.
#[test]
fn order_of_polled_descriptors_does_not_matter() {
    let mut polls = 0;
    for whole in [run(), direct(), given_up()] {
        for (nth, index) in polls_of(&whole) {
            let mut run = whole.clone();
            let line = &mut run.sections[nth].lines[index];
            let (Call::Poll { fds, .. }, Reply::Polled { fds: found, .. }) =
                (&mut line.call, &mut line.reply)
            else {
                unreachable!()
            };
            fds.reverse();
            found.reverse();
            let reply = line.reply.clone();
            assert_eq!(shown(&run), shown(&whole));
            polls += 1;
            // A reply of another length, with another descriptor, in another order, or with a wrong number.
            let changes: [fn(&mut usize, &mut Vec<PollFd>); 5] = [
                |_, fds| fds.truncate(1),
                |_, fds| fds.push(fds[0]),
                |_, fds| fds[0].fd = Fd(77),
                |_, fds| fds.reverse(),
                |count, _| *count += 1,
            ];
            for change in changes {
                let mut reply = reply.clone();
                if let Reply::Polled { count, fds } = &mut reply {
                    change(count, fds);
                }
                run.sections[nth].lines[index].reply = reply;
                assert!(!replay(&run).unwrap().agrees(), "{}", run.sections[nth].lines[index]);
            }
        }
    }
    assert!(polls > 5, "{polls}");
}

/// Returns the section and the line of each poll of two or more descriptors.
fn polls_of(run: &Run) -> Vec<(usize, usize)> {
    let lines = run.sections.iter().enumerate().flat_map(|(nth, section)| {
        section.lines.iter().enumerate().map(move |(index, line)| (nth, index, line))
    });
    lines
        .filter(|(.., line)| matches!(&line.reply, Reply::Polled { fds, .. } if fds.len() > 1))
        .map(|(nth, index, _)| (nth, index))
        .collect()
}

#[test]
fn any_errno_at_any_line_does_not_panic() {
    for whole in [run(), direct(), given_up()] {
        for (nth, section) in whole.sections.iter().enumerate() {
            for index in 0..section.lines.len() {
                let mut run = whole.clone();
                run.sections[nth].lines[index].reply = Reply::Errno(Errno::EIO);
                let _ = shown(&run);
            }
        }
    }
}

#[test]
fn truncated_record_ends_early() {
    let whole = run();
    let mut cut = whole.clone();
    let stage_1 = lines(&mut cut, Role::Stage(1));
    let call = stage_1.pop().unwrap().call;
    let behind = stage_1.len();
    let Replayed { processes, .. } = replay(&cut).unwrap();
    let at = Place { section: "stage-1 child".into(), line: behind };
    assert_eq!(processes[2].outcome, Outcome::Ends { at, made: Some(call) });
    assert_eq!(replay(&cut).unwrap().status(), DIVERGED);
    // The end of the file is missing: two sections.
    let mut cut = whole;
    cut.sections.truncate(4);
    let shown = shown(&cut);
    assert_eq!(shown.len(), 6);
    assert_eq!(shown[5], "mapping tool: the record ends here, before its first call");
}

#[test]
fn killed_process_agrees_up_to_its_last_line() {
    let mut run = run();
    lines(&mut run, Role::Stage(1)).pop();
    run.section_mut(Role::Stage(1)).end = End::Signaled(Signal::KILL);
    assert!(replay(&run).unwrap().agrees());
}

#[test]
fn different_exit_status_is_a_divergence() {
    let mut run = run();
    run.section_mut(Role::Stage(0)).end = End::Exited(7);
    let shown = shown(&run);
    assert!(shown[1].contains("recorded: exit 7\n  now:      exit 0"), "{shown:?}");
}

#[test]
fn remaining_recorded_calls_are_a_divergence() {
    let mut run = run();
    let behind = lines(&mut run, Role::Stage(0)).len() + 1;
    lines(&mut run, Role::Stage(0)).push(Line { call: Call::Setsid, reply: Reply::Unit });
    assert!(shown(&run)[1].contains(&std::format!("diverges at line {behind}, before which it ends")));
}

#[test]
fn later_process_names_the_diverged_process() {
    let mut run = run();
    lines(&mut run, Role::Launcher)[0].call = Call::Setsid;
    let shown = shown(&run);
    assert!(shown[0].starts_with("launcher: diverges at line 1\n  recorded: setsid()\n  now: "), "{shown:?}");
    assert_eq!(shown[3], "stage-2 init: not reached, since launcher diverges at line 1");
}

#[test]
fn different_environment_is_a_divergence() {
    let mut run = run();
    let Some(Line { call: Call::Execve { envp, .. }, .. }) = lines(&mut run, Role::Stage(2)).last_mut()
    else {
        panic!("the command's exec")
    };
    envp[0] = Bytes::from(&b"OTHER=x"[..]);
    let shown = shown(&run);
    assert!(shown[3].ends_with("(they differ in the environment)"), "{shown:?}");
}

#[test]
fn run_without_a_job_is_rejected() {
    assert_eq!(replay(&Run::default()).unwrap_err(), ReplayError::NoJob);
    let mut run = run();
    let nobody = Run { sections: Vec::new(), ..run.clone() };
    assert_eq!(replay(&nobody).unwrap_err(), ReplayError::NoLauncher);
    run.notes.insert(JOB.into(), "{}".into());
    let error = replay(&run).unwrap_err();
    assert!(matches!(error, ReplayError::Job(_)) && error.to_string().contains("malformed"), "{error}");
}

impl Run {
    fn section_mut(&mut self, role: Role) -> &mut Section {
        self.sections.iter_mut().find(|section| section.role == role).unwrap()
    }
}
