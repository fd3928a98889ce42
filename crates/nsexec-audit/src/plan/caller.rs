//! The caller on the simulated machine: its user namespace, its /proc, and the limits that apply to it.

use std::format;
use std::string::{String, ToString};
use std::vec::Vec;

use super::assume::Assumptions;
use crate::sim::{OwnUser, ProcOwner, Settings, Sim};
use nsexec::sys::types::Errno;

/// Returns the settings of the simulated machine.
pub(super) fn settings(assumptions: &Assumptions) -> Settings {
    let mut lacks = assumptions.kernel.lacks();
    if !assumptions.kernel.knows_mfd_exec() {
        lacks.insert("MFD_EXEC", Errno::EINVAL);
    }
    Settings {
        lacks,
        limits: assumptions.forbidden.iter().map(|kind| (kind, 0)).collect(),
        chrooted: assumptions.chrooted,
        user_refused: assumptions.user_refused,
        proc_masked: assumptions.proc_masked,
        hidepid: assumptions.hidepid,
        no_new_privs: assumptions.no_new_privs,
        uptime: assumptions.uptime,
        file_system: assumptions.file_system,
        caches_tid: assumptions.caches_tid,
        reports_tid_address: assumptions.reports_tid_address,
        absent: assumptions.missing_kinds(),
        ..Settings::default()
    }
}

/// Sets the caller's user namespace and its /proc.
pub(super) fn place(sim: &mut Sim, assumptions: &Assumptions) {
    if assumptions.proc_read_only {
        sim.make_proc_read_only();
    }
    sim.proc_owner(assumptions.proc_owner);
    if let Some(own) = &assumptions.own_user {
        sim.own_user(own);
    }
}

/// Returns the lines of a plan about the caller. Each is listed only if it is unusual.
pub(super) fn lines(assumptions: &Assumptions) -> Vec<(String, String)> {
    let mut lines = Vec::new();
    let mut add = |key: &str, value: String| lines.push((key.to_string(), value));
    match assumptions.proc_owner {
        ProcOwner::Own => {}
        ProcOwner::Ancestor => add("/proc is that of", "a pid namespace above the caller's".into()),
        ProcOwner::Foreign => add("/proc is that of", "a pid namespace without the caller".into()),
        ProcOwner::Missing => add("/proc is that of", "no pid namespace: it is not mounted".into()),
    }
    if assumptions.proc_read_only {
        add("mount of /proc", "read-only".into());
    }
    if assumptions.chrooted {
        add("root directory of the caller", "changed (chroot)".into());
    }
    if let Some(errno) = assumptions.user_refused {
        add("new user namespaces", format!("refused: {errno}"));
    }
    for kind in assumptions.forbidden.iter() {
        add(&format!("user.max_{}_namespaces", kind.name()), "0".into());
    }
    for kind in assumptions.missing_kinds().iter() {
        add(&format!("{} namespaces", kind.name()), "the kernel does not have them".into());
    }
    if !assumptions.reports_tid_address {
        add("address of the thread id", "not reported by the kernel (CONFIG_CHECKPOINT_RESTORE)".into());
    }
    if assumptions.tools_refuse {
        add("the mapping tools", "refuse the caller: its group is not that of its account".into());
    }
    if let Some(OwnUser { users, groups, setgroups, owns }) = &assumptions.own_user {
        add("the caller's user ids in its user namespace", shown(users));
        add("the caller's group ids in its user namespace", shown(groups));
        add("setgroups in the caller's user namespace", if *setgroups { "allowed" } else { "denied" }.into());
        add("kinds that the caller's user namespace owns", owns.to_string());
    }
    lines
}

fn shown(map: &[(u32, u32, u32)]) -> String {
    let line = |(inside, outside, count): &(u32, u32, u32)| format!("{inside} {outside} {count}");
    let lines: Vec<String> = map.iter().map(line).collect();
    if lines.is_empty() { "none mapped".to_string() } else { lines.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Kernel;
    use nsexec::namespace::{NsKind, NsSet};

    #[test]
    fn missing_parts_of_the_kernel_are_lines() {
        let mut assumptions = Assumptions::root();
        assert_eq!(lines(&assumptions), []);
        assumptions.absent = NsSet::EMPTY.with(NsKind::Ipc);
        assumptions.kernel = Kernel { major: 5, minor: 5 };
        assumptions.reports_tid_address = false;
        let line = |key: &str, value: &str| (key.to_string(), value.to_string());
        let expected = [
            line("ipc namespaces", "the kernel does not have them"),
            line("time namespaces", "the kernel does not have them"),
            line("address of the thread id", "not reported by the kernel (CONFIG_CHECKPOINT_RESTORE)"),
        ];
        let mut found = lines(&assumptions);
        found[..2].sort_unstable();
        assert_eq!(found, expected);
    }
}
