"""runc's older lines from the message on (docs/protocol.md#dialects).

The order of the launcher's waits, the seed's late pid line and its failures, the cgroup namespace of stage 2,
and mount sources by descriptor passing.

Runs as root, as the parent of `nsexec init --dialect …`, like the Go code of that line. It traces stages that
are inspected at their exit.
"""

import ctypes
import errno
import os
import platform
import struct
import unittest

import fixture
import parent
from containers import Container
from fixture import COUNT, FIRST
from parent import FLAG, NEWCGROUP, NEWNET, NEWNS, NEWPID, NEWUSER, NEWUTS, message
from test_dialects_before_fork import Dialects
from tracer import Stepper, Tracer

OLDER = ("seed", "v1_0", "v1_1")
SIX = ("cgroup", "ipc", "mnt", "net", "pid", "uts")
SIX_FLAGS = sum(FLAG[kind] for kind in SIX)
MAP = f"0 {FIRST} {COUNT}\n"
MOUNT_FDS = "_LIBCONTAINER_MOUNT_FDS"
CGROUP_BYTE = b"\x80"


class Older(Dialects):
    def begin(self, dialect, *command, **how):
        """The seed has no log pipe."""
        pipe = {"log_fd": None, "log_level": None} if dialect == "seed" else {}
        return self.start_as(dialect, *command, **pipe, **how)

    def like(self, dialect, run, manner, data, cgroup=False):
        """Act as the Go code of that line."""
        if dialect == "seed":
            return run.like_seed(data)
        if manner == "exec":
            return run.like_exec(data, before=b"\0")
        run.send(data)
        run.read_pids(before=b"\0")
        run.wait(run.stage1)
        if dialect == "v1_0" and cgroup:
            # Between the check of stage 2's descriptors and the wait for stage 0.
            os.readlink(f"/proc/{run.stage2}/fd/0")
            run.send(CGROUP_BYTE)
        self.assertEqual(run.wait_stage0(), 0, run.describe())
        return run

    def texts_of(self, dialect, run):
        """The fatal texts: from the log pipe, for the seed from standard error."""
        if dialect != "seed":
            self.assertEqual(run.err, b"", run.describe())
            return [record.text for record in run.fatal()]
        lines = run.err.decode().splitlines()
        for line in lines:
            self.assertTrue(line.startswith("nsenter: "), run.describe())
        return [line.removeprefix("nsenter: ") for line in lines]

    def assertFailed(self, dialect, run, *words, after_pid_line=False):
        """Stage 0 exits with status 1, the first text names the cause, every process ends, every pipe is at
        EOF."""
        self.assertEqual(run.wait_stage0(), 1, run.describe())
        run.finish()
        self.assertEqual(b"stage2_pid" in run.init_bytes, after_pid_line, run.describe())
        self.assertNotIn(b"pid_first", run.init_bytes)
        self.assertEqual(run.out, b"")
        texts = self.texts_of(dialect, run)
        # In the seed the failed stage reports to stage 0, which adds nothing.
        self.assertIn(len(texts), (1,) if dialect == "seed" else (1, 2), run.describe())
        for word in words:
            self.assertRegex(texts[0], word, run.describe())

    def each(self):
        for dialect in OLDER:
            with self.subTest(dialect=dialect):
                yield dialect


class Starts(Older):
    def held(self, dialect, manner, data, cgroup=False, **how):
        """A stage 2 that was handed over, and runs /bin/cat until its input ends."""
        reader, gate = os.pipe()
        run = self.begin(dialect, "/bin/cat", stdin=reader, **how)
        os.close(reader)
        self.like(dialect, run, manner, data, cgroup)
        os.write(gate, b"here\n")
        run.until(lambda: run.out == b"here\n", "the command answers")
        return run, gate

    def over(self, run, gate):
        os.close(gate)
        self.assertEqual(run.wait(run.stage2), 0, run.describe())
        run.finish()
        self.assertEqual(run.err, b"")

    def test_run_creates_every_kind_under_a_mapped_user_namespace(self):
        ours = parent.namespaces_of(os.getpid())
        data = message(SIX_FLAGS | NEWUSER, uidmap=MAP, gidmap=MAP, setgroup=True)
        for dialect in self.each():
            run, gate = self.held(dialect, "init", data, cgroup=True)
            found = parent.namespaces_of(run.stage2)
            self.assertEqual([kind for kind in found if found[kind] == ours[kind]], ["time"])
            status = parent.status_of(run.stage2)
            self.assertEqual(status["Uid"].split(), [str(FIRST)] * 4)
            self.assertEqual(status["Gid"].split(), [str(FIRST)] * 4)
            self.assertEqual(status["Groups"], "")
            self.assertEqual(status["NSpid"].split()[-1], "1")
            with open(f"/proc/{run.stage2}/uid_map") as file:
                self.assertEqual(file.read().split(), ["0", str(FIRST), str(COUNT)])
            self.over(run, gate)

    def test_run_without_a_user_namespace(self):
        ours = parent.namespaces_of(os.getpid())
        for dialect in self.each():
            run, gate = self.held(dialect, "init", message(SIX_FLAGS), cgroup=True)
            found = parent.namespaces_of(run.stage2)
            self.assertEqual(sorted(kind for kind in found if found[kind] != ours[kind]), sorted(SIX))
            self.over(run, gate)

    def test_an_ordinary_user_maps_itself(self):
        user = fixture.ordinary_user()
        data = message(NEWUSER | NEWNS | NEWUTS | NEWCGROUP, uidmap=f"0 {user.uid} 1\n",
                       gidmap=f"0 {user.gid} 1\n", rootless=True)
        for dialect in self.each():
            run, gate = self.held(dialect, "init", data, cgroup=True, user=user)
            self.assertEqual(parent.status_of(run.stage2)["Uid"].split(), [str(user.uid)] * 4)
            with open(f"/proc/{run.stage2}/setgroups") as file:
                self.assertEqual(file.read(), "deny\n")
            self.over(run, gate)

    def test_exec_enters_a_container_and_is_its_root(self):
        """Root of a user namespace that was joined, in every line; runc itself does so since 1.2.1."""
        kinds = ("user", *SIX)
        with Container(self, kinds) as container:
            for dialect in self.each():
                run, gate = self.held(dialect, "exec", message(paths=container.paths()))
                found = parent.namespaces_of(run.stage2)
                self.assertEqual({kind: found[kind] for kind in kinds},
                                 {kind: container.namespaces[kind] for kind in kinds})
                self.assertEqual(parent.status_of(run.stage2)["Uid"].split(), [str(FIRST)] * 4)
                self.over(run, gate)

    def test_exec_joins_in_three_passes(self):
        """The network namespace belongs to the machine, and is listed after the container's user namespace.
        Joined in list order, as in those lines of runc, it would be refused."""
        with Container(self, ("user",)) as container, Container(self, ("net",)) as net:
            for dialect in self.each():
                paths = f"{container.paths()},{net.paths()}"
                run, gate = self.held(dialect, "exec", message(paths=paths))
                self.assertEqual(parent.namespaces_of(run.stage2)["net"], net.namespaces["net"])
                self.over(run, gate)

    def test_records_have_the_texts_of_the_line(self):
        data = message(NEWUSER | NEWUTS | NEWCGROUP, uidmap=MAP, gidmap=MAP)
        waiting = "waiting stage-0 to complete the mapping of user namespace"
        asking = "request stage-0 to map user namespace"
        words = {"v1_0": ([asking, asking], "unshare remaining namespace (except cgroupns)"),
                 "v1_1": ([asking, waiting], "unshare remaining namespaces (except cgroupns)")}
        for dialect, (maps, rest) in words.items():
            with self.subTest(dialect=dialect):
                run = self.begin(dialect)
                self.like(dialect, run, "init", data, cgroup=True)
                self.assertHandedOver(run)
                stage_1 = run.texts("1")
                self.assertEqual([text for text in stage_1 if text in (asking, waiting)], maps)
                self.assertIn(rest, stage_1)
                self.assertIn("unshare cgroup namespace", run.texts("2"))
                self.assertFalse([text for text in run.texts("setup") if text.startswith("affinity")])
                with Container(self, ("uts",)) as container:
                    run = self.begin(dialect)
                    self.like(dialect, run, "exec", message(paths=container.paths()))
                    self.assertHandedOver(run)
                    text = f"setns({FLAG['uts']:#x}) into uts namespace (with path {container.path('uts')})"
                    self.assertIn(text, run.texts("1"))


class Failures(Older):
    def test_a_path_that_is_not_there(self):
        for dialect in self.each():
            run = self.begin(dialect)
            run.send(message(NEWNET, paths="pid:/nonexistent/ns/pid"))
            self.assertFailed(dialect, run, "^failed to open /nonexistent/ns/pid: No such file or directory$")

    def test_a_namespace_of_another_kind(self):
        for dialect in self.each():
            run = self.begin(dialect)
            run.send(message(NEWUTS, paths=f"net:/proc/{os.getpid()}/ns/pid"))
            self.assertFailed(dialect, run, "^failed to setns into net namespace: Invalid argument")

    def test_a_kind_that_the_line_does_not_know(self):
        for dialect in self.each():
            run = self.begin(dialect)
            run.send(message(NEWUTS, paths=f"time:/proc/{os.getpid()}/ns/time"))
            self.assertFailed(dialect, run, "time")

    def test_a_map_that_is_refused(self):
        user = fixture.ordinary_user()
        data = message(NEWUSER | NEWNS, uidmap="0 1 1\n", gidmap="0 1 1\n", rootless=True)
        for dialect in self.each():
            run = self.begin(dialect, user=user)
            run.send(data)
            self.assertFailed(dialect, run, "mapping tool not present$")

    def test_a_join_that_is_refused_in_every_pass(self):
        user = fixture.ordinary_user()
        with Container(self, ("net",)) as container:
            # A bind mount of the namespace file: not every user may open the link in /proc.
            path = os.path.join(self.scratch, "net")
            open(path, "w").close()
            parent.mount(container.path("net"), path, None, parent.MS_BIND)
            try:
                for dialect in self.each():
                    run = self.begin(dialect, user=user)
                    run.send(message(paths=f"net:{path}"))
                    self.assertEqual(run.wait_stage0(), 1, run.describe())
                    run.finish()
                    self.assertRegex(self.texts_of(dialect, run)[0], "^failed to setns.* into net namespace")
            finally:
                parent.check(parent.libc.umount2(path.encode(), 2), "umount")

    def test_a_stage_2_that_fails_after_the_pid_line(self):
        """No group 0 inside. The seed has not written its pid line by then."""
        data = message(NEWUSER | NEWPID, uidmap=MAP)
        for dialect in self.each():
            run = self.begin(dialect)
            run.send(data)
            if dialect != "seed":
                run.read_pids(before=b"\0")
            self.assertFailed(dialect, run, "^setgid failed: Invalid argument$", after_pid_line=dialect != "seed")

    def test_a_parent_that_is_gone(self):
        """Stages that wait for a message end with their parent."""
        for dialect in self.each():
            run = self.begin(dialect)
            if dialect != "seed":
                self.ready(run)
            run.close_init()
            self.assertEqual(run.wait_stage0(), 1, run.describe())
            run.finish()
            self.assertRegex(self.texts_of(dialect, run)[0], "^failed to read netlink header")


class LatePidLine(Older):
    def test_nothing_comes_before_stage_2_has_finished(self):
        """At stage 2's first call as an init there is no pid line yet, and stage 0 is alive."""
        run = self.begin("seed")
        seen = []

        def look(stage, _, pid):
            if stage == 2 and not seen and self.name(pid) == "runc:[2:INIT]":
                run._read_init()
                seen.append((pid, run.init_bytes, run.pid in run.statuses))
        Stepper(run, look)
        run.like_seed(message(NEWUTS | NEWCGROUP))
        self.assertHandedOver(run)
        self.assertEqual(seen, [(run.stage2, b"", False)])

    @staticmethod
    def name(pid):
        with open(f"/proc/{pid}/comm") as file:
            return file.read().strip()


class CgroupByte(Older):
    def waiting(self, data=message(SIX_FLAGS)):
        """Stage 2 of 1.0 waits for the launcher's byte, and stage 0 for stage 2."""
        run = self.begin("v1_0")
        run.send(data)
        run.read_pids(before=b"\0")
        self.assertEqual(run.wait(run.stage1), 0)
        return run

    def reads_init_pipe(self, run):
        with open(f"/proc/{run.stage2}/syscall") as file:
            return file.read().split()[:2] in (["0", "0x3"], ["63", "0x3"])

    def test_stage_2_waits_for_the_byte(self):
        run = self.waiting()
        parent.wait_until(lambda: self.reads_init_pipe(run), parent.LIMIT, "stage 2 reads the init pipe")
        self.assertNotIn(run.pid, run.statuses)
        ours, theirs = (parent.namespaces_of(pid)["cgroup"] for pid in (os.getpid(), run.stage2))
        self.assertEqual(ours, theirs)
        run.send(CGROUP_BYTE)
        self.assertEqual(run.wait_stage0(), 0, run.describe())
        self.assertHandedOver(run)

    def test_no_byte_without_a_cgroup_namespace(self):
        run = self.begin("v1_0")
        run.like_init(message(NEWUTS | NEWNS), before=b"\0")
        self.assertHandedOver(run)
        self.assertNotIn("unshare cgroup namespace", run.texts("2"))

    def test_another_byte(self):
        run = self.waiting()
        run.send(b"\x81")
        self.assertFailed("v1_0", run, "^received unknown synchronisation value: 129$", after_pid_line=True)

    def test_the_parent_is_gone_instead(self):
        run = self.waiting()
        run.close_init()
        self.assertEqual(run.wait_stage0(), 1, run.describe())
        run.finish()
        # Stage 2 reads EOF, and stage 0 gets the hang-up: either may be first.
        self.assertRegex(run.fatal()[0].text, "^(read synchronisation value failed|the launcher is gone)")

    def test_1_1_needs_no_byte(self):
        run = self.begin("v1_1")
        run.like_init(message(SIX_FLAGS), before=b"\0")
        self.assertHandedOver(run)
        self.assertIn("unshare cgroup namespace", run.texts("2"))

    def test_a_refused_cgroup_namespace(self):
        """A filter like that of an outer container makes stage 2 fail after the pid line."""
        for dialect in ("v1_0", "v1_1"):
            with self.subTest(dialect=dialect):
                run = self.begin(dialect, prepare=without_cgroup_namespaces)
                run.send(message(SIX_FLAGS))
                run.read_pids(before=b"\0")
                if dialect == "v1_0":
                    run.send(CGROUP_BYTE)
                words = "^failed to unshare cgroup namespace: No space left on device$"
                self.assertFailed(dialect, run, words, after_pid_line=True)


def without_cgroup_namespaces():
    """For `prepare`: from now on unshare(CLONE_NEWCGROUP) fails with ENOSPC, and no other unshare does."""
    unshare = 97 if platform.machine() == "aarch64" else 272
    code = [(0x20, 0, 0, 0), (0x15, 0, 3, unshare), (0x20, 0, 0, 16), (0x15, 0, 1, NEWCGROUP),
            (0x06, 0, 0, 0x50000 | errno.ENOSPC), (0x06, 0, 0, 0x7fff0000)]
    buffer = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in code))
    fprog = struct.pack("HxxxxxxP", len(code), ctypes.addressof(buffer))
    # Root does not need PR_SET_NO_NEW_PRIVS.
    parent.check(parent.libc.prctl(22, 2, fprog, 0, 0), "PR_SET_SECCOMP")


class MountSources(Older):
    DATA = NEWUSER | NEWNS | NEWPID | NEWCGROUP

    def sources(self, entries):
        return message(self.DATA, uidmap=MAP, gidmap=MAP, setgroup=True,
                       timens=b"".join(entry.encode() + b"\0" for entry in entries))

    def private(self, name):
        """A file in a directory that only root may enter."""
        folder = os.path.join(self.scratch, "private")
        os.makedirs(folder, mode=0o700, exist_ok=True)
        path = os.path.join(folder, name)
        with open(path, "w") as file:
            file.write(name)
        return path

    def open_run(self, numbers, **how):
        return self.begin("v1_1", environment={MOUNT_FDS: numbers}, **how)

    def test_each_source_is_at_its_number(self):
        """Also sources that the container's root cannot reach. They are O_PATH descriptors in the container's
        mount namespace, close-on-exec, and no other descriptor of ours is open."""
        one, two = self.private("one"), self.private("two")
        self.assertFalse(self.may_reach(FIRST, one))
        run = self.open_run("[-1,20,-1,77]", kept=(20, 77))
        tracer = DescriptorTracer(run)
        run.like_init(self.sources(["", one, "", two]), before=b"\0")
        self.assertHandedOver(run)
        init = tracer.named("runc:[2:INIT]")
        self.assertEqual(init.descriptors[20], one)
        self.assertEqual(init.descriptors[77], two)
        self.assertEqual(set(init.descriptors), {0, 1, 2, 3, 4, 20, 77})
        for number in (20, 77):
            flags, mount = tracer.seen[init.pid][number]
            self.assertEqual(flags & (os.O_PATH | os.O_CLOEXEC | os.O_ACCMODE), os.O_PATH | os.O_CLOEXEC)
            self.assertIn(mount, tracer.mounts[init.pid], "a mount of the container's namespace")

    def may_reach(self, uid, path):
        pid = os.fork()
        if pid == 0:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            os._exit(0 if os.path.exists(path) else 1)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

    def test_no_stage_is_dumpable_after_a_join(self):
        source = self.private("one")
        with Container(self, ("net",)) as container:
            data = message(NEWUSER | NEWNS, paths=container.paths(), uidmap=MAP, gidmap=MAP,
                           timens=source.encode() + b"\0")
            run = self.open_run("[20]", kept=(20,))
            tracer = Tracer(run)
            run.like_init(data, before=b"\0")
            self.assertHandedOver(run)
            self.assertEqual(tracer.named("runc:[2:INIT]").descriptors[20], source)

    def test_stage_0_returns_to_its_mount_namespace(self):
        """At its exit stage 0 is in its own mount namespace, with only its initial descriptors open."""
        run = self.open_run("[20]", kept=(20,))
        tracer = Tracer(run)
        run.like_init(self.sources([self.private("one")]), before=b"\0")
        self.assertHandedOver(run)
        stage_0 = tracer.named("runc:[0:PARENT]")
        self.assertEqual(stage_0.namespaces["mnt"], parent.namespaces_of(os.getpid())["mnt"])
        self.assertNotIn("mnt:", " ".join(stage_0.descriptors.values()))

    def test_a_fifo_and_a_device_are_not_opened(self):
        fifo = os.path.join(self.scratch, "fifo")
        os.mkfifo(fifo)
        run = self.open_run("[20,21]", kept=(20, 21))
        tracer = Tracer(run)
        run.like_init(self.sources([fifo, "/dev/null"]), before=b"\0")
        self.assertHandedOver(run)
        found = tracer.named("runc:[2:INIT]").descriptors
        self.assertEqual((found[20], found[21]), (fifo, "/dev/null"))

    def test_many_sources(self):
        """More than a socket holds at once."""
        paths = [self.private(f"n{number}") for number in range(300)]
        numbers = list(range(100, 400))
        run = self.open_run("[" + ",".join(map(str, numbers)) + "]", kept=numbers)
        tracer = Tracer(run)
        run.like_init(self.sources(paths), before=b"\0")
        self.assertHandedOver(run)
        found = tracer.named("runc:[2:INIT]").descriptors
        self.assertEqual([found[number] for number in numbers], paths)

    def refused(self, numbers, entries, *words, kept=(20, 21)):
        environment = {} if numbers is None else {MOUNT_FDS: numbers}
        run = self.begin("v1_1", environment=environment, kept=kept)
        run.send(self.sources(entries))
        self.assertFailed("v1_1", run, *words)

    def test_a_source_that_is_not_there(self):
        there = self.private("one")
        self.refused("[20,21]", [there, "/nonexistent"],
                     "^failed to open mount source /nonexistent: No such file or directory$")

    def test_a_source_that_is_too_long(self):
        self.refused("[20]", ["/" + "a/" * 2100], "^failed to open mount source /a/.*: File name too long$")

    def test_the_variable_is_missing(self):
        """runc's C dereferences a null pointer here."""
        self.refused(None, ["/dev"], f"^the message has mount sources, and {MOUNT_FDS} is not set$")

    def test_the_variable_is_malformed(self):
        head = f"^malformed {MOUNT_FDS} env var: "
        for value, words in (("20]", "missing '\\['"), ("[20", "missing ]"), ("[x]", "not a number"), ("", "missing '\\['"),
                             ("[-2]", "fds out of range"), ("[2147483648]", "fds out of range")):
            with self.subTest(value=value):
                self.refused(value, ["/dev"], head + words + "$")

    def test_counts_of_sources_and_numbers_differ(self):
        """Nothing is sent: runc's C confuses an acknowledgement with a descriptor here."""
        for numbers, entries, words in (
                ("[20]", ["/dev", "/proc"], f"^the message has 2 mounts, and {MOUNT_FDS} has 1$"),
                ("[20,21]", ["/dev", ""], f"^mount 2 has a descriptor in {MOUNT_FDS}, and no source$"),
                ("[20,-1]", ["/dev", "/proc"], f"^mount 2 has a source, and no descriptor in {MOUNT_FDS}$")):
            with self.subTest(numbers=numbers):
                self.refused(numbers, entries, words)

    def test_a_number_that_is_not_kept(self):
        self.refused("[20,99]", ["/dev", "/proc"], f"^{MOUNT_FDS} names 99, which is not an open descriptor$")

    def test_a_number_that_is_in_use(self):
        for number in (3, 4):
            self.refused(f"[{number}]", ["/dev"], f"^{MOUNT_FDS} names {number}, which is the init pipe or the log pipe$")

    def test_a_number_twice(self):
        """runc's C gives both mounts the second source."""
        for numbers in ("[20,20]", "[20,21,20]", "[21,20,21]"):
            with self.subTest(numbers=numbers):
                first = numbers[1:3]
                self.refused(numbers, ["/dev", "/proc", "/sys"][:numbers.count(",") + 1],
                             f"^{MOUNT_FDS} names {first} twice$")

    def test_descending_numbers(self):
        one, other = self.private("one"), self.private("other")
        run = self.open_run("[21,20]", kept=(20, 21))
        tracer = Tracer(run)
        run.like_init(self.sources([one, other]), before=b"\0")
        self.assertHandedOver(run)
        found = tracer.named("runc:[2:INIT]").descriptors
        self.assertEqual((found[21], found[20]), (one, other))

    def test_without_sources_the_variable_does_not_matter(self):
        run = self.open_run("junk")
        run.like_init(message(NEWUTS), before=b"\0")
        self.assertHandedOver(run)

    def test_ordinary_user_cannot_pass_mount_sources(self):
        """No runtime requests this: it needs CAP_SYS_ADMIN in the caller's namespaces."""
        user = fixture.ordinary_user()
        run = self.open_run("[20]", kept=(20,), user=user)
        run.send(message(NEWUSER | NEWNS, uidmap=f"0 {user.uid} 1\n", gidmap=f"0 {user.gid} 1\n", rootless=True,
                         timens=b"/dev\0"))
        self.assertFailed("v1_1", run, "^failed to setns to container mntns: Operation not permitted$")


class DescriptorTracer(Tracer):
    """Also records the flags of the descriptors, and the mounts of the namespace."""

    def __init__(self, run):
        self.seen, self.mounts = {}, {}
        super().__init__(run)

    def _stopped(self, pid, number, event):
        if event == 6:  # PTRACE_EVENT_EXIT
            self.seen[pid] = {int(name): self.info(pid, name) for name in os.listdir(f"/proc/{pid}/fdinfo")}
            with open(f"/proc/{pid}/mountinfo") as file:
                self.mounts[pid] = {int(line.split()[0]) for line in file}
        super()._stopped(pid, number, event)

    @staticmethod
    def info(pid, name):
        with open(f"/proc/{pid}/fdinfo/{name}") as file:
            fields = dict(line.rstrip("\n").split(":", 1) for line in file if ":" in line)
        return int(fields["flags"], 8), int(fields["mnt_id"])


class RuncsOwnExpectations(Older):
    """The expectations of runc's nsenter_test.go, in every line with a log pipe."""

    LINES = ("v1_0", "v1_1")

    def test_valid_paths(self):
        for dialect in self.LINES:
            with self.subTest(dialect=dialect):
                run = self.start_as(dialect, log_fd=None, log_level=None)
                run.send(message(NEWNET, paths=f"pid:/proc/{os.getpid()}/ns/pid"))
                self.assertEqual(run.wait_stage0(), 0, run.describe())
                run.read_pids(before=b"\0")
                self.assertTrue(run.stage1 and run.stage2)
                run.finish()
                self.assertEqual((run.out, run.err), (b"", b""))

    def test_invalid_paths(self):
        for dialect in self.LINES:
            for paths in ("pid:/nonexistent/ns/pid", f"net:/proc/{os.getpid()}/ns/pid"):
                with self.subTest(dialect=dialect, paths=paths):
                    run = self.start_as(dialect, log_fd=None, log_level=None)
                    run.send(message(NEWUTS, paths=paths))
                    self.assertNotEqual(run.wait_stage0(), 0)
                    run.finish()
                    self.assertEqual(run.init_bytes, b"\0")

    def test_child_logging(self):
        for dialect in self.LINES:
            with self.subTest(dialect=dialect):
                run = self.start_as(dialect)
                run.send(message(NEWNET | FLAG["ipc"]))
                self.assertEqual(run.wait_stage0(), 0, run.describe())
                run.read_pids(before=b"\0")
                run.finish()
                self.assertTrue(run.log_eof)
                self.assertTrue(run.records, "each is exactly level and msg")


if __name__ == "__main__":
    unittest.main()
