//! `run` without `--fork` becomes the command, as unshare(1) does.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;

use nsexec::launch::exit_code;

use crate::harness::{BOTH, Test, children, test};
use crate::kit::{Ctx, differ, namespaces};

pub(crate) const TESTS: &[Test] = &[
    test!(the_started_process_is_the_command, BOTH),
    test!(the_last_pid_of_the_shell_names_the_namespaces, BOTH),
    test!(with_fork_or_a_pid_namespace_the_command_is_a_child, BOTH),
    test!(the_command_has_no_child_of_the_launch, BOTH),
    test!(script_without_an_interpreter_runs_in_the_shell, BOTH),
    test!(refused_commands_at_relative_paths_and_below_a_root_are_planned, BOTH),
    test!(missing_commands_have_the_status_of_a_shell, BOTH),
];

fn the_started_process_is_the_command(ctx: &Ctx) {
    let live =
        ctx.nsexec(["run", "-r", "-n", "--", "sh", "-c", "echo $$; exec sleep 100"]).start().says("\n");
    assert_eq!(live.text().trim(), live.pid().to_string());
    assert_eq!(differ(&namespaces("self"), &namespaces(live.pid())), ["user", "net"]);
    live.end();
}

/// The field check: `nsexec run … & nsenter -t $! …` sees the new network.
fn the_last_pid_of_the_shell_names_the_namespaces(ctx: &Ctx) {
    ctx.needs("nsenter");
    let (new, by_nsenter, by_nsexec) = match ctx.root() {
        true => ("-n", "-n", "-n"),
        false => ("-r -n", "-U -n --preserve-credentials", "-U -n"),
    };
    let wait = "until grep -qx sleep /proc/$!/comm; do sleep 0.01; done";
    let by_nsenter = format!("nsenter -t $! {by_nsenter} cat /proc/net/dev | grep -c :");
    let by_nsexec = format!("$N enter -t $! {by_nsexec} -- cat /proc/net/dev | grep -c :");
    let script = format!(
        "$N run {new} -- sleep 100 & {wait}; {by_nsenter}; {by_nsexec}; kill $!; wait $! 2>/dev/null; echo $?"
    );
    let text = ctx.cmd("sh", ["-c", &script]).env("N", &ctx.bin).ok();
    assert_eq!(text, "1\n1\n143\n");
}

fn with_fork_or_a_pid_namespace_the_command_is_a_child(ctx: &Ctx) {
    for flags in [&["-f", "-r", "-n"][..], &["-r", "-p"]] {
        let args = [&["run"], flags, &["--", "sh", "-c", "echo on; exec sleep 100"]].concat();
        let live = ctx.nsexec(args).start().says("on");
        assert_eq!(children(live.pid()).len(), 1, "{flags:?}");
        live.end();
    }
}

fn the_command_has_no_child_of_the_launch(ctx: &Ctx) {
    let live = ctx.nsexec(["run", "-r", "-n", "-m", "--", "sleep", "100"]).start();
    crate::kit::until("sleep runs", || {
        fs::read_to_string(format!("/proc/{}/comm", live.pid())).is_ok_and(|name| name == "sleep\n")
    });
    assert_eq!(children(live.pid()), [0_i32; 0]);
    live.end();
}

fn script_without_an_interpreter_runs_in_the_shell(ctx: &Ctx) {
    let script = ctx.file("script");
    fs::write(&script, "echo \"$0 $# $2\"; exit 5\n").unwrap();
    fs::set_permissions(&script, Permissions::from_mode(0o755)).unwrap();
    let path = script.to_str().unwrap();
    let live = ctx.nsexec(["run", "-r", "-m", "--", "sleep", "100"]).start();
    let pid = live.pid().to_string();
    for start in [&["run", "-r", "-n"][..], &["run"], &["run", "-f", "-r"], &["enter", "-t", &pid, "-a"]] {
        let done = ctx.nsexec([start, &["--", path, "1", "a b"]].concat()).done();
        assert_eq!(
            (exit_code(done.status), done.text()),
            (5, format!("{path} 2 a b\n")),
            "{start:?}: {}",
            done.err
        );
        let trace = [&["trace"], &start[usize::from(start[0] == "run")..], &["--", path]].concat();
        let done = ctx.nsexec(trace).done();
        assert!(exit_code(done.status) == 5 && done.err.contains("as planned"), "{start:?}: {}", done.err);
    }
    live.end();
    let plan = ctx.nsexec(["plan", "-r", "-n", "--", path]).ok();
    let shell = r#"execve("/bin/sh", ["/bin/sh", "/"#;
    assert!(plan.contains("ENOEXEC") && plan.contains(shell), "{plan}");
}

/// The plan knew refused files only by absolute paths of the caller's root directory.
fn refused_commands_at_relative_paths_and_below_a_root_are_planned(ctx: &Ctx) {
    let top = ctx.file("top");
    for folder in ["dir", "root/s"] {
        fs::create_dir_all(top.join(folder)).unwrap();
    }
    for (file, mode) in [("script", 0o755), ("closed", 0o644), ("root/s/closed", 0o644)] {
        fs::write(top.join(file), "exit 5\n").unwrap();
        fs::set_permissions(top.join(file), Permissions::from_mode(mode)).unwrap();
    }
    for (status, line) in [
        (5, "-- ./script"),
        (5, "-- dir/../script"),
        (126, "-- ./closed"),
        (126, "-- ./dir"),
        (126, "-- ./script/x"),
        (126, "-R root -- /s/closed"),
        (126, "-R root -- /s"),
        (127, "-R root -- /s/missing"),
    ] {
        let script = format!("cd {} && $N trace -r {line}", top.display());
        let done = ctx.cmd("sh", ["-c", &script]).env("N", &ctx.bin).done();
        assert!(exit_code(done.status) == status && done.err.contains("as planned"), "{line}: {}", done.err);
    }
}

fn missing_commands_have_the_status_of_a_shell(ctx: &Ctx) {
    ctx.nsexec(["run", "-r", "-n", "--", "no-such-command"])
        .refused(127, &["failed to execute no-such-command"]);
    ctx.nsexec(["run", "-r", "-n", "--", "/proc/version"]).refused(126, &["failed to execute /proc/version"]);
}
