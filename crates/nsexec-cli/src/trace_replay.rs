//! `nsexec trace --replay`: replays a record of another machine, and reports the error that the record ends
//! with. Also adds the data to a record that a replay needs.

use std::path::Path;

use nsexec::launch::Prepared;
use nsexec_audit::Run;
use nsexec_audit::note::Values;
use nsexec_audit::render::saved::CIRCUMSTANCES;
use nsexec_audit::replay::{self, DIVERGED, Replayed};

use super::failure::Failure;
use super::output;
use super::run::{self, Job};
use super::show;

/// Returns the record of `prepared` in a form that can be replayed on another machine, for `--json`.
///
/// `failed` is the job if the launch failed. Call this soon after the failure: it reads the machine's state
/// to explain the cause.
pub(crate) fn keep(record: &Run, prepared: &Prepared, failed: Option<&Job<'_>>, values: Values) -> Run {
    let mut record = replay::keep(record, prepared, values);
    if let Some(job) = failed {
        // Without this note a replay prints the cause that does not depend on the circumstances.
        if let Ok(note) = serde_json::to_string(&run::circumstances(job)) {
            record.notes.insert(CIRCUMSTANCES.to_owned(), note);
        }
    }
    record
}

/// Replays the record in `file`, and prints for each process whether it agrees. Returns the exit status of
/// the recorded launch, or 3 if a process diverges from the record.
///
/// # Errors
/// The failure that the record ends with; the file cannot be read, or is not a record.
pub(crate) fn replay(file: &Path) -> Result<u8, Failure> {
    let no_record = |why: String| Failure::ours(format!("{} cannot be replayed: {why}", file.display()));
    let text = show::text(file)?;
    let run = Run::from_json_lines(&text).map_err(|error| no_record(error.to_string()))?;
    let replayed = replay::replay(&run).map_err(|error| no_record(error.to_string()))?;
    let mut out = report(&replayed);
    let result = reported_failure(&run, &replayed, &mut out);
    output::print(&out)?;
    result
}

fn report(replayed: &Replayed) -> String {
    let mut out: String = replayed.processes.iter().map(|process| format!("{process}\n")).collect();
    if replayed.lost > 0 {
        out += &format!("{} lines were lost when it was recorded\n", replayed.lost);
    }
    out
}

/// Returns the failure as the other machine reported it, if all processes agree. Otherwise the failure is
/// only printed, because it may come from the divergence.
fn reported_failure(run: &Run, replayed: &Replayed, out: &mut String) -> Result<u8, Failure> {
    let failure = replayed.error.as_ref().map(|error| {
        let note = run.notes.get(CIRCUMSTANCES).and_then(|note| serde_json::from_str(note).ok());
        match note {
            Some(known) => run::explain_for(error, || known),
            None => Failure::Other { text: error.to_string(), status: replayed.status() },
        }
    });
    match failure {
        Some(failure) if replayed.agrees() => Err(failure),
        Some(failure) => {
            *out += &format!("the launcher's error: {failure}\n");
            Ok(DIVERGED)
        }
        None => Ok(replayed.status()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use nsexec::bootstrap::{Bootstrap, Dialect};
    use nsexec::launch::Launcher;
    use nsexec::launch::causes::Circumstances;
    use nsexec::namespace::NsKind;
    use nsexec::policy::Policy;
    use nsexec::sys::types::CloneFlags;
    use nsexec_audit::plan::{Assumptions, Start, plan};
    use nsexec_audit::record::{Line, Reply};
    use nsexec_audit::{Origin, Role};

    /// Returns the record of an ordinary user's failed launch on a simulated machine.
    fn refused() -> Run {
        let mut launcher =
            Launcher::new(&Bootstrap::new(CloneFlags::NEWNET), Policy::runc(&Dialect::V1_2)).unwrap();
        let prepared = launcher.command("/bin/true", [""; 0]).prepare().unwrap();
        let mut run = plan(&Start::Launcher(prepared.clone()), &Assumptions::ordinary(1000)).unwrap().run;
        run.origin = Origin::Recorded;
        keep(&run, &prepared, None, Values::LeftOut)
    }

    fn replayed(name: &str, text: &str) -> Result<u8, Failure> {
        let file = std::env::temp_dir().join(format!("nsexec-replay-{name}-{}", std::process::id()));
        fs::write(&file, text).unwrap();
        let result = replay(&file);
        fs::remove_file(&file).unwrap();
        result
    }

    #[test]
    fn replay_reports_the_error_of_the_other_machine() {
        let mut run = refused();
        let mut there = Circumstances::default();
        there.asked.created = [NsKind::Net].into_iter().collect();
        there.asked.rootless = true;
        there.facts.vantage.seccomp = true;
        let Err(Failure::Other { text, status: 1 }) = replayed("plain", &run.to_json_lines().unwrap()) else {
            panic!("it fails")
        };
        let bare = "stage-1: failed to unshare remaining namespaces: Operation not permitted (CLONE_NEWNET)";
        assert!(text.starts_with(bare), "{text}");
        // With the other machine's state, the program's specific cause is printed.
        run.notes.insert(CIRCUMSTANCES.into(), serde_json::to_string(&there).unwrap());
        let Err(Failure::Other { text, status: 1 }) = replayed("noted", &run.to_json_lines().unwrap()) else {
            panic!("it fails")
        };
        assert_eq!(
            text,
            format!("{bare} (you are not root: add -r, which makes you root of a new user namespace)")
        );
    }

    #[test]
    fn divergence_exits_3_and_invalid_record_exits_1() {
        let mut run = refused();
        let stage = run.sections.iter_mut().find(|section| section.role == Role::Stage(1)).unwrap();
        stage.lines.push(Line { call: nsexec_audit::record::Call::Setsid, reply: Reply::Unit });
        assert_eq!(replayed("longer", &run.to_json_lines().unwrap()), Ok(DIVERGED));
        run.notes.clear();
        for (name, text) in [("empty", String::new()), ("no-job", run.to_json_lines().unwrap())] {
            let Err(Failure::Other { text, status: 1 }) = replayed(name, &text) else { panic!("no record") };
            assert!(text.contains("cannot be replayed"), "{text}");
        }
    }
}
