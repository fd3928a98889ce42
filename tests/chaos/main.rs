//! Starts of every shape, many at a time, disturbed at random moments: nothing is left, no process waits for
//! ever, and each failure has an error with its cause.
//!
//! A start is drawn from the seed and its number: the shape (the program's, the library's `Command`, drop-ins
//! of each dialect), and up to three disturbances. A disturbance is a limit or a setting that the launcher
//! inherits, a signal to any process of the launch, or a parent of the drop-in that sends slowly, stalls,
//! ends, or does not read the log.
//!
//! Each worker is a process with one start at a time. It is the subreaper of its launches, so a process that
//! is left is its child. A namespace that no process, descriptor or mount holds does not exist, so the
//! worker's children, descriptors and mounts tell whether one is left.
//!
//! `NSEXEC_SEED=N` repeats the draws. `NSEXEC_STARTS=N` makes N starts instead of 20,000, or as many as fit
//! into the usual time; `NSEXEC_START=K` makes only start K, 50 times. `NSEXEC_CHAOS_TEXTS=1` prints the
//! texts of all errors with their counts.

mod draw;
mod family;
mod judge;
mod launcher;
mod parent;
mod place;
mod tally;
mod worker;

use std::process::ExitCode;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};
use place::Place;
use support::{Suite, Test, Threads, Verdict};
use tally::Tally;

/// The duration of each test without `NSEXEC_STARTS`.
const DURATION: Duration = Duration::from_secs(42);

/// The number of starts of each test without `NSEXEC_STARTS`, if the time is enough.
const MOST: u64 = 10_000;

fn main() -> ExitCode {
    support::begin();
    let seed = match support::given_seed() {
        Ok(Some(seed)) => seed,
        Ok(None) if std::env::var_os("CI").is_some() => 20_261_128,
        Ok(None) => u64::from(std::process::id()) << 20,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let place = Arc::new(LazyLock::new(Place::new));
    let test = |name: &'static str, workers: u64| {
        let place = place.clone();
        Test::new(name, move || {
            if !nix::unistd::Uid::effective().is_root() {
                return Verdict::Skipped("needs root, to start as several users".to_owned());
            }
            match &**place {
                Ok(place) => drive(place, name, seed, workers),
                Err(reason) => Verdict::Skipped(reason.clone()),
            }
        })
    };
    let tests = vec![test("eight_at_a_time", 8), test("sixty_four_at_a_time", 64)];
    let suite = Suite::new("chaos", tests);
    if !suite.is_list() {
        println!("seed {seed}: NSEXEC_SEED={seed} repeats these draws");
    }
    suite.main(Threads::One)
}

/// Reads a number from the environment.
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number")))
}

/// Runs this number of workers, and adds their counts.
#[allow(clippy::disallowed_methods, reason = "this program has one thread, and no handlers of a fork")]
fn drive(place: &Place, name: &str, seed: u64, workers: u64) -> Verdict {
    let begun = Instant::now();
    let starts = number("NSEXEC_STARTS").map(|all| all / 2);
    let only = number("NSEXEC_START");
    // The two tests have different starts.
    let base = workers << 32;
    let mut pids = Vec::new();
    for worker in 0..workers {
        // SAFETY: this program has one thread.
        match unsafe { fork() }.expect("fork") {
            ForkResult::Parent { child } => pids.push(child),
            ForkResult::Child => {
                worker::become_worker(place, worker);
                let own = (0..).map(|nth| base + worker + nth * workers);
                let mut own: Box<dyn Iterator<Item = u64>> = match (only, starts) {
                    (Some(only), _) if worker == 0 => Box::new(std::iter::repeat_n(only, 50)),
                    (Some(_), _) => Box::new(std::iter::empty()),
                    (None, Some(count)) => Box::new(own.take_while(move |number| *number < base + count)),
                    (None, None) => {
                        let is_in_time = || begun.elapsed() < DURATION;
                        Box::new(own.take_while(move |number| *number < base + MOST && is_in_time()))
                    }
                };
                let busy = u32::try_from(workers / 2).expect("a small number");
                let tally = worker::work(place, seed, &mut own, busy);
                tally.write(&place.report(worker));
                // Exits without running the destructors of the parent's values.
                std::process::exit(0);
            }
        }
    }
    let mut tally = Tally::default();
    for (worker, pid) in (0..).zip(pids) {
        match waitpid(pid, None) {
            Ok(WaitStatus::Exited(_, 0)) => tally.read(&place.report(worker)),
            status => tally.complaints.push(format!("worker {worker}: {status:?}")),
        }
    }
    println!(
        "\n{name}: {} starts in {} s, the longest wait {} ms (start {}), {} complaints",
        tally.starts,
        begun.elapsed().as_secs(),
        tally.longest,
        tally.longest_of,
        tally.complaints.len()
    );
    tally.print();
    tally.complaints.iter().take(20).for_each(|complaint| println!("  {complaint}"));
    match tally.complaints.len() {
        0 => Verdict::Passed,
        count => Verdict::Failed(format!("{count} complaints; seed {seed}")),
    }
}
