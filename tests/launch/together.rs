//! Two threads launch at the same time, and the launcher is killed: the stages of both launches end.
//!
//! They would not if each launch's stages held the launcher's end of the other's init pipe: its death would be no end of
//! file. Both launches are led to that moment: each makes its pipes before either forks.

use std::io::{BufRead, BufReader, Write};
use std::sync::{Condvar, Mutex};
use std::thread;
use std::time::Duration;

use nsexec::launch::LaunchError;
use nsexec_audit::record::{Call, Line, Recorder, Reply, Sink};

use crate::cases::plain;
use crate::runner::LIMIT;
use crate::{Case, helper, nobody_left};

pub(crate) const CASES: &[Case] = &[
    ("a_launcher_that_dies_in_two_launches_leaves_no_stage", a_launcher_that_dies_in_two_launches),
    ("the_limit_of_a_launch_covers_its_wait_for_another_one", limit_covers_the_wait),
    ("the_limit_of_a_launch_ends_a_stopped_stage", limit_ends_a_stopped_stage),
    ("the_longest_limit_is_none", longest_limit),
];

/// How long a launch waits for the other one to come as far. If launches are made one at a time, it never does.
const MEETING: Duration = Duration::from_millis(100);

/// What both launches have come to.
#[derive(Default)]
struct Progress {
    with_pipes: usize,
    forked: usize,
    held: usize,
    over: usize,
}

static PROGRESS: Mutex<Progress> = Mutex::new(Progress { with_pipes: 0, forked: 0, held: 0, over: 0 });
static CHANGED: Condvar = Condvar::new();

fn note(change: impl FnOnce(&mut Progress)) {
    change(&mut PROGRESS.lock().unwrap());
    CHANGED.notify_all();
}

/// Waits for the other launch, but not for ever.
fn meet(there: impl Fn(&Progress) -> bool) {
    let progress = PROGRESS.lock().unwrap();
    drop(CHANGED.wait_timeout_while(progress, MEETING, |progress| !there(progress)).unwrap());
}

/// Leads one launch, in the launcher's thread: to the other one, and then to the call after which it is held for ever.
struct Led {
    second: bool,
    in_stage: bool,
    forked: bool,
    /// Calls after the fork.
    calls: usize,
    hold_at: usize,
}

impl Sink for Led {
    fn line(&mut self, line: &Line) {
        if self.in_stage {
            return;
        }
        match (&line.call, &line.reply) {
            (_, Reply::Child) => {
                self.in_stage = true;
                return;
            }
            (Call::Pipe2, _) => {
                note(|progress| progress.with_pipes += 1);
                meet(|progress| progress.with_pipes == 2);
                if self.second {
                    // No thread is in the allocator while another one forks: a stage of a recorder allocates.
                    meet(|progress| progress.forked == 1);
                }
            }
            (_, Reply::Parent(_)) => {
                self.forked = true;
                note(|progress| progress.forked += 1);
                meet(|progress| progress.forked == 2);
            }
            _ => {}
        }
        if self.forked && self.calls == self.hold_at {
            note(|progress| progress.held += 1);
            loop {
                thread::park();
            }
        }
        self.calls += usize::from(self.forked);
    }
}

/// Launches from two threads, says that both are held after this call (or one, where the other does not come so far) or
/// that both are over, and stays.
pub(crate) fn together_helper(words: &[String]) {
    let hold_at: usize = words[0].parse().unwrap();
    for second in [false, true] {
        thread::spawn(move || {
            let led = Led { second, in_stage: false, forked: false, calls: 0, hold_at };
            let mut launcher = plain();
            launcher.command("true", [""; 0]);
            let child = launcher.spawn_through(|sys| Recorder::new(sys, led));
            assert!(child.unwrap().wait().unwrap().success());
            note(|progress| progress.over += 1);
        });
    }
    let progress = PROGRESS.lock().unwrap();
    let progress = CHANGED.wait_while(progress, |progress| progress.held + progress.over == 0).unwrap();
    let all = |progress: &mut Progress| progress.held + progress.over < 2;
    // Longer than the other launch waits anywhere.
    let (progress, _) = CHANGED.wait_timeout_while(progress, 4 * MEETING, all).unwrap();
    println!("{}", if progress.over == 2 { "over" } else { "held" });
    std::io::stdout().flush().unwrap();
    drop(progress);
    loop {
        thread::park();
    }
}

/// A launch that never goes on after it has made its first pipe.
struct Held;

impl Sink for Held {
    fn line(&mut self, line: &Line) {
        if line.call == Call::Pipe2 {
            note(|progress| progress.held += 1);
            loop {
                thread::park();
            }
        }
    }
}

fn limit_covers_the_wait() {
    thread::spawn(|| plain().command("true", [""; 0]).spawn_through(|sys| Recorder::new(sys, Held)));
    let progress = PROGRESS.lock().unwrap();
    let waited = CHANGED.wait_timeout_while(progress, LIMIT, |progress| progress.held == 0).unwrap();
    assert!(!waited.1.timed_out());
    let error = plain().command("true", [""; 0]).timeout(Duration::from_millis(100)).spawn().unwrap_err();
    assert_eq!(error, LaunchError::TimedOut);
}

/// Stops stage 0 as soon as it is there.
struct Stopping;

impl Sink for Stopping {
    fn line(&mut self, line: &Line) {
        if let Reply::Parent(pid) = line.reply {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.0), nix::sys::signal::SIGSTOP).unwrap();
        }
    }
}

fn limit_ends_a_stopped_stage() {
    let mut launcher = plain();
    launcher.command("true", [""; 0]).timeout(Duration::from_millis(100));
    let error = launcher.spawn_through(|sys| Recorder::new(sys, Stopping)).unwrap_err();
    assert_eq!(error, LaunchError::TimedOut);
    nobody_left(Duration::ZERO).unwrap();
}

fn longest_limit() {
    for limit in [Duration::MAX, Duration::from_secs(u64::MAX), Duration::from_secs(3600)] {
        let mut child = plain().command("true", [""; 0]).timeout(limit).spawn().unwrap();
        assert!(child.wait().unwrap().success());
    }
}

fn a_launcher_that_dies_in_two_launches() {
    for hold_at in 0.. {
        let mut launcher = helper(&["together", &hold_at.to_string()]).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(launcher.stdout.take().unwrap()).read_line(&mut line).unwrap();
        launcher.kill().unwrap();
        launcher.wait().unwrap();
        // We are the subreaper: a stage that stays is our child.
        nobody_left(LIMIT).unwrap_or_else(|left| panic!("held after call {hold_at}: {left}"));
        if line == "over\n" {
            assert!(hold_at > 5, "{hold_at}");
            return;
        }
        assert_eq!(line, "held\n");
    }
}
