//! The rules over runs of the simulated kernel: faultless, and with one fault at any call.

use std::collections::BTreeMap;

mod scenarios;

use nsexec::audit::diff::compare;
use nsexec::audit::plan::runc::Manner;
use nsexec::audit::rules::{Facts, Severity, check};
use nsexec::audit::sections::of_report;
use nsexec::bootstrap::Dialect;
use nsexec::log::Level;
use nsexec::policy::Policy;
use nsexec::sys::sim::*;
use nsexec::sys::types::*;

fn breaches(report: &Report, policy: Policy) -> Vec<String> {
    let run = of_report(report);
    let findings = check(&run, &Facts::of(&run, policy));
    findings.iter().filter(|found| found.severity == Severity::Breach).map(ToString::to_string).collect()
}

#[test]
fn every_start_keeps_every_rule_with_any_fault() {
    let mut count = 0;
    let mut bad: BTreeMap<String, (usize, String)> = BTreeMap::new();
    let runc = Policy::runc(&Dialect::V1_2);
    for scenario in scenarios::for_runc() {
        let other = Policy {
            setgroups: nsexec::policy::Setgroups::DropIfAllowed,
            session: nsexec::policy::Session::Keep,
            credentials: nsexec::policy::Credentials::Keep,
            ..runc
        };
        let ours = scenario.launched_by_us(other, Level::Warning);
        for (name, sim) in [("runc", scenario.launched(Manner::Init, Level::Warning)), ("ours", ours)] {
            let whole = sim.run(&mut Oldest, None);
            let mut note = |what: String, report: &Report, found: Vec<String>| {
                // runc's launcher is a model, and not ours.
                for finding in
                    found.into_iter().filter(|found| !(name == "runc" && found.contains(", launcher")))
                {
                    let rule = finding.split(',').next().unwrap().to_string();
                    let entry = bad
                        .entry(rule)
                        .or_insert((0, format!("{} {name} {what}: {finding}\n{report}", scenario.name)));
                    entry.0 += 1;
                }
            };
            note("no fault".into(), &whole, breaches(&whole, if name == "ours" { other } else { runc }));
            let again = sim.run(&mut Youngest, None);
            let diff = compare(&of_report(&whole), &of_report(&again));
            assert!(diff.is_empty(), "{} {name}\n{diff}", scenario.name);
            let places: Vec<_> = whole.places().map(|(place, line)| (place, line.clone())).collect();
            let whats = [
                Errno::EIO,
                Errno::EPERM,
                Errno::EINVAL,
                Errno::EINTR,
                Errno::EAGAIN,
                Errno::EPIPE,
                Errno::ENOENT,
                Errno::EBADF,
                Errno::ENOSYS,
                Errno::ESRCH,
                Errno::ECHILD,
                Errno::EOPNOTSUPP,
                Errno::ENOTSOCK,
            ]
            .map(What::Errno);
            for (at, line) in places {
                let deaths = [What::Kill, What::KillWaking, What::KillDying(Section::Stage1)];
                for what in whats.into_iter().chain(deaths).chain([What::Short(1), What::Short(3)]) {
                    // Known: the core takes these two of fstatfs for the open's, and goes on with the tool or without "deny".
                    let is_fstatfs = matches!(line.call, nsexec::sys::record::Call::Fstatfs { .. });
                    if is_fstatfs && [Errno::EPERM, Errno::ENOENT].map(What::Errno).contains(&what) {
                        continue;
                    }
                    let fault = Fault { at, what };
                    let report = sim.run(&mut Oldest, Some(fault));
                    count += 1;
                    if report.fault_fired {
                        note(
                            fault.to_string(),
                            &report,
                            breaches(&report, if name == "ours" { other } else { runc }),
                        );
                    }
                }
            }
        }
    }
    println!("{count} runs");
    for (rule, (times, example)) in &bad {
        println!("== {rule}: {times} times\n{example}\n");
    }
    assert!(bad.is_empty());
}
