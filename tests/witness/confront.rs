//! Runs one configuration as a plan, as a record and under strace, and compares the three.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use nsexec::sys::types::Signal;
use nsexec_audit::diff::compare;
use nsexec_audit::record::Reply;
use nsexec_audit::{End, Role, Run, witness};

use crate::draw::{Config, Ids, KINDS};
use crate::targets::Targets;
use crate::{Caller, UserKind};

/// The result of a configuration for which all three agreed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Agreed {
    pub(crate) fate: Fate,
    pub(crate) calls: usize,
}

/// The step that a configuration reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    /// The command ran.
    Ran,
    /// The command was not found.
    NotFound,
    /// The kernel or a mapping tool refused an earlier step.
    Refused,
}

/// The user that runs strace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Witnesses {
    /// root runs strace, with `-u` for an ordinary user.
    Root,
    /// The caller runs strace.
    Own,
}

/// The program, the targets and the tracer, which all configurations share.
#[derive(Debug)]
pub(crate) struct Stage<'s> {
    pub(crate) bin: &'s Path,
    pub(crate) targets: &'s Targets,
    pub(crate) witnesses: Witnesses,
}

impl Stage<'_> {
    /// Returns the flags and the command of a configuration.
    pub(crate) fn args(&self, config: &Config, caller: &Caller) -> Vec<String> {
        let mut args: Vec<String> = Vec::new();
        for (kind, (name, flag, _)) in KINDS.iter().enumerate() {
            if config.creates(kind) {
                args.push((*flag).to_owned());
            }
            if let Some(place) = config.joins[kind] {
                args.extend(["--join".to_owned(), format!("{name}={}", self.targets.path(kind, place))]);
            }
        }
        if config.root_flag {
            args.push("-r".to_owned());
        }
        for (flag, ids, own) in
            [("--map-users", config.users, caller.uid), ("--map-groups", config.groups, caller.gid)]
        {
            args.extend(
                lines(ids, own, config.root_flag, caller)
                    .into_iter()
                    .flat_map(|line| [flag.to_owned(), line]),
            );
        }
        let word = config.setgroups.map(|allow| if allow { "allow" } else { "deny" }.to_owned());
        let values = [
            ("--setgroups", word),
            ("--monotonic", config.monotonic.map(|seconds| seconds.to_string())),
            ("--boottime", config.boottime.map(|seconds| seconds.to_string())),
            ("--oom-score-adj", config.oom.map(|score| score.to_string())),
        ];
        for (flag, value) in values {
            args.extend(value.into_iter().flat_map(|value| [flag.to_owned(), value]));
        }
        args.extend(config.mount_proc.then(|| "--mount-proc".to_owned()));
        args.extend(config.kill_child.then(|| "--kill-child".to_owned()));
        args.push("--".to_owned());
        args.extend(config.command.words.iter().map(|word| (*word).to_owned()));
        args
    }

    /// Plans, records and traces the configuration, and compares the results.
    ///
    /// # Errors
    /// The first difference.
    pub(crate) fn confront(&self, config: &Config, caller: &Caller, folder: &Path) -> Result<Agreed, String> {
        let args = self.args(config, caller);
        let (plan, succeeds) = self.plan(config, caller, &args)?;
        let (record, mut seen, said) = self.witnessed(config, caller, &args, folder)?;
        let agree = |what: &str, left: &Run, right: &Run| {
            let diff = compare(left, right);
            if diff.is_empty() { Ok(()) } else { Err(format!("{what}\n{diff}")) }
        };
        // Both describe the same run, with the values of the environment.
        agree("record and strace differ:", &record, &seen)?;
        let record = without_values(record);
        agree("plan and record differ:", &plan, &record)?;
        seen.notes.clone_from(&record.notes);
        agree("plan and strace differ:", &plan, &without_values(seen))?;
        let ran = record.section(Role::Stage(2)).is_some_and(|init| init.end == End::Executed);
        if ran != succeeds {
            return Err(format!("the plan succeeds: {succeeds}; the command ran: {ran}"));
        }
        // Check the exit status and the output of the program.
        let status = said.status.code().unwrap_or(-1);
        let fate = fate(&record, ran);
        // The status of the command, or of a failed search, or of an earlier refusal.
        let expected = match fate {
            Fate::Ran => config.status(),
            Fate::NotFound => config.command.status,
            Fate::Refused => 1,
        };
        if status != expected {
            return Err(format!("status {status}, not {expected}\n{}", words(&said)));
        }
        let calls: usize = record.sections.iter().map(|section| section.lines.len()).sum();
        let hash = plan.notes.get("hash").ok_or("the plan has no hash")?;
        let as_planned =
            format!("nsexec: as planned: {calls} calls of {} processes, plan {hash}", record.sections.len());
        if !words(&said).contains(&as_planned) {
            return Err(format!("'{as_planned}' is not said:\n{}", words(&said)));
        }
        if ran {
            check_namespace_calls(config, record.section(Role::Stage(1)).is_none(), folder)?;
        }
        // A process that was killed before its first line has no section.
        let mut lines = record.sections.iter().flat_map(|section| &section.lines);
        let killed = lines.any(|line| {
            matches!(line.reply, Reply::Waited(waited) if End::from(waited.status) == End::Signaled(Signal::KILL))
        });
        self.check_trace_witness(config, caller, &args, (status, calls, killed))?;
        Ok(Agreed { fate, calls })
    }

    /// Returns the command for the program, started by setpriv(1) if the configuration sets no_new_privs.
    fn program(&self, config: &Config) -> Command {
        if !config.no_new_privs {
            return Command::new(self.bin);
        }
        let mut command = Command::new("setpriv");
        command.args(["--no-new-privs", "--"]).arg(self.bin);
        command
    }

    fn plan(&self, config: &Config, caller: &Caller, args: &[String]) -> Result<(Run, bool), String> {
        let mut command = self.program(config);
        // A recorded start copies the memory.
        // `trace` stays the parent of the command.
        command.args(["plan", "--format", "json", "--copy-memory", "--fork"]);
        if !config.command.there {
            // A plan assumes that the command exists, unless `--assume` states otherwise.
            command.args(["--assume", "command="]);
        }
        command.args(args);
        caller.apply_to(&mut command);
        let output = output(&mut command)?;
        let run = Run::from_json_lines(&String::from_utf8_lossy(&output.stdout));
        match (output.status.code(), run) {
            (Some(0), Ok(run)) => Ok((without_values(run), true)),
            (Some(1), Ok(run)) => Ok((without_values(run), false)),
            _ => Err(format!("no plan: {}\n{}", output.status, words(&output))),
        }
    }

    /// Runs the program under our own strace. Returns the record, strace's output and the program's output.
    fn witnessed(
        &self,
        config: &Config,
        caller: &Caller,
        args: &[String],
        folder: &Path,
    ) -> Result<(Run, Run, Output), String> {
        for entry in fs::read_dir(folder).map_err(|error| error.to_string())?.flatten() {
            fs::remove_file(entry.path()).map_err(|error| error.to_string())?;
        }
        let record = folder.join("record.jsonl");
        let mut command = Command::new("strace");
        // One file for each process.
        command
            .args(witness::FLAGS.iter().map(|flag| if *flag == "-f" { "-ff" } else { flag }))
            .arg("-o")
            .arg(folder.join("strace"));
        match self.witnesses {
            Witnesses::Own => {}
            Witnesses::Root if caller.who == UserKind::Root => {}
            Witnesses::Root => {
                command.args(["-u", &caller.name]);
            }
        }
        let program = self.program(config);
        command.arg("--").arg(program.get_program()).args(program.get_args());
        // The arguments that `trace --witness` passes. The record then contains the values of the
        // environment.
        command.arg("trace").arg(format!("--witnessed={}", folder.display())).args(args);
        caller.set_environment(&mut command);
        let said = output(&mut command)?;
        let text =
            fs::read_to_string(&record).map_err(|error| format!("no record: {error}\n{}", words(&said)))?;
        let record = Run::from_json_lines(&text).map_err(|error| error.to_string())?;
        let files = witness::read_files(&folder.join("strace")).map_err(|error| error.to_string())?;
        let seen = witness::run_of(&files, Role::Launcher).map_err(|error| error.to_string())?;
        Ok((record, seen, said))
    }

    /// Runs `nsexec trace --witness`, and checks its result.
    fn check_trace_witness(
        &self,
        config: &Config,
        caller: &Caller,
        args: &[String],
        (status, calls, killed): (i32, usize, bool),
    ) -> Result<(), String> {
        let mut command = self.program(config);
        command.args(["trace", "--witness"]).args(args);
        caller.apply_to(&mut command);
        let said = output(&mut command)?;
        let words = words(&said);
        if caller.who == UserKind::User && config.uses_tools() {
            // The caller's own strace would disable the tool's setuid bit.
            let refused = said.status.code() == Some(1) && words.contains("strace -u");
            return if refused { Ok(()) } else { Err(format!("a tool is witnessed by its user:\n{words}")) };
        }
        // The record has one line for the start of each process. The comparison of names and numbers leaves
        // it out.
        let agrees = words.contains("nsexec: as planned: ") && words.contains("nsexec: the witness agrees: ");
        // A process may be killed at another point in each run.
        let whole = killed || words.contains(&format!("the witness agrees: {calls} calls"));
        let names_only = caller.who == UserKind::User && config.joined() > 0;
        if said.status.code() != Some(status) || !agrees || (!whole && !names_only) {
            return Err(format!(
                "trace --witness: {}, after {status} and {calls} calls\n{words}",
                said.status
            ));
        }
        Ok(())
    }
}

/// Removes the values of environment variables, as in a record that is kept.
fn without_values(mut run: Run) -> Run {
    run.sections.iter_mut().flat_map(|section| &mut section.lines).for_each(|line| line.call.remove_values());
    run
}

/// Returns the values of the flags for one map.
fn lines(ids: Ids, own: u32, root_flag: bool, caller: &Caller) -> Vec<String> {
    let first = caller.subordinate;
    let all = match ids {
        Ids::Unset => vec![],
        Ids::Own => vec![format!("0:{own}:1")],
        Ids::Auto => vec!["auto".to_owned()],
        Ids::Wide => vec![format!("0:{first}:1000")],
        Ids::Both => vec![format!("0:{own}:1"), format!("1:{first}:1000")],
        Ids::Many => (0..7).map(|line| format!("{line}:{}:1", first + 6 - line)).collect(),
        // The first ids of a system belong to root and the daemons.
        Ids::Foreign => vec!["0:7:1".to_owned()],
    };
    // `-r` adds the first of these lines.
    all.into_iter().skip(usize::from(root_flag && ids == Ids::Both)).collect()
}

fn fate(record: &Run, ran: bool) -> Fate {
    let init = record.section(Role::Stage(2));
    let searched = init.is_some_and(|init| init.lines.iter().any(|line| line.call.name() == "execve"));
    match (ran, searched) {
        (true, _) => Fate::Ran,
        (false, true) => Fate::NotFound,
        (false, false) => Fate::Refused,
    }
}

/// Checks strace's output with a separate parser: the configuration's namespaces were joined or created, and
/// no others. In a direct start, the process also enters its own new time namespace.
fn check_namespace_calls(config: &Config, is_direct: bool, folder: &Path) -> Result<(), String> {
    let (mut joined, mut created, mut entered) = (0, 0, 0);
    let files = fs::read_dir(folder).map_err(|error| error.to_string())?.flatten();
    for path in files.map(|entry| entry.path()).filter(|path| !path.ends_with("record.jsonl")) {
        let mut own_time = None;
        for line in fs::read_to_string(path).unwrap_or_default().lines() {
            let Some((call, result)) = line.rsplit_once(" = ") else { continue };
            let Ok(result) = result.parse::<u32>() else { continue };
            if call.starts_with("openat(AT_FDCWD, \"/proc/self/ns/time_for_children\"") {
                own_time = Some(format!("setns({result}, CLONE_NEWTIME)"));
            } else if own_time.as_deref() == Some(call) {
                entered += 1;
            } else if call.starts_with("setns(") {
                joined += 1;
            } else if let Some(flags) = call.strip_prefix("unshare(") {
                created |= flags_of(flags.trim_end_matches(')'));
            } else if call.starts_with("clone(") && call.contains("CLONE_NEW") {
                let flags = call.split(", ").find_map(|argument| argument.strip_prefix("flags="));
                created |= flags_of(flags.ok_or("a clone without flags")?);
            }
        }
    }
    let to_enter = usize::from(is_direct && config.created_kinds() & flag("CLONE_NEWTIME") != 0);
    let wanted = (config.joined(), config.created_kinds(), to_enter);
    if (joined, created, entered) == wanted {
        return Ok(());
    }
    let (to_join, to_create, to_enter) = wanted;
    Err(format!(
        "strace saw {joined} joins of {to_join}, created {created:#x} of {to_create:#x}, and entered {entered} new \
         time namespaces of {to_enter}"
    ))
}

/// Returns the flags of the namespaces among strace's words.
fn flags_of(words: &str) -> u32 {
    words.split('|').map(flag).fold(0, |all, one| all | one)
}

fn flag(word: &str) -> u32 {
    let name = |kind: &str| match kind {
        "mnt" => "CLONE_NEWNS".to_owned(),
        kind => format!("CLONE_NEW{}", kind.to_uppercase()),
    };
    KINDS.iter().find(|(kind, ..)| name(kind) == word).map_or(0, |kind| kind.2)
}

fn output(command: &mut Command) -> Result<Output, String> {
    command.output().map_err(|error| format!("{:?}: {error}", command.get_program()))
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Makes the folder of one thread, for the record and strace's files. The caller can write to it.
pub(crate) fn folder(above: &Path, name: &str, caller: &Caller) -> PathBuf {
    let folder = above.join(name);
    fs::create_dir(&folder).expect("a folder for the records");
    if caller.switches {
        std::os::unix::fs::chown(&folder, Some(caller.uid), Some(caller.gid)).expect("chown");
    }
    folder
}
