//! The two shapes of a start by our own launcher: starts that are only direct, direct starts that are given
//! up for the stages, and the most important starts once more through the stages.

use std::rc::Rc;

use nsexec::bootstrap::{Bootstrap, OomScoreAdj};
use nsexec::launch::Descriptors;
use nsexec::namespace::NsKind;
use nsexec::policy::{Credentials, Session, Setgroups};
use nsexec::sys::types::{CloneFlags, Errno, Fd, Propagation};
use nsexec::timens::TimeOffsets;
use nsexec_audit::sim::{Extra, User};

use super::launching::{CGROUP, RESTRICTED, RULE_SET, WITHOUT_CODE};
use super::refusals::{covered_directory, covered_oom_score, covered_uid_map};
use super::starts::{FIVE, OWN, SEVEN, WIDE, kill_child, mapped, old, ordinary, realistic, tools};
use super::{Scenario, Way, flags, leak};

const OURS: &[Way] = &[Way::Ours];

fn root(name: &'static str, about: &'static str, message: &Bootstrap<'_>) -> Scenario {
    Scenario::new(name, about, &User::root(), message).ways(OURS)
}

/// Scenarios that end with the command.
pub(super) fn starts() -> Vec<Scenario> {
    let mut all = direct();
    all.extend(given_up());
    all.extend(through_the_stages());
    all
}

fn direct() -> Vec<Scenario> {
    let session =
        root("direct_session", "policy: the command leads a session", &Bootstrap::new(flags(&FIVE)));
    let allow = root(
        "direct_setgroups_allow",
        "policy: setgroups stays allowed, and no group is dropped",
        &mapped(&FIVE, WIDE).with_setgroup(true),
    );
    let deny = root("direct_setgroups_deny", "policy: setgroups is denied by root", &mapped(&FIVE, WIDE));
    let drop = root(
        "direct_setgroups_drop",
        "the message: groups are dropped after the maps, before the other namespaces",
        &mapped(&SEVEN, WIDE).with_setgroup(true),
    );
    vec![
        Scenario { session: Session::New, ..session },
        Scenario { policy: allow.policy.with_setgroups(Setgroups::Allow), ..allow },
        Scenario { policy: deny.policy.with_setgroups(Setgroups::Deny), ..deny },
        drop,
        root(
            "direct_oom_score",
            "the launcher sets the oom score before the maps: root of the namespace could not lower it",
            &mapped(&[NsKind::Pid], WIDE).with_oom_score_adj(score("-500")),
        ),
        named("direct_named", "the command gets one named descriptor, marked before the go byte"),
        named("direct_named_old_kernel", "the same without close_range: descriptor by descriptor")
            .setting(old),
        surrounded(root(
            "direct_surroundings",
            "the command gets a directory, descriptors, groups and ids right before its exec",
            &mapped(&[NsKind::Net, NsKind::Uts], WIDE).with_setgroup(true),
        )),
        surrounded(root(
            "direct_surroundings_host",
            "the same without a user namespace: the memory is copied, since the ids change",
            &Bootstrap::new(flags(&[NsKind::Uts])),
        )),
        rooted(root(
            "direct_root",
            "the command gets a root directory of its own, with mounts, before its ids change",
            &mapped(&[NsKind::Mnt, NsKind::Pid, NsKind::Net], WIDE).with_setgroup(true),
        )),
        stages(rooted(root(
            "direct_root_again",
            "the same through the stages",
            &mapped(&[NsKind::Mnt, NsKind::Pid, NsKind::Net], WIDE).with_setgroup(true),
        ))),
        sys_covered(rooted(root(
            "direct_sys_covered",
            "a part of /sys is covered: a new one is refused, and /sys stays as it is",
            &mapped(&[NsKind::Mnt, NsKind::Pid, NsKind::Net], WIDE).with_setgroup(true),
        ))),
        restricted(root(
            "direct_attributes",
            "the command gets a host name, limits, one capability, a rule set and a filter",
            &mapped(&[NsKind::Net, NsKind::Uts], WIDE).with_setgroup(true),
        )),
        with_init(restricted(root(
            "direct_init",
            "process 1 is a minimal init, whose child gets the attributes and executes the command",
            &mapped(&[NsKind::Net, NsKind::Uts, NsKind::Pid], WIDE).with_setgroup(true),
        ))),
        with_init(kill_child("direct_init_host", &Bootstrap::new(flags(&[NsKind::Pid])))),
        stages(with_init(root("direct_init_again", "a minimal init", &mapped(&FIVE, WIDE)))),
        stages(restricted(root(
            "direct_attributes_again",
            "the same through the stages",
            &mapped(&[NsKind::Net, NsKind::Uts], WIDE).with_setgroup(true),
        ))),
        without_code(root(
            "direct_attributes_closed",
            "the same without code of the caller: the other descriptors are closed",
            &mapped(&[NsKind::Net, NsKind::Uts], WIDE).with_setgroup(true),
        )),
        stages(surrounded(root(
            "direct_surroundings_again",
            "the same through the stages",
            &mapped(&[NsKind::Net, NsKind::Uts], WIDE).with_setgroup(true),
        ))),
        root(
            "direct_unshare_filtered",
            "a filter refuses unshare: without a user namespace nothing is left to create",
            &Bootstrap::new(flags(&FIVE)),
        )
        .filtered("unshare", Errno::EPERM),
        kill_child("direct_kill_child", &Bootstrap::new(flags(&FIVE))),
        Scenario::new(
            "direct_old_kernel",
            "Linux 4.18: no pidfd comes with the clone, and no thread id is cached",
            &ordinary(),
            &mapped(&FIVE, OWN).with_rootless_euid(true),
        )
        .setting(old)
        .ways(OURS),
    ]
}

/// Gives the command a working directory, groups, ids, two descriptors under other numbers, and code before
/// its exec.
pub(super) fn surrounded(mut scenario: Scenario) -> Scenario {
    for number in [7, 20, 21] {
        scenario.sim.duplicate(Fd(0), Fd(number));
    }
    let policy = &mut scenario.policy;
    *policy = policy.with_credentials(Credentials::Keep).with_descriptors(Descriptors::Named);
    (policy.launch.uid, policy.launch.gid, policy.launch.groups) = (Some(1000), Some(100), true);
    scenario
}

/// Gives the command every attribute, and the surroundings of [`surrounded`].
pub(super) fn restricted(scenario: Scenario) -> Scenario {
    let mut scenario = surrounded(scenario);
    scenario.sim.terminal();
    scenario.sim.ruleset(RULE_SET);
    scenario.sim.duplicate(Fd(0), CGROUP);
    scenario.session = Session::New;
    scenario.policy.launch.uid = Some(RESTRICTED);
    scenario
}

/// Does the same as [`restricted`], without code of the caller.
pub(super) fn without_code(scenario: Scenario) -> Scenario {
    let mut scenario = restricted(scenario);
    scenario.policy.launch.uid = Some(WITHOUT_CODE);
    scenario
}

/// Makes process 1 a minimal init.
fn with_init(mut scenario: Scenario) -> Scenario {
    scenario.policy.launch.init = true;
    scenario
}

/// Gives the command a root directory of its own, and the surroundings of [`surrounded`].
pub(super) fn rooted(scenario: Scenario) -> Scenario {
    let mut scenario = surrounded(scenario);
    scenario.policy = scenario.policy.with_propagation(Some(Propagation::Private));
    scenario.sim.file("/tmp", Extra::Directory);
    for name in ["null", "zero", "full", "random", "urandom", "tty"] {
        scenario.sim.file(&format!("/dev/{name}"), Extra::Regular(Rc::from(&b""[..])));
    }
    scenario
}

/// Covers a part of /sys, as in a container.
fn sys_covered(mut scenario: Scenario) -> Scenario {
    scenario.sim.cover_sys();
    scenario
}

/// A start that passes on one descriptor.
pub(super) fn named(name: &'static str, about: &'static str) -> Scenario {
    let mut scenario = root(name, about, &mapped(&[NsKind::Net, NsKind::Pid], WIDE));
    scenario.sim.duplicate(Fd(0), Fd(7));
    scenario.policy = scenario.policy.with_descriptors(Descriptors::Named);
    scenario
}

fn score(text: &str) -> OomScoreAdj<'static> {
    OomScoreAdj::parse(leak(text)).expect("a score")
}

/// Direct starts that are given up. The stages then succeed.
fn given_up() -> Vec<Scenario> {
    vec![
        root(
            "given_up_clone",
            "the kernel refuses a clone with namespaces, and not unshare: the stages create them",
            &mapped(&FIVE, WIDE),
        )
        .filtered("CLONE_PIDFD", Errno::EINVAL),
        tools(
            Scenario::new(
                "given_up_map",
                "a map of one id that is not the caller's own: the kernel refuses it, and newuidmap writes it",
                &ordinary(),
                &mapped(&FIVE, "0 100000 1\n")
                    .with_rootless_euid(true)
                    .with_setgroup(true)
                    .with_uidmap_path(c"/usr/bin/newuidmap")
                    .with_gidmap_path(c"/usr/bin/newgidmap"),
            )
            .ways(OURS),
        ),
    ]
}

/// Starts of the other files, through the stages by policy.
fn through_the_stages() -> Vec<Scenario> {
    let realistic = realistic();
    let again = |name: &str| {
        let found = realistic.iter().find(|scenario| scenario.name == name).expect("a scenario of this name");
        stages(found.again())
    };
    let mut all: Vec<Scenario> = [
        "nothing",
        "rootful",
        "rootful_user",
        "rootless_single",
        "oom_score",
        "time_offsets_user",
        "time_offsets_rootless",
        "mount_proc",
        "kill_child",
        "drop_groups",
    ]
    .into_iter()
    .map(again)
    .collect();
    all.push(stages(named("named", "one named descriptor, marked by stage 0")));
    all
}

pub(super) fn stages(scenario: Scenario) -> Scenario {
    let text = |text: String| -> &'static str { Box::leak(text.into_boxed_str()) };
    Scenario {
        name: text(format!("stages_{}", scenario.name)),
        about: text(format!("through the stages by policy: {}", scenario.about)),
        policy: scenario.policy.with_stages(true),
        ways: OURS,
        ..scenario
    }
}

/// Scenarios that end with an error.
pub(super) fn refusals() -> Vec<Scenario> {
    let single = mapped(&[], "0 100000 1\n").with_rootless_euid(true);
    let uts = Bootstrap::new(CloneFlags::NEWUTS);
    let missing = |name, about, message: &Bootstrap<'_>| {
        let scenario =
            root(name, about, message).refused("failed to execute command: No such file or directory");
        Scenario { candidates: b"/usr/local/bin/missing\0/bin/missing\0", ..scenario }
    };
    let mut all = vec![
        Scenario::new(
            "direct_map_without_tool",
            "a map of one id that is not the caller's own, and no tool",
            &ordinary(),
            &single,
        )
        .refused("mapping tool not present")
        .ways(OURS),
        Scenario::new(
            "given_up_map_no_tool",
            "the same with the path of a tool that does not exist: the stages report it",
            &ordinary(),
            &single.with_uidmap_path(c"/usr/bin/newuidmap"),
        )
        .refused("failed to execv /usr/bin/newuidmap: No such file or directory")
        .ways(OURS),
        Scenario::new(
            "direct_oom_score_refused",
            "a score that an ordinary user may not set: the launcher reports it",
            &ordinary(),
            &mapped(&[], OWN).with_rootless_euid(true).with_oom_score_adj(score("-500")),
        )
        .refused("oom_score_adj: Permission denied")
        .ways(OURS),
        root(
            "given_up_net_limit",
            "user.max_net_namespaces is reached: the stages name the step",
            &Bootstrap::new(flags(&FIVE)),
        )
        .without_room_for(NsKind::Net)
        .refused("failed to unshare remaining namespaces: No space left on device"),
        root(
            "direct_net_limit",
            "the same below a user namespace: the process names the step",
            &mapped(&FIVE, WIDE),
        )
        .without_room_for(NsKind::Net)
        .refused("failed to unshare remaining namespaces: No space left on device"),
        root(
            "direct_time_entry",
            "the new time namespace cannot be entered",
            &Bootstrap::new(CloneFlags::NEWTIME)
                .with_timens_offsets(TimeOffsets::parse(c"boottime 100 0\n").expect("offsets")),
        )
        .filtered("setns", Errno::EPERM)
        .refused("failed to enter the new time namespace: Operation not permitted"),
        Scenario {
            session: Session::New,
            ..root("direct_setsid_refused", "no session of its own", &uts)
                .filtered("setsid", Errno::EPERM)
                .refused("setsid failed: Operation not permitted")
        },
        root(
            "direct_setgroups_refused",
            "the groups cannot be dropped",
            &mapped(&[], WIDE).with_setgroup(true),
        )
        .filtered("setgroups", Errno::EPERM)
        .refused("setgroups failed: Operation not permitted"),
        missing(
            "direct_command_missing",
            "there is no such command in the new namespaces",
            &mapped(&FIVE, WIDE),
        ),
        stages(missing("command_missing_user", "there is no such command", &mapped(&FIVE, WIDE))),
        stages(
            root("unshare_filtered", "a seccomp filter of an outer container", &uts)
                .filtered("unshare", Errno::EPERM)
                .refused("failed to unshare remaining namespaces: Operation not permitted"),
        ),
        covered_uid_map("direct_covered_uid_map", "/proc/101"),
        covered_directory("direct_covered_directory", "/proc/101"),
        covered_oom_score("direct_covered_oom_score", "/proc/101"),
        stages(covered_uid_map("covered_uid_map", "/proc/102")),
        stages(covered_directory("covered_directory", "/proc/102")),
        stages(covered_oom_score("covered_oom_score", "/proc/101"))
            .refused("failed to update /proc/self/oom_score_adj, which is a mount point"),
        stages(
            root("root_not_mapped", "a map without id 0", &mapped(&[], "1 100000 65536\n"))
                .refused("failed to become root in user namespace: Invalid argument"),
        ),
    ];
    let mut script = root("direct_not_executable", "the command is not executable", &uts)
        .refused("failed to execute command: Permission denied");
    script.sim.file("/bin/script", Extra::Regular(b"#!".as_slice().into()));
    all.push(Scenario { candidates: b"/bin/script\0", ..script });
    all
}
