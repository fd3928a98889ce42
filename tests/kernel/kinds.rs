//! The new namespaces of a command: each kind alone, and all together. Compared by device and inode.

use crate::harness::{BOTH, ROOT, Test, test};
use crate::kit::{Ctx, KINDS, LINKS, differ, namespaces};

pub(crate) const TESTS: &[Test] = &[
    test!(each_kind_alone, BOTH),
    test!(all_together, BOTH),
    test!(without_flags_every_kind_is_created, BOTH),
    test!(command_sees_its_new_namespaces, BOTH),
    test!(short_flags_of_unshare_work, BOTH),
    test!(pairs_of_kinds, ROOT),
    test!(launcher_stays_in_its_namespaces, BOTH),
];

/// Returns the links that must differ if these kinds are new: for pid and time also those for the children.
fn expected(kinds: &[&str]) -> Vec<&'static str> {
    LINKS.into_iter().filter(|link| kinds.contains(&link.trim_end_matches("_for_children"))).collect()
}

/// Starts a sleeper with these flags and compares its namespaces with ours.
#[track_caller]
fn check(ctx: &Ctx, flags: &[&str], kinds: &[&str]) {
    let mut args = vec!["run"];
    args.extend(flags);
    args.extend(["--", "sh", "-c", "echo on; exec sleep 100"]);
    let live = ctx.nsexec(&args).start().says("on");
    assert_eq!(differ(&namespaces("self"), &namespaces(live.command())), expected(kinds), "{flags:?}");
    live.end();
}

fn each_kind_alone(ctx: &Ctx) {
    for (kind, flag) in KINDS {
        if kind == "user" || !ctx.root() {
            check(ctx, &[flag, "-r"], &[kind, "user"]);
        } else {
            check(ctx, &[flag], &[kind]);
        }
    }
}

fn all_together(ctx: &Ctx) {
    let all = KINDS.map(|(kind, _)| kind);
    let mut flags: Vec<_> = KINDS.iter().map(|(_, flag)| *flag).collect();
    flags.push("-r");
    check(ctx, &flags, &all);
    check(ctx, &["--all"], &all);
    check(ctx, &["--all", "-r", "--mount-proc"], &all);
}

fn without_flags_every_kind_is_created(ctx: &Ctx) {
    check(ctx, &[], &KINDS.map(|(kind, _)| kind));
}

fn short_flags_of_unshare_work(ctx: &Ctx) {
    check(ctx, &["-rUmpniuCTf"], &KINDS.map(|(kind, _)| kind));
    check(ctx, &["-r", "-f"], &["user"]);
}

fn pairs_of_kinds(ctx: &Ctx) {
    for (number, (kind, flag)) in KINDS.iter().enumerate().skip(1) {
        let (other, other_flag) = KINDS[1 + number % 7];
        check(ctx, &[flag, other_flag], &[kind, other]);
    }
}

fn command_sees_its_new_namespaces(ctx: &Ctx) {
    let links = LINKS.map(|link| format!("/proc/self/ns/{link}"));
    let args = ["--all", "--mount-proc", "readlink"].map(str::to_owned).into_iter().chain(links.clone());
    let inside = ctx.run(args).ok();
    let outside = ctx.cmd("readlink", links).ok();
    let (inside, outside): (Vec<_>, Vec<_>) = (inside.lines().collect(), outside.lines().collect());
    assert_eq!((inside.len(), outside.len()), (LINKS.len(), LINKS.len()));
    for ((inside, outside), link) in inside.iter().zip(&outside).zip(LINKS) {
        assert_ne!(inside, outside, "{link}");
    }
    let of = |link| inside[LINKS.iter().position(|other| *other == link).unwrap()];
    assert_eq!(of("pid"), of("pid_for_children"));
    assert_eq!(of("time"), of("time_for_children"));
}

fn launcher_stays_in_its_namespaces(ctx: &Ctx) {
    let live = ctx.nsexec(["run", "--", "sh", "-c", "echo on; exec sleep 100"]).start().says("on");
    assert_eq!(differ(&namespaces("self"), &namespaces(live.pid())), [""; 0]);
    live.end();
}
