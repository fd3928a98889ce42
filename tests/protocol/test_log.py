"""The log records: their form, texts, order and filter, and a log pipe that never stops a stage.

Runs as root, as the parent of `nsexec init`, and as the only reader of its log pipe, if the pipe has a
reader.
"""

import os
import re
import time
import unittest

import fixture
import parent
from containers import Container
from parent import FLAG, message

FIVE = sum(FLAG[kind] for kind in ("pid", "mnt", "net", "ipc", "uts"))
RANGE = f"0 {fixture.FIRST} 1000\n"


class Texts(fixture.ProtocolTest):
    """The texts of each stage in the order of runc's main branch. Numbers are filled in from the pid line."""

    def sections(self, data, **how):
        run = self.start(**how)
        run.like_init(data)
        self.assertHandedOver(run)
        self.assertEqual({record.level for record in run.records}, {"debug"})
        return run

    def assertSection(self, run, stage, expected):
        texts = run.texts(stage)
        self.assertEqual(len(texts), len(expected), texts)
        for text, want in zip(texts, expected):
            if isinstance(want, re.Pattern):
                self.assertRegex(text, want)
            else:
                self.assertEqual(text, want)

    def assertPids(self, run, inner):
        pids = {(record.stage, record.pid) for record in run.records}
        self.assertEqual(pids, {("setup", run.pid), ("0", run.pid), ("1", run.stage1), ("2", inner)})

    def test_rootful_five_namespaces(self):
        run = self.sections(message(FIVE, oom="500"))
        affinity = sum(1 << cpu for cpu in os.sched_getaffinity(0) if cpu < 64)
        self.assertSection(run, "setup", [
            "=> nsexec container setup", f"affinity: {affinity:#x}",
            "update /proc/self/oom_score_adj to '500'"])
        self.assertSection(run, "0", [
            "~> nsexec stage-0", "spawn stage-1", "-> stage-1 synchronisation loop",
            "stage-1 requested pid to be forwarded",
            f"forward stage-1 ({run.stage1}) and stage-2 ({run.stage2}) pids to runc",
            "stage-1 complete", "<- stage-1 synchronisation loop", "-> stage-2 synchronisation loop",
            "signalling stage-2 to run", "stage-2 complete", "<- stage-2 synchronisation loop",
            "<~ nsexec stage-0"])
        self.assertSection(run, "1", [
            "~> nsexec stage-1", "unshare remaining namespaces", "spawn stage-2",
            f"request stage-0 to forward stage-2 pid ({run.stage2})", "signal completion to stage-0",
            "<~ nsexec stage-1"])
        self.assertSection(run, "2", [
            "~> nsexec stage-2", "signal completion to stage-0", "<= nsexec container setup",
            "booting up go runtime ..."])
        self.assertPids(run, 1)

    def test_user_namespace_and_time_offsets(self):
        run = self.sections(message(FIVE | FLAG["user"] | FLAG["time"], uidmap=RANGE, gidmap=RANGE, setgroup=True,
                                    timens="boottime 5 0\n"))
        self.assertSection(run, "0", [
            "~> nsexec stage-0", "spawn stage-1", "-> stage-1 synchronisation loop",
            "stage-1 requested userns mappings",
            f"update /proc/{run.stage1}/uid_map to '{RANGE}'", f"update /proc/{run.stage1}/gid_map to '{RANGE}'",
            "stage-1 requested timens offsets to be configured",
            f"update /proc/{run.stage1}/timens_offsets to 'boottime 5 0\n'",
            "stage-1 requested pid to be forwarded",
            f"forward stage-1 ({run.stage1}) and stage-2 ({run.stage2}) pids to runc",
            "stage-1 complete", "<- stage-1 synchronisation loop", "-> stage-2 synchronisation loop",
            "signalling stage-2 to run", "stage-2 complete", "<- stage-2 synchronisation loop",
            "<~ nsexec stage-0"])
        self.assertSection(run, "1", [
            "~> nsexec stage-1", "unshare user namespace", "request stage-0 to map user namespace",
            "waiting stage-0 to complete the mapping of user namespace", "unshare remaining namespaces",
            "request stage-0 to write timens offsets", "spawn stage-2",
            f"request stage-0 to forward stage-2 pid ({run.stage2})", "signal completion to stage-0",
            "<~ nsexec stage-1"])
        self.assertPids(run, 1)

    def test_join_with_a_new_user_namespace(self):
        """A root stage 0 does not need a dumpable window in stage 1; runc's main branch always opens one."""
        path = "/proc/self/ns/net"
        run = self.sections(message(FLAG["user"], paths=f"net:{path}", uidmap=RANGE, gidmap=RANGE, setgroup=True))
        self.assertEqual(run.texts("setup")[-1], "set process as non-dumpable")
        self.assertSection(run, "1", [
            "~> nsexec stage-1", f"setns(0x40000000) into net namespace (with path {path}): Success",
            "unshare user namespace",
            "request stage-0 to map user namespace", "waiting stage-0 to complete the mapping of user namespace",
            "unshare remaining namespaces", "spawn stage-2",
            f"request stage-0 to forward stage-2 pid ({run.stage2})", "signal completion to stage-0",
            "<~ nsexec stage-1"])
        self.assertPids(run, run.stage2)

    def test_join_as_ordinary_user(self):
        """The passes: refused without the user namespace, joined after it."""
        user = fixture.ordinary_user()
        kinds = ("user", "net", "uts")
        with Container(self, kinds, user) as container:
            run = self.sections(message(FLAG["ipc"], paths=container.paths(kinds), rootless=True), user=user)
            joins = [(kind, "Operation not permitted") for kind in kinds[1:]] + [(kind, "Success") for kind in kinds]
            self.assertSection(run, "1", ["~> nsexec stage-1"] + [
                f"setns({FLAG[kind]:#x}) into {kind} namespace (with path {container.path(kind)}): {result}"
                for kind, result in joins] + [
                "unshare remaining namespaces", "spawn stage-2",
                f"request stage-0 to forward stage-2 pid ({run.stage2})", "signal completion to stage-0",
                "<~ nsexec stage-1"])

    def test_joined_and_created_is_refused(self):
        """Asking for both is an error, and nothing is joined."""
        run = self.start()
        run.send(message(FLAG["net"], paths="net:/proc/self/ns/net"))
        self.assertRefused(run, "net")
        self.assertEqual(run.texts("1"), [])

    def test_join_of_all_eight(self):
        """The user namespace is last: the others are joined first, with the host's privileges."""
        with Container(self) as container:
            order = ("user", "ipc", "uts", "net", "pid", "mnt", "cgroup", "time")
            run = self.sections(message(0, paths=container.paths(order)))
            joins = [text for text in run.texts("1") if text.startswith("setns")]
            self.assertEqual(joins, [
                f"setns({FLAG[kind]:#x}) into {kind} namespace (with path {container.path(kind)}): Success"
                for kind in order[1:] + order[:1]])

    def test_path_with_control_bytes_is_escaped(self):
        run = self.start()
        run.send(message(0, paths=b'net:/no"\\\b\n\r\t\f\x01\x1f\x7f\xc3\xa4'))
        text = self.assertStageFailed(run)
        self.assertIn(b'/no\\"\\\\\\b\\n\\r\\t\\f\\u0001\\u001f\\u007f\xc3\xa4: No such file', run.log_bytes)
        self.assertIn('/no"\\\b\n\r\t\f\x01\x1f\x7fä', text)

    def test_long_map_is_cut_at_4096_bytes(self):
        lines = "".join(f"{i} {fixture.FIRST + i} 1\n" for i in range(340))
        run = self.start()
        run.like_init(message(FLAG["user"], uidmap=lines, gidmap=lines, setgroup=True))
        self.assertHandedOver(run)  # Record refuses more than 4,096 bytes
        self.assertTrue([text for text in run.texts("0") if text.startswith(f"update /proc/{run.stage1}/uid_map to '0 30000 1\n")])


class Filter(fixture.ProtocolTest):
    def test_levels(self):
        for level, records in (("0", False), ("4", False), ("5", True), ("6", True), ("400", True), ("", True), (None, True)):
            run = self.start(log_level=level)
            run.like_init(message(FIVE))
            self.assertHandedOver(run)
            self.assertEqual(bool(run.records), records, f"level {level!r}")

    def test_level_0_still_writes_fatal(self):
        for level in ("0", "1", "4"):
            run = self.start(log_level=level)
            run.send(message(0, paths="net:/nonexistent"))
            self.assertStageFailed(run, "^failed to open /nonexistent: No such file or directory")
            self.assertEqual(run.records[0].stage, "1")
            self.assertEqual({record.level for record in run.records}, {"fatal"})

    def test_no_log_pipe(self):
        run = self.start(log_fd=None)
        run.like_init(message(FIVE))
        self.assertHandedOver(run)

    def test_no_log_pipe_fatal_on_stderr(self):
        for data, line in ((message(0, paths="net:/nonexistent"), b"FATAL: failed to open /nonexistent: No such file or directory"),
                           (parent.frame(b"", nlmsg_type=61999), b"FATAL: unexpected msg type 61999")):
            run = self.start(log_fd=None, log_level=None)
            run.try_send(data)
            self.assertEqual(run.wait_stage0(), 1)
            run.finish()
            self.assertEqual(run.out, b"")
            self.assertEqual(run.init_bytes, b"")
            self.assertTrue(run.err.startswith(line), run.err)
            for text in run.err.splitlines():
                self.assertTrue(text.startswith(b"FATAL: "), run.err)


class Pipe(fixture.ProtocolTest):
    """A log pipe without a reader, or with a reader that does not read (docs/protocol.md#log-records)."""

    def test_full_log_pipe(self):
        for data in (message(FIVE), message(FIVE | FLAG["user"], uidmap=RANGE, gidmap=RANGE, setgroup=True)):
            for filled in (True, False):
                run = self.start(log_size=4096, log_filled=filled, log_reader=False)
                run.like_init(data)
                run.wait(run.stage2)
                self.assertEqual(run.statuses, {run.pid: 0, run.stage1: 0, run.stage2: 0})
                run.finish_without_log()

    def test_dropped_records_are_counted_by_their_stage(self):
        """The pipe is full for stage 0's first records, and is read before stage 1 exists. Stage 0 reports
        the number of its dropped records. The other stages, which begin as copies of stage 0, report none.

        The pipe has many pages: before Linux 6.4 nsexec polls it, and a pipe of one page counts as full until that
        page is read."""
        whole = self.start()
        whole.like_init(message(FIVE))
        whole.finish()
        run = self.start(log_size=65_536, log_filled=True, log_reader=False)
        run.until(lambda: run.reads_init(), "stage 0 waits for its message")
        run.read_log_from_now_on()
        run.until(lambda: len(run.log_bytes) >= 65_536, "the log pipe is read")
        run.like_init(message(FIVE))
        run.finish()
        by_0 = lambda run: run.texts("setup") + run.texts("0")
        dropped = len(by_0(whole)) - (len(by_0(run)) - 1)
        self.assertGreater(dropped, 0)
        warnings = [(record.level, record.stage, record.text) for record in run.records if "dropped" in record.text]
        self.assertEqual(warnings, [("warning", "0", f"{dropped} log records dropped: the log pipe was full")])
        for stage in ("1", "2"):
            self.assertEqual(len(run.texts(stage)), len(whole.texts(stage)), run.describe())

    def test_full_log_pipe_and_a_long_map(self):
        lines = "".join(f"{i} {fixture.FIRST + i} 1\n" for i in range(340))
        run = self.start(log_size=4096, log_reader=False)
        run.like_init(message(FLAG["user"], uidmap=lines, gidmap=lines, setgroup=True))
        run.wait(run.stage2)
        run.finish_without_log()

    def test_fatal_with_a_full_log_pipe(self):
        run = self.start(log_size=4096, log_filled=True, log_reader=False)
        run.send(message(0, paths="net:/nonexistent"))
        self.assertEqual(run.wait_stage0(), 1)
        run.finish_without_log()

    def test_fatal_waits_a_moment_for_a_slow_reader(self):
        """The pipe is full at the failure, and is read a little later: the record arrives."""
        run = self.start(log_size=4096, log_filled=True, log_reader=False)
        run.send(message(0, paths="net:/nonexistent"))
        time.sleep(0.05)
        run.read_log_from_now_on()
        self.assertEqual(run.wait_stage0(), 1)
        run.finish()
        self.assertTrue([r for r in run.fatal() if "/nonexistent" in r.text], run.describe())

    def test_log_reader_gone(self):
        for ignored in ((), (13,)):
            run = self.start(log_reader=None, ignored=ignored)
            run.like_init(message(FIVE | FLAG["user"], uidmap=RANGE, gidmap=RANGE, setgroup=True))
            run.finish()
            self.assertEqual(run.statuses, {run.pid: 0, run.stage1: 0, run.stage2: 0})

    def test_log_reader_gone_and_a_failure(self):
        run = self.start(log_reader=None)
        run.send(message(0, paths="net:/nonexistent"))
        self.assertEqual(run.wait_stage0(), 1)
        run.finish()

    def test_flags_of_the_log_pipe_are_not_touched(self):
        import fcntl
        run = self.start()
        run.like_init(message(FIVE))
        run.finish()
        read, write = os.pipe()
        try:
            run = self.start("/bin/true", log_fd=None, environment={"_LIBCONTAINER_LOGPIPE": "9"}, extra={9: write})
            run.like_init(message(FIVE))
            run.finish()
            self.assertEqual(fcntl.fcntl(write, fcntl.F_GETFL) & os.O_NONBLOCK, 0)
        finally:
            os.close(read)
            os.close(write)


if __name__ == "__main__":
    unittest.main()
