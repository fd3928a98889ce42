//! Starts of our own launcher through a child: those that no other file has, and the joins of the other files
//! once more, through the stages.

use nsexec::bootstrap::{Bootstrap, OomScoreAdj};
use nsexec::launch::shape::{Shape, shape};
use nsexec::log::Level;
use nsexec::namespace::NsKind;
use nsexec::policy::{Credentials, Session, Setgroups};
use nsexec::sys::types::{CloneFlags, Errno, Propagation};
use nsexec::timens::TimeOffsets;
use nsexec_audit::sim::{Container, Extra, Sim, User};

use super::shapes::{stages, surrounded};
use super::starts::{FIVE, SEVEN, WIDE, eight, foreign_net, old, ordinary, own_container};
use super::{Scenario, Way, flags, leak, paths_of};

const OURS: &[Way] = &[Way::Ours];

fn root(name: &'static str, about: &'static str, message: &Bootstrap<'_>) -> Scenario {
    Scenario::new(name, about, &User::root(), message).ways(OURS)
}

fn nothing() -> Bootstrap<'static> {
    Bootstrap::new(CloneFlags::EMPTY)
}

fn offsets(text: &str) -> TimeOffsets<'static> {
    TimeOffsets::parse(leak(text)).expect("offsets")
}

fn score(text: &str) -> OomScoreAdj<'static> {
    OomScoreAdj::parse(leak(text)).expect("a score")
}

/// A container with a user namespace and a namespace of this kind; returns the list to join both.
fn user_and(sim: &mut Sim, kind: NsKind) -> String {
    let pid = sim.container(&Container { maker: User::root(), maps: Some((WIDE, WIDE)), kinds: &[kind] });
    paths_of(pid, &[NsKind::User, kind])
}

/// Scenarios that end with the command.
pub(super) fn starts() -> Vec<Scenario> {
    let time = Bootstrap::new(CloneFlags::NEWTIME);
    let moved = time.with_timens_offsets(offsets("monotonic 600 0\n"));
    let session = root("child_session", "policy: the command leads a session", &nothing());
    let keep = root("child_keep", "policy: the ids and groups stay", &nothing());
    let groups = root("child_groups", "policy: the groups are dropped if the namespace lets us", &nothing());
    let mounts = root(
        "child_create",
        "joins a user and a uts namespace, and creates others in them: mounts made private, a fresh /proc",
        &Bootstrap::new(flags(&[NsKind::Mnt, NsKind::Pid, NsKind::Net])),
    )
    .joining(|sim| user_and(sim, NsKind::Uts));
    let killed = root("child_kill_child", "policy: the command dies with the launcher", &nothing());
    let records = root("child_debug", "root enters all eight namespaces, with every record", &nothing());
    vec![
        surrounded(root(
            "child_surroundings",
            "the command gets a directory, descriptors, groups and ids in the user namespace that it joins",
            &nothing(),
        ))
        .joining(|sim| user_and(sim, NsKind::Uts)),
        root("child_time", "a time namespace, which the command's process enters by its fork", &time),
        root(
            "child_time_and_others",
            "the same with the namespaces of an ordinary container, without /proc",
            &Bootstrap::new(flags(&SEVEN)),
        )
        .setting(|settings| settings.proc_masked = true),
        root(
            "child_offsets",
            "a join, a new time namespace with offsets, and an oom score: stage 1 writes both",
            &moved.with_oom_score_adj(score("-500")),
        )
        .joining(foreign_net),
        Scenario {
            policy: mounts.policy.with_propagation(Some(Propagation::Private)).with_mount_proc(true),
            ..mounts
        },
        Scenario { session: Session::New, ..session }.joining(foreign_net),
        Scenario { policy: keep.policy.with_credentials(Credentials::Keep), ..keep }.joining(foreign_net),
        Scenario { policy: groups.policy.with_setgroups(Setgroups::DropIfAllowed), ..groups }.joining(eight),
        Scenario { policy: killed.policy.with_kill_child(true), ..killed }.joining(foreign_net),
        Scenario { level: Level::Debug, ..records }.joining(eight),
        root("child_old_kernel", "Linux 4.18: no pidfd reports the end of stage 1", &time).setting(old),
        root("child_small_buffers", "sockets of 2 bytes: the pid comes in two pieces", &nothing())
            .joining(foreign_net)
            .setting(|settings| settings.socket_buffer = 2),
    ]
}

/// Scenarios that end with an error.
pub(super) fn refusals() -> Vec<Scenario> {
    let user_and_uts = |sim: &mut Sim| user_and(sim, NsKind::Uts);
    let missing = root("child_command_missing", "there is no such command", &nothing()).joining(foreign_net);
    let no_session = root("child_setsid_refused", "no session of its own", &nothing()).joining(foreign_net);
    let net = Bootstrap::new(CloneFlags::NEWNET);
    let rest = "failed to unshare remaining namespaces";
    let at = |text: &str| nothing().with_timens_offsets(offsets(text));
    let no_process = |name, about, limit: usize| {
        root(name, about, &nothing())
            .joining(|_| "net:/proc/self/ns/net".into())
            .setting(|settings| settings.processes = limit)
    };
    let mut all = vec![
        no_process("child_no_process_left_1", "the limit of processes is reached at stage 1", 1)
            .refused("unable to spawn stage-1: Resource temporarily unavailable"),
        no_process("child_no_process_left_2", "the limit of processes is reached at stage 2", 2)
            .refused("unable to spawn stage-2: Resource temporarily unavailable"),
        root("child_net_limit", "user.max_net_namespaces is reached in the joined namespace", &net)
            .joining(user_and_uts)
            .without_room_for(NsKind::Net)
            .refused("failed to unshare remaining namespaces: No space left on device"),
        root("child_unshare_filtered", "a seccomp filter of an outer container", &net)
            .joining(user_and_uts)
            .filtered("unshare", Errno::EPERM)
            .refused(rest),
        root(
            "child_time_filtered",
            "the same for a time namespace alone",
            &Bootstrap::new(CloneFlags::NEWTIME),
        )
        .filtered("unshare", Errno::EPERM)
        .refused(rest),
        root("child_offsets_late", "offsets for a time namespace that is in use", &at("monotonic 1 0\n"))
            .joining(foreign_net)
            .refused("failed to update /proc/self/timens_offsets: Permission denied"),
        root(
            "child_offsets_range",
            "a clock that would be negative",
            &Bootstrap::new(CloneFlags::NEWTIME).with_timens_offsets(offsets("boottime -100000 0\n")),
        )
        .joining(foreign_net)
        .refused("failed to update /proc/self/timens_offsets: Numerical result out of range"),
        Scenario::new(
            "child_oom_score_refused",
            "a score that an ordinary user may not set: refused before the first join",
            &ordinary(),
            &nothing().with_rootless_euid(true).with_oom_score_adj(score("-500")),
        )
        .ways(OURS)
        .joining(own_container)
        .refused("failed to update /proc/self/oom_score_adj: Permission denied"),
        Scenario::new(
            "child_offsets_rootless",
            "offsets of an ordinary user who enters its own container: the file belongs to root, as for stage 0",
            &ordinary(),
            &Bootstrap::new(CloneFlags::NEWTIME)
                .with_timens_offsets(offsets("monotonic 600 0\n"))
                .with_rootless_euid(true),
        )
        .ways(OURS)
        .joining(own_container)
        .refused("failed to update /proc/self/timens_offsets: Permission denied"),
        Scenario { candidates: b"/usr/local/bin/missing\0/bin/missing\0", ..missing }
            .refused("failed to execute command: No such file or directory"),
        Scenario { session: Session::New, ..no_session }
            .filtered("setsid", Errno::EPERM)
            .refused("setsid failed: Operation not permitted"),
        root("child_join_fifo", "a FIFO, which would hold a plain open for ever", &nothing())
            .joining(|sim| {
                sim.file("/run/netns/blue", Extra::Fifo);
                "net:/run/netns/blue".into()
            })
            .refused("failed to open /run/netns/blue"),
        root("child_join_wrong_kind", "a namespace of another kind", &nothing())
            .joining(|sim| user_and(sim, NsKind::Uts).replace("uts:", "net:"))
            .refused("failed to setns into net namespace: Invalid argument"),
        Scenario::new(
            "child_join_unprivileged",
            "namespaces that an ordinary user may not join: all are named",
            &ordinary(),
            &nothing().with_rootless_euid(true),
        )
        .ways(OURS)
        .joining(|sim| {
            let pid = sim.container(&Container { maker: User::root(), maps: None, kinds: &FIVE });
            for (path, kind) in [("/run/netns/blue", NsKind::Net), ("/run/utsns/blue", NsKind::Uts)] {
                sim.file(path, Extra::Namespace(sim.namespace(pid, kind)));
            }
            "uts:/run/utsns/blue,net:/run/netns/blue".into()
        })
        .refused("failed to setns(0x4000000) into uts namespace (with path /run/utsns/blue)"),
    ];
    let mut covered = root(
        "child_covered_oom_score",
        "another process's oom score is bound over that of stage 1",
        &nothing().with_oom_score_adj(score("5")),
    )
    .joining(foreign_net)
    .refused("failed to update /proc/self/oom_score_adj, which is a mount point");
    covered.sim.bind("/proc/100/oom_score_adj", "/proc/103/oom_score_adj");
    all.push(covered);
    all
}

/// Returns the scenarios of the other files that our launcher starts through a child, through the stages by
/// policy. Scenarios whose start differs between the shapes on purpose are left out.
pub(super) fn through_the_stages(all: &[Scenario]) -> Vec<Scenario> {
    let is_child = |scenario: &&Scenario| {
        let asked = nsexec::bootstrap::decode(&scenario.message, scenario.policy.dialect).ok();
        scenario.ways.contains(&Way::Ours)
            && !scenario.name.starts_with("child_")
            && asked.is_some_and(|(asked, _)| shape(&asked, &scenario.policy) == Shape::Child)
    };
    all.iter().filter(is_child).map(|scenario| stages(scenario.again())).collect()
}
