//! Two threads launch at the same time, and the launcher is killed: the processes of both launches must end.
//!
//! They would not end if the processes of each launch held the launcher's end of the other's init pipe: then
//! the launcher's death would not be reported as an end of file. The test leads both launches to that moment:
//! each creates its pipes before either forks.

use std::io::{BufRead, BufReader, Write};
use std::sync::{Condvar, Mutex};
use std::thread;
use std::time::Duration;

use nsexec::launch::{LaunchError, WaitedFor};
use nsexec_audit::record::{CallRef, LineRef, Recorder, Reply, ReplyRef, Sink};

use crate::cases::{Shape, plain};
use crate::{Case, helper, no_child_left};
use support::LIMIT;

pub(crate) const CASES: &[Case] = &[
    ("a_launcher_that_dies_in_two_launches_leaves_no_stage", || dies_in_two_launches(Shape::Stages, ALL)),
    ("a_launcher_that_dies_in_two_direct_launches_leaves_no_process", || {
        dies_in_two_launches(Shape::Direct, ALL);
    }),
    ("a_launcher_that_dies_in_two_launches_through_a_child_leaves_no_process", || {
        dies_in_two_launches(Shape::Child, ALL);
    }),
    ("a_launcher_that_dies_in_two_closing_launches_leaves_no_process", || {
        Shape::ALL.into_iter().for_each(|shape| dies_in_two_launches(shape, CLOSING));
    }),
    ("launches_that_close_do_not_wait_for_each_other", closing_launches_overlap),
    ("the_limit_of_a_launch_covers_its_wait_for_another_one", limit_covers_the_wait),
    ("the_limit_of_a_launch_ends_a_stopped_stage", limit_ends_a_stopped_stage),
    ("the_longest_limit_does_not_expire", longest_limit),
];

/// Arguments of the helper: the processes keep all descriptors of the launcher, or close them.
const ALL: &str = "all";
const CLOSING: &str = "closing";

/// How long a launch waits for the other one to make the same progress. If launches run one at a time, the
/// other never does: their processes keep all descriptors.
const MEETING: Duration = Duration::from_millis(100);

/// The number of launches that have reached each point.
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

/// Waits for the other launch, for [`MEETING`] at most.
fn wait_for_other(there: impl Fn(&Progress) -> bool) {
    let progress = PROGRESS.lock().unwrap();
    drop(CHANGED.wait_timeout_while(progress, MEETING, |progress| !there(progress)).unwrap());
}

/// Controls one launch, in the launcher's thread. The launch waits for the other one at each common point,
/// and stops for ever after call number `hold_at`.
struct Coordinated {
    in_stage: bool,
    forked: bool,
    /// The number of calls after the fork.
    calls: usize,
    hold_at: usize,
}

impl Sink for Coordinated {
    fn line(&mut self, line: &LineRef<'_>) {
        if self.in_stage {
            return;
        }
        match (&line.call, &line.reply) {
            (_, ReplyRef::Value(Reply::Child)) => {
                self.in_stage = true;
                return;
            }
            (CallRef::Pipe2, _) => {
                note(|progress| progress.with_pipes += 1);
                wait_for_other(|progress| progress.with_pipes == 2);
            }
            (_, ReplyRef::Value(Reply::Parent(_) | Reply::ParentOfInit { .. })) => {
                self.forked = true;
                note(|progress| progress.forked += 1);
                wait_for_other(|progress| progress.forked == 2);
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

/// Launches from two threads. Prints `held` if a launch stopped after this call (both, unless the other one
/// does not get that far), or `over` if both have ended. Then the process waits for ever.
pub(crate) fn together_helper(words: &[String]) {
    let hold_at: usize = words[0].parse().unwrap();
    let shape = Shape::from_word(&words[1]);
    let closing = words[2] == CLOSING;
    for _ in 0..2 {
        thread::spawn(move || {
            let coordinated = Coordinated { in_stage: false, forked: false, calls: 0, hold_at };
            let mut launcher = if closing { shape.closing() } else { shape.plain() };
            launcher.command("true", [""; 0]);
            let child = launcher.spawn_through(|sys| Recorder::new(sys, coordinated));
            assert!(child.unwrap().wait().unwrap().success());
            note(|progress| progress.over += 1);
        });
    }
    let progress = PROGRESS.lock().unwrap();
    let progress = CHANGED.wait_while(progress, |progress| progress.held + progress.over == 0).unwrap();
    let all = |progress: &mut Progress| progress.held + progress.over < 2;
    // Longer than all waits of the other launch.
    let (progress, _) = CHANGED.wait_timeout_while(progress, 4 * MEETING, all).unwrap();
    println!("{}", if progress.over == 2 { "over" } else { "held" });
    std::io::stdout().flush().unwrap();
    drop(progress);
    loop {
        thread::park();
    }
}

/// A launch that stops for ever after it has created its first pipe.
struct Held;

impl Sink for Held {
    fn line(&mut self, line: &LineRef<'_>) {
        if let CallRef::Pipe2 = line.call {
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
    assert_eq!(error, LaunchError::TimedOut { waited_for: WaitedFor::Turn });
}

/// A launch has its pipes and never forks. Others that close these pipes run, and one that would keep them
/// open waits.
fn closing_launches_overlap() {
    thread::spawn(|| {
        let mut launcher = Shape::Direct.closing();
        launcher.command("true", [""; 0]).spawn_through(|sys| Recorder::new(sys, Held))
    });
    let progress = PROGRESS.lock().unwrap();
    let waited = CHANGED.wait_timeout_while(progress, LIMIT, |progress| progress.held == 0).unwrap();
    assert!(!waited.1.timed_out());
    drop(waited);
    for shape in Shape::ALL {
        let mut child = shape.closing().command("true", [""; 0]).timeout(LIMIT).spawn().unwrap();
        assert!(child.wait().unwrap().success());
        let mut keeping = shape.plain();
        let error = keeping.command("true", [""; 0]).timeout(Duration::from_millis(100)).spawn().unwrap_err();
        assert_eq!(error, LaunchError::TimedOut { waited_for: WaitedFor::Turn });
    }
}

/// Stops the launcher's child right after the fork: stage 0, or the command's process. The child waits for
/// the signal: on a busy machine it would otherwise do a part of its work first.
struct Stopping;

impl Sink for Stopping {
    fn line(&mut self, line: &LineRef<'_>) {
        if let ReplyRef::Value(Reply::Child) = line.reply {
            loop {
                nix::unistd::pause();
            }
        }
        if let Some(pid) = line.reply.to_reply().child() {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.0), nix::sys::signal::SIGSTOP).unwrap();
        }
    }
}

fn limit_ends_a_stopped_stage() {
    for shape in Shape::ALL {
        let mut launcher = shape.plain();
        launcher.command("true", [""; 0]).timeout(Duration::from_millis(100));
        let error = launcher.spawn_through(|sys| Recorder::new(sys, Stopping)).unwrap_err();
        let waited_for = match shape {
            Shape::Direct => WaitedFor::Exec,
            Shape::Child => WaitedFor::Stage2,
            Shape::Stages => WaitedFor::Pids,
        };
        assert_eq!(error, LaunchError::TimedOut { waited_for });
        no_child_left(Duration::ZERO).unwrap();
    }
}

fn longest_limit() {
    for limit in [Duration::MAX, Duration::from_secs(u64::MAX), Duration::from_secs(3600)] {
        let mut child = plain().command("true", [""; 0]).timeout(limit).spawn().unwrap();
        assert!(child.wait().unwrap().success());
    }
}

fn dies_in_two_launches(shape: Shape, descriptors: &str) {
    for hold_at in 0.. {
        let mut launcher =
            helper(&["together", &hold_at.to_string(), shape.word(), descriptors]).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(launcher.stdout.take().unwrap()).read_line(&mut line).unwrap();
        launcher.kill().unwrap();
        launcher.wait().unwrap();
        // This process is the subreaper, so a stage that is left is its child.
        no_child_left(LIMIT).unwrap_or_else(|left| panic!("held after call {hold_at}: {left}"));
        if line == "over\n" {
            assert!(hold_at > 5, "{hold_at}");
            return;
        }
        assert_eq!(line, "held\n");
    }
}
