//! Rules: descriptors, pipes, sockets, polls, paths.

use super::*;

rules! {
    User a_new_descriptor_takes_the_lowest_number = "true";
    User a_pipe_ends_when_its_last_copy_is_closed = "waits, then 0";
    User a_socket_ends_when_its_last_copy_is_closed = "waits, then 0";
    User unread_bytes_reset_the_peer_once = "ECONNRESET 0";
    User queued_bytes_come_before_the_reset = "2 ECONNRESET 0";
    User a_send_to_a_dead_peer_is_epipe = "EPIPE EAGAIN";
    User a_write_to_a_dead_peer_kills = "141";
    User a_blocked_sigpipe_stays_pending = "EPIPE ok";
    User a_descriptor_travels_with_its_byte = "0 true waits, then 0";
    User plain_read_closes_a_passed_descriptor = "1 0 none none";
    User passed_descriptor_is_closed_with_its_socket = "waits, then 0";
    User receive_of_a_byte_without_a_descriptor = "x none end EPIPE ENOTSOCK EBADF";
    User dup3_closes_the_previous_file = "0 1 EINVAL EBADF EBADF";
    User dup_to_gives_a_number_and_no_close_on_exec = "0 1 EINVAL EBADF EBADF";
    User dup_above_takes_the_lowest_free_number = "true true EBADF EINVAL";
    User code_of_the_caller_succeeds = "ok";
    User chdir_needs_a_directory = "ok ENOENT ENOENT ENOTDIR";
    User o_path_descriptor_cannot_be_read = "EBADF EBADF true";
    User a_full_pipe_refuses_a_record_whole = "16 EAGAIN EAGAIN";
    User send_to_a_pipe_is_enotsock = "ENOTSOCK";
    User the_wrong_end_of_a_pipe = "EBADF EBADF";
    User a_number_without_a_descriptor = "EBADF EBADF EBADF EBADF EBADF";
    User a_poll_of_pipes = "0 4 10 8";
    User a_poll_of_sockets = "4 5 15";
    User a_poll_gives_up = "0";
    User a_pidfd_is_readable_when_its_process_is_dead = "0 1";
    User proc_file_does_not_support_nowait = "EOPNOTSUPP";
    User close_on_exec_closes_with_the_exec = "waits, then 0";
    User close_range_sets_close_on_exec_again = "waits, then 0";
    User close_range_closes_from_a_number_on = "ok EBADF ok ok";
    User close_range_and_numbers_without_a_descriptor = "ok ok EBADF";
    User close_range_closes_the_numbers_of_the_range = "ok EBADF EBADF 1 EINVAL ok";
    User list_continues_after_closed_descriptors = "true";
    User proc_is_not_read_only = "false ENOENT";
    User reading_a_namespace_or_directory = "EINVAL EISDIR EBADF";
    User paths_that_cannot_be_opened_as_asked = "ENOTDIR EISDIR ENAMETOOLONG ENOENT ENOENT EACCES";
    User the_types_of_file_systems = "true true true";
    User the_list_of_descriptors_is_complete = "true 0";
    User task_directory_of_one_thread_has_three_links = "3";
    User proc_self_is_a_link_to_ones_own_number = "true true true";
    Root proc_self_keeps_the_numbering_of_its_proc = "false true";
    User readlink_of_a_non_link_fails = "EINVAL EINVAL ENOENT EINVAL";
}

fn a_new_descriptor_takes_the_lowest_number<S: Sys>(sys: &mut S) -> RuleResult {
    let (one, other) = sys.socketpair().unwrap();
    sys.close(one).unwrap();
    sys.close(other).unwrap();
    let again = sys.pipe2().unwrap();
    Ok((again == (one, other) && one < other).to_string())
}

/// Returns the result of a read of `near` before and after the end of a child that holds a copy of `far`.
fn last_copy<S: Sys>(sys: &mut S, near: Fd, far: Fd) -> RuleResult {
    let other = child(sys, |_| Errno(0))?;
    sys.close(far).unwrap();
    let mut fds = [PollFd::new(near, PollEvents::IN)];
    let before = if sys.poll(&mut fds, 0) == Ok(0) { "waits" } else { "does not wait" };
    other.end(sys);
    Ok(format!("{before}, then {}", sys.read(near, &mut [0; 4]).unwrap()))
}

fn a_pipe_ends_when_its_last_copy_is_closed<S: Sys>(sys: &mut S) -> RuleResult {
    let (read, write) = sys.pipe2().unwrap();
    last_copy(sys, read, write)
}

fn a_socket_ends_when_its_last_copy_is_closed<S: Sys>(sys: &mut S) -> RuleResult {
    let (one, other) = sys.socketpair().unwrap();
    last_copy(sys, one, other)
}

fn reads<S: Sys>(sys: &mut S, fd: Fd, count: usize) -> String {
    let mut texts = Vec::new();
    for _ in 0..count {
        texts.push(match sys.read(fd, &mut [0; 8]) {
            Ok(count) => count.to_string(),
            Err(errno) => errno_name::<()>(Err(errno)),
        });
    }
    words(&texts)
}

fn unread_bytes_reset_the_peer_once<S: Sys>(sys: &mut S) -> RuleResult {
    let (one, other) = sys.socketpair().unwrap();
    sys.send(one, b"unread").unwrap();
    sys.close(other).unwrap();
    Ok(reads(sys, one, 2))
}

fn queued_bytes_come_before_the_reset<S: Sys>(sys: &mut S) -> RuleResult {
    let (one, other) = sys.socketpair().unwrap();
    sys.send(one, b"unread").unwrap();
    sys.send(other, b"ok").unwrap();
    sys.close(other).unwrap();
    Ok(reads(sys, one, 3))
}

fn block_sigpipe<S: Sys>(sys: &mut S) {
    sys.sigaction(Signal::PIPE, SigAction::DEFAULT).unwrap();
    sys.sigprocmask(MaskHow::Block, SignalSet::PIPE).unwrap();
}

fn a_send_to_a_dead_peer_is_epipe<S: Sys>(sys: &mut S) -> RuleResult {
    block_sigpipe(sys);
    let (one, other) = sys.socketpair().unwrap();
    sys.close(other).unwrap();
    let sent = errno_name(sys.send(one, b"x"));
    Ok(words(&[sent, errno_name(sys.sigtimedwait(SignalSet::PIPE))]))
}

fn a_write_to_a_dead_peer_kills<S: Sys>(sys: &mut S) -> RuleResult {
    let status = in_child(sys, |sys| {
        sys.sigaction(Signal::PIPE, SigAction::DEFAULT).unwrap();
        let (read, write) = sys.pipe2().unwrap();
        sys.close(read).unwrap();
        code(sys.write(write, b"x")).0
    })?;
    Ok(status.to_string())
}

fn a_blocked_sigpipe_stays_pending<S: Sys>(sys: &mut S) -> RuleResult {
    block_sigpipe(sys);
    let (read, write) = sys.pipe2().unwrap();
    sys.close(read).unwrap();
    let written = errno_name(sys.write_nowait(write, b"x"));
    Ok(words(&[written, errno_name(sys.sigtimedwait(SignalSet::PIPE))]))
}

fn a_full_pipe_refuses_a_record_whole<S: Sys>(sys: &mut S) -> RuleResult {
    let (read, write) = sys.pipe2().unwrap();
    let mut count = 0;
    let full = loop {
        match sys.write_nowait(write, &[b'x'; 4096]) {
            Ok(_) => count += 1,
            result => break errno_name(result),
        }
    };
    // The pipe has room, but not enough. It is empty on a kernel without non-blocking writes to a pipe.
    if count > 0 {
        sys.read(read, &mut [0; 100]).unwrap();
    }
    Ok(words(&[count.to_string(), full, errno_name(sys.write_nowait(write, &[b'x'; 200]))]))
}

fn send_to_a_pipe_is_enotsock<S: Sys>(sys: &mut S) -> RuleResult {
    let (_, write) = sys.pipe2().unwrap();
    Ok(errno_name(sys.send(write, b"x")))
}

fn the_wrong_end_of_a_pipe<S: Sys>(sys: &mut S) -> RuleResult {
    let (read, write) = sys.pipe2().unwrap();
    Ok(words(&[errno_name(sys.read(write, &mut [0])), errno_name(sys.write(read, b"x"))]))
}

fn a_number_without_a_descriptor<S: Sys>(sys: &mut S) -> RuleResult {
    const NONE: Fd = Fd(900);
    Ok(words(&[
        errno_name(sys.close(NONE)),
        errno_name(sys.read(NONE, &mut [0])),
        errno_name(sys.write(NONE, b"x")),
        errno_name(sys.fstatfs(NONE)),
        errno_name(sys.setns(NONE, CloneFlags::NEWNET)),
    ]))
}

/// Returns the events of a poll without a timeout, in hexadecimal.
fn polled<S: Sys>(sys: &mut S, fd: Fd) -> String {
    let mut fds = [PollFd::new(fd, PollEvents(PollEvents::IN.0 | PollEvents::OUT.0))];
    sys.poll(&mut fds, 0).unwrap();
    format!("{:x}", fds[0].revents.0)
}

fn a_poll_of_pipes<S: Sys>(sys: &mut S) -> RuleResult {
    let (read, write) = sys.pipe2().unwrap();
    let mut said = vec![polled(sys, read), polled(sys, write)];
    sys.close(write).unwrap();
    said.push(polled(sys, read));
    let (read, write) = sys.pipe2().unwrap();
    sys.close(read).unwrap();
    // The pipe has no reader, so POLLOUT is unspecified.
    let revents = i16::from_str_radix(&polled(sys, write), 16).unwrap();
    said.push(format!("{:x}", revents & !PollEvents::OUT.0));
    Ok(words(&said))
}

fn a_poll_of_sockets<S: Sys>(sys: &mut S) -> RuleResult {
    let (one, other) = sys.socketpair().unwrap();
    let mut said = vec![polled(sys, one)];
    sys.send(other, b"x").unwrap();
    said.push(polled(sys, one));
    sys.close(other).unwrap();
    said.push(polled(sys, one));
    Ok(words(&said))
}

fn a_poll_gives_up<S: Sys>(sys: &mut S) -> RuleResult {
    let (read, _) = sys.pipe2().unwrap();
    Ok(sys.poll(&mut [PollFd::new(read, PollEvents::IN)], 20).unwrap().to_string())
}

fn a_pidfd_is_readable_when_its_process_is_dead<S: Sys>(sys: &mut S) -> RuleResult {
    let other = child(sys, |_| Errno(0))?;
    let Ok(pidfd) = sys.pidfd_open(other.pid) else { return Ok("skip: no pidfd_open".into()) };
    let mut fds = [PollFd::new(pidfd, PollEvents::IN)];
    let before = sys.poll(&mut fds, 0).unwrap();
    sys.kill(other.pid, Signal::KILL).unwrap();
    sys.poll(&mut fds, -1).unwrap();
    Ok(words(&[before.to_string(), fds[0].revents.0.to_string()]))
}

fn proc_file_does_not_support_nowait<S: Sys>(sys: &mut S) -> RuleResult {
    let fd = open(sys, c"/proc/self/oom_score_adj", OpenFlags::ReadWrite).unwrap();
    Ok(errno_name(sys.write_nowait(fd, b"0")))
}

fn close_on_exec_closes_with_the_exec<S: Sys>(sys: &mut S) -> RuleResult {
    closed_by_the_exec(sys, |_, _| {})
}

fn close_range_sets_close_on_exec_again<S: Sys>(sys: &mut S) -> RuleResult {
    closed_by_the_exec(sys, |sys, far| {
        sys.set_cloexec(far, false).unwrap();
        sys.close_range_cloexec(Fd(3)).unwrap();
    })
}

fn close_range_closes_from_a_number_on<S: Sys>(sys: &mut S) -> RuleResult {
    let (one, other) = sys.socketpair().unwrap();
    Ok(words(&[
        errno_name(sys.close_range(u32::try_from(other.0).unwrap(), u32::MAX)),
        errno_name(sys.close(other)),
        errno_name(sys.close(one)),
        errno_name(sys.close_range(900, u32::MAX)),
    ]))
}

fn close_range_and_numbers_without_a_descriptor<S: Sys>(sys: &mut S) -> RuleResult {
    let (one, _) = sys.socketpair().unwrap();
    Ok(words(&[
        errno_name(sys.close_range_cloexec(Fd(900))),
        errno_name(sys.set_cloexec(one, true)),
        errno_name(sys.set_cloexec(Fd(900), true)),
    ]))
}

fn close_range_closes_the_numbers_of_the_range<S: Sys>(sys: &mut S) -> RuleResult {
    let (one, _) = sys.socketpair().unwrap();
    let copies = [20, 21, 23].map(|number| sys.dup_above(one, Fd(number)).unwrap());
    let closed = sys.close_range(20, 22);
    Ok(words(&[
        errno_name(closed),
        errno_name(sys.close(copies[0])),
        errno_name(sys.close(copies[1])),
        sys.send(copies[2], b"x").unwrap().to_string(),
        errno_name(sys.close_range(9, 8)),
        errno_name(sys.close_range(900, u32::MAX)),
    ]))
}

fn list_continues_after_closed_descriptors<S: Sys>(sys: &mut S) -> RuleResult {
    let (one, _) = sys.socketpair().unwrap();
    let list = open(sys, c"/proc/self/fd", OpenFlags::List).unwrap();
    let copies: Vec<Fd> = (20..28).map(|number| sys.dup_above(one, Fd(number)).unwrap()).collect();
    let mut seen = Vec::new();
    // Room for three entries.
    let mut buffer = [0; 72];
    loop {
        let len = sys.getdents64(list, &mut buffer).unwrap();
        if len == 0 {
            return Ok((seen == copies).to_string());
        }
        for number in names_of(&buffer[..len]).iter().filter_map(|name| name.parse().ok()) {
            if copies.contains(&Fd(number)) {
                sys.close(Fd(number)).unwrap();
                seen.push(Fd(number));
            }
        }
    }
}

/// Returns the names of the records of a list.
fn names_of(mut rest: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    while !rest.is_empty() {
        let length = usize::from(u16::from_ne_bytes([rest[16], rest[17]]));
        let name = CStr::from_bytes_until_nul(&rest[19..length]).unwrap();
        names.push(name.to_str().unwrap().to_owned());
        rest = &rest[length..];
    }
    names
}

fn proc_is_not_read_only<S: Sys>(sys: &mut S) -> RuleResult {
    Ok(words(&[sys.is_read_only(c"/proc").unwrap().to_string(), errno_name(sys.is_read_only(c"/nowhere"))]))
}

/// Returns the state of a socket before and after a child that has its other end `far` executes a program.
/// The child calls `first` before the exec.
fn closed_by_the_exec<S: Sys>(sys: &mut S, first: impl FnOnce(&mut S, Fd)) -> RuleResult {
    let (near, far) = sys.socketpair().unwrap();
    let (start, started) = sys.socketpair().unwrap();
    let child = match sys.fork(ExitSignal::Chld, None).unwrap() {
        Fork::Child => {
            sys.close(near).unwrap();
            sys.close(start).unwrap();
            sys.read(started, &mut [0]).unwrap();
            first(sys, far);
            return Err(exec(sys, c"/bin/sleep"));
        }
        Fork::Parent { child } => child,
    };
    sys.close(far).unwrap();
    sys.close(started).unwrap();
    let mut fds = [PollFd::new(near, PollEvents::IN)];
    let before = if sys.poll(&mut fds, 0) == Ok(0) { "waits" } else { "does not wait" };
    sys.send(start, b"x").unwrap();
    let after = sys.read(near, &mut [0]).unwrap();
    // The child is alive.
    sys.kill(child, Signal::KILL).unwrap();
    assert_eq!(exit_status(sys, child), 128 + 9);
    Ok(format!("{before}, then {after}"))
}

fn reading_a_namespace_or_directory<S: Sys>(sys: &mut S) -> RuleResult {
    let ns = open(sys, c"/proc/self/ns/net", OpenFlags::Namespace).unwrap();
    let list = open(sys, c"/proc/self/fd", OpenFlags::List).unwrap();
    let dir = open(sys, c"/proc/self", OpenFlags::Directory).unwrap();
    Ok(words(&[
        errno_name(sys.read(ns, &mut [0])),
        errno_name(sys.read(list, &mut [0])),
        errno_name(sys.read(dir, &mut [0])),
    ]))
}

fn paths_that_cannot_be_opened_as_asked<S: Sys>(sys: &mut S) -> RuleResult {
    let long = path(&format!("/{}", "a".repeat(4096)));
    Ok(words(&[
        errno_name(open(sys, c"/proc/self/uid_map", OpenFlags::Directory)),
        errno_name(open(sys, c"/etc", OpenFlags::ReadWrite)),
        errno_name(open(sys, &long, OpenFlags::ReadOnly)),
        errno_name(open(sys, c"/proc/99999999", OpenFlags::Directory)),
        errno_name(open(sys, c"/proc/self/ns/nothing", OpenFlags::Namespace)),
        errno_name(open(sys, c"/proc/self/setgroups", OpenFlags::ReadWrite)),
    ]))
}

fn the_types_of_file_systems<S: Sys>(sys: &mut S) -> RuleResult {
    let ns = open(sys, c"/proc/self/ns/net", OpenFlags::Namespace).unwrap();
    let map = open(sys, c"/proc/self/uid_map", OpenFlags::ReadOnly).unwrap();
    let (pipe, _) = sys.pipe2().unwrap();
    let pipe = sys.fstatfs(pipe).unwrap();
    Ok(words(&[
        (sys.fstatfs(ns) == Ok(FsType::NSFS)).to_string(),
        (sys.fstatfs(map) == Ok(FsType::PROC)).to_string(),
        (pipe != FsType::NSFS && pipe != FsType::PROC).to_string(),
    ]))
}

fn the_list_of_descriptors_is_complete<S: Sys>(sys: &mut S) -> RuleResult {
    let (one, other) = sys.pipe2().unwrap();
    let list = open(sys, c"/proc/self/fd", OpenFlags::List).unwrap();
    let mut names = Vec::new();
    let mut buffer = [0; 256];
    let end = loop {
        let len = sys.getdents64(list, &mut buffer).unwrap();
        if len == 0 {
            break len;
        }
        names.extend(names_of(&buffer[..len]));
    };
    let all = [one, other, list].iter().all(|fd| names.contains(&fd.0.to_string()));
    Ok(words(&[all.to_string(), end.to_string()]))
}

fn task_directory_of_one_thread_has_three_links<S: Sys>(sys: &mut S) -> RuleResult {
    Ok(sys.link_count(c"/proc/self/task").unwrap().to_string())
}

fn proc_self<S: Sys>(sys: &mut S) -> String {
    let mut buffer = [0; 16];
    let len = sys.readlink(c"/proc/self", &mut buffer).unwrap();
    String::from_utf8(buffer[..len].to_vec()).unwrap()
}

fn proc_self_is_a_link_to_ones_own_number<S: Sys>(sys: &mut S) -> RuleResult {
    let own = proc_self(sys);
    let mut short = [0; 1];
    let cut = sys.readlink(c"/proc/self", &mut short) == Ok(1) && own.as_bytes().starts_with(&short);
    let before = own == sys.getpid().to_string();
    let child = in_child(sys, |sys| i32::from(proc_self(sys) == sys.getpid().to_string()))?;
    Ok(words(&[before.to_string(), cut.to_string(), (child == 1).to_string()]))
}

fn proc_self_keeps_the_numbering_of_its_proc<S: Sys>(sys: &mut S) -> RuleResult {
    sys.unshare(CloneFlags::NEWPID).unwrap();
    let (ours, theirs) = sys.socketpair().unwrap();
    match sys.fork(ExitSignal::Chld, None).unwrap() {
        Fork::Child => {
            let number = proc_self(sys);
            let own = sys.getpid().to_string();
            sys.send(theirs, number.as_bytes()).unwrap();
            Err(i32::from(number == own))
        }
        Fork::Parent { child } => {
            let mut number = [0; 16];
            let len = sys.read(ours, &mut number).unwrap();
            let outer = number[..len] == *child.to_string().as_bytes();
            let own = exit_status(sys, child) == 1;
            Ok(words(&[own.to_string(), outer.to_string()]))
        }
    }
}

fn readlink_of_a_non_link_fails<S: Sys>(sys: &mut S) -> RuleResult {
    let mut buffer = [0; 16];
    Ok(words(&[
        errno_name(sys.readlink(c"/proc/self/uid_map", &mut buffer)),
        errno_name(sys.readlink(c"/proc/self/task", &mut buffer)),
        errno_name(sys.readlink(c"/proc/99999999", &mut buffer)),
        errno_name(sys.readlink(c"/proc/self", &mut [])),
    ]))
}

fn shown(received: SysResult<Received>) -> String {
    match received {
        Ok(Received { byte: None, .. }) => "end".into(),
        Ok(Received { byte: Some(byte), fd, truncated }) => {
            let byte = if byte == 0 { "0".into() } else { char::from(byte).to_string() };
            let fd = if fd.is_some() { "fd" } else { "none" };
            format!("{byte} {fd}{}", if truncated { " cut" } else { "" })
        }
        Err(errno) => errno_name::<()>(Err(errno)),
    }
}

fn a_descriptor_travels_with_its_byte<S: Sys>(sys: &mut S) -> RuleResult {
    let (one, other) = sys.socketpair().unwrap();
    let (read, write) = sys.pipe2().unwrap();
    sys.send_fd(one, write).unwrap();
    sys.close(write).unwrap();
    let Received { byte, fd, .. } = sys.receive_fd(other).unwrap();
    let fd = fd.unwrap();
    // The new descriptor is the lowest free number, and refers to the same open file.
    let lowest = fd == write;
    let mut fds = [PollFd::new(read, PollEvents::IN)];
    let before = if sys.poll(&mut fds, 0) == Ok(0) { "waits" } else { "does not wait" };
    sys.close(fd).unwrap();
    let after = sys.read(read, &mut [0; 4]).unwrap();
    Ok(format!("{} {lowest} {before}, then {after}", byte.unwrap()))
}

fn plain_read_closes_a_passed_descriptor<S: Sys>(sys: &mut S) -> RuleResult {
    let (one, other) = sys.socketpair().unwrap();
    let (read, write) = sys.pipe2().unwrap();
    sys.send_fd(one, write).unwrap();
    sys.send(one, b"xy").unwrap();
    sys.close(write).unwrap();
    let count = sys.read(other, &mut [0; 1]).unwrap();
    let end = sys.read(read, &mut [0; 4]).unwrap();
    let rest = [0, 1].map(|_| if sys.receive_fd(other).unwrap().fd.is_some() { "fd" } else { "none" });
    Ok(format!("{count} {end} {} {}", rest[0], rest[1]))
}

fn passed_descriptor_is_closed_with_its_socket<S: Sys>(sys: &mut S) -> RuleResult {
    let (one, other) = sys.socketpair().unwrap();
    let (read, write) = sys.pipe2().unwrap();
    sys.send_fd(one, write).unwrap();
    sys.close(write).unwrap();
    let mut fds = [PollFd::new(read, PollEvents::IN)];
    let before = if sys.poll(&mut fds, 0) == Ok(0) { "waits" } else { "does not wait" };
    sys.close(other).unwrap();
    sys.close(one).unwrap();
    Ok(format!("{before}, then {}", sys.read(read, &mut [0; 4]).unwrap()))
}

fn receive_of_a_byte_without_a_descriptor<S: Sys>(sys: &mut S) -> RuleResult {
    let (one, other) = sys.socketpair().unwrap();
    let (read, _) = sys.pipe2().unwrap();
    sys.send(one, b"x").unwrap();
    let alone = shown(sys.receive_fd(other));
    sys.close(one).unwrap();
    let end = shown(sys.receive_fd(other));
    let dead = errno_name(sys.send_fd(other, read));
    Ok(format!(
        "{alone} {end} {dead} {} {}",
        shown(sys.receive_fd(read)),
        errno_name(sys.send_fd(other, Fd(900)))
    ))
}

fn dup3_closes_the_previous_file<S: Sys>(sys: &mut S) -> RuleResult {
    closes_the_previous_file(sys, S::dup3)
}

fn dup_to_gives_a_number_and_no_close_on_exec<S: Sys>(sys: &mut S) -> RuleResult {
    closes_the_previous_file(sys, S::dup_to)
}

fn closes_the_previous_file<S: Sys>(
    sys: &mut S,
    duplicate: fn(&mut S, Fd, Fd) -> SysResult<()>,
) -> RuleResult {
    let (one, other) = sys.socketpair().unwrap();
    let (read, write) = sys.pipe2().unwrap();
    duplicate(sys, write, other).unwrap();
    let end = sys.read(one, &mut [0; 4]).unwrap();
    sys.write(other, b"x").unwrap();
    let through = sys.read(read, &mut [0; 4]).unwrap();
    let same = errno_name(duplicate(sys, write, write));
    let closed = errno_name(duplicate(sys, Fd(900), other));
    let beyond = errno_name(duplicate(sys, write, Fd(-1)));
    Ok(format!("{end} {through} {same} {closed} {beyond}"))
}

fn dup_above_takes_the_lowest_free_number<S: Sys>(sys: &mut S) -> RuleResult {
    let (read, write) = sys.pipe2().unwrap();
    let first = sys.dup_above(write, Fd(60)).unwrap();
    let second = sys.dup_above(write, Fd(60)).unwrap();
    for fd in [write, first] {
        sys.close(fd).unwrap();
    }
    sys.write(second, b"x").unwrap();
    let through = sys.read(read, &mut [0; 4]) == Ok(1);
    let closed = errno_name(sys.dup_above(Fd(900), Fd(60)));
    let negative = errno_name(sys.dup_above(read, Fd(-1)));
    Ok(format!("{} {through} {closed} {negative}", (first, second) == (Fd(60), Fd(61))))
}

fn code_of_the_caller_succeeds<S: Sys>(sys: &mut S) -> RuleResult {
    Ok(errno_name(sys.run_hook(Hook { number: 0, code: &|| Ok(()) })))
}

fn chdir_needs_a_directory<S: Sys>(sys: &mut S) -> RuleResult {
    let found = [c"/proc/self/fd", c"", c"/proc/nothing", c"/proc/self/oom_score_adj"];
    Ok(found.map(|path| errno_name(sys.chdir(path))).join(" "))
}

fn o_path_descriptor_cannot_be_read<S: Sys>(sys: &mut S) -> RuleResult {
    let place = open(sys, c"/proc/self/oom_score_adj", OpenFlags::Path).unwrap();
    let (read, written) = (errno_name(sys.read(place, &mut [0; 4])), errno_name(sys.write(place, b"0")));
    Ok(format!("{read} {written} {}", sys.fstatfs(place) == Ok(FsType::PROC)))
}
