//! Selects the lines that get a note in a diagram, and returns the note.

use std::format;
use std::string::{String, ToString};
use std::vec::Vec;

use super::events::{Mark, Note};
use super::tree;
use super::walk::{AnnotatedLine, Attempt, Object};
use super::words::{fatal_text, one_line};
use crate::record::{Bytes, Call, Reply};
use crate::transcript::Role;
use nsexec::launch::leaves_old_sys;
use nsexec::namespace::NsSet;
use nsexec::sys::types::{CloneFlags, Errno, Mount, OpenFlags, Propagation, Signal};

/// The number of characters of a map or path that a note shows.
const DATA_LIMIT: usize = 60;

/// Returns the note for this line, if it is a step that concerns security, or a failure.
pub(super) fn note(seen: &AnnotatedLine<'_>) -> Option<Note> {
    let plain = |mark, text: String| Some(Note { mark, kinds: NsSet::EMPTY, text });
    if let Reply::Errno(errno) = seen.line.reply {
        return failure(seen, errno);
    }
    match &seen.line.call {
        Call::Setns { .. } if seen.context.role == Some(Role::Stage(0)) => {
            plain(Mark::Setup, if is_own(seen) { "comes back" } else { "goes into stage 1's mnt" }.into())
        }
        Call::CloneInit { namespaces: flags, .. } if seen.line.reply == Reply::Child => {
            namespaces(Mark::Enter, *flags, seen)
        }
        Call::CloneInit { .. } if seen.context.attempt == Attempt::GivenUp => {
            plain(Mark::Setup, "creates an init, and gives it up".into())
        }
        Call::Setns { kind, .. } if seen.context.attempt == Attempt::Direct => {
            namespaces(Mark::Enter, *kind, seen)
        }
        Call::Setns { kind, .. } => namespaces(Mark::Join, *kind, seen),
        Call::Unshare { flags } => namespaces(Mark::Create, *flags, seen),
        Call::SetDumpable { dumpable: true } if seen.context.role == Some(Role::Launcher) => {
            plain(Mark::Privacy, "dumpable again".into())
        }
        Call::SetDumpable { dumpable: true } => plain(Mark::Privacy, "dumpable window opens".into()),
        Call::SetDumpable { .. } if seen.context.window => {
            plain(Mark::Privacy, "dumpable window closes".into())
        }
        Call::SetDumpable { .. } => plain(Mark::Privacy, "not dumpable any more".into()),
        Call::Setresuid { uid } => plain(Mark::Identity, format!("becomes user {uid} inside")),
        Call::Setsid => plain(Mark::Identity, "leads a session".into()),
        Call::Setuid { uid } => plain(Mark::Identity, format!("user {uid}")),
        Call::Setgid { gid } => plain(Mark::Identity, format!("group {gid}")),
        Call::SetGroups { groups } => plain(Mark::Identity, format!("{} groups", groups.len())),
        Call::RunHook { .. } => plain(Mark::Setup, "runs code of the caller".into()),
        Call::DropGroups => plain(Mark::Identity, "no other groups".into()),
        Call::SetPdeathsig { signal: Signal::NONE } => plain(Mark::Setup, "may outlive the launcher".into()),
        // A repeated call is not shown as a step.
        Call::SetPdeathsig { signal: Signal::KILL } if seen.context.changed_ids => None,
        Call::SetPdeathsig { signal: Signal::KILL } => plain(Mark::Setup, "dies with the launcher".into()),
        Call::SetPdeathsig { .. } => plain(Mark::Setup, "ends with the launcher".into()),
        Call::Mount { mount } => plain(Mark::Setup, mounts(*mount).into()),
        Call::Dup3 { number, .. } => plain(Mark::Setup, format!("mount source at {}", number.0)),
        Call::Openat { flags: OpenFlags::Path, path, .. } if seen.context.object != Some(Object::Copy) => {
            plain(Mark::Setup, format!("opens mount source\n{}", one_line(&path.0, DATA_LIMIT)))
        }
        Call::Execveat { .. } => plain(Mark::Setup, "becomes a sealed copy of itself".into()),
        Call::Execve { path, argv, .. } => plain(Mark::Setup, becomes(seen, path, argv)),
        Call::Write { data, .. } if data.0 == b"0" && seen.context.object.is_none() => {
            plain(Mark::Setup, "enters its cgroup".into())
        }
        Call::Write { data, .. } | Call::WriteNowait { data, .. } => writes(seen, data),
        call => plain(Mark::Setup, tree::note(call, DATA_LIMIT)?),
    }
}

/// Returns whether the namespace is stage 0's original one.
fn is_own(seen: &AnnotatedLine<'_>) -> bool {
    matches!(&seen.context.object, Some(Object::Namespace(path)) if path.starts_with("/proc/self/"))
}

fn namespaces(mark: Mark, flags: CloneFlags, seen: &AnnotatedLine<'_>) -> Option<Note> {
    let kinds = NsSet::from_flags(flags);
    if kinds.is_empty() {
        return None;
    }
    let text = match (&mark, &seen.context.object) {
        (Mark::Join, Some(Object::Namespace(path))) => {
            format!("joins {kinds}\n{}", one_line(path.as_bytes(), DATA_LIMIT))
        }
        (Mark::Join, _) => format!("joins {kinds}"),
        (Mark::Enter, _) if seen.line.reply == Reply::Child => format!("begins in new {kinds}"),
        (Mark::Enter, _) => format!("enters {kinds}"),
        _ => format!("creates {kinds}"),
    };
    Some(Note { mark, kinds, text })
}

const fn mounts(mount: Mount) -> &'static str {
    match mount {
        Mount::Propagation(Propagation::Private) => "mounts made private",
        Mount::Propagation(Propagation::Slave) => "mounts made slaves",
        Mount::Propagation(Propagation::Shared) => "mounts made shared",
        Mount::Proc => "mounts its own /proc",
        Mount::Sysfs { .. } => "mounts a new /sys",
    }
}

fn becomes(seen: &AnnotatedLine<'_>, path: &Bytes, argv: &[Bytes]) -> String {
    let rest: Vec<String> = argv.iter().skip(1).map(|arg| one_line(&arg.0, DATA_LIMIT)).collect();
    // Stage 0 executes the runtime's program, and then a copy of it.
    let other = matches!(seen.context.role, Some(Role::Tool(_) | Role::Stage(0)));
    let what = if other { "becomes" } else { "becomes the command" };
    let command = format!("{} {}", one_line(&path.0, DATA_LIMIT), rest.join(" "));
    format!("{what}\n{}", one_line(command.trim_end().as_bytes(), DATA_LIMIT))
}

/// Returns a map of up to three lines on one line. Of a longer map it returns the first two lines and the
/// number of the others.
fn some_lines(data: &[u8]) -> String {
    let ends = |byte: &u8| *byte == b'\n' || *byte == 0;
    let lines: Vec<&[u8]> = data.split(ends).filter(|line| !line.is_empty()).collect();
    match lines[..] {
        [first, second, ref rest @ ..] if rest.len() > 1 => {
            let [first, second] = [first, second].map(|line| one_line(line, DATA_LIMIT));
            format!("{first}\n{second}\n… and {} lines more", rest.len())
        }
        _ => one_line(data, DATA_LIMIT),
    }
}

fn writes(seen: &AnnotatedLine<'_>, data: &Bytes) -> Option<Note> {
    let shown = one_line(&data.0, DATA_LIMIT);
    let (mark, text) = match seen.context.object.as_ref()? {
        Object::ProcFile(name) if name == "oom_score_adj" => (Mark::Setup, format!("oom score {shown}")),
        Object::ProcFile(name) => (Mark::Maps, format!("writes {name}\n{}", some_lines(&data.0))),
        Object::Log => (Mark::Failed, fatal_text(&data.0)?),
        _ => return None,
    };
    Some(Note { mark, kinds: NsSet::EMPTY, text })
}

/// Returns the note for a failed call, unless the bootstrap ignores this failure.
fn failure(seen: &AnnotatedLine<'_>, errno: Errno) -> Option<Note> {
    let name = errno.name().map_or_else(|| format!("errno {}", errno.0), ToString::to_string);
    let object = seen.context.object.as_ref();
    let (mark, text) = match (&seen.line.call, errno) {
        (_, Errno::EINTR | Errno::EAGAIN)
        | (Call::PidfdOpen { .. } | Call::TidAddress, _)
        | (Call::CloseRangeCloexec { .. } | Call::CloseRange { .. }, _)
        | (Call::GetSeals { .. } | Call::MemfdCreate { .. } | Call::Sendfile { .. }, _)
        | (Call::Execveat { .. }, Errno::ENOSYS | Errno::EPERM)
        | (Call::Openat2 { .. }, Errno::ENOSYS)
        | (Call::SocketType { .. }, _)
        | (Call::Send { .. }, Errno::ENOTSOCK)
        | (Call::Kill { .. }, Errno::ESRCH)
        | (Call::Wait4 { .. }, Errno::ECHILD)
        | (Call::Close { .. } | Call::WriteNowait { .. } | Call::Sigtimedwait { .. }, _) => return None,
        // The third pass is the last.
        (Call::Setns { kind, .. }, Errno::EPERM) => {
            let mark = if seen.context.again { Mark::Failed } else { Mark::Refused };
            (mark, format!("{} refused: EPERM", NsSet::from_flags(*kind)))
        }
        // The bootstrap then uses openat instead.
        (Call::Openat2 { .. }, Errno::EPERM) if object == Some(&Object::ProcDir) => return None,
        (Call::Openat { .. } | Call::Openat2 { .. } | Call::Write { .. }, Errno::EPERM) => match object {
            Some(Object::ProcFile(file)) => (Mark::Refused, format!("{file} refused: EPERM")),
            _ => (Mark::Failed, format!("{} fails: {name}", seen.line.call.name())),
        },
        (Call::Execve { path, .. }, Errno::ENOENT) => {
            (Mark::Refused, format!("not there:\n{}", one_line(&path.0, DATA_LIMIT)))
        }
        (Call::Execve { path, .. }, Errno::ENOEXEC) => {
            (Mark::Refused, format!("format unknown to the kernel:\n{}", one_line(&path.0, DATA_LIMIT)))
        }
        (Call::Mount { mount: Mount::Sysfs { .. } }, errno) if leaves_old_sys(errno) => {
            (Mark::Refused, format!("/sys stays as it is: {name}"))
        }
        (Call::OpenTree { path, .. }, errno) if path.0.starts_with(b"/sys/") && leaves_old_sys(errno) => {
            (Mark::Refused, format!("copy refused: {name}\n{}", one_line(&path.0, DATA_LIMIT)))
        }
        (Call::CloneInit { .. }, _) => (Mark::Refused, format!("direct start refused: {name}")),
        (call, _) => (Mark::Failed, format!("{} fails: {name}", call.name())),
    };
    Some(Note { mark, kinds: NsSet::EMPTY, text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_map_shows_two_lines_and_the_number_of_others() {
        let lines = |count: usize| (0..count).map(|n| format!("{n} {n} 1\n")).collect::<String>();
        assert_eq!(some_lines(b"0 0 1\n\0"), "0 0 1");
        assert_eq!(some_lines(lines(3).as_bytes()), "0 0 1; 1 1 1; 2 2 1");
        assert_eq!(some_lines(lines(340).as_bytes()), "0 0 1\n1 1 1\n… and 338 lines more");
    }
}
