//! The settings of a [`Command`] for its root directory and its mounts.
//!
//! They need a new mount namespace, or a joined one. The steps below the root directory are taken in the
//! order in which they were set. The paths of sources are those of the caller's tree, before any step.
//!
//! The mounts belong to the command's mount namespace. A command with CAP_SYS_ADMIN over that namespace can
//! undo them: it can make a mount writable, or unmount what covers a folder. In a new user namespace that is
//! a command with user id 0 there, unless [`Command::capabilities`] takes the capability away.

use std::ffi::{CString, OsStr};
use std::format;
use std::os::unix::ffi::OsStrExt;
use std::path::{self, Path};
use std::vec::Vec;

use super::command::Command;
use super::root::BINDS_MAX;
use super::setting::SettingError;
use super::strings::c_string;
use super::surroundings::{Base, MountStep, Place, Root};
use crate::deciders::namespace::NsKind;
use crate::sys::types::{MountAttributes, MountKind, Propagation};

/// The length from which on mount(2) cuts the options, in bytes: a page, with the NUL.
const OPTIONS_MAX: usize = 4095;

/// The attributes of an ordinary mount of the caller: no file there gives privileges, and none is a device.
const ORDINARY: u64 = MountAttributes::NOSUID | MountAttributes::NODEV;

impl Command {
    /// Makes a directory of the caller the root directory of the command, with the mounts below it
    /// (pivot_root(2)). No mount of the old root is left. Set-user-id bits have no effect there, and device
    /// files cannot be opened. Needs Linux 5.12, as do the binds; the other settings for mounts need 5.6.
    ///
    /// The command begins in / of its tree if it has mounts or a root directory, unless
    /// [`current_dir`](Self::current_dir) is set. Created mount points and directories stay in the caller's
    /// directory.
    pub fn root(&mut self, directory: impl AsRef<Path>) -> &mut Self {
        self.set_root(directory.as_ref(), ORDINARY)
    }

    /// Makes a directory of the caller the root directory of the command, read-only with all mounts below it
    /// (mount_setattr(2), Linux 5.12). Mount points that do not exist cannot be created there. Take the
    /// capabilities of the command away ([`capabilities`](Self::capabilities)): with CAP_SYS_ADMIN over its
    /// mount namespace it can make the mounts writable.
    pub fn root_read_only(&mut self, directory: impl AsRef<Path>) -> &mut Self {
        self.set_root(directory.as_ref(), ORDINARY | MountAttributes::RDONLY)
    }

    fn set_root(&mut self, directory: &Path, set: u64) -> &mut Self {
        if let Some(path) = self.source("root", directory) {
            let attributes = MountAttributes { set, clear: 0 };
            self.root_mut().base = Base::Directory { path, attributes };
        }
        self
    }

    /// Makes an empty file system in memory the root directory of the command. Directories for mounts are
    /// created in it.
    pub fn root_empty(&mut self) -> &mut Self {
        self.root_mut().base = Base::Memory;
        self
    }

    /// Makes a writable layer over directories the root directory of the command: the overlay file system,
    /// with the uppermost of the `lower` directories first. What the command changes is in `upper`; `work` is
    /// an empty directory of the same file system. For an ordinary user this needs Linux 5.11.
    pub fn root_overlay<P: AsRef<Path>>(
        &mut self,
        lower: impl IntoIterator<Item = P>,
        upper: impl AsRef<Path>,
        work: impl AsRef<Path>,
    ) -> &mut Self {
        let mut options = Vec::from(*b"lowerdir=");
        for (number, directory) in lower.into_iter().enumerate() {
            if number > 0 {
                options.push(b':');
            }
            self.add_option(&mut options, directory.as_ref());
        }
        options.extend(b",upperdir=");
        self.add_option(&mut options, upper.as_ref());
        options.extend(b",workdir=");
        self.add_option(&mut options, work.as_ref());
        match CString::new(options) {
            Ok(options) if options.count_bytes() < OPTIONS_MAX => {
                self.root_mut().base = Base::Overlay { options };
            }
            Ok(_) => self.note(too_long("root_overlay")),
            Err(_) => self.note(SettingError::Nul { setting: "root_overlay" }),
        }
        self
    }

    /// Adds a path to the options of the overlay file system, in which a colon and a comma separate.
    fn add_option(&mut self, options: &mut Vec<u8>, directory: &Path) {
        let Some(path) = self.source("root_overlay", directory) else { return };
        for byte in path.to_bytes() {
            if matches!(byte, b':' | b',' | b'\\') {
                options.push(b'\\');
            }
            options.push(*byte);
        }
    }

    /// Changes the root directory by chroot(2) in place of pivot_root(2). The old root stays mounted, and a
    /// process with CAP_SYS_CHROOT can return to it. For a machine whose root is the initial ramfs, which
    /// pivot_root(2) refuses.
    pub fn chroot_in_place_of_pivot(&mut self) -> &mut Self {
        self.root_mut().by_chroot = true;
        self
    }

    /// Mounts a file or directory of the caller on a path of the command, with all mounts below it.
    /// Set-user-id bits have no effect there, and device files cannot be opened.
    ///
    /// A mount point that does not exist is created. The path is that below the root directory of the
    /// command: neither `..` nor a symbolic link leads out of it.
    pub fn bind(&mut self, source: impl AsRef<Path>, target: impl AsRef<Path>) -> &mut Self {
        self.add_bind(source.as_ref(), target.as_ref(), ORDINARY)
    }

    /// Mounts a file or directory of the caller as [`bind`](Self::bind) does, read-only with all mounts below
    /// it. Needs Linux 5.12.
    pub fn bind_read_only(&mut self, source: impl AsRef<Path>, target: impl AsRef<Path>) -> &mut Self {
        self.add_bind(source.as_ref(), target.as_ref(), ORDINARY | MountAttributes::RDONLY)
    }

    /// Mounts a file or directory of the caller with its attributes unchanged: device files can be opened.
    pub fn bind_devices(&mut self, source: impl AsRef<Path>, target: impl AsRef<Path>) -> &mut Self {
        self.add_bind(source.as_ref(), target.as_ref(), 0)
    }

    fn add_bind(&mut self, source: &Path, target: &Path, set: u64) -> &mut Self {
        if let (Some(source), Some(point)) = (self.source("bind", source), self.place(target)) {
            let attributes = MountAttributes { set, clear: 0 };
            self.add_step(MountStep::Bind { source, point, attributes, recursive: true });
        }
        self
    }

    /// Mounts an empty file system in memory.
    pub fn tmpfs(&mut self, target: impl AsRef<Path>) -> &mut Self {
        self.tmpfs_with(target, "mode=755")
    }

    /// Mounts an empty file system in memory with these options (tmpfs(5)): `size=64m,mode=1777`.
    pub fn tmpfs_with(&mut self, target: impl AsRef<Path>, options: impl AsRef<OsStr>) -> &mut Self {
        match c_string(options.as_ref()) {
            Some(options) if options.count_bytes() < OPTIONS_MAX => {
                self.add_new(MountKind::Tmpfs, options, target.as_ref());
            }
            Some(_) => self.note(too_long("tmpfs_with")),
            None => self.note(SettingError::Nul { setting: "tmpfs_with" }),
        }
        self
    }

    /// Mounts a new /proc, of the command's pid namespace.
    pub fn proc(&mut self, target: impl AsRef<Path>) -> &mut Self {
        self.add_new(MountKind::Proc, CString::default(), target.as_ref());
        self
    }

    /// Mounts a new /sys, read-only, of the command's network namespace. In a user namespace the network
    /// namespace must be new too.
    pub fn sys(&mut self, target: impl AsRef<Path>) -> &mut Self {
        self.add_new(MountKind::Sysfs, CString::default(), target.as_ref());
        self
    }

    /// Mounts the POSIX message queues of the command's ipc namespace (mq_overview(7)).
    pub fn mqueue(&mut self, target: impl AsRef<Path>) -> &mut Self {
        self.add_new(MountKind::Mqueue, CString::default(), target.as_ref());
        self
    }

    /// Mounts a minimal /dev: null, zero, full, random, urandom and tty of the caller, new pseudo-terminals
    /// in pts, an empty shm, and the usual links.
    pub fn dev(&mut self, target: impl AsRef<Path>) -> &mut Self {
        if let Some(point) = self.place(target.as_ref()) {
            self.add_step(MountStep::Devices { point });
        }
        self
    }

    /// Creates a directory with these permissions, of which the caller's umask is removed. One that exists is
    /// kept.
    pub fn create_dir(&mut self, target: impl AsRef<Path>, mode: u32) -> &mut Self {
        if let Some(place) = self.place(target.as_ref()) {
            self.add_step(MountStep::MakeDirectory { place, mode });
        }
        self
    }

    /// Creates a symbolic link at `target` that leads to `content`.
    pub fn symlink(&mut self, content: impl AsRef<Path>, target: impl AsRef<Path>) -> &mut Self {
        let Some(content) = c_string(content.as_ref().as_os_str()) else {
            self.note(SettingError::Nul { setting: "symlink" });
            return self;
        };
        if let Some(place) = self.place(target.as_ref()) {
            self.add_step(MountStep::Link { target: content, place });
        }
        self
    }

    fn root_mut(&mut self) -> &mut Root {
        self.around.root.get_or_insert_default()
    }

    fn add_step(&mut self, step: MountStep) {
        self.root_mut().mounts.push(step);
    }

    fn add_new(&mut self, kind: MountKind, options: CString, target: &Path) {
        if let Some(point) = self.place(target) {
            self.add_step(MountStep::New { kind, options, point });
        }
    }

    /// Returns the absolute path of a file of the caller.
    fn source(&mut self, setting: &'static str, path: &Path) -> Option<CString> {
        match path::absolute(path) {
            Ok(absolute) => {
                let path = c_string(absolute.as_os_str());
                if path.is_none() {
                    self.note(SettingError::Nul { setting });
                }
                path
            }
            Err(error) => {
                self.note(SettingError::File { doing: setting, path: path.into(), why: format!("{error}") });
                None
            }
        }
    }

    /// Returns a place below the root directory of the command.
    fn place(&mut self, path: &Path) -> Option<Place> {
        let place = Place::new(path.as_os_str().as_bytes());
        if place.is_none() {
            self.note(SettingError::Place { path: path.into() });
        }
        place
    }

    /// Checks the settings for the root directory. `joins`: the mount namespace is joined.
    pub(super) fn check_root(&self, joins: bool) -> Result<(), SettingError> {
        let Some(root) = &self.around.root else { return Ok(()) };
        if !joins && !self.created.contains(NsKind::Mnt) {
            return Err(SettingError::NeedsNamespace { setting: "a mount", kind: NsKind::Mnt });
        }
        if joins {
            let of_caller = root
                .mounts
                .iter()
                .any(|step| matches!(step, MountStep::Bind { .. } | MountStep::Devices { .. }));
            if of_caller || !matches!(root.base, Base::Present) {
                return Err(SettingError::Conflict {
                    settings: ["a file of the caller in the command's tree", "a join of a mount namespace"],
                    why: "the path would be looked up in that namespace, whose processes could let it lead anywhere",
                });
            }
            return Ok(());
        }
        let is_new = !matches!(root.base, Base::Present);
        if root.by_chroot && !is_new {
            return Err(SettingError::Value {
                setting: "chroot_in_place_of_pivot",
                why: "the command has no root directory of its own".into(),
            });
        }
        if is_new && matches!(self.propagation, None | Some(Propagation::Shared)) {
            return Err(SettingError::Conflict {
                settings: ["root", "propagation"],
                why: "the mount of the root directory would reach the host, and pivot_root(2) refuses it: set Slave or \
                      Private",
            });
        }
        let binds = root.mounts.iter().filter(|step| matches!(step, MountStep::Bind { .. }));
        if binds.count() > BINDS_MAX {
            return Err(SettingError::Value {
                setting: "bind",
                why: format!("more than {BINDS_MAX} mounts"),
            });
        }
        if let Base::Directory { path, .. } = &root.base {
            let path = Path::new(OsStr::from_bytes(path.to_bytes()));
            match path.metadata() {
                Ok(data) if data.is_dir() => {}
                Ok(_) => return Err(file("use as the root directory", path, "Not a directory")),
                Err(error) => return Err(file("use as the root directory", path, &format!("{error}"))),
            }
        }
        for step in &root.mounts {
            let MountStep::Bind { source, .. } = step else { continue };
            let path = Path::new(OsStr::from_bytes(source.to_bytes()));
            if let Err(error) = path.metadata() {
                return Err(file("bind", path, &format!("{error}")));
            }
        }
        Ok(())
    }
}

fn file(doing: &'static str, path: &Path, why: &str) -> SettingError {
    SettingError::File { doing, path: path.into(), why: why.into() }
}

fn too_long(setting: &'static str) -> SettingError {
    SettingError::Value { setting, why: format!("the options have more than {} bytes", OPTIONS_MAX - 1) }
}
