//! The types of the calls with which our own launcher sets the surroundings of its command. `types` exports
//! them.

use core::ffi::CStr;
use core::fmt;

use super::types::SysResult;

/// A limit of a resource (getrlimit(2)).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Limit {
    /// The resource.
    pub resource: Resource,
    /// The value that the kernel enforces, in the unit of the resource.
    pub soft: u64,
    /// The highest value to which a process without CAP_SYS_RESOURCE can raise the soft limit.
    pub hard: u64,
}

impl Limit {
    /// `RLIM_INFINITY`: no limit.
    pub const INFINITY: u64 = u64::MAX;
}

/// A resource that the kernel limits, by its number (getrlimit(2)). The numbers are those of all
/// architectures for which this crate compiles.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Resource(pub u32);

/// Defines numbers with names.
macro_rules! numbers {
    ($type:ident $names:literal: $($(#[$doc:meta])* $name:ident = $number:literal,)+) => {
        impl $type {
            $($(#[$doc])* pub const $name: Self = Self($number);)+

            /// All known values, in ascending order.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// Returns the name as the man pages write it, or `None` for an unknown number.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($number => Some(concat!($names, stringify!($name))),)+
                    _ => None,
                }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.name() {
                    Some(name) => f.write_str(name),
                    None => write!(f, "{:#x}", self.0),
                }
            }
        }
    };
}

numbers! { Resource "RLIMIT_":
    /// Processor time, in seconds.
    CPU = 0,
    /// The size of a file that the process writes, in bytes.
    FSIZE = 1,
    /// The data segment, in bytes.
    DATA = 2,
    /// The stack, in bytes.
    STACK = 3,
    /// The size of a core dump, in bytes.
    CORE = 4,
    /// Resident memory, in bytes. Without effect since Linux 2.4.30.
    RSS = 5,
    /// The number of processes of the real user id.
    NPROC = 6,
    /// The highest descriptor plus one.
    NOFILE = 7,
    /// Locked memory, in bytes.
    MEMLOCK = 8,
    /// Virtual memory, in bytes.
    AS = 9,
    /// The number of file locks. Without effect since Linux 2.4.25.
    LOCKS = 10,
    /// The number of queued signals of the real user id.
    SIGPENDING = 11,
    /// POSIX message queues of the real user id, in bytes.
    MSGQUEUE = 12,
    /// The highest nice value, as 20 minus the value.
    NICE = 13,
    /// The highest real-time priority.
    RTPRIO = 14,
    /// Processor time without a blocking call under real-time scheduling, in microseconds.
    RTTIME = 15,
}

/// A capability, by its number (capabilities(7)).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Capability(pub u32);

numbers! { Capability "CAP_":
    /// Changes owners of files.
    CHOWN = 0,
    /// Ignores permissions of files.
    DAC_OVERRIDE = 1,
    /// Reads files and searches directories without permission.
    DAC_READ_SEARCH = 2,
    /// Does what only the owner of a file may.
    FOWNER = 3,
    /// Keeps set-user-id bits at a write.
    FSETID = 4,
    /// Sends signals to processes of others.
    KILL = 5,
    /// Changes group ids.
    SETGID = 6,
    /// Changes user ids.
    SETUID = 7,
    /// Removes capabilities from the bounding set, and adds inheritable ones.
    SETPCAP = 8,
    /// Sets the attributes immutable and append-only of files.
    LINUX_IMMUTABLE = 9,
    /// Binds ports below 1024.
    NET_BIND_SERVICE = 10,
    /// Broadcasts. Not used by the kernel.
    NET_BROADCAST = 11,
    /// Configures the network.
    NET_ADMIN = 12,
    /// Uses raw and packet sockets.
    NET_RAW = 13,
    /// Locks memory.
    IPC_LOCK = 14,
    /// Ignores permissions of System V IPC objects.
    IPC_OWNER = 15,
    /// Loads kernel modules.
    SYS_MODULE = 16,
    /// Accesses I/O ports.
    SYS_RAWIO = 17,
    /// Calls chroot(2) and setns(2) for a mount namespace.
    SYS_CHROOT = 18,
    /// Traces processes.
    SYS_PTRACE = 19,
    /// Controls process accounting.
    SYS_PACCT = 20,
    /// System administration: mounts, namespaces, host names, and much else.
    SYS_ADMIN = 21,
    /// Restarts the machine.
    SYS_BOOT = 22,
    /// Raises priorities.
    SYS_NICE = 23,
    /// Exceeds limits of resources.
    SYS_RESOURCE = 24,
    /// Sets the clock.
    SYS_TIME = 25,
    /// Configures virtual terminals.
    SYS_TTY_CONFIG = 26,
    /// Creates device files.
    MKNOD = 27,
    /// Takes leases on files of others.
    LEASE = 28,
    /// Writes records to the audit log.
    AUDIT_WRITE = 29,
    /// Configures auditing.
    AUDIT_CONTROL = 30,
    /// Sets file capabilities, and maps user 0 of the parent user namespace.
    SETFCAP = 31,
    /// Overrides mandatory access control.
    MAC_OVERRIDE = 32,
    /// Configures mandatory access control.
    MAC_ADMIN = 33,
    /// Reads and clears the kernel log.
    SYSLOG = 34,
    /// Wakes the system up.
    WAKE_ALARM = 35,
    /// Blocks the suspension of the system.
    BLOCK_SUSPEND = 36,
    /// Reads the audit log.
    AUDIT_READ = 37,
    /// Monitors performance (Linux 5.8).
    PERFMON = 38,
    /// Uses BPF (Linux 5.8).
    BPF = 39,
    /// Saves and restores processes (Linux 5.9).
    CHECKPOINT_RESTORE = 40,
}

/// The capability sets of capset(2), as bits: the capability of number N is bit N.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct CapabilitySets {
    /// The capabilities that the kernel checks.
    pub effective: u64,
    /// The capabilities that can become effective.
    pub permitted: u64,
    /// The capabilities that an exec of a file with inheritable capabilities keeps.
    pub inheritable: u64,
}

/// An instruction of a seccomp filter: `struct sock_filter` of linux/filter.h.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct BpfInstruction {
    /// The operation.
    pub code: u16,
    /// The number of instructions to skip if a comparison is true.
    pub jt: u8,
    /// The number of instructions to skip if it is false.
    pub jf: u8,
    /// The operand.
    pub k: u32,
}

/// The attributes of a mount that mount_setattr(2) sets and clears, as `MOUNT_ATTR_*` bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct MountAttributes {
    /// The bits to set.
    pub set: u64,
    /// The bits to clear.
    pub clear: u64,
}

impl MountAttributes {
    /// `MOUNT_ATTR_RDONLY`: no file can be changed.
    pub const RDONLY: u64 = 0x1;
    /// `MOUNT_ATTR_NOSUID`: set-user-id bits and file capabilities have no effect.
    pub const NOSUID: u64 = 0x2;
    /// `MOUNT_ATTR_NODEV`: device files cannot be opened.
    pub const NODEV: u64 = 0x4;
    /// `MOUNT_ATTR_NOEXEC`: files cannot be executed.
    pub const NOEXEC: u64 = 0x8;
}

/// A kind of file system that can be mounted new, each with its flags.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum MountKind {
    /// `"tmpfs"`, `MS_NOSUID|MS_NODEV`: a file system in memory.
    Tmpfs,
    /// `"proc"`, `MS_NOSUID|MS_NODEV|MS_NOEXEC`: the processes of this pid namespace.
    Proc,
    /// `"sysfs"`, `MS_RDONLY|MS_NOSUID|MS_NODEV|MS_NOEXEC`: the devices of this network namespace.
    Sysfs,
    /// `"mqueue"`, `MS_NOSUID|MS_NODEV|MS_NOEXEC`: the POSIX message queues of this ipc namespace.
    Mqueue,
    /// `"devpts"`, `MS_NOSUID|MS_NOEXEC`: new pseudo-terminals.
    Devpts,
    /// `"overlay"`, `MS_NOSUID|MS_NODEV`: a writable layer over others (Linux 5.11 for unprivileged users).
    Overlay,
}

impl MountKind {
    /// All kinds, in the order of their declaration.
    pub const ALL: [Self; 6] =
        [Self::Tmpfs, Self::Proc, Self::Sysfs, Self::Mqueue, Self::Devpts, Self::Overlay];

    /// Returns the name of the file system, as in /proc/filesystems (proc_filesystems(5)).
    #[must_use]
    pub const fn name(self) -> &'static CStr {
        match self {
            Self::Tmpfs => c"tmpfs",
            Self::Proc => c"proc",
            Self::Sysfs => c"sysfs",
            Self::Mqueue => c"mqueue",
            Self::Devpts => c"devpts",
            Self::Overlay => c"overlay",
        }
    }
}

/// Code of the caller, for [`Sys::run_hook`](super::Sys::run_hook).
#[derive(Clone, Copy)]
pub struct Hook<'a> {
    /// The number of the hook in its launch, from 0 on.
    pub number: u32,
    /// The code.
    pub code: &'a (dyn Fn() -> SysResult<()> + Send + Sync),
}

impl fmt::Debug for Hook<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hook").field("number", &self.number).finish_non_exhaustive()
    }
}
