//! The host name, /sys, the root directory, the mounts and the working directory of the command: a script of
//! the process that becomes the command.
//!
//! Every path of a mount point is opened below the new root directory, with openat2(2): no `..` and no
//! symbolic link there leads out of it. The mounts to bind are copied first, so their paths are those of the
//! caller's tree, whatever is mounted over it. The old root directory is left by pivot_root(2), and detached.

use core::ffi::CStr;

use super::pipes::close;
use super::steps::StageStep;
use super::surroundings::{Base, Directory, MountStep, Place, Root, Surroundings};
use super::sysfs;
use crate::sys::Sys;
use crate::sys::types::{Errno, Fd, MountAttributes, MountKind, OpenFlags, SysResult};
use crate::words::error::Error;

/// The maximum number of mounts to bind.
pub(super) const BINDS_MAX: usize = 256;

/// The directory over which a new root directory is mounted that has no place of its own. The mount is in the
/// mount namespace of the command only.
pub const SCAFFOLD: &CStr = c"/tmp";

/// The device files of a minimal /dev: those that a program can expect everywhere (OCI runtime specification,
/// "Default Devices").
pub const DEVICES: [(&CStr, &CStr); 6] = [
    (c"/dev/null", c"null"),
    (c"/dev/zero", c"zero"),
    (c"/dev/full", c"full"),
    (c"/dev/random", c"random"),
    (c"/dev/urandom", c"urandom"),
    (c"/dev/tty", c"tty"),
];

/// The symbolic links of a minimal /dev.
const DEVICE_LINKS: [(&CStr, &CStr); 5] = [
    (c"/proc/self/fd", c"fd"),
    (c"/proc/self/fd/0", c"stdin"),
    (c"/proc/self/fd/1", c"stdout"),
    (c"/proc/self/fd/2", c"stderr"),
    (c"pts/ptmx", c"ptmx"),
];

/// Turns the loopback interface on, sets the host name, mounts a new /sys, builds the root directory, and
/// changes to the working directory.
///
/// Runs as the process that becomes the command, in its namespaces, with the privileges of the launch there.
/// The launcher waits meanwhile.
///
/// # Errors
/// The step that failed, with its object.
pub(super) fn prepare<'m, S: Sys>(sys: &mut S, around: &'m Surroundings) -> Result<(), Error<'m>> {
    if around.loopback {
        turn_loopback_on(sys).map_err(|errno| StageStep::Loopback.failed(errno))?;
    }
    if let Some(name) = &around.hostname {
        sys.set_hostname(name).map_err(|errno| StageStep::HostName.failed(errno))?;
    }
    if let Some(new) = &around.sysfs {
        sysfs::mount(sys, new)?;
    }
    if let Some(root) = &around.root {
        build(sys, root)?;
    }
    match &around.directory {
        Some(directory) => enter_directory(sys, directory)
            .map_err(|errno| StageStep::WorkingDirectory(directory.path.to_bytes()).failed(errno)),
        None => Ok(()),
    }
}

fn turn_loopback_on<S: Sys>(sys: &mut S) -> SysResult<()> {
    let socket = sys.inet_socket()?;
    let done = sys.set_loopback_up(socket);
    close(sys, socket);
    done
}

/// Builds the tree of the root directory, and enters it.
fn build<'m, S: Sys>(sys: &mut S, root: &'m Root) -> Result<(), Error<'m>> {
    let mut sources = [Fd::CWD; BINDS_MAX];
    let is_bind = |step: &&MountStep| matches!(step, MountStep::Bind { .. });
    for (step, slot) in root.mounts.iter().filter(is_bind).zip(&mut sources) {
        let MountStep::Bind { source, recursive, .. } = step else { continue };
        *slot = sys
            .open_tree(source, *recursive)
            .map_err(|errno| StageStep::BindSource(source.to_bytes()).failed(errno))?;
    }
    let top = open_base(sys, &root.base)?;
    let mut sources = sources.into_iter();
    for step in &root.mounts {
        let source = if is_bind(&step) { sources.next() } else { None };
        take(sys, top, step, source)?;
    }
    enter(sys, top, root)
}

/// Opens the directory that becomes the root directory.
fn open_base<'m, S: Sys>(sys: &mut S, base: &'m Base) -> Result<Fd, Error<'m>> {
    match base {
        Base::Present => sys
            .openat(Fd::CWD, c"/", OpenFlags::Directory)
            .map_err(|errno| StageStep::NewRoot(b"/").failed(errno)),
        Base::Chroot { path } => sys
            .openat(Fd::CWD, path, OpenFlags::Directory)
            .map_err(|errno| StageStep::NewRoot(path.to_bytes()).failed(errno)),
        Base::Opened { fd, .. } => Ok(*fd),
        Base::Directory { path, attributes } => {
            let failed = |errno| StageStep::NewRoot(path.to_bytes()).failed(errno);
            let top = sys.open_tree(path, true).map_err(failed)?;
            set_attributes(sys, top, true, *attributes).map_err(failed)?;
            // pivot_root(2) needs a mount point: the copy is mounted over the directory itself.
            let place = sys.openat(Fd::CWD, path, OpenFlags::Directory).map_err(failed)?;
            sys.move_mount(top, place).map_err(failed)?;
            close(sys, place);
            Ok(top)
        }
        Base::Memory => scaffold(sys, MountKind::Tmpfs, c"mode=755"),
        Base::Overlay { options } => scaffold(sys, MountKind::Overlay, options),
    }
}

/// Mounts a file system as the new root directory.
fn scaffold<'m, S: Sys>(sys: &mut S, kind: MountKind, options: &CStr) -> Result<Fd, Error<'m>> {
    let failed = |errno| StageStep::NewRoot(SCAFFOLD.to_bytes()).failed(errno);
    sys.chdir(SCAFFOLD).map_err(failed)?;
    sys.mount_here(kind, options).map_err(failed)?;
    sys.openat(Fd::CWD, SCAFFOLD, OpenFlags::Directory).map_err(failed)
}

fn set_attributes<S: Sys>(
    sys: &mut S,
    mount: Fd,
    recursive: bool,
    attributes: MountAttributes,
) -> SysResult<()> {
    match attributes == MountAttributes::default() {
        true => Ok(()),
        false => sys.set_mount_attributes(mount, recursive, attributes),
    }
}

/// Takes one step below `top`. `source` is the copy of the mount to bind.
fn take<'m, S: Sys>(sys: &mut S, top: Fd, step: &'m MountStep, source: Option<Fd>) -> Result<(), Error<'m>> {
    let path = step.place().path.to_bytes();
    let mount_failed = |errno| StageStep::MountOn(path).failed(errno);
    match step {
        MountStep::Bind { point, attributes, recursive, .. } => {
            let source = source.unwrap_or(Fd::CWD);
            set_attributes(sys, source, *recursive, *attributes)
                .map_err(|errno| StageStep::MountAttributes(path).failed(errno))?;
            let target = open_point(sys, top, point, Some(source))?;
            sys.move_mount(source, target).map_err(mount_failed)?;
            close(sys, target);
            close(sys, source);
            Ok(())
        }
        MountStep::New { kind, options, point } => {
            let target = open_point(sys, top, point, None)?;
            mount_on(sys, target, *kind, options).map_err(mount_failed)?;
            close(sys, target);
            Ok(())
        }
        MountStep::Devices { point } => {
            let target = open_point(sys, top, point, None)?;
            mount_devices(sys, top, target, &point.path).map_err(mount_failed)
        }
        MountStep::MakeDirectory { place, mode } => {
            make_parents(sys, top, place)?;
            in_parent(sys, top, place, |sys, parent, name| match sys.mkdirat(parent, name, *mode) {
                Err(Errno::EEXIST) => Ok(()),
                made => made,
            })
            .map_err(|errno| StageStep::MakeDirectory(path).failed(errno))
        }
        MountStep::Link { target, place } => {
            make_parents(sys, top, place)?;
            in_parent(sys, top, place, |sys, parent, name| sys.symlinkat(target, parent, name))
                .map_err(|errno| StageStep::MakeLink(path).failed(errno))
        }
    }
}

/// Mounts a new file system on an open directory.
fn mount_on<S: Sys>(sys: &mut S, target: Fd, kind: MountKind, options: &CStr) -> SysResult<()> {
    sys.fchdir(target)?;
    sys.mount_here(kind, options)
}

/// Mounts a minimal /dev on the open directory `target` with this path.
fn mount_devices<S: Sys>(sys: &mut S, top: Fd, target: Fd, path: &CStr) -> SysResult<()> {
    let mut copies = [Fd::CWD; DEVICES.len()];
    // Copied before the mount, which may be over the caller's /dev.
    for ((source, _), copy) in DEVICES.iter().zip(&mut copies) {
        *copy = sys.open_tree(source, false)?;
    }
    mount_on(sys, target, MountKind::Tmpfs, c"mode=755")?;
    close(sys, target);
    let dev = open_in_root(sys, top, path, OpenFlags::Directory)?;
    for ((_, name), copy) in DEVICES.iter().zip(copies) {
        let file = open_in_root(sys, dev, name, OpenFlags::New)?;
        close(sys, file);
        let file = open_in_root(sys, dev, name, OpenFlags::Path)?;
        sys.move_mount(copy, file)?;
        close(sys, file);
        close(sys, copy);
    }
    for (target, name) in DEVICE_LINKS {
        sys.symlinkat(target, dev, name)?;
    }
    for (name, kind, options) in [
        (c"pts", MountKind::Devpts, c"newinstance,ptmxmode=0666,mode=0620"),
        (c"shm", MountKind::Tmpfs, c"mode=1777"),
    ] {
        sys.mkdirat(dev, name, 0o755)?;
        let directory = open_in_root(sys, dev, name, OpenFlags::Directory)?;
        mount_on(sys, directory, kind, options)?;
        close(sys, directory);
    }
    close(sys, dev);
    Ok(())
}

/// The number of times that an open which [`Errno::EAGAIN`] refuses is repeated.
const REPEATS: usize = 255;

/// Opens a file below a directory, as [`Sys::open_in_root`].
///
/// While any process of the machine renames or mounts a file, openat2(2) returns `EAGAIN` for a path or link
/// with `..`: it cannot tell whether the path stays below the directory. So the open is repeated.
pub(super) fn open_in_root<S: Sys>(sys: &mut S, root: Fd, path: &CStr, flags: OpenFlags) -> SysResult<Fd> {
    for _ in 0..REPEATS {
        match sys.open_in_root(root, path, flags) {
            Err(Errno::EAGAIN) => {}
            opened => return opened,
        }
    }
    sys.open_in_root(root, path, flags)
}

/// Opens a mount point, and creates it if it does not exist: as a file for a mount of a file, otherwise as a
/// directory.
fn open_point<'m, S: Sys>(
    sys: &mut S,
    top: Fd,
    point: &'m Place,
    source: Option<Fd>,
) -> Result<Fd, Error<'m>> {
    let failed = |errno| StageStep::MountPoint(point.path.to_bytes()).failed(errno);
    match open_in_root(sys, top, &point.path, OpenFlags::Path) {
        Err(Errno::ENOENT) => {}
        opened => return opened.map_err(failed),
    }
    make_parents(sys, top, point)?;
    let is_directory = match source {
        Some(source) => is_directory(sys, source).map_err(failed)?,
        None => true,
    };
    in_parent(sys, top, point, |sys, parent, name| match is_directory {
        true => sys.mkdirat(parent, name, 0o755),
        false => open_in_root(sys, parent, name, OpenFlags::New).map(|file| close(sys, file)),
    })
    .and_then(|()| open_in_root(sys, top, &point.path, OpenFlags::Path))
    .map_err(failed)
}

/// Returns whether the copy of a mount is of a directory.
fn is_directory<S: Sys>(sys: &mut S, mount: Fd) -> SysResult<bool> {
    match open_in_root(sys, mount, c"/", OpenFlags::Directory) {
        Ok(directory) => {
            close(sys, directory);
            Ok(true)
        }
        Err(Errno::ENOTDIR) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Creates the directories of a path that do not exist, except its last component.
fn make_parents<'m, S: Sys>(sys: &mut S, top: Fd, place: &'m Place) -> Result<(), Error<'m>> {
    let Some((_, parents)) = place.steps.split_last() else { return Ok(()) };
    for (directory, name) in parents {
        let made = in_directory(sys, top, directory, |sys, directory| {
            match sys.mkdirat(directory, name, 0o755) {
                // A read-only mount reports EROFS for a directory that exists too.
                Err(Errno::EEXIST | Errno::EROFS) => Ok(()),
                made => made,
            }
        });
        made.map_err(|errno| StageStep::MountPoint(place.path.to_bytes()).failed(errno))?;
    }
    Ok(())
}

/// Calls `act` with the open directory of the last component of a path, and its name.
fn in_parent<S: Sys>(
    sys: &mut S,
    top: Fd,
    place: &Place,
    act: impl FnOnce(&mut S, Fd, &CStr) -> SysResult<()>,
) -> SysResult<()> {
    let Some((directory, name)) = place.last() else { return Err(Errno::EINVAL) };
    in_directory(sys, top, directory, |sys, directory| act(sys, directory, name))
}

fn in_directory<S: Sys>(
    sys: &mut S,
    top: Fd,
    path: &CStr,
    act: impl FnOnce(&mut S, Fd) -> SysResult<()>,
) -> SysResult<()> {
    let directory = open_in_root(sys, top, path, OpenFlags::Directory)?;
    let done = act(sys, directory);
    close(sys, directory);
    done
}

/// Makes `top` the root directory and the working directory.
fn enter<'m, S: Sys>(sys: &mut S, top: Fd, root: &Root) -> Result<(), Error<'m>> {
    let failed = |errno| StageStep::EnterRoot.failed(errno);
    sys.fchdir(top).map_err(failed)?;
    // A descriptor of the launcher is close-on-exec.
    if !matches!(root.base, Base::Opened { .. }) {
        close(sys, top);
    }
    if matches!(root.base, Base::Present) {
        return Ok(());
    }
    if root.by_chroot || matches!(root.base, Base::Chroot { .. } | Base::Opened { .. }) {
        return sys.chroot_here().map_err(failed);
    }
    // The old root is stacked on the new one, and "." leads to the topmost mount (pivot_root(2)).
    sys.pivot_root_here().map_err(failed)?;
    sys.detach_here().map_err(|errno| StageStep::LeaveRoot.failed(errno))
}

fn enter_directory<S: Sys>(sys: &mut S, directory: &Directory) -> SysResult<()> {
    if !directory.confined {
        return sys.chdir(&directory.path);
    }
    let root = sys.openat(Fd::CWD, c"/", OpenFlags::Directory)?;
    let opened = open_in_root(sys, root, &directory.path, OpenFlags::Directory);
    close(sys, root);
    let opened = opened?;
    let entered = sys.fchdir(opened);
    close(sys, opened);
    entered
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::MockSys;

    #[test]
    fn open_is_repeated_while_others_rename() {
        for (refused, opened) in [(2, Ok(Fd(9))), (REPEATS, Ok(Fd(9))), (REPEATS + 1, Err(Errno::EAGAIN))] {
            let (mut sys, mut calls) = (MockSys::new(), 0);
            sys.expect_open_in_root().returning(move |_, _, _| {
                calls += 1;
                if calls <= refused { Err(Errno::EAGAIN) } else { Ok(Fd(9)) }
            });
            assert_eq!(open_in_root(&mut sys, Fd(3), c"/a", OpenFlags::Path), opened);
        }
        let mut sys = MockSys::new();
        sys.expect_open_in_root().once().returning(|_, _, _| Err(Errno::ENOENT));
        assert_eq!(open_in_root(&mut sys, Fd(3), c"/a", OpenFlags::Path), Err(Errno::ENOENT));
    }
}
