//! A drop-in start on the simulated kernel: runc's two manners of launching (spec 2.8), and what its `init` does when
//! the bootstrap has handed over. For the tests of the simulator, the fault sweep and the schedules.

#![allow(dead_code, reason = "each test uses its part")]

use std::ffi::{CStr, CString};

use nsexec::bootstrap::{Bootstrap, ByteOrder, Dialect, Environment, encode};
use nsexec::idmap::IdMap;
use nsexec::launch::script::{ChildSignals, Failure, Job, Launched, LogReader, Trouble, launch};
use nsexec::launch::tail::Tail;
use nsexec::log::Level;
use nsexec::namespace::NsSet;
use nsexec::namespace::paths::NsPaths;
use nsexec::nsexec::{Scratch, bootstrap};
use nsexec::pipe::{read_full, send_all};
use nsexec::policy::Policy;
use nsexec::stage::Outcome;
use nsexec::sys::Sys;
use nsexec::sys::sim::{Allowance, Container, Ended, Extra, Kind, Program, Settings, Sim, SimSys, User};
use nsexec::sys::types::*;
use nsexec::timens::TimeOffsets;

/// In which order the launcher waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Manner {
    /// `runc run`: pid line, stage 1, is stage 2 there, stage 0, configuration.
    Init,
    /// `runc exec`: stage 0, pid line, stage 1, configuration.
    Exec,
}

/// What the launcher says to the init when the bootstrap is over.
pub(crate) const CONFIG: &[u8] = b"{\"args\":[]}\n";
const RUNC: &CStr = c"/usr/bin/runc";

/// Makes a drop-in start of `sim`'s launcher: init pipe and log pipe, stage 0 by fork and exec.
pub(crate) fn drop_in(sim: &mut Sim, manner: Manner, level: Level, message: Vec<u8>) {
    let (init, stage_init) = sim.socketpair(true);
    let (log, stage_log) = sim.pipe(true);
    sim.program(
        RUNC.to_str().unwrap(),
        Program::new(move |sys| runc_init(sys, stage_init, stage_log, level)),
    );
    sim.launcher(move |sys| {
        let child = match sys.fork(ExitSignal::Chld, None) {
            Ok(Fork::Child) => {
                let mut slots = [None; 3];
                let argv = ExecArgs::build(b"runc\0init\0", &mut slots).unwrap();
                sys.execve(RUNC, &argv, &ExecArgs::EMPTY);
                return Ended::Exit(127);
            }
            Ok(Fork::Parent { child }) => child,
            Err(_) => return Ended::Exit(1),
        };
        let _ = sys.close(stage_init);
        let _ = sys.close(stage_log);
        let mut current = child;
        let status = match converse(sys, manner, &message, init, &mut current) {
            Some(()) => 0,
            None => {
                // runc's terminate: SIGKILL and wait.
                let _ = sys.kill(current, Signal::KILL);
                let _ = wait(sys, current);
                1
            }
        };
        let _ = sys.close(init);
        read_log(sys, log);
        Ended::Exit(status)
    });
}

/// What our own launcher starts: it exits with 0.
pub(crate) const COMMAND: &str = "/bin/command";

/// What came through the log pipe.
#[derive(Default)]
struct Records(Vec<u8>);

impl LogReader for Records {
    fn take(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
    }

    fn fatal(&self) -> bool {
        self.0.windows(15).any(|window| window == b"\"level\":\"fatal\"")
    }
}

/// Makes a start of our own launcher: stage 0 by a fork without exec, a command at the end, whose status it takes.
pub(crate) fn our_own(sim: &mut Sim, policy: Policy, level: Level, message: Vec<u8>) {
    sim.program(COMMAND, Program::ends(Ended::Exit(0)));
    sim.launcher(move |sys| start_our_own(sys, &policy, level, &message, None));
}

/// What our own launcher does.
pub(crate) fn start_our_own(
    sys: &mut SimSys,
    policy: &Policy,
    level: Level,
    message: &[u8],
    interrupt: Option<Fd>,
) -> Ended {
    let mut memory = vec![0; 65_536];
    let candidates = [COMMAND.as_bytes(), b"\0"].concat();
    let mut slots = [None; 2];
    let tail = Tail {
        propagation: policy.propagation,
        mount_proc: policy.mount_proc,
        kill_child: policy.kill_child,
        name: b"command",
        candidates: &candidates,
        argv: ExecArgs::build(b"command\0", &mut slots).unwrap(),
        envp: ExecArgs::EMPTY,
    };
    let job = Job { message, policy, level, signals: ChildSignals::default(), interrupt, tail };
    match launch(sys, &job, &mut Scratch { message: &mut memory }, &mut Records::default()) {
        Launched::Started { pid } => {
            // Without its exec it ends as a stage: __WALL, which the trait does not have.
            let status = wait(sys, pid).or_else(|| wait_for(sys, pid, WaitFor::Stages));
            Ended::Exit(if status == Some(WaitStatus::Exited(0)) { 0 } else { 1 })
        }
        Launched::Failed(Failure { trouble: Trouble::Interrupted(signal), .. }) => {
            Ended::Exit(128 + signal.0)
        }
        Launched::Failed(_) => Ended::Exit(1),
        Launched::Exit(status) => Ended::Exit(status),
    }
}

/// What `runc init` is: the bootstrap, then the Go half up to the configuration.
pub(crate) fn runc_init(sys: &mut impl Sys, init: Fd, log: Fd, level: Level) -> Ended {
    let mut memory = vec![0; 65_536];
    let environment = Environment { init: Some(init), log: Some(log), level };
    let policy = Policy::runc(&Dialect::V1_2);
    match bootstrap(sys, environment, &policy, &mut Scratch { message: &mut memory }) {
        Outcome::NotInit => Ended::Exit(99),
        Outcome::Exit(status) => Ended::Exit(status),
        Outcome::HandOver => {
            let mut config = vec![0; CONFIG.len()];
            match read_full(sys, init, &mut config) {
                Ok(got) if got == CONFIG.len() => {}
                // The configuration does not come: `runc init` fails.
                _ => return Ended::Exit(1),
            }
            let _ = sys.close(log);
            Ended::HandOver
        }
    }
}

fn converse(sys: &mut SimSys, manner: Manner, message: &[u8], init: Fd, current: &mut Pid) -> Option<()> {
    let stage_0 = *current;
    send_all(sys, init, message).ok()?;
    match manner {
        Manner::Init => {
            let (stage_1, stage_2) = read_pids(sys, init)?;
            wait(sys, stage_1);
            // It reads stage 2's links in /proc/PID/fd, so stage 2 must be alive.
            sys.kill(stage_2, Signal(0)).ok()?;
            succeeded(wait(sys, stage_0))?;
            *current = stage_2;
        }
        Manner::Exec => {
            succeeded(wait(sys, stage_0))?;
            let (stage_1, stage_2) = read_pids(sys, init)?;
            wait(sys, stage_1);
            *current = stage_2;
        }
    }
    send_all(sys, init, CONFIG).ok()
}

fn succeeded(status: Option<WaitStatus>) -> Option<()> {
    (status == Some(WaitStatus::Exited(0))).then_some(())
}

fn wait(sys: &mut SimSys, pid: Pid) -> Option<WaitStatus> {
    wait_for(sys, pid, WaitFor::Ordinary)
}

fn wait_for(sys: &mut SimSys, pid: Pid, which: WaitFor) -> Option<WaitStatus> {
    loop {
        match sys.wait4(pid, which) {
            Ok(waited) => return Some(waited.status),
            Err(Errno::EINTR) => {}
            Err(_) => return None,
        }
    }
}

/// Go decodes one JSON object; nothing comes behind it until the configuration has gone out.
fn read_pids(sys: &mut SimSys, init: Fd) -> Option<(Pid, Pid)> {
    let mut line = Vec::new();
    let mut buffer = [0; 512];
    while !line.ends_with(b"\n") {
        match sys.read(init, &mut buffer) {
            Ok(0) => return None,
            Ok(count) => line.extend(&buffer[..count]),
            Err(Errno::EINTR) => {}
            Err(_) => return None,
        }
    }
    let value: serde_json::Value = serde_json::from_slice(&line).ok()?;
    let pid = |key: &str| Some(Pid(value.get(key)?.as_i64()?.try_into().ok()?));
    Some((pid("stage1_pid")?, pid("stage2_pid")?))
}

fn read_log(sys: &mut SimSys, log: Fd) {
    let mut buffer = [0; 4096];
    loop {
        match sys.read(log, &mut buffer) {
            Ok(0) => return,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return,
        }
    }
}

/// The bytes of a message.
pub(crate) fn message(bootstrap: &Bootstrap<'_>) -> Vec<u8> {
    let mut bytes = vec![0; 65_536];
    let len = encode(bootstrap, &Dialect::V1_2, ByteOrder::NATIVE, &mut bytes).unwrap();
    bytes.truncate(len);
    bytes
}

/// Texts that live as long as the test: a message borrows them.
fn leak(text: &str) -> &'static CStr {
    Box::leak(CString::new(text).unwrap().into_boxed_c_str())
}

/// A map from its text.
pub(crate) fn map(text: &str) -> IdMap<'static> {
    IdMap::parse(leak(text)).unwrap()
}

/// Namespaces to join, from `kind:path,…`.
pub(crate) fn join(text: &str) -> NsPaths<'static> {
    NsPaths::parse(leak(text).to_bytes(), NsSet::ALL).unwrap()
}

/// Clock offsets from their text.
pub(crate) fn offsets(text: &str) -> TimeOffsets<'static> {
    TimeOffsets::parse(leak(text)).unwrap()
}

/// Several flags.
pub(crate) fn flags(kinds: &[Kind]) -> CloneFlags {
    kinds.iter().fold(CloneFlags::EMPTY, |flags, kind| flags.union(kind.flag()))
}

/// A path to each kind of a process's namespaces.
pub(crate) fn paths_of(pid: Pid, kinds: &[Kind]) -> String {
    let paths: Vec<String> =
        kinds.iter().map(|kind| format!("{}:/proc/{pid}/ns/{}", kind.name(), kind.name())).collect();
    paths.join(",")
}

/// What a realistic rootful container creates.
pub(crate) const FIVE: [Kind; 5] = [Kind::Mnt, Kind::Uts, Kind::Ipc, Kind::Pid, Kind::Net];
/// All but the user namespace.
pub(crate) const SEVEN: [Kind; 7] =
    [Kind::Mnt, Kind::Uts, Kind::Ipc, Kind::Pid, Kind::Cgroup, Kind::Net, Kind::Time];

/// A machine, and a message for it.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) sim: Sim,
    pub(crate) message: Vec<u8>,
}

impl Scenario {
    fn new(name: &'static str, user: &User, bootstrap: &Bootstrap<'_>) -> Self {
        Self { name, sim: Sim::new(Settings::default(), user), message: message(bootstrap) }
    }

    /// The machine with our own launcher.
    pub(crate) fn launched_by_us(&self, policy: Policy, level: Level) -> Sim {
        let mut sim = self.sim.clone();
        our_own(&mut sim, policy, level, self.message.clone());
        sim
    }

    /// The machine with a launcher of this manner.
    pub(crate) fn launched(&self, manner: Manner, level: Level) -> Sim {
        let mut sim = self.sim.clone();
        drop_in(&mut sim, manner, level, self.message.clone());
        sim
    }
}

fn rootless(name: &'static str, uid_map: &str, gid_map: &str, tools: bool) -> Scenario {
    let mut message = Bootstrap::new(flags(&FIVE).union(CloneFlags::NEWUSER))
        .with_uid_map(map(uid_map))
        .with_gid_map(map(gid_map))
        .with_rootless_euid(true);
    if tools {
        message = message
            .with_setgroup(true)
            .with_uidmap_path(c"/usr/bin/newuidmap")
            .with_gidmap_path(c"/usr/bin/newgidmap");
    }
    let mut scenario = Scenario::new(name, &User::ordinary(1000), &message);
    let allowance = Allowance { own: 1000, first: 100_000, count: 65_536 };
    scenario.sim.program("/usr/bin/newuidmap", Program::mapping_tool("uid_map", allowance));
    scenario.sim.program("/usr/bin/newgidmap", Program::mapping_tool("gid_map", allowance));
    scenario
}

/// The realistic sets.
pub(crate) fn scenarios() -> Vec<Scenario> {
    let root = User::root();
    let wide = "0 100000 65536\n";
    let mapped = |kinds: &[Kind]| {
        Bootstrap::new(flags(kinds).union(CloneFlags::NEWUSER))
            .with_uid_map(map(wide))
            .with_gid_map(map(wide))
    };
    vec![
        Scenario::new("nothing", &root, &Bootstrap::new(CloneFlags::EMPTY)),
        Scenario::new("rootful, five namespaces", &root, &Bootstrap::new(flags(&FIVE))),
        Scenario::new("rootful, user namespace", &root, &mapped(&FIVE).with_setgroup(true)),
        rootless("rootless, single entry", "0 1000 1\n", "0 1000 1\n", false),
        rootless("rootless, mapping tools", "0 1000 1\n1 100000 65535\n", "0 1000 1\n1 100000 65535\n", true),
        join_eight(),
        foreign_net(),
        Scenario::new(
            "time offsets",
            &root,
            &mapped(&SEVEN).with_timens_offsets(offsets("monotonic 600 0\nboottime -10 5\n")),
        ),
        with_oom_score(),
    ]
}

fn with_oom_score() -> Scenario {
    let score = nsexec::bootstrap::OomScoreAdj::parse(c"-500").unwrap();
    let message = Bootstrap::new(CloneFlags::NEWNET).with_oom_score_adj(score);
    Scenario::new("oom score", &User::root(), &message)
}

fn join_eight() -> Scenario {
    let mut sim = Sim::new(Settings::default(), &User::root());
    let wide = "0 100000 65536\n";
    let container = Container { maker: User::root(), maps: Some((wide, wide)), kinds: &SEVEN };
    let pid = sim.container(&container);
    let mut kinds = vec![Kind::User];
    kinds.extend(SEVEN);
    let message = message(&Bootstrap::new(CloneFlags::EMPTY).with_namespaces(join(&paths_of(pid, &kinds))));
    Scenario { name: "join eight", sim, message }
}

/// A user namespace of one container, a network namespace that belongs to the machine.
fn foreign_net() -> Scenario {
    let mut sim = Sim::new(Settings::default(), &User::root());
    let wide = "0 100000 65536\n";
    let pid = sim.container(&Container { maker: User::root(), maps: Some((wide, wide)), kinds: &[] });
    let other = sim.container(&Container { maker: User::root(), maps: None, kinds: &[Kind::Net] });
    sim.file("/run/netns/blue", Extra::Namespace(sim.namespace(other, Kind::Net)));
    let paths = format!("net:/run/netns/blue,user:/proc/{pid}/ns/user");
    let message = message(&Bootstrap::new(CloneFlags::EMPTY).with_namespaces(join(&paths)));
    Scenario { name: "join a foreign network namespace", sim, message }
}
