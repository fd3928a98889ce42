"""Plants the faults for tests/mutants/run, which documents the arguments, and prepares the copy of the tree."""

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import time
import tomllib
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "target/mutants"
TREE = OUT / "tree"
SEED = "20261128"
SOURCES, CAPI = "src/", "crates/nsexec-capi/"

# The arguments of `cargo test`, round by round. A fault that one round finds is not in the next. The first builds the
# package nsexec alone, in half the time. The others name the same packages, so cargo builds each of them once.
BOTH = ["-p", "nsexec", "-p", "nsexec-audit"]
LIBRARY = [
    ["-p", "nsexec", "--features", "legacy,serde", "--lib", "--test", "linux_sys", "--test", "command", "--test", "deviations"],
    [*BOTH, "--lib", "--test", "stages", "--test", "snapshots", "--test", "vectors"],
    [*BOTH, "--test", "sim", "--test", "parity", "--test", "launch", "--test", "audit_sim"],
]
ARCHIVE = [["-p", "nsexec", "--test", "capi"]]

# The limits of a build, and of a test program without a fault, in seconds.
BUILD = 600
PROGRAM = 240

# The last lines of a log that are printed if the tests fail without a fault. They name the test and its assertion.
LINES = 60


class Fault:
    """A mutant of cargo-mutants. Its key has no line numbers, so that it stays the same if other code is edited."""

    def __init__(self, mutant, number):
        self.name = mutant["name"]
        self.file, self.mutation = re.fullmatch(r"(\S+?):\d+:\d+: (.*)", self.name).groups()
        self.function = (mutant["function"] or {}).get("function_name", "")
        self.span, self.replacement = mutant["span"], mutant["replacement"]
        self.number = number

    def key(self):
        return (self.file, self.mutation, self.number)

    def rank(self, seed):
        return hashlib.sha256(f"{seed} {self.key()}".encode()).digest()

    def rounds(self):
        return ARCHIVE if self.file.startswith(CAPI) else LIBRARY

    def plant(self, text):
        """The text of the file with the fault."""
        lines = text.splitlines(keepends=True)
        begin, end = (sum(map(len, lines[: at["line"] - 1])) + at["column"] - 1 for at in (self.span["start"], self.span["end"]))
        return text[:begin] + self.replacement + text[end:]


def faults():
    """All faults. The number counts those of one file with the same text."""
    seen, found = Counter(), []
    for mutant in json.loads((OUT / "all.json").read_text()):
        text = re.sub(r":\d+:\d+:", ":", mutant["name"], count=1)
        seen[text] += 1
        found.append(Fault(mutant, seen[text]))
    lacking = [what for what in (SOURCES, CAPI) if not any(one.file.startswith(what) for one in found)]
    if lacking:
        sys.exit(f"FAILED: cargo-mutants finds no fault in {' and '.join(lacking)}: see .cargo/mutants.toml")
    return found


def listed(every):
    """The entries of survivors.toml by key. Each must name a fault that exists."""
    functions = {fault.key(): fault.function for fault in every}
    entries = {}
    for one in tomllib.loads((ROOT / "tests/mutants/survivors.toml").read_text()).get("survivor", []):
        key = (one["file"], one["mutation"], one.get("number", 1))
        if not one.get("reason"):
            sys.exit(f"FAILED: survivors.toml has an entry without a reason: {key}")
        if functions.get(key) != one["function"]:
            sys.exit(f"FAILED: survivors.toml has an entry whose fault does not exist: {key} in {one['function']}")
        entries[key] = one
    return entries


def cargo(words, log, seconds=None):
    """Whether cargo succeeds. Test programs have a limit of their own."""
    log.write(f"\n=== cargo {' '.join(words)}\n")
    log.flush()
    child = subprocess.Popen(["cargo", *words], cwd=TREE, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        return child.wait(seconds) == 0
    except subprocess.TimeoutExpired:
        child.terminate()
        child.wait()
        return False


def tested(rounds, path):
    """Builds and runs the suites: "unviable", "caught", "timeout" or "survived"."""
    with path.open("w") as log:
        for suites in rounds:
            if not cargo(["test", "-q", "--no-run", *suites], log, BUILD):
                return "unviable"
            if not cargo(["test", "-q", *suites], log):
                return "timeout" if re.search(r"exit status: (124|137)\b", path.read_text(errors="replace")) else "caught"
    return "survived"


def attempt(fault, path):
    """The outcome of the fault. The file is as before afterwards."""
    file = TREE / fault.file
    text = file.read_text()
    file.write_text(fault.plant(text))
    try:
        return tested(fault.rounds(), path)
    finally:
        file.write_text(text)


def chosen():
    """All faults, and those that the arguments name."""
    arguments = argparse.ArgumentParser(prog="tests/mutants/run")
    arguments.add_argument("--sample", type=int)
    arguments.add_argument("--seed", default=SEED)
    arguments.add_argument("--list", action="store_true")
    arguments.add_argument("--build", action="store_true")
    arguments.add_argument("words", nargs="*")
    given = arguments.parse_args()
    every = faults()
    named = [one for one in every if not given.words or any(word in one.name for word in given.words)]
    if given.list:
        print(*(one.name for one in named), f"{len(named)} faults", sep="\n")
        sys.exit()
    if given.build:
        with open(OUT / "build.log", "w") as log:
            sys.exit(0 if all(cargo(["test", "-q", "--no-run", *suites], log) for suites in LIBRARY) else f"FAILED: {log.name}")
    if given.sample is None and not given.words:
        arguments.error("give --sample N or a word")
    if not named:
        arguments.error(f"no fault has a name with {' or '.join(given.words)}")
    if given.sample is not None and given.sample < 1:
        arguments.error("--sample must be at least 1")
    if given.sample is not None:
        print(f"seed {given.seed}: {given.sample} of {len(named)} faults", flush=True)
        named = sorted(named, key=lambda one: one.rank(given.seed))[: given.sample]
    return every, named


def main():
    every, named = chosen()
    entries = listed(every)
    logs = OUT / "logs"
    logs.mkdir(exist_ok=True)
    for old in logs.glob("*.log"):
        old.unlink()
    limit, longest = os.environ.get("NSEXEC_MUTANT_SECONDS"), 60
    os.environ["NSEXEC_MUTANT_SECONDS"] = limit or str(PROGRAM)
    for name, rounds in (("library", LIBRARY), ("archive", ARCHIVE)):
        if any(one.rounds() is rounds for one in named):
            path = logs / f"{name}.log"
            start, outcome = time.monotonic(), tested(rounds, path)
            if outcome != "survived":
                print(*path.read_text(errors="replace").splitlines()[-LINES:], sep="\n")
                sys.exit(f"FAILED: the tests fail without a fault ({outcome}): {path}")
            longest = max(longest, round(time.monotonic() - start))
            print(f"without a fault: passed, {time.monotonic() - start:.0f} s", flush=True)
    # With a fault one program may take as long as all did, with their builds.
    os.environ["NSEXEC_MUTANT_SECONDS"] = limit or str(min(longest, PROGRAM))

    count, failed = Counter(), []
    for number, one in enumerate(named, 1):
        start = time.monotonic()
        outcome = attempt(one, logs / f"{number}.log")
        entry = entries.get(one.key())
        count[outcome] += 1
        if outcome == "survived" and entry:
            outcome, count["listed"] = f"survived, as listed: {entry['reason']}", count["listed"] + 1
        elif outcome == "survived":
            outcome = f"FAILED, no test finds it (function {one.function}, number {one.number})"
            failed.append(one)
        elif entry and outcome != "unviable":
            outcome = f"FAILED, {outcome}, but listed in survivors.toml"
            failed.append(one)
        print(f"{number}: {one.name}: {outcome}, {time.monotonic() - start:.0f} s", flush=True)

    for one in failed:
        print(f"FAILED: {one.name}")
    print(f"{len(named)} mutants: {count['caught']} caught, {count['survived']} survived ({count['listed']} listed), "
          f"{count['timeout']} timeouts, {count['unviable']} that do not compile")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
