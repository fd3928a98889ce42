//! Mount sources (runc 1.1). Stage 0 opens the sources of the container's bind mounts. Stage 1 moves each to
//! the descriptor number that the launcher has reserved for it.
//!
//! The container's root may lack access to a source, so stage 0 opens it with the caller's privileges. It
//! does so in the container's mount namespace: the kernel refuses to bind a mount of another mount namespace
//! (mount(2), `EINVAL`). See `docs/protocol.md#mount-sources`.

use super::errors::{Failure, Step};
use super::mount_fds::{MountFds, MountFdsError};
use super::mount_sources::MountSources;
use crate::deciders::bootstrap::{Bootstrap, Environment};
use crate::scripts::join::{PATH_MAX, terminated};
use crate::scripts::pipe::uninterrupted;
use crate::scripts::procfs::{ProcDir, open_namespace};
use crate::scripts::stage::Context;
use crate::scripts::sync::{End, OfChild, OfParent, SyncMessage};
use crate::sys::Sys;
use crate::sys::types::{CloneFlags, Errno, Fd, OpenFlags};
use crate::words::error::{Doing, Error, SyncStep};

/// Checks that message and environment list the same sources, and that every reserved number is open. This
/// precedes the first socket, which could otherwise get one of the numbers. Returns `None` if the message has
/// no mount sources; then the variable is not read.
///
/// Runs in stage 0 before it creates any process or descriptor, after it has read the message.
///
/// # Errors
/// [`Failure::MountFds`].
pub fn check<'m, 'e, S: Sys>(
    sys: &mut S,
    bootstrap: &Bootstrap<'m>,
    environment: Environment<'e>,
) -> Result<Option<MountFds<'e>>, Error<'m>> {
    let Some(sources) = bootstrap.mount_sources() else { return Ok(None) };
    let value = environment.mount_fds.ok_or(wrong(MountFdsError::NotSet))?;
    let numbers = MountFds::parse(value).map_err(wrong)?;
    numbers.check(sources).map_err(wrong)?;
    let mut highest = None;
    for (mount, number) in numbers.iter().enumerate() {
        let Some(number) = number else { continue };
        if [environment.init, environment.log].contains(&Some(number)) {
            return Err(wrong(MountFdsError::InUse(number)));
        }
        match sys.fstatfs(number) {
            Ok(_) => {}
            Err(Errno::EBADF) => return Err(wrong(MountFdsError::NotOpen(number))),
            Err(errno) => return Err(Step::CheckMountFd(number).failed(errno)),
        }
        // Launchers use rising numbers, so a comparison with all earlier numbers is rarely needed.
        if Some(number) <= highest && numbers.iter().take(mount).any(|earlier| earlier == Some(number)) {
            return Err(wrong(MountFdsError::Twice(number)));
        }
        highest = highest.max(Some(number));
    }
    Ok(Some(numbers))
}

const fn wrong(error: MountFdsError) -> Error<'static> {
    Error::Legacy(Failure::MountFds(error))
}

/// Opens the mount sources and sends them to stage 1 when stage 1 asks for them, if the message has any.
///
/// Runs in stage 0, in the caller's namespaces, with the caller's privileges. Waits for the request of
/// stage 1.
///
/// # Errors
/// The failure that ends the bootstrap. Stage 0 may then still be in the mount namespace of stage 1.
pub fn serve<'m, S: Sys>(
    sys: &mut S,
    bootstrap: &Bootstrap<'m>,
    target: ProcDir,
    child: &End<OfParent>,
) -> Result<(), Error<'m>> {
    let Some(sources) = bootstrap.mount_sources() else { return Ok(()) };
    child.expect(sys, SyncMessage::MountsourcesPls, SyncStep::Stage1Next)?;
    send(sys, sources, target, child)?;
    child.send(sys, SyncMessage::MountsourcesAck, SyncStep::WriteMountsourcesAck)
}

/// Opens every source in stage 1's mount namespace, and sends it to stage 1.
///
/// Runs in stage 0, in the caller's namespaces, with the caller's privileges. While it opens the sources it
/// is in the mount namespace of stage 1, which waits for each of them. setns(2) requires a single thread that
/// shares no working directory. Between the two setns calls only the sources are looked up by path.
///
/// # Errors
/// The failure that ends the bootstrap. Stage 0 may then still be in the mount namespace of stage 1.
fn send<'m, S: Sys>(
    sys: &mut S,
    sources: MountSources<'m>,
    target: ProcDir,
    child: &End<OfParent>,
) -> Result<(), Error<'m>> {
    // Open both before the first setns: after it, /proc is a mount of the container.
    let own = open_namespace(sys, Fd::CWD, c"/proc/self/ns/mnt", Doing::Legacy(Step::OpenOwnMountNamespace))?;
    let doing = Doing::Legacy(Step::OpenMountNamespace(target.pid()));
    let container = open_namespace(sys, target.dir, c"ns/mnt", doing)?;
    let os = |step: Step<'m>| move |errno| step.failed(errno);
    sys.setns(container, CloneFlags::NEWNS).map_err(os(Step::EnterMountNamespace))?;
    for source in sources.iter().filter(|source| !source.is_empty()) {
        let step = Step::OpenMountSource(source);
        let mut buffer = [0; PATH_MAX];
        let path = terminated(&mut buffer, source).ok_or(step.failed(Errno::ENAMETOOLONG))?;
        let fd = sys.openat(Fd::CWD, path, OpenFlags::Path).map_err(os(step))?;
        child.send_fd(sys, fd, Step::SendMountSource(source))?;
        // Stage 1 has its own copy. An O_PATH descriptor has no data that a failed close could lose.
        let _ = sys.close(fd);
    }
    sys.setns(own, CloneFlags::NEWNS).map_err(os(Step::LeaveMountNamespace))?;
    let _ = sys.close(own);
    let _ = sys.close(container);
    Ok(())
}

/// Requests the mount sources from stage 0 and receives them, if the message has any.
///
/// Runs in stage 1, after the unshare, as root of its user namespace, in the mount namespace where stage 0
/// opens the sources. Waits for each of them.
///
/// # Errors
/// The failure that ends the bootstrap.
pub fn request<'m, S: Sys>(sys: &mut S, cx: Context<'_, 'm>, parent: &End<OfChild>) -> Result<(), Error<'m>> {
    let Some(numbers) = cx.mount_fds else { return Ok(()) };
    parent.send(sys, SyncMessage::MountsourcesPls, SyncStep::WriteMountsourcesPls)?;
    receive(sys, numbers, parent)?;
    parent.expect(sys, SyncMessage::MountsourcesAck, SyncStep::ReadMountsourcesAck)
}

/// Receives the sources in order and moves each to its reserved number.
///
/// Runs in stage 1, in the container's namespaces, as root of its user namespace. Stage 0 sends the sources
/// in the order of the mounts.
///
/// # Errors
/// The failure that ends the bootstrap.
fn receive<'m, S: Sys>(sys: &mut S, numbers: MountFds<'_>, parent: &End<OfChild>) -> Result<(), Error<'m>> {
    for number in numbers.iter().flatten() {
        let fd = parent.receive_fd(sys, number)?;
        let placed = uninterrupted(sys, |sys| sys.dup3(fd, number));
        placed.map_err(|errno| Step::PlaceMountSource(number).failed(errno))?;
        let _ = sys.close(fd);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::MockSys;
    use crate::sys::types::{FsType, Received};
    use crate::words::log::Level;

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
            assert_eq!(found, wanted.map_err(wrong), "{numbers:?}");
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
        let doing = Doing::Legacy(Step::ReceiveMountSource(number));
        let lacks = |truncated| Error::Legacy(Failure::NoDescriptor { number, truncated });
        let cases = [
            (Ok(end()), Ok(())),
            (Ok(Received { truncated: true, ..end() }), Err(lacks(true))),
            (Ok(Received { fd: None, ..end() }), Err(lacks(false))),
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
            let pair =
                crate::scripts::sync::Pair::open(&mut sys, crate::words::error::SyncPipe::Child, Fd(9))
                    .unwrap();
            let parent = pair.into_child(&mut sys).unwrap();
            assert_eq!(receive(&mut sys, MountFds::parse(b"[-1,20]").unwrap(), &parent), wanted);
        }
    }
}
