"""Counts the results of the jobs, and compares the failures and skips with expected.toml.

An entry of expected.toml names kernels, a suite, tests, and the reason. A failure or a skip that no entry names
fails the lab, and so does an entry whose tests all passed on a kernel that it names.
"""

import fnmatch
import json
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import run as runner
from packages import say

EXPECTED = Path(__file__).with_name("expected.toml")


@dataclass
class Entry:
    """An expected difference: `result` is failed or skipped."""

    kernels: list
    suite: str
    tests: list
    result: str
    reason: str
    # The kernels on which a test had this result.
    used: set = field(default_factory=set)

    def matches(self, kernel, suite, test, result):
        return (
            kernel in self.kernels
            and suite == self.suite
            and result == self.result
            and any(fnmatch.fnmatchcase(test, pattern) for pattern in self.tests)
        )


def entries(kernels):
    """Reads expected.toml. `kernels`: the known names."""
    found = [Entry(**entry) for entry in tomllib.loads(EXPECTED.read_text()).get("difference", [])]
    for entry in found:
        if entry.result not in ("failed", "skipped") or set(entry.kernels) - set(kernels) or not entry.reason:
            raise ValueError(f"{EXPECTED.name}: {entry}")
    return found


@dataclass
class Cell:
    """The results of one suite on one kernel."""

    passed: int = 0
    failed: list = field(default_factory=list)
    skipped: list = field(default_factory=list)
    # Failures that expected.toml names.
    differs: list = field(default_factory=list)
    problems: list = field(default_factory=list)
    seconds: int = 0

    def text(self):
        words = [f"{self.passed} passed"]
        for name, list_ in (("failed", self.failed), ("differ", self.differs), ("skipped", self.skipped)):
            if list_:
                words.append(f"{len(list_)} {name}")
        if self.problems:
            words.append("not complete")
        return ", ".join(words)


def results(job, done):
    """Yields the results of a job: name, result (passed, failed, skipped), text; and its problems as a list."""
    if done is None:
        return [], ["it did not start"]
    if any(line.startswith('{ "type"') or line.startswith('{"type"') for line in done.lines):
        return of_a_test_program(job, done)
    return of_lines(done)


def failures(lines):
    """Yields the name and the output of each failed test of a test program."""
    for line in lines:
        if '"event": "failed"' in line and '"type": "test"' in line:
            event = json.loads(line[line.index("{"):])
            yield event["name"], " | ".join(event.get("stdout", "").replace("\\n", "\n").split("\n"))


def of_a_test_program(job, done):
    one = runner.Runner(job)
    for line in done.lines:
        one.read(line + "\n")
    one.close(done.status if done.status is not None else -1)
    texts = dict(failures(done.lines))
    found = [(name, "failed", texts.get(name, "")) for name in one.failed]
    reasons = {}
    for line in one.output:
        if line.startswith("skipped: "):
            name, _, reason = line.removeprefix("skipped: ").strip().partition(": ")
            reasons[name.removeprefix(f"{job}::")] = reason
    found += [(name.removeprefix(f"{job}::"), "skipped", reasons.get(name.removeprefix(f"{job}::"), "")) for name in one.skips]
    found += [("", "passed", "")] * one.passed
    return found, one.problems


def of_lines(done):
    """The lines of a script of tests/lab/guest."""
    found = []
    for line in done.lines:
        kind, _, rest = line.partition(" ")
        name, _, text = rest.partition(": ")
        kind = {"ok": "passed", "FAILED": "failed", "skipped:": "skipped"}.get(kind)
        if kind is not None:
            found.append((name, kind, text))
    failed = any(kind == "failed" for _, kind, _ in found)
    problems = []
    if not found:
        problems.append("no result")
    if done.status is None:
        problems.append("it did not end")
    elif (done.status != 0) != failed:
        problems.append(f"exit status {done.status}")
    return found, problems


class Judge:
    """The table of all boots."""

    def __init__(self, kernels):
        self.entries = entries(kernels)
        # By kernel, then by suite.
        self.table = {}
        self.unavailable = {}

    def add(self, kernel, suite, done):
        cell = self.table.setdefault(kernel, {}).setdefault(suite, Cell())
        found, problems = results(suite, done)
        cell.problems += problems
        cell.seconds = done.seconds if done else 0
        for name, result, text in found:
            if result == "passed":
                cell.passed += 1
                continue
            entry = next((entry for entry in self.entries if entry.matches(kernel, suite, name, result)), None)
            if entry is not None:
                entry.used.add(kernel)
            if result == "skipped":
                cell.skipped.append(name)
                say(f"skipped: lab::{kernel}::{suite}::{name}: {text or 'no reason'}")
                if entry is None:
                    cell.failed.append(name)
                    say(f"FAILED  {kernel} {suite} {name}: expected.toml does not name this skip")
            elif entry is not None:
                cell.differs.append(name)
                say(f"differs {kernel} {suite} {name}: {entry.reason}")
            else:
                cell.failed.append(name)
                say(f"FAILED  {kernel} {suite} {name}: {text}")
        for problem in cell.problems:
            say(f"FAILED  {kernel} {suite}: {problem}")

    def stale(self, complete):
        """Returns the entries which no test confirms. `complete`: kernel and suite pairs that ran in whole."""
        found = []
        for entry in self.entries:
            for kernel in entry.kernels:
                if (kernel, entry.suite) in complete and kernel not in entry.used:
                    found.append(f"{kernel} {entry.suite} {' '.join(entry.tests)}: passes now: {entry.reason}")
        return found

    def lines(self):
        """The table, as Markdown."""
        suites = list(dict.fromkeys(suite for row in self.table.values() for suite in row))
        yield "| kernel | " + " | ".join(suites) + " |"
        yield "|---" * (len(suites) + 1) + "|"
        for kernel, row in self.table.items():
            yield f"| {kernel} | " + " | ".join(row[suite].text() if suite in row else "" for suite in suites) + " |"

    def totals(self):
        cells = [cell for row in self.table.values() for cell in row.values()]
        passed = sum(cell.passed + len(cell.differs) for cell in cells)
        failed = sum(len(cell.failed) + len(cell.problems) for cell in cells)
        return passed, failed, sum(len(cell.skipped) for cell in cells)
