//! The session of a command, its terminal and its keyring, and its cgroup.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::time::Duration;

use nix::pty::openpty;
use nsexec::error::Code;
use nsexec::launch::shape::{Memory, Protection, WhyCopied};
use nsexec::launch::{Command, LaunchError, Stdio};
use nsexec::namespace::NsKind::{Cgroup, Pid, User, Uts};
use nsexec::sys::types::Errno;

use crate::kit::{is_root, sh, stdout};

/// Returns a new pseudo-terminal: our end, and that of the command.
fn terminal() -> (fs::File, OwnedFd) {
    let pty = openpty(None, None).unwrap();
    (pty.master.into(), pty.slave)
}

/// Reads from the terminal until this text has come.
fn read_until(ours: &mut fs::File, text: &str) -> String {
    let (mut got, mut buffer) = (String::new(), [0; 512]);
    while !got.contains(text) {
        let count = ours.read(&mut buffer).unwrap();
        got.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
    }
    got
}

#[test]
fn standard_input_becomes_the_controlling_terminal() {
    for kinds in [&[][..], &[User, Uts], &[User, Pid]] {
        let (mut ours, theirs) = terminal();
        let mut command = sh("exec 2>&1; true < /dev/tty && echo opened; echo ready; exec sleep 100");
        command.unshare(kinds.iter().copied()).stdin(theirs.try_clone().unwrap()).stdout(theirs);
        let mut child = command.controlling_terminal().spawn().unwrap();
        assert!(read_until(&mut ours, "ready").contains("opened"), "{kinds:?}");
        // Process 1 of a pid namespace gets no signal without a handler (pid_namespaces(7)).
        if kinds.contains(&Pid) {
            child.kill().unwrap();
            child.wait().unwrap();
            continue;
        }
        ours.write_all(b"\x03").unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGINT), "{kinds:?}");
    }
}

#[test]
fn terminal_of_a_command_with_an_init_is_that_of_the_session() {
    let (mut ours, theirs) = terminal();
    let mut command = sh("exec 2>&1; true < /dev/tty && echo opened; echo ready; exec sleep 100");
    command.unshare([User, Pid]).init().stdin(theirs.try_clone().unwrap()).stdout(theirs);
    let mut child = command.controlling_terminal().spawn().unwrap();
    assert!(read_until(&mut ours, "ready").contains("opened"));
    // The kernel sends SIGINT to the process group: to the command, and to the init, which does not send it
    // again.
    ours.write_all(b"\x03").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(128 + libc::SIGINT));
}

/// The kernel reports the end of a terminal to the leader of the session, which is the init.
#[test]
fn hang_up_of_the_terminal_reaches_a_command_below_an_init() {
    let (mut ours, theirs) = terminal();
    let mut command = sh("trap 'exit 42' HUP; echo ready; while :; do sleep 0.02; done");
    command.unshare([User, Pid]).init().stdin(theirs.try_clone().unwrap()).stdout(theirs);
    let mut child = command.controlling_terminal().timeout(Duration::from_secs(10)).spawn().unwrap();
    read_until(&mut ours, "ready");
    // The last other end: `command` has that of the child.
    drop((ours, command));
    let ended = child.wait_timeout(Duration::from_secs(10)).unwrap();
    child.kill().unwrap();
    assert_eq!(ended.and_then(|status| status.code()), Some(42));
}

#[test]
fn without_the_setting_a_new_session_has_no_terminal() {
    let (mut ours, theirs) = terminal();
    let mut command = sh("exec 2>&1; true < /dev/tty && echo opened; echo ready");
    command.stdin(theirs.try_clone().unwrap()).stdout(theirs);
    let mut child = command.new_session().spawn().unwrap();
    assert!(!read_until(&mut ours, "ready").contains("opened"));
    assert!(child.wait().unwrap().success());
}

/// Returns the step and the errno of the failed launch, with its text.
fn failure(command: &mut Command) -> (Code, Option<Errno>, String) {
    let error = command.spawn().map(|_| ()).unwrap_err();
    let (code, errno) = error.step().unwrap();
    (code, errno, error.to_string())
}

#[test]
fn wrong_or_taken_terminal_is_an_error() {
    let (code, errno, text) = failure(sh("true").stdin(Stdio::null()).controlling_terminal());
    assert_eq!((code, errno), (Code::Terminal, Some(Errno::ENOTTY)));
    assert!(text.contains("failed to make standard input the controlling terminal"), "{text}");
    assert!(text.contains("standard input of the command is not a terminal"), "{text}");

    let (_ours, theirs) = terminal();
    let mut first = sh("exec sleep 100");
    let mut child = first.stdin(theirs.try_clone().unwrap()).controlling_terminal().spawn().unwrap();
    let (code, errno, text) = failure(sh("true").stdin(theirs).controlling_terminal());
    assert_eq!((code, errno), (Code::Terminal, Some(Errno::EPERM)));
    assert!(text.contains("controls another session"), "{text}");
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Returns the number of the session keyring: `keyctl(KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 0)`.
fn keyring() -> i64 {
    // SAFETY: numbers.
    unsafe { libc::syscall(libc::SYS_keyctl, 0, -3, 0) }
}

#[test]
fn session_keyring_is_a_new_one() {
    let own = keyring();
    let differs = move || match keyring() == own {
        true => Err(std::io::Error::from_raw_os_error(libc::EKEYREJECTED)),
        false => Ok(()),
    };
    for kinds in [&[][..], &[User, Uts]] {
        let mut command = sh("echo ran");
        // SAFETY: one system call.
        unsafe { command.unshare(kinds.iter().copied()).pre_exec(differs) };
        let (code, errno, _) = failure(&mut command);
        assert_eq!((code, errno), (Code::CodeOfCaller, Some(Errno(libc::EKEYREJECTED))));
        assert_eq!(stdout(command.new_session_keyring()), "ran", "{kinds:?}");
    }
    assert_eq!(keyring(), own);
}

/// A new cgroup, which is removed at the end.
struct TestCgroup(PathBuf);

impl TestCgroup {
    fn new(hierarchy: &str, name: &str) -> Self {
        let name = format!("nsexec-test-{}-{name}", std::process::id());
        let path = PathBuf::from(format!("/sys/fs/cgroup/{hierarchy}/{name}"));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn name(&self) -> &str {
        self.0.file_name().unwrap().to_str().unwrap()
    }
}

impl Drop for TestCgroup {
    fn drop(&mut self) {
        // EBUSY: the test has failed, and left a process.
        let _ = fs::remove_dir(&self.0);
    }
}

/// Returns the names of hierarchies that this machine has mounted: of version 2, and of version 1.
fn hierarchies() -> Vec<&'static str> {
    let there = |name: &&str| fs::exists(format!("/sys/fs/cgroup/{name}/cgroup.procs")).unwrap();
    ["unified", "pids", "."].into_iter().filter(there).collect()
}

#[test]
fn command_runs_in_its_cgroup() {
    if !is_root() {
        return;
    }
    let before = fs::read_to_string("/proc/self/cgroup").unwrap();
    for hierarchy in hierarchies() {
        let cgroup = TestCgroup::new(hierarchy, "runs");
        let inside = |command: &mut Command| stdout(command.cgroup(&cgroup.0));
        assert!(inside(&mut sh("cat /proc/self/cgroup")).contains(cgroup.name()));
        // The cgroup is the root of the new cgroup namespace.
        for kinds in [&[Cgroup][..], &[User, Cgroup], &[Cgroup, Uts]] {
            for through_stages in [false, true] {
                let mut command = sh("cat /proc/self/cgroup");
                if through_stages {
                    command.before_start(|_| Ok(()));
                }
                let text = inside(command.unshare(kinds.iter().copied()));
                assert!(!text.contains(cgroup.name()), "{hierarchy} {kinds:?} {through_stages}: {text}");
                let kind = match hierarchy {
                    "pids" => ":pids:/",
                    _ => "0::/",
                };
                assert!(text.lines().any(|line| line.ends_with(kind)), "{hierarchy} {kinds:?}: {text}");
            }
        }
    }
    assert_eq!(fs::read_to_string("/proc/self/cgroup").unwrap(), before);
}

/// The kernel ends all processes that share the memory of the victim of an out-of-memory kill. The process of
/// the command must not share that of this test.
#[test]
fn out_of_memory_kill_in_the_cgroup_of_the_command_spares_the_launcher() {
    let directory = hierarchies().first().map(|name| format!("/sys/fs/cgroup/{name}"));
    if let (true, Some(directory)) = (is_root(), directory) {
        let mut command = sh("true");
        assert_eq!(command.prepare().unwrap().memory(true, &Protection::NONE), Memory::Shared);
        let prepared = command.cgroup(directory).prepare().unwrap();
        assert_eq!(prepared.memory(true, &Protection::NONE), Memory::Copied(WhyCopied::Cgroup));
    }
    let limit = "memory.limit_in_bytes";
    if !is_root() || !fs::exists(format!("/sys/fs/cgroup/memory/{limit}")).unwrap() {
        return;
    }
    let cgroup = TestCgroup::new("memory", "kills");
    fs::write(cgroup.0.join(limit), "0").unwrap();
    // The process needs more memory than none before its exec.
    let mut command = sh("true");
    command.cgroup(&cgroup.0);
    assert!(command.spawn().is_err());
    let control = fs::read_to_string(cgroup.0.join("memory.oom_control")).unwrap();
    assert!(control.lines().any(|line| line.starts_with("oom_kill ") && line != "oom_kill 0"), "{control}");
}

/// Returns the text of the error that is found before a process is created.
fn refused(command: &mut Command) -> String {
    match command.spawn().map(|_| ()) {
        Err(LaunchError::Setting(error)) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn directory_outside_of_the_cgroup_file_systems_is_an_error() {
    let missing = refused(sh("true").cgroup("/sys/fs/cgroup/nowhere"));
    assert!(missing.contains("/sys/fs/cgroup/nowhere/cgroup.procs: No such file"), "{missing}");
    let folder = std::env::temp_dir().join(format!("nsexec-no-cgroup-{}", std::process::id()));
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("cgroup.procs"), "").unwrap();
    let other = refused(sh("true").cgroup(&folder));
    fs::remove_dir_all(&folder).unwrap();
    assert!(other.contains("it is not on a cgroup file system"), "{other}");
    assert!(refused(sh("true").cgroup("a\0b")).contains("NUL"));
    if !is_root() {
        for hierarchy in hierarchies() {
            let path = format!("/sys/fs/cgroup/{hierarchy}");
            assert!(refused(sh("true").cgroup(path)).contains("Permission denied"));
        }
    }
}

#[test]
fn cgroup_that_accepts_no_process_is_an_error() {
    if !is_root() || !hierarchies().contains(&"unified") {
        return;
    }
    let outer = TestCgroup::new("unified", "outer");
    let threaded = TestCgroup(outer.0.join("threaded"));
    fs::create_dir(&threaded.0).unwrap();
    fs::write(threaded.0.join("cgroup.type"), "threaded").unwrap();
    // Below a threaded cgroup, and not threaded itself.
    let inner = TestCgroup(threaded.0.join("invalid"));
    fs::create_dir(&inner.0).unwrap();
    let (code, errno, text) = failure(sh("true").cgroup(&inner.0));
    assert_eq!((code, errno), (Code::EnterCgroup, Some(Errno::EOPNOTSUPP)), "{text}");
    assert!(text.contains(&*inner.0.to_string_lossy()), "{text}");
}
