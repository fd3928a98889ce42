//! The guard of one test. It is a subreaper, so processes that the test leaves become its children. It has a
//! mount namespace of its own whose mounts are all shared. So a mount by the program without private
//! propagation appears here.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::{Pid, geteuid};

use super::{PidFd, children, me};
use support::{LIMIT, default_signals};

/// Runs `--guard UID GID drop|keep COMMAND…`. Exits with the command's status if the command has left
/// nothing, otherwise with 1.
pub(super) fn main(args: &[String], deadline: Duration) -> ExitCode {
    let [uid, gid, drop, program, rest @ ..] = args else { panic!("--guard UID GID drop|keep COMMAND…") };
    // Otherwise the test would inherit the harness's signal mask, and the signals that the harness's caller
    // ignores.
    default_signals();
    if geteuid().is_root() {
        unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace for the guard");
        for propagation in [MsFlags::MS_PRIVATE, MsFlags::MS_SHARED] {
            mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | propagation, None::<&str>)
                .expect("propagation");
        }
    }
    set_child_subreaper(true).expect("subreaper");
    let mounts = mounts();
    let mut command = Command::new(program);
    command.args(rest);
    if drop == "drop" {
        command.uid(uid.parse().expect("UID")).gid(gid.parse().expect("GID"));
    }
    let mut child = command.spawn().expect("start the test");
    let pid = i32::try_from(child.id()).expect("a pid");
    let in_time = PidFd::open(pid).expect("pidfd").ends_within(deadline);
    if !in_time {
        println!("still running after {deadline:?}");
        child.kill().expect("kill the test");
    }
    let status = child.wait().expect("wait for the test");
    let mut clean = in_time;
    loop {
        let left = children(me());
        if left.is_empty() {
            break;
        }
        clean = false;
        left.into_iter().for_each(end);
    }
    for line in self::mounts().iter().filter(|line| !mounts.contains(line)) {
        clean = false;
        println!("mount left: {line}");
    }
    match status.code() {
        Some(code) if clean => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Some(_) => ExitCode::FAILURE,
        None => {
            println!("the test ended by {status}");
            ExitCode::FAILURE
        }
    }
}

/// Kills and reaps a process that the test has left, now a child of the guard.
fn end(pid: i32) {
    let word = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let status = word("status");
    let field = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        line.unwrap_or("?").trim().to_owned()
    };
    let (name, state) = (field("Name:"), field("State:"));
    println!("process left: {pid} {name} ({state}): {}", word("cmdline").replace('\0', " "));
    let fd = PidFd::open(pid).expect("pidfd of a child");
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("kill a child");
    assert!(fd.ends_within(LIMIT), "{pid} outlives SIGKILL");
    waitid(Id::PIDFd(fd.fd().as_fd()), WaitPidFlag::WEXITED).expect("reap a child");
}

/// Returns the mounts of this process. The guard of root has its own mount namespace, so every change comes
/// from the test. An ordinary user's guard shares the caller's, in which that user cannot mount.
fn mounts() -> Vec<String> {
    if !geteuid().is_root() {
        return Vec::new();
    }
    fs::read_to_string("/proc/self/mountinfo").unwrap_or_default().lines().map(str::to_owned).collect()
}
