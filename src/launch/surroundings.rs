//! The surroundings of the command, as values. The process that becomes the command sets them before its
//! exec.
//!
//! `root` and `last` are the scripts that set them. The values are complete before the first process of a
//! launch exists, so the scripts allocate no memory.
//!
//! The user id and the group id are in the policy, whose values the audit rules compare with a run.

use std::ffi::CString;
use std::sync::Arc;
use std::vec::Vec;

use core::fmt;

use crate::sys::types::{BpfInstruction, Fd, Limit, MountAttributes, MountKind, SysResult};

/// The surroundings of the command. The order of the fields is that of the steps.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// Whether the loopback interface is turned on.
    #[doc(hidden)]
    pub loopback: bool,
    /// The host name.
    #[doc(hidden)]
    pub hostname: Option<Vec<u8>>,
    /// A new sysfs over /sys.
    #[doc(hidden)]
    pub sysfs: Option<NewSysfs>,
    /// The root directory and the mounts.
    #[doc(hidden)]
    pub root: Option<Root>,
    /// The working directory.
    #[doc(hidden)]
    pub directory: Option<Directory>,
    /// Whether standard input becomes the controlling terminal.
    #[doc(hidden)]
    pub terminal: bool,
    /// Whether the command gets a session keyring of its own.
    #[doc(hidden)]
    pub keyring: bool,
    /// The `cgroup.procs` files of the cgroups that the command enters.
    #[doc(hidden)]
    pub cgroups: Vec<CgroupFile>,
    /// The limits of resources.
    #[doc(hidden)]
    pub limits: Vec<Limit>,
    /// The mask for the permissions of new files.
    #[doc(hidden)]
    pub umask: Option<u32>,
    /// The supplementary groups.
    #[doc(hidden)]
    pub groups: Option<Vec<u32>>,
    /// The capabilities that the command has, as bits. The bounding set has no other one.
    #[doc(hidden)]
    pub capabilities: Option<u64>,
    /// Whether no exec gives new privileges.
    #[doc(hidden)]
    pub no_new_privs: bool,
    /// A Landlock rule set.
    #[doc(hidden)]
    pub landlock: Option<Fd>,
    /// A seccomp filter.
    #[doc(hidden)]
    pub filter: Option<Vec<BpfInstruction>>,
    /// The files on which the launcher mounts namespaces of the command.
    #[doc(hidden)]
    pub persistent: Vec<Persistent>,
    /// Descriptors of the launcher for its function before the start. The first process of a launch closes
    /// them, unless the command gets them.
    #[doc(hidden)]
    pub withheld: Vec<Fd>,
    /// Code of the caller.
    pub(super) hooks: Vec<CodeOfCaller>,
}

/// A file on which the launcher mounts a namespace of the command. It keeps the namespace after the command's
/// end. The launch must go through the stages or a child: in a direct start most namespaces are created after
/// the go byte.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Persistent {
    /// The name of the namespace in /proc/PID/ns.
    #[doc(hidden)]
    pub kind: CString,
    /// The absolute path of the file.
    #[doc(hidden)]
    pub file: CString,
}

/// A new sysfs over /sys, which shows the network devices of a new network namespace. The kernel may refuse
/// it; then /sys stays as it is.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NewSysfs {
    /// Whether the mount is read-only, as that of the caller.
    #[doc(hidden)]
    pub read_only: bool,
    /// The paths of the mounts on directories of /sys. Each is mounted on the new /sys too, with the mounts
    /// below it.
    #[doc(hidden)]
    pub kept: Vec<CString>,
    /// Whether no sysfs of the caller is visible as a whole, so the kernel refuses a new one in a mount
    /// namespace of another user namespace (`mnt_already_visible` in the kernel's fs/namespace.c). For a
    /// plan: the launch does not depend on it.
    #[doc(hidden)]
    pub covered: bool,
}

/// A cgroup that the command enters.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CgroupFile {
    /// The directory, for an error's text.
    #[doc(hidden)]
    pub path: CString,
    /// Its `cgroup.procs`, open for writing in the launcher.
    #[doc(hidden)]
    pub fd: Fd,
}

/// The working directory of the command.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Directory {
    #[doc(hidden)]
    pub path: CString,
    /// Whether the path is opened below the root directory, through no magic link of /proc. Otherwise it
    /// could lead out of a root directory or mount namespace that the command must not leave
    /// (CVE-2024-21626).
    #[doc(hidden)]
    pub confined: bool,
}

/// The root directory of the command, and the mounts below it.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Root {
    #[doc(hidden)]
    pub base: Base,
    #[doc(hidden)]
    pub mounts: Vec<MountStep>,
    /// Whether the root directory changes by chroot(2). Otherwise by pivot_root(2), after which no mount of
    /// the old root is left.
    #[doc(hidden)]
    pub by_chroot: bool,
}

/// The root directory: the present one or a new one.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs, reason = "the fields are those of the call, or of the setting of that name")]
pub enum Base {
    /// The present one.
    #[default]
    Present,
    /// A directory, by chroot(2) alone: the mounts stay as they are. Needs no mount namespace.
    Chroot { path: CString },
    /// An open directory of the launcher, close-on-exec, by chroot(2) alone. It may be one of the mount
    /// namespace to join. `path` is for an error's text, and for a plan.
    Opened { path: CString, fd: Fd },
    /// A directory with the mounts below it.
    Directory { path: CString, attributes: MountAttributes },
    /// An empty file system in memory.
    Memory,
    /// A writable layer over directories, as the options of the overlay file system.
    Overlay { options: CString },
}

/// One step below the root directory.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the fields are those of the call, or of the setting of that name")]
pub enum MountStep {
    /// A file or directory of the caller.
    Bind { source: CString, point: Place, attributes: MountAttributes, recursive: bool },
    /// A new file system.
    New { kind: MountKind, options: CString, point: Place },
    /// A directory with the usual device files.
    Devices { point: Place },
    /// A directory.
    MakeDirectory { place: Place, mode: u32 },
    /// A symbolic link.
    Link { target: CString, place: Place },
}

impl MountStep {
    /// Returns the path below the root directory.
    pub(super) const fn place(&self) -> &Place {
        match self {
            Self::Bind { point: place, .. }
            | Self::New { point: place, .. }
            | Self::Devices { point: place }
            | Self::MakeDirectory { place, .. }
            | Self::Link { place, .. } => place,
        }
    }
}

/// An absolute path below the root directory, with its directories from the root on.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    #[doc(hidden)]
    pub path: CString,
    /// For each component of the path: the directory that contains it, and its name.
    #[doc(hidden)]
    pub steps: Vec<(CString, CString)>,
}

impl Place {
    /// Returns the place with this path. `None` if the path is not absolute, contains `.`, `..` or a NUL, or
    /// is the root itself.
    #[must_use]
    pub fn new(path: &[u8]) -> Option<Self> {
        let relative = path.strip_prefix(b"/")?;
        let mut steps = Vec::new();
        let mut directory = Vec::from(*b"/");
        for name in relative.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            if matches!(name, b"." | b"..") {
                return None;
            }
            steps.push((CString::new(directory.clone()).ok()?, CString::new(name).ok()?));
            if directory.len() > 1 {
                directory.push(b'/');
            }
            directory.extend(name);
        }
        (!steps.is_empty()).then_some(Self { path: CString::new(directory).ok()?, steps })
    }

    /// Returns the directory that contains the last component, and its name.
    pub(super) fn last(&self) -> Option<&(CString, CString)> {
        self.steps.last()
    }
}

/// A descriptor that the command gets under a number of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Move {
    /// The descriptor, which is above every number that the command gets.
    pub fd: Fd,
    /// The number.
    pub number: Fd,
}

/// Code of the caller that runs in the command's process.
#[derive(Clone)]
pub(super) struct CodeOfCaller(pub(super) Arc<dyn Fn() -> SysResult<()> + Send + Sync>);

impl fmt::Debug for CodeOfCaller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CodeOfCaller")
    }
}

impl Surroundings {
    /// Returns the number of functions that run before the exec.
    #[must_use]
    pub fn hooks(&self) -> usize {
        self.hooks.len()
    }

    /// Returns the surroundings with this many functions that do nothing, for a replay.
    #[must_use]
    pub fn with_idle_hooks(mut self, count: usize) -> Self {
        let idle: Arc<dyn Fn() -> SysResult<()> + Send + Sync> = Arc::new(|| Ok(()));
        self.hooks = std::vec![CodeOfCaller(idle); count];
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_lists_its_directories_from_the_root_on() {
        let place = Place::new(b"/a//b/c/").unwrap();
        assert_eq!(&*place.path, c"/a/b/c");
        let steps: Vec<_> = place.steps.iter().map(|(one, other)| (&**one, &**other)).collect();
        assert_eq!(steps, [(c"/", c"a"), (c"/a", c"b"), (c"/a/b", c"c")]);
    }

    #[test]
    fn a_place_is_absolute_and_has_no_dots() {
        for path in [&b"a"[..], b"", b"/", b"/a/../b", b"/./a", b"/a\0b"] {
            assert!(Place::new(path).is_none(), "{path:?}");
        }
    }
}
