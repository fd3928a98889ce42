//! Joins namespaces: opens and checks every path before the first setns, then joins in three passes.
//!
//! The privilege that a join needs depends on the owner of the namespace. A namespace that the container's
//! user namespace does not own needs the caller's privileges. So the first pass joins all but the user
//! namespace, and the second joins the user namespace. The third retries the refused joins, now with the
//! privileges inside the user namespace (runc#4390, setns(2)).

use core::ffi::CStr;
use core::fmt;

use crate::deciders::bootstrap::dialect::Dialect;
use crate::deciders::bootstrap::text::PathText;
use crate::deciders::namespace::paths::{NsEntry, NsPaths};
use crate::deciders::namespace::{NsKind, NsSet};
use crate::scripts::procfs::open_namespace;
use crate::sys::Sys;
use crate::sys::types::{Errno, Fd};
use crate::words::error::{Doing, Error};
use crate::words::log::Log;

/// `PATH_MAX`, including the NUL (path_resolution(7)). The kernel refuses a longer path with ENAMETOOLONG.
pub const PATH_MAX: usize = 4096;

/// A join pass.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Pass {
    /// All but the user namespace, with the caller's privileges.
    Others,
    /// The user namespace.
    User,
    /// The joins that the first pass was refused, with the privileges inside the user namespace.
    Rest,
}

impl Pass {
    /// All passes in order.
    pub const ALL: [Self; 3] = [Self::Others, Self::User, Self::Rest];

    /// Returns whether this pass tries a namespace of this kind that is not joined yet.
    #[must_use]
    pub const fn includes(self, kind: NsKind) -> bool {
        match self {
            Self::Others | Self::Rest => !matches!(kind, NsKind::User),
            Self::User => matches!(kind, NsKind::User),
        }
    }
}

/// A namespace to join. `fd` is `None` after the join.
#[derive(Clone, Copy)]
struct Target<'m> {
    entry: NsEntry<'m>,
    fd: Option<Fd>,
}

/// The ids of stage 1 after it has joined the user namespace.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Ids {
    /// The ids are kept.
    Keep,
    /// Stage 1 becomes root before any other action in the namespace.
    Root,
    /// The ids are kept until just before stage 2's exec. If no other namespace needs the privileges of the
    /// user namespace, stage 2 joins it only then.
    RootLast,
}

/// Joins all of `paths`. Returns the user namespace, open, if stage 2 has to join it.
///
/// Runs in stage 1, in the caller's namespaces, not dumpable, with the caller's privileges until the second
/// pass. Stage 0, or our own launcher, waits for stage 1.
///
/// # Errors
/// A path that cannot be opened or is not a namespace, before any join; a setns that fails with another errno
/// than `EPERM`; [`Error::IncompleteJoin`] if a namespace is not joined after the last pass.
pub fn join<'m, S: Sys>(
    sys: &mut S,
    log: &mut Log,
    paths: NsPaths<'m>,
    dialect: &Dialect,
    ids: Ids,
) -> Result<Option<Fd>, Error<'m>> {
    // No kind appears twice, so eight slots are enough.
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
                // All others are joined with the caller's privileges. In the user namespace, its root could
                // send stage 2 signals and set its limits, so stage 2 joins it last.
                return Ok(*fd);
            }
        }
        for target in targets.iter_mut().flatten() {
            if pass.includes(target.entry.kind) {
                join_one(sys, log, target, dialect)?;
            }
        }
        let in_user = |target: &Target<'_>| target.entry.kind == NsKind::User && target.fd.is_none();
        // Become root of the user namespace now: otherwise objects created by later joins and unshares get a
        // wrong owner (the label of a new ipc namespace's mqueue, runc#4466).
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

/// Opens one path and checks that it is a namespace. So a FIFO cannot block stage 1, and setns is never
/// called on another kind of file. Not inlined: stage 1 would carry the buffer in its stack frame.
#[inline(never)]
fn open<'m, S: Sys>(sys: &mut S, entry: NsEntry<'m>) -> Result<Fd, Error<'m>> {
    let doing = Doing::OpenNamespace(entry.path);
    let mut buffer = [0; PATH_MAX];
    let path = terminated(&mut buffer, entry.path).ok_or(Error::Os { doing, errno: Errno::ENAMETOOLONG })?;
    open_namespace(sys, Fd::CWD, path, doing)
}

/// Copies `path` to `buffer` with a NUL. Returns `None` if it is longer than `PATH_MAX`.
#[must_use]
pub fn terminated<'b>(buffer: &'b mut [u8; PATH_MAX], path: &[u8]) -> Option<&'b CStr> {
    buffer.get_mut(..path.len())?.copy_from_slice(path);
    *buffer.get_mut(path.len())? = 0;
    CStr::from_bytes_until_nul(buffer).ok()
}

/// Calls setns once, if the namespace is not joined yet. After EPERM the descriptor stays open for a later
/// pass.
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
    let answer = SetnsResult(Some(answer).filter(|_| dialect.setns_result_logged));
    log.debug(sys, format_args!("setns({flag:#x}) into {kind} namespace (with path {shown}){answer}"));
    match joined {
        Ok(()) => {
            // A failed close of a descriptor that was only read loses no data.
            let _ = sys.close(fd);
            target.fd = None;
            Ok(())
        }
        Err(Errno::EPERM) => Ok(()),
        Err(errno) => Err(Error::Os { doing: Doing::Join(kind, path), errno }),
    }
}

/// The result of setns at the end of its record, in the dialects that log it.
struct SetnsResult(Option<Errno>);

impl fmt::Display for SetnsResult {
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
    use crate::deciders::policy::LogForm;
    use crate::sys::MockSys;
    use crate::sys::types::{FsType, Pid, SignalSet};
    use crate::words::log::Level;

    /// Joins a list with one EPERM in the first pass, for ipc. Returns the calls and the records.
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
        for &dialect in Dialect::ALL {
            let wanted = ["setns 11", "setns 12", "setns 10", "setresuid 0", "setns 11"];
            assert_eq!(joined(dialect).0, wanted, "{}", dialect.name());
        }
    }

    #[test]
    fn join_is_logged_with_its_result() {
        for &dialect in Dialect::ALL {
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
    fn each_kind_has_two_passes_except_user() {
        for kind in NsKind::ALL {
            let passes = Pass::ALL.iter().filter(|pass| pass.includes(kind)).count();
            assert_eq!(passes, if kind == NsKind::User { 1 } else { 2 }, "{kind}");
        }
    }

    #[test]
    fn path_of_4096_bytes_has_no_room_for_its_nul() {
        let mut buffer = [0; PATH_MAX];
        assert!(terminated(&mut buffer, &[b'a'; PATH_MAX - 1]).is_some());
        assert!(terminated(&mut buffer, &[b'a'; PATH_MAX]).is_none());
    }
}
