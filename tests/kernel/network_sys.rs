//! A new /sys in new network and mount namespaces: its devices, the mounts below it, and the machines on
//! which /sys stays as it is.

use std::fs;

use crate::harness::{BOTH, ROOT, Test, test};
use crate::kit::Ctx;

pub(crate) const TESTS: &[Test] = &[
    test!(sys_shows_the_devices_of_the_new_network, BOTH),
    test!(sys_stays_without_both_namespaces, ROOT),
    test!(mounts_below_sys_are_kept, BOTH),
    test!(a_second_level_has_a_new_sys_too, BOTH),
    test!(a_covered_sys_stays, BOTH),
    test!(a_mount_over_a_file_of_sys_is_kept, ROOT),
    test!(a_read_only_sys_stays_read_only, BOTH),
    test!(the_working_directory_stays, BOTH),
    test!(a_root_without_sys_is_no_error, ROOT),
    test!(the_mount_does_not_reach_the_caller, ROOT),
    test!(the_plan_is_what_runs, BOTH),
    test!(few_descriptors_are_no_error, BOTH),
];

const DEVICES: [&str; 3] = ["--", "ls", "/sys/class/net"];

/// Runs a shell in new user, mount and network namespaces of util-linux, with `before` as its first commands.
fn below(ctx: &Ctx, before: &str, then: &str) -> String {
    let script = format!("{before}\nset -e\n{then}");
    ctx.cmd("unshare", ["-r", "-m", "-n", "sh", "-c", &script]).env("N", &ctx.bin).ok()
}

/// The devices of the caller.
fn of_caller() -> String {
    let mut names: Vec<String> = fs::read_dir("/sys/class/net")
        .unwrap()
        .map(|entry| format!("{}\n", entry.unwrap().file_name().to_string_lossy()))
        .collect();
    names.sort();
    names.concat()
}

fn sys_shows_the_devices_of_the_new_network(ctx: &Ctx) {
    for how in [&["run"][..], &["run", "-r", "-n", "-m"], &["run", "--all"], &["run", "-c", "-n", "-m", "-p"]]
    {
        assert_eq!(ctx.nsexec(how.iter().chain(&DEVICES)).ok(), "lo\n", "{how:?}");
        let args = how.iter().chain(&["--no-mount-sys"]).chain(&DEVICES);
        assert_eq!(ctx.nsexec(args).ok(), of_caller(), "{how:?}");
    }
    let options = "findmnt -n -o OPTIONS /sys 2>/dev/null || grep ' /sys ' /proc/self/mountinfo";
    let text = ctx.nsexec(["run", "--", "sh", "-c", options]).ok();
    assert!(text.contains("nosuid,nodev,noexec"), "{text}");
    // Without a new user namespace too.
    if ctx.root() {
        assert_eq!(ctx.nsexec(["run", "-n", "-m"].iter().chain(&DEVICES)).ok(), "lo\n");
    }
}

fn sys_stays_without_both_namespaces(ctx: &Ctx) {
    let before = fs::read_to_string("/proc/self/mountinfo").unwrap();
    for how in [
        &["-n"][..],
        &["-r", "-n"],
        &["-m"],
        &["-n", "-m", "-R", "/"],
        &["-n", "-m", "--propagation", "shared"],
    ] {
        let args = ["run"].iter().chain(how).chain(&DEVICES);
        assert_eq!(ctx.nsexec(args).ok(), of_caller(), "{how:?}");
    }
    assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), before);
}

/// Prints the mounts below /sys that a path leads to: the path, and the kind of the file system.
const BELOW: &str = "awk '$5 ~ \"^/sys/\" {print $5}' /proc/self/mountinfo | sort -u | while read p; do stat -f -c \"%n %T\" $p; done";

fn mounts_below_sys_are_kept(ctx: &Ctx) {
    let outside = ctx.cmd("sh", ["-c", BELOW]).ok();
    assert_eq!(ctx.nsexec(["run", "--", "sh", "-c", BELOW]).ok(), outside);
    if !fs::read_to_string("/proc/self/mountinfo").unwrap().contains(" /sys/fs/cgroup ") {
        ctx.skip("nothing is mounted on /sys/fs/cgroup");
    }
    let list = |dir: &str| ctx.nsexec(["run", "--", "ls", dir]).ok();
    assert_eq!(list("/sys/fs/cgroup"), ctx.cmd("ls", ["/sys/fs/cgroup"]).ok());
}

fn a_second_level_has_a_new_sys_too(ctx: &Ctx) {
    let script = "ip link add second type dummy 2>/dev/null; exec $N run -r -n -m -- ls /sys/class/net";
    assert_eq!(ctx.nsexec(["run", "--", "sh", "-c", script]).env("N", &ctx.bin).ok(), "lo\n");
    let script = format!("{BELOW}; exec $N run -- sh -c '{}'", BELOW.replace('\'', "'\\''"));
    let text = ctx.nsexec(["run", "--", "sh", "-c", &script]).env("N", &ctx.bin).ok();
    let lines: Vec<&str> = text.lines().collect();
    let (first, second) = lines.split_at(lines.len() / 2);
    assert_eq!(first, second);
}

/// As in a container: a part of /sys is covered, so the kernel refuses a new one in a user namespace.
fn a_covered_sys_stays(ctx: &Ctx) {
    let mask = "mount -t tmpfs mask /sys/firmware";
    assert_eq!(below(ctx, mask, "$N run -- ls /sys/class/net; $N run -- ls /sys/firmware"), of_caller());
    let plan = below(ctx, mask, "$N plan -- true");
    assert!(plan.contains("/sys                              partly covered"), "{plan}");
    assert!(plan.contains("# refused, for example since a part of /sys is covered: /sys stays as it is"));
    assert!(plan.contains("the command runs"), "{plan}");
}

fn a_mount_over_a_file_of_sys_is_kept(ctx: &Ctx) {
    let script = "mount --bind /dev/null /sys/power/state || mount --bind /dev/null /sys/kernel/uevent_seqnum
        exec $N run -n -m -- sh -c 'ls /sys/class/net; find /sys/power/state /sys/kernel/uevent_seqnum -type c | wc -l'";
    assert_eq!(ctx.cmd("unshare", ["-m", "sh", "-c", script]).env("N", &ctx.bin).ok(), "lo\n1\n");
}

fn a_read_only_sys_stays_read_only(ctx: &Ctx) {
    let script =
        "$N run -- sh -c 'ls /sys/class/net; mount -o remount,bind,rw /sys 2>/dev/null || echo locked
        echo 1500 2>/dev/null > /sys/class/net/lo/mtu || echo read-only'";
    let text = below(ctx, "mount -o remount,bind,ro /sys", script);
    assert_eq!(text, "lo\nlocked\nread-only\n");
    // A writable one stays writable.
    let script = "echo 1500 > /sys/class/net/lo/mtu && cat /sys/class/net/lo/mtu";
    assert_eq!(ctx.nsexec(["run", "--", "sh", "-c", script]).ok(), "1500\n");
}

fn the_working_directory_stays(ctx: &Ctx) {
    assert_eq!(ctx.nsexec(["run", "--", "pwd"]).ok(), format!("{}\n", ctx.dir.display()));
}

fn a_root_without_sys_is_no_error(ctx: &Ctx) {
    let root = ctx.file("root");
    fs::create_dir(&root).unwrap();
    let script = format!(
        "mount --rbind / {0}; umount -R -l {0}/sys; exec chroot {0} sh -c 'cd /; $N run -n -m -- echo it ran
         mount -t tmpfs none /sys; $N run -n -m -- echo it ran; $N plan -n -m -- true | grep -c /sys'",
        root.display()
    );
    let done = ctx.cmd("unshare", ["-m", "sh", "-c", &script]).env("N", &ctx.bin).done();
    assert_eq!(done.text(), "it ran\nit ran\n0\n", "{}", done.err);
}

fn the_mount_does_not_reach_the_caller(ctx: &Ctx) {
    let before = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let is_sys = |line: &&str| line.split(' ').nth(4) == Some("/sys");
    assert!(before.lines().find(is_sys).unwrap().contains(" shared:"), "the guard makes mounts shared");
    for how in [
        &[][..],
        &["-n", "-m"],
        &["-r", "-n", "-m", "--propagation", "shared"],
        &["-n", "-m", "--propagation", "slave"],
    ] {
        assert_eq!(ctx.nsexec(["run"].iter().chain(how).chain(&DEVICES)).ok(), "lo\n", "{how:?}");
    }
    assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), before);
}

fn the_plan_is_what_runs(ctx: &Ctx) {
    for how in [&[][..], &["-r", "-n", "-m"], &["-r", "-n", "-m", "--fork"]] {
        let args = ["trace"].iter().chain(how).chain(&["--", "true"]);
        let done = ctx.nsexec(args).done();
        assert!(done.err.contains("as planned") && !done.err.contains("breach"), "{how:?}: {}", done.err);
        let mask = "mount -t tmpfs mask /sys/firmware";
        let then = format!("$N trace {} -- true 2>&1", how.join(" "));
        let text = below(ctx, mask, &then);
        assert!(text.contains("as planned") && !text.contains("breach"), "{how:?}: {text}");
    }
}

/// Each mount that is kept needs a descriptor for a moment.
fn few_descriptors_are_no_error(ctx: &Ctx) {
    let script = "for p in fs/bpf fs/pstore kernel/debug kernel/security kernel/config kernel/tracing; do
            test -d /sys/$p && mount -t tmpfs few /sys/$p; done
        for limit in 8 9 10 11 12 13 14 15 16; do (ulimit -n $limit; $N run -r -n -m -- echo it ran); done";
    assert_eq!(below(ctx, "", script), "it ran\n".repeat(9));
}
