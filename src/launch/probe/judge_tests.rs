//! Each cause from facts made by hand.

use std::collections::BTreeMap;
use std::string::{String, ToString};
use std::vec::Vec;

use super::judge::judge;
use super::report::{Question, Report, Verdict};
use super::tries::{Outcome, Tries, Try};
use crate::deciders::namespace::{NsKind, NsSet};
use crate::launch::causes::{Account, Cause, Facts, IdFacts, Tool};
use crate::launch::subordinate::Side;
use crate::sys::types::Errno;
use crate::words::error::Code;

const CREATE_USER: Question = Question::Create(NsKind::User);
const CREATE_NET: Question = Question::Create(NsKind::Net);

/// An ordinary user on a usual machine, with subordinate ids.
fn user() -> Facts {
    let side = |tool: &str| IdFacts {
        own: 1000,
        map: Some(Vec::from([(0, 0, u32::MAX)])),
        ranges: Some(Vec::from([(100_000, 65_536)])),
        free: Some(165_536),
        tool: Some(Tool { path: tool.to_string(), set_user_id: true, ..Tool::default() }),
    };
    let mut facts = Facts {
        capabilities: Some(0),
        kinds: NsSet::ALL,
        limits: NsKind::ALL.into_iter().map(|kind| (kind.name().to_string(), 1000)).collect(),
        account: Account::Group(1000),
        real_gid: 1000,
        users: side("/usr/bin/newuidmap"),
        groups: side("/usr/bin/newgidmap"),
        ..Facts::default()
    };
    facts.vantage.uid = 1000;
    facts.vantage.user = Some("ann".to_string());
    facts.vantage.first_user_namespace = Some(true);
    facts.vantage.first_pid_namespace = Some(true);
    facts.proc.is_own = Some(true);
    facts
}

fn with(change: impl FnOnce(&mut Facts)) -> Facts {
    let mut facts = user();
    change(&mut facts);
    facts
}

/// Returns limits of 0 for these kinds.
fn limits(kinds: &[NsKind]) -> BTreeMap<String, u64> {
    kinds.iter().map(|kind| (kind.name().to_string(), 0)).collect()
}

fn failed(code: Code, errno: Errno) -> Outcome {
    Outcome::Failed { step: Some((code, Some(errno))), killed_by_filter: false, text: "it failed".into() }
}

fn report(facts: &Facts, question: Question, result: Outcome, invalid_flags: Option<Errno>) -> Report {
    let all = Vec::from([Try { question, with_user: true, result }]);
    judge(facts, &Tries { all, invalid_flags })
}

/// Returns cause, words and remedy of a "no".
fn no(facts: &Facts, question: Question, result: Outcome) -> (Cause, String, String) {
    match report(facts, question, result, Some(Errno::EINVAL)).verdict(question) {
        Some(Verdict::No { cause, why, remedy }) => (*cause, why.clone(), remedy.clone()),
        other => panic!("{other:?}"),
    }
}

fn cause(facts: &Facts, question: Question, code: Code, errno: Errno) -> Cause {
    no(facts, question, failed(code, errno)).0
}

#[test]
fn refused_user_namespace_has_the_cause_that_a_fact_proves() {
    let refused = |facts: &Facts, errno| cause(facts, CREATE_USER, Code::UnshareUser, errno);
    let sysctl = with(|facts| facts.userns_clone = Some(0));
    assert_eq!(refused(&sysctl, Errno::EPERM), Cause::UsernsSysctl);
    let unmapped = with(|facts| facts.users.map = Some(Vec::new()));
    assert_eq!(refused(&unmapped, Errno::EPERM), Cause::UnmappedCaller);
    let chroot = with(|facts| facts.vantage.chroot = Some(true));
    assert_eq!(refused(&chroot, Errno::EPERM), Cause::Chroot);
    let filter = with(|facts| facts.vantage.seccomp = true);
    assert_eq!(refused(&filter, Errno::EPERM), Cause::Seccomp);
    assert_eq!(refused(&filter, Errno::ENOSYS), Cause::Seccomp);
    let apparmor = with(|facts| facts.apparmor_restricts = Some(1));
    assert_eq!(refused(&apparmor, Errno::EACCES), Cause::AppArmor);
    let selinux = with(|facts| {
        facts.selinux_enforcing = Some(true);
        facts.vantage.profile = Some("system_u:system_r:web_t:s0".to_string());
    });
    assert_eq!(refused(&selinux, Errno::EACCES), Cause::SeLinux);
    assert_eq!(refused(&user(), Errno::EACCES), Cause::SecurityModule);
    assert_eq!(refused(&user(), Errno::EPERM), Cause::Chroot, "no other cause of EPERM is left");
    assert_eq!(refused(&user(), Errno::EINVAL), Cause::Kernel);
    assert_eq!(refused(&user(), Errno::ENOSYS), Cause::Kernel);
}

#[test]
fn filter_is_proven_by_the_error_of_invalid_flags() {
    // A chroot too, which is not the cause of this error.
    let facts = with(|facts| facts.vantage.chroot = Some(true));
    let result = failed(Code::UnshareUser, Errno::EPERM);
    let report = report(&facts, CREATE_USER, result, Some(Errno::EPERM));
    assert!(matches!(report.verdict(CREATE_USER), Some(Verdict::No { cause: Cause::Seccomp, .. })));
    let evidence = &report.answers.iter().find(|answer| answer.question == CREATE_USER).unwrap().evidence;
    assert!(
        evidence.iter().any(|fact| fact.contains("flags that create no namespace, and not with EINVAL")),
        "{evidence:?}"
    );
    let killed = Outcome::Failed { step: None, killed_by_filter: true, text: String::new() };
    assert_eq!(no(&user(), CREATE_NET, killed).0, Cause::Seccomp);
}

#[test]
fn limits_and_nesting_are_distinguished() {
    let none = with(|facts| facts.limits = limits(&[NsKind::User, NsKind::Net]));
    let (found, why, remedy) = no(&none, CREATE_NET, failed(Code::UnshareRemaining, Errno::ENOSPC));
    assert_eq!((found, why.as_str()), (Cause::Limit, "user.max_net_namespaces is 0"));
    assert!(remedy.contains("sysctl user.max_net_namespaces="), "{remedy}");
    assert_eq!(cause(&none, CREATE_USER, Code::UnshareUser, Errno::ENOSPC), Cause::Limit);
    let nested = with(|facts| facts.vantage.first_user_namespace = Some(false));
    assert_eq!(cause(&nested, CREATE_USER, Code::UnshareUser, Errno::ENOSPC), Cause::Nesting);
    assert_eq!(cause(&user(), CREATE_USER, Code::UnshareUser, Errno::EUSERS), Cause::Limit);
}

#[test]
fn absent_kind_is_the_kernels() {
    let time = Question::Create(NsKind::Time);
    let facts = with(|facts| facts.kinds = NsSet::ALL.without(NsKind::Time));
    let (found, why, _) = no(&facts, time, failed(Code::UnshareRemaining, Errno::EINVAL));
    assert_eq!((found, why.as_str()), (Cause::Kernel, "this kernel has no time namespaces"));
    let join = Question::Join(NsKind::Time);
    assert_eq!(no(&facts, join, Outcome::NotTried("it could not be created")).0, Cause::Kernel);
    let report = report(&user(), join, Outcome::NotTried("it could not be created"), None);
    assert!(matches!(report.verdict(join), Some(Verdict::CannotTell { .. })));
}

#[test]
fn map_of_one_id_fails_for_apparmor_or_proc() {
    let failing = |facts: &Facts, errno| cause(facts, Question::MapOneId, Code::UidMap, errno);
    let apparmor = with(|facts| facts.apparmor_restricts = Some(1));
    assert_eq!(failing(&apparmor, Errno::EPERM), Cause::AppArmor);
    assert_eq!(failing(&user(), Errno::EROFS), Cause::ReadOnlyProc);
    let absent = with(|facts| facts.proc.is_own = Some(false));
    assert_eq!(failing(&absent, Errno::ENOENT), Cause::NoProc);
}

#[test]
fn powerless_mapping_tool_has_its_cause() {
    let of = |change: fn(&mut Facts)| {
        no(&with(change), Question::MapUserIds, Outcome::NotTried("the mapping tool has no privileges")).0
    };
    assert_eq!(of(|facts| facts.vantage.no_new_privs = true), Cause::NoNewPrivs);
    assert_eq!(of(|facts| facts.users.tool.as_mut().unwrap().nosuid = true), Cause::NosuidMount);
    assert_eq!(of(|facts| facts.users.tool.as_mut().unwrap().set_user_id = false), Cause::PowerlessTool);
    let capable = with(|facts| {
        let tool = facts.users.tool.as_mut().unwrap();
        (tool.set_user_id, tool.file_capabilities) = (false, true);
    });
    assert_eq!(capable.powerless(Side::Users), None);
    let missing = with(|facts| facts.groups.tool = Some(Tool::default()));
    let result = Outcome::Failed { step: None, killed_by_filter: false, text: "no tool".into() };
    assert_eq!(no(&missing, Question::MapGroupIds, result).0, Cause::NoTool);
}

#[test]
fn free_range_is_proposed_with_the_name_of_the_user() {
    let result = || Outcome::Failed { step: None, killed_by_filter: false, text: "no range".into() };
    let none = with(|facts| facts.users.ranges = Some(Vec::new()));
    let (found, _, remedy) = no(&none, Question::MapUserIds, result());
    assert_eq!(found, Cause::NoSubordinateIds);
    assert_eq!(remedy, "as root: usermod --add-subuids 165536-231071 ann");
    let nameless = with(|facts| {
        facts.groups.ranges = Some(Vec::new());
        facts.vantage.user = None;
    });
    let (_, _, remedy) = no(&nameless, Question::MapGroupIds, result());
    assert_eq!(remedy, "as root, add the line `1000:165536:65536` to /etc/subgid");
    let both = with(|facts| {
        facts.users.ranges = Some(Vec::new());
        facts.vantage.no_new_privs = true;
    });
    let (found, why, _) = no(&both, Question::MapUserIds, result());
    assert_eq!(found, Cause::NoNewPrivs);
    assert!(why.contains("no_new_privs") && why.contains("/etc/subuid has no range"), "{why}");
    let one = with(|facts| facts.users.map = Some(Vec::from([(1000, 7, 1)])));
    assert_eq!(no(&one, Question::MapUserIds, result()).0, Cause::OneId);
}

#[test]
fn refused_proc_mount_is_a_masked_or_read_only_one() {
    let refused = |facts: &Facts| cause(facts, Question::MountProc, Code::MountOn, Errno::EPERM);
    let masked = with(|facts| facts.proc.covered = Vec::from(["/proc/kcore".to_string()]));
    assert_eq!(refused(&masked), Cause::MaskedProc);
    assert_eq!(refused(&with(|facts| facts.proc.read_only = true)), Cause::ReadOnlyProc);
    assert_eq!(refused(&with(|facts| facts.proc.is_own = Some(false))), Cause::NoProc);
}

#[test]
fn failure_that_passes_is_no_answer() {
    for (code, errno) in [
        (Code::Start, Errno::EAGAIN),
        (Code::SpawnStage1, Errno::EAGAIN),
        (Code::MakeSyncPipe, Errno::EMFILE),
        (Code::UnshareRemaining, Errno::ENOMEM),
    ] {
        let report = report(&user(), CREATE_NET, failed(code, errno), None);
        assert!(matches!(report.verdict(CREATE_NET), Some(Verdict::CannotTell { .. })), "{code:?}");
        assert!(matches!(report.verdict(CREATE_USER), Some(Verdict::CannotTell { .. })), "not tried");
    }
}

#[test]
fn text_has_one_line_for_each_question_and_the_remedy_below_a_no() {
    let facts = with(|facts| {
        facts.limits = limits(&[NsKind::Net]);
        facts.vantage.container = Vec::from(["/.dockerenv exists".to_string()]);
        facts.vantage.agreeing = Vec::from(["the root directory is an overlay".to_string()]);
    });
    let result = failed(Code::UnshareRemaining, Errno::ENOSPC);
    let text = report(&facts, CREATE_NET, result, None).to_string();
    let expected = "create net     no: user.max_net_namespaces is 0\n               \
                    to do: as root: sysctl user.max_net_namespaces=16384\n";
    assert!(text.contains(expected), "{text}");
    assert!(text.contains("the answers hold for this place only, not for its host"), "{text}");
    assert_eq!(text.lines().count(), 2 + Question::all().len() + 1, "{text}");
    // Without the traces of a container nothing is said about a host.
    let yes = report(&user(), CREATE_NET, Outcome::Works, None).to_string();
    assert!(yes.contains("create net     yes, with a user namespace\n") && !yes.contains("host"), "{yes}");
}

#[cfg(feature = "serde")]
#[test]
fn report_is_serialised_with_stable_names() {
    let facts = with(|facts| facts.limits = limits(&[NsKind::Net]));
    let report = report(&facts, CREATE_NET, failed(Code::UnshareRemaining, Errno::ENOSPC), None);
    let answer = report.answers.iter().find(|answer| answer.question == CREATE_NET).unwrap();
    let text = serde_json::to_string(answer).unwrap();
    let expected = r#"{"question":"create net","verdict":{"is":"no","cause":"limit","why":"user.max_net_namespaces is 0","#;
    assert!(text.starts_with(expected), "{text}");
    assert!(text.contains(
        r#""evidence":["with a new user namespace: the step unshare-remaining failed with ENOSPC","#
    ));
    assert!(serde_json::to_string(&report).unwrap().starts_with(r#"{"vantage":{"kernel":"#));
}

#[test]
fn apparmor_does_not_restrict_root() {
    let restricted = with(|facts| facts.apparmor_restricts = Some(1));
    let of = |facts: &Facts| cause(facts, CREATE_NET, Code::UnshareRemaining, Errno::EPERM);
    assert_eq!(of(&restricted), Cause::AppArmor);
    let root = with(|facts| {
        facts.apparmor_restricts = Some(1);
        facts.capabilities = Some(u64::MAX);
        facts.vantage.seccomp = true;
    });
    assert_eq!(of(&root), Cause::Seccomp);
}

/// The launcher needs /proc to write the maps. Whether the kernel would create a namespace is not visible
/// then.
#[test]
fn without_proc_the_report_tells_what_it_cannot_see() {
    let absent = with(|facts| {
        facts.proc.is_own = Some(false);
        facts.vantage.first_user_namespace = None;
        facts.vantage.first_pid_namespace = None;
    });
    for question in [CREATE_USER, CREATE_NET, Question::Join(NsKind::Net)] {
        let report = report(&absent, question, failed(Code::UidMap, Errno::ENOENT), None);
        let Some(Verdict::CannotTell { why }) = report.verdict(question) else { panic!("{report}") };
        assert!(why.contains("/proc/PID/uid_map") && why.contains("mount -t proc proc /proc"), "{why}");
    }
    let one = report(&absent, Question::MapOneId, failed(Code::UidMap, Errno::ENOENT), None);
    assert!(matches!(one.verdict(Question::MapOneId), Some(Verdict::No { cause: Cause::NoProc, .. })));
    let text = one.to_string();
    assert!(
        text.contains("This process cannot see whether it is in a user namespace, or is in a pid"),
        "{text}"
    );
}

/// The mapping tools refuse a group other than that of the account.
#[test]
fn other_group_than_that_of_the_account_is_a_cause() {
    let other = with(|facts| facts.real_gid = 5);
    let result = Outcome::Failed {
        step: Some((Code::MappingToolStatus, None)),
        killed_by_filter: false,
        text: "it".into(),
    };
    assert_eq!(no(&other, Question::MapUserIds, result).0, Cause::GroupOfAccount);
}

/// A user namespace without any map does not map the caller's own id either.
#[test]
fn unmapped_caller_is_the_cause_of_refused_ranges() {
    let unmapped = with(|facts| {
        facts.users = IdFacts { own: 65_534, map: Some(Vec::new()), ..facts.users.clone() };
    });
    let (found, why, _) = no(&unmapped, Question::MapUserIds, Outcome::NotTried("it"));
    assert_eq!(found, Cause::UnmappedCaller);
    assert_eq!(why, "the caller's own user id 65534 is not mapped in its user namespace");
}

#[test]
fn evidence_does_not_repeat_the_remedy() {
    let none = with(|facts| facts.users.ranges = Some(Vec::new()));
    let text = none.no_range(false).to_string();
    let result = Outcome::Failed { step: None, killed_by_filter: false, text };
    let report = report(&none, Question::MapUserIds, result, None);
    let answer = report.answers.iter().find(|answer| answer.question == Question::MapUserIds).unwrap();
    let expected = "with a new user namespace: /etc/subuid has no range for ann";
    assert_eq!(answer.evidence.first().map(String::as_str), Some(expected));
}

#[test]
fn root_without_capabilities_to_map_is_not_told_about_tools() {
    let root = |lacking: u64| {
        let facts = with(|facts| {
            facts.vantage.uid = 0;
            (facts.users.own, facts.groups.own) = (0, 0);
            facts.capabilities = Some(!lacking);
        });
        no(&facts, Question::MapUserIds, Outcome::NotTried("it")).1
    };
    assert!(root(1 << 7 | 1 << 31).starts_with("this root lacks CAP_SETUID and CAP_SETFCAP"));
    assert!(root(1 << 7).starts_with("this root lacks CAP_SETUID"));
}
