//! Live processes to join, and files that are no namespaces. They die with this program, however it ends.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};

use crate::draw::{KINDS, Place};
use crate::{As, Who};

/// Who lives there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Target {
    /// All eight kinds, made by root, with a wide map.
    RootsSandbox,
    /// All but a user namespace, made by root.
    RootsMachine,
    /// All eight, made by root for itself, with setgroups denied.
    RootsDenied,
    /// All eight, made by the ordinary user for itself alone.
    UsersSandbox,
    /// All eight, made by the ordinary user through the mapping tools.
    UsersWideSandbox,
    /// A user namespace whose maps nobody has written.
    Unmapped,
    /// A network namespace alone, root's.
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

    fn made_by(self) -> Who {
        match self {
            Self::UsersSandbox | Self::UsersWideSandbox => Who::User,
            _ => Who::Root,
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

/// The processes, and the files.
#[derive(Debug)]
pub(crate) struct Targets {
    live: Vec<(Target, Child, i32)>,
    folder: PathBuf,
}

impl Targets {
    /// Starts those that the users that there are can make.
    ///
    /// # Errors
    /// What kept one from living.
    pub(crate) fn start(
        bin: &Path,
        folder: &Path,
        root: Option<&As>,
        user: Option<&As>,
    ) -> Result<Self, String> {
        let mut targets = Self { live: Vec::new(), folder: folder.to_owned() };
        mkfifo(&folder.join("fifo"), Mode::from_bits_truncate(0o666)).map_err(|error| error.to_string())?;
        fs::write(folder.join("file"), "").map_err(|error| error.to_string())?;
        for target in Target::ALL {
            let maker = if target.made_by() == Who::Root { root } else { user };
            // Without its maker it stays a process that is not there.
            let Some(maker) = maker.filter(|maker| maker.has_tools || *target != Target::UsersWideSandbox)
            else {
                continue;
            };
            let (child, pid) = start(bin, *target, maker).map_err(|error| format!("{target:?}: {error}"))?;
            targets.live.push((*target, child, pid));
        }
        Ok(targets)
    }

    /// The file that stands for a kind at a place.
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

/// Starts one and waits until it is where it shall be.
fn start(bin: &Path, target: Target, maker: &As) -> std::io::Result<(Child, i32)> {
    const SLEEP: [&str; 3] = ["sh", "-c", "echo on; exec sleep 100000"];
    // The program itself makes no user namespace without a map.
    let mut command = match target {
        Target::Unmapped => Command::new("unshare"),
        _ => Command::new(bin),
    };
    if target != Target::Unmapped {
        command.args(["run", "--kill-child"]);
    }
    command.args(target.flags()).arg("--").args(SLEEP);
    maker.put_on(&mut command);
    command.stdout(Stdio::piped());
    // SAFETY: one system call, in the child alone.
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
        // unshare(1) without -f has become the command.
        Target::Unmapped => i32::try_from(launcher).ok(),
        _ => children.trim().parse().ok(),
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
            // The command first: its launcher then reaps it, and says so by ending.
            if kill(Pid::from_raw(*pid), Signal::SIGKILL).is_err() {
                let _ = writeln!(std::io::stdout(), "{target:?} was gone before its end");
                let _ = child.kill();
            }
            let _ = child.wait();
        }
    }
}
