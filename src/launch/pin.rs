//! Pinned namespaces: namespaces without a process, each mounted on a file of a directory.
//!
//! A pin is a launch whose process ends in place of its exec. The launch script creates and configures the
//! namespaces, and mounts them on their files ([`persist`](super::persist)), so a plan and a record show it.
//! This module creates the files before the launch, and removes mounts and files.

use std::ffi::CString;
use std::format;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::string::{String, ToString};

use nix::errno::Errno as NixErrno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::mount::{MntFlags, umount2};
use nix::sys::stat::{Mode, SFlag, fstatat};
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::error::LaunchError;
use super::query::without_mounts;
use super::setting::SettingError;
use super::strings::NulTerminated;
use super::surroundings::Persistent;
use super::{Command, Launcher, Prepared};
use crate::deciders::bootstrap::decode;
use crate::deciders::namespace::{NsKind, NsSet};
use crate::sys::Sys;
use crate::sys::linux::LinuxSys;
use crate::sys::types::Errno;

/// The name that a plan shows, since a pin has no command.
const NO_COMMAND: &str = "(no command)";

/// Namespaces that are mounted on the files of a directory. They stay after the end of this program, until
/// they are [released](release()).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pinned {
    directory: PathBuf,
    kinds: NsSet,
}

impl Pinned {
    /// The directory with the files, as an absolute path.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The kinds of the namespaces.
    #[must_use]
    pub const fn kinds(&self) -> NsSet {
        self.kinds
    }

    /// The file of the namespace of this kind, for [`Command::join`]: the name is that in /proc/PID/ns, as
    /// `net` or `mnt`. `None`: no namespace of this kind was pinned.
    #[must_use]
    pub fn file(&self, kind: NsKind) -> Option<PathBuf> {
        self.kinds.contains(kind).then(|| self.directory.join(kind.proc_name()))
    }

    /// Unmounts the namespaces, and removes their files and the directory: see [`release()`].
    ///
    /// # Errors
    /// Those of [`release()`].
    pub fn release(self) -> io::Result<Released> {
        release(self.directory)
    }
}

/// The result of [`release()`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Released {
    /// The kinds of the namespaces that were unmounted.
    pub kinds: NsSet,
    /// Whether the directory was removed. Otherwise it has other files, or is in use.
    pub removed: bool,
}

impl Launcher {
    /// Creates the namespaces without a process, and mounts each on a file of `directory`, which keeps it
    /// (namespaces(7)). The name of a file is the kind's in /proc/PID/ns: `user`, `mnt`, `net`, `ipc`, `uts`,
    /// `cgroup`, `time`. The directory is created if it does not exist. It must belong to the caller: another
    /// owner could exchange the files.
    ///
    /// The launch is one through the stages, whose last process ends in place of an exec. It ends when all is
    /// done that configures the namespaces: the maps, the clock offsets, the host name, the mounts, the
    /// loopback interface. Settings of a command have no effect, nor has the command itself.
    ///
    /// The mount needs CAP_SYS_ADMIN in the user namespace that owns the caller's mount namespace, and Linux
    /// 5.6. So an ordinary user first needs a user and a mount namespace of its own. A mount namespace can
    /// be mounted only below a mount whose propagation is private (mount_namespaces(7)).
    ///
    /// # Errors
    /// The reason of the failure. No process, mount, file and directory of the pin is left.
    /// [`SettingError::Conflict`]: a pid namespace, which ends with its process 1 (pid_namespaces(7)); a
    /// namespace to join; code of the caller. [`SettingError::File`]: the directory or a file cannot be
    /// created, or the file exists.
    pub fn pin(&mut self, directory: impl AsRef<Path>) -> Result<Pinned, LaunchError> {
        self.pin_through(directory, |sys| sys)
    }

    /// Does the same as [`pin`](Self::pin), but makes every system call of the launch through the backend
    /// that `wrap` returns: see [`spawn_through`](Self::spawn_through).
    ///
    /// # Errors
    /// Those of [`pin`](Self::pin).
    pub fn pin_through<S: Sys>(
        &mut self,
        directory: impl AsRef<Path>,
        wrap: impl FnOnce(LinuxSys) -> S,
    ) -> Result<Pinned, LaunchError> {
        let directory = directory.as_ref();
        let mut prepared = self.prepare_pin(directory)?;
        let pinned = Pinned { directory: absolute(directory)?, kinds: self.pinned_kinds()? };
        let files = Files::create(&pinned)?;
        self.spawn_with(&mut prepared, None, wrap, |_| None)?;
        files.keep();
        Ok(pinned)
    }

    /// Prepares the launch of [`pin`](Self::pin), without effects. A plan runs the result on a simulated
    /// kernel.
    ///
    /// # Errors
    /// Those of [`pin`](Self::pin) that are found before the first file is created.
    pub fn prepare_pin(&self, directory: impl AsRef<Path>) -> Result<Prepared, LaunchError> {
        let directory = absolute(directory.as_ref())?;
        let kinds = self.pinned_kinds()?;
        let mut launcher = self.clone();
        launcher.command.words = [NO_COMMAND.into()].into();
        launcher.command.clear_env();
        launcher.policy.launch.stages = true;
        launcher.policy.launch.pins = true;
        let file = |kind: NsKind| {
            let file = directory.join(kind.proc_name());
            let file = CString::new(file.as_os_str().as_bytes());
            let file = file.map_err(|_| SettingError::Nul { setting: "pin" })?;
            let kind = CString::new(kind.proc_name()).map_err(|_| SettingError::Nul { setting: "pin" })?;
            Ok(Persistent { kind, file })
        };
        launcher.around.persistent = kinds.iter().map(file).collect::<Result<_, SettingError>>()?;
        let mut prepared = launcher.prepare()?;
        prepared.texts.candidates = NulTerminated::default();
        Ok(prepared)
    }

    /// Checks the settings, and returns the kinds to pin.
    fn pinned_kinds(&self) -> Result<NsSet, SettingError> {
        let kinds = NsSet::from_flags(self.asked);
        let joins =
            decode(&self.message, self.policy.dialect).is_ok_and(|(asked, _)| asked.namespaces().is_some());
        for (set, setting, why) in [
            (
                kinds.contains(NsKind::Pid),
                "a pid namespace",
                "it ends with its process 1 (pid_namespaces(7))",
            ),
            (joins, "join", "only new namespaces are pinned"),
            (self.policy.launch.init, "init", "no process is left"),
            (self.around.hooks() > 0, "pre_exec", "no command is executed"),
            (kinds.is_empty(), "no namespace", "name at least one kind"),
        ] {
            if set {
                return Err(SettingError::Conflict { settings: ["pin", setting], why });
            }
        }
        Ok(kinds)
    }
}

impl Command {
    /// Creates the namespaces of this command without a process, and mounts each on a file of `directory`:
    /// see [`Launcher::pin`]. The command itself is not executed, and its name does not matter.
    ///
    /// ```
    /// use nsexec::launch::Command;
    /// use nsexec::namespace::NsKind;
    ///
    /// # let directory = std::env::temp_dir().join(format!("nsexec-pin-example-{}", std::process::id()));
    /// let mut namespaces = Command::new("");
    /// namespaces.unshare([NsKind::User, NsKind::Net]).map_auto();
    /// // An ordinary user may not mount here (EPERM).
    /// # let allowed = nix::unistd::geteuid().is_root();
    /// match namespaces.pin(&directory) {
    ///     Ok(pinned) => {
    ///         let (user, net) = (pinned.file(NsKind::User), pinned.file(NsKind::Net));
    ///         let mut command = Command::new("true");
    ///         command.join(NsKind::User, user.unwrap()).join(NsKind::Net, net.unwrap());
    ///         let status = command.status()?;
    ///         pinned.release()?;
    ///         assert!(status.success());
    ///     }
    ///     Err(error) => eprintln!("{error}"),
    /// }
    /// assert!(!directory.exists());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`Launcher::pin`]; a function of [`before_start`](Self::before_start) is refused.
    pub fn pin(&self, directory: impl AsRef<Path>) -> Result<Pinned, LaunchError> {
        self.launcher_of_pin()?.pin(directory)
    }

    /// Prepares the launch of [`pin`](Self::pin), without effects. A plan runs the result on a simulated
    /// kernel.
    ///
    /// # Errors
    /// Those of [`Launcher::prepare_pin`].
    pub fn prepare_pin(&self, directory: impl AsRef<Path>) -> Result<Prepared, LaunchError> {
        self.launcher_of_pin()?.prepare_pin(directory)
    }

    fn launcher_of_pin(&self) -> Result<Launcher, LaunchError> {
        if self.before_start.is_some() {
            let why = "no command is started";
            return Err(SettingError::Conflict { settings: ["pin", "before_start"], why }.into());
        }
        self.launcher()
    }
}

/// Unmounts the namespaces that [`Launcher::pin`] has mounted on the files of this directory, and removes
/// these files. Removes the directory too if it is empty then. A process in a namespace stays there.
///
/// Leaves everything else: a file with a name of a kind is unmounted and removed only if it is empty, and has
/// no permissions, as those of a pin. A directory that does not exist has nothing to release. The same path
/// can be pinned again afterwards.
///
/// # Errors
/// The text names the object. `EPERM`: the caller may not unmount here (umount(2)). The namespaces before
/// that object, in the order of the kinds, are released.
pub fn release(directory: impl AsRef<Path>) -> io::Result<Released> {
    let directory = directory.as_ref();
    let kinds = match release_files(directory, NsSet::ALL) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => NsSet::EMPTY,
        kinds => kinds?,
    };
    // Fails if it is not empty.
    let removed = fs::remove_dir(directory).is_ok();
    Ok(Released { kinds, removed })
}

/// The files of a pin. Dropped before [`keep`](Self::keep), they are removed again, with the mounts on them.
struct Files<'p> {
    directory: &'p Path,
    /// The kinds whose files were created.
    created: NsSet,
    /// Whether the directory was created.
    created_directory: bool,
    kept: bool,
}

impl<'p> Files<'p> {
    fn create(pinned: &'p Pinned) -> Result<Self, SettingError> {
        let directory = &*pinned.directory;
        let failed = |path: &Path, doing, error: &io::Error| SettingError::File {
            doing,
            path: path.into(),
            why: in_words(error),
        };
        let created_directory = match DirBuilder::new().mode(0o755).create(directory) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && directory.is_dir() => false,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(failed(directory, "create the directory", &NixErrno::ENOTDIR.into()));
            }
            Err(error) => return Err(failed(directory, "create the directory", &error)),
        };
        let mut files = Self { directory, created: NsSet::EMPTY, created_directory, kept: false };
        for kind in pinned.kinds.iter() {
            let path = directory.join(kind.proc_name());
            match OpenOptions::new().write(true).create_new(true).mode(0o000).open(&path) {
                Ok(_) => files.created.insert(kind),
                Err(error) => return Err(failed(&path, "create the file", &error)),
            };
        }
        Ok(files)
    }

    /// Leaves the files and the mounts on them.
    fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Files<'_> {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        // The failure of the pin is reported, and not one of its cleanup.
        let _ = release_files(self.directory, self.created);
        if self.created_directory {
            let _ = fs::remove_dir(self.directory);
        }
    }
}

/// Unmounts these kinds of namespaces from the files of the directory, and removes the files. Returns the
/// kinds that were unmounted.
fn release_files(directory: &Path, kinds: NsSet) -> io::Result<NsSet> {
    let opened = OpenOptions::new().read(true).custom_flags(OFlag::O_DIRECTORY.bits()).open(directory);
    let opened = opened.map_err(|error| named(directory, &error))?;
    let mut released = NsSet::EMPTY;
    for kind in kinds.iter() {
        let path = directory.join(kind.proc_name());
        if unmount(&opened, kind.proc_name()).map_err(|errno| named(&path, &errno.into()))? {
            released.insert(kind);
        }
        remove(&opened, kind.proc_name()).map_err(|errno| named(&path, &errno.into()))?;
    }
    Ok(released)
}

/// Unmounts the namespaces that are mounted on this file of the directory, one over the other. Returns
/// whether there was one. Leaves a namespace on a file that no pin has created, such as that of
/// `unshare --net=FILE`.
///
/// The path goes through the open directory: its name may lead to another directory meanwhile.
fn unmount(directory: &File, name: &str) -> Result<bool, NixErrno> {
    let mut found = false;
    loop {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = match openat(directory, name, flags, Mode::empty()) {
            Ok(file) => file,
            Err(NixErrno::ENOENT) => return Ok(found),
            Err(errno) => return Err(errno),
        };
        let is_namespace = fstatfs(&file)?.filesystem_type() == NSFS_MAGIC;
        drop(file);
        if !is_namespace || (!found && is_foreign(directory, name)) {
            return Ok(found);
        }
        let path = format!("/proc/self/fd/{}/{name}", directory.as_raw_fd());
        umount2(&*path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)?;
        found = true;
    }
}

/// Returns whether the file below the mounts on this file is known to be one that no pin has created. If the
/// file cannot be seen, the result is false, and the unmount decides.
fn is_foreign(directory: &File, name: &str) -> bool {
    without_mounts(directory).is_some_and(|below| is_of_pin(below, name) == Ok(false))
}

/// Returns whether this file of the directory is one that a pin has created.
fn is_of_pin(directory: impl AsFd, name: &str) -> Result<bool, NixErrno> {
    let found = fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    Ok(found.st_mode == SFlag::S_IFREG.bits() && found.st_size == 0)
}

/// Removes this file of the directory if it is one that a pin has created.
fn remove(directory: &File, name: &str) -> Result<(), NixErrno> {
    match is_of_pin(directory, name) {
        Ok(true) => unlinkat(directory, name, UnlinkatFlags::NoRemoveDir),
        Ok(false) | Err(NixErrno::ENOENT) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Returns the error with the path in its text.
fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("failed to release {}: {}", path.display(), in_words(error)))
}

fn absolute(path: &Path) -> Result<PathBuf, SettingError> {
    std::path::absolute(path).map_err(|error| SettingError::File {
        doing: "pin namespaces in",
        path: path.into(),
        why: in_words(&error),
    })
}

/// Returns the errno in words.
fn in_words(error: &io::Error) -> String {
    error.raw_os_error().map_or_else(|| error.to_string(), |number| Errno(number).to_string())
}
