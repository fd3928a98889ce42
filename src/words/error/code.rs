//! [`Code`]: the stable names of failures, for programs.

/// Declares an enum of which each variant has one text. A `cfg` attribute of a variant applies to its text
/// too.
macro_rules! texts {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum $name {
            $($(#[$doc])* #[doc = concat!("\n`", $text, "`")] $variant,)*
        }

        #[allow(unused_doc_comments, reason = "an arm has all attributes of its variant")]
        impl $name {
            /// Every variant, in the order of declaration.
            pub const ALL: &[Self] = &[$($(#[$doc])* Self::$variant),*];

            /// Returns the text.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $($(#[$doc])* Self::$variant => $text,)*
                }
            }
        }
    };
}
pub(crate) use texts;

texts! {
    /// The stable name of a failure. A detailed log record has its text as `code`.
    ///
    /// It is never a line number: see runc#1130 and similar issues.
    #[non_exhaustive]
    Code {
        AwaitGo = "await-go",
        BecomeRoot = "become-root",
        #[cfg(feature = "std")]
        BindSource = "bind-source",
        BlockSigpipe = "block-sigpipe",
        #[cfg(feature = "std")]
        Capabilities = "capabilities",
        CgroupByte = "cgroup-byte",
        CheckProcFile = "check-proc-file",
        ClonedBinary = "cloned-binary",
        CloseDumpableWindow = "close-dumpable-window",
        CloseSyncPipe = "close-sync-pipe",
        #[cfg(feature = "std")]
        CodeOfCaller = "pre-exec",
        Descriptors = "descriptors",
        #[cfg(feature = "std")]
        EnterCgroup = "enter-cgroup",
        #[cfg(feature = "std")]
        EnterRoot = "enter-root",
        EnterTimeNamespace = "enter-time-namespace",
        Environment = "environment",
        Exec = "exec",
        ForeignProc = "foreign-proc",
        GidMap = "gid-map",
        #[cfg(feature = "std")]
        HostName = "host-name",
        InitPipe = "init-pipe",
        Join = "join",
        #[cfg(feature = "std")]
        Keyring = "keyring",
        KillChild = "kill-child",
        #[cfg(feature = "std")]
        Landlock = "landlock",
        LauncherGone = "launcher-gone",
        #[cfg(feature = "std")]
        LeaveRoot = "leave-root",
        #[cfg(feature = "std")]
        Limit = "limit",
        LogPipe = "log-pipe",
        #[cfg(feature = "std")]
        Loopback = "loopback",
        #[cfg(feature = "std")]
        MakeDirectory = "make-directory",
        #[cfg(feature = "std")]
        MakeLink = "make-link",
        MakeSyncPipe = "make-sync-pipe",
        MappingToolArguments = "mapping-tool-arguments",
        MappingToolDescriptors = "mapping-tool-descriptors",
        MappingToolExec = "mapping-tool-exec",
        MappingToolFork = "mapping-tool-fork",
        MappingToolLauncherDied = "mapping-tool-launcher-died",
        MappingToolMissing = "mapping-tool-missing",
        MappingToolPath = "mapping-tool-path",
        MappingToolSignal = "mapping-tool-signal",
        MappingToolStage1Died = "mapping-tool-stage-1-died",
        MappingToolStatus = "mapping-tool-status",
        MappingToolWait = "mapping-tool-wait",
        MappingToolWroteOther = "mapping-tool-wrote-other",
        Message = "message",
        #[cfg(feature = "std")]
        MountAttributes = "mount-attributes",
        MountFds = "mount-fds",
        MountNamespace = "mount-namespace",
        #[cfg(feature = "std")]
        MountOn = "mount-on",
        #[cfg(feature = "std")]
        MountPoint = "mount-point",
        MountProc = "mount-proc",
        MountPropagation = "mount-propagation",
        MountSource = "mount-source",
        #[cfg(feature = "std")]
        NewRoot = "new-root",
        #[cfg(feature = "std")]
        NoNewPrivs = "no-new-privs",
        NonDumpable = "non-dumpable",
        OomScoreAdj = "oom-score-adj",
        OpenDumpableWindow = "open-dumpable-window",
        OpenMountNamespace = "open-mount-namespace",
        OpenMountSource = "open-mount-source",
        OpenNamespace = "open-namespace",
        OpenProc = "open-proc",
        OutliveLauncher = "outlive-launcher",
        StartInit = "start-init",
        PassDescriptor = "pass-descriptor",
        PidLine = "pid-line",
        ReadBack = "read-back",
        ReadHeader = "read-header",
        ReadPayload = "read-payload",
        ReadProcSelf = "read-proc-self",
        ReadyByte = "ready-byte",
        Refused = "refused",
        RestoreSignals = "restore-signals",
        #[cfg(feature = "std")]
        SeccompFilter = "seccomp-filter",
        Setgid = "setgid",
        Setgroups = "setgroups",
        SetgroupsFile = "setgroups-file",
        Setsid = "setsid",
        Setuid = "setuid",
        SpawnStage1 = "spawn-stage-1",
        SpawnStage2 = "spawn-stage-2",
        /// The launcher could not create its pipes or stage 0. Never in a log record.
        Start = "start",
        Sync = "sync",
        #[cfg(feature = "std")]
        Terminal = "terminal",
        TimeOffsets = "time-offsets",
        UidMap = "uid-map",
        UnshareCgroup = "unshare-cgroup",
        UnshareRemaining = "unshare-remaining",
        UnshareUser = "unshare-user",
        #[cfg(feature = "std")]
        WorkingDirectory = "working-directory",
    }
}

impl Code {
    /// Returns the code with this text.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.as_str() == text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_is_found_by_its_own_text() {
        for code in Code::ALL {
            assert_eq!(Code::from_text(code.as_str()), Some(*code));
        }
        assert_eq!(Code::from_text("unshare"), None);
    }
}
