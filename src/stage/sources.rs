//! Mount sources (runc 1.1). Stage 0 opens the sources of the container's bind mounts. Stage 1 moves each to
//! the descriptor number that the launcher has reserved for it.
//!
//! The container's root may lack access to a source, so stage 0 opens it with the caller's privileges. It
//! does so in the container's mount namespace: the kernel refuses to bind a mount of another mount namespace
//! (mount(2), `EINVAL`). See `docs/protocol.md#mount-sources`.

use crate::bootstrap::mount_fds::{MountFds, MountFdsError};
use crate::bootstrap::{Bootstrap, Environment, MountSources};
use crate::error::{Doing, Error};
use crate::namespace::join::{PATH_MAX, terminated};
use crate::pipe::uninterrupted;
use crate::procfs::ProcDir;
use crate::sync::{End, OfChild, OfParent};
use crate::sys::Sys;
use crate::sys::types::{CloneFlags, Errno, Fd, FsType, OpenFlags};

/// Checks that message and environment list the same sources, and that every reserved number is open. This
/// precedes the first socket, which could otherwise get one of the numbers. Returns `None` if the message has
/// no mount sources; then the variable is not read.
///
/// Runs in stage 0 before it creates any process or descriptor, after it has read the message.
///
/// # Errors
/// [`Error::MountFds`].
pub fn check<'m, 'e, S: Sys>(
    sys: &mut S,
    bootstrap: &Bootstrap<'m>,
    environment: Environment<'e>,
) -> Result<Option<MountFds<'e>>, Error<'m>> {
    let Some(sources) = bootstrap.mount_sources() else { return Ok(None) };
    let value = environment.mount_fds.ok_or(Error::MountFds(MountFdsError::NotSet))?;
    let numbers = MountFds::parse(value).map_err(Error::MountFds)?;
    numbers.check(sources).map_err(Error::MountFds)?;
    let mut highest = None;
    for (mount, number) in numbers.iter().enumerate() {
        let Some(number) = number else { continue };
        if [environment.init, environment.log].contains(&Some(number)) {
            return Err(Error::MountFds(MountFdsError::InUse(number)));
        }
        match sys.fstatfs(number) {
            Ok(_) => {}
            Err(Errno::EBADF) => return Err(Error::MountFds(MountFdsError::NotOpen(number))),
            Err(errno) => return Err(Error::Os { doing: Doing::CheckMountFd(number), errno }),
        }
        // Launchers use rising numbers, so a comparison with all earlier numbers is rarely needed.
        if Some(number) <= highest && numbers.iter().take(mount).any(|earlier| earlier == Some(number)) {
            return Err(Error::MountFds(MountFdsError::Twice(number)));
        }
        highest = highest.max(Some(number));
    }
    Ok(Some(numbers))
}

/// Opens every source in stage 1's mount namespace, and sends it to stage 1.
///
/// Runs in stage 0, in the caller's namespaces, with the caller's privileges. While it opens the sources it
/// is in the mount namespace of stage 1, which waits for each of them. setns(2) requires a single thread that
/// shares no working directory. Between the two setns calls only the sources are looked up by path.
///
/// # Errors
/// The failure that ends the bootstrap. Stage 0 may then still be in the mount namespace of stage 1.
pub(super) fn send<'m, S: Sys>(
    sys: &mut S,
    sources: MountSources<'m>,
    target: ProcDir,
    child: &End<OfParent>,
) -> Result<(), Error<'m>> {
    // Open both before the first setns: after it, /proc is a mount of the container.
    let own = open_own(sys)?;
    let container = target.open_mount_namespace(sys)?;
    let enter = |doing| move |errno| Error::Os { doing, errno };
    sys.setns(container, CloneFlags::NEWNS).map_err(enter(Doing::EnterMountNamespace))?;
    for source in sources.iter().filter(|source| !source.is_empty()) {
        let doing = Doing::OpenMountSource(source);
        let mut buffer = [0; PATH_MAX];
        let path = terminated(&mut buffer, source).ok_or(Error::Os { doing, errno: Errno::ENAMETOOLONG })?;
        let fd = sys.openat(Fd::CWD, path, OpenFlags::Path).map_err(enter(doing))?;
        child.send_fd(sys, fd, Doing::SendMountSource(source))?;
        // Stage 1 has its own copy. An O_PATH descriptor has no data that a failed close could lose.
        let _ = sys.close(fd);
    }
    sys.setns(own, CloneFlags::NEWNS).map_err(enter(Doing::LeaveMountNamespace))?;
    let _ = sys.close(own);
    let _ = sys.close(container);
    Ok(())
}

fn open_own<'m, S: Sys>(sys: &mut S) -> Result<Fd, Error<'m>> {
    let doing = Doing::OpenOwnMountNamespace;
    let os = |errno| Error::Os { doing, errno };
    let fd = sys.openat(Fd::CWD, c"/proc/self/ns/mnt", OpenFlags::Namespace).map_err(os)?;
    match sys.fstatfs(fd).map_err(os)? {
        FsType::NSFS => Ok(fd),
        found => Err(Error::WrongFileSystem { doing, found }),
    }
}

/// Receives the sources in order and moves each to its reserved number.
///
/// Runs in stage 1, in the container's namespaces, as root of its user namespace. Stage 0 sends the sources
/// in the order of the mounts.
///
/// # Errors
/// The failure that ends the bootstrap.
pub(super) fn receive<'m, S: Sys>(
    sys: &mut S,
    numbers: MountFds<'_>,
    parent: &End<OfChild>,
) -> Result<(), Error<'m>> {
    for number in numbers.iter().flatten() {
        let fd = parent.receive_fd(sys, number)?;
        let placed = uninterrupted(sys, |sys| sys.dup3(fd, number));
        placed.map_err(|errno| Error::Os { doing: Doing::PlaceMountSource(number), errno })?;
        let _ = sys.close(fd);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Level;
    use crate::sys::MockSys;
    use crate::sys::types::Received;

    fn message(sources: &[u8]) -> Bootstrap<'_> {
        Bootstrap::new(CloneFlags::NEWNS).with_mount_sources(MountSources::parse(sources).unwrap())
    }

    fn environment(numbers: Option<&str>) -> Environment<'_> {
        let pipes = Environment::new(Some(Fd(3)), Some(Fd(4)), Level::Debug);
        Environment { mount_fds: numbers.map(str::as_bytes), ..pipes }
    }

    #[test]
    fn message_and_variable_must_agree_on_mount_sources() {
        let two = message(b"/a\0\0/b\0\0");
        let cases = [
            (None, Err(MountFdsError::NotSet)),
            (Some(""), Err(MountFdsError::NoBeginning)),
            (Some("[7,-1]"), Err(MountFdsError::Counts { message: 3, environment: 2 })),
            (Some("[7,8,-1]"), Err(MountFdsError::Unpaired { mount: 2, source: false })),
            (Some("[7,-1,4]"), Err(MountFdsError::InUse(Fd(4)))),
            (Some("[3,-1,7]"), Err(MountFdsError::InUse(Fd(3)))),
            (Some("[7,-1,9]"), Err(MountFdsError::NotOpen(Fd(9)))),
            (Some("[7,-1,7]"), Err(MountFdsError::Twice(Fd(7)))),
            (Some("[8,-1,7]"), Ok(Some(MountFds::parse(b"[8,-1,7]").unwrap()))),
            (Some("[7,-1,8]"), Ok(Some(MountFds::parse(b"[7,-1,8]").unwrap()))),
        ];
        for (numbers, wanted) in cases {
            let mut sys = MockSys::new();
            let open = |fd: Fd| if fd.0 < 9 { Ok(FsType(0x534f_434b)) } else { Err(Errno::EBADF) };
            sys.expect_fstatfs().returning(open);
            let found = check(&mut sys, &two, environment(numbers));
            assert_eq!(found, wanted.map_err(Error::MountFds), "{numbers:?}");
        }
    }

    #[test]
    fn mount_fds_variable_is_ignored_without_mount_sources() {
        let nothing = Bootstrap::new(CloneFlags::NEWNS);
        assert_eq!(check(&mut MockSys::new(), &nothing, environment(Some("junk"))), Ok(None));
    }

    #[test]
    fn mount_source_message_has_exactly_one_descriptor() {
        let end = || Received { byte: Some(0), fd: Some(Fd(9)), truncated: false };
        let number = Fd(20);
        let doing = Doing::ReceiveMountSource(number);
        let cases = [
            (Ok(end()), Ok(())),
            (Ok(Received { truncated: true, ..end() }), Err(Error::NoDescriptor { number, truncated: true })),
            (Ok(Received { fd: None, ..end() }), Err(Error::NoDescriptor { number, truncated: false })),
            (Ok(Received { byte: None, fd: None, ..end() }), Err(Error::Short { doing, got: 0, want: 1 })),
            (Err(Errno::ECONNRESET), Err(Error::Short { doing, got: 0, want: 1 })),
            (Err(Errno::ENOMEM), Err(Error::Os { doing, errno: Errno::ENOMEM })),
        ];
        for (received, wanted) in cases {
            let mut sys = MockSys::new();
            sys.expect_socketpair().returning(|| Ok((Fd(5), Fd(6))));
            sys.expect_close().returning(|_| Ok(()));
            sys.expect_poll().once().returning(|_, _| Ok(1));
            sys.expect_receive_fd().times(1).returning(move |_| received);
            if wanted.is_ok() {
                sys.expect_dup3().once().withf(|fd, to| (fd.0, to.0) == (9, 20)).returning(|_, _| Ok(()));
            }
            let pair = crate::sync::Pair::open(&mut sys, crate::error::SyncPipe::Child, Fd(9)).unwrap();
            let parent = pair.into_child(&mut sys).unwrap();
            assert_eq!(receive(&mut sys, MountFds::parse(b"[-1,20]").unwrap(), &parent), wanted);
        }
    }
}
