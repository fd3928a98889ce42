"""An independent parent: it implements runc's side of the bootstrap protocol without any code of this crate.

Runs as root in the namespaces of the caller, in the place of runc: it starts stage 0 (`nsexec init`, or the
real `runc init`), perhaps as an ordinary user. It sends one bootstrap message through the init pipe, reads
one line with two pids, and reaps all three stages, which are its own children (CLONE_PARENT). It is a child
subreaper, so that it sees every process that a stage leaves behind. It joins no namespace.

Every wait in this file has a limit, and fails with the current state when the limit is over.
"""

import ctypes
import errno
import fcntl
import json
import os
import re
import select
import signal
import socket
import struct
import sys
import time
import traceback

# The limit of every wait for something that happens soon, in seconds. It is much longer than the wait takes,
# since the machine may be busy: a test checks that something happens, never how fast. A process that must not
# end meanwhile lives longer.
LIMIT = 60.0

# ---------------------------------------------------------------------------------------------------------
# The message

NEWTIME, NEWNS, NEWCGROUP, NEWUTS = 0x80, 0x20000, 0x2000000, 0x4000000
NEWIPC, NEWUSER, NEWPID, NEWNET = 0x8000000, 0x10000000, 0x20000000, 0x40000000
FLAG = {"cgroup": NEWCGROUP, "ipc": NEWIPC, "mnt": NEWNS, "net": NEWNET,
        "pid": NEWPID, "time": NEWTIME, "user": NEWUSER, "uts": NEWUTS}
KINDS = sorted(FLAG)

CLONE_FLAGS, NS_PATHS, UIDMAP, GIDMAP, SETGROUP = 27281, 27282, 27283, 27284, 27285
OOM_SCORE_ADJ, ROOTLESS_EUID, UIDMAPPATH, GIDMAPPATH, TIMENSOFFSET = 27286, 27287, 27288, 27289, 27290


def attribute(kind, value, nla_len=None):
    length = 4 + len(value) if nla_len is None else nla_len
    return struct.pack("=HH", length, kind) + value + b"\0" * (-len(value) % 4)


def u32(kind, value):
    return attribute(kind, struct.pack("=I", value))


def string(kind, value):
    value = value.encode() if isinstance(value, str) else value
    return attribute(kind, value + b"\0")


def frame(payload, nlmsg_len=None, nlmsg_type=62000):
    length = 16 + len(payload) if nlmsg_len is None else nlmsg_len
    return struct.pack("=IHHII", length, nlmsg_type, 1, 1, 0) + payload


def message(flags=0, paths=None, uidmap=None, gidmap=None, setgroup=False, oom=None,
            rootless=False, uidtool=None, gidtool=None, timens=None):
    """Encode one message, with its attributes in the order in which runc's Go code writes them."""
    body = u32(CLONE_FLAGS, flags)
    if paths is not None:
        body += string(NS_PATHS, paths)
    if uidmap is not None:
        if uidtool is not None:
            body += string(UIDMAPPATH, uidtool)
        body += string(UIDMAP, uidmap)
    if gidmap is not None:
        body += string(GIDMAP, gidmap)
        if gidtool is not None:
            body += string(GIDMAPPATH, gidtool)
        if setgroup:
            body += u32(SETGROUP, 1)
    if oom is not None:
        body += string(OOM_SCORE_ADJ, oom)
    body += u32(ROOTLESS_EUID, int(rootless))
    if timens is not None:
        body += string(TIMENSOFFSET, timens)
    return frame(body)


# ---------------------------------------------------------------------------------------------------------
# Log records

RECORD = re.compile(
    rb'\{"level":"(panic|fatal|error|warning|info|debug|trace)", '
    rb'"msg": "nsexec(-[012])?\[([0-9]+)\]: ((?:[^"\\\x00-\x1f\x7f]|\\["\\bnrtf]|\\u00[01][0-9a-f]|\\u007f)+)"\}')


class Record:
    """One line of the log pipe, checked against the exact form in docs/protocol.md#log-records."""

    def __init__(self, line):
        match = RECORD.fullmatch(line)
        if match is None:
            raise AssertionError(f"no log record of runc's form: {line!r}")
        if len(line) + 1 > 4096:
            raise AssertionError(f"a record of {len(line) + 1} bytes is not atomic: {line[:80]!r}…")
        decoded = json.loads(line.decode("utf-8", "surrogateescape"))
        if set(decoded) != {"level", "msg"} or not decoded["level"] or not decoded["msg"]:
            raise AssertionError(f"not exactly level and msg: {line!r}")
        self.level = decoded["level"]
        self.stage = match[2].decode().lstrip("-") if match[2] else "setup"
        self.pid = int(match[3])
        self.text = decoded["msg"].split("]: ", 1)[1]

    def __repr__(self):
        return f"{self.level} {self.stage}[{self.pid}] {self.text!r}"


# ---------------------------------------------------------------------------------------------------------
# Processes

libc = ctypes.CDLL(None, use_errno=True)
PR_SET_CHILD_SUBREAPER = 36


def become_subreaper():
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "PR_SET_CHILD_SUBREAPER")


def check(result, what):
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def unshare(flags):
    check(libc.unshare(flags), f"unshare({flags:#x})")


def mount(source, target, fstype=None, flags=0):
    encode = lambda text: text if text is None or isinstance(text, bytes) else text.encode()
    check(libc.mount(encode(source), encode(target), encode(fstype), ctypes.c_ulong(flags), None),
          f"mount on {target}")


MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18


def status_of(pid):
    """Return /proc/PID/status as a dictionary."""
    with open(f"/proc/{pid}/status", "rb") as file:
        return parse_status(file.read())


def parse_status(text):
    lines = text.decode("utf-8", "replace").splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def mask(signals):
    return sum(1 << (number - 1) for number in signals)


def ignored_mask(signals):
    """The mask of ignored signals. The C library reserves 32 and 33, so no program can set them, and the
    tests may have inherited them as ignored."""
    return mask(signals) | int(status_of("self")["SigIgn"], 16) & mask((32, 33))


def namespaces_of(pid):
    found = {}
    for kind in KINDS:
        info = os.stat(f"/proc/{pid}/ns/{kind}")
        found[kind] = (info.st_dev, info.st_ino)
    return found


def session_of(pid):
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rsplit(")", 1)[1].split()[3])


def descriptors_of(pid):
    found = {}
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/{pid}/fd/{name}")
        except FileNotFoundError:
            pass
    return found


OUTSIDERS = set()  # children outside any bootstrap: the makers of containers


def own_children():
    """The pids of our children, dead ones included."""
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return [pid for pid in map(int, file.read().split()) if pid not in OUTSIDERS]


def is_alive(pid):
    try:
        return status_of(pid)["State"][0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(condition, seconds, what):
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise TimeoutError(f"not within {seconds} s: {what}")
        time.sleep(0.002)


class User:
    def __init__(self, uid, gid, groups=()):
        self.uid, self.gid, self.groups = uid, gid, list(groups)


def place_descriptors(wanted):
    """dup2 every descriptor to its number, without close-on-exec, and close all others."""
    floor = max(wanted) + 1
    lifted = {number: fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, floor) for number, fd in wanted.items()}
    for number, fd in lifted.items():
        os.dup2(fd, number, inheritable=True)
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in wanted:
            try:
                os.close(int(name))
            except OSError:
                pass


def start(argv, environment, descriptors, *, user=None, ignored=(), blocked=(), umask=None, cwd=None,
          prepare=None):
    """Fork and exec as Go's os/exec does. `descriptors` maps numbers to our descriptors; all other numbers
    are closed."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    try:
        place_descriptors(descriptors)
        for number in range(1, signal.NSIG):
            if number not in (signal.SIGKILL, signal.SIGSTOP) and number not in (32, 33):
                signal.signal(number, signal.SIG_IGN if number in ignored else signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        if umask is not None:
            os.umask(umask)
        if cwd is not None:
            os.chdir(cwd)
        if prepare is not None:
            prepare()
        if user is not None:
            os.setgroups(user.groups)
            os.setresgid(user.gid, user.gid, user.gid)
            os.setresuid(user.uid, user.uid, user.uid)
        os.execve(argv[0], argv, environment)
    except BaseException:
        os.write(2, b"the test's own child: " + traceback.format_exc().encode())
    finally:
        os._exit(99)


# ---------------------------------------------------------------------------------------------------------
# One run


class Bootstrap:
    """One stage 0 and what its parent sees of it: init pipe, log pipe, stdout, stderr, exit statuses."""

    def __init__(self, argv, *, init_fd=3, log_fd=4, log_level="5", environment=None, extra=None,
                 stdin=None, init_type=socket.SOCK_STREAM, init_nonblocking=False, log_size=None,
                 log_filled=False, log_reader=True, kept=(), **how):
        """`extra`: number → descriptor; `log_fd=None`: no log pipe; `init_fd=None`: no init pipe; `kept`:
        numbers that copies of the init pipe reserve for mount sources, as the Go code of 1.1 does;
        `environment`: replaces single variables (the value None removes one)."""
        self.init, self.log_read, self.tracer = None, None, None
        self.init_bytes, self.log_bytes, self.out, self.err = b"", b"", b"", b""
        self.statuses, self.pidfds = {}, {}
        self.init_reset = False
        self.readers = {}
        wanted, variables = {}, {}
        closing = []

        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        closing.append(null)
        out_read, out_write = os.pipe()
        err_read, err_write = os.pipe()
        closing += [out_write, err_write]
        wanted.update({0: null if stdin is None else stdin, 1: out_write, 2: err_write})
        self._watch(out_read, "out")
        self._watch(err_read, "err")

        if init_fd is not None:
            self.init, theirs = socket.socketpair(socket.AF_UNIX, init_type)
            self.init.setblocking(False)
            if init_nonblocking:
                theirs.setblocking(False)
            wanted.update({number: theirs.fileno() for number in (init_fd, *kept)})
            variables["_LIBCONTAINER_INITPIPE"] = str(init_fd)
            self.readers[self.init.fileno()] = self._read_init
        if log_fd is not None:
            self.log_read, log_write = os.pipe()
            closing.append(log_write)
            if log_size is not None:
                fcntl.fcntl(log_write, 1031, log_size)  # F_SETPIPE_SZ
            if log_filled:
                os.set_blocking(log_write, False)
                try:
                    while True:
                        os.write(log_write, b"\n")
                except BlockingIOError:
                    os.set_blocking(log_write, True)
            wanted[log_fd] = log_write
            variables["_LIBCONTAINER_LOGPIPE"] = str(log_fd)
            if log_reader is True:
                self._watch(self.log_read, "log_bytes")
            elif log_reader is None:  # the pipe has no reader, now or later
                os.close(self.log_read)
                self.log_read = None
        if log_level is not None:
            variables["_LIBCONTAINER_LOGLEVEL"] = str(log_level)
        for name, value in (environment or {}).items():
            if value is None:
                variables.pop(name, None)
            else:
                variables[name] = value
        wanted.update(extra or {})

        self.pid = start(argv, variables, wanted, **how)
        for fd in closing:
            os.close(fd)
        if init_fd is not None:
            theirs.close()
        self.watch_process(self.pid)

    # --- the loop

    def _watch(self, fd, name):
        os.set_blocking(fd, False)

        def read():
            try:
                data = os.read(fd, 65536)
            except BlockingIOError:
                return
            if data:
                setattr(self, name, getattr(self, name) + data)
            else:
                del self.readers[fd]
                os.close(fd)
                if fd == self.log_read:
                    self.log_read = None
        self.readers[fd] = read

    def _read_init(self):
        try:
            data = self.init.recv(65536)
        except BlockingIOError:
            return
        except ConnectionResetError:  # the other end was closed with unread bytes
            self.init_reset = True
            data = b""
        if data:
            self.init_bytes += data
        else:
            del self.readers[self.init.fileno()]

    def watch_process(self, pid):
        if pid not in self.pidfds and pid not in self.statuses:
            self.pidfds[pid] = os.pidfd_open(pid)

    @property
    def init_eof(self):
        return self.init is None or self.init.fileno() not in self.readers

    @property
    def log_eof(self):
        return self.log_read is None

    def until(self, condition, what, seconds=LIMIT):
        end = time.monotonic() + seconds
        while not condition():
            left = end - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"not within {seconds} s: {what}\n{self.describe()}")
            if self.tracer is not None:
                self.tracer.step()
                left = 0
            self._turn(min(left, 0.02))  # some conditions are not a readable descriptor
        return self

    def _turn(self, seconds):
        poll = select.poll()
        for fd in self.readers:
            poll.register(fd, select.POLLIN)
        back = {fd: pid for pid, fd in self.pidfds.items()}
        for fd in back:
            poll.register(fd, select.POLLIN)
        if seconds == 0:  # stops of traced processes do not wake poll
            time.sleep(0.00005)
        for fd, _ in poll.poll(seconds * 1000):
            if fd in self.readers:
                self.readers[fd]()
            elif fd in back:
                self.reap(back[fd])

    def reap(self, pid):
        if self.tracer is not None and pid in self.tracer.traced:
            return  # the tracer handles its stops and its end
        try:
            done, status = os.waitpid(pid, os.WNOHANG | 0x40000000)  # __WALL, for a traced process
        except ChildProcessError:
            done, status = pid, None
        if done == 0 or (status is not None and os.WIFSTOPPED(status)):
            return
        self.statuses[pid] = None if status is None else os.waitstatus_to_exitcode(status)
        fd = self.pidfds.pop(pid, None)
        if fd is not None:
            os.close(fd)

    def describe(self):
        alive = [(pid, status_of(pid).get("Name"), status_of(pid).get("State"))
                 for pid in own_children() if os.path.exists(f"/proc/{pid}/status")]
        return (f"  statuses {self.statuses}; children {alive}; init {self.init_bytes!r} eof={self.init_eof};"
                f" log eof={self.log_eof}\n  stdout {self.out!r}\n  stderr {self.err.decode(errors='replace')}\n"
                f"  log:\n    " + self.log_bytes.decode(errors="replace").replace("\n", "\n    "))

    # --- what the parent does

    def send(self, data, seconds=LIMIT):
        end = time.monotonic() + seconds
        data = memoryview(data)
        while data:
            try:
                data = data[self.init.send(data, socket.MSG_NOSIGNAL):]
            except BlockingIOError:
                if time.monotonic() > end:
                    raise TimeoutError("the init pipe takes no more bytes\n" + self.describe())
                self._turn(0.005)
        return self

    def reads_init(self):
        """Whether stage 0 sleeps in a system call on its init pipe, which is descriptor 3 by default."""
        try:
            with open(f"/proc/{self.pid}/syscall") as file:
                return file.read().split()[1:2] == ["0x3"]
        except (FileNotFoundError, ProcessLookupError):
            return False

    def try_send(self, data):
        """Send to a stage 0 that may be dead already: runc's Go code gets EPIPE there too."""
        try:
            self.send(data)
        except (BrokenPipeError, ConnectionResetError):
            pass
        return self

    def shut_down(self):
        """Send no more bytes. runc never does this; it simulates EOF while the socket stays open."""
        try:
            self.init.shutdown(socket.SHUT_WR)
        except OSError as error:
            if error.errno != errno.ENOTCONN:
                raise
        return self

    def close_init(self):
        """Close our end: to the stages the parent is dead."""
        self.readers.pop(self.init.fileno(), None)
        self.init.close()
        return self

    def wait_stage0(self, seconds=LIMIT):
        self.until(lambda: self.pid in self.statuses, "stage 0 exits", seconds)
        return self.statuses[self.pid]

    # True for a program that writes to the init pipe after the bootstrap, as the Go code of runc 1.1 does.
    more_may_follow = False

    PID_LINE = re.compile(rb'\{"stage1_pid":([1-9][0-9]*),"stage2_pid":([1-9][0-9]*)\}\n')

    LATE_PID_LINE = re.compile(rb'\{"pid": ([1-9][0-9]*), "pid_first": ([1-9][0-9]*)\}\n')

    def read_late_pids(self, seconds=LIMIT):
        """The pid line of the seed, which names stage 2 first."""
        self.until(lambda: b"\n" in self.init_bytes or self.init_eof, "the pid line or EOF", seconds)
        match = self.LATE_PID_LINE.fullmatch(self.init_bytes)
        if match is None:
            raise AssertionError(f"no pid line: {self.init_bytes!r}\n{self.describe()}")
        self.stage2, self.stage1 = int(match[1]), int(match[2])
        self.watch_process(self.stage1)
        self.watch_process(self.stage2)
        return self.stage1, self.stage2

    def read_pids(self, seconds=LIMIT, before=b""):
        """The pid line, by its exact bytes, or EOF."""
        self.until(lambda: b"\n" in self.init_bytes or self.init_eof, "the pid line or EOF", seconds)
        line = self.init_bytes[len(before):] if self.init_bytes.startswith(before) else self.init_bytes
        if self.more_may_follow:
            line = line[:line.find(b"\n") + 1]
        match = self.PID_LINE.fullmatch(line)
        if match is None:
            raise AssertionError(f"no pid line: {line!r}\n{self.describe()}")
        self.stage1, self.stage2 = int(match[1]), int(match[2])
        self.watch_process(self.stage1)
        self.watch_process(self.stage2)
        return self.stage1, self.stage2

    def wait(self, pid, seconds=LIMIT):
        self.until(lambda: pid in self.statuses, f"process {pid} exits", seconds)
        return self.statuses[pid]

    def like_init(self, data, before=b""):
        """runc run: message, pid line, reap stage 1, check stage 2's stdio, reap stage 0."""
        self.send(data)
        self.read_pids(before=before)
        self.wait(self.stage1)
        for number in (0, 1, 2):
            try:  # EPERM and EACCES are tolerated, as Go does
                os.readlink(f"/proc/{self.stage2}/fd/{number}")
            except PermissionError:
                pass
            except FileNotFoundError:  # a stage 2 without a command ends at once; with runc it waits
                self.wait(self.stage2)
        if self.wait_stage0() != 0:
            raise AssertionError(f"error waiting for our first child to exit: {self.describe()}")
        return self

    def like_seed(self, data):
        """The seed's runc, run or exec: message, reap stage 0, then the pid line, reap stage 1."""
        self.send(data)
        if self.wait_stage0() != 0:
            raise AssertionError(f"stage 0 failed: {self.describe()}")
        self.read_late_pids()
        self.wait(self.stage1)
        return self

    def like_exec(self, data, before=b""):
        """runc exec: message, reap stage 0, then the pid line, reap stage 1."""
        self.send(data)
        if self.wait_stage0() != 0:
            raise AssertionError(f"stage 0 failed: {self.describe()}")
        self.read_pids(before=before)
        self.wait(self.stage1)
        return self

    def finish(self, seconds=LIMIT):
        """Wait until everything has ended by itself: all children dead and reaped, all pipes at EOF."""
        self.until(lambda: not self.pidfds, "the known processes exit", seconds)
        self.reap_strays(seconds)
        self.until(lambda: not [fd for fd in self.readers if self.init is None or fd != self.init.fileno()],
                   "stdout, stderr and log pipe at EOF", seconds)
        if self.init is not None and self.init.fileno() >= 0:
            self.until(lambda: self.init_eof, "the init pipe at EOF", seconds)
        return self

    def finish_without_log(self, seconds=LIMIT):
        """Like `finish`, without a reader of the log."""
        os.close(self.log_read)
        self.log_read = None
        return self.finish(seconds)

    def read_log_from_now_on(self):
        self._watch(self.log_read, "log_bytes")

    def reap_strays(self, seconds=LIMIT):
        """Children whose pid we do not know (a stage 1 before its pid line) must end by themselves."""
        end = time.monotonic() + seconds
        while True:
            for pid in own_children():
                self.reap(pid)
            if not own_children():
                return self
            if time.monotonic() > end:
                raise TimeoutError("processes are left\n" + self.describe())
            if self.tracer is not None:
                self.tracer.step()
            self._turn(0.003 if self.tracer is None else 0)

    @property
    def records(self):
        """All records so far, without the newlines that filled a pipe."""
        lines = self.log_bytes.split(b"\n")
        if lines[-1]:
            raise AssertionError(f"the log does not end with a newline: {lines[-1]!r}")
        return [Record(line) for line in lines if line]

    def texts(self, stage):
        return [record.text for record in self.records if record.stage == stage]

    def fatal(self):
        return [record for record in self.records if record.level == "fatal"]

    def abandon(self):
        """After a failed test: kill our children by pid, and close everything. A tool becomes our child when
        its stage 0 dies."""
        end = time.monotonic() + LIMIT
        while own_children() and time.monotonic() < end:
            for pid in own_children():
                try:
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, os.WNOHANG | 0x40000000)
                except (ProcessLookupError, ChildProcessError):
                    pass
            time.sleep(0.002)
        for fd in list(self.pidfds.values()) + [fd for fd in self.readers
                                                if self.init is None or fd != self.init.fileno()]:
            os.close(fd)
        if self.log_read is not None and self.log_read not in self.readers:
            os.close(self.log_read)
        self.pidfds, self.readers, self.log_read = {}, {}, None
        if self.init is not None:
            self.init.close()
