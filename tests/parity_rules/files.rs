//! Rules: files that a process creates, and the programs in them.

use super::*;

rules! {
    User seals_are_added_once_and_keep_the_content = "0 ok 15 EPERM EPERM EPERM";
    User seals_of_other_files_fail = "EINVAL EBADF EBADF EPERM";
    User a_program_in_memory_runs_while_it_is_open_for_writing = "0";
    User truncated_program_is_not_executed = "ENOEXEC";
    User file_open_for_writing_is_not_executed = "ETXTBSY 0";
    User a_file_runs_by_its_path_in_proc = "0";
    User a_file_without_permission_does_not_run = "EACCES";
    User an_unnamed_file_has_no_link = "0";
    User a_named_file_is_new_until_its_name_is_taken = "ok EEXIST 1 ok 0 ENOENT";
    User errnos_of_creating_a_file = "ENOENT ENOENT ENOTDIR";
    User a_copy_goes_on_where_the_last_call_stopped = "3 0 true";
    User script_runs_with_its_interpreter = "0 ENOENT ENOENT ENOEXEC";
    User a_process_whose_exec_failed_executes_another_program = "0";
    User o_path_descriptor_cannot_be_copied_to = "EBADF EBADF EBADF";
}

fn memfd<S: Sys>(sys: &mut S) -> Fd {
    // Kernels before 6.3 lack MFD_EXEC.
    sys.memfd_create(c"parity", true).or_else(|_| sys.memfd_create(c"parity", false)).unwrap()
}

/// Copies the first `len` bytes of /bin/true.
fn copy<S: Sys>(sys: &mut S, to: Fd, len: usize) {
    let program = open(sys, c"/bin/true", OpenFlags::ReadOnly).unwrap();
    let mut left = len;
    while left > 0 {
        match sys.sendfile(to, program, left).unwrap() {
            0 => break,
            count => left -= count,
        }
    }
    sys.close(program).unwrap();
}

const ALL: usize = 1 << 30;

/// Returns the exit status of a child that executes this file.
fn executes<S: Sys>(sys: &mut S, fd: Fd) -> Result<i32, i32> {
    in_child(sys, |sys| {
        let mut slots = [None; 2];
        let argv = ExecArgs::build(b"true\0", &mut slots).unwrap();
        sys.execveat(fd, &argv, &ExecArgs::EMPTY).0
    })
}

fn unnamed<S: Sys>(sys: &mut S) -> Fd {
    open(sys, c"/tmp", OpenFlags::Unnamed).unwrap()
}

fn path_of(fd: Fd) -> CString {
    path(&format!("/proc/self/fd/{}", fd.0))
}

fn seals_are_added_once_and_keep_the_content<S: Sys>(sys: &mut S) -> RuleResult {
    let fd = memfd(sys);
    let before = sys.get_seals(fd).unwrap().0.to_string();
    let added = errno_name(sys.add_seals(fd, Seals::CONTENT));
    let after = sys.get_seals(fd).unwrap().0.to_string();
    let program = open(sys, c"/bin/true", OpenFlags::ReadOnly).unwrap();
    let refused = [
        errno_name(sys.write(fd, b"x")),
        errno_name(sys.sendfile(fd, program, 1)),
        errno_name(sys.add_seals(fd, Seals::SEAL)),
    ];
    Ok(words(&[before, added, after, words(&refused)]))
}

fn seals_of_other_files_fail<S: Sys>(sys: &mut S) -> RuleResult {
    let (pipe, _) = sys.pipe2().unwrap();
    let fd = memfd(sys);
    let bare = open(sys, &path_of(fd), OpenFlags::Path).unwrap();
    let found = [pipe, bare, Fd(99)].map(|fd| errno_name(sys.get_seals(fd)));
    Ok(words(&[words(&found), errno_name(sys.add_seals(pipe, Seals::SEAL))]))
}

fn a_program_in_memory_runs_while_it_is_open_for_writing<S: Sys>(sys: &mut S) -> RuleResult {
    let fd = memfd(sys);
    copy(sys, fd, ALL);
    Ok(executes(sys, fd)?.to_string())
}

fn truncated_program_is_not_executed<S: Sys>(sys: &mut S) -> RuleResult {
    let fd = memfd(sys);
    copy(sys, fd, 3);
    Ok(name(executes(sys, fd)?))
}

fn file_open_for_writing_is_not_executed<S: Sys>(sys: &mut S) -> RuleResult {
    let fd = unnamed(sys);
    copy(sys, fd, ALL);
    sys.fchmod(fd, 0o500).unwrap();
    let busy = name(executes(sys, fd)?);
    let bare = open(sys, &path_of(fd), OpenFlags::Path).unwrap();
    sys.close(fd).unwrap();
    Ok(format!("{busy} {}", executes(sys, bare)?))
}

fn a_file_runs_by_its_path_in_proc<S: Sys>(sys: &mut S) -> RuleResult {
    let fd = memfd(sys);
    copy(sys, fd, ALL);
    let status = in_child(sys, |sys| {
        let mut slots = [None; 2];
        let argv = ExecArgs::build(b"true\0", &mut slots).unwrap();
        sys.execve(&path_of(fd), &argv, &ExecArgs::EMPTY).0
    })?;
    Ok(status.to_string())
}

fn a_file_without_permission_does_not_run<S: Sys>(sys: &mut S) -> RuleResult {
    let fd = memfd(sys);
    copy(sys, fd, ALL);
    sys.fchmod(fd, 0o600).unwrap();
    Ok(name(executes(sys, fd)?))
}

fn an_unnamed_file_has_no_link<S: Sys>(sys: &mut S) -> RuleResult {
    let fd = unnamed(sys);
    Ok(sys.link_count(&path_of(fd)).unwrap().to_string())
}

fn a_named_file_is_new_until_its_name_is_taken<S: Sys>(sys: &mut S) -> RuleResult {
    let name = path(&format!("/tmp/nsexec-parity.{}", sys.getpid()));
    let made = open(sys, &name, OpenFlags::New);
    let again = errno_name(open(sys, &name, OpenFlags::New));
    let links = sys.link_count(&name).unwrap().to_string();
    let taken = errno_name(sys.unlink(&name));
    let fd = made.unwrap();
    let none = sys.link_count(&path_of(fd)).unwrap().to_string();
    Ok(words(&[errno_name(made), again, links, taken, none, errno_name(sys.unlink(&name))]))
}

fn errnos_of_creating_a_file<S: Sys>(sys: &mut S) -> RuleResult {
    let refused = [
        (c"/nowhere", OpenFlags::Unnamed),
        (c"/nowhere/x", OpenFlags::New),
        (c"/etc/passwd", OpenFlags::Unnamed),
    ];
    Ok(words(&refused.map(|(path, flags)| errno_name(open(sys, path, flags)))))
}

/// sendfile moves both file positions, and a read and a write continue from there.
fn a_copy_goes_on_where_the_last_call_stopped<S: Sys>(sys: &mut S) -> RuleResult {
    let fd = memfd(sys);
    let program = open(sys, c"/bin/true", OpenFlags::ReadOnly).unwrap();
    let first = sys.sendfile(fd, program, 3).unwrap();
    let mut rest = [0; 65_536];
    loop {
        let count = sys.read(program, &mut rest).unwrap();
        if count == 0 {
            break;
        }
        assert_eq!(sys.write(fd, &rest[..count]), Ok(count));
    }
    let end = sys.sendfile(fd, program, 3).unwrap();
    Ok(format!("{first} {end} {}", executes(sys, fd)? == 0))
}

fn o_path_descriptor_cannot_be_copied_to<S: Sys>(sys: &mut S) -> RuleResult {
    let fd = memfd(sys);
    let bare = open(sys, &path_of(fd), OpenFlags::Path).unwrap();
    let program = open(sys, c"/bin/true", OpenFlags::ReadOnly).unwrap();
    let refused = [
        errno_name(sys.write(bare, b"x")),
        errno_name(sys.read(bare, &mut [0])),
        errno_name(sys.sendfile(bare, program, 1)),
    ];
    Ok(words(&refused))
}

/// As execvp(3) does with a script without `#!`.
fn a_process_whose_exec_failed_executes_another_program<S: Sys>(sys: &mut S) -> RuleResult {
    let fd = memfd(sys);
    sys.write(fd, b"text\n").unwrap();
    let status = in_child(sys, |sys| {
        let (mut slots, mut more) = ([None; 3], [None; 4]);
        let argv = ExecArgs::build(b"text\0a\0", &mut slots).unwrap();
        let path = path_of(fd);
        let file = path.to_bytes_with_nul();
        let argv_of_script = ScriptArgs::build(file, &argv, &mut more).unwrap().get(0, &path).unwrap();
        match sys.execve(&path, &argv, &ExecArgs::EMPTY) {
            Errno::ENOEXEC => sys.execve(c"/bin/true", &argv_of_script, &ExecArgs::EMPTY).0,
            errno => errno.0,
        }
    })?;
    Ok(status.to_string())
}

fn script_runs_with_its_interpreter<S: Sys>(sys: &mut S) -> RuleResult {
    let mut run = |text: &[u8]| {
        let fd = memfd(sys);
        sys.write(fd, text).unwrap();
        let by_path = in_child(sys, |sys| {
            let mut slots = [None; 2];
            let argv = ExecArgs::build(b"true\0", &mut slots).unwrap();
            sys.execve(&path_of(fd), &argv, &ExecArgs::EMPTY).0
        })?;
        Ok::<_, i32>((by_path, executes(sys, fd)?))
    };
    let (with, by_descriptor) = run(b"#!/bin/true\n")?;
    let (without, format) = (run(b"#!/nowhere\n")?.0, run(b"text\n")?.0);
    Ok(words(&[with.to_string(), name(by_descriptor), name(without), name(format)]))
}
