//! What the tests are written with: a command with a deadline, what it left, and a command that goes on meanwhile.

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

use crate::harness::{PidFd, SKIPPED, Who, children};

/// The limit of every wait for a command that does nothing for long.
pub(crate) const DEADLINE: Duration = crate::runner::LIMIT;

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

/// Where the system's own Python is; another in PATH may lie in a home that not everybody may enter.
pub(crate) const PYTHON: &str = "/usr/bin/python3";

/// The test's surroundings.
#[derive(Debug)]
pub(crate) struct Ctx {
    pub(crate) who: Who,
    pub(crate) bin: PathBuf,
    /// A folder of this test alone, writable for it.
    pub(crate) dir: PathBuf,
    files: Cell<u32>,
}

impl Ctx {
    pub(crate) fn new(who: Who, bin: PathBuf, dir: PathBuf) -> Self {
        Self { who, bin, dir, files: Cell::new(0) }
    }

    pub(crate) fn root(&self) -> bool {
        self.who == Who::Root
    }

    /// `nsexec ARGS…`
    pub(crate) fn nsexec<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Cmd<'_> {
        self.cmd(&self.bin, args)
    }

    /// `nsexec run ARGS…`; an ordinary user needs a user namespace for anything else.
    pub(crate) fn run<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Cmd<'_> {
        let mut cmd = self.nsexec(["run"]);
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

    /// A program of the system, if it is there.
    pub(crate) fn needs(&self, program: &str) {
        if find(program).is_none() {
            self.skip(&format!("needs {program}"));
        }
    }

    /// Ends the test here.
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

/// A command before its start. Its output goes to files: nobody blocks on them, and a process that lives on does not
/// keep us waiting.
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

    /// In a process group of its own, so that a signal to the group does not reach the test.
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

    /// The output of a command that succeeds and has nothing to complain of.
    pub(crate) fn ok(self) -> String {
        self.done().ok()
    }

    /// The one line of a command that is refused, which says all of `words`.
    #[track_caller]
    pub(crate) fn refused(self, code: i32, words: &[&str]) -> String {
        self.done().refused(code, words)
    }

    /// As `refused`, for a command line that cannot be meant: 2, and clap adds how it is used.
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
        assert_eq!(self.status.code(), Some(code), "{said}");
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
                "{what}: '{word}' is not said in\n{said}"
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

    /// Waits until it has written this.
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

    /// The pid of the command that a launcher started: its only child.
    #[track_caller]
    pub(crate) fn command(&self) -> i32 {
        let found = children(self.pid());
        let [pid] = found[..] else { panic!("{}: the children are {found:?}", self.what) };
        pid
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
            "{}: not at its end after {DEADLINE:?}\nstdout: {out_text}\nstderr: {err}",
            self.what
        );
        let status = self.child.wait().expect("wait");
        self.reaped = true;
        Done { what: self.what.clone(), status, out, err }
    }

    /// Ends a launcher whose command would go on for ever, and looks whether it says so.
    #[track_caller]
    pub(crate) fn end(self) {
        self.signal(Signal::SIGTERM);
        self.done().exits(128 + Signal::SIGTERM as i32);
    }

    /// Ends the command, and then whoever waited for it, whatever that one says.
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
        // Only on the way out of a test that failed: the command first, since it would outlive the launcher.
        for pid in children(self.pid()) {
            kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
        }
        // Time to reap it.
        thread::sleep(Duration::from_millis(50));
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Waits for something that happens soon.
#[track_caller]
pub(crate) fn until(what: &str, mut happened: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !happened() {
        assert!(begun.elapsed() < DEADLINE, "in vain: {what}");
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

/// In which links two processes differ.
pub(crate) fn differ(
    a: &[(&'static str, (u64, u64))],
    b: &[(&'static str, (u64, u64))],
) -> Vec<&'static str> {
    a.iter().zip(b).filter(|(a, b)| a.1 != b.1).map(|(a, _)| a.0).collect()
}

pub(crate) fn ids() -> (u32, u32) {
    (geteuid().as_raw(), getegid().as_raw())
}

/// The caller's subordinate ids, the same for users and groups, of five digits: the first one, and how many.
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
