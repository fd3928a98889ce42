//! Rules: openat2 below /proc, the contents of a stat file, and the types of sockets.

use nsexec::procfs::is_exiting;

use super::processes::zombie;
use super::*;

rules! {
    User a_path_below_proc_crosses_no_mount = "ok ok ok EXDEV EXDEV";
    User a_path_below_proc_follows_no_magic_link = "ELOOP ELOOP ELOOP";
    User errnos_of_openat2_below_proc = "ENOENT ENOTDIR EBADF ENOENT EACCES";
    User stat_file_shows_a_dead_process = "false false true";
    User stat_file_is_read_only_for_all_users = "EACCES false EACCES";
    User stat_file_of_a_reaped_process_is_esrch = "ESRCH ESRCH";
    Root only_its_owner_searches_a_directory_of_descriptors = "ENOENT ENOENT EACCES ENOENT ENOENT EACCES";
    User the_type_of_a_socket = "1 ENOTSOCK ENOTSOCK ENOTSOCK EBADF EBADF";
}

fn proc<S: Sys>(sys: &mut S) -> Fd {
    open(sys, c"/proc", OpenFlags::Directory).unwrap()
}

fn a_path_below_proc_crosses_no_mount<S: Sys>(sys: &mut S) -> RuleResult {
    let proc = proc(sys);
    let map = sys.openat2(proc, c"self/uid_map", OpenFlags::ReadWrite);
    if map == Err(Errno::ENOSYS) {
        return Ok("skip: needs openat2".into());
    }
    let directory = sys.openat2(proc, c"self", OpenFlags::Directory);
    let below = directory.and_then(|directory| sys.openat2(directory, c"stat", OpenFlags::ReadOnly));
    Ok(words(&[
        errno_name(map),
        errno_name(directory),
        errno_name(below),
        errno_name(sys.openat2(Fd::CWD, c"/proc", OpenFlags::Directory)),
        errno_name(sys.openat2(Fd::CWD, c"/proc/self/uid_map", OpenFlags::ReadOnly)),
    ]))
}

fn a_path_below_proc_follows_no_magic_link<S: Sys>(sys: &mut S) -> RuleResult {
    let proc = proc(sys);
    let fd = path(&format!("self/fd/{}", proc.0));
    let links = [c"self/ns/net", c"self/ns/pid_for_children", &fd];
    Ok(words(&links.map(|link| errno_name(sys.openat2(proc, link, OpenFlags::ReadOnly)))))
}

fn errnos_of_openat2_below_proc<S: Sys>(sys: &mut S) -> RuleResult {
    let proc = proc(sys);
    Ok(words(&[
        errno_name(sys.openat2(proc, c"99999999", OpenFlags::Directory)),
        errno_name(sys.openat2(proc, c"self/uid_map", OpenFlags::Directory)),
        errno_name(sys.openat2(Fd(900), c"self", OpenFlags::Directory)),
        errno_name(sys.openat2(proc, c"self/nothing", OpenFlags::ReadOnly)),
        // Opening it for writing needs CAP_SYS_ADMIN.
        errno_name(sys.openat2(proc, c"self/setgroups", OpenFlags::ReadWrite)),
    ]))
}

/// Returns the state in a process's stat file, or the errno.
fn stat<S: Sys>(sys: &mut S, path: &CStr) -> String {
    let mut buffer = [0; 1280];
    let read = open(sys, path, OpenFlags::ReadOnly).and_then(|fd| {
        let read = sys.read(fd, &mut buffer);
        sys.close(fd).unwrap();
        read
    });
    match read {
        Ok(len) => is_exiting(&buffer[..len]).expect("a stat file").to_string(),
        Err(errno) => errno_name::<()>(Err(errno)),
    }
}

fn stat_file_shows_a_dead_process<S: Sys>(sys: &mut S) -> RuleResult {
    let own = stat(sys, c"/proc/self/stat");
    let waiting = child(sys, |_| Errno(0))?;
    let other = stat(sys, &proc_path(waiting.pid, "stat"));
    waiting.end(sys);
    let dead = zombie(sys)?;
    let dead = stat(sys, &proc_path(dead, "stat"));
    Ok(words(&[own, other, dead]))
}

fn stat_file_is_read_only_for_all_users<S: Sys>(sys: &mut S) -> RuleResult {
    let hidden = child(sys, |sys| code(sys.set_dumpable(false)))?;
    let map = errno_name(open(sys, &proc_path(hidden.pid, "uid_map"), OpenFlags::ReadWrite));
    let read = stat(sys, &proc_path(hidden.pid, "stat"));
    hidden.end(sys);
    Ok(words(&[map, read, errno_name(open(sys, c"/proc/self/stat", OpenFlags::ReadWrite))]))
}

/// Reads through the open file, and opens through the directory.
fn stat_file_of_a_reaped_process_is_esrch<S: Sys>(sys: &mut S) -> RuleResult {
    let child = child(sys, |_| Errno(0))?;
    let directory = open(sys, &proc_path(child.pid, ""), OpenFlags::Directory).unwrap();
    let fd = sys.openat(directory, c"stat", OpenFlags::ReadOnly).unwrap();
    child.end(sys);
    Ok(words(&[
        errno_name(sys.read(fd, &mut [0; 64])),
        errno_name(sys.openat(directory, c"stat", OpenFlags::ReadOnly)),
    ]))
}

/// By the process itself, by a child of the same user, and by a child of another one; listed, and only held.
fn only_its_owner_searches_a_directory_of_descriptors<S: Sys>(sys: &mut S) -> RuleResult {
    let mut said = Vec::new();
    for flags in [OpenFlags::List, OpenFlags::Directory] {
        let directory = open(sys, c"/proc/self/fd", flags).unwrap();
        let search = |sys: &mut S| code(sys.openat(directory, c"uid_map", OpenFlags::ReadOnly)).0;
        said.push(name(search(sys)));
        said.push(name(in_child(sys, search)?));
        let other = in_child(sys, |sys| {
            sys.setresuid(64_321).unwrap();
            search(sys)
        })?;
        said.push(name(other));
    }
    Ok(words(&said))
}

fn the_type_of_a_socket<S: Sys>(sys: &mut S) -> RuleResult {
    let (socket, _) = sys.socketpair().unwrap();
    let (pipe, _) = sys.pipe2().unwrap();
    let own = sys.getpid();
    let pidfd = sys.pidfd_open(own).unwrap();
    let file = open(sys, c"/proc/self/uid_map", OpenFlags::ReadOnly).unwrap();
    let place = open(sys, c"/proc/self", OpenFlags::Directory).unwrap();
    let kind = sys.socket_type(socket).unwrap().0.to_string();
    let refused = [pipe, pidfd, file, place, Fd(900)].map(|fd| errno_name(sys.socket_type(fd)));
    Ok(words(&[kind, words(&refused)]))
}
