//! Rules: creation, death, reaping, signals, pid namespaces.

use super::*;

rules! {
    User thread_id_of_the_only_thread_is_the_pid = "true";
    User fork_updates_the_cached_thread_id = "0";
    User a_process_may_run_on_some_cpu = "true";
    User a_name_has_at_most_15_bytes = "a name of 17 ch";
    User files_that_are_not_executed = "EACCES ENOTDIR ENOTDIR ENOENT ENOTDIR";
    User child_without_exit_signal_needs_wclone = "ECHILD 5";
    User wclone_ignores_an_ordinary_child = "ECHILD 5";
    User an_ignored_sigchld_reaps_the_child = "ECHILD";
    User ignored_sigchld_does_not_reap_a_stage = "5";
    User sibling_inherits_parent_and_exit_signal = "2 ECHILD";
    User an_exec_brings_sigchld_back = "ECHILD 0";
    User a_zombie_takes_signals_until_it_is_reaped = "ok ESRCH";
    User a_pidfd_of_the_dead = "ok ESRCH EINVAL";
    User the_fdinfo_of_a_pidfd_names_the_process = "true true";
    Root kill_needs_the_same_user = "EPERM";
    User kill_rejects_an_unknown_signal = "EINVAL";
    User a_death_signal_comes_with_the_parents_death = "0";
    User a_death_signal_is_not_inherited = "5";
    User a_session_has_one_leader = "ok EPERM";
    User sigkill_cannot_be_blocked = "false EINVAL";
    User an_exec_that_fails = "ENOENT EACCES";
    User nothing_pending = "EAGAIN";
    User a_wait_without_children_ends = "ECHILD";
    User blocked_signal_kills_when_unblocked = "143";
    User pending_signal_is_dropped_if_ignored = "5";
    User a_wait_for_a_signal_ends_with_the_end_of_a_child = "SIGCHLD false exited with status 6";
    User a_signal_ignored_while_blocked_is_gone = "EAGAIN";
    User a_process_killed_in_a_read_resets_its_peer = "ECONNRESET";
    User a_full_socket_waits_for_its_reader = "600000 0";
    User a_whole_group_is_killed = "143";
    User wait_takes_any_child = "true";
    Root the_first_in_a_pid_namespace_is_pid_1 = "true 1 2";
    Root the_first_has_another_number_outside = "true";
    Root pid_1_cannot_clone_siblings = "EINVAL";
    Root fork_in_a_dead_pid_namespace_fails = "ENOMEM";
    Root pid_namespaces_cannot_be_created_twice = "ok EINVAL";
    Root a_pid_namespace_dies_with_its_pid_1 = "0 137";
    Root pid_1_survives_signals_from_inside = "7";
    Root pid_1_survives_a_term_from_outside_but_no_kill = "ok 137";
    Root pid_for_children_is_empty_before_the_first = "ENOENT";
    Root a_kill_does_not_reach_out_of_a_pid_namespace = "ESRCH";
}

/// Makes a child that exits at once with 5.
fn five<S: Sys>(sys: &mut S, exit: ExitSignal) -> Result<Pid, i32> {
    match sys.fork(exit, None).unwrap() {
        Fork::Child => Err(5),
        Fork::Parent { child } => Ok(child),
    }
}

/// Returns the exit status of a wait, or its errno.
fn waited<S: Sys>(sys: &mut S, pid: Pid, which: WaitFor) -> String {
    match sys.wait4(pid, which) {
        Ok(Waited { status: WaitStatus::Exited(status), .. }) => status.to_string(),
        Ok(Waited { status: WaitStatus::Signaled(signal), .. }) => (128 + signal.0).to_string(),
        Ok(other) => format!("{other:?}"),
        Err(errno) => errno_name::<()>(Err(errno)),
    }
}

fn child_without_exit_signal_needs_wclone<S: Sys>(sys: &mut S) -> RuleResult {
    let pid = five(sys, ExitSignal::None)?;
    Ok(words(&[waited(sys, pid, WaitFor::Ordinary), waited(sys, pid, WaitFor::Stages)]))
}

fn wclone_ignores_an_ordinary_child<S: Sys>(sys: &mut S) -> RuleResult {
    let pid = five(sys, ExitSignal::Chld)?;
    Ok(words(&[waited(sys, Pid::ANY, WaitFor::Stages), waited(sys, pid, WaitFor::Ordinary)]))
}

fn an_ignored_sigchld_reaps_the_child<S: Sys>(sys: &mut S) -> RuleResult {
    sys.sigaction(Signal::CHLD, SigAction::IGNORE).unwrap();
    let pid = five(sys, ExitSignal::Chld)?;
    Ok(waited(sys, pid, WaitFor::Ordinary))
}

fn ignored_sigchld_does_not_reap_a_stage<S: Sys>(sys: &mut S) -> RuleResult {
    sys.sigaction(Signal::CHLD, SigAction::IGNORE).unwrap();
    let pid = five(sys, ExitSignal::None)?;
    Ok(waited(sys, pid, WaitFor::Stages))
}

fn sibling_inherits_parent_and_exit_signal<S: Sys>(sys: &mut S) -> RuleResult {
    match sys.fork(ExitSignal::None, None).unwrap() {
        Fork::Child => {
            sys.clone_sibling(None).unwrap();
            Err(0)
        }
        Fork::Parent { .. } => {
            let mut count = 0;
            let end = loop {
                match sys.wait4(Pid::ANY, WaitFor::Stages) {
                    Ok(_) => count += 1,
                    result => break errno_name(result),
                }
            };
            Ok(words(&[count.to_string(), end]))
        }
    }
}

fn an_exec_brings_sigchld_back<S: Sys>(sys: &mut S) -> RuleResult {
    let (near, far) = sys.socketpair().unwrap();
    let child = match sys.fork(ExitSignal::None, None).unwrap() {
        Fork::Child => {
            sys.close(near).unwrap();
            return Err(exec(sys, c"/bin/true"));
        }
        Fork::Parent { child } => child,
    };
    sys.close(far).unwrap();
    // The read returns when the exec has closed the child's end.
    sys.read(near, &mut [0]).unwrap();
    Ok(words(&[waited(sys, child, WaitFor::Stages), waited(sys, child, WaitFor::Ordinary)]))
}

/// Makes a dead child that is not reaped.
pub(super) fn zombie<S: Sys>(sys: &mut S) -> Result<Pid, i32> {
    let other = child(sys, |_| Errno(0))?;
    sys.kill(other.pid, Signal::KILL).unwrap();
    // The socket closes shortly before the child is a zombie.
    let _ = sys.read(other.talk, &mut [0]);
    let mut fds = [PollFd::new(sys.pidfd_open(other.pid).map_err(|_| 1)?, PollEvents::IN)];
    sys.poll(&mut fds, -1).unwrap();
    Ok(other.pid)
}

fn a_zombie_takes_signals_until_it_is_reaped<S: Sys>(sys: &mut S) -> RuleResult {
    let pid = zombie(sys)?;
    let before = errno_name(sys.kill(pid, Signal::KILL));
    exit_status(sys, pid);
    Ok(words(&[before, errno_name(sys.kill(pid, Signal::KILL))]))
}

fn a_pidfd_of_the_dead<S: Sys>(sys: &mut S) -> RuleResult {
    let pid = zombie(sys)?;
    let before = errno_name(sys.pidfd_open(pid));
    exit_status(sys, pid);
    Ok(words(&[before, errno_name(sys.pidfd_open(pid)), errno_name(sys.pidfd_open(Pid(0)))]))
}

fn the_fdinfo_of_a_pidfd_names_the_process<S: Sys>(sys: &mut S) -> RuleResult {
    let pid_of = |sys: &mut S, pid| {
        let pidfd = sys.pidfd_open(pid).unwrap();
        let path = std::ffi::CString::new(format!("/proc/self/fdinfo/{}", pidfd.0)).unwrap();
        let file = open(sys, &path, OpenFlags::ReadOnly).unwrap();
        let mut text = [0; 512];
        let length = sys.read(file, &mut text).unwrap();
        nsexec::launch::pid_of_fdinfo(&text[..length])
    };
    let own = sys.getpid();
    let is_own = pid_of(sys, own) == Some(own);
    let child = child(sys, |_| Errno(0))?;
    let is_child = pid_of(sys, child.pid) == Some(child.pid);
    child.end(sys);
    Ok(format!("{is_own} {is_child}"))
}

fn kill_needs_the_same_user<S: Sys>(sys: &mut S) -> RuleResult {
    let target = child(sys, |_| Errno(0))?;
    let answer = in_child(sys, |sys| {
        sys.setresuid(64_321).unwrap();
        code(sys.kill(target.pid, Signal(0))).0
    })?;
    target.end(sys);
    Ok(name(answer))
}

fn kill_rejects_an_unknown_signal<S: Sys>(sys: &mut S) -> RuleResult {
    let pid = sys.getpid();
    Ok(errno_name(sys.kill(pid, Signal(65))))
}

/// Returns the data that a grandchild sends after the death of its parent.
fn orphan<S: Sys>(sys: &mut S, before: bool) -> RuleResult {
    let (near, far) = sys.socketpair().unwrap();
    let between = match sys.fork(ExitSignal::Chld, None).unwrap() {
        Fork::Child => {
            sys.close(near).unwrap();
            if before {
                sys.set_pdeathsig(Signal::KILL).unwrap();
            }
            let (ready, told) = sys.socketpair().unwrap();
            return match sys.fork(ExitSignal::Chld, None).unwrap() {
                Fork::Child => {
                    sys.close(ready).unwrap();
                    if !before {
                        sys.set_pdeathsig(Signal::KILL).unwrap();
                    }
                    sys.send(told, b"x").unwrap();
                    // Waits for the parent's death, then sends a sign of life.
                    let _ = sys.read(told, &mut [0]);
                    // The parent's descriptors close shortly before the signal is sent.
                    let (nothing, _) = sys.pipe2().unwrap();
                    sys.poll(&mut [PollFd::new(nothing, PollEvents::IN)], 200).unwrap();
                    let _ = sys.send(far, b"alive");
                    Err(0)
                }
                Fork::Parent { .. } => {
                    sys.close(told).unwrap();
                    sys.read(ready, &mut [0]).unwrap();
                    Err(0)
                }
            };
        }
        Fork::Parent { child } => child,
    };
    sys.close(far).unwrap();
    exit_status(sys, between);
    Ok(sys.read(near, &mut [0; 16]).unwrap().to_string())
}

fn a_death_signal_comes_with_the_parents_death<S: Sys>(sys: &mut S) -> RuleResult {
    orphan(sys, false)
}

fn a_death_signal_is_not_inherited<S: Sys>(sys: &mut S) -> RuleResult {
    orphan(sys, true)
}

fn a_session_has_one_leader<S: Sys>(sys: &mut S) -> RuleResult {
    let other = child_then(sys, |sys| code(sys.setsid()), |sys| code(sys.setsid()).0)?;
    let began = name(other.began);
    Ok(words(&[began, name(other.end(sys))]))
}

fn sigkill_cannot_be_blocked<S: Sys>(sys: &mut S) -> RuleResult {
    sys.sigprocmask(MaskHow::Block, SignalSet(u64::MAX)).unwrap();
    let mask = sys.sigprocmask(MaskHow::Block, SignalSet::EMPTY).unwrap();
    let blocked = mask.contains(SignalSet(1 << 8));
    Ok(words(&[blocked.to_string(), errno_name(sys.sigaction(Signal::KILL, SigAction::IGNORE))]))
}

fn an_exec_that_fails<S: Sys>(sys: &mut S) -> RuleResult {
    Ok(words(&[name(exec(sys, c"/bin/there-is-no-such-program")), name(exec(sys, c"/etc/passwd"))]))
}

fn nothing_pending<S: Sys>(sys: &mut S) -> RuleResult {
    Ok(errno_name(sys.sigtimedwait(SignalSet::PIPE)))
}

fn a_wait_without_children_ends<S: Sys>(sys: &mut S) -> RuleResult {
    Ok(waited(sys, Pid::ANY, WaitFor::Ordinary))
}

fn the_first_in_a_pid_namespace_is_pid_1<S: Sys>(sys: &mut S) -> RuleResult {
    let before = sys.getpid();
    sys.unshare(CloneFlags::NEWPID).unwrap();
    let same = sys.getpid() == before;
    // The first child must live until the second has ended.
    let first = child_then(sys, |_| Errno(0), |sys| sys.getpid().0)?;
    let second = in_child(sys, |sys| sys.getpid().0)?;
    let first = first.end(sys);
    Ok(format!("{same} {first} {second}"))
}

fn the_first_has_another_number_outside<S: Sys>(sys: &mut S) -> RuleResult {
    sys.unshare(CloneFlags::NEWPID).unwrap();
    let first = child(sys, |_| Errno(0))?;
    let seen = first.pid.0 > 1 && open(sys, &proc_path(first.pid, ""), OpenFlags::Directory).is_ok();
    first.end(sys);
    Ok(seen.to_string())
}

fn pid_1_cannot_clone_siblings<S: Sys>(sys: &mut S) -> RuleResult {
    sys.unshare(CloneFlags::NEWPID).unwrap();
    Ok(name(in_child(sys, |sys| code(sys.clone_sibling(None)).0)?))
}

fn fork_in_a_dead_pid_namespace_fails<S: Sys>(sys: &mut S) -> RuleResult {
    sys.unshare(CloneFlags::NEWPID).unwrap();
    in_child(sys, |_| 0)?;
    match sys.fork(ExitSignal::Chld, None) {
        Ok(Fork::Child) => Err(0),
        result => Ok(errno_name(result)),
    }
}

fn pid_namespaces_cannot_be_created_twice<S: Sys>(sys: &mut S) -> RuleResult {
    Ok(words(&[errno_name(sys.unshare(CloneFlags::NEWPID)), errno_name(sys.unshare(CloneFlags::NEWPID))]))
}

fn a_pid_namespace_dies_with_its_pid_1<S: Sys>(sys: &mut S) -> RuleResult {
    sys.unshare(CloneFlags::NEWPID).unwrap();
    let (near, far) = sys.socketpair().unwrap();
    let first = child(sys, |_| Errno(0))?;
    let second = child(sys, |_| Errno(0))?;
    sys.close(far).unwrap();
    sys.kill(first.pid, Signal::KILL).unwrap();
    let end = sys.read(near, &mut [0]).unwrap();
    Ok(words(&[end.to_string(), waited(sys, second.pid, WaitFor::Ordinary)]))
}

fn pid_1_survives_signals_from_inside<S: Sys>(sys: &mut S) -> RuleResult {
    sys.unshare(CloneFlags::NEWPID).unwrap();
    let status = in_child(sys, |sys| {
        sys.kill(Pid(1), Signal::TERM).unwrap();
        sys.kill(Pid(1), Signal::KILL).unwrap();
        7
    })?;
    Ok(status.to_string())
}

fn pid_1_survives_a_term_from_outside_but_no_kill<S: Sys>(sys: &mut S) -> RuleResult {
    sys.unshare(CloneFlags::NEWPID).unwrap();
    let first = child(sys, |_| Errno(0))?;
    sys.kill(first.pid, Signal::TERM).unwrap();
    let alive = errno_name(sys.send(first.talk, b""));
    sys.kill(first.pid, Signal::KILL).unwrap();
    Ok(words(&[alive, exit_status(sys, first.pid).to_string()]))
}

fn pid_for_children_is_empty_before_the_first<S: Sys>(sys: &mut S) -> RuleResult {
    sys.unshare(CloneFlags::NEWPID).unwrap();
    Ok(errno_name(open(sys, c"/proc/self/ns/pid_for_children", OpenFlags::Namespace)))
}

fn a_kill_does_not_reach_out_of_a_pid_namespace<S: Sys>(sys: &mut S) -> RuleResult {
    let outside = sys.getpid();
    sys.unshare(CloneFlags::NEWPID).unwrap();
    Ok(name(in_child(sys, |sys| code(sys.kill(outside, Signal(0))).0)?))
}

fn blocked_signal_kills_when_unblocked<S: Sys>(sys: &mut S) -> RuleResult {
    let status = in_child(sys, |sys| {
        let term = SignalSet(1 << 14);
        sys.sigaction(Signal::TERM, SigAction::DEFAULT).unwrap();
        sys.sigprocmask(MaskHow::Block, term).unwrap();
        let pid = sys.getpid();
        sys.kill(pid, Signal::TERM).unwrap();
        sys.sigprocmask(MaskHow::Set, SignalSet::EMPTY).unwrap();
        5
    })?;
    Ok(status.to_string())
}

fn pending_signal_is_dropped_if_ignored<S: Sys>(sys: &mut S) -> RuleResult {
    let status = in_child(sys, |sys| {
        sys.sigaction(Signal::TERM, SigAction::IGNORE).unwrap();
        let pid = sys.getpid();
        sys.kill(pid, Signal::TERM).unwrap();
        sys.sigaction(Signal::TERM, SigAction::DEFAULT).unwrap();
        5
    })?;
    Ok(status.to_string())
}

fn a_wait_for_a_signal_ends_with_the_end_of_a_child<S: Sys>(sys: &mut S) -> RuleResult {
    let chld = SignalSet(1 << 16);
    sys.sigprocmask(MaskHow::Block, chld).unwrap();
    sys.sigaction(Signal::CHLD, SigAction::DEFAULT).unwrap();
    let Fork::Parent { child } = sys.fork(ExitSignal::Chld, None).unwrap() else { return Err(6) };
    let sent = sys.wait_signal(chld).unwrap();
    let waited = sys.wait4(child, WaitFor::OrdinaryNow).unwrap();
    Ok(words(&[sent.signal.to_string(), sent.by_kernel.to_string(), waited.status.to_string()]))
}

fn a_signal_ignored_while_blocked_is_gone<S: Sys>(sys: &mut S) -> RuleResult {
    let term = SignalSet(1 << 14);
    sys.sigprocmask(MaskHow::Block, term).unwrap();
    let pid = sys.getpid();
    sys.kill(pid, Signal::TERM).unwrap();
    sys.sigaction(Signal::TERM, SigAction::IGNORE).unwrap();
    Ok(errno_name(sys.sigtimedwait(term)))
}

/// The peer sends, and the process dies before it reads.
fn a_process_killed_in_a_read_resets_its_peer<S: Sys>(sys: &mut S) -> RuleResult {
    let (near, far) = sys.socketpair().unwrap();
    let other = child(sys, |_| Errno(0))?;
    sys.close(far).unwrap();
    sys.send(near, b"unread").unwrap();
    sys.kill(other.pid, Signal::KILL).unwrap();
    exit_status(sys, other.pid);
    Ok(errno_name(sys.read(near, &mut [0])))
}

/// The data is larger than any buffer: one send writes all of it.
fn a_full_socket_waits_for_its_reader<S: Sys>(sys: &mut S) -> RuleResult {
    let (near, far) = sys.socketpair().unwrap();
    let writer = match sys.fork(ExitSignal::Chld, None).unwrap() {
        Fork::Child => {
            sys.close(near).unwrap();
            let sent = sys.send(far, &vec![b'x'; 600_000]);
            return Err(if sent == Ok(600_000) { 0 } else { 1 });
        }
        Fork::Parent { child } => child,
    };
    sys.close(far).unwrap();
    let mut buffer = vec![0; 10_000];
    let mut got = 0;
    loop {
        match sys.read(near, &mut buffer).unwrap() {
            0 => break,
            count => got += count,
        }
    }
    Ok(format!("{got} {}", exit_status(sys, writer)))
}

fn a_whole_group_is_killed<S: Sys>(sys: &mut S) -> RuleResult {
    let status = in_child(sys, |sys| {
        sys.setsid().unwrap();
        sys.sigaction(Signal::TERM, SigAction::DEFAULT).unwrap();
        match sys.fork(ExitSignal::Chld, None).unwrap() {
            Fork::Child => {
                sys.kill(Pid(0), Signal::TERM).unwrap();
                0
            }
            Fork::Parent { child } => {
                let _ = sys.wait4(child, WaitFor::Ordinary);
                5
            }
        }
    })?;
    Ok(status.to_string())
}

fn wait_takes_any_child<S: Sys>(sys: &mut S) -> RuleResult {
    let one = five(sys, ExitSignal::Chld)?;
    let other = five(sys, ExitSignal::Chld)?;
    let mut pids = [(); 2].map(|()| sys.wait4(Pid::ANY, WaitFor::Ordinary).unwrap().pid);
    pids.sort();
    Ok((pids == [one, other]).to_string())
}

/// A file without execute permission, two paths below a file, and a path in a missing directory. A stat of a
/// path below a file fails in the same way.
fn files_that_are_not_executed<S: Sys>(sys: &mut S) -> RuleResult {
    let files = [c"/etc/passwd", c"/etc/passwd/sh", c"/etc/passwd/bin/sh", c"/no/such/sh"];
    let mut said: Vec<String> = files.map(|file| name(exec(sys, file))).to_vec();
    said.push(errno_name(sys.link_count(c"/etc/passwd/sh")));
    Ok(words(&said))
}

fn thread_id_of_the_only_thread_is_the_pid<S: Sys>(sys: &mut S) -> RuleResult {
    Ok((sys.gettid() == sys.getpid()).to_string())
}

fn fork_updates_the_cached_thread_id<S: Sys>(sys: &mut S) -> RuleResult {
    let cache = sys.tid_address().unwrap();
    match sys.fork(ExitSignal::Chld, Some(cache)).unwrap() {
        Fork::Child => {
            let own = sys.gettid();
            Err(i32::from(sys.tid_address().unwrap().cached != own.0))
        }
        Fork::Parent { child } => Ok(exit_status(sys, child).to_string()),
    }
}

fn a_process_may_run_on_some_cpu<S: Sys>(sys: &mut S) -> RuleResult {
    Ok((sys.sched_getaffinity().unwrap() != 0).to_string())
}

fn a_name_has_at_most_15_bytes<S: Sys>(sys: &mut S) -> RuleResult {
    sys.set_name(c"a name of 17 char").unwrap();
    let stat = open(sys, c"/proc/self/stat", OpenFlags::ReadOnly).unwrap();
    let mut buffer = [0; 512];
    let len = sys.read(stat, &mut buffer).unwrap();
    let text = std::str::from_utf8(&buffer[..len]).unwrap();
    Ok(text.split(['(', ')']).nth(1).unwrap().to_owned())
}
