"""The expectations of runc's own unit test of the C code (libcontainer/nsenter/nsenter_test.go).

Runs as root, as the parent of `nsexec init`, like the process of that test. Each test names the expectation.
"""

import json
import os
import unittest

import fixture
import parent
from parent import FLAG, message


class RuncsOwnExpectations(fixture.ProtocolTest):
    def test_valid_paths(self):
        """INITPIPE only, no LOGPIPE; the pid namespace of a live process is joined, a net namespace is
        created."""
        run = self.start(log_fd=None, log_level=None)
        run.send(message(FLAG["net"], paths=f"pid:/proc/{os.getpid()}/ns/pid"))
        self.assertEqual(run.wait_stage0(), 0, run.describe())
        run.read_pids()
        decoded = json.loads(run.init_bytes)
        self.assertEqual(set(decoded), {"stage1_pid", "stage2_pid"})
        self.assertTrue(all(decoded.values()))
        run.finish()
        self.assertEqual((run.out, run.err), (b"", b""))

    def test_invalid_path(self):
        run = self.start(log_fd=None, log_level=None)
        run.send(message(FLAG["net"], paths="pid:/nonexistent/ns/pid"))
        self.assertNotEqual(run.wait_stage0(), 0)
        run.finish()
        self.assertEqual(run.init_bytes, b"")

    def test_incorrect_type(self):
        """A file of a pid namespace, named as net."""
        run = self.start(log_fd=None, log_level=None)
        run.send(message(FLAG["net"], paths=f"net:/proc/{os.getpid()}/ns/pid"))
        self.assertNotEqual(run.wait_stage0(), 0)
        run.finish()
        run = self.start(log_fd=None, log_level=None)
        run.send(message(FLAG["ipc"], paths=f"net:/proc/{os.getpid()}/ns/pid"))
        self.assertNotEqual(run.wait_stage0(), 0)
        run.finish()

    def test_child_logging(self):
        """Every line of the log decodes to exactly level and msg, both not empty; all writers end."""
        run = self.start()
        run.send(message(FLAG["net"] | FLAG["ipc"]))
        self.assertEqual(run.wait_stage0(), 0, run.describe())
        run.read_pids()
        run.finish()
        self.assertTrue(run.log_eof)
        lines = run.log_bytes.decode().splitlines()
        self.assertTrue(lines)
        for line in lines:
            decoded = json.loads(line)
            self.assertEqual(set(decoded), {"level", "msg"})
            self.assertTrue(decoded["level"] and decoded["msg"])


if __name__ == "__main__":
    unittest.main()
