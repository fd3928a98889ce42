//! Schedules: a start has the same result in whatever order its processes run.
//!
//! The test runs every run-to-block schedule of every scenario without faults, up to a bound, and random
//! preemptive schedules. Three things must not change: the sections as a comparison sees them, the ends of
//! all processes, and the error of our launcher. Pruning is unnecessary: the processes wait for almost every
//! message, so that few choices are left.
//!
//! The seed is fixed if CI is set, and random and printed otherwise. `NSEXEC_SEED=N` repeats a run.

use nsexec_audit::diff::compare;
use nsexec_audit::record::{Call, Line, Reply};
use nsexec_audit::sim::{
    Choice, Fault, FaultKind, FinalState, Oldest, Place, Random, StopReaction, all_schedules,
};
use nsexec_audit::{Role, Run};
use support::scenarios::{Ran, Start, Way, on_all_cores};

/// The maximum of schedules of one start. Most starts have fewer; the test lists the others by name.
const BOUND: usize = 3_000;

/// The number of random schedules of one start. Over all starts they are more than 10,000.
const RANDOM: u64 = 100;

/// Starts in which a section depends on the order: a prefix of the name, and the reason. Their outcomes do
/// not depend on it.
const RACES: &[(&str, &str)] = &[
    (
        "small_buffers",
        "the message is longer than the socket holds, so how it is read depends on how it is sent",
    ),
    ("proc_missing", "stage 0 gives up at once, and kills stage 1 wherever it is by then"),
    (
        "v1_0_setsid_refused",
        "stage 2 fails while the launcher sends the byte for the cgroup namespace, and is alive or dead at that time",
    ),
    (
        "v1_1_mounts_missing",
        "stage 0 gives up after the first source, and kills stage 1 before or after it is in its place",
    ),
    ("cloned_on_noexec", "stage 0 ends without reading, before or after the launcher has sent the message"),
    (
        "old_kernel",
        "without pidfds stage 0 looks for the end of its tool, and the launcher for that of a stage",
    ),
    ("enter_old_kernel", "as old_kernel"),
    ("here_old_kernel", "as old_kernel"),
    ("proc_masked", "stage 2 fails while the launcher sends the go byte, and is alive or dead at that time"),
];

/// The results that must not depend on the order.
struct Wanted {
    run: Run,
    outcome: Outcome,
}

/// How every process ended, and the error of our launcher.
type Outcome = (Vec<(Role, FinalState)>, Option<String>);

impl Wanted {
    fn of(start: &Start) -> Self {
        let ran = start.run(&mut Oldest, None);
        Self { run: start.sections(&ran), outcome: outcome(&ran) }
    }

    /// Returns the difference that the order of this run makes, or `None`.
    fn differs(&self, start: &Start, ran: &Ran) -> Option<String> {
        let found = outcome(ran);
        if found != self.outcome {
            return Some(format!("{}: {found:?} and not {:?}\n{}", start.name, self.outcome, ran.report));
        }
        // The same start through the stages by policy has the same race.
        let base = start.name.strip_prefix("stages_").unwrap_or(&start.name);
        if RACES.iter().any(|(name, _)| base.starts_with(name)) {
            return None;
        }
        let diff = compare(&self.run, &start.sections(ran));
        (!diff.is_empty()).then(|| format!("{}\n{diff}\n{}", start.name, ran.report))
    }
}

fn outcome(ran: &Ran) -> Outcome {
    let mut ends: Vec<_> =
        ran.report.processes.iter().map(|process| (process.role, process.end.clone())).collect();
    ends.sort_by_key(|(role, _)| *role);
    (ends, ran.told.as_ref().map(ToString::to_string))
}

/// Fails with the first difference, and names all starts that differ.
fn none(broken: &[String]) {
    let names: Vec<&str> = broken.iter().filter_map(|text| text.lines().next()).collect();
    assert!(broken.is_empty(), "{} starts depend on the order: {names:#?}\n{}", broken.len(), broken[0]);
}

#[test]
fn run_to_block_schedules_give_the_same_result() {
    let results = on_all_cores(|start| {
        let wanted = Wanted::of(start);
        let mut broken = Vec::new();
        let enumerated = all_schedules(BOUND, |script| {
            broken.extend(wanted.differs(start, &start.run(script, None)));
            broken.truncate(1);
        });
        (start.name.clone(), enumerated, broken)
    });
    let all: usize = results.iter().map(|(_, enumerated, _)| enumerated.count).sum();
    let bounded: Vec<&str> = results
        .iter()
        .filter(|(_, enumerated, _)| !enumerated.complete)
        .map(|(name, ..)| name.as_str())
        .collect();
    println!("{all} run-to-block schedules of {} starts", results.len());
    println!("bounded at {BOUND}: {} starts: {}", bounded.len(), bounded.join(", "));
    for (name, why) in RACES {
        println!("outcomes alone are compared in {name}: {why}");
    }
    let broken: Vec<String> = results.into_iter().flat_map(|(.., broken)| broken).collect();
    none(&broken);
}

/// Runs random schedules of every start with `run`. All must have the same result.
fn random_schedules(run: impl Fn(&Start, &mut dyn Choice) -> Ran + Sync) {
    let seed = seed();
    println!("seed {seed}: NSEXEC_SEED={seed} repeats this run");
    let broken: Vec<Vec<String>> = on_all_cores(|start| {
        let wanted = Wanted::of(start);
        let found = (0..RANDOM).find_map(|nth| {
            let seed = seed.wrapping_add(nth);
            let ran = run(start, &mut Random::new(seed));
            wanted.differs(start, &ran).map(|what| format!("seed {seed}: {what}"))
        });
        found.into_iter().collect()
    });
    let count = broken.len() as u64 * RANDOM;
    println!("{count} random schedules of {} starts", broken.len());
    assert!(count >= 10_000);
    none(&broken.concat());
}

#[test]
fn random_schedules_give_the_same_result() {
    random_schedules(|start, choice| start.run(choice, None));
}

/// A poll that reports an end has not missed its reason, whatever the other processes do while poll(2) checks
/// one descriptor after the other.
#[test]
fn slow_polls_give_the_same_result() {
    random_schedules(Start::run_with_slow_polls);
}

/// The number of stops tried in one start of our launcher.
const STOPS: u64 = 60;

/// In any order, a stopped process delays our launcher until SIGTERM at most, and no process is left.
#[test]
fn stopped_process_never_blocks_the_launcher() {
    let seed = seed();
    println!("seed {seed}: NSEXEC_SEED={seed} repeats this run");
    let results = on_all_cores(|start| {
        // The simulated buffer is smaller than any buffer on Linux, and than the data that the launcher sends
        // at once.
        // A process that becomes the command in place dies of SIGTERM: `tests/sweep` has its death.
        let in_place = start.policy.launch.in_place;
        if start.way != Way::Ours || in_place || start.name.starts_with("small_buffers") {
            return (0, None);
        }
        let whole = start.run(&mut Oldest, None);
        let executed = |at: &Place| {
            let process = whole.report.processes.iter().find(|process| process.role == at.role);
            let before = process.map_or(&[][..], |process| &process.transcript.lines[..at.line]);
            // A minimal init closes its descriptors after the exec of the command.
            let is_over =
                |line: &Line| line.reply == Reply::NoReturn || matches!(line.call, Call::CloseRange { .. });
            before.iter().any(is_over)
        };
        // Stops of the command are not tested: the launch is over.
        let places: Vec<Place> = whole.report.places().map(|(at, _)| at).filter(|at| !executed(at)).collect();
        let mut fired = 0;
        for nth in 0..STOPS {
            let seed = seed.wrapping_add(nth);
            let at = places[(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33) as usize % places.len()];
            let fault = Fault { at, what: FaultKind::Stop(StopReaction::Interrupt) };
            let ran = start.run(&mut Random::new(seed), Some(fault));
            fired += u64::from(ran.report.fault_fired);
            let left = ran.report.alive().next().map(|process| process.role);
            let unreaped = ran.report.zombies().next().map(|process| process.role);
            let wrong = left.or(unreaped).or(ran.report.stuck().next().map(|(role, _)| role));
            if wrong.is_some() || ran.report.endless {
                return (
                    fired,
                    Some(format!("{}, seed {seed}, {fault}: {wrong:?}\n{}", start.name, ran.report)),
                );
            }
        }
        (fired, None)
    });
    let fired: u64 = results.iter().map(|(fired, _)| fired).sum();
    println!("{fired} stops in random schedules");
    assert!(fired > 1_000);
    none(&results.into_iter().filter_map(|(_, broken)| broken).collect::<Vec<_>>());
}

fn seed() -> u64 {
    let given = support::given_seed().expect("a seed");
    let drawn = || {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(0, |now| u64::from(now.subsec_nanos()))
    };
    given.unwrap_or_else(|| if std::env::var_os("CI").is_some() { 20_260_819 } else { drawn() })
}
