//! The steps that can fail: [`Doing`] and its parts, with runc's error texts.

use core::fmt;

use super::code::{Code, texts};
use crate::deciders::bootstrap::text::PathText;
use crate::deciders::namespace::NsKind;
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
#[non_exhaustive]
pub enum ProcFile {
    /// The user id map.
    UidMap,
    /// The group id map.
    GidMap,
    /// The text "allow" or "deny".
    Setgroups,
    /// The offsets of the clocks in a new time namespace.
    TimensOffsets,
    /// The oom score, which only our own launcher writes for another process.
    #[cfg(feature = "std")]
    OomScoreAdj,
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
            #[cfg(feature = "std")]
            Self::OomScoreAdj => c"oom_score_adj",
            Self::Stat => c"stat",
        }
    }

    /// Returns the file's name as text.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self.name().to_str() {
            Ok(name) => name,
            Err(_) => "",
        }
    }

    /// Returns the code of a failed write of the file.
    const fn update_code(self) -> Code {
        match self {
            Self::UidMap => Code::UidMap,
            Self::GidMap => Code::GidMap,
            Self::Setgroups => Code::SetgroupsFile,
            Self::TimensOffsets => Code::TimeOffsets,
            #[cfg(feature = "std")]
            Self::OomScoreAdj => Code::OomScoreAdj,
            Self::Stat => Code::CheckProcFile,
        }
    }

    /// Returns the verb of runc's text about a failed write of the file.
    const fn update_verb(self) -> &'static str {
        match self {
            Self::Setgroups => "write 'deny' to",
            _ => "update",
        }
    }
}

texts! {
    /// One step of the private protocol between the stages. Its text is runc's.
    SyncStep {
        /// Stage 0 waits for the next request of stage 1.
        Stage1Next = "failed to sync with stage-1: next state",
        /// Stage 0 reads the pid of stage 2.
        Stage2Pid = "failed to sync with stage-1: read(stage2_pid)",
        /// Stage 0 reports to stage 1 that the maps are written.
        WriteUsermapAck = "failed to sync with stage-1: write(SYNC_USERMAP_ACK)",
        /// Stage 0 reports to stage 1 that the offsets are written.
        WriteTimeoffsetsAck = "failed to sync with child: write(SYNC_TIMEOFFSETS_ACK)",
        /// Stage 0 acknowledges the pid to stage 1.
        WriteRecvpidAck = "failed to sync with stage-1: write(SYNC_RECVPID_ACK)",
        /// Stage 0 lets stage 2 run.
        WriteGrandchild = "failed to sync with child: write(SYNC_GRANDCHILD)",
        /// Stage 0 waits for stage 2 to finish.
        Stage2Next = "failed to sync with child: next state",
        /// Stage 1 requests the maps.
        WriteUsermapPls = "failed to sync with parent: write(SYNC_USERMAP_PLS)",
        /// Stage 1 waits for the maps.
        ReadUsermapAck = "failed to sync with parent: read(SYNC_USERMAP_ACK)",
        /// Stage 1 requests the offsets.
        WriteTimeoffsetsPls = "failed to sync with parent: write(SYNC_TIMEOFFSETS_PLS)",
        /// Stage 1 waits for the offsets.
        ReadTimeoffsetsAck = "failed to sync with parent: read(SYNC_TIMEOFFSETS_ACK)",
        /// Stage 0 reports to stage 1 that it has sent the mount sources.
        #[cfg(feature = "legacy")]
        WriteMountsourcesAck = "failed to sync with child: write(SYNC_MOUNTSOURCES_ACK)",
        /// Stage 1 requests the mount sources.
        #[cfg(feature = "legacy")]
        WriteMountsourcesPls = "failed to sync with parent: write(SYNC_MOUNTSOURCES_PLS)",
        /// Stage 1 waits for the end of the mount sources.
        #[cfg(feature = "legacy")]
        ReadMountsourcesAck = "failed to sync with parent: read(SYNC_MOUNTSOURCES_ACK)",
        /// Stage 1 announces the pid of stage 2.
        WriteRecvpidPls = "failed to sync with parent: write(SYNC_RECVPID_PLS)",
        /// Stage 1 sends the pid of stage 2.
        WriteStage2Pid = "failed to sync with parent: write(stage2_pid)",
        /// Stage 1 waits for the acknowledgement of the pid.
        ReadRecvpidAck = "failed to sync with parent: read(SYNC_RECVPID_ACK)",
        /// Stage 1, and later stage 2, report their completion.
        WriteChildFinish = "failed to sync with parent: write(SYNC_CHILD_FINISH)",
        /// Stage 2 waits until stage 0 lets it run.
        ReadGrandchild = "failed to sync with parent: read(SYNC_GRANDCHILD)",
    }
}

impl SyncStep {
    /// Returns the name of the value that the step reads, if runc's text about another value has it.
    pub(super) fn awaited(self) -> Option<&'static str> {
        let value = self.as_str().strip_prefix("failed to sync with parent: read(")?;
        value.strip_suffix(')')
    }
}

#[cfg(feature = "sealed-copy")]
texts! {
    /// A step in making the sealed copy. runc has one text for all steps; ours appends the name of the step.
    CopyStep {
        /// Opening our program.
        OpenExe = "opening /proc/self/exe",
        /// Checking whether a file has a directory entry and is on a read-only mount.
        Look = "examining its file",
        /// Reading our arguments.
        ReadArguments = "reading /proc/self/cmdline",
        /// Creating a file in a directory.
        Create = "creating a file in _LIBCONTAINER_STATEDIR or /tmp",
        /// Removing its directory entry.
        Unlink = "unlinking the copy",
        /// Copying the program's bytes.
        Copy = "copying",
        /// Protecting the copy against changes.
        Seal = "sealing the copy",
        /// Executing the copy.
        Exec = "executing the copy",
    }
}

texts! {
    /// The two sync pipes, as named in runc's texts.
    SyncPipe {
        /// Between stage 0 and stage 1.
        Child = "child",
        /// Between stage 0 and stage 2.
        Grandchild = "grandchild",
    }
}

/// Declares an enum of steps, with the code and the text of each step beside it. A `cfg` attribute of a step
/// applies to its code and its text too.
macro_rules! steps {
    ($(#[$about:meta])* $name:ident<$life:lifetime> {
        $($(#[$doc:meta])* $step:ident $(($($field:ident: $kind:ty),+))? => $code:expr, $text:literal $(, $value:expr)*;)*
    }) => {
        $(#[$about])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[non_exhaustive]
        pub enum $name<$life> {
            $($(#[$doc])* $step $(($($kind),+))?,)*
        }

        #[allow(unused_variables, reason = "some fields are part of the code or of the text, others of neither")]
        #[allow(unused_doc_comments, reason = "an arm has all attributes of its step")]
        impl $name<'_> {
            /// Returns a stable name for programs.
            #[must_use]
            pub const fn code(&self) -> Code {
                match *self {
                    $($(#[$doc])* Self::$step $(($($field),+))? => $code,)*
                }
            }
        }

        #[allow(unused_variables, unused_doc_comments, reason = "as above")]
        impl fmt::Display for $name<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match *self {
                    $($(#[$doc])* Self::$step $(($($field),+))? => write!(f, $text $(, $value)*),)*
                }
            }
        }
    };
}
#[cfg(any(feature = "legacy", feature = "std"))]
pub(crate) use steps;

steps! {
    /// The step that failed: one variant for each of runc's texts and of our own. `Display` writes the text.
    Doing<'m> {
        /// Blocking SIGPIPE for the duration of the stages.
        BlockSigpipe => Code::BlockSigpipe, "failed to block SIGPIPE";
        /// Restoring the signal mask before the hand-over.
        RestoreSignals => Code::RestoreSignals, "failed to restore the signal mask";
        /// Using the log pipe of the environment.
        UseLogPipe(fd: Fd) => Code::LogPipe, "failed to use _LIBCONTAINER_LOGPIPE={}", fd.0;
        /// Ensuring that the program runs from a sealed copy.
        #[cfg(feature = "sealed-copy")]
        EnsureCloned(step: CopyStep) => Code::ClonedBinary, "could not ensure we are a cloned binary";
        /// Reading the message's header.
        ReadHeader => Code::ReadHeader, "failed to read netlink header";
        /// Reading the rest of the message.
        ReadPayload => Code::ReadPayload, "failed to read netlink payload";
        /// Writing the oom score of this process.
        OomScoreAdj => Code::OomScoreAdj, "failed to update /proc/self/oom_score_adj";
        /// Becoming non-dumpable before the first join.
        NonDumpable => Code::NonDumpable, "failed to set process as non-dumpable";
        /// Becoming dumpable while stage 0 writes the maps.
        OpenDumpableWindow => Code::OpenDumpableWindow, "failed to temporarily set process as dumpable";
        /// Becoming non-dumpable after stage 0 has written the maps.
        CloseDumpableWindow => Code::CloseDumpableWindow, "failed to re-set process as non-dumpable";
        /// Creating a sync pipe.
        MakeSyncPipe(pipe: SyncPipe) => Code::MakeSyncPipe,
            "failed to setup sync pipe between parent and {}", pipe.as_str();
        /// Closing one end of a sync pipe: 0 is the child's, 1 the parent's.
        CloseSyncPipe(pipe: SyncPipe, end: u8) => Code::CloseSyncPipe,
            "failed to close sync_{}_pipe[{end}] fd", pipe.as_str();
        /// Creating stage 1 (the first clone).
        SpawnStage1 => Code::SpawnStage1, "unable to spawn stage-1";
        /// Creating stage 2 (the second clone).
        SpawnStage2 => Code::SpawnStage2, "unable to spawn stage-2";
        /// Sending to or receiving from another stage.
        Sync(step: SyncStep) => Code::Sync, "{}", step.as_str();
        /// Checking whether /proc shows our pid namespace.
        ReadProcSelf => Code::ReadProcSelf, "failed to read the link /proc/self";
        /// Opening /proc/PID of stage 1.
        OpenProcDir(pid: Pid) => Code::OpenProc, "failed to open /proc/{pid}";
        /// Writing a /proc file of stage 1.
        Update(pid: Pid, file: ProcFile) => file.update_code(),
            "failed to {} /proc/{pid}/{}", file.update_verb(), file.as_str();
        /// Checking whether a file of stage 1 is on procfs.
        Check(pid: Pid, file: ProcFile) => Code::CheckProcFile,
            "failed to check /proc/{pid}/{}", file.as_str();
        /// Reading back the map that the mapping tool wrote.
        ReadBack(pid: Pid, file: ProcFile) => Code::ReadBack,
            "failed to read back /proc/{pid}/{}", file.as_str();
        /// Creating the mapping tool's process.
        ToolFork => Code::MappingToolFork, "failed to fork";
        /// Executing the mapping tool.
        ToolExec(path: &'m [u8]) => Code::MappingToolExec, "failed to execv {}", PathText(path);
        /// Waiting for the mapping tool.
        ToolWait => Code::MappingToolWait, "failed to waitpid";
        /// Marking the mapping tool's descriptors close-on-exec.
        ToolDescriptors => Code::MappingToolDescriptors,
            "failed to set the mapping tool's descriptors close-on-exec";
        /// Writing the pid line.
        PidLine => Code::PidLine, "failed to sync with runc: write(pid-JSON)";
        /// Opening a namespace.
        OpenNamespace(path: &'m [u8]) => Code::OpenNamespace, "failed to open {}", PathText(path);
        /// Joining a namespace.
        Join(kind: NsKind, path: &'m [u8]) => Code::Join, "failed to setns into {kind} namespace";
        /// Creating the user namespace.
        UnshareUser => Code::UnshareUser, "failed to unshare user namespace";
        /// Creating the other namespaces.
        UnshareRemaining(flags: CloneFlags) => Code::UnshareRemaining,
            "failed to unshare remaining namespaces";
        /// Becoming user 0 of the user namespace.
        BecomeRoot => Code::BecomeRoot, "failed to become root in user namespace";
        /// Calling setsid(2).
        Setsid => Code::Setsid, "setsid failed";
        /// Calling setuid(2).
        Setuid => Code::Setuid, "setuid failed";
        /// Calling setgid(2).
        Setgid => Code::Setgid, "setgid failed";
        /// Calling setgroups(2).
        Setgroups => Code::Setgroups, "setgroups failed";
        /// A step of our own launcher.
        #[cfg(feature = "std")]
        Launch(step: crate::launch::StageStep<'m>) => step.code(), "{step}";
        /// A step of an older release line.
        #[cfg(feature = "legacy")]
        Legacy(step: crate::legacy::Step<'m>) => step.code(), "{step}";
    }
}

impl Doing<'_> {
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
