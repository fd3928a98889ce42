//! The reasons for the steps that a start through a child has alone, or for which it has another reason than
//! the three stages.

use super::walk::{Channel, Context, Object};
use crate::record::{Call, Line, Reply};
use crate::transcript::Role;
use nsexec::sys::types::{Errno, Pid};

/// Returns the reason for a step of the launcher or of stage 1 in a start through a child. `None` for a step
/// that has the same reason in a start through the stages.
pub(super) fn why(line: &Line, context: &Context) -> Option<&'static str> {
    let launcher = context.role == Some(Role::Launcher);
    Some(match (&line.call, &line.reply) {
        (Call::CloneChild { .. }, Reply::Errno(_)) => return None,
        (Call::CloneChild { .. }, Reply::Child) => "stage 1 begins, still in the caller's namespaces",
        (Call::CloneChild { .. }, _) => "stage 1: it joins and creates the namespaces",
        (Call::Wait4 { pid, .. }, Reply::Errno(Errno::ECHILD)) if *pid != Pid::ANY && !context.again => {
            "its exit signal is no longer 0: it has executed the command"
        }
        (Call::Poll { fds, .. }, _) if launcher && fds.len() > 1 => match context.object.as_ref()? {
            Object::End { .. } => "the pid of stage 2, the end of stage 1, or an event that ends the launch",
            _ => return None,
        },
        (_, Reply::Errno(_)) => return None,
        _ => return about(line, context),
    })
}

/// Explains a call by its object.
fn about(line: &Line, context: &Context) -> Option<&'static str> {
    Some(match (&line.call, context.object.as_ref()?) {
        (Call::Socketpair, _) => "the init pipe: for the pid of stage 2, and for the go byte",
        (Call::Openat { .. } | Call::Openat2 { .. }, Object::ProcFile(file)) if file == "timens_offsets" => {
            "opened before any join, written in the new time namespace"
        }
        (Call::Write { .. }, Object::ProcFile(file)) if file == "oom_score_adj" => "stage 2 inherits it",
        (Call::Close { .. }, Object::End { channel: Channel::Init, outer: true })
            if context.role == Some(Role::Stage(1)) =>
        {
            "the launcher's end: closed so that its death shows as end of file"
        }
        _ => return None,
    })
}
