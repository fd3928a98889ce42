"""Measures nsexec beside its peers, for benches/run, which documents the arguments.

groups.py has the rows, programs.py the programs, and driver.c measures. A group that fails does not stop the
others. The exit status is 0 unless a group failed; no time is asserted. The result is in target/bench:
result.json, chart.svg and tables.md.

All descendants are this process's: it reaps and kills them, and removes its directory, also after a failure.
"""

import argparse
import fcntl
import os
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "tests/clients"), str(HERE.parent / "tests/protocol")]

import chart
import programs as builds
import report
import undo
from groups import CGROUPS, GROUPS, Bench
from measure import Failed
from packages import say
from programs import BUILT, ROOT, Programs, facts

ROUNDS, SHORT = 200, 25
DOCS = ROOT / "docs/performance.md"
BEGIN, END = "<!-- tables: benches/run --docs -->\n", "<!-- end of the tables -->\n"


def arguments():
    parser = argparse.ArgumentParser(prog="benches/run", description="Measures nsexec beside its peers.")
    parser.add_argument("pattern", nargs="?", default="", help="only the groups with this text in their name")
    parser.add_argument("--rounds", type=int, metavar="N", help="samples of each candidate")
    parser.add_argument("--short", action="store_true", help="few rounds, and without what takes minutes")
    parser.add_argument("--build", action="store_true", help="build the programs of Rust, and measure nothing")
    parser.add_argument("--docs", action="store_true", help="write the tables and the chart into docs/")
    options = parser.parse_args()
    options.groups = {name: group for name, group in GROUPS.items() if options.pattern in name}
    if not options.groups:
        parser.exit(1, f'no group has "{options.pattern}" in its name. There are: {", ".join(GROUPS)}\n')
    options.rounds = options.rounds or (SHORT if options.short else ROUNDS)
    if options.docs and (options.pattern or options.short):
        parser.exit(1, "--docs needs the figures of all groups, and not of a short run\n")
    return options


def measured(bench, groups):
    """Runs the groups, and prints each table when it is complete. Returns the lines by the name in the table,
    and the names of the groups that failed."""
    found, failed = {}, []
    for name, group in groups.items():
        began = time.monotonic()
        say(f"== {name}: {' '.join(group.__doc__.split())}")
        try:
            lines = group(bench)
        except Failed as error:
            lines = []
            failed.append(name)
            say(f"   {error}")
        except (OSError, RuntimeError, subprocess.SubprocessError):
            lines = []
            failed.append(name)
            say(traceback.format_exc())
        # A driver that failed leaves the processes of its last launch.
        left = undo.end_children()
        if left and name not in failed:
            failed.append(name)
        for process in left:
            say(f"   left, and killed: {process}")
        for line in lines:
            found.setdefault(line.group, []).append(line)
        for title in dict.fromkeys(line.group for line in lines):
            say(f"-- {title}\n{report.table(found[title])}")
        say(f"   {time.monotonic() - began:.0f} s")
    return found, failed


def write_docs(tables, picture):
    before, rest = DOCS.read_text().split(BEGIN)
    DOCS.write_text(before + BEGIN + "\n" + tables + "\n" + END + rest.split(END)[1])
    (ROOT / "docs/performance.svg").write_text(picture)


def run(options, stack):
    began = time.monotonic()
    programs = Programs(stack.folder())
    if options.build:
        programs.build_all(options.short)
        say(f"{builds.spent:.0f} s")
        return 0
    machine = facts()
    for name, value in machine.items():
        say(f"{name}: {value}")
    bench = Bench(programs, options.rounds, options.short)
    found, failed = measured(bench, options.groups)
    machine["rounds"] = f"{options.rounds}, {'SCHED_FIFO' if bench.driver.fifo else 'without SCHED_FIFO'}"
    machine |= dict(sorted(programs.versions.items()))
    for name, value in programs.versions.items():
        say(f"{name}: {value}")
    if programs.missing:
        machine["not installed"] = ", ".join(programs.missing)
    for name, reason in programs.missing.items():
        say(f"not installed: {name}: {reason}")
    tables = report.markdown(found, machine)
    picture = chart.svg(found, f"nsexec: {machine['machine']}, {machine['kernel']}")
    report.save(BUILT / "result.json", found, machine, programs.missing, failed)
    (BUILT / "chart.svg").write_text(picture)
    (BUILT / "tables.md").write_text(tables)
    say(f"{time.monotonic() - began:.0f} s, of which {builds.spent:.0f} s built programs")
    say(f"written: {BUILT.relative_to(ROOT)}/result.json, chart.svg, tables.md")
    if failed:
        say(f"FAILED: {', '.join(failed)}")
    elif options.docs:
        write_docs(tables, picture)
    return 1 if failed else 0


def main():
    options = arguments()
    if os.geteuid() != 0:
        say("benches/run: joins and maps by root take root")
        return 1
    # SIGTERM acts like SIGINT: the cleanup of the stack runs.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    undo.become_subreaper()
    BUILT.mkdir(parents=True, exist_ok=True)
    with undo.Undo() as stack, open(BUILT / "lock", "w") as lock:
        # Two runs would measure each other, and build the same files.
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("benches/run: another run is in progress")
            return 1
        stack.callback(undo.remove_cgroups, CGROUPS)
        stack.callback(undo.end_children)
        return run(options, stack)


if __name__ == "__main__":
    sys.exit(main())
