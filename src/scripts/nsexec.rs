//! The entry point of the bootstrap. It opens the log, reads the message, sets the oom score and the dumpable
//! flag, and starts the stages.

use crate::deciders::bootstrap::env::{Environment, RawEnv};
use crate::deciders::bootstrap::text::Lossy;
use crate::deciders::bootstrap::{Bootstrap, HEADER_LEN, Header, MESSAGE_MAX};
use crate::deciders::policy::{Credentials, Policy};
#[cfg(feature = "legacy")]
use crate::legacy::first_steps;
use crate::scripts::pipe::read_full;
use crate::scripts::procfs;
use crate::scripts::stage::{Context, Outcome, StageEnd, parent};
use crate::scripts::unshare::refuse_impossible;
use crate::sys::Sys;
use crate::sys::types::{CloneFlags, Errno, Fd, FsType, SocketType, TidAddress};
use crate::words::error::{Doing, Error, InitPipeKind, Refusal};
use crate::words::log::{Level, Log};

/// The memory that the core uses. The caller allocates it before the bootstrap begins.
#[derive(Debug)]
pub struct Scratch<'s> {
    /// For the message: [`MESSAGE_MAX`] bytes. A message that is longer than this buffer is refused.
    pub message: &'s mut [u8],
}

/// Runs the bootstrap that the environment asks for, like runc's C function of this name.
///
/// Runs as the program that the launcher started: a single thread, in the launcher's namespaces, with the
/// launcher's privileges. After [`Outcome::HandOver`] this process is the container's init.
pub fn nsexec<S: Sys>(sys: &mut S, raw: RawEnv<'_>, policy: &Policy, scratch: &mut Scratch<'_>) -> Outcome {
    match Environment::parse(raw, policy.dialect) {
        Ok(environment) => match missing_log_pipe(sys, environment) {
            None => bootstrap_with_first_steps(sys, environment, policy, scratch),
            Some(fd) => {
                let mut log = Log::open(sys, None, Level::Debug, policy.log_form);
                log.fatal(sys, &Error::Os { doing: Doing::UseLogPipe(fd), errno: Errno::EBADF });
                Outcome::Exit(1)
            }
        },
        // As in runc, a malformed number is fatal even if the environment names no init pipe.
        Err(error) => {
            #[cfg(feature = "legacy")]
            if first_steps::report_log_pipe(sys, policy.dialect, error) {
                return Outcome::Exit(1);
            }
            let known = Environment::new(None, error.log, Level::Debug);
            open_log(sys, known, policy).fatal(sys, &Error::Environment(error));
            Outcome::Exit(1)
        }
    }
}

fn open_log<S: Sys>(sys: &mut S, environment: Environment<'_>, policy: &Policy) -> Log {
    let log = Log::open(sys, environment.log, environment.level, policy.log_form);
    #[cfg(feature = "legacy")]
    let log = log.without_pipe(policy.dialect.legacy.fatal_without_log);
    log
}

/// Returns the log pipe's descriptor if it is not open. The next socket that a stage creates would get that
/// number, and log records would corrupt the sync protocol.
fn missing_log_pipe<S: Sys>(sys: &mut S, environment: Environment<'_>) -> Option<Fd> {
    // Without an init pipe the process must not change or check anything.
    let fd = environment.log.filter(|_| environment.init.is_some())?;
    // Another errno means that fstatfs(2) was refused; the descriptor itself may be open.
    (sys.fstatfs(fd) == Err(Errno::EBADF)).then_some(fd)
}

/// Checks the init pipe, then calls [`bootstrap`]. The descriptors are known. Reports its own failure, once.
///
/// If the dialect has them, the sealed copy precedes the check, and the ready byte follows it.
///
/// Runs as the program of [`nsexec`]. The launcher writes the message before the ready byte or after it.
pub fn bootstrap_with_first_steps<S: Sys>(
    sys: &mut S,
    environment: Environment<'_>,
    policy: &Policy,
    scratch: &mut Scratch<'_>,
) -> Outcome {
    let Some(init_pipe) = environment.init else { return Outcome::NotInit };
    // The log is opened only on failure. It blocks SIGPIPE, and the exec of the sealed copy would inherit
    // that mask.
    #[cfg(not(feature = "legacy"))]
    let checked = check_init_pipe(sys, init_pipe);
    #[cfg(feature = "legacy")]
    let checked =
        first_steps::check_init_pipe(sys, init_pipe, policy.dialect, environment.own, scratch.message);
    if let Err(error) = checked {
        open_log(sys, environment, policy).fatal(sys, &error);
        return Outcome::Exit(1);
    }
    bootstrap(sys, environment, policy, scratch)
}

/// Refuses an init pipe on which a read could wait without end.
///
/// A datagram or seqpacket socket reports no end of file when the launcher dies, or truncates the message. An
/// eventfd, a timerfd and similar descriptors carry no message and have no end of file. If the kernel cannot
/// classify the descriptor, the read of the message reports the error.
///
/// Runs as the program of [`nsexec`], before its first access to the pipe.
///
/// # Errors
/// [`Error::InitPipe`].
pub fn check_init_pipe<S: Sys>(sys: &mut S, fd: Fd) -> Result<(), Error<'static>> {
    let kind = match sys.socket_type(fd) {
        Ok(SocketType::STREAM) => return Ok(()),
        Ok(kind) => InitPipeKind::Socket(kind),
        Err(Errno::ENOTSOCK) => match sys.fstatfs(fd) {
            Ok(FsType::ANON_INODE) => InitPipeKind::AnonymousInode,
            Ok(FsType::PIDFS) => InitPipeKind::Pidfd,
            _ => return Ok(()),
        },
        Err(_) => return Ok(()),
    };
    Err(Error::InitPipe { fd, kind })
}

/// Runs the bootstrap over known descriptors. Reports its own failure, once.
///
/// Stage 2 returns as root if the policy asks for root: [`Credentials::RootLast`] has the same effect as
/// [`Credentials::Root`] here.
///
/// Runs as the program of [`nsexec`].
pub fn bootstrap<S: Sys>(
    sys: &mut S,
    environment: Environment<'_>,
    policy: &Policy,
    scratch: &mut Scratch<'_>,
) -> Outcome {
    if environment.init.is_none() {
        return Outcome::NotInit;
    }
    let credentials = match policy.credentials {
        Credentials::RootLast => Credentials::Root,
        credentials => credentials,
    };
    bootstrap_of_launcher(sys, environment, &Policy { credentials, ..*policy }, scratch).into()
}

/// Runs the bootstrap like [`bootstrap`], but leaves the [`LastSteps`](crate::stage::LastSteps) of stage 2 to
/// the caller. Without an init pipe the result is status 1.
///
/// Runs as a child of the launcher, which has the descriptors from the launcher and not from the environment.
pub fn bootstrap_of_launcher<S: Sys>(
    sys: &mut S,
    environment: Environment<'_>,
    policy: &Policy,
    scratch: &mut Scratch<'_>,
) -> StageEnd {
    let Some(init_pipe) = environment.init else { return StageEnd::Exit(1) };
    let pipes = (init_pipe, environment);
    let mut log = open_log(sys, environment, policy);
    match stages(sys, &mut log, pipes, policy, scratch) {
        Ok(end) => end,
        Err(error) => {
            #[cfg(feature = "legacy")]
            if let Some(status) = crate::legacy::seed::status_reported(&error) {
                // The failed stage has already reported the cause; a second record would hide it.
                return StageEnd::Exit(status);
            }
            log.fatal(sys, &error);
            #[cfg(feature = "legacy")]
            log.report_failure(sys, 1);
            StageEnd::Exit(1)
        }
    }
}

/// Runs the steps of the bootstrap in order. Returns once in each of the three stages.
fn stages<'m, S: Sys>(
    sys: &mut S,
    log: &mut Log,
    #[cfg_attr(not(feature = "legacy"), expect(unused_variables, reason = "only 1.1 has more variables"))]
    (init_pipe, environment): (Fd, Environment<'_>),
    policy: &Policy,
    scratch: &'m mut Scratch<'_>,
) -> Result<StageEnd, Error<'m>> {
    log.debug(sys, format_args!("=> nsexec container setup"));
    if policy.dialect.affinity_logged {
        log_affinity(sys, log);
    }
    // Blocks until the launcher has moved this process into its cgroup. Nothing that uses resources may come
    // before.
    let bootstrap = read_message(sys, init_pipe, policy, scratch.message)?;
    refuse_impossible(&bootstrap).map_err(Error::Refused)?;
    #[cfg(feature = "legacy")]
    let mount_fds = crate::legacy::sources::check(sys, &bootstrap, environment)?;
    if let Some(score) = bootstrap.oom_score_adj() {
        // Before the process becomes non-dumpable, because then /proc/self belongs to root. Both forks
        // inherit the score.
        let text = Lossy(score.text());
        log.debug(sys, format_args!("update /proc/self/oom_score_adj to '{text}'"));
        procfs::write(sys, c"self/oom_score_adj", score.text_with_nul(), Doing::OomScoreAdj)?;
    }
    if bootstrap.namespaces().is_some() {
        // After the first join, processes in the joined namespaces could ptrace this one or open its
        // descriptors (CVE-2016-9962). Not done if nothing is joined: root would own /proc/self, for no gain.
        log.debug(sys, format_args!("set process as non-dumpable"));
        sys.set_dumpable(false).map_err(|errno| Error::Os { doing: Doing::NonDumpable, errno })?;
    }
    let tid = thread_id_cache(sys);
    let cx = Context {
        bootstrap: &bootstrap,
        policy,
        init_pipe,
        #[cfg(feature = "legacy")]
        mount_fds,
        tid,
    };
    parent::run(sys, log, cx)
}

/// Reads exactly one message and no byte more: the bytes after it belong to the container's init.
fn read_message<'m, S: Sys>(
    sys: &mut S,
    init_pipe: Fd,
    policy: &Policy,
    memory: &'m mut [u8],
) -> Result<Bootstrap<'m>, Error<'m>> {
    let mut header = [0; HEADER_LEN];
    let got = read_full(sys, init_pipe, &mut header)
        .map_err(|errno| Error::Os { doing: Doing::ReadHeader, errno })?;
    let header = Header::parse(header.get(..got).unwrap_or_default()).map_err(Error::Parse)?;
    let want = header.payload_len();
    let payload = memory.get_mut(..want).ok_or(Error::Short {
        doing: Doing::ReadPayload,
        got: 0,
        want: want.min(MESSAGE_MAX),
    })?;
    let got =
        read_full(sys, init_pipe, payload).map_err(|errno| Error::Os { doing: Doing::ReadPayload, errno })?;
    if got < want {
        return Err(Error::Short { doing: Doing::ReadPayload, got, want });
    }
    Bootstrap::parse(payload, policy.dialect).map_err(Error::Parse)
}

/// Logs the CPUs that this process may use. runc's tests look for this record.
fn log_affinity<S: Sys>(sys: &mut S, log: &mut Log) {
    if !log.wants(Level::Debug) {
        return;
    }
    match sys.sched_getaffinity() {
        Ok(mask) => log.debug(sys, format_args!("affinity: {mask:#x}")),
        Err(errno) => log.record(sys, Level::Warning, format_args!("sched_getaffinity: {errno}")),
    }
}

/// Returns where the libc caches the thread id, if it caches it at the address that the kernel reports
/// (`PR_GET_TID_ADDRESS`, prctl(2)).
///
/// glibc does. A raw clone leaves the cache stale in the child, and code that looks up its own thread then
/// crashes (Go 1.22, runc#4233). The clones update the cache through this address. musl registers the address
/// of a lock there: it must not be written to, and it does not hold the thread id. See
/// `docs/protocol.md#the-cached-thread-id`.
///
/// Runs in the process that forks next: stage 0, or the launcher.
pub fn thread_id_cache<S: Sys>(sys: &mut S) -> Option<TidAddress> {
    let cache = sys.tid_address().ok()?;
    (cache.address != 0 && cache.cached == sys.gettid().0).then_some(cache)
}

/// Returns an error if this process has more than one thread.
///
/// Runs as a program before its bootstrap, or before it executes a sealed copy of itself.
///
/// # Errors
/// [`Refusal::Threads`]
pub fn refuse_threads<S: Sys>(sys: &mut S) -> Result<(), Refusal> {
    // unshare(2) with CLONE_THREAD has no effect in a process with one thread. In any other process it fails
    // with EINVAL: one call, without a lookup in /proc.
    let Err(refused) = sys.unshare(CloneFlags::THREAD) else { return Ok(()) };
    // /proc has the number of threads, and the answer if a seccomp filter refuses every unshare. A directory
    // has one link from its parent and one from itself. Each thread adds a subdirectory, and so a link.
    match sys.link_count(c"/proc/self/task").map(|links| links.saturating_sub(2)) {
        // One: the other thread has just ended.
        Ok(0..=1) => Ok(()),
        Ok(threads) => Err(Refusal::Threads(Some(threads))),
        Err(_) if refused == Errno::EINVAL => Err(Refusal::Threads(None)),
        // The stages will report that unshare(2) is refused.
        Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::string::ToString;

    use mockall::predicate::eq;

    use super::*;
    use crate::sys::MockSys;
    use crate::sys::types::Pid;

    const INIT: Fd = Fd(7);

    #[test]
    fn unsuitable_init_pipe_is_rejected_before_the_first_use() {
        let not_a_socket = Err(Errno::ENOTSOCK);
        let cases = [
            (Ok(SocketType::STREAM), None, None),
            (Ok(SocketType::DGRAM), None, Some("a datagram socket")),
            (Ok(SocketType::SEQPACKET), None, Some("a seqpacket socket")),
            (Ok(SocketType::RAW), None, Some("a raw socket")),
            (Ok(SocketType(4)), None, Some("a socket of type 4")),
            (
                not_a_socket,
                Some(Ok(FsType::ANON_INODE)),
                Some("an anonymous inode (eventfd, timerfd, signalfd, epoll, inotify or the like)"),
            ),
            (not_a_socket, Some(Ok(FsType::PIDFS)), Some("a pidfd")),
            // A pipe.
            (not_a_socket, Some(Ok(FsType(0x5049_5045))), None),
            (not_a_socket, Some(Err(Errno::EIO)), None),
            // A closed descriptor is reported by the read. A seccomp filter may refuse a call that it does
            // not list.
            (Err(Errno::EBADF), None, None),
            (Err(Errno::EPERM), None, None),
        ];
        for (kind, fs_type, refused) in cases {
            let mut sys = MockSys::new();
            sys.expect_socket_type().once().with(eq(INIT)).return_const(kind);
            if let Some(fs_type) = fs_type {
                sys.expect_fstatfs().once().with(eq(INIT)).return_const(fs_type);
            }
            let text = |kind| {
                std::format!("_LIBCONTAINER_INITPIPE=7 is {kind}: it must be a stream socket or a pipe")
            };
            let error = check_init_pipe(&mut sys, INIT).err();
            assert_eq!(error.map(|error| error.to_string()), refused.map(text), "{kind:?}, {fs_type:?}");
        }
    }

    /// A process that can mount over /proc must not redirect the write of the score to another file.
    #[test]
    fn oom_score_is_written_only_to_procfs() {
        let mut sys = MockSys::new();
        sys.expect_openat().once().returning(|_, _, _| Ok(Fd(8)));
        sys.expect_openat2().once().returning(|_, _, _| Ok(Fd(9)));
        sys.expect_close().once().with(eq(Fd(8))).returning(|_| Ok(()));
        sys.expect_fstatfs().once().returning(|_| Ok(FsType(0x0102_1994)));
        // A write would be an unexpected call of the mock.
        let refused = procfs::write(&mut sys, c"self/oom_score_adj", b"5\0", Doing::OomScoreAdj);
        let found = FsType(0x0102_1994);
        assert_eq!(refused, Err(Error::WrongFileSystem { doing: Doing::OomScoreAdj, found }));
    }

    /// musl registers the address of a lock, which must not be overwritten.
    #[test]
    fn tid_address_without_our_tid_is_not_a_cache() {
        for (address, cached, is_cache) in
            [(0x7f00, 7, true), (0x7f00, 0, false), (0x7f00, 8, false), (0, 7, false)]
        {
            let mut sys = MockSys::new();
            let at = TidAddress { address, cached };
            sys.expect_tid_address().returning(move || Ok(at));
            sys.expect_gettid().returning(|| Pid(7));
            assert_eq!(thread_id_cache(&mut sys), is_cache.then_some(at), "{at:?}");
        }
    }

    #[test]
    fn threads_are_detected_with_and_without_proc() {
        let cases = [
            (Ok(()), None, Ok(())),
            (Err(Errno::EINVAL), Some(Ok(4)), Err(Refusal::Threads(Some(2)))),
            (Err(Errno::EINVAL), Some(Ok(3)), Ok(())),
            (Err(Errno::EINVAL), Some(Err(Errno::ENOENT)), Err(Refusal::Threads(None))),
            (Err(Errno::EPERM), Some(Ok(3)), Ok(())),
            (Err(Errno::EPERM), Some(Ok(4)), Err(Refusal::Threads(Some(2)))),
            (Err(Errno::EPERM), Some(Err(Errno::ENOENT)), Ok(())),
        ];
        for (unshared, links, wanted) in cases {
            let mut sys = MockSys::new();
            sys.expect_unshare().once().withf(|flags| *flags == CloneFlags::THREAD).return_const(unshared);
            if let Some(links) = links {
                sys.expect_link_count().once().return_const(links);
            }
            assert_eq!(refuse_threads(&mut sys), wanted, "{unshared:?}, {links:?}");
        }
    }
}
