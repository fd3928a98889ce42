"""Drives C programs that link libnsexec.a with the independent parent of tests/protocol.

Runs as root, as the parent of each program. The variable NSEXEC_PROGRAMS is a JSON list with one object for
each program: its `name` and `path`, the `number` that its main prints, the function `start` that it calls, and
the flags `panic` (it panics) and `threads` (it starts a thread first). load_tests makes the tests of each
program, without those that the optional list `left_out` names.
"""

import json
import os
import re
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
        """Checks that main ran exactly once, in stage 2."""
        self.assertHandedOver(run, f"pid {pid} uid {uid} gid {gid}: {program['number']}\nover\n".encode())

    def runs_main_without_variables(self, program):
        """Without the variables of the protocol, main runs in the same process."""
        run = self.launch(program, init_fd=None, log_fd=None, log_level=None)
        self.assertEqual(run.wait_stage0(), 0, run.describe())
        run.finish()
        self.assertEqual((run.out, run.err),
                         (f"pid {run.pid} uid 0 gid 0: {program['number']}\nover\n".encode(), b""))

    def init(self, program):
        """Starts a container's init, with an id map."""
        run = self.launch(program)
        run.like_init(message(SIX, uidmap="0 0 1\n", gidmap="0 0 1\n"))
        self.assertMain(run, program, 1)
        self.assertEqual(run.texts("0")[-1], "<~ nsexec stage-0")
        self.assertEqual(run.texts("2")[-1], "booting up go runtime ...")

    def exec(self, program):
        """Joins the namespaces of a process. The parent waits for stage 0 first."""
        run = self.launch(program)
        run.like_exec(message(paths=",".join(f"{kind}:/proc/{os.getpid()}/ns/{kind}" for kind in ("ipc", "net"))))
        self.assertMain(run, program, run.stage2)

    def rootless(self, program):
        """Starts as an ordinary user, with one mapped id."""
        user = fixture.ordinary_user()
        run = self.launch(program, user=user)
        run.like_init(message(SIX, uidmap=f"0 {user.uid} 1\n", gidmap=f"0 {user.gid} 1\n", rootless=True))
        self.assertMain(run, program, 1)

    def refusal(self, program):
        """A failed bootstrap writes one fatal record, and main does not run."""
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


def without_proc():
    """Unmounts /proc in a mount namespace of this process. Passed as `prepare`."""
    parent.unshare(FLAG["mnt"])
    parent.mount(None, "/", flags=parent.MS_REC | parent.MS_PRIVATE)
    while parent.libc.umount2(b"/proc", 2) == 0:  # MNT_DETACH
        pass
    if os.path.exists("/proc/self"):
        raise OSError("there is a /proc left")


class Threaded(Linked):
    """Another library's constructor has started a thread. runc's C hangs in setresuid(2): glibc waits for
    threads that the fork did not copy."""

    def process_with_two_threads_is_refused(self, program):
        run = self.launch(program)
        run.try_send(message(SIX, uidmap="0 0 1\n", gidmap="0 0 1\n"))
        self.assertEqual(self.assertRefused(run, "2 threads"),
                         "the process has 2 threads: call the bootstrap before any is started")

    def two_threads_are_refused_without_proc(self, program):
        """Without /proc the number of threads is unknown."""
        run = self.launch(program, prepare=without_proc)
        run.try_send(message(SIX, uidmap="0 0 1\n", gidmap="0 0 1\n"))
        self.assertEqual(self.assertRefused(run, "several threads"),
                         "the process has several threads: call the bootstrap before any is started")


LOG = "_LIBCONTAINER_LOGPIPE"


class Older(Linked):
    """The bootstraps of runc's older releases, each driven as its parent does (docs/protocol.md#dialects).

    tests/protocol tests the details. These tests show that each symbol runs its own dialect."""

    SEALED = ("nsexec_v1_0", "nsexec_v1_1")
    ALL = SIX | FLAG["cgroup"]

    def launch(self, program, **how):
        start = program["start"]
        if start == "nsexec_seed":
            how = {"log_fd": None, "log_level": None, **how}
        if start == "nsexec_v1_0":
            how = {"log_level": "debug", **how}
        return super().launch(program, **how)

    def ready(self, run, program):
        """Waits for the ready byte, which a sealed copy of the program sends. Not all dialects have both."""
        if program["start"] not in self.SEALED:
            return b""
        run.until(lambda: run.init_bytes or run.init_eof, "the ready byte")
        self.assertEqual(run.init_bytes, b"\0", run.describe())
        self.assertIn("memfd:", os.readlink(f"/proc/{run.pid}/exe"))
        return b"\0"

    def learn_pids(self, run, before, line):
        run.until(lambda: b"\n" in run.init_bytes or run.init_eof, "the pid line or EOF")
        match = re.fullmatch(re.escape(before) + line, run.init_bytes)
        self.assertIsNotNone(match, run.describe())
        run.stage1, run.stage2 = int(match["stage1"]), int(match["stage2"])
        run.watch_process(run.stage1)
        run.watch_process(run.stage2)

    def init(self, program):
        run = self.launch(program)
        before = self.ready(run, program)
        run.send(message(self.ALL, uidmap="0 0 1\n", gidmap="0 0 1\n"))
        if program["start"] == "nsexec_seed":
            # Stage 0 does this last, after stage 2 is ready.
            self.learn_pids(run, before, rb'\{"pid": (?P<stage2>\d+), "pid_first": (?P<stage1>\d+)\}\n')
        else:
            self.learn_pids(run, before, rb'\{"stage1_pid":(?P<stage1>\d+),"stage2_pid":(?P<stage2>\d+)\}\n')
        if program["start"] == "nsexec_v1_0":
            # Stage 2 waits until the launcher has moved it into its cgroup.
            run.wait(run.stage1)
            self.assertTrue(parent.is_alive(run.stage2))
            self.assertEqual(run.out, b"")
            run.send(b"\x80")
        for pid in (run.stage1, run.stage2, run.pid):
            run.wait(pid)
        self.assertMain(run, program, 1)

    def refusal(self, program):
        run = self.launch(program)
        before = self.ready(run, program)
        run.send(message(paths="net:/nonexistent"))
        self.assertEqual(run.wait_stage0(), 1, run.describe())
        run.finish()
        self.assertEqual((run.out, run.init_bytes), (b"", before))
        if program["start"] == "nsexec_seed":
            self.assertRegex(run.err, rb"\Ansenter: [^\n]*/nonexistent")
        else:
            self.assertEqual(run.err, b"")
            self.assertIn("/nonexistent", run.fatal()[0].text)

    def environment(self, program):
        """Without an init pipe and with a malformed log pipe, each dialect prints its own error."""
        said = {
            "nsexec_seed": None,  # has no log pipe
            "nsexec_v1_0": f"unable to parse {LOG}, value: 4x\n",
            "nsexec_v1_1": f"FATAL: unable to parse {LOG}=4x\n",
        }[program["start"]]
        run = self.launch(program, init_fd=None, log_fd=None, log_level=None, environment={LOG: "4x"})
        self.assertEqual(run.wait_stage0(), 0 if said is None else 1, run.describe())
        run.finish()
        self.assertEqual(run.err.decode(), said or "")
        self.assertEqual(run.out != b"", said is None)

    def time_namespace(self, program):
        """Older dialects have no time namespaces."""
        run = self.launch(program)
        before = self.ready(run, program)
        run.send(message(paths="time:/proc/self/ns/time"))
        self.assertEqual(run.wait_stage0(), 1, run.describe())
        run.finish()
        self.assertEqual((run.out, run.init_bytes), (b"", before))


PANIC = r'bug in nsexec, at crates/nsexec-capi/src/lib\.rs:[0-9]+:[0-9]+: on "purpose"\nin two lines'


class Panicking(Linked):
    """The archive that panics where the other archives return."""

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

    def a_panic_reports_to_a_log_pipe_of_any_number(self, program):
        for number in (1, 2):
            run = self.launch(program, init_fd=None, log_fd=number)
            self.assertEqual(run.wait_stage0(), 1, run.describe())
            run.finish()
            self.assertEqual((run.out, run.err), (b"", b""))
            self.assertEqual([bool(re.fullmatch(PANIC, record.text)) for record in run.fatal()], [True], run.describe())

    def a_panic_exits_if_the_log_pipe_is_full_or_closed(self, program):
        run = self.launch(program, init_fd=None, log_size=4096, log_filled=True, log_reader=False)
        self.assertEqual(run.wait_stage0(), 1, run.describe())
        run.finish_without_log()
        self.assertEqual((run.out, run.err), (b"", b""))
        run = self.launch(program, init_fd=None, log_reader=None)
        self.assertEqual(run.wait_stage0(), 1, run.describe())
        run.finish()
        self.assertEqual((run.out, run.err), (b"", b""))


class PanickingStage(Linked):
    """A stage panics while the other stages wait for it."""

    def a_panic_ends_all_stages(self, program):
        stage = int(program["name"][-1])
        run = self.launch(program)
        run.send(message(SIX, uidmap="0 0 1\n", gidmap="0 0 1\n"))
        self.assertEqual(run.wait_stage0(), 1, run.describe())
        if stage == 2:
            run.read_pids()
            self.assertEqual(run.wait(run.stage2), 1)
        run.finish()
        self.assertEqual((run.out, run.err), (b"", b""))
        fatal = run.fatal()
        self.assertEqual([bool(re.fullmatch(PANIC, record.text)) for record in fatal],
                         [True] + [False] * (len(fatal) - 1), "one panic, which is the cause, before what came of it")
        # The panic was in the expected stage, after the stage had begun.
        begun = {0: "-> stage-1 synchronisation loop", 1: "~> nsexec stage-1", 2: "~> nsexec stage-2"}[stage]
        pids = [record.pid for record in run.records if (record.stage, record.text) == (str(stage), begun)]
        self.assertEqual(pids, [fatal[0].pid], run.describe())
        self.assertEqual(run.init_bytes != b"", stage == 2, run.describe())


def tests_of(program):
    """Returns the test class and the names of its methods for this program."""
    if "stage_" in program["name"]:
        return PanickingStage, ["a_panic_ends_all_stages"]
    if program["panic"]:
        return Panicking, [name for name in vars(Panicking) if name.startswith("a_")]
    if program["threads"]:
        return Threaded, ["runs_main_without_variables", "process_with_two_threads_is_refused",
                          "two_threads_are_refused_without_proc"]
    if program["start"] != "nsexec":
        return Older, ["runs_main_without_variables", "init", "refusal", "environment", "time_namespace"]
    return Linked, ["runs_main_without_variables", "init", "exec", "rootless", "refusal", "refusal_without_log"]


def load_tests(loader, _tests, _pattern):
    suite = unittest.TestSuite()
    for program in PROGRAMS:
        kind, names = tests_of(program)
        left_out = program.get("left_out", [])
        unknown = set(left_out) - set(names)
        if unknown:
            raise ValueError(f"{program['name']} has no test {sorted(unknown)}")
        names = [name for name in names if name not in left_out]
        members = {f"test_{name}": lambda self, name=name, program=program: getattr(self, name)(program)
                   for name in names}
        suite.addTests(loader.loadTestsFromTestCase(type(program["name"], (kind,), members)))
    return suite


if __name__ == "__main__":
    unittest.main(verbosity=2)
