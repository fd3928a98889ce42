//! Starts that end with an init or a command.

use nsexec::bootstrap::{Bootstrap, OomScoreAdj};
use nsexec::launch::script::ChildSignals;
use nsexec::log::Level;
use nsexec::namespace::NsKind;
use nsexec::policy::{Credentials, Setgroups};
use nsexec::sys::types::{CloneFlags, Errno, Propagation, Signal, SignalSet};
use nsexec::timens::TimeOffsets;
use nsexec_audit::sim::{Allowance, Container, Ended, Extra, Program, Settings, Sim, User, cap};

use super::{Scenario, Way, flags, leak, map, paths_of};

/// The namespaces of a realistic rootful container.
pub(crate) const FIVE: [NsKind; 5] = [NsKind::Mnt, NsKind::Uts, NsKind::Ipc, NsKind::Pid, NsKind::Net];
/// All kinds but the user namespace.
pub(crate) const SEVEN: [NsKind; 7] =
    [NsKind::Mnt, NsKind::Uts, NsKind::Ipc, NsKind::Pid, NsKind::Cgroup, NsKind::Net, NsKind::Time];
/// A map that root writes for a container.
pub(super) const WIDE: &str = "0 100000 65536\n";
/// A map that an ordinary user may write without help: its own id.
pub(super) const OWN: &str = "0 1000 1\n";
/// A map that needs newuidmap: the user's own id, and its subordinate ids.
pub(super) const SUBORDINATE: &str = "0 1000 1\n1 100000 65535\n";

const RUNC: &[Way] = &[Way::Init, Way::Exec];

/// A message for namespaces of these kinds and a user namespace with these maps.
pub(super) fn mapped(kinds: &[NsKind], ids: &str) -> Bootstrap<'static> {
    Bootstrap::new(flags(kinds).union(CloneFlags::NEWUSER)).with_uid_map(map(ids)).with_gid_map(map(ids))
}

/// A message of an unprivileged user, with the paths of the mapping tools.
pub(super) fn with_tools() -> Bootstrap<'static> {
    mapped(&FIVE, SUBORDINATE)
        .with_rootless_euid(true)
        .with_setgroup(true)
        .with_uidmap_path(c"/usr/bin/newuidmap")
        .with_gidmap_path(c"/usr/bin/newgidmap")
}

/// Adds the mapping tools, with the user's allowance.
pub(super) fn tools(scenario: Scenario) -> Scenario {
    let allowance = Allowance { own: 1000, first: 100_000, count: 65_536 };
    scenario
        .program("/usr/bin/newuidmap", Program::mapping_tool("uid_map", allowance))
        .program("/usr/bin/newgidmap", Program::mapping_tool("gid_map", allowance))
}

pub(super) fn ordinary() -> User {
    User::ordinary(1000)
}

fn offsets(text: &str) -> TimeOffsets<'static> {
    TimeOffsets::parse(leak(text)).expect("offsets")
}

/// Returns a name that ends in the kind's name, for the rest of the test.
fn named(prefix: &str, kind: NsKind) -> &'static str {
    Box::leak(format!("{prefix}_{}", kind.name()).into_boxed_str())
}

/// Each kind of namespace alone, created.
pub(super) fn created() -> Vec<Scenario> {
    let one = |kind: NsKind| {
        let message = match kind {
            NsKind::User => mapped(&[], WIDE),
            kind => Bootstrap::new(kind.flag()),
        };
        Scenario::new(
            named("create", kind),
            "one kind of namespace, created by root",
            &User::root(),
            &message,
        )
        .ways(&[Way::Init])
    };
    NsKind::ALL.into_iter().map(one).collect()
}

/// Each kind of namespace alone, joined.
pub(super) fn joined() -> Vec<Scenario> {
    let one = |kind: NsKind| {
        let (maps, kinds) = match kind {
            NsKind::User => (Some((WIDE, WIDE)), vec![]),
            kind => (None, vec![kind]),
        };
        let about = "one kind of namespace, joined by root";
        Scenario::new(named("join", kind), about, &User::root(), &Bootstrap::new(CloneFlags::EMPTY))
            .joining(|sim| {
                let pid = sim.container(&Container { maker: User::root(), maps, kinds: &kinds });
                paths_of(pid, &[kind])
            })
            .ways(&[Way::Exec])
    };
    NsKind::ALL.into_iter().map(one).collect()
}

/// The realistic sets.
pub fn realistic() -> Vec<Scenario> {
    let mut all = rootful();
    all.extend(rootless());
    all.extend(joins());
    all.extend(clocks());
    all.extend(of_our_own());
    all
}

fn rootful() -> Vec<Scenario> {
    let root = User::root();
    let score = OomScoreAdj::parse(c"-500").expect("a score");
    let scenario = |name, about, message: Bootstrap<'_>| Scenario::new(name, about, &root, &message);
    let user = mapped(&FIVE, WIDE).with_setgroup(true);
    vec![
        scenario(
            "nothing",
            "no namespace at all: three processes, and a new session",
            Bootstrap::new(CloneFlags::EMPTY),
        ),
        scenario("rootful", "what an ordinary container of root creates", Bootstrap::new(flags(&FIVE))),
        scenario("rootful_user", "root creates a user namespace too, maps it, and drops its groups", user),
        Scenario {
            level: Level::Debug,
            ..scenario("rootful_user_debug", "the same, with every record", user).ways(&[Way::Init])
        },
        scenario("rootful_user_groups", "no word on setgroups: the groups stay", mapped(&FIVE, WIDE))
            .ways(&[Way::Init]),
        scenario(
            "oom_score",
            "the oom score is set before anything else, and inherited",
            Bootstrap::new(CloneFlags::NEWNET).with_oom_score_adj(score),
        ),
        scenario(
            "many_extents",
            "a map of more than five lines, which the kernel sorts",
            mapped(&[], "0 100000 1\n1 200000 1\n2 300000 1\n7 700000 1\n6 600000 1\n5 500000 1\n"),
        )
        .ways(&[Way::Init]),
    ]
}

fn rootless() -> Vec<Scenario> {
    let own = mapped(&FIVE, OWN).with_rootless_euid(true);
    vec![
        Scenario::new(
            "rootless_single",
            "an ordinary user maps itself alone, and denies setgroups for that",
            &ordinary(),
            &own,
        ),
        tools(Scenario::new(
            "rootless_tools",
            "an ordinary user's map is refused, and newuidmap and newgidmap write it",
            &ordinary(),
            &with_tools(),
        )),
        Scenario::new(
            "rootless_allow",
            "policy: setgroups stays allowed, so newgidmap has to write the map",
            &ordinary(),
            &mapped(&[], OWN).with_rootless_euid(true).with_gidmap_path(c"/usr/bin/newgidmap"),
        )
        .policy(Setgroups::Allow)
        .ways(&[Way::Ours]),
        Scenario::new(
            "dumpable_window",
            "a user with one capability joins and creates a user namespace: the one case of a dumpable window",
            &User { caps: 1 << cap::SYS_ADMIN, ..ordinary() },
            &mapped(&[NsKind::Uts], OWN).with_rootless_euid(true),
        )
        .joining(|sim| {
            let pid = sim.container(&Container { maker: User::root(), maps: None, kinds: &[NsKind::Net] });
            sim.file("/run/netns/blue", Extra::Namespace(sim.namespace(pid, NsKind::Net)));
            "net:/run/netns/blue".into()
        })
        // An exec would drop the capability.
        .ways(&[Way::Ours]),
    ]
    .into_iter()
    .map(|scenario| match scenario.name {
        "rootless_allow" => tools(scenario),
        _ => scenario,
    })
    .collect()
}

fn joins() -> Vec<Scenario> {
    let nothing = Bootstrap::new(CloneFlags::EMPTY);
    let exec: &[Way] = &[Way::Exec, Way::Ours];
    vec![
        Scenario::new("exec_eight", "root enters all eight namespaces of a container", &User::root(), &nothing)
            .joining(eight)
            .ways(exec),
        Scenario {
            level: Level::Debug,
            ..Scenario::new("exec_eight_debug", "the same, with every record", &User::root(), &nothing)
                .joining(eight)
                .ways(&[Way::Exec])
        },
        Scenario::new(
            "exec_foreign_net",
            "a container's user namespace, and a network namespace that belongs to the machine: the first pass",
            &User::root(),
            &nothing,
        )
        .joining(foreign_net)
        .ways(exec),
        Scenario::new(
            "exec_rootless",
            "an ordinary user enters its own container: refused in the first pass, joined in the third",
            &ordinary(),
            &nothing.with_rootless_euid(true),
        )
        .joining(own_container)
        .ways(exec),
        Scenario::new(
            "join_and_create",
            "a joined network namespace under a new user namespace, as a pod's second container",
            &User::root(),
            &mapped(&[NsKind::Mnt, NsKind::Pid], WIDE).with_setgroup(true),
        )
        .joining(|sim| {
            let pid = sim.container(&Container { maker: User::root(), maps: None, kinds: &[NsKind::Net] });
            paths_of(pid, &[NsKind::Net])
        })
        .ways(RUNC),
    ]
}

/// Makes a container with all eight kinds; returns the list to join it.
pub(super) fn eight(sim: &mut Sim) -> String {
    let pid = sim.container(&Container { maker: User::root(), maps: Some((WIDE, WIDE)), kinds: &SEVEN });
    paths_of(pid, &[&[NsKind::User], &SEVEN[..]].concat())
}

/// Makes a container of an ordinary user; returns the list to join it.
pub(super) fn own_container(sim: &mut Sim) -> String {
    let kinds = [NsKind::Mnt, NsKind::Net, NsKind::Uts];
    let pid = sim.container(&Container { maker: ordinary(), maps: Some((OWN, OWN)), kinds: &kinds });
    paths_of(pid, &[NsKind::User, NsKind::Net, NsKind::Uts, NsKind::Mnt])
}

/// The user namespace of one container, and a network namespace that belongs to the machine.
pub(super) fn foreign_net(sim: &mut Sim) -> String {
    let pid = sim.container(&Container { maker: User::root(), maps: Some((WIDE, WIDE)), kinds: &[] });
    let other = sim.container(&Container { maker: User::root(), maps: None, kinds: &[NsKind::Net] });
    sim.file("/run/netns/blue", Extra::Namespace(sim.namespace(other, NsKind::Net)));
    format!("net:/run/netns/blue,user:/proc/{pid}/ns/user")
}

fn clocks() -> Vec<Scenario> {
    let both = offsets("monotonic 600 0\nboottime -10 5\n");
    vec![
        Scenario::new(
            "time_offsets",
            "clock offsets without a user namespace",
            &User::root(),
            &Bootstrap::new(CloneFlags::NEWTIME).with_timens_offsets(both),
        ),
        Scenario::new(
            "time_offsets_user",
            "clock offsets under a user namespace: the file is opened with the maps, and written later",
            &User::root(),
            &mapped(&SEVEN, WIDE).with_timens_offsets(both),
        ),
        Scenario::new(
            "time_offsets_rootless",
            "clock offsets of an ordinary user, whose stage 1 is non-dumpable from setresuid on",
            &ordinary(),
            &mapped(&[NsKind::Time], OWN).with_rootless_euid(true).with_timens_offsets(both),
        ),
    ]
}

/// Features that only our own launcher offers.
fn of_our_own() -> Vec<Scenario> {
    let pid = mapped(&[NsKind::Mnt, NsKind::Pid], WIDE);
    let ours = |name, about, message: &Bootstrap<'_>| {
        Scenario::new(name, about, &User::root(), message).ways(&[Way::Ours])
    };
    let mounts = ours("mount_proc", "mounts made private, a fresh /proc, before the command", &pid);
    let keep =
        ours("keep_credentials", "policy: the ids stay; the groups stay, and setgroups is denied", &pid);
    let groups = ours("drop_groups", "policy: the groups are dropped if the namespace lets us", &pid);
    let found = ours(
        "command_in_path",
        "the command is in the second folder of PATH",
        &Bootstrap::new(CloneFlags::NEWUTS),
    );
    let mut script = ours(
        "script",
        "the command is a script without a #! line, so the shell runs it",
        &Bootstrap::new(CloneFlags::NEWUTS),
    )
    .program("/bin/sh", Program::ends(Ended::Exit(0)));
    script.sim.file("/bin/script", Extra::Regular(b"exit".as_slice().into()));
    script.sim.refuse_exec("/bin/script", Errno::ENOEXEC);
    let ignored = SignalSet(1 << (Signal::CHLD.0 - 1));
    vec![
        Scenario {
            policy: mounts.policy.with_propagation(Some(Propagation::Private)).with_mount_proc(true),
            ..mounts
        },
        Scenario {
            policy: keep.policy.with_credentials(Credentials::Keep).with_setgroups(Setgroups::Deny),
            ..keep
        },
        groups.policy(Setgroups::DropIfAllowed),
        kill_child("kill_child", &pid),
        Scenario { candidates: b"/usr/local/bin/command\0/bin/command\0", ..found },
        Scenario { candidates: b"/usr/local/bin/script\0/bin/script\0", ..script },
        tools(Scenario {
            signals: ChildSignals { ignore: ignored, ..ChildSignals::default() },
            ..Scenario::new(
                "sigchld_ignored",
                "an inherited ignored SIGCHLD: default for as long as stage 0 waits for a tool",
                &ordinary(),
                &with_tools(),
            )
            .ways(&[Way::Ours])
        }),
    ]
}

pub(super) fn kill_child(name: &'static str, message: &Bootstrap<'_>) -> Scenario {
    let about = "policy: the command dies with the launcher";
    let scenario = Scenario::new(name, about, &User::root(), message).ways(&[Way::Ours]);
    Scenario { policy: scenario.policy.with_kill_child(true), ..scenario }
}

impl Scenario {
    fn policy(self, setgroups: Setgroups) -> Self {
        Self { policy: self.policy.with_setgroups(setgroups), ..self }
    }
}

/// A kernel without the features added since 4.18. The address of glibc's cached thread id is unavailable
/// too.
pub(super) fn old(settings: &mut Settings) {
    settings.reports_tid_address = false;
    settings.lacks.extend([
        ("pidfd_open", Errno::ENOSYS),
        ("close_range", Errno::ENOSYS),
        ("pwritev2", Errno::EOPNOTSUPP),
        ("openat2", Errno::ENOSYS),
    ]);
}

/// The same starts with missing calls or small buffers, to test the fallbacks.
pub(super) fn old_and_small() -> Vec<Scenario> {
    let both = &[Way::Exec, Way::Ours];
    vec![
        tools(Scenario {
            level: Level::Debug,
            ..Scenario::new(
                "old_kernel",
                "Linux 4.18: no openat2, pidfd_open, close_range, RWF_NOWAIT and PR_GET_TID_ADDRESS",
                &ordinary(),
                &with_tools(),
            )
            .setting(old)
            .ways(both)
        }),
        Scenario::new(
            "old_kernel_exec",
            "the same, for joins",
            &User::root(),
            &Bootstrap::new(CloneFlags::EMPTY),
        )
        .joining(foreign_net)
        .setting(old)
        .ways(both),
        Scenario::new(
            "openat2_filtered",
            "the filter of an older container runtime refuses openat2: openat serves",
            &User::root(),
            &mapped(&[], WIDE).with_oom_score_adj(OomScoreAdj::parse(c"5").expect("a score")),
        )
        .setting(|settings| settings.lacks.extend([("openat2", Errno::EPERM)]))
        .ways(both),
        Scenario {
            level: Level::Debug,
            ..Scenario::new(
                "small_buffers",
                "a log pipe of one page and sockets of 48 bytes: no process waits for the log",
                &User::root(),
                &mapped(&FIVE, WIDE).with_setgroup(true),
            )
            .setting(|settings| (settings.pipe_buffer, settings.socket_buffer) = (4096, 48))
            .ways(Way::ALL)
        },
    ]
}
