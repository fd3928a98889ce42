"""Cleanup of a run, even after a failure or an interrupt.

Runs as part of `run`, as the subreaper of all its processes. It kills only its own descendants, by pid,
unmounts below its own directory, and removes cgroups and state of containers that it named itself.
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

# The prefix of all our containers and directories; the pid distinguishes two runs.
PREFIX = "nsexec-client"

libc = ctypes.CDLL(None, use_errno=True)


def become_subreaper():
    """From now on our descendants become our children when their parent ends."""
    if libc.prctl(36, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "PR_SET_CHILD_SUBREAPER")


def children():
    """The pids of our children from the kernel, living and zombies, without those that a case needs to its
    end."""
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
    """Kills and reaps our remaining descendants; returns those that were alive. A child of a killed process
    becomes ours.

    It never waits for a single process: pid 1 of a pid namespace ends only after the others there are reaped.
    """
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
    """Reaps the children that have ended. Returns those that are still alive after a moment, and kills
    them."""
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
    """Directories of all hierarchies whose name begins with `prefix`, the inner ones first."""
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
    """The cleanup at the end of a run, in reverse order."""

    def folder(self):
        """A directory of this run that every user may enter. It is removed at the end, with the mounts below
        it."""
        path = Path(tempfile.mkdtemp(prefix=f"{PREFIX}-{os.getpid()}-", dir="/tmp"))
        path.chmod(0o755)

        def remove():
            unmount_below(path)
            shutil.rmtree(path, ignore_errors=True)

        self.callback(remove)
        return path
