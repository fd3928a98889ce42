//! Rules: the clone that creates stage 1 of a start through a child, and the siblings that this stage makes.

use super::*;

rules! {
    User child_without_exit_signal_needs_wclone = "ECHILD 5 ECHILD";
    User sibling_of_that_child_has_no_exit_signal = "5 ECHILD 6 ECHILD";
    User ignored_sigchld_reaps_neither = "5 6";
    User that_child_is_in_no_new_namespace = "false EPERM";
    User pidfd_of_that_child_reports_its_end = "1 5";
    User clone_child_refreshes_the_cached_thread_id = "0 0";
    Root sibling_of_that_child_fills_a_new_pid_namespace = "1 5 6";
    Root sibling_of_that_child_enters_its_new_time_namespace = "ok EACCES ok";
}

/// Makes a child without an exit signal that runs `body`. Returns its pid in the parent.
fn stage_1<S: Sys>(sys: &mut S, body: impl FnOnce(&mut S) -> Result<i32, i32>) -> Result<Pid, i32> {
    match sys.clone_child(None).unwrap() {
        Fork::Child => Err(body(sys).unwrap_or_else(|status| status)),
        Fork::Parent { child } => Ok(child),
    }
}

/// Makes a sibling of this process that exits with `body`.
fn sibling<S: Sys>(sys: &mut S, body: impl FnOnce(&mut S) -> i32) -> Result<Pid, i32> {
    match sys.clone_sibling(None).unwrap() {
        Fork::Child => Err(body(sys)),
        Fork::Parent { child } => Ok(child),
    }
}

/// Returns the status of any child without an exit signal that has ended, or the errno.
fn reap<S: Sys>(sys: &mut S, which: WaitFor) -> String {
    match sys.wait4(Pid::ANY, which) {
        Ok(Waited { status: WaitStatus::Exited(status), .. }) => status.to_string(),
        other => errno_name(other),
    }
}

fn child_without_exit_signal_needs_wclone<S: Sys>(sys: &mut S) -> RuleResult {
    stage_1(sys, |_| Ok(5))?;
    Ok(words(&[reap(sys, WaitFor::Ordinary), reap(sys, WaitFor::Stages), reap(sys, WaitFor::Stages)]))
}

/// Returns the ends of stage 1 and of its sibling, stage 2.
fn both_ends<S: Sys>(sys: &mut S, wait: impl Fn(&mut S) -> Option<String>) -> RuleResult {
    let (ours, theirs) = sys.socketpair().unwrap();
    let one = stage_1(sys, |sys| {
        let two = sibling(sys, |_| 6)?;
        sys.send(theirs, &two.0.to_ne_bytes()).unwrap();
        Ok(5)
    })?;
    let mut two = [0; 4];
    sys.read(ours, &mut two).unwrap();
    let mut said = Vec::new();
    for pid in [one, Pid(i32::from_ne_bytes(two))] {
        said.push(status_of(sys, pid, WaitFor::Stages).to_string());
        said.extend(wait(sys));
    }
    Ok(words(&said))
}

fn sibling_of_that_child_has_no_exit_signal<S: Sys>(sys: &mut S) -> RuleResult {
    both_ends(sys, |sys| Some(reap(sys, WaitFor::Ordinary)))
}

fn ignored_sigchld_reaps_neither<S: Sys>(sys: &mut S) -> RuleResult {
    sys.sigaction(Signal::CHLD, SigAction::IGNORE).unwrap();
    both_ends(sys, |_| None)
}

fn that_child_is_in_no_new_namespace<S: Sys>(sys: &mut S) -> RuleResult {
    let pid = stage_1(sys, |sys| Ok(i32::from(sys.getpid() == Pid(1))))?;
    let is_first = status_of(sys, pid, WaitFor::Stages) == 1;
    // It has no more privilege than its parent.
    let pid = stage_1(sys, |sys| Ok(code(join(sys, c"/proc/self/ns/uts", CloneFlags::NEWUTS)).0))?;
    Ok(words(&[is_first.to_string(), name(status_of(sys, pid, WaitFor::Stages))]))
}

fn pidfd_of_that_child_reports_its_end<S: Sys>(sys: &mut S) -> RuleResult {
    let pid = stage_1(sys, |_| Ok(5))?;
    let pidfd = sys.pidfd_open(pid).unwrap();
    let ready = sys.poll(&mut [PollFd::new(pidfd, PollEvents::IN)], -1).unwrap();
    Ok(words(&[ready.to_string(), status_of(sys, pid, WaitFor::Stages).to_string()]))
}

fn clone_child_refreshes_the_cached_thread_id<S: Sys>(sys: &mut S) -> RuleResult {
    let tid = sys.tid_address().ok();
    let mut said = Vec::new();
    for given in [tid, None] {
        let pid = match sys.clone_child(given).unwrap() {
            Fork::Child => {
                let now = sys.tid_address().map(|now| (now.address, now.cached));
                let wanted = given.map_or((0, 0), |tid| (tid.address, sys.getpid().0));
                return Err(i32::from(tid.is_some() && now != Ok(wanted)));
            }
            Fork::Parent { child } => child,
        };
        said.push(status_of(sys, pid, WaitFor::Stages).to_string());
    }
    Ok(words(&said))
}

fn sibling_of_that_child_fills_a_new_pid_namespace<S: Sys>(sys: &mut S) -> RuleResult {
    let (ours, theirs) = sys.socketpair().unwrap();
    let (seen, says) = sys.socketpair().unwrap();
    let one = stage_1(sys, |sys| {
        sys.unshare(CloneFlags::NEWPID).unwrap();
        let two = sibling(sys, |sys| {
            let first = u8::from(sys.getpid() == Pid(1));
            sys.send(says, &[first]).unwrap();
            6
        })?;
        // The number is that of this process's own pid namespace, and so of its parent's.
        sys.send(theirs, &two.0.to_ne_bytes()).unwrap();
        Ok(5)
    })?;
    let (mut first, mut two) = ([0], [0; 4]);
    sys.read(seen, &mut first).unwrap();
    sys.read(ours, &mut two).unwrap();
    let ends =
        [one, Pid(i32::from_ne_bytes(two))].map(|pid| status_of(sys, pid, WaitFor::Stages).to_string());
    Ok(words(&[&[first[0].to_string()], &ends[..]].concat()))
}

/// Stage 1 writes the offsets of its new time namespace, which its sibling enters.
fn sibling_of_that_child_enters_its_new_time_namespace<S: Sys>(sys: &mut S) -> RuleResult {
    let (ours, theirs) = sys.socketpair().unwrap();
    let pid = stage_1(sys, |sys| {
        let offsets = open(sys, c"/proc/self/timens_offsets", OpenFlags::ReadWrite).unwrap();
        sys.unshare(CloneFlags::NEWTIME).unwrap();
        let before = code(sys.write(offsets, b"boottime 100 0\n"));
        // A sibling that is in the namespace.
        let waits = sibling(sys, |sys| sys.read(ours, &mut [0]).map_or(1, |_| 0))?;
        let after = code(sys.write(offsets, b"boottime 200 0\n"));
        let ended = code(sys.kill(waits, Signal::KILL));
        sys.send(theirs, &[before.0, after.0, ended.0].map(|errno| errno as u8)).unwrap();
        Ok(5)
    })?;
    assert_eq!(status_of(sys, pid, WaitFor::Stages), 5);
    assert!(sys.wait4(Pid::ANY, WaitFor::Stages).is_ok());
    let mut said = [0; 3];
    sys.read(ours, &mut said).unwrap();
    Ok(words(&said.map(|errno| name(i32::from(errno)))))
}
