//! Schedules: the processes of a start in any order, and it is the same start.
//!
//! Every run-to-block schedule of every scenario without faults, as far as there are not too many, and random preemptive
//! ones: the sections, as a comparison sees them, and the ends of all processes never change.
//!
//! The seed is fixed where CI is set, and else drawn and printed; `NSEXEC_SEED=N` repeats a run.

mod scenarios;

use nsexec::audit::Run;
use nsexec::audit::diff::compare;
use nsexec::audit::normalise::{Grade, normalise};
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
