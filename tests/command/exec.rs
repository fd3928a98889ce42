//! `Command::exec`: this process becomes the command. Each test calls it in a fork, which has one thread.

use std::fs::{self, File, Permissions};
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::ExitStatus;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork, pipe};
use nsexec::launch::{Command, LaunchError, SettingError, Stdio};
use nsexec::namespace::NsKind;
use nsexec::sys::types::Resource;

use crate::kit::{is_root, link, sh, stdout};

/// The result of an exec in a fork.
struct Executed {
    pid: Pid,
    output: String,
    /// The text of the error, if the command did not run.
    error: String,
    status: ExitStatus,
}

/// Calls `exec` in a fork of this process. Its standard output is a pipe.
fn exec(command: &mut Command) -> Executed {
    exec_after(command, || ())
}

/// As [`exec`]; the fork first calls `prepare`.
#[expect(
    clippy::disallowed_methods,
    reason = "the handlers of the fork take the lock of the allocator, which the child uses"
)]
fn exec_after(command: &mut Command, prepare: impl FnOnce()) -> Executed {
    let (output, write_output) = pipe().unwrap();
    let (error, write_error) = pipe().unwrap();
    // SAFETY: the child makes calls that allocate, which glibc permits after a fork, and exits.
    let pid = match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            drop((output, error));
            prepare();
            command.stdout(write_output);
            let failed = command.exec();
            let _ = File::from(write_error).write_all(failed.to_string().as_bytes());
            // SAFETY: the call ends this process at once.
            unsafe { nix::libc::_exit(failed.exit_code()) }
        }
        ForkResult::Parent { child } => {
            drop((write_output, write_error));
            child
        }
    };
    let read = |fd: OwnedFd| {
        let mut text = String::new();
        File::from(fd).read_to_string(&mut text).unwrap();
        text.trim_end().to_owned()
    };
    // The command does not inherit the pipe of the error.
    let (error, output) = (read(error), read(output));
    let mut raw = 0;
    // SAFETY: the kernel writes one int.
    let waited = unsafe { nix::libc::waitpid(pid.as_raw(), &raw mut raw, 0) };
    assert_eq!(waited, pid.as_raw());
    Executed { pid, output, error, status: ExitStatus::from_raw(raw) }
}

/// Returns the output of a command that runs.
fn output(command: &mut Command) -> String {
    let Executed { output, error, status, .. } = exec(command);
    assert!(error.is_empty() && status.success(), "{error}; {status}; {output}");
    output
}

/// std's `exec` does the same.
#[test]
fn script_without_an_interpreter_runs_in_the_shell() {
    let script = std::env::temp_dir().join(format!("nsexec-script-{}", nix::unistd::getpid()));
    fs::write(&script, "echo $# $2").unwrap();
    fs::set_permissions(&script, Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new(&script);
    command.args(["1", "a b"]);
    assert_eq!(output(&mut command), "2 a b");
    assert_eq!(stdout(&mut command), "2 a b");
    assert_eq!(stdout(command.unshare([NsKind::User, NsKind::Net]).map_root()), "2 a b");
    let mut theirs = std::process::Command::new(&script);
    // SAFETY: the code does nothing.
    let theirs = unsafe { theirs.args(["1", "a b"]).pre_exec(|| Ok(())) }.output().unwrap();
    assert_eq!(theirs.stdout, b"2 a b\n");
    fs::remove_file(&script).unwrap();
}

fn failure(command: &mut Command) -> (String, Option<i32>) {
    let Executed { error, status, output, .. } = exec(command);
    assert_eq!(output, "");
    (error, status.code())
}

#[test]
fn the_command_has_the_pid_of_the_process() {
    for kinds in [&[][..], &[NsKind::User, NsKind::Net], &[NsKind::User, NsKind::Pid, NsKind::Time]] {
        let ran = exec(sh("echo $$; exit 3").unshare(kinds.iter().copied()));
        assert_eq!((ran.output, ran.error), (ran.pid.to_string(), String::new()), "{kinds:?}");
        assert_eq!(ran.status.code(), Some(3));
    }
}

#[test]
fn each_kind_of_namespace_is_created_in_place() {
    for kind in NsKind::ALL {
        let kinds = if is_root() || kind == NsKind::User { vec![kind] } else { vec![NsKind::User, kind] };
        // A pid namespace is for the children.
        let file = if kind == NsKind::Pid { "pid_for_children" } else { kind.name() };
        let script = match kind {
            // Without a first child the link cannot be read.
            NsKind::Pid => "sh -c 'echo $$'".to_owned(),
            _ => format!("readlink /proc/self/ns/{file}"),
        };
        let found = output(sh(&script).unshare(kinds));
        match kind {
            NsKind::Pid => assert_eq!(found, "1"),
            kind => assert!(found.starts_with(kind.name()) && found != link("self", kind), "{found}"),
        }
    }
}

#[test]
fn all_kinds_are_created_together_and_belong_to_root_inside() {
    // The first child of the command is process 1 of the new pid namespace, whose end ends the others.
    let script = "id -u; id -g; cat /proc/self/setgroups; hostname inside && hostname";
    let found = output(sh("sh -c \"$0\"").arg(script).unshare(NsKind::ALL));
    let setgroups = if is_root() { "allow" } else { "deny" };
    assert_eq!(found, format!("0\n0\n{setgroups}\ninside"));
}

#[test]
fn maps_are_those_that_were_set() {
    let ids = (nix::unistd::getuid(), nix::unistd::getgid());
    let map = "cat /proc/self/uid_map /proc/self/gid_map | tr -s ' '";
    let of = |inside: (u32, u32)| format!(" {} {} 1\n {} {} 1", inside.0, ids.0, inside.1, ids.1);
    assert_eq!(output(sh(map).unshare([NsKind::User]).map_root()), of((0, 0)));
    assert_eq!(
        output(sh(map).unshare([NsKind::User]).map_current_user()),
        of((ids.0.as_raw(), ids.1.as_raw()))
    );
    let who = output(sh("id -u; id -g").unshare([NsKind::User, NsKind::Net]).map_current_user());
    assert_eq!(who, format!("{}\n{}", ids.0, ids.1));
}

#[test]
fn namespaces_of_a_process_are_joined_in_place() {
    let kinds = [NsKind::User, NsKind::Net, NsKind::Uts, NsKind::Pid, NsKind::Mnt, NsKind::Ipc];
    let mut owner = Command::new("sleep");
    let owner = owner.arg("600").unshare(kinds).kill_on_drop().spawn().unwrap();
    let of_owner = |kind| link(&owner.id().to_string(), kind);
    let script = "readlink /proc/self/ns/user /proc/self/ns/net /proc/self/ns/uts; id -u; sh -c 'echo $$'";
    let joined = [NsKind::User, NsKind::Net, NsKind::Uts, NsKind::Pid];
    let found = output(sh(script).join_pid(owner.id(), joined));
    let links = [NsKind::User, NsKind::Net, NsKind::Uts].map(of_owner).join("\n");
    assert!(found.starts_with(&format!("{links}\n0\n")), "{found}");
    // The child of the shell is the second process there, or a later one.
    assert!(found.lines().last().unwrap().parse::<u32>().unwrap() < 100, "{found}");
    // A mount namespace needs the sealed copy, or trust.
    let script = "readlink /proc/self/ns/mnt";
    let join = |command: &mut Command| {
        command.join_pid(owner.id(), [NsKind::User, NsKind::Mnt]);
    };
    let mut refused = sh(script);
    join(&mut refused);
    let (error, code) = failure(&mut refused);
    assert!(error.contains("CVE-2019-5736") && code == Some(1), "{error}");
    let mut trusted = sh(script);
    join(trusted.trust_mount_namespace());
    assert_eq!(output(&mut trusted), of_owner(NsKind::Mnt));
    // Namespaces are joined, and others created in them.
    let found =
        output(sh("readlink /proc/self/ns/net; id -u").join_pid(owner.id(), joined).unshare([NsKind::Ipc]));
    assert_eq!(found, format!("{}\n0", of_owner(NsKind::Net)));
}

/// The helper writes the maps while this process is not dumpable.
#[test]
fn a_user_namespace_is_created_inside_of_joined_ones() {
    if !is_root() {
        return;
    }
    let mut owner = Command::new("sleep");
    let owner = owner.arg("600").unshare([NsKind::Net]).kill_on_drop().spawn().unwrap();
    let mut command = sh("readlink /proc/self/ns/net; cat /proc/self/uid_map | tr -s ' '");
    command.join_pid(owner.id(), [NsKind::Net]).unshare([NsKind::User, NsKind::Uts]);
    assert_eq!(output(&mut command), format!("{}\n 0 0 1", link(&owner.id().to_string(), NsKind::Net)));
}

#[test]
fn surroundings_are_set_in_place() {
    let mut command = sh("hostname; pwd; umask; ulimit -n; cat /mnt/text; ls /dev/shm | wc -l");
    command
        .unshare([NsKind::User, NsKind::Mnt, NsKind::Uts, NsKind::Net])
        .hostname("exec")
        .tmpfs("/dev/shm")
        .tmpfs("/mnt")
        .bind_read_only("/proc/version", "/mnt/text")
        .current_dir("/mnt")
        .umask(0o27)
        .loopback_up();
    let found = output(&mut command);
    let lines: Vec<&str> = found.lines().collect();
    assert_eq!(lines[..3], ["exec", "/mnt", "0027"], "{found}");
    assert_eq!(lines.last(), Some(&"0"));
}

/// The limit that forbids descriptors comes last, as after a spawn. The command can then load no library.
#[test]
fn a_limit_of_no_descriptor_is_set_in_place() {
    for hard in [0, 1] {
        let mut command = sh("true");
        let Executed { error, status, .. } =
            exec(command.unshare([NsKind::User, NsKind::Uts]).limit(Resource::NOFILE, 0, hard));
        assert_eq!((error.as_str(), status.code()), ("", Some(127)), "{hard}");
    }
}

#[test]
fn ids_and_capabilities_are_those_that_were_set() {
    let script = "id -u; grep -E 'CapEff|NoNewPrivs' /proc/self/status";
    let mut command = sh(script);
    command.unshare([NsKind::User, NsKind::Uts]).capabilities([]).no_new_privs();
    assert_eq!(output(&mut command), "0\nCapEff:\t0000000000000000\nNoNewPrivs:\t1");
    if is_root() {
        let mut command = sh("id -u; id -g; id -G");
        command.unshare([NsKind::Net]).uid(1021).gid(1021).groups([7]);
        assert_eq!(output(&mut command), "1021\n1021\n1021 7");
    }
}

#[test]
fn the_command_has_no_descriptor_of_the_launch_and_no_child() {
    let file = File::open("/proc/version").unwrap();
    for kinds in [&[][..], &[NsKind::User, NsKind::Net]] {
        let script = "for fd in 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19; do \
                      [ -e /proc/$$/fd/$fd ] && open=\"$open $fd\"; done; echo $open; \
                      cat /proc/$$/task/$$/children 2>/dev/null; true";
        let mut command = sh(script);
        command.unshare(kinds.iter().copied()).fd(9, file.try_clone().unwrap());
        let ran = exec_after(&mut command, || {
            // A descriptor of the caller that any exec would pass on.
            nix::unistd::dup(&file).map(std::mem::forget).unwrap();
        });
        let lines: Vec<&str> = ran.output.lines().collect();
        assert_eq!(lines[0], "0 1 2 9", "{}", ran.error);
        // The shell itself has one child, cat.
        let children = lines.get(1).map_or(0, |line| line.split_whitespace().count());
        assert!(children <= 1, "{}", ran.output);
    }
    // As with std.
    let mut command = sh("ls /proc/$$/fd | wc -l");
    let inherits = exec_after(command.inherit_descriptors(), || {
        nix::unistd::dup(&file).map(std::mem::forget).unwrap();
    });
    assert!(inherits.output.parse::<u32>().unwrap() > 3, "{}", inherits.output);
}

#[test]
fn the_signal_state_is_that_of_an_exec() {
    let script = "grep -E 'SigBlk|SigIgn|SigCgt' /proc/self/status | cut -f2";
    for kinds in [&[][..], &[NsKind::User, NsKind::Net]] {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("exec sh -c \"{script}\"")]).unshare(kinds.iter().copied());
        let ran = exec_after(&mut command, || {
            let mut set = SigSet::empty();
            set.add(Signal::SIGUSR1);
            set.thread_block().unwrap();
            // SAFETY: the default of SIGUSR2 changes to ignore, and no handler runs.
            unsafe { nix::sys::signal::signal(Signal::SIGUSR2, nix::sys::signal::SigHandler::SigIgn) }
                .unwrap();
        });
        let lines: Vec<u64> =
            ran.output.lines().map(|line| u64::from_str_radix(line.trim(), 16).unwrap()).collect();
        let bit = |signal: Signal| 1_u64 << (signal as i32 - 1);
        assert_eq!(lines[0], bit(Signal::SIGUSR1), "{}", ran.error);
        // Rust's runtime ignores SIGPIPE; the command does not.
        let here = std::fs::read_to_string("/proc/self/status").unwrap();
        let ignored = here.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
        let ignored = u64::from_str_radix(ignored.trim(), 16).unwrap();
        assert_eq!(lines[1], ignored & !bit(Signal::SIGPIPE) | bit(Signal::SIGUSR2));
    }
}

#[test]
fn a_command_that_cannot_be_executed_has_the_status_of_a_shell() {
    for kinds in [&[][..], &[NsKind::User, NsKind::Net]] {
        let mut command = Command::new("no-such-command");
        let (error, code) = failure(command.unshare(kinds.iter().copied()));
        assert!(error.starts_with("failed to execute no-such-command: No such file"), "{error}");
        assert_eq!(code, Some(127));
        let mut command = Command::new("/proc/version");
        let (error, code) = failure(command.unshare(kinds.iter().copied()));
        assert!(error.starts_with("failed to execute /proc/version: "), "{error}");
        assert_eq!(code, Some(126));
    }
}

/// After a failure the process has its signal state, and no child.
#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "the handlers of the fork take the lock of the allocator, which the child uses"
)]
fn a_failed_exec_restores_the_signals_and_leaves_no_process() {
    let mut command = Command::new("no-such-command");
    command.unshare([NsKind::User, NsKind::Net]);
    let (reader, writer) = pipe().unwrap();
    // SAFETY: as in `exec_after`.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            let before = std::fs::read_to_string("/proc/self/status").unwrap();
            let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
            let fds = open();
            let error = command.exec();
            let after = std::fs::read_to_string("/proc/self/status").unwrap();
            let signals = |text: &str| -> Vec<String> {
                let is_state =
                    |line: &&str| ["SigBlk", "SigIgn", "SigCgt"].iter().any(|name| line.starts_with(name));
                text.lines().filter(is_state).map(str::to_owned).collect()
            };
            // ECHILD: no child of any kind exists.
            let child = nix::sys::wait::waitpid(None, Some(nix::sys::wait::WaitPidFlag::__WALL));
            let text = format!(
                "{} {} {} {}",
                matches!(error, LaunchError::Exec { .. }),
                signals(&before) == signals(&after),
                child == Err(nix::errno::Errno::ECHILD),
                fds == open(),
            );
            let _ = File::from(writer).write_all(text.as_bytes());
            // SAFETY: the call ends this process at once.
            unsafe { nix::libc::_exit(0) }
        }
        ForkResult::Parent { child } => {
            drop(writer);
            let mut text = String::new();
            File::from(reader).read_to_string(&mut text).unwrap();
            waitpid(child, None).unwrap();
            assert_eq!(text, "true true true true");
        }
    }
}

#[test]
fn refused_steps_are_named() {
    let (error, code) = failure(sh("").unshare([NsKind::User, NsKind::Mnt]).current_dir("/nowhere"));
    assert!(error.contains("failed to change to the directory /nowhere: No such file"), "{error}");
    assert_eq!(code, Some(1));
    if !is_root() {
        let (error, _) = failure(sh("").unshare([NsKind::Net]));
        assert!(error.contains("CLONE_NEWNET") && error.contains("not permitted"), "{error}");
    }
}

#[test]
fn settings_that_need_a_parent_are_refused() {
    let wrong = |change: fn(&mut Command) -> &mut Command| {
        let mut command = sh("");
        let error = change(command.unshare([NsKind::User])).exec();
        let LaunchError::Setting(SettingError::Conflict { settings: [setting, "exec"], .. }) = error else {
            panic!("{error:?}")
        };
        setting
    };
    assert_eq!(wrong(|command| command.unshare([NsKind::Pid]).init()), "init");
    assert_eq!(wrong(Command::kill_with_parent), "kill_with_parent");
    assert_eq!(wrong(|command| command.timeout(Duration::from_secs(1))), "timeout");
    assert_eq!(wrong(|command| command.before_start(|_| Ok(()))), "before_start");
    assert_eq!(wrong(|command| command.stdout(Stdio::piped())), "a piped standard stream");
    assert_eq!(
        wrong(|command| command.unshare([NsKind::Pid, NsKind::Mnt]).proc("/proc")),
        "a new /proc with a pid namespace"
    );
}

/// The suite's process has several threads.
#[test]
fn several_threads_are_refused_before_anything_is_done() {
    let other = std::thread::spawn(|| std::thread::sleep(Duration::from_secs(1)));
    let error = sh("").unshare([NsKind::User, NsKind::Net]).exec();
    let LaunchError::Setting(SettingError::Value { setting: "exec", why }) = &error else {
        panic!("{error:?}")
    };
    assert!(why.contains("threads") && why.contains("create a user namespace"), "{why}");
    assert_eq!(error.exit_code(), 2);
    other.join().unwrap();
}

/// The records come before the exec.
#[test]
fn records_are_delivered_before_the_exec() {
    let mut command = sh("echo ran");
    command.unshare([NsKind::User, NsKind::Net]).level(nsexec::launch::Level::Debug);
    let (reader, writer) = pipe().unwrap();
    let mut out = File::from(writer.try_clone().unwrap());
    command.on_record(move |record| writeln!(out, "{record}").unwrap());
    let ran = exec(&mut command);
    assert_eq!(ran.output, "ran");
    drop((command, writer));
    let mut text = String::new();
    File::from(reader).read_to_string(&mut text).unwrap();
    assert!(text.contains("update /proc/") && text.contains("unshare user namespace"), "{text}");
}
