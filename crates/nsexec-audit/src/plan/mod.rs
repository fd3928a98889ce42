//! Plans a run before it happens: the same launch, on the simulated kernel, under stated assumptions.
//!
//! A plan is not a second description of the code. It executes the code: [`Prepared::run`] on a
//! [`SimSys`](crate::sim::SimSys), whose recorded calls are the plan.

mod assume;
mod caller;
mod launcher;
pub mod runc;
mod shown;
mod verdict;
mod words;

use std::borrow::Cow;
use std::ffi::CString;
use std::format;
use std::rc::Rc;
use std::string::{String, ToString};
use std::vec;
use std::vec::Vec;

use sha2::{Digest, Sha256};

pub use assume::{Assumptions, JoinedUser, Kernel, Owner, Refused, WrongPath};
use runc::{Launch, Manner, MountNumbers};
pub use verdict::{Fault, Verdict};

use super::note;
use super::render::document::{log, pid_line};
use super::render::summary::command_line;
use super::rules::{self, Facts, Finding, Request, message_note};
use super::sections::of_report;
use super::transcript::{End, Role, Run};
use crate::record::{Call, Line, Reply};
use crate::sim::{Container, Ended, Extra, Oldest, Program, Report, Sim, User};
use crate::state::Expected;
use nsexec::bootstrap::{Bootstrap, HEADER_LEN, decode};
use nsexec::idmap::{Extent, IdMap};
use nsexec::launch::encode::{EncodeError, encode, encoded_len};
use nsexec::launch::shape::Shape;
use nsexec::launch::{Circumstances, Descriptors, LaunchError, Prepared};
use nsexec::log::Level;
use nsexec::namespace::NsKind;
use nsexec::policy::Policy;
use nsexec::sys::types::Pid;
use nsexec::timens::TimeOffsets;

/// The start to plan.
#[derive(Clone, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "one for each plan: a box would only be in the way of who builds it"
)]
pub enum Start {
    /// A start by our own launcher.
    Launcher(Prepared),
    /// A Go runtime starts the drop-in with this message.
    Runc {
        /// The bytes on the init pipe.
        message: Vec<u8>,
        /// Whether the runtime is `runc run` or `runc exec`.
        manner: Manner,
        /// The policy, including the dialect.
        policy: Policy,
    },
}

/// The planned run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The calls of each process.
    pub run: Run,
    /// The assumptions, as subject and value.
    pub assumptions: Vec<(String, String)>,
    /// The options that the message cannot express, in words.
    pub policy: Vec<(String, String)>,
    /// The shape of the start, and the reason for it, in words. It follows from what is hashed, and is not
    /// hashed itself.
    pub shape: String,
    /// SHA-256 over the message, the dialect, the policy, the assumptions, and the command's arguments and
    /// surroundings or the runtime's manner. The input is normalised, so the same request and assumptions
    /// have the same hash on every machine. The environment, and what a search of PATH finds, are not part
    /// of it.
    pub hash: String,
    /// The command and its arguments, on one line. `None` for a start by a Go runtime.
    pub command: Option<String>,
    /// The request of the message. `None` if stage 0 did not read a valid one.
    pub asked: Option<Request>,
    /// The findings of the rules.
    pub findings: Vec<Finding>,
    /// The pid line, without its newline.
    pub pid_line: Option<String>,
    /// The records on the log pipe, in the order of the sections.
    pub log: Vec<String>,
    /// Whether the command is executed or the init handed over.
    pub succeeds: bool,
    /// The error of our own launcher, if the launch fails.
    pub error: Option<LaunchError>,
    /// The state of the command's process at its last function of
    /// [`Command::pre_exec`](nsexec::launch::Command::pre_exec), if there is one.
    pub expected: Option<Expected>,
    /// The facts that were not looked at, one sentence each: [`Assumptions::unknown`].
    pub unknown: Vec<String>,
    /// The facts on which the cause of a failure depends. `None`: none is known.
    pub circumstances: Option<Circumstances>,
}

/// The reasons for which a plan cannot be made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PlanError {
    /// The message is malformed, with a description of the fault.
    Message(String),
    /// The message cannot be encoded again for the hash.
    Encode(EncodeError),
    /// The launch fails before any process is created: the error that
    /// [`Command::spawn`](nsexec::launch::Command::spawn) returns too.
    Launch(LaunchError),
}

impl core::fmt::Display for PlanError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Message(text) => f.write_str(text),
            Self::Encode(error) => error.fmt(f),
            Self::Launch(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for PlanError {}

/// Plans `start` under `assumptions`.
///
/// # Errors
/// [`PlanError`] if the message is malformed, or cannot be encoded for the hash.
pub fn plan(start: &Start, assumptions: &Assumptions) -> Result<Plan, PlanError> {
    let (message, policy) = match start {
        Start::Launcher(prepared) => (prepared.message(), *prepared.policy()),
        Start::Runc { message, policy, .. } => (&message[..], *policy),
    };
    let (bootstrap, _) =
        decode(message, policy.dialect).map_err(|error| PlanError::Message(error.to_string()))?;
    let joined = bootstrap.joined();
    let policy_lines = policy_lines(&policy);
    let mut assumption_lines = assumptions.lines(joined);
    assumption_lines.extend(caller::lines(assumptions));
    if let Start::Launcher(prepared) = start {
        assumption_lines.extend(launcher::lines(prepared));
    }
    if policy.dialect.legacy.cloned_binary {
        // Only these dialects create a file in memory, so only their plans depend on MFD_EXEC.
        let known = if assumptions.kernel.knows_mfd_exec() { "yes" } else { "no" };
        assumption_lines.push(("MFD_EXEC (6.3)".to_string(), known.to_string()));
    }
    if matches!(start, Start::Launcher(_)) && joined.contains(NsKind::Mnt) && !policy.launch.trusted_mounts {
        // Only these launches require the copy.
        let file =
            if assumptions.sealed { "a sealed copy of itself" } else { "a file that can be written to" };
        assumption_lines.push(("this program runs from".to_string(), file.to_string()));
    }
    let hash = hash(start, &bootstrap, &policy_lines, &assumption_lines).map_err(PlanError::Encode)?;
    let set_back = |offsets: TimeOffsets<'_>| offsets.text().contains(&b'-');
    if bootstrap.timens_offsets().is_some_and(set_back) {
        assumption_lines.push(("up since".to_string(), format!("{} seconds", assumptions.uptime)));
    }

    let mut sim = machine(&bootstrap, assumptions);
    let error = launcher::Outcome::default();
    let notes = match start {
        Start::Launcher(prepared) => launcher::set_up(&mut sim, prepared, assumptions, error.clone()),
        Start::Runc { message, manner, policy } => {
            let (level, mount_numbers) = (Level::Warning, MountNumbers::Kept);
            let (manner, policy, message) = (*manner, *policy, message.clone());
            runc::drop_in(&mut sim, Launch { manner, level, policy, message, mount_numbers });
            Vec::new()
        }
    };
    let report = sim.run(&mut Oldest, None);
    let mut run = run_of(&report);
    run.notes.extend(notes);
    if matches!(start, Start::Launcher(_)) {
        run.notes.extend([message_note(message)]);
    }
    let facts = Facts::of(&run, policy);
    let findings = rules::check(&run, &facts);
    let succeeds = error.borrow().is_none() && run.pins_namespaces()
        || run.of_command().any(|last| matches!(last.end, End::Executed | End::HandedOver));
    Ok(Plan {
        pid_line: pid_line(&run),
        shape: shape(start, assumptions, &run),
        log: log(&run).into_iter().chain(own_error(policy.launch.in_place, &error)).collect(),
        run,
        assumptions: assumption_lines,
        policy: words::policy(&policy),
        hash,
        command: match start {
            Start::Launcher(prepared) => Some(command_line(prepared.argv())),
            Start::Runc { .. } => None,
        },
        asked: facts.asked,
        findings,
        succeeds,
        error: error.take(),
        expected: expected(start, &report),
        unknown: assumptions.unknown.clone(),
        circumstances: None,
    })
}

/// Returns the absolute path of the working directory that a launch sets.
pub(crate) fn directory(prepared: &Prepared) -> Option<String> {
    let set =
        prepared.around.directory.as_ref().map(|directory| directory.path.to_string_lossy().into_owned());
    let default = prepared.around.root.as_ref().map(|_| "/".to_string());
    set.filter(|path| path.starts_with('/')).or(default)
}

/// Returns the state of the command's process at its last function before the exec.
fn expected(start: &Start, report: &Report) -> Option<Expected> {
    let Start::Launcher(prepared) = start else { return None };
    let mut expected = report.at_hook()?.clone();
    expected.directory = directory(prepared);
    if prepared.policy().launch.descriptors == Descriptors::All {
        // Those of the caller are not known.
        expected.descriptors = None;
    }
    Some(expected)
}

/// Returns the shape of the start in words. A direct start that the kernel refuses on the simulated machine
/// goes through the stages.
fn shape(start: &Start, assumptions: &Assumptions, run: &Run) -> String {
    let Start::Launcher(prepared) = start else {
        return "three stages, because a Go runtime starts the drop-in".to_string();
    };
    let launcher = run.section(Role::Launcher).map_or(&[][..], |launcher| &launcher.lines);
    let is_init = |line: &&Line| matches!(line.call, Call::CloneInit { .. });
    let attempt = launcher.iter().find(is_init).map(|line| &line.reply);
    let has_stages = launcher.iter().any(|line| matches!(line.call, Call::Fork { .. }));
    match (prepared.shape(), attempt) {
        (Some(Shape::Direct), Some(Reply::Errno(errno))) => {
            format!("three stages, because the kernel refused the clone of a direct start: {errno}")
        }
        (Some(Shape::Direct), Some(_)) if has_stages => {
            "three stages, because the kernel refused an id map, which a mapping tool may write".to_string()
        }
        (Some(Shape::Direct | Shape::Child), None) if has_stages => {
            "three stages, because the request is impossible, which stage 0 reports".to_string()
        }
        (Some(Shape::Direct), _) => {
            let memory = prepared.memory(assumptions.has_root_ids(), &assumptions.protection());
            format!("{}; its memory is {memory}", Shape::Direct)
        }
        (Some(shape), _) => shape.to_string(),
        (None, _) => "three stages, because the message cannot be decoded, which stage 0 reports".to_string(),
    }
}

/// Returns the policy for the hash.
fn policy_lines(policy: &Policy) -> Vec<(String, String)> {
    let yes = |yes: bool| if yes { "yes" } else { "no" }.to_string();
    let lines = [
        ("dialect", policy.dialect.name().to_string()),
        ("session", format!("{:?}", policy.session)),
        ("credentials", format!("{:?}", policy.credentials)),
        ("setgroups", format!("{:?}", policy.setgroups)),
        ("log records", format!("{:?}", policy.log_form)),
        ("propagation", policy.launch.propagation.map_or("as it is".to_string(), |kind| format!("{kind:?}"))),
        ("fresh /proc", yes(policy.launch.mount_proc)),
        ("kill with the launcher", yes(policy.launch.kill_child)),
        ("descriptors", format!("{:?}", policy.launch.descriptors)),
    ];
    // Listed only if set, since few launchers set it.
    let trusted = policy.launch.trusted_mounts.then(|| ("mount namespace to join", "trusted".to_string()));
    let stages = policy.launch.stages.then(|| ("through the stages", "always".to_string()));
    let in_place = policy.launch.in_place.then(|| ("in place", "yes".to_string()));
    let pins = policy.launch.pins.then(|| ("pins namespaces", "yes".to_string()));
    let set = trusted.into_iter().chain(stages).chain(in_place).chain(pins);
    lines.into_iter().chain(set).map(|(key, value)| (key.to_string(), value)).collect()
}

/// Returns the plan's hash. The message is hashed as a little-endian machine would encode it.
fn hash(
    start: &Start,
    bootstrap: &Bootstrap<'_>,
    policy_lines: &[(String, String)],
    assumptions: &[(String, String)],
) -> Result<String, EncodeError> {
    let (Policy { dialect, .. }, who) = match start {
        Start::Launcher(prepared) => (prepared.policy(), words(prepared)),
        Start::Runc { policy, manner, .. } => (policy, format!("manner: {manner:?}\n").into_bytes()),
    };
    let mut message = vec![0; encoded_len(bootstrap)];
    let len = encode(bootstrap, dialect, &mut message)?;
    let mut hash = Sha256::new();
    hash.update(b"nsexec plan 1\n");
    for (key, value) in policy_lines.iter().chain(assumptions) {
        hash.update(format!("{key}: {value}\n"));
    }
    hash.update(who);
    hash.update(message.get(HEADER_LEN..len).unwrap_or_default());
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Returns the command's arguments and surroundings for the hash: their number, and each with its NUL.
fn words(prepared: &Prepared) -> Vec<u8> {
    let mut words = format!("command: {} words\n", prepared.argv().count()).into_bytes();
    for word in prepared.argv() {
        words.extend(word);
        words.push(0);
    }
    if let Some(set) = note::surroundings(prepared) {
        words.extend(b"surroundings: ");
        words.extend(set.into_bytes());
    }
    words
}

/// Returns a simulated machine for the assumptions, with the namespaces to join.
fn machine(bootstrap: &Bootstrap<'_>, assumptions: &Assumptions) -> Sim {
    let caller = User {
        uid: assumptions.uid,
        gid: assumptions.gid,
        groups: vec![assumptions.gid],
        caps: assumptions.capabilities,
    };
    let mut sim = Sim::new(caller::settings(assumptions), &caller);
    caller::place(&mut sim, assumptions);
    for (path, file, allowance) in [
        (bootstrap.uidmap_path(), "uid_map", assumptions.users()),
        (bootstrap.gidmap_path(), "gid_map", assumptions.groups()),
    ] {
        let Some(Ok(path)) = path.map(core::ffi::CStr::to_str) else { continue };
        match allowance {
            _ if assumptions.tools_refuse => sim.program(path, Program::ends(Ended::Exit(1))),
            Some(allowance) => sim.program(path, Program::mapping_tool(file, allowance)),
            None => {}
        }
    }
    join_targets(&mut sim, bootstrap, &caller, assumptions);
    // Mount sources may be any file. A directory stands for all of them.
    let sources = bootstrap.mount_sources().into_iter().flat_map(|sources| sources.iter());
    for source in sources.filter(|source| !source.is_empty()) {
        if let Ok(path) = core::str::from_utf8(source) {
            sim.file(path, Extra::Directory);
        }
    }
    sim
}

fn join_targets(sim: &mut Sim, bootstrap: &Bootstrap<'_>, caller: &User, assumptions: &Assumptions) {
    let Some(paths) = bootstrap.namespaces() else { return };
    let joined = paths.kinds();
    let of = |owner| -> Vec<NsKind> {
        let owned = joined.iter().filter(|kind| *kind != NsKind::User);
        owned.filter(|kind| assumptions.owner(*kind, joined) == owner).collect()
    };
    let inside =
        joined.contains(NsKind::User).then(|| user_container(sim, caller, assumptions, &of(Owner::Joined)));
    let of_caller = of(Owner::Caller);
    let outside = sim.container(&Container { maker: User::root(), maps: None, kinds: &of_caller });
    for kind in of_caller {
        sim.give_to_caller(sim.namespace(outside, kind));
    }
    // One file may be listed for two kinds. The entry of its real kind is created last, so it takes effect.
    let is_other = |kind| assumptions.wrong_path.get(&kind) == Some(&WrongPath::OtherKind);
    let (wrong, right): (Vec<_>, Vec<_>) = paths.iter().partition(|entry| is_other(entry.kind));
    for entry in wrong.into_iter().chain(right) {
        let in_user = entry.kind == NsKind::User || assumptions.owner(entry.kind, joined) == Owner::Joined;
        let pid = inside.filter(|_| in_user).unwrap_or(outside);
        // A path that is not UTF-8 does not exist on the simulated machine.
        let Ok(path) = core::str::from_utf8(entry.path) else { continue };
        let path = &*absolute(path);
        let file = match assumptions.wrong_path.get(&entry.kind) {
            None => Extra::Namespace(sim.namespace(pid, entry.kind)),
            Some(WrongPath::Own) => Extra::Namespace(sim.namespace(sim.launcher_pid(), entry.kind)),
            Some(WrongPath::OtherKind) => {
                let other = if entry.kind == NsKind::Uts { NsKind::Ipc } else { NsKind::Uts };
                Extra::Namespace(sim.namespace(outside, other))
            }
            // The path may name a pid that a simulated process has, so it is removed explicitly.
            Some(WrongPath::Missing) => Extra::Missing,
            Some(WrongPath::BelowFile) => {
                sim.file(above(path), Extra::Regular(Rc::from(&b""[..])));
                continue;
            }
            Some(WrongPath::Forbidden) => Extra::Forbidden,
            Some(WrongPath::NotPermitted) => Extra::NotPermitted,
            Some(WrongPath::Fifo) => Extra::Fifo,
            Some(WrongPath::Regular) => Extra::Regular(Rc::from(&b""[..])),
        };
        sim.file(path, file);
    }
}

/// Returns the path as an absolute one: the working directory of the simulated launcher is the root
/// directory.
fn absolute(path: &str) -> Cow<'_, str> {
    if path.starts_with('/') {
        return path.into();
    }
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/")).into()
}

/// Returns the parent directory of a path.
fn above(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(above, _)| above)
}

/// Creates a process in the user namespace to join, with the namespaces that it owns.
fn user_container(sim: &mut Sim, caller: &User, assumptions: &Assumptions, kinds: &[NsKind]) -> Pid {
    let JoinedUser { maker, users, groups, setgroups } = assumptions.joined_user();
    let maker = match maker {
        uid if uid == caller.uid => caller.clone(),
        0 => User::root(),
        uid => User::ordinary(uid),
    };
    let text = |map: &[Extent]| map.iter().map(|line| format!("{line}\n")).collect::<String>();
    // An invalid map cannot have been written, so the namespace has no map.
    let checked = |text: String| {
        let right = CString::new(text.clone()).is_ok_and(|text| IdMap::parse(&text).is_ok());
        if right { text } else { String::new() }
    };
    let (users, groups) = (checked(text(&users)), checked(text(&groups)));
    let pid = sim.container(&Container { maker, maps: Some((&users, &groups)), kinds });
    if !setgroups {
        sim.deny_setgroups(pid);
    }
    pid
}

/// Returns the simulated processes as a run. The launcher's end is not planned: it continues with its own
/// program.
fn run_of(report: &Report) -> Run {
    let mut run = of_report(report);
    for section in run.sections.iter_mut().filter(|section| section.role == Role::Launcher) {
        let executes = section.lines.last().is_some_and(|line| line.reply == Reply::NoReturn);
        section.end = if executes { End::Executed } else { End::Unknown };
    }
    run
}

/// Returns the error of a start in place, which the launcher does not write to the log pipe.
fn own_error(in_place: bool, error: &launcher::Outcome) -> Option<String> {
    error.borrow().as_ref().filter(|_| in_place).map(ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;
    use core::ffi::CStr;
    use nsexec::bootstrap::Dialect;
    use nsexec::launch::shape::{Protection, Yama};
    use nsexec::launch::{Descriptors, Launcher};
    use nsexec::namespace::NsSet;
    use nsexec::namespace::paths::NsPaths;
    use nsexec::policy::{Credentials, Policy, Session, Setgroups};
    use nsexec::sys::types::CloneFlags;
    use std::os::unix::fs::MetadataExt;

    fn prepared(flags: CloneFlags) -> Start {
        prepared_with(flags, Policy::runc(&Dialect::V1_2))
    }

    fn prepared_with(flags: CloneFlags, policy: Policy) -> Start {
        let mut launcher = Launcher::new(&Bootstrap::new(flags), policy).unwrap();
        Start::Launcher(launcher.command("/bin/true", [""; 0]).prepare().unwrap())
    }

    /// Returns the plan of a start of our own launcher, under a policy and with a one-line map of user 1000
    /// to `outside`.
    fn with_map(outside: &CStr, tool: Option<&CStr>, policy: Policy, assumptions: &Assumptions) -> Plan {
        let map = IdMap::parse(outside).unwrap();
        let mut message =
            Bootstrap::new(CloneFlags::NEWUSER).with_uid_map(map).with_gid_map(map).with_rootless_euid(true);
        if let Some(tool) = tool {
            message = message.with_uidmap_path(tool).with_gidmap_path(tool);
        }
        let mut launcher = Launcher::new(&message, policy).unwrap();
        plan(&Start::Launcher(launcher.command("/bin/true", [""; 0]).prepare().unwrap()), assumptions)
            .unwrap()
    }

    #[test]
    fn plan_names_the_shape_of_the_start_and_its_reason() {
        let runc = || Policy::runc(&Dialect::V1_2);
        let root = plan(&prepared(CloneFlags::NEWNET), &Assumptions::root()).unwrap();
        let shared = "direct: one process, because nothing is joined; its memory is shared with the launcher up to the exec";
        assert_eq!(root.shape, shared);
        let ordinary = Assumptions::ordinary(1000);
        let own = with_map(c"0 1000 1\n", None, runc(), &ordinary);
        assert_eq!((own.succeeds, &own.shape[..]), (true, shared));
        let protection = Protection { yama: Yama::On, ..ordinary.protection };
        let guarded =
            with_map(c"0 1000 1\n", None, runc(), &Assumptions { protection, ..Assumptions::ordinary(1000) });
        let user = "direct: one process, because nothing is joined; its memory is a copy, because the owner of the new \
                    user namespace could reach the launcher's memory: Yama restricts tracing \
                    (kernel.yama.ptrace_scope)";
        assert_eq!((guarded.succeeds, &guarded.shape[..]), (true, user));
        assert_ne!(guarded.hash, own.hash);
        let root = with_map(c"0 1000 1\n", None, runc(), &Assumptions::root());
        assert!(root.shape.ends_with("and the launcher is not dumpable meanwhile"), "{}", root.shape);
        let protection = Protection { suid_dumpable: true, ..Protection::NONE };
        let debugged =
            with_map(c"0 1000 1\n", None, runc(), &Assumptions { protection, ..Assumptions::root() });
        assert!(debugged.shape.ends_with("memory: the launcher has capabilities"), "{}", debugged.shape);
        let asked = with_map(c"0 1000 1\n", None, runc().with_stages(true), &ordinary);
        assert_eq!(
            (asked.succeeds, &asked.shape[..]),
            (true, "three stages, because the policy asks for them")
        );
        let long = with_map(c"0 100000 9\n", Some(c"/usr/bin/newuidmap"), runc(), &ordinary);
        assert_eq!(long.shape, "three stages, because a mapping tool writes the maps");
        let joins = joining(c"net:/n", &Assumptions::root());
        assert_eq!(
            joins.shape,
            "through a child, because only a fork enters a joined pid or a new time namespace"
        );
        let drop_in = plan(&of_runc(Manner::Init), &Assumptions::root()).unwrap();
        assert_eq!(drop_in.shape, "three stages, because a Go runtime starts the drop-in");
    }

    /// The numbers in docs/protocol.md#the-number-of-calls.
    #[test]
    fn direct_start_has_less_than_half_of_the_calls() {
        let policy = || Policy::runc(&Dialect::V1_2);
        let calls = |flags: CloneFlags, stages: bool, assumptions: &Assumptions| {
            let map = IdMap::parse(c"0 1000 1\n").unwrap();
            let user = flags.contains(CloneFlags::NEWUSER);
            let mut message = Bootstrap::new(flags);
            if user {
                message = message.with_uid_map(map).with_gid_map(map).with_rootless_euid(true);
            }
            let mut launcher = Launcher::new(&message, policy().with_stages(stages)).unwrap();
            let start = Start::Launcher(launcher.command("/bin/true", [""; 0]).prepare().unwrap());
            let plan = plan(&start, assumptions).unwrap();
            assert!(plan.succeeds, "{:?}", plan.log);
            let own = |section: &crate::Section| {
                let lines = section.lines.iter().filter(|line| line.reply != Reply::Child);
                lines.filter(|line| !matches!(line.call, Call::Sigaction { .. })).count()
            };
            plan.run.sections.iter().map(own).collect::<Vec<_>>()
        };
        let (ordinary, root) = (Assumptions::ordinary(1000), Assumptions::root());
        let user_net = CloneFlags::NEWUSER.union(CloneFlags::NEWNET);
        assert_eq!(calls(user_net, true, &ordinary), [25, 47, 18, 16]);
        assert_eq!(calls(user_net, false, &ordinary), [32, 14]);
        let uts_net = CloneFlags::NEWUTS.union(CloneFlags::NEWNET);
        assert_eq!(calls(uts_net, true, &root), [25, 26, 12, 16]);
        assert_eq!(calls(uts_net, false, &root), [14, 13]);
    }

    /// The numbers in docs/protocol.md#the-number-of-calls.
    #[test]
    fn entering_through_a_child_has_fewer_calls() {
        let paths = c"user:/u,mnt:/m,pid:/p,net:/n,ipc:/i,uts:/h,cgroup:/c,time:/t";
        let paths = NsPaths::parse(paths.to_bytes(), NsSet::ALL).unwrap();
        let policy = Policy::runc(&Dialect::V1_2)
            .with_session(Session::Keep)
            .with_credentials(Credentials::RootLast)
            .with_descriptors(Descriptors::Named)
            .with_setgroups(Setgroups::DropIfAllowed);
        let calls = |stages: bool| {
            let message = Bootstrap::new(CloneFlags::EMPTY).with_namespaces(paths);
            let mut launcher = Launcher::new(&message, policy.with_stages(stages)).unwrap();
            let start = Start::Launcher(launcher.command("/bin/true", [""; 0]).prepare().unwrap());
            let plan = plan(&start, &Assumptions::root()).unwrap();
            assert!(plan.succeeds, "{:?}", plan.log);
            let own = |section: &crate::Section| {
                let lines = section.lines.iter().filter(|line| line.reply != Reply::Child);
                lines.filter(|line| !matches!(line.call, Call::Sigaction { .. })).count()
            };
            plan.run.sections.iter().map(own).collect::<Vec<_>>()
        };
        assert_eq!(calls(true), [28, 28, 42, 19]);
        assert_eq!(calls(false), [24, 39, 14]);
    }

    /// musl caches no thread id, and a kernel without CONFIG_CHECKPOINT_RESTORE reports no address. So the
    /// clones of the plan have no address to refresh.
    #[test]
    fn plan_with_musl_or_without_a_reported_address_refreshes_no_thread_id() {
        let clones = |caches_tid, machine: Machine| {
            let assumptions = Assumptions { caches_tid, ..machine.assumptions() };
            let plan = plan(&prepared(CloneFlags::NEWNET), &assumptions).unwrap();
            let calls = plan.run.sections.iter().flat_map(|section| &section.lines).map(|line| &line.call);
            let tids = calls.filter_map(|call| match call {
                Call::Fork { tid, .. } | Call::CloneChild { tid } => Some(tid.is_some()),
                _ => None,
            });
            (tids.collect::<Vec<_>>(), plan.hash)
        };
        let ordinary = Machine::ordinary(1000);
        let (musl, glibc) = (clones(false, ordinary.clone()), clones(true, ordinary.clone()));
        let mut machine = ordinary;
        machine.reports_tid_address = false;
        let silent = clones(true, machine);
        assert!(!silent.0.is_empty() && !silent.0.contains(&true), "{:?}", silent.0);
        assert_ne!(silent.1, glibc.1);
        assert!(!musl.0.is_empty() && !musl.0.contains(&true), "{:?}", musl.0);
        assert!(!glibc.0.is_empty() && !glibc.0.contains(&false), "{:?}", glibc.0);
        assert_ne!(musl.1, glibc.1);
    }

    #[test]
    fn plan_names_the_refusal_that_leads_to_the_stages() {
        let clone = plan(&prepared(CloneFlags::NEWNET), &Assumptions::ordinary(1000)).unwrap();
        assert_eq!(
            clone.shape,
            "three stages, because the kernel refused the clone of a direct start: Operation not permitted"
        );
        let tool = Some(c"/usr/bin/newuidmap");
        let map = with_map(c"0 5000 1\n", tool, Policy::runc(&Dialect::V1_2), &Assumptions::ordinary(1000));
        assert_eq!(
            map.shape,
            "three stages, because the kernel refused an id map, which a mapping tool may write"
        );
    }

    #[test]
    fn plan_of_root_succeeds_and_follows_every_rule() {
        let flags = CloneFlags::NEWNET.union(CloneFlags::NEWCGROUP);
        let policy = Policy::runc(&Dialect::V1_2);
        for (stages, processes) in [(false, 2), (true, 4)] {
            let start = prepared_with(flags, policy.with_stages(stages));
            let plan = plan(&start, &Assumptions::root()).unwrap();
            assert!(plan.succeeds, "{:?}", plan.log);
            assert!(plan.findings.is_empty(), "{:?}", plan.findings);
            assert_eq!(plan.run.sections.len(), processes);
            // A direct start has no pid line.
            assert_eq!(plan.pid_line.is_some_and(|line| line.starts_with("{\"stage1_pid\":")), stages);
        }
    }

    #[test]
    fn plan_of_unprivileged_user_fails_as_the_start_would() {
        let plan = plan(&prepared(CloneFlags::NEWNET), &Assumptions::ordinary(1000)).unwrap();
        assert!(!plan.succeeds);
        assert!(plan.log.iter().any(|record| {
            record.contains("failed to unshare remaining namespaces: Operation not permitted")
        }));
    }

    fn of_runc(manner: Manner) -> Start {
        let mut message = vec![0; 1024];
        let bootstrap = Bootstrap::new(CloneFlags::NEWNET);
        let len = encode(&bootstrap, &Dialect::V1_2, &mut message).unwrap();
        message.truncate(len);
        Start::Runc { message, manner, policy: Policy::runc(&Dialect::V1_2) }
    }

    /// The rules report no step of runc itself. The simulated runc does not kill a process that it has
    /// reaped.
    #[test]
    fn failing_start_by_a_runtime_follows_every_rule() {
        for manner in [Manner::Init, Manner::Exec] {
            let plan = plan(&of_runc(manner), &Assumptions::ordinary(1000)).unwrap();
            let breaches: Vec<_> =
                plan.findings.iter().filter(|found| found.severity == rules::Severity::Breach).collect();
            assert!(!plan.succeeds && breaches.is_empty(), "{manner:?}: {breaches:?}");
        }
    }

    /// Plans a launch that joins a namespace, and drops its groups if it may.
    fn joining(path: &CStr, assumptions: &Assumptions) -> Plan {
        let paths = NsPaths::parse(path.to_bytes(), NsSet::ALL).unwrap();
        let policy = Policy::runc(&Dialect::V1_2)
            .with_credentials(Credentials::Root)
            .with_setgroups(Setgroups::DropIfAllowed);
        let message = Bootstrap::new(CloneFlags::EMPTY).with_namespaces(paths);
        let mut launcher = Launcher::new(&message, policy).unwrap();
        plan(&Start::Launcher(launcher.command("/bin/true", [""; 0]).prepare().unwrap()), assumptions)
            .unwrap()
    }

    fn answer(plan: &Plan, call: &str) -> String {
        let lines = plan.run.sections.iter().flat_map(|section| &section.lines);
        let found = lines.map(ToString::to_string).find(|line| line.starts_with(call));
        found.and_then(|line| line.split_once(" = ").map(|(_, reply)| reply.to_string())).unwrap_or_default()
    }

    #[test]
    fn joined_user_namespace_decides_which_steps_succeed() {
        let with = |change: &dyn Fn(&mut JoinedUser)| {
            let mut user = JoinedUser::made_by(1000, 100);
            change(&mut user);
            joining(c"user:/u", &Assumptions { joined_user: Some(user), ..Assumptions::root() })
        };
        let denied = with(&|_| {});
        assert!(denied.succeeds && answer(&denied, "setgroups").starts_with("-1 EPERM"), "{:?}", denied.log);
        assert!(denied.assumptions.contains(&("setgroups in it".to_string(), "denied".to_string())));
        assert!(
            denied.assumptions.contains(&("group ids in it".to_string(), "0 100 1".to_string())),
            "{denied:?}"
        );
        let allowed = with(&|user| user.setgroups = true);
        assert!(allowed.succeeds && answer(&allowed, "setgroups") == "0", "{:?}", allowed.log);
        assert_ne!(allowed.hash, denied.hash);
        let unmapped = with(&|user| (user.users, user.groups) = (Vec::new(), Vec::new()));
        assert!(!unmapped.succeeds && answer(&unmapped, "setresuid").starts_with("-1 EINVAL"));
        // An invalid map cannot have been written, so it counts as no map.
        let nonsense = with(&|user| user.users.push(Extent { inside: 0, outside: 7, count: 0 }));
        assert_eq!(answer(&nonsense, "setresuid"), answer(&unmapped, "setresuid"));
        // The default depends on the caller: root's namespace allows setgroups, an ordinary user's denies it.
        assert_eq!(answer(&joining(c"user:/u", &Assumptions::root()), "setgroups"), "0");
        let own = joining(c"user:/u", &Assumptions::ordinary(1000));
        assert!(own.succeeds && answer(&own, "setgroups").starts_with("-1 EPERM"), "{:?}", own.log);
        // A namespace of another user, over which the caller has no privilege.
        let foreign =
            Assumptions { joined_user: Some(JoinedUser::made_by(7, 7)), ..Assumptions::ordinary(1000) };
        assert!(answer(&joining(c"user:/u", &foreign), "setns").starts_with("-1 EPERM"));
    }

    #[test]
    fn mount_namespace_is_joined_only_from_a_sealed_copy() {
        let file = |plan: &Plan| {
            let mut lines = plan.assumptions.iter();
            lines.find(|(key, _)| key == "this program runs from").map(|(_, value)| value.clone())
        };
        let sealed = joining(c"mnt:/m", &Assumptions::root());
        assert!(sealed.succeeds && sealed.findings.is_empty(), "{:?}", sealed.findings);
        assert_eq!(file(&sealed).as_deref(), Some("a sealed copy of itself"));
        let bare = joining(c"mnt:/m", &Assumptions { sealed: false, ..Assumptions::root() });
        assert!(!bare.succeeds && bare.run.sections.len() == 1, "{:?}", bare.run);
        assert_eq!(file(&bare).as_deref(), Some("a file that can be written to"));
        assert_ne!(bare.hash, sealed.hash);
        // No other plan depends on it.
        let other = joining(c"net:/n", &Assumptions { sealed: false, ..Assumptions::root() });
        assert!(other.succeeds && file(&other).is_none(), "{:?}", other.log);
    }

    #[test]
    fn wrong_path_to_join_is_a_planned_failure() {
        for (wrong_path, call, reply) in [
            (WrongPath::Missing, "openat(AT_FDCWD, \"/x/n\"", "-1 ENOENT"),
            (WrongPath::BelowFile, "openat(AT_FDCWD, \"/x/n\"", "-1 ENOTDIR"),
            (WrongPath::Forbidden, "openat(AT_FDCWD, \"/x/n\"", "-1 EACCES"),
            (WrongPath::NotPermitted, "openat(AT_FDCWD, \"/x/n\"", "-1 EPERM"),
            (WrongPath::Fifo, "fstatfs", "{f_type=0x1021994"),
            (WrongPath::OtherKind, "setns", "-1 EINVAL"),
            (WrongPath::Own, "setns", "-1 EINVAL"),
        ] {
            let assumptions =
                Assumptions { wrong_path: [(NsKind::User, wrong_path)].into(), ..Assumptions::root() };
            let plan = joining(c"user:/x/n", &assumptions);
            assert!(!plan.succeeds, "{wrong_path:?}");
            let lines = plan.run.sections.iter().flat_map(|section| &section.lines);
            let found =
                lines.map(ToString::to_string).any(|line| line.starts_with(call) && line.contains(reply));
            assert!(found, "{wrong_path:?}: {:?}", plan.log);
            assert!(
                plan.assumptions
                    .contains(&("user namespace to join".to_string(), wrong_path.words().to_string()))
            );
        }
        let own = Assumptions { wrong_path: [(NsKind::Net, WrongPath::Own)].into(), ..Assumptions::root() };
        assert!(joining(c"net:/proc/self/ns/net", &own).succeeds);
    }

    #[test]
    fn path_to_join_may_be_relative() {
        for message in [c"net:n", c"net:./a/n", c"net:../a//n", c"net:a/../../b/./n"] {
            assert!(joining(message, &Assumptions::root()).succeeds, "{message:?}");
        }
        for wrong in [WrongPath::Missing, WrongPath::BelowFile, WrongPath::Fifo] {
            let wrong_path = [(NsKind::Net, wrong)].into();
            assert!(!joining(c"net:./a/n", &Assumptions { wrong_path, ..Assumptions::root() }).succeeds);
        }
    }

    #[test]
    fn file_listed_for_two_kinds_has_its_real_kind() {
        let wrong_path = [(NsKind::Time, WrongPath::OtherKind)].into();
        let plan = joining(c"ipc:/x,time:/x", &Assumptions { wrong_path, ..Assumptions::root() });
        assert!(plan.log.iter().any(|record| record.contains("setns into time namespace")), "{:?}", plan.log);
    }

    #[test]
    fn command_search_fails_at_refused_files() {
        let search = |refused: &[(&str, Refused)], command: Option<&str>| {
            let refused = refused.iter().map(|(path, why)| (path.as_bytes().to_vec(), *why)).collect();
            let command = command.map(|path| path.as_bytes().to_vec());
            let plan =
                plan(&prepared(CloneFlags::EMPTY), &Assumptions { refused, command, ..Assumptions::root() });
            answer(&plan.unwrap(), "execve")
        };
        assert_eq!(search(&[], None), "0");
        assert!(search(&[], Some("")).starts_with("-1 ENOENT"));
        for (why, errno) in [
            (Refused::NotExecutable, "EACCES"),
            (Refused::Hidden, "EACCES"),
            (Refused::NotPermitted, "EPERM"),
            (Refused::BelowFile, "ENOTDIR"),
        ] {
            assert!(search(&[("/bin/true", why)], None).starts_with(&format!("-1 {errno}")), "{why:?}");
        }
    }

    /// A file was refused at an absolute path of the caller's root directory only.
    #[test]
    fn search_is_refused_at_relative_paths_and_below_another_root() {
        for (root, path) in [(None, "./script"), (None, "a/../script"), (Some("/srv"), "/script")] {
            let mut command = nsexec::launch::Command::new(path);
            command.unshare([NsKind::User, NsKind::Mnt]).map_root();
            if let Some(root) = root {
                command.root(root);
            }
            let start = Start::Launcher(command.launcher().unwrap().prepare().unwrap());
            let caller = match std::fs::metadata("/proc/self").unwrap().uid() {
                0 => Assumptions::root(),
                uid => Assumptions::ordinary(uid),
            };
            for (why, answers) in
                [(Refused::NotExecutable, "-1 EACCES"), (Refused::UnknownFormat, "-1 ENOEXEC")]
            {
                let refused = [(path.as_bytes().to_vec(), why)].into();
                let plan = plan(&start, &Assumptions { refused, ..caller.clone() }).unwrap();
                assert!(
                    answer(&plan, "execve").starts_with(answers),
                    "{root:?} {path} {why:?}: {:?}",
                    plan.log
                );
                assert_eq!(plan.succeeds, why == Refused::UnknownFormat, "{root:?} {path}");
            }
        }
    }

    #[test]
    fn root_directory_is_planned() {
        let mut command = nsexec::launch::Command::new("/bin/tool");
        command.unshare([NsKind::User, NsKind::Mnt, NsKind::Pid]).map_root();
        command.root_empty().bind_read_only("/usr", "/usr").proc("/proc").dev("/dev").current_dir("/usr");
        command.bind_read_only("/etc/passwd", "/bin/tool");
        let start = |command: &nsexec::launch::Command| {
            Start::Launcher(command.launcher().unwrap().prepare().unwrap())
        };
        // The map is that of the test's own user.
        let caller = match std::fs::metadata("/proc/self").unwrap().uid() {
            0 => Assumptions::root(),
            uid => Assumptions::ordinary(uid),
        };
        let with_file = Assumptions { files: [b"/etc/passwd".to_vec()].into(), ..caller };
        let planned = plan(&start(&command), &with_file).unwrap();
        assert!(planned.succeeds, "{:?}", planned.log);
        assert_eq!(answer(&planned, "pivot_root"), "0");
        let other = plan(&start(command.tmpfs("/tmp")), &with_file).unwrap();
        assert_ne!(planned.hash, other.hash);
    }

    #[test]
    fn tool_without_set_user_id_bit_maps_nothing() {
        let map = IdMap::parse(c"0 1000 1\n1 100000 65536\n").unwrap();
        let message = Bootstrap::new(CloneFlags::NEWUSER)
            .with_rootless_euid(true)
            .with_uid_map(map)
            .with_gid_map(map)
            .with_setgroup(true)
            .with_uidmap_path(c"/usr/bin/newuidmap")
            .with_gidmap_path(c"/usr/bin/newgidmap");
        let policy = Policy::runc(&Dialect::V1_2).with_credentials(Credentials::Root);
        let mut launcher = Launcher::new(&message, policy).unwrap();
        let start = Start::Launcher(launcher.command("/bin/true", [""; 0]).prepare().unwrap());
        let with = |no_new_privs| {
            let range = Some((100_000, 65_536));
            let ordinary = Assumptions { subuid: range, subgid: range, ..Assumptions::ordinary(1000) };
            plan(&start, &Assumptions { no_new_privs, ..ordinary }).unwrap()
        };
        let (whole, without) = (with(false), with(true));
        assert!(whole.succeeds && !without.succeeds, "{:?} {:?}", whole.log, without.log);
        assert!(without.log.iter().any(|record| record.contains("newuid map")), "{:?}", without.log);
        assert_ne!(whole.hash, without.hash);
    }

    #[test]
    fn uptime_limits_clock_offsets_and_is_not_hashed() {
        let back = TimeOffsets::parse(c"monotonic -5000 0\n").unwrap();
        let message = Bootstrap::new(CloneFlags::NEWTIME).with_timens_offsets(back);
        let mut launcher = Launcher::new(&message, Policy::runc(&Dialect::V1_2)).unwrap();
        let start = Start::Launcher(launcher.command("/bin/true", [""; 0]).prepare().unwrap());
        let after = |uptime| plan(&start, &Assumptions { uptime, ..Assumptions::root() }).unwrap();
        assert!(after(5000).succeeds && !after(4999).succeeds);
        assert_eq!(after(5000).hash, after(4999).hash);
        assert!(after(5000).assumptions.contains(&("up since".to_string(), "5000 seconds".to_string())));
    }

    #[test]
    fn plan_hash_covers_request_and_assumptions_only() {
        let hash = |start: &Start, assumptions: &Assumptions| plan(start, assumptions).unwrap().hash;
        let (net, root) = (prepared(CloneFlags::NEWNET), Assumptions::root());
        let one = hash(&net, &root);
        let newer = Assumptions {
            kernel: Kernel { major: 7, minor: 0 },
            command: Some(b"/x".to_vec()),
            ..root.clone()
        };
        assert_eq!(one, hash(&net, &newer));
        assert_ne!(one, hash(&prepared(CloneFlags::NEWUTS), &root));
        assert_ne!(one, hash(&net, &Assumptions::ordinary(1000)));
        let mut launcher =
            Launcher::new(&Bootstrap::new(CloneFlags::NEWNET), Policy::runc(&Dialect::V1_2)).unwrap();
        let mut of = |words: &[&str]| {
            let prepared = launcher.command("/bin/true", words).prepare().unwrap();
            hash(&Start::Launcher(prepared), &root)
        };
        assert_eq!(of(&[]), one);
        let others = [of(&["a", "b"]), of(&["a b"]), of(&["a", "", "b"]), one.clone()];
        assert_eq!(others.iter().collect::<std::collections::BTreeSet<_>>().len(), others.len());
        assert_eq!(one.len(), 64);
        let (init, exec) = (of_runc(Manner::Init), of_runc(Manner::Exec));
        assert_ne!(hash(&init, &root), hash(&exec, &root));
    }
}
