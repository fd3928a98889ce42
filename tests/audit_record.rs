//! Tests of recorded bootstraps on the real kernel. The record must contain every section, agree with
//! strace's output, and break no rule.
//!
//! Each case is this program, executed again as the launcher with a single thread, as root or as an ordinary
//! user. With `NSEXEC_AUDIT_KEEP=DIR` the records are kept in DIR.

use std::ffi::CString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::{Arc, LazyLock};

use nsexec::bootstrap::{Bootstrap, Dialect, Environment, MESSAGE_MAX};
use nsexec::idmap::IdMap;
use nsexec::launch::encode::encode;
use nsexec::legacy::MountSources;
use nsexec::legacy::{CGROUP_BYTE, CgroupPlacement};
use nsexec::log::Level;
use nsexec::namespace::NsSet;
use nsexec::namespace::paths::NsPaths;
use nsexec::nsexec::{Scratch, bootstrap};
use nsexec::pipe::send_all;
use nsexec::policy::Policy;
use nsexec::stage::Outcome;
use nsexec::sys::Sys;
use nsexec::sys::linux::LinuxSys;
use nsexec::sys::types::*;
use nsexec::timens::TimeOffsets;
use nsexec_audit::diff::compare;
use nsexec_audit::record::Recorder;
use nsexec_audit::record::shared::SharedSink;
use nsexec_audit::rules::{Facts, Severity, check};
use nsexec_audit::witness::{self, mark_begin, mark_end, outline};
use nsexec_audit::{End, Role, Run, sections};
use support::{Suite, Test, Threads, Verdict};

const CASE: &str = "NSEXEC_AUDIT_CASE";
const OUT: &str = "NSEXEC_AUDIT_OUT";
const LEVEL: &str = "NSEXEC_AUDIT_LEVEL";
const KEEP: &str = "NSEXEC_AUDIT_KEEP";

/// An ordinary user that every Debian system has. newuidmap needs the name.
const USER: &str = "daemon";
const USER_ID: u32 = 1;

/// A bootstrap, and the expected sections of its record.
struct Case {
    name: &'static str,
    user: bool,
    flags: u32,
    join: &'static str,
    uid_map: &'static str,
    gid_map: &'static str,
    tools: Option<(&'static str, &'static str)>,
    rootless: bool,
    setgroup: bool,
    offsets: &'static str,
    dialect: &'static Dialect,
    /// The mount sources, each with its NUL, and one more NUL at the end. `numbers` are their descriptors in
    /// the environment.
    sources: &'static [u8],
    numbers: &'static [i32],
    succeeds: bool,
    /// The rules that the case breaks on purpose.
    warnings: &'static [&'static str],
    sections: &'static [&'static str],
}

const PLAIN: Case = Case {
    name: "nothing",
    user: false,
    flags: 0,
    join: "",
    uid_map: "",
    gid_map: "",
    tools: None,
    rootless: false,
    setgroup: false,
    offsets: "",
    dialect: &Dialect::V1_2,
    sources: b"",
    numbers: &[],
    succeeds: true,
    warnings: &[],
    sections: &["launcher", "stage-0 parent", "stage-1 child", "stage-2 init"],
};

const CASES: &[Case] = &[
    PLAIN,
    Case { name: "five", flags: 0x6c02_0000, warnings: &["cgroup-namespace"], ..PLAIN },
    Case {
        name: "user_and_all",
        flags: 0x7e02_0080,
        uid_map: "0 100000 65536\n",
        gid_map: "0 100000 65536\n",
        setgroup: true,
        offsets: "boottime 10 0\nmonotonic 5 0\n",
        ..PLAIN
    },
    Case {
        name: "join",
        join: "ipc:/proc/self/ns/ipc,net:/proc/self/ns/net,mnt:/proc/self/ns/mnt,uts:/proc/self/ns/uts",
        ..PLAIN
    },
    Case {
        name: "window",
        flags: 0x1200_0000,
        join: "net:/proc/self/ns/net",
        uid_map: "0 0 1\n",
        gid_map: "0 0 1\n",
        rootless: true,
        ..PLAIN
    },
    Case {
        name: "rootless",
        user: true,
        flags: 0x7e02_0000,
        uid_map: "0 1 1\n",
        gid_map: "0 1 1\n",
        rootless: true,
        ..PLAIN
    },
    Case {
        name: "tools",
        user: true,
        flags: 0x1200_0000,
        uid_map: "0 1 1\n1 100000 10\n",
        gid_map: "0 1 1\n1 100000 10\n",
        tools: Some(("/usr/bin/newuidmap", "/usr/bin/newgidmap")),
        rootless: true,
        setgroup: true,
        sections: &[
            "launcher",
            "stage-0 parent",
            "stage-1 child",
            "stage-2 init",
            "mapping tool (newuidmap)",
            "mapping tool (newgidmap)",
        ],
        ..PLAIN
    },
    Case {
        name: "tool_fails",
        user: true,
        flags: 0x1200_0000,
        uid_map: "0 1 1\n1 100000 10\n",
        gid_map: "0 1 1\n1 100000 10\n",
        tools: Some(("/bin/false", "/bin/false")),
        rootless: true,
        setgroup: true,
        succeeds: false,
        sections: &["launcher", "stage-0 parent", "stage-1 child", "mapping tool (false)"],
        ..PLAIN
    },
    Case {
        name: "mounts",
        flags: 0x3202_0000,
        uid_map: "0 100000 65536\n",
        gid_map: "0 100000 65536\n",
        dialect: &Dialect::V1_1,
        sources: b"/dev\0\0/usr\0\0",
        numbers: &[60, -1, 61],
        ..PLAIN
    },
    Case { name: "cgroup_byte", flags: 0x0202_0000, dialect: &Dialect::V1_0, ..PLAIN },
    Case { name: "late_pid_line", flags: 0x0602_0000, dialect: &Dialect::SEED, ..PLAIN },
    Case {
        name: "told_failure",
        join: "net:/proc/self/ns/net,uts:/nowhere",
        dialect: &Dialect::SEED,
        succeeds: false,
        sections: &["launcher", "stage-0 parent", "stage-1 child"],
        ..PLAIN
    },
    Case {
        name: "no_such_namespace",
        join: "net:/proc/self/ns/net,uts:/nowhere",
        succeeds: false,
        sections: &["launcher", "stage-0 parent", "stage-1 child"],
        ..PLAIN
    },
    Case {
        name: "refused_join",
        user: true,
        join: "net:/proc/self/ns/net,uts:/proc/self/ns/uts",
        rootless: true,
        succeeds: false,
        sections: &["launcher", "stage-0 parent", "stage-1 child"],
        ..PLAIN
    },
];

fn main() -> ExitCode {
    if let Ok(name) = std::env::var(CASE) {
        let case = CASES.iter().find(|case| case.name == name).expect("a case of the list");
        support::default_signals();
        if joins_mounts(case) {
            nsexec::launch::run_from_sealed_copy().expect("a sealed copy");
        }
        let level = if std::env::var_os(LEVEL).is_some() { Level::Debug } else { Level::Warning };
        launcher(case, level, Path::new(&std::env::var_os(OUT).expect("where to")));
        return ExitCode::SUCCESS;
    }
    let place = Arc::new(LazyLock::new(Place::new));
    let test = |case: &'static Case| {
        let place = place.clone();
        Test::new(case.name, move || {
            if !nix::unistd::Uid::effective().is_root() {
                return Verdict::Skipped("needs root".to_owned());
            }
            if let Some((tool, _)) = case.tools.filter(|(tool, _)| !Path::new(tool).exists()) {
                return Verdict::Skipped(format!("needs {tool}"));
            }
            let complaints = run(case, &place);
            if complaints.is_empty() { Verdict::Passed } else { Verdict::Failed(complaints.join("\n")) }
        })
    };
    let suite = Suite::new("audit_record", CASES.iter().map(test).collect());
    support::begin();
    suite.main(Threads::One)
}

// -- the outer run: starts and checks the launchers ---------------------------------------------------------

/// A folder with a copy of this program. Every user may enter the folder.
struct Place {
    folder: PathBuf,
    program: PathBuf,
}

impl Place {
    fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("nsexec-audit-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
        let program = folder.join("program");
        fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        fs::write(folder.join("subid"), format!("{USER}:100000:1000\n")).unwrap();
        Self { folder, program }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn run(case: &Case, place: &Place) -> Vec<String> {
    let mut complaints = Vec::new();
    for debug in [false, true] {
        let recorded = record(case, place, debug, Tracer::Nobody);
        complaints.extend(examine(case, &recorded));
        if let (Some(keep), false) = (std::env::var_os(KEEP), debug) {
            let file = Path::new(&keep).join(case.name).with_extension("jsonl");
            fs::write(file, recorded.to_json_lines().unwrap()).unwrap();
        }
        // A second run must agree, although pids and other numbers differ.
        let again = compare(&recorded, &record(case, place, debug, Tracer::Nobody));
        complaints.extend((!again.is_empty()).then(|| again.to_string()));
        if Command::new("strace").arg("-V").output().is_err() {
            continue;
        }
        let seen = record(case, place, debug, Tracer::Root);
        let strace = place.folder.join("strace");
        let files = if debug {
            witness::split_by_process(&fs::read_to_string(&strace).unwrap())
        } else {
            witness::read_files(&strace).unwrap()
        };
        let witnessed = witness::run_of(&files, Role::Launcher).unwrap();
        complaints.extend(findings(case, &witnessed));
        // Compare names and failures only, as with an ordinary user's strace.
        let outlines = (outline::of_run(&seen), outline::of_files(&files, Role::Launcher).unwrap());
        complaints.extend(outline::compare(&outlines.0, &outlines.1).iter().map(|diff| format!("{diff:?}")));
        let diff = compare(&seen, &witnessed);
        complaints.extend((!diff.is_empty()).then(|| diff.to_string()));
        complaints.extend(outline_of_the_user(case, place, debug));
        let diff = compare(&recorded, &seen);
        complaints.extend((!diff.is_empty()).then(|| diff.to_string()));
    }
    complaints
}

/// Compares the record with the output of an ordinary user's own strace. It cannot read the memory of a
/// non-dumpable process. Mapping tools lose their setuid bit under it, so cases with tools are left out.
fn outline_of_the_user(case: &Case, place: &Place, debug: bool) -> Vec<String> {
    if !case.user || debug || case.tools.is_some() {
        return Vec::new();
    }
    let seen = record(case, place, debug, Tracer::User);
    let files = witness::read_files(&place.folder.join("strace")).unwrap();
    let outlines = (outline::of_run(&seen), outline::of_files(&files, Role::Launcher).unwrap());
    let differences = outline::compare(&outlines.0, &outlines.1);
    differences.iter().map(|difference| format!("the user's strace: {difference:?}")).collect()
}

/// The user that runs strace.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tracer {
    Nobody,
    Root,
    User,
}

/// Runs a case and returns its record. Runs in a mount namespace of its own, to set the subordinate ids of
/// the ordinary user without effect on the machine.
fn record(case: &Case, place: &Place, debug: bool, tracer: Tracer) -> Run {
    let out = place.folder.join("record");
    let strace = place.folder.join("strace");
    let _ = fs::remove_file(&out);
    for entry in fs::read_dir(&place.folder).unwrap().flatten() {
        if entry.file_name().to_string_lossy().starts_with("strace") {
            fs::remove_file(entry.path()).unwrap();
        }
    }
    let mut words: Vec<String> = Vec::new();
    if case.user && tracer != Tracer::Root {
        let id = USER_ID.to_string();
        words.extend(["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups"].map(Into::into));
    }
    if tracer != Tracer::Nobody {
        words.push("strace".into());
        // Test both forms of output: one file for all processes, and one file for each.
        let form = |flag: &&'static str| if !debug && **flag == *"-f" { "-ff" } else { flag };
        words.extend(witness::FLAGS.iter().map(|flag| form(flag).into()));
        words.extend(["-o".into(), strace.to_str().unwrap().into()]);
        if case.user && tracer == Tracer::Root {
            words.extend(["-u".into(), USER.into()]);
        }
    }
    words.push(place.program.to_str().unwrap().into());
    let script = format!(
        "for f in subuid subgid; do [ -e /etc/$f ] && mount --bind {}/subid /etc/$f; done; exec \"$@\"",
        place.folder.display()
    );
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", &script, "sh"]).args(words).env(CASE, case.name).env(OUT, &out);
    if debug {
        command.env(LEVEL, "debug");
    }
    let status = command.status().unwrap();
    assert!(status.success(), "{}: {status}", case.name);
    Run::from_json_lines(&fs::read_to_string(&out).unwrap()).unwrap()
}

fn examine(case: &Case, run: &Run) -> Vec<String> {
    let mut complaints = findings(case, run);
    let names: Vec<&str> = run.sections.iter().map(|section| &section.name[..]).collect();
    if names != case.sections {
        complaints.push(format!("the sections are {names:?}"));
    }
    let end = |role| run.section(role).map_or(End::Unknown, |section| section.end);
    // A killed process leaves its lines in the record, too.
    let killed = run.sections.iter().filter(|section| section.end == End::Signaled(Signal::KILL));
    complaints.extend(
        killed
            .filter(|section| section.lines.len() < 5)
            .map(|section| format!("{} left too little", section.name)),
    );
    let expected = if case.succeeds { End::Exited(0) } else { End::Exited(1) };
    if end(Role::Stage(0)) != expected {
        complaints.push(format!("stage 0 {}", end(Role::Stage(0))));
    }
    if case.succeeds && [1, 2].map(|stage| end(Role::Stage(stage))) != [End::Exited(0); 2] {
        complaints.push("a stage did not end well".into());
    }
    complaints
}

fn findings(case: &Case, run: &Run) -> Vec<String> {
    let facts = Facts::of(run, Policy::runc(case.dialect));
    let mut complaints = Vec::new();
    if facts.asked.is_none() {
        complaints.push("the message was not found in what stage 0 read".into());
    }
    for finding in check(run, &facts) {
        let expected = finding.severity == Severity::Warning && case.warnings.contains(&finding.rule);
        if !expected {
            complaints.push(format!("{}: {finding}", run.origin));
        }
    }
    complaints
}

// -- the inner run: a launcher ------------------------------------------------------------------------------

fn message(case: &Case) -> Vec<u8> {
    let text = |text: &str| CString::new(text).unwrap();
    let (uid, gid, offsets) = (text(case.uid_map), text(case.gid_map), text(case.offsets));
    let tools = case.tools.map(|(uid, gid)| (text(uid), text(gid)));
    let mut asked = Bootstrap::new(CloneFlags(case.flags)).with_rootless_euid(case.rootless);
    if !case.join.is_empty() {
        asked = asked.with_namespaces(NsPaths::parse(case.join.as_bytes(), NsSet::ALL).unwrap());
    }
    if !case.uid_map.is_empty() {
        asked = asked.with_uid_map(IdMap::parse(&uid).unwrap()).with_gid_map(IdMap::parse(&gid).unwrap());
    }
    if let Some((uid, gid)) = &tools {
        asked = asked.with_uidmap_path(uid).with_gidmap_path(gid);
    }
    if case.setgroup {
        asked = asked.with_setgroup(true);
    }
    if !case.offsets.is_empty() {
        asked = asked.with_timens_offsets(TimeOffsets::parse(&offsets).unwrap());
    }
    if !case.sources.is_empty() {
        asked = asked.with_mount_sources(MountSources::parse(case.sources).unwrap());
    }
    let mut bytes = vec![0; MESSAGE_MAX];
    let len = encode(&asked, case.dialect, &mut bytes).unwrap();
    bytes.truncate(len);
    bytes
}

fn joins_mounts(case: &Case) -> bool {
    case.join.contains("mnt:")
}

type Recorded = Recorder<LinuxSys, SharedSink>;

fn launcher(case: &Case, level: Level, out: &Path) {
    let message = message(case);
    let mut memory = vec![0; MESSAGE_MAX];
    let (sink, reader) = SharedSink::new().unwrap();
    mark_begin();
    // SAFETY: this process has a single thread.
    let mut sys = Recorder::new(unsafe { LinuxSys::new() }, sink);
    launch(&mut sys, case, &message, level, &mut memory);
    mark_end();
    let run = sections::of_record(&reader.read().unwrap(), Role::Launcher);
    fs::write(out, run.to_json_lines().unwrap()).unwrap();
}

fn launch(sys: &mut Recorded, case: &Case, message: &[u8], level: Level, memory: &mut [u8]) {
    if joins_mounts(case) {
        assert_eq!(nsexec::cloned::may_join_mounts(sys, false), Ok(true));
    }
    let (init, stage_init) = sys.socketpair().unwrap();
    let (log, stage_log) = sys.pipe2().unwrap();
    let stage_0 = match sys.fork(ExitSignal::None, None).unwrap() {
        Fork::Child => {
            sys.close(init).unwrap();
            sys.close(log).unwrap();
            // A copy of the init pipe holds each of these numbers.
            for number in case.numbers.iter().filter(|number| **number >= 0) {
                sys.dup3(stage_init, Fd(*number)).unwrap();
            }
            let mount_fds = format!("{:?}", case.numbers);
            let pipes = Environment::new(Some(stage_init), Some(stage_log), level);
            let environment = Environment { mount_fds: Some(mount_fds.as_bytes()), ..pipes };
            stages(sys, environment, case.dialect, memory)
        }
        Fork::Parent { child } => child,
    };
    sys.close(stage_init).unwrap();
    sys.close(stage_log).unwrap();
    send_all(sys, init, message).unwrap();
    let mut line = [0; 64];
    let got = sys.read(init, &mut line).unwrap_or(0);
    let pids: Vec<i32> = String::from_utf8_lossy(&line[..got])
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|number| number.parse().ok())
        .collect();
    if case.dialect.legacy.cgroup_namespace == CgroupPlacement::Stage2AfterByte {
        send_all(sys, init, &[CGROUP_BYTE]).unwrap();
    }
    let mut records = [0; 4096];
    while sys.read(log, &mut records).unwrap() > 0 {}
    // `{"stage1_pid":A,"stage2_pid":B}` splits into four numbers, because of the digits in its keys.
    // `{"pid": B, "pid_first": A}` splits into two.
    if let [_, stage_1, _, stage_2] | [stage_2, stage_1] = pids[..] {
        sys.wait4(Pid(stage_1), WaitFor::Stages).unwrap();
        sys.wait4(stage_0, WaitFor::Stages).unwrap();
        sys.wait4(Pid(stage_2), WaitFor::Ordinary).unwrap();
    } else {
        sys.wait4(stage_0, WaitFor::Stages).unwrap();
        while sys.wait4(Pid::ANY, WaitFor::Stages).is_ok() {}
    }
    sys.close(log).unwrap();
    sys.close(init).unwrap();
}

fn stages(
    sys: &mut Recorded,
    environment: Environment<'_>,
    dialect: &'static Dialect,
    memory: &mut [u8],
) -> ! {
    let policy = Policy::runc(dialect);
    let status = match bootstrap(sys, environment, &policy, &mut Scratch { message: memory }) {
        Outcome::HandOver => {
            let mut slots = [const { None }; 2];
            let argv = ExecArgs::build(b"true\0", &mut slots).unwrap();
            sys.execve(c"/bin/true", &argv, &ExecArgs::EMPTY);
            127
        }
        Outcome::Exit(status) => status,
        Outcome::NotInit => 126,
    };
    // SAFETY: exits this process at once. The rest of the launcher's code must not run here.
    unsafe { libc::_exit(status) }
}
