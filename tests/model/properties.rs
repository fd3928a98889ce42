//! The properties, and the search through all states.

use std::collections::HashMap;

use super::protocol::{End, Message, Role, Step, Way};
use super::state::{Cause, Event, Life, Model, State, Status, is_quiet};

/// Returns the property that a state violates. `quiet`: no process but a tool can continue without a fault.
pub(crate) fn violated(model: &Model, state: &State, quiet: bool) -> Option<&'static str> {
    if state.pid_lines > 1 {
        return Some("the pid line is written at most once");
    }
    if state.pid_lines == 1 && state.life(Role::Stage2) == Life::Absent {
        return Some("the pid line is written after stage 2 exists");
    }
    let is_ready = matches!(state.life(Role::Stage0), Life::Dead(Status::Zero) | Life::Reaped(Status::Zero));
    if (is_ready || state.life(Role::Launcher) == Life::Returned(true)) && !state.ready {
        return Some("stage 0 exits with status 0 only if stage 2 is ready");
    }
    if state.roots > state.errors + state.faults.saturating_sub(state.errors) {
        return Some("a failure reports one root cause");
    }
    // Of a tool stage 0 reports the failure. The launcher returns its own error.
    let wanted = state.error_in.map(|role| if role == Role::Tool { Role::Stage0 } else { role });
    let only_error = state.faults == 1 && state.errors == 1 && !model.config.debug;
    if let Some(role) = wanted.filter(|role| only_error && *role != Role::Launcher) {
        let root = Some((role, Cause::Root));
        let given_up =
            state.life(Role::Launcher) == Life::Returned(false) && !is_silenced(model, state, role);
        if (state.first_fatal.is_some() || given_up) && state.first_fatal != root {
            return Some("the first fatal record is the root cause");
        }
    }
    if quiet { unfinished(model, state) } else { None }
}

/// Returns whether `runc run` has killed the process of an error before its record was written. After the pid
/// line it kills stage 0 if stage 2 has ended, and a failing stage 0 kills stage 2 first.
pub(crate) fn is_silenced(model: &Model, state: &State, role: Role) -> bool {
    let killed = matches!(state.life(role), Life::Dead(Status::Killed) | Life::Reaped(Status::Killed));
    model.config.way == Way::Run && role == Role::Stage0 && killed && state.first_fatal.is_none()
}

/// Returns what is wrong with a state in which nothing happens any more, unless a tool ends.
fn unfinished(model: &Model, state: &State) -> Option<&'static str> {
    let (ours, launcher) = (model.config.ours(), state.life(Role::Launcher));
    if Role::ALL.into_iter().any(|role| state.lives(role) && !waits_rightly(model, state, role, 8)) {
        return Some("no process waits for ever");
    }
    let gone = matches!(launcher, Life::Returned(_) | Life::Dead(_));
    // Without our launcher no signal reaches a stopped stage. A command may outlive the launcher, and so may
    // its process from the last steps before the exec on.
    let left = |stage: &Role| {
        let process = &state.processes[*stage as usize];
        let is_command = *stage == Role::Stage2 && state.sent_go && !process.pdeathsig;
        let stays = process.stopped && (!ours || is_command);
        state.lives(*stage) && state.life(*stage) != Life::Runs && !stays
    };
    if gone && Role::STAGES.iter().any(left) {
        return Some("no stage is left after the launcher's end");
    }
    if ours && matches!(launcher, Life::Returned(_)) {
        let reaped = |stage: &Role| matches!(state.life(*stage), Life::Absent | Life::Reaped(_));
        let started = launcher == Life::Returned(true);
        let wanted = if started { &Role::STAGES[..2] } else { &Role::STAGES[..] };
        if !wanted.iter().all(reaped) {
            return Some("the launcher reaps the stages");
        }
    }
    let tool_is_left = (matches!(state.life(Role::Tool), Life::Dead(_)) && !state.lives(Role::Stage0))
        || (state.lives(Role::Tool) && state.step(model, Role::Stage0) != Some(Step::AwaitTool));
    // Only SIGKILL to stage 0 leaves the tool alone.
    if tool_is_left
        && !matches!(state.life(Role::Stage0), Life::Dead(Status::Killed) | Life::Reaped(Status::Killed))
    {
        return Some("stage 0 ends and reaps its tool");
    }
    None
}

/// Returns whether the wait of a process can still end: along living processes it leads to a stopped process,
/// or to a tool that runs.
fn waits_rightly(model: &Model, state: &State, role: Role, depth: u8) -> bool {
    let lives =
        |other: Role| state.lives(other) && depth > 0 && waits_rightly(model, state, other, depth - 1);
    if state.processes[role as usize].stopped {
        return true;
    }
    match (state.life(role), role) {
        (Life::Runs | Life::Returned(_), _) | (Life::At(_), Role::Tool) => return true,
        (Life::AwaitsGo, _) => return lives(Role::Launcher),
        (Life::GivesUp(_), _) if model.config.ours() => return false,
        _ => {}
    }
    // A stopped process that has not yet closed its copy of an end hides the end of the peer.
    let is_stopped = |other: &Role| state.processes[*other as usize].stopped;
    // Our launcher watches stage 0 itself.
    let watches = role == Role::Launcher && model.config.ours();
    if let Some(Step::Receive(end, _)) = state.step(model, role).filter(|_| !watches) {
        if Role::ALL.iter().any(|other| is_stopped(other) && state.holds(*other, end.peer())) {
            return true;
        }
    }
    match state.step(model, role) {
        Some(Step::Receive(End::InitOfLauncher, _)) => lives(Role::Stage0),
        Some(Step::Receive(End::InitOfStages, Message::Bootstrap | Message::Go)) => {
            matches!(state.life(Role::Launcher), Life::At(_)) && lives(Role::Launcher)
        }
        Some(Step::Receive(End::ChildOf0, _)) => lives(Role::Stage1),
        Some(Step::Receive(End::ChildOf1 | End::GrandchildOf2, _)) => lives(Role::Stage0),
        Some(Step::Receive(End::GrandchildOf0, _)) => lives(Role::Stage2),
        Some(Step::AwaitTool) => {
            lives(Role::Tool) && state.lives(Role::Stage1) && state.lives(Role::Launcher)
        }
        Some(Step::Reap(stage)) => lives(stage),
        Some(Step::ReadLog) => {
            Role::STAGES.into_iter().any(|stage| state.holds(stage, End::LogWriter) && lives(stage))
        }
        _ => false,
    }
}

/// The result of a search: the number of states, and the first violation with the run that leads to it.
pub(crate) struct Found {
    pub(crate) states: usize,
    pub(crate) violation: Option<(&'static str, Vec<(Role, Event)>)>,
}

/// Visits every state, the nearest ones first. Stops at the first violation.
pub(crate) fn search(model: &Model) -> Found {
    search_for(model, violated)
}

/// Visits every state until `wanted` names one.
pub(crate) fn search_for(
    model: &Model,
    wanted: impl Fn(&Model, &State, bool) -> Option<&'static str>,
) -> Found {
    let mut numbers = HashMap::from([(State::initial(), 0)]);
    let mut states = vec![(State::initial(), None)];
    let mut at = 0;
    while let Some((state, _)) = states.get(at) {
        let state = state.clone();
        let normal = state.transitions(model);
        let quiet = is_quiet(&normal);
        if let Some(property) = wanted(model, &state, quiet) {
            let mut run = Vec::new();
            let mut back = at;
            while let Some((parent, step)) = states[back].1 {
                run.push(step);
                back = parent;
            }
            run.reverse();
            return Found { states: states.len(), violation: Some((property, run)) };
        }
        for (role, event, next) in normal.into_iter().chain(state.faults(model)) {
            assert!(next.measure() > state.measure(), "a run without end: {role:?} {event:?} in {state:#?}");
            if !numbers.contains_key(&next) {
                numbers.insert(next.clone(), states.len());
                states.push((next, Some((at, (role, event)))));
            }
        }
        at += 1;
    }
    Found { states: states.len(), violation: None }
}
