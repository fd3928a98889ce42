"""The complete runc at its command line: run, create, start, exec, kill and delete, as root and as an
ordinary user.

Runs as part of `run`. Each function below is a case: it is called with a Runc that holds one binary, inspects
processes, and checks what must hold with both binaries. The caller compares the two observations.
"""

import array
import json
import os
import select
import socket
import traceback

import oci
import runc_deaths
import runc_refusals
import runtimes
import undo
from packages import install
from runc import ASK, FIRST, LIMIT, TWO_EXTENTS, WITH_USER, Runc, at_a_terminal, expect, gone, log_lines, logrus
from runc import title, wait_for

NAME = "runc"
TERMINAL = [oci.mount("/dev/pts", "devpts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620")]


# -- run, as root ------------------------------------------------------------------------------------------


def run(run):
    """With the records that runc's own suite checks (debug.bats)."""
    done = run.run(oci.shell(f"echo hello; {ASK}")).must()
    run.see("init", done)
    run.see_log("init")
    expect("hello" in done.out, done.out)
    expect("=> nsexec container setup" in run.said("init: log of nsexec"), run.seen.fields)
    expect("child process in init()" in run.said("init: log of go"), run.seen.fields)


def run_with_debug_on_stderr(run):
    run.configure(["/bin/echo", "hello"])
    done = run.runc("--debug", "run", run.id, debug=False).must()
    expect("level=debug" in done.err and "nsexec container setup" in done.err, done.err)
    run.seen.log("init", log_lines(logrus(done.err)))
    expect("affinity: 0x" in done.err or run.line == "debian12", done.err)


def run_without_debug(run):
    run.configure(["/bin/echo", "hello"])
    done = run.runc("run", run.id, debug=False).must()
    expect((done.out, done.err) == ("hello\n", ""), done.out, done.err)


def run_with_a_status(run):
    run.see("init", run.run(oci.shell("exit 37")).must(37))


def run_with_a_mount_namespace_alone(run):
    run.see("init", run.run(oci.shell(ASK.replace("hostname;", "")), namespaces=("mount",)).must())
    run.see_log("init")


def run_detached(run):
    run.see_process("init", run.start(oom=500))
    expect(run.said("init: oom_score_adj") == "500", run.seen.fields)
    run.see_log("init")


def run_in_a_user_namespace(run):
    run.for_the_container()
    run.see_process("init", run.start(namespaces=WITH_USER, uids=TWO_EXTENTS))
    expect(run.said("init: uid_map").split() == "0 100000 1000 1000 300000 500".split(), run.seen.fields)
    run.see_log("init")


def every_kind(run):
    kinds = (*WITH_USER, "cgroup")
    if run.line == "debian12":
        return {"namespaces": kinds, "uids": TWO_EXTENTS}
    offsets = {"monotonic": {"secs": 86400, "nanosecs": 5}, "boottime": {"secs": 7}}
    return {"namespaces": (*kinds, "time"), "uids": TWO_EXTENTS, "offsets": offsets}


def run_in_every_namespace(run):
    run.for_the_container()
    run.see_process("init", run.start(**every_kind(run)))
    expect("host" not in run.said("init: ns") or run.line == "debian12", run.seen.fields["init: ns"])
    if run.line != "debian12":
        expect(run.said("init: timens_offsets") == "monotonic 86400 5\nboottime 7 0", run.seen.fields)
    run.see_log("init")


def run_in_namespaces_of_another(run):
    holder = run.holder("--net", "--ipc", "--uts")
    paths = {kind: f"/proc/{holder}/ns/{file}" for kind, file in (("network", "net"), ("ipc", "ipc"), ("uts", "uts"))}
    run.see_process("init", run.start(namespaces=("pid", "mount"), join=paths))
    expect(run.said("init: ns").count("holder") == 3, run.seen.fields["init: ns"])
    run.see_log("init")


def with_a_user_namespace_and_a_foreign_network_namespace(run):
    """The host's user namespace owns the network, and the container has its own user namespace
    (runc#4390)."""
    run.for_the_container()
    holder = run.holder("--net")
    kinds, join = ("user", "pid", "ipc", "uts", "mount"), {"network": f"/proc/{holder}/ns/net"}
    run.see_process("init", run.start(namespaces=kinds, join=join, uids=TWO_EXTENTS))
    expect("net net:holder" in run.said("init: ns"), run.seen.fields["init: ns"])
    run.see_log("init")


def run_in_a_user_namespace_of_another(run):
    """1.1 refuses it without maps, in Go; sid joins it, and a network that it owns."""
    run.for_the_container()
    holder = run.holder("--user", "--net")
    paths = {"user": f"/proc/{holder}/ns/user", "network": f"/proc/{holder}/ns/net"}
    run.configure(namespaces=("pid", "ipc", "uts", "mount"), join=paths)
    done = run.runc("run", "--detach", "--pid-file", run.folder / "pid", run.id)
    run.see("init", done)
    if run.line == "debian12":
        expect("no uid mappings found" in done.err, done.err)
    else:
        done.must()
        run.see_process("init", run.pid_in("pid"))
        expect(run.said("init: ns").count("holder") == 2, run.seen.fields["init: ns"])
    run.see_log("init")


def run_in_a_pid_namespace_of_another(run):
    """The init is then not pid 1."""
    first = run.start()
    run.seen.names.pid(first, "first")
    run.seen.names.space("first", first)
    run.forget_log()
    run.configure(namespaces=("ipc", "uts", "mount", "network"), join={"pid": f"/proc/{first}/ns/pid"})
    run.runc("run", "--detach", "--pid-file", run.folder / "pid2", f"{run.id}-2").must()
    run.see_process("second", run.pid_in("pid2"))
    expect("pid pid:first" in run.said("second: ns"), run.seen.fields["second: ns"])
    run.see_log("init")


def bind_sources_out_of_reach(run):
    """Below a directory that the container's root may not enter: 1.1 passes descriptors between the stages
    for this."""
    run.for_the_container()
    secret = run.folder / "secret"
    mounts = []
    for name in ("a", "b", "c"):
        (secret / name).mkdir(parents=True)
        (secret / name / "file").write_text(f"of {name}\n")
        (run.root / "data" / name).mkdir()
        mounts.append(oci.bind(secret / name, f"/data/{name}"))
    secret.chmod(0o700)
    script = "cat /data/a/file /data/b/file /data/c/file; stat -c %u:%a /data/a; exit 5"
    done = run.run(oci.shell(script), namespaces=WITH_USER, uids=TWO_EXTENTS, mounts=mounts)
    run.see("init", done)
    run.see_log("init")
    expect(done.must(5).out.startswith("of a\nof b\nof c\n"), done.out)


# -- create, start, kill -----------------------------------------------------------------------------------


def create_and_start(run):
    """The waiting init is stage 2 itself: its descriptors are those that nsexec left to Go."""
    run.configure(oci.shell("trap 'exit 3' TERM; echo ready; while :; do sleep 0.1; done"))
    run.see("create", run.runc("create", "--pid-file", run.folder / "pid", run.id).must())
    pid, created = run.pid_in("pid"), run.counter
    run.see_process("created", pid, None)
    run.see_log("create")
    expect(state_of(run) == "created", state_of(run))
    run.forget_log()
    run.see("start", run.runc("start", run.id).must())
    wait_for("the command", lambda: "ready" in (run.folder / f"out{created}").read_text())
    run.see_log("start")
    run.see("kill", run.runc("kill", run.id, "TERM").must())
    wait_for("the end of the init", lambda: gone(pid))
    expect(state_of(run) == "stopped", state_of(run))
    run.see("delete it", run.runc("delete", run.id).must())


def state_of(run):
    return json.loads(run.runc("state", run.id, debug=False).must().out)["status"]


# -- exec --------------------------------------------------------------------------------------------------


def executed(run):
    """Starts a detached process in the container, and inspects it."""
    run.runc("exec", "--detach", "--pid-file", run.folder / "pid2", run.id, "/bin/sleep", "1000").must()
    run.see_process("executed", run.pid_in("pid2"))
    expect("other" not in run.said("executed: ns"), run.seen.fields["executed: ns"])
    run.see_log("exec")


def exec_(run):
    """With the records that runc's own suite checks (debug.bats)."""
    run.into()
    done = run.runc("exec", "--env", "A=b", "--cwd", "/tmp", run.id, *oci.shell(f"pwd; echo $A; {ASK}\nexit 9")).must(9)
    run.see("exec", done)
    run.see_log("exec")
    expect("=> nsexec container setup" in run.said("exec: log of nsexec"), run.seen.fields)
    expect("nsexec-1[" not in run.said("exec: log of go"), run.seen.fields)


def exec_as_another_user(run):
    run.into()
    done = run.runc("exec", "--user", "5:5", "--additional-gids", "7", run.id, "/bin/id").must()
    run.see("exec", done)
    expect("uid=5" in done.out, done.out)


def exec_detached(run):
    run.into()
    executed(run)


def exec_in_a_user_namespace(run):
    run.for_the_container()
    run.into(namespaces=WITH_USER, uids=TWO_EXTENTS)
    done = run.runc("exec", run.id, *oci.shell(ASK)).must()
    run.see("ask", done)
    expect(str(FIRST) in done.out, done.out)
    run.forget_log()
    executed(run)


def exec_in_every_namespace(run):
    run.for_the_container()
    run.into(**every_kind(run))
    executed(run)


def exec_with_an_affinity(run):
    """With the record that runc's own suite checks since 1.3 (cpu_affinity.bats); 1.1 has no affinity
    setting."""
    run.into(affinity={"initial": "0"})
    done = run.runc("exec", run.id, "/bin/grep", "Cpus_allowed_list", "/proc/self/status").must()
    run.see("exec", done)
    run.see_log("exec")
    expect("affinity: 0x1\n" in run.said("exec: log of nsexec") + "\n" or run.line == "debian12", run.seen.fields)


def preserved_descriptors(run):
    """--preserve-fds 2: the caller's descriptors 3 and 4 are open, and no others."""
    script = oci.shell("echo three >&3; echo four >&4; for n in 3 4 5 6 7 8 9; do readlink /proc/$$/fd/$n; done; true")
    run.configure(script)
    run.seen.add("run: said", preserving(run, "run", "--preserve-fds", "2", run.id))
    run.into()
    run.seen.add("exec: said", preserving(run, "exec", "--preserve-fds", "2", run.id, *script))
    for when in ("run", "exec"):
        expect(run.seen.fields[f"{when}: said"] == ["0", "three", "four", "pipe", "pipe"], run.seen.fields)


def preserving(run, *words):
    """Runs with two pipes as 3 and 4; returns the status, and the output of both and of standard output."""
    ends = [os.pipe(), os.pipe(), os.pipe()]
    shell = "exec 1>&$1 3>&$2 4>&$3; eval \"exec $1>&- $2>&- $3>&-\"; shift 3; exec \"$@\""
    high = [os.dup2(writer, 200 + at) for at, (_, writer) in enumerate(ends)]
    argv = ["/bin/bash", "-c", shell, "bash", *map(str, high), *run.argv(*words)]
    for _, writer in ends:
        os.close(writer)
    child = run.popen_argv(argv, pass_fds=high)
    for fd in high:
        os.close(fd)
    status = child.wait(LIMIT)
    out, three, four = (read_all(reader) for reader, _ in ends)
    return [str(status), *three.splitlines(), *four.splitlines(), *out.splitlines()]


def read_all(reader):
    with open(reader) as file:
        return file.read()


# -- terminals ---------------------------------------------------------------------------------------------


def terminals(run):
    """Terminals of `run` and of `exec`."""
    script = oci.shell("tty; test -t 0 && echo a terminal; exit 4")
    run.configure(script, terminal=True, mounts=TERMINAL)
    for_run = at_a_terminal(run, "run", run.id)
    run.see("init", for_run)
    run.see_log("init")
    expect("a terminal" in for_run.must(4).out, for_run.out)
    run.into(mounts=TERMINAL)
    for_exec = at_a_terminal(run, "exec", "--tty", run.id, *script)
    run.see("exec", for_exec)
    expect("a terminal" in for_exec.must(4).out, for_exec.out)


def console_socket(run):
    """`create` sends the terminal's outer end over a socket."""
    run.configure(oci.shell("test -t 0 && echo a terminal; exec sleep 1000"), terminal=True, mounts=TERMINAL)
    path = run.folder / "console"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(LIMIT)
        created = run.popen("create", "--console-socket", path, "--pid-file", run.folder / "pid", run.id)
        connection, _ = listener.accept()
        with connection:
            data, ancillary, _, _ = connection.recvmsg(4096, socket.CMSG_SPACE(4))
    terminal = array.array("i", ancillary[0][2])[0]
    run.seen.add("create", [str(created.wait(LIMIT)), data.decode()])
    run.see_process("created", run.pid_in("pid"), None)
    run.runc("start", run.id).must()
    held = b""
    while b"a terminal" not in held:
        expect(select.select([terminal], [], [], LIMIT)[0], held)
        held += os.read(terminal, 4096)
    run.see_process("running", run.pid_in("pid"))
    run.seen.add("said", held.decode())
    os.close(terminal)


# -- an ordinary user --------------------------------------------------------------------------------------


def started_by_a_user(run, wanted, *exec_options):
    run.see_process("init", run.start(**wanted))
    run.see_log("init")
    run.seen.names.pid(run.pid_in("pid"), "init")
    run.see("exec", run.runc("exec", *exec_options, run.id, *oci.shell(f"{ASK}\nexit 6")).must(6))
    run.see_log("exec")


def rootless_with_one_id(run):
    started_by_a_user(run, run.one_id())
    expect(run.said("init: setgroups") == "deny", run.seen.fields)


def rootless_with_newuidmap(run):
    started_by_a_user(run, run.many_ids(), "--user", "5:5")
    expect(len(run.seen.fields["init: uid_map"]) == 2, run.seen.fields)


def rootless_create_and_start(run):
    run.configure(**run.many_ids())
    run.see("create", run.runc("create", "--pid-file", run.folder / "pid", run.id).must())
    run.see_process("created", run.pid_in("pid"), None)
    run.see("start", run.runc("start", run.id).must())
    run.see_log("create and start")


CASES = [
    run, run_with_debug_on_stderr, run_without_debug, run_with_a_status, run_with_a_mount_namespace_alone, run_detached,
    run_in_a_user_namespace, run_in_every_namespace, run_in_namespaces_of_another,
    with_a_user_namespace_and_a_foreign_network_namespace,
    run_in_a_user_namespace_of_another, run_in_a_pid_namespace_of_another, bind_sources_out_of_reach, create_and_start,
    exec_, exec_as_another_user, exec_detached, exec_in_a_user_namespace, exec_in_every_namespace,
    exec_with_an_affinity, preserved_descriptors,
    terminals, console_socket, rootless_with_one_id, rootless_with_newuidmap, rootless_create_and_start,
    *runc_refusals.CASES, *runc_deaths.CASES,
]


def observed(case, binary, line):
    """Runs one case once; returns all that it showed."""
    with undo.Undo() as stack:
        runc = Runc(stack, binary, line)
        case(runc)
        runc.finish()
        return runc.seen


def suite(job, stack):
    install("uidmap", "util-linux")
    for client, line, binaries in runtimes.each_line(job, NAME, map(title, CASES)):
        copies = runtimes.for_all_users(stack, binaries)
        for case in CASES:
            if not job.wants(client, title(case)):
                continue
            try:
                c = observed(case, copies["c"], line.name)
                ours = observed(case, copies["ours"], line.name)
            except Exception:
                job.judge.fail(f"{client} {title(case)}", traceback.format_exc())
            else:
                job.judge.compare(client, title(case), c, ours)
        job.judge.compared.add(client)
