//! The steps that can fail: [`Doing`] and its parts, with runc's error texts.

use core::fmt;

use crate::bootstrap::text::PathText;
use crate::namespace::NsKind;
use crate::sys::types::{CloneFlags, Fd, Pid};

/// One of the two id maps.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum MapKind {
    /// Map and tool: `uid_map`, newuidmap.
    Uid,
    /// Map and tool: `gid_map`, newgidmap.
    Gid,
}

impl MapKind {
    /// Returns the file below /proc/PID.
    #[must_use]
    pub const fn file(self) -> ProcFile {
        match self {
            Self::Uid => ProcFile::UidMap,
            Self::Gid => ProcFile::GidMap,
        }
    }

    /// Returns the mapping tool's name as in runc's text.
    pub(super) const fn tool(self) -> &'static str {
        match self {
            Self::Uid => "newuid",
            Self::Gid => "newgid",
        }
    }
}

/// The files of /proc/PID that stage 0 writes or reads for stage 1.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ProcFile {
    /// The user id map.
    UidMap,
    /// The group id map.
    GidMap,
    /// The text "allow" or "deny".
    Setgroups,
    /// The offsets of the clocks in a new time namespace.
    TimensOffsets,
    /// State and flags of the process. Read only.
    Stat,
}

impl ProcFile {
    /// Returns the file's name.
    #[must_use]
    pub const fn name(self) -> &'static core::ffi::CStr {
        match self {
            Self::UidMap => c"uid_map",
            Self::GidMap => c"gid_map",
            Self::Setgroups => c"setgroups",
            Self::TimensOffsets => c"timens_offsets",
            Self::Stat => c"stat",
        }
    }

    /// Returns the file's name as text.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UidMap => "uid_map",
            Self::GidMap => "gid_map",
            Self::Setgroups => "setgroups",
            Self::TimensOffsets => "timens_offsets",
            Self::Stat => "stat",
        }
    }
}

/// One step of the private protocol between the stages. Its text is runc's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SyncStep {
    /// Stage 0 waits for the next request of stage 1.
    Stage1Next,
    /// Stage 0 reads the pid of stage 2.
    Stage2Pid,
    /// Stage 0 reports to stage 1 that the maps are written.
    WriteUsermapAck,
    /// Stage 0 reports to stage 1 that the offsets are written.
    WriteTimeoffsetsAck,
    /// Stage 0 acknowledges the pid to stage 1.
    WriteRecvpidAck,
    /// Stage 0 lets stage 2 run.
    WriteGrandchild,
    /// Stage 0 waits for stage 2 to finish.
    Stage2Next,
    /// Stage 1 requests the maps.
    WriteUsermapPls,
    /// Stage 1 waits for the maps.
    ReadUsermapAck,
    /// Stage 1 requests the offsets.
    WriteTimeoffsetsPls,
    /// Stage 1 waits for the offsets.
    ReadTimeoffsetsAck,
    /// Stage 1 announces the pid of stage 2.
    WriteRecvpidPls,
    /// Stage 1 sends the pid of stage 2.
    WriteStage2Pid,
    /// Stage 1 waits for the acknowledgement of the pid.
    ReadRecvpidAck,
    /// Stage 1, and later stage 2, report their completion.
    WriteChildFinish,
    /// Stage 2 waits until stage 0 lets it run.
    ReadGrandchild,
    /// A step of 1.1, about mount sources.
    #[cfg(feature = "legacy")]
    MountSources(crate::legacy::MountSync),
}

impl SyncStep {
    const fn text(self) -> &'static str {
        match self {
            Self::Stage1Next => "failed to sync with stage-1: next state",
            Self::Stage2Pid => "failed to sync with stage-1: read(stage2_pid)",
            Self::WriteUsermapAck => "failed to sync with stage-1: write(SYNC_USERMAP_ACK)",
            Self::WriteTimeoffsetsAck => "failed to sync with child: write(SYNC_TIMEOFFSETS_ACK)",
            Self::WriteRecvpidAck => "failed to sync with stage-1: write(SYNC_RECVPID_ACK)",
            Self::WriteGrandchild => "failed to sync with child: write(SYNC_GRANDCHILD)",
            Self::Stage2Next => "failed to sync with child: next state",
            Self::WriteUsermapPls => "failed to sync with parent: write(SYNC_USERMAP_PLS)",
            Self::ReadUsermapAck => "failed to sync with parent: read(SYNC_USERMAP_ACK)",
            Self::WriteTimeoffsetsPls => "failed to sync with parent: write(SYNC_TIMEOFFSETS_PLS)",
            Self::ReadTimeoffsetsAck => "failed to sync with parent: read(SYNC_TIMEOFFSETS_ACK)",
            Self::WriteRecvpidPls => "failed to sync with parent: write(SYNC_RECVPID_PLS)",
            Self::WriteStage2Pid => "failed to sync with parent: write(stage2_pid)",
            Self::ReadRecvpidAck => "failed to sync with parent: read(SYNC_RECVPID_ACK)",
            Self::WriteChildFinish => "failed to sync with parent: write(SYNC_CHILD_FINISH)",
            Self::ReadGrandchild => "failed to sync with parent: read(SYNC_GRANDCHILD)",
            #[cfg(feature = "legacy")]
            Self::MountSources(step) => step.text(),
        }
    }

    /// Returns runc's text for a value other than the expected one.
    pub(super) const fn awaited(self) -> Option<&'static str> {
        match self {
            Self::ReadUsermapAck => Some("failed to sync with parent: SYNC_USERMAP_ACK"),
            Self::ReadTimeoffsetsAck => Some("failed to sync with parent: SYNC_TIMEOFFSETS_ACK"),
            Self::ReadRecvpidAck => Some("failed to sync with parent: SYNC_RECVPID_ACK"),
            Self::ReadGrandchild => Some("failed to sync with parent: SYNC_GRANDCHILD"),
            #[cfg(feature = "legacy")]
            Self::MountSources(step) => step.awaited(),
            _ => None,
        }
    }
}

/// A step in making the sealed copy. runc has one text for all steps; ours appends the name of the step.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum CopyStep {
    /// Opening our program.
    OpenExe,
    /// Checking whether a file has a directory entry and is on a read-only mount.
    Look,
    /// Reading our arguments.
    ReadArguments,
    /// Creating a file in a directory.
    Create,
    /// Removing its directory entry.
    Unlink,
    /// Copying the program's bytes.
    Copy,
    /// Protecting the copy against changes.
    Seal,
    /// Executing the copy.
    Exec,
}

impl CopyStep {
    /// Returns the step in words.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::OpenExe => "opening /proc/self/exe",
            Self::Look => "examining its file",
            Self::ReadArguments => "reading /proc/self/cmdline",
            Self::Create => "creating a file in _LIBCONTAINER_STATEDIR or /tmp",
            Self::Unlink => "unlinking the copy",
            Self::Copy => "copying",
            Self::Seal => "sealing the copy",
            Self::Exec => "executing the copy",
        }
    }
}

/// The two sync pipes, as named in runc's texts.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SyncPipe {
    /// Between stage 0 and stage 1.
    Child,
    /// Between stage 0 and stage 2.
    Grandchild,
}

/// The step that failed: one variant for each of runc's texts and of our own. `Display` writes the text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Doing<'m> {
    /// Blocking SIGPIPE for the duration of the stages.
    BlockSigpipe,
    /// Restoring the signal mask before the hand-over.
    RestoreSignals,
    /// Using the log pipe of the environment.
    UseLogPipe(Fd),
    /// Ensuring that the program runs from a sealed copy.
    EnsureCloned(CopyStep),
    /// Reading the message's header.
    ReadHeader,
    /// Reading the rest of the message.
    ReadPayload,
    /// Writing the oom score of this process.
    OomScoreAdj,
    /// Becoming non-dumpable before the first join.
    NonDumpable,
    /// Becoming dumpable while stage 0 writes the maps.
    OpenDumpableWindow,
    /// Becoming non-dumpable after stage 0 has written the maps.
    CloseDumpableWindow,
    /// Creating a sync pipe.
    MakeSyncPipe(SyncPipe),
    /// Closing one end of a sync pipe: 0 is the child's, 1 the parent's.
    CloseSyncPipe(SyncPipe, u8),
    /// Creating stage 1 (the first clone).
    SpawnStage1,
    /// Creating stage 2 (the second clone).
    SpawnStage2,
    /// Sending to or receiving from another stage.
    Sync(SyncStep),
    /// Checking whether /proc shows our pid namespace.
    ReadProcSelf,
    /// Opening /proc/PID of stage 1.
    OpenProcDir(Pid),
    /// Writing a /proc file of stage 1.
    Update(Pid, ProcFile),
    /// Checking whether a file of stage 1 is on procfs.
    Check(Pid, ProcFile),
    /// Reading back the map that the mapping tool wrote.
    ReadBack(Pid, ProcFile),
    /// Creating the mapping tool's process.
    ToolFork,
    /// Executing the mapping tool.
    ToolExec(&'m [u8]),
    /// Waiting for the mapping tool.
    ToolWait,
    /// Marking the mapping tool's descriptors close-on-exec.
    ToolDescriptors,
    /// Writing the pid line.
    PidLine,
    /// Opening a namespace.
    OpenNamespace(&'m [u8]),
    /// Joining a namespace.
    Join(NsKind, &'m [u8]),
    /// Creating the user namespace.
    UnshareUser,
    /// Creating the other namespaces.
    UnshareRemaining(CloneFlags),
    /// Becoming user 0 of the user namespace.
    BecomeRoot,
    /// Calling setsid(2).
    Setsid,
    /// Calling setuid(2).
    Setuid,
    /// Calling setgid(2).
    Setgid,
    /// Calling setgroups(2).
    Setgroups,
    /// Launcher: marking the caller's descriptors close-on-exec.
    Descriptors,
    /// Launcher: passing on a descriptor that was named.
    PassDescriptor(Fd),
    /// Launcher: waiting for the go byte.
    AwaitGo,
    /// Launcher: setting the propagation of mount events.
    MountPropagation,
    /// Launcher: mounting /proc.
    MountProc,
    /// Launcher: setting SIGKILL as the parent-death signal.
    KillChild,
    /// Launcher: stage 2 clears the parent-death signal, before the exec of a command that may outlive the
    /// launcher.
    OutliveLauncher,
    /// Launcher: executing the command.
    Exec(&'m [u8]),
    /// A step of an older release line.
    #[cfg(feature = "legacy")]
    Legacy(crate::legacy::Step<'m>),
}

impl Doing<'_> {
    /// Returns a stable name for programs. It is never a line number: see runc#1130 and similar issues.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::BlockSigpipe => "block-sigpipe",
            Self::RestoreSignals => "restore-signals",
            Self::UseLogPipe(_) => "log-pipe",
            Self::EnsureCloned(_) => "cloned-binary",
            Self::ReadHeader => "read-header",
            Self::ReadPayload => "read-payload",
            Self::OomScoreAdj => "oom-score-adj",
            Self::NonDumpable => "non-dumpable",
            Self::OpenDumpableWindow => "open-dumpable-window",
            Self::CloseDumpableWindow => "close-dumpable-window",
            Self::MakeSyncPipe(_) => "make-sync-pipe",
            Self::CloseSyncPipe(..) => "close-sync-pipe",
            Self::SpawnStage1 => "spawn-stage-1",
            Self::SpawnStage2 => "spawn-stage-2",
            Self::Sync(_) => "sync",
            Self::ReadProcSelf => "read-proc-self",
            Self::OpenProcDir(_) => "open-proc",
            Self::Update(_, ProcFile::UidMap) => "uid-map",
            Self::Update(_, ProcFile::GidMap) => "gid-map",
            Self::Update(_, ProcFile::Setgroups) => "setgroups-file",
            Self::Update(_, ProcFile::TimensOffsets) => "time-offsets",
            Self::Check(..) | Self::Update(_, ProcFile::Stat) => "check-proc-file",
            Self::ReadBack(..) => "read-back",
            Self::ToolFork => "mapping-tool-fork",
            Self::ToolExec(_) => "mapping-tool-exec",
            Self::ToolWait => "mapping-tool-wait",
            Self::ToolDescriptors => "mapping-tool-descriptors",
            Self::PidLine => "pid-line",
            Self::OpenNamespace(_) => "open-namespace",
            Self::Join(..) => "join",
            Self::UnshareUser => "unshare-user",
            Self::UnshareRemaining(_) => "unshare-remaining",
            Self::BecomeRoot => "become-root",
            Self::Setsid => "setsid",
            Self::Setuid => "setuid",
            Self::Setgid => "setgid",
            Self::Setgroups => "setgroups",
            Self::Descriptors => "descriptors",
            Self::PassDescriptor(_) => "pass-descriptor",
            Self::AwaitGo => "await-go",
            Self::MountPropagation => "mount-propagation",
            Self::MountProc => "mount-proc",
            Self::KillChild => "kill-child",
            Self::OutliveLauncher => "outlive-launcher",
            Self::Exec(_) => "exec",
            #[cfg(feature = "legacy")]
            Self::Legacy(step) => step.code(),
        }
    }

    /// Returns the namespaces to create, for steps whose text does not name them.
    #[must_use]
    pub const fn flags(&self) -> Option<CloneFlags> {
        match self {
            Self::UnshareUser => Some(CloneFlags::NEWUSER),
            Self::UnshareRemaining(flags) => Some(*flags),
            #[cfg(feature = "legacy")]
            Self::Legacy(step) => step.flags(),
            _ => None,
        }
    }
}

impl Doing<'_> {
    /// Writes the texts about descriptors.
    fn descriptor_text(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ToolDescriptors => {
                f.write_str("failed to set the mapping tool's descriptors close-on-exec")
            }
            Self::PassDescriptor(fd) => write!(f, "failed to pass on descriptor {}", fd.0),
            _ => f.write_str("failed to set the caller's descriptors close-on-exec"),
        }
    }
}

impl fmt::Display for Doing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::BlockSigpipe => f.write_str("failed to block SIGPIPE"),
            Self::RestoreSignals => f.write_str("failed to restore the signal mask"),
            Self::UseLogPipe(fd) => write!(f, "failed to use _LIBCONTAINER_LOGPIPE={}", fd.0),
            Self::EnsureCloned(_) => f.write_str("could not ensure we are a cloned binary"),
            Self::ReadHeader => f.write_str("failed to read netlink header"),
            Self::ReadPayload => f.write_str("failed to read netlink payload"),
            Self::OomScoreAdj => f.write_str("failed to update /proc/self/oom_score_adj"),
            Self::NonDumpable => f.write_str("failed to set process as non-dumpable"),
            Self::OpenDumpableWindow => f.write_str("failed to temporarily set process as dumpable"),
            Self::CloseDumpableWindow => f.write_str("failed to re-set process as non-dumpable"),
            Self::MakeSyncPipe(SyncPipe::Child) => {
                f.write_str("failed to setup sync pipe between parent and child")
            }
            Self::MakeSyncPipe(SyncPipe::Grandchild) => {
                f.write_str("failed to setup sync pipe between parent and grandchild")
            }
            Self::CloseSyncPipe(SyncPipe::Child, end) => {
                write!(f, "failed to close sync_child_pipe[{end}] fd")
            }
            Self::CloseSyncPipe(SyncPipe::Grandchild, end) => {
                write!(f, "failed to close sync_grandchild_pipe[{end}] fd")
            }
            Self::SpawnStage1 => f.write_str("unable to spawn stage-1"),
            Self::SpawnStage2 => f.write_str("unable to spawn stage-2"),
            Self::Sync(step) => f.write_str(step.text()),
            Self::ReadProcSelf => f.write_str("failed to read the link /proc/self"),
            Self::OpenProcDir(pid) => write!(f, "failed to open /proc/{pid}"),
            Self::Update(pid, ProcFile::Setgroups) => {
                write!(f, "failed to write 'deny' to /proc/{pid}/setgroups")
            }
            Self::Update(pid, file) => write!(f, "failed to update /proc/{pid}/{}", file.as_str()),
            Self::Check(pid, file) => write!(f, "failed to check /proc/{pid}/{}", file.as_str()),
            Self::ReadBack(pid, file) => write!(f, "failed to read back /proc/{pid}/{}", file.as_str()),
            Self::ToolFork => f.write_str("failed to fork"),
            Self::ToolExec(path) => write!(f, "failed to execv {}", PathText(path)),
            Self::ToolWait => f.write_str("failed to waitpid"),
            Self::PidLine => f.write_str("failed to sync with runc: write(pid-JSON)"),
            Self::OpenNamespace(path) => write!(f, "failed to open {}", PathText(path)),
            Self::Join(kind, _) => write!(f, "failed to setns into {kind} namespace"),
            Self::UnshareUser => f.write_str("failed to unshare user namespace"),
            Self::UnshareRemaining(_) => f.write_str("failed to unshare remaining namespaces"),
            Self::BecomeRoot => f.write_str("failed to become root in user namespace"),
            Self::Setsid => f.write_str("setsid failed"),
            Self::Setuid => f.write_str("setuid failed"),
            Self::Setgid => f.write_str("setgid failed"),
            Self::Setgroups => f.write_str("setgroups failed"),
            Self::ToolDescriptors | Self::Descriptors | Self::PassDescriptor(_) => self.descriptor_text(f),
            Self::AwaitGo => f.write_str("failed to wait for the launcher's go byte"),
            Self::MountPropagation => f.write_str("failed to make the mounts private"),
            Self::MountProc => f.write_str("failed to mount /proc"),
            Self::KillChild => f.write_str("failed to set the parent-death signal"),
            Self::OutliveLauncher => f.write_str("failed to clear the parent-death signal"),
            Self::Exec(path) => write!(f, "failed to execute {}", PathText(path)),
            #[cfg(feature = "legacy")]
            Self::Legacy(step) => step.fmt(f),
        }
    }
}
