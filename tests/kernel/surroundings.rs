//! The attributes of a command besides its namespaces: oom score, signals, files, arguments. All are
//! inherited from the caller, unless a flag sets them.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::harness::{BOTH, Test, test};
use crate::kit::{Ctx, PYTHON};

pub(crate) const TESTS: &[Test] = &[
    test!(a_higher_oom_score, BOTH),
    test!(a_lower_oom_score, BOTH),
    test!(without_a_flag_the_oom_score_is_inherited, BOTH),
    test!(sigchld_ignored_by_the_caller, BOTH),
    test!(sigchld_ignored_and_a_mapping_tool, BOTH),
    test!(dispositions_are_inherited, BOTH),
    test!(signal_mask_is_inherited, BOTH),
    test!(umask_and_working_directory, BOTH),
    test!(environment_and_arguments, BOTH),
    test!(input_output_and_errors, BOTH),
    test!(descriptors_above_2_are_inherited, BOTH),
    test!(command_gets_no_descriptor_of_the_launcher, BOTH),
    test!(session_and_process_group_are_inherited, BOTH),
    test!(a_name_is_searched_in_the_path, BOTH),
    test!(a_closed_standard_input, BOTH),
    test!(dumpable_and_parent_death_signal, BOTH),
];

fn score(ctx: &Ctx, flags: &[&str]) -> i32 {
    let args = flags.iter().chain(&["--", "cat", "/proc/self/oom_score_adj"]);
    ctx.run(args).ok().trim().parse().unwrap()
}

fn a_higher_oom_score(ctx: &Ctx) {
    assert_eq!(score(ctx, &["--oom-score-adj", "500", "-u"]), 500);
    assert_eq!(score(ctx, &["--oom-score-adj=1000", "--all"]), 1000);
}

fn a_lower_oom_score(ctx: &Ctx) {
    // A score below the inherited one needs CAP_SYS_RESOURCE, which root may lack, for example in a
    // container.
    let may = ctx.cmd("sh", ["-c", "echo -1 > /proc/self/oom_score_adj"]).done().status.success();
    if may {
        assert_eq!(score(ctx, &["--oom-score-adj", "-500", "-u"]), -500);
    } else {
        let args = ["--oom-score-adj", "-500", "-u", "--", "echo", "it ran"];
        ctx.run(args).refused(1, &["oom_score_adj", "Permission denied", "CAP_SYS_RESOURCE"]);
    }
    ctx.run(["--oom-score-adj", "1001", "-u", "--", "echo", "it ran"]).misused(&["--oom-score-adj", "1001"]);
}

fn without_a_flag_the_oom_score_is_inherited(ctx: &Ctx) {
    let bin = ctx.bin.display();
    let own = if ctx.root() { "-u" } else { "-r" };
    let script =
        format!("echo 321 > /proc/self/oom_score_adj; exec {bin} run {own} -- cat /proc/self/oom_score_adj");
    assert_eq!(ctx.cmd("sh", ["-c", &script]).ok(), "321\n");
}

/// Runs `nsexec ARGS…` from Python code, after `before` has changed the signal state.
fn after(ctx: &Ctx, before: &str, args: &[&str]) -> String {
    let mut words = vec![ctx.bin.to_str().unwrap(), "run"];
    if !ctx.root() {
        words.push("-r");
    }
    words.extend(args);
    ctx.python(&format!("import os, signal\n{before}\nos.execv({:?}, {words:?})", words[0])).ok()
}

fn status_line<'t>(text: &'t str, key: &str) -> &'t str {
    text.lines()
        .find_map(|line| line.strip_prefix(key))
        .unwrap_or_else(|| panic!("no {key} in {text}"))
        .trim()
}

const SIGCHLD: u64 = 1 << 16;

/// Returns the ignored signals, without 32 and 33. glibc reserves these, and its posix_spawn, which starts
/// the program, leaves them ignored.
fn ignored(text: &str) -> u64 {
    u64::from_str_radix(status_line(text, "SigIgn:"), 16).unwrap() & !(3 << 31)
}

const DEFAULTS: &str = "for s in (signal.SIGPIPE, signal.SIGXFSZ): signal.signal(s, signal.SIG_DFL)";

fn sigchld_ignored_by_the_caller(ctx: &Ctx) {
    let before = format!("{DEFAULTS}\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)");
    for flags in [&["--all", "--mount-proc"][..], &["-u"]] {
        let text = after(ctx, &before, &[flags, &["--", "cat", "/proc/self/status"]].concat());
        assert_eq!(ignored(&text), SIGCHLD, "SIGCHLD alone");
    }
}

/// With SIGCHLD ignored, a wait for newuidmap would fail with ECHILD (wait(2)). Only the ordinary user needs
/// the tool.
fn sigchld_ignored_and_a_mapping_tool(ctx: &Ctx) {
    let (first, _) = crate::kit::subordinate(ctx);
    let line = format!("1:{first}:5");
    let before = "signal.signal(signal.SIGCHLD, signal.SIG_IGN)";
    // Without a shell, which would change the disposition of SIGCHLD.
    let args = ["run", "-r", "--map-users", &line, "--", "cat", "/proc/self/uid_map", "/proc/self/status"];
    let bin = ctx.bin.to_str().unwrap();
    let words = [&[bin], &args[..]].concat();
    let text =
        ctx.python(&format!("import os, signal\n{DEFAULTS}\n{before}\nos.execv({bin:?}, {words:?})")).ok();
    assert!(text.lines().nth(1).unwrap().split_whitespace().eq(["1", &first.to_string(), "5"]), "{text}");
    assert_eq!(ignored(&text), SIGCHLD);
}

fn dispositions_are_inherited(ctx: &Ctx) {
    let (all, show) = (
        "signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}",
        ["-u", "--", "cat", "/proc/self/status"],
    );
    let set = |to: &str| format!("for s in {all}: signal.signal(s, signal.{to})");
    let text = after(ctx, &set("SIG_IGN"), &show);
    // All but KILL and STOP. Also SIGPIPE, although Rust's runtime ignores it in every program.
    assert_eq!(ignored(&text), 0xffff_fffe_7ffb_feff, "all are ignored");
    let text = after(ctx, &set("SIG_DFL"), &show);
    assert_eq!(ignored(&text), 0, "none is ignored");
    assert_eq!(status_line(&text, "SigBlk:"), "0000000000000000");
}

fn signal_mask_is_inherited(ctx: &Ctx) {
    let block = |set: &str| format!("signal.pthread_sigmask(signal.SIG_SETMASK, {set})");
    let set = "{signal.SIGTERM, signal.SIGUSR1, signal.SIGCHLD, signal.SIGPIPE}";
    let text = after(ctx, &block(set), &["-u", "--", "cat", "/proc/self/status"]);
    assert_eq!(status_line(&text, "SigBlk:"), "0000000000015200");
    let text = after(ctx, &block("set()"), &["-u", "--", "cat", "/proc/self/status"]);
    assert_eq!(status_line(&text, "SigBlk:"), "0000000000000000");
}

fn umask_and_working_directory(ctx: &Ctx) {
    let bin = ctx.bin.display();
    let folder = ctx.file("here");
    fs::create_dir(&folder).unwrap();
    let script = format!("umask 0127; cd {}; exec {bin} run -- sh -c 'umask; pwd; >made'", folder.display());
    assert_eq!(ctx.cmd("sh", ["-c", &script]).ok(), format!("0127\n{}\n", folder.display()));
    assert_eq!(fs::metadata(folder.join("made")).unwrap().permissions().mode() & 0o777, 0o640);
}

fn environment_and_arguments(ctx: &Ctx) {
    let words = ["", " ", "a b", "-x", "--", "*", "$HOME", "'\"", "\n", "\\", "--all", "ü\u{10ffff}"];
    let script = "import os, sys; print(sys.argv[1:]); print(sorted(k for k in os.environ if k not in ('PATH', 'LC_ALL'))); print(os.environb[b'ODD'], os.environ['EMPTY'] == '')";
    let args = [&["run", "--", PYTHON, "-I", "-S", "-c", script][..], &words].concat();
    let mut cmd = ctx.nsexec(args);
    cmd.command.env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C.UTF-8");
    let odd = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"a=\xff\x01 b");
    let inside = cmd.env("ODD", odd).env("EMPTY", "").ok();
    let outside = ctx
        .cmd(PYTHON, ["-I", "-S", "-c", script].iter().chain(&words))
        .env("ODD", odd)
        .env("EMPTY", "")
        .env("LC_ALL", "C.UTF-8")
        .ok();
    assert_eq!(inside.lines().next(), outside.lines().next(), "arguments");
    assert_eq!(inside.lines().nth(1), Some("['EMPTY', 'ODD']"), "no variable of ours");
    assert_eq!(inside.lines().nth(2), outside.lines().nth(2));
}

fn input_output_and_errors(ctx: &Ctx) {
    let done =
        ctx.nsexec(["run", "--", "sh", "-c", "cat; echo complaint >&2"]).input(b"from outside\0\xff").done();
    done.exits(0);
    assert_eq!((done.out.as_slice(), done.err.as_str()), (&b"from outside\0\xff"[..], "complaint\n"));
    // Through pipes, which no process holds open afterwards.
    let script = format!("seq 20000 | {} run -- sort -n | tail -n 1", ctx.bin.display());
    assert_eq!(ctx.cmd("sh", ["-c", &script]).ok(), "20000\n");
    // The reader exits early: the command gets SIGPIPE, as it would without nsexec.
    let script = format!("{{ {} run -r -- yes; echo $? >&2; }} | head -n 1", ctx.bin.display());
    let done = ctx.cmd("sh", ["-c", &script]).done();
    assert_eq!((done.text().as_str(), done.err.as_str()), ("y\n", "141\n"));
}

fn descriptors_above_2_are_inherited(ctx: &Ctx) {
    let file = ctx.file("text");
    fs::write(&file, "through seven\n").unwrap();
    let (bin, file) = (ctx.bin.display(), file.display());
    let script = format!("exec 7<{file} 9>>{file}; {bin} run -- sh -c 'cat <&7; echo nine >&9'; cat {file}");
    assert_eq!(ctx.cmd("sh", ["-c", &script]).ok(), "through seven\nthrough seven\nnine\n");
}

/// A command has the same descriptors as without nsexec.
fn command_gets_no_descriptor_of_the_launcher(ctx: &Ctx) {
    let ours = ctx.cmd("ls", ["/proc/self/fd"]).ok();
    for flags in [&[][..], &["-r"], &["-r", "-T", "--boottime", "5", "-m"]] {
        let args = [&["run"], flags, &["--", "ls", "/proc/self/fd"]].concat();
        assert_eq!(ctx.nsexec(args).ok(), ours, "{flags:?}");
    }
    let live = crate::joins::sleeper(ctx, &["-r"]);
    let pid = live.command().to_string();
    // `enter` passes only descriptors 0 to 2 on; 3 belongs to ls.
    assert_eq!(ctx.nsexec(["enter", "-t", &pid, "-a", "--", "ls", "/proc/self/fd"]).ok(), "0\n1\n2\n3\n");
    assert_eq!(
        ctx.nsexec(["enter", "-t", &pid, "-a", "--fd", "all", "--", "ls", "/proc/self/fd"]).ok(),
        ours
    );
    live.end();
}

fn session_and_process_group_are_inherited(ctx: &Ctx) {
    let script = "import os; print(os.getsid(0), os.getpgrp())";
    let outside = ctx.python(script).ok();
    let inside = ctx.run(["-u", "--", PYTHON, "-I", "-S", "-c", script]).ok();
    assert_eq!(inside, outside);
}

fn a_name_is_searched_in_the_path(ctx: &Ctx) {
    let [first, second] = ["first", "second"].map(|name| ctx.file(name));
    for folder in [&first, &second] {
        fs::create_dir(folder).unwrap();
        let tool = folder.join("tool");
        fs::write(&tool, "#!/bin/sh\necho $0\n").unwrap();
        fs::set_permissions(&tool, PermissionsExt::from_mode(0o755)).unwrap();
    }
    let path = format!("/nonexistent:{}:{}:/bin", first.display(), second.display());
    let run = || ctx.nsexec(["run", "--", "tool"]).env("PATH", &path).ok();
    assert_eq!(run(), format!("{}/tool\n", first.display()));
    // A file that cannot be executed is skipped, as by execvp(3).
    fs::set_permissions(first.join("tool"), PermissionsExt::from_mode(0o644)).unwrap();
    assert_eq!(run(), format!("{}/tool\n", second.display()));
    let mut cmd = ctx.nsexec(["run", "--", "./tool"]);
    cmd.command.current_dir(&second);
    assert_eq!(cmd.ok(), "./tool\n");
}

/// The launcher's pipes must not get the numbers of closed descriptors 0 to 2.
fn a_closed_standard_input(ctx: &Ctx) {
    let bin = ctx.bin.display();
    let done = ctx.cmd("sh", ["-c", &format!("exec {bin} run -- sh -c 'echo ran' <&-")]).done();
    assert_eq!((done.status.code(), done.text().as_str(), done.err.as_str()), (Some(0), "ran\n", ""));
    let file = ctx.file("made");
    let script = format!("exec {bin} run -- sh -c 'echo ran > {}' <&- >&- 2>&-", file.display());
    ctx.cmd("sh", ["-c", &script]).done().exits(0);
    assert_eq!(fs::read_to_string(file).unwrap(), "ran\n");
}

fn dumpable_and_parent_death_signal(ctx: &Ctx) {
    let script = "import ctypes; l = ctypes.CDLL(None); s = ctypes.c_int(-1); l.prctl(2, ctypes.byref(s)); print(l.prctl(3), s.value)";
    let run = |flags: &[&str]| ctx.run(flags.iter().chain(&["--", PYTHON, "-I", "-S", "-c", script])).ok();
    assert_eq!(run(&["-u"]), "1 0\n");
    assert_eq!(run(&["-u", "--kill-child"]), "1 9\n");
}
