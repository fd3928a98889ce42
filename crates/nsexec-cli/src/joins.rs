//! The namespaces that `nsexec enter` joins: those of a process, of files, and of a socket.

use std::ffi::OsStr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::Mode;
use nsexec::launch::{is_own_namespace, open_owner_of};
use nsexec::namespace::{NsKind, NsSet};

use super::enter_flags::EnterFlags;
use super::failure::{Failure, words};
use super::target::Process;
use super::values::{JoinValue, KIND_NAMES, flag_of};

/// The namespaces to join.
#[derive(Default)]
pub(crate) struct Joins {
    pub(crate) joined: NsSet,
    /// A namespace was named, ours or another one.
    pub(crate) named: bool,
    /// The entries of the message.
    pub(crate) paths: Vec<Vec<u8>>,
    pub(crate) shown: Vec<JoinValue>,
    pub(crate) display_paths: Vec<(String, String)>,
    pub(crate) opened: Vec<OwnedFd>,
}

impl Joins {
    /// Opens the namespaces that the flags name, and finds those that are not ours.
    ///
    /// # Errors
    /// Wrong usage; a namespace cannot be opened.
    pub(crate) fn open(flags: &EnterFlags, process: Option<&Process>) -> Result<Self, Failure> {
        let mut joins = Self::default();
        let of_process = flags.kinds.of_process();
        for (_, kind) in KIND_NAMES {
            let named = of_process.contains(kind);
            // As for nsenter(1): the parent of a user namespace that is named is joined in its place.
            if kind == NsKind::User && flags.user_parent && flags.kinds.user.is_some() {
                joins.add_parent(flags, process)?;
                continue;
            }
            let socket = flags.net_socket.filter(|_| kind == NsKind::Net);
            match (flags.kinds.file(kind), process, socket) {
                (_, Some(process), Some(number)) => {
                    joins.named = true;
                    let (fd, name) = process.network_of_socket(number)?;
                    if !is_own_namespace(&fd, kind) {
                        joins.add_opened(kind, fd, name);
                        joins.show_descriptor();
                    }
                }
                (Some(file), ..) => joins.add_file(kind, file)?,
                (None, Some(process), _) if flags.all || named => joins.add_of(process, kind, named)?,
                (None, ..) => {}
            }
        }
        if flags.user_parent && !joins.joined.contains(NsKind::User) {
            joins.add_owner()?;
        }
        Ok(joins)
    }

    /// Adds the parent of the user namespace that is named.
    fn add_parent(&mut self, flags: &EnterFlags, process: Option<&Process>) -> Result<(), Failure> {
        self.named = true;
        match (flags.kinds.file(NsKind::User), process) {
            (Some(file), _) => self.add_owner_of(Path::new(file), &file.to_string_lossy()),
            (None, Some(process)) => match process.namespace(NsKind::User)? {
                Some(theirs) => {
                    let path = format!("/proc/self/fd/{}", theirs.as_raw_fd());
                    self.add_owner_of(Path::new(&path), &process.path(NsKind::User))
                }
                None => Ok(()),
            },
            (None, None) => Ok(()),
        }
    }

    /// Adds the user namespace that owns the first namespace to join, unless it is ours.
    fn add_owner(&mut self) -> Result<(), Failure> {
        let first = self.paths.first().zip(self.shown.first());
        let Some((entry, shown)) = first else {
            return Err(Failure::Usage("--user-parent: no other namespace is joined".to_owned()));
        };
        let path = entry.split_at(entry.iter().position(|byte| *byte == b':').map_or(0, |at| at + 1)).1;
        let (path, shown) = (path.to_vec(), String::from_utf8_lossy(&shown.path).into_owned());
        self.add_owner_of(Path::new(OsStr::from_bytes(&path)), &shown)
    }

    fn add_owner_of(&mut self, path: &Path, shown: &str) -> Result<(), Failure> {
        let shown = format!("the user namespace that owns {shown}");
        let owner = open_owner_of(path)
            .map_err(|error| Failure::ours(format!("failed to open {shown}: {}", words(&error))))?;
        if is_own_namespace(&owner, NsKind::User) {
            return Ok(());
        }
        self.add_opened(NsKind::User, owner, shown);
        self.show_descriptor();
        Ok(())
    }

    /// Replaces the path of the last namespace by that of its descriptor: it has no other one.
    fn show_descriptor(&mut self) {
        if let (Some(join), Some((path, _))) = (self.shown.last_mut(), self.display_paths.last()) {
            join.path = path.clone().into_bytes();
        }
    }

    fn add_opened(&mut self, kind: NsKind, fd: OwnedFd, shown: String) {
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        self.joined.insert(kind);
        self.paths.push(format!("{}:{path}", kind.name()).into_bytes());
        self.shown.push(JoinValue { kind, path: shown.clone().into_bytes() });
        self.display_paths.push((path, shown));
        self.opened.push(fd);
    }

    /// Adds the namespace of a file, which the first stage opens. If it is ours, it is left out: the kernel
    /// refuses the own user namespace.
    fn add_file(&mut self, kind: NsKind, file: &OsStr) -> Result<(), Failure> {
        self.named = true;
        let flag = flag_of(kind);
        let opened = openat(AT_FDCWD, file, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty());
        if opened.as_ref().is_ok_and(|theirs| is_own_namespace(theirs, kind)) {
            return Ok(());
        }
        // A message separates its paths by commas, so the descriptor stands for a path with one.
        if file.as_bytes().contains(&b',') {
            let shown = file.to_string_lossy().into_owned();
            let opened = opened.map_err(|errno| {
                Failure::ours(format!("failed to open {shown}: {}", words(&errno.into())))
            })?;
            self.add_opened(kind, opened, shown);
            return Ok(());
        }
        let join = JoinValue::of(kind, file.as_bytes())
            .map_err(|why| Failure::Usage(format!("--{flag}={}: {why}", file.to_string_lossy())))?;
        self.joined.insert(kind);
        self.paths.push([kind.name().as_bytes(), b":", &join.path].concat());
        self.shown.push(join);
        Ok(())
    }

    /// Adds the namespace of the process, unless it is ours.
    fn add_of(&mut self, process: &Process, kind: NsKind, named: bool) -> Result<(), Failure> {
        self.named = true;
        match process.namespace(kind)? {
            Some(theirs) if is_own_namespace(&theirs, kind) => {}
            Some(theirs) => self.add_opened(kind, theirs, process.path(kind)),
            // `--all` skips a kind that the kernel does not have.
            None if !named => {}
            None => {
                return Err(Failure::ours(format!(
                    "failed to open {}: No such file or directory (this kernel has no {} namespaces)",
                    process.path(kind),
                    flag_of(kind)
                )));
            }
        }
        Ok(())
    }
}
