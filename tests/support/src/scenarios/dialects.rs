//! Starts in the dialects of runc's older lines, with launchers of that line, and with the features that only
//! these lines have.

use nsexec::bootstrap::{Bootstrap, Dialect};
use nsexec::legacy::MountSources;
use nsexec::log::Level;
use nsexec::namespace::NsKind;
use nsexec::policy::Policy;
use nsexec::sys::types::{CloneFlags, Errno};
use nsexec_audit::plan::runc::MountNumbers;
use nsexec_audit::sim::{Container, Extra, User, cap};

use super::starts::{
    FIVE, OWN, SUBORDINATE, WIDE, foreign_net, mapped, ordinary, own_container, tools, with_tools,
};
use super::{Scenario, Way, encoded, flags, paths_of};

const INIT: &[Way] = &[Way::Init];
const EXEC: &[Way] = &[Way::Exec];

/// All kinds without the user namespace, and without the time namespace, which came with runc 1.2.
const SIX: [NsKind; 6] = [NsKind::Mnt, NsKind::Uts, NsKind::Ipc, NsKind::Pid, NsKind::Cgroup, NsKind::Net];

/// The dialects of the older lines.
const OLDER: [&Dialect; 3] = [&Dialect::SEED, &Dialect::V1_0, &Dialect::V1_1];

/// Scenarios that end with an init.
pub(super) fn starts() -> Vec<Scenario> {
    let mut all: Vec<Scenario> = OLDER.into_iter().flat_map(in_line).collect();
    all.extend(with_mounts());
    all
}

/// Scenarios that end with an error.
pub(super) fn refusals() -> Vec<Scenario> {
    let mut all: Vec<Scenario> = OLDER.into_iter().flat_map(refused_in_line).collect();
    all.extend(cgroup_refused());
    all.extend(mounts_refused());
    all
}

/// A start in a dialect.
fn start(
    dialect: &'static Dialect,
    name: &str,
    about: &'static str,
    user: &User,
    message: &Bootstrap<'_>,
) -> Scenario {
    let name = Box::leak(format!("{}_{name}", dialect.name()).into_boxed_str());
    let nothing = Bootstrap::new(CloneFlags::EMPTY);
    Scenario {
        policy: Policy::runc(dialect),
        message: encoded(message, dialect),
        ..Scenario::new(name, about, user, &nothing)
    }
}

fn in_line(dialect: &'static Dialect) -> Vec<Scenario> {
    let root = User::root();
    let nothing = Bootstrap::new(CloneFlags::EMPTY);
    let own = mapped(&SIX, OWN).with_rootless_euid(true);
    let of = |name, about, user, message| start(dialect, name, about, user, message);
    vec![
        of("rootful", "every kind of the line but the user namespace", &root, &Bootstrap::new(flags(&SIX)))
            .ways(INIT),
        of(
            "user",
            "the same under a user namespace, mapped, the groups dropped",
            &root,
            &mapped(&SIX, WIDE).with_setgroup(true),
        )
        .with_records()
        // Our launcher does not launch the seed.
        .ways(if dialect.sends_pid_line_late() { INIT } else { &[Way::Init, Way::Ours] }),
        of("rootless", "an ordinary user maps itself alone", &ordinary(), &own).ways(INIT),
        tools(of(
            "tools",
            "an ordinary user's map is written by the mapping tools",
            &ordinary(),
            &with_tools(),
        ))
        .ways(INIT),
        of("exec", "root enters a container, and becomes its root, as since 1.2.1", &root, &nothing)
            .joining(|sim| {
                let maps = Some((WIDE, WIDE));
                let pid = sim.container(&Container { maker: User::root(), maps, kinds: &SIX });
                paths_of(pid, &[&[NsKind::User], &SIX[..]].concat())
            })
            .with_records()
            .ways(EXEC),
        of(
            "exec_foreign_net",
            "a network namespace of the machine's: three passes, as since 1.3",
            &root,
            &nothing,
        )
        .joining(foreign_net)
        .ways(EXEC),
        of(
            "exec_rootless",
            "an ordinary user enters its own container: joined in the third pass",
            &ordinary(),
            &nothing.with_rootless_euid(true),
        )
        .joining(own_container)
        .ways(EXEC),
        of(
            "join_and_create",
            "a joined network namespace under a new user namespace",
            &root,
            &mapped(&[NsKind::Mnt, NsKind::Pid, NsKind::Cgroup], WIDE).with_setgroup(true),
        )
        .joining(blue_net)
        .ways(INIT),
    ]
}

fn blue_net(sim: &mut nsexec_audit::sim::Sim) -> String {
    let pid = sim.container(&Container { maker: User::root(), maps: None, kinds: &[NsKind::Net] });
    paths_of(pid, &[NsKind::Net])
}

fn refused_in_line(dialect: &'static Dialect) -> Vec<Scenario> {
    let root = User::root();
    let nothing = Bootstrap::new(CloneFlags::EMPTY);
    let of = |name, about, user, message| start(dialect, name, about, user, message);
    let map = mapped(&FIVE, SUBORDINATE).with_rootless_euid(true).with_setgroup(true);
    vec![
        of("join_missing", "a path that is not there", &root, &nothing)
            .joining(|_| "net:/run/netns/blue".into())
            .refused("failed to open /run/netns/blue: No such file or directory")
            .ways(EXEC),
        of("net_limit", "user.max_net_namespaces is reached in stage 1", &root, &Bootstrap::new(flags(&SIX)))
            .without_room_for(NsKind::Net)
            .refused("failed to unshare remaining namespaces: No space left on device")
            .ways(INIT),
        of("map_without_tool", "a map that stage 0 may not write, and no tool", &ordinary(), &map)
            .refused("mapping tool not present")
            .ways(INIT),
        of("setsid_refused", "stage 2 gets no session of its own", &root, &Bootstrap::new(flags(&SIX)))
            .filtered("setsid", Errno::EPERM)
            .refused("setsid failed: Operation not permitted")
            .ways(INIT),
        of(
            "exec_refused",
            "a namespace that an ordinary user may not join: named after the last pass",
            &ordinary(),
            &nothing,
        )
        .joining(|sim| {
            let pid = sim.container(&Container { maker: User::root(), maps: None, kinds: &[NsKind::Net] });
            sim.file("/run/netns/blue", Extra::Namespace(sim.namespace(pid, NsKind::Net)));
            "net:/run/netns/blue".into()
        })
        .refused("failed to setns(0x40000000) into net namespace (with path /run/netns/blue)")
        .ways(EXEC),
    ]
}

fn cgroup_refused() -> Vec<Scenario> {
    let of = |dialect| {
        start(
            dialect,
            "cgroup_limit",
            "user.max_cgroup_namespaces is reached in stage 2, after the pid line",
            &User::root(),
            &mapped(&SIX, WIDE).with_setgroup(true),
        )
        .without_room_for(NsKind::Cgroup)
        .refused("failed to unshare cgroup namespace: No space left on device")
        .ways(INIT)
    };
    vec![of(&Dialect::V1_0), of(&Dialect::V1_1)]
}

/// Mount sources in the order of the mounts; an empty entry for every mount that is not a bind mount.
fn sources(entries: &[&str]) -> MountSources<'static> {
    let text: String = entries.iter().map(|entry| format!("{entry}\0")).collect::<String>() + "\0";
    MountSources::parse(Box::leak(text.into_boxed_str()).as_bytes()).expect("sources")
}

fn mounts(name: &'static str, about: &'static str, entries: &[&str]) -> Scenario {
    let message = mapped(&SIX, WIDE).with_setgroup(true).with_mount_sources(sources(entries));
    let mut scenario = start(&Dialect::V1_1, name, about, &User::root(), &message).ways(INIT);
    for path in ["/srv/data", "/srv/more"] {
        scenario.sim.file(path, Extra::Directory);
    }
    scenario
}

fn with_mounts() -> Vec<Scenario> {
    vec![
        mounts(
            "mounts",
            "stage 0 opens the sources of two bind mounts in the container's mount namespace",
            &["", "/srv/data", "", "", "/srv/more"],
        ),
        mounts("mounts_fifo", "a source that a plain open would wait for", &["/srv/fifo"])
            .and_file("/srv/fifo", Extra::Fifo),
        mounts(
            "mounts_join",
            "sources, and a joined network namespace: stages 0 and 1 are not dumpable",
            &["/srv/data"],
        )
        .joining_for(&[NsKind::Mnt, NsKind::Pid]),
        mounts("mounts_none", "an attribute without a source: stage 0 goes and comes back", &["", ""]),
    ]
}

fn mounts_refused() -> Vec<Scenario> {
    let two = &["/srv/data", "", "/srv/more"];
    let said = |name, about, numbers, refused| Scenario {
        mount_numbers: numbers,
        ..mounts(name, about, two).refused(refused)
    };
    let ordinary_user =
        mapped(&FIVE, OWN).with_rootless_euid(true).with_mount_sources(sources(&["/srv/data"]));
    let mut rootless = start(
        &Dialect::V1_1,
        "mounts_rootless",
        "no runtime asks this without privilege: it may not enter a mount namespace",
        &ordinary(),
        &ordinary_user,
    )
    .refused("failed to setns to container mntns: Operation not permitted")
    .ways(INIT);
    rootless.sim.file("/srv/data", Extra::Directory);
    vec![
        mounts("mounts_missing", "the second source is not there", &["/srv/data", "/srv/missing"])
            .refused("failed to open mount source /srv/missing: No such file or directory"),
        mounts("mounts_forbidden", "a source that the user may not open", &["/srv/secret"])
            .and_file("/srv/secret", Extra::Forbidden)
            .refused("failed to open mount source /srv/secret: Permission denied"),
        mounts("mounts_unseen", "a root that may not look into stage 1, which is not dumpable", two)
            .setting(|settings| settings.bounding &= !(1 << cap::SYS_PTRACE))
            .refused("failed to get container mount namespace (/proc/"),
        said(
            "mounts_unsaid",
            "the variable with the numbers is not set",
            MountNumbers::Unset,
            "_LIBCONTAINER_MOUNT_FDS is not set",
        ),
        said(
            "mounts_malformed",
            "the variable with the numbers is cut off",
            MountNumbers::Raw("[7,-1"),
            "malformed _LIBCONTAINER_MOUNT_FDS env var: missing ]",
        ),
        said(
            "mounts_counts",
            "one number too few",
            MountNumbers::Raw("[7,8]"),
            "the message has 3 mounts, and _LIBCONTAINER_MOUNT_FDS has 2",
        ),
        said(
            "mounts_unpaired",
            "a number where there is no source",
            MountNumbers::Raw("[7,8,-1]"),
            "mount 2 has a descriptor in _LIBCONTAINER_MOUNT_FDS, and no source",
        ),
        said(
            "mounts_not_kept",
            "a descriptor number that is not reserved: a socket of ours could have it",
            MountNumbers::Raw("[7,-1,9]"),
            "_LIBCONTAINER_MOUNT_FDS names 9, which is not an open descriptor",
        ),
        said(
            "mounts_in_use",
            "the number of the init pipe",
            MountNumbers::Raw("[4,-1,8]"),
            "_LIBCONTAINER_MOUNT_FDS names 4, which is the init pipe or the log pipe",
        ),
        said(
            "mounts_twice",
            "both sources would come to the same number",
            MountNumbers::Raw("[7,-1,7]"),
            "_LIBCONTAINER_MOUNT_FDS names 7 twice",
        ),
        rootless,
    ]
}

impl Scenario {
    /// Logs every record, since dialects differ in their records.
    fn with_records(self) -> Self {
        Self { level: Level::Debug, ..self }
    }

    fn and_file(mut self, path: &str, file: Extra) -> Self {
        self.sim.file(path, file);
        self
    }

    /// The same scenario with a joined network namespace. Of `kinds` it creates only these, besides the user
    /// namespace.
    fn joining_for(mut self, kinds: &[NsKind]) -> Self {
        let paths = blue_net(&mut self.sim);
        let message = mapped(kinds, WIDE).with_setgroup(true).with_mount_sources(sources(&["/srv/data"]));
        self.message = encoded(&message.with_namespaces(super::join(&paths)), self.policy.dialect);
        self
    }
}
