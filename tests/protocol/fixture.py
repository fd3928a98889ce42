"""What the tests need: the binary, a directory, an ordinary user, a clean process table.

Runs as root, in the caller's namespaces. It makes the user `nsexec-test` and its subordinate ids if they are
missing, and the last suite that uses them removes them. Every process with the fixture holds a shared lock on
LOCK until it ends; making and removing needs the exclusive lock. A file next to the lock lists what was made,
so that the next suite removes what a killed suite left.
"""

import atexit
import fcntl
import os
import pwd
import shutil
import subprocess
import tempfile
import unittest

import parent

LOCK = "/run/nsexec-test.lock"
MADE = "/run/nsexec-test.made"
NAME = "nsexec-test"
# Five digits, so that 340 single ids fit into one write of a map (3,970 bytes).
FIRST, COUNT = 30000, 20000

BINARY = os.environ.get("NSEXEC", "")
VECTORS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "vectors")
PYTHON = "/usr/bin/python3"


def _run(*command):
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=parent.LIMIT)


class _User:
    """The ordinary user, made on first use, once for the process."""

    def __init__(self):
        self.lock = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        try:
            self._make()
        finally:
            fcntl.flock(self.lock, fcntl.LOCK_SH)
        atexit.register(self._leave, os.getpid())

    def _note(self, what):
        with open(MADE, "a") as file:
            file.write(what + "\n")

    def _make(self):
        try:
            pwd.getpwnam(NAME)
        except KeyError:
            self._note("user")
            _run("useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", "--user-group", NAME)
        entry = f"{NAME}:{FIRST}:{COUNT}"
        for path in ("/etc/subuid", "/etc/subgid"):
            with open(path, "a+") as file:
                file.seek(0)
                if entry not in file.read().split():
                    self._note(path)
                    file.write(entry + "\n")
        found = pwd.getpwnam(NAME)
        self.uid, self.gid = found.pw_uid, found.pw_gid

    def _leave(self, owner):
        if os.getpid() != owner:
            return  # a forked child of the tests
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return  # another suite still uses it, and will clean up
        try:
            made = open(MADE).read().split()
        except FileNotFoundError:
            return
        entry = f"{NAME}:{FIRST}:{COUNT}"
        for path in ("/etc/subuid", "/etc/subgid"):
            if path in made:
                lines = open(path).read().splitlines()
                with open(path, "w") as file:
                    file.write("".join(line + "\n" for line in lines if line != entry))
        if "user" in made:
            subprocess.run(["userdel", NAME], check=False, stdin=subprocess.DEVNULL,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=parent.LIMIT)
        os.unlink(MADE)


_user = None


def ordinary_user(groups=()):
    global _user
    if _user is None:
        _user = _User()
    return parent.User(_user.uid, _user.gid, groups)


_folder = None


def folder():
    """A directory that every user may enter, with a copy of the binary that every user may run."""
    global _folder
    if _folder is None:
        _folder = tempfile.mkdtemp(prefix="nsexec-protocol-")
        os.chmod(_folder, 0o755)
        shutil.copy(BINARY, os.path.join(_folder, "nsexec"))
        os.chmod(os.path.join(_folder, "nsexec"), 0o755)
        owner = os.getpid()
        atexit.register(lambda: os.getpid() == owner and shutil.rmtree(_folder, ignore_errors=True))
    return _folder


def binary():
    return os.path.join(folder(), "nsexec")


class ProtocolTest(unittest.TestCase):
    """A test that fails if it leaves a process or a descriptor behind."""

    maxDiff = None

    @classmethod
    def setUpClass(cls):
        if os.geteuid() != 0:
            raise unittest.SkipTest("needs root")
        if not BINARY:
            raise RuntimeError("NSEXEC must name the binary under test")
        parent.become_subreaper()

    def _callTestMethod(self, method):
        self.content = False
        super()._callTestMethod(method)
        self.content = True

    def setUp(self):
        self.content = False
        self.runs = []
        folder()
        ordinary_user()
        self.descriptors = set(os.listdir("/proc/self/fd"))
        self.scratch = tempfile.mkdtemp(prefix="t-", dir=folder())
        os.chmod(self.scratch, 0o777)

    def tearDown(self):
        left = [(pid, parent.status_of(pid)["Name"]) for pid in parent.own_children() if parent.is_alive(pid)]
        for run in self.runs:
            run.abandon()
        shutil.rmtree(self.scratch, ignore_errors=True)
        open_now = set(os.listdir("/proc/self/fd"))
        # Report leftovers only if the test itself passed: otherwise they are a consequence of its failure.
        if not self.content:
            return
        self.assertEqual(left, [], "processes are left after the test")
        self.assertEqual(open_now - self.descriptors, set(), "descriptors are left after the test")

    def start(self, *command, argv=None, **how):
        """Start `nsexec init`, or `nsexec init -- COMMAND`."""
        if argv is None:
            argv = [binary(), "init"] + (["--", *command] if command else [])
        run = parent.Bootstrap(argv, **how)
        self.runs.append(run)
        return run

    def hold(self, *, manner="init", data=None, **how):
        """A stage 2 that was handed over and runs /bin/cat, until `release`."""
        reader, self.gate = os.pipe()
        run = self.start("/bin/cat", stdin=reader, **how)
        os.close(reader)
        getattr(run, f"like_{manner}")(data)
        os.write(self.gate, b"here\n")
        run.until(lambda: run.out == b"here\n", "the command answers")
        return run

    def release(self, run):
        os.close(self.gate)
        self.assertEqual(run.wait(run.stage2), 0, run.describe())
        return run.finish()

    def assertHandedOver(self, run, out=b""):
        """A run without a fault that ends by itself."""
        run.finish()
        self.assertEqual(run.statuses[run.pid], 0, run.describe())
        self.assertEqual(run.statuses[run.stage1], 0, run.describe())
        self.assertEqual(run.statuses[run.stage2], 0, run.describe())
        self.assertEqual(run.out, out)
        self.assertEqual(run.err, b"")
        self.assertEqual([record for record in run.records if record.level in ("fatal", "error")], [])
        return run

    def assertRefused(self, run, *words, records=(1,), seconds=parent.LIMIT):
        """Exit status 1, no pid line, nothing on stdout or stderr, and the cause in the first fatal record.
        `records`: the allowed numbers of fatal records; if stage 1 fails, stage 0 may add the consequence."""
        self.assertEqual(run.wait_stage0(seconds), 1, run.describe())
        run.finish()
        self.assertEqual(run.init_bytes, b"", run.describe())
        self.assertEqual(run.out, b"")
        self.assertEqual(run.err, b"")
        fatal = run.fatal()
        self.assertIn(len(fatal), records, run.describe())
        for word in words:
            self.assertRegex(fatal[0].text, word, run.describe())
        return fatal[0].text

    def assertStageFailed(self, run, *words, seconds=parent.LIMIT):
        return self.assertRefused(run, *words, records=(1, 2), seconds=seconds)
