//! [`Join`]: a namespace that a command joins, and the path for the bootstrap message.

use std::ffi::OsString;
use std::format;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::string::ToString;
use std::sync::Arc;
use std::vec::Vec;

use super::query::{is_own_namespace, kind_of, namespace_of, open_pidfd, pid_in_proc};
use super::setting::SettingError;
use crate::deciders::namespace::NsKind;

/// A namespace to join.
#[derive(Clone, Debug)]
pub(super) enum Join {
    /// A file of nsfs.
    Path(NsKind, PathBuf),
    /// An open file of nsfs.
    Open(NsKind, Arc<OwnedFd>),
    /// An open file of nsfs, of a process. Left out if the launching thread is in this namespace.
    OfProcess(NsKind, Arc<OwnedFd>),
}

impl Join {
    pub(super) const fn kind(&self) -> NsKind {
        match self {
            Self::Path(kind, _) | Self::Open(kind, _) | Self::OfProcess(kind, _) => *kind,
        }
    }

    /// Returns the open file, which must stay open up to the join.
    pub(super) fn owned(&self) -> Option<Arc<OwnedFd>> {
        match self {
            Self::Path(..) => None,
            Self::Open(_, fd) | Self::OfProcess(_, fd) => Some(Arc::clone(fd)),
        }
    }

    /// Returns whether a launch of this thread joins the namespace. That of a process is left out if the
    /// thread is in it: the kernel refuses the own user namespace (`EINVAL`), and to an ordinary user each
    /// other own one (`EPERM`), setns(2).
    pub(super) fn is_needed(&self) -> bool {
        match self {
            Self::Path(..) | Self::Open(..) => true,
            Self::OfProcess(kind, fd) => !is_own_namespace(fd, *kind),
        }
    }

    /// Returns the entry of the message: `type:path`.
    ///
    /// # Errors
    /// The path contains a comma or a NUL, which the message cannot carry, or the descriptor is of another
    /// kind.
    pub(super) fn entry(&self) -> Result<Vec<u8>, SettingError> {
        let mut entry = Vec::from(format!("{}:", self.kind().name()));
        match self {
            Self::Path(_, path) => {
                let bytes = path.as_os_str().as_bytes();
                if bytes.contains(&b',') || bytes.contains(&0) {
                    return Err(file(
                        path.clone().into(),
                        "the path contains a comma or a NUL byte; open it and join the descriptor",
                    ));
                }
                entry.extend(bytes);
            }
            Self::Open(kind, fd) | Self::OfProcess(kind, fd) => {
                let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
                match kind_of(path.as_ref()) {
                    Ok(found) if found == kind.flag() => {}
                    Ok(_) => {
                        return Err(file(path.into(), &format!("the descriptor is no {kind} namespace")));
                    }
                    Err(error) => return Err(file(path.into(), &error.to_string())),
                }
                entry.extend(path.as_bytes());
            }
        }
        Ok(entry)
    }
}

fn file(path: OsString, why: &str) -> SettingError {
    SettingError::File { doing: "join the namespace", path, why: why.into() }
}

/// Opens namespaces of a process. A pidfd makes sure that all belong to the same process: its number may be
/// used again at any moment.
///
/// # Errors
/// [`SettingError::File`]: the process does not exist, has ended meanwhile, or is not visible in /proc.
pub(super) fn of_process(
    pidfd: &OwnedFd,
    kinds: impl IntoIterator<Item = NsKind>,
) -> Result<Vec<Join>, SettingError> {
    let number = || pid_in_proc(pidfd).ok().filter(|number| *number > 0);
    let gone = || file("/proc".into(), "the process has ended, or this /proc does not show it");
    let before = number().ok_or_else(gone)?;
    let mut joins = Vec::new();
    for kind in kinds {
        let opened = namespace_of(before, kind).map_err(|error| {
            file(format!("/proc/{before}/ns/{}", kind.proc_name()).into(), &error.to_string())
        })?;
        joins.push(Join::OfProcess(kind, Arc::new(opened)));
    }
    // The process had this number before and after, so the files are its own.
    if number() == Some(before) { Ok(joins) } else { Err(gone()) }
}

/// Opens the pidfd of a process.
pub(super) fn process(pid: u32) -> Result<OwnedFd, SettingError> {
    let refused = |why: &str| SettingError::File {
        doing: "open process",
        path: pid.to_string().into(),
        why: why.into(),
    };
    let number = i32::try_from(pid).map_err(|_| refused("no such process"))?;
    open_pidfd(number).map_err(|error| refused(&error.to_string()))
}
