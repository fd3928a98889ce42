//! The suite again, as an ordinary user, and in a process that is killed.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nsexec::launch::Command;
use nsexec::namespace::NsKind;

use crate::kit::is_root;

/// An id without a name on most machines.
const USER: u32 = 1021;

#[test]
fn the_suite_again_as_an_ordinary_user() {
    if !is_root() {
        return;
    }
    let again = std::process::Command::new("/proc/self/exe")
        .args(["--skip", "again::", "--test-threads", "2"])
        .uid(USER)
        .gid(USER)
        .current_dir("/")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&again.stdout);
    assert!(again.status.success(), "{text}\n{}", String::from_utf8_lossy(&again.stderr));
    assert!(text.contains("test result: ok"), "{text}");
}

/// Run by the next test in a process of its own: launches on a worker thread, and waits to be killed.
#[test]
fn launch_on_a_thread_and_wait() {
    let Some(how) = std::env::var_os("NSEXEC_TEST_WAITS") else { return };
    let launch = move || {
        let mut command = Command::new("sleep");
        command.arg("600").kill_with_parent();
        if how == "init" {
            command.unshare([NsKind::User, NsKind::Pid]).init();
        }
        command.spawn().unwrap()
    };
    let child = std::thread::spawn(launch).join().unwrap();
    println!("pid {}", child.id());
    std::thread::sleep(Duration::from_secs(600));
}

#[test]
fn a_command_is_killed_with_the_program_that_launched_it_on_a_thread() {
    killed_with_the_program("plain");
}

#[test]
fn an_init_is_killed_with_the_program_that_launched_it_on_a_thread() {
    killed_with_the_program("init");
}

/// Kills a program that has launched a command in this way.
fn killed_with_the_program(how: &str) {
    let mut program = std::process::Command::new("/proc/self/exe")
        .args(["--exact", "again::launch_on_a_thread_and_wait", "--nocapture"])
        .env("NSEXEC_TEST_WAITS", how)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(program.stdout.take().unwrap()).lines();
    let pid = lines.map(Result::unwrap).find_map(|line| Some(line.split_once("pid ")?.1.parse().unwrap()));
    let pid = nix::unistd::Pid::from_raw(pid.unwrap());
    let lives = || match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => !stat.contains(") Z "),
        Err(_) => false,
    };
    std::thread::sleep(Duration::from_millis(100));
    assert!(lives());
    program.kill().unwrap();
    program.wait().unwrap();
    let end = Instant::now() + Duration::from_secs(60);
    while lives() {
        assert!(Instant::now() < end, "the command still runs");
        std::thread::sleep(Duration::from_millis(5));
    }
}
