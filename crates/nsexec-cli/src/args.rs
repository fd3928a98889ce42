//! The command line: the definition of every flag with its help text. Names and letters are those of
//! unshare(1) and nsenter(1).

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::styling::{AnsiColor, Styles};
use clap::builder::{OsStringValueParser, Resettable, TypedValueParser};
use clap::{ArgMatches, Args, FromArgMatches, Parser, Subcommand, ValueEnum};
use nsexec::bootstrap::Dialect;
use nsexec::namespace::{NsKind, NsSet};

use super::assume::value::AssumeValue;
use super::values::{FdValue, JoinValue, MapValue, Variable, dialect};

/// The version, and the commit if `build.rs` could find it: `0.1.0 (f3f514b2a1c0)`.
const VERSION: &str = match option_env!("NSEXEC_VERSION") {
    Some(version) => version,
    None => env!("CARGO_PKG_VERSION"),
};

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

const EXAMPLES: &str = "\
Examples:
  nsexec run -- sh                             a shell as root in new namespaces, for any user
  nsexec run -r -n -- ip address               in a new network namespace
  nsexec run --all --map-users auto -- sh      with the subordinate ids of /etc/subuid
  nsexec run --join net=/run/netns/blue -- ss  in an existing network namespace
  nsexec enter -t 4711 -a -- sh                a shell in the namespaces of process 4711
  nsexec encode -r -p | nsexec decode          print the bootstrap message as text

Exit status: that of the command, 128+n if signal n ended it or interrupted the launch, 127 if
the command was not found, 126 if it cannot be executed; 2 for wrong usage, 1 for any other
failure of nsexec. There is no time limit: use timeout(1).";

const RUN_EXAMPLES: &str = "\
Without any namespace flag: every kind, the caller mapped to root, and a fresh /proc.
The command inherits all open descriptors, the session and the environment. If a user, mount
or pid namespace is joined, it inherits descriptors 0 to 2 only (--fd), and gets a session
without our terminal (--same-session). One --fd N closes all other descriptors above 2.

Examples:
  nsexec run -- sh -c 'echo pid $$ uid $(id -u); ls /proc'
  nsexec run -r -p --mount-proc -- ps aux
  nsexec run --all --map-users 0:1000:1 --map-users 1:100000:65536 -- sh
  nsexec run -r --boottime 86400 -- uptime
  nsexec run -r --join net=/run/netns/blue -- sh";

const ENTER_EXAMPLES: &str = "\
A namespace that the process and nsexec share is not joined. Where a user namespace is joined,
the command is its root, and supplementary groups are dropped if that is allowed.

The command may be a program of the container, so it inherits descriptors 0 to 2 and no other
(--fd). It gets a session of its own if the process has less power than nsexec (another user
namespace or user, fewer capabilities, no_new_privs, or a seccomp filter while nsexec has none).
Ctrl-C, Ctrl-\\ and Ctrl-Z still reach it, but a shell in there has no job control.
--same-session gives it job control and our terminal; then it can type into that terminal. The
command also inherits the environment (--clear-env), working directory, limits, umask and
signal state. If it joins a mount namespace, nsexec first executes a sealed copy of itself
(CVE-2019-5736).

Examples:
  nsexec enter -t 4711 -a -- sh
  nsexec enter -t $(pidof -s nginx) -n -- ss -tln
  script -qc 'nsexec enter -t 4711 -a -- sh' /dev/null   with a pty between both";

const DECODE_EXAMPLES: &str = "\
For a malformed message, prints one line with the error and its offset, and exits with status 1.

Examples:
  nsexec encode -r -p | nsexec decode
  nsexec decode --json message.bin | jq -r .ok.uid_map.text";

const ENCODE_EXAMPLES: &str = "\
The flags are those of run. A message has no attribute for --mount-proc, --kill-child,
--copy-memory, --setgroups and the command: they are refused.

Examples:
  nsexec encode -r -p > message.bin
  nsexec encode --all --map-users auto | nsexec decode --json";

const PLAN_EXAMPLES: &str = "\
The calls are those of the program itself, made on a simulated kernel. Facts about the machine
are assumed and shown; --assume changes them:
  uid=N gid=N caps=all|none|HEX kernel=X.Y subuid=FIRST:COUNT|none subgid=FIRST:COUNT|none
  owner=KIND:caller|joined proc=whole|covered command=FILE uptime=SECONDS
  hidepid=off|noaccess|invisible|ptraceable
  join=KIND:there|missing|below-file|forbidden|not-permitted|fifo|file|other-kind|own
and of a user namespace that is joined: maker=UID setgroups=allow|deny
  user-map=I:O:N,…|none group-map=I:O:N,…|none
Paths to join and the command are looked up on this machine. To plan for another machine, use
join=KIND:there and command=FILE.

Examples:
  nsexec plan -r -n -- ip address
  nsexec plan --all --map-users auto --assume uid=1000 --assume subuid=100000:65536 -- sh
  nsexec plan --format svg -- sh > plan.svg
  nsexec plan --bootstrap message.bin

Exit status: 0 if the plan ends with the command and breaks no rule, else 1.";

const TRACE_EXAMPLES: &str = "\
Examples:
  nsexec trace -r -n -- ip address
  nsexec trace --witness --all -- true
  nsexec trace --json run.jsonl -r -p -- true; nsexec trace --replay run.jsonl

Exit status: that of the command if everything went as planned, else 3.";

const INIT_EXAMPLES: &str = "\
_LIBCONTAINER_INITPIPE names the descriptor of the init pipe: stage 0 reads one bootstrap
message from it, and writes the line with both pids to it. _LIBCONTAINER_LOGPIPE, if set,
names the descriptor for log records. This process becomes stage 0. Stage 2 executes CMD, or
exits with status 0 if there is no CMD. CMD inherits the init pipe, which may contain more
data, but not the log pipe.

Dialects seed and v1_2 make no sealed copy of the program: with a mount namespace to join, the
parent must start nsexec from one (CVE-2019-5736).";

/// Runs a command in namespaces: creates or joins them, and maps ids
#[derive(Parser, Debug)]
#[command(name = "nsexec", version = VERSION, styles = STYLES, after_help = EXAMPLES)]
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
    /// Print a bootstrap message as text or JSON
    #[command(after_help = DECODE_EXAMPLES)]
    Decode(Lazy<DecodeArgs>),
    /// Write the bootstrap message of these flags to standard output
    #[command(after_help = ENCODE_EXAMPLES)]
    Encode(Lazy<EncodeArgs>),
    /// Show what run would do, call by call, without doing it and without privileges
    #[command(after_help = PLAN_EXAMPLES)]
    Plan(Lazy<PlanArgs>),
    /// Run a command, record every call, and compare with the plan
    #[command(after_help = TRACE_EXAMPLES)]
    Trace(Lazy<TraceArgs>),
    /// Run as stage 0 for a parent that uses runc's protocol
    #[command(after_help = INIT_EXAMPLES)]
    Init(Lazy<InitArgs>),
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

/// One flag for each kind of namespace, with the names and letters of util-linux.
#[derive(Args, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct KindFlags {
    /// User namespace: ids and privileges
    #[arg(short = 'U', long, help_heading = "Namespaces")]
    pub(crate) user: bool,
    /// Mount namespace: the mounts
    #[arg(short, long, help_heading = "Namespaces")]
    pub(crate) mount: bool,
    /// Pid namespace: process ids; the command is process 1 of a new one
    #[arg(short, long, help_heading = "Namespaces")]
    pub(crate) pid: bool,
    /// Network namespace: devices, addresses, ports
    #[arg(short, long, help_heading = "Namespaces")]
    pub(crate) net: bool,
    /// IPC namespace: System V IPC, POSIX message queues
    #[arg(short, long, help_heading = "Namespaces")]
    pub(crate) ipc: bool,
    /// UTS namespace: host name
    #[arg(short, long, help_heading = "Namespaces")]
    pub(crate) uts: bool,
    /// Cgroup namespace: the root of /proc/PID/cgroup
    #[arg(short = 'C', long, help_heading = "Namespaces")]
    pub(crate) cgroup: bool,
    /// Time namespace: offsets of the monotonic and the boot-time clock
    #[arg(short = 'T', long, help_heading = "Namespaces")]
    pub(crate) time: bool,
}

impl KindFlags {
    /// Returns the kinds that are named.
    pub(crate) fn set(self) -> NsSet {
        let flags = [
            (self.user, NsKind::User),
            (self.mount, NsKind::Mnt),
            (self.pid, NsKind::Pid),
            (self.net, NsKind::Net),
            (self.ipc, NsKind::Ipc),
            (self.uts, NsKind::Uts),
            (self.cgroup, NsKind::Cgroup),
            (self.time, NsKind::Time),
        ];
        flags.into_iter().filter_map(|(named, kind)| named.then_some(kind)).collect()
    }
}

/// The value of `--setgroups`.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SetgroupsFlag {
    /// setgroups(2) is permitted in the namespace
    Allow,
    /// setgroups(2) is denied in the namespace permanently
    Deny,
}

/// The flags that describe namespaces, shared by `run`, `plan`, `trace` and `encode`.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NamespaceFlags {
    /// The kinds to create.
    #[command(flatten)]
    pub(crate) kinds: KindFlags,
    /// Every kind that is not joined; the caller is root unless there is a map
    #[arg(long, help_heading = "Namespaces")]
    pub(crate) all: bool,
    /// Join this namespace instead of creating one, e.g. net=/run/netns/blue; repeatable
    #[arg(long, value_name = "KIND=PATH", value_parser = join_parser(), help_heading = "Namespaces")]
    pub(crate) join: Vec<JoinValue>,
    /// Stay the parent of the command. Without it `run` becomes the command itself, unless that needs a
    /// child: a pid namespace, a new session
    #[arg(short, long, help_heading = "Namespaces")]
    pub(crate) fork: bool,

    /// Map the caller to id 0, as user and as group; implies -U
    #[arg(short = 'r', long, help_heading = "Ids")]
    pub(crate) map_root_user: bool,
    /// Map N user ids: from I on inside to O and up outside; or `auto`: the caller to 0, then the ranges of
    /// /etc/subuid; repeatable, implies -U
    #[arg(long, value_name = "I:O:N|auto", help_heading = "Ids")]
    pub(crate) map_users: Vec<MapValue>,
    /// The same for group ids and /etc/subgid; if only one of both is given, the other maps the caller's own
    /// id to 0
    #[arg(long, value_name = "I:O:N|auto", help_heading = "Ids")]
    pub(crate) map_groups: Vec<MapValue>,
    /// Allow or deny setgroups(2) in the new user namespace
    #[arg(long, value_name = "allow|deny", hide_possible_values = true, help_heading = "Ids")]
    pub(crate) setgroups: Option<SetgroupsFlag>,

    /// Seconds to add to the monotonic clock, may be negative; implies -T
    #[arg(
        long,
        value_name = "S",
        allow_negative_numbers = true,
        help_heading = "The command's surroundings"
    )]
    pub(crate) monotonic: Option<i64>,
    /// Seconds to add to the boot-time clock, may be negative; implies -T
    #[arg(
        long,
        value_name = "S",
        allow_negative_numbers = true,
        help_heading = "The command's surroundings"
    )]
    pub(crate) boottime: Option<i64>,
    /// Adjust the OOM score: -1000 (the kernel never kills the command) to 1000 (kills it first)
    #[arg(
        long,
        value_name = "N",
        allow_negative_numbers = true,
        help_heading = "The command's surroundings"
    )]
    #[arg(value_parser = clap::value_parser!(i16).range(-1000..=1000))]
    pub(crate) oom_score_adj: Option<i16>,
    /// Mount a fresh /proc, in a mount namespace of its own; implies -m
    #[arg(long, help_heading = "The command's surroundings")]
    pub(crate) mount_proc: bool,
    /// Kill the command when nsexec dies
    #[arg(long, help_heading = "The command's surroundings")]
    pub(crate) kill_child: bool,
    /// Copy nsexec's memory for the command's process, as trace does, instead of sharing it up to the exec
    #[arg(long, help_heading = "The command's surroundings")]
    pub(crate) copy_memory: bool,
}

impl NamespaceFlags {
    /// Returns whether an id map was given, so that the caller's subordinate ids are needed.
    pub(crate) fn maps_ids(&self) -> bool {
        !self.map_users.is_empty() || !self.map_groups.is_empty()
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
    /// Show the debug messages of each stage on standard error
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// The command and its arguments, after `--`
    #[arg(value_name = "CMD", required = true, trailing_var_arg = true)]
    pub(crate) command: Vec<OsString>,
}

/// `nsexec enter`.
#[derive(Args, Debug)]
pub(crate) struct EnterArgs {
    /// The process whose namespaces are joined
    #[arg(short, long, value_name = "PID", value_parser = clap::value_parser!(i32).range(1..))]
    pub(crate) target: i32,
    /// Join every kind of namespace in which the process differs from nsexec
    #[arg(short, long, help_heading = "Namespaces")]
    pub(crate) all: bool,
    /// The kinds to join.
    #[command(flatten)]
    pub(crate) kinds: KindFlags,
    /// The command's descriptors, session and environment.
    #[command(flatten)]
    pub(crate) hand_over: HandOverFlags,
    /// If a user namespace is joined, keep the user id, group id and supplementary groups
    #[arg(long)]
    pub(crate) preserve_credentials: bool,
    /// Show the debug messages of each stage on standard error
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// The command and its arguments, after `--`
    #[arg(value_name = "CMD", required = true, trailing_var_arg = true)]
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
}

/// The condition under which text is coloured.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ColourFlag {
    /// On a terminal, unless NO_COLOR is set
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

/// `nsexec plan`.
#[derive(Args, Debug)]
pub(crate) struct PlanArgs {
    /// The namespaces and the id maps.
    #[command(flatten)]
    pub(crate) namespaces: NamespaceFlags,
    /// The command's descriptors, session and environment.
    #[command(flatten)]
    pub(crate) hand_over: HandOverFlags,
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
    /// Replace a fact about this machine by an assumption; repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = AssumeValue::parse)]
    pub(crate) assume: Vec<AssumeValue>,
    /// text, json, mermaid or svg
    #[arg(long, value_name = "FORMAT", default_value = "text", hide_possible_values = true)]
    pub(crate) format: Format,
    /// Colour the text: auto, always or never
    #[arg(long, value_name = "WHEN", default_value = "auto", hide_possible_values = true)]
    pub(crate) color: ColourFlag,
    /// List the rules that every plan is checked against, with their reasons
    #[arg(long, exclusive = true)]
    pub(crate) rules: bool,
    /// The command and its arguments, after `--`
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
    /// Also run under strace, and compare the record with strace's output
    #[arg(long)]
    pub(crate) witness: bool,
    /// Set by `--witness` for the run under strace: writes the record into this folder.
    #[arg(long, value_name = "FOLDER", hide = true)]
    pub(crate) witnessed: Option<PathBuf>,
    /// Write the record to FILE, as JSON lines, without the values of environment variables
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Replay the record in FILE offline, with its replies of the kernel: reproduces the error
    #[arg(long, value_name = "FILE", exclusive = true)]
    pub(crate) replay: Option<PathBuf>,
    /// Show the debug messages of each stage on standard error
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// The command and its arguments, after `--`
    #[arg(value_name = "CMD", trailing_var_arg = true)]
    pub(crate) command: Vec<OsString>,
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

fn variable_parser() -> impl TypedValueParser<Value = Variable> {
    OsStringValueParser::new().try_map(|value| Variable::parse(&value))
}

fn join_parser() -> impl TypedValueParser<Value = JoinValue> {
    OsStringValueParser::new().try_map(|value| JoinValue::parse(&value))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

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
        for name in ["run", "enter", "plan", "trace", "decode", "encode", "init"] {
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
        assert!(run.namespaces.map_root_user && !run.namespaces.all && !run.namespaces.kinds.pid);
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
