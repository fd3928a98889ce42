//! The environment of 1.0 and of the seed (`docs/protocol.md#environment`).

use super::dialects::EnvironmentForm;
use crate::deciders::bootstrap::Dialect;
use crate::deciders::bootstrap::env::{
    EnvError, EnvReason, Environment, INIT_PIPE, LOG_PIPE, RawEnv, number,
};
use crate::sys::types::Fd;

/// Parses the variables as 1.0 or the seed does, in place of [`Environment::parse`]. Returns `None` for the
/// other dialects, and adds to `known` the variables that need no parser here.
pub(crate) fn parse<'e>(
    known: &mut Environment<'e>,
    raw: RawEnv<'e>,
    dialect: &Dialect,
) -> Option<Result<Environment<'e>, EnvError<'e>>> {
    (known.mount_fds, known.own) = (raw.mount_fds, raw.own);
    match dialect.legacy.environment {
        EnvironmentForm::Numbers => None,
        EnvironmentForm::TextLevel => {
            Some(with_log_pipe(*known, raw).and_then(|known| with_init(known, raw)))
        }
        EnvironmentForm::InitOnly => Some(with_init(*known, raw)),
    }
}

/// Parses the log pipe, but not its level.
fn with_log_pipe<'e>(known: Environment<'e>, raw: RawEnv<'e>) -> Result<Environment<'e>, EnvError<'e>> {
    let log = number(raw.log_pipe).map_err(|reason| match reason {
        EnvReason::NotANumber => EnvReason::NotANumberOld,
        reason => reason,
    });
    let log = known.attach_context(LOG_PIPE, raw.log_pipe, log)?.map(Fd);
    Ok(Environment { log, ..known })
}

/// Parses the init pipe. runc's C code uses −1 internally for "no init pipe", so the variable may contain
/// it too.
fn with_init<'e>(known: Environment<'e>, raw: RawEnv<'e>) -> Result<Environment<'e>, EnvError<'e>> {
    let init = match number(raw.init_pipe) {
        Err(EnvReason::OutOfRange { number: -1 }) => Ok(None),
        init => init,
    };
    let init = known.attach_context(INIT_PIPE, raw.init_pipe, init)?.map(Fd);
    Ok(Environment { init, ..known })
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::string::ToString;

    use crate::deciders::bootstrap::env::tests::raw;
    use crate::deciders::bootstrap::{Dialect, Environment};
    use crate::sys::types::Fd;
    use crate::words::log::Level;

    #[test]
    fn older_dialects_read_fewer_variables() {
        let seed = Environment::parse(raw("3", "junk", "junk"), &Dialect::SEED).unwrap();
        assert_eq!(seed, Environment::new(Some(Fd(3)), None, Level::Debug));
        let old = Environment::parse(raw("-1", "4", "info"), &Dialect::V1_0).unwrap();
        assert_eq!(old, Environment::new(None, Some(Fd(4)), Level::Debug));
        let error = Environment::parse(raw("3", "x", "info"), &Dialect::V1_0).unwrap_err();
        assert_eq!(error.to_string(), "unable to parse _LIBCONTAINER_LOGPIPE, value: x");
    }
}
