//! The reasons for the steps that a start in place has alone, or for which it has another reason than the
//! three stages.

use super::walk::{Channel, Context, Object};
use crate::record::{Call, Line, Reply};
use crate::transcript::Role;
use nsexec::sys::types::{CloneFlags, MaskHow, Signal, SignalSet};

/// Returns the reason for a step of a start in place. `None` for a step that has the same reason in a start
/// through the stages.
pub(super) fn why(line: &Line, context: &Context) -> Option<&'static str> {
    match context.role? {
        Role::Launcher => launcher(line, context),
        Role::Stage(0) => helper(line, context),
        _ => None,
    }
}

/// Explains a step of the process that becomes the command.
fn launcher(line: &Line, context: &Context) -> Option<&'static str> {
    let refused = matches!(line.reply, Reply::Errno(_));
    Some(match (&line.call, context.object.as_ref()) {
        (Call::Fork { .. }, _) if !refused => {
            "stage 0, the helper: it writes the maps with the caller's privileges, in the caller's namespaces"
        }
        (Call::Execve { .. }, _) if !refused => "this process becomes the command",
        _ if refused => return None,
        (Call::Socketpair, _) => "the sync pipe with stage 0; its end of file reports a death",
        (Call::Close { .. }, Some(Object::End { outer: true, .. })) => {
            "stage 0's end: closed so that its death shows as end of file"
        }
        (Call::Close { .. }, Some(Object::End { .. })) => "the maps are written, or the start has failed",
        (Call::Poll { .. }, Some(Object::End { .. })) => "the answer of stage 0, or its death",
        (Call::Read { .. }, Some(Object::End { .. })) => match &line.reply {
            Reply::Data(data) if data.0.is_empty() => "end of file: stage 0 is gone",
            _ => return None,
        },
        (Call::Kill { signal: Signal::CONT, .. }, _) => "a stopped stage 0 would not notice the end of file",
        (Call::Getpid, _) => {
            "the pid under which stage 0 finds this process in /proc, and the one in log records"
        }
        (Call::CloseRangeCloexec { .. } | Call::SetCloexec { on: true, .. }, _) => {
            "the command inherits only the requested descriptors; after a failure this process still has the others"
        }
        (Call::Openat { .. } | Call::Openat2 { .. }, Some(Object::ProcFile(file)))
            if file == "timens_offsets" =>
        {
            "opened before any join, written in the new time namespace"
        }
        (Call::Write { .. }, Some(Object::ProcFile(file))) if file == "oom_score_adj" => {
            "the command keeps it"
        }
        (Call::Openat { .. }, Some(Object::Namespace(path))) if path.ends_with("time_for_children") => {
            "the time namespace that this process has created, so far for its children only"
        }
        (Call::Setns { kind: CloneFlags::NEWTIME, .. }, Some(Object::Namespace(path)))
            if path.ends_with("time_for_children") =>
        {
            "the process that creates a time namespace enters it only by this"
        }
        (Call::Sigprocmask { how: MaskHow::Block, set }, _) if *set != SignalSet::PIPE => {
            "no signal handler of this program may run in stage 0"
        }
        (Call::Sigaction { .. }, _) => "the command begins with this disposition, as after any exec",
        _ => return None,
    })
}

/// Explains a step of the helper.
fn helper(line: &Line, context: &Context) -> Option<&'static str> {
    if matches!(line.reply, Reply::Errno(_)) {
        return None;
    }
    Some(match (&line.call, context.object.as_ref()) {
        (Call::Fork { .. }, _) if line.reply == Reply::Child => {
            "stage 0 begins, as a copy of the process that becomes the command"
        }
        (Call::Close { .. }, Some(Object::Log)) => "the reading end of the log pipe",
        (Call::Close { .. }, Some(Object::End { channel: Channel::ToStage1, outer: false })) => {
            "the other process's end: closed so that its death shows as end of file"
        }
        (Call::Poll { .. }, Some(Object::End { .. })) => {
            "the request for the maps, or the death of its sender"
        }
        (Call::Read { .. }, Some(Object::End { .. })) => match &line.reply {
            Reply::Data(data) if data.0.is_empty() => {
                "end of file: the process that would become the command has failed, or is gone"
            }
            _ => return None,
        },
        (Call::SetPdeathsig { .. }, _) => "a stopped stage 0 continues when that process dies, and ends",
        _ => return None,
    })
}
