//! Log records.

/// How grave a log record is, in the numbers of `_LIBCONTAINER_LOGLEVEL` (spec 2.4), which are logrus's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Level {
    /// 0.
    Panic,
    /// 1.
    Fatal,
    /// 2.
    Error,
    /// 3.
    Warning,
    /// 4.
    Info,
    /// 5.
    Debug,
    /// 6.
    Trace,
}

impl Level {
    /// The word of a record's `level`.
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

    /// The level of this number; what is over 6 is as talkative as 6.
    #[must_use]
    pub const fn from_number(n: u32) -> Self {
        match n {
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
