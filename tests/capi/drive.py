"""Programs in C that link libnsexec.a, each driven by the independent parent of tests/protocol.

Who this is: root, parent of each program, as runc is of itself. NSEXEC_PROGRAMS is JSON: a list of objects with the
program's `name`, its `path`, what its main prints as `number`, and whether it is to `panic` or to be `refused` for its
threads. The tests of a program are made at the end of this file.
"""

import json
import os
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "protocol"))

import fixture  # noqa: E402
import parent  # noqa: E402
from parent import FLAG, message  # noqa: E402

PROGRAMS = json.loads(os.environ["NSEXEC_PROGRAMS"])
SIX = sum(FLAG[kind] for kind in ("user", "pid", "mnt", "net", "ipc", "uts"))


class Linked(fixture.ProtocolTest):
    def launch(self, program, **how):
        return self.start(argv=[program["path"]], **how)

    def assertMain(self, run, program, pid, uid=0, gid=0):
        """The caller's main ran once: in no other stage."""
        self.assertHandedOver(run, f"pid {pid} uid {uid} gid {gid}: {program['number']}\nover\n".encode())

    def untouched(self, program):
        """Without variables: main, in the same process."""
        run = self.launch(program, init_fd=None, log_fd=None, log_level=None)
        self.assertEqual(run.wait_stage0(), 0, run.describe())
        run.finish()
        self.assertEqual((run.out, run.err),
                         (f"pid {run.pid} uid 0 gid 0: {program['number']}\nover\n".encode(), b""))

    def init(self, program):
        """A container's init, with ids of its own."""
        run = self.launch(program)
        run.like_init(message(SIX, uidmap="0 0 1\n", gidmap="0 0 1\n"))
        self.assertMain(run, program, 1)
        self.assertEqual(run.texts("0")[-1], "<~ nsexec stage-0")
        self.assertEqual(run.texts("2")[-1], "booting up go runtime ...")

    def exec(self, program):
        """Into the namespaces of a process, for a parent that waits for stage 0 first."""
        run = self.launch(program)
        run.like_exec(message(paths=",".join(f"{kind}:/proc/{os.getpid()}/ns/{kind}" for kind in ("ipc", "net"))))
        self.assertMain(run, program, run.stage2)

    def rootless(self, program):
        """An ordinary user, with one id."""
        user = fixture.ordinary_user()
        run = self.launch(program, user=user)
        run.like_init(message(SIX, uidmap=f"0 {user.uid} 1\n", gidmap=f"0 {user.gid} 1\n", rootless=True))
        self.assertMain(run, program, 1)

    def refusal(self, program):
        """An error is one record, and no main."""
        run = self.launch(program)
        run.send(message(paths="net:/nonexistent"))
        self.assertStageFailed(run, "/nonexistent")

    def refusal_without_log(self, program):
        run = self.launch(program, log_fd=None, log_level=None)
        run.send(message(paths="net:/nonexistent"))
        self.assertEqual(run.wait_stage0(), 1, run.describe())
        run.finish()
        self.assertEqual(run.out, b"")
        self.assertRegex(run.err, rb"\AFATAL: [^\n]*/nonexistent")


class Threaded(Linked):
    """Another library's constructor has started a thread. runc's C hangs in setresuid, whose glibc waits for threads
    that the fork did not copy."""

    def a_process_with_two_threads_is_refused(self, program):
        run = self.launch(program)
        run.try_send(message(SIX, uidmap="0 0 1\n", gidmap="0 0 1\n"))
        self.assertEqual(self.assertRefused(run, "2 threads"),
                         "the process has 2 threads: call the bootstrap before any is started")


PANIC = r'bug in nsexec, at src/capi\.rs:[0-9]+:[0-9]+: on "purpose"\nin two lines'


class Panicking(Linked):
    """The archive that panics where the others return."""

    def a_panic_is_one_fatal_record(self, program):
        run = self.launch(program)
        run.send(message(FLAG["pid"]))
        run.read_pids()
        self.assertEqual(run.wait(run.stage2), 1, run.describe())
        run.finish()
        self.assertEqual((run.out, run.err), (b"", b""))
        fatal = run.fatal()
        self.assertEqual(len(fatal), 1, run.describe())
        self.assertRegex(fatal[0].text, rf"\A{PANIC}\Z")
        self.assertEqual((fatal[0].stage, fatal[0].pid), ("setup", 1))

    def a_panic_is_one_line_on_stderr_without_a_log_pipe(self, program):
        run = self.launch(program, init_fd=None, log_fd=None, log_level=None)
        self.assertEqual(run.wait_stage0(), 1, run.describe())
        run.finish()
        self.assertEqual(run.out, b"")
        self.assertRegex(run.err.decode(), rf"\AFATAL: {PANIC}\n\Z")

    def a_panic_ends_also_where_nobody_reads_the_log(self, program):
        run = self.launch(program, init_fd=None, log_size=4096, log_filled=True, log_reader=False)
        self.assertEqual(run.wait_stage0(), 1, run.describe())
        run.finish_without_log()
        self.assertEqual((run.out, run.err), (b"", b""))
        run = self.launch(program, init_fd=None, log_reader=None)
        self.assertEqual(run.wait_stage0(), 1, run.describe())
        run.finish()
        self.assertEqual((run.out, run.err), (b"", b""))


def tests_of(program):
    """The methods for this kind of program, by name."""
    if program["panic"]:
        return Panicking, [name for name in vars(Panicking) if name.startswith("a_")]
    if program["threads"]:
        return Threaded, ["untouched", "a_process_with_two_threads_is_refused"]
    return Linked, ["untouched", "init", "exec", "rootless", "refusal", "refusal_without_log"]


def load_tests(loader, _tests, _pattern):
    suite = unittest.TestSuite()
    for program in PROGRAMS:
        kind, names = tests_of(program)
        members = {f"test_{name}": lambda self, name=name, program=program: getattr(self, name)(program)
                   for name in names}
        suite.addTests(loader.loadTestsFromTestCase(type(program["name"], (kind,), members)))
    return suite


if __name__ == "__main__":
    unittest.main(verbosity=2)
