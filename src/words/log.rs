//! Log records: one JSON object per line, one write per record, at most [`RECORD_MAX`] bytes.
//!
//! [`layout`] formats a record; [`Log`] writes it. A log pipe without an active reader never blocks a stage:
//! a record below fatal is dropped and counted, a fatal record waits a bounded time. See
//! `docs/protocol.md#log-records`.

use core::fmt::{self, Write};

pub use crate::deciders::log_level::Level;
use crate::deciders::policy::LogForm;
use crate::sys::Sys;
use crate::sys::types::{Errno, Fd, MaskHow, Pid, PollEvents, PollFd, SignalSet};
use crate::words::error::{Code, Error};
use crate::words::json::{Escaped, Line};

/// The maximum size of a record in bytes: `PIPE_BUF`, up to which the three writers never interleave
/// (pipe(7)). Go's reader accepts lines of up to 65,536 bytes.
pub const RECORD_MAX: usize = 4096;

/// The time for which a fatal record waits for room in a full pipe, in milliseconds. The reader may be slow,
/// or may never read again.
pub const FATAL_WAIT_MS: i32 = 200;

/// The process that writes a record.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Writer {
    /// The process before it becomes a stage.
    Setup,
    /// Stage 0, 1 or 2.
    Stage(u8),
}

/// The fields that a [`LogForm::Detailed`] record has besides its text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Details {
    /// [`Error::code`].
    pub code: Code,
    /// [`Error::errno`].
    pub errno: Option<Errno>,
}

/// Formats a record: the text escaped as runc does and truncated with an ellipsis if it is too long, and a
/// newline at the end. Returns the used length of `buffer`.
pub fn layout(
    buffer: &mut [u8; RECORD_MAX],
    level: Level,
    (writer, pid): (Writer, Pid),
    text: fmt::Arguments<'_>,
    details: Option<Details>,
) -> usize {
    /// The room after the text in bytes: the ellipsis, the longest details and the end of the record.
    const TAIL: usize = 96;
    let mut line = Line::new(buffer);
    // None of these can fail: the head is short, the text has a limit, the tail has its own room.
    let _ = write!(line, "{{\"level\":\"{}\", \"msg\": \"", level.name());
    let _ = match writer {
        Writer::Setup => write!(line, "nsexec[{pid}]: "),
        Writer::Stage(stage) => write!(line, "nsexec-{stage}[{pid}]: "),
    };
    let whole = Escaped(line.limited(RECORD_MAX.saturating_sub(TAIL))).write_fmt(text);
    let _ = line.write_str(if whole.is_ok() { "\"" } else { "...\"" });
    if let Some(Details { code, errno }) = details {
        let _ = write!(line, ", \"code\": \"{}\"", code.as_str());
        if let Some(Errno(number)) = errno {
            let _ = write!(line, ", \"errno\": {number}");
        }
    }
    let _ = line.write_str("}\n");
    line.len()
}

/// The log of this process: its descriptor, its filter and its state.
#[derive(Clone, Copy, Debug)]
pub struct Log {
    fd: Option<Fd>,
    level: Level,
    form: LogForm,
    fatal_without_pipe: Option<&'static str>,
    writer: Writer,
    pid: Option<Pid>,
    dropped: u32,
    raised_sigpipe: bool,
    mask: SignalSet,
    /// The sync pipe over which this stage reports its failure to stage 0, in the seed.
    #[cfg(feature = "legacy")]
    pub(crate) failure_pipe: Option<Fd>,
}

impl Log {
    /// Returns a log that writes records up to `level` to `fd`. Without `fd`, only a fatal text is written,
    /// to standard error: see [`Self::without_pipe`].
    ///
    /// SIGPIPE is blocked from here to [`Self::restore_signals`]: the reader of a log pipe may close it at
    /// any time, and the stage must survive that.
    pub fn open<S: Sys>(sys: &mut S, fd: Option<Fd>, level: Level, form: LogForm) -> Self {
        // Only an invalid argument makes this fail. Then nothing is blocked, and the mask need not be
        // restored.
        let mask = sys.sigprocmask(MaskHow::Block, SignalSet::PIPE).unwrap_or(SignalSet::PIPE);
        Self::new(fd, level, form, mask)
    }

    /// Returns a log that writes no records. For the launcher, which passes its own errors on as values.
    #[cfg(feature = "std")]
    pub(crate) const fn without_records(form: LogForm) -> Self {
        Self::new(None, Level::Fatal, form, SignalSet::PIPE).without_pipe(None)
    }

    const fn new(fd: Option<Fd>, level: Level, form: LogForm, mask: SignalSet) -> Self {
        let (writer, pid, dropped, raised_sigpipe) = (Writer::Setup, None, 0, false);
        Self {
            fd,
            level,
            form,
            fatal_without_pipe: Some("FATAL: "),
            writer,
            pid,
            dropped,
            raised_sigpipe,
            mask,
            #[cfg(feature = "legacy")]
            failure_pipe: None,
        }
    }

    /// Sets the text before a fatal text on standard error, where it is written without a log pipe. `None`:
    /// it is not written. The default, `FATAL: `, is that of runc 1.1 and later.
    #[must_use]
    pub const fn without_pipe(mut self, head: Option<&'static str>) -> Self {
        self.fatal_without_pipe = head;
        self
    }

    /// Sets the stage of this process. Its pid is read again for the next record.
    pub fn enter_stage(&mut self, stage: u8) {
        self.writer = Writer::Stage(stage);
        self.pid = None;
    }

    /// Prepares the log for a new process, which is stage `stage`. It has its own pid, no pending signal and
    /// no dropped records.
    pub fn forked(&mut self, stage: u8) {
        self.enter_stage(stage);
        #[cfg(feature = "legacy")]
        {
            self.failure_pipe = None;
        }
        self.raised_sigpipe = false;
        self.dropped = 0;
    }

    /// Returns whether records of this level are written.
    #[must_use]
    pub fn wants(&self, level: Level) -> bool {
        self.fd.is_some() && level <= self.level
    }

    /// Writes a record of level debug.
    pub fn debug<S: Sys>(&mut self, sys: &mut S, text: fmt::Arguments<'_>) {
        self.record(sys, Level::Debug, text);
    }

    /// Writes a record of a level below fatal. It is filtered by level, and dropped if the pipe is full.
    pub fn record<S: Sys>(&mut self, sys: &mut S, level: Level, text: fmt::Arguments<'_>) {
        if self.wants(level) {
            self.write_below_fatal(sys, level, text);
        }
    }

    /// Not inlined, like [`Self::fatal_text`]: the buffer would be part of the stack frame of each stage,
    /// whose pages the kernel copies for the next stage.
    #[inline(never)]
    fn write_below_fatal<S: Sys>(&mut self, sys: &mut S, level: Level, text: fmt::Arguments<'_>) {
        let mut buffer = [0; RECORD_MAX];
        let writer = (self.writer, self.own_pid(sys));
        let len = layout(&mut buffer, level, writer, text, None);
        if !self.write_record(sys, buffer.get(..len).unwrap_or_default(), 0) {
            self.dropped = self.dropped.saturating_add(1);
        }
    }

    /// Writes the error that ends this process. It is never filtered, and waits a bounded time for room.
    /// Without a log pipe it goes to standard error, if the dialect does so.
    pub fn fatal<S: Sys>(&mut self, sys: &mut S, error: &Error<'_>) {
        let details = match self.form {
            LogForm::Runc => None,
            LogForm::Detailed => Some(Details { code: error.code(), errno: error.errno() }),
        };
        self.fatal_text(sys, format_args!("{error}"), details);
    }

    /// Writes any text like [`Self::fatal`].
    #[inline(never)]
    pub fn fatal_text<S: Sys>(&mut self, sys: &mut S, text: fmt::Arguments<'_>, details: Option<Details>) {
        self.report_dropped(sys);
        let mut buffer = [0; RECORD_MAX];
        if self.fd.is_none() {
            let Some(head) = self.fatal_without_pipe else { return };
            let mut line = Line::new(&mut buffer);
            let whole = write!(line.limited(RECORD_MAX.saturating_sub(4)), "{head}{text}");
            let _ = line.write_str(if whole.is_ok() { "\n" } else { "...\n" });
            // A failure of this write cannot be reported anywhere.
            let _ = sys.write(Fd::STDERR, line.bytes());
            return;
        }
        let writer = (self.writer, self.own_pid(sys));
        let len = layout(&mut buffer, Level::Fatal, writer, text, details);
        self.write_record(sys, buffer.get(..len).unwrap_or_default(), FATAL_WAIT_MS);
    }

    /// Writes a record with the number of records that this process dropped, if any. Called at the end of
    /// each stage.
    pub fn report_dropped<S: Sys>(&mut self, sys: &mut S) {
        let count = core::mem::take(&mut self.dropped);
        if count > 0 {
            self.record(
                sys,
                Level::Warning,
                format_args!("{count} log records dropped: the log pipe was full"),
            );
        }
    }

    /// Restores the caller's signal mask, and discards a pending SIGPIPE that a write of this log raised.
    ///
    /// # Errors
    /// The errno of the system call. Only an invalid argument can cause one.
    pub fn restore_signals<S: Sys>(&mut self, sys: &mut S) -> Result<(), Errno> {
        // A new process starts without pending signals (fork(2)). So this signal was raised here, even if the
        // caller had blocked it.
        if self.raised_sigpipe {
            // EAGAIN: the signal is no longer pending.
            let _ = sys.sigtimedwait(SignalSet::PIPE);
            self.raised_sigpipe = false;
        }
        if self.mask.contains(SignalSet::PIPE) {
            return Ok(());
        }
        sys.sigprocmask(MaskHow::Set, self.mask).map(|_| ())
    }

    fn own_pid<S: Sys>(&mut self, sys: &mut S) -> Pid {
        match self.pid {
            Some(pid) => pid,
            None => *self.pid.insert(sys.getpid()),
        }
    }

    /// Writes the record in one call, without blocking. If the pipe is full, waits once, for at most
    /// `wait_ms` milliseconds. Returns whether the record was written.
    fn write_record<S: Sys>(&mut self, sys: &mut S, record: &[u8], wait_ms: i32) -> bool {
        let Some(fd) = self.fd else { return false };
        let mut waited = false;
        loop {
            let result = match sys.write_nowait(fd, record) {
                // This file type, or this kernel (before 6.4 for pipes), does not support writes with
                // RWF_NOWAIT, or a seccomp filter refuses them (EPERM). So poll for room first. Another
                // writer may fill the pipe in between: then the write waits for the reader.
                Err(Errno::EOPNOTSUPP | Errno::EINVAL | Errno::ENOSYS | Errno::ESPIPE | Errno::EPERM) => {
                    self.write_record_after_poll(sys, fd, record, wait_ms)
                }
                result => result,
            };
            match result {
                Ok(_) => return true,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) if wait_ms > 0 && !waited => {
                    waited = true;
                    let _ = sys.poll(&mut [PollFd::new(fd, PollEvents::OUT)], wait_ms);
                }
                Err(Errno::EPIPE) => {
                    self.raised_sigpipe = true;
                    return false;
                }
                Err(_) => return false,
            }
        }
    }

    fn write_record_after_poll<S: Sys>(
        &self,
        sys: &mut S,
        fd: Fd,
        record: &[u8],
        wait_ms: i32,
    ) -> Result<usize, Errno> {
        match sys.poll(&mut [PollFd::new(fd, PollEvents::OUT)], wait_ms)? {
            // Not EAGAIN, because the wait is already over.
            0 => Err(Errno::ETIMEDOUT),
            _ => sys.write(fd, record),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::MockSys;
    use crate::words::error::Doing;

    /// Two records find no room; then there is room, and the count is written once.
    #[test]
    fn dropped_record_count_is_written_once() {
        let mut sys = MockSys::new();
        sys.expect_sigprocmask().return_const(Ok(SignalSet::EMPTY));
        sys.expect_getpid().once().return_const(Pid(7));
        sys.expect_write_nowait().times(2).return_const(Err(Errno::EAGAIN));
        let mut log = Log::open(&mut sys, Some(Fd(4)), Level::Debug, LogForm::Runc);
        // Nothing has been dropped yet: a write here would be a third one.
        log.report_dropped(&mut sys);
        for _ in 0..2 {
            log.debug(&mut sys, format_args!("no room"));
        }
        // A record that the level filters out is not counted as dropped.
        log.record(&mut sys, Level::Trace, format_args!("too fine"));
        let line = b"{\"level\":\"warning\", \"msg\": \"nsexec[7]: 2 log records dropped: the log pipe was full\"}\n";
        sys.checkpoint();
        sys.expect_write_nowait()
            .once()
            .withf(move |fd, record| *fd == Fd(4) && record == line)
            .returning(|_, record| Ok(record.len()));
        log.report_dropped(&mut sys);
        log.report_dropped(&mut sys);
    }

    /// A filter that refuses pwritev2(2) must not silence the log: the fatal records name the cause of a
    /// failure.
    #[test]
    fn record_is_written_where_a_filter_refuses_the_write_without_waiting() {
        for refused in [Errno::EPERM, Errno::ENOSYS, Errno::EOPNOTSUPP] {
            let mut sys = MockSys::new();
            sys.expect_sigprocmask().return_const(Ok(SignalSet::EMPTY));
            sys.expect_getpid().return_const(Pid(7));
            sys.expect_write_nowait().once().return_const(Err(refused));
            sys.expect_poll().once().returning(|fds, _| {
                fds[0].revents = PollEvents::OUT;
                Ok(1)
            });
            let line = b"{\"level\":\"fatal\", \"msg\": \"nsexec[7]: setsid failed: Invalid argument\"}\n";
            sys.expect_write()
                .once()
                .withf(move |fd, text| *fd == Fd(4) && text == line)
                .returning(|_, text| Ok(text.len()));
            let mut log = Log::open(&mut sys, Some(Fd(4)), Level::Debug, LogForm::Runc);
            log.fatal(&mut sys, &Error::Os { doing: Doing::Setsid, errno: Errno::EINVAL });
            assert_eq!(log.dropped, 0, "{refused}");
        }
    }

    /// A stage starts as a copy of its predecessor, which reports its own count.
    #[test]
    fn dropped_record_count_is_not_inherited_by_a_fork() {
        let mut sys = MockSys::new();
        sys.expect_sigprocmask().return_const(Ok(SignalSet::EMPTY));
        sys.expect_getpid().return_const(Pid(7));
        sys.expect_write_nowait().once().return_const(Err(Errno::EAGAIN));
        let mut log = Log::open(&mut sys, Some(Fd(4)), Level::Debug, LogForm::Runc);
        log.debug(&mut sys, format_args!("no room"));
        let mut copy = log;
        copy.forked(1);
        copy.report_dropped(&mut sys);
        assert_eq!((log.dropped, copy.dropped), (1, 0));
    }

    #[test]
    fn fatal_text_without_log_pipe_follows_the_dialect() {
        for (what, expected) in [
            (Some("FATAL: "), Some(&b"FATAL: setsid failed: Operation not permitted\n"[..])),
            (Some("nsenter: "), Some(b"nsenter: setsid failed: Operation not permitted\n")),
            (None, None),
        ] {
            let mut sys = MockSys::new();
            sys.expect_sigprocmask().return_const(Ok(SignalSet::EMPTY));
            if let Some(expected) = expected {
                sys.expect_write()
                    .once()
                    .withf(move |fd, text| *fd == Fd::STDERR && text == expected)
                    .returning(|_, text| Ok(text.len()));
            }
            let mut log = Log::open(&mut sys, None, Level::Debug, LogForm::Runc).without_pipe(what);
            // Without a log pipe, only fatal texts are written.
            log.debug(&mut sys, format_args!("spawn stage-1"));
            log.fatal(&mut sys, &Error::Os { doing: Doing::Setsid, errno: Errno::EPERM });
        }
    }
}
