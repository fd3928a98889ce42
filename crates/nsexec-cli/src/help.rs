//! The texts after the help of the commands that have long ones.

pub(crate) const DECODE_EXAMPLES: &str = "\
For a malformed message, prints one line with the error and its offset, and exits with status 1.

Examples:
  nsexec encode -r -p | nsexec decode
  nsexec decode --json message.bin | jq -r .ok.uid_map.text";

pub(crate) const ENCODE_EXAMPLES: &str = "\
A message has attributes for the kinds, --join, the id maps, the clock offsets and the OOM score.
Other flags of run, and a command, are refused.

Examples:
  nsexec encode -r -p > message.bin
  nsexec encode --all --map-users auto | nsexec decode --json";

pub(crate) const DOCTOR_EXAMPLES: &str = "\
Without flags of run: tries each kind of namespace, maps of ids, and mounts. For each thing that does not
work, prints the evidence, the cause, and what to do about it on this distribution. With flags of run: makes
all steps of that launch except the mounts on files (--net=FILE) and the start of the command. Leaves nothing behind. In a container the report
holds for the container only.

Examples:
  nsexec doctor
  nsexec doctor --all --map-users auto
  nsexec doctor -r --mount-proc -p -- sh
  nsexec doctor --json | jq -r '.answers[] | select(.verdict.is == \"no\") | .question'

Exit status: 0 if everything works, or the launch that the flags ask for; 1 if something does not
work, or cannot be tried; 2 for wrong usage.";

pub(crate) const PIN_EXAMPLES: &str = "\
Each namespace is mounted on DIR/KIND: user, mnt, net, ipc, uts, cgroup, time. No process is left.
The mount needs CAP_SYS_ADMIN: an ordinary user pins inside of nsexec run -r -m. DIR must belong to
the caller. A failure leaves nothing behind. --release removes only what pin has made.

Examples:
  nsexec pin -n /run/blue; ip link set veth1 netns /run/blue/net
  nsexec pin -n --map-auto /run/green
  nsexec enter --user=/run/green/user --net=/run/green/net -- sh
  nsexec pin --release /run/green
  nsexec plan pin -n --map-auto /run/green        the calls, without making them";

pub(crate) const PLAN_EXAMPLES: &str = "\
The calls are those of the program itself, made on a simulated kernel. Facts about the machine
are assumed and shown; --assume changes them:
  uid=N gid=N caps=all|none|HEX kernel=X.Y subuid=FIRST:COUNT|none subgid=FIRST:COUNT|none
  absent=KIND owner=KIND:caller|joined proc=whole|covered command=FILE uptime=SECONDS
  hidepid=off|noaccess|invisible|ptraceable yama=off|on suid_dumpable=0|1|2
  join=KIND:there|missing|below-file|forbidden|not-permitted|fifo|file|other-kind|own
and of a user namespace that is joined: maker=UID setgroups=allow|deny
  user-map=I:O:N,...|none group-map=I:O:N,...|none
Paths to join and the command are looked up on this machine. To plan for another machine, use
join=KIND:there and command=FILE.

Examples:
  nsexec plan -r -n -- ip address
  nsexec plan --all --map-users auto --assume uid=1000 --assume subuid=100000:65536 -- sh
  nsexec plan --format svg -- sh > plan.svg
  nsexec plan --bootstrap message.bin
  nsexec plan enter -t 4711 -a -- sh       with the flags of enter

Exit status: 0 if the plan ends with the command and breaks no rule, else 1.";

pub(crate) const TRACE_EXAMPLES: &str = "\
Examples:
  nsexec trace -r -n -- ip address
  nsexec trace --witness --all -- true
  nsexec trace enter -t 4711 -a -- true    with the flags of enter
  nsexec trace --json run.jsonl -r -p -- true; nsexec trace --replay run.jsonl
  nsexec trace --format svg -r -n -- true > run.svg

Exit status: that of the command if everything went as planned, else 3.";

pub(crate) const SHOW_EXAMPLES: &str = "\
FILE is written by trace --json or plan --format json.

Examples:
  nsexec show run.jsonl
  nsexec show --format svg run.jsonl > run.svg
  ssh host nsexec plan --format json -r -n -- true | nsexec show -";

pub(crate) const DIFF_EXAMPLES: &str = "\
The calls of each process are compared after descriptors, pids and addresses are renamed. The
output is the first difference of each process, and then a unified diff. Facts of the files,
such as the kernel of a plan, are listed if they differ; they do not change the exit status.

Examples:
  nsexec diff here.jsonl there.jsonl
  nsexec plan --assume kernel=5.4 --format json -r -- true | nsexec diff - run.jsonl

Exit status: 0 if the calls are equal, 3 if they differ, 1 if a file is not a run.";

pub(crate) const INIT_EXAMPLES: &str = "\
_LIBCONTAINER_INITPIPE names the descriptor of the init pipe: stage 0 reads one bootstrap
message from it, and writes the line with both pids to it. _LIBCONTAINER_LOGPIPE, if set,
names the descriptor for log records. This process becomes stage 0. Stage 2 executes CMD, or
exits with status 0 if there is no CMD. CMD inherits the init pipe, which may contain more
data, but not the log pipe.

Dialects seed and v1_2 make no sealed copy of the program: with a mount namespace to join, the
parent must start nsexec from one (CVE-2019-5736).";

pub(crate) const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  nsexec completions bash > ~/.local/share/bash-completion/completions/nsexec
  nsexec completions zsh > ~/.zfunc/_nsexec
  nsexec completions fish > ~/.config/fish/completions/nsexec.fish";

pub(crate) const MAN_EXAMPLES: &str = "\
Examples:
  nsexec man run | man -l -
  nsexec man --dir ~/.local/share/man/man1; man nsexec-run";

pub(crate) const ENTER_EXAMPLES: &str = "\
A namespace that the process and nsexec share is not joined. Where a user namespace is joined,
the command is its root, and supplementary groups are dropped if that is allowed; -S and -G set
other ids.
With =FILE, or FILE after the letter (-n/run/n), the namespace of FILE is joined, and no process
is needed. Without CMD, $SHELL runs.

With -a or -m the command gets the root directory of the process, if it is not that of the mount
namespace, and its working directory if that is below; --wd=/ is the root. The environment is the
caller's, with its PATH; --env takes that of the process.

The command may be a program of the container, so it inherits descriptors 0 to 2, and others only
by --fd. It gets a session of its own if the process has less power than nsexec (another user
namespace or user, fewer capabilities, no_new_privs, or a seccomp filter while nsexec has none).
Ctrl-C, Ctrl-\\ and Ctrl-Z still reach it, but a shell in there has no job control.
--same-session gives it job control and our terminal; then it can type into that terminal. The
command also inherits the environment (--clear-env), limits, umask and signal state. If it gets
another mount namespace or root directory, nsexec first executes a sealed copy of itself
(CVE-2019-5736).

Examples:
  nsexec enter -t 4711 -a -- sh
  nsexec enter -t $(pidof -s nginx) -n -- ss -tln
  nsexec enter -t 4711 -a --env -- sh            with the variables of the process
  nsexec enter --net=/run/netns/blue -- ss       in the namespace of a file
  nsexec plan enter -t 4711 -a -- sh             the calls, without making them
  script -qc 'nsexec enter -t 4711 -a -- sh' /dev/null   with a pty between both";
