//! `LinuxSys` against the kernel of this machine, without privileges.
//!
//! Each case runs in its own process with a single thread: this program, executed again with the name of the
//! case. So a case may fork, change signal dispositions and mark descriptors.

use std::collections::BTreeSet;
use std::process::{Command, ExitCode};

use nsexec::sys::Sys;
use nsexec::sys::linux::LinuxSys;
use nsexec::sys::types::*;

use support::{LIMIT, SKIPPED, Suite, Test, Threads, Verdict};

type Case = (&'static str, fn(&mut LinuxSys));

const CASES: &[Case] = &[
    ("a_socket_pair_carries_bytes_and_ends", a_socket_pair_carries_bytes_and_ends),
    ("a_send_to_a_dead_peer_raises_no_signal", a_send_to_a_dead_peer_raises_no_signal),
    ("a_peer_that_dies_with_unread_bytes_resets", a_peer_that_dies_with_unread_bytes_resets),
    ("a_send_to_a_pipe_is_refused", a_send_to_a_pipe_is_refused),
    #[cfg(feature = "legacy")]
    ("a_descriptor_travels_with_a_byte", a_descriptor_travels_with_a_byte),
    #[cfg(feature = "legacy")]
    ("second_passed_descriptor_is_truncated", second_passed_descriptor_is_truncated),
    ("a_descriptor_under_another_number_is_inherited", a_descriptor_under_another_number_is_inherited),
    ("directory_and_groups_change", directory_and_groups_change),
    ("attributes_change", attributes_change),
    #[cfg(feature = "legacy")]
    ("a_copy_at_a_number_is_close_on_exec", a_copy_at_a_number_is_close_on_exec),
    ("write_nowait_does_not_block", write_nowait_does_not_block),
    ("a_wait_returns_the_signal_and_its_sender", a_wait_returns_the_signal_and_its_sender),
    ("close_range_closes_from_a_number_on", close_range_closes_from_a_number_on),
    ("a_plain_write_to_a_dead_peer_leaves_a_signal", a_plain_write_to_a_dead_peer_leaves_a_signal),
    ("poll_reports_events", poll_reports_events),
    ("descriptors_are_marked_close_on_exec", descriptors_are_marked_close_on_exec),
    ("the_directory_of_descriptors_is_listed", the_directory_of_descriptors_is_listed),
    ("fstatfs_knows_a_namespace_and_procfs", fstatfs_knows_a_namespace_and_procfs),
    ("a_link_is_read_without_a_nul", a_link_is_read_without_a_nul),
    ("opens_are_close_on_exec_and_as_asked", opens_are_close_on_exec_and_as_asked),
    ("openat2_below_proc_crosses_no_mount", openat2_below_proc_crosses_no_mount),
    ("socket_type_is_reported", socket_type_is_reported),
    ("sibling_is_a_child_of_the_parent", sibling_is_a_child_of_the_parent),
    ("only_wclone_waits_for_a_child_without_signal", only_wclone_waits_for_a_child_without_signal),
    ("wait_distinguishes_exit_and_signal", wait_distinguishes_exit_and_signal),
    ("a_pidfd_is_readable_when_its_process_has_ended", a_pidfd_is_readable_when_its_process_has_ended),
    ("cached_thread_id_is_refreshed_in_the_child", cached_thread_id_is_refreshed_in_the_child),
    ("without_the_address_the_cache_is_stale", without_the_address_the_cache_is_stale),
    ("clone_init_creates_each_namespace", clone_init_creates_each_namespace),
    ("clone_init_returns_the_pidfd_of_its_child", clone_init_returns_the_pidfd_of_its_child),
    ("clone_init_child_has_no_exit_signal", clone_init_child_has_no_exit_signal),
    ("clone_init_refreshes_the_cached_thread_id", clone_init_refreshes_the_cached_thread_id),
    ("clone_init_without_the_address_leaves_the_cache", clone_init_without_the_address_leaves_the_cache),
    ("clone_init_refuses_flags_of_no_namespace", clone_init_refuses_flags_of_no_namespace),
    ("clone_init_without_privilege_is_eperm", clone_init_without_privilege_is_eperm),
    ("clone_init_at_a_limit_is_enospc", clone_init_at_a_limit_is_enospc),
    ("clone_init_without_a_free_descriptor_is_emfile", clone_init_without_a_free_descriptor_is_emfile),
    ("clone_child_has_no_exit_signal_and_no_namespace", clone_child_has_no_exit_signal_and_no_namespace),
    ("clone_child_refreshes_the_cached_thread_id", clone_child_refreshes_the_cached_thread_id),
    ("exec_passes_arguments_and_environment", exec_passes_arguments_and_environment),
    ("failed_exec_returns_its_errno", failed_exec_returns_its_errno),
    ("a_disposition_is_put_back_exactly", a_disposition_is_put_back_exactly),
    ("signal_mask_equals_libc", signal_mask_equals_libc),
    ("prctl_sets_name_dumpable_and_death_signal", prctl_sets_name_dumpable_and_death_signal),
    ("ids_and_namespaces_are_refused_by_number", ids_and_namespaces_are_refused_by_number),
    ("tree_of_mounts_is_built_and_entered", tree_of_mounts_is_built_and_entered),
    ("affinity_equals_libc", affinity_equals_libc),
    ("a_threaded_program_forks_without_hanging", a_threaded_program_forks_without_hanging),
    ("init_refuses_a_process_with_two_threads", init_refuses_a_process_with_two_threads),
    ("every_argument_fills_its_register", every_argument_fills_its_register),
];

const CASE: &str = "NSEXEC_TEST_CASE";

fn main() -> ExitCode {
    if let Ok(name) = std::env::var(CASE) {
        let (_, case) = CASES.iter().find(|(known, _)| *known == name).expect("a case of the list");
        support::default_signals();
        // SAFETY: the process has a single thread. The one case that starts a second thread documents it.
        case(&mut unsafe { LinuxSys::new() });
        return ExitCode::SUCCESS;
    }
    let tests = CASES.iter().map(|(name, _)| Test::new(*name, || run(name))).collect();
    let suite = Suite::new("linux_sys", tests);
    support::begin();
    suite.main(Threads::One)
}

fn run(name: &str) -> Verdict {
    let mut child = Command::new(std::env::current_exe().unwrap()).env(CASE, name).spawn().unwrap();
    match support::ends_within(&mut child, LIMIT) {
        Ok(status) if status.success() => Verdict::Passed,
        Ok(status) if status.code() == Some(SKIPPED) => Verdict::SkippedItself,
        Ok(status) => Verdict::Failed(status.to_string()),
        Err(problem) => Verdict::Failed(problem),
    }
}

/// Ends the process of a case that cannot run here.
fn skip(case: &str, reason: &str) -> ! {
    println!("\n{}", support::skip_line("linux_sys", case, reason));
    std::process::exit(SKIPPED)
}

/// Ends a forked process without running the parent's cleanup.
fn end(ok: bool) -> ! {
    // SAFETY: ends the process.
    unsafe { libc::_exit(if ok { 0 } else { 1 }) }
}

/// Runs `child` in the child, and checks in the parent that it succeeded.
fn check_child(sys: &mut LinuxSys, fork: Fork, which: WaitFor, child: impl FnOnce(&mut LinuxSys) -> bool) {
    match fork {
        Fork::Child => end(child(sys)),
        Fork::Parent { child } => {
            assert_eq!(sys.wait4(child, which), Ok(Waited { pid: child, status: WaitStatus::Exited(0) }));
        }
    }
}

fn fd_flags(fd: Fd) -> i32 {
    // SAFETY: a query by number.
    unsafe { libc::fcntl(fd.0, libc::F_GETFD) }
}

// -- descriptors -------------------------------------------------------------------------------------------

fn a_socket_pair_carries_bytes_and_ends(sys: &mut LinuxSys) {
    let (one, other) = sys.socketpair().unwrap();
    let mut buf = [0; 16];
    assert_eq!(sys.send(one, b"ready"), Ok(5));
    assert_eq!(sys.read(other, &mut buf), Ok(5));
    assert_eq!(&buf[..5], b"ready");
    assert_eq!(sys.write(other, b"go"), Ok(2));
    assert_eq!(sys.read(one, &mut buf[..1]), Ok(1));
    assert_eq!(sys.read(one, &mut buf), Ok(1));
    sys.close(one).unwrap();
    assert_eq!(sys.read(other, &mut buf), Ok(0));
    assert_eq!(sys.close(one), Err(Errno::EBADF));
}

fn a_send_to_a_dead_peer_raises_no_signal(sys: &mut LinuxSys) {
    sys.sigaction(Signal::PIPE, SigAction::DEFAULT).unwrap();
    let (one, other) = sys.socketpair().unwrap();
    sys.close(other).unwrap();
    assert_eq!(sys.send(one, b"x"), Err(Errno::EPIPE));
}

fn a_peer_that_dies_with_unread_bytes_resets(sys: &mut LinuxSys) {
    let (one, other) = sys.socketpair().unwrap();
    sys.send(one, b"unread").unwrap();
    sys.close(other).unwrap();
    assert_eq!(sys.read(one, &mut [0; 4]), Err(Errno::ECONNRESET));
}

fn a_send_to_a_pipe_is_refused(sys: &mut LinuxSys) {
    let (_, write) = sys.pipe2().unwrap();
    assert_eq!(sys.send(write, b"x"), Err(Errno::ENOTSOCK));
}

#[cfg(feature = "legacy")]
fn a_descriptor_travels_with_a_byte(sys: &mut LinuxSys) {
    let (one, other) = sys.socketpair().unwrap();
    let (read, write) = sys.pipe2().unwrap();
    assert_eq!(sys.send_fd(one, write), Ok(1));
    let Ok(Received { byte: Some(0), fd: Some(fd), truncated: false }) = sys.receive_fd(other) else {
        panic!("a byte and a descriptor");
    };
    assert_eq!(fd_flags(fd), libc::FD_CLOEXEC);
    assert_eq!(sys.write(fd, b"through it"), Ok(10));
    assert_eq!(sys.read(read, &mut [0; 16]), Ok(10));
    // A byte without a descriptor, and the end of the file.
    assert_eq!(sys.send(one, b"x"), Ok(1));
    assert_eq!(sys.receive_fd(other), Ok(Received { byte: Some(b'x'), fd: None, truncated: false }));
    sys.close(one).unwrap();
    assert_eq!(sys.receive_fd(other), Ok(Received { byte: None, fd: None, truncated: false }));
    assert_eq!(sys.send_fd(other, read), Err(Errno::EPIPE));
    assert_eq!(sys.receive_fd(read), Err(Errno::ENOTSOCK));
    assert_eq!(sys.send_fd(other, Fd(900)), Err(Errno::EBADF));
}

#[cfg(feature = "legacy")]
fn second_passed_descriptor_is_truncated(sys: &mut LinuxSys) {
    /// A control message with two descriptors, as on every 64-bit machine.
    #[repr(C)]
    struct Two(usize, i32, i32, [i32; 2]);
    let (one, other) = sys.socketpair().unwrap();
    let mut two = Two(24, libc::SOL_SOCKET, libc::SCM_RIGHTS, [1, 2]);
    let mut byte = 0_u8;
    let mut iov = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    // SAFETY: the structure has numbers and pointers only, for which zeroes are valid.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    (message.msg_iov, message.msg_iovlen) = (&raw mut iov, 1);
    (message.msg_control, message.msg_controllen) = ((&raw mut two).cast(), size_of::<Two>() as _);
    // SAFETY: the message points to data on this stack only.
    assert_eq!(unsafe { libc::sendmsg(one.0, &raw const message, 0) }, 1);
    let received = sys.receive_fd(other).unwrap();
    assert!(received.truncated && received.fd.is_some());
    // The kernel has closed the second descriptor: the next number is free.
    let next = sys.openat(Fd::CWD, c"/dev/null", OpenFlags::ReadOnly).unwrap();
    assert_eq!(received.fd.map(|fd| fd.0 + 1), Some(next.0));
}

fn a_descriptor_under_another_number_is_inherited(sys: &mut LinuxSys) {
    let (read, write) = sys.pipe2().unwrap();
    let (one, other) = sys.socketpair().unwrap();
    // The previous file is closed.
    assert_eq!(sys.dup_to(write, other), Ok(()));
    assert_eq!(fd_flags(other), 0);
    assert_eq!(sys.read(one, &mut [0; 4]), Ok(0));
    assert_eq!(sys.write(other, b"x"), Ok(1));
    assert_eq!(sys.read(read, &mut [0; 4]), Ok(1));
    assert_eq!(sys.dup_to(write, write), Err(Errno::EINVAL));
    assert_eq!(sys.dup_to(Fd(900), other), Err(Errno::EBADF));
    let above = sys.dup_above(write, Fd(60)).unwrap();
    assert!(above.0 >= 60, "{above:?}");
    assert_eq!(fd_flags(above), libc::FD_CLOEXEC);
    assert_eq!(sys.dup_above(Fd(900), Fd(60)), Err(Errno::EBADF));
    assert_eq!(sys.dup_above(write, Fd(-1)), Err(Errno::EINVAL));
}

fn directory_and_groups_change(sys: &mut LinuxSys) {
    assert_eq!(sys.chdir(c"/proc/self"), Ok(()));
    assert_eq!(std::env::current_dir().unwrap(), std::fs::canonicalize("/proc/self").unwrap());
    assert_eq!(sys.chdir(c"/nowhere"), Err(Errno::ENOENT));
    assert_eq!(sys.chdir(c"/proc/self/stat"), Err(Errno::ENOTDIR));
    assert_eq!(sys.chdir(c"/"), Ok(()));
    if sys.set_groups(&[20, 4]).is_ok() {
        let groups: Vec<u32> = nix::unistd::getgroups().unwrap().iter().map(|gid| gid.as_raw()).collect();
        assert_eq!(groups, [4, 20]);
        assert_eq!(sys.set_groups(&[]), Ok(()));
        assert!(nix::unistd::getgroups().unwrap().is_empty());
    }
    assert_eq!(sys.run_hook(Hook { number: 0, code: &|| Err(Errno::EIO) }), Err(Errno::EIO));
    assert_eq!(sys.run_hook(Hook { number: 0, code: &|| Ok(()) }), Ok(()));
}

/// Runs in a process of its own, which ends with what it has changed.
fn attributes_change(sys: &mut LinuxSys) {
    sys.umask(0o27).unwrap();
    assert_eq!(sys.umask(0o22), Ok(0o27));
    let limit = Limit { resource: Resource::NOFILE, soft: 50, hard: 60 };
    assert_eq!(sys.set_limit(limit), Ok(()));
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    assert!(files.split_whitespace().take(2).eq(["50", "60"]), "{files}");
    assert_eq!(sys.set_limit(Limit { hard: 40, ..limit }), Err(Errno::EINVAL));
    if sys.unshare(CloneFlags::NEWUSER.union(CloneFlags::NEWUTS).union(CloneFlags::NEWNET)).is_ok() {
        assert_eq!(sys.set_hostname(b"box"), Ok(()));
        assert_eq!(std::fs::read("/proc/sys/kernel/hostname").unwrap(), b"box\n");
        assert_eq!(sys.set_hostname(&[b'x'; 65]), Err(Errno::EINVAL));
        let socket = sys.inet_socket().unwrap();
        assert_eq!(sys.set_loopback_up(socket), Ok(()));
        assert_eq!(sys.close(socket), Ok(()));
        assert_eq!(sys.drop_bounding(Capability::SYS_ADMIN), Ok(()));
        assert_eq!(sys.drop_bounding(Capability(63)), Err(Errno::EINVAL));
        assert_eq!(sys.keep_capabilities(true), Ok(()));
        let net = 1 << Capability::NET_ADMIN.0;
        let sets = CapabilitySets { effective: net, permitted: net, inheritable: net };
        assert_eq!(sys.set_capabilities(sets), Ok(()));
        assert_eq!(sys.raise_ambient(Capability::NET_ADMIN), Ok(()));
        assert_eq!(sys.raise_ambient(Capability::CHOWN), Err(Errno::EPERM));
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        for line in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert!(status.contains(&format!("{line}:\t{net:016x}\n")), "{status}");
        }
        assert!(
            status.contains(&format!("CapBnd:\t{:016x}\n", 0x1ff_ffff_ffff_u64 & !(1 << 21))),
            "{status}"
        );
    }
    assert_eq!(sys.set_loopback_up(Fd(900)), Err(Errno::EBADF));
    assert_eq!(sys.set_controlling_terminal(Fd(900)), Err(Errno::EBADF));
    let pty = nix::pty::openpty(None, None).unwrap();
    let terminal = Fd(std::os::fd::AsRawFd::as_raw_fd(&pty.slave));
    // Not the leader of a session.
    assert_eq!(sys.set_controlling_terminal(terminal), Err(Errno::EPERM));
    assert_eq!(sys.setsid(), Ok(()));
    assert_eq!(sys.set_controlling_terminal(terminal), Ok(()));
    assert_eq!(nix::unistd::tcgetpgrp(&pty.slave).unwrap(), nix::unistd::getpid());
    // The close of its other end would send SIGHUP to this process.
    std::mem::forget(pty);
    assert_eq!(sys.new_session_keyring(), Ok(()));
    assert_eq!(sys.set_no_new_privs(), Ok(()));
    assert_eq!(nix::sys::prctl::get_no_new_privs(), Ok(true));
    // Without Landlock in the kernel there is no such call, or it is turned off.
    let landlock = sys.landlock_restrict_self(Fd(900));
    assert!(matches!(landlock, Err(Errno::EBADF | Errno::ENOSYS | Errno::EOPNOTSUPP)), "{landlock:?}");
    assert_eq!(sys.set_seccomp_filter(&[]), Err(Errno::EINVAL));
    // Lets getppid(2) fail with EIO.
    let number = u32::try_from(libc::SYS_getppid).unwrap();
    let program =
        [(0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x0005_0005), (0x06, 0, 0, 0x7fff_0000)];
    let program = program.map(|(code, jt, jf, k)| BpfInstruction { code, jt, jf, k });
    assert_eq!(sys.set_seccomp_filter(&program), Ok(()));
    // The C library returns the kernel's answer as it is, or as −1.
    assert!(nix::unistd::getppid().as_raw() < 0);
}

#[cfg(feature = "legacy")]
fn a_copy_at_a_number_is_close_on_exec(sys: &mut LinuxSys) {
    let (read, write) = sys.pipe2().unwrap();
    let (one, other) = sys.socketpair().unwrap();
    // The previous file is closed.
    assert_eq!(sys.dup3(write, other), Ok(()));
    assert_eq!(fd_flags(other), libc::FD_CLOEXEC);
    assert_eq!(sys.read(one, &mut [0; 4]), Ok(0));
    assert_eq!(sys.write(other, b"x"), Ok(1));
    assert_eq!(sys.read(read, &mut [0; 4]), Ok(1));
    assert_eq!(sys.dup3(write, write), Err(Errno::EINVAL));
    assert_eq!(sys.dup3(Fd(900), other), Err(Errno::EBADF));
    assert_eq!(sys.dup3(write, Fd(-1)), Err(Errno::EBADF));
}

fn write_nowait_does_not_block(sys: &mut LinuxSys) {
    let page = [b'x'; 4096];
    let (read, write) = sys.pipe2().unwrap();
    assert_eq!(sys.write_nowait(write, b"record\n"), Ok(7));
    assert_eq!(sys.read(read, &mut [0; 16]), Ok(7));
    while sys.write_nowait(write, &page).is_ok() {}
    assert_eq!(sys.write_nowait(write, &page), Err(Errno::EAGAIN));

    let (one, other) = sys.socketpair().unwrap();
    assert_eq!(sys.write_nowait(one, b"record\n"), Ok(7));
    assert_eq!(sys.read(other, &mut [0; 16]), Ok(7));

    // A regular file supports RWF_NOWAIT only if a buffered write can avoid the disk. ext4 returns EOPNOTSUPP
    // (seen on 6.18), xfs succeeds or returns EAGAIN, and some kernels return EINVAL. After each of these
    // errors the core polls, and then writes.
    let path = std::env::temp_dir().join(format!("nsexec-nowait-{}", std::process::id()));
    let file = std::fs::File::create(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    let file = Fd(std::os::fd::AsRawFd::as_raw_fd(&file));
    let result = sys.write_nowait(file, b"record\n");
    assert!(matches!(result, Ok(7) | Err(Errno::EAGAIN | Errno::EOPNOTSUPP | Errno::EINVAL)), "{result:?}");
}

fn a_plain_write_to_a_dead_peer_leaves_a_signal(sys: &mut LinuxSys) {
    sys.sigaction(Signal::PIPE, SigAction::DEFAULT).unwrap();
    let before = sys.sigprocmask(MaskHow::Block, SignalSet::PIPE).unwrap();
    assert!(!before.contains(SignalSet::PIPE));
    let (read, write) = sys.pipe2().unwrap();
    sys.close(read).unwrap();
    assert_eq!(sys.sigtimedwait(SignalSet::PIPE), Err(Errno::EAGAIN));
    assert_eq!(sys.write_nowait(write, b"x"), Err(Errno::EPIPE));
    assert_eq!(sys.sigtimedwait(SignalSet::PIPE), Ok(Signal::PIPE));
    // The pending signal is removed, so the process survives without the mask.
    assert_eq!(sys.sigprocmask(MaskHow::Set, before), Ok(SignalSet(before.0 | SignalSet::PIPE.0)));
}

fn a_wait_returns_the_signal_and_its_sender(sys: &mut LinuxSys) {
    sys.sigprocmask(MaskHow::Block, SignalSet::PIPE).unwrap();
    let this = sys.getpid();
    sys.kill(this, Signal::PIPE).unwrap();
    let sent = SentSignal { signal: Signal::PIPE, by_kernel: false };
    assert_eq!(sys.wait_signal(SignalSet::PIPE), Ok(sent));
}

fn close_range_closes_from_a_number_on(sys: &mut LinuxSys) {
    let (one, other) = sys.pipe2().unwrap();
    assert!(one.0 < other.0);
    match sys.close_range(u32::try_from(other.0).unwrap(), u32::MAX) {
        Ok(()) => assert_eq!((sys.close(one), sys.close(other)), (Ok(()), Err(Errno::EBADF))),
        Err(errno) => assert_eq!(errno, Errno::ENOSYS),
    }
}

fn poll_reports_events(sys: &mut LinuxSys) {
    let (one, other) = sys.socketpair().unwrap();
    let mut fds = [PollFd::new(one, PollEvents::IN), PollFd::new(other, PollEvents::OUT)];
    assert_eq!(sys.poll(&mut fds, -1), Ok(1));
    assert_eq!((fds[0].revents, fds[1].revents), (PollEvents(0), PollEvents::OUT));
    assert_eq!(sys.poll(&mut fds[..1], 10), Ok(0));
    sys.send(other, b"x").unwrap();
    assert_eq!(sys.poll(&mut fds, -1), Ok(2));
    assert_eq!(fds[0].revents, PollEvents::IN);
}

fn descriptors_are_marked_close_on_exec(sys: &mut LinuxSys) {
    let (one, other) = sys.pipe2().unwrap();
    // SAFETY: duplicates descriptors by number; the copies lack the flag.
    let bare = unsafe { [Fd(libc::dup(one.0)), Fd(libc::dup(other.0))] };
    assert_eq!([one, other, bare[0], bare[1]].map(fd_flags), [1, 1, 0, 0]);
    sys.set_cloexec(bare[0], true).unwrap();
    assert_eq!(bare.map(fd_flags), [1, 0]);
    match sys.close_range_cloexec(Fd(3)) {
        Ok(()) => assert_eq!((fd_flags(bare[1]), fd_flags(Fd::STDERR)), (1, 0)),
        Err(errno) => assert!([Errno::ENOSYS, Errno::EINVAL].contains(&errno), "{errno}"),
    }
    sys.set_cloexec(bare[0], false).unwrap();
    assert_eq!(fd_flags(bare[0]), 0);
    assert_eq!(sys.set_cloexec(Fd(999), false), Err(Errno::EBADF));
    // The numbers of copies that no other code has.
    let copies = [600, 601, 603].map(|number| sys.dup_above(bare[0], Fd(number)).unwrap());
    match sys.close_range(600, 602) {
        Ok(()) => assert_eq!(copies.map(|fd| sys.close(fd)), [Err(Errno::EBADF), Err(Errno::EBADF), Ok(())]),
        Err(errno) => assert_eq!(errno, Errno::ENOSYS),
    }
}

fn the_directory_of_descriptors_is_listed(sys: &mut LinuxSys) {
    let known: BTreeSet<String> = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let list = sys.openat(Fd::CWD, c"/proc/self/fd", OpenFlags::List).unwrap();
    let mut found = BTreeSet::new();
    let mut buf = [0; 128];
    loop {
        let count = sys.getdents64(list, &mut buf).unwrap();
        let mut rest = &buf[..count];
        if rest.is_empty() {
            break;
        }
        while !rest.is_empty() {
            let length = usize::from(u16::from_ne_bytes([rest[16], rest[17]]));
            let name = std::ffi::CStr::from_bytes_until_nul(&rest[19..length]).unwrap();
            found.insert(name.to_str().unwrap().to_owned());
            rest = &rest[length..];
        }
    }
    assert!(found.remove(".") && found.remove(".."));
    // The descriptors of both listings are among the entries, and have the same number.
    assert_eq!(found, known);
    assert!(found.contains(&list.0.to_string()));
}

fn fstatfs_knows_a_namespace_and_procfs(sys: &mut LinuxSys) {
    let namespace = sys.openat(Fd::CWD, c"/proc/self/ns/net", OpenFlags::Namespace).unwrap();
    assert_eq!(sys.fstatfs(namespace), Ok(FsType::NSFS));
    let file = sys.openat(Fd::CWD, c"/proc/self/status", OpenFlags::ReadOnly).unwrap();
    assert_eq!(sys.fstatfs(file), Ok(FsType::PROC));
    let (pipe, _) = sys.pipe2().unwrap();
    assert!(![Ok(FsType::NSFS), Ok(FsType::PROC)].contains(&sys.fstatfs(pipe)));
    assert_eq!(sys.fstatfs(Fd(99)), Err(Errno::EBADF));
}

fn a_link_is_read_without_a_nul(sys: &mut LinuxSys) {
    let mut buffer = [b'x'; 16];
    let len = sys.readlink(c"/proc/self", &mut buffer).unwrap();
    assert_eq!(buffer[..len], *std::process::id().to_string().as_bytes());
    assert!(buffer[len..].iter().all(|byte| *byte == b'x'), "nothing behind it is touched");
    assert_eq!(sys.readlink(c"/proc/self", &mut buffer[..1]), Ok(1));
    assert_eq!(sys.readlink(c"/proc/self/status", &mut buffer), Err(Errno::EINVAL));
    assert_eq!(sys.readlink(c"/nowhere", &mut buffer), Err(Errno::ENOENT));
}

fn opens_are_close_on_exec_and_as_asked(sys: &mut LinuxSys) {
    let directory = sys.openat(Fd::CWD, c"/proc/self", OpenFlags::Directory).unwrap();
    let score = sys.openat(directory, c"oom_score_adj", OpenFlags::ReadWrite).unwrap();
    let status = sys.openat(directory, c"status", OpenFlags::ReadOnly).unwrap();
    let namespace = sys.openat(directory, c"ns/uts", OpenFlags::Namespace).unwrap();
    let list = sys.openat(directory, c"fd", OpenFlags::List).unwrap();
    let modes = [directory, score, status, namespace, list].map(|fd| {
        assert_eq!(fd_flags(fd), libc::FD_CLOEXEC);
        // SAFETY: a query by number.
        unsafe { libc::fcntl(fd.0, libc::F_GETFL) }
    });
    let directory = libc::O_DIRECTORY;
    let expected = [libc::O_PATH | directory, libc::O_RDWR, libc::O_RDONLY, libc::O_NONBLOCK, directory];
    // On 64 bit the kernel adds O_LARGEFILE, whose value differs between x86_64 and aarch64.
    assert_eq!(modes.map(|mode| mode & !0o500_000), expected);
    assert_eq!(sys.openat(Fd::CWD, c"/nowhere", OpenFlags::ReadOnly), Err(Errno::ENOENT));
    assert_eq!(sys.openat(status, c"x", OpenFlags::ReadOnly), Err(Errno::ENOTDIR));
}

fn openat2_below_proc_crosses_no_mount(sys: &mut LinuxSys) {
    let proc = sys.openat(Fd::CWD, c"/proc", OpenFlags::Directory).unwrap();
    let directory = match sys.openat2(proc, c"self", OpenFlags::Directory) {
        Err(Errno::ENOSYS) => skip("openat2_below_proc_crosses_no_mount", "needs openat2"),
        directory => directory.unwrap(),
    };
    let score = sys.openat2(proc, c"self/oom_score_adj", OpenFlags::ReadWrite).unwrap();
    let stat = sys.openat2(directory, c"stat", OpenFlags::ReadOnly).unwrap();
    let modes = [directory, score, stat].map(|fd| {
        assert_eq!(fd_flags(fd), libc::FD_CLOEXEC);
        // SAFETY: a query by number.
        unsafe { libc::fcntl(fd.0, libc::F_GETFL) }
    });
    let expected = [libc::O_PATH | libc::O_DIRECTORY, libc::O_RDWR, libc::O_RDONLY];
    assert_eq!(modes.map(|mode| mode & !0o500_000), expected);
    let own = sys.getpid().0;
    let mut text = [0; 64];
    let len = sys.read(stat, &mut text).unwrap();
    assert!(text[..len].starts_with(format!("{own} (").as_bytes()));
    // /proc is itself a mount point, and the link to a program leads out of it.
    assert_eq!(sys.openat2(Fd::CWD, c"/proc/self/stat", OpenFlags::ReadOnly), Err(Errno::EXDEV));
    assert_eq!(sys.openat2(proc, c"self/exe", OpenFlags::ReadOnly), Err(Errno::ELOOP));
}

fn socket_type_is_reported(sys: &mut LinuxSys) {
    for (kind, found) in [
        (libc::SOCK_STREAM, SocketType::STREAM),
        (libc::SOCK_DGRAM, SocketType::DGRAM),
        (libc::SOCK_SEQPACKET, SocketType::SEQPACKET),
    ] {
        let mut pair = [-1; 2];
        // SAFETY: the array has room for two descriptors.
        assert_eq!(unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, pair.as_mut_ptr()) }, 0);
        assert_eq!(sys.socket_type(Fd(pair[0])), Ok(found));
    }
    let (pipe, _) = sys.pipe2().unwrap();
    assert_eq!(sys.socket_type(pipe), Err(Errno::ENOTSOCK));
    assert_eq!(sys.socket_type(Fd(900)), Err(Errno::EBADF));
    // SAFETY: the calls take numbers.
    let event = Fd(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) });
    assert_eq!((sys.socket_type(event), sys.fstatfs(event)), (Err(Errno::ENOTSOCK), Ok(FsType::ANON_INODE)));
    let own = sys.getpid();
    if let Ok(pidfd) = sys.pidfd_open(own) {
        assert!([FsType::PIDFS, FsType::ANON_INODE].contains(&sys.fstatfs(pidfd).unwrap()));
    }
}

// -- processes ---------------------------------------------------------------------------------------------

fn sibling_is_a_child_of_the_parent(sys: &mut LinuxSys) {
    // An intermediate process, so that the sibling is our child, and not the test runner's.
    let fork = sys.fork(ExitSignal::Chld, None).unwrap();
    let caller = sys.getpid();
    let (told, tell) = sys.socketpair().unwrap();
    if fork == Fork::Child {
        // SAFETY: a query.
        let parent = unsafe { libc::getppid() };
        let tid = sys.tid_address().ok();
        let ok = match sys.clone_sibling(tid).unwrap() {
            // SAFETY: a query.
            Fork::Child => end(sys.send(tell, b"child").is_ok() && unsafe { libc::getppid() } == parent),
            Fork::Parent { child } => {
                let mut buf = [0; 8];
                let told = sys.read(told, &mut buf) == Ok(5) && &buf[..5] == b"child";
                told && child != caller && sys.wait4(child, WaitFor::Ordinary) == Err(Errno::ECHILD)
            }
        };
        end(ok);
    }
    // Both processes are our children. Each exits with 0 if its checks passed.
    for _ in 0..2 {
        assert_eq!(sys.wait4(Pid::ANY, WaitFor::Ordinary).unwrap().status, WaitStatus::Exited(0));
    }
    assert_eq!(sys.wait4(Pid::ANY, WaitFor::Ordinary), Err(Errno::ECHILD));
}

fn only_wclone_waits_for_a_child_without_signal(sys: &mut LinuxSys) {
    match sys.fork(ExitSignal::None, None).unwrap() {
        Fork::Child => end(true),
        Fork::Parent { child } => {
            assert_eq!(sys.wait4(Pid::ANY, WaitFor::Ordinary), Err(Errno::ECHILD));
            assert_eq!(sys.wait4(child, WaitFor::Ordinary), Err(Errno::ECHILD));
            let ended = Waited { pid: child, status: WaitStatus::Exited(0) };
            assert_eq!(sys.wait4(Pid::ANY, WaitFor::Stages), Ok(ended));
        }
    }
    match sys.fork(ExitSignal::Chld, None).unwrap() {
        Fork::Child => end(true),
        Fork::Parent { child } => {
            assert_eq!(sys.wait4(child, WaitFor::Stages), Err(Errno::ECHILD));
            assert_eq!(sys.wait4(Pid::ANY, WaitFor::Ordinary).map(|waited| waited.pid), Ok(child));
        }
    }
}

fn wait_distinguishes_exit_and_signal(sys: &mut LinuxSys) {
    match sys.fork(ExitSignal::Chld, None).unwrap() {
        // SAFETY: ends the process.
        Fork::Child => unsafe { libc::_exit(42) },
        Fork::Parent { child } => {
            let ended = sys.wait4(child, WaitFor::Ordinary).unwrap();
            assert_eq!(ended, Waited { pid: child, status: WaitStatus::Exited(42) });
        }
    }
    match sys.fork(ExitSignal::Chld, None).unwrap() {
        Fork::Child => loop {
            sys.poll(&mut [], -1).ok();
        },
        Fork::Parent { child } => {
            sys.kill(child, Signal::KILL).unwrap();
            let ended = sys.wait4(child, WaitFor::Ordinary).unwrap();
            assert_eq!(ended, Waited { pid: child, status: WaitStatus::Signaled(Signal::KILL) });
            assert_eq!(sys.kill(child, Signal::KILL), Err(Errno::ESRCH));
        }
    }
}

fn a_pidfd_is_readable_when_its_process_has_ended(sys: &mut LinuxSys) {
    let (hold, held) = sys.socketpair().unwrap();
    match sys.fork(ExitSignal::None, None).unwrap() {
        Fork::Child => {
            sys.close(hold).unwrap();
            end(sys.read(held, &mut [0]) == Ok(0));
        }
        Fork::Parent { child } => {
            let mut fds = [PollFd::new(sys.pidfd_open(child).unwrap(), PollEvents::IN)];
            assert_eq!(fd_flags(fds[0].fd), libc::FD_CLOEXEC);
            assert_eq!(sys.poll(&mut fds, 0), Ok(0));
            sys.close(hold).unwrap();
            assert_eq!(sys.poll(&mut fds, -1), Ok(1));
            assert_eq!(sys.wait4(child, WaitFor::Stages).unwrap().status, WaitStatus::Exited(0));
        }
    }
}

/// Returns the address of this libc's cached thread id; `None` on musl, and without
/// CONFIG_CHECKPOINT_RESTORE.
fn cache(sys: &mut LinuxSys) -> Option<TidAddress> {
    let tid = sys.tid_address().ok()?;
    (tid.cached == sys.gettid().0).then_some(tid)
}

fn cached_thread_id_is_refreshed_in_the_child(sys: &mut LinuxSys) {
    let Some(tid) = cache(sys) else { return };
    let fork = sys.fork(ExitSignal::None, Some(tid)).unwrap();
    check_child(sys, fork, WaitFor::Stages, |sys| {
        // Checks the id that the kernel stored, the address that the kernel will clear, and the libc's use of
        // the id: a pthread_kill of this thread with signal 0 uses the cached id.
        let own = cache(sys).is_some_and(|now| now.address == tid.address && now.cached != tid.cached);
        // SAFETY: the calling thread, and signal 0, which only checks the thread.
        own && unsafe { libc::pthread_kill(libc::pthread_self(), 0) } == 0
            // The address is registered for the next fork.
            && match sys.fork(ExitSignal::Chld, Some(tid)).unwrap() {
                Fork::Child => end(cache(sys).is_some()),
                Fork::Parent { child } => {
                    sys.wait4(child, WaitFor::Ordinary).unwrap().status == WaitStatus::Exited(0)
                }
            }
    });
    // The parent's own cache is unchanged.
    assert_eq!(cache(sys), Some(tid));
}

fn without_the_address_the_cache_is_stale(sys: &mut LinuxSys) {
    let Some(tid) = cache(sys) else { return };
    let fork = sys.fork(ExitSignal::None, None).unwrap();
    check_child(sys, fork, WaitFor::Stages, |sys| {
        // runc#4233: the refresh avoids this stale id. No address is registered any more.
        // SAFETY: the address holds the libc's thread id, in this process's copy of the memory.
        let cached = unsafe { (tid.address as *const i32).read_volatile() };
        cached == tid.cached && sys.tid_address() == Ok(TidAddress { address: 0, cached: 0 })
    });
}

/// The namespaces of a user namespace that a child may create with it, and the names of their files.
const KINDS: [(CloneFlags, &str); 7] = [
    (CloneFlags::NEWUSER, "user"),
    (CloneFlags::NEWNS, "mnt"),
    (CloneFlags::NEWUTS, "uts"),
    (CloneFlags::NEWIPC, "ipc"),
    (CloneFlags::NEWPID, "pid"),
    (CloneFlags::NEWCGROUP, "cgroup"),
    (CloneFlags::NEWNET, "net"),
];

/// Returns the identities of this process's namespaces. In a new pid namespace, /proc/self of the old mount
/// is the process's outer pid.
fn namespaces() -> Vec<(CloneFlags, std::path::PathBuf)> {
    KINDS.map(|(kind, file)| (kind, std::fs::read_link(format!("/proc/self/ns/{file}")).unwrap())).into()
}

/// Clones a child that runs `child`, and returns its pid and pidfd to the parent.
fn init(
    sys: &mut LinuxSys,
    namespaces: CloneFlags,
    tid: Option<TidAddress>,
    child: impl FnOnce(&mut LinuxSys) -> bool,
) -> SysResult<(Pid, Option<Fd>)> {
    match sys.clone_init(namespaces, None, tid)? {
        InitFork::Child => end(child(sys)),
        InitFork::Parent { child, pidfd } => Ok((child, pidfd)),
    }
}

/// Returns the end of a child of `clone_init`.
fn init_status(sys: &mut LinuxSys, (child, _): (Pid, Option<Fd>)) -> WaitStatus {
    sys.wait4(child, WaitFor::Stages).unwrap().status
}

/// Ends the case if this machine has no user namespaces for this user.
fn needs_user_namespaces(sys: &mut LinuxSys, case: &str) {
    match init(sys, CloneFlags::NEWUSER, None, |_| true) {
        Ok(made) => assert_eq!(init_status(sys, made), WaitStatus::Exited(0)),
        Err(errno) => skip(case, &format!("needs user namespaces: {errno}")),
    }
}

fn clone_init_creates_each_namespace(sys: &mut LinuxSys) {
    needs_user_namespaces(sys, "clone_init_creates_each_namespace");
    let before = namespaces();
    let all = KINDS.into_iter().fold(CloneFlags::EMPTY, |all, (kind, _)| all.union(kind));
    let sets = KINDS.into_iter().map(|(kind, _)| kind.union(CloneFlags::NEWUSER));
    for set in sets.chain([CloneFlags::EMPTY, all]) {
        let made = init(sys, set, None, |sys| {
            // A namespace is new exactly if its flag was given.
            let as_asked =
                namespaces().iter().zip(&before).all(|(now, old)| (now.1 != old.1) == set.contains(now.0));
            as_asked && (sys.getpid() == Pid(1)) == set.contains(CloneFlags::NEWPID)
        });
        assert_eq!(init_status(sys, made.unwrap()), WaitStatus::Exited(0), "{set}");
        assert_eq!(namespaces(), before, "{set}: the caller's");
    }
}

fn clone_init_returns_the_pidfd_of_its_child(sys: &mut LinuxSys) {
    let (hold, held) = sys.socketpair().unwrap();
    let next = sys.openat(Fd::CWD, c"/dev/null", OpenFlags::ReadOnly).unwrap();
    sys.close(next).unwrap();
    let made = init(sys, CloneFlags::EMPTY, None, |sys| {
        // The child has no copy of the pidfd.
        sys.close(hold) == Ok(()) && fd_flags(next) == -1 && sys.read(held, &mut [0]) == Ok(0)
    });
    let (child, pidfd) = made.unwrap();
    let pidfd = pidfd.expect("a kernel since 5.2");
    assert_eq!((pidfd, fd_flags(pidfd)), (next, libc::FD_CLOEXEC));
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.0)).unwrap();
    assert!(info.lines().any(|line| line == format!("Pid:\t{child}")), "{info}");
    let mut fds = [PollFd::new(pidfd, PollEvents::IN)];
    assert_eq!(sys.poll(&mut fds, 0), Ok(0));
    sys.close(hold).unwrap();
    assert_eq!(sys.poll(&mut fds, -1), Ok(1));
    assert_eq!(init_status(sys, (child, None)), WaitStatus::Exited(0));
}

fn clone_init_child_has_no_exit_signal(sys: &mut LinuxSys) {
    let chld = SignalSet(1 << (libc::SIGCHLD - 1));
    sys.sigprocmask(MaskHow::Block, chld).unwrap();
    let (child, pidfd) = init(sys, CloneFlags::EMPTY, None, |_| true).unwrap();
    assert_eq!(sys.poll(&mut [PollFd::new(pidfd.unwrap(), PollEvents::IN)], -1), Ok(1));
    // Field 38 of its stat file is the exit signal (proc_pid_stat(5)).
    let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    assert_eq!(fields[38 - 3], "0", "{stat}");
    assert_eq!(sys.wait4(child, WaitFor::Ordinary), Err(Errno::ECHILD));
    assert_eq!(init_status(sys, (child, None)), WaitStatus::Exited(0));
    assert_eq!(sys.sigtimedwait(chld), Err(Errno::EAGAIN), "no SIGCHLD was sent");
    // An exec sets the exit signal.
    let made = init(sys, CloneFlags::EMPTY, None, |sys| {
        let mut slots = [const { None }; 2];
        let argv = ExecArgs::build(b"true\0", &mut slots).unwrap();
        sys.execve(c"/bin/true", &argv, &ExecArgs::EMPTY);
        false
    });
    let (child, pidfd) = made.unwrap();
    assert_eq!(sys.poll(&mut [PollFd::new(pidfd.unwrap(), PollEvents::IN)], -1), Ok(1));
    assert_eq!(sys.wait4(child, WaitFor::Stages), Err(Errno::ECHILD));
    let ended = Waited { pid: child, status: WaitStatus::Exited(0) };
    assert_eq!(sys.wait4(child, WaitFor::Ordinary), Ok(ended));
    assert_eq!(sys.sigtimedwait(chld), Ok(Signal::CHLD));
}

fn clone_init_refreshes_the_cached_thread_id(sys: &mut LinuxSys) {
    needs_user_namespaces(sys, "clone_init_refreshes_the_cached_thread_id");
    let Some(tid) = cache(sys) else { return };
    for namespaces in [CloneFlags::EMPTY, CloneFlags::NEWUSER.union(CloneFlags::NEWPID)] {
        let made = init(sys, namespaces, Some(tid), |sys| {
            // The id is that of the child's own pid namespace, and the libc uses it.
            // SAFETY: the calling thread, and signal 0, which only checks the thread.
            cache(sys).is_some_and(|now| now.address == tid.address && now.cached == sys.getpid().0)
                && unsafe { libc::pthread_kill(libc::pthread_self(), 0) } == 0
        });
        assert_eq!(init_status(sys, made.unwrap()), WaitStatus::Exited(0));
    }
    assert_eq!(cache(sys), Some(tid), "the parent's own");
}

fn clone_init_without_the_address_leaves_the_cache(sys: &mut LinuxSys) {
    let Some(tid) = cache(sys) else { return };
    let made = init(sys, CloneFlags::EMPTY, None, |sys| {
        // SAFETY: the address holds the libc's thread id, in this process's copy of the memory.
        let cached = unsafe { (tid.address as *const i32).read_volatile() };
        cached == tid.cached && sys.tid_address() == Ok(TidAddress { address: 0, cached: 0 })
    });
    assert_eq!(init_status(sys, made.unwrap()), WaitStatus::Exited(0));
}

/// None of these may reach clone(2): CLONE_VM would share this process's stack, the number of CLONE_NEWTIME
/// is an exit signal, and CLONE_PARENT makes a sibling.
fn clone_init_refuses_flags_of_no_namespace(sys: &mut LinuxSys) {
    let others = [libc::CLONE_VM, libc::CLONE_PARENT, libc::CLONE_THREAD, libc::SIGCHLD, libc::CLONE_FILES];
    let others = others.into_iter().map(|flag| CloneFlags(flag as u32)).chain([CloneFlags::NEWTIME]);
    for flags in others.flat_map(|flag| [flag, flag.union(CloneFlags::NEWUSER)]) {
        assert_eq!(init(sys, flags, None, |_| false), Err(Errno::EINVAL), "{flags}");
    }
    assert_eq!(sys.wait4(Pid::ANY, WaitFor::Stages), Err(Errno::ECHILD));
}

fn clone_init_without_privilege_is_eperm(sys: &mut LinuxSys) {
    let made = init(sys, CloneFlags::EMPTY, None, |sys| {
        // Root gives up its capabilities with its user id.
        // SAFETY: a query.
        let is_user = unsafe { libc::geteuid() } != 0 || sys.setresuid(65_534) == Ok(());
        is_user
            && KINDS[1..].iter().all(|(kind, _)| init(sys, *kind, None, |_| false) == Err(Errno::EPERM))
            && sys.wait4(Pid::ANY, WaitFor::Stages) == Err(Errno::ECHILD)
    });
    assert_eq!(init_status(sys, made.unwrap()), WaitStatus::Exited(0));
    needs_user_namespaces(sys, "clone_init_without_privilege_is_eperm");
    // In a user namespace without maps: no further user namespace.
    let made = init(sys, CloneFlags::NEWUSER, None, |sys| {
        init(sys, CloneFlags::NEWUSER, None, |_| false) == Err(Errno::EPERM)
    });
    assert_eq!(init_status(sys, made.unwrap()), WaitStatus::Exited(0));
    // A second pid namespace for children.
    let made = init(sys, CloneFlags::NEWUSER, None, |sys| {
        sys.unshare(CloneFlags::NEWPID) == Ok(())
            && init(sys, CloneFlags::NEWPID, None, |_| false) == Err(Errno::EINVAL)
    });
    assert_eq!(init_status(sys, made.unwrap()), WaitStatus::Exited(0));
}

/// The limit of a user namespace in which the caller has all capabilities.
fn clone_init_at_a_limit_is_enospc(sys: &mut LinuxSys) {
    needs_user_namespaces(sys, "clone_init_at_a_limit_is_enospc");
    let made = init(sys, CloneFlags::NEWUSER, None, |sys| {
        let limit = sys.openat(Fd::CWD, c"/proc/sys/user/max_uts_namespaces", OpenFlags::ReadWrite);
        // CAP_SYS_RESOURCE in the user namespace is enough to write its limit; no map is needed.
        let Ok(limit) = limit else { return false };
        sys.write(limit, b"0").is_ok()
            && init(sys, CloneFlags::NEWUTS, None, |_| false) == Err(Errno::ENOSPC)
            && sys.wait4(Pid::ANY, WaitFor::Stages) == Err(Errno::ECHILD)
    });
    assert_eq!(init_status(sys, made.unwrap()), WaitStatus::Exited(0));
}

fn clone_init_without_a_free_descriptor_is_emfile(sys: &mut LinuxSys) {
    let (used, _) = sys.pipe2().unwrap();
    let limit = libc::rlimit { rlim_cur: used.0 as libc::rlim_t, rlim_max: used.0 as libc::rlim_t };
    // SAFETY: a struct that lives through the call.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
    assert_eq!(init(sys, CloneFlags::EMPTY, None, |_| false), Err(Errno::EMFILE));
    assert_eq!(sys.wait4(Pid::ANY, WaitFor::Stages), Err(Errno::ECHILD), "no process is left");
}

/// Makes a child of `clone_child`, which exits with 0 if `child` returns true. Returns its end.
fn stage_1(
    sys: &mut LinuxSys,
    tid: Option<TidAddress>,
    child: impl FnOnce(&mut LinuxSys) -> bool,
) -> WaitStatus {
    match sys.clone_child(tid).unwrap() {
        Fork::Child => end(child(sys)),
        Fork::Parent { child } => init_status(sys, (child, None)),
    }
}

/// A sibling that the child makes has no exit signal either, and is a child of this process.
fn clone_child_has_no_exit_signal_and_no_namespace(sys: &mut LinuxSys) {
    let chld = SignalSet(1 << (libc::SIGCHLD - 1));
    sys.sigprocmask(MaskHow::Block, chld).unwrap();
    let before = namespaces();
    let own = std::process::id();
    let ended = stage_1(sys, None, |sys| {
        // SAFETY: a query.
        let is_child = unsafe { libc::getppid() } == own as i32;
        let sibling = sys.clone_sibling(None);
        if sibling == Ok(Fork::Child) {
            // SAFETY: a query.
            end(unsafe { libc::getppid() } == own as i32);
        }
        is_child && sibling.is_ok() && namespaces() == before
    });
    assert_eq!(ended, WaitStatus::Exited(0));
    assert_eq!(sys.wait4(Pid::ANY, WaitFor::Ordinary), Err(Errno::ECHILD));
    assert_eq!(sys.wait4(Pid::ANY, WaitFor::Stages).unwrap().status, WaitStatus::Exited(0));
    assert_eq!(sys.sigtimedwait(chld), Err(Errno::EAGAIN), "no SIGCHLD was sent");
}

fn clone_child_refreshes_the_cached_thread_id(sys: &mut LinuxSys) {
    let Some(tid) = cache(sys) else { return };
    let ended = stage_1(sys, Some(tid), |sys| {
        cache(sys).is_some_and(|now| now.address == tid.address && now.cached == sys.getpid().0)
    });
    assert_eq!(ended, WaitStatus::Exited(0));
    let ended = stage_1(sys, None, |sys| {
        // SAFETY: the address holds the libc's thread id, in this process's copy of the memory.
        let cached = unsafe { (tid.address as *const i32).read_volatile() };
        cached == tid.cached && sys.tid_address() == Ok(TidAddress { address: 0, cached: 0 })
    });
    assert_eq!(ended, WaitStatus::Exited(0));
    assert_eq!(cache(sys), Some(tid), "the parent's own");
}

fn exec_passes_arguments_and_environment(sys: &mut LinuxSys) {
    let (read, write) = sys.pipe2().unwrap();
    match sys.fork(ExitSignal::Chld, None).unwrap() {
        Fork::Child => {
            // SAFETY: makes the pipe standard output.
            unsafe { libc::dup2(write.0, 1) };
            let mut slots = [const { None }; 8];
            let argv = ExecArgs::build(b"sh\0-c\0echo $0 $# $WHO\0zero\0one\0", &mut slots).unwrap();
            let mut slots = [const { None }; 8];
            let envp = ExecArgs::build(b"WHO=me\0", &mut slots).unwrap();
            sys.execve(c"/bin/sh", &argv, &envp);
            end(false);
        }
        Fork::Parent { child } => {
            let mut buf = [0; 64];
            let count = sys.read(read, &mut buf).unwrap();
            assert_eq!(std::str::from_utf8(&buf[..count]), Ok("zero 1 me\n"));
            assert_eq!(sys.wait4(child, WaitFor::Ordinary).unwrap().status, WaitStatus::Exited(0));
        }
    }
}

fn failed_exec_returns_its_errno(sys: &mut LinuxSys) {
    let none = ExecArgs::EMPTY;
    assert_eq!(sys.execve(c"/nowhere", &none, &none), Errno::ENOENT);
    assert_eq!(sys.execve(c"/proc/self/status", &none, &none), Errno::EACCES);
    assert_eq!(sys.execve(c"/", &none, &none), Errno::EACCES);
}

// -- signals -----------------------------------------------------------------------------------------------

extern "C" fn handler(_: libc::c_int) {}

fn libc_action(signal: Signal) -> (usize, i32, bool) {
    // SAFETY: a query; zeroes are a valid value of the struct.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        assert_eq!(libc::sigaction(signal.0, std::ptr::null(), &mut action), 0);
        (action.sa_sigaction, action.sa_flags, libc::sigismember(&action.sa_mask, libc::SIGUSR1) == 1)
    }
}

fn a_disposition_is_put_back_exactly(sys: &mut LinuxSys) {
    // std ignores SIGPIPE.
    assert_eq!(sys.sigaction(Signal::PIPE, SigAction::DEFAULT).map(|old| old.handler), Ok(1));
    // SAFETY: a handler that does nothing, installed by the libc with its restorer, flags and a mask.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = libc::SA_RESTART | libc::SA_NOCLDSTOP;
        libc::sigaddset(&mut action.sa_mask, libc::SIGUSR1);
        assert_eq!(libc::sigaction(libc::SIGCHLD, &action, std::ptr::null_mut()), 0);
    }
    let before = libc_action(Signal::CHLD);
    let old = sys.sigaction(Signal::CHLD, SigAction::DEFAULT).unwrap();
    assert_eq!((old.handler, old.mask), (handler as *const () as usize, SignalSet(1 << (libc::SIGUSR1 - 1))));
    assert_eq!(sys.sigaction(Signal::CHLD, old), Ok(SigAction::DEFAULT));
    assert_eq!(libc_action(Signal::CHLD), before);
    // The action is equal in all bits, including the restorer; the handler is called and returns.
    assert_eq!(sys.sigaction(Signal::CHLD, old), Ok(old));
    let this = sys.getpid();
    sys.kill(this, Signal::CHLD).unwrap();
}

fn signal_mask_equals_libc(sys: &mut LinuxSys) {
    let old = sys.sigprocmask(MaskHow::Block, SignalSet::PIPE).unwrap();
    // SAFETY: a query; zeroes are a valid value of the struct.
    let blocked = unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        assert_eq!(libc::pthread_sigmask(libc::SIG_SETMASK, std::ptr::null(), &mut set), 0);
        (1..=64).filter(|signal| libc::sigismember(&set, *signal) == 1).collect::<Vec<_>>()
    };
    assert_eq!((old, blocked), (SignalSet::EMPTY, vec![libc::SIGPIPE]));
    assert_eq!(sys.sigprocmask(MaskHow::Set, SignalSet::EMPTY), Ok(SignalSet::PIPE));
    assert_eq!(sys.sigprocmask(MaskHow::Block, SignalSet::EMPTY), Ok(SignalSet::EMPTY));
}

// -- attributes of a process -------------------------------------------------------------------------------

fn prctl_sets_name_dumpable_and_death_signal(sys: &mut LinuxSys) {
    sys.set_name(c"runc:[0:PARENT]").unwrap();
    assert_eq!(std::fs::read_to_string("/proc/self/comm").unwrap(), "runc:[0:PARENT]\n");
    for dumpable in [false, true] {
        sys.set_dumpable(dumpable).unwrap();
        // SAFETY: a query.
        assert_eq!(unsafe { libc::prctl(libc::PR_GET_DUMPABLE) }, i32::from(dumpable));
    }
    sys.set_pdeathsig(Signal::KILL).unwrap();
    let mut signal = 0;
    // SAFETY: the kernel writes one int.
    assert_eq!(unsafe { libc::prctl(libc::PR_GET_PDEATHSIG, &mut signal) }, 0);
    assert_eq!(signal, libc::SIGKILL);
}

fn ids_and_namespaces_are_refused_by_number(sys: &mut LinuxSys) {
    assert_eq!(sys.setuid(u32::MAX), Err(Errno::EINVAL));
    assert_eq!(sys.setgid(u32::MAX), Err(Errno::EINVAL));
    assert_eq!(sys.unshare(CloneFlags::EMPTY), Ok(()));
    assert_eq!(sys.unshare(CloneFlags(1)), Err(Errno::EINVAL));
    assert_eq!(sys.setns(Fd(99), CloneFlags::NEWNET), Err(Errno::EBADF));
    let (pipe, _) = sys.pipe2().unwrap();
    assert_eq!(sys.setns(pipe, CloneFlags::NEWNET), Err(Errno::EINVAL));
    let fork = sys.fork(ExitSignal::Chld, None).unwrap();
    check_child(sys, fork, WaitFor::Ordinary, |sys| {
        // SAFETY: a query.
        sys.setsid() == Ok(())
            && sys.setsid() == Err(Errno::EPERM)
            && unsafe { libc::getsid(0) } == sys.getpid().0
    });
}

/// In a user namespace and a mount namespace of its own.
fn tree_of_mounts_is_built_and_entered(sys: &mut LinuxSys) {
    let fork = sys.fork(ExitSignal::Chld, None).unwrap();
    let Fork::Parent { child } = fork else {
        // SAFETY: queries without arguments.
        let [user, group] = unsafe { [libc::geteuid(), libc::getegid()] };
        if sys.unshare(CloneFlags::NEWUSER.union(CloneFlags::NEWNS)).is_err() {
            // SAFETY: ends the process.
            unsafe { libc::_exit(SKIPPED) }
        }
        // Only a mapped user creates files.
        std::fs::write("/proc/self/setgroups", "deny").unwrap();
        std::fs::write("/proc/self/uid_map", format!("0 {user} 1")).unwrap();
        std::fs::write("/proc/self/gid_map", format!("0 {group} 1")).unwrap();
        build_tree(sys);
        end(true)
    };
    match sys.wait4(child, WaitFor::Ordinary).unwrap().status {
        WaitStatus::Exited(SKIPPED) => skip("tree_of_mounts_is_built_and_entered", "no user namespace"),
        status => assert_eq!(status, WaitStatus::Exited(0)),
    }
}

fn build_tree(sys: &mut LinuxSys) {
    sys.mount(Mount::Propagation(Propagation::Private)).unwrap();
    assert_eq!(sys.open_tree(c"/nowhere", false), Err(Errno::ENOENT));
    assert_eq!(sys.fchdir(Fd(900)), Err(Errno::EBADF));
    // The network namespace belongs to another user namespace.
    assert_eq!(sys.mount(Mount::Sysfs { read_only: false }), Err(Errno::EPERM));
    sys.unshare(CloneFlags::NEWNET).unwrap();
    let options = |sys: &mut LinuxSys, read_only| {
        sys.mount(Mount::Sysfs { read_only }).unwrap();
        let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let line = text.lines().rfind(|line| line.split(' ').nth(4) == Some("/sys")).unwrap();
        line.split(' ').nth(5).unwrap().to_owned()
    };
    assert_eq!(options(sys, true), "ro,nosuid,nodev,noexec,relatime");
    assert_eq!(std::fs::read_dir("/sys/class/net").unwrap().count(), 1);
    let enter = |sys: &mut LinuxSys| {
        let tmp = sys.openat(Fd::CWD, c"/tmp", OpenFlags::Path).unwrap();
        sys.fchdir(tmp).unwrap();
    };
    enter(sys);
    assert_eq!(sys.pivot_root_here(), Err(Errno::EINVAL));
    assert_eq!(sys.detach_here(), Err(Errno::EINVAL));
    assert_eq!(sys.mount_here(MountKind::Tmpfs, c"nsexec=1"), Err(Errno::EINVAL));
    sys.mount_here(MountKind::Tmpfs, c"mode=755,size=65536").unwrap();
    enter(sys);
    sys.mkdirat(Fd::CWD, c"a", 0o750).unwrap();
    sys.mkdirat(Fd::CWD, c"b", 0o755).unwrap();
    assert_eq!(sys.mkdirat(Fd::CWD, c"a", 0o755), Err(Errno::EEXIST));
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata("a").unwrap().permissions()) & 0o777,
        0o750
    );
    sys.symlinkat(c"/a", Fd::CWD, c"link").unwrap();
    assert_eq!(std::fs::read_link("link").unwrap().to_str(), Some("/a"));
    let root = sys.openat(Fd::CWD, c".", OpenFlags::Path).unwrap();
    // The link is absolute, and leads to the directory below the root of the open.
    let a = sys.open_in_root(root, c"../link", OpenFlags::Directory).unwrap();
    assert_eq!(fd_flags(a), libc::FD_CLOEXEC);
    assert_eq!(sys.open_in_root(root, c"/none", OpenFlags::Path), Err(Errno::ENOENT));
    let copy = sys.open_tree(c"b", true).unwrap();
    assert_eq!(fd_flags(copy), libc::FD_CLOEXEC);
    let read_only = MountAttributes { set: MountAttributes::RDONLY, clear: MountAttributes::NOSUID };
    sys.set_mount_attributes(copy, true, read_only).unwrap();
    assert_eq!(sys.set_mount_attributes(a, false, read_only), Err(Errno::EINVAL));
    assert_eq!(sys.move_mount(a, copy), Err(Errno::EINVAL));
    sys.move_mount(copy, a).unwrap();
    assert_eq!(sys.mkdirat(Fd::CWD, c"a/new", 0o755), Err(Errno::EROFS));
    assert_eq!(sys.symlinkat(c"x", Fd::CWD, c"a/new"), Err(Errno::EROFS));
    sys.pivot_root_here().unwrap();
    sys.detach_here().unwrap();
    assert_eq!(sys.openat(Fd::CWD, c"/etc", OpenFlags::Path), Err(Errno::ENOENT));
    sys.fchdir(copy).unwrap();
    sys.chroot_here().unwrap();
    assert_eq!(sys.openat(Fd::CWD, c"/link", OpenFlags::Path), Err(Errno::ENOENT));
}

fn affinity_equals_libc(sys: &mut LinuxSys) {
    // SAFETY: a query; zeroes are a valid value of the struct.
    let expected = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        assert_eq!(libc::sched_getaffinity(0, size_of_val(&set), &mut set), 0);
        (0..64).filter(|cpu| libc::CPU_ISSET(*cpu, &set)).fold(0, |mask, cpu| mask | 1 << cpu)
    };
    assert_eq!(sys.sched_getaffinity(), Ok(expected));
}

/// The libc's wrappers would wait here for threads that the child lacks. Our calls do not.
fn a_threaded_program_forks_without_hanging(sys: &mut LinuxSys) {
    let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(std::thread::park)).collect();
    let tid = cache(sys);
    let fork = sys.fork(ExitSignal::None, tid).unwrap();
    check_child(sys, fork, WaitFor::Stages, |sys| {
        // SAFETY: queries.
        let (uid, gid) = unsafe { (libc::getuid(), libc::getgid()) };
        sys.setgid(gid) == Ok(()) && sys.setuid(uid) == Ok(()) && sys.setresuid(uid) == Ok(())
    });
    for thread in threads {
        thread.thread().unpark();
        thread.join().unwrap();
    }
}

/// Runs this program again as a program that starts a thread before it calls `init`.
fn init_refuses_a_process_with_two_threads(_: &mut LinuxSys) {
    const INIT_PIPE: &str = "_LIBCONTAINER_INITPIPE";
    if std::env::var_os(INIT_PIPE).is_some() {
        std::thread::spawn(|| std::thread::sleep(LIMIT));
        let _ = nsexec::init();
        unreachable!("it ends the process");
    }
    let output = Command::new(std::env::current_exe().unwrap()).env(INIT_PIPE, "0").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(text, "FATAL: the process has 2 threads: call the bootstrap before any is started\n");
}

// -- the width of arguments --------------------------------------------------------------------------------

/// How one argument of a system call must fill its register.
#[derive(Clone, Copy, Debug)]
enum Width {
    /// A pointer, a length, an `unsigned long`: all 64 bits.
    Whole,
    /// An `int`: sign-extended.
    Signed,
    /// An `unsigned int`: zero-extended.
    Unsigned,
}

use Width::{Signed, Unsigned, Whole};

/// A call of `LinuxSys`, its system call, the widths of its arguments, and its error. The other registers are
/// 0.
type Probe = (&'static str, libc::c_long, &'static [Width], fn(&mut LinuxSys) -> Errno);

#[cfg(target_arch = "x86_64")]
const POLL: (libc::c_long, &[Width]) = (libc::SYS_poll, &[Whole, Whole, Signed]);
#[cfg(not(target_arch = "x86_64"))]
const POLL: (libc::c_long, &[Width]) = (libc::SYS_ppoll, &[Whole, Whole, Whole, Whole, Whole]);

const PROBES: &[Probe] = &[
    ("openat", libc::SYS_openat, &[Signed, Whole, Signed, Signed], |sys| {
        sys.openat(Fd::CWD, c"/nowhere", OpenFlags::ReadOnly).unwrap_err()
    }),
    ("close", libc::SYS_close, &[Signed], |sys| sys.close(Fd(-9)).unwrap_err()),
    ("read", libc::SYS_read, &[Signed, Whole, Whole], |sys| sys.read(Fd(-9), &mut [0]).unwrap_err()),
    ("write", libc::SYS_write, &[Signed, Whole, Whole], |sys| sys.write(Fd(-9), b"x").unwrap_err()),
    ("write_nowait", libc::SYS_pwritev2, &[Signed, Whole, Whole, Whole, Whole, Signed], |sys| {
        sys.write_nowait(Fd(-9), b"x").unwrap_err()
    }),
    ("send", libc::SYS_sendto, &[Signed, Whole, Whole, Signed, Whole, Signed], |sys| {
        sys.send(Fd(-9), b"x").unwrap_err()
    }),
    #[cfg(feature = "legacy")]
    ("send_fd", libc::SYS_sendmsg, &[Signed, Whole, Signed], |sys| sys.send_fd(Fd(-9), Fd(0)).unwrap_err()),
    #[cfg(feature = "legacy")]
    ("receive_fd", libc::SYS_recvmsg, &[Signed, Whole, Signed], |sys| sys.receive_fd(Fd(-9)).unwrap_err()),
    #[cfg(feature = "legacy")]
    ("dup3", libc::SYS_dup3, &[Signed, Signed, Signed], |sys| sys.dup3(Fd(-9), Fd(-8)).unwrap_err()),
    ("poll", POLL.0, POLL.1, |sys| sys.poll(&mut [], -1).unwrap_err()),
    ("fstatfs", libc::SYS_fstatfs, &[Signed, Whole], |sys| sys.fstatfs(Fd(-9)).unwrap_err()),
    ("link_count", libc::SYS_newfstatat, &[Signed, Whole, Whole, Signed], |sys| {
        sys.link_count(c"/nowhere").unwrap_err()
    }),
    ("readlink", libc::SYS_readlinkat, &[Signed, Whole, Whole, Whole], |sys| {
        sys.readlink(c"/nowhere", &mut [0]).unwrap_err()
    }),
    ("socketpair", libc::SYS_socketpair, &[Signed, Signed, Signed, Whole], |sys| {
        sys.socketpair().unwrap_err()
    }),
    ("pipe2", libc::SYS_pipe2, &[Whole, Signed], |sys| sys.pipe2().unwrap_err()),
    ("close_range_cloexec", libc::SYS_close_range, &[Signed, Unsigned, Unsigned], |sys| {
        sys.close_range_cloexec(Fd(3)).unwrap_err()
    }),
    ("close_range", libc::SYS_close_range, &[Unsigned, Unsigned, Signed], |sys| {
        sys.close_range(9, 8).unwrap_err()
    }),
    ("getdents64", libc::SYS_getdents64, &[Signed, Whole, Unsigned], |sys| {
        sys.getdents64(Fd(-9), &mut [0]).unwrap_err()
    }),
    ("set_cloexec", libc::SYS_fcntl, &[Signed, Signed, Whole], |sys| {
        sys.set_cloexec(Fd(-9), true).unwrap_err()
    }),
    ("get_seals", libc::SYS_fcntl, &[Signed, Signed], |sys| sys.get_seals(Fd(-9)).unwrap_err()),
    ("add_seals", libc::SYS_fcntl, &[Signed, Signed, Whole], |sys| {
        sys.add_seals(Fd(-9), Seals::CONTENT).unwrap_err()
    }),
    ("memfd_create", libc::SYS_memfd_create, &[Whole, Unsigned], |sys| {
        sys.memfd_create(c"none", true).unwrap_err()
    }),
    ("sendfile", libc::SYS_sendfile, &[Signed, Signed, Whole, Whole], |sys| {
        sys.sendfile(Fd(-9), Fd(-9), 1).unwrap_err()
    }),
    ("fchmod", libc::SYS_fchmod, &[Signed, Unsigned], |sys| sys.fchmod(Fd(-9), u32::MAX).unwrap_err()),
    ("unlink", libc::SYS_unlinkat, &[Signed, Whole, Signed], |sys| sys.unlink(c"/nowhere").unwrap_err()),
    ("is_read_only", libc::SYS_statfs, &[Whole, Whole], |sys| sys.is_read_only(c"/nowhere").unwrap_err()),
    ("execveat", libc::SYS_execveat, &[Signed, Whole, Whole, Whole, Signed], |sys| {
        sys.execveat(Fd(-9), &ExecArgs::EMPTY, &ExecArgs::EMPTY)
    }),
    ("execve", libc::SYS_execve, &[Whole, Whole, Whole], |sys| {
        sys.execve(c"/nowhere", &ExecArgs::EMPTY, &ExecArgs::EMPTY)
    }),
    ("fork", libc::SYS_clone, &[Whole, Whole, Whole, Whole, Whole], |sys| {
        sys.fork(ExitSignal::Chld, None).unwrap_err()
    }),
    ("clone_sibling", libc::SYS_clone, &[Whole, Whole, Whole, Whole, Whole], |sys| {
        sys.clone_sibling(None).unwrap_err()
    }),
    ("clone_init", libc::SYS_clone, &[Whole, Whole, Whole, Whole, Whole], |sys| {
        sys.clone_init(CloneFlags::NEWUSER, None, None).unwrap_err()
    }),
    ("clone_child", libc::SYS_clone, &[Whole, Whole, Whole, Whole, Whole], |sys| {
        sys.clone_child(None).unwrap_err()
    }),
    ("wait4", libc::SYS_wait4, &[Signed, Whole, Signed, Whole], |sys| {
        sys.wait4(Pid::ANY, WaitFor::Stages).unwrap_err()
    }),
    // A pid has 22 bits at most, so no process and no process group has this number.
    ("kill", libc::SYS_kill, &[Signed, Signed], |sys| sys.kill(Pid(-0x7fff_fff0), Signal(0)).unwrap_err()),
    ("pidfd_open", libc::SYS_pidfd_open, &[Signed, Unsigned], |sys| sys.pidfd_open(Pid(-1)).unwrap_err()),
    ("tid_address", libc::SYS_prctl, &[Signed, Whole], |sys| sys.tid_address().unwrap_err()),
    ("setns", libc::SYS_setns, &[Signed, Signed], |sys| sys.setns(Fd(-9), CloneFlags::NEWNET).unwrap_err()),
    ("unshare", libc::SYS_unshare, &[Whole], |sys| sys.unshare(CloneFlags::EMPTY).unwrap_err()),
    ("set_dumpable", libc::SYS_prctl, &[Signed, Whole], |sys| sys.set_dumpable(true).unwrap_err()),
    ("set_name", libc::SYS_prctl, &[Signed, Whole], |sys| sys.set_name(c"name").unwrap_err()),
    ("set_pdeathsig", libc::SYS_prctl, &[Signed, Whole], |sys| sys.set_pdeathsig(Signal(0)).unwrap_err()),
    ("setsid", libc::SYS_setsid, &[], |sys| sys.setsid().unwrap_err()),
    ("setresuid", libc::SYS_setresuid, &[Unsigned, Unsigned, Unsigned], |sys| {
        sys.setresuid(u32::MAX).unwrap_err()
    }),
    ("setuid", libc::SYS_setuid, &[Unsigned], |sys| sys.setuid(u32::MAX).unwrap_err()),
    ("setgid", libc::SYS_setgid, &[Unsigned], |sys| sys.setgid(u32::MAX).unwrap_err()),
    ("drop_groups", libc::SYS_setgroups, &[Signed, Whole], |sys| sys.drop_groups().unwrap_err()),
    ("set_groups", libc::SYS_setgroups, &[Whole, Whole], |sys| sys.set_groups(&[1]).unwrap_err()),
    ("dup_to", libc::SYS_dup3, &[Signed, Signed, Signed], |sys| sys.dup_to(Fd(-9), Fd(-8)).unwrap_err()),
    ("dup_above", libc::SYS_fcntl, &[Signed, Signed, Whole], |sys| {
        sys.dup_above(Fd(-9), Fd(-8)).unwrap_err()
    }),
    ("chdir", libc::SYS_chdir, &[Whole], |sys| sys.chdir(c"/").unwrap_err()),
    ("umask", libc::SYS_umask, &[Unsigned], |sys| sys.umask(0o22).unwrap_err()),
    ("set_hostname", libc::SYS_sethostname, &[Whole, Whole], |sys| sys.set_hostname(b"").unwrap_err()),
    ("set_limit", libc::SYS_prlimit64, &[Signed, Unsigned, Whole, Whole], |sys| {
        sys.set_limit(Limit { resource: Resource(u32::MAX), soft: 1, hard: 0 }).unwrap_err()
    }),
    ("keep_capabilities", libc::SYS_prctl, &[Signed, Whole], |sys| sys.keep_capabilities(true).unwrap_err()),
    ("drop_bounding", libc::SYS_prctl, &[Signed, Unsigned], |sys| {
        sys.drop_bounding(Capability(u32::MAX)).unwrap_err()
    }),
    ("set_capabilities", libc::SYS_capset, &[Whole, Whole], |sys| {
        sys.set_capabilities(CapabilitySets::default()).unwrap_err()
    }),
    ("raise_ambient", libc::SYS_prctl, &[Signed, Signed, Unsigned], |sys| {
        sys.raise_ambient(Capability(u32::MAX)).unwrap_err()
    }),
    ("set_no_new_privs", libc::SYS_prctl, &[Signed, Whole], |sys| sys.set_no_new_privs().unwrap_err()),
    ("set_seccomp_filter", libc::SYS_seccomp, &[Unsigned, Signed, Whole], |sys| {
        sys.set_seccomp_filter(&[]).unwrap_err()
    }),
    ("landlock_restrict_self", libc::SYS_landlock_restrict_self, &[Signed, Signed], |sys| {
        sys.landlock_restrict_self(Fd(-9)).unwrap_err()
    }),
    ("set_controlling_terminal", libc::SYS_ioctl, &[Signed, Whole, Whole], |sys| {
        sys.set_controlling_terminal(Fd(-9)).unwrap_err()
    }),
    ("new_session_keyring", libc::SYS_keyctl, &[Signed, Whole], |sys| sys.new_session_keyring().unwrap_err()),
    ("inet_socket", libc::SYS_socket, &[Signed, Signed, Signed], |sys| sys.inet_socket().unwrap_err()),
    ("set_loopback_up", libc::SYS_ioctl, &[Signed, Whole, Whole], |sys| {
        sys.set_loopback_up(Fd(-9)).unwrap_err()
    }),
    ("sched_getaffinity", libc::SYS_sched_getaffinity, &[Signed, Unsigned, Whole], |sys| {
        sys.sched_getaffinity().unwrap_err()
    }),
    ("mount", libc::SYS_mount, &[Whole, Whole, Whole, Whole, Whole], |sys| {
        sys.mount(Mount::Propagation(Propagation::Private)).unwrap_err()
    }),
    ("fchdir", libc::SYS_fchdir, &[Signed], |sys| sys.fchdir(Fd(-9)).unwrap_err()),
    ("open_tree", libc::SYS_open_tree, &[Signed, Whole, Unsigned], |sys| {
        sys.open_tree(c"/nowhere", true).unwrap_err()
    }),
    ("move_mount", libc::SYS_move_mount, &[Signed, Whole, Signed, Whole, Unsigned], |sys| {
        sys.move_mount(Fd(-9), Fd(-9)).unwrap_err()
    }),
    ("set_mount_attributes", libc::SYS_mount_setattr, &[Signed, Whole, Unsigned, Whole, Whole], |sys| {
        sys.set_mount_attributes(Fd(-9), true, MountAttributes::default()).unwrap_err()
    }),
    ("mount_here", libc::SYS_mount, &[Whole, Whole, Whole, Whole, Whole], |sys| {
        sys.mount_here(MountKind::Tmpfs, c"").unwrap_err()
    }),
    ("open_in_root", libc::SYS_openat2, &[Signed, Whole, Whole, Whole], |sys| {
        sys.open_in_root(Fd(-9), c"/nowhere", OpenFlags::Path).unwrap_err()
    }),
    ("mkdirat", libc::SYS_mkdirat, &[Signed, Whole, Unsigned], |sys| {
        sys.mkdirat(Fd(-9), c"none", u32::MAX).unwrap_err()
    }),
    ("symlinkat", libc::SYS_symlinkat, &[Whole, Signed, Whole], |sys| {
        sys.symlinkat(c"none", Fd(-9), c"none").unwrap_err()
    }),
    ("pivot_root_here", libc::SYS_pivot_root, &[Whole, Whole], |sys| sys.pivot_root_here().unwrap_err()),
    ("detach_here", libc::SYS_umount2, &[Whole, Signed], |sys| sys.detach_here().unwrap_err()),
    ("chroot_here", libc::SYS_chroot, &[Whole], |sys| sys.chroot_here().unwrap_err()),
    ("sigprocmask", libc::SYS_rt_sigprocmask, &[Signed, Whole, Whole, Whole], |sys| {
        sys.sigprocmask(MaskHow::Block, SignalSet::EMPTY).unwrap_err()
    }),
    ("sigaction", libc::SYS_rt_sigaction, &[Signed, Whole, Whole, Whole], |sys| {
        sys.sigaction(Signal::CHLD, SigAction::DEFAULT).unwrap_err()
    }),
    ("wait_signal", libc::SYS_rt_sigtimedwait, &[Whole, Whole, Whole, Whole], |sys| {
        sys.wait_signal(SignalSet::PIPE).unwrap_err()
    }),
    ("sigtimedwait", libc::SYS_rt_sigtimedwait, &[Whole, Whole, Whole, Whole], |sys| {
        sys.sigtimedwait(SignalSet::PIPE).unwrap_err()
    }),
];

/// The errno that the filter returns if every register is right. Each higher errno names a wrong register.
const RIGHT: u32 = 900;

/// Returns a seccomp filter (seccomp(2)) that blocks one system call, and returns how its registers were
/// filled.
fn filter(number: libc::c_long, widths: &[Width]) -> Vec<libc::sock_filter> {
    let step = |code: u16, k: u32, jt: u8, jf: u8| libc::sock_filter { code, jt, jf, k };
    let load = |offset: usize| step(0x20, u32::try_from(offset).unwrap(), 0, 0);
    let is = |k: u32, jt: u8, jf: u8| step(0x15, k, jt, jf);
    let is_negative = |jt: u8, jf: u8| step(0x35, 1 << 31, jt, jf);
    let answer = |errno: u32| step(0x06, 0x0005_0000 | errno, 0, 0);
    let allow = step(0x06, 0x7fff_0000, 0, 0);
    let mut program = vec![load(0), is(u32::try_from(number).unwrap(), 1, 0), allow];
    for (register, bad) in (0..6).zip(RIGHT + 1..).map(|(register, errno)| (register, answer(errno))) {
        let (low, high) = (load(16 + 8 * register), load(16 + 8 * register + 4));
        match widths.get(register) {
            Some(Whole) => {}
            Some(Unsigned) => program.extend([high, is(0, 1, 0), bad]),
            Some(Signed) => {
                program.extend([high, is(u32::MAX, 2, 0), is(0, 3, 0), bad]);
                program.extend([low, is_negative(3, 2), low, is_negative(0, 1), bad]);
            }
            None => program.extend([low, is(0, 1, 0), bad, high, is(0, 1, 0), bad]),
        }
    }
    program.push(answer(RIGHT));
    program
}

/// Fills the stack below the caller: a register half that a call leaves undefined is then wrong, and not 0 by
/// chance.
#[inline(never)]
fn fill_the_stack() {
    std::hint::black_box(&mut [0xa5_u8; 1 << 14]);
}

/// Runs this call under the filter in a child. Returns 0 if all registers are right, or the number of a wrong
/// one, from 1.
fn wrong_register(
    sys: &mut LinuxSys,
    number: libc::c_long,
    widths: &[Width],
    call: fn(&mut LinuxSys) -> Errno,
) -> i32 {
    let mut program = filter(number, widths);
    let program =
        libc::sock_fprog { len: u16::try_from(program.len()).unwrap(), filter: program.as_mut_ptr() };
    match sys.fork(ExitSignal::Chld, None).unwrap() {
        Fork::Child => {
            // SAFETY: numbers, and a program that lives through the call.
            let installed = unsafe {
                libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                    && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
            };
            let answer = if installed {
                fill_the_stack();
                call(sys).0 - i32::try_from(RIGHT).unwrap()
            } else {
                100
            };
            // SAFETY: ends the process.
            unsafe { libc::_exit(answer.clamp(0, 99 + i32::from(!installed))) }
        }
        Fork::Parent { child } => match sys.wait4(child, WaitFor::Ordinary).unwrap().status {
            WaitStatus::Exited(status) => status,
            other => panic!("{other:?}"),
        },
    }
}

/// A seccomp filter sees 64 bits of every register, also of an `int` and of unused registers.
fn every_argument_fills_its_register(sys: &mut LinuxSys) {
    for (name, number, widths, call) in PROBES {
        let answer = wrong_register(sys, *number, widths, *call);
        assert_eq!(
            answer, 0,
            "{name}: 1 to 6 is the register that is not filled, 100 that there is no seccomp"
        );
    }
    // The filter detects faults: a descriptor with one bit too many, and an argument that close lacks.
    let beyond_32_bits = |_: &mut LinuxSys| bare_close(1 << 40 | 900, 0);
    let not_an_argument = |_: &mut LinuxSys| bare_close(900, 7);
    assert_eq!(wrong_register(sys, libc::SYS_close, &[Signed], beyond_32_bits), 1);
    assert_eq!(wrong_register(sys, libc::SYS_close, &[Signed], not_an_argument), 2);
}

/// Calls close(2) with these registers.
fn bare_close(descriptor: libc::c_long, beyond: libc::c_long) -> Errno {
    let none: libc::c_long = 0;
    // SAFETY: no descriptor has this number, and the filter blocks the call.
    unsafe { libc::syscall(libc::SYS_close, descriptor, beyond, none, none, none, none) };
    Errno(std::io::Error::last_os_error().raw_os_error().unwrap())
}
