//! Schedules: the processes of a start in any order, and it is the same start.
//!
//! Every run-to-block schedule of every scenario without faults, as far as there are not too many, and random preemptive
//! ones: the sections, as a comparison sees them, and the ends of all processes never change.
//!
//! The seed is fixed where CI is set, and else drawn and printed; `NSEXEC_SEED=N` repeats a run.

mod scenarios;

use nsexec::audit::Run;
use nsexec::audit::diff::compare;
use nsexec::sys::sim::{Choice, End, Oldest, Random, Report, Who, all_schedules};
use scenarios::{Start, on_all_cores};

/// Schedules of one start. Most have fewer; those that do not are listed by name when the test runs.
const BOUND: usize = 3_000;

/// Random schedules of one start: times the starts, more than 10,000.
const RANDOM: u64 = 100;

/// What may not depend on the order.
struct Wanted {
    run: Run,
    ends: Vec<(Who, End)>,
}

impl Wanted {
    fn of(start: &Start) -> Self {
        let ran = start.run(&mut Oldest, None);
        Self { run: Start::sections(&ran), ends: ends(&ran.report) }
    }

    /// What is different with this order, if anything is.
    fn differs(&self, start: &Start, choice: &mut dyn Choice) -> Option<String> {
        let ran = start.run(choice, None);
        let diff = compare(&self.run, &Start::sections(&ran));
        let same = diff.is_empty() && ends(&ran.report) == self.ends;
        (!same).then(|| format!("{}\n{diff}\n{}", start.name, ran.report))
    }
}

fn ends(report: &Report) -> Vec<(Who, End)> {
    let mut ends: Vec<_> =
        report.processes.iter().map(|process| (process.who, process.end.clone())).collect();
    ends.sort_by_key(|(who, _)| *who);
    ends
}

/// Why the order is allowed to matter in a start, by a part of its name.
///
/// A full pipe is full for whoever comes later, and drops that one's records: such are the starts with small buffers.
/// And where a stage fails, the others learn of it in the middle of something: which record comes first, and how far
/// stage 0 is when it does, is a race by nature. Their outcome is not.
fn order_matters(start: &Start) -> bool {
    start.name.starts_with("small_buffers") || start.scenario.refused.is_some()
}

#[test]
fn every_run_to_block_schedule_is_the_same_start() {
    let results = on_all_cores(|start| {
        let wanted = Wanted::of(start);
        let mut broken = Vec::new();
        let enumerated = all_schedules(BOUND, |script| {
            broken.extend(wanted.differs(start, script));
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
    let broken: Vec<&String> = results.iter().flat_map(|(.., broken)| broken).collect();
    broken.iter().for_each(|text| println!("{}", text.lines().take(14).collect::<Vec<_>>().join("\n")));
    assert!(broken.is_empty(), "{} starts depend on the order; the first: {}", broken.len(), broken[0]);
}

#[test]
fn every_random_schedule_is_the_same_start() {
    let seed = seed();
    println!("seed {seed}: NSEXEC_SEED={seed} repeats this run");
    let broken: Vec<Vec<String>> = on_all_cores(|start| {
        let wanted = Wanted::of(start);
        let found = (0..RANDOM).find_map(|nth| {
            let seed = seed.wrapping_add(nth);
            wanted.differs(start, &mut Random::new(seed)).map(|what| format!("seed {seed}: {what}"))
        });
        found.into_iter().collect()
    });
    let count = broken.len() as u64 * RANDOM;
    println!("{count} random schedules of {} starts", broken.len());
    assert!(count >= 10_000);
    let broken: Vec<String> = broken.concat();
    broken.iter().for_each(|text| println!("{}", text.lines().take(14).collect::<Vec<_>>().join("\n")));
    assert!(broken.is_empty(), "{} starts depend on the order; the first: {}", broken.len(), broken[0]);
}

fn seed() -> u64 {
    let given = std::env::var("NSEXEC_SEED").ok().and_then(|seed| seed.parse().ok());
    let drawn = || {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(0, |now| u64::from(now.subsec_nanos()))
    };
    given.unwrap_or_else(|| if std::env::var_os("CI").is_some() { 20_260_819 } else { drawn() })
}
