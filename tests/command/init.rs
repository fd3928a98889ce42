//! A minimal init as process 1: statuses, orphans, signals, failures, and the end of its namespace.

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::process::ExitStatusExt as _;
use std::thread;
use std::time::{Duration, Instant};

use nsexec::launch::{Child, Command, LaunchError, SettingError, Stdio};
use nsexec::namespace::NsKind::{self, Mnt, Pid, User};

use crate::kit::{is_root, sh, stdout};

/// Returns a shell below a minimal init, with the /proc of its pid namespace.
fn inside(script: &str) -> Command {
    let mut command = sh(script);
    command.unshare([User, Pid, Mnt]).proc("/proc").init();
    command
}

/// Starts the script and waits for its first line.
fn begun(script: &str) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut child = inside(script).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    assert_eq!(line, "begun\n");
    (child, lines)
}

#[test]
fn init_passes_the_status_on() {
    assert_eq!(inside("exit 7").status().unwrap().code(), Some(7));
    assert_eq!(inside("exit 0").status().unwrap().code(), Some(0));
    // The command is not process 1, so its own signal ends it.
    let status = inside("kill -TERM $$").status().unwrap();
    assert_eq!((status.code(), status.signal()), (Some(143), None));
    assert_eq!(inside("kill -KILL $$").status().unwrap().code(), Some(137));
}

#[test]
fn command_is_process_2_below_the_init() {
    assert_eq!(stdout(&mut inside("echo $$ $PPID; cat /proc/1/comm")), "2 1\nnsexec-init");
}

#[test]
fn orphans_are_reaped_while_the_command_runs() {
    let script = "for i in 1 2 3 4 5; do (sh -c 'exit 3' & exec true); (sleep 0.02 & exec true); done
        n=0
        while [ $n -lt 200 ]; do
            left=$(cat /proc/[0-9]*/stat 2>/dev/null | grep -c ' [ZSR] 1 ')
            [ $left -le 1 ] && break; sleep 0.02; n=$((n + 1))
        done
        cat /proc/[0-9]*/stat 2>/dev/null | grep -c ' Z '; echo left $left";
    assert_eq!(stdout(&mut inside(script)), "0\nleft 1");
}

#[test]
fn signals_are_forwarded_to_the_command() {
    for (name, number) in [("TERM", 15), ("USR1", 10), ("HUP", 1), ("INT", 2), ("RTMIN+3", 37)] {
        let number = if name == "RTMIN+3" { nix::libc::SIGRTMIN() + 3 } else { number };
        let script = format!("trap 'echo got; exit 4' {number}; echo begun; while :; do sleep 0.05; done");
        let (child, mut lines) = begun(&script);
        child.signal(number).unwrap();
        let mut rest = String::new();
        lines.read_to_string(&mut rest).unwrap();
        let mut child = child;
        assert_eq!((rest.as_str(), child.wait().unwrap().code()), ("got\n", Some(4)), "{name}");
    }
}

#[test]
fn default_action_of_a_forwarded_signal_ends_the_command() {
    let (mut child, _lines) = begun("echo begun; exec sleep 60");
    child.signal(15).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(143));
}

#[test]
fn end_of_the_command_ends_its_namespace() {
    let began = Instant::now();
    let output = inside("sleep 60 & echo begun").output().unwrap();
    // The sleep has the pipe too, so its end is that of the namespace.
    assert_eq!((&output.stdout[..], output.status.code()), (&b"begun\n"[..], Some(0)));
    assert!(began.elapsed() < Duration::from_secs(30));
}

#[test]
fn init_keeps_no_descriptor() {
    let (mut child, mut lines) = begun("echo begun; exec >&- 2>&-; exec sleep 60");
    // The command has closed the pipe, and the init must not hold it.
    let mut rest = String::new();
    lines.read_to_string(&mut rest).unwrap();
    assert!(child.try_wait().unwrap().is_none());
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
}

#[test]
fn init_is_not_dumpable() {
    // Root of the new user namespace has no capability over the user namespace that owns the init's memory.
    let script =
        "cat /proc/1/environ >/dev/null 2>&1 && echo read; readlink /proc/1/exe /proc/1/ns/net; echo end";
    assert_eq!(stdout(&mut inside(script)), "end");
}

#[test]
fn failed_exec_is_the_error_as_without_an_init() {
    let mut with = Command::new("no-such-command");
    with.unshare([User, Pid]);
    let without = with.spawn().unwrap_err();
    let error = with.init().spawn().unwrap_err();
    assert!(matches!(error, LaunchError::Exec { .. }), "{error:?}");
    assert_eq!((error.exit_code(), error.to_string()), (127, without.to_string()));
    assert_eq!(std::io::Error::from(error).kind(), std::io::ErrorKind::NotFound);
    let mut folder = Command::new("/usr");
    let error = folder.unshare([User, Pid]).init().spawn().unwrap_err();
    assert_eq!(error.exit_code(), 126, "{error}");
}

#[test]
fn init_needs_a_created_pid_namespace() {
    let error = sh("").init().spawn().unwrap_err();
    assert_eq!(
        error,
        LaunchError::Setting(SettingError::NeedsNamespace { setting: "init", kind: NsKind::Pid })
    );
}

#[test]
fn failure_of_an_attribute_is_reported_from_below_the_init() {
    let mut command = inside("true");
    // SAFETY: the function only returns an error.
    unsafe { command.pre_exec(|| Err(std::io::Error::from_raw_os_error(nix::libc::EDOM))) };
    let error = command.spawn().unwrap_err().to_string();
    assert!(error.contains("failed in pre_exec function 0"), "{error}");
}

#[test]
fn command_with_other_ids_and_no_capability_gets_signals() {
    if !is_root() {
        return;
    }
    let mut command = sh("trap 'exit 5' TERM; echo begun; while :; do sleep 0.05; done");
    command.unshare([Pid]).init().uid(1234).gid(1234).capabilities([]).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    child.signal(15).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(5));
}

#[test]
fn kill_on_drop_ends_the_namespace() {
    let mut command = inside("sleep 60 & echo begun; exec sleep 60");
    let mut child = command.kill_on_drop().stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    drop(child);
    lines.read_to_string(&mut line).unwrap();
    assert_eq!(line, "begun\n");
}

#[test]
fn time_limit_ends_a_launch_whose_command_does_not_begin() {
    let mut command = inside("true");
    // SAFETY: the function only sleeps.
    unsafe {
        command.pre_exec(|| {
            thread::sleep(Duration::from_secs(60));
            Ok(())
        })
    };
    let began = Instant::now();
    let error = command.timeout(Duration::from_millis(200)).spawn().unwrap_err();
    assert!(matches!(error, LaunchError::TimedOut { .. }), "{error:?}");
    assert!(began.elapsed() < Duration::from_secs(30));
}

#[test]
fn starts_through_the_other_shapes_have_an_init() {
    let mut stages = inside("echo $$");
    assert_eq!(stdout(stages.before_start(|_| Ok(()))), "2");
    let mut session = inside("echo $$; exit 0");
    assert_eq!(stdout(session.new_session()), "2");
    if is_root() {
        let holder = sh("exec sleep 60").unshare([NsKind::Uts]).kill_on_drop().spawn().unwrap();
        let mut child = sh("echo $$");
        assert_eq!(stdout(child.join_pid(holder.id(), [NsKind::Uts]).unshare([Pid]).init()), "2");
    }
}

#[test]
fn threads_start_commands_with_an_init_at_the_same_time() {
    thread::scope(|scope| {
        for number in 0..4 {
            scope.spawn(move || {
                for _ in 0..5 {
                    let script = format!("(sleep 0.01 & exec true); exit {number}");
                    assert_eq!(inside(&script).status().unwrap().code(), Some(number));
                }
            });
        }
    });
}

/// The init is not dumpable. A caller without CAP_SYS_PTRACE opens the namespaces before the start.
#[test]
fn namespaces_are_opened_before_the_start() {
    let (kept, opened) = std::sync::mpsc::channel();
    let mut command = sh("exec sleep 100");
    command.unshare([User, Pid, NsKind::Uts]).init().before_start(move |starting| {
        kept.send(starting.namespace(NsKind::Uts)?).unwrap();
        Ok(())
    });
    let mut child = command.spawn().unwrap();
    let uts = opened.recv().unwrap();
    let link = std::fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&uts)));
    assert!(link.unwrap().to_str().unwrap().starts_with("uts:["));
    let later = child.namespace(NsKind::Uts).map(|_| ());
    child.kill().unwrap();
    child.wait().unwrap();
    if is_root() {
        later.unwrap();
    } else {
        assert_eq!(later.unwrap_err().raw_os_error(), Some(libc::EACCES));
    }
}
