//! The acts of a container's root against stage 2 of `enter` while stage 2 waits for the go byte. SECURITY.md
//! lists those that the kernel allows.

use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use crate::harness::{PidFd, ROOT, Test, USER, children, test};
use crate::kit::{Ctx, DEADLINE, Live, PYTHON, until};

pub(crate) const TESTS: &[Test] = &[
    test!(root_of_a_user_namespace_can_do_nothing, ROOT),
    test!(with_a_created_namespace_root_can_signal_and_limit, ROOT),
    test!(in_a_users_container_root_can_signal_and_limit, USER),
    test!(root_without_a_user_namespace_can_signal_and_limit, ROOT),
    test!(no_step_of_an_entering_process_can_be_read, ROOT),
    test!(no_step_in_a_users_container_can_be_read, USER),
    test!(a_dumpable_process_can_be_read_while_it_joins, ROOT),
];

/// Starts a container whose command is `reach.py`, with these flags and capabilities.
fn attacker(ctx: &Ctx, flags: &[&str], caps: &[&str]) -> Live {
    let command = [PYTHON, "-I", "-S", "-c", include_str!("reach.py")];
    ctx.nsexec([&["run", "-f"], flags, &["--"], &command, caps].concat()).start().says("on")
}

/// Starts `nsexec ARGS…`, and delays its launcher before its first send, the go byte, until the attacker has
/// finished. Returns the acts that the kernel allowed.
fn tried(ctx: &Ctx, attacker: &Live, args: &[&str]) -> Vec<String> {
    ctx.needs("strace");
    // Stage 2 becomes our child when its launcher dies. As a zombie it would delay the end of the container's
    // first process.
    set_child_subreaper(true).unwrap();
    let bin = ctx.bin.to_str().unwrap();
    let hold =
        ["-qq", "-o", "/dev/null", "-e", "trace=sendto", "-e", "inject=sendto:delay_enter=60s:when=1", bin];
    let held = ctx.cmd("strace", [&hold, args].concat()).start();
    until("everything is tried", || attacker.text().lines().any(|line| line == "end"));
    let launcher = held.command();
    let [stage_2] = children(launcher)[..] else { panic!("the launcher waits for another than stage 2") };
    let watched = PidFd::open(stage_2).unwrap();
    // The attacker may have stopped stage 2.
    kill(Pid::from_raw(stage_2), Signal::SIGCONT).unwrap();
    kill(Pid::from_raw(launcher), Signal::SIGKILL).unwrap();
    // strace would wait for the rest of the delay.
    held.signal(Signal::SIGKILL);
    held.done();
    assert!(watched.ends_within(DEADLINE), "stage 2 outlives its launcher");
    for pid in [launcher, stage_2] {
        waitpid(Pid::from_raw(pid), Some(WaitPidFlag::__WALL)).unwrap();
    }
    attacker.text().lines().filter(|line| !["on", "end"].contains(line)).map(str::to_owned).collect()
}

const WIDE: [&str; 6] =
    ["--all", "--mount-proc", "--map-users", "0:100000:65536", "--map-groups", "0:100000:65536"];

/// The capabilities of root in a docker container.
const DOCKER: &str = "a80425fb";

/// Signals and limits: kill(2) and prlimit(2) require CAP_KILL and CAP_SYS_RESOURCE in the target's user
/// namespace, or equal ids.
const SIGNALS_AND_LIMITS: [&str; 6] =
    ["kill", "SIGSTOP", "SIGCONT", "pidfd_send_signal", "prlimit (read)", "prlimit (write)"];

/// Scheduling: requires CAP_SYS_NICE in the target's user namespace, or equal ids and every capability of the
/// target.
const SCHEDULING: [&str; 4] = ["setpriority", "ioprio_set", "sched_setaffinity", "sched_setscheduler"];

/// Starts the container, and `ARGS…` with its pid. The allowed acts must be `acts`, and writes to files that
/// are all in `writes`. Which of these files exist depends on the kernel's configuration.
#[track_caller]
fn allows(ctx: &Ctx, flags: &[&str], args: impl Fn(&str) -> Vec<String>, acts: &[&str], writes: &[&str]) {
    let caps: &[&str] = if flags.contains(&"--all") { &[] } else { &[DOCKER] };
    let live = attacker(ctx, flags, caps);
    let args = args(&live.command().to_string());
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let found = tried(ctx, &live, &args);
    live.end();
    let of =
        |prefix: &str| -> Vec<&str> { found.iter().filter_map(|line| line.strip_prefix(prefix)).collect() };
    let files = ["read ", "write ", "list ", "link "];
    let acted: Vec<&String> =
        found.iter().filter(|line| !files.iter().any(|prefix| line.starts_with(prefix))).collect();
    assert_eq!(acted, acts, "{found:?}");
    assert!(of("write ").iter().all(|file| writes.contains(file)), "{found:?}");
    // Every process can read `status`, so the walk has found the process.
    assert!(of("read ").contains(&"status"), "{found:?}");
    assert!(!of("read ").into_iter().any(support::is_secret), "{found:?}");
    // The attacker may list these folders, but cannot read where an entry leads.
    assert!(of("list ").iter().all(|folder| ["attr", "fd", "ns"].contains(folder)), "{found:?}");
    assert!(of("link ").is_empty(), "{found:?}");
}

fn enter(pid: &str) -> Vec<String> {
    ["enter", "-t", pid, "-a", "--", "true"].map(str::to_owned).to_vec()
}

/// Joins three namespaces and creates another one.
fn join(pid: &str) -> Vec<String> {
    let joins = ["user", "mnt", "pid"].map(|kind| format!("--join={kind}=/proc/{pid}/ns/{kind}"));
    let words = ["run", "-f", "-u"].map(str::to_owned).into_iter().chain(joins);
    words.chain(["--", "true"].map(str::to_owned)).collect()
}

/// Stage 2 is not in the user namespace yet, and that namespace's root has no privilege outside.
fn root_of_a_user_namespace_can_do_nothing(ctx: &Ctx) {
    allows(ctx, &WIDE, enter, &[], &[]);
}

/// A created namespace must belong to the user namespace, so stage 1 joins the user namespace first.
fn with_a_created_namespace_root_can_signal_and_limit(ctx: &Ctx) {
    allows(ctx, &WIDE, join, &[&SIGNALS_AND_LIMITS[..], &SCHEDULING].concat(), &["timerslack_ns"]);
}

/// An ordinary user may join the other namespaces only with privileges inside the user namespace. So stage 1
/// joins the user namespace first.
fn in_a_users_container_root_can_signal_and_limit(ctx: &Ctx) {
    let acts = [&SIGNALS_AND_LIMITS[..], &SCHEDULING].concat();
    allows(ctx, &["--all", "--mount-proc"], enter, &acts, &["timerslack_ns"]);
}

/// Without a user namespace the ids are equal, so every act that needs no capability is allowed.
fn root_without_a_user_namespace_can_signal_and_limit(ctx: &Ctx) {
    let flags = ["-m", "-p", "-n", "-i", "-u", "--mount-proc"];
    let writes = ["autogroup", "clear_refs", "coredump_filter", "oom_adj", "oom_score_adj", "sched"];
    allows(ctx, &flags, enter, &SIGNALS_AND_LIMITS, &writes);
}

/// Starts a container with these flags, whose root looks for processes with one of the names. Then runs
/// `program ARGS…` with the container's pid, with 5 ms of delay before each of its calls and those of its
/// children. Returns the number of looks and the kinds of access that the kernel allowed.
fn looked(
    ctx: &Ctx,
    flags: &[&str],
    names: &[&str],
    program: &str,
    args: impl Fn(&str) -> Vec<String>,
) -> (u32, Vec<String>) {
    ctx.needs("strace");
    let command = [PYTHON, "-I", "-S", "-c", include_str!("reach_steps.py")];
    let live = ctx.nsexec([&["run", "-f"], flags, &["--"], &command, names].concat()).start().says("on");
    let slow = ["-f", "-qq", "-o", "/dev/null", "-e", "inject=all:delay_enter=5ms", program];
    let args = args(&live.command().to_string());
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    ctx.cmd("strace", [&slow, &args[..]].concat()).ok();
    kill(Pid::from_raw(live.command()), Signal::SIGTERM).unwrap();
    until("the looks are counted", || live.text().lines().any(|line| line == "end"));
    let text = live.text();
    live.end();
    let looks = text.lines().find_map(|line| line.strip_prefix("looks ")).unwrap().parse().unwrap();
    (looks, text.lines().filter_map(|line| line.strip_prefix("allowed ")).map(str::to_owned).collect())
}

/// Fails if one access to a stage of `nsexec ARGS…` succeeds at one of its steps, or if nothing was tried.
#[track_caller]
fn refuses_each_look(ctx: &Ctx, flags: &[&str], args: impl Fn(&str) -> Vec<String>) {
    let names = ["nsexec", "runc:[2:INIT]", "runc:[1:CHILD]", "exe"];
    let (looks, allowed) = looked(ctx, flags, &names, ctx.bin.to_str().unwrap(), args);
    println!("{flags:?}: {looks} looks");
    assert!(looks > 100, "only {looks} looks");
    assert!(allowed.is_empty(), "{allowed:?} of {looks} looks");
}

/// CVE-2016-9962: at no step can the root of the joined namespaces read the memory or the descriptors of a
/// process of ours.
fn no_step_of_an_entering_process_can_be_read(ctx: &Ctx) {
    refuses_each_look(ctx, &WIDE, enter);
    refuses_each_look(ctx, &WIDE, join);
}

fn no_step_in_a_users_container_can_be_read(ctx: &Ctx) {
    refuses_each_look(ctx, &["--all", "--mount-proc"], enter);
}

/// The control: the same looks succeed while nsenter(1), which stays dumpable, joins the same namespaces.
fn a_dumpable_process_can_be_read_while_it_joins(ctx: &Ctx) {
    ctx.needs("nsenter");
    let args = |pid: &str| ["-t", pid, "-U", "-p", "-m", "--", "true"].map(str::to_owned).to_vec();
    let (looks, allowed) = looked(ctx, &WIDE, &["nsenter"], "nsenter", args);
    assert!(
        ["process_vm_readv", "pidfd_getfd"].iter().all(|what| allowed.iter().any(|found| found == what)),
        "{looks}: {allowed:?}"
    );
}
