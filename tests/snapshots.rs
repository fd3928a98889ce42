//! Snapshots of every scenario as one page of text: the processes with their calls and the reasons, the end
//! of each process, the pid line, the log, and the findings of the rules. A page is a good introduction to
//! the protocol.

use std::collections::BTreeSet;
use std::path::PathBuf;

use nsexec_audit::record::{Call, Reply};
use nsexec_audit::render::{Document, Fact, Fate, SectionView, text};
use nsexec_audit::sim::{self, Oldest, Report};
use nsexec_audit::{End, Role, Run, rules};
use support::scenarios::{Ran, Start, Way, init_of, starts};

fn snapshot_folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../snapshots")
}

#[test]
fn every_scenario_matches_its_snapshot() {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(snapshot_folder());
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| {
        for start in starts() {
            let name = start.name.clone();
            insta::assert_snapshot!(format!("scenario_{name}"), page(&start));
        }
    });
}

/// Checks that every page has a scenario. The names of the pages are computed, so tests/house cannot find the
/// unused ones.
#[test]
fn every_snapshot_page_has_a_scenario() {
    let named: BTreeSet<String> =
        starts().iter().map(|start| format!("scenario_{}.snap", start.name)).collect();
    assert!(named.len() >= 45, "{}", named.len());
    let files = std::fs::read_dir(snapshot_folder())
        .expect("snapshots")
        .map(|file| file.expect("a file").file_name());
    let files = files.map(|name| name.to_string_lossy().into_owned());
    let pages: BTreeSet<String> =
        files.filter(|name| name.starts_with("scenario_") && name.ends_with(".snap")).collect();
    let dead: Vec<&String> = pages.difference(&named).collect();
    assert!(dead.is_empty(), "pages without a scenario: {dead:?}");
}

/// Checks that each start ends as its scenario expects, and that no rule is broken.
#[test]
fn every_scenario_ends_as_expected() {
    let mut wrong = Vec::new();
    for start in starts() {
        let ran = start.run(&mut Oldest, None);
        let records = log(&ran.report);
        let is_fatal = |record: &&String| {
            ["\"level\":\"fatal\"", "FATAL: ", "nsenter: "].iter().any(|mark| record.contains(mark))
        };
        let fatal = records.iter().find(is_fatal);
        // Our launcher may refuse before there is a stage, and then writes no record.
        let told = ran.told.as_ref().map(ToString::to_string).unwrap_or_default();
        let ends_well = match start.scenario.refused {
            None => started(&ran.report) && fatal.is_none(),
            Some(part) => {
                !started(&ran.report)
                    && ran.report.alive().count() == 0
                    && (fatal.is_some_and(|record| record.contains(part)) || told.contains(part))
            }
        };
        // The rules also hold in the launcher's section if that is a model of runc.
        let run = start.sections(&ran);
        let breaches = rules::check(&run, &rules::Facts::of(&run, start.policy));
        let breaches: Vec<String> = breaches
            .iter()
            .filter(|found| found.severity == rules::Severity::Breach)
            .map(ToString::to_string)
            .collect();
        if !ends_well || !breaches.is_empty() || ran.report.stuck().count() > 0 {
            wrong.push(format!("{}: {fatal:?} {breaches:#?}\n{}", start.name, ran.report));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// Returns whether stage 2 handed over or its command has run.
fn started(report: &Report) -> bool {
    let init = init_of(report).map(|process| &process.end);
    let launcher = report.find(Role::Launcher).map(|process| &process.end);
    matches!(init, Some(sim::FinalState::HandedOver | sim::FinalState::Exited(0)))
        && launcher == Some(&sim::FinalState::Exited(0))
}

fn page(start: &Start) -> String {
    let ran = start.run(&mut Oldest, None);
    let run = start.sections(&ran);
    let facts = facts(start);
    let facts: Vec<Fact<'_>> = facts.iter().map(|(key, value)| Fact { key, value }).collect();
    let outcomes: Vec<(String, Fate)> = run.sections.iter().map(outcome).collect();
    let sections: Vec<SectionView<'_>> = run
        .sections
        .iter()
        .zip(&outcomes)
        .map(|(section, (outcome, fate))| SectionView { section, outcome, fate: *fate })
        .collect();
    let log = log(&ran.report);
    let log: Vec<&str> = log.iter().map(String::as_str).collect();
    let findings: Vec<String> = start.findings(&run).iter().map(ToString::to_string).collect();
    let findings: Vec<&str> = findings.iter().map(String::as_str).collect();
    let pids = pid_line(&run);
    let document = Document {
        title: start.scenario.about,
        hash: None,
        shape: None,
        assumptions: &facts,
        sections: &sections,
        pid_line: pids.as_deref(),
        log: &log,
        findings: &findings,
        ..Document::default()
    };
    text::text(&document, text::Look::default()) + &told(start, &ran)
}

/// Returns the line on the error that our launcher returns to its caller.
fn told(start: &Start, ran: &Ran) -> String {
    let words = match &ran.told {
        Some(error) => format!("{error} (exit {})", error.exit_code()),
        None => "the status of the command".into(),
    };
    if start.way == Way::Ours {
        format!("\nthe launcher returns to its caller\n  {words}\n")
    } else {
        String::new()
    }
}

fn facts(start: &Start) -> Vec<(&'static str, String)> {
    let policy = start.policy;
    let mut facts = vec![
        ("launcher", start.way.words(policy.dialect).to_owned()),
        ("dialect", policy.dialect.name().to_owned()),
        ("log level", start.scenario.level.name().to_owned()),
    ];
    if start.way == Way::Ours {
        facts.push(("credentials", format!("{:?}", policy.credentials)));
        facts.push(("setgroups", format!("{:?}", policy.setgroups)));
    }
    facts
}

fn outcome(section: &nsexec_audit::Section) -> (String, Fate) {
    // A command's own end does not matter here.
    let executes = section.role != Role::Stage(0)
        && section.lines.last().is_some_and(|line| line.reply == Reply::NoReturn);
    match section.end {
        end if executes && !section.role.is_tool() => ("executes the command".into(), fate(end)),
        end if executes => (format!("executes the tool, which ends: {end}"), fate(end)),
        end => (end.to_string(), fate(end)),
    }
}

fn fate(end: End) -> Fate {
    match end {
        End::HandedOver | End::Executed => Fate::Continues,
        End::Exited(0) => Fate::Ended,
        _ => Fate::Failed,
    }
}

/// Returns the log records in the order in which the launcher read them. The dialect seed has no log pipe, so
/// for it returns standard error.
fn log(report: &Report) -> Vec<String> {
    if !report.stderr.is_empty() {
        return String::from_utf8_lossy(&report.stderr).lines().map(str::to_owned).collect();
    }
    let launcher = report.find(Role::Launcher).map(|launcher| &launcher.transcript.lines);
    let read = launcher.into_iter().flatten().filter_map(|line| match (&line.call, &line.reply) {
        (Call::Read { .. }, Reply::Data(data)) if data.0.starts_with(b"{\"level\":") => Some(&data.0[..]),
        _ => None,
    });
    let bytes: Vec<u8> = read.flatten().copied().collect();
    String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect()
}

fn pid_line(run: &Run) -> Option<String> {
    run.section(Role::Stage(0))?.lines.iter().find_map(|line| match &line.call {
        Call::Send { data, .. }
            if data.0.starts_with(b"{\"stage1_pid\"") || data.0.starts_with(b"{\"pid\"") =>
        {
            Some(String::from_utf8_lossy(&data.0).trim_end().to_owned())
        }
        _ => None,
    })
}
