//! The attributes of a command: limits, capabilities, filters, host name, loopback.

use std::os::fd::{FromRawFd as _, OwnedFd};

use nsexec::launch::{Command, LaunchError};
use nsexec::namespace::NsKind::{Mnt, Net, User, Uts};
use nsexec::sys::types::{BpfInstruction, Capability, Limit, Resource};

use crate::kit::{is_root, sh, stdout};

/// Returns a shell in a new user namespace.
fn inside(script: &str) -> Command {
    let mut command = sh(script);
    command.unshare([User, Uts, Net]);
    command
}

const STATUS: &str = "grep -E 'Cap(Inh|Prm|Eff|Bnd|Amb)' /proc/self/status | cut -f 2 | uniq";

/// The last check for the launcher's death is a poll, which fails under a limit of no descriptor.
#[test]
fn command_starts_without_a_descriptor_to_open() {
    for hard in [0, 1] {
        let mut command = sh("true");
        let mut child = command.unshare([User, Uts]).limit(Resource::NOFILE, 0, hard).spawn().unwrap();
        // The command can load no library.
        assert!(child.wait().unwrap().code().is_some(), "{hard}");
    }
}

#[test]
fn host_name_and_loopback_are_those_of_the_new_namespaces() {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let script =
        "cat /proc/sys/kernel/hostname; cat /proc/net/if_inet6 /proc/net/fib_trie | grep -c 127.0.0.1; true";
    let mut up = inside(script);
    let lines = stdout(up.hostname("box").loopback_up());
    let (name, addresses) = lines.split_once('\n').unwrap();
    assert_eq!(name, "box");
    assert_ne!(addresses, "0");
    assert!(stdout(&mut inside(script)).ends_with("\n0"));
    assert_eq!(std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap(), host);
}

#[test]
fn limits_and_mask_are_set() {
    let mut command = sh("ulimit -Sn; ulimit -Hn; ulimit -c; umask");
    command.limit(Resource::NOFILE, 20, 40).limit(Resource::CORE, 0, 0).umask(0o27);
    assert_eq!(stdout(&mut command), "20\n40\n0\n0027");
    // Lower than the numbers of the launch's own descriptors.
    assert_eq!(stdout(sh("echo ran").limit(Resource::NOFILE, 8, 8)), "ran");
}

#[test]
fn command_has_exactly_these_capabilities() {
    let bits = |set: u64| format!("{set:016x}");
    let two = [Capability::CHOWN, Capability::NET_BIND_SERVICE];
    assert_eq!(stdout(inside(STATUS).capabilities(two)), bits(1 | 1 << 10));
    assert_eq!(stdout(inside(STATUS).capabilities([])), bits(0));
    // Also as another user, whose exec keeps the ambient ones.
    let mut own = inside(STATUS);
    assert_eq!(stdout(own.map_current_user().capabilities(two)), bits(1 | 1 << 10));
    if is_root() {
        let mut other = sh(&format!("id -u; {STATUS}"));
        other.uid(1234).gid(1234).capabilities(two);
        assert_eq!(stdout(&mut other), format!("1234\n{}", bits(1 | 1 << 10)));
    }
}

#[test]
fn no_new_privs_is_set_by_itself_and_with_a_filter() {
    let script = "grep -E 'NoNewPrivs|Seccomp:' /proc/self/status | cut -f 2";
    let own = stdout(&mut sh(script));
    let filters = own.split_once('\n').unwrap().1;
    assert_eq!(stdout(sh(script).no_new_privs()), format!("1\n{filters}"));
    assert_eq!(stdout(sh(script).seccomp_filter(allow_all())), "1\n2");
}

/// `return SECCOMP_RET_ALLOW`.
fn allow_all() -> Vec<BpfInstruction> {
    vec![BpfInstruction { code: 0x06, jt: 0, jf: 0, k: 0x7fff_0000 }]
}

/// Returns a filter that lets one call fail with `EPERM`, as bytes.
pub(crate) fn refusing(call: i64) -> Vec<u8> {
    let k = u32::try_from(call).unwrap();
    let program = [
        // The number of the call; skip one if it is another one; EPERM; allow.
        (0x20, 0, 0, 0),
        (0x15, 0, 1, k),
        (0x06, 0, 0, 0x0005_0001),
        (0x06, 0, 0, 0x7fff_0000),
    ];
    program
        .iter()
        .flat_map(|(code, jt, jf, k): &(u16, u8, u8, u32)| {
            [&code.to_ne_bytes()[..], &[*jt, *jf], &k.to_ne_bytes()].concat()
        })
        .collect()
}

#[test]
fn filter_applies_to_the_command_and_to_nothing_before() {
    let program = refusing;
    let mut command = sh("umask 077 && echo set; uname >/dev/null 2>&1 || echo refused");
    command.seccomp_filter_bytes(program(libc::SYS_uname));
    assert_eq!(stdout(&mut command), "set\nrefused");
    // A call that the launch itself makes before the exec.
    assert_eq!(stdout(sh("echo ran").umask(0o22).seccomp_filter_bytes(program(libc::SYS_umask))), "ran");
    // The exec itself is refused, with its errno and its name.
    let error = sh("").seccomp_filter_bytes(program(libc::SYS_execve)).spawn().unwrap_err();
    assert_eq!(error.to_string(), "failed to execute sh: Operation not permitted");
}

/// Returns a Landlock rule set that handles writes to files and allows none, or `None` without Landlock.
fn no_writes() -> Option<OwnedFd> {
    const WRITE_FILE: u64 = 1 << 1;
    let attributes = WRITE_FILE;
    // SAFETY: the kernel reads 8 bytes of the structure, and returns a descriptor or −1.
    let fd = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, &raw const attributes, 8_usize, 0) };
    // SAFETY: a new descriptor, which has no other owner.
    i32::try_from(fd).ok().filter(|fd| *fd >= 0).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
}

#[test]
fn landlock_rule_set_restricts_the_command() {
    let Some(ruleset) = no_writes() else {
        let error = sh("").landlock(std::fs::File::open("/dev/null").unwrap()).spawn().unwrap_err();
        assert!(error.to_string().contains("failed to apply the Landlock rule set"), "{error}");
        return;
    };
    let script = "cat /proc/self/comm; echo x 2>/dev/null > /dev/full; echo $?; (echo x > /dev/null) 2>/dev/null || echo refused";
    let mut command = sh(script);
    // The lowest numbers are those of the command's own descriptors.
    command.landlock(ruleset).fd(9, std::fs::File::open("/dev/null").unwrap());
    let text = stdout(&mut command);
    assert!(text.ends_with("refused"), "{text}");
    let error = sh("").landlock(std::fs::File::open("/dev/null").unwrap()).spawn().unwrap_err();
    assert!(error.to_string().contains("failed to apply the Landlock rule set"), "{error}");
}

#[test]
fn sys_is_that_of_the_new_network() {
    let script = "ls /sys/class/net; ls /sys/fs/cgroup | wc -l; pwd";
    let mut command = inside(script);
    command.unshare([Mnt]);
    let own = stdout(&mut command);
    let new = stdout(command.sys_of_network());
    assert!(own.ends_with(new.strip_prefix("lo").unwrap()), "{own} / {new}");
    let mut plain = inside("ls /sys/class/net");
    plain.unshare([Mnt]).propagation(None).sys_of_network();
    assert_eq!(stdout(&mut plain), "lo", "in a new user namespace the mount does not reach the host");
}

#[test]
fn attributes_that_cannot_work_are_found_before_any_process() {
    let refused = |command: &mut Command| match command.spawn().unwrap_err() {
        LaunchError::Setting(error) => error.to_string(),
        other => panic!("{other:?}"),
    };
    assert!(refused(sh("").hostname("box")).contains("needs a new uts namespace"));
    let mut joining = sh("");
    joining.join(Uts, "/proc/self/ns/uts").hostname("box");
    assert!(refused(&mut joining).contains("needs a new uts namespace"));
    assert!(refused(sh("").loopback_up()).contains("needs a new net namespace"));
    assert!(refused(sh("").sys_of_network()).contains("needs a new net namespace"));
    assert!(refused(inside("").sys_of_network()).contains("needs a new mnt namespace"));
    let both = || {
        let mut command = sh("");
        command.unshare([Net, Mnt]).sys_of_network();
        command
    };
    assert!(refused(both().tmpfs("/mnt")).contains("sys_of_network and root"));
    assert!(refused(both().propagation(None)).contains("the mount would reach the host"));
    assert!(refused(inside("").hostname([b'x'; 65])).contains("1 to 64 bytes"));
    assert!(refused(sh("").limit(Resource::CPU, 2, 1)).contains("the soft limit 2 of RLIMIT_CPU"));
    assert!(refused(sh("").umask(0o1000)).contains("0o1000 is not a mask"));
    assert!(refused(inside("").capabilities([Capability(63)])).contains("not a known capability"));
    assert!(refused(sh("").seccomp_filter([])).contains("0 instructions"));
    assert!(refused(sh("").seccomp_filter(vec![allow_all()[0]; 4097])).contains("4097 instructions"));
    assert!(refused(sh("").seccomp_filter_bytes([0; 9])).contains("9 bytes"));
    if !is_root() {
        assert!(refused(sh("").capabilities([])).contains("create or join one"));
    }
}

#[test]
fn attributes_that_the_kernel_refuses_name_their_step() {
    let above = sh("").limit(Resource::NOFILE, 1, Limit::INFINITY).spawn().unwrap_err();
    assert!(above.to_string().contains("failed to set the limit RLIMIT_NOFILE"), "{above}");
    // An instruction that does not exist.
    let wrong = vec![BpfInstruction { code: 0xffff, jt: 0, jf: 0, k: 0 }];
    let error = sh("").seccomp_filter(wrong).spawn().unwrap_err();
    assert!(error.to_string().contains("failed to install the seccomp filter: Invalid argument"), "{error}");
}
