//! Pinned namespaces: the record of a pin is its plan, and nothing is left after a release.

use std::fs;
use std::path::PathBuf;

use nsexec::launch::{Command, LaunchError, SettingError, release};
use nsexec::namespace::NsKind::{Ipc, Net, Pid, User, Uts};
use nsexec::namespace::{NsKind, NsSet};
use nsexec_audit::machine::{Machine, PlanCommand};
use nsexec_audit::plan::Verdict;
use nsexec_audit::recording::RecordCommand;

use crate::Case;
use crate::cases::leaves_nothing;

pub(crate) const CASES: &[Case] =
    &[("pin_is_recorded_as_planned", recorded_as_planned), ("pin_refuses_what_needs_a_process", refused)];

fn directory() -> PathBuf {
    std::env::temp_dir().join(format!("nsexec-pin-{}", std::process::id()))
}

fn recorded_as_planned() {
    let directory = directory();
    for kinds in [&[Net][..], &[User, Net], &[User, Uts, Ipc]] {
        leaves_nothing(|| {
            let mut command = Command::new("");
            command.unshare(kinds.iter().copied());
            let (pinned, recording) = command.record_pin(&directory).unwrap();
            let plan = command.plan_pin(&directory, &Machine::here()).unwrap();
            let pinned = pinned.unwrap();
            let diff = recording.compare(&plan);
            let is_mounted = |kind: &NsKind| {
                let file = pinned.file(*kind).unwrap();
                nsexec::launch::kind_of(&file).is_ok_and(|flag| flag == kind.flag())
            };
            let mounted = kinds.iter().all(is_mounted);
            let replayed = recording.replay();
            let released = pinned.release().unwrap();
            assert!(diff.is_empty(), "{diff}");
            assert!(mounted && plan.succeeds && plan.verdict() == Verdict::Runs, "{kinds:?}");
            assert!(recording.check_rules().is_empty(), "{:?}", recording.check_rules());
            assert!(replayed.is_ok(), "{replayed:?}");
            let expected: NsSet = kinds.iter().copied().collect();
            assert!(released.removed && released.kinds == expected, "{released:?}");
            assert!(!directory.exists());
            assert!(release(&directory).unwrap().kinds.is_empty());
        });
    }
}

fn refused() {
    let directory = directory();
    let refuse = |command: &Command| match command.pin(&directory) {
        Err(LaunchError::Setting(SettingError::Conflict { settings: [_, setting], .. })) => setting,
        other => panic!("{other:?}"),
    };
    let mut command = Command::new("");
    assert_eq!(refuse(&command), "no namespace");
    assert_eq!(refuse(command.unshare([Net, Pid])), "a pid namespace");
    assert_eq!(refuse(Command::new("").unshare([Net]).join(Uts, "/proc/self/ns/uts")), "join");
    assert_eq!(refuse(Command::new("").unshare([Net]).before_start(|_| Ok(()))), "before_start");
    // A file with the name of a kind exists: the directory of the caller stays as it is.
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("uts"), "mine").unwrap();
    let error = Command::new("").unshare([Net, Uts]).pin(&directory).unwrap_err();
    assert!(matches!(error, LaunchError::Setting(SettingError::File { .. })), "{error}");
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
    assert_eq!(fs::read_to_string(directory.join("uts")).unwrap(), "mine");
    fs::remove_dir_all(&directory).unwrap();
}
