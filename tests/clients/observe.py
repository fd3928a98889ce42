"""What a run shows, as text that is equal for two runs of the same program.

Runs as part of `run`, as root, in the machine's first namespaces; it only reads /proc and log files. An
Observation is a list of lines for each field. Numbers from the kernel (pids, inodes) are replaced by names.
"""

import fcntl
import json
import os
import re
import signal

# Python 3.11 does not define it.
F_GET_SEALS = 1034

KINDS = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")

# Fields that differ between two runs of the same program: memory, scheduling, and the number of threads of a
# Go program. SigQ counts the user's signals on the whole machine.
VARYING = re.compile(r"^(Vm\w+|Rss\w+|HugetlbPages|.*ctxt_switches|Threads|SigQ|FDSize|State)$")
# The sets of pending signals, and SIGURG in them. With this signal a Go program preempts its own threads. One that is
# sent right before the exec is still pending after it, until the new program first returns to user mode.
PENDING = ("SigPnd", "ShdPnd")
GO_PREEMPTION = 1 << (signal.SIGURG - 1)
# The pids in a status file; NSpid and similar fields keep the inner ones.
PIDS = re.compile(r"^(Tgid|Pid|PPid|Ngid|TracerPid|NStgid|NSpid|NSpgid|NSsid)$")

# Log records of runc's own goroutines. How many of them are written before the end varies.
GO_CHATTER = re.compile(
    r"^debug (reading|read|writing) sync|^debug sync pipe closed|^debug mount source thread"
    r"|^warning Failed to remove cgroup"
)

# The pids in texts of nsexec and of runc.
PID_IN_TEXT = re.compile(
    r"(?<=/proc/)\d+|(?<=stage-[12] \()\d+(?=\))|(?<=stage-2 pid \()\d+(?=\))|(?<= on )\d+(?=:|$)"
    # A directory of another mount of /proc.
    r"|(?<= /)\d+(?=/task/)|(?<=/task/)\d+(?=/)"
)


class Names:
    """Names for the pids, namespaces and directories of one run."""

    def __init__(self):
        self.pids, self.spaces, self.folders = {}, {}, []
        self.space("host", "self")

    def pid(self, number, name):
        self.pids.setdefault(int(number), name)

    def space(self, owner, pid):
        """Assigns to `owner` the namespaces of `pid` that have no name yet."""
        for kind in KINDS:
            link = read_link(f"/proc/{pid}/ns/{kind}")
            if link is not None:
                self.spaces.setdefault(link, f"{kind}:{owner}")

    def folder(self, path, name):
        self.folders.append((str(path), name))

    def __call__(self, text):
        for path, name in self.folders:
            text = text.replace(path, name)
        # The size of the program, which Go logs when it makes a sealed copy.
        text = re.sub(r"\(\d+ bytes\)", "(SIZE bytes)", text)
        text = re.sub(r"\b[a-z_]+:\[\d+\]", lambda found: self.spaces.get(found[0], unnumbered(found[0])), text)
        return PID_IN_TEXT.sub(lambda found: self.who(found[0]), text)

    def who(self, number):
        return self.pids.get(int(number), number)


def unnumbered(link):
    """`pipe:[4711]` without the number; the number of an unknown namespace becomes "other"."""
    return re.sub(r":\[\d+\]", "", link) if link.startswith(("pipe:", "socket:")) else re.sub(r"\[\d+\]", "other", link)


def inner(number):
    """A pid inside a pid namespace: the first is 1, and the others depend on the number of a Go program's
    threads."""
    return number if number == "1" or not number.isdigit() else "N"


def by_line(text):
    return "".join(sorted(text.splitlines(keepends=True)))


def read(path):
    try:
        with open(path, errors="backslashreplace") as file:
            return file.read()
    except OSError as error:
        return f"{error.strerror}\n"


def read_link(path):
    try:
        return os.readlink(path)
    except OSError:
        return None


class Observation:
    """The fields of one run, in the order of their addition."""

    def __init__(self):
        self.fields = {}
        self.names = Names()

    def add(self, field, lines):
        """Adds a field: lines of text, or one text."""
        if isinstance(lines, str):
            lines = lines.splitlines()
        self.fields[field] = [self.names(line) for line in lines]

    def lost_its_copy(self):
        """Whether runc 1.1's C could not seal the copy of the own program: under load the kernel still holds a page of
        it now and then, and the C takes no second try (a row of docs/deviations.md). That says nothing of the case."""
        text = "could not ensure we are a cloned binary"
        return any(text in line for field, lines in self.fields.items() if ": log of" in field for line in lines)

    def process(self, when, pid):
        """Adds what /proc shows of a live process."""
        self.names.pid(pid, when)
        self.add(f"{when}: status", self._status(pid))
        self.add(f"{when}: ns", [f"{kind} {read_link(f'/proc/{pid}/ns/{kind}')}" for kind in KINDS])
        for name in ("uid_map", "gid_map", "setgroups", "oom_score_adj", "timens_offsets"):
            self.add(f"{when}: {name}", re.sub(r"[ \t]+", " ", read(f"/proc/{pid}/{name}")))
        self.add(f"{when}: descriptors", list(descriptors(pid)))
        # The signal that the parent receives: set by the clone, not by runc.
        self.add(f"{when}: exit signal", read(f"/proc/{pid}/stat").rpartition(") ")[2].split()[35:36])
        self.add(f"{when}: exe", f"{read_link(f'/proc/{pid}/exe')}, {seals(f'/proc/{pid}/exe')}")
        self.add(f"{when}: root and cwd", [str(read_link(f"/proc/{pid}/{name}")) for name in ("root", "cwd")])
        self.add(f"{when}: cgroup", read(f"/proc/{pid}/cgroup"))
        self.add(f"{when}: mounts", read(f"/proc/{pid}/mounts"))

    def _status(self, pid):
        for line in read(f"/proc/{pid}/status").splitlines():
            key, _, value = line.partition(":")
            if VARYING.match(key):
                continue
            words = value.split()
            if PIDS.match(key):
                words = [self.names.who(words[0]), *map(inner, words[1:])]
            elif key in PENDING:
                words = [f"{int(words[0], 16) & ~GO_PREEMPTION:016x}"]
            yield f"{key}: {' '.join(words)}"

    def log(self, when, lines):
        """Adds the JSON records of runc's log, separately for each stage. The three stages write at the same
        time, so the order between them varies."""
        records = [json.loads(line) for line in lines if line.strip()]
        heads = [re.match(r"(nsexec(?:-[012])?)\[(\d+)\]: ?", record["msg"]) for record in records]
        for head in heads:
            if head and head[1] != "nsexec-2":
                # A record without a stage number comes from stage 0.
                self.names.pid(head[2], f"stage {head[1][-1] if head[1] != 'nsexec' else 0}")
        for record in records:
            found = re.search(r"forward stage-1 \((\d+)\) and stage-2 \((\d+)\)", record["msg"])
            if found:
                self.names.pid(found[2], "stage 2")
        parts = {}
        for record, head in zip(records, heads):
            who = head[1] if head else "go"
            text = record["msg"][head.end():] if head else record["msg"]
            # Go sends the offsets in the order of a map, which varies.
            text = re.sub(r"(?<=/timens_offsets to ')[^']*", lambda found: by_line(found[0]), text)
            # Stage 2 writes the pid that it has in its own namespace.
            number = f"[{inner(self.names.who(head[2]))}] " if head else ""
            parts.setdefault(who, []).append(f"{record['level']} {number}{text}")
        for who in sorted(parts):
            # Two Go programs and several goroutines write here, in any order.
            lines = parts[who]
            if who == "go":
                lines = sorted(line for line in lines if not GO_CHATTER.match(line))
            self.add(f"{when}: log of {who}", lines)


def seals(path):
    """The seals of a memfd (0xf: no change is possible)."""
    try:
        with open(path, "rb") as file:
            return f"seals {fcntl.fcntl(file, F_GET_SEALS):#x}"
    except OSError:
        return "no seals"


def waits_for_start(pid):
    """True if the init of a created container waits at the fifo for its start."""
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return False
    return any(read(f"/proc/{pid}/task/{task}/wchan") == "wait_for_partner" for task in tasks)


def descriptors(pid):
    """The number, target and flags of each descriptor; the flags show close-on-exec."""
    try:
        numbers = sorted(map(int, os.listdir(f"/proc/{pid}/fd")))
    except OSError as error:
        yield error.strerror
        return
    for number in numbers:
        flags = re.search(r"^flags:\s*(\d+)", read(f"/proc/{pid}/fdinfo/{number}"), re.MULTILINE)
        yield f"{number} {read_link(f'/proc/{pid}/fd/{number}')} {flags and flags[1]}"
