//! The harness. This program has three roles: the harness starts one guard for each test; the guard is a
//! subreaper that starts the test with a deadline and then checks what the test has left; the third role is
//! the test itself.

mod guard;
mod pidfd;
mod user;

use std::collections::VecDeque;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{env, fs, io, thread};

use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{Uid, geteuid, mkdtemp};

pub(crate) use pidfd::{PidFd, children, me};
pub(crate) use user::Ordinary;

use crate::kit::Ctx;
use crate::runner::{self, TEST_LIMIT};

/// The user that a test runs as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum RunAs {
    /// Uid 0 of the machine.
    Root,
    /// A user without any privilege, with subordinate ids.
    User,
}

pub(crate) const BOTH: &[RunAs] = &[RunAs::Root, RunAs::User];
pub(crate) const ROOT: &[RunAs] = &[RunAs::Root];
pub(crate) const USER: &[RunAs] = &[RunAs::User];

impl RunAs {
    fn word(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::User => "user",
        }
    }
}

/// One test function.
#[derive(Debug)]
pub(crate) struct Test {
    pub(crate) path: &'static str,
    pub(crate) run_as: &'static [RunAs],
    pub(crate) run: fn(&Ctx),
}

/// Defines an entry in a module's table of tests.
macro_rules! test {
    ($name:ident, $run_as:expr) => {
        $crate::harness::Test {
            path: concat!(module_path!(), "::", stringify!($name)),
            run_as: $run_as,
            run: $name,
        }
    };
}
pub(crate) use test;

impl Test {
    fn name(&self, run_as: RunAs) -> String {
        let path = self.path.split_once("::").map_or(self.path, |(_, rest)| rest);
        format!("{path}@{}", run_as.word())
    }
}

/// The exit status of a skipped test; its output is the reason.
pub(crate) const SKIPPED: i32 = 77;

/// True after a signal has asked the harness to end.
static STOPPED: AtomicBool = AtomicBool::new(false);

enum Verdict {
    Passed,
    Failed(String),
    Skipped(String),
}

/// Runs the role that the arguments select.
pub(crate) fn main(modules: &[&[Test]]) -> ExitCode {
    let cases: Vec<(&Test, RunAs)> = modules
        .iter()
        .flat_map(|tests| tests.iter())
        .flat_map(|test| test.run_as.iter().map(move |run_as| (test, *run_as)))
        .collect();
    let mut args = env::args().skip(1);
    match args.next().as_deref() {
        Some("--guard") => guard::main(&args.collect::<Vec<_>>(), TEST_LIMIT),
        Some("--one") => one(&cases, &args.collect::<Vec<_>>()),
        _ => Wanted::from_args(env::args().skip(1)).run(&cases),
    }
}

/// Runs one test in this process. A panic is a failure.
fn one(cases: &[(&Test, RunAs)], args: &[String]) -> ExitCode {
    let [name, bin, dir] = args else { panic!("--one NAME BIN DIR") };
    let (test, run_as) =
        cases.iter().find(|(test, run_as)| test.name(*run_as) == *name).expect("no such test");
    let ctx = Ctx::new(*run_as, PathBuf::from(bin), PathBuf::from(dir));
    let fds = count_fds();
    (test.run)(&ctx);
    assert_eq!(count_fds(), fds, "descriptors of the test before and after");
    ExitCode::SUCCESS
}

fn count_fds() -> usize {
    fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

/// The options of the command line: the flags of libtest that make sense here.
#[derive(Default)]
struct Wanted {
    words: Vec<String>,
    skip: Vec<String>,
    exact: bool,
    list: bool,
    threads: Option<usize>,
}

impl Wanted {
    fn from_args(mut args: impl Iterator<Item = String>) -> Self {
        let mut wanted = Self::default();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--list" => wanted.list = true,
                "--exact" => wanted.exact = true,
                "--skip" => wanted.skip.extend(args.next()),
                "--test-threads" => wanted.threads = args.next().and_then(|n| n.parse().ok()),
                "--format" | "--color" | "-Z" => drop(args.next()),
                flag if flag.starts_with("--test-threads=") => {
                    wanted.threads = flag.split_once('=').and_then(|(_, n)| n.parse().ok());
                }
                flag if flag.starts_with('-') => {}
                word => wanted.words.push(word.to_owned()),
            }
        }
        wanted
    }

    fn matches(&self, name: &str, word: &str) -> bool {
        if self.exact { name == word } else { name.contains(word) }
    }

    fn wants(&self, name: &str) -> bool {
        let matches = |word: &String| self.matches(name, word);
        (self.words.is_empty() || self.words.iter().any(matches)) && !self.skip.iter().any(matches)
    }

    fn run(&self, cases: &[(&Test, RunAs)]) -> ExitCode {
        let name = |(test, run_as): &(&Test, RunAs)| test.name(*run_as);
        let all = cases.iter().copied().map(|case| name(&case)).collect::<Vec<_>>();
        let cases: VecDeque<_> = cases.iter().copied().filter(|case| self.wants(&name(case))).collect();
        if self.list {
            cases.iter().for_each(|case| println!("{}: test", name(case)));
            return ExitCode::SUCCESS;
        }
        let idle = self.words.iter().find(|word| !all.iter().any(|name| self.matches(name, word)));
        if cases.is_empty() || idle.is_some() {
            let word = idle.map_or(String::new(), |word| format!(" by '{word}'"));
            println!("kernel: no test is chosen{word}. There are:\n    {}", all.join("\n    "));
            println!("kernel tests: 0 passed, 1 failed, 0 skipped");
            return ExitCode::FAILURE;
        }
        let start = Instant::now();
        runner::begin();
        stop_by_signal();
        let ordinary = Ordinary::provide();
        let folder = Folder::make().expect("a folder for the tests");
        let queue = Mutex::new(cases);
        let counts = Mutex::new([0_usize; 3]);
        let threads = self
            .threads
            .unwrap_or_else(|| 2 * thread::available_parallelism().map_or(1, usize::from))
            .clamp(1, 6);
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while !STOPPED.load(Ordering::Relaxed) {
                        let Some((test, run_as)) = queue.lock().unwrap().pop_front() else { break };
                        let begun = Instant::now();
                        let verdict = folder.run(test, run_as, ordinary.as_ref());
                        report(&test.name(run_as), &verdict, begun.elapsed());
                        counts.lock().unwrap()[verdict.index()] += 1;
                    }
                });
            }
        });
        drop(folder);
        drop(ordinary);
        let [passed, failed, skipped] = counts.into_inner().unwrap();
        let stopped = if STOPPED.load(Ordering::Relaxed) { ", stopped by a signal" } else { "" };
        let seconds = start.elapsed().as_secs_f64();
        println!(
            "kernel tests: {passed} passed, {failed} failed, {skipped} skipped{stopped} in {seconds:.1} s"
        );
        if failed == 0 && stopped.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// After INT or TERM the running tests may finish, so that everything is removed.
fn stop_by_signal() {
    let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM]);
    signals.thread_block().expect("block INT and TERM");
    thread::spawn(move || {
        signals.wait().expect("wait for a signal");
        STOPPED.store(true, Ordering::Relaxed);
    });
}

impl Verdict {
    fn index(&self) -> usize {
        match self {
            Self::Passed => 0,
            Self::Failed(_) => 1,
            Self::Skipped(_) => 2,
        }
    }
}

/// Prints one line for a test, and its output if it failed.
fn report(name: &str, verdict: &Verdict, took: Duration) {
    let milliseconds = took.as_millis();
    match verdict {
        Verdict::Passed => println!("passed: {name} ({milliseconds} ms)"),
        Verdict::Skipped(reason) => println!("skipped: {name}: {reason}"),
        Verdict::Failed(output) => {
            println!("failed: {name} ({milliseconds} ms)\n    {}", output.trim_end().replace('\n', "\n    "))
        }
    }
}

/// The folder of the run, which every user may enter: the program's copy, and a folder for each test. Removed
/// at the end.
struct Folder {
    path: PathBuf,
    bin: PathBuf,
    me: PathBuf,
}

impl Folder {
    fn make() -> io::Result<Self> {
        let path = mkdtemp(&env::temp_dir().join("nsexec-test.XXXXXX"))?;
        set_mode(&path, 0o755)?;
        let (bin, me) = (path.join("nsexec"), path.join("kernel"));
        fs::copy(env!("CARGO_BIN_EXE_nsexec"), &bin)?;
        fs::copy(env::current_exe()?, &me)?;
        set_mode(&bin, 0o755)?;
        set_mode(&me, 0o755)?;
        Ok(Self { path, bin, me })
    }

    /// Starts the guard, and reads its verdict.
    fn run(&self, test: &Test, run_as: RunAs, user: Result<&Ordinary, &String>) -> Verdict {
        let root = geteuid().is_root();
        let uid = match (run_as, user) {
            (RunAs::Root, _) if !root => return Verdict::Skipped("needs root".to_owned()),
            (RunAs::User, Err(reason)) => return Verdict::Skipped(reason.clone()),
            (RunAs::Root, _) => None,
            (RunAs::User, Ok(user)) => root.then_some((user.uid, user.gid)),
        };
        let name = test.name(run_as);
        let dir = self.path.join(name.replace("::", "-"));
        fs::create_dir(&dir).expect("a folder for the test");
        if let Some((uid, gid)) = uid {
            std::os::unix::fs::chown(&dir, Some(uid), Some(gid)).expect("chown");
        }
        let ids = uid.unwrap_or((Uid::effective().as_raw(), 0));
        let output = Command::new(&self.me)
            .args([
                "--guard",
                &ids.0.to_string(),
                &ids.1.to_string(),
                if uid.is_some() { "drop" } else { "keep" },
            ])
            .arg(&self.me)
            .args(["--one", &name])
            .arg(&self.bin)
            .arg(&dir)
            .current_dir(&self.path)
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LC_ALL", "C")
            .env("RUST_BACKTRACE", "0")
            .process_group(0)
            .stdin(Stdio::null())
            .output()
            .expect("start the guard");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        match output.status.code() {
            Some(0) => Verdict::Passed,
            Some(SKIPPED) => Verdict::Skipped(said.trim().to_owned()),
            _ => {
                Verdict::Failed(format!("{said}{}{}", String::from_utf8_lossy(&output.stderr), output.status))
            }
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.path)
            .unwrap_or_else(|error| println!("{} is left: {error}", self.path.display()));
    }
}

fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode))
}
