"""One run of one case with a runc: its directory, its bundle, its commands, and their results.

Runs as part of `run`, as root, as the subreaper of all processes that runc leaves behind. Each case has its
own directory, cgroup and processes, which are removed after it.
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

# A container's process prints its attributes.
ASK = r"""
id; hostname; cat /proc/self/uid_map /proc/self/gid_map | tr -s ' '
grep -E '^(Cap|Groups|NoNewPrivs|Seccomp:|Sig(Blk|Ign|Cgt))' /proc/self/status
for number in 0 1 2 3 4 5 6 7 8 9; do readlink /proc/$$/fd/$number; done
true
"""

# The limit of each wait, in seconds. No case measures a time.
LIMIT = 60.0

# Enough for newuidmap's error about foreign ids, too little for runc's last message.
TOOLS_WORDS = 64

# Noise: Go's scheduler sends itself SIGURG, and runc logs each one; texts that differ between two builds; and
# libseccomp's program, which Go fills from a map.
NOISE = re.compile(
    r"sending signal to process urgent I/O condition|^cloning /proc/self/exe binary|mount source thread|fd:\d+\)$"
    r"|^  \[ *\d+\] "
)


def wait_for(what, condition):
    """The first true result of `condition`."""
    until = time.monotonic() + LIMIT
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > until:
            raise AssertionError(f"waited in vain for {what}")
        time.sleep(0.01)


def gone(pid):
    """True if a process below us has ended; our own child is reaped."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        pass
    return not os.path.exists(f"/proc/{pid}")


def log_pipes(pid):
    """The number of pipes that a runc reads from: its log, and a container's output. Of Go's own pipe it has
    both ends."""
    lines = [line.split() for line in descriptors(pid)]
    pipes = [words[1] for words in lines if words[0].isdigit() and int(words[0]) > 2 and words[1].startswith("pipe:")]
    return sum(pipes.count(pipe) == 1 for pipe in pipes)


def expect(condition, *words):
    """Checks a condition that must hold with both binaries."""
    if not condition:
        raise AssertionError(" ".join(map(str, words)))


def title(case):
    """The name of a case's function, with blanks."""
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
    """Runs the command at a new terminal."""
    outer, inner = pty.openpty()
    child = engine.popen(*words, stdin=inner, stdout=inner, stderr=inner, start_new_session=True)
    os.close(inner)
    held = b""
    while select.select([outer], [], [], LIMIT)[0]:
        try:
            held += os.read(outer, 4096)
        except OSError:  # EIO: no process holds the other end
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
        # One directory for each container, with the files that `create` wrote.
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

    # -- the user that runs it ------------------------------------------------------------------------------

    def rootless(self):
        """From now on an ordinary user with subordinate ids calls runc, and owns the directory."""
        self.user = fixture.ordinary_user()
        self.give(self.folder, self.state, self.root, *self.root.rglob("*"))
        return self.user

    def give(self, *paths):
        """Makes the user the owner of these paths."""
        for path in paths:
            os.chown(path, self.user.uid, self.user.gid, follow_symlinks=False)

    def one_id(self):
        """An ordinary user that does not need the mapping tools: the namespaces and maps."""
        user = self.rootless()
        return {"namespaces": WITH_USER, "uids": [(0, user.uid, 1)], "gids": [(0, user.gid, 1)]}

    def many_ids(self):
        """An ordinary user with newuidmap and newgidmap: the namespaces and maps."""
        user, more = self.rootless(), (1, fixture.FIRST, fixture.COUNT)
        return {"namespaces": WITH_USER, "uids": [(0, user.uid, 1), more], "gids": [(0, user.gid, 1), more]}

    def for_the_container(self):
        """Makes the container's root the owner of the root directory."""
        os.chown(self.root, FIRST, FIRST)

    def _who(self):
        return {} if self.user is None else {"user": self.user.uid, "group": self.user.gid, "extra_groups": []}

    # -- commands -------------------------------------------------------------------------------------------

    def argv(self, *words, debug=True):
        """`debug`: with a log file, so that standard error has only the container's output and runc's last
        message."""
        log = ["--debug", "--log", self.log, "--log-format", "json"] if debug else []
        return [str(word) for word in (self.binary, "--root", self.state, *log, *words)]

    def popen(self, *words, debug=True, **how):
        """Starts runc; the case's directory `tools` is first in PATH."""
        return self.popen_argv(self.argv(*words, debug=debug), **how)

    def popen_argv(self, argv, **how):
        path = f"{self.folder}/tools:/usr/sbin:/usr/bin:/sbin:/bin"
        environment = {"PATH": path, "XDG_RUNTIME_DIR": str(self.folder)}
        how = {"stdin": subprocess.DEVNULL, "cwd": self.folder, "env": environment, **self._who(), **how}
        return subprocess.Popen(argv, **how)

    def runc(self, *words, debug=True, **how):
        """Runs a command with files as output: a detached container would hold a pipe open, and delay its
        end."""
        self.counter += 1
        out, err = (self.folder / f"{end}{self.counter}" for end in ("out", "err"))
        with open(out, "w") as out_file, open(err, "w") as err_file:
            status = self.popen(*words, debug=debug, stdout=out_file, stderr=err_file, **how).wait(LIMIT)
        return Ended(status, read(out), read(err))

    def output(self):
        """The output of the last command's container so far."""
        return read(self.folder / f"out{self.counter}")

    def configure(self, args=("/bin/sleep", "1000"), **wanted):
        """Writes config.json. `args`: the container's command; `terminal`: whether it has one; `affinity`:
        the CPUs of further commands in the container; the rest as in oci.spec."""
        terminal, affinity = wanted.pop("terminal", False), wanted.pop("affinity", None)
        spec = oci.spec(self.root, list(args), **wanted)
        spec["process"].update({"terminal": terminal}, **({"execCPUAffinity": affinity} if affinity else {}))
        (self.folder / "config.json").write_text(json.dumps(spec))

    def run(self, args, **wanted):
        """Runs a container in the foreground, to its end."""
        self.configure(args, **wanted)
        return self.runc("run", self.id)

    def run_to_failure(self, args, **wanted):
        """Like `run`, for a container that fails. runc then does not wait for the end of its log, and could
        exit before the log is complete. So standard error is a pipe with room for a mapping tool's error, but
        not for runc's last message: runc blocks in that write until its log pipe is closed."""
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
        """Starts a detached container; returns the pid of its init."""
        self.configure(args, **wanted)
        self.runc("run", "--detach", "--pid-file", self.folder / "pid", self.id).must()
        return self.pid_in("pid")

    def into(self, **wanted):
        """Starts a container for `exec`."""
        init = self.start(**wanted)
        self.seen.names.pid(init, "init")
        self.seen.names.space("init", init)
        self.forget_log()

    def pid_in(self, file):
        return int(read(self.folder / file))

    def see_process(self, when, pid, command="sleep"):
        """Adds what /proc shows once the process runs its command. `command=None`: an init that `create` left
        waiting."""
        if command is None:
            wait_for("the init at its fifo", lambda: waits_for_start(pid))
        else:
            wait_for(command, lambda: read(f"/proc/{pid}/comm").strip() == command)
        self.seen.process(when, pid)

    # -- what is observed -----------------------------------------------------------------------------------

    def see(self, when, ended):
        """Adds a command's result."""
        self.seen.add(f"{when}: status", [str(ended.status)])
        self.seen.add(f"{when}: stdout", ended.out)
        self.seen.add(f"{when}: stderr", [timeless(line) for line in ended.err.splitlines()])

    def see_log(self, when):
        """Adds the log records since the last call, and removes them."""
        self.seen.log(when, log_lines(read(self.log) if self.log.exists() else ""))
        self.log.unlink(missing_ok=True)

    def forget_log(self):
        self.log.unlink(missing_ok=True)

    def said(self, field):
        """The lines of a field that was added."""
        return "\n".join(self.seen.fields[field])

    # -- surroundings ---------------------------------------------------------------------------------------

    def holder(self, *flags):
        """Starts a process with its own namespaces; returns its pid."""
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
        """Waits until all processes have ended by themselves."""
        wait_for("the end of all processes", lambda: set(undo.living()) <= set(self.held))

    def finish(self):
        """Ends all processes, deletes the containers, and adds what is left."""
        # First the inits: `delete --force` waits forever for a dead one that only we can reap.
        undo.end_children()
        for name in sorted(os.listdir(self.state)):
            self.seen.add("delete", [str(self.runc("delete", "--force", name, debug=False).status)])
        self.seen.add("left: processes", undo.end_children())
        self.seen.add("left: state", os.listdir(self.state))
        self.seen.add("left: cgroups", list(map(str, undo.cgroups_named(self.id))))
        mounts = undo.mounts_below(self.folder)
        self.seen.add("left: mounts", mounts)


def timeless(line):
    """A text line of runc's or the container's without its time and the pids of nsexec's stages."""
    line = re.sub(r'time="[^"]*"', "time=T", line)
    return re.sub(r"(nsexec(?:-\d)?)\[\d+\]", r"\1[N]", line)


def logrus(text):
    """Converts logrus' text form to JSON lines."""
    lines = []
    for found in re.finditer(r'^time="[^"]*" level=(\w+) msg=("(?:[^"\\]|\\.)*"|\S+)', text, re.MULTILINE):
        message = json.loads(found[2]) if found[2].startswith('"') else found[2]
        lines.append(json.dumps({"level": found[1], "msg": message}))
    return "\n".join(lines)


def log_lines(text):
    """runc's JSON log for Observation.log, without lines that vary."""
    lines = []
    for record in map(json.loads, text.splitlines()):
        if not NOISE.search(record["msg"]):
            # Go walks a map to write the offsets, so their order varies.
            record["msg"] = re.sub(r"'(boottime .*)\n(monotonic .*)\n'", r"'\2\n\1\n'", record["msg"])
            lines.append(json.dumps(record))
    return lines
