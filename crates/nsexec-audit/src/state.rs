//! The state of a process that is about to execute a command: as the kernel shows it, and as a plan expects
//! it.

use core::fmt;
use std::collections::BTreeMap;
use std::string::String;
use std::vec::Vec;

use serde::{Deserialize, Serialize};

/// The state of a process. The ids are those that this program sees.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct State {
    /// The namespaces, by kind: `"net"`. A kind that the kernel lacks is absent.
    pub namespaces: BTreeMap<String, FileId>,
    /// The real, the effective and the saved user id.
    pub user_ids: [u32; 3],
    /// The real, the effective and the saved group id.
    pub group_ids: [u32; 3],
    /// The supplementary groups, in ascending order.
    pub groups: Vec<u32>,
    /// The capability sets.
    pub capabilities: Capabilities,
    /// Whether no exec gives new privileges.
    pub no_new_privs: bool,
    /// The blocked signals: the signal of number N is bit N−1.
    pub blocked: u64,
    /// The ignored signals, likewise.
    pub ignored: u64,
    /// Whether the process leads a session.
    pub leads_session: bool,
    /// The oom score adjustment.
    pub oom_score_adj: i32,
    /// The mask of permissions.
    pub umask: u32,
    /// The descriptors that the exec keeps, in ascending order.
    pub descriptors: Vec<i32>,
    /// The root directory.
    pub root: FileId,
    /// The working directory.
    pub directory: FileId,
}

/// The capability sets of a process, as bits (capabilities(7)): the capability of number N is bit N.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the fields are those of /proc/PID/status")]
pub struct Capabilities {
    pub inheritable: u64,
    pub permitted: u64,
    pub effective: u64,
    pub bounding: u64,
    pub ambient: u64,
}

/// A file, by its numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FileId {
    /// The mount through which the file is reached (proc_pid_fdinfo(5)). 0 for a namespace.
    pub mount: u64,
    /// The device.
    pub device: u64,
    /// The inode.
    pub inode: u64,
}

/// The state that a plan expects. A part that is `None` is that of the caller.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Expected {
    /// The namespaces, by kind.
    pub namespaces: BTreeMap<String, Origin>,
    /// The real, the effective and the saved user id.
    pub user_ids: [u32; 3],
    /// The real, the effective and the saved group id.
    pub group_ids: [u32; 3],
    /// The supplementary groups, in ascending order.
    pub groups: Option<Vec<u32>>,
    /// The capability sets.
    pub capabilities: Capabilities,
    /// Whether the bounding set is also limited by the caller's: a process in another user namespace begins
    /// with a full one (user_namespaces(7)).
    pub bounded_by_caller: bool,
    /// Whether no exec gives new privileges.
    pub no_new_privs: bool,
    /// The blocked signals.
    pub blocked: Option<u64>,
    /// The ignored signals.
    pub ignored: Option<u64>,
    /// Whether the process leads a session.
    pub leads_session: bool,
    /// The oom score adjustment.
    pub oom_score_adj: Option<i32>,
    /// The mask of permissions.
    pub umask: Option<u32>,
    /// The descriptors that the exec keeps.
    pub descriptors: Option<Vec<i32>>,
    /// Whether the root directory, or the mount that it is on, is another one than the caller's.
    pub own_root: bool,
    /// The working directory, as a path in the root directory of the process.
    pub directory: Option<String>,
}

/// The origin of a namespace.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// The caller is in it.
    Caller,
    /// It existed before the launch.
    Joined,
    /// The launch created it.
    New,
}

impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { inheritable, permitted, effective, bounding, ambient } = self;
        write!(f, "inh {inheritable:x} prm {permitted:x} eff {effective:x} bnd {bounding:x} amb {ambient:x}")
    }
}

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "inode {} of device {:#x}, mount {}", self.inode, self.device, self.mount)
    }
}
