//! Starts that end with an error: of the kernel, of a mapping tool, or our own before any call.

use std::fmt::Write as _;

use nsexec::bootstrap::{Bootstrap, OomScoreAdj};
use nsexec::namespace::NsKind;
use nsexec::sys::Sys;
use nsexec::sys::types::{CloneFlags, Errno, Fd, OpenFlags, Signal};
use nsexec::timens::TimeOffsets;
use nsexec_audit::sim::{Container, Ended, Extra, Program, Settings, Sim, User};

use super::starts::{FIVE, OWN, SUBORDINATE, WIDE, mapped, ordinary, tools, with_tools};
use super::{Scenario, Way, flags, leak, map, paths_of};

const INIT: &[Way] = &[Way::Init];
const EXEC: &[Way] = &[Way::Exec];
const OURS: &[Way] = &[Way::Ours];

/// Returns all of them but the malformed messages.
pub(super) fn all() -> Vec<Scenario> {
    let mut all = impossible();
    all.extend(not_joined());
    all.extend(not_created());
    all.extend(not_mapped());
    all.extend(of_a_tool());
    all.extend(of_stage_2());
    all.extend(of_the_command());
    all
}

fn root(name: &'static str, about: &'static str, message: &Bootstrap<'_>) -> Scenario {
    Scenario::new(name, about, &User::root(), message)
}

/// Requests that are impossible, and refused before any call.
fn impossible() -> Vec<Scenario> {
    let wide: String = (0..340_u64).fold(String::new(), |mut text, line| {
        let _ = writeln!(text, "{} {} 1", 100_000 + line, 200_000 + line);
        text
    });
    let user = Bootstrap::new(CloneFlags::NEWUSER);
    vec![
        root("unknown_flags", "a clone flag that names no namespace", &Bootstrap::new(CloneFlags(0x200)))
            .refused("clone flags 0x200 are not namespace flags")
            .ways(INIT),
        root(
            "join_and_create_same",
            "one kind to be joined and created",
            &Bootstrap::new(CloneFlags::NEWNET),
        )
        .joining(|_| "net:/run/netns/blue".into())
        .refused("asked to both join and create: net")
        .ways(INIT),
        root("map_too_large", "340 lines that no single write can carry", &user.with_uid_map(map(&wide)))
            .refused("uid_map: ")
            .ways(INIT),
    ]
}

fn not_joined() -> Vec<Scenario> {
    let net = |name, about, extra: Option<Extra>| {
        root(name, about, &Bootstrap::new(CloneFlags::EMPTY)).joining(|sim| {
            if let Some(extra) = extra {
                sim.file("/run/netns/blue", extra);
            }
            "net:/run/netns/blue".into()
        })
    };
    let open = "failed to open /run/netns/blue";
    let container = |sim: &mut Sim, maker: User, kind: NsKind| {
        sim.container(&Container { maker, maps: None, kinds: &[kind] })
    };
    let nothing = Bootstrap::new(CloneFlags::EMPTY);
    vec![
        net(
            "join_regular",
            "a plain file in place of a namespace",
            Some(Extra::Regular(b"x".as_slice().into())),
        )
        .refused(open)
        .ways(EXEC),
        net("join_fifo", "a FIFO, which would hold a plain open for ever", Some(Extra::Fifo))
            .refused(open)
            .ways(EXEC),
        net("join_directory", "a directory", Some(Extra::Directory)).refused(open).ways(EXEC),
        net("join_missing", "a path that is not there", None).refused(open).ways(OURS),
        net("join_forbidden", "a path that we may not open", Some(Extra::Forbidden)).refused(open).ways(OURS),
        root("join_wrong_kind", "a namespace of another kind", &nothing)
            .joining(|sim| {
                let pid = container(sim, User::root(), NsKind::Uts);
                format!("net:/proc/{pid}/ns/uts")
            })
            .refused("failed to setns into net namespace: Invalid argument")
            .ways(EXEC),
        root("join_own_user", "the user namespace in which we are", &nothing)
            .joining(|_| "user:/proc/self/ns/user".into())
            .refused("failed to setns into user namespace: Invalid argument")
            .ways(EXEC),
        Scenario::new(
            "join_unprivileged",
            "two that an ordinary user may not join: all are named",
            &ordinary(),
            &nothing,
        )
        .joining(|sim| {
            let pid = container(sim, User::root(), NsKind::Net);
            for (path, kind) in [("/run/netns/blue", NsKind::Net), ("/run/utsns/blue", NsKind::Uts)] {
                sim.file(path, Extra::Namespace(sim.namespace(pid, kind)));
            }
            "uts:/run/utsns/blue,net:/run/netns/blue".into()
        })
        .refused("failed to setns(0x4000000) into uts namespace (with path /run/utsns/blue)")
        .ways(EXEC),
        root(
            "join_outside_pid",
            "setns returns EINVAL, as for a pid namespace that is not below ours",
            &nothing,
        )
        .joining(|sim| {
            let one = container(sim, User::root(), NsKind::Pid);
            paths_of(one, &[NsKind::Pid])
        })
        .filtered("setns", Errno::EINVAL)
        .refused("failed to setns into pid namespace: Invalid argument")
        .ways(EXEC),
    ]
}

fn not_created() -> Vec<Scenario> {
    let five = Bootstrap::new(flags(&FIVE));
    let own = mapped(&FIVE, OWN).with_rootless_euid(true);
    let user = "failed to unshare user namespace";
    let rest = "failed to unshare remaining namespaces";
    vec![
        Scenario::new(
            "create_unprivileged",
            "namespaces without a user namespace, by an ordinary user",
            &ordinary(),
            &five,
        )
        .refused(rest)
        .ways(OURS),
        Scenario::new("user_limit", "user.max_user_namespaces is reached", &ordinary(), &own)
            .without_room_for(NsKind::User)
            .refused(user)
            .ways(OURS),
        root("net_limit", "user.max_net_namespaces is reached", &five)
            .without_room_for(NsKind::Net)
            .refused(rest)
            .ways(INIT),
        Scenario::new("chrooted", "the caller has changed its root", &ordinary(), &own)
            .setting(|settings| settings.chrooted = true)
            .refused(user)
            .ways(OURS),
        root(
            "unshare_invalid",
            "a kernel without a kind: EINVAL, five times",
            &Bootstrap::new(CloneFlags::NEWTIME),
        )
        .filtered("unshare", Errno::EINVAL)
        .refused(rest)
        .ways(INIT),
        root("unshare_filtered", "a seccomp filter of an outer container", &mapped(&[NsKind::Uts], WIDE))
            .filtered("unshare", Errno::EPERM)
            .refused(rest)
            .ways(OURS),
        root("no_process_left", "the limit of processes is reached at stage 2", &five)
            .setting(|settings| settings.processes = 3)
            .refused("unable to spawn stage-2: Resource temporarily unavailable")
            .ways(INIT),
        root("no_descriptor_left", "the limit of descriptors is reached at the first sync pipe", &five)
            .setting(|settings| settings.descriptors = 8)
            .refused("failed to setup sync pipe")
            .ways(INIT),
        root("oom_score_refused", "a score that an ordinary user may not set", &five)
            .user(&ordinary(), |message| {
                message.with_oom_score_adj(OomScoreAdj::parse(c"-500").expect("a score"))
            })
            .refused("failed to update /proc/self/oom_score_adj: Permission denied")
            .ways(INIT),
        time(
            "time_offsets_late",
            "offsets for a time namespace in which processes are",
            CloneFlags::EMPTY,
            "monotonic 1 0\n",
        )
        .refused("timens_offsets: Permission denied"),
        time(
            "time_offsets_range",
            "a clock that would be negative",
            CloneFlags::NEWTIME,
            "boottime -100000 0\n",
        )
        .refused("timens_offsets: Numerical result out of range"),
    ]
}

fn time(name: &'static str, about: &'static str, flags: CloneFlags, text: &str) -> Scenario {
    let offsets = TimeOffsets::parse(leak(text)).expect("offsets");
    root(name, about, &Bootstrap::new(flags).with_timens_offsets(offsets)).ways(INIT)
}

fn not_mapped() -> Vec<Scenario> {
    let user = Bootstrap::new(CloneFlags::NEWUSER);
    vec![
        Scenario::new(
            "map_without_tool",
            "a map that an ordinary user may not write, and no tool",
            &ordinary(),
            &mapped(&FIVE, SUBORDINATE).with_rootless_euid(true).with_setgroup(true),
        )
        .refused("mapping tool not present")
        .ways(OURS),
        root("root_not_mapped", "a map without id 0: setuid(0) fails", &mapped(&[], "1 100000 65536\n"))
            .refused("setuid failed: Invalid argument")
            .ways(OURS),
        root("no_map", "a user namespace without maps", &user)
            .refused("failed to become root in user namespace: Invalid argument")
            .ways(INIT),
        Scenario {
            sim: Sim::new(Settings { proc_missing: true, ..Settings::default() }, &User::root()),
            ..root("proc_missing", "no procfs of ours at /proc: nothing is written there", &mapped(&[], WIDE))
                .refused("/proc belongs to another pid namespace, or is not mounted")
                .ways(OURS)
        },
        covered_uid_map("covered_uid_map", "/proc/102").ways(INIT),
        covered_directory("covered_directory", "/proc/102").ways(INIT),
        covered_oom_score("covered_oom_score", "/proc/101").ways(INIT).refused(
            "/proc/self/oom_score_adj, which is a mount point: something is mounted over it \
                  (unmount it, or mount a new /proc)",
        ),
        Scenario::new(
            "deny_refused",
            "the setgroups file cannot be written, as under an outer filter",
            &ordinary(),
            &mapped(&[], OWN).with_rootless_euid(true),
        )
        .filtered("write", Errno::EPERM)
        .refused("failed to write 'deny' to /proc/")
        .ways(INIT),
    ]
}

/// Another process's uid_map is bound over that of the process with this directory.
pub(super) fn covered_uid_map(name: &'static str, of: &str) -> Scenario {
    let about = "another process's uid_map is bound over that of the new process";
    covered(name, about, "/proc/100/uid_map", &format!("{of}/uid_map"))
        .refused(mount_point("update", of, "/uid_map"))
}

/// Another process's directory is bound over this one.
pub(super) fn covered_directory(name: &'static str, of: &str) -> Scenario {
    let about = "another process's directory is bound over that of the new process";
    covered(name, about, "/proc/100", of).refused(mount_point("open", of, ""))
}

/// Another process's oom score is bound over that of the process with this directory.
pub(super) fn covered_oom_score(name: &'static str, of: &str) -> Scenario {
    let about = "another process's oom score is bound over that of the new process";
    covered(name, about, "/proc/100/oom_score_adj", &format!("{of}/oom_score_adj")).refused(mount_point(
        "update",
        of,
        "/oom_score_adj",
    ))
}

/// Returns the error for a file or directory that is a mount point.
fn mount_point(step: &str, of: &str, file: &str) -> &'static str {
    let text = format!(
        "failed to {step} {of}{file}, which is a mount point: something is mounted over it \
         (unmount it, or mount a new /proc)"
    );
    Box::leak(text.into_boxed_str())
}

/// A start where a file of procfs is mounted over another one. Both are procfs, so fstatfs cannot distinguish
/// them.
fn covered(name: &'static str, about: &'static str, what: &str, over: &str) -> Scenario {
    let message = mapped(&[], WIDE).with_oom_score_adj(OomScoreAdj::parse(c"5").expect("a score"));
    let mut scenario = root(name, about, &message).ways(OURS);
    scenario.sim.bind(what, over);
    scenario
}

/// Mapping tools that fail or misbehave.
fn of_a_tool() -> Vec<Scenario> {
    let with = |name, about, program: Option<Program>| {
        let scenario = tools(Scenario::new(name, about, &ordinary(), &with_tools())).ways(OURS);
        match program {
            Some(program) => scenario.program("/usr/bin/newuidmap", program),
            None => scenario,
        }
    };
    // This tool writes only the first line of the map.
    let part = Program::new(|sys| {
        let pid = sys.argv().get(1).cloned().unwrap_or_default();
        let path = leak(&format!("/proc/{}/uid_map", String::from_utf8_lossy(&pid)));
        let wrote =
            sys.openat(Fd::CWD, path, OpenFlags::ReadWrite).and_then(|fd| sys.write(fd, OWN.as_bytes()));
        Ended::Exit(wrote.map_or(1, |_| 0))
    });
    let beyond = with_tools().with_uid_map(map("0 1000 1\n1 500000 10\n"));
    vec![
        tools(Scenario::new(
            "tool_refuses",
            "ids that are not the caller's: newuidmap exits with 1",
            &ordinary(),
            &beyond,
        ))
        .refused("failed to use newuid map on ")
        .ways(&[Way::Init, Way::Ours]),
        with("tool_killed", "newuidmap is killed", Some(Program::ends(Ended::Signal(Signal::KILL))))
            .refused("failed to use newuid map on "),
        with(
            "tool_wrote_nothing",
            "newuidmap exits with 0 but wrote nothing",
            Some(Program::ends(Ended::Exit(0))),
        )
        .refused("newuidmap reported success, but /proc/"),
        with(
            "tool_wrote_part",
            "newuidmap exits with 0 but wrote only the first line",
            Some(part.setuid_root()),
        )
        .refused("differs: '1 100000 65535' is missing"),
        with("tool_without_privilege", "no_new_privs takes the tool's set-user-id bit away", None)
            .setting(|settings| settings.no_new_privs = true)
            .refused("failed to use newuid map on "),
        Scenario::new(
            "tool_missing",
            "the tool is not at the path in the message",
            &ordinary(),
            &with_tools(),
        )
        .refused("failed to execv /usr/bin/newuidmap: No such file or directory")
        .ways(OURS),
        Scenario::new(
            "tool_relative",
            "a tool without a folder: there is no PATH to search",
            &ordinary(),
            &with_tools().with_uidmap_path(c"newuidmap"),
        )
        .refused("newuidmap: the mapping tool's path is not absolute")
        .ways(OURS),
    ]
}

fn of_stage_2() -> Vec<Scenario> {
    let user = mapped(&[], WIDE).with_setgroup(true);
    let filtered = |name, about, call, refused| {
        root(name, about, &user).filtered(call, Errno::EPERM).refused(refused).ways(INIT)
    };
    let mut gid_alone = Bootstrap::new(CloneFlags::NEWUSER).with_uid_map(map(WIDE));
    gid_alone = gid_alone.with_setgroup(true);
    vec![
        filtered(
            "setgroups_refused",
            "the groups cannot be dropped",
            "setgroups",
            "setgroups failed: Operation not permitted",
        ),
        filtered(
            "setsid_refused",
            "no session of its own",
            "setsid",
            "setsid failed: Operation not permitted",
        ),
        root("no_gid_map", "a user namespace without a gid map: there is no group 0", &gid_alone)
            .refused("setgid failed: Invalid argument")
            .ways(INIT),
    ]
}

fn of_the_command() -> Vec<Scenario> {
    let uts = Bootstrap::new(CloneFlags::NEWUTS);
    let missing = root("command_missing", "there is no such command", &uts).ways(OURS);
    let refused =
        root("command_not_executable", "the command is not executable, in the second folder of PATH", &uts)
            .ways(OURS);
    let masked = root(
        "proc_masked",
        "a part of /proc is covered: no fresh one in a user namespace",
        &mapped(&[NsKind::Mnt, NsKind::Pid], WIDE),
    )
    .setting(|settings| settings.proc_masked = true)
    .ways(OURS);
    let mut refused = Scenario { candidates: b"/usr/local/bin/script\0/bin/script\0", ..refused };
    refused.sim.file("/bin/script", Extra::Regular(b"#!".as_slice().into()));
    vec![
        Scenario { candidates: b"/usr/local/bin/missing\0/bin/missing\0", ..missing }
            .refused("failed to execute command: No such file or directory"),
        refused.refused("failed to execute command: Permission denied"),
        Scenario { policy: masked.policy.with_mount_proc(true), ..masked }
            .refused("failed to mount /proc: Operation not permitted"),
    ]
}

impl Scenario {
    /// A call fails with this errno, as with a seccomp filter of an outer container or an old kernel.
    pub(super) fn filtered(mut self, call: &'static str, errno: Errno) -> Self {
        self.sim.settings().lacks.insert(call, errno);
        self
    }

    /// The limit on namespaces of this kind is reached.
    pub(super) fn without_room_for(mut self, kind: NsKind) -> Self {
        self.sim.settings().limits.insert(kind, 0);
        self
    }

    /// The same scenario for another user, with another message.
    fn user<'m>(self, user: &User, change: impl FnOnce(Bootstrap<'m>) -> Bootstrap<'m>) -> Self {
        Self::new(self.name, self.about, user, &change(Bootstrap::new(CloneFlags::NEWNET)))
    }
}
