//! A plan's verdict against the real launch, on odd machines.
//!
//! Each test makes a machine in a process of its own: as root, as an ordinary user, or as root of a user
//! namespace. That process reads the machine's facts, plans commands, launches them, and compares: the same
//! success, or the same failed step and errno. A suite that is not root makes its machines in a user
//! namespace.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, chroot, getegid, geteuid};
use nsexec::launch::{Command, LaunchError, new_sysfs};
use nsexec::namespace::NsKind;
use nsexec::sys::types::BpfInstruction;
use nsexec_audit::Run;
use nsexec_audit::machine::{Machine, PlanCommand};
use nsexec_audit::plan::{PlanError, Verdict as Planned};
use nsexec_audit::recording::RecordCommand;
use nsexec_audit::rules::Severity;
use nsexec_audit::sim::ProcOwner;
use support::{Ordinary, Suite, Test, Threads, Verdict, ends_within};

/// The ordinary user of the machines. No account has this id.
const USER: u32 = 1021;

/// The caller on a machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Caller {
    /// Root of this machine.
    Root,
    /// An ordinary user without capabilities.
    User,
    /// An ordinary user that is root of a user namespace.
    Inner,
}

const CALLERS: [(&str, Caller); 3] =
    [("root", Caller::Root), ("user", Caller::User), ("inner_root", Caller::Inner)];

/// A machine: its name, the function that makes it, and a check that its facts were read.
struct Odd {
    name: &'static str,
    make: fn(&Path),
    is_read: fn(&Machine) -> bool,
}

/// The machine whose second program gets no PATH.
const NO_PATH: &str = "no_path";

/// The facts that cannot be read on a machine, by their first words. A plan that depends on one says so.
const UNKNOWN: [(&str, &str); 3] = [
    ("absent_proc", "the limit user.max_"),
    ("masked_proc", "whether the mounts over parts of /proc come from another user namespace"),
    ("covered_sys", "whether the mounts over parts of /sys come from another user namespace"),
];

const MACHINES: &[Odd] = &[
    Odd { name: "usual", make: |_| {}, is_read: |_| true },
    Odd { name: "read_only_proc", make: read_only_proc, is_read: |machine| machine.proc.read_only },
    Odd {
        name: "absent_proc",
        make: absent_proc,
        is_read: |machine| machine.proc.owner == ProcOwner::Missing,
    },
    Odd {
        name: "proc_of_a_namespace_above",
        make: proc_above,
        is_read: |machine| machine.proc.owner == ProcOwner::Ancestor,
    },
    Odd {
        name: "proc_of_another_namespace",
        make: foreign_proc,
        is_read: |machine| machine.proc.owner == ProcOwner::Foreign,
    },
    Odd { name: "masked_proc", make: masked_proc, is_read: |machine| machine.proc.masked },
    // A launch with a new /sys reads its mounts itself.
    Odd {
        name: "covered_sys",
        make: covered_sys,
        is_read: |_| new_sysfs().is_some_and(|new| new.covered && !new.read_only),
    },
    Odd {
        name: "read_only_sys",
        make: read_only_sys,
        is_read: |_| new_sysfs().is_some_and(|new| new.read_only && !new.covered),
    },
    Odd { name: "absent_sys", make: absent_sys, is_read: |_| new_sysfs().is_none() },
    Odd {
        name: "unmapped_caller",
        make: unmapped,
        is_read: |machine| machine.own_user.as_ref().is_some_and(|own| own.users.is_empty()),
    },
    Odd { name: "chroot", make: chroot_to_a_directory, is_read: |machine| machine.chrooted },
    // Only the attempt to create a user namespace reveals it.
    Odd { name: "chroot_at_a_mount", make: chroot_to_a_mount, is_read: |machine| !machine.chrooted },
    Odd {
        name: "no_user_namespaces",
        make: |_| limit("user"),
        is_read: |machine| machine.forbidden().contains(NsKind::User),
    },
    Odd {
        name: "no_net_namespaces",
        make: |_| limit("net"),
        is_read: |machine| machine.forbidden().contains(NsKind::Net),
    },
    Odd {
        name: "no_new_privs",
        make: |_| nix::sys::prctl::set_no_new_privs().unwrap(),
        is_read: |machine| machine.no_new_privs,
    },
    Odd { name: NO_PATH, make: |_| {}, is_read: |_| std::env::var_os("PATH").is_none() },
];

fn private_mount(source: Option<&Path>, point: &Path, kind: Option<&str>, flags: MsFlags) {
    mount(source, point, kind, flags, None::<&str>)
        .unwrap_or_else(|error| panic!("{}: {error}", point.display()));
}

fn read_only_proc(_: &Path) {
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    private_mount(None, Path::new("/proc"), None, flags);
}

fn absent_proc(_: &Path) {
    private_mount(None, Path::new("/proc"), Some("tmpfs"), MsFlags::empty());
}

fn proc_above(_: &Path) {
    unshare(CloneFlags::CLONE_NEWPID).unwrap();
    // Process 1 of the namespace has a child, which goes on: process 1 has other duties.
    continue_in_child();
    continue_in_child();
}

/// Forks. The child returns; this process waits for it and exits with its status.
#[allow(clippy::disallowed_methods, reason = "this process has one thread")]
fn continue_in_child() {
    // SAFETY: this process has one thread.
    if let ForkResult::Parent { child } = unsafe { nix::unistd::fork() }.unwrap() {
        let status = waitpid(child, None).unwrap();
        let code = match status {
            nix::sys::wait::WaitStatus::Exited(_, code) => code,
            _ => 1,
        };
        std::process::exit(code);
    }
}

/// Mounts the /proc of a pid namespace that has ended.
#[allow(clippy::disallowed_methods, reason = "this process has one thread")]
fn foreign_proc(_: &Path) {
    // SAFETY: this process has one thread.
    match unsafe { nix::unistd::fork() }.unwrap() {
        ForkResult::Parent { child } => drop(waitpid(child, None).unwrap()),
        ForkResult::Child => {
            unshare(CloneFlags::CLONE_NEWPID).unwrap();
            continue_in_child();
            private_mount(None, Path::new("/proc"), Some("proc"), MsFlags::empty());
            std::process::exit(0);
        }
    }
}

fn masked_proc(_: &Path) {
    private_mount(Some(Path::new("/dev/null")), Path::new("/proc/cmdline"), None, MsFlags::MS_BIND);
}

fn covered_sys(_: &Path) {
    private_mount(None, Path::new("/sys/firmware"), Some("tmpfs"), MsFlags::empty());
}

fn read_only_sys(_: &Path) {
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    private_mount(None, Path::new("/sys"), None, flags);
}

fn absent_sys(_: &Path) {
    private_mount(None, Path::new("/sys"), Some("tmpfs"), MsFlags::empty());
}

fn unmapped(_: &Path) {
    unshare(CloneFlags::CLONE_NEWUSER).unwrap();
}

/// Changes the root to a directory of a tmpfs that has the machine's directories.
fn chroot_to_a_directory(folder: &Path) {
    private_mount(None, folder, Some("tmpfs"), MsFlags::empty());
    let root = folder.join("root");
    fs::create_dir(&root).unwrap();
    for entry in fs::read_dir("/").unwrap().flatten() {
        let point = root.join(entry.file_name());
        match entry.file_type().unwrap() {
            kind if kind.is_symlink() => symlink(fs::read_link(entry.path()).unwrap(), point).unwrap(),
            kind if kind.is_dir() => {
                fs::create_dir(&point).unwrap();
                private_mount(Some(&entry.path()), &point, None, MsFlags::MS_BIND | MsFlags::MS_REC);
            }
            _ => {}
        }
    }
    chroot(&root).unwrap();
    std::env::set_current_dir("/").unwrap();
}

fn chroot_to_a_mount(folder: &Path) {
    private_mount(Some(Path::new("/")), folder, None, MsFlags::MS_BIND | MsFlags::MS_REC);
    chroot(folder).unwrap();
    std::env::set_current_dir("/").unwrap();
}

/// Sets a limit of the own user namespace, which is a new one, to 0.
fn limit(kind: &str) {
    fs::write(format!("/proc/sys/user/max_{kind}_namespaces"), "0").unwrap();
}

/// Whether the machine can be made in a user namespace of its own only: root's limits are the machine's.
fn needs_user_namespace(name: &str) -> bool {
    ["no_user_namespaces", "no_net_namespaces"].contains(&name)
}

/// The process of a test: makes the machine as root or in a user namespace, and executes this program again,
/// which drops the capabilities of an ordinary user.
fn make(name: &str, caller: Caller, folder: &Path) {
    let machine = MACHINES.iter().find(|machine| machine.name == name).unwrap();
    let this = std::env::current_exe().unwrap();
    let is_root = geteuid().is_root();
    let inside = caller == Caller::Inner || !is_root || needs_user_namespace(name);
    if inside {
        if is_root && caller != Caller::Root {
            become_user();
        }
        let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
        unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS).unwrap();
        let shown = |own: u32| if caller == Caller::User { own } else { 0 };
        // A map of the own id alone.
        fs::write("/proc/self/setgroups", "deny").unwrap();
        fs::write("/proc/self/uid_map", format!("{} {uid} 1", shown(uid))).unwrap();
        fs::write("/proc/self/gid_map", format!("{} {gid} 1", shown(gid))).unwrap();
    } else {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
    }
    private_mount(None, Path::new("/"), None, MsFlags::MS_REC | MsFlags::MS_PRIVATE);
    // An unmapped caller cannot become another user.
    if name == "unmapped_caller" && caller == Caller::User && !inside {
        become_user();
    }
    (machine.make)(folder);
    if caller == Caller::User && !inside && name != "unmapped_caller" {
        become_user();
    }
    let mut program = std::process::Command::new(this);
    if name == NO_PATH {
        program.env_remove("PATH");
    }
    let error = program.args(["--compare", name]).exec();
    panic!("exec: {error}");
}

fn become_user() {
    support::become_ids(USER, USER).unwrap();
    // Otherwise the files of this process in /proc belong to root.
    nix::sys::prctl::set_dumpable(true).unwrap();
}

/// The commands that are planned and launched on each machine.
fn commands() -> Vec<(&'static str, Command)> {
    use NsKind::{Ipc, Mnt, Net, Pid, User, Uts};
    let with = |kinds: &[NsKind]| {
        let mut command = Command::new("true");
        command.unshare(kinds.iter().copied());
        command
    };
    let mut fresh_proc = with(&[User, Mnt, Pid]);
    fresh_proc.map_root().proc("/proc");
    let mut root_proc = with(&[Mnt, Pid]);
    root_proc.proc("/proc");
    let mut fresh_sys = with(&[User, Mnt, Net]);
    fresh_sys.map_root().sys_of_network();
    let mut root_sys = with(&[Mnt, Net]);
    root_sys.sys_of_network();
    let mut several = with(&[User, Net, Ipc, Uts, Pid]);
    several.map_root();
    let mut same = with(&[User, Uts]);
    same.map_current_user();
    let mut user = with(&[User]);
    user.map_root();
    let mut score = with(&[]);
    score.oom_score_adj(1000);
    let mut missing = with(&[]);
    missing.current_dir("/no/such/directory");
    vec![
        ("nothing", with(&[])),
        ("user", user),
        ("user, as the same user", same),
        ("user, net, ipc, uts, pid", several),
        ("user, mnt, pid with /proc", fresh_proc),
        ("mnt, pid with /proc", root_proc),
        ("user, mnt, net with /sys", fresh_sys),
        ("mnt, net with /sys", root_sys),
        ("uts", with(&[Uts])),
        ("net", with(&[Net])),
        ("oom score", score),
        ("missing directory", missing),
        ("missing command", Command::new("/no/such/command")),
    ]
}

/// Compares the plans of commands with their launches. `unknown`: the first words of the facts that a plan
/// may not know. Returns the differences.
fn compare(machine: &Machine, commands: Vec<(&'static str, Command)>, unknown: Option<&str>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, mut command) in commands {
        let planned = command.plan(machine);
        let run = command.spawn().map(|mut child| {
            child.wait().unwrap();
        });
        let agrees = match (&planned, &run) {
            (Err(PlanError::Launch(planned)), Err(real)) => planned == real,
            (Ok(plan), run) => match (plan.verdict(), run) {
                (Planned::Runs, Ok(())) => true,
                (Planned::CannotTell(facts), _) => {
                    unknown.is_some_and(|words| facts.iter().all(|fact| fact.starts_with(words)))
                }
                (Planned::Fails(fault), Err(real)) => {
                    real.step() == fault.error.step() && same_kind(real, &fault.error)
                }
                _ => false,
            },
            _ => false,
        };
        let planned = match &planned {
            Ok(plan) => plan.verdict().to_string(),
            Err(error) => format!("no plan: {error}"),
        };
        println!("{name}: {planned}\n    the launch: {run:?}");
        if !agrees {
            wrong.push(format!(
                "{name}: {planned}\n    the launch: {}",
                run.map_or_else(|error| error.to_string(), |()| "runs".into())
            ));
        }
    }
    wrong
}

fn same_kind(one: &LaunchError, other: &LaunchError) -> bool {
    std::mem::discriminant(one) == std::mem::discriminant(other)
}

/// The second program of a test, on the machine.
fn on_machine(name: &str) -> ExitCode {
    let odd = MACHINES.iter().find(|machine| machine.name == name).unwrap();
    let machine = Machine::here();
    let mut wrong =
        compare(&machine, commands(), UNKNOWN.iter().find(|(on, _)| *on == name).map(|(_, words)| *words));
    if !(odd.is_read)(&machine) {
        wrong.push(format!("the facts were not read: {machine:#?}"));
    }
    report(&wrong)
}

fn report(wrong: &[String]) -> ExitCode {
    for text in wrong {
        eprintln!("differs: {text}");
    }
    if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A folder for the files of a test, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("nsexec-verdicts-{}-{name}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, PermissionsExt::from_mode(0o755)).unwrap();
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Runs this program again, and returns its differences.
fn again(command: &mut std::process::Command) -> Verdict {
    let mut child =
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let status = match ends_within(&mut child, support::LIMIT) {
        Ok(status) => status,
        Err(why) => return Verdict::Failed(why),
    };
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    if status.success() {
        Verdict::Passed
    } else {
        Verdict::Failed(format!("{status}\n{text}{}", String::from_utf8_lossy(&output.stdout)))
    }
}

fn this_program() -> std::process::Command {
    let mut program = std::process::Command::new(std::env::current_exe().unwrap());
    program.env("RUST_BACKTRACE", "0");
    program
}

fn odd(name: &'static str, caller: Caller) -> Verdict {
    if caller == Caller::Root && !geteuid().is_root() {
        return Verdict::Skipped("needs root".into());
    }
    let folder = Folder::new(&format!("{name}-{caller:?}"));
    let who = CALLERS.iter().find(|(_, other)| *other == caller).unwrap().0;
    again(this_program().args(["--make", name, who]).arg(&folder.0))
}

/// Programs and scripts that exist and cannot be executed.
fn interpreters() -> Verdict {
    let folder = Folder::new("interpreters");
    let file = |name: &str, mode: u32, content: &[u8]| {
        let path = folder.0.join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        path
    };
    let mut elf = fs::read("/bin/true").unwrap();
    let at = elf.windows(4).position(|window| window == b"/lib").unwrap();
    elf[at + 1] = b'x';
    let files = [
        ("script", 0o755, &b"#!/bin/sh\n"[..]),
        ("script without its interpreter", 0o755, b"#!/no/such/interpreter\n"),
        ("script of a script", 0o755, format!("#!{}/script without\n", folder.0.display()).as_bytes()),
        ("script without", 0o755, b"#!/bin/sh\n"),
        ("script with a directory as interpreter", 0o755, b"#!/\n"),
        ("no program", 0o755, b"text\n"),
        ("not executable", 0o644, b"#!/bin/sh\n"),
        ("program without its interpreter", 0o755, &elf),
    ]
    .map(|(name, mode, content)| (name, file(name, mode, content)));
    let mut commands: Vec<_> = files.iter().map(|(name, path)| (*name, Command::new(path))).collect();
    let (mut first, mut second) = (folder.0.clone(), folder.0.clone());
    first.push("first");
    second.push("second");
    // The search goes on after a file without its interpreter, and not after one of an unknown format.
    for (folder, name, content) in [
        (&first, "x", "#!/no/such/interpreter\n"),
        (&second, "x", "#!/bin/sh\n"),
        (&first, "y", "text\n"),
        (&second, "y", "#!/bin/sh\n"),
    ] {
        let _ = fs::create_dir(folder);
        let path = folder.join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    }
    for name in ["x", "y", "z"] {
        let mut command = Command::new(name);
        command.env("PATH", format!("{}:{}", first.display(), second.display()));
        commands.push((name, command));
    }
    match compare(&Machine::here(), commands, None).join("\n") {
        none if none.is_empty() => Verdict::Passed,
        some => Verdict::Failed(some),
    }
}

/// Code of the caller before the exec may fail, and no plan knows.
fn code_of_the_caller() -> Verdict {
    let mut command = Command::new("true");
    // SAFETY: the code makes no call.
    unsafe { command.pre_exec(|| Err(nix::errno::Errno::EIO.into())) };
    let verdict = command.plan(&Machine::here()).unwrap().verdict();
    assert!(command.spawn().is_err());
    match verdict {
        Planned::CannotTell(facts) if facts.len() == 1 && facts[0].contains("pre_exec") => Verdict::Passed,
        other => Verdict::Failed(other.to_string()),
    }
}

/// A plan sees whether standard input is a terminal. It does not know the content of a rule set and a filter.
fn objects_of_the_command() -> Verdict {
    let mut command = Command::new("true");
    command.stdin(nsexec::launch::Stdio::null()).controlling_terminal();
    match (command.plan(&Machine::here()).unwrap().verdict(), command.spawn().map(|_| ())) {
        (Planned::Fails(fault), Err(error)) if Some((fault.code.unwrap(), fault.errno)) == error.step() => {}
        (planned, launched) => return Verdict::Failed(format!("{planned} / {launched:?}")),
    }
    type Setting = fn(&mut Command);
    let settings: [(&str, Setting); 3] = [
        ("whether standard input is a terminal", |command| {
            let pty = nix::pty::openpty(None, None).unwrap();
            command.stdin(pty.slave).controlling_terminal();
            // Without its other end the terminal would have ended.
            std::mem::forget(pty.master);
        }),
        ("whether the Landlock rule set", |command| {
            command.landlock(fs::File::open("/dev/null").unwrap());
        }),
        ("whether the seccomp filter", |command| {
            command.seccomp_filter([BpfInstruction { code: 0x06, jt: 0, jf: 0, k: 0x7fff_0000 }]);
        }),
    ];
    for (fact, set) in settings {
        let mut command = Command::new("true");
        set(&mut command);
        match command.plan(&Machine::here()).unwrap().verdict() {
            Planned::CannotTell(facts) if facts.len() == 1 && facts[0].starts_with(fact) => {}
            other => return Verdict::Failed(format!("{fact}: {other}")),
        }
    }
    Verdict::Passed
}

/// A machine's facts, stored and loaded again, give the same verdict as far as they are known.
fn stored() -> Verdict {
    let mut command = Command::new("/bin/true");
    command.unshare([NsKind::User]).map_root();
    let here = Machine::here();
    let loaded = Machine::from_json(&here.to_json().unwrap()).unwrap();
    let planned = |machine: &Machine| command.plan(machine).unwrap().verdict();
    match (planned(&here), planned(&loaded)) {
        (Planned::Runs, Planned::CannotTell(facts)) if facts == ["whether /bin/true can be executed"] => {
            Verdict::Passed
        }
        (one, other) => Verdict::Failed(format!("{one} / {other}")),
    }
}

/// Joins of namespaces that exist and of paths that are none.
fn joins() -> Verdict {
    use NsKind::{Mnt, Net, Pid, User, Uts};
    let start = |kinds: &[NsKind]| {
        let mut sleep = Command::new("sleep");
        sleep.arg("600").unshare(kinds.iter().copied()).kill_on_drop();
        sleep
    };
    let rootless = start(&[User, Net, Uts, Pid, Mnt]).map_root().spawn().unwrap();
    let joining = |pid: u32, kinds: &[NsKind]| {
        let mut command = Command::new("true");
        command.join_pid(pid, kinds.iter().copied());
        command
    };
    let of_path = |path: &str| {
        let mut command = Command::new("true");
        command.join(Net, path);
        command
    };
    let mut commands = vec![
        ("user, net, uts", joining(rootless.id(), &[User, Net, Uts])),
        ("user, pid", joining(rootless.id(), &[User, Pid])),
        ("net without its user namespace", joining(rootless.id(), &[Net])),
        ("mnt without a copy of the program", joining(rootless.id(), &[User, Mnt])),
        ("missing", of_path("/no/such/namespace")),
        ("a file", of_path("/etc/passwd")),
        ("below a file", of_path("/etc/passwd/net")),
        ("another kind", of_path("/proc/self/ns/uts")),
        ("the own one", of_path("/proc/self/ns/net")),
    ];
    let mut both = joining(rootless.id(), &[User]);
    both.unshare([Uts]);
    commands.push(("user, and a new uts", both));
    let sleeps = geteuid().is_root().then(|| start(&[Net, Uts]).spawn().unwrap());
    commands.extend(sleeps.as_ref().map(|child| ("net and uts of root", joining(child.id(), &[Net, Uts]))));
    match compare(&Machine::here(), commands, None).join("\n") {
        none if none.is_empty() => Verdict::Passed,
        some => Verdict::Failed(some),
    }
}

/// The second program of the test `recordings`: records launches, and compares them with their plans.
fn record() -> ExitCode {
    let machine = Machine::here();
    let with = |kinds: &[NsKind]| {
        let mut command = Command::new("true");
        command.unshare(kinds.iter().copied());
        command
    };
    let mut root = with(&[NsKind::User, NsKind::Mnt, NsKind::Pid]);
    root.map_root().proc("/proc").current_dir("/usr");
    let mut init = with(&[NsKind::User, NsKind::Pid]);
    init.map_root().init().no_new_privs();
    let mut closed = with(&[NsKind::Uts]);
    if geteuid().is_root() {
        closed.new_session_keyring().umask(0o27).new_session();
    } else {
        closed = with(&[]);
    }
    let mut missing = with(&[NsKind::User]);
    missing.map_root().current_dir("/no/such/directory");
    let mut refused = with(&[]);
    refused.join(NsKind::Net, "/no/such/namespace");
    let mut wrong = Vec::new();
    for (name, mut command, runs) in [
        ("nothing", with(&[]), true),
        ("root", root, true),
        ("init", init, true),
        ("session", closed, true),
        ("missing", missing, false),
        ("join", refused, false),
    ] {
        let (child, recording) = command.record().unwrap();
        let plan = command.plan(&machine).unwrap();
        let error = child.map(|mut child| child.wait().unwrap()).err();
        let difference = recording.compare(&plan);
        let replayed = recording.replay().unwrap();
        let same = replayed.agrees()
            && replayed.error.as_ref().map(LaunchError::step) == error.as_ref().map(LaunchError::step);
        let loaded = Run::from_json_lines(&recording.to_json().unwrap()).unwrap();
        let shown = recording.to_mermaid().contains("sequenceDiagram\n")
            && recording.to_svg().contains("<svg")
            && loaded.sections.len() == recording.run().sections.len();
        let right = (
            difference.is_empty(),
            recording.check_rules().iter().all(|finding| finding.severity == Severity::Warning),
            recording.lost() == 0,
            same,
            shown,
            error.is_none() == runs,
        );
        if right != (true, true, true, true, true, true) {
            wrong.push(format!("{name}: {right:?}: {error:?} {:?}\n{difference}", recording.check_rules()));
        }
        // Another command's plan is not met.
        if recording
            .compare(&with(&[NsKind::User, NsKind::Uts]).map_root().copy_memory().plan(&machine).unwrap())
            .is_empty()
        {
            wrong.push(format!("{name}: another plan agrees"));
        }
    }
    let settings = with(&[NsKind::Net]).join(NsKind::Net, "/proc/self/ns/net").record();
    if settings.is_ok() {
        wrong.push("wrong settings were recorded".into());
    }
    report(&wrong)
}

/// A user with subordinate ids, once in the group of its account and once in another.
fn group_of_the_account(offset: u32, arguments: &[&str]) -> Verdict {
    if !geteuid().is_root() {
        return Verdict::Skipped("needs root".into());
    }
    let user = match Ordinary::provide() {
        Ok(user) => user,
        Err(why) => return Verdict::Skipped(why),
    };
    let mut program = this_program();
    program.uid(user.uid).gid(user.gid + offset).arg("--auto").args(arguments).current_dir("/");
    again(&mut program)
}

/// The second program of the test above. `wanted`: whether the mapping tools work.
fn with_subordinate_ids(arguments: &[String]) -> ExitCode {
    if arguments.iter().any(|word| word == "no_new_privs") {
        nix::sys::prctl::set_no_new_privs().unwrap();
    }
    let mut auto = Command::new("true");
    auto.unshare([NsKind::User]).map_auto();
    let mut own = Command::new("true");
    own.unshare([NsKind::User]).map_root();
    let runs = auto.clone().spawn().map(|mut child| child.wait()).is_ok();
    let mut wrong = compare(&Machine::here(), vec![("auto", auto), ("own", own)], None);
    let wanted = arguments.is_empty();
    if runs != wanted {
        wrong.push(format!("the mapping tools succeed: {runs}"));
    }
    report(&wrong)
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--make", name, who, folder] => {
            let caller = CALLERS.iter().find(|(word, _)| word == who).unwrap().1;
            make(name, caller, Path::new(folder));
        }
        ["--record"] => return record(),
        ["--compare", name] => return on_machine(name),
        ["--auto", ..] => return with_subordinate_ids(&arguments[1..]),
        _ => {}
    }
    let mut tests: Vec<Test> = MACHINES
        .iter()
        .flat_map(|machine| CALLERS.map(|(who, caller)| (machine.name, who, caller)))
        .map(|(name, who, caller)| Test::new(format!("{name}::{who}"), move || odd(name, caller)))
        .collect();
    tests.push(Test::new("interpreters", interpreters));
    tests.push(Test::new("joins", joins));
    tests.push(Test::new("recordings", || again(this_program().arg("--record"))));
    tests.push(Test::new("code_of_the_caller", code_of_the_caller));
    tests.push(Test::new("objects_of_the_command", objects_of_the_command));
    tests.push(Test::new("stored_facts", stored));
    tests.push(Test::new("group::of_the_account", || group_of_the_account(0, &[])));
    tests.push(Test::new("group::other_than_the_accounts", || group_of_the_account(7, &["other_group"])));
    tests.push(Test::new("group::of_the_account_with_no_new_privs", || {
        group_of_the_account(0, &["no_new_privs"])
    }));
    let suite = Suite::new("verdicts", tests);
    support::begin();
    suite.main(Threads::Several(2))
}
