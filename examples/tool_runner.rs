//! Runs a tool for an agent: `tool_runner FOLDER SECONDS COMMAND [ARGUMENT]...`.
//!
//! The tool sees the files of the host read-only and may write to one folder. It has no network, none of the
//! caller's environment, no capabilities, and empty folders /tmp and /run: the sockets of the host's services
//! are in the latter. After the time limit it is killed with everything that it has started. Its output up to
//! then is returned.

use std::error::Error;
use std::io::{self, Read};
use std::path::Path;
use std::process::ExitStatus;
use std::thread;
use std::time::Duration;

use nsexec::launch::{Command, Stdio};
use nsexec::namespace::NsKind::{Ipc, Mnt, Net, Pid, User};

/// The result of a tool.
#[derive(Debug)]
struct Outcome {
    /// `None`: it was killed after the time limit.
    status: Option<ExitStatus>,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

fn run_tool(
    tool: &str,
    arguments: &[String],
    folder: &Path,
    limit: Duration,
) -> Result<Outcome, Box<dyn Error>> {
    let folder = folder.canonicalize()?;
    let mut command = Command::new(tool);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.env_clear().env("PATH", "/usr/bin:/bin");
    command.unshare([User, Mnt, Pid, Net, Ipc]).map_current_user().capabilities([]).no_new_privs();
    command.new_session().kill_on_drop().kill_with_parent();
    // The order matters: the folder may be in /tmp.
    command.root_read_only("/").proc("/proc").dev("/dev").tmpfs("/run");
    command.tmpfs_with("/tmp", "mode=1777,size=256m");
    command.bind(&folder, &folder).current_dir(&folder);
    let mut child = command.spawn()?;
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let status = child.wait_timeout(limit)?;
    if status.is_none() {
        // The tool is process 1 of its pid namespace: its processes end with it.
        child.kill()?;
        child.wait()?;
    }
    let read = |thread: thread::JoinHandle<_>| thread.join().map_err(|_| "a reader panicked");
    Ok(Outcome { status, stdout: read(stdout)??, stderr: read(stderr)?? })
}

/// Reads a pipe to its end on a thread of its own: the tool may fill one pipe while the other is read.
fn collect(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<io::Result<Vec<u8>>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.map_or(Ok(0), |mut pipe| pipe.read_to_end(&mut bytes))?;
        Ok(bytes)
    })
}

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [folder, seconds, tool, arguments @ ..] = &words[..] else {
        return Err("usage: tool_runner FOLDER SECONDS COMMAND [ARGUMENT]...".into());
    };
    let outcome = run_tool(tool, arguments, Path::new(folder), Duration::from_secs(seconds.parse()?))?;
    print!("{}", String::from_utf8_lossy(&outcome.stdout));
    eprint!("{}", String::from_utf8_lossy(&outcome.stderr));
    match outcome.status {
        Some(status) => println!("{status}"),
        None => println!("killed after {seconds} seconds"),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn in_folder(name: &str, script: &str, limit: Duration) -> Outcome {
        let folder = std::env::temp_dir().join(format!("tool_runner-{}-{name}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let outcome = run_tool("sh", &["-c".into(), script.into()], &folder, limit);
        let made = fs::read_to_string(folder.join("made"));
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(made.unwrap(), "by the tool\n");
        outcome.unwrap()
    }

    #[test]
    fn tool_writes_to_its_folder_only() {
        let script = "echo by the tool > made; echo no > /usr/made || echo refused; ls /tmp/..data 2>&1; \
                      cat /proc/net/dev | tail -n +3 | cut -d: -f1; echo warning >&2; exit 3";
        let outcome = in_folder("writes", script, Duration::from_secs(60));
        let text = String::from_utf8(outcome.stdout).unwrap();
        assert!(text.contains("refused"), "{text}");
        assert_eq!(text.lines().last().unwrap().trim(), "lo", "{text}");
        assert!(outcome.stderr.ends_with(b"warning\n"));
        assert_eq!(outcome.status.unwrap().code(), Some(3));
    }

    #[test]
    fn slow_tool_is_killed_with_its_processes_and_its_output_is_kept() {
        let script = "echo by the tool > made; echo early; sleep 1000 & sleep 1000";
        let outcome = in_folder("slow", script, Duration::from_millis(500));
        assert_eq!(outcome.status, None);
        assert_eq!(outcome.stdout, b"early\n");
    }
}
