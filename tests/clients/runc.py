"""One run of one case with a runc: its folder, its bundle, its commands, and what they showed.

Who this is: part of `run`, root, the subreaper of all that runc leaves behind. What a case starts is below a folder, a
cgroup and processes of its own, and gone after it.
"""

import fcntl
import json
import os
import pty
import re
import select
import subprocess
import time
from pathlib import Path

import fixture
import oci
import undo
from observe import Observation, descriptors, read, waits_for_start

FIRST = 100000
TWO_EXTENTS = [(0, FIRST, 1000), (1000, 300000, 500)]
WITH_USER = ("user", *oci.BASIC)

# What a process of a container says about itself.
ASK = r"""
id; hostname; cat /proc/self/uid_map /proc/self/gid_map | tr -s ' '
grep -E '^(Cap|Groups|NoNewPrivs|Seccomp:|Sig(Blk|Ign|Cgt))' /proc/self/status
for number in 0 1 2 3 4 5 6 7 8 9; do readlink /proc/$$/fd/$number; done
true
"""

# When we give up, in seconds. No case asserts a time.
LIMIT = 60.0

# Enough for newuidmap's complaint of ids that are not the caller's, too little for what runc says in the end.
TOOLS_WORDS = 64

# Go's scheduler sends itself SIGURG, and runc says so as often as it happens; what differs between two builds; and
# libseccomp's program, which Go has filled from a map.
NOISE = re.compile(
    r"sending signal to process urgent I/O condition|^cloning /proc/self/exe binary|mount source thread|fd:\d+\)$"
    r"|^  \[ *\d+\] "
)


def wait_for(what, condition):
    """The first true answer of `condition`."""
    until = time.monotonic() + LIMIT
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > until:
            raise AssertionError(f"waited in vain for {what}")
        time.sleep(0.01)


def gone(pid):
    """Whether a process below us has ended; it is reaped if it is our own child."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        pass
    return not os.path.exists(f"/proc/{pid}")


def log_pipes(pid):
    """How many pipes a runc reads from: of its log, and of a container's output. Of Go's own it has both ends."""
    lines = [line.split() for line in descriptors(pid)]
    pipes = [words[1] for words in lines if words[0].isdigit() and int(words[0]) > 2 and words[1].startswith("pipe:")]
    return sum(pipes.count(pipe) == 1 for pipe in pipes)


def expect(condition, *words):
    """What must be so with both binaries."""
    if not condition:
        raise AssertionError(" ".join(map(str, words)))


def title(case):
    """A case's function as words."""
    return case.__name__.strip("_").replace("_", " ")


class Ended:
    """A command that has ended."""

    def __init__(self, status, out, err):
        self.status, self.out, self.err = status, out, err

    def must(self, status=0):
        if self.status != status:
            raise AssertionError(f"status {self.status} and not {status}\n{self.out}{self.err}")
        return self

    def must_fail(self):
        if self.status == 0:
            raise AssertionError(f"it succeeded\n{self.out}{self.err}")
        return self


def at_a_terminal(engine, *words):
    """The command with a terminal of its own."""
    outer, inner = pty.openpty()
    child = engine.popen(*words, stdin=inner, stdout=inner, stderr=inner, start_new_session=True)
    os.close(inner)
    held = b""
    while select.select([outer], [], [], LIMIT)[0]:
        try:
            held += os.read(outer, 4096)
        except OSError:  # EIO: nobody holds the other end any more
            break
    os.close(outer)
    return Ended(child.wait(LIMIT), held.decode(errors="replace").replace("\r\n", "\n"), "")


class Runc:
    """A fresh bundle, and a binary: runc with its own C, or with ours."""

    def __init__(self, stack, binary, line):
        self.stack, self.binary, self.line = stack, binary, line
        self.folder = stack.folder()
        self.id = f"{undo.PREFIX}-{os.getpid()}"
        stack.callback(undo.remove_cgroups, self.id)
        self.state, self.log = self.folder / "state", self.folder / "log"
        self.state.mkdir()
        # A folder for each container, which has its files as `create` wrote them.
        self.root = oci.busybox_root(self.folder)
        self.user = None
        self.held = []
        self.counter = 0
        self.seen = Observation()
        names = self.seen.names
        names.folder(binary.parent, "BINARY")
        names.folder(self.folder, "FOLDER")
        names.folder(self.id, "CONTAINER")
        stack.callback(undo.end_children)

    # -- who runs it ------------------------------------------------------------------------------------------------

    def rootless(self):
        """From now on an ordinary user with subordinate ids calls runc; the folder is his."""
        self.user = fixture.ordinary_user()
        self.give(self.folder, self.state, self.root, *self.root.rglob("*"))
        return self.user

    def give(self, *paths):
        """To the user."""
        for path in paths:
            os.chown(path, self.user.uid, self.user.gid, follow_symlinks=False)

    def one_id(self):
        """An ordinary user who needs no tool: the namespaces and maps."""
        user = self.rootless()
        return {"namespaces": WITH_USER, "uids": [(0, user.uid, 1)], "gids": [(0, user.gid, 1)]}

    def many_ids(self):
        """An ordinary user with newuidmap and newgidmap."""
        user, more = self.rootless(), (1, fixture.FIRST, fixture.COUNT)
        return {"namespaces": WITH_USER, "uids": [(0, user.uid, 1), more], "gids": [(0, user.gid, 1), more]}

    def for_the_container(self):
        """The root directory belongs to the container's root."""
        os.chown(self.root, FIRST, FIRST)

    def _who(self):
        return {} if self.user is None else {"user": self.user.uid, "group": self.user.gid, "extra_groups": []}

    # -- commands ---------------------------------------------------------------------------------------------------

    def argv(self, *words, debug=True):
        """`debug`: to the log file, so that standard error is the container's, and runc's last word."""
        log = ["--debug", "--log", self.log, "--log-format", "json"] if debug else []
        return [str(word) for word in (self.binary, "--root", self.state, *log, *words)]

    def popen(self, *words, debug=True, **how):
        """runc, and a folder `tools` of the case's before the machine's."""
        return self.popen_argv(self.argv(*words, debug=debug), **how)

    def popen_argv(self, argv, **how):
        path = f"{self.folder}/tools:/usr/sbin:/usr/bin:/sbin:/bin"
        environment = {"PATH": path, "XDG_RUNTIME_DIR": str(self.folder)}
        how = {"stdin": subprocess.DEVNULL, "cwd": self.folder, "env": environment, **self._who(), **how}
        return subprocess.Popen(argv, **how)

    def runc(self, *words, debug=True, **how):
        """Into files and not into pipes: a detached container that holds them must not keep us waiting."""
        self.counter += 1
        out, err = (self.folder / f"{end}{self.counter}" for end in ("out", "err"))
        with open(out, "w") as out_file, open(err, "w") as err_file:
            status = self.popen(*words, debug=debug, stdout=out_file, stderr=err_file, **how).wait(LIMIT)
        return Ended(status, read(out), read(err))

    def output(self):
        """What the last command's container has written by now."""
        return read(self.folder / f"out{self.counter}")

    def configure(self, args=("/bin/sleep", "1000"), **wanted):
        """`args`: the container's command; `terminal`: whether it has one; `affinity`: on which CPUs another command is
        executed in it; the rest as oci.spec has it."""
        terminal, affinity = wanted.pop("terminal", False), wanted.pop("affinity", None)
        spec = oci.spec(self.root, list(args), **wanted)
        spec["process"].update({"terminal": terminal}, **({"execCPUAffinity": affinity} if affinity else {}))
        (self.folder / "config.json").write_text(json.dumps(spec))

    def run(self, args, **wanted):
        """A container in the foreground, to its end."""
        self.configure(args, **wanted)
        return self.runc("run", self.id)

    def run_to_failure(self, args, **wanted):
        """As `run`, for one that fails: runc does not wait then for the end of its log, and its own end would cut it
        off. So its last word has to wait, until runc has closed the log pipe: standard error is a pipe that has room
        for the words of a mapping tool, but not for that."""
        self.configure(args, **wanted)
        reader, writer = os.pipe()
        filling = fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096) - TOOLS_WORDS
        os.write(writer, bytes(filling))
        self.counter += 1
        with open(self.folder / f"out{self.counter}", "w") as out:
            child = self.popen("run", self.id, stdout=out, stderr=writer)
        os.close(writer)
        wait_for("the end of the log", lambda: '"level":"error"' in read(self.log) and log_pipes(child.pid) == 0)
        with open(reader, errors="replace") as file:
            err = file.read()[filling:]
        return Ended(child.wait(LIMIT), self.output(), err)

    def start(self, args=("/bin/sleep", "1000"), **wanted):
        """A detached container; the number of its init."""
        self.configure(args, **wanted)
        self.runc("run", "--detach", "--pid-file", self.folder / "pid", self.id).must()
        return self.pid_in("pid")

    def into(self, **wanted):
        """A container to execute in."""
        init = self.start(**wanted)
        self.seen.names.pid(init, "init")
        self.seen.names.space("init", init)
        self.forget_log()

    def pid_in(self, file):
        return int(read(self.folder / file))

    def see_process(self, when, pid, command="sleep"):
        """What /proc says, once the process runs its command; `create` leaves it waiting for that, which is `None`."""
        if command is None:
            wait_for("the init at its fifo", lambda: waits_for_start(pid))
        else:
            wait_for(command, lambda: read(f"/proc/{pid}/comm").strip() == command)
        self.seen.process(when, pid)

    # -- what is seen -----------------------------------------------------------------------------------------------

    def see(self, when, ended):
        """A command's end."""
        self.seen.add(f"{when}: status", [str(ended.status)])
        self.seen.add(f"{when}: stdout", ended.out)
        self.seen.add(f"{when}: stderr", [timeless(line) for line in ended.err.splitlines()])

    def see_log(self, when):
        """The records since the last time, which are taken away."""
        self.seen.log(when, log_lines(read(self.log) if self.log.exists() else ""))
        self.log.unlink(missing_ok=True)

    def forget_log(self):
        self.log.unlink(missing_ok=True)

    def said(self, field):
        """The lines of a field that has been seen."""
        return "\n".join(self.seen.fields[field])

    # -- surroundings -----------------------------------------------------------------------------------------------

    def holder(self, *flags):
        """A process with namespaces of its own; its number."""
        child = subprocess.Popen(
            ["unshare", *flags, "sh", "-c", "echo here; exec sleep 1000"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        )
        self.held.append(child.pid)
        self.stack.callback(child.stdout.close)
        if child.stdout.readline() != b"here\n":
            raise RuntimeError("unshare failed")
        if "--user" in flags:
            for file in ("uid_map", "gid_map"):
                Path(f"/proc/{child.pid}/{file}").write_text("0 100000 65536\n")
        self.seen.names.pid(child.pid, "holder")
        self.seen.names.space("holder", child.pid)
        return child.pid

    def nothing_left(self):
        """Whatever is to end by itself may take its moment."""
        wait_for("the end of all processes", lambda: set(undo.living()) <= set(self.held))

    def finish(self):
        """All processes are ended, the containers deleted, and what is left then is told."""
        # First the inits: `delete --force` waits in vain for one that is dead and that only we can reap.
        undo.end_children()
        for name in sorted(os.listdir(self.state)):
            self.seen.add("delete", [str(self.runc("delete", "--force", name, debug=False).status)])
        self.seen.add("left: processes", undo.end_children())
        self.seen.add("left: state", os.listdir(self.state))
        self.seen.add("left: cgroups", list(map(str, undo.cgroups_named(self.id))))
        mounts = undo.mounts_below(self.folder)
        self.seen.add("left: mounts", mounts)


def timeless(line):
    """A line of runc's in text, or of the container's, without its time and numbers of nsexec's stages."""
    line = re.sub(r'time="[^"]*"', "time=T", line)
    return re.sub(r"(nsexec(?:-\d)?)\[\d+\]", r"\1[N]", line)


def logrus(text):
    """logrus' text form as JSON lines."""
    lines = []
    for found in re.finditer(r'^time="[^"]*" level=(\w+) msg=("(?:[^"\\]|\\.)*"|\S+)', text, re.MULTILINE):
        message = json.loads(found[2]) if found[2].startswith('"') else found[2]
        lines.append(json.dumps({"level": found[1], "msg": message}))
    return "\n".join(lines)


def log_lines(text):
    """runc's log in JSON, for Observation.log: without what is chance."""
    lines = []
    for record in map(json.loads, text.splitlines()):
        if not NOISE.search(record["msg"]):
            # Go walks a map to write the offsets: their order is chance.
            record["msg"] = re.sub(r"'(boottime .*)\n(monotonic .*)\n'", r"'\2\n\1\n'", record["msg"])
            lines.append(json.dumps(record))
    return lines
