//! The harness. This program has three roles: the harness starts one guard for each test; the guard is a
//! subreaper that starts the test with a deadline and then checks what the test has left; the third role is
//! the test itself.

mod guard;
mod pidfd;

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::{env, fs, io, thread};

use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{Uid, geteuid, mkdtemp};

pub(crate) use pidfd::{PidFd, children, me};

use support::{Ordinary, SKIPPED, Suite, TEST_LIMIT, Threads, Verdict};

use crate::kit::Ctx;

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

/// True after a signal has asked the harness to end.
static STOPPED: AtomicBool = AtomicBool::new(false);

/// Runs the role that the arguments select.
pub(crate) fn main(modules: &[&'static [Test]]) -> ExitCode {
    let cases: Vec<(&'static Test, RunAs)> = modules
        .iter()
        .flat_map(|tests| tests.iter())
        .flat_map(|test| test.run_as.iter().map(move |run_as| (test, *run_as)))
        .collect();
    let mut args = env::args().skip(1);
    match args.next().as_deref() {
        Some("--guard") => guard::main(&args.collect::<Vec<_>>(), TEST_LIMIT),
        Some("--one") => one(&cases, &args.collect::<Vec<_>>()),
        _ => supervise(&cases),
    }
}

/// Runs one test in this process. A panic is a failure.
fn one(cases: &[(&'static Test, RunAs)], args: &[String]) -> ExitCode {
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

/// The parent of all guards.
fn supervise(cases: &[(&'static Test, RunAs)]) -> ExitCode {
    let shared = Arc::new(LazyLock::new(Shared::make as fn() -> Shared));
    let tests = cases.iter().map(|(test, run_as)| {
        let (test, run_as, shared) = (*test, *run_as, shared.clone());
        support::Test::new(test.name(run_as), move || {
            if STOPPED.load(Ordering::Relaxed) {
                return Verdict::Failed("a signal has stopped the run".to_owned());
            }
            shared.folder.run(test, run_as, &shared.user)
        })
    });
    let suite = Suite::new("kernel", tests.collect());
    support::begin();
    if !suite.is_list() {
        stop_by_signal();
    }
    let cores = thread::available_parallelism().map_or(1, usize::from);
    suite.main(Threads::Several((2 * cores).clamp(1, 6)))
}

/// The folder and the user of all tests. The first test that needs one makes it.
struct Shared {
    // Removed in this order.
    folder: Folder,
    user: LazyUser,
}

type LazyUser = LazyLock<Result<Ordinary, String>>;

impl Shared {
    fn make() -> Self {
        Self {
            folder: Folder::make().expect("a folder for the tests"),
            user: LazyLock::new(Ordinary::provide),
        }
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
    fn run(&self, test: &Test, run_as: RunAs, user: &LazyUser) -> Verdict {
        let root = geteuid().is_root();
        let uid = match run_as {
            RunAs::Root if !root => return Verdict::Skipped("needs root".to_owned()),
            RunAs::Root => None,
            RunAs::User => match &**user {
                Err(reason) => return Verdict::Skipped(reason.clone()),
                Ok(user) => root.then_some((user.uid, user.gid)),
            },
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
