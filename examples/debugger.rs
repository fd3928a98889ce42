//! Runs a command in the container of a process: `debugger PID COMMAND [ARGUMENT]...`.
//!
//! The container's own programs are not trusted: the command inherits no descriptor above 2, runs in a new
//! session, and this program runs from a sealed copy of itself, so that the container cannot overwrite its
//! file (CVE-2019-5736).

use std::error::Error;
use std::process::exit;

use nsexec::launch::{Command, exit_code, run_from_sealed_copy};
use nsexec::namespace::NsKind::{Cgroup, Ipc, Mnt, Net, Pid, User, Uts};

/// Returns a command in the namespaces of a process. Later processes with the same number are never joined by
/// mistake: the namespaces are opened here, through a pidfd.
fn in_container(pid: u32, program: &str) -> Command {
    let mut command = Command::new(program);
    command.join_pid(pid, [User, Mnt, Pid, Net, Ipc, Uts, Cgroup]).current_dir("/").new_session();
    command
}

fn main() -> Result<(), Box<dyn Error>> {
    // First, before any thread exists.
    run_from_sealed_copy()?;
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [pid, program, arguments @ ..] = &words[..] else {
        return Err("usage: debugger PID COMMAND [ARGUMENT]...".into());
    };
    exit(exit_code(in_container(pid.parse()?, program).args(arguments).status()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    use nsexec::launch::Stdio;

    #[test]
    fn command_is_in_the_namespaces_of_the_container() {
        let mut container = Command::new("sh");
        container.unshare([User, Mnt, Pid, Net, Ipc, Uts]).map_root().tmpfs("/mnt").proc("/proc");
        container.args(["-c", "touch /mnt/here; echo; exec sleep 1000"]);
        let mut container = container.stdout(Stdio::piped()).kill_on_drop().spawn().unwrap();
        container.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
        let mut command = in_container(container.id(), "sh");
        // The container is this test's own, so its mount namespace is trusted.
        let output = command
            .trust_mount_namespace()
            .args(["-c", "id -u; ls /mnt; cat /proc/1/comm; readlink /proc/self/ns/net"])
            .output()
            .unwrap();
        let link = std::fs::read_link(format!("/proc/{}/ns/net", container.id())).unwrap();
        assert_eq!(
            String::from_utf8(output.stdout).unwrap(),
            format!("0\nhere\nsleep\n{}\n", link.display())
        );
    }

    #[test]
    fn ended_process_is_named() {
        let error = in_container(u32::MAX >> 2, "true").spawn().unwrap_err().to_string();
        assert!(error.contains("1073741823"), "{error}");
    }
}
