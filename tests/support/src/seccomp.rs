//! A seccomp profile of the OCI runtime specification as a program for the kernel, as a runtime makes it with
//! libseccomp. Only the parts that `nsexec plan --emit seccomp` writes. Also builds a program that
//! refuses given calls.

use std::io;

use serde_json::Value;

/// An instruction of a filter: struct sock_filter.
struct Instruction {
    code: u16,
    jt: u8,
    jf: u8,
    k: u32,
}

/// Returns the number of a system call on this architecture, if it has the call.
fn number(name: &str) -> Option<libc::c_long> {
    macro_rules! by_name {
        ($($name:ident $number:ident,)*) => {
            match name {
                $(stringify!($name) => Some(libc::$number),)*
                _ => None,
            }
        };
    }
    #[cfg(target_arch = "x86_64")]
    let special = by_name! {
        access SYS_access,
        arch_prctl SYS_arch_prctl,
        poll SYS_poll,
        readlink SYS_readlink,
    };
    #[cfg(not(target_arch = "x86_64"))]
    let special: Option<libc::c_long> = None;
    special.or(by_name! {
        brk SYS_brk,
        capset SYS_capset,
        chdir SYS_chdir,
        chroot SYS_chroot,
        clone SYS_clone,
        clone3 SYS_clone3,
        close SYS_close,
        close_range SYS_close_range,
        dup3 SYS_dup3,
        execve SYS_execve,
        execveat SYS_execveat,
        exit SYS_exit,
        exit_group SYS_exit_group,
        faccessat SYS_faccessat,
        faccessat2 SYS_faccessat2,
        fchdir SYS_fchdir,
        fchmod SYS_fchmod,
        fcntl SYS_fcntl,
        fstat SYS_fstat,
        fstatfs SYS_fstatfs,
        futex SYS_futex,
        getcwd SYS_getcwd,
        getdents64 SYS_getdents64,
        getegid SYS_getegid,
        geteuid SYS_geteuid,
        getgid SYS_getgid,
        getgroups SYS_getgroups,
        getpid SYS_getpid,
        getrandom SYS_getrandom,
        getsockopt SYS_getsockopt,
        gettid SYS_gettid,
        getuid SYS_getuid,
        ioctl SYS_ioctl,
        keyctl SYS_keyctl,
        kill SYS_kill,
        landlock_restrict_self SYS_landlock_restrict_self,
        lseek SYS_lseek,
        madvise SYS_madvise,
        memfd_create SYS_memfd_create,
        mkdirat SYS_mkdirat,
        mmap SYS_mmap,
        mount SYS_mount,
        mount_setattr SYS_mount_setattr,
        move_mount SYS_move_mount,
        mprotect SYS_mprotect,
        mremap SYS_mremap,
        munmap SYS_munmap,
        newfstatat SYS_newfstatat,
        open_tree SYS_open_tree,
        openat SYS_openat,
        openat2 SYS_openat2,
        pidfd_open SYS_pidfd_open,
        pidfd_send_signal SYS_pidfd_send_signal,
        pipe2 SYS_pipe2,
        pivot_root SYS_pivot_root,
        ppoll SYS_ppoll,
        prctl SYS_prctl,
        pread64 SYS_pread64,
        prlimit64 SYS_prlimit64,
        pwritev2 SYS_pwritev2,
        read SYS_read,
        readlinkat SYS_readlinkat,
        recvmsg SYS_recvmsg,
        restart_syscall SYS_restart_syscall,
        rseq SYS_rseq,
        rt_sigaction SYS_rt_sigaction,
        rt_sigprocmask SYS_rt_sigprocmask,
        rt_sigreturn SYS_rt_sigreturn,
        rt_sigtimedwait SYS_rt_sigtimedwait,
        sched_getaffinity SYS_sched_getaffinity,
        sched_yield SYS_sched_yield,
        seccomp SYS_seccomp,
        sendfile SYS_sendfile,
        sendmsg SYS_sendmsg,
        sendto SYS_sendto,
        set_robust_list SYS_set_robust_list,
        set_tid_address SYS_set_tid_address,
        setfsgid SYS_setfsgid,
        setfsuid SYS_setfsuid,
        setgid SYS_setgid,
        setgroups SYS_setgroups,
        sethostname SYS_sethostname,
        setns SYS_setns,
        setresuid SYS_setresuid,
        setsid SYS_setsid,
        setuid SYS_setuid,
        sigaltstack SYS_sigaltstack,
        signalfd4 SYS_signalfd4,
        socket SYS_socket,
        socketpair SYS_socketpair,
        statfs SYS_statfs,
        statx SYS_statx,
        symlinkat SYS_symlinkat,
        umask SYS_umask,
        umount2 SYS_umount2,
        uname SYS_uname,
        unlinkat SYS_unlinkat,
        unshare SYS_unshare,
        wait4 SYS_wait4,
        waitid SYS_waitid,
        write SYS_write,
        writev SYS_writev,
    })
}

#[cfg(target_arch = "x86_64")]
const ARCH: (&str, u32) = ("SCMP_ARCH_X86_64", 0xc000_003e);
#[cfg(target_arch = "aarch64")]
const ARCH: (&str, u32) = ("SCMP_ARCH_AARCH64", 0xc000_00b7);
#[cfg(target_arch = "s390x")]
const ARCH: (&str, u32) = ("SCMP_ARCH_S390X", 0x8000_0016);

// Of linux/bpf_common.h and linux/seccomp.h.
const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;
const ALLOW: u32 = 0x7fff_0000;
const ERRNO: u32 = 0x0005_0000;

/// The places of the number, the architecture and the arguments in struct seccomp_data.
const NUMBER_AT: u32 = 0;
const ARCH_AT: u32 = 4;
const ARGUMENTS_AT: u32 = 16;

const fn step(code: u16, jt: u8, jf: u8, k: u32) -> Instruction {
    Instruction { code, jt, jf, k }
}

/// Returns the instructions that go on with the next one if one half of an argument has the value, else skip
/// the rest of the check: `rest` instructions.
fn half(at: u32, mask: u32, value: u32, rest: u8) -> [Instruction; 3] {
    [step(LOAD, 0, 0, at), step(AND, 0, 0, mask), step(JUMP_EQUAL, 0, rest, value)]
}

/// Returns the profile as a program: 8 bytes for each instruction, in the machine's byte order.
#[must_use]
pub fn program(profile: &Value) -> Vec<u8> {
    assert_eq!(profile["architectures"], serde_json::json!([ARCH.0]));
    let errno = |value: &Value| ERRNO | u32::try_from(value.as_u64().unwrap()).unwrap();
    let refuse = errno(&profile["defaultErrnoRet"]);
    let mut program =
        vec![step(LOAD, 0, 0, ARCH_AT), step(JUMP_EQUAL, 1, 0, ARCH.1), step(RETURN, 0, 0, refuse)];
    for group in profile["syscalls"].as_array().unwrap() {
        let result = match group["action"].as_str().unwrap() {
            "SCMP_ACT_ALLOW" => ALLOW,
            "SCMP_ACT_ERRNO" => errno(&group["errnoRet"]),
            other => panic!("{other}"),
        };
        for name in group["names"].as_array().unwrap() {
            let Some(number) = number(name.as_str().unwrap()) else { continue };
            program.push(step(LOAD, 0, 0, NUMBER_AT));
            let number = u32::try_from(number).unwrap();
            let Some(argument) = group.get("args").and_then(|args| args.get(0)) else {
                program.extend([step(JUMP_EQUAL, 0, 1, number), step(RETURN, 0, 0, result)]);
                continue;
            };
            let of = |key: &str| argument[key].as_u64().unwrap();
            let (mask, value) = match argument["op"].as_str().unwrap() {
                "SCMP_CMP_EQ" => (u64::MAX, of("value")),
                "SCMP_CMP_MASKED_EQ" => (of("value"), of("valueTwo")),
                other => panic!("{other}"),
            };
            let at = ARGUMENTS_AT + 8 * u32::try_from(of("index")).unwrap();
            let (low, high) = if cfg!(target_endian = "big") { (at + 4, at) } else { (at, at + 4) };
            let low_half = |value: u64| u32::try_from(value & 0xffff_ffff).unwrap();
            program.push(step(JUMP_EQUAL, 0, 7, number));
            program.extend(half(low, low_half(mask), low_half(value), 4));
            program.extend(half(high, low_half(mask >> 32), low_half(value >> 32), 1));
            program.push(step(RETURN, 0, 0, result));
        }
    }
    program.push(step(RETURN, 0, 0, refuse));
    let bytes = |Instruction { code, jt, jf, k }: &Instruction| {
        [&code.to_ne_bytes()[..], &[*jt, *jf], &k.to_ne_bytes()].concat()
    };
    program.iter().flat_map(bytes).collect()
}

/// Returns a program for the kernel that answers these calls with an errno each, and permits all others.
#[must_use]
pub fn refusing(calls: &[(libc::c_long, i32)]) -> Vec<libc::sock_filter> {
    let mut program = vec![step(LOAD, 0, 0, NUMBER_AT)];
    for (number, errno) in calls {
        program.push(step(JUMP_EQUAL, 0, 1, u32::try_from(*number).unwrap()));
        program.push(step(RETURN, 0, 0, ERRNO | u32::try_from(*errno).unwrap()));
    }
    program.push(step(RETURN, 0, 0, ALLOW));
    program.iter().map(|&Instruction { code, jt, jf, k }| libc::sock_filter { code, jt, jf, k }).collect()
}

/// Installs a program as the seccomp filter of this process, between fork and exec too. Only a process
/// without CAP_SYS_ADMIN gets no_new_privs, which would take the privileges from the mapping tools.
///
/// # Errors
/// Those of seccomp(2).
pub fn install(program: &mut [libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the kernel reads the program, which outlives the call.
    let set = || unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    if set() == 0 {
        return Ok(());
    }
    // SAFETY: the arguments are numbers.
    let restricted = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    if restricted == 0 && set() == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
