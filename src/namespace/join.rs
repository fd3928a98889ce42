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

/// What becomes of stage 1's ids when it has joined the user namespace.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Ids {
    /// They stay.
    Keep,
    /// Stage 1 becomes root before it does anything else in it.
    Root,
    /// They stay until right before stage 2's exec, and stage 2 joins the user namespace then, if nothing else needs its
    /// privileges.
    RootLast,
}

/// Stage 1 joins all of `paths`. Returns the user namespace, open, if it is left for stage 2.
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
    dialect: &Dialect,
    ids: Ids,
) -> Result<Option<Fd>, Error<'m>> {
    // No kind comes twice, so eight places are enough.
    let mut targets: [Option<Target<'m>>; NsKind::ALL.len()] = [None; NsKind::ALL.len()];
    for (place, entry) in targets.iter_mut().zip(paths.iter()) {
        *place = Some(Target { entry, fd: Some(open(sys, entry)?) });
    }
    for pass in Pass::ALL {
        if pass == Pass::User && ids == Ids::RootLast {
            let mut open = targets.iter().flatten().filter(|target| target.fd.is_some());
            if let (Some(Target { entry: NsEntry { kind: NsKind::User, .. }, fd }), None) =
                (open.next(), open.next())
            {
                // All others are joined with the caller's privileges. In the user namespace, its root could send stage 2
                // signals and set its limits, so stage 2 joins it last.
                return Ok(*fd);
            }
        }
        for target in targets.iter_mut().flatten() {
            if pass.takes(target.entry.kind) {
                join_one(sys, log, target, dialect)?;
            }
        }
        let in_user = |target: &Target<'_>| target.entry.kind == NsKind::User && target.fd.is_none();
        // Root inside from now on: otherwise objects that later joins and unshares make get a foreign owner
        // (the label of a new ipc namespace's mqueue, runc#4466).
        if pass == Pass::User && ids == Ids::Root && targets.iter().flatten().any(in_user) {
            sys.setresuid(0).map_err(|errno| Error::Os { doing: Doing::BecomeRoot, errno })?;
        }
    }
    let mut left = NsSet::EMPTY;
    for target in targets.iter().flatten().filter(|target| target.fd.is_some()) {
        log.fatal(sys, &Error::NotJoined { kind: target.entry.kind, path: target.entry.path });
        left = left.with(target.entry.kind);
    }
    if left.is_empty() { Ok(None) } else { Err(Error::IncompleteJoin(left)) }
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
    use std::rc::Rc;
    use std::string::String;
    use std::vec::Vec;
    use std::{cell::RefCell, format};

    use super::*;
    use crate::log::Level;
    use crate::policy::LogForm;
    use crate::sys::MockSys;
    use crate::sys::types::{Pid, SignalSet};

    /// Joins a list whose first pass has one EPERM, for ipc; what was called, and what was logged.
    fn joined(dialect: &'static Dialect) -> (Vec<String>, Vec<String>) {
        let calls = Rc::new(RefCell::new(Vec::new()));
        let records = Rc::new(RefCell::new(Vec::new()));
        let mut sys = MockSys::new();
        let mut next = 9;
        sys.expect_openat().returning(move |_, _, _| {
            next += 1;
            Ok(Fd(next))
        });
        sys.expect_fstatfs().returning(|_| Ok(FsType::NSFS));
        sys.expect_close().returning(|_| Ok(()));
        sys.expect_sigprocmask().returning(|_, _| Ok(SignalSet::EMPTY));
        sys.expect_getpid().returning(|| Pid(7));
        let (log, mut refusals) = (Rc::clone(&calls), 1);
        sys.expect_setns().returning_st(move |fd, _| {
            log.borrow_mut().push(format!("setns {}", fd.0));
            let refused = fd == Fd(11) && refusals > 0;
            refusals -= i32::from(refused);
            if refused { Err(Errno::EPERM) } else { Ok(()) }
        });
        let log = Rc::clone(&calls);
        sys.expect_setresuid().returning_st(move |id| {
            log.borrow_mut().push(format!("setresuid {id}"));
            Ok(())
        });
        let lines = Rc::clone(&records);
        sys.expect_write_nowait().returning_st(move |_, bytes| {
            let line = String::from_utf8(bytes.to_vec()).unwrap();
            lines.borrow_mut().push(line.split("into ").nth(1).unwrap().trim_end_matches("\"}\n").into());
            Ok(bytes.len())
        });
        let mut log = Log::open(&mut sys, Some(Fd(3)), Level::Debug, LogForm::Runc);
        let paths = NsPaths::parse(b"user:/u,ipc:/i,net:/n", dialect.namespaces).unwrap();
        assert_eq!(join(&mut sys, &mut log, paths, dialect, Ids::Root), Ok(None));
        drop(sys);
        (Rc::into_inner(calls).unwrap().into_inner(), Rc::into_inner(records).unwrap().into_inner())
    }

    #[test]
    fn every_dialect_joins_in_three_passes() {
        for dialect in Dialect::ALL {
            let wanted = ["setns 11", "setns 12", "setns 10", "setresuid 0", "setns 11"];
            assert_eq!(joined(dialect).0, wanted, "{}", dialect.name());
        }
    }

    #[test]
    fn a_join_is_logged_with_its_own_answer() {
        for dialect in Dialect::ALL {
            let answers = match dialect.setns_result_logged {
                true => [": Operation not permitted", ": Success", ": Success", ": Success"],
                false => [""; 4],
            };
            let names = ["ipc", "net", "user", "ipc"].into_iter().zip(["/i", "/n", "/u", "/i"]);
            let text = |((kind, path), answer)| format!("{kind} namespace (with path {path}){answer}");
            let wanted: Vec<String> = names.zip(answers).map(text).collect();
            assert_eq!(joined(dialect).1, wanted, "{}", dialect.name());
        }
    }

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
