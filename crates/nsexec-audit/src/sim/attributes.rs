//! The attributes of a process and of its namespaces that the launcher sets for the command: limits,
//! capability sets, filters, host name, loopback (getrlimit(2), capabilities(7), seccomp(2)).
//!
//! A seccomp filter, a Landlock rule set and most limits are stored or dropped without a further effect: the
//! calls that they would refuse are not modelled. Only RLIMIT_NOFILE limits calls.

use super::bpf;
use super::creds::{ALL_CAPS, Creds, cap};
use super::descriptors::Object;
use super::kernel::{Halt, Kernel};
use super::namespaces::NsId;
use super::process::Task;
use crate::record::{Call, Reply};
use nsexec::namespace::NsKind;
use nsexec::sys::types::{BpfInstruction, Capability, CapabilitySets, Errno, Fd, Limit, Resource, SysResult};

/// The longest host name (`__NEW_UTS_LEN`).
const HOST_NAME_MAX: usize = 64;

/// The highest value of RLIMIT_NOFILE: the default of /proc/sys/fs/nr_open.
const NR_OPEN: u64 = 1_048_576;

/// Returns the set with this one capability. Fails with `EINVAL` for a number that the kernel does not know.
fn set_of(capability: Capability) -> SysResult<u64> {
    let set = 1_u64.checked_shl(capability.0).unwrap_or(0) & ALL_CAPS;
    if set == 0 { Err(Errno::EINVAL) } else { Ok(set) }
}

impl Kernel {
    /// Implements the calls that set an attribute of the process or of one of its namespaces.
    pub(super) fn attribute(&mut self, me: Task, call: &Call) -> Result<Reply, Halt> {
        let unit = |()| Reply::Unit;
        Ok(match call {
            Call::Umask { mask } => {
                let umask = &mut self.process_mut(me).umask;
                Reply::Permissions(core::mem::replace(umask, mask & 0o777))
            }
            Call::SetHostname { name } => unit(self.set_hostname(me, &name.0)?),
            Call::SetLimit { limit } => unit(self.set_limit(me, *limit)?),
            Call::KeepCapabilities { keep } => {
                self.process_mut(me).creds.keep_caps = *keep;
                Reply::Unit
            }
            Call::DropBounding { capability } => unit(self.drop_bounding(me, *capability)?),
            Call::SetCapabilities { sets } => unit(self.set_capabilities(me, *sets)?),
            Call::RaiseAmbient { capability } => unit(self.raise_ambient(me, *capability)?),
            Call::SetNoNewPrivs => {
                self.process_mut(me).no_new_privs = true;
                Reply::Unit
            }
            Call::SetSeccompFilter { program } => unit(self.set_seccomp_filter(me, program)?),
            Call::LandlockRestrictSelf { ruleset } => unit(self.landlock_restrict_self(me, *ruleset)?),
            Call::SetControllingTerminal { terminal } => unit(self.set_controlling_terminal(me, *terminal)?),
            // No key is modelled, and no limit of keys.
            Call::NewSessionKeyring => Reply::Unit,
            Call::InetSocket => {
                let net = self.process(me).ns.get(NsKind::Net);
                Reply::Fd(self.install(me, Object::InetSocket(net), true)?)
            }
            Call::SetLoopbackUp { socket } => unit(self.set_loopback_up(me, *socket)?),
            other => panic!("{other} sets no attribute"),
        })
    }

    /// Implements sethostname(2). The name itself is not stored: no call reads it.
    ///
    /// Errors: `EPERM`: the process lacks CAP_SYS_ADMIN over the owner of the UTS namespace. `EINVAL`: the
    /// name is too long.
    fn set_hostname(&self, me: Task, name: &[u8]) -> SysResult<()> {
        let uts = self.process(me).ns.get(NsKind::Uts);
        if !self.may(me, self.owner(uts), cap::SYS_ADMIN) {
            return Err(Errno::EPERM);
        }
        if name.len() > HOST_NAME_MAX { Err(Errno::EINVAL) } else { Ok(()) }
    }

    /// Implements prlimit(2) of the caller itself (do_prlimit).
    ///
    /// Errors: `EINVAL`: an unknown resource, or a soft limit above the hard one. `EPERM`: a hard limit above
    /// the present one without CAP_SYS_RESOURCE in the first user namespace, or more descriptors than
    /// /proc/sys/fs/nr_open allows.
    fn set_limit(&mut self, me: Task, limit: Limit) -> SysResult<()> {
        if limit.resource.name().is_none() || limit.soft > limit.hard {
            return Err(Errno::EINVAL);
        }
        if limit.resource == Resource::NOFILE && limit.hard > NR_OPEN {
            return Err(Errno::EPERM);
        }
        let number = limit.resource.0;
        let set = self.process(me).limits.get(&number).map(|limit| limit.hard);
        let present = set.or_else(|| self.settings.hard_limits.get(&number).copied());
        let raises = limit.hard > present.unwrap_or(Limit::INFINITY);
        if raises && !self.may(me, NsId(0), cap::SYS_RESOURCE) {
            return Err(Errno::EPERM);
        }
        self.process_mut(me).limits.insert(number, limit);
        Ok(())
    }

    /// Returns the number of descriptors that the process may have.
    pub(super) fn descriptor_limit(&self, me: Task) -> i32 {
        match self.process(me).limits.get(&Resource::NOFILE.0) {
            Some(limit) => i32::try_from(limit.soft).unwrap_or(i32::MAX),
            None => self.settings.descriptors,
        }
    }

    /// Checks the number of descriptors of a poll against their limit (poll(2), EINVAL).
    pub(super) fn check_length_of_poll(&self, me: Task, length: usize) -> SysResult<()> {
        match i32::try_from(length).is_ok_and(|length| length <= self.descriptor_limit(me)) {
            true => Ok(()),
            false => Err(Errno::EINVAL),
        }
    }

    /// Returns the bounding set.
    pub(super) fn bounding(&self, creds: &Creds) -> u64 {
        creds.bounding.unwrap_or(ALL_CAPS & self.settings.bounding)
    }

    /// Returns whether no exec gives privileges to this process.
    pub(super) fn has_no_new_privs(&self, me: Task) -> bool {
        self.settings.no_new_privs || self.process(me).no_new_privs
    }

    /// Implements prctl(2) with PR_CAPBSET_DROP (cap_prctl_drop).
    fn drop_bounding(&mut self, me: Task, capability: Capability) -> SysResult<()> {
        let creds = &self.process(me).creds;
        if !self.may(me, creds.user, cap::SETPCAP) {
            return Err(Errno::EPERM);
        }
        let left = self.bounding(creds) & !set_of(capability)?;
        self.process_mut(me).creds.bounding = Some(left);
        Ok(())
    }

    /// Implements capset(2). Capabilities that the kernel does not know are ignored (cap_capset).
    ///
    /// Errors: `EPERM`: a permitted capability that the process lacks, an effective one that is not
    /// permitted, or an inheritable one that neither the bounding set allows nor, without CAP_SETPCAP, the
    /// process has.
    fn set_capabilities(&mut self, me: Task, sets: CapabilitySets) -> SysResult<()> {
        let old = &self.process(me).creds;
        let [effective, permitted, inheritable] =
            [sets.effective, sets.permitted, sets.inheritable].map(|set| set & ALL_CAPS);
        let exceeds = |set: u64, limit: u64| set & !limit != 0;
        let added = exceeds(inheritable, old.inheritable | old.permitted);
        if added && !self.may(me, old.user, cap::SETPCAP)
            || exceeds(inheritable, old.inheritable | self.bounding(old))
            || exceeds(permitted, old.permitted)
            || exceeds(effective, permitted)
        {
            return Err(Errno::EPERM);
        }
        // An ambient capability is both permitted and inheritable (capabilities(7)).
        let ambient = old.ambient & permitted & inheritable;
        self.commit_creds(me, Creds { permitted, effective, inheritable, ambient, ..old.clone() });
        Ok(())
    }

    /// Implements prctl(2) with PR_CAP_AMBIENT_RAISE (cap_task_prctl).
    fn raise_ambient(&mut self, me: Task, capability: Capability) -> SysResult<()> {
        let set = set_of(capability)?;
        let creds = &mut self.process_mut(me).creds;
        if creds.permitted & creds.inheritable & set == 0 {
            return Err(Errno::EPERM);
        }
        creds.ambient |= set;
        Ok(())
    }

    /// Returns whether the process may restrict itself: with no_new_privs, or with CAP_SYS_ADMIN in its own
    /// user namespace.
    fn may_restrict_itself(&self, me: Task) -> bool {
        self.has_no_new_privs(me) || self.may(me, self.process(me).creds.user, cap::SYS_ADMIN)
    }

    /// Implements seccomp(2) with SECCOMP_SET_MODE_FILTER (seccomp_prepare_filter).
    ///
    /// Errors: `EINVAL`: an empty, too long or invalid program. `EACCES`: the process may not restrict
    /// itself.
    fn set_seccomp_filter(&self, me: Task, program: &[BpfInstruction]) -> SysResult<()> {
        if !(1..=bpf::LENGTH_MAX).contains(&program.len()) {
            return Err(Errno::EINVAL);
        }
        if !self.may_restrict_itself(me) {
            return Err(Errno::EACCES);
        }
        if bpf::is_valid(program) { Ok(()) } else { Err(Errno::EINVAL) }
    }

    /// Implements landlock_restrict_self(2).
    ///
    /// Errors: `EPERM`: the process may not restrict itself. `EBADF`: the descriptor is not open. `EBADFD`:
    /// it is not a rule set.
    fn landlock_restrict_self(&self, me: Task, ruleset: Fd) -> SysResult<()> {
        if !self.may_restrict_itself(me) {
            return Err(Errno::EPERM);
        }
        match self.object(me, ruleset)? {
            Object::Ruleset => Ok(()),
            object if object.is_path_only() => Err(Errno::EBADF),
            _ => Err(Errno::EBADFD),
        }
    }

    /// Implements ioctl(2) with TIOCSCTTY (tiocsctty). The terminal of the simulated machine controls no
    /// session at first.
    ///
    /// Errors: `EBADF`. `ENOTTY`: not a terminal. `EPERM`: the process is not the leader of a session, its
    /// session has a controlling terminal, or the terminal controls another session.
    fn set_controlling_terminal(&mut self, me: Task, terminal: Fd) -> SysResult<()> {
        match self.object(me, terminal)? {
            Object::Terminal => {}
            object if object.is_path_only() => return Err(Errno::EBADF),
            _ => return Err(Errno::ENOTTY),
        }
        let leads = self.process(me).group == me;
        match self.controlled {
            Some(session) if leads && session == me => Ok(()),
            None if leads => {
                self.controlled = Some(me);
                Ok(())
            }
            _ => Err(Errno::EPERM),
        }
    }

    /// Implements ioctl(2) with SIOCSIFFLAGS for the interface "lo". Every socket supports it, and acts on
    /// the network namespace in which it was created. That of a socket pair is taken to be the present one.
    ///
    /// Errors: `EBADF`. `ENOTTY`: not a socket. `EPERM`: the process lacks CAP_NET_ADMIN over the owner of
    /// the network namespace.
    fn set_loopback_up(&self, me: Task, socket: Fd) -> SysResult<()> {
        let net = match self.object(me, socket)? {
            Object::InetSocket(net) => *net,
            Object::Socket(..) => self.process(me).ns.get(NsKind::Net),
            object if object.is_path_only() => return Err(Errno::EBADF),
            _ => return Err(Errno::ENOTTY),
        };
        if self.may(me, self.owner(net), cap::NET_ADMIN) { Ok(()) } else { Err(Errno::EPERM) }
    }
}
