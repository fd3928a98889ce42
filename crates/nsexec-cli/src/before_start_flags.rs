//! The flags for the steps before the command starts.

use std::ffi::OsString;

use clap::Args;
use nsexec::sys::types::Fd;

use super::values::descriptor;

const HEADING: &str = "Before the command starts";

/// The flags for a script that configures the namespaces before the command starts.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct BeforeStartFlags {
    /// Write the pid of the command to FILE, in place of an earlier FILE, when its namespaces exist
    #[arg(long, value_name = "FILE", help_heading = HEADING)]
    pub(crate) pid_file: Option<OsString>,
    /// Write the pid of the command and a newline to descriptor N when its namespaces exist, then close N
    #[arg(long, value_name = "N", value_parser = descriptor, help_heading = HEADING)]
    pub(crate) ready_fd: Option<Fd>,
    /// Start the command only when descriptor N is readable or at its end; its namespaces exist before
    #[arg(long, value_name = "N", value_parser = descriptor, help_heading = HEADING)]
    pub(crate) wait_fd: Option<Fd>,
}
