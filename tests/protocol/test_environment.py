"""The environment, which contains stage 0's descriptors and its log level (docs/protocol.md#environment).

Runs as root, as the parent of a process that may or may not be a stage 0.
"""

import os
import unittest

import fixture
import parent
from parent import message

INIT, LOG, LEVEL = "_LIBCONTAINER_INITPIPE", "_LIBCONTAINER_LOGPIPE", "_LIBCONTAINER_LOGLEVEL"
TOO_LARGE = "4294967299"  # truncated to an int it would be 3
BAD = ("abc", "3x", "3 ", "0x3", "", "-1", TOO_LARGE, "99999999999999999999")


def words(name, value):
    """Either text of runc's, with the variable and its value."""
    return rf"^(unable to parse|bad value for) {name}={value}( \(-?[0-9]+\))?$"


class Environment(fixture.ProtocolTest):
    def start_bad(self, changes, **how):
        run = self.start(environment=changes, **how)
        run.try_send(message(0))
        return run

    def assertFatalOnStderr(self, run, text):
        self.assertEqual(run.wait_stage0(), 1, run.describe())
        run.finish()
        self.assertEqual(run.out, b"")
        self.assertEqual(run.init_bytes, b"")
        self.assertEqual(run.log_bytes, b"")
        self.assertRegex(run.err.decode(), r"\AFATAL: [^\n]*\n\Z")
        self.assertRegex(run.err.decode()[len("FATAL: "):-1], text)

    def test_init_pipe_bad(self):
        for value in BAD:
            if value == "":
                continue
            with self.subTest(value=value):
                self.assertRefused(self.start_bad({INIT: value}), words(INIT, value))

    def test_log_pipe_bad(self):
        for value in BAD:
            if value == "":
                continue
            with self.subTest(value=value):
                self.assertFatalOnStderr(self.start_bad({LOG: value}), words(LOG, value))

    def test_log_pipe_bad_without_init_pipe(self):
        """The archive's nsexec() exits here, as runc's C does. `nsexec init` reports wrong usage: no init pipe."""
        run = self.start(init_fd=None, environment={LOG: "abc"})
        self.assertEqual(run.wait_stage0(), 2, run.describe())
        run.finish()
        self.assertEqual((run.out, run.log_bytes), (b"", b""))

    def test_log_level_bad(self):
        for value in ("debug", "5x", "-1", "99999999999999999999"):
            with self.subTest(value=value):
                self.assertRefused(self.start_bad({LEVEL: value}), words(LEVEL, value))

    def test_log_level_is_not_looked_at_without_log_pipe(self):
        run = self.start(log_fd=None, environment={LEVEL: "debug"})
        run.like_init(message(0))
        self.assertHandedOver(run)

    def test_exact_texts(self):
        self.assertEqual(self.assertRefused(self.start_bad({INIT: "abc"})), f"unable to parse {INIT}=abc")
        self.assertEqual(self.assertRefused(self.start_bad({INIT: "-7"})), f"bad value for {INIT}=-7 (-7)")

    def test_blanks_and_a_sign_are_accepted(self):
        for value in (" 3", "+3", "\t +3", "0003"):
            with self.subTest(value=value):
                run = self.start(environment={INIT: value})
                run.like_init(message(0))
                self.assertHandedOver(run)

    def test_empty_log_pipe_is_absent(self):
        run = self.start(environment={LOG: ""})
        run.like_init(message(0))
        run.finish()
        self.assertEqual(run.log_bytes, b"")

    def test_descriptor_that_is_not_open(self):
        run = self.start_bad({INIT: "77"})
        self.assertRefused(run, f"^failed to read netlink header: Bad file descriptor.*{INIT}")

    def test_descriptor_of_the_other_direction(self):
        """The descriptor is open, so the text must not claim that it is not."""
        run = self.start_bad({INIT: "4"})
        words = f"failed to read netlink header: Bad file descriptor ({INIT} is closed, or open for the other direction only)"
        self.assertEqual(self.assertRefused(run), words)

    def test_log_pipe_that_is_not_open(self):
        """Otherwise a socket of our own would get the number, and records would corrupt the sync protocol."""
        for number in ("5", "6", "77"):
            with self.subTest(number=number):
                run = self.start(environment={LOG: number})
                self.assertEqual(run.wait_stage0(), 1, run.describe())
                run.finish()
                self.assertEqual(run.err, f"FATAL: failed to use {LOG}={number}: Bad file descriptor\n".encode())
                self.assertEqual(run.init_bytes, b"")
                self.assertEqual(run.log_bytes, b"")

    def test_no_init_pipe_returns_untouched(self):
        """The caller is not a runtime: a usage error, and nothing on the pipes."""
        for changes in ({INIT: None}, {INIT: ""}):
            with self.subTest(changes=changes):
                run = self.start(environment=changes)
                self.assertEqual(run.wait_stage0(), 2, run.describe())
                run.finish()
                self.assertEqual(run.init_bytes, b"")
                self.assertEqual(run.log_bytes, b"")
                self.assertEqual(run.out, b"")

    def test_the_command_keeps_the_environment(self):
        """The whole environment. The log pipe is closed by then, since runc reads it to its end."""
        run = self.start("/usr/bin/env", log_level="6", environment={"_LIBCONTAINER_INITTYPE": "standard"})
        run.like_init(message(0))
        run.finish()
        self.assertEqual(sorted(run.out.decode().split()), [
            "_LIBCONTAINER_INITPIPE=3", "_LIBCONTAINER_INITTYPE=standard"])

    def test_the_command_keeps_the_init_pipe_and_not_the_log_pipe(self):
        reader, gate = os.pipe()
        run = self.start("/bin/cat", stdin=reader)
        os.close(reader)
        run.like_init(message(0))
        run.until(lambda: run.log_eof, "the log pipe at its end while the command runs")
        self.assertEqual(sorted(parent.descriptors_of(run.stage2)), [0, 1, 2, 3])
        os.close(gate)
        self.assertHandedOver(run)

    def test_other_dialects_variables_do_not_matter(self):
        run = self.start(environment={"_LIBCONTAINER_SYNCPIPE": "8", "_LIBCONTAINER_FIFOFD": "9", "GOMAXPROCS": "1",
                                      "_LIBCONTAINER_CLONED_BINARY": "1", "_LIBCONTAINER_STATEDIR": "/nonexistent"})
        run.like_init(message(0))
        self.assertHandedOver(run)


if __name__ == "__main__":
    unittest.main()
