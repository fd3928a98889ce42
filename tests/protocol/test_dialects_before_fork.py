"""runc's older lines before they read the message (docs/protocol.md#dialects).

The sealed copy of the program (CVE-2019-5736), the ready byte, the environment, and errors without a log
pipe.

Runs as root, as the parent of `nsexec init --dialect …`, like the Go code of that line.
"""

import ctypes
import errno
import fcntl
import hashlib
import os
import platform
import resource
import shutil
import signal
import socket
import struct
import unittest

import fixture
import parent
from parent import NEWNS, NEWUTS, message

CLONING = ("v1_0", "v1_1")
CLONED, STATEDIR = "_LIBCONTAINER_CLONED_BINARY", "_LIBCONTAINER_STATEDIR"
INIT, LOG, LEVEL = "_LIBCONTAINER_INITPIPE", "_LIBCONTAINER_LOGPIPE", "_LIBCONTAINER_LOGLEVEL"
COPY = "/memfd:runc_cloned:/proc/self/exe (deleted)"
GET_SEALS, ADD_SEALS, ALL_SEALS = 1034, 1033, 0xf
ENSURE = "could not ensure we are a cloned binary: "

# --- a kernel without some calls: a seccomp filter returns the errnos

ARM = platform.machine() == "aarch64"
MEMFD_CREATE, EXECVEAT, SENDFILE, OPENAT, SENDTO = (279, 281, 71, 56, 206) if ARM else (319, 322, 40, 257, 44)
# O_DIRECTORY, which is part of O_TMPFILE, differs between the two.
TMPFILE = 0o20000000


def lacking(lacks, then=None):
    """For `prepare`: from now on each of these calls fails. `lacks` maps numbers to errnos; `openat` fails
    only with O_TMPFILE."""
    code = [(0x20, 0, 0, 0)]  # load the number
    for number, error in lacks.items():
        if number == OPENAT:
            code += [(0x15, 0, 4, number), (0x20, 0, 0, 32),  # load the low half of the third argument
                     (0x45, 0, 1, TMPFILE), (0x06, 0, 0, 0x50000 | error), (0x20, 0, 0, 0)]
        else:
            code += [(0x15, 0, 1, number), (0x06, 0, 0, 0x50000 | error)]
    code.append((0x06, 0, 0, 0x7fff0000))
    program = b"".join(struct.pack("=HBBI", *line) for line in code)

    def prepare():
        buffer = ctypes.create_string_buffer(program)
        fprog = struct.pack("HxxxxxxP", len(code), ctypes.addressof(buffer))
        if then is not None:
            then()
        # Root does not need PR_SET_NO_NEW_PRIVS.
        parent.check(parent.libc.prctl(22, 2, fprog, 0, 0), "PR_SET_SECCOMP")
    return prepare


class Dialects(fixture.ProtocolTest):
    def start_as(self, dialect, *command, argv0=None, environment=None, **how):
        argv = [argv0 or fixture.binary(), "init", "--dialect", dialect] + (["--", *command] if command else [])
        level = {LEVEL: "debug"} if dialect == "v1_0" else {}
        return self.start(argv=argv, environment={**level, **(environment or {})}, **how)

    def ready(self, run):
        """Only the ready byte arrives: stage 0 waits for its message."""
        run.until(lambda: run.init_bytes or run.init_eof, "the ready byte")
        self.assertEqual(run.init_bytes, b"\0", run.describe())
        return run

    def exe(self, run):
        return os.readlink(f"/proc/{run.pid}/exe")

    def goes_on(self, run):
        run.like_init(message(NEWUTS), before=b"\0")
        return self.assertHandedOver(run)

    def fails(self, run, *words):
        """No ready byte, one record, status 1."""
        self.assertRefused(run, *words)

    def scratch_file(self, name):
        return os.path.join(self.scratch, name)


class Copy(Dialects):
    def test_stage_0_runs_from_a_sealed_copy(self):
        for dialect in CLONING:
            with self.subTest(dialect=dialect):
                run = self.ready(self.start_as(dialect))
                self.assertEqual(self.exe(run), COPY)
                with open(f"/proc/{run.pid}/exe", "rb") as exe, open(fixture.binary(), "rb") as binary:
                    self.assertEqual(fcntl.fcntl(exe, GET_SEALS), ALL_SEALS)
                    self.assertEqual(hashlib.sha256(exe.read()).digest(), hashlib.sha256(binary.read()).digest())
                self.goes_on(run)

    def test_limit_of_file_size_is_an_error(self):
        """SIGXFSZ would end stage 0 without an error. A limit that is high enough, and a blocked signal,
        change nothing."""
        def limited(bytes):
            return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (bytes, bytes))
        for dialect in CLONING:
            with self.subTest(dialect=dialect):
                run = self.start_as(dialect, prepare=limited(4096))
                self.fails(run, "^could not ensure we are a cloned binary: File too large \\(copying\\)$")
                run = self.ready(self.start_as(dialect, prepare=limited(1 << 30), blocked={signal.SIGUSR1}))
                self.assertEqual(int(parent.status_of(run.pid)["SigBlk"], 16) & ~(1 << signal.SIGPIPE - 1),
                                 1 << signal.SIGUSR1 - 1)
                self.goes_on(run)

    def test_ordinary_user_runs_from_a_copy(self):
        user = fixture.ordinary_user()
        for dialect in CLONING:
            with self.subTest(dialect=dialect):
                run = self.ready(self.start_as(dialect, user=user))
                self.assertEqual(self.exe(run), COPY)
                run.like_init(message(parent.NEWUSER | NEWUTS, uidmap=f"0 {user.uid} 1\n",
                                      gidmap=f"0 {user.gid} 1\n", rootless=True), before=b"\0")
                self.assertHandedOver(run)

    def test_copy_cannot_be_written(self):
        run = self.ready(self.start_as("v1_1"))
        path = f"/proc/{run.pid}/exe"
        with self.assertRaises(OSError) as caught:
            os.open(path, os.O_RDWR)
        self.assertIn(caught.exception.errno, (errno.ETXTBSY, errno.EPERM))
        held = os.open(path, os.O_RDONLY)  # as a process of the container could
        try:
            self.goes_on(run)
            # The copy no longer runs, but its seals stay.
            try:
                again = os.open(f"/proc/self/fd/{held}", os.O_RDWR)
            except PermissionError:
                return
            try:
                with self.assertRaises(PermissionError):
                    os.write(again, b"#!/bin/evil\n")
                with self.assertRaises(PermissionError):
                    os.ftruncate(again, 0)
                with self.assertRaises(PermissionError):
                    fcntl.fcntl(again, ADD_SEALS, 0x10)
            finally:
                os.close(again)
        finally:
            os.close(held)

    def test_arguments_and_environment_are_those_of_the_launcher(self):
        run = self.ready(self.start_as("v1_1", "/bin/echo", "a b", "", environment={"X": "1=2\n", STATEDIR: self.scratch}))
        with open(f"/proc/{run.pid}/cmdline", "rb") as file:
            self.assertEqual(file.read().split(b"\0")[1:-1],
                             [b"init", b"--dialect", b"v1_1", b"--", b"/bin/echo", b"a b", b""])
        with open(f"/proc/{run.pid}/environ", "rb") as file:
            variables = file.read().split(b"\0")[:-1]
        self.assertEqual(sorted(variables), sorted([
            f"{INIT}=3".encode(), f"{LOG}=4".encode(), f"{LEVEL}=5".encode(), b"X=1=2\n",
            f"{STATEDIR}={self.scratch}".encode(), f"{CLONED}=1".encode()]))
        self.assertEqual(os.listdir(self.scratch), [])
        run.like_init(message(0), before=b"\0")
        self.assertHandedOver(run, out=b"a b \n")

    def test_nothing_of_the_copy_is_left_in_the_init(self):
        """Descriptors, signal mask and dispositions are those from the launcher, although there were two
        execs."""
        for dialect in CLONING:
            with self.subTest(dialect=dialect):
                reader, self.gate = os.pipe()
                ignored = (10, 13)
                run = self.ready(self.start_as(dialect, "/bin/cat", stdin=reader, ignored=ignored, blocked=(12,)))
                os.close(reader)
                run.like_init(message(NEWUTS), before=b"\0")
                os.write(self.gate, b"here\n")
                run.until(lambda: run.out == b"here\n", "the command answers")
                status = parent.status_of(run.stage2)
                self.assertEqual(int(status["SigBlk"], 16), parent.mask((12,)))
                self.assertEqual(int(status["SigIgn"], 16), parent.ignored_mask(ignored))
                self.assertEqual(sorted(parent.descriptors_of(run.stage2)), [0, 1, 2, 3])
                self.release(run)

    def memfd(self, seals, *, mark=None):
        """Start stage 0 from a memfd of ours with these seals. Returns its name in /proc."""
        fd = os.memfd_create("theirs", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            with open(fixture.binary(), "rb") as binary, os.fdopen(os.dup(fd), "wb") as copy:
                shutil.copyfileobj(binary, copy)
            fcntl.fcntl(fd, ADD_SEALS, seals)
            run = self.ready(self.start_as("v1_1", argv0="/proc/self/fd/9", extra={9: fd}, environment={CLONED: mark}))
        finally:
            os.close(fd)
        found = self.exe(run)
        with open(f"/proc/{run.pid}/environ", "rb") as file:
            marked = f"{CLONED}=".encode() in file.read()
        self.goes_on(run)
        return found, marked

    def test_a_sealed_binary_is_not_copied_again(self):
        self.assertEqual(self.memfd(ALL_SEALS), ("/memfd:theirs (deleted)", False))

    def test_other_seals_are_not_enough(self):
        for seals in (0, 0x7, 0xe):
            for mark in (None, "1"):
                with self.subTest(seals=seals, mark=mark):
                    self.assertEqual(self.memfd(seals, mark=mark), (COPY, True))

    def test_mark_alone_is_ignored(self):
        run = self.ready(self.start_as("v1_1", environment={CLONED: "1"}))
        self.assertEqual(self.exe(run), COPY)
        self.goes_on(run)

    def test_a_third_copy_is_never_made(self):
        """A mark set by the launcher counts as a first copy. The mark of a second copy that is not sealed is
        fatal."""
        run = self.ready(self.start_as("v1_1", environment={CLONED: "1"}))
        with open(f"/proc/{run.pid}/environ", "rb") as file:
            self.assertIn(f"{CLONED}=2".encode(), file.read().split(b"\0"))
        self.goes_on(run)
        run = self.start_as("v1_1", environment={CLONED: "2"})
        self.fails(run, f"^{ENSURE}the sealed copy does not pass its own check$")

    def test_a_marked_binary_on_a_read_only_mount_is_not_copied(self):
        target = self.scratch_file("read-only")
        shutil.copy(fixture.binary(), target)

        def prepare():
            parent.unshare(NEWNS)
            parent.mount(None, "/", flags=parent.MS_REC | parent.MS_PRIVATE)
            parent.mount(target, target, flags=parent.MS_BIND)
            parent.mount(None, target, flags=parent.MS_BIND | 32 | 1)  # MS_REMOUNT, MS_RDONLY
        run = self.ready(self.start_as("v1_1", argv0=target, environment={CLONED: ""}, prepare=prepare))
        self.assertEqual(self.exe(run), target)
        self.goes_on(run)

    def test_without_read_access(self):
        target = self.scratch_file("unreadable")
        shutil.copy(fixture.binary(), target)
        os.chmod(target, 0o711)
        run = self.start_as("v1_1", argv0=target, user=fixture.ordinary_user())
        self.assertEqual(run.wait_stage0(), 1, run.describe())
        run.finish()
        self.assertEqual(run.err, b"you have no read access to runc binary file\n")
        self.assertEqual([record.text for record in run.fatal()],
                         [ENSURE + "Permission denied (opening /proc/self/exe)"])
        self.assertEqual((run.init_bytes, run.out), (b"", b""))


class Fallbacks(Dialects):
    """Without memfd: an unnamed file, in the directory that the launcher sets."""

    def state(self):
        path = self.scratch_file("state")
        os.mkdir(path)
        return path

    def no_memfd(self, directory, more=(), then=None):
        run = self.start_as("v1_1", environment={STATEDIR: directory},
                            prepare=lacking({MEMFD_CREATE: errno.ENOSYS, **dict(more)}, then))
        return run

    def unnamed(self, run, directory, name):
        """A copy in this directory without a name, which no process can write."""
        self.assertRegex(self.exe(run), rf"\A{directory}/{name} \(deleted\)\Z")
        info = os.stat(f"/proc/{run.pid}/exe")
        self.assertEqual((info.st_nlink, oct(info.st_mode & 0o7777)), (0, oct(0o500)))
        self.assertEqual(info.st_size, os.stat(fixture.binary()).st_size)
        with self.assertRaises(OSError) as caught:
            os.open(f"/proc/{run.pid}/exe", os.O_RDWR)
        self.assertEqual(caught.exception.errno, errno.ETXTBSY)
        self.goes_on(run)

    def test_an_unnamed_file_of_the_state_directory(self):
        state = self.state()
        run = self.ready(self.no_memfd(state))
        self.unnamed(run, state, "#[0-9]+")
        self.assertEqual(os.listdir(state), [])

    def test_a_directory_that_is_not_absolute_is_not_taken(self):
        for value in ("state", "", None):
            with self.subTest(value=value):
                run = self.ready(self.no_memfd(value))
                self.unnamed(run, "/tmp", "#[0-9]+")

    def test_a_named_file_that_loses_its_name(self):
        state = self.state()
        run = self.ready(self.no_memfd(state, {OPENAT: errno.EISDIR}))
        self.unnamed(run, state, rf"runc\.{run.pid}\.0")
        self.assertEqual(os.listdir(state), [])

    def test_a_kernel_that_lacks_everything(self):
        for refusal in (errno.ENOSYS, errno.EPERM):
            with self.subTest(refusal=refusal):
                lacks = {OPENAT: errno.EOPNOTSUPP, SENDFILE: errno.EINVAL, EXECVEAT: refusal}
                run = self.ready(self.no_memfd(self.scratch, lacks))
                self.unnamed(run, self.scratch, rf"runc\.{run.pid}\.0")
        self.assertEqual(os.listdir(self.scratch), [])

    def test_an_ordinary_users_copy(self):
        """A user that may read the copy is dumpable, and so may write its oom_score_adj."""
        state, user = self.state(), fixture.ordinary_user()
        os.chown(state, user.uid, user.gid)
        run = self.start_as("v1_1", environment={STATEDIR: state}, user=user,
                            prepare=lacking({MEMFD_CREATE: errno.EPERM}))
        self.ready(run)
        self.assertRegex(self.exe(run), rf"\A{state}/#[0-9]+ \(deleted\)\Z")
        run.like_init(message(parent.NEWUSER | NEWUTS, uidmap=f"0 {user.uid} 1\n", gidmap=f"0 {user.gid} 1\n",
                              rootless=True, oom="300"), before=b"\0")
        self.assertHandedOver(run)

    def tmpfs(self, directory, flags=0):
        def then():
            parent.unshare(NEWNS)
            parent.mount(None, "/", flags=parent.MS_REC | parent.MS_PRIVATE)
            parent.mount("nsexec-test", directory, "tmpfs", flags)
        return then

    def test_on_tmpfs_it_is_copied_once(self):
        """tmpfs reports F_SEAL_SEAL for every file, without an error; runc's C copies forever."""
        state = self.state()
        run = self.ready(self.no_memfd(state, then=self.tmpfs(state)))
        self.assertRegex(self.exe(run), r"/#[0-9]+ \(deleted\)\Z")
        with open(f"/proc/{run.pid}/exe", "rb") as exe:
            self.assertEqual(fcntl.fcntl(exe, GET_SEALS), 1)
        self.goes_on(run)

    def test_on_noexec(self):
        state = self.state()
        run = self.no_memfd(state, then=self.tmpfs(state, 8))
        self.fails(run, rf"^{ENSURE}Permission denied \(executing the copy\)$")

    def test_without_a_directory(self):
        run = self.no_memfd(self.scratch_file("nowhere"))
        self.fails(run, rf"^{ENSURE}No such file or directory \(creating a file in .*\)$")


class ReadyByte(Dialects):
    def test_it_comes_before_the_message_and_nothing_else_does(self):
        for dialect in CLONING:
            with self.subTest(dialect=dialect):
                run = self.ready(self.start_as(dialect))
                run.until(lambda: run.records, "the first record")
                self.assertEqual([record.text for record in run.records], ["=> nsexec container setup"])
                self.assertEqual(run.init_bytes, b"\0")
                self.goes_on(run)

    def test_the_message_is_not_read_before_it(self):
        """The message is already in the socket, which has no room for the byte: nothing is read."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        data = message(NEWUTS)
        ours.setblocking(False)
        theirs.setblocking(False)
        filler = 0
        try:
            while True:
                filler += theirs.send(b"." * 65536)
        except BlockingIOError:
            theirs.setblocking(True)
        ours.send(data)
        run = self.start_as("v1_1", init_fd=None, extra={3: theirs.fileno()}, environment={INIT: "3"})

        def blocked():
            with open(f"/proc/{run.pid}/syscall") as file:
                return file.read().split()[:2] == [str(SENDTO), "0x3"]
        parent.wait_until(blocked, parent.LIMIT, "stage 0 sends the ready byte")
        unread = struct.unpack("i", fcntl.ioctl(theirs, 0x541b, b"\0" * 4))[0]  # FIONREAD
        self.assertEqual(unread, len(data))
        self.assertEqual(run.records, [])
        theirs.close()
        run.init = ours
        run.readers[ours.fileno()] = run._read_init
        run.read_pids(before=b"." * filler + b"\0")
        self.assertHandedOver(run)

    def test_both_manners(self):
        for dialect in CLONING:
            for manner in ("init", "exec"):
                with self.subTest(dialect=dialect, manner=manner):
                    run = self.ready(self.start_as(dialect))
                    getattr(run, f"like_{manner}")(message(NEWUTS), before=b"\0")
                    self.assertHandedOver(run)

    def test_the_message_may_be_there_already(self):
        for dialect in CLONING:
            with self.subTest(dialect=dialect):
                run = self.start_as(dialect)
                run.like_init(message(NEWUTS), before=b"\0")
                self.assertHandedOver(run)

    def test_a_launcher_that_is_gone(self):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        ours.close()
        run = self.start_as("v1_1", init_fd=None, extra={3: theirs.fileno()}, environment={INIT: "3"})
        theirs.close()
        self.fails(run, "^could not inform the parent we are past initial setup: Broken pipe$")

    def test_an_init_pipe_that_is_not_open(self):
        for dialect in CLONING:
            with self.subTest(dialect=dialect):
                self.fails(self.start_as(dialect, environment={INIT: "77"}),
                           "^could not inform the parent we are past initial setup: Bad file descriptor "
                           rf"\({INIT} is closed, or open for the other direction only\)$")

    def test_other_lines_send_no_ready_byte(self):
        for dialect in ("seed", "v1_2"):
            with self.subTest(dialect=dialect):
                run = self.start_as(dialect)
                parent.wait_until(lambda: self.waits(run), parent.LIMIT, "stage 0 waits for the message")
                self.assertEqual(self.exe(run), fixture.binary())
                run.shut_down()
                self.assertEqual(run.wait_stage0(), 1, run.describe())
                run.finish()
                self.assertEqual(run.init_bytes, b"")

    def waits(self, run):
        with open(f"/proc/{run.pid}/syscall") as file:
            return file.read().split()[:2] in (["0", "0x3"], ["63", "0x3"])


class Words(Dialects):
    """The forms of the environment, and where errors go."""

    NO_HEADER = b"failed to read netlink header (got 0 of 16 bytes)\n"

    def without_log(self, dialect, **how):
        run = self.start_as(dialect, log_fd=None, **how)
        run.shut_down()
        self.assertEqual(run.wait_stage0(), 1, run.describe())
        return run.finish()

    def test_fatal_without_a_log_pipe(self):
        for dialect, expected in (("seed", b"nsenter: " + self.NO_HEADER), ("v1_0", b""),
                                  ("v1_1", b"FATAL: " + self.NO_HEADER), ("v1_2", b"FATAL: " + self.NO_HEADER)):
            with self.subTest(dialect=dialect):
                run = self.without_log(dialect)
                self.assertEqual((run.err, run.out), (expected, b""))

    def test_the_seed_has_no_log_pipe(self):
        """The seed ignores these variables: it writes nothing, and accepts wrong values."""
        run = self.start_as("seed")
        run.shut_down()
        self.assertEqual(run.wait_stage0(), 1, run.describe())
        run.finish()
        self.assertEqual((run.log_bytes, run.err), (b"", b"nsenter: " + self.NO_HEADER))
        run = self.without_log("seed", environment={LOG: "junk", LEVEL: "junk"})
        self.assertEqual(run.err, b"nsenter: " + self.NO_HEADER)

    def test_log_level_form_of_each_line(self):
        run = self.ready(self.start_as("v1_0", environment={LEVEL: "panic"}))
        self.goes_on(run)
        self.assertIn("<~ nsexec stage-0", run.texts("0"), "only Go reads the word")
        self.assertRefused(self.start_as("v1_1", environment={LEVEL: "info"}), f"^unable to parse {LEVEL}=info$")

    def test_bad_log_pipe_of_1_0_is_reported_on_stderr(self):
        run = self.start_as("v1_0", environment={LOG: "4x"})
        self.assertEqual(run.wait_stage0(), 1, run.describe())
        run.finish()
        self.assertEqual((run.err, run.init_bytes), (f"unable to parse {LOG}, value: 4x\n".encode(), b""))

    def test_minus_one_means_no_init_pipe_up_to_1_0(self):
        """The C symbol returns; the program alone does not become a stage 0."""
        for dialect in ("seed", "v1_0"):
            with self.subTest(dialect=dialect):
                run = self.start_as(dialect, environment={INIT: "-1"})
                self.assertEqual(run.wait_stage0(), 2, run.describe())
                run.finish()
                self.assertEqual((run.init_bytes, run.log_bytes), (b"", b""))
        self.assertRefused(self.start_as("v1_1", environment={INIT: "-1"}), f"^bad value for {INIT}=-1")

    def test_affinity_is_logged_since_1_3_only(self):
        for dialect in CLONING:
            run = self.goes_on(self.ready(self.start_as(dialect)))
            self.assertEqual(run.texts("setup"), ["=> nsexec container setup"])
        run = self.start_as("v1_2")
        run.like_init(message(NEWUTS))
        self.assertHandedOver(run)
        self.assertRegex("\n".join(run.texts("setup")), r"\A=> nsexec container setup\naffinity: 0x[0-9a-f]+\Z")


if __name__ == "__main__":
    unittest.main()
