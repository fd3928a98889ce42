//! The core on the simulated kernel.

mod manners;

use manners::{Manner, scenarios};
use nsexec::log::Level;
use nsexec::sys::Sys;
use nsexec::sys::sim::*;
use nsexec::sys::types::*;

const NOBODY: Option<Fault> = None;

/// What a start that went well looks like, whatever its namespaces.
fn assert_started(name: &str, report: &Report) {
    let end = |section| report.find(section).map(|process| process.end.clone());
    let all = || format!("{name}\n{}\n{}", transcripts(report), report.dump);
    assert_eq!(end(Section::Launcher), Some(End::Exited(0)), "{}", all());
    assert_eq!(end(Section::Stage0), Some(End::Exited(0)), "{}", all());
    assert_eq!(end(Section::Stage1), Some(End::Exited(0)), "{}", all());
    assert_eq!(end(Section::Stage2), Some(End::HandedOver), "{}", all());
    assert_eq!(report.zombies().count(), 0, "{}", all());
    assert_eq!(report.alive().count(), 1, "{}", all());
    assert!(report.unread.is_empty(), "{}", all());
    let init = report.find(Section::Stage2).unwrap();
    let open: Vec<i32> = init.descriptors.iter().map(|(fd, _)| fd.0).collect();
    assert_eq!(open, [0, 1, 2, 4], "stdio and the init pipe\n{}", all());
}

fn transcripts(report: &Report) -> String {
    let mut text = String::new();
    for process in &report.processes {
        text += &format!("-- {} [{}] {:?}\n", process.who, process.pid, process.end);
        for line in &process.transcript.lines {
            text += &format!("{line}\n");
        }
    }
    text + &String::from_utf8_lossy(&report.stderr)
}

#[test]
fn every_realistic_start_is_handed_over() {
    for scenario in scenarios() {
        for manner in [Manner::Init, Manner::Exec] {
            for level in [Level::Warning, Level::Debug] {
                let report = scenario.launched(manner, level).run(&mut Oldest, NOBODY);
                assert_started(scenario.name, &report);
            }
        }
    }
}

#[test]
fn show() {
    for scenario in scenarios() {
        let report = scenario.launched(Manner::Init, Level::Warning).run(&mut Oldest, NOBODY);
        if scenario.name.contains("tools") || scenario.name.contains("eight") {
            println!("{}\n{}\n{}", scenario.name, transcripts(&report), report.dump);
        }
    }
}
