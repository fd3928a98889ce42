//! `nsexec plan`: prints what a launch will do, without doing it and without privileges.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use nsexec::launch::signals::Signals;
use nsexec::launch::{ChildSignals, Launcher, Prepared, own_status};
use nsexec::policy::Policy;
use nsexec::sys::types::SignalSet;
use nsexec_audit::emit::apparmor::apparmor;
use nsexec_audit::emit::seccomp::seccomp;
use nsexec_audit::emit::systemd;
use nsexec_audit::plan::runc::Manner;
use nsexec_audit::plan::{Assumptions, Plan, Refused, Start, plan};
use nsexec_audit::render::text;
use nsexec_audit::rules::{self, Severity};

use super::args::{
    ColourFlag, Format, HandOverFlags, MannerFlag, NamespaceFlags, PlanArgs, PlanEnterArgs, PlanFlags,
};
use super::assume;
use super::before_start;
use super::config::{self, Merged};
use super::decode;
use super::enter;
use super::failure::{FAILED, Failure};
use super::output;
use super::request::{self, Request};
use super::run;
use super::values::{EmitFlag, OrderFlag};
use nsexec_audit::machine::caller::Facts;
use nsexec_audit::machine::search;

/// Prints a plan. Returns 0 if the plan ends with a command or an init process and breaks no rule, else 1.
///
/// # Errors
/// Wrong usage, a malformed message, or output that cannot be written.
pub(crate) fn plan_command(args: &PlanArgs) -> Result<u8, Failure> {
    if args.rules {
        return print(&rules::listing()).map(|()| 0);
    }
    let plan = match &args.bootstrap {
        Some(file) => of_message(args, file)?,
        None => of_launch(args)?,
    };
    finish_command(&plan, &args.shown)
}

/// Prints the plan of entering a process. Returns the same as [`plan_command`].
///
/// # Errors
/// Wrong usage; the process does not exist, or may not be entered; or output that cannot be written.
pub(crate) fn plan_enter(args: &PlanEnterArgs) -> Result<u8, Failure> {
    let entered = enter::decide(&args.flags, &args.hand_over, &args.before_start)?;
    // After the opened files, as in `enter`.
    let signals = run::take_signals()?;
    entered.print_notes();
    let mut assumptions = assume::of_machine(&Facts::gather(false, false), &entered.joins);
    assume::apply(&mut assumptions, &args.shown.assume);
    let start =
        of_request(&entered.request, &args.command, Some(&signals), (&mut assumptions, entered.root()))?;
    finish_command(&with_steps(finish(&start, &assumptions)?, &entered.request), &args.shown)
}

/// Prints the plan. Returns 0 if it ends with a command or an init process and breaks no rule, else 1.
pub(crate) fn finish_command(plan: &Plan, flags: &PlanFlags) -> Result<u8, Failure> {
    let text = match flags.emit {
        Some(emit) => emitted(plan, emit)?,
        None => shown(plan, flags)?,
    };
    print(&text)?;
    let breach = plan.findings.iter().any(|finding| finding.severity == Severity::Breach);
    Ok(if plan.succeeds && !breach { 0 } else { FAILED })
}

/// Plans a launch with the flags of `run`.
///
/// # Errors
/// Wrong usage, or something that this machine lacks.
fn of_launch(args: &PlanArgs) -> Result<Plan, Failure> {
    let merged = config::merged(&args.namespaces, &args.command)?;
    merged.print_note();
    let Merged { flags, command, .. } = merged;
    let (assumptions, facts) = assumed(&flags, &args.shown);
    let mut request = run::request_of(&flags, &args.hand_over, &facts)?;
    before_start::add_to(&mut request, &args.before_start);
    of_decided(&request, assumptions, &command, run::in_place(&flags, &request))
}

/// Returns the facts of this machine under the assumptions of the caller, for a launch with these flags.
pub(crate) fn assumed(flags: &NamespaceFlags, shown: &PlanFlags) -> (Assumptions, Facts) {
    let machine = request::facts_of(flags, true);
    let mut assumptions = assume::of_machine(&machine, &flags.join);
    assume::apply(&mut assumptions, &shown.assume);
    let facts = assume::facts_under(&assumptions, machine);
    (assumptions, facts)
}

/// Plans the launch of a request of `run`. `in_place`: `run` becomes the command.
///
/// # Errors
/// The command cannot be passed on, or the signals cannot be taken.
pub(crate) fn of_decided(
    request: &Request,
    mut assumptions: Assumptions,
    command: &[OsString],
    in_place: bool,
) -> Result<Plan, Failure> {
    let signals = if in_place { None } else { Some(take_signals(&mut assumptions)?) };
    let start = of_request(request, command, signals.as_ref(), (&mut assumptions, None))?;
    finish(&start, &assumptions).map(|plan| with_steps(plan, request))
}

/// Returns the plan with a line for the steps before the start, and one for the guard of `--kill-child`.
fn with_steps(mut plan: Plan, request: &Request) -> Plan {
    let steps = request.before_start.in_words().map(|text| ("before the start".to_owned(), text));
    let guard = request.signal_at_end.map(|signal| {
        let text = format!(
            "a guard process sends {signal} to the command if nsexec ends first: its calls are not listed"
        );
        ("after the start".to_owned(), text)
    });
    plan.policy.extend(steps.into_iter().chain(guard));
    plan
}

/// Searches the command: below this root directory, or that of the launch, or else in ours. Also returns the
/// files and directories of the launch that cannot be used.
pub(crate) fn searched(
    prepared: &Prepared,
    root: Option<BorrowedFd<'_>>,
) -> (Option<Vec<u8>>, BTreeMap<Vec<u8>, Refused>) {
    let own = search::root_of(prepared);
    let root = root.or(own.as_ref().map(AsFd::as_fd));
    let (found, mut refused) = match root {
        Some(root) => search::search_below(prepared, root),
        None => search::search(prepared),
    };
    refused.extend(search::unusable(prepared, root));
    (found, refused)
}

/// Takes the signals as `run` does, so that the plan has the same signal masks. This process exits so soon
/// that no signal is missed.
pub(crate) fn take_signals(assumptions: &mut Assumptions) -> Result<Signals, Failure> {
    let signals = run::take_signals()?;
    let blocked = own_status().bits("SigBlk").map(SignalSet);
    assumptions.blocked = blocked.unwrap_or(assumptions.blocked);
    Ok(signals)
}

/// Prepares the launch of a request, and searches its command on this machine. Without signals the launch is
/// one in place.
fn of_request(
    request: &Request,
    command: &[OsString],
    signals: Option<&Signals>,
    (assumptions, root): (&mut Assumptions, Option<BorrowedFd<'_>>),
) -> Result<Start, Failure> {
    let bootstrap = request.bootstrap()?;
    let mut launcher =
        Launcher::new(&bootstrap, request.policy).map_err(|error| Failure::Usage(error.to_string()))?;
    // Without a command, plan a command that does nothing.
    let nothing = [OsString::from("/bin/true")];
    let command = if command.is_empty() { &nothing[..] } else { command };
    if let Some((program, arguments)) = command.split_first() {
        request.hand_over.apply(&mut launcher);
        launcher.surroundings(request.around.clone()).command(program, arguments);
    }
    let prepared = match signals {
        None => launcher.signals(ChildSignals::default()).prepare_exec(),
        Some(signals) => launcher.supervised(signals).prepare(),
    };
    let prepared = prepared.map_err(|error| Failure::Usage(error.to_string()))?;
    // `--assume command=FILE` plans for another machine, so this machine's files do not matter.
    if assumptions.command.as_ref().is_none_or(Vec::is_empty) {
        let (found, refused) = searched(&prepared, root);
        // If the search finds nothing here, the launch will find nothing either.
        assumptions.command = assumptions.command.take().or(Some(found.unwrap_or_default()));
        assumptions.refused = refused;
    }
    Ok(Start::Launcher(prepared))
}

fn of_message(args: &PlanArgs, file: &Path) -> Result<Plan, Failure> {
    // Ignored flags would look like a part of the plan.
    let flags = args.namespaces != NamespaceFlags::default()
        || args.hand_over != HandOverFlags::default()
        || args.before_start.are_set();
    if flags || !args.command.is_empty() {
        let why = "--bootstrap already defines the namespaces and id maps: leave out the flags of run and the command";
        return Err(Failure::Usage(why.to_owned()));
    }
    let opened = decode::open(file)?;
    opened.check(args.dialect)?;
    let mut assumptions = assume::of_machine(&Facts::gather(true, true), &[]);
    assume::apply(&mut assumptions, &args.shown.assume);
    let manner = match args.manner {
        MannerFlag::Init => Manner::Init,
        MannerFlag::Exec => Manner::Exec,
    };
    finish(&Start::Runc { message: opened.message, manner, policy: Policy::runc(args.dialect) }, &assumptions)
}

pub(crate) fn finish(start: &Start, assumptions: &Assumptions) -> Result<Plan, Failure> {
    plan(start, assumptions).map_err(|error| Failure::ours(error.to_string()))
}

/// Returns the calls of a plan as a restriction.
///
/// # Errors
/// The plan fails, so the calls after its failure are missing.
fn emitted(plan: &Plan, emit: EmitFlag) -> Result<String, Failure> {
    if !plan.succeeds {
        return Err(Failure::ours(format!(
            "a restriction needs a plan that succeeds: {}",
            plan.verdict_in_words()
        )));
    }
    match emit {
        EmitFlag::Seccomp => seccomp(&plan.run).map_err(|error| Failure::ours(error.to_string())),
        EmitFlag::Apparmor => Ok(apparmor(&plan.run)),
        EmitFlag::Systemd => Ok(systemd(&plan.run)),
    }
}

fn shown(plan: &Plan, args: &PlanFlags) -> Result<String, Failure> {
    match args.look.format {
        Format::Json => plan.to_json().map_err(|error| Failure::ours(error.to_string())),
        Format::Mermaid => Ok(plan.to_mermaid()),
        Format::Svg => Ok(plan.to_svg()),
        Format::Html => Ok(plan.to_html()),
        Format::Text => Ok(plan.to_text(look(args.look.color, args.look.order))),
    }
}

/// Returns the text format: folded and coloured for a terminal, plain and unfolded for a pipe.
pub(crate) fn look(colour: ColourFlag, order: OrderFlag) -> text::Look {
    let terminal = output::is_terminal();
    let colour = match colour {
        ColourFlag::Auto => output::is_coloured(),
        ColourFlag::Always => true,
        ColourFlag::Never => false,
    };
    let width = terminal.then(|| terminal_size::terminal_size().map_or(80, |(width, _)| width.0.into()));
    let order = match order {
        OrderFlag::Process => text::Order::Process,
        OrderFlag::Time => text::Order::Time,
    };
    text::Look { width, colour, order }
}

fn print(text: &str) -> Result<(), Failure> {
    let mut out = String::with_capacity(text.len() + 1);
    let _ = write!(out, "{}{}", text, if text.ends_with('\n') { "" } else { "\n" });
    output::print(&out)
}
