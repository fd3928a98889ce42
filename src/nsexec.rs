//! The top script, a table of contents: log, message, oom score, dumpable, stages.

use crate::bootstrap::env::{Environment, RawEnv};
use crate::bootstrap::text::Lossy;
use crate::bootstrap::{Bootstrap, ByteOrder, HEADER_LEN, Header, MESSAGE_MAX};
use crate::error::{Doing, Error};
use crate::log::{Level, Log};
use crate::namespace::unshare::refuse_impossible;
use crate::pipe::read_full;
use crate::policy::Policy;
use crate::stage::{Context, Outcome, parent};
use crate::sys::Sys;
use crate::sys::types::{Errno, Fd, FsType, OpenFlags, TidAddress};

/// The memory that the core works in, made by the edge before anything else.
#[derive(Debug)]
pub struct Scratch<'s> {
    /// For the message: [`MESSAGE_MAX`] bytes; a longer one is refused, and so is one longer than this.
    pub message: &'s mut [u8],
}

/// The bootstrap as the environment asks for it: what runc's C function of this name does.
///
/// We are whoever the launcher started, with a single thread, in its namespaces, with its privileges. After a
/// hand-over we are the container's init.
pub fn nsexec<S: Sys>(sys: &mut S, raw: RawEnv<'_>, policy: &Policy, scratch: &mut Scratch<'_>) -> Outcome {
    match Environment::parse(raw, policy.dialect) {
        Ok(environment) => match missing_log_pipe(sys, environment) {
            None => bootstrap(sys, environment, policy, scratch),
            Some(fd) => {
                let mut log = Log::open(sys, None, Level::Debug, policy.log_form);
                log.fatal(sys, &Error::Os { doing: Doing::UseLogPipe(fd), errno: Errno::EBADF });
                Outcome::Exit(1)
            }
        },
        // A wrong number kills the process also where no init pipe is named, as in runc.
        Err(error) => {
            let mut log = Log::open(sys, error.log, Level::Debug, policy.log_form);
            log.fatal(sys, &Error::Environment(error));
            Outcome::Exit(1)
        }
    }
}

/// The log pipe's number where it is none of an open descriptor: a socket of ours would take it, and the records would go
/// into the stages' conversation.
fn missing_log_pipe<S: Sys>(sys: &mut S, environment: Environment) -> Option<Fd> {
    // Without an init pipe nothing is touched.
    let fd = environment.log.filter(|_| environment.init.is_some())?;
    // Any other refusal is one of the call, and not of the descriptor.
    (sys.fstatfs(fd) == Err(Errno::EBADF)).then_some(fd)
}

/// The bootstrap over known descriptors. Reports its own failure, once.
///
/// We are as in [`nsexec`], or the launcher's own child, which knows its descriptors without an environment.
pub fn bootstrap<S: Sys>(
    sys: &mut S,
    environment: Environment,
    policy: &Policy,
    scratch: &mut Scratch<'_>,
) -> Outcome {
    let Some(init_pipe) = environment.init else { return Outcome::NotInit };
    let mut log = Log::open(sys, environment.log, environment.level, policy.log_form);
    match stages(sys, &mut log, init_pipe, policy, scratch) {
        Ok(outcome) => outcome,
        Err(error) => {
            log.fatal(sys, &error);
            Outcome::Exit(1)
        }
    }
}

/// The table of contents. Comes back in each of the three stages.
fn stages<'m, S: Sys>(
    sys: &mut S,
    log: &mut Log,
    init_pipe: Fd,
    policy: &Policy,
    scratch: &'m mut Scratch<'_>,
) -> Result<Outcome, Error<'m>> {
    log.debug(sys, format_args!("=> nsexec container setup"));
    log_affinity(sys, log);
    // Blocks until the launcher has moved us where it wants us, so nothing that uses resources comes before.
    let bootstrap = read_message(sys, init_pipe, policy, scratch.message)?;
    refuse_impossible(&bootstrap).map_err(Error::Refused)?;
    if let Some(score) = bootstrap.oom_score_adj() {
        // While /proc/self is still ours; both forks inherit it.
        let text = Lossy(score.text());
        log.debug(sys, format_args!("update /proc/self/oom_score_adj to '{text}'"));
        write_oom_score(sys, score.text_with_nul())?;
    }
    if bootstrap.namespaces().is_some() {
        // From the first join on, processes of the joined namespaces could look into us, and into what we hold
        // (CVE-2016-9962). Not done where nothing is joined: /proc/self would be root's for no gain.
        log.debug(sys, format_args!("set process as non-dumpable"));
        sys.set_dumpable(false).map_err(|errno| Error::Os { doing: Doing::NonDumpable, errno })?;
    }
    let tid = thread_id_cache(sys);
    parent::run(sys, log, Context { bootstrap: &bootstrap, policy, init_pipe, tid })
}

/// Reads exactly one message, and not a byte more: what follows it in the pipe is the init's.
fn read_message<'m, S: Sys>(
    sys: &mut S,
    init_pipe: Fd,
    policy: &Policy,
    memory: &'m mut [u8],
) -> Result<Bootstrap<'m>, Error<'m>> {
    let mut header = [0; HEADER_LEN];
    let got = read_full(sys, init_pipe, &mut header)
        .map_err(|errno| Error::Os { doing: Doing::ReadHeader, errno })?;
    let header =
        Header::parse(header.get(..got).unwrap_or_default(), ByteOrder::NATIVE).map_err(Error::Parse)?;
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
    Bootstrap::parse(payload, policy.dialect, ByteOrder::NATIVE).map_err(Error::Parse)
}

/// A hook of runc's tests: which CPUs an init may use.
fn log_affinity<S: Sys>(sys: &mut S, log: &mut Log) {
    if !log.wants(Level::Debug) {
        return;
    }
    match sys.sched_getaffinity() {
        Ok(mask) => log.debug(sys, format_args!("affinity: {mask:#x}")),
        Err(errno) => log.record(sys, Level::Warning, format_args!("sched_getaffinity: {errno}")),
    }
}

fn write_oom_score<'m, S: Sys>(sys: &mut S, text: &[u8]) -> Result<(), Error<'m>> {
    let doing = Doing::OomScoreAdj;
    let os = |errno| Error::Os { doing, errno };
    let fd = sys.openat(Fd::CWD, c"/proc/self/oom_score_adj", OpenFlags::ReadWrite).map_err(os)?;
    // As for stage 1's files: only procfs is written to.
    match sys.fstatfs(fd).map_err(os)? {
        FsType::PROC => {}
        found => return Err(Error::WrongFileSystem { doing, found }),
    }
    let written = loop {
        match sys.write(fd, text) {
            Err(Errno::EINTR) => {}
            result => break result,
        }
    };
    let _ = sys.close(fd);
    match written.map_err(os)? {
        got if got == text.len() => Ok(()),
        got => Err(Error::Short { doing, got, want: text.len() }),
    }
}

/// Where the libc caches the thread id, if it does so at the address that the kernel knows.
///
/// glibc does. A clone past its back leaves the cache stale in the child, which crashes what asks for its own
/// thread (Go 1.22, runc#4233); the clones refresh it through this address. musl registers the address of a lock
/// there, which must not be written to, and which does not hold our number.
///
/// We are whoever forks next: stage 0, or the launcher.
pub fn thread_id_cache<S: Sys>(sys: &mut S) -> Option<TidAddress> {
    let cache = sys.tid_address().ok()?;
    (cache.address != 0 && cache.cached == sys.gettid().0).then_some(cache)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::MockSys;
    use crate::sys::types::Pid;

    /// Whoever can mount over /proc must not get our score written into a file of theirs.
    #[test]
    fn a_score_is_written_to_procfs_alone() {
        let mut sys = MockSys::new();
        sys.expect_openat().once().returning(|_, _, _| Ok(Fd(9)));
        sys.expect_fstatfs().once().returning(|_| Ok(FsType(0x0102_1994)));
        // A write would be a call that nobody expects.
        let refused = write_oom_score(&mut sys, b"5\0");
        let found = FsType(0x0102_1994);
        assert_eq!(refused, Err(Error::WrongFileSystem { doing: Doing::OomScoreAdj, found }));
    }

    /// musl registers the address of a lock, and nothing may be written there.
    #[test]
    fn an_address_that_does_not_hold_our_number_is_no_cache() {
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
}
