//! `nsexec trace --replay`: the record of another machine fed back, and the error that it ends with. And the other half:
//! what a record needs for it.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use nsexec::launch::Prepared;
use nsexec_audit::Run;
use nsexec_audit::note::Values;
use nsexec_audit::record::shared::PROCESS_MAX;
use nsexec_audit::replay::{self, DIVERGED, Replayed};
use serde::{Deserialize, Serialize};

use super::facts::machine_after_failure;
use super::failure::{Failure, words};
use super::hints::{Asked, Machine};
use super::output;
use super::run::{self, Job};

/// The name of the note with what the likely cause of a failure is told by.
const CIRCUMSTANCES: &str = "circumstances";

/// The largest record that is read: so much the processes of a run may write, and their notes as much again.
const RECORD_MAX: usize = 2 * 8 * PROCESS_MAX;

/// What the replies do not say, and a cause depends on.
#[derive(Serialize, Deserialize)]
struct Circumstances {
    asked: Asked,
    machine: Machine,
}

/// The record of `prepared` as one that can be replayed elsewhere, for `--json`. `failed`: the job, if nothing was
/// started; to be called soon then, since the machine is asked for the cause.
pub(crate) fn keep(record: &Run, prepared: &Prepared, failed: Option<&Job<'_>>, values: Values) -> Run {
    let mut record = replay::keep(record, prepared, values);
    if let Some(job) = failed {
        let circumstances =
            Circumstances { asked: run::asked(job), machine: machine_after_failure(job.request) };
        // Without it the cause is the library's word.
        if let Ok(note) = serde_json::to_string(&circumstances) {
            record.notes.insert(CIRCUMSTANCES.to_owned(), note);
        }
    }
    record
}

/// Replays the record in `file`, and says of each process whether it agrees. Gives the status that the launch ended with,
/// 3 where a process left the path of the record.
///
/// # Errors
/// The failure that the record ends with; a file that is no record.
pub(crate) fn replay(file: &Path) -> Result<u8, Failure> {
    let no_record = |why: String| Failure::ours(format!("{} cannot be replayed: {why}", file.display()));
    let text = read(file)
        .map_err(|error| Failure::ours(format!("failed to read {}: {}", file.display(), words(&error))))?;
    if text.len() > RECORD_MAX {
        return Err(no_record(format!("it has more than {RECORD_MAX} bytes, which no record has")));
    }
    let run = Run::from_json_lines(&text).map_err(|error| no_record(error.to_string()))?;
    let replayed = replay::replay(&run).map_err(|error| no_record(error.to_string()))?;
    let mut out = report(&replayed);
    let result = conclude(&run, &replayed, &mut out);
    output::print(&out)?;
    result
}

/// A byte more than a record may have, at most: a file may have no end.
fn read(file: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    fs::File::open(file)?.take(RECORD_MAX as u64 + 1).read_to_end(&mut bytes)?;
    // What is cut within a character is too long anyway.
    if bytes.len() > RECORD_MAX {
        return Ok(String::from_utf8_lossy(&bytes).into_owned());
    }
    String::from_utf8(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is no text"))
}

fn report(replayed: &Replayed) -> String {
    let mut out: String = replayed.processes.iter().map(|process| format!("{process}\n")).collect();
    if replayed.lost > 0 {
        out += &format!("{} lines were lost when it was recorded\n", replayed.lost);
    }
    out
}

/// The failure as it was told on the other machine, if everything agrees. If not it is only shown: who knows whose it is.
fn conclude(run: &Run, replayed: &Replayed, out: &mut String) -> Result<u8, Failure> {
    let failure = replayed.error.as_ref().map(|error| {
        let note = run.notes.get(CIRCUMSTANCES).and_then(|note| serde_json::from_str(note).ok());
        match note {
            Some(Circumstances { asked, machine }) => run::explain_there(error, asked, || machine),
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
    use super::*;
    use nsexec::bootstrap::{Bootstrap, Dialect};
    use nsexec::launch::Launcher;
    use nsexec::namespace::NsKind;
    use nsexec::policy::Policy;
    use nsexec::sys::types::CloneFlags;
    use nsexec_audit::plan::{Assumptions, Start, plan};
    use nsexec_audit::record::{Line, Reply};
    use nsexec_audit::{Origin, Role};

    /// What an ordinary user gets on a simulated machine.
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
    fn the_error_is_the_one_of_the_other_machine() {
        let mut run = refused();
        let asked =
            Asked { created: [NsKind::Net].into_iter().collect(), rootless: true, ..Asked::default() };
        let Err(Failure::Other { text, status: 1 }) = replayed("plain", &run.to_json_lines().unwrap()) else {
            panic!("it fails")
        };
        let bare = "stage-1: failed to unshare remaining namespaces: Operation not permitted (CLONE_NEWNET)";
        assert!(text.starts_with(bare), "{text}");
        // With what the other machine said, the program's own word on it.
        let there = Circumstances { asked, machine: Machine { seccomp: true, ..Machine::default() } };
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
    fn what_agrees_not_gives_3_and_what_is_no_record_1() {
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
