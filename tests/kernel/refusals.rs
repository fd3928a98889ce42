//! Launches that must fail. Each writes one line with the failed step, the object, the errno in words and the
//! likely cause, and exits with the right status. The guard checks that no process is left.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::harness::{BOTH, Test, USER, test};
use crate::kit::Ctx;

pub(crate) const TESTS: &[Test] = &[
    test!(wrong_flags, BOTH),
    test!(an_empty_command, BOTH),
    test!(a_user_namespace_without_a_map, BOTH),
    test!(a_command_that_is_not_there, BOTH),
    test!(a_command_that_cannot_be_executed, BOTH),
    test!(a_kind_that_needs_privileges, USER),
    test!(a_kind_that_is_at_its_limit, BOTH),
    test!(a_user_namespace_at_its_limit, BOTH),
    test!(too_many_nested_user_namespaces, BOTH),
    test!(flags_that_need_others, BOTH),
    test!(version_and_help, BOTH),
    test!(a_closed_standard_error, BOTH),
    test!(a_refused_run_leaves_standard_output_alone, BOTH),
    test!(processes_at_their_limit, USER),
];

fn wrong_flags(ctx: &Ctx) {
    ctx.nsexec(["run", "--bogus", "--", "true"]).misused(&["--bogus"]);
    ctx.nsexec(["run", "-z", "--", "true"]).misused(&["-z"]);
    ctx.nsexec(["walk", "--", "true"]).misused(&["walk"]);
    ctx.nsexec(["run", "--oom-score-adj", "high", "--", "true"]).misused(&["--oom-score-adj", "high"]);
    ctx.nsexec(["run", "--monotonic", "1.5", "--", "true"]).misused(&["--monotonic", "1.5"]);
    ctx.nsexec(["run", "--setgroups", "maybe", "-r", "--", "true"]).misused(&["--setgroups", "maybe"]);
    ctx.nsexec(["run", "--join", "net", "--", "true"]).misused(&["--join", "net"]);
    ctx.nsexec(["run", "--join", "bogus=/proc/self/ns/net", "--", "true"]).misused(&["--join", "bogus"]);
    ctx.nsexec(["run", "--join", "net=", "--", "true"]).misused(&["--join"]);
}

fn an_empty_command(ctx: &Ctx) {
    ctx.nsexec(["run", "--", ""]).refused(127, &["No such file or directory"]);
}

fn a_user_namespace_without_a_map(ctx: &Ctx) {
    for flags in [&["-U"][..], &["-U", "-m", "-p"]] {
        let args = ["run"].iter().chain(flags).chain(&["--", "id", "-u"]);
        assert_eq!(ctx.nsexec(args).ok(), "65534\n", "{flags:?}");
    }
}

fn a_command_that_is_not_there(ctx: &Ctx) {
    for flags in [&[][..], &["-r"], &["-r", "-p"]] {
        let run = |name: &str| ctx.nsexec(["run"].iter().chain(flags).chain(&["--", name]));
        run("no-such-command").refused(127, &["no-such-command", "No such file or directory", "PATH"]);
        run("/nonexistent/command").refused(127, &["/nonexistent/command", "No such file or directory"]);
        run("/etc/passwd/command").refused(126, &["/etc/passwd/command", "Not a directory"]);
    }
    let script = ctx.file("script");
    fs::write(&script, "#!/nonexistent/interpreter\n").unwrap();
    fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
    let script = script.to_str().unwrap();
    ctx.nsexec(["run", "--", script]).refused(127, &[script, "No such file or directory"]);
}

fn a_command_that_cannot_be_executed(ctx: &Ctx) {
    let plain = ctx.file("plain");
    fs::write(&plain, "no program\n").unwrap();
    let path = plain.to_str().unwrap();
    ctx.nsexec(["run", "--", path]).refused(126, &[path, "Permission denied"]);
    ctx.nsexec(["run", "--", "/etc"]).refused(126, &["/etc", "Permission denied"]);
    let folder = ctx.dir.to_str().unwrap();
    let search = format!("{folder}:/nonexistent");
    ctx.nsexec(["run", "--", "plain"]).env("PATH", &search).refused(126, &["plain", "Permission denied"]);
    fs::set_permissions(&plain, PermissionsExt::from_mode(0o755)).unwrap();
    // /bin/sh runs the file as a script, and does not find the command `no`.
    ctx.nsexec(["run", "--", path]).refused(127, &[path, "not found"]);
}

fn a_kind_that_needs_privileges(ctx: &Ctx) {
    let names = ["NEWNS", "NEWPID", "NEWNET", "NEWIPC", "NEWUTS", "NEWCGROUP", "NEWTIME"];
    for ((_, flag), name) in crate::kit::KINDS[1..].iter().zip(names) {
        let cmd = ctx.nsexec(["run", flag, "--", "echo", "it ran"]);
        cmd.refused(1, &["unshare", name, "Operation not permitted", "-r"]);
    }
}

/// Runs `nsexec run INNER` after root of a new user namespace has set a limit to 0.
#[track_caller]
fn limited(ctx: &Ctx, limit: &str, inner: &str, words: &[&str]) {
    let script =
        format!("echo 0 > /proc/sys/user/{limit}; exec {} run {inner} -- echo it ran", ctx.bin.display());
    ctx.nsexec(["run", "--", "sh", "-c", &script]).refused(1, words);
}

fn a_kind_that_is_at_its_limit(ctx: &Ctx) {
    let words = ["unshare", "net", "No space left on device", "max_net_namespaces"];
    limited(ctx, "max_net_namespaces", "-n", &words);
    limited(ctx, "max_net_namespaces", "-r -n", &words);
    limited(ctx, "max_net_namespaces", "", &words);
    limited(
        ctx,
        "max_pid_namespaces",
        "-p",
        &["unshare", "pid", "No space left on device", "max_pid_namespaces"],
    );
    limited(
        ctx,
        "max_time_namespaces",
        "-T",
        &["unshare", "time", "No space left on device", "max_time_namespaces"],
    );
}

fn a_user_namespace_at_its_limit(ctx: &Ctx) {
    limited(
        ctx,
        "max_user_namespaces",
        "-r",
        &["unshare", "user", "No space left on device", "max_user_namespaces"],
    );
}

/// User namespaces can be nested to 33 levels, including the host's; pid namespaces not deeper either.
fn too_many_nested_user_namespaces(ctx: &Ctx) {
    let bin = ctx.bin.to_str().unwrap();
    let mut args = vec!["run", "-r"];
    for _ in 0..33 {
        args.extend(["--", bin, "run", "-r"]);
    }
    args.extend(["--", "echo", "it ran"]);
    ctx.nsexec(args).refused(1, &["unshare", "user", "No space left on device", "nested"]);
}

fn flags_that_need_others(ctx: &Ctx) {
    ctx.nsexec(["run", "-u", "--setgroups", "deny", "--", "true"]).misused(&["--setgroups", "-r"]);
    ctx.nsexec(["run", "-r", "--map-users", "1:5:1", "--map-users", "1:6:1", "--", "true"])
        .misused(&["overlap"]);
}

fn version_and_help(ctx: &Ctx) {
    let text = ctx.nsexec(["--version"]).ok();
    let words: Vec<_> = text.split_whitespace().collect();
    assert_eq!(words[..2], ["nsexec", env!("CARGO_PKG_VERSION")]);
    let commit = words[2].trim_matches(['(', ')']);
    assert!(commit.len() >= 7 && commit.bytes().all(|byte| byte.is_ascii_hexdigit()), "the commit in {text}");
    for args in [&["--help"][..], &["run", "--help"], &["enter", "--help"], &["help", "run"]] {
        assert!(ctx.nsexec(args).ok().contains("Usage: nsexec"), "{args:?}");
    }
    let text = ctx.nsexec(["run", "--help"]).ok();
    for (_, flag) in crate::kit::KINDS {
        assert!(text.contains(flag), "{flag}");
    }
}

fn a_closed_standard_error(ctx: &Ctx) {
    let script = format!("exec {} run -- /nonexistent 2>&-", ctx.bin.display());
    ctx.cmd("sh", ["-c", &script]).done().exits(127);
    let script = format!("exec {} run --join net=/nonexistent -- true 2>/dev/full", ctx.bin.display());
    ctx.cmd("sh", ["-c", &script]).done().exits(1);
}

fn a_refused_run_leaves_standard_output_alone(ctx: &Ctx) {
    let file = ctx.file("kept");
    let script = format!(
        "echo before > {0}; {1} run -- /nonexistent >> {0} 2>/dev/null; cat {0}",
        file.display(),
        ctx.bin.display()
    );
    assert_eq!(ctx.cmd("sh", ["-c", &script]).ok(), "before\n");
}

/// RLIMIT_NPROC: the fork of any stage may fail.
fn processes_at_their_limit(ctx: &Ctx) {
    let mut refused = 0;
    // The limit counts all processes of the user, including those of other tests. So some of these launches
    // fail early and some late.
    for limit in 1..12 {
        let script = format!("ulimit -u {limit}; exec {} run -- echo it ran", ctx.bin.display());
        let done = ctx.cmd("bash", ["-c", &script]).done();
        if done.status.code() == Some(0) {
            assert_eq!(done.text(), "it ran\n");
        } else {
            done.refused(1, &["Resource temporarily unavailable"]);
            refused += 1;
        }
    }
    assert!(refused > 0, "no limit was met");
}
