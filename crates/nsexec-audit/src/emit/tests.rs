//! Tests of the emitted restrictions.

use super::seccomp::seccomp;
use super::*;
use crate::emit::apparmor::apparmor;
use crate::plan::{Assumptions, Start, plan};
use nsexec::bootstrap::{Bootstrap, Dialect};
use nsexec::idmap::IdMap;
use nsexec::launch::Launcher;
use nsexec::policy::Policy;

fn planned(flags: CloneFlags) -> Run {
    let map = IdMap::parse(c"0 1000 1\n").unwrap();
    let mut message = Bootstrap::new(flags).with_rootless_euid(true);
    if flags.contains(CloneFlags::NEWUSER) {
        message = message.with_uid_map(map).with_gid_map(map);
    }
    let mut launcher = Launcher::new(&message, Policy::runc(&Dialect::V1_2)).unwrap();
    let start = Start::Launcher(launcher.command("/bin/true", [""; 0]).prepare().unwrap());
    plan(&start, &Assumptions::ordinary(1000)).unwrap().run
}

#[test]
fn profile_allows_each_planned_set_of_namespaces() {
    let run = planned(CloneFlags::NEWUSER.union(CloneFlags::NEWNET));
    let profile: serde_json::Value = serde_json::from_str(&seccomp(&run).unwrap()).unwrap();
    assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
    let groups = profile["syscalls"].as_array().unwrap();
    let of = |name: &'static str| groups.iter().filter(move |group| group["names"][0] == name);
    let clone: Vec<_> = of("clone").map(|group| group["args"][0]["valueTwo"].as_u64().unwrap()).collect();
    assert_eq!(clone, [0x1000_0000]);
    let unshare: Vec<_> = of("unshare").map(|group| group["args"][0]["value"].as_u64().unwrap()).collect();
    assert_eq!(unshare, [0x4000_0000]);
    assert_eq!(of("setns").count(), 0);
    let launch: Vec<&str> =
        groups[0]["names"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    assert!(launch.contains(&"execve") && launch.contains(&"setuid"), "{launch:?}");
    assert!(["clone", "unshare", "setns", "mount", "pre_exec"].iter().all(|name| !launch.contains(name)));
}

#[test]
fn systemd_line_has_the_planned_kinds() {
    let run = planned(CloneFlags::NEWUSER.union(CloneFlags::NEWNET));
    assert!(systemd(&run).ends_with("[Service]\nRestrictNamespaces=net user\n"), "{}", systemd(&run));
    let none = Run::default();
    assert!(systemd(&none).ends_with("RestrictNamespaces=yes\n"));
}

#[test]
fn apparmor_rules_have_the_files_and_capabilities_of_the_run() {
    let rules = apparmor(&planned(CloneFlags::NEWUSER.union(CloneFlags::NEWNET)));
    for rule in [
        "  userns create,\n",
        "  capability sys_admin,\n",
        "  capability setuid,\n",
        "  @{PROC}/@{pid}/uid_map rw,\n",
        "  \"/bin/true\" pux,\n",
    ] {
        assert!(rules.contains(rule), "{rule} {rules}");
    }
    assert!(!rules.contains("  mount") && !rules.contains("setfcap"), "{rules}");
}
