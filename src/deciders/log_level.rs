//! The severity of a log record.

/// The severity of a record. The numbers are those of `_LIBCONTAINER_LOGLEVEL` (logrus).
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
    /// Returns the name used in a record.
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

    /// Returns the level with this number, or `Trace` for a larger number.
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
