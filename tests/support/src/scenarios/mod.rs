//! The scenarios of the simulated kernel: every namespace kind alone, the realistic sets, every refusal.
//!
//! The snapshots, the fault sweep, the schedules and other tests use them.
//!
//! | file | contents |
//! |---|---|
//! | `cloned` | the first steps of runc's older lines |
//! | `launching` | our own launcher as a simulated process, and its error |
//! | `starts` | scenarios that end with an init or a command |
//! | `refusals` | scenarios that end with an error of the kernel or of our own |
//! | `malformed` | malformed messages |
//! | `entering` | our own launcher enters an existing container |
//! | `shapes` | starts of our own launcher: direct, and those of them that exist through the stages too |
//! | `in_place` | starts of our own launcher in place |
//! | `sealed` | joins of a mount namespace, by the file that the launcher runs from |
//! | `through_child` | starts of our own launcher through a child, and all joins once more, through the stages |
//! | `dialects` | starts and errors in the older lines of runc |
//!
//! `nsexec_audit::plan::runc` has the two launch sequences of runc. They are library code, since plans need
//! them.

mod cloned;
mod dialects;
mod entering;
mod in_place;
mod launching;
mod malformed;
mod refusals;
mod sealed;
mod shapes;
mod starts;
mod through_child;

use std::cell::RefCell;
use std::ffi::{CStr, CString};
use std::rc::Rc;

use nsexec::bootstrap::{Bootstrap, Dialect, Environment, OwnProgram};
use nsexec::idmap::IdMap;
use nsexec::launch::LaunchError;
use nsexec::launch::encode::{encode, encoded_len};
use nsexec::launch::script::ChildSignals;
use nsexec::launch::shape::Protection;
use nsexec::legacy::CgroupPlacement;
use nsexec::log::Level;
use nsexec::namespace::paths::NsPaths;
use nsexec::namespace::{NsKind, NsSet};
use nsexec::policy::{LogForm, Policy, Session};
use nsexec::sys::Sys;
use nsexec::sys::types::{CloneFlags, Fd, Pid};
use nsexec_audit::plan::runc::{Launch, Manner, MountNumbers, drop_in};
use nsexec_audit::record::{Call, Line, Reply};
use nsexec_audit::rules::{Facts, Finding, check, message_note};
use nsexec_audit::sections::of_report;
use nsexec_audit::sim::{
    self, Choice, Ended, Fault, LauncherFile, ProcessReport, Program, Report, Settings, Sim, User,
};
use nsexec_audit::{Role, Run};

pub use launching::{COMMAND, start_and_tell, start_our_own};
pub use starts::realistic;

/// The launcher of a scenario.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// `runc run`.
    Init,
    /// `runc exec`.
    Exec,
    /// Our own launcher.
    Ours,
}

impl Way {
    pub const ALL: &'static [Self] = &[Self::Init, Self::Exec, Self::Ours];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::Exec => "exec",
            Self::Ours => "ours",
        }
    }

    pub const fn words(self, dialect: &Dialect) -> &'static str {
        match (
            self,
            dialect.sends_pid_line_late(),
            dialect.legacy.cgroup_namespace,
            dialect.legacy.ready_byte,
        ) {
            (Self::Init, true, ..) => "as the seed's runc run: stage 0, pid line, stage 1, configuration",
            (Self::Init, _, CgroupPlacement::Stage2AfterByte, _) => {
                "as runc run of 1.0: ready byte, pid line, stage 1, the cgroup's byte, stage 0, configuration"
            }
            (Self::Init, .., true) => {
                "as runc run of 1.1: ready byte, pid line, stage 1, stage 0, configuration"
            }
            (Self::Exec, .., true) => {
                "as runc exec of 1.0 and 1.1: ready byte, stage 0, pid line, stage 1, configuration"
            }
            (Self::Init, ..) => "as runc run: pid line, stage 1, stage 0, configuration",
            (Self::Exec, ..) => "as runc exec: stage 0, pid line, stage 1, configuration",
            (Self::Ours, ..) => "our own",
        }
    }
}

/// A machine, a message for it, and the launchers that send it.
pub struct Scenario {
    pub name: &'static str,
    /// The purpose of the scenario, in one sentence.
    pub about: &'static str,
    pub sim: Sim,
    /// Whether the launcher has root's ids.
    pub root_ids: bool,
    /// What prevents other processes from tracing the launcher.
    pub protection: Protection,
    pub message: Vec<u8>,
    pub policy: Policy,
    pub level: Level,
    /// The signals that our own launcher sets up in its stages.
    pub signals: ChildSignals,
    /// The session of our own launcher's command.
    pub session: Session,
    /// The paths that our own launcher tries to execute, each with its NUL.
    pub candidates: &'static [u8],
    /// The file that our own launcher runs from.
    pub launcher_file: LauncherFile,
    /// What runc's launcher puts into `_LIBCONTAINER_MOUNT_FDS`.
    pub mount_numbers: MountNumbers,
    pub ways: &'static [Way],
    /// A part of the first fatal record, if the start fails.
    pub refused: Option<&'static str>,
}

impl Scenario {
    pub fn new(name: &'static str, about: &'static str, user: &User, bootstrap: &Bootstrap<'_>) -> Self {
        Self {
            name,
            about,
            sim: Sim::new(Settings::default(), user),
            root_ids: user.uid == 0 && user.gid == 0,
            protection: Protection { permitted: Some(user.caps), ..Protection::NONE },
            message: message(bootstrap),
            policy: Policy::runc(&Dialect::V1_2),
            level: Level::Warning,
            signals: ChildSignals::default(),
            session: Session::Keep,
            candidates: b"/bin/command\0",
            launcher_file: LauncherFile::Sealed,
            mount_numbers: MountNumbers::Kept,
            ways: Way::ALL,
            refused: None,
        }
    }

    /// Adds namespaces to join: `prepare` makes them on the machine, and returns the list for the message.
    pub fn joining(mut self, prepare: impl FnOnce(&mut Sim) -> String) -> Self {
        let paths = prepare(&mut self.sim);
        let dialect = self.policy.dialect;
        let (old, _) = nsexec::bootstrap::decode(&self.message, dialect).expect("our own");
        let joining = old.with_namespaces(join(&paths));
        self.message = encoded(&joining, dialect);
        self
    }

    pub fn ways(self, ways: &'static [Way]) -> Self {
        Self { ways, ..self }
    }

    pub fn refused(self, refused: &'static str) -> Self {
        Self { refused: Some(refused), ..self }
    }

    pub fn setting(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(self.sim.settings());
        self
    }

    pub fn program(mut self, path: &str, program: Program) -> Self {
        self.sim.program(path, program);
        self
    }

    fn launch(&self, manner: Manner, policy: Policy) -> Launch {
        let Self { level, mount_numbers, .. } = *self;
        Launch { manner, level, policy, message: self.message.clone(), mount_numbers }
    }

    /// Returns the machine with runc's launcher.
    pub fn launched(&self, manner: Manner, level: Level) -> Sim {
        let mut sim = self.sim.clone();
        drop_in(&mut sim, Launch { level, ..self.launch(manner, self.policy) });
        sim
    }

    /// Returns the machine with our own launcher.
    pub fn launched_by_us(&self, policy: Policy, level: Level) -> Sim {
        let mut sim = self.sim.clone();
        launching::our_own(&mut sim, self, (policy, level), Rc::default());
        sim
    }
}

/// A scenario with one of its launchers.
pub struct Start {
    pub name: String,
    pub scenario: Scenario,
    pub way: Way,
    /// The policy of the stages; our launcher changes some of the scenario's fields.
    pub policy: Policy,
    sim: Sim,
    told: Rc<RefCell<Option<LaunchError>>>,
}

/// The result of a run.
pub struct Ran {
    pub report: Report,
    /// The error that our own launcher returned to its caller.
    pub told: Option<LaunchError>,
}

impl Start {
    fn of(scenario: Scenario, way: Way) -> Self {
        let told = Rc::default();
        let mut sim = scenario.sim.clone();
        // As `launch::Launcher` does, which reads details from the records.
        let policy = match way {
            Way::Ours => scenario
                .policy
                .with_session(scenario.session)
                .with_log_form(LogForm::Detailed)
                .with_ends_with_launcher(!scenario.policy.launch.in_place),
            _ => scenario.policy,
        };
        match way {
            Way::Init => drop_in(&mut sim, scenario.launch(Manner::Init, policy)),
            Way::Exec => drop_in(&mut sim, scenario.launch(Manner::Exec, policy)),
            Way::Ours => launching::our_own(&mut sim, &scenario, (policy, scenario.level), Rc::clone(&told)),
        }
        let name = match scenario.ways {
            [_] => scenario.name.to_owned(),
            _ => format!("{}_{}", scenario.name, way.name()),
        };
        Self { name, scenario, way, policy, sim, told }
    }

    /// Returns the same start through the stages, by policy.
    pub fn through_the_stages(&self) -> Self {
        let scenario = self.scenario.again();
        Self::of(Scenario { policy: scenario.policy.with_stages(true), ..scenario }, self.way)
    }

    pub fn run(&self, choice: &mut dyn Choice, fault: Option<Fault>) -> Ran {
        self.run_of(&self.sim, choice, fault)
    }

    /// Runs with polls that look at one descriptor in each turn.
    pub fn run_with_slow_polls(&self, choice: &mut dyn Choice) -> Ran {
        let mut sim = self.sim.clone();
        sim.settings().slow_polls = true;
        self.run_of(&sim, choice, None)
    }

    fn run_of(&self, sim: &Sim, choice: &mut dyn Choice, fault: Option<Fault>) -> Ran {
        self.told.borrow_mut().take();
        let report = sim.run(choice, fault);
        Ran { report, told: self.told.borrow_mut().take() }
    }

    /// Runs without a fault, and keeps what runs with a fault need.
    pub fn faultless<C: Choice + Clone>(&self, choice: C) -> Faultless<'_, C> {
        self.told.borrow_mut().take();
        let run = self.sim.faultless(choice);
        let ran = Ran { report: run.report.clone(), told: self.told.borrow_mut().take() };
        Faultless { start: self, run, ran }
    }

    /// Returns the findings of the audit rules. runc's launcher is only a model, so findings in its section
    /// are dropped.
    pub fn findings(&self, run: &Run) -> Vec<Finding> {
        let mut findings = check(run, &Facts::of(run, self.policy));
        findings.retain(|finding| self.way == Way::Ours || finding.section != "launcher");
        findings
    }

    /// Returns the run, with the request of our own launcher: a direct start sends no message, from which the
    /// rules could read it.
    pub fn sections(&self, ran: &Ran) -> Run {
        let mut run = of_report(&ran.report);
        if self.way == Way::Ours {
            run.notes.extend([message_note(&self.scenario.message)]);
        }
        run
    }
}

/// A run without a fault. Runs with a fault begin where the fault can happen.
pub struct Faultless<'a, C> {
    start: &'a Start,
    run: sim::Faultless<C>,
    pub ran: Ran,
}

impl<C: Choice + Clone> Faultless<'_, C> {
    /// Returns the same as [`Start::run`] with this fault. `None` if the fault cannot happen.
    pub fn run(&self, fault: Fault) -> Option<Ran> {
        // A launcher that has ended before the fault has already returned its error.
        let told = self.ran.told.clone().filter(|_| self.run.ends_before(Role::Launcher, fault));
        *self.start.told.borrow_mut() = told;
        let report = self.run.run(fault)?;
        Some(Ran { report, told: self.start.told.borrow_mut().take() })
    }
}

/// Returns the process that becomes the init or the command. If a direct start was given up, this is not its
/// process, which has the role of stage 2 in a report of the simulated kernel, but that of the stages.
///
/// In a start in place it is the launcher.
pub fn init_of(report: &Report) -> Option<&ProcessReport> {
    if let Some(launcher) = report.find(Role::Launcher).filter(|launcher| executes(launcher)) {
        return Some(launcher);
    }
    let is_sibling = |process: &&ProcessReport| {
        let first = process.transcript.lines.first().map(|line| &line.call);
        matches!(first, Some(Call::CloneSibling { .. }))
    };
    let mut others = report.processes.iter().filter(|process| matches!(process.role, Role::Other(_)));
    others.rfind(is_sibling).or_else(|| report.find(Role::Stage(2)))
}

/// Returns whether the process has executed another program.
pub fn executes(process: &ProcessReport) -> bool {
    process.transcript.lines.iter().any(|line| line.reply == Reply::NoReturn)
}

/// Returns whether the launcher created this process itself, as the init of a direct start.
pub fn is_direct(process: &ProcessReport) -> bool {
    matches!(
        process.transcript.lines.first(),
        Some(Line { call: Call::CloneInit { .. }, reply: Reply::Child })
    )
}

/// Returns whether the launcher created stage 1 itself.
pub fn is_through_child(report: &Report) -> bool {
    let first = report.find(Role::Stage(1)).and_then(|process| process.transcript.lines.first());
    matches!(first, Some(Line { call: Call::CloneChild { .. }, reply: Reply::Child }))
}

/// Returns every scenario.
pub fn scenarios() -> Vec<Scenario> {
    let mut all = starts::created();
    all.extend(starts::joined());
    all.extend(realistic());
    all.extend(starts::old_and_small());
    all.extend(entering::starts());
    all.extend(dialects::starts());
    all.extend(shapes::starts());
    all.extend(refusals::all());
    all.extend(entering::refusals());
    all.extend(dialects::refusals());
    all.extend(shapes::refusals());
    all.extend(malformed::all());
    all.extend(cloned::all());
    all.extend(sealed::all());
    all.extend(in_place::starts());
    all.extend(in_place::refusals());
    all.extend(through_child::starts());
    all.extend(through_child::refusals());
    let again = through_child::through_the_stages(&all);
    all.extend(again);
    all
}

/// Returns the realistic sets that a runtime may ask for: those with runc's policy, and without privileges
/// that an exec removes.
pub fn for_runc() -> Vec<Scenario> {
    realistic().into_iter().filter(|scenario| scenario.ways != [Way::Ours]).collect()
}

/// Returns one of the realistic sets by name.
pub fn named(name: &str) -> Scenario {
    realistic().into_iter().find(|scenario| scenario.name == name).expect("a scenario of this name")
}

/// Runs the model of `runc init` with runc's policy.
pub fn runc_init(sys: &mut impl Sys, init: Fd, log: Fd, level: Level) -> Ended {
    let policy = Policy::runc(&Dialect::V1_2);
    let environment = Environment::new(Some(init), Some(log), level);
    nsexec_audit::plan::runc::runc_init(sys, environment, OwnProgram::default(), &policy, 4096)
}

/// Returns every scenario with each of its launchers.
pub fn starts() -> Vec<Start> {
    let mut all: Vec<Start> = Vec::new();
    for scenario in scenarios() {
        let ways = scenario.ways;
        let (last, others) = ways.split_last().expect("a way");
        all.extend(others.iter().map(|way| Start::of(scenario.again(), *way)));
        all.push(Start::of(scenario, *last));
    }
    all
}

impl Scenario {
    fn again(&self) -> Self {
        Self { sim: self.sim.clone(), message: self.message.clone(), ..*self }
    }
}

/// Calls `work` with every start, on as many threads as there are processors. A start is not `Send`, so each
/// thread makes its own. Returns the results in the order of the starts.
pub fn on_all_cores<T: Send>(work: impl Fn(&Start) -> T + Sync) -> Vec<T> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let next = std::sync::atomic::AtomicUsize::new(0);
    let done = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                let all = starts();
                loop {
                    let index = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    let Some(start) = all.get(index) else { break };
                    let result = work(start);
                    done.lock().expect("no thread panics while it holds the lock").push((index, result));
                }
            });
        }
    });
    let mut done = done.into_inner().expect("no thread panics while it holds the lock");
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

/// Encodes a message in the newest dialect.
pub fn message(bootstrap: &Bootstrap<'_>) -> Vec<u8> {
    encoded(bootstrap, &Dialect::V1_2)
}

/// Encodes a message in a dialect.
pub fn encoded(bootstrap: &Bootstrap<'_>, dialect: &Dialect) -> Vec<u8> {
    let mut bytes = vec![0; encoded_len(bootstrap)];
    let len = encode(bootstrap, dialect, &mut bytes).expect("a message");
    bytes.truncate(len);
    bytes
}

/// Leaks a text, so that a message can borrow it.
pub fn leak(text: &str) -> &'static CStr {
    Box::leak(CString::new(text).expect("no NUL").into_boxed_c_str())
}

/// Parses an id map.
pub fn map(text: &str) -> IdMap<'static> {
    IdMap::parse(leak(text)).expect("a map")
}

/// Parses the namespaces to join, as `kind:path,…`.
pub fn join(text: &str) -> NsPaths<'static> {
    NsPaths::parse(leak(text).to_bytes(), NsSet::ALL).expect("a list of namespaces")
}

/// Returns the union of the kinds' flags.
pub fn flags(kinds: &[NsKind]) -> CloneFlags {
    kinds.iter().fold(CloneFlags::EMPTY, |flags, kind| flags.union(kind.flag()))
}

/// Returns the list of namespaces to join a process's namespaces of these kinds.
pub fn paths_of(pid: Pid, kinds: &[NsKind]) -> String {
    let path = |kind: &NsKind| format!("{}:/proc/{pid}/ns/{}", kind.name(), kind.name());
    kinds.iter().map(path).collect::<Vec<_>>().join(",")
}
