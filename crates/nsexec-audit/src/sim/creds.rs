//! The credentials of a process: ids and capabilities, and what they permit (credentials(7),
//! capabilities(7)).
//!
//! Ids are stored as in the kernel, in the numbering of the first user namespace. The maps of a user
//! namespace convert them to the numbers that its processes see.

use std::vec::Vec;

use super::kernel::Kernel;
use super::namespaces::NsId;
use super::process::Task;
use nsexec::sys::types::{Errno, SysResult};

/// The numbers of the capabilities that the rules check (capabilities(7)).
#[allow(missing_docs, reason = "the names are the manual's")]
pub mod cap {
    pub const DAC_OVERRIDE: u32 = 1;
    pub const KILL: u32 = 5;
    pub const SETGID: u32 = 6;
    pub const SETUID: u32 = 7;
    pub const SETPCAP: u32 = 8;
    pub const NET_ADMIN: u32 = 12;
    pub const SYS_CHROOT: u32 = 18;
    pub const SYS_PTRACE: u32 = 19;
    pub const SYS_ADMIN: u32 = 21;
    pub const SYS_RESOURCE: u32 = 24;
    pub const SYS_TIME: u32 = 25;
    pub const SETFCAP: u32 = 31;
}

/// All capabilities of Linux 6.18, as the mask in /proc/PID/status.
pub const ALL_CAPS: u64 = 0x1ff_ffff_ffff;

/// The credentials of one process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Creds {
    pub(super) user: NsId,
    /// Real, effective and saved user id.
    pub(super) uid: [u32; 3],
    /// Real, effective and saved group id.
    pub(super) gid: [u32; 3],
    pub(super) groups: Vec<u32>,
    pub(super) permitted: u64,
    pub(super) effective: u64,
    pub(super) inheritable: u64,
    pub(super) ambient: u64,
    /// The bounding set; `None` if it is the machine's ([`Settings::bounding`](super::Settings::bounding)).
    pub(super) bounding: Option<u64>,
    /// The securebit SECBIT_KEEP_CAPS.
    pub(super) keep_caps: bool,
}

impl Creds {
    pub(super) fn euid(&self) -> u32 {
        self.uid[1]
    }

    pub(super) fn egid(&self) -> u32 {
        self.gid[1]
    }

    fn has(&self, capability: u32) -> bool {
        self.effective >> capability & 1 == 1
    }

    /// Enters a user namespace, which gives all capabilities in it (user_namespaces(7), "Capabilities"). The
    /// other sets and the securebits get their initial values (set_cred_user_ns).
    pub(super) fn enter_user(&mut self, user: NsId) {
        self.user = user;
        self.permitted = ALL_CAPS;
        self.effective = ALL_CAPS;
        self.bounding = Some(ALL_CAPS);
        (self.inheritable, self.ambient, self.keep_caps) = (0, 0, false);
    }
}

/// The user ids that a call changes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    /// All three ids: setresuid(id, id, id), and setuid with privilege.
    All,
    /// The effective id alone: setuid without privilege.
    Effective,
}

impl Kernel {
    /// Returns whether `creds` have `capability` over the user namespace `over` (`ns_capable`; cap_capable in
    /// security/commoncap.c). A capability in a user namespace holds in all its descendants. The creator of a
    /// namespace, if it is in the parent namespace, has all capabilities in it (user_namespaces(7)).
    pub(super) fn capable(&self, creds: &Creds, over: NsId, capability: u32) -> bool {
        let mut at = over;
        loop {
            if at == creds.user {
                return creds.has(capability);
            }
            let user = self.user(at);
            if user.level <= self.user(creds.user).level {
                return false;
            }
            let Some(parent) = user.parent else { return false };
            if parent == creds.user && user.owner_uid == creds.euid() {
                return true;
            }
            at = parent;
        }
    }

    /// Returns whether process `me` has `capability` over the user namespace `over`.
    pub(super) fn may(&self, me: Task, over: NsId, capability: u32) -> bool {
        self.capable(&self.process(me).creds, over, capability)
    }

    /// Implements setresuid(2) with three equal ids.
    ///
    /// Errors: `EINVAL`: the id is not mapped. `EPERM`: the process lacks CAP_SETUID and the id is not one of
    /// its own.
    pub(super) fn setresuid(&mut self, me: Task, uid: u32) -> SysResult<()> {
        // −1 leaves all three ids unchanged.
        if uid == u32::MAX {
            return Ok(());
        }
        let creds = &self.process(me).creds;
        let uid = self.user(creds.user).uid_map.to_kernel(uid).ok_or(Errno::EINVAL)?;
        if !self.may(me, creds.user, cap::SETUID) && !creds.uid.contains(&uid) {
            return Err(Errno::EPERM);
        }
        self.change_uid(me, uid, Change::All);
        Ok(())
    }

    /// Implements setuid(2): with CAP_SETUID it sets all three ids. Otherwise it sets the effective id to the
    /// real or the saved one.
    pub(super) fn setuid(&mut self, me: Task, uid: u32) -> SysResult<()> {
        let creds = &self.process(me).creds;
        let uid = self.user(creds.user).uid_map.to_kernel(uid).ok_or(Errno::EINVAL)?;
        let change = match self.may(me, creds.user, cap::SETUID) {
            true => Change::All,
            false if uid == creds.uid[0] || uid == creds.uid[2] => Change::Effective,
            false => return Err(Errno::EPERM),
        };
        self.change_uid(me, uid, change);
        Ok(())
    }

    /// Implements setgid(2): as setuid, with CAP_SETGID.
    pub(super) fn setgid(&mut self, me: Task, gid: u32) -> SysResult<()> {
        let creds = &self.process(me).creds;
        let gid = self.user(creds.user).gid_map.to_kernel(gid).ok_or(Errno::EINVAL)?;
        let mut new = creds.clone();
        match self.may(me, creds.user, cap::SETGID) {
            true => new.gid = [gid; 3],
            false if gid == creds.gid[0] || gid == creds.gid[2] => new.gid[1] = gid,
            false => return Err(Errno::EPERM),
        }
        self.commit_creds(me, new);
        Ok(())
    }

    /// Implements setgroups(2).
    ///
    /// Errors: `EPERM`: the process lacks CAP_SETGID, the group map is not yet written, or setgroups is
    /// denied in the namespace (user_namespaces(7), "/proc/PID/setgroups").
    pub(super) fn drop_groups(&mut self, me: Task) -> SysResult<()> {
        self.set_groups(me, &[])
    }

    /// Implements setgroups(2). The kernel sorts the groups.
    ///
    /// Errors: `EPERM`: the process lacks CAP_SETGID, or its user namespace has no group map or denies
    /// setgroups. `EINVAL`: a group is not mapped, or there are more than 65,536.
    pub(super) fn set_groups(&mut self, me: Task, groups: &[u32]) -> SysResult<()> {
        let creds = &self.process(me).creds;
        let user = self.user(creds.user);
        if !self.may(me, creds.user, cap::SETGID) || user.gid_map.is_empty() || !user.setgroups {
            return Err(Errno::EPERM);
        }
        if groups.len() > 65_536 {
            return Err(Errno::EINVAL);
        }
        let kernel: Option<Vec<u32>> = groups.iter().map(|group| user.gid_map.to_kernel(*group)).collect();
        let mut new = creds.clone();
        new.groups = kernel.ok_or(Errno::EINVAL)?;
        new.groups.sort_unstable();
        self.commit_creds(me, new);
        Ok(())
    }

    /// Changes user ids, and the capabilities accordingly (capabilities(7), "Effect of user ID changes").
    fn change_uid(&mut self, me: Task, uid: u32, change: Change) {
        let old = &self.process(me).creds;
        let mut new = old.clone();
        match change {
            Change::All => new.uid = [uid; 3],
            Change::Effective => new.uid[1] = uid,
        }
        if let Some(root) = self.user(old.user).uid_map.to_kernel(0) {
            if old.uid.contains(&root) && !new.uid.contains(&root) {
                if !old.keep_caps {
                    (new.permitted, new.effective) = (0, 0);
                }
                new.ambient = 0;
            }
            match (old.euid() == root, new.euid() == root) {
                (true, false) => new.effective = 0,
                (false, true) => new.effective = new.permitted,
                _ => {}
            }
        }
        self.commit_creds(me, new);
    }

    /// Installs new credentials (`commit_creds`). If an effective id changes, or the new capabilities are not
    /// a subset, the process becomes non-dumpable (fs.suid_dumpable is 0). It also loses its parent-death
    /// signal (PR_SET_DUMPABLE(2const), docs/protocol.md#dumpable).
    pub(super) fn commit_creds(&mut self, me: Task, new: Creds) {
        let old = &self.process(me).creds;
        let same = old.euid() == new.euid() && old.egid() == new.egid() && self.is_subset(old, &new);
        if !same {
            self.set_dumpable_of_memory(me, false);
            self.process_mut(me).pdeathsig = None;
        }
        self.process_mut(me).creds = new;
    }

    /// Returns whether the new capabilities are a subset (`cred_cap_issubset`). In the same user namespace,
    /// the masks are compared. For a descendant, `old` must have created it or an ancestor of it.
    fn is_subset(&self, old: &Creds, new: &Creds) -> bool {
        if old.user == new.user {
            return new.permitted & !old.permitted == 0;
        }
        let mut at = new.user;
        while let Some(parent) = self.user(at).parent {
            if parent == old.user && self.user(at).owner_uid == old.euid() {
                return true;
            }
            at = parent;
        }
        false
    }

    /// Implements `ptrace_may_access(PTRACE_MODE_READ_FSCREDS)` (ptrace(2), "Ptrace access mode checking").
    /// Access needs three things: the same ids or CAP_SYS_PTRACE; a dumpable target, or CAP_SYS_PTRACE over
    /// the user namespace of its memory; and no capability in the target that the caller lacks.
    pub(super) fn may_inspect(&self, me: Task, target: Task) -> bool {
        if me == target {
            return true;
        }
        let (ours, theirs) = (self.process(me), self.process(target));
        let over = theirs.creds.user;
        let traces = |over| self.capable(&ours.creds, over, cap::SYS_PTRACE);
        let same_ids =
            theirs.creds.uid == [ours.creds.euid(); 3] && theirs.creds.gid == [ours.creds.egid(); 3];
        let subset = ours.creds.user == over && theirs.creds.permitted & !ours.creds.effective == 0;
        // A process without memory cannot be non-dumpable.
        let dumpable = theirs.dumpable || !theirs.is_alive() || traces(theirs.mm_user);
        (same_ids || traces(over)) && dumpable && (subset || traces(over))
    }
}
