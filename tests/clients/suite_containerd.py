"""containerd, the engine below Kubernetes, with each runc: containers of a plain root directory and of an
image.

Runs as part of `run`, as root, with its own containerd, whose root, state and socket are below this run's
directory. It loads no plugin for Kubernetes. The daemon, its shims and its containers end with the run.
"""

import hashlib
import os
import re
import shutil
import subprocess
import traceback
from pathlib import Path

import oci
import runtimes
import undo
from observe import Observation, read
from packages import install
from runc import ASK, LIMIT, Ended, at_a_terminal, expect, timeless, title, wait_for

NAME = "containerd"
IMAGE = "localhost/busybox:1"
SLEEP = ("/bin/sleep", "1000")
MAPS = ("--uidmap", "0:100000:65536", "--gidmap", "0:100000:65536")
# The names of all containers in the cases.
NAMES = ("one", "two")
# containerd always keeps the sockets of shims here, and its data about a runc that is not in its
# configuration.
PLACE = Path("/run/containerd")

CONFIGURATION = """\
version = 2
root = "{folder}/root"
state = "{folder}/state"
disabled_plugins = [
    "io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt", "io.containerd.internal.v1.tracing",
    "io.containerd.tracing.processor.v1.otlp", "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
]
[grpc]
address = "{folder}/socket"
"""


def without_traces(stack, address, namespace):
    """Removes our files from containerd's own place, and the directories that did not exist before."""
    folders = [PLACE / "s", PLACE / "runc", PLACE]
    made = [folder for folder in folders if not folder.exists()]

    def remove():
        for name in NAMES:
            # A shim derives the name of its socket so.
            digest = hashlib.sha256(f"{address}/{namespace}/{name}".encode()).hexdigest()
            (PLACE / "s" / digest).unlink(missing_ok=True)
        shutil.rmtree(PLACE / "runc" / namespace, ignore_errors=True)
        for folder in made:
            if folder.exists() and not os.listdir(folder):
                folder.rmdir()

    stack.callback(remove)


class Containerd:
    """The daemon, and its client `ctr`."""

    def __init__(self, stack, root):
        self.folder = stack.folder()
        # A cgroup of every hierarchy has this name, too.
        self.namespace = f"{undo.PREFIX}-{os.getpid()}"
        self.counter = 0
        (self.folder / "config.toml").write_text(CONFIGURATION.format(folder=self.folder))
        (self.folder / "tmp").mkdir()
        without_traces(stack, self.folder / "socket", self.namespace)
        stack.callback(undo.remove_cgroups, self.namespace)
        # First the daemon, then the shims, which became our children when their first process ended.
        stack.callback(undo.end_children)
        log = stack.enter_context(open(self.folder / "log", "w"))
        self.environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "TMPDIR": str(self.folder / "tmp")}
        self.daemon = subprocess.Popen(
            ["containerd", "--config", self.folder / "config.toml"], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            env=self.environment,
        )
        wait_for("containerd", lambda: self.ctr("version").status == 0)
        oci.image(root, self.folder / "busybox.tar", IMAGE)
        self.ctr("images", "import", "--snapshotter", "native", self.folder / "busybox.tar").must()

    def argv(self, *words):
        return ["ctr", "--address", str(self.folder / "socket"), "--namespace", self.namespace, *map(str, words)]

    def popen(self, *words, **how):
        how = {"stdin": subprocess.DEVNULL, "cwd": "/", "env": self.environment, **how}
        return subprocess.Popen(self.argv(*words), **how)

    def ctr(self, *words, **how):
        self.counter += 1
        out, err = (self.folder / f"{end}{self.counter}" for end in ("out", "err"))
        with open(out, "w") as out_file, open(err, "w") as err_file:
            status = self.popen(*words, stdout=out_file, stderr=err_file, **how).wait(LIMIT)
        return Ended(status, read(out), read(err))


class Case:
    """One run of one case with a binary."""

    def __init__(self, engine, binary, root):
        self.engine, self.binary, self.root = engine, binary, root
        self.with_binary = [
            "--runc-binary", binary, "--runc-root", engine.folder / "runc", "--fifo-dir", engine.folder / "fifo",
        ]
        self.seen = Observation()
        self.seen.names.folder(binary.parent, "BINARY")
        self.seen.names.folder(engine.folder, "FOLDER")
        self.seen.names.folder(engine.namespace, "NAMESPACE")

    def run(self, name, *command, options=(), image=False):
        where = [IMAGE] if image else [self.root]
        kind = ["--snapshotter", "native"] if image else ["--rootfs"]
        return self.engine.ctr("run", *self.with_binary, *kind, *options, *where, name, *command)

    def start(self, name, command=SLEEP, options=(), image=False):
        """Starts a detached container; returns the pid of its init."""
        self.run(name, *command, options=["--detach", *options], image=image).must()
        return self.init_of(name)

    def init_of(self, name):
        for line in self.engine.ctr("tasks", "list").must().out.splitlines():
            words = line.split()
            if words[0] == name:
                return int(words[1])
        raise AssertionError(f"no task {name}")

    def exec(self, name, *command):
        """Executes a command in a container. On a machine with a high load `ctr` sometimes ends before it has copied
        any output of a short command; then the command is executed again, three times at most."""
        options = ["--fifo-dir", self.engine.folder / "fifo", "--exec-id"]
        for number in ("second", "third", "fourth"):
            ended = self.engine.ctr("tasks", "exec", *options, number, name, *command)
            if ended.out or ended.err:
                break
        return ended

    def see(self, when, ended):
        self.seen.add(f"{when}: status", [str(ended.status)])
        self.seen.add(f"{when}: stdout", ended.out)
        self.seen.add(f"{when}: stderr", [timeless(line) for line in ended.err.splitlines()])

    def see_process(self, when, pid, command="sleep"):
        wait_for(command, lambda: read(f"/proc/{pid}/comm").strip() == command)
        parent = int(read(f"/proc/{pid}/stat").rsplit(") ", 1)[1].split()[1])
        self.seen.names.pid(parent, read(f"/proc/{parent}/comm").strip())
        self.seen.process(when, pid)
        # The number of a snapshot varies.
        for field in (f"{when}: mounts", f"{when}: root and cwd"):
            lines = self.seen.fields[field]
            self.seen.fields[field] = [re.sub(r"snapshots/\d+", "snapshots/N", line) for line in lines]

    def said(self, field):
        return "\n".join(self.seen.fields[field])

    def finish(self):
        """Kills and deletes all tasks, and removes all containers and snapshots; then only the daemon is
        alive."""
        for name in self.engine.ctr("tasks", "list", "--quiet").out.split():
            self.engine.ctr("tasks", "delete", "--force", name).must()
        for name in self.engine.ctr("containers", "list", "--quiet").out.split():
            self.engine.ctr("containers", "delete", name).must()
        wait_for("the end of the shims", lambda: undo.living() == [self.engine.daemon.pid])
        runc = self.engine.folder / "runc" / self.engine.namespace
        self.seen.add("left: state", os.listdir(runc) if runc.exists() else [])
        self.seen.add("left: mounts", undo.mounts_below(self.engine.folder))


def run(case):
    done = case.run("one", *oci.shell(f"echo hello; {ASK}\nexit 5"), options=["--rm"])
    case.see("run", done.must(5))
    expect(done.out.startswith("hello\nuid=0"), done.out)


def run_an_image(case):
    done = case.run("one", *oci.shell(f"echo hello; {ASK}\nexit 5"), options=["--rm"], image=True)
    case.see("run", done.must(5))
    expect(done.out.startswith("hello\nuid=0"), done.out)


def run_detached_and_exec(case):
    case.see_process("init", case.start("one"))
    case.see("exec", case.exec("one", *oci.shell(f"{ASK}\nexit 9")).must(9))


def run_an_image_detached_and_exec(case):
    case.see_process("init", case.start("one", image=True))
    case.see("exec", case.exec("one", *oci.shell(f"{ASK}\nexit 9")).must(9))


def run_with_maps(case):
    """containerd makes the container's root the owner of the image's files; for a plain root directory `ctr`
    maps nothing."""
    case.see_process("init", case.start("one", options=MAPS, image=True))
    expect(case.said("init: uid_map").split() == "0 100000 65536".split(), case.seen.fields)
    done = case.exec("one", *oci.shell(ASK)).must()
    case.see("exec", done)
    expect("100000" in done.out, done.out)


def run_in_a_network_of_another(case):
    first = case.start("one")
    case.seen.names.space("first", first)
    case.see_process("init", case.start("two", options=["--with-ns", f"network:/proc/{first}/ns/net"]))
    expect("net net:first" in case.said("init: ns"), case.seen.fields["init: ns"])


def killed(case):
    """A container that has a handler for SIGTERM."""
    script = "trap 'exit 3' TERM; echo ready; while :; do sleep 0.1; done"
    started = case.engine.popen(
        "run", *case.with_binary, "--rm", "--rootfs", case.root, "one", *oci.shell(script), stdout=subprocess.PIPE,
        text=True,
    )
    expect(started.stdout.readline() == "ready\n")
    case.see("kill", case.engine.ctr("tasks", "kill", "--signal", "SIGTERM", "one").must())
    case.seen.add("run: status", [str(started.wait(LIMIT))])
    started.stdout.close()
    expect(case.said("run: status") == "3", case.seen.fields)


def run_at_a_terminal(case):
    script = oci.shell("tty; test -t 0 && echo a terminal; exit 4")
    done = at_a_terminal(case.engine, "run", *case.with_binary, "--rm", "--tty", "--rootfs", case.root, "one", *script)
    case.see("run", done)
    expect("a terminal" in done.must(4).out, done.out)


def with_a_command_that_is_not_there(case):
    done = case.run("one", "/bin/absent", options=["--rm"]).must_fail()
    case.see("run", done)
    expect("no such file" in done.err, done.err)


def with_a_path_that_is_not_a_namespace(case):
    file = case.engine.folder / "file"
    file.touch()
    case.see("run", case.run("one", "/bin/true", options=["--rm", "--with-ns", f"network:{file}"]).must_fail())


def exec_of_a_command_that_is_not_there(case):
    case.start("one")
    done = case.exec("one", "/bin/absent").must_fail()
    case.see("exec", done)
    expect("no such file" in done.err, done.err)


CASES = [
    run, run_an_image, run_detached_and_exec, run_an_image_detached_and_exec, run_with_maps,
    run_in_a_network_of_another, killed, run_at_a_terminal, with_a_command_that_is_not_there,
    with_a_path_that_is_not_a_namespace,
    exec_of_a_command_that_is_not_there,
]


def suite(job, stack):
    if not any(job.wants(f"{NAME}-{line}", title(case)) for line in runtimes.LINES for case in CASES):
        return
    install("containerd")
    root = oci.busybox_root(stack.folder())
    engine = Containerd(stack, root)
    for client, _, binaries in runtimes.each_line(job, NAME, map(title, CASES)):
        copies = runtimes.for_all_users(stack, binaries)
        for case in CASES:
            if not job.wants(client, title(case)):
                continue
            try:
                c, ours = (runtimes.observed(case, Case(engine, copies[side], root)) for side in ("c", "ours"))
            except Exception:
                job.judge.fail(f"{client} {title(case)}", traceback.format_exc())
            else:
                job.judge.compare(client, title(case), c, ours)
        job.judge.compared.add(client)
