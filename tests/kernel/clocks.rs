//! Time namespaces: their offsets in /proc, and their effect on the clocks inside.

use crate::harness::{BOTH, Test, USER, test};
use crate::kit::{Ctx, PYTHON, subordinate};

pub(crate) const TESTS: &[Test] = &[
    test!(monotonic_alone, BOTH),
    test!(boottime_alone, BOTH),
    test!(both_offsets_and_negative_offsets, BOTH),
    test!(without_offsets_the_clocks_are_the_same, BOTH),
    test!(uptime_is_that_of_the_namespace, BOTH),
    test!(offsets_with_maps_written_by_a_tool, USER),
    test!(offsets_in_a_joined_user_namespace, BOTH),
    test!(an_offset_before_the_start_of_the_machine, BOTH),
    test!(a_joined_time_namespace_keeps_its_offsets, BOTH),
];

const CLOCKS: &str =
    "import time; print(*(time.clock_gettime(c) for c in (time.CLOCK_MONOTONIC, time.CLOCK_BOOTTIME)))";

/// Returns the clocks of this process, or those inside a launch with `args`.
fn clocks(ctx: &Ctx, args: &[&str]) -> [f64; 2] {
    let text = if args.is_empty() {
        ctx.python(CLOCKS).ok()
    } else {
        ctx.nsexec(args.iter().chain(&["--", PYTHON, "-I", "-S", "-c", CLOCKS])).ok()
    };
    let numbers: Vec<f64> = text.split_whitespace().map(|word| word.parse().unwrap()).collect();
    [numbers[0], numbers[1]]
}

/// Checks that the clocks inside are ahead by these numbers of seconds.
#[track_caller]
fn check(ctx: &Ctx, flags: &[&str], offsets: [i64; 2]) {
    let mut args = vec!["run"];
    if !ctx.root() {
        args.push("-r");
    }
    args.extend(flags);
    let before = clocks(ctx, &[]);
    let inside = clocks(ctx, &args);
    let after = clocks(ctx, &[]);
    for clock in 0..2 {
        let offset = offsets[clock] as f64;
        let (early, late) = (before[clock] + offset, after[clock] + offset);
        assert!(
            early <= inside[clock] && inside[clock] <= late,
            "{flags:?}: {early} <= {} <= {late}",
            inside[clock]
        );
    }
    args.extend(["--", "cat", "/proc/self/timens_offsets"]);
    let text = ctx.nsexec(&args).ok();
    let words: Vec<_> = text.split_whitespace().collect();
    let [monotonic, boottime] = offsets.map(|offset| offset.to_string());
    assert_eq!(words, ["monotonic", &monotonic, "0", "boottime", &boottime, "0"], "{flags:?}");
}

fn monotonic_alone(ctx: &Ctx) {
    check(ctx, &["--monotonic", "86400"], [86_400, 0]);
}

fn boottime_alone(ctx: &Ctx) {
    check(ctx, &["--boottime=604800"], [0, 604_800]);
}

fn both_offsets_and_negative_offsets(ctx: &Ctx) {
    check(ctx, &["--boottime", "1000000", "--monotonic", "-7"], [-7, 1_000_000]);
    check(ctx, &["-T", "--monotonic=-5", "--boottime=-6"], [-5, -6]);
}

fn without_offsets_the_clocks_are_the_same(ctx: &Ctx) {
    check(ctx, &["-T"], [0, 0]);
}

fn uptime_is_that_of_the_namespace(ctx: &Ctx) {
    // In hundredths of a second, as /proc/uptime gives them: a difference of two fractions is not exact.
    let uptime =
        |text: String| text.split_whitespace().next().unwrap().replace('.', "").parse::<u64>().unwrap();
    let outside = uptime(ctx.cmd("cat", ["/proc/uptime"]).ok());
    let inside = uptime(ctx.run(["--boottime", "1000000", "--", "cat", "/proc/uptime"]).ok());
    assert!((100_000_000..100_006_000).contains(&(inside - outside)), "{inside} - {outside}");
}

/// Stage 1 becomes another user and is then not dumpable for stage 0. So stage 0 must open the offsets
/// together with the maps: see docs/protocol.md#dumpable.
fn offsets_with_maps_written_by_a_tool(ctx: &Ctx) {
    let (first, _) = subordinate(ctx);
    let line = format!("0:{first}:10");
    let args = [
        "run",
        "--map-users",
        &line,
        "--map-groups",
        &line,
        "--monotonic",
        "500",
        "--",
        "cat",
        "/proc/self/timens_offsets",
    ];
    let text = ctx.nsexec(args).ok();
    assert_eq!(text.split_whitespace().nth(1), Some("500"), "{text}");
}

fn offsets_in_a_joined_user_namespace(ctx: &Ctx) {
    let live = ctx.nsexec(["run", "-r", "--", "sh", "-c", "echo on; exec sleep 100"]).start().says("on");
    let join = format!("user=/proc/{}/ns/user", live.command());
    let cmd =
        ctx.nsexec(["run", "--join", &join, "--boottime", "500", "--", "cat", "/proc/self/timens_offsets"]);
    if ctx.root() {
        let text = cmd.ok();
        assert_eq!(text.split_whitespace().nth(4), Some("500"), "{text}");
    } else {
        // Stage 1 is not dumpable after the join, and opens no dumpable window without a user namespace of
        // its own: see docs/protocol.md#dumpable.
        let said = cmd.refused(1, &["timens_offsets", "Permission denied"]);
        assert!(!said.contains("add -r"), "that cannot be added to this --join: {said}");
    }
    live.end();
}

fn an_offset_before_the_start_of_the_machine(ctx: &Ctx) {
    let cmd = ctx.run(["--monotonic", "-4000000000", "--", "echo", "it ran"]);
    cmd.refused(1, &["timens_offsets", "Numerical result out of range"]);
}

fn a_joined_time_namespace_keeps_its_offsets(ctx: &Ctx) {
    let live =
        ctx.run(["--monotonic", "5000", "--", "sh", "-c", "echo on; exec sleep 100"]).start().says("on");
    let pid = live.command();
    let mut joins = vec![format!("time=/proc/{pid}/ns/time")];
    if !ctx.root() {
        joins.push(format!("user=/proc/{pid}/ns/user"));
    }
    let mut args = vec!["run"];
    joins.iter().for_each(|join| args.extend(["--join", join]));
    let before = clocks(ctx, &[])[0];
    let inside = clocks(ctx, &args)[0];
    assert!((before + 5000.0..before + 5060.0).contains(&inside), "{before} and {inside}");
    live.end();
}
