//! The first steps of 1.0 and 1.1: the sealed copy and the ready byte. The report of a malformed log pipe is
//! for 1.0 only.

use core::fmt::Write;

use super::dialects::{EnvironmentForm, READY};
use super::errors::Step;
use crate::cloned;
use crate::deciders::bootstrap::Dialect;
use crate::deciders::bootstrap::env::{EnvError, LOG_PIPE, OwnProgram};
use crate::scripts::nsexec;
use crate::scripts::pipe::send_all;
use crate::sys::Sys;
use crate::sys::types::Fd;
use crate::words::error::Error;
use crate::words::json::Line;
use crate::words::log::RECORD_MAX;

/// Checks the init pipe. Makes the sealed copy before the check, and sends the ready byte after it, in the
/// dialects that have them. `memory` is the memory of the message, which has not been read yet.
///
/// Runs as the program that the launcher started, and as its sealed copy. The launcher writes the message
/// before the ready byte or after it.
///
/// # Errors
/// The reason why the copy was not made; [`Error::InitPipe`]; [`Step::InformLauncher`].
pub fn check_init_pipe<S: Sys>(
    sys: &mut S,
    init_pipe: Fd,
    dialect: &Dialect,
    own: OwnProgram<'_>,
    memory: &mut [u8],
) -> Result<(), Error<'static>> {
    if dialect.legacy.cloned_binary {
        cloned::ensure(sys, own, memory)?;
    }
    nsexec::check_init_pipe(sys, init_pipe)?;
    if dialect.legacy.ready_byte {
        // From here on the launcher may kill this process, and nothing is left behind (runc commit
        // 4ecff8d9d).
        send_all(sys, init_pipe, &[READY]).map_err(|errno| Step::InformLauncher.failed(errno))?;
    }
    Ok(())
}

/// Writes the error of a malformed log pipe to standard error, without the format of a log record. 1.0 does
/// so with this error and with no other. Returns whether it was written.
///
/// Runs as the program that the launcher started.
pub fn report_log_pipe<S: Sys>(sys: &mut S, dialect: &Dialect, error: EnvError<'_>) -> bool {
    if error.name != LOG_PIPE || dialect.legacy.environment != EnvironmentForm::TextLevel {
        return false;
    }
    let mut buffer = [0; RECORD_MAX];
    let mut line = Line::new(&mut buffer);
    let whole = write!(line.limited(RECORD_MAX.saturating_sub(4)), "{error}");
    let _ = line.write_str(if whole.is_ok() { "\n" } else { "...\n" });
    // A failure of this write cannot be reported anywhere.
    let _ = sys.write(Fd::STDERR, line.bytes());
    true
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::string::ToString;

    use mockall::Sequence;
    use mockall::predicate::eq;

    use super::*;
    use crate::deciders::bootstrap::env::RawEnv;
    use crate::deciders::policy::Policy;
    use crate::scripts::nsexec::{Scratch, nsexec};
    use crate::scripts::stage::Outcome;
    use crate::sys::MockSys;
    use crate::sys::types::{Errno, Seals, SocketType};

    const INIT: Fd = Fd(7);

    fn first(sys: &mut MockSys, dialect: &'static Dialect) -> Result<(), std::string::String> {
        check_init_pipe(sys, INIT, dialect, OwnProgram::default(), &mut [0; 16])
            .map_err(|error| error.to_string())
    }

    /// Expects one check of the init pipe, which is a stream socket.
    fn stream(sys: &mut MockSys, order: &mut Sequence) {
        let stream = Ok(SocketType::STREAM);
        sys.expect_socket_type().once().in_sequence(order).with(eq(INIT)).return_const(stream);
    }

    #[test]
    fn ready_byte_follows_the_sealed_copy_in_1_0_and_1_1_only() {
        for dialect in [&Dialect::V1_0, &Dialect::V1_1] {
            let (mut sys, mut order) = (MockSys::new(), Sequence::new());
            sys.expect_openat().once().in_sequence(&mut order).return_const(Ok(Fd(8)));
            sys.expect_get_seals().once().in_sequence(&mut order).return_const(Ok(Seals::CONTENT));
            sys.expect_close().once().in_sequence(&mut order).return_const(Ok(()));
            stream(&mut sys, &mut order);
            let byte: &[u8] = &[0];
            sys.expect_send()
                .once()
                .in_sequence(&mut order)
                .with(eq(INIT), eq(byte))
                .return_const(Ok(1_usize));
            assert_eq!(first(&mut sys, dialect), Ok(()));
        }
        for dialect in [&Dialect::SEED, &Dialect::V1_2] {
            let (mut sys, mut order) = (MockSys::new(), Sequence::new());
            stream(&mut sys, &mut order);
            assert_eq!(first(&mut sys, dialect), Ok(()));
        }
    }

    #[test]
    fn no_ready_byte_is_sent_if_the_copy_fails() {
        let mut sys = MockSys::new();
        sys.expect_openat().once().return_const(Err(Errno::EMFILE));
        let text = "could not ensure we are a cloned binary: Too many open files (opening /proc/self/exe)"
            .to_string();
        assert_eq!(first(&mut sys, &Dialect::V1_1), Err(text));
    }

    #[test]
    fn undeliverable_ready_byte_is_an_error() {
        let mut sys = MockSys::new();
        sys.expect_openat().return_const(Ok(Fd(8)));
        sys.expect_get_seals().return_const(Ok(Seals::CONTENT));
        sys.expect_close().return_const(Ok(()));
        stream(&mut sys, &mut Sequence::new());
        sys.expect_send().once().return_const(Err(Errno::ECONNRESET));
        let text = "could not inform the parent we are past initial setup: Broken pipe".to_string();
        assert_eq!(first(&mut sys, &Dialect::V1_0), Err(text));
    }

    #[test]
    fn malformed_log_pipe_of_1_0_is_written_to_stderr() {
        let wrong: [(&[u8], &[u8]); 2] = [
            (b"x", b"unable to parse _LIBCONTAINER_LOGPIPE, value: x\n"),
            (b"-7", b"bad value for _LIBCONTAINER_LOGPIPE=-7 (-7)\n"),
        ];
        for (value, text) in wrong {
            let mut sys = MockSys::new();
            sys.expect_write().once().with(eq(Fd::STDERR), eq(text)).returning(|_, text| Ok(text.len()));
            let raw = RawEnv { log_pipe: Some(value), ..RawEnv::default() };
            let outcome =
                nsexec(&mut sys, raw, &Policy::runc(&Dialect::V1_0), &mut Scratch { message: &mut [] });
            assert_eq!(outcome, Outcome::Exit(1));
        }
    }
}
