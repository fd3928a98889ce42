//! The command line of nsenter(1), with the flags of util-linux 2.38 to 2.42.

use std::ffi::OsString;
use std::path::Path;

use nsexec::namespace::NsKind;

use super::super::args::{BeforeStartFlags, HandOverFlags};
use super::super::defaults::Defaults;
use super::super::enter;
use super::super::enter_flags::{EnterFlags, TargetValue, group, user};
use super::super::failure::Failure;
use super::super::run::{self, Job};
use super::getopt::{self, Flag, NO_LETTER, Takes, flag};
use super::{Asked, Name, command_of, parsed, wait};

/// The meaning of a flag.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Means {
    All,
    Target,
    Kind(NsKind),
    NetSocket,
    UserParent,
    SetUid,
    SetGid,
    PreserveCredentials,
    KeepCaps,
    Root,
    Directory,
    DirectoryInside,
    Env,
    NoFork,
    JoinCgroup,
    FollowContext,
    Help,
    Version,
}

impl Means {
    fn ends(self) -> bool {
        matches!(self, Self::Help | Self::Version)
    }
}

const FLAGS: &[Flag<Means>] = &[
    flag(b'a', "all", Takes::Nothing, Means::All),
    flag(b'h', "help", Takes::Nothing, Means::Help),
    flag(b'V', "version", Takes::Nothing, Means::Version),
    flag(b't', "target", Takes::Value, Means::Target),
    flag(b'm', "mount", Takes::Attached, Means::Kind(NsKind::Mnt)),
    flag(b'u', "uts", Takes::Attached, Means::Kind(NsKind::Uts)),
    flag(b'i', "ipc", Takes::Attached, Means::Kind(NsKind::Ipc)),
    flag(b'n', "net", Takes::Attached, Means::Kind(NsKind::Net)),
    flag(b'N', "net-socket", Takes::Value, Means::NetSocket),
    flag(b'p', "pid", Takes::Attached, Means::Kind(NsKind::Pid)),
    flag(b'U', "user", Takes::Attached, Means::Kind(NsKind::User)),
    flag(b'C', "cgroup", Takes::Attached, Means::Kind(NsKind::Cgroup)),
    flag(b'T', "time", Takes::Attached, Means::Kind(NsKind::Time)),
    flag(NO_LETTER, "user-parent", Takes::Nothing, Means::UserParent),
    flag(b'S', "setuid", Takes::Value, Means::SetUid),
    flag(b'G', "setgid", Takes::Value, Means::SetGid),
    flag(NO_LETTER, "preserve-credentials", Takes::Nothing, Means::PreserveCredentials),
    flag(NO_LETTER, "keep-caps", Takes::Nothing, Means::KeepCaps),
    flag(b'r', "root", Takes::Attached, Means::Root),
    flag(b'w', "wd", Takes::Attached, Means::Directory),
    flag(b'W', "wdns", Takes::Attached, Means::DirectoryInside),
    flag(b'e', "env", Takes::Nothing, Means::Env),
    flag(b'F', "no-fork", Takes::Nothing, Means::NoFork),
    flag(b'c', "join-cgroup", Takes::Nothing, Means::JoinCgroup),
    flag(b'Z', "follow-context", Takes::Nothing, Means::FollowContext),
];

/// The file that exists if SELinux is active (selinux(8)).
const SELINUX: &str = "/sys/fs/selinux/enforce";

/// Runs a command in the namespaces of a process, as nsenter(1) does.
///
/// # Errors
/// Wrong usage, or a failure of the launch.
pub(super) fn nsenter(arguments: &[OsString]) -> Result<Asked, Failure> {
    let (words, command) = getopt::parse(FLAGS, Means::ends, arguments).map_err(Failure::Usage)?;
    let last = words.last().map(|(means, _)| *means);
    let flags = given(words)?;
    match last {
        Some(Means::Version) => return Ok(Asked::Version),
        Some(Means::Help) => return Ok(Asked::Help),
        _ => {}
    }
    check(&flags)?;
    let mut entered = enter::decide(&flags, &HandOverFlags::default(), &BeforeStartFlags::default())?;
    entered.seal()?;
    let command = command_of(&mut entered.request, Name::Nsenter, command);
    let job = Job { request: &entered.request, command: &command, verbose: false };
    // Only a child is in a pid namespace that is joined.
    let status = match entered.request.joined.contains(NsKind::Pid) && !flags.no_fork {
        true => wait::start(&job, true)?,
        false => run::replace(&job)?,
    };
    Ok(Asked::Ended(status))
}

fn given(words: Vec<(Means, Option<OsString>)>) -> Result<EnterFlags, Failure> {
    let mut flags = EnterFlags { defaults: Defaults::UtilLinux, ..EnterFlags::default() };
    for (means, value) in words {
        match (means, value) {
            (Means::All, _) => flags.all = true,
            (Means::Kind(kind), file) => flags.kinds.name(kind, file),
            (Means::UserParent, _) => flags.user_parent = true,
            (Means::PreserveCredentials, _) => flags.preserve_credentials = true,
            (Means::KeepCaps, _) => flags.keep_caps = true,
            (Means::Root, directory) => flags.root = Some(directory),
            (Means::Directory, directory) => flags.directory = Some(directory),
            // Without a value it changes nothing in util-linux.
            (Means::DirectoryInside, directory) => flags.wdns = directory,
            (Means::Env, _) => flags.env = true,
            (Means::NoFork, _) => flags.no_fork = true,
            (Means::JoinCgroup, _) => flags.join_cgroup = true,
            (Means::FollowContext, _) if Path::new(SELINUX).exists() => {
                return Err(Failure::ours(
                    "--follow-context is left out: nsenter … runcon LABEL COMMAND sets a label, and \
                     /proc/PID/attr/current has that of the process",
                ));
            }
            (Means::Target, Some(_)) if flags.target.is_some() => {
                return Err(Failure::Usage("--target: only one process can be named".to_owned()));
            }
            (Means::Target, Some(value)) => {
                flags.target = Some(parsed("--target", &value, str::parse::<TargetValue>)?);
            }
            (Means::NetSocket, Some(value)) => {
                flags.net_socket = Some(parsed("--net-socket", &value, descriptor)?);
            }
            (Means::SetUid, Some(value)) => flags.setuid = Some(parsed("--setuid", &value, user)?),
            (Means::SetGid, Some(value)) => flags.setgid = Some(parsed("--setgid", &value, group)?),
            _ => {}
        }
    }
    Ok(flags)
}

/// Checks what clap checks for `enter`.
fn check(flags: &EnterFlags) -> Result<(), Failure> {
    let without = [
        (flags.all, "--all"),
        (flags.net_socket.is_some(), "--net-socket"),
        (flags.join_cgroup, "--join-cgroup"),
        (flags.env, "--env"),
    ];
    if let Some((_, flag)) = without.into_iter().find(|(given, _)| *given && flags.target.is_none()) {
        return Err(Failure::Usage(format!("{flag} needs a process: add --target PID")));
    }
    if flags.wdns.is_some() && flags.directory.is_some() {
        return Err(Failure::Usage("--wd and --wdns exclude each other".to_owned()));
    }
    Ok(())
}

fn descriptor(text: &str) -> Result<i32, String> {
    let number = text.parse().ok().filter(|number| *number >= 0);
    number.ok_or_else(|| "expected the number of a descriptor".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(words: &str) -> Result<EnterFlags, Failure> {
        let words: Vec<OsString> = words.split_whitespace().map(OsString::from).collect();
        let (words, _) = getopt::parse(FLAGS, Means::ends, &words).map_err(Failure::Usage)?;
        let flags = given(words)?;
        check(&flags).map(|()| flags)
    }

    #[test]
    fn files_follow_their_letters() {
        let given = flags("-t 5 -n/run/n --uts=/run/u -m -r/x -w=/y -eFc").unwrap();
        let file = |kind| given.kinds.file(kind).and_then(|file| file.to_str());
        assert_eq!(
            (file(NsKind::Net), file(NsKind::Uts), file(NsKind::Mnt)),
            (Some("/run/n"), Some("/run/u"), None)
        );
        assert_eq!(given.root, Some(Some("/x".into())));
        assert_eq!(given.directory, Some(Some("/y".into())));
        assert!(given.env && given.no_fork && given.join_cgroup && given.kinds.mount == Some(None));
    }

    #[test]
    fn wrong_usage_is_named() {
        for (words, wanted) in [
            ("-a", "--all needs a process: add --target PID"),
            ("-t 5 -t 6", "--target: only one process can be named"),
            ("-t x", "--target x: expected a pid above 0, or PID:INODE with the inode of its pidfd"),
            ("-t 5 -w -W/x", "--wd and --wdns exclude each other"),
            ("-t 5 -N -1", "--net-socket -1: expected the number of a descriptor"),
        ] {
            assert_eq!(flags(words).unwrap_err().to_string(), wanted, "{words}");
        }
    }
}
