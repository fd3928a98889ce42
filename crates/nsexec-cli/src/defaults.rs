//! Whose defaults a command line has: those of `nsexec run` and `enter`, or those of util-linux.

/// The behaviour where no flag decides.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Defaults {
    /// That of `nsexec run` and `nsexec enter`.
    #[default]
    Own,
    /// That of unshare(1) and nsenter(1), for the program under one of these names.
    UtilLinux,
}

impl Defaults {
    /// Returns whether these are the defaults of util-linux.
    pub(crate) fn are_util_linux(self) -> bool {
        self == Self::UtilLinux
    }
}
