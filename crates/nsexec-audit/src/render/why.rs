//! The reason for a step, in words, shown next to its line. See docs/protocol.md#what-happens-in-order.

use super::walk::{Attempt, Channel, Context, Object};
use super::{child, direct, in_place, tree};
use crate::record::{Call, Line, Reply};
use crate::transcript::Role;
use nsexec::sys::types::{
    CloneFlags, Errno, FsType, MaskHow, Mount, OpenFlags, PollEvents, Seals, Signal, SignalSet,
};

/// Returns why the protocol makes this call, or what its failure means. `None` for a call without an entry.
#[must_use]
pub fn why(line: &Line, context: &Context) -> Option<&'static str> {
    let of_shape = match context.attempt {
        Attempt::Stages => None,
        Attempt::Child => child::why(line, context),
        Attempt::InPlace => in_place::why(line, context),
        Attempt::Direct | Attempt::GivenUp => direct::why(line, context),
    };
    if of_shape.is_some() {
        return of_shape;
    }
    if let Some(text) = tree::sysfs(line, context) {
        return Some(text);
    }
    if let Reply::Errno(errno) = line.reply {
        return failed(line, context, errno);
    }
    if let Some(text) = tree::init(line, context) {
        return Some(text);
    }
    match &line.call {
        Call::Write { data, .. } if data.0 == b"0" && context.object.is_none() => {
            Some("0 is this process: it enters its cgroup, which becomes the root of a new cgroup namespace")
        }
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
        | Call::CloseRange { .. }
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
        _ => identity(&line.call, context).or_else(|| tree::why(&line.call)),
    }
}

fn failed(line: &Line, context: &Context, errno: Errno) -> Option<&'static str> {
    let log = context.object == Some(Object::Log);
    let launcher = context.role == Some(Role::Launcher);
    Some(match (&line.call, errno) {
        (_, Errno::EINTR) => "interrupted by a signal: the call is repeated",
        (_, Errno::EAGAIN) if log => "the log pipe is full",
        (Call::DropBounding { .. }, Errno::EINVAL) => "the kernel knows no further capability",
        (Call::Read { .. }, Errno::ECONNRESET) => "the peer died with unread bytes: treated as end of file",
        (Call::Send { .. } | Call::SendFd { .. }, Errno::EPIPE) => "the peer is gone",
        (Call::Send { .. }, Errno::ENOTSOCK) => "not a socket: write is used instead",
        (Call::Setns { .. }, Errno::EPERM) if context.again => {
            "no privilege over it, before or after the join of the user namespace"
        }
        (Call::Setns { .. }, Errno::EPERM) => {
            "no privilege over it yet: tried again after the user namespace"
        }
        (Call::Unshare { .. }, Errno::EINVAL) => {
            "spurious before Linux 4.3 and while a thread is exiting: the call is repeated"
        }
        (Call::Openat2 { path, .. }, Errno::ENOSYS | Errno::EPERM) if !path.0.ends_with(b"_map") => {
            "an older kernel, or a seccomp filter: openat is used, which does not detect a mount over it"
        }
        (Call::Openat2 { .. }, Errno::EXDEV) => "something is mounted over it",
        (Call::Openat { .. } | Call::Openat2 { .. } | Call::Write { .. }, Errno::EPERM) => {
            "no privilege to write it: the mapping tool is used"
        }
        (Call::Openat { .. } | Call::Openat2 { .. }, Errno::EACCES) => {
            "its files in /proc belong to root: it is not dumpable, or it is exiting"
        }
        (Call::SocketType { .. }, Errno::ENOTSOCK) => "not a socket: a pipe is accepted too",
        (Call::PidfdOpen { .. }, _) if launcher => "an older kernel: only wait4 reports the end of the stage",
        (Call::PidfdOpen { .. }, _) => "an older kernel: only wait4 reports the end of the tool",
        (Call::CloseRangeCloexec { .. }, _) => "an older kernel: the descriptors are marked one by one",
        (Call::CloseRange { .. }, _) => "an older kernel: the descriptors are closed one by one",
        (Call::TidAddress, _) => "not supported by this kernel: the cached thread id is not refreshed",
        (Call::Kill { .. }, Errno::ESRCH) => "it has exited already",
        (Call::Wait4 { .. }, Errno::ECHILD) if launcher => "no process of this launch is left",
        (Call::Wait4 { .. }, Errno::ECHILD) => "no child is left",
        (Call::GetSeals { .. }, _) => "a file without support for seals",
        (Call::MemfdCreate { exec: true, .. }, Errno::EINVAL) => {
            "an older kernel, which does not need MFD_EXEC"
        }
        (Call::MemfdCreate { .. }, _) => "memfd_create is not available: a file in a directory is used",
        (Call::Sendfile { .. }, _) => "copied with read and write instead",
        (Call::Execveat { .. }, Errno::ENOSYS | Errno::EPERM) => "executed by its path instead",
        (Call::Execve { .. }, Errno::ENOENT | Errno::ENOTDIR) => "not found here",
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
            "opened in stage 1's mount namespace with stage 0's privileges; O_PATH gives no access to the content"
        }
        (Call::Openat { .. }, Object::Namespace(path)) if path == "/proc/self/ns/mnt" => {
            "to return to this mount namespace later"
        }
        (Call::Openat { .. }, Object::Namespace(_)) if context.role == Some(Role::Stage(0)) => {
            "a bind mount needs a source in its own mount namespace"
        }
        (Call::Openat { .. }, Object::Namespace(_)) => {
            "all are opened before any join: afterwards a path may be unreachable"
        }
        (Call::Openat { .. }, Object::ProcRoot) => {
            "files are opened below it, without crossing a mount point"
        }
        (Call::Openat { .. } | Call::Openat2 { .. }, Object::ProcDir) => {
            "one descriptor for its directory in /proc: safe if the pid is reused"
        }
        (
            Call::Openat { flags: OpenFlags::ReadOnly, .. }
            | Call::Openat2 { flags: OpenFlags::ReadOnly, .. },
            _,
        ) if file.ends_with("_map") => "the tool reported success: the map is verified",
        (Call::Openat { .. } | Call::Openat2 { .. }, _) if file == "timens_offsets" => {
            "opened while stage 1 is dumpable, written later"
        }
        (Call::Openat { .. } | Call::Openat2 { .. }, _) if file == "oom_score_adj" => {
            "while /proc/self still belongs to this user"
        }
        (Call::Openat { .. } | Call::Openat2 { .. }, _) if file == "stat" => {
            "checked whether stage 1 is exiting"
        }
        (Call::Openat { .. }, _) if file == "exe" => {
            "our own program: checked whether a container could write to it"
        }
        (Call::Openat { .. }, _) if file == "cmdline" => "our arguments, for the copy",
        (Call::Openat { .. }, Object::Copy) => "a copy without a name in the file system",
        (Call::Fstatfs { .. }, object) => match (&line.reply, object) {
            (Reply::FsType(FsType::NSFS), Object::Namespace(_)) => "verified to be a namespace",
            (Reply::FsType(FsType::PROC), Object::ProcFile(_)) => "verified to be procfs",
            // The init pipe, if it is not a socket.
            (_, Object::End { .. }) => return None,
            _ => "not the expected file system",
        },
        (Call::Write { .. }, _) => match file {
            "uid_map" | "gid_map" => "one write: the kernel accepts a map once, and only complete",
            "setgroups" => "before gid_map: an unprivileged writer must deny setgroups first",
            "timens_offsets" => "before the first process is in the new time namespace",
            "oom_score_adj" => "both forks inherit it",
            _ => return None,
        },
        (Call::Close { .. }, Object::End { .. }) if context.refused => return None,
        (Call::Close { .. }, Object::End { channel, outer }) => closes(*channel, *outer, context.role?)?,
        _ => return None,
    })
}

/// Explains why a process closes an end of another process first: with no copy left open, end of file means
/// that the other process died.
const fn closes(channel: Channel, outer: bool, role: Role) -> Option<&'static str> {
    match (channel, outer, role) {
        (Channel::Init, true, Role::Stage(0)) => {
            Some("the launcher's end: closed so that its death shows as end of file")
        }
        (Channel::Init, false, Role::Launcher) => {
            Some("the stages' end: closed so that their death shows as end of file")
        }
        (Channel::ToStage1, false, Role::Stage(0)) => {
            Some("stage 1's end: closed so that its death shows as end of file")
        }
        (Channel::ToStage2, false, Role::Stage(0)) => {
            Some("stage 2's end: closed so that its death shows as end of file")
        }
        (_, true, Role::Stage(1) | Role::Stage(2)) => {
            Some("stage 0's end: closed so that its death shows as end of file")
        }
        (Channel::ToStage2, false, Role::Stage(1)) => Some("stage 2 has its own copy"),
        (Channel::ToStage1, false, Role::Stage(2)) => Some("stage 1's end"),
        _ => None,
    }
}

fn read(line: &Line, context: &Context) -> Option<&'static str> {
    let Reply::Data(data) = &line.reply else { return None };
    match (context.object.as_ref()?, context.peer()) {
        (Object::End { .. }, peer) if data.0.is_empty() => Some(match peer {
            Some(Role::Launcher) => "end of file: the launcher is gone",
            Some(Role::Stage(1)) => "end of file: stage 1 is gone",
            Some(Role::Stage(2)) => "end of file: stage 2 is gone",
            _ if context.role == Some(Role::Launcher) => "end of file: the stages are gone",
            _ => "end of file: stage 0 is gone",
        }),
        // Reads of our own program and arguments need no remark.
        (Object::ProcFile(file), _) if file == "cmdline" || file == "exe" => None,
        (Object::ProcFile(file), _) if file == "stat" => Some("its state and its flags"),
        (Object::ProcFile(_), _) => Some("the map that the tool wrote"),
        (Object::Log, _) if data.0.is_empty() => {
            Some("end of file: every writer of the log pipe has closed it")
        }
        (Object::Log, _) => Some("log records of the stages"),
        _ => None,
    }
}

/// Reasons for the calls that copy the program (CVE-2019-5736).
fn copying(line: &Line, context: &Context) -> Option<&'static str> {
    Some(match (&line.call, &line.reply) {
        (Call::GetSeals { .. }, Reply::Seals(Seals::CONTENT)) if context.object == Some(Object::Copy) => {
            "the copy passes the check for a sealed copy"
        }
        (Call::GetSeals { .. }, Reply::Seals(Seals::CONTENT)) => {
            "already a sealed copy: no further copy is made"
        }
        (Call::GetSeals { .. }, _) => "not a sealed copy",
        (Call::AddSeals { .. }, _) => "from here on the copy cannot be changed, not even by its owner",
        (Call::MemfdCreate { .. }, _) => {
            "a container that writes to /proc/PID/exe must not reach the runtime (CVE-2019-5736)"
        }
        (Call::Sendfile { .. }, Reply::Count(0)) => "all of it",
        (Call::Fchmod { .. }, _) => "the copy becomes read-only",
        (Call::Unlink { .. }, _) => "the copy has no name any more",
        (Call::IsReadOnly { .. }, _) => "checked whether it is on a read-only mount",
        (Call::Execveat { .. }, _) => "the copy is executed from its beginning",
        _ => return None,
    })
}

fn descriptors(call: &Call, context: &Context) -> Option<&'static str> {
    Some(match (call, context.object.as_ref()) {
        (Call::Socketpair, Some(Object::End { channel, .. })) => match channel {
            Channel::Init => "the init pipe: for the bootstrap message, and for the pid line in reply",
            Channel::ToStage1 => "the sync pipe with stage 1",
            Channel::ToStage2 => "the sync pipe with stage 2: a stage cannot read messages for the other",
        },
        (Call::Pipe2, _) => "the log pipe",
        (Call::Poll { fds, .. }, object) if fds.len() > 1 => match (context.role?, object?) {
            (Role::Launcher, Object::Log) => "the end of the log, or an event that ends the launch",
            (Role::Launcher, Object::Process) => "the end of the stage, or an event that ends the launch",
            (Role::Launcher, Object::End { .. })
                if fds.iter().any(|polled| polled.events == PollEvents::OUT) =>
            {
                "room for the rest of the message, or an event that ends the launch"
            }
            (Role::Launcher, _) => "the pid line, the end of stage 0, or an event that ends the launch",
            (_, Object::Process) => "the end of the tool, or the death of stage 1 or the launcher",
            (_, Object::End { channel: Channel::Init, .. }) => return None,
            _ => "a message, or the death of its sender or the launcher",
        },
        (Call::Poll { timeout_ms: 0, .. }, Some(Object::End { channel: Channel::Init, .. }))
            if context.role == Some(Role::Stage(2)) =>
        {
            "the last check that the launcher lives"
        }
        (Call::SetCloexec { on: false, .. }, _) => "requested by the caller: the command inherits it",
        (Call::CloseRange { first: 0, .. }, _) => "the init keeps no descriptor of the launcher",
        (Call::CloseRange { .. }, _) => "the launch and the command use none of these descriptors",
        (Call::CloseRangeCloexec { .. }, _) if matches!(context.role, Some(Role::Stage(_))) => {
            "the command inherits only the requested descriptors"
        }
        (Call::SetCloexec { .. }, _) if matches!(context.role, Some(Role::Stage(_))) => {
            "a step of the launch uses it; the command does not inherit it"
        }
        (Call::CloseRangeCloexec { .. } | Call::SetCloexec { .. }, _) => {
            "the tool may be setuid root: it inherits only the standard descriptors"
        }
        _ => return None,
    })
}

fn processes(line: &Line, context: &Context) -> Option<&'static str> {
    let child = line.reply == Reply::Child;
    Some(match (&line.call, context.role?) {
        (Call::Fork { .. }, Role::Launcher) => "stage 0",
        (Call::CloneSibling { .. } | Call::Fork { .. }, Role::Stage(0)) if child => "stage 0 begins",
        (Call::CloneSibling { .. }, Role::Stage(0)) => {
            "stage 1, a sibling: the launcher is its parent, and reaps it"
        }
        (Call::CloneSibling { .. }, Role::Stage(1)) if child => {
            "stage 1 begins, still in the caller's namespaces"
        }
        (Call::CloneSibling { .. }, Role::Stage(1)) => {
            "stage 2: new pid and time namespaces apply to children only"
        }
        (Call::CloneSibling { .. }, Role::Stage(2)) => "stage 2 begins, inside of every namespace",
        (Call::Fork { .. }, Role::Stage(0)) => "the mapping tool",
        (Call::Fork { .. }, Role::Tool(_)) => "a copy of stage 0 begins, to become the tool",
        (Call::Execve { .. }, Role::Tool(_)) => "the tool, with an empty environment",
        (Call::Execve { .. }, Role::Stage(0)) => "the runtime executes itself again",
        (Call::Execve { .. }, _) => "the command",
        (Call::Wait4 { .. }, _) => match context.target? {
            Role::Stage(0) => "stage 0 has ended",
            Role::Stage(1) => "stage 1 has ended",
            Role::Stage(2) => "stage 2 has ended",
            Role::Tool(_) => "the tool has ended",
            Role::Launcher | Role::Stage(_) | Role::Other(_) => return None,
        },
        (Call::Kill { signal: Signal::KILL, .. }, _) => match context.target {
            Some(Role::Stage(0)) => "stage 0: no process is left behind",
            Some(Role::Stage(1)) => "stage 1: no process is left behind",
            Some(Role::Stage(2)) => "stage 2: no process is left behind",
            Some(Role::Tool(_)) => "its map is not needed any more",
            _ => "no process is left behind",
        },
        (Call::PidfdOpen { .. }, Role::Launcher) => {
            "to wait for the end of this stage and for other events at once"
        }
        (Call::PidfdOpen { .. }, _) => "to wait for the tool and for stage 1 at once",
        (Call::Sigaction { signal: Signal::CHLD, action }, Role::Stage(0)) if action.handler == 0 => {
            "if SIGCHLD were ignored, the kernel would reap the tool"
        }
        (Call::Sigaction { signal: Signal::CHLD, .. }, Role::Stage(0) | Role::Tool(_)) => {
            "the caller's disposition is restored"
        }
        (Call::Sigprocmask { how: MaskHow::Block, set: SignalSet::PIPE }, _) => {
            "a log pipe without a reader must not kill this process"
        }
        (Call::Sigprocmask { how: MaskHow::Block, set: SignalSet::XFSZ }, _) => {
            "a file size limit must not kill this process without an error"
        }
        (Call::Sigprocmask { how: MaskHow::Block, .. }, Role::Launcher) => {
            "no signal handler of the launcher may run in the child"
        }
        (Call::Sigprocmask { how: MaskHow::Set, .. }, _) => "the signal mask is restored",
        _ => return None,
    })
}

fn identity(call: &Call, context: &Context) -> Option<&'static str> {
    Some(match call {
        Call::Setns { .. } if context.role == Some(Role::Stage(0)) => match &context.object {
            Some(Object::Namespace(path)) if path == "/proc/self/ns/mnt" => {
                "back to its own mount namespace at once"
            }
            _ => "into stage 1's mount namespace, only to open mount sources",
        },
        Call::Dup3 { .. } => "at the number that the runtime has reserved for it",
        Call::Unshare { .. } if context.role == Some(Role::Stage(2)) => {
            "its root is the current cgroup of this process"
        }
        Call::Setns { .. } if context.role == Some(Role::Stage(2)) => {
            "last step: from here on the container's root may kill and limit this process"
        }
        Call::Setns { kind: CloneFlags::NEWUSER, .. } => {
            "second pass: from here on this process has all capabilities in it"
        }
        Call::Setns { .. } if context.again => "third pass: with the capabilities in the user namespace",
        Call::Setns { .. } => "first pass: with the caller's privileges",
        Call::Unshare { flags: CloneFlags::EMPTY } => "nothing else to create; called anyway, as in runc",
        Call::Unshare { flags } if flags.contains(CloneFlags::NEWUSER) => {
            "the user namespace first: it will own the others"
        }
        Call::Unshare { .. } if context.in_user => "the others, owned by the current user namespace",
        Call::Unshare { .. } => "all at once, owned by the caller's user namespace",
        Call::SetDumpable { dumpable: true } => {
            "the dumpable window opens: otherwise stage 0 could not write the maps"
        }
        Call::SetDumpable { .. } if context.window => "the dumpable window closes: the maps are written",
        Call::SetDumpable { .. } => {
            "processes in the joined namespaces must not trace this one (CVE-2016-9962)"
        }
        Call::Setresuid { .. } => "root inside, so that root owns the objects created next",
        Call::Setsid => "leader of a new session",
        Call::Setuid { uid: 0 } | Call::Setgid { gid: 0 } => "root of its user namespace",
        Call::DupTo { .. } => "the command gets this descriptor under this number",
        Call::DupAbove { .. } => "out of the way of a number that the command gets",
        Call::Chdir { .. } => "the working directory of the command",
        Call::SetGroups { .. } => "the supplementary groups of the command",
        Call::Setuid { .. } => "the user id of the command",
        Call::Setgid { .. } => "the group id of the command",
        Call::RunHook { .. } => "code of the caller: its own calls are neither planned nor recorded",
        Call::DropGroups => "the container must not have the caller's groups",
        Call::Mount { mount: Mount::Propagation(_) } => {
            "before any mount: the copied mounts still propagate to the caller's"
        }
        Call::Mount { mount: Mount::Proc } => "the /proc of its own pid namespace",
        Call::SetPdeathsig { signal: Signal::NONE } => "the command may outlive the launcher",
        Call::SetPdeathsig { signal: Signal::KILL } if context.changed_ids => {
            "set again: the change of ids has cleared it"
        }
        Call::SetPdeathsig { signal: Signal::KILL } => "this process dies with the launcher's thread",
        Call::SetPdeathsig { .. } => "a stopped stage 0 continues when the launcher's thread dies, and ends",
        Call::TidAddress => "the address of libc's cached thread id, which the clones refresh",
        Call::SchedGetaffinity => "for a debug record: runc's tests read it",
        Call::SocketType { .. } => {
            "a stream reports end of file when the launcher dies; other socket types do not"
        }
        Call::Readlink { .. } => "checked whether /proc belongs to this pid namespace",
        Call::LinkCount { path } if path.0.ends_with(b"/task") => "the number of threads",
        Call::LinkCount { path } if path.0.starts_with(b"/proc/self/") => "checked whether it has a name",
        Call::LinkCount { .. } => "checked whether it exists",
        _ => return None,
    })
}
