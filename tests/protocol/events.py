"""Lists and runs the tests of this folder for tests/protocol.rs, with results as lines of JSON on standard output.

    events.py list                 the name of every test, one a line
    events.py run < NAMES          runs these tests in this order

A result is an object with `name`, `outcome` (passed, failed or skipped) and `text`: the failures, or the
reason of the skip. What the tests print goes to standard error. The exit status is 1 if something failed that
belongs to no test.
"""

import json
import os
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))


def tests_in(suite):
    for item in suite:
        if isinstance(item, unittest.TestSuite):
            yield from tests_in(item)
        else:
            yield item


class Events(unittest.TestResult):
    """Writes one object for each test as soon as it has ended."""

    def __init__(self, wanted, out):
        super().__init__()
        self.wanted, self.out = wanted, out
        self.texts, self.reasons = {}, {}
        self.written = set()
        self.strays = []

    def write(self, name, outcome, text=""):
        self.written.add(name)
        print(json.dumps({"name": name, "outcome": outcome, "text": text}), file=self.out, flush=True)

    def of_a_class(self, test, outcome, text):
        """A result of setUpClass is the result of all tests of the class."""
        # unittest describes it as "setUpClass (MODULE.CLASS)".
        words = test.id().rstrip(")").split(" (")
        names = [name for name in self.wanted if words[0] == "setUpClass" and name.rpartition(".")[0] == words[-1]]
        if not names:
            self.strays.append(f"{test.id()}: {text}")
        for name in names:
            self.write(name, outcome, text)

    def is_test(self, test):
        return test.id() in self.wanted

    def addError(self, test, err):
        super().addError(test, err)
        self.add_problem(test, self.errors[-1][1])

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.add_problem(test, self.failures[-1][1])

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err is not None:
            self.add_problem(test, f"{subtest.id()}: {self._exc_info_to_string(err, test)}")

    def addUnexpectedSuccess(self, test):
        super().addUnexpectedSuccess(test)
        self.add_problem(test, "an unexpected success")

    def add_problem(self, test, text):
        if self.is_test(test):
            self.texts.setdefault(test.id(), []).append(text)
        else:
            self.of_a_class(test, "failed", text)

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        if self.is_test(test):
            self.reasons[test.id()] = reason
        else:
            self.of_a_class(test, "skipped", reason)

    def stopTest(self, test):
        super().stopTest(test)
        name = test.id()
        if name in self.texts:
            self.write(name, "failed", "\n".join(self.texts[name]))
        elif name in self.reasons:
            self.write(name, "skipped", self.reasons[name])
        else:
            self.write(name, "passed")


def main():
    # Results have a descriptor of their own: a test that prints does not disturb them.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    found = {test.id(): test for test in tests_in(unittest.defaultTestLoader.discover(HERE))}
    if sys.argv[1:] == ["list"]:
        print(*found, sep="\n", file=out, flush=True)
        return 0
    wanted = sys.stdin.read().split("\n")
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    events = Events(set(wanted), out)
    unittest.TestSuite(found[name] for name in wanted).run(events)
    for stray in events.strays:
        print(stray, file=sys.stderr)
    return 1 if events.strays or events.written != set(wanted) else 0


if __name__ == "__main__":
    sys.exit(main())
