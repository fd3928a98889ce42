//! Launches that succeed, and launches that fail.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nsexec::bootstrap::{Bootstrap, Dialect};
use nsexec::idmap::IdMap;
use nsexec::launch::Descriptors;
use nsexec::launch::{Child, LaunchError, Launcher, exit_code};
use nsexec::log::Level;
use nsexec::namespace::NsSet;
use nsexec::namespace::paths::NsPaths;
use nsexec::policy::{Credentials, Policy, Session, Setgroups};
use nsexec::sys::Sys;
use nsexec::sys::linux::LinuxSys;
use nsexec::sys::types::{CloneFlags, Errno, ExitSignal, Fd, Fork, Propagation};
use nsexec_audit::record::{LineRef, Recorder, Sink};

use crate::{Case, helper, no_child_left};
use support::LIMIT;

pub(crate) const CASES: &[Case] = &[
    ("nothing_unshared", nothing_unshared),
    ("named_descriptors", named_descriptors),
    ("root_last", root_last),
    ("all_kinds", all_kinds),
    ("a_command_that_is_not_there", a_command_that_is_not_there),
    ("a_command_that_cannot_run", a_command_that_cannot_run),
    ("a_script_without_an_interpreter_runs_in_the_shell", a_script_without_an_interpreter_runs_in_the_shell),
    ("a_join_that_fails", a_join_that_fails),
    ("a_refused_mount", a_refused_mount),
    ("records_arrive", records_arrive),
    ("record_callback_may_launch", record_callback_may_launch),
    ("panic_in_the_record_callback_kills_the_command", panic_in_the_record_callback_kills_the_command),
    ("other_children_of_the_program_are_not_reaped", other_children_of_the_program_are_not_reaped),
    ("a_child_without_exit_signal_is_not_reaped_by_a_direct_start", || {
        child_without_exit_signal_is_not_reaped(Shape::Direct)
    }),
    ("a_child_without_exit_signal_is_not_reaped_by_a_start_through_a_child", || {
        child_without_exit_signal_is_not_reaped(Shape::Child)
    }),
    ("kill_child", kill_child),
    ("threads_that_allocate", threads_that_allocate),
    ("two_threads_launch", two_threads_launch),
    ("a_large_message", a_large_message),
    ("panic_in_a_stage_ends_only_that_stage", panic_in_a_stage_ends_only_that_stage),
];

/// The policy of `nsexec run`: in the caller's session, without mounts, without a parent-death signal for the
/// command.
pub(crate) fn policy() -> Policy {
    Policy::runc(&Dialect::V1_2).with_session(Session::Keep).with_credentials(Credentials::Keep)
}

/// The shape of a start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Shape {
    /// The launcher creates the command's process.
    Direct,
    /// The launcher creates stage 1.
    Child,
    /// The policy asks for the three stages.
    Stages,
}

impl Shape {
    pub(crate) const ALL: [Self; 3] = [Self::Direct, Self::Child, Self::Stages];
    /// The shapes that can create a user namespace in the caller's namespaces.
    pub(crate) const WITH_MAPS: [Self; 2] = [Self::Direct, Self::Stages];

    /// Returns the policy for a start of this shape.
    pub(crate) fn of(self, policy: Policy) -> Policy {
        policy.with_stages(self == Self::Stages)
    }

    /// Returns the shape as an argument of a helper process.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Child => "child",
            Self::Stages => "stages",
        }
    }

    pub(crate) fn from_word(word: &str) -> Self {
        Self::ALL.into_iter().find(|shape| shape.word() == word).expect("a shape")
    }

    /// Returns a request that changes no namespace. A start through a child joins one in which it is already.
    pub(crate) fn nothing(self) -> Bootstrap<'static> {
        let nothing = Bootstrap::new(CloneFlags::EMPTY);
        match self {
            Self::Direct | Self::Stages => nothing,
            Self::Child => {
                nothing.with_namespaces(NsPaths::parse(b"net:/proc/self/ns/net", NsSet::ALL).unwrap())
            }
        }
    }

    /// Returns a launcher that changes no namespace.
    pub(crate) fn plain(self) -> Launcher {
        Launcher::new(&self.nothing(), self.of(policy())).unwrap()
    }

    /// Does the same as [`plain`](Self::plain). The first process closes the caller's descriptors.
    pub(crate) fn closing(self) -> Launcher {
        Launcher::new(&self.nothing(), self.of(policy()).with_descriptors(Descriptors::Named)).unwrap()
    }
}

/// Returns a launcher that creates no namespace, and no stage.
pub(crate) fn plain() -> Launcher {
    Shape::Direct.plain()
}

/// Returns a launcher that creates every kind of namespace, with the caller as root and a fresh /proc. A
/// start through a child creates no user namespace.
pub(crate) fn everything(shape: Shape, kill_child: bool) -> Launcher {
    let map = IdMap::parse(c"0 0 1\n").unwrap();
    let bootstrap = match shape {
        Shape::Child => Bootstrap::new(NsSet::ALL.flags().without(CloneFlags::NEWUSER)),
        Shape::Direct | Shape::Stages => {
            Bootstrap::new(NsSet::ALL.flags()).with_uid_map(map).with_gid_map(map)
        }
    };
    let policy = Policy::runc(&Dialect::V1_2)
        .with_session(Session::Keep)
        .with_setgroups(Setgroups::Deny)
        .with_propagation(Some(Propagation::Private))
        .with_mount_proc(true)
        .with_kill_child(kill_child);
    Launcher::new(&bootstrap, shape.of(policy)).unwrap()
}

/// Runs `f`, and checks that it leaves no descriptor and no child.
pub(crate) fn leaves_nothing<T>(f: impl FnOnce() -> T) -> T {
    let descriptors = || {
        let mut links: Vec<PathBuf> = fs::read_dir("/proc/self/fd")
            .unwrap()
            .filter_map(|entry| fs::read_link(entry.unwrap().path()).ok())
            .collect();
        // glibc's malloc opens this file by itself if a program has threads.
        links.retain(|link| link.as_os_str() != "/proc/sys/vm/overcommit_memory");
        links.sort();
        links
    };
    let before = descriptors();
    let result = f();
    assert_eq!(descriptors(), before, "descriptors");
    // Without patience: `f` must have reaped its own children.
    no_child_left(Duration::ZERO).unwrap();
    result
}

/// A folder that is removed when this is dropped.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        let path = std::env::temp_dir().join(format!("nsexec-launch-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn file(&self, name: &str, mode: u32, content: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Runs a shell script. Returns the text that it wrote to standard output, which is the file `$1`.
pub(crate) fn output(launcher: &mut Launcher, script: &str) -> String {
    let folder = Folder::new();
    let path = folder.file("out", 0o666, "");
    let script = format!("exec > \"$1\"\n{script}");
    let mut child = launcher
        .command("sh", ["-c".as_ref(), script.as_ref(), "sh".as_ref(), path.as_os_str()])
        .spawn()
        .unwrap();
    assert_eq!(exit_code(child.wait().unwrap()), 0);
    fs::read_to_string(path).unwrap()
}

fn failure(launcher: &mut Launcher) -> (String, i32) {
    let error = leaves_nothing(|| launcher.spawn().unwrap_err());
    assert!(!error.to_string().contains('\n'), "{error}");
    (error.to_string(), error.exit_code())
}

fn nothing_unshared() {
    for shape in Shape::ALL {
        let status =
            leaves_nothing(|| shape.plain().command("/bin/true", [""; 0]).spawn().unwrap().wait().unwrap());
        assert!(status.success());
        let status =
            leaves_nothing(|| shape.plain().command("sh", ["-c", "exit 7"]).spawn().unwrap().wait().unwrap());
        assert_eq!(exit_code(status), 7);
        let status = leaves_nothing(|| {
            shape.plain().command("sh", ["-c", "kill -34 $$"]).spawn().unwrap().wait().unwrap()
        });
        assert_eq!(exit_code(status), 128 + 34);
        let mut launcher = shape.plain();
        launcher.env_clear().env("A", "b").env("PATH", "/usr/bin:/bin");
        // sh adds variables like PWD.
        assert!(output(&mut launcher, "env").lines().any(|line| line == "A=b"));
        assert!(!output(&mut launcher, "env").contains("CARGO"));
    }
}

/// A named descriptor is passed on even if it is close-on-exec. Then no other descriptor is passed on.
fn named_descriptors() {
    for shape in Shape::ALL {
        let (named, other) = (fs::File::open("/dev/null").unwrap(), fs::File::open("/dev/zero").unwrap());
        let fd = |file: &fs::File| Fd(file.as_raw_fd());
        // SAFETY: `dup` returns a new descriptor, which is not close-on-exec.
        let inherited = unsafe { OwnedFd::from_raw_fd(libc::dup(other.as_raw_fd())) };
        let script = format!(
            "for n in {} {} {}; do readlink /proc/self/fd/$n || echo none; done",
            fd(&named).0,
            fd(&other).0,
            inherited.as_raw_fd()
        );
        // readlink(1) inherits the descriptors of the shell.
        assert_eq!(output(&mut shape.plain(), &script), "none\nnone\n/dev/zero\n");
        assert_eq!(output(shape.plain().pass_descriptor(fd(&named)), &script), "/dev/null\nnone\nnone\n");
        let policy = shape.of(policy()).with_descriptors(Descriptors::Named);
        let mut launcher = Launcher::new(&shape.nothing(), policy).unwrap();
        assert_eq!(output(&mut launcher, &script), "none\nnone\nnone\n");
        // The launcher's own pipes would get this number. It is refused all the same.
        let number = fd(&other);
        drop(other);
        let text = format!("descriptor {} cannot be passed on: it is not open", number.0);
        assert_eq!(failure(shape.plain().command("true", [""; 0]).pass_descriptor(number)), (text, 1));
    }
}

/// The last steps of stage 2 lead to the same ids and namespaces as the first ones did.
fn root_last() {
    let mut holder = everything(Shape::Direct, false).command("sleep", ["100"]).spawn().unwrap();
    let kinds = ["user", "uts", "net"];
    let paths: Vec<String> =
        kinds.iter().map(|kind| format!("{kind}:/proc/{}/ns/{kind}", holder.pid())).collect();
    let paths = paths.join(",");
    let paths = NsPaths::parse(paths.as_bytes(), NsSet::ALL).unwrap();
    let bootstrap = Bootstrap::new(CloneFlags::EMPTY).with_namespaces(paths);
    let script =
        "id -u; id -g; for k in user uts net; do readlink /proc/self/ns/$k; done; grep Cap /proc/self/status";
    let both = [Credentials::Root, Credentials::RootLast];
    let ways = [Shape::Child, Shape::Stages].into_iter().flat_map(|shape| both.map(|one| (shape, one)));
    let found: Vec<String> = ways
        .map(|(shape, credentials)| {
            let policy = shape.of(policy()).with_credentials(credentials);
            output(&mut Launcher::new(&bootstrap, policy).unwrap(), script)
        })
        .collect();
    assert!(found[0].starts_with("0\n0\n"), "{}", found[0]);
    assert!(found.iter().all(|one| *one == found[0]), "{found:#?}");
    holder.kill().unwrap();
    holder.wait().unwrap();
}

fn all_kinds() {
    for shape in Shape::ALL {
        let kinds = "cgroup ipc mnt net pid time user uts";
        let script = format!(
            "echo $$ $(id -u) $(id -g); for k in {kinds}; do readlink /proc/self/ns/$k; done; ls /proc/self/fd"
        );
        let out = leaves_nothing(|| output(&mut everything(shape, false), &script));
        let lines: Vec<&str> = out.lines().collect();
        assert_eq!(lines[0], "1 0 0");
        for (kind, inside) in kinds.split(' ').zip(&lines[1..9]) {
            let outside = fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
            let is_new = shape != Shape::Child || kind != "user";
            assert_eq!(outside.to_str() != Some(*inside), is_new, "{shape:?} {kind}");
        }
        // Descriptor 3 belongs to ls. The runner may have inherited more without close-on-exec.
        let ours = fs::read_dir("/proc/self/fd").unwrap().count();
        assert!(lines[9..].len() <= ours, "{:?}", &lines[9..]);
    }
}

fn a_command_that_is_not_there() {
    for shape in Shape::ALL {
        let text = ": No such file or directory";
        assert_eq!(
            failure(shape.plain().command("no-such-command", [""; 0])),
            (format!("failed to execute no-such-command{text}"), 127)
        );
        assert_eq!(
            failure(shape.plain().command("/no/such", [""; 0])),
            (format!("failed to execute /no/such{text}"), 127)
        );
        assert_eq!(
            failure(everything(shape, true).command("", [""; 0])),
            (format!("failed to execute ''{text}"), 127)
        );
        let text = "failed to execute /dev/null/a: Not a directory".to_string();
        assert_eq!(failure(shape.plain().command("/dev/null/a", [""; 0])), (text, 126));
        assert_eq!(failure(&mut shape.plain()), ("no command given".into(), 2));
    }
}

/// As with execvp(3), the shell gets the path at which the file was found, and the arguments.
fn a_script_without_an_interpreter_runs_in_the_shell() {
    for shape in Shape::ALL {
        let folder = Folder::new();
        let script = folder.file("script", 0o755, "test \"$1/$2/$#\" = 'a b//2' && exit 7\n");
        folder.file("named", 0o755, &format!("test $0 = {}/named\n", folder.0.display()));
        let status = |launcher: &mut Launcher| exit_code(launcher.spawn().unwrap().wait().unwrap());
        assert_eq!(status(shape.plain().command(&script, ["a b", ""])), 7);
        let mut launcher = shape.plain();
        launcher.env("PATH", format!("/nonexistent:{}:/empty", folder.0.display()));
        assert_eq!(status(launcher.command("named", [""; 0])), 0);
    }
}

fn a_command_that_cannot_run() {
    for shape in Shape::ALL {
        let folder = Folder::new();
        let plain_file = folder.file("plain", 0o644, "#!/bin/sh\n");
        let (text, code) = failure(shape.plain().command(&plain_file, [""; 0]));
        let cause = "it is not executable, or is a directory, or lies on a noexec mount, or a directory of its path cannot be \
                     searched";
        let want = format!("failed to execute {}: Permission denied ({cause})", plain_file.display());
        assert_eq!((text, code), (want, 126));
        assert_eq!(failure(shape.plain().command("/", [""; 0])).1, 126);
        // The search continues after a file that cannot be executed. First no executable file follows, then
        // one does.
        let mut launcher = shape.plain();
        launcher.env("PATH", format!("/nonexistent:{}:/empty", folder.0.display()));
        assert_eq!(failure(launcher.command("plain", [""; 0])).1, 126);
        folder.file("true", 0o644, "");
        launcher.env("PATH", format!("{}:/usr/bin:/bin", folder.0.display()));
        assert!(launcher.command("true", [""; 0]).spawn().unwrap().wait().unwrap().success());
    }
}

fn a_join_that_fails() {
    let folder = Folder::new();
    let file = folder.file("file", 0o644, "");
    let fifo = folder.0.join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRUSR).unwrap();
    let missing = folder.0.join("missing");
    let cases =
        [(&file, "not a namespace"), (&fifo, "not a namespace"), (&missing, "No such file or directory")];
    let shapes = [Shape::Child, Shape::Stages];
    for (shape, (path, want)) in shapes.into_iter().flat_map(|shape| cases.map(|case| (shape, case))) {
        let text = format!("net:{}", path.display());
        let paths = NsPaths::parse(text.as_bytes(), NsSet::ALL).unwrap();
        let bootstrap = Bootstrap::new(CloneFlags::EMPTY).with_namespaces(paths);
        let mut launcher = Launcher::new(&bootstrap, shape.of(policy())).unwrap();
        let (text, code) = failure(launcher.command("true", [""; 0]));
        assert!(code == 1 && text.starts_with("stage-1: failed to open") && text.contains(want), "{text}");
    }
}

/// Only a user namespace is created or joined: its root has no privilege over the mounts, which belong to the
/// caller's user namespace.
fn a_refused_mount() {
    let mut holder = everything(Shape::Direct, false).command("sleep", ["100"]).spawn().unwrap();
    let path = format!("user:/proc/{}/ns/user", holder.pid());
    for shape in Shape::ALL {
        let map = IdMap::parse(c"0 0 1\n").unwrap();
        let bootstrap = match shape {
            Shape::Child => Bootstrap::new(CloneFlags::EMPTY)
                .with_namespaces(NsPaths::parse(path.as_bytes(), NsSet::ALL).unwrap()),
            _ => Bootstrap::new(CloneFlags::NEWUSER).with_uid_map(map).with_gid_map(map),
        };
        let mut launcher = Launcher::new(&bootstrap, shape.of(policy()).with_mount_proc(true)).unwrap();
        let error = launcher.command("true", [""; 0]).spawn().unwrap_err();
        let want = "stage-2: failed to mount /proc: Operation not permitted (parts of /proc are masked";
        assert!(error.exit_code() == 1 && error.to_string().starts_with(want), "{error}");
    }
    holder.kill().unwrap();
    holder.wait().unwrap();
}

fn records_arrive() {
    for shape in Shape::ALL {
        let (send, receive) = std::sync::mpsc::channel();
        let mut launcher = everything(shape, false);
        launcher.level(Level::Debug).on_record(move |record| send.send(record.to_string()).unwrap());
        let pid = leaves_nothing(|| {
            let mut child = launcher.command("true", [""; 0]).spawn().unwrap();
            assert!(child.wait().unwrap().success());
            child.pid()
        });
        let records: Vec<String> = receive.try_iter().collect();
        let maps =
            ["uid_map", "gid_map"].map(|map| format!("stage-0: update /proc/{pid}/{map} to '0 0 1\\n'"));
        let wanted: &[&str] = match shape {
            Shape::Direct => {
                &[&maps[0], &maps[1], "stage-2: ~> nsexec stage-2", "stage-2: unshare remaining namespaces"]
            }
            Shape::Child => &[
                "stage-1: ~> nsexec stage-1",
                "stage-1: unshare remaining namespaces",
                "stage-1: spawn stage-2",
                "stage-2: ~> nsexec stage-2",
            ],
            Shape::Stages => &[
                "=> nsexec container setup",
                "stage-0: spawn stage-1",
                "stage-1: spawn stage-2",
                "stage-2: ~> nsexec stage-2",
            ],
        };
        for want in wanted {
            assert!(records.iter().any(|record| record == want), "{want}: {records:#?}");
        }
    }
}

fn record_callback_may_launch() {
    for shape in Shape::ALL {
        let (send, receive) = std::sync::mpsc::channel();
        let mut launcher = everything(shape, false);
        launcher.level(Level::Debug).on_record(move |_| {
            // If the launch were not over, this launch would wait for itself.
            send.send(shape.plain().command("true", [""; 0]).spawn().unwrap().wait().unwrap().success())
                .unwrap();
        });
        assert!(
            leaves_nothing(|| launcher.command("true", [""; 0]).spawn().unwrap().wait().unwrap()).success()
        );
        assert!(leaves_nothing(|| launcher.command("/no/such", [""; 0]).spawn()).is_err());
        let launched: Vec<bool> = receive.try_iter().collect();
        // Two launches with at least four records each.
        assert!(launched.len() >= 8 && launched.iter().all(|success| *success), "{launched:?}");
    }
}

fn panic_in_the_record_callback_kills_the_command() {
    for shape in Shape::ALL {
        let mut launcher = everything(shape, false);
        launcher.level(Level::Debug).on_record(|_| panic!("on purpose"));
        leaves_nothing(|| {
            let spawn = std::panic::AssertUnwindSafe(|| launcher.command("sleep", ["1000"]).spawn());
            assert!(std::panic::catch_unwind(spawn).is_err());
        });
        // The command is reaped, and the next launch is not blocked.
        no_child_left(Duration::ZERO).unwrap();
        assert!(shape.plain().command("true", [""; 0]).spawn().unwrap().wait().unwrap().success());
    }
}

fn other_children_of_the_program_are_not_reaped() {
    for shape in Shape::ALL {
        let mut stranger = std::process::Command::new("sh").args(["-c", "exit 3"]).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(50));
        assert!(matches!(
            shape.plain().command("/no/such", [""; 0]).spawn(),
            Err(LaunchError::Exec { errno: Errno::ENOENT, .. })
        ));
        assert_eq!(stranger.wait().unwrap().code(), Some(3));
        no_child_left(Duration::ZERO).unwrap();
    }
}

/// A child without an exit signal looks like a stage. A launcher that knows its only process waits for no
/// other one: that of a direct start, or stage 2 after stage 1 has ended.
fn child_without_exit_signal_is_not_reaped(shape: Shape) {
    // SAFETY: the child makes two system calls and exits.
    let mut sys = unsafe { LinuxSys::new() };
    let stranger = match sys.fork(ExitSignal::None, None).unwrap() {
        Fork::Child => {
            // SAFETY: as above.
            unsafe {
                libc::sleep(1);
                libc::_exit(9)
            }
        }
        Fork::Parent { child } => child.0,
    };
    let began = std::time::Instant::now();
    let error = shape.plain().command("/no/such", [""; 0]).spawn().unwrap_err();
    assert!(matches!(error, LaunchError::Exec { errno: Errno::ENOENT, .. }), "{error}");
    // The stranger still runs, unless this machine is very slow.
    let still_runs = began.elapsed() < Duration::from_millis(900);
    let mut status = 0;
    // SAFETY: the kernel writes one int.
    let ended = unsafe { libc::waitpid(stranger, &raw mut status, libc::WNOHANG | libc::__WALL) };
    assert!(ended == 0 || !still_runs, "{ended}");
    if ended == 0 {
        // SAFETY: as above.
        assert_eq!(unsafe { libc::waitpid(stranger, &raw mut status, libc::__WALL) }, stranger);
    }
    assert_eq!(libc::WEXITSTATUS(status), 9);
}

/// Launches a sleep, prints its pid, and does not end.
pub(crate) fn sleep_helper(words: &[String]) {
    let shape = Shape::from_word(&words[1]);
    let child: Child = everything(shape, words[0] == "kill").command("sleep", ["1000"]).spawn().unwrap();
    println!("{}", child.pid());
    std::io::stdout().flush().unwrap();
    std::thread::sleep(Duration::from_secs(1000));
}

fn kill_child() {
    let cases = [("kill", false), ("stay", true)];
    for (shape, (word, survives)) in Shape::ALL.into_iter().flat_map(|shape| cases.map(|case| (shape, case)))
    {
        let mut launcher = helper(&["sleep", word, shape.word()]).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(launcher.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let pid = nix::unistd::Pid::from_raw(line.trim().parse().unwrap());
        launcher.kill().unwrap();
        launcher.wait().unwrap();
        // This process is the subreaper, so the command is its child now.
        if survives {
            assert!(no_child_left(Duration::from_millis(100)).is_err());
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        }
        no_child_left(LIMIT).unwrap();
    }
}

fn threads_that_allocate() {
    static STOP: AtomicBool = AtomicBool::new(false);
    let threads: Vec<_> = (0..4)
        .map(|seed: usize| {
            std::thread::spawn(move || {
                let mut kept = Vec::new();
                let mut size = seed + 1;
                while !STOP.load(Ordering::Relaxed) {
                    size = (size * 31 + 7) % 100_000;
                    kept.push(vec![1_u8; size]);
                    if kept.len() > 20 {
                        kept.clear();
                    }
                }
            })
        })
        .collect();
    leaves_nothing(|| {
        for round in 0..50 {
            let shape = Shape::ALL[round / 2 % 3];
            let mut launcher = if round % 2 == 0 { everything(shape, false) } else { shape.plain() };
            assert!(launcher.command("true", [""; 0]).spawn().unwrap().wait().unwrap().success());
            assert!(launcher.command("/no/such", [""; 0]).spawn().is_err());
        }
    });
    STOP.store(true, Ordering::Relaxed);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

fn two_threads_launch() {
    leaves_nothing(|| {
        std::thread::scope(|scope| {
            for number in 0..6 {
                let plain = move || Shape::ALL[number % 3].plain();
                scope.spawn(move || {
                    for _ in 0..10 {
                        assert!(plain().command("true", [""; 0]).spawn().unwrap().wait().unwrap().success());
                        assert!(plain().command("/no/such", [""; 0]).spawn().is_err());
                    }
                });
            }
        });
    });
}

fn a_large_message() {
    for shape in Shape::WITH_MAPS {
        // The message is longer than one write to a socket buffer. The paths are never used.
        let path = std::ffi::CString::new(format!("/{}", "x".repeat(60_000))).unwrap();
        let lines: String = (0..340).map(|id| format!("{id} {id} 1\n")).collect();
        let lines = std::ffi::CString::new(lines).unwrap();
        let map = IdMap::parse(&lines).unwrap();
        let bootstrap = Bootstrap::new(CloneFlags::NEWUSER)
            .with_uid_map(map)
            .with_gid_map(map)
            .with_uidmap_path(&path)
            .with_gidmap_path(&path);
        let mut launcher = Launcher::new(&bootstrap, shape.of(policy())).unwrap();
        let out = leaves_nothing(|| output(&mut launcher, "wc -l < /proc/self/uid_map"));
        assert_eq!(out.trim(), "340");
    }
}

/// A sink that panics at the call with this text, which only one process makes.
struct Panics(&'static str);

impl Sink for Panics {
    fn line(&mut self, line: &LineRef<'_>) {
        assert!(!line.to_line().to_string().contains(self.0), "as the test wants it");
    }
}

/// A panic of a recorder in a stage must not unwind into a copy of the stack frames of the launcher's caller.
fn panic_in_a_stage_ends_only_that_stage() {
    let us = std::process::id();
    for (shape, name, stage) in [
        (Shape::Stages, "0:PARENT", "stage-0"),
        (Shape::Stages, "1:CHILD", "stage-1"),
        (Shape::Stages, "2:INIT", "stage-2"),
        (Shape::Child, "unshare(", "stage-1"),
        (Shape::Child, "PR_SET_PDEATHSIG, 0", "stage-2"),
        (Shape::Direct, "PR_SET_PDEATHSIG, SIGKILL", "stage-2"),
        (Shape::Direct, "PR_SET_PDEATHSIG, 0", "stage-2"),
    ] {
        let spawned = std::panic::catch_unwind(|| {
            leaves_nothing(|| {
                let mut launcher = everything(shape, false);
                launcher.command("true", [""; 0]);
                launcher.spawn_through(|sys| Recorder::new(sys, Panics(name))).unwrap_err().to_string()
            })
        });
        if std::process::id() != us {
            // This is a copy of the test; the launcher sees the abort.
            std::process::abort();
        }
        let text = spawned.unwrap();
        assert!(text.starts_with(stage) && text.contains("exited with status 101"), "{name}: {text}");
    }
}
