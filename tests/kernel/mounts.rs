//! Mounts inside do not propagate to the caller, even if the caller's mounts are shared (the guard makes all
//! of them shared).

use std::fs;

use crate::harness::{BOTH, ROOT, Test, USER, test};
use crate::kit::{Ctx, until};

pub(crate) const TESTS: &[Test] = &[
    test!(a_shared_mount_of_the_caller_does_not_change, ROOT),
    test!(a_mount_inside_stays_inside, BOTH),
    test!(mount_proc_stays_inside, BOTH),
    test!(later_mounts_of_the_caller_do_not_propagate, ROOT),
    test!(without_a_mount_namespace_nothing_is_made_private, ROOT),
    test!(mount_proc_without_a_pid_namespace, BOTH),
    test!(error_names_a_masked_proc, ROOT),
    test!(error_names_a_masked_proc_for_a_user, USER),
    test!(proc_of_another_pid_namespace_is_refused, BOTH),
    test!(error_names_a_missing_proc, ROOT),
];

fn mountinfo() -> String {
    fs::read_to_string("/proc/self/mountinfo").unwrap()
}

fn mount(ctx: &Ctx, args: &[&str]) {
    assert_eq!(ctx.cmd("mount", args).ok(), "");
}

fn a_shared_mount_of_the_caller_does_not_change(ctx: &Ctx) {
    let dir = ctx.file("shared");
    fs::create_dir(&dir).unwrap();
    let dir = dir.to_str().unwrap();
    mount(ctx, &["-t", "tmpfs", "shared", dir]);
    mount(ctx, &["--make-shared", dir]);
    let before = mountinfo();
    let line = before.lines().find(|line| line.contains(dir)).unwrap();
    assert!(line.contains(" shared:"), "the mount of the test is shared: {line}");
    fs::create_dir(format!("{dir}/sub")).unwrap();
    let script = format!(
        "mount -t tmpfs inside {dir}/sub && touch {dir}/sub/file && grep -c {dir} /proc/self/mountinfo; umount -l /proc"
    );
    for flags in [&["-m"][..], &["-r", "-m"], &["--all", "-r", "--mount-proc"], &[]] {
        let args = [&["run"], flags, &["--", "sh", "-c", &script]].concat();
        let done = ctx.nsexec(args).done();
        assert_eq!(done.text(), "2\n", "{flags:?}: {}", done.err);
        assert_eq!(mountinfo(), before, "{flags:?}");
        assert_eq!(fs::read_dir(format!("{dir}/sub")).unwrap().count(), 0);
    }
    assert_eq!(ctx.cmd("umount", [dir]).ok(), "");
}

fn a_mount_inside_stays_inside(ctx: &Ctx) {
    let (before, dir) = (mountinfo(), ctx.file("folder"));
    fs::create_dir(&dir).unwrap();
    assert!(!ctx.root() || before.contains(" shared:"), "the guard makes mounts shared");
    let dir = dir.to_str().unwrap();
    let script = format!(
        "mount -t tmpfs inside {dir}; touch {dir}/file; grep -o 'shared:[0-9]*' /proc/self/mountinfo; ls {dir}"
    );
    assert_eq!(ctx.run(["-m", "--", "sh", "-c", &script]).ok(), "file\n", "nothing is shared inside");
    assert_eq!(mountinfo(), before);
    assert_eq!(fs::read_dir(dir).unwrap().count(), 0);
}

fn mount_proc_stays_inside(ctx: &Ctx) {
    let before = mountinfo();
    let text = ctx
        .run([
            "-p",
            "--mount-proc",
            "--",
            "sh",
            "-c",
            "echo $$ /proc/[0-9]*; grep -c ' /proc ' /proc/self/mountinfo",
        ])
        .ok();
    assert_eq!(text, "1 /proc/1\n2\n");
    assert_eq!(mountinfo(), before);
    assert!(
        fs::metadata("/proc/1").is_ok()
            && fs::read_link("/proc/self").unwrap().to_str() == Some(&std::process::id().to_string())
    );
}

fn later_mounts_of_the_caller_do_not_propagate(ctx: &Ctx) {
    let (dir, go) = (ctx.file("later"), ctx.file("go"));
    fs::create_dir(&dir).unwrap();
    let (dir, flag) = (dir.to_str().unwrap(), go.display());
    let script = format!(
        "echo on; until test -e {flag}; do sleep 0.01; done; grep -c {dir} /proc/self/mountinfo; echo done"
    );
    let live = ctx.nsexec(["run", "-m", "--", "sh", "-c", &script]).start().says("on");
    mount(ctx, &["-t", "tmpfs", "later", dir]);
    fs::write(&go, "").unwrap();
    until("the command has looked", || live.text().contains("done"));
    assert_eq!(ctx.cmd("umount", [dir]).ok(), "");
    assert_eq!(live.done().text(), "on\n0\ndone\n");
}

fn without_a_mount_namespace_nothing_is_made_private(ctx: &Ctx) {
    let before = mountinfo();
    assert!(before.contains(" shared:"));
    assert_eq!(ctx.nsexec(["run", "-n", "-u", "-p", "--", "cat", "/proc/self/mountinfo"]).ok(), before);
    assert_eq!(mountinfo(), before);
}

fn mount_proc_without_a_pid_namespace(ctx: &Ctx) {
    if ctx.root() {
        let text = ctx
            .nsexec([
                "run",
                "--mount-proc",
                "--",
                "sh",
                "-c",
                "test -d /proc/$$ && grep -c ' /proc ' /proc/self/mountinfo",
            ])
            .ok();
        assert_eq!(text, "2\n");
    } else {
        let args = ["run", "-r", "--mount-proc", "--", "echo", "it ran"];
        ctx.nsexec(args).refused(1, &["/proc", "Operation not permitted", "-p"]);
    }
}

/// As in a container: parts of /proc are covered, so a user namespace may not mount a new one.
fn error_names_a_masked_proc(ctx: &Ctx) {
    let bin = ctx.bin.display();
    let mask = "mount -t tmpfs -o ro mask /proc/scsi 2>/dev/null || mount -t tmpfs -o ro mask /proc/irq";
    let run =
        |args: &str| ctx.nsexec(["run", "-m", "--", "sh", "-c", &format!("{mask}; exec {bin} run {args}")]);
    let plain = run("-- echo it ran").refused(1, &["/proc", "Operation not permitted", "--all"]);
    assert!(plain.contains("masked") || plain.contains("covered"), "{plain}");
    run("-r -p --mount-proc -- echo it ran")
        .refused(1, &["/proc", "Operation not permitted", "--mount-proc"]);
    // The remedy in the message works.
    assert_eq!(run("--all -- echo it ran").ok(), "it ran\n");
}

fn error_names_a_masked_proc_for_a_user(ctx: &Ctx) {
    let script =
        format!("mount -t tmpfs -o ro mask /proc/irq; exec {} run -- echo it ran", ctx.bin.display());
    ctx.nsexec(["run", "--", "sh", "-c", &script]).refused(1, &["/proc", "Operation not permitted", "--all"]);
}

/// In a new pid namespace with the old /proc, the pids of our stages belong to other processes there.
fn proc_of_another_pid_namespace_is_refused(ctx: &Ctx) {
    let bin = ctx.bin.display();
    let outer = if ctx.root() { &["run", "-p"][..] } else { &["run", "-r", "-p"] };
    // In a direct start the launcher writes the maps, which is process 1 here. Otherwise stage 0 writes them.
    let direct = ["-f -r -- id -u", "-f -T -r --boottime 10 -- id -u", "-r -p --mount-proc -- id -u"];
    let stages = ["-f --join uts=/proc/self/ns/uts -r -- id -u"];
    let stages = stages.into_iter().filter(|_| ctx.root()).map(|inner| (inner, "we are process 2"));
    for (inner, process) in direct.map(|inner| (inner, "we are process 1")).into_iter().chain(stages) {
        let words = ["/proc belongs to another pid namespace", process, "--mount-proc"];
        let script = format!("exec {bin} run {inner}");
        let line = ctx.nsexec([outer, &["--", "sh", "-c", &script]].concat()).refused(1, &words);
        assert!(!line.contains("gone"), "{line}");
        // The remedy in the message works.
        let fresh = [outer, &["--mount-proc", "--", "sh", "-c", &script]].concat();
        assert_eq!(ctx.nsexec(fresh).ok(), "0\n");
    }
    // Without maps and offsets the stages do not use /proc.
    let script = format!("exec {bin} run -n -- echo it ran");
    if ctx.root() {
        assert_eq!(ctx.nsexec(["run", "-p", "--", "sh", "-c", &script]).ok(), "it ran\n");
    }
}

fn error_names_a_missing_proc(ctx: &Ctx) {
    let bin = ctx.bin.display();
    for cover in ["umount -l /proc", "mount -t tmpfs cover /proc"] {
        let script = format!("{cover}; exec {bin} run -r -- id -u");
        let line = ctx
            .nsexec(["run", "-m", "--", "sh", "-c", &script])
            .refused(1, &["/proc", "is not mounted", "there is no /proc/self", "mount -t proc"]);
        assert!(!line.contains("gone"), "{line}");
        // The remedy in the message works.
        let script = format!("{cover}; mount -t proc proc /proc; exec {bin} run -r -- id -u");
        assert_eq!(ctx.nsexec(["run", "-m", "--", "sh", "-c", &script]).ok(), "0\n");
    }
}
