"""Joins: the namespaces of stage 2 afterwards, and every path that is not a namespace.

Runs as root, as the parent of `nsexec init`, and as the maker of the processes whose namespaces are joined.
It starts stage 0 as an ordinary user to join that user's own container.
"""

import os
import unittest

import fixture
import parent
from containers import Container
from parent import FLAG, message
from tracer import Tracer

RANGE = f"0 {fixture.FIRST} 1000\n"
GO_ORDER = ("user", "ipc", "uts", "net", "pid", "mnt", "cgroup", "time")


class Joins(fixture.ProtocolTest):
    def join(self, data, **how):
        run = self.start(**how)
        tracer = Tracer(run)
        run.send(data)
        self.assertEqual(run.wait_stage0(), 0, run.describe())
        run.read_pids()
        self.assertHandedOver(run)
        self.stages = [tracer.named(name) for name in ("runc:[0:PARENT]", "runc:[1:CHILD]", "runc:[2:INIT]")]
        return self.stages[2]

    def assertIn_(self, stage2, container, kinds):
        mine = parent.namespaces_of("self")
        for kind in parent.KINDS:
            self.assertEqual(stage2.namespaces[kind], (container.namespaces if kind in kinds else mine)[kind], kind)

    def test_all_eight_of_a_live_process(self):
        with Container(self) as container:
            stage2 = self.join(message(0, paths=container.paths(GO_ORDER)))
            self.assertIn_(stage2, container, parent.KINDS)
            self.assertEqual(stage2.status["Uid"].split(), [str(fixture.FIRST)] * 4)
            self.assertEqual(stage2.status["NSpid"].split()[-1], "2")

    def test_each_kind_alone(self):
        with Container(self) as container:
            for kind in parent.KINDS:
                with self.subTest(kind=kind):
                    self.assertIn_(self.join(message(0, paths=container.paths([kind]))), container, [kind])

    def test_any_order_of_the_list(self):
        with Container(self) as container:
            for order in (tuple(reversed(GO_ORDER)), GO_ORDER[3:] + GO_ORDER[:3]):
                self.assertIn_(self.join(message(0, paths=container.paths(order))), container, parent.KINDS)

    def test_as_ordinary_user(self):
        """Every kind but user is joined in the third pass, as root of the joined user namespace."""
        user = fixture.ordinary_user()
        with Container(self, user=user) as container:
            stage2 = self.join(message(0, paths=container.paths(GO_ORDER), rootless=True), user=user)
            self.assertIn_(stage2, container, parent.KINDS)

    def test_user_namespace_that_does_not_own_the_others(self):
        """The reason for the first pass: a net namespace of the host, and the user namespace of a
        container."""
        with Container(self, ("user",)) as container, Container(self, ("net", "uts")) as other:
            run = self.hold(data=message(0, paths=f"{container.paths()},{other.paths()}"))
            found = parent.namespaces_of(run.stage2)
            self.assertEqual(found["user"], container.namespaces["user"])
            self.assertEqual(found["net"], other.namespaces["net"])
            self.assertEqual(found["uts"], other.namespaces["uts"])
            self.release(run)

    def test_user_cannot_join_a_foreign_net_namespace(self):
        """A net namespace that this user does not own: the error names it, nothing is joined, and no process
        is left."""
        user = fixture.ordinary_user()
        with Container(self, ("user",), user) as container:
            run = self.start(user=user)
            run.send(message(0, paths=f"{container.paths()},net:/proc/self/ns/net", rootless=True))
            text = self.assertFirst(run)
            self.assertRegex(text, r"^failed to setns\(0x40000000\) into net namespace \(with path /proc/self/ns/net\): "
                                   r"Operation not permitted$")
            self.assertIn("failed to join {net} namespaces: Operation not permitted",
                          [record.text for record in run.fatal()])

    def assertFirst(self, run):
        return self.assertRefused(run, records=(1, 2, 3))

    def test_own_user_namespace_is_einval(self):
        run = self.start()
        run.send(message(0, paths="user:/proc/self/ns/user"))
        self.assertStageFailed(run, "^failed to setns into user namespace: Invalid argument")

    def test_groups_stay_when_joining(self):
        with Container(self) as container:
            stage2 = self.join(message(0, paths=container.paths(GO_ORDER)), user=parent.User(0, 0, [7, 8]))
            self.assertEqual(sorted(stage2.status["Groups"].split()), ["7", "8"])

    def test_dumpable(self):
        """As an ordinary user with its own container: root owns /proc/PID of a process that joined."""
        user = fixture.ordinary_user()
        with Container(self, ("user", "net"), user) as container:
            self.join(message(0, paths=container.paths(), rootless=True), user=user)
            self.assertEqual([stage.owner for stage in self.stages], [0, 0, 0])

    def test_join_pid_and_create_others(self):
        with Container(self, ("pid",)) as container:
            stage2 = self.join(message(FLAG["net"] | FLAG["ipc"], paths=container.paths()))
            self.assertEqual(stage2.namespaces["pid"], container.namespaces["pid"])
            self.assertNotEqual(stage2.namespaces["net"], parent.namespaces_of("self")["net"])
            self.assertEqual(self.stages[2].status["NSpid"].split()[-1], "2")

    def test_join_mnt_by_paths_that_are_gone_afterwards(self):
        """All paths are opened before the first join."""
        with Container(self, ("mnt", "net", "uts")) as container:
            self.join(message(0, paths=container.paths(("mnt", "net", "uts"))))
            self.assertEqual(self.stages[2].namespaces["uts"], container.namespaces["uts"])

    def test_paths_of_nearly_path_max(self):
        with Container(self, ("net",)) as container:
            tail = f"/proc/{container.pid}/ns/net"
            for size in (4095 - (4095 - len(tail)) % 2, 1023):
                path = "/." * ((size - len(tail)) // 2) + tail
                self.join(message(0, paths=f"net:{path}"))
                self.assertEqual(self.stages[2].namespaces["net"], container.namespaces["net"])


class NoNamespaces(fixture.ProtocolTest):
    """Each is named in time. Nothing is joined before all paths are open and known to be namespaces."""

    def refuse(self, path, *words):
        path = path.encode() if isinstance(path, str) else path
        for before in (b"", b"uts:/proc/self/ns/uts,"):
            run = self.start()
            run.try_send(message(0, paths=before + b"net:" + path))
            self.assertStageFailed(run, *words)
            self.assertEqual([text for text in run.texts("1") if text.startswith("setns")], [], "nothing was joined")

    def test_missing(self):
        self.refuse("/nonexistent/ns", "^failed to open /nonexistent/ns: No such file or directory")

    def test_fifo(self):
        path = os.path.join(self.scratch, "fifo")
        os.mkfifo(path)
        self.refuse(path, path)

    def test_fifo_with_a_writer(self):
        path = os.path.join(self.scratch, "fifo")
        os.mkfifo(path)
        fd = os.open(path, os.O_RDWR)
        try:
            self.refuse(path, path)
        finally:
            os.close(fd)

    def test_regular_file_directory_and_socket(self):
        import socket
        path = os.path.join(self.scratch, "file")
        with open(path, "w"):
            pass
        self.refuse(path, path)
        self.refuse(self.scratch, self.scratch)
        bound = os.path.join(self.scratch, "socket")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(bound)
            self.refuse(bound, bound)

    def test_other_kind_of_namespace(self):
        """Only the kernel's setns detects this; earlier entries of the list are joined by then."""
        run = self.start()
        run.send(message(0, paths="net:/proc/self/ns/ipc"))
        self.assertStageFailed(run, "^failed to setns into net namespace: Invalid argument")

    def test_too_long(self):
        for size in (4096, 5000, 60000):
            path = "/" + "a" * (size - 1)
            run = self.start()
            run.try_send(message(0, paths=b"net:" + path.encode()))
            text = self.assertStageFailed(run, "/aaaaaa")
            self.assertRegex(text, "File name too long|too long|4,?09[56]")

    def test_removed_process(self):
        with Container(self, ("net",)) as container:
            path = container.path("net")
        self.refuse(path, "^failed to open " + path + ": No such file or directory")

    def test_cause_comes_before_consequence(self):
        run = self.start()
        run.send(message(0, paths="net:/nonexistent"))
        self.assertStageFailed(run, "^failed to open /nonexistent: No such file or directory")
        fatal = run.fatal()
        self.assertEqual(fatal[0].stage, "1")
        self.assertEqual([record.stage for record in fatal[1:]], ["0"] * (len(fatal) - 1))


if __name__ == "__main__":
    unittest.main()
