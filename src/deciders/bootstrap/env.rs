//! The environment of stage 0: the descriptors that it inherits, and the log level
//! (`docs/protocol.md#environment`).

use core::fmt;

use super::dialect::Dialect;
use super::text::{Lossy, NotDecimal, decimal};
use crate::deciders::log_level::Level;
use crate::sys::types::Fd;

/// The variable with the init pipe.
pub const INIT_PIPE: &str = "_LIBCONTAINER_INITPIPE";
/// The variable with the log pipe.
pub const LOG_PIPE: &str = "_LIBCONTAINER_LOGPIPE";
/// The variable with the log level.
pub const LOG_LEVEL: &str = "_LIBCONTAINER_LOGLEVEL";

/// The variable with the target descriptors of the mount sources, in 1.1.
#[cfg(feature = "legacy")]
pub const MOUNT_FDS: &str = "_LIBCONTAINER_MOUNT_FDS";
/// The variable with the directory for a sealed copy of our own program.
pub const STATE_DIR: &str = "_LIBCONTAINER_STATEDIR";
/// The variable that marks a sealed copy.
pub const CLONED_BINARY: &str = "_LIBCONTAINER_CLONED_BINARY";

/// The level if the variable is absent.
const DEFAULT_LEVEL: Level = Level::Debug;

/// The values of the variables, as bytes, or `None` for unset variables.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RawEnv<'e> {
    /// The value of [`INIT_PIPE`].
    pub init_pipe: Option<&'e [u8]>,
    /// The value of [`LOG_PIPE`].
    pub log_pipe: Option<&'e [u8]>,
    /// The value of [`LOG_LEVEL`].
    pub log_level: Option<&'e [u8]>,
    /// The value of [`MOUNT_FDS`].
    #[cfg(feature = "legacy")]
    pub mount_fds: Option<&'e [u8]>,
    /// For the dialects that copy their own program.
    #[cfg(feature = "legacy")]
    pub own: OwnProgram<'e>,
}

/// The part of the environment that is about our own program.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct OwnProgram<'e> {
    /// The value of [`STATE_DIR`].
    pub state_dir: Option<&'e [u8]>,
    /// The value of [`CLONED_BINARY`]. Only its presence matters.
    pub mark: Option<&'e [u8]>,
    /// The whole environment for the copy, each variable with its NUL. `None` if it is too long.
    pub environ: Option<&'e [u8]>,
}

/// The parsed environment.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Environment<'e> {
    /// The init pipe, from which the message is read. Without it this process is not a stage, and nothing is
    /// done.
    pub init: Option<Fd>,
    /// The log pipe.
    pub log: Option<Fd>,
    /// The highest level that is logged.
    pub level: Level,
    /// The value of [`MOUNT_FDS`], not parsed. It is parsed only if the message has mount sources.
    #[cfg(feature = "legacy")]
    pub mount_fds: Option<&'e [u8]>,
    /// For the dialects that copy their own program.
    #[cfg(feature = "legacy")]
    pub own: OwnProgram<'e>,
    /// Only the older dialects keep values of variables.
    #[cfg(not(feature = "legacy"))]
    values: core::marker::PhantomData<&'e [u8]>,
}

/// The error of a refused environment, with the log settings parsed so far, so that it can be logged.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub struct EnvError<'e> {
    /// The variable.
    pub name: &'static str,
    /// Its value.
    pub value: &'e [u8],
    /// The error in the value.
    pub reason: EnvReason,
    /// The log pipe, if it has been parsed before.
    pub log: Option<Fd>,
    /// The level, if it has been parsed before.
    pub level: Level,
}

/// The error in the value of a variable.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum EnvReason {
    /// The value is not a decimal number, or has trailing characters.
    NotANumber,
    /// The same for the log pipe in 1.0, with another text.
    #[cfg(feature = "legacy")]
    NotANumberOld,
    /// The number is negative, or larger than an `int`. runc's C code truncates it: 4294967299 becomes
    /// descriptor 3 (`docs/protocol.md#weaknesses-of-the-c-code`).
    OutOfRange {
        /// The number, limited to 64 bits, as strtol(3) does.
        number: i64,
    },
}

impl<'e> Environment<'e> {
    /// Returns an environment with only the pipes and the level.
    #[must_use]
    pub const fn new(init: Option<Fd>, log: Option<Fd>, level: Level) -> Self {
        Self {
            init,
            log,
            level,
            #[cfg(feature = "legacy")]
            mount_fds: None,
            #[cfg(feature = "legacy")]
            own: OwnProgram { state_dir: None, mark: None, environ: None },
            #[cfg(not(feature = "legacy"))]
            values: core::marker::PhantomData,
        }
    }

    /// Parses the variables in runc's order: the log pipe, the level if there is a log pipe, the init pipe.
    /// An empty variable counts as absent.
    ///
    /// So a malformed log pipe is an error even without an init pipe, as in runc.
    ///
    /// # Errors
    ///
    /// The first malformed variable.
    pub fn parse(
        raw: RawEnv<'e>,
        #[cfg_attr(not(feature = "legacy"), expect(unused_variables, reason = "only older dialects differ"))]
        dialect: &Dialect,
    ) -> Result<Self, EnvError<'e>> {
        let mut known = Self::new(None, None, DEFAULT_LEVEL);
        #[cfg(feature = "legacy")]
        if let Some(parsed) = crate::legacy::environment::parse(&mut known, raw, dialect) {
            return parsed;
        }
        known.log = known.attach_context(LOG_PIPE, raw.log_pipe, number(raw.log_pipe))?.map(Fd);
        if known.log.is_some() {
            let level = known.attach_context(LOG_LEVEL, raw.log_level, number(raw.log_level))?;
            known.level = level.map_or(DEFAULT_LEVEL, |level| Level::from_number(level.unsigned_abs()));
        }
        known.init = known.attach_context(INIT_PIPE, raw.init_pipe, number(raw.init_pipe))?.map(Fd);
        Ok(known)
    }

    /// Attaches the variable's name, its value and the log settings parsed so far.
    pub(crate) fn attach_context(
        &self,
        name: &'static str,
        value: Option<&'e [u8]>,
        number: Result<Option<i32>, EnvReason>,
    ) -> Result<Option<i32>, EnvError<'e>> {
        let value = value.unwrap_or_default();
        number.map_err(|reason| EnvError { name, value, reason, log: self.log, level: self.level })
    }
}

/// Parses a number as strtol(3) does in base 10, with leading blanks and a sign, but without trailing
/// characters. The result is 0 to `INT_MAX`.
pub(crate) fn number(value: Option<&[u8]>) -> Result<Option<i32>, EnvReason> {
    let Some(value) = value.filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    // The blanks of isspace(3) in the C locale. `trim_ascii_start` would not remove the vertical tab.
    let blanks = value.iter().take_while(|byte| matches!(byte, b' ' | b'\t'..=b'\r')).count();
    let (negative, digits) = match value.get(blanks..).unwrap_or_default() {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] | digits => (false, digits),
    };
    let magnitude = match decimal(digits) {
        Ok(magnitude) => magnitude,
        Err(NotDecimal::TooLarge) => u64::MAX,
        Err(NotDecimal::NotDigits) => return Err(EnvReason::NotANumber),
    };
    let number = if negative {
        0_i64.saturating_sub_unsigned(magnitude)
    } else {
        i64::try_from(magnitude).unwrap_or(i64::MAX)
    };
    match i32::try_from(number) {
        Ok(number) if number >= 0 => Ok(Some(number)),
        _ => Err(EnvReason::OutOfRange { number }),
    }
}

impl fmt::Display for EnvError<'_> {
    /// Writes runc's texts.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, value, .. } = *self;
        let value = Lossy(value);
        match self.reason {
            EnvReason::NotANumber => write!(f, "unable to parse {name}={value}"),
            #[cfg(feature = "legacy")]
            EnvReason::NotANumberOld => write!(f, "unable to parse {name}, value: {value}"),
            EnvReason::OutOfRange { number } => write!(f, "bad value for {name}={value} ({number})"),
        }
    }
}

impl core::error::Error for EnvError<'_> {}

#[cfg(test)]
pub(crate) mod tests {
    extern crate std;
    use std::string::ToString;

    use super::*;

    pub(crate) fn raw<'e>(init: &'e str, log: &'e str, level: &'e str) -> RawEnv<'e> {
        let value = |text: &'e str| (text != "unset").then_some(text.as_bytes());
        let mut raw = RawEnv::default();
        (raw.init_pipe, raw.log_pipe, raw.log_level) = (value(init), value(log), value(level));
        raw
    }

    fn refused(raw: RawEnv<'_>) -> EnvError<'_> {
        Environment::parse(raw, &Dialect::V1_2).unwrap_err()
    }

    #[test]
    fn unset_and_empty_variables_are_absent() {
        for value in ["unset", ""] {
            let nothing = Environment::new(None, None, Level::Debug);
            assert_eq!(Environment::parse(raw(value, value, value), &Dialect::V1_2), Ok(nothing));
            let log = Environment { log: Some(Fd(4)), ..nothing };
            assert_eq!(Environment::parse(raw(value, "4", value), &Dialect::V1_2), Ok(log));
        }
    }

    #[test]
    fn variables_are_parsed_like_strtol() {
        for (value, fd) in
            [("3", 3), (" \t\n\x0b\x0c\r+7", 7), ("0", 0), ("-0", 0), ("007", 7), ("2147483647", i32::MAX)]
        {
            let environment = Environment::parse(raw(value, "unset", "x"), &Dialect::V1_2).unwrap();
            assert_eq!(environment.init, Some(Fd(fd)), "{value:?}");
        }
        for value in ["x", " ", "3x", "3 ", "+-3", "0x3", "-", "--1"] {
            assert_eq!(refused(raw(value, "unset", "unset")).reason, EnvReason::NotANumber, "{value:?}");
        }
    }

    #[test]
    fn descriptor_above_i32_max_is_rejected() {
        for (value, number) in [
            ("-1", -1),
            ("2147483648", 2_147_483_648),
            ("4294967299", 4_294_967_299),
            ("99999999999999999999", i64::MAX),
            ("-99999999999999999999", i64::MIN),
        ] {
            assert_eq!(refused(raw(value, "unset", "unset")).reason, EnvReason::OutOfRange { number });
        }
        assert_eq!(
            refused(raw("-1", "unset", "unset")).to_string(),
            "bad value for _LIBCONTAINER_INITPIPE=-1 (-1)"
        );
    }

    #[test]
    fn environment_error_has_the_log_settings_parsed_so_far() {
        let error = refused(raw("3x", "4", "2"));
        assert_eq!((error.log, error.level), (Some(Fd(4)), Level::Error));
        assert_eq!(error.to_string(), "unable to parse _LIBCONTAINER_INITPIPE=3x");
        let error = refused(raw("3x", "4", "info"));
        assert_eq!((error.name, error.log), (LOG_LEVEL, Some(Fd(4))));
        let error = refused(raw("unset", "4x", "info"));
        assert_eq!((error.name, error.log), (LOG_PIPE, None));
    }

    #[test]
    fn log_level_has_no_upper_bound() {
        for (value, level) in
            [("0", Level::Panic), ("4", Level::Info), ("6", Level::Trace), ("99", Level::Trace)]
        {
            assert_eq!(Environment::parse(raw("3", "4", value), &Dialect::V1_2).unwrap().level, level);
        }
    }
}
