//! The lies that the tests plant, each with the expected difference.

use nsexec::sys::Sys;
use nsexec::sys::linux::LinuxSys;
use nsexec::sys::types::*;
use nsexec_audit::record::{Call, Reply};

/// The fault of the backend.
#[derive(Clone, Copy)]
pub(crate) enum Lie {
    /// No fault.
    None,
    /// Makes another call than the requested one.
    ChangesCall(fn(&mut Call)),
    /// Returns another reply than the kernel's.
    ChangesReply(fn(&Call, &mut Reply)),
    /// Makes another call of the kernel instead, and returns a reply that fits the requested one.
    ReplacesCall(fn(&mut LinuxSys, &Call) -> Option<Reply>),
    /// Returns a reply without making the call.
    SkipsCall(fn(&Call) -> Option<Reply>),
    /// After such a call, makes one more call.
    AddsCall(fn(&Call) -> bool, fn(&mut LinuxSys)),
}

/// The calls in which the fault occurs.
#[derive(Clone, Copy)]
pub(crate) enum Run {
    /// Calls made one by one.
    EachCall,
    /// The launch of a command, without namespaces.
    Launch,
    /// The launch of a command into a user namespace with one id.
    LaunchIntoUser,
    /// The launch of a command through the stages.
    LaunchThroughStages,
}

/// One lie, and the difference that it must cause.
pub(crate) struct Planted {
    pub(crate) name: &'static str,
    pub(crate) way: Run,
    pub(crate) lie: Lie,
    /// The call that must differ. `None`: no call may differ.
    pub(crate) call: Option<&'static str>,
    /// A text that the difference must contain.
    pub(crate) says: &'static str,
    /// The difference is visible in registers, without reading memory.
    pub(crate) in_registers: bool,
}

const fn planted(name: &'static str, call: &'static str, lie: Lie) -> Planted {
    Planted { name, way: Run::EachCall, lie, call: Some(call), says: "", in_registers: true }
}

/// Returns a lie that is visible in memory only: in strings, structures or arrays.
const fn in_memory(name: &'static str, call: &'static str, lie: Lie) -> Planted {
    Planted { in_registers: false, ..planted(name, call, lie) }
}

const fn of_environment(name: &'static str, says: &'static str, lie: Lie) -> Planted {
    Planted { says, ..in_memory(name, "execve(", lie) }
}

const fn in_a_launch(planted: Planted) -> Planted {
    Planted { way: Run::Launch, ..planted }
}

const fn in_a_launch_into_user(planted: Planted) -> Planted {
    Planted { way: Run::LaunchIntoUser, ..planted }
}

const fn in_a_launch_through_stages(planted: Planted) -> Planted {
    Planted { way: Run::LaunchThroughStages, ..planted }
}

/// Changes the calls of one form: `changes_call!(Call::Close { fd } => *fd = Fd(9))`.
macro_rules! changes_call {
    ($form:pat $(if $guard:expr)? => $change:expr) => {
        Lie::ChangesCall(|call| match call {
            $form $(if $guard)? => {
                $change;
            }
            _ => {}
        })
    };
}

macro_rules! changes_reply {
    ($call:pat, $form:pat => $change:expr) => {
        Lie::ChangesReply(|call, reply| {
            if let ($call, $form) = (call, reply) {
                $change;
            }
        })
    };
}

const NOTHING: Planted = Planted { call: None, ..planted("no_lie", "", Lie::None) };

/// The offset of the field after the thread id in glibc's thread structure, which glibc does not use. Other C
/// libraries have no cached thread id.
const BESIDE: usize = 4;

/// Clones without `CLONE_PIDFD`, and opens the pidfd afterwards.
fn without_pidfd(sys: &mut LinuxSys, call: &Call) -> Option<Reply> {
    let Call::CloneInit { tid, .. } = call else { return None };
    Some(match sys.fork(ExitSignal::None, *tid) {
        Ok(Fork::Child) => Reply::Child,
        Ok(Fork::Parent { child }) => Reply::ParentOfInit { pid: child, pidfd: sys.pidfd_open(child).ok() },
        Err(errno) => Reply::Errno(errno),
    })
}

/// Clones stage 1 as a fork does, without `CLONE_PARENT_SETTID`.
fn stage_1_as_a_fork(sys: &mut LinuxSys, call: &Call) -> Option<Reply> {
    let Call::CloneChild { tid } = call else { return None };
    Some(match sys.fork(ExitSignal::None, *tid) {
        Ok(Fork::Child) => Reply::Child,
        Ok(Fork::Parent { child }) => Reply::Parent(child),
        Err(errno) => Reply::Errno(errno),
    })
}

pub(crate) const LIES: &[Planted] = &[
    NOTHING,
    in_a_launch(Planted { name: "no_lie_in_a_launch", ..NOTHING }),
    in_a_launch_into_user(Planted { name: "no_lie_in_a_launch_into_user", ..NOTHING }),
    in_a_launch_through_stages(Planted { name: "no_lie_in_a_launch_through_stages", ..NOTHING }),
    // -- a whole launch --
    in_a_launch(in_memory(
        "launch_polls_another_descriptor",
        "poll(",
        changes_call!(Call::Poll { fds, .. } => if let [_, second] = &mut fds[..] { second.fd = Fd(-5) }),
    )),
    in_a_launch(planted(
        "launch_clones_with_another_tidptr",
        "clone(",
        changes_call!(Call::CloneInit { tid: Some(tid), .. } => tid.address += BESIDE),
    )),
    in_a_launch(planted(
        "launch_clones_without_tidptr",
        "clone(",
        changes_call!(Call::CloneInit { tid, .. } => *tid = None),
    )),
    in_a_launch(planted("launch_clones_without_a_pidfd", "clone(", Lie::ReplacesCall(without_pidfd))),
    in_a_launch(planted(
        "launch_clones_into_one_more_namespace",
        "clone(",
        changes_call!(Call::CloneInit { namespaces, .. } => *namespaces = CloneFlags::NEWUSER),
    )),
    in_a_launch_into_user(planted(
        "launch_leaves_a_namespace_out",
        "clone(",
        changes_call!(Call::CloneInit { namespaces, .. } => *namespaces = CloneFlags::EMPTY),
    )),
    in_a_launch_into_user(planted(
        "launch_adds_a_namespace",
        "clone(",
        changes_call!(Call::CloneInit { namespaces, .. } => *namespaces = namespaces.union(CloneFlags::NEWUTS)),
    )),
    in_a_launch_into_user(in_memory(
        "launch_writes_another_map",
        "write(",
        changes_call!(Call::Write { data, .. } if data.0.starts_with(b"0 ") => data.0[0] = b'1'),
    )),
    in_a_launch_through_stages(planted(
        "stages_are_cloned_with_another_tidptr",
        "clone(",
        changes_call!(Call::Fork { tid: Some(tid), .. } | Call::CloneSibling { tid: Some(tid) } => tid.address += BESIDE),
    )),
    in_a_launch_through_stages(planted(
        "stages_are_cloned_without_tidptr",
        "clone(",
        changes_call!(Call::Fork { tid, .. } | Call::CloneSibling { tid } => *tid = None),
    )),
    in_a_launch(of_environment(
        "launch_preloads_a_library",
        "LD_PRELOAD is only in the second",
        changes_call!(Call::Execve { envp, .. } => envp.push(b"LD_PRELOAD=/nsexec/lie.so".as_slice().into())),
    )),
    in_a_launch(in_memory(
        "launch_runs_with_another_argument",
        "execve(",
        changes_call!(Call::Execve { argv, .. } => argv[1] = b"102".as_slice().into()),
    )),
    in_a_launch(in_memory(
        "launch_sends_another_go_byte",
        "sendto(",
        changes_call!(Call::Send { data, .. } => data.0[0] ^= 1),
    )),
    in_a_launch_through_stages(in_memory(
        "launch_sends_another_message",
        "sendto(",
        changes_call!(Call::Send { data, .. } if data.0.len() > 4 => *data.0.last_mut().unwrap() ^= 1),
    )),
    // -- descriptors --
    in_memory(
        "poll_of_another_descriptor",
        "poll(",
        changes_call!(Call::Poll { fds, timeout_ms: 0 } => fds[0].fd = Fd(0)),
    ),
    in_memory(
        "poll_for_another_event",
        "poll(",
        changes_call!(Call::Poll { fds, timeout_ms: 0 } => fds[0].events = PollEvents::OUT),
    ),
    planted(
        "poll_with_another_time",
        "poll(",
        changes_call!(Call::Poll { timeout_ms: timeout @ 0, .. } => *timeout = 1),
    ),
    in_memory(
        "poll_found_something_else",
        "poll(",
        changes_reply!(Call::Poll { .. }, Reply::Polled { fds, .. } => fds[0].revents.0 ^= 0x10),
    ),
    planted("dup3_to_another_number", "dup3(", changes_call!(Call::Dup3 { number, .. } => *number = Fd(41))),
    planted("dup3_of_another_descriptor", "dup3(", changes_call!(Call::Dup3 { fd, .. } => *fd = Fd(0))),
    planted("close_of_another_descriptor", "close(", changes_call!(Call::Close { fd } => *fd = Fd(900))),
    planted(
        "close_that_is_not_made",
        "close(",
        Lie::SkipsCall(|call| matches!(call, Call::Close { .. }).then_some(Reply::Unit)),
    ),
    planted(
        "close_that_is_made_twice",
        "close(",
        Lie::AddsCall(
            |call| matches!(call, Call::Close { .. }),
            |sys| {
                let _ = sys.close(Fd(900));
            },
        ),
    ),
    planted("fstatfs_of_another_file", "fstatfs(", changes_call!(Call::Fstatfs { fd } => *fd = Fd(0))),
    in_memory(
        "fstatfs_found_something_else",
        "fstatfs(",
        changes_reply!(Call::Fstatfs { .. }, Reply::FsType(kind) => *kind = FsType::PROC),
    ),
    planted("setns_of_another_descriptor", "setns(", changes_call!(Call::Setns { fd, .. } => *fd = Fd(0))),
    planted(
        "setns_of_another_kind",
        "setns(",
        changes_call!(Call::Setns { kind, .. } => *kind = CloneFlags::NEWNET),
    ),
    planted(
        "setns_that_is_not_made",
        "setns(",
        Lie::SkipsCall(|call| matches!(call, Call::Setns { .. }).then_some(Reply::Unit)),
    ),
    planted(
        "setns_that_failed",
        "setns(",
        Lie::ChangesReply(|call, reply| {
            if let Call::Setns { .. } = call {
                *reply = match reply {
                    Reply::Unit => Reply::Errno(Errno::EPERM),
                    _ => Reply::Unit,
                }
            }
        }),
    ),
    in_memory(
        "open_of_another_file",
        "openat(",
        changes_call!(Call::Openat { path, flags: OpenFlags::Namespace, .. } => *path = b"/proc/self/ns/net".as_slice().into()),
    ),
    planted(
        "open_with_other_flags",
        "openat(",
        changes_call!(Call::Openat { flags: flags @ OpenFlags::Namespace, .. } => *flags = OpenFlags::ReadOnly),
    ),
    in_memory(
        "pair_the_other_way_around",
        "socketpair(",
        changes_reply!(Call::Socketpair, Reply::Pair(one, other) => core::mem::swap(one, other)),
    ),
    planted(
        "rights_sent_over_another_socket",
        "sendmsg(",
        changes_call!(Call::SendFd { socket, .. } => *socket = Fd(0)),
    ),
    in_memory(
        "rights_of_another_descriptor",
        "sendmsg(",
        changes_call!(Call::SendFd { fd, .. } => *fd = Fd(0)),
    ),
    planted(
        "set_cloexec_of_another_descriptor",
        "fcntl(",
        changes_call!(Call::SetCloexec { fd, .. } => *fd = Fd(0)),
    ),
    planted(
        "close_range_from_another_descriptor",
        "close_range(",
        changes_call!(Call::CloseRangeCloexec { first } => *first = Fd(901)),
    ),
    planted(
        "close_of_another_range",
        "close_range(",
        changes_call!(Call::CloseRange { last, .. } => *last = 961),
    ),
    planted(
        "seals_that_are_others",
        "fcntl(",
        changes_call!(Call::AddSeals { seals, .. } => *seals = Seals::CONTENT),
    ),
    planted("mode_that_is_another", "fchmod(", changes_call!(Call::Fchmod { mode, .. } => *mode = 0o700)),
    planted("sendfile_of_another_length", "sendfile(", changes_call!(Call::Sendfile { len, .. } => *len = 2)),
    in_memory(
        "memfd_of_another_name",
        "memfd_create(",
        changes_call!(Call::MemfdCreate { name, .. } => name.0.push(b'x')),
    ),
    // -- data --
    in_memory("write_of_other_bytes", "write(", changes_call!(Call::Write { data, .. } => data.0[0] = b'W')),
    planted("write_of_more_bytes", "write(", changes_call!(Call::Write { data, .. } => data.0.push(b'!'))),
    planted("write_to_another_descriptor", "write(", changes_call!(Call::Write { fd, .. } => *fd = Fd(900))),
    planted(
        "log_write_to_another_descriptor",
        "pwritev2(",
        changes_call!(Call::WriteNowait { fd, .. } => *fd = Fd(900)),
    ),
    planted(
        "write_that_took_less",
        "write(",
        changes_reply!(Call::Write { .. }, Reply::Count(count) => *count -= 1),
    ),
    in_memory(
        "read_of_other_bytes",
        "read(",
        changes_reply!(Call::Read { .. }, Reply::Data(data) => if let Some(first) = data.0.first_mut() { *first ^= 1 }),
    ),
    planted("read_of_less_room", "read(", changes_call!(Call::Read { len: len @ 64, .. } => *len = 63)),
    in_memory(
        "directory_with_another_entry",
        "getdents64(",
        changes_reply!(Call::Getdents64 { .. }, Reply::Data(data) => data.0[19] = b'x'),
    ),
    in_memory(
        "links_that_are_more",
        "newfstatat(",
        changes_reply!(Call::LinkCount { .. }, Reply::Links(links) => *links += 1),
    ),
    in_memory(
        "link_to_something_else",
        "readlinkat(",
        changes_reply!(Call::Readlink { .. }, Reply::Data(data) => data.0[0] ^= 1),
    ),
    in_memory(
        "mount_that_is_read_only",
        "statfs(",
        changes_reply!(Call::IsReadOnly { .. }, Reply::ReadOnly(read_only) => *read_only = !*read_only),
    ),
    // -- processes --
    planted(
        "clone_with_another_tidptr",
        "clone(",
        changes_call!(Call::Fork { tid: Some(tid), .. } => tid.address += BESIDE),
    ),
    planted(
        "clone_without_a_signal",
        "clone(",
        changes_call!(Call::Fork { exit, .. } => *exit = ExitSignal::None),
    ),
    planted(
        "init_of_another_namespace",
        "clone(",
        changes_call!(Call::CloneInit { namespaces, .. } => *namespaces = CloneFlags::NEWUSER),
    ),
    planted(
        "init_of_one_more_namespace",
        "clone(",
        changes_call!(Call::CloneInit { namespaces, .. } => *namespaces = namespaces.union(CloneFlags::NEWNET)),
    ),
    planted(
        "init_with_another_tidptr",
        "clone(",
        changes_call!(Call::CloneInit { tid: Some(tid), .. } => tid.address += BESIDE),
    ),
    planted("init_without_tidptr", "clone(", changes_call!(Call::CloneInit { tid, .. } => *tid = None)),
    planted("init_without_a_pidfd", "clone(", Lie::ReplacesCall(without_pidfd)),
    in_memory(
        "init_with_another_pidfd",
        "clone(",
        changes_reply!(Call::CloneInit { .. }, Reply::ParentOfInit { pidfd: Some(pidfd), .. } => pidfd.0 += 1),
    ),
    in_memory(
        "init_with_no_pidfd_in_the_record",
        "clone(",
        changes_reply!(Call::CloneInit { .. }, Reply::ParentOfInit { pidfd, .. } => *pidfd = None),
    ),
    planted(
        "stage_1_with_another_tidptr",
        "clone(",
        changes_call!(Call::CloneChild { tid: Some(tid) } => tid.address += BESIDE),
    ),
    planted("stage_1_without_tidptr", "clone(", changes_call!(Call::CloneChild { tid } => *tid = None)),
    planted("stage_1_by_a_plain_fork", "clone(", Lie::ReplacesCall(stage_1_as_a_fork)),
    in_memory(
        "another_thread_id_address",
        "prctl(",
        changes_reply!(Call::TidAddress, Reply::TidAddress(tid) => tid.address ^= 8),
    ),
    planted(
        "another_number_of_its_own",
        "getpid(",
        changes_reply!(Call::Getpid, Reply::Pid(pid) => pid.0 += 1),
    ),
    planted(
        "another_signal_to_kill",
        "kill(",
        changes_call!(Call::Kill { signal: signal @ Signal::KILL, .. } => *signal = Signal::TERM),
    ),
    planted(
        "another_process_to_kill",
        "kill(",
        changes_call!(Call::Kill { pid, signal: Signal(0) } => *pid = Pid(0)),
    ),
    planted(
        "another_process_to_wait_for",
        "wait4(",
        changes_call!(Call::Wait4 { pid, .. } => *pid = Pid::ANY),
    ),
    planted(
        "another_way_to_wait",
        "wait4(",
        changes_call!(Call::Wait4 { which, .. } => *which = WaitFor::Stages),
    ),
    in_memory(
        "another_end_of_a_child",
        "wait4(",
        changes_reply!(Call::Wait4 { .. }, Reply::Waited(waited) => waited.status = WaitStatus::Exited(3)),
    ),
    planted(
        "pidfd_of_another_process",
        "pidfd_open(",
        changes_call!(Call::PidfdOpen { pid } => *pid = Pid(1)),
    ),
    of_environment(
        "preloaded_library",
        "LD_PRELOAD is only in the second",
        changes_call!(Call::Execve { envp, .. } => envp.push(b"LD_PRELOAD=/nsexec/lie.so".as_slice().into())),
    ),
    of_environment(
        "changed_variable",
        "NSEXEC_TEST_TOKEN has another value",
        changes_call!(Call::Execve { envp, .. } => envp[1].0.push(b'!')),
    ),
    of_environment(
        "missing_variable",
        "LAST is only in the first",
        changes_call!(Call::Execve { envp, .. } => drop(envp.pop())),
    ),
    of_environment(
        "variables_in_another_order",
        "another order",
        changes_call!(Call::Execve { envp, .. } => envp.reverse()),
    ),
    Planted {
        call: Some("execveat("),
        ..of_environment(
            "changed_variable_of_a_failed_exec",
            "FIRST has another value",
            changes_call!(Call::Execveat { envp, .. } => envp[0].0.push(b'!')),
        )
    },
    in_memory(
        "another_argument",
        "execve(",
        changes_call!(Call::Execve { argv, .. } => argv[2] = b"2".as_slice().into()),
    ),
    in_memory(
        "another_program",
        "execve(",
        changes_call!(Call::Execve { path, .. } => *path = b"/bin/./true".as_slice().into()),
    ),
    // -- attributes of a process --
    planted(
        "unshare_of_another_kind",
        "unshare(",
        changes_call!(Call::Unshare { flags: flags @ CloneFlags::EMPTY } => *flags = CloneFlags::NEWUTS),
    ),
    planted(
        "dumpable_the_other_way",
        "prctl(",
        changes_call!(Call::SetDumpable { dumpable } => *dumpable = false),
    ),
    in_memory("another_name", "prctl(", changes_call!(Call::SetName { name } => name.0[0] = b'b')),
    planted(
        "another_parent_death_signal",
        "prctl(",
        changes_call!(Call::SetPdeathsig { signal } => *signal = Signal::TERM),
    ),
    in_memory("other_groups", "setgroups(", changes_call!(Call::SetGroups { groups } => groups.push(1))),
    in_memory("another_number", "dup3(", changes_call!(Call::DupTo { number, .. } => number.0 += 1)),
    in_memory("another_least_number", "fcntl(", changes_call!(Call::DupAbove { least, .. } => least.0 += 1)),
    in_memory("another_directory", "chdir(", changes_call!(Call::Chdir { path } => path.0.push(b'x'))),
    planted("another_mask_of_permissions", "umask(", changes_call!(Call::Umask { mask } => *mask = 0o77)),
    in_memory(
        "another_host_name",
        "sethostname(",
        changes_call!(Call::SetHostname { name } => name.0[0] = b'L'),
    ),
    in_memory("another_limit", "prlimit64(", changes_call!(Call::SetLimit { limit } => limit.soft = 1024)),
    planted("capabilities_kept", "prctl(", changes_call!(Call::KeepCapabilities { keep } => *keep = true)),
    in_memory(
        "another_capability_dropped",
        "prctl(",
        changes_call!(Call::DropBounding { capability } => capability.0 = 61),
    ),
    in_memory(
        "another_capability_raised",
        "prctl(",
        changes_call!(Call::RaiseAmbient { capability } => capability.0 = 61),
    ),
    in_memory(
        "other_capabilities",
        "capset(",
        changes_call!(Call::SetCapabilities { sets } => sets.inheritable = 1),
    ),
    in_memory(
        "a_longer_filter",
        "seccomp(",
        changes_call!(Call::SetSeccompFilter { program } => {
            program.push(nsexec::sys::types::BpfInstruction { code: 0xffff, jt: 0, jf: 0, k: 0 });
        }),
    ),
    planted(
        "another_rule_set",
        "landlock_restrict_self(",
        changes_call!(Call::LandlockRestrictSelf { ruleset } => *ruleset = Fd(901)),
    ),
    planted(
        "another_interface_socket",
        "ioctl(",
        changes_call!(Call::SetLoopbackUp { socket } => *socket = Fd(901)),
    ),
    planted(
        "another_terminal",
        "ioctl(",
        changes_call!(Call::SetControllingTerminal { terminal } => *terminal = Fd(901)),
    ),
    planted("another_user", "setresuid(", changes_call!(Call::Setresuid { uid } => *uid = 0)),
    planted(
        "another_propagation",
        "mount(",
        changes_call!(Call::Mount { mount } => *mount = Mount::Propagation(Propagation::Slave)),
    ),
    planted(
        "writable_sysfs",
        "mount(",
        changes_call!(Call::Mount { mount: mount @ Mount::Sysfs { .. } } => *mount = Mount::Sysfs { read_only: false }),
    ),
    // -- the tree of mounts --
    planted("another_directory_to_enter", "fchdir(", changes_call!(Call::Fchdir { dir } => *dir = Fd(900))),
    planted(
        "copy_without_the_mounts_below",
        "open_tree(",
        changes_call!(Call::OpenTree { recursive, .. } => *recursive = false),
    ),
    in_memory(
        "copy_of_another_directory",
        "open_tree(",
        changes_call!(Call::OpenTree { path, .. } => *path = b"/tmp".as_slice().into()),
    ),
    planted(
        "mount_moved_elsewhere",
        "move_mount(",
        changes_call!(Call::MoveMount { target, .. } => *target = Fd(901)),
    ),
    planted(
        "attributes_of_one_mount_alone",
        "mount_setattr(",
        changes_call!(Call::SetMountAttributes { recursive, .. } => *recursive = false),
    ),
    in_memory(
        "writable_mount",
        "mount_setattr(",
        changes_call!(Call::SetMountAttributes { attributes, .. } => attributes.set = MountAttributes::NODEV),
    ),
    planted(
        "mount_of_another_kind",
        "mount(",
        changes_call!(Call::MountHere { kind, .. } => *kind = MountKind::Mqueue),
    ),
    in_memory(
        "mount_with_another_option",
        "mount(",
        changes_call!(Call::MountHere { options, .. } => options.0.push(b'7')),
    ),
    in_memory(
        "open_of_another_file_below_the_root",
        "openat2(",
        changes_call!(Call::OpenInRoot { path, .. } => *path = b"/..".as_slice().into()),
    ),
    in_memory(
        "open_below_the_root_with_other_flags",
        "openat2(",
        changes_call!(Call::OpenInRoot { flags, .. } => *flags = OpenFlags::Directory),
    ),
    planted(
        "directory_of_another_mode",
        "mkdirat(",
        changes_call!(Call::Mkdirat { mode, .. } => *mode = 0o700),
    ),
    in_memory(
        "link_with_another_target",
        "symlinkat(",
        changes_call!(Call::Symlinkat { target, .. } => target.0.push(b'x')),
    ),
    planted(
        "root_that_is_not_changed",
        "pivot_root(",
        Lie::SkipsCall(|call| matches!(call, Call::PivotRootHere).then_some(Reply::Unit)),
    ),
    planted(
        "old_root_that_stays",
        "umount2(",
        Lie::SkipsCall(|call| matches!(call, Call::DetachHere).then_some(Reply::Unit)),
    ),
    planted(
        "chroot_that_is_not_made",
        "chroot(",
        Lie::SkipsCall(|call| matches!(call, Call::ChrootHere).then_some(Reply::Unit)),
    ),
    in_memory(
        "other_cpus",
        "sched_getaffinity(",
        changes_reply!(Call::SchedGetaffinity, Reply::Affinity(mask) => *mask ^= 1 << 40),
    ),
    // -- signals --
    in_memory(
        "another_mask",
        "rt_sigprocmask(",
        changes_call!(Call::Sigprocmask { set, .. } => *set = SignalSet(1)),
    ),
    in_memory(
        "another_mask_as_it_was",
        "rt_sigprocmask(",
        changes_reply!(Call::Sigprocmask { .. }, Reply::Mask(mask) => mask.0 ^= 1),
    ),
    planted(
        "another_signals_disposition",
        "rt_sigaction(",
        changes_call!(Call::Sigaction { signal, .. } => *signal = Signal(10)),
    ),
    in_memory(
        "another_disposition",
        "rt_sigaction(",
        changes_call!(Call::Sigaction { action, .. } => *action = SigAction::DEFAULT),
    ),
    in_memory(
        "another_handler_as_it_was",
        "rt_sigaction(",
        changes_reply!(Call::Sigaction { .. }, Reply::Action(action) => action.handler = 0x1234),
    ),
    in_memory(
        "another_signal_awaited",
        "rt_sigtimedwait(",
        changes_call!(Call::Sigtimedwait { set } => *set = SignalSet(1)),
    ),
    in_memory(
        "another_signal_waited_for",
        "rt_sigtimedwait(",
        changes_call!(Call::WaitSignal { set } => *set = SignalSet(u64::MAX)),
    ),
    in_memory(
        "another_sender_of_a_signal",
        "rt_sigtimedwait(",
        changes_reply!(Call::WaitSignal { .. }, Reply::Sent(sent) => sent.by_kernel = true),
    ),
    // -- undeclared calls --
    Planted {
        says: "(not declared)",
        ..planted(
            "undeclared_call",
            "getppid(",
            Lie::AddsCall(
                |call| matches!(call, Call::Gettid),
                |_| {
                    let _ = std::os::unix::process::parent_id();
                },
            ),
        )
    },
];
