//! Tests of the rules. Every rule holds in the records of the real kernel (`tests/audit_record.rs`, stored in
//! `tests/records`). Each rule is broken by a line that is missing, moved, changed or added, and no other
//! rule is. The older dialects are tested with planned runs.

use std::collections::BTreeSet;
use std::string::ToString;
use std::vec::Vec;

use super::*;
use crate::plan::runc::Manner;
use crate::plan::{Assumptions, Start, plan};
use crate::record::Line;
use crate::transcript::{End, Foreign, Role};
use crate::witness::parse_line;
use nsexec::bootstrap::{Bootstrap, Dialect, OomScoreAdj};
use nsexec::idmap::IdMap;
use nsexec::launch::Descriptors;
use nsexec::launch::encode::{encode, encoded_len};
use nsexec::launch::{Launcher, Prepared};
use nsexec::legacy::MountSources;
use nsexec::namespace::NsSet;
use nsexec::namespace::paths::NsPaths;
use nsexec::policy::{Credentials, Policy, Session, Setgroups};
use nsexec::sys::types::{CloneFlags, Fd, Propagation};
use nsexec::timens::TimeOffsets;

macro_rules! records {
    ($($name:literal),*) => {
        &[$(($name, include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/records/", $name, ".jsonl")))),*]
    };
}

const RECORDS: &[(&str, &str)] = records![
    "nothing",
    "five",
    "user_and_all",
    "join",
    "window",
    "rootless",
    "tools",
    "tool_fails",
    "no_such_namespace",
    "refused_join"
];

/// Planned starts: for the steps of the older dialects, and for those of our own launcher.
const PLANNED: &[&str] = &[
    "mounts",
    "cgroup_byte",
    "late_pid_line",
    OURS,
    "enter",
    DIRECT,
    PLAIN,
    NAMED,
    GIVEN_UP,
    SHARED,
    WIDE,
    JOINS,
    ENTERS,
    HERE,
];

/// The planned starts of our own launcher.
const OF_OURS: &[&str] = &[OURS, "enter", DIRECT, PLAIN, NAMED, GIVEN_UP, SHARED, WIDE, JOINS, ENTERS, HERE];

/// A call that gives up all capabilities.
const CAPSET: &str =
    "capset({version=_LINUX_CAPABILITY_VERSION_3, pid=0}, {effective=0, permitted=0, inheritable=0}) = 0";

/// The name of a planned start of our own launcher through the stages.
const OURS: &str = "ours";
/// A direct start with a user namespace, maps, time offsets and an oom score.
const DIRECT: &str = "direct";
/// A direct start without a user namespace, with time offsets, an oom score and mounts.
const PLAIN: &str = "direct_plain";
/// A direct start that passes on one named descriptor.
const NAMED: &str = "direct_named";
/// A direct start that is given up for the stages, since a tool has to write the map.
const GIVEN_UP: &str = "given_up";
/// A direct start whose process shares the memory of the launcher.
const SHARED: &str = "shared";
/// A direct start with a new user namespace and a map of many ids, by root.
const WIDE: &str = "wide";
/// A start through a child that joins a user and a network namespace, and creates others in them, with time
/// offsets, an oom score and mounts.
const JOINS: &str = "child_joins";
/// The run "enter" through a child.
const ENTERS: &str = "child_enters";

/// A start in place with a user namespace, maps, time offsets and an oom score.
const HERE: &str = "in_place";

fn dialect(name: &str) -> &'static Dialect {
    match name {
        "mounts" => &Dialect::V1_1,
        "cgroup_byte" => &Dialect::V1_0,
        "late_pid_line" => &Dialect::SEED,
        _ => &Dialect::V1_2,
    }
}

/// Returns a start of our own launcher, other than those that enter a container.
fn ours(name: &str) -> Prepared {
    let offsets = TimeOffsets::parse(c"monotonic 600 0\n").unwrap();
    let map = IdMap::parse(c"0 100000 65536\n").unwrap();
    let single = IdMap::parse(c"0 100000 1\n").unwrap();
    let plain = CloneFlags::NEWNET.union(CloneFlags::NEWCGROUP);
    let timed = plain.union(CloneFlags::NEWTIME).union(CloneFlags::NEWNS);
    let user = timed.union(CloneFlags::NEWUSER).union(CloneFlags::NEWPID);
    let bootstrap = match name {
        DIRECT | HERE => Bootstrap::new(user)
            .with_uid_map(map)
            .with_gid_map(map)
            .with_setgroup(true)
            .with_oom_score_adj(OomScoreAdj::parse(c"-500").unwrap())
            .with_timens_offsets(offsets),
        PLAIN => Bootstrap::new(timed)
            .with_timens_offsets(offsets)
            .with_oom_score_adj(OomScoreAdj::parse(c"-500").unwrap()),
        GIVEN_UP => Bootstrap::new(CloneFlags::NEWUSER.union(CloneFlags::NEWCGROUP))
            .with_uid_map(single)
            .with_gid_map(single)
            .with_rootless_euid(true)
            .with_uidmap_path(c"/usr/bin/newuidmap")
            .with_gidmap_path(c"/usr/bin/newgidmap"),
        NAMED => Bootstrap::new(user).with_uid_map(map).with_gid_map(map),
        SHARED => Bootstrap::new(plain),
        WIDE => Bootstrap::new(plain.union(CloneFlags::NEWUSER)).with_uid_map(map).with_gid_map(map),
        JOINS => Bootstrap::new(timed.without(CloneFlags::NEWNET))
            .with_namespaces(NsPaths::parse(b"net:/n,user:/u", NsSet::ALL).unwrap())
            .with_setgroup(true)
            .with_timens_offsets(offsets)
            .with_oom_score_adj(OomScoreAdj::parse(c"-50").unwrap()),
        _ => Bootstrap::new(plain).with_oom_score_adj(OomScoreAdj::parse(c"-500").unwrap()),
    };
    let policy = Policy::runc(&Dialect::V1_2).with_stages(name == OURS);
    let policy = match name {
        DIRECT | PLAIN | JOINS => policy.with_propagation(Some(Propagation::Private)),
        // setsid(2) is refused to the leader of a process group.
        HERE => policy.with_session(Session::Keep),
        NAMED => {
            let policy = policy.with_propagation(Some(Propagation::Private));
            policy.with_kill_child(true).with_setgroups(Setgroups::Deny)
        }
        _ => policy,
    };
    let mut launcher = Launcher::new(&bootstrap, policy).unwrap();
    launcher.command("/bin/true", [""; 0]).env_clear();
    if name == NAMED {
        launcher.pass_descriptor(Fd(9));
    }
    if name == HERE {
        return launcher.prepare_exec().unwrap();
    }
    launcher.prepare().unwrap()
}

/// Returns the run of [`ours`].
fn ours_planned(name: &str) -> Run {
    let assumptions = if name == GIVEN_UP { Assumptions::ordinary(1000) } else { Assumptions::root() };
    let plan = plan(&Start::Launcher(ours(name)), &assumptions).unwrap();
    // No tool is installed on the machine of the plan. The stages report that.
    assert_eq!(plan.succeeds, name != GIVEN_UP, "{name}: {:?}", plan.log);
    plan.run
}

/// Returns a run of our own launcher that enters a container, becomes root last, and passes one named
/// descriptor: through the stages, or through a child.
fn entering(name: &str) -> Run {
    let paths = NsPaths::parse(b"user:/u,net:/n,mnt:/m", NsSet::ALL).unwrap();
    let bootstrap = Bootstrap::new(CloneFlags::EMPTY).with_namespaces(paths);
    let mut launcher = Launcher::new(&bootstrap, policy(name)).unwrap();
    launcher.command("/bin/true", [""; 0]).env_clear().pass_descriptor(Fd(9));
    let plan = plan(&Start::Launcher(launcher.prepare().unwrap()), &Assumptions::root()).unwrap();
    assert!(plan.succeeds, "{:?}", plan.log);
    plan.run
}

/// Returns the policy of this run, as the launcher completes it.
fn policy(name: &str) -> Policy {
    let policy = Policy::runc(dialect(name));
    match name {
        "enter" | ENTERS => policy
            .with_stages(name == "enter")
            .with_credentials(Credentials::RootLast)
            .with_descriptors(Descriptors::Named)
            .with_setgroups(Setgroups::DropIfAllowed)
            .with_ends_with_launcher(true),
        OURS | DIRECT | PLAIN | NAMED | GIVEN_UP | SHARED | WIDE | JOINS | HERE => *ours(name).policy(),
        _ => policy,
    }
}

fn planned(name: &str) -> Run {
    match name {
        "enter" | ENTERS => return entering(name),
        OURS | DIRECT | PLAIN | NAMED | GIVEN_UP | SHARED | WIDE | JOINS | HERE => return ours_planned(name),
        _ => {}
    }
    let dialect = dialect(name);
    let sources = MountSources::parse(b"/a\0\0/b\0\0").unwrap();
    let kinds = [CloneFlags::NEWUSER, CloneFlags::NEWNS, CloneFlags::NEWCGROUP];
    let bootstrap = Bootstrap::new(kinds.into_iter().fold(CloneFlags::EMPTY, CloneFlags::union))
        .with_uid_map(IdMap::parse(c"0 1000 10\n").unwrap())
        .with_gid_map(IdMap::parse(c"0 1000 10\n").unwrap());
    let bootstrap = if name == "mounts" { bootstrap.with_mount_sources(sources) } else { bootstrap };
    let mut message = std::vec![0; encoded_len(&bootstrap)];
    encode(&bootstrap, dialect, &mut message).unwrap();
    let start = Start::Runc { message, manner: Manner::Init, policy: Policy::runc(dialect) };
    let plan = plan(&start, &Assumptions::root()).unwrap();
    assert!(plan.succeeds, "{name}: {:?}", plan.log);
    plan.run
}

fn record(name: &str) -> Run {
    if PLANNED.contains(&name) {
        return planned(name);
    }
    let (_, text) = RECORDS.iter().find(|(known, _)| *known == name).expect("a record of this name");
    Run::from_json_lines(text).unwrap()
}

/// Returns the names of the rules that a run breaks.
fn broken(run: &Run, name: &str) -> BTreeSet<&'static str> {
    check(run, &facts(run, name)).iter().map(|finding| finding.rule).collect()
}

fn facts(run: &Run, name: &str) -> Facts {
    Facts::of(run, policy(name))
}

const LAUNCHER: Role = Role::Launcher;
const PARENT: Role = Role::Stage(0);
const CHILD: Role = Role::Stage(1);
const INIT: Role = Role::Stage(2);

/// A run that a test modifies. A line is named by a part of its text; the first line with that part is used.
struct EditedRun(Run);

impl EditedRun {
    fn lines(&mut self, role: Role) -> &mut Vec<Line> {
        let section = self.0.sections.iter_mut().find(|section| section.role == role);
        &mut section.expect("a section of this role").lines
    }

    fn at(&mut self, role: Role, part: &str) -> usize {
        let lines = self.lines(role);
        let found = lines.iter().position(|line| line.to_string().contains(part));
        found.unwrap_or_else(|| panic!("no line of {role} has {part}"))
    }

    fn without(mut self, role: Role, part: &str) -> Self {
        let at = self.at(role, part);
        self.lines(role).remove(at);
        self
    }

    /// Removes the last line with this part.
    fn without_last(mut self, role: Role, part: &str) -> Self {
        let lines = self.lines(role);
        let at = lines.iter().rposition(|line| line.to_string().contains(part)).expect(part);
        lines.remove(at);
        self
    }

    fn with(mut self, role: Role, before: &str, text: &str) -> Self {
        let at = self.at(role, before);
        self.lines(role).insert(at, parse_line(text).expect(text));
        self
    }

    /// Replaces a part of a line's text.
    fn edited(mut self, role: Role, part: &str, by: &str) -> Self {
        let at = self.at(role, part);
        let text = self.lines(role)[at].to_string().replace(part, by);
        self.lines(role)[at] = parse_line(&text).expect(&text);
        self
    }

    fn moved(mut self, role: Role, part: &str, before: &str) -> Self {
        let at = self.at(role, part);
        let line = self.lines(role).remove(at);
        let to = self.at(role, before);
        self.lines(role).insert(to, line);
        self
    }

    fn twice(mut self, role: Role, part: &str) -> Self {
        let at = self.at(role, part);
        let line = self.lines(role)[at].clone();
        self.lines(role).insert(at, line);
        self
    }

    /// Removes `count` lines, beginning with the named one.
    fn cut(mut self, role: Role, part: &str, count: usize) -> Self {
        let at = self.at(role, part);
        self.lines(role).drain(at..at + count);
        self
    }
}

type RuleBreak = (&'static str, &'static str, fn(EditedRun) -> EditedRun);

/// The ready byte, as it is sent.
const READY_BYTE: &str = ", \"\\0\", 1, MSG_NOSIGNAL";

const RULE_BREAKS: &[RuleBreak] = &[
    ("ends-with-launcher", OURS, |f| f.without(PARENT, "PR_SET_PDEATHSIG")),
    ("ends-with-launcher", OURS, |f| f.edited(PARENT, "SIGCONT", "SIGKILL")),
    ("ends-with-launcher", OURS, |f| {
        f.edited(CHILD, "PR_SET_PDEATHSIG, SIGKILL", "PR_SET_PDEATHSIG, SIGCONT")
    }),
    ("ends-with-launcher", OURS, |f| f.without(INIT, "PR_SET_PDEATHSIG, SIGKILL")),
    ("ends-with-launcher", OURS, |f| f.without(INIT, "PR_SET_PDEATHSIG, 0")),
    ("recorded-whole", "nothing", |mut f| {
        f.0.lost = 1;
        f
    }),
    ("declared", "nothing", |mut f| {
        f.0.sections[1]
            .foreign
            .push(Foreign { after: 3, text: "openat(AT_FDCWD, \"/x\", O_RDWR) = 3".into() });
        f
    }),
    ("runs-from-a-copy", "mounts", |f| f.without(PARENT, "F_ADD_SEALS")),
    ("runs-from-a-copy", "mounts", |f| f.moved(PARENT, "F_ADD_SEALS", "sendfile")),
    ("runs-from-a-copy", "mounts", |f| f.moved(PARENT, READY_BYTE, "memfd_create")),
    ("runs-from-a-copy", "cgroup_byte", |f| f.edited(PARENT, "execveat(5, ", "execveat(3, ")),
    ("runs-from-a-copy", "cgroup_byte", |f| {
        // Two lines have this text: the check by the original program, and the check by its copy.
        let f = f.edited(PARENT, "F_GET_SEALS) = 0xf", "F_GET_SEALS) = 0x7");
        f.edited(PARENT, "F_GET_SEALS) = 0xf", "F_GET_SEALS) = 0x7")
    }),
    ("ready-byte", "mounts", |f| f.without(PARENT, READY_BYTE)),
    ("ready-byte", "cgroup_byte", |f| f.twice(PARENT, READY_BYTE)),
    ("ready-byte", "mounts", |f| f.moved(PARENT, READY_BYTE, "PR_GET_TID_ADDRESS")),
    ("ready-byte", "nothing", |f| {
        f.with(PARENT, "read(", "sendto(4, \"\\0\", 1, MSG_NOSIGNAL, NULL, 0) = 1")
    }),
    ("foreign-ends-closed-first", "nothing", |f| f.moved(CHILD, "PR_SET_NAME", "close(")),
    ("foreign-ends-closed-first", "nothing", |f| f.moved(PARENT, "read(6", "close(8")),
    ("foreign-ends-closed-first", "nothing", |f| f.moved(PARENT, "rt_sigprocmask", "close(")),
    ("foreign-ends-closed-first", "nothing", |f| f.moved(INIT, "PR_SET_NAME", "close(")),
    ("foreign-ends-closed-first", "nothing", |f| f.moved(LAUNCHER, "sendto(", "close(")),
    ("closes-own-descriptors-once", "nothing", |f| {
        f.with(INIT, "rt_sigprocmask(SIG_SETMASK", "close(8) = -1 EBADF (Bad file descriptor)")
    }),
    ("closes-own-descriptors-once", "nothing", |f| f.with(INIT, "setsid", "close(77) = 0")),
    ("no-descriptor-left", "nothing", |f| f.without(INIT, "close(8)")),
    ("no-descriptor-left", "join", |f| f.without(CHILD, "close(12)")),
    ("not-dumpable-while-joining", "join", |f| f.without(PARENT, "SUID_DUMP_DISABLE")),
    ("not-dumpable-while-joining", "window", |f| f.moved(PARENT, "SUID_DUMP_DISABLE", "openat")),
    ("dumpable-window", "window", |f| f.without(CHILD, "SUID_DUMP_DISABLE")),
    ("dumpable-window", "window", |f| f.moved(CHILD, "SUID_DUMP_DISABLE", "unshare(CLONE_NEWCGROUP")),
    ("dumpable-window", "join", |f| f.with(CHILD, "unshare", "prctl(PR_SET_DUMPABLE, SUID_DUMP_USER) = 0")),
    ("dumpable-window", "window", |f| f.with(INIT, "setsid", "prctl(PR_SET_DUMPABLE, SUID_DUMP_USER) = 0")),
    ("dumpable-window", "window", |f| f.moved(CHILD, "SUID_DUMP_USER", "sendto(4, \"B")),
    ("mounts-joined-from-a-copy", "join", |f| f.without(LAUNCHER, "F_GET_SEALS")),
    ("mounts-joined-from-a-copy", "join", |f| f.edited(LAUNCHER, "F_GET_SEALS) = 0xf", "F_GET_SEALS) = 0x7")),
    ("mounts-joined-from-a-copy", "join", |f| f.edited(LAUNCHER, "/proc/self/exe", "/bin/true")),
    ("mounts-joined-from-a-copy", "join", |f| f.moved(LAUNCHER, "F_GET_SEALS", "wait4")),
    ("opened-before-joining", "join", |f| {
        let open =
            "openat(AT_FDCWD, \"/x\", O_RDONLY|O_NONBLOCK|O_CLOEXEC) = -1 ENOENT (No such file or directory)";
        f.with(CHILD, "setns", open).moved(CHILD, "setns", "openat(AT_FDCWD, \"/x\"")
    }),
    ("joins-namespaces-only", "join", |f| f.without(CHILD, "fstatfs")),
    ("joins-namespaces-only", "join", |f| f.edited(CHILD, "NSFS_MAGIC", "PROC_SUPER_MAGIC")),
    ("no-proc-after-mount-namespace", "join", |f| {
        let open = "openat(AT_FDCWD, \"/proc/self/stat\", O_RDONLY|O_CLOEXEC) = -1 ENOENT (No such file or directory)";
        f.with(CHILD, "unshare", open)
    }),
    ("as-asked", "user_and_all", |f| f.edited(CHILD, "CLONE_NEWNET", "0")),
    ("as-asked", "join", |f| f.cut(CHILD, "setns", 2).without(CHILD, "openat").without(CHILD, "fstatfs")),
    ("user-namespace-first", "user_and_all", |f| {
        f.moved(CHILD, "unshare(CLONE_NEWTIME", "unshare(CLONE_NEWUSER")
    }),
    ("user-namespace-first", "user_and_all", |f| {
        f.moved(CHILD, "unshare(CLONE_NEWTIME", "read(").moved(CHILD, "setresuid", "unshare(CLONE_NEWTIME")
    }),
    ("user-namespace-first", "user_and_all", |f| f.moved(CHILD, "setresuid", "read(")),
    ("user-namespace-first", "nothing", |f| f.with(INIT, "setsid", "unshare(0) = 0")),
    ("maps-once", "user_and_all", |f| f.twice(PARENT, "write(")),
    ("maps-once", "user_and_all", |f| {
        let open = "openat(9, \"uid_map\", O_RDWR|O_CLOEXEC) = 9";
        f.with(CHILD, "unshare", open)
            .with(CHILD, "unshare", "fstatfs(9, {f_type=PROC_SUPER_MAGIC, ...}) = 0")
            .with(CHILD, "unshare", "write(9, \"0 0 1\\n\\0\", 7) = -1 EPERM (Operation not permitted)")
            .with(CHILD, "unshare", "close(9) = 0")
    }),
    ("maps-acknowledged-when-written", "user_and_all", |f| f.cut(PARENT, "\"gid_map\"", 4)),
    ("maps-acknowledged-when-written", "tools", |f| {
        f.edited(PARENT, "WEXITSTATUS(s) == 0", "WEXITSTATUS(s) == 1")
    }),
    ("maps-acknowledged-when-written", "tools", |f| {
        f.edited(PARENT, "EPERM (Operation not permitted)", "EINTR (Interrupted system call)")
    }),
    ("procfs-own", "user_and_all", |f| f.without(PARENT, "readlinkat")),
    ("procfs-own", "user_and_all", |f| f.edited(PARENT, "\"/proc/self\", \"", "\"/proc/self\", \"1")),
    ("procfs-checked", "user_and_all", |f| f.without(PARENT, "fstatfs")),
    ("procfs-own", "user_and_all", |f| f.edited(PARENT, "\"29182\", {", "\"39182\", {")),
    ("procfs-own", "user_and_all", |f| f.edited(PARENT, "\"/proc\", O_RDONLY", "\"/prox\", O_RDONLY")),
    ("procfs-own", "user_and_all", |f| {
        let open = "openat(8, \"gid_map\", O_RDWR|O_CLOEXEC) = -1 EACCES (Permission denied)";
        f.with(PARENT, "\"uid_map\"", open)
    }),
    ("procfs-own", "user_and_all", |f| {
        let how = "{flags=O_RDWR|O_CLOEXEC, resolve=RESOLVE_NO_XDEV|RESOLVE_NO_MAGICLINKS}, 24";
        let open = std::format!("openat2(4, \"self/oom_score_adj\", {how}) = -1 EACCES (Permission denied)");
        f.with(PARENT, "PR_SET_NAME", &open)
    }),
    ("procfs-own", "user_and_all", |f| {
        let open = "openat(AT_FDCWD, \"/proc/1/uid_map\", O_RDWR|O_CLOEXEC) = -1 EACCES (Permission denied)";
        f.with(PARENT, "fstatfs", open)
    }),
    ("maps-acknowledged-when-written", "user_and_all", |f| f.edited(PARENT, "\"0 100000 ", "\"0 000000 ")),
    ("maps-acknowledged-when-written", "user_and_all", |f| f.without(PARENT, "write(4, \"boottime")),
    ("maps-acknowledged-when-written", "tools", |f| f.cut(PARENT, "{flags=O_RDONLY|O_CLOEXEC, ", 5)),
    ("mapping-tool", "tools", |f| f.edited(Role::Tool(1), "\"100000\"", "\"0\"")),
    ("identity-as-asked", "nothing", |f| f.without(INIT, "setsid")),
    ("identity-as-asked", "nothing", |f| f.without(INIT, "setuid")),
    ("identity-as-asked", "nothing", |f| f.edited(INIT, "setgid(0)", "setgid(5)")),
    ("identity-as-asked", "nothing", |f| f.with(INIT, "sendto", "setgroups(0, NULL) = 0")),
    ("identity-as-asked", "user_and_all", |f| f.without(INIT, "setgroups")),
    ("identity-as-asked", "user_and_all", |f| f.without(CHILD, "setresuid")),
    ("identity-as-asked", "user_and_all", |f| f.moved(CHILD, "setresuid", "sendto(4, \"F")),
    ("user-namespace-first", "user_and_all", |f| f.moved(CHILD, "sendto(4, \"@", "unshare(CLONE_NEWUSER")),
    ("pid-line-once", "nothing", |f| f.edited(PARENT, "\"{\\\"stage1_pid\\\":", "\"{\\\"stage1_pid\\\":1")),
    ("setgroups-before-gid-map", "window", |f| f.cut(PARENT, "\"setgroups\"", 4)),
    ("setgroups-before-gid-map", "rootless", |f| f.edited(PARENT, "\"deny\"", "\"allo\"")),
    ("mapping-tool", "tools", |f| f.edited(Role::Tool(0), "0 vars", "1 var")),
    ("mapping-tool", "tools", |f| f.without(Role::Tool(1), "close_range")),
    ("mapping-tool", "tools", |f| f.edited(Role::Tool(1), "/usr/bin/newgidmap", "newgidmap")),
    ("nothing-after-failure", "user_and_all", |f| {
        f.with(CHILD, "setresuid", "setresuid(0, 0, 0) = -1 EPERM (Operation not permitted)")
    }),
    ("nothing-after-failure", "nothing", |f| {
        f.with(INIT, "setgid", "setgid(0) = -1 EINVAL (Invalid argument)")
    }),
    ("nothing-after-failure", "refused_join", |f| {
        f.with(CHILD, "pwritev2", "prctl(PR_SET_NAME, \"on\") = 0")
    }),
    ("nothing-after-failure", "nothing", |f| {
        let refused = "unshare(0) = -1 EINVAL (Invalid argument)";
        (0..5).fold(f, |f, _| f.with(CHILD, "unshare", refused))
    }),
    ("pid-line-once", "nothing", |f| f.twice(PARENT, "stage1_pid")),
    ("pid-line-once", "nothing", |f| f.moved(PARENT, "stage1_pid", "read(6")),
    ("pid-line-once", "late_pid_line", |f| f.moved(PARENT, "pid_first", "read(7, \"E")),
    ("pid-line-once", "late_pid_line", |f| {
        f.edited(
            PARENT,
            "{\\\"pid\\\": 103, \\\"pid_first\\\": 102}",
            "{\\\"pid\\\": 102, \\\"pid_first\\\": 103}",
        )
    }),
    ("pid-line-once", "cgroup_byte", |f| f.moved(PARENT, "stage1_pid", "read(8, \"E")),
    ("user-namespace-first", "cgroup_byte", |f| f.moved(INIT, "unshare", "read(4, \"\\200")),
    ("user-namespace-first", "cgroup_byte", |f| f.without(INIT, "read(4, \"\\200")),
    ("as-asked", "cgroup_byte", |f| f.without(INIT, "unshare")),
    ("as-asked", "mounts", |f| {
        f.edited(CHILD, "unshare(CLONE_NEWNS)", "unshare(CLONE_NEWNS|CLONE_NEWCGROUP)")
    }),
    ("mount-sources", "mounts", |f| f.moved(PARENT, "O_PATH) = ", "setns(")),
    ("mount-sources", "mounts", |f| f.moved(PARENT, "\"G", "setns(3")),
    ("mount-sources", "mounts", |f| f.edited(PARENT, "cmsg_data=[12]", "cmsg_data=[4]")),
    ("mount-sources", "mounts", |f| f.edited(PARENT, "setns(3", "setns(11")),
    ("mount-sources", "mounts", |f| f.edited(CHILD, "dup3(5", "dup3(3")),
    ("mount-sources", "mounts", |f| f.without(CHILD, "dup3")),
    ("mount-sources", "mounts", |f| f.twice(CHILD, "recvmsg")),
    ("mount-sources", "nothing", |f| f.with(CHILD, "unshare", "dup3(6, 90, O_CLOEXEC) = 90")),
    ("stage-2-waits", "nothing", |f| f.moved(INIT, "setsid", "read(")),
    ("stage-2-waits", "nothing", |f| f.with(INIT, "rt_sigprocmask(SIG_SETMASK", "setgid(0) = 0")),
    // Each of these steps is missing, or comes too early.
    ("named-descriptors-only", "enter", |f| f.without(PARENT, "close_range")),
    ("named-descriptors-only", "enter", |f| f.edited(PARENT, "4294967295", "4294967294")),
    ("named-descriptors-only", "enter", |f| f.edited(PARENT, "close_range(10", "close_range(11")),
    ("named-descriptors-only", "enter", |f| f.edited(PARENT, "close_range(10", "close_range(3")),
    ("named-descriptors-only", "enter", |f| {
        f.moved(PARENT, "close_range", "F_SETFD, 0").moved(PARENT, "F_SETFD, 0", "close_range")
    }),
    ("named-descriptors-only", "enter", |f| f.with(INIT, "execve", "fcntl(9, F_SETFD, 0) = 0")),
    ("named-descriptors-only", "nothing", |f| {
        f.with(PARENT, "socketpair", "close_range(3, 4294967295, CLOSE_RANGE_CLOEXEC) = 0")
    }),
    ("named-descriptors-only", "nothing", |f| {
        f.with(PARENT, "socketpair", "close_range(10, 4294967295, 0) = 0")
    }),
    ("as-asked", "enter", |f| f.without(INIT, "setns")),
    ("identity-as-asked", "enter", |f| f.without(INIT, "setuid")),
    ("identity-as-asked", "enter", |f| f.without(INIT, "setgroups")),
    ("identity-as-asked", "enter", |f| f.with(CHILD, "PR_SET_NAME", "setresuid(0, 0, 0) = 0")),
    ("stage-2-waits", "enter", |f| f.moved(INIT, "setns", "\"G\"")),
    ("kills-own-processes-only", "nothing", |f| f.with(PARENT, "stage1_pid", "kill(-1, SIGKILL) = 0")),
    ("kills-own-processes-only", "nothing", |f| f.with(PARENT, "stage1_pid", "kill(0, SIGKILL) = 0")),
    ("kills-own-processes-only", "nothing", |f| f.with(PARENT, "\"D\\0", "kill(32735, SIGKILL) = 0")),
    ("records-whole", "nothing", |f| {
        let record = "pwritev2(7, [{iov_base=\"{\\\"level\\\"\", iov_len=8}], 1, -1, RWF_NOWAIT) = 8";
        f.with(CHILD, "unshare", record)
    }),
    // Direct starts.
    ("ends-with-launcher", DIRECT, |f| f.without(INIT, "PR_SET_PDEATHSIG, SIGKILL")),
    ("ends-with-launcher", DIRECT, |f| f.without(INIT, "PR_SET_PDEATHSIG, 0")),
    ("ends-with-launcher", NAMED, |f| f.with(INIT, "execve", "prctl(PR_SET_PDEATHSIG, 0) = 0")),
    ("ends-with-launcher", NAMED, |f| f.without_last(INIT, "PR_SET_PDEATHSIG, SIGKILL")),
    ("foreign-ends-closed-first", DIRECT, |f| f.moved(INIT, "rt_sigaction", "close(3)")),
    ("foreign-ends-closed-first", DIRECT, |f| f.moved(LAUNCHER, "rt_sigprocmask(SIG_SETMASK", "close(4)")),
    ("foreign-ends-closed-first", PLAIN, |f| f.without(INIT, "close(5)")),
    ("closes-own-descriptors-once", DIRECT, |f| f.with(INIT, "setsid", "close(77) = 0")),
    ("no-descriptor-left", DIRECT, |f| f.without_last(INIT, "close(3)")),
    ("no-descriptor-left", DIRECT, |f| f.without_last(INIT, "close(5)")),
    ("no-descriptor-left", PLAIN, |f| {
        f.with(LAUNCHER, "clone(", "openat(AT_FDCWD, \"/x\", O_RDONLY|O_NONBLOCK|O_CLOEXEC) = 9")
    }),
    ("named-descriptors-only", NAMED, |f| f.without(INIT, "close_range")),
    ("named-descriptors-only", NAMED, |f| f.edited(INIT, "close_range(10", "close_range(11")),
    // It is kept without a reason, or marked although no code of the caller runs.
    ("named-descriptors-only", NAMED, |f| {
        let f = f.edited(INIT, "close_range(10", "close_range(11");
        f.with(INIT, "F_SETFD, 0", "fcntl(10, F_SETFD, FD_CLOEXEC) = 0")
    }),
    ("named-descriptors-only", NAMED, |f| {
        let f = f.with(INIT, "close_range", "close_range(3, 4294967295, CLOSE_RANGE_CLOEXEC) = 0");
        f.without_last(INIT, "close_range")
    }),
    ("named-descriptors-only", NAMED, |f| {
        f.moved(INIT, "close_range", "openat(").moved(INIT, "F_SETFD", "openat(")
    }),
    ("named-descriptors-only", NAMED, |f| f.with(INIT, "execve", "fcntl(9, F_SETFD, 0) = 0")),
    ("named-descriptors-only", PLAIN, |f| {
        f.with(INIT, "read(4", "close_range(3, 4294967295, CLOSE_RANGE_CLOEXEC) = 0")
    }),
    ("dumpable-window", DIRECT, |f| f.with(INIT, "setsid", "prctl(PR_SET_DUMPABLE, SUID_DUMP_USER) = 0")),
    ("joins-namespaces-only", DIRECT, |f| f.edited(INIT, "NSFS_MAGIC", "PROC_SUPER_MAGIC")),
    ("as-asked", DIRECT, |f| f.edited(INIT, "|CLONE_NEWCGROUP", "")),
    ("as-asked", PLAIN, |f| f.edited(INIT, "|CLONE_NEWCGROUP", "")),
    // The time namespace is not entered, or it is another one.
    ("as-asked", DIRECT, |f| f.cut(INIT, "time_for_children", 4)),
    ("as-asked", DIRECT, |f| f.edited(INIT, "/proc/self/ns/time_for_children", "/proc/1/ns/time")),
    ("as-asked", PLAIN, |f| f.moved(INIT, "time_for_children", "unshare(")),
    ("as-asked", DIRECT, |f| f.moved(INIT, "mount(", "unshare(")),
    ("user-namespace-first", DIRECT, |f| f.edited(INIT, "CLONE_PIDFD", "CLONE_PIDFD|CLONE_NEWNS")),
    ("user-namespace-first", DIRECT, |f| f.edited(LAUNCHER, "CLONE_PIDFD", "CLONE_PIDFD|CLONE_NEWNS")),
    ("user-namespace-first", DIRECT, |f| {
        f.edited(INIT, "|CLONE_NEWUSER", "").edited(INIT, "unshare(", "unshare(CLONE_NEWUSER|")
    }),
    ("maps-once", DIRECT, |f| f.twice(LAUNCHER, "write(")),
    ("maps-once", DIRECT, |f| {
        // The launcher writes the offsets too.
        let how = "{flags=O_RDWR|O_CLOEXEC, resolve=RESOLVE_NO_XDEV|RESOLVE_NO_MAGICLINKS}, 24";
        f.with(LAUNCHER, "\"uid_map\"", &std::format!("openat2(6, \"timens_offsets\", {how}) = 4"))
            .with(LAUNCHER, "\"uid_map\"", "fstatfs(4, {f_type=PROC_SUPER_MAGIC, ...}) = 0")
            .with(LAUNCHER, "\"uid_map\"", "write(4, \"monotonic 600 0\\n\\0\", 17) = 17")
            .with(LAUNCHER, "\"uid_map\"", "close(4) = 0")
    }),
    ("maps-acknowledged-when-written", DIRECT, |f| f.cut(LAUNCHER, "\"uid_map\"", 4)),
    ("maps-acknowledged-when-written", DIRECT, |f| f.cut(LAUNCHER, "\"gid_map\"", 4)),
    ("maps-acknowledged-when-written", DIRECT, |f| f.cut(LAUNCHER, "oom_score_adj", 4)),
    ("maps-acknowledged-when-written", PLAIN, |f| f.without(INIT, "\"-500")),
    ("maps-acknowledged-when-written", PLAIN, |f| f.edited(INIT, "\"-500", "\"-400")),
    ("maps-acknowledged-when-written", DIRECT, |f| f.moved(LAUNCHER, "\"G\"", "\"uid_map\"")),
    ("maps-acknowledged-when-written", DIRECT, |f| f.moved(LAUNCHER, "\"G\"", "\"gid_map\"")),
    ("maps-acknowledged-when-written", DIRECT, |f| f.moved(LAUNCHER, "\"G\"", "getpid")),
    ("maps-acknowledged-when-written", DIRECT, |f| f.edited(LAUNCHER, "\"-500", "\"-400")),
    ("maps-acknowledged-when-written", DIRECT, |f| f.edited(LAUNCHER, "\"0 100000 ", "\"0 000000 ")),
    ("maps-acknowledged-when-written", DIRECT, |f| f.without(INIT, "write(5")),
    ("maps-acknowledged-when-written", DIRECT, |f| f.moved(INIT, "write(5", "mount(")),
    ("maps-acknowledged-when-written", PLAIN, |f| f.edited(INIT, "monotonic 600", "monotonic 700")),
    ("maps-acknowledged-when-written", OURS, |f| f.without(PARENT, "write(")),
    ("procfs-own", DIRECT, |f| f.without(LAUNCHER, "readlinkat")),
    ("procfs-own", DIRECT, |f| f.edited(LAUNCHER, "\"101\", {", "\"102\", {")),
    ("procfs-own", DIRECT, |f| f.edited(INIT, "openat2(3, ", "openat2(9, ")),
    ("procfs-checked", DIRECT, |f| f.without(LAUNCHER, "fstatfs")),
    ("procfs-checked", DIRECT, |f| f.without(INIT, "fstatfs")),
    ("setgroups-before-gid-map", NAMED, |f| f.cut(LAUNCHER, "\"setgroups\"", 4)),
    ("setgroups-before-gid-map", NAMED, |f| f.edited(LAUNCHER, "\"deny\"", "\"allo\"")),
    ("setgroups-before-gid-map", GIVEN_UP, |f| f.edited(LAUNCHER, "\"deny\"", "\"allo\"")),
    ("no-mount-after-root", PLAIN, |f| f.with(INIT, "MS_PRIVATE", "umount2(\".\", MNT_DETACH) = 0")),
    ("minimal-init", PLAIN, |f| {
        f.with(
            INIT,
            "MS_PRIVATE",
            "rt_sigtimedwait(~[], {si_signo=SIGTERM, si_code=SI_USER}, NULL, 8) = 15 (SIGTERM)",
        )
    }),
    ("no-new-privs-first", PLAIN, |f| f.with(INIT, "MS_PRIVATE", "landlock_restrict_self(9, 0) = 0")),
    ("filter-last", PLAIN, |f| {
        f.with(INIT, "MS_PRIVATE", "prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) = 0").with(
            INIT,
            "MS_PRIVATE",
            "seccomp(SECCOMP_SET_MODE_FILTER, 0, {len=1, filter=0x7f0000000000}) = 0",
        )
    }),
    ("ids-before-capabilities", DIRECT, |f| f.with(INIT, "setgid", CAPSET)),
    ("identity-as-asked", DIRECT, |f| f.without(INIT, "setsid")),
    ("identity-as-asked", DIRECT, |f| f.without(INIT, "setuid")),
    ("identity-as-asked", DIRECT, |f| f.edited(INIT, "setgid(0)", "setgid(5)")),
    ("identity-as-asked", DIRECT, |f| f.without(INIT, "setgroups")),
    ("identity-as-asked", DIRECT, |f| f.moved(INIT, "setuid", "write(5")),
    ("identity-as-asked", DIRECT, |f| f.moved(INIT, "setgroups", "write(5")),
    ("identity-as-asked", PLAIN, |f| f.without(INIT, "setuid")),
    ("identity-as-asked", PLAIN, |f| f.with(INIT, "unshare", "setgroups(0, NULL) = 0")),
    ("nothing-after-failure", DIRECT, |f| f.with(INIT, "setgid", "setgid(0) = -1 EINVAL (Invalid argument)")),
    ("nothing-after-failure", DIRECT, |f| {
        f.edited(INIT, "MS_PRIVATE, NULL) = 0", "MS_PRIVATE, NULL) = -1 EPERM (Operation not permitted)")
    }),
    ("stage-2-waits", DIRECT, |f| f.moved(INIT, "setsid", "read(4")),
    ("stage-2-waits", PLAIN, |f| f.moved(INIT, "setuid", "read(4")),
    ("stage-2-waits", PLAIN, |f| f.moved(INIT, "mount(", "read(4")),
    ("stage-2-waits", PLAIN, |f| f.without(INIT, "read(4")),
    ("kills-own-processes-only", DIRECT, |f| f.with(LAUNCHER, "\"G\"", "kill(-1, SIGKILL) = 0")),
    ("kills-own-processes-only", GIVEN_UP, |f| f.with(LAUNCHER, "pidfd_open", "kill(101, SIGKILL) = 0")),
    ("shared-memory", SHARED, |f| f.edited(LAUNCHER, "child_tidptr=NULL", "child_tidptr=0x10")),
    ("shared-memory", SHARED, |f| f.with(INIT, "setsid", "write(3, \"0\", 1) = 1")),
    ("shared-memory", WIDE, |f| f.without(LAUNCHER, "prctl(PR_SET_DUMPABLE, SUID_DUMP_DISABLE")),
    ("shared-memory", WIDE, |f| f.moved(LAUNCHER, "prctl(PR_SET_DUMPABLE, SUID_DUMP_USER", "\"G\"")),
    ("shared-memory", NAMED, |f| {
        f.edited(LAUNCHER, "child_stack=NULL, flags=", "child_stack=0x…, flags=CLONE_VM|")
    }),
    ("shared-memory", DIRECT, |f| {
        f.edited(INIT, "child_stack=NULL, flags=", "child_stack=0x…, flags=CLONE_VM|")
    }),
    ("one-init", GIVEN_UP, |f| f.without(LAUNCHER, "kill(101")),
    ("one-init", GIVEN_UP, |f| f.without(LAUNCHER, "wait4(101")),
    ("one-init", GIVEN_UP, |f| {
        f.edited(LAUNCHER, "EPERM (Operation not permitted)", "EINVAL (Invalid argument)")
    }),
    ("one-init", DIRECT, |f| {
        f.with(LAUNCHER, "\"G\"", "clone(child_stack=NULL, flags=CLONE_PIDFD|CLONE_CHILD_CLEARTID|CLONE_CHILD_SETTID|CLONE_NEWUSER, parent_tid=[9], child_tidptr=0x7f0000000010) = 102")
    }),
    ("one-init", PLAIN, |f| {
        f.with(LAUNCHER, "\"G\"", "clone(child_stack=NULL, flags=CLONE_CHILD_CLEARTID|CLONE_CHILD_SETTID, child_tidptr=0x7f0000000010) = 102")
    }),
    // Starts through a child.
    ("ends-with-launcher", JOINS, |f| f.without(CHILD, "PR_SET_PDEATHSIG, SIGKILL")),
    ("ends-with-launcher", JOINS, |f| {
        f.edited(CHILD, "PR_SET_PDEATHSIG, SIGKILL", "PR_SET_PDEATHSIG, SIGCONT")
    }),
    ("ends-with-launcher", JOINS, |f| f.without(INIT, "PR_SET_PDEATHSIG, SIGKILL")),
    ("ends-with-launcher", JOINS, |f| f.without(INIT, "PR_SET_PDEATHSIG, 0")),
    ("foreign-ends-closed-first", JOINS, |f| f.moved(CHILD, "rt_sigaction", "close(3)")),
    ("foreign-ends-closed-first", JOINS, |f| f.without(CHILD, "close(3)")),
    ("foreign-ends-closed-first", JOINS, |f| f.moved(LAUNCHER, "pidfd_open", "close(4)")),
    ("closes-own-descriptors-once", JOINS, |f| f.with(CHILD, "setresuid", "close(77) = 0")),
    ("closes-own-descriptors-once", JOINS, |f| f.with(INIT, "setsid", "close(77) = 0")),
    // The offsets, and a namespace, are open when stage 2 is created.
    ("no-descriptor-left", JOINS, |f| f.without_last(CHILD, "close(5)")),
    ("no-descriptor-left", JOINS, |f| f.without_last(CHILD, "close(7)")),
    ("no-descriptor-left", JOINS, |f| {
        f.with(LAUNCHER, "clone(", "openat(AT_FDCWD, \"/x\", O_RDONLY|O_NONBLOCK|O_CLOEXEC) = 9")
    }),
    ("named-descriptors-only", ENTERS, |f| f.without(CHILD, "close_range")),
    ("named-descriptors-only", ENTERS, |f| f.edited(CHILD, "close_range(10", "close_range(11")),
    ("named-descriptors-only", ENTERS, |f| {
        f.moved(CHILD, "close_range", "F_SETFD, 0").moved(CHILD, "F_SETFD, 0", "close_range")
    }),
    ("named-descriptors-only", ENTERS, |f| {
        f.moved(CHILD, "close_range", "sendto(").moved(CHILD, "F_SETFD", "sendto(")
    }),
    ("named-descriptors-only", ENTERS, |f| f.with(INIT, "execve", "fcntl(9, F_SETFD, 0) = 0")),
    ("named-descriptors-only", JOINS, |f| {
        f.with(CHILD, "SUID_DUMP", "close_range(3, 4294967295, CLOSE_RANGE_CLOEXEC) = 0")
    }),
    ("not-dumpable-while-joining", JOINS, |f| f.without(CHILD, "SUID_DUMP_DISABLE")),
    ("not-dumpable-while-joining", ENTERS, |f| f.moved(CHILD, "SUID_DUMP_DISABLE", "CLONE_PARENT|")),
    ("dumpable-window", JOINS, |f| f.with(CHILD, "unshare", "prctl(PR_SET_DUMPABLE, SUID_DUMP_USER) = 0")),
    ("dumpable-window", JOINS, |f| f.with(INIT, "setsid", "prctl(PR_SET_DUMPABLE, SUID_DUMP_USER) = 0")),
    ("mounts-joined-from-a-copy", ENTERS, |f| f.without(LAUNCHER, "F_GET_SEALS")),
    ("opened-before-joining", JOINS, |f| {
        let open =
            "openat(AT_FDCWD, \"/x\", O_RDONLY|O_NONBLOCK|O_CLOEXEC) = -1 ENOENT (No such file or directory)";
        f.with(CHILD, "setresuid", open)
    }),
    ("joins-namespaces-only", JOINS, |f| f.edited(CHILD, "NSFS_MAGIC", "PROC_SUPER_MAGIC")),
    ("no-proc-after-mount-namespace", ENTERS, |f| {
        let open = "openat(AT_FDCWD, \"/proc/self/stat\", O_RDONLY|O_CLOEXEC) = -1 ENOENT (No such file or directory)";
        f.with(CHILD, "sendto(", open)
    }),
    ("as-asked", JOINS, |f| f.without(CHILD, "setns(3")),
    ("as-asked", JOINS, |f| f.edited(CHILD, "|CLONE_NEWCGROUP", "")),
    ("as-asked", ENTERS, |f| f.without(INIT, "setns")),
    ("user-namespace-first", JOINS, |f| {
        // Nothing else follows the refusal.
        f.with(CHILD, "sendto(", "unshare(CLONE_NEWUSER) = -1 EPERM (Operation not permitted)")
            .without_last(CHILD, "sendto(")
    }),
    ("user-namespace-first", JOINS, |f| f.with(INIT, "mount(", "unshare(CLONE_NEWUTS) = 0")),
    ("maps-once", JOINS, |f| f.twice(CHILD, "\"-50")),
    ("maps-acknowledged-when-written", JOINS, |f| f.without(CHILD, "\"-50")),
    ("maps-acknowledged-when-written", JOINS, |f| f.edited(CHILD, "\"-50", "\"-40")),
    ("maps-acknowledged-when-written", JOINS, |f| f.without(CHILD, "monotonic 600")),
    ("maps-acknowledged-when-written", JOINS, |f| f.edited(CHILD, "monotonic 600", "monotonic 700")),
    ("procfs-own", JOINS, |f| f.edited(CHILD, "openat2(3, ", "openat2(9, ")),
    ("procfs-checked", JOINS, |f| f.without(CHILD, "fstatfs")),
    ("identity-as-asked", JOINS, |f| f.without(CHILD, "setresuid")),
    ("identity-as-asked", JOINS, |f| f.moved(CHILD, "unshare(", "setresuid")),
    ("identity-as-asked", JOINS, |f| f.without(INIT, "setsid")),
    ("identity-as-asked", JOINS, |f| f.without(INIT, "setuid")),
    ("identity-as-asked", JOINS, |f| f.edited(INIT, "setgid(0)", "setgid(5)")),
    ("identity-as-asked", JOINS, |f| f.without(INIT, "setgroups")),
    ("identity-as-asked", ENTERS, |f| f.without(INIT, "setuid")),
    ("identity-as-asked", ENTERS, |f| f.without(INIT, "setsid")),
    ("identity-as-asked", ENTERS, |f| f.with(CHILD, "sendto(", "setresuid(0, 0, 0) = 0")),
    ("nothing-after-failure", JOINS, |f| {
        f.with(CHILD, "setresuid", "setresuid(0, 0, 0) = -1 EPERM (Operation not permitted)")
    }),
    ("nothing-after-failure", JOINS, |f| {
        f.edited(INIT, "MS_PRIVATE, NULL) = 0", "MS_PRIVATE, NULL) = -1 EPERM (Operation not permitted)")
    }),
    ("pid-line-once", JOINS, |f| f.twice(CHILD, "sendto(")),
    ("pid-line-once", JOINS, |f| f.moved(CHILD, "sendto(", "setresuid")),
    ("pid-line-once", JOINS, |f| {
        f.with(CHILD, "sendto(", "sendto(4, \"\\1\\0\\0\\0\", 4, MSG_NOSIGNAL, NULL, 0) = 4")
            .without_last(CHILD, "sendto(")
    }),
    ("pid-line-once", JOINS, |f| f.moved(LAUNCHER, "\"G\"", "read(3")),
    ("stage-2-waits", JOINS, |f| f.moved(INIT, "setuid", "\"G\"")),
    ("stage-2-waits", JOINS, |f| f.moved(INIT, "mount(", "\"G\"")),
    ("stage-2-waits", JOINS, |f| f.without(INIT, "\"G\"")),
    ("stage-2-waits", ENTERS, |f| f.moved(INIT, "setns", "\"G\"")),
    ("kills-own-processes-only", JOINS, |f| f.with(LAUNCHER, "\"G\"", "kill(-1, SIGKILL) = 0")),
    ("kills-own-processes-only", JOINS, |f| f.with(CHILD, "sendto(", "kill(32735, SIGKILL) = 0")),
    ("in-place", HERE, |f| f.with(LAUNCHER, "execve(", "prctl(PR_SET_PDEATHSIG, SIGKILL) = 0")),
    ("in-place", HERE, |f| f.without(LAUNCHER, "wait4(")),
    ("in-place", HERE, |f| f.moved(LAUNCHER, "wait4(", "execve(")),
    ("in-place", HERE, |f| f.with(LAUNCHER, "execve(", "rt_sigprocmask(SIG_BLOCK, ~[], [], 8) = 0")),
    ("user-namespace-first", HERE, |f| f.without(LAUNCHER, "\"A\\0\\0\\0\"")),
    ("identity-as-asked", HERE, |f| f.without(LAUNCHER, "setgid(0)")),
    ("maps-acknowledged-when-written", HERE, |f| f.without(PARENT, "\"0 100000 65536\\n\\0\"")),
    ("as-asked", HERE, |f| f.without(LAUNCHER, "CLONE_NEWNET")),
    ("one-init", JOINS, |f| {
        f.with(LAUNCHER, "\"G\"", "clone(child_stack=NULL, flags=CLONE_CHILD_CLEARTID|CLONE_CHILD_SETTID, child_tidptr=0x7f0000000010) = 109")
    }),
    ("one-init", JOINS, |f| {
        f.with(LAUNCHER, "\"G\"", "clone(child_stack=NULL, flags=CLONE_PARENT_SETTID|CLONE_CHILD_CLEARTID|CLONE_CHILD_SETTID, parent_tid=[109], child_tidptr=0x7f0000000010) = 109")
    }),
];

#[test]
fn records_of_the_real_kernel_follow_every_rule() {
    for name in RECORDS.iter().map(|(name, _)| name).chain(PLANNED) {
        let run = record(name);
        let facts = facts(&run, name);
        assert!(facts.asked.is_some(), "{name}");
        let findings: Vec<_> = check(&run, &facts).iter().map(ToString::to_string).collect();
        match *name {
            "five" => assert_eq!(broken(&run, name), ["cgroup-namespace"].into(), "{findings:#?}"),
            _ => assert!(findings.is_empty(), "{name}: {findings:#?}"),
        }
    }
}

/// Returns a run in which one process was killed after `length` lines. Processes that it had not created by
/// then are removed. The child of the clone during which it was killed stays.
fn broken_off(whole: &Run, number: usize, length: usize) -> Run {
    let mut run = whole.clone();
    let made = crate::sections::children(&run.sections[number]);
    let unborn = made.into_iter().filter(|(at, ..)| *at > length).map(|(_, role, _)| role);
    for role in unborn.collect::<Vec<_>>() {
        run.sections.retain(|section| match role {
            Role::Stage(0) => section.role == LAUNCHER,
            Role::Stage(stage) => !matches!(section.role, Role::Stage(later) if later >= stage),
            _ => section.role != role,
        });
    }
    run.sections[number].lines.truncate(length);
    run.sections[number].end = End::Unknown;
    run
}

/// A process may be killed at any line: the remaining lines still follow the rules.
#[test]
fn run_cut_at_any_line_follows_every_rule() {
    for name in ["user_and_all", "window", "tools", "join"].iter().chain(PLANNED) {
        let whole = record(name);
        for (number, section) in whole.sections.iter().enumerate() {
            for length in 0..section.lines.len() {
                let run = broken_off(&whole, number, length);
                let mut findings = check(&run, &facts(&run, name));
                // A simulated Go runtime only resembles runc, so findings in its own section do not count.
                let likeness = PLANNED.contains(name) && !OF_OURS.contains(name);
                findings.retain(|finding| !likeness || finding.section != "launcher");
                let findings: Vec<_> = findings.iter().map(ToString::to_string).collect();
                assert!(findings.is_empty(), "{name}, {} up to {length}: {findings:#?}", section.name);
            }
        }
    }
}

#[test]
fn each_edited_run_breaks_exactly_its_rule() {
    let mut wrong = Vec::new();
    for (number, (rule, name, edit)) in RULE_BREAKS.iter().enumerate() {
        let run = edit(EditedRun(record(name))).0;
        let broken = broken(&run, name);
        if broken != BTreeSet::from([*rule]) {
            wrong.push(std::format!("{number}: {rule} on {name} broke {broken:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_rule_has_name_reason_reference_and_a_breaking_run() {
    let names: BTreeSet<_> = RULES.iter().map(|rule| rule.name).collect();
    assert_eq!(names.len(), RULES.len());
    for rule in RULES {
        assert!(!rule.reason.is_empty() && !rule.reference.is_empty(), "{}", rule.name);
        let forged = RULE_BREAKS.iter().any(|(name, ..)| *name == rule.name);
        assert!(forged || rule.name == "cgroup-namespace", "{}", rule.name);
    }
    assert!(listing().contains("dumpable-window (breach)\n"));
}
