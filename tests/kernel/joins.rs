//! `--join`: namespaces of running processes, including those that the joined user namespace does not own;
//! and paths that are not namespaces.

use std::fs;
use std::path::Path;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::harness::{BOTH, ROOT, Test, USER, test};
use crate::kit::{Ctx, KINDS, LINKS, Live, differ, namespaces};

pub(crate) const TESTS: &[Test] = &[
    test!(all_eight_namespaces_of_nsexec_run, BOTH),
    test!(all_eight_namespaces_of_unshare, ROOT),
    test!(each_kind_alone, ROOT),
    test!(each_kind_with_its_user_namespace, BOTH),
    test!(namespaces_owned_by_the_host, ROOT),
    test!(namespaces_owned_by_a_nested_user_namespace, BOTH),
    test!(namespaces_of_all_three_join_passes, ROOT),
    test!(joined_and_created_together, BOTH),
    test!(a_bind_mounted_namespace, ROOT),
    test!(root_inside_after_the_join, BOTH),
    test!(host_groups_are_dropped_after_a_join, ROOT),
    test!(a_missing_path, BOTH),
    test!(a_path_that_is_not_a_namespace, BOTH),
    test!(fifo_is_refused_without_blocking, BOTH),
    test!(a_namespace_of_another_kind, BOTH),
    test!(nothing_is_joined_if_one_path_is_bad, ROOT),
    test!(namespace_of_another_user_is_refused, USER),
    test!(join_of_the_own_user_namespace_fails, BOTH),
    test!(a_kind_cannot_be_both_joined_and_created, BOTH),
];

const SLEEP: [&str; 3] = ["sh", "-c", "echo on; exec sleep 100"];

/// Starts a sleeper in new namespaces.
pub(crate) fn sleeper(ctx: &Ctx, flags: &[&str]) -> Live {
    let args = [&["run"], flags, &["--"], &SLEEP].concat();
    ctx.nsexec(args).start().says("on")
}

/// Returns `--join KIND=/proc/PID/ns/KIND` for each kind.
fn joins(pid: i32, kinds: &[&str]) -> Vec<String> {
    kinds.iter().flat_map(|kind| ["--join".to_owned(), format!("{kind}=/proc/{pid}/ns/{kind}")]).collect()
}

/// Starts a sleeper with `args`, and returns its namespaces.
#[track_caller]
fn lives_in(ctx: &Ctx, args: &[String]) -> Vec<(&'static str, (u64, u64))> {
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    let args = [&["run"], &args[..], &["--"], &SLEEP].concat();
    let live = ctx.nsexec(args).start().says("on");
    let found = namespaces(live.command());
    live.end();
    found
}

/// Returns the links of these kinds.
fn links(kinds: &[&str]) -> Vec<&'static str> {
    LINKS.into_iter().filter(|link| kinds.contains(&link.trim_end_matches("_for_children"))).collect()
}

fn pick(all: &[(&'static str, (u64, u64))], kinds: &[&str]) -> Vec<(&'static str, (u64, u64))> {
    all.iter().filter(|(link, _)| links(kinds).contains(link)).copied().collect()
}

/// Joins `kinds` of `pid`. These namespaces must be those of `pid`, and all others ours.
#[track_caller]
fn check(ctx: &Ctx, pid: i32, kinds: &[&str]) {
    let found = lives_in(ctx, &joins(pid, kinds));
    assert_eq!(pick(&found, kinds), pick(&namespaces(pid), kinds), "{kinds:?}");
    assert_eq!(differ(&namespaces("self"), &found), links(kinds), "{kinds:?}");
}

fn all_eight_namespaces_of_nsexec_run(ctx: &Ctx) {
    let live = sleeper(ctx, &["--all"]);
    check(ctx, live.command(), &KINDS.map(|(kind, _)| kind));
    live.end();
    // A plain `run` also mounts a /proc of its own.
    let live = sleeper(ctx, &[]);
    check(ctx, live.command(), &KINDS.map(|(kind, _)| kind));
    live.end();
}

fn all_eight_namespaces_of_unshare(ctx: &Ctx) {
    ctx.needs("unshare");
    let flags = ["-UrmpniuCT", "--fork", "--kill-child", "--mount-proc"];
    let unshare = ctx.cmd("unshare", flags.iter().chain(&SLEEP)).start().says("on");
    check(ctx, unshare.command(), &KINDS.map(|(kind, _)| kind));
    unshare.kill_command();
}

fn each_kind_alone(ctx: &Ctx) {
    let live = sleeper(ctx, &["--all"]);
    for (kind, _) in KINDS {
        check(ctx, live.command(), &[kind]);
    }
    live.end();
}

fn each_kind_with_its_user_namespace(ctx: &Ctx) {
    let live = sleeper(ctx, &["--all"]);
    for (kind, _) in &KINDS[1..] {
        check(ctx, live.command(), &[kind, "user"]);
    }
    live.end();
}

/// The first pass: namespaces that only the host's root may join are joined before the user namespace.
fn namespaces_owned_by_the_host(ctx: &Ctx) {
    let (user, other) =
        (sleeper(ctx, &["-U", "-r"]), sleeper(ctx, &["-n", "-u", "-i", "-C", "-m", "-p", "-T"]));
    let others: Vec<_> = KINDS[1..].iter().map(|(kind, _)| *kind).collect();
    let args = [joins(user.command(), &["user"]), joins(other.command(), &others)].concat();
    let found = lives_in(ctx, &args);
    assert_eq!(pick(&found, &["user"]), pick(&namespaces(user.command()), &["user"]));
    assert_eq!(pick(&found, &others), pick(&namespaces(other.command()), &others));
    user.end();
    other.end();
}

/// A user namespace, and a network namespace of a nested user namespace. The latter is joined in the third
/// pass, with the privileges of the second.
fn namespaces_owned_by_a_nested_user_namespace(ctx: &Ctx) {
    let bin = ctx.bin.to_str().unwrap();
    let args = [&["run", "-f", "-r", "--", bin, "run", "-f", "-r", "-n", "-u", "--"][..], &SLEEP].concat();
    let outer = ctx.nsexec(args).start().says("on");
    let middle = outer.command();
    let inner = crate::harness::children(middle)[0];
    let args = [joins(middle, &["user"]), joins(inner, &["net", "uts"])].concat();
    let found = lives_in(ctx, &args);
    assert_eq!(pick(&found, &["user"]), pick(&namespaces(middle), &["user"]));
    assert_eq!(pick(&found, &["net", "uts"]), pick(&namespaces(inner), &["net", "uts"]));
    assert_ne!(pick(&found, &["user"]), pick(&namespaces(inner), &["user"]));
    outer.end();
}

fn namespaces_of_all_three_join_passes(ctx: &Ctx) {
    let (a, b, c) = (sleeper(ctx, &["-r", "-u", "-m"]), sleeper(ctx, &["-n"]), sleeper(ctx, &["-r", "-i"]));
    let (a_pid, b_pid, c_pid) = (a.command(), b.command(), c.command());
    // The order of the flags must not matter.
    let mut flags = [joins(c_pid, &["ipc"]), joins(a_pid, &["user", "uts", "mnt"]), joins(b_pid, &["net"])];
    for _ in 0..3 {
        flags.rotate_left(1);
        let found = lives_in(ctx, &flags.concat());
        assert_eq!(pick(&found, &["user", "uts", "mnt"]), pick(&namespaces(a_pid), &["user", "uts", "mnt"]));
        assert_eq!(pick(&found, &["net"]), pick(&namespaces(b_pid), &["net"]));
        assert_eq!(pick(&found, &["ipc"]), pick(&namespaces(c_pid), &["ipc"]));
    }
    a.end();
    b.end();
    c.end();
}

fn joined_and_created_together(ctx: &Ctx) {
    let live = sleeper(ctx, &["-r", "-n"]);
    let pid = live.command();
    let mut args = joins(pid, &["user", "net"]);
    args.push("-up".to_owned());
    let found = lives_in(ctx, &args);
    assert_eq!(pick(&found, &["user", "net"]), pick(&namespaces(pid), &["user", "net"]));
    assert_eq!(differ(&namespaces(pid), &found), links(&["uts", "pid"]));
    // All other kinds are created.
    let mut args = joins(pid, &["user", "net"]);
    args.push("--all".to_owned());
    let found = lives_in(ctx, &args);
    assert_eq!(differ(&namespaces(pid), &found), links(&["mnt", "pid", "ipc", "uts", "cgroup", "time"]));
    live.end();
}

fn a_bind_mounted_namespace(ctx: &Ctx) {
    let (file, live) = (ctx.file("blue"), sleeper(ctx, &["-n"]));
    fs::write(&file, "").unwrap();
    let pid = live.command();
    let theirs = pick(&namespaces(pid), &["net"]);
    let file = file.to_str().unwrap();
    ctx.cmd("mount", ["--bind", &format!("/proc/{pid}/ns/net"), file]).ok();
    live.end();
    let found = lives_in(ctx, &["--join".to_owned(), format!("net={file}")]);
    ctx.cmd("umount", [file]).ok();
    assert_eq!(pick(&found, &["net"]), theirs);
}

fn root_inside_after_the_join(ctx: &Ctx) {
    let live = sleeper(ctx, &["-r"]);
    let mut args = vec!["run".to_owned()];
    args.extend(joins(live.command(), &["user"]));
    args.extend(["--", "sh", "-c", "id -u; grep CapEff /proc/self/status"].map(str::to_owned));
    let text = ctx.nsexec(args).ok();
    let words: Vec<_> = text.split_whitespace().collect();
    assert_eq!(words[0], "0");
    assert_ne!(u64::from_str_radix(words[2], 16).unwrap() & (1 << 21), 0, "CAP_SYS_ADMIN in {text}");
    live.end();
}

#[track_caller]
fn refused(ctx: &Ctx, kind: &str, path: &Path, words: &[&str]) {
    let join = format!("{kind}={}", path.display());
    let words = [words, &[path.to_str().unwrap()]].concat();
    ctx.nsexec(["run", "--join", &join, "--", "echo", "it ran"]).refused(1, &words);
}

fn host_groups_are_dropped_after_a_join(ctx: &Ctx) {
    ctx.needs("setpriv");
    let live = sleeper(ctx, &["--map-users", "0:30000:10", "--map-groups", "0:30000:10"]);
    let join = format!("user=/proc/{}/ns/user", live.command());
    let bin = ctx.bin.to_str().expect("UTF-8");
    let groups = ["--groups", "24,30003", bin];
    let run = ["run", "--join", &join, "--", "grep", "^Groups:", "/proc/self/status"];
    let text = ctx.cmd("setpriv", [&groups[..], &run].concat()).ok();
    assert_eq!(text.trim(), "Groups:");
    live.end();
}

fn a_missing_path(ctx: &Ctx) {
    for kind in ["net", "user", "mnt"] {
        refused(ctx, kind, &ctx.file("missing"), &["No such file or directory"]);
    }
}

fn a_path_that_is_not_a_namespace(ctx: &Ctx) {
    for path in ["/proc/self/status", "/dev/null", "/tmp", "/etc/passwd", "/proc/self/exe"] {
        refused(ctx, "net", Path::new(path), &["namespace"]);
    }
}

/// A FIFO must not block the open. The open(2) of runc's stage 1 blocks for ever: see
/// docs/protocol.md#weaknesses-of-the-c-code.
fn fifo_is_refused_without_blocking(ctx: &Ctx) {
    let path = ctx.file("fifo");
    mkfifo(&path, Mode::from_bits_truncate(0o666)).unwrap();
    refused(ctx, "net", &path, &["namespace"]);
    // The same if another process holds the other end open.
    let writer = ctx.cmd("sh", ["-c", &format!("exec sleep 100 <>{}", path.display())]).start();
    refused(ctx, "uts", &path, &["namespace"]);
    drop(writer);
}

fn a_namespace_of_another_kind(ctx: &Ctx) {
    let live = sleeper(ctx, &["-r", "-u"]);
    let pid = live.command();
    let mut args = vec!["run".to_owned()];
    args.extend(joins(pid, &["user"]));
    let path = format!("/proc/{pid}/ns/uts");
    args.extend(["--join", &format!("net={path}"), "--", "echo", "it ran"].map(str::to_owned));
    ctx.nsexec(args).refused(1, &[&path, "net", "Invalid argument"]);
    live.end();
}

fn nothing_is_joined_if_one_path_is_bad(ctx: &Ctx) {
    ctx.needs("strace");
    let live = sleeper(ctx, &["-n"]);
    let (pid, trace) = (live.command(), ctx.file("trace"));
    for bad in ["uts=/nonexistent", "uts=/dev/null"] {
        let net = format!("net=/proc/{pid}/ns/net");
        let trace_to = ["-f", "-qq", "-o", trace.to_str().unwrap(), "-e", "trace=setns,unshare,exit_group"];
        let run =
            [ctx.bin.to_str().unwrap(), "run", "--join", &net, "--join", bad, "-i", "--", "echo", "it ran"];
        let args = [&trace_to[..], &run].concat();
        ctx.cmd("strace", args).refused(1, &[&bad[4..]]);
        let text = fs::read_to_string(&trace).unwrap();
        assert!(text.contains("exit_group(1)"), "{text}");
        assert!(!text.contains("setns(") && !text.contains("unshare("), "{text}");
    }
    live.end();
}

fn namespace_of_another_user_is_refused(ctx: &Ctx) {
    refused(ctx, "net", Path::new("/proc/1/ns/net"), &["denied"]);
    let own = Path::new("/proc/self/ns/net");
    refused(ctx, "net", own, &["Operation not permitted", "net"]);
}

fn join_of_the_own_user_namespace_fails(ctx: &Ctx) {
    refused(ctx, "user", Path::new("/proc/self/ns/user"), &["user", "Invalid argument"]);
}

fn a_kind_cannot_be_both_joined_and_created(ctx: &Ctx) {
    let args = ["run", "--net", "--join", "net=/proc/self/ns/net", "--", "echo", "it ran"];
    ctx.nsexec(args).misused(&["--net", "--join"]);
    let args =
        ["run", "--join", "net=/proc/self/ns/net", "--join", "net=/proc/1/ns/net", "--", "echo", "it ran"];
    ctx.nsexec(args).misused(&["--join", "net"]);
}
