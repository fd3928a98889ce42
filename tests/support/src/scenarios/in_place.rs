//! Starts in place by our own launcher: it becomes the command itself. Most are starts of the other files.

use nsexec::bootstrap::Bootstrap;
use nsexec::namespace::NsKind;
use nsexec::policy::Session;
use nsexec::sys::types::{CloneFlags, Errno};
use nsexec_audit::sim::{Container, Extra, LauncherFile, User};

use super::entering;
use super::shapes::{named, restricted, rooted, without_code};
use super::starts::{FIVE, OWN, WIDE, eight, mapped, old, ordinary, realistic, tools, with_tools};
use super::{Scenario, Way, flags, paths_of};

const OURS: &[Way] = &[Way::Ours];

/// Returns the same start in place.
fn here(mut scenario: Scenario) -> Scenario {
    let text = |text: String| -> &'static str { Box::leak(text.into_boxed_str()) };
    scenario.policy.launch.in_place = true;
    Scenario {
        name: text(format!("here_{}", scenario.name)),
        about: text(format!("in place: {}", scenario.about)),
        ways: OURS,
        ..scenario
    }
}

/// Returns the same start in place, in the session of the caller: setsid(2) is refused to the leader of a
/// process group.
fn leads_nothing(scenario: Scenario) -> Scenario {
    Scenario { session: Session::Keep, ..here(scenario) }
}

fn root(name: &'static str, about: &'static str, message: &Bootstrap<'_>) -> Scenario {
    Scenario::new(name, about, &User::root(), message)
}

/// Scenarios that end with the command.
pub(super) fn starts() -> Vec<Scenario> {
    let realistic = realistic();
    let again = |name: &str| {
        let found = realistic.iter().find(|scenario| scenario.name == name).expect("a scenario of this name");
        here(found.again())
    };
    let mut all: Vec<Scenario> = [
        "nothing",
        "rootful",
        "rootful_user",
        "rootful_user_debug",
        "rootless_single",
        "rootless_tools",
        "dumpable_window",
        "exec_eight",
        "exec_rootless",
        "join_and_create",
        "time_offsets",
        "time_offsets_user",
        "time_offsets_rootless",
        "oom_score",
        "keep_credentials",
        "drop_groups",
        "command_in_path",
        "script",
        "sigchld_ignored",
    ]
    .into_iter()
    .map(again)
    .collect();
    let message = mapped(&[NsKind::Net, NsKind::Uts], WIDE).with_setgroup(true);
    all.extend([
        leads_nothing(restricted(root(
            "attributes",
            "the command gets every attribute, and runs code before",
            &message,
        ))),
        leads_nothing(without_code(root(
            "attributes_closed",
            "the same without code of the caller",
            &message,
        ))),
        here(rooted(root(
            "root",
            "the command gets a root directory of its own",
            &Bootstrap::new(CloneFlags::NEWNS),
        ))),
        here(named("named", "the command gets one named descriptor")),
        here(entering::all("enter", "root comes last, right before the exec")),
        here(tools(Scenario::new("old_kernel", "Linux 4.18", &ordinary(), &with_tools()).setting(old))),
        here(entering::all("enter_old_kernel", "without close_range: descriptor by descriptor").setting(old)),
        here(
            root(
                "mount_joined",
                "a user namespace created beside a joined mount namespace",
                &mapped(&[NsKind::Uts], WIDE),
            )
            .joining(|sim| {
                let kinds = [NsKind::Mnt, NsKind::Net];
                paths_of(sim.container(&Container { maker: User::root(), maps: None, kinds: &kinds }), &kinds)
            }),
        ),
    ]);
    all
}

/// Scenarios that end with an error.
pub(super) fn refusals() -> Vec<Scenario> {
    let missing = root("command_missing", "there is no such command", &mapped(&FIVE, WIDE));
    let mut script =
        root("not_executable", "the command is not executable", &Bootstrap::new(CloneFlags::NEWUTS));
    script.sim.file("/bin/script", Extra::Regular(b"#!".as_slice().into()));
    let mut shell =
        root("script_without_shell", "a script without a #! line, and no shell", &mapped(&FIVE, WIDE));
    shell.sim.file("/bin/script", Extra::Regular(b"exit".as_slice().into()));
    shell.sim.refuse_exec("/bin/script", Errno::ENOEXEC);
    let no_process = |limit: usize| {
        root("no_process_left", "the limit of processes is reached at the helper", &mapped(&[], WIDE))
            .setting(|settings| settings.processes = limit)
    };
    let session = root("setsid_refused", "no session of its own", &mapped(&[NsKind::Net], WIDE));
    vec![
        here(Scenario { session: Session::New, ..session }).refused("setsid failed: Operation not permitted"),
        here(Scenario { candidates: b"/usr/local/bin/missing\0/bin/missing\0", ..missing })
            .refused("failed to execute command: No such file or directory"),
        here(Scenario { candidates: b"/bin/script\0", ..script })
            .refused("failed to execute command: Permission denied"),
        here(Scenario { candidates: b"/bin/script\0", ..shell })
            .refused("failed to execute command: No such file or directory"),
        here(no_process(1)).refused("unable to spawn stage-0: Resource temporarily unavailable"),
        here(
            root("net_limit", "user.max_net_namespaces is reached", &mapped(&FIVE, WIDE))
                .without_room_for(NsKind::Net),
        )
        .refused("failed to unshare remaining namespaces: No space left on device"),
        here(
            root("user_filtered", "a seccomp filter refuses every unshare", &mapped(&FIVE, WIDE))
                .filtered("unshare", Errno::EPERM),
        )
        .refused("failed to unshare user namespace: Operation not permitted"),
        here(Scenario::new(
            "map_without_tool",
            "a map that an ordinary user may not write, and no tool",
            &ordinary(),
            &mapped(&[], "0 100000 1\n").with_rootless_euid(true),
        ))
        .refused("mapping tool not present"),
        here(Scenario::new(
            "map_no_tool",
            "the same with the path of a tool that does not exist",
            &ordinary(),
            &mapped(&[], "0 100000 1\n").with_rootless_euid(true).with_uidmap_path(c"/usr/bin/newuidmap"),
        ))
        .refused("failed to execv /usr/bin/newuidmap: No such file or directory"),
        here(
            root("both", "a namespace is both joined and created", &Bootstrap::new(flags(&[NsKind::Net])))
                .joining(|sim| {
                    let kinds = [NsKind::Net];
                    paths_of(
                        sim.container(&Container { maker: User::root(), maps: None, kinds: &kinds }),
                        &kinds,
                    )
                }),
        )
        .refused("asked to both join and create: net"),
        here(Scenario {
            launcher_file: LauncherFile::Named,
            ..root(
                "not_sealed",
                "a mount namespace is joined from a program that is no copy",
                &Bootstrap::new(CloneFlags::EMPTY),
            )
            .joining(eight)
        })
        .refused("does not run from a sealed copy of itself"),
        here(
            Scenario::new(
                "net_refused",
                "an ordinary user joins a namespace of the machine",
                &ordinary(),
                &mapped(&[], OWN).with_rootless_euid(true),
            )
            .joining(|sim| {
                let kinds = [NsKind::Net];
                paths_of(sim.container(&Container { maker: User::root(), maps: None, kinds: &kinds }), &kinds)
            }),
        )
        .refused("failed to open /proc/101/ns/net: Permission denied"),
    ]
}
