//! Log records: one JSON object a line, one write each, at most [`RECORD_MAX`] bytes.
//!
//! The layout is a decider ([`layout`]); [`Log`] is the script that writes. A log pipe that nobody reads never
//! blocks a stage: a record below fatal is dropped and counted, a fatal one waits a bounded time.

use core::fmt::{self, Write};

use crate::bootstrap::dialect::FatalWithoutLog;
use crate::error::Error;
use crate::json::{Escaped, Line};
use crate::pipe::send_all;
use crate::policy::LogForm;
use crate::sync::Message;
use crate::sys::Sys;
use crate::sys::types::{Errno, Fd, MaskHow, Pid, PollEvents, PollFd, SignalSet};

/// `PIPE_BUF`: up to this size three writers never interleave (pipe(7)). Go's reader takes 65,536 a line.
pub const RECORD_MAX: usize = 4096;

/// How long a fatal record waits for room in a full pipe: the reader may be slow, and it may be gone for good.
pub const FATAL_WAIT_MS: i32 = 200;

/// How grave a record is. The numbers are those of `_LIBCONTAINER_LOGLEVEL` (logrus).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Level {
    /// 0
    Panic,
    /// 1
    Fatal,
    /// 2
    Error,
    /// 3
    Warning,
    /// 4
    Info,
    /// 5
    Debug,
    /// 6
    Trace,
}

impl Level {
    /// As it stands in a record.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Panic => "panic",
            Self::Fatal => "fatal",
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }

    /// The level with this number; what is beyond the last is the last.
    #[must_use]
    pub const fn from_number(number: u32) -> Self {
        match number {
            0 => Self::Panic,
            1 => Self::Fatal,
            2 => Self::Error,
            3 => Self::Warning,
            4 => Self::Info,
            5 => Self::Debug,
            _ => Self::Trace,
        }
    }
}

/// Which process writes a record.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Writer {
    /// Before a stage is chosen.
    Setup,
    /// Stage 0, 1 or 2.
    Stage(u8),
}

/// What a [`LogForm::Detailed`] record says besides its text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Details {
    /// [`Error::code`].
    pub code: &'static str,
    /// [`Error::errno`].
    pub errno: Option<Errno>,
}

/// The bytes of a record: the text escaped as runc does, cut with an ellipsis where it is too long, a newline
/// at the end. Gives the length used of `buffer`.
pub fn layout(
    buffer: &mut [u8; RECORD_MAX],
    level: Level,
    (writer, pid): (Writer, Pid),
    text: fmt::Arguments<'_>,
    details: Option<Details>,
) -> usize {
    /// Room behind the text: the ellipsis, the longest details and the end of the record.
    const TAIL: usize = 96;
    let mut line = Line::new(buffer);
    // None of these can fail: the head is short, the text has its own limit, the tail has its room.
    let _ = write!(line, "{{\"level\":\"{}\", \"msg\": \"", level.name());
    let _ = match writer {
        Writer::Setup => write!(line, "nsexec[{pid}]: "),
        Writer::Stage(stage) => write!(line, "nsexec-{stage}[{pid}]: "),
    };
    let whole = Escaped(line.limited(RECORD_MAX.saturating_sub(TAIL))).write_fmt(text);
    let _ = line.write_str(if whole.is_ok() { "\"" } else { "...\"" });
    if let Some(Details { code, errno }) = details {
        let _ = write!(line, ", \"code\": \"{code}\"");
        if let Some(Errno(number)) = errno {
            let _ = write!(line, ", \"errno\": {number}");
        }
    }
    let _ = line.write_str("}\n");
    line.len()
}

/// Where this process writes its records, and how.
#[derive(Clone, Copy, Debug)]
pub struct Log {
    fd: Option<Fd>,
    level: Level,
    form: LogForm,
    without_pipe: FatalWithoutLog,
    writer: Writer,
    pid: Option<Pid>,
    dropped: u32,
    raised_sigpipe: bool,
    mask: SignalSet,
    /// The sync pipe over which this stage tells stage 0 that it failed.
    stage_0: Option<Fd>,
}

impl Log {
    /// Records up to `level` to `fd`; without one only a fatal text, to standard error: see [`Self::without_pipe`].
    ///
    /// SIGPIPE is blocked from here to [`Self::restore_signals`]: the reader of a log pipe may go at any time,
    /// and the stage must not.
    pub fn open<S: Sys>(sys: &mut S, fd: Option<Fd>, level: Level, form: LogForm) -> Self {
        // Only a wrong argument makes this fail. Then nothing is blocked, and nothing has to be put back.
        let mask = sys.sigprocmask(MaskHow::Block, SignalSet::PIPE).unwrap_or(SignalSet::PIPE);
        let without_pipe = FatalWithoutLog::Fatal;
        let (writer, pid, dropped, raised_sigpipe) = (Writer::Setup, None, 0, false);
        let stage_0 = None;
        Self { fd, level, form, without_pipe, writer, pid, dropped, raised_sigpipe, mask, stage_0 }
    }

    /// What becomes of a fatal text where there is no log pipe, if it is not that of runc 1.1 and later.
    #[must_use]
    pub const fn without_pipe(mut self, what: FatalWithoutLog) -> Self {
        self.without_pipe = what;
        self
    }

    /// This process is stage `stage` from now on, and has a number of its own.
    pub fn enter_stage(&mut self, stage: u8) {
        self.writer = Writer::Stage(stage);
        self.pid = None;
    }

    /// A new process, of stage `stage` from its first call on, has its own number and no pending signal.
    pub fn forked(&mut self, stage: u8) {
        self.enter_stage(stage);
        self.stage_0 = None;
        self.raised_sigpipe = false;
        self.dropped = 0;
    }

    /// From here on a failure of this process is also told to stage 0, over this sync pipe; or to nobody.
    pub fn tell_stage_0(&mut self, sync: Option<Fd>) {
        self.stage_0 = sync;
    }

    /// Tells stage 0 that this process has failed, where it shall know: after the text, since stage 0 kills who is left.
    pub fn report_failure<S: Sys>(&self, sys: &mut S, status: u32) {
        let Some(fd) = self.stage_0 else { return };
        for word in [Message::Failed.value(), status] {
            // A stage 0 that is gone need not know.
            let _ = send_all(sys, fd, &word.to_ne_bytes());
        }
    }

    /// Whether a record of this level is wanted at all.
    #[must_use]
    pub fn wants(&self, level: Level) -> bool {
        self.fd.is_some() && level <= self.level
    }

    /// A record of level debug.
    pub fn debug<S: Sys>(&mut self, sys: &mut S, text: fmt::Arguments<'_>) {
        self.record(sys, Level::Debug, text);
    }

    /// A record of any level below fatal: filtered, and dropped where the pipe has no room.
    pub fn record<S: Sys>(&mut self, sys: &mut S, level: Level, text: fmt::Arguments<'_>) {
        if !self.wants(level) {
            return;
        }
        let mut buffer = [0; RECORD_MAX];
        let writer = (self.writer, self.own_pid(sys));
        let len = layout(&mut buffer, level, writer, text, None);
        if !self.put(sys, buffer.get(..len).unwrap_or_default(), 0) {
            self.dropped = self.dropped.saturating_add(1);
        }
    }

    /// The error that ends this process: never filtered, and given some time. Without a log pipe it goes to standard
    /// error, where the dialect says so.
    pub fn fatal<S: Sys>(&mut self, sys: &mut S, error: &Error<'_>) {
        let details = match self.form {
            LogForm::Runc => None,
            LogForm::Detailed => Some(Details { code: error.code(), errno: error.errno() }),
        };
        self.last_word(sys, format_args!("{error}"), details);
    }

    /// [`Self::fatal`] of any text.
    pub fn last_word<S: Sys>(&mut self, sys: &mut S, text: fmt::Arguments<'_>, details: Option<Details>) {
        self.report_dropped(sys);
        let mut buffer = [0; RECORD_MAX];
        if self.fd.is_none() {
            let head = match self.without_pipe {
                FatalWithoutLog::Fatal => "FATAL: ",
                FatalWithoutLog::Nsenter => "nsenter: ",
                FatalWithoutLog::Nowhere => return,
            };
            let mut line = Line::new(&mut buffer);
            let whole = write!(line.limited(RECORD_MAX.saturating_sub(4)), "{head}{text}");
            let _ = line.write_str(if whole.is_ok() { "\n" } else { "...\n" });
            // There is nobody left to tell if this fails.
            let _ = sys.write(Fd::STDERR, line.bytes());
            return;
        }
        let writer = (self.writer, self.own_pid(sys));
        let len = layout(&mut buffer, Level::Fatal, writer, text, details);
        self.put(sys, buffer.get(..len).unwrap_or_default(), FATAL_WAIT_MS);
    }

    /// Says how many records this process dropped, if it did; called where a stage ends.
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

    /// Gives the caller's signal mask back, and takes away a SIGPIPE that was ours.
    ///
    /// # Errors
    /// The errno of the system call; only a wrong argument can cause one.
    pub fn restore_signals<S: Sys>(&mut self, sys: &mut S) -> Result<(), Errno> {
        // A new process begins without pending signals (fork(2)), so this one is ours, also where the caller had it
        // blocked.
        if self.raised_sigpipe {
            // EAGAIN: it has been taken already.
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

    /// One write, without blocking; with a patience of `wait_ms` if there is no room. Whether it went.
    fn put<S: Sys>(&mut self, sys: &mut S, record: &[u8], wait_ms: i32) -> bool {
        let Some(fd) = self.fd else { return false };
        let mut waited = false;
        loop {
            let result = match sys.write_nowait(fd, record) {
                // This kind of file or this kernel (before 5.10 for pipes) cannot be asked not to wait: ask for
                // room first. Another writer may take the room, which only costs a wait for the reader.
                Err(Errno::EOPNOTSUPP | Errno::EINVAL | Errno::ENOSYS | Errno::ESPIPE) => {
                    self.put_with_poll(sys, fd, record, wait_ms)
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

    fn put_with_poll<S: Sys>(
        &self,
        sys: &mut S,
        fd: Fd,
        record: &[u8],
        wait_ms: i32,
    ) -> Result<usize, Errno> {
        match sys.poll(&mut [PollFd::new(fd, PollEvents::OUT)], wait_ms)? {
            // Not EAGAIN: the wait has been had.
            0 => Err(Errno::ETIMEDOUT),
            _ => sys.write(fd, record),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Doing;
    use crate::sys::MockSys;

    /// Two records find no room; then there is room, and the count is written, once.
    #[test]
    fn dropped_records_are_counted_and_the_count_is_written_once() {
        let mut sys = MockSys::new();
        sys.expect_sigprocmask().return_const(Ok(SignalSet::EMPTY));
        sys.expect_getpid().once().return_const(Pid(7));
        sys.expect_write_nowait().times(2).return_const(Err(Errno::EAGAIN));
        let mut log = Log::open(&mut sys, Some(Fd(4)), Level::Debug, LogForm::Runc);
        // Nothing was dropped yet: a write would be a third one.
        log.report_dropped(&mut sys);
        for _ in 0..2 {
            log.debug(&mut sys, format_args!("no room"));
        }
        // What the level leaves out is not dropped.
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

    /// A stage begins as a copy of the one before, which reports its own count.
    #[test]
    fn a_dropped_count_is_not_inherited_by_a_fork() {
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
    fn without_a_log_pipe_the_last_word_is_the_dialects() {
        for (what, expected) in [
            (FatalWithoutLog::Fatal, Some(&b"FATAL: setsid failed: Operation not permitted\n"[..])),
            (FatalWithoutLog::Nsenter, Some(b"nsenter: setsid failed: Operation not permitted\n")),
            (FatalWithoutLog::Nowhere, None),
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
            // A record that is not the last word goes nowhere.
            log.debug(&mut sys, format_args!("spawn stage-1"));
            log.fatal(&mut sys, &Error::Os { doing: Doing::Setsid, errno: Errno::EPERM });
        }
    }
}
