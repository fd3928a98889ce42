//! The fault sweep: injects one fault at each place of every scenario, and checks the promises of [`oracle`].
//!
//! The faults are:
//!
//! - every call fails once with every errno of its class;
//! - every read and every write is short once;
//! - SIGKILL ends every process, the launcher and the mapping tools included, before each call, while it
//!   waits in the call, and before its end;
//! - SIGSTOP stops every process before each call and before its end. When all processes wait, SIGTERM is
//!   sent to our launcher, or SIGKILL to either launcher.
//!
//! Fallbacks are tested in two ways. Every call that an old kernel may lack fails once in every scenario. The
//! scenarios `old_kernel…` lack all of these calls at once, and are swept too.
//!
//! A run with a fault begins at the turn in which the fault can happen, from a copy of the machine's state.
//! The test `run_from_the_fault_equals_run_from_the_beginning` compares a sample with whole runs.
//!
//! `NSEXEC_SWEEP=NAME` restricts the sweep to the starts whose name contains NAME. `NSEXEC_COMPARED=N`
//! compares every Nth fault of each start: 1 compares all, in about six minutes of CPU.

mod errnos;
mod oracle;
mod steps;

use std::collections::BTreeMap;

use nsexec_audit::Role;
use nsexec_audit::record::{Call, Line, Reply, by_errors};
use nsexec_audit::sim::{Choice, Fault, FaultKind, Oldest, Place, StopReaction, Task, Youngest};

use errnos::{about, class};
use nsexec::sys::types::Errno;
use oracle::Case;
use support::scenarios::{self, Ran, Start, Way, on_all_cores};

/// The number of faults injected in one start, by kind, and the promises broken.
#[derive(Default)]
struct Tally {
    errnos: usize,
    shorts: usize,
    deaths: usize,
    stops: usize,
    /// Faults that had no effect: most calls never wait, and a short read of one byte is complete.
    idle: usize,
    /// By promise, call and process: the number of failures, and an example.
    broken: BTreeMap<String, (usize, String)>,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.errnos += other.errnos;
        self.shorts += other.shorts;
        self.deaths += other.deaths;
        self.stops += other.stops;
        self.idle += other.idle;
        for (key, (count, example)) in other.broken {
            self.broken.entry(key).or_insert((0, example)).0 += count;
        }
    }

    fn tried(&self) -> usize {
        self.errnos + self.shorts + self.deaths + self.stops
    }
}

/// Returns the faults to inject at this call.
fn faults_of(lines: &[Line], at: Place) -> Vec<FaultKind> {
    let line = &lines[at.line];
    let about = about(lines, at.line, at.role == Role::Launcher);
    let mut faults: Vec<FaultKind> = class(&line.call, about).iter().copied().map(FaultKind::Errno).collect();
    match &line.call {
        Call::Read { .. } | Call::Sendfile { .. } => faults.extend([1, 3].map(FaultKind::Short)),
        Call::Write { data, .. } | Call::WriteNowait { data, .. } | Call::Send { data, .. } => {
            faults.push(FaultKind::Short(1));
            faults.extend((data.0.len() > 2).then(|| FaultKind::Short(data.0.len() - 1)));
        }
        _ => {}
    }
    faults.extend([FaultKind::Kill, FaultKind::KillWaking]);
    // Stage 0 and its tools open files of stage 1, which belong to root while stage 1 exits.
    if matches!(at.role, Role::Stage(0) | Role::Stage(1) | Role::Tool(_)) {
        faults.push(FaultKind::KillDying(Role::Stage(1)));
    }
    // In a direct start the launcher opens the files of the init.
    let created = |line: &Line| matches!(line.reply, Reply::ParentOfInit { .. });
    if at.role == Role::Launcher && lines[..at.line].iter().any(created) {
        faults.push(FaultKind::KillDying(Role::Stage(2)));
    }
    faults
}

/// Returns the faults to inject before this call or, without a call, before the end of the process.
fn faults_at(lines: &[Line], at: Place, line: Option<&Line>, interrupted: bool) -> Vec<FaultKind> {
    let mut faults = line.map_or_else(|| vec![FaultKind::Kill], |_| faults_of(lines, at));
    // Each kind of stop is tried in one order of processes only, since there are as many stops as deaths.
    faults.push(FaultKind::Stop(if interrupted {
        StopReaction::Interrupt
    } else {
        StopReaction::KillLauncher
    }));
    faults
}

/// The filter on start names from `NSEXEC_SWEEP`; the empty default matches every name.
fn wanted() -> String {
    std::env::var("NSEXEC_SWEEP").unwrap_or_default()
}

/// The order in which the processes run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Order {
    Oldest,
    Youngest,
}

impl Choice for Order {
    fn pick(&mut self, ready: &[Task]) -> usize {
        match self {
            Self::Oldest => Oldest.pick(ready),
            Self::Youngest => Youngest.pick(ready),
        }
    }
}

fn sweep(start: &Start) -> Tally {
    let mut tally = Tally::default();
    if !start.name.contains(&wanted()) {
        return tally;
    }
    for order in [Order::Oldest, Order::Youngest] {
        let faultless = start.faultless(order);
        let whole = &faultless.ran;
        for (fault, line) in faults(start, whole, order) {
            let Some(ran) = faultless.run(fault) else {
                tally.idle += 1;
                continue;
            };
            match fault.what {
                FaultKind::Errno(_) => tally.errnos += 1,
                FaultKind::Short(_) => tally.shorts += 1,
                FaultKind::Kill | FaultKind::KillWaking | FaultKind::KillDying(_) => tally.deaths += 1,
                FaultKind::Stop(_) => tally.stops += 1,
            }
            let case = Case { start, whole, fault, line, ran: &ran };
            for (promise, found) in case.broken() {
                note(&mut tally, &case, promise, &found);
            }
        }
    }
    tally
}

/// Returns every fault for a start, with the call at which it is injected. `None` at the end of a process.
fn faults<'r>(start: &Start, whole: &'r Ran, order: Order) -> Vec<(Fault, Option<&'r Line>)> {
    // runc's launcher does not handle SIGTERM. A process that becomes the command in place dies of it.
    let handles = start.way == Way::Ours && !start.policy.launch.in_place;
    let interrupted = order == Order::Oldest && handles;
    let places = whole.report.places().map(|(at, line)| (at, Some(line)));
    let ends = whole.report.ends().map(|at| (at, None));
    let mut all = Vec::new();
    for (at, line) in places.chain(ends) {
        let lines = whole.report.find(at.role).map_or(&[][..], |process| &process.transcript.lines);
        let kinds = faults_at(lines, at, line, interrupted);
        all.extend(kinds.into_iter().map(|what| (Fault { at, what }, line)));
    }
    all
}

/// Keeps one example of each kind of failure.
fn note(tally: &mut Tally, case: &Case<'_>, promise: &str, found: &str) {
    let Fault { at: Place { role, .. }, what } = case.fault;
    let call = case.line.map_or("the end", |line| line.call.name());
    let key = format!("{promise}: {what:?} at {call} of {role:?} ({})", case.start.way.name());
    let example = || {
        let line = case.line.map(ToString::to_string).unwrap_or_default();
        format!("{}, {}: {found}\nthe call: {line}\n{}", case.start.name, case.fault, case.ran.report)
    };
    tally.broken.entry(key).or_insert_with(|| (0, example())).0 += 1;
}

#[test]
fn every_fault_keeps_the_promises() {
    let names: Vec<String> = scenarios::starts().into_iter().map(|start| start.name.to_string()).collect();
    let wanted = wanted();
    assert!(
        names.iter().any(|name| name.contains(&wanted)),
        "NSEXEC_SWEEP={wanted}: no start has this in its name. The starts are:\n    {}",
        names.join("\n    ")
    );
    let mut all = Tally::default();
    let mut starts = 0;
    for tally in on_all_cores(sweep) {
        starts += usize::from(tally.tried() > 0);
        all.add(tally);
    }
    println!(
        "{} faults in {starts} starts: {} errnos, {} short reads and writes, {} deaths, {} stops; {} could not happen",
        all.tried(),
        all.errnos,
        all.shorts,
        all.deaths,
        all.stops,
        all.idle
    );
    for (key, (count, example)) in &all.broken {
        println!("== {key}: {count} times\n{example}\n");
    }
    let failed: usize = all.broken.values().map(|(count, _)| count).sum();
    println!("{} held, {failed} broke", all.tried().saturating_sub(failed));
    assert!(all.broken.is_empty(), "{:#?}", all.broken.keys().collect::<Vec<_>>());
}

/// Of the faults of each start, one in this many is compared.
const COMPARED: usize = 97;

/// A run with a fault that begins at the turn of the fault is the same as one from the beginning. So is one
/// whose processes are not left by unwinding, as in a program with `panic = "abort"`.
#[test]
fn run_from_the_fault_equals_run_from_the_beginning() {
    let step = std::env::var("NSEXEC_COMPARED").map_or(COMPARED, |step| step.parse().expect("a number"));
    let compared = on_all_cores(|start| {
        let mut compared = [0; 2];
        for mut order in [Order::Oldest, Order::Youngest] {
            let faultless = start.faultless(order);
            // Another fault for each start and order: most starts have fewer faults than `step`.
            let first =
                start.name.bytes().map(usize::from).sum::<usize>() + usize::from(order == Order::Youngest);
            let all = faults(start, &faultless.ran, order).into_iter();
            for (fault, _) in all.skip(first % step).step_by(step) {
                let whole = start.run(&mut order, Some(fault));
                let from_the_fault = faultless.run(fault);
                compared[usize::from(from_the_fault.is_some())] += 1;
                let same = match &from_the_fault {
                    Some(ran) => is_same(ran, &whole),
                    None => !whole.report.fault_fired,
                };
                assert!(same, "{}, {fault}, {order:?}\n{}", start.name, whole.report);
                let left_by_errors = by_errors(|| start.run(&mut order, Some(fault)));
                assert!(is_same(&left_by_errors, &whole), "{}, {fault}, {order:?}", start.name);
            }
        }
        compared
    });
    let count = |index: usize| compared.iter().map(|of_start| of_start[index]).sum::<usize>();
    println!("{} faults happened, {} could not happen", count(1), count(0));
    assert!(count(0) > 100 && count(1) > 1000, "too few faults were compared");
}

/// Compares all results of two runs.
fn is_same(one: &Ran, other: &Ran) -> bool {
    let (a, b) = (&one.report, &other.report);
    (&a.processes, a.endless, a.fault_fired, a.calls) == (&b.processes, b.endless, b.fault_fired, b.calls)
        && (&a.stderr, &a.unread, a.dump()) == (&b.stderr, &b.unread, b.dump())
        && one.told == other.told
}

/// A sweep without any start would succeed.
#[test]
fn sweep_filter_without_match_fails() {
    let sweep = |filter: &str| {
        let mut command = std::process::Command::new(std::env::current_exe().expect("this program"));
        command
            .args(["--exact", "every_fault_keeps_the_promises", "--nocapture"])
            .env("NSEXEC_SWEEP", filter);
        command.output().expect("a second run of this program")
    };
    let refused = sweep("typo");
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success(), "{text}");
    assert!(text.contains("NSEXEC_SWEEP=typo: no start") && text.contains("\n    rootful_ours\n"), "{text}");
}

/// Checks that the oracle rejects: it accepts a run for the fault that happened, and for no other fault.
#[test]
fn oracle_rejects_wrong_reports() {
    let starts = scenarios::starts();
    let named = |name: &str| starts.iter().find(|start| start.name == name).expect("a start");
    let unshare: fn(&Call) -> bool = |call| matches!(call, Call::Unshare { .. });
    rejects(
        named("stages_rootful"),
        Role::Stage(1),
        unshare,
        &[
            (Role::Stage(1), |call| matches!(call, Call::CloneSibling { .. })),
            (Role::Stage(2), |call| matches!(call, Call::Setuid { .. })),
        ],
    );
    rejects(
        named("rootful_user_ours"),
        Role::Stage(2),
        unshare,
        &[
            (Role::Stage(2), |call| matches!(call, Call::Setuid { .. })),
            (Role::Stage(2), |call| matches!(call, Call::Execve { .. })),
            (Role::Launcher, |call| matches!(call, Call::Write { .. })),
        ],
    );
    rejects(
        named("child_create"),
        Role::Stage(1),
        unshare,
        &[
            (Role::Stage(1), |call| matches!(call, Call::CloneSibling { .. })),
            (Role::Stage(1), |call| matches!(call, Call::Setns { .. })),
            (Role::Stage(2), |call| matches!(call, Call::Mount { .. })),
        ],
    );
}

/// A process, and a test for one of its calls.
type CallOf = (Role, fn(&Call) -> bool);

/// Injects an errno at the first call of `role` that is `wanted`. The oracle must accept the run for that
/// fault, and reject it for another errno, for a death, and for a fault at each of the `others`.
fn rejects(start: &Start, role: Role, wanted: fn(&Call) -> bool, others: &[CallOf]) {
    let whole = start.run(&mut Oldest, None);
    let of = |role, wanted: fn(&Call) -> bool| {
        let mut places = whole.report.places();
        places.find(|(at, line)| at.role == role && wanted(&line.call)).expect("a call")
    };
    let met = of(role, wanted);
    let (limit, refused) = (FaultKind::Errno(Errno::ENOSPC), FaultKind::Errno(Errno::EPERM));
    let ran = start.run(&mut Oldest, Some(Fault { at: met.0, what: limit }));
    let broken = |(at, line), what| {
        Case { start, whole: &whole, fault: Fault { at, what }, line: Some(line), ran: &ran }.broken()
    };
    assert_eq!(broken(met, limit), []);
    // The record contradicts another errno, step or process, and a death. A retried errno would have changed
    // nothing.
    assert!(!broken(met, refused).is_empty());
    assert!(!broken(met, FaultKind::Errno(Errno::EINVAL)).is_empty());
    assert!(!broken(met, FaultKind::Kill).is_empty());
    for (role, wanted) in others {
        let other = of(*role, *wanted);
        assert!(!broken(other, limit).is_empty(), "{}: {}", start.name, other.1);
        // A launcher that was killed reports nothing.
        let kill = FaultKind::Kill;
        assert!(*role == Role::Launcher || !broken(other, kill).is_empty(), "{}: {}", start.name, other.1);
    }
}
