//! The interface of `std::process::Command`.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::time::{Duration, Instant};

use nix::sys::stat::{Mode, umask};
use nsexec::launch::{Command, LaunchError, SettingError, Stdio};
use nsexec::namespace::NsKind;
use nsexec::sys::Sys as _;
use nsexec::sys::linux::LinuxSys;

use crate::kit::{is_root, sh, stdout};

#[test]
fn output_and_status_are_those_of_the_command() {
    let output = sh("echo out; echo err >&2; exit 3").output().unwrap();
    assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"out\n"[..], &b"err\n"[..]));
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(sh("exit 7").status().unwrap().code(), Some(7));
    let killed = sh("kill -9 $$").status().unwrap();
    assert_eq!(killed.signal(), Some(9));
}

#[test]
fn large_output_on_both_streams_does_not_block() {
    let output = sh("head -c 300000 /dev/zero >&2; head -c 300000 /dev/zero").output().unwrap();
    assert_eq!((output.stdout.len(), output.stderr.len()), (300_000, 300_000));
}

/// A failed read does not leave a process that no one has waited for.
#[test]
fn a_command_whose_output_cannot_be_read_is_waited_for() {
    let mut child = sh("exit 3").spawn().unwrap();
    let pid = nix::unistd::Pid::from_raw(child.pid().0);
    // A directory is always ready, and cannot be read.
    child.stdout = Some(OwnedFd::from(File::open("/").unwrap()).into());
    let error = child.wait_with_output().unwrap_err();
    assert_eq!(error.raw_os_error(), Some(nix::libc::EISDIR));
    assert_eq!(nix::sys::wait::waitpid(pid, None), Err(nix::errno::Errno::ECHILD));
}

#[test]
fn output_has_an_empty_standard_input() {
    assert_eq!(stdout(&mut sh("cat; echo end")), "end");
}

#[test]
fn a_piped_command_reads_and_writes() {
    let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"through").unwrap();
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "through");
    assert!(child.wait().unwrap().success());
}

#[test]
fn wait_closes_standard_input() {
    let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn one_command_reads_the_output_of_another() {
    let mut first = sh("echo 4 words are here").stdout(Stdio::piped()).spawn().unwrap();
    let from = first.stdout.take().unwrap();
    assert_eq!(stdout(Command::new("wc").arg("-w").stdin(from)), "4");
    assert!(first.wait().unwrap().success());
}

#[test]
fn files_are_standard_streams() {
    let file = || File::open("/proc/self/status").unwrap();
    assert!(stdout(sh("cat").stdin(file())).starts_with("Name:"));
    let null = File::create("/dev/null").unwrap();
    assert_eq!(stdout(sh("echo gone >&2; echo here").stderr(null)), "here");
}

#[test]
fn arguments_and_environment_are_those_that_were_set() {
    let mut command = sh("echo $0 $1 $A $B ${HOME-none}");
    command.args(["zero", "one"]).env("A", "1").envs([("B", "2"), ("C", "3")]).env_remove("HOME");
    assert_eq!(stdout(&mut command), "zero one 1 2 none");
    assert_eq!(stdout(Command::new("/usr/bin/env").env_clear().env("ONLY", "this")), "ONLY=this");
    assert_eq!(
        stdout(sh("cat /proc/$$/cmdline | tr '\\0' ' '").arg0("renamed")).split(' ').next(),
        Some("renamed")
    );
}

#[test]
fn directory_is_that_of_the_command() {
    assert_eq!(stdout(Command::new("pwd").env_remove("PWD").current_dir("/usr/bin")), "/usr/bin");
    let error = Command::new("pwd").current_dir("/nowhere").spawn().unwrap_err().to_string();
    assert!(
        error.contains("failed to change to the directory /nowhere: No such file or directory"),
        "{error}"
    );
    let error = Command::new("pwd").current_dir("/proc/self/status").spawn().unwrap_err().to_string();
    assert!(error.contains("Not a directory"), "{error}");
    let error = Command::new("pwd").current_dir("/a\0b").spawn().unwrap_err();
    assert_eq!(error, LaunchError::Setting(SettingError::Nul { setting: "current_dir" }));
}

#[test]
fn a_missing_command_is_an_error_of_the_exec() {
    let error = Command::new("no-such-command").spawn().unwrap_err();
    assert!(matches!(error, LaunchError::Exec { .. }), "{error:?}");
    assert_eq!(error.exit_code(), 127);
    let text = error.to_string();
    let error = std::io::Error::from(error);
    assert_eq!((error.kind(), error.to_string()), (std::io::ErrorKind::NotFound, text));
    let error = Command::new("a\0b").spawn().unwrap_err();
    assert!(matches!(error, LaunchError::Command(_)), "{error:?}");
}

#[test]
fn the_command_gets_no_descriptor_that_was_not_named() {
    let (read, write) = nix::unistd::pipe().unwrap();
    assert_eq!(nix::fcntl::fcntl(&write, nix::fcntl::FcntlArg::F_GETFD).unwrap(), 0);
    let list = "for fd in /proc/self/fd/*; do echo ${fd##*/}; done | sort -n | tail -n 1";
    // The shell opens the directory itself.
    let highest: i32 = stdout(&mut sh(list)).parse().unwrap();
    assert!(highest < read.as_raw_fd().max(10), "{highest}");
    let held = format!("test -e /proc/self/fd/{}", write.as_raw_fd());
    assert_eq!(sh(&held).status().unwrap().code(), Some(1));
    assert_eq!(sh(&held).inherit_descriptors().status().unwrap().code(), Some(0));
}

#[test]
fn named_descriptors_have_their_numbers() {
    let file = || OwnedFd::from(File::open("/proc/self/status").unwrap());
    assert!(stdout(sh("cat <&7").fd(7, file())).starts_with("Name:"));
    // Numbers that the launch itself uses for its pipes, and some in the other order.
    for numbers in [[3, 4, 5], [5, 4, 3], [4, 3, 6]] {
        let mut command = sh(&numbers.map(|number| format!("head -n 1 <&{number}; ")).concat());
        for number in numbers {
            command.fd(number, file());
        }
        assert_eq!(stdout(&mut command).lines().count(), 3, "{numbers:?}");
    }
    let error = sh("").fd(7, file()).fd(7, file()).spawn().unwrap_err();
    assert!(matches!(error, LaunchError::Setting(SettingError::NumberTwice { .. })), "{error:?}");
    let error = sh("").fd(1, file()).stdout(Stdio::null()).spawn().unwrap_err();
    assert!(matches!(error, LaunchError::Setting(SettingError::NumberTwice { .. })), "{error:?}");
    let error = sh("").fd(u32::MAX, file()).spawn().unwrap_err().to_string();
    assert!(error.contains("4294967295"), "{error}");
}

/// The launch itself needs a number above those of the command.
#[test]
fn numbers_at_the_limit_of_descriptors_are_refused() {
    let file = || OwnedFd::from(File::open("/proc/self/status").unwrap());
    let (limit, _) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap();
    let limit = u32::try_from(limit).unwrap();
    for number in [1 << 30, limit, limit - 1] {
        let error = sh("").fd(number, file()).spawn().unwrap_err();
        assert!(matches!(error, LaunchError::Setting(SettingError::Value { setting: "fd", .. })), "{error}");
        assert!(error.to_string().contains(&number.to_string()), "{error}");
    }
    // dash accepts one digit only.
    let test = format!("test -e /proc/self/fd/{}", limit - 2);
    assert_eq!(sh(&test).fd(limit - 2, file()).status().unwrap().code(), Some(0));
}

/// Nothing would come through the pipe.
#[test]
fn output_refuses_a_descriptor_in_place_of_the_pipe() {
    let null = || File::options().read(true).write(true).open("/dev/null").unwrap();
    for number in [1, 2] {
        let error = sh("echo a").fd(number, null()).output().unwrap_err();
        assert!(matches!(error, LaunchError::Setting(SettingError::Conflict { .. })), "{error}");
        assert!(sh("echo a").fd(number, null()).status().unwrap().success());
    }
    assert_eq!(stdout(sh("head -c 4").fd(0, File::open("/proc/self/status").unwrap())), "Name");
}

#[test]
fn wait_timeout_returns_while_the_command_runs_and_after_its_end() {
    let mut child = Command::new("sleep").arg("600").spawn().unwrap();
    let begin = Instant::now();
    assert_eq!(child.wait_timeout(Duration::from_millis(50)).unwrap(), None);
    assert!(begin.elapsed() >= Duration::from_millis(50));
    child.pidfd().unwrap();
    child.kill().unwrap();
    let status = child.wait_timeout(Duration::from_secs(600)).unwrap().unwrap();
    assert_eq!(status.signal(), Some(9));
    assert_eq!(child.wait_timeout(Duration::ZERO).unwrap(), Some(status));
    // Nothing is sent, and no error.
    child.kill().unwrap();
}

#[test]
fn a_handle_has_the_pidfd_and_the_namespaces() {
    let mut child = Command::new("sleep").arg("600").kill_on_drop().spawn().unwrap();
    assert_eq!(child.id(), u32::try_from(child.pid().0).unwrap());
    assert!(child.pidfd().unwrap().as_raw_fd() > 2);
    let namespace = File::from(child.namespace(NsKind::Net).unwrap());
    drop(namespace);
    child.signal(15).unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(15));
    // After the wait nothing is sent, and the pidfd is still that of the command.
    child.signal(15).unwrap();
    child.pidfd().unwrap();
}

#[test]
fn kill_on_drop_leaves_no_process() {
    let child = Command::new("sleep").arg("600").kill_on_drop().spawn().unwrap();
    let pid = nix::unistd::Pid::from_raw(child.pid().0);
    drop(child);
    assert_eq!(nix::sys::signal::kill(pid, None), Err(nix::errno::Errno::ESRCH));
}

/// Another part of the program waits for all children, as an old event loop does.
#[test]
fn a_command_that_another_wait_has_reaped_is_an_error_and_gets_no_signal() {
    let mut child = sh("exit 3").kill_on_drop().spawn().unwrap();
    let pid = nix::unistd::Pid::from_raw(child.pid().0);
    nix::sys::wait::waitpid(pid, None).unwrap();
    for _ in 0..2 {
        assert_eq!(child.try_wait().unwrap_err().raw_os_error(), Some(nix::libc::ECHILD));
    }
    assert_eq!(child.wait().unwrap_err().raw_os_error(), Some(nix::libc::ECHILD));
    assert_eq!(child.kill().unwrap_err().raw_os_error(), Some(nix::libc::ESRCH));
    assert_eq!(child.namespace(NsKind::Net).unwrap_err().raw_os_error(), Some(nix::libc::ESRCH));
}

/// The pidfd exists from the launch on: one that is opened later could be that of another process.
#[test]
fn the_pidfd_is_opened_with_the_launch() {
    let child = sh("exit 0").spawn().unwrap();
    let pid = nix::unistd::Pid::from_raw(child.pid().0);
    nix::sys::wait::waitpid(pid, None).unwrap();
    child.pidfd().unwrap();
}

/// A thread with other ids may not kill the command (kill(2)). The kernel keeps ids for each thread.
#[test]
fn kill_on_drop_does_not_wait_for_a_command_that_it_may_not_kill() {
    if !is_root() {
        return;
    }
    let child = Command::new("sleep").arg("600").kill_on_drop().spawn().unwrap();
    let pid = nix::unistd::Pid::from_raw(child.pid().0);
    let (dropped, is_dropped) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        // SAFETY: the call changes the ids of this thread alone, which ends soon.
        unsafe { LinuxSys::new() }.setresuid(1021).unwrap();
        drop(child);
        dropped.send(()).unwrap();
    });
    let in_time = is_dropped.recv_timeout(Duration::from_secs(20));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    let _ = nix::sys::wait::waitpid(pid, None);
    in_time.expect("the drop waits for a command that runs on");
}

#[test]
fn pre_exec_runs_in_the_commands_process_and_its_error_is_reported() {
    let mut command = sh("umask");
    // SAFETY: one system call.
    unsafe {
        command.pre_exec(|| {
            umask(Mode::S_IRWXO);
            Ok(())
        })
    };
    assert_eq!(stdout(&mut command), "0007");
    assert_ne!(stdout(&mut sh("umask")), "0007");
    // SAFETY: no call at all.
    unsafe { command.pre_exec(|| Err(std::io::Error::from_raw_os_error(5))) };
    let error = command.spawn().unwrap_err().to_string();
    assert!(error.contains("failed in pre_exec function 1: Input/output error"), "{error}");
}

#[test]
fn before_start_knows_the_process_and_can_end_the_launch() {
    let (send, receive) = std::sync::mpsc::channel();
    let mut command = sh("readlink /proc/self/ns/user");
    command.unshare([NsKind::User]).before_start(move |starting| {
        let path = format!("/proc/{}/ns/user", starting.pid());
        send.send(std::fs::read_link(path)?).unwrap();
        starting.namespace(NsKind::User).map(drop)
    });
    let seen = stdout(&mut command);
    assert_eq!(receive.recv().unwrap().to_str().unwrap(), seen);
    // All new namespaces exist by then.
    for kind in NsKind::ALL {
        let (send, receive) = std::sync::mpsc::channel();
        let mut command = sh(&format!("readlink /proc/self/ns/{kind}"));
        command.unshare([NsKind::User, kind]).before_start(move |starting| {
            send.send(std::fs::read_link(format!("/proc/{}/ns/{kind}", starting.pid()))?).unwrap();
            Ok(())
        });
        assert_eq!(stdout(&mut command), receive.recv().unwrap().to_str().unwrap(), "{kind}");
    }
    let mut command = sh("");
    command.before_start(|_| Err(std::io::Error::other("no veth left")));
    let error = command.spawn().unwrap_err();
    assert_eq!(error, LaunchError::BeforeStart { error: "no veth left".into() });
}

#[test]
fn ids_of_the_command_are_set_by_root_only() {
    let mut command = sh("id -u; id -g; id -G");
    command.uid(1234).gid(4321);
    if !is_root() {
        let error = command.spawn().unwrap_err().to_string();
        assert!(error.contains("failed to set the group id 4321: Operation not permitted"), "{error}");
        return;
    }
    assert_eq!(stdout(&mut command), "1234\n4321\n4321");
    assert_eq!(stdout(sh("id -G").groups([7, 5]).uid(9)), "0 5 7");
    assert_eq!(stdout(sh("id -u").uid(0)), "0");
}

#[test]
fn a_command_is_cloned_and_used_again() {
    let mut one = sh("echo $A");
    one.env("A", "1");
    let mut other = one.clone();
    other.env("A", "2");
    assert_eq!(
        (stdout(&mut one), stdout(&mut other), stdout(&mut one)),
        ("1".into(), "2".into(), "1".into())
    );
}
