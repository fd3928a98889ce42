//! Tests of replays. Each case records a real launch and replays the record in another process, without the
//! kernel. The replay must have the same processes and the same error text. One more record comes from a
//! simulated machine.
//!
//! Each launch is this program, executed again with a single thread, as root or as an ordinary user. With
//! `NSEXEC_REPLAY_KEEP=DIR` the records are kept in DIR.

use std::ffi::CString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::rc::Rc;
use std::sync::{Arc, LazyLock};

use nsexec::bootstrap::{Bootstrap, Dialect};
use nsexec::idmap::IdMap;
use nsexec::launch::script::Launched;
use nsexec::launch::{Collector, Launcher};
use nsexec::log::Level;
use nsexec::namespace::paths::NsPaths;
use nsexec::namespace::{NsKind, NsSet};
use nsexec::policy::Policy;
use nsexec::sys::types::CloneFlags;
use nsexec_audit::note::Values;
use nsexec_audit::record::Recorder;
use nsexec_audit::record::shared::SharedSink;
use nsexec_audit::replay::{Outcome, keep, replay};
use nsexec_audit::sim::{Ended, Oldest, Program, Settings, Sim, User};
use nsexec_audit::{End, Role, Run, Section, sections};
use support::{Suite, Test, Threads, Verdict};

const CASE: &str = "NSEXEC_REPLAY_CASE";
const OUT: &str = "NSEXEC_REPLAY_OUT";
const KEEP: &str = "NSEXEC_REPLAY_KEEP";
const SECRET: &str = "a-value-that-nobody-may-see";

/// The id of an ordinary user that every Debian system has.
const USER_ID: &str = "1";

/// A launch, the user that starts it, and the expected result.
struct Case {
    name: &'static str,
    /// The command that executes the launcher, to change its user or namespaces. Empty: root launches.
    through: &'static [&'static str],
    flags: u32,
    join: &'static str,
    map: &'static str,
    tool: &'static str,
    command: &'static str,
    /// Whether the policy asks for the stages.
    stages: bool,
    /// A part of the expected error; empty for a success.
    error: &'static str,
    status: u8,
    /// The recorded processes, without an init that was given up.
    processes: usize,
}

const PLAIN: Case = Case {
    name: "success",
    through: &[],
    flags: 0x6c02_0000,
    join: "",
    map: "",
    tool: "",
    command: "/bin/true",
    stages: false,
    error: "",
    status: 0,
    processes: 2,
};

const AS_USER: &[&str] = &["setpriv", "--reuid", USER_ID, "--regid", USER_ID, "--clear-groups"];

const CASES: &[Case] = &[
    PLAIN,
    Case { name: "success_rootless", through: AS_USER, flags: 0x7e02_0080, map: "0 1 1\n", ..PLAIN },
    Case { name: "success_through_stages", stages: true, processes: 4, ..PLAIN },
    Case {
        name: "success_rootless_through_stages",
        through: AS_USER,
        flags: 0x7e02_0080,
        map: "0 1 1\n",
        stages: true,
        processes: 4,
        ..PLAIN
    },
    // The kernel refuses the clone of a direct start. The stages report the namespace.
    Case {
        name: "unshare_refused",
        through: AS_USER,
        error: "stage-1: failed to unshare remaining namespaces: Operation not permitted",
        status: 1,
        processes: 3,
        ..PLAIN
    },
    // A limit of the launcher's own user namespace.
    Case {
        name: "no_space",
        through: &[
            "unshare",
            "-Ur",
            "sh",
            "-c",
            "echo 0 >/proc/sys/user/max_net_namespaces; exec \"$@\"",
            "sh",
        ],
        error: "No space left on device",
        status: 1,
        processes: 3,
        ..PLAIN
    },
    Case {
        name: "success_through_a_child",
        flags: 0x2802_0000,
        join: "net:/proc/self/ns/net,uts:/proc/self/ns/uts",
        processes: 3,
        ..PLAIN
    },
    Case { name: "success_in_a_time_namespace", flags: 0x80, processes: 3, ..PLAIN },
    Case {
        name: "success_of_joins_through_stages",
        flags: 0x2802_0000,
        join: "net:/proc/self/ns/net,uts:/proc/self/ns/uts",
        stages: true,
        processes: 4,
        ..PLAIN
    },
    Case {
        name: "nothing_to_join",
        flags: 0,
        join: "net:/proc/self/ns/net,uts:/nowhere",
        error: "/nowhere: No such file or directory",
        status: 1,
        ..PLAIN
    },
    Case {
        name: "nothing_to_join_through_stages",
        flags: 0,
        join: "net:/proc/self/ns/net,uts:/nowhere",
        stages: true,
        error: "/nowhere: No such file or directory",
        status: 1,
        processes: 3,
        ..PLAIN
    },
    Case {
        name: "no_such_command_through_a_child",
        flags: 0,
        join: "net:/proc/self/ns/net",
        command: "nsexec-has-no-such-command",
        error: "failed to execute nsexec-has-no-such-command: No such file or directory",
        status: 127,
        processes: 3,
        ..PLAIN
    },
    Case {
        name: "tool_fails",
        through: AS_USER,
        flags: 0x1000_0000,
        map: "0 1 1\n1 100000 10\n",
        tool: "/bin/false",
        error: "newuidmap exited with status 1",
        status: 1,
        processes: 4,
        ..PLAIN
    },
    // The init of a direct start is given up: the kernel refuses a map with another id than the caller's own.
    Case {
        name: "tool_fails_after_a_direct_attempt",
        through: AS_USER,
        flags: 0x1000_0000,
        map: "0 100000 1\n",
        tool: "/bin/false",
        error: "newuidmap exited with status 1",
        status: 1,
        processes: 4,
        ..PLAIN
    },
    Case {
        name: "no_such_command",
        command: "nsexec-has-no-such-command",
        error: "failed to execute nsexec-has-no-such-command: No such file or directory",
        status: 127,
        ..PLAIN
    },
    Case { name: "no_permission", command: "/etc/passwd", error: "Permission denied", status: 126, ..PLAIN },
];

fn main() -> ExitCode {
    if let Ok(name) = std::env::var(CASE) {
        let case = CASES.iter().find(|case| case.name == name).expect("a case of the list");
        support::default_signals();
        record(case, Path::new(&std::env::var_os(OUT).expect("where to")));
        return ExitCode::SUCCESS;
    }
    let place = Arc::new(LazyLock::new(Place::new));
    let test = |case: &'static Case| {
        let place = place.clone();
        Test::new(case.name, move || {
            if !nix::unistd::Uid::effective().is_root() {
                return Verdict::Skipped("needs root".to_owned());
            }
            check(case, &place);
            Verdict::Passed
        })
    };
    let tests = [Test::new("another_machine", another_machine)].into_iter().chain(CASES.iter().map(test));
    let suite = Suite::new("replay", tests.collect());
    support::begin();
    suite.main(Threads::One)
}

// -- the launch ---------------------------------------------------------------------------------------------

fn launcher(case: &Case) -> Launcher {
    let text = |text: &str| CString::new(text).unwrap();
    let (map, tool) = (text(case.map), text(case.tool));
    let mut asked = Bootstrap::new(CloneFlags(case.flags)).with_rootless_euid(!case.map.is_empty());
    if !case.join.is_empty() {
        asked = asked.with_namespaces(NsPaths::parse(case.join.as_bytes(), NsSet::ALL).unwrap());
    }
    if !case.map.is_empty() {
        let map = IdMap::parse(&map).unwrap();
        asked = asked.with_uid_map(map).with_gid_map(map);
    }
    if !case.tool.is_empty() {
        asked = asked.with_uidmap_path(&tool).with_gidmap_path(&tool).with_setgroup(true);
    }
    let policy = Policy::runc(&Dialect::V1_2).with_stages(case.stages);
    let mut launcher = Launcher::new(&asked, policy).unwrap();
    launcher.command(case.command, [""; 0]).env("TOKEN", SECRET).level(Level::Debug);
    launcher
}

/// Launches, and writes the record and the error to files.
fn record(case: &Case, out: &Path) {
    let mut launcher = launcher(case);
    let job = launcher.prepare().unwrap();
    let (sink, reader) = SharedSink::new().unwrap();
    let (text, status) = match launcher.spawn_through(|sys| Recorder::new(sys, sink)) {
        Ok(mut child) => {
            child.wait().unwrap();
            (String::new(), 0)
        }
        Err(error) => (error.to_string(), error.exit_code()),
    };
    let run = sections::of_record(&reader.read().unwrap(), Role::Launcher);
    fs::write(out, keep(&run, &job, Values::LeftOut).to_json_lines().unwrap()).unwrap();
    fs::write(out.with_extension("error"), format!("{status} {text}")).unwrap();
}

/// A folder with a copy of this program. Every user may enter the folder.
struct Place {
    folder: PathBuf,
}

impl Place {
    fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("nsexec-replay-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
        fs::copy(std::env::current_exe().unwrap(), folder.join("program")).unwrap();
        Self { folder }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

// -- the replay ---------------------------------------------------------------------------------------------

fn check(case: &Case, place: &Place) {
    let out = place.folder.join(case.name).with_extension("jsonl");
    let program = place.folder.join("program");
    let words: Vec<&str> = case.through.iter().copied().chain([program.to_str().unwrap()]).collect();
    let status =
        Command::new(words[0]).args(&words[1..]).env(CASE, case.name).env(OUT, &out).status().unwrap();
    assert!(status.success(), "{}: {status}", case.name);
    let (text, told) =
        (fs::read_to_string(&out).unwrap(), fs::read_to_string(out.with_extension("error")).unwrap());
    if let Some(folder) = std::env::var_os(KEEP) {
        fs::write(Path::new(&folder).join(case.name).with_extension("jsonl"), &text).unwrap();
    }
    let (status, error) = told.split_once(' ').unwrap();
    assert!(error.contains(case.error) && error.is_empty() == case.error.is_empty(), "{}: {told}", case.name);
    assert_eq!(status.parse(), Ok(case.status), "{}: {told}", case.name);
    assert!(text.contains("TOKEN=…") && !text.contains(SECRET), "{}", case.name);

    let run = Run::from_json_lines(&text).unwrap();
    let replayed = replay(&run).unwrap();
    let shown = || replayed.processes.iter().map(|process| format!("{process}\n")).collect::<String>();
    assert!(replayed.agrees(), "{}\n{}", case.name, shown());
    // The init of a direct start that is given up may be killed before its first line.
    let others = replayed.processes.iter().filter(|process| process.role != sections::GIVEN_UP);
    assert_eq!(others.count(), case.processes, "{}\n{}", case.name, shown());
    assert_eq!(replayed.error.as_ref().map(ToString::to_string).unwrap_or_default(), error, "{}", case.name);
    assert_eq!(replayed.status(), case.status, "{}", case.name);

    check_program(&out, error, case.status);
    cut(case, &text);
}

/// Checks that `nsexec trace --replay` prints the same error. Then cuts the record, and checks that it
/// reports the cut.
fn check_program(file: &Path, error: &str, status: u8) {
    let program = env!("CARGO_BIN_EXE_nsexec");
    let said = || Command::new(program).args(["trace", "--replay"]).arg(file).output().unwrap();
    let (out, wanted) = (said(), if error.is_empty() { String::new() } else { format!("nsexec: {error}\n") });
    assert_eq!(
        (String::from_utf8_lossy(&out.stderr).into_owned(), out.status.code()),
        (wanted, Some(status.into()))
    );
    let mut run = Run::from_json_lines(&fs::read_to_string(file).unwrap()).unwrap();
    run.sections.iter_mut().rfind(|section| !is_killed(section)).unwrap().lines.pop().unwrap();
    fs::write(file, run.to_json_lines().unwrap()).unwrap();
    let out = said();
    assert!(String::from_utf8_lossy(&out.stdout).contains("the record ends here"), "{out:?}");
    assert_eq!(out.status.code(), Some(3));
}

/// Returns whether a signal ended the process. Its record agrees up to any line.
fn is_killed(section: &Section) -> bool {
    matches!(section.end, End::Signaled(_))
}

/// Checks that the replay of a truncated record ends and reports the truncation, wherever the record is cut.
fn cut(case: &Case, text: &str) {
    let whole = Run::from_json_lines(text).unwrap();
    let others = whole.sections.len() - usize::from(whole.sections.last().is_some_and(is_killed));
    let ends: Vec<usize> = text.match_indices('\n').map(|(at, _)| at + 1).collect();
    for end in &ends[..ends.len() - 1] {
        let run = Run::from_json_lines(&text[..*end]).unwrap();
        let Ok(replayed) = replay(&run) else {
            assert_eq!(run.sections.len(), 0, "{}, cut at {end}", case.name);
            continue;
        };
        let cuts_killed = run.sections.get(..others) == Some(&whole.sections[..others]);
        assert_eq!(
            replayed.agrees(),
            cuts_killed && others < whole.sections.len(),
            "{}, cut at {end}",
            case.name
        );
        for process in &replayed.processes {
            assert!(
                !matches!(process.outcome, Outcome::Diverges { .. }),
                "{}, cut at {end}: {process}",
                case.name
            );
        }
    }
}

/// Replays a record of a simulated machine that has reached its limit on network namespaces. Pids and
/// descriptors differ from this machine's.
fn another_machine() {
    let case = Case { flags: 0x4000_0000, ..PLAIN };
    let job = launcher(&case).prepare().unwrap();
    let mut sim = Sim::new(Settings::default(), &User::root());
    sim.program("/bin/true", Program::ends(Ended::Stay));
    let main = Rc::new(job.clone());
    sim.launcher(move |sys| {
        let mut memory = vec![0; main.message().len()];
        match main.run(sys, &mut memory, None, &mut Collector::default()) {
            Launched::Started { .. } => Ended::Stay,
            Launched::Failed(_) => Ended::Exit(1),
            Launched::Exit(status) => Ended::Exit(status),
        }
    });
    sim.settings().limits.insert(NsKind::Net, 0);
    let report = sim.run(&mut Oldest, None);
    let text = keep(&sections::of_report(&report), &job, Values::LeftOut).to_json_lines().unwrap();
    let replayed = replay(&Run::from_json_lines(&text).unwrap()).unwrap();
    assert!(replayed.agrees(), "{:?}", replayed.processes);
    assert_eq!(
        replayed.error.map(|error| error.to_string()).unwrap_or_default(),
        "stage-1: failed to unshare remaining namespaces: No space left on device (CLONE_NEWNET) \
         (a limit in /proc/sys/user/max_*_namespaces is reached: as root: raise it with sysctl)"
    );
}
