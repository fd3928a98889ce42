//! `nsexec plan`: prints what a launch will do, without doing it and without privileges.

use std::fmt::Write as _;
use std::path::Path;

use nsexec::bootstrap::Dialect;
use nsexec::launch::{ChildSignals, Launcher, own_status};
use nsexec::policy::Policy;
use nsexec::sys::types::SignalSet;
use nsexec_audit::plan::runc::Manner;
use nsexec_audit::plan::{Assumptions, Plan, Start, plan};
use nsexec_audit::render::text;
use nsexec_audit::rules::{self, Severity};

use super::args::{ColourFlag, Format, HandOverFlags, MannerFlag, NamespaceFlags, PlanArgs};
use super::assume;
use super::decode;
use super::failure::{FAILED, Failure};
use super::hand_over;
use super::output;
use super::request;
use super::run;
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
        None => of_flags(args)?,
    };
    print(&shown(&plan, args)?)?;
    let breach = plan.findings.iter().any(|finding| finding.severity == Severity::Breach);
    Ok(if plan.succeeds && !breach { 0 } else { FAILED })
}

fn of_flags(args: &PlanArgs) -> Result<Plan, Failure> {
    let machine = request::facts_of(&args.namespaces);
    let mut assumptions = assume::of_machine(&machine, &args.namespaces.join);
    assume::apply(&mut assumptions, &args.assume);
    let facts = assume::facts_under(&assumptions, machine);
    let mut request = request::decide(&args.namespaces, &facts, &Dialect::V1_2)?;
    let others = hand_over::has_others(request.joined);
    request.hand_over = hand_over::decide(&mut request.policy, &args.hand_over, others, others);
    let bootstrap = request.bootstrap()?;
    let mut launcher =
        Launcher::new(&bootstrap, request.policy).map_err(|error| Failure::Usage(error.to_string()))?;
    // Without a command, plan a command that does nothing.
    let nothing = [std::ffi::OsString::from("/bin/true")];
    let command = if args.command.is_empty() { &nothing[..] } else { &args.command };
    if let Some((program, arguments)) = command.split_first() {
        request.hand_over.apply(&mut launcher);
        launcher.command(program, arguments);
    }
    let prepared = match run::in_place(&args.namespaces, &request) {
        true => launcher.signals(ChildSignals::default()).prepare_exec(),
        false => {
            // As in `run`, so that the plan has the same signal masks. This process exits so soon that no
            // signal is missed.
            let signals = run::take_signals()?;
            let blocked = own_status().bits("SigBlk").map(SignalSet);
            assumptions.blocked = blocked.unwrap_or(assumptions.blocked);
            launcher.supervised(&signals).prepare()
        }
    };
    let prepared = prepared.map_err(|error| Failure::Usage(error.to_string()))?;
    // `--assume command=FILE` plans for another machine, so this machine's files do not matter.
    if assumptions.command.as_ref().is_none_or(Vec::is_empty) {
        let (found, refused) = search::search(&prepared);
        // If the search finds nothing here, the launch will find nothing either.
        assumptions.command = assumptions.command.or(Some(found.unwrap_or_default()));
        assumptions.refused = refused;
    }
    finish(&Start::Launcher(prepared), &assumptions)
}

fn of_message(args: &PlanArgs, file: &Path) -> Result<Plan, Failure> {
    // Ignored flags would look like a part of the plan.
    let flags = args.namespaces != NamespaceFlags::default() || args.hand_over != HandOverFlags::default();
    if flags || !args.command.is_empty() {
        let why = "--bootstrap already defines the namespaces and id maps: leave out the flags of run and the command";
        return Err(Failure::Usage(why.to_owned()));
    }
    let opened = decode::open(file)?;
    opened.check(args.dialect)?;
    let mut assumptions = assume::of_machine(&Facts::gather(true, true), &[]);
    assume::apply(&mut assumptions, &args.assume);
    let manner = match args.manner {
        MannerFlag::Init => Manner::Init,
        MannerFlag::Exec => Manner::Exec,
    };
    finish(&Start::Runc { message: opened.message, manner, policy: Policy::runc(args.dialect) }, &assumptions)
}

fn finish(start: &Start, assumptions: &Assumptions) -> Result<Plan, Failure> {
    plan(start, assumptions).map_err(|error| Failure::ours(error.to_string()))
}

fn shown(plan: &Plan, args: &PlanArgs) -> Result<String, Failure> {
    match args.format {
        Format::Json => plan.to_json().map_err(|error| Failure::ours(error.to_string())),
        Format::Mermaid => Ok(plan.to_mermaid()),
        Format::Svg => Ok(plan.to_svg()),
        Format::Text => Ok(plan.to_text(look(args.color))),
    }
}

/// Returns the text format: folded and coloured for a terminal, plain and unfolded for a pipe.
pub(crate) fn look(colour: ColourFlag) -> text::Look {
    let terminal = output::is_terminal();
    let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let colour = match colour {
        ColourFlag::Auto => terminal && wanted,
        ColourFlag::Always => true,
        ColourFlag::Never => false,
    };
    let width = terminal.then(|| terminal_size::terminal_size().map_or(80, |(width, _)| width.0.into()));
    text::Look { width, colour }
}

fn print(text: &str) -> Result<(), Failure> {
    let mut out = String::with_capacity(text.len() + 1);
    let _ = write!(out, "{}{}", text, if text.ends_with('\n') { "" } else { "\n" });
    output::print(&out)
}
