"""The groups of rows. Each is a function that measures and returns lines.

The scenarios are those of docs/performance.md: a no namespace; b mnt, pid, uts and ipc; c also net; d all
eight, with one-line maps written by root and a time offset; e joins the seven namespaces of another process,
all but user.
"""

import json
import os
import subprocess
from contextlib import contextmanager

import measure
import packages
import samecode
import targets
from measure import candidate
from parent import FLAG, message
from programs import KINDS, ROOT, is_static
from report import Line

B = FLAG["mnt"] | FLAG["pid"] | FLAG["uts"] | FLAG["ipc"]
C = B | FLAG["net"]
D = sum(FLAG.values())
SEVEN = [kind for kind in sorted(FLAG) if kind != "user"]
CREATED = {"a": 0, "b": B, "c": C, "d": D}

# The prefix of the containers' names, and so of their cgroups.
CGROUPS = "nsexec-bench"

# The flags of unshare(1), which nsexec has too.
LONG = {"b": ["-m", "-p", "-u", "-i"], "c": ["-m", "-p", "-u", "-i", "-n"],
        "d": ["-m", "-p", "-u", "-i", "-n", "-C", "-T", "-r", "--boottime", "86400"]}


class Bench:
    """One run: its programs, its driver, and whether it is short."""

    def __init__(self, programs, rounds, short):
        self.programs, self.short = programs, short
        self.driver = measure.Driver(programs.driver, programs.folder, rounds)


@contextmanager
def held_process(programs):
    """A process in seven new namespaces; the context is its pid."""
    flags = sum(FLAG[kind] for kind in SEVEN)
    with subprocess.Popen([programs.floor, "hold", hex(flags)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        try:
            line = holder.stdout.readline()
            if not line:
                raise measure.Failed("floor hold: no process")
            yield int(line)
        finally:
            holder.stdin.close()


def compared(group, case, times, unit="µs"):
    """A line for nsexec and one for each peer. `times` begins with nsexec."""
    names = list(times)
    own = measure.median(times[names[0]])
    lines = [Line(group, case, names[0], times[names[0]], unit)]
    for name in names[1:]:
        ratio, target = own / measure.median(times[name]), targets.of_ratio(group, case, name)
        lines.append(Line(group, case, name, times[name], unit, ratio, target))
    return lines


# -- library, program ------------------------------------------------------------------------------------------


def library(bench):
    """One launch of the static command, from the start to its end. No candidate changes mount propagation."""
    programs, lines = bench.programs, []
    true = programs.true
    for case in "bcd":
        flags = CREATED[case]
        candidates = [
            candidate("serve", "nsexec", programs.library, "serve", case, true),
            candidate("serve", "floor", programs.floor, "serve", "clone", hex(flags), true),
        ]
        if unshare := programs.has("unshare"):
            words = [*LONG[case], "--propagation", "unchanged", "-f"]
            candidates.append(candidate("exec", "unshare(1)", unshare, *words, true))
        if crates := programs.has("crates"):
            for name, peer in (("crate unshare", "unshare"), ("nix::sched::clone", "nix"), ("hakoniwa", "hakoniwa")):
                candidates.append(candidate("serve", name, crates, "serve", peer, case, true))
        if bwrap := programs.has("bubblewrap"):
            candidates.append(candidate("exec", "bubblewrap", bwrap, *bubblewrap_flags(case), true))
        lines += compared("library", case, bench.driver.times(candidates))
    with held_process(programs) as pid:
        candidates = [
            candidate("serve", "nsexec", programs.library, "serve", "e", true, pid),
            candidate("serve", "floor", programs.floor, "serve", "join", pid, true),
        ]
        if nsenter := programs.has("nsenter"):
            candidates.append(candidate("exec", "nsenter(1)", nsenter, "-t", pid, "-a", true))
        lines += compared("library", "e", bench.driver.times(candidates))
    return lines


def bubblewrap_flags(case):
    """It always makes a root directory of its own: here the host's."""
    flags = ["--unshare-pid", "--unshare-uts", "--unshare-ipc"]
    flags += ["--unshare-net"] * (case in "cd")
    flags += ["--unshare-user", "--unshare-cgroup", "--uid", "0", "--gid", "0"] * (case == "d")
    return [*flags, "--bind", "/", "/"]


def program(bench):
    """The command line as `cargo install` builds it, with each program's own defaults."""
    return program_lines(bench, "program", bench.programs.nsexec)


def program_static(bench):
    """The same, built by crates/nsexec-cli/build-static. Not in a short run: its build takes minutes."""
    if bench.short:
        return []
    return program_lines(bench, "program, static", bench.programs.nsexec_static)


def program_lines(bench, group, nsexec):
    programs, lines = bench.programs, []
    true = programs.true
    unshare, nsenter = programs.has("unshare"), programs.has("nsenter")
    for case in "bcd":
        candidates = [candidate("exec", "nsexec", nsexec, "run", *LONG[case], "--", true)]
        if unshare:
            candidates.append(candidate("exec", "unshare(1)", unshare, *LONG[case], "-f", "--", true))
        lines += compared(group, case, bench.driver.times(candidates))
    with held_process(programs) as pid:
        for case, flags in (("e", ["-a"]), ("e without mnt", ["-u", "-i", "-n", "-p", "-C", "-T"])):
            candidates = [candidate("exec", "nsexec", nsexec, "enter", "-t", pid, *flags, "--", true)]
            if nsenter:
                candidates.append(candidate("exec", "nsenter(1)", nsenter, "-t", pid, *flags, "--", true))
            lines += compared(group, case, bench.driver.times(candidates))
    candidates = [candidate("exec", "nsexec", nsexec, "--version")]
    if unshare:
        candidates.append(candidate("exec", "unshare(1)", unshare, "--version"))
    return lines + compared(group, "--version", bench.driver.times(candidates))


# -- archive ---------------------------------------------------------------------------------------------------


def bootstrap_message(case, pid):
    if case == "e":
        return message(paths=",".join(f"{kind}:/proc/{pid}/ns/{kind}" for kind in SEVEN))
    if case == "d":
        return message(D, uidmap="0 0 1\n", gidmap="0 0 1\n", timens="boottime 86400 0\n")
    return message(CREATED[case])


def starters(bench, case, kind, pid=None):
    """The candidates of one kind of link, nsexec first."""
    file = bench.programs.folder / f"message-{case}"
    file.write_bytes(bootstrap_message(case, pid))
    names = ("nsexec", "runc's C", "floor")
    found = bench.programs.starters
    return [candidate("ready", name, file, found[name, kind]) for name in names if (name, kind) in found]


def archive(bench):
    """From the start of stage 0 to the first call of stage 2's main. The floor sends the same messages."""
    lines, faults = [], []
    with held_process(bench.programs) as pid:
        for kind in KINDS:
            for case in "abcde":
                found = bench.driver.samples(starters(bench, case, kind, pid))
                times = {name: [values[0] / 1000 for values in samples] for name, samples in found.items()}
                lines += compared(f"archive, {kind}", case, times)
                if case == "d":
                    counts = {name: [values[1] for values in samples] for name, samples in found.items()}
                    faults += compared("archive, page faults", kind, counts, unit="")
                    own = faults[-len(counts)]
                    own.target = targets.of_value(own.group, own.case)
    return lines + faults


def memory(bench):
    """The memory (Pss) of each of many processes that are held in stage 2."""
    lines = []
    for kind in KINDS:
        found = bench.driver.samples(starters(bench, "a", kind), held=50 if bench.short else 500)
        sizes = {name: [values[0] / 1024 for values in samples] for name, samples in found.items()}
        lines += compared("archive, memory", kind, sizes, unit="KiB")
    return lines


# -- growth ----------------------------------------------------------------------------------------------------

PARENTS = {
    "a small parent": [],
    "256 MiB": ["--memory", "256"],
    "256 threads": ["--threads", "256"],
    "10,000 descriptors": ["--descriptors", "10000"],
    "1,000 mounts": ["--mounts", "1000"],
}


# Scenario f: a program of an ordinary user, which creates a user namespace too. The floor has no such form.
ORDINARY = ["--user", "1000"]


def growth(bench):
    """Scenario b from larger parents, and scenario f, also by root, from one with much memory. The ratio is to the same program's
    launch from a small parent."""
    programs, candidates = bench.programs, []
    unshare = programs.has("unshare")
    for parent, words in PARENTS.items():
        server = ["serve", *words]
        candidates.append(candidate("serve", f"nsexec/{parent}", programs.library, *server, "b", programs.true))
        for name in ("clone", "vfork"):
            how = [name, hex(B), programs.true]
            candidates.append(candidate("serve", f"floor with {name}/{parent}", programs.floor, *server, *how))
        if unshare:
            how = ["spawn", unshare, *LONG["b"], "--propagation", "unchanged", "-f", programs.true]
            candidates.append(candidate("serve", f"unshare(1)/{parent}", programs.floor, *server, *how))
    for parent in ("a small parent", "256 MiB"):
        for user, name in ((ORDINARY, "nsexec, f"), ([], "nsexec, f by root")):
            words = ["serve", *PARENTS[parent], *user, "f", programs.true]
            candidates.append(candidate("serve", f"{name}/{parent}", programs.library, *words))
    times = bench.driver.times(candidates, max(10, bench.driver.rounds // 2))
    grown = {name: measure.median(values) / measure.median(times[f"{name.split('/')[0]}/a small parent"])
             for name, values in times.items()}
    lines = []
    for parent in PARENTS:
        for name in [name for name in times if name.endswith(f"/{parent}")]:
            own, ratio = name.startswith("nsexec"), None if parent == "a small parent" else grown[name]
            target = targets.GROWTH.get(parent) if own else None
            if own and parent == "1,000 mounts" and unshare:
                target = round(grown[f"unshare(1)/{parent}"], 2)
            lines.append(Line("growth", parent, name.split("/")[0], times[name], "µs", ratio, target))
    return lines


def rate(bench, threads, launches):
    """Returns the launches in a second, and how many failed."""
    words = [bench.programs.library, "rate", threads, launches, "b", bench.programs.true]
    done = subprocess.run(list(map(str, words)), env={}, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=measure.LIMIT)
    if done.returncode != 0:
        raise measure.Failed(done.stderr)
    seconds, failed = done.stdout.split()
    return launches / float(seconds), int(failed)


def threads(bench):
    """Launches of scenario b in a second."""
    group, launches, times = "threads", *((300, 3) if bench.short else (2000, 7))
    found = {1: [], 4: []}
    failed = 0
    for _ in range(times):
        for count, rates in found.items():
            launched, failures = rate(bench, count, launches)
            rates.append(launched)
            failed += failures
    ratio = measure.median(found[4]) / measure.median(found[1])
    against = "4 threads, against 1"
    lines = [
        Line(group, "1 thread", "nsexec", found[1], "/s"),
        Line(group, "4 threads", "nsexec", found[4], "/s"),
        Line(group, against, "nsexec", [ratio], "", None, targets.of_value(group, against)),
        Line(group, f"failures in {2 * launches * times:,}", "nsexec", [failed], "", None, 0),
    ]
    if not bench.short:
        many = "failures in 100,000"
        lines.append(Line(group, many, "nsexec", [rate(bench, 4, 100_000)[1]], "", None, targets.of_value(group, many)))
    return lines


# -- parser, recorder, plan, sweep, size ------------------------------------------------------------------------


def message_of(size):
    """A valid message of `size` bytes, a multiple of 4, with one-line maps. The last of its paths has the length
    that is missing; above 64 KiB, the most that one attribute holds, the paths of the mapping tools are long
    too."""
    paths = ",".join(f"{kind}:/proc/4711/ns/{kind}" for kind in ("cgroup", "ipc", "net", "pid")) + ",uts:/"
    tools = [b"/", b"/"]

    def encoded():
        return message(FLAG["user"], paths=paths, uidmap="0 100000 65536\n", gidmap="0 100000 65536\n",
                       uidtool=tools[0], gidtool=tools[1])

    most = 65_528
    missing = size - len(encoded())
    added = min(missing, most - len(paths))
    paths += "x" * added
    for at in range(2):
        missing = size - len(encoded())
        tools[at] += b"x" * min(max(0, missing), most - 1)
    return encoded()


def decoded(bench, size):
    """Returns the length of the message, the microseconds of one decoding, and the allocations."""
    file = bench.programs.folder / "message"
    file.write_bytes(message_of(size))
    count = max(1, 2_000_000 // size) * (1 if bench.short else 10)
    length, *samples, allocated = packages.output(bench.programs.library, "decode", file, str(count)).split()
    return int(length), [float(sample) / 1000 for sample in samples], int(allocated)


def parser(bench):
    """One decoding of a message with all validation. The long messages have long paths. No valid message has 1
    MiB: that line continues the one through 16 KiB and 64 KiB."""
    group, lines, medians, allocations = "parser", [], {}, 0
    for size in (308, 4096, 16_384, 65_536, 196_608):
        length, values, allocated = decoded(bench, size)
        case = f"{length:,} bytes"
        lines.append(Line(group, case, "nsexec", values, "µs", None, targets.of_value(group, case)))
        medians[size] = measure.median(values)
        allocations += allocated
    slope = (medians[65_536] - medians[16_384]) / (65_536 - 16_384)
    whole = medians[65_536] + slope * ((1 << 20) - 65_536)
    return lines + [
        Line(group, "1 MiB, extrapolated", "nsexec", [whole], "µs"),
        Line(group, "allocations", "nsexec", [allocations], "", None, targets.of_value(group, "allocations")),
    ]


def recorder(bench):
    """A recorded launch of scenario b. The ratios are to the same launch without the recorder: as `spawn` does it,
    and with a copy of the memory, which a recorded launch needs. `trace` also plans and compares. The last line
    counts the functions of an unrecorded launch whose machine code a recorder in the program changes; a short run
    leaves it out, with the build of two more programs."""
    programs = bench.programs
    server = ["serve", "b", programs.true]
    words = [*LONG["b"], "--", programs.true]
    recorded = bench.driver.times([
        candidate("serve", "recorded", programs.recorded, *server),
        candidate("serve", "without", programs.library, *server),
        candidate("serve", "without, memory copied", programs.library, "serve-copy", "b", programs.true),
    ])
    traced = bench.driver.times([
        candidate("exec", "nsexec trace", programs.nsexec, "trace", *words),
        candidate("exec", "nsexec run", programs.nsexec, "run", *words),
    ])
    lines = compared("recorder", "library, b", recorded) + compared("recorder", "program, b", traced)
    if bench.short:
        return lines
    count, different = samecode.compared(*programs.whole_functions)
    for name in different:
        print(f"other machine code beside a recorder: {name}")
    case = f"changed, of {count} functions"
    code = Line("recorder", case, "nsexec", [len(different)], "", None, targets.of_value("recorder", "changed"))
    return [*lines, code]


def plan(bench):
    """`nsexec plan` with every kind of namespace and every option, as a whole process."""
    words = ["--all", "-r", "--boottime", "86400", "--monotonic", "86400", "--oom-score-adj", "500", "--mount-proc"]
    command = candidate("exec", "nsexec", bench.programs.nsexec, "plan", *words, "--", bench.programs.true)
    values = [value / 1000 for value in bench.driver.times([command])["nsexec"]]
    return [Line("plan", "the largest", "nsexec", values, "ms", None, targets.of_value("plan", "the largest"))]


def size(bench):
    """The files of the program, stripped."""
    lines = []
    programs = [bench.programs.nsexec, *([] if bench.short else [bench.programs.nsexec_static])]
    for program in programs:
        kind = "static" if is_static(program) else "dynamic"
        value, target = program.stat().st_size / 1e6, targets.of_value("size", f"stripped, {kind}")
        lines.append(Line("size", f"stripped, {kind}", "nsexec", [value], "MB", None, target))
    return lines


def containers(bench):
    """Whole containers with the namespaces of scenario c, for scale: a bootstrap is a small part of them."""
    programs = bench.programs
    bundle = programs.folder / "bundle"
    for folder in ("dev", "proc"):
        (bundle / "rootfs" / folder).mkdir(parents=True, exist_ok=True)
    (bundle / "rootfs/true").write_bytes(programs.true.read_bytes())
    (bundle / "rootfs/true").chmod(0o755)
    kinds = {"mnt": "mount", "pid": "pid", "uts": "uts", "ipc": "ipc", "net": "network"}
    (bundle / "config.json").write_text(json.dumps({
        "ociVersion": "1.0.0",
        "process": {"user": {"uid": 0, "gid": 0}, "args": ["/true"], "cwd": "/"},
        "root": {"path": "rootfs"},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "linux": {"namespaces": [{"type": kind} for kind in kinds.values()]},
    }))
    crun_state, runc_state = programs.folder / "crun", programs.folder / "runc"
    name = f"{CGROUPS}-{os.getpid()}"
    candidates = [candidate("exec", "nsexec", programs.nsexec, "run", *LONG["c"], "--", programs.true)]
    if crun := programs.has("crun"):
        words = ["--root", crun_state, "--cgroup-manager=disabled", "run", "--bundle", bundle, name]
        candidates.append(candidate("serve", "crun run", programs.floor, "serve", "--cgroup2", "1", "spawn", crun, *words))
    if runc := programs.has("runc"):
        candidates.append(candidate("exec", "runc run", runc, "--root", runc_state, "run", "--bundle", bundle, name))
    rounds = max(5, bench.driver.rounds // 5)
    # Cgroups of version 1 refuse a process with SCHED_FIFO.
    return compared("containers", "c", bench.driver.times(candidates, rounds, priority=0))


def sweep(bench):
    """Seconds of CPU of the whole fault sweep, as cargo test builds it."""
    if bench.short:
        return []
    process = subprocess.Popen([bench.programs.sweep, "-q"], cwd=ROOT / "crates/nsexec-audit", stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise measure.Failed(f"the sweep failed: status {process.returncode}")
    seconds = used.ru_utime + used.ru_stime
    return [Line("sweep", "CPU", "nsexec", [seconds], "s", None, targets.of_value("sweep", "CPU"))]


GROUPS = {
    "library": library,
    "program": program,
    "program, static": program_static,
    "archive": archive,
    "memory": memory,
    "growth": growth,
    "threads": threads,
    "parser": parser,
    "recorder": recorder,
    "plan": plan,
    "size": size,
    "containers": containers,
    "sweep": sweep,
}
