"""A process dies while a container starts: no other process stays alive, and none hangs.

Runs as part of `run`: cases of suite_runc. The moment is fixed by a newuidmap of ours, which waits before it
executes the real one. Then stage 0 waits for the tool, stage 1 for its map, and runc for the pids of both.
"""

import os
import random
import signal
import subprocess

import undo
from observe import read, waits_for_start
from runc import LIMIT, expect, wait_for

# The number of times that runc is killed in `runc_dies_at_any_moment`, and the latest moment, in seconds
# after its start.
TIMES, WITHIN = 16, 0.08
SEED = 4

TOOL = """\
#!/bin/sh
echo $$ >{folder}/tool
read line <{folder}/gate
exec /usr/bin/newuidmap "$@"
"""


def held(run):
    """Starts `runc run` as an ordinary user, up to newuidmap: returns runc, stage 0, stage 1 and the tool."""
    run.configure(["/bin/true"], **run.many_ids())
    tools = run.folder / "tools"
    tools.mkdir()
    os.mkfifo(run.folder / "gate")
    # Both ends, so that neither side blocks at the open: the tool may be dead by then.
    gate = open(os.open(run.folder / "gate", os.O_RDWR), "w")
    run.stack.callback(gate.close)
    tool = tools / "newuidmap"
    tool.write_text(TOOL.format(folder=run.folder))
    tool.chmod(0o755)
    run.give(run.folder / "gate")
    with open(run.folder / "err", "w") as err:
        child = run.popen("run", run.id, stdout=subprocess.DEVNULL, stderr=err)
    waiting = wait_for("newuidmap", lambda: (run.folder / "tool").exists() and read(run.folder / "tool").strip())
    found = {"runc": child.pid, "tool": int(waiting)}
    for pid in children(child.pid):
        name = read(f"/proc/{pid}/comm").strip()
        if name in ("runc:[0:PARENT]", "runc:[1:CHILD]"):
            found["stage 0" if "0" in name else "stage 1"] = pid
    expect(len(found) == 4, found)
    return child, found, gate


def children(pid):
    tasks = os.listdir(f"/proc/{pid}/task")
    return [int(word) for task in tasks for word in read(f"/proc/{pid}/task/{task}/children").split()]


def dies(run, who):
    """Kills `who`, and then lets the tool continue, if it is alive. (With ours the tool is dead if runc is
    dead: stage 0 kills it.)"""
    child, found, gate = held(run)
    os.kill(found[who], signal.SIGKILL)
    gate.write("go\n")
    gate.flush()
    status = child.wait(LIMIT)
    expect(status == (-signal.SIGKILL if who == "runc" else 1), status, read(run.folder / "err"))
    run.seen.add("status", [str(status)])
    run.nothing_left()


def runc_dies_while_ids_are_mapped(run):
    dies(run, "runc")


def stage_0_dies_while_ids_are_mapped(run):
    dies(run, "stage 0")


def stage_1_dies_while_ids_are_mapped(run):
    dies(run, "stage 1")


def newuidmap_dies(run):
    dies(run, "tool")


def runc_dies_at_any_moment(run):
    """The container's command ends by itself, if it was started. A created container waits for its start even
    if its runc is dead. No other process is left."""
    chance = random.Random(SEED)
    run.for_the_container()
    run.configure(["/bin/true"], namespaces=("user", "pid", "ipc", "uts", "mount"), uids=[(0, 100000, 65536)])
    for time in range(TIMES):
        child = run.popen("run", f"{run.id}-{time}", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            child.wait(chance.random() * WITHIN)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait(LIMIT)
        wait_for("the end of all processes that do not wait for a start", lambda: all(map(waits_for_start, undo.living())))
        undo.end_children()
        # runc was dead and could not remove it.
        undo.remove_cgroups(run.id)


CASES = [
    runc_dies_while_ids_are_mapped, stage_0_dies_while_ids_are_mapped, stage_1_dies_while_ids_are_mapped,
    newuidmap_dies, runc_dies_at_any_moment,
]
