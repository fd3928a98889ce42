//! Hostile containers: at each step of a launch that joins a container, a process of the container tries
//! every act of one process against another. SECURITY.md lists the acts that succeed.
//!
//! The launch is stopped after each call of each of its processes, as in the other tests of this suite. Then
//! the attacker (`tests/kernel/reach.py` and `hostile.py`) walks over all processes that it finds.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::stepper::{Launch, Moment};
use crate::{USER, Workspace};

/// A container, the launches that join it, and the acts that may succeed.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    flags: &'static [&'static str],
    /// The capabilities of the attacker, if they are not all.
    caps: &'static [&'static str],
    uid: Option<u32>,
    /// The namespaces that `run --join` and the drop-in join.
    joined: &'static [&'static str],
    /// The files that may be written.
    writes: &'static [&'static str],
}

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "hostile_root_of_a_user_namespace",
        flags: &["--all", "--mount-proc", "--map-users", "0:100000:65536", "--map-groups", "0:100000:65536"],
        caps: &[],
        uid: None,
        joined: &["user", "mnt", "pid", "uts"],
        writes: &["timerslack_ns"],
    },
    Case {
        name: "hostile_root_with_dockers_capabilities",
        flags: &["-m", "-p", "-n", "-i", "-u", "--mount-proc"],
        caps: &["a80425fb"],
        uid: None,
        joined: &["mnt", "pid", "uts"],
        writes: &["autogroup", "clear_refs", "coredump_filter", "oom_adj", "oom_score_adj", "sched"],
    },
    Case {
        name: "hostile_process_of_the_same_user",
        flags: &["--all", "--mount-proc"],
        caps: &[],
        uid: Some(USER),
        joined: &["user", "mnt", "pid", "uts"],
        writes: &["timerslack_ns"],
    },
];

/// The acts that may succeed: signals, limits and scheduling.
const ACTS: [&str; 9] = [
    "kill",
    "SIGSTOP",
    "pidfd_send_signal",
    "prlimit (read)",
    "prlimit (write)",
    "setpriority",
    "ioprio_set",
    "sched_setaffinity",
    "sched_setscheduler",
];

/// A container whose command is the attacker.
pub(crate) struct Attacker {
    launcher: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Attacker {
    pub(crate) fn new(case: &Case, workspace: &Workspace) -> Self {
        let walk = include_str!("../kernel/reach.py").strip_suffix("main()\n").expect("the last line");
        let script = format!("{walk}{}", include_str!("hostile.py"));
        let mut command = Command::new(&workspace.program);
        command.args(["run", "-f", "--kill-child"]).args(case.flags);
        command.args(["--", "/usr/bin/python3", "-I", "-S", "-c", &script]).args(case.caps);
        command.current_dir("/").stdin(Stdio::piped()).stdout(Stdio::piped());
        if let Some(uid) = case.uid {
            command.uid(uid).gid(uid);
        }
        let mut launcher = command.spawn().expect("a container");
        let input = launcher.stdin.take().expect("a pipe");
        let output = BufReader::new(launcher.stdout.take().expect("a pipe"));
        let mut attacker = Self { launcher, input, output };
        assert_eq!(attacker.line(), "on");
        attacker
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert_ne!(self.output.read_line(&mut line).expect("a pipe"), 0, "the attacker has ended");
        line.trim_end().to_owned()
    }

    /// Returns the acts that the kernel allows now: "NAME: ACT".
    fn attack(&mut self) -> Vec<String> {
        self.input.write_all(b"\n").expect("a pipe");
        let mut acts = Vec::new();
        loop {
            match self.line() {
                line if line == "end" => return acts,
                line => acts.push(line),
            }
        }
    }

    fn pid(&self) -> i32 {
        let pid = self.launcher.id();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("children");
        let is_python = |pid: &i32| {
            std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.starts_with("python"))
        };
        let pids = children.split_whitespace().filter_map(|pid| pid.parse().ok());
        pids.into_iter().find(is_python).expect("the attacker")
    }

    pub(crate) fn end(mut self) {
        let _ = self.launcher.kill();
        let _ = self.launcher.wait();
    }
}

/// A FIFO as the init pipe of a drop-in, with a message.
struct Fifo {
    path: PathBuf,
    file: File,
    message: Vec<u8>,
}

impl Fifo {
    fn new(case: &Case, workspace: &Workspace, joins: &[String]) -> Self {
        let path = workspace.folder.join(format!("{}.fifo", case.name));
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o666)).expect("a FIFO");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o666)).expect("permissions");
        let mut encode = Command::new(&workspace.program);
        let message = encode.arg("encode").args(joins).output().expect("a message").stdout;
        assert!(!message.is_empty());
        let mut open = OpenOptions::new();
        let open = open.read(true).write(true).custom_flags(nix::libc::O_NONBLOCK);
        let file = open.open(&path).expect("a FIFO");
        Self { path, file, message }
    }

    /// Removes the input of the last launch, and writes the message.
    fn fill(&mut self) {
        let _ = self.file.read(&mut [0; 65536]);
        self.file.write_all(&self.message).expect("a FIFO");
    }
}

/// Attacks each step of each launch. Returns the complaints.
pub(crate) fn run(case: &Case, workspace: &Workspace, attacker: &mut Attacker, every: usize) -> Vec<String> {
    let pid = attacker.pid();
    let joins: Vec<String> =
        case.joined.iter().map(|kind| format!("--join={kind}=/proc/{pid}/ns/{kind}")).collect();
    let mut fifo = Fifo::new(case, workspace, &joins);
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let program = workspace.program.clone();
    let nsexec =
        |args: Vec<String>| Launch { program: program.clone(), args, uid: case.uid, ..Launch::default() };
    let drop_in = format!(
        "exec 3<>{}; _LIBCONTAINER_INITPIPE=3 exec {} init -- /bin/true",
        fifo.path.display(),
        program.display()
    );
    let launches = [
        (
            "enter",
            nsexec([words(&["enter", "-a", "-t"]), vec![pid.to_string()], words(&["--", "true"])].concat()),
        ),
        ("run --join", nsexec([words(&["run", "-f"]), joins.clone(), words(&["--", "true"])].concat())),
        (
            "drop-in",
            Launch {
                program: "/bin/sh".into(),
                args: words(&["-c", &drop_in]),
                uid: case.uid,
                ..Launch::default()
            },
        ),
    ];
    let mut complaints = Vec::new();
    for (name, launch) in &launches {
        fifo.fill();
        let calls = launch.count();
        let (mut looks, mut seen) = (0, 0);
        let mut allowed: BTreeSet<String> = BTreeSet::new();
        for (process, count) in calls.iter().enumerate() {
            let moments = (0..*count).step_by(every.max(1)).map(Moment::Call);
            for moment in std::iter::once(Moment::Birth).chain(moments).skip(usize::from(process == 0)) {
                fifo.fill();
                looks += 1;
                launch.visit(process, moment, &mut || {
                    let acts = attacker.attack();
                    seen += acts.iter().filter(|act| act.ends_with(": seen")).count();
                    allowed.extend(acts);
                });
            }
        }
        allowed.retain(|act| !act.ends_with(": seen"));
        let acts: BTreeSet<&str> = allowed.iter().filter_map(|act| act.split(": ").nth(1)).collect();
        println!("{} {name}: {looks} steps, {seen} with a process that the attacker sees", case.name);
        let shown: Vec<&&str> = acts.iter().filter(|act| !act.starts_with("read ")).collect();
        println!("    allowed: {shown:?}");
        complaints
            .extend(acts.iter().filter(|act| !is_permitted(case, act)).map(|act| format!("{name}: {act}")));
        if seen == 0 {
            complaints.push(format!("{name}: the attacker has never seen a process"));
        }
    }
    complaints
}

fn is_permitted(case: &Case, act: &str) -> bool {
    match act.split_once(' ') {
        Some(("read", file)) => !support::is_secret(file),
        Some(("write", file)) => case.writes.contains(&file),
        Some(("list", folder)) => ["attr", "fd", "ns"].contains(&folder),
        _ => ACTS.contains(&act),
    }
}
