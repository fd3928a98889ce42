//! `nsexec init`: stage 0 for a parent that speaks runc's protocol; stage 2 becomes a command.

use std::env;
use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;
use nix::unistd::execvpe;
use nsexec::stage::Outcome;

use super::args::InitArgs;
use super::failure::{FAILED, Failure, NOT_EXECUTABLE, NOT_FOUND, words};

/// Runs the bootstrap, and comes back in stage 2 only, where nothing is left to do or the command takes over.
///
/// # Errors
/// No init pipe in the environment, or a command that cannot be executed.
pub(crate) fn init(args: &InitArgs) -> Result<u8, Failure> {
    match nsexec::init() {
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
    let Some(program) = args.command.first() else { return Ok(0) };
    // The parent reads the log pipe up to its end before it goes on, so the command must not hold it open. The init
    // pipe stays: what follows the message in it is for whoever comes after the bootstrap.
    if let Some(fd) =
        env::var("_LIBCONTAINER_LOGPIPE").ok().and_then(|value| value.trim().parse::<i32>().ok())
    {
        let _ = nix::unistd::close(fd);
    }
    let argv = args.command.iter().map(|word| c_string(word.as_bytes())).collect::<Result<Vec<_>, _>>()?;
    let environment = env::vars_os()
        .filter(|(name, _)| name != "_LIBCONTAINER_LOGPIPE" && name != "_LIBCONTAINER_LOGLEVEL")
        .map(|(name, value)| c_string(&[name.as_bytes(), b"=", value.as_bytes()].concat()))
        .collect::<Result<Vec<_>, _>>()?;
    // Not the standard library's: that one resets the signal mask and SIGPIPE, which are the parent's to choose.
    let errno = match execvpe(&c_string(program.as_bytes())?, &argv, &environment) {
        Err(errno) => errno,
        Ok(never) => match never {},
    };
    let status = match errno {
        Errno::ENOENT | Errno::ENOTDIR => NOT_FOUND,
        _ => NOT_EXECUTABLE,
    };
    let text = format!("failed to execute {}: {}", program.to_string_lossy(), words(&io::Error::from(errno)));
    Err(Failure::Other { text, status })
}

/// As execve(2) takes it.
fn c_string(text: &(impl AsRef<[u8]> + ?Sized)) -> Result<CString, Failure> {
    CString::new(text.as_ref()).map_err(|_| Failure::Usage("an argument with a NUL in it".to_owned()))
}
