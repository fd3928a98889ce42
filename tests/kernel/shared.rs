//! Starts that are not recorded: the process of a direct start shares the launcher's memory. strace shows
//! that launcher and process make the planned calls.

use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::{BOTH, Test, test};
use crate::kit::Ctx;
use nsexec::launch::shape::Yama;

pub(crate) const TESTS: &[Test] = &[
    test!(unrecorded_start_makes_the_planned_calls, BOTH),
    test!(unrecorded_start_with_a_copy_makes_the_planned_calls, BOTH),
];

fn unrecorded_start_makes_the_planned_calls(ctx: &Ctx) {
    if ctx.root() {
        compare(ctx, &["-n", "-u"], "CLONE_VM|");
        compare(ctx, &["-p", "-u", "--mount-proc"], "CLONE_VM|");
        // The launcher is not dumpable meanwhile.
        compare(ctx, &["-r", "-n"], "CLONE_VM|");
        compare(ctx, &["--map-users", "0:100000:10", "--map-groups", "0:100000:10"], "CLONE_VM|");
    } else {
        // The modules of the machine decide: the user has no capabilities.
        let machine = nsexec::launch::own_protection();
        let shared = machine.yama == Yama::Off && !machine.relabels;
        compare(ctx, &["-r", "-n"], if shared { "CLONE_VM|" } else { "child_stack=NULL" });
        compare(
            ctx,
            &["-r", "-n", "-p", "-m", "--mount-proc"],
            if shared { "CLONE_VM|" } else { "child_stack=NULL" },
        );
    }
}

fn unrecorded_start_with_a_copy_makes_the_planned_calls(ctx: &Ctx) {
    compare(ctx, &["-r", "-n", "--copy-memory"], "child_stack=NULL");
    compare(ctx, &["-r", "--monotonic", "7"], "child_stack=NULL");
    compare(ctx, &["-r", "-n", "--oom-score-adj", "300"], "child_stack=NULL");
    if ctx.root() {
        compare(ctx, &["-n", "--copy-memory"], "child_stack=NULL");
    }
}

/// Compares the calls of `nsexec run FLAGS` with the plan of that start. `shown` is a part of its clone.
fn compare(ctx: &Ctx, flags: &[&str], shown: &str) {
    ctx.needs("strace");
    let end = ["--", "/bin/true"];
    let plan = ctx.nsexec([&["plan", "-f"], flags, &end].concat()).ok();
    let (launcher, process) = (section(&plan, "launcher"), section(&plan, "stage-2 init"));
    let output = ctx.file("calls");
    let bin = ctx.bin.to_str().unwrap();
    let strace = ["-ff", "-qq", "-o", output.to_str().unwrap(), bin, "run", "-f"];
    ctx.cmd("strace", [&strace, flags, &end].concat()).ok();
    let (parents, children): (Vec<_>, Vec<_>) =
        outputs(&output).into_iter().partition(|text| text.contains("socketpair("));
    let ([parent], [child]) = (&parents[..], &children[..]) else {
        panic!("not two processes: {children:?}")
    };
    assert!(launcher.len() > 10 && process.len() > 5 && parent.contains(shown), "{flags:?}: {parent}");
    let first = parent.find("socketpair(").unwrap();
    assert_eq!(agreeing(&launcher, &without_count(&parent[first..])), launcher, "{flags:?}: {parent}");
    // The line of the clone is the parent's alone in strace's output.
    assert_eq!(agreeing(&process[1..], child), process[1..], "{flags:?}: {child}");
    for file in files(&output) {
        fs::remove_file(file).unwrap();
    }
}

/// Returns the calls of a process in the plan.
fn section(plan: &str, title: &str) -> Vec<String> {
    let lines = plan.lines().skip_while(|line| *line != title).skip(1);
    lines.take_while(|line| line.starts_with("  ") && !line.starts_with("  =>")).map(call).collect()
}

/// Returns the beginning of strace's lines, as long as it is like the plan.
fn agreeing(planned: &[String], text: &str) -> Vec<String> {
    let made = text.lines().map(call);
    planned.iter().zip(made).take_while(|(planned, made)| *planned == made).map(|(_, made)| made).collect()
}

/// Returns the calls without those with which the program counts the launches during which it is not dumpable
/// (docs/design.md, "Effects"): getpid, and the question for the attribute, just before it is set.
fn without_count(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("prctl(PR_GET_DUMPABLE")).collect();
    let sets = |line: Option<&&str>| line.is_some_and(|line| line.starts_with("prctl(PR_SET_DUMPABLE"));
    let counts = |index: usize| lines[index].starts_with("getpid(") && sets(lines.get(index + 1));
    let kept = (0..lines.len()).filter(|index| !counts(*index)).map(|index| lines[index]);
    kept.collect::<Vec<_>>().join("\n")
}

/// Returns the part of a line that is the same on every run: the name of the call and its result, without
/// pids.
fn call(line: &str) -> String {
    let name = line.trim().split('(').next().unwrap();
    let result = line.rsplit(" = ").next().unwrap().split("   #").next().unwrap().trim();
    let has_pid = ["clone", "getpid", "gettid", "readlinkat", "setsid", "prctl"].contains(&name);
    if has_pid { name.into() } else { format!("{name} = {result}") }
}

fn files(output: &Path) -> Vec<PathBuf> {
    let name = format!("{}.", output.file_name().unwrap().to_str().unwrap());
    let entries = fs::read_dir(output.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(&name)).collect()
}

fn outputs(output: &Path) -> Vec<String> {
    files(output).iter().map(|file| fs::read_to_string(file).unwrap()).collect()
}
