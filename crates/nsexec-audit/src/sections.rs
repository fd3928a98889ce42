//! Derives the role of each process from its parent and the call that created it. Nothing is read from the
//! process itself.

use std::string::String;
use std::vec::Vec;

use std::format;

use super::transcript::{End, Origin, Role, Run, Section};
use crate::record::shared::SharedLines;
use crate::record::{Call, Line, Reply};
use crate::sim;
use nsexec::bootstrap::text::is_invisible;
use nsexec::sys::types::{Pid, Waited};

/// The role of the init of a direct start that the launcher gave up for the stages. Stage 2 then becomes the
/// command.
pub const GIVEN_UP: Role = Role::Other(0);

/// Returns whether the launcher gave up a direct start: it created an init, and then stage 0.
fn gives_up(launcher: &[Line]) -> bool {
    let mut created = launcher.iter().filter(|line| line.reply.child().is_some()).map(|line| &line.call);
    created.any(|call| matches!(call, Call::CloneInit { .. }))
        && created.any(|call| matches!(call, Call::Fork { .. }))
}

/// Sorts the shared sink's content into sections. `root` is the role of the process that created the sink:
/// the launcher, or stage 0 if the launcher is another program.
#[must_use]
pub fn of_record(record: &SharedLines, root: Role) -> Run {
    let mut run = Run { origin: Origin::Recorded, lost: record.lost, ..Run::default() };
    // A parent's lineage is shorter than its child's, so it comes first.
    let mut processes: Vec<_> = record.processes.iter().collect();
    processes.sort_by_key(|process| (process.lineage.len(), process.lineage.clone()));
    let given_up = processes.first().is_some_and(|first| root == Role::Launcher && gives_up(&first.lines));
    let mut roles: Vec<(&[u32], Role)> = Vec::new();
    let mut tools = 0_u8;
    let mut others = u8::from(given_up);
    for process in processes {
        let role = match process.lineage.split_last() {
            None => Some(root),
            Some((nth, parent)) => {
                let role = roles.iter().find(|(lineage, _)| *lineage == parent);
                let made_by = clone_of(record, &process.lines, parent, *nth);
                role.zip(made_by).and_then(|((_, parent), call)| match (parent, call) {
                    (Role::Launcher, Call::CloneInit { .. }) if given_up => Some(GIVEN_UP),
                    _ => parent.creates(call, tools),
                })
            }
        };
        let role = role.unwrap_or(Role::Other(others));
        match role {
            Role::Tool(_) => tools = tools.saturating_add(1),
            Role::Other(_) if role != GIVEN_UP || !given_up => others = others.saturating_add(1),
            _ => {}
        }
        roles.push((&process.lineage, role));
        let mut section = Section::new(role);
        for line in &process.lines {
            section.push(line.clone());
        }
        run.sections.push(section);
    }
    finish(&mut run);
    run
}

/// Returns the run of the simulated kernel.
#[must_use]
pub fn of_report(report: &sim::Report) -> Run {
    let mut run = Run { origin: Origin::Planned, ..Run::default() };
    let launcher = report.processes.iter().find(|process| process.role == Role::Launcher);
    let given_up = launcher.is_some_and(|launcher| gives_up(&launcher.transcript.lines));
    for process in &report.processes {
        // The simulated kernel gives a role when a process begins. It gives that of stage 2 once.
        let created_by = process.transcript.lines.first().filter(|line| line.reply == Reply::Child);
        let role = match (process.role, created_by.map(|line| &line.call)) {
            (Role::Stage(2), Some(Call::CloneInit { .. })) if given_up => GIVEN_UP,
            (GIVEN_UP, Some(Call::CloneSibling { .. })) if given_up => Role::Stage(2),
            (role, _) => role,
        };
        let mut section = Section::new(role);
        // After an exec, the calls belong to another program. A runtime's stage 0 is the exception: it
        // executes itself.
        let lines = &process.transcript.lines;
        let executed = lines
            .windows(2)
            .position(|pair| pair[0].reply == Reply::NoReturn && pair[0].call != pair[1].call);
        let last = executed.filter(|_| section.role != Role::Stage(0)).map_or(lines.len(), |at| at + 1);
        for line in &lines[..last] {
            section.push(line.clone());
        }
        section.end = match process.end {
            sim::FinalState::Exited(status) => End::Exited(status),
            sim::FinalState::Signaled(signal) => End::Signaled(signal),
            sim::FinalState::HandedOver => End::HandedOver,
            sim::FinalState::Stays
            | sim::FinalState::Stopped
            | sim::FinalState::Stuck(_)
            | sim::FinalState::Running => End::Unknown,
        };
        run.sections.push(section);
    }
    finish(&mut run);
    run
}

/// Returns the call that created a process: its own first line, or its parent's if that was lost.
fn clone_of<'r>(record: &'r SharedLines, own: &'r [Line], parent: &[u32], nth: u32) -> Option<&'r Call> {
    let own = own.first().filter(|line| line.reply == Reply::Child);
    let parent = record.processes.iter().find(|process| process.lineage == parent);
    let mut made = parent.into_iter().flat_map(|parent| &parent.lines);
    let nth = usize::try_from(nth).ok()?;
    own.or_else(|| made.by_ref().filter(|line| line.reply.child().is_some()).nth(nth)).map(|line| &line.call)
}

/// Sorts the sections, names the mapping tools, and finds the end of each process.
pub fn finish(run: &mut Run) {
    run.sections.sort_by_key(|section| section.role);
    let pids = pids(run);
    let given_up = run.section(Role::Launcher).is_some_and(|launcher| gives_up(&launcher.lines));
    let waited: Vec<Waited> = run
        .sections
        .iter()
        .flat_map(|section| &section.lines)
        .filter_map(|line| if let Reply::Waited(waited) = line.reply { Some(waited) } else { None })
        .collect();
    for section in &mut run.sections {
        if let Some(tool) = matches!(section.role, Role::Tool(_)).then(|| executed(&section.lines)).flatten()
        {
            section.name = format!("{} ({tool})", section.role);
        }
        if given_up && section.role == GIVEN_UP {
            section.name = "init, given up".into();
        }
        if section.end != End::Unknown {
            continue;
        }
        let pid = pids.iter().find(|(role, _)| *role == section.role).map(|(_, pid)| *pid);
        if let Some(waited) = waited.iter().find(|waited| Some(waited.pid) == pid) {
            section.end = waited.status.into();
        } else if section.lines.last().is_some_and(|line| line.reply == Reply::NoReturn) {
            section.end = End::Executed;
        }
    }
}

/// Returns the base name of the program that a process executed, or tried to.
fn executed(lines: &[Line]) -> Option<String> {
    lines.iter().rev().find_map(|line| match &line.call {
        Call::Execve { path, .. } => {
            let name = path.0.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
            // The name comes from the message, so it may contain control characters.
            Some(
                String::from_utf8_lossy(name)
                    .chars()
                    .map(|c| if is_invisible(c) { '?' } else { c })
                    .collect(),
            )
        }
        _ => None,
    })
}

/// Returns the children that a section created: the line's index, the role, and the pid as the section saw
/// it.
#[must_use]
pub fn children(section: &Section) -> Vec<(usize, Role, Pid)> {
    children_of(section.role, &section.lines)
}

/// Returns the children that a process of this role created in these lines, as [`children`] does.
pub(crate) fn children_of(parent: Role, lines: &[Line]) -> Vec<(usize, Role, Pid)> {
    let mut forks = 0_u8;
    let mut children = Vec::new();
    let given_up = parent == Role::Launcher && gives_up(lines);
    for (index, line) in lines.iter().enumerate() {
        let Some(pid) = line.reply.child() else { continue };
        let role = match line.call {
            Call::CloneInit { .. } if given_up => Some(GIVEN_UP),
            _ => parent.creates(&line.call, forks),
        };
        if let Some(role) = role {
            children.push((index, role, pid));
            forks = forks.saturating_add(u8::from(matches!(role, Role::Tool(_))));
        }
    }
    children
}

/// Returns whether the launcher itself created the process of this role, as its own lines or the first line
/// of that process show.
pub(crate) fn is_made_by_launcher(run: &Run, role: Role) -> bool {
    let is_clone = |line: &Line| {
        matches!(line.call, Call::CloneChild { .. } | Call::CloneInit { .. }) && line.reply == Reply::Child
    };
    let of_launcher = run.section(Role::Launcher).map(children).unwrap_or_default();
    of_launcher.iter().any(|(_, of, _)| *of == role)
        || run.section(role).and_then(|section| section.lines.first()).is_some_and(is_clone)
}

/// Returns the pid of each process, as its parent saw it. The first process has none.
#[must_use]
pub fn pids(run: &Run) -> Vec<(Role, Pid)> {
    let made = run.sections.iter().flat_map(children);
    made.map(|(_, role, pid)| (role, pid)).collect()
}

/// One line and its position.
#[derive(Clone, Copy, Debug)]
pub struct Site<'r> {
    /// The process.
    pub section: &'r Section,
    /// The index of the line.
    pub index: usize,
    /// The line.
    pub line: &'r Line,
}

/// Walks over all lines with a state that a fork copies, as the kernel does with descriptors and credentials.
/// Each process starts with its parent's state at the clone. Returns the state at the end of each process.
///
/// A parent that died in its clone has no line of it. Then the child starts with the parent's last state.
pub fn inherit<'r, T: Clone>(
    run: &'r Run,
    start: &T,
    mut step: impl FnMut(&mut T, Site<'r>),
) -> Vec<(Role, T)> {
    let mut ends: Vec<(Role, T)> = Vec::new();
    let mut at_birth: Vec<(Role, T)> = Vec::new();
    // The sections are sorted by role, so parents come first.
    for section in &run.sections {
        let known = |states: &[(Role, T)], role| {
            states.iter().find(|(of, _)| *of == role).map(|(_, state)| state.clone())
        };
        let parent = match section.role {
            Role::Stage(number @ 1..) => {
                known(&ends, Role::Stage(number - 1)).or_else(|| known(&ends, Role::Launcher))
            }
            // In a start in place the rules check the launcher as stage 1, before its helper.
            Role::Stage(_) => known(&ends, Role::Launcher).or_else(|| known(&ends, Role::Stage(1))),
            Role::Tool(_) => known(&ends, Role::Stage(0)),
            Role::Launcher | Role::Other(_) => None,
        };
        let mut state = known(&at_birth, section.role).or(parent).unwrap_or_else(|| start.clone());
        let children = children(section);
        for (index, line) in section.lines.iter().enumerate() {
            if let Some((_, role, _)) = children.iter().find(|(at, ..)| *at == index) {
                at_birth.push((*role, state.clone()));
            }
            step(&mut state, Site { section, index, line });
        }
        ends.push((section.role, state));
    }
    ends
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::shared::ProcessLines;
    use nsexec::sys::types::{ExitSignal, WaitFor, WaitStatus};
    use std::string::ToString;
    use std::vec;

    const SIBLING: Call = Call::CloneSibling { tid: None };

    fn line(call: Call, reply: Reply) -> Line {
        Line { call, reply }
    }

    fn process(lineage: &[u32], lines: Vec<Line>) -> ProcessLines {
        ProcessLines { lineage: lineage.into(), lines }
    }

    fn tool(path: &str) -> Vec<Line> {
        let call = Call::Execve { path: path.as_bytes().into(), argv: Vec::new(), envp: Vec::new() };
        let fork = Call::Fork { exit: ExitSignal::Chld, tid: None };
        vec![line(fork, Reply::Child), line(call, Reply::NoReturn)]
    }

    /// Returns a record of a launcher, stage 0 with stage 1 and two tools, and stage 2.
    fn record() -> SharedLines {
        let none = Call::Fork { exit: ExitSignal::None, tid: None };
        let chld = Call::Fork { exit: ExitSignal::Chld, tid: None };
        let wait = Call::Wait4 { pid: Pid(11), which: WaitFor::Stages };
        let waited = Reply::Waited(Waited { pid: Pid(11), status: WaitStatus::Exited(1) });
        let processes = vec![
            process(&[], vec![line(none.clone(), Reply::Parent(Pid(10))), line(wait, waited)]),
            process(
                &[0],
                vec![
                    line(none, Reply::Child),
                    line(SIBLING, Reply::Parent(Pid(11))),
                    line(chld.clone(), Reply::Parent(Pid(12))),
                    line(chld, Reply::Parent(Pid(13))),
                ],
            ),
            process(&[0, 0], vec![line(SIBLING, Reply::Child), line(SIBLING, Reply::Parent(Pid(14)))]),
            process(&[0, 0, 0], vec![line(SIBLING, Reply::Child)]),
            process(&[0, 1], tool("/usr/bin/newuidmap")),
            process(&[0, 2], tool("/usr/bin/newgidmap")),
        ];
        SharedLines { processes, lost: 0 }
    }

    #[test]
    fn roles_follow_from_the_parent_and_its_call() {
        let run = of_record(&record(), Role::Launcher);
        let names: Vec<_> = run.sections.iter().map(|section| section.name.to_string()).collect();
        assert_eq!(
            names,
            [
                "launcher",
                "stage-0 parent",
                "stage-1 child",
                "stage-2 init",
                "mapping tool (newuidmap)",
                "mapping tool (newgidmap)"
            ]
        );
        let ends: Vec<_> = run.sections.iter().map(|section| section.end).collect();
        let unknown = End::Unknown;
        assert_eq!(ends, [unknown, unknown, End::Exited(1), unknown, End::Executed, End::Executed]);
    }

    #[test]
    fn process_without_first_line_gets_role_from_its_parent() {
        let mut record = record();
        record.processes[2].lines.remove(0);
        record.processes[4].lines.remove(0);
        assert_eq!(
            of_record(&record, Role::Launcher).section(Role::Stage(1)).map(|s| s.lines.len()),
            Some(1)
        );
        assert_eq!(of_record(&record, Role::Launcher).section(Role::Tool(0)).map(|s| s.lines.len()), Some(1));
    }

    const INIT: Call =
        Call::CloneInit { namespaces: nsexec::sys::types::CloneFlags::NEWUSER, shared: false, tid: None };

    /// Returns what the launcher sees of a clone of an init.
    fn init(pid: i32) -> Line {
        line(INIT, Reply::ParentOfInit { pid: Pid(pid), pidfd: None })
    }

    #[test]
    fn init_of_a_direct_start_has_the_role_of_stage_2() {
        let killed = Reply::Waited(Waited { pid: Pid(10), status: WaitStatus::Exited(4) });
        let wait = Call::Wait4 { pid: Pid(10), which: WaitFor::Ordinary };
        let launcher = process(&[], vec![init(10), line(wait, killed)]);
        // With its own first line, and without: then the parent's line shows the call.
        for own in [vec![line(INIT, Reply::Child)], vec![line(Call::Setsid, Reply::Unit)]] {
            let record = SharedLines { processes: vec![launcher.clone(), process(&[0], own)], lost: 0 };
            let run = of_record(&record, Role::Launcher);
            let roles: Vec<_> = run.sections.iter().map(|section| (section.role, section.end)).collect();
            assert_eq!(roles, [(Role::Launcher, End::Unknown), (Role::Stage(2), End::Exited(4))]);
        }
    }

    #[test]
    fn init_that_was_given_up_is_not_stage_2() {
        let mut record = record();
        // The init is the launcher's first child, so stage 0 is its second.
        record.processes[0].lines.insert(0, init(9));
        for process in &mut record.processes[1..] {
            process.lineage[0] = 1;
        }
        record.processes.push(process(&[0], vec![line(INIT, Reply::Child)]));
        // A process that the protocol does not have.
        record.processes[1].lines.insert(1, init(20));
        record.processes.push(process(&[1, 9], vec![line(INIT, Reply::Child)]));
        let run = of_record(&record, Role::Launcher);
        let names: Vec<_> = run.sections.iter().map(|section| section.name.as_str()).collect();
        let stages = ["launcher", "stage-0 parent", "stage-1 child", "stage-2 init"];
        let others = ["mapping tool (newuidmap)", "mapping tool (newgidmap)", "init, given up", "process 1"];
        assert_eq!(names, [stages, others].concat());
        let pid_of = |role| pids(&run).into_iter().find(|(of, _)| *of == role).map(|(_, pid)| pid);
        assert_eq!((pid_of(GIVEN_UP), pid_of(Role::Stage(2))), (Some(Pid(9)), Some(Pid(14))));
        // The init has the launcher's state at its clone, and stage 2 that of the stages.
        let ends = inherit(&run, &0, |count, _| *count += 1);
        let of = |role| ends.iter().find(|(of, _)| *of == role).map(|(_, count)| *count);
        assert_eq!((of(GIVEN_UP), of(Role::Stage(0))), (Some(1), Some(1 + 5)));
    }

    #[test]
    fn child_inherits_the_parents_state_at_the_clone() {
        let run = of_record(&record(), Role::Launcher);
        let ends = inherit(&run, &0, |count, _| *count += 1);
        // Stage 1 inherits a count of one: stage 0's line before the clone.
        let of = |role| ends.iter().find(|(of, _)| *of == role).map(|(_, count)| *count);
        assert_eq!(of(Role::Stage(0)), Some(4));
        assert_eq!(of(Role::Stage(1)), Some(1 + 2));
        assert_eq!(of(Role::Stage(2)), Some(1 + 1 + 1));
        assert_eq!(of(Role::Tool(1)), Some(3 + 2));
    }
}
