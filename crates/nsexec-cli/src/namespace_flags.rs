//! The flags that describe namespaces and the command's surroundings, shared by `run`, `plan`, `trace` and
//! `encode`: those of unshare(1), and our own.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::ArgAction::Append;
use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, ValueEnum};
use nsexec::namespace::{NsKind, NsSet};
use nsexec::sys::types::{Propagation, Signal};

use super::defaults::Defaults;
use super::kind_flags::{NAMESPACES, kind_flags};
use super::values::{JoinValue, MapValue, group_id, signal, user_id};

const IDS: &str = "Ids";
const SURROUNDINGS: &str = "The command's surroundings";

kind_flags! {
    /// One flag for each kind of namespace to create, with the names and letters of unshare(1). With a file
    /// the namespace is made persistent: the file becomes a mount point of it.
    NewKinds {
        /// Pid namespace: process ids; the command is process 1 of a new one
        pid,
        /// Network namespace: devices, addresses, ports; with the loopback interface up
        net,
    }
}

impl NewKinds {
    /// Returns the kinds that are named.
    pub(crate) fn set(&self) -> NsSet {
        self.flags().into_iter().filter_map(|(given, kind)| given.is_some().then_some(kind)).collect()
    }

    /// Returns the files on which namespaces are mounted.
    pub(crate) fn files(&self) -> impl Iterator<Item = (NsKind, &OsString)> {
        self.flags().into_iter().filter_map(|(given, kind)| Some((kind, given.as_ref()?.as_ref()?)))
    }
}

/// The value of `--setgroups`.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SetgroupsFlag {
    /// setgroups(2) is permitted in the namespace
    Allow,
    /// setgroups(2) is denied in the namespace permanently
    Deny,
}

/// The value of `--propagation`.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PropagationFlag {
    /// Neither side sees later mounts of the other
    Private,
    /// Each side sees later mounts of the other
    Shared,
    /// The command sees later mounts of the caller
    Slave,
    /// As in the caller's mount namespace
    Unchanged,
}

impl PropagationFlag {
    /// Returns the propagation to set, if one is to be set.
    pub(crate) const fn propagation(self) -> Option<Propagation> {
        match self {
            Self::Private => Some(Propagation::Private),
            Self::Shared => Some(Propagation::Shared),
            Self::Slave => Some(Propagation::Slave),
            Self::Unchanged => None,
        }
    }
}

/// The flags that describe namespaces, shared by `run`, `plan`, `trace` and `encode`.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NamespaceFlags {
    /// The behaviour where no flag decides.
    #[arg(skip)]
    pub(crate) defaults: Defaults,
    /// Take the namespaces, id maps, time offsets, OOM score and command from an OCI configuration
    /// (config.json), and name the parts that are not applied
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The kinds to create.
    #[command(flatten)]
    pub(crate) kinds: NewKinds,
    /// Every kind that is not joined; the caller is root unless there is a map
    #[arg(long, help_heading = NAMESPACES)]
    pub(crate) all: bool,
    /// Join this namespace instead of creating one, e.g. net=/run/netns/blue; repeatable
    #[arg(long, value_name = "KIND=PATH", value_parser = join_parser(), help_heading = NAMESPACES)]
    pub(crate) join: Vec<JoinValue>,
    /// Stay the parent of the command. Without it `run` becomes the command itself, unless a parent is
    /// needed: for a pid namespace, a new session, --init, --kill-child, or a file of a namespace
    #[arg(short, long, help_heading = NAMESPACES)]
    pub(crate) fork: bool,

    /// Map the caller to id 0, as user and as group; implies -U
    #[arg(short = 'r', long, overrides_with = "map_current_user", help_heading = IDS)]
    pub(crate) map_root_user: bool,
    /// Map the caller to its own ids, which the command keeps; implies -U
    #[arg(short = 'c', long, overrides_with = "map_root_user", help_heading = IDS)]
    pub(crate) map_current_user: bool,
    /// Map the caller to this user id; implies -U
    #[arg(long, value_name = "UID|NAME", value_parser = user_id, overrides_with = "map_user", help_heading = IDS)]
    pub(crate) map_user: Option<u32>,
    /// Map the caller's group to this group id; implies -U
    #[arg(long, value_name = "GID|NAME", value_parser = group_id, overrides_with = "map_group", help_heading = IDS)]
    pub(crate) map_group: Option<u32>,
    /// Map N user ids: from I on inside to O and up outside. `auto`: the caller to 0, then its subordinate
    /// ids; `subids`: its subordinate ids to themselves; `all`: every id to itself. Repeatable, implies -U
    #[arg(long, value_name = "I:O:N|auto|subids|all", help_heading = IDS)]
    pub(crate) map_users: Vec<MapValue>,
    /// The same for group ids. If one of both is given alone, the other is `auto` or `subids` too, or maps
    /// the caller's own id
    #[arg(long, value_name = "I:O:N|auto|subids|all", help_heading = IDS)]
    pub(crate) map_groups: Vec<MapValue>,
    /// The same as --map-users auto --map-groups auto
    #[arg(long, help_heading = IDS)]
    pub(crate) map_auto: bool,
    /// The same as --map-users subids --map-groups subids
    #[arg(long, help_heading = IDS)]
    pub(crate) map_subids: bool,
    /// Allow or deny setgroups(2) in the new user namespace
    #[arg(long, value_name = "allow|deny", hide_possible_values = true, help_heading = IDS)]
    pub(crate) setgroups: Option<SetgroupsFlag>,
    /// Run the command with this user id, and without supplementary groups if they may be dropped
    #[arg(short = 'S', long, value_name = "UID|NAME", value_parser = user_id, help_heading = IDS)]
    pub(crate) setuid: Option<u32>,
    /// Run the command with this group id, and without supplementary groups if they may be dropped
    #[arg(short = 'G', long, value_name = "GID|NAME", value_parser = group_id, help_heading = IDS)]
    pub(crate) setgid: Option<u32>,
    /// Keep the capabilities of the new user namespace, also as another user than root
    #[arg(long, help_heading = IDS)]
    pub(crate) keep_caps: bool,

    /// Seconds to add to the monotonic clock, may be negative; implies -T
    #[arg(long, value_name = "S", allow_negative_numbers = true, help_heading = SURROUNDINGS)]
    pub(crate) monotonic: Option<i64>,
    /// Seconds to add to the boot-time clock, may be negative; implies -T
    #[arg(long, value_name = "S", allow_negative_numbers = true, help_heading = SURROUNDINGS)]
    pub(crate) boottime: Option<i64>,
    /// Adjust the OOM score: -1000 (the kernel never kills the command) to 1000 (kills it first)
    #[arg(long, value_name = "N", allow_negative_numbers = true, help_heading = SURROUNDINGS)]
    #[arg(value_parser = clap::value_parser!(i16).range(-1000..=1000))]
    pub(crate) oom_score_adj: Option<i16>,
    /// Mount a fresh proc file system at /proc or at DIR, in a new mount namespace; implies -m
    #[arg(long, value_name = "DIR", num_args = 0..=1, require_equals = true, help_heading = SURROUNDINGS)]
    pub(crate) mount_proc: Option<Option<OsString>>,
    /// Propagation of mounts in a new mount namespace: private, shared, slave or unchanged
    #[arg(long, value_name = "WHICH", hide_possible_values = true, help_heading = SURROUNDINGS)]
    pub(crate) propagation: Option<PropagationFlag>,
    /// Leave the loopback interface of a new network namespace down
    #[arg(long, help_heading = SURROUNDINGS)]
    pub(crate) no_loopback: bool,
    /// Leave /sys as it is, with the network devices of the caller
    #[arg(long, help_heading = SURROUNDINGS)]
    pub(crate) no_mount_sys: bool,
    /// Run the command below a minimal process 1 that reaps orphans and forwards signals; implies -p
    #[arg(long, help_heading = SURROUNDINGS)]
    pub(crate) init: bool,
    /// Use DIR as the root directory
    #[arg(short = 'R', long, value_name = "DIR", help_heading = SURROUNDINGS)]
    pub(crate) root: Option<OsString>,
    /// Use DIR as the working directory, below the root directory
    #[arg(short = 'w', long = "wd", value_name = "DIR", help_heading = SURROUNDINGS)]
    pub(crate) directory: Option<OsString>,
    /// Send the command SIGKILL, or SIGNAL, when nsexec ends before it
    #[arg(long, value_name = "SIGNAL", num_args = 0..=1, require_equals = true, value_parser = signal, help_heading = SURROUNDINGS)]
    pub(crate) kill_child: Option<Option<Signal>>,
    /// Accepted for compatibility with unshare(1): nsexec always forwards signals.
    #[arg(long, hide = true)]
    pub(crate) forward_signals: bool,
    /// Copy nsexec's memory for the command's process, as trace does, instead of sharing it up to the exec
    #[arg(long, help_heading = SURROUNDINGS)]
    pub(crate) copy_memory: bool,
}

impl NamespaceFlags {
    /// Returns the values of `--map-users`, with those that other flags stand for.
    pub(crate) fn users(&self) -> Vec<MapValue> {
        self.with_shorthands(&self.map_users)
    }

    /// Returns the values of `--map-groups`, with those that other flags stand for.
    pub(crate) fn groups(&self) -> Vec<MapValue> {
        self.with_shorthands(&self.map_groups)
    }

    fn with_shorthands(&self, values: &[MapValue]) -> Vec<MapValue> {
        let shorthands = [(self.map_auto, MapValue::Auto), (self.map_subids, MapValue::SubIds)];
        let added = shorthands.into_iter().filter(|(given, value)| *given && !values.contains(value));
        values.iter().copied().chain(added.map(|(_, value)| value)).collect()
    }

    /// Returns whether a value of a map depends on the caller's subordinate ids, or on its own map.
    pub(crate) fn needs_ids_of_caller(&self) -> bool {
        let lines_only =
            |values: Vec<MapValue>| values.iter().all(|value| matches!(value, MapValue::Line(_)));
        !lines_only(self.users()) || !lines_only(self.groups())
    }

    /// Returns the signal that the command gets when nsexec ends.
    pub(crate) fn signal_at_end(&self) -> Option<Signal> {
        self.kill_child.map(|signal| signal.unwrap_or(Signal::KILL))
    }
}

fn join_parser() -> impl TypedValueParser<Value = JoinValue> {
    OsStringValueParser::new().try_map(|value| JoinValue::parse(&value))
}
