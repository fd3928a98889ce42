//! Our own launcher as a simulated process.

use std::cell::RefCell;
use std::ffi::CStr;
use std::rc::Rc;

use nsexec::bootstrap::decode;
use nsexec::launch::Descriptors;
use nsexec::launch::kept::kept;
use nsexec::launch::script::{ChildSignals, FailureKind, Job, Launched, LogReader, launch};
use nsexec::launch::shape::{Memory, memory};
use nsexec::launch::shared::Stack;
use nsexec::launch::tail::Tail;
use nsexec::launch::{
    Base, CgroupFile, Directory, LaunchError, MountStep, Move, NewSysfs, Place, Record, Root, Surroundings,
};
use nsexec::log::Level;
use nsexec::nsexec::Scratch;
use nsexec::policy::{Policy, Session};
use nsexec::sys::Sys;
use nsexec::sys::types::*;
use nsexec_audit::sim::{Ended, LauncherFile, Program, Sim, SimSys};

use super::Scenario;

/// The program that our launcher starts. It exits with 0.
pub const COMMAND: &str = "/bin/command";

/// The descriptors that the launcher passes on if the policy allows named descriptors only.
pub(crate) const NAMED: &[Fd] = &[Fd(7)];

/// The descriptors that a command with surroundings gets: its standard output, and one under the number of
/// the process's init pipe, which is moved.
const MOVES: &[Move] = &[Move { fd: Fd(20), number: Fd(1) }, Move { fd: Fd(21), number: Fd(4) }];

/// Returns the surroundings of the command, if the policy gives it an id of its own.
fn surroundings_of(policy: &Policy) -> Option<Surroundings> {
    policy.launch.uid.map(|_| {
        // Code of the caller keeps the caller's descriptors open.
        let hooks = usize::from(policy.launch.uid != Some(WITHOUT_CODE));
        let mut around = Surroundings::default().with_idle_hooks(hooks);
        around.directory =
            Some(Directory { path: c"/srv".into(), confined: policy.launch.propagation.is_some() });
        if policy.launch.propagation.is_some() {
            around.root = Some(root());
            let kept = vec![c"/sys/fs/cgroup".into(), c"/sys/kernel/security".into()];
            around.sysfs = Some(NewSysfs { kept, ..NewSysfs::default() });
        }
        around.groups = Some(vec![4, 20]);
        if matches!(policy.launch.uid, Some(RESTRICTED | WITHOUT_CODE)) {
            restrict(&mut around, policy.launch.in_place);
        }
        around
    })
}

/// The user id of a command whose scenario sets every attribute.
pub(super) const RESTRICTED: u32 = 1001;

/// The user id of a command whose scenario sets every attribute, and has no code of the caller.
pub(super) const WITHOUT_CODE: u32 = 1002;

/// The number of its Landlock rule set.
pub(super) const RULE_SET: Fd = Fd(22);

/// The number of the `cgroup.procs` of its cgroup.
pub(super) const CGROUP: Fd = Fd(23);

/// In place the process leads no session, and takes no terminal.
fn restrict(around: &mut Surroundings, in_place: bool) {
    around.loopback = true;
    around.hostname = Some(b"box".to_vec());
    around.limits = vec![Limit { resource: Resource::NOFILE, soft: 64, hard: 64 }];
    around.umask = Some(0o27);
    (around.terminal, around.keyring) = (!in_place, true);
    around.cgroups = vec![CgroupFile { path: c"/sys/fs/cgroup/box".into(), fd: CGROUP }];
    around.capabilities = Some(1 << Capability::CHOWN.0);
    around.no_new_privs = true;
    around.landlock = Some(RULE_SET);
    around.filter = Some(vec![BpfInstruction { code: 0x06, jt: 0, jf: 0, k: 0x7fff_0000 }]);
}

/// Returns an empty root directory with each kind of mount.
fn root() -> Root {
    let place = |path: &str| Place::new(path.as_bytes()).expect("an absolute path");
    let read_only = MountAttributes { set: MountAttributes::RDONLY, clear: 0 };
    let new = |kind, path| MountStep::New { kind, options: c"".into(), point: place(path) };
    let bind = |source: &CStr, path, attributes| MountStep::Bind {
        source: source.into(),
        point: place(path),
        attributes,
        recursive: true,
    };
    Root {
        base: Base::Memory,
        mounts: vec![
            bind(c"/usr", "/usr", read_only),
            bind(c"/srv/data", "/srv/data", MountAttributes::default()),
            new(MountKind::Proc, "/proc"),
            new(MountKind::Tmpfs, "/tmp"),
            MountStep::Devices { point: place("/dev") },
            MountStep::MakeDirectory { place: place("/bin"), mode: 0o755 },
            bind(c"/bin/command", COMMAND, MountAttributes::default()),
            MountStep::Link { target: c"usr/lib".into(), place: place("/lib") },
        ],
        by_chroot: false,
    }
}

/// The bytes read from the log pipe.
#[derive(Default)]
struct Records(Vec<u8>);

impl Records {
    fn fatal_ones(&self) -> Vec<Record> {
        let text = String::from_utf8_lossy(&self.0);
        text.lines().filter_map(Record::parse).filter(|record| record.level <= Level::Fatal).collect()
    }
}

impl LogReader for Records {
    fn take(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
    }

    fn fatal(&self) -> bool {
        !self.fatal_ones().is_empty()
    }
}

/// Adds our launcher to the simulated machine. It forks stage 0 without an exec, and exits with the status of
/// the command. On a failure its error is stored in `told`; no simulated process depends on it.
pub(super) fn our_own(
    sim: &mut Sim,
    scenario: &Scenario,
    (policy, level): (Policy, Level),
    told: Rc<RefCell<Option<LaunchError>>>,
) {
    sim.program(COMMAND, Program::ends(Ended::Exit(0)));
    let interrupt = Some(sim.interrupt());
    sim.launcher_file(scenario.launcher_file);
    let (message, signals, candidates, file) =
        (scenario.message.clone(), scenario.signals, scenario.candidates, scenario.launcher_file);
    let planned = decode(&message, policy.dialect).ok().map(|(asked, _)| {
        let runs_code = policy.launch.uid.is_some();
        let enters_cgroup = surroundings_of(&policy).is_some_and(|around| !around.cgroups.is_empty());
        memory(&asked, &policy, runs_code, enters_cgroup, scenario.root_ids, &scenario.protection)
    });
    sim.launcher(move |sys| {
        let simulated = Stack::simulated().hiding(planned == Some(Memory::SharedNotDumpable));
        let mut slots = Slots::default();
        let around = surroundings_of(&policy);
        let moves = if around.is_some() { MOVES } else { &[] };
        // A start in place closes nothing.
        let kept = Some(()).filter(|()| !policy.launch.in_place);
        let kept = kept.and_then(|()| self::kept([&message, candidates], NAMED, moves, around.as_ref()));
        let tail = Tail {
            moves,
            around: around.as_ref(),
            kept: kept.as_deref(),
            ..tail_of(&policy, candidates, &mut slots)
        };
        let job = Job {
            message: &message,
            policy: &policy,
            level,
            signals,
            interrupt,
            timer: None,
            marked_copy: file == LauncherFile::Unnamed,
            stack: planned.is_some_and(Memory::is_shared).then_some(&simulated),
            tail,
        };
        let mut failed = None;
        let ended = launched(sys, &job, |error| failed = Some(error));
        if sys.is_turn_over() {
            return Ended::Stay;
        }
        if failed.is_some() {
            *told.borrow_mut() = failed;
        }
        if simulated.aborts() {
            // The program would have ended here, without an error.
            told.borrow_mut().take();
            return Ended::Exit(134);
        }
        ended
    });
}

/// Runs our launcher. A byte on `interrupt` asks it to end the launch.
pub fn start_our_own(
    sys: &mut SimSys,
    policy: &Policy,
    level: Level,
    message: &[u8],
    interrupt: Option<Fd>,
) -> Ended {
    start_and_tell(sys, policy, level, message, interrupt, |_| {})
}

/// Runs our launcher as [`start_our_own`] does. `tell` gets the error of a failed launch.
pub fn start_and_tell(
    sys: &mut SimSys,
    policy: &Policy,
    level: Level,
    message: &[u8],
    interrupt: Option<Fd>,
    tell: impl FnOnce(LaunchError),
) -> Ended {
    let mut slots = Slots::default();
    let candidates = b"/bin/command\0";
    let kept = kept([message, candidates], NAMED, &[], None);
    let tail = Tail { kept: kept.as_deref(), ..tail_of(policy, candidates, &mut slots) };
    let signals = ChildSignals::default();
    let job = Job {
        message,
        policy,
        level,
        signals,
        interrupt,
        timer: None,
        marked_copy: false,
        stack: None,
        tail,
    };
    launched(sys, &job, tell)
}

/// The pointers of the argument arrays of `command`, which has at most two candidates.
#[derive(Default)]
struct Slots<'a> {
    argv: [Option<ArgPtr<'a>>; 2],
    scripts: [Option<ArgPtr<'a>>; 6],
}

fn tail_of<'a>(policy: &Policy, candidates: &'a [u8], slots: &'a mut Slots<'a>) -> Tail<'a> {
    let argv = ExecArgs::build(b"command\0", &mut slots.argv).expect("two slots");
    Tail {
        around: None,
        gid: policy.launch.gid,
        uid: policy.launch.uid,
        moves: &[],
        propagation: policy.launch.propagation,
        mount_proc: policy.launch.mount_proc,
        kill_child: policy.launch.kill_child,
        pins: false,
        init: policy.launch.init,
        leads_session: policy.session == Session::New,
        descriptors: (policy.launch.descriptors == Descriptors::Named).then_some(NAMED),
        kept: None,
        user_namespace: b"",
        name: b"command",
        candidates,
        argv,
        scripts: ScriptArgs::build(candidates, &argv, &mut slots.scripts).expect("slots of two files"),
        envp: ExecArgs::EMPTY,
    }
}

fn launched(sys: &mut SimSys, job: &Job<'_>, tell: impl FnOnce(LaunchError)) -> Ended {
    let mut memory = vec![0; job.message.len()];
    let mut records = Records::default();
    match launch(sys, job, &mut Scratch { message: &mut memory }, &mut records) {
        Launched::Started { pid } => {
            // Without an exec the process ends as a stage, and it may become a command while we wait for the
            // stage. `__WALL` would cover both, but the trait lacks it.
            // A minimal init never executes.
            let kinds = match job.tail.init {
                true => [WaitFor::Stages, WaitFor::Stages, WaitFor::Stages],
                false => [WaitFor::Ordinary, WaitFor::Stages, WaitFor::Ordinary],
            };
            match kinds.into_iter().find_map(|kind| wait(sys, pid, kind)) {
                Some(WaitStatus::Exited(status)) => Ended::Exit(status),
                Some(WaitStatus::Signaled(signal)) => Ended::Exit(128 + signal.0),
                Some(WaitStatus::Stopped(_) | WaitStatus::Other(_)) | None => Ended::Exit(1),
            }
        }
        Launched::Failed(failure) => {
            let error = error_of(failure, records.fatal_ones(), job.message);
            let status = match failure.kind {
                FailureKind::Interrupted(signal) => 128 + signal.0,
                _ => error.exit_code(),
            };
            tell(error);
            Ended::Exit(status)
        }
        Launched::Exit(status) => Ended::Exit(status),
    }
}

/// Builds the error as `Launcher::spawn` does.
fn error_of(failure: nsexec::launch::script::Failure, records: Vec<Record>, message: &[u8]) -> LaunchError {
    let decoded = nsexec::bootstrap::decode(message, &nsexec::bootstrap::Dialect::V1_2);
    let asked = decoded.map_or(CloneFlags::EMPTY, |(bootstrap, _)| bootstrap.clone_flags());
    LaunchError::new(failure, records, "command".into(), asked)
}

fn wait(sys: &mut SimSys, pid: Pid, which: WaitFor) -> Option<WaitStatus> {
    loop {
        match sys.wait4(pid, which) {
            Ok(waited) => return Some(waited.status),
            Err(Errno::EINTR) => {}
            Err(_) => return None,
        }
    }
}
