//! Joining: every path is opened and checked before the first setns, then three passes.
//!
//! Which privilege a join needs depends on who owns the namespace. What the container's user namespace does not
//! own needs the caller's privileges, so all but the user namespace are tried first; then the user namespace;
//! then again what was refused, now with the privileges inside it (runc#4390, setns(2)).

use core::ffi::CStr;
use core::fmt;

use super::paths::{NsEntry, NsPaths};
use super::{NsKind, NsSet};
use crate::bootstrap::dialect::Dialect;
use crate::bootstrap::text::PathText;
use crate::error::{Doing, Error};
use crate::log::Log;
use crate::policy::{Credentials, Policy};
use crate::sys::Sys;
use crate::sys::types::{Errno, Fd, FsType, OpenFlags};

/// `PATH_MAX`, the NUL included (path_resolution(7)); the kernel calls a longer path ENAMETOOLONG.
pub const PATH_MAX: usize = 4096;

/// A join pass.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Pass {
    /// All but the user namespace, with the privileges we came with.
    Others,
    /// The user namespace.
    User,
    /// What the first pass was refused, with the privileges inside the user namespace.
    Rest,
}

impl Pass {
    /// In their order.
    pub const ALL: [Self; 3] = [Self::Others, Self::User, Self::Rest];

    /// Whether a namespace of this kind, not joined so far, is tried in this pass.
    #[must_use]
    pub const fn takes(self, kind: NsKind) -> bool {
        match self {
            Self::Others | Self::Rest => !matches!(kind, NsKind::User),
            Self::User => matches!(kind, NsKind::User),
        }
    }
}

/// One namespace to join: open, or joined and closed.
#[derive(Clone, Copy)]
struct Target<'m> {
    entry: NsEntry<'m>,
    fd: Option<Fd>,
}

/// Stage 1 joins all of `paths`.
///
/// We are stage 1, in the caller's namespaces, not dumpable, with the caller's privileges until the second pass;
/// stage 0 waits for us.
///
/// # Errors
/// A path that cannot be opened or is no namespace, before any join; a setns that is refused for another
/// reason than `EPERM`; [`Error::IncompleteJoin`] if something is left after the last pass.
pub fn join<'m, S: Sys>(
    sys: &mut S,
    log: &mut Log,
    paths: NsPaths<'m>,
    policy: &Policy,
) -> Result<(), Error<'m>> {
    // No kind comes twice, so eight places are enough.
    let mut targets: [Option<Target<'m>>; NsKind::ALL.len()] = [None; NsKind::ALL.len()];
    for (place, entry) in targets.iter_mut().zip(paths.iter()) {
        *place = Some(Target { entry, fd: Some(open(sys, entry)?) });
    }
    for pass in Pass::ALL {
        for target in targets.iter_mut().flatten() {
            if pass.takes(target.entry.kind) {
                join_one(sys, log, target, policy.dialect)?;
            }
        }
        let in_user = |target: &Target<'_>| target.entry.kind == NsKind::User && target.fd.is_none();
        // Root inside from now on: otherwise objects that later joins and unshares make get a foreign owner
        // (the label of a new ipc namespace's mqueue, runc#4466).
        if pass == Pass::User
            && policy.credentials == Credentials::Root
            && targets.iter().flatten().any(in_user)
        {
            sys.setresuid(0).map_err(|errno| Error::Os { doing: Doing::BecomeRoot, errno })?;
        }
    }
    let mut left = NsSet::EMPTY;
    for target in targets.iter().flatten().filter(|target| target.fd.is_some()) {
        log.fatal(sys, &Error::NotJoined { kind: target.entry.kind, path: target.entry.path });
        left = left.with(target.entry.kind);
    }
    if left.is_empty() { Ok(()) } else { Err(Error::IncompleteJoin(left)) }
}

/// Opens one path and makes sure that it is a namespace, so that a FIFO does not hold us and a setns is never
/// tried on something else.
fn open<'m, S: Sys>(sys: &mut S, entry: NsEntry<'m>) -> Result<Fd, Error<'m>> {
    let doing = Doing::OpenNamespace(entry.path);
    let os = |errno| Error::Os { doing, errno };
    let mut buffer = [0; PATH_MAX];
    let path = terminated(&mut buffer, entry.path).ok_or(os(Errno::ENAMETOOLONG))?;
    let fd = sys.openat(Fd::CWD, path, OpenFlags::Namespace).map_err(os)?;
    match sys.fstatfs(fd).map_err(os)? {
        FsType::NSFS => Ok(fd),
        found => Err(Error::WrongFileSystem { doing, found }),
    }
}

/// `path` with a NUL behind it, or `None` if it is longer than any path may be.
#[must_use]
pub fn terminated<'b>(buffer: &'b mut [u8; PATH_MAX], path: &[u8]) -> Option<&'b CStr> {
    buffer.get_mut(..path.len())?.copy_from_slice(path);
    *buffer.get_mut(path.len())? = 0;
    CStr::from_bytes_until_nul(buffer).ok()
}

/// One setns, if the namespace is not joined yet. EPERM leaves it for a later pass, and closes nothing.
fn join_one<'m, S: Sys>(
    sys: &mut S,
    log: &mut Log,
    target: &mut Target<'m>,
    dialect: &Dialect,
) -> Result<(), Error<'m>> {
    let Some(fd) = target.fd else { return Ok(()) };
    let NsEntry { kind, path } = target.entry;
    let joined = sys.setns(fd, kind.flag());
    let answer = Errno(joined.map_or_else(|errno| errno.0, |()| 0));
    let (flag, shown) = (kind.flag().0, PathText(path));
    let answer = Answer(Some(answer).filter(|_| dialect.setns_result_logged));
    log.debug(sys, format_args!("setns({flag:#x}) into {kind} namespace (with path {shown}){answer}"));
    match joined {
        Ok(()) => {
            // A failing close of a descriptor that was only read loses nothing.
            let _ = sys.close(fd);
            target.fd = None;
            Ok(())
        }
        Err(Errno::EPERM) => Ok(()),
        Err(errno) => Err(Error::Os { doing: Doing::Join(kind, path), errno }),
    }
}

/// What setns answered, at the end of its record, where the dialect says it.
struct Answer(Option<Errno>);

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(errno) => write!(f, ": {errno}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_but_user_has_two_chances_and_user_one() {
        for kind in NsKind::ALL {
            let passes = Pass::ALL.iter().filter(|pass| pass.takes(kind)).count();
            assert_eq!(passes, if kind == NsKind::User { 1 } else { 2 }, "{kind}");
        }
    }

    #[test]
    fn a_path_needs_room_for_its_nul() {
        let mut buffer = [0; PATH_MAX];
        assert!(terminated(&mut buffer, &[b'a'; PATH_MAX - 1]).is_some());
        assert!(terminated(&mut buffer, &[b'a'; PATH_MAX]).is_none());
    }
}
