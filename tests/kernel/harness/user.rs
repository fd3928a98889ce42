//! The ordinary user `nsexec-test`: made once for all who test at the same time, removed by the last of them.

use std::fs::{File, OpenOptions};
use std::path::Path;
use std::process::Command;

use nix::fcntl::{Flock, FlockArg};
use nix::unistd::{User, geteuid, getgid, getuid};

const NAME: &str = "nsexec-test";
/// By this we know that the user is ours to remove.
const COMMENT: &str = "made by the tests of nsexec";
/// Five digits each: then 340 lines of a map fit into one write.
const SUBORDINATE: &str = "30000-95535";
/// Held, shared, by everybody who uses the user.
const USED: &str = "/run/nsexec-test.used";
/// Held for a moment, by whoever makes or removes it.
const MUTEX: &str = "/run/nsexec-test.mutex";

/// A user without privileges.
#[derive(Debug)]
pub(crate) struct Ordinary {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    used: Option<Flock<File>>,
}

impl Ordinary {
    /// The user, or the reason why there is none. Whoever is not root is an ordinary user.
    pub(crate) fn provide() -> Result<Self, String> {
        if !geteuid().is_root() {
            return Ok(Self { uid: getuid().as_raw(), gid: getgid().as_raw(), used: None });
        }
        let _mutex = lock(MUTEX, FlockArg::LockExclusive)?;
        let used = lock(USED, FlockArg::LockShared)?;
        if find().is_none() {
            let ids = format!("--add-subuids {SUBORDINATE} --add-subgids {SUBORDINATE}");
            let none =
                "--no-create-home --home-dir /nonexistent --user-group -K SUB_UID_COUNT=0 -K SUB_GID_COUNT=0";
            tool("useradd", none.split(' ').chain(["--comment", COMMENT, NAME]))?;
            tool("usermod", ids.split(' ').chain([NAME]))?;
        }
        let user = find().ok_or("useradd made no user")?;
        Ok(Self { uid: user.uid.as_raw(), gid: user.gid.as_raw(), used: Some(used) })
    }
}

impl Drop for Ordinary {
    fn drop(&mut self) {
        let Some(used) = self.used.take() else { return };
        let Ok(_mutex) = lock(MUTEX, FlockArg::LockExclusive) else { return };
        drop(used);
        let last = lock(USED, FlockArg::LockExclusiveNonblock).is_ok();
        let ours = find().is_some_and(|user| user.gecos.to_string_lossy() == COMMENT);
        if last && ours {
            tool("userdel", [NAME].into_iter()).unwrap_or_else(|error| println!("{error}"));
        }
    }
}

fn find() -> Option<User> {
    User::from_name(NAME).ok().flatten()
}

fn lock(path: &str, how: FlockArg) -> Result<Flock<File>, String> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(Path::new(path));
    let file = file.map_err(|error| format!("{path}: {error}"))?;
    Flock::lock(file, how).map_err(|(_, error)| format!("{path}: {error}"))
}

fn tool<'a>(name: &str, args: impl Iterator<Item = &'a str>) -> Result<(), String> {
    let output = Command::new(name).args(args).output().map_err(|error| format!("{name}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("{name}: {}: {}", output.status, said.trim())) }
}
