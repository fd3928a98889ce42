//! Functions for the tests: commands with a deadline, their results, and commands that keep running.

use std::cell::Cell;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use std::{io, process, thread};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getegid, geteuid};

use support::SKIPPED;

use crate::harness::{PidFd, RunAs, children};

/// The limit of every wait for a command that ends soon.
pub(crate) const DEADLINE: Duration = support::LIMIT;

/// Names in /proc/PID/ns, with the flag that creates each.
pub(crate) const KINDS: [(&str, &str); 8] = [
    ("user", "--user"),
    ("mnt", "--mount"),
    ("pid", "--pid"),
    ("net", "--net"),
    ("ipc", "--ipc"),
    ("uts", "--uts"),
    ("cgroup", "--cgroup"),
    ("time", "--time"),
];

/// Links in /proc/PID/ns: those of a process, and those that its children get.
pub(crate) const LINKS: [&str; 10] =
    ["user", "mnt", "pid", "pid_for_children", "net", "ipc", "uts", "cgroup", "time", "time_for_children"];

/// The system's own Python. Another one in PATH may be in a home directory that other users cannot enter.
pub(crate) const PYTHON: &str = "/usr/bin/python3";

/// The environment of a test: its user, the program, its folder.
#[derive(Debug)]
pub(crate) struct Ctx {
    pub(crate) run_as: RunAs,
    pub(crate) bin: PathBuf,
    /// A folder for this test only, which it can write to.
    pub(crate) dir: PathBuf,
    files: Cell<u32>,
}

impl Ctx {
    pub(crate) fn new(run_as: RunAs, bin: PathBuf, dir: PathBuf) -> Self {
        Self { run_as, bin, dir, files: Cell::new(0) }
    }

    pub(crate) fn root(&self) -> bool {
        self.run_as == RunAs::Root
    }

    /// `nsexec ARGS…`
    pub(crate) fn nsexec<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Cmd<'_> {
        self.cmd(&self.bin, args)
    }

    /// `nsexec run --fork ARGS…`; an ordinary user needs a user namespace for anything else. The program
    /// stays the parent of the command. The tests of `in_place` are about a program that becomes the command.
    pub(crate) fn run<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Cmd<'_> {
        let mut cmd = self.nsexec(["run", "-f"]);
        if !self.root() {
            cmd.command.arg("-r");
        }
        cmd.command.args(args);
        cmd
    }

    pub(crate) fn python(&self, script: &str) -> Cmd<'_> {
        self.cmd(PYTHON, ["-I", "-S", "-c", script])
    }

    pub(crate) fn cmd<A: AsRef<OsStr>>(
        &self,
        program: impl AsRef<OsStr>,
        args: impl IntoIterator<Item = A>,
    ) -> Cmd<'_> {
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::null()).current_dir(&self.dir);
        Cmd { ctx: self, command }
    }

    /// Skips the test if this system program is missing.
    pub(crate) fn needs(&self, program: &str) {
        if find(program).is_none() {
            self.skip(&format!("needs {program}"));
        }
    }

    /// Ends the test as skipped.
    pub(crate) fn skip(&self, reason: &str) -> ! {
        println!("{reason}");
        process::exit(SKIPPED)
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn output(&self) -> PathBuf {
        self.files.set(self.files.get() + 1);
        self.file(&format!(".output-{}", self.files.get()))
    }
}

pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// A command before its start. Its output goes to files. So no process blocks on a full pipe, and a process
/// that keeps running does not delay the test.
pub(crate) struct Cmd<'a> {
    ctx: &'a Ctx,
    pub(crate) command: Command,
}

impl Cmd<'_> {
    pub(crate) fn input(mut self, text: &[u8]) -> Self {
        let path = self.ctx.output();
        fs::write(&path, text).expect("the input");
        self.command.stdin(File::open(path).expect("the input"));
        self
    }

    pub(crate) fn env(mut self, key: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(key, value);
        self
    }

    /// Starts the command in a process group of its own, so that a signal to the group does not reach the
    /// test.
    pub(crate) fn own_group(mut self) -> Self {
        self.command.process_group(0);
        self
    }

    pub(crate) fn start(mut self) -> Live {
        if self.command.get_program() == PYTHON && !Path::new(PYTHON).exists() {
            self.ctx.skip(&format!("needs {PYTHON}"));
        }
        let (out, err) = (self.ctx.output(), self.ctx.output());
        self.command.stdout(File::create(&out).expect("a file for the output"));
        self.command.stderr(File::create(&err).expect("a file for the errors"));
        let what = format!("{:?}", self.command);
        let child = self.command.spawn().unwrap_or_else(|error| panic!("{what}: {error}"));
        Live { what, child, out, err, reaped: false }
    }

    pub(crate) fn done(self) -> Done {
        self.start().done()
    }

    /// Runs a command that must succeed without error output. Returns its output.
    pub(crate) fn ok(self) -> String {
        self.done().ok()
    }

    /// Runs a command that must fail with this status, without output and with one line on standard error
    /// that contains all of `words`.
    #[track_caller]
    pub(crate) fn refused(self, code: i32, words: &[&str]) -> String {
        self.done().refused(code, words)
    }

    /// Does the same as `refused` for wrong usage: the status is 2, and clap's usage text follows the first
    /// line.
    #[track_caller]
    pub(crate) fn misused(self, words: &[&str]) {
        self.done().misused(words);
    }
}

/// A command that has ended.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) what: String,
    pub(crate) status: ExitStatus,
    pub(crate) out: Vec<u8>,
    pub(crate) err: String,
}

impl Done {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }

    #[track_caller]
    pub(crate) fn ok(&self) -> String {
        self.exits(0);
        assert_eq!(self.err, "", "{}: errors of a success", self.what);
        self.text()
    }

    #[track_caller]
    pub(crate) fn exits(&self, code: i32) {
        let said = format!("{}: {}\nstdout: {}\nstderr: {}", self.what, self.status, self.text(), self.err);
        // As a shell reports it: a launcher may have become the command, which a signal ends.
        assert_eq!(nsexec::launch::exit_code(self.status), code, "{said}");
    }

    #[track_caller]
    pub(crate) fn refused(&self, code: i32, words: &[&str]) -> String {
        let (what, err) = (&self.what, &self.err);
        assert!(err.ends_with('\n') && err.lines().count() == 1, "{what}: one line is wanted, not\n{err}");
        self.fails(code, err, words);
        err.trim_end().to_owned()
    }

    #[track_caller]
    pub(crate) fn misused(&self, words: &[&str]) {
        let said = self.err.lines().next().unwrap_or_default();
        assert!(said.starts_with("error: "), "{}:\n{}", self.what, self.err);
        self.fails(2, said, words);
    }

    #[track_caller]
    fn fails(&self, code: i32, said: &str, words: &[&str]) {
        self.exits(code);
        let what = &self.what;
        assert_eq!(self.text(), "", "{what}: output of a failure");
        for word in words {
            assert!(
                said.to_lowercase().contains(&word.to_lowercase()),
                "{what}: '{word}' is missing in\n{said}"
            );
        }
    }
}

/// A command that is running.
#[derive(Debug)]
pub(crate) struct Live {
    what: String,
    child: Child,
    out: PathBuf,
    err: PathBuf,
    reaped: bool,
}

impl Live {
    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a pid")
    }

    /// Waits until the output contains this word.
    #[track_caller]
    pub(crate) fn says(self, word: &str) -> Self {
        until(&format!("{} says {word}", self.what), || {
            let err = fs::read_to_string(&self.err).unwrap_or_default();
            assert_eq!(err, "", "{}", self.what);
            self.text().contains(word)
        });
        self
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.out).unwrap_or_default()).into_owned()
    }

    /// Returns the pid of the command that a launcher started: its only child besides the guard of
    /// `--kill-child`, or the process itself if the launcher has become the command.
    #[track_caller]
    pub(crate) fn command(&self) -> i32 {
        let is_command = |pid: &i32| {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name != "nsexec-guard\n")
        };
        let find = || children(self.pid()).into_iter().filter(is_command).collect::<Vec<_>>();
        let mut found = find();
        // The guard sets its name right after the fork.
        for _ in 0..100 {
            if found.len() < 2 {
                break;
            }
            thread::sleep(Duration::from_millis(5));
            found = find();
        }
        if found.is_empty() {
            return self.pid();
        }
        let [pid] = found[..] else { panic!("{}: the children are {found:?}", self.what) };
        pid
    }

    /// Waits until the launcher has started the guard of `--kill-child`, right after the command.
    pub(crate) fn guarded(self) -> Self {
        let is_guard = |pid: i32| {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "nsexec-guard\n")
        };
        until("the guard runs", || children(self.pid()).into_iter().any(is_guard));
        self
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).expect("signal our own child");
    }

    #[track_caller]
    pub(crate) fn done(mut self) -> Done {
        let in_time = PidFd::open(self.pid()).expect("pidfd").ends_within(DEADLINE);
        let read = |path: &Path| fs::read(path).unwrap_or_default();
        let (out, err) = (read(&self.out), String::from_utf8_lossy(&read(&self.err)).into_owned());
        let out_text = String::from_utf8_lossy(&out);
        assert!(
            in_time,
            "{}: still running after {DEADLINE:?}\nstdout: {out_text}\nstderr: {err}",
            self.what
        );
        let status = self.child.wait().expect("wait");
        self.reaped = true;
        Done { what: self.what.clone(), status, out, err }
    }

    /// Ends a launcher whose command does not end by itself, and checks the launcher's status.
    #[track_caller]
    pub(crate) fn end(self) {
        self.signal(Signal::SIGTERM);
        self.done().exits(128 + Signal::SIGTERM as i32);
    }

    /// Kills the command. Then waits for the launcher, with any status.
    #[track_caller]
    pub(crate) fn kill_command(self) -> Done {
        kill(Pid::from_raw(self.command()), Signal::SIGKILL).expect("kill the command");
        self.done()
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if self.reaped {
            return;
        }
        // Runs only after a failed assertion. The command is killed first, since it would outlive the
        // launcher.
        for pid in children(self.pid()) {
            kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
        }
        // Time for the launcher to reap the command.
        thread::sleep(Duration::from_millis(50));
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Waits for all children, which include the orphans that this process inherits as a subreaper.
pub(crate) fn reap_all() {
    while nix::sys::wait::wait().is_ok() {}
}

/// Waits until `happened` returns true, for [`DEADLINE`] at most.
#[track_caller]
pub(crate) fn until(what: &str, mut happened: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !happened() {
        assert!(begun.elapsed() < DEADLINE, "timed out waiting: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Device and inode of each link, in the order of `LINKS`.
pub(crate) fn namespaces(pid: impl std::fmt::Display) -> Vec<(&'static str, (u64, u64))> {
    let identity = |link: &&'static str| {
        let path = format!("/proc/{pid}/ns/{link}");
        let data = fs::metadata(&path).unwrap_or_else(|error: io::Error| panic!("{path}: {error}"));
        (*link, (data.dev(), data.ino()))
    };
    LINKS.iter().map(identity).collect()
}

/// Returns the links in which two processes differ.
pub(crate) fn differ(
    a: &[(&'static str, (u64, u64))],
    b: &[(&'static str, (u64, u64))],
) -> Vec<&'static str> {
    a.iter().zip(b).filter(|(a, b)| a.1 != b.1).map(|(a, _)| a.0).collect()
}

pub(crate) fn ids() -> (u32, u32) {
    (geteuid().as_raw(), getegid().as_raw())
}

/// Returns the caller's subordinate ids: the first one, and their number. They have five digits, and are the
/// same for users and groups.
pub(crate) fn subordinate(ctx: &Ctx) -> (u32, u32) {
    if ctx.root() {
        return (30_000, 65_536);
    }
    let name =
        nix::unistd::User::from_uid(geteuid()).ok().flatten().map(|user| user.name).unwrap_or_default();
    let find = |file: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}:")).map(str::to_owned))?;
        let (first, count) = line.split_once(':')?;
        Some((first.parse::<u32>().ok()?, count.parse::<u32>().ok()?))
    };
    let fits = |range: &(u32, u32)| range.1 >= 2000 && range.0 + 2000 < 100_000;
    match (find("/etc/subuid").filter(fits), find("/etc/subgid").filter(fits)) {
        (Some(uids), Some(gids)) if uids == gids => uids,
        _ => {
            ctx.skip("needs 2000 subordinate ids of five digits in /etc/subuid, and the same in /etc/subgid")
        }
    }
}
