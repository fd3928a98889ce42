//! Compares plan, record and strace's output for random configurations: every combination of kinds to create,
//! as root and as an ordinary user. proptest draws the maps, joins, clocks, scores and commands for each. All
//! three must agree line by line, whether the kernel accepts or refuses the configuration.
//!
//! `cargo test --test witness [WORD…]` runs the configurations whose names contain a word: `root`,
//! `017@user`.
//! The seed is fixed if CI is set; otherwise it is drawn and printed. `NSEXEC_SEED=N` repeats a run.

mod confront;
mod draw;
mod targets;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::{env, io, thread};

use nix::unistd::{User, geteuid, mkdtemp};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config as Proptest, RngAlgorithm, TestRng, TestRunner};

use confront::{Agreed, Fate, Stage, Witnesses};
use draw::Config;
use support::{Ordinary, Suite, Test, Threads, Verdict};
use targets::Targets;

/// Debian's default PATH.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The number of combinations of the eight kinds.
const COMBINATIONS: usize = 256;

/// The seed if CI is set.
const SEED: u64 = 20_261_125;

/// The kind of user that runs a configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum UserKind {
    /// The user id 0 of the machine.
    Root,
    /// A user without privileges.
    User,
}

impl UserKind {
    const fn word(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::User => "user",
        }
    }
}

/// A user that starts commands.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) who: UserKind,
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// The first of many subordinate ids. For root, any ids.
    pub(crate) subordinate: u32,
    /// newuidmap and newgidmap map the subordinate ids.
    pub(crate) has_tools: bool,
    /// This user is not the test's own user, so commands switch to it.
    pub(crate) switches: bool,
    /// The PATH in which its commands are searched.
    pub(crate) path: String,
}

impl Caller {
    fn root(folder: &Path) -> Self {
        Self {
            who: UserKind::Root,
            name: "root".to_owned(),
            uid: 0,
            gid: 0,
            subordinate: 30_000,
            has_tools: false,
            switches: false,
            path: format!("{0}/file/bin:{0}:{PATH}", folder.display()),
        }
    }

    /// Returns an ordinary user. If the tests run as root, its PATH contains a folder that only root may
    /// enter.
    fn ordinary(user: &Ordinary, folder: &Path) -> Option<Self> {
        let name = User::from_uid(user.uid.into()).ok().flatten()?.name;
        let first = |file: &str| {
            let text = fs::read_to_string(file).unwrap_or_default();
            let line =
                text.lines().find_map(|line| line.strip_prefix(&format!("{name}:")).map(str::to_owned))?;
            let (first, count) = line.split_once(':')?;
            first.parse::<u32>().ok().filter(|_| count.parse::<u32>().is_ok_and(|count| count >= 1000))
        };
        let subordinate = first("/etc/subuid").filter(|found| first("/etc/subgid") == Some(*found));
        Some(Self {
            who: UserKind::User,
            uid: user.uid,
            gid: user.gid,
            subordinate: subordinate.unwrap_or_default(),
            has_tools: subordinate.is_some(),
            switches: geteuid().is_root(),
            // The user's own folder would not do: as root of a user namespace it could enter it
            // (capabilities(7), CAP_DAC_OVERRIDE).
            path: match geteuid().is_root() {
                true => format!("{0}/hidden:{0}/file/bin:{PATH}", folder.display()),
                false => format!("{0}/file/bin:{PATH}", folder.display()),
            },
            name,
        })
    }

    /// Makes the command run as this user, with its environment.
    pub(crate) fn apply_to(&self, command: &mut Command) {
        self.set_environment(command);
        if self.switches {
            command.uid(self.uid).gid(self.gid);
        }
    }
}

impl Caller {
    /// Sets the environment only.
    pub(crate) fn set_environment(&self, command: &mut Command) {
        support::fresh(command).env_clear().env("PATH", &self.path).env("LC_ALL", "C").stdin(Stdio::null());
    }
}

/// One configuration, identified by its combination of kinds.
#[derive(Clone, Copy, Debug)]
struct Case {
    who: UserKind,
    nth: usize,
}

impl Case {
    fn name(self) -> String {
        format!("{:03}@{}", self.nth, self.who.word())
    }

    /// Draws the configuration. Each one has its own random numbers, so it can be drawn alone.
    fn drawn(self, seed: u64, witnesses: Witnesses) -> Config {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        bytes[8..16].copy_from_slice(&(self.nth as u64).to_le_bytes());
        bytes[16] = self.who as u8;
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let mut runner = TestRunner::new_with_rng(Proptest::default(), rng);
        let created = u8::try_from(self.nth % COMBINATIONS).unwrap_or_default();
        draw::config(self.who, witnesses == Witnesses::Own, created)
            .new_tree(&mut runner)
            .expect("nothing is filtered")
            .current()
    }
}

/// The results of the configurations of one caller that have run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Counts {
    agreed: usize,
    failed: usize,
    ran: usize,
    not_found: usize,
    refused: usize,
    joined: usize,
    tools: usize,
    calls: usize,
}

fn main() -> ExitCode {
    support::begin();
    let seed = seed();
    let run = Arc::new(LazyLock::new(WholeRun::new as fn() -> WholeRun));
    let cases = [UserKind::Root, UserKind::User]
        .into_iter()
        .flat_map(|who| (0..COMBINATIONS).map(move |nth| Case { who, nth }));
    let tests = cases.map(|case| {
        let (run, seed) = (run.clone(), seed.clone());
        Test::new(case.name(), move || match seed {
            Ok(seed) => run.confront(case, seed),
            Err(error) => Verdict::Failed(error),
        })
    });
    let suite = Suite::new("witness", tests.collect());
    let (is_list, is_complete) = (suite.is_list(), suite.is_complete());
    if let (Ok(seed), false) = (&seed, is_list) {
        println!("seed {seed}: NSEXEC_SEED={seed} repeats this run");
    }
    let has_run = !is_list && !suite.names().is_empty();
    if has_run {
        // On this thread, since the kernel kills the processes to join when the thread that made them ends.
        LazyLock::force(&run);
    }
    let passed = suite.run(Threads::Several(thread::available_parallelism().map_or(1, usize::from)));
    let enough = !has_run || run.sums_up(is_complete);
    if passed && enough { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The processes, files and counts that all configurations share.
struct WholeRun {
    counts: Mutex<[Counts; 2]>,
    /// The reason, if all configurations are skipped.
    unable: Option<String>,
    callers: [Result<Caller, String>; 2],
    witnesses: Witnesses,
    // Dropped in this order: the processes to join, their folder, the user.
    targets: Targets,
    folder: Folder,
    _user: Result<Ordinary, String>,
}

impl WholeRun {
    fn new() -> Self {
        let user = Ordinary::provide();
        let folder = Folder::make().expect("a folder for the tests");
        let no_strace = Command::new("strace").arg("-V").output().is_err();
        let root =
            if geteuid().is_root() { Ok(Caller::root(&folder.path)) } else { Err("needs root".to_owned()) };
        let ordinary = user
            .as_ref()
            .map_err(Clone::clone)
            .and_then(|user| Caller::ordinary(user, &folder.path).ok_or("a user without a name".to_owned()));
        let targets = Targets::start(&folder.bin, &folder.path, root.as_ref().ok(), ordinary.as_ref().ok())
            .expect("processes to join");
        Self {
            counts: Mutex::default(),
            unable: no_strace.then(|| "strace is not here".to_owned()),
            witnesses: if root.is_ok() { Witnesses::Root } else { Witnesses::Own },
            callers: [root, ordinary],
            targets,
            folder,
            _user: user,
        }
    }

    /// Runs one configuration.
    fn confront(&self, case: Case, seed: u64) -> Verdict {
        let caller = match (&self.unable, &self.callers[case.who as usize]) {
            (None, Ok(caller)) => caller,
            (Some(reason), _) | (None, Err(reason)) => return Verdict::Skipped(reason.clone()),
        };
        let folder = confront::folder(&self.folder.path, &case.name(), caller);
        let stage = Stage { bin: &self.folder.bin, targets: &self.targets, witnesses: self.witnesses };
        let config = case.drawn(seed, self.witnesses);
        let verdict = match stage.confront(&config, caller, &folder) {
            Ok(agreed) => {
                self.counts()[case.who as usize].add(&config, case.who, agreed);
                Verdict::Passed
            }
            Err(what) => {
                self.counts()[case.who as usize].failed += 1;
                Verdict::Failed(smallest(&stage, caller, case, seed, &folder, (&config, what)))
            }
        };
        fs::remove_dir_all(folder).expect("the folder of a configuration");
        verdict
    }

    fn counts(&self) -> MutexGuard<'_, [Counts; 2]> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Prints the counts. Returns false if too few configurations of one sort were drawn in a complete run.
    fn sums_up(&self, is_complete: bool) -> bool {
        let counts = *self.counts();
        let mut enough = true;
        for (who, caller) in [UserKind::Root, UserKind::User].into_iter().zip(&self.callers) {
            let (Ok(caller), None) = (caller, &self.unable) else { continue };
            let Counts { agreed, failed, ran, not_found, refused, joined, tools, calls } =
                counts[who as usize];
            println!(
                "as {}: {} configurations: {ran} ran, {not_found} found no command, {refused} were refused; of those \
                 that were not, {joined} joined, {tools} went through mapping tools; {calls} calls agreed",
                caller.name,
                agreed + failed
            );
            enough &= !is_complete || is_enough(&counts[who as usize], who, self.witnesses);
        }
        enough
    }
}

impl Counts {
    fn add(&mut self, config: &Config, who: UserKind, agreed: Agreed) {
        self.agreed += 1;
        let refused = agreed.fate == Fate::Refused;
        self.ran += usize::from(agreed.fate == Fate::Ran);
        self.not_found += usize::from(agreed.fate == Fate::NotFound);
        self.refused += usize::from(refused);
        // Count only joins and tools that took effect; `refused` counts the refusals.
        self.joined += usize::from(!refused && config.joined() > 0);
        self.tools += usize::from(!refused && who == UserKind::User && config.uses_tools());
        self.calls += agreed.calls;
    }
}

/// Returns whether enough configurations of each sort were drawn for the result to be meaningful.
fn is_enough(counts: &Counts, who: UserKind, witnesses: Witnesses) -> bool {
    let (all, ran, refused, joined, tools) = match (who, witnesses) {
        (UserKind::Root, _) => (200, 80, 50, 30, 0),
        (UserKind::User, Witnesses::Root) => (200, 30, 80, 10, 10),
        (UserKind::User, Witnesses::Own) => (200, 30, 80, 0, 0),
    };
    let least = [(counts.agreed + counts.failed, all), (counts.ran, ran), (counts.refused, refused)];
    let enough = least
        .into_iter()
        .chain([(counts.joined, joined), (counts.tools, tools)])
        .all(|(is, least)| is >= least);
    if !enough {
        println!(
            "too few: wanted are {all}: {ran} that ran, {refused} refused, {joined} with joins, {tools} through tools"
        );
    }
    enough
}

/// Returns the text of a failure: the smallest configuration that still fails, the difference, and the
/// command to repeat it.
fn smallest(
    stage: &Stage<'_>,
    caller: &Caller,
    case: Case,
    seed: u64,
    folder: &Path,
    first: (&Config, String),
) -> String {
    let (mut config, mut what) = (first.0.clone(), first.1);
    // Each round makes the configuration simpler, so this ends.
    'smaller: loop {
        for simpler in config.simpler(caller.who) {
            if let Err(still) = stage.confront(&simpler, caller, folder) {
                (config, what) = (simpler, still);
                continue 'smaller;
            }
        }
        break;
    }
    let line = |config: &Config| {
        let before = if config.no_new_privs { "setpriv --no-new-privs " } else { "" };
        format!("{before}nsexec trace {}", stage.args(config, caller).join(" "))
    };
    format!(
        "as {}\ndrawn:    {}\nsmallest: {}\nagain:    NSEXEC_SEED={seed} cargo test --test witness {}\n{what}",
        caller.name,
        line(first.0),
        line(&config),
        case.name(),
    )
}

fn seed() -> Result<u64, String> {
    let drawn = || {
        let mut bytes = [0; 8];
        let read =
            fs::File::open("/dev/urandom").and_then(|mut file| io::Read::read_exact(&mut file, &mut bytes));
        read.map_or(SEED, |()| u64::from_le_bytes(bytes))
    };
    let drawn = || if env::var_os("CI").is_some() { SEED } else { drawn() };
    support::given_seed().map(|given| given.unwrap_or_else(drawn))
}

/// The folder with a copy of the program. Every user may enter it. Removed at the end.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
    bin: PathBuf,
}

impl Folder {
    fn make() -> io::Result<Self> {
        let path = mkdtemp(&env::temp_dir().join("nsexec-test.XXXXXX"))?;
        let bin = path.join("nsexec");
        let made = Self { path, bin };
        fs::set_permissions(&made.path, fs::Permissions::from_mode(0o755))?;
        fs::create_dir(made.path.join("hidden"))?;
        fs::set_permissions(made.path.join("hidden"), fs::Permissions::from_mode(0o600))?;
        fs::copy(env!("CARGO_BIN_EXE_nsexec"), &made.bin)?;
        fs::set_permissions(&made.bin, fs::Permissions::from_mode(0o755))?;
        Ok(made)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.path)
            .unwrap_or_else(|error| println!("{} is left: {error}", self.path.display()));
    }
}
