//! Live processes to join, and files that are not namespaces. The processes are killed when this program ends
//! for any reason.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};

use crate::draw::{KINDS, Place};
use crate::{Caller, UserKind};

/// A process in namespaces of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Target {
    /// All eight kinds, created by root, with a large map.
    RootsSandbox,
    /// All kinds but a user namespace, created by root.
    RootsMachine,
    /// All eight kinds, created by root with its own id only, and with setgroups denied.
    RootsDenied,
    /// All eight kinds, created by the ordinary user with its own id only.
    UsersSandbox,
    /// All eight kinds, created by the ordinary user with the mapping tools.
    UsersWideSandbox,
    /// A user namespace without id maps.
    Unmapped,
    /// A network namespace only, created by root.
    ForeignNet,
}

impl Target {
    pub(crate) const ALL: &'static [Self] = &[
        Self::RootsSandbox,
        Self::RootsMachine,
        Self::RootsDenied,
        Self::UsersSandbox,
        Self::UsersWideSandbox,
        Self::Unmapped,
        Self::ForeignNet,
    ];

    fn made_by(self) -> UserKind {
        match self {
            Self::UsersSandbox | Self::UsersWideSandbox => UserKind::User,
            _ => UserKind::Root,
        }
    }

    fn flags(self) -> &'static [&'static str] {
        match self {
            Self::RootsSandbox => &["--all", "--map-users", "0:30000:65536", "--map-groups", "0:30000:65536"],
            Self::RootsMachine => &["-m", "-p", "-n", "-i", "-u", "-C", "-T"],
            Self::RootsDenied => &["--all", "-r", "--setgroups", "deny"],
            Self::UsersSandbox => &["--all"],
            Self::UsersWideSandbox => &["--all", "--map-users", "auto", "--map-groups", "auto"],
            Self::Unmapped => &["-U"],
            Self::ForeignNet => &["-n"],
        }
    }
}

/// The live processes, and the folder with the files.
#[derive(Debug)]
pub(crate) struct Targets {
    live: Vec<(Target, Child, i32)>,
    folder: PathBuf,
}

impl Targets {
    /// Starts the targets that the available users can create.
    ///
    /// # Errors
    /// The reason why a target could not be started.
    pub(crate) fn start(
        bin: &Path,
        folder: &Path,
        root: Option<&Caller>,
        user: Option<&Caller>,
    ) -> Result<Self, String> {
        let mut targets = Self { live: Vec::new(), folder: folder.to_owned() };
        mkfifo(&folder.join("fifo"), Mode::from_bits_truncate(0o666)).map_err(|error| error.to_string())?;
        fs::write(folder.join("file"), "").map_err(|error| error.to_string())?;
        for target in Target::ALL {
            let maker = if target.made_by() == UserKind::Root { root } else { user };
            // If the maker is not available, the target stays a process that does not exist.
            let Some(maker) = maker.filter(|maker| maker.has_tools || *target != Target::UsersWideSandbox)
            else {
                continue;
            };
            let (child, pid) = start(bin, *target, maker).map_err(|error| format!("{target:?}: {error}"))?;
            targets.live.push((*target, child, pid));
        }
        Ok(targets)
    }

    /// Returns the path of the namespace file for a kind and a place.
    pub(crate) fn path(&self, kind: usize, place: Place) -> String {
        let (name, ..) = KINDS[kind];
        let of = |target, name: &str| {
            let found = self.live.iter().find(|(other, ..)| *other == target);
            // Larger than any pid.
            format!("/proc/{}/ns/{name}", found.map_or(i32::MAX, |(.., pid)| *pid))
        };
        let file = |name: &str| self.folder.join(name).display().to_string();
        match place {
            Place::Of(target) => of(target, name),
            Place::OtherKind(target) => of(target, if name == "ipc" { "uts" } else { "ipc" }),
            Place::Own => format!("/proc/self/ns/{name}"),
            Place::Missing => file("nothing"),
            Place::BelowFile => file("file/ns"),
            Place::Fifo => file("fifo"),
            Place::Regular => file("file"),
        }
    }
}

/// Starts a target and waits until it is in its namespaces.
fn start(bin: &Path, target: Target, maker: &Caller) -> std::io::Result<(Child, i32)> {
    const SLEEP: [&str; 3] = ["sh", "-c", "echo on; exec sleep 100000"];
    // Another program, so that the target does not depend on the one under test.
    let mut command = match target {
        Target::Unmapped => Command::new("unshare"),
        _ => Command::new(bin),
    };
    if target != Target::Unmapped {
        command.args(["run", "--kill-child"]);
    }
    command.args(target.flags()).arg("--").args(SLEEP);
    maker.apply_to(&mut command);
    command.stdout(Stdio::piped());
    // SAFETY: one system call, in the child only.
    unsafe {
        command.pre_exec(|| Ok(nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?));
    }
    let mut child = command.spawn()?;
    let mut word = String::new();
    if let Some(out) = child.stdout.take() {
        BufReader::new(out).read_line(&mut word)?;
    }
    let launcher = child.id();
    let children =
        fs::read_to_string(format!("/proc/{launcher}/task/{launcher}/children")).unwrap_or_default();
    let pid = match target {
        // unshare(1) without `-f` has executed the command itself.
        Target::Unmapped => i32::try_from(launcher).ok(),
        // The second child is the guard of --kill-child.
        _ => children.split_whitespace().next().and_then(|pid| pid.parse().ok()),
    };
    match pid.filter(|_| word == "on\n") {
        Some(pid) => Ok((child, pid)),
        None => {
            let _ = child.kill();
            let status = child.wait()?;
            Err(std::io::Error::other(format!("it did not live: {status}")))
        }
    }
}

impl Drop for Targets {
    fn drop(&mut self) {
        for (target, child, pid) in &mut self.live {
            // Kill the command first: its launcher then reaps it and exits.
            if kill(Pid::from_raw(*pid), Signal::SIGKILL).is_err() {
                let _ = writeln!(std::io::stdout(), "{target:?} was gone before its end");
                let _ = child.kill();
            }
            let _ = child.wait();
        }
    }
}
