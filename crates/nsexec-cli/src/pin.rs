//! `nsexec pin`: namespaces without a process, mounted on the files of a directory, and their release.

use std::ffi::OsString;
use std::path::Path;

use nsexec::error::Code;
use nsexec::launch::{LaunchError, Launcher, SettingError, release};
use nsexec::namespace::NsSet;
use nsexec::sys::types::Errno;
use nsexec_audit::plan::{Plan, Start, plan};

use super::args::{HandOverFlags, PlanPinArgs};
use super::assume;
use super::failure::{Failure, words};
use super::output;
use super::pin_flags::{PinArgs, PinFlags};
use super::plan::finish_command;
use super::request::{self, Request};
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

/// Prints the plan of a pin. Returns the same as [`plan_command`](super::plan::plan_command).
///
/// # Errors
/// Wrong usage, or output that cannot be written.
pub(crate) fn plan_pin(args: &PlanPinArgs) -> Result<u8, Failure> {
    let flags = args.flags.checked()?;
    let machine = request::facts_of(&flags, true);
    let mut assumptions = assume::of_machine(&machine, &[]);
    assume::apply(&mut assumptions, &args.shown.assume);
    let facts = assume::facts_under(&assumptions, machine);
    let request = run::request_of(&flags, &HandOverFlags::default(), &facts)?;
    let signals = super::plan::take_signals(&mut assumptions)?;
    let planned = planned(&request, &args.directory, |launcher| {
        launcher.supervised(&signals);
    });
    let plan: Result<Plan, _> = plan(&Start::Launcher(planned?), &assumptions);
    finish_command(&plan.map_err(|error| Failure::ours(error.to_string()))?, &args.shown)
}

fn planned(
    request: &Request,
    directory: &Path,
    set: impl FnOnce(&mut Launcher),
) -> Result<nsexec::launch::Prepared, Failure> {
    let bootstrap = request.bootstrap()?;
    let job = Job { request, command: &nothing(), verbose: false };
    let mut launcher = run::launcher_of(&bootstrap, &job, |_| {})?;
    set(&mut launcher);
    launcher.prepare_pin(directory).map_err(|error| Failure::Usage(error.to_string()))
}
