//! The command line of unshare(1), with the flags of util-linux 2.38 to 2.42.

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use clap::ValueEnum;
use nix::unistd::{getegid, geteuid};
use nsexec::namespace::NsKind;

use super::super::args::{HandOverFlags, NamespaceFlags, SetgroupsFlag};
use super::super::defaults::Defaults;
use super::super::failure::Failure;
use super::super::namespace_flags::PropagationFlag;
use super::super::request;
use super::super::run::{self, Job};
use super::super::values::{MapValue, Variable, group_id, signal, user_id};
use super::getopt::{self, Flag, NO_LETTER, Takes, flag};
use super::{Asked, Name, command_of, parsed, wait};

/// The meaning of a flag.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Means {
    Kind(NsKind),
    Fork,
    KillChild,
    ForwardSignals,
    MountProc,
    MapUser,
    MapGroup,
    MapRootUser,
    MapCurrentUser,
    MapUsers,
    MapGroups,
    MapAuto,
    MapSubIds,
    Propagation,
    Setgroups,
    KeepCaps,
    SetUid,
    SetGid,
    Root,
    Directory,
    Monotonic,
    Boottime,
    ClearEnv,
    WhitelistEnv,
    Owner,
    MountBinfmt,
    LoadInterp,
    Help,
    Version,
}

impl Means {
    fn ends(self) -> bool {
        matches!(self, Self::Help | Self::Version)
    }
}

const FLAGS: &[Flag<Means>] = &[
    flag(b'h', "help", Takes::Nothing, Means::Help),
    flag(b'V', "version", Takes::Nothing, Means::Version),
    flag(b'm', "mount", Takes::Path, Means::Kind(NsKind::Mnt)),
    flag(b'u', "uts", Takes::Path, Means::Kind(NsKind::Uts)),
    flag(b'i', "ipc", Takes::Path, Means::Kind(NsKind::Ipc)),
    flag(b'n', "net", Takes::Path, Means::Kind(NsKind::Net)),
    flag(b'p', "pid", Takes::Path, Means::Kind(NsKind::Pid)),
    flag(b'U', "user", Takes::Path, Means::Kind(NsKind::User)),
    flag(b'C', "cgroup", Takes::Path, Means::Kind(NsKind::Cgroup)),
    flag(b'T', "time", Takes::Path, Means::Kind(NsKind::Time)),
    flag(b'f', "fork", Takes::Nothing, Means::Fork),
    flag(NO_LETTER, "kill-child", Takes::Attached, Means::KillChild),
    flag(NO_LETTER, "forward-signals", Takes::Nothing, Means::ForwardSignals),
    flag(NO_LETTER, "mount-proc", Takes::Attached, Means::MountProc),
    flag(NO_LETTER, "mount-binfmt", Takes::Attached, Means::MountBinfmt),
    flag(NO_LETTER, "map-user", Takes::Value, Means::MapUser),
    flag(NO_LETTER, "map-users", Takes::Value, Means::MapUsers),
    flag(NO_LETTER, "map-group", Takes::Value, Means::MapGroup),
    flag(NO_LETTER, "map-groups", Takes::Value, Means::MapGroups),
    flag(b'r', "map-root-user", Takes::Nothing, Means::MapRootUser),
    flag(b'c', "map-current-user", Takes::Nothing, Means::MapCurrentUser),
    flag(NO_LETTER, "map-auto", Takes::Nothing, Means::MapAuto),
    flag(NO_LETTER, "map-subids", Takes::Nothing, Means::MapSubIds),
    flag(NO_LETTER, "owner", Takes::Value, Means::Owner),
    flag(NO_LETTER, "propagation", Takes::Value, Means::Propagation),
    flag(NO_LETTER, "setgroups", Takes::Value, Means::Setgroups),
    flag(NO_LETTER, "keep-caps", Takes::Nothing, Means::KeepCaps),
    flag(b'S', "setuid", Takes::Value, Means::SetUid),
    flag(b'G', "setgid", Takes::Value, Means::SetGid),
    flag(b'R', "root", Takes::Value, Means::Root),
    flag(b'w', "wd", Takes::Value, Means::Directory),
    flag(NO_LETTER, "monotonic", Takes::Value, Means::Monotonic),
    flag(NO_LETTER, "boottime", Takes::Value, Means::Boottime),
    flag(b'l', "load-interp", Takes::Value, Means::LoadInterp),
    flag(NO_LETTER, "clear-env", Takes::Nothing, Means::ClearEnv),
    flag(NO_LETTER, "whitelist-env", Takes::Value, Means::WhitelistEnv),
];

/// The flags of a command line.
#[derive(Default)]
struct Given {
    flags: NamespaceFlags,
    /// The command does not inherit the environment.
    clear_env: bool,
    /// The variables that it inherits all the same.
    kept: HandOverFlags,
    /// The help or the version, whichever comes first.
    shows: Option<Means>,
}

/// Runs a command in new namespaces, as unshare(1) does.
///
/// # Errors
/// Wrong usage, or a failure of the launch.
pub(super) fn unshare(arguments: &[OsString]) -> Result<Asked, Failure> {
    let (words, command) = getopt::parse(FLAGS, Means::ends, arguments).map_err(Failure::Usage)?;
    let Given { flags, clear_env, kept, shows } = given(words)?;
    match shows {
        Some(Means::Version) => return Ok(Asked::Version),
        Some(_) => return Ok(Asked::Help),
        None => {}
    }
    let offsets = flags.monotonic.is_some() || flags.boottime.is_some();
    if offsets && flags.kinds.time.is_none() {
        return Err(Failure::Usage(
            "--monotonic and --boottime need a new time namespace: add -T".to_owned(),
        ));
    }
    let facts = request::facts_of(&flags, false);
    let mut request = run::request_of(&flags, &kept, &facts)?;
    run::ready(&request)?;
    if clear_env {
        request.hand_over.empty_environment = true;
    }
    let command = command_of(&mut request, Name::Unshare, command);
    let job = Job { request: &request, command: &command, verbose: false };
    let status = match run::in_place(&flags, &request) {
        true => run::replace(&job)?,
        false => wait::start(&job, flags.forward_signals)?,
    };
    Ok(Asked::Ended(status))
}

fn given(words: Vec<(Means, Option<OsString>)>) -> Result<Given, Failure> {
    let mut given = Given::default();
    given.flags.defaults = Defaults::UtilLinux;
    given.flags.no_loopback = true;
    given.flags.no_mount_sys = true;
    for (means, value) in words {
        match means {
            Means::Help | Means::Version => given.shows = Some(means),
            Means::ClearEnv => given.clear_env = true,
            Means::WhitelistEnv => {
                given.clear_env = true;
                let names = value.unwrap_or_default();
                given.kept.set_env.extend(names.as_bytes().split(|byte| *byte == b',').filter_map(variable));
            }
            _ => match value {
                Some(value) => with_value(&mut given.flags, means, value)?,
                None => alone(&mut given.flags, means)?,
            },
        }
    }
    Ok(given)
}

/// Returns the variable of our environment with this name.
fn variable(name: &[u8]) -> Option<Variable> {
    let name = OsStr::from_bytes(name);
    let value = env::var_os(name).filter(|_| !name.is_empty())?;
    Some(Variable { name: name.to_owned(), value })
}

/// Applies a flag that has no value.
fn alone(flags: &mut NamespaceFlags, means: Means) -> Result<(), Failure> {
    match means {
        Means::Kind(kind) => flags.kinds.name(kind, None),
        Means::Fork => flags.fork = true,
        Means::KillChild => (flags.fork, flags.kill_child) = (true, Some(None)),
        Means::ForwardSignals => (flags.fork, flags.forward_signals) = (true, true),
        Means::MountProc => flags.mount_proc = Some(None),
        Means::MapRootUser => {
            flags.map_root_user = true;
            (flags.map_user, flags.map_group) = (Some(0), Some(0));
        }
        Means::MapCurrentUser => {
            flags.map_current_user = true;
            (flags.map_user, flags.map_group) = (Some(geteuid().as_raw()), Some(getegid().as_raw()));
        }
        Means::MapAuto => flags.map_auto = true,
        Means::MapSubIds => flags.map_subids = true,
        Means::KeepCaps => flags.keep_caps = true,
        Means::MountBinfmt => return Err(no_binfmt("--mount-binfmt")),
        _ => {}
    }
    Ok(())
}

/// Applies a flag with its value.
fn with_value(flags: &mut NamespaceFlags, means: Means, value: OsString) -> Result<(), Failure> {
    match means {
        Means::Kind(kind) => flags.kinds.name(kind, Some(value)),
        Means::KillChild => {
            (flags.fork, flags.kill_child) = (true, Some(Some(parsed("--kill-child", &value, signal)?)));
        }
        Means::MountProc => flags.mount_proc = Some(Some(value)),
        Means::MapUser => flags.map_user = Some(parsed("--map-user", &value, user_id)?),
        Means::MapGroup => flags.map_group = Some(parsed("--map-group", &value, group_id)?),
        Means::MapUsers => flags.map_users.push(parsed("--map-users", &value, str::parse::<MapValue>)?),
        Means::MapGroups => flags.map_groups.push(parsed("--map-groups", &value, str::parse::<MapValue>)?),
        Means::Propagation => flags.propagation = Some(word_of::<PropagationFlag>("--propagation", &value)?),
        Means::Setgroups => flags.setgroups = Some(word_of::<SetgroupsFlag>("--setgroups", &value)?),
        Means::SetUid => flags.setuid = Some(parsed("--setuid", &value, user_id)?),
        Means::SetGid => flags.setgid = Some(parsed("--setgid", &value, group_id)?),
        Means::Root => flags.root = Some(value),
        Means::Directory => flags.directory = Some(value),
        Means::Monotonic => flags.monotonic = Some(parsed("--monotonic", &value, seconds)?),
        Means::Boottime => flags.boottime = Some(parsed("--boottime", &value, seconds)?),
        Means::Owner => {
            let ids = value.to_string_lossy();
            let (uid, gid) = ids.split_once(':').unwrap_or((&ids, "GID"));
            return Err(Failure::ours(format!(
                "--owner is left out: setpriv --reuid {uid} --regid {gid} --clear-groups unshare … creates the namespace as \
                 that user, which then maps its own ids"
            )));
        }
        Means::MountBinfmt => return Err(no_binfmt("--mount-binfmt")),
        Means::LoadInterp => return Err(no_binfmt("--load-interp")),
        _ => {}
    }
    Ok(())
}

fn no_binfmt(flag: &str) -> Failure {
    Failure::ours(format!(
        "{flag} is left out: the command itself can mount it: unshare -r -m sh -c 'mount -t binfmt_misc binfmt_misc \
         /proc/sys/fs/binfmt_misc && …'"
    ))
}

fn seconds(text: &str) -> Result<i64, String> {
    text.trim().parse().map_err(|_| "expected a number of seconds".to_owned())
}

fn word_of<T: ValueEnum>(flag: &str, value: &OsStr) -> Result<T, Failure> {
    parsed(flag, value, |text| {
        T::from_str(text, false).map_err(|_| {
            let known = T::value_variants().iter().filter_map(ValueEnum::to_possible_value);
            let known: Vec<String> = known.map(|value| value.get_name().to_owned()).collect();
            format!("expected {}", known.join(" or "))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(words: &str) -> Result<NamespaceFlags, Failure> {
        let words: Vec<OsString> = words.split_whitespace().map(OsString::from).collect();
        let (words, _) = getopt::parse(FLAGS, Means::ends, &words).map_err(Failure::Usage)?;
        given(words).map(|given| given.flags)
    }

    #[test]
    fn the_last_map_of_the_own_ids_counts() {
        let ids = |words| flags(words).map(|flags| (flags.map_user, flags.map_group)).unwrap();
        assert_eq!(ids("-r --map-user 5"), (Some(5), Some(0)));
        assert_eq!(ids("--map-user 5 --map-group 6 -r"), (Some(0), Some(0)));
        assert_eq!(ids("-U"), (None, None));
        let own = (Some(geteuid().as_raw()), Some(getegid().as_raw()));
        assert_eq!(ids("-rc"), own);
    }

    #[test]
    fn nothing_is_created_by_default() {
        let flags = flags("").unwrap();
        let facts = request::facts_of(&flags, false);
        let request = run::request_of(&flags, &HandOverFlags::default(), &facts).unwrap();
        assert!(request.created.is_empty() && request.joined.is_empty());
        assert!(!request.policy.launch.mount_proc && !request.around.loopback);
        assert!(request.around.sysfs.is_none());
        assert!(run::in_place(&flags, &request));
    }

    #[test]
    fn a_file_of_a_kind_stays() {
        let kinds = flags("--net=/run/n -n -u/run/u").unwrap().kinds;
        let files: Vec<_> = kinds.files().map(|(kind, file)| (kind, file.to_str().unwrap())).collect();
        assert_eq!(files, [(NsKind::Net, "/run/n"), (NsKind::Uts, "/run/u")]);
    }

    #[test]
    fn flags_that_are_left_out_name_another_way() {
        for (words, way) in
            [("--owner 5:6", "setpriv --reuid 5 --regid 6"), ("-l :x", "mount -t binfmt_misc")]
        {
            let text = flags(words).unwrap_err().to_string();
            assert!(text.contains("left out") && text.contains(way), "{text}");
        }
    }

    #[test]
    fn wrong_values_are_named() {
        for (words, wanted) in [
            ("--propagation no", "--propagation no: expected private or shared or slave or unchanged"),
            ("--setgroups x", "--setgroups x: expected allow or deny"),
            ("--monotonic x -T", "--monotonic x: expected a number of seconds"),
        ] {
            assert_eq!(flags(words).unwrap_err().to_string(), wanted);
        }
    }
}
