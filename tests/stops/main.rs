//! A stopped process does not block the end of a launch: `nsexec run` and `nsexec enter` on the real kernel.
//! One run for each system call of each process: the process is stopped (SIGSTOP) after that call, and one
//! before its first call.
//!
//! A tracer (ptrace(2)) steps the launch to the chosen call, stops the process there, and detaches from all
//! processes. Then the launcher gets SIGTERM, or SIGKILL. Afterwards no process may be left, and after
//! SIGTERM the launcher must have written one line with the reason. `NSEXEC_STOPS=N` tests every Nth call
//! only.
//!
//! In the tests `fails_*` ([`fails`]) one system call fails instead.

mod events;
mod fails;
mod hostile;
mod inject;
mod named;
mod stepper;

use std::path::{Path, PathBuf};
use std::process::{self, ExitCode};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};
use stepper::{Ending, Launch, Moment, Outcome, Then};
use support::{Suite, Test, Threads, Verdict};

/// One kind of launch.
struct Case {
    name: &'static str,
    args: &'static [&'static str],
    /// The user id; `None` for root.
    uid: Option<u32>,
    /// The programs that the case needs.
    needs: &'static [&'static str],
    /// The number of processes: the launcher, and the stages or the process of a direct start. With the
    /// stages there may be mapping tools too.
    processes: usize,
}

/// An unprivileged account that every machine has. The test creates its subordinate ids.
const USER: u32 = 1;
const USER_NAME: &str = "daemon";

/// The launcher, and the process that it creates and that becomes the command.
const DIRECT: usize = 2;

/// The launcher, stage 1, and stage 2, which becomes the command.
const CHILD: usize = 3;

/// The launcher and the three stages.
const STAGES: usize = 4;

/// The process that keeps watch with `--kill-child`.
const GUARD: usize = 1;

const CASES: &[Case] = &[
    Case {
        name: "run_in_all_namespaces_as_root",
        args: &["run", "--", "true"],
        uid: None,
        needs: &[],
        processes: DIRECT,
    },
    Case {
        name: "run_with_kill_child",
        args: &["run", "-n", "--kill-child", "--", "true"],
        uid: None,
        needs: &[],
        processes: DIRECT + GUARD,
    },
    Case {
        name: "run_with_kill_child_through_a_child",
        args: &["run", "-m", "-p", "--join", "net=/proc/self/ns/net", "--kill-child", "--", "true"],
        uid: None,
        needs: &[],
        processes: CHILD + GUARD,
    },
    Case {
        name: "run_with_kill_child_through_the_stages",
        args: &["run", "-r", "-m", "-p", "--join", "net=/proc/self/ns/net", "--kill-child", "--", "true"],
        uid: None,
        needs: &[],
        processes: STAGES,
    },
    Case {
        name: "run_with_mapping_tools_as_user",
        args: &["run", "-r", "-n", "-p", "--map-users", "auto", "--", "true"],
        uid: Some(USER),
        needs: &["/usr/bin/newuidmap", "/usr/bin/newgidmap"],
        processes: STAGES,
    },
    Case {
        name: "run_as_user",
        args: &["run", "-f", "-r", "-u", "--", "true"],
        uid: Some(USER),
        needs: &[],
        processes: DIRECT,
    },
    Case {
        name: "enter_as_root",
        args: &["enter", "-t", "TARGET", "-a", "--", "true"],
        uid: None,
        needs: &[],
        processes: CHILD,
    },
];

fn main() -> ExitCode {
    let workspace = Arc::new(LazyLock::new(Workspace::new));
    let test = |case: &'static Case| {
        let workspace = workspace.clone();
        Test::new(case.name, move || {
            if !nix::unistd::Uid::effective().is_root() {
                return Verdict::Skipped("needs root, to trace a mapping tool".to_owned());
            }
            if let Some(missing) = case.needs.iter().find(|tool| !Path::new(tool).exists()) {
                return Verdict::Skipped(format!("needs {missing}"));
            }
            // Made here, so that the container is not a child of the test.
            let workspace = LazyLock::force(&workspace);
            in_a_process_of_its_own(|| run(case, workspace))
        })
    };
    let attacked = |case: &'static hostile::Case| {
        let workspace = workspace.clone();
        Test::new(case.name, move || {
            if !nix::unistd::Uid::effective().is_root() {
                return Verdict::Skipped("needs root, to trace and to make containers".to_owned());
            }
            let workspace = LazyLock::force(&workspace);
            let mut attacker = hostile::Attacker::new(case, workspace);
            let verdict =
                in_a_process_of_its_own(|| hostile::run(case, workspace, &mut attacker, every_nth_call(1)));
            attacker.end();
            verdict
        })
    };
    let failed = |case: &'static fails::Case| {
        let workspace = workspace.clone();
        Test::new(case.name, move || {
            if !nix::unistd::Uid::effective().is_root() {
                return Verdict::Skipped("needs root, to trace a mapping tool".to_owned());
            }
            if !inject::SUPPORTED {
                return Verdict::Skipped("needs x86_64 or aarch64, to change a system call".to_owned());
            }
            if let Some(missing) = case.needs().iter().find(|tool| !Path::new(tool).exists()) {
                return Verdict::Skipped(format!("needs {missing}"));
            }
            let workspace = LazyLock::force(&workspace);
            in_a_process_of_its_own(|| fails::run(case, workspace))
        })
    };
    let tests = CASES.iter().map(test).chain(hostile::CASES.iter().map(attacked));
    let tests = tests.chain(fails::CASES.iter().map(failed));
    Suite::new("stops", tests.collect()).main(Threads::One)
}

/// Calls `test` in a new process, which has only the launch's processes as children; the container is a child
/// of this process. Prints the complaints of `test`.
#[allow(clippy::disallowed_methods, reason = "this program has one thread, and no handlers of a fork")]
fn in_a_process_of_its_own(test: impl FnOnce() -> Vec<String>) -> Verdict {
    // SAFETY: this program has one thread.
    match unsafe { fork() }.expect("fork") {
        ForkResult::Parent { child } => match waitpid(child, None) {
            Ok(WaitStatus::Exited(_, 0)) => Verdict::Passed,
            status => Verdict::Failed(format!("{status:?}")),
        },
        ForkResult::Child => {
            // A panic must not unwind into the copy of the parent's suite.
            let test = std::panic::AssertUnwindSafe(test);
            let complaints = std::panic::catch_unwind(test).unwrap_or_else(|_| process::exit(101));
            complaints.iter().for_each(|complaint| println!("{complaint}"));
            // Exits without running the destructors of the parent's values.
            process::exit(i32::from(!complaints.is_empty()))
        }
    }
}

/// Mounts files with subordinate ids for [`USER`] over /etc/subuid and /etc/subgid, in a new mount namespace.
fn subordinate_ids(workspace: &Workspace) {
    unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace");
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("private mounts");
    let file = workspace.folder.join("subid");
    std::fs::write(&file, format!("{USER_NAME}:100000:65536\n")).expect("subordinate ids");
    for target in ["/etc/subuid", "/etc/subgid"].into_iter().filter(|target| Path::new(target).exists()) {
        mount(Some(&file), target, none, MsFlags::MS_BIND, none).expect("a bind mount");
    }
}

/// The folder of the test: a copy of the program that every user may execute, and the file of subordinate
/// ids, and the container to enter.
struct Workspace {
    folder: PathBuf,
    program: PathBuf,
    target: std::process::Child,
}

impl Workspace {
    fn new() -> Self {
        use std::os::unix::fs::PermissionsExt;
        let folder = std::env::temp_dir().join(format!("nsexec-stops-{}", std::process::id()));
        std::fs::create_dir(&folder).expect("a folder");
        let program = folder.join("nsexec");
        std::fs::copy(env!("CARGO_BIN_EXE_nsexec"), &program).expect("a copy of the program");
        // Without getsubids(1), which the program runs before the launch: it would be stepped too.
        let tools = folder.join("tools");
        std::fs::create_dir(&tools).expect("a folder");
        for tool in ["newuidmap", "newgidmap", "true"] {
            std::os::unix::fs::symlink(Path::new("/usr/bin").join(tool), tools.join(tool)).expect("a link");
        }
        for path in [&folder, &program, &tools] {
            std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).expect("permissions");
        }
        let target = std::process::Command::new(&program)
            .args(["run", "--kill-child", "--", "sleep", "1000"])
            .spawn()
            .expect("a container to enter");
        Self { folder, program, target }
    }

    /// Returns the pid of the container's first process.
    fn target(&self) -> i32 {
        let pid = self.target.id();
        let path = format!("/proc/{pid}/task/{pid}/children");
        let deadline = std::time::Instant::now() + stepper::LIMIT;
        loop {
            let children = std::fs::read_to_string(&path).expect("the children of the launcher");
            let found: Option<i32> = children.split_whitespace().next().and_then(|pid| pid.parse().ok());
            let runs = |pid: &i32| {
                std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm == "sleep\n")
            };
            match found.filter(runs) {
                Some(pid) => return pid,
                None => assert!(std::time::Instant::now() < deadline, "no container"),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        // The launcher's death ends the first process (--kill-child), and with it the container.
        let _ = self.target.kill();
        let _ = self.target.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Returns N of `NSEXEC_STOPS`, or the default: every Nth call is tested.
fn every_nth_call(default: usize) -> usize {
    match std::env::var("NSEXEC_STOPS") {
        Ok(text) => text.parse().expect("NSEXEC_STOPS is a number"),
        Err(_) => default,
    }
}

fn run(case: &Case, workspace: &Workspace) -> Vec<String> {
    if case.uid.is_some() {
        subordinate_ids(workspace);
    }
    let target = workspace.target().to_string();
    let args = case.args.iter().map(|arg| if *arg == "TARGET" { target.clone() } else { (*arg).to_owned() });
    let launch = Launch {
        program: workspace.program.clone(),
        args: args.collect(),
        uid: case.uid,
        ..Launch::default()
    };
    let every = every_nth_call(1);
    let calls = launch.count();
    let total: usize = calls.iter().sum();
    let mut complaints = Vec::new();
    let (mut runs, mut slowest) = (0_usize, Duration::ZERO);
    let mut held_up = 0_usize;
    for then in [Then::Terminate, Then::Kill] {
        for (process, count) in calls.iter().enumerate() {
            // The last two calls of stage 2 lead to the command, which outlives the launcher without
            // --kill-child.
            let outlives =
                then == Then::Kill && process == calls.len() - 1 && !case.args.contains(&"--kill-child");
            let count = if outlives { count.saturating_sub(2) } else { *count };
            // A launcher that is killed cannot continue a process that was stopped before its first call.
            let birth = (then == Then::Terminate && process > 0).then_some(Moment::Birth);
            for moment in birth.into_iter().chain((0..count).step_by(every.max(1)).map(Moment::Call)) {
                let outcome = launch.stopped_at(process, moment, then);
                runs += 1;
                slowest = slowest.max(outcome.took);
                held_up += usize::from(outcome.ending == Ending::Exited(143));
                complaints.extend(complaint(process, then, &outcome).map(|what| {
                    format!("{}: process {process} stopped at {moment:?}, then {then:?}: {what}", case.name)
                }));
            }
        }
    }
    println!(
        "{}: {total} calls of {} processes, {runs} runs, {held_up} interrupted, the slowest end after {} ms",
        case.name,
        calls.len(),
        slowest.as_millis()
    );
    if calls.len() < case.processes || case.processes != STAGES && calls.len() != case.processes {
        complaints.push(format!("{} processes were seen, not {}", calls.len(), case.processes));
    }
    if held_up == 0 {
        complaints.push("no launch was interrupted: the stops did nothing".to_owned());
    }
    complaints
}

/// Returns the complaint about this outcome, or `None` if the outcome is right.
fn complaint(process: usize, then: Then, outcome: &Outcome) -> Option<String> {
    const LINE: &str = "nsexec: SIGTERM came before the command was started\n";
    if !outcome.left.is_empty() {
        return Some(format!("left: {:?}", outcome.left));
    }
    match (then, outcome.ending) {
        (_, Ending::Late) => Some("the launcher did not end".to_owned()),
        (Then::Kill, Ending::Signaled(9)) => None,
        // The launch ended before the signal arrived.
        (_, Ending::Exited(0)) if outcome.err.is_empty() => None,
        // The command ran, or its exec had begun.
        (Then::Terminate, Ending::Exited(143)) if outcome.err.is_empty() || outcome.err == LINE => None,
        (_, ending) => Some(format!("process {process}: {ending:?}, said {:?}", outcome.err)),
    }
}
