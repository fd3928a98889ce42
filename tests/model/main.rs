//! The protocol as a model: the launcher, the three stages and the mapping tool, with every order of their
//! steps and every fault. docs/protocol.md#the-protocol-as-a-model describes the properties and the bounds.
//!
//! - The properties hold in every state.
//! - Each measure against a fault is taken out once, and the search finds the fault.
//! - The model accepts the calls of the simulated kernel's processes (`traces`), and refuses changed ones.

mod faults;
mod properties;
mod protocol;
mod rules;
mod state;
mod traces;

use properties::{Found, is_silenced, search, search_for};
use protocol::End::{
    ChildOf0, ChildOf1, GrandchildOf0, GrandchildOf2, InitOfLauncher, InitOfStages, LogReader, LogWriter,
};
use protocol::Mend::{
    Close, CloseInitPipe, KillStopped, LogNeverBlocks, Pdeathsig, ReapAll, RecordBeforeEnd, ToolDescriptors,
    ToolWatchLauncher, ToolWatchStage1, WatchInitPipe, WatchStage0,
};
use protocol::Role::{Launcher, Stage0, Stage1, Stage2};
use protocol::Way::{Exec, Ours, Run};
use protocol::{Config, Mend, Role, Way};
use state::{Event, Model};

/// A start with maps, of which a tool writes one.
fn config(way: Way) -> Config {
    let (user, tools, own_maps, offsets, debug) = (true, 1, 1, false, false);
    Config { way, user, tools, own_maps, offsets, debug, faults: 2, stops: true, without: Vec::new() }
}

/// Returns the starts without a user namespace, and with 0, 1 or 2 tools; each also with time offsets, or
/// with debug records.
fn starts(way: Way) -> Vec<Config> {
    let mut all = Vec::new();
    for (user, tools) in [(false, 0), (true, 0), (true, 1), (true, 2)] {
        for (offsets, debug) in [(false, false), (false, true), (true, false)] {
            all.push(Config { user, tools, own_maps: 2 - tools, offsets, debug, ..config(way) });
        }
    }
    all
}

/// Returns a run as text, with a line for each transition.
fn shown(run: &[(Role, Event)]) -> String {
    run.iter().map(|(role, event)| format!("    {role:?}: {event:?}\n")).collect()
}

fn holds(config: Config) -> usize {
    let Found { states, violation } = search(&Model::new(config.clone()));
    if let Some((property, run)) = violation {
        panic!("violated: {property}\nby {config:?}\n{}", shown(&run));
    }
    states
}

/// Every pair of faults, in every start.
#[test]
fn properties_hold_in_every_state() {
    for way in [Ours, Run, Exec] {
        let states: usize = starts(way).into_iter().map(holds).sum();
        println!("{way:?}: {states} states of {} starts with up to 2 faults", starts(way).len());
    }
}

#[test]
fn properties_hold_with_three_faults() {
    for way in [Ours, Run] {
        println!("{way:?}: {} states with up to 3 faults", holds(Config { faults: 3, ..config(way) }));
    }
}

const NEVER_WAITS: &str = "no process waits for ever";
const NONE_LEFT: &str = "no stage is left after the launcher's end";
const REAPED: &str = "the launcher reaps the stages";
const FIRST_CAUSE: &str = "the first fatal record is the root cause";

/// The measures that are taken out, the launcher, the faults of the run that is found, and the property that
/// it violates.
type Row = (&'static [Mend], Way, &'static str, &'static str);

/// The measures without which a property is violated. In a start of our launcher a second measure protects
/// from some of the faults, so both are taken out.
const NEEDED: &[Row] = &[
    // runc: stage 1 survives the death of stage 0, since the tool holds the sync pipe.
    (&[ToolDescriptors], Run, "SIGKILL", NEVER_WAITS),
    (&[ToolDescriptors], Exec, "SIGKILL", NEVER_WAITS),
    (&[ToolDescriptors, WatchInitPipe], Ours, "an error", NEVER_WAITS),
    // runc: all stages wait for room in the log pipe.
    (&[LogNeverBlocks], Ours, "", NEVER_WAITS),
    (&[ToolWatchStage1], Ours, "SIGKILL", NEVER_WAITS),
    (&[ToolWatchStage1], Run, "SIGKILL", NEVER_WAITS),
    (&[ToolWatchLauncher], Run, "SIGSTOP, SIGKILL", NEVER_WAITS),
    (&[ToolWatchLauncher, WatchInitPipe, Pdeathsig], Ours, "SIGKILL", NEVER_WAITS),
    (&[WatchInitPipe], Run, "SIGSTOP, SIGKILL", NONE_LEFT),
    (&[WatchStage0], Ours, "SIGKILL, SIGSTOP", NEVER_WAITS),
    (&[Pdeathsig], Ours, "SIGSTOP, SIGKILL", NONE_LEFT),
    (&[KillStopped], Ours, "an error, SIGSTOP", NONE_LEFT),
    (&[CloseInitPipe], Ours, "an error", REAPED),
    (&[ReapAll], Ours, "an error", REAPED),
    (&[RecordBeforeEnd], Ours, "an error", FIRST_CAUSE),
    (&[RecordBeforeEnd], Run, "an error", FIRST_CAUSE),
    (&[Close(Launcher, InitOfStages)], Run, "SIGKILL", NEVER_WAITS),
    (&[Close(Launcher, LogWriter)], Ours, "", NEVER_WAITS),
    (&[Close(Launcher, LogWriter)], Run, "", NEVER_WAITS),
    (&[Close(Stage0, InitOfLauncher)], Ours, "SIGKILL", NEVER_WAITS),
    (&[Close(Stage0, InitOfLauncher)], Run, "SIGKILL", NEVER_WAITS),
    (&[Close(Stage0, ChildOf1)], Ours, "SIGKILL", NEVER_WAITS),
    (&[Close(Stage0, ChildOf1)], Run, "SIGKILL", NEVER_WAITS),
    (&[Close(Stage0, GrandchildOf2)], Ours, "SIGKILL", NEVER_WAITS),
    (&[Close(Stage0, GrandchildOf2)], Run, "SIGKILL", NEVER_WAITS),
    (&[Close(Stage1, ChildOf0)], Run, "SIGKILL", NEVER_WAITS),
    (&[Close(Stage1, GrandchildOf0)], Run, "an error", NEVER_WAITS),
    (&[Close(Stage2, ChildOf1)], Ours, "SIGKILL", NEVER_WAITS),
    (&[Close(Stage2, ChildOf1)], Run, "SIGKILL", NEVER_WAITS),
];

/// Measures that no property of this model needs alone, and the reason.
const SPARE: &[(Mend, Way, &str)] = &[
    (
        ToolDescriptors,
        Ours,
        "the launcher sees the end of stage 0 and closes the init pipe, which stage 1 watches",
    ),
    (ToolWatchLauncher, Ours, "the end of the launcher ends stage 1, which stage 0 watches"),
    (WatchInitPipe, Ours, "the parent-death signals end stages 1 and 2, and stage 0 sees their end"),
    (LogNeverBlocks, Run, "runc reads the log all the time"),
    (Close(Launcher, InitOfStages), Ours, "the launcher watches stage 0 itself"),
    (Close(Stage0, LogReader), Ours, "a record does not block"),
    (Close(Stage1, ChildOf0), Ours, "as the first row"),
    (Close(Stage1, GrandchildOf0), Ours, "as the first row"),
    (Close(Stage1, GrandchildOf2), Run, "stage 1 ends before stage 0 waits for stage 2"),
    (Close(Stage2, GrandchildOf2), Run, "the exec closes it"),
];

fn faults_in(run: &[(Role, Event)]) -> String {
    let faults = ["SIGKILL", "SIGSTOP", "SIGTERM", "an error"];
    let found = run.iter().filter_map(|(_, event)| match event {
        Event::Hidden(name) if faults.contains(name) => Some(*name),
        _ => None,
    });
    found.collect::<Vec<_>>().join(", ")
}

/// Returns the nearest violation without these measures: with the fewest faults, without debug records first.
fn without(mends: &[Mend], way: Way) -> Option<(&'static str, Vec<(Role, Event)>)> {
    let tries = [(0, false), (0, true), (1, false), (2, false), (2, true)];
    let mut found = tries.into_iter().filter_map(|(faults, debug)| {
        let config = Config { faults, debug, without: mends.to_vec(), ..config(way) };
        search(&Model::new(config)).violation
    });
    found.next()
}

#[test]
fn without_a_measure_the_fault_is_found() {
    for (mends, way, faults, property) in NEEDED {
        let (found, run) =
            without(mends, *way).unwrap_or_else(|| panic!("nothing is found without {mends:?}"));
        println!(
            "without {mends:?} in {way:?}: {found}, after [{}], {} transitions",
            faults_in(&run),
            run.len()
        );
        let wanted = (*property, (*faults).to_owned());
        assert_eq!((found, faults_in(&run)), wanted, "without {mends:?} in {way:?}\n{}", shown(&run));
    }
}

#[test]
fn spare_measures_are_listed() {
    for (mend, way, reason) in SPARE {
        if let Some((property, run)) = without(&[*mend], *way) {
            panic!("{mend:?} is needed ({reason}): {property}\n{}", shown(&run));
        }
    }
}

/// One fault of runc's launcher is found with every measure in place: it may kill a failing stage 0 before
/// the record. Our launcher does not do that.
#[test]
fn runc_run_may_kill_stage_0_before_its_record() {
    let found = |way| {
        let model = Model::new(Config { faults: 1, stops: false, ..config(way) });
        search_for(&model, |model, state, _| {
            let of_error = state.error_in == Some(Stage0) && is_silenced(model, state, Stage0);
            of_error.then_some("no record")
        })
        .violation
    };
    let (_, run) = found(Run).expect("a run without a record");
    println!("{}", shown(&run));
    assert!(found(Ours).is_none() && found(Exec).is_none());
}
