//! The arguments of bubblewrap that sandboxes for agents use: `bwrap_subset [ARGUMENT]... [--] COMMAND...`.
//!
//! As with bwrap(1), the root directory is empty at first, the arguments for mounts take effect in their
//! order, an ordinary user gets a new user namespace with its own ids and no capabilities, and process 1 of
//! a new pid namespace reaps orphans. Differences: the command begins in /, and a mount over / must be the
//! first one.

use std::collections::VecDeque;
use std::process::exit;

use nsexec::idmap::Extent;
use nsexec::launch::{Command, exit_code};
use nsexec::namespace::NsKind::{self, Cgroup, Ipc, Mnt, Net, Pid, User, Uts};

const ALL: [NsKind; 6] = [User, Ipc, Pid, Net, Uts, Cgroup];

/// Returns the command that the arguments describe.
fn command_of(arguments: impl IntoIterator<Item = String>) -> Result<Command, String> {
    let mut words: VecDeque<String> = arguments.into_iter().collect();
    let mut settings: Vec<(String, Vec<String>)> = Vec::new();
    while words.front().is_some_and(|word| word.starts_with("--")) {
        let word = words.pop_front().unwrap_or_default();
        if word == "--" {
            break;
        }
        let count = match &word[2..] {
            "ro-bind" | "bind" | "dev-bind" | "symlink" | "setenv" => 2,
            "proc" | "dev" | "tmpfs" | "mqueue" | "dir" | "chdir" | "unsetenv" | "uid" | "gid"
            | "hostname" | "seccomp" => 1,
            "as-pid-1" | "die-with-parent" | "new-session" | "clearenv" | "unshare-all" | "share-net"
            | "unshare-user" | "unshare-user-try" | "unshare-ipc" | "unshare-pid" | "unshare-net"
            | "unshare-uts" | "unshare-cgroup" | "unshare-cgroup-try" => 0,
            _ => return Err(format!("unknown argument {word}")),
        };
        if words.len() < count {
            return Err(format!("{word} needs {count} values"));
        }
        settings.push((word, words.drain(..count).collect()));
    }
    let mut command = Command::new(words.pop_front().ok_or("the command is missing")?);
    command.args(&words).root_empty().unshare([Mnt]);
    let (own_uid, own_gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    let (mut uid, mut gid) = (own_uid.as_raw(), own_gid.as_raw());
    let (mut created, mut shared, mut reaps) = (Vec::new(), Vec::new(), true);
    if !own_uid.is_root() {
        created.push(User);
        command.capabilities([]);
    }
    command.no_new_privs();
    for (number, (word, values)) in settings.iter().enumerate() {
        let value = |index: usize| values.get(index).map_or("", String::as_str);
        let id = || value(0).parse::<u32>().map_err(|_| format!("{word}: {} is not an id", value(0)));
        let is_mount = |word: &str| {
            matches!(&word[2..], "ro-bind" | "bind" | "dev-bind" | "tmpfs" | "dir" | "proc" | "dev")
        };
        match &word[2..] {
            "ro-bind" | "bind" | "dev-bind" if value(1) == "/" => {
                if settings[..number].iter().any(|(earlier, _)| is_mount(earlier)) {
                    return Err(format!("{word} over / must be the first mount"));
                }
                match &word[2..] {
                    "ro-bind" => command.root_read_only(value(0)),
                    _ => command.root(value(0)),
                };
            }
            "ro-bind" => drop(command.bind_read_only(value(0), value(1))),
            "bind" => drop(command.bind(value(0), value(1))),
            "dev-bind" => drop(command.bind_devices(value(0), value(1))),
            "symlink" => drop(command.symlink(value(0), value(1))),
            "proc" => drop(command.proc(value(0))),
            "dev" => drop(command.dev(value(0))),
            "tmpfs" => drop(command.tmpfs(value(0))),
            "mqueue" => drop(command.mqueue(value(0))),
            "dir" => drop(command.create_dir(value(0), 0o755)),
            "chdir" => drop(command.current_dir(value(0))),
            "setenv" => drop(command.env(value(0), value(1))),
            "unsetenv" => drop(command.env_remove(value(0))),
            "clearenv" => drop(command.env_clear()),
            "hostname" => drop(command.hostname(value(0))),
            "seccomp" => drop(command.seccomp_filter_bytes(read_fd(id()?)?)),
            "uid" => uid = id()?,
            "gid" => gid = id()?,
            "die-with-parent" => drop(command.kill_with_parent()),
            "new-session" => drop(command.new_session()),
            "as-pid-1" => reaps = false,
            "share-net" => shared.push(Net),
            "unshare-all" => created.extend(ALL),
            kind => {
                let kind = kind.trim_start_matches("unshare-").trim_end_matches("-try");
                created.extend(ALL.into_iter().filter(|one| one.to_string() == kind));
            }
        }
    }
    created.retain(|kind| !shared.contains(kind));
    if created.contains(&Pid) && reaps {
        command.init();
    }
    if created.contains(&User) {
        let one = |inside, outside| [Extent { inside, outside, count: 1 }];
        command.uid_map(one(uid, own_uid.as_raw())).gid_map(one(gid, own_gid.as_raw()));
    }
    command.unshare(created);
    Ok(command)
}

/// Reads the program that another program has written to this descriptor.
fn read_fd(number: u32) -> Result<Vec<u8>, String> {
    std::fs::read(format!("/proc/self/fd/{number}")).map_err(|error| format!("--seccomp {number}: {error}"))
}

fn main() {
    let status = match command_of(std::env::args().skip(1)) {
        Ok(mut command) => command.status().map(exit_code).map_err(|error| error.to_string()),
        Err(error) => Err(error),
    };
    exit(status.unwrap_or_else(|error| {
        eprintln!("bwrap_subset: {error}");
        1
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process;

    const PROGRAMS: &str =
        "--ro-bind /usr /usr --symlink usr/bin /bin --symlink usr/lib /lib --symlink usr/lib64 /lib64";

    /// Runs a shell script under these arguments, here and by bubblewrap, and returns what both wrote.
    fn both(arguments: &str, script: &str) -> String {
        let words: Vec<String> =
            arguments.split(' ').chain(["--", "sh", "-c", script]).map(String::from).collect();
        let ours = command_of(words.clone()).unwrap().output().unwrap();
        let ours = String::from_utf8(ours.stdout).unwrap();
        match process::Command::new("bwrap").args(&words).output() {
            Ok(theirs) => assert_eq!(ours, String::from_utf8(theirs.stdout).unwrap(), "{arguments}"),
            Err(_) => println!("not compared: bwrap is not installed"),
        }
        ours
    }

    #[test]
    fn sandbox_is_that_of_bubblewrap() {
        let script = "ls /; pwd; id -u; ls /dev | grep -v core; cat /proc/net/dev | wc -l; touch /usr/x 2>&1; touch /tmp/x && echo made";
        let seen = both(
            &format!(
                "{PROGRAMS} --unshare-all --proc /proc --dev /dev --tmpfs /tmp --dir /var/empty --chdir /tmp --new-session --die-with-parent"
            ),
            script,
        );
        assert!(seen.contains("Read-only file system") && seen.ends_with("made\n"), "{seen}");
    }

    #[test]
    fn whole_host_read_only_with_a_writable_folder() {
        let folder = std::env::temp_dir().join(format!("bwrap_subset-{}", process::id()));
        std::fs::create_dir(&folder).unwrap();
        let name = folder.to_str().unwrap();
        let seen = both(
            &format!(
                "--ro-bind / / --dev /dev --proc /proc --tmpfs /tmp --bind {name} {name} --unshare-pid --unshare-net --chdir {name} --setenv A b"
            ),
            "pwd; echo $A; echo text > file; cat file; touch /etc/x 2>&1 | grep -c Read-only; ls /tmp",
        );
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(seen.starts_with(&format!("{name}\nb\ntext\n1\n")), "{seen}");
    }

    #[test]
    fn process_1_reaps_unless_the_command_is_process_1() {
        let script = "echo $$; sh -c '(sleep 0.05; exit 4) & exit 0'; sleep 0.2; cat /proc/[0-9]*/stat | grep -c ' Z '";
        assert!(both(&format!("{PROGRAMS} --unshare-pid --proc /proc"), script).ends_with("\n0\n"));
        let first = both(&format!("{PROGRAMS} --unshare-pid --as-pid-1 --proc /proc"), "echo $$");
        assert_eq!(first, "1\n");
    }

    #[test]
    fn environment_and_ids() {
        let seen = both(
            &format!("{PROGRAMS} --unshare-user --clearenv --setenv PATH /usr/bin --uid 7 --gid 8"),
            "id -u; id -g; env | sort",
        );
        assert!(seen.starts_with("7\n8\n"), "{seen}");
    }

    #[test]
    fn wrong_arguments_are_named() {
        let error =
            |arguments: &[&str]| command_of(arguments.iter().map(|word| (*word).into())).err().unwrap();
        assert_eq!(error(&["--cap-add", "ALL", "true"]), "unknown argument --cap-add");
        assert_eq!(error(&["--bind", "/usr"]), "--bind needs 2 values");
        assert_eq!(
            error(&["--proc", "/proc", "--bind", "/", "/", "sh"]),
            "--bind over / must be the first mount"
        );
        assert_eq!(error(&[]), "the command is missing");
    }
}
