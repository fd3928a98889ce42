//! Random commands with steps: root directories, mounts, limits, capabilities, filters, sessions. The record
//! and strace's output must agree line by line. The launch must have the planned outcome, unless the plan
//! cannot tell; with the same outcome the plan and the record must agree too. No launch may break a rule.
//!
//! The program executes itself under strace. The inner run draws the command, plans it, launches and records
//! it. `cargo test --test drawn 017@user` runs one command. The seed is fixed if CI is set; otherwise it is
//! drawn and printed. `NSEXEC_SEED=N` repeats a run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command as Program, ExitCode, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use nix::unistd::{geteuid, setgroups, setresgid, setresuid};
use nsexec::launch::{Command, LaunchError};
use nsexec::namespace::NsKind::{self, Cgroup, Ipc, Mnt, Net, Pid, User, Uts};
use nsexec::sys::types::{BpfInstruction, Capability, Propagation, Resource};
use nsexec_audit::diff::compare;
use nsexec_audit::machine::{Machine, PlanCommand};
use nsexec_audit::note::descriptor_notes;
use nsexec_audit::plan::{Plan, PlanError, Verdict as Planned};
use nsexec_audit::record::Recorder;
use nsexec_audit::record::shared::SharedSink;
use nsexec_audit::rules::{self, Facts, Severity};
use nsexec_audit::witness::{self, mark_begin, mark_end};
use nsexec_audit::{Role, Run, sections};
use support::{Suite, Test, Threads, Verdict};

/// The environment variables of the inner run: the seed, whether it becomes an ordinary user, and the file
/// for the record.
const SEED: &str = "NSEXEC_TEST_DRAWN";
const BECOMES: &str = "NSEXEC_TEST_DRAWN_USER";
const OUT: &str = "NSEXEC_TEST_DRAWN_OUT";

/// The ordinary user. No account has this id.
const USER: u32 = 1021;

/// The number of commands for each user.
const COMMANDS: u64 = 150;

/// The line of the inner run whose command ran.
const SUCCEEDED: &str = "the command ran";

/// The line of the inner run that ends without a process.
const REFUSED: &str = "refused before any process";

fn main() -> ExitCode {
    if let (Some(seed), Some(out)) = (std::env::var_os(SEED), std::env::var_os(OUT)) {
        let seed = seed.to_str().and_then(|seed| seed.parse().ok()).expect("a seed");
        println!("{}", inner(seed, Path::new(&out)));
        return ExitCode::SUCCESS;
    }
    let base = match support::given_seed() {
        Ok(Some(seed)) => seed,
        Ok(None) if std::env::var_os("CI").is_some() => 20_261_127,
        Ok(None) => u64::from(std::process::id()) << 20,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let folder = Arc::new(LazyLock::new(Folder::new));
    let users = ["root", "user"];
    let cases = users.iter().flat_map(|user| (0..COMMANDS).map(move |nth| (*user, nth)));
    let tests = cases.map(|(user, nth)| {
        let folder = folder.clone();
        Test::new(format!("{nth:03}@{user}"), move || confront(user, base.wrapping_add(nth), &folder.0))
    });
    let suite = Suite::new("drawn", tests.collect());
    if !suite.is_list() {
        println!("seed {base}: NSEXEC_SEED={base} repeats this run");
    }
    let has_run = !suite.is_list() && suite.is_complete() && geteuid().is_root();
    let passed = suite.run(Threads::Several(2));
    let [ran, failed, refused] = [&RAN, &FAILED, &REFUSED_FIRST].map(|count| count.load(Ordering::Relaxed));
    println!(
        "drawn: {ran} commands ran, {failed} launches failed, {refused} were refused before any process"
    );
    // Each outcome must be compared often enough to mean something.
    let enough = !has_run || ran >= 50 && failed >= 20 && refused >= 5;
    if passed && enough { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The number of commands with each outcome.
static RAN: AtomicUsize = AtomicUsize::new(0);
static FAILED: AtomicUsize = AtomicUsize::new(0);
static REFUSED_FIRST: AtomicUsize = AtomicUsize::new(0);

/// Mount points that drawn commands create. The plan assumes that they exist, so the suite creates them
/// first: a command with a mount namespace still creates files on the machine.
const DIRECTORIES: [&str; 2] = ["/tmp/drawn", "/mnt/etc"];
const LINK: &str = "/tmp/link";

/// The folder of the records, and the paths that this run has created.
struct Folder(PathBuf, Vec<PathBuf>);

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("nsexec-drawn-{}", std::process::id()));
        fs::create_dir(&path).expect("a folder");
        // The ordinary user writes its record here.
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("permissions");
        // An ordinary user cannot create /mnt/etc; the user's commands cannot either.
        let mut created: Vec<PathBuf> =
            DIRECTORIES.iter().filter(|path| fs::create_dir(path).is_ok()).map(PathBuf::from).collect();
        if std::os::unix::fs::symlink("/usr/lib", LINK).is_ok() {
            created.push(LINK.into());
        }
        Self(path, created)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
        for path in &self.1 {
            let _ = fs::remove_file(path).or_else(|_| fs::remove_dir(path));
        }
    }
}

// -- the outer run: compares --------------------------------------------------------------------------------

fn confront(user: &'static str, seed: u64, folder: &Path) -> Verdict {
    if user == "root" && !geteuid().is_root() {
        return Verdict::Skipped("needs root".to_owned());
    }
    if Program::new("strace").arg("-V").output().is_err() {
        return Verdict::Skipped("there is no strace".to_owned());
    }
    compare_with_strace(user, seed, folder).map_err(|error| format!("NSEXEC_SEED={seed}: {error}")).into()
}

fn compare_with_strace(user: &str, seed: u64, folder: &Path) -> Result<(), String> {
    let text = |error: &dyn core::fmt::Display| error.to_string();
    let (out, strace) = (folder.join(format!("{user}-{seed}.record")), folder.join(format!("{user}-{seed}")));
    let mut program = Program::new("strace");
    program.args(witness::FLAGS).arg("-o").arg(&strace);
    program.arg(std::env::current_exe().map_err(|error| text(&error))?);
    program.env(SEED, seed.to_string()).env(OUT, &out).stdin(Stdio::null());
    if user == "user" && geteuid().is_root() {
        program.env(BECOMES, "1");
    }
    let output = program.output().map_err(|error| text(&error))?;
    let said = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        return Err(format!("{}\n{said}\n{}", output.status, String::from_utf8_lossy(&output.stderr)));
    }
    if said.lines().any(|line| line == REFUSED) {
        REFUSED_FIRST.fetch_add(1, Ordering::Relaxed);
        return Ok(());
    }
    let count = if said.lines().any(|line| line == SUCCEEDED) { &RAN } else { &FAILED };
    count.fetch_add(1, Ordering::Relaxed);
    let read = |path: &Path| fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()));
    let record = Run::from_json_lines(&read(&out)?).map_err(|error| text(&error))?;
    let files = witness::split_by_process(&read(&strace)?);
    let seen = witness::run_of(&files, Role::Launcher).map_err(|error| text(&error))?;
    for file in [out, strace] {
        fs::remove_file(file).map_err(|error| text(&error))?;
    }
    if record.lost > 0 {
        return Err(format!("{} lines were lost", record.lost));
    }
    let diff = compare(&record, &seen);
    if diff.is_empty() { Ok(()) } else { Err(format!("record and strace differ:\n{diff}\n{said}")) }
}

// -- the inner run: draws, plans, launches and records -----------------------------------------------------

fn inner(seed: u64, out: &Path) -> String {
    if std::env::var_os(BECOMES).is_some() {
        setgroups(&[]).expect("no groups");
        setresgid(USER.into(), USER.into(), USER.into()).expect("a group");
        setresuid(USER.into(), USER.into(), USER.into()).expect("a user");
        nix::sys::prctl::set_dumpable(true).expect("a prctl");
    }
    let mut drawn = String::new();
    let command = draw(&mut Dice(seed), &mut drawn);
    let plan = match command.plan(&Machine::here()) {
        Ok(plan) => plan,
        Err(PlanError::Launch(error)) => {
            // The launch finds the same error.
            let spawned = command.clone().spawn().map(|_| ());
            assert_eq!(spawned.map_err(|error| error.to_string()), Err(error.to_string()), "{drawn}");
            return REFUSED.to_owned();
        }
        Err(error) => panic!("{error}\n{drawn}"),
    };
    let prepared = command.prepare().expect("the plan has the same settings");
    let (sink, reader) = SharedSink::new().expect("a sink");
    let mut launcher = command.launcher().expect("the plan has the same settings");
    let launched = launcher.spawn_through(|sys| {
        mark_begin();
        Recorder::new(sys, sink)
    });
    mark_end();
    let launched = launched.map(|mut child| child.wait().expect("a command that ends"));
    let same = agree(&plan, launched.as_ref().map_err(Clone::clone).map(|_| ()), &drawn);
    let mut run = sections::of_record(&reader.read().expect("a record"), Role::Launcher);
    run.notes.extend([rules::message_note(prepared.message())]);
    run.notes.extend(descriptor_notes(&prepared));
    let difference = compare(&plan.run, &run);
    // If the outcomes differ, the plan contains the calls of another outcome, so they are not compared.
    if same {
        assert!(difference.is_empty(), "plan and record differ:\n{difference}\n{drawn}");
    }
    let findings = rules::check(&run, &Facts::of(&run, *prepared.policy()));
    let breaches: Vec<_> = findings.iter().filter(|one| one.severity != Severity::Warning).collect();
    assert!(breaches.is_empty(), "{breaches:#?}\n{drawn}");
    fs::write(out, run.to_json_lines().expect("JSON")).expect("a file for the record");
    if launched.is_ok() { format!("{SUCCEEDED}\n{drawn}") } else { drawn }
}

/// Checks that the launch had the planned outcome, unless the plan does not know a fact. Returns whether it
/// had.
fn agree(plan: &Plan, launched: Result<(), LaunchError>, drawn: &str) -> bool {
    match (plan.verdict(), launched) {
        (Planned::Runs, Ok(())) => true,
        (Planned::CannotTell(_), launched) => launched.is_ok() == plan.succeeds,
        (Planned::Fails(fault), Err(error)) => {
            let step = error.step().map_or((None, None), |(code, errno)| (Some(code), errno));
            let same = (fault.code, fault.errno) == step;
            // A fact that the plan does not know may let an earlier step fail.
            assert!(same || !plan.unknown.is_empty(), "planned: {fault}\nlaunched: {error}\n{drawn}");
            same
        }
        (planned, launched) => panic!("planned: {planned}\nlaunched: {launched:?}\n{drawn}"),
    }
}

/// Random numbers (splitmix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }

    /// True `percent` times of a hundred.
    fn chance(&mut self, percent: u64) -> bool {
        self.roll(100) < percent
    }

    fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.roll(of.len() as u64) as usize]
    }
}

/// Draws a command, and writes its settings.
fn draw(dice: &mut Dice, drawn: &mut String) -> Command {
    let root = geteuid().is_root();
    let mut command = Command::new(dice.one(&["true", "/bin/true", "false", "/bin/sh", "no-such-command"]));
    let mut kinds: Vec<NsKind> =
        [Mnt, Net, Pid, Ipc, Uts, Cgroup].into_iter().filter(|_| dice.chance(45)).collect();
    if dice.chance(if root { 50 } else { 90 }) {
        kinds.push(User);
    }
    command.unshare(kinds.iter().copied());
    let has = |kind| kinds.contains(&kind);
    if has(User) {
        if dice.chance(70) {
            command.map_root()
        } else {
            command.map_current_user()
        };
    }
    // As for each recorded launch.
    command.copy_memory();
    // Folders that each user may search, in each root directory.
    command.env("PATH", "/usr/bin:/bin");
    draw_attributes(dice, &mut command, &kinds);
    if has(Pid) && dice.chance(40) {
        command.init();
    }
    if has(Mnt) {
        draw_mounts(dice, &mut command, &kinds);
    }
    if dice.chance(20) {
        command.current_dir(dice.one(&["/", "/usr", "/tmp", "/nowhere", "/etc/passwd", "usr"]));
    }
    if root && !has(User) && dice.chance(30) {
        if !has(Mnt) {
            // A folder that only root may search. In another root directory the plan cannot tell.
            command.env("PATH", dice.one(&["/usr/bin:/bin", "/root:/usr/bin", "/root/bin:/usr/bin:/bin"]));
        }
        command.uid(1 + dice.roll(5000) as u32).gid(1 + dice.roll(5000) as u32);
        if dice.chance(50) {
            command.groups([7, 8]);
        }
    }
    *drawn = format!("{kinds:?} {command:#?}");
    command
}

fn draw_attributes(dice: &mut Dice, command: &mut Command, kinds: &[NsKind]) {
    let has = |kind| kinds.contains(&kind);
    if has(Uts) && dice.chance(50) {
        command.hostname("drawn");
    }
    if has(Net) && dice.chance(50) {
        command.loopback_up();
    }
    if has(Net) && has(Mnt) && dice.chance(30) {
        command.sys_of_network();
    }
    if dice.chance(20) {
        let soft = dice.roll(60) + 20;
        command.limit(*dice.one(&[Resource::NOFILE, Resource::CORE, Resource::MEMLOCK]), soft, soft);
    }
    if dice.chance(20) {
        command.umask(dice.roll(0o1000) as u32);
    }
    if dice.chance(25) {
        let all = [Capability::CHOWN, Capability::NET_ADMIN, Capability::SYS_ADMIN, Capability::KILL];
        let kept: Vec<Capability> = all.into_iter().filter(|_| dice.chance(40)).collect();
        command.capabilities(kept);
    }
    if dice.chance(20) {
        command.no_new_privs();
    }
    if dice.chance(15) {
        command.seccomp_filter([BpfInstruction { code: 0x06, jt: 0, jf: 0, k: 0x7fff_0000 }]);
    }
    if dice.chance(15) {
        command.new_session_keyring();
    }
    if dice.chance(15) {
        command.new_session();
    }
    if dice.chance(10) {
        // Standard input is /dev/null.
        command.controlling_terminal();
    }
    if dice.chance(15) {
        command.oom_score_adj(*dice.one(&[0, 300, 1000]));
    }
}

fn draw_mounts(dice: &mut Dice, command: &mut Command, kinds: &[NsKind]) {
    let has = |kind| kinds.contains(&kind);
    if dice.chance(30) {
        command.propagation(*dice.one(&[None, Some(Propagation::Private), Some(Propagation::Slave)]));
    }
    match dice.roll(5) {
        0 => {
            command.root_read_only("/");
        }
        1 => {
            command.root("/");
        }
        2 | 3 => {
            command.root_empty();
            for folder in ["/bin", "/usr", "/lib", "/lib64"] {
                if fs::exists(folder).unwrap_or(false) {
                    command.bind_read_only(folder, folder);
                }
            }
        }
        _ => {}
    }
    for _ in 0..dice.roll(4) {
        match dice.roll(9) {
            0 => command.tmpfs("/tmp"),
            1 if has(Pid) => command.proc("/proc"),
            2 if has(Net) => command.sys("/sys"),
            3 if has(Ipc) => command.mqueue("/dev/mqueue"),
            4 => command.dev("/dev"),
            5 => command.create_dir(DIRECTORIES[0], 0o755),
            6 => command.symlink("/usr/lib", LINK),
            7 => command.bind(dice.one(&["/usr", "/etc/passwd", "/no/such/source"]), "/mnt"),
            _ => command.bind_read_only("/etc", DIRECTORIES[1]),
        };
    }
}
