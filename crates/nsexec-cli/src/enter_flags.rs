//! The flags that describe a process to enter, shared by `enter`, `plan enter` and `trace enter`: those of
//! nsenter(1), and our own.

use std::ffi::OsString;
use std::str::FromStr;

use clap::ArgAction::Append;
use clap::Args;
use nsexec::namespace::{NsKind, NsSet};

use super::defaults::Defaults;
use super::kind_flags::{NAMESPACES, kind_flags};
use super::values::{group_id, user_id};

const IDS: &str = "Ids";
const SURROUNDINGS: &str = "The command's surroundings";

/// The value of `--target`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TargetValue {
    pub(crate) pid: i32,
    /// The inode of its pidfd, which no other process gets.
    pub(crate) inode: Option<u64>,
}

impl FromStr for TargetValue {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (pid, inode) = match text.split_once(':') {
            Some((pid, inode)) => (pid, Some(inode)),
            None => (text, None),
        };
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let wrong = || "expected a pid above 0, or PID:INODE with the inode of its pidfd".to_owned();
        let pid = pid.parse().ok().filter(|number| digits(pid) && *number > 0).ok_or_else(wrong)?;
        let inode = match inode {
            Some(inode) => Some(inode.parse().ok().filter(|_| digits(inode)).ok_or_else(wrong)?),
            None => None,
        };
        Ok(Self { pid, inode })
    }
}

/// The value of `--setuid` and `--setgid`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum IdValue {
    /// The id of the process.
    Follow,
    /// This id.
    Id(u32),
}

pub(crate) fn user(text: &str) -> Result<IdValue, String> {
    if text == "follow" { Ok(IdValue::Follow) } else { user_id(text).map(IdValue::Id) }
}

pub(crate) fn group(text: &str) -> Result<IdValue, String> {
    if text == "follow" { Ok(IdValue::Follow) } else { group_id(text).map(IdValue::Id) }
}

kind_flags! {
    /// One flag for each kind of namespace, with the names and letters of nsenter(1). With a file its
    /// namespace is joined, otherwise that of the process.
    KindFlags {
        /// Pid namespace: process ids
        pid,
        /// Network namespace: devices, addresses, ports
        net,
    }
}

impl KindFlags {
    /// Returns the kinds that are named without a file.
    pub(crate) fn of_process(&self) -> NsSet {
        self.flags().into_iter().filter_map(|(given, kind)| (*given == Some(None)).then_some(kind)).collect()
    }

    /// Returns the file that is named for this kind.
    pub(crate) fn file(&self, wanted: NsKind) -> Option<&OsString> {
        let mut files = self.flags().into_iter();
        files.find_map(|(given, kind)| given.as_ref()?.as_ref().filter(|_| kind == wanted))
    }
}

/// The flags of `nsexec enter`.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct EnterFlags {
    /// The behaviour where no flag decides.
    #[arg(skip)]
    pub(crate) defaults: Defaults,
    /// The process whose namespaces are joined; with INODE, only if its pidfd has this inode
    #[arg(short, long, value_name = "PID[:INODE]")]
    pub(crate) target: Option<TargetValue>,
    /// Join every kind of namespace in which the process differs from nsexec
    #[arg(short, long, requires = "target", help_heading = NAMESPACES)]
    pub(crate) all: bool,
    /// The kinds to join: that of the process, or with a file the namespace of the file.
    #[command(flatten)]
    pub(crate) kinds: KindFlags,
    /// Join the network namespace of the socket that is descriptor FD of the process
    #[arg(short = 'N', long, value_name = "FD", requires = "target", conflicts_with = "net", help_heading = NAMESPACES)]
    #[arg(value_parser = clap::value_parser!(i32).range(0..))]
    pub(crate) net_socket: Option<i32>,
    /// Join the user namespace that owns the first other namespace to join
    #[arg(long, conflicts_with = "user", help_heading = NAMESPACES)]
    pub(crate) user_parent: bool,
    /// Run the command with this user id; `follow`: with that of the process
    #[arg(short = 'S', long, value_name = "UID|NAME|follow", value_parser = user, help_heading = IDS)]
    pub(crate) setuid: Option<IdValue>,
    /// Run the command with this group id; `follow`: with that of the process
    #[arg(short = 'G', long, value_name = "GID|NAME|follow", value_parser = group, help_heading = IDS)]
    pub(crate) setgid: Option<IdValue>,
    /// If a user namespace is joined, keep the user id, group id and supplementary groups
    #[arg(long, conflicts_with_all = ["setuid", "setgid"], help_heading = IDS)]
    pub(crate) preserve_credentials: bool,
    /// Keep the capabilities of the joined user namespace, also as another user than root
    #[arg(long, requires = "setuid", help_heading = IDS)]
    pub(crate) keep_caps: bool,

    /// Use the root directory of the process, or DIR of the caller
    #[arg(short = 'r', long, value_name = "DIR", num_args = 0..=1, require_equals = true, help_heading = SURROUNDINGS)]
    pub(crate) root: Option<Option<OsString>>,
    /// Use the working directory of the process, or DIR: below the command's root directory
    #[arg(short = 'w', long = "wd", value_name = "DIR", num_args = 0..=1, require_equals = true, help_heading = SURROUNDINGS)]
    pub(crate) directory: Option<Option<OsString>>,
    /// Use DIR below the command's root directory as the working directory
    #[arg(short = 'W', long, value_name = "DIR", conflicts_with = "directory", help_heading = SURROUNDINGS)]
    pub(crate) wdns: Option<OsString>,
    /// Start the command in the cgroup of the process (version 2)
    #[arg(short = 'c', long, requires = "target", help_heading = SURROUNDINGS)]
    pub(crate) join_cgroup: bool,
    /// Use the environment of the process
    #[arg(short, long, requires = "target", conflicts_with = "clear_env", help_heading = SURROUNDINGS)]
    pub(crate) env: bool,
    /// Accepted for compatibility with nsenter(1): enter always creates a child
    #[arg(short = 'F', long, help_heading = SURROUNDINGS)]
    pub(crate) no_fork: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn target_is_a_pid_with_or_without_the_inode_of_its_pidfd() {
        let target = |pid, inode| Ok(TargetValue { pid, inode });
        assert_eq!("7".parse(), target(7, None));
        assert_eq!("7:123456789012".parse(), target(7, Some(123_456_789_012)));
        for refused in ["", "0", "-1", "+1", "x", "1:", ":1", "1:x", "1:-2", "1:2:3", "2147483648"] {
            assert!(refused.parse::<TargetValue>().is_err(), "{refused}");
        }
    }
}
