//! The state of a process that is about to execute the command, as /proc would show it to the launcher.

use std::string::ToString;

use super::idmaps::{Ids, Map};
use super::kernel::Kernel;
use super::process::Task;
use crate::state::{Capabilities, Expected, Origin};
use crate::transcript::Role;
use nsexec::namespace::NsKind;
use nsexec::sys::types::SigAction;

/// The id that stands for one that is not mapped (user_namespaces(7), /proc/sys/kernel/overflowuid).
const OVERFLOW: u32 = 65534;

impl Kernel {
    /// Returns the state of a process. `groups`, `oom_score_adj` and `umask` are `None` if they equal the
    /// launcher's. The plan fills in the working directory.
    pub(super) fn expected(&self, me: Task) -> Expected {
        let launcher = self.tasks().find(|task| self.process(*task).role == Role::Launcher).unwrap_or(me);
        let (process, caller) = (self.process(me), self.process(launcher));
        let user = self.user(caller.creds.user);
        let (users, groups) = (user.map(Ids::Users), user.map(Ids::Groups));
        let before: usize = self.initial_counts.values().sum();
        let shown = |map: &Map, id: u32| map.shown_as(id).unwrap_or(OVERFLOW);
        let creds = &process.creds;
        let origin = |kind: NsKind| match process.ns.get(kind) {
            own if own == caller.ns.get(kind) => Origin::Caller,
            other if other.0 < before => Origin::Joined,
            _ => Origin::New,
        };
        let ignored =
            process.actions.iter().filter(|(_, action)| action.handler == SigAction::IGNORE.handler);
        let kept = process.fds.iter().filter(|(_, slot)| !slot.cloexec).map(|(fd, _)| *fd);
        let mut supplementary: std::vec::Vec<u32> =
            creds.groups.iter().map(|id| shown(groups, *id)).collect();
        supplementary.sort_unstable();
        Expected {
            namespaces: NsKind::ALL.iter().map(|kind| (kind.name().to_string(), origin(*kind))).collect(),
            user_ids: creds.uid.map(|id| shown(users, id)),
            group_ids: creds.gid.map(|id| shown(groups, id)),
            groups: (creds.groups != caller.creds.groups).then_some(supplementary),
            capabilities: Capabilities {
                inheritable: creds.inheritable,
                permitted: creds.permitted,
                effective: creds.effective,
                bounding: self.bounding(creds),
                ambient: creds.ambient,
            },
            bounded_by_caller: creds.user == caller.creds.user,
            no_new_privs: self.has_no_new_privs(me),
            blocked: Some(process.mask.0),
            ignored: Some(ignored.map(|(signal, _)| 1 << (signal - 1)).sum()),
            leads_session: process.group == me,
            oom_score_adj: (process.oom != caller.oom).then_some(process.oom),
            umask: (process.umask != caller.umask).then_some(process.umask),
            descriptors: Some(kept.collect()),
            own_root: process.root != caller.root,
            directory: None,
        }
    }
}
