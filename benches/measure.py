"""Samples: the driver in C, and statistics.

A candidate is one line of the driver's plan; driver.c documents the kinds.
"""

import math
import random
import statistics
import subprocess
from pathlib import Path

# The limit of one run of the driver, in seconds.
LIMIT = 1200

# The priority under SCHED_FIFO.
PRIORITY = 50


class Failed(Exception):
    """A candidate did not run. The text has the driver's line."""


def candidate(kind, name, *argv):
    return [kind, name, *map(str, argv)]


class Driver:
    """Runs candidates in random order. `rounds` is the number of samples of each candidate."""

    def __init__(self, program, folder, rounds):
        self.program, self.folder, self.rounds = program, Path(folder), rounds
        self.fifo = None

    def samples(self, candidates, rounds=None, held=0, priority=PRIORITY):
        """Returns the samples by name: lists of numbers, in the order of driver.c. `priority` is that of
        SCHED_FIFO, or 0."""
        plan, output = self.folder / "plan", self.folder / "samples"
        plan.write_text("".join("\t".join(fields) + "\n" for fields in candidates))
        rounds = rounds or self.rounds
        numbers = [rounds, max(3, rounds // 20), held, random.getrandbits(63), priority]
        done = subprocess.run([self.program, *map(str, numbers), plan, output], env={}, stdin=subprocess.DEVNULL,
                              stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=LIMIT)
        if done.returncode != 0:
            raise Failed(done.stderr.strip() or f"driver: status {done.returncode}")
        first, *lines = output.read_text().splitlines()
        if priority:
            self.fifo = first == "fifo 1"
        found = {fields[1]: [] for fields in candidates}
        for line in lines:
            name, *values = line.split("\t")
            found[name].append([int(value) for value in values])
        return found

    def times(self, candidates, rounds=None, priority=PRIORITY):
        """Returns the microseconds of each candidate."""
        found = self.samples(candidates, rounds, priority=priority)
        return {name: [values[0] / 1000 for values in samples] for name, samples in found.items()}


median = statistics.median


def p95(values):
    """The smallest sample that is at least as large as 95 % of all."""
    return sorted(values)[math.ceil(0.95 * len(values)) - 1]
