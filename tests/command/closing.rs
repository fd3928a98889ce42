//! The descriptors of the caller in the processes of a launch, before the exec.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nsexec::launch::{Child, Command, LaunchError, Stdio};
use nsexec::namespace::NsKind;
use nsexec::sys::Sys as _;
use nsexec::sys::linux::LinuxSys;
use nsexec::sys::types::Errno;

use crate::attributes::refusing;
use crate::kit::{is_root, sh, stdout};

/// Longer than any launch takes.
const LONG: Duration = Duration::from_secs(30);

/// A launch that waits in the caller's function before the start.
struct Held {
    go: Sender<()>,
    launching: JoinHandle<Result<Child, LaunchError>>,
    /// The pid of the process that becomes the command.
    pid: i32,
}

impl Held {
    /// Starts the launch on another thread. Returns when the function waits.
    fn new(mut command: Command) -> Self {
        let (begun, has_begun) = channel();
        let (go, wait): (Sender<()>, Receiver<()>) = channel();
        command.before_start(move |starting| {
            begun.send(starting.pid().0).unwrap();
            wait.recv().map_err(std::io::Error::other)
        });
        let launching = thread::spawn(move || command.spawn());
        let pid = has_begun.recv_timeout(LONG).expect("the function is called");
        Self { go, launching, pid }
    }

    fn is_waiting(&self) -> bool {
        !self.launching.is_finished()
    }

    /// Lets the command begin, and returns its status.
    fn finish(self) -> Option<i32> {
        self.go.send(()).unwrap();
        self.launching.join().unwrap().unwrap().wait().unwrap().code()
    }

    /// Returns the files of the descriptors above 2. `None` if the process may not be inspected: its ids have
    /// changed, and this process is not root.
    fn files(&self) -> Option<Vec<PathBuf>> {
        let folder = format!("/proc/{}/fd", self.pid);
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied && !is_root() => return None,
            entries => entries.unwrap(),
        };
        let number = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().parse::<i32>().unwrap();
        let paths = entries.map(|entry| entry.unwrap().path()).filter(|path| number(path) > 2);
        // One that was closed meanwhile has no link any more.
        Some(paths.filter_map(|path| fs::read_link(path).ok()).collect())
    }
}

/// Reads to the end of the file on another thread. Fails if that takes long.
fn read_to_end(mut file: impl std::io::Read + Send + 'static) -> Vec<u8> {
    let (end, ended) = channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        end.send(bytes).unwrap();
    });
    ended.recv_timeout(LONG).expect("a process of another launch holds the pipe open")
}

fn shapes() -> [(&'static str, Command); 2] {
    let plain = || sh("exit 3");
    let mut namespaces = plain();
    namespaces.unshare([NsKind::User, NsKind::Uts]);
    [("plain", plain()), ("namespaces", namespaces)]
}

#[test]
fn a_waiting_launch_holds_no_pipe_of_the_caller() {
    for (shape, command) in shapes() {
        let (reader, mut writer) = UnixStream::pair().unwrap();
        let held = Held::new(command);
        writer.write_all(b"text").unwrap();
        drop(writer);
        assert_eq!(read_to_end(reader), b"text", "{shape}");
        assert!(held.is_waiting());
        assert_eq!(held.finish(), Some(3), "{shape}");
    }
}

/// The other command ends when its standard input ends.
#[test]
fn a_waiting_launch_holds_no_pipe_of_another_command() {
    for (shape, command) in shapes() {
        let mut other = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let held = Held::new(command);
        let mut stdin = other.stdin.take().unwrap();
        stdin.write_all(b"text").unwrap();
        drop(stdin);
        assert_eq!(read_to_end(other.stdout.take().unwrap()), b"text", "{shape}");
        assert_eq!(other.wait_timeout(LONG).unwrap().unwrap().code(), Some(0), "{shape}");
        // Nor does it delay the launches that begin meanwhile.
        assert_eq!(stdout(&mut sh("echo another")), "another");
        assert!(held.is_waiting());
        assert_eq!(held.finish(), Some(3), "{shape}");
    }
}

#[test]
fn only_pipes_and_given_descriptors_are_open_before_the_start() {
    let unrelated = File::open("/etc/passwd").unwrap();
    let given = || OwnedFd::from(File::open("/etc/group").unwrap());
    let mut inspected = 0;
    for (shape, mut command) in shapes() {
        let held = Held::new(command.fd(9, given()).clone());
        let end = Instant::now() + LONG;
        while let Some(files) = held.files() {
            let text: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
            let of_kind = |kind: &str| text.iter().filter(|file| file.starts_with(kind)).count();
            if (of_kind("socket:"), of_kind("pipe:"), of_kind("/etc/group"), text.len()) == (1, 1, 1, 3) {
                inspected += 1;
                break;
            }
            // The process may still close its end of the pipe to stage 0.
            assert!(Instant::now() < end, "{shape}: {text:?}");
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(held.finish(), Some(3), "{shape}");
    }
    assert!(inspected > 0, "no process could be inspected");
    drop(unrelated);
}

/// As with `std::process::Command`, the code of the caller may use each descriptor.
#[test]
fn code_of_the_caller_finds_its_descriptors_open() {
    for (shape, mut command) in shapes() {
        let (mut reader, writer) = UnixStream::pair().unwrap();
        let number = writer.as_raw_fd();
        // SAFETY: write(2) is safe in a signal handler.
        unsafe {
            command.pre_exec(move || match libc::write(number, b"x".as_ptr().cast(), 1) {
                1 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            });
        }
        assert_eq!(command.status().unwrap().code(), Some(3), "{shape}");
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "x", "{shape}");
    }
}

/// The program, its directory and its namespaces may be named by a descriptor.
#[test]
fn descriptors_in_paths_are_open() {
    let directory = File::open("/proc").unwrap();
    let program = File::open("/bin/sh").unwrap();
    let mut command = Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()));
    command.args(["-c", "cat self/comm; ls -l self/fd | grep -c /bin/"]);
    command.current_dir(format!("/proc/self/fd/{}", directory.as_raw_fd()));
    let output = command.output().unwrap();
    // The command itself inherits none of them.
    assert_eq!(String::from_utf8_lossy(&output.stdout), "cat\n0\n", "{output:?}");
}

/// Several threads launch at the same time. A launch that keeps all descriptors forks while no other launch
/// does.
#[test]
fn launches_with_and_without_code_of_the_caller() {
    thread::scope(|scope| {
        for number in 0..8 {
            scope.spawn(move || {
                for turn in 0..20 {
                    let mut command = sh("exit 3");
                    if (number + turn) % 3 == 0 {
                        // SAFETY: no call at all.
                        unsafe { command.pre_exec(|| Ok(())) };
                    }
                    if turn % 4 == 0 {
                        command.inherit_descriptors();
                    }
                    assert_eq!(command.status().unwrap().code(), Some(3));
                }
            });
        }
    });
}

/// Set in the process of the next test.
const REFUSED: &str = "NSEXEC_TEST_CLOSE_RANGE_REFUSED";

/// A seccomp filter refuses close_range(2), as an old container runtime does: the descriptors in
/// /proc/self/fd are closed one by one.
#[test]
fn the_tests_again_without_close_range() {
    if std::env::var_os(REFUSED).is_some() {
        // SAFETY: this backend closes numbers that no file has.
        let refused = unsafe { LinuxSys::new() }.close_range(900_000, 900_001);
        assert_eq!(refused, Err(Errno::EPERM));
        return;
    }
    let mut again = Command::new("/proc/self/exe");
    again.args(["closing::", "--test-threads", "2"]).env(REFUSED, "1");
    again.seccomp_filter_bytes(refusing(libc::SYS_close_range));
    let output = again.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("test result: ok. 7 passed"), "{text}");
}
