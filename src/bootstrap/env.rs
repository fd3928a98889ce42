//! The environment of stage 0: which descriptors it got, and how much to log (spec 2.4).

use core::fmt;

use super::dialect::{Dialect, EnvironmentForm};
use super::text::{Lossy, NotDecimal, Steps, decimal};
use crate::log::Level;
use crate::sys::types::Fd;

/// The variable with the init pipe.
pub const INIT_PIPE: &str = "_LIBCONTAINER_INITPIPE";
/// The variable with the log pipe.
pub const LOG_PIPE: &str = "_LIBCONTAINER_LOGPIPE";
/// The variable with the log level.
pub const LOG_LEVEL: &str = "_LIBCONTAINER_LOGLEVEL";

/// The variable with the numbers of the mount sources, in 1.1: [`MountFds`](super::mount_fds::MountFds).
pub const MOUNT_FDS: &str = "_LIBCONTAINER_MOUNT_FDS";
/// The variable with the directory for a copy of our own program.
pub const STATE_DIR: &str = "_LIBCONTAINER_STATEDIR";
/// The variable that says that we are such a copy.
pub const CLONED_BINARY: &str = "_LIBCONTAINER_CLONED_BINARY";

/// What the level is when nobody says.
const DEFAULT_LEVEL: Level = Level::Debug;

/// The values of the variables, as bytes; `None` for those that are not set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RawEnv<'e> {
    /// Of [`INIT_PIPE`].
    pub init_pipe: Option<&'e [u8]>,
    /// Of [`LOG_PIPE`].
    pub log_pipe: Option<&'e [u8]>,
    /// Of [`LOG_LEVEL`].
    pub log_level: Option<&'e [u8]>,
    /// Of [`MOUNT_FDS`].
    pub mount_fds: Option<&'e [u8]>,
    /// For the dialects that copy their own program.
    pub own: OwnProgram<'e>,
}

/// What the environment says about our own program.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct OwnProgram<'e> {
    /// Of [`STATE_DIR`].
    pub state_dir: Option<&'e [u8]>,
    /// Of [`CLONED_BINARY`]: that it is there is what counts.
    pub mark: Option<&'e [u8]>,
    /// All of the environment, to be handed on: each variable with its NUL. `None` where it is too long.
    pub environ: Option<&'e [u8]>,
}

/// What the environment asks for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Environment<'e> {
    /// Where the message comes from. Without it this process is not a stage, and nothing is to be done.
    pub init: Option<Fd>,
    /// Where log records go.
    pub log: Option<Fd>,
    /// Which of them.
    pub level: Level,
    /// [`MOUNT_FDS`], unread: it is looked at only where the message has mount sources.
    pub mount_fds: Option<&'e [u8]>,
}

/// Why the environment is refused, with what was known by then, so that it can be logged.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct EnvError<'e> {
    /// The variable.
    pub name: &'static str,
    /// Its value.
    pub value: &'e [u8],
    /// What is wrong with it.
    pub reason: EnvReason,
    /// The log pipe, if it was read before.
    pub log: Option<Fd>,
    /// The level, if it was read before.
    pub level: Level,
}

/// What is wrong with a variable.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum EnvReason {
    /// It is not a decimal number, or something follows the number.
    NotANumber,
    /// The same of the log pipe in 1.0, which has another text for it.
    NotANumberOld,
    /// It is negative, or larger than an `int`. runc's C cuts the number: 4294967299 is descriptor 3 (spec
    /// 4.2, no. 22).
    OutOfRange {
        /// The number, at the limit if it has more than 64 bits, as strtol(3) has it.
        number: i64,
    },
}

impl<'e> Environment<'e> {
    /// The pipes, and nothing else.
    #[must_use]
    pub const fn new(init: Option<Fd>, log: Option<Fd>, level: Level) -> Self {
        Self { init, log, level, mount_fds: None }
    }

    /// Reads the variables in runc's order: the log pipe, the level if there is a log pipe, the init pipe. A
    /// variable that is empty is not present.
    ///
    /// So a broken log pipe is an error even where there is no init pipe, as in runc.
    ///
    /// # Errors
    ///
    /// The first variable that is not right.
    pub fn parse(raw: RawEnv<'e>, dialect: &Dialect) -> Result<Self, EnvError<'e>> {
        let form = dialect.environment;
        let mut known = Self { mount_fds: raw.mount_fds, ..Self::new(None, None, DEFAULT_LEVEL) };
        if form != EnvironmentForm::InitOnly {
            let log = number(raw.log_pipe).map_err(|reason| match (form, reason) {
                (EnvironmentForm::TextLevel, EnvReason::NotANumber) => EnvReason::NotANumberOld,
                _ => reason,
            });
            known.log = known.told(LOG_PIPE, raw.log_pipe, log)?.map(Fd);
        }
        if form == EnvironmentForm::Numbers && known.log.is_some() {
            let level = known.told(LOG_LEVEL, raw.log_level, number(raw.log_level))?;
            known.level = level.map_or(DEFAULT_LEVEL, |level| Level::from_number(level.unsigned_abs()));
        }
        let init = match number(raw.init_pipe) {
            // Up to 1.0 the C's own mark for "no init pipe" could also be given from outside.
            Err(EnvReason::OutOfRange { number: -1 }) if form != EnvironmentForm::Numbers => Ok(None),
            init => init,
        };
        known.init = known.told(INIT_PIPE, raw.init_pipe, init)?.map(Fd);
        Ok(known)
    }

    /// Adds to a failure whose it is and what is known.
    fn told(
        &self,
        name: &'static str,
        value: Option<&'e [u8]>,
        number: Result<Option<i32>, EnvReason>,
    ) -> Result<Option<i32>, EnvError<'e>> {
        let value = value.unwrap_or_default();
        number.map_err(|reason| EnvError { name, value, reason, log: self.log, level: self.level })
    }
}

/// A number as strtol(3) reads it in base 10, blanks and a sign before it included, with nothing behind it;
/// from 0 to `INT_MAX`.
fn number(value: Option<&[u8]>) -> Result<Option<i32>, EnvReason> {
    let Some(value) = value.filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    // isspace(3) in the C locale; `trim_ascii_start` would leave the vertical tab.
    let blanks = value.iter().take_while(|byte| matches!(byte, b' ' | b'\t'..=b'\r')).count();
    let (negative, digits) = match value.get(blanks..).unwrap_or_default() {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] | digits => (false, digits),
    };
    let magnitude = match decimal(digits, &Steps::new()) {
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
    /// runc's texts (spec 2.4).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, value, .. } = *self;
        let value = Lossy(value);
        match self.reason {
            EnvReason::NotANumber => write!(f, "unable to parse {name}={value}"),
            EnvReason::NotANumberOld => write!(f, "unable to parse {name}, value: {value}"),
            EnvReason::OutOfRange { number } => write!(f, "bad value for {name}={value} ({number})"),
        }
    }
}

impl core::error::Error for EnvError<'_> {}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::string::ToString;

    use super::*;

    fn raw<'e>(init: &'e str, log: &'e str, level: &'e str) -> RawEnv<'e> {
        let value = |text: &'e str| (text != "unset").then_some(text.as_bytes());
        RawEnv { init_pipe: value(init), log_pipe: value(log), log_level: value(level), ..RawEnv::default() }
    }

    fn refused(raw: RawEnv<'_>) -> EnvError<'_> {
        Environment::parse(raw, &Dialect::V1_2).unwrap_err()
    }

    #[test]
    fn unset_and_empty_are_not_present() {
        for value in ["unset", ""] {
            let nothing = Environment::new(None, None, Level::Debug);
            assert_eq!(Environment::parse(raw(value, value, value), &Dialect::V1_2), Ok(nothing));
            let log = Environment { log: Some(Fd(4)), ..nothing };
            assert_eq!(Environment::parse(raw(value, "4", value), &Dialect::V1_2), Ok(log));
        }
    }

    #[test]
    fn numbers_are_those_of_strtol() {
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
    fn what_is_no_descriptor_is_refused_and_not_cut() {
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
    fn an_error_knows_the_log_pipe_that_was_read_before_it() {
        let error = refused(raw("3x", "4", "2"));
        assert_eq!((error.log, error.level), (Some(Fd(4)), Level::Error));
        assert_eq!(error.to_string(), "unable to parse _LIBCONTAINER_INITPIPE=3x");
        let error = refused(raw("3x", "4", "info"));
        assert_eq!((error.name, error.log), (LOG_LEVEL, Some(Fd(4))));
        let error = refused(raw("unset", "4x", "info"));
        assert_eq!((error.name, error.log), (LOG_PIPE, None));
    }

    #[test]
    fn a_level_has_no_upper_bound() {
        for (value, level) in
            [("0", Level::Panic), ("4", Level::Info), ("6", Level::Trace), ("99", Level::Trace)]
        {
            assert_eq!(Environment::parse(raw("3", "4", value), &Dialect::V1_1).unwrap().level, level);
        }
    }

    #[test]
    fn older_lines_know_less() {
        let seed = Environment::parse(raw("3", "junk", "junk"), &Dialect::SEED).unwrap();
        assert_eq!(seed, Environment::new(Some(Fd(3)), None, Level::Debug));
        let old = Environment::parse(raw("-1", "4", "info"), &Dialect::V1_0).unwrap();
        assert_eq!(old, Environment::new(None, Some(Fd(4)), Level::Debug));
        let error = Environment::parse(raw("3", "x", "info"), &Dialect::V1_0).unwrap_err();
        assert_eq!(error.to_string(), "unable to parse _LIBCONTAINER_LOGPIPE, value: x");
    }
}
