//! The flags of `nsexec pin`.

use std::path::PathBuf;

use clap::Args;

use super::failure::Failure;
use super::kind_flags::NAMESPACES;
use super::namespace_flags::{NamespaceFlags, PropagationFlag, SetgroupsFlag};
use super::values::{MapValue, group_id, user_id};

const IDS: &str = "Ids";
const SURROUNDINGS: &str = "The namespaces' state";

/// The namespaces to pin, and their maps: flags of `run`.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PinFlags {
    /// User namespace: ids and privileges
    #[arg(short = 'U', long, help_heading = NAMESPACES)]
    user: bool,
    /// Mount namespace: the mounts; DIR must be below a mount with private propagation
    #[arg(short, long, help_heading = NAMESPACES)]
    mount: bool,
    /// Network namespace: devices, addresses, ports; with the loopback interface up
    #[arg(short, long, help_heading = NAMESPACES)]
    net: bool,
    /// IPC namespace: System V IPC, POSIX message queues
    #[arg(short, long, help_heading = NAMESPACES)]
    ipc: bool,
    /// UTS namespace: host name
    #[arg(short, long, help_heading = NAMESPACES)]
    uts: bool,
    /// Cgroup namespace: the root of /proc/PID/cgroup
    #[arg(short = 'C', long, help_heading = NAMESPACES)]
    cgroup: bool,
    /// Time namespace: offsets of the monotonic and the boot-time clock
    #[arg(short = 'T', long, help_heading = NAMESPACES)]
    time: bool,
    /// Accepted only to be refused with an explanation: a pid namespace ends with its process 1.
    #[arg(short, long, hide = true)]
    pid: bool,

    /// Map the caller to id 0, as user and as group; implies -U
    #[arg(short = 'r', long, overrides_with = "map_current_user", help_heading = IDS)]
    map_root_user: bool,
    /// Map the caller to its own ids; implies -U
    #[arg(short = 'c', long, overrides_with = "map_root_user", help_heading = IDS)]
    map_current_user: bool,
    /// Map the caller to this user id; implies -U
    #[arg(long, value_name = "UID|NAME", value_parser = user_id, help_heading = IDS)]
    map_user: Option<u32>,
    /// Map the caller's group to this group id; implies -U
    #[arg(long, value_name = "GID|NAME", value_parser = group_id, help_heading = IDS)]
    map_group: Option<u32>,
    /// Map N user ids, from I on inside to O and up outside; or auto, subids or all, as run does; repeatable
    #[arg(long, value_name = "I:O:N|auto|subids|all", help_heading = IDS)]
    map_users: Vec<MapValue>,
    /// The same for group ids
    #[arg(long, value_name = "I:O:N|auto|subids|all", help_heading = IDS)]
    map_groups: Vec<MapValue>,
    /// The same as --map-users auto --map-groups auto
    #[arg(long, help_heading = IDS)]
    map_auto: bool,
    /// The same as --map-users subids --map-groups subids
    #[arg(long, help_heading = IDS)]
    map_subids: bool,
    /// Allow or deny setgroups(2) in the new user namespace
    #[arg(long, value_name = "allow|deny", hide_possible_values = true, help_heading = IDS)]
    setgroups: Option<SetgroupsFlag>,

    /// Seconds to add to the monotonic clock, may be negative; implies -T
    #[arg(long, value_name = "S", allow_negative_numbers = true, help_heading = SURROUNDINGS)]
    monotonic: Option<i64>,
    /// Seconds to add to the boot-time clock, may be negative; implies -T
    #[arg(long, value_name = "S", allow_negative_numbers = true, help_heading = SURROUNDINGS)]
    boottime: Option<i64>,
    /// Propagation of mounts in a new mount namespace: private, shared, slave or unchanged
    #[arg(long, value_name = "WHICH", hide_possible_values = true, help_heading = SURROUNDINGS)]
    propagation: Option<PropagationFlag>,
    /// Leave the loopback interface of a new network namespace down
    #[arg(long, help_heading = SURROUNDINGS)]
    no_loopback: bool,
}

impl PinFlags {
    /// Returns the same flags of `run`.
    fn of_run(&self) -> NamespaceFlags {
        let mut flags = NamespaceFlags {
            map_root_user: self.map_root_user,
            map_current_user: self.map_current_user,
            map_user: self.map_user,
            map_group: self.map_group,
            map_users: self.map_users.clone(),
            map_groups: self.map_groups.clone(),
            map_auto: self.map_auto,
            map_subids: self.map_subids,
            setgroups: self.setgroups,
            monotonic: self.monotonic,
            boottime: self.boottime,
            propagation: self.propagation,
            no_loopback: self.no_loopback,
            no_mount_sys: true,
            ..NamespaceFlags::default()
        };
        let kinds = &mut flags.kinds;
        for (given, kind) in [
            (self.user, &mut kinds.user),
            (self.mount, &mut kinds.mount),
            (self.net, &mut kinds.net),
            (self.ipc, &mut kinds.ipc),
            (self.uts, &mut kinds.uts),
            (self.cgroup, &mut kinds.cgroup),
            (self.time, &mut kinds.time),
        ] {
            *kind = given.then_some(None);
        }
        flags
    }

    /// Returns the flags of `run`, if they name a kind that can be pinned.
    pub(crate) fn checked(&self) -> Result<NamespaceFlags, Failure> {
        if self.pid {
            return Err(Failure::Usage(
                "--pid: a pid namespace ends with its process 1, and can have no process afterwards \
                 (pid_namespaces(7)): keep one running, as in nsexec run -p --init"
                    .to_owned(),
            ));
        }
        let flags = self.of_run();
        let idle =
            NamespaceFlags { no_loopback: self.no_loopback, no_mount_sys: true, ..NamespaceFlags::default() };
        if flags == idle {
            return Err(Failure::Usage(
                "name the namespaces to pin: -U -m -n -i -u -C -T, or a map".to_owned(),
            ));
        }
        Ok(flags)
    }
}

/// `nsexec pin`.
#[derive(Args, Debug)]
pub(crate) struct PinArgs {
    /// The namespaces and the maps.
    #[command(flatten)]
    pub(crate) flags: PinFlags,
    /// Unmount the namespaces of DIR, and remove their files, and DIR if it is empty then
    #[arg(long)]
    pub(crate) release: bool,
    /// Show the debug messages of each stage on standard error
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// The directory with one file for each namespace; created if it does not exist
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
}
