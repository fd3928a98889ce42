//! The ordinary user `nsexec-test`: created once for all test runs at the same time, and removed by the last
//! of them.
//!
//! The suite in tests/protocol uses the same user and the same lock. A user of the account holds LOCK shared;
//! a run that creates or removes the account holds LOCK exclusively. The file MADE marks the account as
//! created by a test run, so that it may be removed.

use std::fs::{self, File, OpenOptions};
use std::process::Command;

use nix::fcntl::{Flock, FlockArg};
use nix::unistd::{User, geteuid, getgid, getuid};

const LOCK: &str = "/run/nsexec-test.lock";
const MADE: &str = "/run/nsexec-test.made";
const NAME: &str = "nsexec-test";
/// All ids have five digits, so that a map of 340 lines fits into one write.
const SUBORDINATE: &str = "30000-95535";

/// A user without privileges.
#[derive(Debug)]
pub struct Ordinary {
    pub uid: u32,
    pub gid: u32,
    used: Option<Flock<File>>,
}

impl Ordinary {
    /// Returns the user, or the reason why it cannot be had. Without root, the caller itself is the ordinary
    /// user.
    pub fn provide() -> Result<Self, String> {
        if !geteuid().is_root() {
            return Ok(Self { uid: getuid().as_raw(), gid: getgid().as_raw(), used: None });
        }
        let used = lock(FlockArg::LockShared)?;
        // cargo-nextest starts a process for each test, and these must not wait for each other.
        if let (Some(user), true) = (find(), has_subordinate_ids()) {
            return Ok(Self { uid: user.uid.as_raw(), gid: user.gid.as_raw(), used: Some(used) });
        }
        drop(used);
        let used = lock(FlockArg::LockExclusive)?;
        if find().is_none() {
            let new = "--system --no-create-home --home-dir /nonexistent --shell /bin/sh --user-group";
            tool("useradd", new)?;
            fs::write(MADE, "user\n").map_err(|error| format!("{MADE}: {error}"))?;
        }
        // An account without subordinate ids was left by a killed run, so it is removed as well.
        if !has_subordinate_ids() {
            fs::write(MADE, "user\n").map_err(|error| format!("{MADE}: {error}"))?;
            tool("usermod", &format!("--add-subuids {SUBORDINATE} --add-subgids {SUBORDINATE}"))?;
        }
        used.relock(FlockArg::LockShared).map_err(|error| format!("{LOCK}: {error}"))?;
        let user = find().ok_or("useradd made no user")?;
        Ok(Self { uid: user.uid.as_raw(), gid: user.gid.as_raw(), used: Some(used) })
    }
}

impl Drop for Ordinary {
    fn drop(&mut self) {
        let Some(used) = self.used.take() else { return };
        // Another run still uses the account, and will remove it.
        if used.relock(FlockArg::LockExclusiveNonblock).is_err() {
            return;
        }
        if fs::read_to_string(MADE).is_ok_and(|made| made.split_whitespace().any(|word| word == "user")) {
            // Also removes the user's lines in /etc/subuid and /etc/subgid.
            let gone =
                tool("userdel", "").and_then(|()| fs::remove_file(MADE).map_err(|error| error.to_string()));
            gone.unwrap_or_else(|error| println!("the user {NAME} is left: {error}"));
        }
    }
}

fn find() -> Option<User> {
    User::from_name(NAME).ok().flatten()
}

fn has_subordinate_ids() -> bool {
    ["/etc/subuid", "/etc/subgid"].iter().all(|file| {
        let text = fs::read_to_string(file).unwrap_or_default();
        text.lines().any(|line| line.starts_with(&format!("{NAME}:")))
    })
}

fn lock(how: FlockArg) -> Result<Flock<File>, String> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(LOCK);
    let file = file.map_err(|error| format!("{LOCK}: {error}"))?;
    Flock::lock(file, how).map_err(|(_, error)| format!("{LOCK}: {error}"))
}

fn tool(name: &str, args: &str) -> Result<(), String> {
    let output = Command::new(name).args(args.split_whitespace()).arg(NAME).output();
    let output = output.map_err(|error| format!("{name}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("{name}: {}: {}", output.status, said.trim())) }
}
