//! The reasons for the steps that a direct start has alone, or for which it has another reason than the
//! stages.

use super::walk::{Attempt, Channel, Context, Object};
use crate::record::{Call, Line, Reply};
use crate::transcript::Role;
use nsexec::sys::types::{CloneFlags, Errno, Pid, Signal};

/// Returns the reason for a step of a direct start, also of one that is given up. `None` for a step that has
/// the same reason in a start through the stages.
pub(super) fn why(line: &Line, context: &Context) -> Option<&'static str> {
    if let Reply::Errno(errno) = line.reply {
        return failed(&line.call, context, errno);
    }
    Some(match (&line.call, context.role) {
        (Call::CloneInit { namespaces, shared, .. }, _) => {
            with_namespaces(*namespaces, line.reply == Reply::Child, *shared)
        }
        (Call::Kill { signal: Signal::KILL, .. }, _) if context.attempt == Attempt::GivenUp => {
            "the direct start is given up, before the go byte"
        }
        (Call::Wait4 { .. }, _) if context.attempt == Attempt::GivenUp => "the process has ended",
        (Call::SetDumpable { dumpable: true }, Some(Role::Launcher)) => {
            "the command's process has left the launcher's memory"
        }
        (Call::SetDumpable { .. }, Some(Role::Launcher)) => {
            "the launcher's memory must not be traced through the process that will share it"
        }
        (Call::Unshare { flags }, _) => unshare(*flags, context),
        (Call::Setns { .. }, _) => "the process that creates a time namespace enters it only by this",
        _ => return about(line, context),
    })
}

fn failed(call: &Call, context: &Context, errno: Errno) -> Option<&'static str> {
    Some(match (call, errno) {
        (Call::CloneInit { .. }, _) => {
            "the stages create the namespaces one after the other, and report the one that is refused"
        }
        (Call::SetDumpable { .. }, _) => "the process gets a copy of the launcher's memory instead",
        (Call::Openat { .. } | Call::Openat2 { .. } | Call::Write { .. }, Errno::EPERM)
            if context.role == Some(Role::Launcher) && context.object != Some(Object::ProcDir) =>
        {
            "the kernel refuses it: only a mapping tool has the privilege, and only the stages start one"
        }
        (Call::Wait4 { pid, .. }, Errno::ECHILD) if *pid != Pid::ANY && !context.again => {
            "its exit signal is no longer 0: it has executed the command"
        }
        _ => return None,
    })
}

/// Explains a call by its object.
fn about(line: &Line, context: &Context) -> Option<&'static str> {
    Some(match (&line.call, context.object.as_ref()?) {
        (Call::Socketpair, _) => "the init pipe: for the go byte; its end of file reports a death",
        (Call::Openat { .. }, Object::Namespace(_)) => {
            "the time namespace that this process has created, so far for its children only"
        }
        (Call::Openat { .. } | Call::Openat2 { .. }, Object::ProcFile(file)) => match file.as_str() {
            "timens_offsets" => "opened before the ids change: afterwards it belongs to root",
            "oom_score_adj" => "by the launcher: root of a new user namespace cannot lower the score",
            "stat" => "checked whether the new process is exiting",
            _ => return None,
        },
        (Call::Write { .. }, Object::ProcFile(file)) if file == "oom_score_adj" => "the command keeps it",
        (Call::Close { .. }, Object::End { channel: Channel::Init, outer }) => match (outer, context.role?) {
            (false, Role::Launcher) if context.refused => {
                "no process was created: the stages get pipes of their own"
            }
            (false, Role::Launcher) => "the new process's end: closed so that its death shows as end of file",
            (true, Role::Stage(2)) => "the launcher's end: closed so that its death shows as end of file",
            _ => return None,
        },
        (Call::Read { .. }, Object::Log) if matches!(&line.reply, Reply::Data(data) if data.0.is_empty()) => {
            "end of file: the process has executed the command, or has ended"
        }
        (Call::Read { .. }, Object::Log) => "log records of the new process",
        _ => return None,
    })
}

const fn unshare(created: CloneFlags, context: &Context) -> &'static str {
    match context.in_user {
        true => "the others, owned by the user namespace",
        false if created.0 == CloneFlags::NEWTIME.0 => "clone has no flag for a time namespace",
        false => "owned by the caller's user namespace",
    }
}

/// Explains the clone of a direct start, for the launcher and for the child.
const fn with_namespaces(created: CloneFlags, child: bool, shared: bool) -> &'static str {
    match (created.contains(CloneFlags::NEWUSER), created.0 == 0, child, shared) {
        (true, _, true, _) => "the command's process begins: it creates the other namespaces once it is root",
        (true, _, _, false) => "the command's process, in a new user namespace: the launcher writes its maps",
        (true, _, _, true) => {
            "the command's process, which shares the launcher's memory up to its exec, in a new user namespace: the launcher writes its maps"
        }
        (_, false, true, _) => "the command's process begins, inside of its new namespaces",
        (_, false, _, false) => "the command's process, in its new namespaces",
        (_, false, _, true) => {
            "the command's process, which shares the launcher's memory up to its exec, in its new namespaces"
        }
        (_, true, true, _) => "the command's process begins",
        (_, true, _, false) => "the command's process",
        (_, true, _, true) => "the command's process, which shares the launcher's memory up to its exec",
    }
}
