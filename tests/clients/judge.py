"""Compares two observations of the same run, one with runc's own C and one with ours.

Who this is: part of `run`; it reads docs/deviations.md, the list of deviations and the list of skips, and prints.
"""

import difflib
import fnmatch
import os
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

from packages import ROOT, Unavailable, say

LIST = Path(__file__).with_name("deviations.toml")


@dataclass
class Deviation:
    """One entry of deviations.toml: what is looked at, what is done to it before the comparison, and the row of
    docs/deviations.md that describes the difference."""

    row: str
    clients: str
    cases: str
    field: str
    match: re.Pattern
    # drop: matching lines. replace: the match, by `into`. set: matching lines, sorted and without duplicates.
    kind: str
    side: str
    into: str
    used: bool = False

    def applies_to(self, client, case, field):
        wanted = ((client, self.clients), (case, self.cases), (field, self.field))
        return all(fnmatch.fnmatch(text, pattern) for text, pattern in wanted)

    def edit(self, lines):
        if self.kind == "drop":
            kept = [line for line in lines if not self.match.search(line)]
        elif self.kind == "replace":
            kept = [self.match.sub(self.into, line) for line in lines]
        else:
            matching = sorted({line for line in lines if self.match.search(line)})
            # They replace the first one.
            first = next((at for at, line in enumerate(lines) if self.match.search(line)), len(lines))
            others = [line for line in lines[first:] if not self.match.search(line)]
            kept = [*lines[:first], *matching, *others]
        return kept


def deviations():
    table = tomllib.loads(LIST.read_text())
    found = []
    for entry in table.get("deviation", []):
        found.append(
            Deviation(
                row=entry["row"],
                clients=entry["clients"],
                cases=entry.get("cases", "*"),
                field=entry["field"],
                match=re.compile(entry["match"]),
                kind=entry["kind"],
                side=entry.get("side", "both"),
                into=entry.get("into", ""),
            )
        )
        if found[-1].kind not in ("drop", "replace", "set") or found[-1].side not in ("both", "c", "ours"):
            raise ValueError(f"{LIST.name}: {entry}")
    return found


def rows():
    """The first cells of the tables in docs/deviations.md."""
    lines = (ROOT / "docs/deviations.md").read_text().splitlines()
    return {line.split("|")[1].strip() for line in lines if line.startswith("|")} - {"subject", "---"}


class Judge:
    """Counts the results, and prints the last line."""

    def __init__(self, show=False):
        self.show = show
        self.passed = self.failed = self.skipped = 0
        self.deviations = deviations()
        # Clients whose cases were all compared: only for these is an unused entry stale.
        self.compared = set()
        known = rows()
        for deviation in self.deviations:
            if deviation.row not in known:
                self.fail("deviations", f"docs/deviations.md has no row {deviation.row!r}")

    def succeed(self, name):
        self.passed += 1
        say(f"ok      {name}")

    def fail(self, name, text):
        self.failed += 1
        say(f"FAILED  {name}")
        for line in str(text).splitlines():
            say(f"        {line}")

    def skip(self, name, reason):
        """Counts a skip. One that is not in tests/allowed-skips is a failure."""
        say(f"skipped: clients::{name}: {reason}")
        if allowed(f"clients::{name}"):
            self.skipped += 1
        else:
            self.fail(name, "this skip is not in tests/allowed-skips")

    def check(self, name, problem):
        """Counts a success if `problem` is empty, and a failure otherwise."""
        self.fail(name, problem) if problem else self.succeed(name)

    def compare(self, client, case, c, ours):
        """Compares `c` and `ours`, the Observations of one case."""
        problems = ["nothing was seen"] if not c.fields else []
        if self.show:
            for field, lines in c.fields.items():
                say(f"  {field}", *(f"\n      {line}" for line in lines), sep="")
        for field in list(dict.fromkeys([*c.fields, *ours.fields])):
            # A stage that never existed has no log; it counts as empty.
            both = [side.fields.get(field, []) for side in (c, ours)]
            if both[0] != both[1]:
                both = self._with_deviations(client, case, field, both)
            if both[0] != both[1]:
                problems += [f"{field}:", *list(difflib.unified_diff(*both, "runc's C", "ours", lineterm="", n=1))]
        self.check(f"{client} {case}: {len(c.fields)} fields", "\n".join(problems))

    def mended(self, client, case, row, c, ours):
        """`c` and `ours` are the failures of one case. With runc's C there must be one, or the row of
        docs/deviations.md is no longer true. With ours there must be none."""
        problems = [f"ours: {line}" for line in ours]
        say(f"        runc's C: {'; '.join(c)}")
        if not c:
            problems.append("runc's C can do it: so there is no deviation")
        if row not in rows():
            problems.append(f"docs/deviations.md has no row {row!r}")
        self.check(f"{client} {case}: only with ours", "\n".join(problems))

    def _with_deviations(self, client, case, field, both):
        for deviation in self.deviations:
            if not deviation.applies_to(client, case, field):
                continue
            before = list(both)
            both = [
                deviation.edit(lines) if deviation.side in ("both", side) else lines
                for side, lines in zip(("c", "ours"), both)
            ]
            deviation.used = deviation.used or both != before
        return both

    def close(self, complete):
        """Prints the last line; true if nothing failed. `complete`: every client ran all of its cases."""
        for deviation in self.deviations if complete else ():
            if not deviation.used and any(fnmatch.fnmatch(client, deviation.clients) for client in self.compared):
                self.fail("deviations", f"an unused entry: {deviation.row}: {deviation.match.pattern}")
        say(f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped")
        return self.failed == 0 and self.passed > 0


def allowed(name):
    who = "root" if os.geteuid() == 0 else "user"
    for line in (ROOT / "tests/allowed-skips").read_text().splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] in ("any", who) and fnmatch.fnmatch(name, words[1]):
            return True
    return False


__all__ = ["Judge", "Unavailable"]
