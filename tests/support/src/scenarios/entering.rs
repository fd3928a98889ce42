//! Our launcher enters an existing container: it joins the user namespace last, and the command gets only
//! named descriptors.

use nsexec::bootstrap::Bootstrap;
use nsexec::launch::Descriptors;
use nsexec::namespace::NsKind;
use nsexec::policy::{Credentials, Setgroups};
use nsexec::sys::types::{CloneFlags, Errno, Fd};
use nsexec_audit::sim::{Container, User};

use super::starts::{OWN, WIDE, eight, old, ordinary};
use super::{Scenario, Way, paths_of};

/// A scenario like `nsexec enter -a`.
fn entering(name: &'static str, about: &'static str, user: &User) -> Scenario {
    let message = Bootstrap::new(CloneFlags::EMPTY).with_rootless_euid(user.uid != 0);
    let mut scenario = Scenario::new(name, about, user, &message).ways(&[Way::Ours]);
    scenario.sim.duplicate(Fd(0), Fd(7));
    scenario.policy = scenario
        .policy
        .with_credentials(Credentials::RootLast)
        .with_descriptors(Descriptors::Named)
        .with_setgroups(Setgroups::DropIfAllowed);
    scenario
}

/// Root enters all namespaces of a container.
pub(super) fn all(name: &'static str, about: &'static str) -> Scenario {
    entering(name, about, &User::root()).joining(eight)
}

/// Scenarios that end with the command.
pub(super) fn starts() -> Vec<Scenario> {
    let killed = all("enter_kill_child", "the parent-death signal is set after the last change of ids");
    vec![
        all("enter_eight", "root enters a container: the user namespace and its ids are stage 2's last steps"),
        Scenario { policy: killed.policy.with_kill_child(true), ..killed },
        entering(
            "enter_rootless",
            "an ordinary user enters its own container: the user namespace must come first, the ids come last",
            &ordinary(),
        )
        .joining(|sim| {
            let kinds = [NsKind::Mnt, NsKind::Net, NsKind::Uts];
            let pid = sim.container(&Container { maker: ordinary(), maps: Some((OWN, OWN)), kinds: &kinds });
            paths_of(pid, &[NsKind::User, NsKind::Net, NsKind::Uts, NsKind::Mnt])
        }),
        entering("enter_user", "a user namespace alone", &User::root()).joining(|sim| {
            let pid = sim.container(&Container { maker: User::root(), maps: Some((WIDE, WIDE)), kinds: &[] });
            paths_of(pid, &[NsKind::User])
        }),
        all("enter_old_kernel", "without close_range: descriptor by descriptor").setting(old),
        {
            let scenario = entering("enter_and_create", "a namespace is created: root comes at once", &User::root());
            let message = super::message(&Bootstrap::new(CloneFlags::NEWNET));
            Scenario { message, ..scenario }.joining(|sim| {
                let maps = Some((WIDE, WIDE));
                let pid = sim.container(&Container { maker: User::root(), maps, kinds: &[NsKind::Uts] });
                paths_of(pid, &[NsKind::User, NsKind::Uts])
            })
        },
    ]
}

/// Scenarios that end with an error.
pub(super) fn refusals() -> Vec<Scenario> {
    let entering = |name, about| entering(name, about, &User::root());
    let mut closed = Scenario::new(
        "enter_closed_descriptor",
        "a descriptor that was named is not open",
        &User::root(),
        &Bootstrap::new(CloneFlags::EMPTY),
    )
    .ways(&[Way::Ours])
    .refused("failed to pass on descriptor 7: Bad file descriptor");
    closed.policy = closed.policy.with_descriptors(Descriptors::Named);
    vec![
        closed,
        entering("enter_no_root", "the container has no id 0: detected after the go byte")
            .joining(|sim| {
                let maps = Some(("1 100000 65536\n", "1 100000 65536\n"));
                paths_of(sim.container(&Container { maker: User::root(), maps, kinds: &[] }), &[NsKind::User])
            })
            .refused("setuid failed: Invalid argument"),
        entering("enter_own_user", "the caller's own user namespace: detected after the go byte")
            .joining(|_| "user:/proc/self/ns/user".into())
            .refused("failed to setns into user namespace: Invalid argument"),
        entering("enter_user_forbidden", "the last setns returns EPERM")
            .joining(|sim| {
                let maps = Some((WIDE, WIDE));
                paths_of(sim.container(&Container { maker: User::root(), maps, kinds: &[] }), &[NsKind::User])
            })
            .setting(|settings| {
                settings.lacks.insert("setns", Errno::EPERM);
            })
            .refused("failed to setns(0x10000000) into user namespace"),
    ]
}
