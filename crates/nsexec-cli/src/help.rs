//! The texts after the flags in the help of the commands for reviewers: `plan`, `trace`, `show` and `diff`.

pub(crate) const PLAN_EXAMPLES: &str = "\
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

pub(crate) const TRACE_EXAMPLES: &str = "\
Examples:
  nsexec trace -r -n -- ip address
  nsexec trace --witness --all -- true
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
