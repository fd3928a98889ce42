"""The real libcontainer as a library: Debian 12's 1.1.5 with nsexec_v1_1, and sid's with nsexec.

Runs as part of `run`. It starts the client (libcontainer/main.go) as root or as the user nsexec-test, with
runc's own C and with ours. It sends commands line by line, and inspects the processes in between.
"""

import json
import os
import subprocess
import time
from pathlib import Path

import containers
import fixture
import oci
import undo
from build import Go
from observe import Observation, descriptors, inner, waits_for_start
from packages import RUNC_SOURCE, STABLE_GOPATH, Unavailable, install, new_go, say, sid_runc, stable_go, version_of

NAME = "libcontainer"
STABLE, SID = f"{NAME}-debian12", f"{NAME}-sid"
WRONG = "with the wrong dialect"
SOURCE = Path(__file__).with_name("libcontainer")
LIMIT = 30.0


class Client:
    """One running client, and the observation of one case."""

    def __init__(self, binary, folder, container, user=None):
        self.folder, self.container = folder, container
        who = {} if user is None else {"user": user.uid, "group": user.gid, "extra_groups": []}
        self.errors = open(folder / "client.err", "w+")
        self.program = subprocess.Popen(
            [binary], cwd="/", env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=self.errors, text=True, bufsize=1, start_new_session=True, **who,
        )
        self.seen = Observation()
        self.seen.names.pid(self.program.pid, "client")
        self.seen.names.folder(binary, "PROGRAM")
        self.seen.names.folder(folder, "FOLDER")
        self.seen.names.folder(container, "CONTAINER")
        self.read_log = 0
        self.gates = []

    def tell(self, do, **fields):
        self.program.stdin.write(json.dumps({"do": do, **fields}) + "\n")
        self.program.stdin.flush()
        line = self.program.stdout.readline()
        if not line:
            raise RuntimeError(f"the client ended, status {self.program.wait()}: {self.said()}")
        return json.loads(line)

    def said(self):
        self.errors.flush()
        return (self.folder / "client.err").read_text()

    def process(self, when, do, **fields):
        """Creates a container or executes in one, with files as standard descriptors. Returns the pid, or
        None after an error, which is added to the observation."""
        gate = self.folder / f"{when}.in"
        os.mkfifo(gate)
        os.chmod(gate, 0o666)
        # Both ends, so that neither side blocks at the open.
        self.gates.append(os.open(gate, os.O_RDWR | os.O_CLOEXEC))
        for end in ("out", "err"):
            (self.folder / f"{when}.{end}").touch()
            os.chmod(self.folder / f"{when}.{end}", 0o666)
        answer = self.tell(do, stdin=str(gate), stdout=str(self.folder / f"{when}.out"),
                           stderr=str(self.folder / f"{when}.err"), **fields)
        self.log(when)
        self.seen.add(f"{when}: error", answer.get("error", "none"))
        return answer.get("pid")

    def log(self, when):
        # After an error 1.3 does not wait for the end of its log; its descriptors show when the log pipe is
        # closed.
        self.until(lambda: not self.has_log_pipe(), "the client has read its log to the end")
        path = self.folder / "log"
        lines = path.read_text().splitlines() if path.exists() else []
        self.seen.log(when, lines[self.read_log:])
        self.read_log = len(lines)

    def has_log_pipe(self):
        """True if it has one end of a pipe. Of the pipe of Go's own poller it has both ends."""
        lines = [line.split() for line in descriptors(self.program.pid)]
        pipes = [words[1] for words in lines if int(words[0]) > 2 and words[1].startswith("pipe:")]
        return any(pipes.count(pipe) == 1 for pipe in pipes)

    def until(self, holds, what):
        limit = time.monotonic() + LIMIT
        while not holds():
            if time.monotonic() > limit:
                raise RuntimeError(f"not within {LIMIT} s: {what}")
            time.sleep(0.01)

    def until_ready(self, when):
        self.until(lambda: "ready\n" in (self.folder / f"{when}.out").read_text(), f"{when} reports that it is ready")

    def end(self, when, number, pid, status):
        """Lets a waiting process end with this status."""
        os.write(self.gates[number], f"{status}\n".encode())
        answer = self.tell("wait", pid=pid)
        self.seen.add(f"{when}: end", [answer.get("status", ""), answer.get("error", "none")])
        self.output(when)

    def output(self, when):
        for end in ("out", "err"):
            text = (self.folder / f"{when}.{end}").read_text()
            self.seen.add(f"{when}: std{end}", [inner_pids(line) for line in text.splitlines()])

    def close(self):
        self.program.stdin.close()
        status = self.program.wait(LIMIT)
        self.seen.add("client: end", [f"status {status}", *self.said().splitlines()])
        for gate in self.gates:
            os.close(gate)
        self.errors.close()


def inner_pids(line):
    """The pids in /proc/self/status that oci.TELL prints are those of the container."""
    return " ".join(map(inner, line.split())) if line.startswith("NS") else line


class Case:
    """A container: its specification, its user, and the expected results."""

    def __init__(self, name, *, rootless=False, only=None, setup=None, extra=0, mended=None, **spec):
        self.name, self.spec = name, spec
        # The row of docs/deviations.md that explains why it fails with runc's C only.
        self.mended = mended
        # As an ordinary user; with one client only; preparations; descriptors that the process keeps.
        self.rootless, self.only, self.setup, self.extra = rootless, only, setup, extra


ROOT_MAP = [(0, 100000, 65536)]
USERNS = ("user", *oci.BASIC)
ROOTLESS = ("user", "pid", "ipc", "uts", "mount")


def foreign_network(wanted, folder, stack):
    """A network namespace of the machine as `ip netns add` makes it: a file, held by a mount."""
    place = folder / "network"
    place.touch()
    subprocess.run(["unshare", f"--net={place}", "true"], check=True)
    stack.callback(subprocess.run, ["umount", place])
    wanted["join"] = {"network": place}


def pod(*kinds):
    """Joins these kinds of namespaces of a live process, as the containers of a pod do."""

    def setup(wanted, folder, stack):
        holder = stack.enter_context(containers.Container(None, [FILES[kind] for kind in kinds]))
        wanted["join"] = {kind: holder.path(FILES[kind]) for kind in kinds}
        return holder.pid

    return setup


# The names in /proc/PID/ns of kinds that the specification names differently.
FILES = {kind: kind for kind in ("user", "ipc", "uts", "pid", "cgroup", "time")} | {"network": "net", "mount": "mnt"}


def file_instead_of_network(wanted, folder, stack):
    """A file that is not a namespace: Go only checks that it exists."""
    foreign_network(wanted, folder, stack)
    wanted["join"] = {"network": folder / "log"}
    (folder / "log").touch()


def closed_sources(wanted, folder, stack):
    """A directory and a file below a directory that only root may enter, and not the container's root."""
    closed = folder / "closed"
    (closed / "directory").mkdir(parents=True)
    (closed / "directory/file").write_text("behind a closed door\n")
    (closed / "other").write_text("another file\n")
    closed.chmod(0o700)
    wanted["mounts"] = [
        oci.bind(closed / "directory", "/data", "ro"),
        oci.mount("/tmp", "tmpfs", "tmpfs"),
        oci.bind(closed / "other", "/tmp/other"),
    ]
    wanted["tell"] = "ls /data; cat /data/file /tmp/other; cat /proc/self/mountinfo | cut -d' ' -f5,6\n"


DAY = {"monotonic": {"secs": 86400, "nanosecs": 5}, "boottime": {"secs": 172800, "nanosecs": 0}}
UPTIME = 'read -r up rest < /proc/uptime; [ "${up%.*}" -gt 172800 ] && echo two days ahead\n'

CASES = [
    Case("as root", oom=500),
    Case("as another user", user=(5, 5, (7, 8))),
    Case("with a user namespace", namespaces=USERNS, uids=ROOT_MAP),
    Case("with a cgroup namespace", namespaces=(*oci.BASIC, "cgroup")),
    Case("with all namespaces", namespaces=(*USERNS, "cgroup"), uids=ROOT_MAP, oom=100),
    Case("rootless with one id", rootless=True, namespaces=ROOTLESS, uids="one"),
    Case("rootless with newuidmap and newgidmap", rootless=True, namespaces=(*USERNS, "cgroup"), uids="subordinate"),
    Case("with mount sources behind a closed door", namespaces=USERNS, uids=ROOT_MAP, setup=closed_sources),
    Case("with a foreign network namespace", namespaces=("pid", "ipc", "uts", "mount"), setup=foreign_network),
    Case("with a user namespace and a foreign network namespace", only=SID, namespaces=ROOTLESS, uids=ROOT_MAP,
         setup=foreign_network),
    Case("with time offsets", only=SID, namespaces=(*oci.BASIC, "time"), offsets=DAY, tell=UPTIME),
    Case("with a user namespace and time offsets", only=SID, namespaces=(*USERNS, "time"), uids=ROOT_MAP, offsets=DAY,
         tell=UPTIME),
    Case("rootless with time offsets", only=SID, rootless=True, namespaces=(*ROOTLESS, "time"), uids="one", offsets=DAY,
         tell=UPTIME),
    # The number of the init pipe then has more than one digit.
    Case("with descriptors to keep", extra=8),
    Case("without a pid namespace", namespaces=("network", "ipc", "uts", "mount")),
    Case("in a pod", namespaces=("mount", "pid"), setup=pod("network", "ipc", "uts")),
    Case("in a pod with a pid namespace", namespaces=("mount",), setup=pod("network", "ipc", "uts", "pid")),
    Case("in a pod with a user namespace", namespaces=("mount", "pid"), setup=pod("user", "network", "ipc", "uts"),
         uids=[(0, fixture.FIRST, 1000)]),
    Case("with a file that is not a network namespace", namespaces=("pid", "ipc", "uts", "mount"),
         setup=file_instead_of_network),
    Case("with maps that overlap", namespaces=USERNS, uids=[(0, 100000, 10), (5, 200000, 10)]),
    Case("rootless with ids of another user", rootless=True, namespaces=USERNS, uids="foreign"),
    Case("with a command that is not there", args=["/bin/nothing"]),
    Case("rootless with twenty-one lines of a map", rootless=True, namespaces=USERNS, uids="one by one",
         mended="arguments of the mapping tool"),
    # Only the exec: then the user namespace is joined first, which does not own the network.
    Case("with a user namespace and a foreign network namespace, mended", only=STABLE, namespaces=ROOTLESS,
         uids=ROOT_MAP, setup=foreign_network, mended="order of joins"),
]


def maps(user, how):
    """Root inside is the user outside; further ids come from /etc/subuid, or do not belong to the user."""
    more = {
        "one": [],
        "subordinate": [(1, fixture.FIRST, fixture.COUNT)],
        "one by one": [(1 + i, fixture.FIRST + 2 * i, 1) for i in range(20)],
        "foreign": [(1, 200000, 10)],
    }[how]
    return [(0, user.uid, 1), *more], [(0, user.gid, 1), *more]


def run_case(case, binary, root):
    """Runs one case once; returns all that it showed."""
    with undo.Undo() as stack:
        folder = stack.folder()
        user = fixture.ordinary_user() if case.rootless else None
        container = f"{undo.PREFIX}.{os.getpid()}.box"
        stack.callback(undo.remove_cgroups, container)
        stack.callback(undo.end_children)
        if user is not None:
            os.chown(folder, user.uid, user.gid)
        wanted = dict(case.spec)
        if user is not None:
            wanted["uids"], wanted["gids"] = maps(user, wanted["uids"])
        pod_pid = case.setup(wanted, folder, stack) if case.setup is not None else None
        client = Client(binary, folder, container, user)
        if pod_pid is not None:
            client.seen.names.pid(pod_pid, "pod")
            client.seen.names.space("pod", pod_pid)
        args = wanted.pop("args", oci.shell(oci.TELL + wanted.pop("tell", "") + oci.WAIT))
        spec = oci.spec(root, args, **wanted)
        follow(case, client, spec)
        return client.seen


def follow(case, client, spec):
    """create, inspect, start, inspect, exec, inspect, end of both, delete, inspect."""
    seen = client.seen
    state = client.folder / "state"
    init = client.process("init", "create", root=str(state), id=client.container, log=str(client.folder / "log"),
                          spec=spec, extra=case.extra)
    if init is not None:
        seen.names.space("container", init)
        client.until(lambda: waits_for_start(init), "the created container waits for its start")
        seen.process("created", init)
        seen.add("start", client.tell("start").get("error", "none"))
        if case.spec.get("args"):
            client.end("init", 0, init, 7)
            client.close()
            return
        client.until_ready("init")
        seen.process("running", init)
        process = oci.process(oci.shell(oci.TELL + oci.WAIT), *(() if case.rootless else (5, 5)))
        inside = client.process("exec", "exec", process=process, extra=case.extra)
        if inside is not None:
            client.until_ready("exec")
            seen.process("executed", inside)
            client.end("exec", 1, inside, 3)
        client.end("init", 0, init, 7)
        client.log("end")
        seen.add("delete", client.tell("delete").get("error", "none"))
    else:
        client.output("init")
    client.close()
    seen.add("left: processes", undo.settle())
    seen.add("left: state", sorted(os.listdir(state)) if state.exists() else [])
    seen.add("left: cgroups", sorted(map(str, undo.cgroups_named(client.container))))


class Version:
    """One libcontainer: how it is built, its tags and the wrong tags, and its cases."""

    def __init__(self, client, go, flags, wrong):
        self.client, self.go, self.flags, self.wrong = client, go, flags, wrong
        self.cases = [case for case in CASES if case.only in (None, client)]


def stable():
    install(RUNC_SOURCE)
    say(f"Debian 12: {RUNC_SOURCE} {version_of(RUNC_SOURCE)}")
    return Version(STABLE, Go(stable_go(), STABLE_GOPATH), ["libcontainer_1_1", "nsexec_v1_1"], ["libcontainer_1_1"])


def sid():
    return Version(SID, Go(new_go(), sid_runc().gopath), [], ["nsexec_v1_1"])


def suite(job, stack):
    finders = {STABLE: stable, SID: sid}
    names = [*(case.name for case in CASES), WRONG]
    wanted = [client for client in finders if any(job.wants(client, name) for name in names)]
    if not wanted:
        return
    install("uidmap")
    root = oci.busybox_root(stack.folder())
    for client in wanted:
        try:
            version = finders[client]()
        except Unavailable as reason:
            job.judge.skip(client, reason)
        else:
            one_version(job, stack, root, version)


def one_version(job, stack, root, version):
    binaries = stack.folder()
    theirs = version.go.build(SOURCE, binaries / "runc-c/client", f"-tags={','.join(version.flags)}")
    if job.c_only:
        ours = theirs
    else:
        tags = ",".join([*version.flags, "nsexec_ours"])
        ours = version.go.build(SOURCE, binaries / "ours/client", f"-tags={tags}", ours=True)
    for case in version.cases:
        if job.wants(version.client, case.name):
            first, second = runcs_c(case, theirs, root), run_case(case, ours, root)
            if case.mended is None:
                job.judge.compare(version.client, case.name, first, second)
            elif not job.c_only:
                job.judge.mended(version.client, case.name, case.mended, failures(first), failures(second))
    if not job.c_only and job.wants(version.client, WRONG):
        tags = ",".join([*version.wrong, "nsexec_ours"])
        wrong = version.go.build(SOURCE, binaries / "wrong/client", f"-tags={tags}", ours=True)
        job.judge.check(f"{version.client} {WRONG}", wrong_dialect(wrong, root))
    job.judge.compared.add(version.client)


def runcs_c(case, binary, root):
    """run_case with runc's C; it is repeated if only the copy of the program failed."""
    for _ in range(5):
        seen = run_case(case, binary, root)
        if not seen.lost_its_copy():
            break
        say(f"        {case.name}: runc's C could not seal its copy; once more")
    return seen


def failures(seen):
    """The failures of a case, from the start to the end."""
    wanted = {field: ["none"] for field in seen.fields if field.endswith(": error") or field == "start"}
    wanted |= {"init: end": ["exit status 7", "none"], "exec: end": ["exit status 3", "none"], "left: processes": []}
    return [f"{field}: {seen.fields.get(field)}" for field in wanted if seen.fields.get(field) != wanted[field]]


def wrong_dialect(binary, root):
    """Returns an error if a container starts or a process is left with an nsexec of the other side of 1.2.
    (Such a libcontainer removes cgroups too early, so leftover cgroups do not count.)"""
    seen = run_case(CASES[0], binary, root)
    error = seen.fields["init: error"]
    left = seen.fields["left: processes"]
    return "" if error != ["none"] and not left else f"error: {error}; left: {left}"
