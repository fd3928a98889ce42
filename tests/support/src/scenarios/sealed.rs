//! Our own launcher joins a mount namespace.
//!
//! It may run from a sealed copy of its program, from a copy without a name, or from any file if the caller
//! trusts the namespace. It refuses to join from a file of the host.

use nsexec::bootstrap::Bootstrap;
use nsexec::namespace::NsKind;
use nsexec::sys::types::CloneFlags;
use nsexec_audit::sim::{Container, LauncherFile, User};

use super::{Scenario, Way, paths_of};

fn joining(name: &'static str, about: &'static str, launcher_file: LauncherFile) -> Scenario {
    let scenario = Scenario::new(name, about, &User::root(), &Bootstrap::new(CloneFlags::EMPTY));
    let scenario = scenario.ways(&[Way::Ours]).joining(|sim| {
        let kinds = [NsKind::Mnt, NsKind::Pid];
        paths_of(sim.container(&Container { maker: User::root(), maps: None, kinds: &kinds }), &kinds)
    });
    Scenario { launcher_file, ..scenario }
}

pub(super) fn all() -> Vec<Scenario> {
    let trusted = joining(
        "join_mounts_trusted",
        "a mount namespace that the caller trusts: the program's file is not checked",
        LauncherFile::Named,
    );
    vec![
        joining(
            "join_mounts",
            "a container's mount namespace, from a sealed copy of the program",
            LauncherFile::Sealed,
        ),
        joining(
            "join_mounts_unnamed",
            "the same from a copy without seals: it is marked, and has no name",
            LauncherFile::Unnamed,
        ),
        Scenario { policy: trusted.policy.with_trusted_mounts(true), ..trusted },
        joining(
            "join_mounts_from_a_file",
            "the same from a file of the host, which a container could overwrite: refused before any process",
            LauncherFile::Named,
        )
        .refused("does not run from a sealed copy of itself"),
    ]
}
