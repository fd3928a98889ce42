//! The rules of `tests/parity.rs`. Each starts in its own process, as root or as an ordinary user of this
//! machine.

mod attributes;
mod below_proc;
mod clone_child;
mod clone_init;
mod descriptors;
mod files;
mod identity;
mod namespaces;
mod processes;
mod tree;

use std::ffi::{CStr, CString};

use nsexec::sys::Sys;
use nsexec::sys::types::*;

use crate::Rule;

/// The user that runs a rule.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum As {
    Root,
    User,
}

/// The text that a rule returns, or, in a child that the rule made, the status to exit with.
pub(crate) type RuleResult = Result<String, i32>;

macro_rules! rules {
    ($($who:ident $name:ident = $wanted:literal;)*) => {
        pub(super) const RULES: &[crate::Rule] = &[$(crate::Rule {
            name: stringify!($name),
            who: super::As::$who,
            wanted: $wanted,
            real: $name,
            sim: $name,
        }),*];
    };
}
use rules;

/// Returns every rule.
pub(crate) fn all() -> impl Iterator<Item = Rule> {
    [
        attributes::RULES,
        below_proc::RULES,
        clone_child::RULES,
        clone_init::RULES,
        descriptors::RULES,
        files::RULES,
        processes::RULES,
        identity::RULES,
        namespaces::RULES,
        tree::RULES,
    ]
    .into_iter()
    .flatten()
    .map(|rule| Rule { ..*rule })
}

/// Returns "ok", or the name of the errno.
fn errno_name<T>(result: SysResult<T>) -> String {
    code(result).name().unwrap_or("ok").into()
}

/// Returns a result as the exit status of a child.
fn code<T>(result: SysResult<T>) -> Errno {
    result.map_or_else(|errno| errno, |_| Errno(0))
}

fn name(errno: i32) -> String {
    Errno(errno).name().unwrap_or("ok").into()
}

fn words(words: &[String]) -> String {
    words.join(" ")
}

/// A child that has made its first calls, and waits for permission to end.
struct Child {
    pid: Pid,
    talk: Fd,
    /// The result of its first calls: 0 or an errno.
    began: i32,
}

/// Makes a child that calls `first`, sends the result, waits, calls `then`, and exits with the result.
fn child_then<S: Sys>(
    sys: &mut S,
    first: impl FnOnce(&mut S) -> Errno,
    then: impl FnOnce(&mut S) -> i32,
) -> Result<Child, i32> {
    let (ours, theirs) = sys.socketpair().unwrap();
    match sys.fork(ExitSignal::Chld, None).unwrap() {
        Fork::Child => {
            sys.close(ours).unwrap();
            let began = first(sys);
            sys.send(theirs, &[began.0 as u8]).unwrap();
            let mut word = [0];
            // The end of the file also ends the wait.
            let _ = sys.read(theirs, &mut word);
            Err(then(sys))
        }
        Fork::Parent { child } => {
            sys.close(theirs).unwrap();
            let mut began = [255];
            sys.read(ours, &mut began).unwrap();
            Ok(Child { pid: child, talk: ours, began: i32::from(began[0]) })
        }
    }
}

fn child<S: Sys>(sys: &mut S, first: impl FnOnce(&mut S) -> Errno) -> Result<Child, i32> {
    child_then(sys, first, |_| 0)
}

impl Child {
    /// Lets the child end, and returns its exit status.
    fn end<S: Sys>(self, sys: &mut S) -> i32 {
        sys.close(self.talk).unwrap();
        exit_status(sys, self.pid)
    }

    /// Lets a child without an exit signal end, and returns its exit status.
    fn end_init<S: Sys>(self, sys: &mut S) -> i32 {
        sys.close(self.talk).unwrap();
        status_of(sys, self.pid, WaitFor::Stages)
    }
}

/// Returns the exit status of a child, or 128 plus the signal.
fn exit_status<S: Sys>(sys: &mut S, pid: Pid) -> i32 {
    status_of(sys, pid, WaitFor::Ordinary)
}

fn status_of<S: Sys>(sys: &mut S, pid: Pid, which: WaitFor) -> i32 {
    match sys.wait4(pid, which) {
        Ok(Waited { status: WaitStatus::Exited(status), .. }) => status,
        Ok(Waited { status: WaitStatus::Signaled(signal), .. }) => 128 + signal.0,
        other => panic!("{other:?}"),
    }
}

/// Returns the exit status of a child that runs `body`.
fn in_child<S: Sys>(sys: &mut S, body: impl FnOnce(&mut S) -> i32) -> Result<i32, i32> {
    match sys.fork(ExitSignal::Chld, None).unwrap() {
        Fork::Child => Err(body(sys)),
        Fork::Parent { child } => Ok(exit_status(sys, child)),
    }
}

fn path(text: &str) -> CString {
    CString::new(text).unwrap()
}

fn proc_path(pid: Pid, file: &str) -> CString {
    path(&format!("/proc/{pid}/{file}"))
}

fn open<S: Sys>(sys: &mut S, path: &CStr, flags: OpenFlags) -> SysResult<Fd> {
    sys.openat(Fd::CWD, path, flags)
}

/// Opens a file for reading and writing, writes once, and closes it.
fn put<S: Sys>(sys: &mut S, path: &CStr, bytes: &[u8]) -> SysResult<usize> {
    let fd = open(sys, path, OpenFlags::ReadWrite)?;
    let written = sys.write(fd, bytes);
    sys.close(fd).unwrap();
    written
}

/// Joins the namespace at a path.
fn join<S: Sys>(sys: &mut S, path: &CStr, kind: CloneFlags) -> SysResult<()> {
    let fd = open(sys, path, OpenFlags::Namespace)?;
    let joined = sys.setns(fd, kind);
    sys.close(fd).unwrap();
    joined
}

/// Executes a program of this machine with one argument.
fn exec<S: Sys>(sys: &mut S, program: &CStr) -> i32 {
    let text: Vec<u8> = [program.to_bytes_with_nul(), b"10\0"].concat();
    let mut slots = [None; 3];
    let argv = ExecArgs::build(&text, &mut slots).unwrap();
    sys.execve(program, &argv, &ExecArgs::EMPTY).0
}
