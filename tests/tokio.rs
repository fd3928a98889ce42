//! Commands in an asynchronous program: `nsexec::launch::tokio`.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use nsexec::launch::tokio::Command;
use nsexec::launch::{self, LaunchError, Stdio};
use nsexec::namespace::NsKind::{Mnt, Net, Pid, User};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::{Builder, Runtime};
use tokio::time::{sleep, timeout};

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn sh(script: &str) -> Command {
    let mut command = launch::Command::new("sh");
    command.args(["-c", script]).unshare([User, Net, Pid, Mnt]).map_root();
    command.into()
}

#[test]
fn output_has_both_streams_and_the_status() {
    // More than a pipe holds, in both streams.
    let script = "head -c 300000 /dev/zero; head -c 200000 /dev/zero >&2; exit 3";
    let output = runtime().block_on(sh(script).output()).unwrap();
    assert_eq!((output.stdout.len(), output.stderr.len()), (300_000, 200_000));
    assert_eq!(output.status.code(), Some(3));
}

#[test]
fn streams_are_asynchronous_pipes() {
    runtime().block_on(async {
        let mut command = sh("read line; echo got $line; cat");
        command.settings().stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().await.unwrap();
        let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        stdin.write_all(b"first\n").await.unwrap();
        let mut answer = [0; 10];
        stdout.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"got first\n");
        stdin.write_all(b"rest").await.unwrap();
        drop(stdin);
        let mut rest = Vec::new();
        stdout.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"rest");
        assert!(child.wait().await.unwrap().success());
    });
}

/// A new folder, which is removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("nsexec-tokio-{}-{name}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

#[test]
fn commands_run_at_the_same_time_on_two_threads() {
    const COUNT: usize = 30;
    let folder = Folder::new("together");
    let name = folder.0.to_str().unwrap();
    // Each command waits for all others.
    let script = |number| {
        format!(
            "touch {name}/{number}; until [ $(ls {name} | wc -l) = {COUNT} ]; do sleep 0.05; done; echo {number}"
        )
    };
    let outputs = runtime().block_on(async {
        let one = |number: usize| {
            let mut command = sh(&script(number));
            async move { command.output().await }
        };
        let tasks: Vec<_> = (0..COUNT).map(|number| tokio::spawn(one(number))).collect();
        let mut outputs = Vec::new();
        for task in tasks {
            outputs.push(task.await.unwrap().unwrap().stdout);
        }
        outputs
    });
    let wanted: Vec<_> = (0..COUNT).map(|number| format!("{number}\n").into_bytes()).collect();
    assert_eq!(outputs, wanted);
}

#[test]
fn wait_can_be_given_up_and_repeated() {
    runtime().block_on(async {
        let mut child = sh("exec sleep 1000").spawn().await.unwrap();
        assert!(timeout(Duration::from_millis(50), child.wait()).await.is_err());
        let status = child.kill().await.unwrap();
        assert_eq!(launch::exit_code(status), 137);
        assert_eq!(child.wait().await.unwrap(), status);
    });
}

/// Returns whether the process still exists, other than as a zombie of this process.
fn runs(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn command_ends_with_the_future_of_its_output() {
    let folder = Folder::new("dropped");
    let started = folder.0.join("started");
    let mut command = launch::Command::new("sh");
    command.args(["-c", "echo $$ > $1; exec sleep 1000", "sh"]).arg(&started);
    let pid = runtime().block_on(async {
        let output = tokio::spawn(async { Command::from(command).output().await });
        let pid = loop {
            match fs::read_to_string(&started) {
                Ok(pid) if pid.ends_with('\n') => break pid.trim().parse().unwrap(),
                _ => sleep(Duration::from_millis(5)).await,
            }
        };
        output.abort();
        assert!(output.await.unwrap_err().is_cancelled());
        pid
    });
    assert!(!runs(pid));
}

#[test]
fn failed_launch_is_the_same_error() {
    let mut command = Command::from(launch::Command::new("/no/such/program"));
    let error = runtime().block_on(command.spawn()).unwrap_err();
    assert!(matches!(error, LaunchError::Exec { .. }), "{error:?}");
    let mut command = launch::Command::new("true");
    command.bind("/usr", "/mnt");
    let error = runtime().block_on(Command::from(command).spawn()).unwrap_err();
    assert!(matches!(error, LaunchError::Setting(_)), "{error:?}");
}
