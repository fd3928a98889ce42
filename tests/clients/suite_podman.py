"""podman with each runc as its runtime: run, exec, create and start, maps, shared namespaces, and failures.

Runs as part of `run`, as root. podman's images, containers, locks and sockets are below a directory of this
run, and its processes (conmon, containers) are our descendants. The image is made of the busybox root, and
imported.
"""

import json
import re
import subprocess
import time
import traceback
from pathlib import Path

import oci
import runtimes
import undo
from observe import Observation, read
from packages import install
from runc import ASK, LIMIT, Ended, at_a_terminal, expect, log_lines, timeless, title, wait_for

NAME = "podman"
IMAGE = "localhost/busybox:1"
# Without the machine's network and with low limits: a test machine may not allow more.
FLAGS = ["--network", "none", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024", "--hostname", "inside"]
MAPS = ["--uidmap", "0:100000:65536", "--gidmap", "0:100000:65536"]
CACHE = Path("/var/lib/containers/cache/blob-info-cache-v1.boltdb")
SLEEP = ("sleep", "1000")
CONFIGURATION = """\
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
lock_type = "file"
"""


def without_cache(stack):
    """Restores podman's cache of layers at the end; no option sets another place for it."""
    before = CACHE.exists()
    made = [folder for folder in (CACHE.parent, CACHE.parent.parent) if not folder.exists()]

    def remove():
        if not before:
            CACHE.unlink(missing_ok=True)
        for folder in made:
            if folder.exists():
                folder.rmdir()

    stack.callback(remove)


class Podman:
    """An engine of our own: its directory, and the runc that it calls."""

    def __init__(self, stack, binary, root):
        self.binary, self.folder = binary, stack.folder()
        self.counter = 0
        for name in ("home", "run", "tmp"):
            (self.folder / name).mkdir()
        (self.folder / "containers.conf").write_text(CONFIGURATION)
        stack.callback(undo.end_children)
        self.options = [
            "--root", self.folder / "storage", "--runroot", self.folder / "run/root",
            "--tmpdir", self.folder / "run/libpod", "--storage-driver", "vfs",
            "--cgroup-manager", "cgroupfs", "--runtime", binary,
        ]
        archive = self.folder / "root.tar"
        subprocess.run(["tar", "-C", root, "--sort=name", "-cf", archive, "."], check=True)
        self.podman("import", archive, IMAGE).must()

    def argv(self, *words):
        return ["podman", *map(str, self.options), *map(str, words)]

    def popen(self, *words, **how):
        environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(self.folder / "home"),
            "XDG_RUNTIME_DIR": str(self.folder / "run"), "TMPDIR": str(self.folder / "tmp"),
            "CONTAINERS_CONF": str(self.folder / "containers.conf"),
        }
        how = {"stdin": subprocess.DEVNULL, "cwd": "/", "env": environment, **how}
        return subprocess.Popen(self.argv(*words), **how)

    def podman(self, *words, **how):
        """Runs a command with files as output: conmon may hold them open for longer."""
        self.counter += 1
        out, err = (self.folder / f"{end}{self.counter}" for end in ("out", "err"))
        with open(out, "w") as out_file, open(err, "w") as err_file:
            status = self.popen(*words, stdout=out_file, stderr=err_file, **how).wait(LIMIT)
        return Ended(status, read(out), read(err))


class Case:
    """One run of one case: its containers, named by the case, and the observation."""

    def __init__(self, engine):
        self.engine = engine
        self.seen = Observation()
        self.seen.names.folder(engine.binary.parent, "BINARY")
        self.seen.names.folder(engine.folder, "FOLDER")

    def run(self, *words, flags=FLAGS, options=()):
        return self.engine.podman(*options, "run", *flags, *words)

    def start(self, name, *flags, command=SLEEP, options=()):
        """Starts a detached container; returns the pid of its init."""
        self.run("--detach", "--name", name, *flags, IMAGE, *command, options=options).must()
        return self.init_of(name)

    def inspect(self, name):
        return json.loads(self.engine.podman("inspect", name).must().out)[0]

    def init_of(self, name):
        """The pid of its init; replaces the names that differ between two runs."""
        found = self.inspect(name)
        names = self.seen.names
        names.folder(found["Id"], f"ID of {name}")
        for layer in (self.engine.folder / "storage/vfs/dir").iterdir():
            names.folder(layer.name, "LAYER")
        pid = found["State"]["Pid"]
        if pid:
            names.space(name, pid)
        return pid

    def see(self, when, ended):
        self.seen.add(f"{when}: status", [str(ended.status)])
        self.seen.add(f"{when}: stdout", ended.out)
        lines = map(timeless, ended.err.splitlines())
        self.seen.add(f"{when}: stderr", [re.sub(r"\b[0-9a-f]{64}\b", "ID", line) for line in lines])

    def see_process(self, when, pid, command="sleep"):
        wait_for(command, lambda: read(f"/proc/{pid}/comm").strip() == command)
        parent = int(read(f"/proc/{pid}/stat").rsplit(") ", 1)[1].split()[1])
        self.seen.names.pid(parent, read(f"/proc/{parent}/comm").strip())
        self.seen.process(when, pid)
        # podman walks a map of them.
        self.seen.fields[f"{when}: mounts"].sort()

    def said(self, field):
        return "\n".join(self.seen.fields[field])

    def remove(self, name):
        """Removes a container. podman's own cleanup process may still be about to unmount its shm: EBUSY then."""
        deadline = time.monotonic() + 10
        while True:
            removed = self.engine.podman("rm", "--force", "--time", "0", name)
            if "device or resource busy" not in removed.err or time.monotonic() > deadline:
                return removed.must()
            time.sleep(0.1)

    def finish(self):
        # The newest first: others may depend on the older ones.
        oldest_first = self.engine.podman("ps", "--all", "--quiet", "--sort", "created").must().out.split()
        for name in reversed(oldest_first):
            self.remove(name)
        self.seen.add("left: processes", undo.settle())
        self.seen.add("left: containers", self.engine.podman("ps", "--all", "--quiet").must().out)
        # One of the engine's own mounts may stay until its end: its storage.
        places = undo.mounts_below(self.engine.folder)
        self.seen.add("left: mounts", [place for place in places if "containers" in place])


def run(case):
    done = case.run("--rm", IMAGE, *oci.shell(f"echo hello; {ASK}\nexit 7")).must(7)
    case.see("run", done)
    expect(done.out.startswith("hello\nuid=0"), done.out)


def run_detached_and_exec(case):
    case.see_process("init", case.start("one"))
    case.see("exec", case.engine.podman("exec", "one", *oci.shell(f"{ASK}\nexit 9")).must(9))
    case.see("kill", case.engine.podman("kill", "one").must())
    case.see("wait", case.engine.podman("wait", "one").must())
    expect(case.said("wait: stdout") == "137", case.seen.fields)


def run_with_maps(case):
    case.see_process("init", case.start("one", *MAPS))
    expect(case.said("init: uid_map").split() == "0 100000 65536".split(), case.seen.fields)
    done = case.engine.podman("exec", "--user", "5:5", "one", *oci.shell(ASK)).must()
    case.see("exec", done)
    expect("uid=5" in done.out, done.out)


def run_with_a_cgroup_namespace(case):
    case.see_process("init", case.start("one", "--cgroupns", "private"))
    expect("cgroup cgroup:one" in case.said("init: ns"), case.seen.fields["init: ns"])


def run_with_a_source_behind_a_closed_door(case):
    closed = case.engine.folder / "closed"
    (closed / "inner").mkdir(parents=True, exist_ok=True)
    (closed / "inner/file").write_text("of the host\n")
    closed.chmod(0o700)
    done = case.run("--rm", *MAPS, "--volume", f"{closed}/inner:/data", IMAGE, "cat", "/data/file").must()
    case.see("run", done)
    expect(done.out == "of the host\n", done.out)


def run_in_namespaces_of_another(case):
    case.start("one")
    shared = [word for kind in ("network", "ipc", "pid") for word in (f"--{kind}", "container:one")]
    flags = [flag for flag in FLAGS[2:] if flag not in ("--hostname", "inside")]
    case.run("--detach", "--name", "two", *shared, IMAGE, *SLEEP, flags=flags).must()
    case.see_process("init", case.init_of("two"))
    expect(case.said("init: ns").count(":one") == 3, case.seen.fields["init: ns"])


def create_start_and_stop(case):
    """`stop` sends SIGTERM, for which the container has a handler."""
    script = "trap 'exit 3' TERM; echo ready; while :; do sleep 0.1; done"
    case.engine.podman("create", "--name", "one", *FLAGS, IMAGE, *oci.shell(script)).must()
    case.see("start", case.engine.podman("start", "one").must())
    wait_for("the command", lambda: "ready" in case.engine.podman("logs", "one").out)
    case.init_of("one")
    case.see("stop", case.engine.podman("stop", "--time", "50", "one").must())
    case.see("wait", case.engine.podman("wait", "one").must())
    expect(case.said("wait: stdout") == "3", case.seen.fields)


def run_with_debug(case):
    """The records that the runtime leaves in conmon's file."""
    case.see_process("init", case.start("one", options=["--runtime-flag", "debug"]))
    path = case.engine.folder / "run/root/vfs-containers" / case.inspect("one")["Id"] / "userdata/oci-log"
    case.seen.log("init", log_lines(read(path)))
    expect("=> nsexec container setup" in case.said("init: log of nsexec"), case.seen.fields)


def run_at_a_terminal(case):
    script = oci.shell("tty; test -t 0 && echo a terminal; exit 4")
    done = at_a_terminal(case.engine, "run", *FLAGS, "--rm", "--interactive", "--tty", IMAGE, *script)
    case.see("run", done)
    expect("a terminal" in done.must(4).out, done.out)


def with_a_command_that_is_not_there(case):
    case.see("run", case.run("--rm", IMAGE, "/bin/absent").must(127))


def with_a_command_that_is_not_executable(case):
    case.see("run", case.run("--rm", IMAGE, "/etc/passwd").must(126))


def with_a_path_that_is_not_a_namespace(case):
    """podman checks no more than runc does."""
    file = case.engine.folder / "file"
    file.touch()
    flags = [*FLAGS[2:], "--network", f"ns:{file}"]
    done = case.run("--rm", IMAGE, "true", flags=flags).must_fail()
    case.seen.add("run: status", [str(done.status)])
    expect("setns" in done.err or "not a namespace" in done.err or "OCI runtime error" in done.err, done.err)


def exec_of_a_command_that_is_not_there(case):
    case.start("one")
    case.see("exec", case.engine.podman("exec", "one", "/bin/absent").must(127))


CASES = [
    run, run_detached_and_exec, run_with_maps, run_with_a_cgroup_namespace, run_with_a_source_behind_a_closed_door,
    run_in_namespaces_of_another, create_start_and_stop, run_with_debug, run_at_a_terminal,
    with_a_command_that_is_not_there, with_a_command_that_is_not_executable, with_a_path_that_is_not_a_namespace,
    exec_of_a_command_that_is_not_there,
]


def suite(job, stack):
    if not any(job.wants(f"{NAME}-{line}", title(case)) for line in runtimes.LINES for case in CASES):
        return
    install("podman", "conmon")
    without_cache(stack)
    root = oci.busybox_root(stack.folder())
    for client, _, binaries in runtimes.each_line(job, NAME, map(title, CASES)):
        with undo.Undo() as inner:
            copies = runtimes.for_all_users(inner, binaries)
            engines = {side: Podman(inner, binary, root) for side, binary in copies.items()}
            for case in CASES:
                if not job.wants(client, title(case)):
                    continue
                try:
                    c, ours = runtimes.observed(case, Case(engines["c"])), runtimes.observed(case, Case(engines["ours"]))
                except Exception:
                    job.judge.fail(f"{client} {title(case)}", traceback.format_exc())
                else:
                    job.judge.compare(client, title(case), c, ours)
        job.judge.compared.add(client)
