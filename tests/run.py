"""Runs every test of nsexec, for tests/run, which documents the arguments.

All output is in target/tests-run.log. The terminal shows a line for each finished runner (a test program of
cargo), and every skip. The last line is "N passed, N failed, N skipped".

The counts come from the JSON events of the runners: those of libtest, and of libtest-mimic in the suites with
a main function of their own. A skip is a line "skipped: NAME: REASON"; the name has no blank.
tests/allowed-skips lists the skips that are not a failure, and the users for whom. A line that begins with
"skipped: " and has another form fails the runner.
"""

import contextlib
import fnmatch
import json
import os
import re
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOG = ROOT / "target/tests-run.log"

# Heading, and the arguments of `cargo test`.
SUITES = {
    "the program, the libraries, the house": ["--workspace"],
    "the core alone, without std": ["-p", "nsexec", "--lib", "--no-default-features"],
    "the core with serde": ["-p", "nsexec", "--lib", "--no-default-features", "--features", "serde"],
    "today's line alone, with std": ["-p", "nsexec", "--lib"],
    "the launcher with tokio": ["-p", "nsexec", "--features", "tokio", "--test", "tokio"],
    "the core with the older dialects, without std":
        ["-p", "nsexec", "--lib", "--no-default-features", "--features", "legacy"],
}

# Command, Debian package, purpose.
NEEDS = [
    ("cc", "gcc", "linking"),
    ("g++", "g++", "the header in C++"),
    ("musl-gcc", "musl-tools", "linking with another libc"),
    ("pkg-config", "pkg-config", "how the archive is found"),
    ("newuidmap", "uidmap", "maps of an ordinary user"),
    ("strace", "strace", "an independent witness"),
    ("runc", "runc", "a judge of the parent in Python"),
]

# The events of libtest are stable only on nightly. This variable makes the stable libtest accept the flag. It
# is set for the runners and for rustdoc, never for the compiler.
UNSTABLE = {"RUSTC_BOOTSTRAP": "1"}
EVENTS = ["--format", "json", "-Z", "unstable-options", "--show-output"]

# rustdoc runs the tests of the documentation itself.
RUSTDOC = '#!/bin/sh\nRUSTC_BOOTSTRAP=1 exec rustdoc "$@"\n'

# The time limit of a test program in seconds. A program that reaches it is killed and reported.
LIMIT = 900

EVENT = re.compile(r'\{ ?"type": ?"')
SKIP = re.compile(r"^skipped: (\S+): .")


class Runner:
    """The output and the results of one test program."""

    def __init__(self, name):
        self.name, self.start = name, time.monotonic()
        self.output, self.problems = [], []
        self.failed, self.skips, self.ignored, self.begun = [], [], [], []
        self.passed = 0
        self.open, self.closings, self.counted = 0, 0, 0

    def read(self, line):
        """Reads one line of output. An event may stand after a partial line of a test."""
        found = EVENT.search(line)
        try:
            event = json.loads(line[found.start():]) if found else None
        except ValueError:
            event = None
        if event is None:
            self.output.append(line)
            self.read_text(line)
            return
        if found.start() > 0:
            self.read(line[: found.start()] + "\n")
        self.read_event(event)

    def read_text(self, line):
        if not line.startswith("skipped: "):
            return
        match = SKIP.match(line)
        if match is None:
            self.problems.append(f"a skip without a name or a reason: {line.rstrip()}")
            return
        self.skips.append(match.group(1))
        say(f"   {line.rstrip()}")

    def read_event(self, event):
        kind, what = event.get("type"), event.get("event")
        if kind == "suite" and what == "started":
            self.open += 1
        elif kind == "suite":
            self.closings += 1
            self.counted += event["passed"] + event["failed"] + event["ignored"]
        elif kind == "test" and what == "started":
            self.begun.append(event["name"])
        elif kind == "test" and what in ("ok", "failed", "ignored", "timeout"):
            if what != "timeout" and event["name"] in self.begun:
                self.begun.remove(event["name"])
            text = event.get("stdout", "")
            if what == "failed":
                self.failed.append(event["name"])
                self.output.append(f"FAILED: {event['name']}\n")
            for line in text.splitlines(keepends=True):
                self.output.append(line)
                self.read_text(line)
            if what == "ok":
                self.passed += 1
            elif what == "ignored":
                self.ignored.append(event["name"])

    def close(self, status):
        """Compares what was counted with the totals of the runner, which must have reached its end."""
        events = self.passed + len(self.failed) + len(self.ignored)
        if self.open == 0 or self.open != self.closings:
            self.problems.append(f"{self.open} suites began, and {self.closings} ended")
        elif events != self.counted:
            self.problems.append(f"{events} results, but the runner counted {self.counted}")
        if status != 0 and not self.failed:
            self.problems.append(f"exit status {status} without a failed test")
        # A test that libtest-mimic reports as ignored has printed its line, with the suite before its name.
        printed = list(self.skips)
        for name in self.ignored:
            line = next((skip for skip in printed if skip == name or skip.endswith(f"::{name}")), None)
            if line is None:
                self.skips.append(name)
            else:
                printed.remove(line)
        # libtest counts a test that has skipped itself as passed.
        self.passed -= len(printed)

    def report(self):
        seconds = time.monotonic() - self.start
        say(f"   {self.name}: {self.passed} passed, {len(self.failed)} failed, {len(self.skips)} skipped ({seconds:.0f} s)")
        if self.failed or self.problems:
            show("".join(f"    {line.rstrip()}\n" for line in self.output))
        for problem in self.problems:
            say(f"   {self.name}: {problem}")


log = None


def say(text):
    """To the terminal and to the log."""
    print(text, flush=True)
    log.write(text + "\n")
    log.flush()


def show(text):
    """To the terminal; the log has it already."""
    print(text, end="", flush=True)


# -- the machine --------------------------------------------------------------------------------------------


def install_what_is_missing(skips):
    missing = [need for need in NEEDS if shutil.which(need[0]) is None]
    for command, package, purpose in missing:
        say(f"missing: {command} (package {package}), for {purpose}")
    if not missing:
        return
    packages = [package for _, package, _ in missing]
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        say(f"skipped: packages: not root, so not installed: {' '.join(packages)}")
        skips.append("packages")
        return
    say(f"installing: {' '.join(packages)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for words in (["update", "-q"], ["install", "-qy", "--no-install-recommends", *packages]):
        done = subprocess.run(["apt-get", *words], env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        if done.returncode != 0:
            say(f"apt-get failed; see {LOG.relative_to(ROOT)}")
            sys.exit(1)


def is_allowed(name):
    """A line of tests/allowed-skips is WHO NAME REASON. WHO is root, user or any; NAME can end in *."""
    user = "root" if os.geteuid() == 0 else "user"
    for line in (ROOT / "tests/allowed-skips").read_text().splitlines():
        words = line.split()
        if words and not line.startswith("#") and words[0] in ("any", user) and fnmatch.fnmatchcase(name, words[1]):
            return True
    return False


# -- the runners --------------------------------------------------------------------------------------------


def programs(arguments):
    """Builds the test programs. Returns a name and the path of each, with the folder of its package; None if
    they cannot be built."""
    start = time.monotonic()
    build = ["cargo", "test", "--locked", "--no-run", "--message-format", "json-render-diagnostics", *arguments]
    done = subprocess.run(build, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    log.write(done.stderr)
    if done.returncode != 0:
        show(done.stderr)
        return None
    say(f"   built ({time.monotonic() - start:.0f} s)")
    found = []
    for message in map(json.loads, done.stdout.splitlines()):
        if message["reason"] != "compiler-artifact" or not message["executable"] or not message["profile"]["test"]:
            continue
        target, folder = message["target"], Path(message["manifest_path"]).parent
        kind = target["kind"][0]
        name = target["name"] if kind == "test" else f"{kind} {target['name']}, unit tests"
        found.append((folder, kind != "test", name, Path(message["executable"])))
    found.sort(key=lambda one: (one[0], not one[1], one[2]))
    return [(name, path, folder) for folder, _, name, path in found]


def lines(process, runner):
    """Yields the lines of a test program's output. At the time limit it kills the program's process group: the
    program still runs, or a process that a test left has the output open."""
    rest, complete = b"", False
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while (left := runner.start + LIMIT - time.monotonic()) > 0:
                if not selector.select(left):
                    continue
                data = os.read(process.stdout.fileno(), 1 << 16)
                if not data:
                    complete = True
                    break
                *whole, rest = (rest + data).split(b"\n")
                yield from (line.decode(errors="replace") + "\n" for line in whole)
        if rest:
            yield rest.decode(errors="replace")
        if not complete:
            what = "it has not ended" if process.poll() is None else "a process that it left has its output open"
            runner.problems.append(f"killed after {LIMIT} s: {what}")
            runner.problems.extend(f"begun, but not ended: {name}" for name in runner.begun)
    finally:
        if not complete:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def run(name, words, folder, environment):
    """Runs one test program, or the tests of the documentation of one package."""
    runner = Runner(name)
    log.write(f"== {' '.join(map(str, words))}\n")
    with tempfile.TemporaryFile("w+", errors="replace") as complaints:
        # In a background job without job control SIGINT and SIGQUIT are ignored.
        process = subprocess.Popen(
            ["env", "--default-signal", *words],
            cwd=folder,
            env={**os.environ, "CARGO_TERM_COLOR": "never", **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=complaints,
            process_group=0,
        )
        for line in lines(process, runner):
            log.write(line)
            runner.read(line)
        status = process.wait()
        process.stdout.close()
        complaints.seek(0)
        for line in complaints:
            log.write(line)
            runner.output.append(line)
            runner.read_text(line)
    runner.close(status)
    runner.report()
    return runner


def documentation(folder):
    """Runs the tests of the documentation of every library."""
    rustdoc = Path(folder) / "rustdoc"
    rustdoc.write_text(RUSTDOC)
    rustdoc.chmod(0o755)
    words = ["cargo", "test", "-q", "--locked", "--no-fail-fast", "--workspace", "--doc", "--", *EVENTS]
    return run("documentation", words, ROOT, {"RUSTDOC": str(rustdoc)})


def suite(heading, arguments):
    """Returns the runners of a suite, or None if it cannot be built."""
    start = time.monotonic()
    say(f"== {heading}")
    found = programs(arguments)
    if found is None:
        say("   cannot be built")
        return None
    runners = []
    for name, path, folder in found:
        environment = {"CARGO_MANIFEST_DIR": str(folder), **UNSTABLE}
        runners.append(run(name, [path, *EVENTS], folder, environment))
    if "--workspace" in arguments:
        with tempfile.TemporaryDirectory() as folder:
            runners.append(documentation(folder))
    say(f"   {time.monotonic() - start:.0f} s")
    return runners


def main():
    global log
    pattern = "".join(sys.argv[1:2])
    wanted = {heading: arguments for heading, arguments in SUITES.items() if pattern in heading}
    # Checked before the log of the last run is overwritten.
    if not wanted:
        print(f'no suite has "{pattern}" in its heading. There are:', *SUITES, sep="\n    ", file=sys.stderr)
        return 1
    LOG.parent.mkdir(exist_ok=True)
    log = open(LOG, "w")
    skips, runners, broken = [], [], []
    install_what_is_missing(skips)
    for heading, arguments in wanted.items():
        results = suite(heading, arguments)
        if results is None:
            broken.append(heading)
        runners.extend(results or [])
    skips.extend(name for runner in runners for name in runner.skips)
    unexpected = [name for name in skips if not is_allowed(name)]
    failed = [f"{runner.name}: {name}" for runner in runners for name in runner.failed]
    broken.extend(runner.name for runner in runners if runner.problems)
    passed = sum(runner.passed for runner in runners)
    say("")
    for name in failed:
        say(f"failed: {name}")
    for name in unexpected:
        say(f"unexpected skip: {name}")
    if broken:
        say(f"not complete: {', '.join(broken)}; all output is in {LOG.relative_to(ROOT)}")
    say(f"{passed} passed, {len(failed) + len(unexpected)} failed, {len(skips)} skipped")
    return 0 if passed and not failed and not unexpected and not broken else 1


if __name__ == "__main__":
    sys.exit(main())
