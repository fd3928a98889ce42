//! The first command of the README, and nested runs of the program.

use crate::harness::{BOTH, Test, test};
use crate::kit::{Ctx, ids};

pub(crate) const TESTS: &[Test] = &[
    test!(first_command_of_the_readme, BOTH),
    test!(fresh_proc_shows_only_the_new_pid_namespace, BOTH),
    test!(three_nested_runs, BOTH),
    test!(without_flags_files_and_cgroup_stay_accessible, BOTH),
];

const FIRST: &str = "echo pid $$ uid $(id -u); ls /proc | head";

fn first_command_of_the_readme(ctx: &Ctx) {
    let text = ctx.nsexec(["run", "--", "sh", "-c", FIRST]).ok();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], "pid 1 uid 0");
    assert_eq!(lines[1], "1", "the first process in /proc: {text}");
    assert_eq!(lines.len(), 11, "{text}");
}

fn fresh_proc_shows_only_the_new_pid_namespace(ctx: &Ctx) {
    let text = ctx.nsexec(["run", "sh", "-c", "cd /proc; echo [0-9]*"]).ok();
    assert_eq!(text, "1\n");
}

fn three_nested_runs(ctx: &Ctx) {
    let bin = ctx.bin.to_str().unwrap();
    let script = "echo pid $$ uid $(id -u) gid $(id -g); cat /proc/self/uid_map";
    let text = ctx.nsexec(["run", "--", bin, "run", "--", bin, "run", "--", "sh", "-c", script]).ok();
    let words: Vec<_> = text.split_whitespace().collect();
    assert_eq!(words, "pid 1 uid 0 gid 0 0 0 1".split(' ').collect::<Vec<_>>());
}

fn without_flags_files_and_cgroup_stay_accessible(ctx: &Ctx) {
    let file = ctx.file("mine");
    std::fs::write(&file, "written outside ").unwrap();
    let script = format!(
        "cat {0}; echo and inside >> {0}; stat -c %u:%g {0}; head -n 1 /proc/self/cgroup",
        file.display()
    );
    let text = ctx.nsexec(["run", "--", "sh", "-c", &script]).ok();
    assert!(text.starts_with("written outside 0:0\n"), "{text}");
    assert!(text.trim_end().ends_with(":/"), "the root of the cgroup namespace: {text}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "written outside and inside\n");
    let data = std::fs::metadata(&file).unwrap();
    assert_eq!(
        (std::os::unix::fs::MetadataExt::uid(&data), std::os::unix::fs::MetadataExt::gid(&data)),
        ids()
    );
}
