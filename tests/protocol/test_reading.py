"""The message in every size of piece and at every pace, and exactly its bytes.

Runs as root, as the parent of `nsexec init`, and sends slowly or in odd pieces.
"""

import ctypes
import os
import signal
import socket
import struct
import time
import unittest

import fixture
import parent
from tracer import Stepper

FIVE = sum(parent.FLAG[kind] for kind in ("pid", "mnt", "net", "ipc", "uts"))


def long_paths(size=4000, kinds=("ipc", "uts", "net", "cgroup")):
    """Joins of our own namespaces, by paths of nearly PATH_MAX bytes."""
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

    def test_message_byte_by_byte(self):
        data = parent.message(FIVE, oom="500")
        self.deliver([data[i:i + 1] for i in range(len(data))], pause=0.001)

    def test_message_in_odd_chunks(self):
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
        """The largest possible attribute: read to its end in pieces, and then refused for its value."""
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
        """Stage 0 waits for nothing from the parent after the pid line, and the parent does not even read
        it."""
        run = self.start()
        run.send(parent.message(FIVE))
        self.assertEqual(run.wait_stage0(), 0)
        run.read_pids()
        self.assertHandedOver(run)

    def test_pid_line_is_one_write(self):
        """Stage 0 stops at the end of each system call: what it has written by then is one piece."""
        run = self.start()
        run.readers.pop(run.init.fileno())
        pieces = []

        def at(stage, count, pid):
            try:
                piece = run.init.recv(4096)
            except BlockingIOError:
                return
            if piece:
                pieces.append(piece)
        Stepper(run, at)
        run.send(parent.message(FIVE))
        self.assertEqual(run.wait_stage0(), 0, run.describe())
        self.assertEqual(len(pieces), 1, pieces)
        self.assertRegex(pieces[0], parent.Bootstrap.PID_LINE)
        run.finish()


def from_libc(function, *arguments):
    return parent.check(getattr(parent.libc, function)(*arguments), function)


def signalfd():
    signals = (ctypes.c_ulong * 16)(1 << (signal.SIGUSR1 - 1))
    return from_libc("signalfd", -1, signals, os.O_CLOEXEC)


def socket_of(*kind):
    """One end of a pair. The other end stays open, so that no EOF comes."""
    def make():
        one, other = socket.socketpair(*kind)
        return one.detach(), other.detach()
    return make


ANONYMOUS = r"an anonymous inode \(eventfd, timerfd, signalfd, epoll, inotify or the like\)"


class InitPipeKinds(fixture.ProtocolTest):
    """An init pipe that would block forever is refused before it is read or written."""

    KINDS = {
        "datagram": (socket_of(socket.AF_UNIX, socket.SOCK_DGRAM), "a datagram socket"),
        "seqpacket": (socket_of(socket.AF_UNIX, socket.SOCK_SEQPACKET), "a seqpacket socket"),
        "udp": (lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).detach(), "a datagram socket"),
        "netlink": (lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).detach(), "a raw socket"),
        "eventfd": (lambda: os.eventfd(0, os.EFD_CLOEXEC), ANONYMOUS),
        "timerfd": (lambda: from_libc("timerfd_create", 1, os.O_CLOEXEC), ANONYMOUS),
        "signalfd": (signalfd, ANONYMOUS),
        "epoll": (lambda: from_libc("epoll_create1", os.O_CLOEXEC), ANONYMOUS),
        "inotify": (lambda: from_libc("inotify_init1", os.O_CLOEXEC), ANONYMOUS),
        # An anonymous inode before Linux 6.9.
        "pidfd": (lambda: os.pidfd_open(os.getpid()), f"(a pidfd|{ANONYMOUS})"),
    }

    def refuses(self, make, found, *options):
        made = make()
        made = made if isinstance(made, tuple) else (made,)
        try:
            run = self.start(argv=[fixture.binary(), "init", *options], init_fd=None, extra={3: made[0]},
                             environment={"_LIBCONTAINER_INITPIPE": "3"})
            words = rf"^_LIBCONTAINER_INITPIPE=3 is {found}: it must be a stream socket or a pipe$"
            self.assertRefused(run, words)
        finally:
            for fd in made:
                os.close(fd)

    def test_init_pipes_without_an_end(self):
        for kind, (make, found) in self.KINDS.items():
            with self.subTest(kind=kind):
                self.refuses(make, found)

    def test_init_pipes_without_an_end_in_the_older_dialects(self):
        """Refused before the ready byte of 1.0 and 1.1. The errors of the seed (no log pipe) and 1.0 (no
        level) go elsewhere."""
        for kind in ("datagram", "eventfd"):
            with self.subTest(kind=kind):
                self.refuses(*self.KINDS[kind], "--dialect", "v1_1")

    def test_a_pipe_is_read(self):
        """Open for both directions, as a FIFO can be."""
        path = os.path.join(self.scratch, "fifo")
        os.mkfifo(path)
        fifo = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            run = self.start(init_fd=None, extra={3: fifo}, environment={"_LIBCONTAINER_INITPIPE": "3"})
            os.write(fifo, parent.message(FIVE))
            self.assertEqual(run.wait_stage0(), 0, run.describe())
            line = os.read(fifo, 4096)
            self.assertRegex(line, parent.Bootstrap.PID_LINE)
        finally:
            os.close(fifo)
        run.finish()


class CoveredFiles(fixture.ProtocolTest):
    """A file of procfs is mounted over another: our writes must not reach the other process."""

    def setUp(self):
        super().setUp()
        self.held, held = os.pipe()
        self.victim = os.fork()
        if self.victim == 0:
            try:
                parent.unshare(parent.FLAG["user"])
                os.write(held, b".")
                os.close(self.held)
                signal.pause()
            finally:
                os._exit(99)
        os.close(held)
        self.assertEqual(os.read(self.held, 1), b".")

    def tearDown(self):
        self.end_victim()
        os.close(self.held)
        super().tearDown()

    def end_victim(self):
        """End the victim, and return its oom score and its maps."""
        if self.victim is None:
            return None
        found = {}
        for name in ("oom_score_adj", "uid_map", "gid_map"):
            with open(f"/proc/{self.victim}/{name}") as file:
                found[name] = file.read()
        os.kill(self.victim, signal.SIGKILL)
        os.waitpid(self.victim, 0)
        self.victim = None
        return found

    def assertRefusedAndUntouched(self, run, text):
        self.assertEqual(run.wait_stage0(), 1, run.describe())
        with open("/proc/self/oom_score_adj") as file:
            score = file.read()
        self.assertEqual(self.end_victim(), {"oom_score_adj": score, "uid_map": "", "gid_map": ""})
        run.finish()
        self.assertEqual(run.fatal()[0].text, text, run.describe())
        self.assertEqual(run.init_bytes, b"")

    @staticmethod
    def private_mounts():
        parent.unshare(parent.FLAG["mnt"])
        parent.mount(None, "/", None, parent.MS_REC | parent.MS_PRIVATE)

    def test_an_oom_score_over_ours(self):
        victim = self.victim

        def prepare():
            self.private_mounts()
            parent.mount(f"/proc/{victim}/oom_score_adj", "/proc/self/oom_score_adj", None, parent.MS_BIND)
        run = self.start(prepare=prepare)
        run.try_send(parent.message(FIVE, oom="789"))
        text = ("failed to update /proc/self/oom_score_adj, which is a mount point: something is mounted over it "
                "(unmount it, or mount a new /proc)")
        self.assertRefusedAndUntouched(run, text)

    def cover(self, what, text):
        """Mount the victim's file over that of stage 1, in the mount namespace of stage 0, which is stopped
        right after it made stage 1."""
        victim, done = self.victim, []

        def at(stage, count, pid):
            if done or len(stepper.order) < 2 or stage != 0:
                return
            done.append(stepper.order[1])
            helper = os.fork()
            if helper == 0:
                try:
                    fd = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY)
                    parent.check(parent.libc.setns(fd, 0), "setns")
                    parent.mount(f"/proc/{victim}{what}", f"/proc/{done[0]}{what}", None, parent.MS_BIND)
                    os._exit(0)
                finally:
                    os._exit(99)
            self.assertEqual(os.waitpid(helper, 0)[1], 0)
        run = self.start(prepare=self.private_mounts)
        stepper = Stepper(run, at)
        own = "0 0 4294967295\n"
        run.try_send(parent.message(parent.FLAG["user"], uidmap=own, gidmap=own))
        run.wait_stage0()
        self.assertEqual(len(done), 1)
        mounted = "which is a mount point: something is mounted over it (unmount it, or mount a new /proc)"
        self.assertRefusedAndUntouched(run, f"{text.format(done[0])}, {mounted}")

    def test_a_map_over_that_of_stage_1(self):
        self.cover("/uid_map", "failed to update /proc/{}/uid_map")

    def test_a_directory_over_that_of_stage_1(self):
        self.cover("", "failed to open /proc/{}")


if __name__ == "__main__":
    unittest.main()
