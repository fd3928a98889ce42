//! `nsexec doctor`: reports what works here for this user, or tries one launch.

use std::ffi::OsString;
use std::fmt::Write as _;

use nsexec::bootstrap::Dialect;
use nsexec::error::Code;
use nsexec::launch::LaunchError;
use nsexec::launch::causes::{Explanation, Facts, Vantage};
use nsexec::launch::probe::{Report, Verdict};
use nsexec_audit::plan::Verdict as Planned;
use serde::Serialize;

use super::args::{DoctorArgs, HandOverFlags, NamespaceFlags};
use super::config::{self, Merged};
use super::failure::{FAILED, Failure};
use super::hand_over;
use super::hints::FLAGS;
use super::output;
use super::plan;
use super::request::{self, Request};
use super::run::{self, Job};
use super::sealed;

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
            let Merged { flags, command } = config::merged(&args.namespaces, &args.command)?;
            let (json, hand_over) = (args.json, args.hand_over.clone());
            one_launch(&DoctorArgs { json, namespaces: flags, hand_over, command })?
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

fn one_launch(args: &DoctorArgs) -> Result<(String, bool), Failure> {
    hand_over::check(&args.hand_over)?;
    let launch = tried(args)?;
    let works = launch.works;
    let tried = Tried { vantage: Facts::read().vantage, launch };
    let text = if args.json { json(&tried)? } else { tried.text() };
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
fn tried(args: &DoctorArgs) -> Result<Launch, Failure> {
    let facts = request::facts_of(&args.namespaces, true);
    let decided = request::decide(&args.namespaces, &facts, &Dialect::V1_2);
    let mut request = match decided {
        Ok(request) => request,
        Err(Failure::Other { text, .. }) => return Ok(failed(text, None)),
        Err(usage) => return Err(usage),
    };
    let others = hand_over::has_others(request.joined);
    request.hand_over = hand_over::decide(&mut request.policy, &args.hand_over, others, others);
    let checked = run::check_persistent(&request).and_then(|()| sealed::ensure_for_joins(request.joined));
    // Not tried, since a mount on the file would stay.
    request.around.persistent.clear();
    if let Err(failure) = checked {
        return Ok(failed(failure.to_string(), None));
    }
    match launched(&request, args)? {
        Some(error) => Ok(error),
        None => planned(&request, args),
    }
}

fn failed(error: String, cause: Option<Explanation>) -> Launch {
    Launch { works: false, error: Some(error), cause }
}

/// Launches a directory as the command: all steps before its exec are those of the real launch. Returns the
/// failure of an earlier step.
fn launched(request: &Request, args: &DoctorArgs) -> Result<Option<Launch>, Failure> {
    let directory = [OsString::from("/")];
    let job = Job {
        request,
        command: &directory,
        verbose: false,
        mount_proc_flag: args.namespaces.mount_proc.is_some(),
    };
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
fn planned(request: &Request, args: &DoctorArgs) -> Result<Launch, Failure> {
    // As the real try: with a parent.
    let flags = NamespaceFlags { fork: true, ..args.namespaces.clone() };
    let plan = plan::of_launch(&flags, &args.hand_over, &args.command, &[])?;
    match plan.verdict() {
        Planned::Fails(fault) if fault.code == Some(Code::Exec) => {
            let mount_proc_flag = args.namespaces.mount_proc.is_some();
            Ok(explained(
                &fault.error,
                &Job { request, command: &args.command, verbose: false, mount_proc_flag },
            ))
        }
        _ => Ok(Launch { works: true, ..Launch::default() }),
    }
}
