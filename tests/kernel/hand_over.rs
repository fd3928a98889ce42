//! The descriptors, the terminal and the environment of a command that enters a container. Also which process
//! `enter -t` finds if /proc belongs to another pid namespace.

use std::fs;

use crate::harness::{BOTH, ROOT, Test, test};
use crate::joins::sleeper;
use crate::kit::{Ctx, PYTHON};

pub(crate) const TESTS: &[Test] = &[
    test!(descriptors_above_2_stay_with_the_caller, BOTH),
    test!(a_closed_descriptor_is_wrong_usage, BOTH),
    test!(a_joined_mount_namespace_gets_no_descriptors, BOTH),
    test!(plain_run_passes_descriptors_on, BOTH),
    test!(lesser_privilege_means_a_session_of_its_own, BOTH),
    test!(equal_privilege_keeps_the_session, ROOT),
    test!(lesser_privilege_is_detected_in_the_status, ROOT),
    test!(the_environment_is_cleared_and_set, BOTH),
    test!(pid_of_our_namespace_is_entered_with_a_stale_proc, BOTH),
    test!(proc_that_does_not_show_nsexec_is_refused, ROOT),
];

/// A script that prints on one line which of the descriptors 3 to 9 it has. (dash itself uses one above 9.)
const LIST: &str =
    "for n in $(seq 3 9); do if test -e /proc/self/fd/$n; then echo -n \"$n \"; fi; done; echo";

/// Runs `nsexec WORDS… -- sh -c LIST` in a shell that has the descriptors 7 and 9.
fn lists(ctx: &Ctx, words: &str) -> String {
    let file = ctx.file("text");
    fs::write(&file, "text\n").unwrap();
    let (bin, file) = (ctx.bin.display(), file.display());
    let script = format!("exec 7<{file} 9<{file}; exec {bin} {words} -- sh -c '{LIST}'");
    ctx.cmd("sh", ["-c", &script]).ok()
}

fn descriptors_above_2_stay_with_the_caller(ctx: &Ctx) {
    let live = sleeper(ctx, &[]);
    let enter = format!("enter -t {} -a", live.command());
    assert_eq!(lists(ctx, &enter), "\n");
    assert_eq!(lists(ctx, &format!("{enter} --fd 7")), "7 \n");
    assert_eq!(lists(ctx, &format!("{enter} --fd 9 --fd 7")), "7 9 \n");
    assert_eq!(lists(ctx, &format!("{enter} --fd all")), "7 9 \n");
    // The same if no namespace is joined.
    assert_eq!(lists(ctx, &format!("enter -t {} -a 2>/dev/null", std::process::id())), "\n");
    live.end();
}

fn a_closed_descriptor_is_wrong_usage(ctx: &Ctx) {
    let live = sleeper(ctx, &["-r"]);
    let pid = live.command().to_string();
    // Descriptors with these numbers are opened by the launcher later, and must be reported as closed.
    for number in ["3", "4", "5", "8", "2147483647"] {
        ctx.nsexec(["enter", "-t", &pid, "-a", "--fd", number, "--", "echo", "it ran"])
            .misused(&[number, "is not open"]);
    }
    for number in ["0", "2", "-1", "x"] {
        let fd = format!("--fd={number}");
        ctx.nsexec(["enter", "-t", &pid, "-a", &fd, "--", "echo", "it ran"]).misused(&["--fd"]);
    }
    live.end();
}

fn a_joined_mount_namespace_gets_no_descriptors(ctx: &Ctx) {
    let live = sleeper(ctx, &["--all", "--mount-proc"]);
    let pid = live.command();
    let join = |kinds: &[&str]| {
        kinds.iter().map(|kind| format!(" --join {kind}=/proc/{pid}/ns/{kind}")).collect::<String>()
    };
    let kinds: &[&str] = if ctx.root() { &["mnt", "pid"] } else { &["user", "mnt", "pid"] };
    assert_eq!(lists(ctx, &format!("run{}", join(kinds))), "\n");
    assert_eq!(lists(ctx, &format!("run{} --fd 9", join(kinds))), "9 \n");
    let kinds: &[&str] = if ctx.root() { &["net"] } else { &["user", "net"] };
    let wanted = if ctx.root() { "7 9 \n" } else { "\n" };
    assert_eq!(lists(ctx, &format!("run{}", join(kinds))), wanted);
    live.end();
}

fn plain_run_passes_descriptors_on(ctx: &Ctx) {
    assert_eq!(lists(ctx, "run"), "7 9 \n");
    assert_eq!(lists(ctx, "run --fd 7"), "7 \n");
    // Through a new user namespace. With mapping tools the tools get none of the descriptors.
    assert_eq!(lists(ctx, "run -r --fd 9"), "9 \n");
}

/// Returns whether the command of `nsexec ARGS…` leads a session.
fn leads(ctx: &Ctx, args: &[&str]) -> bool {
    let script = "import os; print(os.getsid(0) == os.getpid())";
    let text = ctx.nsexec([args, &["--", PYTHON, "-I", "-S", "-c", script]].concat()).ok();
    text == "True\n"
}

fn lesser_privilege_means_a_session_of_its_own(ctx: &Ctx) {
    let live = sleeper(ctx, &["-r", "-n"]);
    let pid = live.command().to_string();
    assert!(leads(ctx, &["enter", "-t", &pid, "-a"]));
    // With `enter` the privileges of the target process decide, whichever kinds are joined.
    if ctx.root() {
        assert!(leads(ctx, &["enter", "-t", &pid, "-n"]));
        let net = format!("--join=net=/proc/{pid}/ns/net");
        assert!(!leads(ctx, &["run", &net]));
    }
    assert!(!leads(ctx, &["enter", "-t", &pid, "-a", "--same-session"]));
    let user = format!("--join=user=/proc/{pid}/ns/user");
    assert!(leads(ctx, &["run", &user]));
    assert!(!leads(ctx, &["run", &user, "--same-session"]));
    assert!(leads(ctx, &["run", "-r", "--new-session"]));
    let both = ["run", "-r", "--new-session", "--same-session", "--", "true"];
    ctx.nsexec(both).misused(&["--new-session"]);
    live.end();
}

fn equal_privilege_keeps_the_session(ctx: &Ctx) {
    let live = sleeper(ctx, &["-n", "-m", "-p"]);
    let pid = live.command().to_string();
    assert!(!leads(ctx, &["enter", "-t", &pid, "-n"]));
    assert!(leads(ctx, &["enter", "-t", &pid, "-n", "--new-session"]));
    live.end();
}

fn lesser_privilege_is_detected_in_the_status(ctx: &Ctx) {
    // no_new_privs; one capability less in the bounding set; another user.
    for lessen in ["l.prctl(38, 1, 0, 0, 0)", "l.prctl(24, 25, 0, 0, 0)", "os.setuid(30000)"] {
        let script = format!(
            "import ctypes, os, time; l = ctypes.CDLL(None); {lessen}; print('on', flush=True); time.sleep(100)"
        );
        let live = ctx.nsexec(["run", "-n", "--", PYTHON, "-I", "-S", "-c", &script]).start().says("on");
        let pid = live.command().to_string();
        assert!(leads(ctx, &["enter", "-t", &pid, "-n"]), "{lessen}");
        live.end();
    }
}

fn the_environment_is_cleared_and_set(ctx: &Ctx) {
    let live = sleeper(ctx, &["-r", "-n"]);
    let pid = live.command().to_string();
    let env = |flags: &[&str]| {
        let args = [&["enter", "-t", &pid, "-a"], flags, &["--", "env"]].concat();
        let mut cmd = ctx.nsexec(args);
        cmd.command.env_clear().env("PATH", "/bin:/usr/bin").env("TERM", "dumb").env("SECRET", "1");
        let text = cmd.ok();
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines.join(" ")
    };
    assert_eq!(env(&[]), "PATH=/bin:/usr/bin SECRET=1 TERM=dumb");
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(env(&["--clear-env"]), format!("{path} TERM=dumb"));
    assert_eq!(env(&["--set-env", "A=b=c", "--clear-env", "--set-env=TERM="]), format!("A=b=c {path} TERM="));
    live.end();
    let run = ctx.nsexec(["run", "--clear-env", "--set-env", "A=1", "--", "sh", "-c", "echo $A$HOME"]);
    assert_eq!(run.env("HOME", "/home").ok(), "1\n");
}

/// In a new pid namespace with the old /proc, the pid in `$!` belongs to another process there.
fn pid_of_our_namespace_is_entered_with_a_stale_proc(ctx: &Ctx) {
    let bin = ctx.bin.display();
    let script = format!(
        "unshare -n sh -c 'readlink /proc/self/ns/net; echo on >on; exec sleep 100' &
        until test -e on; do sleep 0.01; done
        test -e /proc/$!/comm && test $(readlink /proc/self) != $$ && echo another $!
        {bin} enter -t $! -n -- readlink /proc/self/ns/net
        {bin} enter -t 99999 -n -- echo it ran
        kill $!"
    );
    let outer: &[&str] = if ctx.root() { &["run", "-p"] } else { &["run", "-r", "-p"] };
    let done = ctx.nsexec([outer, &["--", "sh", "-c", &script]].concat()).done();
    done.exits(0);
    let text = done.text();
    let lines: Vec<_> = text.lines().collect();
    let [theirs, entered] = [lines.first(), lines.last()].map(|line| *line.unwrap());
    assert!(theirs.starts_with("net:[") && theirs == entered, "{text}{}", done.err);
    assert_eq!(
        done.err,
        "nsexec: failed to enter process 99999: No such process (it has ended, or is hidden from us: if /proc is mounted \
         with hidepid, run as root or in the group of its option gid=)\n"
    );
}

/// The /proc of a pid namespace below ours: its process 1 is the container's, and it does not show our
/// process.
fn proc_that_does_not_show_nsexec_is_refused(ctx: &Ctx) {
    let live = sleeper(ctx, &["-m", "-p", "-n", "--mount-proc"]);
    let (bin, pid) = (ctx.bin.to_str().unwrap(), live.command().to_string());
    let inner = [bin, "enter", "-t", "1", "-n", "--", "echo", "it ran"];
    let args = [&["enter", "-t", &pid, "-m", "--"], &inner[..]].concat();
    ctx.nsexec(args).refused(1, &["enter process 1", "there is no /proc/self", "another pid namespace"]);
    live.end();
}
