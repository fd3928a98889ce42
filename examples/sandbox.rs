//! A sandbox without privileges and without a second program: `sandbox COMMAND [ARGUMENT]...`.
//!
//! The command sees the programs of the host, read-only, and an empty /tmp. It sees no other file, no process
//! and no network of the host, and ends with this program.

use std::error::Error;
use std::process::exit;

use nsexec::launch::{Command, exit_code};
use nsexec::namespace::NsKind::{Cgroup, Ipc, Mnt, Net, Pid, User, Uts};

/// Returns a command in a sandbox, for any user.
fn sandboxed(program: &str) -> Command {
    let mut command = Command::new(program);
    command.unshare([User, Mnt, Pid, Net, Ipc, Uts, Cgroup]).map_current_user();
    command.root_empty().bind_read_only("/usr", "/usr");
    for folder in ["/bin", "/sbin", "/lib", "/lib64"] {
        // Most distributions have links to folders of /usr here, others have folders.
        match std::fs::read_link(folder) {
            Ok(target) => command.symlink(target, folder),
            Err(_) if std::path::Path::new(folder).exists() => command.bind_read_only(folder, folder),
            Err(_) => continue,
        };
    }
    command.proc("/proc").dev("/dev").tmpfs_with("/tmp", "mode=1777").current_dir("/tmp");
    command.env_clear().env("PATH", "/usr/bin:/bin").new_session().kill_with_parent();
    // With capabilities over its mount namespace it could make the mounts writable again.
    command.capabilities([]).no_new_privs();
    command
}

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (program, arguments) = words.split_first().ok_or("usage: sandbox COMMAND [ARGUMENT]...")?;
    exit(exit_code(sandboxed(program).args(arguments).status()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_sees_the_programs_and_nothing_else() {
        let script = "ls /; ls /tmp | wc -l; ls -d /proc/[0-9]*; ls /sys/class/net 2>&1; id -u; \
                      touch /usr/made 2>&1; mount -o remount,bind,rw /usr 2>&1; touch /usr/made 2>&1; true";
        let output = sandboxed("sh").args(["-c", script]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let uid = nix::unistd::geteuid().to_string();
        for line in ["usr", "tmp", "0", "/proc/1", &uid] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
        assert!(!text.lines().any(|line| line == "home" || line == "etc"), "{text}");
        assert!(text.contains("Read-only file system"), "{text}");
    }
}
