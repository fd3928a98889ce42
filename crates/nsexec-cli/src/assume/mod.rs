//! The assumptions of a plan: the facts of this machine, changed by `--assume`.

pub(crate) mod value;

use std::path::Path;

use nsexec::launch::shape::Protection;
use nsexec_audit::machine::Machine;
use nsexec_audit::machine::joins::{self, Target};
use nsexec_audit::plan::{Assumptions, WrongPath};

use super::values::JoinValue;
use nsexec_audit::machine::caller::{Facts, SubRange};
use value::AssumeValue;

/// Returns the assumptions that describe this machine. The caller's subordinate ids come from `facts`.
pub(crate) fn of_machine(facts: &Facts, joined: &[JoinValue]) -> Assumptions {
    let mut machine = Machine::read();
    machine.subuids = facts.subuids.iter().map(|range| (range.first, range.count)).collect();
    machine.subgids = facts.subgids.iter().map(|range| (range.first, range.count)).collect();
    let mut assumptions = machine.assumptions();
    let target = |join: &JoinValue| Target { kind: join.kind, path: join.path.clone() };
    joins::look_at(&joined.iter().map(target).collect::<Vec<_>>(), &mut assumptions);
    assumptions
}

/// Returns the first range: a plan has only one.
fn first_range(ranges: &[SubRange]) -> Option<(u32, u32)> {
    ranges.first().map(|range| (range.first, range.count))
}

/// Applies the `--assume` arguments in order.
pub(crate) fn apply(assumptions: &mut Assumptions, given: &[AssumeValue]) {
    // A different user gets the usual privileges of such a user, unless an argument sets them.
    if let Some(uid) = given.iter().rev().find_map(|value| match value {
        AssumeValue::Uid(uid) if *uid != assumptions.uid => Some(*uid),
        _ => None,
    }) {
        let usual = if uid == 0 { Assumptions::root() } else { Assumptions::ordinary(uid) };
        (assumptions.capabilities, assumptions.no_new_privs) = (usual.capabilities, false);
        let Protection { yama, relabels, suid_dumpable, .. } = assumptions.protection;
        assumptions.protection = Protection { yama, relabels, suid_dumpable, ..usual.protection };
        // Our own lack of permission says nothing about another user's.
        assumptions
            .wrong_path
            .retain(|_, wrong_path| !matches!(wrong_path, WrongPath::Forbidden | WrongPath::NotPermitted));
        (assumptions.gid, assumptions.subuid, assumptions.subgid) = (usual.gid, None, None);
        // Its group is assumed to be that of its account.
        assumptions.tools_refuse = false;
    }
    for value in given {
        match value.clone() {
            AssumeValue::Uid(uid) => assumptions.uid = uid,
            AssumeValue::Gid(gid) => assumptions.gid = gid,
            AssumeValue::Caps(caps) => {
                assumptions.capabilities = caps;
                assumptions.protection.permitted = Some(caps);
            }
            AssumeValue::Yama(yama) => assumptions.protection.yama = yama,
            AssumeValue::SuidDumpable(on) => assumptions.protection.suid_dumpable = on,
            AssumeValue::Kernel(kernel) => assumptions.kernel = kernel,
            AssumeValue::Absent(kind) => assumptions.absent = assumptions.absent.with(kind),
            AssumeValue::SubUid(range) => assumptions.subuid = range,
            AssumeValue::SubGid(range) => assumptions.subgid = range,
            AssumeValue::Owner(kind, owner) => drop(assumptions.owners.insert(kind, owner)),
            AssumeValue::ProcMasked(masked) => assumptions.proc_masked = masked,
            AssumeValue::HidePid(mode) => assumptions.hidepid = mode,
            AssumeValue::Command(file) => assumptions.command = Some(file.into_bytes()),
            AssumeValue::Uptime(seconds) => assumptions.uptime = seconds,
            AssumeValue::Join(kind, None) => drop(assumptions.wrong_path.remove(&kind)),
            AssumeValue::Join(kind, Some(wrong_path)) => {
                assumptions.wrong_path.insert(kind, wrong_path);
            }
            AssumeValue::Maker(_)
            | AssumeValue::UserMap(_)
            | AssumeValue::GroupMap(_)
            | AssumeValue::Setgroups(_) => {}
        }
    }
    // The caller is known only now.
    for value in given {
        let mut joined = assumptions.joined_user();
        match value.clone() {
            AssumeValue::Maker(uid) => joined.maker = uid,
            AssumeValue::UserMap(map) => joined.users = map,
            AssumeValue::GroupMap(map) => joined.groups = map,
            AssumeValue::Setgroups(allowed) => joined.setgroups = allowed,
            _ => continue,
        }
        assumptions.joined_user = Some(joined);
    }
}

/// Returns the caller's facts under the assumptions, for the decisions about id maps.
pub(crate) fn facts_under(assumptions: &Assumptions, facts: Facts) -> Facts {
    let range = |range: Option<(u32, u32)>| {
        range.map(|(first, count)| SubRange { first, count }).into_iter().collect::<Vec<_>>()
    };
    let tool = |found: Option<std::path::PathBuf>, name: &str, needed: bool| {
        found.or_else(|| needed.then(|| Path::new("/usr/bin").join(name)))
    };
    let ordinary = assumptions.uid != 0;
    Facts {
        capabilities: Some(assumptions.capabilities),
        euid: assumptions.uid,
        egid: assumptions.gid,
        user: facts.user.filter(|_| facts.euid == assumptions.uid),
        newuidmap: tool(facts.newuidmap, "newuidmap", ordinary && assumptions.subuid.is_some()),
        newgidmap: tool(facts.newgidmap, "newgidmap", ordinary && assumptions.subgid.is_some()),
        subuids: if facts.euid == assumptions.uid && first_range(&facts.subuids) == assumptions.subuid {
            facts.subuids
        } else {
            range(assumptions.subuid)
        },
        subgids: if facts.euid == assumptions.uid && first_range(&facts.subgids) == assumptions.subgid {
            facts.subgids
        } else {
            range(assumptions.subgid)
        },
        ..facts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nsexec::namespace::NsKind;
    use nsexec_audit::plan::JoinedUser;

    #[test]
    fn assumed_uid_gets_the_usual_privileges() {
        let mut assumptions = Assumptions::root();
        apply(&mut assumptions, &[AssumeValue::SubUid(Some((5, 6))), AssumeValue::Uid(1000)]);
        assert_eq!((assumptions.uid, assumptions.gid, assumptions.capabilities), (1000, 1000, 0));
        assert_eq!((assumptions.subuid, assumptions.subgid), (Some((5, 6)), None));
    }

    #[test]
    fn joined_user_namespace_assumptions_override_defaults() {
        let mut assumptions = Assumptions::root();
        // The order does not matter: the caller is determined first.
        apply(&mut assumptions, &[AssumeValue::Setgroups(true), AssumeValue::Uid(1000)]);
        let wanted = JoinedUser { setgroups: true, ..JoinedUser::made_by(1000, 1000) };
        assert_eq!(assumptions.joined_user, Some(wanted));
        let mut assumptions = Assumptions::root();
        apply(&mut assumptions, &[AssumeValue::Uid(1000)]);
        assert_eq!(assumptions.joined_user, None);
    }

    #[test]
    fn join_assumption_overrides_the_path_check() {
        let mut assumptions = Assumptions {
            wrong_path: [(NsKind::Net, WrongPath::Missing), (NsKind::Uts, WrongPath::Forbidden)].into(),
            ..Assumptions::root()
        };
        apply(&mut assumptions, &[AssumeValue::Join(NsKind::Net, None)]);
        assert_eq!(assumptions.wrong_path, [(NsKind::Uts, WrongPath::Forbidden)].into());
        // We have no access; another user may have.
        apply(
            &mut assumptions,
            &[AssumeValue::Uid(1000), AssumeValue::Join(NsKind::Ipc, Some(WrongPath::Fifo))],
        );
        assert_eq!(assumptions.wrong_path, [(NsKind::Ipc, WrongPath::Fifo)].into());
    }
}
