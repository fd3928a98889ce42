//! `nsexec enter`: enters the namespaces of a process, like nsenter(1).

use std::process;

use nix::sys::signal::Signal;

use crate::harness::{BOTH, ROOT, Test, USER, test};
use crate::joins::sleeper;
use crate::kit::{Ctx, KINDS, LINKS, differ, ids, namespaces};

pub(crate) const TESTS: &[Test] = &[
    test!(all_namespaces_of_a_target, BOTH),
    test!(single_kinds, ROOT),
    test!(user_and_one_more, BOTH),
    test!(own_namespaces_are_skipped, BOTH),
    test!(credentials_are_those_of_root, BOTH),
    test!(credentials_may_be_kept, BOTH),
    test!(a_process_that_has_ended, BOTH),
    test!(a_zombie, BOTH),
    test!(process_of_another_user_is_refused, USER),
    test!(nothing_to_enter_is_wrong_usage, BOTH),
    test!(enter_from_within_a_sandbox, BOTH),
    test!(enter_returns_the_exit_status, BOTH),
];

const SLEEP: [&str; 3] = ["sh", "-c", "echo on; exec sleep 100"];

/// Runs `nsexec enter -t PID FLAGS -- sleep`. Returns the links in which the command differs from us; it must
/// share all of them with `pid`.
#[track_caller]
fn entered(ctx: &Ctx, pid: i32, flags: &[&str]) -> Vec<&'static str> {
    let target = pid.to_string();
    let args = [&["enter", "-t", &target], flags, &["--"], &SLEEP].concat();
    let live = ctx.nsexec(args).start().says("on");
    let found = namespaces(live.command());
    live.end();
    let (ours, theirs) = (differ(&namespaces("self"), &found), differ(&namespaces(pid), &found));
    assert!(
        !ours.iter().any(|link| theirs.contains(link)),
        "{flags:?}: neither ours nor theirs: {ours:?} {theirs:?}"
    );
    ours
}

fn all_namespaces_of_a_target(ctx: &Ctx) {
    for flags in [&["--all"][..], &[]] {
        let live = sleeper(ctx, flags);
        assert_eq!(entered(ctx, live.command(), &["-a"]), LINKS);
        assert_eq!(entered(ctx, live.command(), &["-UmpniuCT"]), LINKS);
        live.end();
    }
}

fn single_kinds(ctx: &Ctx) {
    let live = sleeper(ctx, &["--all"]);
    for (kind, flag) in KINDS {
        let found = entered(ctx, live.command(), &[flag]);
        assert!(
            !found.is_empty() && found.iter().all(|link| link.trim_end_matches("_for_children") == kind),
            "{flag}: {found:?}"
        );
    }
    live.end();
}

fn user_and_one_more(ctx: &Ctx) {
    let live = sleeper(ctx, &["--all"]);
    for (kind, flag) in &KINDS[1..] {
        let found = entered(ctx, live.command(), &["-U", flag]);
        assert!(found.contains(&"user") && found.contains(kind), "{flag}: {found:?}");
        assert!(found.iter().all(|link| *link == "user" || link.starts_with(kind)), "{flag}: {found:?}");
    }
    live.end();
}

fn own_namespaces_are_skipped(ctx: &Ctx) {
    let live = sleeper(ctx, &["-r", "-n"]);
    assert_eq!(entered(ctx, live.command(), &["-a"]), ["user", "net"]);
    live.end();
    // The target is this process: no namespace is left to join, which is not an error.
    let me = process::id().to_string();
    let done = ctx.nsexec(["enter", "-t", &me, "-U", "--", "id", "-u"]).done();
    done.exits(0);
    assert_eq!(done.text(), format!("{}\n", ids().0));
}

fn credentials_are_those_of_root(ctx: &Ctx) {
    let live = sleeper(ctx, &[]);
    let pid = live.command().to_string();
    let text = ctx
        .nsexec(["enter", "-t", &pid, "-a", "--", "sh", "-c", "id -u; id -g; readlink /proc/self/ns/user"])
        .ok();
    let theirs = std::fs::read_link(format!("/proc/{pid}/ns/user")).unwrap();
    assert_eq!(text, format!("0\n0\n{}\n", theirs.display()));
    live.end();
}

fn credentials_may_be_kept(ctx: &Ctx) {
    let live = sleeper(ctx, &["-r"]);
    let pid = live.command().to_string();
    // The caller's ids are mapped to 0 there, so they read as 0 although they have not changed.
    let kept = ctx.nsexec(["enter", "-t", &pid, "-U", "--preserve-credentials", "--", "id", "-u"]).ok();
    assert_eq!(kept, "0\n");
    live.end();
    if ctx.root() {
        let live = sleeper(ctx, &["--map-users", "0:30000:1", "--map-groups", "0:30000:1"]);
        let pid = live.command().to_string();
        let ids = |flags: &[&str]| {
            let args = [&["enter", "-t", &pid, "-U"], flags, &["--", "sh", "-c", "id -u; id -g"]].concat();
            ctx.nsexec(args).ok()
        };
        assert_eq!(ids(&[]), "0\n0\n");
        assert_eq!(ids(&["--preserve-credentials"]), "65534\n65534\n");
        live.end();
    }
}

fn a_process_that_has_ended(ctx: &Ctx) {
    let live = sleeper(ctx, &["-r"]);
    let pid = live.command().to_string();
    live.end();
    ctx.nsexec(["enter", "-t", &pid, "-a", "--", "echo", "it ran"]).refused(1, &[&pid, "No such process"]);
}

fn a_zombie(ctx: &Ctx) {
    let script = "import os, signal, time
pid = os.fork()
if pid == 0: os._exit(0)
def reap(*_): os._exit(os.waitpid(pid, 0)[1])
signal.signal(signal.SIGTERM, reap)
os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
print(pid, 'on', flush=True)
time.sleep(100)";
    let live = ctx.python(script).start().says("on");
    let pid = live.text().split_whitespace().next().unwrap().to_owned();
    ctx.nsexec(["enter", "-t", &pid, "-a", "--", "echo", "it ran"]).refused(1, &[&pid]);
    live.signal(Signal::SIGTERM);
    live.done().exits(0);
}

fn process_of_another_user_is_refused(ctx: &Ctx) {
    ctx.nsexec(["enter", "-t", "1", "-a", "--", "echo", "it ran"]).refused(1, &["/proc/1/ns", "denied"]);
}

fn nothing_to_enter_is_wrong_usage(ctx: &Ctx) {
    ctx.nsexec(["enter", "-t", "1", "--", "echo", "it ran"]).misused(&["-a"]);
    for pid in ["0", "-1", "x", ""] {
        let target = format!("--target={pid}");
        ctx.nsexec(["enter", "-a", &target, "--", "echo", "it ran"]).misused(&["--target"]);
    }
}

fn enter_from_within_a_sandbox(ctx: &Ctx) {
    let bin = ctx.bin.display();
    let script = format!(
        "{bin} run -r -p -n -- sleep 100 &
        until pid=$(tr -d ' ' </proc/$!/task/$!/children); grep -qx sleep /proc/$pid/comm; do sleep 0.01; done 2>/dev/null
        {bin} enter -t $pid -a -- sh -c 'echo inside $(id -u)'
        kill $!; wait $!; echo $?"
    );
    let text = ctx.nsexec(["run", "--", "sh", "-c", &script]).ok();
    assert_eq!(text, "inside 0\n143\n");
}

fn enter_returns_the_exit_status(ctx: &Ctx) {
    let live = sleeper(ctx, &[]);
    let pid = live.command().to_string();
    let enter = |script: &str| ctx.nsexec(["enter", "-t", &pid, "-a", "--", "sh", "-c", script]).done();
    enter("exit 7").exits(7);
    enter("kill -9 $$").exits(137);
    ctx.nsexec(["enter", "-t", &pid, "-a", "--", "/nonexistent"]).refused(127, &["/nonexistent"]);
    live.end();
}
