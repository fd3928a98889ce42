//! The tries: launches of a command that cannot be executed, because it is a directory. If a launch fails
//! only at its exec, all steps before the exec have succeeded.

use std::format;
use std::io;
use std::string::{String, ToString};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::vec::Vec;

use super::report::Question;
use crate::deciders::idmap::Extent;
use crate::deciders::namespace::NsKind;
use crate::launch::causes::{Facts, mount_point};
use crate::launch::query::unshare_invalid_flags;
use crate::launch::subordinate::{Mapping, Side};
use crate::launch::surroundings::CodeOfCaller;
use crate::launch::{Command, LaunchError};
use crate::sys::types::{Capability, Errno};
use crate::words::error::Code;

/// The time limit of each launch.
const LIMIT: Duration = Duration::from_secs(10);

/// The result of a try whose mapping tool has no privileges. The tool is not run, because it would write its
/// error to this program's standard error.
const POWERLESS: Outcome = Outcome::NotTried("the mapping tool has no privileges");

/// The result of a try of a caller whose own id is not mapped.
const UNMAPPED: Outcome = Outcome::NotTried("the caller's own id is not mapped");

/// The result of a try of a root that lacks CAP_SETUID or CAP_SETGID. The launcher would run a mapping tool,
/// which writes its error to this program's standard error.
const POWERLESS_ROOT: Outcome = Outcome::NotTried("this root lacks a capability to map ids");

/// The results of all tries.
#[derive(Clone, Debug, Default)]
pub(super) struct Tries {
    pub(super) all: Vec<Try>,
    /// The errno of unshare(2) with flags that the kernel refuses with `EINVAL`. Another errno comes from a
    /// seccomp filter; `ENOSYS` also stands for a filter that ends the process. `None`: the launch failed at
    /// another step.
    pub(super) invalid_flags: Option<Errno>,
}

/// One try of a question.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Try {
    pub(super) question: Question,
    /// Whether a new user namespace was part of it.
    pub(super) with_user: bool,
    pub(super) result: Outcome,
}

/// The result of one try.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    /// Everything before the exec succeeded.
    Works,
    /// A step has failed.
    Failed {
        /// The step and the error of its call, if a process of the launch has reported them.
        step: Option<(Code, Option<Errno>)>,
        /// A signal that a seccomp filter sends has ended a process of the launch (SIGSYS).
        killed_by_filter: bool,
        /// The error in words.
        text: String,
    },
    /// It was not tried, for this reason.
    NotTried(&'static str),
}

impl Outcome {
    fn of(error: &LaunchError) -> Self {
        let killed_by_filter = error.is_killed_by_filter();
        match error {
            LaunchError::Exec { .. } => Self::Works,
            _ => Self::Failed { step: error.step(), killed_by_filter, text: error.to_string() },
        }
    }
}

/// Makes all tries, one after the other.
pub(super) fn run(facts: &Facts) -> Tries {
    let mut all = Vec::new();
    for question in Question::all() {
        for with_user in [false, true] {
            if let Some(result) = attempt(facts, question, with_user) {
                all.push(Try { question, with_user, result });
            }
        }
    }
    Tries { all, invalid_flags: invalid_flags() }
}

/// Makes one try. `None`: the question has no such try.
fn attempt(facts: &Facts, question: Question, with_user: bool) -> Option<Outcome> {
    use NsKind::{Mnt, Pid, User};
    let mut command = new();
    if with_user {
        command.unshare([User]);
        map_others(facts, &mut command);
    }
    match question {
        // A user namespace is never created or mapped without itself.
        Question::Create(User)
        | Question::Join(User)
        | Question::MapOneId
        | Question::MapUserIds
        | Question::MapGroupIds
            if !with_user =>
        {
            return None;
        }
        Question::Join(kind) => return Some(join(facts, kind, with_user)),
        Question::Create(Mnt) => command.unshare([Mnt]).propagation(None),
        Question::Create(kind) => command.unshare([kind]),
        Question::MapOneId => command.map_root(),
        Question::MapUserIds if facts.users.is_unmapped() => return Some(UNMAPPED),
        Question::MapGroupIds if facts.groups.is_unmapped() => return Some(UNMAPPED),
        Question::MapUserIds | Question::MapGroupIds if is_powerless_root(facts) => {
            return Some(POWERLESS_ROOT);
        }
        Question::MapUserIds if facts.powerless(Side::Users).is_some() => return Some(POWERLESS),
        Question::MapGroupIds if facts.powerless(Side::Groups).is_some() => return Some(POWERLESS),
        Question::MapUserIds => {
            command.groups = Some(Mapping::Root);
            command.users = Some(ranges(facts, Side::Users)?);
            &mut command
        }
        Question::MapGroupIds => {
            command.users = others_of_root(facts, Side::Users).or(Some(Mapping::Root));
            command.groups = Some(ranges(facts, Side::Groups)?);
            &mut command
        }
        Question::Mount | Question::MountProc => match (question, mount_point()) {
            (_, None) => return Some(Outcome::NotTried("no directory of /tmp, /mnt, /proc and /dev exists")),
            (Question::Mount, Some(point)) => command.unshare([Mnt]).tmpfs(point),
            // The directory /proc may be empty: the try does not need a mounted procfs there.
            _ => command.unshare([Mnt, Pid]).proc("/proc"),
        },
    };
    Some(launch(&mut command))
}

/// Returns the ranges that a map of many ids has. A user has those of /etc/subuid or /etc/subgid; root needs
/// no permission of these files. Returns `None` if no other id is mapped.
fn ranges(facts: &Facts, side: Side) -> Option<Mapping> {
    if facts.vantage.uid != 0 {
        return Some(Mapping::Auto);
    }
    if let Some(others) = others_of_root(facts, side).filter(|_| side == Side::Users) {
        return Some(others);
    }
    let ids = facts.side(side);
    let own = Extent { inside: 0, outside: ids.own, count: 1 };
    Some(Mapping::Ranges(core::iter::once(own).chain(ids.others()?).collect()))
}

/// Returns whether this process is root without CAP_SETUID or CAP_SETGID, and so cannot map ranges.
pub(super) fn is_powerless_root(facts: &Facts) -> bool {
    let lacks = |side: Side| !facts.has_capability(side.capability());
    facts.vantage.uid == 0 && (lacks(Side::Users) || lacks(Side::Groups))
}

/// Returns a map of other ids than the caller's own, if this process is root without CAP_SETFCAP. The kernel
/// lets no such process map the user id 0 (user_namespaces(7), since Linux 5.12).
fn others_of_root(facts: &Facts, side: Side) -> Option<Mapping> {
    let is_restricted = facts.vantage.uid == 0 && !facts.has_capability(Capability::SETFCAP);
    if !is_restricted || is_powerless_root(facts) {
        return None;
    }
    let mut inside = 0;
    let from_zero = |other: Extent| {
        let first = inside;
        inside += other.count;
        Extent { inside: first, ..other }
    };
    Some(Mapping::Ranges(facts.side(side).others()?.into_iter().map(from_zero).collect()))
}

/// Maps other ids than the caller's own, if only these work.
fn map_others(facts: &Facts, command: &mut Command) {
    if let (Some(users), Some(groups)) =
        (others_of_root(facts, Side::Users), others_of_root(facts, Side::Groups))
    {
        (command.users, command.groups) = (Some(users), Some(groups));
    }
}

/// Creates a namespace, and joins it from another launch while its process waits.
fn join(facts: &Facts, kind: NsKind, with_user: bool) -> Outcome {
    let mut holder = new();
    holder.unshare([kind]).propagation(None);
    if with_user {
        holder.unshare([NsKind::User]);
        map_others(facts, &mut holder);
    }
    if kind != NsKind::Mnt {
        holder.sets_propagation = false;
    }
    let joined = Arc::new(Mutex::new(None));
    let result = Arc::clone(&joined);
    holder.before_start(move |starting| {
        let mut command = new();
        // The namespace is our own, and no other process is in it.
        command.trust_mount_namespace();
        if with_user && kind != NsKind::User {
            command.join_fd(NsKind::User, starting.namespace(NsKind::User)?);
        }
        command.join_fd(kind, starting.namespace(kind)?);
        let outcome = launch(&mut command);
        *result.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
        Ok(())
    });
    let holding = launch_as_it_is(&mut holder);
    let joined = joined.lock().unwrap_or_else(PoisonError::into_inner).take();
    match (joined, holding) {
        (Some(outcome), _) => outcome,
        (None, Outcome::Failed { step: None, text, .. }) if text.contains("/proc") => {
            Outcome::Failed { step: None, killed_by_filter: false, text }
        }
        (None, _) if facts.proc.is_own == Some(false) => Outcome::NotTried(
            "/proc is missing, or shows another pid namespace, so the namespaces of a process (/proc/PID/ns) cannot be opened",
        ),
        (None, _) => Outcome::NotTried("no namespace of this kind could be created for the try"),
    }
}

/// Returns a command whose exec fails: `/` is a directory (`EACCES`, execve(2)).
fn new() -> Command {
    let mut command = Command::new("/");
    command.env_clear().timeout(LIMIT);
    command
}

/// Launches a command through the stages: a filter that kills for a clone(2) or unshare(2) then ends a stage,
/// not this process.
fn launch(command: &mut Command) -> Outcome {
    command.before_start(|_| Ok(()));
    launch_as_it_is(command)
}

fn launch_as_it_is(command: &mut Command) -> Outcome {
    match command.spawn() {
        Err(error) => Outcome::of(&error),
        // A directory cannot be executed.
        Ok(mut child) => {
            let ended = child.kill().and_then(|()| child.wait().map(drop));
            ended.map_or_else(|error: io::Error| failed(&error), |()| Outcome::Works)
        }
    }
}

fn failed(error: &io::Error) -> Outcome {
    Outcome::Failed { step: None, killed_by_filter: false, text: format!("the launch: {error}") }
}

/// Returns the errno of an unshare(2) with invalid flags, in a process of its own: a filter may kill for it.
fn invalid_flags() -> Option<Errno> {
    let mut command = new();
    command.around.hooks.push(CodeOfCaller(Arc::new(unshare_invalid_flags)));
    match launch(&mut command) {
        // A launch without namespaces calls unshare(2) without flags, which the kernel never refuses.
        Outcome::Failed { step: Some((Code::CodeOfCaller | Code::UnshareRemaining, errno)), .. } => errno,
        Outcome::Failed { killed_by_filter: true, .. } => Some(Errno::ENOSYS),
        _ => None,
    }
}
