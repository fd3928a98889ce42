//! Tests with runs of the simulated kernel: complete, modified, and truncated ones.

use std::string::ToString;

use super::*;
use crate::plan::{Assumptions, Start, plan};
use crate::record::Bytes;
use nsexec::bootstrap::{Bootstrap, Dialect};
use nsexec::idmap::IdMap;
use nsexec::launch::Launcher;
use nsexec::policy::Policy;
use nsexec::sys::types::{CloneFlags, Errno, Fd, Pid, Signal};

/// Returns a successful start of an ordinary user with mapping tools, as a file from another machine.
fn run() -> Run {
    let map = IdMap::parse(c"0 1000 1\n1 100000 10\n").unwrap();
    let bootstrap = Bootstrap::new(CloneFlags::NEWUSER.union(CloneFlags::NEWNET))
        .with_uid_map(map)
        .with_gid_map(map)
        .with_setgroup(true)
        .with_uidmap_path(c"/usr/bin/newuidmap")
        .with_gidmap_path(c"/usr/bin/newgidmap")
        .with_rootless_euid(true);
    let mut launcher = Launcher::new(&bootstrap, Policy::runc(&Dialect::V1_2)).unwrap();
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
fn changed_call_is_found_at_its_line() {
    let whole = run();
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
    let whole = run();
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

#[test]
fn any_errno_at_any_line_does_not_panic() {
    let whole = run();
    for (nth, section) in whole.sections.iter().enumerate() {
        for index in 0..section.lines.len() {
            let mut run = whole.clone();
            run.sections[nth].lines[index].reply = Reply::Errno(Errno::EIO);
            let _ = shown(&run);
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
