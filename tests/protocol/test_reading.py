"""The message in every piece and at every pace, and exactly its bytes.

Who this is: root, parent of `nsexec init`, with a slow or an awkward hand.
"""

import os
import signal
import socket
import struct
import time
import unittest

import fixture
import parent

FIVE = sum(parent.FLAG[kind] for kind in ("pid", "mnt", "net", "ipc", "uts"))


def long_paths(size=4000, kinds=("ipc", "uts", "net", "cgroup")):
    """Real joins of our own namespaces, by paths of nearly PATH_MAX bytes."""
    entries = []
    for kind in kinds:
        tail = f"/proc/self/ns/{kind}"
        entries.append(f"{kind}:" + "/." * ((size - len(tail)) // 2) + tail)
    return ",".join(entries)


class Reading(fixture.ProtocolTest):
    def deliver(self, chunks, pause=0.0, poke=None, **how):
        run = self.start(**how)
        for chunk in chunks:
            run.send(chunk)
            if poke is not None:
                poke(run)
            if pause:
                time.sleep(pause)
        run.like_init(b"")
        return self.assertHandedOver(run)

    def test_e17_byte_by_byte(self):
        data = parent.message(FIVE, oom="500")
        self.deliver([data[i:i + 1] for i in range(len(data))], pause=0.001)

    def test_e17_odd_chunks(self):
        data = parent.message(FIVE, oom="500")
        for cut in (1, 8, 15, 16, 17, 19, 21, len(data) - 1):
            self.deliver([data[:cut], data[cut:]], pause=0.005)

    def test_signals_while_reading(self):
        data = parent.message(FIVE, oom="500")
        state = {"number": 0}

        def poke(run):
            state["number"] += 1
            os.kill(run.pid, signal.SIGWINCH)
            if state["number"] % 5 == 0:
                os.kill(run.pid, signal.SIGSTOP)
            os.kill(run.pid, signal.SIGCONT)
        self.deliver([data[i:i + 1] for i in range(len(data))], pause=0.001, poke=poke)

    def test_large_message_is_read_whole(self):
        data = parent.message(0, paths=long_paths())
        self.assertGreater(len(data), 15000)
        self.deliver([data])
        self.deliver([data[i:i + 977] for i in range(0, len(data), 977)], pause=0.0005)

    def test_attribute_of_64_kib(self):
        """The largest attribute there is: read to its end, in pieces, and then refused for what it says."""
        data = parent.frame(parent.u32(27281, 0) + parent.attribute(27287, b"\0" * 65531))
        self.assertEqual(struct.unpack_from("=H", data, 24), (65535,))
        for chunks in ([data], [data[:65552 // 2], data[65552 // 2:]]):
            run = self.start()
            for chunk in chunks:
                run.try_send(chunk)
                time.sleep(0.01)
            self.assertRefused(run, "27287")

    def test_nonblocking_init_pipe(self):
        run = self.start(init_nonblocking=True)
        time.sleep(0.05)
        data = parent.message(FIVE)
        for piece in (data[:10], data[10:20], data[20:]):
            run.send(piece)
            time.sleep(0.02)
        run.like_init(b"")
        self.assertHandedOver(run)

    def test_surplus_stays_unread(self):
        command = "import os; os.write(1, os.read(%d, 4096))"
        for init_fd in (3, 9, 200):
            for manner in ("like_init", "like_exec"):
                run = self.start(fixture.PYTHON, "-ISc", command % init_fd, init_fd=init_fd, log_fd=7)
                getattr(run, manner)(parent.message(0) + b"{}")
                self.assertHandedOver(run, out=b"{}")

    def test_nothing_but_the_message_is_needed(self):
        """No wait on the parent after the pid line: it is not even read."""
        run = self.start()
        run.send(parent.message(FIVE))
        self.assertEqual(run.wait_stage0(), 0)
        run.read_pids()
        self.assertHandedOver(run)

    def test_pid_line_is_one_write(self):
        """On a SEQPACKET pair every write is a packet; the message comes as header and payload."""
        run = self.start(init_type=socket.SOCK_SEQPACKET)
        packets = []
        run.readers.pop(run.init.fileno())
        data = parent.message(FIVE)
        run.send(data[:16]).send(data[16:])
        self.assertEqual(run.wait_stage0(), 0, run.describe())
        run.init.settimeout(5)
        while packet := run.init.recv(4096):  # up to the end of stage 2
            packets.append(packet)
        self.assertEqual(len(packets), 1, packets)
        self.assertRegex(packets[0], parent.Bootstrap.PID_LINE)
        run.finish()


if __name__ == "__main__":
    unittest.main()
