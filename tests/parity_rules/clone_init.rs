//! Rules: the clone that creates the init of a direct start, and the calls that this init makes.

use std::ffi::{c_int, c_void};

use nsexec::sys::linux::LinuxSys;

use super::*;

rules! {
    Root root_clones_into_each_kind_and_into_all = "ok ok ok ok ok ok ok";
    User cloning_into_a_kind_needs_privilege = "EPERM EPERM EPERM EPERM EPERM EPERM";
    User failed_clone_leaves_no_process = "EPERM ECHILD";
    User clone_takes_flags_of_namespaces_only = "EINVAL EINVAL EINVAL EINVAL EINVAL";
    User clone_has_no_time_namespace = "EINVAL EINVAL";
    User clone_of_nothing_needs_no_privilege = "ok 5";
    User cloned_kinds_belong_to_the_cloned_user_namespace = "ok ok ok ok ok ok";
    User other_kinds_belong_to_the_old_user_namespace = "EPERM EPERM EPERM EPERM EPERM EPERM";
    User cloned_process_is_pid_1_of_its_own_namespace = "1 1 false";
    Root clone_changes_no_namespace_of_its_caller = "true ok EPERM";
    User cloned_process_is_seen_by_its_parent = "true ok";
    User cloned_root_has_all_capabilities_before_the_maps = "ok ok EINVAL EINVAL EPERM";
    User cloned_process_becomes_root_by_its_maps = "ok ok ok ok ok ok";
    Root root_maps_a_cloned_process_widely = "ok ok ok ok ok";
    User cloned_process_of_a_non_dumpable_one_is_closed = "EACCES EACCES";
    Root change_of_user_in_a_cloned_namespace_closes_proc = "ok EACCES";
    User unmapped_user_clones_no_user_namespace = "EPERM";
    Root user_namespaces_are_not_cloned_34_deep = "33 ENOSPC";
    Root second_new_pid_namespace_is_einval = "EINVAL ok";
    Root user_and_pid_after_an_unshare_of_pid_is_einval = "EINVAL";
    Root clone_into_a_dead_pid_namespace_fails = "ENOMEM ENOMEM";
    Root clone_fills_an_empty_pid_namespace = "1";
    User cloned_pid_1_creates_no_siblings = "EINVAL";
    User cloned_pid_1_takes_no_signal_but_kill = "ok 137";
    User pid_namespace_of_a_clone_ends_with_its_pid_1 = "0 137";
    User the_pidfd_has_the_lowest_free_number = "true true";
    User the_pidfd_is_not_in_the_child = "EBADF";
    User the_pidfd_reports_the_end = "0 1";
    User a_clone_without_a_free_descriptor_leaves_no_process = "EMFILE ECHILD";
    User only_wclone_waits_for_a_cloned_process = "ECHILD 5";
    User ignored_sigchld_does_not_reap_a_cloned_process = "5";
    User wclone_does_not_wait_for_a_cloned_process_after_its_exec = "ECHILD 0";
    User clone_refreshes_the_cached_thread_id = "0";
    User clone_without_an_address_registers_none = "0";
    Root clone_enters_the_time_namespace_of_its_parent = "ok EACCES EACCES";
    Root one_enters_ones_own_new_time_namespace = "ok ok EACCES ok";
    User own_time_namespace_of_ones_own_user_namespace = "ok ok EACCES";
    User entering_the_first_time_namespace_needs_privilege = "EPERM";
    Root entered_time_namespace_is_that_of_children_too = "ok EACCES EACCES";
    Root offsets_opened_before_the_ids_changed = "ok ok EACCES ok ok";
    Root offsets_opened_by_root_outside_are_written_inside = "ok ok";
    User offsets_opened_by_the_owner_outside_are_written_inside = "ok ok";
    Root parent_writes_the_score_of_its_cloned_child = "ok ok 500\n EACCES ok";
    User parent_without_privilege_raises_a_score_only = "ok 900\n EACCES";
    User score_of_a_child_leaves_that_of_its_parent = "300\n 17\n";
    User score_in_a_shared_memory_is_that_of_both = "300\n 300\n 400\n";
    Root shared_memory_enters_no_time_namespace = "ok EUSERS";
    User both_of_a_shared_memory_get_a_new_user_namespace = "ok ok";
    User shared_memory_may_be_in_other_namespaces = "ok";
    Root change_of_ids_in_a_shared_memory_closes_the_parent = "ok EACCES";
    User same_ids_in_a_shared_memory_leave_the_parent_open = "ok ok";
    User root_of_a_user_namespace_in_a_shared_memory_leaves_the_parent_open = "ok ok ok ok";
    User exec_ends_the_sharing = "300\n 17\n";
    User process_of_a_shared_memory_has_its_own_descriptors = "EBADF";
}

const KINDS: [CloneFlags; 6] = [
    CloneFlags::NEWNS,
    CloneFlags::NEWUTS,
    CloneFlags::NEWIPC,
    CloneFlags::NEWPID,
    CloneFlags::NEWCGROUP,
    CloneFlags::NEWNET,
];
const FILES: [&CStr; 6] = [
    c"/proc/self/ns/mnt",
    c"/proc/self/ns/uts",
    c"/proc/self/ns/ipc",
    c"/proc/self/ns/pid",
    c"/proc/self/ns/cgroup",
    c"/proc/self/ns/net",
];
const USER: u32 = 64_321;
const USER_AND_PID: CloneFlags = CloneFlags::NEWUSER.union(CloneFlags::NEWPID);

/// Returns these namespaces and a user namespace.
fn with_user(kinds: &[CloneFlags]) -> CloneFlags {
    kinds.iter().fold(CloneFlags::NEWUSER, |all, kind| all.union(*kind))
}

/// Returns the child when it has sent its first result. Of the two ends of the socket pair the second is the
/// child's.
fn begun<S: Sys>(sys: &mut S, pid: Pid, pidfd: Option<Fd>, (talk, theirs): (Fd, Fd)) -> Child {
    sys.close(pidfd.unwrap()).unwrap();
    sys.close(theirs).unwrap();
    let mut began = [255];
    sys.read(talk, &mut began).unwrap();
    Child { pid, talk, began: i32::from(began[0]) }
}

/// Clones a process that calls `first`, sends the result, waits, and exits with the result of `then`.
fn init_then<S: Sys>(
    sys: &mut S,
    namespaces: CloneFlags,
    first: impl FnOnce(&mut S) -> Errno,
    then: impl FnOnce(&mut S) -> i32,
) -> Result<Child, i32> {
    let (ours, theirs) = sys.socketpair().unwrap();
    match sys.clone_init(namespaces, None, None).unwrap() {
        InitFork::Child => {
            sys.close(ours).unwrap();
            let began = first(sys);
            sys.send(theirs, &[began.0 as u8]).unwrap();
            // The end of the file also ends the wait.
            let _ = sys.read(theirs, &mut [0]);
            Err(then(sys))
        }
        InitFork::Parent { child, pidfd } => Ok(begun(sys, child, pidfd, (ours, theirs))),
    }
}

fn init<S: Sys>(sys: &mut S, namespaces: CloneFlags) -> Result<Child, i32> {
    init_then(sys, namespaces, |_| Errno(0), |_| 0)
}

/// Returns the exit status of a cloned process that runs `body`.
fn in_init<S: Sys>(
    sys: &mut S,
    namespaces: CloneFlags,
    body: impl FnOnce(&mut S) -> i32,
) -> Result<i32, i32> {
    Ok(init_then(sys, namespaces, |_| Errno(0), body)?.end_init(sys))
}

/// Returns the result of a clone whose process ends at once.
fn cloned<S: Sys>(sys: &mut S, namespaces: CloneFlags) -> RuleResult {
    match sys.clone_init(namespaces, None, None) {
        Ok(InitFork::Child) => Err(5),
        Ok(InitFork::Parent { child, pidfd }) => {
            sys.close(pidfd.unwrap()).unwrap();
            assert_eq!(status_of(sys, child, WaitFor::Stages), 5);
            Ok("ok".into())
        }
        Err(errno) => Ok(errno_name::<()>(Err(errno))),
    }
}

fn read_text<S: Sys>(sys: &mut S, path: &CStr) -> String {
    let fd = open(sys, path, OpenFlags::ReadOnly).unwrap();
    let mut buffer = [0; 64];
    let len = sys.read(fd, &mut buffer).unwrap();
    sys.close(fd).unwrap();
    String::from_utf8_lossy(&buffer[..len]).into_owned()
}

/// Writes the maps of a process's user namespace. Returns the results.
fn write_maps<S: Sys>(sys: &mut S, pid: Pid, map: &str, setgroups: Option<&str>) -> Vec<String> {
    let files = [("uid_map", Some(map)), ("setgroups", setgroups), ("gid_map", Some(map))];
    let wanted = files.into_iter().filter_map(|(file, text)| Some((file, text?)));
    wanted.map(|(file, text)| errno_name(put(sys, &proc_path(pid, file), text.as_bytes()))).collect()
}

// -- the clone ----------------------------------------------------------------------------------------------

fn root_clones_into_each_kind_and_into_all<S: Sys>(sys: &mut S) -> RuleResult {
    let mut said = Vec::new();
    for kind in KINDS.into_iter().chain([with_user(&KINDS)]) {
        said.push(cloned(sys, kind)?);
    }
    Ok(words(&said))
}

fn cloning_into_a_kind_needs_privilege<S: Sys>(sys: &mut S) -> RuleResult {
    let mut said = Vec::new();
    for kind in KINDS {
        said.push(cloned(sys, kind)?);
    }
    Ok(words(&said))
}

fn failed_clone_leaves_no_process<S: Sys>(sys: &mut S) -> RuleResult {
    let failed = cloned(sys, CloneFlags::NEWNET)?;
    Ok(words(&[failed, errno_name(sys.wait4(Pid::ANY, WaitFor::Stages))]))
}

/// CLONE_VM, CLONE_THREAD, CLONE_IO, SIGCHLD, and CLONE_PARENT beside a namespace.
fn clone_takes_flags_of_namespaces_only<S: Sys>(sys: &mut S) -> RuleResult {
    let mut said = Vec::new();
    for flags in [0x100, 0x1_0000, 0x8000_0000, 17, 0x1000_8000] {
        said.push(cloned(sys, CloneFlags(flags))?);
    }
    Ok(words(&said))
}

fn clone_has_no_time_namespace<S: Sys>(sys: &mut S) -> RuleResult {
    let alone = cloned(sys, CloneFlags::NEWTIME)?;
    Ok(words(&[alone, cloned(sys, with_user(&[CloneFlags::NEWTIME]))?]))
}

fn clone_of_nothing_needs_no_privilege<S: Sys>(sys: &mut S) -> RuleResult {
    let result = cloned(sys, CloneFlags::EMPTY)?;
    Ok(words(&[result, in_init(sys, CloneFlags::EMPTY, |_| 5)?.to_string()]))
}

/// Returns the results of joins of each kind by a cloned process: it may join its own namespace if that
/// belongs to its user namespace.
fn joins_of_its_own<S: Sys>(sys: &mut S, flags: [CloneFlags; 6]) -> RuleResult {
    let mut said = Vec::new();
    for ((flags, file), kind) in flags.into_iter().zip(FILES).zip(KINDS) {
        let own = init_then(sys, flags, |sys| code(join(sys, file, kind)), |_| 0)?;
        said.push(name(own.began));
        own.end_init(sys);
    }
    Ok(words(&said))
}

fn cloned_kinds_belong_to_the_cloned_user_namespace<S: Sys>(sys: &mut S) -> RuleResult {
    joins_of_its_own(sys, KINDS.map(|kind| with_user(&[kind])))
}

fn other_kinds_belong_to_the_old_user_namespace<S: Sys>(sys: &mut S) -> RuleResult {
    joins_of_its_own(sys, [CloneFlags::NEWUSER; 6])
}

/// Two cloned processes in a row, and a fork after them.
fn cloned_process_is_pid_1_of_its_own_namespace<S: Sys>(sys: &mut S) -> RuleResult {
    let first = init_then(sys, USER_AND_PID, |_| Errno(0), |sys| sys.getpid().0)?;
    let second = in_init(sys, USER_AND_PID, |sys| sys.getpid().0)?;
    let first = first.end_init(sys);
    let child = in_child(sys, |sys| i32::from(sys.getpid() == Pid(1)))?;
    Ok(format!("{first} {second} {}", child == 1))
}

/// After the clone, its caller has the same pid, and may still create a pid namespace. The cloned process may
/// not join the caller's network namespace.
fn clone_changes_no_namespace_of_its_caller<S: Sys>(sys: &mut S) -> RuleResult {
    let net = open(sys, c"/proc/self/ns/net", OpenFlags::Namespace).unwrap();
    let before = sys.getpid();
    let flags = with_user(&[CloneFlags::NEWPID, CloneFlags::NEWNET]);
    let other = init_then(sys, flags, |sys| code(sys.setns(net, CloneFlags::NEWNET)), |_| 0)?;
    let same = sys.getpid() == before;
    let joined = name(other.began);
    other.end_init(sys);
    Ok(words(&[same.to_string(), errno_name(sys.unshare(CloneFlags::NEWPID)), joined]))
}

fn cloned_process_is_seen_by_its_parent<S: Sys>(sys: &mut S) -> RuleResult {
    let other = init(sys, USER_AND_PID)?;
    let seen = other.pid.0 > 1 && open(sys, &proc_path(other.pid, ""), OpenFlags::Directory).is_ok();
    let joined = errno_name(join(sys, &proc_path(other.pid, "ns/user"), CloneFlags::NEWUSER));
    other.end_init(sys);
    Ok(words(&[seen.to_string(), joined]))
}

// -- capabilities, ids, maps --------------------------------------------------------------------------------

fn cloned_root_has_all_capabilities_before_the_maps<S: Sys>(sys: &mut S) -> RuleResult {
    let calls: [fn(&mut S) -> Errno; 5] = [
        |sys| code(sys.unshare(CloneFlags::NEWNET)),
        |sys| code(sys.unshare(CloneFlags::NEWNS.union(CloneFlags::NEWTIME))),
        |sys| code(sys.setuid(0)),
        |sys| code(sys.setgid(0)),
        |sys| code(sys.drop_groups()),
    ];
    let mut said = Vec::new();
    for call in calls {
        said.push(name(in_init(sys, USER_AND_PID, |sys| call(sys).0)?));
    }
    Ok(words(&said))
}

/// The maps of one id, by the parent. Then the cloned process changes its ids, and creates a namespace.
fn cloned_process_becomes_root_by_its_maps<S: Sys>(sys: &mut S) -> RuleResult {
    let calls: [fn(&mut S) -> Errno; 3] = [
        |sys| code(sys.setgid(0)),
        |sys| code(sys.setuid(0)),
        |sys| code(sys.setuid(0).and_then(|()| sys.unshare(CloneFlags::NEWNET.union(CloneFlags::NEWNS)))),
    ];
    let mut written = Vec::new();
    let mut said = Vec::new();
    for call in calls {
        let other = init_then(sys, USER_AND_PID, |_| Errno(0), |sys| call(sys).0)?;
        written = write_maps(sys, other.pid, &format!("0 {USER} 1\n"), Some("deny"));
        said.push(name(other.end_init(sys)));
    }
    Ok(words(&[written, said].concat()))
}

fn root_maps_a_cloned_process_widely<S: Sys>(sys: &mut S) -> RuleResult {
    let calls: [fn(&mut S) -> Errno; 3] =
        [|sys| code(sys.setgid(0)), |sys| code(sys.setuid(0)), |sys| code(sys.drop_groups())];
    let mut written = Vec::new();
    let mut said = Vec::new();
    for call in calls {
        let other = init_then(sys, USER_AND_PID, |_| Errno(0), |sys| call(sys).0)?;
        written = write_maps(sys, other.pid, "0 100000 65536\n", None);
        said.push(name(other.end_init(sys)));
    }
    Ok(words(&[written, said].concat()))
}

/// A clone copies the memory, and with it the attribute dumpable. Nothing is committed as unshare(2) does.
fn cloned_process_of_a_non_dumpable_one_is_closed<S: Sys>(sys: &mut S) -> RuleResult {
    sys.set_dumpable(false).unwrap();
    let other = init(sys, USER_AND_PID)?;
    let said = ["uid_map", "oom_score_adj"]
        .map(|file| errno_name(open(sys, &proc_path(other.pid, file), OpenFlags::ReadWrite)));
    other.end_init(sys);
    Ok(words(&said))
}

fn change_of_user_in_a_cloned_namespace_closes_proc<S: Sys>(sys: &mut S) -> RuleResult {
    let opened = |sys: &mut S| code(open(sys, c"/proc/self/timens_offsets", OpenFlags::ReadWrite));
    let mut said = Vec::new();
    for changes in [false, true] {
        let other = init_then(
            sys,
            CloneFlags::NEWUSER,
            |_| Errno(0),
            |sys| {
                if changes {
                    sys.setuid(0).unwrap();
                }
                opened(sys).0
            },
        )?;
        write_maps(sys, other.pid, "0 100000 65536\n", None);
        said.push(name(other.end_init(sys)));
    }
    Ok(words(&said))
}

// -- limits -------------------------------------------------------------------------------------------------

fn unmapped_user_clones_no_user_namespace<S: Sys>(sys: &mut S) -> RuleResult {
    sys.unshare(CloneFlags::NEWUSER).unwrap();
    cloned(sys, CloneFlags::NEWUSER)
}

/// Each process clones the next one, which waits for its maps.
fn user_namespaces_are_not_cloned_34_deep<S: Sys>(sys: &mut S) -> RuleResult {
    let (ours, theirs) = sys.socketpair().unwrap();
    let mut depth: u8 = 0;
    loop {
        let (go, waits) = sys.socketpair().unwrap();
        match sys.clone_init(CloneFlags::NEWUSER, None, None) {
            Ok(InitFork::Child) => {
                sys.close(go).unwrap();
                sys.read(waits, &mut [0]).unwrap();
                sys.close(waits).unwrap();
                depth += 1;
            }
            Ok(InitFork::Parent { child, pidfd }) => {
                sys.close(pidfd.unwrap()).unwrap();
                sys.close(waits).unwrap();
                write_maps(sys, child, "0 0 1\n", Some("deny"));
                sys.close(go).unwrap();
                let status = status_of(sys, child, WaitFor::Stages);
                if depth > 0 {
                    return Err(status);
                }
                let mut deep = [0];
                sys.read(ours, &mut deep).unwrap();
                return Ok(words(&[deep[0].to_string(), name(status)]));
            }
            Err(errno) => {
                sys.send(theirs, &[depth]).unwrap();
                return Err(errno.0);
            }
        }
    }
}

fn second_new_pid_namespace_is_einval<S: Sys>(sys: &mut S) -> RuleResult {
    sys.unshare(CloneFlags::NEWPID).unwrap();
    let second = cloned(sys, CloneFlags::NEWPID)?;
    Ok(words(&[second, cloned(sys, CloneFlags::NEWUTS)?]))
}

fn user_and_pid_after_an_unshare_of_pid_is_einval<S: Sys>(sys: &mut S) -> RuleResult {
    sys.unshare(CloneFlags::NEWPID).unwrap();
    cloned(sys, USER_AND_PID)
}

fn clone_into_a_dead_pid_namespace_fails<S: Sys>(sys: &mut S) -> RuleResult {
    sys.unshare(CloneFlags::NEWPID).unwrap();
    cloned(sys, CloneFlags::EMPTY)?;
    let bare = cloned(sys, CloneFlags::EMPTY)?;
    Ok(words(&[bare, cloned(sys, with_user(&[CloneFlags::NEWNET]))?]))
}

fn clone_fills_an_empty_pid_namespace<S: Sys>(sys: &mut S) -> RuleResult {
    sys.unshare(CloneFlags::NEWPID).unwrap();
    Ok(in_init(sys, CloneFlags::NEWNET, |sys| sys.getpid().0)?.to_string())
}

fn cloned_pid_1_creates_no_siblings<S: Sys>(sys: &mut S) -> RuleResult {
    Ok(name(in_init(sys, USER_AND_PID, |sys| code(sys.clone_sibling(None)).0)?))
}

fn cloned_pid_1_takes_no_signal_but_kill<S: Sys>(sys: &mut S) -> RuleResult {
    let other = init(sys, USER_AND_PID)?;
    sys.kill(other.pid, Signal::TERM).unwrap();
    let alive = errno_name(sys.send(other.talk, b""));
    sys.kill(other.pid, Signal::KILL).unwrap();
    Ok(words(&[alive, status_of(sys, other.pid, WaitFor::Stages).to_string()]))
}

/// A child of the cloned process holds the end of a socket until it is killed.
fn pid_namespace_of_a_clone_ends_with_its_pid_1<S: Sys>(sys: &mut S) -> RuleResult {
    let (near, far) = sys.socketpair().unwrap();
    let other = init_then(
        sys,
        USER_AND_PID,
        |sys| {
            sys.close(near).unwrap();
            match sys.fork(ExitSignal::Chld, None).unwrap() {
                Fork::Child => {
                    // Ends only when it is killed.
                    let (nothing, _held) = sys.pipe2().unwrap();
                    sys.poll(&mut [PollFd::new(nothing, PollEvents::IN)], -1).unwrap();
                    Errno(0)
                }
                Fork::Parent { .. } => {
                    sys.close(far).unwrap();
                    Errno(0)
                }
            }
        },
        |_| 0,
    )?;
    sys.close(far).unwrap();
    sys.kill(other.pid, Signal::KILL).unwrap();
    let end = sys.read(near, &mut [0]).unwrap();
    Ok(words(&[end.to_string(), status_of(sys, other.pid, WaitFor::Stages).to_string()]))
}

// -- the pidfd, the wait, the thread id ---------------------------------------------------------------------

fn the_pidfd_has_the_lowest_free_number<S: Sys>(sys: &mut S) -> RuleResult {
    let (low, _high) = sys.pipe2().unwrap();
    sys.close(low).unwrap();
    match sys.clone_init(CloneFlags::EMPTY, None, None).unwrap() {
        InitFork::Child => Err(0),
        InitFork::Parent { child, pidfd } => {
            let lowest = pidfd == Some(low);
            status_of(sys, child, WaitFor::Stages);
            let is_open = sys.close(low).is_ok();
            Ok(format!("{lowest} {is_open}"))
        }
    }
}

fn the_pidfd_is_not_in_the_child<S: Sys>(sys: &mut S) -> RuleResult {
    let (low, _high) = sys.pipe2().unwrap();
    sys.close(low).unwrap();
    match sys.clone_init(CloneFlags::EMPTY, None, None).unwrap() {
        InitFork::Child => Err(code(sys.close(low)).0),
        InitFork::Parent { child, pidfd } => {
            assert_eq!(pidfd, Some(low));
            Ok(name(status_of(sys, child, WaitFor::Stages)))
        }
    }
}

fn the_pidfd_reports_the_end<S: Sys>(sys: &mut S) -> RuleResult {
    let (ours, theirs) = sys.socketpair().unwrap();
    match sys.clone_init(USER_AND_PID, None, None).unwrap() {
        InitFork::Child => {
            sys.close(ours).unwrap();
            let _ = sys.read(theirs, &mut [0]);
            Err(0)
        }
        InitFork::Parent { pidfd, .. } => {
            let mut fds = [PollFd::new(pidfd.unwrap(), PollEvents::IN)];
            let before = sys.poll(&mut fds, 0).unwrap();
            sys.close(ours).unwrap();
            Ok(format!("{before} {}", sys.poll(&mut fds, -1).unwrap()))
        }
    }
}

/// Fills the table of descriptors, whose size differs between the kernels.
fn a_clone_without_a_free_descriptor_leaves_no_process<S: Sys>(sys: &mut S) -> RuleResult {
    while open(sys, c"/proc/self/stat", OpenFlags::ReadOnly) != Err(Errno::EMFILE) {}
    match sys.clone_init(CloneFlags::EMPTY, None, None) {
        Ok(InitFork::Child) => Err(0),
        result => Ok(words(&[errno_name(result), errno_name(sys.wait4(Pid::ANY, WaitFor::Stages))])),
    }
}

/// Makes a cloned process that exits at once with 5.
fn five<S: Sys>(sys: &mut S) -> Result<Pid, i32> {
    match sys.clone_init(CloneFlags::EMPTY, None, None).unwrap() {
        InitFork::Child => Err(5),
        InitFork::Parent { child, .. } => Ok(child),
    }
}

fn only_wclone_waits_for_a_cloned_process<S: Sys>(sys: &mut S) -> RuleResult {
    let pid = five(sys)?;
    let ordinary = errno_name(sys.wait4(pid, WaitFor::Ordinary));
    Ok(words(&[ordinary, status_of(sys, pid, WaitFor::Stages).to_string()]))
}

fn ignored_sigchld_does_not_reap_a_cloned_process<S: Sys>(sys: &mut S) -> RuleResult {
    sys.sigaction(Signal::CHLD, SigAction::IGNORE).unwrap();
    let pid = five(sys)?;
    Ok(status_of(sys, pid, WaitFor::Stages).to_string())
}

/// The exec gives the process the exit signal SIGCHLD, so a wait with `__WCLONE` shows whether it has
/// happened.
fn wclone_does_not_wait_for_a_cloned_process_after_its_exec<S: Sys>(sys: &mut S) -> RuleResult {
    let (near, far) = sys.socketpair().unwrap();
    let child = match sys.clone_init(USER_AND_PID, None, None).unwrap() {
        InitFork::Child => {
            sys.close(near).unwrap();
            return Err(exec(sys, c"/bin/true"));
        }
        InitFork::Parent { child, .. } => child,
    };
    sys.close(far).unwrap();
    // The read returns when the exec has closed the child's end.
    sys.read(near, &mut [0]).unwrap();
    let stages = errno_name(sys.wait4(child, WaitFor::Stages));
    Ok(words(&[stages, exit_status(sys, child).to_string()]))
}

fn clone_refreshes_the_cached_thread_id<S: Sys>(sys: &mut S) -> RuleResult {
    let cache = sys.tid_address().unwrap();
    match sys.clone_init(USER_AND_PID, None, Some(cache)).unwrap() {
        InitFork::Child => {
            let (own, now) = (sys.gettid(), sys.tid_address().unwrap());
            let is_own = own == Pid(1) && now.cached == 1 && now.address == cache.address;
            Err(i32::from(!is_own))
        }
        InitFork::Parent { child, .. } => Ok(status_of(sys, child, WaitFor::Stages).to_string()),
    }
}

fn clone_without_an_address_registers_none<S: Sys>(sys: &mut S) -> RuleResult {
    match sys.clone_init(USER_AND_PID, None, None).unwrap() {
        InitFork::Child => {
            let now = sys.tid_address().unwrap();
            Err(i32::from(now != TidAddress { address: 0, cached: 0 }))
        }
        InitFork::Parent { child, .. } => Ok(status_of(sys, child, WaitFor::Stages).to_string()),
    }
}

// -- time namespaces ----------------------------------------------------------------------------------------

fn put_offsets<S: Sys>(sys: &mut S) -> SysResult<usize> {
    put(sys, c"/proc/self/timens_offsets", b"monotonic 10 0\nboottime 20 0\n")
}

fn enter_new<S: Sys>(sys: &mut S) -> SysResult<()> {
    join(sys, c"/proc/self/ns/time_for_children", CloneFlags::NEWTIME)
}

/// The caller has created a time namespace before. The cloned process is in it, and its offsets are final.
fn clone_enters_the_time_namespace_of_its_parent<S: Sys>(sys: &mut S) -> RuleResult {
    sys.unshare(CloneFlags::NEWTIME).unwrap();
    let before = errno_name(put_offsets(sys));
    let inside = name(in_init(sys, CloneFlags::NEWNET, |sys| code(put_offsets(sys)).0)?);
    Ok(words(&[before, inside, errno_name(put_offsets(sys))]))
}

fn one_enters_ones_own_new_time_namespace<S: Sys>(sys: &mut S) -> RuleResult {
    sys.unshare(CloneFlags::NEWTIME).unwrap();
    Ok(words(&[
        errno_name(put_offsets(sys)),
        errno_name(enter_new(sys)),
        errno_name(put_offsets(sys)),
        errno_name(enter_new(sys)),
    ]))
}

/// As the init of a direct start does it.
fn own_time_namespace_of_ones_own_user_namespace<S: Sys>(sys: &mut S) -> RuleResult {
    let calls: [fn(&mut S) -> Errno; 3] = [
        |sys| code(put_offsets(sys)),
        |sys| code(put_offsets(sys).and_then(|_| enter_new(sys))),
        |sys| code(enter_new(sys).and_then(|()| put_offsets(sys))),
    ];
    let mut said = Vec::new();
    for call in calls {
        let status = in_init(sys, USER_AND_PID, |sys| {
            sys.unshare(CloneFlags::NEWTIME).unwrap();
            call(sys).0
        })?;
        said.push(name(status));
    }
    Ok(words(&said))
}

fn entering_the_first_time_namespace_needs_privilege<S: Sys>(sys: &mut S) -> RuleResult {
    Ok(errno_name(enter_new(sys)))
}

/// A process that has entered its time namespace creates its children in it too.
fn entered_time_namespace_is_that_of_children_too<S: Sys>(sys: &mut S) -> RuleResult {
    sys.unshare(CloneFlags::NEWTIME).unwrap();
    let entered = errno_name(enter_new(sys));
    let child = name(in_child(sys, |sys| code(put_offsets(sys)).0)?);
    Ok(words(&[entered, child, errno_name(put_offsets(sys))]))
}

/// The order of a direct start. A process that has changed its kernel ids cannot open the file any more.
fn offsets_opened_before_the_ids_changed<S: Sys>(sys: &mut S) -> RuleResult {
    let steps: [fn(&mut S, Fd) -> Errno; 5] = [
        |sys, file| code(sys.write(file, b"monotonic 10 0\n")),
        |sys, file| code(sys.write(file, b"monotonic 10 0\n").and_then(|_| enter_new(sys))),
        |sys, _| code(put_offsets(sys)),
        |sys, _| code(enter_new(sys)),
        |sys, file| code(enter_new(sys).and_then(|()| sys.close(file))),
    ];
    let mut said = Vec::new();
    for step in steps {
        let other = init_then(
            sys,
            USER_AND_PID,
            |_| Errno(0),
            |sys| {
                let file = open(sys, c"/proc/self/timens_offsets", OpenFlags::ReadWrite).unwrap();
                sys.setgid(0).unwrap();
                sys.setuid(0).unwrap();
                sys.unshare(CloneFlags::NEWTIME).unwrap();
                step(sys, file).0
            },
        )?;
        write_maps(sys, other.pid, "0 100000 65536\n", None);
        said.push(name(other.end_init(sys)));
    }
    Ok(words(&said))
}

/// Opened in the first user namespace, written after a user and a time namespace were created.
fn offsets_of_an_outside_file<S: Sys>(sys: &mut S) -> RuleResult {
    let opened = open(sys, c"/proc/self/timens_offsets", OpenFlags::ReadWrite);
    let said = errno_name(opened);
    sys.unshare(CloneFlags::NEWUSER.union(CloneFlags::NEWTIME)).unwrap();
    Ok(words(&[said, errno_name(sys.write(opened.unwrap(), b"monotonic 10 0\n"))]))
}

fn offsets_opened_by_root_outside_are_written_inside<S: Sys>(sys: &mut S) -> RuleResult {
    offsets_of_an_outside_file(sys)
}

/// The opener is the owner of the new user namespace, so it has all capabilities in it.
fn offsets_opened_by_the_owner_outside_are_written_inside<S: Sys>(sys: &mut S) -> RuleResult {
    offsets_of_an_outside_file(sys)
}

// -- the oom score of a child -------------------------------------------------------------------------------

/// Root of the new user namespace lacks CAP_SYS_RESOURCE in the first one: it may raise its score only.
fn parent_writes_the_score_of_its_cloned_child<S: Sys>(sys: &mut S) -> RuleResult {
    let mut said = Vec::new();
    for own in [b"-600".as_slice(), b"700"] {
        let other = init_then(
            sys,
            USER_AND_PID,
            |_| Errno(0),
            |sys| code(put(sys, c"/proc/self/oom_score_adj", own)).0,
        )?;
        let path = proc_path(other.pid, "oom_score_adj");
        // The second value is lower, but not below the minimum of a process without CAP_SYS_RESOURCE.
        let written = [b"600", b"500"].map(|score| errno_name(put(sys, &path, score)));
        let read = read_text(sys, &path);
        if said.is_empty() {
            said.extend(written);
            said.push(read);
        }
        said.push(name(other.end_init(sys)));
    }
    Ok(words(&said))
}

fn parent_without_privilege_raises_a_score_only<S: Sys>(sys: &mut S) -> RuleResult {
    let other = init(sys, USER_AND_PID)?;
    let path = proc_path(other.pid, "oom_score_adj");
    let raised = errno_name(put(sys, &path, b"900"));
    let read = read_text(sys, &path);
    let lowered = errno_name(put(sys, &path, b"-900"));
    other.end_init(sys);
    Ok(words(&[raised, read, lowered]))
}

fn score_of_a_child_leaves_that_of_its_parent<S: Sys>(sys: &mut S) -> RuleResult {
    put(sys, c"/proc/self/oom_score_adj", b"17").unwrap();
    let other = init(sys, USER_AND_PID)?;
    let path = proc_path(other.pid, "oom_score_adj");
    put(sys, &path, b"300").unwrap();
    let said = [read_text(sys, &path), read_text(sys, c"/proc/self/oom_score_adj")];
    other.end_init(sys);
    Ok(words(&said))
}

// -- shared memory ------------------------------------------------------------------------------------------

/// The function of a process that shares its parent's memory, once for the backend of the kernel and once for
/// the backend under test. It gets one end of a socket pair, on which its parent reads one byte and then
/// sends one.
struct Body<S> {
    real: fn(&mut LinuxSys, Fd) -> i32,
    any: fn(&mut S, Fd) -> i32,
}

/// Makes a [`Body`] of a generic function.
macro_rules! body {
    ($name:ident) => {
        Body { real: $name::<LinuxSys>, any: $name::<S> }
    };
}

/// Clones a process that shares the memory. A simulated process returns from here with its status.
fn sharing<S: Sys>(sys: &mut S, namespaces: CloneFlags, body: Body<S>) -> Result<Child, i32> {
    extern "C" fn first(argument: *mut c_void) -> c_int {
        // SAFETY: a value that the parent has leaked.
        let (real, theirs) = unsafe { *argument.cast::<(fn(&mut LinuxSys, Fd) -> i32, Fd)>() };
        // SAFETY: this process has one thread, and the parent waits while it runs.
        real(&mut unsafe { LinuxSys::new() }, theirs)
    }
    let (ours, theirs) = sys.socketpair().unwrap();
    let argument = Box::into_raw(Box::new((body.real, theirs)));
    let stack = Box::leak(Box::new([0_u128; 8 << 10])).as_mut_ptr_range().end;
    // SAFETY: stack and argument are leaked. The parent waits while the process runs.
    let start = unsafe { SharedStart::new(first, argument.cast(), stack.cast()) };
    match sys.clone_init(namespaces, Some(start), None).unwrap() {
        InitFork::Child => Err((body.any)(sys, theirs)),
        InitFork::Parent { child, pidfd } => Ok(begun(sys, child, pidfd, (ours, theirs))),
    }
}

/// Sends the parent this byte and waits for its answer.
fn report<S: Sys>(sys: &mut S, theirs: Fd, byte: i32) {
    sys.send(theirs, &[byte as u8]).unwrap();
    let _ = sys.read(theirs, &mut [0]);
}

/// Lets the process go on, and returns its exit status.
fn end_shared<S: Sys>(sys: &mut S, child: &Child) -> i32 {
    sys.send(child.talk, b"!").unwrap();
    status_of(sys, child.pid, WaitFor::Stages)
}

fn score_in_a_shared_memory_is_that_of_both<S: Sys>(sys: &mut S) -> RuleResult {
    fn body<S: Sys>(sys: &mut S, theirs: Fd) -> i32 {
        report(sys, theirs, 0);
        code(put(sys, c"/proc/self/oom_score_adj", b"400")).0
    }
    let child = sharing(sys, USER_AND_PID, body!(body))?;
    let path = proc_path(child.pid, "oom_score_adj");
    put(sys, &path, b"300").unwrap();
    let mut said = vec![read_text(sys, &path), read_text(sys, c"/proc/self/oom_score_adj")];
    assert_eq!(end_shared(sys, &child), 0);
    said.push(read_text(sys, c"/proc/self/oom_score_adj"));
    Ok(words(&said))
}

fn shared_memory_enters_no_time_namespace<S: Sys>(sys: &mut S) -> RuleResult {
    fn body<S: Sys>(sys: &mut S, theirs: Fd) -> i32 {
        let created = code(sys.unshare(CloneFlags::NEWTIME));
        report(sys, theirs, created.0);
        let namespace = open(sys, c"/proc/self/ns/time_for_children", OpenFlags::ReadOnly).unwrap();
        code(sys.setns(namespace, CloneFlags::NEWTIME)).0
    }
    let child = sharing(sys, CloneFlags::EMPTY, body!(body))?;
    Ok(words(&[name(child.began), name(end_shared(sys, &child))]))
}

fn both_of_a_shared_memory_get_a_new_user_namespace<S: Sys>(sys: &mut S) -> RuleResult {
    fn body<S: Sys>(sys: &mut S, theirs: Fd) -> i32 {
        let created = code(sys.unshare(CloneFlags::NEWUSER));
        report(sys, theirs, created.0);
        0
    }
    let child = sharing(sys, CloneFlags::EMPTY, body!(body))?;
    let parent = errno_name(sys.unshare(CloneFlags::NEWUSER));
    end_shared(sys, &child);
    Ok(words(&[name(child.began), parent]))
}

fn shared_memory_may_be_in_other_namespaces<S: Sys>(sys: &mut S) -> RuleResult {
    fn body<S: Sys>(sys: &mut S, theirs: Fd) -> i32 {
        let created = code(sys.unshare(with_user(&KINDS).without(USER_AND_PID)));
        report(sys, theirs, created.0);
        0
    }
    let child = sharing(sys, USER_AND_PID, body!(body))?;
    end_shared(sys, &child);
    Ok(name(child.began))
}

/// The parent is an ordinary user, whose child gets a map by root.
fn change_of_ids_in_a_shared_memory_closes_the_parent<S: Sys>(sys: &mut S) -> RuleResult {
    fn body<S: Sys>(sys: &mut S, theirs: Fd) -> i32 {
        report(sys, theirs, 0);
        code(sys.setuid(0)).0
    }
    fn own_score<S: Sys>(sys: &mut S) -> i32 {
        code(open(sys, c"/proc/self/oom_score_adj", OpenFlags::ReadWrite)).0
    }
    let (ours, theirs) = sys.socketpair().unwrap();
    match sys.fork(ExitSignal::Chld, None).unwrap() {
        Fork::Child => {
            sys.setgid(USER).unwrap();
            sys.setresuid(USER).unwrap();
            sys.set_dumpable(true).unwrap();
            let child = sharing(sys, USER_AND_PID, body!(body))?;
            sys.send(theirs, &child.pid.0.to_ne_bytes()).unwrap();
            sys.read(theirs, &mut [0]).unwrap();
            let before = own_score(sys);
            assert_eq!(end_shared(sys, &child), 0);
            sys.send(theirs, &[before as u8]).unwrap();
            Err(own_score(sys))
        }
        Fork::Parent { child } => {
            let mut pid = [0; 4];
            sys.read(ours, &mut pid).unwrap();
            let path = proc_path(Pid(i32::from_ne_bytes(pid)), "uid_map");
            put(sys, &path, b"0 100000 10\n").unwrap();
            sys.send(ours, b"!").unwrap();
            let mut before = [0];
            sys.read(ours, &mut before).unwrap();
            Ok(words(&[name(i32::from(before[0])), name(exit_status(sys, child))]))
        }
    }
}

fn same_ids_in_a_shared_memory_leave_the_parent_open<S: Sys>(sys: &mut S) -> RuleResult {
    fn body<S: Sys>(sys: &mut S, theirs: Fd) -> i32 {
        report(sys, theirs, 0);
        code(sys.setuid(0)).0
    }
    let child = sharing(sys, USER_AND_PID, body!(body))?;
    put(sys, &proc_path(child.pid, "uid_map"), format!("0 {USER} 1\n").as_bytes()).unwrap();
    let changed = end_shared(sys, &child);
    let opened = code(open(sys, c"/proc/self/oom_score_adj", OpenFlags::ReadWrite));
    Ok(words(&[name(changed), name(opened.0)]))
}

fn exec_ends_the_sharing<S: Sys>(sys: &mut S) -> RuleResult {
    fn body<S: Sys>(sys: &mut S, theirs: Fd) -> i32 {
        // A copy of the parent's end.
        sys.close(Fd(theirs.0 - 1)).unwrap();
        report(sys, theirs, 0);
        exec(sys, c"/bin/sleep")
    }
    let child = sharing(sys, USER_AND_PID, body!(body))?;
    put(sys, c"/proc/self/oom_score_adj", b"17").unwrap();
    sys.send(child.talk, b"!").unwrap();
    // The end of the file comes with the exec, which closes the other end.
    assert_eq!(sys.read(child.talk, &mut [0]), Ok(0));
    let path = proc_path(child.pid, "oom_score_adj");
    put(sys, &path, b"300").unwrap();
    let said = [read_text(sys, &path), read_text(sys, c"/proc/self/oom_score_adj")];
    sys.kill(child.pid, Signal::KILL).unwrap();
    exit_status(sys, child.pid);
    Ok(words(&said))
}

/// The calls of a direct start with both maps: the group, the user, the other namespaces.
fn root_of_a_user_namespace_in_a_shared_memory_leaves_the_parent_open<S: Sys>(sys: &mut S) -> RuleResult {
    fn body<S: Sys>(sys: &mut S, theirs: Fd) -> i32 {
        report(sys, theirs, 0);
        let (group, user) = (code(sys.setgid(0)).0, code(sys.setresuid(0)).0);
        let others = code(sys.unshare(with_user(&KINDS).without(USER_AND_PID))).0;
        [group, user, others].into_iter().find(|code| *code != 0).unwrap_or(0)
    }
    let child = sharing(sys, USER_AND_PID, body!(body))?;
    let denied = errno_name(put(sys, &proc_path(child.pid, "setgroups"), b"deny"));
    let map = format!("0 {USER} 1\n");
    put(sys, &proc_path(child.pid, "uid_map"), map.as_bytes()).unwrap();
    let mapped = errno_name(put(sys, &proc_path(child.pid, "gid_map"), map.as_bytes()));
    let changed = end_shared(sys, &child);
    let opened = code(open(sys, c"/proc/self/oom_score_adj", OpenFlags::ReadWrite));
    Ok(words(&[denied, mapped, name(changed), name(opened.0)]))
}

fn process_of_a_shared_memory_has_its_own_descriptors<S: Sys>(sys: &mut S) -> RuleResult {
    fn body<S: Sys>(sys: &mut S, theirs: Fd) -> i32 {
        let (one, _) = sys.pipe2().unwrap();
        report(sys, theirs, one.0);
        0
    }
    let child = sharing(sys, CloneFlags::EMPTY, body!(body))?;
    let closed = errno_name(sys.close(Fd(child.began)));
    end_shared(sys, &child);
    Ok(closed)
}
