//! The command line: the definition of every flag with its help text. Names and letters are those of
//! unshare(1) and nsenter(1).

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::styling::{AnsiColor, Styles};
use clap::builder::{OsStringValueParser, Resettable, TypedValueParser};
use clap::{ArgMatches, Args, FromArgMatches, Parser, Subcommand, ValueEnum};
use nsexec::bootstrap::Dialect;

use super::assume::value::AssumeValue;
pub(crate) use super::before_start_flags::BeforeStartFlags;
pub(crate) use super::enter_flags::EnterFlags;
use super::help::{
    COMPLETIONS_EXAMPLES, DECODE_EXAMPLES, DIFF_EXAMPLES, DOCTOR_EXAMPLES, ENCODE_EXAMPLES, ENTER_EXAMPLES,
    INIT_EXAMPLES, MAN_EXAMPLES, PIN_EXAMPLES, PLAN_EXAMPLES, SHOW_EXAMPLES, TRACE_EXAMPLES,
};
pub(crate) use super::namespace_flags::{NamespaceFlags, SetgroupsFlag};
use super::pin_flags::{PinArgs, PinFlags};
use super::values::{EmitFlag, FdValue, OrderFlag, Variable, dialect};

/// The version, and the commit if `build.rs` could find it: `0.1.0 (f3f514b2a1c0)`.
pub(crate) const VERSION: &str = match option_env!("NSEXEC_VERSION") {
    Some(version) => version,
    None => env!("CARGO_PKG_VERSION"),
};

/// The subcommands of two words: [`with_joined_words`](super::letters::with_joined_words) makes each one
/// argument.
pub(crate) const PLAN_ENTER: &str = "plan enter";
pub(crate) const PLAN_PIN: &str = "plan pin";
pub(crate) const TRACE_ENTER: &str = "trace enter";

/// The flags that the commands of a family share.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Family {
    /// The flags of `run`.
    Run,
    /// The flags of `enter`.
    Enter,
}

/// Returns the family of a subcommand; `None` if it has neither the flags of `run` nor those of `enter`.
pub(crate) fn family(name: &str) -> Option<Family> {
    match name {
        "run" | "plan" | "trace" | "encode" | "doctor" => Some(Family::Run),
        "enter" | PLAN_ENTER | TRACE_ENTER => Some(Family::Enter),
        _ => None,
    }
}

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

const EXAMPLES: &str = "\
Examples:
  nsexec run -- sh                             a shell as root in new namespaces, for any user
  nsexec run -r -n -- ip address               in a new network namespace
  nsexec run --all --map-users auto -- sh      with all subordinate ids: su and chown work
  nsexec run -c -n -- make test                as oneself, in a new network namespace
  nsexec run --join net=/run/netns/blue -- ss  in an existing network namespace
  nsexec enter -t 4711 -a -- sh                a shell in the namespaces of process 4711
  nsexec doctor                                what works here, what does not, and why
  nsexec encode -r -p | nsexec decode          print the bootstrap message as text

Exit status: that of the command, 128+n if signal n ended it or interrupted the launch, 127 if
the command was not found, 126 if it cannot be executed; 2 for wrong usage, 1 for any other
failure of nsexec; 3 if trace or diff finds a difference. There is no time limit: use timeout(1).";

const RUN_EXAMPLES: &str = "\
Without any namespace flag: every kind, the caller mapped to root, and a fresh /proc. Mounts that
the host makes later are then seen inside, and with a flag they are not: --propagation changes it.
A new network namespace has its loopback interface up; --no-loopback leaves it down. With a new
mount namespace too, /sys is mounted anew and shows its devices, where the kernel permits that;
--no-mount-sys leaves /sys as it is. In a new pid namespace the command is process 1; with --init
that is an init of nsexec. If nsexec dies, the command continues; --kill-child ends it. Without
CMD, $SHELL runs.
Without --fork nsexec becomes the command, if it needs no parent: a pid namespace needs one.
With =FILE, or FILE after the letter (-n/run/n), the namespace is mounted on FILE, an existing
file, which keeps it after the end of the command; umount(8) removes it.
The command inherits all open descriptors, the session and the environment. If a user, mount
or pid namespace is joined, it inherits descriptors 0 to 2 only, and gets a session without our
terminal: --fd and --same-session change it. One --fd N closes all other descriptors above 2.

Examples:
  nsexec run -- sh -c 'echo pid $$ uid $(id -u); ls /proc'
  nsexec run -r -p --mount-proc -- ps aux
  nsexec run --all --map-users 0:1000:1 --map-users 1:100000:65536 -- sh
  nsexec run -r --boottime 86400 -- uptime
  nsexec run -r --join net=/run/netns/blue -- sh";

/// Runs a command in namespaces: creates or joins them, and maps ids
#[derive(Parser, Debug)]
#[command(name = "nsexec", version = VERSION, styles = STYLES, after_help = EXAMPLES)]
// As for getopt_long(3), a flag may be given again.
#[command(args_override_self = true)]
#[command(subcommand_required = true, arg_required_else_help = true, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The subcommand to run.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Run a command in new namespaces, as unshare(1)
    #[command(after_help = RUN_EXAMPLES)]
    Run(Lazy<RunArgs>),
    /// Run a command in the namespaces of a process, as nsenter(1)
    #[command(after_help = ENTER_EXAMPLES)]
    Enter(Lazy<EnterArgs>),
    /// Make namespaces without a process, mounted on files; or release them
    #[command(after_help = PIN_EXAMPLES)]
    Pin(Lazy<PinArgs>),
    /// Print a bootstrap message as text or JSON
    #[command(after_help = DECODE_EXAMPLES)]
    Decode(Lazy<DecodeArgs>),
    /// Write the bootstrap message of these flags to standard output
    #[command(after_help = ENCODE_EXAMPLES)]
    Encode(Lazy<EncodeArgs>),
    /// Show what run would do, call by call, without doing it and without privileges
    #[command(after_help = PLAN_EXAMPLES)]
    Plan(Lazy<PlanArgs>),
    /// Report what works here for this user, what does not, why, and what to do
    #[command(after_help = DOCTOR_EXAMPLES)]
    Doctor(Lazy<DoctorArgs>),
    /// Run a command, record every call, and compare with the plan
    #[command(after_help = TRACE_EXAMPLES)]
    Trace(Lazy<TraceArgs>),
    /// Print a recorded or planned run that is stored in a file
    #[command(after_help = SHOW_EXAMPLES)]
    Show(Lazy<ShowArgs>),
    /// Compare two stored runs: of two machines, two kernels or two versions
    #[command(after_help = DIFF_EXAMPLES)]
    Diff(Lazy<DiffArgs>),
    /// Show what enter would do, call by call, without doing it
    #[command(name = PLAN_ENTER, hide = true)]
    PlanEnter(Lazy<PlanEnterArgs>),
    /// Show what pin would do, call by call, without doing it
    #[command(name = PLAN_PIN, hide = true)]
    PlanPin(Lazy<PlanPinArgs>),
    /// Enter a process, record every call, and compare with the plan
    #[command(name = TRACE_ENTER, hide = true)]
    TraceEnter(Lazy<TraceEnterArgs>),
    /// Run as stage 0 for a parent that uses runc's protocol
    #[command(after_help = INIT_EXAMPLES)]
    Init(Lazy<InitArgs>),
    /// Print the completion script of a shell
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions(Lazy<CompletionsArgs>),
    /// Print a man page, or write all of them into a folder
    #[command(after_help = MAN_EXAMPLES)]
    Man(Lazy<ManArgs>),
}

/// The flags of a subcommand. They are defined only if that subcommand is parsed or its help is printed: to
/// define the flags of all subcommands would take a fifth of the program's start.
#[derive(Clone, Debug)]
pub(crate) struct Lazy<T>(pub(crate) T);

impl<T> core::ops::Deref for Lazy<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// Adds flags to a subcommand. Its text in the help remains that of the subcommand, and does not become that
/// of the struct with the flags.
fn keeping_texts(command: clap::Command, add: impl FnOnce(clap::Command) -> clap::Command) -> clap::Command {
    let (about, long_about) = (command.get_about().cloned(), command.get_long_about().cloned());
    add(command).about(Resettable::from(about)).long_about(Resettable::from(long_about))
}

impl<T: Args> Args for Lazy<T> {
    fn augment_args(command: clap::Command) -> clap::Command {
        command.defer(|command| keeping_texts(command, T::augment_args))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        command.defer(|command| keeping_texts(command, T::augment_args_for_update))
    }
}

impl<T: FromArgMatches> FromArgMatches for Lazy<T> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        T::from_arg_matches(matches).map(Self)
    }

    fn from_arg_matches_mut(matches: &mut ArgMatches) -> Result<Self, clap::Error> {
        T::from_arg_matches_mut(matches).map(Self)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.0.update_from_arg_matches(matches)
    }
}

/// The flags for the command's descriptors, session and environment.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HandOverFlags {
    /// Pass descriptor N on, and close descriptors above 2 that no --fd names; or `all`: every open one;
    /// repeatable
    #[arg(long, value_name = "N|all", help_heading = "What the command inherits")]
    pub(crate) fd: Vec<FdValue>,
    /// Run in a new session, without our terminal: the command cannot type into it, and has no job control
    #[arg(long, conflicts_with = "same_session", help_heading = "What the command inherits")]
    pub(crate) new_session: bool,
    /// Run in our session, with our terminal: the command may be able to type into it
    #[arg(long, help_heading = "What the command inherits")]
    pub(crate) same_session: bool,
    /// Clear the environment but for TERM, and set a default PATH
    #[arg(long, help_heading = "What the command inherits")]
    pub(crate) clear_env: bool,
    /// Set a variable of the command's environment; repeatable
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable_parser(), help_heading = "What the command inherits")]
    pub(crate) set_env: Vec<Variable>,
}

/// `nsexec run`.
#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    /// The namespaces and the id maps.
    #[command(flatten)]
    pub(crate) namespaces: NamespaceFlags,
    /// The command's descriptors, session and environment.
    #[command(flatten)]
    pub(crate) hand_over: HandOverFlags,
    /// The steps before the command starts.
    #[command(flatten)]
    pub(crate) before_start: BeforeStartFlags,
    /// Show the debug messages of each stage on standard error
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// The command and its arguments, after `--`; without it, $SHELL or /bin/sh
    #[arg(value_name = "CMD", trailing_var_arg = true)]
    pub(crate) command: Vec<OsString>,
}

/// `nsexec enter`.
#[derive(Args, Debug)]
pub(crate) struct EnterArgs {
    /// The process and the namespaces.
    #[command(flatten)]
    pub(crate) flags: EnterFlags,
    /// The command's descriptors, session and environment.
    #[command(flatten)]
    pub(crate) hand_over: HandOverFlags,
    /// The steps before the command starts.
    #[command(flatten)]
    pub(crate) before_start: BeforeStartFlags,
    /// Show the debug messages of each stage on standard error
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// The command and its arguments, after `--`; without it, $SHELL or /bin/sh
    #[arg(value_name = "CMD", trailing_var_arg = true)]
    pub(crate) command: Vec<OsString>,
}

/// `nsexec decode`.
#[derive(Args, Debug)]
pub(crate) struct DecodeArgs {
    /// The file with the message; `-` is standard input
    #[arg(value_name = "FILE", default_value = "-", hide_default_value = true)]
    pub(crate) file: PathBuf,
    /// Which of runc's release lines wrote it: seed, v1_0, v1_1 or v1_2
    #[arg(long, value_name = "NAME", default_value = "v1_2", value_parser = dialect)]
    pub(crate) dialect: &'static Dialect,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

/// `nsexec encode`.
#[derive(Args, Debug)]
pub(crate) struct EncodeArgs {
    /// The namespaces and the id maps.
    #[command(flatten)]
    pub(crate) namespaces: NamespaceFlags,
    /// Which of runc's release lines will read it: seed, v1_0, v1_1 or v1_2
    #[arg(long, value_name = "NAME", default_value = "v1_2", value_parser = dialect)]
    pub(crate) dialect: &'static Dialect,
    /// Accepted only to be refused with an explanation: a bootstrap message contains no command.
    #[arg(value_name = "CMD", trailing_var_arg = true, hide = true)]
    pub(crate) command: Vec<OsString>,
}

/// The format in which a plan is printed.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Format {
    /// Text: one section of calls for each process, with reasons
    Text,
    /// JSON lines, in the format of recorded runs
    Json,
    /// A mermaid sequence diagram
    Mermaid,
    /// A sequence diagram as an SVG image
    Svg,
    /// A self-contained HTML page
    Html,
}

/// The condition under which text is coloured.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ColourFlag {
    /// On a terminal, unless NO_COLOR is set or CLICOLOR is 0; also with CLICOLOR_FORCE
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// The parent's order of waiting, which differs between runc's commands.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum MannerFlag {
    /// As `runc run`
    Init,
    /// As `runc exec`
    Exec,
}

/// The format in which a run is printed.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct LookFlags {
    /// text, json, mermaid, svg or html
    #[arg(long, value_name = "FORMAT", default_value = "text", hide_possible_values = true)]
    pub(crate) format: Format,
    /// In the text: the calls of one process after the other, or of all processes in time
    #[arg(long, value_name = "process|time", default_value = "process", hide_possible_values = true)]
    pub(crate) order: OrderFlag,
    /// Colour the text: auto, always or never
    #[arg(long, value_name = "WHEN", default_value = "auto", hide_possible_values = true)]
    pub(crate) color: ColourFlag,
}

/// The flags of every plan.
#[derive(Args, Debug)]
pub(crate) struct PlanFlags {
    /// Replace a fact about this machine by an assumption; repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = AssumeValue::parse)]
    pub(crate) assume: Vec<AssumeValue>,
    /// The format.
    #[command(flatten)]
    pub(crate) look: LookFlags,
    /// Print the planned calls as a restriction: an OCI seccomp profile, AppArmor rules, or a line of a
    /// systemd unit
    #[arg(long, value_name = "seccomp|apparmor|systemd", hide_possible_values = true)]
    #[arg(conflicts_with_all = ["format", "order", "color"])]
    pub(crate) emit: Option<EmitFlag>,
}

/// `nsexec plan enter`.
#[derive(Args, Debug)]
pub(crate) struct PlanEnterArgs {
    /// The process and the namespaces.
    #[command(flatten)]
    pub(crate) flags: EnterFlags,
    /// The command's descriptors, session and environment.
    #[command(flatten)]
    pub(crate) hand_over: HandOverFlags,
    /// The steps before the command starts.
    #[command(flatten)]
    pub(crate) before_start: BeforeStartFlags,
    /// The assumptions and the format.
    #[command(flatten)]
    pub(crate) shown: PlanFlags,
    /// The command and its arguments, after `--`
    #[arg(value_name = "CMD", trailing_var_arg = true)]
    pub(crate) command: Vec<OsString>,
}

/// `nsexec plan pin`.
#[derive(Args, Debug)]
pub(crate) struct PlanPinArgs {
    /// The namespaces and the maps.
    #[command(flatten)]
    pub(crate) flags: PinFlags,
    /// The assumptions and the format.
    #[command(flatten)]
    pub(crate) shown: PlanFlags,
    /// The directory with one file for each namespace
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
}

/// `nsexec plan`.
#[derive(Args, Debug)]
pub(crate) struct PlanArgs {
    /// The namespaces and the id maps.
    #[command(flatten)]
    pub(crate) namespaces: NamespaceFlags,
    /// The command's descriptors, session and environment.
    #[command(flatten)]
    pub(crate) hand_over: HandOverFlags,
    /// The steps before the command starts.
    #[command(flatten)]
    pub(crate) before_start: BeforeStartFlags,
    /// Plan a start by a Go runtime with this bootstrap message instead; `-` is standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) bootstrap: Option<PathBuf>,
    /// With --bootstrap: which of runc's release lines starts it: seed, v1_0, v1_1 or v1_2
    #[arg(long, value_name = "NAME", default_value = "v1_2", value_parser = dialect, requires = "bootstrap")]
    pub(crate) dialect: &'static Dialect,
    /// With --bootstrap: the order in which runc waits
    #[arg(
        long,
        value_name = "init|exec",
        default_value = "init",
        hide_possible_values = true,
        requires = "bootstrap"
    )]
    pub(crate) manner: MannerFlag,
    /// The assumptions and the format.
    #[command(flatten)]
    pub(crate) shown: PlanFlags,
    /// List the rules that every plan is checked against, with their reasons
    #[arg(long, exclusive = true)]
    pub(crate) rules: bool,
    /// The command and its arguments, after `--`
    #[arg(value_name = "CMD", trailing_var_arg = true)]
    pub(crate) command: Vec<OsString>,
}

/// `nsexec doctor`.
#[derive(Args, Debug)]
pub(crate) struct DoctorArgs {
    /// Print one JSON object instead of text
    #[arg(long)]
    pub(crate) json: bool,
    /// The namespaces and the id maps.
    #[command(flatten)]
    pub(crate) namespaces: NamespaceFlags,
    /// The command's descriptors, session and environment.
    #[command(flatten)]
    pub(crate) hand_over: HandOverFlags,
    /// A command to search for, after `--`; it is not executed
    #[arg(value_name = "CMD", trailing_var_arg = true)]
    pub(crate) command: Vec<OsString>,
}

/// The flags of every recorded run.
#[derive(Args, Debug)]
pub(crate) struct RecordFlags {
    /// Also run under strace, and compare the record with strace's output
    #[arg(long)]
    pub(crate) witness: bool,
    /// Set by `--witness` for the run under strace: writes the record into this folder.
    #[arg(long, value_name = "FOLDER", hide = true)]
    pub(crate) witnessed: Option<PathBuf>,
    /// Write the record to FILE, as JSON lines, without the values of environment variables
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Print the record on standard output after the command's end: text, json, mermaid, svg, or html
    /// beside the plan
    #[arg(long, value_name = "FORMAT", hide_possible_values = true)]
    pub(crate) format: Option<Format>,
    /// Show the debug messages of each stage on standard error
    #[arg(short, long)]
    pub(crate) verbose: bool,
}

/// `nsexec trace enter`.
#[derive(Args, Debug)]
pub(crate) struct TraceEnterArgs {
    /// The process and the namespaces.
    #[command(flatten)]
    pub(crate) flags: EnterFlags,
    /// The command's descriptors, session and environment.
    #[command(flatten)]
    pub(crate) hand_over: HandOverFlags,
    /// The steps before the command starts.
    #[command(flatten)]
    pub(crate) before_start: BeforeStartFlags,
    /// The record, and the comparison with strace.
    #[command(flatten)]
    pub(crate) record: RecordFlags,
    /// The command and its arguments, after `--`; without it, $SHELL or /bin/sh
    #[arg(value_name = "CMD", trailing_var_arg = true)]
    pub(crate) command: Vec<OsString>,
}

/// `nsexec trace`.
#[derive(Args, Debug)]
pub(crate) struct TraceArgs {
    /// The namespaces and the id maps.
    #[command(flatten)]
    pub(crate) namespaces: NamespaceFlags,
    /// The command's descriptors, session and environment.
    #[command(flatten)]
    pub(crate) hand_over: HandOverFlags,
    /// The steps before the command starts.
    #[command(flatten)]
    pub(crate) before_start: BeforeStartFlags,
    /// The record, and the comparison with strace.
    #[command(flatten)]
    pub(crate) record: RecordFlags,
    /// Replay the record in FILE offline, with its replies of the kernel: reproduces the error
    #[arg(long, value_name = "FILE", exclusive = true)]
    pub(crate) replay: Option<PathBuf>,
    /// The command and its arguments, after `--`; without it, $SHELL or /bin/sh
    #[arg(value_name = "CMD", trailing_var_arg = true)]
    pub(crate) command: Vec<OsString>,
}

/// `nsexec show`.
#[derive(Args, Debug)]
pub(crate) struct ShowArgs {
    /// The file with the run; `-` is standard input
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// The format.
    #[command(flatten)]
    pub(crate) look: LookFlags,
}

/// `nsexec diff`.
#[derive(Args, Debug)]
pub(crate) struct DiffArgs {
    /// The file with the first run; `-` is standard input
    #[arg(value_name = "A")]
    pub(crate) left: PathBuf,
    /// The file with the second run
    #[arg(value_name = "B")]
    pub(crate) right: PathBuf,
    /// Print an HTML page with both runs side by side
    #[arg(long)]
    pub(crate) html: bool,
}

/// `nsexec init`.
#[derive(Args, Debug)]
pub(crate) struct InitArgs {
    /// Which of runc's release lines the parent is from: seed, v1_0, v1_1 or v1_2
    #[arg(long, value_name = "NAME", default_value = "v1_2", value_parser = dialect)]
    pub(crate) dialect: &'static Dialect,
    /// The command that stage 2 executes, after `--`; without it stage 2 exits 0
    #[arg(value_name = "CMD", trailing_var_arg = true)]
    pub(crate) command: Vec<OsString>,
}

/// `nsexec completions`.
#[derive(Args, Debug)]
pub(crate) struct CompletionsArgs {
    /// bash, elvish, fish, powershell or zsh
    #[arg(value_name = "SHELL", hide_possible_values = true)]
    pub(crate) shell: clap_complete::Shell,
}

/// `nsexec man`.
#[derive(Args, Debug)]
pub(crate) struct ManArgs {
    /// The command whose page is printed; without it the page of nsexec itself
    #[arg(value_name = "COMMAND", conflicts_with = "dir")]
    pub(crate) command: Option<String>,
    /// Write the pages of all commands into this folder
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}

fn variable_parser() -> impl TypedValueParser<Value = Variable> {
    OsStringValueParser::new().try_map(|value| Variable::parse(&value))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use nsexec::namespace::NsSet;

    use super::*;

    #[test]
    fn the_flags_are_consistent() {
        Cli::command().debug_assert();
    }

    /// Checks the help texts. The flags are a public interface, so the snapshot shows each change.
    #[test]
    fn help_texts() {
        let mut cli = Cli::command().term_width(100);
        cli.build();
        let mut out = cli.render_help().to_string();
        let names = [
            "run",
            "enter",
            "pin",
            "doctor",
            "plan",
            PLAN_ENTER,
            PLAN_PIN,
            "trace",
            TRACE_ENTER,
            "show",
            "diff",
            "decode",
            "encode",
            "init",
            "completions",
            "man",
        ];
        for name in names {
            let help = cli.find_subcommand_mut(name).unwrap().render_help();
            out += &format!("\n---- {name}\n{help}");
        }
        crate::testing::snapshot(|| insta::assert_snapshot!("cli_help", out));
    }

    #[test]
    fn arguments_after_the_command_are_not_flags() {
        let cli = Cli::try_parse_from(["nsexec", "run", "-r", "ls", "-p", "--all"]).unwrap();
        let Command::Run(run) = cli.command else { panic!("not run") };
        assert_eq!(run.command, ["ls", "-p", "--all"]);
        assert!(run.namespaces.map_root_user && !run.namespaces.all && run.namespaces.kinds.pid.is_none());
    }

    #[test]
    fn short_flags_are_those_of_unshare() {
        let cli = Cli::try_parse_from(["nsexec", "run", "-UmpniuCTrf", "--", "true"]).unwrap();
        let Command::Run(run) = cli.command else { panic!("not run") };
        assert_eq!(run.namespaces.kinds.set(), NsSet::ALL);
        assert!(run.namespaces.fork);
    }

    #[test]
    fn seconds_and_scores_may_be_negative() {
        let args =
            ["nsexec", "run", "--monotonic", "-5", "--boottime=-6", "--oom-score-adj", "-7", "--", "true"];
        let Command::Run(run) = Cli::try_parse_from(args).unwrap().command else { panic!("not run") };
        let flags = run.0.namespaces;
        assert_eq!((flags.monotonic, flags.boottime, flags.oom_score_adj), (Some(-5), Some(-6), Some(-7)));
    }
}
