//! Tests of the guard: a test that leaves something fails, and the guard removes what was left.

use std::env;
use std::fs;

use crate::harness::{BOTH, ROOT, Test, test};
use crate::kit::{Ctx, Done};

pub(crate) const TESTS: &[Test] = &[
    test!(a_test_that_leaves_nothing_passes, BOTH),
    test!(a_process_that_is_left_is_found_and_ended, BOTH),
    test!(an_orphan_of_a_killed_launcher_is_found, BOTH),
    test!(a_mount_that_is_left_is_found, ROOT),
    test!(signal_state_of_the_runner_is_not_inherited, BOTH),
];

/// Runs the script under a guard.
fn guard(ctx: &Ctx, script: &str) -> Done {
    let me = env::current_exe().unwrap();
    ctx.cmd(me, ["--guard", "0", "0", "keep", "sh", "-c", script]).done()
}

/// The signal state of nohup, of a background job without job control, and of a runner that blocks some
/// signals.
fn signal_state_of_the_runner_is_not_inherited(ctx: &Ctx) {
    let me = env::current_exe().unwrap();
    let sets = "grep -E '^Sig(Ign|Blk):' /proc/self/status";
    let script = format!(
        "import os, signal\n\
         for number in (1, 2, 3, 10, 13, 15, 17): signal.signal(number, signal.SIG_IGN)\n\
         signal.pthread_sigmask(signal.SIG_BLOCK, {{1, 2, 14, 25, 34}})\n\
         os.execv({me:?}, [{me:?}, '--guard', '0', '0', 'keep', 'sh', '-c', {sets:?}])"
    );
    for line in ctx.python(&script).ok().lines() {
        let set = u64::from_str_radix(line.split_whitespace().last().unwrap(), 16).unwrap();
        // The libc reserves signals 32 and 33; the guard cannot reset them.
        assert_eq!(set & !(3 << 31), 0, "{line}");
    }
}

fn a_test_that_leaves_nothing_passes(ctx: &Ctx) {
    assert_eq!(guard(ctx, "sleep 0.01 & wait").ok(), "");
    guard(ctx, "exit 77").exits(77);
}

fn a_process_that_is_left_is_found_and_ended(ctx: &Ctx) {
    let done = guard(ctx, "sleep 100 >&- & echo $!");
    done.exits(1);
    let text = done.text();
    let pid = text.lines().next().unwrap();
    assert!(text.contains(&format!("process left: {pid} ")), "{text}");
    assert!(fs::metadata(format!("/proc/{pid}")).is_err(), "{pid} lives");
}

fn an_orphan_of_a_killed_launcher_is_found(ctx: &Ctx) {
    let launcher = format!("{} run -r -p -- sh -c 'echo on; sleep 100; :' >out &", ctx.bin.display());
    let done =
        guard(ctx, &format!(": >out\n{launcher}\nuntil grep -qx on out; do sleep 0.01; done; kill -9 $!"));
    done.exits(1);
    assert!(done.text().contains("process left: "), "{}", done.text());
}

fn a_mount_that_is_left_is_found(ctx: &Ctx) {
    let done = guard(ctx, "mkdir there; mount -t tmpfs left there");
    done.exits(1);
    assert!(done.text().contains("mount left: ") && done.text().contains("/there "), "{}", done.text());
}
