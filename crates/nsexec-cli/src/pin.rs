//! `nsexec pin`: namespaces without a process, mounted on the files of a directory, and their release.

use std::ffi::OsString;
use std::path::Path;

use nsexec::error::Code;
use nsexec::launch::{LaunchError, SettingError, release};
use nsexec::namespace::NsSet;
use nsexec::sys::types::Errno;
use nsexec_audit::plan::Start;

use super::args::{HandOverFlags, PlanPinArgs};
use super::failure::{Failure, words};
use super::output;
use super::pin_flags::{PinArgs, PinFlags};
use super::plan;
use super::request;
use super::run::{self, Job};

/// Pins namespaces, or releases them. Returns 0.
///
/// # Errors
/// Wrong usage, or the reason why the namespaces are not pinned or released.
pub(crate) fn pin(args: &PinArgs) -> Result<u8, Failure> {
    if args.release {
        if args.flags != PinFlags::default() {
            let why =
                "--release releases every namespace of DIR: leave out the flags for namespaces and maps";
            return Err(Failure::Usage(why.to_owned()));
        }
        return release_all(&args.directory).map(|()| 0);
    }
    let flags = args.flags.checked()?;
    let request = run::request_of(&flags, &HandOverFlags::default(), &request::facts_of(&flags, false))?;
    let job = Job { request: &request, command: &nothing(), verbose: args.verbose };
    let bootstrap = request.bootstrap()?;
    let mut launcher = run::launcher_of(&bootstrap, &job, output::show_record)?;
    // A signal ends the launch, which then removes what it has made.
    let signals = run::take_signals()?;
    launcher.supervised(&signals);
    launcher.pin(&args.directory).map_err(|error| explain(&error, &job))?;
    Ok(0)
}

/// Returns the failure of a pin in one line, with what to do if the caller may not mount.
fn explain(error: &LaunchError, job: &Job<'_>) -> Failure {
    match error.step() {
        Some((Code::MountOn, Some(Errno::EPERM))) => Failure::ours(format!(
            "{} (a mount needs CAP_SYS_ADMIN in the user namespace that owns this mount namespace: pin as root, or \
             inside of nsexec run -r -m, whose processes see the files)",
            error.without_cause()
        )),
        _ => match error {
            // A directory or a file, and not wrong usage.
            LaunchError::Setting(SettingError::File { .. }) => Failure::ours(error.to_string()),
            _ => run::explain(error, job),
        },
    }
}

/// The words of a command that is not executed.
fn nothing() -> [OsString; 1] {
    ["".into()]
}

fn release_all(directory: &Path) -> Result<(), Failure> {
    let released = release(directory).map_err(|error| {
        let why = match error.kind() {
            std::io::ErrorKind::PermissionDenied => {
                " (a user can unmount only in the mount namespace in which the namespaces were pinned, with CAP_SYS_ADMIN \
                 there)"
            }
            _ => "",
        };
        Failure::ours(format!("{}{why}", words(&error)))
    })?;
    let shown = directory.display();
    if released.kinds == NsSet::EMPTY {
        output::print_to_stderr(format_args!("nsexec: {shown}: no namespace is pinned there\n"));
    } else if !released.removed {
        output::print_to_stderr(format_args!("nsexec: {shown} stays: it has other files, or is in use\n"));
    }
    Ok(())
}

/// Prints the plan of a pin. Returns the same as [`plan_command`](plan::plan_command).
///
/// # Errors
/// Wrong usage, or output that cannot be written.
pub(crate) fn plan_pin(args: &PlanPinArgs) -> Result<u8, Failure> {
    let flags = args.flags.checked()?;
    let (mut assumptions, facts) = plan::assumed(&flags, &args.shown);
    let request = run::request_of(&flags, &HandOverFlags::default(), &facts)?;
    let signals = plan::take_signals(&mut assumptions)?;
    let bootstrap = request.bootstrap()?;
    let job = Job { request: &request, command: &nothing(), verbose: false };
    let mut launcher = run::launcher_of(&bootstrap, &job, |_| {})?;
    let prepared = launcher.supervised(&signals).prepare_pin(&args.directory);
    let prepared = prepared.map_err(|error| Failure::Usage(error.to_string()))?;
    plan::finish_command(&plan::finish(&Start::Launcher(prepared), &assumptions)?, &args.shown)
}
