//! The words for the calls that build the root file system of the command, and for those that set its
//! attributes.

use std::format;
use std::string::String;

use super::walk::{Context, Object};
use super::words::one_line;
use crate::record::{Call, Line, Reply};
use crate::transcript::Role;
use nsexec::launch::leaves_old_sys;
use nsexec::sys::types::{Mount, MountAttributes, MountKind};

/// Returns why the launcher makes this call.
pub(super) const fn why(call: &Call) -> Option<&'static str> {
    Some(match call {
        Call::Fchdir { .. } => "the next calls work on this directory, whatever is mounted over its path",
        Call::OpenTree { .. } => "a copy of the mount: its attributes are set before it becomes visible",
        Call::MoveMount { .. } => "the copy becomes visible at its place, complete",
        Call::SetMountAttributes { attributes, .. } if attributes.set & MountAttributes::RDONLY != 0 => {
            "read-only before it is attached: no process sees it writable"
        }
        Call::SetMountAttributes { .. } => "before it is attached: no process sees it otherwise",
        Call::MountHere { kind, .. } => match kind {
            MountKind::Tmpfs => "an empty file system in memory",
            MountKind::Proc => "the processes of this pid namespace",
            MountKind::Sysfs => "the devices of this network namespace, read-only",
            MountKind::Mqueue => "the message queues of this ipc namespace",
            MountKind::Devpts => "new pseudo-terminals",
            MountKind::Overlay => "a layer over the others",
        },
        Call::OpenInRoot { .. } => "a symbolic link in the new root must not lead out of it",
        Call::Mkdirat { .. } => "a directory to mount over",
        Call::Symlinkat { .. } => "a link that programs expect",
        Call::PivotRootHere => "the new root; the old one covers it until it is detached",
        Call::DetachHere => "the old root: from here on no path leads to it",
        Call::ChrootHere => "the new root of this process alone",
        Call::Umask { .. } => "the permissions that new files of the command do not get",
        Call::SetHostname { .. } => "the name of the new UTS namespace",
        Call::SetLimit { .. } => "a limit of the command",
        Call::KeepCapabilities { .. } => "the command is another user, and keeps capabilities",
        Call::DropBounding { .. } => "no program of the command can get this capability",
        Call::SetCapabilities { .. } => "the command has no other capability",
        Call::RaiseAmbient { .. } => "the exec keeps this capability also for a user other than root",
        Call::SetNoNewPrivs => "no exec gives the command new privileges",
        Call::SetSeccompFilter { .. } => "last: the filter sees the exec, and no call before it",
        Call::LandlockRestrictSelf { .. } => "the command is restricted by this rule set",
        Call::SetControllingTerminal { .. } => "signals of this terminal go to the command's session",
        Call::NewSessionKeyring => "the command does not reach the keys of the caller's session",
        Call::WaitSignal { .. } => "the init waits for a signal to forward, or for the end of a child",
        Call::InetSocket => "a socket for the interfaces of this network namespace",
        Call::SetLoopbackUp { .. } => "a new network namespace begins with its loopback interface off",
        _ => return None,
    })
}

/// Returns why the launcher makes a call for a new /sys, or what its failure means.
pub(super) fn sysfs(line: &Line, context: &Context) -> Option<&'static str> {
    let is_refused = match line.reply {
        Reply::Errno(errno) if leaves_old_sys(errno) => true,
        Reply::Errno(_) => return None,
        _ => false,
    };
    let is_copy = context.object == Some(Object::Copy);
    Some(match &line.call {
        Call::Mount { mount: Mount::Sysfs { .. } } if is_refused => {
            "refused, for example since a part of /sys is covered: /sys stays as it is"
        }
        Call::Mount { mount: Mount::Sysfs { .. } } => {
            "the devices of its own network namespace; may fail, for example with EPERM: then /sys stays as it is"
        }
        Call::OpenTree { path, .. } if path.0.starts_with(b"/sys/") && is_refused => {
            "no copy of the mount, for example on an older kernel: no new /sys hides it"
        }
        Call::OpenTree { path, .. } if path.0.starts_with(b"/sys/") => {
            "a copy of the mount: a new file system over a part of its path may hide it"
        }
        Call::Openat { path, .. } if is_copy && !is_refused && path.0 == b"/sys" => {
            "a descriptor is free for the directories below it"
        }
        Call::Openat { path, .. } if is_copy && !is_refused && path.0.starts_with(b"/sys/") => {
            "a directory of the new /sys, for the mount that the old one had there"
        }
        _ => return None,
    })
}

/// Returns why a minimal init, or the command that it created, makes this call.
pub(super) const fn init(line: &Line, context: &Context) -> Option<&'static str> {
    let Some(role) = context.role else { return None };
    Some(match (role, &line.call) {
        (Role::Stage(2), Call::Pipe2) => "its end shows the exec of the command, or the end of its process",
        (Role::Stage(2), Call::SetDumpable { dumpable: false }) => {
            "the memory of the init is a copy of the launcher's: no process of the namespace may read it"
        }
        (Role::Stage(2), Call::Fork { .. }) => "the command, as a child of the init",
        (Role::Stage(2), Call::Wait4 { .. }) => "reaps a child: the command or an orphan",
        (Role::Stage(3), Call::Execve { .. }) => "the command",
        _ => return None,
    })
}

/// Returns the text of the note for a step that changes the tree.
pub(super) fn note(call: &Call, limit: usize) -> Option<String> {
    Some(match call {
        Call::OpenTree { path, .. } => format!("copies the mount\n{}", one_line(&path.0, limit)),
        Call::SetMountAttributes { attributes, .. } if attributes.set & MountAttributes::RDONLY != 0 => {
            "makes it read-only".into()
        }
        Call::MountHere { kind, .. } => format!("mounts {}", name(*kind)),
        Call::PivotRootHere => "changes the root".into(),
        Call::DetachHere => "leaves the old root".into(),
        Call::ChrootHere => "changes its own root".into(),
        Call::SetHostname { name } => format!("host name {}", one_line(&name.0, limit)),
        Call::SetLimit { limit } => format!("limits {}", limit.resource),
        Call::SetCapabilities { .. } => "sets its capabilities".into(),
        Call::SetNoNewPrivs => "no new privileges".into(),
        Call::SetSeccompFilter { program } => format!("filter of {} instructions", program.len()),
        Call::LandlockRestrictSelf { .. } => "Landlock rule set".into(),
        Call::SetControllingTerminal { .. } => "takes the terminal".into(),
        Call::NewSessionKeyring => "a keyring of its own".into(),
        Call::SetLoopbackUp { .. } => "turns loopback on".into(),
        _ => return None,
    })
}

const fn name(kind: MountKind) -> &'static str {
    match kind {
        MountKind::Tmpfs => "a tmpfs",
        MountKind::Proc => "its own procfs",
        MountKind::Sysfs => "a sysfs",
        MountKind::Mqueue => "an mqueue",
        MountKind::Devpts => "a devpts",
        MountKind::Overlay => "an overlay",
    }
}
