"""The parts of a process status that tests/clients/observe.py leaves out, on a process that has them.

Runs as part of the suite `protocol`, as any user; the processes are children of the test.
"""

import os
import signal
import sys
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "clients"))

import observe  # noqa: E402


def pending(*signals):
    """Returns the lines about pending signals of a process in which these signals are blocked and pending."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        for number in signals:
            os.kill(os.getpid(), number)
        os.write(write, b"x")
        while True:
            time.sleep(60)
    try:
        os.read(read, 1)
        return [line for line in observe.Observation()._status(child) if "Pnd" in line]
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(read)
        os.close(write)


class PendingSignals(unittest.TestCase):
    def test_preemption_signal_of_go_is_left_out(self):
        none = pending()
        self.assertEqual(len(none), 2)
        self.assertEqual(pending(signal.SIGURG), none)

    def test_other_pending_signals_stay(self):
        self.assertNotEqual(pending(signal.SIGUSR1, signal.SIGURG), pending(signal.SIGURG))
        self.assertEqual(pending(signal.SIGUSR1, signal.SIGURG), pending(signal.SIGUSR1))


if __name__ == "__main__":
    unittest.main()
