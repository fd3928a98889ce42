"""Checks that our parent acts like runc's: it drives the real runc of this machine.

Runs as root, in the caller's namespaces, as the parent of the real `/usr/sbin/runc init`. That is runc 1.1
with the dialect v1_1: it executes a sealed copy of itself, sends one ready byte, and then reads. After the
hand-over its Go code gets no configuration and ends; this is not tested here.
"""

import os
import subprocess
import unittest

import fixture
import parent

RUNC = "/usr/sbin/runc"


def runc_version():
    if not os.path.exists(RUNC):
        return None
    text = subprocess.run([RUNC, "--version"], capture_output=True, text=True, timeout=parent.LIMIT).stdout
    return text.split()[2] if text.startswith("runc version") else None


class ParentMatchesRunc(fixture.ProtocolTest):
    def setUp(self):
        version = runc_version()
        if version is None or not version.startswith("1.1."):
            self.skipTest("no runc 1.1 on this machine")
        super().setUp()

    def start_runc(self):
        run = self.start(argv=[RUNC, "init"], environment={"_LIBCONTAINER_STATEDIR": self.scratch,
                                                           "_LIBCONTAINER_INITTYPE": "standard"})
        run.more_may_follow = True
        return run

    def drive(self, manner, data):
        run = self.start_runc()
        run.until(lambda: run.init_bytes == b"\0", "the ready byte")
        getattr(run, f"like_{manner}")(data, before=b"\0")
        run.close_init()
        run.wait(run.stage2)  # Go's half reads EOF instead of a configuration
        run.finish()
        return run

    def test_real_runc_minimal_message(self):
        for manner in ("init", "exec"):
            with self.subTest(manner=manner):
                run = self.drive(manner, parent.message())
                self.assertEqual(run.statuses[run.pid], 0)
                self.assertEqual(run.statuses[run.stage1], 0)
                ours = [line for line in run.log_bytes.split(b"\n") if b"nsexec" in line]
                records = [parent.Record(line) for line in ours]
                self.assertEqual([r.text for r in records if r.stage == "0"][-1], "<~ nsexec stage-0")

    def test_real_runc_five_namespaces(self):
        flags = sum(parent.FLAG[kind] for kind in ("pid", "mnt", "net", "ipc", "uts"))
        run = self.drive("init", parent.message(flags))
        texts = [parent.Record(line).text for line in run.log_bytes.split(b"\n") if b"nsexec-2[1]" in line]
        self.assertEqual(texts[0], "~> nsexec stage-2")

    def test_real_runc_refuses_a_missing_namespace(self):
        run = self.start_runc()
        run.until(lambda: run.init_bytes == b"\0", "the ready byte")
        run.send(parent.message(paths="net:/nonexistent"))
        self.assertEqual(run.wait_stage0(), 1)
        run.finish()
        fatal = run.fatal()
        self.assertEqual(fatal[0].text, "failed to open /nonexistent: No such file or directory")


if __name__ == "__main__":
    unittest.main()
