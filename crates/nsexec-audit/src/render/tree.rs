//! The words for the calls that build the root file system of the command.

use std::format;
use std::string::String;

use super::words::one_line;
use crate::record::Call;
use nsexec::sys::types::{MountAttributes, MountKind};

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
