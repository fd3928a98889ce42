//! Each row of the table is reachable, and each cause has the right words.

use super::rows::Row;
use super::*;
use crate::launch::script::{Ended, FailureKind, Step};
use crate::launch::{LaunchError, Record, StageFailure};
use crate::sys::types::{CloneFlags, Signal, WaitStatus};
use crate::words::log::Level;
use std::borrow::ToOwned;
use std::format;
use std::string::{String, ToString};
use std::vec;

/// Returns a failure of this step as the launcher reports it.
fn failed(code: Code, errno: Option<Errno>) -> LaunchError {
    let os = errno.unwrap_or(Errno::EIO);
    match code {
        Code::Start => LaunchError::Start { step: Step::MakeInitPipe, errno: os },
        Code::Exec => LaunchError::Exec { program: "x".into(), errno: os },
        _ => LaunchError::Bootstrap(StageFailure {
            records: vec![Record {
                level: Level::Fatal,
                stage: Some(0),
                pid: 7,
                text: "it failed".to_owned(),
                code: Some(code),
                errno,
            }],
            ended: Vec::new(),
            kind: FailureKind::NoPidLine,
            asked: CloneFlags::EMPTY,
        }),
    }
}

/// Gives an ordinary user a mapping tool.
fn tool(facts: &mut Facts, change: fn(&mut Tool)) {
    let mut tool = Tool { path: "/bin/newuidmap".to_owned(), ..Tool::default() };
    change(&mut tool);
    facts.users.tool = Some(tool);
    facts.vantage.uid = 1000;
}

/// Returns the situations that the rows distinguish. `None`: nothing is known.
fn situations() -> Vec<Option<Circumstances>> {
    let of = |kinds: &[NsKind]| kinds.iter().copied().collect::<NsSet>();
    let sets = [of(&[]), of(&[NsKind::User]), of(&[NsKind::User, NsKind::Pid]), of(&[NsKind::Pid])];
    let facts = |change: fn(&mut Facts)| {
        let mut facts = Facts::default();
        change(&mut facts);
        facts
    };
    let limits = |value: u64| NsKind::ALL.into_iter().map(|kind| (kind.name().to_owned(), value)).collect();
    let machines = [
        facts(|facts| facts.kinds = NsSet::EMPTY.with(NsKind::Mnt)),
        facts(|_| {}),
        facts(|facts| facts.userns_clone = Some(0)),
        facts(|facts| facts.apparmor_restricts = Some(1)),
        Facts { limits: limits(0), ..Facts::default() },
        Facts { limits: limits(5), ..Facts::default() },
        Facts { limits: limits(HIGHEST_LIMIT), ..Facts::default() },
        Facts {
            limits: limits(5),
            vantage: Vantage { first_user_namespace: Some(true), ..Vantage::default() },
            ..Facts::default()
        },
        facts(|facts| facts.vantage.seccomp = true),
        facts(|facts| facts.vantage.no_new_privs = true),
        facts(|facts| facts.vantage.profile = Some("shy (enforce)".to_owned())),
        facts(|facts| facts.capabilities = Some(0)),
        facts(|facts| facts.capabilities = Some(!(1 << 31))),
        facts(|facts| facts.capabilities = Some(!(1 << 21))),
        facts(|facts| facts.invalid_flags = Some(1)),
        facts(|facts| facts.users.map = Some(vec![])),
        facts(|facts| facts.users.map = Some(vec![(0, 0, 5)])),
        facts(|facts| facts.vantage.chroot = Some(true)),
        facts(|facts| facts.vantage.chroot = Some(false)),
        facts(|facts| facts.selinux_enforcing = Some(true)),
        facts(|facts| facts.vantage.profile = Some("a".to_owned())),
        facts(|facts| {
            facts.proc.read_only = true;
            facts.proc.is_own = Some(true);
        }),
        facts(|facts| facts.proc.is_own = Some(false)),
        facts(|facts| facts.proc.covered = vec!["/proc/kcore".to_owned()]),
        facts(|facts| facts.account = Account::Missing),
        facts(|facts| facts.account = Account::Group(5)),
        facts(|facts| tool(facts, |tool| tool.nosuid = true)),
        facts(|facts| tool(facts, |_| {})),
    ];
    let mut all = vec![None];
    for (created, joined) in sets.iter().flat_map(|created| sets.iter().map(move |joined| (created, joined)))
    {
        for flags in 0..8 {
            let asked = Asked {
                created: *created,
                joined: *joined,
                rootless: flags & 1 != 0,
                mount_proc_flag: flags & 2 != 0,
                command_path: flags & 4 != 0,
                path_of_caller: flags & 2 != 0,
                mounts_proc: flags & 2 != 0,
                uncovered: (flags & 4 != 0).then_some(Uncovered { groups: true, first: 1, last: 2 }),
            };
            let known = |facts: &Facts| Circumstances { asked, facts: facts.clone() };
            all.extend(machines.iter().map(|machine| Some(known(machine))));
        }
    }
    all
}

/// A caller that has asked for a user namespace is not advised to add one, and root is not advised to be
/// root.
#[test]
fn advice_that_was_followed_already_is_not_given() {
    let situations = situations();
    for (code, errno) in steps() {
        for known in situations.iter().flatten() {
            let Some(row) = rows::all().find(|row| row.fits(code, errno, Some(known))) else { continue };
            let says = |words: &str| row.text.why.contains(words) || row.text.remedy.contains(words);
            let has_user = known.asked.created.contains(NsKind::User);
            assert!(!has_user || !says("add {user_namespace}"), "{code:?} {errno:?} {known:?}");
            let to_root = says("be root") || says("you are not root");
            assert!(known.asked.rootless || !to_root, "{code:?} {errno:?} {known:?}");
        }
    }
}

/// Returns each step with each errno of a row.
fn steps() -> Vec<(Code, Option<Errno>)> {
    let of_row = |row: &'static Row| {
        let codes = if row.codes.is_empty() { &[Code::Setsid] } else { row.codes };
        let errnos: Vec<_> = match row.errnos {
            [] => vec![None],
            errnos => errnos.iter().copied().map(Some).collect(),
        };
        codes
            .iter()
            .flat_map(|code| errnos.iter().map(|errno| (*code, *errno)).collect::<Vec<_>>())
            .collect::<Vec<_>>()
    };
    rows::all().flat_map(of_row).collect()
}

/// Checks that each row is the cause in some situation, and that its text goes through [`LaunchError`], as in
/// a program.
#[test]
fn every_row_is_printed_in_some_situation() {
    let situations = situations();
    let mut printed = vec![false; rows::all().count()];
    for (code, errno) in steps() {
        for known in &situations {
            let is_row = |row: &Row| row.fits(code, errno, known.as_ref());
            let Some(index) = rows::all().position(is_row) else { continue };
            if core::mem::replace(&mut printed[index], true) {
                continue;
            }
            let found = likely(code, errno, known.as_ref(), &Remedies::LIBRARY).unwrap();
            let error = failed(code, errno);
            let line = match known {
                Some(known) => error.explain(known, &Remedies::LIBRARY),
                None => error.to_string(),
            };
            assert!(line.ends_with(&format!(" ({found})")), "{line}");
            assert!(no_braces(&found), "{found:?}");
        }
    }
    let unsaid = rows::all().zip(printed).filter(|(_, printed)| !printed);
    let unsaid: Vec<_> = unsaid.map(|(row, _)| (row.codes, row.errnos, row.text.why)).collect();
    assert!(unsaid.is_empty(), "{unsaid:#?}");
}

/// Returns whether no placeholder is left.
fn no_braces(found: &Explanation) -> bool {
    let texts = [&found.why, &found.remedy];
    !texts.into_iter().chain(&found.evidence).any(|text| text.contains('{'))
}

#[test]
fn each_step_and_errno_has_at_most_one_cause_without_condition_and_it_is_the_last() {
    let overlap = |row: &Row, other: &Row| {
        row.codes.iter().any(|code| other.codes.contains(code))
            && (row.errnos.is_empty()
                || other.errnos.is_empty()
                || row.errnos.iter().any(|errno| other.errnos.contains(errno)))
    };
    let rows: Vec<_> = rows::all().collect();
    for (index, row) in rows.iter().enumerate().filter(|(_, row)| row.when.is_none()) {
        for later in &rows[index + 1..] {
            assert!(!overlap(row, later), "{} / {}", row.text.why, later.text.why);
        }
    }
    let without_facts = |errno| likely(Code::BecomeRoot, Some(errno), None, &Remedies::LIBRARY);
    let text = "id 0 is not mapped there: keep the caller's ids (Credentials::Keep), or map it";
    assert_eq!(without_facts(Errno::EINVAL).map(|found| found.to_string()).as_deref(), Some(text));
    assert_eq!(without_facts(Errno::EIO), None);
}

/// An ordinary user that creates a user namespace and a network namespace.
fn user(change: impl FnOnce(&mut Asked, &mut Facts)) -> Circumstances {
    let mut known = Circumstances::default();
    known.asked.created = NsSet::EMPTY.with(NsKind::User).with(NsKind::Net);
    known.asked.rootless = true;
    (known.facts.vantage.uid, known.facts.vantage.user) = (1000, Some("ann".to_owned()));
    known.facts.proc.is_own = Some(true);
    known.facts.capabilities = Some(0);
    change(&mut known.asked, &mut known.facts);
    known
}

fn cause(known: &Circumstances, code: Code, errno: Errno) -> (Cause, String) {
    let found = likely(code, Some(errno), Some(known), &Remedies::LIBRARY).unwrap();
    (found.cause, found.to_string())
}

#[test]
fn refused_proc_mount_is_that_of_the_filter_or_the_security_module_and_not_of_a_missing_flag() {
    let asks = |asked: &mut Asked| {
        asked.created = NsSet::ALL;
        (asked.mount_proc_flag, asked.mounts_proc) = (true, true);
    };
    let filter = user(|asked, facts| {
        asks(asked);
        facts.vantage.seccomp = true;
    });
    for code in [Code::MountProc, Code::MountPropagation, Code::MountOn] {
        assert_eq!(cause(&filter, code, Errno::EPERM).0, Cause::Seccomp, "{code:?}");
        assert_eq!(cause(&filter, code, Errno::ENOSYS).0, Cause::Seccomp, "{code:?}");
        let plain = user(|asked, _| asks(asked));
        assert_eq!(cause(&plain, code, Errno::EACCES).0, Cause::SecurityModule, "{code:?}");
    }
    let masked = user(|asked, facts| {
        asks(asked);
        facts.vantage.seccomp = true;
        facts.proc.covered = vec!["/proc/kcore".to_owned()];
    });
    let found = likely(Code::MountProc, Some(Errno::EPERM), Some(&masked), &Remedies::LIBRARY).unwrap();
    assert_eq!(
        (found.cause, found.evidence.join("; ")),
        (Cause::MaskedProc, "/proc/self/mountinfo: a mount at /proc/kcore".to_owned())
    );
}

#[test]
fn a_start_without_a_process_is_not_explained_by_a_refused_clone() {
    for step in [Step::BlockSignals, Step::CheckCopy] {
        let error = LaunchError::Start { step, errno: Errno::EPERM };
        assert_eq!(error.to_string(), format!("{step}: Operation not permitted"));
        let limit = LaunchError::Start { step, errno: Errno::EMFILE };
        assert!(limit.to_string().contains("raise ulimit -n"), "{limit}");
    }
}

#[test]
fn read_only_proc_refused_clone_and_missing_call_have_causes() {
    let plain = user(|_, _| {});
    for code in [Code::UidMap, Code::GidMap, Code::SetgroupsFile, Code::OomScoreAdj, Code::TimeOffsets] {
        let (found, text) = cause(&plain, code, Errno::EROFS);
        assert_eq!(found, Cause::ReadOnlyProc, "{code:?}");
        assert!(text.contains("/proc is mounted read-only"), "{text}");
    }
    for code in [Code::Start, Code::SpawnStage1, Code::SpawnStage2] {
        assert!(
            cause(&plain, code, Errno::EPERM)
                .1
                .contains("refuses a new process (clone), or the wait for it (wait4)"),
            "{code:?}"
        );
        let filter = user(|_, facts| facts.vantage.seccomp = true);
        assert_eq!(cause(&filter, code, Errno::EPERM).0, Cause::Seccomp);
    }
    assert_eq!(cause(&plain, Code::Setsid, Errno::ENOSYS).0, Cause::Kernel);
    assert_eq!(
        cause(&user(|_, facts| facts.vantage.seccomp = true), Code::Setsid, Errno::ENOSYS).0,
        Cause::Seccomp
    );
}

#[test]
fn missing_user_namespaces_are_the_cause_of_each_errno() {
    let known = user(|asked, facts| {
        asked.created = NsSet::ALL;
        facts.kinds = NsSet::ALL.without(NsKind::User);
        facts.vantage.chroot = Some(false);
    });
    for errno in [Errno::EPERM, Errno::EACCES, Errno::EINVAL, Errno::ENOSYS] {
        let (found, text) = cause(&known, Code::UnshareUser, errno);
        assert!(found == Cause::Kernel && text.contains("this kernel has no user namespaces"), "{text}");
    }
}

#[test]
fn missing_file_system_is_a_fact_of_the_kernel() {
    let (found, text) = cause(&user(|_, _| {}), Code::MountOn, Errno::ENODEV);
    assert!(found == Cause::Kernel && text.contains("/proc/filesystems"), "{text}");
}

#[test]
fn missing_newer_call_is_named() {
    let filter = user(|_, facts| facts.vantage.seccomp = true);
    for (code, call) in [
        (Code::MountPoint, "openat2(2)"),
        (Code::WorkingDirectory, "openat2(2)"),
        (Code::BindSource, "open_tree(2)"),
        (Code::MountOn, "move_mount(2)"),
        (Code::NewRoot, "mount_setattr(2)"),
        (Code::MountAttributes, "mount_setattr(2)"),
    ] {
        let (found, text) = cause(&user(|_, _| {}), code, Errno::ENOSYS);
        assert!(found == Cause::Kernel && text.contains(call), "{code:?}: {text}");
        let (found, text) = cause(&filter, code, Errno::ENOSYS);
        assert!(found == Cause::Seccomp && text.contains(call), "{code:?}: {text}");
    }
}

#[test]
fn foreign_namespace_is_that_of_another_user_for_both_errors() {
    for errno in [Errno::EPERM, Errno::EACCES] {
        let (found, text) = cause(&user(|_, _| {}), Code::OpenNamespace, errno);
        assert_eq!(found, Cause::Privilege);
        assert!(text.contains("another user's process") && text.contains("be root"), "{text}");
        let root = user(|asked, _| asked.rootless = false);
        assert!(!cause(&root, Code::OpenNamespace, errno).1.contains("be root"));
    }
}

#[test]
fn failed_mapping_tool_has_the_cause_that_a_fact_proves() {
    let cause = |known: &Circumstances| {
        let found = likely(Code::MappingToolStatus, None, Some(known), &Remedies::LIBRARY).unwrap();
        (found.cause, found.to_string())
    };
    let group = user(|_, facts| (facts.account, facts.real_gid) = (Account::Group(1000), 5));
    let (found, text) = cause(&group);
    assert_eq!(found, Cause::GroupOfAccount);
    assert!(text.starts_with("the current group 5 is not that of ann in passwd(5), 1000,"), "{text}");
    assert!(text.contains("newgrp") && text.contains("GRANT_AUX_GROUP_SUBIDS"), "{text}");
    let missing = user(|_, facts| {
        facts.account = Account::Missing;
        facts.vantage.user = None;
    });
    assert_eq!(cause(&missing).0, Cause::NoAccount);
    let nosuid = user(|_, facts| tool(facts, |tool| (tool.set_user_id, tool.nosuid) = (true, true)));
    assert_eq!(cause(&nosuid).0, Cause::NosuidMount);
    let bare = user(|_, facts| tool(facts, |_| {}));
    let (found, text) = cause(&bare);
    assert_eq!(found, Cause::PowerlessTool);
    assert!(text.contains("chmod u+s /bin/newuidmap, or setcap cap_setuid+ep"), "{text}");
    let capable = user(|_, facts| tool(facts, |tool| tool.file_capabilities = true));
    assert_eq!(cause(&capable).0, Cause::FailedTool);
    let uncovered = user(|asked, _| asked.uncovered = Some(Uncovered { groups: false, first: 5, last: 5 }));
    assert!(cause(&uncovered).1.starts_with("/etc/subuid does not give you the user id 5:"));
}

#[test]
fn remedy_is_that_of_the_distribution_and_proposes_a_free_range() {
    let mut facts = user(|_, facts| facts.groups.free = Some(300_000)).facts;
    assert_eq!(
        facts.no_range(true).to_string(),
        "/etc/subgid has no range for ann: as root: usermod --add-subgids 300000-365535 ann"
    );
    for (distribution, command) in [
        (Distribution::Debian, "apt install uidmap"),
        (Distribution::RedHat, "dnf install shadow-utils"),
        (Distribution::Alpine, "apk add shadow-uidmap"),
        (Distribution::Other, "install the package uidmap or shadow-utils"),
    ] {
        facts.distribution = distribution;
        assert_eq!(facts.no_tool(false).remedy, command);
        assert!(facts.no_tool(true).why.starts_with("newgidmap is not in PATH"));
    }
    let refused = |distribution| {
        let known = user(|_, facts| facts.distribution = distribution);
        likely(Code::UnshareUser, Some(Errno::EACCES), Some(&known), &Remedies::LIBRARY).unwrap().remedy
    };
    assert!(
        refused(Distribution::Ubuntu).contains("apparmor")
            && refused(Distribution::RedHat).contains("ausearch")
    );
}

#[test]
fn profile_of_apparmor_is_named() {
    let with = |label: &str| {
        let mut known = user(|_, _| {});
        known.facts.vantage.profile = Some(label.to_owned());
        cause(&known, Code::UnshareUser, Errno::EACCES)
    };
    let (found, text) = with("shy (enforce)");
    assert_eq!(found, Cause::AppArmor);
    assert!(
        text.starts_with("the AppArmor profile shy of this program") && text.contains("`userns,`"),
        "{text}"
    );
    assert_eq!(with("u:r:base_t").0, Cause::SecurityModule);
}

#[test]
fn each_step_names_the_limits_of_its_own_kinds() {
    let known = user(|_, facts| {
        facts.limits = [("user".to_owned(), 7), ("net".to_owned(), 0)].into();
        facts.vantage.first_user_namespace = Some(true);
    });
    let (found, text) = cause(&known, Code::UnshareUser, Errno::ENOSPC);
    assert_eq!(
        (found, text.split(':').next().unwrap()),
        (Cause::Limit, "the limit user.max_user_namespaces = 7 is reached")
    );
    let (found, text) = cause(&known, Code::UnshareRemaining, Errno::ENOSPC);
    assert_eq!(
        (found, text.as_str()),
        (Cause::Limit, "user.max_net_namespaces is 0: as root: sysctl user.max_net_namespaces=16384")
    );
}

/// The kernel counts a namespace in the outer user namespaces too, and a new user namespace has the highest
/// limit.
#[test]
fn reached_limit_is_that_of_an_outer_namespace_if_the_own_one_is_the_highest() {
    let at = |first: bool, value: u64| {
        let known = user(|_, facts| {
            facts.limits = [("user".to_owned(), value), ("net".to_owned(), value)].into();
            facts.vantage.first_user_namespace = Some(first);
        });
        [Code::UnshareRemaining, Code::UnshareUser]
            .map(|code| likely(code, Some(Errno::ENOSPC), Some(&known), &Remedies::LIBRARY).unwrap())
    };
    let [others, user] = at(false, HIGHEST_LIMIT);
    assert_eq!(others.why, "user.max_net_namespaces is reached in an outer user namespace");
    assert!(!others.remedy.contains('='), "{}", others.remedy);
    let file = "/proc/sys/user/max_net_namespaces = 2147483647, which no process can reach";
    assert_eq!(others.evidence, [file]);
    assert_eq!(user.cause, Cause::Nesting);
    assert!(!user.remedy.contains('='), "{}", user.remedy);
    let [others, user] = at(false, 20_000);
    assert!(others.why.ends_with("or the limit of the same name in an outer user namespace"), "{others}");
    assert!(others.remedy.starts_with("as root: sysctl user.max_net_namespaces=40000;"), "{others}");
    assert!(user.remedy.contains("sysctl user.max_user_namespaces=40000;"), "{user}");
    let [others, user] = at(true, 20_000);
    assert_eq!(others.why, "the limit user.max_net_namespaces = 20000 is reached");
    assert_eq!(others.remedy, "as root: sysctl user.max_net_namespaces=40000");
    assert_eq!(user.remedy, "as root: sysctl user.max_user_namespaces=40000");
    assert_eq!(at(true, 7).map(|found| found.remedy.contains("=16384")), [true; 2]);
}

#[test]
fn root_without_setfcap_is_not_advised_to_map_itself() {
    let bits = |lacking: &[u32]| lacking.iter().fold(u64::MAX, |set, bit| set & !(1 << bit));
    let found = |lacking: &[u32], code: Code| {
        let mut known = Circumstances::default();
        known.asked.created = NsSet::EMPTY.with(NsKind::Uts);
        known.facts.capabilities = Some(bits(lacking));
        likely(code, Some(Errno::EPERM), Some(&known), &Remedies::LIBRARY).unwrap()
    };
    for code in [Code::UnshareRemaining, Code::MountOn, Code::MountProc] {
        let both = found(&[21, 31, 6, 7], code);
        assert!(both.why.contains("lacks CAP_SYS_ADMIN, and it lacks CAP_SETFCAP"), "{both}");
        assert!(!both.remedy.contains("add "), "{both}");
        assert!(found(&[21], code).remedy.starts_with("add CLONE_NEWUSER"), "{code:?}");
    }
    let setfcap = found(&[31], Code::MappingToolMissing);
    assert!(setfcap.why.starts_with("this root lacks CAP_SETFCAP, and since Linux 5.12"), "{setfcap}");
    assert!(setfcap.remedy.starts_with("map other user ids than 0"), "{setfcap}");
    let more = found(&[31, 7], Code::MappingToolMissing);
    assert!(more.why.starts_with("this root lacks CAP_SETUID and CAP_SETFCAP"), "{more}");
}

#[test]
fn filter_is_a_cause_of_refused_ids_and_of_a_killed_stage() {
    let filter = user(|_, facts| facts.vantage.seccomp = true);
    for code in [Code::BecomeRoot, Code::Setuid, Code::Setgid, Code::Setgroups] {
        let (found, text) = cause(&filter, code, Errno::EPERM);
        assert!(found == Cause::Seccomp && text.contains("setresuid"), "{text}");
        assert_eq!(cause(&user(|_, _| {}), code, Errno::EPERM).0, Cause::Privilege);
    }
    let ended = |signal| {
        let status = WaitStatus::Signaled(signal);
        LaunchError::Bootstrap(StageFailure {
            records: Vec::new(),
            ended: vec![Ended { stage: Some(2), pid: crate::sys::types::Pid(7), status, killed: false }],
            kind: FailureKind::StageFailed,
            asked: CloneFlags::EMPTY,
        })
    };
    let killed = ended(Signal::SYS);
    assert_eq!(killed.cause(None, &Remedies::LIBRARY).map(|found| found.cause), Some(Cause::Seccomp));
    assert!(killed.to_string().starts_with("stage-2 (pid 7) was killed by SIGSYS (a seccomp filter"));
    assert_eq!(ended(Signal::SEGV).cause(None, &Remedies::LIBRARY), None);
}
