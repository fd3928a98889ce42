//! `nsexec doctor`: reports what works here for this user, or tries one launch.

use std::ffi::OsString;
use std::fmt::Write as _;

use nsexec::error::Code;
use nsexec::launch::LaunchError;
use nsexec::launch::causes::{Explanation, Vantage};
use nsexec::launch::probe::{Report, Verdict};
use nsexec_audit::machine::caller::Facts as CallerFacts;
use nsexec_audit::plan::Verdict as Planned;
use serde::Serialize;

use super::args::{DoctorArgs, HandOverFlags, NamespaceFlags};
use super::assume;
use super::config::{self, Merged};
use super::failure::{FAILED, Failure};
use super::hand_over;
use super::hints::FLAGS;
use super::output;
use super::plan;
use super::request::{self, Request};
use super::run::{self, Job};

/// The number of the JSON's form. A field that is removed or changes its meaning raises it.
const SCHEMA: u32 = 1;

/// The JSON of the output.
#[derive(Serialize)]
struct Json<T> {
    schema: u32,
    #[serde(flatten)]
    report: T,
}

/// The result of one launch.
#[derive(Serialize)]
struct Tried {
    vantage: Vantage,
    launch: Launch,
}

/// Whether a launch works.
#[derive(Default, Serialize)]
struct Launch {
    works: bool,
    /// The failure in one line, without its cause.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<Explanation>,
}

/// Prints the report. Returns 0 if everything works, or the launch that the flags ask for; else 1.
///
/// # Errors
/// Wrong usage, or output that cannot be written.
pub(crate) fn doctor(args: &DoctorArgs) -> Result<u8, Failure> {
    let is_bare = args.namespaces == NamespaceFlags::default()
        && args.hand_over == HandOverFlags::default()
        && args.command.is_empty();
    let (text, works) = match is_bare {
        true => everything(args.json)?,
        false => {
            let merged = config::merged(&args.namespaces, &args.command)?;
            one_launch(&merged, &args.hand_over, args.json)?
        }
    };
    output::print(&text)?;
    Ok(if works { 0 } else { FAILED })
}

fn everything(as_json: bool) -> Result<(String, bool), Failure> {
    let report = nsexec::launch::probe();
    let works = report.answers.iter().all(|answer| matches!(answer.verdict, Verdict::Yes { .. }));
    let text = if as_json { json(&report)? } else { text_of(&report, works) };
    Ok((text, works))
}

fn text_of(report: &Report, works: bool) -> String {
    let end = if works { "Everything works.\n" } else { "" };
    format!("{report:#}{end}")
}

fn json<T: Serialize>(report: &T) -> Result<String, Failure> {
    let text = serde_json::to_string_pretty(&Json { schema: SCHEMA, report });
    text.map(|text| text + "\n").map_err(|error| Failure::ours(error.to_string()))
}

fn one_launch(
    merged: &Merged,
    hand_over_flags: &HandOverFlags,
    as_json: bool,
) -> Result<(String, bool), Failure> {
    hand_over::check(hand_over_flags)?;
    let launch = tried(merged, hand_over_flags)?;
    let works = launch.works;
    let tried = Tried { vantage: Vantage::read(), launch };
    let text = if as_json { json(&tried)? } else { tried.text() };
    Ok((text, works))
}

impl Tried {
    fn text(&self) -> String {
        let mut out = format!("{}\n", self.vantage);
        let Some(error) = &self.launch.error else {
            out += "This launch works here: every step up to the command succeeded.\n";
            return out;
        };
        let _ = writeln!(out, "This launch does not work here: {error}");
        if let Some(cause) = &self.launch.cause {
            let _ = writeln!(out, "  cause:    {}", cause.why);
            for fact in &cause.evidence {
                let _ = writeln!(out, "  evidence: {fact}");
            }
            if !cause.remedy.is_empty() {
                let _ = writeln!(out, "  to do:    {}", cause.remedy);
            }
        }
        out
    }
}

/// Tries the launch: all its steps with a command that cannot be executed, and the search for the command.
///
/// # Errors
/// Wrong usage.
fn tried(merged: &Merged, hand_over_flags: &HandOverFlags) -> Result<Launch, Failure> {
    let facts = request::facts_of(&merged.flags, true);
    let decided = run::request_of(&merged.flags, hand_over_flags, &facts);
    let checked = decided.and_then(|request| run::ready(&request).map(|()| request));
    merged.print_note();
    let request = match checked {
        Ok(request) => request,
        Err(Failure::Other { text, .. }) => return Ok(failed(text, None)),
        Err(usage) => return Err(usage),
    };
    match launched(&request)? {
        Some(error) => Ok(error),
        None => planned(&request, merged, &facts),
    }
}

fn failed(error: String, cause: Option<Explanation>) -> Launch {
    Launch { works: false, error: Some(error), cause }
}

/// Launches a directory as the command: all steps before its exec are those of the real launch. Returns the
/// failure of an earlier step.
fn launched(request: &Request) -> Result<Option<Launch>, Failure> {
    let directory = [OsString::from("/")];
    // Namespaces are not mounted on their files, since such a mount would stay.
    let mut request = request.clone();
    request.around.persistent.clear();
    let job = Job { request: &request, command: &directory, verbose: false };
    let bootstrap = request.bootstrap()?;
    // The report has the failed step, so the stages' records are not shown.
    let launched = run::launcher_of(&bootstrap, &job, |_| {})?.spawn();
    let error = match launched {
        // execve(2) refuses a directory.
        Err(LaunchError::Exec { .. }) => return Ok(None),
        Err(error) => error,
        Ok(mut child) => {
            let ended = child.kill().and_then(|()| child.wait().map(drop));
            return ended.map(|()| None).map_err(|error| Failure::ours(error.to_string()));
        }
    };
    Ok(Some(explained(&error, &job)))
}

/// Returns the failure with its cause.
fn explained(error: &LaunchError, job: &Job<'_>) -> Launch {
    let cause = error.cause(Some(&run::circumstances(job)), &FLAGS);
    failed(job.request.with_display_paths(&error.without_cause()), cause)
}

/// Plans the launch of the command. The real try has shown that the steps before its exec succeed, so only
/// the command can fail.
fn planned(request: &Request, merged: &Merged, facts: &CallerFacts) -> Result<Launch, Failure> {
    let assumptions = assume::of_machine(facts, &merged.flags.join);
    // As the real try: with a parent.
    let plan = plan::of_decided(request, assumptions, &merged.command, false)?;
    match plan.verdict() {
        Planned::Fails(fault) if fault.code == Some(Code::Exec) => {
            Ok(explained(&fault.error, &Job { request, command: &merged.command, verbose: false }))
        }
        _ => Ok(Launch { works: true, ..Launch::default() }),
    }
}
