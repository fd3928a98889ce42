//! Many launches at once, and many launches in a row.

use std::fs;

use crate::harness::{BOTH, Test, children, me, test};
use crate::kit::Ctx;

pub(crate) const TESTS: &[Test] = &[
    test!(twenty_at_once, BOTH),
    test!(two_hundred_in_a_row, BOTH),
    test!(a_hundred_failures_in_a_row, BOTH),
    test!(end_of_the_target_ends_entered_commands, BOTH),
];

fn twenty_at_once(ctx: &Ctx) {
    let start = |number: u32| {
        let script = format!("echo {number} pid $$ uid $(id -u); exit {number}");
        ctx.nsexec(["run", "--", "sh", "-c", &script]).start()
    };
    let live: Vec<_> = (0..20).map(|number| (number, start(number))).collect();
    for (number, live) in live {
        let done = live.done();
        done.exits(i32::try_from(number).unwrap());
        assert_eq!((done.text(), done.err.as_str()), (format!("{number} pid 1 uid 0\n"), ""));
    }
}

fn mounts() -> String {
    fs::read_to_string("/proc/self/mountinfo").unwrap()
}

fn two_hundred_in_a_row(ctx: &Ctx) {
    let before = mounts();
    for _ in 0..200 {
        assert_eq!(ctx.nsexec(["run", "--", "echo", "ran"]).ok(), "ran\n");
        assert_eq!(children(me()), [0; 0]);
    }
    assert_eq!(mounts(), before);
}

fn a_hundred_failures_in_a_row(ctx: &Ctx) {
    let before = mounts();
    for _ in 0..50 {
        ctx.nsexec(["run", "--", "/nonexistent"]).refused(127, &["/nonexistent"]);
        ctx.nsexec(["run", "-r", "--join", "net=/nonexistent", "--", "true"]).refused(1, &["/nonexistent"]);
    }
    assert_eq!(children(me()), [0; 0]);
    assert_eq!(mounts(), before);
}

fn end_of_the_target_ends_entered_commands(ctx: &Ctx) {
    let live = crate::joins::sleeper(ctx, &[]);
    let pid = live.command().to_string();
    let join = |_| ctx.nsexec(["enter", "-t", &pid, "-a", "--", "sleep", "100"]).start();
    let joined: Vec<_> = (0..2).map(join).collect();
    // Both are in the pid namespace when its /proc shows them.
    let seen = || {
        ctx.nsexec(["enter", "-t", &pid, "-a", "--", "sh", "-c", "grep -lx sleep /proc/[0-9]*/comm | wc -l"])
            .ok()
    };
    crate::kit::until("three sleepers", || seen().trim() == "3");
    live.end();
    // The first process of their pid namespace has ended, so the kernel kills them.
    joined.into_iter().for_each(|live| live.done().exits(137));
}
