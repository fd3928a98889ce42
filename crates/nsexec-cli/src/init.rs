//! `nsexec init`: stage 0 for a parent that uses runc's protocol. Stage 2 executes a command.

use std::env;
use std::os::unix::ffi::OsStrExt;

use nsexec::launch::causes::Circumstances;
use nsexec::launch::execute;
use nsexec::legacy::EnvironmentForm;
use nsexec::stage::Outcome;

use super::args::InitArgs;
use super::failure::{FAILED, Failure};
use super::run::explain_for;

/// Runs the bootstrap and then, in stage 2, the command. Returns the exit status; without a command stage 2
/// returns 0.
///
/// # Errors
/// The environment names no init pipe, or the command cannot be executed.
pub(crate) fn init(args: &InitArgs) -> Result<u8, Failure> {
    match nsexec::entry::init_as(args.dialect) {
        Outcome::HandOver => {}
        Outcome::Exit(status) => return Ok(u8::try_from(status).unwrap_or(FAILED)),
        Outcome::NotInit => {
            return Err(Failure::Usage(
                "_LIBCONTAINER_INITPIPE is not set: this command is for a parent that passes a bootstrap message on \
                 that descriptor"
                    .to_owned(),
            ));
        }
    }
    let Some((program, arguments)) = args.command.split_first() else { return Ok(0) };
    // The parent reads the log pipe to its end before it continues, so the command must not hold it open. The
    // init pipe stays open: the data after the message are for the program that follows the bootstrap.
    let logs = args.dialect.legacy.environment != EnvironmentForm::InitOnly;
    let log = env::var("_LIBCONTAINER_LOGPIPE").ok().filter(|_| logs);
    if let Some(fd) = log.and_then(|value| value.trim().parse::<i32>().ok()) {
        let _ = nix::unistd::close(fd);
    }
    let ours = ["_LIBCONTAINER_LOGPIPE", "_LIBCONTAINER_LOGLEVEL", "_LIBCONTAINER_CLONED_BINARY"];
    let error = execute(program, arguments, &ours);
    let mut known = Circumstances::default();
    known.asked.command_path = program.as_bytes().contains(&b'/');
    Err(explain_for(&error, || known))
}
