//! Rules: limits, capability sets, filters, the host name and the loopback interface.

use super::*;

rules! {
    User mask_of_permissions_is_returned = "77 22";
    User host_name_needs_privilege = "EPERM";
    Root host_name_of_an_own_namespace = "ok EINVAL ok";
    User host_name_in_a_user_namespace = "ok";
    User limits_go_down_and_not_up = "EINVAL EINVAL ok EPERM ok EMFILE";
    User bounding_set_needs_privilege = "EPERM EINVAL";
    Root capability_sets_shrink = "ok EINVAL EPERM EPERM ok EPERM EPERM EPERM";
    Root capabilities_are_kept_for_another_user = "ok ok ok EPERM EPERM";
    Root capabilities_are_lost_to_another_user = "EPERM ok EPERM";
    Root inheritable_set_ends_at_the_bounding_set = "ok EPERM ok";
    User filter_needs_no_new_privs = "EACCES EINVAL ok EINVAL EINVAL EINVAL ok";
    Root filter_of_root = "ok";
    User rule_set_needs_no_new_privs = "EPERM EPERM EBADF EBADFD";
    User terminal_must_be_one = "ENOTTY EBADF ENOTTY";
    User keyring_needs_no_privilege = "ok ok";
    User loopback_of_the_host = "ok EPERM EBADF ENOTTY";
    User loopback_of_an_own_namespace = "ok ok";
    Root loopback_of_an_own_namespace_as_root = "ok ok";
}

fn mask_of_permissions_is_returned<S: Sys>(sys: &mut S) -> RuleResult {
    sys.umask(0o77).unwrap();
    // Other bits are ignored.
    let one = sys.umask(0o1022).unwrap();
    let other = sys.umask(0).unwrap();
    Ok(format!("{one:o} {other:o}"))
}

fn host_name_needs_privilege<S: Sys>(sys: &mut S) -> RuleResult {
    Ok(errno_name(sys.set_hostname(b"parity")))
}

fn host_name_of_an_own_namespace<S: Sys>(sys: &mut S) -> RuleResult {
    sys.unshare(CloneFlags::NEWUTS).unwrap();
    Ok(words(&[
        errno_name(sys.set_hostname(b"parity")),
        errno_name(sys.set_hostname(&[b'x'; 65])),
        errno_name(sys.set_hostname(&[b'x'; 64])),
    ]))
}

fn host_name_in_a_user_namespace<S: Sys>(sys: &mut S) -> RuleResult {
    sys.unshare(CloneFlags::NEWUSER.union(CloneFlags::NEWUTS)).unwrap();
    Ok(errno_name(sys.set_hostname(b"parity")))
}

fn limits_go_down_and_not_up<S: Sys>(sys: &mut S) -> RuleResult {
    let mut set = |resource, soft, hard| errno_name(sys.set_limit(Limit { resource, soft, hard }));
    let mut said = vec![
        set(Resource::CORE, 2, 1),
        set(Resource(99), 1, 1),
        set(Resource::CORE, 0, 0),
        set(Resource::CORE, 0, 1),
        set(Resource::NOFILE, 0, 64),
    ];
    said.push(errno_name(sys.pipe2()));
    Ok(words(&said))
}

const fn sets(effective: u64, permitted: u64, inheritable: u64) -> CapabilitySets {
    CapabilitySets { effective, permitted, inheritable }
}

const fn bit(capability: Capability) -> u64 {
    1 << capability.0
}

const NET_ADMIN: u64 = bit(Capability::NET_ADMIN);
const SETPCAP: u64 = bit(Capability::SETPCAP);
const CHOWN: u64 = bit(Capability::CHOWN);

fn bounding_set_needs_privilege<S: Sys>(sys: &mut S) -> RuleResult {
    let one = errno_name(sys.drop_bounding(Capability::CHOWN));
    Ok(words(&[one, errno_name(sys.raise_ambient(Capability(63)))]))
}

fn capability_sets_shrink<S: Sys>(sys: &mut S) -> RuleResult {
    Ok(words(&[
        errno_name(sys.drop_bounding(Capability::CHOWN)),
        errno_name(sys.drop_bounding(Capability(63))),
        // Effective, and not permitted.
        errno_name(sys.set_capabilities(sets(NET_ADMIN, SETPCAP, 0))),
        // Neither permitted nor inheritable.
        errno_name(sys.raise_ambient(Capability::NET_ADMIN)),
        errno_name(sys.set_capabilities(sets(0, SETPCAP, 0))),
        // Permitted, and not effective.
        errno_name(sys.drop_bounding(Capability::NET_ADMIN)),
        errno_name(sys.set_capabilities(sets(NET_ADMIN, NET_ADMIN, 0))),
        errno_name(sys.set_hostname(b"parity")),
    ]))
}

fn capabilities_are_kept_for_another_user<S: Sys>(sys: &mut S) -> RuleResult {
    sys.unshare(CloneFlags::NEWUTS).unwrap();
    sys.keep_capabilities(true).unwrap();
    sys.setuid(64321).unwrap();
    Ok(words(&[
        errno_name(sys.set_capabilities(sets(NET_ADMIN, NET_ADMIN, NET_ADMIN))),
        errno_name(sys.raise_ambient(Capability::NET_ADMIN)),
        errno_name(sys.keep_capabilities(false)),
        errno_name(sys.raise_ambient(Capability::CHOWN)),
        errno_name(sys.set_hostname(b"parity")),
    ]))
}

fn capabilities_are_lost_to_another_user<S: Sys>(sys: &mut S) -> RuleResult {
    sys.setuid(64321).unwrap();
    Ok(words(&[
        errno_name(sys.set_capabilities(sets(0, NET_ADMIN, 0))),
        errno_name(sys.set_capabilities(sets(0, 0, 0))),
        errno_name(sys.drop_bounding(Capability::CHOWN)),
    ]))
}

fn inheritable_set_ends_at_the_bounding_set<S: Sys>(sys: &mut S) -> RuleResult {
    let dropped = errno_name(sys.drop_bounding(Capability::CHOWN));
    let both = CHOWN | NET_ADMIN | SETPCAP;
    Ok(words(&[
        dropped,
        errno_name(sys.set_capabilities(sets(both, both, CHOWN))),
        errno_name(sys.set_capabilities(sets(both, both, NET_ADMIN))),
    ]))
}

/// `return SECCOMP_RET_ALLOW`.
const ALLOW: BpfInstruction = BpfInstruction { code: 0x06, jt: 0, jf: 0, k: 0x7fff_0000 };

fn filter_needs_no_new_privs<S: Sys>(sys: &mut S) -> RuleResult {
    // Loads the number of the call.
    let load = BpfInstruction { code: 0x20, jt: 0, jf: 0, k: 0 };
    Ok(words(&[
        errno_name(sys.set_seccomp_filter(&[ALLOW])),
        errno_name(sys.set_seccomp_filter(&[])),
        errno_name(sys.set_no_new_privs()),
        errno_name(sys.set_seccomp_filter(&[ALLOW; 4097])),
        // It does not end with a return, and it loads from outside of the call's data.
        errno_name(sys.set_seccomp_filter(&[ALLOW, load])),
        errno_name(sys.set_seccomp_filter(&[BpfInstruction { k: 64, ..load }, ALLOW])),
        errno_name(sys.set_seccomp_filter(&[load, ALLOW])),
    ]))
}

fn filter_of_root<S: Sys>(sys: &mut S) -> RuleResult {
    Ok(errno_name(sys.set_seccomp_filter(&[ALLOW])))
}

fn rule_set_needs_no_new_privs<S: Sys>(sys: &mut S) -> RuleResult {
    let (pipe, _) = sys.pipe2().unwrap();
    let mut said =
        vec![errno_name(sys.landlock_restrict_self(pipe)), errno_name(sys.landlock_restrict_self(Fd(99)))];
    sys.set_no_new_privs().unwrap();
    said.push(errno_name(sys.landlock_restrict_self(Fd(99))));
    said.push(errno_name(sys.landlock_restrict_self(pipe)));
    Ok(words(&said))
}

fn terminal_must_be_one<S: Sys>(sys: &mut S) -> RuleResult {
    let (pipe, _) = sys.pipe2().unwrap();
    let mut said = vec![
        errno_name(sys.set_controlling_terminal(pipe)),
        errno_name(sys.set_controlling_terminal(Fd(99))),
    ];
    let _ = sys.setsid();
    said.push(errno_name(sys.set_controlling_terminal(pipe)));
    Ok(words(&said))
}

fn keyring_needs_no_privilege<S: Sys>(sys: &mut S) -> RuleResult {
    let first = errno_name(sys.new_session_keyring());
    sys.unshare(CloneFlags::NEWUSER).unwrap();
    Ok(words(&[first, errno_name(sys.new_session_keyring())]))
}

fn loopback_of_the_host<S: Sys>(sys: &mut S) -> RuleResult {
    let socket = sys.inet_socket();
    let (pipe, _) = sys.pipe2().unwrap();
    Ok(words(&[
        errno_name(socket),
        errno_name(sys.set_loopback_up(socket.unwrap())),
        errno_name(sys.set_loopback_up(Fd(99))),
        errno_name(sys.set_loopback_up(pipe)),
    ]))
}

fn loopback<S: Sys>(sys: &mut S, new: CloneFlags) -> RuleResult {
    sys.unshare(new).unwrap();
    let socket = sys.inet_socket();
    Ok(words(&[errno_name(socket), errno_name(sys.set_loopback_up(socket.unwrap()))]))
}

fn loopback_of_an_own_namespace<S: Sys>(sys: &mut S) -> RuleResult {
    loopback(sys, CloneFlags::NEWUSER.union(CloneFlags::NEWNET))
}

fn loopback_of_an_own_namespace_as_root<S: Sys>(sys: &mut S) -> RuleResult {
    loopback(sys, CloneFlags::NEWNET)
}
