//! What we were about when something failed: [`Doing`], in runc's words.

use core::fmt;

use crate::bootstrap::text::PathText;
use crate::namespace::NsKind;
use crate::sys::types::{CloneFlags, Fd, Pid};

/// One of the two id maps.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum MapKind {
    /// `uid_map`, newuidmap.
    Uid,
    /// `gid_map`, newgidmap.
    Gid,
}

impl MapKind {
    /// The file below /proc/PID.
    #[must_use]
    pub const fn file(self) -> ProcFile {
        match self {
            Self::Uid => ProcFile::UidMap,
            Self::Gid => ProcFile::GidMap,
        }
    }

    /// The mapping tool, as runc's text calls it.
    pub(super) const fn tool(self) -> &'static str {
        match self {
            Self::Uid => "newuid",
            Self::Gid => "newgid",
        }
    }
}

/// The files of /proc/PID that stage 0 writes or reads of stage 1.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ProcFile {
    /// The user id map.
    UidMap,
    /// The group id map.
    GidMap,
    /// allow or deny.
    Setgroups,
    /// The offsets of the clocks in a new time namespace.
    TimensOffsets,
    /// State and flags of the process. Read only.
    Stat,
}

impl ProcFile {
    /// The file's name.
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

    /// The file's name, as text.
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

/// One message of the private conversation between the stages, in runc's words.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SyncStep {
    /// Stage 0 waits for what stage 1 asks next.
    Stage1Next,
    /// Stage 0 reads the pid of stage 2.
    Stage2Pid,
    /// Stage 0 tells stage 1 that the maps are written.
    WriteUsermapAck,
    /// Stage 0 tells stage 1 that the offsets are written.
    WriteTimeoffsetsAck,
    /// Stage 0 tells stage 1 that it has the pid.
    WriteRecvpidAck,
    /// Stage 0 tells stage 2 to run.
    WriteGrandchild,
    /// Stage 0 waits for stage 2 to finish.
    Stage2Next,
    /// Stage 1 asks for the maps.
    WriteUsermapPls,
    /// Stage 1 waits for the maps.
    ReadUsermapAck,
    /// Stage 1 asks for the offsets.
    WriteTimeoffsetsPls,
    /// Stage 1 waits for the offsets.
    ReadTimeoffsetsAck,
    /// Stage 0 tells stage 1 that it has sent the mount sources.
    WriteMountsourcesAck,
    /// Stage 1 asks for the mount sources.
    WriteMountsourcesPls,
    /// Stage 1 waits for the end of the mount sources.
    ReadMountsourcesAck,
    /// Stage 1 announces the pid of stage 2.
    WriteRecvpidPls,
    /// Stage 1 sends it.
    WriteStage2Pid,
    /// Stage 1 waits until it has arrived.
    ReadRecvpidAck,
    /// Stage 1, and then stage 2, say that they are done.
    WriteChildFinish,
    /// Stage 2 waits for its turn.
    ReadGrandchild,
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
            Self::WriteMountsourcesAck => "failed to sync with child: write(SYNC_MOUNTSOURCES_ACK)",
            Self::WriteMountsourcesPls => "failed to sync with parent: write(SYNC_MOUNTSOURCES_PLS)",
            Self::ReadMountsourcesAck => "failed to sync with parent: read(SYNC_MOUNTSOURCES_ACK)",
            Self::WriteRecvpidPls => "failed to sync with parent: write(SYNC_RECVPID_PLS)",
            Self::WriteStage2Pid => "failed to sync with parent: write(stage2_pid)",
            Self::ReadRecvpidAck => "failed to sync with parent: read(SYNC_RECVPID_ACK)",
            Self::WriteChildFinish => "failed to sync with parent: write(SYNC_CHILD_FINISH)",
            Self::ReadGrandchild => "failed to sync with parent: read(SYNC_GRANDCHILD)",
        }
    }

    /// What runc's text says where another value came than the one awaited.
    pub(super) const fn awaited(self) -> Option<&'static str> {
        match self {
            Self::ReadUsermapAck => Some("failed to sync with parent: SYNC_USERMAP_ACK"),
            Self::ReadTimeoffsetsAck => Some("failed to sync with parent: SYNC_TIMEOFFSETS_ACK"),
            Self::ReadMountsourcesAck => Some("failed to sync with parent: SYNC_MOUNTSOURCES_ACK"),
            Self::ReadRecvpidAck => Some("failed to sync with parent: SYNC_RECVPID_ACK"),
            Self::ReadGrandchild => Some("failed to sync with parent: SYNC_GRANDCHILD"),
            _ => None,
        }
    }
}

/// A step on the way to a copy of our own program. runc has one text for all of them, behind which ours names the step.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Cloning {
    /// Opening our program.
    OpenExe,
    /// Looking whether a file has a name, and where it lies.
    Look,
    /// Reading our arguments.
    ReadArguments,
    /// Making a file in a directory.
    Create,
    /// Taking its name away.
    Unlink,
    /// Filling the copy.
    Copy,
    /// Keeping the copy from being changed.
    Seal,
    /// Executing the copy.
    Exec,
}

impl Cloning {
    /// The step, in words.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::OpenExe => "opening /proc/self/exe",
            Self::Look => "looking at its file",
            Self::ReadArguments => "reading /proc/self/cmdline",
            Self::Create => "creating a file in _LIBCONTAINER_STATEDIR or /tmp",
            Self::Unlink => "unlinking the copy",
            Self::Copy => "copying",
            Self::Seal => "sealing the copy",
            Self::Exec => "executing the copy",
        }
    }
}

/// The sync pipe's ends, as runc's texts name them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SyncPipe {
    /// Between stage 0 and stage 1.
    Child,
    /// Between stage 0 and stage 2.
    Grandchild,
}

/// What we were about: one variant for each text of runc's. Its `Display` is that text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Doing<'m> {
    /// Blocking SIGPIPE for as long as the stages run.
    BlockSigpipe,
    /// Putting the signal mask back before the hand-over.
    RestoreSignals,
    /// Using the log pipe that the environment names.
    UseLogPipe(Fd),
    /// Making sure that we run from a copy of our program that nobody can write to.
    EnsureCloned(Cloning),
    /// Telling the launcher that the message may come.
    InformLauncher,
    /// Reading the message's header.
    ReadHeader,
    /// Reading the rest of the message.
    ReadPayload,
    /// Writing our own oom score.
    OomScoreAdj,
    /// Becoming non-dumpable before the first join.
    NonDumpable,
    /// Opening the dumpable window.
    OpenDumpableWindow,
    /// Closing the dumpable window.
    CloseDumpableWindow,
    /// Making a sync pipe.
    MakeSyncPipe(SyncPipe),
    /// Closing one end of a sync pipe: 0 is the child's, 1 the parent's.
    CloseSyncPipe(SyncPipe, u8),
    /// The first clone.
    SpawnStage1,
    /// The second clone.
    SpawnStage2,
    /// Talking to another stage.
    Sync(SyncStep),
    /// Finding out whether /proc shows our pid namespace.
    ReadProcSelf,
    /// Opening /proc/PID of stage 1.
    OpenProcDir(Pid),
    /// Writing one of stage 1's files in /proc.
    Update(Pid, ProcFile),
    /// Making sure that one of stage 1's files is procfs's.
    Check(Pid, ProcFile),
    /// Reading back what the mapping tool wrote.
    ReadBack(Pid, ProcFile),
    /// Making the mapping tool's process.
    ToolFork,
    /// Starting the mapping tool.
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
    /// Finding out whether the numbers for the mount sources are kept free.
    CheckMountFd(Fd),
    /// Opening our own mount namespace, to come back to it.
    OpenOwnMountNamespace,
    /// Opening stage 1's mount namespace.
    OpenMountNamespace(Pid),
    /// Going into it.
    EnterMountNamespace,
    /// Coming back.
    LeaveMountNamespace,
    /// Opening the source of a bind mount.
    OpenMountSource(&'m [u8]),
    /// Sending it to stage 1.
    SendMountSource(&'m [u8]),
    /// Receiving the one for this number.
    ReceiveMountSource(Fd),
    /// Putting it there.
    PlaceMountSource(Fd),
    /// Waiting until the launcher has put stage 2 into its cgroup.
    ReadCgroupByte,
    /// Creating the cgroup namespace, where stage 2 does it.
    UnshareCgroup,
    /// Becoming user 0 of the user namespace.
    BecomeRoot,
    /// setsid.
    Setsid,
    /// setuid.
    Setuid,
    /// setgid.
    Setgid,
    /// setgroups.
    Setgroups,
    /// Launcher: keeping the caller's descriptors from the command.
    Descriptors,
    /// Launcher: passing on a descriptor that was named.
    PassDescriptor(Fd),
    /// Launcher: waiting for the word to go.
    AwaitGo,
    /// Launcher: setting how mount events travel.
    MountPropagation,
    /// Launcher: mounting /proc.
    MountProc,
    /// Launcher: asking for SIGKILL when the launcher dies.
    KillChild,
    /// Stage 2 takes back the signal at the launcher's death, before the exec of a command that shall outlive it.
    OutliveLauncher,
    /// Launcher: starting the command.
    Exec(&'m [u8]),
}

impl Doing<'_> {
    /// A stable name for programs. Never a line number: see runc#1130 and its many siblings.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::BlockSigpipe => "block-sigpipe",
            Self::RestoreSignals => "restore-signals",
            Self::UseLogPipe(_) => "log-pipe",
            Self::EnsureCloned(_) => "cloned-binary",
            Self::InformLauncher => "ready-byte",
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
            Self::CheckMountFd(_) => "mount-fds",
            Self::OpenOwnMountNamespace | Self::OpenMountNamespace(_) => "open-mount-namespace",
            Self::EnterMountNamespace | Self::LeaveMountNamespace => "mount-namespace",
            Self::OpenMountSource(_) => "open-mount-source",
            Self::SendMountSource(_) | Self::ReceiveMountSource(_) | Self::PlaceMountSource(_) => {
                "mount-source"
            }
            Self::ReadCgroupByte => "cgroup-byte",
            Self::UnshareCgroup => "unshare-cgroup",
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
        }
    }

    /// The object of the step where the text does not name it: the namespaces that were to be created.
    #[must_use]
    pub const fn flags(&self) -> Option<CloneFlags> {
        match self {
            Self::UnshareUser => Some(CloneFlags::NEWUSER),
            Self::UnshareRemaining(flags) => Some(*flags),
            Self::UnshareCgroup => Some(CloneFlags::NEWCGROUP),
            _ => None,
        }
    }
}

impl Doing<'_> {
    /// The texts about descriptors.
    fn descriptor_text(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ToolDescriptors => {
                f.write_str("failed to set the mapping tool's descriptors close-on-exec")
            }
            Self::PassDescriptor(fd) => write!(f, "failed to pass on descriptor {}", fd.0),
            _ => f.write_str("failed to set the caller's descriptors close-on-exec"),
        }
    }

    /// The texts of 1.1, about mount sources.
    fn mount_source_text(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::CheckMountFd(fd) => {
                write!(f, "failed to check descriptor {}, kept for a mount source", fd.0)
            }
            Self::OpenOwnMountNamespace => f.write_str("failed to get current mount namespace"),
            Self::OpenMountNamespace(pid) => {
                write!(f, "failed to get container mount namespace (/proc/{pid}/ns/mnt)")
            }
            Self::EnterMountNamespace => f.write_str("failed to setns to container mntns"),
            Self::LeaveMountNamespace => f.write_str("failed to setns to host mntns"),
            Self::OpenMountSource(path) => write!(f, "failed to open mount source {}", PathText(path)),
            Self::SendMountSource(path) => write!(f, "failed to send mount source {}", PathText(path)),
            Self::ReceiveMountSource(fd) => write!(f, "failed to receive the mount source for fd {}", fd.0),
            Self::PlaceMountSource(fd) => write!(f, "cannot dup3 a mount source to {}", fd.0),
            _ => Ok(()),
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
            Self::InformLauncher => f.write_str("could not inform the parent we are past initial setup"),
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
            Self::CheckMountFd(_)
            | Self::OpenOwnMountNamespace
            | Self::OpenMountNamespace(_)
            | Self::EnterMountNamespace
            | Self::LeaveMountNamespace
            | Self::OpenMountSource(_)
            | Self::SendMountSource(_)
            | Self::ReceiveMountSource(_)
            | Self::PlaceMountSource(_) => self.mount_source_text(f),
            Self::ReadCgroupByte => f.write_str("read synchronisation value failed"),
            Self::UnshareCgroup => f.write_str("failed to unshare cgroup namespace"),
            Self::BecomeRoot => f.write_str("failed to become root in user namespace"),
            Self::Setsid => f.write_str("setsid failed"),
            Self::Setuid => f.write_str("setuid failed"),
            Self::Setgid => f.write_str("setgid failed"),
            Self::Setgroups => f.write_str("setgroups failed"),
            Self::ToolDescriptors | Self::Descriptors | Self::PassDescriptor(_) => self.descriptor_text(f),
            Self::AwaitGo => f.write_str("failed to wait for the launcher's word to go"),
            Self::MountPropagation => f.write_str("failed to make the mounts private"),
            Self::MountProc => f.write_str("failed to mount /proc"),
            Self::KillChild => f.write_str("failed to set the parent-death signal"),
            Self::OutliveLauncher => f.write_str("failed to clear the parent-death signal"),
            Self::Exec(path) => write!(f, "failed to execute {}", PathText(path)),
        }
    }
}
