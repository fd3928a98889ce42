//! A launch of the suites' scenarios on the simulated kernel, in an order and with a fault that the input
//! draws. The launch ends, no process waits for ever, no process is left, and no rule is broken.
//!
//! The input is: the start (2 bytes), the process, the line (2), the kind of the fault, its value, and the
//! seed of the order (8).

#![no_main]

use std::cell::OnceCell;

use libfuzzer_sys::fuzz_target;
use nsexec_audit::Role;
use nsexec_audit::rules::Severity;
use nsexec_audit::sim::{Fault, FaultKind, FinalState, Place, Random};
use support::scenarios::{Start, starts};

thread_local! {
    static STARTS: OnceCell<Vec<Start>> = const { OnceCell::new() };
}

fuzz_target!(|data: &[u8]| {
    let Some((head, seed)) = data.split_first_chunk::<7>() else { return };
    let Some(seed) = seed.first_chunk::<8>() else { return };
    STARTS.with(|all| {
        let all = all.get_or_init(starts);
        launch(all, *head, u64::from_le_bytes(*seed));
    });
});

fn launch(all: &[Start], [start, page, role, line, far, kind, value]: [u8; 7], seed: u64) {
    let start = &all[usize::from(u16::from_le_bytes([start, page])) % all.len()];
    let role = match role % 6 {
        0 => Role::Launcher,
        stage @ 1..=3 => Role::Stage(stage - 1),
        tool => Role::Tool(tool - 4),
    };
    let at = Place { role, line: usize::from(u16::from_le_bytes([line, far & 1])) };
    let what = match kind % 4 {
        0 => None,
        1 => Some(FaultKind::Kill),
        2 => Some(FaultKind::KillWaking),
        _ => Some(FaultKind::Short(usize::from(value))),
    };
    let fault = what.map(|what| Fault { at, what });
    let ran = start.run(&mut Random::new(seed), fault);
    let name = &start.name;
    assert!(!ran.report.endless, "{name} {fault:?}: endless");
    let stuck: Vec<_> = ran.report.stuck().map(|(role, call)| format!("{role} in {call}")).collect();
    assert!(stuck.is_empty(), "{name} {fault:?}: waits for ever: {stuck:?}");
    let left = ran.report.alive().find(|process| process.end != FinalState::HandedOver);
    assert!(left.is_none(), "{name} {fault:?}: left: {left:?}");
    let findings = start.findings(&start.sections(&ran));
    let breach = findings.into_iter().find(|found| found.severity == Severity::Breach);
    assert!(breach.is_none(), "{name} {fault:?}: {breach:?}");
}
