"""What a run leaves behind, taken away again: also where it fails, or is interrupted.

Who this is: part of `run`, the subreaper of all that it starts. It kills only its own descendants, by pid; it unmounts
below its own folder, and removes cgroups and state of containers that it named itself.
"""

import ctypes
import os
import shutil
import signal
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from parent import OUTSIDERS

# All our containers and folders begin so; the pid tells two runs apart.
PREFIX = "nsexec-client"

libc = ctypes.CDLL(None, use_errno=True)


def become_subreaper():
    """From now on whatever of ours loses its parent becomes our child."""
    if libc.prctl(36, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "PR_SET_CHILD_SUBREAPER")


def children():
    """Our own, from the kernel: living ones and zombies; without those that a case needs to its end."""
    found = []
    for task in os.listdir("/proc/self/task"):
        try:
            found += map(int, Path(f"/proc/self/task/{task}/children").read_text().split())
        except OSError:
            pass
    return [pid for pid in found if pid not in OUTSIDERS]


def living():
    """Our descendants that have not ended; our own dead children are reaped."""
    found, rest = [], children()
    while rest:
        pid = rest.pop()
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0]
            for task in os.listdir(f"/proc/{pid}/task"):
                rest += map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split())
            if state != "Z":
                found.append(pid)
            else:
                os.waitpid(pid, os.WNOHANG)
        except (OSError, IndexError):
            pass
    return found


def end_children():
    """Kills and reaps what is left of our descendants; tells which lived. A child of a killed one becomes ours.

    No wait for a single one: the first process of a pid namespace ends only after the last of the others is reaped."""
    left = {}
    for _ in range(1000):
        now = children()
        if not now:
            break
        for pid in now:
            try:
                state = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0]
                if state != "Z" and pid not in left:
                    left[pid] = f"{Path(f'/proc/{pid}/comm').read_text().strip()} [{pid}]"
                    os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, os.WNOHANG)
            except (OSError, IndexError):
                pass
        time.sleep(0.005)
    return list(left.values())


def settle():
    """Reaps the children that have ended. Names those that live on after a moment: who is to end by himself may."""
    for _ in range(200):
        for pid in children():
            try:
                os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                pass
        if not children():
            return []
        time.sleep(0.01)
    return end_children()


def mounts_below(folder):
    lines = Path("/proc/self/mounts").read_text().splitlines()
    places = [line.split()[1].encode().decode("unicode_escape") for line in lines]
    return [place for place in places if place == str(folder) or place.startswith(f"{folder}/")]


def unmount_below(folder):
    for place in reversed(mounts_below(folder)):
        libc.umount2(place.encode(), 2)  # MNT_DETACH


def cgroups_named(prefix):
    """Directories of all hierarchies whose name begins so, the inner ones first."""
    found = []
    for folder, names, _ in os.walk("/sys/fs/cgroup", topdown=False):
        found += [Path(folder) / name for name in names if name.startswith(prefix) or f"/{prefix}" in folder]
    return found


def remove_cgroups(prefix):
    for folder in cgroups_named(prefix):
        try:
            folder.rmdir()
        except OSError:
            pass


class Undo(ExitStack):
    """What is to be taken away at the end, the last thing first."""

    def folder(self):
        """A folder of this run that everybody may enter; with what is mounted below, it goes at the end."""
        path = Path(tempfile.mkdtemp(prefix=f"{PREFIX}-{os.getpid()}-", dir="/tmp"))
        path.chmod(0o755)

        def remove():
            unmount_below(path)
            shutil.rmtree(path, ignore_errors=True)

        self.callback(remove)
        return path
