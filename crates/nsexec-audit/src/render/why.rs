//! The reason for a step, in words, shown next to its line. See docs/protocol.md#what-happens-in-order.

use super::Role;
use super::walk::{Channel, Context, Object};
use crate::record::{Call, Line, Reply};
use nsexec::sys::types::{CloneFlags, Errno, FsType, MaskHow, Mount, OpenFlags, Seals, Signal, SignalSet};

/// Returns why the protocol makes this call, or what its failure means. `None` for a call without an entry.
#[must_use]
pub fn why(line: &Line, context: &Context) -> Option<&'static str> {
    if let Reply::Errno(errno) = line.reply {
        return failed(line, context, errno);
    }
    match &line.call {
        Call::Openat { .. }
        | Call::Openat2 { .. }
        | Call::Close { .. }
        | Call::Fstatfs { .. }
        | Call::Write { .. } => files(line, context),
        Call::GetSeals { .. }
        | Call::AddSeals { .. }
        | Call::MemfdCreate { .. }
        | Call::Sendfile { .. }
        | Call::Fchmod { .. }
        | Call::Unlink { .. }
        | Call::IsReadOnly { .. }
        | Call::Execveat { .. } => copying(line, context),
        Call::Read { .. } => read(line, context),
        Call::Socketpair
        | Call::Pipe2
        | Call::Poll { .. }
        | Call::CloseRangeCloexec { .. }
        | Call::Getdents64 { .. }
        | Call::SetCloexec { .. } => descriptors(&line.call, context),
        Call::CloneSibling { .. }
        | Call::Fork { .. }
        | Call::Execve { .. }
        | Call::Wait4 { .. }
        | Call::Kill { .. }
        | Call::PidfdOpen { .. }
        | Call::Sigaction { .. }
        | Call::Sigprocmask { .. } => processes(line, context),
        _ => identity(&line.call, context),
    }
}

fn failed(line: &Line, context: &Context, errno: Errno) -> Option<&'static str> {
    let log = context.object == Some(Object::Log);
    Some(match (&line.call, errno) {
        (_, Errno::EINTR) => "a signal came first: once more",
        (_, Errno::EAGAIN) if log => "the log pipe is full: nobody waits for it",
        (Call::Read { .. }, Errno::ECONNRESET) => "the peer died with our bytes unread: an end of file",
        (Call::Send { .. } | Call::SendFd { .. }, Errno::EPIPE) => "the peer is gone",
        (Call::Send { .. }, Errno::ENOTSOCK) => "no socket: a write is as good",
        (Call::Setns { .. }, Errno::EPERM) if context.again => "not ours to join, in any pass",
        (Call::Setns { .. }, Errno::EPERM) => "not ours to join yet: again after the user namespace",
        (Call::Unshare { .. }, Errno::EINVAL) => {
            "kernels before 4.3, or a thread that is not quite gone: once more"
        }
        (Call::Openat2 { path, .. }, Errno::ENOSYS | Errno::EPERM) if !path.0.ends_with(b"_map") => {
            "an older kernel, or a filter: by openat, which does not see a mount over it"
        }
        (Call::Openat2 { .. }, Errno::EXDEV) => "something is mounted over it",
        (Call::Openat { .. } | Call::Openat2 { .. } | Call::Write { .. }, Errno::EPERM) => {
            "not ours to write: the mapping tool may"
        }
        (Call::Openat { .. } | Call::Openat2 { .. }, Errno::EACCES) => {
            "its files in /proc are root's: it is not dumpable, or it is exiting"
        }
        (Call::SocketType { .. }, Errno::ENOTSOCK) => "not a socket: a pipe will do",
        (Call::PidfdOpen { .. }, _) => "an older kernel: the wait alone decides",
        (Call::CloseRangeCloexec { .. }, _) => "an older kernel: one by one, then",
        (Call::TidAddress, _) => "this kernel cannot tell: do without",
        (Call::Kill { .. }, Errno::ESRCH) => "it was faster",
        (Call::Wait4 { .. }, Errno::ECHILD) => "nobody is left",
        (Call::GetSeals { .. }, _) => "a file that can have none",
        (Call::MemfdCreate { exec: true, .. }, Errno::EINVAL) => "an older kernel, which needs no such flag",
        (Call::MemfdCreate { .. }, _) => "no file in memory: one of a directory, then",
        (Call::Sendfile { .. }, _) => "by hand, then",
        (Call::Execveat { .. }, Errno::ENOSYS | Errno::EPERM) => "by its path, then",
        (Call::Execve { .. }, Errno::ENOENT | Errno::ENOTDIR) => "not here",
        _ => return None,
    })
}

fn files(line: &Line, context: &Context) -> Option<&'static str> {
    let file = match context.object.as_ref()? {
        Object::ProcFile(name) => name.as_str(),
        _ => "",
    };
    Some(match (&line.call, context.object.as_ref()?) {
        (Call::Openat { .. }, Object::MountSource(_)) => {
            "with our privileges, in its mount namespace: a place, and no more"
        }
        (Call::Openat { .. }, Object::Namespace(path)) if path == "/proc/self/ns/mnt" => "to come back to it",
        (Call::Openat { .. }, Object::Namespace(_)) if context.role == Some(Role::Stage0) => {
            "the kernel binds no mount of another mount namespace"
        }
        (Call::Openat { .. }, Object::Namespace(_)) => {
            "all of them before any join: afterwards a path may be out of reach"
        }
        (Call::Openat { .. }, Object::ProcRoot) => "from here a path crosses no mount point",
        (Call::Openat { .. } | Call::Openat2 { .. }, Object::ProcDir) => {
            "one descriptor for its /proc: a pid that is used again cannot mislead us"
        }
        (
            Call::Openat { flags: OpenFlags::ReadOnly, .. }
            | Call::Openat2 { flags: OpenFlags::ReadOnly, .. },
            _,
        ) if file.ends_with("_map") => "the tool said success: is it so?",
        (Call::Openat { .. } | Call::Openat2 { .. }, _) if file == "timens_offsets" => {
            "opened while stage 1 lets us, written later"
        }
        (Call::Openat { .. } | Call::Openat2 { .. }, _) if file == "oom_score_adj" => {
            "while /proc/self is still ours"
        }
        (Call::Openat { .. } | Call::Openat2 { .. }, _) if file == "stat" => "is stage 1 exiting?",
        (Call::Openat { .. }, _) if file == "exe" => "our own program: could a container write to it?",
        (Call::Openat { .. }, _) if file == "cmdline" => "our arguments, for the copy",
        (Call::Openat { .. }, Object::Copy) => "a copy that nobody finds",
        (Call::Fstatfs { .. }, object) => match (&line.reply, object) {
            (Reply::FsType(FsType::NSFS), Object::Namespace(_)) => "a namespace indeed",
            (Reply::FsType(FsType::PROC), Object::ProcFile(_)) => "procfs indeed",
            // The init pipe, if it is not a socket.
            (_, Object::End { .. }) => return None,
            _ => "not what it should be",
        },
        (Call::Write { .. }, _) => match file {
            "uid_map" | "gid_map" => "one write: the kernel takes a map once, whole",
            "setgroups" => "before gid_map: without privilege the groups are given up first",
            "timens_offsets" => "before the first process is in the new time namespace",
            "oom_score_adj" => "both forks inherit it",
            _ => return None,
        },
        (Call::Close { .. }, Object::End { channel, outer }) => closes(*channel, *outer, context.role?)?,
        _ => return None,
    })
}

/// Explains why a process closes an end of another process first: with no copy left open, end of file means
/// that the other process died.
const fn closes(channel: Channel, outer: bool, role: Role) -> Option<&'static str> {
    match (channel, outer, role) {
        (Channel::Init, true, Role::Stage0) => Some("the launcher's end: its death must be an end of file"),
        (Channel::Init, false, Role::Launcher) => Some("the stages' end: their death must be an end of file"),
        (Channel::ToStage1, false, Role::Stage0) => Some("stage 1's end: its death must be an end of file"),
        (Channel::ToStage2, false, Role::Stage0) => Some("stage 2's end: its death must be an end of file"),
        (_, true, Role::Stage1 | Role::Stage2) => Some("stage 0's end: its death must be an end of file"),
        (Channel::ToStage2, false, Role::Stage1) => Some("stage 2 has its own copy"),
        (Channel::ToStage1, false, Role::Stage2) => Some("stage 1's end"),
        _ => None,
    }
}

fn read(line: &Line, context: &Context) -> Option<&'static str> {
    let Reply::Data(data) = &line.reply else { return None };
    match (context.object.as_ref()?, context.peer()) {
        (Object::End { .. }, peer) if data.0.is_empty() => Some(match peer {
            Some(Role::Launcher) => "end of file: the launcher is gone",
            Some(Role::Stage1) => "end of file: stage 1 is gone",
            Some(Role::Stage2) => "end of file: stage 2 is gone",
            _ if context.role == Some(Role::Launcher) => "end of file: the stages are gone",
            _ => "end of file: stage 0 is gone",
        }),
        // Reads of our own program and arguments need no remark.
        (Object::ProcFile(file), _) if file == "cmdline" || file == "exe" => None,
        (Object::ProcFile(file), _) if file == "stat" => Some("its state and its flags"),
        (Object::ProcFile(_), _) => Some("what the tool wrote"),
        (Object::Log, _) if data.0.is_empty() => Some("end of file: nobody is left who could log"),
        (Object::Log, _) => Some("what the stages log"),
        _ => None,
    }
}

/// Reasons for the calls that copy the program (CVE-2019-5736).
fn copying(line: &Line, context: &Context) -> Option<&'static str> {
    Some(match (&line.call, &line.reply) {
        (Call::GetSeals { .. }, Reply::Seals(Seals::CONTENT)) if context.object == Some(Object::Copy) => {
            "the copy will be known for one"
        }
        (Call::GetSeals { .. }, Reply::Seals(Seals::CONTENT)) => "a sealed copy already: go on",
        (Call::GetSeals { .. }, _) => "not a sealed copy",
        (Call::AddSeals { .. }, _) => "from here on nobody can change the copy, not even its owner",
        (Call::MemfdCreate { .. }, _) => {
            "a container that writes to /proc/PID/exe must not reach the runtime (CVE-2019-5736)"
        }
        (Call::Sendfile { .. }, Reply::Count(0)) => "all of it",
        (Call::Fchmod { .. }, _) => "nobody may write to the copy",
        (Call::Unlink { .. }, _) => "nobody finds the copy",
        (Call::IsReadOnly { .. }, _) => "is it where nobody can write?",
        (Call::Execveat { .. }, _) => "the copy, which begins anew",
        _ => return None,
    })
}

fn descriptors(call: &Call, context: &Context) -> Option<&'static str> {
    Some(match (call, context.object.as_ref()) {
        (Call::Socketpair, Some(Object::End { channel, .. })) => match channel {
            Channel::Init => "the init pipe: the message down, the pid line up",
            Channel::ToStage1 => "the sync pipe with stage 1",
            Channel::ToStage2 => "another with stage 2, so that neither takes the other's messages",
        },
        (Call::Pipe2, _) => "the log pipe",
        (Call::Poll { fds, .. }, _) if fds.len() > 1 => match context.role? {
            Role::Launcher => "the pid line, or a signal that ends the launch",
            _ => "the end of the tool, or the death of stage 1 or the launcher",
        },
        (Call::SetCloexec { on: false, .. }, _) => "this one was named: the command gets it",
        (Call::CloseRangeCloexec { .. } | Call::SetCloexec { .. }, _)
            if context.role == Some(Role::Stage0) =>
        {
            "the command gets the descriptors that were named, and no other"
        }
        (Call::CloseRangeCloexec { .. } | Call::SetCloexec { .. }, _) => {
            "the tool may be setuid root: it gets the standard descriptors alone"
        }
        _ => return None,
    })
}

fn processes(line: &Line, context: &Context) -> Option<&'static str> {
    let child = line.reply == Reply::Child;
    Some(match (&line.call, context.role?) {
        (Call::Fork { .. }, Role::Launcher) => "stage 0",
        (Call::CloneSibling { .. } | Call::Fork { .. }, Role::Stage0) if child => "stage 0 begins",
        (Call::CloneSibling { .. }, Role::Stage0) => {
            "stage 1, a sibling: the launcher is its parent, and reaps it"
        }
        (Call::CloneSibling { .. }, Role::Stage1) if child => {
            "stage 1 begins, still in the caller's namespaces"
        }
        (Call::CloneSibling { .. }, Role::Stage1) => "stage 2: pid and time namespaces are for children only",
        (Call::CloneSibling { .. }, Role::Stage2) => "stage 2 begins, inside of every namespace",
        (Call::Fork { .. }, Role::Stage0) => "the mapping tool",
        (Call::Fork { .. }, Role::Tool) => "a copy of stage 0 begins, to become the tool",
        (Call::Execve { .. }, Role::Tool) => "the tool, with an empty environment",
        (Call::Execve { .. }, Role::Stage0) => "the runtime's own program, again",
        (Call::Execve { .. }, _) => "the command",
        (Call::Wait4 { .. }, _) => match context.target? {
            Role::Launcher => return None,
            Role::Stage0 => "stage 0 has ended",
            Role::Stage1 => "stage 1 has ended",
            Role::Stage2 => "stage 2 has ended",
            Role::Tool => "the tool has ended",
        },
        (Call::Kill { signal: Signal::KILL, .. }, _) => match context.target {
            Some(Role::Stage0) => "stage 0: nobody is left behind",
            Some(Role::Stage1) => "stage 1: nobody is left behind",
            Some(Role::Stage2) => "stage 2: nobody is left behind",
            Some(Role::Tool) => "nobody needs its map any more",
            _ => "nobody is left behind",
        },
        (Call::PidfdOpen { .. }, _) => "to wait for the tool and for stage 1 at once",
        (Call::Sigaction { signal: Signal::CHLD, action }, Role::Stage0) if action.handler == 0 => {
            "were SIGCHLD ignored, the kernel would reap the tool in our place"
        }
        (Call::Sigaction { signal: Signal::CHLD, .. }, Role::Stage0 | Role::Tool) => "as the caller had it",
        (Call::Sigprocmask { how: MaskHow::Block, set: SignalSet::PIPE }, _) => {
            "a log pipe without a reader must not kill us"
        }
        (Call::Sigprocmask { how: MaskHow::Block, set: SignalSet::XFSZ }, _) => {
            "a limit of the size of files must not kill us without a word"
        }
        (Call::Sigprocmask { how: MaskHow::Block, .. }, Role::Launcher) => {
            "no handler of ours may run in the copy"
        }
        (Call::Sigprocmask { how: MaskHow::Set, .. }, _) => "the mask as it was",
        _ => return None,
    })
}

fn identity(call: &Call, context: &Context) -> Option<&'static str> {
    Some(match call {
        Call::Setns { .. } if context.role == Some(Role::Stage0) => match &context.object {
            Some(Object::Namespace(path)) if path == "/proc/self/ns/mnt" => "back, before anything else",
            _ => "into stage 1's mount namespace, for its sources alone",
        },
        Call::Dup3 { .. } => "where the runtime has kept a number free for it",
        Call::Unshare { .. } if context.role == Some(Role::Stage2) => {
            "its root is the cgroup in which we are by now"
        }
        Call::Setns { .. } if context.role == Some(Role::Stage2) => {
            "last of all: from here on its root may kill and limit this process"
        }
        Call::Setns { kind: CloneFlags::NEWUSER, .. } => "second pass: from here on its privileges are ours",
        Call::Setns { .. } if context.again => "third pass: with the privileges inside",
        Call::Setns { .. } => "first pass: with the privileges that we came with",
        Call::Unshare { flags: CloneFlags::EMPTY } => {
            "nothing else to create; called all the same, as by runc"
        }
        Call::Unshare { flags } if flags.contains(CloneFlags::NEWUSER) => {
            "the user namespace first: it will own the others"
        }
        Call::Unshare { .. } if context.in_user => "the others, owned by the user namespace that we are in",
        Call::Unshare { .. } => "all at once, owned by the caller's user namespace",
        Call::SetDumpable { dumpable: true } => {
            "the dumpable window opens: stage 0 could not write otherwise"
        }
        Call::SetDumpable { .. } if context.window => "the dumpable window closes: the maps are written",
        Call::SetDumpable { .. } => {
            "from the first join on, nobody in there may look into us (CVE-2016-9962)"
        }
        Call::Setresuid { .. } => "root inside, so that what is made next is root's",
        Call::Setsid => "leader of a session of its own",
        Call::Setuid { uid: 0 } | Call::Setgid { gid: 0 } => "root of its user namespace",
        Call::DropGroups => "the caller's groups have no business in there",
        Call::Mount { mount: Mount::Propagation(_) } => {
            "before anything is mounted: copied mounts are still the caller's peers"
        }
        Call::Mount { mount: Mount::Proc } => "the /proc of its own pid namespace",
        Call::SetPdeathsig { .. } => "the command dies with the launcher's thread",
        Call::TidAddress => "where the libc caches its thread id, for the clones to refresh",
        Call::SchedGetaffinity => "for a debug record: runc's tests read it",
        Call::SocketType { .. } => {
            "a stream ends when the launcher dies; messages would be waited for in vain"
        }
        Call::Readlink { .. } => "is /proc that of our pid namespace?",
        Call::LinkCount { path } if path.0.ends_with(b"/task") => "how many threads are there?",
        Call::LinkCount { path } if path.0.starts_with(b"/proc/self/") => "does it have a name?",
        Call::LinkCount { .. } => "is it there?",
        _ => return None,
    })
}
